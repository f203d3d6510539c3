"""Eliminating the features: the optimal response of a block of targets to a classifier's Gram matrix M = W W^T.

At the optimum of one target, lambda_H h = -W^T (prediction - y): its features lie in the row space of W. So each
target's features are written h = W^T a with a dual vector a of K numbers, and only a and M occur in what follows,
whatever the feature dimension. The logits are M a + offset, and the optimal a is -(prediction - y)/lambda_H.

The gradient in h is W^T (residual + lambda_H a). Newton's step from a solves, with S the loss's Hessian in the logits,

    (lambda_H + S M) change = -(residual + lambda_H a),

up to what M maps to zero, which the features do not see. See derivations/elimination.py.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ufm.losses import Curvature, Loss

_MAX_NEWTON_STEPS = 300
_MAX_INNER_STEPS = 2000
_SHORTEST_STEP = 1e-12
# Fraction of the gradient that a Newton step may leave.
_FORCING = 0.01
# Finished rows are dropped once no more than this fraction is still at work.
_COMPACT = 0.75


@dataclass(frozen=True)
class Gram:
    """What the response of every target depends on.

    Attributes
    ----------
    matrix : (K, K) tensor
        M = W W^T.
    offset : (K,) tensor
        What is added to M a: the bias, less the loss's own.
    feature_decay : float
        lambda_H.
    loss : Loss
        The loss.
    check_every : int
        Inner iterations between two tests of convergence, each of which waits for a GPU.
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

    Attributes
    ----------
    dual : (n, K) tensor
        a.
    logits : (n, K) tensor
        M a + offset.
    prediction : (n, K) tensor
        The loss's prediction at these logits.
    squared_residual : (n,) tensor
        The squared norm of the gradient in the features, ||W^T (residual + lambda_H a)||^2.
    """

    dual: Float[Tensor, "n K"]
    logits: Float[Tensor, "n K"]
    prediction: Float[Tensor, "n K"]
    squared_residual: Float[Tensor, "n"]

    def _arrays(self) -> tuple[Tensor, ...]:
        return self.dual, self.logits, self.prediction, self.squared_residual

    def rows(self, index: Tensor) -> "Duals":
        """Return some rows."""
        return Duals(*(array[index] for array in self._arrays()))

    def where(self, condition: Bool[Tensor, "n 1"], other: "Duals") -> "Duals":
        """Return these rows where the condition holds, and those of `other` elsewhere."""
        pairs = zip(self._arrays(), other._arrays(), strict=True)
        return Duals(*(torch.where(condition if a.ndim == 2 else condition.squeeze(-1), a, b) for a, b in pairs))

    def replaced(self, index: Tensor, other: "Duals") -> "Duals":
        """Return these rows with some of them replaced."""
        pairs = zip(self._arrays(), other._arrays(), strict=True)
        return Duals(*(a.index_copy(0, index, b) for a, b in pairs))


def linear_response(
    gram: Gram, curvature: Curvature, right: Float[Tensor, "n K"], threshold: Tensor
) -> Float[Tensor, "n K"]:
    """Return x with (lambda_H + S M) x = S right for each row, S the loss's Hessian in the logits.

    Parameters
    ----------
    gram : Gram
        M, lambda_H and the loss.
    curvature : Curvature
        S.
    right : (n, K) tensor
        The right-hand sides.
    threshold : (n, 1) tensor
        Where the square of the remaining residual in the preconditioner's norm may end.

    Returns
    -------
    (n, K) tensor
        x.

    Notes
    -----
    The system is not symmetric; with x = S w it is (lambda_H S + S M S) w = S right, which is, and is solved by
    conjugate gradients. For a simplex ETF, M is a multiple of the centring projection, scale say, and S (lambda_H +
    scale S) is the matrix itself: as a preconditioner it is then exact, is near otherwise, and costs no matrix product.
    """
    decay, scale = gram.feature_decay, gram.scale
    # What S does not see would come out of the resolvent magnified by 1/lambda_H, and its rounding with it.
    invert = curvature.resolvent(decay, scale)
    t = right
    s = curvature.apply(t)
    preconditioned = invert(curvature.centred(t))
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
        preconditioned = invert(curvature.centred(t))
        new = (s * preconditioned).sum(-1, keepdim=True)
        direction = torch.addcmul(preconditioned, torch.where(active, new / rho, 0.0), direction)
        rho = new
    return x


def response(gram: Gram, labels: Float[Tensor, "n K"], start: Float[Tensor, "n K"], tolerance: float) -> Duals:
    """Return the optimal duals of a block of targets, by Newton's method.

    Parameters
    ----------
    gram : Gram
        What the targets respond to.
    labels : (n, K) tensor
        Their labels.
    start : (n, K) tensor
        The duals to start from.
    tolerance : float
        A row ends when its gradient's norm is at most this, or when no step shortens the gradient any more.

    Notes
    -----
    A step that does not shorten the gradient of its row is tried again at a quarter of its length: along Newton's
    direction the norm of the gradient falls at first.
    """
    decay = gram.feature_decay
    floor = (4 * torch.finfo(labels.dtype).eps) ** 2 * gram.matrix.diagonal().sum()
    limit = floor.clamp(min=tolerance**2)
    found, image = _state(gram, labels, start)
    # The rows still at work (None for all), their state, and the length of their next step.
    rows, here, step = None, found, torch.ones_like(labels[:, :1])
    for i in range(_MAX_NEWTON_STEPS):
        active = (here.squared_residual > limit) & (step.squeeze(-1) > _SHORTEST_STEP)
        # A start may be wrong by what M maps to zero. The features do not see it, but one step corrects it.
        active |= i == 0
        count = int(active.sum())
        if count == 0:
            break
        if count < _COMPACT * len(active):
            kept = active.nonzero().squeeze(-1)
            rows = kept if rows is None else rows[kept]
            here, image, step, labels = here.rows(kept), image[kept], step[kept], labels[kept]
        # What is left of the linear system adds to the gradient at most this much.
        threshold = _FORCING**2 * here.squared_residual.unsqueeze(-1) / (gram.scale * (decay + gram.scale))
        correction = linear_response(gram, gram.loss.curvature(here.prediction), image / decay, threshold)
        target = (labels - here.prediction).div_(decay).add_(correction)
        trial, trial_image = _state(gram, labels, torch.lerp(here.dual, target, step))
        better = (trial.squared_residual < torch.maximum(here.squared_residual, limit)).unsqueeze(-1)
        here, image = trial.where(better, here), torch.where(better, trial_image, image)
        # Far away, where the loss is nearly linear, Newton's steps are much too long.
        step = torch.where(better, (4 * step).clamp(max=1.0), step / 4)
        found = here if rows is None else found.replaced(rows, here)
    return found


def _state(gram: Gram, labels: Tensor, dual: Tensor) -> tuple[Duals, Tensor]:
    """Return the state at some duals, and M (residual + lambda_H a)."""
    logits = torch.addmm(gram.offset, dual, gram.matrix)
    prediction = gram.loss.predict(logits)
    error = torch.add(prediction - labels, dual, alpha=gram.feature_decay)
    image = error @ gram.matrix
    return Duals(dual, logits, prediction, (error * image).sum(-1).clamp_(min=0)), image
