"""Calibration in theory: confidence and entropy of the optimal predictions, and how beta determines the ECE.

All predictions are those of cross entropy at the optimum for a simplex ETF, p(y; beta); see `ufm.prox_logsumexp`.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ufm._support.arrays import Array, check_integer, check_number, in_kind, to_tensor
from ufm._support.pairs import bin_index, check_bins, read_lam
from ufm.labels.laws import Law, Unmixed, check_law
from ufm.labels.targets import pair_levels
from ufm.prox import prox_logsumexp
from ufm.theory.joint import joint_optimum

# Level of the continuous rule for averages that are means of bounded functions.
_LEVEL = 6


def confidence(
    lam: float | Float[Array, "*N"], beta: float | Float[Tensor, ""], num_classes: int
) -> Float[Array, "*N"]:
    """Return the largest predicted probability for the label lam e_a + (1 - lam) e_b.

    Parameters
    ----------
    lam : float or (...) array
        Mixing coefficients in [0, 1].
    beta : float
        Ratio m^2 K / ((K-1) lambda_H) > 0 of the model; see `ufm.joint_optimum`.
    num_classes : int
        Number of classes K >= 2.

    Returns
    -------
    (...) array
        The confidences, in the shape and kind of `lam`.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Examples
    --------
    >>> import numpy as np, ufm
    >>> print(ufm.confidence(np.array([0.5, 0.8, 1.0]), beta=100.0, num_classes=10).round(4))
    [0.4676 0.7618 0.9531]
    """
    p, _ = _predictions(lam, beta, num_classes)
    return in_kind(p.amax(-1).reshape(to_tensor("lam", lam).shape), lam)


def entropy(lam: float | Float[Array, "*N"], beta: float | Float[Tensor, ""], num_classes: int) -> Float[Array, "*N"]:
    """Return the entropy of the prediction for the label lam e_a + (1 - lam) e_b.

    Parameters
    ----------
    lam : float or (...) array
        Mixing coefficients in [0, 1].
    beta : float
        Ratio m^2 K / ((K-1) lambda_H) > 0 of the model; see `ufm.joint_optimum`.
    num_classes : int
        Number of classes K >= 2.

    Returns
    -------
    (...) array
        The entropies in nats, in the shape and kind of `lam`.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Examples
    --------
    >>> import numpy as np, ufm
    >>> print(ufm.entropy(np.array([0.5, 0.8, 1.0]), beta=100.0, num_classes=10).round(4))
    [1.0232 0.8138 0.2922]
    """
    p, counts = _predictions(lam, beta, num_classes)
    value = -(counts * torch.special.xlogy(p, p)).sum(-1)
    return in_kind(value.reshape(to_tensor("lam", lam).shape), lam)


def _predictions(lam: float | Array, beta: float | Float[Tensor, ""], num_classes: int) -> tuple[Tensor, Tensor]:
    coefficient = read_lam(lam).reshape(-1)
    levels, counts = pair_levels(coefficient, check_integer("num_classes", num_classes, minimum=2))
    p = torch.as_tensor(prox_logsumexp(levels, check_number("beta", beta, above=0), counts=counts).probabilities)
    return torch.where(counts > 0, p, 0.0), counts


@dataclass(frozen=True)
class Calibration:
    r"""Calibration of the optimal predictions when the true class is drawn from the soft label.

    Attributes
    ----------
    confidence : float
        Mean of the largest probability.
    accuracy : float
        Probability that the class with the largest probability is the one drawn.
    entropy : float
        Mean entropy of the predictions, in nats.
    ece : float
        Expected calibration error: the mean of :math:`\lvert\text{accuracy} - \text{confidence}\rvert` over equal-width
        bins of confidence, weighted by their probabilities.
    """

    confidence: float
    accuracy: float
    entropy: float
    ece: float


def law_calibration(
    law: Law, beta: float | Float[Tensor, ""], *, bins: int = 15, nodes: int | None = None
) -> Calibration:
    """Return how well calibrated the predictions at a given beta are on labels that follow a law.

    Parameters
    ----------
    law : Law
        Symmetric law of the labels on which the predictions are evaluated; `ufm.Unmixed` for clean data.
    beta : float
        Ratio m^2 K / ((K-1) lambda_H) > 0 of the trained model; see `ufm.joint_optimum`.
    bins : int
        Number of bins of confidence, >= 1.
    nodes : int, optional
        Number of Gauss-Jacobi nodes in lambda; by default the law is taken as continuous.

    Returns
    -------
    Calibration
        Mean confidence, accuracy, entropy and expected calibration error.

    Raises
    ------
    ValueError
        If an argument is out of range, or the law is not symmetric.

    Examples
    --------
    >>> import ufm
    >>> found = ufm.law_calibration(ufm.Unmixed(10), beta=100.0)
    >>> round(found.confidence, 4), found.accuracy, round(found.ece, 4)
    (0.9531, 1.0, 0.0469)
    """
    bins = check_bins(bins)
    orbits = check_law(law).orbits(nodes, level=_LEVEL)
    b = check_number("beta", beta, above=0)
    p = torch.as_tensor(prox_logsumexp(orbits.levels, b, counts=orbits.counts).probabilities)
    p = torch.where(orbits.counts > 0, p, -1.0)
    top, index = p.max(-1)
    hit = orbits.levels.gather(1, index[:, None])[:, 0]
    mean_entropy = -(orbits.weights @ (orbits.counts * torch.special.xlogy(p.clamp(min=0), p.clamp(min=0))).sum(-1))
    gaps = np.bincount(bin_index(top, bins).numpy(), (orbits.weights * (hit - top)).numpy(), bins)
    return Calibration(
        (orbits.weights @ top).item(), (orbits.weights @ hit).item(), mean_entropy.item(), float(np.abs(gaps).sum())
    )


def calibration_at_penalties(
    law: Law, weight_decay: float, feature_decay: float, *, evaluated_on: Law | None = None, bins: int = 15
) -> Calibration:
    """Return the calibration of the joint optimum for a law at given penalties, evaluated on another law.

    It compares mixup with no mixup at equal penalties: call it with ``law=Mixup(K)``, then with ``law=Unmixed(K)``.

    Parameters
    ----------
    law : Law
        Symmetric law of the training labels.
    weight_decay, feature_decay : float
        Penalties lambda_W, lambda_H > 0, as in `ufm.joint_optimum`.
    evaluated_on : Law, optional
        Law of the labels on which the predictions are evaluated; unmixed labels by default.
    bins : int
        Number of bins of confidence, >= 1.

    Returns
    -------
    Calibration
        Mean confidence, accuracy, entropy and expected calibration error.

    Raises
    ------
    ValueError
        If the optimum is zero, so that all predictions are uniform, or an argument is out of range.

    Examples
    --------
    >>> import ufm
    >>> for law in (ufm.Unmixed(10), ufm.Mixup(10)):
    ...     print(round(ufm.calibration_at_penalties(law, 0.03, 0.03).ece, 4))
    0.0854
    0.0868
    """
    law_evaluated = Unmixed(check_law(law).num_classes) if evaluated_on is None else check_law(evaluated_on)
    check_bins(bins)
    optimum = joint_optimum(law, weight_decay, feature_decay)
    if optimum.collapsed:
        raise ValueError(
            f"weight_decay, feature_decay: got a product of {weight_decay * feature_decay:g}, expected one below the "
            f"collapse threshold {optimum.threshold:g}"
        )
    return law_calibration(law_evaluated, float(optimum.beta), bins=bins)
