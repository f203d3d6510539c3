"""Running a torch module without lasting effects on it or on the global random generators."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from ufm._support.tensorfile import bytes_of


@contextmanager
def undisturbed(model: nn.Module, *generators: torch.Generator) -> Iterator[None]:
    """Restore `model`, the global random generators and the given ones after the block, however it ends.

    Parameters
    ----------
    model : nn.Module
        Its parameters and buffers are restored by value and as objects (a forward pass may assign new ones), and so are
        requires_grad and the training flag of every submodule. Parameters and buffers that the block adds are removed.
        A copy of them is held on the CPU meanwhile.
    *generators : torch.Generator
        Of a data loader, for example.

    Yields
    ------
    None
        The global generators are those of Python, of NumPy, and of torch on the CPU and on CUDA.
    """
    modules = [(module, module.training, dict(module._parameters), dict(module._buffers)) for module in model.modules()]
    tensors = {id(x): x for _, _, *held in modules for group in held for x in group.values() if x is not None}
    copies = [(x, x.detach().to("cpu", copy=True), x.requires_grad) for x in tensors.values()]
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    # CUDA is not initialised only to read its generator.
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    states = [(one, one.get_state()) for one in generators]
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
        for one, state in states:
            one.set_state(state)
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
    # An unchanged tensor is not written to: autograd may have saved it for a later backward pass.
    elif not torch.equal(bytes_of(tensor.cpu()), bytes_of(copy)):
        with torch.no_grad():
            tensor.copy_(copy)
