"""Ways to damage a file, each driven by a random generator."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

Damage = Callable[[bytes, Path, np.random.Generator], None]

_ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1.5, 1e308, -1e308, 5e-324, 10**30, 2**63, float("nan"), float("inf")),
    *("", "x", "\ud800", "\0", "None", "../..", "x" * 10_000, [], {}, [[]], [1, "x"], [[1, 2], [3]], {"": {}}),
)
# Lists in lists, as text: no writer of JSON goes so deep.
_DEEP = "[" * 100_000


def truncated(content: bytes, path: Path, rng: np.random.Generator) -> None:
    """Cut the end off."""
    path.write_bytes(content[: rng.integers(len(content))])


def flipped(content: bytes, path: Path, rng: np.random.Generator) -> None:
    """Flip a few bits, of the beginning in half of the cases."""
    changed = bytearray(content)
    end = min(len(content), 2000) if rng.random() < 0.5 else len(content)
    for position in rng.integers(end, size=rng.integers(1, 9)):
        changed[position] ^= 1 << int(rng.integers(8))
    path.write_bytes(changed)


def zeroed(content: bytes, path: Path, rng: np.random.Generator) -> None:
    """Set a stretch of bytes, or all of them, to zero; or leave none."""
    kind = rng.integers(4)
    start, stop = sorted(rng.integers(len(content) + 1, size=2)) if kind > 1 else (0, len(content))
    path.write_bytes(b"" if kind == 0 else content[:start] + bytes(int(stop - start)) + content[stop:])


def spliced(content: bytes, path: Path, rng: np.random.Generator) -> None:
    """Put a stretch of the file, or random bytes, in another place."""
    start, stop, place = sorted(rng.integers(len(content) + 1, size=3))
    piece = content[start:stop] if rng.random() < 0.5 else rng.bytes(int(rng.integers(1, 200)))
    path.write_bytes(content[:place] + piece + content[place:])


def header(content: bytes, path: Path, rng: np.random.Generator) -> None:
    """Claim that a header of up to 2^64 bytes follows."""
    length = int(rng.choice(np.array([2**20, 2**31, 2**32, 2**40, 2**60, 2**63 + 1, 2**64 - 1], np.uint64)))
    path.write_bytes(length.to_bytes(8, "little") + content[8:])


def linked(content: bytes, path: Path, rng: np.random.Generator) -> None:
    """Put a link there: to a damaged file, to itself, to nothing, to a folder or to a device that never ends."""
    kind = rng.integers(5)
    if kind == 0:
        truncated(content, path.with_name("elsewhere"), rng)
    path.symlink_to(("elsewhere", path.name, "nowhere", ".", "/dev/zero")[kind])


def folder(_content: bytes, path: Path, _rng: np.random.Generator) -> None:
    """Put a folder there."""
    path.mkdir()


def pipe(_content: bytes, path: Path, _rng: np.random.Generator) -> None:
    """Put a pipe there, which nobody writes to."""
    os.mkfifo(path)


def json_changed(content: bytes, path: Path, rng: np.random.Generator) -> None:
    """Put an odd value in some place of a JSON text, or of one line of several."""
    lines = content.splitlines() if content.count(b"\n{") else [content]
    number = int(rng.integers(len(lines)))
    lines[number] = changed_json(lines[number].decode(), rng).encode("utf-8", "surrogatepass")
    path.write_bytes(b"\n".join(lines))


def changed_json(text: str, rng: np.random.Generator) -> str:
    """Return a JSON text with an odd value, or one nested very deep, somewhere in the place of another, or nothing."""
    root = [json.loads(text)]
    place: Any = root
    key: Any = 0
    while isinstance(place[key], dict | list) and place[key] and rng.random() < 0.8:
        place = place[key]
        key = list(place)[rng.integers(len(place))] if isinstance(place, dict) else int(rng.integers(len(place)))
    kind = rng.random()
    if kind < 0.1:
        place[key] = "deep"
        return json.dumps(root[0]).replace('"deep"', _DEEP)
    if kind < 0.3 and place is not root:
        del place[key]
    elif kind < 0.4 and isinstance(place, dict):
        place["unknown"] = place.pop(key)
    else:
        place[key] = _ODD[rng.integers(len(_ODD))]
    return json.dumps(root[0])


def tensors_changed(content: bytes, path: Path, rng: np.random.Generator) -> None:
    """Change the metadata, or an array's shape, dtype, name or values, in a safetensors file that stays a whole one."""
    length = int.from_bytes(content[:8], "little")
    parts, data = json.loads(content[8 : 8 + length]), bytearray(content[8 + length :])
    metadata, names = parts.get("__metadata__", {}), [name for name in parts if name != "__metadata__"]
    name = names[rng.integers(len(names))]
    entry, kind = parts[name], int(rng.integers(6))
    if kind < 3 and metadata:
        key = list(metadata)[rng.integers(len(metadata))]
        try:
            metadata[key] = changed_json(metadata[key], rng)
        except ValueError:
            metadata[key] = "odd"
    elif kind == 1:
        parts["odd"] = parts.pop(name)
    elif kind == 2:
        size = int(np.prod(entry["shape"]))
        entry["shape"] = [[size], [size, 1], [1, size], [1, 1, size]][rng.integers(4)]
    elif kind == 3 and {"F64": 8, "I64": 8, "F32": 4, "I32": 4}.get(entry["dtype"]) is not None:
        entry["dtype"] = {"F64": "I64", "I64": "F64", "F32": "I32", "I32": "F32"}[entry["dtype"]]
    elif kind == 4:
        # Entries of ones throughout are NaN as floats, and -1 as integers.
        begin, end = entry["data_offsets"]
        data[begin : min(end, begin + 8)] = b"\xff" * (min(end, begin + 8) - begin)
    else:
        parts[name], other = parts[names[0]], parts[name]
        parts[names[0]] = other
    text = json.dumps(parts).encode("utf-8", "surrogatepass")
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


ANY: Mapping[str, Damage] = {
    "truncated": truncated,
    "bits flipped": flipped,
    "zeroed": zeroed,
    "spliced": spliced,
    "header": header,
    "link": linked,
    "folder": folder,
    "pipe": pipe,
}
