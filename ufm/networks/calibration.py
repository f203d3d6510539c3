"""Calibration measured on a network's logits, and confidence on mixed inputs.

Predictions are p = softmax(z). The predicted class is that of the largest logit (of equal ones, the lowest), and its
probability is the confidence. `ufm.theory.calibration` predicts the same quantities.
"""

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ufm._support.arrays import Array, in_kind, to_tensor
from ufm._support.pairs import bin_index, check_bins, read_classes, read_pairs

if TYPE_CHECKING:
    import matplotlib.axes


@dataclass(frozen=True, eq=False)
class ReliabilityCurve:
    """Accuracy against confidence by equal-width bins of confidence; bin i is (edges[i], edges[i + 1]].

    A confidence is at least 1/K, so every sample lies in a bin.

    Attributes
    ----------
    edges : (bins + 1,) array
        Ends of the bins, i/bins.
    confidence : (bins,) array
        Mean confidence in the bin; NaN if it is empty.
    accuracy : (bins,) array
        Share of samples in the bin whose predicted class is the true one; NaN if it is empty.
    count : (bins,) integer array
        Number of samples in the bin.
    """

    edges: Float[Array, "edges"]
    confidence: Float[Array, "bins"]
    accuracy: Float[Array, "bins"]
    count: Int[Array, "bins"]


@dataclass(frozen=True, eq=False)
class MeasuredCalibration:
    """Calibration of a network's predictions on labelled samples; see `measure_calibration`.

    Attributes
    ----------
    accuracy : float
        Share of samples whose predicted class is the true one.
    confidence : float
        Mean largest probability.
    ece : float
        Expected calibration error, sum_b (n_b/N) abs(accuracy_b - confidence_b) over equal-width bins of confidence.
    ece_adaptive : float
        The same over bins with equal numbers of samples.
    nll : float
        Negative log-likelihood, the mean of -log p_y, in nats.
    brier : float
        Brier score, the mean of sum_k (p_k - [k = y])^2, in [0, 2].
    curve : ReliabilityCurve
        Accuracy against confidence on the equal-width bins.
    """

    accuracy: float
    confidence: float
    ece: float
    ece_adaptive: float
    nll: float
    brier: float
    curve: ReliabilityCurve = field(repr=False)

    def plot(self, ax: "matplotlib.axes.Axes | None" = None) -> "matplotlib.axes.Axes":
        """Draw accuracy against confidence beside the diagonal of perfect calibration.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; by default on a new figure.

        Returns
        -------
        Axes
            With a point per bin of confidence that has samples, and the calibration error in the legend.
        """
        from ufm._support.style import NETWORK, axes_or_new

        axes, curve = axes_or_new(ax), self.curve
        axes.plot([0, 1], [0, 1], ":", color="0.5")
        axes.plot(curve.confidence, curve.accuracy, "o-", color=NETWORK, label=f"ECE {self.ece:.3f}")
        axes.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
        axes.legend()
        return axes


@dataclass(frozen=True, eq=False)
class ConfidenceCurve:
    """Confidence of different-class mixed samples by equal-width bins of lambda; entries of empty bins are NaN.

    Attributes
    ----------
    lam : (bins,) array
        Mean lambda in the bin.
    count : (bins,) integer array
        Number of samples in the bin.
    confidence : (bins,) array
        Mean largest probability.
    weight : (bins,) array
        Mean weight of the soft label on the predicted class. This is the expected accuracy if the true class is drawn
        from the label, so predictions that are calibrated at every lambda have confidence = weight.
    """

    lam: Float[Array, "bins"]
    count: Int[Array, "bins"]
    confidence: Float[Array, "bins"]
    weight: Float[Array, "bins"]


def measure_calibration(
    logits: Float[Array, "N K"], classes: Int[Array, "N"], *, bins: int = 15
) -> MeasuredCalibration:
    """Return accuracy, confidence, calibration errors, likelihood and Brier score of softmax(logits).

    Parameters
    ----------
    logits : (N, K) array
        Logits, K >= 2.
    classes : (N,) integer array
        True classes, in 0..K-1.
    bins : int
        Number of bins of confidence, for both calibration errors.

    Returns
    -------
    MeasuredCalibration
        Arrays are float64, and of the kind that was given.

    Raises
    ------
    ValueError
        For shapes that do not fit, entries that are not finite, classes out of range or bins < 1.

    Notes
    -----
    Equal-width bins are (i/bins, (i + 1)/bins]. Of the bins with equal numbers of samples, a sample is in number
    floor(bins r/N), where r samples have a smaller confidence. Their sizes differ by one sample at most if all
    confidences differ; equal confidences share a bin.

    References
    ----------
    Guo, Pleiss, Sun and Weinberger, "On calibration of modern neural networks", ICML 2017. For bins with equal numbers
    of samples: Nguyen and O'Connor, "Posterior calibration and exploratory analysis for NLP models", EMNLP 2015.

    Examples
    --------
    >>> import numpy as np
    >>> import ufm
    >>> logits = np.log(np.array([[0.9, 0.1], [0.7, 0.3], [0.6, 0.4]]))
    >>> measured = ufm.measure_calibration(logits, np.array([0, 0, 1]), bins=2)
    >>> round(measured.accuracy, 4), round(measured.confidence, 4), round(measured.ece, 4)
    (0.6667, 0.7333, 0.0667)
    """
    z, y = labelled_samples(logits, classes)
    return in_kind(measured(z, y, check_bins(bins)), logits, classes)


def confidence_curve(
    logits: Float[Array, "N K"],
    class_a: Int[Array, "N"],
    class_b: Int[Array, "N"],
    lam: Float[Array, "N"],
    *,
    bins: int = 10,
) -> ConfidenceCurve:
    """Return confidence, and the label's weight on the predicted class, by equal bins of lambda in [0, 1].

    The theory's confidence is `ufm.confidence`.

    Parameters
    ----------
    logits : (N, K) array
        Logits, K >= 2, of inputs with the labels lam e_a + (1 - lam) e_b.
    class_a, class_b : (N,) integer array
        The two classes, in 0..K-1. Samples with class_a == class_b are left out.
    lam : (N,) array
        Weight of class_a, in [0, 1].
    bins : int
        Number of bins.

    Returns
    -------
    ConfidenceCurve
        Arrays are float64, and of the kind that was given.

    Raises
    ------
    ValueError
        For shapes that do not fit, values out of range, bins < 1 or no sample of two different classes.

    Examples
    --------
    >>> import numpy as np
    >>> import ufm
    >>> logits = np.log(np.array([[0.7, 0.2, 0.1], [0.3, 0.6, 0.1]]))
    >>> curve = ufm.confidence_curve(logits, np.array([0, 0]), np.array([1, 1]), np.array([0.75, 0.25]), bins=2)
    >>> curve.confidence.round(6).tolist(), curve.weight.tolist()
    ([0.6, 0.7], [0.75, 0.75])
    """
    z = _logits(logits)
    pairs = read_pairs(class_a, class_b, lam, *z.shape, device=z.device).wide()
    bins = check_bins(bins)
    mixed = pairs.different()
    z, (a, b, coefficient) = z[mixed], pairs[mixed].columns
    predicted = z.argmax(1)
    weight = torch.where(predicted == a, coefficient, 0.0) + torch.where(predicted == b, 1 - coefficient, 0.0)
    index = bin_index(coefficient, bins)
    count = torch.bincount(index, minlength=bins)
    lam_mean, confidence, weight_mean = (
        torch.bincount(index, values, bins) / count for values in (coefficient, torch.softmax(z, 1).amax(1), weight)
    )
    return in_kind(ConfidenceCurve(lam_mean, count, confidence, weight_mean), logits, class_a, class_b, lam)


def _logits(logits: Any) -> Tensor:
    """Return logits (N, K) in float64, -inf allowed for impossible classes; raise ValueError for anything else."""
    z = to_tensor("logits", logits, ndim=2, finite=False).detach().double()
    N, K = z.shape
    if N < 1 or K < 2:
        raise ValueError(f"logits: got shape {(N, K)}, expected (N, K) with N >= 1 and K >= 2")
    if not bool((z < math.inf).all()) or not bool(torch.isfinite(z.amax(1)).all()):
        raise ValueError("logits: got NaN or infinite entries, expected finite numbers, or -inf for impossible classes")
    return z


def labelled_samples(logits: Any, classes: Any) -> tuple[Tensor, Tensor]:
    """Return logits (N, K) in float64 and classes (N,) in int64; raise ValueError unless they fit together."""
    z = _logits(logits)
    y = read_classes("classes", classes, *z.shape, device=z.device).long()
    if not bool(torch.isfinite(z.gather(1, y[:, None])).all()):
        raise ValueError("logits: got -inf for a sample's true class, expected a finite number there")
    return z, y


def measured(z: Tensor, y: Tensor, bins: int) -> MeasuredCalibration:
    """Return the calibration of logits (N, K) on classes (N,), both checked."""
    N = len(z)
    log_p = torch.log_softmax(z, 1)
    top = log_p.amax(1).exp()
    hit = (z.argmax(1) == y).to(z)
    edges = torch.arange(bins + 1, dtype=z.dtype, device=z.device) / bins
    width_index = torch.bucketize(top, edges[1:-1])
    rank = torch.searchsorted(top.sort().values, top)
    count = torch.bincount(width_index, minlength=bins)
    confidence, accuracy = (torch.bincount(width_index, values, bins) / count for values in (top, hit))

    def error(index: Tensor) -> float:
        return (torch.bincount(index, hit - top, bins).abs().sum() / N).item()

    residual = log_p.exp().scatter_add(1, y[:, None], z.new_full((N, 1), -1.0))
    return MeasuredCalibration(
        accuracy=hit.mean().item(),
        confidence=top.mean().item(),
        ece=error(width_index),
        ece_adaptive=error(rank * bins // N),
        nll=-log_p.gather(1, y[:, None]).mean().item(),
        brier=residual.square().sum(1).mean().item(),
        curve=ReliabilityCurve(edges, confidence, accuracy, count),
    )
