"""One call of a classifier: input, weight, bias and output as the forward pass used them."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

HELP = "pass features= and classifier= (see the documentation of record) for a head that is no such layer"
_FUNCTIONS = (nn.functional.linear, nn.functional.conv1d, nn.functional.conv2d, nn.functional.conv3d)


@dataclass(frozen=True, eq=False)
class HeadCall:
    """One call of a classifier: features (n, d) and logits (n, K), copied, and the W (K, d) and b (K,) that it used."""

    features: Tensor
    logits: Tensor
    weight: Tensor
    bias: Tensor | None


@dataclass(frozen=True, eq=False)
class _Map:
    """What a linear function of torch took and gave."""

    input: Tensor
    weight: Tensor
    bias: Tensor | None
    output: Tensor


class Watch(TorchFunctionMode):
    """Notes every call of a linear function of torch that is made under it."""

    def __init__(self) -> None:
        """Start without calls."""
        super().__init__()
        self.maps: list[_Map] = []

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Call the function, and note it if it is linear."""
        result = func(*args, **(kwargs or {}))
        if func in _FUNCTIONS:
            given = dict(zip(("input", "weight", "bias"), args, strict=False)) | (kwargs or {})
            self.maps.append(_Map(given["input"], given["weight"], given.get("bias"), result))
        return result


def call_of(maps: list[_Map], h: Any, output: Any, module: nn.Module, count: int) -> HeadCall | str:
    """Return a call of a classifier on `count` inputs h; or, in words, why it is none.

    Of the linear functions that were called in it, the last one that gave its output counts. The module's own weight
    and bias are read only if there is none: reading may compute them anew, and change the state that they come from.
    Positions of a convolution are averaged, which a linear map lets one do before it.
    """
    used = next((x for x in reversed(maps) if isinstance(output, Tensor) and _gave(x, output)), None)
    used = used or _Map(h, module.weight, module.bias, output)  # pyright: ignore[reportArgumentType]
    h = used.input
    rows = []
    for name, value in (("features", h), ("logits", output)):
        shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        row = value.flatten(2).mean(2) if isinstance(value, Tensor) and _positions(h, output) else value
        if not isinstance(row, Tensor) or row.ndim != 2 or len(row) != count:
            return f"got {name} of shape {shape}, expected {count} rows of numbers"
        rows.append(row.detach().clone())
    bias = None if used.bias is None else used.bias.detach()
    return HeadCall(rows[0], rows[1], used.weight.detach().flatten(1), bias)


def _gave(used: _Map, output: Tensor) -> bool:
    """Return whether a linear function gave what the module returned, up to a change of dtype."""
    return used.output is output or (
        used.output.shape == output.shape and torch.equal(used.output.to(output.dtype), output)
    )


def _positions(h: Any, output: Any) -> bool:
    """Return whether input and output of a layer have the same positions behind their channels."""
    return isinstance(h, Tensor) and isinstance(output, Tensor) and h.ndim > 3 and h.shape[2:] == output.shape[2:]


def check_linear(call: HeadCall) -> None:
    """Raise ValueError unless a call's logits are W h + b, up to rounding in the coarsest of their dtypes."""
    h, z, w = (x.double() for x in (call.features, call.logits, call.weight))
    expected = h @ w.T + (0 if call.bias is None else call.bias.double())
    coarse = max(torch.finfo(x.dtype).eps for x in (call.features, call.logits, call.weight))
    if not (z - expected).abs().max() <= expected.abs().max() * coarse**0.5:
        raise ValueError(f"classifier: got a layer that does not give W h + b, expected a linear one; {HELP}")
