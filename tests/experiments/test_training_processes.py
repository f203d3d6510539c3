"""Two processes train the network that one trains, and go on where they stopped."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from experiments.training import processes
from experiments.training.processes import Processes, share_statistics
from tests.helpers.training import arrays, metrics, small, trained
from ufm.runs.record import read_record

TESTS = Path(__file__).parents[1] / "helpers"
WORDS = ["--train-samples=300", "--network.width=2", "--network.dim=10", "--epochs=3", "--batch-size=100"]


def test_two_processes_train_as_one_does(tmp_path: Path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    program = [str(TESTS / "programs" / "distributed_training.py"), str(tmp_path), *WORDS]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(TESTS.parents[1])}
    with subprocess.Popen(
        [*command, *program], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        try:
            said, errors = running.communicate(timeout=400)
        finally:
            # It ends the processes that it started, which a kill would leave behind.
            running.terminate()
    assert running.returncode == 0, errors[-3000:]
    assert errors.count("experiments.train: error: batch_size: got 101 for 2 processes, expected a multiple") == 2
    # The first process speaks, for each of three runs.
    assert said.count("learning_rate ") == 3
    config = small(epochs=3, measure_every=1)
    alone = trained(config, tmp_path / "alone")
    found = metrics(tmp_path / "parts")
    assert len(found) == 3
    for line, expected in zip(found, alone.history, strict=True):
        assert line["loss"] == pytest.approx(expected["loss"], abs=1e-5)
        assert line["learning_rate"] == expected["learning_rate"]
        assert line["test_accuracy"] == pytest.approx(expected["test_accuracy"], abs=0.01)
    one, two = arrays(tmp_path / "alone"), arrays(tmp_path / "parts")
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-3, atol=1e-4, msg=name)
    sessions = read_record(tmp_path / "parts").configuration["sessions"]
    assert [session["processes"] for session in sessions] == [2] * len(sessions)
    assert sessions[0]["from_epoch"] == 0 < sessions[-1]["from_epoch"]
    # Either number of processes goes on with what the other began.
    assert trained(config, tmp_path / "parts").history[-1]["loss"] == found[-1]["loss"]
    (half,) = metrics(tmp_path / "half")
    expected = trained(
        replace(config, precision="bfloat16", mixing=replace(config.mixing, kind="manifold"), epochs=1),
        tmp_path / "one",
    )
    assert half["loss"] == pytest.approx(expected.history[0]["loss"], rel=0.02)


def test_shares_are_the_batch():
    rows = torch.arange(12)
    parts = [rows[Processes(rank, 4).share(12)] for rank in range(4)]
    assert torch.equal(torch.cat(parts), rows)
    assert {len(part) for part in parts} == {3}
    assert torch.equal(rows[Processes().share(12)], rows)
    assert Processes().total(1.5) == 1.5


def test_every_norm_is_shared_wherever_it_is():
    network = nn.Sequential(nn.BatchNorm1d(3), nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)))
    before = network.state_dict()
    share_statistics(network, torch.device("cpu"))
    kinds = [type(module).__name__ for module in network.modules()]
    assert kinds.count("_SharedBatchNorm") == 2
    assert network.state_dict().keys() == before.keys()
    x = torch.randn(4, 3)
    expected = nn.BatchNorm1d(3).eval()(x)
    torch.testing.assert_close(network.eval()[0](x), expected)


def test_devices_are_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert processes.local_device("auto") == processes.local_device("cpu") == torch.device("cpu")
    with pytest.raises(ValueError, match="^device: got 'cuda' without"):
        processes.local_device("cuda")
    with pytest.raises(ValueError, match="^device: got 'mps'"):
        processes.local_device("mps")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    chosen: list[int] = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert processes.local_device("auto") == torch.device("cuda", 3)
    assert chosen == [3]
    monkeypatch.setenv("LOCAL_RANK", "4")
    with pytest.raises(ValueError, match="^device: got 4 CUDA GPUs for process 4"):
        processes.local_device("auto")
