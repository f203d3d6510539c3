"""Tiny data sets in the published formats, and the folders and the cache that the tests of the data keep them in."""

import gzip
import hashlib
import io
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.data import ImageData
from experiments.data.sources import CATALOGUE, Entry, Source

IDX = ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz", "t10k-images-idx3-ubyte.gz")
IDX += ("t10k-labels-idx1-ubyte.gz",)


def md5(content: bytes) -> str:
    return "md5:" + hashlib.md5(content).hexdigest()


def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes((content[at] ^ 1,)) + content[at + 1 :]


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
    """Give each test of a module that has this fixture a cache of its own, and no data folder from outside."""
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
