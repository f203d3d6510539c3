"""What the rendered documents share: the introduction, words and numbers as Markdown, MathML that reads well."""

import re
from collections.abc import Iterable

_SPACED = '<mo>&#8289;</mo><mspace width="0.17em"></mspace></mrow>'
INTRODUCTION = r"""
The closed forms, bounds and limits that the library `ufm` computes with are derived here, from the objective

$$F(W, H) = \sum_j \pi_j \left[\ell(W h_j, y_j) + \frac{\lambda_H}{2}\lVert h_j\rVert^2\right]
+ \frac{\lambda_W}{2}\lVert W\rVert_F^2$$

with soft labels $y_j$ of probability $\pi_j$, $K$ classes, $d$-dimensional features $h$, and logits $z = W h$. Averages
over the law of the label are written $\mathbb E$. This is the *expectation convention*: a feature penalty $\lambda'$ of
the other one, $\frac1N \sum_j \ell(W h_j, y_j) + \frac{\lambda'}{2}\lVert H\rVert_F^2$, is $\lambda_H = N\lambda'$.

Each claim is a script that carries out its derivation in sympy, and stops if a step does not hold. A step marked
{mark} was confirmed by sympy, for the cases named; the others are definitions and arguments in words. Each script then
evaluates what it derived with fifty digits and holds the float64 results of `ufm` against it, to the tolerance that is
listed.
"""


def code(names: Iterable[str]) -> str:
    """Return names as a list in code type."""
    return ", ".join(f"`{name}`" for name in names)


def power(tolerance: float) -> str:
    """Return a tolerance as LaTeX with two digits."""
    if 0.01 <= tolerance <= 1000 or tolerance == 0:
        return f"${tolerance:g}$"
    digits, exponent = f"{tolerance:.1e}".split("e")
    return rf"${digits.removesuffix('.0')} \cdot 10^{{{int(exponent)}}}$"


def spaced(mathml: str) -> str:
    """Return pandoc's MathML with a space after the name of an operator; only a bracket does without.

    Browsers set none of their own.
    """
    return re.sub(r"<mo>&#8289;</mo></mrow>(?!(?:<mrow>)?<mo [^>]*form=\"prefix\")", _SPACED, mathml)
