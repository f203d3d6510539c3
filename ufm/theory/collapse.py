"""Measures of neural collapse on same-class features."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ufm._support.arrays import Array, power_of_two, read_classes, to_tensor
from ufm.theory.etf import nearest_etf


@dataclass(frozen=True)
class Collapse:
    r"""Measures of neural collapse; each is 0 at full collapse.

    Attributes
    ----------
    nc1 : float
        Variability within the classes, :math:`\operatorname{tr}(S_\mathrm{within} S_\mathrm{between}^+) / K`.
    nc2 : float
        Relative distance of the centred class means from their nearest simplex ETF; see `ufm.nearest_etf`. NaN for
        K > d + 1, where there is no simplex ETF.
    nc3 : float
        Distance from self-duality, :math:`\lVert W/\lVert W\rVert_F - M/\lVert M\rVert_F \rVert_F` between the centred
        classifier W and the matrix M of centred class means.
    nc4 : float
        Share of features h that the classifier assigns to another class than the nearest class mean :math:`\mu_k` does:
        :math:`\arg\max_k (w_k \cdot h + b_k) \ne \arg\min_k \lVert h - \mu_k\rVert`. Ties go to the lowest class. At
        full collapse it is 0 with the bias that the mean of the features calls for.

    References
    ----------
    Papyan, Han and Donoho, "Prevalence of neural collapse", PNAS 2020.
    """

    nc1: float
    nc2: float
    nc3: float
    nc4: float


def neural_collapse(
    features: Float[Array, "N d"],
    classes: Int[Array, "N"],
    classifier: Float[Array, "K d"],
    bias: Float[Array, "K"] | None = None,
) -> Collapse:
    """Return the measures of neural collapse for unmixed features and a classifier.

    Parameters
    ----------
    features : (N, d) array
        Features of unmixed inputs.
    classes : (N,) array of int
        Their classes, in 0..K-1; every class occurs.
    classifier : (K, d) array
        The classifier's rows.
    bias : (K,) array, optional
        The classifier's bias, which only nc4 depends on; zero by default.

    Returns
    -------
    Collapse
        The four measures.

    Raises
    ------
    ValueError
        If shapes do not fit, `classes` holds anything but the whole numbers 0..K-1, a class has no feature, or all
        class means or all rows of the classifier are equal.

    Examples
    --------
    >>> import numpy as np, ufm
    >>> W, classes = ufm.simplex_etf(3).numpy(), np.array([0, 0, 1, 2])
    >>> measures = ufm.neural_collapse(2 * W[classes], classes, W)
    >>> print(f"{measures.nc1:.4f} {measures.nc2:.4f} {measures.nc3:.4f} {measures.nc4:.4f}")
    0.0000 0.0000 0.0000 0.0000
    """
    h = to_tensor("features", features, ndim=2).double()
    w = to_tensor("classifier", classifier, ndim=2).to(h)
    K = len(w)
    if w.shape[1] != h.shape[1]:
        raise ValueError(
            f"features, classifier: got shapes {tuple(h.shape)}, {tuple(w.shape)}, expected (N, d), (K, d)"
        )
    k = read_classes("classes", classes, len(h), K, device=h.device)
    b = w.new_zeros(K) if bias is None else to_tensor("bias", bias, ndim=1).to(h)
    if len(b) != K:
        raise ValueError(f"bias: got shape {tuple(b.shape)}, expected {(K,)}, one per row of the classifier")
    # The measures do not depend on the scale, which is taken out so that no square leaves the range of numbers.
    unit, size = power_of_two(h), power_of_two(w)
    h, w, b = h / unit, w / size, b / unit / size
    members = torch.nn.functional.one_hot(k.long(), K).to(h)
    sizes = members.sum(0)
    if not bool((sizes > 0).all()):
        raise ValueError(f"classes: got no feature of class {int(sizes.argmin())}, expected some of each of {K}")
    check_differ("classifier", w)
    means = (members.T @ h) / sizes.unsqueeze(-1)
    check_differ("features", means, "class means")
    within = h - means[k.long()]
    nc4 = (h @ w.T + b).argmax(1) != nearest_mean(h, means)
    return collapse_of(means, within.T @ within / len(h), w, nc4.double().mean().item())


def differ(rows: Float[Tensor, "n d"]) -> bool:
    """Return whether rows differ by more than the rounding of their mean."""
    rows = rows / power_of_two(rows)
    return bool(((rows - rows.mean(0)).abs() > 8 * torch.finfo(rows.dtype).eps * rows.abs().amax(0)).any())


def check_differ(name: str, rows: Float[Tensor, "K d"], what: str = "rows") -> None:
    """Raise ValueError if all rows are equal up to rounding."""
    if not differ(rows):
        raise ValueError(f"{name}: got {what} that are all equal, expected some that differ")


def nearest_mean(features: Float[Tensor, "N d"], means: Float[Tensor, "K d"]) -> Int[Tensor, "N"]:
    """Return the class of the nearest class mean; ties go to the lowest class."""
    centred = means - means.mean(0)
    # ||h - mu_k||^2 / 2 up to a term without k; centred, so that an offset common to all features costs no digits.
    return (centred.square().sum(1) / 2 - (features - means.mean(0)) @ centred.T).argmin(1)


def collapse_of(
    means: Float[Tensor, "K d"], within: Float[Tensor, "d d"], classifier: Float[Tensor, "K d"], nc4: float
) -> Collapse:
    """Return the measures from the class means and the covariance within the classes."""
    centred = means - means.mean(0)
    between = centred.T @ centred / len(means)
    nc1 = (torch.linalg.pinv(between, hermitian=True) @ within).trace() / len(means)
    rows = classifier - classifier.mean(0)
    nc3 = torch.linalg.matrix_norm(rows / torch.linalg.matrix_norm(rows) - centred / torch.linalg.matrix_norm(centred))
    K, d = means.shape
    nc2 = nearest_etf(centred).relative_error if d >= K - 1 else math.nan
    return Collapse(nc1.item(), nc2, nc3.item(), nc4)


def multiplier_of(classifier: Float[Array, "K d"]) -> float:
    """Return m of any classifier: the root mean square of its row norms, after centring the rows."""
    w = to_tensor("classifier", classifier, ndim=2)
    return math.sqrt((w - w.mean(0)).square().sum().item() / len(w))
