"""`ufm figures`."""

import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Figures:
    """Draw the project's figures as PNG and PDF, with their captions; from a checkout, which holds their results."""

    only: tuple[str, ...] | None = None
    """names of figures; all by default"""
    results: str | None = None
    """folder of results; the checkout's experiments/results by default"""
    out: str | None = None
    """folder for the files; the checkout's figures/output by default"""
    names: bool = False
    """print the figures' names, and draw nothing"""

    def run(self) -> int:
        """Draw each and print the paths of its files, or print the names."""
        if self.only == ():
            raise ValueError("only: got no name, expected some; without the option all figures are drawn")
        root = _checkout()
        if str(root) not in sys.path:
            sys.path.insert(0, str(root))
        from figures import NAMES
        from figures.drawing import draw_all

        if self.names:
            print("\n".join(NAMES))
        else:
            results, out = (Path(given) if given else None for given in (self.results, self.out))
            draw_all(
                self.only or NAMES, results or root / "experiments" / "results", out or root / "figures" / "output"
            )
        return 0


def _checkout() -> Path:
    for root in (Path.cwd(), Path(__file__).parents[2]):
        if (root / "figures" / "drawing.py").is_file():
            return root
    raise ValueError(
        "figures: got no checkout, here or where the package lies, expected one: neither the figures nor the results "
        "that they draw are part of the installed package"
    )
