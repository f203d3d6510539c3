"""Readers of the data sets' file formats, in NumPy: IDX, CIFAR's binary records, and archives of JPEG files."""

import gzip
import io
import itertools
import math
import tarfile
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from ufm._support.reading import check_file

Split = tuple[UInt8[np.ndarray, "N C H W"], UInt8[np.ndarray, "N"]]

_PLANES, _SIDE = 3, 32
# Bytes of an array: what claims to be larger is damaged, or not meant for us.
_LARGEST = 2**30


def damaged(where: str | Path, found: str, expected: str) -> ValueError:
    """Return the error that says what the file `where` holds and what it should hold."""
    return ValueError(f"{where}: got {found}, expected {expected}")


def read_idx(path: Path, ndim: int) -> UInt8[np.ndarray, "..."]:
    """Return the array of unsigned bytes with `ndim` dimensions in a gzip-compressed IDX file.

    The header is two zero bytes, the type code 8, `ndim`, and the sizes as 32-bit big-endian integers.
    Raises ValueError for another header, missing or trailing bytes, and damaged compression.
    Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits".
    """
    length = 4 + 4 * ndim
    try:
        with gzip.open(check_file("data", path, "a complete gzip file")) as file:
            header = file.read(length)
            if header[:4] != bytes((0, 0, 8, ndim)):
                raise damaged(path, f"magic number {header[:4].hex(' ')}", f"00 00 08 {ndim:02x}")
            if len(header) < length:
                raise damaged(path, f"a header of {len(header)} bytes", f"{length} bytes")
            shape = tuple(int.from_bytes(header[i : i + 4], "big") for i in range(4, length, 4))
            if math.prod(shape) > _LARGEST:
                raise damaged(path, f"the shape {shape}", f"at most {_LARGEST} bytes")
            # One more byte than is due brings the check sum, or what is too much, to light.
            content = file.read(math.prod(shape) + 1)
    except (EOFError, MemoryError, OSError, zlib.error) as error:
        raise damaged(path, f"damaged gzip data ({error})", "a complete gzip file") from error
    if len(content) != math.prod(shape):
        found = f"{len(content)} bytes{' or more' * (len(content) > math.prod(shape))}"
        raise damaged(path, found, f"{math.prod(shape)} bytes for shape {shape}")
    return np.frombuffer(content, np.uint8).reshape(shape)


def read_idx_split(images: Path, labels: Path) -> Split:
    """Return grey images (N, 1, H, W) and labels (N,) from two IDX files; ValueError if their N differ."""
    pixels, classes = read_idx(images, 3), read_idx(labels, 1)
    if len(pixels) != len(classes):
        raise damaged(labels, f"{len(classes)} labels", f"{len(pixels)}, one per image of {images.name}")
    return pixels[:, None], classes


def parse_cifar(content: bytes, name: str, classes: int) -> Split:
    """Return images (N, 3, 32, 32) and labels (N,) from CIFAR's binary records.

    A record is one label byte (CIFAR-10), or a coarse and a fine one (CIFAR-100: the fine label is returned),
    then 3,072 bytes: red, green and blue planes of 32 x 32 pixels. Raises ValueError, naming `name`, for no
    or incomplete records and for labels out of range. Source: A. Krizhevsky, "Learning multiple layers of
    features from tiny images", 2009, and its data page.
    """
    limits = (20, classes) if classes == 100 else (classes,)
    length = len(limits) + _PLANES * _SIDE * _SIDE
    if not content or len(content) % length:
        raise damaged(name, f"{len(content)} bytes", f"whole records of {length} bytes")
    records = np.frombuffer(content, np.uint8).reshape(-1, length)
    for column, limit in enumerate(limits):
        if (largest := int(records[:, column].max())) >= limit:
            raise damaged(name, f"a label {largest}", f"labels below {limit}")
    return records[:, len(limits) :].reshape(-1, _PLANES, _SIDE, _SIDE), records[:, len(limits) - 1]


def read_members(path: Path, names: Sequence[str]) -> list[bytes]:
    """Return the content of the files `names` in a gzip-compressed tar archive, in order; nothing is extracted.

    Raises ValueError for a damaged archive and for one that lacks a file.
    """
    try:
        found = {}
        with (
            gzip.open(check_file("data", path, "a complete .tar.gz")) as stream,
            tarfile.open(fileobj=stream, mode="r|") as archive,
        ):
            for member in archive:
                if member.name in names and member.size > _LARGEST:
                    raise ValueError(f"{member.name} of {member.size} bytes")
                if member.name in names and (file := archive.extractfile(member)) is not None:
                    found[member.name] = file.read()
            while stream.read(1 << 20):  # to the check sum at its end
                pass
    except Exception as error:  # whatever damaged bytes make of gzip and tarfile
        raise damaged(path, f"a damaged archive ({error})", "a complete .tar.gz") from error
    for name in names:
        if name not in found:
            raise damaged(path, f"no file {name}", "it in the archive")
    return [found[name] for name in names]


def read_jpeg_archive(path: Path, classes: int) -> Split:
    """Return colour images (N, 3, H, W) and labels (N,) from an .npz archive of JPEG files.

    It holds `jpeg`, the files' bytes end to end; `offsets` (N + 1), image i being jpeg[offsets[i]:offsets[i+1]];
    and `labels` (N). Raises ValueError for missing arrays, offsets that do not fit, labels out of range, and
    images that cannot be decoded or differ in size.
    """
    try:
        # NumPy warns of old headers, which damaged ones can look like.
        with (
            warnings.catch_warnings(action="ignore"),
            check_file("data", path, "an .npz archive").open("rb") as file,
            np.load(file, allow_pickle=False) as archive,
        ):
            jpeg, offsets, labels = (np.asarray(archive[key]) for key in ("jpeg", "offsets", "labels"))
    except Exception as error:  # whatever damaged bytes make of zipfile, zlib and NumPy
        raise damaged(path, f"a damaged archive ({error})", "an .npz with jpeg, offsets and labels") from error
    if jpeg.dtype != np.uint8 or labels.dtype != np.uint8 or offsets.dtype != np.int64:
        found = f"dtypes {jpeg.dtype}, {labels.dtype}, {offsets.dtype}"
        raise damaged(path, found, "uint8 jpeg and labels, int64 offsets")
    if jpeg.ndim != 1 or labels.ndim != 1 or offsets.shape != (len(labels) + 1,) or not len(labels):
        found = f"shapes {jpeg.shape}, {labels.shape}, {offsets.shape}"
        raise damaged(path, found, "(bytes,), (N,) and (N + 1,) with N >= 1")
    if offsets[0] != 0 or offsets[-1] != len(jpeg) or (np.diff(offsets) <= 0).any():
        raise damaged(path, "offsets that do not fit", f"offsets that rise from 0 to {len(jpeg)}")
    if labels.max() >= classes:
        raise damaged(path, f"a label {labels.max()}", f"labels below {classes}")
    return _decode_jpeg(path, jpeg.tobytes(), offsets.tolist()), labels


def _decode_jpeg(path: Path, jpeg: bytes, offsets: list[int]) -> UInt8[np.ndarray, "N C H W"]:
    from PIL import Image

    pixels: np.ndarray | None = None
    for i, (start, stop) in enumerate(itertools.pairwise(offsets)):
        try:
            with Image.open(io.BytesIO(jpeg[start:stop]), formats=("JPEG",)) as image:
                decoded = np.asarray(image.convert("RGB"))
        except Exception as error:  # whatever damaged bytes make of the decoder
            raise damaged(path, f"an image {i} that cannot be decoded ({error})", "a JPEG file") from error
        if pixels is None:
            pixels = np.empty((len(offsets) - 1, *decoded.shape), np.uint8)
        if decoded.shape != pixels.shape[1:]:
            raise damaged(path, f"an image {i} of shape {decoded.shape}", f"{pixels.shape[1:]}, as the first")
        pixels[i] = decoded
    assert pixels is not None
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
