"""Recording of any torch model's activations on mixed inputs by hooks, to memory or batch by batch to a file."""

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.nn.parameter import is_lazy

from ufm._support.arrays import Array, check_choice, check_integer, check_kind
from ufm._support.files import check_target, make_folder
from ufm._support.progress import long_work
from ufm._support.tensorfile import Rows, stored_dtype, write_tensors
from ufm._support.version import VERSION
from ufm.networks.activations import (
    Activations,
    check_description,
    columns_of,
    file_content,
)
from ufm.networks.array_head import ArrayHead
from ufm.networks.batches import check_labels_of, read_batch
from ufm.networks.files import load
from ufm.networks.heads import ModuleHead, copied
from ufm.networks.undisturbed import undisturbed

# Keys of the description that `record` fills in.
_OWN_KEYS = ("mode", "samples", "layers", "pool", "torch", "ufm", "ended")


def record(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    classifier: str | nn.Module | Array | Callable[[], Tensor] | None = None,
    bias: Float[Array, "K"] | None = None,
    features: str | Callable[[Any], Tensor] | None = None,
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
    batches : iterable
        Of pairs (inputs, labels) as a data loader with mixup, CutMix or label smoothing yields them: labels (n, K), or
        classes (n,) for inputs that are not mixed; of mappings with the key "labels" and the model's named inputs; or
        of `MixedBatch`. Inputs are moved to the model's device if all its parameters are on one device.
    classifier : str, nn.Module, array or callable, optional
        The last linear layer z = W h + b, an nn.Linear or a 1 x 1 convolution, or its name; by default the one whose
        output the model returns. With `features` W itself (K, d), or a function that returns it.
    bias : (K,) array, optional
        b, with `features`.
    features : str or callable, optional
        For a head that is no such layer: the name of the module whose output is h, or a function from a batch's inputs
        to h (n, d). Then W h + b must be what the model returns.
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
        to twice the space of the file. If recording fails or is interrupted, a file that was there before is left
        unchanged, and the rows so far are in ``partial-<name>`` beside it, which `load` reads.
    description : dict of str, optional
        Text to store with the activations. Mode, number of samples, layers, pooling and versions are added.

    Returns
    -------
    Activations
        One row per input.

    Raises
    ------
    ValueError
        For an unknown name, a classifier that is not linear or whose output is not what the model returns, a layer that
        is not called exactly once per batch or does not give a tensor with one row per input, batches that do not fit,
        features or logits that are not finite, or no batch at all.

    Notes
    -----
    The model is left as it was: parameters, buffers (BatchNorm's running statistics too), requires_grad, the training
    flag of every submodule and hooks. So are the global random generators, and a DataLoader's own.

    A model that returns its logits, alone, in a tuple, by the name "logits", or as (log-)probabilities, has its head
    told by them, in every batch. A convolution's positions are averaged.

    Outputs (T, n, C) with the batch in second place are refused unless T = n, which cannot be told from (n, T, C).

    Examples
    --------
    >>> import torch
    >>> import ufm
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.ReLU(), torch.nn.Linear(5, 3))
    >>> batch = torch.ones(2, 4), torch.tensor([[0.3, 0.0, 0.7], [0.0, 1.0, 0.0]])
    >>> activations = ufm.record(model, [batch], layers=["1"])
    >>> tuple(activations.features.shape), tuple(activations.logits.shape)
    ((2, 5), (2, 3))
    >>> bool((activations.layers["1"] == activations.features).all())
    True
    """
    check_kind("model", model, nn.Module, "an nn.Module")
    check_kind("batches", batches, Iterable, "an iterable of batches")
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
    folder = None if out is None else _folder_of(out)
    with ExitStack() as files:
        table = files.enter_context(closing(_Table(layers, folder)))

        def described() -> dict[str, str]:
            return description | {
                "mode": "train" if train_mode else "eval",
                "samples": str(len(table)),
                "layers": json.dumps(list(table.outputs)),
                "pool": json.dumps(pool),
                "torch": torch.__version__,
                "ufm": VERSION,
            }

        # A function that returns W, or reads it, may change the model too.
        with undisturbed(model, *_generators(batches)), _uncompiled(), torch.no_grad():
            head = _head(model, classifier, bias, features)
            seen = _Layers({name: modules[name] for name in layers}, pool)
            try:
                with head, seen:
                    model.train(train_mode)
                    runner = _Runner(model, head, seen)
                    for batch in long_work(batches, "record", unit="batches"):
                        rows = runner.rows_of(batch)
                        left = table.append(rows, seen.outputs, left)
                        if left == 0:
                            break
            except BaseException as error:
                if out is not None and len(table):
                    _save_partial(out, table, head.weights(), described(), error)
                raise
        if not len(table):
            raise ValueError("batches: got none, expected at least one")
        weights = head.weights()
        if out is None:
            return table.activations(weights, described())
        write_tensors(out, *file_content(table.columns | weights, table.outputs, described()))
    return load(out)


class _Table:
    """The rows that were recorded: columns, and outputs of layers, by name; in memory or in nameless files."""

    def __init__(self, layers: Sequence[str], folder: Path | None) -> None:
        """Open the layers' rows; those of the columns wait for their names."""
        self._folder = folder
        self.columns: dict[str, Rows] = {}
        self.outputs = {name: Rows(name, folder) for name in layers}
        self._count = 0

    def __len__(self) -> int:
        """Return the number of rows that every column has."""
        return self._count

    def append(self, rows: dict[str, Tensor], outputs: dict[str, Tensor], left: int | None) -> int | None:
        """Append a batch, or its first `left` rows, and return how many are left then."""
        self.columns = self.columns or {name: Rows(name, self._folder) for name in rows}
        if rows.keys() != self.columns.keys():
            raise ValueError("batches: got labels of two kinds, expected the same kind in every batch")
        keep = len(rows["logits"]) if left is None else min(len(rows["logits"]), left)
        blocks = [(values, rows[name][:keep]) for name, values in self.columns.items()]
        blocks += [(values, outputs[name][:keep]) for name, values in self.outputs.items()]
        for values, block in blocks:
            values.append(block)
        self._count += keep
        return None if left is None else left - keep

    def truncate(self) -> None:
        """Drop the rows of a batch that not every column has."""
        for values in (*self.columns.values(), *self.outputs.values()):
            values.truncate(self._count)

    def activations(self, weights: dict[str, Tensor], description: dict[str, str]) -> Activations:
        """Return what was recorded in memory, whose rows are released."""
        arrays: dict[str, Any] = {name: rows.tensor() for name, rows in self.columns.items()}
        if "soft_labels" in arrays:
            arrays |= columns_of(arrays.pop("soft_labels"), len(weights["classifier"]))
        layers = {name: rows.tensor() for name, rows in self.outputs.items()}
        return Activations(**{**arrays, **weights}, layers=layers, description=description)

    def close(self) -> None:
        """Release memory and files."""
        for values in (*self.columns.values(), *self.outputs.values()):
            values.close()


def _save_partial(
    out: str | Path, table: _Table, weights: dict[str, Tensor], description: dict[str, str], error: BaseException
) -> None:
    """Write what was recorded before an error to a file beside `out`, and have the error say so."""
    path = Path(out).with_name(f"partial-{Path(out).name}")
    try:
        table.truncate()
        description = description | {"ended": type(error).__name__}
        write_tensors(path, *file_content(table.columns | weights, table.outputs, description))
    except OSError as other:
        error.add_note(f"the {len(table)} rows before could not be kept: {other}")
    else:
        error.add_note(f"the {len(table)} rows before are in {str(path)!r}")


def check_head(model: nn.Module, classifier: Any, bias: Any, features: Any) -> None:
    """Raise the error with which `record` refuses a model or its head before the first batch."""
    check_kind("model", model, nn.Module, "an nn.Module")
    with undisturbed(model), torch.no_grad():
        _head(model, classifier, bias, features)


def _head(model: nn.Module, classifier: Any, bias: Any, features: Any) -> ModuleHead | ArrayHead:
    """Return the head that the arguments of `record` describe."""
    if features is not None:
        if classifier is None or isinstance(classifier, str | nn.Module):
            kind = "none" if classifier is None else type(classifier).__name__
            raise ValueError(f"classifier: got {kind} with features, expected the array W or a function returning it")
        return ArrayHead(model, features, classifier, bias)
    if bias is not None:
        raise ValueError("bias: got an array without features, expected it with features and an array classifier")
    if classifier is not None and not isinstance(classifier, str | nn.Module):
        kind = type(classifier).__name__
        raise ValueError(f"classifier: got {kind} without features, expected a module, its name, or features= too")
    return ModuleHead(model, classifier)


class _Runner:
    """A model that is called with batches, on its own device, while its head and layers are watched."""

    def __init__(self, model: nn.Module, head: ModuleHead | ArrayHead, layers: "_Layers") -> None:
        # The wrapper would split the batch over devices or wait for other processes.
        self._model = model.module if isinstance(model, DataParallel | DistributedDataParallel) else model
        devices = {parameter.device for parameter in model.parameters()}
        self._device = devices.pop() if len(devices) == 1 else None
        self._head, self._layers = head, layers

    def rows_of(self, batch: Any) -> dict[str, Tensor]:
        """Return features, logits and labels of a batch, as they are recorded."""
        inputs, count, labels = read_batch(batch)
        inputs = inputs if self._device is None else _moved(inputs, self._device)
        self._head.start(count)
        self._layers.start(count)
        if isinstance(inputs, Tensor):
            returned = self._model(inputs)
        else:
            returned = self._model(*inputs) if isinstance(inputs, tuple) else self._model(**inputs)
        self._layers.finish()
        rows = self._head.finish(inputs, returned)
        return rows | check_labels_of(labels, count, rows["logits"].shape[1])


class _Layers:
    """Outputs of layers in one forward pass, copied before the pass can change them in place."""

    def __init__(self, layers: dict[str, nn.Module], pool: bool) -> None:
        self.outputs: dict[str, Tensor] = {}
        self._layers = layers
        self._calls: Counter[str] = Counter()
        self._count, self._pool = 0, pool
        self._hooks = ExitStack()

    def __enter__(self) -> "_Layers":
        try:
            for name, module in self._layers.items():
                self._hooks.callback(module.register_forward_hook(self._on_layer(name)).remove)
        except BaseException:
            self._hooks.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._hooks.close()

    def start(self, count: int) -> None:
        """Prepare for a forward pass over `count` inputs."""
        self._count = count
        self._calls.clear()

    def finish(self) -> None:
        """Raise ValueError unless the pass called each layer once."""
        for name in self._layers:
            if self._calls[name] != 1:
                times = self._calls[name]
                raise ValueError(f"{name}: got a layer called {times} times, expected one called once per batch")

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
    return copied(name, value.reshape(count, -1))


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if type(value) in (tuple, list):
        return type(value)(_moved(part, device) for part in value)
    if isinstance(value, Mapping):
        return {key: _moved(part, device) for key, part in value.items()}
    return value


def _generators(batches: Any) -> list[torch.Generator]:
    """Return the random generators of a DataLoader and its sampler."""
    owners = (batches, getattr(batches, "sampler", None))
    found = [getattr(owner, "generator", None) for owner in owners]
    return [one for one in dict.fromkeys(found) if isinstance(one, torch.Generator)]


def _uncompiled() -> AbstractContextManager[None]:
    """Run compiled code uncompiled: it was compiled without the hooks and would bypass them."""
    # If anything was compiled, the compiler is loaded already; otherwise there is no need to spend a second on it.
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


def _folder_of(out: str | Path) -> Path:
    """Return the folder of `out`, created if necessary; raise ValueError if `out` cannot be a file."""
    place = check_target("out", out)
    try:
        return make_folder(place.parent)
    except OSError as error:
        raise ValueError(f"out: got {str(out)!r}, whose folder cannot be made ({error.strerror})") from error
