"""A model from outside this project, and synthetic activations of a network that follows the theory."""

import dataclasses

import numpy as np
import torch
from torch import nn

import ufm
from ufm.labels.targets import pair_labels


class Foreign(nn.Module):
    """Somebody's network: no `features`, BatchNorm and dropout inside, its last layer under a name of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU())
        self.drop = nn.Dropout(0.5)
        self.embed = nn.Linear(8, 5)
        self.out = nn.Linear(5, 4, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(torch.tanh(self.embed(self.drop(self.stem(x)))))


def batches(count: int = 3, size: int = 7, seed: int = 0) -> list[ufm.MixedBatch]:
    generator = torch.Generator().manual_seed(seed)
    return [
        ufm.MixedBatch(
            torch.randn(size, 6, generator=generator),
            torch.randint(4, (size,), generator=generator),
            torch.randint(4, (size,), generator=generator),
            torch.rand(size, generator=generator),
        )
        for _ in range(count)
    ]


def following_the_theory(beta: float, num_classes: int = 5, samples: int = 600, noise: float = 0.0) -> ufm.Activations:
    """Return activations with an ETF classifier and the closed form at `beta` as logits, up to noise and an offset."""
    rng = np.random.default_rng(0)
    K, d = num_classes, num_classes + 2
    W = ufm.simplex_etf(K, d, 1.3, generator=torch.Generator().manual_seed(1))
    a, b = (torch.from_numpy(rng.integers(K, size=samples)) for _ in range(2))
    lam = torch.from_numpy(rng.random(samples))
    labels = pair_labels(a, b, lam, K)
    response = ufm.fixed_classifier(W, labels, 1.3**2 * K / ((K - 1) * beta))
    h = torch.as_tensor(response.features) + noise * torch.from_numpy(rng.normal(size=(samples, d)))
    return ufm.Activations(h, h @ W.T + 3.0, a, b, lam, W, description={"data": "synthetic"})


def with_logits(base: ufm.Activations, logits: torch.Tensor) -> ufm.Activations:
    """Return the same network with other logits, and with the features of least norm that give them."""
    features = (logits - logits.mean(1, keepdim=True)) @ torch.linalg.pinv(base.classifier).T
    return dataclasses.replace(base, features=features, logits=logits)


def with_own_classifier(
    W: torch.Tensor, bias: torch.Tensor, feature_decay: float, samples: int = 400
) -> ufm.Activations:
    """Return activations of a network that solves the UFM for its own classifier and bias, whatever these are."""
    base = following_the_theory(1.0, len(W), samples)
    response = ufm.fixed_classifier(W, base.labels, feature_decay, bias=bias)
    h, z = torch.as_tensor(response.features), torch.as_tensor(response.logits)
    return ufm.Activations(h, z, base.class_a, base.class_b, base.lam, W, bias)
