import itertools
import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.testing.compare import compare_images
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from PIL import Image

import ufm
from figures import NAMES, drawing, networks
from figures.__main__ import main
from figures.drawing import Drawing, draw, draw_all, gallery, save
from ufm.plotting import DOUBLE_COLUMN, SINGLE_COLUMN, style

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "experiments" / "results"
OUTPUT = ROOT / "figures" / "output"
# One worker, so that each figure is computed once.
pytestmark = pytest.mark.xdist_group("figures")

PLANAR = ({"different classes: λ, weight of the pair's first class in (0, 1), (1, 2), (2, 0)"}, {"same class"})
DATA = {"digits", "MNIST", "Fashion-MNIST", "CIFAR-10"}
# What each figure's axes are called, units included, and what its legends name.
WORDS: dict[str, tuple[set[str], set[str]]] = {
    "agreement": PLANAR,
    "activations": PLANAR,
    "mixing": PLANAR,
    "fixed_etf": PLANAR,
    "layers": PLANAR,
    "theory_features": PLANAR,
    "path": PLANAR,
    "pairs": (
        {"λ, weight of the smaller class i of the cell's pair (i to the right, j upwards); grey: other pairs"},
        set(),
    ),
    "boundary": (
        {"amplification at λ = 1/2", "density (per logit)", "width  $z_a - z_b$  (logits)"},
        {"network, mixup", "network, not mixed", "closed form", "line"},
    ),
    "convergence": ({"epoch"}, DATA | {"mixup", "not mixed"}),
    "reliability": ({"accuracy", "confidence"}, {"calibrated", "as trained", "after temperature scaling"}),
    "layer_fit": ({"R²", "depth, features = 100 %"}, {"digits, CNN", "Fashion-MNIST, CNN, not mixed"}),
    "channel": (
        {"width  $z_a - z_b$  (logits)", "depth  $(z_a + z_b)/2 - z_0$  (logits)", "λ, weight of class a"},
        {"closed form, β = 10", "asymptote, β → ∞"},
    ),
    "limit_shape": ({r"$\beta$", r"logit / $\log\,\beta$", "length, mixed over same class"}, {"K = 3", "limit"}),
    "optimal_value": ({"F*  (nats)", r"$\lambda_W \lambda_H$"}, {"lines: mean entropy", "not mixed: solver"}),
    "collapse": ({r"$\alpha$ of mixup", r"$\lambda_W\lambda_H$"}, {"solver: collapsed to zero"}),
    "minority": ({"cosine between rare rows"}, {"no mixup", "vertical: predicted collapse"}),
    "methods": ({"seconds, one thread", "certified gap / objective"}, {"Newton", "L-BFGS"}),
    "calibration": ({"accuracy on test images", "confidence  max$_k$ $p_k$"}, DATA | {"label", "closed form"}),
    "closeness": ({"training loss, last epoch (nats)", "width at λ = 0.9, over predicted"}, DATA | {"CNN", "ViT"}),
    "regime": (
        {"excess loss E KL(y‖p) (nats)", "R² of the logits", "squared distance of the features"},
        DATA | {"closed form, nothing fitted", "straight line", "true", "bound by the inner gap"},
    ),
    "beta": ({"β fit-free, from the classifier alone", "β fitted to the logits"}, DATA | {"equal", "ten times"}),
}
PLANES = [name for name, words in WORDS.items() if words is PLANAR]
# Drawn from theory or from committed results by arithmetic that does not depend on the machine beyond rounding.
SAME_EVERYWHERE = [name for name in NAMES if name not in ("agreement", "optimal_value", "path")]


@cache
def drawn(name: str) -> Drawing:
    return draw(name, RESULTS)


def drawn_texts(figure: Figure, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Text, Bbox]]:
    """The texts that a reader sees, with their boxes: those that drawing asks for, without ticks out of range."""
    texts: list[Text] = []
    original = Text.draw

    def draw(self: Text, renderer, *arguments, **keywords):
        if self.get_visible() and self.get_text().strip():
            texts.append(self)
        return original(self, renderer, *arguments, **keywords)

    canvas = FigureCanvasAgg(figure)
    with style(), monkeypatch.context() as patch:
        patch.setattr(Text, "draw", draw)
        canvas.draw()
    return [(text, text.get_window_extent(canvas.get_renderer())) for text in dict.fromkeys(texts)]


def test_every_figure_has_its_words_listed():
    assert set(WORDS) == set(NAMES)
    assert {path.stem for path in (ROOT / "figures").glob("*.py")} - {
        "__init__", "__main__", "drawing", "networks", "sweeps"
    } == set(NAMES)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_figure_names_its_axes_and_says_what_it_shows(name: str):
    drawing = drawn(name)
    axes = drawing.figure.get_axes()
    labels = {label for axis in axes for label in (axis.get_xlabel(), axis.get_ylabel())}
    legends = {text.get_text() for legend in drawing.figure.findobj(Legend) for text in legend.get_texts()}
    expected_labels, expected_legends = WORDS[name]
    assert expected_labels <= labels
    assert expected_legends <= legends
    assert any(axis.has_data() for axis in axes)
    words = " ".join(drawing.caption.split())
    assert re.search(r"Computed; no data|Data: |runs? \w|committed runs", words), "data"
    assert re.search(r"[Ee]val mode|Computed|Data: (sweep|\d+ direct solves)", words), "mode"
    assert re.search(r"seed", words), "seed"
    if name in PLANES:
        assert "project" in words.lower()


@pytest.mark.parametrize("name", NAMES)
def test_figure_fits_its_column_and_no_text_is_clipped_small_or_under_another(
    name: str, monkeypatch: pytest.MonkeyPatch
):
    figure = drawn(name).figure
    assert figure.get_figwidth() in (SINGLE_COLUMN, DOUBLE_COLUMN)
    boxes = drawn_texts(figure, monkeypatch)
    page = figure.bbox.padded(1.5)
    for text, box in boxes:
        assert text.get_fontsize() >= 6, text
        assert page.contains(box.x0, box.y0) and page.contains(box.x1, box.y1), (text, box, page)
    for (one, first), (other, second) in itertools.combinations(boxes, 2):
        assert not first.padded(-1).overlaps(second.padded(-1)), (one, other)


@pytest.mark.parametrize("name", [*PLANES, "pairs"])
def test_lambda_can_be_read_from_the_colour(name: str):
    figure = drawn(name).figure
    coloured = [c for c in figure.findobj(PathCollection) if c.get_array() is not None]  # pyright: ignore
    assert coloured
    for points in coloured:
        assert isinstance(points, PathCollection)
        assert points.get_clim() == (0, 1)
        assert points.get_cmap().name == "viridis"
        values = np.asarray(points.get_array())
        assert values.min() >= 0 and values.max() <= 1
    (bar,) = [axis for axis in figure.get_axes() if axis.get_label() == "<colorbar>" or "λ" in axis.get_xlabel()]
    assert [tick.get_text() for tick in bar.get_xticklabels()][:1] == ["0.0"]


@pytest.mark.parametrize("name", SAME_EVERYWHERE)
def test_figure_is_the_committed_picture(name: str, tmp_path: Path):
    # Drawn anew: the layout of a figure that has been drawn before differs by fractions of a pixel.
    save(draw(name, RESULTS), name, tmp_path)
    assert compare_images(str(OUTPUT / f"{name}.png"), str(tmp_path / f"{name}.png"), tol=1.0) is None


def test_a_changed_figure_is_not_the_committed_picture(tmp_path: Path):
    drawing = draw("beta", RESULTS)
    line = drawing.figure.axes[0].lines[0]
    line.set_xdata(np.asarray(line.get_xdata()) * 1.05)
    save(drawing, "beta", tmp_path)
    assert compare_images(str(OUTPUT / "beta.png"), str(tmp_path / "beta.png"), tol=1.0) is not None


@pytest.mark.parametrize("name", ["fixed_etf", "channel", "reliability"])
def test_files_are_the_same_byte_for_byte_and_carry_their_caption(name: str, tmp_path: Path):
    first = save(draw(name, RESULTS), name, tmp_path / "first")
    second = save(draw(name, RESULTS), name, tmp_path / "second")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    with Image.open(tmp_path / "first" / f"{name}.png") as image:
        caption = image.text["Description"]  # pyright: ignore
    assert caption.endswith(f"Command: python -m figures --only {name}")
    assert "  " not in caption
    assert b"CreationDate" not in first[1].read_bytes()


@pytest.mark.slow
def test_every_file_is_the_same_byte_for_byte(tmp_path: Path):
    for folder in ("first", "second"):
        draw_all(NAMES, RESULTS, tmp_path / folder)
    files = sorted(path.name for path in (tmp_path / "first").iterdir())
    assert len(files) == 2 * len(NAMES) + 2
    for file in files:
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes(), file


@pytest.mark.parametrize("name", NAMES)
def test_committed_picture_carries_the_caption_of_today(name: str):
    with Image.open(OUTPUT / f"{name}.png") as image:
        words = image.text  # pyright: ignore
    said = " ".join(f"{drawn(name).caption} Command: python -m figures --only {name}".split())
    if name in ("agreement", "path"):
        # A gap of 1e-11 is rounding, which is not the same on every machine.
        said, words["Description"] = (re.sub(r"gap \S+", "gap", text) for text in (said, words["Description"]))
    assert (words["Title"], words["Description"]) == (drawn(name).title, said)


@pytest.mark.parametrize("name", ["activations", "mixing", "fixed_etf"])
def test_captions_count_the_samples_that_are_drawn(name: str):
    figure = drawn(name).figure
    counts = [
        sum(len(np.asarray(points.get_offsets())) for points in axis.collections)  # pyright: ignore
        for axis in figure.axes
        if len(axis.collections) == 2 and axis.get_label() != "<colorbar>"
    ]
    assert f"the {networks.span(counts)} of the first 3,000 recorded samples" in " ".join(drawn(name).caption.split())


@pytest.mark.parametrize("name", ["boundary", "channel", "layer_fit"])
def test_captions_say_which_half_was_scored(name: str):
    said = " ".join(drawn(name).caption.split())
    counts = {some.comparison.samples for some in networks.all_networks(RESULTS) if some.name in said}
    shown = re.search(r"Data: ([\d,]+)(?: to ([\d,]+))? samples a run, the scored half", said)
    assert shown is not None
    assert {int(number.replace(",", "")) for number in shown.groups() if number} <= counts


def test_pages_and_pictures_that_are_not_ours_are_left_alone(tmp_path: Path):
    (tmp_path / "README.md").write_text("mine\n")
    Image.new("RGB", (4, 4)).save(tmp_path / "pairs.png")
    draw_all(["minority"], RESULTS, tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine\n"
    (tmp_path / "README.md").unlink()
    for _ in range(2):
        draw_all(["minority"], RESULTS, tmp_path)
    assert "pairs.png" not in (tmp_path / "README.md").read_text()
    assert "minority.png" in (tmp_path / "README.md").read_text()


def test_committed_gallery_shows_every_figure():
    page = (OUTPUT / "README.md").read_text(encoding="utf-8")
    assert page == gallery(OUTPUT)
    for name in NAMES:
        assert f"({name}.png)" in page
        assert f"python -m figures --only {name}`" in page
    assert {path.stem for path in OUTPUT.iterdir()} == {*NAMES, "README"}
    assert all(path.stat().st_size < 2e6 for path in OUTPUT.iterdir())


def test_solver_in_the_picture_lies_where_the_closed_form_does():
    closed, solved = drawn("agreement").figure.axes[:2]
    same = [np.asarray(axis.collections[0].get_offsets()) for axis in (closed, solved)]
    np.testing.assert_allclose(np.unique(same[0].round(9), axis=0), np.unique(same[1].round(9), axis=0), atol=1e-6)
    # The three channels are alike, so that all distances from the centre lie on one curve over lambda.
    curves = []
    for axis in (closed, solved):
        order = np.argsort(axis.collections[1].get_array())
        points = np.asarray(axis.collections[1].get_offsets())[order]
        curves.append((np.asarray(axis.collections[1].get_array())[order], np.linalg.norm(points, axis=1)))
    (lam, distance), (solver_lam, solver_distance) = curves
    inside = (solver_lam > lam.min()) & (solver_lam < lam.max())
    assert inside.sum() > 20
    np.testing.assert_allclose(solver_distance[inside], np.interp(solver_lam[inside], lam, distance), atol=0.01)


def test_densities_at_the_boundary_sum_to_one():
    axis = drawn("boundary").figure.axes[0]
    mixed, _ = axis.patches
    heights, edges, _ = mixed.get_data()  # pyright: ignore
    assert heights @ np.diff(edges) == pytest.approx(1, abs=0.01)
    closed = axis.lines[0]
    x, y = (np.asarray(values) for values in closed.get_data())
    assert np.trapezoid(y, x) == pytest.approx(1, abs=0.01)


def test_optimal_value_differs_from_the_entropy_by_less_than_is_proved_and_rounding():
    below = drawn("optimal_value").figure.axes[1]
    for markers, gap in zip(below.lines[::2], below.lines[1::2], strict=True):
        assert np.all(np.asarray(markers.get_ydata()) <= np.asarray(gap.get_ydata()) + 1e-13)


def test_last_frame_of_the_path_is_the_global_optimum():
    last = drawn("path").figure.axes[3]
    optimum = ufm.joint_optimum(ufm.Mixup(3), 1e-2, 1e-2, nodes=24)
    label = np.eye(3)[:1]
    length = np.linalg.norm(optimum.response(label).features)
    same = np.asarray(last.collections[0].get_offsets())
    np.testing.assert_allclose(np.linalg.norm(same, axis=1), length, rtol=1e-3)


def test_path_is_animated(tmp_path: Path):
    *_, gif = save(drawn("path"), "path", tmp_path)
    assert gif.stat().st_size < 6e5
    with Image.open(gif) as image:
        assert image.n_frames > 30  # pyright: ignore


def test_results_that_are_not_there_are_named(tmp_path: Path):
    with pytest.raises(ValueError, match="results: got"):
        draw_all(["beta"], tmp_path / "none", tmp_path)
    for name in ("beta", "collapse", "minority", "agreement"):
        with pytest.raises(ValueError, match="got .*expected"):
            draw(name, tmp_path)
    (tmp_path / "networks").mkdir()
    (tmp_path / "minority").mkdir()
    (tmp_path / "minority" / "minority.json").write_text("{")
    for name in ("beta", "minority"):
        with pytest.raises(ValueError, match="results: got .*expected"):
            draw(name, tmp_path)
    with pytest.raises(ValueError, match="name: got 'nothing', expected one of"):
        draw("nothing", RESULTS)


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    def run(*words: str) -> int:
        monkeypatch.setattr("sys.argv", ["figures", *words])
        return main()

    assert run("--names") == 0
    assert capsys.readouterr().out.split() == list(NAMES)
    # From any folder: the results are the checkout's.
    monkeypatch.chdir(tmp_path)
    assert run("--only", "minority", "--out", "pictures") == 0
    assert sorted(path.name for path in Path("pictures").iterdir()) == ["README.md", "minority.pdf", "minority.png"]
    capsys.readouterr()
    assert run("--out", "pictures", "--only") == 2
    assert "only: got no name" in capsys.readouterr().err
    assert run("--only", "nothing", "--out", "pictures") == 2
    assert capsys.readouterr().err.startswith("figures: error: only: got 'nothing'")
    assert run("--only", "minority", "--results", "nowhere") == 2
    assert "results: got 'nowhere'" in capsys.readouterr().err


def test_networks_are_told_apart():
    kinds = {some.name: some.kind for some in networks.all_networks(RESULTS)}
    assert {kinds[f"digits-{kind}"] for kind in ("mixup", "none", "mse", "etf")} == {"mixup", "none", "mse", "etf"}
    assert drawing.RESULTS == "experiments/results"
