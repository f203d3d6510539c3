"""The derived formulas at fifty digits, and the comparison of ufm's float64 results with them."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from mpmath import mp
from sympy.integrals.quadrature import gauss_jacobi

from derivations.claim import Check
from derivations.symbols import sp

DIGITS = 50
EPS = float(np.finfo(float).eps)

Number = Any  # an mpmath number
Orbit = tuple[Number, list[Number], list[int]]  # probability, distinct values of the label, multiplicity of each


def precisely(function: Callable[[], tuple[Check, ...]]) -> Callable[[], tuple[Check, ...]]:
    """Run a check with fifty digits."""
    return mp.workdps(DIGITS)(function)


def compared(
    text: str, found: Any, expected: Iterable[Number], tolerance: float, *, scale: Number | None = None
) -> Check:
    """Compare an array of ufm's, exactly as the float64 numbers it holds, with high-precision numbers.

    The error is the largest difference, relative to `scale` (by default the largest expected magnitude).
    """
    numbers = [mp.mpf(float(value)) for value in np.asarray(found, dtype=np.float64).ravel()]
    wanted = list(expected)
    if len(numbers) != len(wanted):
        raise ValueError(f"{text}: got {len(numbers)} numbers, expected {len(wanted)}")
    size = max(abs(value) for value in wanted) if scale is None else scale
    return Check(text, float(max(abs(a - b) for a, b in zip(numbers, wanted, strict=True)) / size), tolerance)


def worst(checks: Sequence[Check]) -> Check:
    """Return the check with the largest error of several that share a text and a tolerance."""
    # NaN compares as smaller than anything, and must not hide behind a number.
    return max(checks, key=lambda check: (check.error != check.error, check.error))


def evaluator(arguments: Sequence[Any], expression: Any) -> Callable[..., Number]:
    """Return a sympy expression as a function of mpmath numbers."""
    return sp.lambdify(arguments, expression, "mpmath")


def newton(residual: Callable[[Number], Number], slope: Callable[[Number], Number], start: Number) -> Number:
    """Return the root that Newton's method finds from `start`, to all but the last few digits."""
    x = start
    for _ in range(500):
        step = residual(x) / slope(x)
        x -= step
        if abs(step) <= abs(x) * mp.mpf(10) ** (8 - mp.dps):
            return x
    raise ArithmeticError(f"Newton's method did not converge from {start}")


def wright_omega(x: Number) -> Number:
    return mp.lambertw(mp.exp(x)).real


def prox(
    labels: Sequence[Number], beta: Number, counts: Sequence[int] | None = None
) -> tuple[list[Number], Number, list[Number]]:
    """Return logits, tau and probabilities from the Wright-omega form; see derivations.fixed_etf."""
    multiplicity = [1] * len(labels) if counts is None else counts

    def omegas(tau: Number) -> list[Number]:
        return [wright_omega(beta * label + tau) for label in labels]

    # The sum of the logits is concave and decreasing, and log(beta/K) lies on the right of its root.
    tau = newton(
        lambda t: mp.fsum(c * (mp.log(x) - t) for c, x in zip(multiplicity, omegas(t), strict=True)),
        lambda t: -mp.fsum(c * x / (1 + x) for c, x in zip(multiplicity, omegas(t), strict=True)),
        mp.log(beta / sum(multiplicity)),
    )
    w = omegas(tau)
    return [mp.log(x) - tau for x in w], tau, [x / beta for x in w]


def softmax(logits: Sequence[Number]) -> list[Number]:
    top = max(logits)
    exponentials = [mp.exp(entry - top) for entry in logits]
    return [entry / mp.fsum(exponentials) for entry in exponentials]


def cross_entropy(logits: Sequence[Number], label: Sequence[Number]) -> Number:
    top = max(logits)
    total = mp.log(mp.fsum(mp.exp(entry - top) for entry in logits)) + top
    return total - mp.fdot(label, logits)


def entropy(probabilities: Iterable[Number]) -> Number:
    return -mp.fsum(q * mp.log(q) for q in probabilities if q > 0)


def numbers(array: Any) -> list[Number]:
    """Return the entries of a one-dimensional float64 array, exactly."""
    return [mp.mpf(float(value)) for value in np.asarray(array, dtype=np.float64)]


def matrix(array: Any) -> Any:
    """Return a two-dimensional float64 array as an mpmath matrix, exactly."""
    return mp.matrix([numbers(row) for row in np.asarray(array, dtype=np.float64)])


def beta_nodes(alpha: int, nodes: int) -> list[tuple[Number, Number]]:
    """Return Gauss-Jacobi nodes in (0, 1) and weights summing to one, for the law Beta(alpha, alpha)."""
    points, weights = gauss_jacobi(nodes, sp.Integer(alpha - 1), sp.Integer(alpha - 1), DIGITS)
    mass = [mp.mpf(weight) for weight in weights]
    return [((1 + mp.mpf(x)) / 2, weight / mp.fsum(mass)) for x, weight in zip(points, mass, strict=True)]


def mixup_orbits(num_classes: int, alpha: int, nodes: int) -> list[Orbit]:
    """Return mixup's law reduced by class symmetry: the same-class label, and one mixed label per node."""
    K = num_classes
    same: Orbit = (mp.mpf(1) / K, [mp.mpf(1), mp.mpf(0)], [1, K - 1])
    mixed = [
        (mp.mpf(K - 1) / K * weight, [x, 1 - x, mp.mpf(0)], [1, 1, K - 2]) for x, weight in beta_nodes(alpha, nodes)
    ]
    return [same, *mixed]


def mean_square_residual(orbits: Iterable[Orbit], beta: Number) -> Number:
    """Return E ||y - p(y; beta)||^2."""
    total = mp.mpf(0)
    for weight, levels, counts in orbits:
        _, _, q = prox(levels, beta, counts)
        total += weight * mp.fsum(c * (a - b) ** 2 for c, a, b in zip(counts, levels, q, strict=True))
    return total


def mean_entropy(orbits: Iterable[Orbit], beta: Number) -> Number:
    """Return E entropy(p(y; beta))."""
    total = mp.mpf(0)
    for weight, levels, counts in orbits:
        _, _, q = prox(levels, beta, counts)
        total -= weight * mp.fsum(c * x * mp.log(x) for c, x in zip(counts, q, strict=True))
    return total


def joint_beta(orbits: Sequence[Orbit], penalties: Number, near: Number) -> Number:
    """Return the root of E ||y - p||^2 = (K-1) lambda_W lambda_H, by secants that start on both sides of `near`."""
    target = (sum(orbits[0][2]) - 1) * penalties
    start = (near * mp.mpf("0.9"), near * mp.mpf("1.1"))
    return mp.findroot(lambda beta: mp.log(mean_square_residual(orbits, beta) / target), start, solver="secant")
