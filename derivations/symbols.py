"""Symbols, sums over a symbolic number of classes, and small matrices that several derivations share."""

from collections.abc import Sequence
from typing import Any

import sympy

# sympy's annotations cover little of it and reject ordinary use of the rest.
sp: Any = sympy

K = sp.Symbol("K", integer=True, positive=True)
m, beta, lambda_H, lambda_W = sp.symbols("m beta lambda_H lambda_W", positive=True)  # noqa: N816
lam, alpha, omega = sp.symbols("lambda alpha omega", positive=True)
tau = sp.Symbol("tau", real=True)
i, j, k = sp.symbols("i j k", integer=True, positive=True)
y, p, z = (sp.IndexedBase(name, real=True) for name in "ypz")

# beta in terms of the multiplier, and the factor g of the Gram matrix W W^T = g (I - 11^T/K).
gram_factor = m**2 * K / (K - 1)
beta_of_m = gram_factor / lambda_H

SMALL = (2, 3, 4, 5)
SMALL_TEXT = "K = 2, 3, 4, 5"


def over_classes(term: Any) -> Any:
    """Return the sum of a term in k over all K classes."""
    return sp.Sum(term, (k, 1, K))


def in_range(expression: Any) -> Any:
    """Evaluate sums over Kronecker deltas, given that the free indices i and j are classes (at most K)."""
    return expression.doit().replace(sp.Piecewise, lambda *branches: branches[0][0])


def linear(total: Any) -> Any:
    """Write a sum over k as a sum of sums, with what does not depend on k in front of each."""
    split = [term.as_independent(k) for term in sp.Add.make_args(sp.expand(total.function))]
    return sp.Add(*(constant * sp.Sum(term, *total.limits) for constant, term in split))


def vector(name: str, size: int, **assumptions: bool) -> Any:
    """Return a column of symbols name_1, ..., name_size."""
    return sp.Matrix(sp.symbols(f"{name}_1:{size + 1}", **(assumptions or {"real": True})))


def logsumexp(logits: Sequence[Any]) -> Any:
    return sp.log(sum(sp.exp(entry) for entry in logits))


def softmax(logits: Sequence[Any]) -> Any:
    total = sum(sp.exp(entry) for entry in logits)
    return sp.Matrix([sp.exp(entry) / total for entry in logits])


def centring(size: int) -> Any:
    """Return the projection I - 11^T/size onto vectors with zero sum."""
    return sp.eye(size) - sp.ones(size, size) / size


def simplex(name: str, size: int) -> Any:
    """Return a generic distribution: size - 1 free symbols and the rest of one."""
    free = vector(name, size - 1, positive=True)
    return sp.Matrix([*free, 1 - sum(free)])


def fisher(probabilities: Any) -> Any:
    """Return diag(p) - p p^T, the Hessian of log-sum-exp."""
    return sp.diag(*probabilities) - probabilities * probabilities.T
