"""Derivations: one script per claim, each of which derives its claim with sympy and holds ufm against it.

Run one with `python -m derivations.fixed_etf`; render all of them with `python -m derivations.render`.
"""

# In the order in which the rendered document presents them; later claims lean on earlier ones.
NAMES = (
    "fixed_etf",
    "uniqueness",
    "same_class",
    "different_class",
    "implicit_constant",
    "channel",
    "etf_is_optimal",
    "joint_scalar_equation",
    "threshold",
    "optimal_value",
    "duality_gap",
    "constraints",
    "elimination",
    "minority_collapse",
    "mean_squared_error",
    "fit_free_beta",
    "straight_line",
    "network_certificate",
    "departure",
)
