"""Wheel and source distribution hold everything: built, installed elsewhere, and used there without the checkout."""

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# What a user does first, and what must not be loaded for it (sympy is, by torch).
_PROGRAM = """
import sys, ufm
optimum = ufm.joint_optimum(ufm.Mixup(3), 1e-3, 1e-3)
solution = ufm.solve(ufm.UFM(ufm.Mixup(3).targets(nodes=3), 3, 1e-2, 1e-2))
assert solution.converged
assert not {"cvxpy", "matplotlib", "pandas", "jinja2"} & set(sys.modules)
import ufm.plotting, ufm.reports
with ufm.plotting.style():
    optimum.plot()
print(ufm.__file__)
"""


def run(*words: str | Path, **options) -> str:
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution, made from the files that are under version control."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("sdist")
    names = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT).split("\0")
    for name in names:
        if name.startswith(("ufm/", "LICENSE", "README", "pyproject", "MANIFEST")) and (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    build = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
    run(sys.executable, "-c", build, out, cwd=source)
    (made,) = out.iterdir()
    return made


@pytest.mark.slow
def test_a_wheel_of_the_source_distribution_works_outside_the_checkout(sdist: Path, tmp_path: Path):
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    (project,) = (tmp_path / "unpacked").iterdir()
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--no-deps", "--no-build-isolation")
    run(*pip, "--quiet", "--target", tmp_path / "site", project)
    site = tmp_path / "site"
    environment = os.environ | {"PYTHONPATH": str(site), "MPLBACKEND": "agg"}
    assert run(sys.executable, "-c", _PROGRAM, cwd=tmp_path, env=environment).startswith(str(site))
    console = site / "bin" / "ufm"
    assert run(console, "--version", env=environment).startswith("ufm ")
    assert "beta" in run(console, "predict", "--num-classes", "3", "--json", env=environment)
    assert (site / "ufm" / "py.typed").is_file()
