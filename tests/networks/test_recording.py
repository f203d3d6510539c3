"""Recording of models from elsewhere: what it yields, what it takes, and that nothing of it is left behind."""

import itertools
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor, nn

import ufm
from tests.helpers.foreign import CASES, Residual, Words, head_of, made_of, words
from tests.helpers.networks import Foreign, batches
from ufm._support.tensorfile import Rows

COLUMNS = ("features", "logits", "class_a", "class_b", "lam", "classifier", "bias")


models = pytest.mark.parametrize(("kind", "data", "layers"), CASES)


def fingerprint(model: nn.Module) -> list:
    """Return everything about the model and the random generators that could be told apart afterwards."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return [
        [(name, module.training, list(module._buffers)) for name, module in model.named_modules()],
        [len(module._forward_hooks) + len(module._forward_hooks_with_kwargs) for module in model.modules()],
        [(name, id(x), x.shape, x.requires_grad, x.detach().numpy().tobytes()) for name, x in tensors],
        [x.grad for x in model.parameters()],
        [random.getstate(), torch.get_rng_state().tolist(), np.random.get_state()[1].tolist()],  # noqa: NPY002
    ]


def same(first: ufm.Activations, second: ufm.Activations) -> bool:
    columns = [(getattr(first, name), getattr(second, name)) for name in COLUMNS]
    columns += [(first.layers[name], second.layers[name]) for name in first.layers]
    return (
        first.layers.keys() == second.layers.keys()
        and first.description == second.description
        and all((a is b is None) or (a.dtype == b.dtype and torch.equal(a, b)) for a, b in columns)
    )


@models
@pytest.mark.usefixtures("unchecked")  # the shape checks draw from Python's generator
@pytest.mark.parametrize("train_mode", [True, False])
@pytest.mark.parametrize("end", [None, ValueError, KeyboardInterrupt, "layer"])
def test_the_model_is_left_bit_for_bit(kind: type, data, layers: list, train_mode: bool, end, tmp_path: Path):
    model = kind().train(not train_mode)
    next(iter(model.children())).eval()
    next(iter(model.parameters())).requires_grad_(False)
    before = fingerprint(model)

    def ending() -> Iterator[ufm.MixedBatch]:
        yield from data()[:2]
        torch.rand(3)
        if end is not None:
            raise end

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    handle = getattr(model, head_of(model)).register_forward_pre_hook(interrupted) if end == "layer" else None
    old = tmp_path / "old.safetensors"
    old.write_text("what was there")
    arguments = {"classifier": head_of(model), "layers": layers, "train_mode": train_mode, "out": old}
    if end is None:
        ufm.record(model, ending(), **arguments)
        assert ufm.load(old).features.shape[0] == 14
        kept = []
    else:
        with pytest.raises(KeyboardInterrupt if end == "layer" else end) as raised:
            ufm.record(model, ending(), **arguments)
        assert old.read_text() == "what was there"
        # The rows before the end, if there are any.
        kept = [] if end == "layer" else [tmp_path / "partial-old.safetensors"]
        for path in kept:
            found, expected = ufm.load(path), ufm.record(model, data()[:2], **arguments | {"out": None})
            assert found.description.pop("ended") == end.__name__
            assert same(found, expected)
            assert raised.value.__notes__ == [f"the 14 rows before are in {str(path)!r}"]
    assert sorted(tmp_path.iterdir()) == [old, *kept]
    if handle is not None:
        handle.remove()
    assert fingerprint(model) == before


@pytest.mark.parametrize(("kind", "data", "layers"), CASES[:3])
def test_layers_are_what_the_modules_give(kind: type, data, layers: list):
    model = kind().eval()
    seen: dict[str, list] = {name: [] for name in layers}
    logits = []
    for name, rows in seen.items():
        hook = lambda _m, _i, y, rows=rows: rows.append((y[0] if isinstance(y, tuple) else y).clone())  # noqa: E731
        model.get_submodule(name).register_forward_hook(hook)
    for batch in data():
        x = batch.inputs
        with torch.no_grad():
            y = model(**x) if isinstance(x, dict) else model(*x) if isinstance(x, tuple) else model(x)
        logits.append(y["logits"] if isinstance(y, dict) else y)
    for pool in (False, True):
        whole = {name: torch.cat(rows[:3]) for name, rows in seen.items()}
        recorded = ufm.record(model, data(), classifier=head_of(model), layers=layers, pool=pool)
        torch.testing.assert_close(recorded.logits, torch.cat(logits))
        for name, x in whole.items():
            over = {4: (2, 3), 3: (1,)}.get(x.ndim, ())
            torch.testing.assert_close(recorded.layers[name], x.mean(over) if pool and over else x.flatten(1))


class Shape(nn.Module):
    """A layer whose output is a given function of its input, beside a classifier."""

    def __init__(self, function) -> None:
        super().__init__()
        self.layer, self.function, self.out = nn.Identity(), function, nn.Linear(6, 4)
        self.layer.register_forward_hook(lambda _module, _inputs, x: function(x))

    def forward(self, x: Tensor) -> Tensor:
        self.layer(x)
        return self.out(x)


def ragged(x: Tensor) -> Tensor:
    ragged.width += 1
    return x.new_ones(len(x), ragged.width)


ragged.width = 0


@pytest.mark.parametrize(
    ("function", "shape"),
    [
        (lambda x: x.view(7, 1, 2, 3), (1,)),
        (lambda x: x.view(7, 2, 3), (3,)),
        (lambda x: x, (6,)),
        (lambda x: x.view(7, 1, 1, 2, 3), (6,)),
        (lambda x: x[:, 0], (1,)),
        (lambda x: (x.view(7, 3, 2), None), (2,)),
        (lambda x: x.view(7, 3, 2).int(), (2,)),
        (lambda x: x.view(7, 3, 2).bfloat16(), (2,)),
    ],
)
def test_pooling_by_the_number_of_axes(function, shape: tuple, tmp_path: Path):
    model = Shape(function)
    recorded = ufm.record(model, batches(), layers=["layer"], pool=True)
    assert recorded.layers["layer"].shape == (21, *shape)
    assert recorded.layers["layer"].dtype in (torch.float32, torch.float64)
    mapped = ufm.record(model, batches(), layers=["layer"], pool=True, out=tmp_path / "a")
    assert same(recorded, mapped)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: [x], "output of type list"),
        (lambda x: {"x": x}, "output of type dict"),
        (lambda x: (None, x), "output of type tuple"),
        (lambda x: x.to_sparse(), "output of type Tensor"),
        (lambda x: x.T, r"shape \(6, 7\)"),
        (lambda x: x.sum(), r"shape \(\)"),
        (lambda x: x[:5], r"shape \(5, 6\)"),
        (lambda x: x + 0j, "dtype torch.complex64"),
        (ragged, "same in every batch"),
    ],
)
def test_layers_without_one_row_per_input_are_named(function, message: str):
    with pytest.raises(ValueError, match=f"^layer: .*{message}"):
        ufm.record(Shape(function), batches(), layers=["layer"])


class Head(nn.Linear):
    """A linear layer by name only."""

    def forward(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return 3 * nn.functional.normalize(x) @ nn.functional.normalize(self.weight).T


class Unused(nn.Module):
    """The last linear layer is not the classifier, and is not called itself."""

    def __init__(self) -> None:
        super().__init__()
        self.out, self.attend = nn.Linear(6, 4), nn.MultiheadAttention(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.attend(x, x, x)[0])


class Tokens(nn.Module):
    """A head that is applied to every token."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(x[:, None]).mean(1)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Sequential(nn.Linear(6, 5), Head(5, 4)), "does not give W h"),
        (Tokens(), "features of shape"),
    ],
)
def test_a_classifier_that_is_not_one_is_refused(model: nn.Module, message: str):
    with pytest.raises(ValueError, match=f"^classifier: .*{message}"):
        ufm.record(model, batches())


@given(
    sizes=st.lists(st.integers(2, 6), min_size=1, max_size=6),
    layers=st.lists(st.sampled_from(["stem", "norm", "fc", ""]), unique=True),
    pool=st.booleans(),
    train_mode=st.booleans(),
    max_samples=st.none() | st.integers(1, 30),
    wide=st.booleans(),
)
def test_a_file_holds_what_memory_would(
    sizes: list, layers: list, max_samples: int | None, wide: bool, **options: bool
):
    torch.manual_seed(0)
    model = Residual().to(torch.float64 if wide else torch.float32)
    data = [
        ufm.MixedBatch(torch.randn(n, 2, 3, 3).to(model.fc.weight), *torch.randint(4, (2, n)), torch.rand(n))
        for n in sizes
    ]
    taken = iter(data)
    arguments = {"layers": layers, "max_samples": max_samples, **options}
    in_memory = ufm.record(model, taken, **arguments)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "new" / "a.safetensors"
        mapped = ufm.record(model, data, out=path, **arguments)
        assert same(mapped, in_memory)
        assert same(ufm.load(path), in_memory)
        in_memory.save(path.with_name("b"))
        assert path.read_bytes() == path.with_name("b").read_bytes()
        assert sorted(x.name for x in path.parent.iterdir()) == ["a.safetensors", "b"]
    count = min(sum(sizes), max_samples or sum(sizes))
    assert len(in_memory.lam) == count == int(in_memory.description["samples"])
    # Not one batch more was taken than needed, and every batch ran whole.
    needed = next((i for i, total in enumerate(itertools.accumulate(sizes), 1) if total >= count), len(sizes))
    assert len(list(taken)) == len(sizes) - needed
    whole = ufm.record(model, data, layers=layers, **options)
    assert torch.equal(whole.logits[:count], in_memory.logits)
    assert torch.equal(whole.class_b[:count], in_memory.class_b)


def test_inputs_of_every_kind():
    class Dictionary(Mapping):
        def __init__(self, **entries: object) -> None:
            self.entries = entries

        def __getitem__(self, key: str) -> object:
            return self.entries[key]

        def __iter__(self) -> Iterator[str]:
            return iter(self.entries)

        def __len__(self) -> int:
            return len(self.entries)

    model = Words()
    recorded = [ufm.record(model, words(kind), classifier="score") for kind in (dict, Dictionary)]
    assert same(*recorded)
    one = made_of([(batch.inputs,) for batch in batches()])
    foreign = Foreign()
    assert same(ufm.record(foreign, one), ufm.record(foreign, batches()))


def test_dropout_draws_anew_in_every_batch_but_leaves_the_generator():
    model = Foreign()
    torch.manual_seed(5)
    first, second = (ufm.record(model, batches(1) * 2, train_mode=True).logits for _ in "ab")
    assert torch.equal(first, second)
    assert not torch.equal(first[:7], first[7:])
    torch.rand(1)
    assert not torch.equal(first, ufm.record(model, batches(1) * 2, train_mode=True).logits)


def test_a_backward_pass_may_come_after():
    model = Foreign().eval()
    loss = model(batches()[0].inputs).square().sum()
    ufm.record(model, batches(), train_mode=True)
    ufm.record(model, batches())
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()  # BatchNorm's statistics were written to and back
    loss = model(batches()[0].inputs).square().sum()
    ufm.record(model, batches())
    loss.backward()
    assert model.embed.weight.grad is not None


def test_a_batch_that_its_loader_fills_anew_is_copied():
    data = batches()

    def reusing() -> Iterator[ufm.MixedBatch]:
        a, b, lam = data[0].class_a.clone(), data[0].class_b.clone(), data[0].lam.clone()
        for batch in data:
            yield ufm.MixedBatch(batch.inputs, a.copy_(batch.class_a), b.copy_(batch.class_b), lam.copy_(batch.lam))

    model = Foreign()
    assert same(ufm.record(model, reusing()), ufm.record(model, data))


def test_wrapped_and_compiled_models():
    model = Foreign().eval()
    plain = ufm.record(model, batches(), layers=["stem"])
    compiled = torch.compile(model, backend="eager")
    with torch.no_grad():
        compiled(batches()[0].inputs)
    for wrapped, name in ((compiled, "_orig_mod.stem"), (nn.DataParallel(model), "module.stem")):
        recorded = ufm.record(wrapped, batches(), layers=[name])
        assert torch.equal(recorded.layers[name], plain.layers["stem"])
        assert torch.equal(recorded.logits, plain.logits)
    model.compile(backend="eager")
    with torch.no_grad():
        model(batches()[0].inputs)
    assert torch.equal(ufm.record(model, batches(), layers=["stem"]).layers["stem"], plain.layers["stem"])


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")
def test_on_a_gpu_batches_are_moved_and_its_generator_is_left(tmp_path: Path):
    model = Foreign().cuda()
    before = torch.cuda.get_rng_state()
    recorded = ufm.record(model, batches(), layers=["stem"], out=tmp_path / "a")
    torch.testing.assert_close(recorded.logits, ufm.record(model.cpu(), batches()).logits, rtol=1e-3, atol=1e-4)
    assert torch.equal(recorded.layers["stem"], ufm.record(model.cuda(), batches(), layers=["stem"]).layers["stem"])
    ufm.record(nn.DataParallel(model), batches(), train_mode=True)
    assert torch.equal(torch.cuda.get_rng_state(), before)


PROGRAM = """
import sys, torch, ufm
from torch import nn

def peak():
    return next(int(line.split()[1]) / 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))

class Wide(nn.Module):
    def __init__(self):
        super().__init__()
        self.wide, self.out = nn.Linear(4, 8192), nn.Linear(5, 3)
    def forward(self, x):
        return self.out(self.wide(x)[:, :5])

def data(count):
    for _ in range(count):
        yield ufm.MixedBatch(torch.randn(64, 4), *torch.randint(3, (2, 64)), torch.rand(64))

torch.set_num_threads(1)
path, model = sys.argv[1], Wide()
ufm.record(model, data(2), layers=["wide"], out=path)
start = peak()
mapped = ufm.record(model, data(100), layers=["wide"], out=path)
recorded = peak() - start
assert ufm.load(path).layers["wide"].shape == (6400, 8192)  # 210 MB
print(recorded, peak() - start)
large = {"wide": torch.ones(6400, 2048)}
held = ufm.Activations(*[getattr(mapped, x) for x in mapped.__dataclass_fields__][:7], layers=large)
start = peak()
held.save(path)
print(peak() - start)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's account of a process's memory")
def test_memory_holds_one_batch_and_not_all(tmp_path: Path):
    command = [sys.executable, "-c", PROGRAM, tmp_path / "a.safetensors"]
    answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    recorded, loaded, saved = map(float, answer.split())
    assert (tmp_path / "a.safetensors").stat().st_size > 50e6
    assert recorded < 30
    assert loaded < 30
    assert saved < 30
    assert list(tmp_path.iterdir()) == [tmp_path / "a.safetensors"]


@pytest.mark.usefixtures("unchecked")
def test_a_disk_that_is_full_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    model = Foreign()
    before = fingerprint(model)
    monkeypatch.setattr("ufm._support.tensorfile.bytes_of", full)
    with pytest.raises(OSError, match="No space"):
        ufm.record(model.train(), batches(), layers=["stem"], out=tmp_path / "a.safetensors")
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []
    assert fingerprint(model) == before


class Odd(nn.Module):
    """A network with buffers of every layout, some of which its forward pass changes."""

    def __init__(self, *, changing: bool) -> None:
        super().__init__()
        self.out, self.changing = nn.Linear(6, 4), changing
        torch.manual_seed(0)
        x = torch.rand(4, 4)
        buffers = {
            "coo": x.to_sparse(),
            "csr": x.to_sparse_csr(),
            "tensor": torch.quantize_per_tensor(x, 0.1, 0, torch.qint8),
            "channel": torch.quantize_per_channel(x, torch.ones(4), torch.zeros(4).long(), 0, torch.qint8),
            "nested": torch.nested.nested_tensor([x, x[:2]]),
            "jagged": torch.nested.nested_tensor([x, x[:2]], layout=torch.jagged),
            "mkldnn": x.to_mkldnn(),
            "meta": x.to("meta"),
            "short": x.bfloat16(),
            "eighth": x.to(torch.float8_e4m3fn),
            "complex": x + 1j,
        }
        for name, value in buffers.items():
            self.register_buffer(name, value)

    def forward(self, x: Tensor) -> Tensor:
        if self.changing:
            self.coo.mul_(2.0)
            self.csr.mul_(2.0)
            self.tensor.copy_(torch.quantize_per_tensor(torch.zeros(4, 4), 0.1, 0, torch.qint8))
            self.nested.mul_(2.0)
            self.complex.mul_(2.0)
            self.short.mul_(2.0)
        return self.out(x)


def values(model: nn.Module) -> list[Any]:
    dense = {
        "coo": lambda x: x.to_dense(),
        "csr": lambda x: x.to_dense(),
        "tensor": lambda x: x.dequantize(),
        "channel": lambda x: x.dequantize(),
        "nested": lambda x: torch.cat([one.flatten() for one in x.unbind()]),
        "jagged": lambda x: torch.cat([one.flatten() for one in x.unbind()]),
        "mkldnn": lambda x: x.to_dense(),
        "meta": lambda x: torch.zeros(x.shape),
    }
    return [(name, dense.get(name, lambda x: x.clone())(x)) for name, x in model.named_buffers()]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("changing", [False, True])
def test_buffers_of_every_layout_are_left(changing: bool):
    model = Odd(changing=changing)
    before, objects = values(model), [id(x) for x in model.buffers()]
    ufm.record(model, batches(), train_mode=True)
    after = values(model)
    assert [id(x) for x in model.buffers()] == objects
    assert all(torch.equal(x, y) for (_, x), (_, y) in zip(before, after, strict=True))


class Stubborn(Tensor):
    """A tensor that cannot be copied."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func is Tensor.clone:
            raise RuntimeError("no")
        return super().__torch_function__(func, types, args, kwargs or {})


def endless() -> Iterator[ufm.MixedBatch]:
    pytest.fail("a batch was taken before everything was checked")
    yield


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("changes", "kind", "named"),
    [
        ({"model": lambda: 3}, TypeError, "model"),
        ({"batches": lambda: 3}, TypeError, "batches"),
        ({"out": "x" * 300}, ValueError, "out"),
        ({"out": "."}, ValueError, "out"),
        ({"out": "/proc/a"}, ValueError, "out"),
        ({"description": {"ended": ""}}, ValueError, "description"),
        ({"max_samples": 10**25}, ValueError, "max_samples"),
        ({"layers": ["nowhere"]}, ValueError, "layers"),
    ],
)
def test_what_can_be_refused_is_refused_before_the_first_batch(
    changes: dict[str, Any], kind: type, named: str, tmp_path: Path
):
    given: dict[str, Any] = {"model": Foreign(), "batches": endless(), "out": tmp_path / "a"}
    changes = {name: value() if callable(value) else value for name, value in changes.items()}
    changes |= {"out": tmp_path / changes["out"]} if "out" in changes else {}
    with pytest.raises(kind, match=f"^{named}"):
        ufm.record(**given | changes)


def test_a_model_that_cannot_be_copied_is_refused_before_the_first_batch():
    model = Foreign()
    model.register_buffer("odd", torch.ones(2).as_subclass(Stubborn))
    with pytest.raises(ValueError, match="^model: got odd as a Stubborn"):
        ufm.record(model, endless())


def test_rows_that_not_every_column_has_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    out, append, calls = tmp_path / "a", Rows.append, []

    def full(self: Rows, block: Tensor) -> None:
        calls.append(self.name)
        if calls.count("stem") == 3:
            raise OSError(28, "No space left on device")
        append(self, block)

    monkeypatch.setattr(Rows, "append", full)
    with pytest.raises(OSError, match="No space"):
        ufm.record(Foreign(), batches(), layers=["stem"], out=out)
    monkeypatch.undo()
    assert calls.count("logits") == 3
    kept = ufm.load(tmp_path / "partial-a")
    assert kept.features.shape[0] == kept.layers["stem"].shape[0] == 14
    assert kept.description["samples"] == "14"
