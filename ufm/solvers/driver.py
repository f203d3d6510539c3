"""`solve`: run a method on a UFM until a stopping rule, and return one kind of result with its certificate."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ufm.arrays import check_choice, check_integer, check_number, to_tensor
from ufm.certificate import Certificate, certify_evaluation
from ufm.problem import UFM, Evaluation
from ufm.progress import progress_bar
from ufm.solvers.descent import Function, State
from ufm.solvers.gradient_descent import gradient_descent
from ufm.solvers.lbfgs import lbfgs

METHODS: dict[str, Callable[[Function, Tensor], Iterator[State]]] = {
    "lbfgs": lbfgs,
    "gradient_descent": gradient_descent,
}


class Message(StrEnum):
    """Why a solve ended."""

    CONVERGED = "the gradient norm is at most tol"
    MAX_ITER = "the iteration limit was reached"
    STALLED = "no step along the search direction lowers the objective any more"
    INTERRUPTED = "interrupted; this is the best point so far"
    NOT_FINITE = "the objective or its gradient is not finite"


@dataclass(frozen=True)
class History:
    """What was recorded along the way, one entry per recorded iteration, as NumPy arrays (n,).

    iteration: number. seconds: since the start. objective, gradient_norm, gap: as in `Certificate`.
    """

    iteration: np.ndarray
    seconds: np.ndarray
    objective: np.ndarray
    gradient_norm: np.ndarray
    gap: np.ndarray


@dataclass(frozen=True)
class Solution:
    """The result of a solve. Arrays are tensors on the device that was computed on.

    classifier (K, d), features (N, d): the point. objective: F there. gradient_norm: as in `Certificate`.
    certificate: what is proved about it. converged: whether the gradient norm reached tol. message: why it ended. Where
    it did not converge, the point is the one of the lowest objective, and the last entry of the history belongs to it.
    iterations, seconds: what it took. history: recorded values.
    """

    classifier: Float[Tensor, "K d"]
    features: Float[Tensor, "N d"]
    objective: float
    gradient_norm: float
    certificate: Certificate
    converged: bool
    message: Message
    iterations: int
    seconds: float
    history: History

    @property
    def logits(self) -> Float[Tensor, "N K"]:
        """The logits H W^T."""
        return self.features @ self.classifier.T


def solve(
    problem: UFM,
    method: str = "lbfgs",
    *,
    tol: float | None = None,
    max_iter: int = 100_000,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "auto",
    record: int = 0,
    progress: bool = False,
) -> Solution:
    """Minimise a `UFM` directly, from a random start, without any use of its closed form.

    method: "lbfgs" or "gradient_descent". tol: the solve has converged once the gradient norm (see `Certificate`) is
    at most this; by default 1e-10 in float64 and 1e-5 in float32. max_iter: limit on iterations. seed: of the
    Gaussian start. device: "auto" takes a CUDA GPU if there is one. record: record history every so many
    iterations; 0 records the first and last only. progress: show a progress bar on the terminal.

    A solve that does not converge returns its best point with `converged` False and the reason in `message`;
    Ctrl-C likewise. Raises ValueError for an unknown method or arguments out of range.
    """
    check_choice("method", method, tuple(METHODS))
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"dtype: got {dtype}, expected torch.float32 or torch.float64")
    tol = check_number("tol", (1e-10 if dtype == torch.float64 else 1e-5) if tol is None else tol, above=0)
    max_iter = check_integer("max_iter", max_iter, minimum=0)
    record = check_integer("record", record, minimum=0)
    check_integer("seed", seed, minimum=0, maximum=2**63 - 1)
    local = problem.to(_device(device), dtype)
    variables = _Variables(local)
    recorder = _Recorder(local, variables)

    iteration, state, message = -1, None, Message.STALLED
    best, best_iteration = None, -1
    try:
        with progress_bar(max_iter, method, unit="iterations", enabled=progress) as bar:
            for iteration, state in enumerate(METHODS[method](variables.function, variables.start(seed))):
                if best is None or not state.objective > best.objective:
                    best, best_iteration = state, iteration
                if not np.isfinite(state.objective) or not np.isfinite(state.gradient_norm):
                    message = Message.NOT_FINITE
                elif state.gradient_norm <= tol:
                    message = Message.CONVERGED
                elif iteration == max_iter:
                    message = Message.MAX_ITER
                else:
                    if iteration == 0 or (record and iteration % record == 0):
                        recorder.add(iteration, state)
                    bar.update()
                    bar.set_postfix(gradient_norm=f"{state.gradient_norm:.2e}", refresh=False)
                    continue
                break
    except KeyboardInterrupt:
        message = Message.INTERRUPTED
    if best is None or state is None:
        raise KeyboardInterrupt
    iterations = iteration
    if message is not Message.CONVERGED:
        state, iteration = best, best_iteration
    certificate = recorder.add(iteration, state)
    classifier, scaled = variables.unpack(state.point)
    return Solution(
        classifier=classifier.clone(),
        features=scaled / local.targets.weights.sqrt().unsqueeze(-1),
        objective=certificate.objective,
        gradient_norm=certificate.gradient_norm,
        certificate=certificate,
        converged=message is Message.CONVERGED,
        message=message,
        iterations=iterations,
        seconds=recorder.seconds(),
        history=recorder.history(),
    )


def _device(device: torch.device | str) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    message = f"device: got {device!r}, expected 'auto', 'cpu' or an available device"
    try:
        found = torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(message) from error
    if found.type == "meta":
        raise ValueError(message)
    return found


class _Variables:
    """The unknowns as one vector: the classifier, unless fixed, then the features scaled by sqrt(pi).

    The scaling makes the features' block as well conditioned for rare targets as for frequent ones.
    """

    def __init__(self, problem: UFM) -> None:
        self.problem = problem
        self.num_features = len(problem.targets)
        self.num_rows = 0 if problem.classifier is not None else problem.targets.num_classes

    def start(self, seed: int) -> Tensor:
        # Drawn on the CPU in float64, so that a seed means the same start on every device and in every dtype.
        generator = torch.Generator().manual_seed(seed)
        rows = torch.randn(self.num_rows, self.problem.dim, generator=generator, dtype=torch.float64)
        features = torch.randn(self.num_features, self.problem.dim, generator=generator, dtype=torch.float64)
        weights = self.problem.targets.weights
        scaled = weights.sqrt().unsqueeze(-1) * features.to(weights)
        return torch.cat([rows.to(weights) / self.problem.dim**0.5, scaled]).reshape(-1)

    def unpack(self, point: Tensor) -> tuple[Tensor, Tensor]:
        rows = point.reshape(-1, self.problem.dim)
        if self.problem.classifier is not None:
            return to_tensor("classifier", self.problem.classifier), rows
        return rows[: self.num_rows], rows[self.num_rows :]

    def evaluation(self, point: Tensor) -> Evaluation:
        return self.problem.evaluate(*self.unpack(point))

    def function(self, point: Tensor) -> tuple[float, Tensor]:
        evaluation = self.evaluation(point)
        gradient = evaluation.feature_gradient
        if self.num_rows:
            gradient = torch.cat([evaluation.classifier_gradient, gradient])
        return evaluation.objective.item(), gradient.reshape(-1)


class _Recorder:
    def __init__(self, problem: UFM, variables: _Variables) -> None:
        self.problem, self.variables = problem, variables
        self.begin = time.perf_counter()
        self.rows: list[tuple[float, ...]] = []

    def seconds(self) -> float:
        return time.perf_counter() - self.begin

    def add(self, iteration: int, state: State) -> Certificate:
        seconds = self.seconds()
        certificate = certify_evaluation(self.problem, self.variables.evaluation(state.point))
        self.rows.append((iteration, seconds, certificate.objective, certificate.gradient_norm, certificate.gap))
        return certificate

    def history(self) -> History:
        return History(*np.array(self.rows).T)
