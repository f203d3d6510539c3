"""The features of a real network: recorded from any torch model by hooks, saved and loaded without pickle."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ufm.arrays import check_choice, to_tensor
from ufm.storage import atomic_path
from ufm.targets import pair_labels

_FORMAT = "ufm-activations-1"
_ARRAYS = ("features", "logits", "class_a", "class_b", "lam", "classifier")


@dataclass(frozen=True)
class MixedBatch:
    """One batch of mixed inputs: inputs (n, ...) and, for their labels, class_a, class_b (n,) and lam (n,)."""

    inputs: Tensor
    class_a: Int[Tensor, "n"]
    class_b: Int[Tensor, "n"]
    lam: Float[Tensor, "n"]


@dataclass(frozen=True, eq=False)
class Activations:
    """What a network did with mixed inputs, one row per input; all on the CPU.

    features (N, d): input of the classifier. logits (N, K): its output. class_a, class_b, lam (N,): the label
    lam e_a + (1 - lam) e_b. classifier (K, d) and bias (K,) or None. layers: outputs of further layers, one row per
    input, by name. description: text about data, mode and configuration, by key.
    """

    features: Float[Tensor, "N d"]
    logits: Float[Tensor, "N K"]
    class_a: Int[Tensor, "N"]
    class_b: Int[Tensor, "N"]
    lam: Float[Tensor, "N"]
    classifier: Float[Tensor, "K d"]
    bias: Float[Tensor, "K"] | None = None
    layers: dict[str, Tensor] = field(default_factory=dict)
    description: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise ValueError, naming the array, for arrays that do not fit together or have impossible values."""
        for name in ("features", "logits", "lam", "classifier"):
            to_tensor(name, getattr(self, name), ndim=1 if name == "lam" else 2)
        N, K, d = len(self.features), len(self.classifier), self.features.shape[1]
        shapes = {"logits": (N, K), "class_a": (N,), "class_b": (N,), "lam": (N,), "classifier": (K, d), "bias": (K,)}
        for name, shape in shapes.items():
            value = getattr(self, name)
            if value is not None and tuple(value.shape) != shape:
                raise ValueError(f"{name}: got shape {tuple(value.shape)}, expected {shape}")
        for name in ("class_a", "class_b"):
            value = getattr(self, name)
            if value.is_floating_point() or bool(((value < 0) | (value >= K)).any()):
                raise ValueError(f"{name}: got {value.dtype} from {value.min()} to {value.max()}, expected 0..{K - 1}")
        if bool(((self.lam < 0) | (self.lam > 1)).any()):
            raise ValueError("lam: got values outside the interval, expected 0 <= lam <= 1")

    @property
    def labels(self) -> Float[Tensor, "N K"]:
        """The soft labels (N, K), in float64."""
        return pair_labels(self.class_a, self.class_b, self.lam.double(), self.logits.shape[1])

    def save(self, path: str | Path) -> None:
        """Write everything to one safetensors file, atomically."""
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        arrays |= {} if self.bias is None else {"bias": self.bias}
        arrays |= {f"layer:{name}": value for name, value in self.layers.items()}
        metadata = {"format": _FORMAT, "description": json.dumps(self.description)}
        with atomic_path(path) as temporary:
            # Copies, because the format refuses arrays that share memory, as class_a and class_b may.
            save_file(
                {name: value.detach().clone().contiguous() for name, value in arrays.items()}, temporary, metadata
            )


def load(path: str | Path) -> Activations:
    """Return the activations saved at `path`; raise ValueError if it is missing, damaged or of another kind."""
    if not Path(path).is_file():
        what = "is not a file" if Path(path).exists() else "does not exist"
        raise ValueError(f"file: got {str(path)!r}, which {what}; expected a file written by Activations.save")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(f"file: got {str(path)!r}, which is not a readable safetensors file ({error})") from error
    missing = [name for name in _ARRAYS if name not in arrays]
    if metadata.get("format") != _FORMAT or missing:
        raise ValueError(f"file: got {str(path)!r}, a safetensors file of another kind; expected format {_FORMAT}")
    layers = {name.removeprefix("layer:"): value for name, value in arrays.items() if name.startswith("layer:")}
    required = {name: arrays[name] for name in _ARRAYS}
    try:
        description = json.loads(metadata.get("description", "{}"))
        return Activations(**required, bias=arrays.get("bias"), layers=layers, description=description)
    except ValueError as error:
        raise ValueError(f"file: got {str(path)!r}, whose content does not fit together ({error})") from error


def record(
    model: nn.Module,
    batches: Iterable[MixedBatch],
    *,
    classifier: str | nn.Linear | None = None,
    layers: Sequence[str] = (),
    train_mode: bool = False,
    description: dict[str, str] | None = None,
) -> Activations:
    """Run `model` on mixed batches and return the activations of its classifier and of the named layers.

    model: any module; it is called as model(batch.inputs) and left as it was: parameters, buffers (BatchNorm's
    running statistics too) and the training flag of every submodule. batches: of mixed inputs, on the model's device.
    classifier: the last linear layer, or its name; by default the last nn.Linear among the submodules. layers: names
    of further submodules whose outputs are recorded, flattened to one row per input. train_mode: run in training mode
    (BatchNorm with batch statistics, dropout active) instead of evaluation mode; noted in the description.

    Raises ValueError for an unknown name, a classifier that is not linear or not called exactly once a batch, or no
    batch at all.
    """
    modules = dict(model.named_modules())
    if isinstance(layers, str):
        raise ValueError(f"layers: got the string {layers!r}, expected a sequence of names")
    head = _find_classifier(model, classifier)
    for name in layers:
        check_choice("layers", name, tuple(modules))
    features: list[Tensor] = []
    logits: list[Tensor] = []
    outputs: dict[str, list[Tensor]] = {name: [] for name in layers}

    def store_head(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        features.append(_at_least_float32(inputs[0]))
        logits.append(_at_least_float32(output))

    handles = [head.register_forward_hook(store_head)]
    handles += [modules[name].register_forward_hook(_appender(rows)) for name, rows in outputs.items()]
    modes = {module: module.training for module in model.modules()}
    buffers = {name: value.detach().clone() for name, value in model.named_buffers()}
    pairs: list[MixedBatch] = []
    try:
        model.train(train_mode)
        with torch.no_grad():
            for batch in batches:
                model(batch.inputs)
                pairs.append(MixedBatch(torch.empty(0), batch.class_a.cpu(), batch.class_b.cpu(), batch.lam.cpu()))
                for name, rows in {"classifier": features, **outputs}.items():
                    if len(rows) != len(pairs):
                        raise ValueError(f"{name}: got a layer not called once per batch, expected one that is")
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes.items():
            module.training = mode
        with torch.no_grad():
            for name, value in model.named_buffers():
                value.copy_(buffers[name])
    if not pairs:
        raise ValueError("batches: got none, expected at least one MixedBatch")
    return Activations(
        features=torch.cat(features),
        logits=torch.cat(logits),
        class_a=torch.cat([batch.class_a for batch in pairs]),
        class_b=torch.cat([batch.class_b for batch in pairs]),
        lam=torch.cat([batch.lam for batch in pairs]),
        classifier=_at_least_float32(head.weight).clone(),
        bias=None if head.bias is None else _at_least_float32(head.bias).clone(),
        layers={name: torch.cat(rows) for name, rows in outputs.items()},
        description={**(description or {}), "mode": "train" if train_mode else "eval"},
    )


def _appender(rows: list[Tensor]) -> Callable[[nn.Module, Any, Tensor], None]:
    def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
        rows.append(output.detach().flatten(1).cpu())

    return hook


def _at_least_float32(value: Tensor) -> Tensor:
    # Half precision is widened: nothing that is computed later could use it.
    return value.detach().to("cpu", torch.promote_types(value.dtype, torch.float32))


def _find_classifier(model: nn.Module, classifier: str | nn.Linear | None) -> nn.Linear:
    if isinstance(classifier, nn.Linear):
        return classifier
    linear = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    if not linear:
        raise ValueError("model: got a model without any nn.Linear, expected one as its classifier")
    if classifier is None:
        return list(linear.values())[-1]
    check_choice("classifier", classifier, tuple(linear))
    return linear[classifier]
