"""Student's t, Holm's correction, equivalence and power: the numbers behind every verdict."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

CONFIDENCE = 0.95  # of intervals, and of "agrees within"
HIGH = 50.0  # standard errors
POWER = 0.8  # with which a deviation that "would have been seen" would have been


def student(z: float, dof: float) -> float:
    """Two-sided p-value of a difference of ``z`` standard errors."""
    from scipy import special

    if math.isnan(z):
        return math.nan
    return float(2 * special.stdtr(dof, -abs(z))) if dof > 0 else math.nan


def holm(p_values: Any) -> np.ndarray:
    """P-values adjusted for their number, so that the chance of *any* false alarm stays as stated.

    Step-down: the k-th smallest of m becomes ``max over j <= k of (m - j + 1) p_(j)``, at most 1.
    Valid whatever the dependence between the tests. NaN (a test that could not be made) stays NaN
    and is not counted. Source: Holm 1979, Scandinavian Journal of Statistics 6, 65.
    """
    p = np.asarray(p_values, dtype=float)
    made = np.flatnonzero(~np.isnan(p))
    order = made[np.argsort(p[made], kind="stable")]
    adjusted = np.full(p.shape, math.nan)
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(factors * p[order]))
    return adjusted


def quantile(confidence: float, dof: float) -> float:
    """Student's t below which lies a share ``confidence``."""
    from scipy import special

    return float(special.stdtrit(dof, confidence))


def margin_shown(deviation: float, stderr: float, dof: float, confidence: float) -> float:
    """The smallest margin to which two one-sided t-tests show a deviation to be confined.

    ``|d| + t stderr``: claiming that the true deviation is smaller is wrong with a probability of
    at most ``1 - confidence``. Source: Schuirmann 1987, J. Pharmacokinet. Biopharm. 15, 657.
    """
    if stderr == 0:
        return abs(deviation)
    if not (dof > 0 and math.isfinite(stderr)):
        return math.inf
    return abs(deviation) + quantile(confidence, dof) * stderr


def power(deviation: float, stderr: float, dof: float, level: float) -> float:
    """The chance that a two-sided t-test at ``level`` sees a true deviation of this size."""
    from scipy import special

    # A non-central t. Where the bar is high (one or two degrees of freedom) only the error's own
    # scatter counts, |shift| > critical * sqrt(chi2/dof); special.nctdtrinc hangs there.
    if stderr == 0:
        return 1.0 if deviation != 0 else level
    if not (dof > 0 and math.isfinite(stderr)):
        return 0.0
    critical, shift = quantile(1 - level / 2, dof), abs(deviation) / stderr
    if critical > HIGH:
        return float(special.chdtr(dof, dof * (shift / critical) ** 2))
    above, below = special.nctdtr(dof, shift, critical), special.nctdtr(dof, shift, -critical)
    if not math.isfinite(above):  # a shift so far out that it is seen for certain
        return 1.0
    return float(1 - above + (below if math.isfinite(below) else 0.0))


def detectable(stderr: float, dof: float, level: float, chance: float = POWER) -> float:
    """The deviation that a two-sided t-test at ``level`` sees with a probability of ``chance``."""
    from scipy import special

    if stderr == 0:
        return 0.0
    if not (dof > 0 and math.isfinite(stderr)):
        return math.inf
    critical = quantile(1 - level / 2, dof)
    if critical > HIGH:
        shift = critical * math.sqrt(special.chdtri(dof, 1 - chance) / dof)
    else:
        shift = float(special.nctdtrinc(dof, 1 - chance, critical))
    return shift * stderr
