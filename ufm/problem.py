"""The UFM objective for given targets, loss, penalties, dimension and, where it is fixed, classifier."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ufm.arrays import Array, check_integer, check_number, to_tensor
from ufm.losses import Loss, get_loss
from ufm.targets import Targets


@dataclass(frozen=True, eq=False)
class UFM:
    """An unconstrained features model: minimise F over the features, and over the classifier unless it is fixed.

        F(W, H) = sum_j pi_j [ loss(W h_j, y_j) + (lambda_H/2) ||h_j||^2 ] + (lambda_W/2) ||W||_F^2

    targets: the labels y and their weights pi. dim: feature dimension d >= 1. weight_decay, feature_decay: lambda_W,
    lambda_H > 0 in this expectation convention (a feature penalty of the 1/N convention is multiplied by N).
    loss: "cross_entropy" or "mean_squared_error" (with bias 1/K). classifier (K, d): where given, W is fixed to it,
    its penalty is a constant, and lambda_W may be zero.
    Raises ValueError for a penalty that is not positive, d < 1, an unknown loss, or a classifier of another shape.
    """

    targets: Targets
    dim: int
    weight_decay: float
    feature_decay: float
    loss: str = "cross_entropy"
    classifier: Float[Array, "K d"] | None = None

    def __post_init__(self) -> None:
        """Check every field."""
        if not isinstance(self.targets, Targets):
            got = type(self.targets).__name__
            raise ValueError(f"targets: got {got}, expected Targets, e.g. Mixup(10).targets()")
        check_integer("dim", self.dim, minimum=1)
        if self.classifier is None:
            check_number("weight_decay", self.weight_decay, above=0)
        else:
            check_number("weight_decay", self.weight_decay, minimum=0)
        check_number("feature_decay", self.feature_decay, above=0)
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

    def to(self, device: torch.device | str, dtype: torch.dtype) -> "UFM":
        """Return the same problem with its arrays on `device` in `dtype`."""
        w = None if self.classifier is None else to_tensor("classifier", self.classifier).to(device, dtype)
        targets = self.targets.to(device, dtype)
        return UFM(targets, self.dim, self.weight_decay, self.feature_decay, self.loss, w)

    def evaluate(self, W: Float[Tensor, "K d"], scaled: Float[Tensor, "N d"]) -> "Evaluation":
        """Return objective and gradients at classifier W and features given as rows sqrt(pi_j) h_j."""
        root = self.targets.weights.sqrt().unsqueeze(-1)
        features = scaled / root
        logits = features @ W.T
        labels = self.targets.labels
        loss = self.loss_function
        scaled_residual = root * loss.residual(logits, labels)
        objective = (
            self.targets.weights @ loss.value(logits, labels)
            + self.feature_decay / 2 * scaled.square().sum()
            + self.weight_decay / 2 * W.square().sum()
        )
        return Evaluation(
            objective=objective,
            classifier_gradient=scaled_residual.T @ scaled + self.weight_decay * W,
            feature_gradient=scaled_residual @ W + self.feature_decay * scaled,
            scaled_residual=scaled_residual,
            classifier=W,
            scaled_features=scaled,
        )


@dataclass(frozen=True)
class Evaluation:
    """Objective and gradients at one point, in the features scaled by sqrt(pi).

    objective: F. classifier_gradient (K, d): dF/dW. feature_gradient (N, d): dF/d(sqrt(pi_j) h_j).
    scaled_residual (N, K): rows sqrt(pi_j) (prediction_j - y_j). classifier, scaled_features: the point.
    """

    objective: Float[Tensor, ""]
    classifier_gradient: Float[Tensor, "K d"]
    feature_gradient: Float[Tensor, "N d"]
    scaled_residual: Float[Tensor, "N K"]
    classifier: Float[Tensor, "K d"]
    scaled_features: Float[Tensor, "N d"]
