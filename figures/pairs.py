"""Logits of every two classes, network against closed form: what a plane through three classes hides."""

from pathlib import Path

import ufm
from figures.drawing import SCREEN_DPI, Drawing, script
from figures.networks import network, source
from ufm.plotting import PairPanel, pair_figure

_RUN = "fashion-mixup"


def draw(results: Path) -> Drawing:
    """Return the pair plot of all ten classes of Fashion-MNIST."""
    shown = network(results, _RUN)
    some, beta = shown.activations, shown.comparison.beta
    closed = ufm.prox_logsumexp(some.labels.double(), beta).logits
    columns = some.class_a, some.class_b, some.lam
    figure = pair_figure(
        PairPanel("network", shown.logits, *columns), PairPanel(f"closed form at β = {beta:.0f}", closed, *columns)
    )
    caption = f"""
        Centred logits of every two classes of Fashion-MNIST (0 T-shirt, 1 trouser, 2 pullover, 3 dress, 4 coat, 5
        sandal, 6 shirt, 7 sneaker, 8 bag, 9 ankle boot): a CNN trained with mixup (alpha = 1), and the closed form
        with its one fitted number, on the same labels. Projection: each cell shows two of the ten logits.
        {source([shown], f"{len(some.lam):,} committed samples")}
    """
    return Drawing(figure, "Every pair of classes", caption, dpi=SCREEN_DPI)


if __name__ == "__main__":
    script(__file__, __doc__)
