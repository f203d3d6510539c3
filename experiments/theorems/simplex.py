"""Balanced classes: the simplex ETF is the global optimum, and one equation gives its size."""

import itertools
from typing import Any

import ufm
from experiments.theorems.theorem import Theorem

_K = 4
_DECAYS = ((5e-3, 5e-3), (2e-2, 1e-3), (1e-4, 3e-3))


def solve_deviation(laws: list[ufm.Law], loss: str = "cross_entropy", **fields: Any) -> float:
    """Return the largest relative distance of the certified optimum from the closed form's, of bound and ETF error too.

    Parameters
    ----------
    laws
        Laws of the label, symmetric in the classes.
    loss
        Name of a loss with closed forms.
    fields
        Further fields of `ufm.UFM`.

    Returns
    -------
    float
        Over all laws and penalties, the largest of: |F - F*| / F*, the certificate's relative gap, and the classifier's
        relative distance from an ETF.
    """
    worst = 0.0
    for law, (weight_decay, feature_decay) in itertools.product(laws, _DECAYS):
        optimum = ufm.joint_optimum(law, weight_decay, feature_decay, loss=loss, nodes=5)
        targets = law.targets(5)
        problem = ufm.UFM(targets, law.num_classes, weight_decay, feature_decay, loss=loss, **fields)
        found = ufm.solve(problem, tol=1e-14)
        etf = ufm.nearest_etf(found.classifier).relative_error
        distance = abs(found.objective - optimum.objective) / optimum.objective
        worst = max(worst, float(distance), found.certificate.relative_gap, etf)
    return worst


THEOREMS = (
    Theorem(
        name="Neural collapse with weight decay",
        sources=("zhu2021geometric", "papyan2020prevalence"),
        says="With one-hot labels and $\\lambda_W, \\lambda_H > 0$ every global optimum has a simplex ETF for its "
        "classifier, with features along its rows.",
        assumes="balanced classes, $d \\ge K - 1$, cross entropy",
        functions=("ufm.joint_optimum", "ufm.solve", "ufm.certify"),
        derivation="etf_is_optimal",
        test="tests/theory/test_joint.py::test_unmixed_threshold_and_relaxation_optimum",
        check=lambda: solve_deviation([ufm.Unmixed(_K)]),
        tolerance=1e-11,
        deviation="optimal value, gap and distance from an ETF",
    ),
    Theorem(
        name="The ETF is optimal under mixup",
        sources=("fisher2024pushing",),
        says="For every law of soft labels that permutations of the classes leave unchanged, the classifier of the "
        "global optimum is a simplex ETF: an assumption of the source, here a theorem.",
        assumes="symmetric law, $d \\ge K - 1$, cross entropy",
        functions=("ufm.joint_optimum", "ufm.solve", "ufm.certify"),
        derivation="etf_is_optimal",
        test="tests/runs/test_verification.py::test_everything_agrees_below_and_above_the_threshold",
        check=lambda: solve_deviation([ufm.Mixup(_K), ufm.Mixup(_K, 0.3), ufm.Mixup(_K, 2.0, ways=3)]),
        tolerance=1e-11,
        deviation="optimal value, gap and distance from an ETF",
    ),
    Theorem(
        name="Label smoothing",
        sources=("zhou2022losses",),
        says="Label smoothing keeps the simplex ETF and changes its size only.",
        assumes="balanced classes, $d \\ge K - 1$",
        functions=("ufm.LabelSmoothing", "ufm.joint_optimum"),
        derivation="etf_is_optimal",
        test="tests/theory/test_joint.py::test_unmixed_threshold_and_relaxation_optimum",
        check=lambda: solve_deviation([ufm.LabelSmoothing(_K, 0.1), ufm.LabelSmoothing(ufm.Mixup(_K), 0.2)]),
        tolerance=1e-11,
        deviation="optimal value, gap and distance from an ETF",
    ),
)
