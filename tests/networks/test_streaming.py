"""One pass gives what two passes over all samples give, however the samples are cut and whoever saw them."""

import dataclasses
import itertools
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

import ufm
from tests.helpers import strategies

K, D = 4, 6


def network(seed: int, samples: int = 300, offset: float = 0.0) -> tuple[torch.Tensor, ...]:
    """Return features, soft labels, classifier and bias, with every class among the unmixed samples."""
    rng = np.random.default_rng(seed)
    W, b = torch.from_numpy(rng.normal(size=(K, D))), torch.from_numpy(rng.normal(size=K))
    a, other = torch.from_numpy(rng.integers(K, size=(2, samples)))
    a[:K] = other[:K] = torch.arange(K)
    y = ufm.PairTargets(K, a, other, torch.from_numpy(rng.random(samples))).labels
    return y @ W + torch.from_numpy(rng.normal(size=(samples, D))) + offset, y, W, b


def reference(h: torch.Tensor, y: torch.Tensor, W: torch.Tensor, b: torch.Tensor) -> dict[str, float]:
    """Return the measures by the functions that see all samples at once."""
    z, decoded = h @ W.T + b, ufm.decode_labels(y, smoothing=0.0)
    one = decoded.classes == 1
    collapse = ufm.neural_collapse(h[one], decoded.class_a[one], W, b)
    curve = ufm.channel_curve(z, decoded.class_a, decoded.class_b, decoded.lam)
    test = ufm.measure_calibration(z[one], decoded.class_a[one])
    values = {f"curve {f.name}": getattr(curve, f.name) for f in dataclasses.fields(curve)}
    values |= {
        "accuracy": test.accuracy,
        "ece": test.ece,
        "excess": ufm.measure_departure(ufm.Activations.of(h, W, y, b), 1.0).excess,
    }
    return {**dataclasses.asdict(collapse), **{x: v for x, v in values.items() if v is not None}}


def streamed(metric: ufm.CollapseMetric) -> dict[str, float]:
    found = metric.compute()
    values = {f.name: getattr(found, f.name) for f in dataclasses.fields(found) if f.name != "channel"}
    values |= {f"curve {f.name}": getattr(found.channel, f.name) for f in dataclasses.fields(found.channel)}
    return {name: value for name, value in values.items() if value is not None}


@given(strategies.seeds, st.lists(st.integers(1, 299), max_size=6), st.sampled_from([0.0, 1e4]))
def test_one_pass_is_exact_however_it_is_cut(seed: int, cuts: list[int], offset: float):
    h, y, W, b = network(seed, offset=offset)
    metric = ufm.CollapseMetric(K, W, b, class_means=means(h, y))
    edges = sorted({0, *cuts, 300})
    for start, end in itertools.pairwise(edges):
        metric.update(h[start:end], y[start:end])
    found = streamed(metric)
    # An offset common to all features costs the digits that it takes up.
    for name, value in reference(h, y, W, b).items():
        np.testing.assert_allclose(
            found[name], value, rtol=1e-10 * (1 + offset), atol=1e-10 * (1 + offset), err_msg=name
        )
    assert found["samples"] == 300


@given(strategies.seeds)
def test_a_narrow_spread_about_a_wide_channel_keeps_its_digits(seed: int):
    rng = np.random.default_rng(seed)
    y = ufm.PairTargets(3, *torch.tensor([[0], [1]]).expand(2, 90), torch.full((90,), 0.7, dtype=torch.float64)).labels
    z = torch.tensor([1e6, 0.0, 0.0], dtype=torch.float64) + torch.from_numpy(1e-4 * rng.normal(size=(90, 3)))
    metric = ufm.CollapseMetric(3)
    for part in range(0, 90, 30):
        metric.update(z[part : part + 30], y[part : part + 30], z[part : part + 30])
    width = (z[:, 0] - z[:, 1]).numpy()
    # Differences of the widths are exact to 1e-10 at this size; a mean of squares would leave no digit at all.
    np.testing.assert_allclose(metric.compute().channel.width_std[7], width.std(), rtol=1e-5)


def means(h: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    one = y.max(1).values == 1
    return torch.stack([h[one & (y[:, k] == 1)].mean(0) for k in range(K)])


@given(strategies.seeds, st.integers(1, 4))
def test_parts_that_others_saw_are_merged(seed: int, parts: int):
    h, y, W, b = network(seed)
    whole, merged = ufm.CollapseMetric(K, W, b), ufm.CollapseMetric(K, W, b)
    whole.update(h, y)
    others = []
    for rows in np.array_split(np.arange(300), parts):
        other = ufm.CollapseMetric(K, W, b)
        other.update(h[rows], y[rows])
        # As another process would send it.
        others.append(pickle.loads(pickle.dumps(other)))
    merged.merge_state(*others)
    one, other = streamed(whole), streamed(merged)
    for name in one:
        np.testing.assert_allclose(other[name], one[name], rtol=1e-10, atol=1e-12, err_msg=name)
    np.testing.assert_allclose(merged.class_means, whole.class_means, rtol=1e-12, atol=1e-12)
    merged.reset()
    assert merged.compute().samples == 0
    assert np.isnan(merged.compute().nc1)


def test_classes_and_given_logits():
    h, y, W, b = network(0)
    one = y.max(1).values == 1
    classes = y[one].argmax(1)
    soft, hard = ufm.CollapseMetric(K, W), ufm.CollapseMetric(K)
    soft.update(h[one], y[one], h[one] @ W.T + b)
    hard.update(h[one].numpy(), classes.numpy(), (h[one] @ W.T + b).numpy())
    a, c = soft.compute(), hard.compute()
    assert (a.nc1, a.nc2, a.ece, a.excess) == (c.nc1, c.nc2, c.ece, c.excess)
    assert np.isnan(c.nc3)
    assert np.isnan(c.etf_error)
    bare = ufm.CollapseMetric(K)
    bare.update(h, y)
    assert np.isnan(bare.compute().excess)
    assert bare.compute().samples == 300


def test_smoothed_labels_have_their_own_excess():
    law = ufm.LabelSmoothing(ufm.Mixup(K), 0.1)
    optimum = ufm.joint_optimum(law, 1e-3, 1e-3)
    y = law.targets(4).labels
    response = optimum.response(y, D)
    W = optimum.classifier(D)
    metric = ufm.CollapseMetric(K, W, smoothing=0.1)
    metric.update(response.features, y)
    found = metric.compute()
    assert found.unmixed == K
    departure = ufm.measure_departure(ufm.Activations.of(response.features, W, y), float(optimum.beta))
    assert found.excess == pytest.approx(departure.excess, rel=1e-9)


def test_half_precision_is_near():
    h, y, W, b = network(1)
    metrics = [ufm.CollapseMetric(K, W, b) for _ in range(2)]
    metrics[0].update(h, y)
    metrics[1].update(h.bfloat16(), y.bfloat16())
    assert metrics[1].compute().nc1 == pytest.approx(metrics[0].compute().nc1, rel=0.02)


def test_one_process_gathers_itself():
    h, y, W, b = network(2)
    metric = ufm.CollapseMetric(K, W, b)
    metric.update(h, y)
    assert streamed(metric.gathered()).keys() == streamed(metric).keys()
    assert metric.gathered().compute().nc1 == metric.compute().nc1
    assert "NC1" in repr(metric.compute())


def test_more_classes_than_a_simplex_has_room_for():
    rng = np.random.default_rng(0)
    W, h, classes = rng.normal(size=(5, 2)), rng.normal(size=(40, 2)), np.arange(40) % 5
    metric = ufm.CollapseMetric(5, W)
    metric.update(h, classes)
    found, expected = metric.compute(), ufm.neural_collapse(h, classes, W)
    assert np.isnan(found.etf_error)
    assert (found.nc1, found.nc3) == pytest.approx((expected.nc1, expected.nc3), rel=1e-10)


def test_class_means_that_are_all_equal_are_named():
    metric = ufm.CollapseMetric(3)
    metric.update(np.ones((6, 2)), np.arange(6) % 3)
    with pytest.raises(ValueError, match="^features: got class means that are all equal"):
        metric.compute()


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"num_classes": 1}, "num_classes"),
        ({"classifier": np.ones((3, D))}, "classifier"),
        ({"classifier": np.ones((K, D))}, "classifier: got rows that are all equal"),
        ({"class_means": np.ones((3, D))}, "class_means"),
        ({"bias": np.ones(3)}, "bias"),
        ({"smoothing": 1.0}, "smoothing"),
        ({"bins": 0}, "bins"),
    ],
)
def test_bad_arguments_are_named(arguments: dict, named: str):
    with pytest.raises(ValueError, match=f"^{named}"):
        ufm.CollapseMetric(**{"num_classes": K, **arguments})


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"features": np.ones((4, D + 1))}, "features"),
        ({"features": np.full((4, D), np.nan)}, "features"),
        ({"labels": np.arange(3)}, "labels"),
        ({"labels": np.arange(4) + 1}, "labels"),
        ({"labels": np.ones((4, K))}, "labels"),
        ({"logits": np.ones((4, K + 1))}, "logits"),
    ],
)
def test_bad_batches_are_named_and_leave_nothing(change: dict, named: str):
    metric = ufm.CollapseMetric(K, np.eye(K, D))
    with pytest.raises(ValueError, match=f"^{named}"):
        metric.update(**{"features": np.ones((4, D)), "labels": np.arange(4), **change})
    assert metric.compute().samples == 0


def test_metrics_of_other_kinds_are_not_merged():
    for other in (ufm.CollapseMetric(K + 1), ufm.CollapseMetric(K, bins=3)):
        with pytest.raises(ValueError, match="^others"):
            ufm.CollapseMetric(K).merge_state(other)
