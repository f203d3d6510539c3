"""Mutation testing: how many small changes of the code the tests notice.

    python -m experiments.benchmarks.mutation [--per-module 25] [--out experiments/results/mutation/mutation.json]

Mutants are drawn at random (with a fixed seed) from all single changes of an operator, comparison, constant, boolean
or keyword default in the modules' functions. Each is put into a copy of the committed tree, where the module's tests
run with -x: a failure, an error or a time-out kills it. Survivors are listed with their line.
"""

import ast
import copy
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from ufm._support.files import write_json

ROOT = Path(__file__).parents[2]

# Which tests are about which module; the first to notice most come first.
TESTS = {
    "special": ["special", "response"],
    "etf": ["etf"],
    "targets": ["targets", "laws", "shape"],
    "laws": ["laws", "targets"],
    "quadrature": ["laws", "targets"],
    "losses": ["losses", "response"],
    "response": ["response", "theory"],
    "theory": ["theory", "shape", "response", "laws"],
    "shape": ["shape", "theory"],
    "certificate": ["certificate"],
}

SWAPS = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.And: ast.Or, ast.Or: ast.And, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.BitAnd: ast.BitOr, ast.USub: ast.UAdd,
}  # fmt: skip


@dataclass(frozen=True)
class Config:
    """What to mutate."""

    per_module: int = 25
    """mutants drawn from each module"""
    seed: int = 0
    """of the draw"""
    timeout: float = 300.0
    """seconds for one mutant's tests"""
    modules: tuple[str, ...] = tuple(TESTS)
    """modules of the library"""
    out: str = "experiments/results/mutation/mutation.json"
    """result file"""


def mutants(source: str) -> list[tuple[int, str, str]]:
    """Return (line, description, mutated source) of every single change."""
    found = []
    tree = ast.parse(source)
    for index, node in enumerate(ast.walk(tree)):
        for description, change in changes(node):
            mutated = copy.deepcopy(tree)
            twin = next(n for i, n in enumerate(ast.walk(mutated)) if i == index)
            change(twin)
            found.append((getattr(node, "lineno", 0), description, ast.unparse(mutated)))
    return found


def changes(node: ast.AST) -> Iterator[tuple[str, Callable[[Any], None]]]:
    """Yield (description, function that changes the node in place)."""
    if isinstance(node, ast.BinOp | ast.UnaryOp | ast.BoolOp | ast.AugAssign) and type(node.op) in SWAPS:
        new = SWAPS[type(node.op)]
        yield f"{type(node.op).__name__} -> {new.__name__}: {ast.unparse(node)[:80]}", lambda n: setattr(n, "op", new())
    if isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPS:
        new_comparison = SWAPS[type(node.ops[0])]
        yield (
            f"{type(node.ops[0]).__name__} -> {new_comparison.__name__}: {ast.unparse(node)[:80]}",
            lambda n: n.ops.__setitem__(0, new_comparison()),
        )
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
        yield f"constant {node.value} -> {node.value + 1}", lambda n: setattr(n, "value", n.value + 1)
    if isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield f"constant {node.value} -> {not node.value}", lambda n: setattr(n, "value", not n.value)


def survives(tree: Path, module: str, mutated: str, timeout: float) -> bool:
    """Return whether the module's tests pass with the mutated source."""
    path = tree / "ufm" / f"{module}.py"
    original = path.read_text(encoding="utf-8")
    path.write_text(mutated, encoding="utf-8")
    tests = [f"tests/test_{name}.py" for name in TESTS[module]]
    environment = {**os.environ, "CI": "1", "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        finished = subprocess.run(
            [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests],
            cwd=tree, env=environment, capture_output=True, timeout=timeout, check=False,
        )  # fmt: skip
        return finished.returncode == 0
    except subprocess.TimeoutExpired:
        return False
    finally:
        path.write_text(original, encoding="utf-8")


def main() -> int:
    """Draw the mutants, run the tests on each, print and write what survived."""
    config = tyro.cli(Config, description=__doc__)
    # Modules measured earlier with the same draw stay in the result file.
    drawn_alike = {"per_module": config.per_module, "seed": config.seed}
    earlier = json.loads(Path(config.out).read_text(encoding="utf-8")) if Path(config.out).exists() else {}
    rows = earlier.get("modules", {}) if earlier.get("draw") == drawn_alike else {}
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        ignore = shutil.ignore_patterns(".git", ".venv", "runs", "__pycache__")
        shutil.copytree(ROOT, tree, ignore=ignore)
        for module in config.modules:
            every = mutants((tree / "ufm" / f"{module}.py").read_text(encoding="utf-8"))
            drawn = random.Random(config.seed).sample(every, min(config.per_module, len(every)))
            survivors = []
            for line, description, mutated in drawn:
                if survives(tree, module, mutated, config.timeout):
                    survivors.append({"line": line, "change": description})
                    print(f"survived: {module}.py:{line} {description}", flush=True)
            rows[module] = {"possible": len(every), "drawn": len(drawn), "survivors": survivors}
            print(f"{module}: {len(drawn) - len(survivors)} of {len(drawn)} killed", flush=True)
            total = sum(row["drawn"] for row in rows.values())
            killed = total - sum(len(row["survivors"]) for row in rows.values())
            result = {"draw": drawn_alike, "modules": rows, "killed": killed, "drawn": total}
            result["fraction"] = killed / total
            write_json(Path(config.out), result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
