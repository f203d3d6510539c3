"""Calibration measured on a network's logits, temperature scaling, and confidence on mixed inputs.

Predictions are p = softmax(z). The predicted class is that of the largest logit, ties going to the lowest index, and
its probability is the confidence. `ufm.theory.calibration` holds what the theory says of the same quantities.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import optimize
from torch import Tensor

from ufm._support.arrays import Array, check_integer, in_kind, to_tensor
from ufm.networks.channel import lambda_bin

# Temperatures searched, as multiples of the mean over samples of max_k z_k - min_k z_k.
_RELATIVE_RANGE = (1e-5, 1e5)


@dataclass(frozen=True, eq=False)
class ReliabilityCurve:
    """Accuracy against confidence by equal-width bins of confidence; bin i is (edges[i], edges[i + 1]].

    edges: i/bins, i = 0..bins. confidence, accuracy: means over the samples in the bin; NaN where it is empty. count:
    samples in the bin. A confidence is at least 1/K, so no sample lies below the first bin.
    """

    edges: Float[Array, "edges"]
    confidence: Float[Array, "bins"]
    accuracy: Float[Array, "bins"]
    count: Int[Array, "bins"]


@dataclass(frozen=True, eq=False)
class MeasuredCalibration:
    """How well calibrated a network's predictions are on labelled samples; see `measure_calibration`.

    accuracy: share of samples whose predicted class is the true one. confidence: mean largest probability. ece:
    sum_b (n_b/N) |accuracy_b - confidence_b| over equal-width bins of confidence. ece_adaptive: the same over bins of
    equal numbers of samples. nll: mean of -log p_y, in nats. brier: mean of sum_k (p_k - [k = y])^2, between 0 and 2.
    curve: accuracy against confidence on the equal-width bins.
    """

    accuracy: float
    confidence: float
    ece: float
    ece_adaptive: float
    nll: float
    brier: float
    curve: ReliabilityCurve = field(repr=False)


@dataclass(frozen=True)
class Temperature:
    """A fitted temperature: value > 0, and whether it is at an end of the range that was searched."""

    value: float
    at_edge: bool


@dataclass(frozen=True, eq=False)
class CalibrationReport:
    """Calibration on one half of the samples, before and after the temperature fitted on the other half.

    before, after: of softmax(z) and softmax(z/temperature), on the same half. temperature, at_edge: as `Temperature`.
    """

    before: MeasuredCalibration
    after: MeasuredCalibration
    temperature: float
    at_edge: bool


@dataclass(frozen=True, eq=False)
class ConfidenceCurve:
    """Confidence of different-class mixed samples by equal-width bins of lambda; NaN where a bin is empty.

    lam: mean lambda in the bin. count: samples. confidence: mean largest probability. weight: mean weight of the soft
    label on the predicted class, which is the expected accuracy if the true class is drawn from the label. Predictions
    calibrated at every lambda have confidence = weight.
    """

    lam: Float[Array, "bins"]
    count: Int[Array, "bins"]
    confidence: Float[Array, "bins"]
    weight: Float[Array, "bins"]


def measure_calibration(
    logits: Float[Array, "N K"], classes: Int[Array, "N"], *, bins: int = 15
) -> MeasuredCalibration:
    """Return accuracy, confidence, calibration errors, log-likelihood and Brier score of softmax(logits).

    logits: (N, K), K >= 2. classes: true ones, in 0..K-1. bins: of confidence, in both calibration errors. Equal-width
    bins are (i/bins, (i + 1)/bins]. Of the equal-mass bins, a sample falls into number floor(bins r/N), where r samples
    have a smaller confidence: bins differ by one sample at most where all confidences differ, and equal confidences
    share a bin.

    Arrays in the answer are float64, in the kind that was given. Raises ValueError for shapes that do not fit, entries
    that are not finite, classes out of range or bins < 1.

    Source: Guo, Pleiss, Sun and Weinberger, "On calibration of modern neural networks", ICML 2017; for equal-mass bins,
    Nguyen and O'Connor, "Posterior calibration and exploratory analysis for NLP models", EMNLP 2015.
    """
    z, y = _samples(logits, classes)
    return in_kind(_measure(z, y, check_integer("bins", bins, minimum=1)), logits, classes)


def fit_temperature(logits: Float[Array, "N K"], classes: Int[Array, "N"]) -> Temperature:
    """Return the temperature T > 0 that minimises the mean of -log softmax(z/T)_y.

    The objective is convex in b = 1/T with derivative mean(sum_k p_k (z_k - z_y)), whose zero is bracketed and found
    to about 1e-12 of T. The search covers 1e-5 to 1e5 times the mean over samples of max_k z_k - min_k z_k. Its lower
    end is returned, at_edge, where the objective still falls as T -> 0 (no logit exceeds the true class's in any
    sample, say); its upper end where the objective still falls as T -> infinity (the true class's logit is at most the
    mean logit, on average). Logits that are constant in every row leave T undetermined: then it is 1, not at an edge.

    logits: (N, K), K >= 2. classes: true ones, in 0..K-1. Raises ValueError for shapes that do not fit, entries that
    are not finite or classes out of range.

    Source: Guo, Pleiss, Sun and Weinberger, "On calibration of modern neural networks", ICML 2017.
    """
    return _fit(*_samples(logits, classes))


def calibrate(
    logits: Float[Array, "N K"], classes: Int[Array, "N"], *, bins: int = 15, seed: int = 0
) -> CalibrationReport:
    """Fit a temperature on one random half of the samples and measure calibration before and after on the other half.

    The temperature is fitted to floor(N/2) samples drawn with `seed`; the others are measured with it and without it.
    logits: (N, K), N >= 2, K >= 2. classes: true ones, in 0..K-1. bins: as in `measure_calibration`. Raises ValueError
    for fewer than 2 samples, shapes that do not fit, entries that are not finite, classes out of range, bins < 1 or a
    negative seed.
    """
    z, y = _samples(logits, classes)
    bins = check_integer("bins", bins, minimum=1)
    generator = torch.Generator().manual_seed(check_integer("seed", seed, minimum=0, maximum=2**63 - 1))
    N = len(z)
    if N < 2:
        raise ValueError(f"logits: got {N} sample, expected at least 2, to fit on one half and measure on the other")
    order = torch.randperm(N, generator=generator).to(z.device)
    fit, rest = order[: N // 2], order[N // 2 :]
    temperature = _fit(z[fit], y[fit])
    # With the largest logit moved to 0 exactly, division leaves the predicted class alone and cannot overflow to NaN.
    scaled = (z[rest] - z[rest].amax(1, keepdim=True)) / temperature.value
    report = CalibrationReport(
        _measure(z[rest], y[rest], bins), _measure(scaled, y[rest], bins), temperature.value, temperature.at_edge
    )
    return in_kind(report, logits, classes)


def confidence_curve(
    logits: Float[Array, "N K"],
    class_a: Int[Array, "N"],
    class_b: Int[Array, "N"],
    lam: Float[Array, "N"],
    *,
    bins: int = 10,
) -> ConfidenceCurve:
    """Return confidence, and the label's weight on the predicted class, by `bins` equal bins of lambda in [0, 1].

    logits (N, K), K >= 2, of labels lam e_a + (1 - lam) e_b; samples with class_a == class_b are left out.

    Arrays in the answer are float64, in the kind that was given; `ufm.confidence` is the theory's confidence. Raises
    ValueError for shapes that do not fit, values out of range, bins < 1 or no sample of two classes.
    """
    z, a = _samples(logits, class_a, "class_a")
    _, b = _samples(logits, class_b, "class_b")
    coefficient = to_tensor("lam", lam, ndim=1).detach().to(z)
    if coefficient.shape != a.shape:
        raise ValueError(f"lam: got shape {tuple(coefficient.shape)}, expected {tuple(a.shape)}, one per row of logits")
    if bool(((coefficient < 0) | (coefficient > 1)).any()):
        raise ValueError("lam: got values outside the interval, expected 0 <= lam <= 1")
    bins = check_integer("bins", bins, minimum=1)
    mixed = a != b
    if not bool(mixed.any()):
        raise ValueError("class_a, class_b: got same-class pairs only, expected some of different classes")
    z, a, b, coefficient = z[mixed], a[mixed], b[mixed], coefficient[mixed]
    predicted = z.argmax(1)
    weight = torch.where(predicted == a, coefficient, 0.0) + torch.where(predicted == b, 1 - coefficient, 0.0)
    index = torch.from_numpy(lambda_bin(coefficient.cpu().numpy(), bins)).to(z.device)
    count = torch.bincount(index, minlength=bins)
    lam_mean, confidence, weight_mean = (
        torch.bincount(index, values, bins) / count for values in (coefficient, torch.softmax(z, 1).amax(1), weight)
    )
    return in_kind(ConfidenceCurve(lam_mean, count, confidence, weight_mean), logits, class_a, class_b, lam)


def _samples(logits: Any, classes: Any, name: str = "classes") -> tuple[Tensor, Tensor]:
    """Return logits (N, K) in float64 and classes (N,) in int64; raise ValueError for what is no such pair."""
    z = to_tensor("logits", logits, ndim=2).detach().double()
    N, K = z.shape
    if N < 1 or K < 2:
        raise ValueError(f"logits: got shape {(N, K)}, expected (N, K) with N >= 1 and K >= 2")
    try:
        y = torch.as_tensor(classes if isinstance(classes, Tensor) else np.array(classes), device=z.device)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: got {type(classes).__name__}, expected an array of whole numbers") from error
    if y.shape != (N,):
        raise ValueError(f"{name}: got shape {tuple(y.shape)}, expected {(N,)}, one per row of logits")
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        raise ValueError(f"{name}: got dtype {y.dtype}, expected whole numbers in 0..{K - 1}")
    y = y.long()
    if bool(((y < 0) | (y >= K)).any()):
        raise ValueError(f"{name}: got values from {y.min()} to {y.max()}, expected whole numbers in 0..{K - 1}")
    return z, y


def _measure(z: Tensor, y: Tensor, bins: int) -> MeasuredCalibration:
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


def _fit(z: Tensor, y: Tensor) -> Temperature:
    spread = (z.amax(1) - z.amin(1)).mean().item()
    if spread == 0:
        return Temperature(1.0, False)
    if not math.isfinite(spread):
        raise ValueError("logits: got differences that overflow, expected finite differences within each row")
    gaps = (z - z.gather(1, y[:, None])) / spread

    def slope(log_t: float) -> float:
        """Return the derivative by 1/T at T = exp(log_t); it falls as T grows."""
        return (torch.softmax(gaps * math.exp(-log_t), 1) * gaps).sum(1).mean().item()

    low, high = (math.log(edge) for edge in _RELATIVE_RANGE)
    if slope(low) <= 0:
        return Temperature(spread * _RELATIVE_RANGE[0], True)
    if slope(high) >= 0:
        return Temperature(spread * _RELATIVE_RANGE[1], True)
    log_t = optimize.root_scalar(slope, method="brentq", bracket=(low, high), xtol=1e-12, maxiter=1000).root
    return Temperature(spread * math.exp(log_t), False)
