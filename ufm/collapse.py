"""Measures of neural collapse on same-class features, and of the mixup channel on mixed ones."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from ufm.arrays import Array, check_integer, to_tensor
from ufm.etf import nearest_etf


@dataclass(frozen=True)
class Collapse:
    """Neural-collapse measures; each is 0 at full collapse.

    nc1: tr(S_within pinv(S_between)) / K, variability within the classes. nc2: relative distance of the centred
    class means to their nearest simplex ETF. nc3: ||W/||W|| - M/||M||||_F between classifier and centred means.

    Source: Papyan, Han and Donoho, "Prevalence of neural collapse", PNAS 2020.
    """

    nc1: float
    nc2: float
    nc3: float


def neural_collapse(
    features: Float[Array, "N d"], classes: Int[Array, "N"], classifier: Float[Array, "K d"]
) -> Collapse:
    """Return the neural-collapse measures of unmixed features (N, d) of `classes` (N,) for a classifier (K, d).

    Raises ValueError if shapes do not fit or a class has no feature.
    """
    h = to_tensor("features", features, ndim=2).double()
    w = to_tensor("classifier", classifier, ndim=2).to(h)
    k = torch.as_tensor(classes, device=h.device)
    K = len(w)
    if k.shape != h.shape[:1] or w.shape[1] != h.shape[1]:
        shapes = f"{tuple(h.shape)}, {tuple(k.shape)}, {tuple(w.shape)}"
        raise ValueError(f"features, classes, classifier: got shapes {shapes}, expected (N, d), (N,), (K, d)")
    if bool(((k < 0) | (k >= K)).any()) or k.is_floating_point():
        raise ValueError(f"classes: got {k.dtype} from {k.min()} to {k.max()}, expected whole numbers in 0..{K - 1}")
    members = torch.nn.functional.one_hot(k.long(), K).to(h)
    sizes = members.sum(0)
    if not bool((sizes > 0).all()):
        raise ValueError(f"classes: got no feature of class {int(sizes.argmin())}, expected some of each of {K}")
    means = (members.T @ h) / sizes.unsqueeze(-1)
    within = h - means[k.long()]
    centred = means - means.mean(0)
    between = centred.T @ centred / K
    nc1 = (torch.linalg.pinv(between, hermitian=True) @ (within.T @ within / len(h))).trace() / K
    nc3 = torch.linalg.matrix_norm(w / torch.linalg.matrix_norm(w) - centred / torch.linalg.matrix_norm(centred))
    return Collapse(nc1.item(), nearest_etf(centred).relative_error, nc3.item())


@dataclass(frozen=True)
class ChannelCurve:
    """Logits of different-class samples by bins of lambda, as NumPy arrays (bins,); NaN where a bin is empty.

    lam: mean lambda in the bin. count: samples. width, depth: means of z_a - z_b and (z_a + z_b)/2 - z_0, with z_0
    the mean of the other logits. width_std, depth_std: their standard deviations. confidence: mean largest probability.
    """

    lam: np.ndarray
    count: np.ndarray
    width: np.ndarray
    width_std: np.ndarray
    depth: np.ndarray
    depth_std: np.ndarray
    confidence: np.ndarray


def channel_curve(
    logits: Float[Array, "N K"],
    class_a: Int[Array, "N"],
    class_b: Int[Array, "N"],
    lam: Float[Array, "N"],
    *,
    bins: int = 10,
) -> ChannelCurve:
    """Return the channel's width, depth and confidence by `bins` equal bins of lambda in [0, 1].

    logits (N, K), K >= 3, of labels lam e_a + (1 - lam) e_b; samples with class_a == class_b are left out.
    Raises ValueError if shapes do not fit, K < 3, or no sample is of two classes.
    """
    z = to_tensor("logits", logits, ndim=2).double().cpu()
    a, b = torch.as_tensor(class_a).long().cpu(), torch.as_tensor(class_b).long().cpu()
    coefficient = to_tensor("lam", lam, ndim=1).double().cpu()
    N, K = z.shape
    if not a.shape == b.shape == coefficient.shape == (N,) or K < 3:
        raise ValueError(f"logits: got shape {(N, K)} for {len(a)} pairs, expected (N, K) with K >= 3, one row a pair")
    check_integer("bins", bins, minimum=1)
    if bool(((coefficient < 0) | (coefficient > 1)).any()):
        raise ValueError("lam: got values outside the interval, expected 0 <= lam <= 1")
    mixed = a != b
    if not bool(mixed.any()):
        raise ValueError("class_a, class_b: got same-class pairs only, expected some of different classes")
    z, a, b, coefficient = z[mixed], a[mixed], b[mixed], coefficient[mixed].numpy()
    za, zb = z.gather(1, a[:, None])[:, 0], z.gather(1, b[:, None])[:, 0]
    rest = (z.sum(1) - za - zb) / (K - 2)
    width, depth = (za - zb).numpy(), ((za + zb) / 2 - rest).numpy()
    confidence = torch.softmax(z, 1).amax(1).numpy()
    index = lambda_bin(coefficient, bins)
    count = np.bincount(index, minlength=bins)

    def mean(values: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            return np.bincount(index, values, bins) / count

    def spread(values: np.ndarray) -> np.ndarray:
        return np.sqrt(mean((values - mean(values)[index]) ** 2))

    return ChannelCurve(
        mean(coefficient), count, mean(width), spread(width), mean(depth), spread(depth), mean(confidence)
    )


def lambda_bin(lam: np.ndarray, bins: int) -> np.ndarray:
    """Return the index of the equal-width bin of [0, 1] that each lambda falls into."""
    return np.minimum((lam * bins).astype(int), bins - 1)


def multiplier_of(classifier: Float[Array, "K d"]) -> float:
    """Return m of any classifier: the root of the mean squared row norm after centring the rows."""
    w = to_tensor("classifier", classifier, ndim=2)
    return math.sqrt((w - w.mean(0)).square().sum().item() / len(w))
