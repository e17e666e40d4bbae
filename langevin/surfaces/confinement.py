"""Whether exp(-U/T) can be normalised, and the box that holds nearly all of it."""

from __future__ import annotations

import numpy as np

from langevin.errors import ParameterError, UnsoundError
from langevin.surfaces.critical_points import low_discrepancy
from langevin.surfaces.descent import descend

_FAR = 1e9  # a march longer than this many length scales is given up


def bounds(surface, temperature: float, depth: float = 30.0) -> tuple[np.ndarray, np.ndarray]:
    """Corners (low, high), each (dim,), of the box around ``U <= U_min + depth T``.

    Only points connected to a minimum below that level count. Raises UnsoundError where the surface
    is not confining at this temperature, ParameterError for values that are not positive.
    """
    for name, value in (("temperature", temperature), ("depth", depth)):
        if not (np.ndim(value) == 0 and np.isfinite(value) and value > 0):
            raise ParameterError(f"bounds({name}={value!r}): needs one positive, finite number.")
    require_confining(surface, temperature)
    energies = [m.energy for m in surface.minima()]
    return level_box(surface, min(energies) + depth * temperature)


def require_confining(surface, temperature: float) -> None:
    """Raises UnsoundError unless U outgrows ``dim T log|x|`` far out, as sampling can tell."""
    growth = _growth(surface)
    if growth is None:
        growth = _sampled_growth(surface)
    if not growth > surface.dim * temperature:
        name = getattr(surface, "name", type(surface).__name__)
        if growth > 0:
            what = f"far out it grows only like {growth:.3g} log|x|"
            remedy = f"Lower the temperature below {growth / surface.dim:.3g}, or add"
        else:
            what, remedy = "far out it does not grow in every direction", "Add"
        raise UnsoundError(
            f"the surface {name!r} does not confine at temperature {temperature:g}: {what}, so "
            f"exp(-U/T) has no finite integral and there is no stationary density. {remedy} a "
            "confining term such as 0.01*x**4."
        )


def _growth(surface) -> float | None:
    """The exact answer where there is one: +inf or -inf for a polynomial or a quadratic."""
    if surface.hessian_is_constant:
        lowest = np.linalg.eigvalsh(surface.hessian(np.zeros(surface.dim)))[0]
        return np.inf if lowest > 0 else -np.inf
    polynomial = getattr(surface, "gradient_polynomial", lambda: None)()
    if polynomial is None:
        return None
    confining = polynomial.degree() % 2 == 1 and polynomial.LC() > 0
    return np.inf if confining else -np.inf


def _sampled_growth(surface) -> float:
    """The smallest slope of U against log|x| over the last three of six decades of radius."""
    positions = np.array([m.position for m in surface.minima()])
    centre = positions.mean(axis=0)
    scale = max(1.0, np.abs(positions - centre).max())
    lowest = [_lowest_on_shell(surface, centre, scale * 10.0**k) for k in range(2, 8)]
    if lowest[-1] == np.inf:
        return np.inf
    with np.errstate(invalid="ignore"):
        slopes = np.diff(lowest[-4:]) / np.log(10)
    return float(np.min(slopes)) if np.isfinite(slopes).all() else -np.inf


def _lowest_on_shell(surface, centre: np.ndarray, radius: float) -> float:
    """The smallest energy found at distances from ``radius`` to twice that; undefined is +inf."""
    u = _unit_directions(surface.dim)
    radii = radius * np.geomspace(1, 2, 97 if surface.dim == 1 else 7)

    def energy(directions, r):
        values = surface.energy(centre + r * directions)
        return np.where(np.isnan(values), np.inf, values)

    if surface.dim == 1:
        return float(min(energy(u, r).min() for r in radii))
    values = energy(u, radius)
    angle = np.full((len(u), 1), 0.3)
    for _ in range(80):  # slide along the sphere into its valleys
        g = np.nan_to_num(surface.gradient(centre + radius * u), posinf=1e300, neginf=-1e300)
        g /= np.abs(g).max(axis=1, keepdims=True) + 1e-300
        g -= (g * u).sum(1, keepdims=True) * u
        g /= np.linalg.norm(g, axis=1, keepdims=True) + 1e-300
        trial = u - angle * g
        trial /= np.linalg.norm(trial, axis=1, keepdims=True)
        new = energy(trial, radius)
        better = new < values
        u[better], values[better] = trial[better], new[better]
        angle *= np.where(better, 1.5, 0.4)[:, None]
        angle = np.clip(angle, 1e-16, 0.3)
    return float(min(energy(u, r).min() for r in radii))


def _unit_directions(dim: int) -> np.ndarray:
    if dim == 1:
        return np.array([[-1.0], [1.0]])
    parts = [np.eye(dim), -np.eye(dim), 2 * low_discrepancy(64, dim) - 1]
    if dim <= 4:
        signs = np.indices((3,) * dim).reshape(dim, -1).T - 1.0
        parts.append(signs[np.abs(signs).sum(1) > 1])
    u = np.concatenate(parts)
    return u / np.linalg.norm(u, axis=1, keepdims=True)


def level_box(surface, level: float) -> tuple[np.ndarray, np.ndarray]:
    """The box around all points with ``U <= level`` connected to a minimum.

    Coordinate by coordinate: one coordinate marches outwards from each minimum, the others relax to
    the lowest energy, until that exceeds the level. Exact in one dimension.
    """
    minima = [m for m in surface.minima() if m.energy < level]
    if not minima:
        minima = [min(surface.minima(), key=lambda m: m.energy)]
    minima = _outermost(minima)
    dim = surface.dim
    n = len(minima)
    positions = np.array([m.position for m in minima])
    hessians = np.array([m.hessian for m in minima])
    rise = level - np.array([m.energy for m in minima])
    curvature = np.maximum(np.nan_to_num(np.abs(hessians), nan=1.0).max((1, 2)), 1e-12)
    scale = np.sqrt(2 * np.maximum(rise, 1e-12) / curvature)

    which = np.repeat(np.arange(n), 2 * dim)
    axis = np.tile(np.repeat(np.arange(dim), 2), n)
    side = np.tile([-1.0, 1.0], n * dim)
    inside = positions[which].copy()
    outside = _march(surface, level, inside, axis, side, scale[which])
    for _ in range(60 if dim == 1 else 25):
        middle = _relaxed(surface, inside, axis, (inside + outside)[np.arange(len(axis)), axis] / 2)
        below = surface.energy(middle) <= level
        inside[below], outside[~below] = middle[below], middle[~below]
    reach = outside[np.arange(len(axis)), axis].reshape(n, dim, 2)
    return reach[:, :, 0].min(axis=0), reach[:, :, 1].max(axis=0)


def _outermost(minima: list) -> list:
    """At most some forty minima: the outermost along each axis and the lowest."""
    if len(minima) <= 40:
        return minima
    chosen = set(np.argsort([m.energy for m in minima])[:24].tolist())
    positions = np.array([m.position for m in minima])
    chosen |= set(positions.argmin(axis=0).tolist()) | set(positions.argmax(axis=0).tolist())
    return [minima[i] for i in sorted(chosen)]


def _relaxed(surface, points: np.ndarray, axis: np.ndarray, value: np.ndarray) -> np.ndarray:
    """The points with one coordinate set to ``value`` and the others relaxed downhill."""
    points = points.copy()
    rows = np.arange(len(points))
    points[rows, axis] = value
    if points.shape[1] == 1:
        return points
    frozen = np.zeros(points.shape, bool)
    frozen[rows, axis] = True
    width = np.full(points.shape[1], 1 + np.ptp(points, axis=0).max())
    return descend(surface, points, width, frozen, iterations=25)


def _march(surface, level, inside, axis, side, scale) -> np.ndarray:
    """Points just outside the level; ``inside`` is moved up to the last step within it."""
    outside = inside.copy()
    active = np.arange(len(axis))
    step = 0.05 * scale
    while len(active):
        here = inside[active]
        value = here[np.arange(len(active)), axis[active]] + side[active] * step[active]
        trial = _relaxed(surface, here, axis[active], value)
        below = surface.energy(trial) <= level
        inside[active[below]] = trial[below]
        outside[active[~below]] = trial[~below]
        step[active] *= 1.15
        active = active[below]
        if len(active) and step[active].max() > _FAR * max(1.0, scale.max()):
            raise UnsoundError(
                f"the surface {getattr(surface, 'name', 'given')!r} stays below its level for "
                "longer than can be followed: it does not confine. Add a term such as 0.01*x**4."
            )
    return outside
