"""The stationary law of the discrete step in two dimensions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from langevin.errors import ParameterError, UnsoundError
from langevin.predict.aggregation import Blocks, component
from langevin.predict.cardinal import plane_weights
from langevin.predict.common import check_points
from langevin.predict.kernel import DISCONNECTED, STEEPEST, WHO, Step
from langevin.predict.smoothed_plane import SmoothedPlane
from langevin.predict.sparse_chain import (
    MAX_NONZEROS,
    SparseChain,
    checked,
    condition_of,
    refuse_size,
)

WINDOW = 7.75  # standard deviations of a step kept: the tail beyond is 9e-14
DEPTH = 36.0  # T below which the domain reaches
DEEPEST = 500.0  # T
NEGLIGIBLE = 2e-12  # mass lost a step: that of the tails of the law, not of an escape
CHECKED = 2_500_000  # entries, up to which every law is solved twice to measure its error
SIDE = 4  # nodes along the side of a block, at least
MAX_BLOCKS = 2500
SMOOTHING = 3


@dataclass(frozen=True, eq=False)
class PlaneKernel:
    """K_ij = area N(x_i; mean(x_j), V(x_j)) on those nodes of a tensor grid where replicas live.

    ``axes``: the grid's nodes (nx,), (ny,); ``number`` (nx, ny) the index of each node among
    ``nodes`` (n, 2), or -1. ``loss`` (n,) is the mass that a column sends elsewhere. Columns and
    loss sum to 1.
    """

    axes: tuple[np.ndarray, np.ndarray]
    number: np.ndarray
    nodes: np.ndarray
    centres: np.ndarray
    covariances: np.ndarray
    matrix: Any
    loss: np.ndarray

    @property
    def area(self) -> float:
        """The area of a cell."""
        return float(np.prod([x[1] - x[0] for x in self.axes]))

    def blocks(self) -> np.ndarray:
        """The number of the block of nodes that each node belongs to, (n,)."""
        i, j = np.nonzero(self.number >= 0)
        side = max(SIDE, int(np.ceil(np.sqrt(len(i) / MAX_BLOCKS))))
        return (i // side) * (self.number.shape[1] // side + 1) + j // side

    def sheet(self, masses: np.ndarray) -> np.ndarray:
        """Masses of the nodes (n,) as a density on the whole grid (nx, ny)."""
        result = np.zeros(self.number.shape)
        result[self.number >= 0] = masses / self.area
        return result


@dataclass(frozen=True, eq=False)
class PlaneChain(SmoothedPlane, SparseChain):
    """The (quasi-)stationary law of a discrete 2-D chain, with its time scales.

    ``lifetime`` is the mean number of **steps** before a replica in this law escapes to infinity,
    ``1/(1 - lambda)``, inf where that is below rounding. ``residual`` is the eigenvector's, in the
    1-norm. ``error`` is the largest change of a marginal cumulative probability when the nodes are
    a quarter closer, nan where that was not tried.
    """

    step: Step
    kernel: PlaneKernel
    matrix: Any
    loss: np.ndarray
    blocks: np.ndarray
    lost: float
    residual: float
    spacing: float
    error: float
    unit: float
    depth: float
    smoothing: int = SMOOTHING

    def at(self, step: int, start: Any = None) -> SmoothedPlane:
        """The law after ``step`` >= 1 steps from ``start``, among the replicas still alive.

        ``start`` is a point (2,), points (k, 2) in equal shares, or None for equal shares of the
        minima. Raises ParameterError for a start from which replicas leave the grid, or more steps
        than are affordable.
        """
        self._check_step(step)
        points = self._start(start)
        centres, covariances = self.step.means(points), self.step.covariances(points)
        weights, values = np.full(len(points), 1 / len(points)), None
        if step > 1:
            self._stays(points, f"at(step={step})")
            weights = self._first(points)
            for _ in range(step - 2):
                weights = self.matrix @ weights
            centres, covariances = self.centres, self.covariances
            values = self.kernel.sheet(self.matrix @ weights)
        return SmoothedPlane(
            name=f"{self.name}, step {step}",
            regime=f"exact law {step} steps after the start, among replicas still alive",
            surface=self.surface,
            centres=centres,
            covariances=covariances,
            weights=weights,
            low=self.low,
            high=self.high,
            axes=self.axes,
            values=values,
        )

    def hitting_time(self, region: str, start: Any = None) -> float:
        """The mean number of steps (in units of dt for Langevin) until ``region`` first holds.

        ``region`` is text of comparisons, such as "x > 1 and y < 2", of coordinates and parameters;
        it is looked at from step 1 on, as the FirstPassage observer does. ``start`` as in `at`. The
        cells that its edge crosses are integrated exactly along lines, so the error is about 1e-7
        relatively for straight edges and 1e-4 for round ones.

        Raises UnsoundError for a region that is not reached, or not before replicas escape.
        """
        points = self._start(start)
        self._stays(points, f"hitting_time({region!r})")
        inside = condition_of(region, self.surface)
        free = plane_weights(*self.kernel.axes, lambda x, y: ~inside(x, y)) / self.kernel.area
        free = free[self.kernel.number >= 0]
        source = self._first(points)
        steps = 1 + self._mean_visits(source, free, region)
        return steps * self.unit

    def _start(self, start: Any) -> np.ndarray:
        if start is None:
            start = [m.position for m in self.surface.minima()]
        return np.atleast_2d(check_points(start, 2)).reshape(-1, 2)

    def _first(self, points: np.ndarray) -> np.ndarray:
        """Masses of the nodes (n,) one step after ``points`` (k, 2) in equal shares."""
        law = _gaussians(self.kernel.nodes, self.step.means(points), self.step.covariances(points))
        return law.mean(axis=1) * self.kernel.area

    def _stays(self, points: np.ndarray, who: str) -> None:
        """Refuses a start from which the noise-free map leaves the grid's nodes."""
        orbit = self.step.means(points)
        origin = np.array([x[0] for x in self.kernel.axes])
        width = np.array([x[1] - x[0] for x in self.kernel.axes])
        for _ in range(60):
            cell = np.rint((orbit - origin) / width)
            last = np.array(self.kernel.number.shape) - 1
            inside = np.isfinite(cell).all() and ((cell >= 0) & (cell <= last)).all()
            if not inside or (self.kernel.number[tuple(cell.astype(int).T)] < 0).any():
                raise ParameterError(
                    f"{who}: the way in from {np.round(points, 6).tolist()} leaves the region "
                    f"where replicas live, within {self.low.tolist()} and {self.high.tolist()}. "
                    "Start nearer to a minimum, or simulate."
                )
            orbit = self.step.means(orbit)


def _gaussians(points: np.ndarray, means: np.ndarray, covariances: np.ndarray) -> np.ndarray:
    """The densities at ``points`` (n, 2) of k Gaussians, (n, k)."""
    offset = points[:, None, :] - means
    q = np.einsum("nki,kij,nkj->nk", offset, np.linalg.inv(covariances), offset)
    return np.exp(-q / 2) / (2 * np.pi * np.sqrt(np.linalg.det(covariances)))


def plane_chain(step: Step, spacing: float, unit: float) -> PlaneChain:
    """The chain on a domain deepened until what leaves it no longer changes."""
    _refuse_certain_divergence(step)
    surface = step.surface
    energies = [float(v) for v in step.energy(step.rest())]
    energies += [float(s.energy) for s in surface.saddles()]
    scale = _heat(step)
    depth = min(DEPTH + float(np.ptp(energies)) / scale, DEEPEST)
    result = None
    for _ in range(8):
        previous = result
        try:
            result = _solve(step, scale, depth, spacing)
        except UnsoundError:
            if previous is None:
                raise
            break  # larger than is affordable: the loss says what that costs
        if result.lost < NEGLIGIBLE:
            break
        if previous is not None and abs(result.lost - previous.lost) <= 1e-6 * result.lost:
            break
        depth *= 1.35
    return checked(replace(result, unit=unit, error=_change(result, scale)), replace)


def _heat(step: Step) -> float:
    """The temperature of the domain: that of the noise, more where the step nearly diverges."""
    hessians = step.surface.hessian(step.rest()) + step.decay * np.eye(2)
    curvature = np.linalg.eigvalsh(hessians).max()
    return step.temperature() / float(np.clip(1 - step.rate * curvature / 2, 0.1, 1.0))


def _change(result: PlaneChain, scale: float) -> float:
    """The largest change of a marginal cdf at quantiles with nodes closer by a quarter."""
    if result.matrix.nnz > CHECKED:
        return np.nan
    closer = _solve(result.step, scale, result.depth, 0.77 * result.spacing)
    worst = 0.0
    for k in (0, 1):
        total = np.cumsum(result.kernel.sheet(result.weights).sum(axis=1 - k))
        at = np.searchsorted(total / total[-1], np.arange(1, 10) / 10)
        edges = np.concatenate([[-np.inf], np.unique(result.kernel.axes[k][at]), [np.inf]])
        here, there = (law.bin_probabilities(edges, axes=k) for law in (result, closer))
        worst = max(worst, float(np.abs(np.cumsum(here - there)).max()))
    return worst


def _refuse_certain_divergence(step: Step) -> None:
    if not step.surface.hessian_is_constant or step.drift:
        return
    curvature = float(np.linalg.eigvalsh(step.surface.minima()[0].hessian).max()) + step.decay
    if step.rate * curvature >= 2:
        raise UnsoundError(
            f"{WHO}: the step {step.rate:g} diverges on this quadratic surface: curvature "
            f"{curvature:g} needs a step below {2 / curvature:g}. Reduce the learning rate (or dt)."
        )


def _solve(step: Step, scale: float, depth: float, spacing: float) -> PlaneChain:
    kernel = _recurrent(_build(step, scale, depth, spacing), step)
    blocks = kernel.blocks()
    energy = step.energy(kernel.nodes)
    guess = np.exp(-np.minimum((energy - energy.min()) / scale, 600))
    p, lost = Blocks(kernel.matrix, kernel.loss, blocks, SMOOTHING).law(guess)
    image = kernel.matrix @ p
    half = np.array([x[1] - x[0] for x in kernel.axes]) / 2
    return PlaneChain(
        name="discrete chain",
        regime="",
        surface=step.surface,
        centres=kernel.centres,
        covariances=kernel.covariances,
        weights=p,
        low=kernel.nodes.min(axis=0) - half,
        high=kernel.nodes.max(axis=0) + half,
        axes=kernel.axes,
        values=kernel.sheet(image),
        step=step,
        kernel=kernel,
        matrix=kernel.matrix,
        loss=kernel.loss,
        blocks=blocks,
        lost=lost,
        residual=float(np.abs(image - (1 - lost) * p).sum()),
        spacing=spacing,
        error=np.nan,
        unit=1.0,
        depth=depth,
    )


def _domain(step: Step, scale: float, depth: float) -> tuple[np.ndarray, np.ndarray, float]:
    """The box (low, high) of the points deeper than ``depth * scale``, and their level."""
    low, high = step.surface.bounds(scale, depth)
    level = float(step.energy(step.rest()).min()) + depth * scale
    return np.asarray(low, dtype=float), np.asarray(high, dtype=float), level


def _spacings(step: Step, low: np.ndarray, high: np.ndarray, scale: float) -> np.ndarray:
    """``spacing`` 1 of the nodes along each axis, (2,), where the law has its mass.

    The integrand ``p(x) N(y; m(x), V)`` has, along axis k, at most the precision
    ``(V^-1)_kk + (J' V^-1 J)_kk``, J the slope of the map m; of 2/V_kk where the map is flat.
    """
    x = np.stack(np.meshgrid(*np.linspace(low, high, 81).T, indexing="ij"), -1).reshape(-1, 2)
    energy = step.energy(x)
    x = x[energy < step.energy(step.rest()).max() + 20 * scale]
    x = np.concatenate([x, step.rest()])
    covariance = step.covariances(x)
    good = np.linalg.eigvalsh(covariance)[:, 0] > 0
    if not good.all():
        raise UnsoundError(f"{WHO}: the gradient noise vanishes inside the domain, in a direction.")
    inverse = np.linalg.inv(covariance)
    probe = 1e-4 * (high - low)
    slopes = np.stack(
        [(step.means(x + d) - step.means(x - d)) / (2 * d.sum()) for d in np.diag(probe)], axis=-1
    )
    slopes = np.clip(slopes, -STEEPEST, STEEPEST)
    own = np.einsum("nkk->nk", inverse)
    precision = own + np.maximum(np.einsum("nik,nij,njk->nk", slopes, inverse, slopes), 0)
    return np.sqrt(2 / precision.max(axis=0))


def _alive(step: Step, points: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The points (n,) bool from which the noise-free map does not run away."""
    centre, reach = (low + high) / 2, (high - low) / 2
    alive = np.ones(len(points), dtype=bool)
    image = step.means(points)
    if ((image >= low) & (image <= high)).all():
        return alive
    y = points
    with np.errstate(all="ignore"):
        for _ in range(200):
            y = step.means(np.where(alive[:, None], y, centre))
            alive &= np.isfinite(y).all(1) & (np.abs(y - centre) <= 8 * reach).all(1)
    if not alive.any():
        raise UnsoundError(
            f"{WHO}: the step {step.rate:g} diverges from everywhere on this surface. "
            "Reduce the learning rate (or dt)."
        )
    return alive


def _build(step: Step, scale: float, depth: float, spacing: float) -> PlaneKernel:
    """The kernel on the nodes of the domain."""
    low, high, level = _domain(step, scale, depth)
    h = spacing * _spacings(step, low, high, scale)
    count = np.maximum(np.ceil((high - low) / h), 8).astype(int)
    if count.prod() > 30e6:
        refuse_size(100.0 * count.prod())
    h = (high - low) / count
    axes = tuple(low[k] + h[k] * (np.arange(count[k]) + 0.5) for k in (0, 1))
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    kept = step.energy(grid) < level
    kept[kept] = _alive(step, grid[kept], low, high)
    nodes = grid[kept]
    number = np.full(kept.shape, -1, dtype=np.int32)
    number[kept] = np.arange(len(nodes))
    centres, covariances = step.means(nodes), np.array(step.covariances(nodes))
    determinants = np.sqrt(np.linalg.det(covariances))
    refuse_size(float(np.pi * WINDOW**2 * determinants.sum() / h.prod()))
    matrix, loss = _entries(axes, number, centres, covariances)
    return PlaneKernel(axes, number, nodes, centres, covariances, matrix, loss)


def _entries(axes, number, centres, covariances) -> tuple[Any, np.ndarray]:
    """K as a sparse array (n, n), from column to row, and the loss (n,) of each column."""
    from scipy.sparse import csc_array

    n, shape = len(centres), np.array(number.shape)
    origin, h = np.array([x[0] for x in axes]), np.array([x[1] - x[0] for x in axes])
    inverse = np.linalg.inv(covariances)
    half = np.ceil(WINDOW * np.sqrt(np.einsum("nkk->nk", covariances).max(0)) / h).astype(int) + 1
    i, j = (np.arange(-k, k + 1) for k in half)
    values, rows, counts, loss = [], [], [], np.zeros(n)
    block = max(1, 3_000_000 // (len(i) * len(j)))
    for begin in range(0, n, block):
        part = slice(begin, begin + block)
        nearest = np.rint((centres[part] - origin) / h).astype(np.int64)
        a, b = nearest[:, 0, None] + i, nearest[:, 1, None] + j
        dx = origin[0] + h[0] * a - centres[part, 0, None]
        dy = origin[1] + h[1] * b - centres[part, 1, None]
        v = inverse[part]
        q = 2 * v[:, 0, 1, None, None] * dx[:, :, None] * dy[:, None, :]
        q += (v[:, 0, 0, None] * dx**2)[:, :, None] + (v[:, 1, 1, None] * dy**2)[:, None, :]
        weight = np.exp(-q / 2)
        weight[q > WINDOW**2] = 0
        weight /= weight.sum(axis=(1, 2), keepdims=True)
        within = ((a >= 0) & (a < shape[0]))[:, :, None] & ((b >= 0) & (b < shape[1]))[:, None, :]
        clipped = np.clip(a, 0, shape[0] - 1)[:, :, None], np.clip(b, 0, shape[1] - 1)[:, None, :]
        row = np.where(within, number[clipped], -1)
        kept = (row >= 0) & (weight > 0)
        loss[part] = np.where(row < 0, weight, 0).sum(axis=(1, 2))
        values.append(weight[kept])
        rows.append(row[kept])
        counts.append(kept.sum(axis=(1, 2)))
    starts = np.concatenate([[0], np.cumsum(np.concatenate(counts))]).astype(np.int32)
    matrix = csc_array((np.concatenate(values), np.concatenate(rows), starts), shape=(n, n))
    return matrix, loss


def _recurrent(kernel: PlaneKernel, step: Step) -> PlaneKernel:
    """The kernel on the nodes from and to which the chain can come from every well."""
    wells = step.essential()
    members = np.array([((kernel.nodes - w) ** 2).sum(1).argmin() for w in wells])
    keep = component(kernel.matrix, members)
    if keep is None:
        raise UnsoundError(DISCONNECTED)
    if keep.all():
        return kernel
    loss = kernel.loss + np.asarray(kernel.matrix[~keep].sum(axis=0)).ravel()
    number = np.full(kernel.number.shape, -1, dtype=np.int32)
    at = np.nonzero(kernel.number >= 0)
    number[at[0][keep], at[1][keep]] = np.arange(keep.sum())
    return PlaneKernel(
        kernel.axes,
        number,
        kernel.nodes[keep],
        kernel.centres[keep],
        kernel.covariances[keep],
        kernel.matrix[keep][:, keep].tocsc(),
        loss[keep],
    )


__all__ = ["MAX_NONZEROS", "PlaneChain", "PlaneKernel", "plane_chain"]
