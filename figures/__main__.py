"""Draw the project's figures from committed results, as PNG and PDF with their captions.

python -m figures
python -m figures --only beta minority --out pictures
python -m figures --names
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from figures import NAMES
from ufm._support.console import run_command

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Figures:
    """Which figures to draw, from what, and where to put them."""

    only: tuple[str, ...] | None = None
    """names of figures; all by default"""
    results: str | None = None
    """folder of results; the checkout's experiments/results by default"""
    out: str | None = None
    """folder for the files; the checkout's figures/output by default"""
    names: bool = False
    """print the figures' names, and draw nothing"""

    def run(self) -> int:
        """Draw each figure and print the paths of its files, or print the names; return the exit status."""
        if self.only == ():
            raise ValueError("only: got no name, expected some; without the option all figures are drawn")
        if self.names:
            print("\n".join(NAMES))
            return 0
        from figures.drawing import OUTPUT, RESULTS, draw_all

        draw_all(self.only or NAMES, Path(self.results or ROOT / RESULTS), Path(self.out or ROOT / OUTPUT))
        return 0


def main() -> int:
    """Run the command line and return its exit status."""
    return run_command(Figures, prog="python -m figures", description=__doc__)


if __name__ == "__main__":
    sys.exit(main())
