"""One script per figure: `python -m figures` draws all of them, `python -m figures.NAME` one.

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
    "regime",
)
