"""Activations from a file: one that `record` wrote, or arrays of any framework under the names that `compare` has."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ufm._support.reading import check_file, parse_json
from ufm._support.tensorfile import map_tensors
from ufm.networks.activations import ARRAYS, FORMAT, LAYER, PAIRS, Activations, columns_of

_REQUIRED, _OPTIONAL = ("features", "classifier", "labels"), ("bias", "logits")
_CHECKPOINTS = (".pt", ".pth", ".ckpt", ".bin", ".h5", ".keras", ".msgpack")
_EXPECTED = f"a file of `record`, or .npz or .safetensors with {', '.join(_REQUIRED)} (and {' and '.join(_OPTIONAL)})"


def load(path: str | Path) -> Activations:
    """Return the activations in a file: as `record` or `Activations.save` wrote them, or arrays of any framework.

    Parameters
    ----------
    path : str or Path
        A file of `record`, memory-mapped: outputs of layers are read from disk when they are used; features and logits
        are read once on loading, to check them, but need not fit in memory. Or a .safetensors or .npz file with the
        arrays `features`, `classifier` and `labels`, and `bias` and `logits` if there are any; see `Activations.of`.

    Returns
    -------
    Activations
        The saved activations.

    Raises
    ------
    ValueError
        If the file is missing, damaged or of another kind.
    """
    place = check_file("file", path, _EXPECTED)
    if place.suffix.lower() in _CHECKPOINTS:
        raise ValueError(
            f"file: got {str(path)!r}, which looks like a checkpoint of a model, expected {_EXPECTED}: load its "
            "weights into the model, and record its activations with ufm.record(model, batches, out=...)"
        )
    if place.suffix.lower() == ".npz":
        return _of_arrays(path, _read_npz(place))
    arrays, metadata = map_tensors(path)
    if metadata.get("format") != FORMAT:
        return _of_arrays(path, arrays)
    soft = arrays.get("soft_labels")
    required = [name for name in ARRAYS if soft is None or name not in PAIRS]
    if lacking := [name for name in required if name not in arrays]:
        raise ValueError(f"file: got {str(path)!r} without {lacking[0]}, expected format {FORMAT}")
    layers = {name.removeprefix(LAYER): value for name, value in arrays.items() if name.startswith(LAYER)}
    fields: dict[str, Any] = {name: arrays[name] for name in required}
    fields |= {"bias": arrays.get("bias"), "layers": layers}
    try:
        fields |= {} if soft is None else columns_of(soft, len(arrays["classifier"]))
        return Activations(**fields, description=parse_json(metadata.get("description", "{}")))
    except ValueError as error:
        raise ValueError(f"file: got {str(path)!r}, whose content does not fit together ({error})") from error


def _read_npz(place: Path) -> dict[str, np.ndarray]:
    try:
        # NumPy warns of old headers, which damaged ones can look like.
        with (
            warnings.catch_warnings(action="ignore"),
            place.open("rb") as opened,
            np.load(opened, allow_pickle=False) as file,
        ):
            return {name: file[name] for name in file.files}
    except Exception as error:  # whatever damaged bytes make of zipfile, zlib and NumPy
        raise ValueError(f"file: got {str(place)!r}, which is not a readable .npz file ({error})") from error


def _of_arrays(path: str | Path, arrays: Mapping[str, Any]) -> Activations:
    if lacking := [name for name in _REQUIRED if name not in arrays]:
        found = ", ".join(map(repr, arrays)) or "nothing"
        raise ValueError(
            f"file: got {str(path)!r}, of another kind: it has {found} and lacks {lacking[0]!r}; expected {_EXPECTED}"
        )
    given = {name: arrays[name] for name in (*_REQUIRED, *_OPTIONAL) if name in arrays}
    layers = {name.removeprefix(LAYER): value for name, value in arrays.items() if name.startswith(LAYER)}
    try:
        return Activations.of(**given, layers=layers)
    except (TypeError, ValueError) as error:
        raise ValueError(f"file: got {str(path)!r}, whose content does not fit together ({error})") from error
