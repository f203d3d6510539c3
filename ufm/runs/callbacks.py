"""Thin callbacks by which trainers of other libraries drive a monitor; each library is imported when it is used."""

import importlib
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any

from torch import Tensor

_LIGHTNING = {"lightning": "lightning.pytorch", "pytorch_lightning": "pytorch_lightning"}


def attach(
    trainer: Any, step: Callable[..., Any], close: Callable[[], Any]
) -> Callable[[Mapping[str, float], int], Any]:
    """Have a Trainer of Lightning or of transformers call `step` after every epoch, with its own figures, and `close`.

    Returns
    -------
    callable
        It sends figures, by name, to the trainer's loggers; a second argument, the epoch, is left out.

    Raises
    ------
    ValueError
        For a trainer of another kind.
    """
    packages = {cls.__module__.split(".")[0] for cls in type(trainer).__mro__}
    if found := packages & set(_LIGHTNING):
        base = importlib.import_module(_LIGHTNING[found.pop()]).Callback
        trainer.callbacks.append(_lightning(base, step, close))
        return lambda row, _: [x.log_metrics(row, step=trainer.global_step) for x in trainer.loggers]
    if "transformers" in packages:
        base = importlib.import_module("transformers").TrainerCallback
        trainer.add_callback(_transformers(base, step, close))
        return lambda row, _: trainer.log(dict(row))
    kind = type(trainer).__name__
    raise ValueError(f"trainer: got {kind}, expected a Trainer of lightning or of transformers; elsewhere call step")


def _lightning(base: type, step: Callable[..., Any], close: Callable[[], Any]) -> Any:
    class Watch(base):
        def on_train_epoch_end(self, trainer: Any, *_: Any) -> None:
            step(**{name: x for name, x in trainer.callback_metrics.items() if isinstance(x, Real | Tensor)})

        def on_train_end(self, *_: Any) -> None:
            close()

    return Watch()


def _transformers(base: type, step: Callable[..., Any], close: Callable[[], Any]) -> Any:
    class Watch(base):
        def on_epoch_end(self, _args: Any, state: Any, *_: Any, **_further: Any) -> None:
            losses = [row["loss"] for row in state.log_history if "loss" in row]
            step(**({"loss": losses[-1]} if losses else {}))

        def on_train_end(self, *_: Any, **_further: Any) -> None:
            close()

    return Watch()
