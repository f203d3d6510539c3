"""The tables of a report: text in cells, under a header."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ufm.runs.record import Run

_SCORES = {
    "R² per sample": "r2",
    "same class": "r2_same",
    "different class": "r2_mixed",
    "R² per pair and λ bin": "r2_binned",
}


@dataclass(frozen=True)
class Table:
    """title; header and rows (a cell each, the first of which names the row); note: what the numbers are."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def number(value: float | None, form: str = ".3f") -> str:
    """Return a number as text, and a dash for none or NaN."""
    return "–" if value is None or math.isnan(value) else format(value, form).replace("-", "\N{MINUS SIGN}")


def overview(runs: Sequence["Run"]) -> Table:
    """Return one row per run: accuracy, calibration, collapse, beta, and how much each prediction explains."""
    header = ("run", "training", "test accuracy", "ECE", "ETF error", "NC1", "β fitted", "β fit-free")
    header += ("R² closed form", "R² straight line", "R² own classifier")
    note = (
        "R² of the centred logits on mixed inputs, per sample, each prediction with one fitted number; own classifier: "
        "the theory for the network's own classifier and bias. ECE on unmixed test inputs, 15 bins, as trained."
    )
    return Table("Runs side by side", header, tuple(map(_overview, runs)), note)


def _overview(run: "Run") -> tuple[str, ...]:
    comparison = run.comparison
    r2 = {score.name: score.r2 for score in comparison.scores}
    accuracy, ece = accuracy_of(run), run.measured("test_ece")
    return (
        run.name,
        run.training.description,
        "–" if accuracy is None else f"{100 * accuracy:.1f} %",
        number(ece if ece is not None or run.calibration is None else run.calibration.test.before.ece),
        number(comparison.etf_error),
        number(None if comparison.collapse is None else comparison.collapse.nc1),
        number(comparison.beta, ".4g") + (" (edge)" if comparison.beta_at_edge else ""),
        number(comparison.beta_fit_free, ".4g"),
        *(number(r2.get(name)) for name in ("closed form", "straight line", "own classifier")),
    )


def accuracy_of(run: "Run") -> float | None:
    """Return the accuracy on all test inputs, else on those that calibration was measured on, else None."""
    accuracy = run.measured("test_accuracy")
    return run.calibration.test.before.accuracy if accuracy is None and run.calibration is not None else accuracy


def run_tables(run: "Run") -> list[Table]:
    """Return the tables of one run, those without content left out."""
    tables = [score_table(run, mode) for mode in run.modes]
    tables += [channel_table(run), *_layer_tables(run), *_calibration_tables(run), *run.tables]
    return [table for table in tables if table.rows]


def score_table(run: "Run", mode: str) -> Table:
    """Return how much of the logits and features each prediction explains in a mode."""
    comparison = run.comparisons[mode]
    collapse = comparison.collapse
    measures = "" if collapse is None else f" NC1 to NC4: {', '.join(number(x) for x in vars(collapse).values())}."
    note = (
        f"β fitted {number(comparison.beta, '.4g')}, fit-free {number(comparison.beta_fit_free, '.4g')}; classifier "
        f"multiplier {number(comparison.multiplier, '.3g')}, relative distance to its nearest ETF "
        f"{number(comparison.etf_error)}; {number(100 * comparison.in_plane, '.1f')} % of the squared length of the "
        f"features lies in the classifier's row space.{measures} Numbers are fitted on one half of the samples and "
        f"scored on the other {comparison.samples}. Angles: mean, same and different class, between features and "
        "predicted features."
    )
    rows = tuple(
        (
            score.name,
            str(score.parameters),
            *(number(getattr(score, key)) for key in _SCORES.values()),
            f"{number(score.angle_same, '.1f')}°, {number(score.angle_mixed, '.1f')}°",
        )
        for score in comparison.scores
    )
    title = f"How much each prediction explains, {mode_words(mode)}"
    return Table(title, ("prediction", "fitted numbers", *_SCORES, "angles"), rows, note)


def mode_words(mode: str) -> str:
    """Return the mode as it is called in a sentence."""
    return f"{mode} mode" if mode in ("eval", "train") else "as recorded"


def channel_table(run: "Run") -> Table:
    """Return width and depth of the channel near a few lambdas, and the decision boundary."""
    comparison = run.comparison
    network = comparison.points.get("network")
    rows = []
    for name, points in comparison.points.items() if network is not None else ():
        boundary = comparison.boundaries.get(name)
        widths, depths = (", ".join(number(x, ".2f") for x in column) for column in (points.width, points.depth))
        ends = ("–", "–") if boundary is None else (boundary.density, boundary.amplification)
        rows.append((name, widths, depths, *(x if isinstance(x, str) else number(x) for x in ends)))
    lams = ", ".join(f"{x:g}" for x in network.lam) if network is not None else ""
    header = ("", f"width at λ = {lams}", f"depth at λ = {lams}", "density", "amplification")
    note = (
        "Means over the different-class samples whose heavier class weighs within 0.05 of λ. density: of samples per "
        "logit of width at the decision boundary. amplification: slope of the width at λ = 1/2 over that of the "
        "straight line between the same-class ends."
    )
    return Table("The channel", header, tuple(rows), f"{note} {mode_words(run.mode).capitalize()}.")


def _layer_tables(run: "Run") -> list[Table]:
    rows = tuple(
        (
            layer.name,
            str(layer.dim),
            *(number(x, ".2f") for x in (layer.interpolation, layer.explained, layer.line, layer.channel)),
            number(layer.beta, ".3g"),
        )
        for layer in run.layers
    )
    note = (
        "interpolation: R² of the output on a mixed input by the same mixture of the outputs on its two inputs (1: as "
        "under manifold mixup). explained: share of the variance that class pair and λ bin explain. line, channel: R² "
        "of the means per pair and λ bin by the best linear function of the label, and of the closed form's logits at "
        "the β given. Outputs averaged over positions; eval mode."
    )
    header = ("layer", "dimension", "interpolation", "explained", "line", "channel", "β")
    return [Table("Layers", header, rows, note)]


def _calibration_tables(run: "Run") -> list[Table]:
    if run.calibration is None:
        return []
    test, predicted = run.calibration.test, run.calibration.predicted
    names = {"accuracy": "accuracy", "confidence": "confidence", "ece": "ECE", "ece_adaptive": "adaptive ECE"}
    names |= {"nll": "NLL", "brier": "Brier"}
    rows = [
        (name, *(number(getattr(measures, key)) for key in names))
        for name, measures in (("as trained", test.before), ("after temperature scaling", test.after))
    ]
    if predicted is not None:
        rows.append(("predicted at the fitted β", *(number(getattr(predicted, key, None)) for key in names)))
    note = (
        f"Temperature {test.temperature:.3f}{' (at the end of the range searched)' if test.at_edge else ''}, fitted on "
        "one random half of the unmixed test inputs; all figures are those of the other half, eval mode. The "
        "prediction is for unmixed inputs of separable classes, so its accuracy is 1."
    )
    return [Table("Calibration on test inputs", ("", *names.values()), tuple(rows), note)]


def theory_table(theory: Mapping[str, Any]) -> Table:
    """Return optimal logits, predictions and feature lengths of a mixed label, from a demo's results."""
    rows = []
    for i in range(9, len(theory["lam"]), 10):
        length = sum(x * x for x in theory["features"][i]) ** 0.5
        logits, probabilities = (theory[name][i][:3] for name in ("logits", "probabilities"))
        figures = [f"{x:.4f}" for x in logits] + [f"{x:.5f}" for x in probabilities] + [f"{length:.4f}"]
        rows.append((f"{theory['lam'][i]:.2f}", *(figure.replace("-", "\N{MINUS SIGN}") for figure in figures)))
    header = ("λ", "z_a", "z_b", "z of the others", "p_a", "p_b", "p of the others", "|h|")
    return Table("Theory: optimal logits, predictions and features of a mixed label", header, tuple(rows))


def solver_table(solutions: Sequence[Mapping[str, Any]], theory: Mapping[str, Any]) -> Table:
    """Return a row per direct solve, from a demo's results."""
    rows = tuple(
        (
            f"{s['classifier']}, {s['method']}",
            str(s["iterations"]),
            f"{s['objective']:.15g}",
            *(f"{s[name]:.1e}" for name in ("gradient_norm", "gap", "logit_error")),
        )
        for s in solutions
    )
    note = (
        f"K = {theory['num_classes']}, mixup α = {theory['alpha']:g}, λ_W = {theory['weight_decay']:g}, λ_H = "
        f"{theory['feature_decay']:g}; closed form: β = {theory['beta']:.6g}, multiplier {theory['multiplier']:.6g}, "
        f"objective {theory['objective']:.12g}. Gap: proved distance of the objective from the global optimum (for a "
        "fixed classifier: from the optimum for that classifier). Logits from closed form: largest difference, "
        "relative to the largest logit."
    )
    header = ("classifier, method", "iterations", "objective", "gradient norm", "gap", "logits from closed form")
    return Table("Direct solves", header, rows, note)
