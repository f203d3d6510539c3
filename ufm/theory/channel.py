"""The shape of the optimal logits under mixup: the channel of different-class features, exact and in the limit."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ufm._support.arrays import Array, check_integer, check_labels, check_number, in_kind, to_tensor
from ufm.labels.targets import pair_levels
from ufm.prox import prox_logsumexp, wright_omega


@dataclass(frozen=True)
class Channel:
    """Shape of the optimal logits of mixed labels, one entry per lambda.

    width: z_a - z_b, across the decision boundary. depth: (z_a + z_b)/2 - z_0, along it. The asymptotic forms hold for
    beta -> infinity, while lambda (1 - lambda) is well above 1/(K beta).
    """

    width: Float[Array, "*N"]
    depth: Float[Array, "*N"]
    width_asymptotic: Float[Array, "*N"]
    depth_asymptotic: Float[Array, "*N"]


def channel(lam: float | Float[Array, "*N"], beta: float, num_classes: int) -> Channel:
    """Return width and depth of the channel in which different-class features run, exact and asymptotic.

        width -> log(lambda/(1-lambda)),   depth -> W0((K beta/2) sqrt(lambda (1-lambda)))   as beta -> infinity

    lam: mixing coefficients in (0, 1). beta: > 0. num_classes: K >= 3, so that there is an off-target class.
    Raises ValueError for lam outside (0, 1), beta <= 0 or K < 3.

    Source: derivations/channel.py.
    """
    coefficient, beta, K = _mixed_arguments(lam, beta, num_classes)
    if not bool(((coefficient > 0) & (coefficient < 1)).all()):
        raise ValueError("lam: got values outside the open interval, expected 0 < lam < 1")
    za, zb, z0 = _mixed_logits(coefficient, beta, K)
    # W0(t) = omega(log t), in logarithms so that no beta overflows.
    log_argument = math.log(K / 2) + math.log(beta) + (coefficient.log() + torch.log1p(-coefficient)) / 2
    result = Channel(za - zb, (za + zb) / 2 - z0, torch.logit(coefficient), torch.as_tensor(wright_omega(log_argument)))
    return in_kind(result, lam)


def limit_shape(labels: Float[Array, "N K"]) -> Float[Array, "N K"]:
    """Return the limit of the optimal logits divided by log(beta), as beta -> infinity: the centred support.

    For a label with s positive entries, 1 - s/K on them and -s/K elsewhere, whatever their values: e_y - 1/K for an
    unmixed label, e_a + e_b - 2/K for a mixed one. labels (N, K): rows on the simplex.
    Raises ValueError for labels off the simplex. Source: derivations/channel.py.
    """
    y = to_tensor("labels", labels, ndim=2)
    check_labels(y)
    support = (y > 0).to(y)
    return in_kind(support - support.mean(-1, keepdim=True), labels)


def length_ratio(lam: float | Float[Array, "*N"], beta: float, num_classes: int) -> Float[Array, "*N"]:
    """Return the length of mixed features over that of same-class ones, at equal beta and classifier.

    As beta -> infinity it tends to sqrt(2(K-2)/(K-1)) for every lam in (0, 1): mixed features end up longer.
    lam: in [0, 1]. beta: > 0. num_classes: K >= 3. Raises ValueError for arguments out of range.
    """
    coefficient, beta, K = _mixed_arguments(lam, beta, num_classes)

    def length(of: Tensor) -> Tensor:
        za, zb, z0 = _mixed_logits(of, beta, K)
        return (za.square() + zb.square() + (K - 2) * z0.square()).sqrt()

    return in_kind(length(coefficient) / length(torch.ones_like(coefficient)), lam)


def amplification(beta: float, num_classes: int) -> float:
    """Return how steeply the width crosses the decision boundary, against a straight line between the same-class ends.

        d width / d lambda at 1/2 is 2 beta/(1 + beta p_a(1/2)), which tends to 4; the line's slope is 2 (z_y - z_0).

    Below one: around lambda = 1/2 the logits change slowly, and many mixtures gather near the boundary.
    beta: > 0. num_classes: K >= 3. Raises ValueError for arguments out of range.
    """
    half, beta, K = _mixed_arguments(0.5, beta, num_classes)
    za, _, z0 = _mixed_logits(half, beta, K)
    p_a = 1 / (2 + (K - 2) * math.exp((z0 - za).item()))
    z_y, _, z_off = _mixed_logits(torch.ones_like(half), beta, K)
    return beta / (1 + beta * p_a) / (z_y - z_off).item()


def _mixed_arguments(lam: float | Array, beta: float, num_classes: int) -> tuple[Tensor, float, int]:
    coefficient = to_tensor("lam", lam)
    if not bool(((coefficient >= 0) & (coefficient <= 1)).all()):
        raise ValueError("lam: got values outside the interval, expected 0 <= lam <= 1")
    K = check_integer("num_classes", num_classes, minimum=3)
    return coefficient, check_number("beta", beta, above=0), K


def _mixed_logits(lam: Tensor, beta: float, num_classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return z_a, z_b and z_0 of the label lam e_a + (1 - lam) e_b, each in the shape of lam."""
    levels, counts = pair_levels(lam.reshape(-1), num_classes)
    z = torch.as_tensor(prox_logsumexp(levels, beta, counts=counts).logits)
    za, zb, z0 = (column.reshape(lam.shape) for column in z.unbind(-1))
    return za, zb, z0
