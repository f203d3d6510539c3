"""The mixup channel measured on a network's logits: curves against lambda, and the decision boundary."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ufm._support.arrays import Array, check_integer, check_number, check_squares, to_tensor
from ufm._support.pairs import ClassPairs, bin_index, check_bins, read_pairs

# Percentiles at the ends of a 95 % interval.
_BAND = (2.5, 97.5)


@dataclass(frozen=True)
class ChannelCurve:
    """Width, depth and confidence of different-class samples by bins of lambda.

    All fields are NumPy arrays. Entries of an empty bin are NaN.

    Attributes
    ----------
    lam : (bins,) array
        Mean lambda in the bin.
    count : (bins,) integer array
        Number of samples in the bin.
    width : (bins,) array
        Mean of z_a - z_b, in logits.
    width_std : (bins,) array
        Standard deviation of z_a - z_b.
    depth : (bins,) array
        Mean of (z_a + z_b)/2 - z_0, in logits, where z_0 is the mean of the other classes' logits.
    depth_std : (bins,) array
        Standard deviation of (z_a + z_b)/2 - z_0.
    confidence : (bins,) array
        Mean largest probability.
    width_band, depth_band : (2, bins) array or None
        Lower and upper ends of 95 % bootstrap intervals of the means.
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
    """Width and depth of different-class samples near given values of lambda.

    All fields are NumPy arrays (n,), one entry per lambda. Entries are NaN where there is no sample.

    Attributes
    ----------
    lam : (n,) array
        The given values, as weights of the heavier class.
    count : (n,) integer array
        Number of samples near each value.
    width : (n,) array
        Mean logit of the heavier class less that of the lighter.
    depth : (n,) array
        Mean depth, as in `ChannelCurve`.
    """

    lam: np.ndarray
    count: np.ndarray
    width: np.ndarray
    depth: np.ndarray


@dataclass(frozen=True)
class Boundary:
    """Density and slope of different-class samples at the decision boundary between their two classes.

    Attributes
    ----------
    density : float
        Probability density of the width z_a - z_b at width 0, per logit.
    slope : float
        d width / d lambda at lambda = 1/2, in logits.
    amplification : float
        Slope divided by the slope 2 (z_y - z_0) of the straight line between the same-class ends; the theory's value
        is `ufm.amplification`.
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
    """Return width, depth and confidence of the channel by equal bins of lambda in [0, 1].

    Parameters
    ----------
    logits : (N, K) array
        Logits, K >= 3, of inputs with the labels lam e_a + (1 - lam) e_b.
    class_a, class_b : (N,) integer array
        The two classes, in 0..K-1. Samples with class_a == class_b are left out.
    lam : (N,) array
        Weight of class_a, in [0, 1].
    bins : int
        Number of bins.
    resamples : int
        Number of bootstrap resamples for the bands; 0 for no bands. The band of a bin comes from those resamples that
        have a sample in the bin.
    seed : int
        Seed of the bootstrap.

    Returns
    -------
    ChannelCurve
        One entry per bin.

    Raises
    ------
    ValueError
        If shapes do not fit, K < 3, a class or lambda is out of range, or no sample mixes two different classes.

    Examples
    --------
    >>> import numpy as np
    >>> import ufm
    >>> logits = np.array([[3.0, 1.0, 0.0], [1.0, 5.0, 0.0]])
    >>> curve = ufm.channel_curve(logits, np.array([0, 0]), np.array([1, 1]), np.array([0.75, 0.25]), bins=2)
    >>> curve.width.tolist(), curve.depth.tolist()
    ([-4.0, 2.0], [3.0, 2.0])
    """
    check_bins(bins)
    check_integer("resamples", resamples, minimum=0, maximum=10**6)
    rng = np.random.default_rng(check_integer("seed", seed, minimum=0))
    mixed = _Mixed.of(logits, class_a, class_b, lam)
    width, depth = mixed.width.numpy(), mixed.depth.numpy()
    confidence = torch.softmax(mixed.logits, 1).amax(1).numpy()
    index = bin_index(mixed.lam, bins).numpy()

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
    """Return mean width and depth of the samples whose heavier class has about a given weight.

    Parameters
    ----------
    logits, class_a, class_b, lam : arrays
        As in `channel_curve`.
    at : tuple of float
        Weights of the heavier class, in [1/2, 1).
    half_window : float
        Samples within this distance of a weight are averaged, > 0.

    Returns
    -------
    ChannelPoints
        One entry per weight.

    Raises
    ------
    ValueError
        As in `channel_curve`, and for a weight or window out of range.

    Notes
    -----
    The heavier class takes the place of class_a. At lambda = 1/2 exactly, the average over both orders of the pair is
    taken, so that the width is 0. Near 1/2 the mean weight in the window exceeds 1/2 (it is 0.525 for uniform lambda
    and the default window), and the mean width is positive.

    Examples
    --------
    >>> import numpy as np
    >>> import ufm
    >>> logits = np.array([[3.0, 1.0, 0.0], [1.0, 5.0, 0.0]])
    >>> points = ufm.channel_points(logits, np.array([0, 0]), np.array([1, 1]), np.array([0.7, 0.3]), at=(0.7,))
    >>> points.count.tolist(), points.width.tolist()
    ([2], [3.0])
    """
    check_number("half_window", half_window, above=0)
    for value in at:
        check_number("at", value, minimum=0.5, below=1)
    mixed = _Mixed.of(logits, class_a, class_b, lam)
    major = torch.maximum(mixed.lam, 1 - mixed.lam)
    width = torch.sign(mixed.lam - 0.5) * mixed.width
    near = [(major - value).abs() <= half_window for value in at]
    # The mean of no samples is NaN.
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

    Parameters
    ----------
    logits, class_a, class_b, lam : arrays
        As in `channel_curve`.
    half_width : float
        The density counts samples of width ``|z_a - z_b| <= half_width``, in logits, > 0.
    half_window : float
        The slope is fitted to samples with ``|lam - 1/2| <= half_window``, > 0.

    Returns
    -------
    Boundary
        Density, slope and amplification.

    Raises
    ------
    ValueError
        As in `channel_curve`, and for a width or window out of range.

    Notes
    -----
    The density is the share of different-class samples within half_width, divided by 2 half_width. The slope is that of
    the least-squares line of width against lambda through width 0 at lambda = 1/2. This is the line through all samples
    if each is counted in both orders of its pair. The slope is NaN if no sample is in the window. The same-class ends
    are means over samples with class_a == class_b; if there are none, the amplification is NaN.

    References
    ----------
    derivations/straight_line.py (density) and derivations/channel.py (amplification).
    """
    check_number("half_width", half_width, above=0)
    check_number("half_window", half_window, above=0)
    mixed = _Mixed.of(logits, class_a, class_b, lam)
    density = (mixed.width.abs() <= half_width).double().mean().item() / (2 * half_width)
    near = (mixed.lam - 0.5).abs() <= half_window
    x, width = mixed.lam[near] - 0.5, mixed.width[near]
    # 0/0 is NaN, here and below.
    slope = (x @ width) / (x @ x)
    z, pairs = _read(logits, class_a, class_b, lam)
    same = pairs.class_a == pairs.class_b
    z, a = z[same], pairs.class_a[same]
    own = z.gather(1, a[:, None])[:, 0]
    ends = (own - (z.sum(1) - own) / (z.shape[1] - 1)).mean()
    return Boundary(density, slope.item(), (slope / (2 * ends)).item())


def _read(logits: Array, class_a: Array, class_b: Array, lam: Array) -> tuple[Tensor, ClassPairs]:
    """Return logits and class pairs, checked, on the CPU; real numbers in float64, classes in int64."""
    z = to_tensor("logits", logits, ndim=2).detach().double().cpu()
    N, K = z.shape
    if K < 3:
        raise ValueError(f"logits: got shape {(N, K)}, expected (N, K) with K >= 3")
    return z, read_pairs(class_a, class_b, lam, N, K).wide()


@dataclass(frozen=True)
class _Mixed:
    """Logits (n, K), lam, width and depth (n,) of the different-class samples, on the CPU in float64."""

    logits: Tensor
    lam: Tensor
    width: Tensor
    depth: Tensor

    @staticmethod
    def of(logits: Array, class_a: Array, class_b: Array, lam: Array) -> "_Mixed":
        """Select the different-class samples; raise ValueError for shapes or values that do not fit."""
        z, pairs = _read(logits, class_a, class_b, lam)
        check_squares("logits", z, small=False)
        mixed = pairs.different()
        z, (a, b, weight) = z[mixed], pairs[mixed].columns
        za, zb = (z.gather(1, k[:, None])[:, 0] for k in (a, b))
        rest = (z.sum(1) - za - zb) / (z.shape[1] - 2)
        return _Mixed(z, weight, za - zb, (za + zb) / 2 - rest)


def _band(means: Float[np.ndarray, "resamples bins"]) -> Float[np.ndarray, "2 bins"]:
    """Return the percentiles of each bin's mean over the resamples in which the bin has samples."""
    band = np.full((2, means.shape[1]), np.nan)
    for i, column in enumerate(means.T):
        found = column[~np.isnan(column)]
        if len(found):
            band[:, i] = np.percentile(found, _BAND)
    return band
