"""Standard errors from fixed groups of independent replicas (ratio estimators, linearised)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from langevin.errors import LangevinError, ParameterError
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
    return PerGroup([_tried(estimate, k) for k in range(n_groups)])


@dataclass(frozen=True, repr=False)
class Series(Sequence):
    """One estimate for each of ``steps`` (k,): ``[k]`` is the k-th, ``.at(step)`` that of a step.

    Reading a step that the run did not reach raises its error.
    """

    steps: np.ndarray
    estimates: tuple

    def __len__(self) -> int:
        return len(self.estimates)

    def __getitem__(self, k: int):
        found = self.estimates[k]
        if isinstance(found, Exception):
            raise found
        return found

    def __repr__(self) -> str:
        return f"Series(steps={self.steps})"

    def at(self, step: int) -> Any:
        """The estimate at one of the steps."""
        place = np.flatnonzero(self.steps == step)
        if len(place) == 0:
            raise ParameterError(f"at({step!r}): this series was taken at steps {self.steps}.")
        return self[int(place[0])]


def series(steps: np.ndarray, estimate: Callable[[int], Any]) -> Series:
    """``estimate(k)`` for each of the steps."""
    return Series(steps, tuple(_tried(estimate, k) for k in range(len(steps))))


def _tried(estimate: Callable[[int], Any], k: int) -> Any:
    """``estimate(k)``, or the error it raised, to be raised on reading."""
    try:
        return estimate(k)
    except LangevinError as error:
        return error


@dataclass(frozen=True, repr=False)
class Estimates(Sequence):
    """An array of measured numbers: ``value`` and ``stderr`` of one shape; ``[k]`` of a 1-D one."""

    value: np.ndarray
    stderr: np.ndarray
    dof: int = 63

    def __len__(self) -> int:
        return len(self.value)

    def __getitem__(self, k) -> Estimate | Estimates:
        value, stderr = self.value[k], self.stderr[k]
        if np.ndim(value) == 0:
            return Estimate(float(value), float(stderr), self.dof)
        return Estimates(value, stderr, self.dof)

    def __repr__(self) -> str:
        pairs = zip(np.ravel(self.value), np.ravel(self.stderr), strict=True)
        shown = [f"{value:.5g} +- {error:.2g}" for value, error in pairs]
        return f"Estimates({', '.join(shown[:12])}{', ...' if len(shown) > 12 else ''})"


def jackknife(sums: np.ndarray, function: Callable[[np.ndarray], Any]) -> tuple[Any, Any, int]:
    """``function(sums.sum(axis=0))`` with its delete-one-group standard error.

    sums (groups, ...); ``stderr**2 = (G - 1)/G sum (f_g - mean f)**2`` where f_g leaves out group g
    (Quenouille; Efron 1982, Eq. 3.1). NaN with fewer than two groups.
    """
    if len(sums) > 128:  # fewer, larger groups do as well and cost less
        edges = np.linspace(0, len(sums), 65).astype(int)[:-1]
        sums = np.add.reduceat(sums, edges, axis=0)
    total, n = sums.sum(axis=0), len(sums)
    value = np.asarray(function(total), dtype=float)
    if n < 2:
        return value, np.full(value.shape, math.nan), 0
    left_out = np.array([function(total - sums[g]) for g in range(n)], dtype=float)
    deviation = left_out - left_out.mean(axis=0)
    return value, np.sqrt((n - 1) / n * (deviation**2).sum(axis=0)), n - 1


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> Estimate:
    """``sum a / sum b`` over groups, as an Estimate; both (groups,)."""
    used = (numerator > 0) | (denominator > 0)
    return ratio_of_sums(numerator[used], denominator[used])


def ratio_of_sums(numerator: np.ndarray, denominator: np.ndarray) -> Estimate:
    """``sum a / sum b`` over groups that all saw something; a may have any sign."""
    a, b = numerator.astype(float), denominator.astype(float)
    if b.sum() == 0:
        return Estimate(math.inf if a.sum() > 0 else math.nan, math.inf, max(len(b) - 1, 0))
    value = a.sum() / b.sum()
    return Estimate(float(value), float(spread(a - value * b, b.sum())), len(b) - 1)
