"""Whether sums by superchain and by half of a run still remember their start."""

from __future__ import annotations

import math

import numpy as np

from langevin.analysis import groups


def nested_r_hat(count: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Nested R-hat ``sqrt(1 + B/W)`` from sums over superchains; 1 once the start is forgotten.

    count (chains,), first and second (chains, quantities): number of observations and sums of q and
    q**2. A superchain is a set of replicas that began in one basin; B is the variance of the
    superchains' means, W that of the observations within a superchain, both weighted by the number
    of observations. With one replica a superchain this is the R-hat of Gelman and Rubin. Few
    observations alone make it larger than 1. NaN with fewer than two superchains.
    Source: Margossian et al. 2022, arXiv 2110.13017, Eq. 4-6.
    """
    used = count > 1
    n, first, second = count[used][:, None], first[used], second[used]
    if len(n) < 2:
        return np.full(first.shape[1:], math.nan)
    means = first / n
    within = (second - n * means**2).sum(axis=0) / (n - 1).sum()
    overall = first.sum(axis=0) / n.sum()
    between = (n * (means - overall) ** 2).sum(axis=0) / ((len(n) - 1) * n.mean())
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(within > 0, np.sqrt(1 + between / within), math.nan)


def drift(count: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Difference of the averages of the two halves of a run, as a normal z, (quantities,).

    count (error groups, 2), first (error groups, 2, quantities). NaN where a half saw nothing or
    there are fewer than two error groups.
    """
    used = count.sum(axis=1) > 0
    count, first = count[used], first[used]
    if len(count) < 2 or count.shape[1] < 2 or (count.sum(axis=0) == 0).any():
        return np.full(first.shape[2:], math.nan)
    n = count.sum(axis=0)
    average = first.sum(axis=0) / n[:, None]
    residual = (first - average * count[:, :, None]) / n[:, None]
    error = groups.spread(residual[:, 0] - residual[:, 1], 1.0)
    return normal_z(average[0] - average[1], error, len(count) - 1)


def normal_z(difference, error, dof: int) -> np.ndarray:
    """A difference with its standard error as the normal z of the same Student p-value, signed."""
    from scipy import special

    difference = np.asarray(difference, dtype=float)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(difference == 0, 0.0, difference / error)
        z = -special.ndtri(special.stdtr(max(dof, 1), -np.abs(t)))
    return np.sign(t) * z
