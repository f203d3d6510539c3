"""Time and peak memory of the solver against the number of targets, stored and streamed, on one and two processes.

    python -m experiments.benchmarks.scaling [--out experiments/results/solver/scaling.json]

Mixup, K = 30, d = 32, with as many nodes as make about N targets; a fixed number of Newton iterations from a classifier
near the optimum (the closed form's, shaken), so that every N does the same work per target. Each point is a process of
its own; `megabytes` is by how much the solve raises its peak resident memory, which building the targets may have
raised before. The two-process runs divide the targets between two workers of one thread each, against one of one
thread, and show the first worker's memory.
"""

import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from experiments.benchmarks.machine import machine
from ufm._support.files import write_json

NUM_CLASSES, DIM, DECAYS = 30, 32, (5e-4, 5e-3)


@dataclass(frozen=True)
class ScalingConfig:
    """What to measure."""

    nodes: tuple[int, ...] = (2, 7, 23, 72, 230, 728, 2299)
    """per class pair: 435 nodes + 30 targets"""
    iterations: int = 3
    """Newton iterations"""
    threads: int = 1
    """torch threads of a run on one process"""
    out: str = "experiments/results/solver/scaling.json"
    """result file"""


def run(nodes: int, iterations: int, threads: int, stream: bool, distributed: bool) -> dict[str, Any] | None:
    """Solve once in this process and return its figures."""
    import torch.distributed as dist

    import ufm

    torch.set_num_threads(threads)
    law = ufm.Mixup(NUM_CLASSES)
    pairs = law.pair_targets(nodes) if stream or distributed else law.targets(nodes)
    problem = ufm.UFM(pairs, DIM, *DECAYS)
    optimum = ufm.joint_optimum(law, *DECAYS, nodes=16).classifier(DIM)
    noise = torch.randn(optimum.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    start = ufm.Point(optimum + 0.02 * noise)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begin = time.perf_counter()
    solution = ufm.solve(
        problem, "newton", start=start, max_iter=iterations, tol=1e-300, stream=stream, distributed=distributed
    )
    seconds = time.perf_counter() - begin
    if distributed and dist.get_rank() != 0:
        return None
    return {
        "targets": len(pairs),
        "seconds": seconds,
        "megabytes": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024,
        "objective": solution.objective,
        "gradient_norm": solution.gradient_norm,
    }


def apart(processes: int, *arguments: Any) -> dict[str, Any]:
    """Run in processes of their own and return the first one's figures."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "--no-python"]
    program = [sys.executable, "-m", "experiments.benchmarks.scaling", "--worker", json.dumps(arguments)]
    command = [sys.executable, *launcher, *program] if arguments[-1] else program
    environment = {**os.environ, "OMP_NUM_THREADS": str(arguments[2])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout.strip().splitlines()[-1])


def slope(rows: list[dict[str, Any]], key: str) -> float:
    """Return the slope of a figure against the number of targets in log-log, by least squares."""
    x, y = (np.log([row[name] for row in rows]) for name in ("targets", key))
    return float(np.polyfit(x, y, 1)[0])


def main() -> int:
    """Measure, print and write the result file."""
    if "--worker" in sys.argv:
        found = run(*json.loads(sys.argv[sys.argv.index("--worker") + 1]))
        if found is not None:
            print(json.dumps(found), flush=True)
        return 0
    config = tyro.cli(ScalingConfig, description=__doc__)
    rows: list[dict[str, Any]] = []
    kinds = [
        ("stored", 1, config.threads, False, False),
        ("streamed", 1, config.threads, True, False),
        ("1 process", 1, 1, False, True),
        ("2 processes", 2, 1, False, True),
    ]
    for nodes in config.nodes:
        for kind, processes, threads, stream, distributed in kinds:
            row = apart(processes, nodes, config.iterations, threads, stream, distributed)
            rows.append({"kind": kind, "nodes": nodes, **row})
            print(
                f"{kind:12} {row['targets']:>9,} targets  {row['seconds']:8.3f} s  {row['megabytes']:8.1f} MB",
                flush=True,
            )
    large = {kind[0]: [row for row in rows if row["kind"] == kind[0] and row["targets"] >= 10_000] for kind in kinds}
    slopes = {kind: slope(group, "seconds") for kind, group in large.items() if len(group) > 1}
    print("slope of the time from 10,000 targets on:", {kind: round(value, 3) for kind, value in slopes.items()})
    command = "python -m experiments.benchmarks.scaling"
    result = {"command": command, "machine": machine(), "config": asdict(config), "slopes": slopes, "rows": rows}
    write_json(Path(config.out), result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
