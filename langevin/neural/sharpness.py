"""Sharpness of a minimum: Keskar et al. (2017), definition 2.1, and boxes that ignore rescaling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize

from langevin.checks import one_of, real_number, whole_number
from langevin.errors import ParameterError
from langevin.neural import probes as random
from langevin.neural.curvature import layer_scales
from langevin.neural.derivatives import Derivatives

BOXES = ("keskar", "relative", "layer")


@dataclass(frozen=True, eq=False)
class Sharpness:
    """``value = 100 (max f - f(x))/(1 + f(x))`` over a box, and how well it was maximised.

    Whatever the iterations, ``value`` is a lower bound of the maximum: the best point found is
    ``point``, its coordinates in units of the box's half-widths, -1..1. ``values`` are those of
    each start; ``converged`` says whether the best one's projected gradient is below the tolerance,
    and ``remaining``, to first order, by how much the value could still rise: 0 at a corner that
    the gradient points to. ``evaluations`` of loss and gradient, on all data each.
    """

    value: float
    loss: float
    epsilon: float
    box: str
    point: np.ndarray
    values: np.ndarray
    remaining: float
    converged: bool
    iterations: int
    evaluations: int

    @property
    def spread(self) -> float:
        """Largest less smallest value of the starts: NaN with one."""
        return float(np.ptp(self.values)) if len(self.values) > 1 else float("nan")

    def __repr__(self) -> str:
        state = "converged" if self.converged else f"{self.remaining:.2g} more to first order"
        return (
            f"Sharpness({self.value:.5g}, epsilon={self.epsilon:g}, box={self.box!r}, "
            f"{len(self.values)} starts, {self.iterations} iterations: {state})"
        )


def sharpness(
    surface: Any,
    at: Any = None,
    *,
    epsilon: float = 1e-3,
    subspace: int | np.ndarray | None = None,
    box: str = "keskar",
    iterations: int = 10,
    starts: int = 1,
    dtype: str = "float64",
    seed: int = 0,
) -> Sharpness:
    """Keskar's phi: how far the loss rises in a small box around ``at``, in per cent of 1 + loss.

    The box is ``|y_i| <= epsilon (|(A^+ x)_i| + 1)`` around ``x + A y``. ``subspace=None``: A is
    the identity, the full space; a number p: a random (dim, p) matrix with normal columns of length
    1 (the paper has p = 100 and does not say how columns are scaled); or a matrix of your own.
    ``box="relative"`` has half-widths ``epsilon |x_i|``, "layer" ``epsilon`` times the root mean
    square of the parameter's own tensor: neither changes under the rescalings of a ReLU network
    that leave its function alone (Dinh et al. 2017), to which phi itself is not invariant. Both are
    of the full space.

    Maximised by L-BFGS-B with exact gradients on all data, in units of the half-widths, for
    ``iterations`` (the paper: 10) from each of ``starts``: the first within a hundredth of the
    centre, for at a minimum the gradient is 0 and an ascent from x itself would not begin; the
    others anywhere in the box. Raises ParameterError.
    """
    one_of("box", box, BOXES)
    iterations = whole_number("iterations", iterations, 1, 10**6)
    starts = whole_number("starts", starts, 1, 10**5)
    if not (real_number(epsilon) and 0 < epsilon < np.inf):
        raise ParameterError(f"epsilon={epsilon!r}: needs a number above 0.")
    own = Derivatives(surface, at, dtype)
    x = own.array(own.theta)
    A = _directions(subspace, surface.dim, seed)
    if A is not None and box != "keskar":
        raise ParameterError(f"box={box!r} is of the full space: leave subspace=None.")
    half = epsilon * _widths(surface, x, A, box)
    centre, slope = own.value_and_gradient()

    def turned(gradient):  # by the half-widths' units
        g = own.array(gradient)
        return half * (g if A is None else A.T @ g)

    scale = max(float(np.abs(turned(slope)).sum()), 1e-3 * epsilon)

    def fall(u):
        step = half * u if A is None else A @ (half * u)
        value, gradient = own.value_and_gradient(own.theta + own.tensor(step))
        return -(value - centre) / scale, -turned(gradient) / scale

    found = []
    for k in range(starts):
        begin = 2 * random.uniforms(seed, k, len(half)) - 1
        found.append(_ascend(fall, begin if k else 0.01 * begin, iterations))
    best = min(found, key=lambda each: each.fun)
    rise = max(0.0, -best.fun * scale)
    point, uphill = best.x, -best.jac * scale
    room = np.where(uphill > 0, 1 - point, -1 - point)  # to the wall that the gradient points to
    remaining = float(uphill @ room)
    per_cent = 100 / (1 + centre)
    return Sharpness(
        per_cent * rise,
        centre,
        float(epsilon),
        box,
        point,
        np.array([-each.fun * scale for each in found]) * per_cent,
        remaining * per_cent,
        bool(remaining <= 1e-6 * max(rise, 1e-300)),
        int(best.nit),
        sum(int(each.nfev) for each in found) + 1,
    )


def _ascend(fall, begin, iterations):
    """L-BFGS-B in the box -1..1; only the number of iterations or a zero gradient ends it."""
    options = {"maxiter": iterations, "maxfun": 20 * iterations, "ftol": 0.0, "gtol": 1e-9}
    bounds = np.tile([-1.0, 1.0], (len(begin), 1))
    return minimize(fall, begin, jac=True, method="L-BFGS-B", bounds=bounds, options=options)


def _directions(subspace: Any, dim: int, seed: int) -> np.ndarray | None:
    if subspace is None:
        return None
    if np.ndim(subspace) == 2:
        A = np.asarray(subspace, dtype=float)
        if A.shape[0] != dim or not np.isfinite(A).all():
            raise ParameterError(f"subspace: a matrix {A.shape} given; needed: finite, ({dim}, p).")
        return A
    p = whole_number("subspace", subspace, 1, dim)
    A = np.stack([random.normals(seed, j, dim) for j in range(p)], axis=1)
    return A / np.linalg.norm(A, axis=0)


def _widths(surface: Any, x: np.ndarray, A: np.ndarray | None, box: str) -> np.ndarray:
    if A is not None:
        return np.abs(np.linalg.lstsq(A, x, rcond=None)[0]) + 1
    if box == "keskar":
        return np.abs(x) + 1
    if box == "relative":
        return np.abs(x)
    return layer_scales(surface, x)
