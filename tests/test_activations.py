import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from safetensors.torch import save_file
from torch import nn

import ufm
from tests.networks import Foreign, batches


def test_record_returns_what_the_model_computes():
    model = Foreign().eval()
    recorded = ufm.record(model, batches(), layers=["stem", "embed"])
    inputs = torch.cat([batch.inputs for batch in batches()])
    with torch.no_grad():
        torch.testing.assert_close(recorded.logits, model(inputs))
        torch.testing.assert_close(recorded.layers["stem"], model.stem(inputs))
        torch.testing.assert_close(recorded.features, torch.tanh(model.embed(model.stem(inputs))))
    torch.testing.assert_close(recorded.features @ recorded.classifier.T, recorded.logits)
    assert recorded.bias is None
    assert recorded.labels.shape == (21, 4)
    np.testing.assert_allclose(recorded.labels.sum(1), 1)
    assert recorded.description["mode"] == "eval"


def test_record_leaves_the_model_as_it_was():
    model = Foreign().train()
    model.drop.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(0)
    recorded = ufm.record(model, batches(), train_mode=True)
    assert recorded.description["mode"] == "train"
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert model.training
    assert not model.drop.training
    assert not any(module._forward_hooks for module in model.modules())
    with pytest.raises(RuntimeError):
        ufm.record(model, [ufm.MixedBatch(torch.ones(2, 99), *[torch.zeros(2, dtype=torch.long)] * 2, torch.ones(2))])
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())


def test_train_and_eval_mode_differ():
    model = Foreign()
    train, evaluation = (ufm.record(model, batches(), train_mode=mode) for mode in (True, False))
    assert not torch.allclose(train.logits, evaluation.logits)


def test_classifier_by_name_by_module_and_by_default():
    model = Foreign().eval()
    recorded = [ufm.record(model, batches(), classifier=c) for c in ("out", model.out, None)]
    assert all(torch.equal(recorded[0].logits, other.logits) for other in recorded)
    embed = ufm.record(model, batches(), classifier="embed")
    assert embed.features.shape == (21, 8)
    assert embed.bias is not None


def test_save_and_load_round_trip(tmp_path: Path):
    model = Foreign().eval()
    recorded = ufm.record(model, batches(), layers=["stem"], description={"data": "noise"})
    path = tmp_path / "folder" / "activations.safetensors"
    recorded.save(path)
    loaded = ufm.load(path)
    for name in ("features", "logits", "class_a", "class_b", "lam", "classifier"):
        assert torch.equal(getattr(loaded, name), getattr(recorded, name))
    assert torch.equal(loaded.layers["stem"], recorded.layers["stem"])
    assert loaded.description == {"data": "noise", "mode": "eval"}
    assert loaded.bias is None
    # Plain NumPy reads the same file.
    np.testing.assert_array_equal(load_file(path)["features"], recorded.features.numpy())
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_missing_damaged_and_foreign_files_are_named(tmp_path: Path):
    path = tmp_path / "a.safetensors"
    with pytest.raises(ValueError, match="file: .*does not exist"):
        ufm.load(path)
    with pytest.raises(ValueError, match="file: .*is not a file"):
        ufm.load(tmp_path)
    path.write_bytes(b"not tensors at all")
    with pytest.raises(ValueError, match="file: .*not a readable safetensors"):
        ufm.load(path)
    save_file({"weights": torch.ones(2)}, path)
    with pytest.raises(ValueError, match="file: .*another kind"):
        ufm.load(path)
    ufm.record(Foreign().eval(), batches()).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="file: .*not a readable safetensors"):
        ufm.load(path)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"layers": ["nowhere"]}, "layers"),
        ({"classifier": "stem"}, "classifier"),
        ({"classifier": nn.Linear(2, 2)}, "classifier"),
        ({"batches": []}, "batches"),
        ({"model": nn.ReLU()}, "model"),
    ],
)
def test_bad_input_is_named(arguments: dict, named: str):
    with pytest.raises(ValueError, match=f"^{named}"):
        ufm.record(**{"model": Foreign(), "batches": batches(), **arguments})


class Named(nn.Module):
    """Submodules called as the recording's own columns, and a layer that runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.logits = nn.Linear(6, 5), nn.ReLU()
        self.out = nn.Linear(5, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.logits(self.logits(self.features(x))))


def test_layers_may_have_any_name_but_run_once():
    recorded = ufm.record(Named(), batches(), layers=["features"])
    assert recorded.layers["features"].shape == recorded.features.shape == (21, 5)
    assert recorded.logits.shape == (21, 4)
    with pytest.raises(ValueError, match="logits: .*once per batch"):
        ufm.record(Named(), batches(), layers=["logits"])
    with pytest.raises(ValueError, match="layers: .*string"):
        ufm.record(Named(), batches(), layers="features")


def test_half_precision_is_widened():
    model = Foreign().eval().bfloat16()
    half = [ufm.MixedBatch(b.inputs.bfloat16(), b.class_a, b.class_b, b.lam) for b in batches()]
    assert ufm.record(model, half).features.dtype == torch.float32


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"class_a": torch.tensor([9] * 21)}, "class_a"),
        ({"class_b": torch.zeros(21)}, "class_b"),
        ({"lam": torch.full((21,), 1.5)}, "lam"),
        ({"lam": torch.full((21,), float("nan"))}, "lam"),
        ({"lam": torch.ones(5)}, "lam"),
        ({"logits": torch.ones(21)}, "logits"),
        ({"logits": torch.ones(5, 4)}, "logits"),
        ({"features": torch.ones(21, 9)}, "classifier"),
    ],
)
def test_activations_that_do_not_fit_are_named_also_on_loading(change: dict, named: str, tmp_path: Path):
    recorded = ufm.record(Foreign().eval(), batches())
    with pytest.raises(ValueError, match=f"^{named}"):
        dataclasses.replace(recorded, **change)
    path = tmp_path / "a.safetensors"
    for name, value in change.items():
        object.__setattr__(recorded, name, value)
    recorded.save(path)
    with pytest.raises(ValueError, match=f"^file: .*{named}"):
        ufm.load(path)


def test_a_save_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    recorded = ufm.record(Foreign().eval(), batches())
    path = tmp_path / "a.safetensors"
    recorded.save(path)
    before = path.read_bytes()

    def half_written(arrays: dict, target: Path, metadata: dict) -> None:
        Path(target).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("ufm.activations.save_file", half_written)
    with pytest.raises(OSError, match="disk full"):
        recorded.save(path)
    assert path.read_bytes() == before


def test_arrays_that_share_memory_are_saved(tmp_path: Path):
    recorded = ufm.record(Foreign().eval(), batches())
    shared = dataclasses.replace(recorded, class_b=recorded.class_a)
    shared.save(tmp_path / "a.safetensors")
    assert torch.equal(ufm.load(tmp_path / "a.safetensors").class_b, recorded.class_a)
