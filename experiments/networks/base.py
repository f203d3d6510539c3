"""What every network is: stages that end in the features, and a linear head; mixed at the input or at any stage."""

from collections import OrderedDict

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ufm.theory.etf import simplex_etf


class Network(nn.Module):
    """A chain of stages whose output is the last-layer features (n, d), and a linear head.

    stages: modules by name, applied in order. head: from d features to K logits.

    BatchNorm follows the module's mode: batch statistics after `train()`, running ones after `eval()`. Whoever
    measures or records a network says which it is.
    """

    def __init__(self, stages: dict[str, nn.Module], head: nn.Linear) -> None:
        """Chain the stages."""
        super().__init__()
        self.stages = nn.Sequential(OrderedDict(stages))
        self.head = head

    @property
    def device(self) -> torch.device:
        """The device that the network is on."""
        return self.head.weight.device

    def features(self, images: Float[Tensor, "n C H W"]) -> Float[Tensor, "n d"]:
        """Return the last-layer features."""
        return self.stages(images)

    def forward(
        self,
        images: Float[Tensor, "n C H W"],
        partners: Float[Tensor, "n C H W"] | None = None,
        lam: Float[Tensor, "n"] | None = None,
        stage: int = 0,
    ) -> Float[Tensor, "n K"]:
        """Return the logits (n, K) of images, or of `lam` images + (1 - lam) partners mixed before a stage.

        stage: index of the stage whose input is mixed, 0 for the images themselves (manifold mixup: Verma et al.,
        "Manifold mixup: better representations by interpolating hidden states", ICML 2019).
        """
        if partners is None or lam is None:
            return self.head(self.features(images))
        hidden = self.stages[:stage](torch.cat([images, partners]))
        first, second = hidden.chunk(2)
        weight = lam.view(-1, *[1] * (first.ndim - 1)).to(first)
        return self.head(self.stages[stage:](weight * first + (1 - weight) * second))


def linear_head(dim: int, num_classes: int, multiplier: float | None = None, *, bias: bool = True) -> nn.Linear:
    """Return a trainable head, or one without bias fixed to a randomly rotated simplex ETF of row norm `multiplier`."""
    if multiplier is None:
        return nn.Linear(dim, num_classes, bias=bias)
    head = nn.Linear(dim, num_classes, bias=False).requires_grad_(False)
    generator = torch.Generator().manual_seed(torch.initial_seed() % 2**63)
    with torch.no_grad():
        head.weight.copy_(simplex_etf(num_classes, dim, multiplier, generator=generator))
    return head


def he_normal(module: nn.Module) -> None:
    """Draw the weights of convolutions as He et al. do, N(0, 2/(k k C_out)); for `Module.apply`."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
