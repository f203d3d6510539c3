"""Which part of a model is its classifier, told from what the model returns; linear maps of any kind as W and b."""

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from ufm._support.arrays import check_choice, check_finite
from ufm._support.tensorfile import stored_dtype
from ufm.networks.activations import Agreement
from ufm.networks.head_calls import HELP, HeadCall, Watch, call_of, check_linear
from ufm.networks.undisturbed import Snapshot

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def is_linear(module: nn.Module) -> bool:
    """Return whether a module is a linear map of features: nn.Linear, or a convolution over single positions."""
    if isinstance(module, _CONVOLUTIONS):
        return module.groups == 1 and all(size == 1 for size in module.kernel_size) and not any(_numbers(module))
    return isinstance(module, nn.Linear)


def _numbers(convolution: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> Iterable[int]:
    padding = convolution.padding
    return (0,) if isinstance(padding, str) else padding


def candidates(model: nn.Module, classifier: str | nn.Module | None) -> dict[str, nn.Module]:
    """Return the modules that may be the classifier, by name: the one that is asked for, or every linear map.

    Raises
    ------
    ValueError
        For a name or module that is no linear map, and for a model without any.
    """
    linear = {name: x for name, x in model.named_modules(remove_duplicate=False) if is_linear(x)}
    if isinstance(classifier, nn.Module):
        if not is_linear(classifier):
            kind = type(classifier).__name__
            raise ValueError(f"classifier: got {kind}, expected an nn.Linear or a 1 x 1 convolution; {HELP}")
        return {next((name for name, x in linear.items() if x is classifier), "classifier"): classifier}
    if not linear:
        raise ValueError(f"model: got a model without any nn.Linear, expected one as its classifier; {HELP}")
    if classifier is None:
        # The same module under two names is one candidate.
        return {name: x for name, x in linear.items() if name == next(n for n, y in linear.items() if y is x)}
    check_choice("classifier", classifier, tuple(linear))
    return {classifier: linear[classifier]}


def outputs_of(returned: Any, count: int) -> list[Tensor]:
    """Return every tensor in what a model returned that may be its logits: rows of numbers, one per input.

    What is called logits comes alone.
    """
    named = returned.get("logits") if isinstance(returned, Mapping) else getattr(returned, "logits", None)
    if isinstance(named, Tensor):
        found = [named]
    elif isinstance(returned, Tensor):
        found = [returned]
    elif isinstance(returned, Mapping):
        found = list(returned.values())
    else:
        found = list(returned) if isinstance(returned, tuple | list) else []
    rows = [x.flatten(2).mean(2) if isinstance(x, Tensor) and x.ndim > 3 else x for x in found]
    return [x.detach() for x in rows if isinstance(x, Tensor) and x.ndim == 2 and len(x) == count and x.shape[1] > 1]


def difference(logits: Tensor, returned: Tensor) -> float:
    """Return how far logits are from what a model returned, relative to their size; infinite for another shape.

    What is added to a row does not count, so that logarithms of probabilities are logits too; probabilities are taken
    by their logarithm.
    """
    if logits.shape != returned.shape:
        return math.inf
    z, size = _centred(logits), _centred(logits).abs().max().item()
    kinds = [returned.double()]
    if bool(((returned >= 0) & (returned <= 1)).all()) and torch.allclose(
        returned.double().sum(1), returned.new_ones(len(returned)).double(), atol=1e-2
    ):
        kinds.append(returned.double().clamp(min=1e-300).log())
    least = min((z - _centred(x)).abs().max().item() for x in kinds)
    return least / size if size else least


def _centred(logits: Tensor) -> Tensor:
    z = logits.double()
    return z - z.mean(1, keepdim=True)


def agrees(logits: Tensor, returned: Tensor) -> bool:
    """Return whether logits are what a model returned, up to rounding in the coarser of their dtypes."""
    coarse = max((x.dtype for x in (logits, returned)), key=lambda dtype: torch.finfo(dtype).eps)
    return difference(logits, returned) <= torch.finfo(coarse).eps ** 0.5


def choose(
    calls: Mapping[str, list[HeadCall]], returned: list[Tensor], *, asked: bool, preferred: str | None
) -> tuple[str, HeadCall]:
    """Return the classifier's name and its call in a forward pass: the one whose output the model returned.

    Parameters
    ----------
    calls : mapping of lists
        The calls of each candidate in the pass.
    returned : list of tensors
        What the model returned that may be logits.
    asked : bool
        Whether the user named the only candidate.
    preferred : str or None
        The candidate that the model itself calls its classifier.

    Raises
    ------
    ValueError
        If that cannot be told, or the candidate's output is not what the model returned; the message lists those that
        could be meant.
    """
    found = {(name, i) for name, some in calls.items() for i, one in enumerate(some) if _any(agrees, one, returned)}
    # A layer called twice on the same input agrees twice.
    names = list(dict.fromkeys(name for name in calls if any(name == other for other, _ in found)))
    if names:
        name = preferred if preferred in names else names[-1]
        return name, calls[name][max(i for other, i in found if other == name)]
    listed = ", ".join(f"{name!r} ({one[-1].logits.shape[1]} outputs)" for name, one in calls.items() if one)
    alike = any(one.logits.shape == x.shape for some in calls.values() for one in some for x in returned)
    if returned and (alike or not asked):
        what = f"{next(iter(calls))!r}, whose output is not what the model returns" if asked else "a model whose output"
        rest = "" if asked else " is that of none of its linear layers"
        raise ValueError(f"classifier: got {what}{rest}, expected its last layer; linear layers: {listed}; {HELP}")
    name = next(iter(calls)) if asked else preferred
    if name is None:
        called = [name for name, some in calls.items() if some]
        name = called[0] if len(called) == 1 else None
    if name is None:
        raise ValueError(
            "classifier: got none, for a model that does not return logits to tell it by, expected the name of one of "
            f"its linear layers: {listed}"
        )
    if len(calls[name]) != 1:
        raise ValueError(
            f"classifier: got a layer called {len(calls[name])} times, expected one called once per batch, or one "
            "whose output the model returns"
        )
    return name, calls[name][0]


def _any(agree: Callable[[Tensor, Tensor], bool], call: HeadCall, returned: list[Tensor]) -> bool:
    return any(agree(call.logits, x) for x in returned)


class ModuleHead:
    """The classifier as a module of the model: hooks copy what it takes and gives in each forward pass.

    Parameters
    ----------
    model : nn.Module
        The model.
    classifier : str, nn.Module or None
        The classifier or its name; by default the one whose output the model returns.
    """

    def __init__(self, model: nn.Module, classifier: str | nn.Module | None) -> None:
        """Collect the modules that may be meant; raise ValueError if there is none."""
        self._candidates = candidates(model, classifier)
        self._asked = classifier is not None
        own = getattr(model, "get_classifier", None)
        own = own() if callable(own) else None
        self._preferred = next((name for name, x in self._candidates.items() if x is own), None)
        self._calls: dict[str, list[HeadCall]] = {}
        self._reasons: list[str] = []
        self._count = 0
        self._weights: dict[str, Tensor] = {}
        self._agreement = Agreement()
        self._undo = ExitStack()

    def __enter__(self) -> "ModuleHead":
        """Watch the candidates' forward passes."""
        buffers = [item for module in self._candidates.values() for item in module.named_buffers()]
        self._state = Snapshot(buffers)
        for name, module in self._candidates.items():
            before = vars(module).get("forward")
            self._undo.callback(_set_forward, module, before)
            _set_forward(module, self._watched(name, module, module.forward))
        return self

    def __exit__(self, *_: object) -> None:
        """Watch no more."""
        self._undo.close()

    def start(self, count: int) -> None:
        """Prepare for a forward pass over `count` inputs, which all start from one state of the classifier.

        A weight that is computed anew in each pass, from a state that the pass changes (spectral normalisation in
        training mode), is then the same in all of them.
        """
        self._count, self._calls = count, {name: [] for name in self._candidates}
        self._reasons.clear()
        self._state.restore()

    def finish(self, _inputs: Any, returned: Any) -> dict[str, Tensor]:
        """Return features and logits of the pass; raise ValueError if they cannot be told."""
        if self._reasons and not any(self._calls.values()):
            raise ValueError(f"classifier: {self._reasons[-1]}")
        for call in (call for some in self._calls.values() for call in some):
            check_finite("features", call.features)
        name, call = choose(
            self._calls, outputs_of(returned, self._count), asked=self._asked, preferred=self._preferred
        )
        # From here on this one alone is watched.
        self._candidates = {name: self._candidates[name]}
        check_finite("logits", call.logits)
        rows = {"features": copied("features", call.features), "logits": copied("logits", call.logits)}
        if not self._weights:
            check_linear(call)
            given = {"classifier": call.weight} | ({} if call.bias is None else {"bias": call.bias})
            self._weights = {name: copied(name, value) for name, value in given.items()}
        self._agreement.add(rows["features"], rows["logits"], self._weights["classifier"], self._weights.get("bias"))
        if not self._agreement:
            raise ValueError(
                "classifier: got a layer whose weight or bias changes from batch to batch, expected the same in all"
            )
        return rows

    def weights(self) -> dict[str, Tensor]:
        """Return copies of W, and of b if there is one, by name, as the first pass used them."""
        return self._weights

    def _watched(self, name: str, module: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
        """Return a forward pass that is noted among the calls of the candidate `name`."""

        def watched(*args: Any, **kwargs: Any) -> Any:
            if name not in self._candidates:
                return forward(*args, **kwargs)
            with Watch() as watch:
                output = forward(*args, **kwargs)
            call = call_of(watch.maps, args[0] if args else kwargs.get("input"), output, module, self._count)
            if isinstance(call, str):
                self._reasons.append(call)
            else:
                self._calls[name].append(call)
            return output

        return watched


def _set_forward(module: nn.Module, forward: Callable[..., Any] | None) -> None:
    """Give a module a forward pass in the place of its class's, or its class's back."""
    if forward is None:
        vars(module).pop("forward", None)
    else:
        vars(module)["forward"] = forward


def copied(name: str, value: Tensor) -> Tensor:
    """Return a copy on the CPU in the dtype in which it is stored."""
    return value.detach().to("cpu", stored_dtype(name, value.dtype), copy=True)
