"""Adam, for studying the dynamics of training."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ufm._support.arrays import check_number
from ufm.solvers.descent import Objective, States
from ufm.solvers.first_order import FirstOrder
from ufm.solvers.fixed_step import FixedStep, fixed_steps


@dataclass(frozen=True)
class Adam(FixedStep, FirstOrder):
    """PyTorch's Adam, on the full batch or on fresh batches of targets; see `FixedStep`.

    Attributes
    ----------
    learning_rate, schedule, batch_size
        As in `FixedStep`.
    betas : pair of float
        Decay rates of the averages of gradient and squared gradient, in [0, 1).
    epsilon : float
        > 0, added to the root of the averaged square.

    Raises
    ------
    ValueError
        For settings out of range.

    References
    ----------
    D. P. Kingma and J. Ba, "Adam: a method for stochastic optimization", ICLR 2015.
    """

    name = "adam"

    learning_rate: float | None = 1e-2
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        """Check every field."""
        super().__post_init__()
        if self.learning_rate is None:
            raise ValueError("learning_rate: got None, expected a number")
        for beta in self.betas:
            check_number("betas", beta, minimum=0, below=1)
        check_number("epsilon", self.epsilon, above=0)

    def states(self, objective: Objective, start: Tensor, max_iter: int) -> States:
        """Yield the iterates."""
        assert self.learning_rate is not None
        optimizer = torch.optim.Adam([start], lr=self.learning_rate, betas=self.betas, eps=self.epsilon)
        return fixed_steps(self, objective, start, optimizer, max_iter)
