"""Trajectories, autocorrelations and what they are worth in independent observations."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from langevin.analysis import groups
from langevin.errors import UnsoundError

WINDOW = 5.0  # Sokal: sum up to the first lag beyond so many integrated times


@dataclass(frozen=True, repr=False)
class Trajectories:
    """Recorded ``positions`` (replicas, records, dim) after ``steps`` (records,).

    ``times`` (records,), or (replicas, records) where dt differs; ``replicas``: their indices. NaN
    from a replica's divergence on.
    """

    positions: np.ndarray
    steps: np.ndarray
    times: np.ndarray
    replicas: np.ndarray

    def __repr__(self) -> str:
        n, records, dim = self.positions.shape
        return f"Trajectories({n:,} replicas x {records:,} records x {dim} coordinates)"


@dataclass(frozen=True, repr=False)
class MeasuredAutocorrelation:
    """Autocorrelation of quantities at ``lags`` (lags,), in steps for SGD, else in units of time.

    ``value`` and ``stderr`` (lags, quantities), or (lags,) of a single formula; ``spacing`` is the
    time between two looks. The errors are a jackknife over error groups.
    """

    sums: np.ndarray
    spacing: float
    unit: str
    formulas: tuple[str, ...]
    single: bool

    def __repr__(self) -> str:
        return f"MeasuredAutocorrelation({', '.join(self.formulas)}; {len(self.lags)} lags)"

    @property
    def lags(self) -> np.ndarray:
        """The lags, from 0."""
        return self.spacing * np.arange(self.sums.shape[1])

    @property
    def _estimate(self) -> tuple[np.ndarray, np.ndarray, int]:
        return groups.jackknife(self.sums, _correlation)

    @property
    def value(self) -> np.ndarray:
        """The autocorrelation, 1 at lag 0."""
        value = _correlation(self.sums.sum(axis=0))
        return value[:, 0] if self.single else value

    @property
    def stderr(self) -> np.ndarray:
        """Standard error of ``value``."""
        stderr = self._estimate[1]
        return stderr[:, 0] if self.single else stderr

    @property
    def n_observations(self) -> int:
        """Looks at a living replica."""
        return int(self.sums[..., 0].sum())

    @property
    def integrated_time(self):
        """``1 + 2 sum_k rho_k`` in units of time or steps, up to Sokal's self-consistent window.

        The window is the first lag of at least 5 integrated times (Sokal 1997, Eq. 3.20). An
        Estimate of a single formula, else Estimates. Raises UnsoundError where the lags end before
        that.
        """
        total = _correlation(self.sums.sum(axis=0))
        ends = [_window(rho, name) for rho, name in zip(total.T, self.formulas, strict=True)]

        def integrated(sums: np.ndarray) -> np.ndarray:
            rho = _correlation(sums)
            return np.array([1 + 2 * rho[1 : end + 1, q].sum() for q, end in enumerate(ends)])

        value, stderr, dof = groups.jackknife(self.sums, integrated)
        found = groups.Estimates(self.spacing * value, self.spacing * stderr, dof)
        return found[0] if self.single else found

    @property
    def effective_sample_size(self):
        """Looks worth counting as independent: all looks over the integrated time in looks."""
        time = self.integrated_time
        return self.n_observations * self.spacing / np.asarray(time.value)[()]


def _correlation(sums: np.ndarray) -> np.ndarray:
    """rho (lags, quantities) from sums (lags, 1 + 3 quantities), about the mean of all looks."""
    n = sums[:, :1]
    products, first, later = sums[:, 1::3], sums[:, 2::3], sums[:, 3::3]
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = later.sum(axis=0) / n.sum()
        covariance = products / n - mean * (first + later) / n + mean**2
        return covariance / covariance[0]


def _window(rho: np.ndarray, name: str) -> int:
    """The first lag of at least WINDOW integrated times."""
    if not np.isfinite(rho).all():
        raise UnsoundError(
            f"{name} did not vary: what is constant has no autocorrelation. Observe it after it "
            "has begun to move, or at a temperature above 0."
        )
    time = 1 + 2 * np.cumsum(rho[1:])
    found = np.flatnonzero(np.arange(1, len(rho)) >= WINDOW * time)
    if len(found) == 0:
        raise UnsoundError(
            f"the autocorrelation of {name} reaches over more than a fifth of its {len(rho)} lags: "
            f"the integrated time is at least {time.max():.4g} looks. Give Autocorrelation more "
            "lags, or a larger every."
        )
    return int(found[0]) + 1


def correlation_from_sums(sums, spacing, unit, texts, single: bool) -> MeasuredAutocorrelation:
    """The autocorrelation from sums (error groups, lags, 1 + 3 quantities)."""
    mine = sums[sums[:, 0, 0] > 0]
    if len(mine) == 0 or (mine.sum(axis=0)[:, 0] == 0).any():
        raise UnsoundError(
            "the run holds no observation of some lags: it ended too early. Use more steps."
        )
    if math.isnan(spacing):
        raise UnsoundError(
            "replicas of different dt have no common lags. Give the observer groups=, one label "
            "for each dt."
        )
    if not np.isfinite(mine).all():
        raise UnsoundError(
            "the autocorrelation is not finite: a formula is undefined in states visited."
        )
    return MeasuredAutocorrelation(mine, spacing, unit, tuple(texts), single)
