"""Draw the figures of a run: `python -m figures [--run experiments/results/demo] [--out figures/output]`."""

import sys
from dataclasses import dataclass
from pathlib import Path

from figures import draw_all
from ufm.console import parse


@dataclass(frozen=True)
class Config:
    """Which run to draw, and where to."""

    run: str = "experiments/results/demo"
    """folder with results.json and planar.safetensors"""
    out: str = "figures/output"
    """folder for the PNG and PDF files"""


def main() -> int:
    """Draw every figure and print its path; return the exit status."""
    try:
        config = parse(Config, prog="python -m figures", description=__doc__)
        for path in draw_all(Path(config.run), Path(config.out)).values():
            print(path)
    except ValueError as error:
        print(f"figures: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
