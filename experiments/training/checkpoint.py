"""A run's state on disk: network, optimiser and history in one safetensors file, written after every epoch."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from experiments.networks import Network
from ufm._support.reading import parse_json
from ufm._support.tensorfile import map_tensors, write_tensors

NAME = "checkpoint.safetensors"
_EXPECTED = "a readable checkpoint; remove it"


@dataclass(frozen=True)
class State:
    """What an epoch changes. Random numbers are no part of it: each epoch's follow from the seed and its number."""

    network: Network
    optimiser: torch.optim.Optimizer


def save_checkpoint(path: Path, identity: dict[str, Any], state: State, history: list[dict[str, Any]]) -> None:
    """Write the state, atomically.

    identity: what a run that goes on from it must have in common with this one.
    """
    arrays = {f"network.{name}": value for name, value in state.network.state_dict().items()}
    for name, parameter in state.network.named_parameters():
        for key, value in state.optimiser.state.get(parameter, {}).items():
            arrays[f"optimiser.{key}.{name}"] = value
    metadata = {"identity": json.dumps(identity), "history": json.dumps(history)}
    write_tensors(path, arrays, metadata)


def restore_checkpoint(path: Path, identity: dict[str, Any], state: State) -> list[dict[str, Any]]:
    """Load the state at `path`, if there is one, and return the history of the epochs done.

    Raises ValueError if the file is damaged, or belongs to another configuration or network.
    """
    if not path.exists():
        return []
    arrays, metadata = _read(path)
    found = metadata["identity"]
    if found != identity:
        different = ", ".join(sorted(_differences(identity, found)))
        raise ValueError(
            f"out: got {str(path.parent)!r}, which holds a run of another configuration (it differs in {different}); "
            "remove it or choose another folder"
        )
    _load_network(path, arrays, state.network)
    of = dict(state.network.named_parameters())
    for name, value in arrays.items():
        if name.startswith("optimiser."):
            key, _, parameter = name.removeprefix("optimiser.").partition(".")
            if parameter not in of or value.shape not in (torch.Size(), of[parameter].shape):
                raise ValueError(f"out: got {str(path)!r} of another network; remove it")
            own = state.optimiser.state[of[parameter]]
            # In the parameter's memory layout, which decides about the rounding of a step.
            own[key] = value.clone() if key == "step" else torch.empty_like(of[parameter]).copy_(value)
    return metadata["history"]


def load_network(path: Path, network: Network) -> None:
    """Load the network's weights and buffers from a checkpoint; raise ValueError if it is missing or does not fit."""
    if not path.is_file():
        folder = str(path.parent)
        raise ValueError(f"run: got {folder!r}, which has no {path.name}, expected the folder of a training run")
    _load_network(path, _read(path)[0], network)


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    arrays, metadata = map_tensors(path, name="out", expected=_EXPECTED)
    try:
        found = {key: parse_json(metadata.get(key, "null")) for key in ("identity", "history")}
        rows = found["history"]
        if not isinstance(found["identity"], dict) or not isinstance(rows, list):
            raise ValueError("without identity and history")
        if not all(isinstance(row, dict) for row in rows):
            raise ValueError("with a history that has no row for each epoch")
    except ValueError as error:
        raise ValueError(f"out: got {str(path)!r}, expected {_EXPECTED} ({error})") from error
    return arrays, found


def _load_network(path: Path, arrays: dict[str, Tensor], network: Network) -> None:
    own = {name.removeprefix("network."): v for name, v in arrays.items() if name.startswith("network.")}
    try:
        network.load_state_dict(own)
    except RuntimeError as error:
        raise ValueError(f"out: got {str(path)!r} of another network; remove it") from error


def _differences(one: dict[str, Any], other: dict[str, Any], prefix: str = "") -> list[str]:
    """Return the dotted names of the entries in which two nested dictionaries differ."""
    names = []
    for key in one.keys() | other.keys():
        a, b = one.get(key), other.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            names += _differences(a, b, f"{prefix}{key}.")
        elif a != b:
            names.append(f"{prefix}{key}")
    return names
