"""What a first-order law of the step leaves out at low temperature: the next order."""

from __future__ import annotations

from typing import Any

import numpy as np

OFF = 1e-4  # of the distance to the nearest minimum: where the way down from a saddle begins
RELAXATIONS = 40.0  # times the slowest curvature's, which a way down is followed for
MOST = 32  # saddles, the lowest ones, whose ways down are followed


def next_order(surface: Any, per_heat: float, step: float) -> float:
    """About the largest change of ``ln(p_a/p_b)`` beyond first order, a, b the wells of a saddle.

    ``per_heat`` is ``(eta/(1 - m))**2/T``, ``step`` is ``eta/(1 + m)``.

    As T -> 0 at a fixed step the chain's law is ``exp(-Phi/T)``, ``Phi(y) = min_x [Phi(x) +
    |y - x + eta g(x)|**2/(4 eta)]``, g = grad U. In powers of eta this is ``U - (eta/4) |g|**2 +
    eta**2 Phi_2``, with ``g . grad Phi_2 = D3U(g, g, g)/12``. The first order is 0 at minima and
    saddles; along the gradient flow, in its time s, the second rises by ``I/6`` from saddle to
    minimum, ``I = int |H g|**2 ds``. So ``ln(p_a/p_b)`` changes by ``-(eta**2/(6 T)) (I_a - I_b)``
    beyond what the first order says; and by what the wells' own widths, ``1/(1 - eta h/2)`` along
    each curvature h, have beyond it. nan where no way can be followed.
    """
    minima = np.array([m.position for m in surface.minima()], dtype=float)
    saddles = sorted(surface.saddles(), key=lambda s: s.energy)[:MOST]
    if len(minima) < 2 or not saddles:
        return 0.0
    slowest = [float(np.linalg.eigvalsh(m.hessian)[0]) for m in surface.minima()]
    worst = 0.0
    for saddle in saddles:
        values, vectors = np.linalg.eigh(np.asarray(saddle.hessian, dtype=float))
        top, out = np.asarray(saddle.position, dtype=float), vectors[:, 0]
        off = OFF * np.linalg.norm(minima - top, axis=1).min()
        rates = [r for r in (*slowest, -values[0]) if r > 0]
        if not rates or not values[0] < 0:
            return np.nan
        time = RELAXATIONS / min(rates)
        a, b = (_weight(surface, top + s * off * out, time, per_heat, step) for s in (-1, 1))
        worst = np.fmax(worst, np.abs(a - b).sum())  # not their sum: signs that cancel are luck
    return float(worst)


def _weight(
    surface: Any, start: np.ndarray, time: float, per_heat: float, step: float
) -> np.ndarray:
    """What ``ln p`` of the well down from ``start`` (dim,) has beyond first order, (2,), or nan."""
    end, integral = _down(surface, start, time)
    half = step / 2 * np.linalg.eigvalsh(surface.hessian(end))
    if not (half < 1).all():
        return np.full(2, np.nan)  # an unstable minimum: nothing is known of it
    return np.array([-per_heat / 6 * integral, -(np.log1p(-half) + half).sum() / 2])


def _down(surface: Any, start: np.ndarray, time: float) -> tuple[np.ndarray, float]:
    """The end (dim,) of the gradient flow from ``start`` (dim,), and ``int |H g|**2 ds``."""
    from scipy.integrate import solve_ivp

    def flow(_: float, y: np.ndarray) -> np.ndarray:
        x = y[:-1]
        slope = surface.gradient(x)
        return np.append(-slope, ((surface.hessian(x) @ slope) ** 2).sum())

    with np.errstate(all="ignore"):
        way = solve_ivp(flow, (0, time), np.append(start, 0.0), method="LSODA", rtol=1e-6)
    return way.y[:-1, -1], float(way.y[-1, -1]) if way.success else np.nan
