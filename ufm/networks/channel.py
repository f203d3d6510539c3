"""The mixup channel measured on logits: curves against lambda with bootstrap bands, and the decision boundary."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ufm._support.arrays import Array, check_integer, check_number, to_tensor
from ufm.networks.activations import check_pairs

_BAND = (2.5, 97.5)


@dataclass(frozen=True)
class ChannelCurve:
    """Logits of different-class samples by bins of lambda, as NumPy arrays (bins,); NaN where a bin is empty.

    lam: mean lambda in the bin. count: samples. width, depth: means of z_a - z_b and (z_a + z_b)/2 - z_0, with z_0
    the mean of the other logits. width_std, depth_std: their standard deviations. confidence: mean largest probability.
    width_band, depth_band (2, bins): ends of 95 % bootstrap intervals of the means, or None.
    """

    lam: np.ndarray
    count: np.ndarray
    width: np.ndarray
    width_std: np.ndarray
    depth: np.ndarray
    depth_std: np.ndarray
    confidence: np.ndarray
    width_band: np.ndarray | None = None
    depth_band: np.ndarray | None = None


@dataclass(frozen=True)
class ChannelPoints:
    """Width and depth near given lambdas, as NumPy arrays, one entry a lambda; NaN where no sample is.

    lam: as asked for, the weight of the heavier class. count: samples. width, depth: means, as in `ChannelCurve`, the
    width that of the heavier class over the lighter.
    """

    lam: np.ndarray
    count: np.ndarray
    width: np.ndarray
    depth: np.ndarray


@dataclass(frozen=True)
class Boundary:
    """How different-class samples lie around the decision boundary between their two classes.

    density: probability per unit of width z_a - z_b at width 0. slope: d width / d lambda at lambda = 1/2.
    amplification: slope over that of the straight line between the same-class ends, 2 (z_y - z_0); `ufm.amplification`
    is the theory's.
    """

    density: float
    slope: float
    amplification: float


def channel_curve(
    logits: Float[Array, "N K"],
    class_a: Int[Array, "N"],
    class_b: Int[Array, "N"],
    lam: Float[Array, "N"],
    *,
    bins: int = 10,
    resamples: int = 0,
    seed: int = 0,
) -> ChannelCurve:
    """Return the channel's width, depth and confidence by `bins` equal bins of lambda in [0, 1].

    logits (N, K), K >= 3, of labels lam e_a + (1 - lam) e_b; samples with class_a == class_b are left out. resamples:
    of the samples, with replacement, drawn with `seed`, for the bands; 0 for no bands. A band is of the resamples that
    have a sample in the bin.
    Raises ValueError if shapes do not fit, K < 3, a class or lambda is out of range, or no sample is of two classes.
    """
    check_integer("bins", bins, minimum=1)
    check_integer("resamples", resamples, minimum=0)
    rng = np.random.default_rng(check_integer("seed", seed, minimum=0))
    mixed = _Mixed.of(logits, class_a, class_b, lam)
    width, depth = mixed.width.numpy(), mixed.depth.numpy()
    confidence = torch.softmax(mixed.logits, 1).amax(1).numpy()
    index = lambda_bin(mixed.lam.numpy(), bins)

    def mean(values: np.ndarray, cells: np.ndarray = index) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            return np.bincount(cells, values, bins) / np.bincount(cells, minlength=bins)

    def spread(values: np.ndarray) -> np.ndarray:
        return np.sqrt(mean((values - mean(values)[index]) ** 2))

    bands: list[np.ndarray | None] = [None, None]
    if resamples:
        means = np.empty((2, resamples, bins))
        for i in range(resamples):
            rows = rng.integers(len(index), size=len(index))
            means[:, i] = mean(width[rows], index[rows]), mean(depth[rows], index[rows])
        bands = [_band(of_value) for of_value in means]
    return ChannelCurve(
        mean(mixed.lam.numpy()),
        np.bincount(index, minlength=bins),
        mean(width),
        spread(width),
        mean(depth),
        spread(depth),
        mean(confidence),
        *bands,
    )


def channel_points(
    logits: Float[Array, "N K"],
    class_a: Int[Array, "N"],
    class_b: Int[Array, "N"],
    lam: Float[Array, "N"],
    *,
    at: tuple[float, ...] = (0.5, 0.7, 0.9),
    half_window: float = 0.05,
) -> ChannelPoints:
    """Return width and depth over the samples whose heavier class weighs within `half_window` of each of `at`.

    The heavier class takes the part of a; at lambda = 1/2 exactly each does by half, and the width counts as 0. Near
    1/2 the mean weight is above it (0.525 where lambda is uniform), and the mean width above 0.
    Arguments and errors as in `channel_curve`. at: in [1/2, 1).
    """
    check_number("half_window", half_window, above=0)
    for value in at:
        check_number("at", value, minimum=0.5, below=1)
    mixed = _Mixed.of(logits, class_a, class_b, lam)
    major = torch.maximum(mixed.lam, 1 - mixed.lam)
    width = torch.sign(mixed.lam - 0.5) * mixed.width
    near = [(major - value).abs() <= half_window for value in at]
    # The mean over nothing is NaN.
    means = [(width[rows].mean().item(), mixed.depth[rows].mean().item()) for rows in near]
    counts = np.array([int(rows.sum()) for rows in near])
    widths, depths = np.array(means).reshape(-1, 2).T
    return ChannelPoints(np.array(at), counts, widths, depths)


def boundary(
    logits: Float[Array, "N K"],
    class_a: Int[Array, "N"],
    class_b: Int[Array, "N"],
    lam: Float[Array, "N"],
    *,
    half_width: float = 0.5,
    half_window: float = 0.1,
) -> Boundary:
    """Return density and slope at the decision boundary between the two classes of mixed samples.

    The density is the share of different-class samples with |z_a - z_b| <= half_width over 2 half_width; the slope that
    of the least-squares line of width against lambda within `half_window` of 1/2 that has width 0 there, as with each
    sample in both orders of its pair; NaN if no sample is near. The same-class ends are the mean over samples with
    class_a == class_b, without which the amplification is NaN. Arguments and errors as in `channel_curve`.

    Source: derivations/straight_line.py (density) and channel.py (amplification).
    """
    check_number("half_width", half_width, above=0)
    check_number("half_window", half_window, above=0)
    mixed = _Mixed.of(logits, class_a, class_b, lam)
    density = (mixed.width.abs() <= half_width).double().mean().item() / (2 * half_width)
    near = (mixed.lam - 0.5).abs() <= half_window
    x, width = mixed.lam[near] - 0.5, mixed.width[near]
    # Nothing over nothing is NaN, here and below.
    slope = (x @ width) / (x @ x)
    z, a, b, _ = _checked(logits, class_a, class_b, lam)
    z, a = z[a == b], a[a == b]
    own = z.gather(1, a[:, None])[:, 0]
    ends = (own - (z.sum(1) - own) / (z.shape[1] - 1)).mean()
    return Boundary(density, slope.item(), (slope / (2 * ends)).item())


def _checked(logits: Array, class_a: Array, class_b: Array, lam: Array) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the four on the CPU, real numbers in float64; raise ValueError for shapes or values that do not fit."""
    z = to_tensor("logits", logits, ndim=2).detach().double().cpu()
    a, b = torch.as_tensor(class_a).cpu(), torch.as_tensor(class_b).cpu()
    weight = to_tensor("lam", lam, ndim=1).detach().double().cpu()
    N, K = z.shape
    if K < 3:
        raise ValueError(f"logits: got shape {(N, K)}, expected (N, K) with K >= 3")
    check_pairs(a, b, weight, N, K)
    return z, a.long(), b.long(), weight


@dataclass(frozen=True)
class _Mixed:
    """The different-class samples: logits (n, K), lam, width, depth (n,), on the CPU in float64."""

    logits: Tensor
    lam: Tensor
    width: Tensor
    depth: Tensor

    @staticmethod
    def of(logits: Array, class_a: Array, class_b: Array, lam: Array) -> "_Mixed":
        """Return them; raise ValueError for shapes or values that do not fit."""
        z, a, b, weight = _checked(logits, class_a, class_b, lam)
        mixed = a != b
        if not bool(mixed.any()):
            raise ValueError("class_a, class_b: got same-class pairs only, expected some of different classes")
        z, a, b, weight = z[mixed], a[mixed], b[mixed], weight[mixed]
        za, zb = (z.gather(1, k[:, None])[:, 0] for k in (a, b))
        rest = (z.sum(1) - za - zb) / (z.shape[1] - 2)
        return _Mixed(z, weight, za - zb, (za + zb) / 2 - rest)


def _band(means: Float[np.ndarray, "resamples bins"]) -> Float[np.ndarray, "2 bins"]:
    """Return the percentiles of each bin's means over the resamples in which it has samples."""
    band = np.full((2, means.shape[1]), np.nan)
    for i, column in enumerate(means.T):
        found = column[~np.isnan(column)]
        if len(found):
            band[:, i] = np.percentile(found, _BAND)
    return band


def lambda_bin(lam: np.ndarray, bins: int) -> np.ndarray:
    """Return the index of the equal-width bin of [0, 1] that each lambda falls into."""
    return np.minimum((lam * bins).astype(int), bins - 1)
