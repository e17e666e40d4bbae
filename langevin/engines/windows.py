"""What a schedule tells the kernel about the steps of one window: factors, sizes, epochs."""

from __future__ import annotations

from typing import Any

import numpy as np

from langevin.engines.source import GROUP
from langevin.errors import ParameterError
from langevin.schedules import Schedule

RATE, NOISE, DRIFT, SIZE, EPOCH, OFFSET = range(6)


class Schedules:
    """Rows of factors for each step, made for one window at a time.

    RATE: of the learning rate. NOISE: of the noise, ``factor(S)**-power``. DRIFT: of eta/S. On
    data SIZE is the mini-batch itself, a whole number, and with ``epoch_shuffle`` EPOCH and OFFSET
    say which epoch a step belongs to and how many examples of it were taken before.
    """

    def __init__(self, surface: Any, dynamics: Any, n_steps: int):
        self.dynamics = dynamics
        self.n_examples = getattr(surface, "n_examples", None)
        self.power = getattr(getattr(surface, "noise", None), "batch_power", 0.5)
        self.rows = 0
        self.places = None
        self.last: tuple = ((-1, -1), np.empty((0, 0)))  # every task of a window asks for it
        if not getattr(dynamics, "is_scheduled", False):
            return
        self.rows = 3
        if self.n_examples is not None and isinstance(dynamics.batch_size, Schedule):
            if np.ndim(dynamics.batch_size.base):
                raise ParameterError(
                    "a batch-size schedule on data needs one size for all replicas, not one per "
                    "replica. Run the sizes one after the other."
                )
            self.rows = 6
            self.places = Places(dynamics, self.n_examples)
            for begin in range(0, n_steps, 2**20):
                self.places.sizes(np.arange(begin, min(begin + 2**20, n_steps)))
        last = np.array([n_steps - 1])
        for schedule in (dynamics.learning_rate, dynamics.batch_size):
            if isinstance(schedule, Schedule):
                schedule.factors(last)  # refuses a table that is too short before anything is run

    def window(self, begin: int, end: int) -> np.ndarray:
        """The rows for steps begin + 1 ... end, up to the end of a group of four."""
        if self.last[0] == (begin, end):
            return self.last[1]
        n = -(-max(end - begin, 1) // GROUP) * GROUP
        steps = np.minimum(np.arange(begin, begin + n), max(end - 1, begin))
        rate, size = (
            v.factors(steps) if isinstance(v, Schedule) else np.ones(n)
            for v in (self.dynamics.learning_rate, self.dynamics.batch_size)
        )
        table = np.empty((self.rows, n))
        table[RATE], table[NOISE], table[DRIFT] = rate, size**-self.power, rate / size
        if self.rows > 3:
            table[SIZE:] = self.places.of(steps)
        self.last = ((begin, end), table)
        return table


class Places:
    """Mini-batch sizes of a schedule on data and, epoch by epoch, where each batch begins."""

    def __init__(self, dynamics: Any, n_examples: int):
        self.dynamics, self.n = dynamics, n_examples
        self.shuffled = dynamics.sampling == "epoch_shuffle"
        self.step, self.epoch, self.offset = 0, 0, 0  # where the next step begins

    def sizes(self, steps: np.ndarray) -> np.ndarray:
        """Whole mini-batch sizes (n,); ParameterError where one exceeds the data."""
        values = self.dynamics.batch_size.base * self.dynamics.batch_size.factors(steps)
        sizes = np.maximum(1, np.round(values)).astype(np.int64)
        if self.dynamics.sampling != "with_replacement" and sizes.max() > self.n:
            raise ParameterError(
                f"the batch-size schedule reaches {sizes.max()}, more than the {self.n} examples. "
                "Keep it below, or use sampling='with_replacement'."
            )
        return sizes

    def of(self, steps: np.ndarray) -> np.ndarray:
        """(3, n): size, epoch and offset of each of ``steps``, which never decrease."""
        sizes = self.sizes(steps)
        if not self.shuffled:
            return np.stack([sizes, np.zeros_like(sizes), np.zeros_like(sizes)])
        if steps[0] < self.step:
            self.step, self.epoch, self.offset = 0, 0, 0
        if steps[0] > self.step:  # a resumed run: walk there
            for begin in range(self.step, int(steps[0]), 2**16):
                self.of(np.arange(begin, min(begin + 2**16, int(steps[0]))))
        places, repeated = np.zeros((3, len(steps))), np.flatnonzero(np.diff(steps) == 0) + 1
        for k, size in enumerate(sizes.tolist()):
            if k in repeated:  # padding behind the last step
                places[:, k] = places[:, k - 1]
                continue
            left = self.n - self.offset
            if left < (size if self.dynamics.drop_last else 1):
                self.epoch, self.offset, left = self.epoch + 1, 0, self.n
            size = min(size, left)
            places[:, k] = size, self.epoch, self.offset
            self.offset += size
            self.step += 1
        return places
