"""Losses on logits, and everything in the library that depends on which loss it is.

Each loss is convex in the logits and unchanged when the classes are permuted. The rest of the library never asks for a
loss's name: what differs from loss to loss is a member of `Loss`. Sums over classes take optional `counts`, the
multiplicity of each column (see `ufm.prox_logsumexp`), so that a label with few distinct values costs as much as its
distinct values.
"""

from typing import Any

from ufm._support.arrays import check_choice
from ufm.losses.base import DualPoint, Loss, Restoration
from ufm.losses.cross_entropy import CrossEntropy
from ufm.losses.curvature import Curvature, DiagonalCurvature, IdentityCurvature, SoftmaxCurvature
from ufm.losses.mean_squared_error import MeanSquaredError

__all__ = [
    "LOSSES",
    "CrossEntropy",
    "Curvature",
    "DiagonalCurvature",
    "DualPoint",
    "IdentityCurvature",
    "Loss",
    "MeanSquaredError",
    "Restoration",
    "SoftmaxCurvature",
    "get_loss",
    "register_loss",
]

LOSSES: dict[str, Loss] = {loss.name: loss for loss in (CrossEntropy(), MeanSquaredError())}


def register_loss(loss: object) -> None:
    """Make a loss of the user's known by its name, for the rest of the process, wherever a loss is asked for.

    Parameters
    ----------
    loss : Loss
        An object of a subclass of `Loss`; or any object with the members that a subclass has to supply, which gets the
        defaults of `Loss` for the members that it lacks.

    Raises
    ------
    ValueError
        For an object that lacks members, or the name of a loss that is known already.
    """
    needed = ("name", *(member for member in vars(Loss) if member in Loss.__abstractmethods__))
    missing = [member for member in needed if not hasattr(loss, member)]
    if missing:
        raise ValueError(f"loss: got {type(loss).__name__} without {', '.join(missing)}, expected the members of Loss")
    completed = loss if isinstance(loss, Loss) else _completed(loss)
    known = LOSSES.get(completed.name)
    if known is not None and getattr(known, "given", known) is not loss:
        raise ValueError(f"loss: got the name {completed.name!r}, which is taken, expected none of {', '.join(LOSSES)}")
    LOSSES[completed.name] = completed


def _completed(given: Any) -> Loss:
    """Return a loss with the members of an object that is no `Loss`, and the defaults for those that it lacks."""
    own = {member: getattr(given, member) for member in vars(Loss) if member[0] != "_" and hasattr(given, member)}
    members = {name: staticmethod(value) if callable(value) else value for name, value in own.items()}
    return type(type(given).__name__, (Loss,), {"name": given.name, "given": given, **members})()


def get_loss(name: str) -> Loss:
    """Return a loss by its name.

    Parameters
    ----------
    name : str
        "cross_entropy", "mean_squared_error" or the name of a registered loss.

    Raises
    ------
    ValueError
        For an unknown name.

    Examples
    --------
    >>> import torch
    >>> get_loss("cross_entropy").value(torch.zeros(1, 4), torch.eye(4)[:1])
    tensor([1.3863])
    """
    check_choice("loss", name, tuple(LOSSES))
    return LOSSES[name]
