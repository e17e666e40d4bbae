"""The transition kernel of a discrete 2-D step, on nodes where the trapezoid rule is exact."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from langevin.errors import UnsoundError
from langevin.predict.aggregation import component
from langevin.predict.kernel import DISCONNECTED, STEEPEST, WHO, Step
from langevin.predict.sparse_chain import dilated, refuse_size

BULK = 12.0  # T above the highest minimum: where the law has all but e**-12 of its mass
WINDOW = 7.75  # standard deviations of a step kept: the tail beyond is 9e-14
SIDE = 4  # nodes along the side of a block, at least
MAX_BLOCKS = 2500


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


def _domain(step: Step, scale: float, depth: float) -> tuple[np.ndarray, np.ndarray, float]:
    """The box (low, high) of the points deeper than ``depth * scale``, and their level."""
    low, high = step.surface.bounds(scale, depth)
    level = float(step.energy(step.rest()).min()) + depth * scale
    return np.asarray(low, dtype=float), np.asarray(high, dtype=float), level


def _spacings(step: Step, low: np.ndarray, high: np.ndarray, scale: float) -> np.ndarray:
    """``spacing`` 1 of the nodes along each axis, (2,), where the law has its mass.

    The integrand ``p(x) N(y; m(x), V)`` has, along axis k, at most the precision
    ``(V^-1)_kk + (J' V^-1 J)_kk``, J the slope of the map m.
    """
    x = np.stack(np.meshgrid(*np.linspace(low, high, 81).T, indexing="ij"), -1).reshape(-1, 2)
    energy = step.energy(x)
    x = x[energy < step.energy(step.rest()).max() + BULK * scale]
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
    # Where the map is flat the law is as narrow as a step, and its values must still tell it all.
    precision = own + np.maximum(np.einsum("nik,nij,njk->nk", slopes, inverse, slopes), own)
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


def build(step: Step, scale: float, depth: float, spacing: float) -> PlaneKernel:
    """The kernel on the nodes of the domain, deep to ``depth * scale``.

    Raises UnsoundError where it has too many entries, or the step diverges from everywhere.
    """
    axes, number, nodes, centres, covariances = lattice(step, scale, depth, spacing)
    matrix, loss = _entries(axes, number, centres, covariances)
    return PlaneKernel(axes, number, nodes, centres, covariances, matrix, loss)


def lattice(step: Step, scale: float, depth: float, spacing: float) -> tuple[Any, ...]:
    """The grid of `PlaneKernel` and the step from its nodes; refused where that is too large."""
    low, high, level = _domain(step, scale, depth)
    h = spacing * _spacings(step, low, high, scale)
    count = np.maximum(np.ceil((high - low) / h), 8).astype(int)
    if count.prod() > 30e6:
        refuse_size(100.0 * count.prod())
    h = (high - low) / count
    axes = tuple(low[k] + h[k] * (np.arange(count[k]) + 0.5) for k in (0, 1))
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    kept = step.energy(grid) < level
    living = kept.copy()
    living[kept] = _alive(step, grid[kept], low, high)
    if (living != kept).any():
        sd = np.sqrt(np.einsum("nkk->nk", step.covariances(step.rest())).max(axis=0))
        kept &= dilated(living, tuple(np.ceil(step.margin * sd / h).astype(int)))
    nodes = grid[kept]
    number = np.full(kept.shape, -1, dtype=np.int32)
    number[kept] = np.arange(len(nodes))
    centres, covariances = step.means(nodes), np.array(step.covariances(nodes))
    determinants = np.sqrt(np.linalg.det(covariances))
    refuse_size(float(np.pi * WINDOW**2 * determinants.sum() / h.prod()))
    return axes, number, nodes, centres, covariances


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


def recurrent(kernel: PlaneKernel, step: Step) -> PlaneKernel:
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
