"""The report: one HTML page that holds everything it shows."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

from ufm._support.files import to_json, write_text
from ufm._support.version import VERSION
from ufm.reports.pictures import CLASSES, Picture, draw
from ufm.reports.tables import Table, accuracy_of, number, overview, run_tables
from ufm.runs.claims import Claim, Verdict, count, families
from ufm.runs.exact_claims import LIVE, exact_claims
from ufm.runs.network_claims import network_claims
from ufm.runs.record import RunRecord, mode_words

# The excess loss below which networks follow the closed form with nothing fitted: experiments/results/regime.
REGIME_EXCESS = 0.005


@dataclass(frozen=True, eq=False)
class Section:
    """What the page says of one run: claims in the run's own mode and in others, pictures, tables, configuration."""

    run: RunRecord
    exact: list[Claim]
    claims: list[Claim]
    others: list[Claim]
    pictures: list[Picture]

    @property
    def tables(self) -> list[Table]:
        """The run's tables."""
        return run_tables(self.run)

    @property
    def configuration(self) -> str:
        """The run's configuration as text, or ""."""
        return to_json(self.run.configuration) if self.run.configuration else ""

    @property
    def caption(self) -> str:
        """Title of the claims' table, with how many hold."""
        return f"Theory against the network (a measurement): {verdicts(self.claims)}"

    @property
    def sentence(self) -> str:
        """What was found, in a sentence or two."""
        run, score = self.run, {score.name: score for score in self.run.comparison.scores}
        accuracy, closed, line = accuracy_of(run), score["closed form"].r2, score["straight line"].r2
        test = "" if accuracy is None else f", test accuracy {100 * accuracy:.1f} %"
        return (
            f"{run.name} ({run.training.description}{test}): of the variance of the logits on mixed inputs, the closed "
            f"form with one fitted number explains {_percent(closed)}, a straight line in the label {_percent(line)}. "
            f"{self.place}"
        ).rstrip()

    @property
    def place(self) -> str:
        """Where the network is on the way to the theory's regime, and by which law it departs from it, in words."""
        found = self.run.comparison
        if found.departure is None or self.run.training.predicted_by != "closed form" or not self.run.training.mixed:
            return ""
        where = "has fitted" if found.departure.excess < REGIME_EXCESS else "has not fitted"
        text = f"It {where} its labels (limit {REGIME_EXCESS:g} nats): {found.departure.words()}."
        if found.certificate is None:
            return text
        gap = _percent(found.certificate.relative_gap)
        return f"{text} It is proved to be within {gap} of the global minimum of its objective."


@dataclass(frozen=True, eq=False)
class Report:
    """A report on one or more runs; made by `report`.

    Attributes
    ----------
    sections : list of Section
        One per run.
    command : str
        That makes the report; shown on the page.
    """

    sections: list[Section]
    command: str

    @property
    def exact(self) -> list[Claim]:
        """The exact claims of all runs, each once."""
        return list(dict.fromkeys(claim for section in self.sections for claim in section.exact))

    @property
    def failed(self) -> bool:
        """Whether an exact claim does not hold."""
        return any(claim.verdict is Verdict.FAILS for claim in self.exact)

    def summary(self) -> str:
        """Return a line on the exact claims, and one on each run's claims, by mode."""
        lines = [f"closed form against direct solver: {verdicts(self.exact)}"]
        for section in self.sections:
            for mode in section.run.modes:
                claims = [claim for claim in section.claims + section.others if claim.mode == mode]
                lines.append(f"{section.run.name}, {mode_words(mode)}: {verdicts(claims)}")
        return "\n".join(lines)

    def html(self) -> str:
        """Return the page; it refers to nothing outside of itself."""
        environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
        environment.filters |= {"number": number}
        source = Path(__file__).with_name("report.html.j2").read_text(encoding="utf-8")
        return environment.from_string(source).render(
            report=self,
            sections=self.sections,
            exact=families(self.exact),
            exact_counts=verdicts(self.exact),
            solves=LIVE if any(section.run.checks is None for section in self.sections) else "",
            verdicts=verdicts,
            matrix=claim_matrix(self.sections) if len(self.sections) > 1 else None,
            overview=overview([section.run for section in self.sections], training=True),
            version=VERSION,
        )

    def write(self, path: str | Path) -> Path:
        """Write the page to a file, atomically, and return its path."""
        write_text(path, self.html())
        return Path(path)


def report(runs: Sequence[RunRecord], command: str, *, classes: tuple[int, int, int] = CLASSES) -> Report:
    """Return the report on these runs.

    Parameters
    ----------
    runs : sequence of RunRecord
        At least one.
    command : str
        That makes the report; shown on the page.
    classes : tuple of int
        Three of 0..K-1, of the planar picture.

    Raises
    ------
    ValueError
        If there is no run, or one has no such classes.
    """
    if not runs:
        raise ValueError("runs: got none, expected at least one")
    K = min(run.num_classes for run in runs)
    if classes != CLASSES and (len(set(classes)) != 3 or not all(0 <= k < K for k in classes)):
        raise ValueError(f"classes: got {classes}, expected three different ones in 0..{K - 1}")
    return Report([_section(run, classes) for run in runs], command)


def _section(run: RunRecord, classes: tuple[int, int, int]) -> Section:
    claims = network_claims(run)
    own = [claim for claim in claims if claim.mode == run.mode]
    others = [claim for claim in claims if claim.mode != run.mode]
    return Section(run, exact_claims(run), own, others, draw(run, classes))


def verdicts(claims: Sequence[Claim]) -> str:
    """Return how many of the claims hold, in words."""
    counts = count(claims)
    held, failed, other = (counts[verdict] for verdict in Verdict)
    words = [f"{held} of {held + failed} claims hold" if held + failed else "no claim applies"]
    words += [f"{failed} {'does' if failed == 1 else 'do'} not"] if failed else []
    words += [f"{other} {'does' if other == 1 else 'do'} not apply"] if other and held + failed else []
    return ", ".join(words)


def claim_matrix(sections: Sequence[Section]) -> list[tuple[str, list[Claim | None]]]:
    """Return one row per claim, by name, with each run's in the order of the runs; None where a run lacks it."""
    by_run = [{claim.name: claim for claim in section.claims} for section in sections]
    names = dict.fromkeys(name for claims in by_run for name in claims)
    return [(name, [claims.get(name) for claims in by_run]) for name in names]


def _percent(value: float) -> str:
    return f"{number(100 * value, '.0f')} %"
