import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.transforms import Bbox

import ufm
from figures import reliability
from ufm.plotting import (
    LAMBDA_MAP,
    PALETTE,
    Line,
    PairPanel,
    PlanarPanel,
    ReliabilityPanel,
    channel_figure,
    confidence_figure,
    convergence_figure,
    pair_figure,
    planar_figure,
    planar_panel,
    reliability_figure,
)
from ufm.reports import read_run

NETWORKS = Path(__file__).parents[2] / "experiments" / "results" / "networks"


def panel(title: str) -> PlanarPanel:
    rng = np.random.default_rng(0)
    rows = np.array([[0.7, -0.4], [-0.7, -0.4], [0, 0.8]])
    return PlanarPanel(title, rows, rng.normal(size=(30, 2)), rng.random(30), rng.normal(size=(9, 2)))


def samples(K: int = 4, N: int = 200) -> dict[str, torch.Tensor]:
    """Features at the closed form for a simplex ETF, with same-class samples among them."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randint(K, (N,), generator=generator) for _ in range(2))
    lam = torch.rand(N, generator=generator, dtype=torch.float64)
    labels = lam[:, None] * torch.eye(K)[a] + (1 - lam[:, None]) * torch.eye(K)[b]
    W = ufm.simplex_etf(K, dim=K + 2, multiplier=1.5)
    response = ufm.fixed_classifier(W, labels, 1e-2)
    return {"W": W, "h": response.features, "z": response.logits, "a": a, "b": b, "lam": lam}


def curve(which: str) -> ufm.ChannelCurve:
    return read_run(NETWORKS / "digits-mixup").comparison.curves[which]


def test_planar_figure_has_one_lambda_scale_for_all_panels():
    figure = planar_figure([panel("first"), panel("second")], ("cat", "dog", "bird"))
    *panels, bar = figure.axes
    assert [axis.get_title() for axis in panels] == ["first", "second"]
    for axis in panels:
        mixed = axis.collections[-1]
        assert mixed.get_clim() == (0, 1)
        np.testing.assert_array_equal(mixed.get_array(), panel("").lam)
        assert {text.get_text() for text in axis.texts} == {"$w_{cat}$", "$w_{dog}$", "$w_{bird}$"}
    assert "λ" in bar.get_xlabel()
    assert bar.get_xlabel().endswith("in (cat, dog), (dog, bird), (bird, cat)")
    assert panels[0].get_xlim() == panels[1].get_xlim()


def test_planar_grid_leaves_places_empty_and_lets_panels_fill_theirs():
    small = PlanarPanel(
        "small", *(0.1 * x for x in (panel("").rows, panel("").mixed)), panel("").lam, panel("").same / 10
    )
    titles = {"column_titles": ["left", "right"], "row_titles": ["above", "below"]}
    figure = planar_figure([panel("first"), small, None, panel("last")], columns=2, own_limits=True, **titles)
    *axes, _ = figure.axes
    assert [axis.get_title() for axis in axes] == ["left\nfirst", "right\nsmall", "", "last"]
    assert not axes[2].has_data()
    assert axes[0].get_xlim()[1] == pytest.approx(10 * axes[1].get_xlim()[1])
    assert {"above", "below"} <= {text.get_text() for axis in axes for text in axis.texts}
    with pytest.raises(ValueError, match="panels: got none"):
        planar_figure([None])


def test_planar_panel_projects_isometrically_in_units_of_the_same_class_features():
    s = samples()
    classes = (3, 0, 2)
    some = planar_panel("t", s["W"], s["h"], s["a"], s["b"], s["lam"], classes, scale=True)
    chosen = np.isin(s["a"], classes) & np.isin(s["b"], classes)
    same = chosen & np.asarray(s["a"] == s["b"])
    assert len(some.same) == same.sum()
    assert len(some.mixed) == chosen.sum() - same.sum()
    np.testing.assert_allclose(np.linalg.norm(some.same, axis=1), 1, rtol=1e-9)
    # For K = 4 the features of three classes lie off the plane by one common vector; differences do not.
    plain = planar_panel("t", s["W"], s["h"], s["a"], s["b"], s["lam"], classes)
    apart = np.linalg.norm(plain.same[0] - plain.same, axis=1).max()
    h = np.asarray(s["h"])[same]
    assert apart == pytest.approx(np.linalg.norm(h[0] - h, axis=1).max())
    first = (chosen & ~np.asarray(s["a"] == s["b"])).nonzero()[0][0]
    a, b, lam = int(s["a"][first]), int(s["b"][first]), float(s["lam"][first])
    in_order = (classes.index(b) - classes.index(a)) % 3 == 1
    assert plain.lam[0] == pytest.approx(lam if in_order else 1 - lam)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("classes", [(0, 1, 1), (0, 1, 4), (-1, 0, 1), (0, 1, 2, 0), (0, 1, 0.5)])
def test_planar_panel_refuses_classes_that_do_not_fit(classes: tuple[int, int, int]):
    s = samples()
    with pytest.raises(ValueError, match=r"classes: got .*, expected three different ones in 0..3"):
        planar_panel("t", s["W"], s["h"], s["a"], s["b"], s["lam"], classes)


def test_planar_panel_without_same_class_samples_has_no_unit():
    s = samples()
    mixed = s["a"] != s["b"]
    columns = [s[name][mixed] for name in ("h", "a", "b", "lam")]
    with pytest.raises(ValueError, match="class_a, class_b: got no same-class sample"):
        planar_panel("t", s["W"], *columns, scale=True)


def test_planar_panel_takes_tensors_with_a_gradient():
    s = samples()
    plain = planar_panel("t", s["W"], s["h"], s["a"], s["b"], s["lam"])
    W, h, lam = (s[name].clone().requires_grad_() for name in ("W", "h", "lam"))
    np.testing.assert_array_equal(planar_panel("t", W, h, s["a"], s["b"], lam).mixed, plain.mixed)


def test_planar_figure_says_where_no_samples_are():
    s = samples()
    columns = [s[name][:0] for name in ("h", "a", "b", "lam")]
    empty = planar_panel("nothing", s["W"], *columns)
    for own_limits in (False, True):
        _, place, _ = planar_figure([panel("first"), empty], own_limits=own_limits).axes
        assert place.get_title() == "nothing"
        assert [text.get_text() for text in place.texts] == ["no samples"]
    with pytest.raises(ValueError, match="panels: got none with samples, expected at least one"):
        planar_figure([empty])


def test_pair_figure_shows_every_pair_twice_and_mirrors_it():
    s = samples()
    some = PairPanel("network", s["z"], s["a"], s["b"], s["lam"])
    figure = pair_figure(some, some, ["cat", "dog", "bird", "fish"])
    axis = figure.axes[0]
    words = " ".join(text.get_text() for text in axis.texts) + axis.get_title()
    for word in ("cat", "dog", "bird", "fish", "network", "logits"):
        assert word in words
    z = np.asarray(s["z"] - s["z"].mean(1, keepdim=True))
    low, high = z.min() - 0.05 * np.ptp(z), z.max() + 0.05 * np.ptp(z)
    grey, coloured = (np.asarray(axis.collections[i].get_offsets()) for i in (0, 1))
    weights = np.asarray(axis.collections[1].get_array())
    assert len(grey) + len(coloured) == 12 * len(z)
    for i in range(4):
        for j in range(i + 1, 4):
            own = np.asarray(((s["a"] == i) & (s["b"] == j)) | ((s["a"] == j) & (s["b"] == i)))
            weight = np.asarray(torch.where(s["a"] < s["b"], s["lam"], 1 - s["lam"]))[own]
            for row, column in ((j, i), (i, j)):
                corner = np.array([1.06 * column, -1.06 * row])
                inside = ((coloured > corner) & (coloured < corner + 1)).all(1)
                logits = low + (high - low) * (coloured[inside] - corner)
                np.testing.assert_allclose(logits, z[own][:, [i, j]], atol=1e-12)
                np.testing.assert_allclose(weights[inside], weight)
    alone = pair_figure(some)
    assert len(alone.axes[0].collections[0].get_offsets()) + len(alone.axes[0].collections[1].get_offsets()) == 6 * len(
        z
    )


def test_channel_and_confidence_figures_name_their_axes_and_every_series():
    network, solver = curve("network"), curve("solver, nearest ETF")
    for figure in (channel_figure(network, solver, []), channel_figure(network, None, [])):
        assert [axis.get_ylabel().split()[0] for axis in figure.axes] == ["width", "depth"]
        assert all("λ" in axis.get_xlabel() for axis in figure.axes)
    axis = confidence_figure(network, solver, []).axes[0]
    assert "confidence" in axis.get_ylabel()
    assert [text.get_text() for text in axis.get_legend().get_texts()] == [  # pyright: ignore
        "label, max(λ, 1 - λ)",
        "direct solver, bin means",
        "network, bin means",
    ]
    np.testing.assert_array_equal(axis.lines[-1].get_ydata(), network.confidence)
    assert len(confidence_figure(network, None, []).axes[0].lines) == 2


def line(**changes: Any) -> Line:
    lam = np.linspace(0, 1, 5)
    values = {"width": 4 * lam - 2, "depth": lam * (1 - lam), "confidence": np.maximum(lam, 1 - lam)}
    return Line(**{"label": "closed form", "lam": lam, **values, "colour": PALETTE[0], "dashes": "--", **changes})


def test_channel_and_confidence_figures_draw_the_values_they_are_given():
    network, solver = curve("network"), curve("solver, nearest ETF")
    some, other = line(), line(label="straight line", colour=PALETTE[2], dashes=":", depth=np.full(5, 0.3))
    figure = channel_figure(network, solver, [some, other])
    for axis, name in zip(figure.axes, ("width", "depth"), strict=True):
        for drawn, given in zip(axis.lines, (some, other, solver, network), strict=True):
            np.testing.assert_array_equal(drawn.get_data(), [given.lam, getattr(given, name)])
        (band,) = axis.collections
        corners = band.get_paths()[0].vertices
        for lam, spread in zip(network.lam, getattr(network, f"{name}_std"), strict=True):
            assert np.ptp(corners[corners[:, 0] == lam, 1]) == pytest.approx(2 * spread)
    first, second = figure.axes[0].lines[:2]
    assert (first.get_color(), first.get_linestyle(), second.get_linestyle()) == (PALETTE[0], "--", ":")
    assert [text.get_text() for text in figure.legends[0].get_texts()][:2] == ["closed form", "straight line"]
    label, *lines = confidence_figure(network, solver, [some, other]).axes[0].lines
    np.testing.assert_allclose(label.get_ydata(), np.maximum(label.get_xdata(), 1 - np.asarray(label.get_xdata())))
    for drawn, given in zip(lines, (some, other, solver, network), strict=True):
        np.testing.assert_array_equal(drawn.get_data(), [given.lam, given.confidence])


def test_a_line_needs_confidence_for_the_confidence_figure_alone():
    network, without = curve("network"), line(confidence=None)
    assert len(channel_figure(network, None, [without]).axes[0].lines) == 2
    with pytest.raises(ValueError, match="lines: got 'closed form' without confidence, expected"):
        confidence_figure(network, None, [line(), without])
    gaps = line(width=np.array([-np.inf, -1, 0, 1, np.inf]))
    assert len(channel_figure(network, None, [gaps]).axes[0].lines) == 2


def test_lightness_rises_along_the_scale_of_lambda():
    rgb = colormaps[LAMBDA_MAP](np.linspace(0, 1, 256))[:, :3]
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    # CIE L*, and the grey of a plain conversion.
    assert (np.diff(np.cbrt(linear @ [0.2126, 0.7152, 0.0722])) > 0).all()
    assert (np.diff(rgb @ [0.299, 0.587, 0.114]) > 0).all()


def test_coloured_points_have_an_edge_where_grey_would_not_tell_them_from_others():
    s = samples()
    others, own = pair_figure(PairPanel("t", s["z"], s["a"], s["b"], s["lam"])).axes[0].collections[:2]
    mixed = planar_figure([panel("t")]).axes[0].collections[-1]
    assert np.asarray(others.get_facecolor())[0, 0] > 0.85
    for points in (own, mixed):
        assert np.asarray(points.get_linewidth())[0] > 0
        assert np.asarray(points.get_edgecolor())[0, :3].max() < 0.4


def test_reliability_figure_tells_small_bins_from_large_ones():
    edges = np.linspace(0, 1, 6)
    values = np.array([np.nan, 0.3, 0.5, 0.7, 0.9])
    report = ufm.ReliabilityCurve(edges, values, values + 0.05, np.array([0, 4, 20, 30, 46]))
    figure = reliability_figure([ReliabilityPanel("one", report, report, "ECE 0.05"), ReliabilityPanel("two", report)])
    first, second = figure.axes
    assert [axis.get_title() for axis in figure.axes] == ["one", "two"]
    assert first.get_xlabel() == "confidence"
    assert first.get_ylabel() == "accuracy"
    assert len(second.collections) == 2
    faint, strong = first.collections[:2]
    assert (faint.get_alpha(), strong.get_alpha()) == (0.25, 1)
    np.testing.assert_allclose(faint.get_offsets(), [[0.3, 0.35]])
    np.testing.assert_allclose(first.lines[1].get_xdata(), [0.5, 0.7, 0.9])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "calibrated",
        "as trained",
        "after temperature scaling",
    ]
    swapped = reliability_figure([ReliabilityPanel("two", report), ReliabilityPanel("one", report, report)])
    assert len(swapped.legends[0].get_texts()) == 3


def test_notes_lie_on_no_curve_of_the_committed_networks():
    figure = reliability.draw(NETWORKS.parent).figure
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    assert len(figure.axes) == 8
    for axis in figure.axes:
        (note,) = axis.texts
        words = note.get_text().splitlines()
        assert len(words) == 3
        curves = [np.asarray(drawn.get_xydata()) for drawn in axis.lines[1:]]
        assert all(len(ends) for ends in curves)
        points = [np.asarray(bins.get_offsets()) for bins in axis.collections]
        points += [np.linspace(p, q, 200) for ends in curves for p, q in itertools.pairwise(ends)]
        drawn = axis.transData.transform(np.concatenate(points))
        for i in range(3):
            # Of the lines, which differ in length, one at a time.
            note.set_text("\n".join(words[i] if j == i else " " for j in range(3)))
            box = note.get_window_extent(canvas.get_renderer())
            above, height = 2 - i, box.height / 3
            one = Bbox.from_bounds(box.x0, box.y0 + above * height, box.width, height)
            assert one.count_contains(drawn) == 0


def test_convergence_figure_draws_every_history():
    rows = [{"epoch": i, "nc1": 1 / (i + 1), "nc2": None, "nc3": 0.5, "etf_error": 0.2} for i in range(5)]
    figure = convergence_figure({"first": rows, "second": rows[:2]}, {"first": rows}, kinds=("mixup", "not mixed"))
    assert all(axis.get_xlabel() == "epoch" for axis in figure.axes)
    assert len(figure.axes[0].lines) == 3
    np.testing.assert_allclose(figure.axes[0].lines[0].get_data(), [range(1, 6), [1 / i for i in range(1, 6)]])
    assert figure.axes[0].lines[2].get_linestyle() == "--"
    assert len(np.asarray(figure.axes[1].lines[0].get_xdata())) == 0
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["first", "second", "mixup", "not mixed"]
    assert [text.get_text() for text in figure.axes[1].texts] == ["not measured"]
    FigureCanvasAgg(figure).draw()
    # Of the others alone, too.
    figure = convergence_figure({"first": [{"epoch": 0}]}, {"first": rows})
    np.testing.assert_allclose(figure.axes[0].lines[1].get_ydata(), [1 / i for i in range(1, 6)])
    FigureCanvasAgg(figure).draw()
    figure = convergence_figure({"exact": [{"epoch": i, "nc1": 0.5, "etf_error": 0.0} for i in range(3)]})
    assert [text.get_text() for text in figure.axes[3].texts] == ["none above 0"]
    FigureCanvasAgg(figure).draw()
