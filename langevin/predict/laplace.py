"""The Laplace approximation of occupation: Theorem 2 of the three-factors paper."""

from __future__ import annotations

from typing import Any

import numpy as np

from langevin.errors import UnsoundError
from langevin.predict.common import check_surface, find_minima, temperature_of
from langevin.predict.gaussian import GaussianMixture


def log_determinant(who: str, index: int, hessian: np.ndarray) -> float:
    """``ln det H`` at minimum ``index``; UnsoundError unless H is positive definite."""
    eigenvalues = np.linalg.eigvalsh(hessian)
    if eigenvalues[0] <= 1e-10 * max(abs(eigenvalues[-1]), np.finfo(float).tiny):
        raise UnsoundError(
            f"{who}: the Hessian at minimum {index} has the eigenvalue {eigenvalues[0]:g}; a "
            "quadratic expansion needs every curvature positive. Use predict.boltzmann_gibbs, "
            "which integrates the whole well (1-D and 2-D), or simulate."
        )
    return float(np.log(eigenvalues).sum())


def laplace(
    surface: Any, dynamics: Any = None, *, temperature: float | None = None
) -> GaussianMixture:
    """Theorem 2: each well a Gaussian, ``p_A/p_B = sqrt(det H_B/det H_A) exp((L_B - L_A)/T)``.

    The density is the mixture ``sum_k p_k N(x_k, T H_k**-1)`` over ``surface.minima()``, in any
    dimension. ``T`` is ``dynamics.effective_temperature(surface)`` (for SGD
    ``eta sigma**2/(2 S (1-m))``) unless ``temperature=`` is given.

    Raises UnsoundError for a minimum with a flat direction, or noise without one temperature.
    Source: Jastrzebski et al. 2017, Theorem 2, Eq. 3 and the ratio below it.
    """
    check_surface("predict.laplace", surface)
    T = temperature_of("predict.laplace", surface, dynamics, temperature)
    minima = find_minima("predict.laplace", surface)
    hessians = [np.asarray(m.hessian, dtype=float) for m in minima]
    log_det = np.array([log_determinant("predict.laplace", k, h) for k, h in enumerate(hessians)])
    energies = np.array([m.energy for m in minima], dtype=float)
    return GaussianMixture(
        name="Laplace (Theorem 2)",
        regime=(
            "small step and small temperature: every well is replaced by its quadratic "
            f"expansion (T = {T:.6g})"
        ),
        temperature=T,
        log_weights=-energies / T - log_det / 2,
        means=np.array([m.position for m in minima], dtype=float),
        covariances=T * np.linalg.inv(np.array(hessians)),
    )
