"""A network that is at the exact optimum for any law of the labels is found to be there, from its arrays alone."""

import math
from typing import Any

import numpy as np
import pytest
import torch

import ufm
from ufm.networks.comparison_result import Comparison

K, DECAY = 10, 2e-3
LAWS = {
    "mixup": ufm.Mixup(K),
    "smoothing .1": ufm.LabelSmoothing(ufm.Mixup(K), 0.1),
    "smoothing .2": ufm.LabelSmoothing(ufm.Mixup(K), 0.2),
    "CutMix, smoothing .1": ufm.LabelSmoothing(ufm.CutMix(K, 0.5), 0.1),
    "three ways": ufm.Mixup(K, ways=3),
    "smoothing alone": ufm.LabelSmoothing(K, 0.1),
}


def samples_of(law: ufm.Law, count: int = 3000) -> torch.Tensor:
    targets = law.targets(8)
    rows = torch.multinomial(targets.weights, count, replacement=True, generator=torch.Generator().manual_seed(0))
    return targets.labels[rows]


def at_the_optimum(law: ufm.Law, labels: torch.Tensor) -> tuple[ufm.JointOptimum, dict[str, Any]]:
    """Return the joint optimum, and arrays of a network that is there."""
    optimum = ufm.joint_optimum(law, DECAY, DECAY)
    response = optimum.response(labels.numpy(), K + 3)
    arrays = {"features": response.features, "classifier": optimum.classifier(K + 3), "labels": labels}
    return optimum, {name: np.asarray(value) for name, value in arrays.items()}


@pytest.mark.parametrize("name", LAWS)
def test_beta_is_found_whatever_the_law(name: str):
    law = LAWS[name]
    optimum, arrays = at_the_optimum(law, samples_of(law))
    found = ufm.compare(law=law, weight_decay=DECAY, solver=False, **arrays)
    assert found.beta_fit_free == pytest.approx(optimum.beta, rel=1e-3)
    assert found.score("fit-free").r2 > 0.999
    if name != "smoothing alone":
        # Labels of one kind alone have logits on a line, which a range of beta fits.
        assert found.beta == pytest.approx(optimum.beta, rel=1e-3)
    assert found.departure is not None
    assert found.departure.excess == pytest.approx(found.departure.excess_theory, rel=1e-3)


@pytest.mark.parametrize("name", ["smoothing .2", "three ways"])
def test_the_law_of_the_recorded_labels_stands_in_for_one_that_is_not_given(name: str):
    law = LAWS[name]
    optimum, arrays = at_the_optimum(law, samples_of(law, 20_000))
    found = ufm.compare(weight_decay=DECAY, solver=False, **arrays)
    assert found.beta_fit_free == pytest.approx(optimum.beta, rel=0.03)
    assert found.labels is not None
    assert found.labels.smoothing == pytest.approx(0.2 if "smoothing" in name else 0, abs=1e-9)
    assert (found.labels.more > 0) == (name == "three ways")


def test_labels_taken_for_unsmoothed_ones_would_give_another_beta():
    """The fault that soft labels mend: with pairs alone the fit is off by a factor."""
    law = LAWS["smoothing .1"]
    optimum, arrays = at_the_optimum(law, samples_of(law))
    decoded = ufm.decode_labels(arrays["labels"])
    pairs = ufm.PairTargets(K, decoded.class_a, decoded.class_b, decoded.lam).labels.numpy()
    assert ufm.compare(solver=False, **{**arrays, "labels": pairs}).beta < optimum.beta / 2


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_width_splits_exactly_with_smoothed_labels(smoothing: float):
    law = ufm.LabelSmoothing(ufm.Mixup(K), smoothing)
    _, arrays = at_the_optimum(law, samples_of(law))
    split = ufm.compare(solver=False, **arrays).departure.network  # pyright: ignore[reportOptionalMemberAccess]
    for i in np.flatnonzero(split.count):
        width = split.width[i]
        assert split.label[i] + split.bias[i] + split.spread[i] == pytest.approx(width, rel=1e-9)
        mixed = (1 - smoothing) * split.weight[i] + smoothing / K
        other = (1 - smoothing) * (1 - split.weight[i]) + smoothing / K
        assert split.label[i] == pytest.approx(math.log(mixed / other), rel=1e-6)


def test_three_ways_leave_the_channel_to_the_pairs():
    law = LAWS["three ways"]
    labels = samples_of(law)
    _, arrays = at_the_optimum(law, labels)
    found = ufm.compare(solver=False, **arrays)
    pairs = (labels > 0).sum(1) == 2
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))[len(labels) // 2 :]
    assert found.curves["network"].count.sum() == int(pairs[order].sum())


def test_two_classes_have_scores_but_no_channel():
    law = ufm.Mixup(2)
    y = samples_of(law)
    optimum = ufm.joint_optimum(law, 0.01, 0.01, nodes=8)
    response = optimum.response(y.numpy(), 3)
    found = ufm.compare(
        features=response.features, classifier=optimum.classifier(3), labels=y.numpy(), weight_decay=0.01, law=law
    )
    assert isinstance(found, Comparison)
    assert found.score("fit-free").r2 == pytest.approx(1)
    assert found.curves == {}
    assert found.departure is None
    assert [row["name"] for row in found.table()][:2] == ["network", "closed form"]


def test_hard_labels_alone_give_neural_collapse():
    rng = np.random.default_rng(0)
    classes = np.arange(400) % 4
    W = np.asarray(ufm.simplex_etf(4, 6))
    h = 3 * W[classes] + 0.01 * rng.normal(size=(400, 6))
    found = ufm.compare(features=h, classifier=W, labels=classes)
    assert found.collapse is not None
    assert found.collapse.nc1 < 1e-3
    assert found.curves == {}
    assert found.labels is not None
    assert found.labels.words() == "400 labels of one class each"


@pytest.mark.parametrize("change", ["half", "float32", "torch", "bias"])
def test_arrays_of_any_kind_give_the_same(change: str):
    law = LAWS["smoothing .1"]
    _, arrays = at_the_optimum(law, samples_of(law, 300))
    reference = ufm.compare(solver=False, **arrays)
    if change == "half":
        arrays["features"] = arrays["features"].astype(np.float16)
    elif change == "float32":
        arrays |= {name: value.astype(np.float32) for name, value in arrays.items()}
    elif change == "torch":
        arrays |= {name: torch.from_numpy(value) for name, value in arrays.items()}
    else:
        arrays["bias"] = np.full(K, 2.0)
    found = ufm.compare(solver=False, **arrays)
    assert found.beta == pytest.approx(reference.beta, rel=0.01 if change == "half" else 1e-4)


def test_soft_labels_are_saved_and_loaded(tmp_path):
    law = LAWS["three ways"]
    _, arrays = at_the_optimum(law, samples_of(law, 300))
    some = ufm.Activations.of(**arrays, layers={"stem": arrays["features"]}, description={"data": "synthetic"})
    some.save(tmp_path / "a.safetensors")
    loaded = ufm.load(tmp_path / "a.safetensors")
    assert torch.equal(loaded.labels, some.labels)
    assert torch.equal(loaded.in_pair, some.in_pair)
    assert loaded.description == some.description
    assert list(loaded.layers) == ["stem"]
    # Pairs without smoothing are kept as pairs, which need less room.
    pairs = ufm.Activations.of(**{**arrays, "labels": samples_of(LAWS["mixup"], 300).numpy()})
    assert pairs.soft_labels is None
    np.testing.assert_allclose(pairs.labels, samples_of(LAWS["mixup"], 300), atol=1e-15)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"labels": np.eye(3)}, "labels"),
        ({"labels": np.array([0, 1, 2, 9])}, "labels"),
        ({"labels": np.zeros(3, dtype=int)}, "labels"),
        ({"classifier": np.ones((5, 3))}, r"classifier.*transpose a kernel of shape \(d, K\)"),
        ({"bias": np.ones(4)}, "classifier"),
        ({"logits": np.arange(12.0).reshape(4, 3)}, "logits"),
        ({"logits": np.ones((4, 2))}, "logits"),
        ({"features": np.full((4, 5), np.nan)}, "features"),
    ],
)
def test_arrays_that_do_not_fit_are_named(change: dict, named: str):
    rng = np.random.default_rng(0)
    given: dict[str, Any] = {
        "features": rng.normal(size=(4, 5)),
        "classifier": rng.normal(size=(3, 5)),
        "labels": np.arange(4) % 3,
    }
    if "transpose" in named:
        given["features"] = rng.normal(size=(4, 5))
        change = {"classifier": given["classifier"].T}
    with pytest.raises(ValueError, match=f"^{named}"):
        ufm.Activations.of(**{**given, **change})


@pytest.mark.parametrize(
    ("arguments", "named"),
    [({}, "features"), ({"features": np.eye(3), "classifier": np.eye(3)}, "labels")],
)
def test_what_compare_lacks_is_named(arguments: dict, named: str):
    with pytest.raises(ValueError, match=f"^{named}"):
        ufm.compare(**arguments)


def test_arrays_beside_activations_are_refused():
    some = ufm.Activations.of(np.eye(3), np.eye(3), np.arange(3))
    with pytest.raises(ValueError, match="^labels"):
        ufm.compare(some, labels=np.arange(3))
