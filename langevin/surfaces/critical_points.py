"""Minima and saddles of a surface."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


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
