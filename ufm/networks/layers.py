"""Earlier layers: whether their outputs on mixed inputs follow manifold mixup's pattern or that of the channel."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ufm._support.arrays import Array, check_choice, check_finite, check_squares, to_tensor
from ufm._support.pairs import ClassPairs, cell_means, check_bins, halves, r_squared, read_lam
from ufm.labels.targets import pair_levels
from ufm.networks.activations import Activations, pairs_of
from ufm.networks.predictions import LOG_BETA_RANGE, fit_log
from ufm.prox import prox_logsumexp
from ufm.theory.etf import centred_basis

# Directions in which the regressors vary by less than this share of the largest variance belong to classes without
# samples.
_CUTOFF = 1e-12


@dataclass(frozen=True)
class LayerPattern:
    """How a layer's output depends on the mixed label; see `layer_pattern`.

    All measures are taken on the half of the samples to which nothing was fitted.

    Attributes
    ----------
    name : str
        Name of the layer.
    dim : int
        Dimension of its output.
    explained : float
        Share of the output's variance that the mean per (class pair, bin of lambda) explains. No function of pair and
        bin explains more. Adjusted for the number of cells, so that it is about 0 for noise; NaN if no cell has a
        second sample.
    line : float
        R^2 of those means by the best linear function of the label y, which is the pattern of manifold mixup.
    channel : float
        R^2 of those means by the best linear function of the closed form's logits z(y; beta) at the fitted beta. As
        beta -> 0 the two agree, so channel - line measures how channel-like the layer is.
    beta : float
        The fitted beta.
    """

    name: str
    dim: int
    explained: float
    line: float
    channel: float
    beta: float


def layer_pattern(activations: Activations, name: str, *, bins: int = 10) -> LayerPattern:
    """Fit a layer's output on mixed inputs by linear functions of the label, and of the closed form's logits.

    Parameters
    ----------
    activations : Activations
        A recording of K >= 3 classes that has the layer.
    name : str
        Name of the layer; "features" for the classifier's input.
    bins : int
        Number of bins of lambda.

    Returns
    -------
    LayerPattern
        The two fits, scored on the other half of the samples.

    Raises
    ------
    ValueError
        For a layer that was not recorded or is not finite, K < 3, or too few samples.

    Notes
    -----
    Only samples of two different classes are used. The output's means per (class pair, bin of lambda) are fitted by
    A u + c, where u are the means in the same cells of y (line) or of z(y; beta) (channel). On one half of the samples,
    A and c are fitted by least squares and beta by search; the other half is scored.

    References
    ----------
    derivations/straight_line.py.

    Examples
    --------
    A "network" whose features are the labels themselves:

    >>> import torch
    >>> import ufm
    >>> a, b, lam = torch.arange(600) % 3, torch.arange(600) // 3 % 3, torch.arange(600) % 7 / 6
    >>> y = ufm.PairTargets(3, a, b, lam.double()).labels
    >>> pattern = ufm.layer_pattern(ufm.Activations(y, y, a, b, lam, torch.eye(3).double()), "features")
    >>> round(pattern.line, 4), pattern.dim
    (1.0, 3)
    """
    check_choice("name", name, ("features", *activations.layers))
    check_bins(bins)
    K = activations.logits.shape[1]
    if K < 3:
        raise ValueError(f"activations: got {K} classes, expected at least 3")
    output = activations.features if name == "features" else activations.layers[name]
    output = output.reshape(len(output), -1)
    pairs = pairs_of(activations)
    if activations.classes is not None:
        of_two = activations.in_pair
        pairs, output = pairs[of_two], output[of_two]
    both = halves(pairs, of_different=True)
    fit, scored = (_Cells.of(pairs, output, rows, K, bins) for rows in both)
    check_finite(f"layers[{name!r}]", torch.cat([fit.output, scored.output]))

    g_mean = fit.average(fit.output)
    g = fit.output - g_mean
    spread = scored.count @ (scored.output - scored.average(scored.output)).square().sum(1)

    def fitted(u: Tensor) -> tuple[Tensor, Tensor, float]:
        """Return A and c, and their squared error on the half that they are fitted to."""
        u_mean = fit.average(u)
        x = u - u_mean
        weighted = fit.count[:, None] * x
        a = torch.linalg.lstsq(weighted.T @ x, weighted.T @ g, driver="gelsd", rcond=_CUTOFF).solution
        return a, g_mean - u_mean @ a, (fit.count @ (x @ a - g).square().sum(1)).item()

    def score(a: Tensor, c: Tensor, u: Tensor) -> float:
        """Return R^2 on the other half."""
        return (1 - scored.count @ (scored.output - u @ a - c).square().sum(1) / spread).item()

    smoothing = activations.smoothing

    def channel(cells: _Cells, beta: float) -> Tensor:
        levels, counts = pair_levels(cells.lam, K)
        levels = (1 - smoothing) * levels + smoothing / K
        return cells.regressors(torch.as_tensor(prox_logsumexp(levels, beta, counts=counts).logits))

    def straight(cells: _Cells) -> Tensor:
        return cells.regressors(pair_levels(cells.lam, K)[0])

    line = score(*fitted(straight(fit))[:2], straight(scored))
    beta = fit_log(lambda t: fitted(channel(fit, math.exp(t)))[2], LOG_BETA_RANGE, 36)
    bent = score(*fitted(channel(fit, beta))[:2], channel(scored, beta))
    return LayerPattern(name, output.shape[1], scored.explained, line, bent, beta)


def interpolation_r2(
    mixed: Float[Array, "N D"], first: Float[Array, "N D"], second: Float[Array, "N D"], lam: Float[Array, "N"]
) -> float:
    r"""Return how well a layer's output on a mixed input is the same mixture of its outputs on the two inputs.

    Parameters
    ----------
    mixed : (N, D) array
        Outputs on the mixed inputs.
    first, second : (N, D) array
        Outputs on the first and on the second input of each pair.
    lam : (N,) array
        Weight of the first input, in [0, 1].

    Returns
    -------
    float
        R^2 <= 1; it is 1 if the layer treats mixup as manifold mixup.

    Raises
    ------
    ValueError
        For shapes that do not fit, or lam out of range.

    Notes
    -----
    With g the layer,

    .. math::

        1 - \frac{\sum \lVert g(\lambda x + (1 - \lambda) x') - \lambda g(x) - (1 - \lambda) g(x') \rVert^2}
                 {\sum \lVert g - \operatorname{mean} g \rVert^2},

    where the denominator is that of the outputs on mixed inputs.

    Examples
    --------
    >>> import numpy as np
    >>> import ufm
    >>> first, second = np.array([[1.0], [2.0]]), np.array([[3.0], [8.0]])
    >>> ufm.interpolation_r2(np.array([[2.0], [5.0]]), first, second, np.array([0.5, 0.5]))
    1.0
    """
    arrays = {"mixed": mixed, "first": first, "second": second}
    g, one, other = (to_tensor(name, value, ndim=2).double() for name, value in arrays.items())
    for name, value in zip(arrays, (g, one, other), strict=True):
        check_squares(name, value)
    weight = read_lam(lam, ndim=1).double().unsqueeze(1)
    if not g.shape == one.shape == other.shape or len(weight) != len(g):
        shapes = ", ".join(str(tuple(x.shape)) for x in (g, one, other, weight[:, 0]))
        raise ValueError(
            f"mixed, first, second, lam: got shapes {shapes}, expected three of one shape and one row each"
        )
    return r_squared(g, weight * one + (1 - weight) * other)


@dataclass(frozen=True, eq=False)
class _Cells:
    """Different-class samples of one half, grouped by cell: a class pair a < b and a bin of the weight of a.

    Attributes
    ----------
    lam : (n,) tensor
        Weight of a, per sample.
    index : (n,) integer tensor
        Cell of each sample.
    basis_a, basis_b : (C, B) tensor
        Coordinates of e_a and e_b less their means, B = K-1, per cell.
    count : (C,) tensor
        Number of samples.
    output : (C, D) tensor
        Mean output.
    explained : float
        As in `LayerPattern`.
    """

    lam: Float[Tensor, "n"]
    index: Int[Tensor, "n"]
    basis_a: Float[Tensor, "C B"]
    basis_b: Float[Tensor, "C B"]
    count: Float[Tensor, "C"]
    output: Float[Tensor, "C D"]
    explained: float

    @staticmethod
    def of(pairs: ClassPairs, output: Tensor, rows: Tensor, K: int, bins: int) -> "_Cells":
        """Group the samples of some rows."""
        pairs = pairs[rows]
        cells = pairs.cells(K, bins)
        mixed = cells >= 0
        lam = pairs.ascending().lam[mixed]
        found, index, count = torch.unique(cells[mixed], return_inverse=True, return_counts=True)
        a, b = found // bins // K, found // bins % K
        values, count = output[rows[mixed]].double(), count.double()
        means = cell_means(values, index, count)
        within, degrees = (values - means[index]).square().sum(), len(values) - len(count)
        total = (values - values.mean(0)).square().sum()
        explained = 1 - within / total * ((len(values) - 1) / degrees if degrees else math.nan)
        basis = centred_basis(K)
        return _Cells(lam, index, basis[a], basis[b], count, means, explained.item())

    def average(self, values: Float[Tensor, "C D"]) -> Float[Tensor, "D"]:
        """Return the mean of the cells' values, each cell weighted by its samples."""
        return self.count @ values / self.count.sum()

    def regressors(self, levels: Float[Tensor, "n 3"]) -> Float[Tensor, "C B"]:
        """Return the mean per cell of the vectors whose entries at a, at b and elsewhere are `levels`.

        The vectors are centred, and given in an orthonormal basis of the vectors with zero sum.
        """
        at_a, at_b, elsewhere = cell_means(levels, self.index, self.count)[:, :, None].unbind(1)
        return (at_a - elsewhere) * self.basis_a + (at_b - elsewhere) * self.basis_b
