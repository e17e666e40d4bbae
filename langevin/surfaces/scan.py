"""Stationary points in one dimension: exact roots of polynomials, a dense scan of all others."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import sympy

GRID = 20_001  # points of the scan


@dataclass(frozen=True)
class Stationary:
    """A point where the slope changes sign: minimum, maximum, pole (a maximum at infinite energy)
    or flat (the middle of a plateau between falling and rising slopes)."""

    x: float
    kind: str


def stationary_points(surface, low: float, high: float, restricted: bool) -> list[Stationary]:
    """Where the slope changes sign, left to right; inside [low, high] if ``restricted``.

    A polynomial's are found everywhere, by exact isolation of its real roots.
    """
    polynomial = getattr(surface, "gradient_polynomial", lambda: None)()
    if polynomial is None:
        return _scanned(surface, low, high)
    if polynomial.is_zero:
        return [Stationary((low + high) / 2, "flat")]
    points = _polynomial_points(polynomial)
    return [p for p in points if low <= p.x <= high] if restricted else points


def _polynomial_points(gradient: sympy.Poly) -> list[Stationary]:
    if gradient.degree() < 1:
        return []
    rising = (gradient.LC() > 0) == (gradient.degree() % 2 == 0)  # sign of the slope at -infinity
    simple = gradient.sqf_part()
    coefficients = [Fraction(int(c.p), int(c.q)) for c in simple.all_coeffs()]
    points = []
    for (left, right), multiplicity in gradient.intervals():
        if multiplicity % 2 == 0:
            continue  # the slope touches zero and keeps its sign
        bracket = [Fraction(int(e.p), int(e.q)) for e in (left, right)]
        kind = "maximum" if rising else "minimum"
        points.append(Stationary(_bisected(coefficients, *bracket), kind))
        rising = not rising
    return points


def _bisected(coefficients: list[Fraction], a: Fraction, b: Fraction) -> float:
    """The simple root isolated by a == b or by the open interval (a, b), to double precision.

    Exact arithmetic decides every sign. A neighbouring root may lie on an end of the interval.
    """
    if a == b:
        return float(a)

    def sign(x: Fraction, polynomial=coefficients) -> int:
        total = Fraction(0)
        for c in polynomial:
            total = total * x + c
        return (total > 0) - (total < 0)

    n = len(coefficients) - 1
    slope = [c * (n - i) for i, c in enumerate(coefficients[:-1])]
    at_b = sign(b) or -sign(b, slope)  # on a root, the sign just left of it
    for _ in range(1100):
        if b - a <= max(abs(a), abs(b)) * Fraction(1, 2**56):
            break
        middle = (a + b) / 2
        s = sign(middle)
        if s == 0:
            return float(middle)
        a, b = (a, middle) if s == at_b else (middle, b)
    return float((a + b) / 2)


def _scanned(surface, low: float, high: float) -> list[Stationary]:
    def slope(x):
        return surface.gradient(np.asarray(x, float)[..., None])[..., 0]

    x = np.linspace(low, high, GRID)
    x = _with_near_misses(x, slope)
    g = slope(x)
    usable = np.isfinite(g)
    x, sign = x[usable], np.sign(g[usable])
    points = []
    nonzero = np.flatnonzero(sign)
    for i, j in itertools.pairwise(nonzero):
        if sign[i] == sign[j]:
            continue
        if j > i + 2:  # a run of exact zeros: a plateau, or a well's tail that underflowed
            kind = "flat" if sign[i] < 0 else "maximum"
            points.append(Stationary(float((x[i + 1] + x[j - 1]) / 2), kind))
        else:
            points += _resolved(surface, slope, float(x[i]), float(x[j]), sign[i] < 0, high - low)
    if not len(nonzero):
        points.append(Stationary((low + high) / 2, "flat"))
    return points


def _with_near_misses(x: np.ndarray, slope) -> np.ndarray:
    """The grid, refined where the slope nearly touches zero and two roots may hide in one cell."""
    g = np.abs(slope(x))
    dips = 1 + np.flatnonzero((g[1:-1] < g[:-2]) & (g[1:-1] < g[2:]))
    if not 0 < len(dips) <= 2000:
        return x
    step = x[1] - x[0]
    fine = (x[dips][:, None] + step * np.linspace(-1, 1, 65)[1:-1]).ravel()
    return np.unique(np.concatenate([x, fine]))


def _resolved(surface, slope, a, b, is_minimum, width) -> list[Stationary]:
    """The sign change in [a, b], told apart from poles and gaps in the domain."""
    from scipy.optimize import brentq

    with np.errstate(all="ignore"):
        try:
            tolerance = 1e-15 * max(abs(a), abs(b)) + 1e-300
            x = brentq(lambda v: np.nan_to_num(float(slope(v))), a, b, xtol=tolerance)
        except (ValueError, RuntimeError):
            return []
        near, nearer = (abs(slope(x + d * width)) for d in (1e-9, 1e-11))
        energy = surface.energy(np.array([x]))
    pole = not np.isfinite(energy) or nearer > 30 * near > 0
    if pole:
        return [] if is_minimum else [Stationary(x, "pole")]
    return [Stationary(x, "minimum" if is_minimum else "maximum")]
