"""The stationary law of the discrete step itself, in one dimension."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from langevin.dynamics import SGD
from langevin.errors import ParameterError, UnsoundError
from langevin.predict.common import (
    check_points,
    find_minima,
    is_finite_sum,
    momentum_of,
    single_valued,
)
from langevin.predict.elimination import Factors, eliminate, quasi_stationary, slowest_mode
from langevin.predict.smoothed import SmoothedLaw

WINDOW = 8.5  # standard deviations of a step kept: the tail beyond is 2e-17
FOREVER = 1e15  # steps: a longer lifetime is below rounding
MAX_NODES = 200_000


@dataclass(frozen=True, eq=False)
class Step:
    """One step of a 1-D chain, ``x -> N(mean(x), variance(x))``, arrays (n,) in and out."""

    surface: Any
    rate: float
    noise: float | None  # the variance of one step, or None: rate**2 C(x) / batch_size
    batch_size: float = 1.0

    def mean(self, x: np.ndarray) -> np.ndarray:
        """``x - eta U'(x)``."""
        return x - self.rate * self.surface.gradient(x[:, None])[:, 0]

    def variance(self, x: np.ndarray) -> np.ndarray:
        """``eta**2 C(x)/S`` for SGD, ``2 T dt`` for Euler-Maruyama."""
        if self.noise is not None:
            return np.full(x.shape, self.noise)
        c = self.surface.noise_covariance(x[:, None])[:, 0, 0]
        return self.rate**2 * c / self.batch_size


@dataclass(frozen=True, eq=False)
class Chain(SmoothedLaw):
    """The (quasi-)stationary law of a discrete 1-D chain, with its time scales.

    ``lifetime`` is the mean number of **steps** before a replica in this law escapes to infinity,
    ``1/(1 - lambda)``, inf where that is below rounding. ``nodes`` (n,) are the quadrature points
    and ``residual`` the eigenvector's residual in the 1-norm.
    """

    step: Step
    nodes: np.ndarray
    matrix: Any
    factors: Factors
    lost: float
    residual: float
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
        if not ((x >= self.low) & (x <= self.high)).all():
            raise ParameterError(
                f"at(start={start!r}): every start must lie in [{self.low:.6g}, {self.high:.6g}], "
                "the region that does not escape to infinity."
            )
        centres, spreads = self.step.mean(x), np.sqrt(self.step.variance(x))
        weights = np.full(len(x), 1 / len(x))
        if step > 1:
            h = self.nodes[1] - self.nodes[0]
            z = (self.nodes[:, None] - centres) / spreads
            weights = np.exp(-(z**2) / 2) @ (weights / (spreads * np.sqrt(2 * np.pi))) * h
            for _ in range(step - 2):
                weights = self.matrix @ weights
            centres, spreads = self.centres, self.spreads
        return SmoothedLaw(
            name=f"{self.name}, step {step}",
            regime=f"exact law {step} steps after the start, among replicas still alive",
            centres=centres,
            spreads=spreads,
            weights=weights,
            low=self.low,
            high=self.high,
            thresholds=self.thresholds,
        )


def chain(surface: Any, dynamics: Any, *, spacing: float = 0.4) -> Chain:
    """The stationary law of the discrete step, ``x -> N(x - eta U'(x), v(x))``, in 1-D.

    SGD: ``v = eta**2 C(x)/S``; Overdamped (Euler-Maruyama): ``eta = dt``, ``v = 2 T dt``. The
    integral equation ``lambda p(y) = int N(y; x - eta U'(x), v(x)) p(x) dx`` is solved on equidistant
    nodes, ``spacing`` (at most 0.5) standard deviations of a step apart, where the trapezoid rule
    is accurate to rounding. On a surface that grows faster than quadratically the chain escapes in the
    end and this law is quasi-stationary: ``.lifetime`` says for how many steps it holds.

    Raises UnsoundError for momentum, more than one dimension, mini-batches of real data, zero
    noise, a step that diverges, or a lifetime that leaves no time to relax.
    """
    step = _step_of(surface, dynamics)
    if not (np.ndim(spacing) == 0 and 0 < spacing <= 0.5):
        raise ParameterError(f"predict.chain(spacing={spacing!r}): needs a number in (0, 0.5].")
    positions = np.array([m.position[0] for m in find_minima("predict.chain", surface)])
    _refuse_certain_divergence(surface, step.rate)
    variances = step.variance(positions)
    if not (variances > 0).all():
        raise UnsoundError(
            "predict.chain: the gradient noise is zero at a minimum, so the law is a point, not a "
            "density. Give noise with sigma > 0, or a positive temperature."
        )
    temperature = float(variances.max() / (2 * step.rate))
    low, high = _first_box(surface, temperature)
    result = None
    for _ in range(12):
        inner_low, inner_high = _living(step, low, high)
        previous, result = (
            result,
            _solve(step, surface, inner_low, inner_high, spacing, temperature),
        )
        trapped_low, trapped_high = inner_low > low, inner_high < high
        if result.lost < 1e-15 or (trapped_low and trapped_high):
            break
        if previous is not None and abs(result.lost - previous.lost) <= 1e-6 * result.lost:
            break
        reach = (high - low) / 8
        low, high = low - (0 if trapped_low else reach), high + (0 if trapped_high else reach)
    return _checked(replace(result, unit=1.0 if isinstance(dynamics, SGD) else step.rate))


def _step_of(surface: Any, dynamics: Any) -> Step:
    """The chain's step, or a refusal that names the prediction which can answer."""
    who = "predict.chain"
    if surface.dim != 1:
        raise UnsoundError(
            f"{who}: solves one dimension, the surface has {surface.dim}. Use predict.quadratic "
            "(exact, any dimension, quadratic surfaces), predict.boltzmann_gibbs, or simulate."
        )
    single_valued(who, dynamics)
    if momentum_of(dynamics) > 0:
        raise UnsoundError(
            f"{who}: momentum={momentum_of(dynamics):g} makes the chain two-dimensional, which is "
            "not solved here. Use momentum=0, predict.quadratic on a quadratic surface, or "
            "predict.boltzmann_gibbs for small steps."
        )
    rate = float(dynamics.step_size)
    if not isinstance(dynamics, SGD):
        return Step(surface, rate, noise=2 * float(dynamics.temperature) * rate)
    if is_finite_sum(surface):
        raise UnsoundError(
            f"{who}: the gradient noise of real mini-batches is not Gaussian. Use "
            "predict.quadratic for least squares, or simulate."
        )
    return Step(surface, rate, noise=None, batch_size=float(dynamics.batch_size))


def _first_box(surface: Any, temperature: float) -> tuple[float, float]:
    """Bounds so deep that leaving them is far rarer than crossing the highest barrier."""
    tops = np.asarray(surface.basins().thresholds, dtype=float)[:, None]
    energies = np.concatenate([[m.energy for m in surface.minima()], surface.energy(tops)])
    depth = 40 + float(np.ptp(energies)) / temperature
    low, high = surface.bounds(temperature, depth)
    return float(np.ravel(low)[0]), float(np.ravel(high)[0])


def _refuse_certain_divergence(surface: Any, rate: float) -> None:
    if not surface.hessian_is_constant:
        return
    curvature = float(surface.minima()[0].hessian[0, 0])
    if rate * curvature >= 2:
        raise UnsoundError(
            f"predict.chain: the step {rate:g} diverges on this quadratic surface: curvature "
            f"{curvature:g} needs a step below {2 / curvature:g}. Reduce the learning rate (or dt)."
        )


def _living(step: Step, low: float, high: float) -> tuple[float, float]:
    """The part of [low, high] from which the noise-free map does not run away.

    Beyond an unstable period-2 orbit each step overshoots farther than the last; a grid that
    reached across it would hold mass that in truth escapes.
    """
    x = np.linspace(low, high, 4001)
    centre, reach = (low + high) / 2, (high - low) / 2
    y, alive = x.copy(), np.ones(x.shape, dtype=bool)
    for _ in range(200):
        with np.errstate(all="ignore"):
            y = np.where(alive, step.mean(np.where(alive, y, centre)), y)
            alive &= np.isfinite(y) & (np.abs(y - centre) <= 8 * reach)
    alive[1:-1] &= alive[2:] & alive[:-2]  # an unstable fixed point hit exactly never leaves
    if alive.sum() < 3:
        raise UnsoundError(
            f"predict.chain: the step {step.rate:g} diverges from everywhere on this surface. "
            "Reduce the learning rate (or dt)."
        )
    inside = np.flatnonzero(alive)
    return float(x[inside[0]]), float(x[inside[-1]])


def _node_spacing(
    step: Step, surface: Any, low: float, high: float, spacing: float, temperature: float
) -> float:
    """``spacing`` standard deviations of the narrowest kernel, where the law has its mass.

    As a function of x the kernel N(y; m(x), s**2) is s/|m'| wide: where the map is steep
    (a step that overshoots) the nodes must be closer than the step's own width asks.
    """
    x = np.linspace(low, high, 4001)
    energy = surface.energy(x[:, None])
    top = max(m.energy for m in surface.minima())
    bulk = energy < top + 20 * temperature
    spread = np.sqrt(step.variance(x))
    if not (spread[bulk] > 0).all():
        raise UnsoundError("predict.chain: the gradient noise vanishes inside the domain.")
    slope = np.abs(np.gradient(step.mean(x), x))
    return spacing * float((spread / np.maximum(1.0, slope))[bulk].min())


def _solve(
    step: Step, surface: Any, low: float, high: float, spacing: float, temperature: float
) -> Chain:
    """Discretise the kernel on midpoint nodes of [low, high] and find its leading eigenvector."""
    from scipy.sparse import coo_array

    target = _node_spacing(step, surface, low, high, spacing, temperature)
    n = max(int(np.ceil((high - low) / target)), 32)
    if n > MAX_NODES:
        raise UnsoundError(
            f"predict.chain: a step of {step.rate:g} needs {n} nodes (at most {MAX_NODES}). With "
            "steps so small the chain has the continuum's law: use predict.boltzmann_gibbs."
        )
    h = (high - low) / n
    x = low + h * (np.arange(n) + 0.5)
    m, s = step.mean(x), np.sqrt(step.variance(x))
    lowest = np.ceil((m - WINDOW * s - x[0]) / h).astype(np.int64)
    rows = lowest[:, None] + np.arange(int(np.ceil(2 * WINDOW * s.max() / h)) + 1)
    z = (x[0] + h * rows - m[:, None]) / s[:, None]
    values = np.where(z <= WINDOW, np.exp(-(z**2) / 2) * h / (s[:, None] * np.sqrt(2 * np.pi)), 0)
    inside = (rows >= 0) & (rows < n) & (values > 0)
    loss = np.where((rows < 0) | (rows >= n), values, 0).sum(1)
    columns = np.broadcast_to(np.arange(n)[:, None], rows.shape)
    entries = rows[inside], columns[inside], values[inside]
    # States that no step reaches (far tails, strong drift) would make the chain reducible.
    keep = _reachable(n, *entries[:2], int(np.argmin(np.abs(x - surface.minima()[0].position[0]))))
    index = np.cumsum(keep) - 1
    kept = keep[entries[0]] & keep[entries[1]]
    rows, columns, values = index[entries[0][kept]], index[entries[1][kept]], entries[2][kept]
    factors = eliminate(rows, columns, values, loss[keep])
    p, lost = quasi_stationary(factors, loss[keep])
    matrix = coo_array((values, (rows, columns)), shape=(keep.sum(),) * 2).tocsr()
    return Chain(
        name="discrete chain",
        regime="",
        centres=m[keep],
        spreads=s[keep],
        weights=p,
        low=low,
        high=high,
        thresholds=np.asarray(surface.basins().thresholds, dtype=float),
        step=step,
        nodes=x[keep],
        matrix=matrix,
        factors=factors,
        lost=lost,
        residual=float(np.abs(matrix @ p - (1 - lost) * p).sum()),
        unit=1.0,
    )


def _reachable(n: int, rows: np.ndarray, columns: np.ndarray, start: int) -> np.ndarray:
    """The states (n,) that the chain can visit from ``start``: a contiguous run of nodes."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import breadth_first_order

    graph = coo_array((np.ones(len(rows)), (columns, rows)), shape=(n, n)).tocsr()
    keep = np.zeros(n, dtype=bool)
    keep[breadth_first_order(graph, start, return_predecessors=False)] = True
    return keep


def _checked(result: Chain) -> Chain:
    """Refuse an eigenpair that is inexact or a lifetime too short to relax in; state the regime."""
    if not result.residual < 1e-9:
        raise UnsoundError(
            f"predict.chain: the eigenvector's residual is {result.residual:.1e}, not below 1e-9. "
            "Give a smaller spacing=, or simulate."
        )
    if np.isinf(result.lifetime):
        return replace(result, regime="exact for the discrete step, at any step size")
    if result.lifetime < 100 * result.relaxation_steps:
        raise UnsoundError(
            f"predict.chain: replicas escape to infinity after {result.lifetime:.3g} steps on "
            f"average, but relaxing takes {result.relaxation_steps:.3g}: there is no stationary "
            "law. Reduce the learning rate (or dt), or the noise."
        )
    regime = (
        "exact for the discrete step while replicas survive: quasi-stationary, a replica escapes "
        f"to infinity after {result.lifetime:.3g} steps on average"
    )
    return replace(result, regime=regime)
