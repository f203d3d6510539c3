"""What `solve` asks of a method, and what a method gets and gives back."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from ufm._support.arrays import check_size
from ufm.solvers.certificate import Certificate
from ufm.solvers.problem import UFM


@dataclass(frozen=True)
class Point:
    """The unknowns of a `UFM`.

    Attributes
    ----------
    classifier : (K, d) tensor
        W.
    features : (N, d) tensor, optional
        H; None where the features are not stored.
    bias : (K,) tensor, optional
        b; None where the problem has no bias.
    """

    classifier: Float[Tensor, "K d"]
    features: Float[Tensor, "N d"] | None = None
    bias: Float[Tensor, "K"] | None = None


@runtime_checkable
class Iterate(Protocol):
    """One iterate of a method."""

    @property
    def objective(self) -> float:
        """The objective."""
        ...

    @property
    def gradient_norm(self) -> float:
        """The norm of the gradient, as in `Certificate`."""
        ...

    def point(self) -> Point:
        """Return the unknowns."""
        ...

    def certificate(self) -> Certificate:
        """Return what is proved about the point."""
        ...


@dataclass(frozen=True)
class SolveOptions:
    """How `solve` wants a method to run.

    Attributes
    ----------
    max_iter : int
        Limit on iterations.
    seed : int
        Of everything random after the start.
    tol : float
        Tolerance on the gradient norm.
    stream : bool
        Whether to hold one block of targets at a time.
    distributed : bool
        Whether each process holds its share of the targets.
    given : bool
        Whether the start is the user's, and so may be near the optimum already.
    """

    max_iter: int
    seed: int
    tol: float
    stream: bool = False
    distributed: bool = False
    given: bool = False


@runtime_checkable
class Method(Protocol):
    """A method of `solve`, with its settings.

    `FirstOrder` is the base class of a method that descends in all unknowns at once: it supplies everything but the
    name and the iteration itself.
    """

    @property
    def name(self) -> str:
        """What the method is called."""
        ...

    @property
    def fixed(self) -> bool:
        """Whether the steps do not depend on objective and gradient norm, which then need not be read every time."""
        ...

    @property
    def needs_features(self) -> bool:
        """Whether the start has to hold features."""
        ...

    def check(self, problem: UFM, options: SolveOptions) -> None:
        """Raise ValueError for a problem or options that the method does not support."""
        ...

    def iterate(self, problem: UFM, start: Point, options: SolveOptions) -> Iterator[Iterate]:
        """Yield the iterates from `start`."""
        ...


def random_start(problem: UFM, seed: int, *, features: bool) -> Point:
    """Return the Gaussian start of a seed.

    It is drawn on the CPU in float64, classifier first, so that a seed means the same start on every device, in every
    dtype and for every method; then it is moved into the constraints.

    Parameters
    ----------
    problem : UFM
        The problem.
    seed : int
        Of the generator.
    features : bool
        Whether to draw features too.

    Returns
    -------
    Point
        Classifier entries of variance 1/d, feature entries of variance 1, bias 0.
    """
    like = problem.targets.weights
    K, d = problem.targets.num_classes, problem.dim
    generator = torch.Generator().manual_seed(seed)
    w, h = problem.classifier, None
    if w is None:
        w = (torch.randn(K, d, generator=generator, dtype=torch.float64) / d**0.5).to(like)
    if features:
        check_size("dim", len(problem.targets) * d)
        h = torch.randn(len(problem.targets), d, generator=generator, dtype=torch.float64).to(like)
    bias = like.new_zeros(K) if problem.has_bias else None
    return constrained(problem, Point(torch.as_tensor(w), h, bias))


def constrained(problem: UFM, point: Point) -> Point:
    """Return the point moved into the problem's constraints."""
    w, h = point.classifier, point.features
    if problem.row_norm is not None:
        w = problem.row_norm * torch.nn.functional.normalize(w, dim=1, eps=1e-300)
    if h is not None and problem.feature_norm is not None:
        h = problem.feature_norm * torch.nn.functional.normalize(h, dim=1, eps=1e-300)
    if h is not None and problem.nonnegative:
        h = h.clamp(min=0)
    return Point(w, h, point.bias)
