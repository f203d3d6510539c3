"""The UFM objective for given targets, loss, penalties, dimension, constraints and, where it is fixed, classifier."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ufm._support.arrays import Array, check_integer, check_kind, check_number, check_size, to_tensor
from ufm._support.frozen import converted
from ufm.labels.targets import PairTargets, Targets
from ufm.losses import Loss, get_loss


def _matrix(classifier: Any) -> Tensor | None:
    return None if classifier is None else to_tensor("classifier", classifier, ndim=2)


@dataclass(frozen=True, eq=False)
class UFM:
    r"""An unconstrained features model: minimise F over the features, and over the classifier unless it is fixed.

    Attributes
    ----------
    targets : Targets or PairTargets
        The labels y_j and their weights pi_j, written out or as pairs.
    dim : int
        Feature dimension d >= 1.
    weight_decay, feature_decay : float
        lambda_W, lambda_H > 0 in the expectation convention (a feature penalty of the 1/N convention is multiplied by
        N). Zero is allowed where the norm that it penalises is fixed.
    loss : str
        "cross_entropy", "mean_squared_error" or the name of a registered loss.
    classifier : (K, d) array, optional
        Where given, W is fixed to it. Kept as a tensor.
    bias_decay : float, optional
        lambda_b >= 0. Where None there is no bias; the mean squared error then has its own of 1/K.
    nonnegative : bool
        Whether features are constrained to h >= 0, as after a ReLU.
    feature_norm : float, optional
        Where given, every ||h_j|| is fixed to it.
    row_norm : float, optional
        Where given, the norm of every row of W is fixed to it.

    Raises
    ------
    ValueError
        For a number out of range, an unknown loss, a classifier of another shape, or constraints that exclude each
        other.

    Notes
    -----
    .. math::

        F(W, H, b) = \sum_j \pi_j \Bigl[\ell(W h_j + b, y_j) + \tfrac{\lambda_H}{2} \|h_j\|^2\Bigr]
        + \tfrac{\lambda_W}{2} \|W\|_F^2 + \tfrac{\lambda_b}{2} \|b\|^2

    Examples
    --------
    >>> import ufm
    >>> problem = ufm.UFM(ufm.Mixup(3).targets(nodes=4), dim=3, weight_decay=0.01, feature_decay=0.01)
    >>> round(ufm.solve(problem).objective, 6)
    0.394996
    """

    targets: Targets | PairTargets
    dim: int
    weight_decay: float
    feature_decay: float
    loss: str = "cross_entropy"
    classifier: Float[Array, "K d"] | None = converted(_matrix, default=None)  # noqa: RUF009
    bias_decay: float | None = None
    nonnegative: bool = False
    feature_norm: float | None = None
    row_norm: float | None = None

    def __post_init__(self) -> None:
        """Check every field."""
        if not isinstance(self.targets, Targets | PairTargets):
            got = type(self.targets).__name__
            raise ValueError(f"targets: got {got}, expected Targets, e.g. Mixup(10).targets()")
        check_size("dim", self.targets.num_classes * check_integer("dim", self.dim, minimum=1))
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
        expected = (self.targets.num_classes, self.dim)
        if self.classifier is not None and self.classifier.shape != expected:
            raise ValueError(f"classifier: got shape {tuple(self.classifier.shape)}, expected (K, dim) = {expected}")

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
        """What is added to W h + b before the loss: a bias among the unknowns replaces the loss's own."""
        return 0.0 - self.loss_function.own_bias(self.targets.num_classes) if self.has_bias else 0.0

    def to(self, device: torch.device | str, dtype: torch.dtype) -> "UFM":
        """Return the same problem with its arrays on `device` in `dtype`."""
        w = None if self.classifier is None else torch.as_tensor(self.classifier).to(device, dtype)
        return dataclasses.replace(self, targets=self.targets.to(device, dtype), classifier=w)

    def evaluate(
        self, W: Float[Tensor, "K d"], scaled: Float[Tensor, "N d"], bias: Float[Tensor, "K"] | None = None
    ) -> "Evaluation":
        """Return objective and gradients at a point.

        Parameters
        ----------
        W : (K, d) tensor
            The classifier.
        scaled : (N, d) tensor
            The features, as rows sqrt(pi_j) h_j.
        bias : (K,) tensor, optional
            The bias, where the problem has one.

        Returns
        -------
        Evaluation
            Objective, gradients and residuals.
        """
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


def check_problem(problem: Any) -> UFM:
    """Return `problem`; raise TypeError, naming it, for anything that is no UFM."""
    check_kind("problem", problem, UFM, "a UFM")
    return problem


@dataclass(frozen=True)
class Evaluation:
    """Objective and gradients at one point, in the features scaled by sqrt(pi), before any constraint.

    Attributes
    ----------
    objective : scalar tensor
        F.
    classifier_gradient : (K, d) tensor
        dF/dW.
    feature_gradient : (N, d) tensor
        dF/d(sqrt(pi_j) h_j).
    bias_gradient : (K,) tensor or None
        dF/db; None without bias.
    scaled_residual : (N, K) tensor
        Rows sqrt(pi_j) (prediction_j - y_j).
    classifier, scaled_features, bias : (K, d), (N, d), (K,) tensors
        The point; the bias None where there is none.
    """

    objective: Float[Tensor, ""]
    classifier_gradient: Float[Tensor, "K d"]
    feature_gradient: Float[Tensor, "N d"]
    bias_gradient: Float[Tensor, "K"] | None
    scaled_residual: Float[Tensor, "N K"]
    classifier: Float[Tensor, "K d"]
    scaled_features: Float[Tensor, "N d"]
    bias: Float[Tensor, "K"] | None
