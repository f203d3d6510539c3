"""A classifier given as arrays, for models whose head is no linear layer."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ufm._support.arrays import Array, check_choice, check_finite
from ufm.networks.activations import floats
from ufm.networks.heads import agrees, copied, difference, outputs_of


class ArrayHead:
    """A classifier given as arrays, for features that are a layer's output or a function of the inputs.

    Parameters
    ----------
    model : nn.Module
        The model.
    features : str or callable
        Name of the module whose output is h, or a function from the inputs of a batch to h (n, d).
    classifier : (K, d) array or callable
        W, or a function without arguments that returns it.
    bias : (K,) array, optional
        b.
    """

    def __init__(
        self,
        model: nn.Module,
        features: str | Callable[[Any], Tensor],
        classifier: Float[Array, "K d"] | Callable[[], Tensor],
        bias: Float[Array, "K"] | None = None,
    ) -> None:
        """Read W and b; raise ValueError for what is none."""
        if isinstance(features, str):
            modules = dict(model.named_modules(remove_duplicate=False))
            check_choice("features", features, tuple(modules))
            self._module = modules[features]
        elif not callable(features):
            raise ValueError(f"features: got {type(features).__name__}, expected the name of a module or a function")
        self._features = features
        with torch.no_grad():
            w = floats("classifier", classifier() if callable(classifier) else classifier, 2)
        b = None if bias is None else floats("bias", bias, 1)
        if b is not None and len(b) != len(w):
            raise ValueError(f"bias: got shape {tuple(b.shape)}, expected {(len(w),)}")
        self._weights = {"classifier": w.clone()} | ({} if b is None else {"bias": b.clone()})
        self._outputs: list[Any] = []
        self._count = 0
        self._hooks = ExitStack()

    def __enter__(self) -> "ArrayHead":
        """Place the hook, if features are a module's output."""
        if isinstance(self._features, str):
            self._hooks.callback(
                self._module.register_forward_hook(lambda _m, _i, output: self._outputs.append(output)).remove
            )
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the hooks."""
        self._hooks.close()

    def start(self, count: int) -> None:
        """Prepare for a forward pass over `count` inputs."""
        self._count = count
        self._outputs.clear()

    def finish(self, inputs: Any, returned: Any) -> dict[str, Tensor]:
        """Return features and logits of the pass; raise ValueError if the model returns other logits."""
        if isinstance(self._features, str):
            if len(self._outputs) != 1:
                times = len(self._outputs)
                raise ValueError(f"features: got a layer called {times} times, expected one called once per batch")
            h = self._outputs[0]
        else:
            h = self._features(inputs)
        w, b = self._weights["classifier"], self._weights.get("bias")
        if not isinstance(h, Tensor) or h.ndim < 2 or len(h) != self._count or h[0].numel() != w.shape[1]:
            shape = tuple(h.shape) if isinstance(h, Tensor) else type(h).__name__
            raise ValueError(
                f"features: got {shape}, expected {(self._count, w.shape[1])} as the classifier has columns"
            )
        h = h.detach().flatten(1)
        rows = copied("features", h)
        check_finite("features", rows)
        z = rows.to(w.dtype) @ w.T + (0 if b is None else b)
        alike = [x.cpu() for x in outputs_of(returned, self._count) if x.shape == z.shape]
        # Computed again from parts that may have been rounded to half precision on the way.
        narrow = z.to(h.dtype)
        if alike and not any(agrees(narrow, x) for x in alike):
            error = min(difference(z, x) for x in alike)
            raise ValueError(
                f"features, classifier: got W h + b that differs from what the model returns by {error:.2g} of its "
                "size, expected its logits: is a scale, a normalisation or a bias missing?"
            )
        return {"features": rows, "logits": z.to(rows.dtype)}

    def weights(self) -> dict[str, Tensor]:
        """Return W, and b if there is one, by name."""
        return self._weights
