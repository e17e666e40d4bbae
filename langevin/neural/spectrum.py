"""The spectral density of a Hessian by stochastic Lanczos quadrature, with its errors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import eigh_tridiagonal

from langevin.checks import whole_number
from langevin.errors import ParameterError
from langevin.neural import probes as random
from langevin.neural.curvature import HessianOperator
from langevin.neural.derivatives import EXACT_DIM
from langevin.result import Estimate

ALL = 10**6  # degrees of freedom of what has no sampling error


@dataclass(frozen=True, eq=False)
class Mass:
    """The share of eigenvalues in an interval: ``value`` with its standard error over probes.

    ``low`` and ``high`` enclose, for certain, what infinitely many Lanczos steps would give with
    the same probes (Chebyshev, Markov and Stieltjes), so ``high - low`` is the truncation's error.
    """

    value: float
    stderr: float
    low: float
    high: float
    dof: int


@dataclass(frozen=True, eq=False)
class SpectralDensity:
    """Eigenvalues' density as weighted points: ``nodes`` and ``weights`` (probes, steps).

    Each probe's weights add up to 1 (the density's integral). ``exact``: the nodes are all
    eigenvalues, or Lanczos exhausted its space. ``steps`` Lanczos steps a probe, ``products``
    Hessian-vector products, all on the whole data.
    """

    nodes: list[np.ndarray]
    weights: list[np.ndarray]
    exhausted: list[bool]
    dim: int
    exact: bool
    steps: int
    products: int

    def average(self, function: Callable[[np.ndarray], np.ndarray]) -> Estimate:
        """``tr f(H) / dim`` of a function of eigenvalues, its standard error over probes.

        Exact up to the probes for polynomials of degree 2 steps - 1.
        """
        pairs = zip(self.nodes, self.weights, strict=True)
        return self._estimate(np.array([w @ function(x) for x, w in pairs]))

    def _estimate(self, each: np.ndarray) -> Estimate:
        n = len(each)
        if self.exact:
            return Estimate(float(each[0]), 0.0, ALL)
        stderr = float(each.std(ddof=1) / np.sqrt(n)) if n > 1 else float("nan")
        return Estimate(float(each.mean()), stderr, n - 1)

    def mass(self, low: float = -np.inf, high: float = np.inf) -> Mass:
        """The share of eigenvalues in [low, high), with certain bounds of the truncation.

        At a finite end the value counts half of the node nearest to it.
        """
        if not low < high:
            raise ParameterError(f"mass({low!r}, {high!r}): needs low < high.")
        found = []
        for x, w, done in zip(self.nodes, self.weights, self.exhausted, strict=True):
            a, b = (_below(x, w, end, done) for end in (low, high))
            found.append((b[1] - a[1], max(0.0, b[0] - a[2]), min(1.0, b[2] - a[0])))
        each = np.array(found)
        estimate = self._estimate(each[:, 0])
        bounds = each[:, 1:].mean(axis=0)
        return Mass(
            estimate.value, estimate.stderr, float(bounds[0]), float(bounds[1]), estimate.dof
        )

    def density(self, at: Any, width: float) -> tuple[np.ndarray, np.ndarray]:
        """The density smoothed by a Gaussian of standard deviation ``width``, and its error.

        Both have the shape of ``at``. The error is that between probes; `truncation` is the rest.
        """
        if not width > 0:
            raise ParameterError(f"density(width={width!r}): needs a number above 0.")
        each = self._smoothed(np.asarray(at, float), width, self.nodes, self.weights)
        n = len(each)
        if self.exact or n < 2:
            return each.mean(axis=0), np.full(each.shape[1:], 0.0 if self.exact else np.nan)
        return each.mean(axis=0), each.std(axis=0, ddof=1) / np.sqrt(n)

    @staticmethod
    def _smoothed(at, width, nodes, weights):
        found = []
        for x, w in zip(nodes, weights, strict=True):
            z = (at[..., None] - x) / width
            found.append((np.exp(-(z**2) / 2) @ w) / (width * np.sqrt(2 * np.pi)))
        return np.array(found)

    @property
    def truncation(self) -> float:
        """The largest width, over all thresholds, of the certain bounds on the share below.

        0 where exact; near 0.5 where one node carries half of the weight.
        """
        if self.exact:
            return 0.0
        points = np.unique(np.concatenate(self.nodes))
        inner = (points[1:] + points[:-1]) / 2
        return max((m.high - m.low for m in (self.mass(high=x) for x in inner)), default=1.0)

    def __repr__(self) -> str:
        ends = min(x[0] for x in self.nodes), max(x[-1] for x in self.nodes)
        how = "exact" if self.exact else f"{len(self.nodes)} probes of {self.steps} steps"
        return f"SpectralDensity({how}, eigenvalues {ends[0]:.4g} to {ends[1]:.4g})"


def _below(x, w, end, exhausted) -> tuple[float, float, float]:
    """Lower bound, value and upper bound of the share below ``end``."""
    if np.isinf(end):
        return (1.0, 1.0, 1.0) if end > 0 else (0.0, 0.0, 0.0)
    sums = np.concatenate([[0.0], np.cumsum(w)])
    k = int(np.searchsorted(x, end))  # nodes below
    if exhausted:
        return (sums[k],) * 3
    low = sums[max(k - 1, 0)]
    high = sums[min(k + 1, len(w))]
    near = [i for i in (k - 1, k) if 0 <= i < len(w)]
    nearest = min(near, key=lambda i: abs(x[i] - end))
    return low, float(sums[nearest] + w[nearest] / 2), high


def spectral_density(
    surface: Any,
    at: Any = None,
    *,
    probes: int | None = None,
    steps: int = 80,
    product: str = "exact",
    scale: str | None = None,
    dtype: str | None = None,
    seed: int = 0,
) -> SpectralDensity:
    """The density of the Hessian's eigenvalues (Lin, Saad & Yang 2016; Ghorbani et al. 2019).

    Up to 400 parameters all eigenvalues, unless ``probes`` are asked for; beyond, ``probes`` (8)
    random signs and ``steps`` (80) Lanczos steps each with full reorthogonalisation, which needs
    ``steps`` vectors of memory. ``.truncation`` and the bounds of ``.mass`` say what the
    steps leave open, the standard errors what the probes do.
    """
    H = HessianOperator(surface, at, product=product, scale=scale, dtype=dtype)
    dim = surface.dim
    if probes is None and dim <= EXACT_DIM:
        values = np.linalg.eigvalsh(H.dense())
        weights = [np.full(dim, 1 / dim)]
        return SpectralDensity([values], weights, [True], dim, True, dim, H.products)
    probes = whole_number("probes", 8 if probes is None else probes, 1, 10**5)
    steps = min(whole_number("steps", steps, 2, 10**5), dim)
    nodes, weights, exhausted = [], [], []
    for j in range(probes):
        *chain, done = lanczos(H, random.signs(seed, j, dim), steps, H.rounding)
        x, w = gauss(*chain)
        nodes.append(x)
        weights.append(w)
        exhausted.append(done)
    return SpectralDensity(nodes, weights, exhausted, dim, False, steps, H.products)


def gauss(diagonal: np.ndarray, beside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of ``v' f(H) v`` (Golub and Meurant 2010, chapter 6)."""
    x, vectors = eigh_tridiagonal(diagonal, beside[: len(diagonal) - 1])
    return x, vectors[0] ** 2


def lanczos(H: Any, start: np.ndarray, steps: int, rounding: float):
    """Lanczos's tridiagonal matrix, its diagonal and what is beside it, and whether it is complete.

    Every vector is orthogonalised twice against all others, so no eigenvalue is found twice.
    """
    v = start / np.linalg.norm(start)
    basis, diagonal, beside = [v], [], []
    done = False
    while True:
        w = H @ basis[-1]
        diagonal.append(float(w @ basis[-1]))
        Q = np.stack(basis)
        for _ in range(2):
            w = w - Q.T @ (Q @ w)
        length = float(np.linalg.norm(w))
        scale = max(np.abs(diagonal).max(), max(beside, default=0.0))
        done = length <= 100 * rounding * scale or len(basis) == len(v)
        if done or len(basis) == steps:
            break
        beside.append(length)
        basis.append(w / length)
    return np.array(diagonal), np.array(beside), done
