"""The stationary law of the discrete step itself: one door, and the chain in one dimension."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from langevin.checks import real_number
from langevin.dynamics import SGD
from langevin.errors import FormulaError, ParameterError, UnsoundError
from langevin.predict.chain_momentum import MomentumChain, momentum_chain
from langevin.predict.chain_plane import PlaneChain, plane_chain
from langevin.predict.common import check_points, check_surface, find_minima, momentum_of
from langevin.predict.elimination import Factors, eliminate, quasi_stationary, slowest_mode
from langevin.predict.kernel import WHO, Step, build, living, node_spacing, step_of
from langevin.predict.smoothed import SmoothedLaw
from langevin.predict.sparse_chain import best_margin, checked

FOREVER = 1e15  # steps: a longer lifetime is below rounding
DEEPEST = 500.0  # T
CHECKED_NODES = 20_000  # up to which every law is solved twice to measure its error


@dataclass(frozen=True, eq=False)
class Chain(SmoothedLaw):
    """The (quasi-)stationary law of a discrete 1-D chain, with its time scales.

    ``lifetime`` is the mean number of **steps** before a replica in this law escapes to infinity,
    ``1/(1 - lambda)``, inf where that is below rounding. ``nodes`` (n,) are the quadrature points
    and ``residual`` the eigenvector's residual in the 1-norm. ``error`` is the largest change of a
    cumulative probability when the nodes are a quarter closer, nan where that was not tried.
    """

    step: Step
    nodes: np.ndarray
    matrix: Any
    factors: Factors
    lost: float
    residual: float
    spacing: float
    error: float
    unit: float

    @property
    def lifetime(self) -> float:
        """Steps before escape to infinity; a run longer than this is not stationary."""
        return np.inf if self.lost * FOREVER < 1 else 1 / self.lost

    @cached_property
    def relaxation_steps(self) -> float:
        """``-1/ln |lambda_2|``: the number of steps in which memory of the start decays by e."""
        slow = slowest_mode(self.factors, self.weights, self.lost)
        times = [-1 / np.log1p(-1 / slow) if slow > 1 else 0.0]
        slopes = np.gradient(self.centres, self.nodes)
        if (slopes[self.weights > 1e-12 * self.weights.max()] < 0).any():
            # Overshooting wells flip sign every step: eigenvalues near -1 count as slow too.
            times.append(self._alternating())
        return float(max(times))

    def _alternating(self) -> float:
        from scipy.sparse.linalg import ArpackNoConvergence, eigs

        try:
            values = eigs(
                self.matrix,
                k=1,
                which="SR",
                v0=self.weights * np.cos(np.arange(len(self.nodes))),
                return_eigenvectors=False,
                tol=1e-8,
                maxiter=60,  # one far from 0 converges at once; the cluster at 0 never does
            )
        except ArpackNoConvergence as error:
            values = error.eigenvalues
        size = np.abs(values[values.real < 0])
        return float(-1 / np.log(size.max())) if len(size) and 0 < size.max() < 1 else 0.0

    @property
    def relaxation_time(self) -> float:
        """``relaxation_steps`` in the dynamics' time: steps for SGD, units of dt for Langevin."""
        return self.relaxation_steps * self.unit

    def at(self, step: int, start: Any = None) -> SmoothedLaw:
        """The law after ``step`` >= 1 steps from ``start``, among the replicas still alive.

        ``start`` is a point (1,), points (k, 1) in equal shares, or None for equal shares of the
        minima (what ``simulate(start=None)`` does). Raises ParameterError for a start outside the
        grid or more steps than are affordable.
        """
        if not isinstance(step, (int, np.integer)) or step < 1:
            raise ParameterError(f"at(step={step!r}): needs a whole number of steps, at least 1.")
        if (step - 1) * self.matrix.nnz > 2e10:
            raise ParameterError(
                f"at(step={step}): {step * self.matrix.nnz:.1e} operations. Use the stationary law "
                f"itself (relaxation takes {self.relaxation_steps:.3g} steps), or fewer steps."
            )
        if start is None:
            start = [m.position for m in self.step.surface.minima()]
        x = np.atleast_2d(check_points(start, 1))[:, 0]
        grid = self._grid_around(x, step)
        centres, spreads = self.step.mean(x), np.sqrt(self.step.variance(x))
        weights = np.full(len(x), 1 / len(x))
        if step > 1:
            matrix = grid.matrix
            h = grid.nodes[1] - grid.nodes[0]
            z = (grid.nodes[:, None] - centres) / spreads
            weights = np.exp(-(z**2) / 2) @ (weights / (spreads * np.sqrt(2 * np.pi))) * h
            for _ in range(step - 2):
                weights = matrix @ weights
            centres, spreads = grid.centres, grid.spreads
        return SmoothedLaw(
            name=f"{self.name}, step {step}",
            regime=f"exact law {step} steps after the start, among replicas still alive",
            centres=centres,
            spreads=spreads,
            weights=weights,
            low=grid.low,
            high=grid.high,
            thresholds=self.thresholds,
        )

    def hitting_time(self, region: str, start: Any = None) -> float:
        """The mean time until ``region``, text such as "x > 1 or x < -2", first holds.

        Counted from step 1 as `FirstPassage` counts, in the dynamics' time: steps for SGD, units of
        dt for Langevin. ``start`` as for `at`. Parts of a region narrower than a tenth of a step's
        deviation may be missed. Raises UnsoundError where the region cannot be reached or replicas
        escape to infinity first, FormulaError for text that is no region.
        """
        return self.unit * self._hitting(region).mean(self._starts(start))

    def hitting_probability(self, region: str, step: Any, start: Any = None) -> Any:
        """The probability that ``region`` has held by ``step`` (whole numbers, any shape).

        1 minus the survival function of the first passage; ``step`` 0 gives 0. Raises what
        `hitting_time` raises, and ParameterError for more steps than are affordable.
        """
        return self._hitting(region).probability(step, self._starts(start))

    def _hitting(self, region: str) -> Any:
        """The passage into ``region``, kept: solving for it is what takes the time."""
        from langevin.predict.hitting import chain_hitting

        if not isinstance(region, str):
            raise FormulaError(f"hitting_time(region={region!r}): give text, such as 'x > 1'.")
        known = self.__dict__.setdefault("_passages", {})
        if region not in known:
            known[region] = chain_hitting(self, region)
        return known[region]

    def _starts(self, start: Any) -> Any:
        return [m.position for m in self.step.surface.minima()] if start is None else start

    def _grid_around(self, x: np.ndarray, steps: int) -> Any:
        """This chain, or a kernel on a wider grid where the way in from ``x`` leaves its own."""
        orbit, spread = [x], np.sqrt(self.step.variance(x)).max()
        for _ in range(min(steps, 60)):
            with np.errstate(all="ignore"):
                orbit.append(self.step.mean(orbit[-1]))
        low, high = np.min(orbit), np.max(orbit)
        reach = 10 * spread + (self.high - self.low) / 10
        if np.isfinite(low + high):
            if low - reach / 2 >= self.low and high + reach / 2 <= self.high:
                return self
            wide = min(low - reach, self.low), max(high + reach, self.high)
            alive = living(self.step, *wide)
            if ((x >= alive[0]) & (x <= alive[1])).all():
                return build(self.step, *alive, self.spacing)
        raise ParameterError(
            f"at(start={np.round(x, 6).tolist()}): a start escapes to infinity at this step. Start "
            f"between {self.low:.6g} and {self.high:.6g}."
        )


def chain(
    surface: Any, dynamics: Any, *, spacing: float | None = None
) -> Chain | PlaneChain | MomentumChain:
    """The stationary law of the discrete step itself, ``x -> N(x - eta grad U(x), V(x))``.

    SGD: ``V = eta**2 C(x)/S``, the gradient with its weight decay; Overdamped (Euler-Maruyama):
    ``eta = dt``, ``V = 2 T dt``. In one dimension also SGD with momentum, Nesterov's too, as a
    chain of pairs (x_t, x_{t-1}); in two dimensions without. The integral equation
    ``lambda p(y) = int N(y; x - eta grad U, V) p(x) dx`` is solved on nodes ``spacing`` (at most
    0.5; 0.4 by default, 0.5 in two dimensions) standard deviations of a step apart, where the
    trapezoid rule is accurate to rounding. On a surface that grows faster than quadratically the
    chain escapes in the end and this law is quasi-stationary: ``.lifetime`` says for how many steps
    it holds.

    Raises UnsoundError above two dimensions, for momentum in two, mini-batches of real data, noise
    that is zero or not Gaussian, a step that diverges or is too small to be resolved, or a lifetime
    that leaves no time to relax.
    """
    check_surface(WHO, surface)
    if surface.dim > 2 or (surface.dim == 2 and momentum_of(dynamics) > 0):
        what = f"{surface.dim} dimensions" if surface.dim > 2 else "momentum in two dimensions"
        raise UnsoundError(
            f"{WHO}: solves one dimension, two without momentum; {what} given. Use "
            "predict.quadratic (exact, any dimension, quadratic surfaces), "
            "predict.boltzmann_gibbs for small steps, or simulate."
        )
    if spacing is None:
        spacing = 0.5 if surface.dim == 2 else 0.4
    if not (real_number(spacing) and 0 < spacing <= 0.5):
        raise ParameterError(f"{WHO}(spacing={spacing!r}): needs a number in (0, 0.5].")
    step = step_of(surface, dynamics)
    find_minima(WHO, surface)
    if not (np.linalg.eigvalsh(step.covariances(step.rest())) > 0).all():
        raise UnsoundError(
            f"{WHO}: the gradient noise is zero at a minimum, in some direction, so the law is "
            "singular, not a density. Give noise with sigma > 0, or a positive temperature."
        )
    unit = 1.0 if isinstance(dynamics, SGD) else step.rate
    if surface.dim == 2:
        return plane_chain(step, spacing, unit)
    if momentum_of(dynamics) > 0:
        return momentum_chain(step, momentum_of(dynamics), dynamics.nesterov, spacing)
    _refuse_certain_divergence(step)
    return _line_chain(step, spacing, unit)


def _line_chain(step: Step, spacing: float, unit: float) -> Chain:
    """The 1-D chain; its law must not change with closer nodes."""
    return checked(replace(best_margin(step, lambda s: _widened(s, spacing)), unit=unit))


def _widened(step: Step, spacing: float) -> Chain:
    """The chain on a box widened until what leaves it no longer changes."""
    low, high = _first_box(step.surface, step.temperature())
    result = None
    for _ in range(12):
        alive = living(step, low, high)
        nearest = node_spacing(step, *alive, spacing)
        previous, result = result, _solve(step, *alive, nearest)
        trapped_low, trapped_high = alive[0] > low, alive[1] < high
        if result.lost < 1e-15 or (trapped_low and trapped_high):
            break
        if previous is not None and abs(result.lost - previous.lost) <= 1e-6 * result.lost:
            break
        reach = (high - low) / 8
        low, high = low - (0 if trapped_low else reach), high + (0 if trapped_high else reach)
    return replace(result, error=_change(result))


def _change(result: Chain) -> float:
    """The largest change of the cdf, at thresholds and quantiles, with nodes closer by a quarter.

    Rounding where the gradient is smooth; not so across a jump of it, as of abs(x) at 0.
    """
    if len(result.nodes) > CHECKED_NODES:
        return np.nan
    closer = _solve(result.step, result.low, result.high, 0.77 * result.spacing)
    quantiles = np.searchsorted(np.cumsum(result.weights), np.arange(1, 10) / 10)
    x = np.concatenate([result.thresholds, result.nodes[quantiles]])
    return float(np.abs(closer.cdf(x) - result.cdf(x)).max())


def _first_box(surface: Any, temperature: float) -> tuple[float, float]:
    """Bounds so deep that leaving them is far rarer than crossing the highest barrier.

    At most DEEPEST: wells beyond have a probability of 0 in double precision.
    """
    tops = np.asarray(surface.basins().thresholds, dtype=float)[:, None]
    energies = np.concatenate([[m.energy for m in surface.minima()], surface.energy(tops)])
    depth = min(40 + float(np.ptp(energies)) / temperature, DEEPEST)
    low, high = surface.bounds(temperature, depth)
    return float(np.ravel(low)[0]), float(np.ravel(high)[0])


def _refuse_certain_divergence(step: Step) -> None:
    if not step.surface.hessian_is_constant or step.drift:
        return
    curvature = float(step.surface.minima()[0].hessian[0, 0]) + step.decay
    if step.rate * curvature >= 2:
        raise UnsoundError(
            f"{WHO}: the step {step.rate:g} diverges on this quadratic surface: curvature "
            f"{curvature:g} needs a step below {2 / curvature:g}. Reduce the learning rate (or dt)."
        )


def _solve(step: Step, low: float, high: float, spacing: float) -> Chain:
    """Discretise the kernel on [low, high] and find its leading eigenvector."""
    surface = step.surface
    kernel = build(step, low, high, spacing).recurrent(step.wells(low, high))
    factors = eliminate(kernel.rows, kernel.columns, kernel.values, kernel.loss)
    p, lost = quasi_stationary(factors, kernel.loss)
    matrix = kernel.matrix
    return Chain(
        name="discrete chain",
        regime="",
        centres=kernel.centres,
        spreads=kernel.spreads,
        weights=p,
        low=kernel.low,
        high=kernel.high,
        thresholds=np.asarray(surface.basins().thresholds, dtype=float),
        step=step,
        nodes=kernel.nodes,
        matrix=matrix,
        factors=factors,
        lost=lost,
        residual=float(np.abs(matrix @ p - (1 - lost) * p).sum()),
        spacing=spacing,
        error=np.nan,
        unit=1.0,
    )
