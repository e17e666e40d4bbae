"""Gradient noise: the covariance C(theta) of one example's gradient, a property of the surface."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from langevin.checks import real_number
from langevin.errors import ParameterError


@dataclass(frozen=True)
class Isotropic:
    """Gradient noise of one example with covariance ``C = sigma**2 I`` everywhere.

    ``sigma`` is a standard deviation in units of the gradient. A mini-batch of S examples has
    covariance ``sigma**2 I / S``; SGD then has temperature ``eta sigma**2 / (2 S)``
    (Jastrzebski et al. 2017, Theorem 1).

    Raises ParameterError if sigma is negative, NaN or infinite.
    """

    sigma: float = 1.0

    def __post_init__(self):
        if not (real_number(self.sigma) and math.isfinite(self.sigma)):
            raise ParameterError(
                f"Isotropic(sigma={self.sigma!r}): sigma must be a finite number, "
                "the standard deviation of one example's gradient."
            )
        if self.sigma < 0:
            raise ParameterError(
                f"Isotropic(sigma={self.sigma!r}): a standard deviation cannot be negative. "
                "Give sigma >= 0; sigma=0 means exact gradients."
            )

    def covariance(self, points: np.ndarray) -> np.ndarray:
        """C at ``points`` (..., dim), shape (..., dim, dim)."""
        points = np.asarray(points, dtype=float)
        eye = np.eye(points.shape[-1]) * self.sigma**2
        return np.broadcast_to(eye, points.shape[:-1] + eye.shape).copy()
