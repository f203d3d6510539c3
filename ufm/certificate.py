"""How far any (W, H) can be from the global optimum: stationarity residuals, duality gap, error bounds."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float

from ufm.arrays import Array, to_tensor
from ufm.problem import UFM, Evaluation


@dataclass(frozen=True)
class Certificate:
    """What is proved about a point of a `UFM`.

    objective: F. lower_bound: a value that F cannot fall below, anywhere. gap: objective - lower_bound; zero at a
    global optimum, up to rounding. gradient_norm: norm of the gradient over classifier and features scaled by
    sqrt(pi) (features only, if the classifier is fixed). classifier_residual, feature_residual: its two parts.
    feature_error: for a fixed classifier, a bound on max_j ||h_j - h_j*||; otherwise None. balancedness: for a free
    classifier, ||lambda_W W^T W - lambda_H sum_j pi_j h_j h_j^T||_F over the sum of both norms, which vanishes at every
    stationary point (and is None, like the classifier's residual, for a fixed one).
    """

    objective: float
    lower_bound: float
    gap: float
    gradient_norm: float
    classifier_residual: float | None
    feature_residual: float
    feature_error: float | None
    balancedness: float | None


def certify(problem: UFM, classifier: Float[Array, "K d"], features: Float[Array, "N d"]) -> Certificate:
    """Return the certificate of classifier W (K, d) and features H (N, d) for `problem`.

    Free classifier: with G of columns sqrt(pi_j) (prediction_j - y_j), s = ||G||_2 and
    t = min(1, sqrt(lambda_W lambda_H)/s), the point t G is feasible for the dual of the nuclear-norm relaxation, so
    F* >= sum_j pi_j dual(t (prediction_j - y_j)): for cross entropy the mean entropy of t p_j + (1-t) y_j. The bound
    holds for every d, and is tight at the optimum if d >= min(K, N).

    Fixed classifier: with g_j = W^T (prediction_j - y_j) + lambda_H h_j the Fenchel gap is exactly
    sum_j pi_j ||g_j||^2 / (2 lambda_H), and ||h_j - h_j*|| <= ||g_j|| / lambda_H by strong convexity.

    Raises ValueError for arrays of the wrong shape or with NaN, or a classifier other than the fixed one.
    Source: derivations/duality_gap.py and uniqueness.py.
    """
    w, h = to_tensor("classifier", classifier, ndim=2), to_tensor("features", features, ndim=2)
    expected = (problem.targets.num_classes, problem.dim)
    if w.shape != expected:
        raise ValueError(f"classifier: got shape {tuple(w.shape)}, expected (K, dim) = {expected}")
    if h.shape != (len(problem.targets), problem.dim):
        raise ValueError(
            f"features: got shape {tuple(h.shape)}, expected (N, dim) = {(len(problem.targets), problem.dim)}"
        )
    dtype = torch.promote_types(torch.promote_types(w.dtype, h.dtype), problem.targets.labels.dtype)
    w, h = w.to(dtype=dtype), h.to(w.device, dtype)
    local = problem.to(w.device, dtype)
    if local.classifier is not None and not torch.equal(to_tensor("classifier", local.classifier), w):
        raise ValueError("classifier: got a matrix that is not the problem's fixed classifier, expected that one")
    return certify_evaluation(local, local.evaluate(w, local.targets.weights.sqrt().unsqueeze(-1) * h))


def certify_evaluation(problem: UFM, evaluation: Evaluation) -> Certificate:
    """Return the certificate of a point that has been evaluated already."""
    objective = evaluation.objective.item()
    squares = evaluation.feature_gradient.square().sum(-1)
    feature_residual = math.sqrt(squares.sum().item())
    if problem.classifier is not None:
        gap = feature_residual**2 / (2 * problem.feature_decay)
        error = (squares / problem.targets.weights).max().sqrt().item() / problem.feature_decay
        return Certificate(objective, objective - gap, gap, feature_residual, None, feature_residual, error, None)
    classifier_residual = torch.linalg.matrix_norm(evaluation.classifier_gradient).item()
    lower_bound = _relaxation_bound(problem, evaluation)
    return Certificate(
        objective=objective,
        lower_bound=lower_bound,
        gap=objective - lower_bound,
        gradient_norm=math.hypot(classifier_residual, feature_residual),
        classifier_residual=classifier_residual,
        feature_residual=feature_residual,
        feature_error=None,
        balancedness=_balancedness(problem, evaluation),
    )


def _balancedness(problem: UFM, evaluation: Evaluation) -> float:
    one = problem.weight_decay * evaluation.classifier.T @ evaluation.classifier
    other = problem.feature_decay * evaluation.scaled_features.T @ evaluation.scaled_features
    total = (torch.linalg.matrix_norm(one) + torch.linalg.matrix_norm(other)).item()
    return torch.linalg.matrix_norm(one - other).item() / total if total > 0 else 0.0


def _relaxation_bound(problem: UFM, evaluation: Evaluation) -> float:
    g = evaluation.scaled_residual
    s = torch.linalg.eigvalsh(g.T @ g)[-1].clamp(min=0).sqrt().item()
    radius = math.sqrt(problem.weight_decay * problem.feature_decay)
    t = 1.0 if s <= radius else radius / s
    weights = problem.targets.weights
    residual = t * g / weights.sqrt().unsqueeze(-1)
    return (weights @ problem.loss_function.dual(residual, problem.targets.labels)).item()
