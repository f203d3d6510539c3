"""Predictions of a network's logits and features, by the theory and by its rival, each with one fitted number."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy import optimize
from torch import Tensor

from ufm.labels.targets import Targets
from ufm.prox import prox_logsumexp
from ufm.solvers import Message, solve
from ufm.solvers.problem import UFM
from ufm.theory.collapse import multiplier_of
from ufm.theory.etf import NearestETF, nearest_etf
from ufm.theory.features import fixed_classifier

# Range in which beta is searched, in the logarithm.
LOG_BETA_RANGE = (math.log(1e-3), math.log(1e12))
# Number of samples to which lambda_H is fitted for the network's own classifier: each evaluation of the error is a
# Newton solve per sample.
_OWN_SAMPLES = 1000
# Logarithm of the factor by which that lambda_H may differ from the one that beta implies.
OWN_FACTOR = math.log(1e3)


@dataclass(frozen=True, eq=False)
class Prediction:
    """One prediction of a network's logits and features.

    Attributes
    ----------
    name : str
        Name of the prediction.
    parameters : int
        Number of parameters that were fitted to the network's logits.
    logits : (N, K) tensor
        Predicted logits, centred over the classes.
    features : (N, d) tensor
        Predicted features.
    """

    name: str
    parameters: int
    logits: Float[Tensor, "N K"]
    features: Float[Tensor, "N d"]


@dataclass(frozen=True, eq=False)
class Head:
    """A network's classifier, centred over the classes, because softmax does not see the mean; made by `of`.

    Attributes
    ----------
    rows : (K, d) tensor
        Centred weight matrix, in float64.
    bias : (K,) tensor or None
        Centred bias, in float64.
    """

    rows: Float[Tensor, "K d"]
    bias: Float[Tensor, "K"] | None

    @staticmethod
    def of(classifier: Float[Tensor, "K d"], bias: Float[Tensor, "K"] | None) -> "Head":
        """Centre a classifier; raise ValueError if all its rows are equal."""
        w = classifier.double()
        head = Head(w - w.mean(0), None if bias is None else bias.double() - bias.double().mean())
        if head.multiplier <= 1e-12 * w.abs().max().item():
            raise ValueError("classifier: got rows that are all equal, expected some that differ")
        return head

    @cached_property
    def multiplier(self) -> float:
        """The classifier's size: root mean squared row norm."""
        return multiplier_of(self.rows)

    @cached_property
    def etf(self) -> NearestETF:
        """The nearest simplex ETF."""
        return nearest_etf(self.rows)

    def feature_decay(self, beta: float) -> float:
        """Return the lambda_H that a beta implies for the classifier's size."""
        K = len(self.rows)
        return self.multiplier**2 * K / ((K - 1) * beta)

    @property
    def basis(self) -> Float[Tensor, "d r"]:
        """An orthonormal basis of the row space, in which all predicted features lie."""
        _, s, vh = torch.linalg.svd(self.rows, full_matrices=False)
        return vh[s > 1e-10 * s[0]].T

    @property
    def etf_rows(self) -> Float[Tensor, "K d"]:
        """The nearest ETF scaled to the classifier's size; its own multiplier is smaller unless W is an ETF."""
        return torch.as_tensor(self.etf.classifier) * (self.multiplier / self.etf.multiplier)

    def etf_features(self, logits: Float[Tensor, "N K"]) -> Float[Tensor, "N d"]:
        """Return the features of least norm that `etf_rows` maps to the given centred logits."""
        K = len(self.rows)
        return (K - 1) / (K * self.multiplier**2) * logits @ self.etf_rows


def centred(logits: Float[Tensor, "N K"]) -> Float[Tensor, "N K"]:
    """Return logits less their mean over the classes, which softmax does not see."""
    return logits - logits.mean(1, keepdim=True)


def closed_form(labels: Float[Tensor, "N K"], beta: float) -> Float[Tensor, "N K"]:
    """Return the optimal logits for a simplex ETF."""
    return torch.as_tensor(prox_logsumexp(labels, beta).logits)


def fit_log(error: Callable[[float], float], bounds: tuple[float, float], points: int) -> float:
    """Return exp(t) for the t that minimises `error`, found on a grid and then refined.

    Parameters
    ----------
    error : callable
        Error as a function of t.
    bounds : pair of float
        Range of t.
    points : int
        Number of grid points.

    Returns
    -------
    float
        The fitted number, accurate to about 1e-6 relative.
    """
    # For a network far from the theory the error may have several local minima, hence the grid.
    grid = np.linspace(*bounds, points)
    best = int(np.argmin([error(t) for t in grid]))
    ends = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    found: Any = optimize.minimize_scalar(error, bounds=ends, method="bounded", options={"xatol": 1e-6})
    return math.exp(found.x)


def fit_beta(labels: Float[Tensor, "N K"], logits: Float[Tensor, "N K"]) -> float:
    """Return the beta whose closed form fits centred logits best, in least squares."""

    def error(log_beta: float) -> float:
        return (closed_form(labels, math.exp(log_beta)) - logits).square().mean().item()

    return fit_log(error, LOG_BETA_RANGE, 36)


def fit_slope(labels: Float[Tensor, "N K"], logits: Float[Tensor, "N K"]) -> float:
    """Return the gamma whose straight line gamma (y - 1/K) fits centred logits best, in least squares."""
    straight = labels - 1 / labels.shape[1]
    return ((straight * logits).sum() / straight.square().sum()).item()


def fit_own_decay(head: Head, labels: Float[Tensor, "N K"], logits: Float[Tensor, "N K"], beta: float) -> float:
    """Return the lambda_H for which the optimal features of the network's own classifier fit its logits best.

    The search covers a factor of 1000 around the value that beta implies, and uses the first 1000 samples.
    """
    y, z = labels[:_OWN_SAMPLES], logits[:_OWN_SAMPLES]

    def error(log_decay: float) -> float:
        return (own_classifier(head, y, math.exp(log_decay)).logits - z).square().mean().item()

    middle = math.log(head.feature_decay(beta))
    return fit_log(error, (middle - OWN_FACTOR, middle + OWN_FACTOR), 13)


def own_classifier(head: Head, labels: Float[Tensor, "N K"], feature_decay: float) -> Prediction:
    """Return the optimal features for the network's own classifier and bias, found by Newton's method."""
    response = fixed_classifier(head.rows, labels, feature_decay, bias=head.bias)
    return Prediction(
        "own classifier", 1, centred(torch.as_tensor(response.logits)), torch.as_tensor(response.features)
    )


def solved(head: Head, labels: Float[Tensor, "N K"], beta: float) -> tuple[Prediction, bool]:
    """Return a direct solve of the UFM for `head.etf_rows` at the lambda_H that beta implies, and if it converged."""
    etf = head.etf_rows
    problem = UFM(Targets(labels), etf.shape[1], 0.0, head.feature_decay(beta), classifier=etf)
    solution = solve(problem, tol=1e-9, max_iter=5000, device="cpu")
    if solution.message is Message.INTERRUPTED:
        raise KeyboardInterrupt
    return Prediction("solver, nearest ETF", 1, centred(solution.logits), solution.features), solution.converged
