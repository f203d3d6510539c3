import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from experiments import demo
from experiments.claims import Claim, network_claims
from experiments.data import digits
from experiments.mixing import mix
from experiments.networks import SmallCNN
from experiments.train import TrainConfig, soft_cross_entropy, train

TINY = TrainConfig(epochs=3, width=4, dim=12, batch_size=256)


def test_digits_are_split_by_class_and_standardised():
    data = digits()
    assert data.train_images.shape[1:] == (1, 8, 8)
    assert len(data.train_classes) + len(data.test_classes) == 1797
    for classes in (data.train_classes, data.test_classes):
        assert torch.bincount(classes).min() >= 0.09 * len(classes)
    assert data.train_images.mean().abs() < 1e-5
    assert data.train_images.std().item() == pytest.approx(1, abs=1e-5)
    # No test image is a training image.
    train_set, test_set = (
        {image.numpy().tobytes() for image in images} for images in (data.train_images, data.test_images)
    )
    assert not train_set & test_set


def test_small_cnn_features_and_head():
    network = SmallCNN(1, 10, 12, width=4).eval()
    images = torch.randn(5, 1, 8, 8)
    assert network.features(images).shape == (5, 12)
    torch.testing.assert_close(network.head(network.features(images)), network(images))


def test_mix_pairs_inputs_and_labels():
    images = torch.arange(40.0).view(40, 1, 1, 1)
    classes = torch.arange(40) % 4
    batches = list(mix(images, classes, 0.4, 16, np.random.default_rng(0)))
    assert [len(batch.lam) for batch in batches] == [16, 16, 8]
    for batch in batches:
        inputs = batch.inputs.flatten()
        # Some pair of images of these classes gives this input at this lambda.
        first = images.flatten()[None, :, None] * batch.lam[:, None, None]
        second = images.flatten()[None, None, :] * (1 - batch.lam[:, None, None])
        fits = (first + second - inputs[:, None, None]).abs() < 1e-4
        right = (classes[None, :, None] == batch.class_a[:, None, None]) & (
            classes[None, None, :] == batch.class_b[:, None, None]
        )
        assert (fits & right).flatten(1).any(1).all()


@pytest.mark.parametrize("alpha", [0.3, 1.0, 4.0])
def test_mix_draws_lambda_from_its_law(alpha: float):
    batch = next(mix(torch.zeros(20_000, 1, 1, 1), torch.zeros(20_000).long(), alpha, 20_000, np.random.default_rng(1)))
    assert stats.kstest(batch.lam.numpy(), stats.beta(alpha, alpha).cdf).pvalue > 1e-3


def test_soft_cross_entropy_by_hand():
    logits = torch.tensor([[1.0, 2.0, 3.0]])
    expected = -(torch.tensor([[0.3, 0.0, 0.7]]) * logits.log_softmax(1)).sum()
    found = soft_cross_entropy(logits, torch.tensor([0]), torch.tensor([2]), torch.tensor([0.3]))
    torch.testing.assert_close(found, expected)


def test_training_resumes_bit_for_bit(tmp_path: Path):
    data = digits()
    whole = train(TINY, data, tmp_path / "whole.safetensors", progress=False)

    class Stop(Exception):  # noqa: N818
        pass

    # Killed within the second epoch: everything since the first checkpoint is lost, and nothing more.
    calls = 0
    original = torch.optim.SGD.step

    def step(self: torch.optim.SGD, closure: None = None):
        nonlocal calls
        calls += 1
        if calls == 9:
            raise Stop
        return original(self, closure)

    torch.optim.SGD.step = step
    try:
        with pytest.raises(Stop):
            train(TINY, data, tmp_path / "parts.safetensors", progress=False)
    finally:
        torch.optim.SGD.step = original
    resumed = train(TINY, data, tmp_path / "parts.safetensors", progress=False)
    assert resumed.history == whole.history
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name]), name
    assert sorted(p.name for p in tmp_path.iterdir()) == ["parts.safetensors", "whole.safetensors"]


def test_training_lowers_the_loss(tmp_path: Path):
    result = train(TINY, digits(), tmp_path / "c.safetensors", progress=False)
    losses = [row["loss"] for row in result.history]
    assert losses[-1] < losses[0] - 0.1
    assert not result.network.training


def test_checkpoints_of_another_kind_are_refused(tmp_path: Path):
    data, path = digits(), tmp_path / "c.safetensors"
    train(TrainConfig(epochs=1, width=4, dim=12), data, path, progress=False)
    with pytest.raises(ValueError, match="checkpoint: .*differs in seed"):
        train(TrainConfig(epochs=1, width=4, dim=12, seed=1), data, path, progress=False)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ValueError, match="checkpoint: .*not readable"):
        train(TrainConfig(epochs=1, width=4, dim=12), data, path, progress=False)


def test_demo_end_to_end_at_tiny_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    config = demo.DemoConfig(out=str(tmp_path), passes=2, nodes=3, dim=10, train=TINY)
    # Three epochs do not make a network that fits; the exit status is about the exact claims only.
    assert demo.run(config, progress=False) == 0
    out = capsys.readouterr().out
    assert "FAIL" in out
    assert str(tmp_path / "report.html") in out
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["config"]["train"]["epochs"] == 3
    assert {(row["classifier"], row["method"]) for row in results["solver"]} == {
        (kind, method) for kind in ("fixed", "free") for method in ("newton", "gradient_descent", "lbfgs")
    }
    assert all(row["gap"] < 1e-10 for row in results["solver"])
    for mode in ("train", "eval"):
        names = [score["name"] for score in results["comparison"][mode]["scores"]]
        assert {"closed form", "straight line", "solver, nearest ETF", "solver, own classifier"} <= set(names)
    report = (tmp_path / "report.html").read_text()
    assert report.count("data:image/png;base64,") == 3
    assert 'src="http' not in report
    for name in ("planar", "channel", "confidence"):
        for suffix in (".png", ".pdf"):
            assert (tmp_path / (name + suffix)).stat().st_size > 2000


def test_demo_exit_status_tells_of_exact_claims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config = demo.DemoConfig(out=str(tmp_path), passes=2, nodes=3, dim=10, train=TINY)
    monkeypatch.setattr(demo, "exact_claims", lambda *_: [Claim("wrong", 1.0, "<=", 0.5, True)])
    assert demo.run(config, progress=False) == 1


def test_claims_keep_to_their_relation():
    assert Claim("a", 1.0, "<=", 1.0, True).passed
    assert not Claim("a", 1.1, "<=", 1.0, True).passed
    assert Claim("a", 1.1, ">=", 1.0, True).passed
    assert not Claim("a", float("nan"), ">=", 1.0, True).passed
    assert not network_claims(0.5, {"eval": _comparison()})[0].passed


def _comparison():
    import ufm
    from tests.networks import following_the_theory

    return ufm.compare(following_the_theory(100.0), ufm.Mixup(5), solver=False)


def test_a_killed_demo_resumes_and_leaves_no_half_file(tmp_path: Path):
    command = [sys.executable, "-m", "experiments.demo", "--out", str(tmp_path), "--train.epochs", "40"]
    command += ["--train.width", "4", "--train.dim", "12", "--passes", "2", "--nodes", "3"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    checkpoint = tmp_path / "checkpoint.safetensors"
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert checkpoint.exists()
    assert not (tmp_path / "results.json").exists()
    assert not (tmp_path / "report.html").exists()
    finished = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    # The progress line tells from which epoch the second run went on.
    assert "training: 0/40" not in finished.stderr
    assert "training: 40/40" in finished.stderr
    assert len(json.loads((tmp_path / "results.json").read_text())["training"]) == 40


@pytest.mark.parametrize("arguments", [["--train.alpha", "0"], ["--dim", "3"], ["--train.epochs", "0"]])
def test_demo_refuses_bad_input_in_one_line(tmp_path: Path, arguments: list[str]):
    command = [sys.executable, "-m", "experiments.demo", "--out", str(tmp_path), *arguments]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 2
    assert finished.stderr.startswith("experiments.demo: error: ")
    assert finished.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["alpha", "learning_rate", "weight_decay", "epochs", "batch_size", "dim", "width"])
def test_training_configuration_is_checked_by_name(name: str):
    with pytest.raises(ValueError, match=f"^{name}"):
        TrainConfig(**{name: 0})
    with pytest.raises(ValueError, match="^seed"):
        TrainConfig(seed=-1)
    with pytest.raises(ValueError, match=r"^train\.dim"):
        demo.DemoConfig(train=TrainConfig(dim=3))


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    data, path = digits(), tmp_path / "c.safetensors"
    config = TrainConfig(epochs=1, width=4, dim=12)
    train(config, data, path, progress=False)
    monkeypatch.setattr("experiments.train.SmallCNN", lambda channels, classes, dim, width: SmallCNN(1, 10, dim, 8))
    with pytest.raises(ValueError, match="checkpoint: .*another network"):
        train(config, data, path, progress=False)


def test_a_checkpoint_that_fails_to_write_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    data, path = digits(), tmp_path / "c.safetensors"
    train(TINY, data, path, progress=False)
    before = path.read_bytes()

    def half_written(arrays: dict, target: Path, metadata: dict) -> None:
        Path(target).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("experiments.train.save_file", half_written)
    path.rename(tmp_path / "kept")
    with pytest.raises(OSError, match="disk full"):
        train(TINY, data, path, progress=False)
    assert not path.exists()
    assert (tmp_path / "kept").read_bytes() == before


def test_learning_rate_follows_its_cosine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    rates: list[float] = []
    original = torch.optim.SGD.step

    def step(self: torch.optim.SGD, closure: None = None):
        rates.append(self.param_groups[0]["lr"])
        return original(self, closure)

    monkeypatch.setattr(torch.optim.SGD, "step", step)
    train(TINY, digits(), tmp_path / "c.safetensors", progress=False)
    assert sorted(set(rates), reverse=True) == pytest.approx([0.1, 0.075, 0.025])


def test_partners_are_independent_of_the_image():
    classes = torch.arange(4000) % 10
    images = torch.zeros(4000, 1, 1, 1)
    batch = next(mix(images, classes, 1.0, 4000, np.random.default_rng(0)))
    same = (batch.class_a == batch.class_b).double().mean().item()
    assert abs(same - 0.1) < 5 * (0.09 / 4000) ** 0.5
    assert sorted(batch.class_a.tolist()) == sorted(classes.tolist())


def test_both_modes_are_recorded(tmp_path: Path):
    import ufm

    config = demo.DemoConfig(out=str(tmp_path), passes=1, nodes=3, dim=10, train=TINY)
    assert demo.run(config, progress=False) == 0
    train_mode, eval_mode = (ufm.load(tmp_path / f"activations_{mode}.safetensors") for mode in ("train", "eval"))
    assert train_mode.description["mode"] == "train"
    assert eval_mode.description["mode"] == "eval"
    assert torch.equal(train_mode.lam, eval_mode.lam)
    assert not torch.allclose(train_mode.logits, eval_mode.logits)


def test_a_claim_is_not_met_by_a_solve_that_did_not_converge():
    import dataclasses

    import ufm
    from experiments.claims import exact_claims
    from ufm.verification import Verification

    verification = Verification(ufm.joint_optimum(ufm.Mixup(5), 0.02, 0.02), {}, {}, [])
    good = dataclasses.replace(_comparison(), solver_error=1e-9, solver_converged=True)
    nan = dataclasses.replace(good, solver_error=float("nan"))
    stuck = dataclasses.replace(good, solver_converged=False)
    assert exact_claims(verification, {"a": good, "b": good})[-1].passed
    for bad in (nan, stuck, dataclasses.replace(good, solver_error=None)):
        for pair in ({"a": good, "b": bad}, {"a": bad, "b": good}):
            assert not exact_claims(verification, pair)[-1].passed
