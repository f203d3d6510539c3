"""Weighted soft labels: written out, one row each, or reduced by class symmetry to their distinct values."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ufm._support.arrays import Array, check_integer, check_labels, check_number, to_tensor


@dataclass(frozen=True, eq=False)
class Targets:
    """Weighted soft labels, one row each. Arrays are stored as tensors.

    labels (N, K): rows on the simplex, divided by their sums. weights (N,): probabilities of the rows; positive,
    summing to one up to rounding, and divided by their sum; equal when not given. class_a, class_b (N,) and lam (N,):
    for pair laws, the two classes and the weight of the first (the same class twice with lam = 1 for an unmixed label).
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
        _check_weights(w, y.shape[:1])
        object.__setattr__(self, "labels", y)
        object.__setattr__(self, "weights", (w / w.sum()).to(y))
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
        if (self.labels.device, self.labels.dtype) == (torch.device(device), dtype):
            return self

        def moved(value: Tensor | None) -> Tensor | None:
            return None if value is None else value.to(device, dtype if value.is_floating_point() else None)

        labels, weights = self.labels.to(device, dtype), self.weights.to(device, dtype)
        return Targets(labels, weights, moved(self.class_a), moved(self.class_b), moved(self.lam))

    def block(self, rows: slice | Tensor) -> tuple[Tensor, Tensor]:
        """Return labels and weights of some rows."""
        return self.labels[rows], self.weights[rows]


@dataclass(frozen=True, eq=False)
class PairTargets:
    """Weighted labels lam e_a + (1 - lam) e_b, held as classes and coefficients instead of written out.

    num_classes: K >= 2. class_a, class_b (N,): the classes; equal ones give e_a whatever lam. lam (N,): in [0, 1].
    weights (N,): positive, summing to one; equal when not given. smoothing: label smoothing on top, in [0, 1).
    A solver that streams its targets writes out one block of labels at a time; `labels` writes out all.
    Raises ValueError for classes, coefficients or weights out of range or of different lengths.
    """

    num_classes: int
    class_a: Int[Tensor, "N"]
    class_b: Int[Tensor, "N"]
    lam: Float[Tensor, "N"]
    weights: Float[Tensor, "N"]
    smoothing: float = 0.0

    def __init__(
        self,
        num_classes: int,
        class_a: Int[Array, "N"],
        class_b: Int[Array, "N"],
        lam: Float[Array, "N"],
        weights: Float[Array, "N"] | None = None,
        smoothing: float = 0.0,
    ) -> None:
        """Convert and check the arrays."""
        K = check_integer("num_classes", num_classes, minimum=2)
        x = to_tensor("lam", lam, ndim=1)
        if not len(x) or not bool(((x >= 0) & (x <= 1)).all()):
            raise ValueError("lam: got no value or values outside the interval, expected 0 <= lam <= 1")
        pi = torch.full_like(x, 1 / len(x)) if weights is None else to_tensor("weights", weights, ndim=1).to(x)
        _check_weights(pi, x.shape)
        classes = []
        for name, value in (("class_a", class_a), ("class_b", class_b)):
            c = torch.as_tensor(value, device=x.device)
            if c.is_floating_point() or c.shape != x.shape or not bool(((c >= 0) & (c < K)).all()):
                raise ValueError(f"{name}: got {c.dtype} of shape {tuple(c.shape)}, expected {len(x)} of 0..{K - 1}")
            classes.append(c)
        check_number("smoothing", smoothing, minimum=0, below=1)
        fields = (
            ("num_classes", K),
            ("class_a", classes[0]),
            ("class_b", classes[1]),
            ("lam", x),
            ("weights", pi / pi.sum()),
        )
        for name, value in (*fields, ("smoothing", float(smoothing))):
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        """Return the number of targets N."""
        return len(self.lam)

    def block(self, rows: slice | Tensor) -> tuple[Tensor, Tensor]:
        """Return labels and weights of some rows."""
        y = pair_labels(self.class_a[rows].long(), self.class_b[rows].long(), self.lam[rows], self.num_classes)
        if self.smoothing:
            y = (1 - self.smoothing) * y + self.smoothing / self.num_classes
        return y, self.weights[rows]

    @property
    def labels(self) -> Tensor:
        """The labels (N, K), written out anew each time."""
        return self.block(slice(None))[0]

    def written_out(self) -> Targets:
        """Return the same targets with their labels written out."""
        return Targets(self.labels, self.weights, self.class_a.long(), self.class_b.long(), self.lam)

    def to(self, device: torch.device | str, dtype: torch.dtype) -> "PairTargets":
        """Return the same targets on `device`, their real numbers in `dtype`."""
        a, b = self.class_a.to(device), self.class_b.to(device)
        lam, weights = self.lam.to(device, dtype), self.weights.to(device, dtype)
        return PairTargets(self.num_classes, a, b, lam, weights, self.smoothing)


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


def _check_weights(weights: Tensor, shape: torch.Size) -> None:
    if weights.shape != shape:
        raise ValueError(f"weights: got shape {tuple(weights.shape)}, expected {tuple(shape)}")
    if not bool((weights > 0).all()) or abs(weights.sum().item() - 1) > torch.finfo(weights.dtype).eps ** 0.5:
        raise ValueError(
            f"weights: got smallest {weights.min().item():.3g} and sum {weights.sum().item():.9g}, "
            "expected positive numbers summing to 1"
        )


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
