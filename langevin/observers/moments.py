"""Mean and covariance of the positions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from langevin.analysis.density import moments_from_sums
from langevin.analysis.groups import per_group
from langevin.observers.common import Bound, Run


@dataclass(frozen=True)
class Moments:
    """Mean and covariance of the positions, summed in float64 inside the kernel."""

    every: int = 1
    groups: Any = None
    name: str = "moments"


class BoundMoments(Bound):
    """Sums (tasks, parts * groups * origins, 2 halves, 1 + dim + dim (dim + 1) / 2)."""

    kind = "moments"

    def __init__(self, observer, run: Run):
        super().__init__(observer, run)
        dim = run.surface.dim
        self.n_origins = self.by_origin()
        width = 1 + dim + dim * (dim + 1) // 2
        shape = (run.n_tasks, self.parts * self.n_cells, self.n_slots, width)
        advice = "Use fewer groups, or Average(...) of the moments that matter."
        self.store = self.allocate(shape, float, advice)
        self.centre = np.asarray(run.start, dtype=float).reshape(-1, dim)[:1000].mean(axis=0)

    def arguments(self) -> tuple:
        """What the kernel takes for this observer."""
        return (*self.counting(), self.centre)

    def estimate(self, done: int, diverged: np.ndarray):
        """Moments, or one for each user group."""
        sums = self.store.reshape(-1, self.n_groups, self.n_origins, *self.store.shape[2:])
        return per_group(lambda g: moments_from_sums(sums[:, g], self.centre), self.n_user_groups)
