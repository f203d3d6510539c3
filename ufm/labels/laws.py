"""Laws of the soft label: with what probability which label occurs.

Each law has two forms: `targets` writes it out, one row per label and every choice of classes; `orbits` writes one
label per orbit of the class permutations, at a cost free of the number of classes. Coefficients lambda come from
`nodes` quadrature nodes, a discrete law of its own, or in `orbits(None)` from a rule for the continuous law.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ufm._support.arrays import Array, check_choice, check_integer, check_number, to_tensor
from ufm.labels.quadrature import dirichlet_rule
from ufm.labels.targets import Orbits, PairTargets, Targets

_DEFAULT_LEVEL = 5
_PAIRS = ("all", "same", "different")


@runtime_checkable
class Law(Protocol):
    """A probability law of the soft label."""

    @property
    def num_classes(self) -> int:
        """The number of classes K."""
        ...

    def targets(self, nodes: int = 16) -> Targets:
        """Return the law with every choice of classes written out, lambda at `nodes` quadrature nodes."""
        ...

    def orbits(self, nodes: int | None = 64, *, level: int = _DEFAULT_LEVEL) -> Orbits:
        """Return the same law reduced by class symmetry; `nodes` None for the continuous law at a rule's `level`.

        Raises ValueError for a law that some permutation of the classes changes.
        """
        ...


@dataclass(frozen=True)
class Mixup:
    """Mixup: y = sum_i lambda_i e_{c_i}, classes drawn independently, lambda ~ Dirichlet(alpha, ..., alpha).

    num_classes: K >= 2. alpha: > 0; for two ways lambda ~ Beta(alpha, alpha); infinite for lambda_i = 1/ways. ways:
    how many labels are mixed, >= 2. pairs: "all"; "same" or "different" for draws conditioned on one class only, or on
    all classes being different. priors (K,): class probabilities; uniform when None. With priors the law is not
    symmetric: `targets` writes it out for the solver, and `orbits`, which the closed forms need, refuses.
    Labels of coinciding classes add up: pairs of one class give e_c whatever lambda.

    Source: Zhang, Cisse, Dauphin and Lopez-Paz, "mixup: beyond empirical risk minimization", ICLR 2018.
    """

    num_classes: int
    alpha: float = 1.0
    ways: int = 2
    pairs: str = "all"
    priors: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for arguments out of range."""
        K = check_integer("num_classes", self.num_classes, minimum=2)
        if self.alpha != math.inf:
            check_number("alpha", self.alpha, above=0)
        ways = check_integer("ways", self.ways, minimum=2)
        check_choice("pairs", self.pairs, _PAIRS)
        if self.pairs == "different" and ways > K:
            raise ValueError(f"ways: got {ways} different classes, expected at most num_classes = {K}")
        _check_priors(self.priors, K)

    def targets(self, nodes: int = 16) -> Targets:
        """Return every choice of classes at every node: for two ways K + nodes K(K-1)/2 targets.

        The nodes are Gauss-Jacobi's, which make a discrete law of its own that integrates polynomials in lambda up to
        degree 2 nodes - 1 as the continuous law does. For two ways class_a, class_b and lam are set, each pair once
        with a < b (its law is symmetric in lambda), pair by pair, lambda running fastest.
        """
        labels, weights, pairs = [], [], []
        for classes, parts, pi in self._choices(nodes):
            labels.append(parts.new_zeros(len(parts), self.num_classes).scatter_(1, classes, parts))
            weights.append(pi)
            pairs.append((classes[:, 0], classes[:, -1], parts[:, 0]))
        pi = torch.cat(weights)
        columns = (torch.cat(column) for column in zip(*pairs, strict=True)) if self.ways == 2 else (None, None, None)
        return Targets(torch.cat(labels), pi / pi.sum(), *columns)

    def pair_targets(self, nodes: int = 16) -> PairTargets:
        """Return the same targets, in the same order, as classes and coefficients; for two ways only."""
        if self.ways != 2:
            raise ValueError(f"ways: got {self.ways}, expected 2 for targets that are pairs")
        columns = [(c[:, 0], c[:, -1], parts[:, 0], pi) for c, parts, pi in self._choices(nodes)]
        a, b, lam, pi = (torch.cat(column) for column in zip(*columns, strict=True))
        return PairTargets(self.num_classes, a.int(), b.int(), lam, pi / pi.sum())

    def _choices(self, nodes: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield classes (n, blocks), their coefficients (n, blocks) and probabilities (n,), pattern by pattern."""
        K = self.num_classes
        priors = np.full(K, 1 / K) if self.priors is None else np.asarray(self.priors)
        for sizes, count in self._patterns():
            rule = dirichlet_rule(self.alpha, sizes, nodes)
            # Two blocks of equal size have a symmetric law, so that each pair is needed in one order only.
            unordered = sizes == (1, 1)
            choices = itertools.combinations(range(K), 2) if unordered else itertools.permutations(range(K), len(sizes))
            classes = torch.tensor(list(choices)).reshape(-1, len(sizes))
            probability = count * (1 + unordered) * np.prod(priors[classes.numpy()] ** np.array(sizes), axis=1)
            pi = (torch.from_numpy(probability)[:, None] * rule.weights).reshape(-1)
            yield classes.repeat_interleave(len(rule.weights), 0), rule.parts.repeat(len(classes), 1), pi

    def orbits(self, nodes: int | None = 64, *, level: int = _DEFAULT_LEVEL) -> Orbits:
        """Return one label per way in which drawn classes can coincide, and node; see `Law.orbits`."""
        _refuse_priors(self.priors)
        K = self.num_classes
        levels, counts, weights = [], [], []
        for sizes, count in self._patterns():
            rule = dirichlet_rule(self.alpha, sizes, nodes, level)
            parts, pi = rule.parts, rule.weights
            if sizes == (1, 1) and nodes is None and len(pi) % 2 == 0:
                # The rule's second half mirrors the first.
                parts, pi = parts[: len(pi) // 2], 2 * pi[: len(pi) // 2]
            # Unused columns get the level 0 and the count 0, so that all patterns have ways + 1 columns.
            blocks, unused = len(sizes), self.ways - len(sizes)
            levels.append(torch.nn.functional.pad(parts, (0, unused + 1)))
            counts.append(parts.new_tensor([1.0] * blocks + [0.0] * unused + [K - blocks]).expand_as(levels[-1]))
            weights.append(count * math.perm(K, blocks) / K**self.ways * pi)
        pi = torch.cat(weights)
        return Orbits(K, torch.cat(levels), torch.cat(counts), pi / pi.sum())

    def _patterns(self) -> Iterator[tuple[tuple[int, ...], int]]:
        """Yield (block sizes, number of set partitions of the draws with these sizes); a block is one class."""
        for sizes in _partitions(self.ways, self.ways):
            blocks = len(sizes)
            wanted = {"all": True, "same": blocks == 1, "different": blocks == self.ways}[self.pairs]
            if wanted and blocks <= self.num_classes:
                repeats = math.prod(math.factorial(sizes.count(size)) for size in set(sizes))
                ordered = math.factorial(self.ways) // math.prod(map(math.factorial, sizes))
                yield sizes, ordered // repeats


@dataclass(frozen=True)
class CutMix(Mixup):
    """CutMix: a box of one image pasted into another. Its label law is mixup's, which is all that the UFM sees.

    lambda is the area fraction that is kept. Exact as far as the area is drawn from Beta(alpha, alpha) as published;
    an implementation that clips the box at the image's border shifts lambda a little.

    Source: Yun et al., "CutMix: regularization strategy to train strong classifiers", ICCV 2019.
    """


@dataclass(frozen=True)
class Unmixed:
    """No mixing: the label is e_y. num_classes: K >= 2. priors (K,): probabilities of y; uniform when None."""

    num_classes: int
    priors: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for K < 2 or priors that are no probabilities."""
        _check_priors(self.priors, check_integer("num_classes", self.num_classes, minimum=2))

    def targets(self, nodes: int = 1) -> Targets:
        """Return one target per class; there is no lambda, so `nodes` has no effect."""
        K = self.num_classes
        same, one = torch.arange(K), torch.ones(K, dtype=torch.float64)
        pi = one / K if self.priors is None else torch.tensor(self.priors, dtype=torch.float64)
        return Targets(torch.eye(K, dtype=torch.float64), pi, same, same.clone(), one)

    def pair_targets(self, nodes: int = 1) -> PairTargets:
        """Return the same targets as classes and coefficients."""
        written = self.targets()
        same = torch.arange(self.num_classes)
        return PairTargets(self.num_classes, same, same, torch.ones_like(written.weights), written.weights)

    def orbits(self, nodes: int | None = 1, *, level: int = 0) -> Orbits:
        """Return the one orbit of the unmixed label."""
        _refuse_priors(self.priors)
        levels = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
        counts = torch.tensor([[1.0, self.num_classes - 1.0]], dtype=torch.float64)
        return Orbits(self.num_classes, levels, counts, torch.ones(1, dtype=torch.float64))


@dataclass(frozen=True)
class LabelSmoothing:
    """Label smoothing of another law: y -> (1 - smoothing) y + smoothing/K.

    law: any law, or a number of classes for `Unmixed`. smoothing: in [0, 1).
    Source: Szegedy et al., "Rethinking the Inception architecture for computer vision", CVPR 2016.
    """

    law: Law | int
    smoothing: float

    def __post_init__(self) -> None:
        """Raise ValueError for a smoothing outside [0, 1), or a law that is none."""
        if not isinstance(self.law, Law):
            object.__setattr__(self, "law", Unmixed(self.law))
        check_number("smoothing", self.smoothing, minimum=0, below=1)

    @property
    def num_classes(self) -> int:
        """The number of classes K."""
        return self._law.num_classes

    @property
    def _law(self) -> Law:
        assert isinstance(self.law, Law)
        return self.law

    def _smooth(self, y: Tensor) -> Tensor:
        return (1 - self.smoothing) * y + self.smoothing / self.num_classes

    def targets(self, nodes: int = 16) -> Targets:
        """Return the smoothed targets of the law; class_a, class_b and lam stay those of the unsmoothed label."""
        base = self._law.targets(nodes)
        return Targets(self._smooth(base.labels), base.weights, base.class_a, base.class_b, base.lam)

    def pair_targets(self, nodes: int = 16) -> PairTargets:
        """Return the same targets as classes and coefficients, for a law of pairs."""
        if not isinstance(self._law, Mixup | Unmixed):
            raise ValueError(f"law: got {type(self._law).__name__}, expected a law of pairs")
        base = self._law.pair_targets(nodes)
        return PairTargets(base.num_classes, base.class_a, base.class_b, base.lam, base.weights, self.smoothing)

    def orbits(self, nodes: int | None = 64, *, level: int = _DEFAULT_LEVEL) -> Orbits:
        """Return the smoothed orbits of the law."""
        base = self._law.orbits(nodes, level=level)
        return Orbits(base.num_classes, self._smooth(base.levels), base.counts, base.weights)


@dataclass(frozen=True, eq=False)
class CustomLaw:
    """A law of the user's own: given labels with given weights.

    labels (N, K): rows on the simplex. weights (N,): as in `Targets`. `orbits` checks that no permutation of the
    classes changes the law, up to rounding, and refuses otherwise.
    """

    labels: Float[Array, "N K"]
    weights: Float[Array, "N"] | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for labels off the simplex, or weights that are no probabilities."""
        self.targets()

    @property
    def num_classes(self) -> int:
        """The number of classes K."""
        return to_tensor("labels", self.labels, ndim=2).shape[1]

    def targets(self, nodes: int = 1) -> Targets:
        """Return the given labels; `nodes` has no effect."""
        return Targets(self.labels, self.weights)

    def orbits(self, nodes: int | None = 1, *, level: int = 0) -> Orbits:
        """Return one orbit per set of labels that are permutations of each other."""
        targets = self.targets()
        labels, weights = targets.labels.double().cpu().numpy(), targets.weights.double().cpu().numpy()
        K = labels.shape[1]
        # Exchanging two neighbouring classes generates every permutation.
        whole = _merge(labels, weights)
        for k in range(K - 1):
            order = np.arange(K)
            order[[k, k + 1]] = k + 1, k
            if not _same(whole, _merge(labels[:, order], weights)):
                raise ValueError(
                    f"labels: got a law that exchanging classes {k} and {k + 1} changes, expected a symmetric one for "
                    "a closed form: solve UFM(law.targets(), ...) instead"
                )
        levels, pi = (torch.from_numpy(array) for array in _merge(np.sort(labels, 1), weights))
        return Orbits(K, levels, torch.ones_like(levels), pi)


def _merge(labels: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct labels in a fixed order, with the sums of their weights."""
    # Rounding decides which labels count as equal; the labels themselves are not changed.
    _, first, inverse = np.unique(labels.round(12), axis=0, return_index=True, return_inverse=True)
    return labels[first], np.bincount(inverse.reshape(-1), weights)


def _same(one: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray]) -> bool:
    return one[0].shape == other[0].shape and all(
        np.allclose(a, b, rtol=0, atol=1e-11) for a, b in zip(one, other, strict=True)
    )


def _partitions(total: int, largest: int) -> Iterator[tuple[int, ...]]:
    """Yield the partitions of `total` into whole numbers of at most `largest`, in falling order."""
    if total == 0:
        yield ()
    for size in range(min(total, largest), 0, -1):
        for rest in _partitions(total - size, size):
            yield (size, *rest)


def _check_priors(priors: tuple[float, ...] | None, num_classes: int) -> None:
    if priors is None:
        return
    values = to_tensor("priors", priors, ndim=1)
    if len(values) != num_classes or not bool((values > 0).all()) or abs(values.sum().item() - 1) > 1e-9:
        raise ValueError(f"priors: got {priors}, expected {num_classes} positive probabilities summing to 1")


def _refuse_priors(priors: tuple[float, ...] | None) -> None:
    if priors is not None and max(priors) - min(priors) > 1e-12:
        raise ValueError(
            "priors: got unequal class probabilities, expected none for a closed form, which needs a law that no "
            "permutation of the classes changes: solve UFM(law.targets(), ...) instead"
        )
