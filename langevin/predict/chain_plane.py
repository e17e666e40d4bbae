"""The stationary law of the discrete step in two dimensions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from langevin.errors import ParameterError, UnsoundError
from langevin.predict.aggregation import Blocks
from langevin.predict.cardinal import plane_weights
from langevin.predict.common import check_points
from langevin.predict.kernel import WHO, Step
from langevin.predict.plane_kernel import PlaneKernel, build, lattice, recurrent
from langevin.predict.region import region_test
from langevin.predict.smoothed_plane import SmoothedPlane
from langevin.predict.sparse_chain import (
    COARSE,
    SparseChain,
    best_margin,
    checked,
    deep_enough,
)

DEPTH = 36.0  # T below which the domain reaches
DEEPEST = 500.0  # T
CHECKED = 2_500_000  # entries, up to which every law is solved twice to measure its error
SMOOTHING = 3


@dataclass(frozen=True, eq=False)
class PlaneChain(SmoothedPlane, SparseChain):
    """The (quasi-)stationary law of a discrete 2-D chain, with its time scales.

    ``lifetime`` is the mean number of **steps** before a replica in this law escapes to infinity,
    ``1/(1 - lambda)``, inf where that is below 1e-11. ``residual`` is the eigenvector's, in the
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
        inside = region_test(self.surface, region)
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
    return checked(replace(best_margin(step, lambda s: _deepened(s, spacing)), unit=unit))


def _deepened(step: Step, spacing: float) -> PlaneChain:
    surface = step.surface
    energies = [float(v) for v in step.energy(step.rest())]
    energies += [float(s.energy) for s in surface.saddles()]
    scale = _heat(step)
    depth = min(DEPTH + float(np.ptp(energies)) / scale, DEEPEST)
    lattice(step, scale, depth, spacing)  # refuses at once what could not be solved in the end
    depth = deep_enough(lambda depth: _solve(step, scale, depth, COARSE * spacing), depth)
    result = _solve(step, scale, depth, spacing)
    return replace(result, error=_change(result, scale))


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
    kernel = recurrent(build(step, scale, depth, spacing), step)
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
