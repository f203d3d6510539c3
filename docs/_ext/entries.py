"""Entries of the reference: signatures that can be read, and links from docstrings to the pages on the theory."""

import re
from typing import Any

from sphinx.application import Sphinx

import ufm
import ufm.plotting
from derivations import NAMES

_EITHER_KIND = re.compile(r"(~jaxtyping\.\w+)\[Tensor, ('[^']*')\] \| \1\[ndarray, \2\]")
# Where a class is defined, and where the reference has it.
_PUBLIC = {
    f"{value.__module__}.{name}": f"{module.__name__}.{name}"
    for module in (ufm, ufm.plotting)
    for name in module.__all__
    if isinstance(value := getattr(module, name), type)
}
_SCRIPT = re.compile(rf"`*((?:derivations/)?\b({'|'.join(NAMES)})\.py)`*")


def _signature(app: Sphinx, what: str, name: str, obj: Any, options: Any, arguments: str, returns: str | None) -> Any:
    if what == "class" and arguments == "()":
        # Written so in the page: a result, which users do not construct.
        return "", None
    return tuple(text and _readable(text) for text in (arguments, returns))


def _readable(types: str) -> str:
    """Return types with arrays of either kind as `Array`, ours by their public names, and PyTorch's with its name."""
    # Sphinx parses signatures as Python, which a default that a factory makes is not.
    types = _EITHER_KIND.sub(r"\1[Array, \2]", types.replace("<factory>", "..."))
    types = re.sub(r"ufm\.[\w.]+", lambda match: _PUBLIC.get(match[0], match[0]), types)
    return re.sub(r"~torch\.(?:_C\.)?(?!Tensor)", "torch.", types)


def _docstring(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    lines[:] = [_SCRIPT.sub(r":doc:`\1 </theory/\2>`", line) for line in lines]


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect to autodoc."""
    app.connect("autodoc-process-signature", _signature)
    app.connect("autodoc-process-docstring", _docstring)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
