"""Measures of networks under attack, and oracles for their answers."""

from typing import Any

import numpy as np
import scipy.optimize
import scipy.special

import ufm
from experiments.fuzz.drawing import Arguments, Rng, Subject, close, labelled, pairs, power, size


def _classified(rng: Rng) -> Arguments:
    K = size(rng)
    rows = K * size(rng, 2, 8)
    scale = power(rng, -2, 2)
    return {"logits": rng.normal(size=(rows, K)) * scale, "classes": rng.permuted(np.arange(rows) % K)}


def _negative_log(given: Arguments, inverse: float) -> float:
    z = given["logits"] * inverse
    return float((scipy.special.logsumexp(z, axis=1) - z[np.arange(len(z)), given["classes"]]).mean())


def _temperature_wrong(given: Arguments, found: Any) -> str | None:
    if found.at_edge:
        return None
    near = np.log(1 / found.value)
    best = scipy.optimize.minimize_scalar(lambda u: _negative_log(given, np.exp(u)), bounds=(near - 3, near + 3))
    here, least = _negative_log(given, 1 / found.value), float(best.fun)  # pyright: ignore[reportAttributeAccessIssue]
    return f"loss {here} where {least} can be had" if here > least + 1e-6 * abs(least) + 1e-9 else None


def _calibration_wrong(given: Arguments, found: Any) -> str | None:
    p = scipy.special.softmax(given["logits"], 1)
    right = p.argmax(1) == given["classes"]
    wrong = close(found.confidence, p.max(1).mean(), 1e-5) or close(found.nll, _negative_log(given, 1.0), 1e-5, 1e-9)
    return wrong or close(found.accuracy, right.mean(), 1e-12)


def _measured(rng: Rng) -> Arguments:
    given = _classified(rng)
    K, rows, d = given["logits"].shape[1], len(given["logits"]), size(rng, 2, 12)
    return {
        "features": rng.normal(size=(rows, d)) + 3 * rng.normal(size=(K, d))[given["classes"]],
        "classes": given["classes"],
        "classifier": rng.normal(size=(K, d)),
    }


def _collapse_wrong(given: Arguments, found: Any) -> str | None:
    h, classes, W = given["features"], given["classes"], given["classifier"]
    means = np.stack([h[classes == k].mean(0) for k in range(len(W))])
    centred = means - means.mean(0)
    within = h - means[classes]
    expected = np.trace(
        within.T @ within / len(h) @ np.linalg.pinv(centred.T @ centred / len(W), hermitian=True)
    ) / len(W)
    return close(found.nc1, expected, 1e-6, 1e-12)


def _channelled(rng: Rng) -> Arguments:
    K = size(rng, 3, 6)
    rows = 60 * K
    return {"logits": rng.normal(size=(rows, K)) * power(rng, -2, 2), **pairs(rng, rows, K)}


def _compared(rng: Rng) -> Arguments:
    K, d = size(rng, 3, 5), size(rng, 5, 8)
    rows = 80 * K
    mixed = pairs(rng, rows, K)
    labels = np.zeros((rows, K))
    np.add.at(labels, (np.arange(rows), mixed["class_a"]), mixed["lam"])
    np.add.at(labels, (np.arange(rows), mixed["class_b"]), 1 - mixed["lam"])
    W = rng.normal(size=(K, d))
    return {"features": labels @ W + 0.1 * rng.normal(size=(rows, d)), "classifier": W, "labels": labels}


def _streamed(num_classes: Any, classifier: Any, features: Any, labels: Any) -> ufm.StreamedMeasures:
    metric = ufm.CollapseMetric(num_classes, classifier)
    metric.update(features, labels)
    return metric.compute()


def _stream(rng: Rng) -> Arguments:
    given = _measured(rng)
    return {"num_classes": len(given["classifier"]), "labels": given.pop("classes"), **given}


def _different(rng: Rng) -> Arguments:
    labels = labelled(rng)["labels"]
    return {"labels": np.concatenate([labels, np.eye(labels.shape[1])[:1]])}


def _interpolated(rng: Rng) -> Arguments:
    rows, d = size(rng, 3, 20), size(rng, 1, 5)
    return {name: rng.normal(size=(rows, d)) for name in ("mixed", "first", "second")} | {"lam": rng.random(rows)}


# NaN where there are more classes than a simplex ETF has room for, or a single sample.
_SIMPLEX = ("nc2", "etf_error")
_COUNTED = (
    "bin",
    "lam",
    "width",
    "depth",
    "confidence",
    "width_std",
    "depth_std",
    "weight",
    "curve",
    "channel",
    "accuracy",
)
NETWORKS: dict[str, Subject] = {
    "fit_temperature": Subject(ufm.fit_temperature, _classified, _temperature_wrong, 2, gaps=("value",)),
    "measure_calibration": Subject(ufm.measure_calibration, _classified, _calibration_wrong, 2, gaps=_COUNTED),
    "calibrate": Subject(ufm.calibrate, _classified, weight=0.5, gaps=(*_COUNTED, "temperature")),
    "neural_collapse": Subject(ufm.neural_collapse, _measured, _collapse_wrong, 2, gaps=_SIMPLEX),
    "CollapseMetric": Subject(_streamed, _stream, gaps=(*_COUNTED, *_SIMPLEX, "nc4", "excess", "ece")),
    "interpolation_r2": Subject(ufm.interpolation_r2, _interpolated),
    "boundary": Subject(ufm.boundary, _channelled, gaps=("slope", "amplification")),
    "channel_curve": Subject(ufm.channel_curve, _channelled, gaps=_COUNTED),
    "channel_points": Subject(ufm.channel_points, _channelled, gaps=_COUNTED),
    "confidence_curve": Subject(ufm.confidence_curve, _channelled, gaps=_COUNTED),
    "decode_labels": Subject(ufm.decode_labels, _different),
    "summarise_labels": Subject(ufm.summarise_labels, _different, gaps=("alpha", "alpha_error")),
    "Activations.of": Subject(ufm.Activations.of, _compared, weight=0.5),
    "compare": Subject(lambda **x: ufm.compare(**x, solver=False, resamples=0).collapse, _compared, weight=0.03),
    "measure_departure": Subject(
        lambda beta, **x: ufm.measure_departure(ufm.Activations.of(**x), beta).excess,
        lambda rng: _compared(rng) | {"beta": power(rng, 0, 4)},
        weight=0.1,
    ),
    "measure_stationarity": Subject(
        lambda weight_decay, **x: ufm.measure_stationarity(ufm.Activations.of(**x), weight_decay),
        lambda rng: _compared(rng) | {"weight_decay": power(rng, -5, -2)},
        weight=0.2,
    ),
    "certify_network": Subject(
        lambda weight_decay, **x: ufm.certify_network(ufm.Activations.of(**x), weight_decay, 1e-3).objective,
        lambda rng: _compared(rng) | {"weight_decay": power(rng, -5, -2)},
        weight=0.05,
    ),
}
