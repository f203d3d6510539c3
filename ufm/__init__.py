"""ufm: a theory toolkit for unconstrained features models.

Closed forms, certified direct solvers, and comparison with trained networks, for deep classifiers whose last-layer
features are free variables, trained with soft labels such as mixup's. Submodules load on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ufm.activations import Activations, MixedBatch, load
    from ufm.calibration import Calibration, calibration_at_penalties, confidence, entropy, law_calibration
    from ufm.certificate import Certificate, certify
    from ufm.channels import Boundary, ChannelCurve, ChannelPoints, boundary, channel_curve, channel_points
    from ufm.collapse import Collapse, neural_collapse
    from ufm.comparison import Comparison, compare
    from ufm.etf import NearestETF, Plane, classifier_plane, nearest_etf, simplex_etf
    from ufm.laws import CustomLaw, CutMix, LabelSmoothing, Law, Mixup, Unmixed
    from ufm.layers import LayerPattern, interpolation_r2, layer_pattern
    from ufm.problem import UFM
    from ufm.recording import record
    from ufm.relaxation import Relaxation, nuclear_norm_optimum
    from ufm.reliability import (
        CalibrationReport,
        ConfidenceCurve,
        MeasuredCalibration,
        ReliabilityCurve,
        Temperature,
        calibrate,
        confidence_curve,
        fit_temperature,
        measure_calibration,
    )
    from ufm.response import Response, fixed_classifier
    from ufm.shape import Channel, amplification, channel, length_ratio, limit_shape
    from ufm.solvers import (
        LBFGS,
        Adam,
        GradientDescent,
        History,
        Message,
        Momentum,
        Newton,
        Point,
        Solution,
        load_solution,
        solve,
    )
    from ufm.special import Prox, compile_kernels, prox_logsumexp, wright_omega
    from ufm.targets import Orbits, PairTargets, Targets
    from ufm.theory import JointOptimum, beta_for_confidence, beta_from_classifier, joint_optimum, penalty_product

__version__ = "0.1.0"

_MODULES = {
    "ufm.activations": ("Activations", "MixedBatch", "load"),
    "ufm.certificate": ("Certificate", "certify"),
    "ufm.calibration": ("Calibration", "calibration_at_penalties", "confidence", "entropy", "law_calibration"),
    "ufm.channels": ("Boundary", "ChannelCurve", "ChannelPoints", "boundary", "channel_curve", "channel_points"),
    "ufm.collapse": ("Collapse", "neural_collapse"),
    "ufm.comparison": ("Comparison", "compare"),
    "ufm.etf": ("NearestETF", "Plane", "classifier_plane", "nearest_etf", "simplex_etf"),
    "ufm.layers": ("LayerPattern", "interpolation_r2", "layer_pattern"),
    "ufm.laws": ("CustomLaw", "CutMix", "LabelSmoothing", "Law", "Mixup", "Unmixed"),
    "ufm.problem": ("UFM",),
    "ufm.recording": ("record",),
    "ufm.relaxation": ("Relaxation", "nuclear_norm_optimum"),
    "ufm.reliability": (
        "CalibrationReport",
        "ConfidenceCurve",
        "MeasuredCalibration",
        "ReliabilityCurve",
        "Temperature",
        "calibrate",
        "confidence_curve",
        "fit_temperature",
        "measure_calibration",
    ),
    "ufm.response": ("Response", "fixed_classifier"),
    "ufm.shape": ("Channel", "amplification", "channel", "length_ratio", "limit_shape"),
    "ufm.solvers": (
        "Adam",
        "GradientDescent",
        "History",
        "LBFGS",
        "Message",
        "Momentum",
        "Newton",
        "Point",
        "Solution",
        "load_solution",
        "solve",
    ),
    "ufm.special": ("Prox", "compile_kernels", "prox_logsumexp", "wright_omega"),
    "ufm.targets": ("Orbits", "PairTargets", "Targets"),
    "ufm.theory": (
        "JointOptimum",
        "beta_for_confidence",
        "beta_from_classifier",
        "joint_optimum",
        "penalty_product",
    ),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "Activations",
    "Adam",
    "Boundary",
    "Calibration",
    "CalibrationReport",
    "Certificate",
    "Channel",
    "ChannelCurve",
    "ChannelPoints",
    "Collapse",
    "Comparison",
    "ConfidenceCurve",
    "CustomLaw",
    "CutMix",
    "GradientDescent",
    "History",
    "JointOptimum",
    "LBFGS",
    "LabelSmoothing",
    "Law",
    "LayerPattern",
    "MeasuredCalibration",
    "Message",
    "MixedBatch",
    "Mixup",
    "Momentum",
    "NearestETF",
    "Newton",
    "Orbits",
    "PairTargets",
    "Plane",
    "Point",
    "Prox",
    "Relaxation",
    "ReliabilityCurve",
    "Response",
    "Solution",
    "Targets",
    "Temperature",
    "UFM",
    "Unmixed",
    "amplification",
    "beta_for_confidence",
    "beta_from_classifier",
    "boundary",
    "calibrate",
    "calibration_at_penalties",
    "certify",
    "channel",
    "channel_curve",
    "channel_points",
    "classifier_plane",
    "compare",
    "compile_kernels",
    "confidence",
    "confidence_curve",
    "entropy",
    "fit_temperature",
    "fixed_classifier",
    "interpolation_r2",
    "joint_optimum",
    "law_calibration",
    "layer_pattern",
    "length_ratio",
    "limit_shape",
    "load",
    "load_solution",
    "measure_calibration",
    "nearest_etf",
    "neural_collapse",
    "nuclear_norm_optimum",
    "penalty_product",
    "prox_logsumexp",
    "record",
    "simplex_etf",
    "solve",
    "wright_omega",
]


def __getattr__(name: str) -> Any:
    """Import the submodule that holds `name` on first use, so that `import ufm` is instant."""
    if name not in _HOME:
        raise AttributeError(f"module 'ufm' has no attribute {name!r}")
    # `from ufm.comparison import ...` binds the submodule `ufm.compare` here; the public name is what the user means.
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names."""
    return [*__all__, "__version__"]
