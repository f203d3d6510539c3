import ast
import dataclasses
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from hypothesis import given, strategies as st
from safetensors.numpy import load_file
from safetensors.torch import save_file
from torch import nn

import ufm
from tests.helpers.networks import Foreign, batches
from ufm._support.tensorfile import write_tensors

BATCH = batches(1)[0]


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
    assert (
        loaded.description
        == recorded.description
        == {
            "data": "noise",
            "mode": "eval",
            "samples": "21",
            "layers": '["stem"]',
            "pool": "false",
            "torch": torch.__version__,
            "ufm": ufm.__version__,
        }
    )
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
        ({"batches": iter(())}, "batches"),
        ({"batches": [torch.ones(7, 6)]}, "batches"),
        ({"model": nn.ReLU()}, "model"),
        ({"model": nn.LazyLinear(4)}, "model"),
        ({"max_samples": 0}, "max_samples"),
        ({"max_samples": 2.5}, "max_samples"),
        ({"out": Path(__file__).parent}, "out"),
        ({"out": Path(__file__) / "below" / "a.safetensors"}, "out"),
        ({"description": {"seed": 3}}, "description"),
        ({"description": {"mode": "mine"}}, "description"),
    ],
)
def test_bad_input_is_named(arguments: dict, named: str):
    with pytest.raises(ValueError, match=f"^{named}"):
        ufm.record(**{"model": Foreign(), "batches": batches(), **arguments})


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"inputs": torch.tensor(1.0)}, "inputs"),
        ({"inputs": torch.ones(0, 6)}, "inputs"),
        ({"inputs": [torch.ones(7, 6)]}, "inputs"),
        ({"inputs": {"x": None}}, "inputs"),
        ({"inputs": {0: torch.ones(7, 6)}}, "inputs"),
        ({"class_a": BATCH.class_a[1:]}, "class_a"),
        ({"class_a": BATCH.class_a + 4}, "class_a"),
        ({"class_b": BATCH.class_b[:, None]}, "class_b"),
        ({"class_b": BATCH.class_b.double()}, "class_b"),
        ({"class_b": BATCH.class_b > 0}, "class_b"),
        ({"lam": BATCH.lam.tolist()}, "lam"),
        ({"lam": BATCH.lam[:3]}, "lam"),
        ({"lam": -BATCH.lam}, "lam"),
        ({"lam": BATCH.lam / 0}, "lam"),
        ({"inputs": BATCH.inputs * float("nan")}, "features"),
    ],
)
def test_a_batch_that_does_not_fit_is_named(change: dict, named: str):
    with pytest.raises(ValueError, match=f"^{named}"):
        ufm.record(Foreign(), [BATCH, dataclasses.replace(BATCH, **change)])


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
        ({"features": torch.full((21, 5), float("-inf"))}, "features"),
        ({"logits": torch.full((21, 4), float("nan"))}, "logits"),
        ({"bias": torch.full((4,), float("inf"))}, "bias"),
        ({"bias": torch.ones(5)}, "bias"),
        ({"layers": {"stem": torch.ones(20, 3)}}, "layers"),
        ({"layers": {"stem": torch.tensor(1.0)}}, "layers"),
        ({"description": {"a": 1}}, "description"),
    ],
)
def test_activations_that_do_not_fit_are_named_also_on_loading(change: dict, named: str, tmp_path: Path):
    recorded = ufm.record(Foreign().eval(), batches())
    with pytest.raises(ValueError, match=f"^{named}"):
        dataclasses.replace(recorded, **change)
    path = tmp_path / "a.safetensors"
    vars(recorded).update(change)
    recorded.save(path)
    with pytest.raises(ValueError, match=f"^file: .*{named}"):
        ufm.load(path)


def test_a_save_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    recorded = ufm.record(Foreign().eval(), batches())
    path = tmp_path / "a.safetensors"
    recorded.save(path)
    before = path.read_bytes()

    def half_written(block: torch.Tensor) -> torch.Tensor:
        raise OSError("disk full")

    monkeypatch.setattr("ufm._support.tensorfile.bytes_of", half_written)
    with pytest.raises(OSError, match="disk full"):
        recorded.save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_arrays_that_share_memory_are_saved(tmp_path: Path):
    recorded = ufm.record(Foreign().eval(), batches())
    shared = dataclasses.replace(recorded, class_b=recorded.class_a)
    shared.save(tmp_path / "a.safetensors")
    assert torch.equal(ufm.load(tmp_path / "a.safetensors").class_b, recorded.class_a)


@pytest.mark.usefixtures("unchecked")
def test_activations_of_other_types_are_named():
    recorded = ufm.record(Foreign().eval(), batches())
    with pytest.raises(ValueError, match="^features: .*ndarray"):
        dataclasses.replace(recorded, features=recorded.features.numpy())
    with pytest.raises(ValueError, match="^layer:stem: .*complex64"):
        dataclasses.replace(recorded, layers={"stem": torch.ones(21, 2, dtype=torch.complex64)}).save("unwritten")
    assert not Path("unwritten").exists()


def test_plain_numpy_reads_every_array(tmp_path: Path):
    recorded = ufm.record(Foreign().eval(), batches(), classifier="embed")
    extra = {"half": torch.ones(21, 2).half(), "bfloat": torch.ones(21, 3).bfloat16(), "bits": torch.ones(21) > 0}
    narrow = {"class_a": recorded.class_a.to(torch.int16), "class_b": recorded.class_b.int()}
    dataclasses.replace(recorded, layers=extra, **narrow).save(tmp_path / "a.safetensors")
    program = (
        "import sys; sys.modules['torch'] = None; from safetensors.numpy import load_file;"
        "print({name: f'{x.dtype}{list(x.shape)}' for name, x in sorted(load_file(sys.argv[1]).items())})"
    )
    command = [sys.executable, "-c", program, tmp_path / "a.safetensors"]
    answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert ast.literal_eval(answer) == {
        "bias": "float32[5]",
        "class_a": "int64[21]",
        "class_b": "int64[21]",
        "classifier": "float32[5, 8]",
        "features": "float32[21, 8]",
        "lam": "float32[21]",
        "layer:bfloat": "float32[21, 3]",
        "layer:bits": "bool[21]",
        "layer:half": "float32[21, 2]",
        "logits": "float32[21, 5]",
    }


dtypes = st.sampled_from([torch.float64, torch.float32, torch.int64, torch.int32, torch.int16, torch.uint8, torch.bool])


@given(
    arrays=st.dictionaries(st.text(), st.tuples(dtypes, st.lists(st.integers(0, 5), max_size=3)), max_size=6),
    metadata=st.dictionaries(st.text(), st.text()),
    piece=st.sampled_from([1, 16, 2**20]),
)
def test_the_container_is_what_the_safetensors_library_reads(arrays: dict, metadata: dict, piece: int):
    numbers = torch.Generator().manual_seed(0)
    arrays.pop("__metadata__", None)
    tensors = {
        k: (100 * torch.randn(shape, generator=numbers)).to(dtype).transpose(0, -1)
        for k, (dtype, shape) in arrays.items()
    }
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr("ufm._support.tensorfile._PIECE", piece)
        path = Path(folder) / "a.safetensors"
        write_tensors(path, tensors, metadata)
        read = safetensors.torch.load_file(path)
        assert read.keys() == tensors.keys()
        for name, value in tensors.items():
            assert read[name].dtype == value.dtype
            assert torch.equal(read[name], value), name
        with safetensors.safe_open(path, "pt") as file:
            assert (file.metadata() or {}) == metadata
        content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header.pop("__metadata__")
    assert length % 8 == 0
    assert all(x["data_offsets"][0] % tensors[name].dtype.itemsize == 0 for name, x in header.items())


@pytest.mark.parametrize("where", [0, 4, 12, 60, -1])
def test_any_damage_to_the_header_or_the_length_is_named(where: int, tmp_path: Path):
    path = tmp_path / "a.safetensors"
    ufm.record(Foreign().eval(), batches(), out=path)
    content = bytearray(path.read_bytes())
    path.write_bytes(content[:-1] if where < 0 else content[:where] + b"\xff" + content[where + 1 :])
    with pytest.raises(ValueError, match="^file: "):
        ufm.load(path)
