"""The continuum law of any gradient noise C(theta), in one and two dimensions."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np

from langevin.errors import ParameterError
from langevin.predict.common import check_points, check_surface, find_minima, positive
from langevin.predict.diffusion import WHO, Diffusion, diffusion_of, regime_of
from langevin.predict.fitted import Coefficients, Solution, axes_of, first_box, fitted_box, solve
from langevin.predict.grid_law import GridLaw
from langevin.predict.jumps import Generator

CELLS = {1: 2000, 2: 128}
MAX_CELLS = {1: 100_000, 2: 400}
NEGLIGIBLE = 1e-16  # of the mass: such a node adds nothing to an integral
NARROWEST = 1.5  # cells: the standard deviation from which a point start is resolved


@dataclass(frozen=True, eq=False)
class FokkerPlanck(GridLaw):
    """The stationary law of ``d theta = b dt + sqrt(2 D) dW`` (Ito), with its time scales.

    ``nodes`` (n1, 1) or (n1, n2, 2) and ``probability`` (n1,) or (n1, n2) are the grid and the mass
    of its cells. ``error``: the largest change of a marginal cumulative probability, or of a
    basin's, against a grid of half as many cells a side, over 3: what is left at second order.
    ``outside``: an estimate of the mass beyond the grid. ``negative_mass`` is 0: the scheme is
    positive for every D. Times are in steps for SGD, in units of time for Langevin dynamics.
    """

    coefficients: Coefficients
    generator: Generator
    error: float
    outside: float

    @cached_property
    def spectral_gap(self) -> float:
        """The rate at which the slowest memory of the start is lost, per unit of time.

        The smallest real part of the non-zero eigenvalues of minus the generator. No barrier is too
        high for its digits, but it is that of the grid: its error is second order in the cells and
        not in ``error``; a per cent or so in narrow 2-D valleys askew to the axes (compare other
        ``cells=``). Raises UnsoundError where a barrier disconnects the wells.
        """
        active = self.generator.active
        x, p = self.nodes[active], self.probability[active]
        away = x - p @ x
        spread = p @ away**2
        heat = p @ np.einsum("nkk->nk", self.coefficients(x)[1])
        odd = np.tanh(away / np.sqrt(spread)) @ np.array([1.0, 0.7])[: self.dim]
        return self.generator.gap(p, odd, guess=float((heat / spread).min()))

    @property
    def relaxation_time(self) -> float:
        """``1/spectral_gap``: the time in which memory of the start decays by e."""
        return 1 / self.spectral_gap

    def _velocity(self, points: np.ndarray) -> np.ndarray:
        """``J/p = b - div D - D grad ln p`` at points (n, dim)."""
        b, d = self.coefficients(points)
        slope = np.stack([a.slope(x) / a.step for a, x in zip(self.axes, points.T, strict=True)])
        rise = np.stack([self._interpolated(s, points) for s in self._slopes], axis=-1) * slope.T
        velocity = -np.einsum("nkl,nl->nk", d, rise)
        if self.reference is not None:  # D times its gradient is b
            return velocity
        for k in range(self.dim):
            offset = np.zeros(points.shape)
            offset[:, k] = 0.5 / slope[k]
            near, far = (
                self.coefficients(points + m * offset)[1][:, k]
                - self.coefficients(points - m * offset)[1][:, k]
                for m in (1, 2)
            )
            velocity -= (8 * near - far) * slope[k][:, None] / 6
        return velocity + b

    @cached_property
    def _slopes(self) -> list[np.ndarray]:
        """The derivatives of what `density` interpolates, per cell, at fourth order."""
        found = []
        for k in range(self.dim):
            logs = np.moveaxis(self._logs, k, 0)
            slope = np.gradient(logs, axis=0)
            slope[2:-2] = (8 * (logs[3:-1] - logs[1:-3]) - (logs[4:] - logs[:-4])) / 12
            found.append(np.moveaxis(slope, 0, k))
        return found

    def current(self, points: Any) -> np.ndarray:
        """The stationary probability current ``J = b p - div(D p)`` at ``points``, (..., dim).

        Zero, to the error of the grid, iff there is detailed balance, as always in 1-D; density
        times length per time. 0 outside the grid.
        """
        points = check_points(points, self.dim)
        flat = points.reshape(-1, self.dim)
        density = self.density(flat)
        result = np.zeros(flat.shape)
        inside = density > 0
        if self.dim > 1 and inside.any():
            result[inside] = density[inside, None] * self._velocity(flat[inside])
        return result.reshape(points.shape)

    @cached_property
    def _flow(self) -> tuple[float, float]:
        """``int |J|`` and ``int J D**-1 J/p`` over the nodes that carry the mass."""
        if self.dim == 1:
            return 0.0, 0.0
        held = self.probability > NEGLIGIBLE
        x, p = self.nodes[held], self.probability[held]
        v, d = self._velocity(x), self.coefficients(x)[1]
        work = np.einsum("nk,nk->n", v, np.linalg.solve(d, v[..., None])[..., 0])
        return float(p @ np.linalg.norm(v, axis=1)), float(p @ work)

    @property
    def current_size(self) -> float:
        """``int |J| d theta``: the mean speed of the stationary flow, in lengths per time."""
        return self._flow[0]

    @property
    def entropy_production(self) -> float:
        """``int J D**-1 J / p d theta`` per unit of time; zero iff there is detailed balance."""
        return self._flow[1]

    def at(self, t: float, start: Any = None) -> GridLaw:
        """The law at time ``t`` after a start, by ``exp(Q^T t)`` to 1e-13 of the mass.

        ``start``: a point (dim,), points (k, dim) in equal shares, None for equal shares of the
        minima (what ``simulate(start=None)`` does), or a function of points (..., dim), a density
        in any units. Points are first taken, by the Gaussian of the local drift and noise, to a
        width of 1.5 cells; ParameterError where ``t`` is shorter than that, or a start outside
        the grid.
        """
        t = positive("at(t", t)
        if callable(start):
            p, rest = np.asarray(start(self.nodes), dtype=float) * self.volumes, float(t)
            p = np.where(self.generator.active, p, 0.0)
            if not (np.isfinite(p).all() and (p >= 0).all() and p.sum() > 0):
                raise ParameterError("at(start=...): the density must be finite and not negative.")
            p = p / p.sum()
        else:
            p, rest = self._widened(float(t), start)
        active = self.generator.active
        flat = p[active]
        if rest > 0:
            flat = self.generator.evolved(flat, rest)
        negative = float(-flat[flat < 0].sum())
        flat = np.maximum(flat, 0.0)
        probability = np.zeros(p.shape)
        probability[active] = flat / flat.sum()
        return GridLaw(
            name=f"{self.name}, time {t:g}",
            regime=f"{self.regime}; the law at time {t:g} after the start",
            surface=self.surface,
            axes=self.axes,
            probability=probability,
            reference=None,
            negative_mass=negative,
        )

    def _widened(self, t: float, start: Any) -> tuple[np.ndarray, float]:
        """The Gaussians of point starts after a short time, on the grid, and the time then left."""
        if start is None:
            start = [m.position for m in self.surface.minima()]
        points = np.atleast_2d(check_points(start, self.dim))
        index = np.stack([a.index(x) for a, x in zip(self.axes, points.T, strict=True)], axis=-1)
        last = np.array(self.probability.shape) - 1
        if not ((index >= 0) & (index <= last)).all():
            raise ParameterError(
                f"at(start={np.round(points, 6).tolist()}): outside the grid, from "
                f"{[a.low for a in self.axes]} to {[a.high for a in self.axes]}. Start inside."
            )
        drift, diffusion = self.coefficients(points)
        slope = np.stack(
            [a.slope(x) / a.step for a, x in zip(self.axes, points.T, strict=True)], axis=-1
        )
        spread = np.linalg.eigvalsh(slope[:, :, None] * diffusion * slope[:, None, :])[:, 0]
        short = NARROWEST**2 / (2 * float(spread.min()))
        if t < short:
            raise ParameterError(
                f"at(t={t:g}): the law is still narrower than {NARROWEST} cells; it needs t >= "
                f"{short:.3g} on this grid. Give fokker_planck more cells=, or use the Gaussian "
                "of mean start + b t and covariance 2 D t."
            )
        p = np.zeros(self.probability.shape)
        for x, b, d in zip(points, drift, diffusion, strict=True):
            away = self.nodes - x - b * short
            z = np.einsum("...i,ij,...j->...", away, np.linalg.inv(2 * d * short), away)
            weight = np.where(self.generator.active, np.exp(-z / 2) * self.volumes, 0.0)
            p += weight / weight.sum() / len(points)
        return p, t - short


def fokker_planck(surface: Any, dynamics: Any, *, cells: Any = None) -> FokkerPlanck:
    """The stationary law and the dynamics of the continuum limit, for any gradient noise C(theta).

    The limit of small steps is ``d theta = b dt + sqrt(2 D) dW`` (Ito), in the dynamics' own time.
    SGD, a step being the unit: ``b = -eta' grad L``, ``D = eta'**2 C(theta)/(2 S)``,
    ``eta' = eta/(1 - m)``; Overdamped: ``b = -grad U``, ``D = T``. The law solves
    ``0 = -div(b p) + div div(D p)``, by finite volumes with exponential fitting on a graded grid:
    mass is exact, no probability is negative, exp(-L/T) is exact at the nodes for isotropic C, and
    every 1-D law to rounding; else the error is second order in the cells, and ``.error`` says how
    large. Noise of Stratonovich's convention keeps its drift; weight decay adds to the loss.

    ``cells``: per axis, 2000 in 1-D and 128 in 2-D; in 2-D a pair is allowed.

    Raises UnsoundError for Underdamped, above two dimensions, noise without a covariance or that
    vanishes in some direction, shuffled epochs, and where no stationary density exists.
    Sources: Jastrzebski et al. 2017 (the equation); `langevin.predict.jumps` (the scheme).
    """
    check_surface(WHO, surface)
    diffusion = diffusion_of(surface, dynamics)
    cells = _cells(cells, surface.dim)
    find_minima(WHO, surface)
    bottoms = diffusion.bottoms()
    low, high, known = fitted_box(diffusion, bottoms, first_box(diffusion, bottoms))
    fine, coarse = (
        solve(diffusion, axes_of(diffusion, low, high, n, bottoms), bottoms, known)
        for n in (cells, [n // 2 for n in cells])
    )
    regime = regime_of(surface, dynamics)
    law, other = (_law(surface, diffusion, s, regime) for s in (fine, coarse))
    error = _change(law, other) / 3
    regime += f" (grid: probabilities to about {max(error, 1e-13):.0e})"
    if law.outside > 1e-9:
        regime += f"; heavy tails, {law.outside:.1e} of the mass is outside the grid"
    given = {f.name: getattr(law, f.name) for f in fields(law)}
    return FokkerPlanck(**given | {"regime": regime, "error": error})


def _cells(cells: Any, dim: int) -> list[int]:
    given = CELLS[dim] if cells is None else cells
    pair = [given] * dim if not isinstance(given, (list, tuple, np.ndarray)) else list(given)
    whole = all(isinstance(n, (int, np.integer)) and not isinstance(n, bool) for n in pair)
    if len(pair) != dim or not whole or not all(16 <= n <= MAX_CELLS[dim] for n in pair):
        raise ParameterError(
            f"{WHO}(cells={cells!r}): needs a whole number from 16 to {MAX_CELLS[dim]}"
            + (", or a pair of them." if dim == 2 else ".")
        )
    return [int(n) for n in pair]


def _law(surface: Any, diffusion: Diffusion, solution: Solution, regime: str) -> FokkerPlanck:
    temperature, reference = solution.temperature, None
    if temperature is not None:

        def reference(points: np.ndarray) -> np.ndarray:
            return -diffusion.energy(points) / temperature

    return FokkerPlanck(
        name="Fokker-Planck",
        regime=regime,
        surface=surface,
        axes=solution.axes,
        probability=solution.probability,
        reference=reference,
        negative_mass=0.0,
        coefficients=solution.coefficients,
        generator=solution.generator,
        error=np.nan,
        outside=solution.outside(),
    )


def _change(law: FokkerPlanck, other: FokkerPlanck) -> float:
    """The largest difference of a marginal cumulative probability, at deciles, or of a basin's."""
    worst = np.abs(law.occupation() - other.occupation()).max()
    for k, axis in enumerate(law.axes):
        marginal = np.moveaxis(law.probability, k, 0).reshape(axis.cells, -1).sum(axis=1)
        deciles = axis.nodes[np.searchsorted(np.cumsum(marginal), np.arange(1, 10) / 10)]
        edges = np.concatenate([[-np.inf], np.unique(deciles), [np.inf]])
        difference = law.bin_probabilities(edges, axes=k) - other.bin_probabilities(edges, axes=k)
        worst = max(worst, np.abs(np.cumsum(difference)).max())
    return float(worst)
