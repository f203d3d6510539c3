"""The regime suite: its commands, and the figures of a point against independent computations."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from experiments import regime
from experiments.data import DATA_SETS, digits
from experiments.mixing import KINDS, Mixing
from experiments.networks import build_network
from experiments.regime import POINTS, measure_point, read_points, record_point
from experiments.suite import read_suite
from experiments.training.run import trained_run
from tests.helpers.training import TINY_STEPS, trained

POINT = """
[templates.tiny]
train_samples = 60
network = { architecture = "mlp", width = 24, dim = 12 }
optimiser = { learning_rate = 0.2, weight_decay = 5e-4, schedule = "onecycle" }
epochs = 4
epoch_steps = 25
batch_size = 128
measure_every = 100

[runs.few]
template = "tiny"

[runs.line]
template = "tiny"
loss = "mean_squared_error"

[runs.three]
template = "tiny"
num_classes = 3
"""
# What a reader of points.jsonl may count on.
KEYS = set(
    """data images_per_class architecture width steps seed mixing alpha num_classes excess_loss r2_closed_form
r2_fit_free r2_line r2_binned width_ratio etf_error nc1 nc3 beta_fitted beta_fit_free certified_distance
feature_distance test_accuracy ece""".split()  # noqa: SIM905
)


def test_the_suite_is_readable_and_has_what_it_promises():
    points = read_suite(POINTS)
    assert {config.data for config in points.values()} <= set(DATA_SETS)
    assert {config.mixing.kind for config in points.values()} <= set(KINDS)
    assert all(config.epoch_steps and config.optimiser.schedule == "onecycle" for config in points.values())
    for name, config in points.items():
        network = build_network(config.network, (3, 32, 32), 10)
        assert network.head.bias is None, name
    for name, config in points.items():
        if name.endswith("-seed1"):
            assert config == replace(points[name.removesuffix("-seed1")], seed=1)
            assert points[name.replace("-seed1", "-seed2")] == replace(config, seed=2)
        if name.endswith("-none"):
            assert config == replace(points[name.removesuffix("-none")], mixing=Mixing("none"))


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., int]:
    (tmp_path / "regime.toml").write_text(POINT)
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> int:
        monkeypatch.setattr(sys, "argv", ["regime", *words, "--file", "regime.toml"])
        return regime.main()

    return run


def test_points_are_trained_recorded_and_measured(command: Callable[..., int], capsys: pytest.CaptureFixture[str]):
    out = "out/points.jsonl"
    assert command("train", "--only", "few", "three", "--samples", "1500", "--device", "cpu") == 0
    assert "few: loss" in capsys.readouterr().out
    stamps = {path: path.stat().st_mtime_ns for path in Path("runs/regime/few").iterdir()}
    assert command("train", "--only", "few", "--samples", "1500", "--device", "cpu") == 0
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items() if path.name.endswith(".safetensors"))
    assert command("measure", "--out", out) == 0
    said = capsys.readouterr().out
    assert "line: not trained" in said
    assert "few: excess_loss" in said
    points = read_points(out)
    assert list(points) == ["few", "three"]
    few, three = points["few"], points["three"]
    assert set(few) >= KEYS
    assert few.keys() == three.keys()
    described = ("data", "images_per_class", "architecture", "width", "steps", "seed", "mixing", "alpha", "num_classes")
    assert [few[key] for key in described] == ["digits", 6, "mlp", 24, 100, 0, "mixup", 1, 10]
    assert (three["num_classes"], three["images_per_class"]) == (3, 20)
    assert few["parameters"] == 64 * 24 + 2 * 24 * 24 + 24 * 12 + 12 * 10 + 2 * (3 * 24 + 12)
    assert list(few["interpolation_r2"]) == ["stages.layer1", "stages.layer2", "stages.layer3", "features"]
    assert few["seconds"] > 0
    # With nothing at hand but the lines, they stay.
    before = Path(out).read_text()
    Path("runs").rename("elsewhere")
    assert command("measure", "--out", out) == 0
    assert Path(out).read_text() == before
    assert command("measure", "--out", out, "--runs", "elsewhere/regime", "--only", "three") == 0
    assert Path(out).read_text() == before


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the figures of a point, and what was recorded of it as NumPy arrays."""
    folder = tmp_path_factory.mktemp("regime") / "few"
    trained(TINY_STEPS, folder)
    run = trained_run(folder)
    record_point(run, samples=1500, device="cpu")
    recorded = load_file(folder / "activations_eval.safetensors")
    test = load_file(folder / "test.safetensors")
    arrays = {name: x.astype(np.float64) if x.dtype == np.float32 else x for name, x in recorded.items()}
    return measure_point(run), arrays | {f"test_{name}": x for name, x in test.items()}


def softmax(z: np.ndarray) -> np.ndarray:
    p = np.exp(z - z.max(1, keepdims=True))
    return p / p.sum(1, keepdims=True)


def labels_of(recorded: dict[str, Any]) -> np.ndarray:
    lam, eye = recorded["lam"][:, None], np.eye(10)
    return lam * eye[recorded["class_a"]] + (1 - lam) * eye[recorded["class_b"]]


def test_the_excess_loss_is_the_divergence_from_the_labels(measured: tuple[dict[str, Any], dict[str, Any]]):
    figures, recorded = measured
    y, p = labels_of(recorded), softmax(recorded["logits"])
    terms = np.where(y > 0, y * (np.log(np.where(y > 0, y, 1)) - np.log(p)), 0).sum(1)
    assert figures["excess_loss"] == pytest.approx(terms.mean(), rel=1e-10)
    same = recorded["class_a"] == recorded["class_b"]
    assert 0.05 < same.mean() < 0.15
    assert figures["excess_same"] == pytest.approx(terms[same].mean(), rel=1e-10)
    assert 0 < figures["excess_theory"] < figures["excess_loss"]


def test_the_channel_is_that_of_the_heavier_class(measured: tuple[dict[str, Any], dict[str, Any]]):
    figures, recorded = measured
    rows = np.flatnonzero(recorded["class_a"] != recorded["class_b"])
    beta = figures["beta_fit_free"] or figures["beta_fitted"]
    assert figures["width_beta"] == ("fit-free" if figures["beta_fit_free"] else "fitted")
    sums = np.zeros((6, 5))
    count = np.zeros(5)
    p = softmax(recorded["logits"])
    from ufm import channel

    for i in rows:
        lam, a, b = recorded["lam"][i], recorded["class_a"][i], recorded["class_b"][i]
        if lam < 0.5:
            lam, a, b = 1 - lam, b, a
        at = min(int((lam - 0.5) * 10), 4)
        z = recorded["logits"][i]
        others = (z.sum() - z[a] - z[b]) / 8
        theory = channel(float(lam), beta, 10)
        depth = (z[a] + z[b]) / 2 - others
        values = [z[a] - z[b], depth, float(theory.width), float(theory.depth), p[i, a], 1 - p[i, a] - p[i, b]]
        sums[:, at] += values
        count[at] += 1
    width, depth, width_theory, depth_theory, reached, leak = sums / count
    np.testing.assert_allclose(figures["channel_width"], width, rtol=1e-9)
    np.testing.assert_allclose(figures["width_ratio"], width / width_theory, rtol=1e-6)
    np.testing.assert_allclose(figures["depth_ratio"], depth / depth_theory, rtol=1e-6)
    np.testing.assert_allclose(figures["leak"], leak, rtol=1e-8)
    np.testing.assert_allclose(
        np.array(figures["channel_width"]) - figures["width_spread"], np.log(reached / (1 - reached - leak)), rtol=1e-8
    )


def test_the_certificate_bounds_the_distance(measured: tuple[dict[str, Any], dict[str, Any]]):
    figures, recorded = measured
    y, p, h, w = labels_of(recorded), softmax(recorded["logits"]), recorded["features"], recorded["classifier"]
    residual, n = y - p, len(y)
    # Recorded logits are in single precision.
    assert figures["stationarity"] == pytest.approx((residual * recorded["logits"]).sum(1).mean(), rel=1e-6)
    w = w - w.mean(0)
    assert figures["decay_term"] == pytest.approx(5e-4 * (w**2).sum(), rel=1e-8)
    gap = np.linalg.norm(residual.T @ h / n - 5e-4 * w) / (5e-4 * np.linalg.norm(w))
    assert figures["stationarity_residual"] == pytest.approx(gap, rel=1e-6)
    decay = 5e-4 * (w**2).sum() / (h**2).sum(1).mean()
    assert figures["feature_decay"] == pytest.approx(decay, rel=1e-8)
    loss = -(y * np.log(softmax(h @ w.T))).sum(1).mean()
    assert figures["objective"] == pytest.approx(loss + 5e-4 * (w**2).sum(), rel=1e-8)
    # Feature by feature, gradient descent in the row space finds h*.
    best = np.zeros_like(h)
    step = 1 / (np.linalg.norm(w, 2) ** 2 / 2 + decay)
    momentum = best.copy()
    for i in range(4000):
        ahead = momentum - step * ((softmax(momentum @ w.T) - y) @ w + decay * momentum)
        best, momentum = ahead, ahead + i / (i + 3) * (ahead - best)
    distance = ((h - best) ** 2).sum(1).mean()
    assert figures["feature_distance"] == pytest.approx(distance, rel=1e-3)
    bounds = [figures[f"{name}_distance"] for name in ("feature", "curvature", "inner", "certified")]
    assert bounds == sorted(bounds)
    assert figures["certified_distance"] == pytest.approx(2 * figures["certificate_gap"] / decay, rel=1e-8)


def test_calibration_is_that_of_the_test_images(measured: tuple[dict[str, Any], dict[str, Any]]):
    figures, recorded = measured
    p, classes = softmax(recorded["test_logits"].astype(np.float64)), recorded["test_classes"]
    assert len(classes) == len(digits().test_classes)
    confidence, right = p.max(1), p.argmax(1) == classes
    assert figures["test_accuracy"] == right.mean()
    cells = np.ceil(confidence * 15).astype(int) - 1
    error = sum(abs((right[cells == k] - confidence[cells == k]).sum()) for k in range(15)) / len(classes)
    assert figures["ece"] == pytest.approx(error, rel=1e-6)


def test_what_has_no_meaning_is_null(tmp_path: Path):
    mse = replace(TINY_STEPS, loss="mean_squared_error", optimiser=replace(TINY_STEPS.optimiser, learning_rate=0.02))
    etf = replace(TINY_STEPS, network=replace(TINY_STEPS.network, etf_multiplier=1.0))
    found = {}
    for name, config in (("mse", mse), ("etf", etf)):
        trained(config, tmp_path / name)
        run = trained_run(tmp_path / name)
        record_point(run, samples=1500, device="cpu")
        found[name] = measure_point(run)
    missing = {name: {key for key, value in figures.items() if value is None} for name, figures in found.items()}
    certificate = {"certified_distance", "feature_distance", "stationarity", "objective", "feature_decay"}
    unfit = {"beta_fit_free", "r2_fit_free", "r2_binned_fit_free"}
    assert certificate | unfit <= missing["etf"]
    assert missing["mse"] >= certificate | unfit | {"excess_loss", "width_ratio", "leak", "ece", "width_beta"}
    assert not {"r2_line", "r2_closed_form", "test_accuracy", "nc1"} & missing["mse"]
    assert not {"excess_loss", "width_ratio", "ece"} & missing["etf"]
    assert found["etf"]["width_beta"] == "fitted"
    assert found["etf"]["etf_error"] < 1e-5


def test_what_cannot_be_measured_is_named(command: Callable[..., int], capsys: pytest.CaptureFixture[str]):
    assert command("train", "--only", "none") == 2
    assert "only: got 'none'" in capsys.readouterr().err
    trained(TINY_STEPS, Path("runs/regime/few"), stop_after=2)
    run = trained_run("runs/regime/few")
    with pytest.raises(ValueError, match="^run: got 'few' after 2 of 4"):
        record_point(run)
    assert command("measure", "--out", "points.jsonl") == 1
    assert "few: failed: run: got 'few', which is not recorded" in capsys.readouterr().out
    trained(replace(TINY_STEPS, seed=3), Path("runs/regime/three"))
    assert command("measure", "--out", "points.jsonl", "--only", "three") == 1
    assert "holds a run of another configuration" in capsys.readouterr().out
    Path("points.jsonl").write_text('{"name": "few"}\nnot a point\n')
    assert command("measure", "--out", "points.jsonl") == 2
    assert "out: got 'points.jsonl'" in capsys.readouterr().err


def test_the_line_of_a_point_is_json(measured: tuple[dict[str, Any], dict[str, Any]]):
    figures, _ = measured
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures


def test_committed_points_keep_what_is_claimed():
    """On each data set three seeds are in the regime, and every proved bound is above the true distance."""
    points = read_points(Path(__file__).parents[2] / regime.RESULTS)
    for name in ("digits-20-mild", "mnist-20-long", "fashion-20-long", "cifar-10-long"):
        seeds = [points[f"{name}{seed}"] for seed in ("", "-seed1", "-seed2")]
        for one in seeds:
            assert one["excess_loss"] < 0.005
            assert one["r2_fit_free"] > 0.95
            assert max(abs(ratio - 1) for ratio in one["width_ratio"][:-1]) < 0.05
            assert abs(one["width_ratio"][-1] - 1) < 0.1
            assert max(one["nc1"], one["nc3"]) < 0.1
            assert 1 / 1.3 < one["beta_fit_free"] / one["beta_fitted"] < 1.3
            assert one["inner_distance"] < 10 * one["feature_distance"]
    bounded = [one for one in points.values() if one["feature_distance"] is not None]
    assert len(bounded) > 25
    assert all(one["feature_distance"] < one["inner_distance"] < one["certified_distance"] for one in bounded)
