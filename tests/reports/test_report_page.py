"""The report as a page: self-contained, well formed, escaped, complete; and the command that writes it."""

import dataclasses
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.helpers.report_runs import TRAINING, straight_network, theory_network, write_run
from ufm.commands.main import main
from ufm.reports import Claim, read_run, report
from ufm.runs import exact_claims

_EMPTY = {"meta", "img", "br"}
_VERDICTS = {"holds", "does not hold", "not applicable"}
RESULTS = Path(__file__).parents[2] / "experiments" / "results"


class Page(HTMLParser):
    """Tags in the order of the page, with their attributes and the text directly inside; raises for bad nesting."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[dict] = []
        self.tags: list[dict] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(set(names)) == len(names), tag
        found = {"tag": tag, "text": "", "inside": [each["tag"] for each in self.open], **dict(attrs)}
        self.tags.append(found)
        if tag not in _EMPTY:
            self.open.append(found)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()["tag"] == tag

    def handle_data(self, data: str) -> None:
        for each in self.open:
            each["text"] += data

    def of(self, tag: str) -> list[dict]:
        return [each for each in self.tags if each["tag"] == tag]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    place = tmp_path_factory.mktemp("runs")
    hostile = dataclasses.replace(TRAINING, data="<script>alert('x')</script>", loss="mean_squared_error")
    return [
        write_run(place / "tiny", theory_network()),
        write_run(place / "<b>b&$x", straight_network(), training=hostile),
    ]


@pytest.fixture(scope="module")
def single(folders: list[Path]) -> str:
    return report([read_run(folders[0])], "ufm report tiny").html()


@pytest.fixture(scope="module")
def several(folders: list[Path]) -> str:
    return report([read_run(folder) for folder in folders], "ufm report both").html()


def assert_sound(text: str) -> Page:
    """Check what must be true of every page."""
    assert text.startswith("<!doctype html>")
    page = Page(text)
    assert len(page.of("h1")) == len(page.of("title")) == len(page.of("main")) == 1
    assert page.of("html")[0]["lang"] == "en"
    assert page.of("meta")[1]["content"] == "width=device-width, initial-scale=1"
    ids = [each["id"] for each in page.tags if "id" in each]
    assert len(set(ids)) == len(ids)
    for each in page.tags:
        for name in ("src", "href", "srcset", "data", "action", "poster"):
            if name in each:
                assert re.match(r"data:image/png;base64,[A-Za-z0-9+/=]+$|#", each[name]), each[name][:60]
                assert not each[name].startswith("#") or each[name][1:] in ids
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & {each["tag"] for each in page.tags}
    style = page.of("style")[0]["text"]
    assert "url(" not in style
    assert "@import" not in style
    assert all(len(each["alt"]) > 30 for each in page.of("img"))
    assert len(page.of("figcaption")) == len(page.of("figure"))
    # A wide table lies in a box of its own that scrolls; tables of claims are stacked where there is no room.
    assert all(each.get("class") == "claims" or each["inside"][-1] == "div" for each in page.of("table"))
    verdicts = [each["text"] for each in page.of("span") if each["class"].startswith("verdict")]
    assert set(verdicts) <= _VERDICTS
    rows = [each for each in page.of("td") if each.get("data-label") == "verdict"]
    assert rows
    assert all(any(each["text"].startswith(verdict) for verdict in _VERDICTS) for each in rows)
    return page


def test_the_page_on_one_run_is_sound_and_complete(single: str):
    page = assert_sound(single)
    assert len(page.of("img")) == 6
    first = page.of("p")[0]["text"]
    assert "straight line in the label" in first
    tables = page.of("table")
    assert "The classifier is a simplex ETF" in tables[0]["text"]
    assert "claims hold" in tables[0]["text"]
    assert "Closed form against direct solver" in tables[1]["text"]
    # Picture before tables, and each sentence of evidence once.
    assert single.index("<img") < single.index("<table")
    page_claims = single[: single.index("<section")]
    assert page_claims.count("outputs averaged over positions, eval mode") == 1
    assert "ufm report tiny" in page.of("footer")[0]["text"]
    assert '"mixing"' in page.of("pre")[0]["text"]


def test_the_page_on_several_runs_compares_them_first(several: str):
    page = assert_sound(several)
    # As any text, a run's name and its configuration are escaped: no tag comes of them.
    assert not page.of("b")
    assert "<b>b&$x" in page.of("h2")[1]["text"]
    assert "<script>alert('x')</script>" in page.of("section")[1]["text"]
    assert [each["href"] for each in page.of("a")[:2]] == ["#run-1", "#run-2"]
    overview, matrix = page.of("table")[:2]
    assert "the expected one is ahead, per sample" in matrix["text"]
    assert "β fitted" in overview["text"]
    assert "60.0 %" in overview["text"]
    # Network's claims of each run in its own section too.
    assert several.count("The classifier is a simplex ETF") >= 2


def test_the_page_on_the_committed_demo_is_sound():
    page = assert_sound(report([read_run(RESULTS / "demo")], "ufm report demo").html())
    assert "Direct solves" in [each["text"] for each in page.of("h3")]
    assert len(page.of("img")) == 4


def test_the_same_runs_make_the_same_page(folders: list[Path], single: str):
    # Compared as a truth value: pytest's account of how two such long texts differ takes minutes.
    same = report([read_run(folders[0])], "ufm report tiny").html() == single
    assert same


def test_an_unflattering_figure_stands_on_the_page(folders: list[Path]):
    run = read_run(folders[0])
    spoilt = dataclasses.replace(run.comparison, etf_error=0.77, beta=float("nan"), solver_error=1.0)
    made = report([dataclasses.replace(run, comparisons={"eval": spoilt})], "")
    assert made.failed
    page = assert_sound(made.html())
    row = next(each["text"] for each in page.of("tr") if "The classifier is a simplex ETF" in each["text"])
    assert "0.77" in row
    assert "does not hold" in row
    agreement = next(each["text"] for each in page.of("tr") if "On the network's own targets" in each["text"])
    assert "does not hold" in agreement


def test_a_picture_that_cannot_be_drawn_says_why(folders: list[Path]):
    run = read_run(folders[0])
    some = theory_network(4)
    # No sample is of the classes 0, 1 and 2 only.
    few = dataclasses.replace(some, class_a=some.class_a * 0 + 3)
    html = report([dataclasses.replace(run, recorded=few, num_classes=4)], "").html()
    assert len(assert_sound(html).of("img")) == 5
    assert "Not drawn: classes: got (0, 1, 2), of which no sample is" in html


def test_a_run_without_samples_has_the_pictures_that_need_none(folders: list[Path]):
    html = report([dataclasses.replace(read_run(folders[0]), recorded=None, folder=None)], "").html()
    assert len(assert_sound(html).of("img")) == 4
    assert "Not drawn" not in html


def test_the_command_writes_the_page_and_says_where(
    folders: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "new" / "page.html"
    assert main(["report", str(folders[0]), "--out", str(out)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("closed form against direct solver: 1")
    assert said[1].startswith("tiny, eval mode: ")
    assert said[-1] == str(out)
    page = assert_sound(out.read_text(encoding="utf-8"))
    assert f"ufm report {folders[0]} --out {out}" in page.of("footer")[0]["text"]


def test_the_command_prints_the_claims_as_json(folders: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    theory_network().save(tmp_path / "mine.safetensors")
    arguments = [str(tmp_path / "mine.safetensors"), "--alpha", "None", "--out", str(tmp_path / "x.html"), "--json"]
    assert main(["report", *arguments]) == 0
    found = json.loads(capsys.readouterr().out)
    [run] = found["runs"]
    assert run["name"] == "mine.safetensors"
    assert {claim["verdict"] for claim in found["exact"]} == {"holds"}
    assert {claim["verdict"] for claim in run["claims"]} >= {"not applicable", "holds"}


def test_exit_status_1_if_an_exact_claim_fails(
    folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    wrong = Claim("wrong: gradient norm", "wrong", 1.0, "<=", 0.5, True)
    monkeypatch.setattr(exact_claims, "verified", lambda *_: (wrong,))
    assert main(["report", str(folders[0]), "--out", str(tmp_path / "x.html")]) == 1
    assert "1 does not" in capsys.readouterr().out
    assert "does not hold" in (tmp_path / "x.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "runs: got none"),
        (["nowhere"], "runs: got 'nowhere', which does not exist"),
        (["README.md"], "file: got 'README.md'"),
        (["{run}", "--classes", "0", "1", "7"], "classes: got (0, 1, 7), expected three different ones in 0..2"),
        (["{run}", "--alpha", "-1"], "alpha: got -1"),
        (["{run}", "--loss", "hinge"], "loss: got 'hinge'"),
    ],
)
def test_bad_input_is_one_line_and_exit_status_2(
    folders: list[Path], capsys: pytest.CaptureFixture[str], arguments: list[str], complaint: str
):
    assert main(["report", *(word.format(run=folders[0]) for word in arguments)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"ufm: error: {complaint}")
    assert error.count("\n") == 1


def test_the_command_line_stays_light():
    code = "import sys, ufm.commands.main; sys.exit(bool({'torch', 'matplotlib', 'jinja2'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
