"""What the methods that descend in all unknowns at once share: their state, and when a step is accepted."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

# Fraction of the predicted decrease that a step has to achieve.
SUFFICIENT_DECREASE = 0.1


@dataclass(frozen=True)
class State:
    """One iterate.

    Attributes
    ----------
    point : (n,) tensor
        The unknowns.
    gradient : (n,) tensor
        The gradient there.
    figures : (2,) tensor
        The objective, and the norm of the gradient within the constraints. They stay on their device until they are
        read, so that a method with fixed steps need not wait for them.
    """

    point: Float[Tensor, "n"]
    gradient: Float[Tensor, "n"]
    figures: Float[Tensor, "2"]

    @cached_property
    def _values(self) -> list[float]:
        return self.figures.tolist()

    @property
    def objective(self) -> float:
        """The objective."""
        return self._values[0]

    @property
    def gradient_norm(self) -> float:
        """The norm of the gradient within the constraints."""
        return self._values[1]


@runtime_checkable
class Objective(Protocol):
    """A function to be minimised, some of its coordinates perhaps bounded below by zero."""

    def state(self, point: Float[Tensor, "n"]) -> State:
        """Return the state at `point`."""
        ...

    def project(self, point: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
        """Return the nearest point within the bounds."""
        ...

    def free(self, state: State) -> Float[Tensor, "n"] | None:
        """Return 1 where a coordinate may move downhill and 0 where its bound holds it; None without bounds."""
        ...

    def batch_gradient(self, point: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
        """Return an unbiased estimate of the gradient from a fresh batch of targets."""
        ...

    @property
    def batches(self) -> int:
        """The number of batches whose targets are as many as all targets."""
        ...


States = Iterator[State]


def accepts(start: State, trial: State, slope: float, trial_slope: float, step: float) -> bool:
    """Return whether a step gives enough descent, also where differences of the objective are all rounding.

    Armijo's condition decides where the decrease that it asks for can be measured. Elsewhere the approximate Wolfe
    condition does, which judges by slopes and asks of the objective only that it does not rise beyond its rounding.

    Parameters
    ----------
    start, trial : State
        Both ends of the step.
    slope, trial_slope : float
        Directional derivatives there.
    step : float
        The step's length.

    References
    ----------
    W. W. Hager and H. Zhang, "A new conjugate gradient method with guaranteed descent and an efficient line search",
    SIAM J. Optim. 16 (2005), eqs. (4.1) to (4.3).
    """
    decrease = -SUFFICIENT_DECREASE * step * slope
    rounding = abs(start.objective) * (1e-13 if start.point.element_size() == 8 else 1e-5)
    if decrease > rounding and trial.objective <= start.objective - decrease:
        return True
    level = trial.objective <= start.objective + rounding
    return level and trial_slope <= (2 * SUFFICIENT_DECREASE - 1) * slope


def backtrack(objective: Objective, state: State, direction: Tensor, step: float) -> tuple[State, float] | None:
    """Return the first acceptable state among P(x + t direction), t = step, step/2, ..., and its t; None if none is.

    P projects onto the bounds. Slopes are taken along P(x + t direction) - x, as the projection may bend the way.
    """
    while step >= 1e-20:
        point = objective.project(state.point + step * direction)
        way = (point - state.point) / step
        slope = (way @ state.gradient).item()
        if slope >= 0:
            return None
        trial = objective.state(point)
        # Comparisons with NaN are false, so that a step that leaves the finite numbers is refused.
        if accepts(state, trial, slope, (way @ trial.gradient).item(), step):
            return trial, step
        step /= 2
    return None
