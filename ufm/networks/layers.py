"""Earlier layers: how far mixed inputs leave the pattern that manifold mixup would train, and how channel-like."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ufm._support.arrays import Array, check_choice, check_integer, to_tensor
from ufm._support.pairs import Pairs, halves, r_squared
from ufm.labels.targets import pair_levels
from ufm.networks.activations import Activations, check_finite
from ufm.networks.predictions import LOG_BETA_RANGE, fit_log
from ufm.prox import prox_logsumexp
from ufm.theory.etf import centred_basis

# Directions in which the regressors vary less than this, relative to the largest, in square: a class without samples.
_CUTOFF = 1e-12


@dataclass(frozen=True)
class LayerPattern:
    """How a layer's output depends on the mixed label alone; see `layer_pattern`.

    name: of the layer. dim: of its output. explained: share of the output's variance that the mean per (class pair, bin
    of lambda) explains, the most that a function of pair and bin can; adjusted for the number of cells, so about 0 for
    noise, and NaN if no cell has a second sample. line: R^2 of those means by the best linear function of the label y,
    the pattern of manifold mixup. channel: the same of the closed form's logits z(y; beta), at the fitted beta; for
    beta -> 0 the two are one, so that channel - line says how channel-like the layer is. beta: fitted. All on the half
    of the samples that nothing was fitted to.
    """

    name: str
    dim: int
    explained: float
    line: float
    channel: float
    beta: float


def layer_pattern(activations: Activations, name: str, *, bins: int = 10) -> LayerPattern:
    """Fit a layer's output on mixed inputs by a linear function of the label, and of the closed form's logits.

    The output's means per (class pair, bin of lambda) are fitted by A u + c, with u the means in the same cells of the
    label y (line) or of z(y; beta) (channel), A and c by least squares, beta by search: on one half of the samples;
    scored on the other. Different-class samples only.

    activations: with the layer recorded. name: of the layer; "features" for the classifier's input. bins: of lambda.
    Raises ValueError for a layer that was not recorded or is not finite, K < 3, or too few samples.

    Source: derivations/straight_line.py.
    """
    check_choice("name", name, ("features", *activations.layers))
    check_integer("bins", bins, minimum=1)
    K = activations.logits.shape[1]
    if K < 3:
        raise ValueError(f"activations: got {K} classes, expected at least 3")
    both = halves(activations)
    output = activations.features if name == "features" else activations.layers[name]
    output = output.reshape(len(output), -1)
    fit, scored = (_Cells.of(activations, output, rows, bins) for rows in both)
    check_finite(f"layers[{name!r}]", torch.cat([fit.output, scored.output]))

    g_mean = fit.average(fit.output)
    g = fit.output - g_mean
    spread = scored.count @ (scored.output - scored.average(scored.output)).square().sum(1)

    def fitted(u: Tensor) -> tuple[Tensor, Tensor, float]:
        """Return A and c, and the squared error that they leave on the first half."""
        u_mean = fit.average(u)
        x = u - u_mean
        weighted = fit.count[:, None] * x
        a = torch.linalg.lstsq(weighted.T @ x, weighted.T @ g, driver="gelsd", rcond=_CUTOFF).solution
        return a, g_mean - u_mean @ a, (fit.count @ (x @ a - g).square().sum(1)).item()

    def score(a: Tensor, c: Tensor, u: Tensor) -> float:
        """Return R^2 on the other half."""
        return (1 - scored.count @ (scored.output - u @ a - c).square().sum(1) / spread).item()

    def channel(cells: _Cells, beta: float) -> Tensor:
        levels, counts = pair_levels(cells.lam, K)
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
    """Return how well a layer's output on mixed inputs is the same mixture of its outputs on the two inputs.

        1 - sum ||g(lam x + (1 - lam) x') - lam g(x) - (1 - lam) g(x')||^2 / sum ||g - mean g||^2

    which is 1 where the layer sees mixup as manifold mixup. mixed, first, second (N, D): outputs on the mixed inputs
    and on the first and second of each pair. lam (N,), in [0, 1]. Raises ValueError for shapes that do not fit, or lam
    out of range.
    """
    arrays = {"mixed": mixed, "first": first, "second": second}
    g, one, other = (to_tensor(name, value, ndim=2).double() for name, value in arrays.items())
    weight = to_tensor("lam", lam, ndim=1).double().unsqueeze(1)
    if not g.shape == one.shape == other.shape or len(weight) != len(g):
        shapes = ", ".join(str(tuple(x.shape)) for x in (g, one, other, weight[:, 0]))
        raise ValueError(
            f"mixed, first, second, lam: got shapes {shapes}, expected three of one shape and one row each"
        )
    if bool(((weight < 0) | (weight > 1)).any()):
        raise ValueError("lam: got values outside the interval, expected 0 <= lam <= 1")
    return r_squared(g, weight * one + (1 - weight) * other)


@dataclass(frozen=True, eq=False)
class _Cells:
    """Different-class samples of one half by cell: a class pair a < b, and a bin of the weight of a.

    lam (n,): weight of a, per sample. index (n,): cell, per sample. basis_a, basis_b (C, B), B = K-1: coordinates of
    e_a and e_b, less their means. count (C,): samples. output (C, D): mean output. explained: as in `LayerPattern`.
    """

    lam: Float[Tensor, "n"]
    index: Int[Tensor, "n"]
    basis_a: Float[Tensor, "C B"]
    basis_b: Float[Tensor, "C B"]
    count: Float[Tensor, "C"]
    output: Float[Tensor, "C D"]
    explained: float

    @staticmethod
    def of(activations: Activations, output: Tensor, rows: Tensor, bins: int) -> "_Cells":
        """Group those of some rows of a recording."""
        K = activations.logits.shape[1]
        pairs = Pairs.of(activations, rows)
        cells = pairs.cells(K, bins)
        mixed = cells >= 0
        lam = torch.where(pairs.a < pairs.b, pairs.lam, 1 - pairs.lam)[mixed]
        found, index, count = torch.unique(cells[mixed], return_inverse=True, return_counts=True)
        a, b = found // bins // K, found // bins % K
        values, count = output[rows[mixed]].double(), count.double()
        means = _means(values, index, count)
        within, degrees = (values - means[index]).square().sum(), len(values) - len(count)
        total = (values - values.mean(0)).square().sum()
        explained = 1 - within / total * ((len(values) - 1) / degrees if degrees else math.nan)
        basis = centred_basis(K)
        return _Cells(lam, index, basis[a], basis[b], count, means, explained.item())

    def average(self, values: Float[Tensor, "C D"]) -> Float[Tensor, "D"]:
        """Return the mean of cells' values over the samples."""
        return self.count @ values / self.count.sum()

    def regressors(self, levels: Float[Tensor, "n 3"]) -> Float[Tensor, "C B"]:
        """Return the mean per cell of the vectors with entries `levels` at a, at b and elsewhere, less their mean.

        In an orthonormal basis of the vectors with zero sum, which does not see what all entries have in common.
        """
        at_a, at_b, elsewhere = _means(levels, self.index, self.count)[:, :, None].unbind(1)
        return (at_a - elsewhere) * self.basis_a + (at_b - elsewhere) * self.basis_b


def _means(values: Float[Tensor, "n D"], index: Int[Tensor, "n"], count: Float[Tensor, "C"]) -> Float[Tensor, "C D"]:
    return values.new_zeros(len(count), values.shape[1]).index_add_(0, index, values) / count[:, None]
