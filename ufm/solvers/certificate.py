"""How far any (W, H, b) can be from the global optimum: stationarity residuals, duality gap, error bounds."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ufm._support.arrays import Array, to_tensor
from ufm.solvers.problem import UFM, Evaluation


@dataclass(frozen=True)
class Certificate:
    """What is proved about a point of a `UFM`.

    objective: F. lower_bound: a value that F cannot fall below, anywhere; minus infinity where no proof is known for
    the problem at this point ("no certificate"). gap: objective - lower_bound; zero at a global optimum, up to
    rounding, if the bound is tight there; infinite without a certificate. gradient_norm: norm of the gradient over
    classifier (unless fixed), features scaled by sqrt(pi) and bias, within their constraints. classifier_residual,
    feature_residual, bias_residual: its parts, None for what is fixed or absent. relative_gradient: gradient_norm over
    the norms of the penalties' and the loss's gradients, which cancel at a stationary point. feature_error: for a fixed
    classifier and free features without bias, a bound on max_j ||h_j - h_j*||; otherwise None. balancedness: for free
    classifier and features, ||lambda_W W^T W - lambda_H sum_j pi_j h_j h_j^T||_F over the sum of both norms, which
    vanishes at every stationary point; otherwise None.
    """

    objective: float
    lower_bound: float
    gap: float
    gradient_norm: float
    relative_gradient: float
    classifier_residual: float | None
    feature_residual: float
    bias_residual: float | None
    feature_error: float | None
    balancedness: float | None

    @property
    def relative_gap(self) -> float:
        """gap / |objective|; infinite without a certificate."""
        return self.gap / abs(self.objective)


def certify(
    problem: UFM,
    classifier: Float[Array, "K d"],
    features: Float[Array, "N d"],
    bias: Float[Array, "K"] | None = None,
) -> Certificate:
    """Return the certificate of classifier W (K, d), features H (N, d) and, where there is one, bias b (K,).

    Free classifier: with G of columns sqrt(pi_j) (prediction_j - y_j), s = ||G||_2 and
    t = min(1, sqrt(lambda_W lambda_H)/s), the point t G is feasible for the dual of the nuclear-norm relaxation, so
    F* >= sum_j pi_j dual(t (prediction_j - y_j)): for cross entropy the mean entropy of t p_j + (1-t) y_j. The bound
    holds for every d, and is tight at the optimum if d >= min(K, N). An unpenalised bias asks in addition that
    sum_j pi_j (prediction_j - y_j) = 0, to which G is corrected; a penalised one subtracts its conjugate.
    Nonnegative features: the same bound holds, and is not tight in general. A fixed norm of the features or of the
    classifier's rows enters by a Lagrange multiplier in the place of its penalty; no certificate if that is not
    positive.

    Fixed classifier: the bound is Fenchel's, target by target. Without bias and constraint the gap is exactly
    sum_j pi_j ||g_j||^2 / (2 lambda_H) with g_j = W^T (prediction_j - y_j) + lambda_H h_j, and by strong convexity
    ||h_j - h_j*|| <= ||g_j|| / lambda_H.

    Raises ValueError for arrays of the wrong shape or with NaN, a classifier other than the fixed one, or a point
    outside the constraints.
    Source: derivations/duality_gap.py, uniqueness.py and constraints.py.
    """
    w, h = to_tensor("classifier", classifier, ndim=2), to_tensor("features", features, ndim=2)
    expected = (problem.targets.num_classes, problem.dim)
    if w.shape != expected:
        raise ValueError(f"classifier: got shape {tuple(w.shape)}, expected (K, dim) = {expected}")
    if h.shape != (len(problem.targets), problem.dim):
        raise ValueError(
            f"features: got shape {tuple(h.shape)}, expected (N, dim) = {(len(problem.targets), problem.dim)}"
        )
    if (bias is not None) != problem.has_bias:
        got = "one" if bias is not None else "none"
        raise ValueError(f"bias: got {got}, expected {'one' if problem.has_bias else 'none'} as the problem has it")
    dtype = torch.promote_types(torch.promote_types(w.dtype, h.dtype), problem.targets.weights.dtype)
    w, h = w.to(dtype=dtype), h.to(w.device, dtype)
    b = None if bias is None else to_tensor("bias", bias, ndim=1).to(w)
    if b is not None and b.shape != w.shape[:1]:
        raise ValueError(f"bias: got shape {tuple(b.shape)}, expected {tuple(w.shape[:1])}")
    local = problem.to(w.device, dtype)
    if local.classifier is not None and not torch.equal(to_tensor("classifier", local.classifier), w):
        raise ValueError("classifier: got a matrix that is not the problem's fixed classifier, expected that one")
    _check_constraints(local, w, h)
    # Within the tolerance of that check, the bound would be as far off as the norms.
    if problem.row_norm is not None:
        w = w * (problem.row_norm / torch.linalg.vector_norm(w, dim=1, keepdim=True))
    if problem.feature_norm is not None:
        h = h * (problem.feature_norm / torch.linalg.vector_norm(h, dim=1, keepdim=True))
    return certify_evaluation(local, local.evaluate(w, local.targets.weights.sqrt().unsqueeze(-1) * h, b))


def _check_constraints(problem: UFM, w: Tensor, h: Tensor) -> None:
    if problem.nonnegative and bool((h < 0).any()):
        raise ValueError(f"features: got an entry {h.min().item():.3g}, expected entries >= 0")
    tolerance = torch.finfo(w.dtype).eps ** 0.5
    for name, rows, norm in (("features", h, problem.feature_norm), ("classifier", w, problem.row_norm)):
        if norm is not None:
            lengths = torch.linalg.vector_norm(rows, dim=1)
            worst = lengths[(lengths - norm).abs().argmax()].item()
            if abs(worst - norm) > tolerance * norm:
                raise ValueError(f"{name}: got a row of norm {worst:.9g}, expected {norm:g}")


def certify_evaluation(problem: UFM, evaluation: Evaluation) -> Certificate:
    """Return the certificate of a point that has been evaluated already."""
    objective = evaluation.objective.item()
    features = feature_direction(problem, evaluation.scaled_features, evaluation.feature_gradient)
    squares = features.square().sum(-1)
    parts: list[float | None] = [None, math.sqrt(squares.sum().item()), None]
    penalties = [problem.feature_decay * _norm(evaluation.scaled_features)]
    losses = [_norm(evaluation.feature_gradient - problem.feature_decay * evaluation.scaled_features)]
    if problem.classifier is None:
        parts[0] = _norm(row_direction(problem, evaluation.classifier, evaluation.classifier_gradient))
        penalties.append(problem.weight_decay * _norm(evaluation.classifier))
        losses.append(_norm(evaluation.classifier_gradient - problem.weight_decay * evaluation.classifier))
    if evaluation.bias_gradient is not None:
        parts[2] = _norm(evaluation.bias_gradient)
    gradient_norm = math.hypot(*(part for part in parts if part is not None))
    size = math.hypot(*penalties) + math.hypot(*losses)
    error, balancedness = None, None
    if problem.classifier is not None and not problem.has_bias and problem.feature_norm is None:
        gap, error = _fixed_gap(problem, evaluation, squares)
        lower_bound = objective - gap
    else:
        lower_bound = _lower_bound(problem, evaluation)
        gap = objective - lower_bound
    if problem.classifier is None and problem.free_features and problem.row_norm is None:
        balancedness = _balancedness(problem, evaluation)
    return Certificate(
        objective=objective,
        lower_bound=lower_bound,
        gap=gap,
        gradient_norm=gradient_norm,
        relative_gradient=gradient_norm / size if size else 0.0,
        classifier_residual=parts[0],
        feature_residual=parts[1] or 0.0,
        bias_residual=parts[2],
        feature_error=error,
        balancedness=balancedness,
    )


def feature_direction(problem: UFM, scaled: Tensor, gradient: Tensor) -> Tensor:
    """Return the part of the features' gradient along which the constraints allow descent."""
    if problem.nonnegative:
        return torch.where(scaled > 0, gradient, gradient.clamp(max=0))
    return gradient if problem.feature_norm is None else _tangent(scaled, gradient)


def row_direction(problem: UFM, rows: Tensor, gradient: Tensor) -> Tensor:
    """Return the part of the classifier's gradient along which the constraints allow descent."""
    return gradient if problem.row_norm is None else _tangent(rows, gradient)


def _tangent(rows: Tensor, gradient: Tensor) -> Tensor:
    unit = rows / torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    return gradient - (gradient * unit).sum(-1, keepdim=True) * unit


def _norm(x: Tensor) -> float:
    return torch.linalg.vector_norm(x).item()


def _balancedness(problem: UFM, evaluation: Evaluation) -> float:
    one = problem.weight_decay * evaluation.classifier.T @ evaluation.classifier
    other = problem.feature_decay * evaluation.scaled_features.T @ evaluation.scaled_features
    total = _norm(one) + _norm(other)
    return _norm(one - other) / total if total > 0 else 0.0


def _fixed_gap(problem: UFM, evaluation: Evaluation, squares: Tensor) -> tuple[float, float | None]:
    """Return Fenchel's gap for a fixed classifier, in a form that does not cancel, and the features' error bound."""
    if not problem.nonnegative:
        error = (squares / problem.targets.weights).max().sqrt().item() / problem.feature_decay
        return squares.sum().item() / (2 * problem.feature_decay), error
    # With u = W^T residual the best features are max(0, -u)/lambda_H, so that only -u's positive part is conjugate.
    gradient, penalty = evaluation.feature_gradient, problem.feature_decay * evaluation.scaled_features
    terms = torch.where(gradient > penalty, penalty * (2 * gradient - penalty), gradient.square())
    return terms.sum().item() / (2 * problem.feature_decay), None


def _lower_bound(problem: UFM, evaluation: Evaluation) -> float:
    """Return a lower bound on F over all classifiers and features of the problem; minus infinity if none is known."""
    root = problem.targets.weights.sqrt().unsqueeze(-1)
    g, constant = evaluation.scaled_residual, 0.0
    if not math.isfinite(evaluation.objective.item()):
        return -math.inf
    if problem.bias_decay == 0:
        if problem.loss not in _WITHOUT_MEAN:
            return -math.inf
        g = _without_mean(problem, g / root) * root
    mean = g.T @ root.squeeze(-1)
    if not bool(torch.isfinite(g).all()):
        return -math.inf
    if problem.classifier is not None:
        penalised = _fixed_conjugate(problem, g @ to_tensor("classifier", problem.classifier))
        constant = problem.weight_decay / 2 * evaluation.classifier.square().sum().item() - penalised
        t = 1.0
    else:
        decays = []
        for decay, norm, rows, gradient in (
            (problem.weight_decay, problem.row_norm, evaluation.classifier, evaluation.classifier_gradient),
            (problem.feature_decay, problem.feature_norm, evaluation.scaled_features, evaluation.feature_gradient),
        ):
            if norm is not None:
                # The multiplier that makes the gradient orthogonal to the rows, on average, takes the penalty's place.
                total = rows.square().sum().item()
                multiplier = decay - (rows * gradient).sum().item() / total
                constant += (decay - multiplier) / 2 * total
                decays.append(multiplier)
            else:
                decays.append(decay)
        if min(decays) <= 0:
            return -math.inf
        s = torch.linalg.eigvalsh(g.T @ g)[-1].clamp(min=0).sqrt().item()
        radius = math.sqrt(decays[0] * decays[1])
        t = 1.0 if s <= radius else radius / s
    if problem.bias_decay:
        constant -= (t * mean).square().sum().item() / (2 * problem.bias_decay)
    if problem.has_bias:
        constant += problem.offset * t * mean.sum().item()
    values = problem.loss_function.dual(t * g / root, problem.targets.labels)
    return (problem.targets.weights @ values).item() + constant


def _fixed_conjugate(problem: UFM, u: Tensor) -> float:
    """Return the conjugate of the features' penalty and constraint at rows u = sqrt(pi) W^T residual."""
    if problem.feature_norm is None:
        size = (u.clamp(max=0) if problem.nonnegative else u).square().sum().item()
        return size / (2 * problem.feature_decay)
    lengths = torch.linalg.vector_norm(u, dim=-1)
    linear = problem.feature_norm * (problem.targets.weights.sqrt() @ lengths).item()
    return linear - problem.feature_decay / 2 * problem.feature_norm**2


# Losses for which residuals that average to zero are known to be feasible, as an unpenalised bias asks for.
_WITHOUT_MEAN = ("cross_entropy", "mean_squared_error")


def _without_mean(problem: UFM, residual: Tensor) -> Tensor:
    """Return residuals near the given ones that average to zero and are feasible for the loss's conjugate."""
    weights, labels = problem.targets.weights, problem.targets.labels
    mean = weights @ residual
    if problem.loss == "mean_squared_error":
        return residual - mean
    # q = y + residual is mixed with the one distribution u that makes its average that of the labels.
    average = weights @ labels
    share = restoring_share(mean, average)
    if share <= 0:
        return residual
    u = average - (1 - share) / share * mean
    return (1 - share) * residual + share * (u - labels)


def restoring_share(mean: Tensor, average: Tensor) -> float:
    """Return the least share of one distribution in predictions that takes the mean residual (K,) out of them.

    average (K,): that of the labels. Source: derivations/constraints.py.
    """
    return torch.where(mean > 0, mean / (average + mean), 0.0).max().item()
