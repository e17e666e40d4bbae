"""Kramers' rates over the saddles of a surface, and the time they make to a far well."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np

from langevin.dynamics import SGD, Underdamped
from langevin.predict.passage_integral import LineDiffusion
from langevin.surfaces.flow import quench

OUTSIDE = -1


@dataclass(frozen=True, eq=False)
class Landscape:
    """Minima, and the saddles of index 1 with the two minima each leads to.

    ``ends`` (n_saddles, 2) are indices of minima, OUTSIDE where the way down leads to none.
    ``depths`` (n_minima,) and ``tops`` (n_saddles,) are U/T, in 1-D the diffusion's potential;
    ``log_widths`` and ``log_tops`` are ``-ln|det H|/2``, in 1-D of H g**2. ``modes``
    (n_saddles,) are the saddles' negative curvatures per mass, their sign dropped.
    """

    minima: tuple
    saddles: tuple
    ends: np.ndarray
    depths: np.ndarray
    tops: np.ndarray
    log_widths: np.ndarray
    log_tops: np.ndarray
    modes: np.ndarray

    def rates(self, speeds: np.ndarray) -> np.ndarray:
        """ln of the rate from each end over each saddle (n_saddles, 2); -inf from outside.

        ``speed/(2 pi) sqrt(det H_a/|det H_s|) exp(-(U_s - U_a)/T)``, ``speeds`` (n_saddles,) being
        the rate at which a step off the saddle grows.
        """
        log_top = np.log(speeds / (2 * np.pi)) + self.log_tops - self.tops
        inside = np.where(self.ends == OUTSIDE, 0, self.ends)
        log_well = self.depths[inside] - self.log_widths[inside]
        return np.where(self.ends == OUTSIDE, -np.inf, log_top[:, None] + log_well)

    def lowest_pass(self, a: int, b: int) -> int | None:
        """The highest saddle on the lowest way from minimum a to b; None where there is no way."""
        groups = {k: {k} for k in (OUTSIDE, *range(len(self.minima)))}
        for s in np.argsort(self.tops, kind="stable"):
            i, j = self.ends[s]
            if OUTSIDE in (i, j) and b != OUTSIDE:
                continue  # nothing comes back from there
            joint = groups[i] | groups[j]
            for k in joint:
                groups[k] = joint
            if b in groups[a]:
                return int(s)
        return None

    def pass_to_saddle(self, a: int, saddle: int) -> int | None:
        """The highest saddle on the lowest way from minimum a to ``saddle``, itself included."""
        if a in self.ends[saddle]:
            return saddle
        ways = [self.lowest_pass(a, e) for e in self.ends[saddle] if e != OUTSIDE]
        ways = [max(w, saddle, key=lambda s: self.tops[s]) for w in ways if w is not None]
        return min(ways, key=lambda s: self.tops[s], default=None)


def hitting_time(
    logs: np.ndarray, ends: np.ndarray, start: int, target: int | None, top: int | None = None
) -> float:
    """Mean time from ``start`` to ``target`` of the jump process with the log rates ``logs``.

    With ``top``, the number of a saddle, the target is that saddle itself, which is reached twice
    as often as it is crossed. Eliminating state after state, without a subtraction.
    """
    states = sorted(set(np.unique(ends).tolist()) - {OUTSIDE, target} | {start})
    states.remove(start)
    order = [start, *states]
    place = {m: k for k, m in enumerate(order)}
    n = len(order)
    scale = max((logs[s, e] for s, e in np.argwhere(ends == start)), default=0.0)
    if not np.isfinite(scale):
        return np.nan  # a flat minimum or top: no rate
    rates, loss, wait = np.zeros((n, n)), np.zeros(n), np.ones(n)
    with np.errstate(over="ignore", under="ignore"):
        speeds = np.exp(np.minimum(logs - scale, 690.0))
    for s, pair in enumerate(ends):
        for e in (0, 1):
            i, j = pair[e], pair[1 - e]
            if i not in place:
                continue
            if s == top:
                loss[place[i]] += 2 * speeds[s, e]
            elif j == target:
                loss[place[i]] += speeds[s, e]
            elif j in place and i != j:
                rates[place[i], place[j]] += speeds[s, e]
    for k in range(n - 1, 0, -1):
        leave = rates[k, :k].sum() + loss[k]
        if leave > 0:  # else nothing leads out of it, nor into it: saddles lead both ways
            share = rates[:k, k] / leave
            rates[:k, :k] += share[:, None] * rates[k, :k]
            loss[:k] += share * loss[k]
            wait[:k] += share * wait[k]
    with np.errstate(divide="ignore", over="ignore"):
        return float(np.exp(np.log(wait[0]) - np.log(loss[0]) - scale))


def landscape_on_line(surface: Any, process: LineDiffusion, mass: float) -> Landscape:
    """Minima and maxima of a 1-D surface, each maximum between its neighbours."""
    minima, maxima = surface.minima(), surface.saddles()
    x = np.array([m.position[0] for m in minima])
    top = np.array([s.position[0] for s in maxima]).reshape(-1)
    right = np.searchsorted(x, top)
    ends = np.stack([right - 1, np.where(right == len(x), OUTSIDE, right)], axis=1)
    points = np.sort(np.concatenate([x, top]))
    steps = [process.difference(a, b) for a, b in itertools.pairwise(points)]
    psi = dict(zip(points, np.cumsum([0.0, *steps]), strict=True))
    curvature = np.array([abs(p.hessian[0, 0]) for p in (*minima, *maxima)])
    with np.errstate(divide="ignore"):
        widths = -np.log(process.variance(np.concatenate([x, top])) * curvature) / 2
    return Landscape(
        minima=minima,
        saddles=maxima,
        ends=ends,
        depths=np.array([psi[v] for v in x]),
        tops=np.array([psi[v] for v in top]),
        log_widths=widths[: len(x)],
        log_tops=widths[len(x) :],
        modes=curvature[len(x) :] / mass,
    )


def landscape(surface: Any, temperature: float, masses: np.ndarray) -> Landscape:
    """Minima and saddles above one dimension, joined by descending from each saddle both ways."""
    minima, saddles = surface.minima(), surface.saddles()
    n, dim = len(saddles), surface.dim
    root = np.sqrt(np.broadcast_to(masses, dim))
    modes, starts = np.zeros(n), np.zeros((n, 2, dim))
    for k, s in enumerate(saddles):
        modes[k] = -np.linalg.eigvalsh(s.hessian / np.outer(root, root))[0]
        vector = np.linalg.eigh(s.hessian)[1][:, 0]
        nearest = min(np.linalg.norm(m.position - s.position) for m in minima)
        starts[k] = s.position + 0.01 * nearest * np.array([[1.0], [-1.0]]) * vector
    ends = quench(surface, starts.reshape(-1, dim)).reshape(n, 2) if n else np.zeros((0, 2), int)
    signs = np.array([np.linalg.slogdet(p.hessian)[1] for p in (*minima, *saddles)])
    return Landscape(
        minima=minima,
        saddles=saddles,
        ends=ends,
        depths=np.array([m.energy for m in minima]) / temperature,
        tops=np.array([s.energy for s in saddles]) / temperature,
        log_widths=-signs[: len(minima)] / 2,
        log_tops=-signs[len(minima) :] / 2,
        modes=modes,
    )


def growth(dynamics: Any, modes: np.ndarray) -> np.ndarray:
    """The rate at which a step off each saddle grows, per unit of the dynamics' time.

    Overdamped: the curvature; SGD: eta times it a step. Underdamped, by Langer: the positive root
    of ``r**2 + gamma r = curvature/mass``. Heavy ball is that with ``m = 1 - gamma dt`` and
    ``eta = dt**2``. Source: Hanggi, Talkner & Borkovec 1990, Eqs. 4.33 and 4.60.
    """
    if isinstance(dynamics, Underdamped):
        half, force = float(dynamics.friction) / 2, modes
    elif isinstance(dynamics, SGD):
        half, force = (1 - float(dynamics.momentum)) / 2, float(dynamics.learning_rate) * modes
        if dynamics.momentum == 0:
            return force
    else:
        return modes
    return force / (np.sqrt(half**2 + force) + half)


def regime(
    land: Landscape, dynamics: Any, well: int, height: float, top: int | None, notes: list[str]
) -> str:
    """How far Kramers' formula is to be trusted behind a barrier of ``height`` temperatures."""
    if height < 2:
        first = "no barrier to speak of, Kramers means little"
    else:
        # Exact/Kramers = 1.14, 1.07, 1.04 at 4, 6.7, 10 on the quartic double well.
        first = f"Kramers' formula, for small noise, is off by some {50 / height:.2g} %"
    how = "well to well" if top is None else "to the saddle's top, half the time of a crossing"
    friction = _friction(dynamics, np.asarray(land.minima[well].hessian), height)
    return "; ".join([f"dU/T = {height:.3g}: {first}", f"Kramers {how}", friction, *notes])


def _friction(dynamics: Any, hessian: np.ndarray, height: float) -> str:
    """Kramers' spatial diffusion fails where a period takes too little energy away."""
    if isinstance(dynamics, Underdamped):
        root = np.sqrt(np.broadcast_to(np.asarray(dynamics.masses, float), len(hessian)))
        square = np.linalg.eigvalsh(hessian / np.outer(root, root))[0]
        friction = float(dynamics.friction)
    elif isinstance(dynamics, SGD) and dynamics.momentum > 0:
        square = float(dynamics.learning_rate) * np.linalg.eigvalsh(hessian)[0]
        friction = 1 - float(dynamics.momentum)
    else:
        return "small steps, but for the chain's time"
    # The action of a harmonic orbit as high as the barrier.
    loss = friction * 2 * np.pi * height / np.sqrt(square) if square > 0 else np.inf
    text = f"friction x action/T is about {loss:.2g}"
    if loss < 1:
        return text + ", below 1: energy diffusion rules, and the true time is longer"
    return text + " (below 1 energy diffusion would make the true time longer)"
