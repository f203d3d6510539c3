"""What theory and its rival say of a network's logits and features, each with its one number fitted to one half."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

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

LOG_BETA_RANGE = (math.log(1e-3), math.log(1e12))
# Samples on which lambda_H is fitted for the network's own classifier: each evaluation is a Newton solve per sample.
_OWN_SAMPLES = 1000
OWN_FACTOR = math.log(1e3)


@dataclass(frozen=True, eq=False)
class Prediction:
    """What one prediction says: name, how many numbers were fitted, centred logits (N, K), features (N, d)."""

    name: str
    parameters: int
    logits: Float[Tensor, "N K"]
    features: Float[Tensor, "N d"]


@dataclass(frozen=True, eq=False)
class Head:
    """A network's classifier with its rows centred: rows (K, d), bias (K,) centred or None, nearest ETF, multiplier.

    Raises ValueError if all rows are equal.
    """

    rows: Float[Tensor, "K d"]
    bias: Float[Tensor, "K"] | None
    etf: NearestETF = field(init=False)
    multiplier: float = field(init=False)

    def __init__(self, classifier: Float[Tensor, "K d"], bias: Float[Tensor, "K"] | None) -> None:
        """Centre the rows; softmax does not see their mean."""
        w = classifier.double()
        object.__setattr__(self, "rows", w - w.mean(0))
        object.__setattr__(self, "bias", None if bias is None else bias.double() - bias.double().mean())
        object.__setattr__(self, "multiplier", multiplier_of(self.rows))
        if self.multiplier <= 1e-12 * w.abs().max().item():
            raise ValueError("classifier: got rows that are all equal, expected some that differ")
        object.__setattr__(self, "etf", nearest_etf(self.rows))

    def feature_decay(self, beta: float) -> float:
        """Return the lambda_H that beta implies at the classifier's size."""
        K = len(self.rows)
        return self.multiplier**2 * K / ((K - 1) * beta)

    @property
    def basis(self) -> Float[Tensor, "d r"]:
        """An orthonormal basis of the rows' span, in which all predicted features lie."""
        _, s, vh = torch.linalg.svd(self.rows, full_matrices=False)
        return vh[s > 1e-10 * s[0]].T

    @property
    def etf_rows(self) -> Float[Tensor, "K d"]:
        """The nearest ETF, at the classifier's size: its own multiplier is smaller unless the classifier is an ETF."""
        return torch.as_tensor(self.etf.classifier) * (self.multiplier / self.etf.multiplier)

    def etf_features(self, logits: Float[Tensor, "N K"]) -> Float[Tensor, "N d"]:
        """Return the shortest features that `etf_rows` maps to centred logits."""
        K = len(self.rows)
        return (K - 1) / (K * self.multiplier**2) * logits @ self.etf_rows


def centred(logits: Float[Tensor, "N K"]) -> Float[Tensor, "N K"]:
    """Return logits with mean zero over the classes: softmax does not see the mean."""
    return logits - logits.mean(1, keepdim=True)


def closed_form(labels: Float[Tensor, "N K"], beta: float) -> Float[Tensor, "N K"]:
    """Return the optimal logits for a simplex ETF."""
    return torch.as_tensor(prox_logsumexp(labels, beta).logits)


def fit_log(error: Callable[[float], float], bounds: tuple[float, float], points: int) -> float:
    """Return exp(t) for the t within bounds that minimises `error`, searched on a grid and then refined.

    The grid comes first because the error need not have a single minimum for a network far from the theory.
    """
    grid = np.linspace(*bounds, points)
    best = int(np.argmin([error(t) for t in grid]))
    ends = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    return math.exp(optimize.minimize_scalar(error, bounds=ends, method="bounded", options={"xatol": 1e-6}).x)


def fit_beta(labels: Float[Tensor, "N K"], logits: Float[Tensor, "N K"]) -> float:
    """Return the beta whose closed form is nearest to centred logits, in mean square."""

    def error(log_beta: float) -> float:
        return (closed_form(labels, math.exp(log_beta)) - logits).square().mean().item()

    return fit_log(error, LOG_BETA_RANGE, 36)


def fit_slope(labels: Float[Tensor, "N K"], logits: Float[Tensor, "N K"]) -> float:
    """Return the gamma whose straight line gamma (y - 1/K) is nearest to centred logits, in mean square."""
    straight = labels - 1 / labels.shape[1]
    return ((straight * logits).sum() / straight.square().sum()).item()


def fit_own_decay(head: Head, labels: Float[Tensor, "N K"], logits: Float[Tensor, "N K"], beta: float) -> float:
    """Return the lambda_H at which the optimal features of the network's own classifier fit its logits best.

    Searched within a factor of 1000 of what beta implies, on the first thousand samples.
    """
    y, z = labels[:_OWN_SAMPLES], logits[:_OWN_SAMPLES]

    def error(log_decay: float) -> float:
        return (own_classifier(head, y, math.exp(log_decay)).logits - z).square().mean().item()

    middle = math.log(head.feature_decay(beta))
    return fit_log(error, (middle - OWN_FACTOR, middle + OWN_FACTOR), 13)


def own_classifier(head: Head, labels: Float[Tensor, "N K"], feature_decay: float) -> Prediction:
    """Return the optimal features for the network's own classifier and bias, by Newton's method on each."""
    response = fixed_classifier(head.rows, labels, feature_decay, bias=head.bias)
    return Prediction(
        "own classifier", 1, centred(torch.as_tensor(response.logits)), torch.as_tensor(response.features)
    )


def solved(head: Head, labels: Float[Tensor, "N K"], beta: float) -> tuple[Prediction, bool]:
    """Return a direct solve of the UFM for `head.etf_rows` at the lambda_H that beta implies; and if it converged."""
    etf = head.etf_rows
    problem = UFM(Targets(labels), etf.shape[1], 0.0, head.feature_decay(beta), classifier=etf)
    solution = solve(problem, tol=1e-9, max_iter=5000, device="cpu")
    if solution.message is Message.INTERRUPTED:
        raise KeyboardInterrupt
    return Prediction("solver, nearest ETF", 1, centred(solution.logits), solution.features), solution.converged
