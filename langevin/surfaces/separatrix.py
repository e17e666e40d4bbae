"""The borders between basins in two dimensions: stable manifolds of the saddles, traced."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

MOST = 60  # saddles: beyond, tracing takes longer than it is worth
TOLERANCE = 1e-12


@dataclass(frozen=True, eq=False)
class Separatrix:
    """One border, from a saddle uphill both ways: two branches that leave it in opposite senses.

    ``branches`` are functions of arc length (n,) -> positions (n, 2) and unit tangents (n, 2),
    with their lengths in ``lengths``.
    Looking along branch 0 from the saddle, ``left`` is the minimum on the left, ``right`` the one
    on the right; along branch 1 they change places.
    """

    saddle: np.ndarray
    branches: tuple[Any, Any]
    lengths: tuple[float, float]
    left: int
    right: int


def trace(surface: Any, low: np.ndarray, high: np.ndarray) -> tuple[Separatrix, ...] | None:
    """The separatrices of the box from ``low`` to ``high`` (2,), or None where one is not traced.

    From each saddle of index 1 the gradient flow is followed backwards, ``dx/ds = +grad U/|grad
    U|``, to the box's edge or to a maximum; errors across it die out on the way, since the flow
    backwards is attracted. Saddles with one minimum on both sides are no border and are left out.
    """
    saddles = surface.saddles()
    if not 0 < len(saddles) <= MOST:
        return None
    found = []
    for saddle in saddles:
        if not ((saddle.position >= low) & (saddle.position <= high)).all():
            continue
        values, vectors = np.linalg.eigh(saddle.hessian)
        if not (values[0] < -1e-6 * values[1] and values[1] > 0):
            return None  # degenerate: no stable manifold to leave along
        along, down = vectors[:, 1], vectors[:, 0]
        left = np.array([-along[1], along[0]])
        down = down if down @ left > 0 else -down
        sides = [_descended(surface, saddle.position, s * down, low, high) for s in (1, -1)]
        if min(sides) < 0:
            return None
        if sides[0] == sides[1]:
            continue
        curves = [_branch(surface, saddle.position, s * along, low, high) for s in (1, -1)]
        if None in curves:
            return None
        paths, lengths = zip(*curves, strict=True)
        found.append(Separatrix(saddle.position, paths, lengths, *sides))
    return tuple(found)


def _branch(surface, saddle, along, low, high):
    """One branch as a function of arc length, and its length; None where it cannot be followed."""
    from scipy.integrate import solve_ivp

    width = high - low
    first = 1e-6 * width.min()
    longest = 20 * width.sum()
    steepest = np.abs(surface.gradient(saddle + 1e-2 * width.min() * along)).max()

    def ascent(_, x):
        g = surface.gradient(x)
        return g / np.hypot(*g)

    def outside(_, x):  # negative beyond a margin around the box
        return np.minimum(x - low, high - x).min() + 1e-3 * width.min()

    def resting(_, x):
        return np.hypot(*surface.gradient(x)) - 1e-7 * steepest

    outside.terminal = resting.terminal = True
    resting.direction = -1
    start = saddle + first * along
    options = {"method": "DOP853", "rtol": TOLERANCE, "atol": TOLERANCE * width.min()}
    options["max_step"] = width.min() / 40  # between steps the path is a polynomial of degree 7
    with np.errstate(all="ignore"):
        path = solve_ivp(
            ascent, (first, longest), start, dense_output=True, events=(outside, resting), **options
        )
    if path.status != 1 or not np.isfinite(path.y).all():
        return None
    length, end = path.t[-1], path.y[:, -1]
    top = end if len(path.t_events[0]) else _top(surface, end, 1e-3 * width.min())
    if top is None:
        return None
    last = float(np.hypot(*(top - end)))

    def curve(s):
        if not len(s):
            return np.empty((0, 2)), np.empty((0, 2))
        x = path.sol(np.clip(s, first, length)).T
        g = surface.gradient(x)
        tangent = g / np.hypot(g[:, 0], g[:, 1])[:, None]
        early, late = s < first, s > length
        x[early], tangent[early] = saddle + s[early, None] * along, along
        if last > 0:
            x[late] = end + (s[late, None] - length) / last * (top - end)
            tangent[late] = (top - end) / last
        return x, tangent

    return curve, float(length + last)


def _top(surface, x, reach):
    """The stationary point next to ``x`` by Newton's method, or None."""
    y = np.array(x)
    for _ in range(30):
        try:
            step = np.linalg.solve(surface.hessian(y), surface.gradient(y))
        except np.linalg.LinAlgError:
            return None
        y = y - step
        if not np.hypot(*(y - x)) < reach:
            return None
        if np.hypot(*step) < 1e-14 * reach:
            break
    return y


def _descended(surface, saddle, down, low, high) -> int:
    """The minimum reached from a saddle along its unstable direction, or -1."""
    from langevin.surfaces.flow import Traps, labels_by_flow

    width = high - low
    start = saddle + 1e-4 * width.min() * down
    traps = Traps(surface, width)
    return int(labels_by_flow(surface, start[None], low, high, traps)[0])
