"""The UFM objective for given targets, loss, penalties, dimension, constraints and, where it is fixed, classifier."""

import dataclasses
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ufm._support.arrays import Array, check_integer, check_number, to_tensor
from ufm.labels.targets import PairTargets, Targets
from ufm.losses import Loss, get_loss


@dataclass(frozen=True, eq=False)
class UFM:
    """An unconstrained features model: minimise F over the features, and over the classifier unless it is fixed.

        F(W, H, b) = sum_j pi_j [ loss(W h_j + b, y_j) + (lambda_H/2) ||h_j||^2 ]
                     + (lambda_W/2) ||W||_F^2 + (lambda_b/2) ||b||^2

    targets: the labels y and their weights pi, written out or as pairs. dim: feature dimension d >= 1. weight_decay,
    feature_decay: lambda_W, lambda_H > 0 in this expectation convention (a feature penalty of the 1/N convention is
    multiplied by N); zero is allowed where the norm that it penalises is fixed. loss: "cross_entropy" or
    "mean_squared_error". classifier (K, d): where given, W is fixed to it. bias_decay: lambda_b >= 0; where None there
    is no bias (the mean squared error then has its own of 1/K). nonnegative: features h >= 0, as after a ReLU.
    feature_norm: ||h_j|| is fixed to it. row_norm: the norm of every row of W is fixed to it.
    Raises ValueError for a number out of range, an unknown loss, a classifier of another shape, or constraints that
    exclude each other.
    """

    targets: Targets | PairTargets
    dim: int
    weight_decay: float
    feature_decay: float
    loss: str = "cross_entropy"
    classifier: Float[Array, "K d"] | None = None
    bias_decay: float | None = None
    nonnegative: bool = False
    feature_norm: float | None = None
    row_norm: float | None = None

    def __post_init__(self) -> None:
        """Check every field."""
        if not isinstance(self.targets, Targets | PairTargets):
            got = type(self.targets).__name__
            raise ValueError(f"targets: got {got}, expected Targets, e.g. Mixup(10).targets()")
        check_integer("dim", self.dim, minimum=1)
        for name, needed in (
            ("weight_decay", self.classifier is None and self.row_norm is None),
            ("feature_decay", self.feature_norm is None),
        ):
            check_number(name, getattr(self, name), **({"above": 0} if needed else {"minimum": 0}))
        if self.bias_decay is not None:
            check_number("bias_decay", self.bias_decay, minimum=0)
        if not isinstance(self.nonnegative, bool):
            raise ValueError(f"nonnegative: got {self.nonnegative!r}, expected True or False")
        for name in ("feature_norm", "row_norm"):
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name), above=0)
        if self.nonnegative and self.feature_norm is not None:
            raise ValueError("nonnegative: got True with a feature_norm, expected one of the two constraints")
        if self.row_norm is not None and self.classifier is not None:
            raise ValueError("row_norm: got a number with a fixed classifier, expected one of the two")
        get_loss(self.loss)
        if self.classifier is not None:
            w = to_tensor("classifier", self.classifier, ndim=2)
            if w.shape != (self.targets.num_classes, self.dim):
                expected = (self.targets.num_classes, self.dim)
                raise ValueError(f"classifier: got shape {tuple(w.shape)}, expected (K, dim) = {expected}")
            object.__setattr__(self, "classifier", w)

    @property
    def loss_function(self) -> Loss:
        """The loss as an object."""
        return get_loss(self.loss)

    @property
    def has_bias(self) -> bool:
        """Whether a bias is among the unknowns."""
        return self.bias_decay is not None

    @property
    def free_features(self) -> bool:
        """Whether the features are under no constraint."""
        return not self.nonnegative and self.feature_norm is None

    @property
    def offset(self) -> float:
        """What is added to W h + b before the loss: a bias of the user's replaces the mean squared error's own."""
        return -1 / self.targets.num_classes if self.has_bias and self.loss == "mean_squared_error" else 0.0

    def to(self, device: torch.device | str, dtype: torch.dtype) -> "UFM":
        """Return the same problem with its arrays on `device` in `dtype`."""
        w = None if self.classifier is None else to_tensor("classifier", self.classifier).to(device, dtype)
        return dataclasses.replace(self, targets=self.targets.to(device, dtype), classifier=w)

    def evaluate(
        self, W: Float[Tensor, "K d"], scaled: Float[Tensor, "N d"], bias: Float[Tensor, "K"] | None = None
    ) -> "Evaluation":
        """Return objective and gradients at classifier W, features given as rows sqrt(pi_j) h_j, and bias."""
        root = self.targets.weights.sqrt().unsqueeze(-1)
        logits = (scaled @ W.T) / root
        if bias is not None:
            logits = logits + (bias + self.offset)
        labels = self.targets.labels
        loss = self.loss_function
        scaled_residual = root * loss.residual(logits, labels)
        objective = (
            self.targets.weights @ loss.value(logits, labels)
            + self.feature_decay / 2 * scaled.square().sum()
            + self.weight_decay / 2 * W.square().sum()
        )
        bias_gradient = None
        if bias is not None and self.bias_decay is not None:
            objective = objective + self.bias_decay / 2 * bias.square().sum()
            bias_gradient = scaled_residual.T @ root.squeeze(-1) + self.bias_decay * bias
        return Evaluation(
            objective=objective,
            classifier_gradient=scaled_residual.T @ scaled + self.weight_decay * W,
            feature_gradient=scaled_residual @ W + self.feature_decay * scaled,
            bias_gradient=bias_gradient,
            scaled_residual=scaled_residual,
            classifier=W,
            scaled_features=scaled,
            bias=bias,
        )


@dataclass(frozen=True)
class Evaluation:
    """Objective and gradients at one point, in the features scaled by sqrt(pi), before any constraint.

    objective: F. classifier_gradient (K, d): dF/dW. feature_gradient (N, d): dF/d(sqrt(pi_j) h_j). bias_gradient (K,):
    dF/db. scaled_residual (N, K): rows sqrt(pi_j) (prediction_j - y_j). classifier, scaled_features, bias: the point.
    """

    objective: Float[Tensor, ""]
    classifier_gradient: Float[Tensor, "K d"]
    feature_gradient: Float[Tensor, "N d"]
    bias_gradient: Float[Tensor, "K"] | None
    scaled_residual: Float[Tensor, "N K"]
    classifier: Float[Tensor, "K d"]
    scaled_features: Float[Tensor, "N d"]
    bias: Float[Tensor, "K"] | None
