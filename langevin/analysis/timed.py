"""Densities and occupations at given times beside the law at those times."""

from __future__ import annotations

import inspect
import math
from typing import Any

import numpy as np

from langevin.analysis.distances import distances
from langevin.analysis.finals import chi_square_rows, kolmogorov_rows
from langevin.analysis.groups import PerGroup
from langevin.analysis.rows import occupation_rows
from langevin.dynamics import SGD
from langevin.errors import LangevinError, ParameterError

MOST = 4096  # start points handed to a prediction


def gather(found: Any, result: Any, prediction: Any, name: str, group: Any, start: Any) -> None:
    """Adds to ``found`` the rows of one observer with at=, one set for each of its steps.

    At one given step every replica is counted once: chi-square on a Histogram's bins is exact, and
    so is Kolmogorov-Smirnov where the step is the run's last, if all began at one point. Fixed
    shares of several scatter less than chance would have it: both are then cautious at first.
    A step whose law the prediction refuses is left out, and a note says why.
    """
    from langevin.analysis.compare import alive, bin_probabilities, one_group

    kind = result.kinds[name]
    if not hasattr(prediction, "at") or kind not in ("histogram", "occupation"):
        return
    series = result.observed[name]
    members = alive(result, name, group)
    begin = starts(result, name, group, start)
    for step, observed in zip(series.steps, series.estimates, strict=True):
        if isinstance(observed, Exception):  # the run ended before
            continue
        when = f" at {step:,}"
        observed = one_group(observed, name, group) if isinstance(observed, PerGroup) else observed
        if kind == "occupation" and group is not None and name in result.groups:
            observed = observed.group(group)
        try:
            law = law_at(prediction, int(step), result.dynamics, begin, group, result, name)
        except LangevinError as error:
            found.notes.append(f"note: {name!r}{when} is not compared: {error}")
            continue
        if kind == "occupation":
            counts = observed._by_class.sum(axis=0)
            found.rows += occupation_rows(observed, law, counts, int(counts.sum()), when)
            continue
        expected = bin_probabilities(law, observed, result.surface.dim)
        if expected is None:
            continue
        found.distances += distances(observed, expected, when)
        if not getattr(law, "gaussian", True):
            continue
        n = observed.n_observations
        counts = np.rint(np.append(observed.probability.ravel(), observed.outside) * n)
        found.rows += chi_square_rows(
            counts, expected.ravel(), f"positions{when}", order=expected.ndim > 1
        )
        if step == result.steps_done:
            found.rows += kolmogorov_rows(result.positions[members], law, observed.axes, when)


def law_at(prediction: Any, step: int, dynamics: Any, start: Any, group, result, name) -> Any:
    """``prediction.at`` of a step, in whichever unit it counts: a step, or the dynamics' time."""
    first = next(iter(inspect.signature(prediction.at).parameters), "t")
    return prediction.at(
        step if first == "step" else step * unit(dynamics, group, result, name), start=start
    )


def unit(dynamics: Any, group: int | None, result: Any, name: str) -> float:
    """The time of one step: 1 for SGD, dt for Langevin dynamics."""
    if isinstance(dynamics, SGD):
        return 1
    dt = np.asarray(dynamics.dt, dtype=float)
    if dt.ndim > 0:
        labels = result.groups.get(name)
        dt = dt if labels is None or group is None else dt[labels == group]
        if not (dt == dt.flat[0]).all():
            raise ParameterError(
                "replicas of different dt have no common time at a step. Give the observer "
                "groups=, one label for each dt, and compare with group=."
            )
        dt = dt.flat[0]
    return float(dt)


def starts(result: Any, name: str, group: int | None, start: Any) -> Any:
    """Where the replicas compared began, as ``.at(start=)`` takes it.

    None means equal shares of the minima. Raises ParameterError where the run does not know it.
    """
    if start is not None:
        return start
    labels = result.groups.get(name)
    some = np.ones(result.n_replicas, bool)
    if labels is not None and group is not None:
        some = labels == group
    if result.start is None:
        minima = result.surface.minima()
        numbers = result.first_replica + np.flatnonzero(some)
        shares = np.bincount(numbers % len(minima), minlength=len(minima))
        if np.ptp(shares) <= 1:
            return None
        points = np.array([m.position for m in minima])
    elif len(result.start) and (some.all() or len(result.start) == 1):
        return result.start
    else:
        raise ParameterError(
            f"the replicas of {name!r} began in too many places for the result to remember which: "
            "pass start= to compare(), the points (k, dim) where they began, in equal shares."
        )
    return np.repeat(points, reduced(shares), axis=0)


def reduced(shares: np.ndarray) -> np.ndarray:
    """Whole numbers in the ratio of the shares, at most MOST altogether."""
    shares = shares // math.gcd(*map(int, shares))
    if shares.sum() > MOST:
        shares = np.rint(shares * (MOST / shares.sum())).astype(int)
    return shares
