"""Quadrature for Beta and Dirichlet laws of the mixing coefficients: Gauss nodes, and a rule for the continuous law."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy import linalg
from torch import Tensor

from ufm._support.arrays import check_integer

# The double-exponential rule ends where pi sinh(t) = 40: exp(-40) is below the rounding error of the weights' sum.
_RANGE = math.asinh(40 / math.pi)
# Beyond it the coefficients deviate from their mean by a few ulp.
_LARGEST_ALPHA = 1e30


@dataclass(frozen=True)
class Rule:
    """Nodes and weights of a quadrature rule on the simplex.

    Attributes
    ----------
    parts : (M, b) tensor
        Mixing coefficients; rows sum to one. Every entry is accurate relative to its own size, however small.
    weights : (M,) tensor
        Weights of the nodes, which sum to one.
    """

    parts: Float[Tensor, "M b"]
    weights: Float[Tensor, "M"]


def dirichlet_rule(alpha: float, sizes: tuple[float, ...], nodes: int | None = None, level: int = 5) -> Rule:
    """Return a quadrature rule for Dirichlet(alpha sizes), by stick-breaking into independent Beta laws.

    Parameters
    ----------
    alpha : float
        Concentration, > 0. Infinity, or more than 1e30, gives the single node sizes / sum(sizes).
    sizes : tuple of float
        b >= 1 positive numbers. A single part is the constant 1.
    nodes : int or None
        Number of Gauss-Jacobi nodes in each of the b - 1 dimensions; None for the rule of the continuous law.
    level : int
        The step of the continuous law's rule is 2^-level.

    Returns
    -------
    Rule
        Nodes and weights.

    Raises
    ------
    ValueError
        If alpha is so extreme that Gauss nodes coincide with the ends of the interval.
    """
    one = torch.ones(1, dtype=torch.float64)
    if alpha > _LARGEST_ALPHA:
        parts = torch.tensor([sizes], dtype=torch.float64)
        return Rule(parts / parts.sum(), one)
    shapes = [alpha * size for size in sizes]
    rest, weights, parts = one, one, []
    for i, shape in enumerate(shapes[:-1]):
        remaining = math.fsum(shapes[i + 1 :])
        x, w = _gauss(shape, remaining, nodes) if nodes is not None else _double_exponential(shape, remaining, level)
        parts = [(part[:, None].expand(-1, len(w))).reshape(-1) for part in parts]
        parts.append((rest[:, None] * x[:, 0]).reshape(-1))
        rest = (rest[:, None] * x[:, 1]).reshape(-1)
        weights = (weights[:, None] * w).reshape(-1)
    return Rule(torch.stack([*parts, rest], -1), weights)


def _gauss(a: float, b: float, nodes: int) -> tuple[Tensor, Tensor]:
    """Return Gauss-Jacobi nodes (x, 1 - x) and weights for Beta(a, b), exact for polynomials of degree 2 nodes - 1.

    Golub and Welsch, "Calculation of Gauss quadrature rules", Math. Comp. 23 (1969).
    """
    n = check_integer("nodes", nodes, minimum=1)
    # Nodes are the eigenvalues of the tridiagonal matrix of the three-term recurrence, weights the squared first
    # entries of its eigenvectors. Unlike the polynomials themselves, the matrix overflows for no parameter.
    p, q = b - 1, a - 1
    k = np.arange(1, n, dtype=float)
    middle = 2 * (k - 1) + (a + b)  # 2k + p + q, accurate even where p and q round to -1
    diagonal = np.concatenate([[(a - b) / (a + b)], (q - p) * (q + p) / (middle * (middle + 2))])
    # The general form of the first entry is 0/0 for a + b = 1, so its factors 1 + p + q are cancelled by hand.
    squares = np.full(n - 1, 4 * (a / (a + b)) * (b / (a + b)) / (a + b + 1))
    k, middle = k[1:], middle[1:]
    squares[1:] = 4 * k * (k + p) * (k + q) * (k + p + q) / (middle**2 * (middle + 1) * (middle - 1))
    t, vectors = linalg.eigh_tridiagonal(diagonal, np.sqrt(squares))
    x, weights = torch.from_numpy((1 + t) / 2), torch.from_numpy(vectors[0] ** 2)
    if not (bool(((x > 0) & (x < 1)).all()) and bool((weights > 0).all())):
        raise ValueError(
            f"alpha, nodes: got Beta({a:g}, {b:g}) with {n} nodes, which fall together with the ends of the interval, "
            "expected less extreme ones; the continuous law, nodes=None, has no such limit"
        )
    return torch.stack([x, 1 - x], -1), weights / weights.sum()


def _double_exponential(a: float, b: float, level: int) -> tuple[Tensor, Tensor]:
    """Return nodes (x, 1 - x) and weights of a tanh-sinh rule for the continuous law Beta(a, b).

    Takahasi and Mori, "Double exponential formulas for numerical integration", Publ. RIMS 9 (1974).
    """
    # Each half of the interval has its own rule. The substitution x = s^(1/min(a, 1))/2 (from the other end, with b)
    # removes an infinite density at the end point. Tanh-sinh in s then resolves every scale of x down to the smallest
    # number, which integrands that vary where x is about 1/(K beta) need.
    steps = round(_RANGE * 2**level)
    t = torch.arange(-steps, steps + 1, dtype=torch.float64) / 2**level
    log_s = torch.nn.functional.logsigmoid(math.pi * t.sinh())
    log_step = log_s + torch.nn.functional.logsigmoid(-math.pi * t.sinh()) + t.cosh().log()

    def half(near: float, far: float) -> tuple[Tensor, Tensor]:
        power = min(near, 1.0)
        log_x = log_s / power - math.log(2)
        x = log_x.exp()
        # x^(near-1) dx = constant x^(near-power) ds. The constant matters because it differs between the halves.
        constant = -power * math.log(2) - math.log(power)
        return x, log_step + (near - power) * log_x + (far - 1) * torch.log1p(-x) + constant

    (left, left_log), (right, right_log) = half(a, b), half(b, a)
    nodes = torch.cat([torch.stack([left, 1 - left], -1), torch.stack([1 - right, right], -1)])
    return nodes, torch.softmax(torch.cat([left_log, right_log]), 0)
