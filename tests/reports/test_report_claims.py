"""What is read for a report, and the claims on it."""

import dataclasses
import math
from pathlib import Path

import pytest

import ufm
from tests.helpers.report_runs import compared, run_of, straight_network, theory_network, write_run
from ufm.reports import Claim, Run, Verdict, exact_claims, network_claims, read_run
from ufm.reports.pictures import stored_panels
from ufm.reports.tables import run_tables
from ufm.runs import network_claims as claims_module
from ufm.runs.claims import ClaimKind, families
from ufm.runs.exact_claims import solver_claim, verified
from ufm.runs.network_claims import register_claims
from ufm.runs.record import Layer, Training

RESULTS = Path(__file__).parents[2] / "experiments" / "results"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "tiny", theory_network())


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


def test_activations_are_compared_on_the_spot(tmp_path: Path):
    theory_network().save(tmp_path / "mine.safetensors")
    run = read_run(tmp_path / "mine.safetensors", weight_decay=1e-3)
    assert run.name == "mine.safetensors"
    assert {layer.name for layer in run.layers} == {"flat", "bent", "features"}
    assert run.comparison.beta == pytest.approx(100, rel=1e-3)
    assert read_run(tmp_path / "mine.safetensors", law=ufm.Unmixed(3)).training.mixed is False


def test_a_demo_is_read_with_its_exact_claims():
    run = read_run(RESULTS / "demo")
    assert run.checks is not None
    assert exact_claims(run) == list(run.checks)
    assert len(run.checks) > 20
    assert all(claim.exact and claim.verdict is Verdict.HOLDS for claim in run.checks)
    assert len(stored_panels(run)) == 4
    assert {table.title for table in run_tables(run)} >= {"Direct solves"}


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
    gap = ClaimKind.CERTIFIED_GAP
    good = Claim("fixed, newton: gap", "", 1e-12, "<=", 1e-10, True, "one", kind=gap)
    worse = dataclasses.replace(good, name="free, newton: gap", measured=1e-11)
    nan = dataclasses.replace(good, name="free, lbfgs: gap", measured=math.nan)
    left_out = dataclasses.replace(good, name="free, adam: gap", measured=None, reason="not run")
    # The kind decides, whatever the name says.
    other = dataclasses.replace(good, measured=0.0, threshold=1e-12, kind=ClaimKind.GRADIENT_NORM)
    [worst, gradient] = families([good, worse, left_out, other])
    assert (worst.measured, worst.verdict, worst.detail) == (1e-11, Verdict.HOLDS, "worst of 3")
    assert "derivations/duality_gap.py" in worst.evidence
    assert "derivations/fixed_etf.py" in gradient.evidence
    assert families([worse, nan])[0].verdict is Verdict.FAILS
    assert families([left_out])[0].verdict is Verdict.NOT_APPLICABLE


def test_every_claim_on_a_network_has_a_kind_of_its_own():
    claims = network_claims(run_of(theory_network()))
    assert ClaimKind.OTHER not in {claim.kind for claim in claims}
    assert len({claim.kind for claim in claims}) == len(claims)
    assert all(claim.name == claim.kind for claim in claims)


@pytest.mark.usefixtures("unchecked")
def test_further_claims_are_made_of_every_run(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(claims_module, "_REGISTERED", [])

    def features_are_short(run: Run, mode: str) -> list[Claim]:
        return [Claim("few samples", "Few samples were scored", run.comparisons[mode].samples, "<=", 10.0, mode=mode)]

    register_claims(features_are_short)
    register_claims(features_are_short)
    [claim] = [claim for claim in network_claims(run_of(theory_network())) if claim.kind is ClaimKind.OTHER]
    assert (claim.name, claim.measured, claim.verdict) == ("few samples", 300, Verdict.FAILS)
    with pytest.raises(ValueError, match="claims: got str"):
        register_claims("none")  # pyright: ignore[reportArgumentType]


def test_committed_runs_can_be_judged():
    for name in ("fashion-mixup", "fashion-none", "fashion-mse", "fashion-etf", "fashion-vit-mixup"):
        claims = by_name(read_run(RESULTS / "networks" / name))
        # What the findings say of all of them.
        assert claims["the expected one is ahead, per sample"].passed, name
        assert len(claims) == 18


def test_a_folder_of_runs_is_told_how_to_name_them(folder: Path, tmp_path: Path):
    with pytest.raises(ValueError, match=r"it holds such folders: name them, as in .*/\*"):
        read_run(folder.parent)
    with pytest.raises(ValueError, match="got 'nowhere', which does not exist"):
        read_run("nowhere")
    with pytest.raises(ValueError, match=r"expected the folder of a compared run, with run.json"):
        read_run(tmp_path)
