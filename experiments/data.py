"""Image data sets as tensors."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from sklearn.datasets import load_digits
from torch import Tensor

_TEST_FRACTION = 0.2


@dataclass(frozen=True)
class ImageData:
    """A data set split in two: images (N, C, H, W), standardised by the training set's statistics; classes (N,)."""

    name: str
    num_classes: int
    train_images: Float[Tensor, "N C H W"]
    train_classes: Int[Tensor, "N"]
    test_images: Float[Tensor, "M C H W"]
    test_classes: Int[Tensor, "M"]


def digits() -> ImageData:
    """Return scikit-learn's bundled handwritten digits: 1,797 grey images of 8 x 8 pixels, 10 classes.

    A fixed fifth of each class, drawn with seed 0, is the test set (the bundled set has no split of its own).
    Source: E. Alpaydin and C. Kaynak, "Optical recognition of handwritten digits", UCI repository, 1998.
    """
    bunch = load_digits()
    images = torch.from_numpy(bunch.images).float().unsqueeze(1)  # pyright: ignore[reportAttributeAccessIssue]
    classes = torch.from_numpy(bunch.target).long()  # pyright: ignore[reportAttributeAccessIssue]
    rng = np.random.default_rng(0)
    test = torch.zeros(len(classes), dtype=torch.bool)
    for k in range(10):
        members = np.flatnonzero(classes.numpy() == k)
        test[rng.permutation(members)[: round(_TEST_FRACTION * len(members))]] = True
    train = images[~test]
    images = (images - train.mean()) / train.std()
    return ImageData("digits", 10, images[~test], classes[~test], images[test], classes[test])
