"""One script per figure: `ufm figures`, `python -m figures`, or `python -m figures.NAME` for one of them.

Each module has `draw(results) -> Drawing`: it reads committed results, or computes what is cheap, and returns the
picture with its caption.
"""

NAMES = (
    # The paper's pictures.
    "agreement",
    "activations",
    "mixing",
    "fixed_etf",
    "pairs",
    "boundary",
    "convergence",
    "reliability",
    "layers",
    "layer_fit",
    "theory_features",
    # What goes beyond it.
    "channel",
    "limit_shape",
    "optimal_value",
    "collapse",
    "minority",
    "methods",
    "path",
    "calibration",
    "beta",
    "closeness",
)
