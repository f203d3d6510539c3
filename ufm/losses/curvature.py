"""Hessians of losses in the logits, as they are applied: never formed."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

Scalar = Float[Tensor, ""]
Rows = Float[Tensor, "*N K"]
Broadcast = Float[Tensor, "... K"]


@runtime_checkable
class Curvature(Protocol):
    """The Hessian S of a loss in the logits, at a batch of points (..., K).

    Every method works on the last axis and broadcasts over the others.
    """

    def apply(self, vectors: Broadcast) -> Broadcast:
        """Return S v, row by row."""
        ...

    def centred(self, vectors: Broadcast) -> Broadcast:
        """Return v without its part in the kernel of S, row by row."""
        ...

    def resolvent(self, shift: float, scale: Scalar) -> Callable[[Tensor], Tensor]:
        """Return the map v -> (shift I + scale S)^-1 v, row by row, for shift > 0 and scale >= 0."""
        ...


class SoftmaxCurvature:
    """The Hessian of log-sum-exp, S = diag p - p p^T."""

    def __init__(self, probabilities: Rows) -> None:
        """Hold the probabilities p."""
        self.p = probabilities

    def apply(self, vectors: Broadcast) -> Broadcast:
        """Return p (v - p.v)."""
        return self.p * (vectors - (self.p * vectors).sum(-1, keepdim=True))

    def centred(self, vectors: Broadcast) -> Broadcast:
        """Return v less its mean: the kernel of S is the constant vectors."""
        return vectors - vectors.mean(-1, keepdim=True)

    def resolvent(self, shift: float, scale: Scalar) -> Callable[[Tensor], Tensor]:
        """Return the inverse of a diagonal plus a rank-one matrix, by Sherman and Morrison's formula."""
        inverse = 1 / (shift + scale * self.p)
        q = self.p * inverse
        # 1 - scale sum p^2/(shift + scale p) cancels; shift sum q is the same number without cancellation.
        factor = scale / (shift * q.sum(-1, keepdim=True))
        return lambda v: torch.addcmul(v * inverse, q, factor * (q * v).sum(-1, keepdim=True))


class DiagonalCurvature:
    """A diagonal Hessian, S = diag s with s > 0: that of a loss which is a sum of one term per logit."""

    def __init__(self, diagonal: Rows) -> None:
        """Hold the diagonal s."""
        self.diagonal = diagonal

    def apply(self, vectors: Broadcast) -> Broadcast:
        """Return s v."""
        return self.diagonal * vectors

    def centred(self, vectors: Broadcast) -> Broadcast:
        """Return v: the kernel of S is zero."""
        return vectors

    def resolvent(self, shift: float, scale: Scalar) -> Callable[[Tensor], Tensor]:
        """Return the division by shift + scale s."""
        return lambda v: v / (shift + scale * self.diagonal)


class IdentityCurvature:
    """The Hessian of half a square, S = I."""

    def apply(self, vectors: Broadcast) -> Broadcast:
        """Return v."""
        return vectors

    def centred(self, vectors: Broadcast) -> Broadcast:
        """Return v: the kernel of S is zero."""
        return vectors

    def resolvent(self, shift: float, scale: Scalar) -> Callable[[Tensor], Tensor]:
        """Return the division by shift + scale."""
        return lambda v: v / (shift + scale)
