"""Running averages of the user's own formulas."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from langevin.analysis.averages import average_from_sums
from langevin.analysis.groups import per_group, series
from langevin.observers import quantities
from langevin.observers.common import Bound, Run


@dataclass(frozen=True)
class Average:
    """Average of a formula of the coordinates and parameters, or of a sequence of formulas.

    The same language as a Surface's. Sums are float64, also in a float32 run. Observed are every
    ``every``-th step after burn_in, or, kept apart and whatever burn_in, the steps of ``at``.
    In ``observe=`` a text is short for ``Average(text, name=text)``.
    """

    formula: Any
    every: int = 1
    at: Any = None
    groups: Any = None
    name: str = "average"


class SummedBound(Bound):
    """Sums (tasks, parts * groups * origins, halves or times, 1 + 2 quantities): n, q and q**2."""

    def prepare(self, found: quantities.Quantities, centre: np.ndarray) -> None:
        """Memory for the sums of ``found``, taken about ``centre``."""
        self.quantities, self.n_quantities = found, len(found)
        self.centre = np.where(np.isfinite(centre), centre, 0.0)
        self.n_origins = self.by_origin()
        shape = (self.run.n_tasks, self.parts * self.n_cells, self.n_slots, 1 + 2 * len(found))
        self.store = self.allocate(shape, float, "Use fewer formulas, groups or steps.")

    def arguments(self) -> tuple:
        """What the kernel takes for this observer."""
        return (*self.counting(), self.centre)

    @property
    def sums(self) -> np.ndarray:
        """(error groups, user groups, origins, halves or times, 1 + 2 quantities)."""
        return self.store.reshape(-1, self.n_groups, self.n_origins, *self.store.shape[2:])


class BoundAverage(SummedBound):
    """The sums of the formulas."""

    kind = "average"

    def __init__(self, observer, run: Run):
        super().__init__(observer, run)
        self.single = isinstance(observer.formula, str)
        self.texts, found = quantities.formulas(observer.formula, run.surface, self.name)
        points = np.asarray(run.start, dtype=float).reshape(-1, run.surface.dim)
        parameters = list(run.surface.parameters.values())
        self.prepare(found, found.value(points[:1000].mean(axis=0), parameters))

    def estimate(self, done: int, diverged: np.ndarray):
        """A MeasuredAverage, or Averages of several formulas; by time and user group."""
        sums = self.sums

        def at(slots):
            return per_group(
                lambda g: average_from_sums(
                    sums[:, g, :, slots], self.centre, self.texts, single=self.single
                ),
                self.n_user_groups,
            )

        if self.at is None:
            return at(slice(None))
        return series(self.at, lambda k: at(slice(k, k + 1)))
