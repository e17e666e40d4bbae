"""Intervals of ratios of measured numbers, honest where the denominator may be zero."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Interval:
    """A number between ``low`` and ``high`` at the stated ``confidence``.

    ``value`` is NaN where the measurement cannot tell: then ``reason`` says why, and a finite
    ``low`` is still a bound.
    """

    value: float
    low: float
    high: float
    confidence: float = 0.95
    reason: str = ""

    @property
    def resolved(self) -> bool:
        """Whether there is a value at all."""
        return not math.isnan(self.value)

    def __contains__(self, number: float) -> bool:
        return self.low <= number <= self.high

    def __str__(self) -> str:
        if self.resolved:
            return f"{self.value:.4g} ({self.low:.4g} to {self.high:.4g})"
        bound = f", above {self.low:.4g}" if self.low > 0 else ""
        return f"cannot tell{bound}: {self.reason}"


def ratio(a, b, covariance, dof: float, confidence: float, reason: str) -> Interval:
    """``a/b`` for a quantity that is positive, by Fieller's theorem.

    The interval holds every r >= 0 for which ``a - r b`` is compatible with 0. Where b itself is
    compatible with 0, or negative, there is no upper end and no value, and ``reason`` is given.
    ``covariance`` (2, 2) is that of (a, b).
    """
    t = quantile(dof, confidence)
    (va, cab), (_, vb) = np.asarray(covariance, dtype=float)
    # (a - r b)^2 <= t^2 (va - 2 r cab + r^2 vb), a quadratic in r
    A, B, C = b * b - t * t * vb, -2 * (a * b - t * t * cab), a * a - t * t * va
    known = b > 0 and A > 0
    root = math.sqrt(max(B * B - 4 * A * C, 0.0))
    if known:
        low, high = (-B - root) / (2 * A), (-B + root) / (2 * A)
        return Interval(a / b, max(low, 0.0), max(high, 0.0), confidence)
    if a <= 0 or C <= 0 or A == 0:  # 0 itself is compatible, or nothing is known
        return Interval(math.nan, 0.0, math.inf, confidence, reason)
    ends = [r for r in ((-B - root) / (2 * A), (-B + root) / (2 * A)) if r > 0]
    return Interval(math.nan, min(ends, default=0.0), math.inf, confidence, reason)


def smooth(value, slopes, covariance, dof: float, confidence: float) -> Interval:
    """A positive function of measured numbers with the gradient ``slopes``, linearised."""
    slopes = np.asarray(slopes, dtype=float)
    width = quantile(dof, confidence) * math.sqrt(max(slopes @ covariance @ slopes, 0.0))
    return Interval(float(value), max(float(value - width), 0.0), float(value + width), confidence)


def quantile(dof: float, confidence: float) -> float:
    """Student's two-sided quantile."""
    return float(stats.t.isf((1 - confidence) / 2, dof))
