"""Two results against each other: is it one law that both have measured?"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from langevin.analysis.averages import MeasuredAverage
from langevin.analysis.distances import distances
from langevin.analysis.finals import two_sample_rows
from langevin.analysis.groups import PerGroup, Series
from langevin.analysis.rows import ROUNDINGS, Row, entry, estimate_row
from langevin.errors import ParameterError, UnsoundError
from langevin.result import Estimate

MOST_AXES = 64  # along which final positions are tested


def gather(found: Any, first: Any, second: Any, group: Any, allow: bool, only: str | None):
    """Adds to ``found`` every quantity that both observed under one name; the other's name."""
    groups = group if isinstance(group, tuple) else (group, group)
    if len(groups) != 2:
        raise ParameterError(f"group={group!r}: for two results give one number, or a pair.")
    if first.surface.dim != second.surface.dim:
        raise ParameterError(
            f"the results have {first.surface.dim} and {second.surface.dim} dimensions: they "
            "share no quantity."
        )
    members = [_members(r, g, only) for r, g in zip((first, second), groups, strict=True)]
    _refuse_shared_noise(first, second, members)
    for name, kind in first.kinds.items():
        if second.kinds.get(name) != kind or only not in (None, name):
            continue
        a, b = first.observed[name], second.observed[name]
        if isinstance(a, Exception) or isinstance(b, Exception):
            continue
        if isinstance(a, Series) != isinstance(b, Series):
            continue
        if isinstance(a, Series):
            _in_order(found, name, kind, a, b, first, second, groups)
            continue
        if kind == "occupation":
            a, b = (o.checked(allow_unequilibrated=allow) for o in (a, b))
        a, b = (_one(o, name, r, g) for o, r, g in _zip(a, b, first, second, groups))
        _add(found, kind, a, b, _rounding(first, second))
    kinds = {*first.kinds.values(), *second.kinds.values()}
    if found.rows and kinds & {"histogram", "occupation", "moments"} and not _timed(first, second):
        positions = [r.positions[m] for r, m in zip((first, second), members, strict=True)]
        found.rows += two_sample_rows(*positions, range(min(first.surface.dim, MOST_AXES)))
    label = f"another run (seed {second.seed}, {second.n_replicas:,} replicas)"
    return label, "measured: both sides carry an error"


def _timed(first: Any, second: Any) -> bool:
    """Whether all that the two share is taken at given times: then final positions need not."""
    shared = [n for n in first.kinds if second.kinds.get(n) == first.kinds[n]]
    kept = [first.observed[n] for n in shared]
    return all(isinstance(o, Series) for o in kept)


def _rounding(first: Any, second: Any) -> float:
    return float(max(np.finfo(first.dtype).eps, np.finfo(second.dtype).eps))


def _zip(a: Any, b: Any, first: Any, second: Any, groups: tuple) -> list[tuple]:
    return [(a, first, groups[0]), (b, second, groups[1])]


def _one(observed: Any, name: str, result: Any, group: Any) -> Any:
    """The estimate of one group, or the estimate itself where there are no groups."""
    if isinstance(observed, PerGroup):
        from langevin.analysis.compare import one_group

        return one_group(observed, name, group)
    if group is not None and name in result.groups and hasattr(observed, "group"):
        return observed.group(group)
    return observed


def _members(result: Any, group: Any, only: str | None) -> np.ndarray:
    """Replicas alive in the group, of the first observer that has groups."""
    living = result.diverged < 0
    names = [n for n in result.groups if only in (None, n)]
    if group is None or not names:
        return living
    return living & (result.groups[names[0]] == group)


def _refuse_shared_noise(first: Any, second: Any, members: list[np.ndarray]) -> None:
    """Two sets of replicas are independent unless a replica of one has the noise of the other."""
    if first.seed != second.seed:
        return
    numbers = [
        r.first_replica + np.flatnonzero(m) for r, m in zip((first, second), members, strict=True)
    ]
    if len(np.intersect1d(*numbers)):
        raise UnsoundError(
            f"both results have the seed {first.seed} and replicas of the same numbers, so their "
            "noise is the same and their errors are not independent. Run one of them with another "
            "seed= (or first_replica=)."
        )


def _in_order(found, name, kind, a, b, first, second, groups) -> None:
    """The k-th step of one run beside the k-th of the other."""
    if len(a) != len(b):
        raise ParameterError(
            f"{name!r} was taken at {len(a)} steps in one run and {len(b)} in the other: they are "
            "compared in order, so give both as many."
        )
    for k, (i, j) in enumerate(zip(a.steps, b.steps, strict=True)):
        if isinstance(a.estimates[k], Exception) or isinstance(b.estimates[k], Exception):
            continue
        when = f" at {i:,}" if i == j else f" at {i:,} and {j:,}"
        x, y = (_one(o[k], name, r, g) for o, r, g in _zip(a, b, first, second, groups))
        _add(found, kind, x, y, _rounding(first, second), when)


def _add(found: Any, kind: str, a: Any, b: Any, rounding: float, when: str = "") -> None:
    """The rows and distances of one quantity of both."""
    if kind == "occupation":
        found.rows += _occupation_rows(a, b, when)
    if kind == "moments":
        found.rows += _moment_rows(a, b, rounding)
    if kind == "histogram" and _same_bins(a, b):
        found.distances += distances(a, b, when)
        if when:  # at one step, every replica was counted once
            found.rows += _homogeneity(a, b, when)
    if isinstance(a, MeasuredAverage):
        scale = math.sqrt((a.variance + b.variance) / 2)
        found.rows.append(estimate_row(f"<{a.formula}>{when}", a, b, scale))
    if kind == "first_passage" and a.unit == b.unit:
        found.rows.append(estimate_row(f"mean passage time ({a.unit})", a.mean, b.mean))


def _same_bins(a: Any, b: Any) -> bool:
    return a.axes == b.axes and all(
        np.array_equal(x, y) for x, y in zip(a.axis_edges, b.axis_edges, strict=True)
    )


def _occupation_rows(a: Any, b: Any, when: str) -> list[Row]:
    from langevin.analysis.rows import SEEN

    n = len(a.probability)
    if len(b.probability) != n or n < 2:
        return []
    rare = np.minimum(a.seen, b.seen) < SEEN
    if n == 2 and not rare.any():
        return [estimate_row(f"p_0/p_1{when}", a.ratio(0, 1), b.ratio(0, 1))]
    return [
        estimate_row(
            f"p_{k}{when}",
            *(Estimate(float(o.probability[k]), float(o.stderr[k]), o.dof) for o in (a, b)),
        )
        for k in np.flatnonzero(~rare)
    ]


def _moment_rows(a: Any, b: Any, rounding: float) -> list[Row]:
    dim = len(a.mean)
    spread = np.sqrt((np.diag(a.covariance) + np.diag(b.covariance)) / 2)
    floor = ROUNDINGS * rounding * (np.abs(a.mean) + spread)
    rows = []
    for i in range(dim):
        for j in range(i, dim):
            both = entry(a, i, j), entry(b, i, j)
            scale = spread[i] * spread[j]
            rows.append(estimate_row(f"cov[{i},{j}]", *both, scale, floor[i] * floor[j]))
    for i in range(dim):
        rows.append(estimate_row(f"mean[{i}]", entry(a, i), entry(b, i), spread[i], floor[i]))
    return rows


def _homogeneity(a: Any, b: Any, when: str) -> list[Row]:
    """Chi-square of two histograms of replicas counted once each, on bins merged to ten or more."""
    from scipy import special

    from langevin.analysis.finals import LEAST, distribution_row

    n, m = a.n_observations, b.n_observations
    x, y = (np.rint(np.append(d.probability.ravel(), d.outside) * d.n_observations) for d in (a, b))
    cells = np.floor(np.cumsum(x + y) * min(n, m) / (n + m) / LEAST * (1 - 1e-12)).astype(int)
    labels = np.unique(cells, return_inverse=True)[1]
    x, y = np.bincount(labels, x), np.bincount(labels, y)
    x, y = x[x + y > 0], y[x + y > 0]  # the first cell may be empty in both
    dof = len(x) - 1
    if dof < 2:
        return []
    statistic = float(((math.sqrt(m / n) * x - math.sqrt(n / m) * y) ** 2 / (x + y)).sum())
    p = float(special.chdtrc(dof, statistic))
    name = f"chi-square of {n:,} and {m:,} positions{when}, {dof} dof"
    return [distribution_row(name, statistic, float(dof), p)]
