"""The paper's claims, each measured on a trained network.

What is expected depends on the training: under mixup with cross entropy the closed form; under mixup with squared error
a straight line in the label, whose closed form that is; without mixing, the theory says nothing of mixed inputs.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from ufm.networks.comparison_result import Comparison
from ufm.runs.claims import Claim, ClaimKind
from ufm.runs.record import RunRecord, mode_words

# Bins in which theory and network are compared: beyond 0.9 the mean of a steep curve over a wide bin says little.
_LAMBDA_RANGE = (0.1, 0.9)
# A tenth: of the variance, of a norm, of the squared length (which is this angle, in degrees).
_TENTH, _ANGLE = 0.1, 18.4
_RELATIVE_ERROR, _PROBABILITY_ERROR, _FACTOR = 0.2, 0.05, 3.0
# R^2 within which two predictions count as level.
_TIE, _GAIN = 0.01, 0.05


Claims = Callable[[RunRecord, str], Iterable[Claim]]

_REGISTERED: list[Claims] = []


def register_claims(claims: Claims) -> None:
    """Have further claims made of every run, for the rest of the process.

    Parameters
    ----------
    claims : callable
        Takes a `RunRecord` and a mode, and returns claims.

    Raises
    ------
    ValueError
        If `claims` cannot be called.
    """
    if not callable(claims):
        raise ValueError(f"claims: got {type(claims).__name__}, expected a function of a run and a mode")
    if claims not in _REGISTERED:
        _REGISTERED.append(claims)


def network_claims(run: RunRecord) -> list[Claim]:
    """Return the claims of theory against network, which are reported as they come out: the run's own mode first."""
    first, *others = run.modes
    claims = [*_of_mode(run, first), *_layers(run), *_calibration(run)]
    for mode in others:
        claims += _of_mode(run, mode)
    return claims + [
        replace(claim, mode=mode) for further in _REGISTERED for mode in run.modes for claim in further(run, mode)
    ]


def _of_mode(run: RunRecord, mode: str) -> Iterator[Claim]:
    # First what separates mixup from its rivals: whether mixed inputs are convex combinations of class means.
    yield from _rival(run, mode)
    yield from _same_class(run, mode)
    yield from _different_class(run, mode)


def evidence(run: RunRecord, mode: str) -> str:
    """Return on which samples the figures of a mode rest, in words."""
    said, scored = run.recordings.get(mode, {}), run.comparisons[mode].samples
    which = f"{scored} of {said['samples']}" if "samples" in said else f"{scored}"
    return _sentence(run, mode, f"{which} samples, the other half fitted one number")


def _sentence(run: RunRecord, mode: str, samples: str) -> str:
    said = run.recordings.get(mode, {})
    seed = f"seed {said['seed']}" if "seed" in said else ""
    return ", ".join(word for word in (samples, said.get("data", ""), mode_words(mode), seed, "one run") if word)


def _claim(kind: ClaimKind, **fields: Any) -> Claim:
    return Claim(name=str(kind), kind=kind, **fields)


def _same_class(run: RunRecord, mode: str) -> Iterator[Claim]:
    comparison = run.comparisons[mode]
    rests = evidence(run, mode)
    if mode == run.mode:
        yield _claim(
            ClaimKind.CLASSIFIER_ETF,
            statement="The classifier is a simplex ETF: relative distance to the nearest one",
            measured=comparison.etf_error,
            relation="<=",
            threshold=_TENTH,
            evidence="the trained classifier, its rows less their mean, one run",
            mode=mode,
            reason="fixed to a simplex ETF in training" if run.training.fixed_etf else None,
        )
    collapse, said = comparison.collapse, run.recordings.get(mode, {})
    all_same = _sentence(run, mode, f"the same-class ones of {said.get('samples', 'all')} samples")
    missing = "a class has no same-class samples" if collapse is None else None
    for kind, statement, measured in (
        (ClaimKind.NC1, "Features of one class vary little: NC1", collapse and collapse.nc1),
        (ClaimKind.NC2, "Class means of same-class features form a simplex ETF: NC2", collapse and collapse.nc2),
        (ClaimKind.NC3, "Class means of same-class features align with the classifier: NC3", collapse and collapse.nc3),
    ):
        yield _claim(
            kind,
            statement=statement,
            measured=measured,
            relation="<=",
            threshold=_TENTH,
            evidence=all_same,
            mode=mode,
            reason=missing,
        )
    score = comparison.score(run.training.predicted_by)
    yield _claim(
        ClaimKind.SAME_CLASS_ANGLE,
        statement="Same-class features point along their class's row: mean angle to the nearest ETF's, in degrees",
        measured=score.angle_same,
        relation="<=",
        threshold=_ANGLE,
        evidence=rests,
        detail="the threshold is a tenth of the squared length",
        mode=mode,
        reason=None if math.isfinite(score.angle_same) else "no samples of one class",
    )


def _different_class(run: RunRecord, mode: str) -> Iterator[Claim]:
    training, comparison = run.training, run.comparisons[mode]
    rests, theory = evidence(run, mode), training.predicted_by
    unmixed = None if training.mixed else "trained without mixing, where the theory says nothing of mixed inputs"
    score, line = comparison.score(theory), comparison.score("straight line")
    bent = comparison.score("closed form")
    what = "the closed form (the channel)" if theory == "closed form" else "the squared error's closed form (a line)"
    lacking = "no samples of two classes" if math.isnan(score.r2_binned) else None
    fit = f"β = {comparison.beta:.3g}" + (", at the end of the range searched" if comparison.beta_at_edge else "")
    yield _claim(
        ClaimKind.CLOSED_FORM_R2,
        statement=f"Different-class logits follow {what}: R² of the means per class pair and λ bin",
        measured=score.r2_binned,
        relation=">=",
        threshold=1 - _TENTH,
        evidence=rests,
        detail=f"per sample {score.r2_mixed:.3f}; {fit if theory == 'closed form' else f'γ = {comparison.slope:.3g}'}",
        mode=mode,
        reason=unmixed or lacking,
    )
    yield _claim(
        ClaimKind.DIFFERENT_CLASS_ANGLE,
        statement=f"Different-class features point where {what} says: mean angle, in degrees",
        measured=score.angle_mixed,
        relation="<=",
        threshold=_ANGLE,
        evidence=rests,
        detail=f"closed form {bent.angle_mixed:.1f}°, straight line {line.angle_mixed:.1f}°",
        mode=mode,
        reason=unmixed or (None if math.isfinite(score.angle_mixed) else "no samples of several classes"),
    )
    for kind, quantity, statement, limit in (
        (
            ClaimKind.WIDTH,
            "width",
            "The channel's width across the decision boundary is as predicted",
            _RELATIVE_ERROR,
        ),
        (
            ClaimKind.DEPTH,
            "depth",
            "The channel's depth along the decision boundary is as predicted",
            _RELATIVE_ERROR,
        ),
        (ClaimKind.CONFIDENCE, "confidence", "Confidence on mixed inputs is as predicted", _PROBABILITY_ERROR),
    ):
        relative = kind is not ClaimKind.CONFIDENCE
        error = _curve_error(run, mode, quantity, relative)
        yield _claim(
            kind,
            statement=f"{statement}: mean error{' over mean' if relative else ''} for λ in (0.1, 0.9)",
            measured=error,
            relation="<=",
            threshold=limit,
            evidence=rests,
            detail=_departure_words(comparison) if theory == "closed form" else "",
            mode=mode,
            reason=unmixed or ("no samples there" if error is None else None),
        )
    yield _fit_free(run, mode, rests, unmixed)


def _departure_words(comparison: Comparison) -> str:
    """Return by which law the network departs from the closed form; empty in records from before it was measured."""
    return "" if comparison.departure is None else comparison.departure.words()


def _rival(run: RunRecord, mode: str) -> Iterator[Claim]:
    """Yield whether convex combinations of the class means explain mixed inputs better or worse, as is expected."""
    training, comparison = run.training, run.comparisons[mode]
    bent, line = comparison.score("closed form"), comparison.score("straight line")
    sign, threshold = -1, 0.0
    if not training.mixed:
        statement = "Without mixing there is no channel: R² of the straight line less that of the closed form"
    elif training.predicted_by == "straight line":
        threshold = -_TIE
        statement = (
            "With squared error, mixed inputs are convex combinations of class means: R² of the straight line less "
            "that of cross entropy's closed form"
        )
    else:
        sign = 1
        statement = (
            "Mixed inputs are no convex combinations of class means: R² of the closed form less that of the straight "
            "line"
        )
    for kind, which, key in (
        (ClaimKind.AHEAD_PER_SAMPLE, "per sample", "r2_mixed"),
        (ClaimKind.AHEAD_BINNED, "per pair and λ bin", "r2_binned"),
    ):
        curved, straight = getattr(bent, key), getattr(line, key)
        yield _claim(
            kind,
            statement=f"{statement}, {which}",
            measured=sign * (curved - straight),
            relation=">=",
            threshold=threshold,
            evidence=evidence(run, mode),
            detail=f"closed form {curved:.3f}, straight line {straight:.3f}",
            mode=mode,
            reason="no samples of several classes" if math.isnan(curved) else None,
        )


def _fit_free(run: RunRecord, mode: str, rests: str, unmixed: str | None) -> Claim:
    comparison = run.comparisons[mode]
    free, fitted = comparison.beta_fit_free, comparison.beta
    reason = unmixed
    if run.training.predicted_by != "closed form":
        reason = "squared error has no β"
    elif run.training.fixed_etf:
        reason = "a fixed classifier tells nothing"
    elif free is None:
        reason = reason or "no weight decay of the classifier is known, or none has such a classifier"
    return _claim(
        ClaimKind.FIT_FREE_BETA,
        statement="Classifier and weight decay alone tell β: factor between it and the fitted one",
        measured=None if free is None else max(free / fitted, fitted / free),
        relation="<=",
        threshold=_FACTOR,
        evidence=rests,
        detail="" if free is None else f"fit-free {free:.4g}, fitted {fitted:.4g}",
        mode=mode,
        reason=reason,
    )


def _curve_error(run: RunRecord, mode: str, quantity: str, relative: bool) -> float | None:
    """Return mean |theory - network|, over mean |network| if relative, over the bins of lambda in the middle."""
    curves = run.comparisons[mode].curves
    if not curves:
        return None
    network, theory = curves["network"], curves[run.training.predicted_by]
    inside = (network.lam > _LAMBDA_RANGE[0]) & (network.lam < _LAMBDA_RANGE[1]) & (network.count > 0)
    if not inside.any():
        return None
    measured, predicted = getattr(network, quantity)[inside], getattr(theory, quantity)[inside]
    error = float(np.abs(measured - predicted).mean())
    return error / float(np.abs(measured).mean()) if relative else error


def _layers(run: RunRecord) -> Iterator[Claim]:
    earlier = [layer for layer in run.layers if layer.name != "features"]
    seen = [(layer.name, layer.interpolation) for layer in earlier if layer.interpolation is not None]
    unmixed = None if run.training.mixed else "trained without mixing"
    none = None if earlier else "no earlier layers were recorded"
    rests = f"{len(earlier) or 'no'} earlier layers, outputs averaged over positions, eval mode, one run"
    yield _claim(
        ClaimKind.INTERPOLATION,
        statement="Earlier layers see mixup as manifold mixup, the mixture of their outputs on both inputs: lowest R²",
        measured=_end(np.min, [value for _, value in seen]),
        relation=">=",
        threshold=1 - _TENTH,
        evidence=rests,
        detail=", ".join(f"{name} {value:.2f}" for name, value in seen),
        mode=run.mode,
        reason=unmixed or none or (None if seen else "not measured"),
    )
    gains = [(layer.name, layer.channel - layer.line) for layer in earlier]
    yield _claim(
        ClaimKind.NO_CHANNEL,
        statement="Earlier layers are linear in the label, without a channel: largest gain in R² of channel over line",
        measured=_end(np.max, [gain for _, gain in gains]),
        relation="<=",
        threshold=_GAIN,
        evidence=rests,
        detail=", ".join(f"{name} {gain:.3f}" for name, gain in gains),
        mode=run.mode,
        reason=unmixed or none,
    )


def _end(end: Callable[[list[float]], np.floating], values: list[float]) -> float | None:
    """Return the smallest or largest of the values, NaN if one is, or None if there are none."""
    return float(end(values)) if values else None


def _calibration(run: RunRecord) -> Iterator[Claim]:
    found = run.calibration
    test = None if found is None else found.test
    # Without a temperature, training may still have measured the error on all test inputs.
    last = run.measured("test_ece") if test is None else None
    half = "half of the unmixed test inputs, the other fitted the temperature, 15 bins, one run"
    for kind, statement, measures, known in (
        (
            ClaimKind.CALIBRATION,
            "The network is calibrated as trained: expected calibration error",
            test and test.before,
            last,
        ),
        (
            ClaimKind.CALIBRATION_SCALED,
            "It is calibrated after temperature scaling: the same",
            test and test.after,
            None,
        ),
    ):
        error, detail = known, ""
        if measures is not None and test is not None:
            error = measures.ece
            detail = (
                f"accuracy {measures.accuracy:.3f}, confidence {measures.confidence:.3f}, T = {test.temperature:.2f}"
            )
        yield _claim(
            kind,
            statement=statement,
            measured=error,
            relation="<=",
            threshold=_PROBABILITY_ERROR,
            evidence=half if known is None else "all unmixed test inputs, after the last epoch, one run",
            detail=detail,
            mode=run.mode,
            reason="not measured" if error is None else None,
        )
    predicted = None if found is None else found.predicted
    seen = None if test is None else test.before.confidence
    known = seen is not None and predicted is not None
    reason = None if known else "not measured"
    if run.training.predicted_by != "closed form":
        reason = "squared error predicts no probabilities"
    elif not run.training.mixed:
        reason = "β was fitted to mixed inputs, of which nothing is predicted"
    yield _claim(
        ClaimKind.PREDICTED_CONFIDENCE,
        statement="Confidence on unmixed inputs is as predicted at the fitted β: difference of the means",
        measured=abs(seen - predicted.confidence) if seen is not None and predicted is not None else None,
        relation="<=",
        threshold=_PROBABILITY_ERROR,
        evidence=half,
        detail=f"network {seen:.3f}, predicted {predicted.confidence:.3f}" if seen and predicted else "",
        mode=run.mode,
        reason=reason,
    )
