"""Training: losses, schedules, resuming bit for bit after any end, what is measured, and what is refused."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from experiments.data import digits
from experiments.mixing import Mixing
from experiments.networks import NetworkConfig, build_network
from experiments.training import OptimiserConfig, TrainConfig, loop
from experiments.training.checkpoint import State, load_network, restore_checkpoint, save_checkpoint
from experiments.training.config import from_plain, to_plain
from experiments.training.loop import learning_rate, soft_loss
from experiments.training.monitoring import logits_of, measure
from tests.helpers.training import SMALL, arrays, assert_same_end, metrics, small, trained
from ufm.labels.targets import PairTargets
from ufm.runs.record import read_record

ROOT = Path(__file__).parents[2]
# SMALL on the command line.
WORDS = [
    "--train-samples=300",
    "--network.width=2",
    "--network.dim=10",
    "--epochs=4",
    "--batch-size=100",
    "--measure-every=4",
]


@given(seed=st.integers(0, 2**32), K=st.integers(2, 7), n=st.integers(1, 9))
def test_losses_are_those_of_soft_labels(seed: int, K: int, n: int):
    generator = torch.Generator().manual_seed(seed)
    logits = 5 * torch.randn(n, K, generator=generator, dtype=torch.float64)
    a, b = (torch.randint(K, (n,), generator=generator) for _ in range(2))
    b[0] = a[0]
    lam = torch.rand(n, generator=generator, dtype=torch.float64)
    labels = lam[:, None] * torch.eye(K)[a] + (1 - lam[:, None]) * torch.eye(K)[b]
    torch.testing.assert_close(
        soft_loss("cross_entropy", logits, a, b, lam), torch.nn.functional.cross_entropy(logits, labels)
    )
    by_hand = sum(float((z - y) @ (z - y)) / 2 for z, y in zip(logits, labels, strict=True)) / n
    assert soft_loss("mean_squared_error", logits, a, b, lam).item() == pytest.approx(by_hand, rel=1e-12)


def test_learning_rates_follow_their_schedules():
    cosine = OptimiserConfig(learning_rate=0.4)
    assert learning_rate(cosine, 10, 0.0) == 0.4
    assert learning_rate(cosine, 10, 5.0) == pytest.approx(0.2)
    assert learning_rate(cosine, 10, 2.5) == pytest.approx(0.2 * (1 + math.sqrt(0.5)))
    assert learning_rate(cosine, 10, 10.0) == 0
    step = replace(cosine, schedule="step")
    found = [learning_rate(step, 10, at) for at in (0.0, 2.9, 3.0, 4.9, 5.0, 8.9, 9.0, 10.0)]
    assert found == pytest.approx([0.4, 0.4, 0.04, 0.04, 0.004, 0.004, 4e-4, 4e-4])
    assert {learning_rate(replace(cosine, schedule="constant"), 10, at) for at in (0.0, 5.0, 10.0)} == {0.4}
    warm = replace(cosine, schedule="constant", warmup_epochs=4)
    assert [learning_rate(warm, 10, at) for at in (1.0, 3.0, 4.0, 9.0)] == pytest.approx([0.1, 0.3, 0.4, 0.4])
    # The cosine begins where the warm-up ends.
    warm = replace(warm, schedule="cosine")
    assert [learning_rate(warm, 10, at) for at in (3.0, 4.0, 7.0, 10.0)] == pytest.approx([0.3, 0.4, 0.2, 0.0])
    with pytest.raises(ValueError, match="^warmup_epochs: got 4"):
        small(optimiser=warm, epochs=4)


def test_the_rate_reaches_the_optimiser_and_clipping_the_gradient(tmp_path: Path):
    optimiser = OptimiserConfig(momentum=0.0, weight_decay=0.0, clip=1e-3, schedule="constant")
    result = trained(small(optimiser=optimiser, epochs=1, batch_size=300), tmp_path)
    torch.manual_seed(0)
    before = build_network(SMALL.network, (1, 8, 8), 10)
    moved = [(p - q).detach() for p, q in zip(result.network.parameters(), before.parameters(), strict=True)]
    # One step, along a gradient cut to norm 1e-3.
    assert math.sqrt(sum(float(x.square().sum()) for x in moved)) == pytest.approx(0.1 * 1e-3, rel=1e-2)
    assert result.history[0]["learning_rate"] == 0.1
    halfway = trained(small(), tmp_path / "cosine", stop_after=2).history
    assert halfway[1]["learning_rate"] == pytest.approx(0.05)


RESUMED = {
    "mixup": {},
    "cutmix": {"mixing": Mixing("cutmix"), "channels_last": True},
    "manifold": {"mixing": Mixing("manifold"), "loss": "mean_squared_error", "measure_every": 3},
    "none": {"mixing": Mixing("none"), "network": NetworkConfig(width=2, dim=10, etf_multiplier=1.0), "augment": True},
    "bfloat16": {"network": NetworkConfig(width=8, dim=10), "precision": "bfloat16", "channels_last": True},
    "layout": {"network": NetworkConfig(width=8, dim=10), "channels_last": True, "augment": True},
}


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
@pytest.mark.parametrize("case", RESUMED)
def test_a_run_in_two_parts_is_the_run_in_one(tmp_path: Path, case: str, optimiser: str):
    rate = 0.05 if optimiser == "sgd" else 3e-3
    config = small(**RESUMED[case], optimiser=OptimiserConfig(optimiser, learning_rate=rate))
    whole = trained(config, tmp_path / "whole")
    assert len(trained(config, tmp_path / "parts", stop_after=2).history) == 2
    torch.rand(7)  # The state of the global generator is of no account.
    parts = trained(config, tmp_path / "parts")
    assert_same_end(tmp_path / "whole", tmp_path / "parts")
    assert [line["epoch"] for line in parts.history] == [0, 1, 2, 3]
    assert not parts.network.training
    state = whole.network.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in parts.network.state_dict().items())
    # What was complete stays as it is.
    assert trained(config, tmp_path / "parts").history == parts.history
    assert ["beta" in line for line in parts.history] == [False, False, config.measure_every == 3, True]


def test_the_seed_decides_the_run(tmp_path: Path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        trained(small(epochs=1, seed=seed), tmp_path / name)
    assert_same_end(tmp_path / "a", tmp_path / "b")
    assert metrics(tmp_path / "a") != metrics(tmp_path / "c")


def test_restored_momentum_has_the_layout_of_its_parameter(tmp_path: Path):
    network = build_network(NetworkConfig(width=4, dim=10), (3, 8, 8), 10).to(memory_format=torch.channels_last)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    network(torch.randn(4, 3, 8, 8)).sum().backward()
    optimiser.step()
    save_checkpoint(tmp_path / "c", {}, State(network, optimiser), [])
    fresh = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    assert restore_checkpoint(tmp_path / "c", {}, State(network, fresh)) == []
    for parameter in network.parameters():
        saved, found = (x.state[parameter]["momentum_buffer"] for x in (optimiser, fresh))
        assert torch.equal(saved, found)
        assert saved.stride() == found.stride() == parameter.stride()


def test_another_configuration_and_damage_are_refused(tmp_path: Path):
    trained(small(epochs=1), tmp_path)
    kept = (tmp_path / "run.json").read_bytes(), (tmp_path / "metrics.jsonl").read_bytes()
    other = small(epochs=1, seed=3, optimiser=OptimiserConfig(learning_rate=0.2))
    with pytest.raises(ValueError, match=r"^out: got .*differs in config.optimiser.learning_rate, config.seed\)"):
        trained(other, tmp_path)
    content = (tmp_path / "checkpoint.safetensors").read_bytes()
    for damaged in (b"", content[: len(content) // 2], b"\xff" * 100, b"x" + content):
        (tmp_path / "checkpoint.safetensors").write_bytes(damaged)
        with pytest.raises(ValueError, match="^out: got .*a readable checkpoint"):
            trained(small(epochs=1), tmp_path)
    assert kept == ((tmp_path / "run.json").read_bytes(), (tmp_path / "metrics.jsonl").read_bytes())


def test_a_network_is_loaded_from_its_run(tmp_path: Path):
    result = trained(small(epochs=1), tmp_path)
    network = build_network(SMALL.network, (1, 8, 8), 10)
    load_network(tmp_path / "checkpoint.safetensors", network)
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in result.network.state_dict().items())
    with pytest.raises(ValueError, match="another network"):
        load_network(tmp_path / "checkpoint.safetensors", build_network(NetworkConfig(), (1, 8, 8), 10))
    with pytest.raises(ValueError, match=r"no checkpoint.safetensors"):
        load_network(tmp_path / "nowhere" / "checkpoint.safetensors", network)


@pytest.mark.parametrize("died_in", ["save_checkpoint", "write_history"])
def test_files_agree_after_a_death_between_two_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, died_in: str):
    trained(SMALL, tmp_path / "whole")
    original, calls = getattr(loop, died_in), []

    def dying(*arguments: Any) -> None:
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop, died_in, dying)
        with pytest.raises(KeyboardInterrupt):
            trained(SMALL, tmp_path / "parts")
    assert len(metrics(tmp_path / "parts")) == 2
    # Going on at the same place, the metrics are those of the checkpoint at once.
    resumed = trained(SMALL, tmp_path / "parts", stop_after=0)
    assert len(metrics(tmp_path / "parts")) == len(resumed.history) == (2 if died_in == "save_checkpoint" else 3)
    trained(SMALL, tmp_path / "parts")
    assert_same_end(tmp_path / "whole", tmp_path / "parts")


def test_a_killed_process_loses_one_epoch_at_most(tmp_path: Path):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    program = [sys.executable, str(Path(__file__).parents[1] / "helpers" / "programs" / "killed_training.py")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    # Three batches an epoch: the ninth is the last of the third epoch.
    ended = subprocess.run([*program, "9", *WORDS, "--out", str(killed)], env=environment, check=False, timeout=120)
    assert ended.returncode == -signal.SIGKILL
    assert len(metrics(killed)) == 2
    # What a write that is cut off leaves is no obstacle.
    (killed / ".ufm-part-abandoned").mkdir()
    (killed / ".ufm-part-abandoned" / "checkpoint.safetensors").write_bytes(b"half")
    trained(SMALL, killed)
    trained(SMALL, whole)
    assert_same_end(killed, whole)
    assert {path.name for path in killed.iterdir()} == {"checkpoint.safetensors", "run.json", "metrics.jsonl", ".lock"}


def test_measures_are_complete_plausible_and_leave_the_network_alone(tmp_path: Path):
    data = digits()
    result = trained(small(epochs=6, network=NetworkConfig(width=8, dim=12), measure_every=6), tmp_path, data)
    names = [
        f"{prefix}{name}_{at}" for prefix in ("", "predicted_") for name in ("width", "depth") for at in (50, 70, 90)
    ]
    names += ["nc1", "nc2", "nc3", "nc4", "test_accuracy", "test_ece", "test_nll", "etf_error", "multiplier", "beta"]
    names += ["beta_fit_free", "slope", "r2", "r2_line", "epoch", "loss", "learning_rate", "seconds"]
    figures = result.history[-1]
    assert set(figures) == set(names)
    assert all(value is None or math.isfinite(value) for value in figures.values())
    assert set(result.history[0]) == {"epoch", "loss", "learning_rate", "seconds"}
    assert 0.4 < figures["test_accuracy"] <= 1
    assert 0 <= figures["test_ece"] <= 1
    assert figures["r2"] <= 1
    assert 0 < figures["width_70"] < figures["width_90"]
    assert 0 < figures["predicted_width_70"] < figures["predicted_width_90"]
    # By hand, from the weights on disk.
    network = build_network(NetworkConfig(width=8, dim=12), (1, 8, 8), 10)
    load_network(tmp_path / "checkpoint.safetensors", network)
    logits = network.eval()(data.standardise(data.test_images))
    torch.testing.assert_close(logits_of(network, data.test_images, data), logits)
    hits = sum(int(z.argmax()) == int(k) for z, k in zip(logits, data.test_classes, strict=True))
    assert figures["test_accuracy"] == pytest.approx(hits / len(logits))
    nll = torch.nn.functional.cross_entropy(logits.double(), data.test_classes).item()
    assert figures["test_nll"] == pytest.approx(nll, rel=1e-5)
    config = small(network=NetworkConfig(width=8, dim=12))
    for mode in (True, False):
        network.train(mode)
        before = {name: value.clone() for name, value in network.state_dict().items()}
        again = measure(network, config, data.subset(300))
        assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
        assert all(module.training == mode for module in network.modules())
        assert all(figures[name] == value for name, value in again.items())


def test_measuring_a_collapsed_network_does_not_end_its_training(tmp_path: Path):
    """Weight decay beyond the collapse threshold takes the classifier to zero, where no ETF is nearest."""
    config = small(
        network=NetworkConfig(width=2, dim=10, nonnegative=True),
        optimiser=OptimiserConfig(weight_decay=20.0, learning_rate=0.05, momentum=0.0, schedule="constant"),
        epochs=60,
        measure_every=30,
    )
    result = trained(config, tmp_path)
    assert len(result.history) == 60
    assert {"test_accuracy", "test_nll"} <= result.history[-1].keys()
    assert "etf_error" not in result.history[-1]


@pytest.mark.parametrize(
    ("config", "named"),
    [
        (small(batch_size=301), "batch_size: got 301"),
        (small(optimiser=OptimiserConfig(learning_rate=1e30)), "learning_rate: got 1e.30"),
        (small(network=NetworkConfig(width=2, dim=8)), "network: got features of dimension 8"),
        (small(train_samples=5), "samples: got 5"),
        (small(network=NetworkConfig("vit", patch=3)), "patch: got 3"),
    ],
)
def test_what_cannot_be_trained_is_named(tmp_path: Path, config: TrainConfig, named: str):
    with pytest.raises(ValueError, match=f"^{named}"):
        trained(config, tmp_path)
    assert not (tmp_path / "checkpoint.safetensors").exists()


def test_devices_and_ends_are_checked(tmp_path: Path):
    for settings, named in (({"device": "tpu"}, "device"), ({"stop_after": -1}, "stop_after")):
        with pytest.raises(ValueError, match=f"^{named}: got"):
            loop.train(SMALL, digits(), tmp_path, progress=False, **settings)


def test_precision_and_layout_change_rounding_only(tmp_path: Path):
    # torch 2.13's channels-last convolutions of fewer channels write beyond their arrays on CPUs without AVX-512.
    slow = OptimiserConfig(learning_rate=0.01)
    base = small(network=NetworkConfig("resnet18", width=8), epochs=1, train_samples=200, optimiser=slow)
    cases = {"plain": {}, "layout": {"channels_last": True}, "half": {"precision": "bfloat16", "channels_last": True}}
    losses = {
        name: trained(replace(base, **changes), tmp_path / name).history[0]["loss"] for name, changes in cases.items()
    }
    assert losses["layout"] == pytest.approx(losses["plain"], rel=1e-4)
    assert losses["half"] == pytest.approx(losses["plain"], rel=0.05)
    assert losses["half"] != losses["plain"]
    assert all(value.dtype != torch.bfloat16 for value in arrays(tmp_path / "half").values())


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore")  # The compiler's own
@pytest.mark.parametrize("kind", ["mixup", "manifold"])
def test_a_compiled_network_learns_the_same(tmp_path: Path, kind: str):
    config = small(epochs=2, mixing=Mixing(kind))
    plain = trained(config, tmp_path / "plain").history
    compiled = trained(config, tmp_path / "compiled", compiled=True).history
    assert [x["loss"] for x in compiled] == pytest.approx([x["loss"] for x in plain], rel=1e-3)
    assert arrays(tmp_path / "compiled").keys() == arrays(tmp_path / "plain").keys()


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")
def test_a_gpu_trains_in_half_precision(tmp_path: Path):
    config = small(epochs=1, precision="bfloat16", channels_last=True, network=NetworkConfig("resnet18", width=8))
    result = loop.train(config, digits(), tmp_path, device="cuda", progress=False)
    assert next(result.network.parameters()).device.type == "cuda"
    assert math.isfinite(result.history[0]["loss"])
    again = loop.train(replace(config), digits(), tmp_path, device="cuda", progress=False)
    assert again.history == result.history


def test_configurations_survive_the_disk_and_have_names_of_their_own(tmp_path: Path):
    config = small(network=NetworkConfig("vit", patch=4, etf_multiplier=2.0), mixing=Mixing("cutmix", 0.3), seed=2**60)
    assert from_plain(json.loads(json.dumps(to_plain(config)))) == config
    trained(small(epochs=1), tmp_path)
    written = read_record(tmp_path).configuration
    assert from_plain(written["config"]) == small(epochs=1)
    assert written["torch"] == torch.__version__
    assert [(x["from_epoch"], x["device"], x["processes"]) for x in written["sessions"]] == [(0, "cpu", 1)]
    changed = [replace(SMALL, seed=5), small(epochs=5), small(augment=True), small(mixing=Mixing(alpha=0.9)), config]
    names = {each.name for each in [SMALL, *changed]}
    assert len(names) == 6
    assert config.name.startswith("digits-vit-cutmix-etf-seed")
    assert SMALL.name == replace(SMALL).name


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"colour": 1}, "colour"),
        ({"mixing": {"beta": 1.0}}, "beta.*mixing"),
        ({"epochs": 2.7}, "2.7, expected int.*epochs"),
        ({"epochs": "3"}, "'3', expected int"),
        ({"augment": "false"}, "'false', expected bool"),
        ({"seed": True}, "True, expected int"),
        ({"network": {"width": 2.5}}, "2.5, expected int.*network.width"),
        ({"optimiser": 3}, "optimiser"),
        ({"epochs": 0}, "epochs: got 0"),
        ({"data": None}, "None, expected str"),
        ({"optimiser": {"learning_rate": math.nan}}, "learning_rate: got nan"),
    ],
)
def test_configurations_that_do_not_fit_are_refused(change: dict[str, Any], named: str):
    with pytest.raises(ValueError, match=f"^config: got .*{named}"):
        from_plain({**to_plain(SMALL), **change})
    for value in (3, None, [1], "x"):
        with pytest.raises(ValueError, match="^config: got"):
            from_plain(value)


def test_smoothed_labels_cost_what_torch_says():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(9, 4, generator=generator, dtype=torch.float64)
    a, b = torch.randint(4, (2, 9), generator=generator)
    lam = torch.rand(9, generator=generator, dtype=torch.float64)
    of_a, of_b = (torch.nn.functional.cross_entropy(logits, k, label_smoothing=0.2, reduction="none") for k in (a, b))
    expected = (lam * of_a + (1 - lam) * of_b).mean()
    torch.testing.assert_close(soft_loss("cross_entropy", logits, a, b, lam, 0.2), expected)
    labels = PairTargets(4, a, b, lam, smoothing=0.2).labels
    by_hand = (logits - labels).square().sum(1).mean() / 2
    torch.testing.assert_close(soft_loss("mean_squared_error", logits, a, b, lam, 0.2), by_hand)
