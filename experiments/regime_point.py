"""The figures of one point of the regime suite, from what was recorded of its network."""

import math
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

import ufm
from experiments.training import TrainConfig
from experiments.training.loop import learning_rate

_RATE_GRID = 1000


def point_figures(
    config: TrainConfig, activations: ufm.Activations, test_logits: Float[Tensor, "M K"], test_classes: Int[Tensor, "M"]
) -> dict[str, Any]:
    """Return every figure of a point, as JSON has it.

    Lists over bins are over the weight of the heavier class, .5 to .6, ..., .9 to 1, different-class samples only. What
    has no meaning for the network is None: figures of cross entropy for one trained with squared error, those that need
    lambda_W for one whose classifier is fixed.

    Parameters
    ----------
    config
        How the network was trained.
    activations
        Of mixed training images.
    test_logits, test_classes
        Of unmixed test images (M, K) and (M,).

    Returns
    -------
    dict
        architecture, width, dim, depth, steps, batch_size, seed, mixing, loss, fixed_etf, alpha, smoothing,
        num_classes, learning_rate, weight_decay: how it was trained. decay_times: sum over the steps of rate times
        decay.

        excess_loss: E[CE - H(y)] = E KL(y || p). excess_same: the same over same-class samples. excess_theory: the
        same of the closed form at the beta that width_beta names, below which weight decay lets none come.
        r2_closed_form, r2_fit_free, r2_line: of the centred logits, see `ufm.compare`; r2_mixed_fit_free over
        different-class samples; r2_binned, r2_binned_fit_free, r2_binned_line: of the means per pair and bin. lead:
        r2_closed_form - r2_line. etf_error, nc1, nc2, nc3, in_plane, multiplier, beta_fitted, beta_fit_free, slope.

        width_beta: "fit-free" or "fitted", the beta of the closed form in the next ones (the latter where the former is
        None). excess_expected, calibration_slope, sharpness: of `ufm.measure_departure`. width_ratio, depth_ratio: mean
        width (of the heavier class over the lighter one) and depth per bin over those of the closed form on the same
        samples. channel_width, channel_depth: the means. width_bias, width_spread, and the same of the theory: the
        parts of the width that are not the labels'. leak, leak_theory: probability of classes not in the label.

        stationarity: E[(y - p) . W h]. decay_term: lambda_W ||W||^2, equal to it at a stationary classifier.
        stationarity_residual, stationarity_angle: of `ufm.measure_stationarity`. feature_decay: lambda_H from
        balancedness. objective, certificate_gap, certificate_open (`open_share`), and bounds on feature_distance =
        E||h - h*||^2, with h* the optimal features for the network's own classifier: certified_distance by the gap to
        the global minimum, inner_distance by that for the own classifier, curvature_distance by the curvature too; see
        `ufm.certify_network`. feature_square: E||h||^2.

        test_accuracy, test_confidence, ece, test_nll: of the unmixed test images.
    """
    figures = _configuration(config, activations) | _calibration(config, test_logits, test_classes)
    law = config.law(activations.logits.shape[1])
    comparison = ufm.compare(activations, law, weight_decay=config.classifier_decay, solver=False)
    scores = {score.name: score for score in comparison.scores}
    closed, free = scores["closed form"], scores.get("fit-free")
    collapse = comparison.collapse
    figures |= {
        "r2_closed_form": closed.r2,
        "r2_fit_free": free.r2 if free else None,
        "r2_line": scores["straight line"].r2,
        "r2_mixed_fit_free": free.r2_mixed if free else None,
        "r2_binned": closed.r2_binned,
        "r2_binned_line": scores["straight line"].r2_binned,
        "r2_binned_fit_free": free.r2_binned if free else None,
        "lead": closed.r2 - scores["straight line"].r2,
        "etf_error": comparison.etf_error,
        "nc1": collapse.nc1 if collapse else None,
        "nc2": collapse.nc2 if collapse else None,
        "nc3": collapse.nc3 if collapse else None,
        "in_plane": comparison.in_plane,
        "multiplier": comparison.multiplier,
        "beta_fitted": comparison.beta,
        "beta_fit_free": comparison.beta_fit_free,
        "slope": comparison.slope,
    }
    departure, certificate, rest = comparison.departure, comparison.certificate, comparison.stationarity
    name = "fitted" if comparison.beta_fit_free is None else "fit-free"
    if config.loss != "cross_entropy" or departure is None:
        figures |= dict.fromkeys(("width_beta", *_DEPARTURE))
    else:
        figures |= {"width_beta": name} | _departure(activations, departure)
    if certificate is None or rest is None:
        figures |= dict.fromkeys(_CERTIFICATE)
    else:
        figures |= _certificate(certificate, rest)
    return {key: _plain(value) for key, value in figures.items()}


def _configuration(config: TrainConfig, activations: ufm.Activations) -> dict[str, Any]:
    sizes, optimiser = config.network.settings(), config.optimiser
    rates = [learning_rate(optimiser, config.epochs, config.epochs * (i + 0.5) / _RATE_GRID) for i in range(_RATE_GRID)]
    steps = None if config.epoch_steps is None else config.epochs * config.epoch_steps
    return {
        "architecture": config.network.architecture,
        "width": sizes.get("width"),
        "depth": sizes.get("depth"),
        "dim": activations.features.shape[1],
        "steps": steps,
        "batch_size": config.batch_size,
        "seed": config.seed,
        "mixing": config.mixing.kind,
        "loss": config.loss,
        "fixed_etf": config.network.etf_multiplier is not None,
        "alpha": config.mixing.alpha,
        "smoothing": config.mixing.smoothing,
        "num_classes": activations.logits.shape[1],
        "learning_rate": optimiser.learning_rate,
        "weight_decay": optimiser.weight_decay,
        "decay_times": None if steps is None else steps * optimiser.weight_decay * sum(rates) / len(rates),
    }


def _calibration(config: TrainConfig, logits: Float[Tensor, "M K"], classes: Int[Tensor, "M"]) -> dict[str, Any]:
    if config.loss != "cross_entropy":
        # Its outputs are no logits, so that they have no confidence.
        accuracy = (logits.argmax(1) == classes).double().mean().item()
        return {"test_accuracy": accuracy, "test_confidence": None, "ece": None, "test_nll": None}
    test = ufm.measure_calibration(logits, classes)
    return {
        "test_accuracy": test.accuracy,
        "test_confidence": test.confidence,
        "ece": test.ece,
        "test_nll": test.nll,
    }


_DEPARTURE = (
    "excess_loss",
    "excess_theory",
    "excess_expected",
    "calibration_slope",
    "sharpness",
    "excess_same",
    "channel_width",
    "channel_depth",
    "width_ratio",
    "depth_ratio",
    "width_bias",
    "width_spread",
    "width_bias_theory",
    "width_spread_theory",
    "leak",
    "leak_theory",
)


def _departure(activations: ufm.Activations, found: ufm.Departure) -> dict[str, Any]:
    y, z = activations.labels, activations.logits.double()
    divergence = (torch.special.xlogy(y, y) - y * torch.log_softmax(z, 1)).sum(1)
    network, theory = found.network, found.theory
    values = (
        found.excess,
        found.excess_theory,
        found.excess_expected,
        found.calibration_slope,
        found.sharpness,
        divergence[activations.class_a == activations.class_b].mean(),
        network.width,
        network.depth,
        found.width_ratio,
        [one / other for one, other in zip(network.depth, theory.depth, strict=True)],
        network.bias,
        network.spread,
        theory.bias,
        theory.spread,
        network.leak,
        theory.leak,
    )
    return dict(zip(_DEPARTURE, values, strict=True))


_CERTIFICATE = (
    "stationarity",
    "decay_term",
    "stationarity_residual",
    "stationarity_angle",
    "feature_decay",
    "objective",
    "certificate_gap",
    "certificate_open",
    "certified_distance",
    "feature_distance",
    "inner_gap",
    "inner_distance",
    "curvature_distance",
    "feature_square",
)


def _certificate(found: ufm.NetworkCertificate, rest: ufm.Stationarity) -> dict[str, Any]:
    values = (
        rest.pull,
        rest.decay_term,
        rest.residual,
        rest.angle,
        found.feature_decay,
        found.objective,
        found.gap,
        found.open_share,
        found.global_bound,
        found.distance,
        found.inner_gap,
        found.inner_bound,
        found.bound,
        found.feature_square,
    )
    return dict(zip(_CERTIFICATE, values, strict=True))


def _plain(value: Any) -> Any:
    """Return a number, text or list of numbers, None for what is not finite."""
    if isinstance(value, Tensor):
        value = value.tolist()
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
