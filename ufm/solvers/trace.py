"""What a solve records beside objective and gradient: neural collapse and the channel."""

import math

import numpy as np
import torch
from torch import Tensor

from ufm.labels.targets import Targets
from ufm.solvers.method import Point
from ufm.solvers.problem import UFM
from ufm.theory.collapse import differ, neural_collapse
from ufm.theory.etf import nearest_etf

# A law with more mixing coefficients has no channel recorded.
_MAX_COEFFICIENTS = 128


class Trace:
    """Neural collapse of the features that are not mixed, and the channel's width and depth at each lambda.

    Attributes
    ----------
    problem : UFM
        The problem that is solved.
    lam : (L,) array
        The mixing coefficients among its targets; empty where no channel is recorded.
    pure : pair of (n,) tensors, optional
        The targets that are not mixed and their classes; None unless every class has one.
    mixed : pair of (m,) tensors, optional
        The mixed targets and the position in `lam` of the coefficient of each; None where no channel is recorded.
    """

    def __init__(self, problem: UFM) -> None:
        """Sort the targets."""
        self.problem = problem
        self.lam = np.zeros(0)
        targets = problem.targets
        self.pure: tuple[Tensor, Tensor] | None = None
        self.mixed: tuple[Tensor, Tensor] | None = None
        if not isinstance(targets, Targets):
            return
        K = targets.num_classes
        largest, classes = targets.labels.max(1)
        if targets.class_a is not None and targets.class_b is not None and targets.lam is not None:
            same = targets.class_a == targets.class_b
            classes = torch.where(same, targets.class_a, classes)
            lam, index = targets.lam[~same].round(decimals=12).unique(return_inverse=True)
            if K >= 3 and 0 < len(lam) <= _MAX_COEFFICIENTS:
                self.lam = lam.cpu().numpy()
                self.mixed = (~same).nonzero().squeeze(-1), index
        else:
            same = largest == 1
        if bool(same.any()) and len(classes[same].unique()) == K:
            self.pure = same.nonzero().squeeze(-1), classes[same]

    def of(self, point: Point) -> dict[str, float | np.ndarray]:
        """Return what is recorded at a point, by its name in `History`; NaN where the problem has no such number."""
        w, h = point.classifier, point.features
        K, d = w.shape
        found: dict[str, float | np.ndarray] = dict.fromkeys(("nc1", "nc2", "nc3", "etf_error"), math.nan)
        found |= {name: np.full(len(self.lam), math.nan) for name in ("width", "depth")}
        if not _has_shape(w):
            return found
        if d >= K - 1:
            found["etf_error"] = nearest_etf(w).relative_error
        if h is None or not bool(torch.isfinite(h).all()):
            return found
        if self.pure is not None and d >= K - 1 and _has_shape(h[self.pure[0]]):
            collapse = neural_collapse(h[self.pure[0]], self.pure[1], w)
            found |= {"nc1": collapse.nc1, "nc2": collapse.nc2, "nc3": collapse.nc3}
        if self.mixed is not None:
            found |= self._channel(h, w, point.bias)
        return found

    def _channel(self, h: Tensor, w: Tensor, bias: Tensor | None) -> dict[str, float | np.ndarray]:
        assert self.mixed is not None
        rows, index = self.mixed
        targets = self.problem.targets
        assert isinstance(targets, Targets)
        assert targets.class_a is not None
        assert targets.class_b is not None
        z = h[rows] @ w.T + (0.0 if bias is None else bias)
        weights = targets.weights[rows]
        za, zb = (z.gather(1, c[rows].unsqueeze(1)).squeeze(1) for c in (targets.class_a, targets.class_b))
        rest = (z.sum(1) - za - zb) / (z.shape[1] - 2)
        total = torch.bincount(index, weights, len(self.lam))
        means = (torch.bincount(index, weights * x, len(self.lam)) / total for x in (za - zb, (za + zb) / 2 - rest))
        width, depth = (x.cpu().numpy() for x in means)
        return {"width": width, "depth": depth}


def _has_shape(rows: Tensor) -> bool:
    """Return whether rows are finite, and not all equal."""
    return bool(torch.isfinite(rows).all()) and differ(rows)
