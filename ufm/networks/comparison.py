"""Theory, solver and network on the same targets: how well each prediction explains a network's logits and features."""

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ufm._support.arrays import check_integer, check_number
from ufm._support.pairs import Pairs, halves, r_squared
from ufm.labels.laws import Law
from ufm.networks.activations import Activations
from ufm.networks.channel import Boundary, ChannelCurve, ChannelPoints, boundary, channel_curve, channel_points
from ufm.networks.predictions import (
    LOG_BETA_RANGE,
    OWN_FACTOR,
    Head,
    Prediction,
    centred,
    closed_form,
    fit_beta,
    fit_own_decay,
    fit_slope,
    own_classifier,
    solved,
)
from ufm.theory.collapse import Collapse, neural_collapse
from ufm.theory.joint import beta_from_classifier

# How near to an end of the searched range, in the logarithm, a fitted number counts as lying at it.
_EDGE = 1e-3


@dataclass(frozen=True)
class Score:
    """How well one prediction explains the network on the scored half of the samples.

    name: of the prediction. parameters: how many numbers were fitted to the logits. r2: coefficient of
    determination of the centred logits over all samples; r2_same, r2_mixed: over same- and different-class samples;
    r2_binned: of the mean logits per (class pair, bin of lambda) over different-class samples, each mean counting by
    its samples; it rises with the samples per mean, so that only recordings of one size compare. angle_same,
    angle_mixed: mean angle in degrees between the network's features and the predicted ones, each less their mean.
    length_same, length_mixed: mean absolute difference of the lengths of these over the mean length of the network's.
    """

    name: str
    parameters: int
    r2: float
    r2_same: float
    r2_mixed: float
    r2_binned: float
    angle_same: float
    angle_mixed: float
    length_same: float
    length_mixed: float


@dataclass(frozen=True)
class Comparison:
    """A network's activations held against the theory; see `compare`.

    beta: fitted. beta_at_edge: whether it lies at an end of the range that was searched, 1e-3 to 1e12: then no beta
    fits, and the network is far from the theory. beta_fit_free: implied by the classifier's size and weight decay
    alone, or None (no weight decay given, or no optimum has such a classifier). slope: gamma of the fitted straight
    line z = gamma (y - 1/K). multiplier: root mean squared row norm of the centred classifier. etf_error: relative
    distance of the classifier to its nearest simplex ETF. feature_decay: lambda_H that beta and multiplier imply.
    own_feature_decay: lambda_H fitted for the network's own classifier, or None. own_at_edge: whether it lies at an end
    of the range that was searched, 1/1000 to 1000 times feature_decay, or None. in_plane: share of the squared length
    of the features, less their mean, that lies in the classifier's row space, where all of the theory's do. samples:
    scored. scores: one per prediction. curves: channel curves of the network and of each prediction. points: width and
    depth near lambda = 0.5, 0.7 and 0.9 of each. boundaries: density and slope at the decision boundary of each.
    collapse: measures of neural collapse of all same-class features with the centred classifier, or None if a class has
    none. solver_error: largest difference of logits between closed form and direct solve for the nearest ETF, or None.
    solver_converged: whether that solve converged, or None.
    """

    beta: float
    beta_at_edge: bool
    beta_fit_free: float | None
    slope: float
    multiplier: float
    etf_error: float
    feature_decay: float
    own_feature_decay: float | None
    own_at_edge: bool | None
    in_plane: float
    samples: int
    scores: list[Score]
    curves: dict[str, ChannelCurve] = field(repr=False)
    points: dict[str, ChannelPoints] = field(repr=False)
    boundaries: dict[str, Boundary] = field(repr=False)
    collapse: Collapse | None = None
    solver_error: float | None = None
    solver_converged: bool | None = None

    def score(self, name: str) -> Score:
        """Return the score of the prediction called `name`; raise KeyError if there is none."""
        return {score.name: score for score in self.scores}[name]

    def table(self) -> list[dict[str, Any]]:
        """Return one row per prediction: its score, the channel near three lambdas, and the boundary.

        The first row is the network itself, whose score is None throughout. Entries are text, plain numbers (NaN where
        no sample is) or None; every row has the same keys.
        """
        scores: dict[str, dict[str, Any]] = {score.name: asdict(score) for score in self.scores}
        unscored = {name: None for name in next(iter(scores.values())) if name != "name"}
        rows = []
        for name, points in self.points.items():
            row = {"name": name, **unscored, **scores.get(name, {})}
            for i, lam in enumerate(points.lam):
                at = f"{100 * lam:.0f}"
                row |= {f"width_{at}": float(points.width[i]), f"depth_{at}": float(points.depth[i])}
            rows.append(row | asdict(self.boundaries[name]))
        return rows


def compare(
    activations: Activations,
    law: Law,
    *,
    weight_decay: float | None = None,
    solver: bool = True,
    bins: int = 10,
    resamples: int = 0,
) -> Comparison:
    """Hold a network's logits and features on mixed inputs against closed form, direct solver and a straight line.

    Logits and classifier are centred over the classes (softmax does not see the mean); features, the network's as much
    as the predicted ones, by their mean over the scored samples.
    Samples are split in halves at random (with a fixed seed): the one number of each prediction is fitted by least
    squares of the logits on one, everything is scored and every curve drawn on the other. Both halves may have mixtures
    of the same images. Predictions, all for cross entropy whatever the network was trained with:

        closed form           proximal point of log-sum-exp at the fitted beta; features for the nearest ETF
        fit-free              the same at the beta implied by classifier and weight decay (if given); nothing fitted
        straight line         gamma (y - 1/K), as mean squared error would give; the rival
        own classifier        optimal features for the network's own classifier and bias, lambda_H fitted
        solver, nearest ETF   a direct solve of the UFM for the nearest ETF, to check the closed form

    activations: from `record` or `load`. law: of the training labels, for the fit-free beta. weight_decay: lambda_W
    of the classifier, expectation convention. solver: whether to make the last two predictions. bins: of lambda.
    resamples: for bootstrap bands of the network's curve; 0 for none.
    Raises ValueError if law and activations differ in the number of classes, K < 3, all rows of the classifier are
    equal, or there are too few samples.
    """
    if not isinstance(law, Law):
        raise ValueError(f"law: got {type(law).__name__}, expected a law such as Mixup(10)")
    K, d = activations.classifier.shape
    bins = check_integer("bins", bins, minimum=1)
    check_integer("resamples", resamples, minimum=0)
    if law.num_classes != K:
        raise ValueError(f"law: got {law.num_classes} classes, expected {K} as the activations have")
    if K < 3 or d < K - 1:
        raise ValueError(f"activations: got a classifier of shape {(K, d)}, expected K >= 3 and d >= K-1")
    if weight_decay is not None:
        check_number("weight_decay", weight_decay, above=0)
    fit, scored = halves(activations)
    labels, logits = activations.labels, centred(activations.logits.double())
    head = Head(activations.classifier, activations.bias)
    beta, slope = fit_beta(labels[fit], logits[fit]), fit_slope(labels[fit], logits[fit])
    beta_fit_free = None
    if weight_decay is not None:
        # Too large a classifier for this weight decay: there is no such beta.
        with suppress(ValueError):
            beta_fit_free = beta_from_classifier(law, weight_decay, head.multiplier)

    y = labels[scored]

    def of_etf(name: str, parameters: int, z: Tensor) -> Prediction:
        return Prediction(name, parameters, z, head.etf_features(z))

    predictions = [of_etf("closed form", 1, closed_form(y, beta))]
    if beta_fit_free is not None:
        predictions.append(of_etf("fit-free", 0, closed_form(y, beta_fit_free)))
    predictions.append(of_etf("straight line", 1, slope * (y - 1 / K)))
    solver_error = solver_converged = own_decay = None
    if solver:
        own_decay = fit_own_decay(head, labels[fit], logits[fit], beta)
        predictions.append(own_classifier(head, y, own_decay))
        solution, solver_converged = solved(head, y, beta)
        predictions.append(solution)
        solver_error = (solution.logits - predictions[0].logits).abs().max().item()

    features = _less_mean(activations.features[scored].double())
    pairs = Pairs.of(activations, scored)
    drawn = {"network": logits[scored]} | {prediction.name: prediction.logits for prediction in predictions}
    resampled = {"network": resamples}
    return Comparison(
        beta=beta,
        beta_at_edge=min(abs(math.log(beta) - edge) for edge in LOG_BETA_RANGE) < _EDGE,
        beta_fit_free=beta_fit_free,
        slope=slope,
        multiplier=head.multiplier,
        etf_error=head.etf.relative_error,
        feature_decay=head.feature_decay(beta),
        own_feature_decay=own_decay,
        own_at_edge=None if own_decay is None else _at_edge(own_decay / head.feature_decay(beta), OWN_FACTOR),
        in_plane=_in_plane(features, head),
        samples=len(y),
        scores=[_score(prediction, logits[scored], features, pairs, bins) for prediction in predictions],
        curves={
            name: channel_curve(z, *pairs.columns, bins=bins, resamples=resampled.get(name, 0))
            for name, z in drawn.items()
        },
        points={name: channel_points(z, *pairs.columns) for name, z in drawn.items()},
        boundaries={name: boundary(z, *pairs.columns) for name, z in drawn.items()},
        collapse=_collapse(activations, head),
        solver_error=solver_error,
        solver_converged=solver_converged,
    )


def _less_mean(features: Float[Tensor, "N d"]) -> Float[Tensor, "N d"]:
    return features - features.mean(0)


def _at_edge(ratio: float, log_factor: float) -> bool:
    return abs(abs(math.log(ratio)) - log_factor) < _EDGE


def _collapse(activations: Activations, head: Head) -> Collapse | None:
    same = activations.class_a == activations.class_b
    classes = activations.class_a[same]
    if len(torch.unique(classes)) < len(head.rows):
        return None
    return neural_collapse(activations.features[same], classes, head.rows, head.bias)


def _in_plane(features: Float[Tensor, "N d"], head: Head) -> float:
    return ((features @ head.basis).square().sum() / features.square().sum()).item()


def _score(
    prediction: Prediction, logits: Float[Tensor, "N K"], features: Float[Tensor, "N d"], pairs: Pairs, bins: int
) -> Score:
    cells = pairs.cells(logits.shape[1], bins)
    same = cells < 0
    _, index = torch.unique(cells[~same], return_inverse=True)

    def means(values: Tensor) -> Tensor:
        """Return the mean over its cell for each different-class sample."""
        total = values.new_zeros(int(index.max()) + 1, values.shape[1]).index_add_(0, index, values[~same])
        return (total / torch.bincount(index).unsqueeze(-1))[index]

    def r2(select: Callable[[Tensor], Tensor]) -> float:
        return r_squared(select(logits), select(prediction.logits))

    guess = _less_mean(prediction.features)
    length, predicted = (torch.linalg.vector_norm(h, dim=1) for h in (features, guess))
    cosine = (features * guess).sum(1) / (length * predicted)
    angle = torch.rad2deg(cosine.clamp(-1, 1).acos())
    difference = (length - predicted).abs()

    def relative(rows: Tensor) -> float:
        return (difference[rows].mean() / length[rows].mean()).item()

    return Score(
        name=prediction.name,
        parameters=prediction.parameters,
        r2=r2(lambda z: z),
        r2_same=r2(lambda z: z[same]),
        r2_mixed=r2(lambda z: z[~same]),
        r2_binned=r2(means),
        angle_same=angle[same].mean().item(),
        angle_mixed=angle[~same].mean().item(),
        length_same=relative(same),
        length_mixed=relative(~same),
    )
