"""A run's state on disk: network, optimiser and history in one safetensors file, written after every epoch."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from experiments.networks import Network
from ufm._support.files import atomic_path

NAME = "checkpoint.safetensors"


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
    with atomic_path(path) as temporary:
        save_file({name: value.contiguous() for name, value in arrays.items()}, temporary, metadata)


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
            key, parameter = name.removeprefix("optimiser.").split(".", 1)
            own = state.optimiser.state[of[parameter]]
            # In the parameter's memory layout, which decides about the rounding of a step.
            own[key] = value if key == "step" else torch.empty_like(of[parameter]).copy_(value)
    return metadata["history"]


def load_network(path: Path, network: Network) -> None:
    """Load the network's weights and buffers from a checkpoint; raise ValueError if it is missing or does not fit."""
    if not path.is_file():
        folder = str(path.parent)
        raise ValueError(f"run: got {folder!r}, which has no {path.name}, expected the folder of a training run")
    _load_network(path, _read(path)[0], network)


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return arrays, {key: json.loads(metadata[key]) for key in ("identity", "history")}
    except (SafetensorError, KeyError, OSError, json.JSONDecodeError) as error:
        raise ValueError(f"out: got {str(path)!r}, which is not a readable checkpoint ({error}); remove it") from error


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
