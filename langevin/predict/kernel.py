"""The transition kernel of a discrete 1-D step, on nodes where the trapezoid rule is exact."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from langevin.errors import UnsoundError

WINDOW = 8.5  # standard deviations of a step kept: the tail beyond is 2e-17
MAX_NODES = 200_000
STEEPEST = 10.0
DISCONNECTED = (
    "predict.chain: the chain cannot cross between its wells in double precision: the barrier is "
    "too high for this noise. Raise the temperature, or use predict.boltzmann_gibbs."
)


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

    def temperature(self) -> float:
        """``variance/(2 eta)``, the largest of the minima."""
        wells = np.array([m.position[0] for m in self.surface.minima()])
        return float(self.variance(wells).max() / (2 * self.rate))

    def wells(self, low: float, high: float) -> np.ndarray:
        """The minima in (low, high) that the chain must be able to visit: not e**-100 rare."""
        minima = self.surface.minima()
        top = min(m.energy for m in minima) + 100 * self.temperature()
        inside = [m for m in minima if m.energy <= top and low < m.position[0] < high]
        return np.array([m.position[0] for m in inside])


def living(step: Step, low: float, high: float) -> tuple[float, float]:
    """The part of [low, high] from which the noise-free map does not run away.

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
    return float(x[inside[0]]), float(x[inside[-1]])


def node_spacing(step: Step, low: float, high: float, spacing: float) -> float:
    """``spacing`` standard deviations of the narrowest kernel, where the law has its mass.

    As a function of x the kernel N(y; m(x), s**2) is s/|m'| wide: where the map is steep
    (a step that overshoots) the nodes must be closer than the step's own width asks. At a jump of
    the gradient no spacing is close enough, so the steepness counted is at most STEEPEST.
    """
    x = np.linspace(low, high, 4001)
    energy = step.surface.energy(x[:, None])
    top = max(m.energy for m in step.surface.minima())
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
