"""The readers of the published formats: what was written comes back, and damaged files are refused."""

import gzip
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from experiments.data.formats import parse_cifar, read_idx, read_idx_split, read_jpeg_archive, read_members
from tests.helpers.datasets import cifar_bytes, flipped, idx_bytes, jpeg_arrays, tar_bytes, write

any_array = arrays.arrays(np.uint8, arrays.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=5))


@given(array=any_array)
def test_idx_round_trip(array: np.ndarray, tmp_path_factory: pytest.TempPathFactory):
    path = write(tmp_path_factory.mktemp("idx") / "x.gz", gzip.compress(idx_bytes(array)))
    found = read_idx(path, array.ndim)
    assert found.dtype == np.uint8 and np.array_equal(found, array) and found.shape == array.shape


@given(records=st.integers(1, 4), classes=st.sampled_from([10, 100]), seed=st.integers(0, 99))
def test_cifar_round_trip(records: int, classes: int, seed: int):
    content = cifar_bytes(np.random.default_rng(seed), records, classes)
    images, labels = parse_cifar(content, "x", classes)
    assert images.shape == (records, 3, 32, 32)
    head = 1 + (classes == 100)
    for i in range(records):
        record = content[i * (3072 + head) :][: 3072 + head]
        assert labels[i] == record[head - 1]
        # Red plane, then green, then blue, each by rows.
        assert images[i, 1, 2, 3] == record[head + 1024 + 2 * 32 + 3]
        assert images[i].tobytes() == record[head:]


GOOD = idx_bytes(np.arange(6).reshape(1, 2, 3))


@pytest.mark.parametrize(
    "content, message",
    [
        (GOOD[:-1], r"got 5 bytes, expected 6 bytes for shape \(1, 2, 3\)"),
        (GOOD + b"\0", "got 7 bytes or more, expected 6 bytes"),
        (GOOD[:10], "a header of 10 bytes, expected 16 bytes"),
        (b"", "magic number , expected 00 00 08 03"),
        (b"\0\0\x0d" + GOOD[3:], "magic number 00 00 0d 03, expected 00 00 08 03"),
        (b"\0\0\x08\x01" + GOOD[4:], "magic number 00 00 08 01"),
        (GOOD[:4] + b"\xff" * 12 + GOOD[16:], "got the shape .*, expected at most"),
    ],
)
def test_damaged_idx(tmp_path: Path, content: bytes, message: str):
    path = write(tmp_path / "x.gz", gzip.compress(content))
    with pytest.raises(ValueError, match=rf"x\.gz: got .*{message}|x\.gz: {message}"):
        read_idx(path, 3)


@pytest.mark.parametrize(
    "damage",
    [
        lambda good: good[:-9],
        lambda good: good + b"trailing",
        lambda good: flipped(good, len(good) - 6),
        lambda good: b"not gzip",
    ],
)
def test_damaged_gzip(tmp_path: Path, damage: Callable[[bytes], bytes]):
    with pytest.raises(ValueError, match=r"x\.gz: got damaged gzip data"):
        read_idx(write(tmp_path / "x.gz", damage(gzip.compress(GOOD))), 3)


def test_images_and_labels_of_different_length(tmp_path: Path):
    labels = write(tmp_path / "y.gz", gzip.compress(idx_bytes(np.zeros(2))))
    with pytest.raises(ValueError, match=r"y\.gz: got 2 labels, expected 1, one per image of x\.gz"):
        read_idx_split(write(tmp_path / "x.gz", gzip.compress(GOOD)), labels)


@pytest.mark.parametrize("classes", [10, 100])
def test_damaged_cifar(classes: int):
    good = cifar_bytes(np.random.default_rng(0), 2, classes)
    for content in (good[:-1], good + b"\0", b""):
        with pytest.raises(ValueError, match="x.bin: got .* bytes, expected whole records of 307"):
            parse_cifar(content, "x.bin", classes)
    with pytest.raises(ValueError, match="x.bin: got a label 255, expected labels below"):
        parse_cifar(b"\xff" + good[1:], "x.bin", classes)


def test_damaged_tar(tmp_path: Path):
    good = tar_bytes({"d/a.bin": b"a" * 1000, "d/b.bin": b"b"})
    path = write(tmp_path / "x.tar.gz", good)
    assert read_members(path, ["d/b.bin", "d/a.bin"]) == [b"b", b"a" * 1000]
    for missing in ("d/c.bin", "d", "../a.bin"):
        with pytest.raises(ValueError, match=rf"x\.tar\.gz: got no file {missing}"):
            read_members(path, ["d/a.bin", missing])
    for content in (good[: len(good) // 2], b"not a tar", flipped(good, len(good) - 6)):
        with pytest.raises(ValueError, match=r"x\.tar\.gz: got a damaged archive"):
            read_members(write(path, content), ["d/a.bin"])
    assert list(tmp_path.iterdir()) == [path]


def test_jpeg_archive(tmp_path: Path):
    value = jpeg_arrays(np.random.default_rng(0), [3, 1, 1])
    np.savez(tmp_path / "x.npz", **value)
    images, labels = read_jpeg_archive(tmp_path / "x.npz", 10)
    assert images.shape == (3, 3, 32, 32) and images.flags.c_contiguous and labels.tolist() == [3, 1, 1]
    for i in range(3):
        with Image.open(io.BytesIO(value["jpeg"].tobytes()[value["offsets"][i] : value["offsets"][i + 1]])) as image:
            assert np.array_equal(images[i].transpose(1, 2, 0), np.asarray(image))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"labels": np.array([3, 1, 10], np.uint8)}, "a label 10, expected labels below 10"),
        ({"labels": np.array([3, 1], np.uint8)}, "got shapes"),
        ({"labels": np.array([3, 1, 1])}, "got dtypes"),
        ({"offsets": np.array([0, 5, 5, 5])}, "got offsets that do not fit"),
        ({"jpeg": np.zeros(30, np.uint8), "offsets": np.array([0, 20, 10, 30])}, "got offsets that do not fit"),
        ({"offsets": None}, "damaged archive .*offsets"),
        ({"jpeg": np.zeros(30, np.uint8), "offsets": np.array([0, 10, 20, 30])}, "an image 0 that cannot be decoded"),
        ({"labels": np.array([3, 1, 1], object)}, "damaged archive .*allow_pickle"),
    ],
)
def test_damaged_jpeg_archive(tmp_path: Path, change: dict[str, np.ndarray | None], message: str):
    value = jpeg_arrays(np.random.default_rng(0), [3, 1, 1]) | change
    np.savez(tmp_path / "x.npz", **{key: array for key, array in value.items() if array is not None})
    with pytest.raises(ValueError, match=rf"x\.npz: .*{message}"):
        read_jpeg_archive(tmp_path / "x.npz", 10)


def test_jpeg_archive_cut_short_or_of_mixed_sizes(tmp_path: Path):
    path = tmp_path / "x.npz"
    small, large = (jpeg_arrays(np.random.default_rng(0), [1], side) for side in (16, 32))
    jpeg = np.concatenate([small["jpeg"], large["jpeg"]])
    offsets = np.array([0, len(small["jpeg"]), len(jpeg)])
    np.savez(path, jpeg=jpeg, offsets=offsets, labels=np.array([1, 1], np.uint8))
    with pytest.raises(ValueError, match=r"an image 1 of shape \(32, 32, 3\), expected \(16, 16, 3\)"):
        read_jpeg_archive(path, 10)
    np.save(tmp_path / "x.npy", jpeg)
    whole, npy = path.read_bytes(), (tmp_path / "x.npy").read_bytes()
    for content in (whole[:-30], whole[:100], b"", flipped(whole, 500), npy):
        with pytest.raises(ValueError, match=r"x\.npz: got a damaged archive"):
            read_jpeg_archive(write(path, content), 10)
