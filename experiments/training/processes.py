"""Training on several processes that torchrun started: each takes its share of every batch."""

import os
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ufm.solvers.reduced import join_processes


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


def join(batch_size: int) -> Processes:
    """Return this process's place: the only one, or one of torchrun's.

    Raises ValueError for a batch that cannot be shared out evenly.
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
    """Return the device called `device`; "auto" takes this process's CUDA GPU if there is one."""
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


def share_statistics(network: nn.Module, device: torch.device) -> None:
    """Let every BatchNorm of the network take its statistics over all processes.

    On the CPU, which torch's SyncBatchNorm does not support, by two sums over the processes that autograd follows.
    """
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d):
                if device.type == "cuda":
                    setattr(parent, name, nn.SyncBatchNorm.convert_sync_batchnorm(child))
                else:
                    child.__class__ = _SharedBatchNorm  # pyright: ignore[reportAttributeAccessIssue]


class _Total(torch.autograd.Function):
    """The sum of a tensor over the processes, whose gradient is the sum of their gradients."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        del ctx
        total = value.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _Total.forward(ctx, *gradients)


def _total(value: Tensor) -> Tensor:
    return _Total.apply(value)  # pyright: ignore[reportReturnType]


class _SharedBatchNorm(nn.modules.batchnorm._BatchNorm):
    def _check_input_dim(self, input: Tensor) -> None:
        del input

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        # Under autocast the input may be in half precision, in which sums over a batch lose most of their digits.
        dtype, input = input.dtype, input.float()
        axes = [0, *range(2, input.ndim)]
        shape = [1, -1, *[1] * (input.ndim - 2)]
        rows = input.numel() // input.shape[1] * dist.get_world_size()
        mean = _total(input.sum(axes)) / rows
        centred = input - mean.view(shape)
        variance = _total(centred.square().sum(axes)) / rows
        with torch.no_grad():
            assert self.running_mean is not None and self.running_var is not None and self.momentum is not None
            assert self.num_batches_tracked is not None
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * rows / (rows - 1), self.momentum)
        normalised = centred * torch.rsqrt(variance + self.eps).view(shape)
        return (normalised * self.weight.view(shape) + self.bias.view(shape)).to(dtype)
