"""Convergence over training: same-class features and classifier towards the simplex ETF."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from ufm.plotting.style import DASHES, DOUBLE_COLUMN, MARKERS, PALETTE, style

MEASURES = {
    "nc1": "NC1, variability",
    "nc2": "NC2, class means to ETF",
    "nc3": "NC3, means to classifier",
    "etf_error": "classifier to ETF, relative",
}


def convergence_figure(histories: Mapping[str, Sequence[Mapping[str, float | None]]]) -> Figure:
    """Return NC1, NC2, NC3 and the classifier's distance to its nearest ETF against the epoch, a line per history.

    histories: rows with `epoch` (from 0) and the measures, by label; a row without a measure is left out of its line.
    Raises ValueError if no row has any.
    """
    if not any(row.get(name) is not None for rows in histories.values() for row in rows for name in MEASURES):
        raise ValueError(f"histories: got none of {', '.join(MEASURES)}, expected rows that have some")
    with style():
        figure = Figure(figsize=(DOUBLE_COLUMN, 2.2 + 0.14 * -(-len(histories) // 4)))
        axes = figure.subplots(1, len(MEASURES))
        for axis, (name, title) in zip(axes, MEASURES.items(), strict=True):
            for i, (label, rows) in enumerate(histories.items()):
                points = [(row["epoch"], row[name]) for row in rows if row.get(name) is not None]
                epochs = [(epoch or 0) + 1 for epoch, _ in points]
                axis.plot(
                    epochs,
                    [value for _, value in points],
                    DASHES[i % len(DASHES)],
                    color=PALETTE[i % len(PALETTE)],
                    marker=MARKERS[i % len(MARKERS)],
                    markersize=2.5,
                    markevery=max(len(points) // 6, 1),
                    label=label,
                )
            axis.set(title=title, xlabel="epoch", xscale="log", yscale="log")
            for side in (axis.xaxis, axis.yaxis):
                side.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.xaxis.set_minor_formatter(NullFormatter())
            axis.yaxis.set_minor_formatter(FuncFormatter(_few_digits))
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 4))
        return figure


def _few_digits(value: float, _: object) -> str:
    """Label the 2s and 5s between powers of ten, without which a short logarithmic axis shows one number."""
    return f"{value:g}" if f"{value:e}"[0] in "25" else ""
