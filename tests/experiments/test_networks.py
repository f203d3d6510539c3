"""Networks: their sizes against the published ones, mixing before any stage, fixed heads, blocks against oracles."""

import pytest
import torch
from torch import nn

import ufm
from experiments.networks import Network, NetworkConfig, build_network
from experiments.networks.convolutional import BasicBlock, PreactivationBlock
from experiments.networks.transformer import TransformerBlock

SMALL = {
    "cnn": NetworkConfig("cnn", width=3, dim=9),
    "resnet18": NetworkConfig("resnet18", width=2),
    "wideresnet": NetworkConfig("wideresnet", depth=10, width=1),
    "vit": NetworkConfig("vit", patch=4, width=12, depth=2, heads=3),
}


def built(config: NetworkConfig, image_shape: tuple[int, int, int] = (1, 8, 8), num_classes: int = 10) -> Network:
    torch.manual_seed(0)
    return build_network(config, image_shape, num_classes)


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("architecture", "count", "dim"),
    [("wideresnet", 55_841_754, 640), ("vit", 85_152_010, 768), ("resnet18", 11_173_962, 512)],
)
def test_sizes_are_the_published_ones(architecture: str, count: int, dim: int):
    images = torch.empty(2, 3, 32, 32, device="meta")
    with torch.device("meta"):
        network = build_network(NetworkConfig(architecture), (3, 32, 32), 10)
        assert parameters(network) == count
        assert network.features(images).shape == (2, dim)
        assert network(images).shape == (2, 10)


def test_the_small_cnn_has_the_size_that_its_layers_add_up_to():
    w, d, K = 5, 7, 4
    network = built(NetworkConfig("cnn", width=w, dim=d, stride=2), (3, 16, 16), K)
    convolutions = 9 * (3 * w + w * 2 * w + 2 * w * 4 * w)
    norms = 2 * (w + 2 * w + 4 * w + d)
    assert parameters(network) == convolutions + norms + 4 * w * d + (d + 1) * K
    assert network.stages[0](torch.randn(2, 3, 16, 16)).shape == (2, w, 8, 8)


@pytest.mark.parametrize("architecture", SMALL)
def test_mixing_before_a_stage_is_mixing_its_inputs(architecture: str):
    network = built(SMALL[architecture]).eval()
    images, partners = torch.randn(2, 5, 1, 8, 8)
    lam = torch.rand(5)
    plain = network(images)
    assert plain.shape == (5, 10)
    torch.testing.assert_close(plain, network.head(network.features(images)))
    for stage in range(len(network.stages)):
        first, second = network.stages[:stage](images), network.stages[:stage](partners)
        weight = lam.reshape(5, *[1] * (first.ndim - 1))
        by_hand = network.head(network.stages[stage:](first * weight + second * (1 - weight)))
        torch.testing.assert_close(network(images, partners, lam, stage), by_hand)
        torch.testing.assert_close(network(images, partners, torch.ones(5), stage), plain)
    weight = lam.view(5, 1, 1, 1)
    torch.testing.assert_close(network(images, partners, lam), network(weight * images + (1 - weight) * partners))
    assert (network(images, partners, lam) - network(images, partners, lam, 2)).abs().max() > 1e-4


@pytest.mark.parametrize("architecture", SMALL)
def test_every_parameter_is_used_and_seeds_decide_the_weights(architecture: str):
    network, again = built(SMALL[architecture]), built(SMALL[architecture])
    state, other = network.state_dict(), again.state_dict()
    assert all(torch.equal(value, other[name]) for name, value in state.items())
    torch.manual_seed(1)
    assert not torch.equal(build_network(SMALL[architecture], (1, 8, 8), 10).head.weight, network.head.weight)
    network(torch.randn(4, 1, 8, 8)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_a_fixed_head_is_an_etf_without_bias_that_training_leaves_alone():
    network = built(NetworkConfig("cnn", width=2, dim=12, etf_multiplier=1.7))
    W = network.head.weight
    gram = 1.7**2 * 10 / 9 * (torch.eye(10) - 0.1)
    torch.testing.assert_close(W @ W.T, gram, atol=2e-6, rtol=0)
    assert ufm.nearest_etf(W).relative_error < 1e-6
    assert network.head.bias is None
    assert not W.requires_grad
    before = W.clone()
    optimiser = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1, weight_decay=0.1)
    network(torch.randn(4, 1, 8, 8)).square().sum().backward()
    optimiser.step()
    assert torch.equal(network.head.weight, before)
    # Rotated at random, by the seed.
    assert torch.equal(built(NetworkConfig("cnn", width=2, dim=12, etf_multiplier=1.7)).head.weight, before)
    torch.manual_seed(1)
    other = build_network(NetworkConfig("cnn", width=2, dim=12, etf_multiplier=1.7), (1, 8, 8), 10)
    assert not torch.allclose(other.head.weight, before, atol=0.1)
    assert built(NetworkConfig("cnn", width=2, dim=12)).head.bias is not None


def test_the_features_sign_is_as_promised():
    images = torch.randn(16, 1, 8, 8)
    assert built(SMALL["cnn"]).features(images).min() < 0
    for config in (NetworkConfig("cnn", width=3, dim=9, nonnegative=True), SMALL["resnet18"], SMALL["wideresnet"]):
        features = built(config).features(images)
        assert features.min() >= 0
        assert features.max() > 0


def test_convolutions_of_the_residual_networks_are_drawn_as_he_et_al_do():
    network = built(NetworkConfig("resnet18", width=32), (3, 32, 32))
    convolution = network.stages[3][1].residual[0]
    fan_out = 9 * convolution.out_channels
    assert convolution.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.02)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"architecture": "perceptron"}, "architecture: got 'perceptron'"),
        ({"architecture": "vit", "stride": 2}, "stride: got 2 for 'vit'"),
        ({"architecture": "resnet18", "dim": 10}, "dim: got 10 for 'resnet18'"),
        ({"architecture": "cnn", "heads": 2}, "heads: got 2 for 'cnn'"),
        ({"architecture": "wideresnet", "nonnegative": True}, "nonnegative: got True"),
        ({"width": 0}, "width: got 0"),
        ({"dim": 2.5}, "dim: got 2.5"),
        ({"etf_multiplier": 0.0}, "etf_multiplier: got 0.0"),
    ],
)
def test_bad_configurations_are_named(settings: dict, named: str):
    with pytest.raises(ValueError, match=f"^{named}"):
        NetworkConfig(**settings)


@pytest.mark.parametrize(
    ("config", "named"),
    [
        (NetworkConfig("vit", width=32, heads=5), "heads: got 5"),
        (NetworkConfig("vit", patch=3), "patch: got 3"),
        (NetworkConfig("wideresnet", depth=12), "depth: got 12"),
        (NetworkConfig("wideresnet", depth=4), "depth: got 4"),
        (NetworkConfig("cnn", dim=8, etf_multiplier=1.0), "dim: got 8"),
        (NetworkConfig("cnn", stride=8), "stride: got 8"),
    ],
)
def test_sizes_that_do_not_fit_the_images_are_named(config: NetworkConfig, named: str):
    with pytest.raises(ValueError, match=f"^{named}"):
        build_network(config, (1, 8, 8), 10)


def test_the_largest_stride_works():
    assert built(NetworkConfig("cnn", width=2, dim=9, stride=7))(torch.randn(2, 1, 8, 8)).shape == (2, 10)


def test_attention_is_that_of_torch():
    block = TransformerBlock(12, 3).eval()
    oracle = nn.MultiheadAttention(12, 3, batch_first=True).eval()
    with torch.no_grad():
        oracle.in_proj_weight.copy_(block.qkv.weight)
        oracle.in_proj_bias.copy_(block.qkv.bias)
    oracle.out_proj.load_state_dict(block.out.state_dict())
    x = torch.randn(4, 7, 12)
    normed = block.norm1(x)
    attended = x + oracle(normed, normed, normed, need_weights=False)[0]
    torch.testing.assert_close(block(x), attended + block.mlp(block.norm2(attended)))


def test_tokens_are_patches_in_reading_order_behind_the_class_token():
    network = built(SMALL["vit"], (2, 8, 12))
    embedding = network.stages[0]
    images = torch.randn(3, 2, 8, 12)
    tokens = embedding(images)
    assert tokens.shape == (3, 7, 12)
    patch = images[:, :, 4:8, 4:8].flatten(1)
    expected = patch @ embedding.projection.weight.flatten(1).T + embedding.projection.bias + embedding.positions[0, 5]
    torch.testing.assert_close(tokens[:, 5], expected)
    torch.testing.assert_close(tokens[:, 0], (embedding.class_token + embedding.positions)[:, 0].expand(3, -1))
    last = network.stages[:-1](images)[:, 0]
    torch.testing.assert_close(network.features(images), nn.functional.layer_norm(last, (12,)))


@pytest.mark.parametrize(("wider", "stride"), [(4, 1), (6, 1), (4, 2), (6, 2)])
def test_residual_blocks_are_what_their_papers_say(wider: int, stride: int):
    x = torch.randn(3, 4, 8, 8)
    size = (3, wider, 8 // stride, 8 // stride)
    changes = stride == 2 or wider == 6
    basic, pre = BasicBlock(4, wider, stride), PreactivationBlock(4, wider, stride)
    assert basic(x).shape == pre(x).shape == size
    assert basic(x).min() >= 0
    assert pre(x).min() < 0
    # With the residual's last layer at zero the shortcut alone is left.
    with torch.no_grad():
        basic.residual[-1].weight.zero_()
        pre.residual[-1].weight.zero_()
    shortcut = (
        nn.functional.conv2d(torch.relu(pre.activation[0](x)), pre.shortcut.weight, None, stride) if changes else x
    )
    torch.testing.assert_close(pre(x), shortcut)
    torch.testing.assert_close(basic(x), torch.relu(basic.shortcut(x) if changes else x))
    assert isinstance(basic.shortcut, nn.Identity) != changes
