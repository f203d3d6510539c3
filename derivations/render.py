"""Render all claims: `python -m derivations.render` writes every document, with `--check` it only compares.

derivations.html is self-contained, its maths MathML; derivations.pdf is set by Typst; neither is committed. docs/theory
has a page per claim, which is.
All are functions of the claims alone, byte for byte: no dates, no measured errors, no system fonts.
"""

import argparse
import hashlib
import html
import re
import sys
from pathlib import Path

import pypandoc
import typst

from derivations import NAMES
from derivations.claim import Claim, DerivationError, Proof, latex, load
from derivations.document import INTRODUCTION, code, power, spaced
from derivations.pages import theory_pages

HERE = Path(__file__).parent
HTML, PDF = HERE / "derivations.html", HERE / "derivations.pdf"
PAGES = HERE.parent / "docs" / "theory"
TITLE = "Derivations"
OPERATORS = ("artanh", "diag", "rank", "sign", "softmax", "span")
STYLE = """
body { max-width: 52rem; margin: 2rem auto; padding: 0 1rem; color: #1b1b1b; }
body { font: 1rem/1.55 Georgia, "Times New Roman", serif; }
h1, h2, h3 { font-family: "Helvetica Neue", Arial, sans-serif; line-height: 1.25; }
h2 { margin-top: 3.5rem; border-top: 1px solid #ccc; padding-top: 1.5rem; }
h3 { margin: 1.6rem 0 .4rem; font-size: 1rem; }
code { font-size: .86em; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { border-bottom: 1px solid #ddd; padding: .35rem .6rem .35rem 0; text-align: left; vertical-align: top; }
math {
  font-family: "STIX Two Math", "Cambria Math", "Latin Modern Math", "Libertinus Math", "STIX Math",
    "TeX Gyre Termes Math", math;
}
math[display="block"] { margin: .7rem 0; overflow-x: auto; overflow-y: hidden; }
li { margin-bottom: .5rem; }
.statement { background: #f4f6f9; border-left: 4px solid #31587a; padding: .2rem 1rem; }
.verified { color: #1d6b3c; font: .78rem "Helvetica Neue", Arial, sans-serif; white-space: nowrap; }
"""
PREAMBLE = """
#set page(paper: "a4", margin: (x: 22mm, y: 22mm), numbering: "1")
#set text(font: "Libertinus Serif", size: 10pt, lang: "en")
#set table(stroke: none, inset: (x: 3pt, y: 4pt))
#show table.cell: set text(size: 8.5pt)
#show figure: set block(breakable: true)
#show heading.where(level: 1): set block(above: 2.5em, below: 1em)
#show heading.where(level: 2): set text(size: 10.5pt)
#show link: set text(fill: rgb("#31587a"))
// Long names may break after a dot, a slash, a colon or an underscore.
#show raw.where(block: false): it => { show regex("[./:_]+"): part => part + sym.zws; it }
#let edge = (left: 2pt + rgb("#31587a"))
#let statement(body) = block(fill: rgb("#f4f6f9"), stroke: edge, inset: 8pt, width: 100%, breakable: false, body)
#let verified(body) = box(text(fill: rgb("#1d6b3c"), size: 7.5pt, font: "DejaVu Sans Mono", body))
// Words stay on the page of the formula that they introduce.
#let together(body) = block(breakable: false, width: 100%, body)
"""


def markdown(claims: dict[str, tuple[Claim, Proof]], target: str) -> str:
    """Return the document as pandoc's Markdown; target ("html" or "typst") only chooses the wrappers."""
    parts = [INTRODUCTION.replace("{mark}", _mark("sympy", target)), _table(claims)]
    for number, (name, (claim, proof)) in enumerate(claims.items(), 1):
        parts.append(f"# {number}. {claim.title} {{#{name}}}")
        parts.append(_wrapped(claim.statement, "statement", target))
        parts.append("## Assumptions")
        parts.append("\n".join(f"- {assumption}" for assumption in claim.assumptions))
        parts.append("## Derivation")
        for index, step in enumerate(proof.steps, 1):
            text = step.text + (f" {_mark(step.proof, target)}" if step.proof else "")
            # Markdown takes what follows an item to be part of it only if it is indented as far as the item's text.
            shown = "" if step.formula is None else f"\n\n     $${latex(step.formula)}$$"
            if target == "typst":
                text, shown = f"`#together[`{{=typst}}{text}", f"{shown}`]`{{=typst}}"
            parts.append(f"{index}.".ljust(5) + text + shown)
        parts.append("## Held against `ufm`")
        parts.append("\n".join(f"- {check.text}: tolerance {power(check.tolerance)}." for check in proof.checks))
        parts.append(f"Tests: {code(claim.tests)}.")
    return "\n\n".join(parts) + "\n"


def _table(claims: dict[str, tuple[Claim, Proof]]) -> str:
    rows = ["| Claim | Derivation | Implemented by | Tests |", "|:---------|:--------|:---------|:-------|"]
    for number, (name, (claim, _)) in enumerate(claims.items(), 1):
        files = dict.fromkeys(Path(entry.partition("::")[0]).name for entry in claim.tests)
        cells = f"{number}. [{claim.title}](#{name})", f"`{name}.py`", code(claim.implemented_by), code(files)
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _mark(proof: str, target: str) -> str:
    words = f"✓ {proof}"
    return f"[{words}]{{.verified}}" if target == "html" else f"`#verified[{words}]`{{=typst}}"


def _wrapped(text: str, name: str, target: str) -> str:
    if target == "html":
        return f"::: {name}\n{text}\n:::"
    return f"```{{=typst}}\n#{name}[\n```\n\n{text}\n\n```{{=typst}}\n]\n```"


def render_html(claims: dict[str, tuple[Claim, Proof]]) -> str:
    """Return the whole HTML document."""
    body = spaced(_pandoc(markdown(claims, "html"), "html5", "--mathml", "--shift-heading-level-by=1"))
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{html.escape(TITLE)}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>{STYLE}</style>\n</head>\n'
        f"<body>\n<h1>{html.escape(TITLE)}</h1>\n{body}</body>\n</html>\n"
    )


def typst_source(claims: dict[str, tuple[Claim, Proof]]) -> tuple[str, str]:
    """Return the document in Typst, and a digest of it that its PDF carries as a keyword."""
    body = _pandoc(markdown(claims, "typst"), "typst")
    # Pandoc quotes operators, which Typst then sets as words, apart from their argument.
    body = re.sub(rf'"({"|".join(OPERATORS)})"', r'op("\1")', body)
    body = f"{PREAMBLE}\n#text(size: 20pt, weight: 700)[{TITLE}]\n\n{body}"
    digest = hashlib.sha256(body.encode()).hexdigest()
    return f'#set document(title: "{TITLE}", keywords: ("sha256-{digest}",), date: none)\n{body}', digest


def render_pdf(source: str) -> bytes:
    """Return the PDF of a Typst source; Typst's own fonts only, so that it is the same everywhere."""
    pdf = typst.compile(source.encode(), format="pdf", ignore_system_fonts=True, timestamp=0)
    if not isinstance(pdf, bytes):
        raise TypeError(f"typst.compile: got {type(pdf).__name__}, expected the bytes of one PDF")
    return pdf


def _pandoc(text: str, target: str, *options: str) -> str:
    return pypandoc.convert_text(text, target, format="markdown", extra_args=["--wrap=none", *options])


def stale(claims: dict[str, tuple[Claim, Proof]]) -> list[str]:
    """Return one line per committed page that is missing or does not belong to the claims as they are."""
    problems = []
    pages = theory_pages(claims)
    for name in sorted(pages.keys() | {path.name for path in PAGES.glob("*.md")}):
        path = PAGES / name
        if name not in pages:
            problems.append(f"{PAGES.name}/{name} belongs to no claim")
        elif not path.is_file() or path.read_text(encoding="utf-8") != pages[name]:
            problems.append(f"{PAGES.name}/{name} is stale")
    return problems


def prove_all() -> dict[str, tuple[Claim, Proof]]:
    """Run every claim."""
    claims = {name: load(name) for name in NAMES}
    return {name: (claim, claim.prove()) for name, claim in claims.items()}


def write(path: Path, content: bytes) -> None:
    """Write a file, complete or not at all, and say so."""
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    partial.replace(path)
    print(f"{path.name}: {len(content)} bytes")


def main() -> None:
    """Write every document, or with --check exit with status 1 if one of the committed pages is stale."""
    parser = argparse.ArgumentParser(prog="python -m derivations.render", description="Render the derivations.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a committed page is stale")
    arguments = parser.parse_args()
    try:
        claims = prove_all()
    except DerivationError as error:
        sys.exit(f"FAILED {error}")
    if arguments.check:
        problems = stale(claims)
        if problems:
            sys.exit("\n".join(f"{problem}: run python -m derivations.render" for problem in problems))
        print(f"{PAGES.name}/ is up to date")
        return
    source, _ = typst_source(claims)
    write(HTML, render_html(claims).encode())
    write(PDF, render_pdf(source))
    PAGES.mkdir(exist_ok=True)
    pages = theory_pages(claims)
    for name, page in pages.items():
        write(PAGES / name, page.encode())
    for path in PAGES.glob("*.md"):
        if path.name not in pages:
            path.unlink()


if __name__ == "__main__":
    main()
