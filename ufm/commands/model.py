"""The options that describe an unconstrained features model."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from ufm.labels.laws import LabelSmoothing, Law, Mixup, Unmixed


@dataclass(frozen=True)
class Model:
    """The unconstrained features model that a command is about."""

    num_classes: int = 10
    """K >= 2"""
    alpha: float | None = 1.0
    """mixup's Beta(alpha, alpha), > 0; None for no mixup"""
    ways: int = 2
    """how many labels are mixed, >= 2; averages over continuous coefficients, for up to 5, take seconds, and the table
    says how exact they are"""
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
        from ufm.labels.laws import LabelSmoothing, Mixup, Unmixed

        K = self.num_classes
        law = Unmixed(K, priors) if self.alpha is None else Mixup(K, self.alpha, self.ways, priors=priors)
        return LabelSmoothing(law, self.smoothing) if self.smoothing else law


@dataclass(frozen=True, kw_only=True)
class Labels:
    """The options that describe the labels of recorded activations."""

    alpha: float | Literal["auto"] | None = "auto"
    """of the mixup that the networks were trained with, > 0; None for no mixup; auto for the law of the recorded
    labels"""
    ways: int = 2
    """how many labels are mixed, >= 2; with alpha"""
    smoothing: float = 0.0
    """label smoothing on top, in [0, 1); with alpha"""

    def law_of(self, num_classes: int) -> "Law | None":
        """Return the law that the options give, or None for that of the recorded labels."""
        if self.alpha == "auto":
            if self.ways != 2 or self.smoothing:
                name, value = ("ways", self.ways) if self.ways != 2 else ("smoothing", self.smoothing)
                raise ValueError(
                    f"{name}: got {value} without alpha, expected both, or none for the recorded labels' own"
                )
            return None
        return Model(num_classes=num_classes, alpha=self.alpha, ways=self.ways, smoothing=self.smoothing).law()
