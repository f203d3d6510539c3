"""The dense proximal point as fused kernels: the same Newton iteration as in `ufm.prox`, through torch.compile.

Worth it for many classes: one pass over memory a step instead of a dozen. Opt-in, because it needs a C++ compiler (or
Triton on a GPU) and its first call takes some twenty seconds.
"""

from collections.abc import Callable

import torch
from torch import Tensor

_MAX_NEWTON_STEPS = 100


def _start(y: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    scaled = b * y
    tau = (scaled.sum(-1, keepdim=True) / y.shape[-1]).log()
    x = scaled + tau
    return scaled, tau, torch.where(x < -50, x, torch.nn.functional.softplus(x).log())


def _step(scaled: Tensor, tau: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    omega = v.exp()
    inverse = 1 / (omega + 1)
    correction = (scaled + tau - omega - v) * inverse
    slope = (omega * inverse).sum(-1, keepdim=True)
    v = v + correction
    omega = omega + omega * correction
    step = torch.where(omega < 1, scaled - omega, v - tau).sum(-1, keepdim=True) / slope
    return tau + step, v + inverse * step, torch.maximum(step.abs().amax(), correction.abs().amax())


def _finish(scaled: Tensor, tau: Tensor, v: Tensor) -> Tensor:
    omega = v.exp()
    z = torch.where(omega < 1, scaled - omega, v - tau)
    slope = omega / (omega + 1)
    return z - slope * (z.sum(-1, keepdim=True) / slope.sum(-1, keepdim=True))


class Kernels:
    """The three phases, compiled once for any number of rows."""

    def __init__(self) -> None:
        """Wrap the phases; compilation happens on the first call."""
        self.start: Callable[..., tuple[Tensor, Tensor, Tensor]] = torch.compile(_start, dynamic=True)
        self.step: Callable[..., tuple[Tensor, Tensor, Tensor]] = torch.compile(_step, dynamic=True)
        self.finish: Callable[..., Tensor] = torch.compile(_finish, dynamic=True)

    def solve(self, y: Tensor, b: Tensor) -> Tensor:
        """Return the logits (n, K) for labels (n, K) and beta (n, 1)."""
        threshold = 0.1 * torch.finfo(y.dtype).eps ** 0.5
        scaled, tau, v = self.start(y, b)
        for _ in range(_MAX_NEWTON_STEPS):
            tau, v, moved = self.step(scaled, tau, v)
            if moved.item() <= threshold:
                break
        return self.finish(scaled, tau, v)
