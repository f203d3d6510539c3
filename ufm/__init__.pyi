"""The public names, each with the module that holds it: read by type checkers, and at run time by `ufm`."""

from .labels.custom import (
    CustomLaw as CustomLaw,
)
from .labels.decoding import (
    DecodedLabels as DecodedLabels,
    LabelSummary as LabelSummary,
    decode_labels as decode_labels,
    summarise_labels as summarise_labels,
)
from .labels.laws import (
    CutMix as CutMix,
    LabelSmoothing as LabelSmoothing,
    Law as Law,
    Mixup as Mixup,
    Unmixed as Unmixed,
)
from .labels.targets import (
    Orbits as Orbits,
    PairTargets as PairTargets,
    Targets as Targets,
)
from .networks.activations import (
    Activations as Activations,
    MixedBatch as MixedBatch,
)
from .networks.calibration import (
    ConfidenceCurve as ConfidenceCurve,
    MeasuredCalibration as MeasuredCalibration,
    ReliabilityCurve as ReliabilityCurve,
    confidence_curve as confidence_curve,
    measure_calibration as measure_calibration,
)
from .networks.channel import (
    Boundary as Boundary,
    ChannelCurve as ChannelCurve,
    ChannelPoints as ChannelPoints,
    boundary as boundary,
    channel_curve as channel_curve,
    channel_points as channel_points,
)
from .networks.comparison import (
    compare as compare,
)
from .networks.comparison_result import (
    Comparison as Comparison,
)
from .networks.departure import (
    Departure as Departure,
    WidthSplit as WidthSplit,
    measure_departure as measure_departure,
)
from .networks.files import (
    load as load,
)
from .networks.layers import (
    LayerPattern as LayerPattern,
    interpolation_r2 as interpolation_r2,
    layer_pattern as layer_pattern,
)
from .networks.network_certificate import (
    NetworkCertificate as NetworkCertificate,
    certify_network as certify_network,
)
from .networks.recording import (
    record as record,
)
from .networks.stationarity import (
    Stationarity as Stationarity,
    measure_stationarity as measure_stationarity,
)
from .networks.streaming import (
    CollapseMetric as CollapseMetric,
    StreamedMeasures as StreamedMeasures,
)
from .networks.temperature import (
    CalibrationReport as CalibrationReport,
    Temperature as Temperature,
    calibrate as calibrate,
    fit_temperature as fit_temperature,
)
from .prox import (
    Prox as Prox,
    compile_kernels as compile_kernels,
    prox_logsumexp as prox_logsumexp,
    wright_omega as wright_omega,
)
from .runs.monitor import (
    Monitor as Monitor,
)
from .solvers import (
    LBFGS as LBFGS,
    Adam as Adam,
    GradientDescent as GradientDescent,
    History as History,
    Message as Message,
    Momentum as Momentum,
    Newton as Newton,
    Point as Point,
    Solution as Solution,
    load_solution as load_solution,
    solve as solve,
)
from .solvers.certificate import (
    Certificate as Certificate,
    certify as certify,
)
from .solvers.problem import (
    UFM as UFM,
)
from .solvers.relaxation import (
    Relaxation as Relaxation,
    nuclear_norm_optimum as nuclear_norm_optimum,
)
from .theory.calibration import (
    Calibration as Calibration,
    calibration_at_penalties as calibration_at_penalties,
    confidence as confidence,
    entropy as entropy,
    law_calibration as law_calibration,
)
from .theory.channel import (
    Channel as Channel,
    amplification as amplification,
    channel as channel,
    length_ratio as length_ratio,
    limit_shape as limit_shape,
)
from .theory.collapse import (
    Collapse as Collapse,
    neural_collapse as neural_collapse,
)
from .theory.etf import (
    NearestETF as NearestETF,
    Plane as Plane,
    classifier_plane as classifier_plane,
    nearest_etf as nearest_etf,
    simplex_etf as simplex_etf,
)
from .theory.features import (
    Response as Response,
    fixed_classifier as fixed_classifier,
)
from .theory.inverse import (
    beta_for_confidence as beta_for_confidence,
    beta_from_classifier as beta_from_classifier,
    penalty_product as penalty_product,
)
from .theory.joint import (
    JointOptimum as JointOptimum,
    joint_optimum as joint_optimum,
)

__version__: str
__all__: list[str]
