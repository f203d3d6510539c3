"""Files from outside are read, or refused by one line that names argument and file."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ufm._support.reading import check_file, parse_json, read_json, read_json_lines, read_toml, shown
from ufm._support.tensorfile import map_tensors

READERS: dict[str, Callable[[Path], Any]] = {
    "file": lambda path: check_file("file", path, "a file of x"),
    "json": lambda path: read_json("file", path, "a file of x"),
    "toml": lambda path: read_toml("file", path, "a file of x"),
    "lines": lambda path: list(read_json_lines("file", path, "a file of x")),
    "tensors": lambda path: map_tensors(path, expected="a file of x"),
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_what_is_no_file_is_refused_at_once(read, tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "to-pipe").symlink_to("pipe")
    (tmp_path / "loop").symlink_to("loop")
    places = {
        tmp_path / "nowhere": "does not exist",
        tmp_path: "is not a file",
        tmp_path / "pipe": "is not a file",
        tmp_path / "to-pipe": "is not a file",
        Path("/dev/zero"): "is not a file",
        tmp_path / "loop": "cannot be read",
        tmp_path / ("n" * 300): "cannot be read",
        tmp_path / "pipe" / "x": "cannot be read",
    }
    for path, why in places.items():
        with pytest.raises(ValueError, match=f"^file: got '{path}', which {why}.*; expected a file of x") as caught:
            read(path)
        assert "\n" not in str(caught.value)


DEEP = 100_000


@pytest.mark.parametrize(
    ("read", "content", "why"),
    [
        ("json", b"[" * DEEP + b"]" * DEEP, "nested more than 100 deep"),
        ("json", b"[" * 101 + b"]" * 101, "nested more than 100 deep"),
        ("json", b'{"a": ' * 900 + b"1" + b"}" * 900, "nested more than 100 deep"),
        ("json", b"", "Expecting value"),
        ("json", b"\xff", "can't decode byte"),
        ("json", b"1" * 5000, "4300"),
        ("json", b" " * (2**26 + 1), "longer than"),
        ("toml", b"a = " + b"[" * DEEP + b"]" * DEEP, "nested more than 100 deep"),
        ("toml", b".".join([b"a"] * 200) + b" = 1", "nested more than 100 deep"),
        ("toml", b"a = ", "Invalid value"),
        ("toml", b"\xff", "can't decode byte"),
        ("lines", b"{}\n[1]\n", r"got \[1\], expected an object on each line"),
        ("lines", b"{}\n" + b"[" * DEEP, "nested more than 100 deep"),
        ("lines", b"{}\n{", "Expecting property name"),
        ("lines", b"{}\n\xff\n", "can't decode byte"),
        ("lines", b" " * (2**26 + 1), "a line longer than"),
        ("tensors", b"", "not a readable safetensors file"),
        ("tensors", (2**60).to_bytes(8, "little") + b"{}", "not a readable safetensors file"),
    ],
)
def test_damaged_files_are_refused(read: str, content: bytes, why: str, tmp_path: Path):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"^file: got '{path}', .*{why}.*") as caught:
        READERS[read](path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_what_is_right_is_read(tmp_path: Path):
    path = tmp_path / "file"
    path.write_text("[" * 100 + "]" * 100)
    value = read_json("file", path, "x")
    for _ in range(99):
        (value,) = value
    assert value == []
    path.write_text('{"a": 1}\n\n  \n{"b": [2]}')
    assert list(read_json_lines("file", path, "x")) == [{"a": 1}, {"b": [2]}]
    path.write_text("a = 1\n[b]\nc = 'λ'\n")
    assert read_toml("file", path, "x") == {"a": 1, "b": {"c": "λ"}}
    assert parse_json("3") == 3


def test_values_are_shown_on_one_short_line():
    deep: list[Any] = []
    for _ in range(10_000):
        deep = [deep]
    for value in (deep, "x\n" * 10_000, list(range(10_000)), 10**4000, {"a\n": "b"}):
        assert len(shown(value)) < 300
        assert "\n" not in shown(value)
