"""Theory, solver and network on the same targets: how well each prediction explains a network's logits."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from scipy import optimize
from torch import Tensor

from ufm.activations import Activations
from ufm.arrays import check_integer, check_number
from ufm.collapse import ChannelCurve, Collapse, channel_curve, lambda_bin, multiplier_of, neural_collapse
from ufm.etf import NearestETF, nearest_etf
from ufm.laws import Law
from ufm.problem import UFM
from ufm.solvers import Message, Solution, solve
from ufm.special import prox_logsumexp
from ufm.targets import Targets
from ufm.theory import beta_from_classifier

_LOG_BETA_RANGE = (math.log(1e-3), math.log(1e12))


@dataclass(frozen=True)
class Score:
    """How well one prediction explains the network's logits on the scored half of the samples.

    name: of the prediction. parameters: how many numbers were fitted to the features. r2: coefficient of
    determination over all samples; r2_same, r2_mixed: over same- and different-class samples; r2_binned: of the mean
    logits per (class pair, bin of lambda) over different-class samples.
    """

    name: str
    parameters: int
    r2: float
    r2_same: float
    r2_mixed: float
    r2_binned: float


@dataclass(frozen=True)
class Comparison:
    """A network's activations held against the theory; see `compare`.

    beta: fitted. beta_at_edge: whether it lies at an end of the range that was searched, 1e-3 to 1e12: then no beta
    fits, and the network is far from the theory. beta_fit_free: implied by the classifier's size and weight decay
    alone, or None (no weight decay given, or no optimum has such a classifier). slope: gamma of the fitted straight
    line z = gamma (y - 1/K). multiplier: root mean squared row norm of the centred classifier. etf_error: relative
    distance of the classifier to its nearest simplex ETF. feature_decay: lambda_H that beta and multiplier
    imply. samples: scored. scores: one per prediction. curves: channel curves of the network and of each prediction.
    collapse: measures of neural collapse of all same-class features, or None if a class has none.
    solver_error: largest difference of logits between closed form and direct solve for the nearest ETF, or None.
    solver_converged: whether every direct solve converged, or None.
    """

    beta: float
    beta_at_edge: bool
    beta_fit_free: float | None
    slope: float
    multiplier: float
    etf_error: float
    feature_decay: float
    samples: int
    scores: list[Score]
    curves: dict[str, ChannelCurve] = field(repr=False)
    collapse: Collapse | None = None
    solver_error: float | None = None
    solver_converged: bool | None = None

    def score(self, name: str) -> Score:
        """Return the score of the prediction called `name`; raise KeyError if there is none."""
        return {score.name: score for score in self.scores}[name]


def compare(
    activations: Activations,
    law: Law,
    *,
    weight_decay: float | None = None,
    solver: bool = True,
    bins: int = 10,
) -> Comparison:
    """Hold a network's logits on mixed inputs against the closed form, the direct solver and a straight line.

    Logits are centred over the classes (softmax does not see the mean). Samples are split in halves at random (with
    a fixed seed): beta, and the straight line's slope, are fitted by least squares on one, everything is scored and
    every curve drawn on the other. Predictions:

        closed form            the proximal point of log-sum-exp at the fitted beta
        fit-free               the same at the beta implied by classifier and weight decay (if given)
        straight line          gamma (y - 1/K), as mean squared error would give; the rival, with one parameter too
        solver, nearest ETF    a direct solve of the UFM for the classifier's nearest ETF at the same lambda_H
        solver, own classifier a direct solve for the network's own centred classifier at the same lambda_H

    activations: from `record` or `load`. law: of the training labels, for the fit-free beta. weight_decay: lambda_W
    of the classifier, expectation convention. solver: whether to run the two direct solves. bins: of lambda.
    Raises ValueError if law and activations differ in the number of classes, K < 3, or there are too few samples.
    """
    if not isinstance(law, Law):
        raise ValueError(f"law: got {type(law).__name__}, expected a law such as Mixup(10)")
    K, d = activations.classifier.shape
    bins = check_integer("bins", bins, minimum=1)
    if law.num_classes != K:
        raise ValueError(f"law: got {law.num_classes} classes, expected {K} as the activations have")
    if K < 3 or d < K - 1:
        raise ValueError(f"activations: got a classifier of shape {(K, d)}, expected K >= 3 and d >= K-1")
    if weight_decay is not None:
        check_number("weight_decay", weight_decay, above=0)
    fit, scored = _halves(activations)
    labels, logits = activations.labels, _centre(activations.logits.double())
    beta = _fit_beta(labels[fit], logits[fit])
    straight = labels - 1 / K
    slope = ((straight[fit] * logits[fit]).sum() / straight[fit].square().sum()).item()

    classifier = activations.classifier.double()
    multiplier, etf = multiplier_of(classifier), nearest_etf(classifier)
    feature_decay = multiplier**2 * K / ((K - 1) * beta)
    beta_fit_free = None
    if weight_decay is not None:
        try:
            beta_fit_free = beta_from_classifier(law, weight_decay, multiplier)
        except ValueError:
            beta_fit_free = None

    y = labels[scored]
    predictions = {"closed form": (_closed_form(y, beta), 1)}
    if beta_fit_free is not None:
        predictions["fit-free"] = (_closed_form(y, beta_fit_free), 0)
    predictions["straight line"] = (slope * straight[scored], 1)
    solver_error = solver_converged = None
    if solver:
        ideal, own = _solve_both(y, classifier, etf, beta)
        predictions["solver, nearest ETF"] = (_centre(ideal.logits), 1)
        predictions["solver, own classifier"] = (_centre(own.logits), 1)
        solver_error = (ideal.logits - predictions["closed form"][0]).abs().max().item()
        solver_converged = ideal.converged and own.converged

    a, b, lam = (x[scored] for x in (activations.class_a, activations.class_b, activations.lam.double()))
    cells = _cells(a, b, lam, K, bins)
    curves = {"network": channel_curve(logits[scored], a, b, lam, bins=bins)}
    scores = []
    for name, (predicted, parameters) in predictions.items():
        curves[name] = channel_curve(predicted, a, b, lam, bins=bins)
        scores.append(_score(name, parameters, logits[scored], predicted, cells))
    return Comparison(
        beta=beta,
        beta_at_edge=min(abs(math.log(beta) - edge) for edge in _LOG_BETA_RANGE) < 1e-3,
        beta_fit_free=beta_fit_free,
        slope=slope,
        multiplier=multiplier,
        etf_error=etf.relative_error,
        feature_decay=feature_decay,
        samples=len(y),
        scores=scores,
        curves=curves,
        collapse=_collapse(activations),
        solver_error=solver_error,
        solver_converged=solver_converged,
    )


def _collapse(activations: Activations) -> Collapse | None:
    same = activations.class_a == activations.class_b
    classes = activations.class_a[same]
    if len(torch.unique(classes)) < len(activations.classifier):
        return None
    return neural_collapse(activations.features[same], classes, activations.classifier)


def _halves(activations: Activations) -> tuple[Tensor, Tensor]:
    N = len(activations.lam)
    mixed = activations.class_a != activations.class_b
    order = torch.randperm(N, generator=torch.Generator().manual_seed(0))
    halves = order[: N // 2], order[N // 2 :]
    if any(int(mixed[half].sum()) < 2 or int((~mixed[half]).sum()) < 2 for half in halves):
        raise ValueError(f"activations: got {N} samples, expected enough for several of each kind in both halves")
    return halves


def _centre(logits: Float[Tensor, "N K"]) -> Float[Tensor, "N K"]:
    return logits - logits.mean(1, keepdim=True)


def _closed_form(labels: Float[Tensor, "N K"], beta: float) -> Tensor:
    return torch.as_tensor(prox_logsumexp(labels, beta).logits)


def _fit_beta(labels: Float[Tensor, "N K"], logits: Float[Tensor, "N K"]) -> float:
    def error(log_beta: float) -> float:
        return (_closed_form(labels, math.exp(log_beta)) - logits).square().mean().item()

    # A coarse grid first: the error need not have a single minimum in beta for a network far from the theory.
    grid = np.linspace(*_LOG_BETA_RANGE, 36)
    best = int(np.argmin([error(t) for t in grid]))
    bounds = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    return math.exp(optimize.minimize_scalar(error, bounds=bounds, method="bounded", options={"xatol": 1e-6}).x)


def _solve_both(
    labels: Float[Tensor, "N K"], classifier: Float[Tensor, "K d"], etf: NearestETF, beta: float
) -> tuple[Solution, Solution]:
    """Solve for the nearest ETF and the centred classifier, each with the lambda_H that beta implies at its size."""
    K, d = classifier.shape

    def run(w: Tensor) -> Solution:
        feature_decay = multiplier_of(w) ** 2 * K / ((K - 1) * beta)
        problem = UFM(Targets(labels), d, 0.0, feature_decay, classifier=w)
        solution = solve(problem, tol=1e-9, max_iter=5000, device="cpu")
        if solution.message is Message.INTERRUPTED:
            raise KeyboardInterrupt
        return solution

    return run(torch.as_tensor(etf.classifier)), run(classifier - classifier.mean(0))


def _cells(a: Tensor, b: Tensor, lam: Tensor, num_classes: int, bins: int) -> Tensor:
    """Return the index of the (class pair a < b, bin of the weight of a) of each sample, -1 for same-class ones."""
    low, high = torch.minimum(a, b), torch.maximum(a, b)
    weight = torch.where(a < b, lam, 1 - lam)
    index = torch.from_numpy(lambda_bin(weight.numpy(), bins))
    return torch.where(a == b, -1, (low * num_classes + high) * bins + index)


def _score(name: str, parameters: int, logits: Tensor, predicted: Tensor, cells: Tensor) -> Score:
    same = cells < 0
    _, index = torch.unique(cells[~same], return_inverse=True)

    def means(values: Tensor) -> Tensor:
        total = values.new_zeros(int(index.max()) + 1, values.shape[1]).index_add_(0, index, values[~same])
        return total / torch.bincount(index).unsqueeze(-1)

    def r2(select: Callable[[Tensor], Tensor]) -> float:
        truth, guess = select(logits), select(predicted)
        total = (truth - truth.mean(0)).square().sum()
        return (1 - (truth - guess).square().sum() / total).item()

    return Score(name, parameters, r2(lambda z: z), r2(lambda z: z[same]), r2(lambda z: z[~same]), r2(means))
