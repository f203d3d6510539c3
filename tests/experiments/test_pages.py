"""The committed pages are what `python -m experiments.pages` makes of the committed results."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from experiments import pages
from experiments.claim_tables import claims_table, network_claims_table
from experiments.committed import Committed
from experiments.status import regime_table
from ufm.reports.tables import Table
from ufm.runs.record import read_record, write_record

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "experiments" / "results"


@pytest.fixture(scope="module")
def results() -> Committed:
    return Committed(RESULTS)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The pages, and the results without samples, in a folder that may be changed."""
    for page in pages.FRAGMENTS:
        (tmp_path / page).parent.mkdir(exist_ok=True)
        shutil.copyfile(ROOT / page, tmp_path / page)
    ignored = shutil.ignore_patterns("*.safetensors", "FINDINGS.md")
    shutil.copytree(RESULTS, tmp_path / "experiments" / "results", ignore=ignored)
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr("sys.argv", ["pages", *words])
    return pages.main()


def test_committed_pages_are_those_of_the_committed_results(results: Committed):
    for path, text in pages.pages(ROOT, results).items():
        current = path.read_text(encoding="utf-8") == text
        assert current, f"{path.relative_to(ROOT)} is out of date: python -m experiments.pages"


def test_a_page_out_of_date_is_found_and_written_anew(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert run(monkeypatch, "--root", str(checkout), "--check") == 0
    readme = checkout / "README.md"
    before = readme.read_text()
    assert "| digits-mixup | 99.2 % |" in before
    readme.write_text(before.replace("| digits-mixup | 99.2 % |", "| digits-mixup | 100 % |"))
    assert run(monkeypatch, "--root", str(checkout), "--check") == 1
    assert capsys.readouterr().out == "README.md: out of date\n"
    assert run(monkeypatch, "--root", str(checkout)) == 0
    assert capsys.readouterr().out == "README.md: written\n"
    assert readme.read_text() == before


def claims_of(results: Committed) -> dict[str, tuple[str, ...]]:
    return {row[0]: row for table in (claims_table, network_claims_table) for row in table(results).rows}


def test_a_claim_needs_what_is_measured(checkout: Path):
    """The squared error's line is judged by what it explains, and only inputs that could contradict are counted."""
    place = checkout / "experiments" / "results"
    before = claims_of(Committed(place))
    record = read_record(place / "networks" / "digits-mse")
    scores = [dataclasses.replace(score, r2_binned=0.5) for score in record.comparison.scores]
    worse = dataclasses.replace(record.comparison, scores=scores)
    write_record(
        dataclasses.replace(record, comparisons=record.comparisons | {"eval": worse}),
        place / "networks" / "digits-mse",
    )
    path = place / "minority" / "minority.json"
    changed = json.loads(path.read_text())
    for point in changed["points"]:
        point["spread_rare"] = 1.0
    path.write_text(json.dumps(changed))
    after = claims_of(Committed(place))
    differ = {statement for statement in before if before[statement] != after[statement]}
    assert len(differ) == 2
    (squared,) = (after[statement] for statement in differ if "squared error" in statement)
    assert squared[4] == "holds on 2 of 4"
    (minority,) = (after[statement] for statement in differ if "rare classes" in statement)
    assert minority[2].startswith("63 of 76")


def test_what_is_missing_is_named(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert run(monkeypatch, "--root", str(tmp_path / "nowhere")) == 2
    assert capsys.readouterr().err.startswith("experiments.pages: error: root: got")
    (checkout / "experiments" / "results" / "joint" / "joint.json").unlink()
    assert run(monkeypatch, "--root", str(checkout)) == 2
    assert "joint.json" in capsys.readouterr().err
    with pytest.raises(ValueError, match="got no run digits-odd, expected one"):
        Committed(RESULTS).main("odd")
    with pytest.raises(ValueError, match="without a run in networks"):
        _ = Committed(tmp_path / "nowhere").runs


def test_a_table_needs_its_place():
    table = Table("t", ("a", "b"), (("1", "2"),))
    text = "x\n<!-- begin: t -->\nold\n<!-- end: t -->\ny"
    assert pages.with_fragments(text, {"t": table}) == (
        "x\n<!-- begin: t -->\n| a | b |\n| --- | --- |\n| 1 | 2 |\n<!-- end: t -->\ny"
    )
    for broken in ("", text + text):
        with pytest.raises(ValueError, match="page: got no place for the table 't'"):
            pages.with_fragments(broken, {"t": table})


def test_seeds_of_a_point_are_one_row_and_the_nearest_is_first(results: Committed):
    rows = {row[0]: row for row in regime_table(results).rows}
    points = [point for point in results.regime if point["name"].startswith("mnist-20-strong")]
    assert len(points) == 3
    fit_free = sorted(point["r2_fit_free"] for point in points)
    assert rows["mnist-20-strong"][2] == "3"
    assert rows["mnist-20-strong"][5] == f"{fit_free[0]:.3f} to {fit_free[-1]:.3f}"
    assert rows["fashion-20-strong-etf"][5] == "-"
    assert not any(name.endswith(("-none", "-cutmix", "-mse")) or "seed" in name for name in rows)
    r2 = {point["name"]: point["r2_closed_form"] for point in results.regime if point["loss"] == "cross_entropy"}
    first = next(iter(rows))
    assert r2[first] == max(r2[name] for name in rows)
