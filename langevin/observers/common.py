"""What every observer shares: its schedule, its groups, its memory."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from langevin.checks import real_array, whole_number
from langevin.dynamics import SGD
from langevin.errors import ParameterError

NEVER = 2**62  # a step that no run reaches
LARGEST = 2**31  # bytes that one observer's counters may take
N_GROUPS = 64  # error groups that every user group should have


@dataclass(frozen=True)
class Run:
    """What an observer needs to know of the run it rides in."""

    surface: Any
    dynamics: Any
    n_replicas: int
    n_steps: int
    burn_in: int
    dtype: np.dtype
    n_tasks: int
    origins: np.ndarray  # index of the starting basin, (n_replicas,) or (1,)
    temperature: float | None
    start: np.ndarray

    @property
    def time_unit(self) -> np.ndarray:
        """The time of one step, (1,) or (n_replicas,): 1 for SGD, dt for Langevin dynamics."""
        unit = 1.0 if isinstance(self.dynamics, SGD) else self.dynamics.dt
        return np.atleast_1d(np.asarray(unit, dtype=float))


class Bound:
    """An observer with its memory, ready to ride in a kernel.

    ``store`` holds the counts or sums of all tasks, ``memory`` what single replicas carry from one
    call of the kernel to the next, by name; together they are the observer's whole state.
    """

    kind = ""
    slots = 2  # kept apart: the two halves of the run; with at=, one for each of its steps
    from_burn_in = True

    def __init__(self, observer, run: Run):
        if not isinstance(observer.name, str) or not observer.name:
            raise ParameterError(f"an observer's name={observer.name!r} must be text, not empty.")
        self.name, self.run = observer.name, run
        self.memory: dict[str, np.ndarray] = {}
        self.store = np.empty(0, np.int64)
        self.at = _steps(getattr(observer, "at", None), run.n_steps, self.name)
        burn_in = run.burn_in if self.from_burn_in and self.at is None else 0
        self.every = whole_number(f"{self.name}: every", observer.every, 1, NEVER)
        if self.at is not None and self.every != 1:
            raise ParameterError(
                f"{self.name}: every={observer.every} and at= are two schedules; give one of them."
            )
        self.first = (burn_in // self.every + 1) * self.every
        if self.first > run.n_steps:
            raise ParameterError(
                f"{self.name}: with burn_in={burn_in}, n_steps={run.n_steps} and "
                f"every={observer.every} there is no step to observe. Use a smaller every or more "
                "steps."
            )
        self.middle = (burn_in + run.n_steps) // 2 if self.slots == 2 else NEVER
        self.n_slots = self.slots if self.at is None else len(self.at)
        self.grouped = getattr(observer, "groups", None) is not None
        self.groups = _labels(getattr(observer, "groups", None), run.n_replicas, self.name)
        self.n_groups = int(self.groups.max()) + 1
        # Parts of a block: enough that every user group still has about 64 error groups.
        smallest = run.n_replicas if self.n_groups == 1 else np.bincount(self.groups).min()
        blocks = smallest / 64
        self.parts = int(min(64, 2 ** math.ceil(math.log2(max(1.0, N_GROUPS / blocks)))))
        self.cells, self.n_cells = self.groups, self.n_groups

    def by_origin(self) -> int:
        """Makes a cell of each user group and starting basin; returns the number of basins."""
        origins = np.unique(self.run.origins, return_inverse=True)[1]
        n = int(origins.max()) + 1
        if self.n_groups * n > 10_000:
            return 1
        cells = self.groups.astype(np.int32) * n + origins
        if (cells == cells[0]).all():
            cells = cells[:1]
        self.cells = np.ascontiguousarray(cells, dtype=np.int16)
        self.n_cells = self.n_groups * n
        return n

    def allocate(self, shape: tuple, dtype, advice: str) -> np.ndarray:
        """Zeros, or ParameterError with the advice where they would take too much memory."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if size > LARGEST:
            raise ParameterError(
                f"{self.name}: this takes {size / 2**30:.3g} GiB of memory; "
                f"at most {LARGEST / 2**30:.0f} GiB are allowed. {advice}"
            )
        return np.zeros(shape, dtype)

    def schedule(self) -> tuple:
        """The kernel's arguments that say when this observer looks."""
        if self.at is not None:
            return (np.append(self.at, NEVER),)
        return (np.int64(self.first), np.int64(self.every), np.int64(self.middle))

    def counting(self) -> tuple:
        """The kernel's arguments of an observer that counts: schedule, cells and store."""
        cells = (self.cells, np.int64(self.n_cells), np.int64(self.parts), self.store)
        return (*self.schedule(), *cells)

    def members(self, group: int) -> np.ndarray | slice:
        """Indices of the replicas of a user group."""
        return np.flatnonzero(self.groups == group) if self.grouped else slice(None)

    def time_unit(self, group: int) -> float:
        """The time of one step in a user group; NaN where its replicas differ."""
        unit = self.run.time_unit
        mine = unit if len(unit) == 1 else unit[self.members(group)]
        return float(mine[0]) if (mine == mine[0]).all() else math.nan

    @property
    def n_user_groups(self) -> int | None:
        """How many user groups there are to estimate, None without groups=."""
        return self.n_groups if self.grouped else None


def _steps(at, n_steps: int, name: str) -> np.ndarray | None:
    """The steps given as at=, sorted and unique."""
    if at is None:
        return None
    given = np.atleast_1d(real_array(f"{name}: at", at, "needed: whole numbers, the steps"))
    whole = given.ndim == 1 and given.size > 0 and (given == np.round(given)).all()
    if not whole or given.min() < 1 or given.max() > n_steps:
        raise ParameterError(
            f"{name}: at={at!r} must be whole numbers from 1 to n_steps={n_steps}, the steps to "
            "look at."
        )
    return np.unique(given).astype(np.int64)


def _labels(groups, n_replicas: int, name: str) -> np.ndarray:
    if groups is None:
        return np.zeros(1, np.int16)
    try:
        labels = np.asarray(groups)
    except ValueError:
        labels = np.empty(0, object)
    if labels.shape != (n_replicas,) or not np.issubdtype(labels.dtype, np.integer):
        raise ParameterError(
            f"{name}: groups= has shape {labels.shape} and type {labels.dtype}; needed: integers "
            f"of shape ({n_replicas},), one label per replica."
        )
    if labels.min() < 0 or labels.max() > 10_000:
        raise ParameterError(f"{name}: groups= must hold labels 0, 1, ... up to 10,000.")
    missing = np.flatnonzero(np.bincount(labels) == 0)
    if len(missing):
        raise ParameterError(
            f"{name}: groups= has no replica with label {missing[0]}, but some with higher labels. "
            f"Number the groups 0, 1, ... without gaps (np.unique(labels, return_inverse=True))."
        )
    return labels.astype(np.int16)
