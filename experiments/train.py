"""Training with mixup, checkpointed after every epoch so that a killed run continues bit for bit."""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from experiments.data import ImageData
from experiments.mixing import mix
from experiments.networks import SmallCNN
from ufm.arrays import check_integer, check_number
from ufm.progress import progress_bar
from ufm.storage import atomic_path


@dataclass(frozen=True)
class TrainConfig:
    """How a network is trained: SGD with momentum 0.9 and a cosine schedule, mean cross entropy on mixed labels.

    alpha: of mixup. weight_decay: on every parameter, as torch's SGD applies it: the gradient of
    (weight_decay/2) ||parameter||^2, so that it is lambda_W in the expectation convention. dim: of the features.
    """

    alpha: float = 1.0
    epochs: int = 400
    batch_size: int = 128
    learning_rate: float = 0.1
    weight_decay: float = 2e-3
    dim: int = 32
    width: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise ValueError for a number out of range."""
        for name in ("alpha", "learning_rate", "weight_decay"):
            check_number(name, getattr(self, name), above=0)
        for name in ("epochs", "batch_size", "dim", "width"):
            check_integer(name, getattr(self, name), minimum=1)
        check_integer("batch_size", self.batch_size, minimum=2)
        check_integer("seed", self.seed, minimum=0, maximum=2**63 - 1)


@dataclass(frozen=True)
class TrainResult:
    """A trained network and, per epoch, its mean training loss and test accuracy."""

    network: SmallCNN
    history: list[dict[str, float]]


def train(config: TrainConfig, data: ImageData, checkpoint: Path, *, progress: bool = True) -> TrainResult:
    """Train, or go on training, the network whose state is kept at `checkpoint`.

    Raises ValueError if the checkpoint is damaged or belongs to another configuration or data set.
    """
    torch.manual_seed(config.seed)
    network = SmallCNN(data.train_images.shape[1], data.num_classes, config.dim, config.width)
    optimiser = torch.optim.SGD(
        network.parameters(), lr=config.learning_rate, momentum=0.9, weight_decay=config.weight_decay
    )
    state = _State(network, optimiser, np.random.default_rng(config.seed))
    identity = {"data": data.name, "torch": torch.__version__, **asdict(config)}
    history = _restore(checkpoint, identity, state)
    with progress_bar(config.epochs, "training", unit="epoch", initial=len(history), enabled=progress) as bar:
        for epoch in range(len(history), config.epochs):
            for group in optimiser.param_groups:
                group["lr"] = config.learning_rate * (1 + math.cos(math.pi * epoch / config.epochs)) / 2
            loss = _epoch(state, config, data)
            if not math.isfinite(loss):
                raise ValueError(
                    f"learning_rate: got {config.learning_rate:g}, at which the training loss is not finite"
                )
            history.append({"epoch": epoch, "loss": loss, "test_accuracy": accuracy(network, data)})
            _save(checkpoint, identity, state, history)
            bar.set_postfix(loss=f"{loss:.3f}", test_accuracy=f"{history[-1]['test_accuracy']:.4f}", refresh=False)
            bar.update()
    return TrainResult(network.eval(), history)


def soft_cross_entropy(logits: Tensor, class_a: Tensor, class_b: Tensor, lam: Tensor) -> Tensor:
    """Return the mean cross entropy with the labels lam e_a + (1 - lam) e_b."""
    log_p = torch.log_softmax(logits, 1)
    of_a, of_b = (log_p.gather(1, k[:, None])[:, 0] for k in (class_a, class_b))
    return -(lam * of_a + (1 - lam) * of_b).mean()


def accuracy(network: nn.Module, data: ImageData) -> float:
    """Return the accuracy on the unmixed test images, in evaluation mode."""
    network.eval()
    with torch.no_grad():
        return (network(data.test_images).argmax(1) == data.test_classes).double().mean().item()


@dataclass(frozen=True)
class _State:
    """Everything that an epoch changes."""

    network: SmallCNN
    optimiser: torch.optim.Optimizer
    rng: np.random.Generator


def _epoch(state: _State, config: TrainConfig, data: ImageData) -> float:
    network, optimiser = state.network, state.optimiser
    network.train()
    total = 0.0
    for batch in mix(data.train_images, data.train_classes, config.alpha, config.batch_size, state.rng):
        loss = soft_cross_entropy(network(batch.inputs), batch.class_a, batch.class_b, batch.lam)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        total += loss.item() * len(batch.lam)
    return total / len(data.train_images)


def _save(path: Path, identity: dict, state: _State, history: list[dict[str, float]]) -> None:
    arrays = {f"network.{name}": value for name, value in state.network.state_dict().items()}
    for name, parameter in state.network.named_parameters():
        arrays[f"momentum.{name}"] = state.optimiser.state[parameter]["momentum_buffer"]
    rng = json.dumps(state.rng.bit_generator.state)
    metadata = {"identity": json.dumps(identity), "history": json.dumps(history), "rng": rng}
    with atomic_path(path) as temporary:
        save_file(arrays, temporary, metadata)


def _restore(path: Path, identity: dict, state: _State) -> list[dict[str, float]]:
    """Load the state at `path`, if there is one, and return the history of the epochs done."""
    if not path.exists():
        return []
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        found, history, rng = (json.loads(metadata[key]) for key in ("identity", "history", "rng"))
    except (SafetensorError, KeyError, OSError, json.JSONDecodeError) as error:
        raise ValueError(f"checkpoint: got {str(path)!r}, which is not readable ({error}); remove it") from error
    if found != identity:
        different = sorted(key for key in identity.keys() | found.keys() if identity.get(key) != found.get(key))
        raise ValueError(
            f"checkpoint: got {str(path)!r} of another configuration (it differs in {', '.join(different)}); "
            "remove it or choose another folder"
        )
    network = state.network
    try:
        network.load_state_dict({k.removeprefix("network."): v for k, v in arrays.items() if k.startswith("network.")})
        for name, parameter in network.named_parameters():
            state.optimiser.state[parameter]["momentum_buffer"] = arrays[f"momentum.{name}"]
    except (KeyError, RuntimeError) as error:
        raise ValueError(f"checkpoint: got {str(path)!r} of another network; remove it") from error
    state.rng.bit_generator.state = rng
    return history
