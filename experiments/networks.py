"""Networks with `features(x)` and a linear `head`."""

from jaxtyping import Float
from torch import Tensor, nn


class SmallCNN(nn.Module):
    """Three 3 x 3 convolutions with BatchNorm and ReLU, average pooling, and a linear map to the features.

    in_channels: of the images. num_classes: K. dim: feature dimension d. width: channels of the first convolution.
    The features end in BatchNorm without a ReLU: each coordinate may have any sign, as in the UFM.
    """

    def __init__(self, in_channels: int, num_classes: int, dim: int, width: int = 32) -> None:
        """Build the network with torch's default initialisation."""
        super().__init__()
        self.body = nn.Sequential(
            *_block(in_channels, width),
            *_block(width, 2 * width),
            nn.MaxPool2d(2),
            *_block(2 * width, 4 * width),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(4 * width, dim, bias=False),
            nn.BatchNorm1d(dim),
        )
        self.head = nn.Linear(dim, num_classes)

    def features(self, images: Float[Tensor, "N C H W"]) -> Float[Tensor, "N d"]:
        """Return the last-layer features."""
        return self.body(images)

    def forward(self, images: Float[Tensor, "N C H W"]) -> Float[Tensor, "N K"]:
        """Return the logits."""
        return self.head(self.features(images))


def _block(in_channels: int, out_channels: int) -> list[nn.Module]:
    convolution = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(out_channels), nn.ReLU()]
