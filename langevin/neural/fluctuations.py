"""Has training reached a stationary state, how hot is it, and how do its weights fluctuate?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from langevin.checks import real_number
from langevin.dynamics import SGD
from langevin.errors import ParameterError, UnsoundError
from langevin.neural import probes as random
from langevin.neural.covariance import GradientCovariance
from langevin.neural.curvature import HessianOperator
from langevin.neural.derivatives import Derivatives
from langevin.result import Estimate
from langevin.surfaces.critical_points import Minimum
from langevin.surfaces.noise import Anisotropic

WINDOWS = 5


def _plain(dynamics: Any) -> None:
    """Refuses what the relations are not derived for."""
    if not isinstance(dynamics, SGD):
        raise ParameterError(f"{dynamics!r}: the relations are those of SGD.")
    scheduled = getattr(dynamics, "is_scheduled", False)
    if scheduled or dynamics.nesterov or np.any(np.asarray(dynamics.weight_decay) != 0):
        raise UnsoundError(
            "the relations hold for SGD with constant steps and PyTorch's momentum, without "
            "nesterov= and weight_decay= (put the penalty into the surface: l2=)."
        )
    if dynamics.sampling == "epoch_shuffle":
        raise UnsoundError(
            "the mini-batches of an epoch are anti-correlated: the relations, which need "
            "independent ones, do not hold. Use sampling='without_replacement'."
        )
    if any(np.ndim(v) for v in (dynamics.learning_rate, dynamics.batch_size, dynamics.momentum)):
        raise ParameterError("the relations compare replicas of one dynamics: give single numbers.")


def both_sides(view: Any, dynamics: Any, hessian: bool) -> np.ndarray:
    """What the observer FluctuationDissipation records, (copies, 4)."""
    _plain(dynamics)
    surface, found = view.evaluation.surface, []
    slopes = view.gradient()
    for k, theta in enumerate(view.rows):
        own = Derivatives(surface, theta.numpy())
        if own.joint:
            raise UnsoundError(
                "fluctuation_dissipation: under batch normalisation with the batch's statistics "
                "mini-batches' gradients do not average to that of the loss. Use "
                "batch_norm='eval'."
            )
        g = own.array(slopes[k])
        if dynamics.momentum:
            kick = own.array(view.velocities[k])
        else:
            kick = _batch_gradient(surface, theta, dynamics, view.step, int(view.ids[k]))
        bent = float(kick @ own.array(own.product(kick))) if hessian else math.nan
        away = own.array(theta - view.began[k])
        found.append([away @ g, kick @ kick, g @ g, bent])
    return np.array(found)


def _batch_gradient(surface, theta, dynamics, step, replica) -> np.ndarray:
    """The gradient of a mini-batch that training does not draw."""
    n, size = surface.n_examples, int(dynamics.batch_size)
    number = (step * 0x9E3779B1 + replica * 0x85EBCA77) % 2**32
    u = random.uniforms(0, number, n if dynamics.sampling != "with_replacement" else size)
    whole = dynamics.sampling != "with_replacement"
    order = np.argsort(u, kind="stable")[:size] if whole else (u * n).astype(int)
    own = Derivatives(surface, theta.numpy(), order=order)
    return own.array(own.gradient())


@dataclass(frozen=True, eq=False)
class Relation:
    """Two averages that are equal in a stationary state: ``left`` and ``right``.

    ``difference`` is left less right, its standard error over replicas; ``windows`` (5, 2) the
    ratio right/left and its standard error in five stretches of the run, one after the other.
    ``exact``: it holds for every loss and step; else to first order in the step.
    """

    left: Estimate
    right: Estimate
    difference: Estimate
    windows: np.ndarray
    exact: bool

    @property
    def ratio(self) -> Estimate:
        """right/left, 1 in a stationary state."""
        stderr = abs(self.difference.stderr / self.left.value)
        return Estimate(self.right.value / self.left.value, stderr, self.difference.dof)

    @property
    def p_value(self) -> float:
        """Probability of a difference as large in a stationary state (Student's t)."""
        return float(2 * stats.t.sf(abs(self.difference.z(0.0)), self.difference.dof))


@dataclass(frozen=True, eq=False)
class Stationarity:
    """Whether a training is in its stationary state, by relations that hold there.

    ``first``: ``<(theta - c).grad L> = eta (1 + m)/2 <|buf|^2>``, exact. ``second``:
    ``<|grad L|^2> = eta (1 + m)/2 <buf' H buf>``, exact on a quadratic loss, else to first order in
    the step; None where it was not recorded. ``temperature`` is the left of the first over dim.
    ``verdict`` is "not stationary" where the first or its trend from the first half to the second
    is rejected at ``significance``, "stationary" where it is not and the ratio is known to
    ``resolution``, else "undecided".
    """

    first: Relation
    second: Relation | None
    trend: Estimate
    temperature: Estimate
    significance: float
    resolution: float

    @property
    def verdict(self) -> str:
        """ "stationary", "not stationary" or "undecided"."""
        trending = 2 * stats.t.sf(abs(self.trend.z(0.0)), self.trend.dof)
        if min(self.first.p_value, float(trending)) < self.significance / 2:
            return "not stationary"
        known = 2 * self.first.ratio.stderr <= self.resolution
        close = abs(self.first.ratio.value - 1) <= self.resolution
        return "stationary" if known and close else "undecided"

    def __repr__(self) -> str:
        more = f", second {self.second.ratio}" if self.second else ""
        return f"Stationarity({self.verdict}: ratio {self.first.ratio}{more})"


def stationarity(
    result: Any,
    *,
    name: str = "fluctuation_dissipation",
    significance: float = 0.01,
    resolution: float = 0.2,
) -> Stationarity:
    """Judges a run that was observed by `FluctuationDissipation`, after its burn_in.

    Yaida (2019, arXiv 1810.00004), for PyTorch's momentum: stationarity of |theta - c|^2, of
    (theta - c).buf and of the loss. The relations need independent mini-batches (with or without
    replacement, not epochs). Errors come from the spread between replicas, which are independent;
    two at least. Raises ParameterError, UnsoundError.
    """
    dynamics = result.dynamics
    _plain(dynamics)
    values = result[name].values
    if values.ndim != 3 or values.shape[0] < 2 or values.shape[1] < 2:
        raise ParameterError(
            f"stationarity: {values.shape[:2]} replicas and records; needed: two of each at least, "
            "of the observer FluctuationDissipation."
        )
    if not np.isfinite(values[..., :3]).all():
        raise UnsoundError("stationarity: some replicas diverged; reduce the learning rate.")
    factor = float(dynamics.learning_rate) * (1 + float(dynamics.momentum)) / 2
    first = _relation(values[..., 0], factor * values[..., 1], True)
    known = np.isfinite(values[..., 3]).all()
    second = _relation(values[..., 2], factor * values[..., 3], False) if known else None
    half = values.shape[1] // 2
    gain = values[:, half:, 0].mean(axis=1) - values[:, :half, 0].mean(axis=1)
    dim = result.surface.dim
    left = first.left
    return Stationarity(
        first,
        second,
        _estimate(gain),
        Estimate(left.value / dim, left.stderr / dim, left.dof),
        float(significance),
        float(resolution),
    )


def _estimate(each: np.ndarray) -> Estimate:
    n = len(each)
    return Estimate(float(each.mean()), float(each.std(ddof=1) / math.sqrt(n)), n - 1)


def _relation(left: np.ndarray, right: np.ndarray, exact: bool) -> Relation:
    windows = []
    for some in np.array_split(np.arange(left.shape[1]), min(WINDOWS, left.shape[1])):
        a, b = left[:, some].mean(axis=1), right[:, some].mean(axis=1)
        ratio = b.mean() / a.mean()
        windows.append([ratio, _estimate(b - ratio * a).stderr / abs(a.mean())])
    sides = [each.mean(axis=1) for each in (left, right)]
    return Relation(
        *map(_estimate, sides), _estimate(sides[0] - sides[1]), np.array(windows), exact
    )


def effective_temperature(surface: Any, dynamics: Any, at: Any = None) -> float:
    """``T = eta tr C/(2 S (1 - m) dim)`` at ``at``, C(theta) of all examples, exact.

    The temperature of isotropic noise of the same power; times (N - S)/(N - 1) without replacement.
    Real gradient noise has no single temperature: `stationarity` measures what the weights have.
    """
    _plain(dynamics)
    trace = GradientCovariance(surface, at).trace() * float(dynamics.sampling_factor(surface))
    eta, s, m = (float(v) for v in (dynamics.learning_rate, dynamics.batch_size, dynamics.momentum))
    return eta * trace / (2 * s * (1 - m) * surface.dim)


class LocalQuadratic:
    """The quadratic surface that a network looks like near ``at``, with its gradient noise there.

    ``H`` (dim, dim) and ``C`` (dim, dim) are measured on all data; it is a surface to
    `langevin.predict.quadratic`, whose answer is exact for it.
    """

    hessian_is_constant = True
    name = "the quadratic approximation of a network"

    def __init__(self, surface: Any, at: Any = None):
        own = Derivatives(surface, at, "float64")
        self.dim, self.H = surface.dim, HessianOperator(surface, at, dtype="float64").dense()
        self.C = GradientCovariance(surface, at, dtype="float64").dense()
        self.n_examples = surface.n_examples
        self.noise = Anisotropic(self.C)
        theta, slope = own.array(own.theta), own.array(own.gradient())
        values = np.linalg.eigvalsh(self.H)
        if values[0] <= 0:
            raise UnsoundError(
                f"local_quadratic: the curvature {values[0]:.3g} along one direction is not "
                "positive, so nothing holds the weights there. Add l2= to the surface, or train "
                "until a minimum is reached."
            )
        self.position = theta - np.linalg.solve(self.H, slope)
        self.bottom = own.loss() - 0.5 * float(slope @ np.linalg.solve(self.H, slope))

    def energy(self, points: Any) -> np.ndarray:
        """(...) at points (..., dim)."""
        d = np.asarray(points) - self.position
        return self.bottom + 0.5 * np.einsum("...i,ij,...j", d, self.H, d)

    def gradient(self, points: Any) -> np.ndarray:
        """(..., dim) at points (..., dim)."""
        return (np.asarray(points) - self.position) @ self.H

    def hessian(self, points: Any) -> np.ndarray:
        """(..., dim, dim) at points (..., dim)."""
        return np.broadcast_to(self.H, np.shape(points)[:-1] + self.H.shape)

    def minima(self) -> tuple[Minimum, ...]:
        """The one minimum, where a Newton step from ``at`` leads."""
        return (Minimum(self.position, self.bottom, self.H),)

    def noise_covariance(self, points: Any) -> np.ndarray:
        """C (..., dim, dim): that of one example's gradient."""
        return self.noise.covariance(points)


def local_quadratic(surface: Any, at: Any = None) -> LocalQuadratic:
    """H and C(theta) at a minimum as a surface for `langevin.predict.quadratic`.

    Its noise is that of mini-batches with replacement. Raises UnsoundError where the Hessian is not
    positive definite, ParameterError above 6,000 parameters.
    """
    return LocalQuadratic(surface, at)


@dataclass(frozen=True, eq=False)
class WeightFluctuations:
    """Fluctuations about a minimum along the Hessian's axes, measured beside predicted.

    ``curvatures`` (dim,), largest first; ``variance`` (dim,) measured over replicas with ``stderr``
    (that of a Gaussian's variance), ``predicted`` (dim,) from `predict.quadratic`. ``excess``: the
    quadratic loss above the minimum, ``sum h_i var_i/2``, measured, and ``predicted_excess``.
    """

    curvatures: np.ndarray
    variance: np.ndarray
    stderr: np.ndarray
    predicted: np.ndarray
    excess: Estimate
    predicted_excess: float

    @property
    def z(self) -> np.ndarray:
        """Standard errors between measured and predicted, (dim,)."""
        return (self.variance - self.predicted) / self.stderr

    def __repr__(self) -> str:
        return (
            f"WeightFluctuations({len(self.z)} directions: excess loss {self.excess}, predicted "
            f"{self.predicted_excess:.6g}; {(np.abs(self.z) < 2).mean():.0%} within 2 errors)"
        )


def weight_fluctuations(
    surface: Any, dynamics: Any, at: Any, positions: np.ndarray
) -> WeightFluctuations:
    """``positions`` (n_replicas, dim) of a stationary run beside the prediction for ``at``.

    The prediction is `predict.quadratic` on the measured H and C(theta): exact for a loss that is
    quadratic, with constant noise, over the fluctuations. Replicas must be independent. Raises
    ParameterError, and UnsoundError as `local_quadratic` does.
    """
    from langevin.predict.quadratic import quadratic

    _plain(dynamics)
    positions = np.asarray(positions, dtype=float)
    n = len(positions)
    if positions.shape != (n, surface.dim) or n < 3 or not np.isfinite(positions).all():
        raise ParameterError(
            f"weight_fluctuations: positions of shape {positions.shape}; needed: finite, three "
            f"replicas at least, (n_replicas, {surface.dim})."
        )
    local = LocalQuadratic(surface, at)
    factor = float(dynamics.sampling_factor(surface))
    if not real_number(factor) or factor <= 0:
        raise UnsoundError("weight_fluctuations: full batches without replacement have no noise.")
    local.noise = Anisotropic(local.C * factor)
    covariance = quadratic(local, dynamics).covariance[: surface.dim, : surface.dim]
    curvatures, axes = np.linalg.eigh(local.H)
    curvatures, axes = curvatures[::-1], axes[:, ::-1]
    along = (positions - positions.mean(axis=0)) @ axes
    variance = along.var(axis=0, ddof=1)
    predicted = np.einsum("ij,ij->j", axes, covariance @ axes)
    each = 0.5 * (along**2) @ curvatures * n / (n - 1)
    return WeightFluctuations(
        curvatures,
        variance,
        np.hypot(predicted * math.sqrt(2 / (n - 1)), 1e-10 * predicted.max()),  # or rounding
        predicted,
        _estimate(each),
        float(0.5 * curvatures @ predicted),
    )
