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
METHODS = ("lbfgsb", "ascent")


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
    method: str = "lbfgsb",
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

    Maximised with exact gradients on all data, in units of the half-widths, for ``iterations`` (the
    paper: 10) from each of ``starts``: the first within a hundredth of the centre, for at a minimum
    the gradient is 0 and an ascent from x itself would not begin; the others anywhere in the box.
    ``method="lbfgsb"`` is L-BFGS-B, as the paper has it; the loss is scaled so that components of
    the first gradient are 1 on average, for the length of L-BFGS-B's first step is the gradient's,
    and far below the box's size ten iterations would get nowhere. SciPy loops over the bounds in
    Python, which is felt from a million parameters on; "ascent", projected steps along the gradient
    that lengthen while the loss rises, has no such loop and comes as far. Raises ParameterError.
    """
    one_of("box", box, BOXES)
    one_of("method", method, METHODS)
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
    centre = own.value_and_gradient()[0]

    def rise(u):  # and its slope in units of the half-widths
        step = half * u if A is None else A @ (half * u)
        value, gradient = own.value_and_gradient(own.theta + own.tensor(step))
        g = own.array(gradient)
        return value - centre, half * (g if A is None else A.T @ g)

    found = []
    for k in range(starts):
        begin = 2 * random.uniforms(seed, k, len(half)) - 1
        climb = _lbfgsb if method == "lbfgsb" else _ascend
        found.append(climb(rise, begin if k else 0.01 * begin, iterations))
    best = max(found, key=lambda each: each.rise)
    value = max(0.0, best.rise)
    # to the wall that the gradient points to
    remaining = float(best.slope @ _room(best.point, best.slope))
    per_cent = 100 / (1 + centre)
    return Sharpness(
        per_cent * value,
        centre,
        float(epsilon),
        box,
        best.point,
        np.array([each.rise for each in found]) * per_cent,
        remaining * per_cent,
        bool(remaining <= 1e-6 * max(value, 1e-300)),
        best.iterations,
        sum(each.evaluations for each in found) + 1,
    )


@dataclass(frozen=True)
class _Top:
    """The highest point that an ascent found, the rise and its slope there."""

    point: np.ndarray
    rise: float
    slope: np.ndarray
    iterations: int
    evaluations: int


def _lbfgsb(rise, begin, iterations) -> _Top:
    """L-BFGS-B in the box -1..1; only the number of iterations or a zero gradient ends it."""
    first = rise(begin)
    scale = float(np.abs(first[1]).mean()) or 1.0

    def fall(u):
        value, slope = first if u is begin or np.array_equal(u, begin) else rise(u)
        return -value / scale, -slope / scale

    options = {"maxiter": iterations, "maxfun": 20 * iterations, "ftol": 0.0, "gtol": 1e-9}
    bounds = np.tile([-1.0, 1.0], (len(begin), 1))
    end = minimize(fall, begin, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    return _Top(end.x, -end.fun * scale, -end.jac * scale, int(end.nit), int(end.nfev))


def _ascend(rise, begin, iterations) -> _Top:
    """Projected gradient ascent in the box -1..1: one evaluation an iteration, none of them lost.

    The step doubles where the loss rises, and is an eighth where it does not.
    """
    point, (value, slope) = begin, rise(begin)
    length, taken = 4.0, 0  # in mean components of the gradient
    while taken < iterations and _room(point, slope).any():
        taken += 1
        there = np.clip(point + length / np.abs(slope).mean() * slope, -1, 1)
        found = rise(there)
        if found[0] > value:
            point, (value, slope), length = there, found, 2 * length
        else:
            length /= 8
    return _Top(point, float(value), slope, taken, taken + 1)


def _room(point, slope) -> np.ndarray:
    """How far each coordinate may still move the way that the slope points."""
    return np.where(slope > 0, 1 - point, np.where(slope < 0, -1 - point, 0.0))


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
