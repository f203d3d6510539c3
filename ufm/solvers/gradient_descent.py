"""Plain gradient descent with backtracking, projected where features are bounded."""

from dataclasses import dataclass

from torch import Tensor

from ufm.solvers.descent import Objective, States, backtrack
from ufm.solvers.first_order import FirstOrder


@dataclass(frozen=True)
class GradientDescent(FirstOrder):
    """x <- P(x - step * gradient): the step is halved until accepted, and tried 10 % longer after each success."""

    name = "gradient_descent"

    def states(self, objective: Objective, start: Tensor, max_iter: int) -> States:
        """Yield the iterates."""
        state = objective.state(start)
        step = 1.0
        while True:
            yield state
            found = backtrack(objective, state, -state.gradient, step)
            if found is None:
                return
            state, step = found
            step *= 1.1
