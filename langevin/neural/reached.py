"""Weights at given losses: what the observer `AtLoss` keeps, and when it has seen enough."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from langevin.checks import real_array
from langevin.errors import ParameterError
from langevin.neural.observers import AtLoss, Bound, View


@dataclass(frozen=True)
class Reached:
    """Weights ``positions`` (n_replicas, levels, dim) where the loss first was at ``levels``.

    ``levels`` (levels,) fall; ``steps`` (n_replicas, levels) are the steps of the looks that found
    them, -1 where none did; there ``losses``, those that were found, and ``positions`` are NaN.
    """

    name: str
    levels: np.ndarray
    steps: np.ndarray
    losses: np.ndarray
    positions: np.ndarray

    @property
    def everywhere(self) -> bool:
        """Whether all replicas have reached all levels."""
        return bool((self.steps >= 0).all())


class BoundReached(Bound):
    """An AtLoss with what it has found; a checkpoint carries ``store`` and ``memory``."""

    def __init__(self, observer: AtLoss, n_replicas: int, n_steps: int, burn_in: int):
        super().__init__(observer, n_replicas, n_steps, burn_in)
        needed = "needs losses (levels,) that fall, such as (0.1, 0.01)"
        self.levels = np.atleast_1d(real_array(f"{self.name}: levels", observer.levels, needed))
        good = self.levels.ndim == 1 and self.levels.size and np.isfinite(self.levels).all()
        if not good or (np.diff(self.levels) >= 0).any():
            raise ParameterError(f"{self.name}: levels={observer.levels!r}: {needed}.")
        size = (n_replicas, len(self.levels))
        self.memory = {"steps": np.full(size, -1, np.int64), "losses": np.full(size, np.nan)}

    def record(self, step: int, places: np.ndarray, view: View) -> None:
        """Keeps the weights of the replicas of a chunk that have reached another level."""
        losses, rows = view.of(None).loss.numpy(), view.rows.cpu().numpy()
        if not self.store.size:
            size = (self.n_replicas, len(self.levels), rows.shape[1])
            self.store = np.full(size, np.nan, rows.dtype)
        steps = self.memory["steps"]
        for place, loss, row in zip(places, losses, rows, strict=True):
            new = (loss <= self.levels) & (steps[place] < 0)
            steps[place, new], self.memory["losses"][place, new] = step, loss
            self.store[place, new] = row

    def arguments(self) -> tuple:
        """What a checkpoint compares."""
        return (self.due, self.levels)

    def satisfied(self, fate: np.ndarray) -> bool:
        """Whether nothing is left to be found, ``fate`` (n_replicas,) 0 or more of the diverged."""
        return bool(((self.memory["steps"][:, -1] >= 0) | (fate >= 0)).all())

    def estimate(self, done: int) -> Reached:
        """What was found."""
        found = {key: array.copy() for key, array in self.memory.items()}
        return Reached(self.name, self.levels, **found, positions=self.store.copy())


def bind(observer: Any, *run: int) -> Bound:
    """An observer with room for what it records of a run; see `Bound`."""
    return (BoundReached if isinstance(observer, AtLoss) else Bound)(observer, *run)


def satisfied(bound: list[Bound], fate: np.ndarray) -> bool:
    """Whether an observer that may stop the run has all it wanted."""
    asking = [b for b in bound if isinstance(b, BoundReached) and b.observer.stop]
    return any(b.satisfied(fate) for b in asking)
