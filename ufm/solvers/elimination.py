"""Eliminating the features: the optimal response of a block of targets to a classifier's Gram matrix M = W W^T.

Each target's features are h = W^T a with a dual vector a, so that only a (K numbers a target) and M occur, whatever the
feature dimension. At the optimal response a = -residual/lambda_H.

Source: derivations/elimination.py.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ufm.losses import Curvature, Loss

_MAX_NEWTON_STEPS = 60
_MAX_INNER_STEPS = 200


@dataclass(frozen=True)
class Gram:
    """What the response of every target depends on: M (K, K), the logits' offset (K,), lambda_H and the loss.

    check_every: how many inner iterations go by between two looks at their figures, which on a GPU wait for it.
    """

    matrix: Float[Tensor, "K K"]
    offset: Float[Tensor, "K"]
    feature_decay: float
    loss: Loss
    check_every: int = 1

    @property
    def scale(self) -> Tensor:
        """The multiple of the centring projection that is nearest to M: exact for a simplex ETF."""
        return self.matrix.diagonal().sum() / (len(self.matrix) - 1)


@dataclass(frozen=True)
class Duals:
    """Responses of a block of targets.

    dual (n, K): a. logits (n, K): M a + offset. prediction (n, K): of the loss. squared_residual (n,): the squared
    norm of the gradient in the features, ||W^T (residual + lambda_H a)||^2.
    """

    dual: Float[Tensor, "n K"]
    logits: Float[Tensor, "n K"]
    prediction: Float[Tensor, "n K"]
    squared_residual: Float[Tensor, "n"]


def linear_response(
    gram: Gram, curvature: Curvature, right: Float[Tensor, "n K"], threshold: Tensor
) -> Float[Tensor, "n K"]:
    """Return x with (lambda_H + S M) x = S right for each row, S the loss's Hessian in the logits.

    threshold (n, 1): where the square of the remaining residual in the preconditioner's norm may end. With x = S w it is the symmetric system (lambda_H S + S M S) w = S right, solved by conjugate gradients with
    S (lambda_H + scale S) for its preconditioner, which is exact for a simplex ETF and costs no matrix product.
    """
    decay, scale = gram.feature_decay, gram.scale
    invert = curvature.resolvent(decay, scale)
    t = right
    s = curvature.apply(t)
    preconditioned = invert(t)
    rho = (s * preconditioned).sum(-1, keepdim=True)
    direction = preconditioned
    x = torch.zeros_like(right)
    for i in range(_MAX_INNER_STEPS):
        q = curvature.apply(direction)
        v = torch.addmm(direction, q, gram.matrix, beta=decay)
        denominator = (q * v).sum(-1, keepdim=True)
        active = (rho > threshold) & (denominator > 0)
        step = torch.where(active, rho / denominator, 0.0)
        x.addcmul_(step, q)
        if (i + 1) % gram.check_every == 0 and not bool(active.any()):
            break
        t = torch.addcmul(t, step, v, value=-1)
        s = curvature.apply(t)
        preconditioned = invert(t)
        new = (s * preconditioned).sum(-1, keepdim=True)
        direction = torch.addcmul(preconditioned, torch.where(active, new / rho, 0.0), direction)
        rho = new
    return x


def response(
    gram: Gram,
    labels: Float[Tensor, "n K"],
    weights: Float[Tensor, "n"],
    start: Float[Tensor, "n K"],
    tolerance: float,
) -> Duals:
    """Return the optimal duals of a block of targets, by Newton's method from `start`.

    It ends when sqrt(sum_j pi_j ||gradient_j||^2) is at most `tolerance`, or no step shortens any row's gradient. A step
    that does not shorten the gradient of its row is halved: along Newton's direction the gradient's norm falls.
    """
    loss, decay = gram.loss, gram.feature_decay
    floor = (4 * torch.finfo(labels.dtype).eps) ** 2 * gram.matrix.diagonal().sum()
    step = torch.ones_like(weights)
    accepted, accepted_image, trial = None, None, start
    for _ in range(_MAX_NEWTON_STEPS):
        logits = torch.addmm(gram.offset, trial, gram.matrix)
        prediction = loss.predict(logits)
        error = (prediction - labels).add_(trial, alpha=decay)
        image = error @ gram.matrix
        squared = (error * image).sum(-1).clamp_(min=0)
        state = Duals(trial, logits, prediction, squared)
        if accepted is None or accepted_image is None:
            accepted, accepted_image = state, image
        else:
            worse = ~(squared < accepted.squared_residual)
            step = torch.where(worse, step / 4, 1.0)
            accepted = _choose(worse.unsqueeze(-1), accepted, state)
            accepted_image = torch.where(worse.unsqueeze(-1), accepted_image, image)
        open_rows = (accepted.squared_residual > floor) & (step > 1e-3)
        if not bool(((weights @ accepted.squared_residual) > tolerance**2) & open_rows.any()):
            break
        curvature = loss.curvature(accepted.prediction)
        # What is left of the linear system adds to the gradient at most this much.
        threshold = 0.01**2 * accepted.squared_residual.unsqueeze(-1) / (gram.scale * (decay + gram.scale))
        correction = linear_response(gram, curvature, accepted_image / decay, threshold)
        target = (labels - accepted.prediction).div_(decay).add_(correction)
        trial = torch.lerp(accepted.dual, target, step.unsqueeze(-1))
    assert accepted is not None
    return accepted


def _choose(condition: Tensor, one: Duals, other: Duals) -> Duals:
    return Duals(
        torch.where(condition, one.dual, other.dual),
        torch.where(condition, one.logits, other.logits),
        torch.where(condition, one.prediction, other.prediction),
        torch.where(condition.squeeze(-1), one.squared_residual, other.squared_residual),
    )
