"""First-passage times and their survival function, with right-censoring."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np

from langevin.analysis import groups
from langevin.errors import UnsoundError
from langevin.result import Estimate

JACKKNIFE = 64  # groups that are left out in turn


@dataclass(frozen=True, repr=False)
class PassageTimes:
    """First-passage times of the replicas of a run.

    ``times`` (n_replicas,): NaN where a replica did not pass; ``exposure`` (n_replicas,): how long
    each was watched, until it passed, the run ended or it diverged. In ``unit``, steps for SGD and
    units of time for Langevin dynamics.
    """

    times: np.ndarray
    exposure: np.ndarray
    unit: str

    def __repr__(self) -> str:
        n = len(self.times)
        return f"PassageTimes({n - self.censored:,} of {n:,} replicas passed, in {self.unit})"

    @property
    def censored(self) -> int:
        """Number of replicas that did not pass while they were watched."""
        return int(np.isnan(self.times).sum())

    @property
    def horizon(self) -> float:
        """The longest time that a replica was watched."""
        return float(self.exposure.max())

    @property
    def mean(self) -> Estimate:
        """Mean first-passage time.

        Without censoring the plain mean. With it ``int_0^H S dt + S(H)/rate``: the restricted mean
        up to the horizon, and for those who survive it an exponential tail, whose rate is measured
        in the later half of the horizon. The standard error is a jackknife over groups of replicas,
        tail included. Raises UnsoundError where nothing passed, or nothing late enough for a tail.
        """
        self._need_passages()
        if self.censored == 0:
            n = len(self.times)
            error = self.times.std(ddof=1) / math.sqrt(n) if n > 1 else math.nan
            return Estimate(float(self.times.mean()), float(error), n - 1)
        return self._jackknifed(self._mean)

    @property
    def restricted_mean(self) -> Estimate:
        """``int_0^H S dt``: the mean time until passage or the horizon H, whichever is first."""
        return self._jackknifed(self._restricted)

    @property
    def rate(self) -> Estimate:
        """Passages per time of exposure: exact for a memoryless escape, however much is censored.

        The standard error is that of a ratio of sums over independent replicas.
        """
        self._need_passages()
        passed = ~np.isnan(self.times)
        total = self.exposure.sum()
        value = passed.sum() / total
        error = groups.spread(passed - value * self.exposure, total)
        return Estimate(float(value), float(error), len(passed) - 1)

    @property
    def median(self) -> Estimate:
        """The time by which half have passed; its error is a quarter of the band of two errors.

        The width of that band is itself known only as well as the passages in it are many: they
        set the estimate's degrees of freedom. Source: Brookmeyer and Crowley 1982. Raises
        UnsoundError if fewer than half passed.
        """
        times, survival, error = self._steps
        half = np.flatnonzero(survival <= 0.5)
        if len(half) == 0:
            raise UnsoundError(
                f"the median is not known: {self.censored} of {len(self.times)} replicas did not "
                "pass. Run longer, or read .rate or .survival(t)."
            )
        first = int(np.argmax(survival - 2 * error <= 0.5))
        above = np.flatnonzero(survival + 2 * error <= 0.5)
        last = int(above[0]) if len(above) else len(times) - 1
        known = len(above) > 0 and len(times) > 1  # one time alone has no band
        spread = (times[last] - times[first]) / 4 if known else math.nan
        within = len(self.times) * (survival[first] - survival[last])
        return Estimate(float(times[half[0]]), float(spread), max(1, round(within / 2)))

    def survival(self, t) -> Estimate | groups.Estimates:
        """Kaplan-Meier estimate of the probability of not having passed by time t.

        The errors are Greenwood's. t: a number or an array; NaN beyond the horizon.
        """
        times, survival, error = self._steps
        place = np.searchsorted(times, np.asarray(t, dtype=float), side="right")
        known = np.asarray(t) <= self.horizon
        value = np.where(known, np.append(1.0, survival)[place], math.nan)
        stderr = np.where(known, np.append(0.0, error)[place], math.nan)
        if np.ndim(t) == 0:
            return Estimate(float(value), float(stderr), len(self.times) - 1)
        return groups.Estimates(value, stderr, len(self.times) - 1)

    def _need_passages(self) -> None:
        if self.censored == len(self.times):
            raise UnsoundError(
                f"none of {len(self.times)} replicas passed within {self.horizon:g} {self.unit}: "
                "all that is known is that passages are rarer than about one in "
                f"{self.exposure.sum():.3g} {self.unit}. Run longer, with more replicas, or start "
                "nearer to the region."
            )

    @functools.cached_property
    def _sorted(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Order, exposure and passage of the replicas by time, passages before censorings."""
        passed = ~np.isnan(self.times)
        order = np.lexsort((~passed, self.exposure))
        return order, self.exposure[order], passed[order]

    @functools.cached_property
    def _steps(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Times in order, the survival after each of them, and its standard error."""
        _, times, passed = self._sorted
        at_risk = np.arange(len(times), 0, -1.0)
        survival = np.cumprod(1 - passed / at_risk)
        with np.errstate(divide="ignore", invalid="ignore"):
            terms = np.where(passed, 1 / (at_risk * (at_risk - 1)), 0.0)
            error = np.where(survival > 0, survival * np.sqrt(np.cumsum(terms)), 0.0)
        return times, survival, error

    def _survival(self, weights: np.ndarray) -> np.ndarray:
        """The survival after each time in order, of the replicas with weight 1."""
        passed = self._sorted[2]
        at_risk = np.cumsum(weights[::-1])[::-1]
        return np.cumprod(1 - weights * passed / np.maximum(at_risk, 1.0))

    def _restricted(self, weights: np.ndarray) -> float:
        times = self._sorted[1]
        before = np.append(1.0, self._survival(weights)[:-1])
        return float((np.diff(times, prepend=0.0) * before).sum())

    def _mean(self, weights: np.ndarray) -> float:
        _, times, passed = self._sorted
        left = self._survival(weights)[-1]
        if left <= 0:
            return self._restricted(weights)
        late = times > self.horizon / 2
        events = (weights * passed)[late].sum()
        exposure = (weights * np.clip(times - self.horizon / 2, 0, None)).sum()
        if events == 0:
            raise UnsoundError(
                f"no replica passed in the later half of the run, where {left:.3g} of them were "
                "left: the tail of the mean is not known. Run longer, or read .restricted_mean."
            )
        return self._restricted(weights) + float(left * exposure / events)

    def _jackknifed(self, statistic) -> Estimate:
        order = self._sorted[0]
        n = len(order)
        count = min(JACKKNIFE, n)
        label = np.empty(n, int)
        label[:] = (order * count) // n  # contiguous groups of replicas
        value = statistic(np.ones(n))
        if count < 2:
            return Estimate(value, math.nan, 0)
        left_out = np.array([statistic((label != g).astype(float)) for g in range(count)])
        spread = ((left_out - left_out.mean()) ** 2).sum()
        return Estimate(value, math.sqrt((count - 1) / count * spread), count - 1)


def passage_times(passed, seen, unit, in_steps: bool) -> PassageTimes:
    """Times from the step of each passage (0: none), the last step watched, and a step's time."""
    happened = passed > 0
    exposure = np.where(happened, passed, seen) * unit
    if exposure.max() == 0:
        raise UnsoundError("the run holds no observation of the passages: it ended at its start.")
    times = np.where(happened, exposure, np.nan)
    return PassageTimes(times, exposure, "steps" if in_steps else "units of time")
