"""The exact stationary covariance of the discrete chain on a quadratic surface."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from langevin.dynamics import SGD, Underdamped, sampling_factor
from langevin.errors import ParameterError, UnsoundError
from langevin.predict.common import (
    check_surface,
    find_minima,
    has_discrete_step,
    is_finite_sum,
    momentum_of,
    single_valued,
)
from langevin.predict.gaussian import GaussianMixture
from langevin.predict.linear import (
    GaussianAt,
    GaussianChain,
    entropy_production,
    is_other_integrator,
    langevin_chain,
    law_at,
)
from langevin.predict.moments import BatchNoise, LinearChain, largest_rate

WHO = "predict.quadratic"
MAX_DATA_DIM = 48  # the batch-noise operator is dense on dim (dim + 1)/2 unknowns


@dataclass(frozen=True, eq=False)
class Quadratic(GaussianMixture):
    """The stationary law of a linear chain: exact ``mean`` (dim,) and ``covariance``.

    ``covariance`` is (dim, dim); with momentum (2 dim, 2 dim), positions first, then PyTorch's
    momentum buffer, or for Underdamped the velocity. ``moments()`` is always that of the positions.
    ``gaussian`` says whether the law itself is Gaussian, so that density and bins are exact: on
    real mini-batches it is not, and they are those of the Gaussian with the exact covariance.
    ``circulation`` (dim, dim) is the antisymmetric part of Cov(x_{t+1}, x_t): zero iff there is
    detailed balance, else the area swept per step in each plane by the stationary current.
    """

    covariance: np.ndarray
    circulation: np.ndarray
    gaussian: bool
    linear: GaussianChain | None = None

    @property
    def mean(self) -> np.ndarray:
        """The mean position (dim,): the minimum itself."""
        return self.means[0]

    def at(self, step: int, start: Any = None) -> GaussianAt:
        """The law after ``step`` >= 1 steps from rest at ``start``.

        ``start`` is a point (dim,), points (k, dim) in equal shares, or None for the minimum; the
        velocity or buffer starts at zero, as in a simulation. Raises UnsoundError for mini-batches
        of real data, whose noise depends on the position.
        """
        law = law_at(self._chain("at"), self.mean, step, start, len(self.covariance))
        if self.gaussian:
            return law
        regime = f"exact mean and covariance {step} steps after a start at rest"
        return replace(law, regime=regime, gaussian=False)

    @property
    def entropy_production(self) -> float:
        """``E ln p(x'|x)/p(x|x')`` of one step of the stationary chain, in nats a step.

        0 iff there is detailed balance, as `circulation`. It is that of the discrete step. Raises
        UnsoundError with momentum, on real mini-batches, and where a direction has no noise.
        """
        if not self.gaussian:
            raise UnsoundError(
                f"{WHO}: entropy_production needs Gaussian noise. Read .circulation instead."
            )
        return entropy_production(self._chain("entropy_production"))

    def _chain(self, asked: str) -> GaussianChain:
        if self.linear is None:
            raise UnsoundError(
                f"{WHO}: .{asked} is known for noise that does not depend on the position; that of "
                "real mini-batches does. Simulate."
            )
        return self.linear


def quadratic(surface: Any, dynamics: Any) -> Quadratic:
    """The exact stationary covariance of the discrete chain, any dimension, any step.

    Constant noise, no momentum: ``Sigma H + H Sigma - eta H Sigma H = eta C/S``; C and H need not
    commute. Momentum, Nesterov's too, is PyTorch's, ``buf <- m buf + g, x <- x - eta buf``; a
    weight decay lambda adds ``lambda I`` to H and moves the minimum. Overdamped (Euler-Maruyama):
    eta = dt, C/S = 2 T/dt; its other integrators, and every splitting of Underdamped with any
    masses, are linear chains too, solved mode by mode.

    On least squares over data, SGD's mini-batch noise depends on the state, and the second moment M
    about the minimum solves ``M = E[(1 - eta A_B) M (1 - eta A_B)] + eta**2 E[b_B b_B^T]`` over all
    mini-batches B, with A_B, b_B the batch's Hessian and its gradient at the minimum. That is
    linear in M; it is solved exactly, for sampling with and without replacement, and with momentum.
    Overdamped with a ``batch_size`` (Euler-Maruyama) adds 2 T/dt to that noise.

    Raises UnsoundError for a surface that is not quadratic, flat or inverted directions, a
    learning rate at which the mean or the second moment diverges (naming the bound), and noise
    that depends on the state of a formula. ParameterError for a batch that is not whole or is
    larger than the data. Reference: Mandt, Hoffman & Blei 2017, Eq. 13 (the eta -> 0 limit).
    """
    check_surface(WHO, surface)
    single_valued(WHO, dynamics, batches=True)
    if not surface.hessian_is_constant:
        exact = "predict.chain (any step, 1-D and 2-D), " if has_discrete_step(dynamics) else ""
        raise UnsoundError(
            f"{WHO}: the Hessian of {getattr(surface, 'name', 'the surface')!r} is not constant. "
            f"Use {exact}predict.laplace or predict.boltzmann_gibbs for small steps, or simulate."
        )
    decay = float(getattr(dynamics, "weight_decay", 0.0))
    hessian = np.asarray(surface.hessian(np.zeros(surface.dim)), dtype=float)
    hessian = hessian + decay * np.eye(surface.dim)
    curvatures, axes = np.linalg.eigh((hessian + hessian.T) / 2)
    if curvatures[0] <= 1e-12 * abs(curvatures[-1]):
        raise UnsoundError(
            f"{WHO}: the curvature {curvatures[0]:.3g} along one direction is not positive, so "
            "nothing holds the chain there and no stationary law exists. Add l2=, or drop the "
            "flat direction."
        )
    minimum = np.array(find_minima(WHO, surface)[0].position, dtype=float)
    minimum = minimum - np.linalg.solve(hessian, surface.gradient(minimum) + decay * minimum)
    if is_other_integrator(dynamics):
        single_valued(WHO, dynamics)
        return _stationary(langevin_chain(dynamics, hessian), minimum, dynamics)
    nesterov = getattr(dynamics, "nesterov", False)
    chain = LinearChain(curvatures, float(dynamics.step_size), momentum_of(dynamics), nesterov)
    if chain.rate >= chain.bound:
        raise UnsoundError(
            f"{WHO}: the step {chain.rate:g} diverges: the largest curvature {curvatures[-1]:.6g} "
            f"needs a learning rate (or dt) below {chain.bound:.6g}. Reduce it."
        )
    batches = is_finite_sum(surface) and dynamics.batch_size is not None
    if batches:
        noise = _batch_covariance(surface, dynamics, minimum, axes, chain)
    else:
        noise = axes.T @ _constant_covariance(surface, dynamics, minimum) @ axes
    noisy = getattr(surface, "noise", None) if isinstance(dynamics, SGD) else None
    gaussian = not batches and getattr(noisy, "gaussian", True)
    return _assemble(chain, noise, axes, minimum, gaussian=gaussian, constant=not batches)


def _stationary(chain: GaussianChain, minimum: np.ndarray, dynamics: Any) -> Quadratic:
    """The law of an integrator of Langevin dynamics: positions, and velocities where it has any."""
    d = chain.dim
    size = 2 * d if isinstance(dynamics, Underdamped) else d
    lagged = (chain.step @ chain.stationary)[:d, :d]
    return Quadratic(
        name="exact quadratic",
        regime="exact for the discrete step on a quadratic surface, at any stable step size",
        temperature=None,
        log_weights=np.zeros(1),
        means=minimum[None],
        covariances=chain.stationary[None, :d, :d],
        covariance=chain.stationary[:size, :size],
        circulation=(lagged - lagged.T) / 2,
        gaussian=True,
        linear=chain,
    )


def _constant_covariance(surface: Any, dynamics: Any, minimum: np.ndarray) -> np.ndarray:
    """The covariance of one step's Gaussian gradient noise (dim, dim), in the given axes."""
    if not isinstance(dynamics, SGD):
        return 2 * float(dynamics.temperature) / float(dynamics.step_size) * np.eye(len(minimum))
    probes = minimum + np.array([np.zeros(len(minimum)), np.ones(len(minimum))])
    here, away = surface.noise_covariance(probes)
    if not np.allclose(here, away, rtol=1e-9, atol=0):
        raise UnsoundError(
            f"{WHO}: the gradient noise of this formula depends on the position. Use "
            "predict.chain (1-D and 2-D) or predict.fokker_planck for small steps, or simulate."
        )
    return np.asarray(here, dtype=float) / float(dynamics.batch_size)


def _batch_covariance(
    surface: Any, dynamics: Any, minimum: np.ndarray, axes: np.ndarray, chain: LinearChain
) -> np.ndarray:
    """The stationary noise covariance of a mini-batch gradient, in the eigenbasis of H."""
    noise = _batch_noise(surface, dynamics, minimum, axes)
    gains = chain.position_gains()
    if not noise.radius(gains) < 1 - 1e-12:
        bound = largest_rate(chain, noise)
        raise UnsoundError(
            f"{WHO}: at a step of {chain.rate:g} the variance diverges, though the mean does "
            f"not: the mini-batch curvature varies too much at batch_size={dynamics.batch_size:g}."
            f" It needs a learning rate (or dt) below {bound:.6g}, or larger batches."
        )
    return noise.total(noise.solve(gains))


def _batch_noise(surface: Any, dynamics: Any, minimum: np.ndarray, axes: np.ndarray) -> BatchNoise:
    n, size = int(surface.n_examples), float(dynamics.batch_size)
    if size != int(size):
        raise ParameterError(
            f"{WHO}: batch_size={size:g} on real data: needs a whole number of examples."
        )
    without = dynamics.sampling == "without_replacement"
    if without and size > n:
        raise ParameterError(
            f"{WHO}: batch_size={size:g} without replacement from {n} examples. Give at most {n}, "
            'or sampling="with_replacement".'
        )
    d = len(minimum)
    if d > MAX_DATA_DIM:
        raise UnsoundError(
            f"{WHO}: the moment equation of mini-batch noise is solved up to dimension "
            f"{MAX_DATA_DIM}, this surface has {d}. Simulate, or reduce the features."
        )
    noise, factor = example_noise(surface, minimum, axes), sampling_factor(dynamics, surface) / size
    thermal = np.zeros_like(noise.constant)
    if not isinstance(dynamics, SGD):
        thermal = _constant_covariance(surface, dynamics, minimum)
    return replace(noise, factor=float(factor), thermal=thermal)


def example_noise(surface: Any, minimum: np.ndarray, axes: np.ndarray) -> BatchNoise:
    """The noise of batches of one example on least squares, in the basis ``axes`` (dim, dim)."""
    n, d = int(surface.n_examples), len(minimum)
    b = np.asarray(surface.example_gradients(minimum), dtype=float)
    b = (b - b.mean(axis=0)) @ axes
    a = np.asarray(surface.example_hessians(minimum), dtype=float)
    a = axes.T @ (a - a.mean(axis=0)) @ axes
    flat = a.reshape(n, d * d)
    spread = (flat.T @ flat / n).reshape(d, d, d, d).transpose(0, 2, 1, 3)
    return BatchNoise(constant=b.T @ b / n, spread=spread, factor=1.0)


def _assemble(
    chain: LinearChain,
    noise: np.ndarray,
    axes: np.ndarray,
    minimum: np.ndarray,
    gaussian: bool,
    constant: bool,
) -> Quadratic:
    d = len(minimum)
    full = chain.covariance(noise)
    back = np.kron(np.eye(2), axes)
    step, kick = (back @ m @ back.T for m in (chain.step_matrix(), chain.kick(noise)))
    lagged = back @ (chain.step_matrix() @ full) @ back.T
    full = back @ full @ back.T
    full = (full + full.T) / 2
    lagged = lagged[:d, :d]
    n = 2 * d if chain.momentum > 0 else d
    regime = "exact for the discrete step on a quadratic surface, at any stable step size"
    if not gaussian:
        regime = (
            "exact mean and covariance of the discrete step, whose noise is not Gaussian; density "
            "and bins are those of the Gaussian with that covariance, an approximation"
        )
    return Quadratic(
        name="exact quadratic",
        regime=regime,
        temperature=None,
        log_weights=np.zeros(1),
        means=minimum[None],
        covariances=full[None, :d, :d],
        covariance=full[:n, :n],
        circulation=(lagged - lagged.T) / 2,
        gaussian=gaussian,
        linear=GaussianChain(step[:n, :n], kick[:n, :n], full[:n, :n], d) if constant else None,
    )
