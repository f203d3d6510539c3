"""What the descent methods share: their state, and when a step is accepted."""

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

# Fraction of the predicted decrease that a step has to achieve.
SUFFICIENT_DECREASE = 0.1


@dataclass(frozen=True)
class State:
    """One iterate of a method: the point (n,), the objective, its gradient (n,) and the gradient's norm."""

    point: Float[Tensor, "n"]
    objective: float
    gradient: Float[Tensor, "n"]
    gradient_norm: float


Function = Callable[[Tensor], tuple[float, Tensor]]


def evaluate(function: Function, point: Tensor) -> State:
    """Return the state at `point`."""
    objective, gradient = function(point)
    return State(point, objective, gradient, gradient.norm().item())


def accepts(start: State, trial: State, slope: float, trial_slope: float, step: float) -> bool:
    """Return whether a step gives enough descent, also where differences of the objective are all rounding.

    slope, trial_slope: directional derivatives at both ends. Armijo's condition, where the decrease that it asks for
    can be measured, or else the approximate Wolfe condition, which judges by slopes and asks of the objective only
    that it does not rise beyond its rounding.

    Source: W. W. Hager and H. Zhang, "A new conjugate gradient method with guaranteed descent and an efficient line
    search", SIAM J. Optim. 16 (2005), eqs. (4.1) to (4.3).
    """
    decrease = -SUFFICIENT_DECREASE * step * slope
    rounding = abs(start.objective) * (1e-13 if start.point.element_size() == 8 else 1e-5)
    if decrease > rounding and trial.objective <= start.objective - decrease:
        return True
    level = trial.objective <= start.objective + rounding
    return level and trial_slope <= (2 * SUFFICIENT_DECREASE - 1) * slope
