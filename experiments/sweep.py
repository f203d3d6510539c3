"""Sweeps: solve a UFM at every point of a grid of parameters, or summarise sweeps.

    python -m experiments.sweep run --out runs/sweep --num-classes 3 5 --alpha 0.5 1 None --jobs 2
    python -m experiments.sweep run --out runs/sweep --file experiments/sweeps/collapse.toml
    python -m experiments.sweep summary experiments/results/sweeps/collapse experiments/results/sweeps/methods

`run` writes a line per point to points.jsonl, and what was swept to config.json. Run again, killed or not, it goes on
with the points that are not there. Exit status: 0 with every point solved, converged or not; 1 if points failed or the
sweep could not go on; 2 for bad arguments; 130 if interrupted.
"""

import shlex
import sys
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from experiments.sweeps.grid import Grid, read_grid
from experiments.sweeps.point import versions
from experiments.sweeps.store import CONFIG, Store, read_config, write_config
from experiments.sweeps.summary import summary
from experiments.sweeps.workers import Workers, solve_points
from ufm._support.console import parse
from ufm._support.files import atomic_path
from ufm._support.progress import progress_bar


@dataclass(frozen=True)
class Run:
    """Solve every point of a grid that is not in the folder yet."""

    out: str
    """folder for points.jsonl and config.json"""
    file: str | None = None
    """TOML file with the lists of values, in place of those of the command line"""
    grid: tyro.conf.OmitArgPrefixes[Grid] = field(default_factory=Grid)
    workers: tyro.conf.OmitArgPrefixes[Workers] = field(default_factory=Workers)
    retry_failed: bool = False
    """solve points again whose solve ended in an exception"""

    def __post_init__(self) -> None:
        """Raise ValueError for a grid given twice."""
        if self.file is not None and self.grid != Grid():
            raise ValueError(f"file: got {self.file!r} together with lists of values, expected one of the two")

    def run(self, command: str | None = None) -> int:
        """Solve, and return the exit status."""
        grid = self.grid if self.file is None else read_grid(self.file)
        points = grid.points()
        folder = Path(self.out)
        with Store(folder) as store:
            strangers = len(store.lines.keys() - points.keys())
            if strangers:
                raise ValueError(
                    f"out: got {self.out!r}, which holds {strangers} points of another grid; expected a new folder, "
                    "or a grid that contains all of its points"
                )
            write_config(folder, self._description(grid, len(points), folder, command))
            done = {key for key, line in store.lines.items() if not (self.retry_failed and line["status"] == "failed")}
            todo = [point for key, point in points.items() if key not in done]
            bar = progress_bar(len(points), "sweep", unit="points", initial=len(done))
            with bar, closing(solve_points(todo, self.workers, folder / "jobs")) as lines:
                for line in lines:
                    store.append(line)
                    bar.update()
            counts = Counter(line["status"] for line in store.lines.values())
        found = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
        print(f"{len(points)} points: {found}; {len(todo)} of them solved now. {store.path}")
        return 1 if counts["failed"] else 0

    def _description(self, grid: Grid, count: int, folder: Path, command: str | None) -> dict:
        """Return what config.json says: the grid, the commands that made the points, and with which versions."""
        earlier = read_config(folder) if (folder / CONFIG).exists() else {"commands": [], "versions": []}
        description = {"grid": grid.written(), "points": count}
        for name, value in (("commands", command), ("versions", versions())):
            values = earlier[name]
            description[name] = values if value is None or value in values else [*values, value]
        return description


@dataclass(frozen=True)
class Summary:
    """Print, or write to a file, how sweeps compare with the closed form, and how long methods took."""

    folders: tyro.conf.Positional[tuple[str, ...]]
    """folders of sweeps"""
    out: str | None = None
    """Markdown file; printed if None"""

    def run(self, command: str | None = None) -> int:
        """Summarise, and return the exit status."""
        text = summary([Path(folder) for folder in self.folders])
        if self.out is None:
            print(text, end="")
            return 0
        with atomic_path(self.out) as temporary:
            temporary.write_text(text, encoding="utf-8")
        return 0


Command = Annotated[Run, tyro.conf.subcommand("run")] | Annotated[Summary, tyro.conf.subcommand("summary")]


def main(args: list[str] | None = None) -> int:
    """Run a command line and return its exit status."""
    words = sys.argv[1:] if args is None else args
    try:
        chosen = parse(Command, prog="python -m experiments.sweep", description=__doc__, args=words)
        return chosen.run(f"python -m experiments.sweep {shlex.join(words)}")
    except ValueError as error:
        print(f"experiments.sweep: error: {error}", file=sys.stderr)
        return 2
    except (OSError, RuntimeError) as error:
        print(f"experiments.sweep: error: {error}; the points finished earlier are kept", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("experiments.sweep: interrupted; the same command goes on with the points not finished", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
