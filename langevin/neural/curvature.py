"""The Hessian of a network's loss: products, eigenvalues, trace, norm. Full data throughout."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import linalg

from langevin.checks import one_of, real_number, whole_number
from langevin.errors import ConvergenceWarning, ParameterError
from langevin.neural import probes as random
from langevin.neural.derivatives import EXACT_DIM, TOGETHER, Derivatives
from langevin.neural.diagonal import exact_diagonal

PRODUCTS = ("exact", "finite_difference")
SCALES = ("layer", "relative")
LARGEST_DENSE = 6_000  # a matrix of 288 MB
AT_A_TIME = 8  # probes multiplied at once


@dataclass(frozen=True)
class Measurement:
    """A measured number: ``value`` with its standard error over random vectors, 0 where exact.

    ``probes`` is how many random vectors were used (0: none were needed), ``products`` how many
    products of the Hessian and a vector, each over all data, were taken. ``dof`` degrees of freedom
    stand behind ``stderr``.
    """

    value: float
    stderr: float
    probes: int
    products: int

    @property
    def exact(self) -> bool:
        """Whether nothing random went into it."""
        return self.probes == 0

    @property
    def dof(self) -> int:
        """Degrees of freedom of the standard error."""
        return max(self.probes - 1, 0)

    def __str__(self) -> str:
        return f"{self.value:.6g}" + ("" if self.exact else f" +- {self.stderr:.2g}")


class HessianOperator(linalg.LinearOperator):
    """The Hessian of a NeuralSurface's loss, penalty included, as a scipy LinearOperator.

    ``product`` is "exact", differentiating twice, or "finite_difference" of two gradients, for
    modules that cannot be differentiated twice. Vectors are float64 whatever the network's
    precision. ``products`` counts the products taken so far.

    ``scale`` makes it ``D H D``: D the diagonal of each parameter's own size, "relative", or of its
    tensor's root mean square, "layer". Rescaling the layers of a ReLU network so that its function
    stays the same changes H, but not these (Dinh et al. 2017).
    """

    def __init__(
        self, surface: Any, at: Any = None, *, product: str = "exact", scale=None, dtype=None
    ):
        one_of("product", product, PRODUCTS)
        self.derivatives, self.how = Derivatives(surface, at, dtype), product
        self.scale = None if scale is None else scales(self.derivatives, scale)
        super().__init__(np.dtype(np.float64), (surface.dim, surface.dim))

    @property
    def products(self) -> int:
        """Hessian-vector products so far, each over all data."""
        return self.derivatives.products

    @property
    def rounding(self) -> float:
        """The relative error to expect of one product."""
        eps = float(np.finfo(str(self.derivatives.kind).removeprefix("torch.")).eps)
        return eps if self.how == "exact" else eps ** (2 / 3)

    def _matvec(self, x):
        own, x = self.derivatives, np.asarray(x).reshape(-1)
        v = own.tensor(x if self.scale is None else self.scale * x)
        found = own.array(own.product(v) if self.how == "exact" else own.finite_difference(v))
        return found if self.scale is None else self.scale * found

    def _matmat(self, X):
        if self.how != "exact":
            return np.stack([self._matvec(column) for column in X.T], axis=1)
        own, D = self.derivatives, 1.0 if self.scale is None else self.scale
        rows = X.T if self.scale is None else D * X.T
        return (D * own.array(own.product(own.tensor(rows).T)).T).T

    def _adjoint(self):
        return self

    def dense(self) -> np.ndarray:
        """The whole matrix (dim, dim), symmetrised; ParameterError above 6,000 parameters."""
        n = self.shape[0]
        if n > LARGEST_DENSE:
            raise ParameterError(
                f"the Hessian of {n:,} parameters has {n * n:,.0f} numbers; whole ones are formed "
                f"up to {LARGEST_DENSE:,} parameters. Use hessian_operator, top_eigenvalues, "
                "hessian_trace, hessian_norm or spectral_density."
            )
        H = self @ np.eye(n)
        return (H + H.T) / 2


def scales(own: Derivatives, scale: str) -> np.ndarray:
    """Each parameter's size (dim,): its own, "relative", or its tensor's, "layer"."""
    one_of("scale", scale, SCALES)
    theta = own.array(own.theta)
    return np.abs(theta) if scale == "relative" else layer_scales(own.surface, theta)


def layer_scales(surface: Any, theta: Any) -> np.ndarray:
    """For each parameter the root mean square of its tensor (dim,)."""
    theta = np.asarray(theta, dtype=float)
    found = np.empty_like(theta)
    for a, b in surface.layout.places:
        found[a:b] = np.sqrt(np.mean(theta[a:b] ** 2))
    return found


def hessian_operator(
    surface: Any,
    at: Any = None,
    *,
    product: str = "exact",
    scale: str | None = None,
    dtype: str | None = None,
) -> HessianOperator:
    """The Hessian at parameters ``at`` (dim,) as a scipy LinearOperator, for any of its solvers."""
    return HessianOperator(surface, at, product=product, scale=scale, dtype=dtype)


def hessian(
    surface: Any, at: Any = None, *, scale: str | None = None, dtype: str | None = None
) -> np.ndarray:
    """The Hessian (dim, dim) of the loss at ``at``, penalty included, exact, on all data.

    ``scale`` as of HessianOperator. Raises ParameterError above 6,000 parameters.
    """
    return HessianOperator(surface, at, scale=scale, dtype=dtype).dense()


@dataclass(frozen=True, eq=False)
class Eigenvalues:
    """Eigenvalues of a Hessian, largest first, and how far to trust them.

    ``values`` (k,); ``vectors`` (dim, k), of length 1; ``residuals`` (k,) the lengths
    ``|H v - lambda v|``: an eigenvalue of H lies within that of each value. ``converged``: every
    residual is below the tolerance times the largest |value|. ``products`` Hessian-vector products.
    """

    values: np.ndarray
    vectors: np.ndarray
    residuals: np.ndarray
    tolerance: float
    products: int

    @property
    def converged(self) -> bool:
        """Whether all residuals are within the tolerance."""
        scale = np.abs(self.values).max() if len(self.values) else 0.0
        return bool((self.residuals <= self.tolerance * scale).all())

    def __repr__(self) -> str:
        pairs = zip(self.values[:8], self.residuals[:8], strict=True)
        shown = ", ".join(f"{value:.6g} (+- {residual:.1g})" for value, residual in pairs)
        state = "converged" if self.converged else "NOT converged"
        return f"Eigenvalues({shown}; {state} to {self.tolerance:g}, {self.products} products)"


def top_eigenvalues(
    surface: Any,
    k: int = 1,
    at: Any = None,
    *,
    which: str = "largest",
    tolerance: float | None = None,
    max_products: int = 2_000,
    product: str = "exact",
    scale: str | None = None,
    dtype: str | None = None,
    seed: int = 0,
) -> Eigenvalues:
    """``k`` eigenvalues of the Hessian that are "largest", "smallest" or largest in "magnitude".

    Up to 400 parameters by a dense solver, beyond by SciPy's Lanczos method (ARPACK) on exact
    products over all data. ``tolerance`` bounds the residuals relative to the largest |value|; by
    default 1e-8 in float64, 1e-4 in float32. Residuals are computed afresh at the end. ``scale``
    (here and below) gives the eigenvalues of D H D that no rescaling changes; see HessianOperator.
    Warns (ConvergenceWarning) where ``max_products`` did not suffice, and returns what converged.
    """
    one_of("which", which, ("largest", "smallest", "magnitude"))
    H = HessianOperator(surface, at, product=product, scale=scale, dtype=dtype)
    dim = surface.dim
    k = whole_number("k", k, 1, dim)
    if tolerance is None:
        tolerance = 1e-8 if H.rounding < 1e-12 else 1e-4
    if not (real_number(tolerance) and 0 < tolerance < 1):
        raise ParameterError(f"tolerance={tolerance!r}: needs a number between 0 and 1.")
    if dim <= EXACT_DIM or k > dim // 4:
        values, vectors = np.linalg.eigh(H.dense())
    else:
        values, vectors = _lanczos(H, k, which, tolerance, max_products, seed)
    order = {"largest": -values, "smallest": values, "magnitude": -np.abs(values)}[which]
    chosen = np.argsort(order, kind="stable")[:k]
    chosen = chosen[np.argsort(-values[chosen], kind="stable")]
    values, vectors = values[chosen], vectors[:, chosen]
    residuals = np.linalg.norm(H @ vectors - vectors * values, axis=0) if len(values) else values
    found = Eigenvalues(values, vectors, residuals, float(tolerance), H.products)
    if len(values) < k or not found.converged:
        worst = residuals.max() if len(values) else np.nan
        warnings.warn(
            f"top_eigenvalues: {len(values)} of {k} eigenvalues after {H.products} products, "
            f"residuals up to {worst:.2g}, not within {tolerance:g} of the largest. Raise "
            "max_products= or tolerance=, or use dtype='float64'.",
            ConvergenceWarning,
            stacklevel=2,
        )
    return found


def _lanczos(H, k, which, tolerance, max_products, seed):
    kind = {"largest": "LA", "smallest": "SA", "magnitude": "LM"}[which]
    dim = H.shape[0]
    basis = min(dim - 1, max(2 * k + 1, k + 16))
    start = random.signs(seed, 0, dim)
    restarts = max(1, (max_products - basis) // (basis - k))
    options = {"k": k, "which": kind, "v0": start, "ncv": basis, "tol": tolerance / 2}
    try:
        return linalg.eigsh(H, maxiter=restarts, **options)
    except linalg.ArpackNoConvergence as error:
        return error.eigenvalues, error.eigenvectors


def hessian_trace(
    surface: Any,
    at: Any = None,
    *,
    probes: int | None = None,
    method: str = "hutch++",
    tolerance: float | None = None,
    product: str = "exact",
    scale: str | None = None,
    dtype: str | None = None,
    seed: int = 0,
) -> Measurement:
    """The trace of the Hessian, exact where that is cheap unless ``probes`` are asked for.

    It is for up to 400 parameters, and for chains of linear layers with ReLU, leaky ReLU or nothing
    between them: there the loss's second derivative in each single parameter has a closed form.

    "hutchinson": the mean of z'Hz over random signs z. "hutch++" (Meyer et al. 2021): a third of
    the products finds a subspace Q of large curvature, a third its trace, and the rest probes what
    is left: unbiased, with a smaller error. ``probes`` products at most (96 by default); with a
    relative ``tolerance``, "hutchinson" stops as soon as its standard error is below it.
    """
    one_of("method", method, ("hutch++", "hutchinson"))
    H = HessianOperator(surface, at, product=product, scale=scale, dtype=dtype)
    dim = surface.dim
    if probes is None and dim <= EXACT_DIM:
        return Measurement(float(np.trace(H.dense())), 0.0, 0, H.products)
    diagonal = exact_diagonal(H.derivatives) if probes is None and H.how == "exact" else None
    if diagonal is not None:
        D = 1.0 if H.scale is None else H.scale
        return Measurement(float((D * D * H.derivatives.array(diagonal)).sum()), 0.0, 0, 0)
    probes = whole_number("probes", 96 if probes is None else probes, 6, 10**6)
    if method == "hutchinson":
        found = _probed(H, probes, seed, tolerance, _inner)
        return _mean(found, 0.0, H)
    rank = min(probes // 3, dim)
    Q = np.linalg.qr(H @ _signs(seed, range(rank), dim))[0]
    inside = float((Q * (H @ Q)).sum())
    if rank == dim:
        return Measurement(inside, 0.0, 0, H.products)

    def rest(Z):
        return Z - Q @ (Q.T @ Z)

    found = []
    at_a_time = max(1, min(AT_A_TIME, TOGETHER // dim))
    for low in range(rank, probes - rank, at_a_time):
        high = min(low + at_a_time, probes - rank)
        Z = rest(_signs(seed, range(low, high), dim))
        found.extend(_inner(Z, H @ Z))
    return _mean(np.array(found), inside, H)


def hessian_norm(
    surface: Any,
    at: Any = None,
    *,
    probes: int | None = None,
    tolerance: float | None = None,
    product: str = "exact",
    scale: str | None = None,
    dtype: str | None = None,
    seed: int = 0,
) -> Measurement:
    """The Frobenius norm of the Hessian: ``|H|_F**2 = E |H z|**2`` over random signs z.

    What Jastrzebski et al. (2017) report as the Hessian norm, after Wu et al. (2017), there with
    finite differences (``product="finite_difference"``). Exact up to 400 parameters unless
    ``probes`` are asked for (64 by default beyond); with ``tolerance`` it stops as soon as the
    relative standard error is below it. The standard error is that of the square, linearised.
    """
    H = HessianOperator(surface, at, product=product, scale=scale, dtype=dtype)
    if probes is None and surface.dim <= EXACT_DIM:
        return Measurement(float(np.linalg.norm(H.dense())), 0.0, 0, H.products)
    probes = whole_number("probes", 64 if probes is None else probes, 2, 10**6)
    wanted = None if tolerance is None else 2 * tolerance  # of the square
    squares = _mean(_probed(H, probes, seed, wanted, lambda Z, HZ: _inner(HZ, HZ)), 0.0, H)
    value = float(np.sqrt(squares.value))
    stderr = squares.stderr / (2 * value) if value else 0.0
    return Measurement(value, stderr, squares.probes, H.products)


def _probed(H, probes, seed, tolerance, function) -> np.ndarray:
    """``function(Z, HZ)`` of random signs, one number a probe."""
    if tolerance is not None and not (real_number(tolerance) and tolerance > 0):
        raise ParameterError(f"tolerance={tolerance!r}: needs a number above 0.")
    found: list[float] = []
    at_a_time = max(1, min(AT_A_TIME, TOGETHER // H.shape[0]))
    while len(found) < probes:
        numbers = range(len(found), min(len(found) + at_a_time, probes))
        Z = _signs(seed, numbers, H.shape[0])
        found.extend(function(Z, H @ Z))
        if tolerance is not None and len(found) > 1:
            spread = np.std(found, ddof=1) / np.sqrt(len(found))
            if spread <= tolerance * abs(np.mean(found)):
                break
    return np.array(found)


def _signs(seed: int, numbers, dim: int) -> np.ndarray:
    """Random vectors, (dim, len(numbers)), each of them contiguous."""
    return np.stack([random.signs(seed, j, dim) for j in numbers]).T


def _inner(A: np.ndarray, B: np.ndarray) -> np.ndarray:
    """Of each two columns."""
    return np.einsum("ij,ij->i", A.T, B.T)


def _mean(found: np.ndarray, offset: float, H: HessianOperator) -> Measurement:
    n = len(found)
    stderr = float(found.std(ddof=1) / np.sqrt(n)) if n > 1 else float("nan")
    return Measurement(offset + float(found.mean()), stderr, n, H.products)
