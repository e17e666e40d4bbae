"""Linear chains with Gaussian noise: the integrators of Langevin dynamics on a quadratic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from langevin.checks import real_array
from langevin.dynamics import Overdamped, Underdamped
from langevin.errors import ParameterError, UnsoundError
from langevin.predict.gaussian import GaussianMixture

WHO = "predict.quadratic"


@dataclass(frozen=True, eq=False)
class GaussianChain:
    """``y <- F y + N(0, Q)`` of y = (x - x*, velocity, buffer or the last noise).

    ``step`` F and ``kick`` Q are (n, n); ``stationary`` (n, n) solves ``S = F S F' + Q``; the first
    ``dim`` entries of y are the position.
    """

    step: np.ndarray
    kick: np.ndarray
    stationary: np.ndarray
    dim: int

    def after(self, steps: int) -> tuple[np.ndarray, np.ndarray]:
        """``F**steps`` and the covariance that as many steps make from a point.

        By doubling, as sums of positive terms: no difference of stationary covariances.
        """
        n = len(self.step)
        power, spread = np.eye(n), np.zeros((n, n))
        step, kick = self.step, self.kick
        while steps:
            if steps & 1:
                power, spread = step @ power, step @ spread @ step.T + kick
            kick = step @ kick @ step.T + kick
            step = step @ step
            steps >>= 1
        return power, spread


@dataclass(frozen=True, eq=False)
class GaussianAt(GaussianMixture):
    """The law of a linear chain at one step: a Gaussian for each start, equally likely.

    ``covariance`` is that about each start's mean, in the layout of `Quadratic.covariance`.
    ``gaussian`` as of `Quadratic`: False where only mean and covariance are exact.
    """

    covariance: np.ndarray
    gaussian: bool = True

    def occupation(self) -> np.ndarray:
        """A quadratic surface has one minimum: 1."""
        return np.ones(1)

    def ratio(self, i: int, j: int) -> float:
        """1 for the only minimum; raises ParameterError for any other index."""
        if (i, j) != (0, 0):
            raise ParameterError(f"ratio({i!r}, {j!r}): a quadratic surface has one minimum, 0.")
        return 1.0


def law_at(
    chain: GaussianChain, centre: np.ndarray, step: Any, start: Any, size: int
) -> GaussianAt:
    """The law after ``step`` steps from rest at ``start``; see `Quadratic.at`."""
    if not isinstance(step, (int, np.integer)) or isinstance(step, bool) or step < 1:
        raise ParameterError(f"at(step={step!r}): needs a whole number of steps, at least 1.")
    d = chain.dim
    needed = f"needs a finite point ({d},), or points (k, {d}) in equal shares"
    points = np.atleast_2d(centre if start is None else real_array("at: start", start, needed))
    if points.ndim != 2 or points.shape[1] != d or not np.isfinite(points).all():
        raise ParameterError(f"at(start=...): shape {np.shape(start)} given; {needed}.")
    power, spread = chain.after(int(step))
    means = centre + (points - centre) @ power[:d, :d].T
    return GaussianAt(
        name=f"exact quadratic, step {step}",
        regime=f"exact law {step} steps after a start at rest, on a quadratic surface",
        temperature=None,
        log_weights=np.zeros(len(points)),
        means=means,
        covariances=np.broadcast_to(spread[:d, :d], (len(points), d, d)),
        covariance=spread[:size, :size],
    )


def entropy_production(chain: GaussianChain) -> float:
    """The mean of ``ln p(y'|y)/p(y|y')`` of one stationary step, in nats; 0 iff reversible.

    Only for y = x and noise in every direction: else a step cannot be run backwards at all.
    """
    f, s, q = chain.step, chain.stationary, chain.kick
    if len(f) > chain.dim:
        raise UnsoundError(
            f"{WHO}: with momentum or a carried noise the entropy production of a step is not "
            "finite: the reversed step has no probability. Read .circulation."
        )
    try:
        root = np.linalg.cholesky(q)
    except np.linalg.LinAlgError:
        raise UnsoundError(
            f"{WHO}: some direction carries no noise, so the reversed step has no probability and "
            "the entropy production is infinite, unless nothing moves. Read .circulation."
        ) from None
    # Half of E|y - F y'|^2 - E|y' - F y|^2 in the metric of Q.
    current = f @ s - s @ f.T
    whiten = np.linalg.inv(root)
    return float(np.trace(whiten @ current @ f.T @ whiten.T))


def langevin_chain(dynamics: Any, hessian: np.ndarray) -> GaussianChain:
    """The chain of heun, leimkuhler_matthews, exact and of every splitting on ``x' H x/2``.

    In the normal modes of H (of ``M**-1/2 H M**-1/2``) every mode is a chain of its own.
    Raises UnsoundError for a step that diverges, naming the bound, and without friction.
    """
    d = len(hessian)
    masses = np.asarray(getattr(dynamics, "masses", 1.0), dtype=float)
    if masses.ndim and len(masses) != d:
        raise ParameterError(
            f"{WHO}: Underdamped has {len(masses)} masses and the surface {d} coordinates."
        )
    root = np.sqrt(np.broadcast_to(masses, d))
    squares, axes = np.linalg.eigh(hessian / np.outer(root, root))
    modes = [_mode(dynamics, k, float(dynamics.dt)) for k in squares]
    radius = max(np.abs(np.linalg.eigvals(f)).max() for f, _, _ in modes)
    if isinstance(dynamics, Underdamped) and float(dynamics.friction) == 0:
        raise UnsoundError(
            f"{WHO}: without friction the energy is kept and no stationary law exists. Give "
            "friction > 0."
        )
    if not radius < 1:
        raise UnsoundError(
            f"{WHO}: the step {float(dynamics.dt):g} diverges: the largest curvature per mass, "
            f"{squares[-1]:.6g}, needs dt below {_largest_step(dynamics, squares):.6g}. Reduce it."
        )
    size = len(modes[0][0])
    outer = np.kron(np.eye(size), axes / root[:, None])  # from modes to coordinates
    inner = np.kron(np.eye(size), axes.T * root)
    f, q, s = (_spread(np.array([m[k] for m in modes])) for k in range(3))
    stationary = outer @ s @ outer.T
    return GaussianChain(
        step=outer @ f @ inner,
        kick=outer @ q @ outer.T,
        stationary=(stationary + stationary.T) / 2,
        dim=d,
    )


def _spread(blocks: np.ndarray) -> np.ndarray:
    """(d, n, n) of d modes as one (n d, n d) matrix, position of every mode first."""
    d, n, _ = blocks.shape
    result = np.zeros((n, d, n, d))
    for k in range(d):
        result[:, k, :, k] = blocks[k]
    return result.reshape(n * d, n * d)


def _mode(dynamics: Any, h: float, dt: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """F, Q and the stationary covariance of one mode of curvature h and unit mass."""
    t = float(dynamics.temperature)
    if isinstance(dynamics, Underdamped):
        return _splitting(dynamics.splitting, h, t, float(dynamics.friction), dt)
    a = h * dt
    if dynamics.integrator == "heun":
        f, q = 1 - a + a * a / 2, 2 * t * dt * (1 - a / 2) ** 2
        s = t / h * (2 - a) / (2 - a + a * a / 2)
    elif dynamics.integrator == "exact":
        f, q, s = np.exp(-a), -t / h * np.expm1(-2 * a), t / h
    else:  # leimkuhler_matthews, with the noise it carries: x' = (1 - a) x + b (n + n')
        b = np.sqrt(2 * t * dt) / 2
        f = np.array([[1 - a, b], [0.0, 0.0]])
        return f, np.array([[b * b, b], [b, 1.0]]), np.array([[t / h, b], [b, 1.0]])
    return tuple(np.array([[float(v)]]) for v in (f, q, s))


def _splitting(letters: str, h: float, t: float, friction: float, dt: float) -> tuple:
    step, noise = np.eye(2), np.zeros((2, 2))
    for letter in letters:
        share = dt / letters.count(letter)
        one, kick = np.eye(2), np.zeros((2, 2))
        if letter == "B":
            one[1, 0] = -share * h
        elif letter == "A":
            one[0, 1] = share
        else:
            one[1, 1] = np.exp(-friction * share)
            kick[1, 1] = -t * np.expm1(-2 * friction * share)
        step, noise = one @ step, one @ noise @ one.T + kick
    if np.abs(np.linalg.eigvals(step)).max() >= 1:
        return step, noise, np.zeros((2, 2))
    matrix = np.eye(4) - np.kron(step, step)
    return step, noise, np.linalg.solve(matrix, noise.reshape(4)).reshape(2, 2)


def _largest_step(dynamics: Any, squares: np.ndarray) -> float:
    """The step below which every mode is stable."""

    def stable(dt: float) -> bool:
        found = (_mode(dynamics, k, dt)[0] for k in squares)
        return all(np.abs(np.linalg.eigvals(f)).max() < 1 for f in found)

    high = float(dynamics.dt)
    low = high * 2.0**-40
    for _ in range(60):
        middle = np.sqrt(low * high)
        low, high = (middle, high) if stable(middle) else (low, middle)
    return low


def is_other_integrator(dynamics: Any) -> bool:
    """Whether the step is linear but not SGD's or Euler-Maruyama's."""
    plain = getattr(dynamics, "integrator", "") == "euler_maruyama"
    return isinstance(dynamics, Underdamped) or (isinstance(dynamics, Overdamped) and not plain)
