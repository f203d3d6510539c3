"""What a theorem is here: a statement with its source, and a number that says how far our computation is from it."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Theorem:
    """A statement on unconstrained features models, and how it is checked.

    Attributes
    ----------
    name : str
        A few words, as the table's first column has them.
    sources : tuple of str
        Keys of docs/references.bib; () for what is new here.
    says : str
        The statement in one sentence of Markdown, with LaTeX between dollars.
    assumes : str
        What it needs, in Markdown.
    functions : tuple of str
        Names in `ufm` that compute it, such as "ufm.joint_optimum".
    derivation : str or None
        The module of `derivations` that proves it; None where it is observed only.
    test : str
        The test that checks it beyond this table, as pytest names it.
    check : callable
        Returns the largest deviation over its cases, of closed form and certified solve where there is a closed form;
        computed anew by each call, in at most a minute.
    tolerance : float
        What the deviation may be at most.
    deviation : str
        What `check` compares, in a few words.
    finding : str
        What of a published statement or number could not be reproduced, and what was found instead.
    """

    name: str
    sources: tuple[str, ...]
    says: str
    assumes: str
    functions: tuple[str, ...]
    derivation: str | None
    test: str
    check: Callable[[], float]
    tolerance: float
    deviation: str
    finding: str = ""
