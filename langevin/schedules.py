"""Schedules of the learning rate and the batch size of SGD.

A schedule is a value, one number or one per replica, times a dimensionless factor of the step.
Step 0 is the first. Kernels get the factors of a window of steps, never of a whole run.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from langevin.checks import frozen, per_replica, real_array, real_number, whole_number
from langevin.errors import ParameterError

MAX_STEPS = 2**33


class Schedule:
    """What every schedule answers to: ``base``, a value per replica, and ``factors(steps)``."""

    value: Any

    @property
    def base(self) -> Any:
        """What the factors multiply: a number, or (n_replicas,)."""
        return self.value

    def __post_init__(self):
        owner = type(self).__name__
        if isinstance(self.value, Schedule):
            raise ParameterError(
                f"{owner}(value={self.value!r}): only Warmup takes another schedule as its value."
            )
        per_replica(owner, "value", self.value, low=0.0)
        object.__setattr__(self, "value", frozen(self.value))

    def factors(self, steps: np.ndarray) -> np.ndarray:
        """What the value is multiplied by at ``steps``, an integer array; same shape."""
        raise NotImplementedError

    def values(self, n_steps: int) -> np.ndarray:
        """The values of steps 0 ... n_steps - 1, (n_steps,), of a schedule of one number.

        Raises ParameterError where the value is an array, one per replica.
        """
        if np.ndim(self.base):
            raise ParameterError(
                f"{type(self).__name__} holds {np.size(self.base)} values, one per replica; "
                "values() needs a single one."
            )
        return float(self.base) * self.factors(np.arange(n_steps))

    def at(self, step: int) -> Any:
        """The value at one step: a number, or (n_replicas,)."""
        factor = float(self.factors(np.array([step]))[0])
        return np.asarray(self.base) * factor if np.ndim(self.base) else self.base * factor


def _positive(owner: str, name: str, value: Any, high: float = math.inf) -> None:
    if not (real_number(value) and 0 < float(value) <= high and math.isfinite(value)):
        bound = "" if math.isinf(high) else f" and at most {high:g}"
        raise ParameterError(f"{owner}({name}={value!r}): needs a number above 0{bound}.")


@dataclass(frozen=True, eq=False)
class Steps(Schedule):
    """``value``, multiplied by ``factor`` at each of the steps ``at_steps`` (milestones)."""

    value: Any
    at_steps: tuple[int, ...] = ()
    factor: float = 0.1

    def __post_init__(self):
        super().__post_init__()
        _positive("Steps", "factor", self.factor)
        given = real_array("Steps: at_steps", self.at_steps, "needs whole numbers, the milestones")
        if given.ndim != 1 or (np.diff(given) <= 0).any() or (given < 1).any():
            raise ParameterError(
                f"Steps(at_steps={self.at_steps!r}): needs increasing step numbers from 1 on."
            )
        marks = tuple(whole_number("Steps: at_steps", v, 1, MAX_STEPS) for v in given)
        object.__setattr__(self, "at_steps", marks)

    def factors(self, steps: np.ndarray) -> np.ndarray:
        """``factor**(milestones passed)``."""
        passed = np.searchsorted(np.array(self.at_steps, float), steps, side="right")
        return float(self.factor) ** passed


@dataclass(frozen=True, eq=False)
class Cosine(Schedule):
    """Half a cosine from ``value`` to ``final * value`` over ``n_steps`` steps, then constant.

    Source: Loshchilov and Hutter 2017, Eq. 5, without restarts.
    """

    value: Any
    n_steps: int
    final: float = 0.01

    def __post_init__(self):
        super().__post_init__()
        whole_number("Cosine: n_steps", self.n_steps, 1, MAX_STEPS)
        _positive("Cosine", "final", self.final)

    def factors(self, steps: np.ndarray) -> np.ndarray:
        """``final + (1 - final)(1 + cos(pi step/n_steps))/2``."""
        progress = np.minimum(np.asarray(steps) / self.n_steps, 1.0)
        return self.final + (1 - self.final) * (1 + np.cos(np.pi * progress)) / 2


@dataclass(frozen=True, eq=False)
class Exponential(Schedule):
    """``value * exp(-step/steps)``: a decay over ``steps`` steps, not below ``final * value``."""

    value: Any
    steps: float
    final: float = 1e-6

    def __post_init__(self):
        super().__post_init__()
        _positive("Exponential", "steps", self.steps)
        _positive("Exponential", "final", self.final)

    def factors(self, steps: np.ndarray) -> np.ndarray:
        """``max(exp(-step/steps), final)``."""
        return np.maximum(np.exp(-np.asarray(steps) / self.steps), self.final)


@dataclass(frozen=True, eq=False)
class Triangular(Schedule):
    """Linear from ``low * value`` up to ``value`` and back, every ``period`` steps (Smith 2017)."""

    value: Any
    period: int
    low: float = 0.1

    def __post_init__(self):
        super().__post_init__()
        whole_number("Triangular: period", self.period, 2, MAX_STEPS)
        _positive("Triangular", "low", self.low, 1.0)

    def factors(self, steps: np.ndarray) -> np.ndarray:
        """``low + (1 - low)(1 - |2 phase - 1|)``, phase = (step mod period)/period."""
        phase = np.mod(steps, self.period) / self.period
        return self.low + (1 - self.low) * (1 - np.abs(2 * phase - 1))


@dataclass(frozen=True, eq=False)
class Cyclic(Schedule):
    """``factor * value`` for each of ``multipliers`` in turn, each held for ``hold`` steps."""

    value: Any
    multipliers: tuple[float, ...]
    hold: int

    def __post_init__(self):
        super().__post_init__()
        whole_number("Cyclic: hold", self.hold, 1, MAX_STEPS)
        needs = "needs numbers above 0, the cycle"
        given = real_array("Cyclic: multipliers", self.multipliers, needs)
        if given.ndim != 1 or given.size == 0 or not ((given > 0) & np.isfinite(given)).all():
            raise ParameterError(f"Cyclic(multipliers={self.multipliers!r}): {needs}.")
        object.__setattr__(self, "multipliers", tuple(float(v) for v in given))

    def factors(self, steps: np.ndarray) -> np.ndarray:
        """``multipliers[(step // hold) mod n]``."""
        turn = np.mod(np.asarray(steps) // self.hold, len(self.multipliers))
        return np.array(self.multipliers)[turn]


@dataclass(frozen=True, eq=False)
class Table(Schedule):
    """``factors_by_step[step] * value``: any schedule at all, as long as the run.

    Raises ParameterError when a run takes more steps than the table has.
    """

    value: Any
    factors_by_step: Any

    def __post_init__(self):
        super().__post_init__()
        needs = "needs numbers above 0, one per step"
        given = real_array("Table: factors_by_step", self.factors_by_step, needs)
        if given.ndim != 1 or given.size == 0 or not ((given > 0) & np.isfinite(given)).all():
            raise ParameterError(f"Table: factors_by_step of shape {given.shape}: {needs}.")
        given.setflags(write=False)
        object.__setattr__(self, "factors_by_step", given)

    def factors(self, steps: np.ndarray) -> np.ndarray:
        """The table's own entries."""
        steps = np.asarray(steps)
        n = len(self.factors_by_step)
        if steps.size and steps.max() >= n:
            raise ParameterError(
                f"Table has the factors of {n} steps; step {int(steps.max()) + 1} was asked for. "
                "Give a factor for every step of the run."
            )
        return self.factors_by_step[steps]


@dataclass(frozen=True, eq=False)
class Warmup(Schedule):
    """``value``, a number or another schedule, rising linearly over the first ``n_steps`` steps.

    The first step takes ``1/n_steps`` of it (Goyal et al. 2017).
    """

    value: Any
    n_steps: int

    def __post_init__(self):
        if not isinstance(self.value, Schedule):
            super().__post_init__()
        whole_number("Warmup: n_steps", self.n_steps, 1, MAX_STEPS)

    @property
    def base(self) -> Any:
        """The value, or that of the schedule within."""
        return self.value.base if isinstance(self.value, Schedule) else self.value

    def factors(self, steps: np.ndarray) -> np.ndarray:
        """``min(1, (step + 1)/n_steps)`` times the factors of the schedule within."""
        ramp = np.minimum(1.0, (np.asarray(steps) + 1) / self.n_steps)
        return ramp * self.value.factors(steps) if isinstance(self.value, Schedule) else ramp


def exchange(
    learning_rate: Schedule, batch_size: float, *, to: float, n_steps: int
) -> tuple[float, Table]:
    """The batch-size schedule that a schedule of the learning rate can be exchanged for.

    Both keep eta/S the same function of the examples seen, and so of the time t = eta * steps:
    where ``learning_rate`` takes ``n_steps`` steps of ``batch_size`` examples each, the exchanged
    run takes steps of the constant rate ``to`` with ``S = batch_size to/eta``. Returns ``to`` and
    the schedule of S, a Table as long as its run (Smith et al. 2018; Jastrzebski et al. 2017,
    section 3.3). Real-valued sizes suit a formula; on data they are rounded.

    Raises ParameterError for arguments out of range.
    """
    if not isinstance(learning_rate, Schedule):
        raise ParameterError(f"exchange({learning_rate!r}, ...): needs a schedule, such as Cosine.")
    _positive("exchange", "batch_size", batch_size)
    _positive("exchange", "to", to)
    rates = learning_rate.values(whole_number("exchange: n_steps", n_steps, 1, 10**8))
    sizes, seen, total = [], 0.0, n_steps * float(batch_size)
    while seen < total * (1 - 1e-12):
        size = batch_size * to / rates[min(int(seen / batch_size), n_steps - 1)]
        sizes.append(size)
        seen += size
    return float(to), Table(float(batch_size), np.array(sizes) / batch_size)
