"""Boltzmann-Gibbs in two dimensions: Gauss-Legendre on cells, exact along the basins' borders."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import factorial
from typing import Any

import numpy as np

from langevin.errors import UnsoundError
from langevin.predict.common import (
    check_edge_pair,
    check_edges,
    check_index,
    check_points,
    gauss_legendre,
)
from langevin.predict.gaussian import resolve_axes
from langevin.predict.line import Weight, moments_of
from langevin.surfaces.borders import Borders, find_borders

MAX_CELLS = 50_000_000
CHUNK = 400_000  # quadrature points at a time: bounds the memory
NEGLIGIBLE = 45.0  # a cell whose exp(-U/T) is below exp(-45) of its basin's peak is skipped


@dataclass(frozen=True, eq=False)
class GibbsPlane:
    """``p(x, y) = exp(-U/T)/Z`` in 2-D over the box ``low`` to ``high`` (2,).

    ``log_masses`` (n_minima + 1,) are those of the basins and, last, of the cells that belong to
    none; ``scales`` (2,) the length per axis on which the density varies; ``partition`` integrates
    over each basin.
    """

    name: str
    regime: str
    temperature: float
    surface: Any
    low: np.ndarray
    high: np.ndarray
    scales: np.ndarray
    log_masses: np.ndarray
    partition: Partition

    @property
    def _log_total(self) -> float:
        top = self.log_masses.max()
        return float(top + np.log(np.exp(self.log_masses - top).sum()))

    @property
    def unassigned(self) -> float:
        """The probability of cells that flow to no known minimum."""
        return float(np.exp(self.log_masses[-1] - self._log_total))

    def density(self, points: Any) -> np.ndarray:
        """The density at ``points`` (..., 2), shape (...)."""
        points = check_points(points, 2)
        return np.exp(-self.surface.energy(points) / self.temperature - self._log_total)

    def occupation(self) -> np.ndarray:
        """The probability of each basin, (n_minima,), up to the separatrices; see ``regime``."""
        return np.exp(self.log_masses[:-1] - self._log_total)

    def ratio(self, i: int, j: int) -> float:
        """``p_i / p_j`` for two minima; raises ParameterError for an unknown index."""
        n = len(self.log_masses) - 1
        i, j = check_index(i, n), check_index(j, n)
        with np.errstate(over="ignore"):
            return float(np.exp(self.log_masses[i] - self.log_masses[j]))

    def cdf(self, x: Any) -> np.ndarray:
        """Refused: a cdf needs one dimension."""
        raise UnsoundError(
            f"{self.name}: a cdf needs one dimension, this law has 2. Use "
            ".bin_probabilities(edges, axes=k) for the marginal along axis k."
        )

    def bin_probabilities(
        self,
        edges: Any,
        *,
        axes: int | tuple[int, int] | None = None,
        weight: Weight | None = None,
    ) -> np.ndarray:
        """The probability of each bin: a pair of edge arrays -> (bx, by).

        ``axes=k`` with ``edges`` (b+1,) gives the marginal along axis k, (b,). Infinite edges are
        allowed. With ``weight``, a function of points (..., 2), the integral of weight times
        density. Raises ParameterError for malformed edges.
        """
        chosen = resolve_axes(2, axes)
        if len(chosen) == 1:
            whole, k = np.array([-np.inf, np.inf]), chosen[0]
            pair = (check_edges(edges), whole) if k == 0 else (whole, check_edges(edges))
            return self._bins(*pair, weight).sum(axis=1 - k)
        pair = check_edge_pair(edges)
        if chosen == (0, 1):
            return self._bins(*pair, weight)
        return self._bins(*pair[::-1], weight).T

    def _bins(self, x_edges: np.ndarray, y_edges: np.ndarray, weight: Weight | None) -> np.ndarray:
        rules = []
        for k, edges in enumerate((x_edges, y_edges)):
            clipped = np.clip(edges, self.low[k], self.high[k])
            cuts, owner = _subdivided(clipped, self.scales[k])
            rules.append((cuts, owner))
        (x, i), (y, j) = rules
        result = np.zeros((len(x_edges) - 1) * (len(y_edges) - 1))
        if len(x) < 2 or len(y) < 2:
            return result.reshape(len(x_edges) - 1, -1)
        lowest = min(m.energy for m in self.surface.minima())
        quadrature = _Cells(self.surface, self.temperature, x, y, self.scales)
        shift = np.exp(-lowest / self.temperature - self._log_total)
        for a, b, points, weights in quadrature.chunks(np.array([lowest])):
            if weight is not None:
                weights = weights * weight(points)
            flat = i[a] * (len(y_edges) - 1) + j[b]
            result += np.bincount(flat, weights.sum(1) * shift, len(result))
        return result.reshape(len(x_edges) - 1, len(y_edges) - 1)

    def basin_averages(self, weight: Weight) -> np.ndarray:
        """The average of ``weight``, a function of points (..., 2), over each basin's own law."""
        n = len(self.log_masses) - 1
        sums, masses = np.zeros(n + 1), np.zeros(n + 1)
        for label, points, weights in self.partition.nodes():
            masses += np.bincount(label, weights.sum(1), n + 1)
            sums += np.bincount(label, (weights * weight(points)).sum(1), n + 1)
        with np.errstate(invalid="ignore"):
            return (sums / masses)[:n]

    def average(self, weight: Weight) -> np.ndarray:
        """The average of ``weight``, a function of points (..., 2) to (...) or (..., k)."""
        lowest = min(m.energy for m in self.surface.minima())
        box = np.stack([self.low, self.high])
        grids = [_subdivided(box[:, k], self.scales[k])[0] for k in (0, 1)]
        quadrature = _Cells(self.surface, self.temperature, *grids, self.scales)
        total, mass = 0.0, 0.0
        for _, _, points, weights in quadrature.chunks(np.array([lowest])):
            total = total + np.tensordot(weights, weight(points), 2)
            mass += weights.sum()
        return total / mass

    @cached_property
    def _moments(self) -> tuple[np.ndarray, np.ndarray]:
        return moments_of(self.average, min(self.surface.minima(), key=lambda m: m.energy).position)

    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean (2,) and covariance (2, 2)."""
        return self._moments


def _subdivided(edges: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Cut every bin into pieces at most ``scale`` wide: the cuts and each piece's bin."""
    cuts, owner = [], []
    for k, (a, b) in enumerate(pairwise(edges)):
        if b > a:
            pieces = max(1, int(np.ceil((b - a) / scale - 1e-9)))
            cuts.append(a + (b - a) * np.arange(pieces) / pieces)
            owner += [k] * pieces
    if not cuts:
        return np.zeros(0), np.zeros(0, dtype=int)
    last = edges[np.flatnonzero(np.diff(edges) > 0)[-1] + 1]
    return np.concatenate([*cuts, [last]]), np.array(owner)


def _order(panel: float, scale: float) -> int:
    """The Gauss-Legendre order that integrates a Gaussian of width ``scale`` to 1e-13 a panel."""
    for q in range(2, 9):
        error = (1.5 * panel / scale) ** (2 * q) * factorial(q) ** 4
        error /= (2 * q + 1) * factorial(2 * q) ** 3 * (2**q * factorial(q) / factorial(2 * q))
        if error < 1e-13:
            return q
    return 9


class _Cells:
    """Tensor cells between cuts ``x`` and ``y``, with a Gauss-Legendre rule for each.

    ``labels`` (nx, ny) says to which of several reference energies a cell belongs.
    """

    def __init__(self, surface, temperature, x, y, scales):
        self.surface, self.temperature, self.x, self.y = surface, temperature, x, y
        self.labels = None
        if (len(x) - 1) * (len(y) - 1) > MAX_CELLS:
            raise UnsoundError(
                f"predict.boltzmann_gibbs: {(len(x) - 1) * (len(y) - 1):.1e} cells are needed at "
                f"temperature {temperature:g} (at most {MAX_CELLS:.0e}): the density is far "
                "narrower than the box it fills. Use predict.laplace (accurate where T is small), "
                "or simulate."
            )
        self.orders = [_order(np.diff(c).max(), s) for c, s in zip((x, y), scales, strict=True)]

    def assign(self, basins: Any) -> None:
        """Look up the basin of every cell at its centre: -1 where it has none."""
        cx, cy = ((c[:-1] + c[1:]) / 2 for c in (self.x, self.y))
        self.labels = np.empty((len(cx), len(cy)), dtype=np.int16)
        rows = max(1, CHUNK // len(cy))
        for i in range(0, len(cx), rows):
            centres = np.stack(np.meshgrid(cx[i : i + rows], cy, indexing="ij"), axis=-1)
            self.labels[i : i + rows] = basins.label(centres)

    def _reference(self, i: Any, j: Any, energies: np.ndarray) -> np.ndarray | float:
        return energies[0] if self.labels is None else energies[self.labels[i, j]]

    def _worth(self, energies: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Indices (i, j) of cells whose integrand is not negligible, some rows at a time."""
        dx, dy = np.diff(self.x), np.diff(self.y)
        cx, cy = self.x[:-1] + dx / 2, self.y[:-1] + dy / 2
        rows = max(1, CHUNK // len(cy))
        for i in range(0, len(cx), rows):
            centres = np.stack(np.meshgrid(cx[i : i + rows], cy, indexing="ij"), axis=-1)
            slope = np.abs(self.surface.gradient(centres))
            # A first-order bound on how far below its centre the energy of a cell can reach.
            slack = (slope[..., 0] * dx[i : i + rows, None] + slope[..., 1] * dy) / 2
            reference = self._reference(slice(i, i + rows), slice(None), energies)
            rise = self.surface.energy(centres) - reference - slack
            a, b = np.nonzero(rise < NEGLIGIBLE * self.temperature)
            yield a + i, b

    def chunks(self, energies: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
        """Cells (i, j), their nodes (k, q, 2) and weights (k, q) of ``exp(-(U - energy)/T)``.

        The energy subtracted is ``energies[label]`` of the cell; the first if none is assigned.
        """
        (nx, wx), (ny, wy) = (gauss_legendre(q) for q in self.orders)
        node = np.stack(np.meshgrid(nx, ny, indexing="ij"), axis=-1).reshape(-1, 2)
        weight = np.outer(wx, wy).ravel()
        corner = [self.x, self.y]
        size = max(1, CHUNK // len(weight))
        for all_i, all_j in self._worth(energies):
            for k in range(0, len(all_i), size):
                i, j = all_i[k : k + size], all_j[k : k + size]
                low = np.stack([corner[0][i], corner[1][j]], axis=-1)
                width = np.stack([corner[0][i + 1], corner[1][j + 1]], axis=-1) - low
                points = low[:, None, :] + width[:, None, :] * node
                reference = np.broadcast_to(self._reference(i, j, energies), i.shape)
                rise = self.surface.energy(points) - reference[:, None]
                yield (
                    i,
                    j,
                    points,
                    np.exp(-rise / self.temperature) * weight * width.prod(1)[:, None],
                )


def _scales(surface: Any, temperature: float, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """``sqrt(T/U_xx)`` and ``sqrt(T/U_yy)`` at their smallest where the density is."""
    minima = surface.minima()
    grid = np.stack(
        np.meshgrid(*(np.linspace(low[k], high[k], 65) for k in (0, 1)), indexing="ij"), axis=-1
    ).reshape(-1, 2)
    lowest = min(m.energy for m in minima)
    probes = grid[surface.energy(grid) - lowest < 15 * temperature]
    probes = np.concatenate([probes, [m.position for m in minima]])
    curvature = np.einsum("nii->ni", surface.hessian(probes))
    sharpest = np.nanmax(np.abs(curvature), axis=0)
    return np.minimum(np.sqrt(temperature / np.maximum(sharpest, 1e-300)), high - low)


def _cuts(basins: Any, axis: int, low: float, high: float, scale: float) -> np.ndarray:
    """Cuts from low to high that contain every edge of the label grid's cells between them."""
    start, stop, n = float(basins.low[axis]), float(basins.high[axis]), basins.labels.shape[axis]
    lattice = start + (stop - start) * np.arange(n + 1) / n
    lattice = lattice[(lattice > low) & (lattice < high)]
    # Pieces of about one size, so that one order of quadrature is economical for all of them.
    piece = max(scale / 2, min((stop - start) / n, scale))
    return _subdivided(np.concatenate([[low], lattice, [high]]), piece)[0]


@dataclass(frozen=True, eq=False)
class Partition:
    """How the box is divided into basins: whole ``cells``, and those that ``borders`` run through.

    ``energies`` (n_minima + 1,) are those that densities are relative to, the last one for what
    belongs to no basin. ``borders`` is None where basins are unions of cells.
    """

    cells: _Cells
    borders: Borders | None
    energies: np.ndarray

    def nodes(self) -> Iterator[tuple[np.ndarray, ...]]:
        """Labels (k,), nodes (k, q, 2), weights (k, q) of ``exp(-(U - energies[label])/T)``.

        What belongs to no basin has the label n_minima.
        """
        borders, cells, n = self.borders, self.cells, len(self.energies)
        for i, j, points, weights in cells.chunks(self.energies):
            label = cells.labels[i, j] % n  # -1 becomes the last
            if borders is not None:
                whole = ~borders.crossed[i, j]
                label, points, weights = label[whole], points[whole], weights[whole]
            yield label, points, weights
        for label, points, weights in borders.nodes() if borders is not None else ():
            rise = cells.surface.energy(points) - self.energies[label, None]
            yield label, points, weights * np.exp(-np.maximum(rise / cells.temperature, -700.0))

    def staircase(self) -> float:
        """The share of the mass in cells that touch another basin, where basins are their unions.

        The border of the basins is somewhere in them, so no probability is off by more.
        """
        labels, lowest = self.cells.labels, self.energies[-1:]
        edge = np.zeros(labels.shape, bool)
        for axis in (0, 1):
            differs = np.diff(labels, axis=axis) != 0
            edge |= np.pad(differs, [(1, 0) if k == axis else (0, 0) for k in (0, 1)])
            edge |= np.pad(differs, [(0, 1) if k == axis else (0, 0) for k in (0, 1)])
        total = touching = 0.0
        self.cells.labels = None  # one energy for all
        for i, j, _, weights in self.cells.chunks(lowest):
            total += weights.sum()
            touching += weights[edge[i, j]].sum()
        self.cells.labels = labels
        return float(touching / total)


def partition(
    surface: Any, temperature: float, low: np.ndarray, high: np.ndarray, scales: np.ndarray
) -> Partition:
    """The basins inside the box, up to their traced borders where these can be traced."""
    basins, minima = surface.basins(), surface.minima()
    x, y = (_cuts(basins, k, low[k], high[k], scales[k]) for k in (0, 1))
    cells = _Cells(surface, temperature, x, y, scales)
    cells.assign(basins)
    borders = None
    if len(minima) > 1:
        borders = find_borders(basins, low, high, x, y, cells.labels)
    if borders is not None:
        cells.labels = borders.labels
    energies = np.array([m.energy for m in minima] + [min(m.energy for m in minima)])
    return Partition(cells, borders, energies)


def integrate_plane(
    surface: Any, temperature: float, low: np.ndarray, high: np.ndarray, regime: str
) -> GibbsPlane:
    """Integrate every basin, up to the separatrices or, failing that, over the label grid."""
    scales = _scales(surface, temperature, low, high)
    parts = partition(surface, temperature, low, high, scales)
    masses = np.zeros(len(parts.energies))
    for label, _, weights in parts.nodes():
        masses += np.bincount(label, weights.sum(1), len(masses))
    if parts.borders is None and len(masses) > 2:
        regime += (
            "; basins from a grid of cells, because their borders could not all be traced: cells "
            f"along them hold {parts.staircase():.1e} of the probability"
        )
    with np.errstate(divide="ignore"):
        log_masses = np.log(np.maximum(masses, 0.0)) - parts.energies / temperature
    if not np.isfinite(log_masses[:-1]).any():
        raise UnsoundError("predict.boltzmann_gibbs: exp(-U/T) does not integrate over the box.")
    return GibbsPlane(
        name="Boltzmann-Gibbs",
        regime=regime,
        temperature=temperature,
        surface=surface,
        low=low,
        high=high,
        scales=scales,
        log_masses=log_masses,
        partition=parts,
    )
