"""A record made of recorded activations, and what can be reported: a run's folder, or a file of activations."""

import os
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ufm._support.arrays import check_choice
from ufm.labels.decoding import summarise_labels
from ufm.labels.laws import CutMix, LabelSmoothing, Law, Mixup
from ufm.losses import LOSSES
from ufm.networks.activations import Activations
from ufm.networks.comparison import compare
from ufm.networks.files import load
from ufm.networks.layers import layer_pattern
from ufm.networks.measures import measures_of
from ufm.runs.record import RECORD, Layer, RunRecord, Training, read_record

_EXPECTED = f"the folder of a compared run, with {RECORD}, or a file of recorded activations"
_RESAMPLES = 200


def compared_run(
    name: str,
    activations: Mapping[str, Activations],
    law: Law | None,
    training: Training,
    *,
    interpolation: Mapping[str, float] | None = None,
    full: bool = True,
    **further: Any,
) -> RunRecord:
    """Compare recordings with the theory, and return the record of the run.

    Parameters
    ----------
    name : str
        Of the run.
    activations : dict
        What was recorded, by mode; at least one. Layers are taken from the first.
    law : Law or None
        Of the training labels; None for that of the recorded labels.
    training : Training
        How the network was trained.
    interpolation : dict, optional
        `ufm.interpolation_r2` by layer, "features" included; only these layers are then measured.
    full : bool
        Whether to make the predictions that need a solver, and the bands of the channel's curves.
    **further
        Further fields of `RunRecord`.

    Raises
    ------
    ValueError
        If recordings and law do not fit, as in `ufm.compare`.
    """
    first = next(iter(activations.values()))
    names = interpolation
    if names is None:
        # A layer is compared with the channel of samples of two classes.
        mixed = len(first.classifier) > 2 and bool((first.decoded.classes == 2).any())
        names = dict.fromkeys((*first.layers, "features") if first.layers and mixed else ())
    return RunRecord(
        name=name,
        num_classes=len(first.classifier),
        training=training,
        recordings={mode: some.description for mode, some in activations.items()},
        comparisons={
            mode: compare(some, law, weight_decay=training.classifier_decay, solver=full, resamples=_RESAMPLES * full)
            for mode, some in activations.items()
        },
        layers=[Layer(**asdict(layer_pattern(first, layer)), interpolation=r2) for layer, r2 in names.items()],
        measures={mode: found for mode, some in activations.items() if (found := measures_of(some))},
        **further,
    )


def read_run(
    path: str | os.PathLike,
    *,
    law: Law | None = None,
    weight_decay: float | None = None,
    loss: str = "cross_entropy",
) -> RunRecord:
    """Return the run at `path`: the folder of a compared run or of a demo, or a file of recorded activations.

    Parameters
    ----------
    path : path
        A folder is read as it is; activations are compared here and now.
    law : Law, optional
        Of the labels that the network behind recorded activations was trained with; by default that of the recorded
        labels.
    weight_decay : float, optional
        lambda_W of its classifier, > 0, for the fit-free beta.
    loss : str
        That it was trained with.

    Raises
    ------
    ValueError
        If something is missing, damaged, or does not fit together; the message names the file or the argument.
    """
    check_choice("loss", loss, tuple(LOSSES))
    place = Path(path)
    if place.is_file():
        return _recorded(place, str(path), law, weight_decay, loss)
    if (place / RECORD).is_file():
        record = read_record(place, str(path))
        if not record.comparisons:
            raise ValueError(f"runs: got {str(path)!r}, a run that is not compared yet, expected {_EXPECTED}")
        return record
    if not place.exists():
        raise ValueError(f"runs: got {str(path)!r}, which does not exist; expected {_EXPECTED}")
    hint = f"; it holds such folders: name them, as in {path}/*" if any(place.glob(f"*/{RECORD}")) else ""
    raise ValueError(f"runs: got {str(path)!r}, expected {_EXPECTED}{hint}")


def _recorded(file: Path, source: str, law: Law | None, weight_decay: float | None, loss: str) -> RunRecord:
    activations = load(file)
    said = activations.description
    return compared_run(
        f"{said['run']}, {file.name}" if "run" in said else file.name,
        {said.get("mode", "recorded"): activations},
        law,
        replace(training_of(law, activations), classifier_decay=weight_decay, loss=loss),
        recorded=activations,
        source=source,
        configuration={"recording": said} if said else {},
    )


def training_of(law: Law | None, activations: Activations) -> Training:
    """Return what is known of the labels: from the law if one is given, otherwise as the recorded labels say."""
    if law is None:
        found = summarise_labels(activations.decoded)
        if found.one == 1:
            return Training("none", None, smoothing=found.smoothing)
        ways = int(activations.decoded.classes.max())
        return Training("mixup", found.alpha, ways=max(ways, 2), smoothing=found.smoothing)
    smoothing = law.smoothing if isinstance(law, LabelSmoothing) else 0.0
    base = law.law if isinstance(law, LabelSmoothing) else law
    if not isinstance(base, Mixup):
        return Training("none", None, smoothing=smoothing)
    return Training("cutmix" if isinstance(base, CutMix) else "mixup", base.alpha, ways=base.ways, smoothing=smoothing)
