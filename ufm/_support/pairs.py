"""Mixed samples as class pairs: the one check of class_a, class_b and lam, bins of lambda, cells, and random halves.

A mixed sample has the soft label lam e_a + (1 - lam) e_b. Every room that takes class_a, class_b and lam reads them
here, so that the same input gives the same error message everywhere.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ufm._support.arrays import check_integer, read_classes, to_tensor


@dataclass(frozen=True, eq=False)
class ClassPairs:
    """The two classes of each sample, and the weight of the first; see `read_pairs`."""

    class_a: Int[Tensor, "N"]
    class_b: Int[Tensor, "N"]
    lam: Float[Tensor, "N"]

    def __len__(self) -> int:
        """Return the number of samples N."""
        return len(self.lam)

    def __getitem__(self, rows: Tensor | slice) -> "ClassPairs":
        """Return the pairs of some rows."""
        return ClassPairs(self.class_a[rows], self.class_b[rows], self.lam[rows])

    @property
    def columns(self) -> tuple[Tensor, Tensor, Tensor]:
        """The arguments class_a, class_b and lam of the public measures."""
        return self.class_a, self.class_b, self.lam

    def wide(self) -> "ClassPairs":
        """Return the same samples, detached, with classes in int64 and lam in float64."""
        return ClassPairs(self.class_a.long(), self.class_b.long(), self.lam.detach().double())

    def ascending(self) -> "ClassPairs":
        """Return the same samples with the smaller class first; lam becomes the weight of that class."""
        a, b = torch.minimum(self.class_a, self.class_b), torch.maximum(self.class_a, self.class_b)
        return ClassPairs(a, b, torch.where(self.class_a < self.class_b, self.lam, 1 - self.lam))

    def mixed(self) -> Bool[Tensor, "N"]:
        """Return which samples mix two different classes."""
        return self.class_a != self.class_b

    def different(self) -> Bool[Tensor, "N"]:
        """Return which samples mix two different classes; raise ValueError if none does."""
        mixed = self.mixed()
        if not bool(mixed.any()):
            raise ValueError("class_a, class_b: got same-class pairs only, expected some of different classes")
        return mixed

    def cells(self, num_classes: int, bins: int) -> Int[Tensor, "N"]:
        """Return each sample's cell: its class pair a < b and the bin of the weight of a; -1 for same-class samples."""
        pair = self.ascending()
        index = (pair.class_a.long() * num_classes + pair.class_b) * bins + bin_index(pair.lam, bins)
        return torch.where(self.class_a == self.class_b, -1, index)


def read_pairs(
    class_a: Any, class_b: Any, lam: Any, count: int, num_classes: int, *, device: torch.device | str = "cpu"
) -> ClassPairs:
    """Return the class pairs of `count` mixed samples, checked.

    Parameters
    ----------
    class_a, class_b : (count,) arrays of integers
        The two classes, in 0..num_classes-1; see `read_classes`.
    lam : (count,) array
        The weight of class_a, in [0, 1]; see `read_lam`.
    count : int
        Number of samples that the other arguments of the caller have.
    num_classes : int
        Number of classes K.
    device : torch.device or str
        Where the tensors are put.

    Returns
    -------
    ClassPairs
        Integer and floating-point dtypes are those of the arguments.

    Raises
    ------
    ValueError
        Naming the first of the three that has another shape, another dtype or values out of range.
    """
    a = read_classes("class_a", class_a, count, num_classes, device=device)
    b = read_classes("class_b", class_b, count, num_classes, device=device)
    return ClassPairs(a, b, read_lam(lam, count=count).to(device))


def read_lam(value: Any, *, ndim: int | None = None, count: int | None = None) -> Float[Tensor, "..."]:
    """Return mixing coefficients as a floating-point tensor; raise ValueError, naming lam, unless all are in [0, 1].

    `ndim` is the number of dimensions that they must have; `count` asks for the shape (count,).
    """
    lam = to_tensor("lam", value, ndim=ndim if count is None else 1)
    if count is not None and len(lam) != count:
        raise ValueError(f"lam: got shape {tuple(lam.shape)}, expected {(count,)}")
    if ndim is None and count is None and not lam.numel():
        raise ValueError(f"lam: got shape {tuple(lam.shape)}, expected at least one entry")
    if not bool(((lam >= 0) & (lam <= 1)).all()):
        raise ValueError("lam: got values outside the interval, expected 0 <= lam <= 1")
    return lam


def check_bins(bins: Any) -> int:
    """Return a number of bins, or raise ValueError unless it is a whole number from 1 to a million."""
    return check_integer("bins", bins, minimum=1, maximum=10**6)


def bin_index(values: Float[Tensor, "N"], bins: int) -> Int[Tensor, "N"]:
    """Return the index of the equal-width bin of [0, 1] that each value falls into; 1 belongs to the last bin."""
    return (values * bins).long().clamp(max=bins - 1)


def cell_means(
    values: Float[Tensor, "n D"], index: Int[Tensor, "n"], count: Int[Tensor, "C"] | Float[Tensor, "C"]
) -> Float[Tensor, "C D"]:
    """Return the mean over each cell, given each sample's cell and the number of samples in each cell."""
    return values.new_zeros(len(count), values.shape[1]).index_add_(0, index, values) / count[:, None]


def halves(pairs: ClassPairs, *, of_different: bool = False) -> tuple[Int[Tensor, "n"], Int[Tensor, "m"]]:
    """Return the rows of two random halves, the same ones in every call: one to fit on, one to score on.

    Raises ValueError unless each half has at least two samples, of different classes if `of_different`.
    """
    N = len(pairs)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(0))
    both = order[: N // 2], order[N // 2 :]
    mixed = pairs.mixed()
    if of_different and any(int(mixed[half].sum()) < 2 for half in both):
        raise ValueError(
            f"activations: got {N} samples, {int(mixed.sum())} of them of two different classes, expected two or more "
            "of those in both halves"
        )
    if N < 4:
        raise ValueError(f"activations: got {N} samples, expected at least 4")
    return both


def r_squared(truth: Float[Tensor, "N D"], guess: Float[Tensor, "N D"]) -> float:
    """Return 1 - sum ||truth - guess||^2 / sum ||truth - mean truth||^2 over the rows."""
    return (1 - (truth - guess).square().sum() / (truth - truth.mean(0)).square().sum()).item()
