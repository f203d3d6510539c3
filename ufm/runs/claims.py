"""Claims: what one is, which kinds there are, and how many of them hold."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any


class ClaimKind(StrEnum):
    """What a claim is about; claims of one kind are compared over runs, solves and modes."""

    GRADIENT_NORM = "gradient norm"
    CERTIFIED_GAP = "certified gap / objective"
    LOGITS = "logits against closed form"
    OBJECTIVE = "objective against closed form"
    GRAM = "W W^T against the ETF"
    NETWORK_SOLVER = "logits, solver against closed form"

    CLASSIFIER_ETF = "classifier: simplex ETF"
    NC1 = "same class: NC1"
    NC2 = "same class: NC2"
    NC3 = "same class: NC3"
    SAME_CLASS_ANGLE = "same class: angle to the classifier's row"
    CLOSED_FORM_R2 = "different class: R² of the closed form"
    AHEAD_PER_SAMPLE = "the expected one is ahead, per sample"
    AHEAD_BINNED = "the expected one is ahead, per pair and λ bin"
    DIFFERENT_CLASS_ANGLE = "different class: angle to the closed form"
    WIDTH = "channel: width"
    DEPTH = "channel: depth"
    CONFIDENCE = "confidence against λ"
    FIT_FREE_BETA = "β fit-free against fitted"
    INTERPOLATION = "earlier layers: interpolation"
    NO_CHANNEL = "earlier layers: no channel"
    CALIBRATION = "calibration as trained"
    CALIBRATION_SCALED = "calibration after temperature scaling"
    PREDICTED_CONFIDENCE = "calibration: predicted confidence"

    OTHER = "other"


# What the exact claims say for all solves together, and where that is derived.
_EXACT = {
    ClaimKind.GRADIENT_NORM: ("Every direct solve ends in a stationary point: gradient norm", "fixed_etf"),
    ClaimKind.CERTIFIED_GAP: (
        "Every direct solve is proved globally optimal: certified gap / objective",
        "duality_gap",
    ),
    ClaimKind.LOGITS: (
        "Direct solves from random starts reach the closed form: largest difference of logits, relative",
        "fixed_etf",
    ),
    ClaimKind.OBJECTIVE: (
        "The closed form's objective is the minimum over classifier and features: relative difference",
        "optimal_value",
    ),
    ClaimKind.GRAM: ("The optimal classifier is a simplex ETF: largest difference of W Wᵀ, relative", "etf_is_optimal"),
    ClaimKind.NETWORK_SOLVER: (
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
    """A claim, the figure measured for it, and the threshold that the figure is held to.

    Attributes
    ----------
    name : str
        The claim in a few words.
    statement : str
        The claim in a sentence.
    measured : float or None
        The figure; None if nothing was measured.
    relation : str
        "<=" or ">=", between `measured` and `threshold`.
    threshold : float
        What the figure is held to.
    exact : bool
        Whether the claim must hold, as closed form against solver must; what is claimed of a network need not.
    evidence : str
        What the figure rests on.
    detail : str
        Further figures.
    mode : str or None
        The network's mode, "eval" or "train"; None where there is no network.
    reason : str or None
        Why the claim does not apply; None if it does.
    kind : ClaimKind
        What the claim is about.
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
    kind: ClaimKind = ClaimKind.OTHER

    @property
    def verdict(self) -> Verdict:
        """The verdict. A figure that is NaN, or missing without a reason, does not hold."""
        if self.reason is not None:
            return Verdict.NOT_APPLICABLE
        if self.measured is None:
            return Verdict.FAILS
        # Every comparison with NaN is false.
        kept = self.measured <= self.threshold if self.relation == "<=" else self.measured >= self.threshold
        return Verdict.HOLDS if kept else Verdict.FAILS

    @property
    def passed(self) -> bool | None:
        """Whether the claim holds; None where it does not apply."""
        return None if self.verdict is Verdict.NOT_APPLICABLE else self.verdict is Verdict.HOLDS

    def record(self) -> dict[str, Any]:
        """Return the claim with its verdict, for JSON."""
        return {**asdict(self), "passed": self.passed, "verdict": str(self.verdict)}


def families(claims: Iterable[Claim]) -> list[Claim]:
    """Return one claim for each kind of exact claim: the worst of its solves."""
    kinds: dict[ClaimKind, list[Claim]] = {}
    for claim in claims:
        kinds.setdefault(claim.kind, []).append(claim)
    return [_worst(kind, each) for kind, each in kinds.items()]


def _worst(kind: ClaimKind, claims: Sequence[Claim]) -> Claim:
    def badness(claim: Claim) -> tuple[int, float]:
        order = (Verdict.NOT_APPLICABLE, Verdict.HOLDS, Verdict.FAILS)
        figure = claim.measured
        ratio = math.inf if figure is None or math.isnan(figure) else figure / claim.threshold
        return order.index(claim.verdict), ratio

    worst = max(claims, key=badness)
    statement, derivation = _EXACT.get(kind, (worst.statement, None))
    sources = [f"proof: derivations/{derivation}.py"] if derivation else []
    sources += dict.fromkeys(claim.evidence for claim in claims if claim.evidence)
    detail = f"worst of {len(claims)}" if len(claims) > 1 else ""
    return replace(worst, name=str(kind), statement=statement, evidence="; ".join(sources), detail=detail, mode=None)


def count(claims: Iterable[Claim]) -> dict[Verdict, int]:
    """Return how many claims have each verdict."""
    counts = dict.fromkeys(Verdict, 0)
    for claim in claims:
        counts[claim.verdict] += 1
    return counts
