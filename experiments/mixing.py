"""Mixup of images: the batches that networks are trained and recorded on."""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ufm.activations import MixedBatch


def mix(
    images: Float[Tensor, "N C H W"],
    classes: Int[Tensor, "N"],
    alpha: float,
    batch_size: int,
    rng: np.random.Generator,
) -> Iterator[MixedBatch]:
    """Yield one pass over the images in random order, each mixed with a random partner from the whole set.

    Every sample has its own lambda ~ Beta(alpha, alpha); the partner is independent of the image, so that pairs of
    one class occur with their natural probability.
    """
    count = len(images)
    order = torch.from_numpy(rng.permutation(count))
    partners = torch.from_numpy(rng.integers(count, size=count))
    lam = torch.from_numpy(rng.beta(alpha, alpha, count)).to(images)
    for first, second, coefficient in zip(
        order.split(batch_size), partners.split(batch_size), lam.split(batch_size), strict=True
    ):
        weight = coefficient.view(-1, 1, 1, 1)
        inputs = weight * images[first] + (1 - weight) * images[second]
        yield MixedBatch(inputs, classes[first], classes[second], coefficient)
