"""Neural collapse, the mixup channel and calibration in one pass over batches, in memory of a fixed size."""

import copy
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ufm._support.arrays import Array, check_integer, check_number, check_size, check_squares
from ufm._support.display import Displayed, Row
from ufm._support.pairs import bin_index, check_bins
from ufm.labels.decoding import decode_labels, read_labels
from ufm.networks.activations import floats
from ufm.networks.channel import ChannelCurve
from ufm.theory.collapse import check_differ, collapse_of, nearest_mean
from ufm.theory.etf import nearest_etf

_CALIBRATION_BINS = 15


@dataclass(frozen=True, repr=False)
class StreamedMeasures(Displayed):
    """What `CollapseMetric` has seen so far.

    A number for which nothing was seen is NaN.

    Attributes
    ----------
    samples : int
        Number of samples.
    unmixed : int
        Number of samples whose label is of one class: neural collapse, accuracy and ece are of these.
    nc1, nc2, nc3, nc4 : float
        As in `neural_collapse`; NaN until every class was seen. nc3 needs the classifier, nc4 the class means of an
        earlier pass too.
    etf_error : float
        Relative distance of the classifier from its nearest simplex ETF.
    excess : float
        E KL(y || p), in nats.
    accuracy, ece : float
        Share that is classified right, and expected calibration error in 15 bins of equal width.
    channel : ChannelCurve
        Width, depth and confidence by bins of lambda, of samples of two classes.
    """

    samples: int
    unmixed: int
    nc1: float
    nc2: float
    nc3: float
    nc4: float
    etf_error: float
    excess: float
    accuracy: float
    ece: float
    channel: ChannelCurve

    def _shown(self) -> Iterable[Row]:
        yield "samples", self.samples, f"{self.unmixed} of one class"
        for name in ("nc1", "nc2", "nc3", "nc4"):
            yield name.upper(), getattr(self, name), "0 where collapsed"
        yield "classifier to the nearest ETF", self.etf_error, "relative distance"
        yield "excess loss", self.excess, "nats"
        yield "accuracy", self.accuracy, f"calibration error {self.ece:.3g}"


@dataclass(frozen=True)
class _Moments:
    """Count (bins, 1), mean (bins, m) and sum of squared deviations (bins, m) of m columns by bin."""

    count: Tensor
    mean: Tensor
    square: Tensor

    @staticmethod
    def of(values: Tensor, columns: Tensor, bins: int) -> "_Moments":
        """Return the moments of columns (n, m) by the bin of [0, 1] that each of the values (n,) is in."""
        index, zeros = bin_index(values, bins), columns.new_zeros(bins, columns.shape[1])
        count = torch.bincount(index, minlength=bins).double()[:, None]
        mean = zeros.index_add(0, index, columns) / count.clamp(min=1)
        return _Moments(count, mean, zeros.index_add(0, index, (columns - mean[index]).square()))

    def joined(self, other: "_Moments") -> "_Moments":
        """Return the moments of both samples together, without the cancellation of a mean of squares."""
        count, shift = self.count + other.count, other.mean - self.mean
        share = other.count / count.clamp(min=1)
        square = self.square + other.square + shift.square() * self.count * share
        return _Moments(count, self.mean + shift * share, square)


class CollapseMetric:
    """Measures of a network in one pass over its features, labels and logits.

    Memory is O(K d + d^2) whatever the number of samples. Class means and scatter are kept by the updates of Chan,
    Golub and LeVeque (The American Statistician 37, 1983), so that the result is that of `neural_collapse` on all
    samples at once up to rounding.

    Parameters
    ----------
    num_classes : int
        K >= 2.
    classifier : (K, d) array, optional
        W; without it there are no nc3, nc4 and etf_error, and logits have to be given to `update`.
    bias : (K,) array, optional
        b.
    class_means : (K, d) array, optional
        Of an earlier pass (`class_means` of that metric), for nc4, which needs them beforehand.
    smoothing : float
        Label smoothing of the soft labels, in [0, 1).
    bins : int
        Number of bins of lambda.

    Raises
    ------
    ValueError
        Here and in `update`, naming what does not fit.

    Examples
    --------
    >>> import torch, ufm
    >>> W = ufm.simplex_etf(3)
    >>> metric = ufm.CollapseMetric(3, W)
    >>> for _ in range(2):
    ...     metric.update(2 * W, torch.arange(3))
    >>> found = metric.compute()
    >>> found.samples, round(found.nc1, 6), round(found.nc3, 6), found.accuracy
    (6, 0.0, 0.0, 1.0)
    """

    def __init__(
        self,
        num_classes: int,
        classifier: Float[Array, "K d"] | None = None,
        bias: Float[Array, "K"] | None = None,
        *,
        class_means: Float[Array, "K d"] | None = None,
        smoothing: float = 0.0,
        bins: int = 10,
    ) -> None:
        """Check the arguments; nothing is seen yet."""
        self.num_classes = check_integer("num_classes", num_classes, minimum=2)
        check_size("num_classes", self.num_classes)
        self.smoothing = check_number("smoothing", smoothing, minimum=0, below=1)
        self.bins = check_bins(bins)
        given = {"classifier": classifier, "class_means": class_means}
        read = {name: None if x is None else floats(name, x, 2).double() for name, x in given.items()}
        for name, value in read.items():
            if value is None:
                continue
            if len(value) != num_classes:
                raise ValueError(f"{name}: got shape {tuple(value.shape)}, expected {num_classes} rows")
            check_squares(name, value)
        self._classifier, self._earlier = read["classifier"], read["class_means"]
        if self._classifier is not None:
            check_differ("classifier", self._classifier)
        self._bias = None if bias is None else floats("bias", bias, 1).double()
        if self._bias is not None and len(self._bias) != num_classes:
            raise ValueError(f"bias: got shape {tuple(self._bias.shape)}, expected {(num_classes,)}")
        self.reset()

    def reset(self) -> None:
        """Forget what was seen."""
        zeros = torch.zeros(0, dtype=torch.float64)
        self._count = zeros.new_zeros(self.num_classes)
        self._means, self._scatter = zeros.new_zeros(self.num_classes, 0), zeros.new_zeros(0, 0)
        # Sums: of all samples (their number, that of those with logits, divergence, features nearest to another class's
        # mean), and of those of one class by bin of confidence.
        self._sums = {"all": zeros.new_zeros(4), "calibration": zeros.new_zeros(_CALIBRATION_BINS, 3)}
        # Of samples of two classes, by bin of lambda.
        self._channel = _Moments.of(zeros, zeros.new_zeros(0, 4), self.bins)

    @property
    def class_means(self) -> Float[Tensor, "K d"]:
        """The means of each class's features so far; zero for a class that was not seen."""
        return self._means.clone()

    def update(self, features: Float[Array, "n d"], labels: Array, logits: Float[Array, "n K"] | None = None) -> None:
        """Take in one batch.

        Parameters
        ----------
        features : (n, d) array
            Of any device; half precision is widened.
        labels : (n, K) or (n,) array
            Soft labels, or classes.
        logits : (n, K) array, optional
            By default W h + b.
        """
        h = floats("features", features, 2).double()
        check_squares("features", h)
        given, _ = read_labels(labels, self.num_classes)
        if len(given) != len(h):
            raise ValueError(f"labels: got {len(given)} rows, expected {len(h)} as the features have")
        d = self._means.shape[1] or h.shape[1]
        if h.shape[1] != d or (self._classifier is not None and self._classifier.shape[1] != d):
            raise ValueError(
                f"features: got shape {tuple(h.shape)}, expected {d} columns as before or as the classifier"
            )
        z = self._logits(h, logits)
        found = decode_labels(given, self.num_classes, smoothing=self.smoothing if given.ndim == 2 else None)
        one, two = found.classes == 1, found.classes == 2
        self._add_classes(h[one], found.class_a[one])
        if z is None:
            self._sums["all"][0] += len(h)
            return
        log_p = torch.log_softmax(z, 1)
        y = torch.nn.functional.one_hot(given, self.num_classes).double() if given.ndim == 1 else given.double()
        divergence = (torch.special.xlogy(y, y) - y * log_p).sum()
        misplaced = z.new_tensor(torch.nan)
        if self._earlier is not None:
            misplaced = (z[one].argmax(1) != nearest_mean(h[one], self._earlier)).double().sum()
        count = z.new_tensor(float(len(h)))
        self._sums["all"] += torch.stack([count, count, divergence, misplaced])
        confidence, guess = log_p[one].exp().max(1)
        self._add_calibration(confidence, (guess == found.class_a[one]).double())
        if self.num_classes > 2:
            a, b, lam, z = found.class_a[two], found.class_b[two], found.lam[two], z[two]
            za, zb = (z.gather(1, k[:, None])[:, 0] for k in (a, b))
            width, depth = za - zb, (za + zb) / 2 - (z.sum(1) - za - zb) / (self.num_classes - 2)
            likely = torch.softmax(z, 1).amax(1) if len(z) else lam
            columns = torch.stack([lam, width, depth, likely], 1)
            self._channel = self._channel.joined(_Moments.of(lam, columns, self.bins))

    def compute(self) -> StreamedMeasures:
        """Return the measures of all batches so far; raise ValueError if all classes have the same mean feature."""
        samples, known, divergence, misplaced = self._sums["all"].tolist()
        unmixed = self._count.sum().item()
        calibration, channel = self._sums["calibration"], self._channel
        right, sure = calibration[:, 2].sum().item(), calibration[:, 0].sum().item()
        nan = float("nan")
        nc = dict.fromkeys(("nc1", "nc2", "nc3", "nc4"), nan)
        w = self._classifier
        if bool((self._count > 0).all()):
            check_differ("features", self._means, "class means")
            found = collapse_of(
                self._means, self._scatter / unmixed, self._means if w is None else w, misplaced / unmixed
            )
            nc = {"nc1": found.nc1, "nc2": found.nc2, "nc3": nan if w is None else found.nc3, "nc4": found.nc4}
        lam, width, depth, confidence = channel.mean.where(channel.count > 0, torch.nan).T.numpy()
        _, width_std, depth_std, _ = (channel.square / channel.count).sqrt().T.numpy()
        return StreamedMeasures(
            samples=int(samples),
            unmixed=int(unmixed),
            **nc,
            etf_error=nan if w is None or len(w) > w.shape[1] + 1 else nearest_etf(w - w.mean(0)).relative_error,
            excess=divergence / known if known else nan,
            accuracy=right / sure if sure else nan,
            ece=(calibration[:, 1] - calibration[:, 2]).abs().sum().item() / sure if sure else nan,
            channel=ChannelCurve(
                lam, channel.count[:, 0].numpy().astype(int), width, width_std, depth, depth_std, confidence
            ),
        )

    def merge_state(self, *others: "CollapseMetric") -> None:
        """Take in what other metrics of the same classes and bins have seen, as those of other processes."""
        for other in others:
            if not isinstance(other, CollapseMetric) or (other.num_classes, other.bins) != (
                self.num_classes,
                self.bins,
            ):
                raise ValueError("others: got a metric of other classes or bins, expected the same")
            if other._means.shape[1]:
                if self._means.shape[1] not in (0, other._means.shape[1]):
                    raise ValueError("others: got a metric of features of another dimension, expected the same")
                self._join(other._count, other._means, other._means[:0])
                self._scatter += other._scatter
            for name, value in other._sums.items():
                self._sums[name] += value
            self._channel = self._channel.joined(other._channel)

    def gathered(self) -> "CollapseMetric":
        """Return the metric of all processes of torch.distributed together, the same in each; a copy without them."""
        whole = copy.deepcopy(self)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            every: list[CollapseMetric | None] = [None] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(every, self)
            whole.reset()
            whole.merge_state(*(one for one in every if one is not None))
        return whole

    def _logits(self, h: Tensor, logits: Array | None) -> Tensor | None:
        if logits is None:
            if self._classifier is None:
                return None
            return h @ self._classifier.T + (0 if self._bias is None else self._bias)
        z = floats("logits", logits, 2).double()
        if tuple(z.shape) != (len(h), self.num_classes):
            raise ValueError(f"logits: got shape {tuple(z.shape)}, expected {(len(h), self.num_classes)}")
        return z

    def _add_classes(self, h: Tensor, classes: Tensor) -> None:
        """Take in features of samples of one class."""
        if not len(h):
            return
        count = torch.bincount(classes, minlength=self.num_classes).double()
        means = h.new_zeros(self.num_classes, h.shape[1]).index_add_(0, classes, h) / count.clamp(min=1)[:, None]
        self._join(count, means, h - means[classes])

    def _join(self, count: Tensor, means: Tensor, within: Tensor) -> None:
        """Join counts, means and a factor R of the scatter within the classes, R^T R, with those so far."""
        if not self._means.shape[1]:
            d = means.shape[1]
            self._means, self._scatter = means.new_zeros(self.num_classes, d), means.new_zeros(d, d)
        total = (self._count + count).clamp(min=1)
        seen = (count > 0).nonzero()[:, 0]
        shift, share = means[seen] - self._means[seen], (count / total)[seen, None]
        # One product: the shifts of the means are further rows of the factor.
        rows = torch.cat([within, shift * (self._count[seen, None] * share).sqrt()])
        self._scatter.addmm_(rows.T, rows)
        self._means[seen] += shift * share
        self._count += count

    def _add_calibration(self, confidence: Tensor, right: Tensor) -> None:
        table = torch.stack([torch.ones_like(right), confidence, right], 1)
        self._sums["calibration"].index_add_(0, bin_index(confidence, _CALIBRATION_BINS), table)
