"""Image data sets as tensors: bundled, from a folder, or downloaded and checked; decoded once and memory-mapped."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from experiments.data.decoded import channel_statistics, load_decoded
from experiments.data.sources import CATALOGUE, cache_folder, locate
from ufm._support.arrays import check_choice, check_integer

DATA_SETS = ("digits", *CATALOGUE)

_TEST_FRACTION = 0.2


@dataclass(frozen=True, eq=False)
class ImageData:
    """A data set split in two: images (N, C, H, W) as they are stored, classes (N,), and the pixels' statistics.

    `mean` and `std` (C,) are those of the training pixels of each channel, in pixel units. Images may be
    memory-mapped: writing into them changes this process's copy, never the file.
    """

    name: str
    class_names: tuple[str, ...]
    train_images: UInt8[Tensor, "N C H W"]
    train_classes: Int[Tensor, "N"]
    test_images: UInt8[Tensor, "M C H W"]
    test_classes: Int[Tensor, "M"]
    mean: Float[Tensor, "C"]
    std: Float[Tensor, "C"]

    @property
    def num_classes(self) -> int:
        """Number of classes K; the classes are 0 to K - 1."""
        return len(self.class_names)

    def standardise(self, images: UInt8[Tensor, "n C H W"]) -> Float[Tensor, "n C H W"]:
        """Return (images - mean) / std channel by channel, as float32 on the images' device.

        Raises ValueError for images that are not uint8 (n, C, H, W) with this data set's C.
        """
        channels = len(self.mean)
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != channels:
            found = f"{images.dtype} of shape {tuple(images.shape)}"
            raise ValueError(f"images: got {found}, expected torch.uint8 of shape (n, {channels}, H, W)")
        mean, std = (value.to(images.device).view(-1, 1, 1) for value in (self.mean, self.std))
        return images.to(torch.float32).sub_(mean).div_(std)

    def first_classes(self, num_classes: int) -> "ImageData":
        """Return the images of the first classes only, training and test; their order, mean and std kept.

        Raises ValueError unless 2 <= num_classes <= K.
        """
        check_integer("num_classes", num_classes, minimum=2, maximum=self.num_classes)
        train, test = self.train_classes < num_classes, self.test_classes < num_classes
        return replace(
            self,
            class_names=self.class_names[:num_classes],
            train_images=self.train_images[train],
            train_classes=self.train_classes[train],
            test_images=self.test_images[test],
            test_classes=self.test_classes[test],
        )

    def subset(self, samples: int, seed: int = 0) -> "ImageData":
        """Return the data set with a random `samples` of the training images, their order, mean and std kept.

        Class counts differ by at most one. With one seed a smaller subset lies inside a larger one.
        Raises ValueError unless K <= samples <= K times the smallest class's count.
        """
        classes = self.train_classes.cpu().numpy()
        smallest = int(np.bincount(classes, minlength=self.num_classes).min())
        check_integer("samples", samples, minimum=self.num_classes, maximum=self.num_classes * smallest)
        check_integer("seed", seed, minimum=0)
        each, extra = divmod(samples, self.num_classes)
        rng = np.random.default_rng(seed)
        with_one_more = set(rng.permutation(self.num_classes)[:extra].tolist())
        chosen = [
            rng.permutation(np.flatnonzero(classes == k))[: each + (k in with_one_more)]
            for k in range(self.num_classes)
        ]
        index = torch.from_numpy(np.sort(np.concatenate(chosen))).to(self.train_classes.device)
        return replace(self, train_images=self.train_images[index], train_classes=self.train_classes[index])


def digits() -> ImageData:
    """Return scikit-learn's bundled handwritten digits: 1,797 grey images of 8 x 8 pixels (0 to 16), 10 classes.

    A fixed fifth of each class, drawn with seed 0, is the test set (the bundled set has no split of its own).
    Source: E. Alpaydin and C. Kaynak, "Optical recognition of handwritten digits", UCI repository, 1998.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = bunch.images.astype(np.uint8)[:, None]  # pyright: ignore[reportAttributeAccessIssue]
    images = torch.from_numpy(pixels)
    classes = torch.from_numpy(bunch.target).long()  # pyright: ignore[reportAttributeAccessIssue]
    rng = np.random.default_rng(0)
    test = torch.zeros(len(classes), dtype=torch.bool)
    for k in range(10):
        members = np.flatnonzero(classes.numpy() == k)
        test[rng.permutation(members)[: round(_TEST_FRACTION * len(members))]] = True
    mean, std = channel_statistics(images[~test].numpy())
    return ImageData(
        name="digits",
        class_names=tuple(map(str, range(10))),
        train_images=images[~test],
        train_classes=classes[~test],
        test_images=images[test],
        test_classes=classes[test],
        mean=torch.from_numpy(mean).float(),
        std=torch.from_numpy(std).float(),
    )


def load_data(name: str, folder: str | Path | None = None) -> ImageData:
    """Return the data set `name`, one of DATA_SETS.

    All but "digits" are read from `folder`, else from the folder named by the environment variable UFM_DATA_DIR,
    with one folder per data set in it (see `sources`); with neither they are downloaded, except "cifar10-jpeg".
    Nothing is ever written into such a folder. Downloads and decoded images are kept in the cache folder,
    UFM_CACHE_DIR or the user's own.

    Raises ValueError for an unknown name and for a file that is missing, damaged or not the published one;
    OSError for a download that fails or a cache folder that cannot be written.
    """
    check_choice("name", name, DATA_SETS)
    if name == "digits":
        return digits()
    cache = cache_folder()
    stored = load_decoded(cache, locate(name, folder, cache))
    return ImageData(
        name=name,
        class_names=CATALOGUE[name].class_names,
        train_images=torch.from_numpy(stored.train_images),
        train_classes=torch.from_numpy(stored.train_classes),
        test_images=torch.from_numpy(stored.test_images),
        test_classes=torch.from_numpy(stored.test_classes),
        mean=torch.from_numpy(stored.mean).float(),
        std=torch.from_numpy(stored.std).float(),
    )
