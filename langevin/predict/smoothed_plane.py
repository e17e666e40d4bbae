"""Two-dimensional laws that a Gaussian step has just smoothed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from langevin.errors import UnsoundError
from langevin.predict.cardinal import interval_weights
from langevin.predict.common import (
    check_edge_pair,
    check_edges,
    check_index,
    check_points,
    normal_interval,
)
from langevin.predict.gaussian import _rectangles, resolve_axes

CHUNK = 4_000_000  # numbers at a time: bounds the memory
FEW = 64  # components that are integrated one by one


@dataclass(frozen=True, eq=False)
class SmoothedPlane:
    """A 2-D law one Gaussian step after a discrete one: ``p(y) = sum_j w_j N(y; m_j, V_j)``.

    ``centres`` (n, 2), ``covariances`` (n, 2, 2), ``weights`` (n,); ``low`` and ``high`` (2,) bound
    the region in which a replica counts as alive. ``values`` (nx, ny) is p at the nodes
    ``axes`` (nx,), (ny,), or None for a law of few components. Where the noise of the coordinates
    is uncorrelated, the step is integrated exactly, and bins carry no discretisation error at their
    edges; else bins are integrals of p's band-limited interpolant, see `cardinal`.
    """

    name: str
    regime: str
    surface: Any
    centres: np.ndarray
    covariances: np.ndarray
    weights: np.ndarray
    low: np.ndarray
    high: np.ndarray
    axes: tuple[np.ndarray, np.ndarray]
    values: np.ndarray | None

    def _masses(self, x_edges: np.ndarray, y_edges: np.ndarray) -> np.ndarray:
        """The mass of each bin clipped to the living region, (bx, by), not normalised."""
        edges = [
            np.clip(e, a, b)
            for e, a, b in zip((x_edges, y_edges), self.low, self.high, strict=True)
        ]
        result = np.zeros((len(x_edges) - 1, len(y_edges) - 1))
        if not self.covariances[:, 0, 1].any():
            sd = np.sqrt(np.einsum("nkk->nk", self.covariances))
            block = max(1, CHUNK // max(len(x_edges), len(y_edges)))
            for j in range(0, len(self.weights), block):
                part = slice(j, j + block)
                z = [(edges[k] - self.centres[part, k, None]) / sd[part, k, None] for k in (0, 1)]
                a, b = (normal_interval(v[:, :-1], v[:, 1:]) for v in z)
                result += (a * self.weights[part, None]).T @ b
        elif self.values is None:
            for w, mean, covariance in zip(
                self.weights, self.centres, self.covariances, strict=True
            ):
                if covariance[0, 1]:
                    # Bins of no width, where edges were clipped, hold nothing.
                    wide = [np.unique(e) for e in edges]
                    found = _rectangles(*wide, mean, covariance)
                    i, j = (np.flatnonzero(np.diff(e) > 0) for e in edges)
                    result[np.ix_(i, j)] += w * found
        else:
            a, b = (interval_weights(x, e) for x, e in zip(self.axes, edges, strict=True))
            result = np.maximum(a.T @ self.values @ b, 0.0)
        return result

    @cached_property
    def surviving(self) -> float:
        """The mass still in the living region; every probability is relative to it."""
        whole = np.array([-np.inf, np.inf])
        return float(self._masses(whole, whole)[0, 0])

    def density(self, points: Any) -> np.ndarray:
        """The density at ``points`` (..., 2), shape (...); 0 outside the living region."""
        points = check_points(points, 2)
        y = points.reshape(-1, 2)
        total = np.zeros(len(y))
        inverse = np.linalg.inv(self.covariances)
        scale = self.weights / (2 * np.pi * np.sqrt(np.linalg.det(self.covariances)))
        a, b, c = inverse[:, 0, 0], inverse[:, 0, 1], inverse[:, 1, 1]
        heavy = np.flatnonzero(self.weights > 0)
        block = max(1, CHUNK // max(len(y), 1))
        for k in range(0, len(heavy), block):
            part = heavy[k : k + block]
            dx, dy = (y[:, i] - self.centres[part, i, None] for i in (0, 1))
            q = a[part, None] * dx * dx + 2 * b[part, None] * dx * dy + c[part, None] * dy * dy
            total += scale[part] @ np.exp(-q / 2)
        total[((y < self.low) | (y > self.high)).any(axis=1)] = 0.0
        return (total / self.surviving).reshape(points.shape[:-1])

    def cdf(self, x: Any) -> np.ndarray:
        """Refused: a cdf needs one dimension."""
        raise UnsoundError(
            f"{self.name}: a cdf needs one dimension, this law has 2. Use "
            ".bin_probabilities(edges, axes=k) for the marginal along axis k."
        )

    def bin_probabilities(
        self, edges: Any, *, axes: int | tuple[int, int] | None = None
    ) -> np.ndarray:
        """The probability of each bin: a pair of edge arrays -> (bx, by).

        ``axes=k`` with ``edges`` (b+1,) gives the marginal along axis k, (b,). Infinite edges are
        allowed. Raises ParameterError for malformed edges.
        """
        chosen = resolve_axes(2, axes)
        if len(chosen) == 1:
            whole, k = np.array([-np.inf, np.inf]), chosen[0]
            pair = (check_edges(edges), whole) if k == 0 else (whole, check_edges(edges))
            return self._masses(*pair).sum(axis=1 - k) / self.surviving
        x, y = check_edge_pair(edges)
        bins = self._masses(x, y) if chosen == (0, 1) else self._masses(y, x).T
        return bins / self.surviving

    @cached_property
    def _basins(self) -> np.ndarray:
        """Probabilities of the basins (n_minima,) and, last, of the cells that belong to none."""
        basins = self.surface.basins()
        if basins.n == 1 and not (np.asarray(basins.labels) < 0).any():
            return np.array([1.0, 0.0])
        edges = [
            np.linspace(a, b, n + 1)
            for a, b, n in zip(basins.low, basins.high, basins.labels.shape, strict=True)
        ]
        for e in edges:  # a point outside belongs to the nearest cell
            e[0], e[-1] = -np.inf, np.inf
        masses = self._masses(*edges) / self.surviving
        whole = basins.table >= -1
        found = np.bincount(basins.table[whole] % (basins.n + 1), masses[whole], basins.n + 1)
        sides, shares = _divided(basins, masses)
        np.add.at(found, sides % (basins.n + 1), shares)
        return found

    @property
    def unassigned(self) -> float:
        """The probability of cells that flow to no known minimum."""
        return float(self._basins[-1])

    def occupation(self) -> np.ndarray:
        """The probability of each basin, (n_minima,), over ``surface.basins()``'s own cells."""
        return self._basins[:-1].copy()

    def ratio(self, i: int, j: int) -> float:
        """``p_i / p_j`` for two minima.

        Raises ParameterError for an unknown index, UnsoundError where p_j underflows.
        """
        p = self.occupation()
        i, j = check_index(i, len(p)), check_index(j, len(p))
        if p[j] == 0:
            raise UnsoundError(
                f"{self.name}: minimum {j} has a probability of 0 in double precision, so the "
                f"ratio p_{i}/p_{j} has no value. Use predict.boltzmann_gibbs, which keeps its log."
            )
        return float(p[i] / p[j])

    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean (2,) and covariance (2, 2)."""
        w = self.weights / self.weights.sum()
        mean = w @ self.centres
        offset = self.centres - mean
        return mean, np.einsum("n,nij->ij", w, self.covariances) + (offset * w[:, None]).T @ offset


SPLIT = 32  # points per axis that measure the two sides of a cell with a border


def _divided(basins: Any, masses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The cells that a border's line divides: labels of both sides (k, 2), and their masses.

    Within a cell the density is taken to vary linearly, as its neighbours say.
    """
    i, j = np.nonzero(basins.table < -1)
    k = -2 - basins.table[i, j].astype(np.int64)
    middle = (np.arange(SPLIT) + 0.5) / SPLIT
    u, v = np.meshgrid(middle, middle, indexing="ij")
    last = np.array(masses.shape) - 1
    here = np.maximum(masses[i, j], 1e-300)
    slope = [
        (masses[np.minimum(i + a, last[0]), np.minimum(j + b, last[1])]
         - masses[np.maximum(i - a, 0), np.maximum(j - b, 0)]) / (2 * here)
        for a, b in ((1, 0), (0, 1))
    ]  # fmt: skip
    first = np.empty(len(i))
    for n, (a, b, c) in enumerate(basins.lines[k]):
        weight = np.maximum(1 + slope[0][n] * (u - 0.5) + slope[1][n] * (v - 0.5), 0.0)
        first[n] = weight[a * u + b * v >= c].sum() / max(weight.sum(), 1e-300)
    shares = masses[i, j][:, None] * np.stack([first, 1 - first], axis=1)
    return basins.sides[k].astype(np.int64), shares
