"""The features of a real network as a data type: checked, saved and loaded without pickle; see `ufm.record`."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ufm._support.arrays import to_tensor
from ufm._support.files import atomic_path
from ufm._support.tensorfile import Rows, map_tensors, write_tensors
from ufm.labels.targets import pair_labels

_FORMAT = "ufm-activations-1"
_ARRAYS = ("features", "logits", "class_a", "class_b", "lam", "classifier")
_LAYER = "layer:"


@dataclass(frozen=True)
class MixedBatch:
    """One batch of mixed inputs: inputs (n, ...) and, for their labels, class_a, class_b (n,) and lam (n,).

    inputs: a tensor, for a model that is called as model(inputs); a tuple, for model(*inputs); or a mapping with
    string keys, for model(**inputs). Of the last two, the first tensor has the n rows that make the batch.
    """

    inputs: Tensor | tuple[Any, ...] | Mapping[str, Any]
    class_a: Int[Tensor, "n"]
    class_b: Int[Tensor, "n"]
    lam: Float[Tensor, "n"]


@dataclass(frozen=True, eq=False)
class Activations:
    """What a network did with mixed inputs, one row per input; all on the CPU.

    features (N, d): input of the classifier. logits (N, K): its output. class_a, class_b, lam (N,): the label
    lam e_a + (1 - lam) e_b. classifier (K, d) and bias (K,) or None. layers: outputs of further layers, one row per
    input, by name. description: text about data, mode and configuration, by key.
    Raises ValueError, naming the array, for arrays that do not fit together or have impossible values.
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
        for name in (*_ARRAYS, *(() if self.bias is None else ("bias",))):
            if not isinstance(getattr(self, name), Tensor):
                raise ValueError(f"{name}: got {type(getattr(self, name)).__name__}, expected a tensor")
        for name in ("features", "logits", "classifier"):
            check_finite(name, to_tensor(name, getattr(self, name), ndim=2, finite=False))
        N, K, d = len(self.features), len(self.classifier), self.features.shape[1]
        shapes = {"logits": (N, K), "classifier": (K, d), "bias": (K,)}
        for name, shape in shapes.items():
            value = getattr(self, name)
            if value is not None and tuple(value.shape) != shape:
                raise ValueError(f"{name}: got shape {tuple(value.shape)}, expected {shape}")
        if self.bias is not None:
            check_finite("bias", to_tensor("bias", self.bias, finite=False))
        check_pairs(self.class_a, self.class_b, self.lam, N, K)
        for name, value in self.layers.items():
            if value.ndim == 0 or len(value) != N:
                raise ValueError(f"layers: got {name!r} of shape {tuple(value.shape)}, expected {N} rows")
        check_description(self.description)

    @property
    def labels(self) -> Float[Tensor, "N K"]:
        """The soft labels (N, K), in float64."""
        return pair_labels(self.class_a, self.class_b, self.lam.double(), self.logits.shape[1])

    def save(self, path: str | Path) -> None:
        """Write everything to one safetensors file, atomically; half precision as float32, as NumPy needs it."""
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        # Classes that are not whole numbers stay, so that loading refuses them.
        arrays |= {x: arrays[x].long() for x in ("class_a", "class_b") if not arrays[x].is_floating_point()}
        write_activations(path, arrays | {"bias": self.bias}, self.layers, self.description)


def write_activations(
    path: str | Path,
    arrays: Mapping[str, Tensor | Rows | None],
    layers: Mapping[str, Tensor | Rows],
    description: dict[str, str],
) -> None:
    """Write activations, whose arrays need not be in memory, to one safetensors file, atomically.

    arrays: the fields of `Activations` by name; those that are None are left out.
    """
    given = {name: value for name, value in arrays.items() if value is not None}
    given |= {_LAYER + name: value for name, value in layers.items()}
    with atomic_path(path) as temporary:
        write_tensors(temporary, given, {"format": _FORMAT, "description": json.dumps(description)})


def load(path: str | Path) -> Activations:
    """Return the activations saved at `path`, mapped: what is large is read when it is used, not before.

    Features and logits are read once, in passing, to check them. Raises ValueError if the file is missing, damaged or
    of another kind.
    """
    arrays, metadata = map_tensors(path)
    missing = [name for name in _ARRAYS if name not in arrays]
    if metadata.get("format") != _FORMAT or missing:
        raise ValueError(f"file: got {str(path)!r}, a safetensors file of another kind; expected format {_FORMAT}")
    layers = {name.removeprefix(_LAYER): value for name, value in arrays.items() if name.startswith(_LAYER)}
    required = {name: arrays[name] for name in _ARRAYS}
    try:
        description = json.loads(metadata.get("description", "{}"))
        return Activations(**required, bias=arrays.get("bias"), layers=layers, description=description)
    except ValueError as error:
        raise ValueError(f"file: got {str(path)!r}, whose content does not fit together ({error})") from error


def check_finite(name: str, value: Tensor) -> None:
    """Raise ValueError unless all entries of `value` are finite; takes no memory beside it."""
    # Both ends are NaN if any entry is.
    if value.numel() and not all(math.isfinite(end.item()) for end in value.aminmax()):
        raise ValueError(f"{name}: got NaN or infinite entries, expected finite numbers")


def check_pairs(class_a: Tensor, class_b: Tensor, lam: Tensor, count: int, num_classes: int) -> None:
    """Raise ValueError unless these are the two classes and the coefficient of each of `count` mixed labels."""
    for name, value in (("class_a", class_a), ("class_b", class_b), ("lam", lam)):
        if tuple(value.shape) != (count,):
            raise ValueError(f"{name}: got shape {tuple(value.shape)}, expected {(count,)}")
    for name, value in (("class_a", class_a), ("class_b", class_b)):
        whole = not (value.is_floating_point() or value.is_complex() or value.dtype == torch.bool)
        if not whole or (count and (int(value.min()) < 0 or int(value.max()) >= num_classes)):
            ends = f" from {value.min()} to {value.max()}" if whole else ""
            raise ValueError(f"{name}: got {value.dtype}{ends}, expected whole numbers in 0..{num_classes - 1}")
    check_finite("lam", to_tensor("lam", lam, finite=False))
    if count and not (lam.min() >= 0 and lam.max() <= 1):
        raise ValueError("lam: got values outside the interval, expected 0 <= lam <= 1")


def check_description(description: Any) -> None:
    """Raise ValueError unless `description` is a dictionary of text by text."""
    if not isinstance(description, dict) or not all(isinstance(x, str) for item in description.items() for x in item):
        raise ValueError(f"description: got {description!r}, expected a dictionary from text to text")
