"""The pictures of a report, drawn by `ufm.plotting` from a run."""

import base64
import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from ufm import plotting
from ufm._support.files import atomic_path
from ufm._support.progress import long_work
from ufm.labels.targets import Targets, pair_labels
from ufm.networks.activations import Activations
from ufm.networks.comparison_result import Comparison
from ufm.networks.predictions import Head, centred, closed_form
from ufm.plotting import Line, PairPanel, PlanarPanel, ReliabilityPanel
from ufm.plotting.training import DEPARTURE
from ufm.prox import prox_logsumexp
from ufm.runs.record import RunRecord, mode_words
from ufm.solvers import solve
from ufm.solvers.problem import UFM
from ufm.theory.features import fixed_classifier

CLASSES = (0, 1, 2)
_PANELS = {
    "closed_form": "closed form",
    "solver": "direct solver",
    "network_train": "network, train mode",
    "network_eval": "network, eval mode",
}
_PLANAR_SAMPLES = 1500
_PAIR_SAMPLES = 1000
_PAIR_CLASSES = 12


@dataclass(frozen=True)
class Picture:
    """name: of the kind. figure, png: drawn, or None. alt: what is to be seen. caption: what was drawn, or why not."""

    name: str
    figure: Figure | None
    png: bytes | None
    alt: str
    caption: str

    @property
    def uri(self) -> str:
        """The picture inside a data URI; "" if there is none."""
        return "" if self.png is None else "data:image/png;base64," + base64.b64encode(self.png).decode("ascii")

    def save(self, folder: Path) -> None:
        """Write the picture as PNG and PDF into a folder; nothing if there is none."""
        if self.figure is None or self.png is None:
            return
        with atomic_path(folder / f"{self.name}.png") as temporary:
            temporary.write_bytes(self.png)
        with plotting.style(), atomic_path(folder / f"{self.name}.pdf") as temporary:
            self.figure.savefig(temporary, format="pdf", metadata={"CreationDate": None})


def draw(run: RunRecord, classes: tuple[int, int, int] = CLASSES) -> list[Picture]:
    """Return every picture for which the run has the numbers; one that cannot be drawn says why."""
    samples, wanted = run.samples, []
    if samples is not None or run.planar:
        wanted.append(partial(_planar, classes=classes))
    if run.comparison.curves:
        wanted += [_channel, _confidence]
    if samples is not None and _has_every_class(samples) and len(samples.classifier) <= _PAIR_CLASSES:
        wanted.append(partial(_pairs, some=samples))
    if run.calibration is not None:
        wanted.append(_reliability)
    if any(isinstance(row.get("nc1"), float) for row in run.history):
        wanted.append(_convergence)
    if any(row.get("excess_loss") is not None for row in run.history):
        wanted.append(_approach)
    return [picture(run) for picture in long_work(wanted, run.name, unit="pictures")]


def _has_every_class(some: Activations) -> bool:
    pairs = bool(some.in_pair.all())
    return pairs and len(torch.cat([some.class_a, some.class_b]).unique()) == len(some.classifier)


def _picture(name: str, make: Callable[[], Figure], alt: str, caption: str) -> Picture:
    buffer = io.BytesIO()
    try:
        figure = make()
        # Some figures turn out only here to be impossible, as a logarithmic axis without a number above zero.
        with plotting.style():
            figure.savefig(buffer, format="png", metadata={"Software": None})
    except ValueError as error:
        return Picture(name, None, None, alt, f"Not drawn: {error}")
    return Picture(name, figure, buffer.getvalue(), alt, caption)


def _source(run: RunRecord) -> str:
    said = run.recordings.get(run.mode, {})
    words = [said.get("data"), mode_words(run.mode)]
    words += [f"recording seed {said['seed']}"] if "seed" in said else []
    return f"Data: {', '.join(word for word in words if word)}; command at the foot of the page."


def planar_panels(some: Activations, comparison: Comparison, classes: tuple[int, int, int]) -> list[PlanarPanel]:
    """Return closed form, direct solver and network on the same targets of three classes.

    Closed form and solver use the simplex ETF nearest to the network's classifier and the lambda_H that the fitted beta
    implies. Raises ValueError if a class is out of range or no sample is of these classes only.
    """
    chosen = of_classes(some, classes)
    columns = [column[chosen].numpy() for column in (some.class_a, some.class_b, some.lam)]
    return [
        plotting.planar_panel(title, classifier, features, *columns, classes=classes)
        for title, (classifier, features) in {
            **ideal_features(some, comparison, chosen),
            "network": (some.classifier, some.features[chosen]),
        }.items()
    ]


def of_classes(some: Activations, classes: tuple[int, int, int]) -> torch.Tensor:
    """Return the rows of the first samples of which both classes are among three."""
    three = torch.tensor(classes)
    chosen = (torch.isin(some.class_a, three) & torch.isin(some.class_b, three) & some.in_pair).nonzero()[:, 0]
    if not len(chosen):
        raise ValueError(f"classes: got {classes}, of which no sample is; expected three that were recorded")
    return chosen[:_PLANAR_SAMPLES]


def ideal_features(
    some: Activations, comparison: Comparison, chosen: torch.Tensor
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Return classifier and features of closed form and direct solver on some of the targets."""
    etf, labels = Head.of(some.classifier, some.bias).etf_rows, some.labels[chosen]
    ideal = UFM(Targets(labels), etf.shape[1], 0.0, comparison.feature_decay, classifier=etf)
    response = fixed_classifier(etf, labels, comparison.feature_decay)
    return {
        "closed form": (etf, torch.as_tensor(response.features)),
        "direct solver": (etf, solve(ideal, tol=1e-9, device="cpu").features),
    }


def stored_panels(run: RunRecord) -> list[PlanarPanel]:
    """Return the panels of classes 0, 1 and 2 that a demo stored; raise ValueError if they do not fit together."""
    arrays = run.planar
    if not arrays:
        return []
    try:
        a, b, lam = (arrays[name] for name in ("class_a", "class_b", "lam"))
        return [
            plotting.projected_panel(title, arrays[f"{name}.rows"], arrays[f"{name}.points"], a, b, lam)
            for name, title in _PANELS.items()
        ]
    except (KeyError, IndexError) as error:
        raise ValueError(f"runs: got {run.name!r} with other points than those of a demo ({error!r})") from error


def _planar(run: RunRecord, classes: tuple[int, int, int]) -> Picture:
    def make() -> Figure:
        panels = stored_panels(run) if classes == CLASSES else []
        if not panels and run.samples is not None:
            panels = planar_panels(run.samples, run.comparison, classes)
        return plotting.planar_figure(panels, tuple(map(str, classes)))

    names = f"{classes[0]}, {classes[1]} and {classes[2]}"
    return _picture(
        "planar",
        make,
        f"Features of classes {names} as points in a plane, a panel each for closed form, direct solver and network, "
        "around the rays of the three classifier rows",
        f"Last-layer features of mixed inputs of classes {names} in the plane of the three classifier rows (orthogonal "
        "projection; what is orthogonal to the plane is not seen). All panels have the same targets; closed form and "
        "solver use the simplex ETF nearest to the network's classifier, cross entropy, and the feature penalty that "
        f"the fitted β implies. {_source(run)}",
    )


def _lines(run: RunRecord) -> list[Line]:
    """Return closed form and straight line at their fitted parameters, on a fine grid of lambda."""
    K, comparison = run.num_classes, run.comparison
    lam = np.linspace(0.002, 0.998, 499)
    first = torch.zeros(len(lam), dtype=torch.long)
    labels = pair_labels(first, first + 1, torch.from_numpy(lam), K).numpy()
    smoothing = 0.0 if comparison.labels is None else comparison.labels.smoothing
    labels = (1 - smoothing) * labels + smoothing / K
    lines = []
    if math.isfinite(comparison.beta):
        closed = np.asarray(prox_logsumexp(labels, comparison.beta).logits)
        label = f"closed form, β = {comparison.beta:.3g}"
        lines.append(_line(label, lam, closed, plotting.CLOSED_FORM, "-"))
    if math.isfinite(comparison.slope):
        straight = comparison.slope * (labels - 1 / K)
        label = f"straight line, γ = {comparison.slope:.3g}"
        lines.append(_line(label, lam, straight, plotting.RIVAL, "--"))
    return lines


def _line(label: str, lam: np.ndarray, logits: np.ndarray, colour: str, dashes: str) -> Line:
    # The pair is (0, 1), so class 2 stands for all others.
    za, zb, z0 = logits[:, :3].T
    likely = np.exp(logits - logits.max(1, keepdims=True))
    return Line(label, lam, za - zb, (za + zb) / 2 - z0, 1 / likely.sum(1), colour, dashes)


def _channel(run: RunRecord) -> Picture:
    curves = run.comparison.curves
    return _picture(
        "channel",
        lambda: plotting.channel_figure(curves["network"], curves.get("solver, nearest ETF"), _lines(run)),
        "Two panels against λ from 0 to 1: the channel's width, and its depth, of network, direct solver, closed form "
        "and straight line",
        "Different-class samples: logit width across the decision boundary, and depth along it. The band is one "
        f"standard deviation of the network's samples in the bin of λ. {_source(run)}",
    )


def _confidence(run: RunRecord) -> Picture:
    curves = run.comparison.curves
    return _picture(
        "confidence",
        lambda: plotting.confidence_figure(curves["network"], curves.get("solver, nearest ETF"), _lines(run)),
        "Confidence against λ from 0 to 1 of network, direct solver, closed form and straight line, beside the label's "
        "larger weight",
        f"Mean largest probability of different-class samples. {_source(run)}",
    )


def _pairs(run: RunRecord, some: Activations) -> Picture:
    def make() -> Figure:
        few = slice(_PAIR_SAMPLES)
        columns = (some.class_a[few], some.class_b[few], some.lam[few])
        network = PairPanel("network", centred(some.logits[few].double()), *columns)
        if not math.isfinite(run.comparison.beta):
            return plotting.pair_figure(network)
        theory = closed_form(some.labels[few], run.comparison.beta)
        return plotting.pair_figure(network, PairPanel("closed form", theory, *columns))

    return _picture(
        "pairs",
        make,
        "A square of scatter plots, one for every pair of classes: their logits against each other, the network below "
        "the diagonal and the closed form above it",
        f"Logits of every two classes on the first {min(_PAIR_SAMPLES, len(some.lam))} mixed inputs; closed form at "
        f"the fitted β, same targets. {_source(run)}",
    )


def _reliability(run: RunRecord) -> Picture:
    assert run.calibration is not None
    test = run.calibration.test
    note = f"ECE {test.before.ece:.3f} → {test.after.ece:.3f}\nT = {test.temperature:.2f}"
    panel = ReliabilityPanel("unmixed test inputs", test.before.curve, test.after.curve, note)
    return _picture(
        "reliability",
        lambda: plotting.reliability_figure([panel]),
        f"Accuracy against confidence, as trained (calibration error {test.before.ece:.3f}) and after temperature "
        f"scaling ({test.after.ece:.3f}), beside the diagonal of perfect calibration",
        "Reliability on unmixed test inputs, eval mode: the half that the temperature was not fitted to, 15 bins.",
    )


def _convergence(run: RunRecord) -> Picture:
    return _picture(
        "convergence",
        lambda: plotting.convergence_figure({"network": run.history}),
        "Four panels against the epoch: NC1, NC2, NC3 and the classifier's distance to its nearest simplex ETF",
        "Same-class features of training inputs and classifier, over training; eval mode.",
    )


def _approach(run: RunRecord) -> Picture:
    return _picture(
        "approach",
        lambda: plotting.convergence_figure({"network": run.history}, measures=DEPARTURE),
        "Four panels against the epoch: the excess loss, what closed form and straight line leave of the logits' "
        "variance, and the calibration error of test inputs",
        "How far the network is from fitting its labels, and what closed form and straight line leave unexplained of "
        "its logits, over training; eval mode.",
    )
