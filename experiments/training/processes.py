"""Training on several processes that torchrun started: each takes its share of every batch."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

# Differentiable, unlike that of torch.distributed; torch has deprecated its namesake in torch.distributed.nn for this.
from torch.distributed._functional_collectives import all_reduce

from ufm.solvers.reduced import check_same, join_processes


@dataclass(frozen=True)
class Processes:
    """This process's place among those that train together."""

    rank: int = 0
    count: int = 1

    def share(self, batch_size: int) -> slice:
        """Return this process's rows of a batch."""
        each = batch_size // self.count
        return slice(self.rank * each, (self.rank + 1) * each)

    def total(self, value: float) -> float:
        """Return the sum of a number over the processes."""
        if self.count == 1:
            return value
        tensor = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(tensor)
        return tensor.item()

    def check_same(self, arguments: str, device: torch.device) -> None:
        """Raise ValueError, in every process, unless all have the same arguments."""
        if self.count > 1:
            check_same("arguments", arguments, device)

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Say, of an error in the communication of several processes, what is most likely behind it."""
        try:
            yield
        except RuntimeError as error:
            if self.count == 1 or not any(word in str(error) for word in ("gloo", "NCCL", "peer", "socket")):
                raise
            raise RuntimeError(
                f"process {self.rank} of {self.count}: most likely another process has ended or cannot be reached; the "
                f"same command goes on from the last epoch ({error})"
            ) from error


def join(batch_size: int) -> Processes:
    """Return this process's place: the only one, or one of those that torchrun started.

    Parameters
    ----------
    batch_size : int
        Rows of a batch, which the processes share.

    Returns
    -------
    Processes
        Rank and number of processes; the process group is initialised if there are several.

    Raises
    ------
    ValueError
        If the batch cannot be shared evenly.
    """
    if not dist.is_torchelastic_launched():
        return Processes()
    # Longer than the measures of an epoch and the writing of a checkpoint, for which the other processes wait.
    rank = join_processes(timeout=1800.0)
    count = dist.get_world_size()
    if batch_size % count:
        raise ValueError(f"batch_size: got {batch_size} for {count} processes, expected a multiple of their number")
    return Processes(rank, count)


def local_device(device: str) -> torch.device:
    """Return the device of this process.

    Parameters
    ----------
    device : str
        "cpu", "cuda" for this process's own GPU, or "auto" for that GPU if there is one and the CPU otherwise.

    Returns
    -------
    torch.device
        The CPU, or the GPU whose number is the process's local rank.

    Raises
    ------
    ValueError
        For another name, for "cuda" without a GPU, or for fewer GPUs than processes on this machine.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        if not torch.cuda.is_available():
            raise ValueError("device: got 'cuda' without a CUDA GPU, expected cpu or auto")
        rank, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if rank >= count:
            raise ValueError(f"device: got {count} CUDA GPUs for process {rank} of this machine, expected one each")
        torch.cuda.set_device(rank)
        return torch.device("cuda", rank)
    if device != "cpu":
        raise ValueError(f"device: got {device!r}, expected auto, cpu or cuda")
    return torch.device("cpu")


def device_name(device: torch.device) -> str:
    """Return the GPU's name, or cpu."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def share_statistics(network: nn.Module, device: torch.device) -> None:
    """Replace every BatchNorm of the network by one whose statistics are those of all processes.

    The parameters and buffers stay the same tensors under the same names. On CUDA the replacement is torch's
    SyncBatchNorm; the CPU, which that does not support, has one of its own.

    Parameters
    ----------
    network : Module
        Changed in place. Must not be a BatchNorm itself.
    device : torch.device
        Where the network is trained.
    """
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d):
                shared = nn.SyncBatchNorm.convert_sync_batchnorm if device.type == "cuda" else _SharedBatchNorm.of
                setattr(parent, name, shared(child))


class _SharedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """BatchNorm over all processes on the CPU: autograd follows the two sums that they exchange."""

    @classmethod
    def of(cls, norm: nn.BatchNorm1d | nn.BatchNorm2d) -> "_SharedBatchNorm":
        """Return a shared norm with the settings, parameters and buffers of `norm`."""
        shared = cls(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        shared.load_state_dict(norm.state_dict(keep_vars=True), assign=True)
        return shared.train(norm.training)

    def _check_input_dim(self, input: Tensor) -> None:
        """Accept inputs of any dimension."""
        del input

    def forward(self, input: Tensor) -> Tensor:
        """Normalise by the statistics of all processes' inputs in training mode, by the running ones otherwise."""
        if not self.training:
            return super().forward(input)
        # Under autocast the input may be in half precision, in which sums over a batch lose most of their digits.
        dtype, input = input.dtype, input.float()
        axes = [0, *range(2, input.ndim)]
        shape = [1, -1, *[1] * (input.ndim - 2)]
        everyone = dist.group.WORLD
        assert everyone is not None
        rows = input.numel() // input.shape[1] * dist.get_world_size()
        mean = all_reduce(input.sum(axes), "sum", everyone) / rows
        centred = input - mean.view(shape)
        variance = all_reduce(centred.square().sum(axes), "sum", everyone) / rows
        with torch.no_grad():
            assert self.running_mean is not None and self.running_var is not None and self.momentum is not None
            assert self.num_batches_tracked is not None
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * rows / (rows - 1), self.momentum)
        normalised = centred * torch.rsqrt(variance + self.eps).view(shape)
        return (normalised * self.weight.view(shape) + self.bias.view(shape)).to(dtype)
