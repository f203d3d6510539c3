"""Markdown with LaTeX maths as text that can be read on a terminal."""

import re
import textwrap

_WIDTH = 110
_SPACES = r"\\(?:[,;!: ]|q?quad(?![A-Za-z]))"
_SILENT = r"\\(?:left|right|bigl|bigr|Bigl|Bigr|textstyle|displaystyle|limits)(?![A-Za-z])"
_FONTS = r"\\(?:mathrm|mathbf|mathbb|mathcal|operatorname|text)(?:\{([^{}]*)\}| ?([A-Za-z0-9]))"
_ARGUMENT = r"(?:\{([^{}]*)\}|(\\[A-Za-z]+|[A-Za-z0-9]))"
_FRACTION = re.compile(r"(\\(?:log|tanh) ?)?\\[td]?frac ?" + _ARGUMENT + " ?" + _ARGUMENT)
_SYMBOLS = {
    "cdot": "*",
    "ge": ">=",
    "iff": "<=>",
    "implies": "=>",
    "infty": "oo",
    "langle": "<",
    "le": "<=",
    "leftarrow": "<-",
    "leftrightarrow": "<->",
    "ldots": "...",
    "dots": "...",
    "Longleftrightarrow": "<=>",
    "Longrightarrow": "=>",
    "lVert": "||",
    "mp": "-+",
    "ne": "!=",
    "pm": "+-",
    "rangle": ">",
    "rVert": "||",
    "sim": "~",
    "to": "->",
    "top": "T",
    "varepsilon": "epsilon",
}


def plain(text: str) -> str:
    """Return `text` without its LaTeX mark-up: Greek letters by name, fractions and roots on one line."""
    text = re.sub(r"\$|&", "", text).replace(r"\\", "; ").replace(r"\{", "<").replace(r"\}", ">")
    text = re.sub(r"\\(?:begin|end)\{pmatrix\}", "", text)
    text = re.sub(r"\\(tilde|bar) ?([A-Za-z])", r" \2_\1", text)
    text = re.sub(_SILENT, "", re.sub(_SPACES, " ", text))
    # Several passes, because a fraction can be resolved only once its parts hold no more braces.
    for _ in range(6):
        text = re.sub(_FONTS, lambda match: match[1] or match[2], text)
        text = re.sub(r"([_^])\{([^{}]*)\}", lambda match: match[1] + _bracketed(match[2]), text)
        text = re.sub(r"\\sqrt ?" + _ARGUMENT, lambda match: rf"\sqrt ({match[1] or match[2]})", text)
        text = _FRACTION.sub(_quotient, text)
    text = re.sub(r"(?<=[A-Za-z0-9)])\\(?=[A-Za-z])", r" \\", text)
    text = re.sub(r"\\([A-Za-z]+)(?=([A-Za-z(]?))", _spelled, text)
    text = re.sub(r"sqrt \(", "sqrt(", text)
    return re.sub(r" (?=[,.)])|(?<=[(]) ", "", re.sub(r"(?<=\S) +", " ", text)).strip(" ")


def paragraphs(text: str) -> str:
    """Return running text, wrapped, with its displayed formulas on lines of their own."""
    pieces = re.split(r"\$\$(.+?)\$\$", text, flags=re.DOTALL)
    lines = []
    for index, piece in enumerate(pieces):
        content = plain(" ".join(piece.split()))
        lines.append(textwrap.indent(content, " " * 4) if index % 2 else textwrap.fill(content, _WIDTH))
    return "\n".join(line for line in lines if line)


def item(marker: str, text: str) -> str:
    """Return the text behind a marker, wrapped, with a hanging indent."""
    return textwrap.fill(plain(text), _WIDTH, initial_indent=marker, subsequent_indent=" " * len(marker))


def _bracketed(text: str) -> str:
    return text if re.fullmatch(r"\\?\w+", text) else f"({text})"


def _quotient(fraction: re.Match[str]) -> str:
    quotient = f"{_bracketed(fraction[2] or fraction[3])}/{_bracketed(fraction[4] or fraction[5])}"
    return f"{fraction[1]}({quotient}) " if fraction[1] else f" {quotient} "


def _spelled(macro: re.Match[str]) -> str:
    name = _SYMBOLS.get(macro[1], macro[1])
    return f"{name} " if macro[2] and name[-1].isalnum() else name
