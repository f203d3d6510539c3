"""A head that is no Linear, here cosines with a scale: functions say what its features and its classifier are."""

import torch
from torch.nn.functional import normalize
from toy import K, mixed_loader, trained_model

import ufm


class Cosine(torch.nn.Module):
    """Logits are scale times the cosine between features and rows."""

    def __init__(self) -> None:
        """Take a trained body, and random rows."""
        super().__init__()
        self.body, self.rows, self.scale = trained_model()[:-1], torch.nn.Parameter(torch.randn(K, 16)), 10.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        return self.scale * normalize(self.body(x), dim=1) @ normalize(self.rows, dim=1).T


model = Cosine()
activations = ufm.record(
    model,
    mixed_loader(),
    features=lambda x: normalize(model.body(x), dim=1),
    classifier=lambda: model.scale * normalize(model.rows, dim=1),
)
print(ufm.compare(activations).score("closed form").r2)
