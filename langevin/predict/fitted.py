"""The grid that holds a diffusion's stationary law, and the law on it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from langevin.errors import UnsoundError
from langevin.predict.common import gauss_legendre, is_finite_sum
from langevin.predict.diffusion import WHO, Diffusion, require_noise
from langevin.predict.grid import REACH, Axis, merged, tensor
from langevin.predict.jumps import (
    DISCONNECTED,
    Generator,
    connected,
    rates_on_line,
    rates_on_plane,
)

DEPTH, DEEPEST = 45.0, 500.0  # T: mass beyond is about exp(-DEPTH); wells beyond are of no weight
TRIAL_CELLS = {1: 400, 2: 40}  # per axis, of the solves that find the box
OUTSIDE = {1: 1e-13, 2: 1e-11}  # the mass that may be left outside
FARTHEST = {1: 1e12, 2: 1e7}  # widths of a well to which a box is widened
KNOTS = {1: 255, 2: 47}  # per axis, at which the gradients of real data are evaluated


@dataclass(frozen=True, eq=False)
class Solution:
    """The jumps on a grid and the stationary ``probability`` of every cell (n1,) or (n1, n2).

    ``temperature``: that of ``exp(-Phi/T)`` where D is isotropic and constant, else None.
    """

    axes: tuple[Axis, ...]
    coefficients: Any
    generator: Generator
    probability: np.ndarray
    temperature: float | None

    def outside(self) -> float:
        """An estimate of the mass beyond the grid: its outermost cells, continued geometrically."""
        return float(sum(mass for mass, _ in self.sides()))

    def sides(self) -> list[tuple[float, float]]:
        """The mass beyond (low, high) of each axis, and the quotient of the outermost two cells."""
        found = []
        for k in range(len(self.axes)):
            marginal = np.moveaxis(self.probability, k, 0).reshape(self.axes[k].cells, -1).sum(1)
            for last, before in ((marginal[0], marginal[1]), (marginal[-1], marginal[-2])):
                quotient = last / before if before > 0 else 0.0
                found.append((last * quotient / max(1 - quotient, 1e-3), quotient))
        return found


class Coefficients:
    """Drift, diffusion and energy of a `Diffusion`; of real data interpolated by cubics in a box.

    Cubics are exact for least squares, whose gradient is linear and whose C is quadratic.
    """

    def __init__(self, diffusion: Diffusion, axes: tuple[Axis, ...]):
        self.diffusion, self.splines = diffusion, None
        if not is_finite_sum(diffusion.surface):
            return
        from scipy.interpolate import CubicSpline, RectBivariateSpline

        dim = len(axes)
        knots = [replace(axis, cells=KNOTS[dim]).nodes for axis in axes]
        knots = [np.concatenate([[a.low], x, [a.high]]) for a, x in zip(axes, knots, strict=True)]
        points = tensor(knots)
        d = diffusion.diffusion(points)[..., *np.triu_indices(dim)]
        energy = diffusion.energy(points)[..., None]
        columns = np.concatenate([diffusion.drift(points), d, energy], axis=-1)
        if dim == 1:
            line = CubicSpline(knots[0], columns)
            self.splines = lambda x: line(x[:, 0])
        else:
            table = [RectBivariateSpline(*knots, c, s=0) for c in np.moveaxis(columns, -1, 0)]
            self.splines = lambda x: np.stack([t.ev(*x.T) for t in table], axis=-1)

    def _table(self, points: np.ndarray) -> np.ndarray:
        return self.splines(points.reshape(-1, points.shape[-1])).reshape(*points.shape[:-1], -1)

    def __call__(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """b (..., dim) and D (..., dim, dim) at points (..., dim)."""
        if self.splines is None:
            return self.diffusion.drift(points), self.diffusion.diffusion(points)
        dim, values = points.shape[-1], self._table(points)
        d = np.empty((*points.shape[:-1], dim, dim))
        i, j = np.triu_indices(dim)
        d[..., i, j] = d[..., j, i] = values[..., dim:-1]
        return values[..., :dim], d

    def energy(self, points: np.ndarray) -> np.ndarray:
        """Phi at points (..., dim), shape (...)."""
        if self.splines is None:
            return self.diffusion.energy(points)
        return self._table(points)[..., -1]


def solve(
    diffusion: Diffusion,
    axes: tuple[Axis, ...],
    bottoms: np.ndarray,
    coefficients: Coefficients | None = None,
) -> Solution:
    """Discretise the diffusion on a grid and find its stationary law.

    ``coefficients``: those of another grid in the same box.
    """
    points = tensor([axis.halves for axis in axes])
    coefficients = coefficients or Coefficients(diffusion, axes)
    with np.errstate(all="ignore"):
        b, d = coefficients(points)
        nodes = points[tuple([slice(None, None, 2)] * len(axes))]
        energy = coefficients.energy(nodes)
    finite = np.isfinite(b).all(-1) & np.isfinite(d).all((-2, -1))
    active = np.isfinite(energy) & finite[tuple([slice(None, None, 2)] * len(axes))]
    temperature = _isotropic(d, finite) / diffusion.mobility
    potential = diffusion.energy(nodes) / temperature if np.isfinite(temperature) else None
    at = np.stack([a.index(x) for a, x in zip(axes, bottoms.T, strict=True)], axis=-1)
    wells = np.clip(np.rint(at).astype(np.int64), 0, np.array(active.shape) - 1)
    d_nodes = d[tuple([slice(None, None, 2)] * len(axes))]
    passes = [s.position for s in diffusion.surface.saddles()]
    tops = diffusion.energy(np.array(passes)) if passes else np.zeros(0)
    active &= _within_reach(energy, d_nodes, active, wells, tops, diffusion.mobility)
    if not active[tuple(wells.T)].all():
        raise UnsoundError(DISCONNECTED)
    _require_definite(d_nodes[active], nodes[active])
    build = _line if len(axes) == 1 else _plane
    generator, p = build(axes, b, d, active, wells, potential, coefficients)
    probability = np.zeros(active.shape)
    probability[generator.active] = p
    return Solution(
        axes, coefficients, generator, probability, temperature if potential is not None else None
    )


def _isotropic(d: np.ndarray, finite: np.ndarray) -> float:
    """The D of an isotropic, constant D; nan for any other."""
    values = d[finite]
    size = float(np.abs(values[0]).max())
    same = np.abs(values - size * np.eye(d.shape[-1])).max() <= 1e-13 * size
    return size if same else np.nan


def _require_definite(d: np.ndarray, points: np.ndarray) -> None:
    values = np.linalg.eigvalsh(d)
    bad = ~(values[:, 0] > 1e-9 * values[:, -1])
    if bad.any():
        raise UnsoundError(
            f"{WHO}: at {np.round(points[np.argmax(bad)], 6).tolist()} the gradient noise vanishes "
            "in some direction, so the law need not have a density. Give noise in every "
            "direction, use predict.quadratic on a quadratic surface, or simulate."
        )


def _within_reach(energy, d, active, wells, tops, mobility) -> np.ndarray:
    """Nodes whose weight is not below exp(-DEPTH), by a bound: heights over the hottest T below.

    A diffusion with ``D <= mobility T I`` climbs by the work ``int dPhi/T`` at least (Freidlin and
    Wentzell), so what is cut off is rarer than that.
    """
    flat = np.flatnonzero(active)
    height = energy.reshape(-1)[flat]
    hottest = np.linalg.eigvalsh(d.reshape(-1, *d.shape[-2:])[flat])[:, -1] / mobility
    order = np.argsort(height)
    temperature = np.maximum.accumulate(np.maximum(hottest[order], 1e-300))
    work = np.concatenate([[0.0], np.cumsum(np.diff(height[order]) / temperature[1:])])
    deep = np.interp(energy[tuple(wells.T)].max(), height[order], work) + DEPTH
    top = np.interp(tops.max(initial=-np.inf), height[order], work) + DEPTH / 2
    result = np.zeros(active.size, dtype=bool)
    result[flat[order]] = work <= min(max(deep, top), DEEPEST)
    return result.reshape(active.shape)


def _line(axes, b, d, active, wells, potential, coefficients):
    """Jumps on a line and their stationary law, both with z integrated to rounding."""
    (axis,) = axes
    x = axis.nodes
    slope = np.log(axis.slope(x))
    if potential is not None:
        fitted = -np.diff(potential)
    else:
        nodes, weights = gauss_legendre(6)
        inner = x[:-1, None] + np.diff(x)[:, None] * nodes
        b, d_inner = coefficients(inner[..., None])
        with np.errstate(all="ignore"):
            fitted = (b[..., 0] / d_inner[..., 0, 0]) @ weights * np.diff(x)
    fitted = fitted + np.diff(slope)
    scale = d[::2, 0, 0] / axis.sizes**2
    with np.errstate(all="ignore"):
        log_p = np.concatenate([[0.0], np.cumsum(np.nan_to_num(fitted))]) - np.log(scale)
    active = active & np.isfinite(log_p)
    active &= ~(log_p < log_p[active].max() - 2 * DEEPEST)
    keep = connected(rates_on_line(active, scale, fitted), (np.cumsum(active) - 1)[wells[:, 0]])
    active = active.copy()
    active[active] = keep
    generator = rates_on_line(active, scale, fitted)
    p = np.exp(log_p[active] - log_p[active].max())
    return generator, p / p.sum()


def _plane(axes, b, d, active, wells, potential, coefficients):
    """Jumps on a plane and their stationary law, by elimination."""
    slopes = [axis.slope(axis.halves) for axis in axes]
    bends = [axis.bend(axis.halves) for axis in axes]
    step = np.array([axis.step for axis in axes])
    slope = tensor(slopes) / step
    matrix = slope[..., :, None] * d * slope[..., None, :]
    logs = [np.log(s[::2]) for s in slopes]
    if potential is None:
        bend = tensor(bends) / step
        force = slope * b + bend * np.einsum("...kk->...k", d)
        with np.errstate(all="ignore"):
            form = _solve_pairs(matrix, force)

    def edge(node: np.ndarray, offset: np.ndarray) -> np.ndarray:
        if potential is not None:
            end = node + offset
            z = potential[tuple(node.T)] - potential[tuple(end.T)]
            return z + sum(logs[k][end[:, k]] - logs[k][node[:, k]] for k in (0, 1))
        start, middle, end = (form[tuple((2 * node + m * offset).T)] for m in (0, 1, 2))
        return ((start + 4 * middle + end) * offset).sum(-1) / 6

    matrix = matrix[::2, ::2]
    generator = rates_on_plane(active, matrix, edge)
    number = np.full(active.shape, -1)
    number[active] = np.arange(generator.size)
    keep = connected(generator, number[tuple(wells.T)])
    if not keep.all():
        active = active.copy()
        active[active] = keep
        generator = rates_on_plane(active, matrix, edge)
    return generator, generator.stationary()


def _solve_pairs(matrix: np.ndarray, force: np.ndarray) -> np.ndarray:
    """``matrix**-1 force`` for 2 x 2 matrices, NaN where there is none."""
    a, b, c = matrix[..., 0, 0], matrix[..., 0, 1], matrix[..., 1, 1]
    u, v = force[..., 0], force[..., 1]
    return np.stack([c * u - b * v, a * v - b * u], axis=-1) / (a * c - b * b)[..., None]


def axes_of(diffusion: Diffusion, low, high, cells, bottoms: np.ndarray) -> tuple[Axis, ...]:
    """The graded axes of a box: close around minima and saddles, by their own widths."""
    centres = [bottoms, *(s.position[None] for s in diffusion.surface.saddles())]
    points = np.concatenate(centres)
    points = points[((points >= low) & (points <= high)).all(axis=1)]
    widths = _widths(diffusion, points)
    axes = []
    for k in range(len(low)):
        span = high[k] - low[k]
        width = np.clip(REACH * widths[:, k], span / 1e13, span / 2)
        axes.append(Axis(float(low[k]), float(high[k]), *merged(points[:, k], width), cells[k]))
    return tuple(axes)


def _widths(diffusion: Diffusion, points: np.ndarray) -> np.ndarray:
    """``sqrt(T_k/|H_kk|)`` at ``points`` (k, dim): how wide the density is along each axis."""
    curvature = np.abs(np.einsum("nkk->nk", diffusion.hessian(points)))
    with np.errstate(divide="ignore"):
        return np.sqrt(diffusion.temperatures(points) / curvature)


def fitted_box(
    diffusion: Diffusion, bottoms: np.ndarray, start: Any
) -> tuple[np.ndarray, np.ndarray, Coefficients]:
    """The box widened, face by face, until next to no mass of a coarse solution lies outside.

    Raises UnsoundError where the mass does not fall off: there is no stationary density.
    """
    low, high = (np.array(side, dtype=float) for side in start)
    dim = len(low)
    width = _widths(diffusion, bottoms).max(axis=0)
    reach = np.stack([(high - low) / 8] * 2, axis=-1)
    cells = [TRIAL_CELLS[dim]] * dim
    for _ in range(60):
        solution = solve(diffusion, axes_of(diffusion, low, high, cells, bottoms), bottoms)
        sides = np.array(solution.sides()).reshape(dim, 2, 2)
        wanting = sides[..., 0] > OUTSIDE[dim]
        far = np.stack([bottoms.min(0) - low, high - bottoms.max(0)], axis=-1)
        spent = far > FARTHEST[dim] * np.minimum(width, high - low)[:, None]
        if not (wanting & ~spent).any():
            break
        grow = wanting & ~spent
        low = low - np.where(grow[:, 0], reach[:, 0], 0)
        high = high + np.where(grow[:, 1], reach[:, 1], 0)
        reach = np.where(grow, 2 * reach, reach)
    if (sides[..., 0] > 1e-3).any() or (wanting & (sides[..., 1] > 0.999)).any():
        k = int(np.argmax(sides[..., 0].max(axis=1)))
        raise UnsoundError(
            f"{WHO}: far out along coordinate {diffusion.surface.variables[k]} the mass does not "
            "fall off, or hardly: the noise grows as fast as what drives back, and there is no "
            "stationary density that a grid holds. Reduce the learning rate, or the noise there."
        )
    return low, high, solution.coefficients


def first_box(diffusion: Diffusion, bottoms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The level box of each coordinate's own temperature at the minima, the hottest of them."""
    require_noise(diffusion, bottoms)
    temperatures = diffusion.temperatures(bottoms).max(axis=0)
    energies = diffusion.energy(bottoms)
    width = _widths(diffusion, bottoms)
    low, high = (bottoms - 6 * width).min(axis=0), (bottoms + 6 * width).max(axis=0)
    for saddle in diffusion.surface.saddles() if len(bottoms) > 1 else ():
        low, high = np.minimum(low, saddle.position), np.maximum(high, saddle.position)
    for k, temperature in enumerate(temperatures):
        depth = min(DEPTH + float(np.ptp(energies)) / temperature, DEEPEST)
        a, b = diffusion.surface.bounds(float(temperature), depth)
        low[k], high[k] = min(low[k], np.ravel(a)[k]), max(high[k], np.ravel(b)[k])
    return low, high
