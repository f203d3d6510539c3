"""Whether a network's classifier has come to rest: its loss's pull on it against that of its weight decay."""

import math
from dataclasses import dataclass

import torch

from ufm._support.arrays import check_number
from ufm.networks.activations import Activations, check_some
from ufm.networks.predictions import Head


@dataclass(frozen=True)
class Stationarity:
    """The pull of the loss on a classifier against that of weight decay; see `measure_stationarity`.

    W is the classifier less the mean of its rows, which softmax does not see.

    Attributes
    ----------
    pull : float
        E[(y - p).W h], with softmax p.
    decay_term : float
        lambda_W ||W||_F^2, which `pull` equals where the classifier is stationary.
    norm_ratio : float
        ||E[(y - p) h^T]||_F over lambda_W ||W||_F; 1 where it is stationary.
    angle : float
        Angle between E[(y - p) h^T] and W, in degrees; 0 where it is stationary, NaN where the loss does not pull.
    residual : float
        ||E[(y - p) h^T] - lambda_W W||_F over lambda_W ||W||_F; 0 where it is stationary.
    decay_times : float or None
        How many of weight decay's time constants the training lasted; None where it is not known.
    """

    pull: float
    decay_term: float
    norm_ratio: float
    angle: float
    residual: float
    decay_times: float | None = None

    @property
    def ratio(self) -> float:
        """pull over decay_term."""
        return self.pull / self.decay_term


def measure_stationarity(
    activations: Activations, weight_decay: float, *, decay_times: float | None = None
) -> Stationarity:
    r"""Return how far a classifier trained with cross entropy and weight decay is from a stationary point.

    Parameters
    ----------
    activations : Activations
        From `record` or `load`.
    weight_decay : float
        lambda_W > 0 of the classifier in the expectation convention.
    decay_times : float, optional
        Sum over the training's steps of rate times decay, over 1 - momentum for momentum, >= 0.

    Returns
    -------
    Stationarity
        Sizes and angle of the two pulls.

    Raises
    ------
    ValueError
        For a number out of range, no samples, or a classifier whose rows are all equal.

    Notes
    -----
    The gradient of the objective in W is :math:`E[(p - y) h^\top] + \lambda_W W`. A ratio above 1 says that the loss
    would still make the classifier larger: the fit-free beta, which takes it for stationary, is then not the one that
    the features have. Weight decay alone shrinks W by the factor exp(-t) in t of its time constants, each of
    (1 - momentum) / (rate x decay) steps, so that no classifier can be at rest before a few of them.

    References
    ----------
    derivations/departure.py

    Examples
    --------
    >>> import torch, ufm
    >>> a, b, lam = torch.arange(300) % 3, torch.arange(300) // 3 % 3, torch.arange(300) % 7 / 6
    >>> y = ufm.PairTargets(3, a, b, lam.double()).labels
    >>> solution = ufm.solve(ufm.UFM(ufm.Targets(y), 3, 0.01, 0.01))
    >>> features, logits = solution.features, solution.features @ solution.classifier.T
    >>> found = ufm.measure_stationarity(ufm.Activations(features, logits, a, b, lam, solution.classifier), 0.01)
    >>> round(found.ratio, 6), found.residual < 1e-6
    (1.0, True)
    """
    weight_decay = check_number("weight_decay", weight_decay, above=0)
    if decay_times is not None:
        decay_times = check_number("decay_times", decay_times, minimum=0)
    check_some(activations)
    w, h = Head.of(activations.classifier, None).rows, activations.features.double()
    size = torch.linalg.matrix_norm(w).item()
    residual = activations.labels - torch.softmax(activations.logits.double(), 1)
    gradient = residual.T @ h / len(h)
    norm = torch.linalg.matrix_norm(gradient).item()
    cosine = (gradient * w).sum().item() / (norm * size) if norm else math.nan
    return Stationarity(
        pull=(gradient * w).sum().item(),
        decay_term=weight_decay * size**2,
        norm_ratio=norm / (weight_decay * size),
        angle=math.degrees(math.acos(cosine if math.isnan(cosine) else max(-1.0, min(1.0, cosine)))),
        residual=torch.linalg.matrix_norm(gradient - weight_decay * w).item() / (weight_decay * size),
        decay_times=decay_times,
    )
