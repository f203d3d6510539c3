"""What the plots refuse, and with which words."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import ufm
from tests.plotting.test_plotting import curve, line, panel, samples
from ufm.plotting import (
    PairPanel,
    PlanarPanel,
    ReliabilityPanel,
    channel_figure,
    confidence_figure,
    convergence_figure,
    pair_figure,
    planar_figure,
    planar_panel,
    projected_panel,
    reliability_figure,
)


def pair(**changes: Any) -> PairPanel:
    s = samples()
    return PairPanel(
        **{"title": "t", "logits": s["z"], "class_a": s["a"], "class_b": s["b"], "lam": s["lam"], **changes}
    )


def planar(**changes: Any) -> PlanarPanel:
    s = samples()
    names = {"classifier": "W", "features": "h", "class_a": "a", "class_b": "b", "lam": "lam"}
    return planar_panel("t", **{**{argument: s[name] for argument, name in names.items()}, **changes})


def projected(**changes: Any) -> PlanarPanel:
    given = {"rows": panel("").rows, "points": np.ones((3, 2)), "class_a": np.array([0, 1, 2]), "lam": np.full(3, 0.5)}
    return projected_panel("t", **{**given, "class_b": given["class_a"], **changes})


def reliable(name: str = "before", **changes: Any) -> Figure:
    edges, values = np.array([0, 0.5, 1]), np.array([0.4, 0.8])
    good = ufm.ReliabilityCurve(edges, values, values, np.array([20, 30]))
    panel = {"before": good, name: dataclasses.replace(good, **changes)}
    return reliability_figure([ReliabilityPanel("t", **panel)])


def network_curve(**changes: Any) -> ufm.ChannelCurve:
    return dataclasses.replace(curve("network"), **changes)


ZEROS, NANS = np.zeros(200, int), np.full(200, np.nan)
BAD = {
    "pairs NaN": (lambda: pair_figure(pair(logits=np.full((200, 4), np.nan))), "logits: got NaN or infinite entries"),
    "pairs infinite": (lambda: pair_figure(pair(logits=np.full((200, 4), np.inf))), "logits: got NaN or infinite"),
    "pairs 1-D": (lambda: pair_figure(pair(logits=np.zeros(200))), "logits: got shape .200,., expected 2 dimensions"),
    "pairs K = 1": (lambda: pair_figure(pair(logits=np.zeros((200, 1)))), "logits: got shape .200, 1., expected"),
    "pairs empty": (lambda: pair_figure(PairPanel("t", torch.zeros(0, 3), *[[]] * 3)), "logits: got shape .0, 3."),
    "pairs class": (lambda: pair_figure(pair(class_a=ZEROS + 4)), "class_a: got .* from 4 to 4, expected .* 0..3"),
    "pairs fraction": (lambda: pair_figure(pair(class_b=ZEROS + 0.5)), "class_b: got torch.float64, expected whole"),
    "pairs words": (lambda: pair_figure(pair(class_b=["cat"] * 200)), "class_b: got list, expected an array of whole"),
    "pairs lam": (lambda: pair_figure(pair(lam=ZEROS + 1.5)), "lam: got values outside the interval"),
    "pairs lam NaN": (lambda: pair_figure(pair(lam=NANS)), "lam: got NaN"),
    "pairs short": (lambda: pair_figure(pair(class_a=ZEROS[:3])), "class_a: got shape .3,., expected .200,."),
    "pairs lam short": (lambda: pair_figure(pair(lam=NANS[:3] * 0)), "lam: got"),
    "pairs many": (lambda: pair_figure(pair(logits=np.zeros((200, 13)))), "lower: got 13 classes, expected at most 12"),
    "pairs upper": (
        lambda: pair_figure(pair(), pair(logits=np.zeros((200, 5)))),
        "upper: got 5 classes, expected 4",
    ),
    "pairs names": (lambda: pair_figure(pair(), class_names=["a", "b"]), "class_names: got 2, expected 4"),
    "planar short a": (lambda: planar(class_a=ZEROS[:3]), "class_a: got shape .3,., expected .200,."),
    "planar short b": (lambda: planar(class_b=ZEROS[:3]), "class_b: got shape .3,., expected .200,."),
    "planar short lam": (lambda: planar(lam=np.zeros(3)), "lam: got shape .3,., expected .200,."),
    "planar lam": (lambda: planar(lam=ZEROS - 0.1), "lam: got values outside the interval"),
    "planar lam NaN": (lambda: planar(lam=NANS), "lam: got NaN"),
    "planar NaN": (lambda: planar(features=np.full((200, 6), np.nan)), "features: got NaN or infinite entries"),
    "planar W NaN": (lambda: planar(classifier=np.full((4, 6), np.nan)), "classifier: got NaN or infinite entries"),
    "planar d": (lambda: planar(features=np.zeros((200, 5))), r"features: got shape \(200, 5\), expected \(N, 6\)"),
    "planar line": (lambda: planar(classifier=np.ones((4, 6))), "classifier: got rows without a plane, expected"),
    "planar origin": (lambda: projected(points=np.zeros((3, 2)), scale=True), "points: got all same-class samples at"),
    "projected class": (lambda: projected(class_b=np.array([0, 1, 3])), "class_b: got .*3, expected"),
    "projected gap": (lambda: projected(classes=(0, 1, 5)), r"class_a: got 2, expected one of \(0, 1, 5\)"),
    "projected row": (
        lambda: projected(rows=np.eye(3)[:, :2]),
        "rows: got .*, expected three points other than the or",
    ),
    "projected rows": (lambda: projected(rows=np.eye(2)), "rows: got .*, expected three points"),
    "projected points": (lambda: projected(points=np.zeros((3, 3))), r"points: got shape \(3, 3\), expected \(n, 2\)"),
    "panel lam": (lambda: dataclasses.replace(panel("t"), lam=np.zeros(3)), "lam: got shape .3,., expected .30,."),
    "panel range": (lambda: dataclasses.replace(panel("t"), lam=np.full(30, 2.0)), "lam: got 2 to 2, expected 0 to 1"),
    "figure none": (lambda: planar_figure([]), "panels: got none with samples, expected at least one"),
    "figure names": (lambda: planar_figure([panel("t")], ("a", "b")), "class_names: got 2, expected 3"),
    "figure maths": (
        lambda: planar_figure([panel("t")], ("a$", "b", "c")),
        "class_names: got .*, expected what matplo",
    ),
    "figure columns": (lambda: planar_figure([panel("t")], columns=0), "columns: got 0, expected a whole number >= 1"),
    "figure titles": (
        lambda: planar_figure([panel("t")], column_titles=["a", "b"]),
        "column_titles: got 2, expected at most 1",
    ),
    "figure rows": (
        lambda: planar_figure([panel("t")], row_titles=["a", "b"]),
        "row_titles: got 2, expected at most 1",
    ),
    "line length": (lambda: line(depth=np.zeros(3)), "depth: got shape .3,., expected .5,."),
    "line lam": (lambda: line(lam=np.linspace(0, 2, 5)), "lam: got 0 to 2, expected 0 to 1"),
    "line confidence": (lambda: line(confidence=np.full(5, 1.1)), "confidence: got 1.1 to 1.1, expected 0 to 1"),
    "line NaN": (lambda: line(width=np.full(5, np.nan)), "width: got no finite entry"),
    "line colour": (lambda: line(colour="no such"), "colour: got 'no such', expected a colour"),
    "line dashes": (lambda: line(dashes="o"), "dashes: got 'o', expected one of '-'"),
    "channel none": (lambda: channel_figure(None, None, []), "network: got NoneType, expected a ChannelCurve"),
    "channel length": (
        lambda: channel_figure(network_curve(width_std=np.ones(3)), None, []),
        "network.width_std: got shape .3,., expected .10,.",
    ),
    "channel std": (
        lambda: channel_figure(network_curve(depth_std=np.full(10, -1.0)), None, []),
        "network.depth_std: got -1, expected standard deviations >= 0",
    ),
    "channel solver": (
        lambda: confidence_figure(curve("network"), network_curve(confidence=np.full(10, np.nan)), []),
        "solver.confidence: got no finite entry",
    ),
    "reliability none": (lambda: reliability_figure([]), "panels: got none"),
    "reliability empty": (lambda: reliable(count=np.zeros(2, int)), "before: got a curve without samples, expected"),
    "reliability after": (lambda: reliable("after", count=np.zeros(2, int)), "after: got a curve without samples"),
    "reliability no bin": (lambda: reliable(count=np.zeros(0, int)), "before: got a curve without samples"),
    "reliability short": (lambda: reliable(accuracy=np.ones(3)), r"before.accuracy: got shape \(3,\), expected \(2,\)"),
    "reliability NaN": (lambda: reliable(confidence=np.array([np.nan, 1])), "before.confidence: got NaN"),
    "reliability range": (lambda: reliable(accuracy=np.array([0.5, 99])), "before.accuracy: got 0.5 to 99, expected 0"),
    "convergence none": (lambda: convergence_figure({"empty": [{"epoch": 0}]}), "histories: got none of nc1"),
    "convergence epoch": (
        lambda: convergence_figure({"a": [{"nc1": 1.0}]}),
        "histories: epoch of 'a': got None, expected a finite number >= 0",
    ),
    "convergence others": (
        lambda: convergence_figure({}, {"b": [{"epoch": -1, "nc1": 1.0}]}),
        "others: epoch of 'b': got -1, expected a finite number >= 0",
    ),
    "convergence word": (
        lambda: convergence_figure({"a": [{"epoch": 0, "nc2": "low"}]}),
        "histories: got nc2 'low' of 'a', expected a number or None",
    ),
    "convergence kinds": (
        lambda: convergence_figure({"a": [{"epoch": 0, "nc2": 1.0}]}, kinds=("one",)),
        "kinds: got 1, expected 2",
    ),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case: str):
    draw, message = BAD[case]
    with pytest.raises(ValueError, match=f"^{message}"):
        draw()


@pytest.mark.filterwarnings("error")
def test_samples_that_are_all_alike_are_drawn_all_the_same():
    FigureCanvasAgg(pair_figure(pair(logits=torch.ones(200, 4)))).draw()
    FigureCanvasAgg(planar_figure([projected(points=np.zeros((3, 2)))])).draw()
