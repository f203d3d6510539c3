"""Recording of any torch model's activations on mixed inputs by hooks, to memory or batch by batch to a file."""

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.nn.parameter import is_lazy

from ufm._support.arrays import check_choice, check_finite, check_integer
from ufm._support.pairs import read_pairs
from ufm._support.tensorfile import Rows, stored_dtype
from ufm._support.version import VERSION
from ufm.networks.activations import (
    Activations,
    MixedBatch,
    check_description,
    load,
    write_activations,
)
from ufm.networks.undisturbed import undisturbed

# Keys of the description that `record` fills in.
_OWN_KEYS = ("mode", "samples", "layers", "pool", "torch", "ufm")


def record(
    model: nn.Module,
    batches: Iterable[MixedBatch],
    *,
    classifier: str | nn.Linear | None = None,
    layers: Sequence[str] = (),
    pool: bool = False,
    train_mode: bool = False,
    max_samples: int | None = None,
    out: str | Path | None = None,
    description: dict[str, str] | None = None,
) -> Activations:
    """Run a model on mixed batches and return the activations of its classifier and of named layers.

    Parameters
    ----------
    model : nn.Module
        Any module. It is called on each batch without gradients (see `MixedBatch`). A compiled model runs uncompiled,
        because hooks need it; the model inside a DataParallel or DistributedDataParallel runs on its own.
    batches : iterable of MixedBatch
        Mixed inputs. They are moved to the model's device if all its parameters are on one device.
    classifier : str or nn.Linear, optional
        The last linear layer z = W h + b, or its name; by default the last nn.Linear among the submodules.
    layers : sequence of str
        Names of further submodules whose outputs are recorded. Of a tuple the first element is taken. Half precision
        is widened to float32, and outputs are flattened to one row per input.
    pool : bool
        Average outputs (n, C, H, W) over H and W, and outputs (n, T, C) over the tokens T, instead of flattening them.
    train_mode : bool
        Run in training mode (batch statistics in BatchNorm, active dropout) instead of evaluation mode.
    max_samples : int, optional
        Stop after this many rows. The last batch runs whole and is cut afterwards.
    out : str or Path, optional
        Write the rows to this safetensors file as they come, and return activations mapped from it. Memory then holds
        one batch and a copy of the model's state, however many batches there are; while recording, the folder needs up
        to twice the space of the file. If recording fails, a file that was there before is left unchanged.
    description : dict of str, optional
        Text to store with the activations. Mode, number of samples, layers, pooling and versions are added.

    Returns
    -------
    Activations
        One row per input.

    Raises
    ------
    ValueError
        For an unknown name, a classifier that is not linear, a layer that is not called exactly once per batch or does
        not give a tensor with one row per input, batches that do not fit, features or logits that are not finite, or no
        batch at all.

    Notes
    -----
    The model is left as it was: parameters, buffers (BatchNorm's running statistics too), requires_grad, the training
    flag of every submodule and hooks. So are the global random generators.

    Outputs (T, n, C) with the batch in second place are refused unless T = n, which cannot be told from (n, T, C).

    Examples
    --------
    >>> import torch
    >>> import ufm
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.ReLU(), torch.nn.Linear(5, 3))
    >>> batch = ufm.MixedBatch(torch.ones(2, 4), torch.tensor([0, 1]), torch.tensor([2, 1]), torch.tensor([0.3, 1.0]))
    >>> activations = ufm.record(model, [batch], layers=["1"])
    >>> tuple(activations.features.shape), tuple(activations.logits.shape)
    ((2, 5), (2, 3))
    >>> bool((activations.layers["1"] == activations.features).all())
    True
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    if isinstance(layers, str):
        raise ValueError(f"layers: got the string {layers!r}, expected a sequence of names")
    for name in layers:
        check_choice("layers", name, tuple(modules))
    description = {} if description is None else description
    check_description(description)
    if taken := [key for key in _OWN_KEYS if key in description]:
        raise ValueError(f"description: got the key {taken[0]!r}, which is filled in here, expected other keys")
    left = None if max_samples is None else check_integer("max_samples", max_samples, minimum=1)
    if any(map(is_lazy, (*model.parameters(), *model.buffers()))):
        raise ValueError("model: got lazy layers without shapes, expected a model that has run once")
    head = _find_classifier(model, classifier)
    folder = None if out is None else _folder_of(out)
    with ExitStack() as files:

        def column(name: str) -> Rows:
            return files.enter_context(closing(Rows(name, folder)))

        columns = {name: column(name) for name in ("features", "logits", "class_a", "class_b", "lam")}
        outputs = {name: column(name) for name in layers}
        with (
            undisturbed(model),
            _uncompiled(),
            torch.no_grad(),
            _Watch(head, {x: modules[x] for x in outputs}) as watch,
        ):
            model.train(train_mode)
            runner = _Runner(model)
            num_classes = len(head.weight)
            for batch in batches:
                count, labels = _read(batch)
                watch.start(count, pool)
                runner(batch.inputs)
                watch.finish()
                pairs = read_pairs(labels["class_a"], labels["class_b"], labels["lam"], count, num_classes)
                labels |= {"class_a": pairs.class_a.long(), "class_b": pairs.class_b.long()}
                keep = count if left is None else min(count, left)
                for name, rows in columns.items():
                    rows.append((labels | watch.head)[name][:keep])
                for name, rows in outputs.items():
                    rows.append(watch.outputs[name][:keep])
                left = None if left is None else left - keep
                if left == 0:
                    break
            weights = {"classifier": head.weight, "bias": head.bias}
            weights = {name: None if x is None else _copied(name, x) for name, x in weights.items()}
        samples = columns["lam"].shape[0]
        if not samples:
            raise ValueError("batches: got none, expected at least one MixedBatch")
        description = description | {
            "mode": "train" if train_mode else "eval",
            "samples": str(samples),
            "layers": json.dumps(list(outputs)),
            "pool": json.dumps(pool),
            "torch": torch.__version__,
            "ufm": VERSION,
        }
        if out is None:
            arrays = {name: rows.tensor() for name, rows in columns.items()} | weights
            recorded = {name: rows.tensor() for name, rows in outputs.items()}
            return Activations(**arrays, layers=recorded, description=description)  # pyright: ignore[reportArgumentType]
        write_activations(out, columns | weights, outputs, description)
    return load(out)


class _Runner:
    """A model that is called with the inputs of a batch, on the model's device."""

    def __init__(self, model: nn.Module) -> None:
        # The wrapper would split the batch over devices or wait for other processes.
        self._model = model.module if isinstance(model, DataParallel | DistributedDataParallel) else model
        devices = {parameter.device for parameter in model.parameters()}
        self._device = devices.pop() if len(devices) == 1 else None

    def __call__(self, inputs: Any) -> None:
        inputs = inputs if self._device is None else _moved(inputs, self._device)
        if isinstance(inputs, Tensor):
            self._model(inputs)
        elif isinstance(inputs, tuple):
            self._model(*inputs)
        else:
            self._model(**inputs)


class _Watch:
    """Outputs of classifier and layers in one forward pass, copied before the pass can change them in place."""

    def __init__(self, head: nn.Linear, layers: dict[str, nn.Module]) -> None:
        self.head: dict[str, Tensor] = {}
        self.outputs: dict[str, Tensor] = {}
        self._module, self._layers = head, layers
        self._calls: Counter[str | None] = Counter()  # the key None stands for the classifier
        self._count, self._pool, self._linear = 0, False, False
        self._hooks = ExitStack()

    def __enter__(self) -> "_Watch":
        try:
            self._hooks.callback(self._module.register_forward_hook(self._on_head, with_kwargs=True).remove)
            for name, module in self._layers.items():
                self._hooks.callback(module.register_forward_hook(self._on_layer(name)).remove)
        except BaseException:
            self._hooks.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._hooks.close()

    def start(self, count: int, pool: bool) -> None:
        """Prepare for a forward pass over `count` inputs."""
        self._count, self._pool = count, pool
        self._calls.clear()

    def finish(self) -> None:
        """Raise ValueError unless the pass called the classifier and each layer once."""
        for name in (None, *self._layers):
            if self._calls[name] != 1:
                shown, times = "classifier" if name is None else name, self._calls[name]
                raise ValueError(f"{shown}: got a layer called {times} times, expected one called once per batch")

    def _on_head(self, module: nn.Linear, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        self._calls[None] += 1
        h = args[0] if args else kwargs["input"]
        for name, value in (("features", h), ("logits", output)):
            shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            if not isinstance(value, Tensor) or value.ndim != 2 or len(value) != self._count:
                raise ValueError(f"classifier: got {name} of shape {shape}, expected {self._count} rows of numbers")
            self.head[name] = _copied(name, value)
            check_finite(name, self.head[name])
        if not self._linear:
            expected = nn.functional.linear(h, module.weight, module.bias)
            error, scale = (output - expected).abs().max(), expected.abs().max()
            if not error <= scale * torch.finfo(output.dtype).eps ** 0.5:
                raise ValueError("classifier: got a layer that does not give W h + b, expected a linear one")
            self._linear = True

    def _on_layer(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_module: nn.Module, _args: Any, output: Any) -> None:
            self._calls[name] += 1
            self.outputs[name] = _rows_of(name, output, self._count, self._pool)

        return hook


def _rows_of(name: str, output: Any, count: int, pool: bool) -> Tensor:
    """Return a copy of the output of the layer `name` as `count` rows, on the CPU."""
    value = output[0] if isinstance(output, tuple) and output else output
    if not isinstance(value, Tensor) or value.is_nested or value.layout != torch.strided:
        raise ValueError(
            f"{name}: got an output of type {type(output).__name__}, expected a tensor or a tuple with one"
        )
    if value.ndim == 0 or len(value) != count:
        raise ValueError(f"{name}: got an output of shape {tuple(value.shape)}, expected {count} rows, one per input")
    if pool and value.ndim in (3, 4):
        dtype = stored_dtype(name, value.dtype) if value.is_floating_point() else torch.float64
        value = value.mean(1 if value.ndim == 3 else (2, 3), dtype=dtype)
    return _copied(name, value.reshape(count, -1))


def _copied(name: str, value: Tensor) -> Tensor:
    return value.detach().to("cpu", stored_dtype(name, value.dtype), copy=True)


def _read(batch: MixedBatch) -> tuple[int, dict[str, Tensor]]:
    """Return the number of inputs of a batch and a copy of its labels; raise ValueError if it has none."""
    if not isinstance(batch, MixedBatch):
        raise ValueError(f"batches: got {type(batch).__name__}, expected a MixedBatch")
    inputs = batch.inputs
    parts = inputs if isinstance(inputs, tuple) else inputs.values() if isinstance(inputs, Mapping) else (inputs,)
    first = next((part for part in parts if isinstance(part, Tensor)), None)
    if isinstance(inputs, Mapping) and not all(isinstance(key, str) for key in inputs):
        raise ValueError(f"inputs: got the keys {list(inputs)}, expected strings")
    if first is None or first.ndim == 0 or not len(first):
        raise ValueError(
            f"inputs: got {type(inputs).__name__}, expected a tensor, or tuple or mapping with one, with rows"
        )
    # Copied, because a loader may write its next batch into the same memory.
    return len(first), {name: _label(batch, name) for name in ("class_a", "class_b", "lam")}


def _label(batch: MixedBatch, name: str) -> Tensor:
    value = getattr(batch, name)
    if not isinstance(value, Tensor):
        raise ValueError(f"{name}: got {type(value).__name__}, expected a tensor")
    return _copied(name, value)


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if type(value) in (tuple, list):
        return type(value)(_moved(part, device) for part in value)
    if isinstance(value, Mapping):
        return {key: _moved(part, device) for key, part in value.items()}
    return value


def _uncompiled() -> AbstractContextManager[None]:
    """Run compiled code uncompiled: it was compiled without the hooks and would bypass them."""
    # If anything was compiled, the compiler is loaded already; otherwise there is no need to spend a second on it.
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


def _folder_of(out: str | Path) -> Path:
    """Return the folder of `out`, created if necessary; raise ValueError if `out` cannot be a file."""
    try:
        Path(out).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"out: got {str(out)!r}, whose folder cannot be made ({error.strerror})") from error
    if Path(out).is_dir():
        raise ValueError(f"out: got {str(out)!r}, which is a folder, expected the path of a file")
    return Path(out).parent


def _find_classifier(model: nn.Module, classifier: str | nn.Linear | None) -> nn.Linear:
    if isinstance(classifier, nn.Linear):
        return classifier
    linear = {name: x for name, x in model.named_modules(remove_duplicate=False) if isinstance(x, nn.Linear)}
    if not linear:
        raise ValueError("model: got a model without any nn.Linear, expected one as its classifier")
    if classifier is None:
        return list(linear.values())[-1]
    check_choice("classifier", classifier, tuple(linear))
    return linear[classifier]
