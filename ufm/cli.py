"""Command line: `ufm predict | solve | verify | compare`. Heavy imports wait until a command runs.

Exit status: 0 success; 1 a solve that did not converge, a check that failed, a file that could not be written or a
process that ended; 2 bad input.
"""

import math
import sys
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any, cast

import tyro

from ufm.console import parse

if TYPE_CHECKING:
    from ufm.laws import LabelSmoothing, Mixup, Unmixed
    from ufm.problem import UFM
    from ufm.solvers import Method, Solution


@dataclass(frozen=True)
class Model:
    """The unconstrained features model that a command is about."""

    num_classes: int = 10
    """K >= 2"""
    alpha: float | None = 1.0
    """mixup's Beta(alpha, alpha), > 0; None for no mixup"""
    ways: int = 2
    """how many labels are mixed, >= 2"""
    smoothing: float = 0.0
    """label smoothing on top, in [0, 1)"""
    weight_decay: float = 2e-3
    """lambda_W > 0, in F = E[loss + lambda_H/2 ||h||^2] + lambda_W/2 ||W||^2"""
    feature_decay: float = 2e-3
    """lambda_H > 0, in the same convention"""
    loss: str = "cross_entropy"
    """cross_entropy or mean_squared_error"""

    def law(self, priors: tuple[float, ...] | None = None) -> "Mixup | Unmixed | LabelSmoothing":
        """Return the law of the labels."""
        from ufm.laws import LabelSmoothing, Mixup, Unmixed

        K = self.num_classes
        law = Unmixed(K, priors) if self.alpha is None else Mixup(K, self.alpha, self.ways, priors=priors)
        return LabelSmoothing(law, self.smoothing) if self.smoothing else law


@dataclass(frozen=True)
class Predict:
    """Theory: the joint optimum, and the optimal logits and features against lambda."""

    model: tyro.conf.OmitArgPrefixes[Model] = Model()
    nodes: int | None = None
    """Gauss-Jacobi nodes in lambda, >= 1; None for the continuous law"""
    lam: tuple[float, ...] = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
    """mixing coefficients of the table, in [0, 1]"""
    json: bool = False
    """print JSON instead of a table"""

    def run(self) -> int:
        """Print the prediction."""
        from ufm.arrays import to_tensor
        from ufm.losses import get_loss
        from ufm.targets import pair_levels
        from ufm.theory import joint_optimum

        lam = to_tensor("lam", self.lam, ndim=1)
        if not len(lam) or not bool(((lam >= 0) & (lam <= 1)).all()):
            raise ValueError(f"lam: got {self.lam}, expected at least one value, all in [0, 1]")
        model = self.model
        optimum = joint_optimum(model.law(), model.weight_decay, model.feature_decay, model.loss, nodes=self.nodes)
        K, loss = optimum.num_classes, get_loss(model.loss)
        levels, counts = pair_levels(lam, K)
        levels = (1 - model.smoothing) * levels + model.smoothing / K
        beta = float(optimum.beta)
        z = loss.etf_logits(levels, beta, counts) if beta else 0 * levels
        # The prediction is the label plus the residual, which is -z/beta; h = (K-1)/(K m^2) W^T z has this norm.
        p = levels - z / beta if beta else 0 * levels + 1 / K
        length = (counts * z.square()).sum(1).sqrt() * (
            ((K - 1) / K) ** 0.5 / float(optimum.multiplier) if beta else 0.0
        )
        rows = []
        for x, (za, zb, z0), (pa, pb, p0), norm in zip(*(t.tolist() for t in (lam, z, p, length)), strict=True):
            depth, others = ((za + zb) / 2 - z0, p0) if K > 2 else (None, None)
            row = {
                "lam": x,
                "width": za - zb,
                "depth": depth,
                "p_a": pa,
                "p_b": pb,
                "p_0": others,
                "feature_norm": norm,
            }
            rows.append(row)
        if self.json:
            _print_json({"optimum": asdict(optimum), "mixed": rows})
        else:
            _print_fields(asdict(optimum))
            _print_table(rows)
        return 0


@dataclass(frozen=True)
class Solve:
    """Direct solve of the UFM from a random start, with its certificate."""

    model: tyro.conf.OmitArgPrefixes[Model] = Model()
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
        from ufm.etf import nearest_etf
        from ufm.solvers import load_solution, solve
        from ufm.solvers.reduced import is_first_process

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
        _print_json(result) if self.json else _print_fields(result)
        if self.out is not None:
            # After the figures are printed, so that a full disk cannot take them along.
            _save(solution, self.out)
        return 0 if solution.converged else 1

    def _problem(self) -> "UFM":
        from ufm.etf import simplex_etf
        from ufm.problem import UFM

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
        from ufm.arrays import check_choice
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


@dataclass(frozen=True)
class Verify:
    """Closed form against direct solvers against certificate: a table of PASS and FAIL."""

    model: tyro.conf.OmitArgPrefixes[Model] = Model()
    dim: int = 16
    """feature dimension, >= K-1"""
    method: tuple[str, ...] = ("newton", "lbfgs", "gradient_descent")
    """methods to run: newton, lbfgs, gradient_descent, momentum, adam"""
    nodes: int = 9
    """Gauss-Jacobi nodes in lambda per class pair, >= 1"""
    bias_decay: float | None = None
    """lambda_b >= 0: with a bias, penalised by lambda_b/2 ||b||^2; None for no bias"""
    stream: bool = False
    """hold one block of targets at a time and store no features (newton only)"""
    seed: int = 0
    """of the random start"""
    tol: float = 1e-12
    """on the gradient norm, > 0"""
    max_iter: int = 100_000
    """limit on iterations, >= 0"""
    device: str = "auto"
    """auto, cpu or cuda"""
    json: bool = False
    """print JSON instead of a table"""

    def run(self) -> int:
        """Run every check and print it; exit status 1 if one failed."""
        from ufm.verification import verify

        model = self.model
        result = verify(
            model.law(),
            self.dim,
            model.weight_decay,
            model.feature_decay,
            loss=model.loss,
            methods=("newton",) if self.stream and self.method == Verify.method else self.method,
            nodes=self.nodes,
            bias_decay=self.bias_decay,
            stream=self.stream,
            tol=self.tol,
            max_iter=self.max_iter,
            seed=self.seed,
            device=self.device,
        )
        rows = [{"verdict": "PASS" if check.passed else "FAIL", **asdict(check)} for check in result.checks]
        if self.json:
            _print_json({"optimum": asdict(result.optimum), "checks": rows, "passed": result.passed})
        else:
            _print_table(rows)
        return 0 if result.passed else 1


@dataclass(frozen=True)
class Compare:
    """Recorded activations of a network against closed form, solver and straight line."""

    file: tyro.conf.Positional[str]
    """safetensors file written by Activations.save"""
    alpha: float | None = 1.0
    """of the mixup that the network was trained with, > 0; None for no mixup"""
    weight_decay: float | None = None
    """lambda_W of the trained classifier, > 0; needed for the fit-free beta"""
    bins: int = 10
    """of lambda, >= 1"""
    solver: bool = True
    """also run the direct solves"""
    json: bool = False
    """print JSON instead of a table"""

    def run(self) -> int:
        """Print the comparison."""
        from ufm.activations import load
        from ufm.comparison import compare

        activations = load(self.file)
        law = Model(num_classes=activations.logits.shape[1], alpha=self.alpha).law()
        comparison = asdict(
            compare(activations, law, weight_decay=self.weight_decay, solver=self.solver, bins=self.bins)
        )
        if self.json:
            _print_json({"description": activations.description, **comparison})
        else:
            hidden = ("scores", "curves", "collapse")
            _print_fields({name: value for name, value in comparison.items() if name not in hidden})
            _print_fields(comparison["collapse"] or {})
            _print_table(comparison["scores"])
        return 0


Command = (
    Annotated[Predict, tyro.conf.subcommand("predict")]
    | Annotated[Solve, tyro.conf.subcommand("solve")]
    | Annotated[Verify, tyro.conf.subcommand("verify")]
    | Annotated[Compare, tyro.conf.subcommand("compare")]
)


def main(args: list[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    try:
        description = "Theory toolkit for unconstrained features models: closed forms, certified solvers, networks."
        return parse(Command, prog="ufm", description=description, args=args).run()
    except ValueError as error:
        print(f"ufm: error: {error}", file=sys.stderr)
        return 2
    except (OSError, RuntimeError) as error:
        print(f"ufm: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("ufm: interrupted", file=sys.stderr)
        return 130


def _save(solution: "Solution", path: str) -> None:
    try:
        solution.save(path)
    except OSError as error:
        raise OSError(
            f"out: could not write {path} ({error.strerror or error}); an earlier file is as it was"
        ) from error


def _print_json(value: Any) -> None:
    from ufm.storage import to_json

    print(to_json(value))


def _print_fields(fields: dict[str, Any]) -> None:
    width = max(map(len, fields), default=0)
    for name, value in fields.items():
        print(f"{name:<{width}}  {_text(value)}")


def _print_table(rows: list[dict[str, Any]]) -> None:
    """Print rows under their keys: text to the left, numbers to the right."""
    print()
    columns = {name: [name, *(_text(row[name]) for row in rows)] for name in rows[0]}
    for i in range(len(rows) + 1):
        cells = []
        for name, column in columns.items():
            width = max(map(len, column))
            cells.append(f"{column[i]:<{width}}" if isinstance(rows[0][name], str) else f"{column[i]:>{width}}")
        print("  ".join(cells).rstrip())


def _text(value: Any) -> str:
    return f"{value:.10g}" if isinstance(value, float) else "-" if value is None else str(value)


if __name__ == "__main__":
    sys.exit(main())
