"""One-dimensional laws that a Gaussian step has just smoothed: exact at every bin edge."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from langevin.errors import UnsoundError
from langevin.predict.common import (
    check_edges,
    check_index,
    check_line,
    check_points,
    normal_interval,
)


@dataclass(frozen=True, eq=False)
class SmoothedLaw:
    """A 1-D law one Gaussian step after a discrete one: ``p(y) = sum_j w_j N(y; m_j, s_j**2)``.

    ``centres``, ``spreads``, ``weights`` (n,); ``low`` and ``high`` bound the region in which a
    replica counts as alive, ``thresholds`` (n_minima - 1,) separate the basins. Because the step
    itself is integrated exactly, bins and basins carry no discretisation error at their edges.
    """

    name: str
    regime: str
    centres: np.ndarray
    spreads: np.ndarray
    weights: np.ndarray
    low: float
    high: float
    thresholds: np.ndarray

    def _masses(self, edges: np.ndarray) -> np.ndarray:
        """The mass of each bin of ``edges`` clipped to the living region, not normalised."""
        edges = np.clip(edges, self.low, self.high)
        result = np.zeros(len(edges) - 1)
        block = max(1, 2_000_000 // len(edges))
        for j in range(0, len(self.weights), block):
            part = slice(j, j + block)
            z = (edges - self.centres[part, None]) / self.spreads[part, None]
            result += self.weights[part] @ normal_interval(z[:, :-1], z[:, 1:])
        return result

    @cached_property
    def surviving(self) -> float:
        """The mass still in the living region; every probability is relative to it."""
        return float(self._masses(np.array([-np.inf, np.inf]))[0])

    def density(self, points: Any) -> np.ndarray:
        """The density at ``points`` (..., 1), shape (...); 0 outside the living region."""
        points = check_points(points, 1)[..., 0]
        y = points.ravel()
        total = np.zeros(y.shape)
        block = max(1, 2_000_000 // max(len(y), 1))
        for j in range(0, len(self.weights), block):
            part = slice(j, j + block)
            z = (y - self.centres[part, None]) / self.spreads[part, None]
            scale = self.weights[part] / (self.spreads[part] * np.sqrt(2 * np.pi))
            total += scale @ np.exp(-(z**2) / 2)
        total[(y < self.low) | (y > self.high)] = 0.0
        return (total / self.surviving).reshape(points.shape)

    def cdf(self, x: Any) -> np.ndarray:
        """The cumulative probability at ``x`` (any shape)."""
        x = check_line(x)
        unique, back = np.unique(x, return_inverse=True)
        steps = self._masses(np.concatenate([[-np.inf], unique]))
        return (np.cumsum(steps) / self.surviving)[back].reshape(x.shape)

    def bin_probabilities(self, edges: Any, *, axes: Any = None) -> np.ndarray:
        """The probability of each bin of ``edges`` (b+1,), shape (b,); there is one axis."""
        return self._masses(check_edges(edges)) / self.surviving

    def occupation(self) -> np.ndarray:
        """The probability of each basin, (n_minima,), in the order of ``surface.minima()``."""
        edges = np.concatenate([[-np.inf], self.thresholds, [np.inf]])
        return self._masses(edges) / self.surviving

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
        """Mean (1,) and covariance (1, 1)."""
        w = self.weights / self.weights.sum()
        mean = w @ self.centres
        variance = w @ (self.spreads**2 + (self.centres - mean) ** 2)
        return np.array([mean]), np.array([[variance]])

    @property
    def variance(self) -> float:
        """The variance of the position."""
        return float(self.moments()[1][0, 0])
