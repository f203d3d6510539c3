"""The scripts of docs/howto/scripts run, and touch ufm in as few lines as their page says."""

import ast
import re
import runpy
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "docs" / "howto" / "scripts"
PAGE = FOLDER.parent / "scripts.md"
SCRIPTS = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "toy")
# What needs a library of the extra "integrations".
NEEDS = {"lightning_trainer": "lightning", "hugging_face": "transformers"}
LIMIT = 5


def lines_with_ufm(source: str) -> int:
    """Return how many statements name the package, or something that came out of it."""
    tree = ast.parse(source)
    names = {"ufm"}
    lines: set[int] = set()
    statements = [node for node in ast.walk(tree) if isinstance(node, ast.stmt)]
    for node in statements:
        if isinstance(node, ast.Import | ast.ImportFrom):
            found = [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
            if any(name.split(".")[0] == "ufm" for name in found):
                names |= {alias.asname or alias.name for alias in node.names}
                lines.add(node.lineno)
            continue
        # Of a block, its first line only; what is inside counts by itself.
        blocks = [child for child in ast.iter_child_nodes(node) if not isinstance(child, ast.stmt)]
        used = {name.id for block in blocks for name in ast.walk(block) if isinstance(name, ast.Name)}
        if used & names:
            lines.add(node.lineno)
            if isinstance(node, ast.Assign):
                names |= {name.id for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name)}
    return len(lines)


def test_lines_are_counted():
    source = "import ufm\nx = f()\ny = ufm.g(x)\nfor i in x:\n    h(y)\n    h(i)\nprint(y)\n"
    assert lines_with_ufm(source) == 4
    assert lines_with_ufm("from ufm.reports import report\nreport()\nother()\n") == 2


@pytest.mark.parametrize("name", SCRIPTS)
def test_script_is_short_and_on_its_page(name: str):
    source = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
    assert f"{{literalinclude}} scripts/{name}.py" in PAGE.read_text(encoding="utf-8")
    row = re.search(
        rf"^\| \[[^|]*\]\(#{name.replace('_', '-')}\) \|.*\| (\d+) \|$", PAGE.read_text("utf-8"), re.MULTILINE
    )
    assert row is not None
    assert int(row[1]) == lines_with_ufm(source) <= LIMIT


def test_ways_people_work():
    assert len(SCRIPTS) >= 10


@pytest.mark.usefixtures("unchecked")
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    "name", [pytest.param(x, marks=pytest.mark.integrations if x in NEEDS else ()) for x in SCRIPTS]
)
def test_script_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    if name in NEEDS:
        pytest.importorskip(NEEDS[name], reason="needs the extra integrations")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(FOLDER))
    runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
    made = list(tmp_path.rglob("run.json")) + list(tmp_path.glob("report.html"))
    assert capsys.readouterr().out.strip() or made
