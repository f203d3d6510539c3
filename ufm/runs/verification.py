"""Closed form against direct solver against certificate, as a table of checks with thresholds."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ufm._support.arrays import check_integer, check_number
from ufm.labels.laws import Law
from ufm.losses import get_loss
from ufm.runs.claims import Claim, ClaimKind
from ufm.solvers import Message, Solution, solve
from ufm.solvers.problem import UFM
from ufm.theory.etf import simplex_etf
from ufm.theory.features import fixed_classifier
from ufm.theory.joint import JointOptimum, joint_optimum

# What agreement means: relative to the objective, and to the largest logit or entry of the Gram matrix.
GAP_LIMIT = 1e-10
OBJECTIVE_LIMIT = 1e-11
LOGIT_LIMIT = 1e-6
GRAM_LIMIT = 1e-6


@dataclass(frozen=True)
class Verification:
    """Result of `verify`.

    Attributes
    ----------
    optimum : JointOptimum
        The closed form.
    solutions : dict
        The direct solves, by (classifier, method); the classifier is "fixed" or "free".
    logit_errors : dict
        Largest difference of logits from the closed form, relative to the largest logit, by solution.
    checks : list of Claim
        What was checked; every one must hold.
    """

    optimum: JointOptimum
    solutions: dict[tuple[str, str], Solution]
    logit_errors: dict[tuple[str, str], float]
    checks: list[Claim]

    @property
    def passed(self) -> bool:
        """Whether every check passed, and there was one."""
        return bool(self.checks) and all(check.passed for check in self.checks)

    def claims(self, evidence: str) -> list[Claim]:
        """Return the checks with what they rest on."""
        return [replace(check, evidence=evidence) for check in self.checks]


def verify(
    law: Law,
    dim: int,
    weight_decay: float,
    feature_decay: float,
    *,
    loss: str = "cross_entropy",
    methods: Sequence[str] = ("newton", "lbfgs", "gradient_descent"),
    nodes: int = 9,
    bias_decay: float | None = None,
    stream: bool = False,
    tol: float = 1e-12,
    max_iter: int = 100_000,
    seed: int = 0,
    device: str = "auto",
    progress: bool = False,
) -> Verification:
    """Solve the UFM by every method from a random start and hold each result against the closed form.

    Two problems: the classifier fixed to the simplex ETF of the optimal multiplier (multiplier 1 if the optimum is
    zero), and the classifier free. The solver knows nothing of the closed form. With `bias_decay` both have a bias: the
    optimal one of a symmetric law is the same for every class, and the closed form holds as it is. With `stream` no
    features are stored, and the response to the classifier found is compared. Arguments as in `UFM`, `solve` and
    `joint_optimum`; dim >= K-1. Distances from the optimum are about tol over the penalties, so that penalties far
    below 1e-5 need a smaller tol than the default to pass.
    Raises ValueError for bad arguments, and KeyboardInterrupt if a solve is interrupted.
    """
    K = law.num_classes
    check_integer("dim", dim, minimum=K - 1)
    check_number("tol", tol, above=0)
    if bias_decay and get_loss(loss).own_bias(K):
        raise ValueError(
            f"bias_decay: got {bias_decay} with {loss}, whose closed form has a bias without penalty; use 0"
        )
    if not methods:
        raise ValueError("methods: got none, expected at least one")
    optimum = joint_optimum(law, weight_decay, feature_decay, loss, nodes=nodes)
    targets = law.targets(nodes)
    etf = simplex_etf(K, dim, float(optimum.multiplier) or 1.0, generator=torch.Generator().manual_seed(seed))
    fixed = UFM(targets, dim, weight_decay, feature_decay, loss, classifier=etf, bias_decay=bias_decay)
    free = UFM(targets, dim, weight_decay, feature_decay, loss, bias_decay=bias_decay)
    fixed_logits = torch.as_tensor(fixed_classifier(etf, targets.labels, feature_decay, loss).logits)
    free_logits = torch.as_tensor(optimum.response(targets.labels, dim).logits)

    solutions: dict[tuple[str, str], Solution] = {}
    logit_errors: dict[tuple[str, str], float] = {}
    checks: list[Claim] = []
    for kind, problem, logits in (("fixed", fixed, fixed_logits), ("free", free, free_logits)):
        for method in methods:
            solution = solve(
                problem,
                method,
                tol=tol,
                max_iter=max_iter,
                seed=seed,
                device=device,
                stream=stream,
                progress=progress,
            )
            if solution.message is Message.INTERRUPTED:
                raise KeyboardInterrupt
            solutions[kind, method] = solution
            logit_errors[kind, method] = _error(_centred_logits(solution), logits)
            name = f"{kind} classifier, {method}"
            checks.append(_check(name, ClaimKind.GRADIENT_NORM, solution.gradient_norm, tol))
            checks.append(_check(name, ClaimKind.CERTIFIED_GAP, _gap(solution), GAP_LIMIT))
            checks.append(_check(name, ClaimKind.LOGITS, logit_errors[kind, method], LOGIT_LIMIT))
            if kind == "free":
                difference = abs(solution.objective / float(optimum.objective) - 1)
                checks.append(_check(name, ClaimKind.OBJECTIVE, difference, OBJECTIVE_LIMIT))
                gram, ideal = (w @ w.T for w in (solution.classifier, optimum.classifier(dim)))
                checks.append(_check(name, ClaimKind.GRAM, _error(gram, ideal), GRAM_LIMIT))
    return Verification(optimum, solutions, logit_errors, checks)


def _check(solve: str, kind: ClaimKind, measured: float, threshold: float) -> Claim:
    name = f"{solve}: {kind}"
    return Claim(name, name, measured, "<=", threshold, exact=True, kind=kind)


def _centred_logits(solution: Solution) -> Tensor:
    """Return the logits, every row less its mean, which a bias may shift."""
    if solution.stored_features is not None:
        logits = solution.logits
    else:
        logits = torch.as_tensor(solution.response(solution.problem.targets.labels).logits)
    return logits - logits.mean(1, keepdim=True)


def _gap(solution: Solution) -> float:
    return abs(solution.certificate.relative_gap)


def _error(found: Tensor, expected: Tensor) -> float:
    """Return the largest difference relative to the largest expected entry (absolute where all of them are zero)."""
    scale = expected.abs().max().item() or 1.0
    return (found.cpu() - expected).abs().max().item() / scale
