"""Sums whose rounding error is bounded by the logarithm of the number of terms, whatever the device.

A sum of n terms in an unknown order, as BLAS or a GPU forms it, can be off by n - 1 roundings of the sum of magnitudes.
By halves it is off by at most `depth(n)`.
"""

import math

import torch
from torch import Tensor

# What one operation in float64 can be off by, relative to its result.
UNIT_ROUNDOFF = 2.0**-53
# On the CPU and on a GPU alike: fewer rows make a product of matrices slow, more make its bound worse.
_ROWS = 16


def depth(count: int) -> int:
    """Return the number of roundings that each of `count` terms goes through in `pairwise_sum`."""
    return max(count - 1, 0).bit_length()


def pairwise_sum(x: Tensor, dim: int = -1) -> Tensor:
    """Return the sum over a dimension, by halves: off by at most depth(n) roundings of the sum of magnitudes.

    Examples
    --------
    >>> pairwise_sum(torch.ones(5, 2), 0)
    tensor([5., 5.])
    """
    x = x.movedim(dim, 0)
    if not len(x):
        return x.sum(0)
    while len(x) > 1:
        half = len(x) // 2
        added = x[:half] + x[half : 2 * half]
        x = torch.cat([added, x[2 * half :]]) if len(x) % 2 else added
    return x[0]


def pairwise_product(left: Tensor, right: Tensor) -> tuple[Tensor, int]:
    """Return left^T right for (n, K) tensors, and the number of roundings that each product of entries goes through."""
    n, K = left.shape
    rows = min(n, max(_ROWS, K // 8))
    whole = n // rows * rows
    first, second = (x[:whole].reshape(-1, rows, x.shape[1]) for x in (left, right))
    total = pairwise_sum(torch.bmm(first.mT, second), 0)
    if whole < n:
        total = total + left[whole:].T @ right[whole:]
    return total, rows + depth(n // rows) + 1


def two_sum(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return a + b rounded, and what the rounding has left out, exactly (Knuth)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def largest_eigenvalue(matrix: Tensor) -> float:
    """Return a number that the largest eigenvalue of a symmetric (K, K) tensor in float64, its lower half, is below.

    An eigenvalue solver only estimates it. That the bound lies above is proved by a Cholesky decomposition that runs to
    its end: then no eigenvalue of what was decomposed is below -(K + 1) roundings of the trace.

    References
    ----------
    S. M. Rump, "Verification of positive definiteness", BIT 46 (2006).

    Examples
    --------
    >>> abs(largest_eigenvalue(torch.diag(torch.tensor([1.0, 3.0], dtype=torch.float64))) - 3) < 1e-14
    True
    """
    K = len(matrix)
    diagonal = matrix.diagonal()
    if not bool(matrix.any()):
        return 0.0
    estimate = torch.linalg.eigvalsh(matrix)[-1].item()
    slack = 2 * UNIT_ROUNDOFF * estimate
    while math.isfinite(slack):
        top = estimate + slack
        shifted = torch.diag(top - diagonal) - matrix.tril(-1)
        _, failed = torch.linalg.cholesky_ex(shifted)
        if not failed.item():
            # One rounding more of the trace for the diagonal of `shifted`, and one for everything here.
            return top + 1.01 * (K + 3) * UNIT_ROUNDOFF * (top - diagonal).abs().sum().item()
        slack = 4 * slack if slack > 0 else 1e-300
    return math.inf
