"""Minima and saddles of a surface: exact in 1-D where polynomial, searched for elsewhere.

Everything here needs only ``dim``, ``energy``, ``gradient`` and ``hessian`` of a surface.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from langevin.errors import ParameterError, UnsoundError
from langevin.surfaces import scan
from langevin.surfaces.descent import climb, descend

MERGE = 1e-6  # of the box's width: closer stationary points are one
HALF_WIDTH = 10.0  # of the default search box, doubled until the gradient points inwards


@dataclass(frozen=True, eq=False)
class Minimum:
    """An isolated minimum: ``position`` (dim,), ``energy``, ``hessian`` (dim, dim)."""

    position: np.ndarray
    energy: float
    hessian: np.ndarray


@dataclass(frozen=True, eq=False)
class Saddle:
    """A saddle of index 1, in 1-D a maximum: ``position`` (dim,), ``energy``, ``hessian``."""

    position: np.ndarray
    energy: float
    hessian: np.ndarray


def find_minima(surface, within: tuple[Any, Any] | None = None) -> tuple[Minimum, ...]:
    """Every minimum found in the box, sorted; see `Surface.minima`.

    Raises UnsoundError when there is none or when they are not isolated, ParameterError for a
    malformed ``within``.
    """
    low, high = search_box(surface, within)
    if surface.dim == 1:
        found, flat = _minima_1d(surface, low, high, within is not None)
    elif surface.hessian_is_constant:
        found, flat = _quadratic_point(surface, low, high, within is not None)
    else:
        found, flat = _minima_nd(surface, low, high)
    if len(found):
        return tuple(_points(surface, found, high - low, Minimum))
    box = f"[{_show(low)}, {_show(high)}]"
    if within is None and (surface.hessian_is_constant or _polynomial(surface) is not None):
        box = "the whole space"
    if flat:
        raise UnsoundError(
            f"the minima of {_name(surface)} are not isolated: the surface is flat along a "
            f"valley or plateau in {box}. Add a term that decides, such as 0.01*x**2."
        )
    raise UnsoundError(
        f"no minimum of {_name(surface)} was found in {box}. If there is one elsewhere, say where: "
        "minima(within=(low, high)). If there is none, no density or basin exists."
    )


def find_saddles(surface, within: tuple[Any, Any] | None = None) -> tuple[Saddle, ...]:
    """Every saddle of index 1 found in the box (1-D: the maxima), sorted; perhaps none."""
    low, high = search_box(surface, within)
    if surface.dim == 1:
        points = scan.stationary_points(surface, low[0], high[0], within is not None)
        found = np.array([[p.x] for p in points if p.kind == "maximum"]).reshape(-1, 1)
    elif surface.hessian_is_constant:
        found = _quadratic_point(surface, low, high, within is not None, index=1)[0]
    else:
        found = _saddles_nd(surface, low, high, within)
    return tuple(_points(surface, found, high - low, Saddle))


def search_box(surface, within: tuple[Any, Any] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The box (low, high), each (dim,), in which stationary points are looked for.

    ``within`` if given, else the surface's own box, else ``[-w, w]`` with the smallest w of 10, 20,
    ... 10240 outside which every sampled gradient points inwards, else (periodic or not confining)
    w = 10. Raises ParameterError for a malformed ``within``.
    """
    dim = surface.dim
    if within is not None:
        try:
            low, high = (np.array(np.broadcast_to(np.asarray(b, float), dim)) for b in within)
        except (TypeError, ValueError):
            raise ParameterError(
                f"within={within!r}: needs (low, high), each one number or {dim} numbers."
            ) from None
        if not (np.isfinite(low).all() and np.isfinite(high).all() and (low < high).all()):
            raise ParameterError(f"within={within!r}: needs finite low < high in every coordinate.")
        return low, high
    if getattr(surface, "_box", None) is not None:
        return surface._box[0].copy(), surface._box[1].copy()
    directions = _directions(dim)
    radii = np.geomspace(1, 2, 512 if dim == 1 else 12)
    half = HALF_WIDTH
    for k in range(10, -1, -1):  # from far out inwards, to the first shell with a slope inwards
        shell = HALF_WIDTH * 2**k
        points = (radii[:, None, None] * directions * shell).reshape(-1, dim)
        with np.errstate(all="ignore"):
            outward = (surface.gradient(points) * points).sum(-1)
        if (outward <= 0).any():
            half = 2 * shell if k < 10 else HALF_WIDTH
            break
    return np.full(dim, -half), np.full(dim, half)


def low_discrepancy(n: int, dim: int) -> np.ndarray:
    """The first n points of the additive R sequence in [0, 1)^dim (Roberts 2018): deterministic."""
    root = 2.0
    for _ in range(60):  # the real root of g**(dim + 1) = g + 1
        root = (1 + root) ** (1 / (dim + 1))
    steps = (1 / root) ** np.arange(1, dim + 1)
    return (0.5 + np.arange(1, n + 1)[:, None] * steps) % 1.0


def _directions(dim: int) -> np.ndarray:
    """Points of the surface of the cube [-1, 1]^dim: axes, diagonals, and a spread of others."""
    if dim == 1:
        return np.array([[-1.0], [1.0]])
    axes = np.concatenate([np.eye(dim), -np.eye(dim)])
    spread = 2 * low_discrepancy(64 * min(dim, 8), dim) - 1
    if dim <= 4:
        spread = np.concatenate([spread, 2.0 * (np.indices((2,) * dim).reshape(dim, -1).T) - 1])
    points = np.concatenate([axes, spread])
    return points / np.abs(points).max(axis=1, keepdims=True)


def _minima_1d(surface, low, high, restricted) -> tuple[np.ndarray, bool]:
    points = scan.stationary_points(surface, low[0], high[0], restricted)
    found = np.array([[p.x] for p in points if p.kind == "minimum"]).reshape(-1, 1)
    return found, any(p.kind == "flat" for p in points)


def _quadratic_point(surface, low, high, restricted, index: int = 0) -> tuple[np.ndarray, bool]:
    """The only stationary point of a quadratic surface, if ``index`` curvatures are negative."""
    origin = np.zeros(surface.dim)
    hessian = surface.hessian(origin)
    values = np.linalg.eigvalsh(hessian)
    tiny = 1e-13 * np.abs(values).max()
    if (np.abs(values) <= tiny).any() or (values < 0).sum() != index:
        return np.empty((0, surface.dim)), bool(index == 0 and values[0] > -tiny)
    point = np.linalg.solve(hessian, -surface.gradient(origin))
    point -= np.linalg.solve(hessian, surface.gradient(point))
    inside = not restricted or bool(((point >= low) & (point <= high)).all())
    return point[None][: int(inside)], False


def _starts(low: np.ndarray, high: np.ndarray, n: int | None = None) -> np.ndarray:
    dim = len(low)
    n = n or {2: 4096, 3: 4096, 4: 2048}.get(dim, 512)
    points = np.concatenate([np.full((1, dim), 0.5), low_discrepancy(n, dim)])
    return low + points * (high - low)


def _minima_nd(surface, low, high) -> tuple[np.ndarray, bool]:
    """Multi-start descent, then verification at every distinct end point."""
    found, flat = _verified(surface, _starts(low, high), low, high)
    if surface.dim == 2 and len(found) > 256:  # many basins: look again, more densely
        found, flat = _verified(surface, _starts(low, high, 16_384), low, high)
    return found, flat


def _verified(surface, starts, low, high) -> tuple[np.ndarray, bool]:
    """The minima reached from ``starts``, and whether ends on a flat stretch were met."""
    width = high - low
    ends = _distinct(_inside(descend(surface, starts, width), low, high), width)
    if len(ends) < 1000:  # some may still be under way along a curved valley
        ends = _distinct(_inside(descend(surface, ends, width, iterations=500), low, high), width)
    hessians = surface.hessian(ends)
    usable = np.isfinite(surface.energy(ends)) & np.isfinite(hessians).all(axis=(1, 2))
    ends, hessians = ends[usable], hessians[usable]
    values, vectors = np.linalg.eigh(hessians)
    along = np.einsum("nij,ni->nj", vectors, surface.gradient(ends))
    largest = np.abs(values).max(axis=1)
    singular = (values[:, 0] <= 1e-7 * largest) | _vanishing(surface, ends, vectors, largest, width)
    with np.errstate(all="ignore"):
        step = np.abs(along / values).max(axis=1) / width.max()
    found = list(ends[~singular & (step < 1e-6)])
    doubtful = singular & (values[:, 0] >= -1e-3 * largest)
    doubtful = np.flatnonzero(doubtful)
    doubtful = doubtful[np.argsort(surface.energy(ends[doubtful]), kind="stable")]
    soft: list[np.ndarray] = []
    flat = 0
    for k in doubtful[:400]:
        if any(np.abs((ends[k] - y) / width).max() < 1e-3 for y in soft):
            continue
        kind = _soft_kind(surface, ends[k], vectors[k], width)
        if kind == "soft":
            soft.append(ends[k])
        flat += kind == "flat"
        if flat > 20:
            break
    return np.array(found + soft).reshape(-1, surface.dim), flat > 0


def _vanishing(surface, ends, vectors, largest, width) -> np.ndarray:
    """Whether a Hessian is tiny only because its point lies next to a zero of it, as in x**4."""
    away = 1e-4 * width.min() * vectors[:, :, 0]
    nearby = np.maximum(*(np.abs(surface.hessian(ends + s * away)).max((1, 2)) for s in (-1, 1)))
    return nearby > 100 * largest


def _soft_kind(surface, x: np.ndarray, vectors: np.ndarray, width: np.ndarray) -> str:
    """What a point with singular Hessian is: an isolated minimum ("soft"), "flat" or "none".

    x is displaced along the softest direction and descends again: an isolated minimum is returned
    to; in a valley the point stays away.
    """
    size = 0.01 * width.min()
    energy = surface.energy(x)
    noise = 1e-13 * (1 + abs(energy))
    if (surface.energy(x + size * np.concatenate([vectors.T, -vectors.T])) < energy - noise).any():
        return "none"
    back = descend(surface, x + size * vectors[:, 0] * np.array([[1.0], [-1.0]]), width)
    if (surface.energy(back) < energy - noise).any():
        return "none"
    returned = np.linalg.norm(back - x, axis=1).max(initial=0.0) < 0.3 * size
    return "soft" if returned else "flat"


def _saddles_nd(surface, low, high, within) -> np.ndarray:
    """Eigenvector following from everywhere and from between neighbouring minima."""
    starts = _starts(low, high)
    try:
        minima = np.array([m.position for m in surface.minima(within)])
    except UnsoundError:
        minima = np.empty((0, surface.dim))
    if 1 < len(minima) <= 64:
        i, j = np.triu_indices(len(minima), 1)
        between = [minima[i] + f * (minima[j] - minima[i]) for f in (0.3, 0.5, 0.7)]
        starts = np.concatenate([starts, *between])
    return _inside(climb(surface, starts, high - low), low, high)


def _inside(points: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    slack = MERGE * (high - low)
    return points[((points >= low - slack) & (points <= high + slack)).all(axis=1)]


def _distinct(points: np.ndarray, width: np.ndarray) -> np.ndarray:
    """The points sorted by position, those closer than the tolerance merged."""
    scaled = points / width
    if len(points) > 64:  # most starts end in few places: drop all but one in each tiny cell
        points = points[np.unique(np.round(scaled / MERGE), axis=0, return_index=True)[1]]
        scaled = points / width
    order = np.lexsort(np.round(scaled / MERGE).T[::-1])
    points, scaled = points[order], scaled[order]
    kept = np.empty_like(points)
    n = 0
    for point, position in zip(points, scaled, strict=True):
        if not n or (np.abs(kept[:n] - position).max(axis=1) > 2 * MERGE).all():
            kept[n] = position
            points[n] = point
            n += 1
    return points[:n]


def _points(surface, positions: np.ndarray, width: np.ndarray, kind: type) -> list:
    positions = _distinct(np.asarray(positions, float), width)
    energies = surface.energy(positions)
    hessians = surface.hessian(positions)
    for array in (positions, hessians):
        array.setflags(write=False)
    return [
        kind(x, float(u) + 0.0, h)
        for x, u, h in zip(positions, energies, hessians, strict=True)
        if np.isfinite(u)
    ]


def _polynomial(surface):
    return getattr(surface, "gradient_polynomial", lambda: None)()


def _name(surface) -> str:
    return repr(getattr(surface, "name", type(surface).__name__))


def _show(corner: np.ndarray) -> str:
    values = ", ".join(f"{v:g}" for v in corner)
    return values if len(corner) == 1 else f"({values})"
