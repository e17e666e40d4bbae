"""The noise above which a wider, higher minimum beats a sharper, lower one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from langevin.dynamics import SGD
from langevin.errors import ParameterError, UnsoundError
from langevin.predict.common import (
    check_index,
    check_surface,
    find_minima,
    momentum_of,
    single_valued,
)
from langevin.predict.laplace import log_determinant
from langevin.surfaces.noise import Isotropic


@dataclass(frozen=True)
class CriticalNoise:
    """The crossover of p_A/p_B in the Laplace approximation; A is ``wide``, B is ``sharp``.

    ``value`` is eta/S at which p_A = p_B, ``paper`` the figure of the paper's Eq. 4 (a factor 4
    smaller), ``temperature`` the temperature of the crossover. ``name`` and ``regime`` describe
    the approximation.
    """

    value: float
    paper: float
    temperature: float
    wide: int
    sharp: int
    name: str = "critical noise (Laplace)"
    regime: str = "small step and small temperature, where Theorem 2 holds"

    def __float__(self) -> float:
        return self.value


def critical_noise(surface: Any, dynamics: Any, i: int, j: int) -> CriticalNoise:
    """The eta/S above which the wider, higher of two minima is the more probable.

    ``n* = 2 (1-m) (L_A - L_B) / (sigma**2 ln sqrt(det H_B / det H_A))``, A the wider and higher
    of minima ``i`` and ``j`` (in either order), m the momentum; eta and S of ``dynamics`` play no
    part and may be arrays. It follows from p_A/p_B = 1 in Theorem 2. Equation 4 of Jastrzebski et
    al. 2017 prints (L_A - L_B) / (2 sigma**2 ln sqrt(det H_B / det H_A)), a factor 4 smaller,
    which does not follow from their Theorem 2 (Y, above it, carries the same factor):
    ``.paper`` holds that figure, for m = 0.

    Raises UnsoundError where there is no crossover, the noise is not isotropic, or the dynamics
    has no eta/S.
    """
    who = "predict.critical_noise"
    check_surface(who, surface)
    minima = find_minima(who, surface)
    i, j = check_index(i, len(minima)), check_index(j, len(minima))
    if i == j:
        raise ParameterError(f"{who}(i={i}, j={j}): give two different minima.")
    log_det = {k: log_determinant(who, k, np.asarray(minima[k].hessian)) for k in (i, j)}
    wide, sharp = (i, j) if log_det[i] < log_det[j] else (j, i)
    log_width = (log_det[sharp] - log_det[wide]) / 2
    rise = float(minima[wide].energy - minima[sharp].energy)
    # Determinants equal to rounding have no wider minimum: any quotient would be noise.
    if log_width <= 1e-9:
        raise UnsoundError(
            f"{who}: minima {i} and {j} are equally wide (ln sqrt(det ratio) = {log_width:.3g}), "
            "so the lower one wins at every noise: there is no crossover."
        )
    if rise <= 0:
        raise UnsoundError(
            f"{who}: minimum {wide} is the wider and also "
            f"{'the lower' if rise < 0 else 'as low'} (L_wide - L_sharp = {rise:.3g}), so it wins "
            "at every noise: there is no crossover. It exists where the wider minimum is higher."
        )
    critical = rise / log_width
    sigma, momentum = _noise(who, surface, dynamics, critical)
    return CriticalNoise(
        value=2 * (1 - momentum) * critical / sigma**2,
        paper=critical / (2 * sigma**2),
        temperature=critical,
        wide=wide,
        sharp=sharp,
    )


def _noise(who: str, surface: Any, dynamics: Any, critical: float) -> tuple[float, float]:
    if not isinstance(dynamics, SGD):
        raise UnsoundError(
            f"{who}: {type(dynamics).__name__} has no eta/S. Its crossover is at "
            f"temperature={critical:.6g}; give an SGD for the critical eta/S."
        )
    single_valued(who, dynamics, ("momentum",))
    noise = getattr(surface, "noise", None)
    if not isinstance(noise, Isotropic) or noise.sigma == 0:
        raise UnsoundError(
            f"{who}: needs isotropic gradient noise with sigma > 0, the surface has {noise!r}. "
            f"Give noise=lv.Isotropic(sigma); in temperature the crossover is at {critical:.6g}."
        )
    return float(noise.sigma), momentum_of(dynamics)
