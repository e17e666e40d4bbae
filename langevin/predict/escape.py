"""How long a well holds: mean first-passage times, exact and by Kramers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from langevin.dynamics import SGD, Underdamped
from langevin.errors import ParameterError, UnsoundError
from langevin.predict import kramers
from langevin.predict.common import (
    check_surface,
    find_minima,
    is_finite_sum,
    momentum_of,
    penalised,
    single_valued,
    temperature_of,
)
from langevin.predict.hitting import solved
from langevin.predict.kernel import Step
from langevin.predict.laplace import log_determinant
from langevin.predict.passage_integral import LineDiffusion, mean_first_passage, outer_panels
from langevin.surfaces.confinement import require_confining
from langevin.surfaces.noise import Isotropic

WHO = "predict.escape"
MONITORING = 0.5825971579390106  # -zeta(1/2)/sqrt(2 pi), Broadie, Glasserman and Kou 1997
AT_TOP = 1e-3  # thermal widths of a saddle: so near, a barrier is the saddle itself
HIGHEST = 650.0  # T: exp of it is still a double


@dataclass(frozen=True, eq=False)
class Escape:
    """Mean first-passage times from a start to a barrier; nan where a law does not apply.

    ``chain``: of the discrete step itself, as `FirstPassage` measures. ``monitored``: the
    diffusion's with its barrier moved out by ``0.5826 sigma sqrt(dt)``, which makes up for a
    passage that is seen only at steps. ``exact``: the diffusion's own. ``kramers``: for small
    noise. All in ``unit``: steps for SGD, units of time for Langevin dynamics.

    ``minimum`` and ``saddle`` (dim,) are that of the start's basin and the highest point of the
    lowest way; ``barrier_height`` is the difference of their energies, ``reduced_height`` the same
    in units of the temperature (in 1-D of the noise met on the way). ``start`` (dim,) is the one
    asked for.
    """

    exact: float
    monitored: float
    kramers: float
    chain: float
    barrier_height: float
    reduced_height: float
    minimum: np.ndarray
    saddle: np.ndarray
    unit: str
    regime: str
    name: str = field(default="escape")
    start: np.ndarray | None = None

    @property
    def mean_passage_time(self) -> float:
        """The sharpest for a run's `FirstPassage`: chain, else monitored, else exact or Kramers."""
        times = (self.chain, self.monitored, self.exact, self.kramers)
        return next((t for t in times if np.isfinite(t)), np.nan)

    @property
    def rate(self) -> float:
        """``1/mean_passage_time``."""
        return 1 / self.mean_passage_time

    def __str__(self) -> str:
        where = ", ".join(f"{v:.4g}" for v in self.saddle)
        lines = [f"escape over ({where}), {self.reduced_height:.3g} T high: mean time"]
        for name, text in (
            ("chain", "of the discrete step"),
            ("monitored", "exact, watched at steps"),
            ("exact", "exact, continuous"),
            ("kramers", "Kramers"),
        ):
            value = getattr(self, name)
            shown = f"{value:14.6g} {self.unit}" if np.isfinite(value) else f"{'-':>14}"
            lines.append(f"  {text:24s}{shown}")
        return "\n".join([*lines, f"  {self.regime}"])


def escape(surface: Any, dynamics: Any, start: Any, barrier: Any) -> Escape:
    """The mean time from ``start`` until ``barrier`` is reached, both points (dim,).

    ``.exact``, 1-D without momentum: ``int_start^barrier s(y) int^y m(z) dz dy`` with the scale
    density s and the speed density m of the diffusion ``dx = -U' dt + g dW`` (Ito);
    ``(1/T) int e^{U(y)/T} int^y e^{-U(z)/T} dz dy`` for isotropic noise. SGD is the diffusion with
    ``g**2 = eta C(x)/S`` and eta time units a step. ``.chain``, 1-D: the Gaussian step itself.

    ``.kramers``: ``(2 pi/|lambda|) sqrt(|det H_saddle|/det H_a) e^{dU/T}`` (Eyring-Kramers; in 1-D
    ``2 pi/sqrt(U''_a |U''_b|) e^{dU/T}``) well to well where the barrier lies beyond the saddle,
    and half of it where the barrier is the saddle's top. Where more than one saddle or well matters
    it is the mean time of the jump process over all minima with these rates, so parallel saddles
    add and wells on the way, or beside it, hold their share. With momentum or friction
    ``|lambda|`` becomes Langer's growth rate, in 1-D ``[sqrt(gamma**2/4 + w_b**2) - gamma/2]``:
    heavy ball is the friction gamma with ``m = 1 - gamma dt`` and ``eta = dt**2``, at the
    temperature ``eta sigma**2/(2 S (1 - m))``.

    Raises ParameterError for points of the wrong shape; UnsoundError where start lies in no basin,
    no saddle separates the barrier from it, nothing confines the replicas on the other side, the
    noise is zero or above 1-D not isotropic. Sources: Gardiner, Handbook of Stochastic Methods,
    5.2.7; Hanggi, Talkner & Borkovec 1990; Bovier et al. 2004.
    """
    check_surface(WHO, surface)
    single_valued(WHO, dynamics)
    penalised(WHO, dynamics)
    start, barrier = (_point(surface, n, p) for n, p in (("start", start), ("barrier", barrier)))
    if surface.dim == 1:
        found = _on_line(surface, dynamics, float(start[0]), float(barrier[0]))
    else:
        found = _in_space(surface, dynamics, start, barrier)
    return replace(found, start=start)


def _point(surface: Any, name: str, value: Any) -> np.ndarray:
    try:
        point = np.asarray(value, dtype=float)
    except (TypeError, ValueError):
        point = np.full(1, np.nan)
    point = point.reshape(1) if point.ndim == 0 and surface.dim == 1 else point
    if point.shape != (surface.dim,) or not np.isfinite(point).all():
        raise ParameterError(
            f"{WHO}({name}={value!r}): needs a point of {surface.dim} finite coordinates."
        )
    return point


# --- one dimension --------------------------------------------------------------------------------


def _on_line(surface: Any, dynamics: Any, start: float, barrier: float) -> Escape:
    process = _diffusion(surface, dynamics)
    wells = np.array([m.position[0] for m in find_minima(WHO, surface)])
    if not (process.variance(wells) > 0).all():
        raise UnsoundError(
            f"{WHO}: without noise nothing leaves a minimum, and here it is zero at one. Give "
            "noise with sigma > 0, or a positive temperature."
        )
    mass = float(np.max(getattr(dynamics, "masses", 1.0)))
    land = kramers.landscape_on_line(surface, process, mass)
    maxima = np.array([s.position[0] for s in land.saddles]).reshape(-1)
    well = _well(land, maxima, start)
    side = 1 if barrier > start else -1
    width = AT_TOP * np.exp(land.log_tops) * process.variance(maxima) / np.sqrt(2)
    (near,) = np.nonzero(np.abs(maxima - barrier) <= np.maximum(width, 1e-12 * abs(barrier)))
    top = int(near[0]) if len(near) else None
    between = (side * maxima > side * start) & (side * maxima <= side * barrier)
    between[near] = side * maxima[near] > side * start
    if not between.any():
        sign = ">" if side > 0 else "<"
        raise UnsoundError(
            f"{WHO}: no maximum of the energy lies between start={start:.6g} and "
            f"barrier={barrier:.6g}, so nothing is escaped from. Put the barrier on or beyond the "
            f"top; for the time to any other region use predict.chain(surface, dynamics)"
            f".hitting_time('{surface.variables[0]} {sign} {barrier:.6g}', start)."
        )
    saddle = int(np.flatnonzero(between)[np.argmax(land.tops[between])])
    height = float(land.tops[saddle] - land.depths[well])
    _check_height(height)
    # The landscape is cut at the barrier: what lies beyond the last maximum on the way absorbs.
    ahead = np.flatnonzero(between)[-1 if side > 0 else 0]
    target = int(land.ends[ahead][1 if side > 0 else 0])
    notes, unit = [], _unit(dynamics)
    found = dict(exact=np.nan, monitored=np.nan, chain=np.nan)
    above = process.difference(land.saddles[saddle].position[0], barrier)
    uphill = top is None and _uphill(land, target, land.tops[saddle] + above, saddle)
    bent = not all(_quadratic(process, p) for p in (land.minima[well], land.saddles[saddle]))
    sound = not (uphill or bent)
    if uphill:
        notes.append("no Kramers: the barrier lies about as high as the top, up the next slope")
    elif bent:
        notes.append("no Kramers: minimum or top is not quadratic over a thermal width")
    if momentum_of(dynamics) == 0 and not isinstance(dynamics, Underdamped):
        xs = [m.position[0] for m in land.minima]
        outermost = side * min(side * np.array([start, *xs]))
        panels = outer_panels(process, outermost, _scale(land, process, start, barrier), -side)
        inner = np.array(
            [v for v in (*xs, *maxima) if side * outermost < side * v < side * barrier]
        )
        found = _diffusion_times(process, dynamics, [*panels, *inner], start, barrier, side)
        found["chain"] = _chain_time(surface, dynamics, panels[-1], start, barrier, notes)
    else:
        notes.append("no exact time: with momentum the position alone is no Markov process")
    return Escape(
        **found,
        kramers=_kramers(land, dynamics, well, target, top, notes) if sound else np.nan,
        barrier_height=float(land.saddles[saddle].energy - land.minima[well].energy),
        reduced_height=height,
        minimum=land.minima[well].position,
        saddle=land.saddles[saddle].position,
        unit=unit,
        regime=kramers.regime(land, dynamics, well, height, top, notes),
    )


def _diffusion(surface: Any, dynamics: Any) -> LineDiffusion:
    """The diffusion that the dynamics follows for small steps, in its own time units."""
    if not isinstance(dynamics, SGD):
        process = LineDiffusion(surface, 2 * float(dynamics.temperature))
    else:
        noise = surface.noise if not is_finite_sum(surface) else None
        scale = float(dynamics.learning_rate) / float(dynamics.batch_size)
        scale *= float(dynamics.sampling_factor(surface)) / (1 - momentum_of(dynamics))
        constant = scale * noise.sigma**2 if isinstance(noise, Isotropic) else None
        surface.noise_covariance(np.zeros((1, 1)))  # refuses where there is none
        stratonovich = getattr(noise, "convention", "ito") == "stratonovich"
        process = LineDiffusion(surface, constant, scale, stratonovich)
    return process


def _well(land: kramers.Landscape, maxima: np.ndarray, start: float) -> int:
    """The minimum of the basin that ``start`` lies in."""
    cell = np.searchsorted(maxima, start, side="right")
    low, high = np.concatenate([[-np.inf], maxima, [np.inf]])[cell : cell + 2]
    inside = [k for k, m in enumerate(land.minima) if low < m.position[0] < high]
    if len(inside) != 1 or (start in maxima):
        raise UnsoundError(
            f"{WHO}: start={start:.6g} lies in no basin of one minimum; the minima are at "
            f"{', '.join(f'{m.position[0]:.6g}' for m in land.minima)}. Start inside a well."
        )
    return inside[0]


def _quadratic(process: LineDiffusion, point: Any) -> bool:
    """Whether U is about quadratic over a thermal width of a minimum or maximum: no kink there."""
    x, curvature = point.position[0], abs(float(point.hessian[0, 0]))
    temperature = process.variance(np.array([x]))[0] / 2
    if curvature == 0:
        return False
    sides = x + np.sqrt(temperature / curvature) * np.array([-1.0, 1.0])
    rise = np.abs(process.energy(sides) - point.energy).sum() / temperature
    return bool(0.25 < rise < 4)  # 1 for a parabola


def _scale(land: kramers.Landscape, process: LineDiffusion, start: float, barrier: float) -> float:
    """A first step for the way outwards: the narrowest well's thermal width, or less."""
    variance = process.variance(np.array([m.position[0] for m in land.minima]))
    widths = np.exp(land.log_widths) * variance / np.sqrt(2)
    widths = widths[np.isfinite(widths) & (widths > 0)]
    return 0.3 * float(min([*widths, abs(barrier - start)]))


def _diffusion_times(process, dynamics, points, start, barrier, side) -> dict[str, float]:
    """``exact`` and ``monitored``, in the dynamics' time."""
    unit = 1 / float(dynamics.step_size) if isinstance(dynamics, SGD) else 1.0

    def time(end: float) -> float:
        edges = np.unique(side * np.array([*points, start, end]))
        return unit * mean_first_passage(process, side * edges[edges <= side * end], start)

    found = dict(exact=time(barrier), monitored=np.nan)
    if isinstance(dynamics, SGD) or dynamics.integrator in ("euler_maruyama", "heun"):
        amplitude = np.sqrt(process.variance(np.array([barrier]))[0] * float(dynamics.step_size))
        moved = barrier + side * MONITORING * amplitude
        # Known for a barrier in the flat; where a step feels the slope it means nothing.
        if abs(process.difference(barrier, moved)) < 0.5:
            found["monitored"] = time(moved)
    return found


def _chain_time(surface, dynamics, outermost, start, barrier, notes) -> float:
    """The mean hitting time of the discrete chain, or nan with a note."""
    rate = float(dynamics.step_size)
    if isinstance(dynamics, SGD):
        noise = getattr(surface, "noise", None)
        if is_finite_sum(surface) or not (noise.gaussian and noise.convention == "ito"):
            notes.append("no chain: its step is not Gaussian about x - eta grad L")
            return np.nan
        step, unit = Step(surface, rate, None, float(dynamics.batch_size)), 1.0
    elif dynamics.integrator == "euler_maruyama":
        step, unit = Step(surface, rate, 2 * float(dynamics.temperature) * rate), rate
    else:
        notes.append(f"no chain: it knows Euler-Maruyama, not {dynamics.integrator}")
        return np.nan
    edges = np.sort([outermost, barrier])
    inside = np.array([barrier < outermost, False, barrier > outermost])
    try:
        return unit * solved(step, edges, inside).mean([start])
    except UnsoundError as error:
        notes.append(f"no chain ({error})")
        return np.nan


# --- any dimension --------------------------------------------------------------------------------


def _in_space(surface: Any, dynamics: Any, start: np.ndarray, barrier: np.ndarray) -> Escape:
    temperature = temperature_of(WHO, surface, dynamics, None)
    masses = np.asarray(getattr(dynamics, "masses", 1.0), dtype=float)
    land = kramers.landscape(surface, temperature, masses)
    label = surface.basins().label
    well, target, top = int(label(start)), int(label(barrier)), None
    if well == kramers.OUTSIDE:
        raise UnsoundError(f"{WHO}: start={start} lies in no basin. Start inside a well.")
    for k, s in enumerate(land.saddles):
        width = np.sqrt(-temperature / np.linalg.eigvalsh(s.hessian)[0])
        if np.linalg.norm(barrier - s.position) <= AT_TOP * width:
            top = k
    if top is None and well == target:
        raise UnsoundError(
            f"{WHO}: start={start} and barrier={barrier} lie in the same basin, that of the "
            f"minimum at {land.minima[well].position}, so no saddle is crossed. Give a barrier in "
            "another basin, or a saddle's position."
        )
    if target != kramers.OUTSIDE or top is not None:
        require_confining(surface, temperature)
    saddle = land.lowest_pass(well, target) if top is None else land.pass_to_saddle(well, top)
    if saddle is None:
        raise UnsoundError(
            f"{WHO}: no way over the {len(land.saddles)} known saddles leads from start={start} to "
            f"barrier={barrier}. See surface.saddles(within=(low, high)), or simulate."
        )
    height = float(land.tops[saddle] - land.depths[well])
    _check_height(height)
    if top is None and _uphill(land, target, float(surface.energy(barrier)) / temperature, saddle):
        raise UnsoundError(
            f"{WHO}: barrier={barrier} lies about as high as the saddle, up a slope that Kramers' "
            "formula knows nothing of. Give a barrier deeper in its basin, or simulate."
        )
    for k in {well, *land.ends[saddle].tolist()} - {kramers.OUTSIDE}:
        log_determinant(WHO, k, np.asarray(land.minima[k].hessian))
    notes: list[str] = []
    notes.append("exact, chain: one dimension only")
    return Escape(
        exact=np.nan,
        monitored=np.nan,
        kramers=_kramers(land, dynamics, well, target, top, notes),
        chain=np.nan,
        barrier_height=height * temperature,
        reduced_height=height,
        minimum=land.minima[well].position,
        saddle=land.saddles[saddle].position,
        unit=_unit(dynamics),
        regime=kramers.regime(land, dynamics, well, height, top, notes),
    )


# --- both -----------------------------------------------------------------------------------------


def _unit(dynamics: Any) -> str:
    return "steps" if isinstance(dynamics, SGD) else "units of time"


def _check_height(height: float) -> None:
    if not np.isfinite(height):
        raise UnsoundError(
            f"{WHO}: between start and barrier the noise vanishes, or the energy is infinite, so "
            "nothing gets across. Give noise everywhere on the way, or another barrier."
        )
    if height > HIGHEST:
        raise UnsoundError(
            f"{WHO}: the barrier is {height:.4g} temperatures high, and exp of that exceeds every "
            "double. Raise the temperature."
        )


def _uphill(land: kramers.Landscape, target: int, psi: float, saddle: int) -> bool:
    """Whether a barrier of that psi lies up the slope of its basin, about as high as the pass."""
    bottom = land.depths[target] if target != kramers.OUTSIDE else psi
    return bool(psi - bottom > 0.5 and psi > land.tops[saddle] - 1)


def _kramers(land, dynamics, well, target, top, notes) -> float:
    """The mean time of the jump process over the minima, from ``well`` to the target."""
    if top is not None:
        target = None
    speeds = kramers.growth(dynamics, land.modes)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = land.rates(speeds)
    value = kramers.hitting_time(logs, land.ends, well, target, top)
    if not np.isfinite(value) or value <= 0:
        notes.append("no Kramers: a minimum or top on the way is flat")
        return np.nan
    return value
