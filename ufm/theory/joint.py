"""The joint optimum over classifier and features for symmetric laws, and its inverse problems.

Penalties are in the expectation convention throughout:

    F(W, H) = sum_j pi_j [ loss(W h_j, y_j) + (lambda_H/2) ||h_j||^2 ] + (lambda_W/2) ||W||_F^2.

A feature penalty lambda' of the other convention, (1/N) sum loss + (lambda'/2) ||H||_F^2, is lambda_H = N lambda'.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from scipy import optimize
from torch import Tensor

from ufm._support.arrays import Array, check_integer, check_number, in_kind, to_tensor
from ufm.labels.laws import Law
from ufm.labels.targets import Orbits
from ufm.losses import Loss, get_loss
from ufm.theory.etf import simplex_etf
from ufm.theory.features import Response, fixed_classifier

Scalar = float | Float[Tensor, ""]

# Levels of the continuous rule: the step is halved until nothing changes by more than the tolerance.
_LEVELS = range(4, 10)
_QUADRATURE_TOLERANCE = 1e-12
_MAX_ROOT_STEPS = 200
_LARGEST_LOG_BETA = 690.0


@dataclass(frozen=True)
class JointOptimum:
    """The global optimum over classifier and features for a symmetric law, d >= K-1: a simplex ETF.

    weight_decay, feature_decay: lambda_W, lambda_H in the expectation convention. beta: m^2 K / ((K-1) lambda_H), 0
    when collapsed. multiplier: m. objective: F*. threshold: the value of lambda_W lambda_H from which on the optimum is
    zero. collapsed: whether it is. quadrature_error: estimate of the largest relative error of beta, multiplier and
    objective from averaging over a continuous law; 0 for a discrete one.

    beta, multiplier and objective are tensors, and differentiable, if a penalty was given as one.
    """

    num_classes: int
    weight_decay: Scalar
    feature_decay: Scalar
    loss: str
    beta: Scalar
    multiplier: Scalar
    objective: Scalar
    threshold: float
    collapsed: bool
    quadrature_error: float

    def classifier(self, dim: int | None = None, *, generator: torch.Generator | None = None) -> Float[Tensor, "K d"]:
        """Return one optimal classifier (K, d): a simplex ETF, rotated at random if `generator` is given."""
        return self.multiplier * simplex_etf(self.num_classes, dim, generator=generator)

    def response(self, labels: Float[Array, "N K"], dim: int | None = None) -> Response:
        """Return the optimal features for labels (N, K) and `classifier(dim)`, in the labels' kind."""
        y = to_tensor("labels", labels, ndim=2)
        return in_kind(fixed_classifier(self.classifier(dim).to(y), y, self.feature_decay, self.loss), labels)


def joint_optimum(
    law: Law,
    weight_decay: Scalar,
    feature_decay: Scalar,
    loss: str = "cross_entropy",
    *,
    nodes: int | None = None,
    samples: int | None = None,
) -> JointOptimum:
    """Return the global optimum of F(W, H) over classifier and features for a symmetric law and any d >= K-1.

    The classifier is a simplex ETF, and beta is the root of the decreasing function

        E ||y - prediction(y; beta)||^2 = (K-1) lambda_W lambda_H,     m^2 = (K-1) lambda_H beta / K.

    A non-zero optimum exists exactly if lambda_W lambda_H < E||y - 1/K||^2 / (K-1). For cross entropy the optimal
    value is the mean entropy of the predictions.

    law: e.g. `Mixup(10)`. weight_decay, feature_decay: lambda_W, lambda_H > 0; numbers, or tensors to differentiate to
    second order. nodes: None for the continuous law, by an adaptive rule; or the number of Gauss-Jacobi nodes in
    lambda, for the discrete law `law.targets(nodes)`. samples: where given, feature_decay is that of the convention
    (1/N) sum loss + (lambda'/2) ||H||_F^2 with N = samples.
    Raises ValueError for penalties that are not positive, an unknown loss, or a law that is not symmetric.

    Source: derivations/etf_is_optimal.py, joint_scalar_equation.py, threshold.py and optimal_value.py.
    """
    lambda_W = check_number("weight_decay", weight_decay, above=0)
    lambda_H = check_number("feature_decay", feature_decay, above=0)
    if samples is not None:
        scale = check_integer("samples", samples, minimum=1)
        lambda_H, feature_decay = scale * lambda_H, scale * feature_decay
    loss_function = get_loss(loss)
    K = check_integer("num_classes", law.num_classes, minimum=2)
    log_target = math.log(K - 1) + math.log(lambda_W) + math.log(lambda_H)

    def at(orbits: Orbits, start: float) -> tuple[float, float]:
        """Return (log beta, objective) for one quadrature rule; log beta is -inf for the zero solution."""
        if log_target >= math.log(_spread(orbits)):
            return -math.inf, _objective(loss_function, orbits, 0.0)
        root = _decreasing_root(lambda t: _log_excess(loss_function, orbits, t, log_target), start)
        return root, _objective(loss_function, orbits, math.exp(root))

    error = 0.0
    orbits = law.orbits(nodes, level=_LEVELS[0])
    log_beta, objective = at(orbits, 0.0)
    if nodes is None:
        for level in _LEVELS[1:]:
            previous = log_beta, objective
            finer = law.orbits(None, level=level)
            if len(finer.weights) == len(orbits.weights):
                break  # the law has no lambda to average over
            orbits = finer
            log_beta, objective = at(orbits, log_beta if log_beta > -math.inf else 0.0)
            moved = abs(log_beta - previous[0]) if log_beta != previous[0] else 0.0
            error = max(moved, abs(objective / previous[1] - 1))
            if error <= _QUADRATURE_TOLERANCE:
                break
    collapsed = log_beta == -math.inf
    beta: Scalar = 0.0 if collapsed else math.exp(log_beta)
    if isinstance(weight_decay, Tensor) or isinstance(feature_decay, Tensor):
        product = torch.as_tensor(weight_decay * feature_decay, dtype=torch.float64)
        beta, objective = _differentiable(loss_function, orbits, log_beta, product)
        multiplier: Scalar = ((K - 1) / K * feature_decay * beta).sqrt()
    else:
        multiplier = math.sqrt((K - 1) / K * lambda_H * float(beta))
    threshold = _spread(orbits) / (K - 1)
    return JointOptimum(K, weight_decay, feature_decay, loss, beta, multiplier, objective, threshold, collapsed, error)


def penalty_product(law: Law, beta: float, loss: str = "cross_entropy", *, nodes: int | None = None) -> float:
    """Return the product lambda_W lambda_H of penalties whose joint optimum has the given beta > 0.

    With it every inverse problem is solved: lambda_H = m^2 K / ((K-1) beta) for a wanted multiplier m, or either
    penalty from the other. Arguments as in `joint_optimum`; the continuous law is averaged at a fixed fine level.
    Raises ValueError for beta <= 0.
    """
    b = check_number("beta", beta, above=0)
    orbits = law.orbits(nodes, level=7)
    return math.exp(_log_excess(get_loss(loss), orbits, math.log(b), 0.0)[0]) / (orbits.num_classes - 1)


def beta_for_confidence(confidence: float, num_classes: int) -> float:
    """Return the beta at which the prediction for an unmixed label has the given probability of its class.

    With x = log((K-1) c/(1-c)) the difference of logits, K beta = x (e^x + K - 1).
    confidence: in (1/K, 1). num_classes: K >= 2. Raises ValueError for arguments out of range.
    """
    K = check_integer("num_classes", num_classes, minimum=2)
    c = check_number("confidence", confidence, above=1 / K, below=1)
    x = math.log(K - 1) + math.log(c) - math.log1p(-c)
    return x * (math.exp(x) + K - 1) / K


def beta_from_classifier(law: Law, weight_decay: float, multiplier: float, *, nodes: int | None = None) -> float:
    """Return the beta that a trained classifier's size and weight decay imply, without a look at any feature.

    Stationarity in W, traced against W, gives for cross entropy

        beta E||y - p(y; beta)||^2 = K lambda_W m^2,

    whose left side rises and then falls in beta; the larger root is returned.

    law: the law of the training labels. weight_decay: lambda_W > 0, expectation convention. multiplier: m > 0, the
    root of the mean squared row norm of the centred classifier. nodes: as in `joint_optimum`.
    Raises ValueError if K lambda_W m^2 exceeds the maximum of the left side: no optimum has such a classifier.

    Source: derivations/fit_free_beta.py.
    """
    lambda_W = check_number("weight_decay", weight_decay, above=0)
    m = check_number("multiplier", multiplier, above=0)
    orbits = law.orbits(nodes, level=6)
    loss_function = get_loss("cross_entropy")
    log_target = math.log(orbits.num_classes * lambda_W) + 2 * math.log(m)

    def excess(log_beta: float) -> tuple[float, float]:
        value, slope = _log_excess(loss_function, orbits, log_beta, log_target)
        return value + log_beta, slope + 1

    search = optimize.minimize_scalar(lambda t: -excess(t)[0], bounds=(-20.0, 20.0), method="bounded")
    peak = float(search.x)  # pyright: ignore[reportAttributeAccessIssue]
    if excess(peak)[0] < 0:
        largest = m * math.exp(excess(peak)[0] / 2)
        raise ValueError(f"multiplier: got {m:g}, expected at most {largest:g} at weight decay {lambda_W:g}")
    return math.exp(_decreasing_root(excess, peak, falling=True))


def _spread(orbits: Orbits) -> float:
    """Return E ||y - 1/K||^2."""
    return (orbits.weights @ (orbits.counts * (orbits.levels - 1 / orbits.num_classes).square()).sum(-1)).item()


def _log_excess(loss: Loss, orbits: Orbits, log_beta: float, log_target: float) -> tuple[float, float]:
    """Return log E ||y - prediction||^2 - log_target and its derivative in log beta; the residual is -z/beta."""
    beta = torch.tensor(math.exp(log_beta), dtype=torch.float64)
    z = loss.etf_logits(orbits.levels, beta, orbits.counts)
    square = (orbits.weights @ (orbits.counts * z.square()).sum(-1)).item()
    slope = (orbits.weights @ loss.etf_slope(z, beta, orbits.counts)).item()
    return math.log(square) - 2 * log_beta - log_target, slope / square - 2


def _objective(loss: Loss, orbits: Orbits, beta: float | Tensor) -> float:
    return _dual_mean(loss, orbits, beta).item()


def _dual_mean(loss: Loss, orbits: Orbits, beta: float | Tensor) -> Tensor:
    """Return the mean dual value at the residual of the optimum, which is the optimal value."""
    if isinstance(beta, float) and beta == 0:
        residual = 1 / orbits.num_classes - orbits.levels
    else:
        residual = -loss.etf_logits(orbits.levels, beta, orbits.counts) / beta
    return orbits.weights @ loss.dual(residual, orbits.levels, orbits.counts)


def _differentiable(loss: Loss, orbits: Orbits, log_beta: float, product: Tensor) -> tuple[Tensor, Tensor]:
    """Return beta and the objective as functions of lambda_W lambda_H, with the right first and second derivatives.

    Newton's method started at the root stays there, and each step that it takes doubles the number of derivatives
    in the parameters that are right: two steps give three.
    """
    if log_beta == -math.inf:
        # Both are constant in a neighbourhood; the product keeps them attached to the graph.
        zero = 0 * product
        return zero, zero + _objective(loss, orbits, 0.0)
    t = torch.tensor(log_beta, dtype=torch.float64, requires_grad=True)
    log_target = ((orbits.num_classes - 1) * product).log()
    for _ in range(2):
        z = loss.etf_logits(orbits.levels, t.exp(), orbits.counts)
        value = (orbits.weights @ (orbits.counts * z.square()).sum(-1)).log() - 2 * t - log_target
        (slope,) = torch.autograd.grad(value, t, create_graph=True)
        t = t - value / slope
    return t.exp(), _dual_mean(loss, orbits, t.exp())


def _decreasing_root(function: Callable[[float], tuple[float, float]], start: float, *, falling: bool = False) -> float:
    """Return the zero of a function (value, slope) that decreases from positive to negative, by safeguarded Newton.

    start: where to begin. falling: the function decreases only beyond `start`, and is positive there.
    """
    low, high, t = (start if falling else -math.inf), math.inf, start
    for _ in range(_MAX_ROOT_STEPS):
        value, slope = function(t)
        low, high = (t, high) if value >= 0 else (low, t)
        guess = t - value / slope if slope < 0 else math.inf
        if abs(guess - t) <= 1e-15 * max(1.0, abs(t)):
            return guess
        if not low < guess < high:
            bounded = math.isfinite(low) and math.isfinite(high)
            guess = (low + high) / 2 if bounded else t + (4.0 if value >= 0 else -4.0)
        # A long jump on a flat stretch says nothing about where the root is.
        guess = min(max(guess, t - 20.0), t + 20.0)
        if guess > _LARGEST_LOG_BETA:
            raise ValueError("weight_decay, feature_decay, multiplier: got values so small that beta overflows")
        if high - low <= 1e-15 * max(1.0, abs(t)):
            return guess
        t = guess
    return t
