"""Networks whose classifier is a fixed simplex ETF."""

from pathlib import Path

from figures.drawing import Drawing, script
from figures.networks import PROJECTION, main_networks, planar_source
from ufm.plotting import planar_figure


def draw(results: Path) -> Drawing:
    """Return one panel per data set."""
    shown = main_networks(results, "etf")
    caption = f"""
        Networks trained with mixup (alpha = 1), their classifier fixed to a simplex ETF of row norm 1 without bias.
        {PROJECTION} {planar_source(shown.values())}
    """
    return Drawing(
        planar_figure([some.panel(title) for title, some in shown.items()]), "Networks with a fixed ETF", caption
    )


if __name__ == "__main__":
    script(__file__, __doc__)
