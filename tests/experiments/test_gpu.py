"""The GPU's work at reduced size on the CPU: bounded calls that go on, and results that are measured once complete."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from experiments import gpu

SMALL = """
[runs.few]
data = "digits"
train_samples = 60
network = { architecture = "wideresnet", width = 1, depth = 10 }
optimiser = { weight_decay = 1e-3 }
epochs = 3
epoch_steps = 2
batch_size = 16
measure_every = 3
"""


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., int]:
    monkeypatch.chdir(tmp_path)
    Path("small.toml").write_text(SMALL)

    def run(*words: str) -> int:
        monkeypatch.setattr("sys.argv", ["gpu", *words])
        return gpu.main()

    return run


def test_a_call_ends_in_time_and_the_next_goes_on(
    command: Callable[..., int], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    words = ["train", "--file", "small.toml", "--samples", "800", "--device", "cpu"]
    # A second goes by whenever the clock is read: time for one epoch.
    with monkeypatch.context() as patched:
        patched.setattr(gpu.time, "perf_counter", itertools.count().__next__)
        assert command(*words, "--seconds", "2.5") == 0
    assert "2 of 3 epochs left" in capsys.readouterr().out
    assert not Path("experiments").exists()
    assert command(*words) == 0
    out = capsys.readouterr().out
    assert "s an epoch, 3 in all" in out
    assert "few: excess" in out
    [point] = [json.loads(line) for line in Path(gpu.RESULTS, "points.jsonl").read_text().splitlines()]
    assert (point["name"], point["architecture"], point["device"]) == ("few", "wideresnet", "cpu")
    assert point["feature_distance"] <= point["curvature_distance"] <= point["inner_distance"]
    history = Path("runs/gpu/few/metrics.jsonl").read_text()
    assert command(*words) == 0
    assert Path("runs/gpu/few/metrics.jsonl").read_text() == history


def test_the_solver_streams_and_agrees_with_the_closed_form(command: Callable[..., int]):
    assert command("solve", "--num-classes", "6", "--weight-decay", "1e-2", "--feature-decay", "1e-2") == 0
    result = json.loads(Path(gpu.RESULTS, "solve.json").read_text())
    assert result["targets"] == 6 + 4 * 15
    assert result["relative_gap"] <= 1e-8
    assert result["objective"] == pytest.approx(result["objective_closed_form"], rel=1e-7)


def test_bad_arguments_are_named(command: Callable[..., int], capsys: pytest.CaptureFixture[str]):
    assert command("train", "--seconds", "0") == 2
    assert "seconds: got 0" in capsys.readouterr().err
    assert command("train", "--file", "small.toml", "--only", "none") == 2
    assert "only: got 'none'" in capsys.readouterr().err
    assert command("solve", "--nodes", "0") == 2
    assert "nodes: got 0" in capsys.readouterr().err


def test_the_committed_file_is_readable():
    from experiments.suite import read_suite

    configs = read_suite(gpu.NETWORKS)
    assert configs["fashion-wrn"].network.settings()["depth"] == 40
    assert configs["cifar-wrn"].data == "cifar10-jpeg"
    assert configs["fashion-vit"].network.settings()["patch"] == 4
