"""Same-class features and classifier over training: neural collapse measures and distance to the simplex ETF."""

from pathlib import Path

from figures.drawing import Drawing, script
from figures.networks import main_networks
from ufm.plotting import convergence_figure


def draw(results: Path) -> Drawing:
    """Return the measures against the epoch, a line per data set and way of training."""
    mixed, unmixed = (main_networks(results, kind) for kind in ("mixup", "none"))
    figure = convergence_figure(
        *({title: some.record.history for title, some in networks.items()} for networks in (mixed, unmixed)),
        kinds=("mixup", "not mixed"),
    )
    names = ", ".join(some.name for networks in (mixed, unmixed) for some in networks.values())
    caption = f"""
        Over training: variability of same-class features within classes against between (NC1), distance of their
        class means from a simplex ETF (NC2) and from the classifier (NC3), and relative distance of the classifier
        from its nearest simplex ETF. Data: training images, for mixup runs mixed with another of their class, as in
        training, plain otherwise (so the two are not the same inputs); eval mode, seed 0; from each run's
        metrics.jsonl; runs {names}.
    """
    return Drawing(figure, "Convergence to the simplex ETF", caption)


if __name__ == "__main__":
    script(__file__, __doc__)
