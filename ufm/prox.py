"""Wright omega, and the proximal point of log-sum-exp that it solves. Pure mathematics, batched, in torch."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ufm._support.arrays import Array, check_labels, half_rounding, in_kind, to_numbers, to_tensor

_MAX_NEWTON_STEPS = 100
# omega(x) is exp(x) to rounding below this.
_EXPONENTIAL_BELOW = -50.0
# Rows whose logits are all below this are refined for the sake of their differences.
_FLAT = 0.25
# Entries per block: on the CPU the working arrays of one block fit in the last cache.
_CPU_BLOCK, _GPU_BLOCK = 2**18, 2**25


def wright_omega(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    r"""Return the Wright omega function, entry by entry.

    Differentiable to any order.

    Parameters
    ----------
    x : (...) array
        Real numbers of any shape, float64 or float32. NaN gives NaN, as in SciPy.

    Returns
    -------
    (...) array
        omega(x) > 0.

    Raises
    ------
    ValueError
        For anything that is no array of real numbers.

    Notes
    -----
    .. math:: \omega + \log \omega = x, \qquad \omega' = \frac{\omega}{1 + \omega}

    Lambert's W is W0(t) = omega(log t).

    References
    ----------
    R. M. Corless and D. J. Jeffrey, "The Wright omega function", AISC 2002.

    Examples
    --------
    >>> import numpy as np, ufm
    >>> ufm.wright_omega(np.array([1.0, 1.0 + np.e])).round(6)
    array([1.      , 2.718282])
    """
    omega: Tensor = _WrightOmega.apply(to_tensor("x", x, finite=False))  # pyright: ignore[reportAssignmentType]
    return in_kind(omega, x)


class _WrightOmega(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return _omega(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        (omega,) = ctx.saved_tensors
        # omega/(1+omega) would be NaN at omega = inf.
        return grad * (1 - 1 / (1 + omega))


def _omega(x: Tensor) -> Tensor:
    # Clamping where omega is exp(x) anyway keeps the iteration away from log(0).
    inner = x.clamp(min=_EXPONENTIAL_BELOW)
    log_x = inner.clamp(min=1.0).log()
    omega = torch.where(inner > 1, inner - log_x + log_x / inner.clamp(min=1.0), torch.exp(2 * (inner - 1) / 3))
    omega = torch.where(inner < -2, inner.clamp(max=0.0).exp(), omega)
    # Two steps of the fourth-order iteration of F. N. Fritsch, R. E. Shafer and W. P. Crowley,
    # "Algorithm 443: solution of the transcendental equation w e^w = x", CACM 16 (1973).
    for _ in range(2):
        residual = inner - omega - omega.log()
        one_plus = 1 + omega
        t = 2 * one_plus * (one_plus + 2 * residual / 3)
        omega = omega * (1 + residual / one_plus * (1 + residual / (t - 2 * residual)))
    # Where omega is small the residual inherits the rounding of x; the fixed point of exp(x - omega) does not.
    omega = torch.where(x < -1, x.clamp(max=0.0).exp() * (-omega).exp(), omega)
    return torch.where(torch.isposinf(x), x, omega)


@dataclass(frozen=True)
class Prox:
    """Proximal point of log-sum-exp for a batch of labels.

    Attributes
    ----------
    logits : (..., K) array
        z; they sum to zero over the classes.
    probabilities : (..., K) array
        p = softmax(z).
    tau : (...) array
        The one scalar unknown of each row.
    residual : (...) array
        ``max_k |z_k / beta + p_k - y_k|``, the stationarity condition in units of probability.
    """

    logits: Float[Array, "... K"]
    probabilities: Float[Array, "... K"]
    tau: Float[Array, "..."]
    residual: Float[Array, "..."]


def prox_logsumexp(
    labels: Float[Array, "... K"],
    beta: float | Float[Array, "..."],
    *,
    counts: Float[Array, "... K"] | None = None,
) -> Prox:
    r"""Return the proximal point of log-sum-exp, which solves z = beta (y - softmax(z)).

    Differentiable to any order in labels and beta (implicitly, through the optimality condition).

    Parameters
    ----------
    labels : (..., K) array
        Soft labels y, rows on the simplex. A row that sums to one only up to rounding is read as y / sum(y), with
        beta sum(y) for beta: a relative change of the order of the rounding.
    beta : float or (...) array
        Positive; an array broadcasts against the rows.
    counts : (..., K) array, optional
        Multiplicity of each entry of `labels`. With it a label with few distinct values can be written with one column
        per value, at a cost free of the number of classes; sums over k are then weighted.

    Returns
    -------
    Prox
        Logits and probabilities, with the scalar unknown and the residual of every row.

    Raises
    ------
    ValueError
        For labels off the simplex, a beta that is not a positive normal number, or shapes that do not fit.

    Notes
    -----
    .. math:: z = \operatorname*{argmin}_z \log \sum_k e^{z_k} - y^\top z + \frac{\|z\|^2}{2 \beta}

    The solution is closed up to one scalar tau per row, with omega the Wright omega function:

    .. math::

        p_k = \omega(\beta y_k + \tau) / \beta, \qquad z_k = \log \omega(\beta y_k + \tau) - \tau, \qquad
        \sum_k z_k = 0.

    References
    ----------
    derivations/fixed_etf.py; the closed form of Fisher, Meng and Papyan (ICLR 2024), Theorem 3.1, in our notation and
    for any soft label.

    Examples
    --------
    >>> import numpy as np, ufm
    >>> prox = ufm.prox_logsumexp(np.array([0.7, 0.3, 0.0]), beta=10.0)
    >>> prox.logits.round(4).tolist(), prox.probabilities.round(4).tolist()
    ([0.8642, 0.111, -0.9751], [0.6136, 0.2889, 0.0975])
    """
    given = to_numbers("labels", labels)
    y = to_tensor("labels", given)
    b = to_tensor("beta", beta).to(y)
    c = None if counts is None else to_tensor("counts", counts).to(y)
    if c is not None and bool((c < 0).any()):
        raise ValueError(f"counts: got {c.min().item():g}, expected multiplicities >= 0")
    shapes = [y.shape, (*b.shape, 1), y.shape if c is None else c.shape]
    try:
        shape = torch.broadcast_shapes(*shapes)
    except RuntimeError as error:
        raise ValueError(
            f"labels, beta, counts: got shapes {tuple(y.shape)}, {tuple(b.shape)}, {tuple(shapes[2])}, "
            "expected (..., K), (...), (..., K)"
        ) from error
    each = y if c is None else y * c
    check_labels(each, rounding=half_rounding(given))
    if half_rounding(given):
        y = y / each.sum(-1, keepdim=True)
    # Below the least normal number, beta/K can be zero.
    if not bool(((b >= torch.finfo(b.dtype).tiny) & torch.isfinite(b)).all()):
        raise ValueError(
            f"beta: got {beta if b.ndim == 0 else b.min().item()!r}, expected positive normal numbers of {b.dtype}"
        )
    z = prox_logits(y.expand(shape), b.expand(shape[:-1]), None if c is None else c.expand(shape))
    return in_kind(_finish(z, y, b.unsqueeze(-1), c), labels, beta)


def _finish(z: Tensor, y: Tensor, b: Tensor, c: Tensor | None) -> Prox:
    log_partition = _log_partition(z, c)
    p = (z - log_partition).exp()
    deviation = torch.addcdiv(p - y, z, b)
    residual = (deviation if c is None else torch.where(c > 0, deviation, 0.0)).abs().amax(-1)
    return Prox(z, p, (b.log() - log_partition).squeeze(-1), residual)


def _log_partition(z: Tensor, c: Tensor | None) -> Tensor:
    return torch.logsumexp(z if c is None else z + c.log(), -1, keepdim=True)


def _total(x: Tensor, c: Tensor | None) -> Tensor:
    return (x if c is None else c * x).sum(-1, keepdim=True)


class _Prox(torch.autograd.Function):
    """z(y, beta), differentiated through (I + beta (diag p - p p^T)) dz = beta dy + (y - p) dbeta."""

    @staticmethod
    def forward(y: Tensor, b: Tensor, c: Tensor | None) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return _solve_prox(y, b, c).reshape(y.shape)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:
        ctx.save_for_backward(*inputs, output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        _, b, c, z = ctx.saved_tensors
        u = adjoint(z, b, c, grad)
        return b.unsqueeze(-1) * u, (u * z).sum(-1) / b, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple, *inputs: Tensor | None) -> tuple[Tensor, int]:  # pyright: ignore[reportIncompatibleMethodOverride]
        # Rows are independent, so that one more batch dimension in front is all that there is to do.
        y, b, c = (
            x if x is None else x.expand(info.batch_size, *x.shape) if dim is None else x.movedim(dim, 0)
            for x, dim in zip(inputs, in_dims, strict=True)
        )
        assert y is not None
        assert b is not None
        return prox_logits(y, b, c), 0


def adjoint(z: Tensor, b: Tensor, c: Tensor | None, grad: Tensor) -> Tensor:
    """Return (I + beta (diag p - p p^T))^-1 grad at the proximal point z; with counts c, summed over equal entries."""
    p = (z - _log_partition(z, c)).exp()
    b = b.unsqueeze(-1)
    # Sherman-Morrison; 1 - beta sum p^2/(1 + beta p) is written as sum p/(1 + beta p), which does not cancel.
    one_plus_omega = 1 + b * p
    g = grad / one_plus_omega
    q = p / one_plus_omega
    rank_one = b * q * ((p * g).sum(-1, keepdim=True) / _total(q, c))
    return g + (rank_one if c is None else c * rank_one)


def prox_logits(y: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    """Return the logits (..., K) of `prox_logsumexp` for labels (..., K), beta (...) and counts (..., K), unchecked.

    For inner loops and for torch.func transforms, which cannot look at values as the checks do.
    """
    return _apply(y, b, c)


# Newton's loop ends by the size of its step, which a traced graph cannot look at: torch.compile calls it as it is.
_apply: Callable[..., Tensor] = torch.compiler.disable(_Prox.apply)  # pyright: ignore[reportAssignmentType]


def _solve_prox(y: Tensor, b: Tensor, c: Tensor | None) -> Tensor:
    """Solve for the logits, rows in blocks that stay in cache."""
    K = y.shape[-1]
    y, b, c = y.reshape(-1, K), b.reshape(-1, 1), None if c is None else c.reshape(-1, K)
    z = torch.empty_like(y)
    rows = max(1, (_CPU_BLOCK if y.device.type == "cpu" else _GPU_BLOCK) // K)
    for first in range(0, len(y), rows):
        block = slice(first, first + rows)
        z[block] = _solve_block(y[block], b[block], None if c is None else c[block])
    return z


def _solve_block(y: Tensor, b: Tensor, c: Tensor | None) -> Tensor:
    """Return the root of the system in (v, tau), v_k = log omega_k, by Newton's method:

        exp(v_k) + v_k = beta y_k + tau,     sum_k c_k (v_k - tau) = 0.

    Its functions are convex and its Jacobian, [[1 + omega, -1], [-c, sum c]] up to sign, is an M-matrix with a
    non-negative inverse; so Newton's iterates fall monotonically to the root after one step from any start. Asking the
    logits z = v - tau to sum to zero, rather than omega to sum to beta, cancels the large beta analytically. The last
    step is applied to the logits to first order, which removes the rounding of tau from them.
    """
    phases = _EAGER if c is not None or _compiled is None else _compiled
    threshold = 0.1 * torch.finfo(y.dtype).eps ** 0.5
    scaled, tau, v = phases.start(y, b, c)
    for _ in range(_MAX_NEWTON_STEPS):
        tau, settled = phases.step(scaled, tau, v, c, threshold)
        if bool(settled):
            break
    z = phases.finish(scaled, tau, v, c)
    flat = ((z if c is None else c.clamp(max=1.0) * z).abs() < _FLAT).all(-1)
    if bool(flat.any()):
        z[flat] = _refine_flat(y[flat], b[flat], None if c is None else c[flat], z[flat])
    return z


def _start(y: Tensor, b: Tensor, c: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Return beta y, and where Newton's method starts in tau and v."""
    scaled = b * y
    # By Jensen's inequality tau <= log(beta/K), and omega(x) <= log(1 + e^x): both starts are on the right.
    tau = (_total(scaled, c) / (y.shape[-1] if c is None else c.sum(-1, keepdim=True))).log()
    x = scaled + tau
    return scaled, tau, torch.where(x < _EXPONENTIAL_BELOW, x, torch.nn.functional.softplus(x).log())


def _step(scaled: Tensor, tau: Tensor, v: Tensor, c: Tensor | None, threshold: float) -> tuple[Tensor, Tensor]:
    """Take a Newton step, in v in place; return the new tau, and whether no unknown has moved beyond the threshold."""
    omega = v.exp()
    inverse = (omega + 1).reciprocal_()
    correction = (scaled + tau).sub_(omega).sub_(v).mul_(inverse)
    v.add_(correction)
    slope = _total(omega * inverse, c)
    step = _total(_logits(scaled, tau, v, omega.addcmul_(omega, correction)), c) / slope
    v.addcmul_(inverse, step)
    settled = (step.abs() <= threshold).all()
    # A fused kernel has the second test for free; eagerly it is a pass over memory, made only where it can matter.
    if torch.compiler.is_compiling() or bool(settled):
        settled = settled & (correction.abs() <= threshold).all()
    return tau + step, settled


def _finish_logits(scaled: Tensor, tau: Tensor, v: Tensor, c: Tensor | None) -> Tensor:
    """Return the logits, with a last step to first order."""
    omega = v.exp()
    z = _logits(scaled, tau, v, omega)
    slope = omega.div_(omega + 1)
    return z.addcmul_(slope, _total(z, c) / _total(slope, c), value=-1)


@dataclass(frozen=True)
class _Phases:
    """The three phases of Newton's method, as they are or compiled."""

    start: Callable[..., tuple[Tensor, Tensor, Tensor]]
    step: Callable[..., tuple[Tensor, Tensor]]
    finish: Callable[..., Tensor]


_EAGER = _Phases(_start, _step, _finish_logits)
_compiled: _Phases | None = None


def compile_kernels(*, enabled: bool = True) -> None:
    """Use fused kernels, made by torch.compile, for dense labels from now on; or stop using them.

    It pays for many classes and many rows: one pass over memory a step in the place of a dozen. The numbers agree to
    rounding. The first call then takes some twenty seconds and needs a C++ compiler (on a GPU: Triton).

    Parameters
    ----------
    enabled : bool
        Whether to use them.
    """
    global _compiled  # noqa: PLW0603
    start, step = torch.compile(_start, dynamic=True), torch.compile(_step, dynamic=True)
    _compiled = _Phases(start, step, torch.compile(_finish_logits, dynamic=True)) if enabled else None


def _refine_flat(y: Tensor, b: Tensor, c: Tensor | None, z: Tensor) -> Tensor:
    """Return the logits of nearly uniform labels, which are small differences of large numbers, to their own precision.

    u_k = z_k - z_1 solves u + omega_1 (e^u - 1) = beta (y_k - y_1), in which nothing cancels.
    """
    omega = b * (z[:, :1] - _log_partition(z, c)).exp()
    u = z - z[:, :1]
    u = u - (u + omega * u.expm1() - b * (y - y[:, :1])) / (1 + omega * u.exp())
    return u - _total(u, c) / (y.shape[-1] if c is None else c.sum(-1, keepdim=True))


def _logits(scaled: Tensor, tau: Tensor, v: Tensor, omega: Tensor) -> Tensor:
    # The two forms are equal; each is used where it does not cancel.
    return torch.where(omega < 1, scaled - omega, v - tau)
