"""Temperature scaling: the temperature that fits labelled samples, and calibration before and after it."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from scipy import optimize
from torch import Tensor

from ufm._support.arrays import Array, check_integer, in_kind
from ufm._support.pairs import check_bins
from ufm.networks.calibration import MeasuredCalibration, labelled_samples, measured

# What stands for a temperature of zero or infinity, relative to the smallest and largest difference of logits.
_RELATIVE_EDGES = (1e-5, 1e5)
# Beyond it the exponential of a logarithm leaves the range of numbers.
_LARGEST_LOG = 700.0


@dataclass(frozen=True)
class Temperature:
    """A fitted temperature; see `fit_temperature`.

    Attributes
    ----------
    value : float
        The temperature, > 0.
    at_edge : bool
        Whether it stands for zero or infinity, because no temperature between them is optimal.
    """

    value: float
    at_edge: bool


@dataclass(frozen=True, eq=False)
class CalibrationReport:
    """Calibration on one half of the samples, before and after scaling by the temperature fitted to the other half.

    Attributes
    ----------
    before : MeasuredCalibration
        Of softmax(z).
    after : MeasuredCalibration
        Of softmax(z/temperature), on the same samples.
    temperature : float
        The temperature, > 0.
    at_edge : bool
        Whether it stands for zero or infinity, because no temperature between them is optimal.
    """

    before: MeasuredCalibration
    after: MeasuredCalibration
    temperature: float
    at_edge: bool


def fit_temperature(logits: Float[Array, "N K"], classes: Int[Array, "N"]) -> Temperature:
    """Return the temperature T > 0 that minimises the mean of -log softmax(z/T)_y.

    Parameters
    ----------
    logits : (N, K) array
        Logits, K >= 2.
    classes : (N,) integer array
        True classes, in 0..K-1.

    Returns
    -------
    Temperature
        The temperature, and whether it stands for zero or infinity.

    Raises
    ------
    ValueError
        For shapes that do not fit, entries that are not finite or classes out of range.

    Notes
    -----
    The objective is convex in b = 1/T. Its derivative, mean(sum_k p_k (z_k - z_y)), has a zero that is bracketed on
    log T, from the median difference outwards, and found to about 1e-12 of T, whatever the scale of the logits. A logit
    of -1e9, or of -infinity, for a class that is impossible changes nothing.

    The objective falls as T -> 0 if no logit exceeds that of the true class in any sample; 1e-5 times the smallest
    difference to the true class's logit then stands for zero. It falls as T -> infinity if on average the true class's
    logit is at most the mean logit; 1e5 times the largest difference then stands for infinity. If the logits are
    constant in every row, T is undetermined; then it is 1, not at an edge.

    References
    ----------
    Guo, Pleiss, Sun and Weinberger, "On calibration of modern neural networks", ICML 2017.

    Examples
    --------
    Two of three samples are right; the probability that fits is 2/3, so log 8 / T = log 2.

    >>> import numpy as np
    >>> import ufm
    >>> logits = np.log(np.array([[8.0, 1.0], [8.0, 1.0], [8.0, 1.0]]))
    >>> temperature = ufm.fit_temperature(logits, np.array([0, 0, 1]))
    >>> round(temperature.value, 6), temperature.at_edge
    (3.0, False)
    """
    return _fit(*labelled_samples(logits, classes))


def calibrate(
    logits: Float[Array, "N K"], classes: Int[Array, "N"], *, bins: int = 15, seed: int = 0
) -> CalibrationReport:
    """Fit a temperature to one random half of the samples, and measure calibration with and without it on the other.

    Parameters
    ----------
    logits : (N, K) array
        Logits, N >= 2, K >= 2.
    classes : (N,) integer array
        True classes, in 0..K-1.
    bins : int
        Number of bins of confidence, as in `measure_calibration`.
    seed : int
        Seed of the random split. The temperature is fitted to floor(N/2) samples; the others are measured.

    Returns
    -------
    CalibrationReport
        Calibration before and after, and the temperature.

    Raises
    ------
    ValueError
        For fewer than 2 samples, shapes that do not fit, entries that are not finite, classes out of range, bins < 1 or
        a negative seed.
    """
    z, y = labelled_samples(logits, classes)
    bins = check_bins(bins)
    generator = torch.Generator().manual_seed(check_integer("seed", seed, minimum=0, maximum=2**63 - 1))
    N = len(z)
    if N < 2:
        raise ValueError(f"logits: got {N} sample, expected at least 2, to fit on one half and measure on the other")
    order = torch.randperm(N, generator=generator).to(z.device)
    fit, rest = order[: N // 2], order[N // 2 :]
    temperature = _fit(z[fit], y[fit])
    # With the largest logit moved to 0 exactly, division cannot change the predicted class or overflow to NaN.
    scaled = (z[rest] - z[rest].amax(1, keepdim=True)) / temperature.value
    report = CalibrationReport(
        measured(z[rest], y[rest], bins), measured(scaled, y[rest], bins), temperature.value, temperature.at_edge
    )
    return in_kind(report, logits, classes)


def _fit(z: Tensor, y: Tensor) -> Temperature:
    possible = torch.isfinite(z)
    gaps = z - z.gather(1, y[:, None])
    if not bool(torch.isfinite(gaps[possible]).all()):
        raise ValueError("logits: got differences that overflow, expected finite differences within each row")
    sizes = gaps[possible & (gaps != 0)].abs()
    if not len(sizes):
        return Temperature(1.0, False)
    smallest, middle, largest = (x.item() for x in (sizes.min(), sizes.median(), sizes.max()))
    gaps = gaps / largest
    finite = torch.where(possible, gaps, 0.0)

    def slope(log_t: float) -> float:
        """Return the derivative with respect to 1/T at T = exp(log_t), which falls as T grows."""
        return (torch.softmax(gaps * math.exp(-log_t), 1) * finite).sum(1).mean().item()

    if not bool((finite > 0).any()):
        return Temperature(smallest * _RELATIVE_EDGES[0], True)
    if (finite.sum(1) / possible.sum(1)).mean().item() >= 0:
        return Temperature(largest * _RELATIVE_EDGES[1], True)
    low = high = max(math.log(middle) - math.log(largest), -_LARGEST_LOG)
    step = 1.0
    while slope(low) < 0 and low > -_LARGEST_LOG:
        low, high, step = max(low - step, -_LARGEST_LOG), low, 2 * step
    while slope(high) > 0 and high < _LARGEST_LOG:
        low, high, step = high, min(high + step, _LARGEST_LOG), 2 * step
    if slope(low) <= 0 or slope(high) >= 0:
        # The zero itself, or beyond what numbers can tell from zero or infinity.
        log_t = low if slope(low) <= 0 else high
        return Temperature(largest * math.exp(log_t), abs(log_t) >= _LARGEST_LOG)
    log_t = optimize.root_scalar(slope, method="brentq", bracket=(low, high), xtol=1e-12, maxiter=1000).root
    return Temperature(largest * math.exp(log_t), False)
