"""Laws of the soft label, and the weighted targets that they produce.

A law says with what probability which soft label occurs. `targets` writes it out, one row per label and every pair
of classes; `orbits` writes one label per orbit of the class permutations, at a cost free of the number of classes.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import special
from torch import Tensor

from ufm.arrays import Array, check_integer, check_labels, check_number, to_tensor


@dataclass(frozen=True, eq=False)
class Targets:
    """Weighted soft labels, one row each. Arrays are stored as tensors.

    labels (N, K): rows on the simplex. weights (N,): probabilities of the rows; positive, summing to one; equal
    when not given. class_a, class_b (N,) and lam (N,): for pair laws, the two classes and the weight of the first
    (the same class twice with lam = 1 for an unmixed label).
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


@runtime_checkable
class Law(Protocol):
    """A probability law of the soft label that no permutation of the classes changes."""

    @property
    def num_classes(self) -> int:
        """The number of classes K."""
        ...

    def targets(self, nodes: int = 16) -> Targets:
        """Return the law with every class pair written out, lambda at `nodes` quadrature nodes."""
        ...

    def orbits(self, nodes: int = 64) -> Orbits:
        """Return the same law reduced by class symmetry."""
        ...


@dataclass(frozen=True)
class Mixup:
    """Mixup: y = lam e_a + (1 - lam) e_b, the pair drawn independently and uniformly, lam ~ Beta(alpha, alpha).

    num_classes: K >= 2. alpha: > 0. Pairs of one class (probability 1/K) give the label e_a whatever lam.
    Source: Zhang, Cisse, Dauphin and Lopez-Paz, "mixup: beyond empirical risk minimization", ICLR 2018.
    """

    num_classes: int
    alpha: float = 1.0

    def __post_init__(self) -> None:
        """Raise ValueError for K < 2 or alpha <= 0."""
        check_integer("num_classes", self.num_classes, minimum=2)
        check_number("alpha", self.alpha, above=0)

    def targets(self, nodes: int = 16) -> Targets:
        """Return K + nodes K(K-1)/2 targets: one per class, and every pair a < b at each Gauss-Jacobi node.

        The nodes make a discrete law of its own, which integrates polynomials in lam up to degree 2 nodes - 1 as
        Beta(alpha, alpha) does; it approaches the continuous law as `nodes` grows. Pairs come first class by first
        class, lam running fastest.
        """
        K = self.num_classes
        lam, weights = beta_nodes(self.alpha, nodes)
        pairs = torch.triu_indices(K, K, 1).repeat_interleave(nodes, 1)
        same = torch.arange(K)
        class_a, class_b = torch.cat([same, pairs[0]]), torch.cat([same, pairs[1]])
        pair_lam = torch.cat([torch.ones(K, dtype=lam.dtype), lam.repeat(K * (K - 1) // 2)])
        pi = torch.cat([torch.ones(K, dtype=lam.dtype), 2 * weights.repeat(K * (K - 1) // 2)]) / K**2
        return Targets(pair_labels(class_a, class_b, pair_lam, K), pi, class_a, class_b, pair_lam)

    def orbits(self, nodes: int = 64) -> Orbits:
        """Return 1 + nodes orbits: the same-class label, and one mixed label per Gauss-Jacobi node."""
        K = self.num_classes
        lam, weights = beta_nodes(self.alpha, nodes)
        lam = torch.cat([torch.ones(1, dtype=lam.dtype), lam])
        pi = torch.cat([torch.full((1,), 1 / K, dtype=lam.dtype), (K - 1) / K * weights])
        return Orbits(K, *pair_levels(lam, K), pi)


@dataclass(frozen=True)
class Unmixed:
    """No mixing: the label is e_y, with y uniform over the classes. num_classes: K >= 2."""

    num_classes: int

    def __post_init__(self) -> None:
        """Raise ValueError for K < 2."""
        check_integer("num_classes", self.num_classes, minimum=2)

    def targets(self, nodes: int = 1) -> Targets:
        """Return one target per class; there is no lambda, so `nodes` has no effect."""
        K = self.num_classes
        same = torch.arange(K)
        one = torch.ones(K, dtype=torch.float64)
        return Targets(torch.eye(K, dtype=torch.float64), one / K, same, same.clone(), one)

    def orbits(self, nodes: int = 1) -> Orbits:
        """Return the one orbit of the unmixed label."""
        one = torch.ones(1, dtype=torch.float64)
        return Orbits(self.num_classes, *pair_levels(one, self.num_classes), one)


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


def beta_nodes(alpha: float, nodes: int) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"]]:
    """Return Gauss-Jacobi nodes in (0, 1) and weights summing to one, for the law Beta(alpha, alpha)."""
    nodes = check_integer("nodes", nodes, minimum=1)
    x, weights = special.roots_jacobi(nodes, alpha - 1, alpha - 1)
    return torch.from_numpy((1 + x) / 2), torch.from_numpy(np.asarray(weights / weights.sum()))
