"""Standard errors from fixed groups of independent replicas (ratio estimators, linearised)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from langevin.errors import LangevinError
from langevin.result import Estimate


def spread(residuals: np.ndarray, total: float | np.ndarray) -> np.ndarray:
    """Standard error of a ratio whose groups leave ``residuals`` (groups, ...) about the mean.

    For ``p = sum c / sum n`` the residual of group g is ``c_g - p n_g`` and
    ``stderr**2 = G/(G-1) sum residual**2 / total**2`` (Cochran, Sampling Techniques, Eq. 2.42).
    NaN with fewer than two groups.
    """
    n = residuals.shape[0]
    if n < 2:
        return np.full(residuals.shape[1:], math.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.sqrt(n / (n - 1) * (residuals**2).sum(axis=0)) / total


def fraction(counts: np.ndarray, totals: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """``sum c / sum n`` over groups with its standard error and degrees of freedom.

    counts (groups, classes), totals (groups,): groups without a count are left out.
    """
    used = totals > 0
    counts, totals = counts[used].astype(float), totals[used].astype(float)
    total = totals.sum()
    if total == 0:
        empty = np.full(counts.shape[1:], math.nan)
        return empty, empty, 0
    value = counts.sum(axis=0) / total
    residuals = counts - value * totals[:, None]
    return value, spread(residuals, total), len(counts) - 1


class PerGroup(Sequence):
    """One estimate for each user group; reading a group without observations raises its error."""

    def __init__(self, estimates: list):
        self._estimates = estimates

    def __len__(self) -> int:
        return len(self._estimates)

    def __getitem__(self, k):
        found = self._estimates[k]
        if isinstance(found, Exception):
            raise found
        return found


def per_group(estimate: Callable[[int], Any], n_groups: int | None) -> Any:
    """``estimate(0)`` for an observer without groups=, else all of them as a PerGroup."""
    if n_groups is None:
        return estimate(0)
    found: list = []
    for k in range(n_groups):
        try:
            found.append(estimate(k))
        except LangevinError as error:
            found.append(error)
    return PerGroup(found)


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> Estimate:
    """``sum a / sum b`` over groups, as an Estimate; both (groups,)."""
    used = (numerator > 0) | (denominator > 0)
    a, b = numerator[used].astype(float), denominator[used].astype(float)
    if b.sum() == 0:
        return Estimate(math.inf if a.sum() > 0 else math.nan, math.inf, max(len(b) - 1, 0))
    value = a.sum() / b.sum()
    return Estimate(float(value), float(spread(a - value * b, b.sum())), len(b) - 1)
