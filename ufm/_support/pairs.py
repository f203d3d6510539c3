"""Samples of a recording: their halves, the cells of pair and lambda that they fall into, and R^2 over them."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ufm.networks.activations import Activations
from ufm.networks.channel import lambda_bin


@dataclass(frozen=True, eq=False)
class Pairs:
    """The two classes of each sample, and the weight of the first."""

    a: Int[Tensor, "N"]
    b: Int[Tensor, "N"]
    lam: Float[Tensor, "N"]

    @staticmethod
    def of(activations: Activations, rows: Int[Tensor, "N"]) -> "Pairs":
        """Return those of some rows of a recording."""
        return Pairs(activations.class_a[rows], activations.class_b[rows], activations.lam[rows].double())

    @property
    def columns(self) -> tuple[Tensor, Tensor, Tensor]:
        """The three arrays, in the order in which the measures take them."""
        return self.a, self.b, self.lam

    def cells(self, num_classes: int, bins: int) -> Int[Tensor, "N"]:
        """Return the index of the (class pair a < b, bin of the weight of a) of each sample, -1 for same-class ones."""
        low, high = torch.minimum(self.a, self.b), torch.maximum(self.a, self.b)
        weight = torch.where(self.a < self.b, self.lam, 1 - self.lam)
        index = torch.from_numpy(lambda_bin(weight.numpy(), bins))
        return torch.where(self.a == self.b, -1, (low * num_classes + high) * bins + index)


def halves(activations: Activations) -> tuple[Tensor, Tensor]:
    """Return the rows of two random halves, always the same ones: one to fit to, one to score on.

    Raises ValueError unless both have at least two same-class and two different-class samples.
    """
    N = len(activations.lam)
    mixed = activations.class_a != activations.class_b
    order = torch.randperm(N, generator=torch.Generator().manual_seed(0))
    both = order[: N // 2], order[N // 2 :]
    if any(int(mixed[half].sum()) < 2 or int((~mixed[half]).sum()) < 2 for half in both):
        raise ValueError(f"activations: got {N} samples, expected enough for several of each kind in both halves")
    return both


def r_squared(truth: Float[Tensor, "N D"], guess: Float[Tensor, "N D"]) -> float:
    """Return 1 - sum ||truth - guess||^2 / sum ||truth - mean truth||^2 over the rows."""
    return (1 - (truth - guess).square().sum() / (truth - truth.mean(0)).square().sum()).item()
