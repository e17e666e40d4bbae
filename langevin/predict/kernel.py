"""The transition kernel of a discrete 1-D step, on nodes where the trapezoid rule is exact."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from langevin.dynamics import SGD
from langevin.errors import UnsoundError
from langevin.predict.common import discrete_step, is_finite_sum, single_valued

WHO = "predict.chain"
WINDOW = 8.5  # standard deviations of a step kept: the tail beyond is 2e-17
MAX_NODES = 200_000
MARGIN = 1.0  # sd of a step; at 2 the steepness outside is no longer resolved
STEEPEST = 10.0
DISCONNECTED = (
    "predict.chain: the chain cannot cross between its wells in double precision: the barrier is "
    "too high for this noise. Raise the temperature, or use predict.boltzmann_gibbs."
)


@dataclass(frozen=True, eq=False)
class Step:
    """One step of a chain without momentum, ``x -> N(mean(x), variance(x))``.

    ``mean``, ``variance`` take and give arrays (n,) in 1-D; ``means``, ``covariances`` take points
    (n, dim). ``decay`` is SGD's weight decay, ``drift`` the factor of a Stratonovich noise's drift,
    ``margin`` how many sd of a step the domain reaches beyond where noise-free orbits run away.
    """

    surface: Any
    rate: float
    noise: float | None  # the variance of one step, or None: rate**2 C(x) / batch_size
    batch_size: float = 1.0
    decay: float = 0.0
    drift: float = 0.0
    margin: float = MARGIN

    def slope(self, points: np.ndarray) -> np.ndarray:
        """What a step descends by, at points (..., dim): gradient, weight decay and drift."""
        slope = self.surface.gradient(points)
        if self.decay:
            slope = slope + self.decay * points
        if self.drift:
            slope = slope - self.drift * noise_drift(self.surface, points)
        return slope

    def means(self, points: np.ndarray) -> np.ndarray:
        """``x - eta grad U(x)``, (..., dim)."""
        return points - self.rate * self.slope(points)

    def covariances(self, points: np.ndarray) -> np.ndarray:
        """The covariance of a step from points (..., dim), (..., dim, dim)."""
        if self.noise is not None:
            eye = self.noise * np.eye(points.shape[-1])
            return np.broadcast_to(eye, points.shape[:-1] + eye.shape)
        return self.rate**2 * self.surface.noise_covariance(points) / self.batch_size

    def mean(self, x: np.ndarray) -> np.ndarray:
        """``x - eta U'(x)``."""
        return self.means(x[:, None])[:, 0]

    def variance(self, x: np.ndarray) -> np.ndarray:
        """``eta**2 C(x)/S`` for SGD, ``2 T dt`` for Euler-Maruyama."""
        return self.covariances(x[:, None])[:, 0, 0]

    def energy(self, points: np.ndarray) -> np.ndarray:
        """The loss descended, at points (..., dim): with the penalty of a weight decay."""
        energy = self.surface.energy(points)
        return energy + self.decay / 2 * (points**2).sum(-1) if self.decay else energy

    def rest(self) -> np.ndarray:
        """The points (k, dim) that the noise-free map settles at from the surface's minima."""
        points = np.array([m.position for m in self.surface.minima()], dtype=float)
        if self.decay or self.drift:
            small = min(self.rate, 0.5 / (self.decay + 1e-300))
            for _ in range(20_000):
                with np.errstate(all="ignore"):
                    new = points - small * self.slope(points)
                if not np.isfinite(new).all() or np.abs(new - points).max() < 1e-12:
                    break
                points = new
        return points

    def temperature(self) -> float:
        """``variance/(2 eta)``, the largest of the minima and of all directions."""
        return float(np.linalg.eigvalsh(self.covariances(self.rest())).max() / (2 * self.rate))

    def wells(self, low: float, high: float) -> np.ndarray:
        """The minima in (low, high) that the chain must be able to visit: not e**-100 rare."""
        x = self.essential()[:, 0]
        return x[(low < x) & (x < high)]

    def essential(self) -> np.ndarray:
        """The points of rest (k, dim) that the chain must be able to visit: not e**-100 rare."""
        points = self.rest()
        energies = self.energy(points)
        return points[energies <= energies.min() + 100 * self.temperature()]


def step_of(surface: Any, dynamics: Any) -> Step:
    """The step without momentum, or a refusal that names the prediction which can answer."""
    discrete_step(WHO, dynamics)
    single_valued(WHO, dynamics)
    rate = float(dynamics.step_size)
    if not isinstance(dynamics, SGD):
        return Step(surface, rate, noise=2 * float(dynamics.temperature) * rate)
    if is_finite_sum(surface):
        raise UnsoundError(
            f"{WHO}: the gradient noise of real mini-batches is not Gaussian. Use "
            "predict.quadratic for least squares, or simulate."
        )
    noise, size, drift = surface.noise, float(dynamics.batch_size), 0.0
    if noise is not None and not noise.gaussian:
        raise UnsoundError(
            f"{WHO}: the step of {noise!r} is not Gaussian about x - eta grad L. Use Gaussian "
            "noise, or simulate."
        )
    if noise is not None and noise.convention == "stratonovich":
        drift = rate / (2 * size * (1 - float(dynamics.momentum)))
    return Step(surface, rate, None, size, float(dynamics.weight_decay), drift)


def noise_drift(surface: Any, points: np.ndarray) -> np.ndarray:
    """``sum_jk B_jk dB_ik/dx_j`` of a Stratonovich noise at points (..., dim), (..., dim)."""
    import sympy

    from langevin.surfaces.state_noise import matrix_values

    drift = sympy.Matrix(surface.noise.drift(surface))
    return matrix_values(surface, "noise drift", drift, points)[..., 0]


def living(step: Step, low: float, high: float) -> tuple[float, float]:
    """The part of [low, high] from which the noise-free map does not run away, and a little more.

    The margin is for those that noise brings back: without it lifetimes come out a fifth too short.
    Beyond an unstable period-2 orbit each step overshoots farther than the last; a grid that
    reached across it would hold mass that in truth escapes.
    """
    x = np.linspace(low, high, 4001)
    image = step.mean(x)
    if ((image >= low) & (image <= high)).all():
        return low, high
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
    first, last = x[inside[0]], x[inside[-1]]
    a, b = step.margin * np.sqrt(step.variance(np.array([first, last])))
    return float(max(first - a, low)), float(min(last + b, high))


def node_spacing(step: Step, low: float, high: float, spacing: float) -> float:
    """``spacing`` standard deviations of the narrowest kernel, where the law has its mass.

    As a function of x the kernel N(y; m(x), s**2) is s/|m'| wide: where the map is steep
    (a step that overshoots) the nodes must be closer than the step's own width asks. At a jump of
    the gradient no spacing is close enough, so the steepness counted is at most STEEPEST.
    """
    x = np.linspace(low, high, 4001)
    energy = step.energy(x[:, None])
    top = step.energy(step.rest()).max()
    bulk = energy < top + 20 * step.temperature()
    spread = np.sqrt(step.variance(x))
    if not (spread[bulk] > 0).all():
        raise UnsoundError("predict.chain: the gradient noise vanishes inside the domain.")
    slope = np.abs(np.gradient(step.mean(x), x))
    return spacing * float((spread / np.clip(slope, 1.0, STEEPEST))[bulk].min())


def jump(step: Step, low: float, high: float) -> float | None:
    """Where the map jumps the most in [low, high], as at the kink of abs(x); None if nowhere."""
    x = np.linspace(low, high, 4001)
    slope = np.abs(np.diff(step.mean(x) - x))  # the map's own slope of 1 could hide a jump down
    k = int(slope.argmax())
    a, b = x[k], x[k + 1]
    for _ in range(30):
        middle = (a + b) / 2
        low_mean, mean, high_mean = step.mean(np.array([a, middle, b]))
        a, b = (a, middle) if abs(mean - low_mean) > abs(high_mean - mean) else (middle, b)
    ends = step.mean(np.array([a, b]))
    # Over 1e-12 of the domain a smooth map moves by no more than rounding.
    return float(a + b) / 2 if abs(ends[1] - ends[0]) > 1e-6 * (high - low) else None


@dataclass(frozen=True, eq=False)
class Kernel:
    """K_ij = h N(x_i; mean(x_j), variance(x_j)) on midpoint ``nodes`` (n,) of [low, high].

    ``rows``, ``columns``, ``values`` are its entries; ``loss`` (n,) is the mass that a column
    sends outside the grid. Columns and loss sum to 1.
    """

    low: float
    high: float
    nodes: np.ndarray
    centres: np.ndarray
    spreads: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    values: np.ndarray
    loss: np.ndarray

    @property
    def matrix(self) -> Any:
        """K as a sparse array (n, n), from column to row."""
        from scipy.sparse import coo_array

        n = len(self.nodes)
        return coo_array((self.values, (self.rows, self.columns)), shape=(n, n)).tocsr()

    def recurrent(self, wells: np.ndarray) -> Kernel:
        """The kernel on the nodes from and to which the chain can come from every one of ``wells``.

        Far tails under a strong drift are never reached and would make the chain reducible.
        Raises UnsoundError where no step leads from one well (positions (k,)) to another.
        """
        from scipy.sparse.csgraph import connected_components

        label = connected_components(self.matrix, directed=True, connection="strong")[1]
        at = label[np.abs(self.nodes - wells[:, None]).argmin(axis=1)]
        if (at != at[0]).any():
            raise UnsoundError(DISCONNECTED)
        keep = label == at[0]
        lost = keep[self.columns] & ~keep[self.rows]
        loss = self.loss + np.bincount(
            self.columns[lost], self.values[lost], minlength=len(self.nodes)
        )
        index = np.cumsum(keep) - 1
        kept = keep[self.rows] & keep[self.columns]
        return Kernel(
            self.low,
            self.high,
            self.nodes[keep],
            self.centres[keep],
            self.spreads[keep],
            index[self.rows[kept]],
            index[self.columns[kept]],
            self.values[kept],
            loss[keep],
        )


def build(step: Step, low: float, high: float, spacing: float) -> Kernel:
    """The kernel on [low, high] with nodes at most ``spacing`` apart.

    Raises UnsoundError where that takes more than MAX_NODES.
    """
    n = max(int(np.ceil((high - low) / spacing)), 32)
    if n > MAX_NODES:
        raise UnsoundError(
            f"predict.chain: a step of {step.rate:g} needs {n} nodes (at most {MAX_NODES}). With "
            "steps so small the chain has the continuum's law: use predict.boltzmann_gibbs."
        )
    h = (high - low) / n
    kink = jump(step, low, high)
    if kink is not None:  # a cell ends there, where the midpoint rule would lose an order
        shift = kink - (low + h * round((kink - low) / h))
        low, high = low + shift, high + shift
    x = low + h * (np.arange(n) + 0.5)
    m, s = step.mean(x), np.sqrt(step.variance(x))
    lowest = np.ceil((m - WINDOW * s - x[0]) / h).astype(np.int64)
    rows = lowest[:, None] + np.arange(int(np.ceil(2 * WINDOW * s.max() / h)) + 1)
    z = (x[0] + h * rows - m[:, None]) / s[:, None]
    values = np.where(z <= WINDOW, np.exp(-(z**2) / 2) * h / (s[:, None] * np.sqrt(2 * np.pi)), 0)
    outside = (rows < 0) | (rows >= n)
    loss = np.where(outside, values, 0).sum(1)
    inside = ~outside & (values > 0)
    columns = np.broadcast_to(np.arange(n)[:, None], rows.shape)
    return Kernel(low, high, x, m, s, rows[inside], columns[inside], values[inside], loss)
