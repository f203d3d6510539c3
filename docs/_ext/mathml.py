"""Formulas as MathML, converted when the documents are built: no script, no font and no network to read them.

pandoc converts all formulas of a page in one go. One that it does not take is a warning, and so an error under `-W`.
"""

import html
import json
import re
from collections.abc import Sequence
from typing import Any

import pypandoc
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.math import get_node_equation_number
from sphinx.writers.html5 import HTML5Translator

from derivations.document import spaced

_LOGGER = logging.getLogger(__name__)
_CONVERTED = "mathml"
# A prime is small already: as a superscript it would be drawn small twice. Accents as characters of their own: browsers
# set combining ones beside the letter.
_PRIME = re.compile("<msup>(<mi>[^<]*</mi>)<mo>\u2032</mo></msup>")
_ACCENTS = str.maketrans("\u0302\u0303", "\u02c6\u02dc")


def to_mathml(formulas: Sequence[tuple[str, bool]]) -> list[str | None]:
    """Return a `<math>` element for each formula, or None for one that cannot be converted.

    formulas: pairs of LaTeX, without dollar signs, and whether it stands on a line of its own.
    """
    kinds = {True: {"t": "DisplayMath"}, False: {"t": "InlineMath"}}
    blocks = [{"t": "Para", "c": [{"t": "Math", "c": [kinds[display], latex]}]} for latex, display in formulas]
    document = json.dumps({"pandoc-api-version": [1, 23, 1], "meta": {}, "blocks": blocks})
    converted = pypandoc.convert_text(document, "html5", format="json", extra_args=["--mathml", "--wrap=none"])
    shown = _PRIME.sub('<mrow>\\1<mo lspace="0" rspace="0">\u2032</mo></mrow>', spaced(converted).translate(_ACCENTS))
    found = re.findall(r"<p>(.*?)</p>", shown, flags=re.DOTALL)
    if len(found) != len(formulas):
        raise RuntimeError(f"pandoc: got {len(found)} formulas, expected {len(formulas)}")
    return [element if element.startswith("<math") else None for element in found]


def _convert_all(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    if app.builder.format != "html":
        return
    found = [*doctree.findall(nodes.math), *doctree.findall(nodes.math_block)]
    formulas = [(node.astext(), isinstance(node, nodes.math_block)) for node in found]
    for node, (latex, _), element in zip(found, formulas, to_mathml(formulas) if formulas else [], strict=True):
        if element is None:
            _LOGGER.warning("formula that pandoc cannot convert: %s", latex, location=node, type="mathml")
        node[_CONVERTED] = element or f"<code>{html.escape(latex)}</code>"


def _visit_inline(translator: HTML5Translator, node: nodes.math) -> None:
    translator.body.append(node[_CONVERTED])
    raise nodes.SkipNode


def _visit_block(translator: HTML5Translator, node: nodes.math_block) -> None:
    translator.body.append(translator.starttag(node, "div", CLASS="math"))
    if node["number"]:
        number = get_node_equation_number(translator, node)
        translator.body.append(f'<span class="eqno">({number})')
        translator.add_permalink_ref(node, "Link to this equation")
        translator.body.append("</span>")
    translator.body.append(node[_CONVERTED] + "</div>\n")
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the renderer under the name "mathml"."""
    app.add_html_math_renderer("mathml", (_visit_inline, None), (_visit_block, None))
    # After references are resolved, so that no formula comes in behind it.
    app.connect("doctree-resolved", _convert_all, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
