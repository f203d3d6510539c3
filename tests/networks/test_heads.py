"""Classifiers of every kind in models of every kind: found, recorded, or refused by name."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import ufm

K, D = 4, 5


def data(kind: str = "soft", count: int = 3, size: int = 7) -> list[Any]:
    generator = torch.Generator().manual_seed(0)
    batches = []
    for _ in range(count):
        x = torch.randn(size, 6, generator=generator)
        a, b = torch.randint(K, (2, size), generator=generator)
        y = ufm.PairTargets(K, a, b, torch.rand(size, generator=generator).double()).labels
        batches.append({"soft": (x, y), "hard": [x, a], "named": {"x": x, "labels": y}}[kind])
    return batches


class Net(nn.Module):
    """A backbone of one layer, whatever head, and a function of it that is returned."""

    def __init__(self, head: nn.Module, returned: Callable[[Any, Tensor], Any] = lambda net, h: net.head(h)) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.head = nn.Linear(6, D), head
        self.returned = returned

    def backbone(self, x: Tensor) -> Tensor:
        return torch.tanh(self.stem(x))

    def forward(self, x: Tensor) -> Any:
        return self.returned(self, self.backbone(x))


@dataclass
class Output:
    logits: Tensor
    loss: Tensor | None = None


def with_auxiliary(net: Net, h: Tensor) -> Tensor:
    net.auxiliary(h)
    return net.head(h)


RETURNED: dict[str, Callable[[Any, Tensor], Any]] = {
    "tensor": lambda net, h: net.head(h),
    "tuple": lambda net, h: (net.head(h), h),
    "tuple, features first": lambda net, h: (h, net.head(h)),
    "dictionary": lambda net, h: {"logits": net.head(h)},
    "dictionary of another name": lambda net, h: {"z": net.head(h)},
    "dataclass": lambda net, h: Output(net.head(h)),
    "logarithms of probabilities": lambda net, h: torch.log_softmax(net.head(h), 1),
    "probabilities": lambda net, h: torch.softmax(net.head(h), 1),
    "called twice": lambda net, h: (net.head(0.5 * h), net.head(h))[1],
    "auxiliary head behind": with_auxiliary,
}


@pytest.mark.parametrize("returned", RETURNED)
def test_the_head_is_told_by_what_the_model_returns(returned: str):
    net = Net(nn.Linear(D, K), RETURNED[returned])
    net.auxiliary = nn.Linear(D, K)
    found = ufm.record(net, data())
    x = torch.cat([x for x, _ in data()])
    torch.testing.assert_close(found.classifier, net.head.weight.detach())
    torch.testing.assert_close(found.logits, net.head(net.backbone(x)).detach())
    torch.testing.assert_close(found.features, net.backbone(x).detach())
    torch.testing.assert_close(found.labels, torch.cat([y for _, y in data()]))


HEADS: dict[str, Callable[[], nn.Module]] = {
    "without bias": lambda: nn.Linear(D, K, bias=False),
    "dropout before": lambda: nn.Sequential(nn.Dropout(0.3), nn.Linear(D, K)),
    "norm before": lambda: nn.Sequential(nn.LayerNorm(D), nn.Linear(D, K)),
    "weight norm": lambda: parametrizations.weight_norm(nn.Linear(D, K)),
    "spectral norm": lambda: parametrizations.spectral_norm(nn.Linear(D, K)),
    "convolution": lambda: nn.Sequential(
        nn.Unflatten(1, (D, 1, 1)), nn.Conv2d(D, K, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ),
    "convolution before pooling": lambda: nn.Sequential(
        Spread(), nn.Conv2d(D, K, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ),
}


class Spread(nn.Module):
    """Positions with different values, whose mean is the input."""

    def forward(self, x: Tensor) -> Tensor:
        shift = torch.tensor([[-1.0, 0.0], [0.5, 0.5]])
        return x[:, :, None, None] + shift.to(x)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_heads_of_every_kind(head: str, dtype: torch.dtype):
    net = Net(HEADS[head]()).to(dtype)
    found = ufm.record(net, [(x.to(dtype), y) for x, y in data()])
    with torch.no_grad():
        z = net.eval()(torch.cat([x for x, _ in data()]).to(dtype)).float()
    torch.testing.assert_close(found.logits, z, atol=3e-2 if dtype == torch.bfloat16 else 1e-5, rtol=1e-2)
    assert ufm.compare(found, solver=False).beta > 0


def test_shared_weights():
    """The head's weight is the embedding of the classes too."""
    net = Net(nn.Linear(D, K, bias=False))
    net.classes = nn.Embedding(K, D)
    net.head.weight = net.classes.weight
    assert torch.equal(ufm.record(net, data()).classifier, net.classes.weight.detach())


class Wide(nn.Linear):
    """A head in float32 on a body of another dtype."""

    def forward(self, input: Tensor) -> Tensor:
        return nn.functional.linear(input.float(), self.weight, self.bias)


class Narrowing(Wide):
    """The same, whose output has the body's dtype."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).to(input.dtype)


class Normalised(nn.Linear):
    """A linear map whose rows are normalised in the forward pass."""

    def forward(self, input: Tensor) -> Tensor:
        return nn.functional.linear(input, nn.functional.normalize(self.weight), self.bias)


class Product(nn.Linear):
    """A linear map without torch's function for it."""

    def forward(self, input: Tensor) -> Tensor:
        return input @ self.weight.T + self.bias


def left(net: nn.Module) -> list[Any]:
    """Return what may be changed by reading the weight of a head."""
    some = [*net.named_parameters(), *net.named_buffers()]
    weights = {id(x): x for x in (vars(module).get("weight") for module in net.modules()) if x is not None}
    return [
        [(name, id(x), x.requires_grad, x.detach().clone().view(-1).tolist()) for name, x in some],
        [(key, x.requires_grad, x.detach().view(-1).tolist()) for key, x in weights.items()],
        [sorted(vars(module)) for module in net.modules()],
    ]


@pytest.mark.filterwarnings("ignore:.*(weight_norm|spectral_norm).*:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*spectral_norm.*deprecated")
@pytest.mark.parametrize("train_mode", [False, True])
@pytest.mark.parametrize("head", [parametrizations.spectral_norm, nn.utils.spectral_norm])
def test_a_weight_that_is_computed_anew_in_each_pass(head: Callable[..., nn.Module], train_mode: bool):
    """In training mode the power iteration starts from the model's state in every pass: the weights are the same."""
    for seed in range(20):
        torch.manual_seed(seed)
        net = Net(nn.Identity())
        torch.manual_seed(seed)
        net.head = head(nn.Linear(D, K)).train()
        net.train()
        before = left(net)
        found = ufm.record(net, data(), train_mode=train_mode)
        assert left(net) == before
        assert found.bias is not None
        expected = found.features.double() @ found.classifier.double().T + found.bias.double()
        assert (found.logits.double() - expected).abs().max() < 1e-6 * expected.abs().max()
        # The first pass of the model itself, which here comes after.
        logits = net.train(train_mode)(data()[0][0])
        torch.testing.assert_close(found.logits[:7], logits.detach(), rtol=0, atol=0)


@pytest.mark.parametrize("head", [Wide, Narrowing])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("named", [False, True])
def test_a_wide_head_on_a_narrow_body(head: type, dtype: torch.dtype, named: bool):
    net = Net(head(D, K))
    net.stem.to(dtype)
    batches = [(x.to(dtype), y) for x, y in data()]
    found = ufm.record(net, batches, classifier="head" if named else None)
    assert torch.equal(found.classifier, net.head.weight.detach())
    torch.testing.assert_close(found.logits, net(torch.cat([x for x, _ in batches])).detach().float())
    assert torch.equal(found.features, net.backbone(torch.cat([x for x, _ in batches])).detach().float())


def test_the_weight_is_that_of_the_pass():
    net = Net(Normalised(D, K))
    found = ufm.record(net, data())
    assert torch.equal(found.classifier, nn.functional.normalize(net.head.weight.detach()))
    torch.testing.assert_close(found.logits, net(torch.cat([x for x, _ in data()])).detach())
    net = Net(Product(D, K))
    assert torch.equal(ufm.record(net, data()).classifier, net.head.weight.detach())


class Drifting(nn.Linear):
    """A layer that another weight is used for in each pass."""

    def forward(self, input: Tensor) -> Tensor:
        self.weight.data = 1.1 * self.weight.data
        return super().forward(input)


def test_a_weight_that_changes_from_batch_to_batch_is_refused_at_once():
    net = Net(Drifting(D, K))
    taken = iter(data())
    with pytest.raises(ValueError, match="^classifier: .*changes from batch to batch"):
        ufm.record(net, taken)
    assert len(list(taken)) == 1


def test_a_function_that_reads_a_weight_leaves_the_model():
    net = Net(parametrizations.spectral_norm(nn.Linear(D, K))).train()
    before = left(net)
    ufm.record(net, data(), features=net.backbone, classifier=lambda: net.head.weight, bias=net.head.bias)
    assert left(net) == before


class Cosine(nn.Module):
    """A scaled cosine between features and rows that are a bare parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.scale = nn.Parameter(torch.randn(K, D)), 7.0

    def rows(self) -> Tensor:
        return self.scale * nn.functional.normalize(self.weight)

    def forward(self, h: Tensor) -> Tensor:
        return nn.functional.normalize(h) @ self.rows().T


def test_a_cosine_head_by_functions():
    net = Net(Cosine())
    with pytest.raises(ValueError, match=r"^classifier: .*features= and classifier="):
        ufm.record(net, data())
    found = ufm.record(
        net, data(), features=lambda x: nn.functional.normalize(net.backbone(x)), classifier=net.head.rows
    )
    torch.testing.assert_close(found.features.norm(dim=1), torch.ones(21))
    torch.testing.assert_close(found.logits, net(torch.cat([x for x, _ in data()])).detach())
    # Without the normalisation these are not the logits.
    with pytest.raises(ValueError, match="^features, classifier: .*differs from what the model returns by"):
        ufm.record(net, data(), features=net.backbone, classifier=net.head.rows)


def test_features_by_name_and_arrays(tmp_path: Path):
    net = Net(nn.Linear(D, K))
    net.norm = nn.Identity()
    net.returned = lambda net, h: net.head(net.norm(h))
    reference = ufm.record(net, data())
    W, b = net.head.weight.detach().numpy(), net.head.bias.detach().numpy()
    found = ufm.record(net, data(), features="norm", classifier=W, bias=b, out=tmp_path / "a.safetensors")
    torch.testing.assert_close(found.logits, reference.logits)
    torch.testing.assert_close(found.features, reference.features)


class Averaged(nn.Module):
    """Two heads whose outputs are averaged."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(D, K), nn.Linear(D, K)

    def forward(self, h: Tensor) -> Tensor:
        return (self.one(h) + self.other(h)) / 2


def test_two_averaged_heads_are_refused_and_listed():
    with pytest.raises(ValueError, match=r"^classifier: .*none of its linear.*'head.one' \(4 outputs\), 'head.other'"):
        ufm.record(Net(Averaged()), data())
    with pytest.raises(ValueError, match="^classifier: got 'head.one', whose output is not what the model returns"):
        ufm.record(Net(Averaged()), data(), classifier="head.one")


def test_without_logits_the_name_is_needed_unless_the_model_says_it():
    loss = lambda net, h: net.head(h).square().mean()  # noqa: E731
    net = Net(nn.Linear(D, K), loss)
    with pytest.raises(ValueError, match="^classifier: .*the name of one of its linear layers: 'stem'.*'head'"):
        ufm.record(net, data())
    assert torch.equal(ufm.record(net, data(), classifier="head").classifier, net.head.weight.detach())
    net.get_classifier = lambda: net.head
    assert torch.equal(ufm.record(net, data()).classifier, net.head.weight.detach())


@pytest.mark.parametrize("kind", ["soft", "hard", "named"])
def test_batches_as_loaders_yield_them(kind: str, tmp_path: Path):
    net = Net(nn.Linear(D, K))
    found = ufm.record(net, data(kind), max_samples=17)
    labels = [batch["labels"] if isinstance(batch, dict) else batch[1] for batch in data(kind)]
    y = torch.cat([nn.functional.one_hot(y, K).double() if y.ndim == 1 else y for y in labels])[:17]
    torch.testing.assert_close(found.labels, y)
    on_disk = ufm.record(net, data(kind), max_samples=17, out=tmp_path / "a.safetensors")
    assert torch.equal(on_disk.labels, found.labels)
    assert torch.equal(on_disk.class_a, found.class_a)
    assert (found.decoded.classes == 1).all() == (kind == "hard")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_smoothed_labels_of_three_classes_are_recorded_as_they_are(dtype: torch.dtype, tmp_path: Path):
    y = ufm.LabelSmoothing(ufm.Mixup(K, ways=3), 0.1).targets(3).labels[:56].to(dtype)
    batches = [(torch.randn(len(some), 6), some) for some in y.split(8)]
    found = ufm.record(Net(nn.Linear(D, K)), batches, out=tmp_path / "a.safetensors")
    assert found.smoothing == pytest.approx(0.1, rel=0.02)
    torch.testing.assert_close(found.labels, y.double() / y.double().sum(1, keepdim=True), atol=1e-6, rtol=1e-6)
    assert bool((found.classes == 3).any())  # pyright: ignore[reportOptionalMemberAccess]


X = torch.randn(7, 6)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("batch", "named"),
    [
        ((X, torch.eye(K), 3), "batches: got tuple of 3"),
        ({"x": X}, "batches"),
        ((X, torch.eye(K)), "labels"),
        ((X, torch.full((7, K), 0.5)), "labels"),
        ((X, torch.full((7,), K)), "labels"),
        ((X, torch.full((7, 3), 1 / 3)), "labels"),
        ((X, torch.rand(7)), "labels"),
        ((X, [0] * 7), "labels"),
        ((None, torch.zeros(7).long()), "inputs"),
    ],
)
def test_batches_that_are_none_are_named(batch: Any, named: str):
    with pytest.raises(ValueError, match=f"^{named}"):
        ufm.record(Net(nn.Linear(D, K)), [batch])


def test_labels_of_two_kinds_are_refused():
    with pytest.raises(ValueError, match="^batches: got labels of two kinds"):
        ufm.record(Net(nn.Linear(D, K)), [*data("soft"), *data("hard")])


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"features": "nowhere", "classifier": torch.ones(K, D)}, "features"),
        ({"features": 3, "classifier": torch.ones(K, D)}, "features"),
        ({"features": "stem"}, "classifier"),
        ({"features": "stem", "classifier": "head"}, "classifier"),
        ({"features": "stem", "classifier": torch.ones(K)}, "classifier"),
        ({"features": "stem", "classifier": torch.ones(K, D + 1)}, "features"),
        ({"features": "stem", "classifier": torch.ones(K, D), "bias": torch.ones(3)}, "bias"),
        ({"features": "stem", "classifier": torch.ones(K, D)}, "features, classifier"),
        ({"classifier": torch.ones(K, D)}, "classifier"),
        ({"bias": torch.ones(K)}, "bias"),
        ({"classifier": nn.ReLU()}, "classifier"),
        ({"classifier": nn.Conv2d(1, 1, 3)}, "classifier"),
    ],
)
def test_heads_that_are_none_are_named(arguments: dict[str, Any], named: str):
    with pytest.raises(ValueError, match=f"^{named}:"):
        ufm.record(Net(nn.Linear(D, K)), data(), **arguments)
