"""A small network and its data, in the place of yours: five classes of points, mixed as in training."""

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

K, DECAY = 5, 1e-3


def points() -> TensorDataset:
    """Return 100 points in 20 dimensions, and their classes."""
    draw = torch.Generator().manual_seed(0)
    classes = torch.arange(100) % K
    return TensorDataset(torch.randn(100, 20, generator=draw) + 4 * torch.eye(K, 20)[classes], classes)


def mixup(batch: list) -> tuple[Tensor, Tensor]:
    """Mix a batch with itself in another order: inputs (n, 20), and soft labels (n, K)."""
    x, classes = (torch.stack(column) for column in zip(*batch, strict=True))
    y, lam, partner = torch.eye(K)[classes], torch.rand(len(x), 1), torch.randperm(len(x))
    return lam * x + (1 - lam) * x[partner], lam * y + (1 - lam) * y[partner]


def mixed_loader(repeats: int = 20) -> DataLoader:
    """Return a loader of mixed batches; each point comes `repeats` times an epoch."""
    data = torch.utils.data.ConcatDataset([points()] * repeats)
    return DataLoader(data, 100, shuffle=True, collate_fn=mixup)


def unmixed_loader() -> DataLoader:
    """Return a loader of unmixed batches."""
    return DataLoader(points(), 100)


def untrained_model() -> nn.Sequential:
    """Return a perceptron with 16 features and a linear classifier."""
    torch.manual_seed(0)
    layers = nn.Linear(20, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 16), nn.Linear(16, K)
    return nn.Sequential(*layers)


def train_epoch(model: nn.Module, optimiser: torch.optim.Optimizer, loader: DataLoader) -> Tensor:
    """Train on all batches, and return the last one's loss."""
    loss = torch.zeros(())
    for x, y in loader:
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimiser.step()
    return loss.detach()


def optimiser_of(model: nn.Module) -> torch.optim.Optimizer:
    """Return stochastic gradient descent with weight decay."""
    return torch.optim.SGD(model.parameters(), 0.1, 0.9, weight_decay=DECAY)


def trained_model(loader: DataLoader | None = None, epochs: int = 30) -> nn.Sequential:
    """Return the perceptron after some epochs of training with mixup."""
    model = untrained_model()
    optimiser, loader = optimiser_of(model), mixed_loader() if loader is None else loader
    for _ in range(epochs):
        train_epoch(model, optimiser, loader)
    return model
