"""The UFM with its features eliminated, summed over blocks of targets and over processes."""

import atexit
import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

from ufm.solvers.bound import DualSums
from ufm.solvers.elimination import Duals, Gram, linear_response, response
from ufm.solvers.problem import UFM

# Entries per block: on the CPU the working arrays of one block fit in the caches.
_CPU_BLOCK, _GPU_BLOCK = 2**17, 2**26
# Inner iterations between two looks at their figures on a GPU.
_GPU_CHECK_EVERY = 4


@dataclass(frozen=True)
class Reduction:
    """The reduced function at one classifier and bias.

    Attributes
    ----------
    gram : Gram
        What the targets responded to.
    value : float
        The expected loss and feature penalty.
    second_moment : (K, K) tensor
        sum_j pi_j a_j a_j^T: minus twice the derivative of the value in M, over lambda_H.
    mean : (K,) tensor
        sum_j pi_j a_j: minus the derivative in the bias, over lambda_H.
    feature_residual : float
        As in `Certificate`.
    duals : list of Duals, optional
        The blocks' responses, where they are stored.
    tolerance : float
        What was asked for, on the norm of each target's gradient.
    """

    gram: Gram
    value: float
    second_moment: Float[Tensor, "K K"]
    mean: Float[Tensor, "K"]
    feature_residual: float
    duals: list[Duals] | None
    tolerance: float


class Reduced:
    """The reduced function of a problem, or of a subset of its targets in the place of all."""

    def __init__(self, problem: UFM, *, store: bool, distributed: bool, rows: Tensor | None = None) -> None:
        """Hold the problem and the blocks of its targets.

        Parameters
        ----------
        problem : UFM
            With free features.
        store : bool
            Whether to keep the targets' responses.
        distributed : bool
            Whether the targets are shared out among the processes; each holds its share.
        rows : (n,) int tensor, optional
            The targets of a subset; by default all.
        """
        self.problem, self.store, self.distributed = problem, store, distributed
        weights = problem.targets.weights
        cuda = weights.device.type == "cuda"
        self.check_every = _GPU_CHECK_EVERY if cuda else 1
        total = len(weights) if rows is None else len(rows)
        rank, processes = (dist.get_rank(), dist.get_world_size()) if distributed else (0, 1)
        first, last = rank * total // processes, (rank + 1) * total // processes
        length = max(1, (_GPU_BLOCK if cuda else _CPU_BLOCK) // problem.targets.num_classes)
        slices = [slice(i, min(last, i + length)) for i in range(first, last, length)]
        self.blocks = slices if rows is None else [rows[block] for block in slices]
        self.share = 1.0 if rows is None else weights[rows].sum().item()

    def _blocks(self) -> Iterator[tuple[int, Tensor, Tensor]]:
        for i, rows in enumerate(self.blocks):
            labels, weights = self.problem.targets.block(rows)
            yield i, labels, weights / self.share

    def gram(self, factor: Float[Tensor, "K k"], bias: Float[Tensor, "K"] | None) -> Gram:
        """Return what the targets respond to, for the Gram matrix L L^T of a factor L."""
        problem = self.problem
        offset = factor.new_zeros(len(factor)) if bias is None else bias + problem.offset
        return Gram(factor @ factor.T, offset, problem.feature_decay, problem.loss_function, self.check_every)

    def first_duals(self, gram: Gram, labels: Float[Tensor, "n K"]) -> Float[Tensor, "n K"]:
        """Return the duals (n, K) to start from: for a simplex ETF without bias, those of the loss's closed form."""
        scale = gram.scale.clamp(min=torch.finfo(labels.dtype).tiny)
        return gram.loss.first_logits(labels, scale / gram.feature_decay) / scale

    def respond(
        self, gram: Gram, tolerance: float, near: list[Duals] | None = None
    ) -> Iterator[tuple[Tensor, Tensor, Duals]]:
        """Yield labels, weights and responses, block by block, starting from the responses `near` where given."""
        for i, labels, weights in self._blocks():
            start = self.first_duals(gram, labels) if near is None else near[i].dual
            yield labels, weights, response(gram, labels, start, tolerance)

    def evaluate(self, gram: Gram, tolerance: float, near: list[Duals] | None = None) -> Reduction:
        """Return the reduced function, its features optimal up to a feature residual of `tolerance` or rounding."""
        K = len(gram.matrix)
        total = gram.matrix.new_zeros(K * K + K + 2)
        second_moment, mean, figures = total[: K * K].view(K, K), total[K * K : -2], total[-2:]
        duals = []
        for labels, weights, found in self.respond(gram, tolerance, near):
            weighted = weights.unsqueeze(-1) * found.dual
            second_moment.addmm_(weighted.T, found.dual)
            mean += weighted.sum(0)
            # ||h||^2 = a^T M a, and M a is the logits less their offset.
            penalty = gram.feature_decay / 2 * (weighted * (found.logits - gram.offset)).sum()
            figures[0] += weights @ gram.loss.value(found.logits, labels) + penalty
            figures[1] += weights @ found.squared_residual
            if self.store:
                duals.append(found)
        self._sum(total)
        value, squares = figures.tolist()
        stored = duals if self.store else None
        return Reduction(gram, value, second_moment, mean, math.sqrt(max(squares, 0.0)), stored, tolerance)

    def product(self, at: Reduction, direction: Tensor, bias: Tensor, tolerance: float) -> tuple[Tensor, Tensor]:
        """Return the derivatives of second moment (K, K) and mean (K,) along a direction.

        Parameters
        ----------
        at : Reduction
            Where.
        direction : (K, K) tensor
            The change of M.
        bias : (K,) tensor
            The change of the bias.
        tolerance : float
            Relative accuracy of each target's linear response.
        """
        gram = at.gram
        K = len(gram.matrix)
        total = gram.matrix.new_zeros(K * K + K)
        moment, mean = total[: K * K].view(K, K), total[K * K :]
        for _, weights, found in self._responses(at):
            curvature = gram.loss.curvature(found.prediction)
            right = -torch.addmm(bias, found.dual, direction)
            size = (curvature.apply(right) * curvature.resolvent(gram.feature_decay, gram.scale)(right)).sum(-1, True)
            change = linear_response(gram, curvature, right, tolerance**2 * size)
            weighted = weights.unsqueeze(-1) * change
            moment.addmm_(weighted.T, found.dual)
            mean += weighted.sum(0)
        self._sum(total)
        return moment + moment.T, mean

    def _responses(self, at: Reduction) -> Iterator[tuple[Tensor, Tensor, Duals]]:
        if at.duals is None:
            yield from self.respond(at.gram, at.tolerance)
        else:
            for i, labels, weights in self._blocks():
                yield labels, weights, at.duals[i]

    def bound(self, at: Reduction) -> float:
        """Return the certificate's lower bound on F, from one pass over the targets; minus infinity if none is known.

        Notes
        -----
        `certify` looks at the targets again once it knows t and how a mean residual is taken away. Here one pass has to
        do, so that a lower bound takes the place of the dual value, and an upper one that of the norms:

        - The mean dual value D is concave in t, so that D(t) >= t D(1) + (1 - t) D(0).
        - `Loss.restoration` bounds the length of what it mixes in; the triangle inequality then bounds the norms.

        At an optimum t = 1 and the share is 0, and nothing is lost.
        """
        sums = DualSums(self.problem, at.gram.matrix.device)
        for labels, weights, found in self._responses(at):
            sums.add(found.prediction - labels, labels, weights)
        if self.distributed:
            sums.reduce(self._sum)
        bound = sums.total()
        return -math.inf if bound is None else bound.value((self.problem.weight_decay, self.problem.feature_decay))

    def _sum(self, tensor: Tensor) -> None:
        """Add up over the processes, in place: the one communication of an evaluation."""
        if self.distributed:
            try:
                dist.all_reduce(tensor)
            except RuntimeError as error:
                raise RuntimeError(
                    f"process {dist.get_rank()} of {dist.get_world_size()}: {error}: most likely another process of "
                    "the solve has ended or cannot be reached; start all of them again"
                ) from error

    def agreed(self, tensor: Tensor) -> Tensor:
        """Return the first process's values, so that a difference of rounding or seed cannot part the processes."""
        if self.distributed:
            tensor = tensor.clone()
            dist.broadcast(tensor, 0)
        return tensor


def is_first_process() -> bool:
    """Return whether this process is the only or the first one of a distributed solve."""
    return not dist.is_initialized() or dist.get_rank() == 0


def join_processes(timeout: float = 300.0) -> int:
    """Join the processes that torchrun started, once, and return this one's rank: by NCCL on GPUs, else by gloo.

    Parameters
    ----------
    timeout : float
        Seconds after which a process that waits for another gives up.

    Returns
    -------
    int
        The rank of this process.

    Raises
    ------
    ValueError
        Where the process was not started by torchrun.
    """
    if not dist.is_torchelastic_launched() and not dist.is_initialized():
        raise ValueError("distributed: got True in a process of its own, expected one that torchrun started")
    if not dist.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, timeout=timedelta(seconds=timeout))
        # A group that outlives the interpreter may abort its process at the very end.
        atexit.register(_leave_processes)
    return dist.get_rank()


def check_same(name: str, text: str, device: torch.device) -> None:
    """Raise ValueError, in every process, unless all processes have the same text; `name` says what it describes."""
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:7])
    own = torch.tensor(number, device=device)
    first = own.clone()
    dist.broadcast(first, 0)
    different = (first != own).long()
    dist.all_reduce(different)
    if different.item():
        raise ValueError(f"{name}: got others in another process, expected the same in each; start all of them again")


def _leave_processes() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
