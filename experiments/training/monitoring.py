"""What is measured of a network during training, in evaluation mode."""

import math
from dataclasses import asdict
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

import ufm
from experiments.data import ImageData
from experiments.mixing import mixed_batches
from experiments.networks import Network
from experiments.training.config import TrainConfig

_PROBE = 2560
_BATCH = 500


@torch.no_grad()
def logits_of(network: Network, images: UInt8[Tensor, "N C H W"], data: ImageData) -> Float[Tensor, "N K"]:
    """Return the logits of unmixed images, in the mode that the network is in; on the CPU."""
    rows = [network(data.standardise(batch.to(network.device))).float().cpu() for batch in images.split(_BATCH)]
    return torch.cat(rows)


def measure(network: Network, config: TrainConfig, data: ImageData) -> dict[str, Any]:
    """Return the figures of one epoch, of the network in evaluation mode; its mode is left as it was.

    test_accuracy, test_ece, test_nll: on unmixed test images. The others are left out where the network has collapsed
    to one point. nc1 to nc4: of same-class features of training images, mixed (manifold mixup's as images). etf_error,
    multiplier: of the classifier. beta, slope, r2, r2_line: fitted to mixed training images, see `ufm.compare`.
    beta_fit_free: from the classifier, None where weight decay does not imply one. width_50, depth_50 and so on: of the
    channel near lambda 0.5, 0.7 and 0.9 (`ufm.channel_points`), measured; predicted_width_50 and so on: by the closed
    form at the fitted beta, on the same samples.
    """
    training = network.training
    network.eval()
    try:
        test = ufm.measure_calibration(logits_of(network, data.test_images, data), data.test_classes)
        mixed = _record(network, config, data, None)
        # Of an unmixed network the same-class features are those of the images themselves.
        same = _record(network, config, data, True)
    finally:
        network.train(training)
    figures = {"test_accuracy": test.accuracy, "test_ece": test.ece, "test_nll": test.nll}
    try:
        return figures | _theory(config, data, mixed, same)
    except ValueError:
        # A classifier or features that have collapsed to one point have no nearest ETF; training goes on.
        return figures


def _theory(
    config: TrainConfig, data: ImageData, mixed: ufm.Activations, same: ufm.Activations
) -> dict[str, float | None]:
    comparison = ufm.compare(mixed, config.law(data.num_classes), weight_decay=config.classifier_decay, solver=False)
    closed, line = comparison.score("closed form"), comparison.score("straight line")
    figures = {
        **asdict(ufm.neural_collapse(same.features, same.class_a, same.classifier, same.bias)),
        "etf_error": comparison.etf_error,
        "multiplier": comparison.multiplier,
        "beta": comparison.beta,
        "beta_fit_free": comparison.beta_fit_free,
        "slope": comparison.slope,
        "r2": closed.r2,
        "r2_line": line.r2,
    }
    predicted = torch.as_tensor(ufm.prox_logsumexp(mixed.labels, comparison.beta).logits)
    for prefix, logits in (("", mixed.logits), ("predicted_", predicted)):
        points = ufm.channel_points(logits, mixed.class_a, mixed.class_b, mixed.lam)
        for i, lam in enumerate(points.lam):
            at = f"{100 * lam:.0f}"
            figures |= {f"{prefix}width_{at}": points.width[i], f"{prefix}depth_{at}": points.depth[i]}
    # JSON has no NaN, which stands for "no sample there".
    return {name: None if value is None or math.isnan(value) else float(value) for name, value in figures.items()}


def _record(network: Network, config: TrainConfig, data: ImageData, same_class: bool | None) -> ufm.Activations:
    mixing = config.mixing if same_class else config.evaluation_mixing()
    batches = mixed_batches(
        data, mixing, _PROBE, seed=config.seed, same_class=same_class, batch_size=512, device=network.device
    )
    return ufm.record(network, batches, classifier="head")
