"""The root of a decreasing function of log beta."""

import math
from collections.abc import Callable

_MAX_STEPS = 200
# Beyond it beta itself overflows.
_LARGEST_LOG_BETA = 690.0


def decreasing_root(function: Callable[[float], tuple[float, float]], start: float, *, falling: bool = False) -> float:
    """Return the root of a function that decreases from positive to negative, by safeguarded Newton steps.

    `function` returns value and slope. If `falling`, it decreases only beyond `start`, where it is positive.
    """
    # The signs seen so far enclose the root in (low, high). Where Newton's step leaves that interval, bisection takes
    # its place, or a fixed step outwards while one end is still unknown.
    low, high, t = (start if falling else -math.inf), math.inf, start
    for _ in range(_MAX_STEPS):
        value, slope = function(t)
        low, high = (t, high) if value >= 0 else (low, t)
        guess = t - value / slope if slope < 0 else math.inf
        if abs(guess - t) <= 1e-15 * max(1.0, abs(t)):
            return guess
        if not low < guess < high:
            bounded = math.isfinite(low) and math.isfinite(high)
            guess = (low + high) / 2 if bounded else t + (4.0 if value >= 0 else -4.0)
        # A long jump on a flat stretch says nothing about where the root is.
        guess = min(max(guess, t - 20.0), t + 20.0)
        if guess > _LARGEST_LOG_BETA:
            raise ValueError("weight_decay, feature_decay, multiplier: got values so small that beta overflows")
        if high - low <= 1e-15 * max(1.0, abs(t)):
            return guess
        t = guess
    return t
