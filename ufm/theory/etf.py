"""The simplex equiangular tight frame (ETF): build one, find the nearest one, draw three of its rows in a plane."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ufm._support.arrays import Array, check_integer, check_number, in_kind, to_tensor


def simplex_etf(
    num_classes: int,
    dim: int | None = None,
    multiplier: float = 1.0,
    *,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> Float[Tensor, "K d"]:
    """Return a simplex ETF W (K, d): rows of norm `multiplier` whose pairwise cosines are all -1/(K-1).

        W W^T = m^2 K/(K-1) (I - 11^T/K)

    num_classes: K >= 2. dim: d >= K-1, by default K. multiplier: m > 0, the norm of each row.
    generator: where given, the frame is turned by a uniformly random rotation drawn from it; otherwise the frame
        is a fixed one in the first K-1 coordinates.
    Raises ValueError for K < 2, d < K-1 or m <= 0.

    Source: Papyan, Han and Donoho, "Prevalence of neural collapse", PNAS 2020, eq. (2).
    """
    K = check_integer("num_classes", num_classes, minimum=2)
    d = K if dim is None else check_integer("dim", dim, minimum=K - 1)
    m = check_number("multiplier", multiplier, above=0)
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
    """The simplex ETF closest to a matrix in the Frobenius norm.

    classifier (K, d): that ETF. multiplier: its row norm m. relative_error: ||W - classifier||_F / ||W||_F, in
    [0, 1]; a common offset of the rows of W, which softmax does not see, counts as error.
    """

    classifier: Float[Array, "K d"]
    multiplier: float
    relative_error: float


def nearest_etf(W: Float[Array, "K d"]) -> NearestETF:
    """Return the simplex ETF nearest to W (K, d) in the Frobenius norm, d >= K-1.

    With B the (K, K-1) centred orthonormal basis and B^T W = U S V^T, it is (trace(S)/(K-1)) B U V^T: the
    orthogonal Procrustes solution with the best multiplier.

    Raises ValueError for d < K-1, entries that are not finite, or W = 0.
    """
    w = to_tensor("W", W, ndim=2)
    K, d = w.shape
    if K < 2 or d < K - 1:
        raise ValueError(f"W: got shape {(K, d)}, expected (K, d) with K >= 2 and d >= K-1")
    norm = torch.linalg.matrix_norm(w)
    if not norm > 0:
        raise ValueError("W: got the zero matrix, expected a non-zero one")
    basis = centred_basis(K, dtype=w.dtype, device=w.device)
    u, s, vh = torch.linalg.svd(basis.T @ w, full_matrices=False)
    scale = s.mean()
    etf = scale * basis @ (u @ vh)
    error = torch.linalg.matrix_norm(w - etf) / norm
    return in_kind(NearestETF(etf, scale.item() * math.sqrt((K - 1) / K), error.item()), W)


@dataclass(frozen=True)
class Plane:
    """The plane through three classifier rows, with an isometric map from feature space to it.

    matrix (2, d) and centre (d,): a feature h is drawn at matrix @ (h - centre).
    """

    matrix: Float[Array, "2 d"]
    centre: Float[Array, "d"]

    def project(self, features: Float[Array, "N d"]) -> Float[Array, "N 2"]:
        """Return the planar coordinates (N, 2) of features (N, d), in their kind."""
        h = to_tensor("features", features, ndim=2)
        matrix, centre = to_tensor("matrix", self.matrix).to(h), to_tensor("centre", self.centre).to(h)
        return in_kind((h - centre) @ matrix.T, features)


def classifier_plane(rows: Float[Array, "3 d"]) -> Plane:
    """Return the plane of three classifier rows, drawn so that an exact ETF triple is an equilateral triangle.

    With mu the mean of the rows, rows - mu = U S V^T has rank two; Q = U V^T over those two directions and
    A = sqrt(2) [[1/2, -1/2, 0], [0, 0, sqrt(3)/2]] (I - 11^T/3). A feature maps to A Q (h - mu); A A^T = I, so
    distances within the plane are kept, and what is orthogonal to it is dropped.

    Raises ValueError if the rows are not (3, d) or lie on a line (relative to their size).

    Source: the projection of Fisher, Meng and Papyan (ICLR 2024), in our notation.
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
