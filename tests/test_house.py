"""The layout keeps its promises: rooms in order, imports only downward, no circles, no special cases by name."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import ufm

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "ufm"
# From the top floor down; a module may import from its own room and from those below.
ROOMS = (
    "commands",
    "reports",
    "runs",
    "plotting",
    "networks",
    "solvers",
    "theory",
    "labels",
    "losses",
    "prox",
    "_support",
)
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.parent != PACKAGE or path.stem not in ("__init__", "__main__")
}


def imported(path: Path) -> Iterator[str]:
    """Yield the modules of the package that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name.split(".")[0] == "ufm")
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names = [f"{node.module}.{name.name}" for name in node.names]
            yield from (name if name in MODULES else node.module for name in names if node.module.startswith("ufm"))


def room(module: str) -> str:
    return module.split(".")[1]


def test_the_top_floor_is_the_list_of_rooms():
    found = {path.stem for path in PACKAGE.iterdir() if path.suffix in ("", ".py") and path.stem != "__pycache__"}
    assert found - {"__init__", "__main__"} == set(ROOMS)
    assert len(found) <= 14
    assert not set(ROOMS) & set(ufm.__all__), "a child of the package bears the name of a public function"


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module: str):
    for other in imported(MODULES[module]):
        assert other != "ufm", f"{module} imports the package's root"
        assert ROOMS.index(room(module)) <= ROOMS.index(room(other)), f"{module} imports {other}, which lies above it"


def test_no_modules_import_each_other_in_a_circle():
    below = {module: set(imported(path)) & MODULES.keys() - {module} for module, path in MODULES.items()}
    while free := [module for module, others in below.items() if not others & below.keys()]:
        for module in free:
            del below[module]
    assert not below


def test_no_one_asks_for_the_name_of_a_loss_or_a_method():
    """What depends on the loss is a member of the loss, and what depends on the method of the method."""
    from ufm.losses import LOSSES
    from ufm.solvers import METHODS

    names = {*LOSSES, *METHODS}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Compare):
                constants = {part.value for part in ast.walk(node) if isinstance(part, ast.Constant)}
                assert not constants & names, f"{path.relative_to(ROOT)}:{node.lineno}"


def test_files_hold_one_idea_each():
    long = {
        str(path.relative_to(ROOT)): lines
        for folder in ("ufm", "experiments", "figures")
        for path in (ROOT / folder).rglob("*.py")
        if (lines := path.read_text(encoding="utf-8").count("\n")) > 420
    }
    assert not long


def test_one_file_knows_how_a_run_is_kept():
    knowing = [
        str(path.relative_to(ROOT))
        for folder in ("ufm", "experiments", "figures")
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and node.value in ("run.json", "metrics.jsonl")
    ]
    assert set(knowing) == {"ufm/runs/record.py"}
