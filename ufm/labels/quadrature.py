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
# Gauss nodes cost the square of their number.
_MOST_NODES = 10_000
# Of the continuous law's rule: a closed form then takes seconds, whatever is asked for.
_MOST_SYMMETRIC, _FINEST_LEVEL = 2**19, 12


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


def symmetric_rule(alpha: float, sizes: tuple[int, ...], level: int) -> Rule:
    """Return a rule for the continuous law Dirichlet(alpha sizes), for functions symmetric in parts of equal size.

    Of nodes that an exchange of such parts turns into each other it has one, where the tree of Beta laws into which
    the law is broken shows it: an eighth of all for four equal parts.

    Parameters
    ----------
    alpha : float
        Concentration, > 0; infinity as in `dirichlet_rule`.
    sizes : tuple of int
        b >= 1 positive numbers.
    level : int
        The step is 2^-level.

    Returns
    -------
    Rule
        Nodes and weights; the order of the parts is not that of `sizes`.
    """
    return dirichlet_rule(alpha, sizes) if math.isinf(alpha) else _tree(alpha, sizes, level)


def symmetric_size(sizes: tuple[int, ...], level: int) -> int:
    """Return the number of nodes of `symmetric_rule`."""
    if len(sizes) == 1:
        return 1
    one, other = _groups(sizes)
    nodes = (2 - (one == other)) * (2 * round(_RANGE * 2**level) + 1)
    return nodes * symmetric_size(one, level) * symmetric_size(other, level)


def affordable_level(patterns: list[tuple[int, ...]], level: int) -> int:
    """Return `level`, or the finest one at which the symmetric rules of all patterns have few enough nodes together.

    Raises ValueError if there are not two such levels, between which the error can be estimated.
    """
    check_integer("level", level, minimum=0, maximum=_FINEST_LEVEL)
    fitting = [x for x in range(level + 2) if sum(symmetric_size(one, x) for one in patterns) <= _MOST_SYMMETRIC]
    if len(fitting) < 2:
        ways = max(map(sum, patterns))
        raise ValueError(f"ways: got {ways} for the continuous law, expected fewer, or the argument nodes")
    return min(level, fitting[-1])


def _tree(alpha: float, sizes: tuple[int, ...], level: int) -> Rule:
    if len(sizes) == 1:
        return Rule(torch.ones(1, 1, dtype=torch.float64), torch.ones(1, dtype=torch.float64))
    groups = _groups(sizes)
    x, weights = _double_exponential(alpha * sum(groups[0]), alpha * sum(groups[1]), level)
    if groups[0] == groups[1]:
        # The second half of the rule mirrors the first.
        x, weights = x[: len(weights) // 2], 2 * weights[: len(weights) // 2]
    one, other = (_tree(alpha, group, level) for group in groups)
    shape = len(weights), len(one.weights), len(other.weights)
    first = (x[:, 0, None, None] * one.parts)[:, :, None].expand(*shape, -1)
    second = (x[:, 1, None, None] * other.parts)[:, None].expand(*shape, -1)
    weights = weights[:, None, None] * one.weights[:, None] * other.weights
    return Rule(torch.cat([first, second], -1).reshape(-1, len(sizes)), weights.reshape(-1))


def _groups(sizes: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return two groups of parts: alike if possible, else as many equal parts as make two alike ones, and the rest."""
    ordered = sorted(sizes)
    if ordered[::2] == ordered[1::2]:
        return tuple(ordered[::2]), tuple(ordered[1::2])
    often = max(set(ordered), key=ordered.count)
    alike = [often] * max(1, min(ordered.count(often), len(ordered) - 1) // 2 * 2)
    rest = [size for size in ordered if size != often] + [often] * (ordered.count(often) - len(alike))
    return tuple(alike), tuple(rest)


def _gauss(a: float, b: float, nodes: int) -> tuple[Tensor, Tensor]:
    """Return Gauss-Jacobi nodes (x, 1 - x) and weights for Beta(a, b), exact for polynomials of degree 2 nodes - 1.

    Golub and Welsch, "Calculation of Gauss quadrature rules", Math. Comp. 23 (1969).
    """
    n = check_integer("nodes", nodes, minimum=1, maximum=_MOST_NODES)
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
