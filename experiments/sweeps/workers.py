"""Where the points of a sweep are solved: in this process, in workers of this machine, or on a cluster."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from joblib import Parallel, delayed, parallel_config

from experiments.sweeps.grid import Point
from experiments.sweeps.point import solve_point
from ufm._support.arrays import check_choice, check_integer

EXECUTORS = ("local", "slurm", "submitit-local", "submitit-debug")


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

    def __post_init__(self) -> None:
        """Raise ValueError for a number out of range, an unknown executor, or one that is not installed."""
        check_choice("executor", self.executor, EXECUTORS)
        for name in ("jobs", "points_per_job", "minutes", "memory"):
            check_integer(name, getattr(self, name), minimum=1)
        if self.executor != "local":
            _submitit()


def solve_points(points: list[Point], workers: Workers, logs: Path) -> Generator[dict[str, Any], None, None]:
    """Yield the lines of the points as they are done, in any order; on an exception, end what still runs.

    logs: folder for what a cluster's jobs print. Raises RuntimeError if a worker of this machine is killed.
    """
    if workers.executor != "local":
        yield from _cluster(points, workers, logs)
    elif workers.jobs == 1:
        yield from map(solve_point, points)
    else:
        yield from _local(points, workers.jobs)


def _local(points: list[Point], jobs: int) -> Generator[dict[str, Any], None, None]:
    parent = os.getpid()
    with parallel_config(backend="loky", inner_max_num_threads=1):
        parallel: Any = Parallel(n_jobs=jobs, return_as="generator_unordered")
        # Ctrl-C reaches every process of the terminal; the workers, which inherit this, leave it to the parent.
        with _interrupts_ignored():
            lines = parallel(delayed(_in_worker)(point, parent) for point in points)
    try:
        yield from lines
    except BaseException as error:
        from joblib.externals.loky import get_reusable_executor
        from joblib.externals.loky.process_executor import TerminatedWorkerError

        get_reusable_executor().shutdown(wait=True, kill_workers=True)
        if isinstance(error, TerminatedWorkerError):
            message = "a worker process was killed, perhaps for want of memory; run again, with fewer jobs, to go on"
            raise RuntimeError(message) from error
        raise
    finally:
        with contextlib.suppress(BaseException):
            lines.close()


def _in_worker(point: Point, parent: int) -> dict[str, Any]:
    if os.getpid() != parent:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        _end_with(parent)
    return solve_point(point)


@cache
def _end_with(parent: int) -> None:
    """From now on, end this process soon after its parent, which a killed parent does not see to."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _cluster(points: list[Point], workers: Workers, logs: Path) -> Generator[dict[str, Any], None, None]:
    submitit = _submitit()
    kind = {"slurm": "slurm", "submitit-local": "local", "submitit-debug": "debug"}[workers.executor]
    executor = submitit.AutoExecutor(folder=logs, cluster=kind)
    executor.update_parameters(timeout_min=workers.minutes, mem_gb=workers.memory, cpus_per_task=1)
    if kind == "slurm":
        partition = {} if workers.partition is None else {"slurm_partition": workers.partition}
        executor.update_parameters(slurm_array_parallelism=workers.jobs, **partition)
    size = workers.points_per_job
    chunks = [points[i : i + size] for i in range(0, len(points), size)]
    # Only Slurm bounds how many jobs of an array run at a time.
    waves = [chunks] if kind == "slurm" else [chunks[i : i + workers.jobs] for i in range(0, len(chunks), workers.jobs)]
    for wave in waves:
        jobs = executor.map_array(_solve_chunk, wave)
        chunk_of = {job.job_id: chunk for job, chunk in zip(jobs, wave, strict=True)}
        try:
            for job in submitit.helpers.as_completed(jobs, poll_frequency=5 if kind == "slurm" else 0.2):
                try:
                    yield from job.result()
                except Exception as error:  # out of time or memory, a lost node: its points', not the sweep's
                    text = f"{type(error).__name__}: {' '.join(str(error).split())}"[:2000]
                    for point in chunk_of[job.job_id]:
                        yield {"key": point.key, "parameters": point.written(), "status": "failed", "message": text}
        except BaseException:
            for job in jobs:
                job.cancel(check=False)
            raise


def _solve_chunk(points: list[Point]) -> list[dict[str, Any]]:
    return [solve_point(point) for point in points]


def _submitit() -> Any:
    try:
        import submitit
    except ImportError as error:
        message = "executor: got one that needs submitit, expected it to be installed: pip install 'ufm[cluster]'"
        raise ValueError(message) from error
    import submitit.helpers

    return submitit
