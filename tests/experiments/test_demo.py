"""The demo from end to end at tiny size, its claims and its exit status."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import ufm
from experiments import demo
from experiments.networks import NetworkConfig
from experiments.training import TrainConfig
from tests.helpers.commands import complaint, status_of
from tests.helpers.networks import following_the_theory
from ufm.reports import Claim, read_run, report
from ufm.runs.record import read_record
from ufm.runs.verification import Verification

# Strong penalties, at which gradient descent takes seconds and not half a minute.
SMALL = {"samples": 1500, "nodes": 3, "dim": 10, "weight_decay": 0.02, "feature_decay": 0.02}
TINY = TrainConfig(network=NetworkConfig(width=4, dim=12), epochs=3, batch_size=256)
FITTED = TrainConfig(
    train_samples=60, network=NetworkConfig("mlp", width=16, dim=12), epochs=3, epoch_steps=5, batch_size=64
)
TINY_NETWORK = ("--train.network.width", "4", "--train.network.dim", "12", "--fitted.epochs", "1")
TINY_NETWORK += ("--fitted.epoch-steps", "5", "--fitted.network.width", "16")


def test_demo_end_to_end_at_tiny_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    config = demo.DemoConfig(out=str(tmp_path), train=TINY, fitted=FITTED, **SMALL)
    # Three epochs do not make a network that fits; the exit status is about the exact claims only.
    assert demo.run(config, progress=False) == 0
    out = capsys.readouterr().out
    assert "FAIL" in out
    assert str(tmp_path / "report.html") in out
    record = read_run(tmp_path)
    assert record.training.epochs == 3
    assert {(solve.classifier, solve.method) for solve in record.solves} == {
        (kind, method) for kind in ("fixed", "free") for method in ("newton", "gradient_descent", "lbfgs")
    }
    assert all(solve.certificate.gap < 1e-10 for solve in record.solves)
    for mode in ("train", "eval"):
        names = [score.name for score in record.comparisons[mode].scores]
        assert {"closed form", "straight line", "solver, nearest ETF", "own classifier"} <= set(names)
    assert record.checks is not None
    assert len(record.checks) == 26
    assert all(claim.exact and claim.passed for claim in record.checks)
    assert record.theory is not None
    assert record.theory.logits.shape == (99, 10)
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 10
    for folder in (tmp_path, tmp_path / demo.FITTED):
        for name in ("planar", "channel", "confidence"):
            for suffix in (".png", ".pdf"):
                assert (folder / (name + suffix)).stat().st_size > 2000
    fitted = read_run(tmp_path / demo.FITTED)
    assert fitted.training.architecture == "mlp"
    assert fitted.comparison.departure is not None
    assert out.count("Departure: excess loss") == 2
    train_mode, eval_mode = (ufm.load(tmp_path / f"activations_{mode}.safetensors") for mode in ("train", "eval"))
    assert train_mode.description["mode"] == "train"
    assert eval_mode.description["mode"] == "eval"
    assert torch.equal(train_mode.lam, eval_mode.lam)
    assert not torch.allclose(train_mode.logits, eval_mode.logits)
    # The library makes the same page of the folder.
    again = report([fitted, read_run(tmp_path)], f"python -m experiments.demo --out {tmp_path}").html()
    assert again == page


def test_demo_exit_status_tells_of_exact_claims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config = demo.DemoConfig(out=str(tmp_path), train=TINY, fitted=FITTED, **SMALL)
    monkeypatch.setattr("ufm.reports.page.draw", lambda *_: [])
    monkeypatch.setattr(demo, "exact_claims", lambda *_: [Claim("wrong", "wrong", 1.0, "<=", 0.5, True)])
    assert demo.run(config, progress=False) == 1


def _comparison():
    return ufm.compare(following_the_theory(100.0), ufm.Mixup(5), solver=False)


@pytest.mark.slow
def test_a_killed_demo_resumes_and_leaves_no_half_file(tmp_path: Path):
    command = [sys.executable, "-m", "experiments.demo", "--out", str(tmp_path), "--train.epochs", "40"]
    command += [*TINY_NETWORK, *(f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items())]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    checkpoint = tmp_path / "checkpoint.safetensors"
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert checkpoint.exists()
    assert not read_record(tmp_path).comparisons
    assert not (tmp_path / "report.html").exists()
    finished = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    # The progress line tells from which epoch the second run went on.
    assert ": 0/40 epoch" not in finished.stderr
    assert ": 40/40 epoch" in finished.stderr
    assert len(read_run(tmp_path).history) == 40


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--train.mixing.alpha", "0"], "alpha: got 0"),
        (["--dim", "3"], "dim: got 3"),
        (["--train.epochs", "0"], "epochs: got 0"),
        (["--train.data", "mnist"], "train: got mixup on mnist"),
        (["--fitted.mixing.kind", "none"], "fitted: got none on digits"),
    ],
)
def test_demo_refuses_bad_input(
    tmp_path: Path,
    arguments: list[str],
    named: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setattr("sys.argv", ["demo", "--out", str(tmp_path), *arguments])
    assert status_of(demo.main) == 2
    assert named in complaint(capsys.readouterr().err)


def test_a_claim_is_not_met_by_a_solve_that_did_not_converge():
    verification = Verification(ufm.joint_optimum(ufm.Mixup(5), 0.02, 0.02), {}, {}, [])
    good = dataclasses.replace(_comparison(), solver_error=1e-9, solver_converged=True)
    nan = dataclasses.replace(good, solver_error=float("nan"))
    stuck = dataclasses.replace(good, solver_converged=False)

    def hold(comparisons: dict[str, ufm.Comparison]) -> bool:
        return all(claim.passed for claim in demo.exact_claims(verification, comparisons))

    assert hold({"a": good, "b": good})
    for bad in (nan, stuck, dataclasses.replace(good, solver_error=None)):
        for pair in ({"a": good, "b": bad}, {"a": bad, "b": good}):
            assert not hold(pair)
