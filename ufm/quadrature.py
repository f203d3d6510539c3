"""Averages over Beta and Dirichlet laws of the mixing coefficients: discrete Gauss nodes, and a continuous rule."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy import special
from torch import Tensor

from ufm.arrays import check_integer

# pi sinh(t) at the ends of the double-exponential rule: exp(-40) is below the rounding of the weights' sum.
_RANGE = math.asinh(40 / math.pi)


@dataclass(frozen=True)
class Rule:
    """Nodes and weights for a law on the simplex.

    parts (M, b): mixing coefficients, rows sum to one; every entry to its own relative precision. weights (M,).
    """

    parts: Float[Tensor, "M b"]
    weights: Float[Tensor, "M"]


def dirichlet_rule(shapes: tuple[float, ...], nodes: int | None, level: int = 5) -> Rule:
    """Return a rule for Dirichlet(shapes), by stick-breaking into independent Beta laws.

    shapes: b >= 1 positive parameters. nodes: of Gauss-Jacobi in each of the b - 1 dimensions; None for the continuous
    rule at `level`, whose step is 2^-level. A single part is the constant 1, and infinite shapes give equal parts.
    """
    one = torch.ones(1, dtype=torch.float64)
    if math.isinf(shapes[0]):
        return Rule(torch.full((1, len(shapes)), 1 / len(shapes), dtype=torch.float64), one)
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
    """Return Gauss-Jacobi nodes (x, 1 - x) and weights for Beta(a, b): exact for polynomials up to 2 nodes - 1."""
    nodes = check_integer("nodes", nodes, minimum=1)
    t, weights = special.roots_jacobi(nodes, b - 1, a - 1)
    x = torch.from_numpy((1 + t) / 2)
    return torch.stack([x, 1 - x], -1), torch.from_numpy(np.asarray(weights / weights.sum()))


def _double_exponential(a: float, b: float, level: int) -> tuple[Tensor, Tensor]:
    """Return nodes (x, 1 - x) and weights of the continuous law Beta(a, b).

    On each half of the interval the substitution x = s^(1/min(a, 1))/2 (from the other end: with b) takes an infinite
    density at the end point away; tanh-sinh in s then resolves every scale of x down to the smallest number, as
    integrands that vary where x is about 1/(K beta) need.

    Source: H. Takahasi and M. Mori, "Double exponential formulas for numerical integration", Publ. RIMS 9 (1974).
    """
    steps = round(_RANGE * 2**level)
    t = torch.arange(-steps, steps + 1, dtype=torch.float64) / 2**level
    log_s = torch.nn.functional.logsigmoid(math.pi * t.sinh())
    log_step = log_s + torch.nn.functional.logsigmoid(-math.pi * t.sinh()) + t.cosh().log()

    def half(near: float, far: float) -> tuple[Tensor, Tensor]:
        power = min(near, 1.0)
        log_x = log_s / power - math.log(2)
        x = log_x.exp()
        # x^(near-1) dx = constant x^(near-power) ds; the constant matters because it differs between the halves.
        constant = -power * math.log(2) - math.log(power)
        return x, log_step + (near - power) * log_x + (far - 1) * torch.log1p(-x) + constant

    (left, left_log), (right, right_log) = half(a, b), half(b, a)
    nodes = torch.cat([torch.stack([left, 1 - left], -1), torch.stack([1 - right, right], -1)])
    return nodes, torch.softmax(torch.cat([left_log, right_log]), 0)
