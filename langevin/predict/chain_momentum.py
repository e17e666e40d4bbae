"""The stationary law of SGD with momentum in one dimension, as a chain of pairs (x_t, x_t-1).

While the learning rate is constant, heavy ball is the recursion
``x' = x - eta g(x) + m (x - x_before)``. Nesterov's step, as PyTorch takes it, stores the point
that looks ahead, ``p = z + m (z - z_before)``, of ``z' = p - eta g(p)``. In (x, buffer) a step has
noise in one direction and its kernel is singular; on pairs of nodes of one grid the shift is exact
and each row a Gaussian.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from langevin.errors import ParameterError, UnsoundError
from langevin.predict.aggregation import Blocks
from langevin.predict.cardinal import line_weights
from langevin.predict.common import check_points
from langevin.predict.kernel import WHO, Step
from langevin.predict.momentum_kernel import Heavy, PairKernel, build, lattice, recurrent
from langevin.predict.region import region_test
from langevin.predict.smoothed import SmoothedLaw
from langevin.predict.sparse_chain import (
    COARSE,
    SparseChain,
    best_margin,
    checked,
    deep_enough,
)

DEPTH = 36.0  # T below which the domain reaches
DEEPEST = 500.0
CHECKED = 1_500_000  # entries, up to which every law is solved twice to measure its error
SMOOTHING = 6


@dataclass(frozen=True, eq=False)
class MomentumChain(SmoothedLaw, SparseChain):
    """The (quasi-)stationary law of the position under SGD with momentum, with its time scales.

    ``lifetime`` is the mean number of steps before a replica in this law escapes to infinity, inf
    where that is below 1e-11 a step; ``residual`` the eigenvector's in the 1-norm; ``error`` the
    largest change of a cumulative probability when the nodes are a quarter closer, nan where that
    was not tried. The law of the pair, so of position and buffer, is solved: see ``covariance``.
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
        inside, kernel = region_test(self.step.plain.surface, region), self.kernel
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
    _refuse_certain_divergence(Heavy(plain, momentum, bool(nesterov)))

    def solve(step: Step) -> MomentumChain:
        return _deepened(Heavy(step, momentum, bool(nesterov)), spacing)

    return checked(best_margin(plain, solve))


def _deepened(step: Heavy, spacing: float) -> MomentumChain:
    plain = step.plain
    tops = np.asarray(plain.surface.basins().thresholds, dtype=float)[:, None]
    energies = np.concatenate([plain.energy(plain.rest()), plain.energy(tops)])
    heat, _ = step.heats()
    depth = min(DEPTH + float(np.ptp(energies)) / heat, DEEPEST)
    lattice(step, depth, spacing)  # refuses at once what could not be solved in the end
    depth = deep_enough(lambda depth: _solve(step, depth, COARSE * spacing), depth)
    result = _solve(step, depth, spacing)
    return replace(result, error=_change(result))


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
    """The largest change of the cdf, at thresholds and quantiles, with closer nodes."""
    if result.matrix.nnz > CHECKED:
        return np.nan
    closer = _solve(result.step, result.depth, 0.77 * result.spacing)
    order = np.argsort(result.centres)
    at = np.searchsorted(np.cumsum(result.weights[order]), np.arange(1, 10) / 10)
    x = np.concatenate([result.thresholds, result.centres[order][at]])
    return float(np.abs(closer.cdf(x) - result.cdf(x)).max())


def _solve(step: Heavy, depth: float, spacing: float) -> MomentumChain:
    kernel = recurrent(build(step, depth, spacing), step)
    blocks, (heat, spread) = kernel.blocks(), step.heats()
    energy = step.plain.energy((kernel.x + kernel.before)[:, None] / 2)
    rise = (energy - energy.min()) / heat + (kernel.x - kernel.before) ** 2 / (2 * spread)
    guess = np.exp(-np.minimum(rise, 600))
    p, lost = Blocks(kernel.matrix, kernel.loss, blocks, SMOOTHING).law(guess)
    half = (kernel.nodes[1] - kernel.nodes[0]) / 2
    shown = step.shown(kernel.x, kernel.before)
    return MomentumChain(
        name="discrete chain with momentum",
        regime="",
        centres=step.shown(kernel.means, kernel.x),
        spreads=step.seen * kernel.sds,
        weights=p,
        low=float(shown.min() - half),
        high=float(shown.max() + half),
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
