"""What the figures of sweeps share: reading a sweep's folder, and the words for its methods."""

from pathlib import Path
from typing import Any

from experiments.sweeps.summary import read_sweep

_TITLES = {"lbfgs": "L-BFGS", "gradient_descent": "gradient descent", "adam": "Adam", "newton": "Newton"}


def read_lines(sweep: Path) -> list[dict[str, Any]]:
    """Return the lines of a sweep's folder whose solve did not fail; raise ValueError if there are none."""
    lines = [line for line in read_sweep(sweep)[1] if line["status"] != "failed"]
    if not lines:
        raise ValueError(f"sweep: got {str(sweep)!r}, which has no solved point, expected a finished sweep's folder")
    return lines


def title(spelling: str) -> str:
    """Return the words for a method's spelling."""
    name, _, settings = spelling.partition(":")
    if name == "momentum":
        name = "SGD with momentum" if settings else "accelerated gradient"
    words = [_TITLES.get(name, name)]
    for setting in settings.split(",") if settings else []:
        word, _, value = setting.partition("=")
        if word == "learning_rate":
            words.append(f"rate {float(value):g}")
        elif not (spelling.startswith("momentum") and word == "momentum"):
            words.append(f"{word} {value}")
    return ", ".join(words)
