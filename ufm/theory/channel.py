"""The shape of the optimal logits under mixup: the channel of different-class features, exact and in the limit."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ufm._support.arrays import Array, check_integer, check_number, in_kind, to_labels
from ufm._support.pairs import read_lam
from ufm.labels.targets import pair_levels
from ufm.prox import prox_logsumexp, wright_omega


@dataclass(frozen=True)
class Channel:
    """Shape of the optimal logits of mixed labels, one entry per lambda.

    The asymptotic forms hold for beta -> infinity, as long as lambda (1 - lambda) is well above 1/(K beta).

    Attributes
    ----------
    width : (...) array
        Extent across the decision boundary, :math:`z_a - z_b`.
    depth : (...) array
        Extent along it, :math:`(z_a + z_b)/2 - z_0`.
    width_asymptotic : (...) array
        The asymptotic form of the width.
    depth_asymptotic : (...) array
        The asymptotic form of the depth.
    """

    width: Float[Array, "*N"]
    depth: Float[Array, "*N"]
    width_asymptotic: Float[Array, "*N"]
    depth_asymptotic: Float[Array, "*N"]


def channel(lam: float | Float[Array, "*N"], beta: float | Float[Tensor, ""], num_classes: int) -> Channel:
    r"""Return width and depth of the channel in which different-class features run, exact and asymptotic.

    Parameters
    ----------
    lam : float or (...) array
        Mixing coefficients in (0, 1).
    beta : float
        Ratio m^2 K / ((K-1) lambda_H) > 0 of the model; see `ufm.joint_optimum`.
    num_classes : int
        Number of classes K >= 3, so that there is a class that the label does not contain.

    Returns
    -------
    Channel
        Width and depth, in the shape of `lam`.

    Raises
    ------
    ValueError
        If `lam` leaves (0, 1), beta <= 0 or K < 3.

    Notes
    -----
    With :math:`W_0` the principal branch of the Lambert W function, as beta -> infinity,

    .. math::

       \text{width} \to \log\frac{\lambda}{1-\lambda} , \qquad
       \text{depth} \to W_0\!\left(\frac{K\beta}{2} \sqrt{\lambda (1-\lambda)}\right) .

    References
    ----------
    derivations/channel.py

    Examples
    --------
    >>> import numpy as np, ufm
    >>> shape = ufm.channel(np.array([0.6, 0.9]), beta=1e4, num_classes=10)
    >>> print(shape.width.round(4), shape.width_asymptotic.round(4))
    [0.4059 2.2014] [0.4055 2.1972]
    >>> print(shape.depth.round(4), shape.depth_asymptotic.round(4))
    [8.0226 7.5865] [8.0238 7.5891]
    """
    coefficient, beta, K = _mixed_arguments(lam, beta, num_classes)
    if not bool(((coefficient > 0) & (coefficient < 1)).all()):
        raise ValueError("lam: got values outside the open interval, expected 0 < lam < 1")
    za, zb, z0 = _mixed_logits(coefficient, beta, K)
    # W0(t) = omega(log t), in logarithms so that no beta overflows.
    log_argument = math.log(K / 2) + math.log(beta) + (coefficient.log() + torch.log1p(-coefficient)) / 2
    result = Channel(za - zb, (za + zb) / 2 - z0, torch.logit(coefficient), torch.as_tensor(wright_omega(log_argument)))
    return in_kind(result, lam)


def limit_shape(labels: Float[Array, "N K"]) -> Float[Array, "N K"]:
    """Return the limit of the optimal logits over log(beta), as beta -> infinity: the centred support of the labels.

    Parameters
    ----------
    labels : (N, K) array
        Soft labels; rows on the simplex.

    Returns
    -------
    (N, K) array
        The limits, as an array of the same kind. For a label with s positive entries, whatever their values, it is
        1 - s/K on these and -s/K elsewhere: :math:`e_y - 1/K` for an unmixed label, :math:`e_a + e_b - 2/K` for a label
        of two classes.

    Raises
    ------
    ValueError
        If a label lies off the simplex.

    References
    ----------
    derivations/channel.py

    Examples
    --------
    >>> import numpy as np, ufm
    >>> print(ufm.limit_shape(np.array([[1.0, 0.0, 0.0, 0.0], [0.7, 0.3, 0.0, 0.0]])))
    [[ 0.75 -0.25 -0.25 -0.25]
     [ 0.5   0.5  -0.5  -0.5 ]]
    """
    y = to_labels(labels, ndim=2)
    support = (y > 0).to(y)
    return in_kind(support - support.mean(-1, keepdim=True), labels)


def length_ratio(
    lam: float | Float[Array, "*N"], beta: float | Float[Tensor, ""], num_classes: int
) -> Float[Array, "*N"]:
    r"""Return the length of mixed features over that of same-class ones, at equal beta and classifier.

    Parameters
    ----------
    lam : float or (...) array
        Mixing coefficients in [0, 1].
    beta : float
        Ratio m^2 K / ((K-1) lambda_H) > 0 of the model; see `ufm.joint_optimum`.
    num_classes : int
        Number of classes K >= 3.

    Returns
    -------
    (...) array
        The ratios, in the shape and kind of `lam`.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Notes
    -----
    As beta -> infinity the ratio tends to :math:`\sqrt{2(K-2)/(K-1)}` for every lambda in (0, 1): mixed features end up
    longer.

    Examples
    --------
    >>> import numpy as np, ufm
    >>> print(ufm.length_ratio(np.array([0.5, 0.9, 1.0]), beta=1e4, num_classes=10).round(4))
    [1.1548 1.1038 1.    ]
    """
    coefficient, beta, K = _mixed_arguments(lam, beta, num_classes)

    def length(of: Tensor) -> Tensor:
        za, zb, z0 = _mixed_logits(of, beta, K)
        return (za.square() + zb.square() + (K - 2) * z0.square()).sqrt()

    return in_kind(length(coefficient) / length(torch.ones_like(coefficient)), lam)


def amplification(beta: float | Float[Tensor, ""], num_classes: int) -> float:
    r"""Return how steeply the width crosses the decision boundary, against a straight line between the same-class ends.

    Below 1, the logits change slowly around lambda = 1/2, and many mixtures gather near the boundary.

    Parameters
    ----------
    beta : float
        Ratio m^2 K / ((K-1) lambda_H) > 0 of the model; see `ufm.joint_optimum`.
    num_classes : int
        Number of classes K >= 3.

    Returns
    -------
    float
        The ratio of the two slopes.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Notes
    -----
    The slope of the width at lambda = 1/2 is

    .. math:: \frac{d\,\text{width}}{d\lambda} = \frac{2\beta}{1 + \beta\, p_a(1/2)} ,

    which tends to 4 as beta -> infinity. The slope of the line is :math:`2 (z_y - z_0)`, from the logits of an unmixed
    label.

    Examples
    --------
    >>> import ufm
    >>> [round(ufm.amplification(beta, 10), 4) for beta in (0.1, 10.0, 1e4)]
    [1.0, 0.7364, 0.2157]
    """
    half, beta, K = _mixed_arguments(0.5, beta, num_classes)
    za, _, z0 = _mixed_logits(half, beta, K)
    p_a = 1 / (2 + (K - 2) * math.exp((z0 - za).item()))
    z_y, _, z_off = _mixed_logits(torch.ones_like(half), beta, K)
    return beta / (1 + beta * p_a) / (z_y - z_off).item()


def _mixed_arguments(
    lam: float | Array, beta: float | Float[Tensor, ""], num_classes: int
) -> tuple[Tensor, float, int]:
    coefficient = read_lam(lam)
    K = check_integer("num_classes", num_classes, minimum=3)
    return coefficient, check_number("beta", beta, above=0), K


def _mixed_logits(lam: Tensor, beta: float | Float[Tensor, ""], num_classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return z_a, z_b and z_0 of the label lam e_a + (1 - lam) e_b, each in the shape of lam."""
    levels, counts = pair_levels(lam.reshape(-1), num_classes)
    z = torch.as_tensor(prox_logsumexp(levels, beta, counts=counts).logits)
    za, zb, z0 = (column.reshape(lam.shape) for column in z.unbind(-1))
    return za, zb, z0
