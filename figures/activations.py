"""Mixed training images in the classifier plane, architectures by data sets."""

from pathlib import Path

from figures.drawing import SCREEN_DPI, Drawing, script
from figures.networks import ARCHITECTURES, DATA, PROJECTION, network, planar_source
from ufm.plotting import planar_figure

# What each data set's main run, <data>-mixup, is; other architectures have theirs in their name.
_MAIN = {"digits": "cnn", "mnist": "cnn", "fashion": "cnn", "cifar": "resnet18"}
_WORDS = {"cnn": "cnn", "resnet18": "resnet", "vit": "vit"}


def draw(results: Path) -> Drawing:
    """Return the grid of all networks that were trained with mixup, free classifier."""
    names = [
        f"{data}-mixup" if _MAIN[data] == architecture else f"{data}-{_WORDS[architecture]}-mixup"
        for architecture in ARCHITECTURES
        for data in DATA
    ]
    shown = {name: network(results, name) for name in names}
    accuracy = {name: some.record.history[-1]["test_accuracy"] for name, some in shown.items()}
    figure = planar_figure(
        [some.panel(f"{100 * accuracy[name]:.1f} %") for name, some in shown.items()],
        columns=len(DATA),
        column_titles=list(DATA.values()),
        row_titles=list(ARCHITECTURES.values()),
        own_limits=True,
    )
    caption = f"""
        Networks trained with mixup (alpha = 1): architectures by data sets, with test accuracy. {PROJECTION}
        {planar_source(shown.values())}
    """
    return Drawing(figure, "Features of mixed images, architectures by data sets", caption, dpi=SCREEN_DPI)


if __name__ == "__main__":
    script(__file__, __doc__)
