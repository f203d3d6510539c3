"""Reliability diagrams on test images, with accuracy and ECE."""

from pathlib import Path

from figures.drawing import SCREEN_DPI, Drawing, script
from figures.networks import DATA, Shown, main_networks
from ufm.plotting import ReliabilityPanel, reliability_figure


def draw(results: Path) -> Drawing:
    """Return two rows of diagrams, with mixup and without; one column per data set."""
    shown = [
        (f"{title}, {words}", some)
        for kind, words in (("mixup", "mixup"), ("none", "not mixed"))
        for title, some in main_networks(results, kind).items()
    ]
    figure = reliability_figure([_panel(title, some) for title, some in shown], columns=len(DATA))
    caption = f"""
        Accuracy against confidence on unmixed test images, 15 bins of equal width, as trained and after temperature
        scaling; acc: accuracy; ECE: expected calibration error before and after; T: temperature, fitted on one random
        half of the test images, all figures from the other half. Area of a marker: share of samples; faint: bins of
        fewer than 10. Eval mode, seed 0; runs {", ".join(some.name for _, some in shown)}.
    """
    return Drawing(figure, "Reliability diagrams", caption, dpi=SCREEN_DPI)


def _panel(title: str, some: Shown) -> ReliabilityPanel:
    test = some.calibration.test
    note = (
        f"acc {100 * test.before.accuracy:.1f} %\n"
        f"ECE {test.before.ece:.3f} → {test.after.ece:.3f}\n"
        f"T = {test.temperature:.2f}"
    )
    return ReliabilityPanel(title, test.before.curve, test.after.curve, note)


if __name__ == "__main__":
    script(__file__, __doc__)
