"""Tables on runs: text in cells, under a header; for the HTML report and for Markdown pages alike."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ufm.networks.departure import Departure
from ufm.runs.record import RunRecord, SolveRecord, TheoryCurve, mode_words

Row = tuple[str, ...]

_SCORES = {
    "R² per sample": "r2",
    "same class": "r2_same",
    "different class": "r2_mixed",
    "R² per pair and λ bin": "r2_binned",
}
_OVERVIEW = ("closed form", "own classifier", "straight line", "fit-free")


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes
    ----------
    title : str
    header : tuple of str
    rows : tuple of tuple of str
        A cell for each entry of the header; the first one names the row.
    note : str
        What the numbers are.
    """

    title: str
    header: Row
    rows: tuple[Row, ...]
    note: str = ""

    def markdown(self) -> str:
        """Return header and rows as a Markdown table."""
        lines = [self.header, ["---"] * len(self.header), *self.rows]
        return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |" for cells in lines)


def number(value: float | None, form: str = ".3f") -> str:
    """Return a number as text, and a dash for None or NaN."""
    return "–" if value is None or math.isnan(value) else format(value, form).replace("-", "\N{MINUS SIGN}")


def beta_text(value: float | None, at_edge: bool = False) -> str:
    """Return beta to a few digits, with a remark if it lies at an end of the range that was searched."""
    if value is None or math.isnan(value):
        return "–"
    text = f"{value:.0f}" if 10 <= value < 1e5 else f"{value:.2g}"
    return f"{text} (edge)" if at_edge else text


def _table(
    title: str, header: Row, runs: Sequence[RunRecord], rows_of: Callable[[RunRecord], Iterable[Row]], note: str
) -> Table:
    """Return the rows of all runs, with a column for the run if there are several."""
    several = len(runs) > 1
    rows = tuple((run.name, *row) if several else row for run in runs for row in rows_of(run))
    return Table(title, ("run", *header) if several else header, rows, note)


def overview(runs: Sequence[RunRecord], *, training: bool = False) -> Table:
    """Return one row per run: accuracy, calibration, collapse, beta, and how much each prediction explains.

    training: whether to say how each run was trained.
    """
    header = ("run", *(("training",) if training else ()))
    header += ("test accuracy", "ECE", "ETF error", "NC1", "β fitted", "β fit-free", *(f"R² {x}" for x in _OVERVIEW))
    note = (
        "R² of the centred logits on mixed inputs, per sample and of the means per (class pair, λ bin), on the half of "
        "the samples that nothing was fitted to. Closed form, own classifier (the theory for the network's own "
        "classifier and bias) and straight line have one fitted number each, fit-free has none. ECE on unmixed test "
        "inputs, 15 bins, as trained."
    )
    return Table("Runs side by side", header, tuple(_overview(run, training=training) for run in runs), note)


def _overview(run: RunRecord, *, training: bool) -> Row:
    comparison = run.comparison
    scores = {score.name: f"{number(score.r2)}, {number(score.r2_binned)}" for score in comparison.scores}
    accuracy, ece, nc1 = accuracy_of(run), run.measured("test_ece"), run.measured("nc1")
    if ece is None and run.calibration is not None:
        ece = run.calibration.test.before.ece
    if nc1 is None and comparison.collapse is not None:
        nc1 = comparison.collapse.nc1
    return (
        run.name,
        *((run.training.description,) if training else ()),
        "–" if accuracy is None else f"{100 * accuracy:.1f} %",
        number(ece),
        number(comparison.etf_error),
        number(nc1, ".2f"),
        beta_text(comparison.beta, comparison.beta_at_edge),
        beta_text(comparison.beta_fit_free),
        *(scores.get(name, "–") for name in _OVERVIEW),
    )


def accuracy_of(run: RunRecord) -> float | None:
    """Return the accuracy on all test inputs, else on those that calibration was measured on, else None."""
    accuracy = run.measured("test_accuracy")
    return run.calibration.test.before.accuracy if accuracy is None and run.calibration is not None else accuracy


def run_tables(run: RunRecord) -> list[Table]:
    """Return the tables of one run; those without content are left out."""
    tables = [score_table([run], mode) for mode in run.modes]
    tables += [departure_table([run]), certificate_table([run])]
    tables += [channel_table([run]), layer_table([run]), measure_table([run]), calibration_table([run])]
    if run.theory is not None:
        tables += [theory_table(run.theory), solver_table(run.solves, run.theory)]
    return [table for table in tables if table.rows]


def score_table(runs: Sequence[RunRecord], mode: str, predictions: Sequence[str] = ()) -> Table:
    """Return how much of the logits and features each prediction explains in a mode.

    predictions: their names; all by default.
    """
    note = (
        "Each prediction is fitted on one half of the samples and scored on the other. Angles: mean between features "
        "and predicted features, each less their mean, same and different class. Lengths: relative error of the same, "
        "same and different class."
    )

    def rows(run: RunRecord) -> Iterable[Row]:
        for score in run.comparisons[mode].scores:
            if not predictions or score.name in predictions:
                yield (
                    score.name,
                    str(score.parameters),
                    *(number(getattr(score, key)) for key in _SCORES.values()),
                    f"{number(score.angle_same, '.1f')}°, {number(score.angle_mixed, '.1f')}°",
                    f"{number(score.length_same, '.2f')}, {number(score.length_mixed, '.2f')}",
                )

    if len(runs) == 1:
        note = f"{_fitted(runs[0], mode)} {note}"
    header = ("prediction", "fitted numbers", *_SCORES, "angles", "lengths")
    return _table(f"How much each prediction explains, {mode_words(mode)}", header, runs, rows, note)


def _fitted(run: RunRecord, mode: str) -> str:
    comparison = run.comparisons[mode]
    collapse = comparison.collapse
    measures = "" if collapse is None else f" NC1 to NC4: {', '.join(number(x) for x in vars(collapse).values())}."
    return (
        f"β fitted {number(comparison.beta, '.4g')}, fit-free {number(comparison.beta_fit_free, '.4g')}; classifier "
        f"multiplier {number(comparison.multiplier, '.3g')}, relative distance to its nearest ETF "
        f"{number(comparison.etf_error)}; {number(100 * comparison.in_plane, '.1f')} % of the squared length of the "
        f"features lies in the classifier's row space; {comparison.samples} samples scored.{measures}"
    )


def departure_table(runs: Sequence[RunRecord]) -> Table:
    """Return the split of the channel's width by bins of the heavier class's weight, network and closed form."""

    def rows(run: RunRecord) -> Iterable[Row]:
        found = run.comparison.departure
        if found is None or run.training.predicted_by != "closed form":
            return
        network, theory = found.network, found.theory
        for i, weight in enumerate(network.weight):
            every = (network, theory, found.predicted)
            cells = (
                ", ".join(number(getattr(one, name)[i], ".3g") for one in every[: 3 if name in _PREDICTED else 2])
                for name in _SPLIT
            )
            yield number(weight, ".2f"), str(network.count[i]), number(network.label[i]), *cells

    words = [_excess_words(run.comparison.departure) for run in runs if run.comparison.departure is not None]
    note = (
        "Network, closed form and, for width, depth and leak, the closed form at the bin's mean implied label. Width "
        "= label + bias + spread, exactly: what the labels give, probabilities that are wrong on average, and their "
        "spread among equal λ. Leak: probability of classes that are not in the label."
    )
    header = ("weight of the heavier class", "samples", "label", *_SPLIT)
    return _table("The law of departure", header, runs, rows, " ".join([*(words if len(runs) == 1 else ()), note]))


_SPLIT = ("width", "bias", "spread", "depth", "leak")
_PREDICTED = ("width", "depth", "leak")


def _excess_words(found: Departure) -> str:
    return (
        f"Excess loss E KL(y‖p) {number(found.excess, '.3g')}; of the closed form at β = {beta_text(found.beta)} "
        f"{number(found.excess_theory, '.3g')}. Of a UFM with softer labels the outputs tell them, y' = p + z/β, and "
        f"they are calibrated: slope of y on y' {number(found.calibration_slope)} where it would be 1, excess that the "
        f"outputs expect {number(found.excess_expected, '.3g')} where it would be the true one. Variance of y' over "
        f"that of y {number(found.sharpness)}, 1 for labels that are fitted."
    )


def certificate_table(runs: Sequence[RunRecord]) -> Table:
    """Return what is proved about each network, by mode, and whether its classifier is at rest."""

    def rows(run: RunRecord) -> Iterable[Row]:
        for mode, comparison in run.comparisons.items():
            found, rest = comparison.certificate, comparison.stationarity
            if found is None or rest is None or run.training.predicted_by != "closed form":
                continue
            yield (
                mode,
                f"{100 * found.relative_gap:.1f} %, {100 * found.open_share:.0f} %",
                *(
                    number(x, ".3g")
                    for x in (found.feature_square, found.distance, found.bound, found.inner_bound, found.global_bound)
                ),
                f"{number(rest.ratio, '.2f')}, {number(rest.angle, '.0f')}°",
            )

    note = (
        "Proved of the recorded samples, with λ_H from balancedness. Gap: how far the objective can be above the "
        "global minimum, over that; and over what is above the labels' entropy, which is known beforehand. Distances: "
        "mean squared, of the features to the optimal ones h* for the network's own classifier. Pull: E[(y − p)·Wh] "
        "over λ_W‖W‖² and the angle between the loss's pull and the classifier; 1 and 0° where the classifier is at "
        "rest, and the fit-free β holds only there."
    )
    header = (
        "mode",
        "gap, share open",
        "E‖h‖²",
        "distance",
        "bound by curvature",
        "bound by λ_H",
        "bound by the gap to the global minimum",
        "pull, angle",
    )
    return _table("What is proved of the network", header, runs, rows, note)


def channel_table(runs: Sequence[RunRecord], predictions: Sequence[str] = ()) -> Table:
    """Return width and depth of the channel near a few lambdas, and the decision boundary.

    predictions: names, "network" included; all by default.
    """

    def rows(run: RunRecord) -> Iterable[Row]:
        for name, points in run.comparison.points.items():
            if predictions and name not in predictions:
                continue
            boundary = run.comparison.boundaries[name]
            widths, depths = (", ".join(number(x, ".2f") for x in column) for column in (points.width, points.depth))
            yield name, widths, depths, number(boundary.density), number(boundary.amplification)

    points = [run.comparison.points["network"] for run in runs if "network" in run.comparison.points]
    lams = ", ".join(f"{x:g}" for x in points[0].lam) if points else ""
    header = ("prediction", f"width at λ = {lams}", f"depth at λ = {lams}", "density", "amplification")
    note = (
        "Means over the different-class samples whose heavier class weighs within 0.05 of λ. density: of samples per "
        "logit of width at the decision boundary. amplification: slope of the width at λ = 1/2 over that of the "
        f"straight line between the same-class ends. {mode_words(runs[0].mode).capitalize()}."
    )
    return _table("The channel", header, runs, rows, note)


def layer_table(runs: Sequence[RunRecord]) -> Table:
    """Return how linear, how channel-like, and how much like manifold mixup's each layer is."""

    def rows(run: RunRecord) -> Iterable[Row]:
        for layer in run.layers:
            figures = (layer.interpolation, layer.explained, layer.line, layer.channel)
            yield layer.name, str(layer.dim), *(number(x, ".2f") for x in figures), number(layer.beta, ".3g")

    note = (
        "interpolation: R² of the output on a mixed input by the same mixture of the outputs on its two inputs (1: as "
        "under manifold mixup). explained: share of the variance that class pair and λ bin explain. line, channel: R² "
        "of the means per pair and λ bin by the best linear function of the label, and of the closed form's logits at "
        "the β given. Outputs averaged over positions; eval mode."
    )
    return _table(
        "Layers", ("layer", "dimension", "interpolation", "explained", "line", "channel", "β"), runs, rows, note
    )


def measure_table(runs: Sequence[RunRecord]) -> Table:
    """Return the further measures by mode."""

    def rows(run: RunRecord) -> Iterable[Row]:
        for mode, found in run.measures.items():
            for name, value in found.items():
                yield name, mode_words(mode), number(value, ".4g")

    return _table("Further measures", ("measure", "mode", "value"), runs, rows, "")


def calibration_table(runs: Sequence[RunRecord]) -> Table:
    """Return calibration on test inputs, before and after temperature scaling, and as predicted."""
    names = {"accuracy": "accuracy", "confidence": "confidence", "ece": "ECE", "ece_adaptive": "adaptive ECE"}
    names |= {"nll": "NLL", "brier": "Brier"}

    def rows(run: RunRecord) -> Iterable[Row]:
        if run.calibration is None:
            return
        test, predicted = run.calibration.test, run.calibration.predicted
        edge = " (edge)" if test.at_edge else ""
        for name, measures, temperature in (
            ("as trained", test.before, "1"),
            ("after temperature scaling", test.after, f"{test.temperature:.3f}{edge}"),
            ("predicted at the fitted β", predicted, "1"),
        ):
            if measures is not None:
                yield name, *(number(getattr(measures, key, None)) for key in names), temperature

    note = (
        "The temperature is fitted on one random half of the unmixed test inputs; all figures are those of the other "
        "half, eval mode. The prediction is for unmixed inputs of separable classes, so its accuracy is 1."
    )
    return _table("Calibration on test inputs", ("", *names.values(), "temperature"), runs, rows, note)


def theory_table(theory: TheoryCurve) -> Table:
    """Return optimal logits, predictions and feature lengths of a mixed label."""
    rows = []
    for i in range(9, len(theory.lam), 10):
        length = sum(x * x for x in theory.features[i].tolist()) ** 0.5
        figures = [f"{x:.4f}" for x in theory.logits[i, :3]] + [f"{x:.5f}" for x in theory.probabilities[i, :3]]
        figures.append(f"{length:.4f}")
        rows.append((f"{theory.lam[i]:.2f}", *(figure.replace("-", "\N{MINUS SIGN}") for figure in figures)))
    header = ("λ", "z_a", "z_b", "z of the others", "p_a", "p_b", "p of the others", "|h|")
    return Table("Theory: optimal logits, predictions and features of a mixed label", header, tuple(rows))


def solver_table(solves: Sequence[SolveRecord], theory: TheoryCurve) -> Table:
    """Return a row per direct solve."""
    rows = tuple(
        (
            f"{solve.classifier}, {solve.method}",
            str(solve.iterations),
            f"{solve.certificate.objective:.15g}",
            *(f"{x:.1e}" for x in (solve.certificate.gradient_norm, solve.certificate.gap, solve.logit_error)),
        )
        for solve in solves
    )
    note = (
        f"K = {theory.num_classes}, mixup α = {theory.alpha:g}, λ_W = {theory.weight_decay:g}, λ_H = "
        f"{theory.feature_decay:g}; closed form: β = {theory.beta:.6g}, multiplier {theory.multiplier:.6g}, "
        f"objective {theory.objective:.12g}. Gap: proved distance of the objective from the global optimum (for a "
        "fixed classifier: from the optimum for that classifier). Logits from closed form: largest difference, "
        "relative to the largest logit."
    )
    header = ("classifier, method", "iterations", "objective", "gradient norm", "gap", "logits from closed form")
    return Table("Direct solves", header, rows, note)
