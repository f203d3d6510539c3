"""The claims as pages of the documentation: MyST Markdown, one page per claim and one that lists them all."""

import re

import ufm
from derivations.claim import Claim, Proof, latex
from derivations.document import INTRODUCTION, code, power

_NOTE = "<!-- Written by `python -m derivations.render`; a change belongs into the scripts under derivations/. -->"
_DISPLAYED = re.compile(r"\s*\$\$(.+?)\$\$([.,:;]?)\s*", flags=re.DOTALL)


def theory_pages(claims: dict[str, tuple[Claim, Proof]]) -> dict[str, str]:
    """Return the text of every page by its file's name; index.md lists them."""
    pages = {f"{name}.md": _page(name, *claims[name]) for name in claims}
    return {"index.md": _index(claims)} | pages


def _index(claims: dict[str, tuple[Claim, Proof]]) -> str:
    rows = ["| Claim | Implemented by | Tests |", "| :--- | :--- | :--- |"]
    for number, (name, (claim, _)) in enumerate(claims.items(), 1):
        files = dict.fromkeys(entry.partition("::")[0].rpartition("/")[2] for entry in claim.tests)
        cells = f"{number}. [{claim.title}]({name}.md)", _names(claim.implemented_by), code(files)
        rows.append(f"| {' | '.join(cells)} |")
    parts = [
        _NOTE,
        "# Theory",
        _displayed(INTRODUCTION.replace("{mark}", _mark("symbolically")).strip()),
        "\n".join(rows),
        "`make derivations` proves all claims anew, writes these pages, and sets them as one document: "
        "`derivations/derivations.pdf` and `.html`.",
        "\n".join(["```{toctree}", ":hidden:", "", *claims, "```"]),
    ]
    return "\n\n".join(parts) + "\n"


def _page(name: str, claim: Claim, proof: Proof) -> str:
    parts = [
        _NOTE,
        f"# {claim.title}",
        f":::{{admonition}} Claim\n:class: important\n{_displayed(claim.statement)}\n:::",
        "## Assumptions",
        "\n".join(f"- {assumption}" for assumption in claim.assumptions),
        "## Derivation",
    ]
    for index, step in enumerate(proof.steps, 1):
        # Markdown takes what follows an item to be part of it only if it is indented as far as the item's text.
        text = step.text + (f" {_mark(step.proof)}" if step.proof else "")
        shown = "" if step.formula is None else "\n\n" + _indented(f"$$\n{latex(step.formula)}\n$$")
        parts.append(f"{index}.".ljust(5) + text + shown)
    parts += [
        "## Held against the library",
        "\n".join(f"- {check.text}: tolerance {power(check.tolerance)}." for check in proof.checks),
        "## Where it is",
        f"- Script: `derivations/{name}.py`; `python -m derivations.{name}` runs and prints it.\n"
        f"- Implemented by: {_names(claim.implemented_by)}.\n"
        f"- Tests: {code(claim.tests)}.",
    ]
    return "\n\n".join(parts) + "\n"


def _names(entries: tuple[str, ...]) -> str:
    """Return names of the library, those that have an entry in the reference as links to it."""
    public = set(ufm.__all__)
    links = (entry.removeprefix("ufm.") in public for entry in entries)
    return ", ".join(
        f"{{py:obj}}`{entry}`" if link else f"`{entry}`" for entry, link in zip(entries, links, strict=True)
    )


def _mark(proof: str) -> str:
    return f"[✓ sympy, {proof}]{{.verified}}"


def _displayed(text: str) -> str:
    """Return Markdown with every displayed formula as a block of its own, which takes in the sign that follows it."""
    return _DISPLAYED.sub(lambda match: f"\n\n$$\n{match[1]}{match[2]}\n$$\n\n", text).strip()


def _indented(text: str) -> str:
    return "\n".join(" " * 5 + line for line in text.split("\n"))
