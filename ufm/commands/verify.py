"""`ufm verify`."""

from dataclasses import asdict, dataclass, field

import tyro

from ufm.commands.model import Model
from ufm.commands.output import print_json, print_table


@dataclass(frozen=True)
class Verify:
    """Closed form against direct solvers against certificate: a table of PASS and FAIL."""

    model: tyro.conf.OmitArgPrefixes[Model] = field(default_factory=Model)
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
        from ufm.runs.verification import verify

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
        rows = [
            {
                "verdict": "PASS" if check.passed else "FAIL",
                "claim": check.name,
                "measured": check.measured,
                "threshold": check.threshold,
            }
            for check in result.checks
        ]
        if self.json:
            print_json({"optimum": asdict(result.optimum), "checks": rows, "passed": result.passed})
        else:
            print_table(rows)
        return 0 if result.passed else 1
