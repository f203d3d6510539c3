"""The library's docstrings, which are plain text, as entries of the reference.

A paragraph such as "labels (N, K): soft labels. weights (N,): their probabilities." becomes a list of parameters, or of
attributes where a dataclass has it; "Raises ..." and "Source: ..." become fields; indented lines are formulas and stay
as they are; names in backticks become links where the reference has them. Signatures are shown as the source has them.
"""

import ast
import dataclasses
import inspect
import re
import textwrap
from collections.abc import Iterator
from typing import Any

from sphinx.application import Sphinx

import ufm
from derivations import NAMES

_WIDTH = 120
_BRACKET = r"\((?:[^()]|\([^()]*\))*\)"
_SHAPE = rf"(?: {_BRACKET})?(?: or None)?"
_SENTENCE = r"(?:^|(?<=[.;] )|(?<=[.;]\n))"
_SHAPES = r"^\([^()]*\)(?: or None)?(?:, \([^()]*\)(?: or None)?)*(?:: |$)"
_RAISES = re.compile(r"Raises (\w+Error),?\s+(.*)", re.DOTALL)
_SCRIPT = re.compile(rf"((?:derivations/)?\b({'|'.join(NAMES)})\.py)")
_SPECIAL = re.compile(r"([\\*_|<>])")


def signature(obj: Any) -> tuple[str, str | None] | None:
    """Return arguments and return annotation of a function or a dataclass as its source has them, or None."""
    node = _definition(obj)
    if isinstance(node, ast.FunctionDef):
        arguments = node.args
        if arguments.args and arguments.args[0].arg in ("self", "cls"):
            del arguments.args[0]
        arguments.defaults = [_public(default, obj) for default in arguments.defaults]
        arguments.kw_defaults = [default and _public(default, obj) for default in arguments.kw_defaults]
        return f"({ast.unparse(arguments)})", ast.unparse(node.returns) if node.returns else None
    if isinstance(obj, type) and dataclasses.is_dataclass(obj):
        shown = []
        for field in dataclasses.fields(obj):
            type_, default = _annotation(obj, field.name)
            shown.append(f"{field.name}: {type_}" + (f" = {default}" if default else ""))
        return f"({', '.join(shown)})", None
    return None


def _public(default: ast.expr, function: Any) -> ast.expr:
    """Return a default as written, or its value where that is a private name's."""
    if isinstance(default, ast.Name) and default.id.startswith("_"):
        return ast.Constant(inspect.unwrap(function).__globals__[default.id])
    return default


def _definition(obj: Any) -> ast.AST | None:
    try:
        return ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(obj)))).body[0]
    except (OSError, TypeError):
        return None


def _annotation(cls: type, name: str) -> tuple[str, str | None]:
    """Return annotation and default of a dataclass's field, from the class in its family that defines it last."""
    for base in cls.__mro__:
        definition = _definition(base) if dataclasses.is_dataclass(base) else None
        for statement in definition.body if isinstance(definition, ast.ClassDef) else []:
            if isinstance(statement, ast.AnnAssign) and ast.unparse(statement.target) == name:
                value = statement.value
                if isinstance(value, ast.Call) and ast.unparse(value.func) == "field":
                    factory = cls.__dataclass_fields__[name].default_factory
                    default = None if factory is dataclasses.MISSING else f"{factory.__name__}()"
                else:
                    default = value and ast.unparse(value)
                return ast.unparse(statement.annotation), default
    raise ValueError(f"{cls.__name__}: got no annotation of {name!r}, expected one")


def to_rest(lines: list[str], names: list[str], *, indent: int = 4) -> tuple[list[str], dict[str, str], list[str]]:
    """Return a docstring's prose, what it says of each of `names` (several by one key), and its other fields, as RST.

    lines: of the docstring, dedented. names: the parameters or attributes. indent: that of the docstring in its file.
    """
    prose, items, fields = [], {}, []
    known = set(names)
    for kind, text in _paragraphs(lines, indent):
        if kind == "formula":
            prose += ["::", "", *textwrap.indent(text, "    ").split("\n"), ""]
            continue
        for part in _parts(text, names):
            key, body = part
            if key is not None:
                items[key] = _inline(re.sub(r";$", ".", body), known)
            elif match := _RAISES.fullmatch(body):
                fields.append(f":raises {match[1]}: {_inline(match[2], known)}")
            elif body.startswith("Source: "):
                fields.append(f":Source: {_inline(body.removeprefix('Source: '), known)}")
            elif body:
                prose += [_inline(body, known), ""]
    return prose, items, fields


def _paragraphs(lines: list[str], indent: int) -> Iterator[tuple[str, str]]:
    """Yield ("text" or "formula", content); a line that ends a sentence early ends its paragraph."""
    block: list[str] = []
    for position, line in enumerate([*lines, ""]):
        if line.strip():
            block.append(line)
            following = lines[position + 1].split() if position + 1 < len(lines) else []
            ends = line.endswith(".") and following and len(line) + indent + 1 + len(following[0]) <= _WIDTH
            if not ends:
                continue
        if block:
            formula = all(part.startswith("    ") for part in block)
            yield ("formula", textwrap.dedent("\n".join(block))) if formula else ("text", _joined(block))
        block = []


def _joined(block: list[str]) -> str:
    return " ".join(part.strip() for part in block)


def _parts(text: str, names: list[str]) -> Iterator[tuple[str | None, str]]:
    """Yield (names and shapes, description) of each item in a paragraph, and (None, text) for what is none."""
    pieces = []
    if names:
        name = rf"(?:{'|'.join(sorted(map(re.escape, names), key=len, reverse=True))}){_SHAPE}"
        item = re.compile(
            rf"{_SENTENCE}({name}(?:(?:, | and ){name})*)(?::(?= )|(?<=\))[.,](?= |$)|(?<=None)\.(?= |$))"
        )
        starts = list(item.finditer(text))
        pieces = [
            (m[1], m.end(), (starts[i + 1].start() if i + 1 < len(starts) else None)) for i, m in enumerate(starts)
        ]
        head = text[: starts[0].start()] if starts else text
    else:
        head = text
    yield from _closing(None, head)
    for key, start, end in pieces:
        yield from _closing(key, text[start:end])


def _closing(key: str | None, text: str) -> Iterator[tuple[str | None, str]]:
    """Yield an item without the sentences on errors and sources that follow it, then these."""
    first, *others = re.split(r"(?:^|(?<=\. ))(?=Raises \w+Error|Source: )", text)
    if key is not None or first.strip():
        yield key, first.strip()
    for other in others:
        yield None, other.strip()


def _inline(text: str, known: set[str]) -> str:
    """Return plain text as RST: names in backticks as code or links, scripts as links, everything else escaped."""
    pieces = text.split("`")
    for i, piece in enumerate(pieces):
        if i % 2:
            pieces[i] = _code(piece, known)
        else:
            parts = _SCRIPT.split(piece)
            parts[::3] = [_SPECIAL.sub(r"\\\1", part) for part in parts[::3]]
            parts[1::3] = [
                f":doc:`{shown} </theory/{name}>`" for shown, name in zip(parts[1::3], parts[2::3], strict=True)
            ]
            del parts[2::3]
            pieces[i] = "".join(parts)
    # "Y. Nesterov" or "F." would begin a list.
    return re.sub(r"^(?=\w{1,4}\.(?: |$))", r"\\", "".join(pieces))


def _code(name: str, known: set[str]) -> str:
    target = name.removeprefix("ufm.")
    if target.partition(".")[0] in ufm.__all__ and name not in known:
        return f":py:obj:`{name} <ufm.{target}>`"
    return f"``{name}``"


def _process_signature(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, given: str | None, returns: Any
) -> Any:
    if given == "()" and what == "class":
        # Written so in the page: a result, which users do not construct.
        return "", None
    return signature(obj) if what in ("function", "method", "class") else None


def _process_docstring(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    if what == "module":
        return
    if what == "class":
        names = [field.name for field in dataclasses.fields(obj)] if dataclasses.is_dataclass(obj) else []
    elif what in ("function", "method"):
        names = [parameter for parameter in inspect.signature(obj).parameters if parameter != "self"]
    else:
        names = []
    prose, items, fields = to_rest(lines, names, indent=8 if what in ("method", "property") else 4)
    if what == "class":
        lines[:] = [*prose, *fields, "", *_attributes(obj, names, items)]
    else:
        described = [(name, text) for key, text in _split(items, names) for name in key.split(", ")]
        lines[:] = [*prose, *(f":param {name}: {text}" for name, text in described), *fields, ""]


def _split(items: dict[str, str], names: list[str]) -> Iterator[tuple[str, str]]:
    """Yield (names, description with the shape in front) of each item."""
    for key, text in items.items():
        mentioned = [
            name for name in re.findall(r"\w+", re.sub(r"\((?:[^()]|\([^()]*\))*\)", "", key)) if name in names
        ]
        shapes = dict.fromkeys(re.findall(r"\((?:[^()]|\([^()]*\))*\)(?: or None)?", key))
        shape = f"{', '.join(shapes)}: " if shapes and text else ", ".join(shapes)
        yield ", ".join(mentioned), _SPECIAL.sub(r"\\\1", shape) + text


def _attributes(cls: Any, names: list[str], items: dict[str, str]) -> Iterator[str]:
    """Yield an entry per field, in the order of the text; fields that share a text and a type share an entry."""
    described = list(_split(items, names))
    mentioned = {name for key, _ in described for name in key.split(", ")}
    own = set(inspect.get_annotations(cls))
    described += [(name, "") for name in names if name not in mentioned and name in own]
    for key, text in described:
        types = {name: _annotation(cls, name)[0] for name in key.split(", ")}
        for type_ in dict.fromkeys(types.values()):
            group = [name for name in types if types[name] == type_]
            # A shape that the type has is not said twice.
            said = re.sub(_SHAPES, "", text) if "[" in type_ else text
            yield f".. py:attribute:: {group[0]}"
            yield from (f"                  {name}" for name in group[1:])
            yield from (f"   :type: {type_}", "", f"   {said}", "")


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect to autodoc."""
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("autodoc-process-signature", _process_signature)
    app.connect("autodoc-process-docstring", _process_docstring)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
