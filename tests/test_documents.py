"""The documents' code is run, their printed output compared, their links, citations and measured figures checked."""

import contextlib
import importlib
import io
import json
import math
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import ufm.cli
import ufm.losses

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
RESULTS = ROOT / "experiments" / "results"
DATA = ("digits", "mnist", "fashion", "cifar")
README = "../README"
PAGES = (
    README,
    "start",
    "tutorial",
    *(f"howto/{path.stem}" for path in sorted((DOCS / "howto").glob("*.md"))),
    "status",
)
RUNNABLE = ("python", "bash")
FENCE = re.compile(r"^```(\w+|\{[\w-]+\})[^\n]*\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)
NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its code, its first line in the page, and the output shown below it."""

    language: str
    code: str
    line: int
    output: str | None


def blocks_of(page: str) -> list[Block]:
    """Return the blocks that run; a `text` block with nothing but blank lines before it is the output of the last."""
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    found = list(FENCE.finditer(text))
    blocks = []
    for i, match in enumerate(found):
        if match[1] not in RUNNABLE:
            continue
        after = found[i + 1] if i + 1 < len(found) else None
        shown = after is not None and after[1] == "text" and not text[match.end() : after.start()].strip()
        line = text[: match.start(2)].count("\n")
        blocks.append(Block(match[1], match[2], line, after[2] if after is not None and shown else None))
    return blocks


def same_output(printed: str, shown: str) -> bool:
    """Return whether words agree, and numbers within a fifth or 0.03: what is measured is not the same everywhere."""

    def parts(text: str) -> tuple[list[str], list[float]]:
        # Brackets and blanks are how arrays of other digits come to be laid out otherwise.
        return re.sub(r"[\s\[\]]+", " ", NUMBER.sub("#", text)).split(), [float(x) for x in NUMBER.findall(text)]

    (words, numbers), (shown_words, shown_numbers) = parts(printed), parts(shown)
    return words == shown_words and all(
        math.isclose(x, y, rel_tol=0.2, abs_tol=0.03) for x, y in zip(numbers, shown_numbers, strict=True)
    )


def run_command(line: str) -> int:
    """Run one line of a shell block: in this process, but for a solve by several; `make` says its commands only."""
    words = shlex.split(line, comments=True)
    words = [found for word in words for found in (sorted(map(str, Path().glob(word))) if "*" in word else [word])]
    if words[0] == "make":
        # Its targets are what runs these tests, or take minutes; that they exist is what can be seen from here.
        done = subprocess.run(["make", "-C", str(ROOT), "-n", *words[1:]], capture_output=True, check=False)
        return done.returncode
    if words[0] == "ufm":
        return ufm.cli.main(words[1:])
    if words[0] == "torchrun" and "experiments.train" in words:
        # Training by several processes has tests of its own; here one process tries the options.
        words = ["python", *words[words.index("-m") :]]
    if words[:2] == ["python", "-m"]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", words[2:])
            return importlib.import_module(words[2]).main()
    if words[0] == "torchrun":
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "torch.distributed.run", "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0"]
        done = subprocess.run(
            [*command, *words[1:]], env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        sys.stdout.write(done.stdout)
        sys.stderr.write(done.stderr)
        return done.returncode
    raise ValueError(f"line: got {line!r}, expected ufm, python -m, torchrun or make")


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("page", [page for page in PAGES if blocks_of(page)])
def test_blocks_run_and_print_what_is_shown(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    # The README is read in a checkout.
    for folder in ("experiments", "figures") if page == README else ():
        (tmp_path / folder).symlink_to(ROOT / folder)
    # A page may add a loss, which is nobody else's.
    monkeypatch.setattr(ufm.losses, "LOSSES", dict(ufm.losses.LOSSES))
    namespace = {"__name__": "documents"}
    for block in blocks_of(page):
        printed = io.StringIO()
        where = f"{page}.md, line {block.line}"
        with contextlib.redirect_stdout(printed):
            if block.language == "python":
                exec(compile("\n" * block.line + block.code, f"{page}.md", "exec"), namespace)
            else:
                for line in filter(None, block.code.splitlines()):
                    assert run_command(line) == 0, f"{where}: {line}"
        if block.output is not None:
            assert same_output(printed.getvalue(), block.output), f"{where} printed\n{printed.getvalue()}"


def test_output_is_compared_in_words_and_numbers():
    assert same_output("beta 90.1 [0.1 2. ]\n", "beta 88.0 [0.1 2.]")
    assert not same_output("beta 90.1", "gamma 90.1")
    assert not same_output("beta 90.1", "beta 60.1")
    assert not same_output("beta 1 2", "beta 1")
    with pytest.raises(ValueError, match="expected ufm"):
        run_command("rm -r .")


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


def test_every_measured_figure_is_that_of_the_committed_results():
    text = (DOCS / "status.md").read_text(encoding="utf-8")
    tables = text.split("## Measured")[1].split("## Open")[0]
    shown = [line for line in tables.splitlines() if line.startswith("|")]
    expected = [(*row[:2], f"`{row[2]}`") for row in computed()] + trained()
    lines = [f"| {' | '.join(row)} |" for row in expected]
    assert [line for line in shown if line in lines] == lines, "\n".join(lines)
    # Besides these there are two headings, each with its rule.
    assert len(shown) == len(lines) + 4


def test_what_the_pages_name_exists():
    for page in (*PAGES, "literature"):
        path = DOCS / f"{page}.md"
        prose = FENCE.sub("", path.read_text(encoding="utf-8"))
        for target in re.findall(r"\{doc\}`(?:[^`<]*<)?([^`>]+)>?`", prose):
            base = DOCS if target.startswith("/") else path.parent
            assert (base / f"{target.lstrip('/')}.md").exists(), f"{page}: {target}"
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", prose):
            assert (path.parent / target).exists(), f"{page}: {target}"
        for name in re.findall(r"`((?:tests|experiments|derivations)/[\w./-]+)`", prose):
            assert (ROOT / name).exists(), f"{page}: {name}"
        for name in re.findall(r"\{py:\w+\}`ufm\.(\w+)`", prose):
            assert name in ufm.__all__, f"{page}: {name}"


def test_citations_and_bibliography_agree():
    keys = re.findall(r"^@\w+\{(\w+),", (DOCS / "references.bib").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert len(set(keys)) == len(keys)
    cited = {page: citations(page) for page in (*PAGES, "literature")}
    for page, found in cited.items():
        assert found <= set(keys), f"{page}: {found - set(keys)}"
    assert cited["literature"] == set(keys)


def citations(page: str) -> set[str]:
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    return {key for group in re.findall(r"\{cite(?::t)?\}`([^`]+)`", text) for key in group.split(",")}
