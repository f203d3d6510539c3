import re
import subprocess
import sys
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


@pytest.mark.slow
def test_the_readme_passes_a_strict_type_checker():
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    # Below the checkout, so that the project's settings and environment are found.
    file = ROOT / "docs" / "_build" / "readme_strict.py"
    file.parent.mkdir(exist_ok=True)
    file.write_text("# pyright: strict\n" + "".join(blocks), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pyright", file], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
