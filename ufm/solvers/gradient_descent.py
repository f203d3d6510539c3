"""Plain gradient descent with backtracking."""

import math
from collections.abc import Iterator

from torch import Tensor

from ufm.solvers.descent import Function, State, accepts, evaluate


def gradient_descent(function: Function, start: Tensor) -> Iterator[State]:
    """Yield the iterates of x - step * gradient, the step halved until accepted and tried longer after each success."""
    state = evaluate(function, start)
    step = 1.0
    while True:
        yield state
        slope = -(state.gradient_norm**2)
        while True:
            trial = evaluate(function, state.point - step * state.gradient)
            trial_slope = -(trial.gradient @ state.gradient).item()
            if math.isfinite(trial.objective) and accepts(state, trial, slope, trial_slope, step):
                break
            step /= 2
            if step < 1e-20:
                return
        state = trial
        step *= 1.1
