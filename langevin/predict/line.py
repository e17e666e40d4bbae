"""Boltzmann-Gibbs in one dimension: adaptive quadrature that never straddles two basins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from langevin.errors import UnsoundError
from langevin.predict.common import (
    check_edges,
    check_index,
    check_line,
    check_points,
    gauss_legendre,
)

ORDER = 20
Weight = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class GibbsLine:
    """``p(x) = exp(-U(x)/T)/Z`` in 1-D, integrated on ``panels`` (p+1,) between which it is smooth.

    Each basin is integrated relative to its own minimum (``energies`` (n_minima,)), so that a
    ratio stays exact where one of the two probabilities underflows. ``log_masses`` (n_minima,).
    """

    name: str
    regime: str
    temperature: float
    surface: Any
    panels: np.ndarray
    thresholds: np.ndarray
    energies: np.ndarray
    log_masses: np.ndarray

    @property
    def _log_total(self) -> float:
        top = self.log_masses.max()
        return float(top + np.log(np.exp(self.log_masses - top).sum()))

    def density(self, points: Any) -> np.ndarray:
        """The density at ``points`` (..., 1), shape (...)."""
        points = check_points(points, 1)
        return np.exp(-self.surface.energy(points) / self.temperature - self._log_total)

    def occupation(self) -> np.ndarray:
        """The probability of each basin, (n_minima,), in the order of ``surface.minima()``."""
        return np.exp(self.log_masses - self._log_total)

    def ratio(self, i: int, j: int) -> float:
        """``p_i / p_j`` for two minima; raises ParameterError for an unknown index."""
        n = len(self.log_masses)
        i, j = check_index(i, n), check_index(j, n)
        with np.errstate(over="ignore"):
            return float(np.exp(self.log_masses[i] - self.log_masses[j]))

    def bin_probabilities(
        self, edges: Any, *, axes: Any = None, weight: Weight | None = None
    ) -> np.ndarray:
        """The probability of each bin of ``edges`` (b+1,), shape (b,); there is one axis.

        With ``weight``, a function of points (..., 1), the integral of weight times density.
        """
        edges = np.clip(check_edges(edges), self.panels[0], self.panels[-1])
        cuts = np.union1d(self.panels, edges)
        middle = (cuts[:-1] + cuts[1:]) / 2
        masses = self._integrals(cuts, weight)
        inside = (middle > edges[0]) & (middle < edges[-1])
        bins = np.searchsorted(edges, middle[inside], side="right") - 1
        return np.bincount(bins, masses[inside], len(edges) - 1)

    def _integrals(self, cuts: np.ndarray, weight: Weight | None) -> np.ndarray:
        """The integral of weight times density between ``cuts`` (c+1,), shape (c,)."""
        basin = np.searchsorted(self.thresholds, (cuts[:-1] + cuts[1:]) / 2, side="right")
        energies = self.energies[basin]
        at = (self.surface, self.temperature, cuts[:-1], cuts[1:], energies)
        shift = np.exp(-energies / self.temperature - self._log_total)
        return (_panel_masses(*at, weight).T * shift).T

    def basin_averages(self, weight: Weight) -> np.ndarray:
        """The average of ``weight``, a function of points (..., 1), over each basin's own law."""
        basin = np.searchsorted(self.thresholds, (self.panels[:-1] + self.panels[1:]) / 2, "right")
        at = (self.surface, self.temperature, self.panels[:-1], self.panels[1:])
        sums = _panel_masses(*at, self.energies[basin], weight)
        # Relative to the basin's own minimum: a basin whose probability underflows has one too.
        scale = np.exp(self.log_masses + self.energies / self.temperature)
        return np.bincount(basin, sums, len(self.energies)) / scale

    def average(self, weight: Weight) -> np.ndarray:
        """The average of ``weight``, a function of points (..., 1) to (...) or (..., k)."""
        return self._integrals(self.panels, weight).sum(0)

    def cdf(self, x: Any, *, weight: Weight | None = None) -> np.ndarray:
        """The cumulative probability at ``x`` (any shape); of weight times density if given."""
        x = check_line(x)
        if x.size == 0:
            return x
        unique, back = np.unique(x, return_inverse=True)
        below = [] if unique[0] == -np.inf else [-np.inf]
        edges = np.concatenate([below, unique])
        steps = self.bin_probabilities(edges, weight=weight) if len(edges) > 1 else np.zeros(0)
        if not below:
            steps = np.concatenate([[0.0], steps])
        return np.cumsum(steps)[back].reshape(x.shape)

    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean (1,) and covariance (1, 1)."""
        # About the mean, or the variance of a narrow law far from 0 would cancel.
        return moments_of(self.average, self.average(lambda x: x))


def moments_of(
    average: Callable[[Weight], np.ndarray], origin: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean (dim,) and covariance (dim, dim) from averages, expanded about ``origin`` (dim,)."""

    def powers(points: np.ndarray) -> np.ndarray:
        offset = points - origin
        square = offset[..., :, None] * offset[..., None, :]
        return np.concatenate([offset, square.reshape(*offset.shape[:-1], -1)], axis=-1)

    dim = len(origin)
    values = average(powers)
    mean = values[:dim]
    return origin + mean, values[dim:].reshape(dim, dim) - np.outer(mean, mean)


def _panel_masses(
    surface: Any,
    temperature: float,
    low: np.ndarray,
    high: np.ndarray,
    energies: np.ndarray,
    weight: Weight | None = None,
) -> np.ndarray:
    """``int weight exp(-(U - energy)/T) dx`` over each panel (p,) by Gauss-Legendre."""
    nodes, weights = gauss_legendre(ORDER)
    widths = high - low
    x = (low[:, None] + widths[:, None] * nodes)[..., None]
    density = np.exp(-(surface.energy(x) - energies[:, None]) / temperature) * weights
    density *= widths[:, None]
    return density.sum(1) if weight is None else np.einsum("pq,pq...->p...", density, weight(x))


def _graded(low: float, high: float, minimum: float, width: float) -> np.ndarray:
    """First panels of one basin: narrow around its minimum, doubling away from it."""
    steps = np.concatenate([[0, 1, 2, 3, 4], 4 * 1.5 ** np.arange(1, 80)]) * width
    right = minimum + steps[steps < high - minimum]
    left = minimum - steps[steps < minimum - low]
    return np.unique(np.concatenate([[low, high], left, right]))


def _refined(
    surface: Any, temperature: float, panels: np.ndarray, energy: float
) -> tuple[np.ndarray, float]:
    """Halve panels until halving changes nothing; their edges and the mass above ``energy``."""
    low, high = panels[:-1], panels[1:]
    whole = _panel_masses(surface, temperature, low, high, np.full(len(low), energy))
    # Rounding of U/T bounds what refinement can reach.
    scale = np.abs(surface.energy(panels[:, None]))
    scale = np.nanmin(scale) + abs(energy)
    tolerance = 1e-14 + 4 * np.finfo(float).eps * scale / temperature
    edges, mass = [low[:1], high[-1:]], 0.0
    total = whole.sum()
    for _ in range(60):
        middle = (low + high) / 2
        below = _panel_masses(surface, temperature, low, middle, np.full(len(low), energy))
        above = _panel_masses(surface, temperature, middle, high, np.full(len(low), energy))
        total += (below + above - whole).sum()
        settled = np.abs(below + above - whole) <= tolerance * total
        mass += (below + above)[settled].sum()
        edges += [low[settled], middle[settled], high[settled]]
        open_ = ~settled
        if not open_.any():
            break
        whole = np.concatenate([below[open_], above[open_]])
        low, high = (
            np.concatenate([low[open_], middle[open_]]),
            np.concatenate([middle[open_], high[open_]]),
        )
    else:
        mass += whole.sum()
        edges += [low, high]
    return np.unique(np.concatenate(edges)), mass


def integrate_line(
    surface: Any, temperature: float, low: float, high: float, minima: tuple, regime: str
) -> GibbsLine:
    """Integrate every basin of [low, high] to rounding.

    Raises UnsoundError where the integral is not finite.
    """
    thresholds = np.asarray(surface.basins().thresholds, dtype=float)
    borders = np.concatenate([[low], thresholds, [high]])
    panels, log_masses = [], []
    for k, minimum in enumerate(minima):
        a, b = borders[k], borders[k + 1]
        x, curvature = float(minimum.position[0]), float(minimum.hessian[0, 0])
        width = (b - a) / 64
        if curvature > 0:
            width = min(width, np.sqrt(temperature / curvature))
        first = _graded(a, b, min(max(x, a), b), width)
        edges, mass = _refined(surface, temperature, first, minimum.energy)
        if not (np.isfinite(mass) and mass > 0):
            raise UnsoundError(
                f"predict.boltzmann_gibbs: exp(-U/T) does not integrate over basin {k} (mass "
                f"{mass}). The energy must be finite between {a:g} and {b:g}."
            )
        panels.append(edges)
        log_masses.append(np.log(mass) - minimum.energy / temperature)
    return GibbsLine(
        name="Boltzmann-Gibbs",
        regime=regime,
        temperature=temperature,
        surface=surface,
        panels=np.unique(np.concatenate(panels)),
        thresholds=thresholds,
        energies=np.array([m.energy for m in minima], dtype=float),
        log_masses=np.array(log_masses),
    )
