"""The pattern of earlier layers: straight, channel-like or noise; and interpolation between the two inputs."""

import dataclasses
import functools
import math

import numpy as np
import pytest
import torch

import ufm
from tests.helpers.networks import following_the_theory

K, D, N, BETA = 4, 6, 4000, 200.0


@functools.cache
def recording() -> ufm.Activations:
    """Layers of every kind, by name: linear in the label or in the closed form, with and without noise."""
    base = following_the_theory(BETA, K, N)
    generator = torch.Generator().manual_seed(7)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    A, noise, y = normal(K, D), normal(N, D), base.labels
    z = torch.as_tensor(ufm.prox_logsumexp(y, BETA).logits)
    layers = {
        "line": y @ A + 0.1 * noise + 4,
        "channel": z @ A + 0.3 * noise - 2,
        "exact": z @ A + 1,
        "corners": y + 0.2 * noise[:, :K],
        "noise": noise,
        "image": (z @ A + 0.3 * noise - 2).reshape(N, 1, 2, 3),
        "column": z[:, 0] + 0.1 * noise[:, 0],
    }
    return dataclasses.replace(base, layers=layers)


@functools.cache
def pattern(name: str) -> ufm.LayerPattern:
    return ufm.layer_pattern(recording(), name)


def with_layer(output: torch.Tensor) -> ufm.LayerPattern:
    return ufm.layer_pattern(dataclasses.replace(recording(), layers={"x": output}), "x")


def test_a_layer_that_is_linear_in_the_label_is_no_channel():
    found = pattern("line")
    assert (found.name, found.dim) == ("line", D)
    assert found.line > 0.98
    assert abs(found.channel - found.line) < 1e-3
    assert found.beta < 2


def test_explained_is_the_share_between_the_cells():
    # With A the identity: |y|^2 has mean 2/3, so y has variance 2/3 - 1/K; lambda varies by 1/(12 * 100) within a bin,
    # and moves y along e_a - e_b; the noise adds 0.04 in each of K dimensions.
    signal, within, noise = 2 / 3 - 1 / K, 2 / 1200, 0.04 * K
    expected = 1 - (within + noise) / (signal + noise)
    assert pattern("corners").explained == pytest.approx(expected, abs=0.02)
    # However few samples a cell has: not more is explained because there are more cells.
    many = ufm.layer_pattern(recording(), "corners", bins=60).explained
    assert many == pytest.approx(1 - noise / (signal + noise), abs=0.03)


def test_a_layer_that_follows_the_closed_form_is_a_channel():
    found = pattern("channel")
    assert found.channel > 0.995
    assert found.line < found.channel - 0.05
    assert found.beta == pytest.approx(BETA, rel=0.1)
    exact = pattern("exact")
    assert exact.channel == pytest.approx(1, abs=1e-9)
    assert exact.beta == pytest.approx(BETA, rel=1e-4)


def test_the_classifiers_input_is_a_layer_too():
    found = ufm.layer_pattern(recording(), "features")
    assert (found.name, found.dim) == ("features", K + 2)
    assert found.channel == pytest.approx(1, abs=1e-9)
    assert found.beta == pytest.approx(BETA, rel=1e-4)
    assert found.explained > 0.98


def test_noise_has_no_pattern():
    found = pattern("noise")
    assert found.explained == pytest.approx(0, abs=0.02)
    assert found.line < 0.05
    assert found.channel < 0.05


def test_nothing_within_the_cells_is_left_where_each_has_one_sample():
    found = ufm.layer_pattern(following_the_theory(BETA, K, 60), "features", bins=10**6)
    assert math.isnan(found.explained)
    assert math.isfinite(found.line)


def test_invariance_under_maps_of_the_output():
    layers, rng = recording().layers, np.random.default_rng(0)
    Q = torch.from_numpy(np.linalg.qr(rng.normal(size=(D, D)))[0])
    expected, found = pattern("channel"), with_layer(3 * layers["channel"] @ Q + 5)
    for name in ("explained", "line", "channel", "beta"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=1e-4), name
    # Any invertible map leaves an exact pattern one.
    M = Q @ torch.diag(torch.tensor([1.0, 4, 0.2, 1, 2, 0.5], dtype=torch.float64)) @ Q.roll(1, 0)
    mapped = with_layer(layers["exact"] @ M - 1)
    assert mapped.channel == pytest.approx(1, abs=1e-9)
    assert mapped.beta == pytest.approx(BETA, rel=1e-3)


def test_the_order_of_each_pair_changes_nothing():
    base = recording()
    other = dataclasses.replace(base, class_a=base.class_b, class_b=base.class_a, lam=1 - base.lam)
    found = ufm.layer_pattern(other, "line")
    assert found.line == pytest.approx(pattern("line").line, rel=1e-3)


def test_other_dtypes_and_shapes():
    expected = pattern("channel")
    for output in (recording().layers["channel"].float(), recording().layers["image"]):
        found = with_layer(output)
        assert found.dim == D
        for name in ("explained", "line", "channel", "beta"):
            assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=1e-3), name
    assert with_layer(recording().layers["channel"].half()).channel == pytest.approx(expected.channel, abs=1e-3)
    column = pattern("column")
    assert column.dim == 1
    assert column.channel > 0.98


def test_line_against_least_squares():
    """On the cell means of one half, weighted by their counts, and scored on the other."""
    base = recording()
    order = torch.randperm(N, generator=torch.Generator().manual_seed(0))
    a, b = torch.minimum(base.class_a, base.class_b), torch.maximum(base.class_a, base.class_b)
    weight = torch.where(base.class_a < base.class_b, base.lam, 1 - base.lam)
    halves = []
    for rows in (order[: N // 2], order[N // 2 :]):
        groups: dict[tuple[int, int, int], list[int]] = {}
        for i in rows.tolist():
            if a[i] != b[i]:
                groups.setdefault((int(a[i]), int(b[i]), int(10 * weight[i])), []).append(i)
        means = [(base.labels[g].mean(0).numpy(), base.layers["channel"][g].mean(0).numpy()) for g in groups.values()]
        y, g = (np.stack(column) for column in zip(*means, strict=True))
        halves.append((np.sqrt([len(g) for g in groups.values()])[:, None], np.c_[y, np.ones(len(y))], g))
    (root, y, g), (root_scored, y_scored, g_scored) = halves
    coefficients = np.linalg.lstsq(root * y, root * g, rcond=None)[0]
    mean = (root_scored**2 * g_scored).sum(0) / (root_scored**2).sum()
    left = ((root_scored * (g_scored - y_scored @ coefficients)) ** 2).sum()
    expected = 1 - left / ((root_scored * (g_scored - mean)) ** 2).sum()
    assert pattern("channel").line == pytest.approx(expected, rel=1e-9)


def test_a_class_that_is_in_no_pair_does_no_harm():
    base = following_the_theory(BETA, 5, 2000)
    keep = (base.class_a != 3) & (base.class_b != 3)
    names = ("features", "logits", "class_a", "class_b", "lam")
    found = ufm.layer_pattern(dataclasses.replace(base, **{n: getattr(base, n)[keep] for n in names}), "features")
    assert found.channel == pytest.approx(1, abs=1e-9)
    assert found.beta == pytest.approx(BETA, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "bins", "named"), [("unknown", 10, "name"), ("line", 0, "bins"), ("spoiled", 10, "layers\\['spoiled'\\]")]
)
def test_bad_input_is_named(name: str, bins: int, named: str):
    base = recording()
    spoiled = base.layers["line"].clone()
    spoiled[base.class_a != base.class_b] = np.nan
    with pytest.raises(ValueError, match=f"^{named}"):
        ufm.layer_pattern(dataclasses.replace(base, layers=base.layers | {"spoiled": spoiled}), name, bins=bins)


def test_too_few_samples_or_classes_are_named():
    with pytest.raises(ValueError, match="^activations"):
        ufm.layer_pattern(following_the_theory(BETA, K, 3), "features")
    two = ufm.Activations(*[torch.rand(9, 2)] * 2, *torch.randint(2, (2, 9)), torch.rand(9), torch.eye(2))
    with pytest.raises(ValueError, match="^activations: got 2 classes"):
        ufm.layer_pattern(two, "features")


def test_interpolation_of_a_linear_map_is_complete():
    rng = np.random.default_rng(0)
    x, other, A = rng.normal(size=(20, 4)), rng.normal(size=(20, 4)), rng.normal(size=(4, 6))
    lam = rng.random(20)
    mixed = lam[:, None] * x + (1 - lam[:, None]) * other
    assert ufm.interpolation_r2(mixed @ A + 1, x @ A + 1, other @ A + 1, lam) == pytest.approx(1, abs=1e-12)
    tensors = (torch.from_numpy(v).float() for v in (mixed @ A, x @ A, other @ A, lam))
    assert ufm.interpolation_r2(*tensors) == pytest.approx(1, abs=1e-6)
    assert ufm.interpolation_r2(mixed @ A, other @ A, x @ A, lam) < 0.9


def test_interpolation_of_a_square_by_hand():
    # x^2 on the middles of (0, 2) and (2, 4): 1 and 9 against (0 + 4)/2 and (4 + 16)/2, one off each; spread 2 * 4^2.
    one, other = np.array([[0.0], [4]]), np.array([[4.0], [16]])
    assert ufm.interpolation_r2(np.array([[1.0], [9]]), one, other, np.array([0.5, 0.5])) == pytest.approx(1 - 2 / 32)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"mixed": np.ones((3, 2))}, "mixed, first, second, lam: got shapes"),
        ({"first": np.ones((2, 3))}, "mixed, first, second, lam: got shapes"),
        ({"second": np.ones((2, 1))}, "mixed, first, second, lam: got shapes"),
        ({"lam": np.ones(1)}, "mixed, first, second, lam: got shapes"),
        ({"lam": np.ones((2, 1))}, "lam"),
        ({"lam": np.array([0.5, 1.5])}, "lam"),
        ({"second": np.ones(2)}, "second"),
        ({"first": np.array([[0.0, np.nan]] * 2)}, "first"),
    ],
)
def test_bad_interpolation_is_named(arguments: dict, named: str):
    good = {"mixed": np.ones((2, 2)), "first": np.ones((2, 2)), "second": np.ones((2, 2)), "lam": np.array([0.5, 0.5])}
    with pytest.raises(ValueError, match=f"^{named}"):
        ufm.interpolation_r2(**good | arguments)
