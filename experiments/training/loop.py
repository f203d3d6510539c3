"""The training loop: an epoch at a time, measured and checkpointed, so that a killed run continues bit for bit."""

import json
import math
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from experiments.data import ImageData
from experiments.locking import only_writer
from experiments.mixing import MixingPlan, epoch_pairs, flip_and_crop, mix_images
from experiments.networks import Network, build_network
from experiments.training.checkpoint import NAME, State, restore_checkpoint, save_checkpoint
from experiments.training.config import OptimiserConfig, TrainConfig, to_plain
from experiments.training.monitoring import measure
from experiments.training.processes import Processes, device_name, join, local_device, share_statistics
from ufm._support.arrays import check_integer
from ufm._support.files import to_json
from ufm._support.progress import progress_bar
from ufm.losses import CrossEntropy, get_loss
from ufm.runs.record import RunRecord, read_record, write_history, write_record


@dataclass(frozen=True)
class TrainResult:
    """A trained network, in evaluation mode, and the figures of each epoch; only the first process measures it."""

    network: Network
    history: list[dict[str, Any]]


def train(
    config: TrainConfig,
    data: ImageData,
    out: Path,
    *,
    device: str = "auto",
    compiled: bool = False,
    stop_after: int | None = None,
    progress: bool = True,
) -> TrainResult:
    """Train, or go on training, the network whose run is kept in the folder `out`.

    The folder gets run.json, metrics.jsonl (a line an epoch) and checkpoint.safetensors; all are complete whenever
    the process is killed, and the same call then goes on from the last epoch in the checkpoint. Under torchrun the
    processes share every batch, with BatchNorm's statistics taken over all of them; the first one writes.

    data: the whole data set that `config.data` names. device: auto, cpu or cuda. compiled: run the network through
    torch.compile. stop_after: end once so many epochs are done, as if interrupted. Raises ValueError for a checkpoint
    that is damaged or belongs to another configuration, a folder to which another process writes, a batch larger than
    the data set, d < K-1, a loss that is not finite, or processes with different arguments.
    """
    processes, target = join(config.batch_size), local_device(device)
    data = config.cut(data)
    if stop_after is not None:
        check_integer("stop_after", stop_after, minimum=0)
    samples = len(data.train_images)
    if config.epoch_steps is None and samples < config.batch_size:
        raise ValueError(f"batch_size: got {config.batch_size}, expected at most the {samples} training images")
    torch.manual_seed(config.seed)
    channels, height, width = data.train_images.shape[1:]
    network = build_network(config.network, (channels, height, width), data.num_classes).to(target)
    if network.head.in_features < data.num_classes - 1:
        dim, least = network.head.in_features, data.num_classes - 1
        raise ValueError(
            f"network: got features of dimension {dim} for {data.num_classes} classes, expected >= {least}"
        )
    if config.channels_last:
        network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    if processes.count > 1:
        share_statistics(network, target)
    state = State(network, _optimiser(config.optimiser, network))
    identity = {"config": to_plain(config), "torch": torch.__version__}
    with processes.explained():
        processes.check_same(f"{identity} {stop_after} {out} {compiled}", target)
    with processes.explained(), only_writer(out) if processes.rank == 0 else nullcontext():
        history = restore_checkpoint(out / NAME, identity, state)
        if processes.total(len(history)) != processes.count * len(history):
            raise ValueError(f"out: got {str(out)!r}, expected a folder with one checkpoint that all processes see")
        end = config.epochs if stop_after is None else min(stop_after, config.epochs)
        if processes.rank == 0:
            session = {
                "from_epoch": len(history),
                "device": device_name(target),
                "processes": processes.count,
                "threads": torch.get_num_threads(),
                "compiled": compiled,
            }
            _begin_record(out, config, data.num_classes, identity, history, session if end > len(history) else None)

        # Drawn anew, a few images are seen over and over: standardised once.
        images = (
            None if config.epoch_steps is None or config.augment else data.standardise(data.train_images.to(target))
        )
        loop = _Loop(config, data, state, processes, _runner(network, processes, target, compiled), target, images)
        show = progress and processes.rank == 0
        with progress_bar(config.epochs, config.name, unit="epoch", initial=len(history), enabled=show) as bar:
            for epoch in range(len(history), end):
                begin = time.perf_counter()
                figures: dict[str, Any] = {"epoch": epoch, **loop.epoch(epoch)}
                figures["seconds"] = time.perf_counter() - begin
                history.append(figures)
                if processes.rank == 0:
                    if (epoch + 1) % config.measure_every == 0 or epoch + 1 == config.epochs:
                        figures |= measure(network, config, data)
                    save_checkpoint(out / NAME, identity, state, history)
                    write_history(history, out)
                shown = {name: f"{figures[name]:.4g}" for name in ("loss", "test_accuracy") if name in figures}
                bar.set_postfix(shown, refresh=False)
                bar.update()
        # Nobody leaves before the first process has written its files, which the next call may read.
        processes.total(0.0)
    return TrainResult(network.eval(), history)


def soft_loss(
    loss: str,
    logits: Float[Tensor, "n K"],
    a: Int[Tensor, "n"],
    b: Int[Tensor, "n"],
    lam: Tensor,
    smoothing: float = 0.0,
) -> Tensor:
    """Return the mean loss (a scalar) of a network's own output, with the labels lam e_a + (1 - lam) e_b, smoothed."""
    if loss == CrossEntropy.name:
        # Two entries of each row are enough.
        log_p = torch.log_softmax(logits, 1)
        of_a, of_b = (log_p.gather(1, k[:, None])[:, 0] for k in (a, b))
        mixed = -(lam * of_a + (1 - lam) * of_b).mean()
        return (1 - smoothing) * mixed - smoothing * log_p.mean() if smoothing else mixed
    rows = torch.arange(len(lam), device=lam.device)
    labels = torch.zeros_like(logits)
    labels[rows, a] += lam
    labels[rows, b] += 1 - lam
    labels = (1 - smoothing) * labels + smoothing / logits.shape[1]
    function = get_loss(loss)
    # A network has a bias of its own, in the place of the loss's.
    return function.value(logits - function.own_bias(logits.shape[1]), labels).mean()


def learning_rate(config: OptimiserConfig, epochs: int, progress: float) -> float:
    """Return the learning rate after `progress` epochs (a whole number plus the fraction of the epoch that is done)."""
    if progress < config.warmup_epochs:
        return config.learning_rate * progress / config.warmup_epochs
    if config.schedule == "cosine":
        done = (progress - config.warmup_epochs) / (epochs - config.warmup_epochs)
        return config.learning_rate * (1 + math.cos(math.pi * done)) / 2
    if config.schedule == "onecycle":
        done, rise = progress / epochs, 0.3
        if done < rise:
            return config.learning_rate * (1 / 25 + (1 - 1 / 25) * (1 - math.cos(math.pi * done / rise)) / 2)
        fall = (1 + math.cos(math.pi * (done - rise) / (1 - rise))) / 2
        return config.learning_rate * (4e-6 + (1 - 4e-6) * fall)
    if config.schedule == "step":
        return config.learning_rate * 0.1 ** sum(progress >= share * epochs for share in (0.3, 0.5, 0.9))
    return config.learning_rate


@dataclass(frozen=True)
class _Loop:
    config: TrainConfig
    data: ImageData
    state: State
    processes: Processes
    runner: nn.Module
    device: torch.device
    images: Tensor | None
    """the training images, standardised, or None to standardise each batch"""

    def epoch(self, epoch: int) -> dict[str, float]:
        """Train for one epoch; return the mean loss over it, and the learning rate at its end."""
        config, data, optimiser = self.config, self.data, self.state.optimiser
        # The random numbers of an epoch depend on nothing that came before it.
        rng = np.random.default_rng([config.seed, 0, epoch])
        samples, (height, width) = len(data.train_images), data.train_images.shape[2:]
        steps, stages = config.epoch_steps or samples // config.batch_size, len(self.state.network.stages)
        self.state.network.train()
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        pairs = epoch_pairs(
            config.mixing,
            samples,
            config.batch_size,
            rng,
            image_size=(height, width),
            stages=stages,
            steps=config.epoch_steps,
        )
        for step, whole in enumerate(pairs):
            # Drawn for the whole batch, of which each process takes its rows.
            inputs, share = self._inputs(whole, rng), whole.slice(self.processes.share(config.batch_size))
            rate = learning_rate(config.optimiser, config.epochs, epoch + (step + 1) / steps)
            for group in optimiser.param_groups:
                group["lr"] = rate
            loss = self._loss(inputs, share)
            optimiser.zero_grad()
            loss.backward()
            if config.optimiser.clip is not None:
                nn.utils.clip_grad_norm_(self.state.network.parameters(), config.optimiser.clip)
            optimiser.step()
            total += loss.detach()
        mean = self.processes.total(total.item()) / (steps * self.processes.count)
        if not math.isfinite(mean):
            raise ValueError(
                f"learning_rate: got {config.optimiser.learning_rate:g}, at which the training loss is not finite"
            )
        return {"loss": mean, "learning_rate": optimiser.param_groups[0]["lr"]}

    def _inputs(self, pairs: MixingPlan, rng: np.random.Generator) -> tuple[Tensor, ...]:
        """Return the images of this process's pairs, standardised: mixed, or both, where a later stage mixes them."""
        own = self.processes.share(self.config.batch_size)
        rows = (pairs.first,) if self.config.mixing.kind == "none" else (pairs.first, pairs.second)
        if self.images is not None:
            images = [self.images[index[own].to(self.device)] for index in rows]
        else:
            raw = [self.data.train_images[index] for index in rows]
            if self.config.augment:
                raw = [flip_and_crop(images, rng) for images in raw]
            images = [self.data.standardise(x[own].to(self.device, non_blocking=True)) for x in raw]
        if self.config.channels_last:
            images = [x.contiguous(memory_format=torch.channels_last) for x in images]
        if self.config.mixing.kind == "manifold" or len(images) == 1:
            return tuple(images)
        first, second = images
        return (mix_images(first, second, pairs.slice(own)),)

    def _loss(self, inputs: tuple[Tensor, ...], pairs: MixingPlan) -> Tensor:
        a, b = (self.data.train_classes[rows].to(self.device) for rows in (pairs.first, pairs.second))
        lam = pairs.lam.to(self.device)
        half = self.config.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16) if half else nullcontext():
            logits = self.runner(*inputs) if len(inputs) == 1 else self.runner(*inputs, lam, pairs.stage)
        return soft_loss(self.config.loss, logits.float(), a, b, lam, self.config.mixing.smoothing)


def _optimiser(config: OptimiserConfig, network: Network) -> torch.optim.Optimizer:
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if config.name == "adamw":
        return torch.optim.AdamW(trained, lr=config.learning_rate, weight_decay=config.weight_decay)
    return torch.optim.SGD(trained, lr=config.learning_rate, momentum=config.momentum, weight_decay=config.weight_decay)


def _runner(network: Network, processes: Processes, device: torch.device, compiled: bool) -> nn.Module:
    runner: Any = network
    if processes.count > 1:
        runner = DistributedDataParallel(runner, device_ids=[device.index] if device.type == "cuda" else None)
    return torch.compile(runner) if compiled else runner  # pyright: ignore[reportReturnType]


def _earlier(out: Path) -> RunRecord | None:
    """Return the record that is there; None if it is damaged or gone: the checkpoint holds what is needed to go on."""
    try:
        return read_record(out)
    except ValueError:
        return None


def _begin_record(
    out: Path,
    config: TrainConfig,
    num_classes: int,
    identity: dict[str, Any],
    history: list[dict[str, Any]],
    session: dict[str, Any] | None,
) -> None:
    """Write what is trained, and on what: `session` is added to those that brought the run to its first epoch.

    Without a session nothing is to be trained, and a record that fits the checkpoint stays, comparisons included.
    """
    sessions: list[dict[str, Any]] = []
    if history and (earlier := _earlier(out)) is not None:
        if session is None and list(earlier.history) == json.loads(to_json(history)):
            return
        sessions = earlier.configuration.get("sessions", [])
    sessions = sessions if session is None else [*sessions, session]
    configuration = {**identity, "sessions": sessions}
    write_record(RunRecord(out.resolve().name, num_classes, config.training(), configuration, history), out)
