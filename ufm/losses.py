"""Losses on logits: value, residual, Fenchel dual and the closed-form response to a simplex-ETF classifier.

Each loss is convex in the logits and unchanged when the classes are permuted. Sums over classes take optional
`counts`, the multiplicity of each column (see `ufm.prox_logsumexp`), so that a label with few distinct values costs
as much as its distinct values.
"""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from ufm._support.arrays import check_choice
from ufm.prox import adjoint, prox_logits


@runtime_checkable
class Curvature(Protocol):
    """The Hessian S of a loss in the logits, at a batch of points (n, K)."""

    def apply(self, vectors: Float[Tensor, "n K"]) -> Float[Tensor, "n K"]:
        """Return S v, row by row."""
        ...

    def centred(self, vectors: Float[Tensor, "n K"]) -> Float[Tensor, "n K"]:
        """Return v without its part in the kernel of S, row by row."""
        ...

    def resolvent(self, shift: float, scale: Float[Tensor, ""]) -> Callable[[Tensor], Tensor]:
        """Return the map v -> (shift I + scale S)^-1 v, row by row, for shift > 0 and scale >= 0."""
        ...


@runtime_checkable
class Loss(Protocol):
    """What the objective, the certificate and the closed forms need of a loss."""

    name: str

    def value(self, logits: Float[Tensor, "N K"], labels: Float[Tensor, "N K"]) -> Float[Tensor, "N"]:
        """Return the loss of each row."""
        ...

    def residual(self, logits: Float[Tensor, "N K"], labels: Float[Tensor, "N K"]) -> Float[Tensor, "N K"]:
        """Return the gradient of the loss in the logits."""
        ...

    def predict(self, logits: Float[Tensor, "N K"]) -> Float[Tensor, "N K"]:
        """Return the prediction that is compared with the label: residual = prediction - label."""
        ...

    def hessian_product(self, logits: Float[Tensor, "N K"], vectors: Float[Tensor, "*N K r"]) -> Float[Tensor, "N K r"]:
        """Return the loss's Hessian in the logits of each row, applied to columns of vectors."""
        ...

    def curvature(self, prediction: Float[Tensor, "N K"]) -> Curvature:
        """Return the Hessian in the logits at the points where the prediction is `prediction`."""
        ...

    def dual(
        self,
        residual: Float[Tensor, "*N K"],
        labels: Float[Tensor, "*N K"],
        counts: Float[Tensor, "*N K"] | None = None,
    ) -> Float[Tensor, "*N"]:
        """Return minus the Fenchel conjugate of the loss at `residual`, row by row."""
        ...

    def etf_logits(
        self,
        labels: Float[Tensor, "*N K"],
        beta: float | Float[Tensor, ""],
        counts: Float[Tensor, "*N K"] | None = None,
    ) -> Float[Tensor, "*N K"]:
        """Return the optimal logits for a fixed simplex ETF: the solution of z = -beta residual(z)."""
        ...

    def etf_slope(
        self, logits: Float[Tensor, "*N K"], beta: Float[Tensor, ""], counts: Float[Tensor, "*N K"]
    ) -> Float[Tensor, "*N"]:
        """Return d||z||^2 / d log(beta) at these optimal logits, equal entries counted."""
        ...


class SoftmaxCurvature:
    """S = diag p - p p^T."""

    def __init__(self, probabilities: Float[Tensor, "n K"]) -> None:
        """Hold the probabilities p."""
        self.p = probabilities

    def apply(self, vectors: Float[Tensor, "n K"]) -> Float[Tensor, "n K"]:
        """Return p (v - p.v)."""
        return self.p * (vectors - (self.p * vectors).sum(-1, keepdim=True))

    def resolvent(self, shift: float, scale: Float[Tensor, ""]) -> Callable[[Tensor], Tensor]:
        """Return the inverse of a diagonal plus a rank-one matrix, by Sherman and Morrison's formula."""
        inverse = 1 / (shift + scale * self.p)
        q = self.p * inverse
        # 1 - scale sum p^2/(shift + scale p), written so that it does not cancel, is shift sum q.
        factor = scale / (shift * q.sum(-1, keepdim=True))
        return lambda v: torch.addcmul(v * inverse, q, factor * (q * v).sum(-1, keepdim=True))

    def centred(self, vectors: Float[Tensor, "n K"]) -> Float[Tensor, "n K"]:
        """Return v without its part in the kernel of S, the constant vectors."""
        return vectors - vectors.mean(-1, keepdim=True)


class IdentityCurvature:
    """S = I."""

    def centred(self, vectors: Float[Tensor, "n K"]) -> Float[Tensor, "n K"]:
        """Return v: the kernel is zero."""
        return vectors

    def apply(self, vectors: Float[Tensor, "n K"]) -> Float[Tensor, "n K"]:
        """Return v."""
        return vectors

    def resolvent(self, shift: float, scale: Float[Tensor, ""]) -> Callable[[Tensor], Tensor]:
        """Return the division by shift + scale."""
        return lambda v: v / (shift + scale)


class CrossEntropy:
    """CE(z, y) = logsumexp(z) - y.z; its dual value at q - y is the entropy of q."""

    name = "cross_entropy"

    def value(self, logits: Float[Tensor, "N K"], labels: Float[Tensor, "N K"]) -> Float[Tensor, "N"]:
        """Return logsumexp(z) - y.z of each row."""
        return torch.logsumexp(logits, -1) - (labels * logits).sum(-1)

    def residual(self, logits: Float[Tensor, "N K"], labels: Float[Tensor, "N K"]) -> Float[Tensor, "N K"]:
        """Return softmax(z) - y."""
        return self.predict(logits) - labels

    def predict(self, logits: Float[Tensor, "N K"]) -> Float[Tensor, "N K"]:
        """Return softmax(z)."""
        return torch.softmax(logits, -1)

    def hessian_product(self, logits: Float[Tensor, "N K"], vectors: Float[Tensor, "*N K r"]) -> Float[Tensor, "N K r"]:
        """Return (diag p - p p^T) v."""
        p = self.predict(logits).unsqueeze(-1)
        return p * (vectors - (p * vectors).sum(-2, keepdim=True))

    def curvature(self, prediction: Float[Tensor, "N K"]) -> Curvature:
        """Return diag p - p p^T."""
        return SoftmaxCurvature(prediction)

    def dual(
        self,
        residual: Float[Tensor, "*N K"],
        labels: Float[Tensor, "*N K"],
        counts: Float[Tensor, "*N K"] | None = None,
    ) -> Float[Tensor, "*N"]:
        """Return the entropy of q = y + residual."""
        # q is a mixture of distributions; only the rounding of y + (p - y) can bring it below zero.
        q = (labels + residual).clamp(min=0)
        return -_sum(torch.special.xlogy(q, q), counts)

    def etf_logits(
        self,
        labels: Float[Tensor, "*N K"],
        beta: float | Float[Tensor, ""],
        counts: Float[Tensor, "*N K"] | None = None,
    ) -> Float[Tensor, "*N K"]:
        """Return the proximal point of log-sum-exp."""
        b = torch.as_tensor(beta, dtype=labels.dtype, device=labels.device).expand(labels.shape[:-1])
        return prox_logits(labels, b, counts)

    def etf_slope(
        self, logits: Float[Tensor, "*N K"], beta: Float[Tensor, ""], counts: Float[Tensor, "*N K"]
    ) -> Float[Tensor, "*N"]:
        """Return 2 z.(I + beta (diag p - p p^T))^-1 z."""
        return 2 * (logits * adjoint(logits, beta.expand(logits.shape[:-1]), counts, counts * logits)).sum(-1)


class MeanSquaredError:
    """MSE(z, y) = ||z + 1/K - y||^2 / 2, with the bias 1/K that is optimal for every symmetric law."""

    name = "mean_squared_error"

    def value(self, logits: Float[Tensor, "N K"], labels: Float[Tensor, "N K"]) -> Float[Tensor, "N"]:
        """Return ||z + 1/K - y||^2 / 2 of each row."""
        return self.residual(logits, labels).square().sum(-1) / 2

    def residual(self, logits: Float[Tensor, "N K"], labels: Float[Tensor, "N K"]) -> Float[Tensor, "N K"]:
        """Return z + 1/K - y."""
        return self.predict(logits) - labels

    def predict(self, logits: Float[Tensor, "N K"]) -> Float[Tensor, "N K"]:
        """Return the network's output z + 1/K."""
        return logits + 1 / logits.shape[-1]

    def hessian_product(self, logits: Float[Tensor, "N K"], vectors: Float[Tensor, "*N K r"]) -> Float[Tensor, "N K r"]:
        """Return v itself: the Hessian is the identity."""
        return vectors.expand(*logits.shape, vectors.shape[-1])

    def curvature(self, prediction: Float[Tensor, "N K"]) -> Curvature:
        """Return the identity."""
        return IdentityCurvature()

    def dual(
        self,
        residual: Float[Tensor, "*N K"],
        labels: Float[Tensor, "*N K"],
        counts: Float[Tensor, "*N K"] | None = None,
    ) -> Float[Tensor, "*N"]:
        """Return -(||g||^2 / 2 + g.(y - 1/K)) at g = residual."""
        return -_sum(residual.square() / 2 + residual * self._centred(labels, counts), counts)

    def etf_logits(
        self,
        labels: Float[Tensor, "*N K"],
        beta: float | Float[Tensor, ""],
        counts: Float[Tensor, "*N K"] | None = None,
    ) -> Float[Tensor, "*N K"]:
        """Return the straight line beta/(1+beta) (y - 1/K)."""
        return beta / (1 + beta) * self._centred(labels, counts)

    def etf_slope(
        self, logits: Float[Tensor, "*N K"], beta: Float[Tensor, ""], counts: Float[Tensor, "*N K"]
    ) -> Float[Tensor, "*N"]:
        """Return 2 ||z||^2 / (1 + beta)."""
        return 2 * (counts * logits.square()).sum(-1) / (1 + beta)

    @staticmethod
    def _centred(labels: Tensor, counts: Tensor | None) -> Tensor:
        num_classes = labels.shape[-1] if counts is None else counts.sum(-1, keepdim=True)
        return labels - 1 / num_classes


def _sum(values: Tensor, counts: Tensor | None) -> Tensor:
    return (values if counts is None else counts * values).sum(-1)


LOSSES: dict[str, Loss] = {loss.name: loss for loss in (CrossEntropy(), MeanSquaredError())}


def register_loss(loss: Loss) -> None:
    """Make a loss of the user's known by its name, for the rest of the process, wherever a loss is asked for.

    loss: convex in the logits, with all members of `Loss`; those for closed forms may raise ValueError. Raises
    ValueError for an object without them, or for the name of a loss that is known already.
    """
    if not isinstance(loss, Loss):
        members = (
            "name",
            "value",
            "residual",
            "predict",
            "hessian_product",
            "curvature",
            "dual",
            "etf_logits",
            "etf_slope",
        )
        missing = [member for member in members if not hasattr(loss, member)]
        raise ValueError(f"loss: got {type(loss).__name__} without {', '.join(missing)}, expected the members of Loss")
    if loss.name in LOSSES and LOSSES[loss.name] is not loss:
        raise ValueError(f"loss: got the name {loss.name!r}, which is taken, expected none of {', '.join(LOSSES)}")
    LOSSES[loss.name] = loss


def get_loss(name: str) -> Loss:
    """Return the loss called `name`; raise ValueError for an unknown name."""
    check_choice("loss", name, tuple(LOSSES))
    return LOSSES[name]
