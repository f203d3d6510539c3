"""The command line of one training, and the file of all committed ones."""

import json
import sys
from pathlib import Path

import pytest
import torch

import ufm
from experiments import suite, train as command
from experiments.data import DATA_SETS, digits
from experiments.networks import build_network
from experiments.suite import SUITE, chosen, for_each, kept_files, read_suite
from experiments.training import TrainConfig, loop
from experiments.training.config import to_plain
from tests.helpers.commands import complaint, status_of
from tests.helpers.training import SMALL, assert_same_end, metrics, trained

WORDS = ["--train-samples=300", "--network.width=2", "--network.dim=10", "--epochs=4", "--batch-size=100"]
TINY = """
[templates.tiny]
train_samples = 100
epochs = 1
batch_size = 50
network = { width = 2, dim = 10 }

[templates.tinier]
template = "tiny"
train_samples = 50

[runs.a]
template = "tinier"

[runs.b]
template = "tiny"
network = { width = 3 }
mixing = { kind = "none" }
"""


@pytest.fixture
def run_train(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> int | str | None:
        monkeypatch.setattr(sys, "argv", ["train", *words])
        return status_of(command.main)

    return run


@pytest.fixture
def write(tmp_path: Path):
    def written(text: str) -> Path:
        (tmp_path / "suite.toml").write_text(text)
        return tmp_path / "suite.toml"

    return written


def test_the_command_trains_goes_on_and_prints(run_train, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    words = [*WORDS, "--measure-every=4", "--device=cpu"]
    assert run_train(*words, "--stop-after", "1") == 0
    out = tmp_path / "runs" / SMALL.name
    assert len(metrics(out)) == 1
    assert run_train(*words) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"runs/{SMALL.name}"
    shown = dict(line.split() for line in said[-30:] if line.startswith(("loss ", "test_accuracy ")))
    assert float(shown["loss"]) == pytest.approx(metrics(out)[-1]["loss"], rel=1e-5)
    trained(SMALL, tmp_path / "direct")
    assert_same_end(out, tmp_path / "direct")


def test_the_command_without_words_has_the_defaults(run_train, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    seen: list[TrainConfig] = []
    monkeypatch.setattr(command, "train", lambda config, *_, **__: seen.append(config) or loop.TrainResult(None, []))
    assert run_train("--out", str(tmp_path)) == 0
    assert run_train("--mixing.kind=cutmix", "--optimiser.clip=2", "--augment", "--network.architecture=vit") == 0
    assert seen[0] == TrainConfig()
    assert (seen[1].mixing.kind, seen[1].optimiser.clip, seen[1].augment) == ("cutmix", 2.0, True)
    assert to_plain(seen[1])["network"]["architecture"] == "vit"


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--data=imagenet"], "data"),
        (["--epochs=0"], "epochs"),
        (["--epochs=2.5"], "epochs"),
        (["--batch-size=1"], "batch_size"),
        (["--mixing.kind=cutout"], "kind"),
        (["--mixing.alpha=-1"], "alpha"),
        (["--optimiser.learning-rate=nan"], "learning_rate"),
        (["--optimiser.momentum=1"], "momentum"),
        (["--optimiser.schedule=linear"], "schedule"),
        (["--network.architecture=resnet18", "--network.dim=4"], "dim"),
        (["--loss=hinge"], "loss"),
        (["--precision=float16"], "precision"),
        (["--seed=-1"], "seed"),
        (["--threads=0"], "threads"),
        (["--device=tpu"], "device"),
        (["--stop-after=-1"], "stop_after"),
        (["--colour=red"], "colour"),
        (["--batch-size=5000"], "batch_size"),
        (["--network.stride=8"], "stride"),
        ([*WORDS, "--optimiser.learning-rate=1e30"], "learning_rate"),
    ],
)
def test_bad_words_end_with_status_2(
    run_train, tmp_path: Path, capfd: pytest.CaptureFixture[str], words: list[str], named: str
):
    (tmp_path / "file").write_text("no folder")
    assert run_train(*words) == 2
    assert named.replace("_", "-") in complaint(capfd.readouterr().err).replace("_", "-")
    assert not list(tmp_path.glob("**/checkpoint.safetensors"))


def test_a_folder_that_cannot_be_made_is_refused(run_train, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    (tmp_path / "file").write_text("no folder")
    assert run_train("--out=file/run", *WORDS) == 2
    said = [line for line in capfd.readouterr().err.splitlines() if line and "epoch in" not in line]
    assert len(said) == 1
    assert "file" in said[0]


def test_an_interrupted_training_says_so(
    run_train, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "train", interrupted)
    assert run_train() == 130
    assert capsys.readouterr().err == ("experiments.train: interrupted; the same command goes on from the last epoch\n")


def test_every_committed_run_is_one_that_can_be_trained():
    configs = read_suite()
    assert len(configs) >= 20
    assert len({config.name for config in configs.values()}) == len(configs)
    shapes = {"digits": (1, 8, 8), "mnist": (1, 28, 28), "fashion-mnist": (1, 28, 28)}
    for name, config in configs.items():
        assert config.data in DATA_SETS
        assert config.mixing.kind in name or config.loss == "mean_squared_error" or "etf" in name
        assert (config.loss == "mean_squared_error") == ("mse" in name)
        assert (config.network.etf_multiplier is not None) == ("etf" in name)
        network = build_network(config.network, shapes.get(config.data, (3, 32, 32)), 10)
        assert network.head.in_features >= 9
    assert configs["digits-mixup"].network == TrainConfig().network
    assert configs["fashion-etf"].network.stride == configs["fashion-mixup"].network.stride
    assert json.loads(json.dumps({name: to_plain(config) for name, config in configs.items()}))


def test_runs_are_laid_over_their_templates(write):
    configs = read_suite(write(TINY))
    assert list(configs) == ["a", "b"]
    assert (configs["a"].train_samples, configs["a"].batch_size, configs["a"].network.width) == (50, 50, 2)
    assert (configs["b"].train_samples, configs["b"].network.width, configs["b"].network.dim) == (100, 3, 10)
    assert (configs["a"].mixing.kind, configs["b"].mixing.kind) == ("mixup", "none")
    assert configs["b"].seed == TrainConfig().seed
    assert list(chosen(configs, ["b"])) == ["b"]
    assert list(chosen(configs, ["b", "a"])) == list(chosen(configs, [])) == ["a", "b"]
    with pytest.raises(ValueError, match="^only: got 'c', expected one of 'a', 'b'"):
        chosen(configs, ["a", "c"])


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[runs.a]\ntemplate = 'huge'", "'a' does not fit: template: got 'huge'"),
        ("[runs.a]\ncolour = 1", "'a' does not fit: config: .*colour"),
        ("[runs.a]\nnetwork = { colour = 1 }", "'a' does not fit: config: .*colour"),
        ("[runs.a]\nepochs = 2.7", "'a' does not fit: config: .*2.7"),
        ("[runs.a]\nepochs = 0", "'a' does not fit: config: .*epochs: got 0"),
        ("[runs.a]\nnetwork = 3", "'a' does not fit: config: .*network"),
        ("[runs]\na = 3", "'a' does not fit: got 3, expected a table"),
        ("[templates]\nt = 3\n[runs.a]\ntemplate = 't'", "'a' does not fit: got 3, expected a table"),
        (
            "[templates.t]\ntemplate = 'u'\n[templates.u]\ntemplate = 't'\n[runs.a]\ntemplate = 't'",
            "'a' does not fit: template: got 't'",
        ),
        ("[templates.t]\ntemplate = 't'\n[runs.a]\ntemplate = 't'", "'a' does not fit: template: got 't'"),
        ("[templates.t]\nseed = 1", "file: .*at least one run"),
        ("runs = 3", "file: .*at least one run"),
        ("[run.a]\nseed = 1", "file: .*run"),
        ("[runs.a]\nseed = 1\n[extra]\nx = 1", "file: .*extra"),
        ("[runs.a", "file: .*a readable TOML"),
    ],
)
def test_suites_that_do_not_fit_are_refused(write, text: str, named: str):
    with pytest.raises(ValueError, match=named):
        read_suite(write(text))


def test_what_is_kept_beside_the_records_is_what_the_file_says(write):
    assert kept_files(write(TINY)) == dict.fromkeys(("a", "b"), ("samples", "layers"))
    assert kept_files(write(TINY + "\n[keep]\nsamples = ['b']\nlayers = []\n")) == {"a": (), "b": ("samples",)}
    for text, named in (("samples = ['c']", "keep.samples: got 'c'"), ("all = ['a']", "keep: got 'all'")):
        with pytest.raises(ValueError, match=named):
            kept_files(write(f"{TINY}\n[keep]\n{text}\n"))
    folders = Path(__file__).parents[2] / "experiments" / "results" / "networks"
    for name, kept in kept_files().items():
        assert (folders / name / "layers.safetensors").is_file() == ("layers" in kept), name
        summary = folders / name / "summary.safetensors"
        assert summary.is_file() == bool({"samples", "planar"} & set(kept)), name
        if summary.is_file():
            assert (len(ufm.load(summary).lam) == 3000) == ("samples" in kept), name


def test_files_that_cannot_be_read_are_named(tmp_path: Path):
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    for name in ("nowhere.toml", "binary.toml", "."):
        with pytest.raises(ValueError, match="^file: got .*a readable TOML"):
            read_suite(tmp_path / name)


def test_the_suite_trains_what_is_not_complete(write, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    form = suite.Train(out=str(tmp_path / "runs"), file=str(write(TINY)), only=("a",), device="cpu")
    assert form.run() == 0
    assert "a: loss " in capsys.readouterr().out
    checkpoint = tmp_path / "runs" / "a" / "checkpoint.safetensors"
    before = checkpoint.read_bytes()
    # One that cannot go on does not stop the other, whichever comes first.
    write(TINY.replace("train_samples = 50", "train_samples = 60"))
    assert suite.Train(out=str(tmp_path / "runs"), file=form.file, device="cpu").run() == 1
    said = capsys.readouterr().out
    assert "a: failed: out: got " in said
    assert "b: loss " in said
    assert checkpoint.read_bytes() == before
    write(TINY)
    assert suite.Train(out=str(tmp_path / "runs"), file=form.file, device="cpu").run() == 0
    assert checkpoint.read_bytes() == before
    trained(read_suite(form.file)["b"], tmp_path / "direct", digits())
    assert_same_end(tmp_path / "runs" / "b", tmp_path / "direct")


def halved(number: int) -> str:
    if number % 2:
        raise RuntimeError(f"{number} is odd")
    return str(number // 2)


@pytest.mark.parametrize("jobs", [1, 2])
def test_failures_are_told_and_counted(capsys: pytest.CaptureFixture[str], jobs: int):
    tasks = {name: (number,) for name, number in (("two", 2), ("three", 3), ("four", 4))}
    assert for_each(halved, tasks, jobs) == 1
    assert sorted(capsys.readouterr().out.splitlines()) == ["four: 2", "three: failed: 3 is odd", "two: 1"]
    del tasks["three"]
    assert for_each(halved, tasks, jobs) == 0
    with pytest.raises(ValueError, match="^jobs: got 0"):
        for_each(halved, tasks, 0)


def test_a_bad_suite_ends_with_status_2(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr("sys.argv", ["suite", "train", "--file", "nowhere.toml"])
    assert suite.main() == 2
    error = capsys.readouterr().err
    assert error.startswith("experiments.suite: error: file: got 'nowhere.toml'")
    assert error.count("\n") == 1
    assert SUITE.is_file()
    assert torch.get_num_threads() == 1
