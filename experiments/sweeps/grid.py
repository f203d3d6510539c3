"""What a sweep solves: a grid of parameters, its points, and their keys."""

import hashlib
import itertools
import json
import math
import re
import tomllib
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import ufm
from ufm._support.arrays import check_choice, check_integer, check_number
from ufm.labels.laws import Law
from ufm.losses import LOSSES
from ufm.solvers.driver import METHODS
from ufm.solvers.method import Method

# Settings of the solve, rather than of the method, that a method's spelling can override.
_OVERRIDES = ("max_iter", "record")
# Fields of whole numbers with their least values, and fields that can be None.
_WHOLE = {"num_classes": 2, "dim": 1, "nodes": 1, "seed": 0, "max_iter": 0, "record": 0}
_OPTIONAL = ("alpha", "threshold_fraction", "dim", "tol", "gap_tol")
# How TOML and JSON spell what they have no value for.
_SPELLED = {"None": None, "inf": math.inf}


@dataclass(frozen=True)
class Point:
    """One solve: a field of `Grid` each, with one value. `method` is spelled as in `parse_method`."""

    num_classes: int
    alpha: float | None
    smoothing: float
    weight_decay: float
    feature_decay: float | None
    threshold_fraction: float | None
    dim: int | None
    nodes: int
    loss: str
    method: str
    seed: int
    tol: float | None
    gap_tol: float | None
    max_iter: int
    record: int

    @property
    def key(self) -> str:
        """What the point is known by: a hash of its parameters, the same on every machine."""
        text = json.dumps(self.written(), sort_keys=True, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def written(self) -> dict[str, Any]:
        """Return the parameters as JSON has them."""
        return {name: _written(value) for name, value in asdict(self).items()}

    def law(self) -> Law:
        """Return the law of the labels."""
        K = self.num_classes
        law = ufm.Unmixed(K) if self.alpha is None else ufm.Mixup(K, self.alpha)
        return ufm.LabelSmoothing(law, self.smoothing) if self.smoothing else law

    def penalties(self) -> tuple[float, float]:
        """Return lambda_W and lambda_H, the latter from the closed form's threshold where a fraction of it is asked."""
        if self.threshold_fraction is None:
            assert self.feature_decay is not None
            return self.weight_decay, self.feature_decay
        threshold = ufm.joint_optimum(self.law(), 1.0, 1.0, self.loss, nodes=self.nodes).threshold
        return self.weight_decay, self.threshold_fraction * threshold / self.weight_decay


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

    def __post_init__(self) -> None:
        """Raise ValueError for an empty list, or a value out of range."""
        for field in fields(self):
            if not getattr(self, field.name):
                raise ValueError(f"{field.name}: got no value, expected at least one")
        for name, minimum in _WHOLE.items():
            self._check(name, lambda name, value, low=minimum: check_integer(name, value, minimum=low))
        for name in ("weight_decay", "feature_decay", "threshold_fraction", "tol", "gap_tol"):
            self._check(name, lambda name, value: check_number(name, value, above=0))
        self._check("alpha", _check_alpha)
        self._check("smoothing", lambda name, value: check_number(name, value, minimum=0, below=1))
        for loss in self.loss:
            check_choice("loss", loss, tuple(LOSSES))
        for spelling in self.method:
            parse_method(spelling)

    def _check(self, name: str, check: Any) -> None:
        """Bring the values of a field to their type."""
        values = getattr(self, name)
        checked = (None if value is None and name in _OPTIONAL else check(name, value) for value in values)
        object.__setattr__(self, name, tuple(checked))

    def written(self) -> dict[str, list[Any]]:
        """Return the values as JSON has them."""
        return {name: [_written(value) for value in values] for name, values in asdict(self).items()}

    def points(self) -> dict[str, Point]:
        """Return the points by key, each once, in the order of the product with the last field running fastest."""
        names = [field.name for field in fields(self)]
        found = {}
        for values in itertools.product(*(getattr(self, name) for name in names)):
            point = Point(**dict(zip(names, values, strict=True)))
            method = parse_method(point.method)
            point = replace(point, method=method.spelling, **method.overrides)
            if point.threshold_fraction is not None:
                point = replace(point, feature_decay=None)
            found.setdefault(point.key, point)
        return found


@dataclass(frozen=True)
class MethodChoice:
    """A parsed spelling: the method with its settings, its canonical spelling, and what it overrides of the solve's."""

    method: Method
    spelling: str
    overrides: dict[str, int]


def parse_method(spelling: str) -> MethodChoice:
    """Return the method of a spelling "name" or "name:setting=value,...", values as in JSON.

    Settings are the fields of the method's class, or max_iter and record, which override the grid's.
    Raises ValueError, naming it, for an unknown method or setting or a value that the setting does not take.
    """
    if not isinstance(spelling, str):
        raise ValueError(f"method: got {spelling!r}, expected a word")
    name, _, rest = spelling.partition(":")
    check_choice("method", name, tuple(METHODS))
    kind = METHODS[name]
    known = {field.name: field.default for field in fields(kind)}  # pyright: ignore[reportArgumentType]
    settings: dict[str, Any] = {}
    overrides: dict[str, int] = {}
    # Commas inside brackets belong to a value.
    for item in re.split(r",(?![^\[]*\])", rest) if rest else []:
        setting, equals, text = (part.strip() for part in item.partition("="))
        if not equals or setting not in (*known, *_OVERRIDES):
            raise ValueError(
                f"method: got the setting {setting!r} in {spelling!r}, expected "
                f"{', '.join(f'{word}=...' for word in (*known, *_OVERRIDES))}"
            )
        value = _value(text)
        if setting in _OVERRIDES:
            overrides[setting] = check_integer(f"method: {setting}", value, minimum=0)
        elif isinstance(known[setting], bool) != isinstance(value, bool):
            expected = "true or false" if isinstance(known[setting], bool) else "a number or word"
            raise ValueError(f"method: got {setting}={text} in {spelling!r}, expected {expected}")
        else:
            settings[setting] = value
    try:
        method = kind(**settings)
    except (TypeError, ValueError) as error:
        raise ValueError(f"method: got {spelling!r}, whose settings are refused: {error}") from error
    shown = ",".join(f"{word}={json.dumps(settings[word])}" for word in known if word in settings)
    return MethodChoice(method, f"{name}:{shown}" if shown else name, overrides)


def read_grid(path: str | Path) -> Grid:
    """Return the grid of a TOML file, whose keys are the fields of `Grid`: lists of values, or one; "None" for None.

    Raises ValueError for a file that is missing or no TOML, an unknown key, or a value out of range.
    """
    try:
        content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"file: got {str(path)!r}, expected a TOML file ({error})") from error
    return grid_of(content, f"file: {path}")


def grid_of(content: dict[str, Any], where: str) -> Grid:
    """Return the grid with the given values; raise ValueError, beginning with `where`, for those that make none."""
    known = [field.name for field in fields(Grid)]
    for name in content:
        if name not in known:
            raise ValueError(f"{where}: got the key {name!r}, expected {', '.join(known)}")
    values: dict[str, Any] = {}
    for name, value in content.items():
        listed = value if isinstance(value, list) else [value]
        values[name] = tuple(_SPELLED.get(item, item) if isinstance(item, str) else item for item in listed)
    try:
        return Grid(**values)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _written(value: Any) -> Any:
    return "inf" if value == math.inf else value


def _check_alpha(name: str, value: Any) -> float:
    return math.inf if value == math.inf else check_number(name, value, above=0)


def _value(text: str) -> Any:
    try:
        value = json.loads({"None": "null", "True": "true", "False": "false"}.get(text, text))
    except json.JSONDecodeError:
        return text
    return tuple(value) if isinstance(value, list) else value
