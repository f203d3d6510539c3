"""Commands that are killed, interrupted or run out of disk at random moments, and run again.

Each case starts a command in a process of its own and, at a random moment of its work, ends it by SIGKILL, SIGINT or
SIGTERM, or lets it run into a limit on the size of files, as on a full disk. What it leaves must be whole files; what
it says must be one line; and the same command, run again, must end with the files of an uninterrupted run.
"""

import json
import logging
import math
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.context import ForkProcess
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open

from experiments import demo, record, sweep, train
from experiments.fuzz.limits import attacked
from experiments.fuzz.tally import Tally
from ufm._support.arrays import check_integer
from ufm.commands import main as ufm_command

_TRAIN = (
    "--train-samples=300 --network.width=2 --network.dim=10 --epochs=6 --batch-size=100 --measure-every=3 --out=run"
)
_DEMO = (
    "--out=demo --samples=600 --nodes=3 --dim=10 --weight-decay=0.02 --feature-decay=0.02 --train.network.width=2 "
    "--train.network.dim=10 --train.epochs=6 --train.train-samples=300 --fitted.epochs=2 --fitted.train-samples=60 "
    "--fitted.epoch-steps=20 --fitted.network.width=16"
)
# Fields that say when and how often a run was started, not what it found.
_TIMES = ("seconds", "sessions", "commands", "command", "versions")
_FULL = "full disk"
_KINDS = ("SIGKILL", "SIGINT", "SIGTERM", _FULL)
# A command that takes longer after a signal hangs.
_LONGEST = 120.0


@dataclass(frozen=True)
class Attacked:
    """A command, its words, which commands must have run before it, and how often it is attacked.

    A command whose interrupted end is a result of its own, its best point so far, may end with status 1.
    """

    main: Callable[[], int]
    words: str
    after: tuple[str, ...] = ()
    weight: int = 2
    keeps_best: bool = False


COMMANDS = {
    "train": Attacked(train.main, _TRAIN, weight=3),
    "record": Attacked(record.main, "run --samples 6000", ("train",)),
    "sweep": Attacked(sweep.main, f"run --out=sweep --num-classes 3 --nodes 2 --seed {' '.join(map(str, range(12)))}"),
    "solve": Attacked(
        ufm_command.main, "solve --num-classes 8 --dim 8 --method lbfgs --out solution.safetensors", keeps_best=True
    ),
    "report": Attacked(
        ufm_command.main, "report run/activations_eval.safetensors --out new/report.html", ("train", "record")
    ),
    "demo": Attacked(demo.main, _DEMO, weight=1),
}


def _child(command: Attacked, folder: Path, limit: int | None, begun: Event, ended: Any) -> None:
    """Run the command in its folder, as from a shell; `ended` gets the time at which it was done."""
    # Those of the process that started this one.
    logging.getLogger("ufm").handlers.clear()
    os.chdir(folder)
    for number, name in ((1, ".stdout"), (2, ".stderr")):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1) for number in (1, 2))
    sys.argv = ["command", *command.words.split()]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if limit is not None:
        # Writing beyond it fails, instead of a signal that ends the process.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    begun.set()
    status = command.main()
    ended.value = time.monotonic()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(status)


def _started(command: Attacked, folder: Path, limit: int | None = None) -> tuple[ForkProcess, Any]:
    context = multiprocessing.get_context("fork")
    begun, ended = context.Event(), context.Value("d", math.inf, lock=False)
    process = context.Process(target=_child, args=(command, folder, limit, begun, ended))
    process.start()
    begun.wait(_LONGEST)
    return process, ended


def _run(command: Attacked, folder: Path) -> float:
    """Run the command to its end, and return how long it took; raise RuntimeError if it fails."""
    begin = time.perf_counter()
    process, _ = _started(command, folder)
    process.join()
    if process.exitcode != 0:
        raise RuntimeError(f"{command.words}: status {process.exitcode}: {(folder / '.stderr').read_text()[-500:]}")
    return time.perf_counter() - begin


def _files(folder: Path) -> list[Path]:
    """Return the files that a command left, but for locks, output, and what is still in the making."""
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]


def content(path: Path) -> Any:
    """Return what a file holds, times left out; raise an exception if it is not whole.

    Of a sweep's lines the last one may be unfinished, as whoever reads them knows.
    """
    data = path.read_bytes()
    if path.suffix == ".json":
        return _timeless(json.loads(data))
    if path.suffix == ".jsonl":
        whole = data[: data.rfind(b"\n") + 1] if path.name == "points.jsonl" else data
        return [_timeless(json.loads(line)) for line in whole.splitlines()]
    if path.suffix == ".safetensors":
        with safe_open(path, framework="np") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            said = {key: _parsed(value) for key, value in (file.metadata() or {}).items()}
        timeless = {name: x for name, x in arrays.items() if not name.endswith(".seconds")}
        return {name: (str(x.dtype), x.shape, x.tobytes()) for name, x in timeless.items()}, said
    ends = {".html": b"</html>", ".png": b"IEND\xaeB`\x82", ".pdf": b"%%EOF"}
    if path.suffix in ends and not data.rstrip().endswith(ends[path.suffix]):
        raise ValueError(f"the end is {data[-20:]!r}")
    return data


def _parsed(text: str) -> Any:
    try:
        return _timeless(json.loads(text))
    except ValueError:
        return text


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(each) for key, each in value.items() if key not in _TIMES}
    return [_timeless(each) for each in value] if isinstance(value, list) else value


class Reference:
    """What a command leaves when nothing happens to it.

    Attributes
    ----------
    begin : Path
        Folder with what it starts from.
    seconds : float
        How long it takes.
    contents : dict
        By path, the content of every file that it writes the same twice.
    largest : int
        Size of its largest file.
    """

    def __init__(self, name: str, place: Path) -> None:
        """Run what comes before the command, and then the command twice."""
        self.command, self.begin = COMMANDS[name], place / f"{name}-begin"
        self.begin.mkdir()
        for earlier in self.command.after:
            _run(COMMANDS[earlier], self.begin)
        found = []
        for number in range(2):
            folder = place / f"{name}-{number}"
            shutil.copytree(self.begin, folder)
            self.seconds = _run(self.command, folder)
            found.append({str(path.relative_to(folder)): content(path) for path in _files(folder)})
            self.largest = max(path.stat().st_size for path in _files(folder))
        one, two = found
        self.contents = {path: value for path, value in one.items() if value == two[path]}

    def attacked(self, kind: str, rng: np.random.Generator) -> tuple[str, str | None] | None:
        """Attack the command once; return how it ended, and what was wrong; None if it had ended before."""
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / "work"
            shutil.copytree(self.begin, folder)
            limit = int(rng.integers(self.largest)) if kind == _FULL else None
            process, ended = _started(self.command, folder, limit)
            hit = math.inf
            if kind != _FULL:
                process.join(rng.random() * self.seconds)
                if not process.is_alive():
                    return None
                assert process.pid is not None
                hit = time.monotonic()
                os.kill(process.pid, signal.Signals[kind])
            process.join(_LONGEST)
            if process.is_alive():
                process.kill()
                process.join()
                return "hung", f"no end within {_LONGEST:g} s"
            if ended.value < hit < math.inf:
                return None
            said = (folder / ".stderr").read_text(encoding="utf-8")
            end = f"{kind}: status {process.exitcode}"
            return end, self._wrong_end(kind, process.exitcode, said) or self._wrong_files(folder)

    def _wrong_end(self, kind: str, status: int | None, said: str) -> str | None:
        own = [line for line in said.splitlines() if line.startswith(("ufm: ", "experiments."))]
        complaints = [line for line in own if "made the folder" not in line]
        right: dict[str, tuple[int, ...]] = {"SIGKILL": (-9,), "SIGINT": (130,), "SIGTERM": (143, -15), _FULL: (1, 0)}
        allowed = (*right[kind], 1) if self.command.keeps_best else right[kind]
        if status not in allowed:
            return f"status {status}: {said[-300:]!r}"
        if "Traceback" in said:
            return f"a traceback: {said[-300:]!r}"
        if status in (130, 143) and len(complaints) != 1:
            return f"not one line: {said[-300:]!r}"
        if kind == _FULL and status == 1 and (len(complaints) != 1 or "File too large" not in complaints[0]):
            return f"not one line about the file: {said[-300:]!r}"
        return None

    def _wrong_files(self, folder: Path) -> str | None:
        """Return what is wrong about what was left, and about what the same command then makes of it."""
        for path in _files(folder):
            try:
                content(path)
            except Exception as error:  # whatever a damaged file makes of its reader
                return f"{path.relative_to(folder)} is damaged: {error}"
        try:
            _run(self.command, folder)
        except RuntimeError as error:
            return f"run again: {error}"
        if left := list(folder.rglob(".ufm-part-*")):
            return f"{left[0].relative_to(folder)} is left over"
        for name, value in self.contents.items():
            if not (folder / name).is_file() or content(folder / name) != value:
                return f"{name} is another one than of an uninterrupted run"
        return None


@dataclass(frozen=True)
class Kills:
    """Commands against signals and full disks."""

    cases: int = 60
    """attacks on a living process, >= 1"""
    seed: int = 0
    """of all moments"""
    only: tuple[str, ...] = ()
    """names of commands; all by default"""
    out: str = "experiments/results/fuzz/kills.json"
    """result file"""

    def run(self) -> int:
        """Attack, write the result, and return the exit status."""
        check_integer("cases", self.cases, minimum=1)
        names = attacked(self.only, COMMANDS)
        torch.set_num_threads(1)
        rng, tally = np.random.default_rng(self.seed), Tally()
        turns = [name for name in names for _ in range(COMMANDS[name].weight)]
        with tempfile.TemporaryDirectory() as place:
            references = {name: Reference(name, Path(place)) for name in names}
            hit = missed = 0
            while hit < self.cases:
                name, kind = turns[hit % len(turns)], _KINDS[rng.integers(len(_KINDS))]
                found = references[name].attacked(kind, rng)
                if found is None:
                    missed += 1
                    continue
                tally.add(name, kind, *found)
                hit += 1
                print(f"{hit} of {self.cases}: {name}, {', '.join(filter(None, found))}", flush=True)
        command = f"python -m experiments.fuzz kills --cases {self.cases} --seed {self.seed}"
        same = {name: sorted(reference.contents) for name, reference in references.items()}
        return tally.finish(self.out, command, ended_before=missed, compared=same)
