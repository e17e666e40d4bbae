"""What a kernel needs to find the basin that a replica is in."""

from __future__ import annotations

import math

import numpy as np

from langevin.observers.common import Run

DESCENTS = 50  # steps of a quench between two looks at the minima


class BasinFinder:
    """The basins of a surface as a kernel's arguments: thresholds, a label grid, or minima."""

    descents = DESCENTS

    def __init__(self, run: Run):
        self.surface, self.dtype = run.surface, run.dtype
        self.basins = run.surface.basins()
        self.n, self.dim = self.basins.n, run.surface.dim
        self.n_parameters = len(run.surface.parameters)

    def arguments(self) -> tuple:
        """The kernel's arguments, by dimension."""
        real, basins = self.dtype.type, self.basins
        if self.n == 1:
            return ()
        if self.dim == 1:
            return (np.asarray(basins.thresholds).astype(real),)
        if self.dim == 2:
            inverse = np.array(basins.table.shape) / (basins.high - basins.low)
            return (
                np.ascontiguousarray(basins.table),
                np.ascontiguousarray(basins.lines.astype(real)),
                np.ascontiguousarray(basins.sides),
                basins.low.astype(real),
                inverse.astype(real),
            )
        minima = self.surface.minima()
        positions = np.array([m.position for m in minima])
        spectra = np.array([np.linalg.eigvalsh(m.hessian) for m in minima])
        curvature = float(spectra.max())
        # Descending a valley takes as many steps as its curvature is smaller than the largest.
        sweeps = math.ceil(min(10_000, 1 + 20 * curvature / spectra.min() / DESCENTS))
        apart = _closest(positions, curvature)
        return (
            positions.astype(real),
            real((apart / 4) ** 2),
            real(0.5 / curvature),
            real(apart / 8),
            np.int64(sweeps),
        )


def _closest(positions: np.ndarray, curvature: float) -> float:
    """Smallest distance between two minima; for a single one, a few of its own widths."""
    if len(positions) < 2:
        return 4.0 / math.sqrt(curvature)
    gaps = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
    return float(gaps[np.triu_indices(len(positions), 1)].min())
