"""Minority collapse against imbalance, with and without mixup."""

import json
from pathlib import Path

from matplotlib.figure import Figure

from figures.drawing import Drawing, script
from ufm.plotting import CLOSED_FORM, DASHES, NETWORK, RIVAL, SINGLE_COLUMN, SOLVER, style

_COLOURS = (NETWORK, CLOSED_FORM, SOLVER, RIVAL)
_MARKERS = "osD^"


def draw(results: Path) -> Drawing:
    """Return the cosine between rare classifier rows against the ratio, for the largest penalties of the result."""
    path = results / "minority" / "minority.json"
    if not path.is_file():
        raise ValueError(f"results: got {str(results)!r}, which has no minority/minority.json, expected it there")
    try:
        solved = json.loads(path.read_text(encoding="utf-8"))["points"]
    except (KeyError, json.JSONDecodeError) as error:
        raise ValueError(
            f"results: got {str(path)!r}, expected a result of experiments.minority ({error!r})"
        ) from error
    decay = max(point["decay"] for point in solved)
    points = [point for point in solved if point["decay"] == decay]
    with style():
        figure = Figure(figsize=(SINGLE_COLUMN, 3.0))
        axis = figure.subplots()
        alphas = list(dict.fromkeys(point["alpha"] for point in points))
        for alpha, colour, marker, dashes in zip(alphas, _COLOURS, _MARKERS, DASHES, strict=False):
            curve = [point for point in points if point["alpha"] == alpha]
            ratios, cosines = ([point[key] for point in curve] for key in ("ratio", "cosine_rare"))
            label = "no mixup" if alpha is None else rf"mixup, $\alpha$ = {alpha:g}"
            axis.plot(ratios, cosines, dashes, marker=marker, markersize=3, color=colour, linewidth=0.9, label=label)
            axis.axvline(curve[0]["predicted_collapse_ratio"], color=colour, linestyle=dashes, linewidth=0.7)
        axis.plot([], [], color="0.3", linewidth=0.7, label="vertical: predicted collapse")
        axis.set(xscale="log", xlabel="frequency of frequent over rare classes", ylabel="cosine between rare rows")
        axis.set_title(rf"$\lambda_W = \lambda_H = {decay:g}$")
        figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    caption = f"""
        Cosine between the classifier rows of the rare classes at the certified optimum, against how many times as
        frequent the frequent classes are; at 1 the rows coincide. Vertical: the ratio from which on the derivation
        predicts it, in the curve's own colour and dashes. Mixed labels inherit the imbalance, and bring the collapse
        on earlier. Data: {len(points)} direct solves of experiments.minority, those at the larger penalties, K = 10,
        seed 0.
    """
    return Drawing(figure, "Minority collapse under mixup", caption)


if __name__ == "__main__":
    script(__file__, __doc__)
