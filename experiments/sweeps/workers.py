"""Where the points of a sweep are solved: in this process, in others of this machine (joblib), or by submitit."""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from joblib import Parallel, delayed, parallel_config

from experiments.sweeps.grid import GridPoint
from experiments.sweeps.point import failed, solve_point
from experiments.sweeps.store import Line
from ufm._support.arrays import check_integer


@dataclass(frozen=True)
class Workers:
    """Where to solve, and with how much."""

    executor: Literal["local", "slurm", "submitit-local", "submitit-debug"] = "local"
    """local: processes on this machine; slurm: jobs of a cluster; the others: submitit without a cluster, to try it"""
    jobs: int = 1
    """points solved at a time, one thread each; 1 on this machine: no further process"""
    points_per_job: int = 1
    """on a cluster: points that one job solves, whose results arrive together"""
    partition: str | None = None
    """on a cluster: the partition"""
    minutes: int = 60
    """on a cluster: time limit of a job"""
    memory: int = 4
    """on a cluster: memory of a job, GB"""

    def check(self) -> None:
        """Raise ValueError for a number out of range, or if submitit is asked for and missing."""
        for name in ("jobs", "points_per_job", "minutes", "memory"):
            check_integer(name, getattr(self, name), minimum=1)
        if self.executor != "local" and find_spec("submitit") is None:
            raise ValueError(
                f"executor: got {self.executor!r}, which needs submitit: pip install 'ufm[cluster]'; expected 'local'"
            )

    def solve(self, points: list[GridPoint], logs: Path) -> Iterator[Line]:
        """Yield each point's line as soon as it is there, in any order; end what still runs when closed.

        A cluster's jobs print to the folder `logs`. Raises RuntimeError if a worker of this machine is killed.
        """
        if self.executor != "local":
            return self._submitted(points, logs)
        with parallel_config(backend="loky", inner_max_num_threads=1):
            parallel: Any = Parallel(n_jobs=self.jobs, return_as="generator_unordered")
            return parallel(delayed(solve_point)(point) for point in points)

    def _submitted(self, points: list[GridPoint], logs: Path) -> Iterator[Line]:
        from submitit import AutoExecutor
        from submitit.helpers import as_completed

        executor = AutoExecutor(folder=logs, cluster=self.executor.removeprefix("submitit-"))
        partition = {} if self.partition is None else {"slurm_partition": self.partition}
        executor.update_parameters(
            timeout_min=self.minutes,
            mem_gb=self.memory,
            cpus_per_task=1,
            slurm_array_parallelism=self.jobs,
            **partition,
        )
        # Only Slurm bounds how many jobs of an array run at a time: elsewhere there are no more jobs than that.
        least = 1 if self.executor == "slurm" else -(-len(points) // self.jobs)
        size = max(self.points_per_job, least)
        chunks = [points[i : i + size] for i in range(0, len(points), size)]
        jobs = executor.map_array(_solve_chunk, chunks)
        chunk_of = {job.job_id: chunk for job, chunk in zip(jobs, chunks, strict=True)}
        try:
            for job in as_completed(jobs, poll_frequency=1):
                error = job.exception()
                # Out of time or memory, or a lost node: that is these points' failure, not the sweep's.
                yield from [failed(point, error) for point in chunk_of[job.job_id]] if error else job.result()
        finally:
            for job in jobs:
                if not job.done():
                    job.cancel(check=False)


def _solve_chunk(points: list[GridPoint]) -> list[Line]:
    return [solve_point(point) for point in points]
