"""The same networks trained with mixup, without mixing, and with squared error, all shown mixed images."""

from pathlib import Path

from figures.drawing import SCREEN_DPI, Drawing, script
from figures.networks import DATA, PROJECTION, main_networks, planar_source
from ufm.plotting import planar_figure

_KINDS = {"mixup": "mixup", "none": "not mixed", "mse": "mixup, squared error"}


def draw(results: Path) -> Drawing:
    """Return the grid: ways of training by data sets."""
    shown = {kind: main_networks(results, kind) for kind in _KINDS}
    panels = [some.panel("") for networks in shown.values() for some in networks.values()]
    figure = planar_figure(
        panels,
        columns=len(DATA),
        column_titles=list(DATA.values()),
        row_titles=list(_KINDS.values()),
        own_limits=True,
    )
    everything = [some for networks in shown.values() for some in networks.values()]
    caption = f"""
        Trained with mixup and cross entropy, without mixing (shown mixed images all the same), and with mixup and
        squared error. {PROJECTION} {planar_source(everything)}
    """
    return Drawing(figure, "With mixup, without, and with squared error", caption, dpi=SCREEN_DPI)


if __name__ == "__main__":
    script(__file__, __doc__)
