"""ufm: a theory toolkit for unconstrained features models.

Closed forms, certified direct solvers, and comparison with trained networks, for deep classifiers whose last-layer
features are free variables, trained with soft labels such as mixup's. Submodules load on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ufm.activations import Activations, MixedBatch, load, record
    from ufm.calibration import Calibration, calibration_at_penalties, confidence, entropy, law_calibration
    from ufm.certificate import Certificate, certify
    from ufm.collapse import ChannelCurve, Collapse, channel_curve, neural_collapse
    from ufm.comparison import Comparison, compare
    from ufm.etf import NearestETF, Plane, classifier_plane, nearest_etf, simplex_etf
    from ufm.laws import CustomLaw, CutMix, LabelSmoothing, Law, Mixup, Unmixed
    from ufm.problem import UFM
    from ufm.relaxation import Relaxation, nuclear_norm_optimum
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
    "ufm.activations": ("Activations", "MixedBatch", "load", "record"),
    "ufm.certificate": ("Certificate", "certify"),
    "ufm.calibration": ("Calibration", "calibration_at_penalties", "confidence", "entropy", "law_calibration"),
    "ufm.collapse": ("ChannelCurve", "Collapse", "channel_curve", "neural_collapse"),
    "ufm.comparison": ("Comparison", "compare"),
    "ufm.etf": ("NearestETF", "Plane", "classifier_plane", "nearest_etf", "simplex_etf"),
    "ufm.laws": ("CustomLaw", "CutMix", "LabelSmoothing", "Law", "Mixup", "Unmixed"),
    "ufm.problem": ("UFM",),
    "ufm.relaxation": ("Relaxation", "nuclear_norm_optimum"),
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
    "Calibration",
    "Certificate",
    "Channel",
    "ChannelCurve",
    "Collapse",
    "Comparison",
    "CustomLaw",
    "CutMix",
    "GradientDescent",
    "History",
    "JointOptimum",
    "LBFGS",
    "LabelSmoothing",
    "Law",
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
    "Response",
    "Solution",
    "Targets",
    "UFM",
    "Unmixed",
    "amplification",
    "beta_for_confidence",
    "beta_from_classifier",
    "calibration_at_penalties",
    "certify",
    "channel",
    "channel_curve",
    "classifier_plane",
    "compare",
    "compile_kernels",
    "confidence",
    "entropy",
    "fixed_classifier",
    "joint_optimum",
    "law_calibration",
    "length_ratio",
    "limit_shape",
    "load",
    "load_solution",
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
