"""Gradient flow of many points at once, down to the minima."""

from __future__ import annotations

import numpy as np

from langevin.surfaces.critical_points import low_discrepancy


def trap_radii(surface, width: np.ndarray) -> np.ndarray:
    """For each minimum, the radius of a ball that gradient flow cannot leave (sampled).

    In it the flow points towards the minimum, ``(x - x_i) . grad U > 0``, so |x - x_i| only falls.
    """
    dim = surface.dim
    minima = surface.minima()
    positions = np.array([m.position for m in minima])
    directions = np.concatenate([np.eye(dim), -np.eye(dim), 2 * low_discrepancy(64, dim) - 1])
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    good = np.ones(len(minima), bool)
    result = np.full(len(minima), 1e-6 * width.min())
    for radius in np.geomspace(1e-4, 1, 60) * width.min():
        arms = radius * directions
        inwards = (surface.gradient(positions[good][:, None] + arms) * arms).sum(-1) > 0
        good[good] = inwards.all(axis=1)
        if not good.any():
            break
        result[good] = 0.8 * radius
    return result


class Traps:
    """The balls around the minima, and which of them holds a point."""

    def __init__(self, surface, width: np.ndarray):
        from scipy.spatial import cKDTree

        self.positions = np.array([m.position for m in surface.minima()])
        self.radii = trap_radii(surface, width)
        self.tree = cKDTree(self.positions)

    def holding(self, points: np.ndarray) -> np.ndarray:
        """Index of the minimum whose ball holds each of ``points`` (n, dim), or -1."""
        distance, index = self.tree.query(np.nan_to_num(points, posinf=1e300, neginf=-1e300))
        held = (distance <= self.radii[index]) & np.isfinite(points).all(axis=1)
        return np.where(held, index, -1)

    def spacing(self) -> float:
        """The smallest distance between two minima, infinite if there is only one."""
        if len(self.positions) < 2:
            return np.inf
        return float(self.tree.query(self.positions, k=2)[0][:, 1].min())


def labels_by_flow(surface, points, low, high, traps, known=None, steps: int = 1500) -> np.ndarray:
    """Basin of each of ``points`` (n, 2) by the exponential Euler method, or -1.

    Each step solves the flow of the local quadratic exactly, so stiff valleys cost no small steps;
    its length is bounded. ``known`` is a coarser label grid of the same box, -1 where not yet
    settled: a point that enters a settled cell is done.
    """
    width = high - low
    cell = (width / (64 if known is None else 2 * np.array(known.shape))).min()
    reach = min(width.min() / 150, max(0.1 * traps.spacing(), cell / 2))
    labels = np.full(len(points), -1, np.int16)
    x = np.array(points, float)
    active = np.arange(len(x))
    time = np.full(len(x), np.inf)
    resting = np.zeros(len(x), bool)  # at a stationary point that is no known minimum
    for step in range(steps):
        if step % 3 == 0:
            labels[active] = _arrived(x, traps, low, width, known)
            moving = (labels[active] < 0) & np.isfinite(x).all(axis=1)
            moving &= (np.abs(x - low - width / 2) < 20 * width).all(axis=1) & ~resting
            active, x, time = active[moving], x[moving], time[moving]
        if not len(active):
            break
        move, time = _exponential_step(surface, x, time, reach)
        x = x + move
        resting = np.abs(move).max(axis=1) < 1e-9 * width.min()
    return labels


def _arrived(x, traps, low, width, known) -> np.ndarray:
    found = traps.holding(x)
    if known is not None:
        shape = np.array(known.shape)
        cells = np.floor(np.nan_to_num((x - low) / width) * shape).astype(np.int64)
        inside = ((cells >= 0) & (cells < shape)).all(axis=1) & (found < 0)
        found[inside] = known[cells[inside, 0], cells[inside, 1]]
    return found


def _exponential_step(surface, x, time, reach):
    """``-phi(H, t) g`` in two dimensions, t chosen so that the step is at most ``reach`` long."""
    g = surface.gradient(x)
    hessian = surface.hessian(x)
    a, b, c = hessian[:, 0, 0], hessian[:, 0, 1], hessian[:, 1, 1]
    mean, radius = (a + c) / 2, np.hypot((a - c) / 2, b)
    radius = np.maximum(radius, 1e-12 * (np.abs(mean) + 1e-300))
    low, high = mean - radius, mean + radius
    upper = np.stack([(a - low) * g[:, 0] + b * g[:, 1], b * g[:, 0] + (c - low) * g[:, 1]], axis=1)
    upper /= 2 * radius[:, None]
    lower = g - upper
    speed = np.linalg.norm(g, axis=1) + 1e-300
    time = np.minimum(time, 50 * reach / speed)
    for _ in range(6):
        move = -(phi(low, time)[:, None] * lower + phi(high, time)[:, None] * upper)
        length = np.linalg.norm(move, axis=1)
        long = ~(length <= 1.2 * reach)
        if not long.any():
            break
        time = np.where(long, time * np.clip(reach / (length + 1e-300), 0.05, 0.9), time)
    return move, time * 4


def phi(curvature, time):
    """``(1 - exp(-h t))/h``, the integral of exp(-h s) from 0 to t."""
    z = np.clip(curvature * time, -30, None)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(np.abs(z) < 1e-8, time, -np.expm1(-z) / curvature)


def quench(surface, points: np.ndarray, steps: int = 3000) -> np.ndarray:
    """Minimum reached by descent with clipped steps from ``points`` (n, dim), or -1; any dimension.

    Each point keeps its own step, grown while the energy falls and halved when it does not, and
    never moves more than a hundredth of the distance between minima at once.
    """
    minima = surface.minima()
    positions = np.array([m.position for m in minima])
    spread = np.ptp(positions, axis=0) if len(minima) > 1 else np.zeros(surface.dim)
    width = np.maximum(np.full(surface.dim, spread.max()), 1.0)
    traps = Traps(surface, width)
    stiffest = max(np.abs(np.linalg.eigvalsh(m.hessian)).max() for m in minima)
    clip = 0.02 * width.min()
    x = np.array(points, float)
    labels = np.full(len(x), -1)
    active = np.flatnonzero(np.isfinite(x).all(axis=1))
    x = x[active]
    rate = np.full((len(x), 1), 0.5 / max(stiffest, 1e-12))
    energy = surface.energy(x)
    for _ in range(steps):
        labels[active] = traps.holding(x)
        moving = labels[active] < 0
        active, x, rate, energy = active[moving], x[moving], rate[moving], energy[moving]
        if not len(active):
            break
        move = -rate * surface.gradient(x)
        length = np.linalg.norm(move, axis=1, keepdims=True)
        trial = x + move * np.minimum(1.0, clip / np.maximum(length, 1e-300))
        new = surface.energy(trial)
        better = (new <= energy)[:, None]
        x = np.where(better, trial, x)
        energy = np.where(better[:, 0], new, energy)
        rate = np.where(better, np.minimum(rate * 1.2, 1e6 / max(stiffest, 1e-12)), rate * 0.5)
    return labels
