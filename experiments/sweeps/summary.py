"""What sweeps found, as Markdown: agreement with the closed form on collapse, and methods' times to a gap."""

from collections import Counter
from pathlib import Path
from typing import Any

from experiments.sweeps.grid import grid_of
from experiments.sweeps.store import POINTS, Line, read_config, read_lines

_COLLAPSE = """\
Collapsed to zero or not, by the solver's certificate and by the closed form. The solver knows no threshold:
not collapsed means that its objective is below that of zero, collapsed that its lower bound proves that
nothing is, both to a relative 1e-12 (or to `gap_tol` where that is larger).

| method | points | agree | disagree | solver undecided | objective, largest relative difference |
| --- | --- | --- | --- | --- | --- |"""
_TIMES = """Wall time in seconds on one thread, recording left out, and (iterations) until a certified relative gap is
first recorded; a dash where it was not.
"""


def summary(folders: list[Path]) -> str:
    """Return the text about all the folders; raise ValueError for one that holds no sweep."""
    parts = ["# Sweeps\n\nWritten by `python -m experiments.sweep summary`; every number is from a `points.jsonl`.\n"]
    for folder in folders:
        config, lines = read_sweep(folder)
        counts = Counter(line["status"] for line in lines)
        told = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
        commands = "".join(f"    {command}\n" for command in config["commands"])
        parts.append(f"## {folder.name}\n\n{config['points']} points: {told}.\n\n{commands}")
        parts += [f"- {line['key']} failed: {line['message']}\n" for line in lines if line["status"] == "failed"]
        with_history = [line for line in lines if "history" in line]
        # Where histories are kept, time is the question; elsewhere it is collapse.
        parts.append(_times(with_history) if with_history else _collapse(lines))
    return "\n".join(parts)


def read_sweep(folder: Path) -> tuple[dict[str, Any], list[Line]]:
    """Return a folder's configuration and lines, in the grid's order; raise ValueError if it holds no sweep."""
    config = read_config(folder)
    if not (folder / POINTS).is_file():
        raise ValueError(f"folder: got {str(folder)!r}, expected one with the {POINTS} of a sweep")
    lines, _ = read_lines(folder / POINTS)
    try:
        points = grid_of(config["grid"]).points()
    except ValueError as error:
        raise ValueError(f"folder: got {str(folder)!r}, whose grid does not fit: {str(error)[:500]}") from error
    return config, [lines[key] for key in points if key in lines]


def agrees(line: Line) -> bool | None:
    """Return whether solver and closed form say the same about collapse; None where the solver cannot tell."""
    return None if line["collapsed"] is None else line["collapsed"] == line["closed_form"]["collapsed"]


def _collapse(lines: list[Line]) -> str:
    text = [_COLLAPSE]
    usable = [line for line in lines if line.get("closed_form")]
    for method in dict.fromkeys(line["parameters"]["method"] for line in usable):
        mine = [line for line in usable if line["parameters"]["method"] == method]
        counts = Counter(agrees(line) for line in mine)
        worst = max(abs(line["objective"] / line["closed_form"]["objective"] - 1) for line in mine)
        text.append(f"| {method} | {len(mine)} | {counts[True]} | {counts[False]} | {counts[None]} | {worst:.1e} |")
    odd = [line for line in usable if not agrees(line)]
    text += ["", "Every point agrees." if not odd else "Points that do not agree:", ""]
    for line in odd:
        product = line["weight_decay"] * line["feature_decay"] / line["closed_form"]["threshold"]
        parameters = line["parameters"]
        text.append(
            f"- {parameters['method']}, K = {parameters['num_classes']}, alpha = {parameters['alpha']}, "
            f"lambda_W lambda_H at {product:.6g} of the threshold: solver {line['collapsed']}, closed form "
            f"{line['closed_form']['collapsed']} ({line['message']})"
        )
    return "\n".join(text).rstrip() + "\n"


def _times(lines: list[Line]) -> str:
    gaps = list(lines[0]["reached"])
    header = " | ".join(gaps)
    text = [_TIMES]
    text += [f"| method | {header} | iterations in all | seconds in all | last gap | ended |"]
    text += [f"| {' | '.join(['---'] * (len(gaps) + 5))} |"]
    for line in lines:
        reached = line["reached"].values()
        cells = ["-" if at is None else f"{at['seconds']:.3g} ({at['iteration']:.0f})" for at in reached]
        text.append(
            f"| {line['parameters']['method']} | {' | '.join(cells)} | {line['iterations']} | {line['seconds']:.3g} "
            f"| {line['relative_gap']:.1e} | {line['status']} |"
        )
    return "\n".join(text) + "\n"
