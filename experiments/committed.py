"""The committed results, as the pages take them."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ufm._support.reading import read_json, read_json_lines
from ufm.networks.temperature import CalibrationReport
from ufm.reports import Claim, Run, network_claims, read_run

# The main runs of each data set are called <key>-mixup, -none, -mse and -etf.
DATA = {"digits": "digits", "mnist": "MNIST", "fashion": "Fashion-MNIST", "cifar": "CIFAR-10"}
_EXPECTED = "a committed result"
KINDS = ("mixup", "none", "mse", "etf")


@dataclass(frozen=True)
class Committed:
    """A folder of results, each of which is read once.

    Attributes
    ----------
    folder : Path
        Such as experiments/results.
    """

    folder: Path

    def json(self, name: str) -> Any:
        """Return a JSON file's content; raise ValueError if it is missing or damaged."""
        return read_json("results", self.folder / name, _EXPECTED)

    @cached_property
    def collapse(self) -> list[dict[str, Any]]:
        """The points of the sweep of the collapse threshold."""
        return self._lines("sweeps/collapse/points.jsonl")

    @cached_property
    def regime(self) -> list[dict[str, Any]]:
        """The points of the regime suite."""
        return self._lines("regime/points.jsonl")

    @cached_property
    def seeds(self) -> dict[str, list[dict[str, Any]]]:
        """The regime suite's points by name, each with its other seeds, which are called <name>-seed<n>."""
        groups: dict[str, list[dict[str, Any]]] = {}
        for point in self.regime:
            groups.setdefault(re.sub(r"-seed\d+$", "", point["name"]), []).append(point)
        return groups

    def _lines(self, name: str) -> list[dict[str, Any]]:
        return list(read_json_lines("results", self.folder / name, _EXPECTED))

    @cached_property
    def runs(self) -> dict[str, Run]:
        """All runs by name; raise ValueError if there is none."""
        folders = sorted(folder for folder in (self.folder / "networks").glob("*") if folder.is_dir())
        if not folders:
            raise ValueError(f"results: got {str(self.folder)!r} without a run in networks, expected some")
        return {folder.name: read_run(folder) for folder in folders}

    def main(self, kind: str) -> dict[str, Run]:
        """Return the main runs of one kind by data set; raise ValueError if one is missing."""
        if missing := [f"{data}-{kind}" for data in DATA if f"{data}-{kind}" not in self.runs]:
            raise ValueError(f"results: got no run {missing[0]}, expected one in {str(self.folder / 'networks')!r}")
        return {data: self.runs[f"{data}-{kind}"] for data in DATA}

    @cached_property
    def claims(self) -> dict[str, dict[str, Claim]]:
        """The report's claims on each run in its own mode, by run and kind."""
        return {
            name: {str(claim.kind): claim for claim in network_claims(run) if claim.mode == run.mode}
            for name, run in self.runs.items()
        }


@dataclass(frozen=True)
class Nearness:
    """How near a run comes to the theory.

    Attributes
    ----------
    loss : float
        On the training set, last epoch.
    closed, line : float
        R² of closed form and straight line.
    width, depth : list of float
        Near lambda = 0.7 and 0.9, over those predicted.
    beta : float or None
        Fit-free over fitted; None where weight decay implies none.
    """

    loss: float
    closed: float
    line: float
    width: list[float]
    depth: list[float]
    beta: float | None

    @property
    def lead(self) -> float:
        """R² of the closed form less that of the line."""
        return self.closed - self.line

    @staticmethod
    def of(run: Run, mode: str = "eval") -> "Nearness":
        """Measure a run in a mode."""
        one = run.comparisons[mode]
        mine, theory = one.points["network"], one.points["closed form"]
        width, depth = (
            [float(getattr(mine, key)[i] / getattr(theory, key)[i]) for i in (1, 2)] for key in ("width", "depth")
        )
        beta = None if one.beta_fit_free is None else one.beta_fit_free / one.beta
        closed, line = (one.score(name).r2 for name in ("closed form", "straight line"))
        return Nearness(run.history[-1]["loss"], closed, line, width, depth, beta)


def calibration_of(run: Run) -> CalibrationReport:
    """Return a run's calibration on test inputs; raise ValueError if it was not measured."""
    if run.calibration is None:
        raise ValueError(f"results: got {run.name!r} without calibration, expected one")
    return run.calibration.test


def architectures(results: Committed, data: str) -> list[Nearness]:
    """Return the networks with mixup on one data set, the lowest training loss first."""
    other = "cnn" if data == "cifar" else "resnet"
    names = [f"{data}-{kind}mixup" for kind in ("", f"{other}-", "vit-")]
    return sorted((Nearness.of(results.runs[name]) for name in names), key=lambda one: one.loss)


def span(numbers: Iterable[float | None], form: str) -> str:
    """Return the least and the largest of some numbers, in words: one if they look the same, a dash if all are None."""
    found = [one for one in numbers if one is not None]
    if not found:
        return "-"
    least, largest = (f"{end:{form}}" for end in (min(found), max(found)))
    return least if least == largest else f"{least} to {largest}"
