"""Mixtures of Gaussians: the law that quadratic surfaces and the Laplace approximation share."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from langevin.errors import ParameterError, UnsoundError
from langevin.predict.common import (
    check_edge_pair,
    check_edges,
    check_index,
    check_line,
    check_points,
    gauss_legendre,
    normal_interval,
)


def _interval(edges: np.ndarray, mean: float, sd: float) -> np.ndarray:
    """The probability of each bin under N(mean, sd**2); a point mass where sd is 0."""
    if sd > 0:
        z = (edges - mean) / sd
        return normal_interval(z[:-1], z[1:])
    return ((edges[:-1] <= mean) & (mean < edges[1:])).astype(float)


def _rectangles(
    x_edges: np.ndarray, y_edges: np.ndarray, mean: np.ndarray, covariance: np.ndarray
) -> np.ndarray:
    """Bin probabilities of a 2-D Gaussian: exact in y given x, Gauss-Legendre along x."""
    sx = np.sqrt(covariance[0, 0])
    slope = covariance[0, 1] / covariance[0, 0]
    sy = np.sqrt(covariance[1, 1] - slope * covariance[0, 1])
    edges = np.clip(x_edges, mean[0] - 9 * sx, mean[0] + 9 * sx)
    # The integrand varies over sx (the density) and sy/slope (the conditional's edge).
    scale = min(sx, sy / abs(slope)) if slope else sx
    nodes, weights = gauss_legendre(12)
    result = np.zeros((len(x_edges) - 1, len(y_edges) - 1))
    for row, (a, b) in enumerate(pairwise(edges)):
        if b <= a:
            continue
        panels = np.linspace(a, b, max(1, int(np.ceil((b - a) / scale))) + 1)
        widths = np.diff(panels)
        x = (panels[:-1, None] + widths[:, None] * nodes).ravel()
        p = np.exp(-(((x - mean[0]) / sx) ** 2) / 2) / (sx * np.sqrt(2 * np.pi))
        z = (y_edges - mean[1] - slope * (x - mean[0])[:, None]) / sy
        result[row] = (p * (widths[:, None] * weights).ravel()) @ normal_interval(
            z[:, :-1], z[:, 1:]
        )
    return result


@dataclass(frozen=True, eq=False)
class GaussianMixture:
    """The law ``sum_k w_k N(mean_k, covariance_k)``, one component per minimum.

    ``log_weights`` (k,) need not be normalised; ``means`` (k, dim), ``covariances``
    (k, dim, dim). ``temperature`` is that of ``exp(-L/T)``, or None where there is none.
    """

    name: str
    regime: str
    temperature: float | None
    log_weights: np.ndarray
    means: np.ndarray
    covariances: np.ndarray

    @property
    def dim(self) -> int:
        """The number of coordinates."""
        return self.means.shape[1]

    def _shares(self) -> np.ndarray:
        w = np.exp(self.log_weights - self.log_weights.max())
        return w / w.sum()

    def occupation(self) -> np.ndarray:
        """The weight of each component: the probability of each minimum, (n_minima,)."""
        return self._shares()

    def ratio(self, i: int, j: int) -> float:
        """``p_i / p_j`` for two minima; raises ParameterError for an unknown index."""
        n = len(self.log_weights)
        i, j = check_index(i, n), check_index(j, n)
        with np.errstate(over="ignore"):
            return float(np.exp(self.log_weights[i] - self.log_weights[j]))

    def density(self, points: Any) -> np.ndarray:
        """The density at ``points`` (..., dim), shape (...).

        Raises UnsoundError where a covariance is singular: there is no density then.
        """
        points = check_points(points, self.dim)
        total = np.zeros(points.shape[:-1])
        for w, mean, covariance in zip(self._shares(), self.means, self.covariances, strict=True):
            root = self._root(covariance)
            z = np.linalg.solve(root, (points - mean)[..., None])[..., 0]
            scale = np.prod(np.diag(root)) * (2 * np.pi) ** (self.dim / 2)
            total = total + w * np.exp(-(z**2).sum(-1) / 2) / scale
        return total

    def _root(self, covariance: np.ndarray) -> np.ndarray:
        try:
            return np.linalg.cholesky(covariance)
        except np.linalg.LinAlgError:
            raise UnsoundError(
                f"{self.name}: the covariance is singular, so the law has no density: some "
                "direction carries no noise. Use .moments() instead."
            ) from None

    def cdf(self, x: Any) -> np.ndarray:
        """The cumulative probability at ``x`` (any shape), 1-D only; UnsoundError otherwise."""
        if self.dim != 1:
            raise UnsoundError(
                f"{self.name}: a cdf needs one dimension, this law has {self.dim}. "
                "Use .bin_probabilities(edges, axes=k) for the marginal along axis k."
            )
        x = check_line(x)
        total = np.zeros(x.shape)
        for w, m, c in zip(
            self._shares(), self.means[:, 0], self.covariances[:, 0, 0], strict=True
        ):
            if c > 0:
                total = total + w * normal_interval(np.full(x.shape, -np.inf), (x - m) / np.sqrt(c))
            else:
                total = total + w * (x >= m)
        return total

    def bin_probabilities(
        self, edges: Any, *, axes: int | tuple[int, int] | None = None
    ) -> np.ndarray:
        """The probability of each bin.

        1-D, or ``axes=k``: ``edges`` (b+1,) -> (b,), the marginal along axis k. 2-D, or
        ``axes=(k, l)``: a pair of edge arrays -> (bx, by). Infinite edges are allowed.
        Raises ParameterError for malformed edges or axes, and above 2-D without ``axes=``.
        """
        axes = resolve_axes(self.dim, axes)
        total: Any = 0.0
        if len(axes) == 1:
            edges = check_edges(edges)
            k = axes[0]
            for w, m, c in zip(self._shares(), self.means, self.covariances, strict=True):
                total = total + w * _interval(edges, m[k], np.sqrt(max(c[k, k], 0.0)))
            return total
        x_edges, y_edges = check_edge_pair(edges)
        pick = list(axes)
        for w, m, c in zip(self._shares(), self.means, self.covariances, strict=True):
            block = c[np.ix_(pick, pick)]
            self._root(block)
            total = total + w * _rectangles(x_edges, y_edges, m[pick], block)
        return total

    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean (dim,) and covariance (dim, dim)."""
        w = self._shares()
        mean = w @ self.means
        offset = self.means - mean
        spread = np.einsum("k,ki,kj->ij", w, offset, offset)
        return mean, np.einsum("k,kij->ij", w, self.covariances) + spread


def resolve_axes(dim: int, axes: int | tuple[int, ...] | None) -> tuple[int, ...]:
    """The one or two axes that bin edges refer to; raises ParameterError otherwise."""
    if axes is None:
        if dim > 2:
            raise ParameterError(
                f"bin_probabilities in {dim} dimensions: give axes=k or axes=(k, l), the marginal "
                "that the edges belong to."
            )
        return tuple(range(dim))
    chosen = tuple(axes) if np.iterable(axes) else (axes,)
    inside = all(isinstance(k, (int, np.integer)) and 0 <= k < dim for k in chosen)
    if not inside or not 1 <= len(chosen) <= 2 or len(set(chosen)) != len(chosen):
        raise ParameterError(
            f"axes={axes!r}: needs one or two different axes out of 0 to {dim - 1}."
        )
    return tuple(int(k) for k in chosen)
