"""What soft labels say of themselves: the classes that are mixed, their weights, smoothing, and the law behind them."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy import optimize, special
from torch import Tensor

from ufm._support.arrays import (
    HALVES,
    Array,
    check_integer,
    check_labels,
    check_number,
    read_classes,
    to_numbers,
    to_tensor,
)
from ufm.labels.targets import Orbits, Targets

# With smoothing, an entry within this share of s/K counts as that of a class that the label lacks: rounding in float32
# is far below it. Labels of half precision need more, so many of their machine epsilons.
_TOLERANCE, _EPSILONS = 1e-4, 8
# The smallest entry of all is that of smoothing only if so many labels have it; a teacher's labels have each their own.
_SHARE = 0.1
# A label is read in blocks of this many numbers.
_BLOCK = 2**24
# Range of the fitted Beta parameter; so near to an end, in the logarithm, it counts as 0 or infinite.
_ALPHA_RANGE, _EDGE = (1e-3, 1e3), 1e-3
# For the law of recorded labels, so many of them are enough: its standard error is then below 1 %.
_LAW_SAMPLES = 20_000


@dataclass(frozen=True, eq=False)
class DecodedLabels:
    """The classes in soft labels, and their weights; see `decode_labels`.

    Attributes
    ----------
    num_classes : int
        Number of classes K.
    class_a, class_b : (N,) integer tensor
        The two classes of most weight, the smaller index first; equal for a label of one class.
    lam : (N,) tensor
        Weight of class_a among the two, smoothing taken off, in [0, 1], in float64; 1 for a label of one class.
    classes : (N,) integer tensor
        How many classes the label has: 1, 2 for a pair, or more.
    smoothing : float
        Label smoothing s: each label is (1 - s) times a mixture, plus s/K.
    resolution : float
        Weight below which a class is not seen, because the labels' rounding hides it; 0 without smoothing.
    """

    num_classes: int
    class_a: Int[Tensor, "N"]
    class_b: Int[Tensor, "N"]
    lam: Float[Tensor, "N"]
    classes: Int[Tensor, "N"]
    smoothing: float
    resolution: float = 0.0

    @property
    def in_pair(self) -> Bool[Tensor, "N"]:
        """Which labels have at most two classes, so that class_a, class_b and lam say all of them."""
        return self.classes <= 2


def decode_labels(labels: Array, num_classes: int | None = None, *, smoothing: float | None = None) -> DecodedLabels:
    """Read classes, weights and smoothing from the labels that mixup, CutMix and label smoothing make.

    Parameters
    ----------
    labels : (N, K) or (N,) array
        Soft labels, rows on the simplex; or classes in 0..K-1.
    num_classes : int, optional
        K, for labels that are classes; by default one more than the largest.
    smoothing : float, optional
        Label smoothing in [0, 1). By default K times the smallest entry, if many labels have it: a label that lacks a
        class has s/K there.

    Returns
    -------
    DecodedLabels
        One entry per label.

    Raises
    ------
    ValueError
        For labels off the simplex, classes out of range, or a smoothing that some entry is below.

    Notes
    -----
    A soft label does not tell which of its two images came first. The class of the smaller index is named first, so
    that lam is spread over all of [0, 1] as it is for a random order.

    With two classes, or if every label has every class, smoothing cannot be told from mixing, and has to be given.

    Examples
    --------
    >>> import numpy as np, ufm
    >>> found = ufm.decode_labels(np.array([[0.25, 0.0, 0.75], [0.0, 1.0, 0.0], [0.5, 0.3, 0.2]]))
    >>> found.class_a.tolist(), found.class_b.tolist(), found.lam.tolist()[:2], found.classes.tolist()
    ([0, 1, 0], [2, 1, 1], [0.25, 1.0], [2, 1, 3])
    >>> ufm.decode_labels(0.9 * np.eye(4) + 0.1 / 4).smoothing.__round__(6)
    0.1
    """
    given, rounding = read_labels(labels, num_classes)
    if given.ndim == 1:
        K = int(given.max()) + 1 if num_classes is None else num_classes
        one = torch.ones(len(given))
        return DecodedLabels(K, given, given, one.double(), one.long(), 0.0)
    K = given.shape[1]
    rows = max(1, _BLOCK // K)
    minima = torch.cat([block.amin(1).double() for block in given.split(rows)])
    least, relative = minima.min().item(), max(_TOLERANCE, _EPSILONS * rounding)
    if smoothing is not None:
        floor = check_number("smoothing", smoothing, minimum=0, below=1) / K
    else:
        floor = least if (minima <= (1 + relative) * least).double().mean() >= _SHARE else 0.0
    tolerance = floor * relative
    if least < floor - tolerance:
        raise ValueError(f"smoothing: got {smoothing}, expected at most {K * least:.3g}, as some entry is {least:.3g}")
    scale = 1 - K * floor
    if scale <= K * tolerance:
        # Every entry is 1/K: no class has more weight than another.
        raise ValueError("labels: got labels that are all uniform, expected some that differ")
    first, second, weight, classes = [], [], [], []
    for block in given.split(rows):
        y = (block.double() - floor).clamp(min=0) / scale
        top, index = y.topk(2, dim=1)
        count = (y > tolerance / scale).sum(1).clamp(min=1)
        alone = count == 1
        a, b = index.unbind(1)
        swapped = ~alone & (b < a)
        own = torch.where(swapped, top[:, 1], top[:, 0])
        first.append(torch.where(swapped, b, a))
        second.append(torch.where(alone, a, torch.where(swapped, a, b)))
        weight.append(torch.where(alone, 1.0, own / top.sum(1)))
        classes.append(count)
    a, b, lam, count = (torch.cat(column) for column in (first, second, weight, classes))
    return DecodedLabels(K, a, b, lam, count, K * floor, tolerance / scale)


def read_labels(labels: Array, num_classes: int | None = None) -> tuple[Tensor, float]:
    """Return soft labels (N, K) or classes (N,), checked, on the CPU, and the machine epsilon that they came with."""
    if num_classes is not None:
        check_integer("num_classes", num_classes, minimum=1)
    value = to_numbers("labels", labels)
    if value.ndim == 1:
        if not len(value):
            raise ValueError("labels: got none, expected at least one")
        most = 2**31 if num_classes is None else num_classes
        return read_classes("labels", value, len(value), most).long(), 0.0
    y = to_tensor("labels", value, ndim=2).detach().cpu()
    if num_classes is not None and y.shape[1] != num_classes:
        raise ValueError(f"labels: got {y.shape[1]} classes, expected {num_classes}")
    rounding = 0.0
    if y.dtype == torch.float32:
        # Labels of half precision have larger errors, also after they were widened.
        rounding = next((torch.finfo(x).eps for x in HALVES if torch.equal(y, y.to(x).float())), 0.0)
    check_labels(y, rounding=rounding)
    return y, rounding


@dataclass(frozen=True)
class LabelSummary:
    """What labels say of the law that they come from; see `summarise_labels`.

    Attributes
    ----------
    samples : int
        Number of labels.
    one, two, more : float
        Shares of labels with one class, with two, and with more.
    smoothing : float
        Label smoothing s.
    mixed : float
        Estimated share of inputs that were mixed at all: with independent partners and equal classes 1/K of these have
        labels of one class.
    alpha : float or None
        Maximum-likelihood estimate of the parameter of lambda ~ Beta(alpha, alpha), from the labels with two classes;
        None for fewer than two.
    alpha_error : float or None
        Its standard error.
    per_batch : bool or None
        Whether neighbours share one lambda, as where lambda is drawn once per batch; None for fewer than two pairs.
    """

    samples: int
    one: float
    two: float
    more: float
    smoothing: float
    mixed: float
    alpha: float | None
    alpha_error: float | None
    per_batch: bool | None

    def words(self) -> str:
        """Return the summary in words."""
        if self.one == 1:
            return f"{self.samples} labels of one class each" + self._smoothed()
        parts = [f"{self.samples} labels: {self.one:.1%} of one class, {self.two:.1%} of two"]
        parts += [f"{self.more:.1%} of more"] if self.more else []
        if self.alpha is not None:
            error = "" if self.alpha_error is None else f" ± {self.alpha_error:.2g}"
            parts.append(f"λ ~ Beta(α, α) with α = {self.alpha:.3g}{error}, " + self._drawn())
        return ", ".join(parts) + self._smoothed()

    def _drawn(self) -> str:
        return f"one per {'batch' if self.per_batch else 'sample'}"

    def _smoothed(self) -> str:
        return f", label smoothing {self.smoothing:.3g}" if self.smoothing else ""


def summarise_labels(labels: Array | DecodedLabels, num_classes: int | None = None) -> LabelSummary:
    """Estimate from labels how they were made: smoothing, the share that is mixed, and the law of lambda.

    Parameters
    ----------
    labels : (N, K) or (N,) array, or DecodedLabels
        In the order in which they were drawn; see `decode_labels`.
    num_classes : int, optional
        K, for labels that are classes.

    Returns
    -------
    LabelSummary
        Estimates.

    Raises
    ------
    ValueError
        As in `decode_labels`.

    Examples
    --------
    >>> import torch, ufm
    >>> lam = torch.distributions.Beta(2.0, 2.0).sample((4000,)).double()
    >>> a, b = torch.arange(4000) % 5, torch.arange(4000) // 5 % 5
    >>> found = ufm.summarise_labels(ufm.PairTargets(5, a, b, lam).labels)
    >>> abs(found.alpha - 2) < 5 * found.alpha_error, found.one, found.per_batch
    (True, 0.2, False)
    """
    found = labels if isinstance(labels, DecodedLabels) else decode_labels(labels, num_classes)
    shares = [(found.classes == 1), (found.classes == 2), (found.classes > 2)]
    one, two, more = (some.double().mean().item() for some in shares)
    lam = found.lam[shares[1]].numpy()
    alpha, error = _fit_alpha(lam, found.resolution)
    heavier = np.maximum(lam, 1 - lam)
    same = np.isclose(heavier[1:], heavier[:-1], rtol=0, atol=1e-6).mean() if len(lam) > 1 else None
    return LabelSummary(
        samples=len(found.lam),
        one=one,
        two=two,
        more=more,
        smoothing=found.smoothing,
        mixed=min(1.0, (1 - one) / (1 - 1 / found.num_classes)),
        alpha=alpha,
        alpha_error=error,
        per_batch=None if same is None else bool(same > 0.5),
    )


def _fit_alpha(lam: np.ndarray, resolution: float) -> tuple[float | None, float | None]:
    """Return the maximum-likelihood alpha of Beta(alpha, alpha), and its standard error.

    Of the law only lam between `resolution` and 1 - resolution is seen.
    """
    seen = lam[(lam > resolution) & (lam < 1 - resolution)]
    if len(seen) < 2:
        return None, None
    mean = (np.log(seen) + np.log1p(-seen)).mean()

    def cost(log_alpha: float) -> float:
        """Return the mean negative log-likelihood."""
        alpha = math.exp(log_alpha)
        inside = special.log1p(-2 * special.betainc(alpha, alpha, resolution))
        return float(special.betaln(alpha, alpha) + inside - (alpha - 1) * mean)

    low, high = map(math.log, _ALPHA_RANGE)
    found: Any = optimize.minimize_scalar(cost, bounds=(low, high), method="bounded", options={"xatol": 1e-6})
    best = float(found.x)
    if not low + _EDGE < best < high - _EDGE:
        return (math.inf, None) if best > 0 else (0.0, None)
    step = 1e-2
    curvature = (cost(best + step) - 2 * cost(best) + cost(best - step)) / step**2
    return math.exp(best), math.exp(best) / math.sqrt(len(seen) * curvature)


@dataclass(frozen=True, eq=False)
class RecordedLaw:
    """The law of recorded labels, with the classes permuted at random: what a symmetric law would have given.

    labels: (N, K), rows on the simplex.
    """

    labels: Float[Tensor, "N K"]

    @property
    def num_classes(self) -> int:
        """The number of classes K."""
        return self.labels.shape[1]

    def targets(self, nodes: int = 1) -> Targets:
        """Return the labels as they are; `nodes` has no effect."""
        return Targets(self.labels)

    def orbits(self, nodes: int | None = 1, *, level: int = 0) -> Orbits:
        """Return one orbit per label, of at most 20,000 spread evenly; `nodes` and `level` have no effect."""
        step = max(1, math.ceil(len(self.labels) / _LAW_SAMPLES))
        levels = self.labels[::step].double().sort(1, descending=True).values
        pi = levels.new_full((len(levels),), 1 / len(levels))
        return Orbits(self.num_classes, levels, torch.ones_like(levels), pi)
