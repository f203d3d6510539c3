"""Optimal features for a fixed classifier: in closed form for a simplex ETF, by Newton's method for any other.

Penalties are in the expectation convention: each feature minimises loss(W h + b, y) + (lambda_H/2) ||h||^2. A feature
penalty lambda' of the convention (1/N) sum loss + (lambda'/2) ||H||_F^2 is lambda_H = N lambda'.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ufm._support.arrays import Array, check_number, in_kind, power_of_two, to_labels, to_tensor
from ufm.losses import Loss, get_loss
from ufm.theory.etf import nearest_etf

_MAX_NEWTON_STEPS = 200
_MAX_HALVINGS = 30
# Entries of the batch of Hessians that is held at a time.
_BLOCK = 2**22
# Of lambda_H / ||W||^2; beyond it, or its inverse, logits or features leave the range of numbers.
_LEAST_RATIO = 1e-300


@dataclass(frozen=True)
class Response:
    """Optimal features for a fixed classifier, one row per label.

    Attributes
    ----------
    features : (N, d) array
        h.
    logits : (N, K) array
        W h + b.
    probabilities : (N, K) array
        The prediction: softmax of the logits for cross entropy, the output for mean squared error.
    residual : (N,) array
        ||W^T (prediction - y) + lambda_H h||, the norm of the gradient.
    error_bound : (N,) array
        residual / lambda_H, which the distance to the exact optimum cannot exceed.
    closed_form : bool
        Whether the closed form was used, as it is for a simplex ETF without bias.
    """

    features: Float[Array, "N d"]
    logits: Float[Array, "N K"]
    probabilities: Float[Array, "N K"]
    residual: Float[Array, "N"]
    error_bound: Float[Array, "N"]
    closed_form: bool


def fixed_classifier(
    W: Float[Array, "K d"],
    labels: Float[Array, "N K"],
    feature_decay: float | Float[Tensor, ""],
    loss: str = "cross_entropy",
    *,
    bias: Float[Array, "K"] | None = None,
) -> Response:
    r"""Return the optimal features for a fixed classifier, row by row.

    Differentiable to second order in W, labels, feature_decay and bias (implicitly).

    Parameters
    ----------
    W : (K, d) array
        The classifier.
    labels : (N, K) array
        Any soft labels, rows on the simplex.
    feature_decay : float or scalar tensor
        lambda_H > 0 in the expectation convention.
    loss : str
        "cross_entropy", "mean_squared_error" or the name of a registered loss.
    bias : (K,) array, optional
        b. By default the loss's own: 0 for cross entropy and 1/K for mean squared error.

    Returns
    -------
    Response
        Features, logits and prediction, with a bound on their error.

    Raises
    ------
    ValueError
        For labels off the simplex or of another number of classes, a penalty that is not positive, or 300 orders of
        magnitude from the square of W; or an unknown loss.

    Notes
    -----
    .. math:: h = \operatorname*{argmin}_h \ell(W h + b, y) + \tfrac{\lambda_H}{2} \|h\|^2

    For a simplex ETF W without bias, in closed form,

    .. math::

        \beta = \frac{m^2 K}{(K-1) \lambda_H}, \qquad z = -\beta \nabla \ell(z), \qquad
        h = \frac{K-1}{K m^2} W^\top z,

    with z the proximal point of log-sum-exp for cross entropy (`prox_logsumexp`) and beta/(1+beta) (y - 1/K) for mean
    squared error. Otherwise by Newton's method in the row space of W, each step shortened until it lowers the norm of
    the gradient; the problem is strongly convex, so that this converges from any start.

    References
    ----------
    derivations/fixed_etf.py and uniqueness.py; Fisher, Meng and Papyan (ICLR 2024), Theorem 3.1, in our notation.

    Examples
    --------
    >>> import numpy as np, ufm
    >>> response = ufm.fixed_classifier(np.eye(3), np.array([[0.7, 0.3, 0.0]]), feature_decay=0.1)
    >>> response.probabilities.round(3)
    array([[0.614, 0.289, 0.098]])
    """
    w, y = to_tensor("W", W, ndim=2), to_labels(labels, ndim=2)
    if not w.numel():
        raise ValueError(f"W: got shape {tuple(w.shape)}, expected at least one row and column")
    decay = check_number("feature_decay", feature_decay, above=0)
    loss_function = get_loss(loss)
    if y.shape[1] != w.shape[0]:
        raise ValueError(f"labels: got {y.shape[1]} classes, expected {w.shape[0]} as W has rows")
    dtype = torch.promote_types(w.dtype, y.dtype)
    w, y = w.to(dtype), y.to(w.device, dtype)
    # The problem is that of W/c with features c h and penalty lambda_H/c^2: for c a power of two no digit changes.
    unit = power_of_two(w)
    w = w / unit
    lambda_H = (
        torch.as_tensor(feature_decay if isinstance(feature_decay, Tensor) else decay, dtype=w.dtype, device=w.device)
        / unit
        / unit
    )
    largest = w.detach().square().sum().item()
    if largest and not _LEAST_RATIO < lambda_H.item() / largest < 1 / _LEAST_RATIO:
        raise ValueError(
            f"W, feature_decay: got a penalty of {lambda_H.item() / largest:.3g} times ||W||^2, expected one from "
            f"{_LEAST_RATIO:g} to {1 / _LEAST_RATIO:g}"
        )
    # The loss adds its own bias, which a bias of the user's replaces.
    own = loss_function.own_bias(len(w))
    offset = torch.zeros_like(w[:, 0])
    if bias is not None:
        offset = to_tensor("bias", bias, ndim=1).to(w)
        if offset.shape != w.shape[:1]:
            raise ValueError(f"bias: got shape {tuple(offset.shape)}, expected {tuple(w.shape[:1])}")
        offset = offset - own
    closed_form = loss_function.has_closed_form and bias is None and not w.requires_grad and _is_etf(w)
    if closed_form:
        gram = w.square().sum() / (len(w) - 1)
        logits = loss_function.etf_logits(y, gram / lambda_H)
        features = logits @ w / gram
    else:
        features: Tensor = _ArgMin.apply(w, offset, y, lambda_H, loss_function)  # pyright: ignore[reportAssignmentType]
        logits = features @ w.T + offset
    gradient = loss_function.residual(features @ w.T + offset, y) @ w + lambda_H * features
    residual = unit * torch.linalg.vector_norm(gradient, dim=-1)
    shown = logits if bias is None else logits + own
    prediction = loss_function.predict(logits)
    error = residual / unit / lambda_H / unit
    result = Response(features / unit, shown, prediction, residual, error, closed_form)
    return in_kind(result, W, labels, feature_decay)


def _is_etf(w: Tensor) -> bool:
    K, d = w.shape
    if d < K - 1 or not bool(w.any()):
        return False
    return nearest_etf(w.detach()).relative_error <= 64 * torch.finfo(w.dtype).eps * math.sqrt(K)


class _ArgMin(torch.autograd.Function):
    """h(W, b, y, lambda_H), differentiated through its condition W^T residual(W h + b, y) + lambda_H h = 0."""

    @staticmethod
    def forward(w: Tensor, b: Tensor, y: Tensor, decay: Tensor, loss: Loss) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        if loss.shift_invariant:
            # The mean row moves no loss; without it the Hessian is regular on the row space.
            w = w - w.mean(0)
        u, s, vh = torch.linalg.svd(w, full_matrices=False)
        rank = max(1, int((s > s[0] * max(w.shape) * torch.finfo(w.dtype).eps).sum()))
        basis, reduced = vh[:rank], u[:, :rank] * s[:rank]
        rows = max(1, _BLOCK // (rank * (rank + len(w))))
        blocks = [_newton(reduced, b, block, decay, loss) for block in y.split(rows)]
        return torch.cat(blocks) @ basis

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        *tensors, ctx.loss = inputs
        ctx.save_for_backward(*tensors, output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple:  # pyright: ignore[reportIncompatibleMethodOverride]
        w, b, y, decay, h = ctx.saved_tensors
        z = h @ w.T + b
        adjoint = -_solve_hessian(ctx.loss, z, w, decay, grad)
        logit_adjoint = ctx.loss.hessian_product(z, (adjoint @ w.T).unsqueeze(-1)).squeeze(-1)
        return (
            ctx.loss.residual(z, y).T @ adjoint + logit_adjoint.T @ h,
            logit_adjoint.sum(0),
            -adjoint @ w.T,
            (adjoint * h).sum(),
            None,
        )


def _hessian(loss: Loss, z: Tensor, a: Tensor, decay: Tensor) -> Tensor:
    """Return the Hessian (N, r, r) of loss(A g + b, y) + (decay/2) ||g||^2 at logits z, up to its rounding."""
    return _regular(a.T @ loss.hessian_product(z, a), decay)


def _regular(matrices: Tensor, decay: Tensor) -> Tensor:
    """Return matrices (N, r, r) + decay: or more, where rounding can have made that singular."""
    largest = matrices.diagonal(dim1=-2, dim2=-1).abs().amax(-1)
    shift = decay + matrices.shape[-1] * torch.finfo(matrices.dtype).eps * largest
    return matrices + shift[:, None, None] * torch.eye(matrices.shape[-1], dtype=matrices.dtype, device=matrices.device)


def _solve_hessian(loss: Loss, z: Tensor, w: Tensor, decay: Tensor, grad: Tensor) -> Tensor:
    """Return Hessian^-1 grad for each row, by systems of the smaller of the sizes d and K."""
    K, d = w.shape
    if d <= K:
        return torch.linalg.solve(_hessian(loss, z, w, decay), grad.unsqueeze(-1)).squeeze(-1)
    # (lambda + W^T M W)^-1 g = (g - W^T (lambda + M W W^T)^-1 M W g) / lambda, with M the Hessian in the logits.
    system = _regular(loss.hessian_product(z, w @ w.T), decay)
    right = loss.hessian_product(z, (grad @ w.T).unsqueeze(-1))
    return (grad - torch.linalg.solve(system, right).squeeze(-1) @ w) / decay


def _newton(a: Tensor, b: Tensor, y: Tensor, decay: Tensor, loss: Loss) -> Tensor:
    """Return argmin over g of loss(A g + b, y) + (decay/2) ||g||^2 for the rows of y, to the gradient's rounding."""

    def gradient(g: Tensor) -> Tensor:
        return loss.residual(g @ a.T + b, y) @ a + decay * g

    rounding = torch.finfo(a.dtype).eps * torch.linalg.matrix_norm(a)
    g = torch.zeros(len(y), a.shape[1], dtype=a.dtype, device=a.device)
    slope = gradient(g)
    norm = torch.linalg.vector_norm(slope, dim=-1)
    active = norm > rounding
    for _ in range(_MAX_NEWTON_STEPS):
        if not bool(active.any()):
            break
        direction = -torch.linalg.solve(_hessian(loss, g @ a.T + b, a, decay), slope.unsqueeze(-1)).squeeze(-1)
        step = active.to(norm)
        trial, trial_slope, trial_norm = g, slope, norm
        for _ in range(_MAX_HALVINGS):
            trial = g + step.unsqueeze(-1) * direction
            trial_slope = gradient(trial)
            trial_norm = torch.linalg.vector_norm(trial_slope, dim=-1)
            # Along Newton's direction the gradient's norm falls like 1 - step at first.
            long = active & ~(trial_norm <= (1 - 0.1 * step) * norm)
            if not bool(long.any()):
                break
            step = torch.where(long, step / 2, step)
        # A row whose gradient no step shortens any more has reached its rounding.
        better = active & (trial_norm < norm)
        g, slope = (torch.where(better.unsqueeze(-1), new, old) for new, old in ((trial, g), (trial_slope, slope)))
        norm = torch.where(better, trial_norm, norm)
        active = better & (norm > rounding)
    return g
