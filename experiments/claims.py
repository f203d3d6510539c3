"""The demo's claims: each a statement, the measured figure and the threshold it is held to."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ufm.comparison import Comparison
from ufm.verification import Verification

# Bins in which theory and network are compared: beyond 0.9 the mean of a steep curve over a wide bin says little.
_LAMBDA_RANGE = (0.1, 0.9)


@dataclass(frozen=True)
class Claim:
    """One claim. relation: "<=" or ">=", between measured and threshold. exact: whether it must hold to pass."""

    statement: str
    measured: float
    relation: str
    threshold: float
    exact: bool

    @property
    def passed(self) -> bool:
        """Whether the measured figure keeps to the threshold."""
        return self.measured <= self.threshold if self.relation == "<=" else self.measured >= self.threshold

    def record(self) -> dict:
        """Return the claim with its verdict, for results.json."""
        return {**asdict(self), "passed": self.passed}


def exact_claims(verification: Verification, comparisons: dict[str, Comparison]) -> list[Claim]:
    """Return the claims of closed form against solver, which must hold."""
    claims = [Claim(check.claim, check.measured, "<=", check.threshold, True) for check in verification.checks]
    errors = [c.solver_error if c.solver_converged else None for c in comparisons.values()]
    # A solve that is missing, not converged or NaN is no agreement, wherever it stands in the list.
    error = max(math.inf if error is None or math.isnan(error) else error for error in errors)
    return [*claims, Claim("the network's targets: logits, solver against closed form", error, "<=", 1e-5, True)]


def network_claims(test_accuracy: float, comparisons: dict[str, Comparison]) -> list[Claim]:
    """Return the claims of theory against network, which are reported as they come out."""
    some = next(iter(comparisons.values()))
    claims = [
        Claim("digits test accuracy", test_accuracy, ">=", 0.98, False),
        Claim("classifier to its nearest simplex ETF, relative", some.etf_error, "<=", 0.1, False),
    ]
    for mode, comparison in comparisons.items():
        closed, line = comparison.score("closed form"), comparison.score("straight line")
        closer = f"{mode} mode: R² of logits, closed form minus straight line"
        claims += [
            Claim(f"{closer}, per sample", closed.r2 - line.r2, ">=", 0.0, False),
            Claim(f"{closer}, per pair and λ bin", closed.r2_binned - line.r2_binned, ">=", 0.0, False),
            Claim(f"{mode} mode: R² of closed form, per pair and λ bin", closed.r2_binned, ">=", 0.9, False),
        ]
        if comparison.collapse is not None:
            same = f"{mode} mode: same-class features,"
            claims += [
                Claim(f"{same} NC1 (variability)", comparison.collapse.nc1, "<=", 0.1, False),
                Claim(f"{same} NC2 (class means to ETF)", comparison.collapse.nc2, "<=", 0.1, False),
                Claim(f"{same} NC3 (means to classifier)", comparison.collapse.nc3, "<=", 0.1, False),
            ]
        for quantity in ("width", "depth"):
            error = _curve_error(comparison, quantity)
            claims.append(
                Claim(
                    f"{mode} mode: channel {quantity} for λ in (0.1, 0.9), mean error / mean", error, "<=", 0.2, False
                )
            )
        if comparison.beta_fit_free is not None:
            ratio = max(comparison.beta_fit_free / comparison.beta, comparison.beta / comparison.beta_fit_free)
            claims.append(Claim(f"{mode} mode: β fit-free against fitted, factor", ratio, "<=", 3.0, False))
    return claims


def _curve_error(comparison: Comparison, quantity: str) -> float:
    """Return mean |theory - network| over mean |network|, over the bins of lambda in the middle."""
    network, theory = comparison.curves["network"], comparison.curves["closed form"]
    inside = (network.lam > _LAMBDA_RANGE[0]) & (network.lam < _LAMBDA_RANGE[1])
    measured, predicted = getattr(network, quantity)[inside], getattr(theory, quantity)[inside]
    return float(np.abs(measured - predicted).mean() / np.abs(measured).mean())


def print_solver(rows: list[dict[str, Any]]) -> None:
    """Print one line per direct solve."""
    print(f"     {'classifier':<11}{'method':<18}{'objective':>19}{'gradient':>10}{'gap':>10}{'closed form':>13}")
    for row in rows:
        figures = (
            f"{row['objective']:>19.15f}{row['gradient_norm']:>10.1e}{row['gap']:>10.1e}{row['logit_error']:>13.1e}"
        )
        print(f"     {row['classifier']:<11}{row['method']:<18}{figures}")


def print_claims(claims: list[Claim]) -> None:
    """Print one verdict line per claim."""
    width = max(len(claim.statement) for claim in claims)
    for exact, title in ((True, "Closed form against direct solver (exact)"), (False, "Theory against the network")):
        print(f"\n{title}\n{'verdict':<8} {'claim':<{width}}  {'measured':>10}    threshold")
        for claim in claims:
            if claim.exact == exact:
                verdict = "PASS" if claim.passed else "FAIL"
                figures = f"{claim.measured:>10.3g} {claim.relation} {claim.threshold:g}"
                print(f"{verdict:<8} {claim.statement:<{width}}  {figures}")
