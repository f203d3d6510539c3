"""A monitor measures training without disturbing it, within its share of the time, and its record is a run's."""

import json
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import ufm
from ufm.reports import report
from ufm.runs import monitor as module
from ufm.runs.compared import read_run

K = 4


def loader(generator: torch.Generator | None = None) -> DataLoader:
    x = torch.randn(120, 6, generator=torch.Generator().manual_seed(0))
    y = torch.arange(120) % K
    x = x + 4 * torch.eye(K, 6)[y]

    def mixed(batch: list) -> tuple[torch.Tensor, torch.Tensor]:
        x, y = map(torch.stack, zip(*batch, strict=True))
        partner, lam, one = torch.randperm(len(x)), torch.rand(len(x), 1), torch.eye(K)[y]
        return lam * x + (1 - lam) * x[partner], lam * one + (1 - lam) * one[partner]

    return DataLoader(TensorDataset(x, y), 40, shuffle=True, collate_fn=mixed, generator=generator)


def unmixed() -> DataLoader:
    return DataLoader(loader().dataset, 40)


def train(watch: Any, epochs: int, generator: torch.Generator | None = None) -> torch.nn.Module:
    """Train a small network, with `watch(model, batches)` before, and its step after each epoch."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.BatchNorm1d(8), torch.nn.ReLU(), torch.nn.Linear(8, K))
    optimiser = torch.optim.SGD(model.parameters(), 0.1)
    batches = loader(generator)
    monitor = watch(model, batches)
    for _ in range(epochs):
        for x, y in batches:
            optimiser.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimiser.step()
        if monitor is not None:
            monitor.step(loss=loss)
    if monitor is not None:
        monitor.close()
    return model


def test_the_record_is_a_run_that_can_be_reported(tmp_path: Path):
    out = tmp_path / "deep" / "run"
    model = train(
        lambda model, batches: ufm.Monitor(model, batches, out=out, weight_decay=1e-2, test=unmixed(), samples=100), 3
    )
    run = read_run(out)
    assert run.name == "run" and [row["epoch"] for row in run.history] == [0, 1, 2]
    for row in run.history:
        assert row["loss"] > 0 and row["excess_loss"] > 0 and 0 <= row["ece"] <= 1 and row["gap"] > 0
    assert run.training.classifier_decay == 1e-2 and run.training.mixing == "mixup" and run.training.epochs == 3
    assert run.calibration is not None and run.samples is not None and len(run.samples.features) == 100
    # The figures are those of the network at the end of the last epoch, as anybody would measure them.
    x, y = unmixed().dataset.tensors  # pyright: ignore
    with torch.no_grad():
        logits = model.eval()(x[:100])
    measured = ufm.measure_calibration(logits, y[:100])
    assert run.history[-1]["ece"] == pytest.approx(measured.ece) and run.history[-1]["test_accuracy"] == (
        pytest.approx(measured.accuracy)
    )
    again = ufm.compare(run.samples, weight_decay=1e-2, solver=False)
    assert run.history[-1]["excess_loss"] == pytest.approx(again.departure.excess, rel=1e-5)
    assert run.history[-1]["unexplained"] == pytest.approx(1 - again.score("closed form").r2, rel=1e-5)
    assert run.comparison.solver_error is not None
    page = report([run], "ufm report").html()
    assert "over training" in page


@pytest.mark.parametrize("own", [False, True])
def test_training_goes_on_as_if_nobody_watched(own: bool, tmp_path: Path):
    generators = [torch.Generator().manual_seed(3) if own else None for _ in range(2)]
    alone = train(lambda *_: None, 3, generators[0])
    watched = train(lambda model, batches: ufm.Monitor(model, batches, out=tmp_path, samples=60), 3, generators[1])
    for x, y in zip(alone.state_dict().values(), watched.state_dict().values(), strict=True):
        assert torch.equal(x, y)


def test_every_so_many_epochs_and_no_more_than_the_share_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    clock = [0.0]
    monkeypatch.setattr(module, "time", types.SimpleNamespace(perf_counter=lambda: clock[0]))
    monkeypatch.setattr(module, "_FREE", 0.0)
    record = module.record

    def slow(*args: Any, **options: Any) -> ufm.Activations:
        clock[0] += 3.0
        return record(*args, **options)

    monkeypatch.setattr(module, "record", slow)
    model = torch.nn.Linear(6, K)
    monitor = ufm.Monitor(model, loader(), out=tmp_path, every=2, share=0.1)
    for _ in range(40):
        clock[0] += 10.0
        monitor.step()
        assert monitor.record is None or monitor.cost <= 0.1 or len(monitor.history) < 6
    measured = [row["epoch"] for row in monitor.history if "nc1" in row]
    # The first is made whatever it costs: 3 s in 23. The next ones wait until they fit in a tenth of the time.
    assert measured[:3] == [1, 5, 9] and all(epoch % 2 for epoch in measured)
    assert monitor.history[4]["seconds"] == pytest.approx(10.0)
    assert [row["epoch"] for row in map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())] == [
        *range(40)
    ]


def test_an_error_leaves_what_was_measured_before(tmp_path: Path):
    with (
        pytest.raises(RuntimeError, match="out of luck"),
        ufm.Monitor(torch.nn.Linear(6, K), loader(), out=tmp_path) as one,
    ):
        one.step()
        raise RuntimeError("out of luck")
    run = read_run(tmp_path)
    assert len(run.history) == 1 and run.comparison.solver_error is None
    with ufm.Monitor(torch.nn.Linear(6, K), loader(), out=tmp_path, overwrite=True) as one:
        assert not (tmp_path / "run.json").exists()
    assert read_run(tmp_path).comparison.solver_error is not None and not read_run(tmp_path).history


class Writer:
    def __init__(self) -> None:
        self.seen: dict[str, list] = {}

    def add_scalar(self, name: str, value: float, epoch: int) -> None:
        self.seen.setdefault(name, []).append((epoch, value))


def test_figures_go_to_the_logger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    writer, rows, lightning, wandb = Writer(), [], [], []
    loggers = {
        "writer": writer,
        "function": lambda row, epoch: rows.append((epoch, row)),
        "lightning": types.SimpleNamespace(log_metrics=lambda row, step: lightning.append((step, row))),
        "run": types.SimpleNamespace(log=wandb.append),
    }
    for name, logger in loggers.items():
        ufm.Monitor(torch.nn.Linear(6, K), loader(), out=tmp_path / name, logger=logger).step(loss=torch.tensor(2.0))
    assert writer.seen["ufm/loss"] == [(0, 2.0)] and writer.seen["ufm/excess_loss"][0][1] > 0
    assert rows[0][0] == lightning[0][0] == 0
    assert {"ufm/loss", "ufm/unexplained"} <= rows[0][1].keys() & lightning[0][1].keys() & wandb[0].keys()
    # No weight decay was given, and what does not exist is not sent.
    assert "ufm/gap" not in rows[0][1]
    under_way: list = []
    monkeypatch.setitem(
        module.sys.modules, "wandb", types.SimpleNamespace(run=types.SimpleNamespace(log=under_way.append))
    )
    ufm.Monitor(torch.nn.Linear(6, K), loader(), out=tmp_path / "under way").step()
    assert under_way[0]["ufm/epoch"] == 0


def test_other_processes_go_on_without_measuring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_first_process", lambda: False)
    monitor = ufm.Monitor(torch.nn.Linear(6, K), loader(), out=tmp_path)
    assert "nc1" not in monitor.step(loss=1.0)
    assert monitor.close() is None and not (tmp_path / "run.json").exists()


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"every": 0}, "every"),
        ({"share": 0.0}, "share"),
        ({"share": 1.5}, "share"),
        ({"samples": 1}, "samples"),
        ({"weight_decay": -1.0}, "weight_decay"),
        ({"loss": "hinge"}, "loss"),
        ({"logger": 3}, "logger"),
        ({"loader": iter([])}, "loader"),
        ({"test": iter([])}, "test"),
    ],
)
def test_bad_input_is_named(change: dict[str, Any], named: str, tmp_path: Path):
    given = {"model": torch.nn.Linear(6, K), "loader": loader(), "out": tmp_path / "run"} | change
    with pytest.raises(ValueError, match=f"^{named}: got"):
        ufm.Monitor(**given)
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("unchecked")
def test_bad_use_is_named(tmp_path: Path):
    with ufm.Monitor(torch.nn.Linear(6, K), loader(), out=tmp_path) as monitor:
        with pytest.raises(ValueError, match="^loss: got str"):
            monitor.step(loss="small")
        with pytest.raises(ValueError, match="^trainer: got object"):
            monitor.attach(object())
    with pytest.raises(ValueError, match="^out: got .* holds a run already"):
        ufm.Monitor(torch.nn.Linear(6, K), loader(), out=tmp_path)
    other = ufm.Monitor(torch.nn.Linear(6, K), loader(), out=tmp_path / "other", test=loader())
    with pytest.raises(ValueError, match="^test: got mixed labels"):
        other.step()
