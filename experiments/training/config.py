"""How a network is trained: a typed configuration, and its form on disk."""

import json
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from experiments.data import DATA_SETS, ImageData
from experiments.mixing import Mixing
from experiments.networks import NetworkConfig
from ufm._support.arrays import check_choice, check_integer, check_number
from ufm._support.structuring import strict_converter, structure
from ufm.labels.laws import CutMix, LabelSmoothing, Law, Mixup as MixupLaw, Unmixed
from ufm.losses import LOSSES, get_loss
from ufm.runs.record import Training


@dataclass(frozen=True)
class OptimiserConfig:
    """Steps and their sizes."""

    name: str = "sgd"
    """sgd (with momentum) or adamw"""
    learning_rate: float = 0.1
    """the largest, > 0"""
    momentum: float = 0.9
    """of sgd, in [0, 1)"""
    weight_decay: float = 2e-3
    """>= 0, on every parameter. With sgd it is the gradient of (weight_decay/2) ||parameter||^2, lambda_W in the
    expectation convention; with adamw it is decoupled from the loss, and no lambda_W"""
    schedule: str = "cosine"
    """cosine (to zero), step (times 0.1 at 30, 50 and 90 % of the epochs), onecycle (half a cosine up from 1/25 of the
    learning rate over the first 30 % of the steps, half a cosine down to 1/250,000 of it over the rest; momentum stays)
    or constant"""
    warmup_epochs: int = 0
    """over which the rate rises linearly, >= 0"""
    clip: float | None = None
    """limit on the norm of the gradient, > 0; None for none"""

    def __post_init__(self) -> None:
        """Raise ValueError for a value out of range."""
        check_choice("name", self.name, ("sgd", "adamw"))
        check_choice("schedule", self.schedule, ("cosine", "step", "onecycle", "constant"))
        check_number("learning_rate", self.learning_rate, above=0)
        check_number("momentum", self.momentum, minimum=0, below=1)
        check_number("weight_decay", self.weight_decay, minimum=0)
        check_integer("warmup_epochs", self.warmup_epochs, minimum=0)
        if self.schedule == "onecycle" and self.warmup_epochs:
            raise ValueError(
                f"warmup_epochs: got {self.warmup_epochs} with onecycle, which rises by itself; expected 0"
            )
        if self.clip is not None:
            check_number("clip", self.clip, above=0)


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides what a training run computes."""

    data: str = "digits"
    """digits, mnist, fashion-mnist, cifar10, cifar10-jpeg or cifar100"""
    num_classes: int | None = None
    """train and test on the images of the first so many classes, >= 3; None for all"""
    train_samples: int | None = None
    """train on a class-balanced random subset of this size; None for all"""
    network: NetworkConfig = field(default_factory=NetworkConfig)
    mixing: Mixing = field(default_factory=Mixing)
    loss: str = "cross_entropy"
    """cross_entropy, or mean_squared_error: (1/2) ||logits - label||^2"""
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    epochs: int = 400
    """passes over the training images, or runs of `epoch_steps` steps, >= 1"""
    epoch_steps: int | None = None
    """steps of an epoch in which every image of every batch is drawn anew, independently and with replacement, as its
    partner is, >= 1; None for passes over the training images in random order"""
    batch_size: int = 128
    """over all processes together, >= 2; at most the number of training images, unless they are drawn anew"""
    augment: bool = False
    """mirror and shift the training images at random"""
    precision: str = "float32"
    """float32 or bfloat16 (of the network's arithmetic; parameters stay float32)"""
    channels_last: bool = False
    """memory layout of images and convolutions; changes rounding only"""
    measure_every: int = 1
    """measure loss, calibration, collapse and channel every so many epochs, and after the last, >= 1"""
    seed: int = 0
    """of initial weights, order, partners and mixing coefficients"""

    def __post_init__(self) -> None:
        """Raise ValueError for a value out of range."""
        check_choice("data", self.data, DATA_SETS)
        check_choice("loss", self.loss, tuple(LOSSES))
        check_choice("precision", self.precision, ("float32", "bfloat16"))
        if self.train_samples is not None:
            check_integer("train_samples", self.train_samples, minimum=1)
        if self.num_classes is not None:
            check_integer("num_classes", self.num_classes, minimum=3)
        if self.epoch_steps is not None:
            check_integer("epoch_steps", self.epoch_steps, minimum=1)
        check_integer("epochs", self.epochs, minimum=1)
        check_integer("warmup_epochs", self.optimiser.warmup_epochs, minimum=0, maximum=self.epochs - 1)
        check_integer("batch_size", self.batch_size, minimum=2)
        check_integer("measure_every", self.measure_every, minimum=1)
        check_integer("seed", self.seed, minimum=0, maximum=2**63 - 1)

    @property
    def name(self) -> str:
        """What the run's folder is called by default: readable, and different for different configurations."""
        words = [self.data, self.network.architecture, self.mixing.kind]
        words += ["mse"] if self.loss == "mean_squared_error" else []
        words += ["etf"] if self.network.etf_multiplier is not None else []
        digest = sha256(json.dumps(to_plain(self), sort_keys=True).encode()).hexdigest()[:8]
        return "-".join([*words, f"seed{self.seed}", digest])

    @property
    def classifier_decay(self) -> float | None:
        """lambda_W of the trained classifier, from which theory has beta, or None where there is none.

        That is for a classifier that is fixed, not decayed or decayed by no penalty, and for the mean squared error.
        """
        optimiser = self.optimiser
        penalised = optimiser.name == "sgd" and optimiser.weight_decay > 0 and self.network.etf_multiplier is None
        predicted = get_loss(self.loss).prediction_name == "closed form"
        return optimiser.weight_decay if penalised and predicted else None

    def training(self) -> Training:
        """Return what the record of a run says of its training."""
        return Training(
            mixing=self.mixing.kind,
            alpha=None if self.mixing.kind == "none" else self.mixing.alpha,
            smoothing=self.mixing.smoothing,
            loss=self.loss,
            fixed_etf=self.network.etf_multiplier is not None,
            classifier_decay=self.classifier_decay,
            data=self.data,
            architecture=self.network.architecture,
            epochs=self.epochs,
            seed=self.seed,
        )

    def cut(self, data: ImageData) -> ImageData:
        """Return the data set that `data` names, cut to the classes and the training images that are trained on."""
        if self.num_classes is not None:
            data = data.first_classes(self.num_classes)
        return data if self.train_samples is None else data.subset(self.train_samples, self.seed)

    def law(self, num_classes: int) -> Law:
        """Return the law of the training labels."""
        kind, alpha, smoothing = self.mixing.kind, self.mixing.alpha, self.mixing.smoothing
        mixed = CutMix if kind == "cutmix" else MixupLaw
        law = Unmixed(num_classes) if kind == "none" else mixed(num_classes, alpha)
        return LabelSmoothing(law, smoothing) if smoothing else law

    def evaluation_mixing(self) -> Mixing:
        """Return the mixing that the network is measured and recorded under: its own, and mixup for one without."""
        return Mixing(alpha=1.0, smoothing=self.mixing.smoothing) if self.mixing.kind == "none" else self.mixing


_CONVERTER = strict_converter()


def to_plain(config: TrainConfig) -> dict[str, Any]:
    """Return the configuration as JSON has it."""
    return _CONVERTER.unstructure(config)


def from_plain(value: Any) -> TrainConfig:
    """Return the configuration that `to_plain` gave; raise ValueError for unknown fields or values out of range."""
    if not isinstance(value, dict):
        raise ValueError(f"config: got {type(value).__name__}, expected a table of fields")
    try:
        return structure(_CONVERTER, value, TrainConfig)
    except ValueError as error:
        raise ValueError(f"config: got a configuration that does not fit ({error})") from error
