import json
import stat
from pathlib import Path

import numpy as np
import pytest

from ufm._support.files import atomic_path, to_json, write_json


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path):
    path = tmp_path / "result.json"
    write_json(path, {"a": 1})
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_files_are_as_readable_as_others(tmp_path: Path):
    plain = tmp_path / "plain"
    plain.write_text("")
    write_json(tmp_path / "ours", 1)
    assert stat.S_IMODE((tmp_path / "ours").stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_json_of_arrays_and_of_numbers_that_json_lacks():
    value = {
        "x": np.arange(2.0),
        "n": np.float64(1.5),
        "i": np.int64(3),
        "bad": [np.nan, float("inf")],
        4: (True, None),
    }
    expected = {"x": [0, 1], "n": 1.5, "i": 3, "bad": [None, None], "4": [True, None]}
    assert json.loads(to_json(value)) == expected
