"""Theory, solver and network on the same targets: how well predictions explain a network's logits and features."""

import math
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ufm._support.arrays import Array, check_integer, check_number
from ufm._support.pairs import ClassPairs, cell_means, check_bins, halves, r_squared
from ufm.labels.decoding import RecordedLaw, summarise_labels
from ufm.labels.laws import Law, check_law
from ufm.networks.activations import Activations, check_some, pairs_of
from ufm.networks.channel import boundary, channel_curve, channel_points
from ufm.networks.comparison_result import Comparison, Score
from ufm.networks.departure import measure_departure
from ufm.networks.network_certificate import certify_network
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
from ufm.networks.stationarity import measure_stationarity
from ufm.theory.collapse import Collapse, neural_collapse
from ufm.theory.inverse import beta_from_classifier

# A fitted number this close to an end of the searched range, in the logarithm, counts as lying at that end.
_EDGE = 1e-3


def compare(
    activations: Activations | None = None,
    law: Law | None = None,
    *,
    features: Float[Array, "N d"] | None = None,
    classifier: Float[Array, "K d"] | None = None,
    labels: Array | None = None,
    bias: Float[Array, "K"] | None = None,
    weight_decay: float | None = None,
    solver: bool = True,
    bins: int = 10,
    resamples: int = 0,
) -> Comparison:
    """Compare a network's logits and features on mixed inputs with closed form, direct solver and a straight line.

    Parameters
    ----------
    activations : Activations, optional
        From `record` or `load`. Without it, arrays of any framework.
    law : Law, optional
        Law of the training labels, for the fit-free beta. By default that of the recorded labels, made symmetric in the
        classes.
    features, classifier, labels, bias : arrays, optional
        The arguments of `Activations.of`: features (N, d), classifier (K, d), labels (N, K) or classes (N,), and a bias
        (K,) if there is one.
    weight_decay : float, optional
        lambda_W of the classifier in the expectation convention, > 0. Without it there is no fit-free prediction.
    solver : bool
        Whether to make the predictions "own classifier" and "solver, nearest ETF".
    bins : int
        Number of bins of lambda.
    resamples : int
        Number of bootstrap resamples for the bands of the network's curve; 0 for no bands.

    Returns
    -------
    Comparison
        Fitted parameters, scores and curves.

    Raises
    ------
    ValueError
        If law and activations differ in the number of classes, d < K-1, all rows of the classifier are equal, there are
        too few samples, or both activations and arrays are given.

    Notes
    -----
    The predictions all assume cross entropy, whatever the network was trained with:

    - "closed form": the proximal point of log-sum-exp at the fitted beta, with features for the nearest ETF.
    - "fit-free": the same at the beta that classifier and weight decay imply. Nothing is fitted.
    - "straight line": gamma (y - 1/K), as mean squared error would give. This is the rival.
    - "own classifier": optimal features for the network's own classifier and bias, lambda_H fitted.
    - "solver, nearest ETF": a direct solve of the UFM for the nearest ETF, which checks the closed form.

    Samples are split into random halves, always the same ones. The parameter of each prediction is fitted on one half
    by least squares of the logits; scores and curves come from the other half. Mixtures of the same images can be in
    both halves. Logits and classifier are centred over the classes, because softmax does not see the mean. Features,
    those of the network and the predicted ones, are centred over the scored samples.

    Examples
    --------
    A "network" that follows the theory exactly:

    >>> import torch
    >>> import ufm
    >>> a, b, lam = torch.arange(300) % 3, torch.arange(300) // 3 % 3, torch.arange(300) % 7 / 6
    >>> y = ufm.PairTargets(3, a, b, lam.double()).labels
    >>> W = ufm.simplex_etf(3)
    >>> response = ufm.fixed_classifier(W, y, feature_decay=0.05)
    >>> comparison = ufm.compare(features=response.features, classifier=W, labels=y, solver=False)
    >>> round(comparison.feature_decay, 4), round(comparison.score("closed form").r2, 4)
    (0.05, 1.0)
    """
    arrays = {"features": features, "classifier": classifier, "labels": labels, "bias": bias}
    activations = _given(activations, {name: value for name, value in arrays.items() if value is not None})
    check_some(activations)
    if law is None:
        law = RecordedLaw(activations.labels)
    check_law(law)
    K, d = activations.classifier.shape
    bins = check_bins(bins)
    check_integer("resamples", resamples, minimum=0, maximum=10**6)
    if law.num_classes != K:
        raise ValueError(f"law: got {law.num_classes} classes, expected {K} as the activations have")
    if d < K - 1:
        raise ValueError(
            f"activations: got a classifier of shape {(K, d)}, expected d >= K-1: in fewer dimensions no simplex ETF "
            "exists, and the closed form does not hold; `fixed_classifier` has the optimal features for any classifier"
        )
    if weight_decay is not None:
        check_number("weight_decay", weight_decay, above=0)
    pairs = pairs_of(activations)
    fit, scored = halves(pairs)
    y, logits = activations.labels, centred(activations.logits.double())
    head = Head.of(activations.classifier, activations.bias)
    beta, slope = fit_beta(y[fit], logits[fit]), fit_slope(y[fit], logits[fit])
    beta_fit_free = None
    if weight_decay is not None:
        # If the classifier is too large for this weight decay, no such beta exists.
        with suppress(ValueError):
            beta_fit_free = beta_from_classifier(law, weight_decay, head.multiplier)

    fitted, y = y[fit], y[scored]

    def of_etf(name: str, parameters: int, z: Tensor) -> Prediction:
        return Prediction(name, parameters, z, head.etf_features(z))

    predictions = [of_etf("closed form", 1, closed_form(y, beta))]
    if beta_fit_free is not None:
        predictions.append(of_etf("fit-free", 0, closed_form(y, beta_fit_free)))
    predictions.append(of_etf("straight line", 1, slope * (y - 1 / K)))
    solver_error = solver_converged = own_decay = None
    if solver:
        own_decay = fit_own_decay(head, fitted, logits[fit], beta)
        predictions.append(own_classifier(head, y, own_decay))
        solution, solver_converged = solved(head, y, beta)
        predictions.append(solution)
        solver_error = (solution.logits - predictions[0].logits).abs().max().item()

    features = _less_mean(activations.features[scored].double())
    pairs, in_pair = pairs[scored], activations.in_pair[scored]
    drawn = {"network": logits[scored]} | {prediction.name: prediction.logits for prediction in predictions}
    of_two = pairs[in_pair]
    # A channel needs classes beside the two.
    drawn = {name: z[in_pair] for name, z in drawn.items()} if K > 2 and bool(of_two.mixed().any()) else {}
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
        scores=[_score(one, logits[scored], features, pairs, in_pair, bins) for one in predictions],
        curves={
            name: channel_curve(z, *of_two.columns, bins=bins, resamples=resampled.get(name, 0))
            for name, z in drawn.items()
        },
        points={name: channel_points(z, *of_two.columns) for name, z in drawn.items()},
        boundaries={name: boundary(z, *of_two.columns) for name, z in drawn.items()},
        collapse=_collapse(activations, head),
        solver_error=solver_error,
        solver_converged=solver_converged,
        departure=None if K == 2 else measure_departure(activations, beta if beta_fit_free is None else beta_fit_free),
        certificate=None if weight_decay is None else certify_network(activations, weight_decay),
        stationarity=None if weight_decay is None else measure_stationarity(activations, weight_decay),
        labels=summarise_labels(activations.decoded),
    )


def _given(activations: Activations | None, arrays: dict[str, Any]) -> Activations:
    """Return the activations, or those made of arrays; raise ValueError unless one of the two is given."""
    if activations is not None:
        if not isinstance(activations, Activations):
            kind = type(activations).__name__
            raise ValueError(f"activations: got {kind}, expected what `record` or `load` returns, or features=...")
        if arrays:
            raise ValueError(f"{next(iter(arrays))}: got an array beside activations, expected one or the other")
        return activations
    if missing := [name for name in ("features", "classifier", "labels") if name not in arrays]:
        raise ValueError(f"{missing[0]}: got none, expected activations, or features, classifier and labels")
    return Activations.of(**arrays)


def _less_mean(features: Float[Tensor, "N d"]) -> Float[Tensor, "N d"]:
    return features - features.mean(0)


def _at_edge(ratio: float, log_factor: float) -> bool:
    return abs(abs(math.log(ratio)) - log_factor) < _EDGE


def _collapse(activations: Activations, head: Head) -> Collapse | None:
    same = (activations.class_a == activations.class_b) & activations.in_pair
    classes = activations.class_a[same]
    if len(torch.unique(classes)) < len(head.rows):
        return None
    return neural_collapse(activations.features[same], classes, head.rows, head.bias)


def _in_plane(features: Float[Tensor, "N d"], head: Head) -> float:
    return ((features @ head.basis).square().sum() / features.square().sum()).item()


def _score(
    prediction: Prediction,
    logits: Float[Tensor, "N K"],
    features: Float[Tensor, "N d"],
    pairs: ClassPairs,
    in_pair: Bool[Tensor, "N"],
    bins: int,
) -> Score:
    cells, mixed = pairs.cells(logits.shape[1], bins), pairs.mixed()
    of_two = mixed & in_pair
    _, index, count = torch.unique(cells[of_two], return_inverse=True, return_counts=True)

    def means(values: Tensor) -> Tensor:
        """Return, for each sample of two classes, the mean over its cell."""
        return cell_means(values[of_two], index, count)[index]

    def r2(select: Callable[[Tensor], Tensor]) -> float:
        chosen = select(logits)
        return r_squared(chosen, select(prediction.logits)) if len(chosen) > 1 else math.nan

    guess = _less_mean(prediction.features)
    length, predicted = (torch.linalg.vector_norm(h, dim=1) for h in (features, guess))
    cosine = (features * guess).sum(1) / (length * predicted)
    angle = torch.rad2deg(cosine.clamp(-1, 1).acos())
    difference = (length - predicted).abs()

    def relative(rows: Tensor) -> float:
        return (difference[rows].mean() / length[rows].mean()).item()

    same = ~mixed
    return Score(
        name=prediction.name,
        parameters=prediction.parameters,
        r2=r2(lambda z: z),
        r2_same=r2(lambda z: z[same]),
        r2_mixed=r2(lambda z: z[mixed]),
        r2_binned=r2(means),
        angle_same=angle[same].mean().item(),
        angle_mixed=angle[mixed].mean().item(),
        length_same=relative(same),
        length_mixed=relative(mixed),
    )
