"""Limited-memory BFGS with a line search that keeps working at the rounding level of the objective."""

import math
from collections import deque
from collections.abc import Iterator

import torch
from torch import Tensor

from ufm.solvers.descent import Function, State, accepts, evaluate

_CURVATURE = 0.9
_MAX_TRIALS = 40


def lbfgs(function: Function, start: Tensor, *, memory: int = 20) -> Iterator[State]:
    """Yield the iterates of L-BFGS with `memory` correction pairs.

    Source: D. C. Liu and J. Nocedal, "On the limited memory BFGS method", Math. Programming 45 (1989).
    """
    state = evaluate(function, start)
    pairs: deque[tuple[Tensor, Tensor, Tensor]] = deque(maxlen=memory)
    while True:
        yield state
        direction = -_apply_inverse(pairs, state.gradient)
        if (direction @ state.gradient).item() >= 0:
            pairs.clear()
            direction = -state.gradient
        first = 1.0 if pairs else min(1.0, 1 / state.gradient_norm)
        trial = _line_search(function, state, direction, first)
        if trial is None:
            if not pairs:
                return
            pairs.clear()
            continue
        s, y = trial.point - state.point, trial.gradient - state.gradient
        curvature = y @ s
        if curvature.item() > 0:
            pairs.append((s, y, curvature))
        state = trial


def _apply_inverse(pairs: deque[tuple[Tensor, Tensor, Tensor]], gradient: Tensor) -> Tensor:
    """Return the two-loop product of the inverse Hessian's approximation with the gradient."""
    q = gradient.clone()
    coefficients = []
    for s, y, curvature in reversed(pairs):
        a = (s @ q) / curvature
        q -= a * y
        coefficients.append(a)
    if pairs:
        _, y, curvature = pairs[-1]
        q *= curvature / (y @ y)
    for (s, y, curvature), a in zip(pairs, reversed(coefficients), strict=True):
        q += (a - (y @ q) / curvature) * s
    return q


def _line_search(function: Function, state: State, direction: Tensor, step: float) -> State | None:
    """Return a state along `direction` that meets the (approximate) Wolfe conditions; None if there is none to find.

    Bisection between a step that is too short and one that is too long, helped by the secant of the slopes.
    """
    slope = (direction @ state.gradient).item()
    low, low_slope, high, high_slope = 0.0, slope, math.inf, math.nan
    for _ in range(_MAX_TRIALS):
        trial = evaluate(function, torch.add(state.point, direction, alpha=step))
        trial_slope = (direction @ trial.gradient).item()
        if not (math.isfinite(trial.objective) and accepts(state, trial, slope, trial_slope, step)):
            high, high_slope = step, trial_slope
        elif trial_slope < _CURVATURE * slope:
            low, low_slope = step, trial_slope
        else:
            return trial
        if high == math.inf:
            step *= 4
        else:
            secant = low - low_slope * (high - low) / (high_slope - low_slope) if high_slope > 0 else math.nan
            margin = 0.1 * (high - low)
            step = secant if low + margin <= secant <= high - margin else (low + high) / 2
    return None
