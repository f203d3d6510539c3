"""Every reader of files against damaged ones: each must refuse them by one line, with bounded time and memory."""

import contextlib
import gzip
import io
import json
import multiprocessing
import os
import resource
import shutil
import tarfile
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

import ufm
from experiments.data.formats import parse_cifar, read_idx, read_jpeg_archive, read_members
from experiments.fuzz.damage import ANY, Damage, json_changed, tensors_changed
from experiments.fuzz.limits import HungError, attacked, limited_time
from experiments.fuzz.tally import Tally
from experiments.networks import NetworkConfig, build_network
from experiments.regime import read_points
from experiments.suite import kept_files, read_suite
from experiments.sweeps.grid import Grid, read_grid
from experiments.sweeps.summary import read_sweep
from experiments.training.checkpoint import State, restore_checkpoint, save_checkpoint
from experiments.training.run import trained_run
from ufm._support.arrays import check_integer
from ufm._support.console import guarded
from ufm._support.tensorfile import write_tensors
from ufm.runs.compared import read_run

_RESULTS = Path(__file__).parents[1] / "results"
_SECONDS, _MEMORY = 1.0, 300 * 2**20
_JSON, _TENSORS = {"value changed": json_changed}, {"content changed": tensors_changed}


@dataclass(frozen=True)
class Reader:
    """A reader of files.

    Attributes
    ----------
    make : callable
        Makes what is read in a folder, and returns the file that is to be damaged.
    read : callable
        Reads that file.
    kinds : dict
        Further ways to damage it.
    arguments : tuple of str
        What the file sets; a complaint that begins with one of them needs no name of the file.
    """

    make: Callable[[Path], Path]
    read: Callable[[Path], Any]
    kinds: Mapping[str, Damage] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()


def _copied(*names: str) -> Callable[[Path], Path]:
    """Return what copies committed results into a folder, the first of which is to be damaged."""

    def make(folder: Path) -> Path:
        for name in names:
            shutil.copy(_RESULTS / name, folder)
        return folder / Path(names[0]).name

    return make


def _written(name: str, content: Callable[[], bytes]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content())
        return folder / name

    return make


def _problem() -> ufm.UFM:
    return ufm.UFM(ufm.Mixup(3).targets(nodes=2), 4, 0.01, 0.01, bias_decay=0.1)


def _solution(folder: Path) -> Path:
    ufm.solve(_problem(), record=1).save(folder / "solution.safetensors")
    return folder / "solution.safetensors"


def _arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = rng.dirichlet(np.full(3, 0.5), 40)
    return {"features": rng.normal(size=(40, 5)), "classifier": rng.normal(size=(3, 5)), "labels": labels}


def _foreign(folder: Path) -> Path:
    write_tensors(folder / "x.safetensors", {name: torch.from_numpy(x) for name, x in _arrays().items()}, {})
    return folder / "x.safetensors"


def _npz() -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **_arrays())  # pyright: ignore[reportArgumentType]
    return file.getvalue()


def _state() -> State:
    network = build_network(NetworkConfig("mlp", width=8, dim=10), (1, 8, 8), 10)
    return State(network, torch.optim.SGD(network.parameters(), 0.1, 0.9))


def _checkpoint(folder: Path) -> Path:
    state = _state()
    sum(parameter.sum() for parameter in state.network.parameters()).backward()  # pyright: ignore[reportAttributeAccessIssue]
    state.optimiser.step()
    save_checkpoint(folder / "checkpoint.safetensors", {"config": {"a": 1}}, state, [{"epoch": 0, "loss": 1.0}])
    return folder / "checkpoint.safetensors"


def _idx() -> bytes:
    return gzip.compress(b"\0\0\x08\x03" + b"".join(n.to_bytes(4, "big") for n in (20, 8, 8)) + bytes(20 * 64))


def _tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        member = tarfile.TarInfo("inside/train.bin")
        member.size = 3073 * 4
        archive.addfile(member, io.BytesIO(bytes(member.size)))
    return file.getvalue()


def _jpegs() -> bytes:
    from PIL import Image

    images = []
    for grey in (10, 200, 90):
        file = io.BytesIO()
        Image.new("RGB", (16, 16), (grey, 255 - grey, 7)).save(file, "JPEG")
        images.append(file.getvalue())
    file = io.BytesIO()
    offsets = np.cumsum([0, *map(len, images)])
    jpeg = np.frombuffer(b"".join(images), np.uint8)
    np.savez(file, jpeg=jpeg, offsets=offsets, labels=np.arange(3, dtype=np.uint8))
    return file.getvalue()


_NETWORK, _SWEEP = "networks/digits-mixup", "sweeps/methods"
_GRID = b'num_classes = [3, 5]\nalpha = [0.5, "None"]\nmethod = "adam:learning_rate=1e-3"\nseed = 1\n'
READERS: dict[str, Reader] = {
    "load, recorded": Reader(_copied(f"{_NETWORK}/summary.safetensors"), ufm.load, _TENSORS),
    "load, arrays": Reader(_foreign, ufm.load, _TENSORS),
    "load, npz": Reader(_written("x.npz", _npz), ufm.load),
    "load_solution": Reader(_solution, lambda path: ufm.load_solution(path, _problem()), _TENSORS),
    "run record": Reader(
        _copied(f"{_NETWORK}/run.json", f"{_NETWORK}/metrics.jsonl"), lambda path: read_run(path.parent), _JSON
    ),
    "run history": Reader(
        _copied(f"{_NETWORK}/metrics.jsonl", f"{_NETWORK}/run.json"), lambda path: read_run(path.parent), _JSON
    ),
    "training configuration": Reader(
        _copied(f"{_NETWORK}/run.json", f"{_NETWORK}/metrics.jsonl"), lambda path: trained_run(path.parent), _JSON
    ),
    "checkpoint": Reader(_checkpoint, lambda path: restore_checkpoint(path, {"config": {"a": 1}}, _state()), _TENSORS),
    "suite": Reader(
        _written("suite.toml", (Path(__file__).parents[1] / "suite.toml").read_bytes),
        lambda path: (read_suite(path), kept_files(path)),
    ),
    "grid": Reader(
        _written("grid.toml", lambda: _GRID),
        lambda path: read_grid(path).points(),
        arguments=tuple(each.name for each in fields(Grid)),
    ),
    "sweep": Reader(
        _copied(f"{_SWEEP}/points.jsonl", f"{_SWEEP}/config.json"), lambda path: read_sweep(path.parent), _JSON
    ),
    "sweep configuration": Reader(
        _copied(f"{_SWEEP}/config.json", f"{_SWEEP}/points.jsonl"), lambda path: read_sweep(path.parent), _JSON
    ),
    "regime points": Reader(_copied("regime/points.jsonl"), read_points, _JSON),
    "IDX images": Reader(_written("images.gz", _idx), lambda path: read_idx(path, 3)),
    "CIFAR archive": Reader(_written("cifar.tar.gz", _tar), lambda path: read_members(path, ["inside/train.bin"])),
    "CIFAR records": Reader(
        _written("train.bin", lambda: bytes(3073 * 4)),
        lambda path: parse_cifar(path.read_bytes(), str(path), 10) if path.is_file() else _no_file(path),
    ),
    "JPEG archive": Reader(_written("train.npz", _jpegs), lambda path: read_jpeg_archive(path, 10)),
}


def _no_file(path: Path) -> None:
    raise ValueError(f"{path}: got no file, expected one")


def attack(name: str, seed: int, cases: range) -> Iterator[tuple[int, str, str, str | None]]:
    """Yield, for each case of a reader, its number, kind, end ("read" or "refused"), and what was wrong, if anything.

    Parameters
    ----------
    name : str
        Of the reader.
    seed : int
        Of all cases; a case depends on it and on its number alone.
    cases : range
        Numbers of the cases.
    """
    reader = READERS[name]
    kinds = {**ANY, **reader.kinds}
    # What changes the content in ways that only this reader knows is tried as often as all else.
    weights = np.array([1.0] * len(ANY) + [len(ANY)] * len(reader.kinds))
    with tempfile.TemporaryDirectory() as place:
        original = reader.make(Path(place))
        content = original.read_bytes()
        reader.read(original)
        for case in cases:
            rng = np.random.default_rng([seed, list(READERS).index(name), case])
            kind = str(rng.choice(list(kinds), p=weights / weights.sum()))
            with tempfile.TemporaryDirectory() as folder:
                for other in Path(place).iterdir():
                    if other != original:
                        shutil.copy(other, folder)
                path = Path(folder) / original.name
                kinds[kind](content, path, rng)
                yield case, kind, *_outcome(reader, path)


def _outcome(reader: Reader, path: Path) -> tuple[str, str | None]:
    """Return how a reader ends, and what is wrong about it."""
    said = io.StringIO()
    begin, cpu = time.perf_counter(), time.process_time()
    try:
        with (
            limited_time(),
            warnings.catch_warnings(record=True, action="always") as warned,
            contextlib.redirect_stderr(said),
        ):
            status = guarded(lambda: (reader.read(path), 0)[1], "fuzz")
    except HungError as error:
        return "hung", str(error)
    except Exception as error:
        return "raised", f"{type(error).__name__}: {error}"
    used = min(time.process_time() - cpu, time.perf_counter() - begin)
    lines = said.getvalue().splitlines()
    named = [path.name, str(path.parent), *(f"error: {argument}:" for argument in reader.arguments)]
    wrong = None
    if warned:
        wrong = f"warning: {warned[0].message}"
    elif status not in (0, 2):
        wrong = f"status {status}: {said.getvalue()!r}"
    elif status == 2 and (len(lines) != 1 or not any(name in lines[0] for name in named)):
        wrong = f"no line that names the file: {said.getvalue()!r}"
    elif status == 2 and len(lines[0]) > 2000:
        wrong = f"a line of {len(lines[0])} characters"
    elif status == 0 and lines:
        wrong = f"read, with {said.getvalue()!r}"
    elif used > _SECONDS:
        wrong = f"took {used:.1f} s"
    return "refused" if status == 2 else "read", wrong


def _child(name: str, seed: int, cases: range, limit: int | None, found: str) -> None:
    """Attack a reader in a process of its own, within a limit on memory, and write a line a case."""
    if limit is not None:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        used = pages * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (used + limit, used + limit))
    with Path(found).open("w", encoding="utf-8") as file:
        for outcome in attack(name, seed, cases):
            file.write(json.dumps(outcome) + "\n")
            file.flush()


def attack_in_process(name: str, seed: int, cases: range, limit: int | None = _MEMORY) -> list[tuple]:
    """Do as `attack` does, in processes with a limit on memory, one after another where one dies."""
    outcomes: list[tuple] = []
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as place:
        found = Path(place) / "found"
        while cases:
            process = context.Process(target=_child, args=(name, seed, cases, limit, str(found)))
            process.start()
            process.join()
            lines = found.read_text(encoding="utf-8").splitlines() if found.exists() else []
            outcomes += [tuple(json.loads(line)) for line in lines]
            cases = cases[len(lines) :]
            if cases:
                outcomes.append((cases[0], "unknown", "died", f"the process ended with {process.exitcode}"))
                cases = cases[1:]
    return outcomes


@dataclass(frozen=True)
class Files:
    """Damaged files against every reader."""

    cases: int = 6000
    """files in all, >= 1"""
    seed: int = 0
    """of all cases"""
    only: tuple[str, ...] = ()
    """names of readers; all by default"""
    out: str = "experiments/results/fuzz/files.json"
    """result file"""

    def run(self) -> int:
        """Attack, write the result, and return the exit status."""
        check_integer("cases", self.cases, minimum=1)
        names = attacked(self.only, READERS)
        torch.set_num_threads(1)
        tally = Tally()
        for i, name in enumerate(names):
            share = range(self.cases * i // len(names), self.cases * (i + 1) // len(names))
            for case, kind, end, wrong in attack_in_process(name, self.seed, share):
                tally.add(name, kind, end, None if wrong is None else f"case {case}: {wrong}")
            print(f"{name}: {len(share)} tried, {len(tally.mishandled)} mishandled so far", flush=True)
        command = f"python -m experiments.fuzz files --cases {self.cases} --seed {self.seed}"
        limits = {"seconds": _SECONDS, "bytes": _MEMORY}
        return tally.finish(self.out, command, limits=limits)
