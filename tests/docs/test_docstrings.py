"""The public docstrings have numpydoc's sections, and these name what the signatures and the bodies have."""

import ast
import dataclasses
import inspect
import re
import textwrap
from typing import Any

import pytest

import ufm
import ufm.plotting

validation = pytest.importorskip("numpydoc.validate", reason="the docstrings are read with the extra `docs`")
docscrape = pytest.importorskip("numpydoc.docscrape")

NAMES = [f"ufm.{name}" for name in ufm.__all__]
NAMES += [f"ufm.plotting.{name}" for name in ufm.plotting.__all__ if callable(getattr(ufm.plotting, name))]
# Sections known and in order; parameters as in the signature; a summary of one sentence; what is returned or yielded.
CODES = {"GL06", "GL07", "GL08", "PR01", "PR02", "PR03", "PR10", "RT01", "SS01", "SS03", "SS06", "YD01"}


def public(name: str) -> Any:
    return getattr(ufm.plotting if name.startswith("ufm.plotting.") else ufm, name.rpartition(".")[2])


def raises(function: Any) -> bool:
    """Whether the body raises an error, or hands an argument to one of the checks that do."""
    for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(function))))):
        if isinstance(node, ast.Raise) and node.exc is not None:
            return True
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("check_"):
            return True
    return False


def errors_of(name: str, codes: set[str]) -> list[tuple[str, str]]:
    return [error for error in validation.validate(name)["errors"] if error[0] in codes]


@pytest.mark.parametrize("name", NAMES)
def test_docstring_has_the_sections_that_the_definition_asks_for(name: str) -> None:
    defined = public(name)
    doc = docscrape.NumpyDocString(inspect.getdoc(defined) or "")
    documented = [part for entry in doc["Parameters"] + doc["Attributes"] for part in entry.name.split(", ")]
    assert len(set(documented)) == len(documented)
    # In single backticks these would be links to the public name; two make them code.
    assert not set(documented) & set(ufm.__all__) & set(re.findall(r"(?<!`)`(\w+)`(?!`)", defined.__doc__))

    if isinstance(defined, type):
        assert errors_of(name, CODES - {"PR01", "PR02", "PR03"}) == []
        if dataclasses.is_dataclass(defined):
            fields = {field.name for field in dataclasses.fields(defined) if not field.name.startswith("_")}
            # What a base class defines may be described there.
            assert fields & set(inspect.get_annotations(defined)) <= set(documented) <= fields
        for method, function in vars(defined).items():
            if inspect.isfunction(function) and not method.startswith("_"):
                codes = CODES if "Parameters\n" in function.__doc__ else CODES - {"PR01", "RT01", "YD01"}
                assert errors_of(f"{name}.{method}", codes) == []
    else:
        assert errors_of(name, CODES) == []
    body = vars(defined).get("__post_init__") if isinstance(defined, type) else defined
    assert not body or not raises(body) or doc["Raises"]
