import json
from pathlib import Path

import numpy as np
import pytest

from figures import draw_all, networks
from figures.runs import read_results
from ufm.plotting import PlanarPanel, confidence_figure, planar_figure

COMMITTED = Path(__file__).parents[1] / "experiments" / "results" / "demo"
NETWORKS = COMMITTED.parent / "networks"


def panel(title: str) -> PlanarPanel:
    rng = np.random.default_rng(0)
    rows = np.array([[0.7, -0.4], [-0.7, -0.4], [0, 0.8]])
    return PlanarPanel(title, rows, rng.normal(size=(30, 2)), rng.random(30), rng.normal(size=(9, 2)))


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


def test_confidence_figure_names_its_axes_and_every_series():
    from figures.runs import curve, predictions

    results = read_results(COMMITTED)
    network = curve(results, "eval", "network")
    figure = confidence_figure(network, network, predictions(results, "eval"))
    axis = figure.axes[0]
    assert "λ" in axis.get_xlabel()
    assert "confidence" in axis.get_ylabel()
    labels = [text.get_text() for text in axis.get_legend().get_texts()]  # pyright: ignore
    assert len(labels) == 5


def test_committed_run_is_drawn_reproducibly(tmp_path: Path):
    for folder in ("one", "two"):
        pictures = draw_all(COMMITTED, tmp_path / folder)
        assert set(pictures) == {"planar", "channel", "confidence"}
    for name in pictures:
        for suffix in (".pdf", ".png"):
            first, second = ((tmp_path / folder / (name + suffix)).read_bytes() for folder in ("one", "two"))
            assert first == second, name + suffix
            assert len(first) > 2000


def test_predictions_of_the_committed_run_are_the_library_s():
    import ufm
    from figures.runs import predictions

    results = read_results(COMMITTED)
    closed = predictions(results, "eval")[0]
    shape = ufm.channel(closed.lam, results["comparison"]["eval"]["beta"], 10)
    np.testing.assert_allclose(closed.width, shape.width, atol=1e-10)
    np.testing.assert_allclose(closed.depth, shape.depth, atol=1e-10)
    assert closed.confidence[249] == pytest.approx(0.5, abs=0.02)


def test_a_folder_without_results_is_named(tmp_path: Path):
    with pytest.raises(ValueError, match="run: .*results.json"):
        read_results(tmp_path)
    (tmp_path / "results.json").write_text(json.dumps({}))
    with pytest.raises(ValueError, match="run: .*planar.safetensors"):
        draw_all(tmp_path, tmp_path)


def test_networks_are_drawn_in_units_of_their_same_class_features():
    figure = networks.draw(NETWORKS, "fashion", (0, 1, 8))
    *panels, bar = figure.axes
    assert [axis.get_title() for axis in panels] == [
        "mixup",
        "not mixed",
        "mixup, squared error",
        "mixup, fixed ETF",
    ]
    assert bar.get_xlabel().endswith("in (0, 1), (1, 8), (8, 0)")
    for axis in panels:
        same, mixed = (np.asarray(collection.get_offsets()) for collection in axis.collections)
        assert np.linalg.norm(same, axis=1).mean() == pytest.approx(1, abs=1e-5)
        assert len(mixed) > len(same) > 20


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--data", "letters"], "file: got"),
        (["--classes", "0", "1", "1"], "classes: got"),
        (["--classes", "0", "1", "10"], "classes: got"),
        (["--results", "nowhere"], "file: got"),
    ],
)
def test_networks_figure_refuses_bad_input_in_one_line(arguments: list[str], named: str, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("sys.argv", ["networks", *arguments, "--out", str(tmp_path)])
    monkeypatch.chdir(COMMITTED.parents[2])
    assert networks.main() == 2
    error = capsys.readouterr().err
    assert named in error
    assert error.count("\n") == 1
