"""The stationary law of SGD with momentum in one dimension, as a chain of pairs (x_t, x_t-1).

While the learning rate is constant, heavy ball is the recursion
``x' = x - eta g(x) + m (x - x_before)``. Nesterov's step, as PyTorch takes it, stores the point that
looks ahead, ``p = z + m (z - z_before)``, of ``z' = p - eta g(p)``. In (x, buffer) a step has noise
in one direction and its kernel is singular; on pairs of nodes of one grid the shift is exact and
each row a Gaussian.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from langevin.errors import ParameterError, UnsoundError
from langevin.predict.aggregation import Blocks, component
from langevin.predict.cardinal import line_weights
from langevin.predict.common import check_points
from langevin.predict.kernel import DISCONNECTED, STEEPEST, WHO, WINDOW, Step
from langevin.predict.smoothed import SmoothedLaw
from langevin.predict.sparse_chain import SparseChain, checked, condition_of, refuse_size

DEPTH = 36.0  # T below which the domain reaches
DEEPEST = 500.0
NEGLIGIBLE = 2e-12  # mass lost a step: that of the tails of the law, not of an escape
CHECKED = 1_500_000  # entries, up to which every law is solved twice to measure its error
ELIMINATION = 1.5e8  # operations for the chain of the blocks, about
SMOOTHING = 6


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


@dataclass(frozen=True, eq=False)
class MomentumChain(SmoothedLaw, SparseChain):
    """The (quasi-)stationary law of the position under SGD with momentum, with its time scales.

    ``lifetime`` is the mean number of steps before a replica in this law escapes to infinity, inf
    where that is below rounding; ``residual`` the eigenvector's in the 1-norm; ``error`` the largest
    change of a cumulative probability when the nodes are a quarter closer, nan where that was not
    tried. The law of the pair, so of position and buffer, is what is solved: see ``covariance``.
    """

    step: Heavy
    kernel: PairKernel
    matrix: Any
    loss: np.ndarray
    blocks: np.ndarray
    lost: float
    residual: float
    spacing: float
    error: float
    depth: float
    unit: float = 1.0
    smoothing: int = SMOOTHING

    @cached_property
    def covariance(self) -> np.ndarray:
        """Covariance (2, 2) of the position and PyTorch's momentum buffer, of the same step."""
        kernel, eta = self.kernel, self.step.plain.rate
        w = self.weights / self.weights.sum()
        pair = np.stack(
            [self.step.shown(kernel.means, kernel.x), (kernel.x - kernel.means) / eta], axis=-1
        )
        pair = pair - w @ pair
        noise = np.array([self.step.seen, -1 / eta])
        return (pair * w[:, None]).T @ pair + (w @ kernel.sds**2) * np.outer(noise, noise)

    def at(self, step: int, start: Any = None) -> SmoothedLaw:
        """The law of the position after ``step`` >= 1 steps, among the replicas still alive.

        The buffer starts at 0. ``start`` is a point (1,), points (k, 1) in equal shares, or None
        for equal shares of the minima. Raises ParameterError for a start from which replicas leave
        the grid, or more steps than are affordable.
        """
        self._check_step(step)
        points = self._start(start, f"at(step={step})")
        x, before = points, points
        weights = np.full(len(points), 1 / len(points))
        if step == 2:
            first = np.stack([self._first(p) for p in points]) / len(points)
            x, before = np.broadcast_arrays(self.kernel.nodes, points[:, None])
            x, before, weights = x.ravel(), before.ravel(), first.ravel()
        if step > 2:
            weights = sum(self._second(p, self._first(p)) for p in points) / len(points)
            for _ in range(step - 3):
                weights = self.matrix @ weights
            x, before = self.kernel.x, self.kernel.before
        centres, spreads = self.step.mean(x, before), self.step.sd(x, before)
        return SmoothedLaw(
            name=f"{self.name}, step {step}",
            regime=f"exact law {step} steps after the start, among replicas still alive",
            centres=self.step.shown(centres, x),
            spreads=self.step.seen * spreads,
            weights=weights,
            low=self.low,
            high=self.high,
            thresholds=self.thresholds,
        )

    def hitting_time(self, region: str, start: Any = None) -> float:
        """The mean number of steps until ``region`` first holds, from step 1 on.

        ``region`` is text of comparisons, such as "x > 1", of the coordinate and parameters;
        ``start`` as in `at`, with the buffer at 0. The error is about 1e-7, relatively.

        Raises UnsoundError for a region that is not reached, or not before replicas escape.
        """
        points = self._start(start, f"hitting_time({region!r})")
        inside, kernel = condition_of(region, self.step.plain.surface), self.kernel
        x, n = kernel.nodes, len(kernel.nodes)

        def outside(before: np.ndarray) -> Any:
            return lambda v, line: ~inside(self.step.shown(v, before[line]))

        h = x[1] - x[0]
        if self.step.nesterov:
            table = line_weights(x, outside(x), n) / h  # [before, x]
        else:
            table = np.broadcast_to(line_weights(x, outside(x[:1]), 1) / h, (n, n))
        i, d = np.nonzero(kernel.number >= 0)
        free = table[i - d + kernel.number.shape[1] // 2, i]
        early, source = 0.0, np.zeros(len(free))
        first_free = line_weights(x, outside(points), len(points)) / h
        for p, open_share in zip(points, first_free, strict=True):
            first = self._first(p) * open_share / len(points)
            early += first.sum()
            source += self._second(p, first)
        return 1 + early + self._mean_visits(source, free, region)

    def _start(self, start: Any, who: str) -> np.ndarray:
        if start is None:
            start = [m.position for m in self.step.plain.surface.minima()]
        points = np.atleast_2d(check_points(start, 1))[:, 0]
        x, before, kernel = points, points, self.kernel
        band, h = kernel.number.shape[1] // 2, kernel.nodes[1] - kernel.nodes[0]
        for _ in range(200):
            with np.errstate(all="ignore"):
                x, before = self.step.mean(x, before), x
            cells = np.rint((np.array([x, before]) - kernel.nodes[0]) / h)
            good = np.isfinite(cells).all() and ((cells >= 0) & (cells < len(kernel.nodes))).all()
            if good:
                i, j = cells.astype(int)
                good = (np.abs(i - j) <= band).all() and (kernel.number[i, i - j + band] >= 0).all()
            if not good:
                raise ParameterError(
                    f"{who}: the way in from {np.round(points, 6).tolist()} leaves the positions "
                    f"and velocities where replicas live, between {self.low:.6g} and "
                    f"{self.high:.6g}. Start nearer to a minimum, or simulate."
                )
        return points

    def _first(self, point: float) -> np.ndarray:
        """Masses of the nodes (n,) one step after ``point``, the buffer being 0."""
        here = np.array([point])
        return self._gauss(self.kernel.nodes, self.step.mean(here, here), self.step.sd(here, here))

    def _second(self, point: float, first: np.ndarray) -> np.ndarray:
        """Masses of the pairs (k,) after the next step, from those of the nodes after the first."""
        kernel = self.kernel
        before = np.full(len(kernel.nodes), point)
        mean, sd = self.step.mean(kernel.nodes, before), self.step.sd(kernel.nodes, before)
        i, d = np.nonzero(kernel.number >= 0)
        j = i - d + kernel.number.shape[1] // 2
        return first[j] * self._gauss(kernel.x, mean[j], sd[j])

    def _gauss(self, x: np.ndarray, mean: np.ndarray, sd: np.ndarray) -> np.ndarray:
        h = self.kernel.nodes[1] - self.kernel.nodes[0]
        return h * np.exp(-(((x - mean) / sd) ** 2) / 2) / (sd * np.sqrt(2 * np.pi))


def momentum_chain(plain: Step, momentum: float, nesterov: bool, spacing: float) -> MomentumChain:
    """The chain on a domain deepened until what leaves it no longer changes."""
    step = Heavy(plain, momentum, bool(nesterov))
    _refuse_certain_divergence(step)
    tops = np.asarray(plain.surface.basins().thresholds, dtype=float)[:, None]
    energies = np.concatenate([plain.energy(plain.rest()), plain.energy(tops)])
    heat, _ = step.heats()
    depth = min(DEPTH + float(np.ptp(energies)) / heat, DEEPEST)
    result = None
    for _ in range(8):
        previous = result
        try:
            result = _solve(step, depth, spacing)
        except UnsoundError:
            if previous is None:
                raise
            break  # larger than is affordable: the loss says what that costs
        if result.lost < NEGLIGIBLE:
            break
        if previous is not None and abs(result.lost - previous.lost) <= 1e-6 * result.lost:
            break
        depth *= 1.35
    return checked(replace(result, error=_change(result)), replace)


def _refuse_certain_divergence(step: Heavy) -> None:
    plain, m = step.plain, step.momentum
    if not plain.surface.hessian_is_constant or plain.drift:
        return
    curvature = float(plain.surface.minima()[0].hessian[0, 0]) + plain.decay
    bound = 2 * (1 + m) / ((1 + 2 * m if step.nesterov else 1.0) * curvature)
    if plain.rate >= bound:
        raise UnsoundError(
            f"{WHO}: the step {plain.rate:g} diverges on this quadratic surface: curvature "
            f"{curvature:g} needs a learning rate below {bound:g}. Reduce it."
        )


def _change(result: MomentumChain) -> float:
    """The largest change of the cdf, at thresholds and quantiles, with nodes closer by a quarter."""
    if result.matrix.nnz > CHECKED:
        return np.nan
    closer = _solve(result.step, result.depth, 0.77 * result.spacing)
    order = np.argsort(result.centres)
    at = np.searchsorted(np.cumsum(result.weights[order]), np.arange(1, 10) / 10)
    x = np.concatenate([result.thresholds, result.centres[order][at]])
    return float(np.abs(closer.cdf(x) - result.cdf(x)).max())


def _solve(step: Heavy, depth: float, spacing: float) -> MomentumChain:
    kernel = _recurrent(_build(step, depth, spacing), step)
    blocks, (heat, spread) = kernel.blocks(), step.heats()
    energy = step.plain.energy((kernel.x + kernel.before)[:, None] / 2)
    rise = (energy - energy.min()) / heat + (kernel.x - kernel.before) ** 2 / (2 * spread)
    guess = np.exp(-np.minimum(rise, 600))
    p, lost = Blocks(kernel.matrix, kernel.loss, blocks, SMOOTHING).law(guess)
    half = (kernel.nodes[1] - kernel.nodes[0]) / 2
    return MomentumChain(
        name="discrete chain with momentum",
        regime="",
        centres=step.shown(kernel.means, kernel.x),
        spreads=step.seen * kernel.sds,
        weights=p,
        low=float(kernel.nodes[0] - half),
        high=float(kernel.nodes[-1] + half),
        thresholds=np.asarray(step.plain.surface.basins().thresholds, dtype=float),
        step=step,
        kernel=kernel,
        matrix=kernel.matrix,
        loss=kernel.loss,
        blocks=blocks,
        lost=lost,
        residual=float(np.abs(kernel.matrix @ p - (1 - lost) * p).sum()),
        spacing=spacing,
        error=np.nan,
        depth=depth,
    )


def _build(step: Heavy, depth: float, spacing: float) -> PairKernel:
    """The kernel on the pairs that are less than ``depth`` deep."""
    plain, (heat, spread) = step.plain, step.heats()
    fastest = np.sqrt(2 * depth * spread)
    low, high = (float(np.ravel(v)[0]) for v in plain.surface.bounds(heat, depth))
    low, high = low - fastest / 2, high + fastest / 2
    x = np.linspace(low, high, 4001)
    bulk = plain.energy(x[:, None]) < plain.energy(plain.rest()).max() + 20 * heat
    sd = step.sd(x, x)
    if not (sd[bulk] > 0).all():
        raise UnsoundError(f"{WHO}: the gradient noise vanishes inside the domain.")
    curvature = np.gradient(plain.slope(x[:, None])[:, 0], x)
    overshoot = np.abs(1 - plain.rate * curvature / (1 + step.momentum))
    h = spacing * float((sd / np.clip(overshoot, 1, STEEPEST))[bulk].min())
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
    i, k, here, there = i[alive], k[alive], here[alive], there[alive]
    number = np.full(kept.shape, -1, dtype=np.int64)
    number[i, k] = np.arange(len(i))
    means, sds = step.mean(here, there), step.sd(here, there)
    matrix, loss = _entries(nodes, number, i, means, sds)
    return PairKernel(nodes, number, here, there, means, sds, matrix, loss)


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


def _recurrent(kernel: PairKernel, step: Heavy) -> PairKernel:
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
