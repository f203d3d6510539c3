"""The claims of the project, with what they rest on, as one table: `python -m experiments.claims [--results DIR]`.

Every figure is read from the committed results; claims on networks, with their thresholds, are those of `ufm report`.
"""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ufm._support.console import run_command
from ufm.reports import Claim, Run, read_run
from ufm.runs.network_claims import network_claims

DATA = ("digits", "mnist", "fashion", "cifar")
_NAMES = {"digits": "digits", "mnist": "MNIST", "fashion": "Fashion-MNIST", "cifar": "CIFAR-10"}


@dataclass(frozen=True)
class Row:
    """A claim: statement, what it rests on, the measured figure, the verdict; the first two with Markdown links."""

    statement: str
    evidence: str
    figure: str
    verdict: str


def claims(results: Path) -> list[Row]:
    """Return the claims; raise ValueError if a result is missing."""
    return [*_theory(results), *_networks(results)]


def claims_table(results: Path) -> str:
    """Return the claims as a Markdown table."""
    rows = [f"| {row.statement} | {row.evidence} | {row.figure} | {row.verdict} |" for row in claims(results)]
    return "\n".join(["| claim | rests on | figure | verdict |", "| --- | --- | --- | --- |", *rows])


def _theory(results: Path) -> list[Row]:
    exactness, joint, precision, minority = (
        _read(results / name)
        for name in (
            "exactness/exactness.json",
            "joint/joint.json",
            "solver/precision.json",
            "minority/minority.json",
        )
    )
    lines = (results / "sweeps" / "collapse" / "points.jsonl").read_text(encoding="utf-8").splitlines()
    points = [json.loads(line) for line in lines]
    agree = sum(point["collapsed"] == point["closed_form"]["collapsed"] for point in points)
    ulp = max(kind["logits_max_ulp"] for kind in exactness["kinds"].values())
    worst = joint["worst"]
    gap = max(row["relative_gap"] for row in precision["rows"])
    stuck = sum(row["stuck"] for row in precision["worst"])
    largest = max(minority["config"]["ratios"])
    # Where the predicted ratio lies beyond all that were solved, nothing could contradict it.
    curve = [point for point in minority["points"] if point["predicted_collapse_ratio"] <= largest]
    beyond = sum(point["ratio"] >= point["predicted_collapse_ratio"] for point in curve)
    predicted = sum(
        (point["spread_rare"] < 1e-6) == (point["ratio"] >= point["predicted_collapse_ratio"]) for point in curve
    )
    return [
        Row(
            "The optimal features for a fixed simplex ETF are closed up to one scalar, for any soft label",
            "[derivation](derivations/fixed_etf.py); 96-digit interval arithmetic",
            f"{exactness['config']['cases']:,} labels, at most {ulp:.0f} ulp off",
            "proved",
        ),
        Row(
            "The ETF is no assumption: every global optimum that is not zero has it, with a size from one scalar "
            "equation (law symmetric in the classes, d ≥ K - 1)",
            "[derivation](derivations/etf_is_optimal.py); direct solves",
            f"{len(joint['rows'])} solves: F within {worst['relative_difference']:.0e}, W Wᵀ within "
            f"{worst['gram_difference']:.0e}",
            "proved",
        ),
        Row(
            "Above a threshold of the penalties the optimum is zero",
            "[derivation](derivations/threshold.py); solves with certificate",
            f"{agree} of {len(points)} solves agree",
            "proved",
        ),
        Row(
            "One pass over any point bounds how far its objective is above the global minimum",
            "[derivation](derivations/duality_gap.py); solves from random starts",
            f"{len(precision['rows'])} solves, {stuck} stuck, gaps to {gap:.0e} of F",
            "proved",
        ),
        Row(
            "From an imbalance on that mixup lowers, the classifier rows of rare classes coincide",
            "[derivation](derivations/minority_collapse.py); solves with certificate",
            f"{predicted} of {len(curve)} optima as predicted, {beyond} of them collapsed",
            "proved",
        ),
    ]


def _networks(results: Path) -> list[Row]:
    runs = {
        kind: {data: read_run(results / "networks" / f"{data}-{kind}") for data in DATA}
        for kind in ("mixup", "none", "mse")
    }
    said = {kind: {data: _claims_of(run) for data, run in of.items()} for kind, of in runs.items()}
    ece = {kind: {data: _ece(run) for data, run in runs[kind].items()} for kind in ("mixup", "none")}
    better = [ece["mixup"][data] < ece["none"][data] for data in DATA]

    def row(statement: str, evidence: str, kind: str, name: str, figure: Callable[[Run, Claim], str]) -> Row:
        """Return one of the report's claims, by name, over all data sets."""
        found = {data: claims[name] for data, claims in said[kind].items()}
        figures = ", ".join(f"{_NAMES[data]} {figure(runs[kind][data], claim)}" for data, claim in found.items())
        return Row(statement, evidence, figures, _verdict([claim.passed is True for claim in found.values()]))

    ahead = "the expected one is ahead, per sample"
    return [
        row(
            "Same-class features align with the classifier (NC3 ≤ 0.1)",
            "networks with mixup",
            "mixup",
            "same class: NC3",
            _measured,
        ),
        row(
            "Different-class features run in channels: the closed form explains the logits better than a straight line "
            "(R² of both over different-class samples, one fitted number each)",
            "networks with mixup",
            "mixup",
            ahead,
            _pair,
        ),
        row(
            "Without mixing the straight line is ahead",
            "the same, trained on unmixed images, shown mixed ones",
            "none",
            ahead,
            _pair,
        ),
        row(
            "Under squared error they are convex combinations of class means: the line explains the means per pair and "
            "λ bin (R² ≥ 0.9)",
            "the same with squared error",
            "mse",
            "different class: R² of the closed form",
            _measured,
        ),
        row(
            "The channel's width is as predicted (mean error over mean ≤ 0.2, for λ in (0.1, 0.9))",
            "networks with mixup",
            "mixup",
            "channel: width",
            _measured,
        ),
        row(
            "Its depth is (the same)",
            "networks with mixup",
            "mixup",
            "channel: depth",
            _measured,
        ),
        row(
            "β follows from the classifier alone (within a factor of 3)",
            "networks with mixup: fit-free over fitted",
            "mixup",
            "β fit-free against fitted",
            lambda _, claim: f"{claim.measured:.0f}",
        ),
        row(
            "Earlier layers look as if trained with manifold mixup (interpolation R² ≥ 0.9 in all)",
            "networks with mixup: the lowest over the layers",
            "mixup",
            "earlier layers: interpolation",
            _measured,
        ),
        Row(
            "Mixup calibrates better (smaller ECE, as trained)",
            "half of the test images: with mixup / without",
            ", ".join(f"{_NAMES[data]} {ece['mixup'][data]:.3f} / {ece['none'][data]:.3f}" for data in DATA),
            _verdict(better),
        ),
    ]


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise ValueError(f"results: got {str(path)!r}, expected a committed result ({error})") from error


def _claims_of(run: Run) -> dict[str, Claim]:
    """Return the report's claims on a run in eval mode, by name."""
    return {claim.name: claim for claim in network_claims(run) if claim.mode == run.mode}


def _measured(_: Run, claim: Claim) -> str:
    return f"{claim.measured:.2f}"


def _pair(run: Run, _: Claim) -> str:
    closed, line = (run.comparison.score(name).r2_mixed for name in ("closed form", "straight line"))
    return f"{closed:.2f} / {line:.2f}"


def _ece(run: Run) -> float:
    if run.calibration is None:
        raise ValueError(f"results: got {run.name!r} without calibration.json, expected one")
    return run.calibration.test.before.ece


def _verdict(held: Sequence[bool]) -> str:
    words = {0: "does not hold", len(held): "holds"}.get(sum(held))
    return words or f"holds on {sum(held)} of {len(held)}"


@dataclass(frozen=True)
class Claims:
    """Print the claims as a Markdown table."""

    results: str = "experiments/results"
    """folder of results"""

    def run(self) -> int:
        """Print, and return the exit status."""
        print(claims_table(Path(self.results)))
        return 0


def main() -> int:
    """Run the command line and return its exit status."""
    return run_command(Claims, prog="python -m experiments.claims", description=__doc__)


if __name__ == "__main__":
    sys.exit(main())
