"""Checks of arguments, shared by everything that takes numbers from a user."""

from __future__ import annotations

import numbers
from typing import Any

import numpy as np

from langevin.errors import ParameterError


def real_number(value: Any) -> bool:
    """Whether value is one real number (not a bool, not text)."""
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    return isinstance(value, numbers.Real) and not isinstance(value, (bool, np.bool_))


def on_host(value: Any) -> Any:
    """A GPU's array as a NumPy array, copied; anything else as it is."""
    return value.get() if hasattr(value, "__cuda_array_interface__") else value


def real_array(name: str, value: Any, needed: str) -> np.ndarray:
    """``value`` as float64, or ParameterError: ``name`` says what was given, ``needed`` what is."""
    try:
        array = np.asarray(on_host(value))
        if array.dtype.kind not in "iuf":
            raise TypeError
    except (TypeError, ValueError):
        shown = repr(value)
        shown = shown if len(shown) <= 80 else shown[:77] + "..."
        raise ParameterError(f"{name}={shown}: {needed}.") from None
    return array.astype(float)


def whole_number(name: str, value: Any, low: int, high: int) -> int:
    """``value`` as an int between low and high, or ParameterError."""
    if not (real_number(value) and np.isfinite(float(value)) and float(value).is_integer()):
        raise ParameterError(f"{name}={value!r} must be a whole number.")
    if not low <= int(value) <= high:
        raise ParameterError(f"{name}={value!r} must be between {low:,} and {high:,}.")
    return int(value)


def one_of(name: str, value: Any, allowed: tuple[str, ...]) -> str:
    """``value`` if it is one of ``allowed``, or ParameterError."""
    if not (isinstance(value, str) and value in allowed):
        raise ParameterError(f"{name}={value!r}: choose one of {', '.join(allowed)}.")
    return value


def per_replica(owner: str, name: str, value: Any, *, low: float, closed: bool = False) -> None:
    """Checks that ``value``, a number or one per replica, is finite and above ``low``."""
    values = real_array(
        f"{owner}: {name}", value, "needs a number, or an array with one number per replica"
    )
    if values.ndim > 1 or values.size == 0:
        raise ParameterError(
            f"{owner}({name}=...): shape {values.shape} given; needs a number or (n_replicas,)."
        )
    good = np.isfinite(values) & ((values >= low) if closed else (values > low))
    if not good.all():
        bad = values[~good].flat[0]
        raise ParameterError(
            f"{owner}({name}={bad!r}): must be finite and {'>=' if closed else '>'} {low:g}."
        )


def frozen(value: Any) -> Any:
    """Arrays become read-only copies, so that what holds them stays as it was checked."""
    if np.ndim(value) == 0:
        return value
    copy = np.array(value, dtype=float)
    copy.setflags(write=False)
    return copy
