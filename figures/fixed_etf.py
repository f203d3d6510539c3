"""Networks whose classifier is a fixed simplex ETF."""

from pathlib import Path

from figures.drawing import SCREEN_DPI, Drawing, script
from figures.networks import PROJECTION, main_networks, planar_source
from ufm.plotting import planar_figure


def draw(results: Path) -> Drawing:
    """Return one panel per data set."""
    shown = main_networks(results, "etf")
    caption = f"""
        Networks trained with mixup (alpha = 1), their classifier fixed to a simplex ETF of row norm 1 without bias.
        {PROJECTION} {planar_source(shown.values())}
    """
    figure = planar_figure([some.panel(title) for title, some in shown.items()])
    return Drawing(figure, "Networks with a fixed ETF", caption, dpi=SCREEN_DPI)


if __name__ == "__main__":
    script(__file__, __doc__)
