import json
import logging
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from ufm._support.files import atomic_path, check_target, make_folder, to_json, write_json, write_text
from ufm._support.tensorfile import write_tensors


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path):
    path = tmp_path / "result.json"
    write_json(path, {"a": 1})
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


WRITERS: dict[str, Callable[[Path], None]] = {
    "json": lambda path: write_json(path, 1),
    "tensors": lambda path: write_tensors(path, {"x": torch.zeros(2)}, {}),
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664), (0o000, 0o666)])
def test_a_new_file_has_the_mode_that_the_umask_gives(tmp_path: Path, write, umask: int, mode: int):
    earlier = os.umask(umask)
    try:
        write(tmp_path / "ours")
    finally:
        os.umask(earlier)
    assert mode_of(tmp_path / "ours") == mode


def test_another_file_put_in_the_temporary_place_does_not_bring_its_mode(tmp_path: Path):
    with atomic_path(tmp_path / "ours") as temporary:
        (temporary.parent / "private").touch(0o600)
        (temporary.parent / "private").replace(temporary)
    assert mode_of(tmp_path / "ours") == 0o666 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_replaced_file_keeps_its_mode(tmp_path: Path):
    path = tmp_path / "ours"
    path.write_text("old")
    path.chmod(0o640)
    write_text(path, "new")
    assert (path.read_text(), mode_of(path)) == ("new", 0o640)


@pytest.mark.parametrize("there", [True, False])
def test_a_link_is_followed_and_stays(tmp_path: Path, there: bool):
    (tmp_path / "far").mkdir()
    target, link = tmp_path / "far" / "target.json", tmp_path / "link.json"
    if there:
        target.write_text("old")
    (tmp_path / "middle").symlink_to(Path("far") / "target.json")
    link.symlink_to("middle")
    write_json(link, 1)
    assert link.is_symlink()
    assert (tmp_path / "middle").is_symlink()
    assert not target.is_symlink()
    assert json.loads(target.read_text()) == 1
    assert list((tmp_path / "far").iterdir()) == [target]


def test_links_in_a_circle_are_refused(tmp_path: Path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="could not be written.*/a'"):
        write_json(tmp_path / "a", 1)
    assert (tmp_path / "a").is_symlink()


def test_a_pipe_is_filled_and_stays(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    pipe, content = tmp_path / "pipe", "x" * 200_000
    os.mkfifo(pipe)
    found: list[str] = []
    waiting = threading.Event()

    def read() -> None:
        waiting.wait(10)
        found.append(pipe.read_text())

    class Woken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            waiting.set()

    reader = threading.Thread(target=read)
    reader.start()
    logger, handler = logging.getLogger("ufm"), Woken()
    logger.addHandler(handler)
    try:
        with caplog.at_level("INFO", "ufm"):
            write_text(pipe, content)
    finally:
        logger.removeHandler(handler)
        waiting.set()
    reader.join(10)
    assert found == [content]
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert list(tmp_path.iterdir()) == [pipe]
    assert caplog.messages == [f"{pipe} is a pipe: waiting for its reader"]


def test_a_pipe_whose_reader_leaves_is_an_error_with_its_name(tmp_path: Path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    descriptor = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    # More than a pipe holds: the writer waits until the reader goes.
    threading.Timer(0.2, os.close, [descriptor]).start()
    with pytest.raises(BrokenPipeError, match="could not be written") as caught:
        write_text(pipe, "x" * 1_000_000)
    assert caught.value.filename == str(pipe)


def test_a_device_is_written_to_and_stays(tmp_path: Path):
    device = Path("/dev/null")
    if os.access(tmp_path, os.W_OK) and os.geteuid() == 0:
        device = tmp_path / "null"
        try:
            os.mknod(device, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        except PermissionError:
            device = Path("/dev/null")
    write_json(device, 1)
    assert stat.S_ISCHR(device.stat().st_mode)
    with pytest.raises(OSError, match="could not be written.*No space left.*/dev/full"):
        write_json("/dev/full", 1)
    assert stat.S_ISCHR(Path("/dev/full").stat().st_mode)


def test_standard_output_that_is_a_file_is_written_to_in_turn(tmp_path: Path):
    code = (
        "from ufm._support.files import write_text; print('one'); write_text('/dev/stdout', 'two\\n'); print('three')"
    )
    with (tmp_path / "out").open("w") as out:
        subprocess.run([sys.executable, "-c", code], stdout=out, check=True, timeout=60)
    assert (tmp_path / "out").read_text() == "one\ntwo\nthree\n"


def test_the_longest_names_can_be_written(tmp_path: Path):
    for name in ("n" * 253, "n" * 255, "\N{GREEK SMALL LETTER LAMDA}" * 127, " - $x;", "-"):
        write_json(tmp_path / name, 1)
        assert json.loads((tmp_path / name).read_text()) == 1
    with pytest.raises(OSError, match="could not be written.*too long"):
        write_json(tmp_path / ("n" * 256), 1)


def test_two_writers_of_one_file_do_not_disturb_each_other(tmp_path: Path):
    path = tmp_path / "result"
    with atomic_path(path) as one:
        one.write_text("one, half")
        with atomic_path(path) as two:
            two.write_text("two")
        assert path.read_text() == "two"
        one.write_text("one")
    assert path.read_text() == "one"
    assert list(tmp_path.iterdir()) == [path]


def test_what_killed_writers_left_is_removed_and_what_is_in_use_stays(tmp_path: Path):
    code = (
        "import os, sys; from ufm._support.files import atomic_path\n"
        "with atomic_path(sys.argv[1]) as path: path.write_text('half'); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "result")], check=False, timeout=60)
    (left,) = tmp_path.iterdir()
    assert [path.read_text() for path in left.iterdir()] == ["half"]
    with atomic_path(tmp_path / "one") as one:
        assert not left.exists()
        write_json(tmp_path / "two", 2)
        assert one.exists()
    assert {path.name for path in tmp_path.iterdir()} == {"one", "two"}


def test_a_folder_is_made_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    with caplog.at_level("INFO", "ufm"):
        make_folder(tmp_path)
        write_json(tmp_path / "new" / "one" / "x.json", 1)
        write_json(tmp_path / "new" / "one" / "y.json", 1)
    assert caplog.messages == [f"made the folder {tmp_path / 'new' / 'one'}"]


def test_paths_that_cannot_be_written_are_refused_before_any_work(tmp_path: Path):
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to("loop")
    refused = {
        tmp_path: "is a folder",
        Path(): "is a folder",
        tmp_path / "file" / "x": "Not a directory",
        tmp_path / ("n" * 256): "too long",
        tmp_path / "loop": "symbolic links",
    }
    for path, why in refused.items():
        with pytest.raises(ValueError, match=f"^out: got .*{why}"):
            check_target("out", path)
    for path in (tmp_path / "file", tmp_path / "new" / "one" / "x", Path("/dev/null"), Path("x")):
        assert check_target("out", path) == path
    assert not (tmp_path / "new").exists()


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
