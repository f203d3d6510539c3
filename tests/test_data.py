import gzip
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from experiments.data import DATA_SETS, ImageData, decoded, digits, load_data
from experiments.data.formats import parse_cifar, read_idx, read_idx_split, read_jpeg_archive, read_members
from experiments.data.sources import CATALOGUE, Entry, Source

REAL = Path(os.environ["UFM_DATA_DIR"]).resolve() if os.environ.get("UFM_DATA_DIR") else None
IDX = ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz", "t10k-images-idx3-ubyte.gz")
IDX += ("t10k-labels-idx1-ubyte.gz",)


def real(name: str):
    there = REAL is not None and (REAL / name).is_dir()
    return pytest.mark.skipif(not there, reason=f"needs UFM_DATA_DIR set to a folder with {name}/ in it")


def md5(content: bytes) -> str:
    return "md5:" + hashlib.md5(content).hexdigest()


# Tiny data sets in the published formats.


def idx_bytes(array: np.ndarray) -> bytes:
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes((0, 0, 8, array.ndim)) + sizes + array.astype(np.uint8).tobytes()


def cifar_bytes(rng: np.random.Generator, records: int, classes: int) -> bytes:
    labels = [rng.integers(0, limit, (records, 1)) for limit in ((20, classes) if classes == 100 else (classes,))]
    return np.hstack([*labels, rng.integers(0, 256, (records, 3072))]).astype(np.uint8).tobytes()


def tar_bytes(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        folder = tarfile.TarInfo(next(iter(members)).partition("/")[0])
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def jpeg_arrays(rng: np.random.Generator, labels: list[int], side: int = 32) -> dict[str, np.ndarray]:
    files = []
    for _ in labels:
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (side, side, 3)).astype(np.uint8)).save(buffer, "JPEG")
        files.append(buffer.getvalue())
    return {
        "jpeg": np.frombuffer(b"".join(files), np.uint8),
        "offsets": np.cumsum([0, *map(len, files)]).astype(np.int64),
        "labels": np.array(labels, np.uint8),
        "class_names": np.array(CATALOGUE["cifar10-jpeg"].class_names),
    }


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def tiny_mnist(seed: int = 0) -> tuple[Entry, dict[str, bytes], list[np.ndarray]]:
    """Return a catalogue entry of 20 training and 10 test images, its files, and their arrays."""
    rng = np.random.default_rng(seed)
    values = [rng.integers(0, 256, (20, 28, 28)), np.arange(20) % 10, rng.integers(0, 256, (10, 28, 28)), np.arange(10)]
    contents = [idx_bytes(value) for value in values]
    files = {name: gzip.compress(content, mtime=0) for name, content in zip(IDX, contents, strict=True)}
    sources = tuple(
        Source(name, md5(files[name]), md5(content), f"http://127.0.0.1:9/{name}")
        for name, content in zip(IDX, contents, strict=True)
    )
    return replace(CATALOGUE["mnist"], train=20, test=10, files=sources), files, values


def tiny_cifar(name: str) -> tuple[Entry, dict[str, bytes], bytes]:
    """Return a catalogue entry with 2 images per part, its parts, and the archive that holds them."""
    entry = CATALOGUE[name]
    rng = np.random.default_rng(1)
    parts = {part.file: cifar_bytes(rng, 2, len(entry.class_names)) for part in entry.parts}
    archive = tar_bytes({f"{entry.inside}/{file}": content for file, content in parts.items()})
    source = replace(entry.files[0], published=md5(archive))
    return replace(entry, train=2 * (len(parts) - 1), test=2, files=(source,)), parts, archive


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.delenv("UFM_DATA_DIR", raising=False)
    monkeypatch.setenv("UFM_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def mnist(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[Path, list[np.ndarray]]:
    """Put the tiny MNIST into the catalogue and into a folder."""
    entry, files, values = tiny_mnist()
    monkeypatch.setitem(CATALOGUE, "mnist", entry)
    for name, content in files.items():
        write(tmp_path / "data" / "mnist" / name, content)
    return tmp_path / "data", values


def check_tiny_mnist(data: ImageData, values: list[np.ndarray]) -> None:
    found = (data.train_images[:, 0], data.train_classes, data.test_images[:, 0], data.test_classes)
    for tensor, value in zip(found, values, strict=True):
        assert np.array_equal(tensor.numpy(), value)


def state(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def refuse(*_: object, **__: object) -> None:
    raise AssertionError("decoded again")


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


# Formats.

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
        (GOOD + b"\0", "got 7 bytes, expected 6 bytes"),
        (GOOD[:10], "a header of 10 bytes, expected 16 bytes"),
        (b"", "magic number , expected 00 00 08 03"),
        (b"\0\0\x0d" + GOOD[3:], "magic number 00 00 0d 03, expected 00 00 08 03"),
        (b"\0\0\x08\x01" + GOOD[4:], "magic number 00 00 08 01"),
        (GOOD[:4] + b"\xff" * 12 + GOOD[16:], "got 6 bytes, expected"),
    ],
)
def test_damaged_idx(tmp_path: Path, content: bytes, message: str):
    path = write(tmp_path / "x.gz", gzip.compress(content))
    with pytest.raises(ValueError, match=rf"x\.gz: got .*{message}|x\.gz: {message}"):
        read_idx(path, 3)


def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes((content[at] ^ 1,)) + content[at + 1 :]


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


# A folder of one's own.


def test_files_compressed_anew_are_taken_from_a_folder(mnist, monkeypatch: pytest.MonkeyPatch):
    folder, values = mnist
    path = folder / "mnist" / IDX[0]
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()), compresslevel=1))
    before = state(folder)
    check_tiny_mnist(load_data("mnist", folder), values)
    monkeypatch.setenv("UFM_DATA_DIR", str(folder))
    data = load_data("mnist")
    check_tiny_mnist(data, values)
    assert data.num_classes == 10 and data.train_classes.dtype == torch.int64
    assert state(folder) == before


@pytest.mark.parametrize("which", range(4))
@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda good: gzip.compress(flipped(gzip.decompress(good), 17)), "got content with md5:"),
        (lambda good: gzip.compress(gzip.decompress(good) + b"\0"), "got content with md5:"),
        (lambda good: good[:-3], "damaged gzip"),
        (lambda good: b"", "got content with md5:d41d8cd98f00b204e9800998ecf8427e"),
    ],
)
def test_other_files_in_a_folder_are_refused_and_left_alone(mnist, which: int, damage, message: str):
    folder, _ = mnist
    path = folder / "mnist" / IDX[which]
    path.write_bytes(damage(path.read_bytes()))
    before = state(folder)
    with pytest.raises(ValueError, match=f"{IDX[which]}: .*{message}"):
        load_data("mnist", folder)
    assert state(folder) == before


def test_missing_files_and_folders(mnist, tmp_path: Path, cache: Path):
    folder, _ = mnist
    (folder / "mnist" / IDX[3]).unlink()
    with pytest.raises(ValueError, match=f"mnist: got no file .*{IDX[3]}, expected it in the data folder"):
        load_data("mnist", folder)
    with pytest.raises(ValueError, match="cifar100: got no file .*cifar-100-binary.tar.gz"):
        load_data("cifar100", tmp_path / "nowhere")
    with pytest.raises(ValueError, match="cifar10-jpeg: got no folder, .*UFM_DATA_DIR"):
        load_data("cifar10-jpeg")
    assert not cache.exists()


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
@pytest.mark.parametrize("layout", ["archive", "beside", "inside"])
def test_cifar_from_a_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, layout: str):
    entry, parts, archive = tiny_cifar(name)
    monkeypatch.setitem(CATALOGUE, name, entry)
    home = tmp_path / "data" / name
    if layout == "archive":
        write(home / entry.files[0].file, archive)
    else:
        for file, content in parts.items():
            write(home / (entry.inside if layout == "inside" else "") / file, content)
    before = state(home)
    data = load_data(name, tmp_path / "data")
    assert state(home) == before
    images, labels = zip(*(parse_cifar(content, "", data.num_classes) for content in parts.values()), strict=True)
    assert np.array_equal(data.train_images.numpy(), np.concatenate(images[:-1]))
    assert np.array_equal(data.train_classes.numpy(), np.concatenate(labels[:-1]))
    assert np.array_equal(data.test_images.numpy(), images[-1])
    assert np.array_equal(data.test_classes.numpy(), labels[-1])
    path = next(path for path in home.rglob("*") if path.is_file())
    path.write_bytes(path.read_bytes()[:-1])
    before = state(home)
    with pytest.raises(ValueError, match=f"{path.name}: got .*, expected"):
        load_data(name, tmp_path / "data")
    assert state(home) == before
    if layout != "archive":
        path.unlink()
        with pytest.raises(ValueError, match=f"{name}: got no file .*{path.name}"):
            load_data(name, tmp_path / "data")


def test_cifar_parts_with_too_few_images(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    entry, parts, _ = tiny_cifar("cifar100")
    monkeypatch.setitem(CATALOGUE, "cifar100", replace(entry, train=3))
    for file, content in parts.items():
        write(tmp_path / "cifar100" / file, content)
    with pytest.raises(ValueError, match=r"training images: got shape \(2, 3, 32, 32\), expected \(3, 3, 32, 32\)"):
        load_data("cifar100", tmp_path)


def test_jpeg_data_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    home = tmp_path / "cifar10-jpeg"
    home.mkdir()
    for split, labels in (("train", [0, 0, 1, 2]), ("test", [0, 9])):
        np.savez(home / f"{split}.npz", **jpeg_arrays(np.random.default_rng(len(labels)), labels))
    with pytest.raises(ValueError, match=r"train\.npz: got file with sha256:.*, expected sha256:e5c1765b"):
        load_data("cifar10-jpeg", tmp_path)
    sources = tuple(
        Source(f"{split}.npz", "sha256:" + hashlib.sha256((home / f"{split}.npz").read_bytes()).hexdigest())
        for split in ("train", "test")
    )
    monkeypatch.setitem(CATALOGUE, "cifar10-jpeg", replace(CATALOGUE["cifar10-jpeg"], train=4, test=2, files=sources))
    data = load_data("cifar10-jpeg", tmp_path)
    assert data.train_classes.tolist() == [0, 0, 1, 2] and data.test_classes.tolist() == [0, 9]
    assert np.array_equal(data.train_images.numpy(), read_jpeg_archive(home / "train.npz", 10)[0])
    # Another decoder may give other pixels: what this one stored is not used.
    monkeypatch.setattr(decoded, "version", lambda _: "0")
    monkeypatch.setattr(decoded, "read_jpeg_archive", refuse)
    with pytest.raises(AssertionError, match="decoded again"):
        load_data("cifar10-jpeg", tmp_path)


# Decoding once.


def test_the_second_call_maps_what_the_first_decoded(mnist, monkeypatch: pytest.MonkeyPatch, cache: Path):
    folder, values = mnist
    load_data("mnist", folder)
    stored = state(cache)
    monkeypatch.setattr(decoded, "read_idx_split", refuse)
    monkeypatch.setattr(decoded, "obtain", refuse)
    data = load_data("mnist", folder)
    check_tiny_mnist(data, values)
    assert state(cache) == stored
    # Writing into the images reaches neither the file nor another reader.
    data.train_images.fill_(7)
    data.train_classes.fill_(7)
    assert state(cache) == stored
    check_tiny_mnist(load_data("mnist", folder), values)


def test_images_are_memory_mapped(mnist):
    folder, _ = mnist
    load_data("mnist", folder)
    stored = decoded.load_decoded(Path(os.environ["UFM_CACHE_DIR"]), decoded_files(folder))
    assert isinstance(stored.train_images, np.memmap) and isinstance(stored.test_images, np.memmap)
    data = load_data("mnist", folder)
    if sys.platform == "linux":
        spans = [
            tuple(int(end, 16) for end in line.split()[0].split("-"))
            for line in Path("/proc/self/maps").read_text().splitlines()
            if line.endswith("train_images.npy")
        ]
        assert any(start <= data.train_images.data_ptr() < stop for start, stop in spans)


def decoded_files(folder: Path):
    from experiments.data.sources import locate

    return locate("mnist", folder, Path(os.environ["UFM_CACHE_DIR"]))


def test_a_changed_source_is_checked_anew(mnist, monkeypatch: pytest.MonkeyPatch):
    folder, values = mnist
    load_data("mnist", folder)
    path = folder / "mnist" / IDX[1]
    # The same content at another time: hashed again, not decoded again, and then known.
    os.utime(path, ns=(1, 1))
    with monkeypatch.context() as patch:
        patch.setattr(decoded, "read_idx_split", refuse)
        check_tiny_mnist(load_data("mnist", folder), values)
        patch.setattr(decoded, "obtain", refuse)
        check_tiny_mnist(load_data("mnist", folder), values)
    good = path.read_bytes()
    path.write_bytes(gzip.compress(flipped(gzip.decompress(good), 10), mtime=0))
    with pytest.raises(ValueError, match=f"{IDX[1]}: got content with md5"):
        load_data("mnist", folder)


def test_new_content_is_decoded_beside_the_old(mnist, monkeypatch: pytest.MonkeyPatch, cache: Path):
    folder, _ = mnist
    load_data("mnist", folder)
    entry, files, values = tiny_mnist(seed=5)
    monkeypatch.setitem(CATALOGUE, "mnist", entry)
    for name, content in files.items():
        write(folder / "mnist" / name, content)
    check_tiny_mnist(load_data("mnist", folder), values)
    assert len(list((cache / "decoded").iterdir())) == 2


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _flip(path: Path) -> None:
    path.write_bytes(flipped(path.read_bytes(), path.stat().st_size - 1))


def _extend(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _reshape(path: Path) -> None:
    np.save(path, np.load(path)[:-1])


def _pickle(path: Path) -> None:
    np.save(path, np.array([{}], object), allow_pickle=True)


@pytest.mark.parametrize("name", ["train_images", "train_classes", "test_images", "test_classes"])
@pytest.mark.parametrize("damage", [_cut, _flip, _extend, _empty, _reshape, _pickle, Path.unlink])
def test_damaged_arrays_are_decoded_anew(mnist, cache: Path, name: str, damage: Callable[[Path], None]):
    folder, values = mnist
    load_data("mnist", folder)
    (path,) = (cache / "decoded").glob(f"*/{name}.npy")
    good = path.read_bytes()
    damage(path)
    check_tiny_mnist(load_data("mnist", folder), values)
    assert path.read_bytes() == good


@pytest.mark.parametrize(
    "text", [None, "", "{", "[]", "null", '{"name": "mnist"}', {"mean": [None]}, {"std": "x"}, {"mean": []}]
)
def test_a_damaged_record_is_written_anew(mnist, cache: Path, text: str | dict | None):
    folder, values = mnist
    expected = load_data("mnist", folder)
    (path,) = (cache / "decoded").glob("*/record.json")
    good = path.read_text()
    if text is None:
        path.unlink()
    else:
        path.write_text(json.dumps(json.loads(good) | text) if isinstance(text, dict) else text)
    data = load_data("mnist", folder)
    check_tiny_mnist(data, values)
    assert data.mean.equal(expected.mean) and data.std.equal(expected.std)
    assert path.read_text() == good


def test_a_failed_decoding_leaves_no_data_set(mnist, monkeypatch: pytest.MonkeyPatch, cache: Path):
    folder, values = mnist
    with monkeypatch.context() as patch:
        patch.setattr(decoded, "channel_statistics", refuse)
        with pytest.raises(AssertionError):
            load_data("mnist", folder)
    assert not list(cache.rglob("record.json")) and not list(cache.rglob(".part.*"))
    check_tiny_mnist(load_data("mnist", folder), values)


def test_threads_decode_once(mnist, monkeypatch: pytest.MonkeyPatch):
    folder, values = mnist
    calls, start = [], threading.Barrier(4)
    build = decoded._build

    def counted(*arguments):
        calls.append(arguments)
        return build(*arguments)

    def load(_: int) -> ImageData:
        start.wait()
        return load_data("mnist", folder)

    monkeypatch.setattr(decoded, "_build", counted)
    with ThreadPoolExecutor(4) as pool:
        for data in pool.map(load, range(4)):
            check_tiny_mnist(data, values)
    assert len(calls) == 1


PROCESS = """
import sys, time
from pathlib import Path
from tests import test_data
entry, _, values = test_data.tiny_mnist()
test_data.CATALOGUE["mnist"] = entry
me, other, folder = map(Path, sys.argv[1:])
me.touch()
while not other.exists():
    time.sleep(0.001)
test_data.check_tiny_mnist(test_data.load_data("mnist", folder), values)
"""


def test_two_processes_at_once(mnist, tmp_path: Path, cache: Path):
    folder, values = mnist
    flags = [tmp_path / "a", tmp_path / "b"]
    root = Path(__file__).parent.parent
    running = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, *map(str, order), str(folder)], cwd=root, stderr=subprocess.PIPE, text=True
        )
        for order in (flags, flags[::-1])
    ]
    try:
        for process in running:
            _, errors = process.communicate(timeout=120)
            assert process.returncode == 0, errors
    finally:
        for process in running:
            process.kill()
    check_tiny_mnist(load_data("mnist", folder), values)
    assert not list(cache.rglob(".part.*"))


# Downloads, from a server on this machine.


class Server:
    """A web server of the bytes in `files`, which counts what it is asked for."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                content = outer.files.get(self.path)
                self.send_response(200 if content is not None else 404)
                self.send_header("Content-Length", str(len(content or b"")))
                self.end_headers()
                self.wfile.write(content or b"")

            def log_message(self, format: str, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Serve the tiny MNIST and CIFAR-10, and point the catalogue at them."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    served = Server()
    mnist_entry, files, _ = tiny_mnist()
    cifar_entry, _, archive = tiny_cifar("cifar10")
    for name, entry in (("mnist", mnist_entry), ("cifar10", cifar_entry)):
        sources = tuple(replace(source, url=f"{served.url}/{source.file}") for source in entry.files)
        monkeypatch.setitem(CATALOGUE, name, replace(entry, files=sources))
    served.files = {f"/{file}": content for file, content in files.items()}
    served.files[f"/{cifar_entry.files[0].file}"] = archive
    thread = threading.Thread(target=served.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield served
    served.http.shutdown()
    served.http.server_close()
    thread.join()


def test_downloads_are_kept(server: Server, cache: Path):
    values = tiny_mnist()[2]
    check_tiny_mnist(load_data("mnist"), values)
    assert sorted(server.asked) == sorted(f"/{name}" for name in IDX)
    assert load_data("cifar10").train_images.shape == (10, 3, 32, 32)
    server.asked.clear()
    check_tiny_mnist(load_data("mnist"), values)
    load_data("cifar10")
    # Without the decoded images the downloads still serve.
    for path in (cache / "decoded").rglob("*.npy"):
        path.unlink()
    check_tiny_mnist(load_data("mnist"), values)
    assert not server.asked


def test_a_damaged_download_is_fetched_again(server: Server, cache: Path):
    load_data("mnist")
    path = cache / "downloads" / "mnist" / IDX[2]
    good = path.read_bytes()
    path.write_bytes(good[:-1])
    server.asked.clear()
    check_tiny_mnist(load_data("mnist"), tiny_mnist()[2])
    assert server.asked == [f"/{IDX[2]}"] and path.read_bytes() == good


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
@pytest.mark.parametrize("damage", [lambda good: flipped(good, len(good) // 2), lambda good: good[:-1], lambda _: b""])
def test_tampered_downloads_are_refused(server: Server, cache: Path, name: str, damage: Callable[[bytes], bytes]):
    source = CATALOGUE[name].files[0]
    good = server.files[f"/{source.file}"]
    server.files[f"/{source.file}"] = damage(good)
    with pytest.raises(ValueError, match=rf"{name}: got a file from {source.url} that is not the published one .*md5"):
        load_data(name)
    assert not [path for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"]
    server.files[f"/{source.file}"] = good
    assert load_data(name).name == name


def test_failed_downloads(server: Server, monkeypatch: pytest.MonkeyPatch):
    del server.files[f"/{IDX[0]}"]
    with pytest.raises(OSError, match=f"mnist: the download of {server.url}/{IDX[0]} failed .*404.*UFM_DATA_DIR"):
        load_data("mnist")
    entry = CATALOGUE["cifar10"]
    nobody = replace(entry.files[0], url="http://127.0.0.1:9/x.tar.gz")
    monkeypatch.setitem(CATALOGUE, "cifar10", replace(entry, files=(nobody,)))
    with pytest.raises(OSError, match="cifar10: the download of http://127.0.0.1:9/x.tar.gz failed .*UFM_DATA_DIR"):
        load_data("cifar10")


def test_a_folder_is_never_mended_by_a_download(server: Server, mnist):
    folder, _ = mnist
    path = folder / "mnist" / IDX[0]
    path.write_bytes(path.read_bytes()[:-1])
    before = state(folder)
    with pytest.raises(ValueError, match=IDX[0]):
        load_data("mnist", folder)
    assert state(folder) == before and not server.asked


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
