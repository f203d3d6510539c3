"""Gradient descent with momentum: Nesterov's with adaptive steps, or heavy ball and Nesterov with given ones."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ufm._support.arrays import check_number
from ufm.solvers.descent import Objective, States, backtrack
from ufm.solvers.first_order import FirstOrder
from ufm.solvers.fixed_step import FixedStep, fixed_steps


@dataclass(frozen=True)
class Momentum(FixedStep, FirstOrder):
    """Gradient descent with momentum.

    Attributes
    ----------
    learning_rate : float, optional
        Where None, Nesterov's accelerated gradient with backtracking and restarts, which needs no tuning. Otherwise
        PyTorch's SGD with this rate: the dynamics of training.
    schedule, batch_size
        As in `FixedStep`; with a learning rate only.
    momentum : float
        Of SGD, in [0, 1).
    nesterov : bool
        Whether the momentum of SGD is Nesterov's.

    Raises
    ------
    ValueError
        For settings out of range, and for batches or a schedule without a learning rate.

    References
    ----------
    Y. Nesterov (1983); B. O'Donoghue and E. Candes, "Adaptive restart for accelerated gradient schemes", Found. Comput.
    Math. 15 (2015).
    """

    name = "momentum"

    learning_rate: float | None = None
    momentum: float = 0.9
    nesterov: bool = False

    def __post_init__(self) -> None:
        """Check every field."""
        super().__post_init__()
        check_number("momentum", self.momentum, minimum=0, below=1)
        if self.learning_rate is None and (self.batch_size is not None or self.schedule != "constant"):
            raise ValueError("learning_rate: got None with batches or a schedule, expected a number")

    def states(self, objective: Objective, start: Tensor, max_iter: int) -> States:
        """Yield the iterates."""
        if self.learning_rate is None:
            return _accelerated(objective, start)
        optimizer = torch.optim.SGD(
            [start], lr=self.learning_rate, momentum=self.momentum, nesterov=self.nesterov and self.momentum > 0
        )
        return fixed_steps(self, objective, start, optimizer, max_iter)


def _accelerated(objective: Objective, start: Tensor) -> States:
    state = ahead = objective.state(start)
    step, age = 1.0, 0
    while True:
        yield state
        found = backtrack(objective, ahead, -ahead.gradient, step)
        if found is None:
            if ahead is state:
                return
            ahead, age = state, 0
            continue
        previous, (state, step) = state, found
        if age and not state.objective <= previous.objective:
            # Momentum has carried the point uphill: back, and on without it.
            state = ahead = previous
            age = 0
            continue
        way = state.point - previous.point
        if (ahead.gradient @ way).item() > 0:
            age = 0
        age += 1
        coefficient = (age - 1) / (age + 2)
        ahead = objective.state(objective.project(state.point + coefficient * way)) if coefficient else state
        step *= 1.1
