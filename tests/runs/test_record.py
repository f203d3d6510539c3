"""The record of a run: written and read back as it was, refused where it is damaged."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ufm
from tests.helpers.report_runs import TRAINING, compared, run_of, theory_network, write_run
from ufm.networks import measures
from ufm.networks.measures import measures_of, register_measure
from ufm.reports import demo_run, read_run
from ufm.reports.tables import measure_table
from ufm.runs.claims import Claim, ClaimKind
from ufm.runs.compared import compared_run
from ufm.runs.record import RunRecord, SolveRecord, TheoryCurve, Training, read_record, write_history, write_record

RESULTS = Path(__file__).parents[2] / "experiments" / "results"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "tiny", theory_network())


def full_record() -> RunRecord:
    """Return a record with every field filled."""
    certificate = ufm.Certificate(1.0, 0.5, 0.5, 1e-3, 1e-4, None, 1e-3, None, 0.1, None)
    curve = TheoryCurve(
        3,
        1.0,
        0.1,
        0.2,
        "cross_entropy",
        5.0,
        1.0,
        0.7,
        0.3,
        False,
        0.0,
        *(np.arange(6.0).reshape(2, 3) for _ in range(5)),
    )
    check = Claim("a", "b", None, "<=", 1.0, True, reason="not run", kind=ClaimKind.GRAM)
    return dataclasses.replace(
        run_of(theory_network()),
        configuration={"config": {"deep": [1, None, {"x": 0.5}]}},
        history=({"epoch": 0, "loss": 0.5, "nc1": None},),
        recordings={"eval": {"seed": "1"}},
        measures={"eval": {"length": 2.0}},
        checks=[check],
        theory=curve,
        solves=[SolveRecord("free", "newton", "converged", 3, 0.1, certificate, 1e-9, 1e-12)],
    )


def plain(record: RunRecord) -> dict[str, Any]:
    return dataclasses.asdict(dataclasses.replace(record, name="", folder=None, source="", recorded=None))


def test_a_record_comes_back_as_it_was(tmp_path: Path):
    record = full_record()
    write_record(record, tmp_path)
    back = read_record(tmp_path)
    np.testing.assert_equal(plain(back), plain(record))
    assert isinstance(back.comparison.curves["network"], ufm.ChannelCurve)
    assert back.checks is not None
    assert back.checks[0].kind is ClaimKind.GRAM
    assert back.folder == tmp_path
    write_record(dataclasses.replace(back, name=record.name), tmp_path / "again")
    for name in ("run.json", "metrics.jsonl"):
        assert (tmp_path / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_numbers_come_back_bit_for_bit_and_what_is_not_finite_as_nan(tmp_path: Path):
    record = full_record()
    odd = dataclasses.replace(record.comparison, beta=0.1 + 0.2, etf_error=float("nan"), solver_error=None)
    write_record(dataclasses.replace(record, comparisons={"eval": odd}), tmp_path)
    back = read_record(tmp_path).comparison
    assert back.beta == 0.1 + 0.2
    assert np.isnan(back.etf_error)
    assert back.solver_error is None


def test_a_compared_run_is_read_with_everything_beside_it(folder: Path):
    run = read_run(folder)
    assert (run.name, run.num_classes, run.mode, run.modes) == ("tiny", 3, "eval", ("eval", "train"))
    assert run.training.description == "none on synthetic, mixup, α = 1, cross entropy, 2 epochs, seed 0"
    assert run.measured("test_accuracy") == 0.6
    assert run.samples is not None
    assert run.calibration is not None
    assert run.layers[0].interpolation == 0.95


def test_a_training_is_told_in_words_as_far_as_it_is_known():
    assert Training("none", None).description == "not mixed, cross entropy"
    assert Training(fixed_etf=True).description == "mixup, α = 1, cross entropy, classifier fixed to a simplex ETF"
    assert (Training(loss="mean_squared_error").predicted_by, Training().predicted_by) == (
        "straight line",
        "closed form",
    )


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda v: v.update(schema=0), "of schema 0, expected a record of schema 1"),
        (lambda v: v.pop("schema"), "of schema None"),
        (lambda v: v.update(colour=1), "extra fields.*colour"),
        (lambda v: v.update(history=[]), "with 'history', expected that in a file of its own"),
        (lambda v: v.update(source="here"), "with 'source', expected that in a file of its own"),
        (lambda v: v.pop("training"), "training"),
        (lambda v: v["training"].update(alpha="x"), r"'x', expected float or int.*training.alpha"),
        (lambda v: v["training"].update(loss="hinge"), "loss: got 'hinge'"),
        (lambda v: v["comparisons"]["eval"].update(beta="large"), r"'large', expected float or int.*beta"),
        (lambda v: v["comparisons"]["eval"].update(beta=True), "True, expected float or int.*beta"),
        (lambda v: v["comparisons"]["eval"].update(samples=1.5), "1.5, expected int.*samples"),
        (lambda v: v["comparisons"]["eval"].update(scores=3), "scores"),
        (lambda v: v["comparisons"]["eval"].update(scores=[]), "without closed form, straight line in eval mode"),
        (lambda v: v["comparisons"]["eval"]["curves"].pop("network"), "without the network's curve in eval mode"),
        (
            lambda v: v["comparisons"]["eval"]["curves"]["network"].update(lam=[[1], [1, 2]]),
            "lists of different lengths",
        ),
        (lambda v: v["comparisons"]["eval"]["curves"]["network"].update(lam=["x"]), "entries, expected numbers.*lam"),
        (lambda v: v["comparisons"]["eval"]["curves"]["network"].update(lam=3), "got int, expected a list.*lam"),
        (lambda v: v.update(checks=[{"name": "a"}]), "checks"),
        (lambda v: v.update(calibration={"test": 3}), "calibration"),
    ],
)
def test_a_damaged_record_is_refused_where_it_is_damaged(
    folder: Path, tmp_path: Path, change: Callable[[dict[str, Any]], object], complaint: str
):
    value = json.loads((folder / "run.json").read_text())
    change(value)
    (tmp_path / "run.json").write_text(json.dumps(value))
    with pytest.raises(ValueError, match=r"(?s)^runs: got .*run\.json.*" + complaint):
        read_record(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("run.json", "{", "expected a record of a run"),
        ("run.json", "[]", "of schema None"),
        ("run.json", "[" * 100_000, "expected a record of a run"),
        ("metrics.jsonl", "[1]\n", "metrics.jsonl.*expected an object on each line"),
        ("metrics.jsonl", "{\n", "metrics.jsonl.*expected a file of JSON lines"),
    ],
)
def test_damaged_files_are_named(folder: Path, tmp_path: Path, name: str, content: str, complaint: str):
    (tmp_path / "run.json").write_text((folder / "run.json").read_text())
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=complaint):
        read_record(tmp_path)


def test_damaged_samples_are_named_once_they_are_asked_for(folder: Path, tmp_path: Path):
    (tmp_path / "run.json").write_text((folder / "run.json").read_text())
    (tmp_path / "summary.safetensors").write_text("x")
    run = read_record(tmp_path)
    with pytest.raises(ValueError, match=r"summary\.safetensors"):
        _ = run.samples


def test_a_run_that_is_not_compared_is_no_run_to_report(tmp_path: Path):
    write_record(RunRecord("bare", 10, TRAINING, history=[{"epoch": 0}]), tmp_path)
    assert read_record(tmp_path).history == ({"epoch": 0},)
    with pytest.raises(ValueError, match="not compared yet"):
        read_run(tmp_path)
    write_history([{"epoch": 0}, {"epoch": 1}], tmp_path)
    assert len(read_record(tmp_path).history) == 2


def test_a_run_without_files_beside_it_says_which_are_missing(tmp_path: Path):
    write_record(full_record(), tmp_path)
    run = read_run(tmp_path)
    assert run.samples is None
    assert run.planar == {}
    with pytest.raises(ValueError, match=r"without layers\.safetensors"):
        _ = run.layer_planes


def test_a_record_can_be_made_of_plain_values(folder: Path):
    value = json.loads((folder / "run.json").read_text())
    run = demo_run(value | {"name": "moved"}, folder, "here")
    # A run is called as its folder is.
    assert (run.name, run.source) == ("tiny", "here")


def test_every_committed_run_is_of_this_schema_and_written_as_it_would_be_now(tmp_path: Path):
    folders = [RESULTS / "demo", *sorted((RESULTS / "networks").iterdir())]
    assert len(folders) > 30
    for each in folders:
        write_record(read_record(each), tmp_path)
        for name in ("run.json", "metrics.jsonl"):
            same = (tmp_path / name).read_bytes() == (each / name).read_bytes()
            assert same, each / name


@pytest.mark.usefixtures("unchecked")
def test_further_measures_stand_in_record_and_table(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(measures, "MEASURES", {})
    some = theory_network()

    def mean_length(activations: ufm.Activations) -> float:
        return torch.linalg.vector_norm(activations.features, dim=1).mean().item()

    register_measure("mean length", mean_length)
    register_measure("mean length", mean_length)
    expected = np.linalg.norm(some.features.numpy(), axis=1).mean()
    record = compared_run("a", {"eval": some}, ufm.Mixup(3), TRAINING)
    assert record.measures["eval"]["mean length"] == pytest.approx(expected)
    assert measure_table([record]).rows == (("mean length", "eval mode", f"{expected:.4g}"),)
    with pytest.raises(ValueError, match="name: got 'mean length', which is taken"):
        register_measure("mean length", lambda _: 0.0)
    with pytest.raises(ValueError, match="measure: got int"):
        register_measure("other", 3)  # pyright: ignore[reportArgumentType]
    register_measure("broken", lambda _: float("nan"))
    with pytest.raises(ValueError, match="broken: got nan"):
        measures_of(some)


def test_a_comparison_of_activations_is_what_compare_says():
    some = theory_network()
    record = compared_run("a", {"eval": some}, ufm.Mixup(3), dataclasses.replace(TRAINING, classifier_decay=1e-3))
    expected = compared(some, weight_decay=1e-3)
    assert record.comparison.beta == expected.beta
    assert record.comparison.beta_fit_free == expected.beta_fit_free
    assert [layer.name for layer in record.layers] == ["flat", "bent", "features"]
    assert record.recordings["eval"] == some.description
