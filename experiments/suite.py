"""The committed training runs, all from one file: train them, or go on where that stopped; then compare them.

    python -m experiments.suite train --jobs 2
    python -m experiments.suite train --only fashion-mixup digits-mixup
    python -m experiments.suite compare --jobs 2

Each run goes to runs/<name>/ and is that of `python -m experiments.train` with the same configuration; comparisons are
those of `python -m experiments.compare`, under experiments/results/networks/<name>/. Exit status: 0 with every run
complete; 1 if some failed; 2 for bad arguments; 130 if interrupted.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import joblib
import torch
import tyro

from experiments.compare import CHOICES, KEPT, compare_run
from experiments.data import load_data
from experiments.record import Recording
from experiments.training import TrainConfig, train
from experiments.training.config import from_plain, to_plain
from experiments.training.run import trained_run
from ufm._support.arrays import check_choice, check_integer
from ufm._support.console import run_command
from ufm._support.files import make_folder
from ufm._support.reading import read_toml, shown

SUITE = Path(__file__).with_name("suite.toml")


def read_suite(path: str | Path = SUITE) -> dict[str, TrainConfig]:
    """Return the configurations of the suite's runs by name; raise ValueError for a file that does not fit."""
    text = _read(path)
    templates, runs = text.get("templates", {}), text.get("runs", {})
    configs = {}
    for name, table in runs.items():
        try:
            configs[name] = from_plain(_merge(to_plain(TrainConfig()), _resolve(table, templates)))
        except ValueError as error:
            raise ValueError(f"file: got {str(path)!r}, whose run {shown(name)} does not fit: {error}") from error
    return configs


def kept_files(path: str | Path = SUITE) -> dict[str, tuple[str, ...]]:
    """Return what stands beside the record of each run, by the suite's table `keep`: without one, everything.

    Raises
    ------
    ValueError
        For a table that names something else than runs and what can be kept.
    """
    text = _read(path)
    keep, runs = text.get("keep", {what: list(text["runs"]) for what in KEPT}), text["runs"]
    try:
        for what, names in keep.items():
            check_choice("keep", what, CHOICES)
            for name in names if isinstance(names, list) else [names]:
                check_choice(f"keep.{what}", name, tuple(runs))
    except ValueError as error:
        raise ValueError(f"file: got {str(path)!r}, which does not fit: {error}") from error
    return {name: tuple(what for what, names in keep.items() if name in names) for name in runs}


def _read(path: str | Path) -> dict[str, Any]:
    text = read_toml("file", path, "a readable TOML file")
    tables = all(isinstance(text.get(name, {}), dict) for name in ("templates", "runs", "keep"))
    if set(text) - {"templates", "runs", "keep"} or not tables or not text.get("runs"):
        raise ValueError(f"file: got {str(path)!r} with {', '.join(text)}, expected templates and at least one run")
    return text


def _resolve(table: dict[str, Any], templates: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return a run's table laid over its template's."""
    if not isinstance(table, dict):
        raise ValueError(f"got {table!r}, expected a table of fields")
    own = {key: value for key, value in table.items() if key != "template"}
    if "template" not in table:
        return own
    name = table["template"]
    check_choice("template", name, tuple(templates))
    # Without the ones that led here: templates that build on each other in a circle are refused.
    others = {other: value for other, value in templates.items() if other != name}
    return _merge(_resolve(templates[name], others), own)


def _merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return `base` with `changes` laid over it, table by table."""
    merged = dict(base)
    for key, value in changes.items():
        below = base.get(key)
        merged[key] = _merge(below, value) if isinstance(value, dict) and isinstance(below, dict) else value
    return merged


def chosen(configs: dict[str, TrainConfig], only: Sequence[str]) -> dict[str, TrainConfig]:
    """Return the runs called `only`, all if empty; raise ValueError for an unknown name."""
    for name in only:
        check_choice("only", name, tuple(configs))
    return {name: config for name, config in configs.items() if not only or name in only}


@dataclass(frozen=True)
class Train:
    """Train every run that is not complete."""

    out: str = "runs"
    """folder for the runs' folders"""
    file: str = str(SUITE)
    """TOML file of runs"""
    only: tuple[str, ...] = ()
    """names of runs; all by default"""
    jobs: int = 1
    """runs at a time, one thread each"""
    device: str = "auto"
    """auto, cpu or cuda"""

    def run(self) -> int:
        """Train, and return the exit status."""
        configs = chosen(read_suite(self.file), self.only)
        out = make_folder(self.out)
        tasks = {name: (config, out / name, self.device) for name, config in configs.items()}
        return for_each(train_run, tasks, self.jobs)


def train_run(config: TrainConfig, out: Path, device: str) -> str:
    """Train a run on one thread, or go on with it, and return a line that says how it ended."""
    torch.set_num_threads(1)
    figures = train(config, load_data(config.data), out, device=device).history[-1]
    return f"loss {figures['loss']:.4f}, test accuracy {figures['test_accuracy']:.4f}"


def for_each(work: Callable[..., str], tasks: dict[str, tuple[Any, ...]], jobs: int) -> int:
    """Call `work` for each task, `jobs` at a time; print a line each; return 1 if some failed, else 0."""
    check_integer("jobs", jobs, minimum=1)

    def guarded(name: str, arguments: tuple[Any, ...]) -> tuple[str, bool, str]:
        try:
            return name, True, work(*arguments)
        except (ValueError, OSError, RuntimeError) as error:
            return name, False, f"failed: {error}"

    calls = (joblib.delayed(guarded)(name, arguments) for name, arguments in tasks.items())
    failed = 0
    results: Any = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered")(calls)
    for name, good, line in results:
        print(f"{name}: {line}", flush=True)
        failed += not good
    return 1 if failed else 0


@dataclass(frozen=True)
class Compare:
    """Compare every run that is complete."""

    runs: str = "runs"
    """folder with the runs' folders"""
    out: str = "experiments/results/networks"
    """folder for a folder per run"""
    file: str = str(SUITE)
    """TOML file of runs"""
    only: tuple[str, ...] = ()
    """names of runs; all by default"""
    jobs: int = 1
    """runs at a time, one thread each"""

    def run(self) -> int:
        """Compare, say which runs are not complete, and return the exit status."""
        names = chosen(read_suite(self.file), self.only)
        kept = kept_files(self.file)
        tasks = {name: (Path(self.runs) / name, Path(self.out) / name, kept[name]) for name in names}
        return for_each(_compare, tasks, self.jobs)


def _compare(folder: Path, out: Path, keep: Sequence[str]) -> str:
    torch.set_num_threads(1)
    comparison = compare_run(trained_run(folder), Recording(), out, keep=keep).comparisons["eval"]
    return ", ".join(f"{score.name} {score.r2:.3f}" for score in comparison.scores)


Command = Annotated[Train, tyro.conf.subcommand("train")] | Annotated[Compare, tyro.conf.subcommand("compare")]


def main() -> int:
    """Run the command line and return its exit status."""
    return run_command(
        Command,
        prog="python -m experiments.suite",
        description=__doc__,
        interrupted="interrupted; the same command goes on",
    )


if __name__ == "__main__":
    sys.exit(main())
