"""How long replicas remember: autocorrelations streamed out of the kernel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from langevin.analysis.correlation import correlation_from_sums
from langevin.analysis.groups import per_group
from langevin.checks import whole_number
from langevin.dynamics import SGD
from langevin.errors import ParameterError
from langevin.observers import quantities
from langevin.observers.common import Bound, Run


@dataclass(frozen=True)
class Autocorrelation:
    """Autocorrelation of each coordinate, or of a formula, at lags 0, 1, ... ``lags - 1`` looks.

    Looks are ``every`` steps apart. Each replica keeps a reference value, renewed every ``lags``
    looks, and multiplies it with what comes after: no series is stored. Gives the integrated time
    and the effective sample size, for which ``lags * every`` must span a few correlation times.
    """

    lags: int = 100
    every: int = 1
    formula: Any = None
    groups: Any = None
    name: str = "autocorrelation"


class BoundAutocorrelation(Bound):
    """Sums (tasks, parts * groups, lags, 1 + 3 quantities): n, and r x, r, x; r the reference."""

    kind = "autocorrelation"
    slots = 1

    def __init__(self, observer, run: Run):
        super().__init__(observer, run)
        surface = run.surface
        self.lags = self.n_slots = whole_number(f"{self.name}: lags", observer.lags, 2, 100_000)
        looks = run.n_steps // self.every - self.first // self.every + 1
        if looks < self.lags:
            raise ParameterError(
                f"{self.name}: lags={self.lags} with {looks} looks after burn_in; needed: at least "
                "as many looks as lags, better several times as many. Use fewer lags, a smaller "
                "every or more steps."
            )
        self.single = isinstance(observer.formula, str)
        if observer.formula is None and surface.dim > 20:
            raise ParameterError(
                f"{self.name}: the surface has {surface.dim} coordinates; say which: "
                f"formula=({surface.variables[0]!r}, {surface.variables[1]!r})."
            )
        wanted = surface.variables if observer.formula is None else observer.formula
        self.texts, self.quantities = quantities.formulas(wanted, surface, self.name)
        m = self.n_quantities = len(self.quantities)
        points = np.asarray(run.start, dtype=float).reshape(-1, surface.dim)[:1000].mean(axis=0)
        centre = self.quantities.value(points, list(surface.parameters.values()))
        self.centre = np.where(np.isfinite(centre), centre, 0.0)
        shape = (run.n_tasks, self.parts * self.n_cells, self.lags, 1 + 3 * m)
        self.store = self.allocate(shape, float, "Use fewer lags, formulas or groups.")
        self.memory = {"reference": np.zeros((m, run.n_replicas))}

    def arguments(self) -> tuple:
        """What the kernel takes for this observer."""
        return (*self.counting(), self.centre, np.int64(self.lags), self.memory["reference"])

    def estimate(self, done: int, diverged: np.ndarray):
        """A MeasuredAutocorrelation, or one for each user group."""
        sums = self.store.reshape(-1, self.n_groups, self.lags, self.store.shape[-1])
        unit = "steps" if isinstance(self.run.dynamics, SGD) else "units of time"

        def estimated(g: int):
            spacing = self.every * self.time_unit(g)
            return correlation_from_sums(sums[:, g], spacing, unit, self.texts, self.single)

        return per_group(estimated, self.n_user_groups)
