"""Perceptrons, and training by steps: settings, the one cycle, samples drawn anew."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from experiments.data import digits
from experiments.mixing import Mixing, epoch_pairs, mix_images
from experiments.networks import NetworkConfig, build_network
from experiments.training import OptimiserConfig
from experiments.training.loop import learning_rate
from tests.helpers.training import TINY_STEPS, assert_same_end, trained


def built(config: NetworkConfig, image_shape: tuple[int, int, int] = (1, 8, 8)) -> Any:
    torch.manual_seed(0)
    return build_network(config, image_shape, 10)


def test_the_perceptron_has_the_layers_that_it_says():
    network = built(NetworkConfig("mlp", width=7, depth=2, dim=9), (3, 4, 5))
    assert list(dict(network.stages.named_children())) == ["layer1", "layer2", "features"]
    # Linear maps without bias, two numbers for each normalised unit, and the classifier.
    weights = 60 * 7 + 7 * 7 + 7 * 9 + 9 * 10
    assert sum(p.numel() for p in network.parameters()) == weights + 2 * (7 + 7 + 9)
    network.train()
    images = torch.randn(50, 3, 4, 5)
    assert network.stages[0](images).shape == (50, 7)
    assert network.stages[0](images).min() == 0
    features = network.features(images)
    torch.testing.assert_close(features.mean(0), torch.zeros(9), atol=1e-5, rtol=0)
    torch.testing.assert_close(network(images), network.features(images) @ network.head.weight.T)
    assert NetworkConfig("mlp").settings() == {"width": 512, "depth": 3, "dim": 64}


@pytest.mark.parametrize(
    "config",
    [
        NetworkConfig("cnn", width=2, dim=9),
        NetworkConfig("resnet18", width=2),
        NetworkConfig("vit", patch=4, width=12, depth=1, heads=3),
        NetworkConfig("mlp", width=4, dim=9),
    ],
)
def test_any_head_can_do_with_and_without_a_bias(config: NetworkConfig):
    assert built(replace(config, head_bias=False)).head.bias is None
    assert built(replace(config, head_bias=True)).head.bias is not None
    assert (built(config).head.bias is None) == (config.architecture == "mlp")
    assert built(replace(config, etf_multiplier=1.0, head_bias=False)).head.bias is None
    with pytest.raises(ValueError, match="^head_bias: got True"):
        replace(config, etf_multiplier=1.0, head_bias=True)


def test_the_one_cycle_is_that_of_torch_with_its_momentum_held():
    config, steps = OptimiserConfig(learning_rate=0.2, schedule="onecycle"), 4000
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.2, total_steps=steps, cycle_momentum=False)
    expected, found = [], []
    for i in range(steps):
        expected.append(schedule.get_last_lr()[0])
        found.append(learning_rate(config, 8, 8 * (i + 1) / steps))
        optimiser.step()
        if i + 1 < steps:
            schedule.step()
    np.testing.assert_allclose(found, expected, atol=0.2 * 2e-3)
    assert learning_rate(config, 10, 0.0) == pytest.approx(0.2 / 25)
    assert learning_rate(config, 10, 3.0) == pytest.approx(0.2)
    assert learning_rate(config, 10, 10.0) == pytest.approx(0.2 / 250_000)
    with pytest.raises(ValueError, match="^warmup_epochs: got 2 with onecycle"):
        replace(config, warmup_epochs=2)


@pytest.mark.parametrize("kind", ["mixup", "cutmix", "none"])
def test_steps_draw_every_sample_anew(kind: str):
    def draw(seed: int) -> list[Any]:
        rng = np.random.default_rng(seed)
        return list(epoch_pairs(Mixing(kind), 12, 64, rng, image_size=(8, 8), steps=200))

    pairs = draw(0)
    assert len(pairs) == 200
    assert all(p.first.shape == p.second.shape == p.lam.shape == (64,) for p in pairs)
    first, second = (torch.cat([getattr(p, name) for p in pairs]) for name in ("first", "second"))
    for drawn in (first, second):
        # 12,800 draws of 12 samples: five standard deviations.
        expected = len(drawn) / 12
        assert (torch.bincount(drawn, minlength=12) - expected).abs().max() < 5 * math.sqrt(expected)
    if kind == "none":
        assert torch.equal(first, second)
    else:
        assert abs((first == second).double().mean() - 1 / 12) < 0.02
        assert len(torch.unique(torch.cat([p.lam for p in pairs]))) > 20
    assert all(torch.equal(p.first, q.first) for p, q in zip(pairs, draw(0), strict=True))
    assert not torch.equal(first, torch.cat([p.first for p in draw(1)]))


def test_a_step_is_that_of_the_drawn_pairs(tmp_path: Path):
    """The loss of one step, put together by hand from the images themselves."""
    # Without BatchNorm, which hides the scale of the images.
    network = NetworkConfig("vit", patch=4, width=12, depth=1, heads=3)
    config = replace(TINY_STEPS, network=network, epochs=1, epoch_steps=1)
    found = trained(config, tmp_path).history[0]["loss"]
    data = digits().subset(60, 0)
    torch.manual_seed(0)
    network = build_network(config.network, (1, 8, 8), 10).train()
    (pairs,) = epoch_pairs(config.mixing, 60, 128, np.random.default_rng([0, 0, 0]), image_size=(8, 8), steps=1)
    images = mix_images(*(data.standardise(data.train_images[k]) for k in (pairs.first, pairs.second)), pairs)
    one, other = (torch.eye(10)[data.train_classes[k]] for k in (pairs.first, pairs.second))
    labels = pairs.lam[:, None] * one + (1 - pairs.lam[:, None]) * other
    expected = torch.nn.functional.cross_entropy(network(images), labels)
    assert found == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize(
    "changes",
    [{}, {"mixing": Mixing("cutmix"), "num_classes": 3}, {"mixing": Mixing("none")}, {"augment": True}],
)
def test_training_by_steps_in_two_parts_is_that_in_one(tmp_path: Path, changes: dict[str, Any]):
    config = replace(TINY_STEPS, epoch_steps=5, **changes)
    trained(config, tmp_path / "whole")
    assert len(trained(config, tmp_path / "parts", stop_after=2).history) == 2
    trained(config, tmp_path / "parts")
    assert_same_end(tmp_path / "whole", tmp_path / "parts")
    trained(replace(config, seed=1), tmp_path / "other")
    with pytest.raises(AssertionError):
        assert_same_end(tmp_path / "whole", tmp_path / "other")


def test_classes_and_images_are_cut():
    data = digits()
    three = replace(TINY_STEPS, num_classes=3, train_samples=None).cut(data)
    assert three.num_classes == 3
    assert three.class_names == ("0", "1", "2")
    for classes, images, whole, of in (
        (three.train_classes, three.train_images, data.train_images, data.train_classes),
        (three.test_classes, three.test_images, data.test_images, data.test_classes),
    ):
        assert sorted(set(classes.tolist())) == [0, 1, 2]
        assert torch.equal(images, whole[of < 3])
    few = replace(TINY_STEPS, num_classes=3, train_samples=12).cut(data)
    assert torch.bincount(few.train_classes).tolist() == [4, 4, 4]
    assert torch.equal(few.mean, data.mean)
    with pytest.raises(ValueError, match="^num_classes: got 11"):
        data.first_classes(11)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_classes": 2}, "^num_classes: got 2"),
        ({"epoch_steps": 0}, "^epoch_steps: got 0"),
        ({"epoch_steps": 1.5}, "^epoch_steps: got 1.5"),
    ],
)
def test_bad_settings_are_named(changes: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        replace(TINY_STEPS, **changes)


def test_a_batch_of_a_pass_has_to_fit_the_images(tmp_path: Path):
    with pytest.raises(ValueError, match="^batch_size: got 128, expected at most the 60"):
        trained(replace(TINY_STEPS, epoch_steps=None), tmp_path)
