"""What is reported: folders of compared runs, folders of demos, files of recorded activations, all read as a `Run`."""

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ufm.networks.activations import Activations, load
from ufm._support.arrays import check_choice, check_number
from ufm.theory.calibration import Calibration
from ufm.networks.comparison import Comparison, compare
from ufm.labels.laws import Mixup, Unmixed
from ufm.networks.layers import LayerPattern, layer_pattern
from ufm.losses import LOSSES
from ufm.plotting import PlanarPanel, projected_panel
from ufm.networks.calibration import CalibrationReport
from ufm.runs.claims import Claim, stored_claim
from ufm.runs.stored import read_json, read_rows, structure
from ufm.reports.tables import Table, solver_table, theory_table
from ufm._support.tensorfile import map_tensors

RESULTS, COMPARISON, PLANAR = "results.json", "comparison.json", "planar.safetensors"
_EXPECTED = f"a folder with {COMPARISON} or {RESULTS}, or a file of recorded activations"
_RESAMPLES = 200
Recordings = dict[str, dict[str, str]]
# What every comparison has, and every claim and picture leans on.
_PREDICTIONS = ("closed form", "straight line")
_PANELS = {
    "closed_form": "closed form",
    "solver": "direct solver",
    "network_train": "network, train mode",
    "network_eval": "network, eval mode",
}


@dataclass(frozen=True)
class Layer(LayerPattern):
    """A layer's `ufm.LayerPattern`, and `ufm.interpolation_r2` where it was measured."""

    interpolation: float | None = None


@dataclass(frozen=True)
class MeasuredCalibration:
    """Calibration on test inputs, and what the theory predicts for unmixed inputs at the fitted beta."""

    test: CalibrationReport
    predicted: Calibration | None = None


@dataclass(frozen=True)
class Training:
    """How a network was trained, as far as it is known.

    mixing: mixup, cutmix, manifold or none. alpha: of Beta(alpha, alpha), or None. loss: cross_entropy or
    mean_squared_error. fixed_etf: whether the classifier was fixed to a simplex ETF. description: in words, or "".
    """

    mixing: str = "mixup"
    alpha: float | None = 1.0
    loss: str = "cross_entropy"
    fixed_etf: bool = False
    description: str = ""

    @property
    def mixed(self) -> bool:
        """Whether the labels were mixed."""
        return self.mixing != "none"

    @property
    def predicted_by(self) -> str:
        """Which of a comparison's predictions is the theory's for this loss."""
        return "straight line" if self.loss == "mean_squared_error" else "closed form"


@dataclass(frozen=True, eq=False)
class Run:
    """A trained network held against the theory.

    name: of the run. source: the path as given. num_classes: K, or None if no file tells. training: how it was trained.
    comparisons, recordings: by mode, the comparison and what the recording says of itself; never empty. layers: earlier
    ones and the features. history: rows by epoch. calibration: or None. samples: recorded ones in the first mode, or
    None. planar: panels in the plane of classes 0, 1, 2 that were stored. checks: exact claims that were stored, or
    None. tables: further ones. configuration: as stored, by file.
    """

    name: str
    source: str
    num_classes: int | None
    training: Training
    comparisons: dict[str, Comparison]
    recordings: dict[str, dict[str, str]]
    layers: tuple[Layer, ...] = ()
    history: tuple[dict[str, Any], ...] = ()
    calibration: MeasuredCalibration | None = None
    samples: Activations | None = None
    planar: tuple[PlanarPanel, ...] = ()
    checks: tuple[Claim, ...] | None = None
    tables: tuple[Table, ...] = ()
    configuration: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def mode(self) -> str:
        """The mode that pictures and first table are of: eval where it was compared, else the first."""
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


def read_run(
    path: str | os.PathLike,
    *,
    alpha: float | None = 1.0,
    weight_decay: float | None = None,
    loss: str = "cross_entropy",
) -> Run:
    """Return what is kept at `path`: the folder of a compared run or of a demo, or a file of recorded activations.

    A compared run has comparison.json; its config.json, metrics.jsonl, calibration.json and summary.safetensors are
    used where they are there. A demo's folder has results.json. Activations are compared here and now. alpha, loss: of
    the training, where no config.json tells; alpha None for no mixing. weight_decay: lambda_W of the classifier of
    recorded activations, for the fit-free beta; or None.
    Raises ValueError, naming the file, for what is missing, damaged or does not fit together.
    """
    if alpha is not None:
        check_number("alpha", alpha, above=0)
    check_choice("loss", loss, tuple(LOSSES))
    training = Training("none" if alpha is None else "mixup", alpha, loss)
    place = Path(path)
    if place.is_file():
        return _activations_run(place, str(path), training, weight_decay)
    if (place / RESULTS).is_file():
        return demo_run(read_json(place / RESULTS), place, str(path))
    if (place / COMPARISON).is_file():
        return _compared_run(place, str(path), training)
    if not place.exists():
        raise ValueError(f"runs: got {str(path)!r}, which does not exist; expected {_EXPECTED}")
    hint = f"; it holds such folders: name them, as in {path}/*" if any(place.glob(f"*/{COMPARISON}")) else ""
    raise ValueError(f"runs: got {str(path)!r}, expected {_EXPECTED}{hint}")


def _activations_run(file: Path, source: str, training: Training, weight_decay: float | None) -> Run:
    activations = load(file)
    K = len(activations.classifier)
    law = Unmixed(K) if training.alpha is None else Mixup(K, training.alpha)
    said = activations.description
    mode = said.get("mode", "recorded")
    names = (*activations.layers, "features") if activations.layers else ()
    return Run(
        name=f"{said['run']}, {file.name}" if "run" in said else file.name,
        source=source,
        num_classes=K,
        training=dataclasses.replace(training, description=_training_words(training)),
        comparisons={mode: compare(activations, law, weight_decay=weight_decay, resamples=_RESAMPLES)},
        recordings={mode: said},
        layers=tuple(Layer(**dataclasses.asdict(layer_pattern(activations, name))) for name in names),
        samples=activations,
        configuration={"recording": said},
    )


def _compared_run(folder: Path, source: str, training: Training) -> Run:
    stored = read_json(folder / COMPARISON)
    where = str(folder / COMPARISON)
    if not isinstance(stored, dict):
        raise ValueError(f"runs: got {where!r}, expected an object")
    config = read_json(folder / "config.json") if (folder / "config.json").is_file() else None
    summary, metrics, calibration = (
        folder / name for name in ("summary.safetensors", "metrics.jsonl", "calibration.json")
    )
    samples = load(summary) if summary.is_file() else None
    inner = config.get("config") if isinstance(config, dict) else None
    return Run(
        name=folder.resolve().name,
        source=source,
        num_classes=None if samples is None else len(samples.classifier),
        training=_training(inner, training),
        comparisons=_comparisons(stored.get("comparisons"), where),
        recordings=_structure(Recordings, stored.get("recordings", {}), where),
        layers=tuple(_structure(list[Layer], stored.get("layers", []), where)),
        history=tuple(read_rows(metrics)) if metrics.is_file() else (),
        calibration=_structure(MeasuredCalibration, read_json(calibration), str(calibration))
        if calibration.is_file()
        else None,
        samples=samples,
        configuration={} if config is None else {"config.json": config, "recordings": stored.get("recordings", {})},
    )


def demo_run(results: Any, folder: Path, source: str) -> Run:
    """Return the run of a demo: its results, as JSON has them, and the pictures' points in its folder."""
    where = str(folder / RESULTS)
    recorded = folder / "activations_eval.safetensors"
    try:
        theory, comparisons = results["theory"], _comparisons(results["comparison"], where)
        config = results["config"]
        data = {"data": f"{results['data']['name']}, mixed train images", "samples": str(config["samples"])}
        return Run(
            name=folder.resolve().name,
            source=source,
            num_classes=_structure(int, theory["num_classes"], where),
            training=_training(config["train"], Training()),
            comparisons=comparisons,
            recordings=_structure(Recordings, results.get("recordings", dict.fromkeys(comparisons, data)), where),
            history=tuple(_structure(list[dict], results["training"], where)),
            samples=load(recorded) if recorded.is_file() else None,
            planar=_stored_panels(folder / PLANAR) if (folder / PLANAR).is_file() else (),
            checks=tuple(claim for claim in map(stored_claim, results["claims"]) if claim.exact),
            tables=(theory_table(theory), solver_table(results["solver"], theory)),
            configuration={name: results[name] for name in ("config", "versions", "data")},
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"runs: got {where!r}, expected the results of a demo ({error!r})") from error


def _comparisons(value: Any, where: str) -> dict[str, Comparison]:
    found = _structure(dict[str, Comparison], value, where)
    if not found:
        raise ValueError(f"runs: got {where!r} without comparisons, expected one per mode")
    for mode, comparison in found.items():
        scored = {score.name for score in comparison.scores}
        if missing := [x for x in _PREDICTIONS if x not in scored or x not in comparison.curves]:
            raise ValueError(f"runs: got {where!r} without {', '.join(missing)} in {mode} mode, expected both")
        if "network" not in comparison.curves:
            raise ValueError(f"runs: got {where!r} without the network's curve in {mode} mode, expected one")
    return found


def _structure(kind: Any, value: Any, where: str) -> Any:
    try:
        return structure(kind, value, "value")
    except ValueError as error:
        raise ValueError(f"runs: got {where!r}, whose content does not fit ({error})") from error


def _training(config: Any, given: Training) -> Training:
    """Return how a configuration says that the network was trained; what it does not say is as given."""

    def entry(*keys: str) -> Any:
        value = config
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return value

    kind, alpha, loss = entry("mixing", "kind"), entry("mixing", "alpha"), entry("loss")
    if not isinstance(kind, str):
        kind, alpha = given.mixing, given.alpha
    known = Training(
        mixing=kind,
        alpha=None if kind == "none" else alpha if isinstance(alpha, int | float) and alpha > 0 else given.alpha,
        loss=loss if loss in tuple(LOSSES) else given.loss,
        fixed_etf=entry("network", "etf_multiplier") is not None,
    )
    first = [str(entry("network", "architecture")), "on", str(entry("data"))] if entry("data") else []
    epochs = f"{entry('epochs')} epochs" if entry("epochs") is not None else ""
    seed = f"seed {entry('seed')}" if entry("seed") is not None else ""
    words = [" ".join(first), _training_words(known), epochs, seed]
    return dataclasses.replace(known, description=", ".join(word for word in words if word))


def _training_words(training: Training) -> str:
    mixing = f"{training.mixing}, α = {training.alpha:g}" if training.alpha is not None else "not mixed"
    fixed = ", classifier fixed to a simplex ETF" if training.fixed_etf else ""
    return f"{mixing}, {training.loss.replace('_', ' ')}{fixed}"


def _stored_panels(path: Path) -> tuple[PlanarPanel, ...]:
    arrays, _ = map_tensors(path)
    try:
        a, b, lam = (arrays[name].numpy() for name in ("class_a", "class_b", "lam"))
        return tuple(
            projected_panel(title, arrays[f"{name}.rows"].numpy(), arrays[f"{name}.points"].numpy(), a, b, lam)
            for name, title in _PANELS.items()
        )
    except (KeyError, ValueError, IndexError) as error:
        raise ValueError(f"runs: got {str(path)!r}, expected the points of a demo ({error!r})") from error
