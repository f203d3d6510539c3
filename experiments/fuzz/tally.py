"""What an attack tried and what was mishandled, by subject and kind."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.benchmarks.machine import machine
from ufm._support.files import write_json

# Of what was mishandled, that are written out.
_SHOWN = 60


@dataclass
class Tally:
    """Counts, and what was mishandled in words.

    Attributes
    ----------
    tried : dict of Counter
        By subject: how often each kind of attack was tried.
    ends : Counter
        How the cases ended.
    mishandled : list of str
        One line each, with the case's number, by which it can be tried again.
    """

    tried: dict[str, Counter[str]] = field(default_factory=dict)
    ends: Counter[str] = field(default_factory=Counter)
    mishandled: list[str] = field(default_factory=list)

    def add(self, subject: str, kind: str, end: str, wrong: str | None) -> None:
        """Count a case; `wrong` says how it was mishandled."""
        self.tried.setdefault(subject, Counter())[kind] += 1
        self.ends[end] += 1
        if wrong is not None:
            self.mishandled.append(f"{subject}, {kind}: {wrong}")

    def finish(self, out: str, command: str, **further: Any) -> int:
        """Write the result, print its sums, and return the exit status."""
        total = sum(counts.total() for counts in self.tried.values())
        result = {
            "command": command,
            "machine": machine(),
            **further,
            "cases": total,
            "mishandled": len(self.mishandled),
            "tried": {subject: dict(sorted(counts.items())) for subject, counts in sorted(self.tried.items())},
            "ends": dict(sorted(self.ends.items())),
            "examples": self.mishandled[:_SHOWN],
        }
        write_json(Path(out), result)
        print("\n".join(self.mishandled[:_SHOWN]))
        print(f"{total} tried, {len(self.mishandled)} mishandled. {out}")
        return 1 if self.mishandled else 0
