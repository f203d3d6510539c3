"""The figures in docs/status.md, in its tables and in its text, are those of the committed results."""

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scipy.stats import spearmanr

ROOT = Path(__file__).parents[2]
STATUS = ROOT / "docs" / "status.md"
RESULTS = ROOT / "experiments" / "results"
DATA = ("digits", "mnist", "fashion", "cifar")


def result(path: str) -> dict[str, Any]:
    """Return a committed result."""
    return json.loads((RESULTS / path).read_text(encoding="utf-8"))


def computed() -> list[tuple[str, str, str]]:
    """Return what was measured of closed forms, solver and tests, each with its figure and its file."""

    def ulp(name: str) -> str:
        found = result(f"exactness/{name}.json")
        worst = max(kind["logits_max_ulp"] for kind in found["kinds"].values())
        return f"{worst:.0f} ulp over {found['config']['cases']:,} labels"

    joint, precision = result("joint/joint.json"), result("solver/precision.json")["worst"]
    stuck, starts = (sum(row[key] for row in precision) for key in ("stuck", "of"))
    gaps = {decay: max(row["relative_gap"] for row in precision if row["decay"] == decay) for decay in (2e-2, 2e-4)}
    race = {(row["case"], row["method"]): row for row in result("solver/race.json")["rows"]}
    own, rival = ([race[case, method] for case in "abc"] for method in ("ufm newton", "torch LBFGS"))
    assert all(row["reached"] for row in own)
    assert not any(row["reached"] for row in rival)
    seconds = ", ".join(f"{row['seconds']:.2g}" for row in own)
    left = ", ".join(f"{row['relative_gap']:.0e}" for row in rival)
    scaling, minority = result("solver/scaling.json"), result("minority/minority.json")["points"]
    lines = (RESULTS / "sweeps/collapse/points.jsonl").read_text(encoding="utf-8").splitlines()
    agree = [line["collapsed"] == line["closed_form"]["collapsed"] for line in map(json.loads, lines)]
    mutation = result("mutation/mutation.json")
    return [
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
        (
            "time to a certified gap of 1e-10, three problems",
            f"Newton {seconds} s; after 60 s torch's L-BFGS has gaps of {left}",
            "solver/race.json",
        ),
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


class Runs:
    """Figures of the committed runs of one kind, a text for each data set."""

    def __init__(self, kind: str) -> None:
        names = [f"{data}-{kind}" for data in DATA]
        self.comparisons = [result(f"networks/{name}/comparison.json")["comparisons"]["eval"] for name in names]
        self.calibrations = [result(f"networks/{name}/calibration.json")["test"] for name in names]

    def r2(self, prediction: str) -> list[str]:
        found = ({score["name"]: score["r2"] for score in one["scores"]} for one in self.comparisons)
        return [f"{scores[prediction]:.2f}" if prediction in scores else "-" for scores in found]

    def number(self, name: str, form: str) -> list[str]:
        return [format(one[name], form) for one in self.comparisons]

    def over_predicted(self, measure: str) -> list[str]:
        """Return the channel's width or depth near lambda = 0.7 and 0.9, over that of the closed form."""
        points = (
            (one["points"]["network"][measure], one["points"]["closed form"][measure]) for one in self.comparisons
        )
        return [f"{mine[1] / theory[1]:.2f}, {mine[2] / theory[2]:.2f}" for mine, theory in points]

    def ece(self, when: str) -> list[str]:
        return [f"{one[when]['ece']:.3f}" for one in self.calibrations]


def trained() -> list[tuple[str, ...]]:
    """Return what was measured of networks: a name, and a figure for each data set."""
    mixup, none, mse, etf = (Runs(kind) for kind in ("mixup", "none", "mse", "etf"))

    def pairs(one: list[str], other: list[str]) -> list[str]:
        return [f"{a}, {b}" for a, b in zip(one, other, strict=True)]

    return [
        ("R² closed form, straight line: mixup", *pairs(mixup.r2("closed form"), mixup.r2("straight line"))),
        ("the same without mixing", *pairs(none.r2("closed form"), none.r2("straight line"))),
        ("the same with squared error", *pairs(mse.r2("closed form"), mse.r2("straight line"))),
        ("the same with the classifier fixed to an ETF", *pairs(etf.r2("closed form"), etf.r2("straight line"))),
        ("R² of the theory for the network's own classifier", *mixup.r2("own classifier")),
        ("R² with nothing fitted", *mixup.r2("fit-free")),
        ("β fitted, β without a fit", *pairs(mixup.number("beta", ".0f"), mixup.number("beta_fit_free", ".0f"))),
        ("classifier's distance from an ETF", *mixup.number("etf_error", ".2f")),
        ("features' share in its row space", *mixup.number("in_plane", ".2f")),
        ("depth over the predicted, λ = 0.7, 0.9", *mixup.over_predicted("depth")),
        ("width over the predicted, λ = 0.7, 0.9", *mixup.over_predicted("width")),
        ("calibration error: mixup, no mixing", *pairs(mixup.ece("before"), none.ece("before"))),
        ("the same after temperature scaling", *pairs(mixup.ece("after"), none.ece("after"))),
    ]


@dataclass(frozen=True)
class Network:
    """A committed run: the last training loss, R² of closed form and line, and ratios.

    Width and depth near lambda = 0.7 and 0.9 are over those predicted, beta is fit-free over fitted.
    """

    loss: float
    closed: float
    line: float
    width: list[float]
    depth: list[float]
    beta: float | None

    @property
    def lead(self) -> float:
        return self.closed - self.line


def network(name: str, mode: str = "eval") -> Network:
    """Return a committed run; beta is None where weight decay implies none."""
    one = result(f"networks/{name}/comparison.json")["comparisons"][mode]
    last = (RESULTS / "networks" / name / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1]
    r2 = {score["name"]: score["r2"] for score in one["scores"]}
    mine, theory = one["points"]["network"], one["points"]["closed form"]
    width, depth = ([mine[key][i] / theory[key][i] for i in (1, 2)] for key in ("width", "depth"))
    beta = one["beta_fit_free"] and one["beta_fit_free"] / one["beta"]
    return Network(json.loads(last)["loss"], r2["closed form"], r2["straight line"], width, depth, beta)


def architectures(data: str) -> list[Network]:
    """Return the networks with mixup on one data set, the lowest training loss first."""
    other = "cnn" if data == "cifar" else "resnet"
    return sorted((network(f"{data}-{kind}mixup") for kind in ("", f"{other}-", "vit-")), key=lambda one: one.loss)


def with_mixup() -> list[str]:
    return [path.name for path in sorted((RESULTS / "networks").iterdir()) if "-mixup" in path.name]


def span(numbers: Iterable[float], form: str) -> str:
    numbers = list(numbers)
    return f"{min(numbers):{form}} to {max(numbers):{form}}"


def said() -> list[str]:
    """Return the parts of the text that have figures, with those of the committed results."""
    cnns = [network(f"{data}-mixup") for data in DATA[:3]]
    widths = span((x for one in cnns for x in one.width), ".1f")
    resnets = [network(f"{data}-resnet-mixup") for data in DATA[:3]]
    vit, short = network("mnist-vit-mixup"), network("digits-mixup-epochs-100")
    pooled = [one for data in DATA[:3] for one in architectures(data)]
    losses = [one.loss for one in pooled]
    with_lead, with_width = (
        float(spearmanr(losses, measure)[0])  # pyright: ignore[reportArgumentType]
        for measure in ([one.lead for one in pooled], [one.width[1] for one in pooled])
    )
    modes = [(network(name), network(name, "train")) for name in with_mixup()]
    r2 = max(max(abs(one.closed - other.closed), abs(one.line - other.line)) for one, other in modes)
    width = max(abs(one.width[i] - other.width[i]) for one, other in modes for i in (0, 1))
    # Upper bounds are rounded up.
    r2_moved, width_moved = (math.ceil(100 * moved) / 100 for moved in (r2, width))
    unmixed, in_training = (network("mnist-none", mode) for mode in ("eval", "train"))
    return [
        f"The lead is {span((one.lead for one in cnns), '.2f')}, no more.",
        f"too wide, {widths} times the predicted width at λ = 0.7 and 0.9 on the first three data sets",
        f"{span((x for one in cnns for x in one.depth), '.2f')} times the predicted depth",
        f"from a lead of {vit.lead:.2f} and {vit.width[1]:.2f} times the predicted width (ViT) to "
        f"{resnets[1].lead:.2f} and {resnets[1].width[1]:.2f} times (ResNet-18)",
        f"rank correlation of the loss is {with_lead:.2f} with the lead and {with_width:.2f} with the width",
        f"R² moves by at most {r2_moved:.2f}, the width by at most {width_moved:.2f} times the predicted one",
        f"from {unmixed.closed:.2f} to {in_training.closed:.2f} (closed form) and from {unmixed.line:.2f} to "
        f"{in_training.line:.2f} (line)",
        f"is {span((one.beta or 0 for one in cnns), '.0f')} times the fitted one",
        f"why the channel of trained networks is {widths} times as wide as predicted",
        f"from {short.width[1]:.2f} to {cnns[0].width[1]:.2f} times on the digits",
        f"{span((x for one in resnets[1:] for x in one.width), '.1f')} times for the ResNet-18 on MNIST and "
        "Fashion-MNIST",
        f"wider than the CNN ({resnets[0].width[1]:.1f} against {cnns[0].width[1]:.1f} times)",
        f"a factor of {resnets[1].beta:.1f} for the ResNet-18 on MNIST",
        f"R² per sample leaves {span((1 - one.closed for one in cnns), '.2f')} of the logits' variance",
    ]


def test_every_figure_in_the_text_is_that_of_the_committed_results():
    text = STATUS.read_text(encoding="utf-8").split("What to read from it:")[1]
    prose = " ".join(re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE).split())
    for part in said():
        assert part in prose, part
        prose = prose.replace(part, "")
    # Besides these there are values of the mixing coefficient, and a theorem.
    assert not re.findall(r"\d\.\d+", re.sub(r"λ = 0\.[579]( and 0\.9)?|Theorem 3\.1", "", prose))


def test_what_the_text_says_in_words_is_so():
    for data in DATA[:3]:
        some = architectures(data)
        assert some == sorted(some, key=lambda one: -one.lead)
        assert some == sorted(some, key=lambda one: one.width[1])
        ratios = [one.beta for one in some if one.beta is not None]
        assert len(ratios) == 2
        assert ratios == sorted(ratios)
    cifar = architectures("cifar")
    assert cifar == sorted(cifar, key=lambda one: one.lead)
    assert cifar not in (sorted(cifar, key=lambda one: sign * one.width[1]) for sign in (-1, 1))
    assert all(network(f"{data}-none", mode).lead < 0 for data in DATA for mode in ("eval", "train"))
    assert all(network(f"cifar-{kind}").lead < 0.005 for kind in ("mixup", "none", "mse", "etf"))
    ratios = {name: beta for name in with_mixup() if (beta := network(name).beta)}
    assert min(ratios, key=lambda name: ratios[name]) == "mnist-resnet-mixup"
    assert all(ratios["digits-mixup"] < ratios[f"digits-mixup-{change}"] / 3 for change in ("decay-5e-4", "epochs-100"))
    own = network("digits-mixup")
    for name in ("digits-mixup-dim-9", "digits-mixup-dim-128", "digits-etf"):
        assert all(abs(network(name).width[i] - own.width[i]) < 0.03 for i in (0, 1))


def test_every_measured_figure_is_that_of_the_committed_results():
    text = STATUS.read_text(encoding="utf-8")
    tables = text.split("## Measured")[1].split("## Open")[0]
    shown = [line for line in tables.splitlines() if line.startswith("|")]
    expected = [(*row[:2], f"`{row[2]}`") for row in computed()] + trained()
    lines = [f"| {' | '.join(row)} |" for row in expected]
    assert [line for line in shown if line in lines] == lines, "\n".join(lines)
    # Besides these there are two headings, each with its rule.
    assert len(shown) == len(lines) + 4
