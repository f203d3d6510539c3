"""Exact claims: closed form against direct solver, on small models and on networks' own targets."""

import math
from functools import cache

from ufm.labels.laws import CutMix, LabelSmoothing, Law, Mixup, Unmixed
from ufm.networks.comparison_result import Comparison
from ufm.runs.claims import Claim, ClaimKind
from ufm.runs.record import RunRecord, Training
from ufm.runs.verification import verify

# The solves that a report makes itself are small enough to take about a second.
_MAX_CLASSES, _NODES, _PENALTY = 10, 3, 2e-3
_METHODS = ("newton", "lbfgs")
LIVE = (
    "Direct solves by Newton's method and L-BFGS, classifier fixed and free, from random starts, made for this page: "
    f"{_NODES} nodes in λ, λ_W = λ_H = {_PENALTY:g}, at most {_MAX_CLASSES} classes."
)
_SOLVER_LIMIT = 1e-5


def exact_claims(run: RunRecord) -> list[Claim]:
    """Return the claims of closed form against direct solver, which must hold.

    Parameters
    ----------
    run : RunRecord
        If it has stored checks, these are returned. Otherwise a small model with the run's law and loss is solved here
        and now, and the solves on the network's own targets are added.
    """
    if run.checks is not None:
        return list(run.checks)
    training = run.training
    law = small_law(training, run.num_classes)
    own = [solver_claim(run.name, mode, run.comparisons[mode]) for mode in run.modes]
    return [*verified(law, training.loss), *own]


def solver_claim(run: str, mode: str, comparison: Comparison) -> Claim:
    """Return the claim that solver and closed form agree on a network's own targets, which must hold.

    A solve that did not converge, or that has no figure, fails; without a solve the claim does not apply.
    """
    error = comparison.solver_error if comparison.solver_converged else math.nan
    name = f"the network's targets: {ClaimKind.NETWORK_SOLVER}"
    return Claim(
        name=name,
        statement=name,
        measured=None if comparison.solver_converged is None else error,
        relation="<=",
        threshold=_SOLVER_LIMIT,
        exact=True,
        evidence=f"Newton's method, nearest ETF, {comparison.samples} targets of {run}",
        mode=mode,
        reason="no solve was made" if comparison.solver_converged is None else None,
        kind=ClaimKind.NETWORK_SOLVER,
    )


@cache
def verified(law: Law, loss: str) -> tuple[Claim, ...]:
    """Solve a small model of this law here and now, and return the claims; the law has K <= 10 (`small_law`)."""
    K = law.num_classes
    evidence = f"{_words(law)}, {loss.replace('_', ' ')}, K = {K}, d = {K - 1}"
    result = verify(law, K - 1, _PENALTY, _PENALTY, loss=loss, methods=_METHODS, nodes=_NODES, device="cpu")
    return tuple(result.claims(evidence))


def small_law(training: Training, num_classes: int | None) -> Law:
    """Return the law of a run's labels with at most ten classes."""
    K, alpha = min(num_classes or _MAX_CLASSES, _MAX_CLASSES), training.alpha
    if training.mixing == "none" or alpha is None:
        law = Unmixed(K)
    else:
        law = (CutMix if training.mixing == "cutmix" else Mixup)(K, alpha, training.ways)
    return LabelSmoothing(law, training.smoothing) if training.smoothing else law


def _words(law: Law) -> str:
    if isinstance(law, LabelSmoothing):
        return f"{_words(law.law)}, smoothing {law.smoothing:g}"
    if not isinstance(law, Mixup | CutMix):
        return "no mixing"
    return f"{type(law).__name__.lower()}, α = {law.alpha:.3g}" + (f", {law.ways} ways" if law.ways != 2 else "")
