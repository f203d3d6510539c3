"""The tables of docs/status.md: what was measured of closed forms and solver, and of networks."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from scipy.stats import spearmanr

from experiments.committed import DATA, KINDS, Committed, Nearness, architectures, calibration_of, span
from ufm.reports import Run
from ufm.reports.tables import Table, number


def computed_table(results: Committed) -> Table:
    """Return what was measured of closed forms, solver and tests."""

    def ulp(name: str) -> str:
        found = results.json(f"exactness/{name}.json")
        worst = max(kind["logits_max_ulp"] for kind in found["kinds"].values())
        return f"{worst:.0f} ulp over {found['config']['cases']:,} labels"

    joint, precision = results.json("joint/joint.json"), results.json("solver/precision.json")["worst"]
    stuck, starts = (sum(row[key] for row in precision) for key in ("stuck", "of"))
    gaps = {decay: max(row["relative_gap"] for row in precision if row["decay"] == decay) for decay in (2e-2, 2e-4)}
    scaling, minority = results.json("solver/scaling.json"), results.json("minority/minority.json")["points"]
    agree = [point["collapsed"] == point["closed_form"]["collapsed"] for point in results.collapse]
    mutation = results.json("mutation/mutation.json")
    rows = [
        ("largest error of a logit difference, double precision", ulp("exactness"), "exactness/exactness.json"),
        ("the same in single precision", ulp("exactness_float32"), "exactness/exactness_float32.json"),
        (
            "closed form of the joint optimum against direct solves",
            f"{len(joint['rows'])} solves: objective within {joint['worst']['relative_difference']:.0e}, "
            f"$W W^\\top$ within {joint['worst']['gram_difference']:.0e}",
            "joint/joint.json",
        ),
        (
            "Newton's method from random starts",
            f"{stuck} of {starts} stuck; certified gap at most {gaps[2e-2]:.0e} at penalties 2e-2, "
            f"{gaps[2e-4]:.0e} at 2e-4",
            "solver/precision.json",
        ),
        ("time to a certified gap of 1e-10, three problems", _race(results), "solver/race.json"),
        (
            f"growth of the time with the targets, to {max(row['targets'] for row in scaling['rows']):,}",
            f"power {scaling['slopes']['stored']:.2f} stored, {scaling['slopes']['streamed']:.2f} streamed",
            "solver/scaling.json",
        ),
        (
            "collapse to zero: the solver's proof against the closed form",
            f"{sum(agree)} of {len(agree)} agree",
            "sweeps/collapse/points.jsonl",
        ),
        (
            "optima for unequal classes",
            f"{len(minority)}, certified to a relative {max(row['relative_gap'] for row in minority):.0e}",
            "minority/minority.json",
        ),
        (
            "faults put into the code that the tests notice",
            f"{mutation['killed']} of {mutation['drawn']}",
            "mutation/mutation.json",
        ),
    ]
    return Table(
        "Closed forms and solver", ("what", "figure", "file"), tuple((*row[:2], f"`{row[2]}`") for row in rows)
    )


def _race(results: Committed) -> str:
    race = {(row["case"], row["method"]): row for row in results.json("solver/race.json")["rows"]}
    own, rival = ([race[case, method] for case in "abc"] for method in ("ufm newton", "torch LBFGS"))
    times = ", ".join(f"{row['seconds']:.2g}" if row["reached"] else "not reached" for row in own)
    left = ", ".join("reached" if row["reached"] else f"{row['relative_gap']:.0e}" for row in rival)
    return f"Newton {times} s; after 60 s torch's L-BFGS has gaps of {left}"


def networks_table(results: Committed) -> Table:
    """Return what was measured of the main networks: a figure for each data set."""
    mixup, none, mse, etf = (list(results.main(kind).values()) for kind in KINDS)
    own = [run.comparison for run in mixup]

    def r2(runs: Sequence[Run], *names: str) -> list[str]:
        scores = [{score.name: score.r2 for score in run.comparison.scores} for run in runs]
        return [", ".join(number(each.get(name), ".2f") for name in names) for each in scores]

    def over_predicted(measure: str) -> list[str]:
        return [", ".join(f"{x:.2f}" for x in getattr(Nearness.of(run), measure)) for run in mixup]

    def ece(when: str) -> list[str]:
        pairs = zip(mixup, none, strict=True)
        return [", ".join(f"{getattr(calibration_of(run), when).ece:.3f}" for run in pair) for pair in pairs]

    both = ("closed form", "straight line")
    rows = [
        ("R² closed form, straight line: mixup", *r2(mixup, *both)),
        ("the same without mixing", *r2(none, *both)),
        ("the same with squared error", *r2(mse, *both)),
        ("the same with the classifier fixed to an ETF", *r2(etf, *both)),
        ("R² of the theory for the network's own classifier", *r2(mixup, "own classifier")),
        ("R² with nothing fitted", *r2(mixup, "fit-free")),
        ("β fitted, β without a fit", *(f"{one.beta:.0f}, {one.beta_fit_free:.0f}" for one in own)),
        ("classifier's distance from an ETF", *(f"{one.etf_error:.2f}" for one in own)),
        ("features' share in its row space", *(f"{one.in_plane:.2f}" for one in own)),
        ("depth over the predicted, λ = 0.7, 0.9", *over_predicted("depth")),
        ("width over the predicted, λ = 0.7, 0.9", *over_predicted("width")),
        ("calibration error: mixup, no mixing", *ece("before")),
        ("the same after temperature scaling", *ece("after")),
    ]
    return Table("Networks", ("what", *DATA.values()), tuple(rows))


def findings_table(results: Committed) -> Table:
    """Return the figures behind what docs/status.md says of the networks."""

    def near(name: str, mode: str = "eval") -> Nearness:
        return Nearness.of(results.runs[name], mode)

    three = list(DATA)[:3]
    cnns, resnets = ([near(f"{data}-{kind}mixup") for data in three] for kind in ("", "resnet-"))
    vit, short = near("mnist-vit-mixup"), near("digits-mixup-epochs-100")
    pooled = [one for data in three for one in architectures(results, data)]
    losses = [one.loss for one in pooled]
    with_lead, with_width = (
        float(spearmanr(losses, measure)[0])  # pyright: ignore[reportArgumentType]
        for measure in ([one.lead for one in pooled], [one.width[1] for one in pooled])
    )
    modes = [(near(name), near(name, "train")) for name in results.runs if "-mixup" in name]
    r2 = max(max(abs(one.closed - other.closed), abs(one.line - other.line)) for one, other in modes)
    width = max(abs(one.width[i] - other.width[i]) for one, other in modes for i in (0, 1))
    # Upper bounds are rounded up.
    r2_moved, width_moved = (math.ceil(100 * moved) / 100 for moved in (r2, width))
    unmixed, in_training = (near("mnist-none", mode) for mode in ("eval", "train"))
    first = "digits, MNIST, Fashion-MNIST"
    rows = [
        (f"lead of the closed form over the line in R², {first}", span((one.lead for one in cnns), ".2f")),
        (
            f"width over the predicted at λ = 0.7 and 0.9, {first}",
            span((x for one in cnns for x in one.width), ".1f"),
        ),
        ("depth over the predicted, the same", span((x for one in cnns for x in one.depth), ".2f")),
        ("β without a fit over fitted, the same", span((one.beta or math.nan for one in cnns), ".0f")),
        ("share of the logits' variance that R² per sample leaves", span((1 - one.closed for one in cnns), ".2f")),
        ("MNIST, lead in R²: ViT, ResNet-18", f"{vit.lead:.2f}, {resnets[1].lead:.2f}"),
        ("MNIST, width over the predicted at λ = 0.9: the same", f"{vit.width[1]:.2f}, {resnets[1].width[1]:.2f}"),
        ("MNIST, β without a fit over fitted: ResNet-18", f"{resnets[1].beta:.1f}"),
        (
            "ResNet-18, width over the predicted at λ = 0.7 and 0.9: MNIST and Fashion-MNIST",
            span((x for one in resnets[1:] for x in one.width), ".1f"),
        ),
        (
            "digits, width over the predicted at λ = 0.9: ResNet-18, CNN",
            f"{resnets[0].width[1]:.1f}, {cnns[0].width[1]:.1f}",
        ),
        (
            "digits, the same for the CNN: 100 epochs, 400 epochs",
            f"{short.width[1]:.2f}, {cnns[0].width[1]:.2f}",
        ),
        (
            f"rank correlation of the training loss, pooled over {first}: with the lead, with the width",
            f"{number(with_lead, '.2f')}, {number(with_width, '.2f')}",
        ),
        (
            "train mode against eval mode, with mixup: R² moves by at most, width over the predicted by at most",
            f"{r2_moved:.2f}, {width_moved:.2f}",
        ),
        (
            "MNIST without mixing, R² in eval and train mode: closed form",
            f"{unmixed.closed:.2f}, {in_training.closed:.2f}",
        ),
        ("the same: straight line", f"{unmixed.line:.2f}, {in_training.line:.2f}"),
    ]
    return Table("Figures behind these findings", ("what", "figure"), tuple(rows))


def regime_table(results: Committed) -> Table:
    """Return the regime suite's points under mixup and cross entropy, seeds together, the nearest first."""
    groups = {
        name: points
        for name, points in results.seeds.items()
        if points[0]["loss"] == "cross_entropy" and points[0]["mixing"] == "mixup"
    }
    columns: dict[str, tuple[Callable[[dict[str, Any]], list[float | None]], str]] = {
        "excess loss": (lambda point: [point["excess_loss"]], ".4f"),
        "of the theory": (lambda point: [point["excess_theory"]], ".4f"),
        "R² fit-free": (lambda point: [point["r2_fit_free"]], ".3f"),
        "R² line": (lambda point: [point["r2_line"]], ".3f"),
        "width over theory, λ in .5-.9": (lambda point: point["width_ratio"][:-1], ".2f"),
        "the same above .9": (lambda point: point["width_ratio"][-1:], ".2f"),
        "NC1": (lambda point: [point["nc1"]], ".3f"),
        "NC3": (lambda point: [point["nc3"]], ".3f"),
        "β fit-free over fitted": (_beta_ratio, ".2f"),
        "E‖h − h*‖²": (lambda point: [point["feature_distance"]], ".2f"),
        "its proved bound": (lambda point: [point["inner_distance"]], ".1f"),
        "proved within, of the minimum": (_share, ".1%"),
    }
    rows = [
        (
            name,
            f"{points[0]['images_per_class']:.0f}",
            str(len(points)),
            *(span((value for point in points for value in values(point)), form) for values, form in columns.values()),
        )
        for name, points in sorted(
            groups.items(), key=lambda group: -min(point["r2_closed_form"] for point in group[1])
        )
    ]
    return Table("Regime", ("point", "images per class", "seeds", *columns), tuple(rows))


def _share(point: dict[str, Any]) -> list[float | None]:
    """Return how far the objective can be above the global minimum, over the proved lower bound."""
    gap = point["certificate_gap"]
    return [None if gap is None else gap / (point["objective"] - gap)]


def _beta_ratio(point: dict[str, Any]) -> list[float | None]:
    return [None if point["beta_fit_free"] is None else point["beta_fit_free"] / point["beta_fitted"]]
