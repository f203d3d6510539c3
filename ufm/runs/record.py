"""The record of a run: what was trained and what was measured of it, in one schema, written and read here alone.

A run's folder holds

- run.json: the record but for its history, with the number of its schema;
- metrics.jsonl: the history, one line per epoch;
- summary.safetensors, else activations_eval.safetensors: recorded samples, where they are kept;
- layers.safetensors: outputs of layers in the plane of three classes, where they are kept;
- planar.safetensors: the points of a demo's planar picture.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ufm._support.files import to_json, write_text
from ufm._support.reading import read_json, read_json_lines, shown
from ufm._support.structuring import strict_converter, structure
from ufm._support.tensorfile import map_tensors
from ufm.losses import get_loss
from ufm.networks.activations import Activations
from ufm.networks.calibration import ConfidenceCurve
from ufm.networks.comparison_result import Comparison
from ufm.networks.files import load
from ufm.networks.layers import LayerPattern
from ufm.networks.temperature import CalibrationReport
from ufm.runs.claims import Claim
from ufm.solvers.certificate import Certificate
from ufm.theory.calibration import Calibration

SCHEMA = 1
RECORD, METRICS = "run.json", "metrics.jsonl"
SUMMARY, LAYERS, PLANAR = "summary.safetensors", "layers.safetensors", "planar.safetensors"
SAMPLES = "activations_eval.safetensors"
# What every comparison has, and every claim and picture relies on.
_PREDICTIONS = ("closed form", "straight line")


@dataclass(frozen=True)
class Training:
    """How a network was trained, as far as it is known.

    Attributes
    ----------
    mixing : str
        "mixup", "cutmix", "manifold" or "none".
    alpha : float or None
        Of Beta(alpha, alpha); None without mixing.
    ways : int
        How many labels are mixed.
    smoothing : float
        Label smoothing.
    loss : str
        Name of the loss.
    fixed_etf : bool
        Whether the classifier was fixed to a simplex ETF.
    classifier_decay : float or None
        lambda_W of the trained classifier, expectation convention; None where no penalty implies one.
    data, architecture : str
        Names; empty where unknown.
    epochs, seed : int or None
        None where unknown.
    """

    mixing: str = "mixup"
    alpha: float | None = 1.0
    loss: str = "cross_entropy"
    fixed_etf: bool = False
    classifier_decay: float | None = None
    data: str = ""
    architecture: str = ""
    epochs: int | None = None
    seed: int | None = None
    ways: int = 2
    smoothing: float = 0.0

    @property
    def mixed(self) -> bool:
        """Whether the labels were mixed."""
        return self.mixing != "none"

    @property
    def predicted_by(self) -> str:
        """Which prediction of a comparison is the theory's for this loss."""
        name = get_loss(self.loss).prediction_name
        if name is None:
            raise ValueError(f"loss: got {self.loss!r}, of which the theory predicts nothing for networks")
        return name

    @property
    def description(self) -> str:
        """The training in words."""
        mixing = f"{self.mixing}, α = {self.alpha:g}" if self.alpha is not None else "not mixed"
        fixed = ", classifier fixed to a simplex ETF" if self.fixed_etf else ""
        words = [
            f"{self.architecture} on {self.data}" if self.data else "",
            f"{mixing}, {self.loss.replace('_', ' ')}{fixed}",
            f"{self.epochs} epochs" if self.epochs is not None else "",
            f"seed {self.seed}" if self.seed is not None else "",
        ]
        return ", ".join(word for word in words if word)


@dataclass(frozen=True)
class Layer(LayerPattern):
    """A layer's `ufm.LayerPattern`, and `ufm.interpolation_r2` where it was measured.

    Attributes
    ----------
    interpolation : float or None
        R² of the layer's output on a mixed input by the mixture of its outputs on the two inputs.
    """

    interpolation: float | None = None


@dataclass(frozen=True)
class CalibrationRecord:
    """Calibration on unmixed test inputs, beside the theory's prediction.

    Attributes
    ----------
    test : CalibrationReport
        Before and after temperature scaling.
    predicted : Calibration or None
        What the theory predicts for unmixed inputs at the fitted beta.
    confidence : ConfidenceCurve or None
        Confidence on mixed inputs against lambda.
    """

    test: CalibrationReport
    predicted: Calibration | None = None
    confidence: ConfidenceCurve | None = None


@dataclass(frozen=True, eq=False)
class TheoryCurve:
    """A joint optimum, and its optimal response to the labels lam e_0 + (1 - lam) e_1.

    Attributes
    ----------
    num_classes, alpha, weight_decay, feature_decay, loss
        Of the model.
    beta, multiplier, objective, threshold, collapsed, quadrature_error
        As in `ufm.JointOptimum`.
    lam : (n,) array
    classifier : (K, d) array
    features : (n, d) array
    logits, probabilities : (n, K) array
    """

    num_classes: int
    alpha: float
    weight_decay: float
    feature_decay: float
    loss: str
    beta: float
    multiplier: float
    objective: float
    threshold: float
    collapsed: bool
    quadrature_error: float
    lam: np.ndarray
    classifier: np.ndarray
    features: np.ndarray
    logits: np.ndarray
    probabilities: np.ndarray


@dataclass(frozen=True)
class SolveRecord:
    """A direct solve, held against the closed form.

    Attributes
    ----------
    classifier : str
        "fixed" or "free".
    method, message : str
        How it was solved, and why it ended.
    iterations : int
    seconds : float
    certificate : Certificate
    logit_error : float
        Largest difference of logits from the closed form, relative to the largest logit.
    excess : float
        Objective less the closed form's.
    """

    classifier: str
    method: str
    message: str
    iterations: int
    seconds: float
    certificate: Certificate
    logit_error: float
    excess: float


@dataclass(frozen=True, eq=False)
class RunRecord:
    """A trained network held against the theory.

    Attributes
    ----------
    name : str
        Of the run.
    num_classes : int
        K.
    training : Training
        How it was trained.
    configuration : dict
        Everything that was configured, as whoever trained the network wrote it; shown, never interpreted here.
    history : sequence of dict
        Figures by epoch.
    recordings, comparisons : dict
        By mode: what a recording says of itself, and its comparison with the theory. Empty until the run is compared.
    layers : sequence of Layer
        Earlier layers, and the features.
    measures : dict
        By mode and name: further measures (`ufm.networks.measures`).
    calibration : CalibrationRecord or None
    checks : sequence of Claim, or None
        Stored claims of closed form against direct solver.
    theory : TheoryCurve or None
    solves : sequence of SolveRecord
        Of a demo.
    schema : int
        Number of the schema.
    recorded : Activations or None
        Recorded samples in the first mode, where they are at hand. Not part of run.json.
    folder : Path or None
        Where the run is kept. Not part of run.json.
    source : str
        Where it was read from, as given. Not part of run.json.
    """

    name: str
    num_classes: int
    training: Training
    configuration: dict[str, Any] = field(default_factory=dict)
    history: Sequence[dict[str, Any]] = ()
    recordings: dict[str, dict[str, str]] = field(default_factory=dict)
    comparisons: dict[str, Comparison] = field(default_factory=dict)
    layers: Sequence[Layer] = ()
    measures: dict[str, dict[str, float]] = field(default_factory=dict)
    calibration: CalibrationRecord | None = None
    checks: Sequence[Claim] | None = None
    theory: TheoryCurve | None = None
    solves: Sequence[SolveRecord] = ()
    schema: int = SCHEMA
    recorded: Activations | None = None
    folder: Path | None = None
    source: str = ""

    @property
    def mode(self) -> str:
        """The mode that pictures and tables show: eval where it was compared, else the first."""
        return "eval" if "eval" in self.comparisons else next(iter(self.comparisons))

    @property
    def modes(self) -> tuple[str, ...]:
        """All modes, that one first."""
        return (self.mode, *(mode for mode in self.comparisons if mode != self.mode))

    @property
    def comparison(self) -> Comparison:
        """The comparison in that mode."""
        return self.comparisons[self.mode]

    def measured(self, name: str) -> float | None:
        """Return a figure of the last epoch that has it, or None."""
        found = [row[name] for row in self.history if isinstance(row.get(name), int | float)]
        return found[-1] if found else None

    @cached_property
    def samples(self) -> Activations | None:
        """Recorded samples in the first mode, read when they are first asked for; None if none were kept."""
        if self.recorded is not None or self.folder is None:
            return self.recorded
        kept = [self.folder / name for name in (SUMMARY, SAMPLES) if (self.folder / name).is_file()]
        return load(kept[0]) if kept else None

    @cached_property
    def layer_planes(self) -> dict[str, np.ndarray]:
        """Outputs of layers in the plane of three classes, as `python -m experiments.compare` keeps them."""
        return self._arrays(LAYERS)

    @cached_property
    def planar(self) -> dict[str, np.ndarray]:
        """The points of the planar picture of a demo; empty if there are none."""
        kept = self.folder is not None and (self.folder / PLANAR).is_file()
        return self._arrays(PLANAR) if kept else {}

    def _arrays(self, name: str) -> dict[str, np.ndarray]:
        if self.folder is None or not (self.folder / name).is_file():
            raise ValueError(f"runs: got {self.name!r} without {name}, expected one as experiments.compare writes it")
        return {key: value.numpy() for key, value in map_tensors(self.folder / name)[0].items()}


def mode_words(mode: str) -> str:
    """Return the mode as it is called in a sentence."""
    return f"{mode} mode" if mode in ("eval", "train") else "as recorded"


_CONVERTER = strict_converter()
# What run.json does not hold.
_ELSEWHERE = ("history", "recorded", "folder", "source")


def write_record(record: RunRecord, folder: str | Path) -> None:
    """Write run.json and metrics.jsonl, each atomically.

    Raises
    ------
    OSError
        If a file cannot be written; the earlier one is then as it was.
    """
    write_history(record.history, folder)
    plain = _CONVERTER.unstructure(dataclasses.replace(record, history=(), recorded=None, folder=None))
    kept = {"schema": SCHEMA} | {name: value for name, value in plain.items() if name not in _ELSEWHERE}
    # A line per entry: readable as a diff, and a tenth of the size of numbers on lines of their own.
    lines = [f"  {json.dumps(name)}: {to_json(value, indent=None)}" for name, value in kept.items()]
    write_text(Path(folder) / RECORD, "{\n" + ",\n".join(lines) + "\n}\n")


def write_history(history: Sequence[Mapping[str, Any]], folder: str | Path) -> None:
    """Write metrics.jsonl, atomically; raise OSError if that fails."""
    write_text(Path(folder) / METRICS, "".join(to_json(row, indent=None) + "\n" for row in history))


def read_record(folder: str | Path, source: str | None = None) -> RunRecord:
    """Return the run that is kept in a folder.

    Parameters
    ----------
    folder : path
        With run.json; metrics.jsonl and the safetensors files are read where they are there.
    source : str, optional
        What the run was asked for by; the folder by default.

    Raises
    ------
    ValueError
        If a file is missing, damaged, of another schema, or does not fit; the message names it.
    """
    place = Path(folder)
    value = read_json("runs", place / RECORD, "a record of a run")
    record = structure_record(value, place, str(folder) if source is None else source)
    kept = (place / METRICS).exists()
    history = read_json_lines("runs", place / METRICS, "a file of JSON lines") if kept else ()
    return dataclasses.replace(record, history=tuple(history))


def structure_record(value: Any, folder: Path, source: str) -> RunRecord:
    """Return the record whose run.json holds `value`.

    Raises
    ------
    ValueError
        If the value is of another schema, or does not fit.
    """
    where = str(folder / RECORD)
    found = value.get("schema") if isinstance(value, dict) else None
    if found != SCHEMA:
        raise ValueError(f"runs: got {where!r} of schema {shown(found)}, expected a record of schema {SCHEMA}")
    if extra := [name for name in _ELSEWHERE if name in value]:
        raise ValueError(f"runs: got {where!r} with {extra[0]!r}, expected that in a file of its own")
    try:
        record = structure(_CONVERTER, value, RunRecord)
        get_loss(record.training.loss)
    except ValueError as error:
        raise ValueError(f"runs: got {where!r}, whose content does not fit ({error})") from error
    for mode, comparison in record.comparisons.items():
        scored = {score.name for score in comparison.scores}
        if missing := [x for x in _PREDICTIONS if x not in scored or x not in comparison.curves]:
            raise ValueError(f"runs: got {where!r} without {', '.join(missing)} in {mode} mode, expected both")
        if "network" not in comparison.curves:
            raise ValueError(f"runs: got {where!r} without the network's curve in {mode} mode, expected one")
    # A run is called as its folder is, wherever that was moved.
    return dataclasses.replace(record, name=folder.resolve().name, folder=folder, source=source)
