"""What is read for a report, and the claims on it."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest

import ufm
from tests.helpers.report_runs import compared, straight_network, theory_network, write_run
from ufm._support.files import to_json
from ufm.reports import Claim, Run, Verdict, exact_claims, network_claims, read_run
from ufm.runs.claims import families, solver_claim, stored_claim, verified
from ufm.runs.record import Layer, Training
from ufm.runs.stored import structure

RESULTS = Path(__file__).parents[2] / "experiments" / "results"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "tiny", theory_network())


def run_of(activations: ufm.Activations, training: Training | None = None) -> Run:
    comparison = compared(activations)
    return Run("made up", "nowhere", len(activations.classifier), training or Training(), {"eval": comparison}, {})


def by_name(run: Run) -> dict[str, Claim]:
    return {claim.name: claim for claim in network_claims(run) if claim.mode == run.mode}


def test_a_claim_keeps_to_its_relation():
    assert Claim("a", "a", 1.0, "<=", 1.0).verdict is Verdict.HOLDS
    assert Claim("a", "a", 1.1, "<=", 1.0).verdict is Verdict.FAILS
    assert Claim("a", "a", 1.1, ">=", 1.0).verdict is Verdict.HOLDS
    assert Claim("a", "a", 0.9, ">=", 1.0).verdict is Verdict.FAILS
    for missing in (math.nan, None):
        assert Claim("a", "a", missing, "<=", 1.0).verdict is Verdict.FAILS
        assert Claim("a", "a", missing, ">=", 1.0).verdict is Verdict.FAILS
    inapplicable = Claim("a", "a", 0.0, "<=", 1.0, reason="because")
    assert inapplicable.verdict is Verdict.NOT_APPLICABLE
    assert inapplicable.passed is None


def test_a_stored_claim_is_judged_by_its_figures_alone():
    claim = Claim("a", "b", 2.0, "<=", 1.0, True, "evidence", "detail", "eval")
    record = json.loads(to_json(claim.record()))
    assert record["verdict"] == "does not hold"
    assert stored_claim(record) == claim
    assert stored_claim(record | {"passed": True, "verdict": "holds"}).verdict is Verdict.FAILS
    assert stored_claim(record | {"measured": None}).verdict is Verdict.FAILS


def test_a_comparison_comes_back_from_json_as_it_was():
    comparison = compared(theory_network(), weight_decay=1e-3)
    back = structure(ufm.Comparison, json.loads(to_json(dataclasses.asdict(comparison))), "value")
    np.testing.assert_equal(dataclasses.asdict(back), dataclasses.asdict(comparison))
    assert isinstance(back.curves["network"], ufm.ChannelCurve)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"beta": "large"}, "value.beta: got 'large', expected a number"),
        ({"beta": True}, "value.beta: got True, expected a number"),
        ({"samples": 1.5}, "value.samples: got 1.5, expected a whole number"),
        ({"scores": {}}, "value.scores: got dict, expected a list"),
        ({"curves": {"network": {"lam": [[1], [1, 2]]}}}, "value.curves.network.lam: got lists of different lengths"),
        ({"curves": {"network": {"lam": ["x"]}}}, "value.curves.network.lam: got .* entries, expected numbers"),
        ({"scores": [{"name": "closed form"}]}, r"value.scores\[0\]: got no 'parameters'"),
    ],
)
def test_a_damaged_comparison_is_refused_where_it_is_damaged(change: dict, complaint: str):
    value = json.loads(to_json(dataclasses.asdict(compared(theory_network()))))
    with pytest.raises(ValueError, match=complaint):
        structure(ufm.Comparison, value | change, "value")


def test_null_is_nan_for_a_number_and_none_where_that_is_allowed():
    value = json.loads(to_json(dataclasses.asdict(compared(theory_network()))))
    back = structure(ufm.Comparison, value | {"beta": None, "solver_error": None}, "value")
    assert math.isnan(back.beta)
    assert back.solver_error is None


def test_a_compared_run_is_read_with_everything_beside_it(folder: Path):
    run = read_run(folder)
    assert (run.name, run.num_classes, run.mode, run.modes) == ("tiny", 3, "eval", ("eval", "train"))
    assert run.training.description == "none on synthetic, mixup, α = 1, cross entropy, 2 epochs, seed 0"
    assert run.measured("test_accuracy") == 0.6
    assert run.samples is not None
    assert run.calibration is not None
    assert run.layers[0].interpolation == 0.95


def test_activations_are_compared_on_the_spot(tmp_path: Path):
    theory_network().save(tmp_path / "mine.safetensors")
    run = read_run(tmp_path / "mine.safetensors", weight_decay=1e-3)
    assert run.name == "mine.safetensors"
    assert {layer.name for layer in run.layers} == {"flat", "bent", "features"}
    assert run.comparison.beta == pytest.approx(100, rel=1e-3)
    assert read_run(tmp_path / "mine.safetensors", alpha=None).training.mixed is False


def test_a_demo_is_read_with_its_exact_claims():
    run = read_run(RESULTS / "demo")
    assert run.checks is not None
    assert exact_claims(run) == list(run.checks)
    assert len(run.checks) > 20
    assert all(claim.exact and claim.verdict is Verdict.HOLDS for claim in run.checks)
    assert len(run.planar) == 4
    assert {table.title for table in run.tables} >= {"Direct solves"}


def test_a_folder_with_the_comparison_alone_is_enough(folder: Path, tmp_path: Path):
    (tmp_path / "comparison.json").write_text((folder / "comparison.json").read_text())
    run = read_run(tmp_path, alpha=None)
    assert run.num_classes is None
    assert not run.training.mixed
    assert by_name(run)["calibration as trained"].reason == "not measured"


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("comparison.json", "{", "expected a JSON file"),
        ("comparison.json", "[]", "expected an object"),
        ("comparison.json", "{}", "comparison.json.*got NoneType, expected an object"),
        ("comparison.json", '{"comparisons": {}}', "without comparisons"),
        ("results.json", "{}", "expected the results of a demo"),
        ("results.json", "3", "expected the results of a demo"),
        ("nothing.txt", "", "expected a folder with comparison.json"),
    ],
)
def test_other_folders_are_refused(tmp_path: Path, name: str, content: str, complaint: str):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=complaint):
        read_run(tmp_path)


def test_damaged_companions_of_a_comparison_are_refused(folder: Path, tmp_path: Path):
    for name, content in (
        ("calibration.json", '{"test": 3}'),
        ("metrics.jsonl", "[1]\n"),
        ("config.json", "{"),
        ("summary.safetensors", "x"),
    ):
        place = tmp_path / name.replace(".", "-")
        place.mkdir()
        (place / "comparison.json").write_text((folder / "comparison.json").read_text())
        (place / name).write_text(content)
        with pytest.raises(ValueError, match=name):
            read_run(place)


@pytest.mark.parametrize(
    "config", [None, [], {"config": 3}, {"config": {"loss": ["a"], "mixing": {"kind": 3, "alpha": "x"}}}]
)
def test_an_unknown_configuration_leaves_the_training_as_given(folder: Path, tmp_path: Path, config: object):
    (tmp_path / "comparison.json").write_text((folder / "comparison.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config))
    training = read_run(tmp_path, alpha=0.5).training
    assert (training.mixing, training.alpha, training.loss) == ("mixup", 0.5, "cross_entropy")


def test_every_claim_holds_for_a_network_that_follows_the_theory(folder: Path):
    run = dataclasses.replace(read_run(folder), calibration=None)
    claims = network_claims(run)
    assert len({(claim.name, claim.mode) for claim in claims}) == len(claims)
    assert {claim.mode for claim in claims} == {"eval", "train"}
    failed = [claim.name for claim in claims if claim.verdict is Verdict.FAILS]
    assert failed == []
    held = {claim.name for claim in claims if claim.verdict is Verdict.HOLDS}
    assert {"the expected one is ahead, per sample", "channel: width", "earlier layers: interpolation"} <= held
    assert all(claim.evidence for claim in claims)


def test_what_is_expected_depends_on_loss_and_mixing():
    name = "the expected one is ahead, per sample"
    bent, line = run_of(theory_network()), run_of(straight_network())
    squared, unmixed = Training(loss="mean_squared_error"), Training("none", None)
    assert by_name(bent)[name].passed
    assert not by_name(line)[name].passed
    assert by_name(dataclasses.replace(line, training=squared))[name].passed
    assert not by_name(dataclasses.replace(bent, training=squared))[name].passed
    assert by_name(dataclasses.replace(line, training=unmixed))[name].passed
    assert not by_name(dataclasses.replace(bent, training=unmixed))[name].passed
    # Squared error's own closed form is the line; without mixing there is no prediction to hold or to fail.
    width = "channel: width"
    assert by_name(dataclasses.replace(line, training=squared))[width].passed
    assert not by_name(dataclasses.replace(bent, training=squared))[width].passed
    assert by_name(dataclasses.replace(bent, training=unmixed))[width].verdict is Verdict.NOT_APPLICABLE


def test_earlier_layers_fail_where_one_of_them_bends():
    layers = [ufm.layer_pattern(theory_network(), name) for name in ("flat", "bent")]
    run = run_of(theory_network())
    named = tuple(Layer(**vars(layer), interpolation=0.99) for layer in layers)
    assert by_name(dataclasses.replace(run, layers=named[:1]))["earlier layers: no channel"].passed
    assert not by_name(dataclasses.replace(run, layers=named))["earlier layers: no channel"].passed
    low = (named[0], dataclasses.replace(named[0], name="low", interpolation=math.nan))
    assert by_name(dataclasses.replace(run, layers=low))["earlier layers: interpolation"].passed is False


def test_a_fixed_classifier_is_no_evidence_for_the_simplex_etf():
    claims = by_name(run_of(theory_network(), Training(fixed_etf=True)))
    assert claims["classifier: simplex ETF"].verdict is Verdict.NOT_APPLICABLE
    assert claims["β fit-free against fitted"].verdict is Verdict.NOT_APPLICABLE


def test_figures_that_are_nan_do_not_hold():
    run = run_of(theory_network())
    spoilt = dataclasses.replace(run.comparison, etf_error=math.nan)
    claims = by_name(dataclasses.replace(run, comparisons={"eval": spoilt}))
    assert claims["classifier: simplex ETF"].verdict is Verdict.FAILS


def test_a_solve_that_did_not_converge_is_no_agreement():
    good = compared(theory_network())
    assert solver_claim("a", "eval", good).passed
    for bad in ({"solver_error": math.nan}, {"solver_converged": False}, {"solver_error": None}):
        assert solver_claim("a", "eval", dataclasses.replace(good, **bad)).verdict is Verdict.FAILS
    none = dataclasses.replace(good, solver_error=None, solver_converged=None)
    assert solver_claim("a", "eval", none).verdict is Verdict.NOT_APPLICABLE


@pytest.mark.parametrize(
    ("law", "loss"),
    [(ufm.Mixup(3), "cross_entropy"), (ufm.Unmixed(4), "cross_entropy"), (ufm.Mixup(3), "mean_squared_error")],
)
def test_closed_form_and_solver_agree_in_the_report(law: ufm.Law, loss: str):
    claims = verified(law, loss)
    assert claims
    assert all(claim.exact and claim.verdict is Verdict.HOLDS for claim in claims)


def test_a_family_is_as_good_as_its_worst_check():
    good = Claim("fixed, newton: gap", "", 1e-12, "<=", 1e-10, True, "one")
    worse = dataclasses.replace(good, name="free, newton: gap", measured=1e-11)
    nan = dataclasses.replace(good, name="free, lbfgs: gap", measured=math.nan)
    left_out = dataclasses.replace(good, name="free, adam: gap", measured=None, reason="not run")
    other = Claim("fixed, newton: gradient norm", "", 0.0, "<=", 1e-12, True, "one")
    [gap, gradient] = families([good, worse, left_out, other])
    assert (gap.measured, gap.verdict, gap.detail) == (1e-11, Verdict.HOLDS, "worst of 3")
    assert "derivations/fixed_etf.py" in gradient.evidence
    assert families([worse, nan])[0].verdict is Verdict.FAILS
    assert families([left_out])[0].verdict is Verdict.NOT_APPLICABLE


def test_committed_runs_can_be_judged():
    for name in ("fashion-mixup", "fashion-none", "fashion-mse", "fashion-etf", "fashion-vit-mixup"):
        claims = by_name(read_run(RESULTS / "networks" / name))
        # What the findings say of all of them.
        assert claims["the expected one is ahead, per sample"].passed, name
        assert len(claims) == 18


def test_a_folder_of_runs_is_told_how_to_name_them(tmp_path: Path):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "comparison.json").write_text("{}")
    with pytest.raises(ValueError, match=r"it holds such folders: name them, as in .*/\*"):
        read_run(tmp_path)
