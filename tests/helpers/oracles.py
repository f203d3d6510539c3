"""Independent answers, none of which uses the library: mpmath root finding, SciPy minimisation, cvxpy."""

from collections.abc import Sequence

import cvxpy as cp
import mpmath as mp
import numpy as np
from scipy import optimize, special


def prox_logits(levels: Sequence[float], counts: Sequence[float], beta: float, digits: int = 50) -> list[mp.mpf]:
    """Return argmin logsumexp(z) - y.z + ||z||^2/(2 beta) for y / sum(y), one logit per level, by bisection.

    Unknown: the log-partition L. Given L, z solves z = beta y - beta exp(z - L) entry by entry, a scalar equation
    whose root is Lambert's W; L then has to be the log-sum-exp of z. No Wright omega, no Newton, no sum of logits.
    """
    with mp.workdps(digits + 20):
        total = mp.fsum(mp.mpf(c) * mp.mpf(y) for y, c in zip(levels, counts, strict=True))
        b = mp.mpf(beta) * total
        targets = [b * mp.mpf(y) / total for y in levels]

        def logits(log_partition: mp.mpf) -> list[mp.mpf]:
            # z + b exp(z - L) = t has z = t - W(b exp(t - L)).
            return [t - _lambert_of_exp(mp.log(b) + t - log_partition) for t in targets]

        def mismatch(log_partition: mp.mpf) -> mp.mpf:
            z = logits(log_partition)
            return mp.fsum(c * mp.exp(v - log_partition) for v, c in zip(z, counts, strict=True)) - 1

        # mismatch decreases in L; log K <= L <= log K + max z.
        low = mp.log(mp.fsum(counts)) - 1
        high = low + 2
        while mismatch(high) > 0:
            high = 2 * high
        root = mp.findroot(mismatch, (low, high), solver="anderson", tol=mp.mpf(10) ** -(2 * digits), verify=False)
        return logits(root)


def _lambert_of_exp(x: mp.mpf) -> mp.mpf:
    """Return W(exp x), by Newton on w + log w = x where exp x is too large for mpmath's Lambert W to be quick."""
    if x < 50:
        return mp.lambertw(mp.exp(x)).real
    w = x - mp.log(x)
    for _ in range(12):
        w = w - (w + mp.log(w) - x) * w / (1 + w)
    return w


def optimal_feature(
    W: np.ndarray, label: np.ndarray, feature_decay: float, bias: np.ndarray | float = 0.0
) -> np.ndarray:
    """Return argmin over h of cross entropy(W h + bias, label) + (feature_decay/2) ||h||^2, by SciPy's trust region."""

    def value(h: np.ndarray) -> float:
        z = W @ h + bias
        return special.logsumexp(z) - label @ z + feature_decay / 2 * h @ h

    def gradient(h: np.ndarray) -> np.ndarray:
        return W.T @ (special.softmax(W @ h + bias) - label) + feature_decay * h

    def hessian(h: np.ndarray) -> np.ndarray:
        p = special.softmax(W @ h + bias)
        return W.T @ (np.diag(p) - np.outer(p, p)) @ W + feature_decay * np.eye(len(h))

    start = np.zeros(W.shape[1])
    options = {"gtol": 1e-13, "maxiter": 2000}
    h = optimize.minimize(value, start, jac=gradient, hess=hessian, method="trust-exact", options=options).x
    # The trust region stops at the rounding of the objective; the equations themselves can be solved further.
    return optimize.root(gradient, h, jac=hessian, tol=1e-15).x


def nuclear_norm_optimum(
    labels: np.ndarray, weights: np.ndarray, weight_decay: float, feature_decay: float
) -> tuple[float, str]:
    """Return the optimal value of the convex relaxation in the logits, and the conic solver's status."""
    N, K = labels.shape
    z = cp.Variable((N, K))
    loss = cp.sum(cp.multiply(weights, cp.log_sum_exp(z, axis=1) - cp.sum(cp.multiply(labels, z), axis=1)))
    root = np.sqrt(weights)[:, None] * np.ones((1, K))
    penalty = np.sqrt(weight_decay * feature_decay) * cp.normNuc(cp.multiply(root, z))
    problem = cp.Problem(cp.Minimize(loss + penalty))
    problem.solve(solver=cp.SCS, eps=1e-9, max_iters=200_000)
    return float(problem.value), str(problem.status)  # pyright: ignore[reportArgumentType]


def nuclear_norm_with_bias(
    labels: np.ndarray, weights: np.ndarray, weight_decay: float, feature_decay: float, loss: str, bias_decay: float
) -> tuple[float, str]:
    """Return the optimal value of the relaxation with a bias of penalty bias_decay, and the conic solver's status."""
    N, K = labels.shape
    z, b = cp.Variable((N, K)), cp.Variable((1, K))
    logits = z + np.ones((N, 1)) @ b
    if loss == "cross_entropy":
        losses = cp.log_sum_exp(logits, axis=1) - cp.sum(cp.multiply(labels, logits), axis=1)
    else:
        losses = cp.sum(cp.square(logits - labels), axis=1) / 2
    root = np.sqrt(weights)[:, None] * np.ones((1, K))
    penalty = np.sqrt(weight_decay * feature_decay) * cp.normNuc(cp.multiply(root, z))
    problem = cp.Problem(cp.Minimize(weights @ losses + penalty + bias_decay / 2 * cp.sum_squares(b)))
    problem.solve(solver=cp.SCS, eps=1e-9, max_iters=200_000)
    return float(problem.value), str(problem.status)  # pyright: ignore[reportArgumentType]
