"""The store of decoded images: NumPy files in the cache folder, written once and memory-mapped ever after.

A data set lies in `<cache>/decoded/<name>-<short hash of its sources>/`: the arrays, and record.json with the
sources' hashes, sizes and times and the arrays' shapes and check sums. Sources are hashed anew only if their
path, size or time changed; arrays that do not match the record are decoded anew.
"""

import hashlib
import json
import zlib
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from jaxtyping import Float, Int, UInt8

from experiments.data.formats import parse_cifar, read_idx_split, read_jpeg_archive, read_members
from experiments.data.sources import Files, obtain
from ufm._support.files import atomic_path, write_json

_LAYOUT = 1
_ARRAYS = ("train_images", "train_classes", "test_images", "test_classes")
_CHUNK = 1 << 22


@dataclass(frozen=True, eq=False)
class Decoded:
    """Images (memory-mapped, copy-on-write) and classes of both splits, with the training pixels' statistics."""

    train_images: UInt8[np.ndarray, "N C H W"]
    train_classes: Int[np.ndarray, "N"]
    test_images: UInt8[np.ndarray, "M C H W"]
    test_classes: Int[np.ndarray, "M"]
    mean: Float[np.ndarray, "C"]
    std: Float[np.ndarray, "C"]


def load_decoded(cache: Path, files: Files) -> Decoded:
    """Return the decoded data set, from the store if it is there and else decoded, checked and stored.

    Raises ValueError for sources that are missing, damaged or not the published ones.
    """
    decoded = _find(cache, files)
    if decoded is None:
        cache.mkdir(parents=True, exist_ok=True)
        # A second process waits for the first and then uses what it stored; reading needs no lock.
        with FileLock(cache / f"{files.name}.lock"):
            decoded = _find(cache, files) or _build(cache, files)
    return decoded


def channel_statistics(
    images: UInt8[np.ndarray, "N C H W"],
) -> tuple[Float[np.ndarray, "C"], Float[np.ndarray, "C"]]:
    """Return the mean and the standard deviation (divisor N H W) of each channel's pixels, in float64."""
    channels = images.shape[1]
    counts = np.zeros((channels, 256))
    for start in range(0, len(images), 4096):
        for c in range(channels):
            counts[c] += np.bincount(images[start : start + 4096, c].reshape(-1), minlength=256)
    weights = counts / counts.sum(1, keepdims=True)
    grey = np.arange(256.0)
    mean = weights @ grey
    return mean, np.sqrt((weights * (grey - mean[:, None]) ** 2).sum(1))


def _stamps(files: Files) -> list[dict[str, Any]]:
    """Return path, size and time of every source."""
    states = [(path.resolve(), path.stat()) for path in files.paths]
    return [{"path": str(path), "size": state.st_size, "mtime_ns": state.st_mtime_ns} for path, state in states]


def _find(cache: Path, files: Files) -> Decoded | None:
    """Return what was stored from these very files, unless one of them or the store changed since."""
    try:
        stamps = _stamps(files)
    except OSError:
        return None
    for folder in sorted((cache / "decoded").glob(f"{files.name}-*")):
        decoded = _open(folder, files, stamps)
        if decoded is not None:
            return decoded
    return None


def _build(cache: Path, files: Files) -> Decoded:
    """Check the sources, decode them unless the store has their content already, and record where they lie."""
    hashes = obtain(files)
    stamps = _stamps(files)
    folder = cache / "decoded" / f"{files.name}-{_key(files, hashes)}"
    decoded = _open(folder, files)
    if decoded is None:
        _write(folder, files, hashes, stamps, _read(files))
        decoded = _open(folder, files)
        if decoded is None:
            raise OSError(f"{folder}: the decoded images could not be read back")
    else:
        record = json.loads((folder / "record.json").read_text(encoding="utf-8"))
        write_json(folder / "record.json", record | {"stamps": stamps})
    return decoded


def _decoder(files: Files) -> str:
    # JPEG decoders differ by a grey level here and there.
    return f"{_LAYOUT} pillow {version('pillow')}" if files.entry.format == "jpeg" else str(_LAYOUT)


def _key(files: Files, hashes: list[str]) -> str:
    return hashlib.sha256("\n".join([_decoder(files), *hashes]).encode()).hexdigest()[:12]


def _read(files: Files) -> dict[str, np.ndarray]:
    """Decode the sources into the arrays of the store, and check their shapes and labels."""
    entry, paths = files.entry, files.paths
    if entry.format == "idx":
        train, test = read_idx_split(paths[0], paths[1]), read_idx_split(paths[2], paths[3])
    elif entry.format == "jpeg":
        train, test = (read_jpeg_archive(path, len(entry.class_names)) for path in paths)
    else:
        train, test = _read_cifar(files)
    for which, (images, classes), count in (("training", train, entry.train), ("test", test, entry.test)):
        where = f"{files.name}: {which} images"
        if images.shape != (count, *entry.image):
            raise ValueError(f"{where}: got shape {images.shape}, expected {(count, *entry.image)}")
        if classes.max() >= len(entry.class_names):
            raise ValueError(f"{where}: got a label {classes.max()}, expected labels below {len(entry.class_names)}")
    return dict(zip(_ARRAYS, (*train, *test), strict=True))


def _read_cifar(files: Files) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    entry = files.entry
    if files.sources == entry.parts:
        contents = [path.read_bytes() for path in files.paths]
        names = [str(path) for path in files.paths]
    else:
        members = [f"{entry.inside}/{part.file}" for part in entry.parts]
        contents = read_members(files.paths[0], members)
        names = [f"{files.paths[0]}: {member}" for member in members]
    splits = [parse_cifar(content, name, len(entry.class_names)) for content, name in zip(contents, names, strict=True)]
    images, classes = (np.concatenate(arrays) for arrays in zip(*splits[:-1], strict=True))
    return (images, classes), splits[-1]


def _write(
    folder: Path, files: Files, hashes: list[str], stamps: list[dict[str, Any]], arrays: dict[str, np.ndarray]
) -> None:
    sums = {}
    for name, array in arrays.items():
        with atomic_path(folder / f"{name}.npy") as temporary:
            with temporary.open("wb") as file:
                np.save(file, np.ascontiguousarray(array), allow_pickle=False)
            sums[name] = {"shape": array.shape, "crc32": _crc32(temporary)}
    mean, std = channel_statistics(arrays["train_images"])
    record = {
        "name": files.name,
        "decoder": _decoder(files),
        "sources": {source.file: value for source, value in zip(files.sources, hashes, strict=True)},
        "stamps": stamps,
        "arrays": sums,
        "mean": mean,
        "std": std,
    }
    write_json(folder / "record.json", record)


def _open(folder: Path, files: Files, stamps: list[dict[str, Any]] | None = None) -> Decoded | None:
    """Return the data set stored in `folder`, or None if it is not there, damaged, or from other files."""
    try:
        record = json.loads((folder / "record.json").read_text(encoding="utf-8"))
        known = (record["name"], record["decoder"], record["stamps"])
        if known != (files.name, _decoder(files), known[2] if stamps is None else stamps):
            return None
        arrays = {}
        for name in _ARRAYS:
            path, wanted = folder / f"{name}.npy", record["arrays"][name]
            if _crc32(path) != wanted["crc32"]:
                return None
            array = np.load(path, mmap_mode="c", allow_pickle=False)
            if array.dtype != np.uint8 or list(array.shape) != wanted["shape"]:
                return None
            arrays[name] = array if array.ndim == 4 else np.array(array, np.int64)
        mean, std = (np.array(record[key], np.float64) for key in ("mean", "std"))
        if mean.shape != (files.entry.image[0],) or mean.shape != std.shape or not np.isfinite([mean, std]).all():
            return None
        return Decoded(**arrays, mean=mean, std=std)
    except (EOFError, KeyError, OSError, TypeError, ValueError):
        return None


def _crc32(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            value = zlib.crc32(chunk, value)
    return value
