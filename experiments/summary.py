"""One page over all training runs: `python -m experiments.summary experiments/results/networks/* [--out FILE]`.

Reads what `python -m experiments.compare --out` wrote for each run; prints Markdown tables, or writes them to a file.
"""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from experiments.training.run import TrainedRun, read_run
from ufm._support.console import run_command
from ufm._support.files import atomic_path

_PREDICTIONS = ("closed form", "own classifier", "straight line", "fit-free")
_LAMBDAS = (50, 70, 90)


@dataclass(frozen=True)
class Result:
    """What was measured of one run."""

    run: TrainedRun
    comparison: dict[str, Any]
    calibration: dict[str, Any]

    def mode(self, mode: str) -> dict[str, Any]:
        """Return the comparison in a mode."""
        return self.comparison["comparisons"][mode]

    def score(self, name: str, mode: str = "eval") -> dict[str, Any] | None:
        """Return a prediction's score, or None where there is no such prediction."""
        return {score["name"]: score for score in self.mode(mode)["scores"]}.get(name)


def read_result(folder: Path) -> Result:
    """Return a run's results; raise ValueError for a folder without them."""
    try:
        comparison, calibration = (
            json.loads((folder / name).read_text(encoding="utf-8")) for name in ("comparison.json", "calibration.json")
        )
    except (OSError, json.JSONDecodeError) as error:
        raise ValueError(f"folders: got {str(folder)!r}, expected the results of a comparison ({error})") from error
    if missing := {"eval", "train"} - comparison["comparisons"].keys():
        raise ValueError(f"folders: got {str(folder)!r} without {', '.join(missing)} mode, expected both modes")
    return Result(read_run(folder), comparison, calibration)


def summary(folders: Sequence[Path]) -> str:
    """Return the page: one table over all runs, and one each for fit, channel, layers and calibration."""
    results = [read_result(folder) for folder in folders]
    sections = [overview(results)]
    sections += [_section(title, results, row) for title, row in _SECTIONS.items()]
    return "\n\n".join(sections) + "\n"


def overview(results: Sequence[Result]) -> str:
    """Return the table of all runs: accuracy, calibration, classifier, beta, and the fit of every prediction."""
    return _table(results, _overview)


def _overview(result: Result) -> dict[str, str]:
    run, mode = result.run, result.mode("eval")
    last = run.history[-1]
    row = {
        "run": run.name,
        "test accuracy": f"{100 * last['test_accuracy']:.1f} %",
        "ECE": f"{last['test_ece']:.3f}",
        "ETF error": f"{mode['etf_error']:.3f}",
        "NC1": _number(last.get("nc1")),
        "β fitted": _beta(mode["beta"], mode["beta_at_edge"]),
        "β fit-free": _beta(mode["beta_fit_free"]),
    }
    for name in _PREDICTIONS:
        score = result.score(name)
        row[f"R² {name}"] = "-" if score is None else f"{score['r2']:.3f}, {score['r2_binned']:.3f}"
    return row


def _fit(result: Result) -> dict[str, str]:
    row = {"run": result.run.name, "in plane": f"{result.mode('eval')['in_plane']:.2f}"}
    for name in ("closed form", "own classifier", "straight line"):
        score = result.score(name) or {}
        row[f"R² {name}: same, different"] = f"{score['r2_same']:.3f}, {score['r2_mixed']:.3f}"
        row[f"angle {name}: same, different"] = f"{score['angle_same']:.0f}°, {score['angle_mixed']:.0f}°"
        row[f"length {name}: same, different"] = f"{score['length_same']:.2f}, {score['length_mixed']:.2f}"
    closed, line = (result.score(name, "train") or {} for name in ("closed form", "straight line"))
    row["train mode: R² closed form, line"] = f"{closed['r2']:.3f}, {line['r2']:.3f}"
    return row


def _channel(result: Result) -> dict[str, str]:
    mode, row = result.mode("eval"), {"run": result.run.name}
    points, boundaries = mode["points"], mode["boundaries"]
    for quantity in ("width", "depth"):
        for i, lam in enumerate(_LAMBDAS):
            network, theory = (points[name][quantity][i] for name in ("network", "closed form"))
            row[f"{quantity} at {lam / 100:g}"] = f"{_number(network)} ({_number(theory)})"
    for quantity in ("density", "amplification"):
        network, theory = (boundaries[name][quantity] for name in ("network", "closed form"))
        row[quantity] = f"{_number(network)} ({_number(theory)})"
    return row


def _layers(result: Result) -> dict[str, str]:
    row = {"run": result.run.name}
    layers = result.comparison["layers"]
    row["layers, first to last"] = ", ".join(layer["name"].removeprefix("stages.") for layer in layers)
    for title, key in (("interpolation R²", "interpolation"), ("line R²", "line"), ("channel R²", "channel")):
        row[title] = ", ".join(f"{layer[key]:.2f}" for layer in layers)
    row["β"] = ", ".join(_beta(layer["beta"]) for layer in layers)
    return row


def _calibration(result: Result) -> dict[str, str]:
    test = result.calibration["test"]
    row = {"run": result.run.name, "temperature": f"{test['temperature']:.2f}"}
    for title, key in (("ECE", "ece"), ("adaptive ECE", "ece_adaptive"), ("NLL", "nll"), ("Brier", "brier")):
        row[title] = f"{test['before'][key]:.3f} → {test['after'][key]:.3f}"
    row["mean confidence, accuracy"] = f"{test['before']['confidence']:.3f}, {test['before']['accuracy']:.3f}"
    return row


_SECTIONS: dict[str, Callable[[Result], dict[str, str]]] = {
    """## Fit in detail

Same-class and different-class samples apart. Angles and relative errors of length are between the network's features,
less their mean, and the predicted ones; in plane: share of their squared length that lies in the classifier's row
space, outside of which the theory has nothing. Eval mode but for the last column.""": _fit,
    """## The channel

Mean width and depth of different-class samples whose heavier class weighs within 0.05 of λ, and in parentheses the
closed form at the fitted β on the same samples. density: of samples per logit of width at the decision boundary.
amplification: slope of the width at λ = 1/2 over that of the straight line between the same-class ends.""": _channel,
    """## Earlier layers

Outputs averaged over positions. interpolation: how well the output on a mixed image is the same mixture of the outputs
on its two images (1: as under manifold mixup). line, channel: R² of the mean outputs per pair and λ bin by the best
linear function of the label, and of the closed form's logits at the β given.""": _layers,
    """## Calibration on test images

Before → after temperature scaling, which was fitted on one random half; all figures are those of the other half.
""": _calibration,
}


def _section(title: str, results: Sequence[Result], row: Callable[[Result], dict[str, str]]) -> str:
    return f"{title.rstrip()}\n\n{_table(results, row)}"


def _table(results: Sequence[Result], row: Callable[[Result], dict[str, str]]) -> str:
    rows = [row(result) for result in results]
    lines = [" | ".join(rows[0]), " | ".join("---" for _ in rows[0]), *(" | ".join(r.values()) for r in rows)]
    return "\n".join(f"| {line} |" for line in lines)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _beta(value: float | None, at_edge: bool = False) -> str:
    if value is None:
        return "-"
    text = f"{value:.0f}" if 10 <= value < 1e5 else f"{value:.2g}"
    return f"{text} (edge)" if at_edge else text


_HEAD = """# Results

[What agrees with the theory and what does not](FINDINGS.md), in words. Generated by `{command}` from the folders in
[networks](networks), whose runs are trained by `python -m experiments.suite train` and compared by `python -m
experiments.suite compare`.

## All runs

Networks in eval mode on mixed training images (an unmixed network's are mixed for this by mixup with α = 1). ECE on
the unmixed test images, 15 bins, before temperature scaling. R²: of the centred logits, per sample and of the means per
(class pair, λ bin), on the half of the samples that nothing was fitted to; closed form, own classifier and straight
line have one fitted number each, fit-free has none.

"""


@dataclass(frozen=True)
class Summary:
    """Print the page, or write it to a file."""

    folders: tyro.conf.Positional[tuple[str, ...]]
    """folders of results, one per run"""
    out: str | None = None
    """file to write; printed by default"""

    def run(self) -> int:
        """Print or write, and return the exit status."""
        if not self.folders:
            raise ValueError("folders: got none, expected the results of at least one run")
        text = page([Path(folder) for folder in self.folders])
        if self.out is None:
            print(text, end="")
        else:
            with atomic_path(self.out) as temporary:
                temporary.write_text(text, encoding="utf-8")
        return 0


def page(folders: Sequence[Path]) -> str:
    """Return the page with its head."""
    return _HEAD.format(command="make results") + summary(folders)


def main() -> int:
    """Run the command line and return its exit status."""
    return run_command(Summary, prog="python -m experiments.summary", description=__doc__)


if __name__ == "__main__":
    sys.exit(main())
