"""Newton searches from many starts at once: downhill to minima, or to saddles of index 1."""

from __future__ import annotations

import numpy as np

_CLOSE = 1e-11  # a Newton step this small, relative to the box, has converged


def _modified_step(surface, x, frozen=None):
    """Eigenvalues, eigenvectors and the gradient along them, at the points x (n, dim)."""
    gradient = surface.gradient(x)
    hessian = surface.hessian(x)
    if frozen is not None:
        gradient = np.where(frozen, 0.0, gradient)
        hessian = np.where(frozen[:, :, None] | frozen[:, None, :], 0.0, hessian)
        hessian += np.where(frozen, 1.0, 0.0)[:, :, None] * np.eye(x.shape[1])
    bad = ~(np.isfinite(hessian).all((1, 2)) & np.isfinite(gradient).all(1))
    hessian[bad], gradient[bad] = np.eye(x.shape[1]), 0.0
    values, vectors = np.linalg.eigh(hessian)
    sizes = np.abs(values)
    sizes = np.maximum(sizes, 1e-10 * sizes.max(axis=1, keepdims=True) + 1e-300)
    return values, vectors, np.einsum("nij,ni->nj", vectors, gradient), sizes, bad


def _clipped(step: np.ndarray, width: np.ndarray, radius) -> np.ndarray:
    """The step shortened to at most ``radius`` box widths in any coordinate."""
    length = np.abs(step / width).max(axis=1, keepdims=True)
    return step * np.minimum(1.0, radius / np.maximum(length, 1e-300))


def descend(
    surface,
    starts: np.ndarray,
    width: np.ndarray,
    frozen: np.ndarray | None = None,
    iterations: int = 120,
) -> np.ndarray:
    """Ends of a downhill search from ``starts`` (n, dim), in their order where they are finite.

    Newton's step with the curvatures' absolute values, inside a trust radius. Coordinates marked in
    ``frozen`` (n, dim) stay where they are. Starts with undefined energy are dropped, unless
    ``frozen`` is given.
    """
    x = np.array(starts, float)
    energy = surface.energy(x)
    if frozen is None:
        x, energy = x[np.isfinite(energy)], energy[np.isfinite(energy)]
    radius = np.full((len(x), 1), 0.05)
    active = np.arange(len(x))
    for _ in range(iterations):
        if not len(active):
            break
        here = x[active]
        some = None if frozen is None else frozen[active]
        _, vectors, slopes, sizes, bad = _modified_step(surface, here, some)
        newton = -np.einsum("nij,nj->ni", vectors, slopes / sizes)
        trial = here + _clipped(newton, width, radius[active])
        new = surface.energy(trial)
        allowance = 1e-14 * (1 + np.abs(energy[active]))
        better = new <= energy[active] + allowance
        moved = active[better]
        x[moved], energy[moved] = trial[better], new[better]
        radius[active] *= np.where(better, 2.0, 0.25)[:, None]
        radius = np.minimum(radius, 0.05)
        small = np.abs(newton / width).max(axis=1) < _CLOSE
        done = small | bad | (radius[active, 0] < 1e-14)
        active = active[~done]
    return x


def climb(surface, starts: np.ndarray, width: np.ndarray, iterations: int = 120) -> np.ndarray:
    """Saddles of index 1 reached from ``starts``: uphill along the softest mode, else downhill.

    Only converged points with exactly one negative curvature are returned.
    """
    x = np.array(starts[np.isfinite(surface.energy(starts))], float)
    ends = []
    for _ in range(iterations):
        if not len(x):
            break
        values, vectors, slopes, sizes, bad = _modified_step(surface, x)
        move = -slopes / sizes
        move[:, 0] *= -1
        step = np.einsum("nij,nj->ni", vectors, move)
        small = np.abs(step / width).max(axis=1) < _CLOSE
        tiny = 1e-7 * np.abs(values).max(axis=1)
        index_one = (values[:, 0] < -tiny) & (values[:, 1] > tiny)
        ends.append(x[small & index_one & ~bad])
        x = x + _clipped(step, width, 0.02)
        x = x[~(small | bad)]
    return np.concatenate(ends) if ends else np.empty((0, len(width)))
