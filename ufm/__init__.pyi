"""The public names, each with the module that holds it: read by type checkers, and at run time by `ufm`."""

from .labels.custom import (
    CustomLaw as CustomLaw,
)
from .labels.laws import (
    CutMix as CutMix,
)
from .labels.laws import (
    LabelSmoothing as LabelSmoothing,
)
from .labels.laws import (
    Law as Law,
)
from .labels.laws import (
    Mixup as Mixup,
)
from .labels.laws import (
    Unmixed as Unmixed,
)
from .labels.targets import (
    Orbits as Orbits,
)
from .labels.targets import (
    PairTargets as PairTargets,
)
from .labels.targets import (
    Targets as Targets,
)
from .networks.activations import (
    Activations as Activations,
)
from .networks.activations import (
    MixedBatch as MixedBatch,
)
from .networks.activations import (
    load as load,
)
from .networks.calibration import (
    CalibrationReport as CalibrationReport,
)
from .networks.calibration import (
    ConfidenceCurve as ConfidenceCurve,
)
from .networks.calibration import (
    MeasuredCalibration as MeasuredCalibration,
)
from .networks.calibration import (
    ReliabilityCurve as ReliabilityCurve,
)
from .networks.calibration import (
    Temperature as Temperature,
)
from .networks.calibration import (
    calibrate as calibrate,
)
from .networks.calibration import (
    confidence_curve as confidence_curve,
)
from .networks.calibration import (
    fit_temperature as fit_temperature,
)
from .networks.calibration import (
    measure_calibration as measure_calibration,
)
from .networks.channel import (
    Boundary as Boundary,
)
from .networks.channel import (
    ChannelCurve as ChannelCurve,
)
from .networks.channel import (
    ChannelPoints as ChannelPoints,
)
from .networks.channel import (
    boundary as boundary,
)
from .networks.channel import (
    channel_curve as channel_curve,
)
from .networks.channel import (
    channel_points as channel_points,
)
from .networks.comparison import (
    Comparison as Comparison,
)
from .networks.comparison import (
    compare as compare,
)
from .networks.departure import (
    Departure as Departure,
)
from .networks.departure import (
    WidthSplit as WidthSplit,
)
from .networks.departure import (
    measure_departure as measure_departure,
)
from .networks.layers import (
    LayerPattern as LayerPattern,
)
from .networks.layers import (
    interpolation_r2 as interpolation_r2,
)
from .networks.layers import (
    layer_pattern as layer_pattern,
)
from .networks.network_certificate import (
    NetworkCertificate as NetworkCertificate,
)
from .networks.network_certificate import (
    certify_network as certify_network,
)
from .networks.recording import (
    record as record,
)
from .networks.stationarity import (
    Stationarity as Stationarity,
)
from .networks.stationarity import (
    measure_stationarity as measure_stationarity,
)
from .prox import (
    Prox as Prox,
)
from .prox import (
    compile_kernels as compile_kernels,
)
from .prox import (
    prox_logsumexp as prox_logsumexp,
)
from .prox import (
    wright_omega as wright_omega,
)
from .solvers import (
    LBFGS as LBFGS,
)
from .solvers import (
    Adam as Adam,
)
from .solvers import (
    GradientDescent as GradientDescent,
)
from .solvers import (
    History as History,
)
from .solvers import (
    Message as Message,
)
from .solvers import (
    Momentum as Momentum,
)
from .solvers import (
    Newton as Newton,
)
from .solvers import (
    Point as Point,
)
from .solvers import (
    Solution as Solution,
)
from .solvers import (
    load_solution as load_solution,
)
from .solvers import (
    solve as solve,
)
from .solvers.certificate import (
    Certificate as Certificate,
)
from .solvers.certificate import (
    certify as certify,
)
from .solvers.problem import (
    UFM as UFM,
)
from .solvers.relaxation import (
    Relaxation as Relaxation,
)
from .solvers.relaxation import (
    nuclear_norm_optimum as nuclear_norm_optimum,
)
from .theory.calibration import (
    Calibration as Calibration,
)
from .theory.calibration import (
    calibration_at_penalties as calibration_at_penalties,
)
from .theory.calibration import (
    confidence as confidence,
)
from .theory.calibration import (
    entropy as entropy,
)
from .theory.calibration import (
    law_calibration as law_calibration,
)
from .theory.channel import (
    Channel as Channel,
)
from .theory.channel import (
    amplification as amplification,
)
from .theory.channel import (
    channel as channel,
)
from .theory.channel import (
    length_ratio as length_ratio,
)
from .theory.channel import (
    limit_shape as limit_shape,
)
from .theory.collapse import (
    Collapse as Collapse,
)
from .theory.collapse import (
    neural_collapse as neural_collapse,
)
from .theory.etf import (
    NearestETF as NearestETF,
)
from .theory.etf import (
    Plane as Plane,
)
from .theory.etf import (
    classifier_plane as classifier_plane,
)
from .theory.etf import (
    nearest_etf as nearest_etf,
)
from .theory.etf import (
    simplex_etf as simplex_etf,
)
from .theory.features import (
    Response as Response,
)
from .theory.features import (
    fixed_classifier as fixed_classifier,
)
from .theory.joint import (
    JointOptimum as JointOptimum,
)
from .theory.joint import (
    beta_for_confidence as beta_for_confidence,
)
from .theory.joint import (
    beta_from_classifier as beta_from_classifier,
)
from .theory.joint import (
    joint_optimum as joint_optimum,
)
from .theory.joint import (
    penalty_product as penalty_product,
)

__version__: str
__all__: list[str]
