"""The rows of a comparison: one quantity each, with its test, its equivalence and its power."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from langevin.analysis import significance
from langevin.analysis.significance import CONFIDENCE, POWER, student
from langevin.errors import UnsoundError
from langevin.result import Estimate

ROUNDINGS = 64  # last places by which a mean may be off through rounding alone
SEEN = 16  # error groups that must have seen a minimum for its standard error to mean anything


@dataclass(frozen=True)
class Row:
    """One quantity: measured, predicted, and how far apart in standard errors.

    ``scale`` is what its error is small or large against: the prediction itself, or for the entries
    of a mean or a covariance the predicted standard deviations. ``dof`` degrees of freedom stand
    behind ``stderr``; 0 for a test of a whole distribution (chi-square, Kolmogorov-Smirnov), which
    has neither an interval nor an equivalence test. ``p_adjusted`` is the p-value after Holm's
    correction over all rows of the comparison, ``level`` the p-value below which this row alone
    would be a difference (the significance over the number of rows).
    """

    quantity: str
    measured: float
    stderr: float
    predicted: float
    z: float
    p_value: float
    scale: float
    dof: float = 0
    p_adjusted: float = math.nan
    level: float = math.nan

    @property
    def relative_error(self) -> float:
        """Standard error over scale; 0 for a test without one."""
        return self.stderr / self.scale if self.stderr > 0 and self.scale > 0 else 0.0

    @property
    def has_interval(self) -> bool:
        """Whether the row is an estimate; False for the test of a whole distribution."""
        return self.dof > 0 or math.isnan(self.stderr)

    @property
    def deviation(self) -> float:
        """``(measured - predicted) / scale``; 0 where they differ by rounding alone."""
        if self.z == 0:
            return 0.0
        return (self.measured - self.predicted) / self.scale if self.scale > 0 else math.inf

    @property
    def _error(self) -> float:
        """Standard error of ``deviation``."""
        if self.stderr == 0 or (self.z == 0 and not self.scale > 0):
            return 0.0
        return self.stderr / self.scale if self.scale > 0 else math.inf

    @property
    def interval(self) -> tuple[float, float]:
        """The deviation's two-sided 95 % interval (Student's t); NaN without a standard error."""
        if not (self.has_interval and self.dof > 0):
            return math.nan, math.nan
        reach = significance.quantile((1 + CONFIDENCE) / 2, self.dof) * self._error
        return self.deviation - reach, self.deviation + reach

    @property
    def within(self) -> float:
        """The smallest margin at which `equivalent` holds with 95 % confidence."""
        return self._within(CONFIDENCE)

    def _within(self, confidence: float) -> float:
        if not self.has_interval:
            return math.nan
        return significance.margin_shown(self.deviation, self._error, self.dof, confidence)

    def equivalent(self, margin: float = 0.01, confidence: float = CONFIDENCE) -> bool:
        """Whether the deviation is *shown* to be below ``margin``, relative to the scale.

        Two one-sided t-tests: where it is not, this is claimed with a probability of at most
        ``1 - confidence``. Not seeing a difference is no such claim. Source: Schuirmann 1987.
        """
        return self._within(confidence) <= margin

    @property
    def detectable(self) -> float:
        """The relative deviation that this run sees with 80 % probability, at ``level``."""
        if not self.has_interval:
            return math.nan
        return significance.detectable(self._error, self.dof, self.level, POWER)

    def power(self, deviation: float) -> float:
        """The probability that a true relative deviation of this size is seen, at ``level``."""
        if not self.has_interval:
            return math.nan
        return significance.power(deviation, self._error, self.dof, self.level)


def estimate_row(
    quantity: str, measured: Estimate, predicted: Any, scale: Any = None, floor: float = -1.0
) -> Row:
    """A row; a difference of at most ``floor`` is rounding, and none.

    Where ``predicted`` is an Estimate too, of another run, the errors add in squares, with the
    degrees of freedom of Welch 1947 (Satterthwaite 1946).
    """
    other = predicted if isinstance(predicted, Estimate) else Estimate(float(predicted), 0.0)
    stderr, dof = measured.stderr, measured.dof
    if isinstance(predicted, Estimate):
        stderr, dof = welch(measured, other)
    scale = abs(other.value) if scale is None else float(scale)
    same = abs(measured.value - other.value) <= floor
    z = 0.0 if same else Estimate(measured.value, stderr).z(other.value)
    p_value = 1.0 if same else student(z, dof)
    return Row(quantity, measured.value, stderr, other.value, z, p_value, scale, dof)


def welch(a: Estimate, b: Estimate) -> tuple[float, float]:
    """Standard error and degrees of freedom of the difference of two independent estimates."""
    squares = np.array([a.stderr, b.stderr]) ** 2
    total = squares.sum()
    if not total > 0:
        return float(np.sqrt(total)), min(a.dof, b.dof)
    parts = np.divide(squares**2, [a.dof, b.dof], out=np.zeros(2), where=np.array(squares) > 0)
    return float(np.sqrt(total)), float(total**2 / parts.sum())


def occupation_rows(
    occupation: Any, prediction: Any, counts: np.ndarray | None, n: int, when: str = ""
) -> list[Row]:
    """Ratio or probabilities; a rare minimum is tested by counts of independent replicas instead.

    ``counts`` (minima,) of ``n`` independent replicas, or None where their basins are not known.
    ``when`` is for counts at one time: then a minimum is rare too where too few replicas have left
    the basin they began in, whose shares are no accident; its scale is the share of all replicas.
    """
    try:
        expected = np.asarray(prediction.occupation())
    except UnsoundError:
        return []
    probability, stderr, dof = occupation.probability, occupation.stderr, occupation.dof
    m = len(probability)
    if len(expected) != m or m < 2:
        return []
    rare = occupation.seen < SEEN
    if when:
        rare = rare | ((n * stderr) ** 2 < SEEN)
    if m == 2 and not rare.any():
        try:
            ratio = prediction.ratio(0, 1)
        except UnsoundError:
            return []
        return [estimate_row(f"p_0/p_1{when}", occupation.ratio(0, 1), ratio)]
    rows = []
    for k in range(m):
        if not rare[k]:
            measured = Estimate(float(probability[k]), float(stderr[k]), dof)
            rows.append(estimate_row(f"p_{k}{when}", measured, expected[k]))
        elif counts is not None:
            row = binomial_row(f"p_{k}{when}", int(counts[k]), n, expected[k])
            rows.append(replace(row, scale=1.0) if when else row)
        else:
            nothing = (math.nan,) * 2
            rows.append(
                Row(f"p_{k}{when}", probability[k], math.nan, expected[k], *nothing, expected[k])
            )
    return rows


def binomial_row(name: str, count: int, n: int, expected: float) -> Row:
    """The exact test of a minimum's share of replicas that are independent."""
    from scipy import special, stats

    expected = min(max(float(expected), 0.0), 1.0)
    p_value = float(stats.binomtest(count, n, expected).pvalue) if n else math.nan
    error = math.sqrt(expected * (1 - expected) / n) if n else math.nan
    sign = math.copysign(1.0, count - n * expected)
    z = sign * float(-special.ndtri(max(p_value, 1e-300) / 2))
    label = f"{name} (rare: {'counts' if ' at ' in name else 'final positions'})"
    return Row(label, count / max(n, 1), error, expected, z, p_value, expected, max(n - 1, 0))


def moment_rows(moments: Any, prediction: Any, rounding: float) -> list[Row]:
    """Every entry of the covariance and of the mean, relative to the standard deviations."""
    try:
        mean, covariance = prediction.moments()
    except UnsoundError:
        return []
    rows = []
    dim = len(moments.mean)
    deviation = np.sqrt(np.diag(np.atleast_2d(covariance)))
    error = ROUNDINGS * rounding * (np.abs(moments.mean) + deviation)
    for a in range(dim):
        for b in range(a, dim):
            measured = entry(moments, a, b)
            scale = deviation[a] * deviation[b]
            floor = error[a] * error[b]
            rows.append(estimate_row(f"cov[{a},{b}]", measured, covariance[a][b], scale, floor))
    for a in range(dim):
        rows.append(estimate_row(f"mean[{a}]", entry(moments, a), mean[a], deviation[a], error[a]))
    return rows


def entry(moments: Any, a: int, b: int | None = None) -> Estimate:
    """One entry of the mean, or of the covariance, as an Estimate."""
    if b is None:
        return Estimate(float(moments.mean[a]), float(moments.mean_stderr[a]), moments.dof)
    value, stderr = moments.covariance[a, b], moments.covariance_stderr[a, b]
    return Estimate(float(value), float(stderr), moments.dof)
