"""Closed form, direct solver and networks in one picture."""

from pathlib import Path

import torch

import ufm
from figures.drawing import Drawing, script
from figures.networks import CLASSES, PROJECTION, network, planar_source
from ufm.plotting import planar_figure, planar_panel

_DIM, _NODES = 32, 12


def draw(results: Path) -> Drawing:
    """Return four panels: closed form, solver from a random start, network with mixup, network without."""
    mixed, unmixed = (network(results, f"fashion-20-long-{which}", "regime") for which in ("seed1", "none"))
    beta = mixed.comparison.beta_fit_free
    if beta is None:
        raise ValueError(f"results: got {mixed.name!r} without a fit-free beta, expected one")
    some = mixed.activations
    feature_decay = mixed.comparison.feature_decay * mixed.comparison.beta / beta
    law = ufm.Mixup(some.logits.shape[1], alpha=1.0)

    etf = ufm.simplex_etf(len(some.classifier), multiplier=mixed.comparison.multiplier)
    response = ufm.fixed_classifier(etf, some.labels.double(), feature_decay)
    columns = some.class_a, some.class_b, some.lam
    closed = planar_panel("closed form", etf, response.features, *columns, CLASSES, scale=True)

    weight_decay = ufm.penalty_product(law, beta, nodes=_NODES) / feature_decay
    targets = law.targets(_NODES)
    solution = ufm.solve(ufm.UFM(targets, _DIM, weight_decay, feature_decay), seed=0, device="cpu")
    if not solution.converged:
        raise RuntimeError(f"agreement: the solver did not converge ({solution.message})")
    solved = planar_panel(
        "direct solver, random start",
        solution.classifier,
        solution.features,
        torch.as_tensor(targets.class_a),
        torch.as_tensor(targets.class_b),
        torch.as_tensor(targets.lam),
        CLASSES,
        scale=True,
    )
    figure = planar_figure(
        [closed, solved, mixed.panel("network, mixup"), unmixed.panel("network, not mixed")], own_limits=True
    )
    caption = f"""
        Closed form on the network's labels at beta = {beta:.0f}, which the network's classifier and weight decay imply:
        nothing is fitted. The UFM itself (K = 10, d = {_DIM}, {_NODES} values of lambda) minimised from a random start
        with seed 0 at the penalties that this beta implies, certified gap {solution.certificate.gap:.0e}. Perceptrons
        that have fitted their labels, trained on 20 images per class of Fashion-MNIST with and without mixup
        (alpha = 1). {PROJECTION} {planar_source([mixed, unmixed])}
    """
    return Drawing(figure, "Closed form, direct solver and network", caption)


if __name__ == "__main__":
    script(__file__, __doc__)
