"""What a network is trained and recorded on: an epoch's samples, their partners and their mixing coefficients."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from experiments.data import ImageData
from ufm._support.arrays import check_choice, check_integer, check_number
from ufm.labels.targets import PairTargets
from ufm.networks.activations import MixedBatch

KINDS = ("mixup", "cutmix", "manifold", "none")
_GRANULARITIES = ("sample", "batch")


@dataclass(frozen=True)
class Mixing:
    """How labels lam e_a + (1 - lam) e_b come about."""

    kind: str = "mixup"
    """mixup (images averaged), cutmix (a rectangle pasted), manifold (averaged before a random stage) or none"""
    alpha: float = 1.0
    """lam ~ Beta(alpha, alpha), > 0"""
    lam_per: str = "sample"
    """one lam per sample or per batch"""
    smoothing: float = 0.0
    """label smoothing on top, in [0, 1)"""

    def __post_init__(self) -> None:
        """Raise ValueError for an unknown kind or granularity, or alpha <= 0."""
        check_choice("kind", self.kind, KINDS)
        check_choice("lam_per", self.lam_per, _GRANULARITIES)
        check_number("alpha", self.alpha, above=0)
        check_number("smoothing", self.smoothing, minimum=0, below=1)


@dataclass(frozen=True)
class MixingPlan:
    """Which samples are mixed with which: first, second (n,) index the data set, lam (n,) weighs the first.

    boxes (n, 4): rows and columns [top, bottom, left, right) that CutMix fills from the second image, or None. stage:
    before which stage of the network manifold mixup mixes, else 0.
    """

    first: Int[Tensor, "n"]
    second: Int[Tensor, "n"]
    lam: Float[Tensor, "n"]
    boxes: Int[Tensor, "n 4"] | None = None
    stage: int = 0

    def slice(self, rows: slice) -> "MixingPlan":
        """Return some of the pairs."""
        boxes = None if self.boxes is None else self.boxes[rows]
        return MixingPlan(self.first[rows], self.second[rows], self.lam[rows], boxes, self.stage)


def epoch_pairs(
    mixing: Mixing,
    samples: int,
    batch_size: int,
    rng: np.random.Generator,
    *,
    image_size: tuple[int, int],
    stages: int = 1,
    steps: int | None = None,
) -> Iterator[MixingPlan]:
    """Yield the whole batches of one pass over `samples` in random order, each mixed with a partner from all of them.

    Partners are independent of the samples, so that pairs of one class occur with their natural probability. What is
    left over after the last whole batch is not used. image_size: (H, W). stages: from which manifold mixup chooses.
    steps: so many batches instead, with the samples drawn as the partners are, independently and with replacement; a
    batch may then be larger than `samples`.
    """
    order = rng.permutation(samples) if steps is None else None
    for i in range(samples // batch_size if steps is None else steps):
        rows = slice(i * batch_size, (i + 1) * batch_size)
        first = rng.integers(samples, size=batch_size) if order is None else order[rows]
        if mixing.kind == "none":
            yield MixingPlan(torch.from_numpy(first), torch.from_numpy(first), torch.ones(batch_size))
            continue
        second = rng.integers(samples, size=batch_size)
        lam = rng.beta(mixing.alpha, mixing.alpha, batch_size if mixing.lam_per == "sample" else 1)
        lam = np.broadcast_to(lam, batch_size).copy()
        boxes = None
        if mixing.kind == "cutmix":
            boxes, lam = _boxes(lam, image_size, rng, one=mixing.lam_per == "batch")
        stage = int(rng.integers(stages)) if mixing.kind == "manifold" else 0
        yield MixingPlan(torch.from_numpy(first), torch.from_numpy(second), torch.from_numpy(lam).float(), boxes, stage)


def _boxes(
    lam: np.ndarray, image_size: tuple[int, int], rng: np.random.Generator, *, one: bool
) -> tuple[Int[Tensor, "n 4"], np.ndarray]:
    """Return rectangles of area about 1 - lam around uniform centres, cut off at the border, and the lam they leave.

    Source: Yun et al., "CutMix: regularization strategy to train strong classifiers", ICCV 2019.
    """
    edges = []
    for size in image_size:
        centre = np.broadcast_to(rng.uniform(0, size, 1 if one else len(lam)), len(lam))
        half = size * np.sqrt(1 - lam) / 2
        edges += [np.clip(np.rint(centre + sign * half), 0, size).astype(np.int64) for sign in (-1, 1)]
    top, bottom, left, right = edges
    area = (bottom - top) * (right - left) / (image_size[0] * image_size[1])
    return torch.from_numpy(np.stack(edges, 1)), 1 - area


def mix_images(
    first: Float[Tensor, "n C H W"], second: Float[Tensor, "n C H W"], pairs: MixingPlan
) -> Float[Tensor, "n C H W"]:
    """Return lam first + (1 - lam) second, or the first images with the boxes filled from the second ones."""
    if pairs.boxes is None:
        weight = pairs.lam.to(first).view(-1, 1, 1, 1)
        return weight * first + (1 - weight) * second
    top, bottom, left, right = (edge.view(-1, 1, 1, 1) for edge in pairs.boxes.to(first.device).unbind(1))
    row = torch.arange(first.shape[2], device=first.device).view(1, 1, -1, 1)
    column = torch.arange(first.shape[3], device=first.device).view(1, 1, 1, -1)
    inside = (row >= top) & (row < bottom) & (column >= left) & (column < right)
    return torch.where(inside, second, first)


def flip_and_crop(
    images: UInt8[Tensor, "n C H W"], rng: np.random.Generator, padding: int = 4
) -> UInt8[Tensor, "n C H W"]:
    """Return the images mirrored with probability 1/2 and shifted by up to `padding` pixels, zeros moving in."""
    n, _, height, width = images.shape
    padded = torch.nn.functional.pad(images, (padding,) * 4)
    top, left = (torch.from_numpy(rng.integers(2 * padding + 1, size=n)) for _ in range(2))
    columns = torch.arange(width).expand(n, -1)
    columns = torch.where(torch.from_numpy(rng.random(n) < 0.5)[:, None], width - 1 - columns, columns)
    rows = (top[:, None] + torch.arange(height)).to(images.device)
    columns = (left[:, None] + columns).to(images.device)
    index = torch.arange(n, device=images.device)
    # Indexing with the channels' slice between the index arrays moves the channels to the end.
    return padded[index[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def mixed_batches(
    data: ImageData,
    mixing: Mixing,
    samples: int,
    *,
    seed: int,
    split: str = "train",
    batch_size: int = 128,
    same_class: bool | None = None,
    show: str = "mixed",
    device: torch.device | str = "cpu",
) -> Iterator[MixedBatch | tuple[Tensor, Tensor]]:
    """Yield batches of at least `samples` mixed images in all, for recording: the same for the same seed.

    With label smoothing they are pairs of images and soft labels.

    split: train or test. same_class: only pairs of one class (True), of two (False), or as they come (None).
    show: the mixed images, or the first or second ones of the same pairs. With manifold mixup the images themselves are
    mixed. Raises ValueError for an unknown split or image to show, or pairs of two classes without mixing.
    """
    check_choice("split", split, ("train", "test"))
    check_choice("show", show, ("mixed", "first", "second"))
    images, classes = getattr(data, f"{split}_images"), getattr(data, f"{split}_classes")
    check_integer("samples", samples, minimum=1)
    check_integer("batch_size", batch_size, minimum=1)
    if mixing.kind == "none" and same_class is False:
        raise ValueError(
            "same_class: got False without mixing, where all pairs are of one class, expected True or None"
        )
    rng = np.random.default_rng([seed, 1])
    size = min(batch_size, len(images))
    members = [np.flatnonzero(classes.numpy() == k) for k in range(data.num_classes)]
    given = 0
    while given < samples:
        for pairs in epoch_pairs(mixing, len(images), size, rng, image_size=tuple(images.shape[2:])):
            first, second = pairs.first, pairs.second
            if same_class is not None and mixing.kind != "none":
                second = _partners(classes[first].numpy(), members, rng, same_class=same_class)
            x, partner = (data.standardise(images[rows].to(device)) for rows in (first, second))
            if show == "mixed":
                inputs = x if mixing.kind == "none" else mix_images(x, partner, pairs)
            else:
                inputs = x if show == "first" else partner
            if mixing.smoothing:
                columns = classes[first], classes[second], pairs.lam.double()
                yield inputs, PairTargets(data.num_classes, *columns, smoothing=mixing.smoothing).labels
            else:
                yield MixedBatch(inputs, classes[first], classes[second], pairs.lam)
            given += len(first)
            if given >= samples:
                return


def _partners(
    classes: np.ndarray, members: list[np.ndarray], rng: np.random.Generator, *, same_class: bool
) -> Int[Tensor, "n"]:
    """Return a random sample of the same class, or of another one, for each of `classes`."""
    partners = []
    for k in classes:
        other = k if same_class else (k + rng.integers(1, len(members))) % len(members)
        partners.append(rng.choice(members[other]))
    return torch.from_numpy(np.array(partners))
