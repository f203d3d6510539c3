"""A law that the user writes down: labels and their weights."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from ufm._support.arrays import Array, to_tensor
from ufm.labels.targets import Orbits, Targets


@dataclass(frozen=True, eq=False)
class CustomLaw:
    """A law of your own: given labels with given weights.

    Attributes
    ----------
    labels : (N, K) array
        Rows on the simplex.
    weights : (N,) array or None
        Probabilities of the rows, as in `Targets`; equal by default.

    Raises
    ------
    ValueError
        For labels off the simplex, or weights that are not positive or do not sum to one.

    Examples
    --------
    >>> import numpy as np
    >>> import ufm
    >>> law = ufm.CustomLaw(np.array([[0.75, 0.25], [0.25, 0.75]]))
    >>> law.orbits().levels.tolist()
    [[0.25, 0.75]]
    """

    labels: Float[Array, "N K"]
    weights: Float[Array, "N"] | None = None

    def __post_init__(self) -> None:
        """Check both arrays."""
        self.targets()

    @property
    def num_classes(self) -> int:
        """The number of classes K."""
        return to_tensor("labels", self.labels, ndim=2).shape[1]

    def targets(self, nodes: int = 1) -> Targets:
        """Return the given labels; `nodes` has no effect."""
        return Targets(self.labels, self.weights)

    def orbits(self, nodes: int | None = 1, *, level: int = 0) -> Orbits:
        """Return one orbit per set of labels that are permutations of each other.

        Raises ValueError if some permutation of the classes changes the law by more than rounding.
        """
        targets = self.targets()
        labels, weights = targets.labels.double().cpu().numpy(), targets.weights.double().cpu().numpy()
        K = labels.shape[1]
        # Exchanges of two neighbouring classes generate every permutation.
        whole = _merge(labels, weights)
        for k in range(K - 1):
            order = np.arange(K)
            order[[k, k + 1]] = k + 1, k
            if not _same(whole, _merge(labels[:, order], weights)):
                raise ValueError(
                    f"labels: got a law that exchanging classes {k} and {k + 1} changes, expected a symmetric one for "
                    "a closed form: solve UFM(law.targets(), ...) instead"
                )
        levels, pi = (torch.from_numpy(array) for array in _merge(np.sort(labels, 1), weights))
        return Orbits(K, levels, torch.ones_like(levels), pi)


def _merge(labels: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct labels in a fixed order, and the sums of their weights."""
    # Labels that agree after rounding count as equal; the labels themselves are not rounded.
    _, first, inverse = np.unique(labels.round(12), axis=0, return_index=True, return_inverse=True)
    return labels[first], np.bincount(inverse.reshape(-1), weights)


def _same(one: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray]) -> bool:
    return one[0].shape == other[0].shape and all(
        np.allclose(a, b, rtol=0, atol=1e-11) for a, b in zip(one, other, strict=True)
    )
