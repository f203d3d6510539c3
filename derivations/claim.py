"""What a claim is, how its steps are verified, and how it is run and printed."""

import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import sympy as sp

from derivations import NAMES
from derivations.plain import item, paragraphs, plain

Formula = sp.Basic | str
Side = Any  # a sympy expression or matrix; sympy's operators are typed too loosely for anything narrower


class DerivationError(AssertionError):
    """A step that sympy does not confirm, or a number in which ufm and the derivation differ."""


@dataclass(frozen=True)
class Step:
    """One step: words, a displayed formula (sympy or LaTeX), and what sympy confirmed ("" where nothing)."""

    text: str
    formula: Formula | None = None
    proof: str = ""


@dataclass(frozen=True)
class Check:
    """A number computed by ufm held against the derivation: it passes if error <= tolerance; NaN does not."""

    text: str
    error: float
    tolerance: float

    @property
    def passed(self) -> bool:
        return self.error <= self.tolerance


@dataclass(frozen=True)
class Proof:
    """What running a claim yields."""

    steps: tuple[Step, ...]
    checks: tuple[Check, ...]


@dataclass(frozen=True)
class Claim:
    """A claim, in Markdown with LaTeX maths, and the two functions that establish it.

    derive: derives the claim with sympy and returns its steps. check: evaluates what was derived to at least 30
    digits, compares it with the functions of ufm in `implemented_by`, and returns the comparisons.
    """

    title: str
    statement: str
    assumptions: tuple[str, ...]
    implemented_by: tuple[str, ...]
    tests: tuple[str, ...]
    derive: Callable[[], tuple[Step, ...]]
    check: Callable[[], tuple[Check, ...]]

    def prove(self) -> Proof:
        """Run both functions; raise DerivationError at the first step or comparison that fails."""
        steps, checks = self.derive(), self.check()
        if not any(step.proof for step in steps) or not checks:
            raise DerivationError(f"{self.title}: nothing was verified")
        for check in checks:
            if not check.passed:
                raise DerivationError(f"{check.text}: error {check.error:.3g} exceeds {check.tolerance:.3g}")
        return Proof(steps, checks)


@dataclass
class Derivation:
    """Collects the steps of a derivation; a verified step enters only once sympy has confirmed it."""

    steps: list[Step] = field(default_factory=list)

    def say(self, text: str, formula: Formula | None = None) -> None:
        """Add a definition or an argument in words."""
        self.steps.append(Step(text, formula))

    def identity(self, text: str, lhs: Side, rhs: Side, *, shown: Formula | None = None) -> None:
        """Add lhs = rhs, with all symbols free; `shown` replaces the displayed formula where it reads better."""
        _require_zero(text, lhs, rhs)
        self.steps.append(Step(text, sp.Eq(lhs, rhs, evaluate=False) if shown is None else shown, "symbolically"))

    def identities(self, text: str, pairs: Iterable[tuple[Side, Side]], *, shown: Formula, cases: str = "") -> None:
        """Add a family of identities, verified for every pair; `cases` names the members where they are not all."""
        sides = list(pairs)
        if not sides:
            raise DerivationError(f"{text}: no case to verify")
        for lhs, rhs in sides:
            _require_zero(text, lhs, rhs)
        self.steps.append(Step(text, shown, f"for {cases}" if cases else "symbolically"))

    def fact(self, text: str, truth: Any, *, shown: Formula | None = None, cases: str = "") -> None:
        """Add a proposition whose truth value sympy computed; undecided counts as false."""
        if truth not in (True, sp.true):
            raise DerivationError(f"{text}: sympy finds {truth}, expected true")
        self.steps.append(Step(text, shown, f"for {cases}" if cases else "symbolically"))

    def done(self) -> tuple[Step, ...]:
        return tuple(self.steps)


def _require_zero(text: str, lhs: Side, rhs: Side) -> None:
    difference = lhs - rhs
    entries: Sequence[Any] = difference.flat() if isinstance(difference, sp.MatrixBase) else [difference]
    for entry in entries:
        if not is_zero(entry):
            raise DerivationError(f"{text}: sympy leaves {sp.simplify(entry)}, expected 0")


def is_zero(expression: Any) -> bool:
    """Return whether sympy reduces `expression` to zero; cheap rewritings are tried first."""
    rewritings: tuple[Callable[[Any], Any], ...] = (
        lambda e: e,
        sp.expand,
        lambda e: sp.expand(sp.expand_log(e)),
        lambda e: sp.cancel(sp.together(e)),
        sp.simplify,
    )
    return any(rewrite(sp.sympify(expression)) == 0 for rewrite in rewritings)


def load(name: str) -> Claim:
    """Return the claim that the module derivations.`name` states."""
    if name not in NAMES:
        raise ValueError(f"name: got {name!r}, expected one of {', '.join(NAMES)}")
    return import_module(f"derivations.{name}").CLAIM


def main(claim: Claim) -> None:
    """Prove a claim and print it; exit with status 1 if a step or a comparison fails."""
    try:
        proof = claim.prove()
    except DerivationError as error:
        sys.exit(f"FAILED {claim.title}\n  {error}")
    print(claim.title, "=" * len(claim.title), paragraphs(claim.statement), "", "Assumptions", sep="\n")
    for assumption in claim.assumptions:
        print(item("  - ", assumption))
    print("\nDerivation")
    for number, step in enumerate(proof.steps, 1):
        mark = f" [sympy: {step.proof}]" if step.proof else ""
        print(f"\n{item(f'{number:3}. ', step.text + mark)}")
        if step.formula is not None:
            shown = plain(step.formula) if isinstance(step.formula, str) else _pretty(step.formula)
            print(textwrap.indent(shown, " " * 9))
    print("\nufm against the derivation")
    for check in proof.checks:
        print(f"  ok  {plain(check.text)}: error {check.error:.2g}, tolerance {check.tolerance:.2g}")


def latex(formula: Formula) -> str:
    """Return a formula as LaTeX."""
    return formula if isinstance(formula, str) else sp.latex(formula)


def _pretty(formula: sp.Basic) -> str:
    return str(sp.pretty(formula, wrap_line=False, use_unicode=True))
