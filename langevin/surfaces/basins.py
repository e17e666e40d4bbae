"""Basins of attraction: which minimum a point flows down to."""

from __future__ import annotations

import itertools

import numpy as np

from langevin.errors import UnsoundError
from langevin.surfaces import confinement, scan
from langevin.surfaces.critical_points import search_box
from langevin.surfaces.flow import Traps, labels_by_flow, quench

CELLS = 512  # of the two-dimensional label grid, per axis


class Basins:
    """The basins of attraction of a surface's minima under ``dx/dt = -grad U``.

    ``n`` is the number of minima; `label` gives, for points (..., dim), the index of the minimum
    each flows to, or -1 where that is none of them (NaN, or no convergence).

    1-D: ``thresholds`` (n - 1,), the maxima between consecutive minima; a point on a threshold
    belongs to the basin on its right. 2-D: ``labels`` int16 (512, 512), the basin at the centre of
    each cell of the box from ``low`` to ``high``. `label` looks up ``table`` int32 (512, 512): a
    basin, -1, or -2 - k for a cell that a border crosses, in which the line ``lines[k]`` (a, b, c)
    divides: ``sides[k, 0]`` where ``a u + b v >= c``, u and v from 0 to 1 across the cell, else
    ``sides[k, 1]``. Points outside are taken to the nearest cell. Simulations look up the same
    table. Where the borders cannot be traced (see `separatrices`) there are no lines, and basins
    are unions of cells. Above 2-D each point is quenched. The attributes of other dimensions are
    None.
    """

    def __init__(self, surface):
        self.surface = surface
        self.minima = surface.minima()
        self.n = len(self.minima)
        self.dim = surface.dim
        self.thresholds: np.ndarray | None = None
        self.labels: np.ndarray | None = None
        self.low: np.ndarray | None = None
        self.high: np.ndarray | None = None
        self.table: np.ndarray | None = None
        self.lines: np.ndarray | None = None
        self.sides: np.ndarray | None = None
        self._separatrices: dict[tuple, tuple | None] = {}
        if self.dim == 1:
            self.thresholds = _thresholds(surface, [m.position[0] for m in self.minima])
        elif self.dim == 2:
            self.low, self.high = _label_box(surface)
            self.labels = _label_grid(surface, self.low, self.high)
            self.table, self.lines, self.sides = self._bordered()

    def __repr__(self) -> str:
        return f"Basins(n={self.n}, dim={self.dim})"

    def separatrices(self, low: np.ndarray, high: np.ndarray):
        """The borders between the basins, traced in the box from ``low`` to ``high`` (2,), 2-D.

        A tuple of `Separatrix`, or None where they cannot all be followed.
        """
        from langevin.surfaces.separatrix import trace

        key = (*map(float, low), *map(float, high))
        if key not in self._separatrices:
            self._separatrices[key] = trace(self.surface, low, high)
        return self._separatrices[key]

    def _bordered(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The table of `label`, with its lines and their sides."""
        table = self.labels.astype(np.int32)
        none = table, np.empty((0, 3)), np.empty((0, 2), np.int16)
        if self.n < 2:
            return none
        from langevin.surfaces.borders import find_borders

        edges = [np.linspace(self.low[k], self.high[k], CELLS + 1) for k in (0, 1)]
        borders = find_borders(self, self.low, self.high, *edges, self.labels)
        if borders is None:
            return none
        table = np.where(borders.crossed, table, borders.labels)
        cells, lines, sides = borders.chords()
        table[cells[:, 0], cells[:, 1]] = -2 - np.arange(len(cells))
        return table, lines, sides

    def label(self, points: np.ndarray) -> np.ndarray:
        """Index into ``surface.minima()`` for each of ``points`` (..., dim), or -1; shape (...)."""
        points = self.surface._points(points)
        defined = np.isfinite(points).all(axis=-1)
        if self.dim == 1:
            found = np.searchsorted(self.thresholds, points[..., 0], side="right")
        elif self.dim == 2:
            cells = (points - self.low) * (np.array(self.labels.shape) / (self.high - self.low))
            last = np.array(self.labels.shape) - 1
            i, j = np.moveaxis(np.clip(np.nan_to_num(cells), 0, last).astype(np.int64), -1, 0)
            found = np.asarray(self.table[i, j], dtype=np.int64)
            divided = found < -1
            k = -2 - found[divided]
            u, v = (cells[divided] - np.stack([i, j], axis=-1)[divided]).T
            a, b, c = self.lines[k].T
            found[divided] = np.where(a * u + b * v >= c, self.sides[k, 0], self.sides[k, 1])
        else:
            found = quench(self.surface, points.reshape(-1, self.dim)).reshape(points.shape[:-1])
        return np.where(defined, found, -1)


def _thresholds(surface, minima: list[float]) -> np.ndarray:
    """The highest sign change of the slope between each pair of neighbouring minima."""
    low, high = (bound[0] for bound in search_box(surface))
    barriers = scan.stationary_points(surface, min(low, *minima, low), max(high, *minima), False)
    barriers = [p.x for p in barriers if p.kind in ("maximum", "pole")]
    thresholds = []
    for a, b in itertools.pairwise(minima):
        between = [x for x in barriers if a < x < b]
        if not between:
            x = np.linspace(a, b, 10_001)
            energy = surface.energy(x[:, None])
            between = [x[np.argmax(np.where(np.isnan(energy), np.inf, energy))]]
        heights = [surface.energy(np.array([x])) for x in between]
        thresholds.append(between[int(np.argmax(np.nan_to_num(heights, nan=np.inf)))])
    return np.array(thresholds, float)


def _label_box(surface) -> tuple[np.ndarray, np.ndarray]:
    """The surface's own box, or one reaching twice as high as its highest saddle."""
    if getattr(surface, "_box", None) is not None:
        return search_box(surface)
    minima = surface.minima()
    lowest = min(m.energy for m in minima)
    heights = [s.energy for s in surface.saddles()] + [m.energy for m in minima]
    rise = 2 * (max(heights) - lowest)
    try:
        confinement.require_confining(surface, 1e-9)
        low, high = confinement.level_box(surface, lowest + (rise or 1.0))
    except UnsoundError:
        low, high = search_box(surface)
    return low, high


def _label_grid(surface, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Labels at cell centres: all of a coarse grid, then only where neighbours differ."""
    minima = surface.minima()
    if len(minima) == 1 and _confines(surface):
        return np.zeros((CELLS, CELLS), np.int16)
    traps = Traps(surface, high - low)
    n = 64
    everywhere = np.ones((n, n), bool)
    labels = _flowed(surface, low, high, np.full((n, n), -1, np.int16), everywhere, None, traps)
    while n < CELLS:
        settled = _uniform_neighbourhood(labels)
        finer = labels.repeat(2, 0).repeat(2, 1)
        open_cells = ~settled.repeat(2, 0).repeat(2, 1)
        known = np.where(settled, labels, -1)
        labels = _flowed(surface, low, high, finer, open_cells, known, traps)
        n *= 2
    return labels


def _confines(surface) -> bool:
    try:
        confinement.require_confining(surface, 1e-9)
    except UnsoundError:
        return False
    return True


def _flowed(surface, low, high, labels, cells, known, traps) -> np.ndarray:
    """The labels with those of ``cells`` computed from their centres."""
    index = np.argwhere(cells)
    points = low + (index + 0.5) * ((high - low) / labels.shape)
    labels = labels.copy()
    labels[cells] = labels_by_flow(surface, points, low, high, traps, known)
    return labels


def _uniform_neighbourhood(labels: np.ndarray) -> np.ndarray:
    """Whether a cell and its eight neighbours carry one label, and not -1."""
    padded = np.pad(labels, 1, mode="edge")
    n, m = labels.shape
    same = labels >= 0
    for i in range(3):
        for j in range(3):
            same &= padded[i : i + n, j : j + m] == labels
    return same
