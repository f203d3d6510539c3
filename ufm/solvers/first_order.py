"""The UFM as a function of all unknowns at once, for the methods that descend in it."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from ufm.solvers.certificate import Certificate, certify_evaluation, feature_direction, row_direction
from ufm.solvers.descent import Objective, State, States
from ufm.solvers.method import Point, SolveOptions
from ufm.solvers.problem import UFM, Evaluation


class FirstOrder:
    """A method that needs the objective and its gradient only: every problem is supported, streaming is not.

    A subclass is a method once it has a `name` and `states`.

    Attributes
    ----------
    name : str
        What the method is called.
    batch_size : int, optional
        Number of targets in a batch, for methods that use batches.
    """

    name: str
    batch_size: int | None = None
    needs_features = True

    @property
    def fixed(self) -> bool:
        """Whether the steps are given beforehand."""
        return False

    def states(self, objective: Objective, start: Tensor, max_iter: int) -> States:
        """Yield the iterates of the method on `objective`, the start first; end where no step lowers it any more."""
        raise NotImplementedError

    def check(self, problem: UFM, options: SolveOptions) -> None:
        """Raise ValueError for options that need the features eliminated."""
        for word in ("stream", "distributed"):
            if getattr(options, word):
                raise ValueError(
                    f"{word}: got True with the method {self.name!r}, which stores every target's features; "
                    "expected the method 'newton'"
                )

    def iterate(self, problem: UFM, start: Point, options: SolveOptions) -> Iterator["Descent"]:
        """Yield the iterates from `start`."""
        variables = Variables(problem, self.batch_size, options.seed)
        for state in self.states(variables, variables.pack(start), options.max_iter):
            yield Descent(variables, state)


@dataclass(frozen=True)
class Descent:
    """An iterate of a method that descends in all unknowns."""

    variables: "Variables"
    state: State

    @property
    def objective(self) -> float:
        """The objective."""
        return self.state.objective

    @property
    def gradient_norm(self) -> float:
        """The norm of the gradient within the constraints."""
        return self.state.gradient_norm

    @cached_property
    def _evaluation(self) -> Evaluation:
        return self.variables.evaluation(self.state.point)

    def point(self) -> Point:
        """Return the unknowns."""
        e = self._evaluation
        root = self.variables.root
        return Point(e.classifier.clone(), e.scaled_features / root, None if e.bias is None else e.bias.clone())

    def certificate(self) -> Certificate:
        """Return what is proved about the point."""
        return certify_evaluation(self.variables.problem, self._evaluation)


class Variables:
    """The unknowns as one vector: classifier unless fixed, features scaled by sqrt(pi), bias.

    The scaling makes the features' block as well conditioned for rare targets as for frequent ones. Rows of fixed norm
    are the directions of rows of any norm, so that methods without constraints can be used on them.
    """

    def __init__(self, problem: UFM, batch_size: int | None = None, seed: int = 0) -> None:
        """Hold the problem, and the seed that batches are drawn with."""
        self.problem, self.batch_size = problem, batch_size
        self.root = problem.targets.weights.sqrt().unsqueeze(-1)
        K, N, d = problem.targets.num_classes, len(problem.targets), problem.dim
        self.sizes = [0 if problem.classifier is not None else K * d, N * d, K if problem.has_bias else 0]
        self.generator = torch.Generator(self.root.device).manual_seed(seed)

    @property
    def batches(self) -> int:
        """The number of batches in a pass over the targets."""
        return -(-len(self.problem.targets) // (self.batch_size or len(self.problem.targets)))

    def pack(self, point: Point) -> Tensor:
        """Return the vector of a point."""
        assert point.features is not None
        rows = [] if self.problem.classifier is not None else [point.classifier.reshape(-1)]
        bias = [] if point.bias is None else [point.bias]
        return torch.cat([*rows, (self.root * point.features).reshape(-1), *bias])

    def _split(self, vector: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        rows, features, bias = vector.split(self.sizes)
        d = self.problem.dim
        w = rows.reshape(-1, d) if self.problem.classifier is None else torch.as_tensor(self.problem.classifier)
        return w, features.reshape(-1, d), bias if self.problem.has_bias else None

    def evaluation(self, vector: Tensor) -> Evaluation:
        """Return objective and gradients."""
        w, scaled, bias = self._split(vector)
        problem = self.problem
        if problem.row_norm is not None:
            w = w * (problem.row_norm / _lengths(w))
        if problem.feature_norm is not None:
            scaled = scaled * (problem.feature_norm * self.root / _lengths(scaled))
        return problem.evaluate(w, scaled, bias)

    def state(self, point: Float[Tensor, "n"]) -> State:
        """Return the state at `point`."""
        e = self.evaluation(point)
        rows = row_direction(self.problem, e.classifier, e.classifier_gradient)
        features = feature_direction(self.problem, e.scaled_features, e.feature_gradient)
        squares = features.square().sum()
        if self.problem.classifier is None:
            squares = squares + rows.square().sum()
        if e.bias_gradient is not None:
            squares = squares + e.bias_gradient.square().sum()
        # The bounds are kept by projection, so that the methods are given the gradient as it is.
        along = e.feature_gradient if self.problem.nonnegative else features
        gradient = self._chain(point, rows, along, e.bias_gradient)
        return State(point, gradient, torch.stack([e.objective, squares.sqrt()]))

    def _chain(self, point: Tensor, rows: Tensor, features: Tensor, bias: Tensor | None) -> Tensor:
        """Return the gradient in the vector from the one within the constraints."""
        w, scaled, _ = self._split(point)
        if self.problem.row_norm is not None:
            rows = rows * (self.problem.row_norm / _lengths(w))
        if self.problem.feature_norm is not None:
            features = features * (self.problem.feature_norm * self.root / _lengths(scaled))
        parts = [] if self.problem.classifier is not None else [rows.reshape(-1)]
        return torch.cat([*parts, features.reshape(-1), *([] if bias is None else [bias])])

    def project(self, point: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
        """Return the nearest point within the bounds."""
        if not self.problem.nonnegative:
            return point
        rows, features, bias = point.split(self.sizes)
        return torch.cat([rows, features.clamp(min=0), bias])

    def free(self, state: State) -> Float[Tensor, "n"] | None:
        """Return 1 for the coordinates that may move downhill and 0 for those held by their bound."""
        if not self.problem.nonnegative:
            return None
        held = (state.point <= 0) & (state.gradient >= 0)
        rows, features, bias = held.split(self.sizes)
        return 1 - torch.cat([torch.zeros_like(rows), features, torch.zeros_like(bias)]).to(state.point)

    def batch_gradient(self, point: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
        """Return the gradient, its average over targets replaced by that over a fresh batch drawn from their law."""
        assert self.batch_size is not None
        problem, weights = self.problem, self.problem.targets.weights
        drawn = torch.multinomial(weights, self.batch_size, replacement=True, generator=self.generator)
        rows = drawn.unique()
        share = torch.bincount(drawn, minlength=len(weights))[rows].to(weights) / self.batch_size
        labels, pi = problem.targets.block(rows)
        w, scaled, bias = self._split(point)
        if problem.row_norm is not None:
            w = w * (problem.row_norm / _lengths(w))
        u = scaled[rows]
        if problem.feature_norm is not None:
            u = u * (problem.feature_norm * self.root[rows] / _lengths(u))
        h = u / self.root[rows]
        z = h @ w.T
        if bias is not None:
            z = z + (bias + problem.offset)
        residual = problem.loss_function.residual(z, labels)
        row_gradient = residual.T @ (share.unsqueeze(-1) * h) + problem.weight_decay * w
        ratio = (share / pi).unsqueeze(-1)
        feature_gradient = torch.zeros_like(scaled)
        feature_gradient[rows] = ratio * self.root[rows] * (residual @ w + problem.feature_decay * h)
        bias_gradient = None if bias is None else share @ residual + (problem.bias_decay or 0.0) * bias
        row_gradient = row_direction(problem, w, row_gradient)
        if problem.feature_norm is not None:
            feature_gradient[rows] = feature_direction(problem, u, feature_gradient[rows])
        return self._chain(point, row_gradient, feature_gradient, bias_gradient)


def _lengths(rows: Tensor) -> Tensor:
    return torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
