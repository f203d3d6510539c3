"""`ufm solve`."""

import math
import sys
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, cast

import tyro

from ufm._support.files import check_target
from ufm.commands.model import Model
from ufm.commands.output import print_fields, print_json

if TYPE_CHECKING:
    from ufm.solvers import Method
    from ufm.solvers.problem import UFM


@dataclass(frozen=True)
class Solve:
    """Direct solve of the UFM from a random start, with its certificate."""

    model: tyro.conf.OmitArgPrefixes[Model] = field(default_factory=Model)
    dim: int = 16
    """feature dimension, >= 1 (>= K-1 with --fixed-etf)"""
    method: str = "newton"
    """newton, lbfgs, gradient_descent, momentum or adam"""
    learning_rate: float | None = None
    """of momentum and adam, > 0; None for their own"""
    schedule: str = "constant"
    """of the learning rate: constant, cosine or step"""
    batch_size: int | None = None
    """of momentum and adam, >= 1: fresh random batches of targets; None for all targets"""
    fixed_etf: float | None = None
    """fix the classifier to a simplex ETF with this multiplier, > 0; free by default"""
    priors: tuple[float, ...] | None = None
    """class probabilities, one per class; equal by default"""
    bias_decay: float | None = None
    """lambda_b >= 0: with a bias, penalised by lambda_b/2 ||b||^2; None for no bias"""
    nonnegative: bool = False
    """features >= 0, as after a ReLU"""
    feature_norm: float | None = None
    """fix every feature's norm, > 0"""
    row_norm: float | None = None
    """fix the norm of every row of the classifier, > 0"""
    nodes: int = 16
    """Gauss-Jacobi nodes in lambda per class pair, >= 1"""
    seed: int = 0
    """of the random start"""
    tol: float | None = None
    """on the gradient norm, > 0; 1e-10 where no --gap-tol is given"""
    gap_tol: float | None = None
    """on the certified gap over the objective, > 0"""
    max_iter: int = 100_000
    """limit on iterations, >= 0"""
    device: str = "auto"
    """auto, cpu or cuda"""
    stream: bool = False
    """hold one block of targets at a time and store no features (newton only)"""
    distributed: bool = False
    """share the targets out among the processes that torchrun started (newton only)"""
    resume: str | None = None
    """file of an earlier --out to go on from"""
    out: str | None = None
    """write classifier, features, certificate and history to this safetensors file"""
    record: int = 0
    """record history every so many iterations; 0 for first and last"""
    json: bool = False
    """print JSON instead of a table"""

    def run(self) -> int:
        """Solve and print the result; exit status 1 if it did not converge."""
        from ufm.solvers import load_solution, solve
        from ufm.solvers.reduced import is_first_process
        from ufm.theory.etf import nearest_etf

        if self.out is not None:
            check_target("out", self.out)
        problem = self._problem()
        method = self._method()
        solution = solve(
            problem,
            method,
            tol=self.tol,
            gap_tol=self.gap_tol,
            max_iter=self.max_iter,
            seed=self.seed,
            start=None if self.resume is None else load_solution(self.resume, problem),
            device=self.device,
            stream=self.stream,
            distributed=self.distributed,
            record=self.record,
            progress=sys.stderr.isatty() and not self.json,
        )
        if not is_first_process():
            return 0 if solution.converged else 1
        etf_error = None
        if self.dim >= problem.targets.num_classes - 1 and bool(solution.classifier.any()):
            etf_error = nearest_etf(solution.classifier).relative_error
        certificate = solution.certificate
        result = {
            "method": self.method,
            "targets": len(problem.targets),
            "converged": solution.converged,
            "message": str(solution.message),
            "iterations": solution.iterations,
            "seconds": solution.seconds,
            **asdict(certificate),
            "relative_gap": certificate.relative_gap,
            "etf_error": etf_error,
        }
        if certificate.gap == math.inf and not self.json:
            result |= dict.fromkeys(("lower_bound", "gap", "relative_gap"), "no certificate")
        print_json(result) if self.json else print_fields(result)
        needed = problem.targets.num_classes - 1
        if math.isfinite(certificate.gap) and self.dim < needed:
            print(
                f"note: with dim {self.dim} < K - 1 = {needed} the lower bound, which holds in any dimension, need not "
                "be reached: the gap says little of the point",
                file=sys.stderr,
            )
        if self.out is not None:
            # After the figures are printed, so that a full disk cannot take them along.
            solution.save(self.out)
        return 0 if solution.converged else 1

    def _problem(self) -> "UFM":
        from ufm.solvers.problem import UFM
        from ufm.theory.etf import simplex_etf

        model, streamed = self.model, self.stream or self.distributed
        law = model.law(self.priors)
        return UFM(
            targets=law.pair_targets(self.nodes) if streamed and model.ways == 2 else law.targets(self.nodes),
            dim=self.dim,
            weight_decay=model.weight_decay,
            feature_decay=model.feature_decay,
            loss=model.loss,
            classifier=None if self.fixed_etf is None else simplex_etf(model.num_classes, self.dim, self.fixed_etf),
            bias_decay=self.bias_decay,
            nonnegative=self.nonnegative,
            feature_norm=self.feature_norm,
            row_norm=self.row_norm,
        )

    def _method(self) -> "str | Method":
        from ufm._support.arrays import check_choice
        from ufm.solvers import METHODS

        check_choice("method", self.method, tuple(METHODS))
        given = {"learning_rate": self.learning_rate, "batch_size": self.batch_size}
        settings: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        settings |= {"schedule": self.schedule} if self.schedule != "constant" else {}
        known = {field.name for field in fields(cast(Any, METHODS[self.method]))}
        for name in settings:
            if name not in known:
                raise ValueError(
                    f"{name}: got {settings[name]!r} with the method {self.method!r}, expected none for it"
                )
        return METHODS[self.method](**settings)
