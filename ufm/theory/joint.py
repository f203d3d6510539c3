r"""The joint optimum over classifier and features for symmetric laws, and its inverse problems.

Penalties are in the expectation convention throughout:

.. math::

   F(W, H) = \sum_j \pi_j \left[ \ell(W h_j, y_j) + \tfrac{\lambda_H}{2} \lVert h_j \rVert^2 \right]
             + \tfrac{\lambda_W}{2} \lVert W \rVert_F^2 .

A feature penalty lambda' of the other convention, (1/N) sum loss + (lambda'/2) ||H||_F^2, is lambda_H = N lambda'.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from ufm._support.arrays import Array, check_choice, check_integer, check_number, in_kind, to_labels
from ufm._support.display import Displayed, Row, shown
from ufm.labels.laws import Law, check_law
from ufm.labels.targets import Orbits, pair_levels
from ufm.losses import Loss, get_loss
from ufm.theory.etf import simplex_etf
from ufm.theory.features import Response, fixed_classifier
from ufm.theory.roots import decreasing_root

if TYPE_CHECKING:
    import matplotlib.axes

Scalar = float | Float[Tensor, ""]

# Levels of the continuous rule: the step is halved until nothing changes by more than the tolerance.
_LEVELS = range(4, 10)
_QUADRATURE_TOLERANCE = 1e-12


@dataclass(frozen=True, repr=False)
class JointOptimum(Displayed):
    r"""The global optimum over classifier and features for a symmetric law and any d >= K-1: a simplex ETF.

    `beta`, `multiplier` and `objective` are tensors, and differentiable, if a penalty was given as a tensor.

    Attributes
    ----------
    num_classes : int
        Number of classes K.
    weight_decay : float or scalar tensor
        Penalty lambda_W of the classifier, in the expectation convention.
    feature_decay : float or scalar tensor
        Penalty lambda_H of the features, in the expectation convention.
    loss : str
        Name of the loss.
    beta : float or scalar tensor
        Ratio :math:`m^2 K / ((K-1) \lambda_H)` of the classifier's size to the feature penalty; 0 if collapsed.
    multiplier : float or scalar tensor
        Norm m of the classifier's rows; 0 if collapsed.
    objective : float or scalar tensor
        Optimal value F*.
    threshold : float
        Value of lambda_W lambda_H from which on the optimum is zero.
    collapsed : bool
        Whether the optimum is zero.
    quadrature_error : float
        Estimate of the largest relative error of `beta`, `multiplier` and `objective` that comes from averaging over a
        continuous law; 0 for a discrete one.
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

    def _shown(self) -> Iterable[Row]:
        yield (
            "classes",
            self.num_classes,
            f"{self.loss}, lambda_W {shown(self.weight_decay)}, lambda_H " + shown(self.feature_decay),
        )
        yield "collapsed to zero", self.collapsed, f"from lambda_W lambda_H = {self.threshold:.4g} on"
        yield "beta", self.beta
        yield "multiplier", self.multiplier, "root mean squared row norm of the classifier"
        yield "objective", self.objective, f"quadrature error {self.quadrature_error:.1g}"

    def plot(self, ax: "matplotlib.axes.Axes | None" = None, *, quantity: str = "width") -> "matplotlib.axes.Axes":
        """Draw the optimal channel of two mixed labels against lambda.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; by default on a new figure.
        quantity : str
            "width", :math:`z_a - z_b`, or "depth", :math:`(z_a + z_b)/2 - z_0`, which needs a third class.

        Returns
        -------
        Axes
            With one line.

        Raises
        ------
        ValueError
            For another quantity, or the depth of two classes.
        """
        from ufm._support.style import CLOSED_FORM, axes_or_new

        check_choice("quantity", quantity, ("width", "depth") if self.num_classes > 2 else ("width",))
        lam = torch.linspace(0, 1, 501, dtype=torch.float64)[1:-1]
        levels, counts = pair_levels(lam, self.num_classes)
        beta = float(self.beta)
        logits = get_loss(self.loss).etf_logits(levels, beta, counts) if beta else 0 * levels
        za, zb, z0 = logits.unbind(1)
        values = za - zb if quantity == "width" else (za + zb) / 2 - z0
        axes = axes_or_new(ax)
        axes.plot(lam, values, color=CLOSED_FORM, label=f"β = {beta:.4g}")
        axes.set(xlabel="λ, weight of class a", ylabel=f"{quantity} (logits)", xlim=(0, 1))
        axes.legend()
        return axes

    def classifier(self, dim: int | None = None, *, generator: torch.Generator | None = None) -> Float[Tensor, "K d"]:
        """Return one optimal classifier, a simplex ETF.

        Parameters
        ----------
        dim : int, optional
            Feature dimension d >= K-1; K by default.
        generator : torch.Generator, optional
            If given, the classifier is turned by a random rotation drawn from it.

        Returns
        -------
        (K, d) tensor
            The classifier.

        Raises
        ------
        ValueError
            If d < K-1.
        """
        return self.multiplier * simplex_etf(self.num_classes, dim, generator=generator)

    def response(self, labels: Float[Array, "N K"], dim: int | None = None) -> Response:
        """Return the optimal features of labels for the classifier ``classifier(dim)``.

        Parameters
        ----------
        labels : (N, K) array
            Soft labels; rows on the simplex.
        dim : int, optional
            Feature dimension d >= K-1; K by default.

        Returns
        -------
        Response
            Features, logits and predictions, as arrays of the same kind as `labels`.

        Raises
        ------
        ValueError
            If a label lies off the simplex, or d < K-1.
        """
        y = to_labels(labels, ndim=2)
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
    r"""Return the global optimum of F(W, H) over classifier and features for a symmetric law and any d >= K-1.

    Parameters
    ----------
    law : Law
        Symmetric law of the labels, e.g. ``Mixup(10)``.
    weight_decay, feature_decay : float or scalar tensor
        Penalties lambda_W, lambda_H > 0. Tensors can be differentiated through, to second order.
    loss : str
        Name of the loss.
    nodes : int, optional
        Number of Gauss-Jacobi nodes in lambda, for the discrete law ``law.targets(nodes)``. By default an adaptive rule
        averages over the continuous law.
    samples : int, optional
        If given, `feature_decay` is the lambda' of the convention
        :math:`\frac1N \sum \ell + \frac{\lambda'}{2} \lVert H \rVert_F^2` with N = `samples`.

    Returns
    -------
    JointOptimum
        The optimum, as one number beta with all that follows from it.

    Raises
    ------
    ValueError
        If a penalty is not positive, the loss is unknown, or the law is not symmetric.

    Notes
    -----
    The classifier is a simplex ETF of multiplier m, and beta is the root of the decreasing function on the left of

    .. math::

       \mathbb{E} \lVert y - \hat y(y; \beta) \rVert^2 = (K-1) \lambda_W \lambda_H , \qquad
       m^2 = \frac{(K-1) \lambda_H \beta}{K} ,

    where :math:`\hat y` is the prediction. A non-zero optimum exists exactly if :math:`\lambda_W \lambda_H < \mathbb{E}
    \lVert y - 1/K \rVert^2 / (K-1)`. For cross entropy the optimal value is the mean entropy of the predictions.

    References
    ----------
    derivations/etf_is_optimal.py, derivations/joint_scalar_equation.py, derivations/threshold.py and
    derivations/optimal_value.py

    Examples
    --------
    >>> import ufm
    >>> optimum = ufm.joint_optimum(ufm.Mixup(10), weight_decay=1e-3, feature_decay=1e-3)
    >>> print(f"{optimum.beta:.6g} {optimum.multiplier:.6g} {optimum.objective:.6g} {optimum.threshold:.6g}")
    2816.33 1.59207 0.479019 0.0666667
    >>> ufm.joint_optimum(ufm.Mixup(10), weight_decay=0.3, feature_decay=0.3).collapsed
    True
    """
    lambda_W = check_number("weight_decay", weight_decay, above=0)
    lambda_H = check_number("feature_decay", feature_decay, above=0)
    weight_decay = weight_decay if isinstance(weight_decay, Tensor) else lambda_W
    feature_decay = feature_decay if isinstance(feature_decay, Tensor) else lambda_H
    if samples is not None:
        scale = check_integer("samples", samples, minimum=1)
        lambda_H, feature_decay = scale * lambda_H, scale * feature_decay
    loss_function = get_loss(loss)
    K = check_integer("num_classes", check_law(law).num_classes, minimum=2)
    log_target = math.log(K - 1) + math.log(lambda_W) + math.log(lambda_H)

    def at(orbits: Orbits, start: float) -> tuple[float, float]:
        """Return (log beta, objective) for one quadrature rule; log beta is -inf for the zero solution."""
        spread = _spread(orbits)
        if not spread or log_target >= math.log(spread):
            return -math.inf, _objective(loss_function, orbits, 0.0)
        root = decreasing_root(lambda t: log_excess(loss_function, orbits, t, log_target), start)
        return root, _objective(loss_function, orbits, math.exp(root))

    error = 0.0
    orbits = law.orbits(nodes, level=_LEVELS[0])
    log_beta, objective = at(orbits, 0.0)
    if nodes is None:
        for level in _LEVELS[1:]:
            previous = log_beta, objective
            finer = law.orbits(None, level=level)
            if len(finer.weights) == len(orbits.weights):
                error = _error_below(law, at, orbits, log_beta, objective)
                break
            orbits = finer
            log_beta, objective = at(orbits, log_beta if log_beta > -math.inf else 0.0)
            error = _moved((log_beta, objective), previous)
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


def _moved(one: tuple[float, float], other: tuple[float, float]) -> float:
    """Return the larger relative change of beta and objective, given (log beta, objective) by two rules."""
    return max(abs(one[0] - other[0]) if one[0] != other[0] else 0.0, abs(one[1] / other[1] - 1))


def _error_below(
    law: Law, at: Callable[[Orbits, float], tuple[float, float]], orbits: Orbits, log_beta: float, objective: float
) -> float:
    """Return the change from the next coarser rule to the law's finest one; 0 if there is no lambda to average over."""
    for level in reversed(range(_LEVELS[0])):
        coarser = law.orbits(None, level=level)
        if len(coarser.weights) != len(orbits.weights):
            return _moved((log_beta, objective), at(coarser, log_beta if log_beta > -math.inf else 0.0))
    return 0.0


def _spread(orbits: Orbits) -> float:
    """Return E ||y - 1/K||^2, the mean squared distance of the labels from the uniform one."""
    return (orbits.weights @ (orbits.counts * (orbits.levels - 1 / orbits.num_classes).square()).sum(-1)).item()


def log_excess(loss: Loss, orbits: Orbits, log_beta: float, log_target: float) -> tuple[float, float]:
    """Return log E ||y - prediction||^2 - log_target and its derivative in log beta; the residual is -z/beta."""
    beta = torch.tensor(math.exp(log_beta), dtype=torch.float64)
    z = loss.etf_logits(orbits.levels, beta, orbits.counts)
    square = (orbits.weights @ (orbits.counts * z.square()).sum(-1)).item()
    if not square:
        raise ValueError("law: got labels that are all uniform, whose optimum is zero, expected a law with others")
    slope = (orbits.weights @ loss.etf_slope(z, beta, orbits.counts)).item()
    return math.log(square) - 2 * log_beta - log_target, slope / square - 2


def _objective(loss: Loss, orbits: Orbits, beta: float | Tensor) -> float:
    return _dual_mean(loss, orbits, beta).item()


def _dual_mean(loss: Loss, orbits: Orbits, beta: float | Tensor) -> Tensor:
    """Return the mean dual value at the optimum's residual, which is the optimal value."""
    if isinstance(beta, float) and beta == 0:
        residual = 1 / orbits.num_classes - orbits.levels
    else:
        residual = -loss.etf_logits(orbits.levels, beta, orbits.counts) / beta
    return orbits.weights @ loss.dual(residual, orbits.levels, orbits.counts)


def _differentiable(loss: Loss, orbits: Orbits, log_beta: float, product: Tensor) -> tuple[Tensor, Tensor]:
    """Return beta and the objective as functions of lambda_W lambda_H, with the right first and second derivatives.

    Newton's method started at the root stays there. Each step doubles the order of the error in the parameters: from 1
    at the root itself to 4 after two steps, so that derivatives up to the third are right.
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
