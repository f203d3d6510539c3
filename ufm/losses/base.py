"""What a loss is: the members that it has to supply, and the defaults of all others."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ufm._support.summation import UNIT_ROUNDOFF
from ufm.losses.curvature import Curvature
from ufm.prox import prox_logits

Scalar = Float[Tensor, ""]
Classes = Float[Tensor, "K"]
Rows = Float[Tensor, "*N K"]
Broadcast = Float[Tensor, "... K"]
Values = Float[Tensor, "*N"]


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


@dataclass(frozen=True)
class DualPoint:
    """Residuals in the domain of the conjugate, in float64, with what rounding leaves open.

    Attributes
    ----------
    residual : (..., K) tensor
        r, each entry within `error` of that of the exact residual that is meant.
    error : (..., K) tensor
        Not negative.
    value : (...) tensor
        At most the dual value of the exact residual.
    """

    residual: Rows
    error: Rows
    value: Values


class Loss(ABC):
    """A loss, convex in the logits: what the objective, the solvers, the certificate and the closed forms need of it.

    A subclass has to supply `name`, `value`, `predict`, `curvature` and `dual`. The other members either follow from
    these or have a default: no bias of its own, no certificate with an unpenalised bias, and a ValueError that names
    the loss where a closed form or a conic form is asked for.

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

    def dual_point(self, residual: Rows, labels: Rows) -> DualPoint:
        """Return residuals that lie in the conjugate's domain exactly, near those given, and a value below their dual.

        This is what makes a certificate hold in spite of rounding. Here `dual` is taken to be right to K + 16 roundings
        of its value and of the residual's entries, and the residual to be in the domain; a loss that has been analysed
        does better.

        Parameters
        ----------
        residual, labels : (..., K) tensors in float64
            The residuals wanted, and the labels; these stand for the label divided by its exact sum.

        Returns
        -------
        DualPoint
            The residuals, their error, and the value.
        """
        value = self.dual(residual, labels)
        allowance = (residual.shape[-1] + 16) * UNIT_ROUNDOFF * (value.abs() + residual.abs().sum(-1))
        return DualPoint(residual, torch.zeros_like(residual), value - allowance)

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
            None where no way is known: there is then no certificate with an unpenalised bias. The share is taken to be
            largest at one of the ends if all entries of the mean are rounded up, or all down, and the gain to change
            with an entry of the mean by at most (abs(mean_k) + average_k + 1) times as much.
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
    def prediction_name(self) -> str | None:
        """Which prediction of `ufm.compare` is the theory's for networks trained with this loss, or None if none is.

        "closed form" or "straight line".
        """
        return None

    def conic(self, logits: Any, labels: Float[np.ndarray, "N K"]) -> Any:
        """Return the loss of each row as a convex cvxpy expression (N,) of the cvxpy expression `logits` (N, K).

        By default raises ValueError.
        """
        raise self._lacks("conic form")

    def _lacks(self, what: str) -> ValueError:
        return ValueError(
            f"loss: got {self.name!r}, which has no {what} here, expected one that has, e.g. 'cross_entropy'"
        )


def counted_sum(values: Tensor, counts: Tensor | None) -> Tensor:
    """Return the sum over the classes, each entry counted as often as `counts` says."""
    return (values if counts is None else counts * values).sum(-1)
