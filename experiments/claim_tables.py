"""The README's claims: what is proved, and what holds of networks with and without a fit of their mixed labels."""

from collections.abc import Callable, Sequence
from typing import Any

from experiments.committed import DATA, KINDS, Committed, calibration_of, span
from ufm.reports.tables import Row, Table
from ufm.runs.claims import Claim, ClaimKind


def claims_table(results: Committed) -> Table:
    """Return what is proved, with what it rests on and the figure that was measured."""
    return Table("Claims", ("claim", "derived in, held against", "figure"), tuple(_theory(results)))


def network_claims_table(results: Committed) -> Table:
    """Return the claims on networks: those that have fitted their mixed labels beside those that have not."""
    header = ("claim, and what is shown", "have fitted their labels", "", "have not", "")
    return Table("Claims on networks", header, tuple(_networks(results)))


def _theory(results: Committed) -> list[Row]:
    exactness, joint, precision, minority = (
        results.json(name)
        for name in (
            "exactness/exactness.json",
            "joint/joint.json",
            "solver/precision.json",
            "minority/minority.json",
        )
    )
    agree = sum(point["collapsed"] == point["closed_form"]["collapsed"] for point in results.collapse)
    ulp = max(kind["logits_max_ulp"] for kind in exactness["kinds"].values())
    gap = max(row["relative_gap"] for row in precision["rows"])
    stuck = sum(row["stuck"] for row in precision["worst"])
    largest = max(minority["config"]["ratios"])
    # Where the predicted ratio lies beyond all that were solved, nothing could contradict it.
    curve = [point for point in minority["points"] if point["predicted_collapse_ratio"] <= largest]
    beyond = sum(point["ratio"] >= point["predicted_collapse_ratio"] for point in curve)
    predicted = sum(
        (point["spread_rare"] < 1e-6) == (point["ratio"] >= point["predicted_collapse_ratio"]) for point in curve
    )
    return [
        (
            "The optimal features for a fixed simplex ETF are closed up to one scalar, for any soft label",
            "[derivation](derivations/fixed_etf.py); 96-digit interval arithmetic",
            f"{exactness['config']['cases']:,} labels, at most {ulp:.0f} ulp off",
        ),
        (
            "The ETF is no assumption: every global optimum that is not zero has it, with a size from one scalar "
            "equation (law symmetric in the classes, d ≥ K - 1)",
            "[derivation](derivations/etf_is_optimal.py); direct solves",
            f"{len(joint['rows'])} solves: F within {joint['worst']['relative_difference']:.0e}, W Wᵀ within "
            f"{joint['worst']['gram_difference']:.0e}",
        ),
        (
            "Above a threshold of the penalties the optimum is zero",
            "[derivation](derivations/threshold.py); solves with certificate",
            f"{agree} of {len(results.collapse)} solves agree",
        ),
        (
            "One pass over any point bounds how far its objective is above the global minimum",
            "[derivation](derivations/duality_gap.py); solves from random starts",
            f"{len(precision['rows'])} solves, {stuck} stuck, gaps to {gap:.0e} of F",
        ),
        (
            "From an imbalance on that mixup lowers, the classifier rows of rare classes coincide",
            "[derivation](derivations/minority_collapse.py); solves with certificate",
            f"{predicted} of {len(curve)} optima as predicted, {beyond} of them collapsed",
        ),
    ]


# The regime suite's points that stand for networks that have fitted their mixed labels, by data set.
_FITTED = {"digits": "digits-20-mild", "mnist": "mnist-20-long", "fashion": "fashion-20-long", "cifar": "cifar-10-long"}


def _networks(results: Committed) -> list[Row]:
    fitted = {data: results.seeds[name] for data, name in _FITTED.items()}
    ece = {
        kind: {data: calibration_of(run).before.ece for data, run in results.main(kind).items()} for kind in KINDS[:2]
    }

    def inside(value: Callable[[dict[str, Any]], float], form: str, holds: Callable[[float], bool]) -> Row:
        """Return figures and verdict of the fitted networks, the least and the largest of the seeds."""
        found = {data: [value(point) for point in points] for data, points in fitted.items()}
        figures = ", ".join(f"{DATA[data]} {span(values, form)}" for data, values in found.items())
        return figures, _verdict([all(map(holds, values)) for values in found.values()])

    def outside(kind: str, about: ClaimKind, figure: Callable[[Claim], str]) -> Row:
        """Return one of the report's claims over all data sets."""
        found = {data: results.claims[run.name][about] for data, run in results.main(kind).items()}
        figures = ", ".join(f"{DATA[data]} {figure(claim)}" for data, claim in found.items())
        return figures, _verdict([claim.passed is True for claim in found.values()])

    def both(kind: str) -> Row:
        runs = results.main(kind)
        scores = [
            f"{DATA[data]} {run.comparison.score('closed form').r2_mixed:.2f} / "
            f"{run.comparison.score('straight line').r2_mixed:.2f}"
            for data, run in runs.items()
        ]
        held = [results.claims[run.name][ClaimKind.AHEAD_PER_SAMPLE].passed is True for run in runs.values()]
        return ", ".join(scores), _verdict(held)

    def pairs(first: str, second: str, form: str) -> str:
        shown = (
            f"{DATA[data]} {span((p[first] for p in points), form)} / {span((p[second] for p in points), form)}"
            for data, points in fitted.items()
        )
        return ", ".join(shown)

    ahead = [all(p["r2_fit_free"] > p["r2_line"] for p in points) for points in fitted.values()]
    unmixed, squared = _unmixed_twins(results), results.seeds["fashion-20-strong-mse"][0]
    behind = ", ".join(
        f"{DATA[data]} {p['r2_closed_form']:.2f} / {p['r2_line']:.2f}" for data, (_, p) in unmixed.items()
    )
    errors = ", ".join(f"{DATA[data]} {p['ece']:.3f} / {other['ece']:.3f}" for data, (p, other) in unmixed.items())
    return [
        (
            "Same-class features align with the classifier (NC3 ≤ 0.1)",
            *inside(lambda point: point["nc3"], ".2f", lambda x: x <= 0.1),
            *outside("mixup", ClaimKind.NC3, _measured),
        ),
        (
            "Different-class features run in channels: the closed form explains the logits better than a straight line "
            "(R² of both; on the left all samples and nothing fitted, on the right different-class samples and one "
            "fitted number)",
            pairs("r2_fit_free", "r2_line", ".2f"),
            _verdict(ahead),
            *both("mixup"),
        ),
        (
            "Without mixing the straight line is ahead (shown mixed images)",
            behind,
            _verdict([p["r2_line"] > p["r2_closed_form"] for _, p in unmixed.values()]),
            *both("none"),
        ),
        (
            "Under squared error they are convex combinations of class means: the line explains the means per pair and "
            "λ bin (R² ≥ 0.9)",
            f"Fashion-MNIST {squared['r2_line']:.2f}, per sample",
            _verdict([squared["r2_line"] >= 0.9]),
            *outside("mse", ClaimKind.CLOSED_FORM_R2, _measured),
        ),
        (
            "The channel's width is as predicted (relative error ≤ 0.2 for λ in (0.1, 0.9); on the left the largest of "
            "four bins, on the right the mean)",
            *inside(lambda point: max(abs(x - 1) for x in point["width_ratio"][:-1]), ".2f", lambda x: x <= 0.2),
            *outside("mixup", ClaimKind.WIDTH, _measured),
        ),
        (
            "Its depth is (the same)",
            *inside(lambda point: max(abs(x - 1) for x in point["depth_ratio"][:-1]), ".2f", lambda x: x <= 0.2),
            *outside("mixup", ClaimKind.DEPTH, _measured),
        ),
        (
            "β follows from the classifier alone (fit-free over fitted, within a factor of 3)",
            *inside(lambda point: point["beta_fit_free"] / point["beta_fitted"], ".2f", lambda x: 1 / 3 <= x <= 3),
            *outside("mixup", ClaimKind.FIT_FREE_BETA, lambda claim: f"{claim.measured:.0f}"),
        ),
        (
            "Earlier layers look as if trained with manifold mixup (lowest interpolation R² over the layers ≥ 0.9)",
            *inside(lambda point: min(point["interpolation_r2"].values()), ".2f", lambda x: x >= 0.9),
            *outside("mixup", ClaimKind.INTERPOLATION, _measured),
        ),
        (
            "Mixup calibrates better (ECE of test images as trained, with mixup / without)",
            errors,
            _verdict([p["ece"] < other["ece"] for p, other in unmixed.values()]),
            ", ".join(f"{name} {ece['mixup'][data]:.3f} / {ece['none'][data]:.3f}" for data, name in DATA.items()),
            _verdict([ece["mixup"][data] < ece["none"][data] for data in DATA]),
        ),
    ]


def _unmixed_twins(results: Committed) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Return, for each data set that has one, the first seed of the fitted networks and its twin without mixing."""
    found = {data: (results.seeds[name], results.seeds.get(f"{name}-none")) for data, name in _FITTED.items()}
    return {data: (points[0], twins[0]) for data, (points, twins) in found.items() if twins}


def _measured(claim: Claim) -> str:
    return f"{claim.measured:.2f}"


def _verdict(held: Sequence[bool]) -> str:
    if not held:
        return "not measured"
    words = {0: "does not hold", len(held): "holds"}.get(sum(held))
    return words or f"holds on {sum(held)} of {len(held)}"
