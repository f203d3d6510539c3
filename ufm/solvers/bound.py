r"""The certificate's lower bound on F, from sums over the targets in which every rounding is counted.

For any residuals r_j in the domain of the loss's conjugate the loss is at least its tangent plane, loss(z, y_j) >=
z.r_j + D_j(r_j). What is then left to minimise is the penalties plus a linear function of the unknowns.

With a free classifier that is (lambda_W/2) ||W||_F^2 + (lambda_H/2) ||H||_F^2 + <W H, G>. It is bounded below, by zero,
exactly if ||G||_2 <= sqrt(lambda_W lambda_H), and scaling the residuals by t makes it so. At an optimum t = 1 attains
the bound; so t is taken as large as is allowed, up to 1. With a fixed classifier every t is allowed, t = 1 is taken,
and the minimum over the features is minus a conjugate. Likewise (lambda_b/2) ||b||^2 + b.m is at least
-||m||^2 / (2 lambda_b) for the mean residual m; a bias without penalty asks for m = 0.

Rounding
--------
With u = 2^-53, and all of this in float64 whatever the dtype of the point:

- Residuals are exact numbers by definition, or known to an error that `Loss.dual_point` returns along with a value
  below the exact D_j. It does not matter that they are not quite the gradient of the loss at the point: every residual
  in the domain proves a bound.
- The mean dual value D is concave in t, so that D(t) >= t D(1) + (1 - t) D(0). That is what makes the scaling exact: t
  is only asked to be small enough.
- Sums over N targets are formed by halves, within log2(N) + 8 roundings of the sum of magnitudes, and the sums of
  blocks are added with their own roundings carried along. An entry of the second moment is off by `pairwise_product`'s
  roundings of |G|^T |G|, whose norm the largest row sum bounds; its largest eigenvalue is bounded from above by
  `largest_eigenvalue`, and errors e_j of the residuals add sqrt(sum_j pi_j ||e_j||^2) to the norm.
- Without a penalty of the bias the mean of the exact residuals is zero only up to rounding: they are restored once more
  (`Loss.restoration`), by a share of the order of u, at both ends of what the mean can be.
- Weights stand for themselves over their exact sum, and labels likewise.

Every allowance is a multiple of u of a sum of magnitudes of what enters. They are computed to first order and enlarged
by one per cent for the rest, which covers up to 10^11 roundings in a row.

References
----------
N. J. Higham, "Accuracy and stability of numerical algorithms", 2nd edition, SIAM 2002, chapters 3 and 4.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

from ufm._support.summation import (
    UNIT_ROUNDOFF,
    depth,
    largest_eigenvalue,
    pairwise_product,
    pairwise_sum,
    two_sum,
)
from ufm.losses import Restoration
from ufm.solvers.problem import UFM

# Enlarges allowances for what is of second order in the unit roundoff.
_ENLARGED = 1.01
# Above what underflow takes from a sum of squares.
_TINY = 1e-290
# Entries of a block of stored targets.
_BLOCK = 2**20


def _above(value: float, roundings: int = 8) -> float:
    """Return at least a number that is not negative and was computed with so many roundings."""
    return value * (1 + roundings * UNIT_ROUNDOFF)


def _below(*terms: float) -> float:
    """Return at most the sum of terms, each of them right to four roundings."""
    return math.fsum(terms) - 8 * UNIT_ROUNDOFF * math.fsum(map(abs, terms))


class DualSums:
    """Sums over the targets, added block by block, and the bound that they prove."""

    def __init__(self, problem: UFM, device: torch.device) -> None:
        """Hold sums of zero.

        Parameters
        ----------
        problem : UFM
            The problem.
        device : torch.device
            Where the blocks are.
        """
        self.problem = problem
        self.K = problem.targets.num_classes
        # In two parts, of which the second is what the roundings of the first have left out.
        self.sums = torch.zeros(2, self.K * self.K + 2 * self.K + 5, dtype=torch.float64, device=device)
        self.errors = torch.zeros(3 * self.K + 5, dtype=torch.float64, device=device)
        # Of the products in the second moment, whose rows are added up in blocks.
        self.products = 0
        fixed = problem.classifier
        self.fixed = None if fixed is None else torch.as_tensor(fixed).to(device, torch.float64)

    def add(self, residual: Float[Tensor, "n K"], labels: Float[Tensor, "n K"], weights: Float[Tensor, "n"]) -> None:
        """Add the block of some targets, at residuals that may be changed by a rounding."""
        y, w = labels.double(), weights.double()
        loss = self.problem.loss_function
        at = loss.dual_point(residual.double(), y)
        none = loss.dual_point(torch.zeros_like(y), y).value
        r, size = at.residual, at.residual.abs()
        column = w.unsqueeze(-1)
        weighted = column * r
        moment, products = pairwise_product(r, weighted)
        self.products = max(self.products, products)
        length, square, length_error = self._responses(r, at.error)
        figures = torch.stack([at.value, none, length, square, torch.ones_like(w)], 1)
        parts = [moment.reshape(-1), *(pairwise_sum(x, 0) for x in (weighted, column * y, column * figures))]
        total, left = two_sum(self.sums[0], torch.cat(parts))
        self.sums = torch.stack([total, self.sums[1] + left])
        weighted = column * size
        magnitudes = [
            weighted.T @ size.sum(1),
            weighted.sum(0),
            (column * at.error).sum(0),
            w @ torch.stack([at.value.abs(), none.abs(), at.error.square().sum(1)], 1),
            w @ torch.stack([length_error, length_error.square()], 1),
        ]
        self.errors = self.errors + torch.cat(magnitudes)

    def _responses(self, r: Tensor, error: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return ||u||, its square, and a bound on its error, for u = W^T r or what of it the features respond to."""
        if self.fixed is None:
            zero = r.new_zeros(len(r))
            return zero, zero, zero
        u = r @ self.fixed
        off = ((self.K + 3) * UNIT_ROUNDOFF * r.abs() + error) @ self.fixed.abs()
        if self.problem.nonnegative:
            u = u.clamp(max=0)
        square = u.square().sum(-1)
        off = torch.linalg.vector_norm(off, dim=-1)
        return square.sqrt(), square, off + (self.problem.dim + 4) * UNIT_ROUNDOFF * square.sqrt()

    def reduce(self, add_up: Callable[[Tensor], None]) -> None:
        """Add up over processes, by an all-reduce in place."""
        products = self.errors.new_tensor([float(self.products)])
        packed = torch.cat([self.sums.reshape(-1), self.errors, products])
        add_up(packed)
        count = self.sums.numel()
        self.sums, self.errors = packed[:count].view_as(self.sums), packed[count:-1]
        # The sum of the processes' largest numbers is above the largest of all.
        self.products = int(packed[-1].item())

    def total(self) -> "Bound | None":
        """Return what the sums prove; None if that is nothing."""
        both = torch.cat([self.sums.sum(0), self.errors])
        if not bool(torch.isfinite(both).all()):
            return None
        K, unit = self.K, _ENLARGED * UNIT_ROUNDOFF
        processes = dist.get_world_size() if dist.is_initialized() else 1
        # Of a sum over the targets, and of that of the weights, which divides it.
        few = 2 * (depth(len(self.problem.targets)) + processes + 2) * unit
        weight = self.sums[:, -1].sum()
        sums, errors = (self.sums.sum(0) / weight).cpu(), (self.errors / weight).cpu()
        moment, mean, average, figures = sums.split([K * K, K, K, 5])
        cross, mean_size, mean_error, figure_sizes = errors.split([K, K, K, 5])
        whole, none, length, square, _ = figures.tolist()
        whole_size, none_size, residual_error, length_error, square_error = figure_sizes.tolist()
        eigenvalue = largest_eigenvalue(moment.view(K, K)) + (self.products * unit + few) * cross.max().item()
        return Bound(
            problem=self.problem,
            whole=whole - few * whole_size,
            none=none - few * none_size,
            mean=mean,
            mean_error=_ENLARGED * mean_error + few * mean_size + torch.where(mean_size > 0, _TINY, 0.0),
            average=average * (1 - few - (depth(K) + 4) * unit),
            norm=_above(math.sqrt(eigenvalue + _TINY * (eigenvalue > 0)) + _ENLARGED * math.sqrt(residual_error)),
            responses=(
                length * (1 + few) + _ENLARGED * length_error,
                math.sqrt(square * (1 + few)) + _ENLARGED * math.sqrt(square_error),
            ),
        ).restored()


def dual_sums(
    problem: UFM, residual: Float[Tensor, "N K"], labels: Float[Tensor, "N K"], weights: Float[Tensor, "N"]
) -> DualSums:
    """Return the sums over all targets, taken in blocks that need little memory."""
    sums = DualSums(problem, residual.device)
    for block in zip(*(x.split(max(1, _BLOCK // labels.shape[1])) for x in (residual, labels, weights)), strict=True):
        sums.add(*block)
    return sums


@dataclass(frozen=True)
class Bound:
    """What is known of residuals r_j, with all roundings allowed for.

    Attributes
    ----------
    problem : UFM
        The problem.
    whole, none : float
        At most the mean dual values D(1) and D(0).
    mean, mean_error : (K,) tensors
        The mean residual, and a bound on the error of each entry.
    average : (K,) tensor
        At most the mean label.
    norm : float
        At least the spectral norm of the rows sqrt(pi_j) r_j.
    responses : pair of float
        For a fixed classifier, at least the mean of ||W^T r_j|| and the root of the mean of its square; of the negative
        part of W^T r_j for features that are not negative.
    """

    problem: UFM
    whole: float
    none: float
    mean: Float[Tensor, "K"]
    mean_error: Float[Tensor, "K"]
    average: Float[Tensor, "K"]
    norm: float
    responses: tuple[float, float]

    @property
    def K(self) -> int:
        """The number of classes."""
        return len(self.mean)

    def restored(self) -> "Bound | None":
        """Return the same for residuals moved so that their exact mean is zero, where a free bias asks for it."""
        problem = self.problem
        if problem.bias_decay != 0:
            return self
        ends: list[Restoration] = []
        for end in (self.mean + self.mean_error, self.mean - self.mean_error):
            restoration = problem.loss_function.restoration(end, self.average)
            if restoration is None:
                return None
            ends.append(restoration)
        share = min(1.0, _above(max(end.share for end in ends), 16))
        gain_error = (self.mean_error * (self.mean.abs() + self.mean_error + self.average + 1)).sum().item()
        gain = min(end.gain for end in ends) - 2 * _ENLARGED * gain_error
        shift = _above(max(torch.linalg.vector_norm(end.shift).item() for end in ends), self.K + 4)
        mixed = _above(share * max(end.distance for end in ends))
        longest = 0.0 if problem.classifier is None else _spectral_norm(problem.classifier)
        length, square = (_above((1 - share) * (size + longest * shift) + longest * mixed) for size in self.responses)
        # Taking their mean from them, and nothing else, does not increase the norm of the rows.
        norm = (1 - share) * (self.norm + (shift if share else 0.0)) + mixed
        zero = torch.zeros_like(self.mean)
        whole = _below((1 - share) * self.whole, gain)
        return Bound(problem, whole, self.none, zero, zero, self.average, _above(norm), (length, square))

    def scale(self, decays: tuple[float, float]) -> float:
        """Return how far the residuals can be scaled, at most 1, for decays that stand for lambda_W and lambda_H."""
        if self.problem.classifier is not None:
            return 1.0
        radius = math.sqrt(decays[0]) * math.sqrt(decays[1]) * (1 - 6 * UNIT_ROUNDOFF)
        return 1.0 if self.norm <= radius else radius / self.norm * (1 - 2 * UNIT_ROUNDOFF)

    def value(self, decays: tuple[float, float], constant: float = 0.0) -> float:
        """Return the lower bound on F; minus infinity if none is proved.

        Parameters
        ----------
        decays : pair of float
            What stands for lambda_W and lambda_H with a free classifier.
        constant : float
            What is added to the bound, right to four roundings.
        """
        problem = self.problem
        if problem.classifier is None and min(decays) <= 0:
            return -math.inf
        t = self.scale(decays)
        terms = [t * self.whole, (1 - t) * self.none, constant]
        if problem.classifier is not None:
            terms += [problem.weight_decay / 2 * _square(problem.classifier, -1), -self._conjugate()]
        if problem.bias_decay:
            square = _square(self.mean.abs() + self.mean_error, 1)
            terms.append(-(t * t * square) / (2 * problem.bias_decay))
        # A bias of the user's replaces the loss's own, which the loss's conjugate counts in.
        if problem.has_bias and problem.offset:
            off = self.mean_error.sum().item() + len(self.mean) * UNIT_ROUNDOFF * self.mean.abs().sum().item()
            terms += [problem.offset * t * self.mean.sum().item(), -abs(problem.offset) * t * _ENLARGED * off]
        return _below(*terms)

    def _conjugate(self) -> float:
        """Return at least the conjugate of the features' penalty and constraint at the rows W^T r_j."""
        problem, (length, square) = self.problem, self.responses
        if problem.feature_norm is None:
            return square * square / (2 * problem.feature_decay)
        return problem.feature_norm * length - problem.feature_decay / 2 * problem.feature_norm**2


def _spectral_norm(matrix: Tensor | np.ndarray) -> float:
    """Return at least the largest singular value."""
    rows = torch.as_tensor(matrix).double()
    off = _ENLARGED * (rows.shape[1] + 2) * UNIT_ROUNDOFF * _square(rows, 1)
    return _above(math.sqrt(largest_eigenvalue(rows @ rows.T) + off))


def _square(array: Tensor | np.ndarray, side: int) -> float:
    """Return the sum of squares, at most or, with 1 for the side in the place of -1, at least."""
    flat = torch.as_tensor(array).double().flatten()
    return pairwise_sum(flat.square()).item() * (1 + side * (depth(len(flat)) + 4) * UNIT_ROUNDOFF)
