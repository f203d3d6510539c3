"""Running a torch module without lasting effects on it or on the global random generators."""

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from ufm._support.tensorfile import bytes_of


class Snapshot:
    """Copies of tensors, to which these are set back.

    Parameters
    ----------
    tensors : iterable of pairs (str, tensor)
        Each with its name, for the error message.

    Raises
    ------
    ValueError
        For a tensor that cannot be copied.

    Notes
    -----
    Ordinary tensors are compared by their bytes, copies of them being held on the CPU. Others (sparse, nested,
    quantised, subclasses) have no such bytes: they are written to only if torch counts a change.
    """

    def __init__(self, tensors: Iterable[tuple[str, Tensor]]) -> None:
        """Copy the tensors."""
        self._ordinary: list[tuple[Tensor, Tensor]] = []
        self._others: list[tuple[Tensor, Tensor, int]] = []
        for name, x in tensors:
            if _is_ordinary(x):
                self._ordinary.append((x, x.detach().to("cpu", copy=True)))
            elif not (x.is_meta or x.is_inference()):
                try:
                    self._others.append((x, x.detach().clone(), x._version))
                except (RuntimeError, TypeError) as error:
                    kind = f"{type(x).__name__} of layout {x.layout}"
                    raise ValueError(f"model: got {name} as a {kind}, expected one that can be copied") from error

    @torch.no_grad()
    def restore(self) -> None:
        """Set the tensors back; one that is as it was is not written to."""
        for tensor, copy in self._ordinary:
            if tensor.shape != copy.shape or tensor.dtype != copy.dtype:
                tensor.data = copy.to(tensor.device)
            # An unchanged tensor is not written to: autograd may have saved it for a later backward pass.
            elif not torch.equal(bytes_of(tensor.cpu()), bytes_of(copy)):
                tensor.copy_(copy)
        for tensor, copy, version in self._others:
            if tensor._version != version:
                tensor.copy_(copy)


def _is_ordinary(tensor: Tensor) -> bool:
    plain = type(tensor) in (Tensor, nn.Parameter) and tensor.layout == torch.strided
    return plain and not (tensor.is_quantized or tensor.is_nested or tensor.is_meta)


@contextmanager
def undisturbed(model: nn.Module, *generators: torch.Generator) -> Iterator[None]:
    """Restore `model`, the global random generators and the given ones after the block, however it ends.

    Parameters
    ----------
    model : nn.Module
        Its parameters, buffers and other tensors that are attributes of a submodule are restored by value and as
        objects (a forward pass may assign new ones), and so are requires_grad and the training flag of every submodule.
        Parameters and buffers that the block adds are removed. A copy of them is held on the CPU meanwhile.
    *generators : torch.Generator
        Of a data loader, for example.

    Yields
    ------
    None
        The global generators are those of Python, of NumPy, and of torch on the CPU and on CUDA.

    Raises
    ------
    ValueError
        For a model with a tensor that cannot be copied.
    """
    modules = [
        (module, module.training, dict(module._parameters), dict(module._buffers), _attributes(module))
        for module in model.modules()
    ]
    groups = [group for _, _, *held in modules for group in held]
    tensors = {id(x): (name, x) for group in groups for name, x in group.items() if x is not None}
    snapshot = Snapshot(tensors.values())
    gradients = [(x, x.requires_grad) for _, x in tensors.values()]
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    # CUDA is not initialised only to read its generator.
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    states = [(one, one.get_state()) for one in generators]
    try:
        yield
    finally:
        for module, training, parameters, buffers, attributes in modules:
            module.training = training
            _restore(module._parameters, parameters)
            _restore(module._buffers, buffers)
            vars(module).update(attributes)
        snapshot.restore()
        for tensor, requires_grad in gradients:
            if tensor.requires_grad != requires_grad:
                tensor.requires_grad_(requires_grad)
        for one, state in states:
            one.set_state(state)
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        torch.set_rng_state(cpu)
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)


def _attributes(module: nn.Module) -> dict[str, Tensor]:
    """Return the tensors that are neither parameters nor buffers, as the weight under a hook that computes it."""
    return {name: value for name, value in vars(module).items() if isinstance(value, Tensor)}


def _restore(group: dict, before: dict) -> None:
    if [(name, id(value)) for name, value in group.items()] != [(name, id(value)) for name, value in before.items()]:
        group.clear()
        group.update(before)
