"""The data sets: the digits, statistics, balanced subsets, the catalogue, and the published files where they are."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from experiments.data import DATA_SETS, ImageData, decoded, digits, load_data
from experiments.data.sources import CATALOGUE
from tests.helpers import datasets
from tests.helpers.datasets import idx_bytes, md5

cache = datasets.cache  # a fixture that every test here has

REAL = Path(os.environ["UFM_DATA_DIR"]).resolve() if os.environ.get("UFM_DATA_DIR") else None


def real(name: str):
    there = REAL is not None and (REAL / name).is_dir()
    return pytest.mark.skipif(not there, reason=f"needs UFM_DATA_DIR set to a folder with {name}/ in it")


# The data set itself.


def test_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    bunch, data = load_digits(), digits()
    assert data.train_images.dtype == torch.uint8 and data.train_classes.dtype == torch.int64
    assert data.train_images.shape == (1438, 1, 8, 8) and data.test_images.shape == (359, 1, 8, 8)
    # The same pairs of image and class, each once.
    ours = [
        (image.numpy().astype(np.float64).tobytes(), int(label))
        for images, labels in ((data.train_images, data.train_classes), (data.test_images, data.test_classes))
        for image, label in zip(images, labels, strict=True)
    ]
    assert sorted(ours) == sorted((i.tobytes(), int(k)) for i, k in zip(bunch.images, bunch.target, strict=True))
    assert not {image for image, _ in ours[:1438]} & {image for image, _ in ours[1438:]}
    for labels in (data.train_classes, data.test_classes):
        assert torch.bincount(labels).min() >= 0.09 * len(labels)
    # The split stays what it was.
    assert md5(data.test_images.numpy().tobytes()) == "md5:45a339c494252995660676753e8d0e2d"
    assert load_data("digits").train_images.equal(data.train_images)


def test_statistics_and_standardising():
    data = digits()
    pixels = data.train_images.double()
    assert data.mean.dtype == data.std.dtype == torch.float32
    assert data.mean.item() == pytest.approx(pixels.mean().item(), rel=1e-6)
    assert data.std.item() == pytest.approx(pixels.std(correction=0).item(), rel=1e-6)
    scaled = data.standardise(data.train_images)
    assert scaled.dtype == torch.float32
    assert scaled.mean().abs() < 1e-5 and scaled.std(correction=0).item() == pytest.approx(1, abs=1e-5)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5000, 3, 4, 5), dtype=np.uint8)
    mean, std = decoded.channel_statistics(images)
    assert mean == pytest.approx(images.mean((0, 2, 3)), rel=1e-12)
    assert std == pytest.approx(images.std((0, 2, 3)), rel=1e-12)
    colour = replace(data, mean=torch.tensor([1.0, 2, 3]), std=torch.tensor([1.0, 2, 4]))
    ones = torch.full((1, 3, 2, 2), 5, dtype=torch.uint8)
    assert colour.standardise(ones)[0, :, 0, 0].tolist() == [4, 1.5, 0.5]


@pytest.mark.parametrize("shape, dtype", [((2, 8, 8), "uint8"), ((2, 3, 8, 8), "uint8"), ((2, 1, 8, 8), "float32")])
def test_standardising_refuses_other_images(shape: tuple[int, ...], dtype: str):
    with pytest.raises(ValueError, match=r"images: got .* expected torch.uint8 of shape \(n, 1, H, W\)"):
        digits().standardise(torch.zeros(shape, dtype=getattr(torch, dtype)))


@pytest.mark.parametrize("samples", [10, 17, 100, 1000])
def test_subsets_are_balanced_and_nested(samples: int):
    data = digits()
    subset = data.subset(samples, seed=3)
    counts = torch.bincount(subset.train_classes, minlength=10)
    assert counts.sum() == samples == len(subset.train_images) and counts.max() - counts.min() <= 1
    assert subset.train_images.equal(data.subset(samples, seed=3).train_images)
    assert not subset.train_images.equal(data.subset(samples, seed=4).train_images)
    assert subset.mean.equal(data.mean) and subset.test_images.equal(data.test_images)
    pairs, larger = (
        {(image.numpy().tobytes(), int(k)) for image, k in zip(d.train_images, d.train_classes, strict=True)}
        for d in (subset, data.subset(samples + 33, seed=3))
    )
    assert pairs < larger


@pytest.mark.parametrize("samples", [0, -1, 9, 1439, 2.5, True])
def test_subsets_out_of_range(samples: int):
    with pytest.raises(ValueError, match="samples: got"):
        digits().subset(samples)


def test_catalogue():
    assert DATA_SETS == ("digits", "mnist", "fashion-mnist", "cifar10", "cifar10-jpeg", "cifar100")
    for name, count in (("mnist", 10), ("fashion-mnist", 10), ("cifar10", 10), ("cifar10-jpeg", 10), ("cifar100", 100)):
        assert len(set(CATALOGUE[name].class_names)) == count
    assert list(CATALOGUE["cifar100"].class_names) == sorted(CATALOGUE["cifar100"].class_names)
    with pytest.raises(ValueError, match="name: got 'imagenet', expected one of 'digits', 'mnist'"):
        load_data("imagenet")


# The real files.


@pytest.fixture(scope="module")
def real_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("real")


@pytest.mark.parametrize(
    "name, mean, std, sizes",
    [
        pytest.param("mnist", 0.1307, 0.3081, (5421, 6742), marks=real("mnist")),
        pytest.param("fashion-mnist", 0.2860, 0.3530, (6000, 6000), marks=real("fashion-mnist")),
    ],
)
def test_real_idx(real_cache: Path, monkeypatch: pytest.MonkeyPatch, name: str, mean: float, std: float, sizes):
    monkeypatch.setenv("UFM_CACHE_DIR", str(real_cache))
    data = load_data(name, REAL)
    assert data.train_images.shape == (60_000, 1, 28, 28) and data.test_images.shape == (10_000, 1, 28, 28)
    counts = torch.bincount(data.train_classes)
    assert (int(counts.min()), int(counts.max())) == sizes
    assert data.mean.item() / 255 == pytest.approx(mean, abs=5e-5)
    assert data.std.item() / 255 == pytest.approx(std, abs=5e-5)
    files = CATALOGUE[name].files
    found = (data.train_images[:, 0], data.train_classes, data.test_images[:, 0], data.test_classes)
    assert [md5(idx_bytes(tensor.numpy())) for tensor in found] == [source.content for source in files]


def check_real_cifar(data: ImageData) -> None:
    assert data.train_images.shape == (50_000, 3, 32, 32) and data.test_images.shape == (10_000, 3, 32, 32)
    assert torch.bincount(data.train_classes).tolist() == [50_000 // data.num_classes] * data.num_classes
    assert torch.bincount(data.test_classes).tolist() == [10_000 // data.num_classes] * data.num_classes


@pytest.mark.slow
@real("cifar10-jpeg")
def test_real_cifar10_jpeg(real_cache: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("UFM_CACHE_DIR", str(real_cache))
    data = load_data("cifar10-jpeg", REAL)
    check_real_cifar(data)
    assert (data.mean / 255).tolist() == pytest.approx([0.4913, 0.4821, 0.4465], abs=5e-5)
    assert (data.std / 255).tolist() == pytest.approx([0.2452, 0.2428, 0.2606], abs=5e-5)
    found = [md5(images.permute(0, 2, 3, 1).numpy().tobytes()) for images in (data.train_images, data.test_images)]
    # As decoded with Pillow 13.0.0.
    assert found == ["md5:72662491311eea90632a1d0f92198ecd", "md5:a085fc7e64a3745bfb901013e5654098"]


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param(name, marks=real(name)) for name in ("cifar10", "cifar100")])
def test_real_cifar(real_cache: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    monkeypatch.setenv("UFM_CACHE_DIR", str(real_cache))
    check_real_cifar(load_data(name, REAL))
