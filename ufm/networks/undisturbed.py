"""A torch module that is run and then found as it was before."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from ufm._support.tensorfile import bytes_of


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Leave `model` and the global random generators after the block, whatever ends it, as they were before.

    Of the model: parameters and buffers, by value and as objects (a forward pass may assign new ones), which of them
    there are, requires_grad, and the training flag of every submodule. Of the generators: Python's, NumPy's, and
    torch's on the CPU and on CUDA. A copy of the model's parameters and buffers is held on the CPU meanwhile.
    """
    modules = [(module, module.training, dict(module._parameters), dict(module._buffers)) for module in model.modules()]
    tensors = {id(x): x for _, _, *held in modules for group in held for x in group.values() if x is not None}
    copies = [(x, x.detach().to("cpu", copy=True), x.requires_grad) for x in tensors.values()]
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    # CUDA is not started for its generator's sake.
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    try:
        yield
    finally:
        for module, training, parameters, buffers in modules:
            module.training = training
            _restore(module._parameters, parameters)
            _restore(module._buffers, buffers)
        for tensor, copy, requires_grad in copies:
            _restore_values(tensor, copy)
            if tensor.requires_grad != requires_grad:
                tensor.requires_grad_(requires_grad)
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        torch.set_rng_state(cpu)
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)


def _restore(group: dict, before: dict) -> None:
    if [(name, id(value)) for name, value in group.items()] != [(name, id(value)) for name, value in before.items()]:
        group.clear()
        group.update(before)


def _restore_values(tensor: Tensor, copy: Tensor) -> None:
    if tensor.shape != copy.shape or tensor.dtype != copy.dtype:
        tensor.data = copy.to(tensor.device)
    # What is the same already stays untouched: autograd may have saved it for a backward pass to come.
    elif not torch.equal(bytes_of(tensor.cpu()), bytes_of(copy)):
        with torch.no_grad():
            tensor.copy_(copy)
