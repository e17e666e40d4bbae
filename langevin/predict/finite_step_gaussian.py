"""The first-order law of a finite step on a quadratic surface, in closed form."""

from __future__ import annotations

from dataclasses import dataclass
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
    normal_interval,
)
from langevin.predict.finite_step import FiniteStep
from langevin.predict.gaussian import GaussianMixture, resolve_axes


@dataclass(frozen=True, eq=False)
class FiniteStepGaussian(FiniteStep):
    """``N(x; S) [1 + tr(D (S^-1 x x' S^-1 - S^-1))/2]``, S = T H^-1, D = e T/2, any dimension.

    It is what widening the covariance by D does to first order; ``zeroth`` is N(x; S). The exact
    law of the discrete step, to all orders, is ``predict.quadratic``'s.
    """

    zeroth: GaussianMixture

    @property
    def gibbs(self) -> GaussianMixture:
        """The law of the limit step -> 0."""
        return self.zeroth

    @property
    def _widening(self) -> float:
        """D: what the step adds to the variance of every coordinate."""
        return self.effective_step * self.temperature / 2

    def _factor(self, points: np.ndarray, axes: list[int]) -> np.ndarray:
        """The marginal's linear form at ``points`` (..., len(axes))."""
        inverse = np.linalg.inv(self.gibbs.covariances[0][np.ix_(axes, axes)])
        z = (points - self.gibbs.means[0, axes]) @ inverse
        return 1 + self._widening * ((z**2).sum(-1) - np.trace(inverse)) / 2

    def density(self, points: Any) -> np.ndarray:
        """The density at ``points`` (..., dim), shape (...); the linear form, perhaps negative."""
        points = check_points(points, self.surface.dim)
        return self.gibbs.density(points) * self._factor(points, list(range(self.surface.dim)))

    def occupation(self) -> np.ndarray:
        """All of it is in the only basin: (1,)."""
        return np.ones(1)

    def ratio(self, i: int, j: int) -> float:
        """1, for the only minimum; raises ParameterError for another index."""
        check_index(i, 1), check_index(j, 1)
        return 1.0

    def slope(self, i: int, j: int) -> float:
        """0, for the only minimum; raises ParameterError for another index."""
        return self.low_temperature_slope(i, j)

    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean (dim,) and covariance (dim, dim): ``T H^-1 + e T/2``."""
        mean, covariance = self.gibbs.moments()
        return mean, covariance + self._widening * np.eye(len(mean))

    @property
    def size(self) -> float:
        """The total variation between ``gibbs`` and this law: how large the correction is."""
        return self._averages()[0]

    @property
    def negative_mass(self) -> float:
        """The integral of the negative part of the density, which a true law has not."""
        return self._averages()[1]

    def _averages(self) -> tuple[float, float]:
        """Of |factor - 1|/2 and of the negative part: exact in 1-D, upper bounds above."""
        # The factor is 1 + sum_k c_k (z_k**2 - 1), z normal, c_k = e h_k/4.
        c = self.effective_step * np.linalg.eigvalsh(self.surface.hessian(self.gibbs.means[0])) / 4
        # E|z**2 - 1| = 4 phi(1); of a sum, by the triangle inequality or by the variance.
        size = min(c.sum() * 2 * np.exp(-0.5) / np.sqrt(2 * np.pi), np.sqrt((c**2).sum() / 2))
        return float(size), _negative_part(c)

    def cdf(self, x: Any) -> np.ndarray:
        """The cumulative probability at ``x`` (any shape), 1-D only; UnsoundError otherwise."""
        if self.surface.dim != 1:
            raise UnsoundError(
                f"{self.name}: a cdf needs one dimension, this law has {self.surface.dim}. Use "
                ".bin_probabilities(edges, axes=k) for the marginal along axis k."
            )
        x = check_line(x)
        edges = np.stack([np.full(x.shape, -np.inf), x])
        return self._interval(edges, 0)[0]

    def bin_probabilities(self, edges: Any, *, axes: Any = None) -> np.ndarray:
        """The probability of each bin, as ``predict.boltzmann_gibbs``'s: (b,) or (bx, by)."""
        chosen = resolve_axes(self.surface.dim, axes)
        if len(chosen) == 1:
            return self._interval(check_edges(edges), chosen[0])
        x_edges, y_edges = check_edge_pair(edges)
        zeroth = self.gibbs.bin_probabilities((x_edges, y_edges), axes=chosen)
        mean = self.gibbs.means[0, list(chosen)]
        block = self.gibbs.covariances[0][np.ix_(chosen, chosen)]
        x, y = x_edges - mean[0], y_edges - mean[1]
        # The integral of d2N/dx2 over a bin is the difference of dN/dx, integrated over y.
        along_x = np.diff(_edge_slopes(x, y, block), axis=0)
        along_y = np.diff(_edge_slopes(y, x, block[::-1, ::-1]), axis=0).T
        return zeroth + self._widening / 2 * (along_x + along_y)

    def _interval(self, edges: np.ndarray, axis: int) -> np.ndarray:
        """The marginal probability between ``edges`` along their first axis."""
        variance = self.gibbs.covariances[0, axis, axis]
        z = (edges - self.gibbs.means[0, axis]) / np.sqrt(variance)
        finite = np.where(np.isinf(z), 0.0, z)
        slope = -finite * np.exp(-(finite**2) / 2) / np.sqrt(2 * np.pi)
        zeroth = normal_interval(z[:-1], z[1:])
        return zeroth + self._widening / (2 * variance) * np.diff(slope, axis=0)


def _edge_slopes(x: np.ndarray, y: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """``int dN(x, y)/dx dy`` over each interval of ``y``, at every ``x``: (len(x), len(y) - 1)."""
    slope = covariance[0, 1] / covariance[0, 0]
    spread = np.sqrt(covariance[1, 1] - slope * covariance[0, 1])
    finite = np.where(np.isinf(x), 0.0, x)[:, None]
    density = np.exp(-(finite**2) / (2 * covariance[0, 0]))
    density = np.where(np.isinf(x)[:, None], 0.0, density)
    density = density / np.sqrt(2 * np.pi * covariance[0, 0])
    z = (y - slope * finite) / spread
    steepness = np.exp(-(np.where(np.isinf(z), 40.0, z) ** 2) / 2) / np.sqrt(2 * np.pi)
    inside = normal_interval(z[:, :-1], z[:, 1:])
    turning = -slope / spread * np.diff(steepness, axis=1)
    return density * (turning - finite / covariance[0, 0] * inside)


def _negative_part(c: np.ndarray) -> float:
    """``E max(0, sum_k c_k (1 - z_k**2) - 1)`` or a bound: exact for one coordinate."""
    total = c.sum()
    if total <= 1:
        return 0.0
    if len(c) > 1:  # positive only where sum c_k z_k**2 < total - 1: Chernoff's bound
        t = np.geomspace(1e-3, 1e3, 400)[:, None] / total
        log = t[:, 0] * (total - 1) - np.log1p(2 * t * c).sum(1) / 2
        return float(min(1.0, np.exp(log.min())) * (total - 1))
    z, weights = gauss_legendre(60)
    end = np.sqrt(1 - 1 / total)
    values = (c[0] * (1 - (end * z) ** 2) - 1) * np.exp(-((end * z) ** 2) / 2)
    return float(2 * end * (values @ weights) / np.sqrt(2 * np.pi))


def gaussian_law(
    regime: str, temperature: float, step: float, momentum: float, surface: Any
) -> FiniteStepGaussian:
    """The law on a quadratic surface, about its closed-form Gibbs law."""
    from langevin.predict.gibbs import boltzmann_gibbs

    zeroth = boltzmann_gibbs(surface, temperature=temperature)
    about = (temperature, step, momentum, surface)
    return FiniteStepGaussian("finite step", regime, *about, zeroth)
