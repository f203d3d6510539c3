"""Batches of inputs and labels in every form that data loaders yield them."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ufm._support.arrays import to_numbers
from ufm._support.pairs import read_pairs
from ufm.labels.decoding import read_labels
from ufm.networks.activations import PAIRS, MixedBatch

_EXPECTED = 'expected a MixedBatch, a pair (inputs, labels), or a mapping with "labels"'


def read_batch(batch: Any) -> tuple[Any, int, dict[str, Tensor]]:
    """Return inputs, number of inputs, and a copy of the labels by name: class_a, class_b and lam, or labels.

    Raises ValueError for anything that is no batch, and for a batch without inputs.
    """
    if isinstance(batch, MixedBatch):
        # Copied, because a loader may write its next batch into the same memory.
        labels = {name: _label(name, getattr(batch, name)) for name in PAIRS}
        return batch.inputs, _count(batch.inputs), labels
    if isinstance(batch, Mapping) and "labels" in batch:
        inputs, labels = {key: value for key, value in batch.items() if key != "labels"}, batch["labels"]
    elif isinstance(batch, tuple | list) and len(batch) == 2:
        inputs, labels = batch
        inputs = tuple(inputs) if isinstance(inputs, list) else inputs
    else:
        size = f" of {len(batch)}" if isinstance(batch, tuple | list) else ""
        raise ValueError(f"batches: got {type(batch).__name__}{size}, {_EXPECTED}")
    return inputs, _count(inputs), {"labels": _label("labels", labels)}


def _label(name: str, value: Any) -> Tensor:
    if not isinstance(value, Tensor):
        raise ValueError(f"{name}: got {type(value).__name__}, expected a tensor")
    return to_numbers(name, value).detach().to("cpu", copy=True)


def _count(inputs: Any) -> int:
    """Return the number of inputs of a batch; raise ValueError if it has none."""
    parts = inputs if isinstance(inputs, tuple) else inputs.values() if isinstance(inputs, Mapping) else (inputs,)
    if isinstance(inputs, Mapping) and not all(isinstance(key, str) for key in inputs):
        raise ValueError(f"inputs: got the keys {list(inputs)}, expected strings")
    first = None if isinstance(inputs, list) else next((part for part in parts if isinstance(part, Tensor)), None)
    if first is None or first.ndim == 0 or not len(first):
        raise ValueError(
            f"inputs: got {type(inputs).__name__}, expected a tensor, or tuple or mapping with one, with rows"
        )
    return len(first)


def check_labels_of(labels: dict[str, Tensor], count: int, num_classes: int) -> dict[str, Tensor]:
    """Return the labels of a batch as the columns that are recorded, checked: pairs, or soft labels."""
    if "labels" in labels:
        given = labels["labels"]
        if given.ndim == 0 or len(given) != count:
            raise ValueError(f"labels: got shape {tuple(given.shape)}, expected {count} rows, one per input")
        read, _ = read_labels(given, num_classes)
        if read.ndim == 2:
            return {"soft_labels": read}
        labels = {"class_a": read, "class_b": read, "lam": torch.ones(count)}
    a, b, lam = (labels[name] for name in PAIRS)
    pairs = read_pairs(a, b, lam, count, num_classes)
    return {"class_a": pairs.class_a.long(), "class_b": pairs.class_b.long(), "lam": pairs.lam}
