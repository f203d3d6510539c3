"""Closed forms: features for a fixed simplex ETF, the joint optimum over classifier and features, the channel.

Penalties are in the expectation convention throughout:

    F(W, H) = sum_j pi_j [ loss(W h_j, y_j) + (lambda_H/2) ||h_j||^2 ] + (lambda_W/2) ||W||_F^2.

A feature penalty lambda' of the other convention, (1/N) sum loss + (lambda'/2) ||H||_F^2, is lambda_H = N lambda'.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy import optimize
from torch import Tensor

from ufm.arrays import Array, check_integer, check_labels, check_number, in_kind, to_tensor
from ufm.etf import nearest_etf, simplex_etf
from ufm.losses import Loss, get_loss
from ufm.special import prox_logsumexp, wright_omega
from ufm.targets import Law, Orbits, pair_levels


@dataclass(frozen=True)
class Response:
    """Optimal features for a fixed classifier, one row per label.

    features (N, d): h. logits (N, K): W h. probabilities (N, K): the prediction (softmax of the logits for cross
    entropy, the output for mean squared error). residual (N,): ||W^T (prediction - y) + lambda_H h||, the gradient's
    norm; the distance to the exact optimum is at most residual / lambda_H.
    """

    features: Float[Array, "N d"]
    logits: Float[Array, "N K"]
    probabilities: Float[Array, "N K"]
    residual: Float[Array, "N"]


def fixed_classifier(
    W: Float[Array, "K d"], labels: Float[Array, "N K"], feature_decay: float, loss: str = "cross_entropy"
) -> Response:
    """Return argmin over h of loss(W h, y) + (lambda_H/2) ||h||^2 for a simplex ETF W, in closed form.

        beta = m^2 K / ((K-1) lambda_H),   z = -beta residual(z),   h = (K-1)/(K m^2) W^T z,

    with z the proximal point of log-sum-exp for cross entropy (`prox_logsumexp`) and beta/(1+beta) (y - 1/K) for
    mean squared error.

    W (K, d): a simplex ETF of any multiplier and orientation. labels (N, K): any soft labels. feature_decay:
    lambda_H > 0, expectation convention.
    Raises ValueError if W is not a simplex ETF to half the digits of its dtype, for labels off the simplex or of
    another number of classes, or a penalty that is not positive.

    Source: derivations/fixed_etf.py; Fisher, Meng and Papyan (ICLR 2024), Theorem 3.1, in our notation.
    """
    w, y = to_tensor("W", W, ndim=2), to_tensor("labels", labels, ndim=2)
    lambda_H = check_number("feature_decay", feature_decay, above=0)
    loss_function = get_loss(loss)
    if y.shape[1] != w.shape[0]:
        raise ValueError(f"labels: got {y.shape[1]} classes, expected {w.shape[0]} as W has rows")
    check_labels(y)
    etf = nearest_etf(w)
    tolerance = torch.finfo(w.dtype).eps ** 0.5
    if etf.relative_error > tolerance:
        raise ValueError(
            f"W: got a matrix at relative distance {etf.relative_error:.3g} from its nearest simplex ETF, expected "
            f"at most {tolerance:.2g} (for another classifier solve UFM(..., classifier=W))"
        )
    K = len(w)
    gram = etf.multiplier**2 * K / (K - 1)
    z = loss_function.etf_logits(y, gram / lambda_H)
    w = w.to(z)
    h = z @ w / gram
    gradient = loss_function.residual(h @ w.T, y.to(z)) @ w + lambda_H * h
    result = Response(h, z, loss_function.predict(z), torch.linalg.vector_norm(gradient, dim=-1))
    return in_kind(result, W, labels)


@dataclass(frozen=True)
class JointOptimum:
    """The global optimum over classifier and features for a symmetric law, d >= K-1: a simplex ETF.

    beta: m^2 K / ((K-1) lambda_H), 0 when collapsed. multiplier: m. objective: F*. threshold: the value of
    lambda_W lambda_H from which on the optimum is zero. collapsed: whether it is.
    """

    num_classes: int
    weight_decay: float
    feature_decay: float
    loss: str
    beta: float
    multiplier: float
    objective: float
    threshold: float
    collapsed: bool

    def classifier(self, dim: int | None = None, *, generator: torch.Generator | None = None) -> Float[Tensor, "K d"]:
        """Return one optimal classifier (K, d): a simplex ETF, rotated at random if `generator` is given."""
        etf = simplex_etf(self.num_classes, dim, generator=generator)
        return self.multiplier * etf

    def response(self, labels: Float[Array, "N K"], dim: int | None = None) -> Response:
        """Return the optimal features for labels (N, K) and `classifier(dim)`."""
        if not self.collapsed:
            w = self.classifier(dim)
            return fixed_classifier(
                w if isinstance(labels, Tensor) else w.numpy(), labels, self.feature_decay, self.loss
            )
        y = to_tensor("labels", labels, ndim=2)
        d = self.num_classes if dim is None else check_integer("dim", dim, minimum=self.num_classes - 1)
        z = torch.zeros_like(y)
        return in_kind(Response(y.new_zeros(len(y), d), z, get_loss(self.loss).predict(z), y.new_zeros(len(y))), labels)


def joint_optimum(
    law: Law, weight_decay: float, feature_decay: float, loss: str = "cross_entropy", *, nodes: int = 64
) -> JointOptimum:
    """Return the global optimum of F(W, H) over classifier and features for a symmetric law and any d >= K-1.

    The classifier is a simplex ETF, and beta is the root of the decreasing function

        E ||y - prediction(y; beta)||^2 = (K-1) lambda_W lambda_H,     m^2 = (K-1) lambda_H beta / K.

    A non-zero optimum exists exactly if lambda_W lambda_H < E||y - 1/K||^2 / (K-1). For cross entropy the optimal
    value is the mean entropy of the predictions.

    law: e.g. `Mixup(10)`. weight_decay, feature_decay: lambda_W, lambda_H > 0, expectation convention. nodes: number
    of Gauss-Jacobi nodes in lambda; the result is exact for the discrete law `law.targets(nodes)`.
    Raises ValueError for penalties that are not positive or an unknown loss.
    """
    lambda_W = check_number("weight_decay", weight_decay, above=0)
    lambda_H = check_number("feature_decay", feature_decay, above=0)
    loss_function = get_loss(loss)
    orbits = law.orbits(nodes)
    K = orbits.num_classes
    spread = (orbits.weights @ (orbits.counts * (orbits.levels - 1 / K).square()).sum(-1)).item()
    threshold = spread / (K - 1)
    collapsed = lambda_W * lambda_H >= threshold
    beta = 0.0
    if not collapsed:
        # The residual is -z/beta; as beta -> 0 its mean square tends to `spread`, and it decreases from there on.
        target = math.log((K - 1) * lambda_W * lambda_H)
        beta = _root_in_log(lambda b: math.log(_mean_square(loss_function, orbits, b) / b**2) - target, 0.0)
    z = loss_function.etf_logits(orbits.levels, beta, orbits.counts) if beta else torch.zeros_like(orbits.levels)
    residual = -z / beta if beta else 1 / K - orbits.levels
    objective = (orbits.weights @ loss_function.dual(residual, orbits.levels, orbits.counts)).item()
    multiplier = math.sqrt((K - 1) * lambda_H * beta / K)
    return JointOptimum(K, lambda_W, lambda_H, loss, beta, multiplier, objective, threshold, collapsed)


def beta_from_classifier(law: Law, weight_decay: float, multiplier: float, *, nodes: int = 64) -> float:
    """Return the beta that a trained classifier's size and weight decay imply, without a look at any feature.

    Stationarity in W, traced against W, gives for cross entropy

        beta E||y - p(y; beta)||^2 = K lambda_W m^2,

    whose left side rises and then falls in beta; the larger root is returned.

    law: the law of the training labels. weight_decay: lambda_W > 0, expectation convention. multiplier: m > 0, the
    root of the mean squared row norm of the centred classifier.
    Raises ValueError if K lambda_W m^2 exceeds the maximum of the left side: no optimum has such a classifier.
    """
    lambda_W = check_number("weight_decay", weight_decay, above=0)
    m = check_number("multiplier", multiplier, above=0)
    orbits = law.orbits(nodes)
    loss_function = get_loss("cross_entropy")
    target = math.log(orbits.num_classes * lambda_W * m**2)

    def excess(beta: float) -> float:
        return math.log(_mean_square(loss_function, orbits, beta) / beta) - target

    search = optimize.minimize_scalar(lambda t: -excess(math.exp(t)), bounds=(-20.0, 20.0), method="bounded")
    peak = float(search.x)  # pyright: ignore[reportAttributeAccessIssue]
    if excess(math.exp(peak)) < 0:
        largest = math.exp(target + excess(math.exp(peak))) / (orbits.num_classes * lambda_W)
        raise ValueError(f"multiplier: got {m:g}, expected at most {math.sqrt(largest):g} at weight decay {lambda_W:g}")
    return _root_in_log(excess, peak)


def _mean_square(loss: Loss, orbits: Orbits, beta: float) -> float:
    """Return E ||z||^2 over the law."""
    z = loss.etf_logits(orbits.levels, beta, orbits.counts)
    return (orbits.weights @ (orbits.counts * z.square()).sum(-1)).item()


def _root_in_log(function: Callable[[float], float], start: float) -> float:
    """Return the x > 0 at which a function that falls beyond exp(start) (or wherever it is positive) crosses zero."""
    low = high = start
    while function(math.exp(low)) < 0:
        low -= 4.0
    while function(math.exp(high)) > 0:
        high += 4.0
    if low == high:
        return math.exp(low)
    root = optimize.brentq(lambda t: function(math.exp(t)), low, high, xtol=1e-15, rtol=4 * np.finfo(float).eps)
    return math.exp(root)  # pyright: ignore[reportArgumentType]


@dataclass(frozen=True)
class Channel:
    """Shape of the optimal logits of mixed labels, one entry per lambda.

    width: z_a - z_b, across the decision boundary. depth: (z_a + z_b)/2 - z_0, along it. The asymptotic forms hold
    for beta -> infinity, while lambda (1 - lambda) is well above 1/(K beta).
    """

    width: Float[Array, "*N"]
    depth: Float[Array, "*N"]
    width_asymptotic: Float[Array, "*N"]
    depth_asymptotic: Float[Array, "*N"]


def channel(lam: float | Float[Array, "*N"], beta: float, num_classes: int) -> Channel:
    """Return width and depth of the channel in which different-class features run, exact and asymptotic.

        width -> log(lambda/(1-lambda)),   depth -> W0( (K beta/2) sqrt(lambda (1-lambda)) )   as beta -> infinity

    lam: mixing coefficients in (0, 1). beta: > 0. num_classes: K >= 3, so that there is an off-target class.
    Raises ValueError for lam outside (0, 1), beta <= 0 or K < 3.
    """
    coefficient = to_tensor("lam", lam)
    beta = check_number("beta", beta, above=0)
    K = check_integer("num_classes", num_classes, minimum=3)
    if not bool(((coefficient > 0) & (coefficient < 1)).all()):
        raise ValueError("lam: got values outside the open interval, expected 0 < lam < 1")
    levels, counts = pair_levels(coefficient.reshape(-1), K)
    z = prox_logsumexp(levels, beta, counts=counts).logits
    za, zb, z0 = (column.reshape(coefficient.shape) for column in to_tensor("logits", z).unbind(-1))
    # W0(t) = omega(log t), in logarithms so that no beta overflows.
    log_argument = math.log(K * beta / 2) + (coefficient.log() + torch.log1p(-coefficient)) / 2
    result = Channel(za - zb, (za + zb) / 2 - z0, torch.logit(coefficient), wright_omega(log_argument))
    return in_kind(result, lam)
