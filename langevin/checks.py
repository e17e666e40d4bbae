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


def real_array(name: str, value: Any, needed: str) -> np.ndarray:
    """``value`` as float64, or ParameterError: ``name`` says what was given, ``needed`` what is."""
    try:
        array = np.asarray(value)
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
