"""Recorded activations of a network as a data type, checked, saved and loaded without pickle; see `ufm.record`."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ufm._support.arrays import Array, check_finite, check_squares, to_tensor
from ufm._support.display import Displayed, Row
from ufm._support.pairs import ClassPairs, read_pairs
from ufm._support.reading import shown
from ufm._support.tensorfile import Rows, write_tensors
from ufm.labels.decoding import DecodedLabels, decode_labels, read_labels, summarise_labels
from ufm.labels.targets import pair_labels

FORMAT = "ufm-activations-1"
PAIRS = ("class_a", "class_b", "lam")
ARRAYS = ("features", "logits", *PAIRS, "classifier")
LAYER = "layer:"
# Logits may differ from W h + b by this share of their size: half precision makes less, another layer more.
_LOGITS_ERROR = 0.02
# Rows are checked in blocks of this many numbers.
_BLOCK = 2**24


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


@dataclass(frozen=True, eq=False, repr=False)
class Activations(Displayed):
    """Features, logits and labels of a network on mixed inputs, one row per input, all on the CPU.

    Attributes
    ----------
    features : (N, d) tensor
        Input of the classifier.
    logits : (N, K) tensor
        Output W h + b of the classifier; any number may be added to a row.
    class_a, class_b : (N,) integer tensor
        The two classes of each label lam e_a + (1 - lam) e_b, in 0..K-1; of soft labels the two of most weight.
    lam : (N,) tensor
        Weight of class_a among the two, smoothing taken off, in [0, 1].
    classifier : (K, d) tensor
        Weight matrix of the classifier.
    bias : (K,) tensor or None
        Bias of the classifier.
    layers : dict of (N, ...) tensors
        Outputs of further layers by name.
    description : dict of str
        Text about data, mode and configuration by key.
    soft_labels : (N, K) tensor or None
        Labels of any other kind: smoothed, of more than two classes, a teacher's.
    classes : (N,) integer tensor or None
        With soft labels, how many classes each has.
    smoothing : float
        Label smoothing in the soft labels.

    Raises
    ------
    ValueError
        Naming the array, if arrays do not fit together or have impossible values.

    See Also
    --------
    Activations.of : makes activations from arrays of any kind, labels of any kind included.
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
    soft_labels: Float[Tensor, "N K"] | None = None
    classes: Int[Tensor, "N"] | None = None
    smoothing: float = 0.0

    @staticmethod
    def of(
        features: Float[Array, "N d"],
        classifier: Float[Array, "K d"],
        labels: Array,
        bias: Float[Array, "K"] | None = None,
        *,
        logits: Float[Array, "N K"] | None = None,
        layers: Mapping[str, Array] | None = None,
        description: dict[str, str] | None = None,
    ) -> "Activations":
        """Return activations made of arrays of any framework, with labels of any kind.

        Parameters
        ----------
        features : (N, d) array
            Input h of the classifier; half precision is widened.
        classifier : (K, d) array
            Its weight matrix W, a row per class. Transpose a kernel (d, K), as JAX and Keras keep it.
        labels : (N, K) or (N,) array
            Soft labels, or classes for inputs that are not mixed; see `decode_labels`.
        bias : (K,) array, optional
            Its bias b.
        logits : (N, K) array, optional
            Its output, checked against W h + b, which is the default.
        layers : mapping of (N, ...) arrays, optional
            Outputs of further layers by name.
        description : dict of str, optional
            Text about data, mode and configuration by key.

        Returns
        -------
        Activations
            One row per input.

        Raises
        ------
        ValueError
            Naming the array, if arrays do not fit together or have impossible values.

        Examples
        --------
        >>> import numpy as np, ufm
        >>> some = ufm.Activations.of(np.eye(3), 2 * np.eye(3), np.array([[1, 0, 0], [0, 0.5, 0.5], [0, 0.2, 0.8]]))
        >>> some.logits.diagonal().tolist(), some.class_a.tolist(), some.lam.tolist()
        ([2.0, 2.0, 2.0], [0, 1, 1], [1.0, 0.5, 0.2])
        """
        h, w = floats("features", features, 2), floats("classifier", classifier, 2)
        b = None if bias is None else floats("bias", bias, 1)
        K, d = w.shape
        if h.shape[1] != d or (b is not None and len(b) != K):
            hint = ", a row per class: transpose a kernel of shape (d, K)" if h.shape[1] == K else ""
            raise ValueError(
                f"classifier: got shape {(K, d)} for features of shape {tuple(h.shape)}"
                f"{'' if b is None else f' and a bias of shape {tuple(b.shape)}'}, expected (K, d){hint}"
            )
        if K < 2:
            raise ValueError(f"classifier: got shape {(K, d)}, expected at least two rows")
        given, _ = read_labels(labels, K)
        if len(given) != len(h):
            raise ValueError(f"labels: got {len(given)} rows, expected {len(h)} as the features have")
        if logits is None:
            z = h.to(w.dtype) @ w.T + (0 if b is None else b.to(w.dtype))
            # Large finite numbers have a product that is none.
            check_finite("features, classifier", z)
        else:
            z = floats("logits", logits, 2)
        outputs = {name: floats(f"layers[{name!r}]", value, None) for name, value in (layers or {}).items()}
        return Activations(
            h, z, **columns_of(labels, K), classifier=w, bias=b, layers=outputs, description=description or {}
        )

    def __post_init__(self) -> None:
        """Check every field."""
        given = [name for name in ("bias", "soft_labels", "classes") if getattr(self, name) is not None]
        for name in (*ARRAYS, *given):
            if not isinstance(getattr(self, name), Tensor):
                kind = type(getattr(self, name)).__name__
                raise ValueError(f"{name}: got {kind}, expected a tensor; Activations.of takes arrays of any kind")
        for name in ("features", "logits", "classifier"):
            object.__setattr__(self, name, to_tensor(name, getattr(self, name), ndim=2))
        N, K, d = len(self.features), len(self.classifier), self.features.shape[1]
        shapes = {"logits": (N, K), "classifier": (K, d), "bias": (K,), "soft_labels": (N, K), "classes": (N,)}
        for name, shape in shapes.items():
            value = getattr(self, name)
            if value is not None and tuple(value.shape) != shape:
                raise ValueError(f"{name}: got shape {tuple(value.shape)}, expected {shape}")
        if self.bias is not None:
            object.__setattr__(self, "bias", to_tensor("bias", self.bias))
        pairs = read_pairs(self.class_a, self.class_b, self.lam, N, K)
        for name, value in zip(PAIRS, pairs.columns, strict=True):
            object.__setattr__(self, name, value)
        for name, value in self.layers.items():
            if value.ndim == 0 or len(value) != N:
                raise ValueError(f"layers: got {name!r} of shape {tuple(value.shape)}, expected {N} rows")
        check_description(self.description)
        self._check_logits()

    def _shown(self) -> Iterable[Row]:
        yield "features", self.features
        yield "logits", self.logits
        yield "classifier", self.classifier, "without bias" if self.bias is None else "with bias"
        yield "labels", summarise_labels(self.decoded).words() if len(self.lam) else "none"
        for name, value in self.layers.items():
            yield f"layer {name}", value
        for name, value in self.description.items():
            yield name, value

    def _check_logits(self) -> None:
        """Raise ValueError for logits that are not W h + b up to a number added to each row."""
        agreement = Agreement()
        rows = max(1, _BLOCK // max(self.classifier.shape))
        for h, z in zip(self.features.split(rows), self.logits.split(rows), strict=True):
            agreement.add(h, z, self.classifier, self.bias)
        if not agreement:
            raise ValueError(
                f"logits: got values that differ from W h + b by {agreement.relative_error:.2g} of their "
                "size, expected the output of the classifier for these features"
            )

    @property
    def labels(self) -> Float[Tensor, "N K"]:
        """The labels (N, K) in float64."""
        if self.soft_labels is not None:
            y = self.soft_labels.double()
            return y / y.sum(1, keepdim=True)
        return pair_labels(self.class_a, self.class_b, self.lam.double(), self.logits.shape[1])

    @property
    def in_pair(self) -> Bool[Tensor, "N"]:
        """Which labels have at most two classes, so that class_a, class_b and lam say all of them."""
        if self.classes is None:
            return torch.ones(len(self.features), dtype=torch.bool)
        return self.classes <= 2

    @property
    def decoded(self) -> DecodedLabels:
        """What the labels say, as `decode_labels` reads it; for `summarise_labels`."""
        pairs = pairs_of(self).ascending()
        alone = (pairs.class_a == pairs.class_b) | (pairs.lam == 0) | (pairs.lam == 1)
        classes = torch.where(alone, 1, 2) if self.classes is None else self.classes.long()
        return DecodedLabels(len(self.classifier), *pairs.columns, classes, self.smoothing)

    def save(self, path: str | Path) -> None:
        """Write everything to one safetensors file, atomically.

        Half precision is stored as float32, because NumPy lacks bfloat16.

        Parameters
        ----------
        path : str or Path
            Path of the file.
        """
        arrays = {name: getattr(self, name) for name in (*ARRAYS, "soft_labels")}
        # Classes that are not whole numbers are written as they are, so that loading refuses them.
        arrays |= {x: arrays[x].long() for x in ("class_a", "class_b") if not arrays[x].is_floating_point()}
        write_tensors(path, *file_content(arrays | {"bias": self.bias}, self.layers, self.description))


class Agreement:
    """Whether logits are W h + b up to a number added to each row; true as long as they are, block after block."""

    def __init__(self) -> None:
        """Start without rows."""
        self._error = self._size = 0.0
        self._count = 0

    def add(
        self,
        features: Float[Tensor, "n d"],
        logits: Float[Tensor, "n K"],
        classifier: Float[Tensor, "K d"],
        bias: Float[Tensor, "K"] | None,
    ) -> None:
        """Take in a block of rows."""
        expected = features.double() @ classifier.double().T + (0.0 if bias is None else bias.double())
        expected = expected - expected.mean(1, keepdim=True)
        given = logits.double()
        self._error += (given - given.mean(1, keepdim=True) - expected).square().sum().item()
        self._size += expected.square().sum().item()
        self._count += logits.numel()

    def __bool__(self) -> bool:
        """Return whether all logits so far are W h + b."""
        # Of logits that all but vanish there is nothing to compare with.
        return self._error <= _LOGITS_ERROR**2 * self._size + torch.finfo(torch.float32).eps * self._count

    @property
    def relative_error(self) -> float:
        """The root mean square of the difference over that of W h + b."""
        return (self._error / max(self._size, 1e-300)) ** 0.5


def file_content(
    arrays: Mapping[str, Tensor | Rows | None],
    layers: Mapping[str, Tensor | Rows],
    description: dict[str, str],
) -> tuple[dict[str, Tensor | Rows], dict[str, str]]:
    """Return what a file of activations holds: arrays by name, without those that are None, and its metadata."""
    given = {name: value for name, value in arrays.items() if value is not None}
    given |= {LAYER + name: value for name, value in layers.items()}
    return given, {"format": FORMAT, "description": json.dumps(description)}


def columns_of(labels: Array, num_classes: int) -> dict[str, Any]:
    """Return the fields of `Activations` that say the labels, from soft labels (N, K) or classes (N,)."""
    found = decode_labels(labels, num_classes)
    columns: dict[str, Any] = {name: getattr(found, name) for name in PAIRS}
    if not found.smoothing and bool(found.in_pair.all()):
        return columns
    soft, _ = read_labels(labels, num_classes)
    return columns | {"soft_labels": soft, "classes": found.classes, "smoothing": found.smoothing}


def floats(name: str, value: Array, ndim: int | None) -> Tensor:
    """Return an array of real numbers as a tensor on the CPU, half precision widened."""
    return to_tensor(name, value, ndim=ndim).detach().cpu()


def pairs_of(activations: Activations) -> ClassPairs:
    """Return the class pairs of the samples, classes in int64 and lam in float64."""
    return ClassPairs(activations.class_a, activations.class_b, activations.lam).wide()


def check_some(activations: Activations) -> None:
    """Raise ValueError for activations without a sample, or with numbers whose squares overflow."""
    if not len(activations.features):
        raise ValueError("activations: got no samples, expected at least one")
    for name in ("features", "classifier", "logits"):
        check_squares(name, getattr(activations, name), small=name != "logits")


def check_description(description: Any) -> None:
    """Raise ValueError unless `description` is a dictionary of text by text."""
    if not isinstance(description, dict) or not all(isinstance(x, str) for item in description.items() for x in item):
        raise ValueError(f"description: got {shown(description)}, expected a dictionary from text to text")
