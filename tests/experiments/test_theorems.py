"""The table of theorems: every row leads somewhere, and was found to hold."""

import importlib
import json
import re
from pathlib import Path

import pytest

import ufm
from experiments.theorems.table import all_theorems
from experiments.theorems.theorem import Theorem

ROOT = Path(__file__).parents[2]
THEOREMS = all_theorems()


def named(theorem: Theorem) -> str:
    return theorem.name


def test_names_are_distinct():
    assert len({theorem.name for theorem in THEOREMS}) == len(THEOREMS)


@pytest.mark.parametrize("theorem", THEOREMS, ids=named)
def test_every_reference_leads_somewhere(theorem: Theorem):
    keys = re.findall(r"^@\w+\{(\w+),", (ROOT / "docs/references.bib").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(theorem.sources) <= set(keys)
    for name in theorem.functions:
        thing = ufm
        for part in name.removeprefix("ufm.").split("."):
            thing = getattr(thing, part)
    if theorem.derivation is not None:
        importlib.import_module(f"derivations.{theorem.derivation}")
    path, _, test = theorem.test.partition("::")
    assert f"def {test}(" in (ROOT / path).read_text(encoding="utf-8")


@pytest.mark.parametrize("theorem", THEOREMS, ids=named)
def test_the_committed_check_has_found_it_to_hold(theorem: Theorem):
    found = json.loads((ROOT / "experiments/results/theorems.json").read_text(encoding="utf-8"))["theorems"]
    assert found[theorem.name]["deviation"] <= theorem.tolerance == found[theorem.name]["tolerance"]


@pytest.mark.slow
@pytest.mark.parametrize("theorem", THEOREMS, ids=named)
def test_it_holds_when_checked_anew(theorem: Theorem):
    assert theorem.check() <= theorem.tolerance
