"""Probability laws of the soft label.

Each law has two forms. `targets` writes it out: one row per label, for every choice of classes. `orbits` keeps one
label per orbit of the class permutations, so its cost does not depend on the number of classes. Mixing coefficients
lambda come from `nodes` quadrature nodes, which are a discrete law in their own right; `orbits(None)` uses a quadrature
rule for the continuous law instead.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from ufm._support.arrays import check_choice, check_integer, check_kind, check_number, check_size, to_tensor
from ufm.labels.quadrature import affordable_level, dirichlet_rule, symmetric_rule
from ufm.labels.targets import Orbits, PairTargets, Targets

_DEFAULT_LEVEL = 5
# The patterns of coinciding classes are as many as the partitions of this number.
_MOST_WAYS = 32
_INSTEAD = "use fewer nodes, or pair_targets with solve(stream=True) or --stream"
_PAIRS = ("all", "same", "different")


@runtime_checkable
class Law(Protocol):
    """A probability law of the soft label.

    Any class with these three members is a law.
    """

    @property
    def num_classes(self) -> int:
        """The number of classes K."""
        ...

    def targets(self, nodes: int = 16) -> Targets:
        """Return the law with every choice of classes written out.

        Parameters
        ----------
        nodes : int
            Number of quadrature nodes for lambda.

        Returns
        -------
        Targets
            One row per label.
        """
        ...

    def orbits(self, nodes: int | None = 64, *, level: int = _DEFAULT_LEVEL) -> Orbits:
        """Return the same law reduced by class symmetry.

        Parameters
        ----------
        nodes : int or None
            Number of quadrature nodes for lambda; None for the continuous law.
        level : int
            Accuracy of the continuous law's rule, whose step is 2^-level; unused if `nodes` is given.

        Returns
        -------
        Orbits
            One label per orbit of the class permutations.

        Raises
        ------
        ValueError
            If some permutation of the classes changes the law.
        """
        ...


@dataclass(frozen=True)
class Mixup:
    r"""Mixup: the label is a random convex combination of the labels of independently drawn classes.

    Attributes
    ----------
    num_classes : int
        Number of classes K >= 2.
    alpha : float
        Parameter of the Dirichlet law of the coefficients, > 0. For two ways lambda ~ Beta(alpha, alpha). Infinity
        gives lambda_i = 1/ways.
    ways : int
        Number of labels that are mixed, >= 2.
    pairs : str
        "all"; or "same" or "different" for draws conditioned on all classes being equal, or all being different.
    priors : tuple of float, length K, or None
        Class probabilities; uniform by default. Unequal priors break the class symmetry: `targets` still works, and
        with it the solver, but `orbits`, which the closed forms need, raises ValueError.

    Raises
    ------
    ValueError
        For an argument out of range.

    Notes
    -----
    .. math::

        y = \sum_i \lambda_i e_{c_i}, \qquad \lambda \sim \mathrm{Dirichlet}(\alpha, \dots, \alpha)

    Coefficients of equal classes add up: a pair of the same class gives e_c whatever lambda.

    References
    ----------
    Zhang, Cisse, Dauphin and Lopez-Paz, "mixup: beyond empirical risk minimization", ICLR 2018.

    Examples
    --------
    >>> import ufm
    >>> law = ufm.Mixup(3, alpha=1.0)
    >>> len(law.targets(nodes=4))  # 3 unmixed labels, and 4 mixtures of each of 3 pairs
    15
    >>> orbits = law.orbits(nodes=1)
    >>> orbits.levels.tolist()
    [[1.0, 0.0, 0.0], [0.5, 0.5, 0.0]]
    >>> [round(weight, 4) for weight in orbits.weights.tolist()]
    [0.3333, 0.6667]
    """

    num_classes: int
    alpha: float = 1.0
    ways: int = 2
    pairs: str = "all"
    priors: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        """Check every field."""
        K = check_integer("num_classes", self.num_classes, minimum=2)
        if not (isinstance(self.alpha, Real) and self.alpha == math.inf):
            check_number("alpha", self.alpha, above=0)
        ways = check_integer("ways", self.ways, minimum=2, maximum=_MOST_WAYS)
        check_choice("pairs", self.pairs, _PAIRS)
        if self.pairs == "different" and ways > K:
            raise ValueError(f"ways: got {ways} different classes, expected at most num_classes = {K}")
        object.__setattr__(self, "priors", _priors(self.priors, K))

    def targets(self, nodes: int = 16) -> Targets:
        """Return every choice of classes at every quadrature node.

        Parameters
        ----------
        nodes : int
            Number of Gauss-Jacobi nodes for lambda, >= 1. They integrate polynomials in lambda up to degree
            2 nodes - 1 exactly as the continuous law does.

        Returns
        -------
        Targets
            For two ways, K + nodes K(K-1)/2 targets with class_a, class_b and lam set. Each pair occurs once, with
            a < b, because the law of lambda is symmetric. Rows are ordered pair by pair; lambda runs fastest.

        Raises
        ------
        ValueError
            For nodes < 1, or more targets than memory holds.
        """
        K = self.num_classes
        self._check_rows("num_classes, ways, nodes", nodes, lambda blocks: math.perm(K, blocks) * K, _INSTEAD)
        labels, weights, pairs = [], [], []
        for classes, parts, pi in self._choices(nodes):
            labels.append(parts.new_zeros(len(parts), K).scatter_(1, classes, parts))
            weights.append(pi)
            pairs.append((classes[:, 0], classes[:, -1], parts[:, 0]))
        pi = torch.cat(weights)
        columns = (torch.cat(column) for column in zip(*pairs, strict=True)) if self.ways == 2 else (None, None, None)
        return Targets(torch.cat(labels), pi / pi.sum(), *columns)

    def pair_targets(self, nodes: int = 16) -> PairTargets:
        """Return the targets of `targets(nodes)`, in the same order, stored as classes and coefficients.

        Raises ValueError unless two ways are mixed, or if memory does not hold them.
        """
        if self.ways != 2:
            raise ValueError(f"ways: got {self.ways}, expected 2 for targets that are pairs")
        self._check_rows("num_classes, nodes", nodes, lambda blocks: math.perm(self.num_classes, blocks))
        columns = [(c[:, 0], c[:, -1], parts[:, 0], pi) for c, parts, pi in self._choices(nodes)]
        a, b, lam, pi = (torch.cat(column) for column in zip(*columns, strict=True))
        return PairTargets(self.num_classes, a.int(), b.int(), lam, pi / pi.sum())

    def _choices(self, nodes: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield classes (n, blocks), their coefficients (n, blocks) and probabilities (n,), pattern by pattern."""
        K = self.num_classes
        priors = np.full(K, 1 / K) if self.priors is None else np.asarray(self.priors)
        for sizes, count in self._patterns():
            rule = dirichlet_rule(self.alpha, sizes, nodes)
            # Two blocks of equal size have a symmetric law: each pair is needed in one order only.
            unordered = sizes == (1, 1)
            choices = itertools.combinations(range(K), 2) if unordered else itertools.permutations(range(K), len(sizes))
            classes = torch.tensor(list(choices)).reshape(-1, len(sizes))
            probability = count * (1 + unordered) * np.prod(priors[classes.numpy()] ** np.array(sizes), axis=1)
            pi = (torch.from_numpy(probability)[:, None] * rule.weights).reshape(-1)
            yield classes.repeat_interleave(len(rule.weights), 0), rule.parts.repeat(len(classes), 1), pi

    def orbits(self, nodes: int | None = 64, *, level: int = _DEFAULT_LEVEL) -> Orbits:
        """Return one label per node and per pattern of coinciding classes; see `Law.orbits`.

        The rule of the continuous law has at most 2^19 nodes, so that closed forms take seconds at most: for four ways
        its level is at most 3, for five 1, and from six on there is none, so that `nodes` is needed.
        `ufm.JointOptimum.quadrature_error` says what the level costs.
        """
        _refuse_priors(self.priors)
        K = self.num_classes
        levels, counts, weights = [], [], []
        if nodes is None:
            level = affordable_level([] if math.isinf(self.alpha) else [x for x, _ in self._patterns()], level)
        else:
            self._check_rows("nodes, ways", nodes, lambda blocks: self.ways + 2)
        for sizes, count in self._patterns():
            if nodes is None:
                rule = symmetric_rule(self.alpha, sizes, level)
            else:
                rule = dirichlet_rule(self.alpha, sizes, nodes)
            parts, pi = rule.parts, rule.weights
            # Unused columns get the level 0 and the count 0, so that all patterns have ways + 1 columns.
            blocks, unused = len(sizes), self.ways - len(sizes)
            levels.append(torch.nn.functional.pad(parts, (0, unused + 1)))
            counts.append(parts.new_tensor([1.0] * blocks + [0.0] * unused + [K - blocks]).expand_as(levels[-1]))
            weights.append(count * math.perm(K, blocks) / K**self.ways * pi)
        pi = torch.cat(weights)
        return Orbits(K, torch.cat(levels), torch.cat(counts), pi / pi.sum())

    def _check_rows(self, name: str, nodes: int, width: Callable[[int], int], instead: str = "") -> None:
        """Raise ValueError if the law's labels need too much memory, each with as many numbers as `width` says."""
        n = 1 if math.isinf(self.alpha) else check_integer("nodes", nodes, minimum=1)
        for sizes, _ in self._patterns():
            check_size(name, n ** (len(sizes) - 1) * width(len(sizes)), instead)

    def _patterns(self) -> Iterator[tuple[tuple[int, ...], int]]:
        """Yield each pattern of coinciding draws: sizes of its blocks, and number of set partitions with these sizes.

        A block holds the draws of one class.
        """
        for sizes in _partitions(self.ways, self.ways):
            blocks = len(sizes)
            wanted = {"all": True, "same": blocks == 1, "different": blocks == self.ways}[self.pairs]
            if wanted and blocks <= self.num_classes:
                repeats = math.prod(math.factorial(sizes.count(size)) for size in set(sizes))
                ordered = math.factorial(self.ways) // math.prod(map(math.factorial, sizes))
                yield sizes, ordered // repeats


@dataclass(frozen=True)
class CutMix(Mixup):
    """CutMix, in which a box of one image is pasted into another.

    Its label law is that of `Mixup`, with the same arguments; the UFM sees nothing else of it. lambda is the fraction
    of the area that is kept.

    Notes
    -----
    The law is exact if the area is drawn from Beta(alpha, alpha), as published. An implementation that clips the box at
    the border of the image shifts lambda slightly.

    References
    ----------
    Yun et al., "CutMix: regularization strategy to train strong classifiers", ICCV 2019.
    """


@dataclass(frozen=True)
class Unmixed:
    """No mixing: the label is e_y.

    Attributes
    ----------
    num_classes : int
        Number of classes K >= 2.
    priors : tuple of float, length K, or None
        Class probabilities; uniform by default.

    Raises
    ------
    ValueError
        For K < 2, or priors that are not K positive numbers summing to one.

    Examples
    --------
    >>> import ufm
    >>> ufm.Unmixed(3).targets().labels.tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """

    num_classes: int
    priors: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        """Check both fields."""
        K = check_integer("num_classes", self.num_classes, minimum=2)
        object.__setattr__(self, "priors", _priors(self.priors, K))

    def targets(self, nodes: int = 1) -> Targets:
        """Return one target per class; `nodes` has no effect, because there is no lambda."""
        K = self.num_classes
        check_size("num_classes", K**2)
        same, one = torch.arange(K), torch.ones(K, dtype=torch.float64)
        pi = one / K if self.priors is None else torch.tensor(self.priors, dtype=torch.float64)
        return Targets(torch.eye(K, dtype=torch.float64), pi, same, same.clone(), one)

    def pair_targets(self, nodes: int = 1) -> PairTargets:
        """Return the same targets stored as classes and coefficients."""
        written = self.targets()
        same = torch.arange(self.num_classes)
        return PairTargets(self.num_classes, same, same, torch.ones_like(written.weights), written.weights)

    def orbits(self, nodes: int | None = 1, *, level: int = 0) -> Orbits:
        """Return the single orbit of the unmixed label; `nodes` and `level` have no effect."""
        _refuse_priors(self.priors)
        levels = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
        counts = torch.tensor([[1.0, self.num_classes - 1.0]], dtype=torch.float64)
        return Orbits(self.num_classes, levels, counts, torch.ones(1, dtype=torch.float64))


@dataclass(frozen=True)
class _SmoothedLaw:
    """The fields of `LabelSmoothing` as they are stored; the public class converts a number of classes to a law."""

    law: Law
    smoothing: float


@dataclass(frozen=True, init=False)
class LabelSmoothing(_SmoothedLaw):
    """Label smoothing on top of another law: y -> (1 - smoothing) y + smoothing/K.

    Attributes
    ----------
    law : Law
        The law that is smoothed. A number of classes is accepted and stands for `Unmixed`.
    smoothing : float
        In [0, 1).

    Raises
    ------
    ValueError
        For a smoothing outside [0, 1), or a law that is none.

    References
    ----------
    Szegedy et al., "Rethinking the Inception architecture for computer vision", CVPR 2016.

    Examples
    --------
    >>> import ufm
    >>> ufm.LabelSmoothing(4, 0.2).targets().labels[0].round(decimals=4).tolist()
    [0.85, 0.05, 0.05, 0.05]
    """

    def __init__(self, law: Law | int, smoothing: float) -> None:
        """Convert and check both fields."""
        base = Unmixed(check_integer("law", law, minimum=2)) if isinstance(law, Integral) else check_law(law)
        super().__init__(base, smoothing)
        check_number("smoothing", smoothing, minimum=0, below=1)

    @property
    def num_classes(self) -> int:
        """The number of classes K."""
        return self.law.num_classes

    def _smooth(self, y: Tensor) -> Tensor:
        return (1 - self.smoothing) * y + self.smoothing / self.num_classes

    def targets(self, nodes: int = 16) -> Targets:
        """Return the smoothed targets of the law; class_a, class_b and lam are those of the label before smoothing."""
        base = self.law.targets(nodes)
        return Targets(self._smooth(base.labels), base.weights, base.class_a, base.class_b, base.lam)

    def pair_targets(self, nodes: int = 16) -> PairTargets:
        """Return the same targets stored as classes and coefficients; raise ValueError if the law is not of pairs."""
        if not isinstance(self.law, Mixup | Unmixed):
            raise ValueError(f"law: got {type(self.law).__name__}, expected a law of pairs")
        base = self.law.pair_targets(nodes)
        return PairTargets(base.num_classes, base.class_a, base.class_b, base.lam, base.weights, self.smoothing)

    def orbits(self, nodes: int | None = 64, *, level: int = _DEFAULT_LEVEL) -> Orbits:
        """Return the smoothed orbits of the law."""
        base = self.law.orbits(nodes, level=level)
        return Orbits(base.num_classes, self._smooth(base.levels), base.counts, base.weights)


def check_law(law: Any) -> Law:
    """Return `law`; raise TypeError, naming it, for anything that is no law."""
    check_kind("law", law, Law, "a law such as Mixup(10)")
    return law


def _partitions(total: int, largest: int) -> Iterator[tuple[int, ...]]:
    """Yield the partitions of `total` into positive integers of at most `largest`, in falling order."""
    if total == 0:
        yield ()
    for size in range(min(total, largest), 0, -1):
        for rest in _partitions(total - size, size):
            yield (size, *rest)


def _priors(priors: Any, num_classes: int) -> tuple[float, ...] | None:
    """Return class probabilities, checked."""
    if priors is None:
        return None
    values = to_tensor("priors", priors, ndim=1)
    if len(values) != num_classes or not bool((values > 0).all()) or abs(values.sum().item() - 1) > 1e-9:
        raise ValueError(f"priors: got {priors}, expected {num_classes} positive probabilities summing to 1")
    return tuple(values.tolist())


def _refuse_priors(priors: tuple[float, ...] | None) -> None:
    if priors is not None and max(priors) - min(priors) > 1e-12:
        raise ValueError(
            "priors: got unequal class probabilities, expected none for a closed form, which needs a law that no "
            "permutation of the classes changes: solve UFM(law.targets(), ...) instead"
        )
