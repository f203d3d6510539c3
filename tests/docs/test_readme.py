import re
import tomllib
from pathlib import Path

import pytest

import ufm
from experiments.suite import read_suite

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "experiments" / "results"


def test_every_run_of_the_suite_is_committed():
    assert {folder.name for folder in (RESULTS / "networks").iterdir()} == set(read_suite())


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


def test_every_public_name_is_reachable_and_documented():
    assert sorted(ufm.__all__) == ufm.__all__
    assert len(ufm.__all__) == 91
    assert set(dir(ufm)) >= set(ufm.__all__)
    for name in ufm.__all__:
        assert getattr(ufm, name).__doc__, name
    with pytest.raises(AttributeError, match="nothing"):
        ufm.nothing  # noqa: B018


def test_versions_agree():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == ufm.__version__
    assert f"version: {ufm.__version__}" in (ROOT / "CITATION.cff").read_text()
