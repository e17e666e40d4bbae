"""The step of SGD with momentum in 1-D, and its transition kernel on pairs (x_t, x_t-1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from langevin.errors import UnsoundError
from langevin.predict.aggregation import component
from langevin.predict.kernel import DISCONNECTED, STEEPEST, WHO, WINDOW, Step
from langevin.predict.sparse_chain import dilated, refuse_size

BULK = 12.0  # T above the highest minimum: where the law has all but e**-12 of its mass
ELIMINATION = 1.5e8  # operations for the chain of the blocks, about


@dataclass(frozen=True, eq=False)
class Heavy:
    """The step of the pair: ``(x, before) -> (N(mean, sd**2), x)``, arrays of one shape.

    What a user sees is ``seen * x' + (1 - seen) * x``: x' itself, or Nesterov's point ahead.
    """

    plain: Step
    momentum: float
    nesterov: bool

    @property
    def seen(self) -> float:
        """1, or 1 + m for Nesterov's stored point."""
        return 1 + self.momentum if self.nesterov else 1.0

    def _at(self, x: np.ndarray, before: np.ndarray) -> np.ndarray:
        return x + self.momentum * (x - before) if self.nesterov else x

    def mean(self, x: np.ndarray, before: np.ndarray) -> np.ndarray:
        """``x - eta g(x) + m (x - before)``; with Nesterov the gradient is at the point ahead."""
        slope = self.plain.slope(self._at(x, before)[..., None])[..., 0]
        return x + self.momentum * (x - before) - self.plain.rate * slope

    def sd(self, x: np.ndarray, before: np.ndarray) -> np.ndarray:
        """The standard deviation of one step."""
        return np.sqrt(self.plain.covariances(self._at(x, before)[..., None])[..., 0, 0])

    def shown(self, new: np.ndarray, x: np.ndarray) -> np.ndarray:
        """The stored point after the step from x to ``new``."""
        return self.seen * new + (1 - self.seen) * x

    def heats(self) -> tuple[float, float]:
        """T of the midpoint (x + before)/2 and the variance of x - before, largest of the wells.

        Exact on a quadratic surface, where the two are independent: an AR(2) process.
        """
        wells, m = self.plain.rest(), self.momentum
        h = self.plain.surface.hessian(wells)[:, 0, 0] + self.plain.decay
        noise = self.plain.variance(wells[:, 0])
        reach = 1 + 2 * m if self.nesterov else 1.0
        limit = 2 * (1 + m) / (reach * self.plain.rate)
        h = np.clip(h, 1e-3 * limit, 0.95 * limit)
        step = self.plain.rate * h
        one = (1 + m) * (1 - step) if self.nesterov else 1 + m - step
        two = -m * (1 - step) if self.nesterov else -m * np.ones_like(step)
        lag = one / (1 - two)
        variance = (1 - two) * noise / ((1 + two) * ((1 - two) ** 2 - one**2))
        return float((h * variance * (1 + lag) / 2).max()), float((2 * variance * (1 - lag)).max())


@dataclass(frozen=True, eq=False)
class PairKernel:
    """The chain on those pairs (x_i, x_i-d) of ``nodes`` (n,) where replicas live.

    ``number`` (n, 2 band + 1) is the index of pair (i, d) at [i, d + band], or -1; ``x`` and
    ``before`` (k,) the pairs; ``means``, ``sds`` (k,) their step; ``loss`` (k,) the mass that a
    column of ``matrix`` sends elsewhere.
    """

    nodes: np.ndarray
    number: np.ndarray
    x: np.ndarray
    before: np.ndarray
    means: np.ndarray
    sds: np.ndarray
    matrix: Any
    loss: np.ndarray

    def blocks(self) -> np.ndarray:
        """The number of each pair's block, (k,), ordered along x."""
        i, d = np.nonzero(self.number >= 0)
        width = self.number.shape[1]
        for side in range(3, 200):
            across = width // side + 1
            count = (len(self.nodes) // side + 1) * across
            # A step moves x by up to the band: blocks couple across half their rows of d.
            if count * ((width // (2 * side) + 1) * across) ** 2.0 < ELIMINATION:
                break
        return (i // side) * across + d // side


def build(step: Heavy, depth: float, spacing: float) -> PairKernel:
    """The kernel on the pairs that are less than ``depth`` deep.

    Raises UnsoundError where it has too many entries, or the step diverges from everywhere.
    """
    nodes, number, i, here, there = lattice(step, depth, spacing)
    means, sds = step.mean(here, there), step.sd(here, there)
    matrix, loss = _entries(nodes, number, i, means, sds)
    return PairKernel(nodes, number, here, there, means, sds, matrix, loss)


def lattice(step: Heavy, depth: float, spacing: float) -> tuple[Any, ...]:
    """Nodes (n,), the pairs' numbers, and their node, x and x before; refused if too many."""
    plain, (heat, spread) = step.plain, step.heats()
    fastest = np.sqrt(2 * depth * spread)
    low, high = (float(np.ravel(v)[0]) for v in plain.surface.bounds(heat, depth))
    low, high = low - fastest / 2, high + fastest / 2
    x = np.linspace(low, high, 4001)
    bulk = plain.energy(x[:, None]) < plain.energy(plain.rest()).max() + BULK * heat
    sd = step.sd(x, x)
    if not (sd[bulk] > 0).all():
        raise UnsoundError(f"{WHO}: the gradient noise vanishes inside the domain.")
    curvature = np.gradient(plain.slope(x[:, None])[:, 0], x)
    overshoot = np.abs(1 - plain.rate * curvature / (1 + step.momentum))
    # The integrand N(y; m(x), sd**2) p(x) has at most the precision (1 + m'**2)/sd**2.
    precision = (1 + np.clip(overshoot, 1, STEEPEST) ** 2) / sd**2
    h = spacing * float(np.sqrt(2 / precision[bulk].max()))
    n, band = int(np.ceil((high - low) / h)), int(np.ceil(fastest / h))
    refuse_size(n * (2 * band + 1) * 2 * WINDOW * float(np.median(sd[bulk])) / h)
    h = (high - low) / n
    nodes = low + h * (np.arange(n) + 0.5)
    d = np.arange(-band, band + 1)
    before = nodes[:, None] - h * d
    middle = (nodes[:, None] + before) / 2
    rise = plain.energy(middle[..., None]) - float(plain.energy(plain.rest()).min())
    kept = rise / heat + (h * d) ** 2 / (2 * spread) < depth
    kept &= (before > low) & (before < high)
    i, k = np.nonzero(kept)
    here, there = nodes[i], nodes[i - d[k]]
    alive = _alive(step, here, there, low, high)
    if not alive.all():
        living = np.zeros(kept.shape, dtype=bool)
        living[i[alive], k[alive]] = True
        reach = int(np.ceil(plain.margin * float(np.median(sd[bulk])) / h))
        kept &= dilated(living, (reach, reach))
        i, k = np.nonzero(kept)
        here, there = nodes[i], nodes[i - d[k]]
    number = np.full(kept.shape, -1, dtype=np.int64)
    number[i, k] = np.arange(len(i))
    return nodes, number, i, here, there


def _alive(step: Heavy, x: np.ndarray, before: np.ndarray, low: float, high: float) -> np.ndarray:
    """The pairs (k,) bool from which the noise-free map does not run away."""
    centre, reach = (low + high) / 2, (high - low) / 2
    alive = np.ones(len(x), dtype=bool)
    image = step.mean(x, before)
    if ((image >= low) & (image <= high)).all():
        return alive
    with np.errstate(all="ignore"):
        for _ in range(300):
            x, before = (np.where(alive, v, centre) for v in (step.mean(x, before), x))
            alive &= np.isfinite(x) & (np.abs(x - centre) <= 8 * reach)
    if not alive.any():
        raise UnsoundError(
            f"{WHO}: the step {step.plain.rate:g} diverges from everywhere on this surface. "
            "Reduce the learning rate."
        )
    return alive


def _entries(nodes, number, i, means, sds) -> tuple[Any, np.ndarray]:
    """K as a sparse array (k, k), from column to row, and the loss (k,) of each column."""
    from scipy.sparse import csc_array

    n, h, band = len(nodes), nodes[1] - nodes[0], number.shape[1] // 2
    width = int(np.ceil(WINDOW * sds.max() / h)) + 1
    offsets = np.arange(-width, width + 1)
    values, rows, counts, loss = [], [], [], np.zeros(len(i))
    block = max(1, 3_000_000 // len(offsets))
    for begin in range(0, len(i), block):
        part = slice(begin, begin + block)
        to = np.rint((means[part] - nodes[0]) / h).astype(np.int64)[:, None] + offsets
        z = (nodes[0] + h * to - means[part, None]) / sds[part, None]
        weight = np.where(np.abs(z) <= WINDOW, np.exp(-(z**2) / 2), 0)
        weight /= weight.sum(axis=1, keepdims=True)
        moved = to - i[part, None]
        within = (to >= 0) & (to < n) & (np.abs(moved) <= band)
        row = number[np.clip(to, 0, n - 1), np.clip(moved + band, 0, 2 * band)]
        row = np.where(within, row, -1)
        kept = (row >= 0) & (weight > 0)
        loss[part] = np.where(row < 0, weight, 0).sum(axis=1)
        values.append(weight[kept])
        rows.append(row[kept].astype(np.int32))
        counts.append(kept.sum(axis=1))
    starts = np.concatenate([[0], np.cumsum(np.concatenate(counts))]).astype(np.int32)
    shape = (len(i), len(i))
    return csc_array((np.concatenate(values), np.concatenate(rows), starts), shape=shape), loss


def recurrent(kernel: PairKernel, step: Heavy) -> PairKernel:
    """The kernel on the pairs from and to which the chain can come from rest in every well."""
    wells = step.plain.essential()
    members = [((kernel.x - w) ** 2 + (kernel.before - w) ** 2).argmin() for w in wells[:, 0]]
    keep = component(kernel.matrix, np.array(members))
    if keep is None:
        raise UnsoundError(DISCONNECTED)
    if keep.all():
        return kernel
    number = np.full(kernel.number.shape, -1, dtype=np.int64)
    at = np.nonzero(kernel.number >= 0)
    number[at[0][keep], at[1][keep]] = np.arange(keep.sum())
    fields = (getattr(kernel, name)[keep] for name in ("x", "before", "means", "sds"))
    loss = kernel.loss + np.asarray(kernel.matrix[~keep].sum(axis=0)).ravel()
    matrix = kernel.matrix[keep][:, keep].tocsc()
    return PairKernel(kernel.nodes, number, *fields, matrix, loss[keep])
