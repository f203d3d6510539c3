"""Training of real networks: configuration, loop, checkpoint, measures."""

from experiments.training.config import OptimiserConfig, TrainConfig
from experiments.training.loop import TrainResult, train

__all__ = ["OptimiserConfig", "TrainConfig", "TrainResult", "train"]
