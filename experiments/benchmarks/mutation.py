"""Mutation testing with mutmut: how many small changes of the library its tests notice.

    python -m experiments.benchmarks.mutation [--per-module 8] [--out experiments/results/mutation/mutation.json]

mutmut makes every mutant of `ufm` in ./mutants and notes which tests reach which function (`[tool.mutmut]` in
pyproject.toml). A seeded sample of each module's mutants is then tested. A failed test or a time-out kills a mutant;
one that no test reaches survives. Run again after an interruption, it tests the mutants without a result; delete
./mutants to begin anew.
"""

import os
import random
import re
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import tyro

from ufm._support.files import write_json, write_text


@dataclass(frozen=True)
class MutationConfig:
    """What to mutate."""

    per_module: int = 8
    """mutants drawn from each module"""
    seed: int = 0
    """of the draw"""
    modules: tuple[str, ...] = ()
    """modules as in ufm.labels.laws; all if none is given"""
    out: str = "experiments/results/mutation/mutation.json"
    """result file; a README.md with the survivors lies beside it"""


def mutmut(*words: str) -> str:
    """Run mutmut with hypothesis derandomised and one thread a process, and return what it prints."""
    environment = {**os.environ, "CI": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "mutmut", *words]
    return subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False).stdout


def statuses() -> dict[str, dict[str, str]]:
    """Return the status of every mutant by module and name."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for module, function, status in re.findall(r"^ +([\w.]+)\.(x[_ǁ].+): (.+)$", mutmut("results", "--all", "1"), re.M):
        found[module][f"{module}.{function}"] = status
    return found


def change(mutant: str) -> str:
    """Return the lines that a mutant takes out and puts in."""
    lines = mutmut("show", mutant).splitlines()
    return "\n".join(line for line in lines if re.match(r"[-+](?![-+])", line))


def page(config: MutationConfig, modules: dict[str, dict]) -> str:
    """Return the survivors as Markdown."""
    drawn = sum(row["drawn"] for row in modules.values())
    survivors = [survivor for row in modules.values() for survivor in row["survivors"]]
    parts = [
        "# Mutants that survive",
        f"{drawn - len(survivors)} of {drawn} mutants are noticed: {config.per_module} of each module, drawn with seed "
        f"{config.seed}\nby `python -m experiments.benchmarks.mutation`. The others are",
        *(f"`{one['mutant']}` ({one['status']})\n\n```diff\n{one['change']}\n```" for one in survivors),
    ]
    return "\n\n".join(parts) + "\n"


def main() -> int:
    """Draw the mutants, test them, and write what survived."""
    config = tyro.cli(MutationConfig, description=__doc__)
    # A pattern that no mutant matches: mutmut makes all mutants, runs the tests once for its map, and stops.
    mutmut("run", "none")
    every = statuses()
    if not every:
        raise RuntimeError("mutation: mutmut made no mutants, expected some; does its first run of the tests pass?")
    modules = config.modules or sorted(every)
    drawn = {
        module: random.Random(config.seed).sample(sorted(every[module]), min(config.per_module, len(every[module])))
        for module in modules
    }
    mutmut("run", *(name for module in modules for name in drawn[module] if every[module][name] == "not checked"))
    now = statuses()
    rows = {}
    for module in modules:
        alive = [name for name in drawn[module] if now[module][name] not in ("killed", "timeout", "segfault")]
        survivors = [{"mutant": name, "status": now[module][name], "change": change(name)} for name in alive]
        rows[module] = {"possible": len(every[module]), "drawn": len(drawn[module]), "survivors": survivors}
        print(f"{module}: {len(drawn[module]) - len(alive)} of {len(drawn[module])} killed", flush=True)
    total = sum(row["drawn"] for row in rows.values())
    killed = total - sum(len(row["survivors"]) for row in rows.values())
    result = {"draw": {"per_module": config.per_module, "seed": config.seed}, "modules": rows}
    write_json(Path(config.out), {**result, "killed": killed, "drawn": total, "fraction": killed / total})
    write_text(Path(config.out).parent / "README.md", page(config, rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
