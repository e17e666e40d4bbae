"""Positions kept as they were: for looking at, not for statistics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from langevin.analysis.correlation import Trajectories
from langevin.checks import real_array
from langevin.errors import ParameterError, UnsoundError
from langevin.observers.common import NEVER, Bound, Run


@dataclass(frozen=True)
class Trajectory:
    """The positions after every ``every``-th step, of all replicas or of some.

    ``replicas``: how many, from the first, or the indices (0 is the run's first replica). The only
    observer whose memory grows with the number of steps: at most 2 GiB.
    """

    every: int = 1
    replicas: Any = None
    name: str = "trajectory"


class BoundTrajectory(Bound):
    """Records (records, dim, recorded replicas)."""

    kind = "trajectory"
    slots = 1

    def __init__(self, observer, run: Run):
        super().__init__(observer, run)
        self.replicas = _replicas(observer.replicas, run.n_replicas, self.name)
        self.steps = np.arange(self.first, run.n_steps + 1, self.every)
        shape = (len(self.steps), run.surface.dim, len(self.replicas))
        advice = "Record fewer replicas (replicas=100) or steps (a larger every=)."
        self.store = self.allocate(shape, run.dtype, advice)
        self.place = np.full(run.n_replicas, -1, np.int64)
        self.place[self.replicas] = np.arange(len(self.replicas))

    def arguments(self) -> tuple:
        """What the kernel takes for this observer."""
        return (*self.schedule(), self.place, self.store)

    def estimate(self, done: int, diverged: np.ndarray):
        """The Trajectories of what was recorded; NaN from a replica's divergence on."""
        n = int(np.searchsorted(self.steps, done, side="right"))
        if n == 0:
            raise UnsoundError("the run ended before the trajectory's first step.")
        steps = self.steps[:n]
        positions = np.ascontiguousarray(self.store[:n].transpose(2, 0, 1))
        unit = self.run.time_unit
        times = steps * unit[0] if len(unit) == 1 else steps * unit[self.replicas][:, None]
        return Trajectories(positions, steps, times, self.replicas)


def _replicas(given, n: int, name: str) -> np.ndarray:
    if given is None:
        return np.arange(n)
    wanted = real_array(f"{name}: replicas", given, "needed: a number, or whole numbers")
    single = wanted.ndim == 0
    if single and 1 <= wanted <= n and wanted == np.round(wanted):
        return np.arange(int(wanted))
    good = wanted.ndim == 1 and wanted.size > 0 and (wanted == np.round(wanted)).all()
    if not good or wanted.min() < 0 or wanted.max() >= min(n, NEVER):
        raise ParameterError(
            f"{name}: replicas={given!r} must be how many (1 to {n}), or indices from 0 to {n - 1}."
        )
    return np.unique(wanted).astype(np.int64)
