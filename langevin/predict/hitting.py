"""When a discrete 1-D chain first steps into a region: its mean, and its distribution."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from langevin.checks import real_array
from langevin.errors import ParameterError, UnsoundError
from langevin.predict.common import check_points, gauss_legendre, normal_interval
from langevin.predict.elimination import Factors, eliminate
from langevin.predict.kernel import STEEPEST, Step, jump, living
from langevin.predict.region import region_test

ORDER = 12
PANEL = 3.0  # standard deviations of a step: 12 nodes there integrate it to rounding
REACH = 10.0  # standard deviations of a step kept; behind high barriers far tails matter
MAX_NODES = 40_000
CHECKED_NODES = 8_000  # up to which a time is computed twice to measure its error
ESCAPED = 1e-3  # probability of leaving for infinity instead, above which a mean is refused
WHO = "hitting_time"


@dataclass(frozen=True, eq=False)
class Hitting:
    """The passage of a 1-D chain into a region, solved on the rest of the line.

    With K the transition density on the nodes outside the region (Gauss-Legendre on panels that end
    at the region's edges), the mean number of steps solves ``h = 1 + K h``, exactly counted from
    step 1. The elimination never subtracts, and each node's loss is the exact Gaussian mass inside
    the region, so times of e**30 steps keep their digits. ``times`` (n,) is h at ``nodes``,
    ``astray`` (n,) the expected number of steps that leave for infinity before.
    """

    step: Step
    nodes: np.ndarray
    weights: np.ndarray
    times: np.ndarray
    astray: np.ndarray
    transposed: Any

    def mean(self, start: Any) -> float:
        """Mean number of steps from ``start``: a point (1,), or points (k, 1) in equal shares.

        Raises UnsoundError where more than one replica in a thousand escapes to infinity first.
        """
        rows = self._first(start)
        self._refuse_escape(rows)
        return float(1 + (rows @ self.times).mean())

    def probability(self, steps: Any, start: Any) -> np.ndarray:
        """The probability of having hit by each of ``steps`` (any shape of whole numbers >= 0)."""
        values = real_array("hitting_probability: step", steps, "needs whole numbers >= 0")
        if not ((values >= 0) & (values == np.floor(values)) & (values < 1e15)).all():
            raise ParameterError(f"hitting_probability(step={steps!r}): needs whole numbers >= 0.")
        steps = values.astype(np.int64)
        last = int(steps.max(initial=0))
        if last * max(self.transposed.nnz, 1) > 2e10:
            raise ParameterError(
                f"hitting_probability(step={last}): {last * self.transposed.nnz:.1e} operations. "
                "For a rare event it is 1 - exp(-step/hitting_time) once the start is forgotten."
            )
        rows = self._first(start)
        alive = np.ones(len(self.nodes))
        surviving = [1.0]  # after 0 steps, 1, ...
        for _ in range(last):
            surviving.append(float((rows @ alive).mean()))
            alive = self.transposed @ alive
        return 1 - np.array(surviving)[steps]

    def _first(self, start: Any) -> np.ndarray:
        """What one step from each start puts on the nodes, (k, n)."""
        x = np.atleast_2d(check_points(start, 1))[:, 0]
        if not np.isfinite(x).all():
            raise ParameterError(f"{WHO}: start={start!r} must be finite.")
        centre, spread = self.step.mean(x)[:, None], np.sqrt(self.step.variance(x))[:, None]
        z = (self.nodes - centre) / spread
        return np.exp(-(z**2) / 2) * self.weights / (spread * np.sqrt(2 * np.pi))

    def _refuse_escape(self, rows: np.ndarray) -> None:
        lost = float((rows @ self.astray).mean())
        if lost > ESCAPED:
            raise UnsoundError(
                f"{WHO}: a replica escapes to infinity before it hits the region, with "
                f"probability {min(lost, 1.0):.2g}, so the mean time is not finite. Reduce the "
                "learning rate (or dt), or simulate with on_divergence='absorb'."
            )


def hitting(
    step: Step,
    edges: np.ndarray,
    inside: np.ndarray,
    spacing: float,
    trapped: np.ndarray | None = None,
) -> Hitting:
    """The passage into the intervals between ``edges`` (n,) that ``inside`` (n + 1,) marks.

    The first and the last interval reach to infinity; where they are not in the region, the chain
    is taken to come back from there, and what leaves on a side that is ``trapped`` (2,) is counted
    as gone astray. ``spacing`` is the width of a panel.
    """
    edges = np.asarray(edges, dtype=float)
    free = [
        (a, b, max(int(np.ceil((b - a) / spacing)), 1))
        for a, b, within in zip(edges[:-1], edges[1:], inside[1:-1], strict=True)
        if not within
    ]
    count = ORDER * sum(n for *_, n in free)
    if count > MAX_NODES:
        raise UnsoundError(
            f"{WHO}: a step of {step.rate:g} needs {count} nodes (at most {MAX_NODES}). With steps "
            "so small use predict.escape, whose .monitored allows for the step."
        )
    panels = [np.linspace(a, b, n + 1) for a, b, n in free]
    t, w = gauss_legendre(ORDER)
    low = np.concatenate([p[:-1] for p in panels] or [np.zeros(0)])
    width = np.concatenate([np.diff(p) for p in panels] or [np.zeros(0)])
    nodes = (low[:, None] + width[:, None] * t).ravel()
    weights = (width[:, None] * w).ravel()
    centres, spreads = step.mean(nodes), np.sqrt(step.variance(nodes))
    to, of, values = _entries(nodes, weights, centres, spreads)
    bounds = np.concatenate([[-np.inf], edges, [np.inf]])
    z = (bounds[:, None] - centres) / spreads
    mass = normal_interval(z[:-1], z[1:])
    astray = np.zeros(count)
    if trapped is not None:
        astray = mass[[0, -1]][trapped].sum(axis=0)
    from scipy.sparse import coo_array

    n = len(nodes)
    transposed = coo_array((values, (of, to)), shape=(n, n)).tocsr()
    if not n:
        return Hitting(step, nodes, weights, np.zeros(0), np.zeros(0), transposed)
    factors = eliminate(to, of, values, mass[np.asarray(inside)].sum(axis=0))
    times = _solved(factors, np.ones(n))
    return Hitting(step, nodes, weights, times, _solved(factors, astray), transposed)


def _solved(factors: Factors, right: np.ndarray) -> np.ndarray:
    """``(I - K^T)**-1 right``, refused where nothing ever hits."""
    if not factors.closed:
        with np.errstate(over="ignore"):
            found = factors.solve_transposed(right)
        if np.isfinite(found).all():
            return found
    raise UnsoundError(
        f"{WHO}: in double precision no step leads into the region. It is too far for this noise: "
        "raise the temperature, or bring the region nearer."
    )


def _entries(nodes, weights, centres, spreads) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The kernel's entries: to, from, and the weight times the density, within REACH deviations."""
    first = np.searchsorted(nodes, centres - REACH * spreads)
    last = np.searchsorted(nodes, centres + REACH * spreads)
    counts = last - first
    of = np.repeat(np.arange(len(nodes)), counts)
    to = np.arange(counts.sum()) + np.repeat(first - np.cumsum(counts) + counts, counts)
    z = (nodes[to] - centres[of]) / spreads[of]
    values = weights[to] * np.exp(-(z**2) / 2) / (spreads[of] * np.sqrt(2 * np.pi))
    return to, of, values


def region_edges(inside: Callable, low: float, high: float, finest: float) -> np.ndarray:
    """Where the region begins or ends in [low, high], to rounding.

    Parts narrower than ``finest`` may be missed.
    """
    n = int(np.clip((high - low) / finest, 4000, 400_000)) + 1
    x = np.linspace(low, high, n)
    here = inside(x)
    k = np.flatnonzero(here[1:] != here[:-1])
    a, b = x[k], x[k + 1]
    for _ in range(80):
        middle = (a + b) / 2
        same = inside(middle) == here[k]
        a, b = np.where(same, middle, a), np.where(same, b, middle)
    return b


def chain_hitting(chain: Any, region: str) -> Hitting:
    """The passage of a `Chain` into ``region``, on the chain's own grid, widened up to the region.

    Raises UnsoundError where the region is out of reach, FormulaError for text that is no region.
    """
    step, low, high = chain.step, float(chain.low), float(chain.high)
    inside = region_test(step.surface, region)
    narrow = np.sqrt(step.variance(chain.nodes)).min()
    found = region_edges(inside, 2 * low - high, 2 * high - low, narrow / 10)
    at_low, at_high = inside(np.array([low, high]))
    # Up to the region's nearest edge beyond, and as much farther out on the other side.
    wide_low = low if at_low else max(found[found <= low], default=low)
    wide_high = high if at_high else min(found[found >= high], default=high)
    low_holds, high_holds = at_low or wide_low < low, at_high or wide_high > high
    more = max(low - wide_low, wide_high - high)
    low = wide_low if low_holds else low - more
    high = wide_high if high_holds else high + more
    rim = (high - low) / 50
    alive = living(step, low - rim, high + rim)
    if (low_holds and alive[0] > low + rim) or (high_holds and alive[1] < high - rim):
        raise UnsoundError(
            f"{WHO}({region!r}): between the wells and the region the step of {step.rate:g} "
            "overshoots and diverges. Reduce the learning rate (or dt)."
        )
    if not low_holds:
        low = max(low, alive[0])
    if not high_holds:
        high = min(high, alive[1])
    reached = found[(found > low) & (found < high)]
    edges = np.concatenate([[low], reached, [high]])
    held = inside((edges[:-1] + edges[1:]) / 2)
    held = np.concatenate([[low_holds], held, [high_holds]])
    # Beyond a grid that ends where the map runs away nothing comes back.
    trapped = np.array([alive[0] > low - rim / 2, alive[1] < high + rim / 2])
    if not held.any():
        raise UnsoundError(
            f"{WHO}({region!r}): the condition holds nowhere between {low:.6g} and {high:.6g}, "
            "where the chain lives. Check the region, or bring it nearer."
        )
    return solved(step, edges, held, trapped & ~held[[0, -1]])


def solved(
    step: Step, edges: np.ndarray, inside: np.ndarray, trapped: np.ndarray | None = None
) -> Hitting:
    """`hitting` on panels fit for the step, which end where its gradient may jump.

    Raises UnsoundError where closer nodes change the time from a minimum by a thousandth.
    """
    low, high = float(edges[0]), float(edges[-1])
    if not high > low:
        return hitting(step, edges, inside, 1.0, trapped)
    # Where gradients jump: at the largest jump, and at tops and bottoms such as those of abs(x).
    corners = [m.position[0] for m in step.surface.minima()]
    corners += [*step.surface.basins().thresholds, jump(step, low, high)]
    for corner in corners:
        if corner is not None and low < corner < high and not np.isin(corner, edges):
            k = int(np.searchsorted(edges, corner))
            edges, inside = np.insert(edges, k, corner), np.insert(inside, k, inside[k])
    spacing = _panel(step, low, high)
    found = hitting(step, edges, inside, spacing, trapped)
    if len(found.nodes) <= CHECKED_NODES:
        closer = hitting(step, edges, inside, 0.77 * spacing, trapped)
        starts = np.array([m.position for m in step.surface.minima()])
        a, b = (1 + h._first(starts) @ h.times for h in (found, closer))
        change = np.abs(a / b - 1).max()
        if not change < 1e-3:
            raise UnsoundError(
                f"{WHO}: the times change by {change:.1e} with closer nodes: the gradient jumps, "
                "or changes within one step. Reduce the learning rate (or dt), or simulate."
            )
    return found


def _panel(step: Step, low: float, high: float) -> float:
    """PANEL deviations of the narrowest kernel, steep maps narrowing it, where the law has mass."""
    x = np.linspace(low, high, 4001)
    energy = step.surface.energy(x[:, None])
    spread = np.sqrt(step.variance(x))
    top = max(m.energy for m in step.surface.minima())
    bulk = energy < top + 20 * step.temperature()
    bulk = bulk if bulk.any() else np.isfinite(energy)
    if not (spread[bulk] > 0).all():
        raise UnsoundError(f"{WHO}: the gradient noise vanishes on the way to the region.")
    slope = np.abs(np.gradient(step.mean(x), x))
    # A median forgets the jump at a kink, where no panel would be narrow enough.
    slope = np.median(
        np.lib.stride_tricks.sliding_window_view(np.pad(slope, 3, "reflect"), 7), axis=1
    )
    return PANEL * float((spread / np.clip(slope, 1.0, STEEPEST))[bulk].min())
