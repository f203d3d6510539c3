"""The figures of one point of the regime suite, from what was recorded of its network."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

import ufm
from experiments.training import TrainConfig
from experiments.training.loop import learning_rate
from ufm._support.pairs import bin_index

# Bins of the heavier class's weight: .5 to .6, ..., .9 to 1.
_BINS = 5
_RATE_GRID = 1000


def point_figures(
    config: TrainConfig, activations: ufm.Activations, test_logits: Float[Tensor, "M K"], test_classes: Int[Tensor, "M"]
) -> dict[str, Any]:
    """Return every figure of a point, as JSON has it.

    Lists over bins are over the weight of the heavier class, .5 to .6, ..., .9 to 1, different-class samples only. What
    has no meaning for the network is None: figures of cross entropy for one trained with squared error, those that need
    lambda_W for one whose classifier is fixed.

    Parameters
    ----------
    config
        How the network was trained.
    activations
        Of mixed training images.
    test_logits, test_classes
        Of unmixed test images (M, K) and (M,).

    Returns
    -------
    dict
        architecture, width, dim, depth, steps, batch_size, seed, mixing, loss, fixed_etf, alpha, num_classes,
        learning_rate, weight_decay: how it was trained. decay_times: sum over the steps of rate times decay.

        excess_loss: E[CE - H(y)] = E KL(y || p). excess_same: the same over same-class samples. excess_theory: the same
        of the closed form at the beta that width_beta names, below which weight decay lets none come. r2_closed_form,
        r2_fit_free, r2_line: of the centred logits, see `ufm.compare`; r2_mixed_fit_free over different-class samples;
        r2_binned, r2_binned_fit_free: of the means per pair and bin. lead: r2_closed_form - r2_line. etf_error, nc1,
        nc2, nc3, in_plane, multiplier, beta_fitted, beta_fit_free, slope.

        width_beta: "fit-free" or "fitted", the beta of the closed form in the next ones (the latter where the former is
        None). width_ratio, depth_ratio: mean width (of the heavier class over the lighter one) and depth per bin over
        those of the closed form on the same samples. channel_width, channel_depth: the means. bias_heavier,
        bias_lighter: E p_a - lambda and E p_b - (1 - lambda) of the heavier class a and the lighter b. leak,
        leak_theory: E[1 - p_a - p_b] and that of the closed form.

        stationarity: E[(y - p) . W h]. decay_term: lambda_W ||W||^2, equal to it at a stationary classifier.
        stationarity_residual: ||E[(y - p) h^T] - lambda_W W|| / (lambda_W ||W||). feature_decay: lambda_H from
        balancedness, lambda_W ||W||^2 = lambda_H E||h||^2. objective, certificate_gap: of `ufm.certify` at the centred
        classifier. certified_distance: 2 gap / lambda_H, a bound on feature_distance = E||h - h*||^2 with h* the
        optimal features for the network's own classifier. inner_gap: F(W, H) - min_H F(W, .), and inner_distance:
        2 inner_gap / lambda_H, a bound too. feature_square: E||h||^2.

        test_accuracy, test_confidence, ece, test_nll: of the unmixed test images.
    """
    figures = _configuration(config, activations) | _calibration(config, test_logits, test_classes)
    law = config.law(activations.logits.shape[1])
    comparison = ufm.compare(activations, law, weight_decay=config.classifier_decay, solver=False)
    scores = {score.name: score for score in comparison.scores}
    closed, free = scores["closed form"], scores.get("fit-free")
    collapse = comparison.collapse
    figures |= {
        "r2_closed_form": closed.r2,
        "r2_fit_free": free.r2 if free else None,
        "r2_line": scores["straight line"].r2,
        "r2_mixed_fit_free": free.r2_mixed if free else None,
        "r2_binned": closed.r2_binned,
        "r2_binned_fit_free": free.r2_binned if free else None,
        "lead": closed.r2 - scores["straight line"].r2,
        "etf_error": comparison.etf_error,
        "nc1": collapse.nc1 if collapse else None,
        "nc2": collapse.nc2 if collapse else None,
        "nc3": collapse.nc3 if collapse else None,
        "in_plane": comparison.in_plane,
        "multiplier": comparison.multiplier,
        "beta_fitted": comparison.beta,
        "beta_fit_free": comparison.beta_fit_free,
        "slope": comparison.slope,
    }
    cross_entropy = config.loss == "cross_entropy"
    beta = comparison.beta if comparison.beta_fit_free is None else comparison.beta_fit_free
    name = "fitted" if comparison.beta_fit_free is None else "fit-free"
    figures |= {"width_beta": name if cross_entropy else None}
    figures |= _excess(activations, beta) if cross_entropy else dict.fromkeys(_EXCESS)
    figures |= _channel(activations, beta) if cross_entropy else dict.fromkeys(_CHANNEL)
    decay = config.classifier_decay
    certified = decay is not None and activations.bias is None
    figures |= _certificate(activations, decay) if certified and decay else dict.fromkeys(_CERTIFICATE)
    return {key: _plain(value) for key, value in figures.items()}


def _configuration(config: TrainConfig, activations: ufm.Activations) -> dict[str, Any]:
    sizes, optimiser = config.network.settings(), config.optimiser
    rates = [learning_rate(optimiser, config.epochs, config.epochs * (i + 0.5) / _RATE_GRID) for i in range(_RATE_GRID)]
    steps = None if config.epoch_steps is None else config.epochs * config.epoch_steps
    return {
        "architecture": config.network.architecture,
        "width": sizes.get("width"),
        "depth": sizes.get("depth"),
        "dim": activations.features.shape[1],
        "steps": steps,
        "batch_size": config.batch_size,
        "seed": config.seed,
        "mixing": config.mixing.kind,
        "loss": config.loss,
        "fixed_etf": config.network.etf_multiplier is not None,
        "alpha": config.mixing.alpha,
        "num_classes": activations.logits.shape[1],
        "learning_rate": optimiser.learning_rate,
        "weight_decay": optimiser.weight_decay,
        "decay_times": None if steps is None else steps * optimiser.weight_decay * sum(rates) / len(rates),
    }


def _calibration(config: TrainConfig, logits: Float[Tensor, "M K"], classes: Int[Tensor, "M"]) -> dict[str, Any]:
    if config.loss != "cross_entropy":
        # Its outputs are no logits, so that they have no confidence.
        accuracy = (logits.argmax(1) == classes).double().mean().item()
        return {"test_accuracy": accuracy, "test_confidence": None, "ece": None, "test_nll": None}
    test = ufm.measure_calibration(logits, classes)
    return {
        "test_accuracy": test.accuracy,
        "test_confidence": test.confidence,
        "ece": test.ece,
        "test_nll": test.nll,
    }


_EXCESS = ("excess_loss", "excess_same", "excess_theory")


def _excess(activations: ufm.Activations, beta: float) -> dict[str, Any]:
    y, z = activations.labels, activations.logits.double()
    own, theory = (
        (torch.special.xlogy(y, y) - y * torch.log_softmax(logits, 1)).sum(1)
        for logits in (z, torch.as_tensor(ufm.prox_logsumexp(y, beta).logits))
    )
    same = activations.class_a == activations.class_b
    return dict(zip(_EXCESS, (own.mean(), own[same].mean(), theory.mean()), strict=True))


@dataclass(frozen=True, eq=False)
class _Mixed:
    """Different-class samples: weight of the heavier class, and values of the heavier, the lighter and the others."""

    weight: Float[Tensor, "n"]
    heavier: Int[Tensor, "n"]
    lighter: Int[Tensor, "n"]

    @staticmethod
    def of(activations: ufm.Activations, rows: Tensor) -> "_Mixed":
        lam, a, b = activations.lam[rows].double(), activations.class_a[rows], activations.class_b[rows]
        first = lam >= 0.5
        return _Mixed(torch.maximum(lam, 1 - lam), torch.where(first, a, b), torch.where(first, b, a))

    def values(self, table: Float[Tensor, "n K"]) -> tuple[Tensor, Tensor]:
        """Return the entries of the heavier and of the lighter class."""
        one, other = (table.gather(1, k[:, None])[:, 0] for k in (self.heavier, self.lighter))
        return one, other

    def means(self, values: Float[Tensor, "n"]) -> Float[Tensor, "5"]:
        """Return the means per bin, NaN where it is empty."""
        index = bin_index((self.weight - 0.5) * 2, _BINS)
        return torch.bincount(index, values, _BINS) / torch.bincount(index, minlength=_BINS)


_CHANNEL = (
    "channel_width",
    "channel_depth",
    "width_ratio",
    "depth_ratio",
    "bias_heavier",
    "bias_lighter",
    "leak",
    "leak_theory",
)


def _channel(activations: ufm.Activations, beta: float) -> dict[str, Any]:
    rows = activations.class_a != activations.class_b
    mixed, K = _Mixed.of(activations, rows), activations.logits.shape[1]
    closed = torch.as_tensor(ufm.prox_logsumexp(activations.labels[rows], beta).logits)
    found = {}
    for name, z in (("network", activations.logits[rows].double()), ("theory", closed)):
        one, other = mixed.values(z)
        p_one, p_other = mixed.values(torch.softmax(z, 1))
        depth = (one + other) / 2 - (z.sum(1) - one - other) / (K - 2)
        found[name] = {
            "channel_width": mixed.means(one - other),
            "channel_depth": mixed.means(depth),
            "bias_heavier": mixed.means(p_one - mixed.weight),
            "bias_lighter": mixed.means(p_other - (1 - mixed.weight)),
            "leak": mixed.means(1 - p_one - p_other),
        }
    network, theory = found["network"], found["theory"]
    return network | {
        "width_ratio": network["channel_width"] / theory["channel_width"],
        "depth_ratio": network["channel_depth"] / theory["channel_depth"],
        "leak_theory": theory["leak"],
    }


_CERTIFICATE = (
    "stationarity",
    "decay_term",
    "stationarity_residual",
    "feature_decay",
    "objective",
    "certificate_gap",
    "certified_distance",
    "feature_distance",
    "inner_gap",
    "inner_distance",
    "feature_square",
)


def _certificate(activations: ufm.Activations, weight_decay: float) -> dict[str, Any]:
    y, h, w = activations.labels, activations.features.double(), activations.classifier.double()
    residual = y - torch.softmax(activations.logits.double(), 1)
    gradient = residual.T @ h / len(h)
    decay_term = weight_decay * w.square().sum()
    # Softmax does not see what all rows have in common, so that the centred classifier is the better point.
    w = w - w.mean(0)
    feature_square = h.square().sum(1).mean()
    feature_decay = (weight_decay * w.square().sum() / feature_square).item()
    problem = ufm.UFM(ufm.Targets(y), h.shape[1], weight_decay, feature_decay)
    certificate = ufm.certify(problem, w, h)
    best = torch.as_tensor(ufm.fixed_classifier(w, y, feature_decay).features)
    inner_gap = certificate.objective - ufm.certify(problem, w, best).objective
    values = (
        (residual * activations.logits.double()).sum(1).mean(),
        decay_term,
        torch.linalg.matrix_norm(gradient - weight_decay * activations.classifier.double())
        / (weight_decay * torch.linalg.matrix_norm(activations.classifier.double())),
        feature_decay,
        certificate.objective,
        certificate.gap,
        2 * certificate.gap / feature_decay,
        (h - best).square().sum(1).mean(),
        inner_gap,
        2 * inner_gap / feature_decay,
        feature_square,
    )
    return dict(zip(_CERTIFICATE, values, strict=True))


def _plain(value: Any) -> Any:
    """Return a number, text or list of numbers, None for what is not finite."""
    if isinstance(value, Tensor):
        value = value.tolist()
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
