"""A monitor in the trainers of other libraries; see the extra "integrations"."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import ufm
from tests.runs.test_monitor import K, loader, unmixed
from ufm.runs.compared import read_run

pytestmark = [
    pytest.mark.integrations,
    pytest.mark.usefixtures("unchecked"),
    # What other libraries warn of is theirs.
    pytest.mark.filterwarnings("default"),
]
EXPECTED = {"nc1", "excess_loss", "unexplained", "ece"}


def test_lightning(tmp_path: Path):
    lightning = pytest.importorskip("lightning", reason="needs the extra integrations")

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, K))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.network(x)

        def training_step(self, batch: Any, _: int) -> torch.Tensor:
            loss = torch.nn.functional.cross_entropy(self(batch[0]), batch[1])
            self.log("train_loss", loss, on_epoch=True)
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), 0.1)

    model, out = Module(), tmp_path / "run"
    logger = lightning.pytorch.loggers.CSVLogger(tmp_path)
    trainer = lightning.Trainer(
        max_epochs=3, logger=logger, enable_progress_bar=False, default_root_dir=tmp_path, accelerator="cpu"
    )
    monitor = ufm.Monitor(model, loader(), out=out, test=unmixed(), samples=100)
    assert monitor.attach(trainer) is monitor
    trainer.fit(model, loader())
    run = read_run(out)
    assert len(run.history) == 3 and run.history[-1].keys() >= EXPECTED
    assert run.history[-1]["train_loss"] == pytest.approx(float(trainer.callback_metrics["train_loss"]))
    assert run.comparison.solver_error is not None
    logged = (Path(logger.log_dir) / "metrics.csv").read_text(encoding="utf-8")
    assert "ufm/excess_loss" in logged


def test_transformers(tmp_path: Path):
    transformers = pytest.importorskip("transformers", reason="needs the extra integrations")
    config = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=8,
        patch_size=4,
        num_channels=1,
        num_labels=K,
    )
    model = transformers.ViTForImageClassification(config)
    images = torch.randn(32, 1, 8, 8)
    rows = [{"pixel_values": image, "labels": i % K} for i, image in enumerate(images)]

    def mixed(batch: list) -> dict[str, torch.Tensor]:
        x, y = torch.stack([row["pixel_values"] for row in batch]), torch.tensor([row["labels"] for row in batch])
        partner, lam, one = torch.randperm(len(x)), torch.rand(len(x), 1), torch.eye(K)[y]
        labels = lam * one + (1 - lam) * one[partner]
        return {"pixel_values": lam[..., None, None] * x + (1 - lam[..., None, None]) * x[partner], "labels": labels}

    class Trainer(transformers.Trainer):
        def compute_loss(self, model: Any, inputs: dict, return_outputs: bool = False, **_: Any) -> Any:
            labels = inputs.pop("labels")
            outputs = model(**inputs)
            loss = torch.nn.functional.cross_entropy(outputs.logits, labels)
            return (loss, outputs) if return_outputs else loss

    settings = transformers.TrainingArguments(
        output_dir=str(tmp_path / "hf"),
        num_train_epochs=2,
        per_device_train_batch_size=8,
        logging_steps=2,
        report_to=[],
        use_cpu=True,
        save_strategy="no",
        remove_unused_columns=False,
        disable_tqdm=True,
    )
    trainer = Trainer(model=model, args=settings, train_dataset=rows, data_collator=mixed)
    watched = torch.utils.data.DataLoader(rows, 8, collate_fn=mixed)
    test = torch.utils.data.DataLoader(rows, 8)
    ufm.Monitor(model, watched, out=tmp_path / "run", test=test, samples=32).attach(trainer)
    trainer.train()
    run = read_run(tmp_path / "run")
    assert len(run.history) == 2 and run.history[-1].keys() >= EXPECTED and run.history[-1]["loss"] > 0
    assert any("ufm/excess_loss" in row for row in trainer.state.log_history)


def test_tensorboard(tmp_path: Path):
    pytest.importorskip("tensorboard", reason="needs the extra integrations")
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(tmp_path / "board") as writer:
        ufm.Monitor(torch.nn.Linear(6, K), loader(), out=tmp_path / "run", logger=writer).step(loss=1.0)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(tmp_path / "board"))
    board.Reload()
    assert "ufm/excess_loss" in board.Tags()["scalars"]


def test_pandas(tmp_path: Path):
    pandas = pytest.importorskip("pandas", reason="needs the extra integrations")
    rows = loader()
    comparison = ufm.compare(ufm.record(torch.nn.Linear(6, K), rows), solver=False)
    frame = comparison.to_frame()
    assert isinstance(frame, pandas.DataFrame) and frame.loc["closed form", "r2"] == comparison.score("closed form").r2
    assert json.loads(frame.to_json())


def test_torchmetrics_agrees(tmp_path: Path):
    torchmetrics = pytest.importorskip("torchmetrics", reason="needs the extra integrations")
    generator = torch.Generator().manual_seed(0)
    logits, classes = torch.randn(500, K, generator=generator), torch.randint(K, (500,), generator=generator)
    metric = ufm.CollapseMetric(K)
    metric.update(logits, classes, logits=logits)
    other = torchmetrics.classification.MulticlassCalibrationError(K, n_bins=15)
    other.update(logits, classes)
    found = metric.compute()
    assert found.ece == pytest.approx(float(other.compute()), abs=1e-6)
    assert found.accuracy == pytest.approx((logits.argmax(1) == classes).double().mean().item())
