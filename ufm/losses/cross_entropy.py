"""Cross entropy."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from ufm._support.summation import UNIT_ROUNDOFF, depth, pairwise_sum
from ufm.losses.base import Classes, DualPoint, Loss, Restoration, Rows, Scalar, Values, counted_sum
from ufm.losses.curvature import Curvature, SoftmaxCurvature
from ufm.prox import adjoint, prox_logits

# Above what an entry of an entropy can lose where its numbers are no longer normal ones.
_UNDERFLOW = 1e-304


class CrossEntropy(Loss):
    """CE(z, y) = logsumexp(z) - y.z; its dual value at q - y is the entropy of q."""

    name = "cross_entropy"
    shift_invariant = True

    @property
    def prediction_name(self) -> str:
        """The closed form."""
        return "closed form"

    def value(self, logits: Rows, labels: Rows) -> Values:
        """Return logsumexp(z) - y.z of each row: as a sum of terms that are not negative, of which none cancels."""
        top, index = logits.max(-1, keepdim=True)
        below = logits - top
        rest = below.exp().scatter(-1, index, 0.0).sum(-1)
        return rest.log1p() - (labels * below).sum(-1)

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
        if counts is not None:
            return -counted_sum(torch.special.xlogy(q, q), counts)
        # Where nearly all is in one entry, its distance from one is known to more digits than itself.
        others = q.scatter(-1, q.argmax(-1, keepdim=True), 0.0)
        rest = pairwise_sum(others).clamp(max=1)
        return -pairwise_sum(torch.special.xlogy(others, others)) - torch.special.xlog1py(1 - rest, -rest)

    def dual_point(self, residual: Rows, labels: Rows) -> DualPoint:
        """Return residuals that sum to zero and keep q = y + residual on the simplex, and a value below q's entropy.

        Notes
        -----
        The residual that is meant has the entries returned, but for the largest entry of q, where it is minus the sum
        of the others: its error is that sum's. Labels divided by their sum are off by depth + 1 roundings of
        themselves, depth being that of a sum over the classes; so q_k is known to depth + 2 roundings of y_k + |r_k|,
        say delta_k, and the largest q_k, as one minus the others, to the sum of these. (Where it is not far above the
        others, `dual` may take another entry for the largest: then its own rounding counts too.)

        With f(q) = -q log q: if |a - b| <= delta, then f(a) - f(b) <= delta (1.7 + |log a|). For delta <= a/2 this is
        the mean value theorem with |f'| <= 1 + |log(a/2)|. For a larger delta, f rises by at most f(delta) <=
        delta log(2/a) where a > b, as f is subadditive, and falls by at most delta, as f' >= -1. Evaluating the sum of
        entropies adds at most 2 depth + 8 roundings of it, with log and log1p right to two ulp.
        """
        roundings = depth(labels.shape[-1])
        unit = (roundings + 2) * UNIT_ROUNDOFF
        y = labels / pairwise_sum(labels).unsqueeze(-1)
        # So much above -y that the exact q is not negative.
        r = torch.maximum(residual, -(1 - 2 * unit) * y)
        top = (y + r).argmax(-1, keepdim=True)
        r = r.scatter(-1, top, 0.0)
        total = pairwise_sum(r.abs()).unsqueeze(-1)
        r = r.scatter(-1, top, -pairwise_sum(r).unsqueeze(-1))
        error = torch.zeros_like(r).scatter(-1, top, 1.01 * roundings * UNIT_ROUNDOFF * total)
        q = y + r
        delta = unit * (y + r.abs()) + error
        own = torch.where(q < 0.6, delta, 0.0).gather(-1, top)
        delta = delta.scatter(-1, top, 0.0)
        delta = delta.scatter(-1, top, pairwise_sum(delta).unsqueeze(-1) + own)
        slack = pairwise_sum(delta * (1.7 + q.clamp(min=torch.finfo(q.dtype).tiny).log().abs()))
        value = self.dual(r, y)
        # Below, entries lose digits to underflow; a label of one class alone has no such entry.
        underflow = torch.where(value > 0, labels.shape[-1] * _UNDERFLOW, 0.0)
        return DualPoint(r, error, value - (2 * roundings + 8) * UNIT_ROUNDOFF * value - 1.01 * slack - underflow)

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
