"""Tests of final positions: replicas are independent, so these tests are exact.

Everything averaged over time is correlated, and neither chi-square nor Kolmogorov-Smirnov holds
for it; the last position of each replica, and a count of replicas at one given step, are not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from langevin.analysis.rows import ROUNDINGS, Row
from langevin.errors import LangevinError

EVALUATED = 512  # points at which a predicted cdf is evaluated; in between it is interpolated
LEAST = 10.0  # expected count of a cell of a chi-square test
CELLS = 100  # of a two-sample test along one axis; its square root along each of two


def distribution_row(name: str, statistic: float, null: float, p_value: float) -> Row:
    """A test of a whole distribution: ``statistic`` beside ``null``, one-sided."""
    from scipy import special

    z = float(-special.ndtri(min(max(p_value, 1e-300), 1 - 1e-16)))
    return Row(name, statistic, 0.0, null, z, p_value, null)


def chi_square_rows(counts: np.ndarray, expected: np.ndarray, what: str, *, order: bool) -> list:
    """Chi-square of counts (bins + 1, the last outside) of independent replicas.

    ``expected`` (bins,) probabilities; cells are merged to 10 or more, neighbours where bins are
    in a row, else (``order``) the likeliest first.
    """
    from scipy import special

    n, q = counts.sum(), expected
    placed = np.argsort(-q, kind="stable") if order else np.arange(len(q))
    counts, q = np.append(counts[:-1][placed], counts[-1]), np.append(q[placed], 1 - q.sum())
    cells = np.floor(np.cumsum(np.clip(q, 0, None)) * n / LEAST * (1 - 1e-12)).astype(int)
    labels = np.unique(cells, return_inverse=True)[1]
    observed, wanted = np.bincount(labels, counts), np.bincount(labels, np.clip(q, 0, None)) * n
    good = wanted >= LEAST / 2
    observed = np.append(observed[good], observed[~good].sum())
    wanted = np.append(wanted[good], wanted[~good].sum())
    if wanted[-1] < LEAST / 2:
        observed, wanted = (np.append(v[:-2], v[-2:].sum()) for v in (observed, wanted))
    dof = len(wanted) - 1
    if dof < 2:
        return []
    statistic = float(((observed - wanted) ** 2 / wanted).sum())
    p = float(special.chdtrc(dof, statistic))
    return [
        distribution_row(f"chi-square of {int(n):,} {what}, {dof} dof", statistic, float(dof), p)
    ]


def final_counts(positions: np.ndarray, density: Any) -> np.ndarray:
    """The final positions in the bins of a Density, and outside, (bins + 1,)."""
    chosen = positions[:, list(density.axes)].astype(float)
    counts = np.histogramdd(chosen, bins=list(density.axis_edges))[0].ravel()
    return np.append(counts, len(chosen) - counts.sum())


def marginal_cdf(prediction: Any, axis: int, dim: int) -> Callable[[np.ndarray], np.ndarray] | None:
    """The predicted cumulative probability along an axis, of increasing points; None if unknown."""
    probe = np.array([-np.inf, np.inf])
    try:
        if dim == 1 and hasattr(prediction, "cdf"):
            prediction.cdf(np.zeros(1))
            return prediction.cdf
        if not hasattr(prediction, "bin_probabilities"):
            return None
        prediction.bin_probabilities(probe, axes=None if dim == 1 else axis)
    except LangevinError:  # this law has no such marginal, and says so
        return None

    def cdf(x: np.ndarray) -> np.ndarray:
        edges = np.append(-np.inf, x)
        return np.cumsum(prediction.bin_probabilities(edges, axes=None if dim == 1 else axis))

    return cdf


def kolmogorov_smirnov(
    values: np.ndarray, cdf: Callable[[np.ndarray], np.ndarray]
) -> tuple[float, float]:
    """``D = sup |F_n - F|`` of independent values and its exact p-value.

    Of many values the cdf is evaluated at some order statistics, dense in the tails, and
    interpolated monotonically between, where it gains less than 1/128: off by far less than
    1/sqrt(n). Source of the p-value: Simard and L'Ecuyer 2011, J. Stat. Softw. 39(11).
    """
    from scipy import interpolate, stats

    x = np.sort(np.asarray(values, dtype=float))
    n = len(x)
    if n > EVALUATED:
        tail = np.unique(np.geomspace(1, n // 2, EVALUATED // 8).astype(int)) - 1
        even = np.linspace(0, n - 1, EVALUATED // 2).astype(int)
        nodes = np.unique(x[np.unique(np.concatenate([tail, n - 1 - tail, even]))])
        nodes = np.unique(np.concatenate([nodes, np.linspace(x[0], x[-1], EVALUATED // 4)]))
        predicted = interpolate.PchipInterpolator(nodes, cdf(nodes))(x)
    else:
        unique, back = np.unique(x, return_inverse=True)
        predicted = cdf(unique)[back]
    rank = np.arange(1, n + 1)
    d = float(max((rank / n - predicted).max(), (predicted - (rank - 1) / n).max()))
    return d, float(stats.kstwo.sf(min(max(d, 0.0), 1.0), n))


def kolmogorov_rows(positions: np.ndarray, prediction: Any, axes: Any, when: str = "") -> list[Row]:
    """Kolmogorov-Smirnov of the final positions along each axis that the prediction knows."""
    rows, (n, dim) = [], positions.shape
    for axis in axes:
        values = positions[:, axis]
        reach = np.ptp(values) if n > 1 else 0.0
        if not reach > ROUNDINGS * np.finfo(positions.dtype).eps * np.abs(values).max():
            continue  # all but one point: its place is known to rounding only
        cdf = marginal_cdf(prediction, axis, dim)
        if cdf is None:
            continue
        d, p = kolmogorov_smirnov(values, cdf)
        along = "" if dim == 1 else f" along axis {axis}"
        name = f"Kolmogorov-Smirnov of {n:,} final positions{along}{when}"
        rows.append(distribution_row(name, d, 0.0, p))
    return rows


def two_sample_rows(first: np.ndarray, second: np.ndarray, axes: Any) -> list[Row]:
    """Kolmogorov-Smirnov along each axis, and chi-square, of two sets of final positions.

    The cells of the chi-square test, up to two dimensions, hold equal shares of both sets together.
    """
    from scipy import stats

    rows, dim = [], first.shape[1]
    n, m = len(first), len(second)
    if min(n, m) < 2:
        return []
    for axis in axes:
        exact = "exact" if max(n, m) <= 400 else "asymp"
        found = stats.ks_2samp(first[:, axis], second[:, axis], method=exact)
        along = "" if dim == 1 else f" along axis {axis}"
        name = f"Kolmogorov-Smirnov of {n:,} and {m:,} final positions{along}"
        rows.append(distribution_row(name, float(found.statistic), 0.0, float(found.pvalue)))
    return rows + (_two_sample_chi_square(first, second) if dim <= 2 else [])


def _two_sample_chi_square(first: np.ndarray, second: np.ndarray) -> list[Row]:
    from scipy import special

    n, m = len(first), len(second)
    both = np.concatenate([first, second]).astype(float)
    dim = both.shape[1]
    most = max(2.0, min(CELLS, min(n, m) / LEAST))
    cells = int(most ** (1 / dim))
    labels = np.zeros(n + m, int)
    for a in range(dim):
        cuts = np.quantile(both[:, a], np.arange(1, cells) / cells)
        labels = labels * cells + np.searchsorted(cuts, both[:, a])
    a, b = (np.bincount(part, minlength=cells**dim) for part in (labels[:n], labels[n:]))
    full = (a + b) * min(n, m) >= LEAST / 2 * (n + m)
    a, b = (np.append(v[full], v[~full].sum()) for v in (a, b))
    a, b = a[a + b > 0], b[a + b > 0]
    dof = len(a) - 1
    if dof < 2:
        return []
    statistic = float(((math.sqrt(m / n) * a - math.sqrt(n / m) * b) ** 2 / (a + b)).sum())
    p = float(special.chdtrc(dof, statistic))
    name = f"chi-square of {n:,} and {m:,} final positions, {dof} dof"
    return [distribution_row(name, statistic, float(dof), p)]
