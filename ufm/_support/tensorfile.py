"""Safetensors files that are written piece by piece and read by memory mapping, so that arrays need not fit in memory.

The format is that of the safetensors library. Eight bytes (little-endian) hold the length of a JSON header. The header
gives every array's dtype, shape and offsets, and text under "__metadata__". The arrays' bytes follow without gaps.
Reference: https://github.com/huggingface/safetensors, "Format". The library itself writes only arrays that are in
memory; reading is left to it.
"""

import json
import struct
import sys
import tempfile
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path

import torch
from jaxtyping import UInt8
from safetensors import safe_open
from torch import Tensor

from ufm._support.files import atomic_path
from ufm._support.reading import check_file

# The dtypes that NumPy has too, so that a file can be read without torch.
_CODES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
# Number of bytes copied at a time.
_PIECE = 2**20


def stored_dtype(name: str, dtype: torch.dtype) -> torch.dtype:
    """Return the dtype in which the array `name` is stored: float32 for shorter floats, otherwise its own.

    Raises ValueError for complex numbers and for dtypes that NumPy does not have.
    """
    stored = torch.float32 if dtype.is_floating_point and dtype.itemsize < 4 else dtype
    if stored not in _CODES:
        raise ValueError(f"{name}: got dtype {dtype}, expected real numbers of a dtype that NumPy has")
    return stored


def bytes_of(value: Tensor) -> UInt8[Tensor, "n"]:
    """Return the bytes of `value` in the order of its entries, as a view if `value` is contiguous."""
    # A tensor of one entry is contiguous whatever its strides, but those strides can prevent a view as bytes.
    return value.detach().contiguous().as_strided((value.numel(),), (1,)).view(torch.uint8)


class Rows:
    """The rows of one array, appended batch by batch: kept in memory or, given a folder, in a nameless file there.

    The system frees the space of a nameless file as soon as it is closed, even if the process is killed. In memory,
    blocks are kept without a copy, so they must not be changed after they were appended.

    Parameters
    ----------
    name : str
        Name of the array, for error messages.
    folder : Path, optional
        Folder of the nameless file; by default rows stay in memory.

    Raises
    ------
    OSError
        If no file can be made in the folder.
    """

    def __init__(self, name: str, folder: Path | None = None) -> None:
        """Open the file, if there is a folder for it."""
        self.name = name
        self.dtype = torch.float32
        self._count, self._row = 0, torch.Size()
        self._blocks: list[Tensor] = []
        self._file = None if folder is None else tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (see close)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array that all rows so far make."""
        return (self._count, *self._row)

    def append(self, block: Tensor) -> None:
        """Append rows (n, ...); raise ValueError unless their shape and dtype are those of the rows before."""
        dtype, row = stored_dtype(self.name, block.dtype), block.shape[1:]
        if self._count and (dtype, row) != (self.dtype, self._row):
            kinds = f"{dtype} of shape {tuple(row)} after {self.dtype} of shape {tuple(self._row)}"
            raise ValueError(f"{self.name}: got rows in {kinds}, expected the same in every batch")
        self.dtype, self._row = dtype, row
        self._count += len(block)
        block = block.detach().to("cpu", dtype).contiguous()
        if self._file is None:
            self._blocks.append(block)
        else:
            self._file.write(_bytes(block))

    def truncate(self, count: int) -> None:
        """Drop all but the first `count` rows, which must be in a file."""
        assert self._file is not None
        self._count = count
        self._file.truncate(prod(self.shape) * self.dtype.itemsize)

    def tensor(self) -> Tensor:
        """Return all rows, which must be in memory, as one tensor; the blocks are released."""
        whole = torch.cat(self._blocks)
        self._blocks.clear()
        return whole

    def pieces(self) -> Iterator[memoryview | bytes]:
        """Yield the bytes of all rows; a file is closed at the end, which frees its space."""
        yield from map(_bytes, self._blocks)
        if self._file is not None:
            self._file.seek(0)
            while piece := self._file.read(_PIECE):
                yield piece
            self.close()

    def close(self) -> None:
        """Release the memory or the file that holds the rows."""
        self._blocks.clear()
        if self._file is not None:
            self._file.close()


def write_tensors(path: str | Path, arrays: Mapping[str, Tensor | Rows], metadata: dict[str, str]) -> None:
    """Write `arrays` to one safetensors file, atomically and a piece at a time.

    Every array starts at a multiple of its item size: the header's length is a multiple of eight, and arrays are in
    falling order of item size.

    Parameters
    ----------
    path : str or Path
        Path of the file.
    arrays : mapping of tensors or Rows
        The arrays by name; floats shorter than float32 are stored as float32.
    metadata : dict of str
        Text stored in the header.

    Raises
    ------
    ValueError
        If NumPy does not have the dtype of an array.
    """
    if sys.byteorder != "little":
        raise NotImplementedError("safetensors files are little-endian, and this machine is not")
    dtypes = {name: stored_dtype(name, value.dtype) for name, value in arrays.items()}
    order = sorted(arrays, key=lambda name: (-dtypes[name].itemsize, name))
    header: dict[str, dict] = {"__metadata__": metadata}
    end = 0
    for name in order:
        shape = tuple(arrays[name].shape)
        start, end = end, end + prod(shape) * dtypes[name].itemsize
        header[name] = {"dtype": _CODES[dtypes[name]], "shape": shape, "data_offsets": (start, end)}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in order:
            value = arrays[name]
            for piece in value.pieces() if isinstance(value, Rows) else _pieces(value, dtypes[name]):
                file.write(piece)


def map_tensors(
    path: str | Path, *, name: str = "file", expected: str = "a safetensors file"
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the arrays of a safetensors file, memory-mapped, and its metadata.

    An array's bytes are read when they are first used. Writing into a tensor does not change the file.

    Parameters
    ----------
    path : str or Path
        Path of the file.
    name, expected : str
        Of the argument, and what it takes, for the message.

    Returns
    -------
    arrays : dict of tensors
        The arrays by name.
    metadata : dict of str
        The text in the header.

    Raises
    ------
    ValueError
        If the file is missing or damaged.
    """
    place = check_file(name, path, expected)
    try:
        with safe_open(place, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except Exception as error:  # whatever damaged bytes make of the library and of torch, by its documentation any
        raise ValueError(
            f"{name}: got {str(path)!r}, which is not a readable safetensors file ({error}); expected {expected}"
        ) from error


def _pieces(value: Tensor, dtype: torch.dtype) -> Iterator[memoryview]:
    rows = value.detach().reshape(1) if value.ndim == 0 else value.detach()
    size = prod(rows.shape[1:]) * dtype.itemsize
    for block in rows.split(max(1, _PIECE // max(1, size))):
        yield _bytes(block.to("cpu", dtype).contiguous())


def _bytes(block: Tensor) -> memoryview:
    return bytes_of(block).numpy().data
