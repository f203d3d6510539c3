"""Recording and comparing trained runs, and the page over them, at tiny size."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

import ufm
from experiments import compare, record
from experiments.data import load_data
from experiments.mixing import Mixing
from experiments.networks import NetworkConfig
from experiments.record import Recording
from experiments.training import TrainConfig, train
from experiments.training.run import TrainedRun, trained_run
from tests.helpers.commands import complaint, status_of

CONFIG = TrainConfig(network=NetworkConfig(width=4, dim=12), epochs=4, batch_size=256, measure_every=4)
RECORDING = Recording(samples=1200)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    """A finished training run with its comparison beside it."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    train(CONFIG, load_data("digits"), folder, progress=False)
    compare.compare_run(trained_run(folder), RECORDING, folder)
    return trained_run(folder)


def test_a_run_is_read_back_as_it_was_trained(run: TrainedRun):
    assert run.config == CONFIG
    assert run.complete
    assert run.name == "tiny"
    data = run.data()
    network = run.network(data)
    assert not network.training
    found = (network(data.standardise(data.test_images)).argmax(1) == data.test_classes).double().mean().item()
    assert found == pytest.approx(run.history[-1]["test_accuracy"])


def test_recordings_are_of_the_same_images_in_both_modes_and_open_in_numpy(run: TrainedRun):
    arrays = {mode: load_file(RECORDING.path(run, mode)) for mode in ("eval", "train")}
    for name in ("class_a", "class_b", "lam"):
        np.testing.assert_array_equal(arrays["eval"][name], arrays["train"][name])
    assert not np.allclose(arrays["eval"]["logits"], arrays["train"]["logits"])
    assert {name for name in arrays["eval"] if name.startswith("layer:")} == {
        f"layer:stages.block{i}" for i in (1, 2, 3)
    }
    assert arrays["eval"]["layer:stages.block3"].shape[1] == 16
    recorded = ufm.load(RECORDING.path(run, "eval"))
    assert recorded.description["mode"] == "eval"
    assert recorded.description["run"] == "tiny"
    np.testing.assert_allclose(
        recorded.features @ recorded.classifier.T + recorded.bias, recorded.logits, rtol=1e-4, atol=1e-4
    )


def test_the_record_holds_what_compare_says(run: TrainedRun):
    record = run.record
    assert set(record.comparisons) == {"eval", "train"}
    expected = ufm.compare(ufm.load(RECORDING.path(run, "train")), ufm.Mixup(10), weight_decay=2e-3)
    found = record.comparisons["train"]
    assert found.beta == pytest.approx(expected.beta)
    assert found.beta_fit_free == pytest.approx(expected.beta_fit_free)
    assert [score.r2 for score in found.scores] == pytest.approx([score.r2 for score in expected.scores])
    band = found.curves["network"].width_band
    assert band is not None
    assert len(band) == 2
    assert [layer.name for layer in record.layers] == [*(f"stages.block{i}" for i in (1, 2, 3)), "features"]
    assert record.training == CONFIG.training()
    assert len(record.history) == 4


def test_calibration_is_that_of_the_test_images(run: TrainedRun):
    written = run.record.calibration
    assert written is not None
    data = run.data()
    logits = run.network(data)(data.standardise(data.test_images)).detach()
    expected = ufm.calibrate(logits, data.test_classes)
    assert written.test.temperature == pytest.approx(expected.temperature, rel=1e-4)
    for key in ("ece", "nll", "brier", "ece_adaptive"):
        assert getattr(written.test.before, key) == pytest.approx(getattr(expected.before, key), rel=1e-4)
        assert getattr(written.test.after, key) == pytest.approx(getattr(expected.after, key), rel=1e-3, abs=1e-5)
    assert written.confidence is not None
    assert len(written.confidence.confidence) == 10


def test_the_summary_is_an_isometry_of_what_the_classifier_sees(run: TrainedRun):
    whole, small = ufm.load(RECORDING.path(run, "eval")), ufm.load(run.folder / "summary.safetensors")
    assert small.features.shape == (len(whole.lam[:3000]), 9)
    rows = whole.classifier - whole.classifier.mean(0)
    torch.testing.assert_close(small.classifier @ small.classifier.T, rows @ rows.T, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        small.features @ small.classifier.T, whole.features[: len(small.lam)] @ rows.T, rtol=1e-4, atol=1e-4
    )
    with_bias = small.features @ small.classifier.T + small.bias
    torch.testing.assert_close(with_bias, small.logits, rtol=1e-4, atol=1e-4)
    law = ufm.Mixup(10)
    few = replace(
        whole, **{name: getattr(whole, name)[:3000] for name in ("features", "logits", "class_a", "class_b", "lam")}
    )
    one, other = (ufm.compare(some, law, solver=False) for some in (few, small))
    assert other.beta == pytest.approx(one.beta, rel=1e-3)
    assert other.score("closed form").r2 == pytest.approx(one.score("closed form").r2, abs=1e-4)


def test_interpolation_is_exact_for_a_linear_network_and_not_for_this_one(run: TrainedRun):
    data = run.data()
    found = record.interpolation(run.network(data), data, Mixing(), samples=300)
    assert list(found) == [*(f"stages.block{i}" for i in (1, 2, 3)), "features"]
    assert all(value < 0.999 for value in found.values())


def test_a_run_is_trained_on_and_compared_in_one_folder(run: TrainedRun):
    """Training that has nothing to do leaves the comparison; training that goes on drops it."""
    before = (run.folder / "run.json").read_bytes()
    train(CONFIG, load_data("digits"), run.folder, progress=False)
    assert (run.folder / "run.json").read_bytes() == before


def test_results_go_to_a_folder_per_run_with_or_without_samples(run: TrainedRun, tmp_path: Path, capsys):
    command = compare.Compare((str(run.folder),), out=str(tmp_path), recording=RECORDING)
    assert command.run() == 0
    assert str(tmp_path / "tiny") in capsys.readouterr().out
    record = {"run.json", "metrics.jsonl"}
    samples = {"summary.safetensors", "layers.safetensors"}
    assert {path.name for path in (tmp_path / "tiny").iterdir()} == record | samples
    for name in record:
        assert (tmp_path / "tiny" / name).read_bytes() == (run.folder / name).read_bytes()
    bare = tmp_path / "bare"
    assert replace(command, out=str(bare), keep=()).run() == 0
    assert {path.name for path in (bare / "tiny").iterdir()} == record


def test_an_unmixed_network_is_compared_on_mixed_images(tmp_path: Path):
    config = replace(CONFIG, mixing=Mixing("none"), epochs=1)
    train(config, load_data("digits"), tmp_path, progress=False)
    comparison = compare.compare_run(trained_run(tmp_path), replace(RECORDING, modes=("eval",)), tmp_path).comparison
    recorded = ufm.load(tmp_path / "activations_eval.safetensors")
    assert bool((recorded.class_a != recorded.class_b).any())
    assert comparison.samples == len(recorded.lam) - len(recorded.lam) // 2


@pytest.mark.parametrize(
    ("module", "arguments", "named"),
    [
        (record, [], "runs: got none"),
        (compare, [], "runs: got none"),
        (record, ["nowhere"], "run: got 'nowhere'"),
        (compare, ["nowhere"], "run: got 'nowhere'"),
        (record, ["nowhere", "--modes", "both"], "modes"),
        (record, ["nowhere", "--samples", "0"], "samples"),
        (record, ["nowhere", "--split", "all"], "split"),
        (compare, ["nowhere", "--modes"], "modes: got none"),
        (compare, ["nowhere", "--keep", "all"], "keep: got 'all'"),
    ],
)
def test_bad_arguments_are_named(module, arguments: list[str], named: str, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["program", *arguments])
    assert status_of(module.main) == 2
    assert named in complaint(capsys.readouterr().err)


def test_an_unfinished_run_is_not_compared(tmp_path: Path):
    train(CONFIG, load_data("digits"), tmp_path, stop_after=1, progress=False)
    with pytest.raises(ValueError, match="run: got .* after 1 of 4 epochs"):
        compare.compare_run(trained_run(tmp_path), RECORDING, tmp_path)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(ValueError, match="run: got .* expected the folder of a training run"):
        trained_run(tmp_path)


@pytest.mark.slow
def test_a_recording_of_something_else_is_made_anew(tmp_path: Path):
    train(CONFIG, load_data("digits"), tmp_path, stop_after=1, progress=False)
    record.record_run(trained_run(tmp_path), RECORDING)
    train(CONFIG, load_data("digits"), tmp_path, progress=False)
    run = trained_run(tmp_path)
    for recording in (RECORDING, replace(RECORDING, samples=1500), replace(RECORDING, seed=9)):
        compare.compare_run(run, recording, tmp_path)
        written = trained_run(tmp_path).record.recordings["eval"]
        assert (written["epochs"], written["wanted"], written["seed"]) == (
            "4",
            str(recording.samples),
            str(recording.seed),
        )
    before = RECORDING.path(run, "eval").stat().st_mtime_ns
    compare.compare_run(run, replace(RECORDING, seed=9), tmp_path)
    assert RECORDING.path(run, "eval").stat().st_mtime_ns == before
