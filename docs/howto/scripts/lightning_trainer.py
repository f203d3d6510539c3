"""Lightning's Trainer, watched; figures go to its loggers and to runs/lightning."""

from typing import Any

import lightning
import torch
from toy import DECAY, mixed_loader, optimiser_of, unmixed_loader, untrained_model

import ufm


class Module(lightning.LightningModule):
    """The network as Lightning has it: `forward` returns the logits."""

    def __init__(self) -> None:
        """Take the untrained network."""
        super().__init__()
        self.network = untrained_model()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        return self.network(x)

    def training_step(self, batch: Any, _: int) -> torch.Tensor:
        """Return the loss of a batch."""
        loss = torch.nn.functional.cross_entropy(self(batch[0]), batch[1])
        self.log("train_loss", loss, on_epoch=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimiser."""
        return optimiser_of(self)


module, loader = Module(), mixed_loader()
trainer = lightning.Trainer(max_epochs=5, enable_progress_bar=False, logger=False, enable_checkpointing=False)

ufm.Monitor(module, loader, out="runs/lightning", test=unmixed_loader(), weight_decay=DECAY).attach(trainer)
trainer.fit(module, loader)
