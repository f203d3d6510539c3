"""The directive `command-line`: every command of `ufm` with its options, from the dataclasses that define them."""

import ast
import dataclasses
import inspect
import re
import textwrap
from collections.abc import Iterator
from typing import Any, get_args, get_type_hints

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


@dataclasses.dataclass(frozen=True)
class Option:
    """An option, or an argument without a name: as typed, the type of its value, its default and its help."""

    flag: str
    type: str
    default: str
    help: str


def commands() -> dict[str, tuple[str, list[Option]]]:
    """Return, for every command of `ufm`, its description and its options."""
    from ufm.commands.main import Command

    found = {}
    for part in get_args(Command):
        form, subcommand = get_args(part)[:2]
        found[subcommand.name] = inspect.getdoc(form) or "", list(_options(form))
    return found


def _options(form: type) -> Iterator[Option]:
    hints = get_type_hints(form, include_extras=True)
    helps = _helps(form)
    for field in dataclasses.fields(form):
        inner = next(iter(get_args(hints[field.name])), None)
        if isinstance(inner, type) and dataclasses.is_dataclass(inner):
            yield from _options(inner)
            continue
        type_, help_ = helps[field.name]
        default = "" if field.default is dataclasses.MISSING else _shown(field.default)
        positional = "Positional" in type_
        flag = "--" + field.name.replace("_", "-")
        if type_ == "bool":
            flag, type_ = (f"--no-{flag[2:]}" if field.default else flag), ""
        yield Option(
            flag=field.name.upper() + "..." if positional else flag,
            type="" if positional else type_.replace("tuple[", "").replace(", ...]", " ..."),
            default="" if not type_ else default,
            help=help_,
        )


def _helps(form: type) -> dict[str, tuple[str, str]]:
    """Return annotation and help, the string below it, of each field, those of base classes too."""
    definition = ast.parse(textwrap.dedent(inspect.getsource(form))).body[0]
    assert isinstance(definition, ast.ClassDef)
    found = {}
    for base in form.__bases__:
        if dataclasses.is_dataclass(base):
            found |= _helps(base)
    for statement, following in zip(definition.body, [*definition.body[1:], None], strict=True):
        if isinstance(statement, ast.AnnAssign):
            said = following.value if isinstance(following, ast.Expr) else None
            text = inspect.cleandoc(str(said.value)) if isinstance(said, ast.Constant) else ""
            found[ast.unparse(statement.target)] = ast.unparse(statement.annotation), " ".join(text.split())
    return found


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


class CommandLine(SphinxDirective):
    """Write a section per command: description, and a table of its options."""

    def run(self) -> list[nodes.Node]:
        """Return the sections."""
        sections: list[nodes.Node] = []
        for name, (description, options) in commands().items():
            section = nodes.section(ids=[f"ufm-{name}"], names=[f"ufm {name}"])
            section += nodes.title("", "", nodes.literal("", f"ufm {name}"))
            self.state.document.note_explicit_target(section)
            section += nodes.paragraph("", description)
            rows = [("Option", "Value", "Default", "Meaning")]
            rows += [(o.flag, o.type, o.default, o.help) for o in options]
            section += _table(rows)
            sections.append(section)
        return sections


def _table(rows: list[tuple[str, ...]]) -> nodes.table:
    group = nodes.tgroup(cols=len(rows[0]))
    group += [nodes.colspec(colwidth=1) for _ in rows[0]]
    head, body = nodes.thead(), nodes.tbody()
    for number, cells in enumerate(rows):
        row = nodes.row()
        for column, cell in enumerate(cells):
            code = number > 0 and column < 3 and cell
            text = [nodes.literal("", cell)] if code else list(_words(cell))
            row += nodes.entry("", nodes.paragraph("", "", *text))
        (body if number else head).append(row)
    group += [head, body]
    return nodes.table("", group, classes=["options"])


def _words(text: str) -> Iterator[nodes.Node]:
    """Yield text, options in it as code."""
    for i, part in enumerate(re.split(r"(--[a-z][a-z-]*)", text)):
        yield nodes.literal("", part) if i % 2 else nodes.Text(part)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("command-line", CommandLine)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
