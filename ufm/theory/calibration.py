"""Calibration in theory: confidence and entropy of the optimal predictions, and what beta makes of the ECE.

All predictions are those of cross entropy at the optimum for a simplex ETF, p(y; beta); see `ufm.prox_logsumexp`.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ufm._support.arrays import Array, check_integer, check_number, in_kind, to_tensor
from ufm.labels.laws import Law, Unmixed
from ufm.labels.targets import pair_levels
from ufm.prox import prox_logsumexp
from ufm.theory.joint import joint_optimum

# Level of the continuous rule for averages that are means of bounded functions.
_LEVEL = 6


def confidence(lam: float | Float[Array, "*N"], beta: float, num_classes: int) -> Float[Array, "*N"]:
    """Return the largest predicted probability for the label lam e_a + (1 - lam) e_b.

    lam: in [0, 1]. beta: > 0. num_classes: K >= 2. Raises ValueError for arguments out of range.
    """
    p, _ = _predictions(lam, beta, num_classes)
    return in_kind(p.amax(-1).reshape(to_tensor("lam", lam).shape), lam)


def entropy(lam: float | Float[Array, "*N"], beta: float, num_classes: int) -> Float[Array, "*N"]:
    """Return the entropy, in nats, of the prediction for the label lam e_a + (1 - lam) e_b.

    lam, beta, num_classes: as in `confidence`. Raises ValueError for arguments out of range.
    """
    p, counts = _predictions(lam, beta, num_classes)
    value = -(counts * torch.special.xlogy(p, p)).sum(-1)
    return in_kind(value.reshape(to_tensor("lam", lam).shape), lam)


def _predictions(lam: float | Array, beta: float, num_classes: int) -> tuple[Tensor, Tensor]:
    coefficient = to_tensor("lam", lam).reshape(-1)
    if not bool(((coefficient >= 0) & (coefficient <= 1)).all()):
        raise ValueError("lam: got values outside the interval, expected 0 <= lam <= 1")
    levels, counts = pair_levels(coefficient, check_integer("num_classes", num_classes, minimum=2))
    p = torch.as_tensor(prox_logsumexp(levels, check_number("beta", beta, above=0), counts=counts).probabilities)
    return torch.where(counts > 0, p, 0.0), counts


@dataclass(frozen=True)
class Calibration:
    """Calibration of the optimal predictions when the true class is drawn from the soft label.

    confidence: mean largest probability. accuracy: probability that the class with the largest probability is drawn.
    entropy: mean entropy of the predictions, in nats. ece: expected calibration error, the mean over equal-width bins
    of confidence of |accuracy - confidence|, weighted by the bins' probabilities.
    """

    confidence: float
    accuracy: float
    entropy: float
    ece: float


def law_calibration(law: Law, beta: float, *, bins: int = 15, nodes: int | None = None) -> Calibration:
    """Return how well calibrated the predictions at `beta` are on labels that follow `law`.

    law: that is evaluated on, symmetric; `Unmixed` for clean data. beta: > 0, of the trained model. bins: number of
    bins of confidence. nodes: None for the continuous law, or Gauss-Jacobi nodes. Raises ValueError for arguments out
    of range.
    """
    bins = check_integer("bins", bins, minimum=1)
    orbits = law.orbits(nodes, level=_LEVEL)
    b = check_number("beta", beta, above=0)
    p = torch.as_tensor(prox_logsumexp(orbits.levels, b, counts=orbits.counts).probabilities)
    p = torch.where(orbits.counts > 0, p, -1.0)
    top, index = p.max(-1)
    hit = orbits.levels.gather(1, index[:, None])[:, 0]
    mean_entropy = -(orbits.weights @ (orbits.counts * torch.special.xlogy(p.clamp(min=0), p.clamp(min=0))).sum(-1))
    cell = np.minimum((top.numpy() * bins).astype(int), bins - 1)
    gaps = np.bincount(cell, (orbits.weights * (hit - top)).numpy(), bins)
    return Calibration(
        (orbits.weights @ top).item(), (orbits.weights @ hit).item(), mean_entropy.item(), float(np.abs(gaps).sum())
    )


def calibration_at_penalties(
    law: Law, weight_decay: float, feature_decay: float, *, evaluated_on: Law | None = None, bins: int = 15
) -> Calibration:
    """Return the calibration of the joint optimum for `law` at given penalties, evaluated on another law.

    With it mixup is compared with none at equal penalties: once with law = Mixup(K), once with law = Unmixed(K).
    law: of training. weight_decay, feature_decay: as in `joint_optimum`. evaluated_on: by default unmixed labels.
    Raises ValueError if the optimum is zero, whose predictions are uniform.
    """
    optimum = joint_optimum(law, weight_decay, feature_decay)
    if optimum.collapsed:
        raise ValueError(
            f"weight_decay, feature_decay: got a product of {weight_decay * feature_decay:g}, expected one below the "
            f"collapse threshold {optimum.threshold:g}"
        )
    return law_calibration(evaluated_on or Unmixed(law.num_classes), float(optimum.beta), bins=bins)
