"""How far any (W, H, b) can be from the global optimum: stationarity residuals, duality gap, error bounds."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ufm._support.arrays import Array, to_tensor
from ufm._support.display import Displayed, Row
from ufm.solvers.bound import dual_sums
from ufm.solvers.problem import UFM, Evaluation, check_problem


@dataclass(frozen=True, repr=False)
class Certificate(Displayed):
    """What is proved about a point of a `UFM`.

    Attributes
    ----------
    objective : float
        F at the point, up to rounding.
    lower_bound : float
        A value that F cannot fall below, anywhere: proved for the numbers as they are, with an allowance for every
        rounding (`ufm.solvers.bound`), for labels and weights over their exact sums. Minus infinity where no proof is
        known for the problem at this point ("no certificate").
    gap : float
        objective - lower_bound. Zero at a global optimum, up to rounding, if the bound is tight there; infinite without
        a certificate. For a fixed classifier and no bias or norm it is computed in a form that does not cancel, so that
        it can be smaller than the allowance for rounding.
    gradient_norm : float
        Norm of the gradient over classifier (unless fixed), features scaled by sqrt(pi) and bias, within their
        constraints.
    relative_gradient : float
        gradient_norm over the norms of the penalties' and the loss's gradients, which cancel at a stationary point.
    classifier_residual, feature_residual, bias_residual : float or None
        The parts of gradient_norm; None for what is fixed or absent.
    feature_error : float or None
        For a fixed classifier and free features without bias, a bound on max_j ||h_j - h_j*||; otherwise None.
    balancedness : float or None
        For free classifier and features, ||lambda_W W^T W - lambda_H sum_j pi_j h_j h_j^T||_F over the sum of both
        norms, which vanishes at every stationary point; otherwise None.
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

    def _shown(self) -> Iterable[Row]:
        yield "objective", self.objective
        yield "lower bound", self.lower_bound, "no point has a smaller objective"
        yield "relative gap", self.relative_gap
        yield "gradient norm", self.gradient_norm, f"relative {self.relative_gradient:.3g}"
        if self.feature_error is not None:
            yield "features", self.feature_error, "bound on their distance from the optimal ones"
        if self.balancedness is not None:
            yield "balancedness", self.balancedness, "0 at every stationary point"

    @property
    def relative_gap(self) -> float:
        """gap over the absolute objective; infinite without a certificate, and 0 where both are zero."""
        return relative_gap(self.gap, self.objective)


def relative_gap(gap: float, objective: float) -> float:
    """Return the gap over the absolute objective: 0 if the gap is 0, whatever the objective."""
    if not objective:
        return math.inf if gap else 0.0
    return gap / abs(objective)


def certify(
    problem: UFM,
    classifier: Float[Array, "K d"],
    features: Float[Array, "N d"],
    bias: Float[Array, "K"] | None = None,
) -> Certificate:
    r"""Return the certificate of a point: objective, lower bound, gap and gradient.

    Parameters
    ----------
    problem : UFM
        The problem.
    classifier : (K, d) array
        W.
    features : (N, d) array
        H, one row per target.
    bias : (K,) array, optional
        b, where the problem has one.

    Returns
    -------
    Certificate
        What is proved about the point.

    Raises
    ------
    ValueError
        For arrays of the wrong shape or with NaN, a classifier other than the fixed one, a point outside the
        constraints, or numbers so large that the objective overflows.

    Notes
    -----
    Free classifier: let G have the columns :math:`\sqrt{\pi_j} (p_j - y_j)`, prediction less label, and let
    :math:`s = \|G\|_2` and :math:`t = \min(1, \sqrt{\lambda_W \lambda_H} / s)`. Then t G is feasible for the dual of
    the nuclear-norm relaxation, so that

    .. math:: F^* \ge \sum_j \pi_j D_j(t (p_j - y_j)),

    with D_j minus the conjugate of the loss: for cross entropy the mean entropy of t p_j + (1-t) y_j. The bound holds
    for every d, and is tight at the optimum if d >= min(K, N). A penalised bias subtracts its conjugate. An unpenalised
    one asks in addition that the residuals average to zero, to which G is corrected; there is no certificate for a loss
    that does not know how (`Loss.restoration`). Nonnegative features: the same bound holds, and is not tight in
    general. A fixed norm of the features or of the classifier's rows enters by a Lagrange multiplier in the place of
    its penalty; no certificate if that is not positive.

    Fixed classifier: the bound is Fenchel's, target by target. Without bias and constraint the gap is exactly
    :math:`\sum_j \pi_j \|g_j\|^2 / (2 \lambda_H)` with :math:`g_j = W^\top (p_j - y_j) + \lambda_H h_j`, and by strong
    convexity :math:`\|h_j - h_j^*\| \le \|g_j\| / \lambda_H`.

    References
    ----------
    derivations/duality_gap.py, uniqueness.py and constraints.py; for the rounding `ufm.solvers.bound`

    Examples
    --------
    >>> import ufm
    >>> law = ufm.Mixup(3)
    >>> optimum, targets = ufm.joint_optimum(law, 0.01, 0.01, nodes=4), law.targets(nodes=4)
    >>> features = optimum.response(targets.labels).features
    >>> certificate = ufm.certify(ufm.UFM(targets, 3, 0.01, 0.01), optimum.classifier(), features)
    >>> abs(certificate.gap) < 1e-12
    True
    """
    check_problem(problem)
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
    if local.classifier is not None and not torch.equal(torch.as_tensor(local.classifier), w):
        raise ValueError("classifier: got a matrix that is not the problem's fixed classifier, expected that one")
    _check_constraints(local, w, h)
    # Within the tolerance of that check, the bound would be as far off as the norms.
    if problem.row_norm is not None:
        w = w * (problem.row_norm / torch.linalg.vector_norm(w, dim=1, keepdim=True))
    if problem.feature_norm is not None:
        h = h * (problem.feature_norm / torch.linalg.vector_norm(h, dim=1, keepdim=True))
    evaluation = local.evaluate(w, local.targets.weights.sqrt().unsqueeze(-1) * h, b)
    if not math.isfinite(evaluation.objective.item()):
        raise ValueError("classifier, features, bias: got numbers whose objective overflows, expected smaller ones")
    return certify_evaluation(local, evaluation)


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
    lower_bound = _lower_bound(problem, evaluation)
    if problem.classifier is not None and not problem.has_bias and problem.feature_norm is None:
        gap, error = _fixed_gap(problem, evaluation, squares)
    else:
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
    weights, labels = problem.targets.weights.double(), problem.targets.labels.double()
    if not math.isfinite(evaluation.objective.item()):
        return -math.inf
    residual = evaluation.scaled_residual.double() / weights.sqrt().unsqueeze(-1)
    if problem.bias_decay == 0:
        restoration = problem.loss_function.restoration(weights @ residual, weights @ labels)
        if restoration is None:
            return -math.inf
        residual = restoration.apply(residual, labels)
    decays, constant = _multipliers(problem, evaluation)
    if problem.classifier is None and min(decays) <= 0:
        return -math.inf
    bound = dual_sums(problem, residual, labels, weights).total()
    scale = 1.0 if bound is None else bound.scale(decays)
    if scale < 1:
        # At the scaled residuals themselves the mean dual value is above its chord.
        bound = dual_sums(problem, scale * residual, labels, weights).total()
    return -math.inf if bound is None else bound.value(decays, constant)


def _multipliers(problem: UFM, evaluation: Evaluation) -> tuple[tuple[float, float], float]:
    """Return what stands for lambda_W and lambda_H in the bound of a free classifier, and the constant that it adds.

    Where a norm is fixed, ||w_k|| = m say, (lambda_W/2) ||W||_F^2 equals (mu/2) ||W||_F^2 + (lambda_W - mu)/2 K m^2 for
    every mu; dropping the constraint then gives a lower bound for every mu > 0. The mu that makes the gradient
    orthogonal to the rows, on average, is the constraint's Lagrange multiplier at an optimum, where the bound is tight.
    """
    constant, found = 0.0, []
    classifier = evaluation.classifier
    features, feature_gradient = evaluation.scaled_features, evaluation.feature_gradient
    # With weights that sum to one, the norm of all features together is that of each.
    for decay, norm, count, rows, gradient in (
        (problem.weight_decay, problem.row_norm, len(classifier), classifier, evaluation.classifier_gradient),
        (problem.feature_decay, problem.feature_norm, 1, features, feature_gradient),
    ):
        multiplier = decay
        if problem.classifier is None and norm is not None:
            total = count * norm**2
            multiplier = decay - (rows * gradient).sum().item() / total
            constant += (decay - multiplier) / 2 * total
        found.append(multiplier)
    return (found[0], found[1]), constant
