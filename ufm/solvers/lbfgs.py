"""Limited-memory BFGS with a line search that keeps working at the rounding level of the objective."""

import math
from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor

from ufm._support.arrays import check_integer
from ufm.solvers.descent import Objective, State, States, accepts, backtrack
from ufm.solvers.first_order import FirstOrder

_CURVATURE = 0.9
_MAX_TRIALS = 40

# Changes of point and gradient, the newest last.
Corrections = deque[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class LBFGS(FirstOrder):
    """L-BFGS; where features are bounded, on the free ones with a projected search.

    Attributes
    ----------
    memory : int
        Number >= 1 of correction pairs.

    Raises
    ------
    ValueError
        For a memory below one.

    References
    ----------
    D. C. Liu and J. Nocedal, "On the limited memory BFGS method", Math. Programming 45 (1989); D. P. Bertsekas,
    "Projected Newton methods for optimization problems with simple constraints", SIAM J. Control Optim. 20 (1982).
    """

    name = "lbfgs"

    memory: int = 20

    def __post_init__(self) -> None:
        """Raise ValueError for a memory below one."""
        check_integer("memory", self.memory, minimum=1)

    def states(self, objective: Objective, start: Tensor, max_iter: int) -> States:
        """Yield the iterates."""
        state = objective.state(start)
        corrections: Corrections = deque(maxlen=self.memory)
        while True:
            yield state
            free = objective.free(state)
            direction = -_apply_inverse(corrections, state.gradient, free)
            if (direction @ state.gradient).item() >= 0:
                corrections.clear()
                direction = -_apply_inverse(corrections, state.gradient, free)
            first = 1.0 if corrections else min(1.0, 1 / max(state.gradient_norm, 1e-300))
            if free is None:
                trial = _line_search(objective, state, direction, first)
            else:
                found = backtrack(objective, state, direction, first)
                trial = None if found is None else found[0]
            if trial is None:
                if not corrections:
                    return
                corrections.clear()
                continue
            s, y = trial.point - state.point, trial.gradient - state.gradient
            if (y @ s).item() > 0:
                corrections.append((s, y))
            state = trial


def _apply_inverse(corrections: Corrections, gradient: Tensor, free: Tensor | None) -> Tensor:
    """Return the approximate inverse Hessian, on the free coordinates, times the gradient, by the two loops."""
    q = gradient.clone() if free is None else gradient * free
    used = []
    for s, y in reversed(corrections):
        if free is not None:
            s, y = s * free, y * free  # noqa: PLW2901
        curvature = y @ s
        # Only pairs of positive curvature are kept; on some of the coordinates it can vanish all the same.
        inverse = 1 / curvature if free is None else torch.where(curvature > 0, 1 / curvature, 0.0)
        a = (s @ q) * inverse
        q -= a * y
        used.append((s, y, inverse, a))
    if used:
        _, y, inverse, _ = used[0]
        scale = 1 / (inverse * (y @ y))
        q *= scale if free is None else torch.where(torch.isfinite(scale) & (scale > 0), scale, 1.0)
    for s, y, inverse, a in reversed(used):
        q += (a - (y @ q) * inverse) * s
    return q


def _line_search(objective: Objective, state: State, direction: Tensor, step: float) -> State | None:
    """Return a state along `direction` that meets the (approximate) Wolfe conditions; None if none is found.

    It bisects between a step that is too short and one that is too long, helped by the secant of the slopes.
    """
    slope = (direction @ state.gradient).item()
    low, low_slope, high, high_slope = 0.0, slope, math.inf, math.nan
    for _ in range(_MAX_TRIALS):
        trial = objective.state(torch.add(state.point, direction, alpha=step))
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
