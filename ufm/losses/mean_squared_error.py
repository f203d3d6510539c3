"""Mean squared error."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ufm._support.summation import UNIT_ROUNDOFF
from ufm.losses.base import Classes, DualPoint, Loss, Restoration, Rows, Scalar, Values, counted_sum
from ufm.losses.curvature import Curvature, IdentityCurvature


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
        return -counted_sum(residual.square() / 2 + residual * self._centred(labels, counts), counts)

    def dual_point(self, residual: Rows, labels: Rows) -> DualPoint:
        """Return the residuals as they are, and the dual value less its rounding.

        Notes
        -----
        Each of the K terms r^2/2 + r (y - 1/K) is off by at most 8 roundings of its parts, the label's division by its
        sum included, and a sum adds K - 1 in any order. Nothing is lost at r = 0.
        """
        K = labels.shape[-1]
        size = (residual.square() / 2 + residual.abs() * (labels + 1 / K)).sum(-1)
        underflow = torch.where((residual != 0).any(-1), K * torch.finfo(size.dtype).tiny, 0.0)
        slack = (2 * K + 8) * UNIT_ROUNDOFF * size + underflow
        return DualPoint(residual, torch.zeros_like(residual), self.dual(residual, labels) - slack)

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
