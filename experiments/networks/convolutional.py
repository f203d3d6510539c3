"""Convolutional networks: a small one for the CPU, ResNet-18 in its CIFAR form, and WideResNet-d-k."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

Stages = tuple[dict[str, nn.Module], int]


def small_cnn(in_channels: int, width: int, dim: int, stride: int, *, nonnegative: bool) -> Stages:
    """Return the stages of three 3 x 3 convolutions and a linear map, and the feature dimension.

    width: channels of the first convolution, doubled by each of the others. dim: of the features. stride: of the first
    convolution. The features end in BatchNorm, so that each coordinate may have any sign, as in the UFM; with
    `nonnegative` a ReLU follows.
    """
    features = [
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4 * width, dim, bias=False),
        nn.BatchNorm1d(dim),
        *([nn.ReLU()] if nonnegative else []),
    ]
    stages: dict[str, nn.Module] = {
        "block1": nn.Sequential(*_convolution(in_channels, width, stride)),
        "block2": nn.Sequential(*_convolution(width, 2 * width), nn.MaxPool2d(2)),
        "block3": nn.Sequential(*_convolution(2 * width, 4 * width)),
        "features": nn.Sequential(*features),
    }
    return stages, dim


def _convolution(in_channels: int, out_channels: int, stride: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(out_channels), nn.ReLU()]


def resnet18(in_channels: int, width: int) -> Stages:
    """Return the stages of ResNet-18 with a 3 x 3 stem and no pooling, for images of 28 to 64 pixels.

    width: channels of the first stage, 64 in the original; the features are 8 width numbers, not negative.
    Source: He et al., "Deep residual learning for image recognition", CVPR 2016.
    """
    stages: dict[str, nn.Module] = {"stem": nn.Sequential(*_convolution(in_channels, width))}
    channels = width
    for i in range(4):
        wider = width * 2**i
        stages[f"group{i + 1}"] = nn.Sequential(
            BasicBlock(channels, wider, stride=1 if i == 0 else 2), BasicBlock(wider, wider)
        )
        channels = wider
    stages["features"] = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return stages, channels


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut, the ReLU after the sum."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        """Build the block; a shortcut that changes shape is a 1 x 1 convolution with BatchNorm."""
        super().__init__()
        second = _convolution(out_channels, out_channels)[:-1]
        self.residual = nn.Sequential(*_convolution(in_channels, out_channels, stride), *second)
        self.shortcut = (
            nn.Identity()
            if stride == 1 and in_channels == out_channels
            else nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )
        )

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n C H W"]:
        """Return relu(residual + shortcut)."""
        return torch.relu(self.residual(x) + self.shortcut(x))


def wide_resnet(in_channels: int, depth: int, width: int) -> Stages:
    """Return the stages of WideResNet-depth-width (WRN-40-10: depth 40, width 10).

    depth: 6 n + 4 with n >= 1 blocks a group. width: the widening factor k; the features are 64 k numbers, not
    negative.
    Raises ValueError for another depth. Source: Zagoruyko and Komodakis, "Wide residual networks", BMVC 2016.
    """
    if depth < 10 or (depth - 4) % 6:
        raise ValueError(f"depth: got {depth}, expected 6 n + 4 for a whole n >= 1")
    blocks = (depth - 4) // 6
    stages: dict[str, nn.Module] = {"stem": nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)}
    channels = 16
    for i in range(3):
        wider = 16 * width * 2**i
        group = [PreactivationBlock(channels, wider, stride=1 if i == 0 else 2)]
        group += [PreactivationBlock(wider, wider) for _ in range(blocks - 1)]
        stages[f"group{i + 1}"] = nn.Sequential(*group)
        channels = wider
    stages["features"] = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return stages, channels


class PreactivationBlock(nn.Module):
    """BatchNorm and ReLU before each of two 3 x 3 convolutions, beside a shortcut."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        """Build the block; a shortcut that changes shape is a 1 x 1 convolution of the first activation."""
        super().__init__()
        self.activation = nn.Sequential(nn.BatchNorm2d(in_channels), nn.ReLU())
        self.residual = nn.Sequential(
            *_convolution(in_channels, out_channels, stride),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
        )
        changes = stride != 1 or in_channels != out_channels
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False) if changes else None

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n C H W"]:
        """Return residual + shortcut."""
        active = self.activation(x)
        return self.residual(active) + (x if self.shortcut is None else self.shortcut(active))
