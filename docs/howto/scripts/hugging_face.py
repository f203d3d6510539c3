"""The Trainer of Hugging Face's transformers, watched; figures go to its log and to runs/hugging_face."""

from typing import Any

import torch
import transformers
from torch.utils.data import DataLoader

import ufm

K = 4
config = transformers.ViTConfig(
    hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=8, patch_size=4,
    num_channels=1, num_labels=K,
)  # fmt: skip
model = transformers.ViTForImageClassification(config)
rows = [{"pixel_values": torch.randn(1, 8, 8), "labels": i % K} for i in range(64)]


def mixup(batch: list) -> dict[str, torch.Tensor]:
    """Return mixed images and their soft labels."""
    x, y = torch.stack([row["pixel_values"] for row in batch]), torch.tensor([row["labels"] for row in batch])
    one, lam, partner = torch.eye(K)[y], torch.rand(len(x), 1), torch.randperm(len(x))
    mixed = lam[..., None, None] * x + (1 - lam[..., None, None]) * x[partner]
    return {"pixel_values": mixed, "labels": lam * one + (1 - lam) * one[partner]}


class Trainer(transformers.Trainer):
    """A trainer whose loss takes soft labels."""

    def compute_loss(self, model: Any, inputs: dict, return_outputs: bool = False, **_: Any) -> Any:
        """Return cross entropy, and the outputs if they are asked for."""
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        loss = torch.nn.functional.cross_entropy(outputs.logits, labels)
        return (loss, outputs) if return_outputs else loss


settings = transformers.TrainingArguments(
    "runs/checkpoints", num_train_epochs=2, report_to=[], save_strategy="no", remove_unused_columns=False, use_cpu=True
)
trainer = Trainer(model=model, args=settings, train_dataset=rows, data_collator=mixup)

ufm.Monitor(model, DataLoader(rows, 16, collate_fn=mixup), out="runs/hugging_face").attach(trainer)
trainer.train()
