"""How often the replicas are in the basin of each minimum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from langevin.analysis.groups import series
from langevin.analysis.occupation import MeasuredOccupation
from langevin.observers.basins import BasinFinder
from langevin.observers.common import Bound, Run


@dataclass(frozen=True)
class Occupation:
    """How often the replicas are in the basin of each minimum, counted inside the kernel.

    Basins: between saddles in 1-D, a label grid of the gradient flow in 2-D; above, a copy of the
    state descends without noise to the nearest known minimum (use a larger ``every``). With
    ``at``, a sequence of steps from 1 to n_steps, the occupation at each of these steps is kept
    apart, whatever burn_in, and nothing asks whether it is stationary.
    """

    every: int = 1
    groups: Any = None
    name: str = "occupation"
    at: Any = None


class BoundOccupation(Bound):
    """Counts (tasks, parts * groups * origins, halves or times, minima + unassigned)."""

    kind = "occupation"

    def __init__(self, observer, run: Run):
        super().__init__(observer, run)
        self.finder = BasinFinder(run)
        n = self.finder.n
        if run.temperature and self.at is None:
            run.surface.bounds(run.temperature)  # refuses a density that cannot be normalised
        self.n_origins = n + 1
        origins = np.where(run.origins < 0, n, run.origins).astype(np.int32)
        cells = self.groups * self.n_origins + origins
        if cells.size > 1 and (cells == cells[0]).all():
            cells = cells[:1]
        self.n_cells = self.n_groups * self.n_origins
        shape = (run.n_tasks, self.parts * self.n_cells, self.n_slots, n + 1)
        advice = f"Use fewer groups or steps: each counts {n} minima by where replicas began."
        if self.n_cells > 32_000:
            shape = (2**62,)  # beyond what a cell's 16 bits can number
        self.store = self.allocate(shape, np.int64, advice)
        self.cells = np.ascontiguousarray(cells, dtype=np.int16)

    def arguments(self) -> tuple:
        """What the kernel takes for this observer."""
        return (*self.counting(), *self.finder.arguments())

    def estimate(self, done: int, diverged: np.ndarray):
        """A MeasuredOccupation; with at=, a Series of them."""
        n = self.finder.n + 1
        counts = self.store.reshape(-1, self.n_groups, self.n_origins, self.n_slots, n)
        if self.at is None:
            return MeasuredOccupation(counts)
        return series(
            self.at,
            lambda k: MeasuredOccupation(counts[..., k : k + 1, :].copy(), None, True).observed(),
        )
