"""How a surface is descended: frozen descriptions, no behaviour but their own arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from langevin.checks import one_of, real_array
from langevin.errors import ParameterError, UnsoundError
from langevin.surfaces.noise import Isotropic

SAMPLING = ("with_replacement", "without_replacement")
INTEGRATORS = ("euler_maruyama", "heun", "leimkuhler_matthews")


def _check(owner: str, name: str, value: Any, *, low: float, closed: bool = False) -> None:
    """Every element of ``value`` (a number or one per replica) is finite and above ``low``."""
    values = real_array(
        f"{owner}: {name}", value, "needs a number, or an array with one number per replica"
    )
    if values.ndim > 1 or values.size == 0:
        raise ParameterError(
            f"{owner}({name}=...): shape {values.shape} given; needs a number or (n_replicas,)."
        )
    good = np.isfinite(values) & ((values >= low) if closed else (values > low))
    if not good.all():
        bad = values[~good].flat[0]
        raise ParameterError(
            f"{owner}({name}={bad!r}): must be finite and {'>=' if closed else '>'} {low:g}."
        )


def _frozen(value: Any) -> Any:
    """Arrays become read-only copies, so that a frozen dynamics stays frozen."""
    if np.ndim(value) == 0:
        return value
    copy = np.array(value, dtype=float)
    copy.setflags(write=False)
    return copy


@dataclass(frozen=True, eq=False)
class SGD:
    """Stochastic gradient descent, ``theta <- theta - eta (grad L + C**(1/2) xi / sqrt(S))``.

    On a formula the gradient noise is Gaussian with covariance ``C(theta)/S``; on a FiniteSum the
    gradient is that of a real mini-batch of S examples. ``learning_rate`` (eta) and ``batch_size``
    (S) may be arrays of shape (n_replicas,), so that one run is a whole sweep. On formulas a
    real-valued S is allowed.

    Time is counted in steps. Source: Jastrzebski et al. 2017, Eq. 1.
    Raises ParameterError for values outside their range.
    """

    learning_rate: Any
    batch_size: Any = 1.0
    momentum: Any = 0.0
    sampling: str = "with_replacement"

    def __post_init__(self):
        _check("SGD", "learning_rate", self.learning_rate, low=0.0)
        _check("SGD", "batch_size", self.batch_size, low=0.0)
        _check("SGD", "momentum", self.momentum, low=0.0, closed=True)
        if np.any(np.asarray(self.momentum) >= 1):
            raise ParameterError(
                "SGD(momentum=...): must be below 1, or the velocity never decays."
            )
        one_of("SGD: sampling", self.sampling, SAMPLING)
        for name in ("learning_rate", "batch_size", "momentum"):
            object.__setattr__(self, name, _frozen(getattr(self, name)))

    @property
    def step_size(self) -> Any:
        """The time that one step stands for: eta."""
        return self.learning_rate

    @property
    def curvature_limit(self) -> Any:
        """The curvature above which a minimum is unstable: ``2 (1 + m) / eta``."""
        return 2 * (1 + np.asarray(self.momentum, dtype=float)) / np.asarray(self.learning_rate)

    def sampling_factor(self, surface) -> Any:
        """1, or ``(N - S)/(N - 1)`` for mini-batches drawn without replacement from N examples."""
        n = getattr(surface, "n_examples", None)
        if n is None or self.sampling != "without_replacement":
            return 1.0
        return (n - np.asarray(self.batch_size)) / (n - 1) if n > 1 else 0.0

    def temperature(self, surface) -> Any:
        """``T = eta sigma**2 / (2 S (1 - m))``, for isotropic gradient noise.

        The density of small-step SGD is then ``exp(-L/T)`` (Jastrzebski et al. 2017, Theorem 1).
        Raises UnsoundError where the gradient noise is not isotropic: there is no temperature.
        """
        noise = getattr(surface, "noise", None)
        if not isinstance(noise, Isotropic):
            raise UnsoundError(
                f"SGD has no single temperature on this surface: its gradient noise is {noise!r}, "
                "not Isotropic(sigma). Use predict.quadratic or predict.chain, or give the "
                "prediction temperature=... yourself."
            )
        scale = np.asarray(self.learning_rate) / np.asarray(self.batch_size)
        result = scale * noise.sigma**2 / (2 * (1 - np.asarray(self.momentum)))
        return float(result) if np.ndim(result) == 0 else result

    def effective_temperature(self, surface) -> Any:
        """The same as :meth:`temperature`; the name every dynamics answers to."""
        return self.temperature(surface)

    def noise_scale(self, n_examples: float) -> Any:
        """Smith & Le's noise scale, ``g = eta N / (B (1 - m))`` with replacement.

        Without replacement ``g = eta (N/B - 1)/(1 - m)``. Their learning rate epsilon multiplies
        the gradient of the *mean* cost, so it is eta here. Source: Smith & Le 2017, section 4 and
        appendix D. A scalar, or one value per replica.
        """
        ratio = n_examples / np.asarray(self.batch_size)
        if self.sampling == "without_replacement":
            ratio = ratio - 1
        result = np.asarray(self.learning_rate) * ratio / (1 - np.asarray(self.momentum))
        return float(result) if np.ndim(result) == 0 else result


@dataclass(frozen=True, eq=False)
class Overdamped:
    """Overdamped Langevin dynamics, ``dx = -grad U dt + sqrt(2 T) dW`` (Ito).

    ``euler_maruyama``: ``x <- x - dt grad U + sqrt(2 T dt) xi``, weak order 1; identical in law to
    SGD with ``eta = dt`` and ``eta sigma**2/(2 S) = T``. ``heun``: the mean of the slopes before
    and after an Euler step with the same noise, weak order 2. ``leimkuhler_matthews``:
    ``x <- x - dt grad U + sqrt(2 T dt) (xi_n + xi_n+1)/2``, whose stationary law is of order 2 and
    exact on quadratics (Leimkuhler and Matthews 2013). ``temperature`` and ``dt`` may be arrays of
    shape (n_replicas,). Time is in units of dt. Raises ParameterError for values out of range.
    """

    temperature: Any
    dt: Any
    integrator: str = "euler_maruyama"

    def __post_init__(self):
        _check("Overdamped", "temperature", self.temperature, low=0.0, closed=True)
        _check("Overdamped", "dt", self.dt, low=0.0)
        one_of("Overdamped: integrator", self.integrator, INTEGRATORS)
        object.__setattr__(self, "temperature", _frozen(self.temperature))
        object.__setattr__(self, "dt", _frozen(self.dt))

    @property
    def step_size(self) -> Any:
        """The time that one step stands for: dt."""
        return self.dt

    @property
    def curvature_limit(self) -> Any:
        """The curvature above which a minimum is unstable: 2/dt."""
        return 2 / np.asarray(self.dt, dtype=float)

    def effective_temperature(self, surface) -> Any:
        """The temperature given, whatever the surface."""
        return self.temperature


@dataclass(frozen=True, eq=False)
class Underdamped:
    """Langevin dynamics with momentum and friction gamma.

    ``dx = v dt, dv = -grad U dt - gamma v dt + sqrt(2 gamma T) dW`` (Ito), unit mass; the
    stationary density of x is ``exp(-U/T)``. ``splitting`` is any string over B (kick by the
    gradient), A (drift) and O (friction and noise, exactly), each letter taking its equal share of
    ``dt``: BAOAB, OBABO, ABOBA, BAOA... (Leimkuhler and Matthews 2013). On a quadratic BAOAB has
    the exact variance of x at any stable dt. Replicas start at rest.

    ``temperature``, ``friction`` (gamma) and ``dt`` may be arrays of shape (n_replicas,). Time is
    in units of dt. Raises ParameterError for values out of range or a splitting without B or A.
    """

    temperature: Any
    friction: Any
    dt: Any
    splitting: str = "BAOAB"

    def __post_init__(self):
        _check("Underdamped", "temperature", self.temperature, low=0.0, closed=True)
        _check("Underdamped", "friction", self.friction, low=0.0, closed=True)
        _check("Underdamped", "dt", self.dt, low=0.0)
        letters = self.splitting
        good = isinstance(letters, str) and set(letters) == {"A", "B", "O"} and len(letters) <= 12
        if not good:
            raise ParameterError(
                f"Underdamped: splitting={letters!r} must be up to 12 letters B (kick), A (drift) "
                "and O (friction and noise), each at least once, such as 'BAOAB'."
            )
        for name in ("temperature", "friction", "dt"):
            object.__setattr__(self, name, _frozen(getattr(self, name)))

    @property
    def step_size(self) -> Any:
        """The time that one step stands for: dt."""
        return self.dt

    @property
    def curvature_limit(self) -> Any:
        """The curvature above which a minimum is unstable, that of leapfrog: 4/dt**2."""
        return 4 / np.asarray(self.dt, dtype=float) ** 2

    def effective_temperature(self, surface) -> Any:
        """The temperature given, whatever the surface."""
        return self.temperature
