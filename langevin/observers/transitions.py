"""How often replicas go from the basin of one minimum to that of another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from langevin.analysis.groups import per_group
from langevin.analysis.transitions import MeasuredTransitions
from langevin.dynamics import SGD
from langevin.errors import UnsoundError
from langevin.observers.basins import BasinFinder
from langevin.observers.common import Bound, Run


@dataclass(frozen=True)
class Transitions:
    """Counts of basin at one look against basin at the next, ``every`` steps later.

    Also counted are pairs ``2 every`` apart, from which it is tested whether the basins form a
    Markov chain at this lag: below the time that a replica takes to settle in a basin, crossings
    back and forth over the saddle count as transitions, and rates come out too high. A look that
    finds a replica in no known basin ends its chain: pairs with such an end are not counted.
    """

    every: int = 1
    groups: Any = None
    name: str = "transitions"


class BoundTransitions(Bound):
    """Flat counts (tasks, parts * groups * 2 lags * n * n + 1), the last slot for no pair."""

    kind = "transitions"
    slots = 1

    def __init__(self, observer, run: Run):
        super().__init__(observer, run)
        self.finder = BasinFinder(run)
        self.n = n = self.finder.n
        if n < 2:
            raise UnsoundError(
                f"{self.name}: {run.surface!r} has {n} known minimum, so there is no transition to "
                "count."
            )
        size = self.parts * self.n_cells * 2 * n * n + 1
        advice = f"Use fewer groups: each counts {n} x {n} pairs of minima."
        self.store = self.allocate((run.n_tasks, size), np.int64, advice)
        # Basins at the last look and at the one before; -1: none.
        self.memory = {
            "last": np.full(run.n_replicas, -1, np.int32),
            "before": np.full(run.n_replicas, -1, np.int32),
        }

    def arguments(self) -> tuple:
        """What the kernel takes for this observer."""
        memory = (self.memory["last"], self.memory["before"])
        return (*self.counting(), *memory, *self.finder.arguments())

    def estimate(self, done: int, diverged: np.ndarray):
        """MeasuredTransitions, or one for each user group."""
        counts = self.store[:, :-1].reshape(-1, self.n_groups, 2, self.n, self.n)
        unit = "steps" if isinstance(self.run.dynamics, SGD) else "units of time"

        def estimated(g: int) -> MeasuredTransitions:
            lag = self.every * self.time_unit(g)
            return MeasuredTransitions(counts[:, g], lag, unit).observed()

        return per_group(estimated, self.n_user_groups)
