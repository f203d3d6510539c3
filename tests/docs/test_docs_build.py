"""The documents build without a warning, hold every public name, and need no network to be read."""

import contextlib
import dataclasses
import io
import os
import re
import subprocess
import sys
import zlib
from html.parser import HTMLParser
from pathlib import Path

import pytest
from filelock import FileLock

import ufm
from derivations import NAMES
from tests.docs.test_notebooks import FIGURES

pytest.importorskip("sphinx", reason="the documents need the extra `docs`")
pytest.importorskip("myst_nb", reason="the notebooks need the extra `docs`")
pytest.importorskip("pypandoc", reason="formulas need pandoc")

# One worker builds them; the other need not wait for it.
pytestmark = pytest.mark.xdist_group("documents")

ROOT = Path(__file__).parents[2]
EXTENSIONS = ROOT / "docs" / "_ext"
CLASSES = [getattr(ufm, name) for name in ufm.__all__ if isinstance(getattr(ufm, name), type)]
METHODS = (ufm.Newton, ufm.LBFGS, ufm.GradientDescent, ufm.Momentum, ufm.Adam)


def run_sphinx(source: Path, out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "-d", f"{out}-trees", *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [*command, str(source), str(out)], capture_output=True, text=True, check=False, cwd=ROOT, env=environment
    )


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built documents, without the notebooks' outputs; built once, whichever worker comes first."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    out, said = shared / "documents", shared / "documents.log"
    with FileLock(f"{out}.lock"):
        if not said.exists():
            result = run_sphinx(ROOT / "docs", out, "-D", "nb_execution_mode=off")
            said.write_text(f"{result.returncode}\n{result.stderr}", encoding="utf-8")
    status, _, warnings = said.read_text(encoding="utf-8").partition("\n")
    assert status == "0", warnings
    return out


@pytest.fixture
def extensions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXTENSIONS))


def entries(site: Path) -> set[str]:
    """Return the names that the inventory has, Python's only."""
    content = (site / "objects.inv").read_bytes()
    lines = zlib.decompress(content.split(b"\n", 4)[4]).decode().splitlines()
    return {line.split()[0] for line in lines if line.split()[1].startswith("py:")}


def test_every_public_name_has_an_entry(site: Path) -> None:
    assert {f"ufm.{name}" for name in ufm.__all__} <= entries(site)
    from ufm import plotting

    shown = [name for name in plotting.__all__ if callable(getattr(plotting, name)) and name.islower()]
    assert {f"ufm.plotting.{name}" for name in shown} <= entries(site)


def test_methods_have_entries(site: Path) -> None:
    expected = set()
    for cls in set(CLASSES) - set(METHODS):
        fields = {field.name for field in dataclasses.fields(cls)} if dataclasses.is_dataclass(cls) else set()
        public = {name for name, value in vars(cls).items() if not name.startswith("_") and value.__doc__} - fields
        expected |= {f"ufm.{cls.__name__}.{name}" for name in public}
    assert {"ufm.Solution.response", "ufm.Mixup.targets", "ufm.Certificate.relative_gap"} <= expected
    assert expected <= entries(site)


def test_signatures_are_those_of_the_source(site: Path) -> None:
    pages = {path.stem: Text.of(path) for path in (site / "api").glob("*.html")}
    closed_forms = pages["closed_forms"]
    assert "ufm.nearest_etf(W: Float[Array, 'K d']) → NearestETF" in closed_forms
    assert "generator: torch.Generator | None = None, dtype: torch.dtype = torch.float64," in closed_forms
    # Users do not construct results, but do construct laws.
    assert "class ufm.NearestETF¶" in closed_forms
    assert "class ufm.Unmixed(num_classes: int, priors: tuple[float, ...] | None = None)¶" in pages["laws"]
    for text in pages.values():
        assert not re.search(r"jaxtyping|\| Float\[ndarray|torch\._C", text)


def test_fields_stand_once_in_the_entry_of_their_class(site: Path) -> None:
    page = (site / "api" / "closed_forms.html").read_text(encoding="utf-8")
    entry = page[page.index('id="ufm.JointOptimum"') : page.index('id="ufm.JointOptimum.')]
    shown = re.findall(r"<dt><strong>(\w+)</strong>", entry)
    assert shown == [field.name for field in dataclasses.fields(ufm.JointOptimum)]
    assert {name for name in entries(site) if name.startswith("ufm.JointOptimum.")} == {
        "ufm.JointOptimum.classifier",
        "ufm.JointOptimum.plot",
        "ufm.JointOptimum.response",
    }


def test_docstrings_link_to_the_reference_and_the_theory(site: Path) -> None:
    page = (site / "api" / "calibration.html").read_text(encoding="utf-8")
    assert 'href="closed_forms.html#ufm.joint_optimum"' in page
    page = (site / "api" / "channel.html").read_text(encoding="utf-8")
    assert re.search(r'href="../theory/channel.html"><span class="doc">derivations/channel.py</span>', page)


class Text(HTMLParser):
    """The words of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.text: list[str] = []

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    @classmethod
    def of(cls, path: Path) -> str:
        """Return the page's words, one space between them and none after an opening bracket."""
        page = cls()
        page.feed(path.read_text(encoding="utf-8"))
        return re.sub(r"\(\s+", "(", " ".join("".join(page.text).split()))


class Resources(HTMLParser):
    """The addresses that a page loads as it opens; what a reader may follow is not among them."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        followed = tag == "a" or (
            tag == "link" and given.get("rel") in ("index", "search", "next", "prev", "canonical")
        )
        if not followed:
            self.loaded += [value for name in ("src", "srcset", "href", "data") if (value := given.get(name))]


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    check_resources(site)


@pytest.mark.slow
def test_notebooks_are_run_for_their_pages(tmp_path: Path) -> None:
    result = run_sphinx(ROOT / "docs", tmp_path / "out", "-D", "nb_execution_mode=force")
    assert result.returncode == 0, result.stderr
    for name, count in FIGURES.items():
        page = (tmp_path / "out" / "notebooks" / f"{name}.html").read_text(encoding="utf-8")
        pictures = re.findall(r'<img [^>]*src="\.\./(_images/\w+\.png)"', page)
        assert len(pictures) == count, name
        assert all((tmp_path / "out" / picture).stat().st_size > 10_000 for picture in pictures)
        assert "<caption" in page or name == "paper_figure"  # a result, shown as a table
    check_resources(tmp_path / "out")


def check_resources(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 30
    for path in pages:
        page = Resources()
        page.feed(path.read_text(encoding="utf-8"))
        assert page.loaded
        assert [address for address in page.loaded if re.match(r"(https?:)?//", address)] == [], path
    for path in site.rglob("*.css"):
        style = path.read_text(encoding="utf-8")
        assert not re.search(r"url\(\s*[\"']?(https?:)?//|@import", style), path


def test_formulas_are_mathml(site: Path) -> None:
    for name in (*NAMES, "index"):
        source = (ROOT / "docs" / "theory" / f"{name}.md").read_text(encoding="utf-8")
        page = (site / "theory" / f"{name}.html").read_text(encoding="utf-8")
        displayed = source.count("$$") // 2
        inline = len(re.findall(r"\$[^$]+\$", source.replace("$$", "")))
        assert page.count('<math display="block"') == displayed
        assert page.count('<math display="inline"') >= inline // 2
        assert "$" not in re.sub(r"<annotation.*?</annotation>|<script.*?</script>", "", page, flags=re.DOTALL)


@pytest.mark.parametrize(("formula", "known"), [(r"\tfrac12 \operatorname{rank} W", True), (r"\nothing x", False)])
def test_unknown_command_in_a_formula_fails_the_build(formula: str, known: bool, tmp_path: Path) -> None:
    configuration = f"import sys\nsys.path[:0] = [{str(EXTENSIONS)!r}]\n"
    configuration += "extensions = ['myst_parser', 'mathml']\nmyst_enable_extensions = ['dollarmath']\n"
    (tmp_path / "conf.py").write_text(configuration + "html_math_renderer = 'mathml'\n", encoding="utf-8")
    (tmp_path / "index.md").write_text(f"# Page\n\nA formula: ${formula}$.\n", encoding="utf-8")
    result = run_sphinx(tmp_path, tmp_path / "out")
    assert (result.returncode == 0) is known, result.stderr
    if known:
        assert ">rank</" in (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    else:
        assert formula in result.stderr


@pytest.mark.usefixtures("extensions")
def test_command_line_page_has_the_options_that_there_are() -> None:
    from command_line import commands

    from ufm.commands.main import main

    assert {"predict", "solve", "verify", "compare"} <= commands().keys()
    for name, (description, options) in commands().items():
        said = io.StringIO()
        with contextlib.redirect_stdout(said), pytest.raises(SystemExit):
            main([name, "--help"])
        offered = set(re.findall(r"^│?\s*(?:-h, )?(--[a-z][a-z-]*)", said.getvalue(), flags=re.MULTILINE)) - {"--help"}
        assert offered == {option.flag.replace("--no-", "--") for option in options if option.flag.startswith("--")}
        assert description.split(".")[0] in " ".join(said.getvalue().replace("│", " ").split())
        assert all(option.help for option in options)
