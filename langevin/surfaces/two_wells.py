"""Two wells with prescribed depths, curvatures and barrier, as a polynomial."""

from __future__ import annotations

import numpy as np
from numpy.polynomial import Polynomial

from langevin.errors import ParameterError

_SHAPES = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)  # of the term that makes the degree 8
_STRETCHES = 1.05 * np.geomspace(1, 3, 34)  # of the natural separation, and their inverses


def two_well_polynomial(
    *,
    energy_difference: float,
    wide_curvature: float,
    sharp_curvature: float,
    barrier: float,
    separation: float | None,
) -> np.ndarray:
    """Coefficients of U(x), lowest power first, with the arguments of `wide_and_sharp`.

    In units of the separation, from the wide minimum s = 0 to the sharp one s = 1, the top at b:
    ``U' = s (s - b) (s - 1) q(s)``, ``q = q_0 + (q_1 - q_0) s + m w + k w**2``, ``w = s (s - 1)``.
    The curvatures fix q_0 and q_1, the barrier fixes m, the energy difference b; k = 0 if possible.
    Raises ParameterError where no q > 0 is found, which would mean further minima.
    """
    given = {
        "energy_difference": energy_difference,
        "wide_curvature": wide_curvature,
        "sharp_curvature": sharp_curvature,
        "barrier": barrier,
    } | ({} if separation is None else {"separation": separation})
    for name, value in given.items():
        number = isinstance(value, (int, float, np.number)) and np.isfinite(value)
        if not number or value < 0 or (value == 0 and name != "energy_difference"):
            raise ParameterError(
                f"wide_and_sharp({name}={value!r}): needs a finite number, "
                f"{'0 or more' if name == 'energy_difference' else 'above 0'}."
            )
    if not wide_curvature < sharp_curvature:
        raise ParameterError(
            f"wide_and_sharp(wide_curvature={wide_curvature!r}, sharp_curvature="
            f"{sharp_curvature!r}): the wide well needs the smaller curvature. Exchange the two."
        )
    # A cubic well of curvature H and depth E is sqrt(6 E/H) wide from its bottom to its top.
    natural = np.sqrt(6 * barrier / wide_curvature)
    natural += np.sqrt(6 * (barrier + energy_difference) / sharp_curvature)
    stretches = np.concatenate([_STRETCHES, 1.05**2 / _STRETCHES[1:]])
    stretches = stretches[np.argsort(np.abs(np.log(stretches / 1.05)))]
    lengths = [separation] if separation is not None else list(natural * stretches)
    for shape in _SHAPES:
        for length in lengths:
            curvatures = np.array([wide_curvature, sharp_curvature]) * length**2
            found = _solved(curvatures, energy_difference, barrier, shape)
            if found is not None:
                return _in_place(*found, length)
    advice = (
        f"A separation near {1.05 * natural:.3g} suits these wells; leave it out to have it chosen."
        if separation is not None
        else "Bring the two curvatures closer together, or energy_difference closer to barrier."
    )
    raise ParameterError(
        f"wide_and_sharp({', '.join(f'{k}={v:g}' for k, v in given.items())}): no polynomial of "
        f"degree 6 or 8 has these two wells and no other. {advice}"
    )


def _solved(curvatures, difference, barrier, shape) -> tuple[Polynomial, float] | None:
    """U(s) with U(1) = 0 and the top's position b, or None if there is no such U with q > 0."""
    from scipy.optimize import brentq

    def excess(b):
        slope, _ = _candidate(np.asarray(b), curvatures, barrier, shape)
        return _integral(slope, 1.0) + difference

    grid = np.linspace(0.02, 0.98, 65)
    values = excess(grid)
    for i in np.flatnonzero(np.sign(values[:-1]) * np.sign(values[1:]) < 0):
        b = brentq(excess, grid[i], grid[i + 1], xtol=1e-16, rtol=1e-15)
        slope, q = _candidate(np.asarray(b), curvatures, barrier, shape)
        if _is_positive(Polynomial(q)):
            u = Polynomial(slope).integ()
            return u - u(1.0), b
    return None


def _candidate(b, curvatures, barrier, shape) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients (..., power) of U'(s) and q(s) with curvatures and barrier right, tops at b."""
    q0, q1 = curvatures[0] / b, curvatures[1] / (1 - b)
    k = shape * (q0 + q1)
    zero = np.zeros_like(b)
    q = np.stack([q0, q1 - q0, k, -2 * k, k], axis=-1)
    w = np.stack([zero, zero - 1, zero + 1, zero, zero], axis=-1)
    m = (barrier - _integral(_times_cubic(q, b), b)) / _integral(_times_cubic(w, b), b)
    q = q + m[..., None] * w
    return _times_cubic(q, b), q


def _times_cubic(q: np.ndarray, b) -> np.ndarray:
    """Coefficients of ``s (s - b) (s - 1) q(s)``."""
    result = np.zeros((*q.shape[:-1], q.shape[-1] + 3))
    for shift, factor in ((1, b), (2, -(1 + b)), (3, np.ones_like(b))):
        result[..., shift : shift + q.shape[-1]] += np.asarray(factor)[..., None] * q
    return result


def _integral(coefficients: np.ndarray, s) -> np.ndarray:
    """The integral from 0 to s of the polynomial with these coefficients."""
    powers = np.arange(1, coefficients.shape[-1] + 1)
    return (coefficients / powers * np.asarray(s)[..., None] ** powers).sum(axis=-1)


def _is_positive(q: Polynomial) -> bool:
    """Whether q > 0 on the whole line, by at least a thousandth of its size between the wells."""
    q = q.trim(1e-12 * np.abs(q.coef).max())
    if q.degree() % 2 or q.coef[-1] <= 0:
        return False
    turning = q.deriv().roots()
    lows = [q(t.real) for t in turning if abs(t.imag) < 1e-6 * (1 + abs(t))]
    ends = min(q(0.0), q(1.0))
    return bool(min(lows, default=ends) > 1e-3 * ends)


def _in_place(u: Polynomial, b: float, length: float) -> np.ndarray:
    """Coefficients in x = length (s - b): the top at x = 0, without a linear term."""
    coefficients = u(Polynomial([b, 1 / length])).coef
    coefficients[1] = 0.0
    return coefficients
