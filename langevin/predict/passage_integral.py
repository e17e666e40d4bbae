"""One-dimensional diffusions: their potential, and the exact mean first-passage time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from langevin.errors import UnsoundError
from langevin.predict.common import gauss_legendre

ORDER = 12
DEPTH = 45.0  # T: what lies farther out than this weighs exp(-45)
MAX_PANELS = 200_000
FARTHEST = 1e12  # length scales that the wall may be away


@dataclass(frozen=True, eq=False)
class LineDiffusion:
    """The Ito diffusion ``dx = f dt + g dW`` of a 1-D surface, ``f = -U'``.

    ``constant`` is g**2, or None where it is ``scale * C(x)``; ``stratonovich`` adds ``g g'/2`` to
    f. Its potential is ``psi = -int 2 f/g**2 dx``, U/T where g**2 = 2 T: the scale function is
    ``int exp(psi)`` and the speed measure ``2 exp(-psi)/g**2 dx``.
    """

    surface: Any
    constant: float | None
    scale: float = 0.0
    stratonovich: bool = False

    def variance(self, x: np.ndarray) -> np.ndarray:
        """``g(x)**2``, arrays of any shape."""
        if self.constant is not None:
            return np.full(np.shape(x), self.constant)
        return self.scale * self.surface.noise_covariance(np.asarray(x)[..., None])[..., 0, 0]

    def energy(self, x: np.ndarray) -> np.ndarray:
        """U, arrays of any shape."""
        return self.surface.energy(np.asarray(x, dtype=float)[..., None])

    def slope(self, x: np.ndarray) -> np.ndarray:
        """``2 U'/g**2``: the slope of psi, without what the convention adds."""
        return 2 * self.surface.gradient(x[..., None])[..., 0] / self.variance(x)

    def difference(self, a: float, b: float) -> float:
        """``psi(b) - psi(a)``; inf or NaN where U is not finite in between."""
        if self.constant is not None:
            energies = self.energy(np.array([a, b]))
            return float(2 * (energies[1] - energies[0]) / self.constant)
        from scipy.integrate import quad

        value = quad(lambda x: self.slope(np.array([x]))[0], a, b, epsrel=1e-12, limit=500)[0]
        if self.stratonovich:
            g_a, g_b = self.variance(np.array([a, b]))
            value -= np.log(g_b / g_a) / 2
        return float(value)


def outer_panels(process: LineDiffusion, start: float, step: float, side: int) -> np.ndarray:
    """Points from ``start`` outwards until what lies beyond weighs less than exp(-DEPTH).

    ``side`` is -1 or 1. A formula that ends there (log x at 0) is followed up to its end. Raises
    UnsoundError where the density does not decay.
    """
    points, psi, lowest, smallest = [start], 0.0, np.inf, 1e-15 * (abs(start) + step)
    first = step
    while True:
        x = points[-1]
        trial = x + side * step
        rise = process.difference(x, trial)
        if not np.isfinite(rise):
            step /= 2
            if step < smallest:
                return np.array(points)
            continue
        if abs(rise) > 2:
            step /= 2
            if step > smallest:
                continue
        points.append(trial)
        psi += rise
        level = psi + np.log(process.variance(np.array([trial]))[0])  # -ln of the speed density
        lowest = min(lowest, level)
        away = abs(trial - start)
        if level - lowest - np.log(max(away / first, 1.0)) > DEPTH:
            return np.array(points)
        if away > FARTHEST * (1 + abs(start)) or len(points) > 20_000:
            raise UnsoundError(
                f"predict.escape: nothing confines the process beyond x = {start:.6g} on the side "
                f"away from the barrier (looked at as far as {trial:.3g}), so the mean time is "
                "infinite. Add a confining term such as 0.01*x**4, or swap start and barrier."
            )
        step *= 1.4


def mean_first_passage(process: LineDiffusion, edges: np.ndarray, start: float) -> float:
    """Mean time from ``start`` to the last of ``edges``, nothing coming in beyond the first.

    ``int_start^b exp(psi(y)) int^y 2/g**2 exp(-psi(z)) dz dy``, in either direction: ``edges``
    rise or fall. Panels are halved until psi changes by less than 1 in each, then all of them
    until the integral changes by less than 1e-12; everything is relative to a panel's own level, so
    no barrier overflows before the result does. Raises UnsoundError where U is not finite between
    the edges, or the noise vanishes there.
    """
    side = 1 if edges[-1] > edges[0] else -1
    edges = np.unique(side * np.append(edges, start))
    before, start, settled = np.nan, side * start, 0
    while settled < 4 and len(edges) < MAX_PANELS:
        value, change = _integral(process, edges, start, side)
        coarse = change > 1.0
        if not coarse.any():
            if abs(value - before) <= 1e-12 * value or not np.isfinite(value):
                break
            before, coarse = value, np.ones(len(change), dtype=bool)
            settled += 1  # a fourth halving would only chase rounding
        middle = (edges[:-1] + edges[1:]) / 2
        edges = np.union1d(edges, middle[coarse])
    return value


def _integral(process, edges, start, side) -> tuple[float, np.ndarray]:
    """The double integral over the panels between ``edges``, and the change of psi in each."""
    nodes, weights = gauss_legendre(ORDER)
    inner = _running(nodes)
    width = np.diff(edges)[:, None]
    x = side * (edges[:-1, None] + width * nodes)
    variance = process.variance(x)
    slope = side * process.slope(x)
    if not (variance > 0).all():
        raise UnsoundError("predict.escape: the noise vanishes between start and barrier.")
    if not np.isfinite(slope).all():
        raise UnsoundError("predict.escape: the energy is not finite between start and barrier.")
    change = np.abs(slope).max(axis=1) * width[:, 0]
    if process.constant is not None:
        psi = 2 * process.energy(x) / process.constant
    else:
        steps = (slope @ weights) * width[:, 0]
        psi = (np.cumsum(steps) - steps)[:, None] + width * (slope @ inner.T)
    if process.stratonovich:
        psi = psi - np.log(variance) / 2
    low, high = psi.min(axis=1), psi.max(axis=1)
    with np.errstate(over="ignore", under="ignore", divide="ignore", invalid="ignore"):
        mass = 2 / variance * np.exp(low[:, None] - psi)
        inside = np.log((mass @ weights) * width[:, 0]) - low
        below = np.concatenate([[-np.inf], np.logaddexp.accumulate(inside)[:-1]])
        crossing = np.log((np.exp(psi - high[:, None]) @ weights) * width[:, 0]) + high
        own = np.exp(psi - low[:, None]) * (mass @ inner.T) * width
        panels = np.exp(below + crossing) + (own @ weights) * width[:, 0]
        return float(panels[edges[:-1] >= start].sum()), change


def _running(nodes: np.ndarray) -> np.ndarray:
    """``[i, j]``: the integral from 0 to node i of the Lagrange polynomial of node j."""
    n = len(nodes)
    legendre = np.polynomial.legendre
    z = 2 * nodes - 1
    basis = np.linalg.inv(legendre.legvander(z, n - 1))  # coefficients of each polynomial
    columns = [legendre.legval(z, legendre.legint(basis[:, j], lbnd=-1)) for j in range(n)]
    return np.array(columns).T / 2
