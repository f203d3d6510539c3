"""Reading a run folder: its numbers, and the curves that the figures share."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

import ufm
from ufm.plotting import CLOSED_FORM, RIVAL, Line
from ufm.targets import pair_labels


def read_results(run: Path) -> dict[str, Any]:
    """Return the numbers of a run folder; raise ValueError if it has none."""
    path = run / "results.json"
    if not path.is_file():
        raise ValueError(f"run: got {str(run)!r}, which has no results.json; expected the folder of a finished run")
    return json.loads(path.read_text(encoding="utf-8"))


def curve(results: dict[str, Any], mode: str, name: str) -> ufm.ChannelCurve:
    """Return one of a comparison's channel curves."""
    values = results["comparison"][mode]["curves"][name]
    return ufm.ChannelCurve(**{key: np.array(value, float) for key, value in values.items() if value is not None})


def predictions(results: dict[str, Any], mode: str) -> list[Line]:
    """Return closed form and straight line at their fitted parameters, on a fine grid of lambda."""
    comparison = results["comparison"][mode]
    lam = np.linspace(0.002, 0.998, 499)
    K = results["theory"]["num_classes"]
    first = torch.zeros(len(lam), dtype=torch.long)
    labels = pair_labels(first, first + 1, torch.from_numpy(lam), K).numpy()
    closed = np.asarray(ufm.prox_logsumexp(labels, comparison["beta"]).logits)
    straight = comparison["slope"] * (labels - 1 / K)
    return [
        _line(f"closed form, β = {comparison['beta']:.0f}", lam, closed, CLOSED_FORM, "-"),
        _line(f"straight line, γ = {comparison['slope']:.1f}", lam, straight, RIVAL, "--"),
    ]


def _line(label: str, lam: np.ndarray, logits: np.ndarray, colour: str, dashes: str) -> Line:
    # The pair is (0, 1), so class 2 stands for all others.
    za, zb, z0 = logits[:, :3].T
    confidence = np.exp(logits).max(1) / np.exp(logits).sum(1)
    return Line(label, lam, za - zb, (za + zb) / 2 - z0, confidence, colour, dashes)
