"""`solve`: run a method on a UFM until a stopping rule, and return one kind of result with its certificate."""

import dataclasses
import math
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any, cast

import numpy as np
import torch
import torch.distributed as dist
from tqdm import tqdm

from ufm._support.arrays import check_choice, check_integer, check_number, to_tensor
from ufm._support.progress import progress_bar
from ufm.labels.targets import PairTargets
from ufm.solvers.adam import Adam
from ufm.solvers.certificate import Certificate
from ufm.solvers.gradient_descent import GradientDescent
from ufm.solvers.lbfgs import LBFGS
from ufm.solvers.method import Iterate, Method, Point, SolveOptions, constrained, random_start
from ufm.solvers.momentum import Momentum
from ufm.solvers.newton import Newton
from ufm.solvers.problem import UFM, check_problem
from ufm.solvers.reduced import check_same, join_processes
from ufm.solvers.solution import History, Message, Solution, problem_facts
from ufm.solvers.trace import Trace

METHODS: dict[str, type[Method]] = {method.name: method for method in (Newton, LBFGS, GradientDescent, Momentum, Adam)}
# Iterations of a method with fixed steps between two readings of objective and gradient norm, which wait for the GPU.
_GPU_CHECK_EVERY = 20


@torch.no_grad()
def solve(
    problem: UFM,
    method: str | Method = "newton",
    *,
    tol: float | None = None,
    gap_tol: float | None = None,
    max_iter: int = 100_000,
    seed: int = 0,
    start: Solution | Point | None = None,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "auto",
    stream: bool = False,
    distributed: bool = False,
    record: int = 0,
    progress: bool = False,
) -> Solution:
    """Minimise a `UFM` directly, from a random start, without any use of its joint closed form.

    Parameters
    ----------
    problem : UFM
        What to minimise.
    method : str or Method
        "newton", "lbfgs", "gradient_descent", "momentum" or "adam", or one of `Newton`, `LBFGS`, ... with settings of
        its own. "newton" eliminates the features, which have to be free for it.
    tol : float, optional
        Tolerance > 0 on the gradient norm (see `Certificate`). Where neither `tol` nor `gap_tol` is given, 1e-10 in
        float64 and 1e-5 in float32.
    gap_tol : float, optional
        Tolerance > 0 on the certified gap over the objective. The solve has converged once every tolerance that is
        given is reached.
    max_iter : int
        Limit >= 0 on iterations.
    seed : int
        Of the Gaussian start.
    start : Solution or Point, optional
        A solution to resume from, whose history the new one continues, or a point of your own. Features that the method
        needs and the start does not hold are drawn. The method starts anew from there: momentum, schedules and
        curvature pairs are not carried over. A classifier of zeros is a stationary point, where a solve with `tol` ends
        at once; its certificate says what that is worth.
    dtype : torch.dtype
        torch.float64 or torch.float32.
    device : torch.device or str
        "auto" takes a CUDA GPU if there is one.
    stream : bool
        Whether to hold one block of targets at a time and store no features ("newton" only).
    distributed : bool
        Whether to share the targets out among the processes that torchrun started ("newton" only). Every one of them
        makes this same call and gets the same solution, without features.
    record : int
        Record the history every so many iterations; 0 records the first and last only.
    progress : bool
        Whether to show a progress bar on the terminal.

    Returns
    -------
    Solution
        The point with its certificate. A solve that does not converge returns its best point with `converged` False and
        the reason in `message`. So does one that Ctrl-C interrupts after its first iterate, unless it is distributed.

    Raises
    ------
    ValueError
        For an unknown method, arguments out of range, or a combination that the method does not support.
    RuntimeError
        If another process of a distributed solve ends.

    Examples
    --------
    >>> import ufm
    >>> solution = ufm.solve(ufm.UFM(ufm.Mixup(3).targets(nodes=4), 3, 0.01, 0.01))
    >>> solution.converged, abs(solution.certificate.relative_gap) < 1e-9
    (True, True)
    """
    check_problem(problem)
    chosen = _method(method)
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"dtype: got {dtype}, expected torch.float32 or torch.float64")
    rules = _Rules(tol, gap_tol, dtype)
    max_iter = check_integer("max_iter", max_iter, minimum=0)
    record = check_integer("record", record, minimum=0)
    check_integer("seed", seed, minimum=0, maximum=2**63 - 1)
    # A resumed solve draws other batches than the ones that it follows.
    batches = seed + (start.iterations if isinstance(start, Solution) else 0)
    method_tol = rules.tol or 1e-3 * (rules.gap_tol or 0.0)
    options = SolveOptions(max_iter, batches, method_tol, stream, distributed, start is not None)
    chosen.check(problem, options)
    if distributed:
        join_processes()
    local = problem.to(_device(device, distributed=distributed), dtype)
    if distributed:
        same = f"{problem_facts(problem)} {chosen} {tol} {gap_tol} {max_iter} {dtype} {record} {start is None}"
        check_same("distributed", same, local.targets.weights.device)
    if isinstance(local.targets, PairTargets) and not (stream or distributed):
        local = dataclasses.replace(local, targets=local.targets.written_out())
    point = random_start(local, seed, features=chosen.needs_features)
    earlier = start if isinstance(start, Solution) else None
    if start is not None:
        point = _given(local, start, point)
    recorder = _Recorder(Trace(local), earlier)
    check_every = _GPU_CHECK_EVERY if chosen.fixed and local.targets.weights.is_cuda else 1

    with progress_bar(max_iter, chosen.name, unit="iterations", enabled=progress) as bar:
        loop = _Loop(rules, recorder, options, record, check_every, bar)
        loop.run(chosen.iterate(local, point, options))
    seconds = recorder.seconds()
    certificate = recorder.add(loop.iteration, loop.chosen)
    message = loop.message
    if rules.met(certificate) and message in (Message.STALLED, Message.MAX_ITER):
        message = Message.CONVERGED
    end, history = loop.chosen.point(), recorder.history()
    return Solution(
        classifier=end.classifier,
        stored_features=end.features,
        bias=end.bias,
        objective=certificate.objective,
        gradient_norm=certificate.gradient_norm,
        certificate=certificate,
        converged=message is Message.CONVERGED,
        message=message,
        iterations=loop.iterations + (0 if earlier is None else earlier.iterations),
        seconds=seconds,
        history=history if earlier is None else earlier.history.followed_by(history),
        problem=local,
        method=chosen.name,
    )


class _Loop:
    """The iterations of one solve, and which iterate it ends with: the last if converged, else the lowest."""

    def __init__(
        self, rules: "_Rules", recorder: "_Recorder", options: SolveOptions, record: int, check_every: int, bar: tqdm
    ) -> None:
        self.rules, self.recorder, self.bar, self.rounding = rules, recorder, bar, rules.rounding
        self.max_iter, self.distributed = options.max_iter, options.distributed
        self.record, self.check_every = record, check_every
        self.message, self.iterations = Message.STALLED, 0
        self.best: tuple[Iterate, int] | None = None

    @property
    def chosen(self) -> Iterate:
        assert self.best is not None
        return self.best[0]

    @property
    def iteration(self) -> int:
        assert self.best is not None
        return self.best[1]

    def run(self, iterates: Iterator[Iterate]) -> None:
        try:
            # Closed in here, it can say that it was interrupted before it was asked to end.
            with closing(cast(Any, iterates)):
                for iteration, iterate in enumerate(iterates):
                    self.iterations = iteration
                    self.bar.update()
                    due = iteration == 0 or (self.record > 0 and iteration % self.record == 0)
                    if (due or iteration == self.max_iter or iteration % self.check_every == 0) and self._ends(
                        iteration, iterate
                    ):
                        return
                    if due:
                        self.recorder.add(iteration, iterate)
        except KeyboardInterrupt:
            self.message = Message.INTERRUPTED
            # The other processes are in the middle of a step, so that no certificate can be had from them.
            if self.best is None or self.distributed:
                raise

    def _ends(self, iteration: int, iterate: Iterate) -> bool:
        if self.best is None or _better(iterate, self.best[0], self.rounding):
            self.best = iterate, iteration
        self.bar.set_postfix(gradient_norm=f"{iterate.gradient_norm:.2e}", refresh=False)
        if not math.isfinite(iterate.objective) or not math.isfinite(iterate.gradient_norm):
            self.message = Message.NOT_FINITE
        elif self.rules.reached(iteration, iterate):
            self.message, self.best = Message.CONVERGED, (iterate, iteration)
        elif iteration == self.max_iter:
            self.message = Message.MAX_ITER
        else:
            return False
        return True


def _better(one: Iterate, other: Iterate, rounding: float) -> bool:
    """Return whether an iterate is lower, or as low up to rounding and nearer to stationary."""
    if abs(one.objective - other.objective) <= rounding * abs(other.objective):
        return one.gradient_norm < other.gradient_norm
    return one.objective < other.objective


def _method(method: str | Method) -> Method:
    if isinstance(method, Method) and not isinstance(method, type):
        return method
    check_choice("method", method, tuple(METHODS))
    return METHODS[str(method)]()


class _Rules:
    """When a solve has converged."""

    def __init__(self, tol: float | None, gap_tol: float | None, dtype: torch.dtype) -> None:
        if tol is None and gap_tol is None:
            tol = 1e-10 if dtype == torch.float64 else 1e-5
        self.tol = None if tol is None else check_number("tol", tol, above=0)
        self.gap_tol = None if gap_tol is None else check_number("gap_tol", gap_tol, above=0)
        self.next_gap = 0
        self.rounding = 50 * torch.finfo(dtype).eps

    def reached(self, iteration: int, iterate: Iterate) -> bool:
        if self.tol is not None and iterate.gradient_norm > self.tol:
            return False
        if self.gap_tol is None:
            return self.met(iterate.certificate())
        # A certificate costs about an evaluation: asked for at growing intervals, it costs a few per cent in all.
        if iteration < self.next_gap:
            return False
        self.next_gap = iteration + 1 + iteration // 20
        return self.met(iterate.certificate())

    def met(self, certificate: Certificate) -> bool:
        if self.tol is not None and certificate.gradient_norm > self.tol:
            return False
        return self.gap_tol is None or abs(certificate.relative_gap) <= self.gap_tol


def _given(problem: UFM, start: Solution | Point, drawn: Point) -> Point:
    """Return the given start, completed by the drawn one's features, within the problem's constraints."""
    if not isinstance(start, Solution | Point):
        raise ValueError(f"start: got {type(start).__name__}, expected a Solution or a Point")
    w, bias = start.classifier, start.bias
    h = start.features if isinstance(start, Point) else start.stored_features
    K, N, d = problem.targets.num_classes, len(problem.targets), problem.dim
    for name, array, expected in (("classifier", w, (K, d)), ("features", h, (N, d)), ("bias", bias, (K,))):
        if array is not None and tuple(to_tensor(f"start: {name}", array).shape) != expected:
            raise ValueError(f"start: got {name} of shape {tuple(array.shape)}, expected {expected}")
    if problem.row_norm is not None and not bool(w.any(1).all()):
        raise ValueError("start: got a classifier with a zero row, expected rows that can be given a norm")
    if (bias is None) == problem.has_bias:
        raise ValueError(f"start: got {'no' if bias is None else 'a'} bias, expected the other as the problem has it")
    like = problem.targets.weights
    fixed = problem.classifier
    return constrained(
        problem,
        Point(
            w.to(like) if fixed is None else torch.as_tensor(fixed),
            drawn.features if h is None else h.to(like),
            None if bias is None else bias.to(like),
        ),
    )


def _device(device: torch.device | str, *, distributed: bool) -> torch.device:
    if device == "auto" or (distributed and str(device) == "cuda"):
        if not torch.cuda.is_available():
            return torch.device("cpu")
        return torch.device("cuda", dist.get_rank() % torch.cuda.device_count() if distributed else 0)
    message = f"device: got {device!r}, expected 'auto', 'cpu' or an available device"
    try:
        found = torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, TypeError) as error:
        raise ValueError(message) from error
    if found.type == "meta":
        raise ValueError(message)
    return found


class _Recorder:
    """The history; its clock stands still while it records."""

    def __init__(self, trace: Trace, start: Solution | None) -> None:
        self.trace = trace
        self.begin = time.perf_counter() - (0.0 if start is None else start.seconds)
        self.offset = 0 if start is None else start.iterations
        self.rows: list[dict[str, float | np.ndarray]] = []

    def seconds(self) -> float:
        return time.perf_counter() - self.begin

    def add(self, iteration: int, iterate: Iterate) -> Certificate:
        seconds = self.seconds()
        certificate = iterate.certificate()
        row = {
            "iteration": float(iteration + self.offset),
            "seconds": seconds,
            "objective": certificate.objective,
            "gradient_norm": certificate.gradient_norm,
            "gap": certificate.gap,
        }
        self.rows.append({**row, **self.trace.of(iterate.point())})
        self.begin = time.perf_counter() - seconds
        return certificate

    def history(self) -> History:
        columns = {name: np.array([row[name] for row in self.rows]) for name in self.rows[0]}
        return History(**columns, lam=self.trace.lam)
