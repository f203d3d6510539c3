import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

import ufm
from tests.helpers import strategies
from tests.helpers.networks import following_the_theory, with_logits
from ufm._support.pairs import halves
from ufm.labels.targets import pair_labels
from ufm.networks import comparison as comparing
from ufm.networks.activations import pairs_of
from ufm.networks.predictions import Prediction


def numbers(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield all that a result holds, with the way to it."""
    if dataclasses.is_dataclass(value):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            for path, leaf in numbers(item):
                yield f"{key}.{path}", leaf
    else:
        yield "", value


def assert_same(one: ufm.Comparison, other: ufm.Comparison, tolerance: float = 1e-5) -> None:
    left, right = dict(numbers(one)), dict(numbers(other))
    assert left.keys() == right.keys()
    for path, value in left.items():
        if value is None or isinstance(value, str | bool):
            assert right[path] == value, path
        else:
            np.testing.assert_allclose(right[path], value, rtol=tolerance, atol=tolerance, err_msg=path)


def test_a_network_that_follows_the_theory_is_recognised():
    comparison = ufm.compare(following_the_theory(700.0), ufm.Mixup(5))
    assert comparison.beta == pytest.approx(700, rel=1e-4)
    assert comparison.multiplier == pytest.approx(1.3)
    assert comparison.etf_error < 1e-12
    assert comparison.score("closed form").r2 == pytest.approx(1, abs=1e-8)
    assert comparison.score("closed form").r2_binned == pytest.approx(1, abs=1e-8)
    assert comparison.score("straight line").r2 < 0.95
    assert comparison.score("own classifier").r2 == pytest.approx(1, abs=1e-8)
    assert comparison.solver_converged
    assert comparison.solver_error is not None
    assert comparison.solver_error < 1e-4
    assert comparison.collapse is not None
    assert comparison.collapse.nc1 < 1e-10
    network, closed = comparison.curves["network"], comparison.curves["closed form"]
    np.testing.assert_allclose(network.width, closed.width, atol=1e-3)
    np.testing.assert_allclose(network.depth, closed.depth, atol=1e-3)


def test_noise_lowers_r2_per_sample_more_than_per_bin():
    comparison = ufm.compare(following_the_theory(700.0, samples=4000, noise=0.5), ufm.Mixup(5), solver=False)
    score = comparison.score("closed form")
    assert score.r2 < 0.97 < score.r2_binned
    assert score.r2 < score.r2_binned
    assert comparison.solver_error is None
    with pytest.raises(KeyError):
        comparison.score("solver, nearest ETF")


def test_a_straight_network_is_better_explained_by_the_line():
    activations = following_the_theory(50.0)
    straight = with_logits(activations, 9 * (activations.labels - 0.2))
    comparison = ufm.compare(straight, ufm.Mixup(5), solver=False)
    assert comparison.slope == pytest.approx(9)
    assert comparison.score("straight line").r2 == pytest.approx(1)
    assert comparison.score("closed form").r2 < 0.95


def test_fit_free_beta_needs_only_classifier_and_weight_decay():
    law = ufm.Mixup(5)
    optimum = ufm.joint_optimum(law, 1e-3, 1e-3)
    activations = following_the_theory(optimum.beta)
    size = optimum.multiplier / 1.3
    scaled = dataclasses.replace(
        activations, classifier=activations.classifier * size, features=activations.features / size
    )
    comparison = ufm.compare(scaled, law, weight_decay=1e-3, solver=False)
    assert comparison.beta_fit_free == pytest.approx(optimum.beta, rel=1e-6)
    assert comparison.score("fit-free").parameters == 0
    assert comparison.score("fit-free").r2 == pytest.approx(1, abs=1e-6)
    assert ufm.compare(scaled, law, weight_decay=10.0, solver=False).beta_fit_free is None


def test_fit_and_score_use_different_samples():
    activations = following_the_theory(100.0)
    order = torch.randperm(600, generator=torch.Generator().manual_seed(0))
    logits = activations.logits.clone()
    logits[order[300:]] = 0.3 * logits[order[300:]]
    spoiled = with_logits(activations, logits)
    comparison = ufm.compare(spoiled, ufm.Mixup(5), solver=False)
    assert comparison.beta == pytest.approx(100, rel=1e-4)
    assert comparison.score("closed form").r2 < 0
    assert comparison.samples == 300


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"law": ufm.Mixup(4)}, "law"),
        ({"bins": 0}, "bins"),
        ({"weight_decay": -1.0}, "weight_decay"),
        ({"activations": following_the_theory(10.0, samples=2)}, "activations"),
    ],
)
def test_bad_input_is_named(arguments: dict, named: str):
    with pytest.raises(ValueError, match=f"^{named}"):
        ufm.compare(**{"activations": following_the_theory(10.0, samples=60), "law": ufm.Mixup(5), **arguments})


def test_r2_by_hand():
    activations = following_the_theory(200.0, samples=900, noise=0.4)
    comparison = ufm.compare(activations, ufm.Mixup(5), solver=False, bins=4)
    scored = torch.randperm(900, generator=torch.Generator().manual_seed(0))[450:].numpy()
    z = activations.logits.numpy()
    z = (z - z.mean(1, keepdims=True))[scored]
    guess = np.asarray(ufm.prox_logsumexp(activations.labels.numpy(), comparison.beta).logits)[scored]
    a, b, lam = (x.numpy()[scored] for x in (activations.class_a, activations.class_b, activations.lam))

    def r2(truth: np.ndarray, predicted: np.ndarray) -> float:
        return 1 - ((truth - predicted) ** 2).sum() / ((truth - truth.mean(0)) ** 2).sum()

    score = comparison.score("closed form")
    assert score.r2 == pytest.approx(r2(z, guess))
    assert score.r2_same == pytest.approx(r2(z[a == b], guess[a == b]))
    assert score.r2_mixed == pytest.approx(r2(z[a != b], guess[a != b]))
    # Cells: unordered pair, and the bin of the weight of its smaller class.
    cells: dict[tuple[int, int, int], list[int]] = {}
    for i in np.flatnonzero(a != b):
        weight = lam[i] if a[i] < b[i] else 1 - lam[i]
        cells.setdefault((min(a[i], b[i]), max(a[i], b[i]), min(int(4 * weight), 3)), []).append(i)
    # Every mean counts as often as it has samples.
    count = [len(rows) for rows in cells.values()]
    truth, predicted = (
        np.repeat([values[rows].mean(0) for rows in cells.values()], count, axis=0) for values in (z, guess)
    )
    assert score.r2_binned == pytest.approx(r2(truth, predicted))
    assert len({score.r2, score.r2_same, score.r2_mixed, score.r2_binned}) == 4


def test_the_own_classifier_is_used_where_it_is_no_etf():
    """A network that solves the UFM for a skewed classifier: its own solve explains it, the nearest ETF's does not."""
    activations = following_the_theory(300.0, samples=400)
    skew = torch.diag(torch.tensor([1.0, 2.0, 0.5, 1.5, 1.0, 1.0, 1.0], dtype=torch.float64))
    W = activations.classifier @ skew
    h = torch.as_tensor(ufm.fixed_classifier(W, activations.labels, 0.007).features)
    skewed = dataclasses.replace(activations, classifier=W, features=h, logits=h @ W.T)
    comparison = ufm.compare(skewed, ufm.Mixup(5))
    own, ideal = (comparison.score(name).r2 for name in ("own classifier", "solver, nearest ETF"))
    assert own > 0.99
    assert own > ideal + 0.01


def test_a_beta_at_the_edge_of_the_search_is_flagged():
    activations = following_the_theory(50.0)
    assert not ufm.compare(activations, ufm.Mixup(5), solver=False).beta_at_edge
    backwards = with_logits(activations, -activations.logits)
    assert ufm.compare(backwards, ufm.Mixup(5), solver=False).beta_at_edge


def test_beta_is_fitted_to_the_least_squares_minimum():
    activations = following_the_theory(200.0, samples=800, noise=0.5)
    comparison = ufm.compare(activations, ufm.Mixup(5), solver=False)
    fit = torch.randperm(800, generator=torch.Generator().manual_seed(0))[:400]
    z = activations.logits - activations.logits.mean(1, keepdim=True)

    def error(beta: float) -> float:
        guess = torch.as_tensor(ufm.prox_logsumexp(activations.labels[fit], beta).logits)
        return (guess - z[fit]).square().sum().item()

    best = error(comparison.beta)
    assert all(best <= error(comparison.beta * factor) for factor in (0.5, 0.9, 0.99, 1.01, 1.1, 2.0))


def test_features_that_follow_the_theory_up_to_an_offset_have_no_angle_and_the_right_length():
    """By hand: the features turned by 25 degrees in the classifier's plane, made 1.2 times as long, and moved."""
    K, beta = 3, 40.0
    W = ufm.simplex_etf(K, 2, 1.3)
    base = following_the_theory(beta, K, samples=300)
    z = torch.as_tensor(ufm.prox_logsumexp(base.labels, beta).logits)
    exact = (K - 1) / (K * 1.3**2) * z @ W
    angle = np.deg2rad(25)
    turn = torch.tensor([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])

    prediction = Prediction("closed form", 1, z, exact)

    def score(features: torch.Tensor) -> comparing.Score:
        return comparing._score(prediction, z, features - features.mean(0), pairs_of(base), base.in_pair, bins=10)

    found = score(exact + 7)
    # arccos near 1 halves the digits.
    np.testing.assert_allclose(
        [found.angle_same, found.angle_mixed, found.length_same, found.length_mixed], 0, atol=1e-3
    )
    found = score(1.2 * exact @ turn + 7)
    np.testing.assert_allclose([found.angle_same, found.angle_mixed], 25, atol=0.01)
    np.testing.assert_allclose([found.length_same, found.length_mixed], 0.2 / 1.2, atol=1e-3)


def test_angles_and_lengths_against_numpy():
    activations = following_the_theory(80.0, samples=400, noise=0.5)
    score = ufm.compare(activations, ufm.Mixup(5), solver=False).score("straight line")
    slope = ufm.compare(activations, ufm.Mixup(5), solver=False).slope
    rows = torch.randperm(400, generator=torch.Generator().manual_seed(0))[200:]
    same = (activations.class_a == activations.class_b)[rows].numpy()
    W = activations.classifier.numpy()
    h = activations.features[rows].numpy()
    guess = slope * (activations.labels[rows].numpy() - 0.2) @ np.linalg.pinv(W).T
    h, guess = h - h.mean(0), guess - guess.mean(0)
    lengths, guessed = np.linalg.norm(h, axis=1), np.linalg.norm(guess, axis=1)
    angle = np.degrees(np.arccos((h * guess).sum(1) / (lengths * guessed)))
    assert score.angle_same == pytest.approx(angle[same].mean())
    assert score.angle_mixed == pytest.approx(angle[~same].mean())
    difference = np.abs(lengths - guessed)
    assert score.length_same == pytest.approx(difference[same].mean() / lengths[same].mean())
    assert score.length_mixed == pytest.approx(difference[~same].mean() / lengths[~same].mean())


def test_the_share_in_the_plane_of_the_classifier():
    activations = following_the_theory(100.0, samples=6000)
    assert ufm.compare(activations, ufm.Mixup(5), solver=False).in_plane == pytest.approx(1, abs=1e-12)
    # Three of the seven dimensions are orthogonal to the rows: noise of variance v there adds 3 v.
    _, _, vh = torch.linalg.svd(activations.classifier)
    h, v = activations.features, 0.7
    noise = v**0.5 * torch.randn(6000, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    noisy = dataclasses.replace(activations, features=h + noise @ vh[4:] + 11 * vh[5])
    comparison = ufm.compare(noisy, ufm.Mixup(5), solver=False)
    variance = (h - h.mean(0)).square().sum(1).mean().item()
    assert comparison.in_plane == pytest.approx(variance / (variance + 3 * v), rel=0.02)
    # The logits do not see it.
    assert comparison.score("closed form").r2 == pytest.approx(1)


@settings(max_examples=4)
@given(strategies.seeds, st.floats(-3, 3))
def test_what_softmax_does_not_see_changes_nothing(seed: int, size: float):
    """A vector added to all rows of the classifier, and what it adds to all logits of a sample."""
    rng = np.random.default_rng(seed)
    base, bias = following_the_theory(60.0, samples=160, noise=0.3), torch.from_numpy(rng.normal(size=5))
    base = dataclasses.replace(base, bias=bias, logits=base.logits + bias)
    common = size * torch.from_numpy(rng.normal(size=7))
    assert base.bias is not None
    moved = dataclasses.replace(
        base,
        classifier=base.classifier + common,
        logits=base.logits + (base.features @ common)[:, None] + size,
        bias=base.bias + size,
    )
    one, other = (ufm.compare(x, ufm.Mixup(5), weight_decay=1e-3, solver=False, resamples=3) for x in (base, moved))
    assert_same(one, other)


@settings(max_examples=4)
@given(strategies.seeds)
def test_a_rotation_of_the_features_changes_nothing(seed: int):
    rng = np.random.default_rng(seed)
    Q = torch.from_numpy(np.linalg.qr(rng.normal(size=(7, 7)))[0])
    base = following_the_theory(60.0, samples=160, noise=0.3)
    turned = dataclasses.replace(base, features=base.features @ Q, classifier=base.classifier @ Q)
    assert_same(*(ufm.compare(x, ufm.Mixup(5), weight_decay=1e-3, solver=False) for x in (base, turned)))


def test_both_symmetries_hold_with_the_solver():
    rng = np.random.default_rng(0)
    Q = torch.from_numpy(np.linalg.qr(rng.normal(size=(7, 7)))[0])
    base = following_the_theory(60.0, samples=60, noise=0.3)
    W = base.classifier + 0.2 * torch.from_numpy(rng.normal(size=(5, 7)))
    base = dataclasses.replace(base, classifier=W, logits=base.features @ W.T)
    changed = dataclasses.replace(base, features=base.features @ Q, classifier=base.classifier @ Q + 1.5)
    one, other = (ufm.compare(x, ufm.Mixup(5)) for x in (base, changed))
    assert one.solver_error is not None
    # The solver checks the closed form though the classifier is no ETF.
    assert one.etf_error > 0.05
    assert one.solver_error < 1e-4
    # How close the direct solve comes depends on its path.
    assert_same(*(dataclasses.replace(x, solver_error=None) for x in (one, other)), tolerance=1e-4)


def test_the_table_is_plain_and_regular():
    activations = following_the_theory(200.0, samples=400, noise=0.2)
    comparison = ufm.compare(activations, ufm.Mixup(5), weight_decay=1e-4, solver=True)
    table = comparison.table()
    names = ["network", "closed form", "fit-free", "straight line", "own classifier", "solver, nearest ETF"]
    assert [row["name"] for row in table] == names
    assert list(comparison.curves) == list(comparison.points) == list(comparison.boundaries) == names
    assert len({tuple(row) for row in table}) == 1
    assert list(table[0]) == [
        *(field.name for field in dataclasses.fields(comparison.scores[0])),
        *("width_50", "depth_50", "width_70", "depth_70", "width_90", "depth_90"),
        *("density", "slope", "amplification"),
    ]
    assert {type(value) for row in table for value in row.values()} == {str, int, float, type(None)}
    assert json.loads(json.dumps(table)) == table
    scored = {"name", *list(table[0])[10:]}
    assert {key for key, value in table[0].items() if value is not None} == scored
    for row in table[1:]:
        assert None not in row.values()
        assert row["r2_mixed"] == comparison.score(row["name"]).r2_mixed
        assert row["depth_70"] == comparison.points[row["name"]].depth[1]
        assert row["slope"] == comparison.boundaries[row["name"]].slope
    assert [row["parameters"] for row in table] == [None, 1, 0, 1, 1, 1]


def test_resamples_give_bands_of_the_network_only():
    activations = following_the_theory(200.0, samples=300, noise=0.2)
    curves = ufm.compare(activations, ufm.Mixup(5), solver=False, bins=4, resamples=20).curves
    assert curves["network"].width_band is not None
    assert curves["network"].width_band.shape == (2, 4)
    assert all((curve.width_band is None) == (name != "network") for name, curve in curves.items())
    assert ufm.compare(activations, ufm.Mixup(5), solver=False).curves["network"].depth_band is None


def test_a_noisy_network_of_mean_squared_error_is_better_explained_by_the_line():
    base = following_the_theory(50.0, samples=2000)
    noise = torch.randn(2000, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    comparison = ufm.compare(with_logits(base, 6 * (base.labels - 0.2) + 0.5 * noise), ufm.Mixup(5), solver=False)
    line, closed = comparison.score("straight line"), comparison.score("closed form")
    assert comparison.slope == pytest.approx(6, rel=0.02)
    assert line.r2 > closed.r2 + 0.02
    assert line.r2_binned > closed.r2_binned + 0.02
    assert comparison.boundaries["network"].amplification == pytest.approx(1, abs=0.1)
    # The same the other way round: on a network of the theory the closed form beats the line.
    theory = ufm.compare(following_the_theory(300.0, samples=2000, noise=0.2), ufm.Mixup(5), solver=False)
    assert theory.score("closed form").r2 > theory.score("straight line").r2 + 0.02


def test_a_class_without_same_class_samples_has_no_collapse():
    activations = following_the_theory(100.0, samples=300)
    keep = ~((activations.class_a == 2) & (activations.class_b == 2))
    arrays = {name: getattr(activations, name)[keep] for name in ("features", "logits", "class_a", "class_b", "lam")}
    assert ufm.compare(activations, ufm.Mixup(5), solver=False).collapse is not None
    assert ufm.compare(dataclasses.replace(activations, **arrays), ufm.Mixup(5), solver=False).collapse is None


@pytest.mark.parametrize("kind", ["same", "different"])
def test_what_was_not_recorded_is_no_number(kind: str):
    activations = following_the_theory(100.0, samples=60)
    a = activations.class_a
    labels = pair_labels(a, (a + (kind == "different")) % 5, activations.lam, 5)
    response = ufm.fixed_classifier(activations.classifier, labels, 1.3**2 * 5 / (4 * 100.0))
    found = ufm.compare(features=response.features, classifier=activations.classifier, labels=labels, solver=False)
    score = found.score("closed form")
    assert found.beta == pytest.approx(100, rel=1e-4)
    assert score.r2 == pytest.approx(1)
    assert np.isnan(score.r2_mixed if kind == "same" else score.r2_same)
    assert (found.curves == {}) == (kind == "same")
    assert (found.collapse is None) == (kind == "different")
    assert [row["name"] for row in found.table()] == ["network", "closed form", "straight line"]
    if kind == "same":
        with pytest.raises(ValueError, match="^activations: got 60 samples, 0 of them of two different classes"):
            halves(pairs_of(ufm.Activations.of(response.features, activations.classifier, labels)), of_different=True)


def test_equal_rows_of_a_classifier_are_named():
    flat = dataclasses.replace(
        following_the_theory(10.0, samples=60), classifier=torch.ones(5, 7), logits=torch.zeros(60, 5)
    )
    with pytest.raises(ValueError, match="^classifier"):
        ufm.compare(flat, ufm.Mixup(5))
