"""What a sweep solves: a grid of parameters, its points, and their keys."""

import hashlib
import itertools
import json
import math
import re
from collections import namedtuple
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import ufm
from ufm._support.arrays import check_choice, check_integer, check_number
from ufm._support.reading import read_toml
from ufm.labels.laws import Law
from ufm.losses import LOSSES
from ufm.solvers.driver import METHODS
from ufm.solvers.method import Method

# Settings of the solve, rather than of the method, that a method's spelling can override.
_OVERRIDES = ("max_iter", "record")
# Values that are no finite numbers, and how TOML and JSON spell them.
_SPARED = {"alpha": (None, math.inf), **dict.fromkeys(("threshold_fraction", "dim", "tol", "gap_tol"), (None,))}
_SPELLED = {"None": None, "inf": math.inf}


@dataclass(frozen=True)
class Grid:
    """Values of every parameter; the sweep is their product."""

    num_classes: tuple[int, ...] = (5,)
    """K >= 2"""
    alpha: tuple[float | None, ...] = (1.0,)
    """mixup's alpha > 0; None for labels that are not mixed"""
    smoothing: tuple[float, ...] = (0.0,)
    """label smoothing in [0, 1), of the mixed or unmixed label"""
    weight_decay: tuple[float, ...] = (5e-3,)
    """lambda_W > 0, expectation convention"""
    feature_decay: tuple[float, ...] = (5e-3,)
    """lambda_H > 0, expectation convention"""
    threshold_fraction: tuple[float | None, ...] = (None,)
    """where a number, lambda_W lambda_H is this fraction of the collapse threshold, and feature_decay has no effect"""
    dim: tuple[int | None, ...] = (None,)
    """feature dimension; None for K"""
    nodes: tuple[int, ...] = (16,)
    """Gauss-Jacobi nodes in lambda"""
    loss: tuple[str, ...] = ("cross_entropy",)
    """cross_entropy or mean_squared_error"""
    method: tuple[str, ...] = ("newton",)
    """method of solve, with settings after a colon, e.g. adam:learning_rate=1e-3,max_iter=5000"""
    seed: tuple[int, ...] = (0,)
    """of the start"""
    tol: tuple[float | None, ...] = (None,)
    """on the gradient norm"""
    gap_tol: tuple[float | None, ...] = (None,)
    """on the certified gap over the objective"""
    max_iter: tuple[int, ...] = (100_000,)
    """limit on iterations"""
    record: tuple[int, ...] = (0,)
    """where positive, the history at every so many iterations is kept, thinned"""

    def written(self) -> dict[str, list[Any]]:
        """Return the values as JSON has them."""
        return {name: [_written(value) for value in values] for name, values in asdict(self).items()}

    def points(self) -> "dict[str, GridPoint]":
        """Return the points of the grid.

        Returns
        -------
        dict of str to GridPoint
            By key, each point once, in the order of the product with the last field running fastest.

        Raises
        ------
        ValueError
            If a list is empty or a value out of range.
        """
        values = {field.name: _checked(field.name, getattr(self, field.name)) for field in fields(self)}
        found: dict[str, GridPoint] = {}
        for combination in itertools.product(*values.values()):
            point = GridPoint(*combination)
            check_choice("loss", point.loss, tuple(LOSSES))
            _, spelling, overrides = parse_method(point.method)
            point = point._replace(method=spelling, **overrides)
            if point.threshold_fraction is not None:
                point = point._replace(feature_decay=None)
            found.setdefault(point.key, point)
        return found


class GridPoint(namedtuple("GridPoint", [field.name for field in fields(Grid)])):
    """One solve: a value for each field of `Grid`, with `method` spelled as in `parse_method`."""

    @property
    def key(self) -> str:
        """The name of the point on disk: a hash of its parameters, the same on every machine."""
        text = json.dumps(self.written(), sort_keys=True, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def written(self) -> dict[str, Any]:
        """Return the parameters as JSON has them."""
        return {name: _written(value) for name, value in self._asdict().items()}

    def law(self) -> Law:
        """Return the law of the labels."""
        K = self.num_classes
        law = ufm.Unmixed(K) if self.alpha is None else ufm.Mixup(K, self.alpha)
        return ufm.LabelSmoothing(law, self.smoothing) if self.smoothing else law

    def penalties(self) -> tuple[float, float]:
        """Return lambda_W and lambda_H; the latter follows from `threshold_fraction` where that is a number."""
        if self.threshold_fraction is None:
            return self.weight_decay, self.feature_decay
        threshold = ufm.joint_optimum(self.law(), 1.0, 1.0, self.loss, nodes=self.nodes).threshold
        return self.weight_decay, self.threshold_fraction * threshold / self.weight_decay


_positive = partial(check_number, above=0)
_NUMBERS: dict[str, Callable[[str, Any], Any]] = {
    "num_classes": partial(check_integer, minimum=2),
    "smoothing": partial(check_number, minimum=0, below=1),
    **dict.fromkeys(("alpha", "weight_decay", "feature_decay", "threshold_fraction", "tol", "gap_tol"), _positive),
    **dict.fromkeys(("dim", "nodes"), partial(check_integer, minimum=1)),
    **dict.fromkeys(("seed", "max_iter", "record"), partial(check_integer, minimum=0)),
}


def _checked(name: str, values: tuple[Any, ...]) -> list[Any]:
    """Return the values of a parameter; numbers are in range and of their type."""
    if not values:
        raise ValueError(f"{name}: got no value, expected at least one")
    check, spared = _NUMBERS.get(name), _SPARED.get(name, ())
    return [value if check is None or value in spared else check(name, value) for value in values]


def parse_method(spelling: str) -> tuple[Method, str, dict[str, int]]:
    """Parse the spelling of a method.

    Parameters
    ----------
    spelling : str
        "name" or "name:setting=value,...", with values as in JSON. Settings are the fields of the method's class, or
        max_iter and record, which override the grid's.

    Returns
    -------
    tuple of Method, str, dict
        The method with its settings, its canonical spelling, and what it overrides.

    Raises
    ------
    ValueError
        For an unknown method or setting, or a value that the setting does not take.
    """
    name, _, rest = str(spelling).partition(":")
    check_choice("method", name, tuple(METHODS))
    known = {field.name: field.default for field in fields(METHODS[name])}  # pyright: ignore[reportArgumentType]
    # Commas inside brackets belong to a value.
    items = [item.partition("=") for item in (re.split(r",(?![^\[]*\])", rest) if rest else [])]
    given = {setting.strip(): _value(text.strip()) for setting, _, text in items}
    for setting, value in given.items():
        if setting not in (*known, *_OVERRIDES) or isinstance(known.get(setting), bool) != isinstance(value, bool):
            takes = ", ".join(f"{word}={json.dumps(default)}" for word, default in known.items())
            raise ValueError(f"method: got {setting}={value} in {spelling!r}, expected values as in {takes}")
    overrides = {word: check_integer(f"method: {word}", given[word], minimum=0) for word in _OVERRIDES if word in given}
    settings = {word: given[word] for word in known if word in given}
    try:
        method = METHODS[name](**settings)
    except (TypeError, ValueError) as error:
        raise ValueError(f"method: got {spelling!r}, whose settings are refused: {error}") from error
    shown = ",".join(f"{word}={json.dumps(value)}" for word, value in settings.items())
    return method, f"{name}:{shown}" if shown else name, overrides


def read_grid(path: str | Path) -> Grid:
    """Return the grid of a TOML file; raise ValueError for a file that is missing or no TOML, or an unknown key."""
    tables = read_toml("file", path, "a TOML file of a grid")
    try:
        return grid_of(tables)
    except ValueError as error:
        raise ValueError(f"file: got {str(path)!r}, expected a TOML file of a grid ({error})") from error


def grid_of(content: dict[str, Any]) -> Grid:
    """Return the grid of a TOML or JSON file: lists of values, or one, "None" for None, under the names of `Grid`."""
    names = [field.name for field in fields(Grid)]
    for name in content:
        check_choice("key", name, names)
    listed = {name: value if isinstance(value, list) else [value] for name, value in content.items()}
    spelled = {name: [_SPELLED.get(v, v) if isinstance(v, str) else v for v in vs] for name, vs in listed.items()}
    return Grid(**{name: tuple(values) for name, values in spelled.items()})


def _written(value: Any) -> Any:
    return "inf" if value == math.inf else value


def _value(text: str) -> Any:
    try:
        value = json.loads({"None": "null", "True": "true", "False": "false"}.get(text, text))
    except json.JSONDecodeError:
        return text
    return tuple(value) if isinstance(value, list) else value
