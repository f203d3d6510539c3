"""Safetensors files written piece by piece and opened as a map, so that neither holds their arrays in memory.

The container is that of the safetensors library: eight bytes (little-endian) with the length of a JSON header; the
header, which gives every array's dtype, shape and place, and text under "__metadata__"; the arrays' bytes, without
gaps. Source: https://github.com/huggingface/safetensors, "Format".
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
from safetensors import SafetensorError, safe_open
from torch import Tensor

# What NumPy has too.
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
# Bytes that are copied at a time.
_PIECE = 2**20


def stored_dtype(name: str, dtype: torch.dtype) -> torch.dtype:
    """Return the dtype in which the array `name` is stored: float32 for shorter floats, else its own.

    Raises ValueError for what NumPy does not have, complex numbers included.
    """
    stored = torch.float32 if dtype.is_floating_point and dtype.itemsize < 4 else dtype
    if stored not in _CODES:
        raise ValueError(f"{name}: got dtype {dtype}, expected real numbers of a dtype that NumPy has")
    return stored


def bytes_of(value: Tensor) -> UInt8[Tensor, "n"]:
    """Return the bytes of `value` in the order of its entries, as a view if these lie side by side."""
    # A single entry counts as such whatever its strides, but could not be seen as bytes with them.
    return value.detach().contiguous().as_strided((value.numel(),), (1,)).view(torch.uint8)


class Rows:
    """Rows of one array in the order in which they come: in memory or, given a folder, in a nameless file there.

    Without a name, the file's space is free again once it is closed, even by a kill. Every block is kept as it is, so
    it must not be changed afterwards.
    """

    def __init__(self, name: str, folder: Path | None = None) -> None:
        """Open the file; raise OSError if the folder does not take one."""
        self.name = name
        self.dtype = torch.float32
        self._count, self._row = 0, torch.Size()
        self._blocks: list[Tensor] = []
        self._file = None if folder is None else tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (see close)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of all rows so far, together."""
        return (self._count, *self._row)

    def append(self, block: Tensor) -> None:
        """Add rows (n, ...); raise ValueError unless they have shape and dtype of the rows before."""
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

    def tensor(self) -> Tensor:
        """Return all rows as one tensor, in memory, and let go of the blocks."""
        whole = torch.cat(self._blocks)
        self._blocks.clear()
        return whole

    def pieces(self) -> Iterator[memoryview | bytes]:
        """Yield the bytes of all rows; of a file, which is closed at the end, to give back its space."""
        yield from map(_bytes, self._blocks)
        if self._file is not None:
            self._file.seek(0)
            while piece := self._file.read(_PIECE):
                yield piece
            self.close()

    def close(self) -> None:
        """Let go of the rows."""
        self._blocks.clear()
        if self._file is not None:
            self._file.close()


def write_tensors(path: Path, arrays: Mapping[str, Tensor | Rows], metadata: dict[str, str]) -> None:
    """Write `arrays` to a safetensors file at `path`, a piece at a time, floats shorter than float32 as float32.

    Every array starts at a multiple of its item's size: the header ends at one of eight, and wider items come first.
    Raises ValueError for an array that NumPy could not read.
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
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in order:
            value = arrays[name]
            for piece in value.pieces() if isinstance(value, Rows) else _pieces(value, dtypes[name]):
                file.write(piece)


def map_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return arrays and metadata of a safetensors file; an array's bytes are read when they are first used.

    Writing into the tensors does not change the file. Raises ValueError if the file is missing or damaged.
    """
    if not Path(path).is_file():
        what = "is not a file" if Path(path).exists() else "does not exist"
        raise ValueError(f"file: got {str(path)!r}, which {what}; expected a safetensors file")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(f"file: got {str(path)!r}, which is not a readable safetensors file ({error})") from error


def _pieces(value: Tensor, dtype: torch.dtype) -> Iterator[memoryview]:
    rows = value.detach().reshape(1) if value.ndim == 0 else value.detach()
    size = prod(rows.shape[1:]) * dtype.itemsize
    for block in rows.split(max(1, _PIECE // max(1, size))):
        yield _bytes(block.to("cpu", dtype).contiguous())


def _bytes(block: Tensor) -> memoryview:
    return bytes_of(block).numpy().data
