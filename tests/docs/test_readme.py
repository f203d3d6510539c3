import json
import re
import shutil
import tomllib
from pathlib import Path

import pytest

import ufm
from experiments import claims
from experiments.claims import claims_table
from experiments.suite import read_suite
from experiments.summary import overview, page, read_result

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
RESULTS = ROOT / "experiments" / "results"
KINDS = ("mixup", "none", "mse", "etf")
MAIN_RUNS = [f"{data}-{kind}" for data in ("digits", "mnist", "fashion", "cifar") for kind in KINDS]
MAIN_RUNS += ["fashion-vit-mixup"]


def test_claims_table_is_that_of_the_committed_results():
    assert claims_table(RESULTS) in README


def test_claims_ask_for_their_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("sys.argv", ["claims", "--results", str(tmp_path)])
    assert claims.main() == 2
    assert capsys.readouterr().err.startswith("experiments.claims: error: results: got")
    monkeypatch.setattr("sys.argv", ["claims", "--results", str(RESULTS)])
    assert claims.main() == 0
    assert capsys.readouterr().out.strip() == claims_table(RESULTS)


def test_results_table_is_that_of_the_committed_runs():
    assert overview([read_result(RESULTS / "networks" / name) for name in MAIN_RUNS]) in README


def test_results_page_is_that_of_the_committed_runs():
    folders = sorted((RESULTS / "networks").iterdir())
    assert {folder.name for folder in folders} == set(read_suite())
    assert (RESULTS / "README.md").read_text(encoding="utf-8") == page(folders)


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "experiments/results/README.md",
        "experiments/results/FINDINGS.md",
        "experiments/results/sweeps/README.md",
        "experiments/results/mutation/README.md",
        "figures/output/README.md",
    ],
)
def test_links_and_pictures_exist(page: str):
    path = ROOT / page
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), target


def test_a_claim_needs_what_is_measured(tmp_path: Path):
    """The squared error's line is judged by what it explains, and only inputs that could contradict are counted."""
    shutil.copytree(RESULTS, tmp_path / "results", ignore=shutil.ignore_patterns("*.safetensors", "*.jsonl.gz"))
    results = tmp_path / "results"
    before = {row.statement: row for row in claims.claims(results)}
    path = results / "networks" / "digits-mse" / "comparison.json"
    changed = json.loads(path.read_text())
    for score in changed["comparisons"]["eval"]["scores"]:
        score["r2_binned"] = 0.5
    path.write_text(json.dumps(changed))
    path = results / "minority" / "minority.json"
    changed = json.loads(path.read_text())
    for point in changed["points"]:
        point["spread_rare"] = 1.0
    path.write_text(json.dumps(changed))
    after = {row.statement: row for row in claims.claims(results)}
    differ = {statement for statement in before if before[statement] != after[statement]}
    assert len(differ) == 2
    (squared,) = (after[statement] for statement in differ if "squared error" in statement)
    assert squared.verdict == "holds on 2 of 4"
    (minority,) = (after[statement] for statement in differ if "rare classes" in statement)
    assert minority.figure.startswith("63 of 76")


def test_every_public_name_is_reachable_and_documented():
    assert sorted(ufm.__all__) == ufm.__all__
    assert set(dir(ufm)) >= set(ufm.__all__)
    for name in ufm.__all__:
        assert getattr(ufm, name).__doc__, name
    with pytest.raises(AttributeError, match="nothing"):
        ufm.nothing  # noqa: B018


def test_versions_agree():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == ufm.__version__
    assert f"version: {ufm.__version__}" in (ROOT / "CITATION.cff").read_text()
