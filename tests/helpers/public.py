"""One good call of each public function and class, and which of its arguments are arrays, integers and real numbers."""

import dataclasses
import inspect
import tempfile
import typing
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

import ufm
import ufm.plotting
from tests.helpers.networks import Foreign, batches, following_the_theory

# Exact in half precision, so that every kind of array can hold them.
N, K, D = 60, 3, 4
CLASSES, OTHERS = np.arange(N) % K, np.arange(N) // K % K
LAM = (np.arange(N) % 5) / 4
LABELS = np.asarray(ufm.PairTargets(K, CLASSES, OTHERS, LAM).labels)
SOFT = np.array([[0.25, 0.75, 0.0], [0.5, 0.25, 0.25], [0.0, 0.0, 1.0], [0.5, 0.5, 0.0]])
W = np.array([[2.0, 0.0, 0.5, 0.0], [0.0, 2.0, 0.0, 0.25], [0.0, 0.5, 2.0, 0.0]])
BIAS = np.array([0.25, 0.0, -0.5])
FEATURES = LABELS @ (W + 0.25) + np.arange(N * D).reshape(N, D) % 7 / 8
LOGITS = FEATURES @ W.T
PAIR = {"class_a": CLASSES, "class_b": OTHERS, "lam": LAM}
TARGETS = ufm.Targets(SOFT)
LAW = ufm.Mixup(K)


def _optimum() -> ufm.JointOptimum:
    return ufm.joint_optimum(LAW, 0.01, 0.01, nodes=4)


def _solution() -> ufm.Solution:
    return ufm.solve(_problem(), max_iter=3)


def _problem() -> ufm.UFM:
    return ufm.UFM(TARGETS, D, 0.01, 0.01)


def _updated(**arguments: Any) -> ufm.StreamedMeasures:
    metric = ufm.CollapseMetric(K, W)
    metric.update(**arguments)
    return metric.compute()


def _metric(**arguments: Any) -> ufm.StreamedMeasures:
    metric = ufm.CollapseMetric(**arguments)
    metric.update(FEATURES, CLASSES)
    return metric.compute()


def _panel(**arguments: Any) -> Any:
    return ufm.plotting.pair_figure(ufm.plotting.PairPanel("", **arguments)).axes[0].get_xlim()


def _recorded(**arguments: Any) -> ufm.Activations:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, D), nn.Linear(D, K))
    arguments.setdefault("features", lambda x: torch.as_tensor(FEATURES[: len(x)]))
    returned: Callable[..., Any] = lambda x: {"nothing": x}  # noqa: E731
    model.forward = returned
    return ufm.record(model, [(torch.ones(N, 6), torch.as_tensor(LABELS))], **arguments)


CALLS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "Activations.of": (
        ufm.Activations.of,
        {"features": FEATURES, "classifier": W, "labels": LABELS, "bias": BIAS, "logits": LOGITS + BIAS},
    ),
    "CollapseMetric": (_metric, {"num_classes": K, "classifier": W, "bias": BIAS, "class_means": W}),
    "CollapseMetric.update": (_updated, {"features": FEATURES, "labels": LABELS, "logits": LOGITS}),
    "CustomLaw": (lambda **x: ufm.CustomLaw(**x).targets(), {"labels": SOFT, "weights": np.full(4, 0.25)}),
    "JointOptimum.response": (lambda **x: _optimum().response(**x), {"labels": SOFT}),
    "PairTargets": (ufm.PairTargets, {"num_classes": K, **PAIR, "weights": (np.arange(N) % 3 + 1) / 120}),
    "Plane.project": (lambda **x: ufm.classifier_plane(W).project(**x), {"features": FEATURES}),
    "Solution.response": (lambda **x: _solution().response(**x), {"labels": SOFT}),
    "Targets": (ufm.Targets, {"labels": LABELS, "weights": (np.arange(N) % 3 + 1) / 120, **PAIR}),
    "UFM": (
        lambda **x: ufm.UFM(TARGETS, **x).classifier,
        {"dim": D, "weight_decay": 0.01, "feature_decay": 0.01, "classifier": W},
    ),
    "boundary": (ufm.boundary, {"logits": LOGITS, **PAIR}),
    "calibrate": (ufm.calibrate, {"logits": LOGITS, "classes": CLASSES}),
    "certify": (
        lambda **x: ufm.certify(ufm.UFM(TARGETS, D, 0.01, 0.01, bias_decay=0.5), **x),
        {"classifier": W, "features": FEATURES[:4], "bias": BIAS},
    ),
    "channel": (lambda lam: ufm.channel(lam, beta=5.0, num_classes=K), {"lam": (LAM + 0.5) / 2}),
    "channel_curve": (ufm.channel_curve, {"logits": LOGITS, **PAIR}),
    "channel_points": (ufm.channel_points, {"logits": LOGITS, **PAIR}),
    "classifier_plane": (ufm.classifier_plane, {"rows": W}),
    "compare": (
        lambda **x: ufm.compare(**x, solver=False, resamples=0).scores[0],
        {"features": FEATURES, "classifier": W, "labels": LABELS, "bias": BIAS},
    ),
    "confidence": (lambda lam: ufm.confidence(lam, beta=5.0, num_classes=K), {"lam": LAM}),
    "confidence_curve": (ufm.confidence_curve, {"logits": LOGITS, **PAIR}),
    "decode_labels": (ufm.decode_labels, {"labels": LABELS}),
    "entropy": (lambda lam: ufm.entropy(lam, beta=5.0, num_classes=K), {"lam": LAM}),
    "fit_temperature": (ufm.fit_temperature, {"logits": LOGITS, "classes": CLASSES}),
    "fixed_classifier": (
        lambda **x: ufm.fixed_classifier(feature_decay=0.125, **x),
        {"W": W, "labels": SOFT, "bias": BIAS},
    ),
    "interpolation_r2": (
        ufm.interpolation_r2,
        {"mixed": FEATURES, "first": FEATURES[::-1].copy(), "second": 2 * FEATURES, "lam": LAM},
    ),
    "length_ratio": (lambda lam: ufm.length_ratio(lam, beta=5.0, num_classes=K), {"lam": LAM}),
    "limit_shape": (ufm.limit_shape, {"labels": SOFT}),
    "measure_calibration": (ufm.measure_calibration, {"logits": LOGITS, "classes": CLASSES}),
    "nearest_etf": (ufm.nearest_etf, {"W": W}),
    "neural_collapse": (
        ufm.neural_collapse,
        {"features": FEATURES, "classes": CLASSES, "classifier": W, "bias": BIAS},
    ),
    "prox_logsumexp": (
        ufm.prox_logsumexp,
        {"labels": SOFT, "beta": np.array([1.0, 2.0, 4.0, 8.0]), "counts": np.ones((4, K))},
    ),
    "record": (_recorded, {"classifier": W, "bias": BIAS}),
    "summarise_labels": (ufm.summarise_labels, {"labels": LABELS}),
    "wright_omega": (ufm.wright_omega, {"x": np.arange(-8, 8) / 4}),
    "plotting.Line": (
        lambda **x: ufm.plotting.Line("", **x),
        {"lam": LAM, "width": LAM, "depth": LAM, "confidence": LAM},
    ),
    "plotting.PairPanel": (_panel, {"logits": LOGITS, **PAIR}),
    "plotting.PlanarPanel": (
        lambda **x: ufm.plotting.PlanarPanel("", **x),
        {"rows": W[:, :2], "mixed": FEATURES[:, :2], "lam": LAM, "same": FEATURES[:5, :2]},
    ),
    "plotting.planar_panel": (
        lambda **x: ufm.plotting.planar_panel("", **x),
        {"classifier": W, "features": FEATURES, **PAIR},
    ),
    "plotting.projected_panel": (
        lambda **x: ufm.plotting.projected_panel("", **x),
        {"rows": W[:, :2], "points": FEATURES[:, :2], **PAIR},
    ),
}


def public() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield every public function, constructor and method with its name; not those of plain results."""
    for prefix, module in (("", ufm), ("plotting.", ufm.plotting)):
        for name in module.__all__:
            found = getattr(module, name)
            if inspect.isclass(found):
                plain = dataclasses.is_dataclass(found) and found.__dataclass_params__.init  # pyright: ignore[reportAttributeAccessIssue]
                converts = hasattr(found, "__post_init__") or any(
                    not isinstance(value, type) and hasattr(value, "convert") for value in vars(found).values()
                )
                if not plain or converts or name == "PairPanel":
                    yield prefix + name, found.__init__
                for method, value in inspect.getmembers(found, inspect.isfunction):
                    if not method.startswith("_"):
                        yield f"{prefix}{name}.{method}", value
            elif inspect.isfunction(found):
                yield prefix + name, found


def has_array(annotation: Any) -> bool:
    """Return whether an annotation lets a NumPy array in."""
    if annotation is np.ndarray or getattr(annotation, "array_type", None) is np.ndarray:
        return True
    return any(map(has_array, typing.get_args(annotation)))


def arguments(function: Callable[..., Any], wanted: Callable[[Any], bool]) -> set[str]:
    """Return the arguments of a function whose annotation is as wanted."""
    hints = inspect.get_annotations(function)
    return {name for name, hint in hints.items() if name != "return" and wanted(hint)}


def _activations() -> ufm.Activations:
    return following_the_theory(20.0, K, N)


def _layered() -> ufm.Activations:
    base = _activations()
    return dataclasses.replace(base, layers={"layer": base.features})


def _law_method(name: str, law: Callable[[], ufm.Law]) -> Callable[..., Any]:
    return getattr(law(), name)


def _laws() -> dict[str, tuple[Callable[..., Any], dict[str, Any]]]:
    makers: dict[str, Callable[[], ufm.Law]] = {
        "Mixup": lambda: LAW,
        "CutMix": lambda: ufm.CutMix(K),
        "Unmixed": lambda: ufm.Unmixed(K),
        "LabelSmoothing": lambda: ufm.LabelSmoothing(LAW, 0.1),
        "CustomLaw": lambda: ufm.CustomLaw(np.full((1, K), 1 / K)),
    }
    return {
        f"{law}.{name}": (_law_method(name, maker), {"nodes": 3})
        for law, maker in makers.items()
        for name in ("targets", "pair_targets", "orbits")
        if hasattr(maker(), name)
    }


def _monitor(**arguments: Any) -> ufm.Monitor:
    with tempfile.TemporaryDirectory() as folder:
        return ufm.Monitor(Foreign(), batches(), out=folder, **arguments)


_LAM = {"lam": 0.75, "beta": 5.0, "num_classes": K}
# Good calls with every argument that is a number, and wrong laws and problems in the place of theirs.
NUMBERS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "Adam": (ufm.Adam, {"learning_rate": 0.1, "batch_size": 2, "epsilon": 1e-8}),
    "CollapseMetric": (ufm.CollapseMetric, {"num_classes": K, "smoothing": 0.1, "bins": 5}),
    "CutMix": (ufm.CutMix, {"num_classes": K, "alpha": 1.0, "ways": 2}),
    "JointOptimum.classifier": (lambda **x: _optimum().classifier(**x), {"dim": 3}),
    "JointOptimum.response": (lambda **x: _optimum().response(SOFT, **x), {"dim": 3}),
    "LBFGS": (ufm.LBFGS, {"memory": 5}),
    "LabelSmoothing": (ufm.LabelSmoothing, {"law": K, "smoothing": 0.1}),
    "Mixup": (ufm.Mixup, {"num_classes": K, "alpha": 1.0, "ways": 2}),
    "Momentum": (ufm.Momentum, {"learning_rate": 0.1, "batch_size": 2, "momentum": 0.9}),
    "Monitor": (_monitor, {"every": 1, "share": 0.1, "samples": 50, "weight_decay": 1e-3}),
    "PairTargets": (lambda **x: ufm.PairTargets(**PAIR, **x).labels, {"num_classes": K, "smoothing": 0.1}),
    "UFM": (
        lambda **x: ufm.solve(ufm.UFM(TARGETS, **x), max_iter=0),
        {"dim": D, "weight_decay": 0.01, "feature_decay": 0.01, "bias_decay": 0.0},
    ),
    "UFM of fixed norms": (
        lambda **x: ufm.UFM(TARGETS, D, 0.0, 0.0, **x),
        {"feature_norm": 1.0, "row_norm": 1.0},
    ),
    "Unmixed": (ufm.Unmixed, {"num_classes": K}),
    **_laws(),
    "Mixup.orbits of the continuous law": (lambda **x: LAW.orbits(None, **x), {"level": 3}),
    "amplification": (ufm.amplification, {"beta": 5.0, "num_classes": K}),
    "beta_for_confidence": (ufm.beta_for_confidence, {"confidence": 0.9, "num_classes": K}),
    "beta_from_classifier": (
        ufm.beta_from_classifier,
        {"law": LAW, "weight_decay": 1e-3, "multiplier": 1.0, "nodes": 4},
    ),
    "boundary": (lambda **x: ufm.boundary(LOGITS, **PAIR, **x), {"half_width": 1.0, "half_window": 0.1}),
    "calibrate": (lambda **x: ufm.calibrate(LOGITS, CLASSES, **x), {"bins": 5, "seed": 0}),
    "calibration_at_penalties": (
        ufm.calibration_at_penalties,
        {"law": ufm.Unmixed(K), "evaluated_on": ufm.Unmixed(K), "weight_decay": 0.01, "feature_decay": 0.01, "bins": 5},
    ),
    "certify_network": (
        lambda **x: ufm.certify_network(_activations(), **x),
        {"weight_decay": 1e-3, "feature_decay": 1e-3},
    ),
    "channel": (ufm.channel, _LAM),
    "channel_curve": (lambda **x: ufm.channel_curve(LOGITS, **PAIR, **x), {"bins": 5, "resamples": 2, "seed": 0}),
    "channel_points": (lambda **x: ufm.channel_points(LOGITS, **PAIR, **x), {"half_window": 0.1}),
    "compare": (
        lambda **x: ufm.compare(_activations(), **x, solver=False),
        {"law": LAW, "weight_decay": 1e-3, "bins": 5, "resamples": 0},
    ),
    "confidence": (ufm.confidence, _LAM),
    "confidence_curve": (lambda **x: ufm.confidence_curve(LOGITS, **PAIR, **x), {"bins": 5}),
    "decode_labels": (lambda **x: ufm.decode_labels(LABELS, **x), {"num_classes": K, "smoothing": 0.0}),
    "entropy": (ufm.entropy, _LAM),
    "fixed_classifier": (lambda **x: ufm.fixed_classifier(W, SOFT, **x), {"feature_decay": 0.1}),
    "joint_optimum": (
        ufm.joint_optimum,
        {"law": LAW, "weight_decay": 0.01, "feature_decay": 0.01, "nodes": 4, "samples": 1},
    ),
    "law_calibration": (ufm.law_calibration, {"law": LAW, "beta": 5.0, "bins": 5, "nodes": 4}),
    "layer_pattern": (lambda **x: ufm.layer_pattern(_layered(), "layer", **x), {"bins": 2}),
    "length_ratio": (ufm.length_ratio, _LAM),
    "measure_calibration": (lambda **x: ufm.measure_calibration(LOGITS, CLASSES, **x), {"bins": 5}),
    "measure_departure": (lambda **x: ufm.measure_departure(_activations(), **x), {"beta": 5.0, "bins": 5}),
    "measure_stationarity": (
        lambda **x: ufm.measure_stationarity(_activations(), **x),
        {"weight_decay": 1e-3, "decay_times": 3.0},
    ),
    "nuclear_norm_optimum": (
        ufm.nuclear_norm_optimum,
        {"problem": _problem(), "tol": 1e-3, "max_iter": 10_000},
    ),
    "penalty_product": (ufm.penalty_product, {"law": LAW, "beta": 5.0, "nodes": 4}),
    "prox_logsumexp": (lambda **x: ufm.prox_logsumexp(SOFT, **x), {"beta": 5.0}),
    "record": (
        lambda **x: ufm.record(Foreign(), batches(), **x),
        {"max_samples": 10},
    ),
    "simplex_etf": (ufm.simplex_etf, {"num_classes": K, "dim": 3, "multiplier": 1.0}),
    "solve": (
        ufm.solve,
        {"problem": _problem(), "tol": 1e-3, "gap_tol": 1e-3, "max_iter": 3, "seed": 0, "record": 1},
    ),
    "summarise_labels": (lambda **x: ufm.summarise_labels(LABELS, **x), {"num_classes": K}),
    "certify": (lambda problem: ufm.certify(problem, W, FEATURES[:4]), {"problem": _problem()}),
    "plotting.planar_figure": (
        lambda **x: ufm.plotting.planar_figure([ufm.plotting.planar_panel("", W, FEATURES, **PAIR)], **x),
        {"columns": 1},
    ),
    "plotting.reliability_figure": (
        lambda **x: ufm.plotting.reliability_figure(
            [ufm.plotting.ReliabilityPanel("", ufm.measure_calibration(LOGITS, CLASSES).curve)], **x
        ),
        {"columns": 1},
    ),
}
