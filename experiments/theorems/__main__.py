"""Check every theorem of the table: solve, certify, and hold against its closed form.

    python -m experiments.theorems
    python -m experiments.theorems --only "Label smoothing"

Writes how far each is off to experiments/results/theorems.json, from which `python -m experiments.pages` makes the
table of docs/theorems.md. Exit status: 0; 1 if a theorem is off by more than its tolerance; 2 for bad arguments; 130 if
interrupted.
"""

import sys
import time
from dataclasses import dataclass
from pathlib import Path

from experiments.benchmarks.machine import machine
from experiments.theorems.table import RESULTS, all_theorems
from ufm._support.arrays import check_choice
from ufm._support.console import run_command
from ufm._support.files import write_json
from ufm._support.reading import read_json


@dataclass(frozen=True)
class Theorems:
    """Check the theorems."""

    only: tuple[str, ...] = ()
    """names of theorems; all by default"""
    out: str = RESULTS
    """JSON file; those that are not checked keep what stands in it"""

    def run(self) -> int:
        """Check, and return the exit status."""
        known = {theorem.name: theorem for theorem in all_theorems()}
        for name in self.only:
            check_choice("only", name, tuple(known))
        before = read_json("out", self.out, "results of theorems") if Path(self.out).is_file() else {"theorems": {}}
        found = {name: figures for name, figures in before["theorems"].items() if name in known}
        failed = 0
        for name in self.only or known:
            start = time.perf_counter()
            deviation = known[name].check()
            held = deviation <= known[name].tolerance
            failed += not held
            found[name] = {
                "deviation": deviation,
                "tolerance": known[name].tolerance,
                "seconds": round(time.perf_counter() - start, 1),
            }
            print(
                f"{'ok  ' if held else 'OFF '} {name}: {deviation:.2g}, at most {known[name].tolerance:.2g}", flush=True
            )
        ordered = {name: found[name] for name in known if name in found}
        write_json(self.out, {"command": "python -m experiments.theorems", "machine": machine(), "theorems": ordered})
        return 1 if failed else 0


def main() -> int:
    """Run the command line and return its exit status."""
    return run_command(Theorems, prog="python -m experiments.theorems", description=__doc__)


if __name__ == "__main__":
    sys.exit(main())
