import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ufm
from tests.helpers.networks import following_the_theory
from ufm.commands.main import main


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    try:
        status = main(list(arguments))
    except SystemExit as end:  # how tyro ends on words that it cannot parse
        status = int(end.code or 0)
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_predict(capsys: pytest.CaptureFixture[str]):
    status, out, _ = run(capsys, "predict", "--num-classes", "5", "--nodes", "9", "--lam", "0.8", "--json")
    assert status == 0
    result = json.loads(out)
    optimum = ufm.joint_optimum(ufm.Mixup(5), 2e-3, 2e-3, nodes=9)
    assert result["optimum"]["beta"] == optimum.beta
    shape = ufm.channel(0.8, optimum.beta, 5)
    assert result["mixed"][0]["width"] == pytest.approx(float(shape.width))
    assert result["mixed"][0]["depth"] == pytest.approx(float(shape.depth))
    status, out, _ = run(capsys, "predict", "--num-classes", "2", "--alpha", "None")
    assert status == 0
    assert "beta" in out
    status, out, _ = run(
        capsys, "predict", "--num-classes", "4", "--ways", "3", "--smoothing", "0.1", "--nodes", "5", "--json"
    )
    law = ufm.LabelSmoothing(ufm.Mixup(4, ways=3), 0.1)
    assert json.loads(out)["optimum"]["beta"] == ufm.joint_optimum(law, 2e-3, 2e-3, nodes=5).beta


def test_solve(capsys: pytest.CaptureFixture[str]):
    arguments = ["solve", "--num-classes", "5", "--dim", "8", "--nodes", "9", "--json"]
    penalties = ["--weight-decay", "0.02", "--feature-decay", "0.02"]
    status, out, _ = run(capsys, *arguments, *penalties)
    assert status == 0
    assert json.loads(out)["objective"] == pytest.approx(0.595857985966592, abs=1e-12)
    status, out, _ = run(capsys, *arguments, "--max-iter", "3")
    assert status == 1
    assert not json.loads(out)["converged"]
    status, out, _ = run(capsys, *arguments[:-1], "--fixed-etf", "1.5", "--method", "gradient_descent")
    assert status == 0
    assert "feature_error" in out


def test_solve_beyond_the_closed_form(capsys: pytest.CaptureFixture[str]):
    small = ["solve", "--num-classes", "3", "--dim", "4", "--nodes", "3"]
    common = ["--priors", "0.6", "0.3", "0.1", "--bias-decay", "0"]
    found = {}
    for method in ("newton", "lbfgs"):
        status, out, _ = run(capsys, *small, *common, "--method", method, "--gap-tol", "1e-9", "--json")
        assert status == 0
        found[method] = json.loads(out)
        assert abs(found[method]["relative_gap"]) <= 1e-9
        assert found[method]["bias_residual"] is not None
    assert found["newton"]["objective"] == pytest.approx(found["lbfgs"]["objective"], rel=2e-9)
    status, out, _ = run(capsys, *small, *common, "--stream", "--json")
    assert status == 0
    assert json.loads(out)["objective"] == pytest.approx(found["newton"]["objective"], rel=2e-9)
    lowest = found["newton"]["objective"]
    for constraint in (["--nonnegative"], ["--feature-norm", "2"], ["--row-norm", "1.5"]):
        status, out, _ = run(capsys, *small, *common, *constraint, "--method", "lbfgs", "--json")
        assert status == 0
        assert json.loads(out)["objective"] > lowest
    rate = ["--method", "adam", "--learning-rate", "0.02", "--schedule", "cosine", "--max-iter", "1500"]
    strong = ["--weight-decay", "0.02", "--feature-decay", "0.02"]
    status, out, _ = run(capsys, *small, *strong, *rate, "--tol", "1e-6", "--json")
    assert status == 0
    batches = ["--method", "momentum", "--learning-rate", "0.05", "--batch-size", "4", "--max-iter", "5"]
    status, out, _ = run(capsys, *small, *batches)
    assert status == 1
    assert "iteration limit" in out


def test_a_missing_certificate_is_said(capsys: pytest.CaptureFixture[str]):
    # Norms far beyond what the loss asks for: their multipliers are negative, and nothing is proved.
    far = ["--feature-norm", "100", "--row-norm", "100", "--method", "lbfgs", "--max-iter", "20"]
    _, out, _ = run(capsys, "solve", "--num-classes", "3", "--dim", "4", "--nodes", "3", *far)
    assert "no certificate" in out
    _, out, _ = run(capsys, "solve", "--num-classes", "3", "--dim", "4", "--nodes", "3", *far, "--json")
    assert json.loads(out)["lower_bound"] is None


def test_verify(capsys: pytest.CaptureFixture[str]):
    # Gradient descent is the slower the weaker the penalties.
    penalties = ["--weight-decay", "0.02", "--feature-decay", "0.02"]
    arguments = ["verify", "--num-classes", "3", "--dim", "4", "--nodes", "3", *penalties]
    status, out, _ = run(capsys, *arguments)
    assert status == 0
    assert out.count("PASS") == 24
    assert "FAIL" not in out
    for loss in ("cross_entropy", "mean_squared_error"):
        beyond = ["--bias-decay", "0", "--loss", loss, "--method"]
        for more in ((), ("--stream",)):
            status, out, _ = run(capsys, *arguments, *beyond, "newton", *more)
            assert status == 0
            assert out.count("PASS") == 8
    status, out, _ = run(capsys, *arguments, "--max-iter", "2", "--method", "lbfgs", "--json")
    assert status == 1
    assert not json.loads(out)["passed"]


def test_compare(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    path = tmp_path / "a.safetensors"
    following_the_theory(300.0).save(path)
    status, out, _ = run(capsys, "compare", str(path), "--json", "--no-solver")
    assert status == 0
    assert json.loads(out)["beta"] == pytest.approx(300, rel=1e-4)
    status, out, _ = run(capsys, "compare", str(path), "--weight-decay", "0.001")
    assert status == 0
    assert "own classifier" in out


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["predict", "--alpha", "0"], "alpha: got 0.0, expected a finite number > 0"),
        (["predict", "--num-classes", "1"], "num_classes"),
        (["predict", "--weight-decay", "-1"], "weight_decay"),
        (["predict", "--feature-decay", "0"], "feature_decay"),
        (["predict", "--feature-decay", "nan"], "feature_decay"),
        (["predict", "--lam", "1.5"], "lam"),
        (["predict", "--lam"], "lam"),
        (["predict", "--loss", "hinge"], "loss"),
        (["predict", "--nodes", "0"], "nodes"),
        (["predict", "--ways", "1"], "ways"),
        (["predict", "--ways", "6"], "ways: got 6 for the continuous law"),
        (["predict", "--ways", "7", "--nodes", "100"], "nodes, ways: got sizes that need"),
        (["predict", "--num-classes", str(10**25)], "num_classes"),
        (["predict", "--nodes", str(10**25)], "nodes"),
        (["solve", "--num-classes", str(10**25)], "num_classes"),
        (["solve", "--num-classes", "1000000"], "num_classes, ways, nodes: got sizes that need"),
        (["solve", "--dim", str(10**25)], "dim"),
        (["solve", "--dim", str(10**15)], "dim: got sizes that need"),
        (["solve", "--seed", str(10**25)], "seed"),
        (["verify", "--dim", str(10**25)], "dim"),
        (["predict", "--smoothing", "1"], "smoothing"),
        (["solve", "--method", "guess"], "method: got 'guess', expected one of 'newton', 'lbfgs'"),
        (["solve", "--dim", "8", "--fixed-etf", "1"], "dim: got 8, expected a whole number >= 9"),
        (["solve", "--fixed-etf", "-1"], "multiplier"),
        (["solve", "--tol", "0"], "tol"),
        (["solve", "--device", "abacus"], "device"),
        (["solve", "--gap-tol", "-1"], "gap_tol"),
        (["solve", "--learning-rate", "0.1"], "learning_rate: got 0.1 with the method 'newton'"),
        (["solve", "--method", "adam", "--learning-rate", "0"], "learning_rate"),
        (["solve", "--method", "lbfgs", "--batch-size", "4"], "batch_size"),
        (["solve", "--method", "adam", "--schedule", "linear"], "schedule"),
        (["solve", "--priors", "0.5", "0.5"], "priors"),
        (["solve", "--bias-decay", "-1"], "bias_decay"),
        (["solve", "--nonnegative"], "nonnegative: got True with the method 'newton'"),
        (["solve", "--method", "lbfgs", "--nonnegative", "--feature-norm", "1"], "nonnegative"),
        (["solve", "--method", "lbfgs", "--row-norm", "0"], "row_norm"),
        (["solve", "--method", "lbfgs", "--stream"], "stream"),
        (["solve", "--distributed"], "distributed"),
        (["solve", "--resume", "nowhere.safetensors"], "path: got 'nowhere.safetensors', which does not exist"),
        (["verify", "--dim", "8"], "dim"),
        (["verify", "--method", "guess"], "method"),
        (["verify", "--method"], "method"),
        (["compare"], "files: got none"),
        (["compare", "nowhere.safetensors"], "file: got 'nowhere.safetensors', which does not exist"),
        (["compare", __file__], "file"),
    ],
)
def test_bad_input_is_one_line_and_status_2(capsys: pytest.CaptureFixture[str], arguments: list[str], named: str):
    status, out, err = run(capsys, *arguments)
    assert status == 2
    assert out == ""
    assert err.startswith(f"ufm: error: {named}")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["predict", "--alpha", "abc"], "--alpha"),
        (["solve", "--dim", "5.5"], "--dim"),
        (["guess"], "guess"),
        ([], "predict"),
        (["solve", "--priors", "x"], "--priors"),
    ],
)
def test_words_that_cannot_be_parsed_are_named_and_end_with_status_2(
    arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
):
    status, out, err = run(capsys, *arguments)
    assert status == 2
    assert out == ""
    assert named in err


def test_figures_are_drawn_elsewhere(capsys: pytest.CaptureFixture[str]):
    status, out, err = run(capsys, "figures", "--only", "beta")
    assert (status, out) == (2, "")
    assert err.startswith("ufm: error: figures")
    assert err.endswith("python -m figures --only beta\n")
    assert err.count("\n") == 1


@pytest.mark.parametrize("arguments", [["--help"], *([c, "--help"] for c in ("predict", "solve", "verify", "compare"))])
def test_help_exits_with_0(arguments: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as exit_info:
        main(arguments)
    assert not exit_info.value.code
    assert "usage: ufm" in capsys.readouterr().out


def test_help_imports_nothing_heavy():
    code = "import sys; from ufm.commands.main import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    code += (
        "heavy = {'torch', 'scipy', 'numpy', 'matplotlib', 'sympy', 'cvxpy'} & set(sys.modules)\nsys.exit(len(heavy))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    finished = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=False)
    assert finished.returncode == 0


def test_module_runs_as_a_program():
    command = [sys.executable, "-m", "ufm", "predict", "--lam", "0.5", "--json"]
    finished = subprocess.run(command, capture_output=True, text=True, check=True)
    assert np.isfinite(json.loads(finished.stdout)["optimum"]["beta"])


def test_version(capsys: pytest.CaptureFixture[str]):
    assert run(capsys, "--version") == (0, f"ufm {ufm.__version__}\n", "")


def test_predict_tabulates_labels_of_as_many_classes_as_are_mixed(capsys: pytest.CaptureFixture[str]):
    arguments = ["predict", "--num-classes", "5", "--ways", "3", "--lam", "0.6", "1", "--json"]
    mixed, pure = json.loads(run(capsys, *arguments)[1])["mixed"]
    optimum = ufm.joint_optimum(ufm.Mixup(5, ways=3), 2e-3, 2e-3)
    direct = ufm.prox_logsumexp(np.array([0.6, 0.2, 0.2, 0, 0]), optimum.beta)
    assert mixed["width"] == pytest.approx(direct.logits[0] - direct.logits[1], rel=1e-10)
    assert mixed["depth"] == pytest.approx(direct.logits[:3].mean() - direct.logits[3], rel=1e-10)
    assert [mixed["p_a"], mixed["p_b"], mixed["p_0"]] == pytest.approx(direct.probabilities[[0, 1, 3]], rel=1e-10)
    alone = ufm.prox_logsumexp(np.eye(5)[0], optimum.beta)
    assert pure["p_a"] == pytest.approx(alone.probabilities[0], rel=1e-10)
    status, _, err = run(capsys, "predict", "--num-classes", "3", "--ways", "4")
    assert status == 2
    assert err.startswith("ufm: error: ways: got 4")


def test_too_few_dimensions_are_noted(capsys: pytest.CaptureFixture[str]):
    arguments = ["solve", "--num-classes", "4", "--alpha", "None"]
    assert run(capsys, *arguments, "--dim", "2")[2].startswith("note: with dim 2 < K - 1 = 3")
    assert run(capsys, *arguments, "--dim", "3")[2] == ""
