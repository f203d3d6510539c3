"""Sweeps: solve a UFM at every point of a grid of parameters, or summarise sweeps.

    python -m experiments.sweep run --out runs/sweep --num-classes 3 5 --alpha 0.5 1 None --jobs 2
    python -m experiments.sweep run --out runs/sweep --file experiments/sweeps/collapse.toml
    python -m experiments.sweep summary experiments/results/sweeps/collapse experiments/results/sweeps/methods

`run` writes a line per point to points.jsonl, and what was swept to config.json. Run again, killed or not, it goes on
with the points that are not there. Exit status: 0 with every point solved, converged or not; 1 if points failed or the
sweep could not go on; 2 for bad arguments; 130 if interrupted.
"""

import platform
import shlex
import sys
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, cast

import tyro

import ufm
from experiments.sweeps.grid import Grid, read_grid
from experiments.sweeps.store import CONFIG, open_store, read_config
from experiments.sweeps.summary import summary
from experiments.sweeps.workers import Workers
from ufm._support.console import run_command
from ufm._support.files import write_json, write_text
from ufm._support.progress import progress_bar


@dataclass(frozen=True)
class Sweep:
    """Solve every point of a grid that is not in the folder yet."""

    out: str
    """folder for points.jsonl and config.json"""
    file: str | None = None
    """TOML file with the lists of values, in place of those of the command line"""
    grid: tyro.conf.OmitArgPrefixes[Grid] = field(default_factory=Grid)
    workers: tyro.conf.OmitArgPrefixes[Workers] = field(default_factory=Workers)
    retry_failed: bool = False
    """solve points again whose solve ended in an exception"""

    def run(self) -> int:
        """Solve, and return the exit status."""
        if self.file is not None and self.grid != Grid():
            raise ValueError(f"file: got {self.file!r} together with lists of values, expected one of the two")
        self.workers.check()
        grid = self.grid if self.file is None else read_grid(self.file)
        points, folder = grid.points(), Path(self.out)
        with open_store(folder) as store:
            strangers = len(store.lines.keys() - points.keys())
            if strangers:
                raise ValueError(
                    f"out: got {self.out!r}, which holds {strangers} points of another grid; expected a new folder, "
                    "or a grid that contains all of its points"
                )
            write_json(folder / CONFIG, {"grid": grid.written(), "points": len(points), **_history(folder)})
            done = {key for key, line in store.lines.items() if not (self.retry_failed and line["status"] == "failed")}
            todo = [point for key, point in points.items() if key not in done]
            bar = progress_bar(len(points), "sweep", unit="points", initial=len(done))
            with bar, closing(cast(Any, self.workers.solve(todo, folder / "jobs"))) as lines:
                for line in lines:
                    store.append(line)
                    bar.update()
            counts = Counter(line["status"] for line in store.lines.values())
        found = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
        print(f"{len(points)} points: {found}; {len(todo)} of them solved now. {store.path}")
        return 1 if counts["failed"] else 0


def _history(folder: Path) -> dict[str, list[Any]]:
    """Return the commands that made a folder's points, and their versions: those noted earlier, and this one's."""
    packages = {name: version(name) for name in ("torch", "numpy", "scipy")}
    now = {
        "commands": f"python -m experiments.sweep {shlex.join(sys.argv[1:])}",
        "versions": {"ufm": ufm.__version__, "python": platform.python_version(), **packages}
        | {"machine": platform.machine()},
    }
    earlier = read_config(folder) if (folder / CONFIG).exists() else {"commands": [], "versions": []}
    return {name: [*(old for old in earlier[name] if old != value), value] for name, value in now.items()}


@dataclass(frozen=True)
class Summary:
    """Print, or write to a file, how sweeps compare with the closed form, and how long methods took."""

    folders: tyro.conf.Positional[tuple[str, ...]]
    """folders of sweeps"""
    out: str | None = None
    """Markdown file; printed if None"""

    def run(self) -> int:
        """Summarise, and return the exit status."""
        text = summary([Path(folder) for folder in self.folders])
        if self.out is None:
            print(text, end="")
            return 0
        write_text(self.out, text)
        return 0


Command = Annotated[Sweep, tyro.conf.subcommand("run")] | Annotated[Summary, tyro.conf.subcommand("summary")]


def main() -> int:
    """Run the command line and return its exit status."""
    interrupted = "interrupted; the same command goes on with the points not finished"
    return run_command(Command, prog="python -m experiments.sweep", description=__doc__, interrupted=interrupted)


if __name__ == "__main__":
    sys.exit(main())
