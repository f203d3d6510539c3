"""What a claim is, and the exact ones: closed form against direct solver."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from functools import cache
from typing import Any

from ufm.networks.comparison import Comparison
from ufm.labels.laws import CutMix, Law, Mixup, Unmixed
from ufm.runs.verification import Verification, verify

# Of the solves that a report makes itself: small enough for a second.
_MAX_CLASSES, _NODES, _PENALTY = 10, 3, 2e-3
_METHODS = ("newton", "lbfgs")
LIVE = (
    "Direct solves by Newton's method and L-BFGS, classifier fixed and free, from random starts, made for this page: "
    f"{_NODES} nodes in λ, λ_W = λ_H = {_PENALTY:g}, at most {_MAX_CLASSES} classes."
)
_SOLVER_LIMIT = 1e-5

# What the checks of `verify` say, by the part of their name that all solves share, and where it is derived.
_FAMILIES = {
    "gradient norm": ("Every direct solve ends in a stationary point: gradient norm", "fixed_etf"),
    "certified gap / objective": (
        "Every direct solve is proved globally optimal: certified gap / objective",
        "duality_gap",
    ),
    "logits against closed form": (
        "Direct solves from random starts reach the closed form: largest difference of logits, relative",
        "fixed_etf",
    ),
    "objective against closed form": (
        "The closed form's objective is the minimum over classifier and features: relative difference",
        "optimal_value",
    ),
    "W W^T against the ETF": (
        "The optimal classifier is a simplex ETF: largest difference of W Wᵀ, relative",
        "etf_is_optimal",
    ),
    "logits, solver against closed form": (
        "On the network's own targets solver and closed form agree: largest difference of logits",
        "fixed_etf",
    ),
}


class Verdict(StrEnum):
    """What the measured figure says of a claim."""

    HOLDS = "holds"
    FAILS = "does not hold"
    NOT_APPLICABLE = "not applicable"


@dataclass(frozen=True)
class Claim:
    """One claim, the figure measured for it, and the threshold that the figure is held to.

    name: in a few words. statement: in a sentence. measured: the figure, or None if there is none. relation: "<=" or
    ">=", between measured and threshold. exact: whether it must hold, as closed form against solver must. evidence:
    what the figure rests on. detail: further figures. mode: of the network (eval, train), or None where there is no
    such thing. reason: why the claim does not apply, or None if it does.
    """

    name: str
    statement: str
    measured: float | None
    relation: str
    threshold: float
    exact: bool = False
    evidence: str = ""
    detail: str = ""
    mode: str | None = None
    reason: str | None = None

    @property
    def verdict(self) -> Verdict:
        """The verdict; a figure that is NaN or missing without a reason does not hold."""
        if self.reason is not None:
            return Verdict.NOT_APPLICABLE
        if self.measured is None:
            return Verdict.FAILS
        # Of NaN every comparison is false.
        kept = self.measured <= self.threshold if self.relation == "<=" else self.measured >= self.threshold
        return Verdict.HOLDS if kept else Verdict.FAILS

    @property
    def passed(self) -> bool | None:
        """Whether the claim holds; None where it does not apply."""
        return None if self.verdict is Verdict.NOT_APPLICABLE else self.verdict is Verdict.HOLDS

    def record(self) -> dict[str, Any]:
        """Return the claim with its verdict, for JSON."""
        return {**asdict(self), "passed": self.passed, "verdict": str(self.verdict)}


def stored_claim(record: Mapping[str, Any]) -> Claim:
    """Return the claim that `Claim.record` made `record` of; raise KeyError or TypeError if it is of another kind.

    The verdict is that of the figures, not the one that stands in the record.
    """
    known = {name: record[name] for name in ("evidence", "detail", "mode", "reason") if record.get(name) is not None}
    return Claim(
        name=str(record.get("name", record["statement"])),
        statement=str(record["statement"]),
        measured=None if record["measured"] is None else float(record["measured"]),
        relation={"<=": "<=", ">=": ">="}[record["relation"]],
        threshold=float(record["threshold"]),
        exact=record["exact"] is True,
        **known,
    )


def verification_claims(verification: Verification, evidence: str) -> list[Claim]:
    """Return the checks of a verification as claims, which must hold."""
    return [
        Claim(check.claim, check.claim, check.measured, "<=", check.threshold, True, evidence)
        for check in verification.checks
    ]


def solver_claim(run: str, mode: str, comparison: Comparison) -> Claim:
    """Return the claim that solver and closed form agree on a network's own targets, which must hold.

    A solve that did not converge, or whose figure is missing, is no agreement; only where none was made the claim does
    not apply.
    """
    error = comparison.solver_error if comparison.solver_converged else math.nan
    return Claim(
        name="the network's targets: logits, solver against closed form",
        statement="the network's targets: logits, solver against closed form",
        measured=None if comparison.solver_converged is None else error,
        relation="<=",
        threshold=_SOLVER_LIMIT,
        exact=True,
        evidence=f"Newton's method, nearest ETF, {comparison.samples} targets of {run}",
        mode=mode,
        reason="no solve was made" if comparison.solver_converged is None else None,
    )


@cache
def verified(law: Law, loss: str) -> tuple[Claim, ...]:
    """Solve a small model of this law here and now, and return the claims; law: with K <= 10 (`small_law`)."""
    K = law.num_classes
    result = verify(law, K - 1, _PENALTY, _PENALTY, loss=loss, methods=_METHODS, nodes=_NODES, device="cpu")
    evidence = f"{_words(law)}, {loss.replace('_', ' ')}, K = {K}, d = {K - 1}"
    return tuple(verification_claims(result, evidence))


def small_law(mixing: str, alpha: float | None, num_classes: int | None) -> Law:
    """Return the law of a run's labels with at most ten classes."""
    K = min(num_classes or _MAX_CLASSES, _MAX_CLASSES)
    if mixing == "none" or alpha is None:
        return Unmixed(K)
    return CutMix(K, alpha) if mixing == "cutmix" else Mixup(K, alpha)


def _words(law: Law) -> str:
    return f"{type(law).__name__.lower()}, α = {law.alpha:g}" if isinstance(law, Mixup | CutMix) else "no mixing"


def families(claims: Iterable[Claim]) -> list[Claim]:
    """Return one claim for each kind of exact check: the worst of its solves."""
    kinds: dict[str, list[Claim]] = {}
    for claim in claims:
        kinds.setdefault(claim.name.rpartition(": ")[2], []).append(claim)
    return [_worst(kind, each) for kind, each in kinds.items()]


def _worst(kind: str, claims: Sequence[Claim]) -> Claim:
    def badness(claim: Claim) -> tuple[int, float]:
        order = (Verdict.NOT_APPLICABLE, Verdict.HOLDS, Verdict.FAILS)
        figure = claim.measured
        ratio = math.inf if figure is None or math.isnan(figure) else figure / claim.threshold
        return order.index(claim.verdict), ratio

    worst = max(claims, key=badness)
    statement, derivation = _FAMILIES.get(kind, (kind, None))
    sources = [f"proof: derivations/{derivation}.py"] if derivation else []
    sources += dict.fromkeys(claim.evidence for claim in claims if claim.evidence)
    detail = f"worst of {len(claims)}" if len(claims) > 1 else ""
    return replace(worst, name=kind, statement=statement, evidence="; ".join(sources), detail=detail, mode=None)


def count(claims: Iterable[Claim]) -> dict[Verdict, int]:
    """Return how many claims there are of each verdict."""
    counts = dict.fromkeys(Verdict, 0)
    for claim in claims:
        counts[claim.verdict] += 1
    return counts
