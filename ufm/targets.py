"""Weighted soft labels: written out, one row each, or reduced by class symmetry to their distinct values."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ufm.arrays import Array, check_labels, to_tensor


@dataclass(frozen=True, eq=False)
class Targets:
    """Weighted soft labels, one row each. Arrays are stored as tensors.

    labels (N, K): rows on the simplex, divided by their sums. weights (N,): probabilities of the rows; positive,
    summing to one; equal when not given. class_a, class_b (N,) and lam (N,): for pair laws, the two classes and the
    weight of the first (the same class twice with lam = 1 for an unmixed label).
    Raises ValueError for labels off the simplex, or weights that are not positive or do not sum to one.
    """

    labels: Float[Tensor, "N K"]
    weights: Float[Tensor, "N"]
    class_a: Int[Tensor, "N"] | None = None
    class_b: Int[Tensor, "N"] | None = None
    lam: Float[Tensor, "N"] | None = None

    def __init__(
        self,
        labels: Float[Array, "N K"],
        weights: Float[Array, "N"] | None = None,
        class_a: Int[Array, "N"] | None = None,
        class_b: Int[Array, "N"] | None = None,
        lam: Float[Array, "N"] | None = None,
    ) -> None:
        """Convert and check the arrays."""
        y = to_tensor("labels", labels, ndim=2)
        check_labels(y)
        y = y / y.sum(1, keepdim=True)
        w = torch.full_like(y[:, 0], 1 / len(y)) if weights is None else to_tensor("weights", weights, ndim=1)
        if w.shape != y.shape[:1]:
            raise ValueError(f"weights: got shape {tuple(w.shape)}, expected {tuple(y.shape[:1])}")
        if not bool((w > 0).all()) or abs(w.sum().item() - 1) > torch.finfo(w.dtype).eps ** 0.5:
            raise ValueError(
                f"weights: got smallest {w.min().item():.3g} and sum {w.sum().item():.9g}, "
                "expected positive numbers summing to 1"
            )
        object.__setattr__(self, "labels", y)
        object.__setattr__(self, "weights", w.to(y))
        for name, value in (("class_a", class_a), ("class_b", class_b), ("lam", lam)):
            column = None if value is None else torch.as_tensor(value, device=y.device)
            if column is not None and column.shape != y.shape[:1]:
                raise ValueError(f"{name}: got shape {tuple(column.shape)}, expected {tuple(y.shape[:1])}")
            object.__setattr__(self, name, column)

    @property
    def num_classes(self) -> int:
        """The number of classes K."""
        return self.labels.shape[1]

    def __len__(self) -> int:
        """Return the number of targets N."""
        return len(self.labels)

    def to(self, device: torch.device | str, dtype: torch.dtype) -> "Targets":
        """Return the same targets on `device`, their real numbers in `dtype`."""

        def moved(value: Tensor | None) -> Tensor | None:
            return None if value is None else value.to(device, dtype if value.is_floating_point() else None)

        labels, weights = self.labels.to(device, dtype), self.weights.to(device, dtype)
        return Targets(labels, weights, moved(self.class_a), moved(self.class_b), moved(self.lam))


@dataclass(frozen=True, eq=False)
class Orbits:
    """A symmetric law with one label per orbit of the class permutations, each label by its distinct values.

    levels (M, L): the values that the label's entries take. counts (M, L): how many of the K entries take each.
    weights (M,): probability of the orbit. For pair laws the columns are (lam, 1 - lam, 0), and lam is the first.
    """

    num_classes: int
    levels: Float[Tensor, "M L"]
    counts: Float[Tensor, "M L"]
    weights: Float[Tensor, "M"]


def pair_labels(
    class_a: Int[Tensor, "N"], class_b: Int[Tensor, "N"], lam: Float[Tensor, "N"], num_classes: int
) -> Float[Tensor, "N K"]:
    """Return the labels lam e_a + (1 - lam) e_b; 1 - lam is formed once. Equal classes give e_a exactly."""
    labels = lam.new_zeros(len(lam), num_classes)
    rows = torch.arange(len(lam), device=lam.device)
    labels[rows, class_b] = 1 - lam
    labels[rows, class_a] = torch.where(class_a == class_b, torch.ones_like(lam), lam)
    return labels


def pair_levels(lam: Float[Tensor, "N"], num_classes: int) -> tuple[Float[Tensor, "N 3"], Float[Tensor, "N 3"]]:
    """Return the distinct values (lam, 1 - lam, 0) of the mixed labels, and their counts (1, 1, K - 2)."""
    levels = torch.stack([lam, 1 - lam, torch.zeros_like(lam)], -1)
    counts = lam.new_tensor([1.0, 1.0, num_classes - 2.0]).expand_as(levels)
    return levels, counts
