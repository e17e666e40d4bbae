"""The stochastic differential equation that a dynamics tends to as its steps shrink."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from langevin.dynamics import SGD, Underdamped
from langevin.errors import UnsoundError
from langevin.predict.common import is_finite_sum, momentum_of, single_valued

WHO = "predict.fokker_planck"


@dataclass(frozen=True, eq=False)
class Diffusion:
    """``d theta = b dt + sqrt(2 D) dW`` (Ito), in the dynamics' own time.

    SGD, per step: ``b = -eta' grad Phi`` and ``D = eta'**2 kappa C/(2 S)`` with
    ``eta' = eta/(1 - m)`` (``mobility``) and kappa the sampling factor; Overdamped, per unit of
    time: ``b = -grad Phi``, ``D = T I``. ``Phi = U + decay |x|**2/2``. ``scale`` is T, or what C
    is multiplied by; ``thermal`` tells which.
    """

    surface: Any
    mobility: float
    scale: float
    thermal: bool
    decay: float

    def energy(self, points: np.ndarray) -> np.ndarray:
        """Phi at ``points`` (..., dim), shape (...)."""
        value = self.surface.energy(points)
        return value if self.decay == 0 else value + self.decay / 2 * (points**2).sum(-1)

    def gradient(self, points: np.ndarray) -> np.ndarray:
        """The gradient of Phi, (..., dim)."""
        value = self.surface.gradient(points)
        return value if self.decay == 0 else value + self.decay * points

    def hessian(self, points: np.ndarray) -> np.ndarray:
        """The Hessian of Phi, (..., dim, dim)."""
        value = self.surface.hessian(points)
        return value if self.decay == 0 else value + self.decay * np.eye(self.surface.dim)

    def drift(self, points: np.ndarray) -> np.ndarray:
        """b at ``points`` (..., dim), same shape, a Stratonovich noise's drift included."""
        b = -self.mobility * self.gradient(points)
        if self.thermal or not self._stratonovich:
            return b
        import sympy

        from langevin.surfaces.state_noise import matrix_values

        induced = sympy.Matrix(self.surface.noise.drift(self.surface))
        return b + self.scale * matrix_values(self.surface, "noise drift", induced, points)[..., 0]

    @property
    def _stratonovich(self) -> bool:
        return getattr(self.surface.noise, "convention", "ito") == "stratonovich"

    def diffusion(self, points: np.ndarray) -> np.ndarray:
        """D at ``points`` (..., dim), shape (..., dim, dim)."""
        if self.thermal:
            eye = self.scale * np.eye(self.surface.dim)
            return np.broadcast_to(eye, np.shape(points)[:-1] + eye.shape)
        return self.scale * self.surface.noise_covariance(points)

    def temperatures(self, points: np.ndarray) -> np.ndarray:
        """``D_kk/mobility`` of each coordinate at ``points`` (..., dim), same shape."""
        return np.einsum("...kk->...k", self.diffusion(points)) / self.mobility

    def bottoms(self) -> np.ndarray:
        """The minima of Phi, (n_minima, dim), one for each of the surface's."""
        from langevin.surfaces.descent import descend

        positions = np.array([m.position for m in self.surface.minima()], dtype=float)
        if self.decay == 0:
            return positions
        width = np.ones(positions.shape[1]) + np.ptp(positions, axis=0)
        return descend(self, positions, width)


def diffusion_of(surface: Any, dynamics: Any) -> Diffusion:
    """The small-step limit of ``dynamics`` on ``surface``, or a refusal naming what can answer."""
    if isinstance(dynamics, Underdamped):
        raise UnsoundError(
            f"{WHO}: Underdamped has a density in position and velocity, which is not solved here. "
            "The law of the position is that of predict.boltzmann_gibbs; or simulate."
        )
    if surface.dim > 2:
        raise UnsoundError(
            f"{WHO}: solves one and two dimensions, the surface has {surface.dim}. Use "
            "predict.quadratic on a quadratic surface, predict.boltzmann_gibbs or predict.laplace "
            "for isotropic noise, or simulate."
        )
    single_valued(WHO, dynamics)
    if not isinstance(dynamics, SGD):
        temperature = float(dynamics.temperature)
        if temperature == 0:
            raise UnsoundError(_silent("the temperature is 0"))
        return Diffusion(surface, 1.0, temperature, True, 0.0)
    noise = getattr(surface, "noise", None)
    if noise is not None and noise.convention == "stratonovich" and not hasattr(noise, "drift"):
        raise UnsoundError(
            f"{WHO}: {noise!r} is in Stratonovich's convention and does not give its drift. Use "
            "noise in Ito's convention, or simulate."
        )
    mobility = float(dynamics.learning_rate) / (1 - momentum_of(dynamics))
    factor = float(dynamics.sampling_factor(surface))
    scale = mobility**2 * factor / (2 * float(dynamics.batch_size))
    if scale <= 0:
        raise UnsoundError(_silent("batches of all the data, without replacement, have no noise"))
    return Diffusion(surface, mobility, scale, False, float(dynamics.weight_decay))


def _silent(why: str) -> str:
    return (
        f"{WHO}: {why}, so the law is a point, not a density. Give noise, or a temperature above 0."
    )


def regime_of(surface: Any, dynamics: Any) -> str:
    """What the continuum law holds for, in words."""
    text = "small step: the diffusion that the dynamics tends to; the error is first order in it"
    if momentum_of(dynamics) > 0:
        text += ", with momentum through eta/(1 - m)"
    if isinstance(dynamics, SGD) and is_finite_sum(surface):
        text += "; mini-batch noise as Gaussian noise of the same covariance C(theta)"
    return text


def require_noise(diffusion: Diffusion, points: np.ndarray) -> None:
    """Refuses a D that vanishes, or nearly, in some direction at one of ``points`` (k, dim)."""
    values = np.linalg.eigvalsh(diffusion.diffusion(points))
    bad = ~(values[:, 0] > 1e-9 * values[:, -1])
    if bad.any():
        where = points[np.argmax(bad)]
        raise UnsoundError(
            f"{WHO}: at {np.round(where, 6).tolist()} the gradient noise vanishes in some "
            "direction, so the law need not have a density. Give noise in every direction, use "
            "predict.quadratic on a quadratic surface, or simulate."
        )
