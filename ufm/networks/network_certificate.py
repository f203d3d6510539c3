"""How far a network is, provably, from the UFM's global optimum and from the optimal features for its classifier."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ufm._support.arrays import check_number
from ufm.labels.targets import Targets
from ufm.losses import Loss, get_loss
from ufm.losses.curvature import SoftmaxCurvature
from ufm.networks.activations import Activations, check_some
from ufm.networks.predictions import Head
from ufm.solvers.certificate import certify
from ufm.solvers.problem import UFM
from ufm.theory.features import fixed_classifier

# Entries of the batch of Hessians that is held at a time.
_BLOCK = 2**22
_NEWTON_STEPS = 40


@dataclass(frozen=True)
class NetworkCertificate:
    """What is proved about a network as a point (W, H, b) of a UFM; see `certify_network`.

    Distances are of features, squared, averaged over the samples. h* are the optimal features for the network's own
    classifier and bias at `feature_decay`.

    Attributes
    ----------
    weight_decay, feature_decay : float
        lambda_W and lambda_H, in the expectation convention.
    objective : float
        F at the network.
    lower_bound : float
        A value that F cannot fall below, for any classifier, features and bias.
    gap : float
        objective - lower_bound: the network is within this of the global minimum.
    least_loss : float
        Mean over the samples of the least value that the loss can have, a lower bound on F that needs no proof: for
        cross entropy the mean entropy of the labels, which for mixed labels is most of F.
    inner_gap : float
        F at the network less a lower bound on F over all features, with the network's classifier and bias.
    feature_square : float
        E||h||^2, to compare distances with.
    distance : float
        E||h - h*||^2.
    distance_error : float
        A bound on max ||h* computed - h* exact||.
    global_bound : float
        2 gap / lambda_H, a bound on `distance` for which no h* has to be found.
    inner_bound : float
        2 inner_gap / lambda_H: how much the objective alone tells of the distance.
    bound : float
        The same with the curvature that cross entropy has at h*, sample by sample. Both are above `distance`, which is
        known to `distance_error` since h* is computed.
    """

    weight_decay: float
    feature_decay: float
    objective: float
    lower_bound: float
    gap: float
    least_loss: float
    inner_gap: float
    feature_square: float
    distance: float
    distance_error: float
    global_bound: float
    inner_bound: float
    bound: float

    @property
    def relative_gap(self) -> float:
        """gap over the absolute lower bound: the network is within this share of the global minimum."""
        return self.gap / abs(self.lower_bound) if self.lower_bound else math.inf

    @property
    def open_share(self) -> float:
        """gap over objective - least_loss: what the proof leaves open of all that is not known beforehand."""
        return self.gap / (self.objective - self.least_loss)


def certify_network(
    activations: Activations,
    weight_decay: float,
    feature_decay: float | None = None,
    *,
    loss: str = "cross_entropy",
) -> NetworkCertificate:
    r"""Return how far a network is, provably, from the global optimum and from the optimal features for its classifier.

    Parameters
    ----------
    activations : Activations
        From `record` or `load`.
    weight_decay : float
        lambda_W > 0 of the classifier in the expectation convention. A bias has the same penalty.
    feature_decay : float, optional
        lambda_H > 0. By default from balancedness, lambda_W ||W||_F^2 = lambda_H E||h||^2 (W centred for a loss that
        does not see what its rows have in common).
    loss : str
        What the network was trained with: "cross_entropy", "mean_squared_error" or the name of a registered loss.

    Returns
    -------
    NetworkCertificate
        Gaps, and bounds on the features' distance beside the true one.

    Raises
    ------
    ValueError
        For a number that is not positive, an unknown loss, no samples, or features or classifiers that vanish.

    Notes
    -----
    A recorded network is a point of the UFM whose targets are the recorded samples, each with the same weight. What is
    said is about these samples: another draw of them gives another number. It holds for every lambda_H > 0, for
    features after a ReLU or a normalisation too, with h* and global optimum those of the problem without constraints.

    For fixed W and b each sample's objective f is strongly convex with modulus lambda_H, so that
    :math:`t = \|h - h^*\|` is at most :math:`\sqrt{2 (f(h) - f(h^*)) / \lambda_H}`. Log-sum-exp adds to that. It is
    self-concordant in the generalised sense, so that with mu the least curvature of log-sum-exp(W h) at h* in the row
    space of W, and D the largest distance between two rows,

    .. math:: \frac{\lambda_H}{2} t^2 + \mu \, \frac{e^{-D t} + D t - 1}{D^2} \le f(h) - f(h^*),

    which bounds t for every gap. What h has outside the row space is known exactly, as h* has nothing there.

    References
    ----------
    derivations/network_certificate.py and duality_gap.py; Sun and Tran-Dinh, Mathematical Programming 178 (2019), for
    generalised self-concordance.

    Examples
    --------
    A "network" at the global optimum:

    >>> import torch, ufm
    >>> a, b, lam = torch.arange(300) % 3, torch.arange(300) // 3 % 3, torch.arange(300) % 7 / 6
    >>> y = ufm.PairTargets(3, a, b, lam.double()).labels
    >>> solution = ufm.solve(ufm.UFM(ufm.Targets(y), 3, 0.01, 0.01))
    >>> features, logits = solution.features, solution.features @ solution.classifier.T
    >>> found = ufm.certify_network(ufm.Activations(features, logits, a, b, lam, solution.classifier), 0.01)
    >>> found.relative_gap < 1e-6, found.distance < 1e-6
    (True, True)
    """
    weight_decay = check_number("weight_decay", weight_decay, above=0)
    check_some(activations)
    loss_function = get_loss(loss)
    head = Head.of(activations.classifier, activations.bias)
    w, b, h, y = head.rows, head.bias, activations.features.double(), activations.labels
    if not loss_function.shift_invariant:
        # Only where the loss does not see what all rows have in common is the centred classifier the better point.
        w = activations.classifier.double()
        b = None if activations.bias is None else activations.bias.double()
    feature_square = h.square().sum(1).mean().item()
    if feature_decay is None:
        if feature_square == 0:
            raise ValueError("features: got zeros alone, expected features that differ from zero")
        feature_decay = weight_decay * w.square().sum().item() / feature_square
    feature_decay = check_number("feature_decay", feature_decay, above=0)
    problem = UFM(
        Targets(y), h.shape[1], weight_decay, feature_decay, loss=loss, bias_decay=None if b is None else weight_decay
    )
    certificate = certify(problem, w, h, b)
    inner = _Inner.of(loss_function, w, b, h, y, feature_decay)
    return NetworkCertificate(
        weight_decay=weight_decay,
        feature_decay=feature_decay,
        objective=certificate.objective,
        lower_bound=certificate.lower_bound,
        gap=certificate.gap,
        least_loss=loss_function.dual(torch.zeros_like(y), y).mean().item(),
        inner_gap=inner.gap.mean().item(),
        feature_square=feature_square,
        distance=inner.distance.mean().item(),
        distance_error=inner.error,
        global_bound=2 * certificate.gap / feature_decay,
        inner_bound=2 * inner.gap.mean().item() / feature_decay,
        bound=inner.squared_distances().mean().item(),
    )


@dataclass(frozen=True, eq=False)
class _Inner:
    """Each sample's problem in its feature, for the network's classifier and bias.

    prediction: at h*. gap: f(h) less a lower bound on f. distance: ||h - h*||^2. error: a bound on that of each h*.
    """

    loss: Loss
    classifier: Float[Tensor, "K d"]
    features: Float[Tensor, "N d"]
    prediction: Float[Tensor, "N K"]
    decay: float
    gap: Float[Tensor, "N"]
    distance: Float[Tensor, "N"]
    error: float

    @staticmethod
    def of(loss: Loss, w: Tensor, b: Tensor | None, h: Tensor, y: Tensor, decay: float) -> "_Inner":
        # The loss adds a bias of its own, which that of the network replaces.
        offset = torch.zeros_like(w[:, 0]) if b is None else b - loss.own_bias(len(w))
        response = fixed_classifier(w, y, decay, loss.name, bias=b)
        best, logits = torch.as_tensor(response.features), h @ w.T + offset
        residual = torch.as_tensor(response.probabilities) - y
        # Fenchel: loss(z) >= z.r + D(r) for every residual r, and what is then left is minimised in closed form.
        bound = loss.dual(residual, y) + residual @ offset - (residual @ w).square().sum(1) / (2 * decay)
        value = loss.value(logits, y) + decay / 2 * h.square().sum(1)
        return _Inner(
            loss=loss,
            classifier=w,
            features=h,
            prediction=torch.as_tensor(response.probabilities),
            decay=decay,
            gap=(value - bound).clamp(min=0),
            distance=(h - best).square().sum(1),
            error=torch.as_tensor(response.error_bound).max().item(),
        )

    def squared_distances(self) -> Float[Tensor, "N"]:
        """Return a bound on ||h - h*||^2 for each sample."""
        _, s, vh = torch.linalg.svd(self.classifier, full_matrices=False)
        basis = vh[s > 1e-12 * s[0]].T
        rows = self.classifier @ basis
        # What h has outside the row space is known, as h* has nothing there, and has its part in the gap.
        outside = (self.features - self.features @ basis @ basis.T).square().sum(1)
        gap = (self.gap - self.decay / 2 * outside).clamp(min=0)
        size = max(1, _BLOCK // (len(rows) * rows.shape[1]))
        # Another loss has a law of its own by which its curvature changes; none is used.
        known = isinstance(self.loss.curvature(self.prediction[:1]), SoftmaxCurvature)
        curvature = [_least_curvature(rows, p) if known else p.new_zeros(len(p)) for p in self.prediction.split(size)]
        # That of h* as computed; on the way to the exact one it falls at most by this.
        longest = torch.linalg.vector_norm(rows, dim=1).amax().item()
        least = torch.cat(curvature) * math.exp(-2 * self.error * longest)
        return outside + distance_of_gap(gap, self.decay, least, torch.cdist(rows, rows).amax().item()).square()


def _least_curvature(rows: Float[Tensor, "K r"], probabilities: Float[Tensor, "N K"]) -> Float[Tensor, "N"]:
    """Return the least eigenvalue of the Hessian of log-sum-exp(W h) in the coordinates of the row space."""
    mean = probabilities @ rows
    hessian = torch.einsum("nk,kr,ks->nrs", probabilities, rows, rows) - mean[:, :, None] * mean[:, None, :]
    return torch.linalg.eigvalsh(hessian)[:, 0].clamp(min=0)


def distance_of_gap(
    gap: Float[Tensor, "N"], decay: float, curvature: Float[Tensor, "N"], width: float
) -> Float[Tensor, "N"]:
    r"""Return the t >= 0 at which lambda_H t^2 / 2 + mu (exp(-D t) + D t - 1) / D^2 is the gap, from above.

    Parameters
    ----------
    gap : (N,) tensor
        f(h) - f(h*), or more.
    decay : float
        lambda_H.
    curvature : (N,) tensor
        mu, the least curvature of the loss at h*; zero where it is not known.
    width : float
        D, the largest distance between two rows of the classifier.
    """
    # To the right of the root; the function is convex and increasing, so that Newton's method comes down to it.
    t = (2 * gap / decay).sqrt()
    for _ in range(_NEWTON_STEPS):
        x = width * t
        slope = -torch.expm1(-x)
        # x - slope cancels near zero, where its series does not.
        bend = torch.where(x > 1e-3, x - slope, x.square() / 2 - x**3 / 6 + x**4 / 24)
        value = decay / 2 * t.square() + curvature * bend / width**2 - gap
        step = value / (decay * t + curvature * slope / width)
        t = torch.where(t > 0, t - step.clamp(min=0), t)
    return t
