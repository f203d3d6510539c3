"""Vision transformers: ViT-B/4 for 32 x 32 images, and small ones."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from experiments.networks.convolutional import Stages

_MLP_RATIO = 4


def vision_transformer(image_shape: tuple[int, int, int], patch: int, width: int, depth: int, heads: int) -> Stages:
    """Return the stages of a pre-norm vision transformer whose features are the normalised class token.

    image_shape: (C, H, W), H and W multiples of `patch`. width: of the tokens, a multiple of `heads`. depth: blocks.
    Raises ValueError for sizes that do not fit. Source: Dosovitskiy et al., "An image is worth 16x16 words", ICLR 2021.
    """
    channels, height, breadth = image_shape
    if height % patch or breadth % patch:
        raise ValueError(f"patch: got {patch}, expected a divisor of the image size {(height, breadth)}")
    if width % heads:
        raise ValueError(f"heads: got {heads}, expected a divisor of the width {width}")
    tokens = (height // patch) * (breadth // patch)
    stages: dict[str, nn.Module] = {"embedding": PatchEmbedding(channels, patch, width, tokens)}
    stages |= {f"block{i + 1}": TransformerBlock(width, heads) for i in range(depth)}
    stages["features"] = ClassToken(width)
    return stages, width


class PatchEmbedding(nn.Module):
    """Patches as tokens, a class token in front, positions added."""

    def __init__(self, in_channels: int, patch: int, width: int, tokens: int) -> None:
        """Build the projection, a class token of zeros, and positions drawn from N(0, 0.02^2)."""
        super().__init__()
        self.projection = nn.Conv2d(in_channels, width, patch, patch)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.empty(1, tokens + 1, width))
        nn.init.trunc_normal_(self.positions, std=0.02)

    def forward(self, images: Float[Tensor, "n C H W"]) -> Float[Tensor, "n T w"]:
        """Return the tokens."""
        patches = self.projection(images).flatten(2).transpose(1, 2)
        return torch.cat([self.class_token.expand(len(images), -1, -1), patches], 1) + self.positions


class TransformerBlock(nn.Module):
    """Attention and a two-layer perceptron, each after LayerNorm and beside a shortcut."""

    def __init__(self, width: int, heads: int) -> None:
        """Build the block."""
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, _MLP_RATIO * width), nn.GELU(), nn.Linear(_MLP_RATIO * width, width))

    def forward(self, x: Float[Tensor, "n T w"]) -> Float[Tensor, "n T w"]:
        """Return the tokens after attention and perceptron."""
        q, k, v = self.qkv(self.norm1(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = nn.functional.scaled_dot_product_attention(q, k, v)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x))


class ClassToken(nn.Module):
    """The class token after LayerNorm."""

    def __init__(self, width: int) -> None:
        """Build the norm."""
        super().__init__()
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Float[Tensor, "n T w"]) -> Float[Tensor, "n w"]:
        """Return the features."""
        return self.norm(x[:, 0])
