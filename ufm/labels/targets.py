"""Weighted soft labels: written out, one row each, or reduced by class symmetry to their distinct values."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ufm._support.arrays import Array, check_integer, check_number, check_size, read_classes, to_labels, to_tensor
from ufm._support.display import Displayed, Row
from ufm._support.pairs import read_lam, read_pairs


@dataclass(frozen=True, eq=False)
class _StoredTargets:
    """The fields of `Targets` as they are stored; the public class converts what it is given."""

    labels: Float[Tensor, "N K"]
    weights: Float[Tensor, "N"]
    class_a: Int[Tensor, "N"] | None = None
    class_b: Int[Tensor, "N"] | None = None
    lam: Float[Tensor, "N"] | None = None


@dataclass(frozen=True, eq=False, init=False, repr=False)
class Targets(Displayed, _StoredTargets):
    """Weighted soft labels, one row each.

    Arrays of any kind are accepted and stored as tensors.

    Attributes
    ----------
    labels : (N, K) tensor
        Rows on the simplex. Each row is divided by its sum, which must be one up to rounding.
    weights : (N,) tensor
        Probabilities of the rows: positive, and divided by their sum, which must be one up to rounding. Equal by
        default.
    class_a, class_b : (N,) integer tensor or None
        For pair laws, the two classes of each row, in 0..K-1. An unmixed label has the same class twice.
    lam : (N,) tensor or None
        For pair laws, the weight of class_a, in [0, 1]; 1 for an unmixed label.

    Raises
    ------
    ValueError
        For labels off the simplex; for weights that are not positive or do not sum to one; for classes or
        coefficients out of range; and for shapes that do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> import ufm
    >>> targets = ufm.Targets(np.array([[1.0, 0.0, 0.0], [0.0, 0.5, 0.5]]), weights=np.array([0.75, 0.25]))
    >>> len(targets), targets.num_classes
    (2, 3)
    >>> targets.weights.tolist()
    [0.75, 0.25]
    """

    def __init__(
        self,
        labels: Float[Array, "N K"],
        weights: Float[Array, "N"] | None = None,
        class_a: Int[Array, "N"] | None = None,
        class_b: Int[Array, "N"] | None = None,
        lam: Float[Array, "N"] | None = None,
    ) -> None:
        """Convert and check the arrays."""
        y = to_labels(labels, ndim=2)
        y = y / y.sum(1, keepdim=True)
        w = _probabilities(weights, y[:, 0]).to(y)
        a, b = (_column(x, c, y) for x, c in (("class_a", class_a), ("class_b", class_b)))
        super().__init__(y, w, a, b, _column("lam", lam, y))

    def _shown(self) -> Iterable[Row]:
        yield "labels", self.labels
        yield "weights", f"{self.weights.min():.3g} to {self.weights.max():.3g}"

    @property
    def num_classes(self) -> int:
        """The number of classes K."""
        return self.labels.shape[1]

    def __len__(self) -> int:
        """Return the number of targets N."""
        return len(self.labels)

    def to(self, device: torch.device | str, dtype: torch.dtype) -> "Targets":
        """Return the same targets on `device`, with real numbers in `dtype`."""
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
class _StoredPairTargets:
    """The fields of `PairTargets` as they are stored; the public class converts what it is given."""

    num_classes: int
    class_a: Int[Tensor, "N"]
    class_b: Int[Tensor, "N"]
    lam: Float[Tensor, "N"]
    weights: Float[Tensor, "N"]
    smoothing: float = 0.0


@dataclass(frozen=True, eq=False, init=False, repr=False)
class PairTargets(Displayed, _StoredPairTargets):
    """Weighted labels lam e_a + (1 - lam) e_b, stored as classes and coefficients.

    They need memory for N instead of N K numbers. A solver that streams its targets writes out one block of labels at
    a time; the property `labels` writes out all of them.

    Attributes
    ----------
    num_classes : int
        Number of classes K >= 2.
    class_a, class_b : (N,) integer tensor
        The two classes, in 0..K-1. If they are equal the label is e_a, whatever lam.
    lam : (N,) tensor
        Weight of class_a, in [0, 1].
    weights : (N,) tensor
        Probabilities of the labels: positive, and divided by their sum, which must be one up to rounding. Equal by
        default.
    smoothing : float
        Label smoothing s in [0, 1), applied to the mixed label: y -> (1 - s) y + s/K.

    Raises
    ------
    ValueError
        For classes, coefficients, weights or a smoothing out of range, and for arrays of different lengths.

    Examples
    --------
    >>> import numpy as np
    >>> import ufm
    >>> pairs = ufm.PairTargets(3, np.array([0, 1]), np.array([2, 1]), np.array([0.25, 1.0]))
    >>> pairs.labels.tolist()
    [[0.25, 0.0, 0.75], [0.0, 1.0, 0.0]]
    """

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
        x = read_lam(lam, ndim=1)
        if not len(x):
            raise ValueError("lam: got no coefficient, expected at least one")
        pairs = read_pairs(class_a, class_b, x, len(x), K, device=x.device)
        pi = _probabilities(None if weights is None else to_tensor("weights", weights, ndim=1).to(x), x)
        check_number("smoothing", smoothing, minimum=0, below=1)
        super().__init__(K, *pairs.columns, pi, float(smoothing))

    def __len__(self) -> int:
        """Return the number of targets N."""
        return len(self.lam)

    def _shown(self) -> Iterable[Row]:
        yield "labels", f"{len(self)} x {self.num_classes}", "as classes and coefficients"
        yield "smoothing", self.smoothing
        yield "weights", f"{self.weights.min():.3g} to {self.weights.max():.3g}"

    def block(self, rows: slice | Tensor) -> tuple[Tensor, Tensor]:
        """Return labels and weights of some rows."""
        check_size("num_classes", len(self.lam[rows]) * self.num_classes)
        y = pair_labels(self.class_a[rows].long(), self.class_b[rows].long(), self.lam[rows], self.num_classes)
        if self.smoothing:
            y = (1 - self.smoothing) * y + self.smoothing / self.num_classes
        return y, self.weights[rows]

    @property
    def labels(self) -> Tensor:
        """The labels (N, K), written out anew at each use."""
        return self.block(slice(None))[0]

    def written_out(self) -> Targets:
        """Return the same targets with their labels written out; ValueError if memory does not hold them."""
        return Targets(self.labels, self.weights, self.class_a.long(), self.class_b.long(), self.lam)

    def to(self, device: torch.device | str, dtype: torch.dtype) -> "PairTargets":
        """Return the same targets on `device`, with real numbers in `dtype`."""
        a, b = self.class_a.to(device), self.class_b.to(device)
        lam, weights = self.lam.to(device, dtype), self.weights.to(device, dtype)
        return PairTargets(self.num_classes, a, b, lam, weights, self.smoothing)


@dataclass(frozen=True, eq=False)
class Orbits:
    """A law that is symmetric in the classes, with one label per orbit of the class permutations.

    Each label is given by its distinct values and by how many classes take each value. The closed forms need no more,
    so their cost does not depend on K.

    Attributes
    ----------
    num_classes : int
        Number of classes K.
    levels : (M, L) tensor
        Values that the entries of each label take. For pair laws the columns are lam, 1 - lam and 0.
    counts : (M, L) tensor
        Number of the K entries that take each value.
    weights : (M,) tensor
        Probabilities of the orbits.
    """

    num_classes: int
    levels: Float[Tensor, "M L"]
    counts: Float[Tensor, "M L"]
    weights: Float[Tensor, "M"]


def _column(name: str, value: Any, labels: Tensor) -> Tensor | None:
    """Return class_a, class_b or lam of `labels`, checked and on their device."""
    if value is None:
        return None
    if name == "lam":
        return read_lam(value, count=len(labels)).to(labels.device)
    return read_classes(name, value, *labels.shape, device=labels.device)


def _probabilities(weights: Any, like: Tensor) -> Tensor:
    """Return weights (N,) divided by their sum; equal ones of the shape and dtype of `like` if there are none."""
    pi = torch.full_like(like, 1 / len(like)) if weights is None else to_tensor("weights", weights, ndim=1)
    if pi.shape != like.shape:
        raise ValueError(f"weights: got shape {tuple(pi.shape)}, expected {tuple(like.shape)}")
    if not bool((pi > 0).all()) or abs(pi.sum().item() - 1) > torch.finfo(pi.dtype).eps ** 0.5:
        raise ValueError(
            f"weights: got smallest {pi.min().item():.3g} and sum {pi.sum().item():.9g}, "
            "expected positive numbers summing to 1"
        )
    return pi / pi.sum()


def pair_labels(
    class_a: Int[Tensor, "N"], class_b: Int[Tensor, "N"], lam: Float[Tensor, "N"], num_classes: int
) -> Float[Tensor, "N K"]:
    """Return the labels lam e_a + (1 - lam) e_b.

    1 - lam is computed once, as in `pair_levels`. Equal classes give e_a exactly.
    """
    labels = lam.new_zeros(len(lam), num_classes)
    rows = torch.arange(len(lam), device=lam.device)
    labels[rows, class_b] = 1 - lam
    labels[rows, class_a] = torch.where(class_a == class_b, torch.ones_like(lam), lam)
    return labels


def pair_levels(lam: Float[Tensor, "N"], num_classes: int) -> tuple[Float[Tensor, "N 3"], Float[Tensor, "N 3"]]:
    """Return the distinct values (lam, 1 - lam, 0) of mixed labels, and their counts (1, 1, K - 2)."""
    levels = torch.stack([lam, 1 - lam, torch.zeros_like(lam)], -1)
    counts = lam.new_tensor([1.0, 1.0, num_classes - 2.0]).expand_as(levels)
    return levels, counts
