"""Networks with `features(x)` and a linear `head`, built from a configuration."""

import math
from dataclasses import dataclass, fields
from typing import Any

from experiments.networks.base import Network, he_normal, linear_head
from experiments.networks.convolutional import resnet18, small_cnn, wide_resnet
from experiments.networks.mlp import perceptron
from experiments.networks.transformer import vision_transformer
from ufm._support.arrays import check_choice, check_integer, check_number

__all__ = ["Network", "NetworkConfig", "build_network"]

# What each architecture takes, with the values of the original where there is one.
_SETTINGS: dict[str, dict[str, Any]] = {
    "cnn": {"width": 32, "dim": 32, "stride": 1, "nonnegative": False},
    "resnet18": {"width": 64},
    "wideresnet": {"depth": 40, "width": 10},
    "mlp": {"width": 512, "depth": 3, "dim": 64},
    "vit": {"patch": 4, "width": 768, "depth": 12, "heads": 12},
}


@dataclass(frozen=True)
class NetworkConfig:
    """An architecture and its sizes; None stands for the architecture's own value."""

    architecture: str = "cnn"
    """cnn, resnet18, wideresnet, vit or mlp"""
    width: int | None = None
    """channels of the first convolution (cnn: 32; resnet18: 64), widening factor (wideresnet: 10), token width
    (vit: 768), units of a hidden layer (mlp: 512)"""
    depth: int | None = None
    """convolutions (wideresnet: 40), blocks (vit: 12) or hidden layers (mlp: 3)"""
    dim: int | None = None
    """feature dimension d (cnn: 32; mlp: 64); the others' follows from their width"""
    stride: int | None = None
    """of the first convolution (cnn: 1)"""
    nonnegative: bool | None = None
    """end the features in a ReLU (cnn: no)"""
    patch: int | None = None
    """side of a patch in pixels (vit: 4)"""
    heads: int | None = None
    """of attention (vit: 12)"""
    etf_multiplier: float | None = None
    """fix the head to a simplex ETF of this row norm, without bias; None for a trained head"""
    head_bias: bool | None = None
    """whether a trained head has a bias (mlp: no; the others: yes)"""

    def __post_init__(self) -> None:
        """Raise ValueError for an unknown architecture, a setting that it does not take, or a size out of range."""
        check_choice("architecture", self.architecture, tuple(_SETTINGS))
        taken = _SETTINGS[self.architecture]
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None or field.name in ("architecture", "etf_multiplier", "head_bias"):
                continue
            if field.name not in taken:
                raise ValueError(
                    f"{field.name}: got {value} for {self.architecture!r}, which takes {', '.join(taken)} only"
                )
            if field.name != "nonnegative":
                check_integer(field.name, value, minimum=1)
        if self.etf_multiplier is not None:
            check_number("etf_multiplier", self.etf_multiplier, above=0)
            if self.head_bias:
                raise ValueError("head_bias: got True with a fixed head, which has no bias; expected False or None")

    def settings(self) -> dict[str, Any]:
        """Return the architecture's settings, its own values filled in."""
        own = _SETTINGS[self.architecture]
        return {name: value if getattr(self, name) is None else getattr(self, name) for name, value in own.items()}


def build_network(config: NetworkConfig, image_shape: tuple[int, int, int], num_classes: int) -> Network:
    """Return a network with random weights, drawn with torch's global generator.

    image_shape: (C, H, W). Raises ValueError for sizes that do not fit the images, or d < K-1 with a fixed ETF.
    """
    sizes, channels = config.settings(), image_shape[0]
    if config.architecture == "cnn":
        # Two rows and columns at least are left for the pooling.
        check_integer("stride", sizes["stride"], minimum=1, maximum=min(image_shape[1:]) - 1)
        stages, dim = small_cnn(channels, **sizes)
    elif config.architecture == "resnet18":
        stages, dim = resnet18(channels, **sizes)
    elif config.architecture == "wideresnet":
        stages, dim = wide_resnet(channels, **sizes)
    elif config.architecture == "mlp":
        stages, dim = perceptron(math.prod(image_shape), **sizes)
    else:
        stages, dim = vision_transformer(image_shape, **sizes)
    bias = config.architecture != "mlp" if config.head_bias is None else config.head_bias
    network = Network(stages, linear_head(dim, num_classes, config.etf_multiplier, bias=bias))
    if config.architecture in ("resnet18", "wideresnet"):
        network.apply(he_normal)
    return network
