"""One good call of each public function and class, and which of its arguments are arrays, integers and real numbers."""

import dataclasses
import inspect
import typing
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

import ufm
import ufm.plotting

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
