"""Recorded activations of a network as a data type, checked, saved and loaded without pickle; see `ufm.record`."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from ufm._support.arrays import check_finite, to_tensor
from ufm._support.pairs import ClassPairs, read_pairs
from ufm._support.tensorfile import Rows, map_tensors, write_tensors
from ufm.labels.targets import pair_labels

_FORMAT = "ufm-activations-1"
_ARRAYS = ("features", "logits", "class_a", "class_b", "lam", "classifier")
_LAYER = "layer:"


@dataclass(frozen=True)
class MixedBatch:
    """One batch of mixed inputs and their labels.

    Attributes
    ----------
    inputs : tensor, tuple or mapping
        A tensor (n, ...) for a model that is called as ``model(inputs)``; a tuple for ``model(*inputs)``; or a
        mapping with string keys for ``model(**inputs)``. The first tensor in a tuple or mapping has the n rows of the
        batch.
    class_a, class_b : (n,) integer tensor
        The two classes of each label.
    lam : (n,) tensor
        Weight of class_a, in [0, 1].
    """

    inputs: Tensor | tuple[Any, ...] | Mapping[str, Any]
    class_a: Int[Tensor, "n"]
    class_b: Int[Tensor, "n"]
    lam: Float[Tensor, "n"]


@dataclass(frozen=True, eq=False)
class Activations:
    """Features, logits and labels of a network on mixed inputs, one row per input, all on the CPU.

    Attributes
    ----------
    features : (N, d) tensor
        Input of the classifier.
    logits : (N, K) tensor
        Output of the classifier.
    class_a, class_b : (N,) integer tensor
        The two classes of each label lam e_a + (1 - lam) e_b, in 0..K-1.
    lam : (N,) tensor
        Weight of class_a, in [0, 1].
    classifier : (K, d) tensor
        Weight matrix of the classifier.
    bias : (K,) tensor or None
        Bias of the classifier.
    layers : dict of (N, ...) tensors
        Outputs of further layers by name.
    description : dict of str
        Text about data, mode and configuration by key.

    Raises
    ------
    ValueError
        Naming the array, if arrays do not fit together or have impossible values.
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
        """Check every field."""
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
        read_pairs(self.class_a, self.class_b, self.lam, N, K)
        for name, value in self.layers.items():
            if value.ndim == 0 or len(value) != N:
                raise ValueError(f"layers: got {name!r} of shape {tuple(value.shape)}, expected {N} rows")
        check_description(self.description)

    @property
    def labels(self) -> Float[Tensor, "N K"]:
        """The soft labels (N, K) in float64."""
        return pair_labels(self.class_a, self.class_b, self.lam.double(), self.logits.shape[1])

    def save(self, path: str | Path) -> None:
        """Write everything to one safetensors file, atomically.

        Half precision is stored as float32, because NumPy lacks bfloat16.

        Parameters
        ----------
        path : str or Path
            Path of the file.
        """
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        # Classes that are not whole numbers are written as they are, so that loading refuses them.
        arrays |= {x: arrays[x].long() for x in ("class_a", "class_b") if not arrays[x].is_floating_point()}
        write_activations(path, arrays | {"bias": self.bias}, self.layers, self.description)


def write_activations(
    path: str | Path,
    arrays: Mapping[str, Tensor | Rows | None],
    layers: Mapping[str, Tensor | Rows],
    description: dict[str, str],
) -> None:
    """Write activations, which need not be in memory, to one safetensors file, atomically.

    Parameters
    ----------
    path : str or Path
        Path of the file.
    arrays : mapping of tensors, Rows or None
        The fields of `Activations` by name; None is left out.
    layers : mapping of tensors or Rows
        Outputs of further layers by name.
    description : dict of str
        Text by key.
    """
    given = {name: value for name, value in arrays.items() if value is not None}
    given |= {_LAYER + name: value for name, value in layers.items()}
    write_tensors(path, given, {"format": _FORMAT, "description": json.dumps(description)})


def load(path: str | Path) -> Activations:
    """Return the activations saved at `path`, memory-mapped.

    Outputs of layers are read from disk when they are used. Features and logits are read once on loading, to check
    them, but need not fit in memory.

    Parameters
    ----------
    path : str or Path
        A file written by `record` or `Activations.save`.

    Returns
    -------
    Activations
        The saved activations.

    Raises
    ------
    ValueError
        If the file is missing, damaged or of another kind.
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


def pairs_of(activations: Activations) -> ClassPairs:
    """Return the class pairs of the samples, classes in int64 and lam in float64."""
    return ClassPairs(activations.class_a, activations.class_b, activations.lam).wide()


def check_some(activations: Activations) -> None:
    """Raise ValueError for activations without a sample."""
    if not len(activations.features):
        raise ValueError("activations: got no samples, expected at least one")


def check_description(description: Any) -> None:
    """Raise ValueError unless `description` is a dictionary of text by text."""
    if not isinstance(description, dict) or not all(isinstance(x, str) for item in description.items() for x in item):
        raise ValueError(f"description: got {description!r}, expected a dictionary from text to text")
