"""Losses on logits, and everything in the library that depends on which loss it is.

Each loss is convex in the logits and unchanged when the classes are permuted. The rest of the library never asks for a
loss's name: what differs from loss to loss is a member of `Loss`. Sums over classes take optional `counts`, the
multiplicity of each column (see `ufm.prox_logsumexp`), so that a label with few distinct values costs as much as its
distinct values.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ufm._support.arrays import check_choice
from ufm.prox import adjoint, prox_logits

Scalar = Float[Tensor, ""]
Classes = Float[Tensor, "K"]
Rows = Float[Tensor, "*N K"]
Broadcast = Float[Tensor, "... K"]
Values = Float[Tensor, "*N"]


@runtime_checkable
class Curvature(Protocol):
    """The Hessian S of a loss in the logits, at a batch of points (..., K).

    Every method works on the last axis and broadcasts over the others.
    """

    def apply(self, vectors: Broadcast) -> Broadcast:
        """Return S v, row by row."""
        ...

    def centred(self, vectors: Broadcast) -> Broadcast:
        """Return v without its part in the kernel of S, row by row."""
        ...

    def resolvent(self, shift: float, scale: Scalar) -> Callable[[Tensor], Tensor]:
        """Return the map v -> (shift I + scale S)^-1 v, row by row, for shift > 0 and scale >= 0."""
        ...


class SoftmaxCurvature:
    """The Hessian of log-sum-exp, S = diag p - p p^T."""

    def __init__(self, probabilities: Rows) -> None:
        """Hold the probabilities p."""
        self.p = probabilities

    def apply(self, vectors: Broadcast) -> Broadcast:
        """Return p (v - p.v)."""
        return self.p * (vectors - (self.p * vectors).sum(-1, keepdim=True))

    def centred(self, vectors: Broadcast) -> Broadcast:
        """Return v less its mean: the kernel of S is the constant vectors."""
        return vectors - vectors.mean(-1, keepdim=True)

    def resolvent(self, shift: float, scale: Scalar) -> Callable[[Tensor], Tensor]:
        """Return the inverse of a diagonal plus a rank-one matrix, by Sherman and Morrison's formula."""
        inverse = 1 / (shift + scale * self.p)
        q = self.p * inverse
        # 1 - scale sum p^2/(shift + scale p) cancels; shift sum q is the same number without cancellation.
        factor = scale / (shift * q.sum(-1, keepdim=True))
        return lambda v: torch.addcmul(v * inverse, q, factor * (q * v).sum(-1, keepdim=True))


class DiagonalCurvature:
    """A diagonal Hessian, S = diag s with s > 0: that of a loss which is a sum of one term per logit."""

    def __init__(self, diagonal: Rows) -> None:
        """Hold the diagonal s."""
        self.diagonal = diagonal

    def apply(self, vectors: Broadcast) -> Broadcast:
        """Return s v."""
        return self.diagonal * vectors

    def centred(self, vectors: Broadcast) -> Broadcast:
        """Return v: the kernel of S is zero."""
        return vectors

    def resolvent(self, shift: float, scale: Scalar) -> Callable[[Tensor], Tensor]:
        """Return the division by shift + scale s."""
        return lambda v: v / (shift + scale * self.diagonal)


class IdentityCurvature:
    """The Hessian of half a square, S = I."""

    def apply(self, vectors: Broadcast) -> Broadcast:
        """Return v."""
        return vectors

    def centred(self, vectors: Broadcast) -> Broadcast:
        """Return v: the kernel of S is zero."""
        return vectors

    def resolvent(self, shift: float, scale: Scalar) -> Callable[[Tensor], Tensor]:
        """Return the division by shift + scale."""
        return lambda v: v / (shift + scale)


@dataclass(frozen=True)
class Restoration:
    """How residuals r are moved so that they average to zero and stay in the domain of the conjugate.

    They become (1 - share) (r - shift) + share (target - y).

    Attributes
    ----------
    shift : (K,) tensor
        What is subtracted from every residual.
    share : float
        The share, in [0, 1], of every prediction that `target` takes the place of.
    target : (K,) tensor, optional
        The prediction that is mixed in; None where the share is 0.
    gain : float
        The mean dual value afterwards is at least (1 - share) times that before, plus `gain`.
    distance : float
        An upper bound on the length of target - y, for every label y.
    """

    shift: Classes
    share: float = 0.0
    target: Classes | None = None
    gain: float = 0.0
    distance: float = 0.0

    def apply(self, residual: Rows, labels: Rows) -> Rows:
        """Return the moved residuals."""
        moved = residual - self.shift
        return moved if self.target is None else (1 - self.share) * moved + self.share * (self.target - labels)


class Loss(ABC):
    """A loss, convex in the logits: what the objective, the solvers, the certificate and the closed forms need of it.

    A subclass has to supply `name`, `value`, `predict`, `curvature` and `dual`. The other members either follow from
    these or have a default: no bias of its own, no certificate with an unpenalised bias, and a ValueError that names
    the loss where a closed form, a conic form or a prediction for networks is asked for.

    Attributes
    ----------
    name : str
        What `UFM`, `joint_optimum` and the command line call the loss.
    shift_invariant : bool
        Whether the value does not change when one number is added to all logits of a row. False by default, which is
        always safe.
    """

    name: str
    shift_invariant: bool = False

    # What every loss supplies.

    @abstractmethod
    def value(self, logits: Rows, labels: Rows) -> Values:
        """Return the loss of each row."""

    @abstractmethod
    def predict(self, logits: Rows) -> Rows:
        """Return the prediction that is compared with the label: the gradient in the logits is prediction - label."""

    @abstractmethod
    def curvature(self, prediction: Rows) -> Curvature:
        """Return the Hessian in the logits at the points where the prediction is `prediction`."""

    @abstractmethod
    def dual(self, residual: Rows, labels: Rows, counts: Rows | None = None) -> Values:
        """Return minus the Fenchel conjugate of the loss at `residual`, row by row."""

    # What follows from it.

    def residual(self, logits: Rows, labels: Rows) -> Rows:
        """Return the gradient of the loss in the logits, prediction - label."""
        return self.predict(logits) - labels

    def hessian_product(self, logits: Float[Tensor, "N K"], vectors: Float[Tensor, "*N K r"]) -> Float[Tensor, "N K r"]:
        """Return the Hessian in the logits of each row, applied to columns of vectors: `curvature`, column by column.

        The vectors are either one matrix (K, r) for all rows or one for each (N, K, r).
        """
        columns = self.curvature(self.predict(logits).unsqueeze(-2)).apply(vectors.mT)
        return columns.mT.expand(*logits.shape, vectors.shape[-1])

    # What a loss may have; these are the defaults.

    def own_bias(self, num_classes: int) -> float:
        """Return the constant that `predict` adds to every logit, and that a bias of the user's replaces."""
        return 0.0

    def first_logits(self, labels: Rows, beta: Scalar) -> Rows:
        """Return a guess of the solution of z = -beta residual(z), from which a solver starts.

        By default that of cross entropy, which grows only like log(beta).
        """
        return prox_logits(labels, beta.expand(len(labels)))

    def restoration(self, mean: Classes, average: Classes) -> Restoration | None:
        """Return how residuals are moved to average to zero, as the dual of an unpenalised bias asks for.

        Parameters
        ----------
        mean : (K,) tensor
            The mean residual.
        average : (K,) tensor
            The mean label.

        Returns
        -------
        Restoration or None
            None where no way is known: there is then no certificate with an unpenalised bias.
        """
        return None

    @property
    def has_closed_form(self) -> bool:
        """Whether the loss supplies `etf_logits`."""
        return type(self).etf_logits is not Loss.etf_logits

    def etf_logits(self, labels: Rows, beta: float | Scalar, counts: Rows | None = None) -> Rows:
        """Return the optimal logits for a fixed simplex ETF: the solution of z = -beta residual(z).

        Only for a loss whose prediction at zero logits is 1/K and whose residuals sum to zero over the classes where
        the logits do: the solution then lies in the row space of the ETF. By default raises ValueError.
        """
        raise self._lacks("closed form")

    def etf_slope(self, logits: Rows, beta: Scalar, counts: Rows) -> Values:
        """Return d||z||^2 / d log(beta) at these optimal logits, equal entries counted; by default raise ValueError."""
        raise self._lacks("closed form")

    @property
    def prediction_name(self) -> str:
        """Which prediction of `ufm.compare` is the theory's for networks trained with this loss.

        "closed form" or "straight line"; by default raises ValueError.
        """
        raise self._lacks("prediction for networks")

    def conic(self, logits: Any, labels: Float[np.ndarray, "N K"]) -> Any:
        """Return the loss of each row as a convex cvxpy expression (N,) of the cvxpy expression `logits` (N, K).

        By default raises ValueError.
        """
        raise self._lacks("conic form")

    def _lacks(self, what: str) -> ValueError:
        return ValueError(
            f"loss: got {self.name!r}, which has no {what} here, expected one that has, e.g. 'cross_entropy'"
        )


class CrossEntropy(Loss):
    """CE(z, y) = logsumexp(z) - y.z; its dual value at q - y is the entropy of q."""

    name = "cross_entropy"
    shift_invariant = True

    @property
    def prediction_name(self) -> str:
        """The closed form."""
        return "closed form"

    def value(self, logits: Rows, labels: Rows) -> Values:
        """Return logsumexp(z) - y.z of each row."""
        return torch.logsumexp(logits, -1) - (labels * logits).sum(-1)

    def predict(self, logits: Rows) -> Rows:
        """Return softmax(z)."""
        return torch.softmax(logits, -1)

    def curvature(self, prediction: Rows) -> Curvature:
        """Return diag p - p p^T."""
        return SoftmaxCurvature(prediction)

    def dual(self, residual: Rows, labels: Rows, counts: Rows | None = None) -> Values:
        """Return the entropy of q = y + residual."""
        # q is a mixture of distributions; only the rounding of y + (p - y) can bring it below zero.
        q = (labels + residual).clamp(min=0)
        return -_sum(torch.special.xlogy(q, q), counts)

    def restoration(self, mean: Classes, average: Classes) -> Restoration | None:
        """Return the least share of one distribution in every prediction that takes the mean residual out of them.

        Notes
        -----
        The predictions q = y + r stay distributions if they are mixed with one, u. They average to the mean label for
        u = average - (1 - share)/share mean, which is non-negative from share = max_k mean_k / (average_k + mean_k)
        on. Entropy is concave and not negative, so that its mean keeps at least the part 1 - share.

        References
        ----------
        derivations/constraints.py
        """
        share = torch.where(mean > 0, mean / (average + mean), 0.0).max().item()
        still = Restoration(torch.zeros_like(mean))
        if share <= 0:
            return still
        # Two distributions are at most sqrt(2) apart.
        return replace(still, share=share, target=average - (1 - share) / share * mean, distance=math.sqrt(2))

    def etf_logits(self, labels: Rows, beta: float | Scalar, counts: Rows | None = None) -> Rows:
        """Return the proximal point of log-sum-exp."""
        b = torch.as_tensor(beta, dtype=labels.dtype, device=labels.device).expand(labels.shape[:-1])
        return prox_logits(labels, b, counts)

    def etf_slope(self, logits: Rows, beta: Scalar, counts: Rows) -> Values:
        """Return 2 z.(I + beta (diag p - p p^T))^-1 z."""
        return 2 * (logits * adjoint(logits, beta.expand(logits.shape[:-1]), counts, counts * logits)).sum(-1)

    def conic(self, logits: Any, labels: Float[np.ndarray, "N K"]) -> Any:
        """Return log_sum_exp(z) - y.z."""
        import cvxpy as cp

        return cp.log_sum_exp(logits, axis=1) - cp.sum(cp.multiply(labels, logits), axis=1)


class MeanSquaredError(Loss):
    """MSE(z, y) = ||z + 1/K - y||^2 / 2, with the bias 1/K that is optimal for every symmetric law."""

    name = "mean_squared_error"

    @property
    def prediction_name(self) -> str:
        """The straight line."""
        return "straight line"

    def value(self, logits: Rows, labels: Rows) -> Values:
        """Return ||z + 1/K - y||^2 / 2 of each row."""
        return self.residual(logits, labels).square().sum(-1) / 2

    def predict(self, logits: Rows) -> Rows:
        """Return the network's output z + 1/K."""
        return logits + self.own_bias(logits.shape[-1])

    def curvature(self, prediction: Rows) -> Curvature:
        """Return the identity."""
        return IdentityCurvature()

    def dual(self, residual: Rows, labels: Rows, counts: Rows | None = None) -> Values:
        """Return -(||g||^2 / 2 + g.(y - 1/K)) at g = residual."""
        return -_sum(residual.square() / 2 + residual * self._centred(labels, counts), counts)

    def own_bias(self, num_classes: int) -> float:
        """Return 1/K."""
        return 1 / num_classes

    def first_logits(self, labels: Rows, beta: Scalar) -> Rows:
        """Return the solution itself."""
        return self.etf_logits(labels, beta)

    def restoration(self, mean: Classes, average: Classes) -> Restoration | None:
        """Return the subtraction of the mean: every residual is in the conjugate's domain.

        Notes
        -----
        The dual value is quadratic: its mean rises by ||mean||^2 / 2 + mean.(average - 1/K).

        References
        ----------
        derivations/constraints.py
        """
        gain = (mean @ mean).item() / 2 + (mean @ (average - 1 / len(mean))).item()
        return Restoration(mean, gain=gain)

    def etf_logits(self, labels: Rows, beta: float | Scalar, counts: Rows | None = None) -> Rows:
        """Return the straight line beta/(1+beta) (y - 1/K)."""
        return beta / (1 + beta) * self._centred(labels, counts)

    def etf_slope(self, logits: Rows, beta: Scalar, counts: Rows) -> Values:
        """Return 2 ||z||^2 / (1 + beta)."""
        return 2 * (counts * logits.square()).sum(-1) / (1 + beta)

    def conic(self, logits: Any, labels: Float[np.ndarray, "N K"]) -> Any:
        """Return ||z + 1/K - y||^2 / 2."""
        import cvxpy as cp

        return cp.sum(cp.square(logits + 1 / labels.shape[1] - labels), axis=1) / 2

    @staticmethod
    def _centred(labels: Tensor, counts: Tensor | None) -> Tensor:
        num_classes = labels.shape[-1] if counts is None else counts.sum(-1, keepdim=True)
        return labels - 1 / num_classes


def _sum(values: Tensor, counts: Tensor | None) -> Tensor:
    return (values if counts is None else counts * values).sum(-1)


LOSSES: dict[str, Loss] = {loss.name: loss for loss in (CrossEntropy(), MeanSquaredError())}


def register_loss(loss: object) -> None:
    """Make a loss of the user's known by its name, for the rest of the process, wherever a loss is asked for.

    Parameters
    ----------
    loss : Loss
        An object of a subclass of `Loss`; or any object with the members that a subclass has to supply, which gets the
        defaults of `Loss` for the members that it lacks.

    Raises
    ------
    ValueError
        For an object that lacks members, or the name of a loss that is known already.
    """
    needed = ("name", *(member for member in vars(Loss) if member in Loss.__abstractmethods__))
    missing = [member for member in needed if not hasattr(loss, member)]
    if missing:
        raise ValueError(f"loss: got {type(loss).__name__} without {', '.join(missing)}, expected the members of Loss")
    loss = loss if isinstance(loss, Loss) else _completed(loss)
    if loss.name in LOSSES and LOSSES[loss.name] is not loss:
        raise ValueError(f"loss: got the name {loss.name!r}, which is taken, expected none of {', '.join(LOSSES)}")
    LOSSES[loss.name] = loss


@cache
def _completed(given: Any) -> Loss:
    """Return a loss with the members of an object that is no `Loss`, and the defaults for those that it lacks."""
    own = {member: getattr(given, member) for member in vars(Loss) if member[0] != "_" and hasattr(given, member)}
    members = {name: staticmethod(value) if callable(value) else value for name, value in own.items()}
    return type(type(given).__name__, (Loss,), {"name": given.name, **members})()


def get_loss(name: str) -> Loss:
    """Return a loss by its name.

    Parameters
    ----------
    name : str
        "cross_entropy", "mean_squared_error" or the name of a registered loss.

    Raises
    ------
    ValueError
        For an unknown name.

    Examples
    --------
    >>> import torch
    >>> get_loss("cross_entropy").value(torch.zeros(1, 4), torch.eye(4)[:1])
    tensor([1.3863])
    """
    check_choice("loss", name, tuple(LOSSES))
    return LOSSES[name]
