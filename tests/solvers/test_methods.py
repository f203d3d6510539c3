"""Settings of the methods, starts, histories, files and faults of a solve."""

import dataclasses
import json
import math
import os
import resource
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import ufm
from tests.helpers.processes import start
from ufm.solvers import METHODS, newton
from ufm.solvers.descent import State
from ufm.solvers.fixed_step import FixedStep

LAW = ufm.Mixup(5)
PROBLEM = ufm.UFM(LAW.targets(9), 8, 0.02, 0.02)
OPTIMUM = 0.595857985966592


@pytest.mark.parametrize(
    "method",
    [
        ufm.Adam(learning_rate=1e-2, schedule="cosine"),
        ufm.Adam(learning_rate=2e-2, schedule="step"),
        ufm.Momentum(learning_rate=0.2),
        ufm.Momentum(learning_rate=0.2, nesterov=True, momentum=0.5),
        ufm.Momentum(learning_rate=0.5, schedule="cosine"),
    ],
)
def test_given_steps_reach_the_optimum(method: ufm.Adam | ufm.Momentum):
    solution = ufm.solve(PROBLEM, method, max_iter=1500, tol=1e-9)
    assert solution.objective == pytest.approx(OPTIMUM, abs=1e-9)
    assert solution.method == method.name


@pytest.mark.parametrize("method", [ufm.Adam(3e-2, "cosine", batch_size=16), ufm.Momentum(0.1, "cosine", 16)])
def test_fresh_batches_come_near_the_optimum_and_repeat_with_the_seed(method: ufm.Adam | ufm.Momentum):
    problem = ufm.UFM(ufm.Mixup(3).targets(5), 4, 0.02, 0.02)
    best = ufm.solve(problem).objective
    first, again, other = (ufm.solve(problem, method, max_iter=150, tol=1e-9, seed=seed) for seed in (1, 1, 2))
    assert first.message is ufm.Message.MAX_ITER
    assert best < first.objective < best + 0.02
    assert torch.equal(first.features, again.features)
    assert not torch.equal(first.features, other.features)


def test_schedules():
    assert [FixedStep(1.0, "step").rate(x) for x in (0.0, 0.29, 0.3, 0.5, 0.9)] == pytest.approx(
        [1, 1, 0.1, 0.01, 1e-3]
    )
    assert [FixedStep(1.0, "cosine").rate(x) for x in (0.0, 0.5, 1.0)] == pytest.approx([1, 0.5, 0], abs=1e-15)
    assert FixedStep(1.0).rate(0.7) == 1


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: ufm.Adam(learning_rate=0.0), "learning_rate"),
        (lambda: ufm.Adam(learning_rate=None), "learning_rate"),
        (lambda: ufm.Adam(betas=(0.9, 1.0)), "betas"),
        (lambda: ufm.Adam(epsilon=0.0), "epsilon"),
        (lambda: ufm.Adam(schedule="linear"), "schedule"),
        (lambda: ufm.Momentum(0.1, batch_size=0), "batch_size"),
        (lambda: ufm.Momentum(batch_size=4), "learning_rate"),
        (lambda: ufm.Momentum(0.1, momentum=1.0), "momentum"),
        (lambda: ufm.LBFGS(memory=0), "memory"),
        (lambda: ufm.solve(PROBLEM, gap_tol=0.0), "gap_tol"),
        (lambda: ufm.solve(PROBLEM, start=ufm.Point(torch.zeros(4, 8))), "start"),
        (lambda: ufm.solve(PROBLEM, start=(1, 2)), "start"),
        (lambda: ufm.solve(PROBLEM, device=1.5), "device"),
        (lambda: ufm.solve(PROBLEM, start=ufm.Point(torch.full((5, 8), math.nan))), "start"),
        (lambda: ufm.solve(PROBLEM, start=ufm.Point(torch.zeros(5, 8), bias=torch.zeros(5))), "start"),
    ],
)
def test_bad_settings_are_named(make, named: str):
    with pytest.raises(ValueError, match=f"^{named}"):
        make()


@pytest.mark.parametrize("method", ["newton", "lbfgs"])
def test_stopping_on_the_certified_gap(method: str):
    loose, tight = (ufm.solve(PROBLEM, method, gap_tol=gap) for gap in (1e-3, 1e-9))
    assert loose.converged
    assert tight.converged
    assert 1e-9 < loose.certificate.relative_gap <= 1e-3
    assert abs(tight.certificate.relative_gap) <= 1e-9
    assert loose.iterations < tight.iterations
    both = ufm.solve(PROBLEM, method, tol=1e-12, gap_tol=1e-3)
    assert both.gradient_norm <= 1e-12


def test_a_gap_that_the_bound_cannot_close_is_never_called_converged():
    problem = ufm.UFM(ufm.Mixup(5).targets(3), 2, 0.01, 0.01)
    solution = ufm.solve(problem, gap_tol=1e-6, max_iter=200)
    assert not solution.converged
    assert solution.certificate.relative_gap > 1e-3  # two dimensions are too few, and the bound is not tight


@pytest.mark.parametrize("method", ["lbfgs", "newton", "adam"])
def test_a_solve_resumes_where_it_stopped(method: str, tmp_path: Path):
    problem = ufm.UFM(ufm.Mixup(4).targets(5), 6, 0.01, 0.01, bias_decay=0.1)
    short = ufm.solve(problem, method, max_iter=3, record=1)
    assert short.message is ufm.Message.MAX_ITER
    short.save(tmp_path / "short.safetensors")
    loaded = ufm.load_solution(tmp_path / "short.safetensors", problem)
    assert torch.equal(loaded.classifier, short.classifier)
    assert torch.equal(loaded.features, short.features)
    assert loaded.certificate == short.certificate
    for name, value in vars(short.history).items():
        np.testing.assert_array_equal(getattr(loaded.history, name), value)
    whole = ufm.solve(problem, "lbfgs" if method == "adam" else method, start=loaded, record=1, tol=1e-9)
    assert whole.converged
    assert whole.iterations > 3
    assert whole.seconds > short.seconds
    iterations = whole.history.iteration
    np.testing.assert_array_equal(iterations[:4], [0, 1, 2, 3])
    assert (np.diff(iterations) > 0).all()
    assert (np.diff(whole.history.seconds) > 0).all()
    assert whole.history.objective[3] == short.objective


def test_resuming_without_features_or_without_iterations_keeps_what_there_is(tmp_path: Path):
    problem = ufm.UFM(ufm.Mixup(4).pair_targets(5), 5, 0.01, 0.01)
    stored = ufm.solve(problem, "adam", max_iter=20)
    streamed = ufm.solve(problem, start=stored, stream=True)
    assert streamed.converged
    assert len(streamed.history.iteration) >= 3
    assert streamed.history.lam.shape == (0,)
    same = ufm.solve(problem, "lbfgs", start=stored, max_iter=0)
    assert same.history.objective[-1] == same.objective
    with pytest.raises(ValueError, match="^features: none were stored"):
        streamed.logits  # noqa: B018
    streamed.save(tmp_path / "streamed.safetensors")
    loaded = ufm.load_solution(tmp_path / "streamed.safetensors", problem)
    labels = problem.targets.labels
    assert torch.allclose(
        torch.as_tensor(loaded.response(labels).logits), torch.as_tensor(streamed.response(labels).logits)
    )


def test_a_solution_without_certificate_survives_its_file(tmp_path: Path):
    problem = ufm.UFM(ufm.Mixup(3).targets(3), 4, 0.01, 0.01, feature_norm=100.0, row_norm=100.0)
    solution = ufm.solve(problem, "lbfgs", max_iter=50)
    assert solution.certificate.gap == math.inf
    solution.save(tmp_path / "solution.safetensors")
    assert ufm.load_solution(tmp_path / "solution.safetensors", problem).certificate == solution.certificate


def test_files_of_another_problem_or_none_are_refused(tmp_path: Path):
    path = tmp_path / "solution.safetensors"
    ufm.solve(PROBLEM, max_iter=1).save(path)
    with pytest.raises(ValueError, match="^path: .*another problem"):
        ufm.load_solution(path, ufm.UFM(ufm.Mixup(3).targets(2), 8, 0.02, 0.02))
    for other in (
        ufm.UFM(LAW.targets(9), 8, 0.02, 0.03),
        ufm.UFM(LAW.targets(9), 8, 0.02, 0.02, "mean_squared_error"),
        ufm.UFM(ufm.Mixup(5, alpha=0.5).targets(9), 8, 0.02, 0.02),
        ufm.UFM(ufm.Mixup(5, priors=(0.4, 0.3, 0.1, 0.1, 0.1)).targets(9), 8, 0.02, 0.02),
    ):
        with pytest.raises(ValueError, match="^path: .*another problem"):
            ufm.load_solution(path, other)
    with pytest.raises(ValueError, match="^path"):
        ufm.load_solution(tmp_path / "missing", PROBLEM)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="^path"):
        ufm.load_solution(path, PROBLEM)


def test_history_measures_collapse_and_the_channel():
    solution = ufm.solve(PROBLEM, "gradient_descent", record=20, tol=1e-10)
    history = solution.history
    optimum = ufm.joint_optimum(LAW, 0.02, 0.02, nodes=9)
    shape = ufm.channel(history.lam, float(optimum.beta), 5)
    assert len(history.lam) == 9
    np.testing.assert_allclose(history.width[-1], shape.width, rtol=0, atol=1e-7)
    np.testing.assert_allclose(history.depth[-1], shape.depth, rtol=0, atol=1e-7)
    assert history.etf_error[0] > 0.3
    for name in ("etf_error", "nc1", "nc2", "nc3"):
        assert getattr(history, name)[-1] < 1e-7
    assert history.width.shape == (len(history.iteration), 9)


def test_without_pairs_there_is_no_channel():
    labels = np.full((4, 3), 0.1) + 0.7 * np.eye(4, 3)
    labels[3] = 1 / 3
    history = ufm.solve(ufm.UFM(ufm.Targets(labels / labels.sum(1, keepdims=True)), 3, 0.05, 0.05)).history
    assert history.lam.shape == (0,)
    assert history.width.shape == (len(history.iteration), 0)
    assert np.isnan(history.nc1).all()


def test_an_exploding_step_ends_the_solve_with_the_best_point():
    with np.errstate(all="ignore"):
        solution = ufm.solve(PROBLEM, ufm.Momentum(learning_rate=1e6), max_iter=500)
    assert not solution.converged
    assert math.isfinite(solution.objective)
    assert bool(torch.isfinite(solution.features).all())
    assert solution.objective <= solution.history.objective.min()


def test_a_diverging_solve_says_that_numbers_are_not_finite():
    class Exploding(ufm.GradientDescent):
        def states(self, objective, start, max_iter):
            state = objective.state(start)
            yield state
            yield State(start, state.gradient, torch.tensor([math.nan, 1.0], dtype=torch.float64))

    solution = ufm.solve(PROBLEM, Exploding())
    assert solution.message is ufm.Message.NOT_FINITE
    assert math.isfinite(solution.objective)


@pytest.mark.parametrize("needed", [True, False])
def test_a_method_of_ones_own_gets_the_features_that_it_asks_for(needed: bool):
    class Own(ufm.LBFGS):
        name = "own"
        needs_features = needed

        def iterate(self, problem, start, options):
            assert (start.features is not None) == needed
            drawn = torch.ones(len(problem.targets), problem.dim, dtype=torch.float64)
            return super().iterate(problem, start if needed else dataclasses.replace(start, features=drawn), options)

    solution = ufm.solve(PROBLEM, Own())
    assert solution.converged
    assert solution.method == "own"


def test_only_newtons_method_does_without_features():
    assert [name for name, method in METHODS.items() if not method().needs_features] == ["newton"]


@pytest.mark.usefixtures("unchecked")
def test_nan_targets_and_zero_penalties_are_refused():
    labels = np.eye(3)
    labels[0, 0] = math.nan
    with pytest.raises(ValueError, match="^labels"):
        ufm.Targets(labels)
    with pytest.raises(ValueError, match="^weights"):
        ufm.Targets(np.eye(3), np.array([0.5, 0.5, math.nan]))
    for field in ("weight_decay", "feature_decay"):
        with pytest.raises(ValueError, match=f"^{field}: got 0"):
            ufm.UFM(**{"targets": PROBLEM.targets, "dim": 3, "weight_decay": 1.0, "feature_decay": 1.0, field: 0.0})


@pytest.mark.parametrize(
    "method", [pytest.param(name, marks=[pytest.mark.slow] * (name != "newton")) for name in METHODS]
)
def test_ctrl_c_returns_the_best_point_so_far(method: str):
    # The signal comes shortly after the second iterate: of Newton's method, among subsets of the targets.
    program = f"""
        import os, signal, threading, time, torch, ufm
        from ufm.solvers import METHODS, newton
        torch.set_num_threads(1)
        problem = ufm.UFM(ufm.Mixup(30).targets(16), 40, 1e-4, 1e-4)
        begun = threading.Event()

        def watched(iterate):
            def iterates(*arguments, **settings):
                for number, each in enumerate(iterate(*arguments, **settings)):
                    if number == 1:
                        begun.set()
                    yield each
            return iterates

        def interrupt():
            begun.wait()
            time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGINT)

        owner, name = (newton, "_minimise") if "{method}" == "newton" else (METHODS["{method}"], "iterate")
        setattr(owner, name, watched(getattr(owner, name)))
        threading.Thread(target=interrupt, daemon=True).start()
        solution = ufm.solve(problem, "{method}", tol=1e-300, max_iter=10**7)
        # Where the solve ended by itself, the signal is still to come.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        objective = solution.history.objective
        print(solution.message.name, solution.converged, objective[-1] <= objective[0])
    """
    process = start([sys.executable, "-c", textwrap.dedent(program)])
    said, complaints = process.communicate(timeout=60)
    assert process.returncode == 0, complaints
    message, converged, lower = said.split()
    # Newton's method may reach the rounding level before, and says so.
    assert message in ({"INTERRUPTED", "STALLED"} if method == "newton" else {"INTERRUPTED"}), complaints
    assert (converged, lower) == ("False", "True")


def test_an_interrupt_is_not_lost_where_the_point_so_far_is_good_enough(monkeypatch: pytest.MonkeyPatch):
    minimise = newton._minimise

    def interrupted(*arguments, **settings):
        yield next(minimise(*arguments, **settings))
        raise KeyboardInterrupt

    monkeypatch.setattr(newton, "_minimise", interrupted)
    solution = ufm.solve(ufm.UFM(ufm.Mixup(6).targets(40), 6, 1e-5, 1e-5), "newton", tol=1e9)
    assert solution.message.name == "INTERRUPTED"


def run_ufm(*arguments: str, limit: int | None = None, **options) -> subprocess.CompletedProcess[str]:
    def restrict() -> None:
        if limit is not None:
            # Writing beyond the limit fails as on a full disk, instead of a signal that ends the process.
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return subprocess.run(
        [sys.executable, "-m", "ufm", *arguments],
        capture_output=True,
        text=True,
        preexec_fn=restrict,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
        **options,
    )


@pytest.mark.slow
def test_a_full_disk_keeps_the_figures_and_the_earlier_file(tmp_path: Path):
    path = tmp_path / "solution.safetensors"
    arguments = ["solve", "--num-classes", "6", "--dim", "8", "--record", "1", "--out", str(path), "--json"]
    assert run_ufm(*arguments).returncode == 0
    earlier = path.read_bytes()
    full = run_ufm(*arguments, "--seed", "1", limit=len(earlier) // 2)
    assert full.returncode == 1
    assert full.stderr.startswith(f"ufm: error: {path}: could not be written (File too large)")
    assert full.stderr.count("\n") == 1
    assert json.loads(full.stdout)["converged"] is True
    assert path.read_bytes() == earlier
    assert list(tmp_path.iterdir()) == [path]


def test_a_killed_solve_leaves_no_half_file_and_resumes(tmp_path: Path):
    path = tmp_path / "solution.safetensors"
    arguments = ["solve", "--num-classes", "6", "--dim", "8", "--method", "lbfgs", "--out", str(path)]
    assert run_ufm(*arguments, "--max-iter", "5").returncode == 1
    first = ufm.load_solution(path, ufm.UFM(ufm.Mixup(6).targets(16), 8, 2e-3, 2e-3))
    assert first.iterations == 5
    slow = subprocess.Popen(
        [sys.executable, "-m", "ufm", *arguments, "--tol", "1e-300", "--max-iter", "100000000", "--method", "adam"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    time.sleep(4)
    slow.kill()
    slow.wait()
    assert list(tmp_path.iterdir()) == [path]
    resumed = run_ufm(*arguments, "--resume", str(path))
    assert resumed.returncode == 0, resumed.stderr
    assert "converged            True" in resumed.stdout


@pytest.mark.parametrize("dim", [2, 3, 7])
def test_newton_agrees_with_lbfgs_beyond_the_closed_form(dim: int):
    rng = np.random.default_rng(dim)
    targets = ufm.Targets(rng.dirichlet(np.full(5, 0.3), 40), rng.dirichlet(np.ones(40)))
    problem = ufm.UFM(targets, dim, 0.01, 0.02, bias_decay=0.05)
    exact, other = (ufm.solve(problem, method, tol=1e-11, seed=3) for method in ("newton", "lbfgs"))
    assert exact.converged
    assert other.converged
    if dim >= 5:
        assert exact.objective == pytest.approx(other.objective, rel=1e-12)
        assert abs(exact.certificate.relative_gap) < 1e-9
    else:
        # Of low rank the problem may have several minima; each is a stationary point above the bound.
        assert min(exact.certificate.gap, other.certificate.gap) > 0
        assert exact.objective == pytest.approx(other.objective, rel=0.05)


def test_minority_rows_coincide_from_the_predicted_ratio_on():
    from experiments import minority

    for alpha in (None, 1.0):
        ratio = minority.collapse_ratio(4, alpha, 0.05)
        config = minority.MinorityConfig(4, (0.8 * ratio, 1.25 * ratio), (alpha,), (0.05,), 3)
        found = {point["ratio"]: point for point in minority.points(config)}
        below, above = (found[ratio * factor] for factor in (0.8, 1.25))
        assert below["spread_rare"] > 1e-2
        assert above["spread_rare"] < 1e-8
        assert above["cosine_rare"] == pytest.approx(1)
        assert max(abs(point["relative_gap"]) for point in found.values()) < 1e-9


def test_newton_from_a_given_start_stays_near_it():
    # Many targets, of which a solve from scratch would look at subsets first.
    problem = ufm.UFM(ufm.Mixup(4).targets(120), 5, 0.01, 0.01)
    optimum = ufm.solve(problem, tol=1e-12)
    resumed = ufm.solve(problem, start=optimum, tol=1e-12, record=1)
    assert resumed.iterations <= optimum.iterations + 1
    assert resumed.history.objective.min() >= optimum.objective - 1e-13
    kept = ufm.solve(problem, start=optimum, max_iter=0, tol=1e-12)
    assert kept.converged
    assert kept.objective == pytest.approx(optimum.objective, rel=1e-14)
    scratch, whole = (ufm.solve(problem, ufm.Newton(subsets=subsets), tol=1e-12) for subsets in (True, False))
    assert scratch.objective == pytest.approx(whole.objective, rel=1e-13)


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 6))])
def test_narrow_problems_with_unequal_penalties_are_solved(seed: int):
    rng = np.random.default_rng(0)
    for _ in range(seed + 1):
        targets = ufm.Targets(rng.dirichlet(np.full(5, 0.3), 9), rng.dirichlet(np.ones(9)))
    solution = ufm.solve(ufm.UFM(targets, 3, 2.6e-3, 3.6e-5), tol=1e-7, seed=seed, max_iter=500)
    assert solution.converged, (solution.message, solution.gradient_norm)


def test_a_class_that_never_occurs_has_no_say_in_the_certificate():
    labels = np.array([[0.7, 0.3, 0.0], [0.2, 0.8, 0.0]])
    problem = ufm.UFM(ufm.Targets(labels), 2, 0.01, 0.01, bias_decay=0.0)
    certificate = ufm.certify(problem, np.zeros((3, 2)), np.zeros((2, 2)), np.array([0.0, 0.0, -800.0]))
    assert math.isfinite(certificate.gap)
    assert certificate.gap >= 0


def test_a_classifier_with_a_gradient_of_its_own_is_welcome():
    W = torch.nn.Parameter(torch.as_tensor(ufm.simplex_etf(5, 8)))
    solution = ufm.solve(ufm.UFM(PROBLEM.targets, 8, 0.0, 0.02, classifier=W))
    assert solution.converged
    assert not solution.features.requires_grad
