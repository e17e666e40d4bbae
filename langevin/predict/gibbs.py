"""The Boltzmann-Gibbs law exp(-L/T), by quadrature or in closed form."""

from __future__ import annotations

from typing import Any

import numpy as np

from langevin.errors import UnsoundError
from langevin.predict.common import check_surface, find_minima, momentum_of, temperature_of
from langevin.predict.gaussian import GaussianMixture
from langevin.predict.laplace import log_determinant
from langevin.predict.line import GibbsLine, integrate_line
from langevin.predict.plane import GibbsPlane, integrate_plane

WHO = "predict.boltzmann_gibbs"
DEPTH = 45.0  # T: the mass beyond the box is about exp(-45) of the deepest well's


def boltzmann_gibbs(
    surface: Any, dynamics: Any = None, *, temperature: float | None = None
) -> GibbsLine | GibbsPlane | GaussianMixture:
    """The stationary law of the continuum limit, ``p = exp(-L/T)/Z``.

    ``T`` is ``dynamics.effective_temperature(surface)`` (for SGD ``eta sigma**2/(2 S (1-m))``)
    unless ``temperature=`` is given. One and two dimensions by quadrature, over the same basins
    that a simulation counts; a quadratic surface of any dimension in closed form. It is exact as
    the step goes to 0, and off by O(step) otherwise: ``predict.chain`` has no such error.

    Raises UnsoundError above two dimensions, for noise without one temperature, and where
    exp(-L/T) is not normalisable. Source: Jastrzebski et al. 2017, Theorem 1, Eq. 2.
    """
    check_surface(WHO, surface)
    T = temperature_of(WHO, surface, dynamics, temperature)
    regime = f"small step, isotropic noise (T = {T:.6g}); the error is first order in the step"
    if momentum_of(dynamics) > 0:
        regime += ", with momentum through T = eta sigma^2/(2 S (1 - m))"
    if surface.hessian_is_constant:
        return _closed_form(surface, T, regime)
    if surface.dim > 2:
        raise UnsoundError(
            f"{WHO}: quadrature covers 1-D, 2-D and quadratic surfaces; this one has "
            f"{surface.dim} dimensions. Use predict.laplace, or simulate."
        )
    minima = find_minima(WHO, surface)
    low, high = _box(surface, T, minima)
    if surface.dim == 1:
        return integrate_line(surface, T, float(low[0]), float(high[0]), minima, regime)
    return integrate_plane(surface, T, low, high, regime)


def _closed_form(surface: Any, temperature: float, regime: str) -> GaussianMixture:
    (minimum,) = find_minima(WHO, surface)[:1]
    hessian = np.asarray(minimum.hessian, dtype=float)
    log_determinant(WHO, 0, hessian)
    return GaussianMixture(
        name="Boltzmann-Gibbs",
        regime=regime,
        temperature=temperature,
        log_weights=np.zeros(1),
        means=np.asarray(minimum.position, dtype=float)[None],
        covariances=temperature * np.linalg.inv(hessian)[None],
    )


def _box(surface: Any, temperature: float, minima: tuple) -> tuple[np.ndarray, np.ndarray]:
    """A box that holds every basin's own mass, widened where its border is not deep enough."""
    spread = float(np.ptp([m.energy for m in minima])) / temperature
    low, high = surface.bounds(temperature, DEPTH + spread)
    low, high = np.array(low, dtype=float).reshape(-1), np.array(high, dtype=float).reshape(-1)
    lowest = min(m.energy for m in minima)
    along = np.linspace(0, 1, 257 if surface.dim == 2 else 1)[:, None]
    for _ in range(40):
        settled = True
        for k in range(surface.dim):
            reach = (high[k] - low[k]) / 4
            for side in (low, high):
                face = low + (high - low) * along
                face[:, k] = side[k]
                rise = surface.energy(face) - lowest
                # A negated comparison, so that NaN outside a formula's domain does not widen.
                if (rise < 0.8 * DEPTH * temperature).any():
                    side[k] += -reach if side is low else reach
                    settled = False
        if settled:
            return low, high
    raise UnsoundError(
        f"{WHO}: exp(-U/T) at temperature {temperature:g} does not decay within "
        f"[{low}, {high}]: the surface does not confine. Add a confining term such as 0.01*x**4."
    )
