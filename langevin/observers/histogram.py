"""The density of the positions."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from langevin.analysis.density import density_from_counts
from langevin.analysis.groups import per_group, series
from langevin.checks import real_array
from langevin.errors import ConvergenceWarning, ParameterError, UnsoundError
from langevin.observers.common import Bound, Run


@dataclass(frozen=True)
class Histogram:
    """Density of the positions, from equal bins counted inside the kernel.

    ``bins``: a number, or one number an axis. ``range``: (low, high), or one pair an axis; None
    takes the box where the surface holds all but a negligible part of the density. ``axes``: one
    or two coordinates; needed above two dimensions. Every ``every``-th step after burn_in is
    counted; with ``at``, a sequence of steps from 1 to n_steps, the density at each of these steps
    is kept apart, whatever burn_in. ``groups``: (n_replicas,) integer labels, one density each.
    """

    bins: Any = 200
    range: Any = None
    axes: Any = None
    every: int = 1
    groups: Any = None
    name: str = "density"
    at: Any = None


class BoundHistogram(Bound):
    """Counts (tasks, parts * groups * times * (bins + 1) + 1)."""

    kind = "histogram"
    slots = 1

    def __init__(self, observer, run: Run):
        super().__init__(observer, run)
        self.axes = _axes(observer.axes, run.surface.dim, self.name)
        self.bins = _bins(observer.bins, len(self.axes), self.name)
        self.low, self.high = _range(observer.range, self.axes, run, self.name)
        self.width = math.prod(self.bins) + 1
        size = self.parts * self.n_groups * self.n_slots * self.width + 1
        advice = "Use fewer bins, groups or steps."
        self.store = self.allocate((run.n_tasks, size), np.int64, advice)

    def arguments(self) -> tuple:
        """What the kernel takes for this observer."""
        real = self.run.dtype.type
        inverse = np.array(self.bins) / (self.high - self.low)
        return (
            *self.counting(),
            self.low.astype(real),
            inverse.astype(real),
            np.array(self.bins, np.int32),
        )

    def estimate(self, done: int, diverged: np.ndarray):
        """A Density, or one for each user group; with at=, a Series of that."""
        counts = self.store[:, :-1].reshape(-1, self.n_groups, self.n_slots, self.width)
        edges = [
            np.linspace(low, high, n + 1)
            for low, high, n in zip(self.low, self.high, self.bins, strict=True)
        ]

        def at(slot: int):
            return per_group(
                lambda g: density_from_counts(counts[:, g, slot], edges, self.axes),
                self.n_user_groups,
            )

        return at(0) if self.at is None else series(self.at, at)


def _axes(axes, dim: int, name: str) -> tuple[int, ...]:
    if axes is None:
        if dim > 2:
            raise ParameterError(
                f"{name}: the surface has {dim} dimensions; say which one or two to count: "
                "axes=(0, 1)."
            )
        return tuple(range(dim))
    chosen = tuple(axes) if isinstance(axes, (tuple, list, np.ndarray)) else (axes,)
    good = all(isinstance(a, (int, np.integer)) and 0 <= a < dim for a in chosen)
    if not good or not 1 <= len(chosen) <= 2 or len(set(chosen)) != len(chosen):
        raise ParameterError(
            f"{name}: axes={axes!r} must name one or two different coordinates from 0 to {dim - 1}."
        )
    return tuple(int(a) for a in chosen)


def _bins(bins, n_axes: int, name: str) -> tuple[int, ...]:
    chosen = tuple(bins) if isinstance(bins, (tuple, list, np.ndarray)) else (bins,) * n_axes
    good = all(isinstance(b, (int, np.integer)) and not isinstance(b, bool) for b in chosen)
    if not good or len(chosen) != n_axes or min(chosen) < 1 or math.prod(map(int, chosen)) > 2**31:
        raise ParameterError(
            f"{name}: bins={bins!r} must be a whole number >= 1, or {n_axes} of them."
        )
    return tuple(int(b) for b in chosen)


def _range(wanted, axes, run: Run, name: str) -> tuple[np.ndarray, np.ndarray]:
    if wanted is None:
        if run.temperature is None or run.temperature <= 0:
            raise ParameterError(
                f"{name}: this run has no temperature from which to choose a range. "
                "Give range=(low, high), or one pair per axis."
            )
        energies = [m.energy for m in run.surface.minima()]
        rise = (max(energies) - min(energies)) / run.temperature  # replicas may start in any
        low, high = run.surface.bounds(run.temperature, 30.0 + rise)
        return np.asarray(low, float)[list(axes)], np.asarray(high, float)[list(axes)]
    try:
        pairs = np.broadcast_to(real_array("range", wanted, "numbers"), (len(axes), 2))
    except ValueError:
        raise ParameterError(
            f"{name}: range={wanted!r} must be (low, high), or one such pair for each of "
            f"{len(axes)} axes."
        ) from None
    low, high = pairs[:, 0].copy(), pairs[:, 1].copy()
    if not (np.isfinite(pairs).all() and (high > low).all()):
        raise ParameterError(f"{name}: range={wanted!r} must be finite with low < high.")
    if run.temperature:
        try:
            inner, outer = run.surface.bounds(run.temperature)
        except UnsoundError as error:
            warnings.warn(
                f"{name}: there is no stationary density to measure; what is counted depends on "
                f"burn_in and n_steps. {error}",
                ConvergenceWarning,
                stacklevel=5,
            )
            return low, high
        if (high <= np.asarray(inner)[list(axes)]).any() or (
            low >= np.asarray(outer)[list(axes)]
        ).any():
            raise ParameterError(
                f"{name}: range={wanted!r} lies outside the domain, from {inner} to {outer} at "
                f"temperature {run.temperature:.4g}. Leave range=None to take that domain."
            )
    return low, high
