"""Two processes that train together: one of them is killed, has other arguments, or another run has the folder.

All processes must end within half a minute, with a message, and the run must go on from what is left.
"""

import multiprocessing
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.context import ForkProcess
from multiprocessing.synchronize import Event
from pathlib import Path

import numpy as np
import torch

from experiments import train
from experiments.fuzz.kills import content
from experiments.fuzz.tally import Tally
from experiments.training import loop
from ufm._support.arrays import check_integer

_WORDS = (
    "--train-samples=300 --network.width=2 --network.dim=10 --epochs=40 --batch-size=100 --measure-every=40 --out=run"
)
_SECONDS = 30.0
# How long the training above takes at least, once its processes have met.
_WORK = 1.0
_ROOT = Path(__file__).parents[2]


def _child(words: str, rank: int | None, port: int, folder: Path, begun: Event) -> None:
    """Train as one of two processes, or alone; `begun` is set once they have met."""
    os.chdir(folder)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(os.open(f".stderr{rank}", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1) for number in (1, 2))
    sys.argv = ["train", *shlex.split(words)]
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    if rank is not None:
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "fuzz"}
        os.environ.update(place, RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2")
    join = loop.join

    def joined(batch_size: int) -> loop.Processes:
        found = join(batch_size)
        begun.set()
        return found

    loop.join = joined
    sys.exit(train.main())


class _Pair:
    """Two processes that train together, with nobody to watch over them."""

    def __init__(self, folder: Path, words: Sequence[str] = (_WORDS, _WORDS), *, together: bool = True) -> None:
        context = multiprocessing.get_context("fork")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        events = [context.Event() for _ in words]
        self.folder = folder
        self.processes: list[ForkProcess] = []
        for rank, (mine, begun) in enumerate(zip(words, events, strict=True)):
            process = context.Process(target=_child, args=(mine, rank if together else None, port, folder, begun))
            process.start()
            self.processes.append(process)
        for begun in events:
            begun.wait(_SECONDS)

    def end(self) -> tuple[list[int | None], str, str | None]:
        """Wait for the end of all; return their statuses, what they said, and what is wrong about it."""
        deadline = time.monotonic() + _SECONDS
        for process in self.processes:
            process.join(max(0.0, deadline - time.monotonic()))
        late = [process for process in self.processes if process.is_alive()]
        for process in late:
            process.kill()
            process.join()
        said = "".join(path.read_text(encoding="utf-8") for path in sorted(self.folder.glob(".stderr*")))
        statuses = [process.exitcode for process in self.processes]
        return statuses, said, f"no end within {_SECONDS:g} s: {said[-300:]!r}" if late else None


def _killed(folder: Path, rng: np.random.Generator) -> tuple[str, str | None] | None:
    """Kill one of two processes; the other must end by itself, and say why."""
    pair = _Pair(folder)
    time.sleep(rng.random() * _WORK)
    victim, other = rng.permutation(2)
    if not pair.processes[victim].is_alive():
        pair.end()
        return None
    pair.processes[victim].kill()
    statuses, said, wrong = pair.end()
    if wrong is None and (statuses[other] != 1 or "another process has ended" not in said or "Traceback" in said):
        wrong = f"statuses {statuses}: {said[-500:]!r}"
    return f"the other one: status {statuses[other]}", wrong


def _different(folder: Path, rng: np.random.Generator) -> tuple[str, str | None]:
    """Give one of two processes another argument; both must refuse."""
    odd = ("--seed=1", "--epochs=41", "--batch-size=50", "--mixing.alpha=0.5", "--stop-after=3", "--out=other")
    words = [_WORDS, f"{_WORDS} {odd[rng.integers(len(odd))]}"]
    statuses, said, wrong = _Pair(folder, words if rng.random() < 0.5 else words[::-1]).end()
    if wrong is None and (statuses != [2, 2] or said.count("got others in another process") != 2):
        wrong = f"statuses {statuses}: {said[-500:]!r}"
    return f"statuses {statuses}", wrong


def _same_folder(folder: Path, _: np.random.Generator) -> tuple[str, str | None]:
    """Start two runs in one folder; one must refuse, and the other finish."""
    statuses, said, wrong = _Pair(folder, together=False).end()
    if wrong is None and (sorted(map(str, statuses)) != ["0", "2"] or "to which another process writes" not in said):
        wrong = f"statuses {statuses}: {said[-500:]!r}"
    return f"statuses {sorted(map(str, statuses))}", wrong


def _under_torchrun(folder: Path, rng: np.random.Generator) -> tuple[str, str | None] | None:
    """Kill one of two processes under torchrun, at any moment since their start."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(_ROOT)}
    with subprocess.Popen(
        [*command, "-m", "experiments.train", *shlex.split(_WORDS)],
        cwd=folder,
        env=environment,
        text=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as process:
        while len(ranks := _children(process.pid)) < 2 and process.poll() is None:
            time.sleep(0.01)
        time.sleep(rng.random() * 6)
        victim = int(rng.choice(ranks)) if ranks else process.pid
        if process.poll() is not None or victim not in _children(process.pid):
            process.communicate()
            return None
        os.kill(victim, signal.SIGKILL)
        try:
            _, said = process.communicate(timeout=_SECONDS)
        except subprocess.TimeoutExpired:
            for each in (*_children(process.pid), process.pid):
                os.kill(each, signal.SIGKILL)
            return "hung", f"no end within {_SECONDS:g} s"
    told = "SIGKILL" in said or "another process has ended" in said
    return f"torchrun: status {process.returncode}", None if process.returncode and told else said[-500:]


def _children(pid: int) -> list[int]:
    try:
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]
    except OSError:
        return []


_ATTACKS = {
    "one of two killed": _killed,
    "one of two killed under torchrun": _under_torchrun,
    "other arguments": _different,
    "two runs in one folder": _same_folder,
}


@dataclass(frozen=True)
class Ranks:
    """Processes that train together against the death of one of them."""

    cases: int = 20
    """processes killed without anyone to watch over the rest, >= 1; a quarter as many of each other kind"""
    seed: int = 0
    """of all moments"""
    out: str = "experiments/results/fuzz/ranks.json"
    """result file"""

    def run(self) -> int:
        """Attack, write the result, and return the exit status."""
        check_integer("cases", self.cases, minimum=1)
        torch.set_num_threads(1)
        rng, tally = np.random.default_rng(self.seed), Tally()
        for kind, attack in _ATTACKS.items():
            done, wanted = 0, self.cases if attack is _killed else -(-self.cases // 4)
            while done < wanted:
                with tempfile.TemporaryDirectory() as place:
                    found = attack(Path(place), rng)
                    if found is None:
                        continue
                    end, wrong = found
                    tally.add("training", kind, end, wrong or _goes_on(Path(place), attack is not _different))
                done += 1
                print(f"{kind}, {done} of {wanted}: {end}{'' if wrong is None else f': {wrong}'}", flush=True)
        return tally.finish(self.out, f"python -m experiments.fuzz ranks --cases {self.cases} --seed {self.seed}")


def _goes_on(folder: Path, trained: bool) -> str | None:
    """Return what is wrong about the files left, and about the run that goes on from them."""
    for path in (folder / "run").glob("[!.]*") if trained else ():
        try:
            content(path)
        except Exception as error:  # whatever a damaged file makes of its reader
            return f"{path.name} is damaged: {error}"
    context = multiprocessing.get_context("fork")
    process = context.Process(target=_child, args=(_WORDS, None, 0, folder, context.Event()))
    process.start()
    process.join(120)
    return None if process.exitcode == 0 else f"run again: status {process.exitcode}"
