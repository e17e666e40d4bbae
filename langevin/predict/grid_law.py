"""A law known on the nodes of a graded grid, in one or two dimensions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from langevin.errors import UnsoundError
from langevin.predict.common import (
    check_edge_pair,
    check_edges,
    check_index,
    check_line,
    check_points,
    gauss_legendre,
)
from langevin.predict.gaussian import resolve_axes
from langevin.predict.grid import Axis, tensor

FLOOR = 1e-25  # of the largest probability, in a law at a time: below is rounding
ORDER = {1: 6, 2: 4}  # Gauss-Legendre nodes per axis of a piece between nodes
SUBCELLS = 32  # per axis, in a cell that a border between basins runs through
CHUNK = 400_000


@dataclass(frozen=True, eq=False)
class GridLaw:
    """``probability`` (n1,) or (n1, n2) of the cells of a grid with one `Axis` per coordinate.

    The density at a node is its probability over the size of the cell; between nodes the logarithm
    of the density, less ``reference`` (a function of points, where one is known), is interpolated
    by cubics, and the whole is normalised by its integral, 1 but for the interpolation.
    ``negative_mass`` is what rounding had made negative and was set to 0.
    """

    name: str
    regime: str
    surface: Any
    axes: tuple[Axis, ...]
    probability: np.ndarray
    reference: Callable[[np.ndarray], np.ndarray] | None
    negative_mass: float

    @property
    def dim(self) -> int:
        """The number of coordinates."""
        return len(self.axes)

    @cached_property
    def nodes(self) -> np.ndarray:
        """The nodes, (n1, 1) or (n1, n2, 2)."""
        return tensor([axis.nodes for axis in self.axes])

    @cached_property
    def volumes(self) -> np.ndarray:
        """The size of every cell, of the shape of ``probability``."""
        if self.dim == 1:
            return self.axes[0].sizes
        return np.multiply.outer(self.axes[0].sizes, self.axes[1].sizes)

    @cached_property
    def _logs(self) -> np.ndarray:
        """What is interpolated: log density less the reference, level beyond the known nodes."""
        logs = np.full(self.probability.shape, np.nan)
        known = self.probability > 0
        if self.reference is None:
            known &= self.probability > FLOOR * self.probability.max()
        logs[known] = np.log(self.probability[known] / self.volumes[known])
        if self.reference is not None:
            logs[known] -= self.reference(self.nodes[known])
        return np.where(known, logs, np.nanmin(logs))

    def density(self, points: Any) -> np.ndarray:
        """The density at ``points`` (..., dim), shape (...); 0 outside the grid."""
        points = check_points(points, self.dim)
        flat = points.reshape(-1, self.dim)
        return (self._shape(flat) / self._total).reshape(points.shape[:-1])

    def _shape(self, points: np.ndarray) -> np.ndarray:
        """The interpolated density at points (n, dim), not normalised."""
        parts = [self._at(points[k : k + CHUNK]) for k in range(0, len(points), CHUNK)]
        return np.concatenate([np.zeros(0), *parts])

    def _at(self, points: np.ndarray) -> np.ndarray:
        total = self._interpolated(self._logs, points)
        if self.reference is not None:
            with np.errstate(all="ignore"):
                total = total + np.nan_to_num(self.reference(points), nan=-np.inf)
        inside = np.ones(len(points), dtype=bool)
        for k, axis in enumerate(self.axes):
            inside &= (points[:, k] >= axis.low) & (points[:, k] <= axis.high)
        return np.where(inside, np.exp(total), 0.0)

    def _interpolated(self, table: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Values on the nodes, (n1,) or (n1, n2), at points (n, dim), by cubics in s."""
        bases, weights = [], []
        for k, axis in enumerate(self.axes):
            index = axis.index(np.clip(np.nan_to_num(points[:, k]), axis.low, axis.high))
            base = np.clip(np.floor(index).astype(np.int64) - 1, 0, axis.cells - 4)
            bases.append(base)
            weights.append(_cubic(index - base))
        if self.dim == 1:
            return sum(w * table[bases[0] + a] for a, w in enumerate(weights[0]))
        total = np.zeros(len(points))
        for a, v in enumerate(weights[0]):
            for b, w in enumerate(weights[1]):
                total += v * w * table[bases[0] + a, bases[1] + b]
        return total

    def _masses(self, edges: list[np.ndarray]) -> np.ndarray:
        """The integral of the density over every bin; infinite edges stand for the grid's ends."""
        ruled = []
        for axis, given in zip(self.axes, edges, strict=True):
            clipped = np.clip(given, axis.low, axis.high)
            cuts = np.union1d(np.concatenate([[axis.low], axis.nodes, [axis.high]]), clipped)
            cuts = cuts[(cuts >= clipped[0]) & (cuts <= clipped[-1])]
            nodes, weights = gauss_legendre(ORDER[self.dim])
            width = np.diff(cuts)[:, None]
            middle = (cuts[:-1] + cuts[1:]) / 2
            owner = np.searchsorted(clipped, middle, side="right") - 1
            x, w = cuts[:-1, None] + width * nodes, width * weights
            ruled.append((x.ravel(), w.ravel(), np.repeat(owner, ORDER[self.dim])))
        if self.dim == 1:
            x, w, owner = ruled[0]
            return np.bincount(owner, self._shape(x[:, None]) * w, len(edges[0]) - 1)
        (x, v, i), (y, w, j) = ruled
        result = np.zeros((len(edges[0]) - 1, len(edges[1]) - 1))
        rows = max(1, CHUNK // max(len(y), 1))
        for k in range(0, len(x), rows):
            points = tensor([x[k : k + rows], y])
            part = self._shape(points.reshape(-1, 2)).reshape(points.shape[:-1]) * w
            by_y = np.stack([np.bincount(j, row, result.shape[1]) for row in part])
            np.add.at(result, i[k : k + rows], by_y * v[k : k + rows, None])
        return result

    @cached_property
    def _total(self) -> float:
        """The integral of the interpolated density: 1 but for the interpolation."""
        return float(self._masses([np.array([-np.inf, np.inf])] * self.dim).sum())

    def bin_probabilities(
        self, edges: Any, *, axes: int | tuple[int, int] | None = None
    ) -> np.ndarray:
        """The probability of each bin: ``edges`` (b+1,) -> (b,), or in 2-D a pair -> (bx, by).

        In 2-D ``axes=k`` with ``edges`` (b+1,) gives the marginal along axis k. Infinite edges are
        allowed. Raises ParameterError for malformed edges or axes.
        """
        chosen = resolve_axes(self.dim, axes)
        if self.dim == 1:
            return self._masses([check_edges(edges)]) / self._total
        if len(chosen) == 1:
            whole, k = np.array([-np.inf, np.inf]), chosen[0]
            pair = [check_edges(edges), whole] if k == 0 else [whole, check_edges(edges)]
            return self._masses(pair).sum(axis=1 - k) / self._total
        pair = check_edge_pair(edges)
        masses = self._masses(list(pair)) if chosen == (0, 1) else self._masses(list(pair[::-1])).T
        return masses / self._total

    def cdf(self, x: Any) -> np.ndarray:
        """The cumulative probability at ``x`` (any shape), 1-D only; UnsoundError in 2-D."""
        if self.dim != 1:
            raise UnsoundError(
                f"{self.name}: a cdf needs one dimension, this law has 2. Use "
                ".bin_probabilities(edges, axes=k) for the marginal along axis k."
            )
        x = check_line(x)
        if x.size == 0:
            return x
        unique, back = np.unique(x, return_inverse=True)
        steps = self._masses([np.concatenate([[-np.inf], unique])]) if unique[0] > -np.inf else None
        if steps is None:
            steps = np.concatenate([[0.0], self._masses([unique])]) if len(unique) > 1 else [0.0]
        return (np.cumsum(steps) / self._total)[back].reshape(x.shape)

    @cached_property
    def _shares(self) -> np.ndarray:
        """The probability of each basin and, last, of no known basin."""
        basins, n = self.surface.basins(), len(self.surface.minima())
        if self.dim == 1:
            thresholds = np.asarray(basins.thresholds, dtype=float)
            masses = self._masses([np.concatenate([[-np.inf], thresholds, [np.inf]])])
            return np.append(masses / self._total, 0.0)
        labels = np.full(self.probability.shape, n)
        known = self.probability > 0
        found = basins.label(self.nodes[known])
        labels[known] = np.where(found < 0, n, found)
        border = _mixed(labels) & (self.probability > 1e-14)
        plain = known & ~border
        result = np.bincount(labels[plain], self.probability[plain], n + 1)
        cells = np.argwhere(border)
        if not len(cells):
            return result
        offset = (np.arange(SUBCELLS) + 0.5) / SUBCELLS - 0.5
        sides = [axis.position(np.arange(axis.cells)[:, None] + offset) for axis in self.axes]
        x, y = sides[0][cells[:, 0]], sides[1][cells[:, 1]]
        points = np.stack(np.broadcast_arrays(x[:, :, None], y[:, None, :]), axis=-1)
        weights = self.density(points)
        for k, axis in enumerate(self.axes):
            weights = weights / axis.slope(points[..., k])
        weights *= (self.probability[border] / weights.sum((1, 2)))[:, None, None]
        found = basins.label(points)
        return result + np.bincount(np.where(found < 0, n, found).ravel(), weights.ravel(), n + 1)

    @property
    def unassigned(self) -> float:
        """The probability of points that flow to no known minimum."""
        return float(self._shares[-1])

    def occupation(self) -> np.ndarray:
        """The probability of each basin, (n_minima,), in the order of ``surface.minima()``."""
        return self._shares[:-1]

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
        """Mean (dim,) and covariance (dim, dim).

        Raises UnsoundError where the tails are so heavy that the grid does not hold them.
        """
        p, x = self.probability.reshape(-1), self.nodes.reshape(-1, self.dim)
        mean = p @ x
        offset = x - mean
        covariance = (offset * p[:, None]).T @ offset
        for k in range(self.dim):
            spread = np.moveaxis(self.probability * (self.nodes[..., k] - mean[k]) ** 2, k, 0)
            outer = spread[[0, 1, -2, -1]].sum()
            if outer > 1e-4 * covariance[k, k]:
                raise UnsoundError(
                    f"{self.name}: the tails along coordinate {k} are so heavy that the variance "
                    "is infinite, or not held by the grid. Use .bin_probabilities or .density."
                )
        return mean, covariance


def _cubic(t: np.ndarray) -> list[np.ndarray]:
    """Lagrange's weights of nodes 0, 1, 2, 3 at t: exactly 0 and 1 at the nodes."""
    a, b, c = t - 1, t - 2, t - 3
    return [-a * b * c / 6, t * b * c / 2, -t * a * c / 2, t * a * b / 6]


def _mixed(labels: np.ndarray) -> np.ndarray:
    """Whether a cell or one of its eight neighbours has another label."""
    padded = np.pad(labels, 1, mode="edge")
    n, m = labels.shape
    around = [padded[i : i + n, j : j + m] for i in range(3) for j in range(3)]
    return np.max(around, axis=0) != np.min(around, axis=0)
