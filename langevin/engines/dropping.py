"""Replicas that have nothing left to wait for need not run on."""

from __future__ import annotations

import dataclasses
import functools
import operator

import numpy as np


def passages_alone(observers) -> bool:
    """Whether first passages are all that is observed."""
    return bool(observers) and all(observer.kind == "first_passage" for observer in observers)


def waiting(state, observers) -> np.ndarray | None:
    """Whether each replica still has a passage before it; None where something else is observed."""
    if not passages_alone(observers):
        return None
    open_passages = [observer.memory["passed"] == 0 for observer in observers]
    return (state.fate < 0) & functools.reduce(operator.or_, open_passages)


def all_passed(state, observers) -> bool:
    """Whether a run that observes first passages alone has nothing left to wait for."""
    wanted = waiting(state, observers)
    return wanted is not None and not wanted.any()


def pays(n_waiting: int, n_replicas: int) -> bool:
    """Whether to pack the waiting replicas: once a quarter has finished."""
    return 0 < n_waiting <= 0.75 * n_replicas


class Remaining:
    """The replicas that a call of the kernel has to move: all, or the waiting ones, packed.

    Which they are depends on the state alone, so that a run cut anywhere goes on as it would have;
    where this state is a part of all replicas, ``packed`` says whether they all pack. Data's own
    batch sizes are not packed.
    """

    def __init__(self, state, observers, packed: bool | None = None):
        self.whole, self.watched, self.replicas = state, observers, None
        self.state, self.observers = state, observers
        wanted = None if state.extra else waiting(state, observers)
        if wanted is None:
            return
        if not (pays(int(wanted.sum()), len(wanted)) if packed is None else packed):
            return
        self.replicas = replicas = wanted.nonzero()[0]  # arrays may be a GPU's
        each = state.coefficients.shape[1] > 1
        self.state = dataclasses.replace(
            state,
            positions=state.positions[:, replicas].copy(order="C"),
            coefficients=state.coefficients[:, replicas].copy() if each else state.coefficients,
            fate=state.fate[replicas],
            numbers=(state.first_replica + replicas).astype(np.uint64),
        )
        self.observers = [observer.only(replicas) for observer in observers]

    def put_back(self) -> None:
        """Writes the packed replicas' state and memory to their places."""
        if self.replicas is None:
            return
        self.whole.positions[:, self.replicas] = self.state.positions
        self.whole.fate[self.replicas] = self.state.fate
        for whole, packed in zip(self.watched, self.observers, strict=True):
            for name, values in packed.memory.items():
                whole.memory[name][self.replicas] = values
