"""A function under attack, and random arguments."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from experiments.benchmarks.exactness import KINDS as LABEL_KINDS, labels_of

Rng = np.random.Generator
Arguments = dict[str, Any]


@dataclass(frozen=True)
class Subject:
    """A function under attack.

    Attributes
    ----------
    call : callable
        Takes the arguments by name.
    make : callable
        Draws arguments that it must take.
    wrong : callable, optional
        Takes arguments, as float64 arrays, and the result; says what is wrong with it, None if nothing is.
    weight : float
        How often it is drawn, relative to the others.
    gaps : tuple of str
        Fields of the result that may be infinite or NaN for good arguments.
    """

    call: Callable[..., Any]
    make: Callable[[Rng], Arguments]
    wrong: Callable[[Arguments, Any], str | None] | None = None
    weight: float = 1.0
    gaps: tuple[str, ...] = ()


def size(rng: Rng, low: int = 2, high: int = 12) -> int:
    """Return a whole number from `low` to `high`."""
    return int(rng.integers(low, high + 1))


def power(rng: Rng, low: float, high: float) -> float:
    """Return ten to a power from `low` to `high`."""
    return float(10.0 ** rng.uniform(low, high))


def labels(rng: Rng, rows: int, K: int) -> np.ndarray:
    """Return soft labels (rows, K), of every kind."""
    if rng.random() < 0.5:
        return np.stack([labels_of(str(rng.choice(LABEL_KINDS)), K, rng) for _ in range(rows)])
    return rng.dirichlet(np.full(K, power(rng, -1, 1)), rows)


def pairs(rng: Rng, rows: int, K: int) -> Arguments:
    """Return classes and coefficients of `rows` pairs."""
    classes = rng.permuted(np.arange(2 * rows) % K)
    return {"class_a": classes[:rows], "class_b": classes[rows:], "lam": rng.random(rows)}


def close(found: Any, expected: Any, rtol: float, atol: float = 0.0) -> str | None:
    """Return what is wrong with a number that is not close to the right one, else None."""
    found, expected = np.asarray(found, float), np.asarray(expected, float)
    if found.shape == expected.shape and np.allclose(found, expected, rtol=rtol, atol=atol):
        return None
    return f"got {found.tolist()!r:.100}, where {expected.tolist()!r:.100} is right"


def weights(rng: Rng, rows: int) -> np.ndarray:
    """Return probabilities (rows,)."""
    return rng.dirichlet(np.ones(rows))


def labelled(rng: Rng, name: str = "labels") -> Arguments:
    """Return soft labels as the only argument."""
    return {name: labels(rng, size(rng, 1, 6), size(rng))}
