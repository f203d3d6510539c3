"""The claims of the project, with what they rest on, as one table: `python -m experiments.claims [--results DIR]`.

Statements and the thresholds behind the verdicts are written here; every figure is read from the committed results.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.summary import Result, read_result
from ufm.console import run_command

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
        (data, kind): read_result(results / "networks" / f"{data}-{kind}")
        for data in DATA
        for kind in ("mixup", "none", "mse")
    }
    mixup, unmixed, squared = ({data: runs[data, kind] for data in DATA} for kind in ("mixup", "none", "mse"))

    def lead(result: Result) -> float:
        return _r2(result, "closed form") - _r2(result, "straight line")

    def pairs(of: dict[str, Result]) -> str:
        return _each(of, lambda r: f"{_r2(r, 'closed form'):.2f} / {_r2(r, 'straight line'):.2f}")

    return [
        Row(
            "Same-class features align with the classifier (NC3 ≤ 0.2)",
            "networks with mixup",
            _each(mixup, lambda r: f"{r.mode('eval')['collapse']['nc3']:.2f}"),
            _verdict(mixup, lambda r: r.mode("eval")["collapse"]["nc3"] <= 0.2),
        ),
        Row(
            "Different-class features run in channels: the closed form explains the logits better than a straight line "
            "(R² of both, one fitted number each)",
            "networks with mixup",
            pairs(mixup),
            _verdict(mixup, lambda r: lead(r) > 0),
        ),
        Row(
            "Without mixing the straight line is ahead",
            "the same, trained on unmixed images, shown mixed ones",
            pairs(unmixed),
            _verdict(unmixed, lambda r: lead(r) < 0),
        ),
        Row(
            "Under squared error they are convex combinations of class means: the line explains the means per pair "
            "and λ bin (R² ≥ 0.9)",
            "the same with squared error",
            _each(squared, lambda r: f"{_r2(r, 'straight line', 'r2_binned'):.2f}"),
            _verdict(squared, lambda r: _r2(r, "straight line", "r2_binned") >= 0.9),
        ),
        Row(
            "The channel is as wide as predicted at λ = 0.9 (within 10 %)",
            "networks with mixup: width over the predicted",
            _each(mixup, lambda r: f"{_width(r):.2f}"),
            _verdict(mixup, lambda r: abs(_width(r) - 1) <= 0.1),
        ),
        Row(
            "β follows from the classifier alone (within a factor of 3)",
            "networks with mixup: fit-free over fitted",
            _each(mixup, lambda r: f"{_beta_ratio(r):.0f}"),
            _verdict(mixup, lambda r: 1 / 3 <= _beta_ratio(r) <= 3),
        ),
        Row(
            "Earlier layers look as if trained with manifold mixup (interpolation R² ≥ 0.7 in all)",
            "networks with mixup: least and largest R² over the layers before the features",
            _each(mixup, lambda r: f"{min(_interpolation(r)):.2f} to {max(_interpolation(r)):.2f}"),
            _verdict(mixup, lambda r: min(_interpolation(r)) >= 0.7),
        ),
        Row(
            "Mixup calibrates better (smaller ECE, as trained)",
            "half of the test images: with mixup / without",
            _each(mixup, lambda r: f"{_ece(r):.3f} / {_ece(unmixed[_data(r)]):.3f}"),
            _verdict(mixup, lambda r: _ece(r) < _ece(unmixed[_data(r)])),
        ),
    ]


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise ValueError(f"results: got {str(path)!r}, expected a committed result ({error})") from error


def _r2(result: Result, name: str, key: str = "r2") -> float:
    score = result.score(name)
    if score is None:
        raise ValueError(f"results: got {result.run.name!r} without {name!r}, expected its score")
    return score[key]


def _width(result: Result) -> float:
    points = result.mode("eval")["points"]
    return points["network"]["width"][-1] / points["closed form"]["width"][-1]


def _ece(result: Result) -> float:
    return result.calibration["test"]["before"]["ece"]


def _beta_ratio(result: Result) -> float:
    return result.mode("eval")["beta_fit_free"] / result.mode("eval")["beta"]


def _interpolation(result: Result) -> list[float]:
    *layers, features = result.comparison["layers"]
    # A ResNet's last stage, averaged over positions, is the features themselves.
    return [layer["interpolation"] for layer in layers if layer["interpolation"] != features["interpolation"]]


def _data(result: Result) -> str:
    return result.run.name.partition("-")[0]


def _each(results: dict[str, Result], figure: Callable[[Result], str]) -> str:
    return ", ".join(f"{_NAMES[data]} {figure(result)}" for data, result in results.items())


def _verdict(results: dict[str, Result], holds: Callable[[Result], bool]) -> str:
    count = sum(holds(result) for result in results.values())
    words = {0: "does not hold", len(results): "holds"}.get(count)
    return words or f"holds on {count} of {len(results)}"


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
