"""What every prediction checks first: one temperature, one minimum list, well-formed points."""

from __future__ import annotations

from dataclasses import fields
from functools import lru_cache
from typing import Any

import numpy as np

from langevin.checks import real_array, real_number
from langevin.dynamics import SGD, Overdamped, Underdamped
from langevin.errors import ParameterError, UnsoundError


def check_surface(who: str, surface: Any) -> None:
    """Refuse what is no surface; raises ParameterError."""
    if not (hasattr(surface, "minima") and hasattr(surface, "hessian_is_constant")):
        raise ParameterError(
            f"{who}(surface={surface!r}): give a langevin.Surface, such as "
            'Surface("x**4/4 - x**2/2"), or a FiniteSum.'
        )


def single_valued(
    who: str, dynamics: Any, names: tuple[str, ...] | None = None, *, batches: bool = False
) -> None:
    """Refuse what is no dynamics, or whose parameters are arrays, one value per replica.

    ``names`` limits the check to those fields; ``batches`` says that the prediction knows Langevin
    dynamics with mini-batches. Raises ParameterError naming the field, and UnsoundError.
    """
    if not isinstance(dynamics, (SGD, Overdamped, Underdamped)):
        raise ParameterError(f"{who}(dynamics={dynamics!r}): give SGD, Overdamped or Underdamped.")
    if getattr(dynamics, "is_scheduled", False):
        raise UnsoundError(
            f"{who}: this SGD follows a schedule, so it has no stationary law. Predict that of one "
            "step: dynamics.at(step)."
        )
    mixed = not isinstance(dynamics, SGD) and dynamics.batch_size is not None
    if mixed and not batches:
        raise UnsoundError(
            f"{who}: does not know the noise that mini-batches add to {type(dynamics).__name__}. "
            "Leave batch_size out for the law of the full gradient, which mini-batches are meant "
            "to approximate, or use predict.quadratic (least squares), or simulate."
        )
    if getattr(dynamics, "clip_norm", None) is not None:
        raise UnsoundError(
            f"{who}: knows the law of gradients as they are, not of clipped ones. Leave clip_norm "
            "out, or simulate."
        )
    for field in fields(dynamics):
        value = getattr(dynamics, field.name)
        if field.name == "masses":  # one per coordinate: the law of x does not depend on them
            continue
        if (names is None or field.name in names) and np.ndim(value) > 0:
            raise ParameterError(
                f"{who}: {type(dynamics).__name__}.{field.name} holds {np.size(value)} values, one "
                "per replica; a prediction needs one value. Build one dynamics per group and "
                "predict each."
            )


def temperature_of(who: str, surface: Any, dynamics: Any, temperature: float | None) -> float:
    """The temperature T of ``exp(-L/T)``: the one given, else that of ``dynamics`` on ``surface``.

    For SGD ``T = eta sigma**2 / (2 S (1 - m))``. Raises ParameterError for neither or a value out
    of range, UnsoundError where the dynamics has no single temperature or it is zero.
    """
    if temperature is None:
        if dynamics is None:
            raise ParameterError(f"{who}(surface): give a dynamics, or temperature=.")
        single_valued(who, dynamics)
        penalised(who, dynamics)
        value = float(dynamics.effective_temperature(surface))
        if value <= 0:
            raise UnsoundError(
                f"{who}: the temperature of {dynamics!r} is {value:g}: without noise the law is a "
                "point, not a density. Give noise with sigma > 0, or a positive temperature=."
            )
        return value
    return positive(f"{who}(temperature", temperature)


def positive(name: str, value: Any) -> float:
    """``value`` as a float, finite and above 0, or ParameterError; ``name`` such as "at(t"."""
    if not (real_number(value) and np.isfinite(float(value)) and value > 0):
        raise ParameterError(f"{name}={value!r}): needs one finite number above 0.")
    return float(value)


def at_least_one(name: str, value: Any) -> float:
    """``value`` as a float, finite and at least 1, or ParameterError; ``name`` as in `positive`."""
    if not (real_number(value) and 1 <= float(value) < np.inf):
        raise ParameterError(f"{name}={value!r}): needs a number, at least 1.")
    return float(value)


def penalised(who: str, dynamics: Any) -> None:
    """Refuses a weight decay: it changes the loss, of which the surface knows nothing."""
    if np.any(np.asarray(getattr(dynamics, "weight_decay", 0.0)) > 0):
        raise UnsoundError(
            f"{who}: weight_decay={dynamics.weight_decay!r} descends the loss plus "
            "weight_decay*|x|**2/2. Put that term into the surface's formula (or l2= of a "
            "FiniteSum) and leave weight_decay=0: the dynamics is the same, and this law is then "
            "that of the loss descended."
        )


def has_discrete_step(dynamics: Any) -> bool:
    """Whether predict.chain knows the step: that of SGD or Euler-Maruyama."""
    return isinstance(dynamics, SGD) or getattr(dynamics, "integrator", "") == "euler_maruyama"


def discrete_step(who: str, dynamics: Any) -> None:
    """Refuses a dynamics whose discrete step is not SGD's or Euler-Maruyama's."""
    if has_discrete_step(dynamics):
        return
    raise UnsoundError(
        f"{who}: knows the step of SGD and of Overdamped with integrator='euler_maruyama', not of "
        f"{dynamics!r}. Use predict.quadratic (exact, quadratic surfaces), "
        "predict.boltzmann_gibbs for small steps, or simulate."
    )


def momentum_of(dynamics: Any) -> float:
    """The momentum of SGD, 0 for every dynamics that has none."""
    return float(dynamics.momentum) if isinstance(dynamics, SGD) else 0.0


def is_finite_sum(surface: Any) -> bool:
    """Whether the gradient of SGD here is that of a real mini-batch, not Gaussian."""
    return hasattr(surface, "example_gradients")


def find_minima(who: str, surface: Any) -> tuple:
    """``surface.minima()``, refused when empty."""
    minima = tuple(surface.minima())
    if not minima:
        raise UnsoundError(
            f"{who}: no minimum of {getattr(surface, 'name', 'the surface')!r} was found. "
            "Check the formula and its parameters, or widen surface.minima(within=(low, high))."
        )
    return minima


def check_index(i: int, n: int) -> int:
    """A minimum's index as an int in ``0 .. n-1``; raises ParameterError otherwise."""
    if not isinstance(i, (int, np.integer)) or isinstance(i, bool) or not 0 <= i < n:
        raise ParameterError(
            f"minimum {i!r}: this surface has {n} minima, numbered 0 to {n - 1} as in "
            "surface.minima()."
        )
    return int(i)


def check_points(points: Any, dim: int) -> np.ndarray:
    """``points`` as float64 of shape (..., dim); raises ParameterError otherwise."""
    needed = f"needs numbers of shape (..., {dim})"
    points = real_array("points", points, needed)
    if points.ndim == 0 or points.shape[-1] != dim:
        raise ParameterError(
            f"points of shape {points.shape}: needs (..., {dim}), the last axis being the "
            f"{dim} coordinate{'s' if dim > 1 else ''}"
            + (", as in grid[:, None]." if dim == 1 else ".")
        )
    return points


def check_line(x: Any) -> np.ndarray:
    """The argument of a cdf as float64, any shape; raises ParameterError otherwise."""
    x = real_array("cdf(x)", x, "needs numbers, of any shape")
    if np.isnan(x).any():
        raise ParameterError("cdf(x): nan given; needs numbers, infinite ones included.")
    return x


def check_edges(edges: Any) -> np.ndarray:
    """Bin edges as float64 (b+1,), strictly increasing; infinite ends are allowed."""
    try:
        edges = np.asarray(edges, dtype=float)
    except (TypeError, ValueError):
        raise ParameterError("bin edges: needs one increasing array of numbers.") from None
    if edges.ndim != 1 or len(edges) < 2 or not (edges[1:] > edges[:-1]).all():
        raise ParameterError(
            f"bin edges of shape {edges.shape}: needs at least two strictly increasing numbers, "
            "one array per axis."
        )
    return edges


def check_edge_pair(edges: Any) -> tuple[np.ndarray, np.ndarray]:
    """A pair of edge arrays, one per axis; raises ParameterError otherwise."""
    try:
        first, second = edges
    except (TypeError, ValueError):
        raise ParameterError("bin edges in 2-D: needs a pair (x_edges, y_edges).") from None
    return check_edges(first), check_edges(second)


@lru_cache(maxsize=32)
def gauss_legendre(order: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of Gauss-Legendre quadrature on [0, 1]."""
    x, w = np.polynomial.legendre.leggauss(order)
    return (x + 1) / 2, w / 2


def normal_interval(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """``Phi(b) - Phi(a)`` for a <= b without cancellation in either tail."""
    from scipy.special import ndtr

    flip = a > 0
    low, high = np.where(flip, -b, a), np.where(flip, -a, b)
    return ndtr(high) - ndtr(low)
