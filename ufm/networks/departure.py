"""The law by which a network departs from the closed form: softer labels, and what they do to the channel's width."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ufm._support.arrays import check_number
from ufm._support.pairs import bin_index, check_bins
from ufm.networks.activations import Activations, check_some, pairs_of
from ufm.networks.predictions import centred, closed_form


@dataclass(frozen=True)
class WidthSplit:
    """Mean width and depth by bins of the heavier class's weight, .5 to 1, and the exact split of the width.

    Each field but `count` is a list of `bins` numbers, NaN where the bin is empty. In every bin width = label + bias +
    spread, exactly; where all labels are of one class, label and bias are infinite. Indices a and b are the heavier
    and the lighter class.

    Attributes
    ----------
    weight : list of float
        Mean weight of the heavier class.
    count : list of int
        Number of samples.
    width : list of float
        E[z_a - z_b], in logits.
    label : list of float
        log(E y_a / E y_b): what the labels alone give.
    bias : list of float
        log(E p_a / E p_b) - label: from probabilities that are wrong on average.
    spread : list of float
        E log(p_a / p_b) - log(E p_a / E p_b): from their spread within the bin.
    depth : list of float
        E[(z_a + z_b)/2 - z_0], in logits, with z_0 the mean of the other classes' logits.
    leak : list of float
        E[1 - p_a - p_b]: probability that goes to classes which are not in the label.
    """

    weight: list[float]
    count: list[int]
    width: list[float]
    label: list[float]
    bias: list[float]
    spread: list[float]
    depth: list[float]
    leak: list[float]


@dataclass(frozen=True)
class Departure:
    """How far a network is from fitting its mixed labels, and what follows; see `measure_departure`.

    Attributes
    ----------
    beta : float
        The beta of the closed form that is compared with.
    excess : float
        E[CE - H(y)] = E KL(y || p), in nats.
    excess_theory : float
        The same of the closed form: what the penalties cost a network at the optimum.
    excess_expected : float
        E[-y' log p] - E H(y) with the implied labels y' = p + z/beta: the excess that the network's own outputs expect.
        Equal to `excess` where the implied labels are calibrated.
    calibration_slope : float
        Slope of the regression of y on y', through their common mean: 1 where the implied labels are calibrated, below
        1 where they are too hard, NaN where the outputs are constant. Necessary for calibration, not sufficient.
    sharpness : float
        Variance of the implied labels over that of the labels: 1 for a network that has fitted them.
    network, theory : WidthSplit
        Of the network, and of the closed form on the same samples.
    predicted : WidthSplit
        Of the closed form at the mean implied label of each bin, from the network's own outputs without a fit; it has
        no spread within the bin.
    """

    beta: float
    excess: float
    excess_theory: float
    excess_expected: float
    calibration_slope: float
    sharpness: float
    network: WidthSplit
    theory: WidthSplit
    predicted: WidthSplit

    @property
    def lost(self) -> float:
        """excess - excess_theory: the excess that the penalties do not explain."""
        return self.excess - self.excess_theory

    @property
    def width_ratio(self) -> list[float]:
        """Width over the closed form's, per bin."""
        return [one / other for one, other in zip(self.network.width, self.theory.width, strict=True)]

    def words(self) -> str:
        """Return in words how far the network is from fitting its labels, and what moves the width of its channel."""
        text = f"excess loss {self.excess:.3g}, of which the penalties explain {self.excess_theory:.3g}"
        # Labels of one class alone have an infinite width, so that nothing can be said of its parts there.
        shown = [i for i, label in enumerate(self.network.label) if math.isfinite(label)]
        if not shown:
            return text

        def mean(name: str) -> float:
            network, theory, counts = getattr(self.network, name), getattr(self.theory, name), self.network.count
            total = sum((network[i] - theory[i]) * counts[i] for i in shown)
            return total / sum(counts[i] for i in shown)

        parts = ", ".join(f"{mean(name):+.2g} by {why}" for name, why in _CAUSES.items())
        return f"{text}; width moved by {mean('width'):+.2g} logits: {parts}".replace("-", "\N{MINUS SIGN}")


# What can move the width away from the closed form's on the same labels.
_CAUSES = {"bias": "probabilities wrong on average", "spread": "their spread among equal λ"}


def measure_departure(activations: Activations, beta: float | Float[Tensor, ""], *, bins: int = 5) -> Departure:
    r"""Return how far a network is from fitting its mixed labels, and the split of its channel's width.

    Parameters
    ----------
    activations : Activations
        From `record` or `load`, of K >= 3 classes.
    beta : float
        Of the closed form, > 0; the fit-free one where it is known.
    bins : int
        Number of bins of the heavier class's weight between 1/2 and 1.

    Returns
    -------
    Departure
        Excess, calibration of the implied labels, and widths by bin.

    Raises
    ------
    ValueError
        For a number out of range, no samples, or fewer than three classes.

    Notes
    -----
    The loss is linear in the label, so that targets that must share a feature have the closed form at their mean label
    as their optimum: a network that sees only a statistic s of its input is a UFM with the softer labels
    :math:`y' = E[y \mid s]`, and

    .. math:: E\,\mathrm{KL}(y \| p) = E\,\mathrm{KL}(y \| y') + E\,\mathrm{KL}(y' \| p),

    the information that s lacks, and what the penalties cost. At its optimum :math:`y' = p + z/\beta`: the network's
    outputs tell the labels that it has fitted. That it departs by this law is the statement that these implied labels
    are calibrated, :math:`E[y \mid y'] = y'`. Then the excess is the one that the outputs expect, and the regression of
    y on y' has slope 1.

    References
    ----------
    derivations/departure.py

    Examples
    --------
    A "network" that knows each lambda up to a third alone follows the theory at softer labels:

    >>> import torch, ufm
    >>> a, b = torch.arange(600) % 3, torch.arange(600) // 3 % 3
    >>> lam = torch.rand(600, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    >>> seen = ufm.PairTargets(3, a, b, (3 * lam).floor() / 3 + 1 / 6).labels
    >>> response = ufm.fixed_classifier(ufm.simplex_etf(3), seen, feature_decay=0.01)
    >>> W = ufm.simplex_etf(3)
    >>> found = ufm.measure_departure(ufm.Activations(response.features, response.logits, a, b, lam, W), 150.0)
    >>> found.excess > 2 * found.excess_theory, round(found.calibration_slope, 1)
    (True, 1.0)
    """
    beta = check_number("beta", beta, above=0)
    check_bins(bins)
    check_some(activations)
    y, z = activations.labels, centred(activations.logits.double())
    if y.shape[1] < 3:
        raise ValueError(f"activations: got {y.shape[1]} classes, expected at least 3")
    log_p = torch.log_softmax(z, 1)
    theory = closed_form(y, beta)
    entropy = -torch.special.xlogy(y, y).sum(1).mean()
    implied = log_p.exp() + z / beta
    spread = implied - implied.mean(0)
    mixed = _Mixed.of(activations, bins)
    return Departure(
        beta=beta,
        excess=(-(y * log_p).sum(1).mean() - entropy).item(),
        excess_theory=(-(y * torch.log_softmax(theory, 1)).sum(1).mean() - entropy).item(),
        excess_expected=(-(implied * log_p).sum(1).mean() - entropy).item(),
        calibration_slope=((y * spread).sum() / spread.square().sum()).item(),
        sharpness=(spread.square().sum() / (y - y.mean(0)).square().sum()).item(),
        network=mixed.split(z),
        theory=mixed.split(theory),
        predicted=mixed.split(_closed_form_of_means(mixed, implied, beta)),
    )


@dataclass(frozen=True, eq=False)
class _Mixed:
    """Samples of two classes: their rows, the weight of the heavier, both classes, their labels, and the bins."""

    rows: Int[Tensor, "n"]
    weight: Float[Tensor, "n"]
    heavier: Int[Tensor, "n"]
    lighter: Int[Tensor, "n"]
    more: Float[Tensor, "n"]
    less: Float[Tensor, "n"]
    index: Int[Tensor, "n"]
    bins: int

    @staticmethod
    def of(activations: Activations, bins: int) -> "_Mixed":
        pairs = pairs_of(activations)
        rows = torch.nonzero(pairs.mixed() & activations.in_pair)[:, 0]
        a, b, lam = pairs[rows].columns
        first, weight = lam >= 0.5, torch.maximum(lam, 1 - lam)
        heavier, lighter = torch.where(first, a, b), torch.where(first, b, a)
        # Of a smoothed label each class has s/K more.
        s, K = activations.smoothing, activations.logits.shape[1]
        own = (1 - s) * weight + s / K, (1 - s) * (1 - weight) + s / K
        return _Mixed(rows, weight, heavier, lighter, *own, bin_index(2 * weight - 1, bins), bins)

    def means(self, values: Float[Tensor, "n"]) -> Float[Tensor, "bins"]:
        """Return the means per bin, NaN where it is empty."""
        return values.new_zeros(self.bins).index_add_(0, self.index, values) / self.counts

    @property
    def counts(self) -> Int[Tensor, "bins"]:
        """The number of samples per bin."""
        return torch.bincount(self.index, minlength=self.bins)

    @property
    def label(self) -> Float[Tensor, "bins"]:
        """The width that the labels alone give."""
        return torch.log(self.means(self.more) / self.means(self.less))

    def log_means(self, logs: Float[Tensor, "n"]) -> Float[Tensor, "bins"]:
        """Return the logarithms of the means of exp(logs) per bin, which need not be finite numbers themselves."""
        rows = [logs[self.index == i] for i in range(self.bins)]
        return torch.stack([torch.logsumexp(some, 0) - math.log(max(len(some), 1)) for some in rows])

    def ends(self, table: Float[Tensor, "N K"]) -> tuple[Tensor, Tensor, Tensor]:
        """Return the entries of the heavier and the lighter class, and the mean of the others."""
        chosen = table[self.rows]
        one, other = (chosen.gather(1, k[:, None])[:, 0] for k in (self.heavier, self.lighter))
        return one, other, (chosen.sum(1) - one - other) / (table.shape[1] - 2)

    def split(self, logits: Float[Tensor, "N K"]) -> WidthSplit:
        """Return widths and depths of logits, and the split of the width."""
        one, other, rest = self.ends(logits)
        log_one, log_other, _ = self.ends(torch.log_softmax(logits, 1))
        weight, width = self.means(self.weight), self.means(one - other)
        label = self.label
        reached = self.log_means(log_one) - self.log_means(log_other)
        return WidthSplit(
            weight=weight.tolist(),
            count=self.counts.tolist(),
            width=width.tolist(),
            label=label.tolist(),
            bias=(reached - label).tolist(),
            spread=(width - reached).tolist(),
            depth=self.means((one + other) / 2 - rest).tolist(),
            leak=self.means(1 - log_one.exp() - log_other.exp()).tolist(),
        )


def _closed_form_of_means(mixed: _Mixed, labels: Float[Tensor, "N K"], beta: float) -> Float[Tensor, "N K"]:
    """Return logits that are, for each different-class sample, the closed form at its bin's mean label.

    The mean is taken over the heavier class, the lighter class and the rest, and a rest below zero counts as zero.
    """
    one, other, _ = (mixed.means(values) for values in mixed.ends(labels))
    K = labels.shape[1]
    # Sums to 1, as the labels do.
    known = torch.stack([one, other]).clamp(min=0)
    known = known / known.sum(0).clamp(min=1)
    filled = torch.nan_to_num(known, nan=0.5)
    # Where the two sum to 1 but for rounding, none is left for the others.
    table = ((1 - filled.sum(0)).clamp(min=0) / (K - 2))[:, None].repeat(1, K)
    table[:, :2] = filled.T
    logits = closed_form(table, beta)[mixed.index]
    result = labels.new_zeros(labels.shape)
    result[mixed.rows] = logits[:, 2:3].expand(-1, K)
    result[mixed.rows, mixed.heavier], result[mixed.rows, mixed.lighter] = logits[:, 0], logits[:, 1]
    return result
