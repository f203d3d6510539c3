"""Every table of the README, of docs/status.md and of the results page, made from the committed results.

    python -m experiments.pages            # write them
    python -m experiments.pages --check    # only say which are out of date; exit status 1 if some are

In README.md and docs/status.md a table stands between the lines `<!-- begin: NAME -->` and `<!-- end: NAME -->`;
experiments/results/README.md is made as a whole. Claims on networks, with their thresholds, are those of `ufm report`.
"""

import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.committed import DATA, KINDS, Committed, calibration_of
from experiments.status import computed_table, findings_table, networks_table, regime_table
from ufm._support.console import run_command
from ufm._support.files import atomic_path
from ufm.reports.tables import (
    Row,
    Table,
    calibration_table,
    channel_table,
    layer_table,
    overview,
    score_table,
)
from ufm.runs.claims import Claim, ClaimKind

RESULTS = "experiments/results"
_MAIN_RUNS = [*(f"{data}-{kind}" for data in DATA for kind in KINDS), "fashion-vit-mixup"]


def claims_table(results: Committed) -> Table:
    """Return the project's claims, with what they rest on, the measured figure and the verdict."""
    return Table("Claims", ("claim", "rests on", "figure", "verdict"), (*_theory(results), *_networks(results)))


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
            "proved",
        ),
        (
            "The ETF is no assumption: every global optimum that is not zero has it, with a size from one scalar "
            "equation (law symmetric in the classes, d ≥ K - 1)",
            "[derivation](derivations/etf_is_optimal.py); direct solves",
            f"{len(joint['rows'])} solves: F within {joint['worst']['relative_difference']:.0e}, W Wᵀ within "
            f"{joint['worst']['gram_difference']:.0e}",
            "proved",
        ),
        (
            "Above a threshold of the penalties the optimum is zero",
            "[derivation](derivations/threshold.py); solves with certificate",
            f"{agree} of {len(results.collapse)} solves agree",
            "proved",
        ),
        (
            "One pass over any point bounds how far its objective is above the global minimum",
            "[derivation](derivations/duality_gap.py); solves from random starts",
            f"{len(precision['rows'])} solves, {stuck} stuck, gaps to {gap:.0e} of F",
            "proved",
        ),
        (
            "From an imbalance on that mixup lowers, the classifier rows of rare classes coincide",
            "[derivation](derivations/minority_collapse.py); solves with certificate",
            f"{predicted} of {len(curve)} optima as predicted, {beyond} of them collapsed",
            "proved",
        ),
    ]


def _networks(results: Committed) -> list[Row]:
    def row(statement: str, evidence: str, kind: str, about: ClaimKind, figure: Callable[[Claim], str]) -> Row:
        """Return one of the report's claims over all data sets."""
        found = {data: results.claims[run.name][about] for data, run in results.main(kind).items()}
        figures = ", ".join(f"{DATA[data]} {figure(claim)}" for data, claim in found.items())
        return statement, evidence, figures, _verdict([claim.passed is True for claim in found.values()])

    def both(kind: str) -> Row:
        mixing = {
            "mixup": (
                "Different-class features run in channels: the closed form explains the logits better than a straight "
                "line (R² of both over different-class samples, one fitted number each)",
                "networks with mixup",
            ),
            "none": (
                "Without mixing the straight line is ahead",
                "the same, trained on unmixed images, shown mixed ones",
            ),
        }
        runs = results.main(kind)
        scores = [
            f"{DATA[data]} {run.comparison.score('closed form').r2_mixed:.2f} / "
            f"{run.comparison.score('straight line').r2_mixed:.2f}"
            for data, run in runs.items()
        ]
        held = [results.claims[run.name][ClaimKind.AHEAD_PER_SAMPLE].passed is True for run in runs.values()]
        return *mixing[kind], ", ".join(scores), _verdict(held)

    ece = {
        kind: {data: calibration_of(run).before.ece for data, run in results.main(kind).items()} for kind in KINDS[:2]
    }
    return [
        row(
            "Same-class features align with the classifier (NC3 ≤ 0.1)",
            "networks with mixup",
            "mixup",
            ClaimKind.NC3,
            _measured,
        ),
        both("mixup"),
        both("none"),
        row(
            "Under squared error they are convex combinations of class means: the line explains the means per pair and "
            "λ bin (R² ≥ 0.9)",
            "the same with squared error",
            "mse",
            ClaimKind.CLOSED_FORM_R2,
            _measured,
        ),
        row(
            "The channel's width is as predicted (mean error over mean ≤ 0.2, for λ in (0.1, 0.9))",
            "networks with mixup",
            "mixup",
            ClaimKind.WIDTH,
            _measured,
        ),
        row("Its depth is (the same)", "networks with mixup", "mixup", ClaimKind.DEPTH, _measured),
        row(
            "β follows from the classifier alone (within a factor of 3)",
            "networks with mixup: fit-free over fitted",
            "mixup",
            ClaimKind.FIT_FREE_BETA,
            lambda claim: f"{claim.measured:.0f}",
        ),
        row(
            "Earlier layers look as if trained with manifold mixup (interpolation R² ≥ 0.9 in all)",
            "networks with mixup: the lowest over the layers",
            "mixup",
            ClaimKind.INTERPOLATION,
            _measured,
        ),
        (
            "Mixup calibrates better (smaller ECE, as trained)",
            "half of the test images: with mixup / without",
            ", ".join(f"{name} {ece['mixup'][data]:.3f} / {ece['none'][data]:.3f}" for data, name in DATA.items()),
            _verdict([ece["mixup"][data] < ece["none"][data] for data in DATA]),
        ),
    ]


def _measured(claim: Claim) -> str:
    return f"{claim.measured:.2f}"


def _verdict(held: Sequence[bool]) -> str:
    words = {0: "does not hold", len(held): "holds"}.get(sum(held))
    return words or f"holds on {sum(held)} of {len(held)}"


def results_page(results: Committed) -> str:
    """Return experiments/results/README.md: every run in every table."""
    runs = list(results.runs.values())
    head = (
        "# Results\n\n[What agrees with the theory and what does not](FINDINGS.md), in words. Generated by "
        "`python -m experiments.pages`\nfrom the folders in [networks](networks), whose runs are trained by `python -m "
        "experiments.suite train` and compared by\n`python -m experiments.suite compare`. Networks in eval mode on "
        "mixed training images (an unmixed network's are mixed for\nthis by mixup with α = 1)."
    )
    tables = [
        overview(runs),
        score_table(runs, "eval", ("closed form", "own classifier", "straight line")),
        score_table(runs, "train", ("closed form", "straight line")),
        channel_table(runs, ("network", "closed form")),
        layer_table(runs),
        calibration_table(runs),
    ]
    return "\n\n".join([head, *(f"## {table.title}\n\n{table.note}\n\n{table.markdown()}" for table in tables)]) + "\n"


FRAGMENTS: dict[str, dict[str, Callable[[Committed], Table]]] = {
    "README.md": {
        "claims": claims_table,
        "networks": lambda results: overview([results.runs[name] for name in _MAIN_RUNS]),
    },
    "docs/status.md": {
        "computed": computed_table,
        "networks": networks_table,
        "findings": findings_table,
        "regime": regime_table,
    },
}


def with_fragments(text: str, fragments: dict[str, Table]) -> str:
    """Return a page with its tables replaced; raise ValueError if it has no place for one of them."""
    for name, table in fragments.items():
        begin, end = (f"<!-- {word}: {name} -->" for word in ("begin", "end"))
        if text.count(begin) != 1 or text.count(end) != 1:
            raise ValueError(f"page: got no place for the table {name!r}, expected the lines {begin} and {end}")
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        filled = f"{begin}\n{table.markdown()}\n{end}"
        text = pattern.sub(lambda _, filled=filled: filled, text)
    return text


def pages(root: Path, results: Committed) -> dict[Path, str]:
    """Return the text of every page, by its path below `root`."""
    made = {
        root / page: with_fragments(
            (root / page).read_text(encoding="utf-8"), {name: make(results) for name, make in fragments.items()}
        )
        for page, fragments in FRAGMENTS.items()
    }
    return made | {root / RESULTS / "README.md": results_page(results)}


@dataclass(frozen=True)
class Pages:
    """Write the pages, or check them."""

    check: bool = False
    """write nothing; exit status 1 if a page is out of date"""
    root: str = "."
    """of the checkout"""

    def run(self) -> int:
        """Write or check, and return the exit status."""
        root = Path(self.root)
        if not all((root / page).is_file() for page in FRAGMENTS):
            raise ValueError(f"root: got {self.root!r}, expected a checkout, with {' and '.join(FRAGMENTS)}")
        stale = 0
        for path, text in pages(root, Committed(root / RESULTS)).items():
            if path.is_file() and path.read_text(encoding="utf-8") == text:
                continue
            stale += 1
            print(f"{path.relative_to(root)}: {'out of date' if self.check else 'written'}")
            if not self.check:
                with atomic_path(path) as temporary:
                    temporary.write_text(text, encoding="utf-8")
        return 1 if self.check and stale else 0


def main() -> int:
    """Run the command line and return its exit status."""
    return run_command(Pages, prog="python -m experiments.pages", description=__doc__)


if __name__ == "__main__":
    sys.exit(main())
