"""Plots of training: how same-class features and classifier approach the simplex ETF."""

from collections.abc import Iterable, Mapping, Sequence
from numbers import Real

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullFormatter

from ufm._support.arrays import check_number
from ufm._support.style import DOUBLE_COLUMN, MARKERS, PALETTE, style

MEASURES = {
    "nc1": "NC1, variability",
    "nc2": "NC2, class means to ETF",
    "nc3": "NC3, means to classifier",
    "etf_error": "classifier to ETF, relative",
}
DEPARTURE = {
    "excess_loss": "excess loss (nats)",
    "unexplained": "1 - R², closed form",
    "unexplained_line": "1 - R², straight line",
    "ece": "calibration error, test",
}


def convergence_figure(
    histories: Mapping[str, Sequence[Mapping[str, float | None]]],
    others: Mapping[str, Sequence[Mapping[str, float | None]]] | None = None,
    *,
    kinds: tuple[str, str] = ("", ""),
    measures: Mapping[str, str] = MEASURES,
) -> Figure:
    """Plot measures of training against the epoch, one line per history.

    The axes are logarithmic, so measures that are 0 are not shown.

    Parameters
    ----------
    histories : mapping of sequences of mappings
        By label, rows with `epoch` (from 0) and any of the measures. A row without a measure is left out of that
        measure's line; a measure that no row has is marked as not measured.
    others : mapping of sequences of mappings, optional
        Histories of a second kind: dashed lines, in the colour of the same label.
    kinds : pair of str
        Names of the two kinds, for the legend.
    measures : mapping of str, optional
        Titles by the name that a measure has in the rows. By default NC1, NC2, NC3 and the classifier's distance to its
        nearest ETF: `nc1`, `nc2`, `nc3` and `etf_error`.

    Returns
    -------
    Figure
        One axes per measure.

    Raises
    ------
    ValueError
        If no row has any measure, or a row with measures has no epoch >= 0 or has a measure that is not a number.
    """
    if len(kinds) != 2:
        raise ValueError(f"kinds: got {len(kinds)}, expected 2")
    for where, group in (("histories", histories), ("others", others or {})):
        _check(where, group, measures)
    everything = [row for group in (histories, others or {}) for rows in group.values() for row in rows]
    if not any(row.get(name) is not None for row in everything for name in measures):
        raise ValueError(f"histories: got none of {', '.join(measures)}, expected rows that have some")
    labels = list(dict.fromkeys([*histories, *(others or {})]))
    with style():
        figure = Figure(figsize=(DOUBLE_COLUMN, 2.2 + 0.14 * -(-len(labels) // 4)))
        axes = figure.subplots(1, len(measures), squeeze=False)[0]
        for axis, (name, title) in zip(axes, measures.items(), strict=True):
            for group, dashes, face in ((histories, "-", None), (others or {}, "--", "white")):
                for label, rows in group.items():
                    _draw(axis, name, rows, labels.index(label), dashes, face)
            axis.set(title=title, xlabel="epoch")
            values = np.concatenate([np.asarray(line.get_ydata(), float) for line in axis.lines])
            if not (values[np.isfinite(values)] > 0).any():
                note = "none above 0" if np.isfinite(values).any() else "not measured"
                axis.text(0.5, 0.5, note, ha="center", transform=axis.transAxes)
                axis.set(xticks=[], yticks=[])
                continue
            axis.set(xscale="log", yscale="log")
            for side in (axis.xaxis, axis.yaxis):
                side.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.xaxis.set_minor_formatter(NullFormatter())
            low, high = axis.get_ylim()
            digits = "25" if high > 8 * low else "23456789"
            axis.yaxis.set_minor_formatter(FuncFormatter(lambda value, _, digits=digits: _few_digits(value, digits)))
        handles = [
            Line2D([], [], color=PALETTE[i % len(PALETTE)], marker=MARKERS[i % len(MARKERS)], markersize=3, label=label)
            for i, label in enumerate(labels)
        ]
        if others:
            handles += [
                Line2D([], [], color="0.3", linestyle=dashes, label=kind)
                for kind, dashes in zip(kinds, ("-", "--"), strict=True)
            ]
        figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 6 if others else 4))
        return figure


def _check(where: str, group: Mapping[str, Sequence[Mapping[str, float | None]]], measures: Iterable[str]) -> None:
    for label, rows in group.items():
        for row in rows:
            found = {name: row[name] for name in measures if row.get(name) is not None}
            if not found:
                continue
            check_number(f"{where}: epoch of {label!r}", row.get("epoch"), minimum=0)
            # Measures of a network that diverged are NaN or infinite; they leave a gap.
            for name, value in found.items():
                if not isinstance(value, Real) or isinstance(value, bool):
                    raise ValueError(f"{where}: got {name} {value!r} of {label!r}, expected a number or None")


def _draw(
    axis: Axes, name: str, rows: Sequence[Mapping[str, float | None]], i: int, dashes: str, face: str | None
) -> None:
    points = np.array([(row["epoch"], row[name]) for row in rows if row.get(name) is not None], float).reshape(-1, 2)
    axis.plot(
        points[:, 0] + 1,
        points[:, 1],
        dashes,
        color=PALETTE[i % len(PALETTE)],
        linewidth=0.9,
        marker=MARKERS[i % len(MARKERS)],
        markersize=3,
        markerfacecolor=face,
        markeredgewidth=0.7,
        markevery=max(len(points) // 5, 1),
    )


def _few_digits(value: float, digits: str) -> str:
    """Return the label of some numbers between powers of ten: a short logarithmic axis would have one label or none."""
    return f"{value:g}" if f"{value:e}"[0] in digits else ""
