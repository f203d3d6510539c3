"""Public functions called with good, awkward and hostile arguments: each answers rightly, or refuses by name."""

import dataclasses
import random
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
import torch
from flint import ctx
from tqdm import tqdm

from experiments.fuzz.drawing import Arguments, Rng, Subject
from experiments.fuzz.limits import HungError, attacked, limited_time
from experiments.fuzz.networks import NETWORKS
from experiments.fuzz.tally import Tally
from experiments.fuzz.theory import THEORY
from ufm._support.arrays import check_integer

SUBJECTS = THEORY | NETWORKS
_BITS = 320

# The same numbers, held in other ways.
SAME: dict[str, Callable[[np.ndarray], Any]] = {
    "plain": np.copy,
    "tensor": torch.tensor,
    "other byte order": lambda x: x.astype(x.dtype.newbyteorder(">")),
    "write-protected": lambda x: np.lib.stride_tricks.as_strided(x.copy(), writeable=False),
    "reversed": lambda x: x[::-1].copy()[::-1],
    "every second": lambda x: np.repeat(x, 2, axis=-1)[..., ::2],
    "Fortran's order": np.asfortranarray,
    "objects": lambda x: x.astype(object),
    "lists": lambda x: x.tolist(),
    "unsigned": lambda x: x.astype(np.uint16) if x.dtype.kind == "i" else x.copy(),
    "transposed tensor": lambda x: torch.from_numpy(np.asfortranarray(x)),
}
# The nearest numbers of fewer digits.
SHORT: dict[str, Callable[[np.ndarray], Any]] = {
    "float32": lambda x: torch.tensor(x).float().numpy() if x.dtype.kind == "f" else x,
    "tensor of float32": lambda x: torch.tensor(x).float() if x.dtype.kind == "f" else torch.tensor(x),
    "tensor of bfloat16": lambda x: torch.tensor(x).bfloat16() if x.dtype.kind == "f" else torch.tensor(x),
}
# Numbers as large or small as they can be.
SCALES: dict[str, float] = {f"times {scale:g}": scale for scale in (1e-300, 1e-160, 1e-40, 1e40, 1e160, 1e300)}


def _spoiled(value: float) -> Callable[[np.ndarray, Rng], Any]:
    """Return what puts a number into one place of an array."""

    def spoil(x: np.ndarray, rng: Rng) -> np.ndarray:
        found = x.astype(np.float64)
        found.flat[rng.integers(found.size)] = value
        return found

    return spoil


HOSTILE_ARRAYS: dict[str, Callable[[np.ndarray, Rng], Any]] = {
    **{f"{value} in it": _spoiled(value) for value in (np.nan, np.inf, -np.inf, 1e308, -1e308, 5e-324, -1.0, 0.5)},
    "None": lambda _x, _rng: None,
    "a word": lambda _x, _rng: "1",
    "words": lambda x, _: np.full(x.shape, "1"),
    "decimals": lambda x, _: np.full(x.shape, Decimal(1)),
    "too large": lambda x, _: np.full(x.shape, 10**400, dtype=object),
    "complex": lambda x, _: x + 1j,
    "truth": lambda x, _: x > 0,
    "masked": lambda x, _: np.ma.masked_array(x, np.zeros_like(x)),
    "ragged": lambda _x, _rng: [[1.0], [1.0, 2.0]],
    "an object": lambda _x, _rng: object(),
    "a number": lambda _x, rng: float(rng.normal()),
    "empty": lambda x, _: x[:0],
    "a row less": lambda x, _: x[1:],
    "a column less": lambda x, _: x[..., 1:] if x.ndim > 1 else x[1:],
    "a dimension more": lambda x, _: x[None],
    "zeros": lambda x, _: np.zeros_like(x),
    "equal": lambda x, _: np.full_like(x, x.flat[0]),
    "meta": lambda x, _: torch.tensor(x).to("meta"),
    "sparse": lambda x, _: torch.tensor(x).to_sparse(),
    "gradient": lambda x, _: torch.tensor(x, dtype=torch.float64, requires_grad=True),
}
HOSTILE_NUMBERS: tuple[Any, ...] = (
    *(None, "1", b"1", [], object(), 1j, True, Decimal(1), np.array([1.0, 2.0]), torch.ones(2), {}),
    *(np.nan, np.inf, -np.inf, 1e308, -1e308, 5e-324, 1e-320, 0, -1, -0.0, 0.5, 10**25, -(10**25), 10**400, -(10**400)),
)
_KINDS = ("good", "short", "scaled", "hostile")
_SHARES = (0.4, 0.15, 0.15, 0.3)


@dataclass(frozen=True)
class Case:
    """One call.

    Attributes
    ----------
    kind : str
        What was done to the arguments.
    given : dict
        The arguments.
    plain : dict
        The same as NumPy's, for the oracle; None where it has nothing to say.
    strict : bool
        Whether the call must be answered, by finite numbers.
    """

    kind: str
    given: Arguments
    plain: Arguments | None
    strict: bool


def draw(subject: Subject, rng: Rng) -> Case:
    """Draw a call of a subject."""
    plain = subject.make(rng)
    kind = str(rng.choice(_KINDS, p=_SHARES))
    arrays = [name for name, value in plain.items() if isinstance(value, np.ndarray)]
    real = [name for name in arrays if plain[name].dtype.kind == "f"]
    if kind == "hostile":
        name = str(rng.choice(list(plain)))
        if name in arrays:
            what = str(rng.choice(list(HOSTILE_ARRAYS)))
            return Case(f"hostile: {what}", plain | {name: HOSTILE_ARRAYS[what](plain[name], rng)}, None, strict=False)
        value = HOSTILE_NUMBERS[int(rng.integers(len(HOSTILE_NUMBERS)))]
        return Case(f"hostile: {type(value).__name__}", plain | {name: value}, None, strict=False)
    if kind == "scaled" and real:
        name, scale = str(rng.choice(real)), str(rng.choice(list(SCALES)))
        with np.errstate(over="ignore"):
            return Case(f"scaled: {scale}", plain | {name: plain[name] * SCALES[scale]}, None, strict=False)
    forms = SHORT if kind == "short" else SAME
    form = str(rng.choice(list(forms)))
    given = {name: forms[form](value) if name in arrays else value for name, value in plain.items()}
    # Weights and labels of few digits need not add up as they have to.
    strict = kind != "short"
    return Case(f"{'short' if kind == 'short' else 'good'}: {form}", given, plain if strict else None, strict)


def outcome(subject: Subject, case: Case) -> tuple[str, str | None]:
    """Return how a call ends, "answered" or "refused", and what is wrong about it, None if nothing is."""
    before = {name: _content(value) for name, value in case.given.items()}
    state = _global_state()
    answer, wrong, end = None, None, "answered"
    try:
        with limited_time(), warnings.catch_warnings(record=True, action="always") as warned:
            answer = subject.call(**case.given)
    except HungError as error:
        return "hung", str(error)
    except (ValueError, TypeError, OSError) as error:
        end = "refused"
        if case.strict:
            wrong = f"good arguments are refused: {error}"
        elif not any(re.search(rf"\b{name}\b", str(error)) for name in case.given):
            wrong = f"no argument is named: {type(error).__name__}: {error}"
        warned = []
    except Exception as error:
        return "raised", f"{type(error).__name__}: {error}"
    if warned:
        wrong = f"warning: {warned[0].message}"
    elif state != _global_state():
        wrong = "changed a global state"
    elif changed := [name for name, value in case.given.items() if _content(value) != before[name]]:
        wrong = f"changed the argument {changed[0]}"
    elif wrong is None and end == "answered" and not case.kind.startswith("hostile"):
        finite = all(_not_finite(value, ()) is None for value in case.given.values())
        wrong = _not_finite(answer, subject.gaps) if finite else None
        if wrong is None and case.plain is not None and subject.wrong is not None:
            wrong = subject.wrong(case.plain, answer)
    return end, wrong


def _content(value: Any) -> Any:
    """Return what must not change of an argument."""
    if isinstance(value, torch.Tensor):
        odd = value.is_meta or value.is_sparse
        return None if odd else value.detach().contiguous().view(torch.uint8).numpy().tobytes()
    if isinstance(value, np.ndarray):
        return repr(value.tolist()) if value.dtype == object else value.tobytes()
    return repr(value) if isinstance(value, list | dict | int | float | str | bytes) else None


def _global_state() -> tuple[Any, ...]:
    return (
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
        torch.get_num_threads(),
        torch.get_rng_state().numpy().tobytes(),
        hash(repr(np.random.get_state())),  # noqa: NPY002
        random.getstate(),
        tuple(np.geterr().items()),
        len(warnings.filters),
    )


def _not_finite(answer: Any, gaps: tuple[str, ...], name: str = "result") -> str | None:
    """Return which number of an answer is not finite, if one is."""
    if dataclasses.is_dataclass(answer):
        parts = ((field.name, getattr(answer, field.name)) for field in dataclasses.fields(answer))
        found = (_not_finite(value, gaps, key) for key, value in parts if key not in gaps)
        return next((wrong for wrong in found if wrong), None)
    if isinstance(answer, torch.Tensor):
        answer = answer.detach().double().numpy()
    if isinstance(answer, np.ndarray | float | np.floating) and not np.all(np.isfinite(np.asarray(answer, float))):
        return f"{name} is not finite"
    return None


@dataclass(frozen=True)
class Calls:
    """Calls of every public function."""

    cases: int = 100_000
    """calls in all, >= 1"""
    seed: int = 0
    """of all cases"""
    only: tuple[str, ...] = ()
    """names of functions; all by default"""
    out: str = "experiments/results/fuzz/calls.json"
    """result file"""

    def run(self) -> int:
        """Attack, write the result, and return the exit status."""
        check_integer("cases", self.cases, minimum=1)
        names = attacked(self.only, SUBJECTS)
        torch.set_num_threads(1)
        tally = attack_calls(self.cases, self.seed, names)
        only = "".join(f" {name}" for name in self.only)
        command = f"python -m experiments.fuzz calls --cases {self.cases} --seed {self.seed}"
        return tally.finish(self.out, command + (f" --only{only}" if only else ""))


def attack_calls(cases: int, seed: int, names: tuple[str, ...]) -> Tally:
    """Attack functions of these names; a case depends on the seed and on its number alone.

    Parameters
    ----------
    cases : int
        How many calls.
    seed : int
        Of all of them.
    names : tuple of str
        Keys of `SUBJECTS`.

    Returns
    -------
    Tally
        What was tried, and what was wrong.
    """
    weights = np.array([SUBJECTS[name].weight for name in names])
    tally = Tally()
    for number in tqdm(range(cases), disable=None, mininterval=5):
        rng = np.random.default_rng([seed, number])
        name = str(rng.choice(names, p=weights / weights.sum()))
        case = draw(SUBJECTS[name], rng)
        with ctx.workprec(_BITS):
            end, wrong = outcome(SUBJECTS[name], case)
        tally.add(name, case.kind, end, None if wrong is None else f"case {number}: {wrong}")
    return tally
