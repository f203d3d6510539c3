"""Newton's method on the UFM with its features eliminated: a trust region around the classifier and the bias."""

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ufm.solvers.certificate import Certificate, certify_evaluation
from ufm.solvers.merging import merge_equal_labels
from ufm.solvers.method import Point, SolveOptions
from ufm.solvers.problem import UFM
from ufm.solvers.reduced import Reduced, Reduction

# The smallest subset has at least so many targets per class, and each is so many times smaller than the next.
_SUBSET_PER_CLASS, _SUBSET_FACTOR = 10, 8
# A subset's solve ends when the gradient is this fraction of the classifier's penalty's.
_SUBSET_ACCURACY = 0.03
_MAX_CONJUGATE_STEPS = 200
# Norm of the features' gradient that is allowed at the start.
_FIRST_TOLERANCE = 1e-4
# Balancing goes on while a step leaves no more than this fraction of the imbalance.
_BALANCING_PROGRESS = 0.6
# Curvature that counts as zero, relative to that of the classifier's penalty.
_FLAT = 1e-9
# The first trust region, relative to the classifier.
_FIRST_RADIUS = 0.08


@dataclass(frozen=True)
class Newton:
    """Newton's method with the features eliminated.

    It needs features and rows without constraint, and is the one method that can stream its targets and run on several
    processes.

    Attributes
    ----------
    subsets : bool
        Whether the first iterations of a solve from a random start, with many targets, use nested random subsets of
        them. Iterations on subsets are not counted.

    Notes
    -----
    For given classifier and bias every target's best features are found by a batched Newton method (`elimination`).
    What remains is a function of the classifier (through its Gram matrix) and the bias. It is minimised by a
    trust-region Newton method whose steps are found by conjugate gradients. Equal labels are merged: their best
    features are equal.

    References
    ----------
    derivations/elimination.py; T. Steihaug, "The conjugate gradient method and trust regions in large scale
    optimization", SIAM J. Numer. Anal. 20 (1983).
    """

    name = "newton"
    fixed = False
    # Classifier and bias determine the features.
    needs_features = False

    subsets: bool = True

    def check(self, problem: UFM, options: SolveOptions) -> None:
        """Raise ValueError for constraints, which the elimination of the features excludes."""
        for field in ("nonnegative", "feature_norm", "row_norm"):
            if getattr(problem, field):
                raise ValueError(
                    f"{field}: got {getattr(problem, field)!r} with the method 'newton', which needs features and rows "
                    "without constraint; expected another method, e.g. 'lbfgs'"
                )

    def iterate(self, problem: UFM, start: Point, options: SolveOptions) -> Iterator["Eliminated"]:
        """Yield the iterates from the start's classifier and bias; its features are not needed."""
        store = not options.stream
        merged, inverse = (problem, None) if options.distributed else merge_equal_labels(problem)
        variables = _Variables(merged, start)
        x = variables.start
        whole = Reduced(merged, store=store, distributed=options.distributed)
        from_scratch = self.subsets and variables.movable and options.max_iter > 0 and not options.given
        try:
            for level in _subsets(merged, store, options) if from_scratch else []:
                for iterate in _minimise(level, variables, x, options.tol):
                    x = iterate.x
                    if iterate.gradient_norm <= _SUBSET_ACCURACY * iterate.penalty_gradient:
                        break
        except KeyboardInterrupt as interrupt:
            try:
                yield variables.evaluate(whole, x, _FIRST_TOLERANCE).of(problem, inverse, options)
            except GeneratorExit:
                # Whoever is content with that point must still learn of the interrupt.
                raise interrupt from None
            raise
        for iterate in _minimise(whole, variables, x, options.tol, given=options.given):
            yield iterate.of(problem, inverse, options)


@dataclass(frozen=True)
class Eliminated:
    """An iterate: the packed classifier and bias, and the reduced function there.

    Attributes
    ----------
    reduced : Reduced
        The reduced function.
    variables : _Variables
        How classifier and bias are packed.
    x : (K, k + 1) tensor
        The packed classifier and bias.
    reduction : Reduction
        Value, moments and responses at x.
    gradient : (K, k + 1) tensor
        The gradient in x.
    objective : float
        F.
    whole : tuple, optional
        The problem before equal labels were merged, the merged row of each target, and the options of the solve.
    """

    reduced: Reduced
    variables: "_Variables"
    x: Tensor
    reduction: Reduction
    gradient: Tensor
    objective: float
    whole: tuple[UFM, Tensor | None, SolveOptions] | None = None

    def of(self, problem: UFM, inverse: Tensor | None, options: SolveOptions) -> "Eliminated":
        """Return the iterate as one of the problem before equal labels were merged."""
        return dataclasses.replace(self, whole=(problem, inverse, options))

    @property
    def gradient_norm(self) -> float:
        """The norm of the gradient."""
        return math.hypot(torch.linalg.vector_norm(self.gradient).item(), self.reduction.feature_residual)

    @property
    def penalty_gradient(self) -> float:
        """The norm of the classifier's penalty's gradient."""
        return self.reduced.problem.weight_decay * torch.linalg.vector_norm(self.variables.factor(self.x)).item()

    def balance(self) -> float:
        """Return the classifier's gradient relative to its penalty's: how far it is from balance with the features."""
        penalty = self.penalty_gradient
        rows, _ = self.variables.split(self.gradient)
        return torch.linalg.vector_norm(rows).item() / penalty if penalty > 0 else 0.0

    @cached_property
    def _features(self) -> Tensor | None:
        """The features of every target (N, d), where they are stored."""
        assert self.whole is not None
        _, inverse, options = self.whole
        if self.reduction.duals is None or options.distributed:
            return None
        dual = torch.cat([block.dual for block in self.reduction.duals])
        features = dual @ self.variables.classifier(self.x)
        return features if inverse is None else features[inverse]

    def point(self) -> Point:
        """Return the unknowns; the features None where they are not stored."""
        return Point(self.variables.classifier(self.x), self._features, self.variables.bias(self.x))

    def certificate(self) -> Certificate:
        """Return what is proved about the point."""
        assert self.whole is not None
        problem, _, _ = self.whole
        w, features, bias = self.variables.classifier(self.x), self._features, self.variables.bias(self.x)
        if features is not None:
            scaled = problem.targets.weights.sqrt().unsqueeze(-1) * features
            return certify_evaluation(problem, problem.evaluate(w, scaled, bias))
        return self._streamed_certificate(problem)

    def _streamed_certificate(self, problem: UFM) -> Certificate:
        bound = self.reduced.bound(self.reduction)
        columns = self.variables.split(self.gradient)
        rows = None if problem.classifier is not None else torch.linalg.vector_norm(columns[0]).item()
        bias = torch.linalg.vector_norm(columns[1]).item() if problem.has_bias else None
        size = 2 * math.hypot(self.penalty_gradient, self._feature_penalty())
        return Certificate(
            objective=self.objective,
            lower_bound=bound,
            gap=self.objective - bound,
            gradient_norm=self.gradient_norm,
            relative_gradient=self.gradient_norm / size if size else 0.0,
            classifier_residual=rows,
            feature_residual=self.reduction.feature_residual,
            bias_residual=bias,
            feature_error=None,
            balancedness=None,
        )

    def _feature_penalty(self) -> float:
        moment, gram = self.reduction.second_moment, self.reduction.gram
        return gram.feature_decay * math.sqrt(max((moment * gram.matrix).sum().item(), 0.0))


class _Variables:
    """Classifier and bias as one matrix [L b] (K, k + 1), with W = L Q and Q (k, d) of orthonormal rows.

    The rows of the gradient in W lie in W's row space, which therefore stays that of the start.
    """

    def __init__(self, problem: UFM, start: Point) -> None:
        self.problem = problem
        w = start.classifier
        K, d = w.shape
        if d > K:
            q, r = torch.linalg.qr(w.T)
            self.basis, factor = q.T, r.T
        else:
            self.basis, factor = None, w
        bias = w.new_zeros(K) if start.bias is None else start.bias
        self.start = torch.cat([factor, bias.unsqueeze(-1)], 1)
        self.fixed = None if problem.classifier is None else w
        self.mask = torch.ones_like(self.start)
        self.mask[:, :-1] *= problem.classifier is None
        self.mask[:, -1] *= problem.has_bias
        self.movable = problem.classifier is None or problem.has_bias

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x[:, :-1], x[:, -1]

    def factor(self, x: Tensor) -> Tensor:
        return x[:, :-1]

    def bias(self, x: Tensor) -> Tensor | None:
        return x[:, -1].clone() if self.problem.has_bias else None

    def classifier(self, x: Tensor) -> Tensor:
        if self.fixed is not None:
            return self.fixed
        return self.factor(x).clone() if self.basis is None else self.factor(x) @ self.basis

    def penalty(self, x: Tensor) -> float:
        factor, bias = self.split(x)
        problem = self.problem
        value = problem.weight_decay * factor.square().sum() + (problem.bias_decay or 0.0) * bias.square().sum()
        return value.item() / 2

    def evaluate(self, reduced: Reduced, x: Tensor, tolerance: float, near: Reduction | None = None) -> Eliminated:
        x = reduced.agreed(x)
        factor, bias = self.split(x)
        at = reduced.evaluate(reduced.gram(factor, self.bias(x)), tolerance, None if near is None else near.duals)
        problem = self.problem
        rows = problem.weight_decay * factor - problem.feature_decay * at.second_moment @ factor
        column = (problem.bias_decay or 0.0) * bias - problem.feature_decay * at.mean
        gradient = self._join(rows, column)
        return Eliminated(reduced, self, x, at, gradient, at.value + self.penalty(x))

    def balanced(self, at: Eliminated) -> Eliminated:
        """Return the state at the best factorisation W H of the same logits, its features optimal again.

        For logits Z = W H that is M = sqrt(lambda_H/lambda_W) (E z z^T)^(1/2), and E z z^T = M E[a a^T] M. Where the
        features were optimal the objective cannot rise.
        """
        problem, reduction = self.problem, at.reduction
        matrix = reduction.gram.matrix
        covariance = matrix @ reduction.second_moment @ matrix
        squares, vectors = torch.linalg.eigh((covariance + covariance.T) / 2)
        values = math.sqrt(problem.feature_decay / problem.weight_decay) * squares.clamp(min=0).sqrt()
        rank = self.start.shape[1] - 1
        factor = (vectors * values.sqrt())[:, -rank:]
        inverse = torch.where(values > values[-1] * torch.finfo(values.dtype).eps ** 0.5, 1 / values, 0.0)
        # Duals that leave the logits as they are.
        change = matrix @ (vectors * inverse) @ vectors.T
        near = None
        if reduction.duals is not None:
            moved = [dataclasses.replace(block, dual=block.dual @ change) for block in reduction.duals]
            near = dataclasses.replace(reduction, duals=moved)
        tolerance = 1e-2 * max(at.gradient_norm, 1e-300)
        return self.evaluate(at.reduced, torch.cat([factor, at.x[:, -1:]], 1), tolerance, near)

    def _join(self, rows: Tensor, column: Tensor) -> Tensor:
        """Return a gradient from its parts, without what is fixed and what is zero but for rounding."""
        if self.problem.bias_decay == 0 and self.problem.loss_function.shift_invariant:
            column = column - column.mean()
        return self.mask * torch.cat([rows, column.unsqueeze(-1)], 1)

    def product(self, at: Eliminated, direction: Tensor, tolerance: float) -> Tensor:
        """Return the reduced function's Hessian times a direction, the targets' linear responses to `tolerance`."""
        problem, (factor, _) = self.problem, self.split(at.x)
        rows, column = self.split(direction)
        change = rows @ factor.T
        moment, mean = at.reduced.product(at.reduction, change + change.T, column, tolerance)
        decay = problem.feature_decay
        out_rows = problem.weight_decay * rows - decay * (moment @ factor + at.reduction.second_moment @ rows)
        out_column = (problem.bias_decay or 0.0) * column - decay * mean
        return self._join(out_rows, out_column)


def _minimise(
    reduced: Reduced, variables: _Variables, x: Tensor, tol: float, *, given: bool = False
) -> Iterator[Eliminated]:
    """Yield the iterates on one set of targets, from a start that is `given` near the optimum or drawn."""
    state = variables.evaluate(reduced, x, _FIRST_TOLERANCE if variables.movable and not given else 0.1 * tol)
    if variables.problem.classifier is None:
        before, now = math.inf, state.balance()
        while now < _BALANCING_PROGRESS * before:
            yield state
            state = variables.balanced(state)
            before, now = now, state.balance()
    if variables.movable:
        yield from _trust_region(variables, state, tol)
    else:
        yield state


def _trust_region(variables: _Variables, state: Eliminated, tol: float) -> Iterator[Eliminated]:
    """Yield the iterates of the trust-region method; end where no step improves any more.

    Each step minimises the quadratic model of the reduced function within a ball around the classifier and the bias.
    The ratio of the true decrease to the model's decides whether the step is taken and how the ball's radius changes.
    """
    reduced = state.reduced
    radius = _FIRST_RADIUS * max(torch.linalg.vector_norm(state.x).item(), 1.0)
    failures = 0
    while True:
        yield state
        if not math.isfinite(state.objective):
            return
        step, predicted, at_edge = _step(variables, state, radius)
        length = torch.linalg.vector_norm(step).item()
        if length == 0 or not math.isfinite(length):
            return
        norm = state.gradient_norm
        # Near the optimum the gradient falls quadratically, and the features' part of it has to keep up.
        tolerance = max(min(1e-2 * norm, 0.1 * norm**2), 0.1 * tol)
        trial = variables.evaluate(reduced, state.x + step, tolerance, state.reduction)
        rounding = 5e3 * torch.finfo(state.x.dtype).eps * abs(state.objective)
        if predicted > rounding:
            ratio = (state.objective - trial.objective) / predicted
        elif predicted < -rounding:
            # The Hessian's products were too inexact for the model to descend; a shorter step needs fewer of them.
            ratio = -1.0
        else:
            # Differences of the objective are rounding here: the gradient's norm decides.
            ratio = 1.0 if trial.gradient_norm < 0.9 * norm else -1.0
            failures += ratio < 0
        if not ratio >= 0.25:
            radius = 0.25 * length
        elif ratio > 0.75 and at_edge:
            radius *= 2
        if ratio > 0.05:
            state = trial
        if failures >= 2 or radius < 1e-14 * torch.linalg.vector_norm(state.x).item():
            return


def _step(variables: _Variables, state: Eliminated, radius: float) -> tuple[Tensor, float, bool]:
    """Return Steihaug's step within the radius, the decrease that it predicts, and whether it ends at the edge.

    Conjugate gradients lower the model and move away from the centre with every iteration. So they can be stopped where
    they leave the ball, or where the curvature is negative and the model falls all the way to the edge.
    """
    gradient = state.gradient
    norm = torch.linalg.vector_norm(gradient).item()
    step, image = torch.zeros_like(gradient), torch.zeros_like(gradient)
    residual, direction, square = -gradient, -gradient, norm**2
    at_edge = False
    # Exact steps pay only near the optimum; a forcing term of this size makes the convergence superlinear.
    forcing = min(0.3, max(math.sqrt(norm), 1e-6))
    for _ in range(_MAX_CONJUGATE_STEPS):
        if math.sqrt(square) <= forcing * norm:
            break
        product = variables.product(state, direction, 0.1 * forcing)
        figures = [direction * product, direction * direction, step * direction, step * step]
        curvature, pp, sp, ss = torch.stack([figure.sum() for figure in figures]).tolist()
        # Rotations of classifier and features together change nothing: rounding must not send the step along them.
        if abs(curvature) <= _FLAT * variables.problem.weight_decay * pp:
            break
        length = square / curvature if curvature > 0 else math.inf
        if not ss + 2 * length * sp + length**2 * pp < radius**2:
            # The positive root of ||step + length direction|| = radius.
            at_edge = True
            length = (-sp + math.sqrt(max(sp * sp + pp * (radius**2 - ss), 0.0))) / pp
        step = step + length * direction
        image = image + length * product
        if at_edge:
            break
        residual = residual - length * product
        new = residual.square().sum().item()
        direction = residual + new / square * direction
        square = new
    predicted = -((gradient + 0.5 * image) * step).sum().item()
    return step, predicted, at_edge


def _subsets(problem: UFM, store: bool, options: SolveOptions) -> list[Reduced]:
    """Return the reduced functions of nested random subsets, the smallest first."""
    targets = problem.targets
    smallest = _SUBSET_PER_CLASS * targets.num_classes
    sizes = []
    size = len(targets) // _SUBSET_FACTOR
    while size >= smallest:
        sizes.append(size)
        size //= _SUBSET_FACTOR
    if not sizes:
        return []
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(options.seed))
    order = order[: sizes[0]].to(targets.weights.device)
    return [Reduced(problem, store=store, distributed=options.distributed, rows=order[:n]) for n in reversed(sizes)]
