"""Distances between a measured and a predicted histogram, with bootstrap intervals.

The bootstrap draws error groups, which are independent, with replacement: what is averaged over
time stays together, so correlations in time need no model. Its draws come from the package's own
counter-based generator, under a seed of their own: the same histogram has the same interval.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from langevin.analysis.significance import CONFIDENCE, quantile
from langevin.kernels.philox import philox

DRAWS = 500  # bootstrap samples
MOST = 8_000_000  # numbers held at once while they are made
KEY = 0xB007  # of the bootstrap's random numbers
FEWEST = 8  # error groups for an interval to mean anything


@dataclass(frozen=True)
class Distance:
    """A distance between what was measured and what was predicted, 0 where they are equal.

    ``noise`` is what counting noise alone would give on average, ``interval`` a 95 % interval of
    the distance between the *true* measured law and the prediction: it contains 0 unless they
    differ. NaN where there are too few error groups.
    """

    name: str
    value: float
    noise: float
    interval: tuple[float, float]

    def __str__(self) -> str:
        low, high = self.interval
        text = f"{self.name} {self.value:.4g}"
        if not math.isnan(high):
            text += f" (95 %: {low:.3g} to {high:.3g}; noise alone {self.noise:.2g})"
        return text


@functools.lru_cache(maxsize=16)
def _weights(groups: int) -> np.ndarray:
    """How often each of the groups is drawn in each bootstrap sample, (DRAWS, groups)."""
    draw, place = (a.ravel().astype(np.uint64) for a in np.indices((DRAWS, groups)))
    zero = np.zeros_like(draw)
    word = philox(draw, place, zero, zero, np.uint64(KEY), np.uint64(0))[0]
    chosen = ((word * np.uint64(groups)) >> np.uint64(32)).astype(np.int64)
    flat = np.bincount(draw.astype(np.int64) * groups + chosen, minlength=DRAWS * groups)
    return flat.reshape(DRAWS, groups).astype(float)


def _resampled(counts: np.ndarray) -> np.ndarray | None:
    """Bootstrapped probabilities (draws, bins) from counts (groups, bins); None of too few."""
    if len(counts) < FEWEST:
        return None
    draws = max(50, min(DRAWS, MOST // counts.shape[1]))
    drawn = _weights(len(counts))[:draws] @ counts
    return drawn / drawn.sum(axis=1, keepdims=True)


def _interval(
    p: np.ndarray,
    drawn: np.ndarray | None,
    q: np.ndarray,
    drawn_q: np.ndarray | None,
    groups: int,
    metric: Callable,
) -> tuple[float, tuple[float, float]]:
    """Mean noise and 95 % interval of ``metric(p - q)``, a norm, from bootstrapped p (and q).

    A norm is convex, so its expectation is at least the true distance: the upper end needs only
    the spread of the estimate. At the lower end the triangle inequality takes off what noise can
    add. So the interval holds at a distance of 0 too, where the plain bootstrap does not.
    """
    if drawn is None:
        return math.nan, (math.nan, math.nan)
    other = q if drawn_q is None else drawn_q
    inflate = math.sqrt(groups / (groups - 1))
    noise = metric(drawn - p - (other - q)) * inflate
    level = (1 + CONFIDENCE) / 2
    value = float(metric(p - q))
    spread = float(metric(drawn - other).std(ddof=1)) * inflate * quantile(level, groups - 1)
    stretch = quantile(level, groups - 1) / quantile(level, 1e9)
    reach = float(np.quantile(noise, level)) * stretch
    return float(noise.mean()), (max(0.0, value - reach), value + spread)


def _half_absolute(difference: np.ndarray) -> np.ndarray:
    return 0.5 * np.abs(difference).sum(axis=-1)


def distances(density: Any, expected: Any, when: str = "") -> tuple[Distance, ...]:
    """Total variation, Kullback-Leibler divergence and, in 1-D, Wasserstein-1 of a Density.

    ``expected``: predicted probabilities in its bins, or another Density of the same bins (then
    without the divergence). Total variation is ``1/2 sum |p - q|`` with what lies outside the bins;
    KL ``sum p ln(p/q)`` of the measured from the predicted law, on bins merged to ten or more
    independent counts, less its bias (Miller 1955 for correlated counts); W1 ``int |F_p - F_q| dx``
    within the range. Of the coarse-grained laws: those of the true ones are at least as large.
    """
    mine, others = density.group_counts, None
    p = np.append(density.probability.ravel(), density.outside)
    if isinstance(expected, np.ndarray):
        q = np.append(expected.ravel(), max(0.0, 1.0 - expected.sum()))
    else:
        q = np.append(expected.probability.ravel(), expected.outside)
        others = expected.group_counts
    drawn = None if mine is None else _resampled(mine)
    drawn_q = None if others is None else _resampled(others)
    if drawn is not None and drawn_q is not None:  # one after the other, not pair by pair
        n = min(len(drawn), len(drawn_q))
        drawn, drawn_q = drawn[:n], np.roll(drawn_q[:n], 1, axis=0)
    elif not isinstance(expected, np.ndarray):
        drawn = None
    groups = min(len(c) for c in (mine, others) if c is not None) if drawn is not None else 0
    measure = functools.partial(_interval, p, drawn, q, drawn_q, groups)
    noise, interval = measure(_half_absolute)
    if math.isnan(noise):
        noise = 0.5 * math.sqrt(2 / math.pi) * float(density.probability_stderr.sum())
    found = [Distance(f"total variation{when}", float(_half_absolute(p - q)), noise, interval)]
    if isinstance(expected, np.ndarray) and drawn is not None:
        found.append(_divergence(density, p, drawn, q, groups, when))
    if len(density.axis_edges) == 1:
        widths = np.diff(density.axis_edges[0])

        def wasserstein(difference: np.ndarray) -> np.ndarray:
            cumulated = np.cumsum(difference[..., :-1], axis=-1)
            before = np.concatenate([np.zeros_like(cumulated[..., :1]), cumulated[..., :-1]], -1)
            return _trapezia(before, cumulated) @ widths

        noise, interval = measure(wasserstein)
        found.append(Distance(f"Wasserstein-1{when}", float(wasserstein(p - q)), noise, interval))
    return tuple(found)


def _trapezia(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The mean over [0, 1] of |a + (b - a) t|."""
    with np.errstate(divide="ignore", invalid="ignore"):
        crossed = (a**2 + b**2) / (2 * np.abs(b - a))
    return np.where(a * b < 0, crossed, np.abs(a + b) / 2)


def _divergence(
    density: Any, p: np.ndarray, drawn: np.ndarray, q: np.ndarray, groups: int, when: str
) -> Distance:
    """KL of p from q on merged bins, less what noise adds to it on average."""
    variance = np.append(density.probability_stderr.ravel() ** 2, 0.0)
    variance[-1] = drawn[:, -1].var()
    total = p * (1 - p)
    effective = total.sum() / variance.sum() if variance.sum() > 0 else math.inf
    cells = np.floor(np.cumsum(np.clip(q, 0, None)) * min(effective, 1e9) / 10).astype(int)
    labels = np.unique(cells, return_inverse=True)[1]
    starts = np.flatnonzero(np.diff(labels, prepend=-1))
    p, drawn, q = (np.add.reduceat(v, starts, axis=-1) for v in (p, drawn, q))
    if len(starts) > 1 and q[-1] * effective < 5:  # the rest at the end joins its neighbour
        p, drawn, q = (
            np.concatenate([v[..., :-2], v[..., -2:].sum(axis=-1, keepdims=True)], axis=-1)
            for v in (p, drawn, q)
        )

    def divergence(p: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            terms = np.where(p > 0, p * np.log(p / q), 0.0)
        return terms.sum(axis=-1)

    inflate = groups / (groups - 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        bias = 0.5 * inflate * float(np.nansum(np.where(p > 0, drawn.var(axis=0) / p, 0.0)))
    value = float(divergence(p)) - bias
    spread = float(divergence(drawn).std(ddof=1)) * math.sqrt(inflate)
    reach = quantile((1 + CONFIDENCE) / 2, groups - 1) * spread
    interval = (max(0.0, value - reach), max(0.0, value + reach))
    return Distance(f"KL divergence{when}", max(0.0, value), bias, interval)
