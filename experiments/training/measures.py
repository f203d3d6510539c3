"""What is measured of a network during training, in evaluation mode."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

import ufm
from experiments.data import ImageData
from experiments.mixing import mixed_batches
from experiments.networks import Network
from experiments.training.config import TrainConfig

_PROBE = 2560
_BATCH = 500
_LAM = (0.5, 0.7, 0.9)
_HALF_WINDOW = 0.05


@torch.no_grad()
def logits_of(network: nn.Module, images: UInt8[Tensor, "N C H W"], data: ImageData) -> Float[Tensor, "N K"]:
    """Return the logits of unmixed images, in the mode that the network is in; on the CPU."""
    device = next(network.parameters()).device
    rows = [network(data.standardise(batch.to(device))).float().cpu() for batch in images.split(_BATCH)]
    return torch.cat(rows)


def measure(network: Network, config: TrainConfig, data: ImageData) -> dict[str, Any]:
    """Return the figures of one epoch, of the network in evaluation mode; its mode is left as it was.

    test_accuracy, test_ece, test_nll: on unmixed test images. nc1 to nc4: of same-class features of training images,
    mixed as in training. etf_error, multiplier: of the classifier. beta, slope, r2, r2_line: fitted to mixed training
    images, see `ufm.compare`. beta_fit_free: from the classifier, None where weight decay does not imply one. width_50,
    depth_50 and so on: of the channel near lambda 0.5, 0.7 and 0.9, measured; predicted_width_50 and so on: by the
    closed form at the fitted beta, on the same samples.
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
    comparison = ufm.compare(mixed, config.law(data.num_classes), weight_decay=config.classifier_decay, solver=False)
    collapse = ufm.neural_collapse(same.features, same.class_a, same.classifier, same.bias)
    closed, line = comparison.score("closed form"), comparison.score("straight line")
    return {
        "test_accuracy": test.accuracy,
        "test_ece": test.ece,
        "test_nll": test.nll,
        **asdict(collapse),
        "etf_error": comparison.etf_error,
        "multiplier": comparison.multiplier,
        "beta": comparison.beta,
        "beta_fit_free": comparison.beta_fit_free,
        "slope": comparison.slope,
        "r2": closed.r2,
        "r2_line": line.r2,
        **channel_at(mixed, comparison.beta),
    }


def _record(network: Network, config: TrainConfig, data: ImageData, same_class: bool | None) -> ufm.Activations:
    device = next(network.parameters()).device
    mixing = config.mixing if same_class else config.evaluation_mixing()
    batches: Iterator[ufm.MixedBatch] = mixed_batches(
        data, mixing, _PROBE, seed=config.seed, same_class=same_class, batch_size=512, device=device
    )
    return ufm.record(network, batches, classifier="head")


def channel_at(activations: ufm.Activations, beta: float) -> dict[str, float | None]:
    """Return width and depth of the channel near three lambdas, measured and predicted; None where no sample is.

    Each is the mean over different-class samples whose larger weight is within 0.05 of the lambda.
    """
    a, b, lam = activations.class_a, activations.class_b, activations.lam.double()
    predicted = torch.as_tensor(ufm.prox_logsumexp(activations.labels, beta).logits)
    figures: dict[str, float | None] = {}
    major = torch.maximum(lam, 1 - lam)
    for at in _LAM:
        near = ((major - at).abs() <= _HALF_WINDOW) & (a != b)
        for prefix, logits in (("", activations.logits.double()), ("predicted_", predicted)):
            for name in ("width", "depth"):
                figures[f"{prefix}{name}_{round(100 * at)}"] = None
            if bool(near.any()):
                first, second = torch.where(lam >= 0.5, a, b)[near], torch.where(lam >= 0.5, b, a)[near]
                z = logits[near]
                za, zb = (z.gather(1, k[:, None])[:, 0] for k in (first, second))
                rest = (z.sum(1) - za - zb) / (z.shape[1] - 2)
                figures[f"{prefix}width_{round(100 * at)}"] = (za - zb).mean().item()
                figures[f"{prefix}depth_{round(100 * at)}"] = ((za + zb) / 2 - rest).mean().item()
    return figures
