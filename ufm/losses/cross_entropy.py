"""Cross entropy."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from ufm.losses.base import Classes, Loss, Restoration, Rows, Scalar, Values, counted_sum
from ufm.losses.curvature import Curvature, SoftmaxCurvature
from ufm.prox import adjoint, prox_logits


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
        return -counted_sum(torch.special.xlogy(q, q), counts)

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
