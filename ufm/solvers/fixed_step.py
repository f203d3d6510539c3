"""Methods whose steps are given beforehand: PyTorch's optimisers on the UFM's unknowns."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ufm._support.arrays import check_choice, check_integer, check_number, check_size
from ufm.solvers.descent import Objective, States

SCHEDULES = ("constant", "cosine", "step")


@dataclass(frozen=True)
class FixedStep:
    """Settings that the methods with given steps share.

    Attributes
    ----------
    learning_rate : float, optional
        > 0.
    schedule : str
        "constant"; "cosine", to zero over the iteration limit; "step", times 0.1 after 30, 50 and 90 % of it.
    batch_size : int, optional
        Where given, an iteration is one pass over as many targets as there are, in batches of this many. Each batch is
        drawn afresh from the targets' law. The full objective is evaluated once per iteration.

    Raises
    ------
    ValueError
        For settings out of range.
    """

    learning_rate: float | None
    schedule: str = "constant"
    batch_size: int | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for settings out of range."""
        if self.learning_rate is not None:
            check_number("learning_rate", self.learning_rate, above=0)
        check_choice("schedule", self.schedule, SCHEDULES)
        if self.batch_size is not None:
            check_size("batch_size", check_integer("batch_size", self.batch_size, minimum=1))

    @property
    def fixed(self) -> bool:
        """Whether the steps are given beforehand."""
        return self.learning_rate is not None

    def rate(self, progress: float) -> float:
        """Return the learning rate's factor after a fraction `progress` of the iterations."""
        if self.schedule == "cosine":
            return (1 + math.cos(math.pi * min(progress, 1.0))) / 2
        return 0.1 ** sum(progress >= mark for mark in (0.3, 0.5, 0.9)) if self.schedule == "step" else 1.0


def fixed_steps(
    settings: FixedStep, objective: Objective, point: Tensor, optimizer: torch.optim.Optimizer, max_iter: int
) -> States:
    """Yield the iterates of `optimizer`, which moves `point` in place."""
    steps = 1 if settings.batch_size is None else objective.batches
    total = max(1, max_iter * steps)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: settings.rate(step / total))
    while True:
        state = objective.state(point.clone())
        yield state
        for _ in range(steps):
            point.grad = state.gradient if settings.batch_size is None else objective.batch_gradient(point)
            optimizer.step()
            scheduler.step()
            point.copy_(objective.project(point))
