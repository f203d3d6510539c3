"""The simplex equiangular tight frame (ETF): build one, find the nearest one, draw three of its rows in a plane."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ufm._support.arrays import Array, check_integer, check_number, check_size, in_kind, power_of_two, to_tensor


def simplex_etf(
    num_classes: int,
    dim: int | None = None,
    multiplier: float = 1.0,
    *,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> Float[Tensor, "K d"]:
    r"""Return a simplex ETF: a matrix whose rows have equal norms and pairwise cosines of -1/(K-1).

    Parameters
    ----------
    num_classes : int
        Number of classes K >= 2.
    dim : int, optional
        Dimension d >= K-1 of the rows; K by default.
    multiplier : float
        Norm m > 0 of every row.
    generator : torch.Generator, optional
        If given, the frame is turned by a uniformly random rotation drawn from it. Otherwise the frame is a fixed one
        in the first K-1 coordinates.
    dtype : torch.dtype
        Type of the entries.
    device : torch.device or str
        Where the matrix is made.

    Returns
    -------
    (K, d) tensor
        The simplex ETF W.

    Raises
    ------
    ValueError
        If K < 2, d < K-1 or m <= 0.

    Notes
    -----
    .. math:: W W^\top = m^2 \frac{K}{K-1} \left(I - \tfrac1K 1 1^\top\right)

    References
    ----------
    Papyan, Han and Donoho, "Prevalence of neural collapse", PNAS 2020, eq. (2).

    Examples
    --------
    >>> import ufm
    >>> W = ufm.simplex_etf(3, multiplier=2.0)
    >>> print((W @ W.T).numpy().round(6))
    [[ 4. -2. -2.]
     [-2.  4. -2.]
     [-2. -2.  4.]]
    """
    K = check_integer("num_classes", num_classes, minimum=2)
    d = K if dim is None else check_integer("dim", dim, minimum=K - 1)
    m = check_number("multiplier", multiplier, above=0)
    check_size("num_classes, dim", K * max(K, d))
    basis = centred_basis(K, dtype=dtype, device=device)
    if generator is None:
        frame = torch.eye(K - 1, d, dtype=dtype, device=device)
    else:
        gaussian = torch.randn(d, K - 1, generator=generator, dtype=dtype, device=generator.device)
        q, r = torch.linalg.qr(gaussian)
        # The signs make the distribution of the frame uniform; QR alone fixes them by convention.
        frame = (q * r.diagonal().sign()).T.to(device)
    return m * math.sqrt(K / (K - 1)) * basis @ frame


def centred_basis(
    num_classes: int, *, dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu"
) -> Float[Tensor, "K K-1"]:
    """Return the Helmert basis: orthonormal columns that span the vectors of R^K with zero sum."""
    K = num_classes
    j = torch.arange(1, K, dtype=dtype, device=device)
    above = torch.ones(K, K - 1, dtype=dtype, device=device).triu()
    diagonal = torch.zeros(K, K - 1, dtype=dtype, device=device)
    diagonal[1:] = torch.diag(-j)
    return (above + diagonal) / (j * (j + 1)).sqrt()


@dataclass(frozen=True)
class NearestETF:
    """The simplex ETF closest to a matrix W in the Frobenius norm.

    Attributes
    ----------
    classifier : (K, d) array
        The simplex ETF.
    multiplier : float
        Its row norm m.
    relative_error : float
        ``||W - classifier||_F / ||W||_F``, in [0, 1]. A common offset of the rows of W, which softmax does not see,
        counts as error.
    """

    classifier: Float[Array, "K d"]
    multiplier: float
    relative_error: float


def nearest_etf(W: Float[Array, "K d"]) -> NearestETF:
    r"""Return the simplex ETF nearest to a matrix in the Frobenius norm.

    Parameters
    ----------
    W : (K, d) array
        The matrix, d >= K-1; usually a classifier.

    Returns
    -------
    NearestETF
        The simplex ETF, its row norm and its relative distance from W.

    Raises
    ------
    ValueError
        If d < K-1, an entry is not finite, or W = 0.

    Notes
    -----
    Let B be the centred orthonormal basis, of shape (K, K-1), and :math:`B^\top W = U S V^\top`. The nearest ETF is

    .. math:: \frac{\operatorname{tr} S}{K-1}\, B U V^\top ,

    the solution of the orthogonal Procrustes problem with the best multiplier.

    Examples
    --------
    >>> import numpy as np, ufm
    >>> nearest = ufm.nearest_etf(np.eye(3))
    >>> round(nearest.multiplier, 6), round(nearest.relative_error, 6)
    (0.816497, 0.57735)
    >>> centred = np.eye(3) - 1 / 3
    >>> print(f"{ufm.nearest_etf(centred).relative_error:.6f}")
    0.000000
    """
    w = to_tensor("W", W, ndim=2)
    K, d = w.shape
    if K < 2 or d < K - 1:
        raise ValueError(f"W: got shape {(K, d)}, expected (K, d) with K >= 2 and d >= K-1")
    if not bool(w.any()):
        raise ValueError("W: got the zero matrix, expected a non-zero one")
    # By a power of two, so that no square leaves the range of numbers and no digit changes.
    unit = power_of_two(w)
    w = w / unit
    norm = torch.linalg.matrix_norm(w)
    basis = centred_basis(K, dtype=w.dtype, device=w.device)
    u, s, vh = torch.linalg.svd(basis.T @ w, full_matrices=False)
    scale = s.mean()
    etf = scale * basis @ (u @ vh)
    error = torch.linalg.matrix_norm(w - etf) / norm
    return in_kind(NearestETF(unit * etf, unit * scale.item() * math.sqrt((K - 1) / K), error.item()), W)


@dataclass(frozen=True)
class Plane:
    """The plane through three classifier rows, with an isometric map from feature space to it.

    A feature h is drawn at ``matrix @ (h - centre)``.

    Attributes
    ----------
    matrix : (2, d) array
        The map's linear part.
    centre : (d,) array
        The feature that is drawn at the origin: the mean of the three rows.
    """

    matrix: Float[Array, "2 d"]
    centre: Float[Array, "d"]

    def project(self, features: Float[Array, "N d"]) -> Float[Array, "N 2"]:
        """Return the planar coordinates of features.

        Parameters
        ----------
        features : (N, d) array
            The features.

        Returns
        -------
        (N, 2) array
            Their coordinates, as an array of the same kind.

        Raises
        ------
        ValueError
            If `features` is not a matrix of finite numbers.
        """
        h = to_tensor("features", features, ndim=2)
        matrix, centre = to_tensor("matrix", self.matrix).to(h), to_tensor("centre", self.centre).to(h)
        return in_kind((h - centre) @ matrix.T, features)


def classifier_plane(rows: Float[Array, "3 d"]) -> Plane:
    r"""Return the plane of three classifier rows, drawn so that rows of a simplex ETF form an equilateral triangle.

    Parameters
    ----------
    rows : (3, d) array
        The three rows, d >= 2.

    Returns
    -------
    Plane
        The plane; ``plane.project(features)`` draws features in it.

    Raises
    ------
    ValueError
        If the shape is not (3, d), or the rows lie on a line (relative to their size).

    Notes
    -----
    With mu the mean of the rows, the differences rows - mu have rank two and the decomposition :math:`U S V^\top`.
    With :math:`Q = U V^\top` over these two directions, a feature h is mapped to :math:`A Q (h - \mu)`, where

    .. math::

       A = \sqrt2 \begin{pmatrix} 1/2 & -1/2 & 0 \\ 0 & 0 & \sqrt3/2 \end{pmatrix} \left(I - \tfrac13 1 1^\top\right)

    and :math:`A A^\top = I`. So distances within the plane are kept, and what is orthogonal to it is dropped.

    References
    ----------
    The projection of Fisher, Meng and Papyan (ICLR 2024), in our notation.

    Examples
    --------
    >>> import ufm
    >>> W = ufm.simplex_etf(3)
    >>> corners = ufm.classifier_plane(W).project(W).numpy()
    >>> print((corners @ corners.T).round(4))
    [[ 1.  -0.5 -0.5]
     [-0.5  1.  -0.5]
     [-0.5 -0.5  1. ]]
    """
    w = to_tensor("rows", rows, ndim=2)
    if w.shape[0] != 3 or w.shape[1] < 2:
        raise ValueError(f"rows: got shape {tuple(w.shape)}, expected (3, d) with d >= 2")
    centre = w.mean(0)
    u, s, vh = torch.linalg.svd(w - centre, full_matrices=False)
    # A relative cut-off: the third singular value is zero only up to rounding.
    if s[1] <= 1e-6 * s[0] or s[0] == 0:
        raise ValueError("rows: got three points on a line, expected a triangle")
    q = u[:, :2] @ vh[:2]
    corners = torch.tensor([[0.5, -0.5, 0.0], [0.0, 0.0, math.sqrt(3) / 2]], dtype=w.dtype, device=w.device)
    a = math.sqrt(2) * (corners - corners.mean(1, keepdim=True))
    return in_kind(Plane(a @ q, centre), rows)
