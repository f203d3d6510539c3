"""The table of all theorems, from what the last check of each has found."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from experiments.theorems.theorem import Theorem
from ufm.reports.tables import Table

RESULTS = "experiments/results/theorems.json"
_SUBJECTS = ("simplex",)


def all_theorems() -> tuple[Theorem, ...]:
    """Return the theorems of every subject, in the order of the table."""
    return tuple(
        theorem for subject in _SUBJECTS for theorem in import_module(f"experiments.theorems.{subject}").THEOREMS
    )


def theorems_table(figures: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return one row a theorem: statement, source, assumption, functions, derivation, test and agreement.

    Parameters
    ----------
    figures
        By theorem's name, the "deviation" that its check has found, and the "tolerance".

    Returns
    -------
    Table
        For docs/theorems.md, in MyST Markdown.
    """
    header = ("theorem", "says", "source", "assumes", "computed by", "derivation", "test", "agreement")
    return Table("Theorems", header, tuple(_row(theorem, figures[theorem.name]) for theorem in all_theorems()))


def _row(theorem: Theorem, figures: Mapping[str, Any]) -> tuple[str, ...]:
    held = figures["deviation"] <= figures["tolerance"]
    agreement = f"{figures['deviation']:.1g} ({theorem.deviation})"
    return (
        f"**{theorem.name}**",
        theorem.says + (f" *Found:* {theorem.finding}" if theorem.finding else ""),
        f"{{cite:t}}`{','.join(theorem.sources)}`" if theorem.sources else "new here",
        theorem.assumes,
        ", ".join(f"{{py:obj}}`{name}`" for name in theorem.functions),
        f"[{theorem.derivation}](theory/{theorem.derivation}.md)" if theorem.derivation else "observed",
        f"`{theorem.test.removeprefix('tests/')}`",
        agreement if held else f"**off**: {agreement}",
    )
