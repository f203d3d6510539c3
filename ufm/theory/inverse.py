"""Inverse problems of the joint optimum: penalties for a wanted beta, and the beta that other numbers imply."""

import math

from scipy import optimize

from ufm._support.arrays import check_integer, check_number
from ufm.labels.laws import Law, check_law
from ufm.losses import get_loss
from ufm.theory.joint import log_excess
from ufm.theory.roots import decreasing_root


def penalty_product(law: Law, beta: float, loss: str = "cross_entropy", *, nodes: int | None = None) -> float:
    r"""Return the product lambda_W lambda_H of penalties whose joint optimum has a given beta.

    It solves every inverse problem: :math:`\lambda_H = m^2 K / ((K-1) \beta)` for a wanted multiplier m, or either
    penalty from the other.

    Parameters
    ----------
    law : Law
        Symmetric law of the labels.
    beta : float
        The wanted beta, > 0.
    loss : str
        Name of the loss.
    nodes : int, optional
        Number of Gauss-Jacobi nodes in lambda. By default a fixed, fine rule averages over the continuous law.

    Returns
    -------
    float
        The product lambda_W lambda_H.

    Raises
    ------
    ValueError
        If beta <= 0, the loss is unknown, or the law is not symmetric.

    Examples
    --------
    >>> import ufm
    >>> product = ufm.penalty_product(ufm.Mixup(10), beta=50.0)
    >>> print(f"{product:.6g} {ufm.joint_optimum(ufm.Mixup(10), 1e-3, product / 1e-3).beta:.6g}")
    0.000823204 50
    """
    b = check_number("beta", beta, above=0)
    orbits = check_law(law).orbits(nodes, level=7)
    return math.exp(log_excess(get_loss(loss), orbits, math.log(b), 0.0)[0]) / (orbits.num_classes - 1)


def beta_for_confidence(confidence: float, num_classes: int) -> float:
    r"""Return the beta at which the prediction for an unmixed label has a given probability of its class.

    Parameters
    ----------
    confidence : float
        Probability c of the label's class, in (1/K, 1).
    num_classes : int
        Number of classes K >= 2.

    Returns
    -------
    float
        The beta.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Notes
    -----
    With the difference of logits :math:`x = \log\frac{(K-1)\,c}{1-c}`,

    .. math:: K \beta = x \left(e^x + K - 1\right) .

    Examples
    --------
    >>> import ufm
    >>> beta = ufm.beta_for_confidence(0.99, num_classes=10)
    >>> round(beta, 4), round(float(ufm.confidence(1.0, beta, 10)), 6)
    (611.311, 0.99)
    """
    K = check_integer("num_classes", num_classes, minimum=2)
    c = check_number("confidence", confidence, above=1 / K, below=1)
    x = math.log(K - 1) + math.log(c) - math.log1p(-c)
    return x * (math.exp(x) + K - 1) / K


def beta_from_classifier(law: Law, weight_decay: float, multiplier: float, *, nodes: int | None = None) -> float:
    r"""Return the beta that a trained classifier's size and weight decay imply, without using any feature.

    Parameters
    ----------
    law : Law
        Symmetric law of the training labels.
    weight_decay : float
        Penalty lambda_W > 0 of the classifier, in the expectation convention.
    multiplier : float
        Size m > 0 of the classifier: the root mean square of its row norms, after centring the rows.
    nodes : int, optional
        As in `ufm.joint_optimum`.

    Returns
    -------
    float
        The beta.

    Raises
    ------
    ValueError
        If :math:`K \lambda_W m^2` exceeds the maximum of the left side below, so that no optimum has such a classifier,
        or an argument is out of range.

    Notes
    -----
    For cross entropy, the trace of the stationarity condition in W against W is

    .. math:: \beta\, \mathbb{E} \lVert y - p(y; \beta) \rVert^2 = K \lambda_W m^2 .

    The left side rises and then falls in beta; the larger root is returned.

    References
    ----------
    derivations/fit_free_beta.py

    Examples
    --------
    >>> import ufm
    >>> optimum = ufm.joint_optimum(ufm.Mixup(10), weight_decay=1e-3, feature_decay=1e-3)
    >>> beta = ufm.beta_from_classifier(ufm.Mixup(10), 1e-3, optimum.multiplier)
    >>> abs(beta / optimum.beta - 1) < 1e-9
    True
    """
    lambda_W = check_number("weight_decay", weight_decay, above=0)
    m = check_number("multiplier", multiplier, above=0)
    orbits = check_law(law).orbits(nodes, level=6)
    loss_function = get_loss("cross_entropy")
    log_target = math.log(orbits.num_classes * lambda_W) + 2 * math.log(m)

    def excess(log_beta: float) -> tuple[float, float]:
        value, slope = log_excess(loss_function, orbits, log_beta, log_target)
        return value + log_beta, slope + 1

    search = optimize.minimize_scalar(lambda t: -excess(t)[0], bounds=(-20.0, 20.0), method="bounded")
    peak = float(search.x)  # pyright: ignore[reportAttributeAccessIssue]
    if excess(peak)[0] < 0:
        largest = m * math.exp(excess(peak)[0] / 2)
        raise ValueError(f"multiplier: got {m:g}, expected at most {largest:g} at weight decay {lambda_W:g}")
    return math.exp(decreasing_root(excess, peak, falling=True))
