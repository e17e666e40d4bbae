"""How a surface is descended: frozen descriptions, no behaviour but their own arithmetic."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from langevin.checks import frozen, one_of, per_replica, real_array
from langevin.errors import ParameterError, UnsoundError
from langevin.schedules import Schedule
from langevin.surfaces.noise import Isotropic

SAMPLING = ("with_replacement", "without_replacement", "epoch_shuffle")
INTEGRATORS = ("euler_maruyama", "heun", "leimkuhler_matthews", "exact")


@dataclass(frozen=True, eq=False)
class SGD:
    """Stochastic gradient descent, ``theta <- theta - eta (grad L + C**(1/2) xi / sqrt(S))``.

    On a formula the gradient noise has covariance ``C(theta)/S``; on a FiniteSum the gradient is
    that of a real mini-batch of S examples, drawn ``with_replacement``, ``without_replacement``
    (afresh at every step) or by ``epoch_shuffle`` (the data in a new random order every epoch; its
    short last batch is dropped unless ``drop_last=False``). Momentum m, ``nesterov`` and
    ``weight_decay`` lambda are PyTorch's::

        g <- gradient + lambda theta;  buf <- m buf + g
        theta <- theta - eta buf,  or with nesterov  theta <- theta - eta (g + m buf)

    ``learning_rate`` (eta), ``batch_size`` (S), ``momentum`` and ``weight_decay`` may be arrays of
    shape (n_replicas,), so that one run is a whole sweep; the first two may also be schedules, see
    `langevin.schedules`. On formulas a real-valued S is allowed. The basins that observers count
    are those of the loss without the weight decay.

    ``clip_norm``, on networks alone: a gradient (l2 of the surface included, weight decay not) of a
    larger Euclidean norm over all parameters is shortened to it before the step, as by
    torch.nn.utils.clip_grad_norm_; one number, or one per replica, infinity for none.

    Time is counted in steps. Source: Jastrzebski et al. 2017, Eq. 1; torch.optim.SGD.
    Raises ParameterError for values outside their range.
    """

    learning_rate: Any
    batch_size: Any = 1.0
    momentum: Any = 0.0
    sampling: str = "with_replacement"
    nesterov: bool = False
    weight_decay: Any = 0.0
    drop_last: bool = True
    clip_norm: Any = None

    def __post_init__(self):
        _check_clip(self)
        for name in ("learning_rate", "batch_size"):
            if not isinstance(getattr(self, name), Schedule):
                per_replica("SGD", name, getattr(self, name), low=0.0)
        per_replica("SGD", "momentum", self.momentum, low=0.0, closed=True)
        per_replica("SGD", "weight_decay", self.weight_decay, low=0.0, closed=True)
        if np.any(np.asarray(self.momentum) >= 1):
            raise ParameterError(
                "SGD(momentum=...): must be below 1, or the velocity never decays."
            )
        one_of("SGD: sampling", self.sampling, SAMPLING)
        for name in ("nesterov", "drop_last"):
            if not isinstance(getattr(self, name), (bool, np.bool_)):
                raise ParameterError(f"SGD({name}={getattr(self, name)!r}): needs True or False.")
        if self.nesterov and not np.all(np.asarray(self.momentum) > 0):
            raise ParameterError(
                "SGD(nesterov=True): needs a momentum above 0, as in torch.optim.SGD."
            )
        for name in ("learning_rate", "batch_size", "momentum", "weight_decay"):
            if not isinstance(getattr(self, name), Schedule):
                object.__setattr__(self, name, frozen(getattr(self, name)))

    @property
    def is_scheduled(self) -> bool:
        """Whether the learning rate or the batch size changes from step to step."""
        return isinstance(self.learning_rate, Schedule) or isinstance(self.batch_size, Schedule)

    def at(self, step: int) -> SGD:
        """This SGD with the learning rate and batch size of one step (0 is the first)."""
        given = {name: getattr(self, name) for name in ("learning_rate", "batch_size")}
        now = {k: v.at(step) if isinstance(v, Schedule) else v for k, v in given.items()}
        return replace(self, **now)

    def _unscheduled(self) -> None:
        if self.is_scheduled:
            raise UnsoundError(
                "this SGD follows a schedule, so it has no single learning rate, temperature or "
                "stationary law. Take the dynamics of one step: dynamics.at(step)."
            )

    @property
    def step_size(self) -> Any:
        """The time that one step stands for: eta. UnsoundError under a schedule."""
        self._unscheduled()
        return self.learning_rate

    @property
    def curvature_limit(self) -> Any:
        """The curvature above which a minimum is unstable, the penalty's part taken off.

        ``2 (1 + m)/eta``; with Nesterov's step ``2 (1 + m)/(eta (1 + 2 m))``.
        """
        self._unscheduled()
        m = np.asarray(self.momentum, dtype=float)
        reach = 1 + 2 * m if self.nesterov else 1.0
        limit = 2 * (1 + m) / (reach * np.asarray(self.learning_rate))
        return limit - np.asarray(self.weight_decay)

    def sampling_factor(self, surface) -> Any:
        """1, or ``(N - S)/(N - 1)`` for mini-batches drawn without replacement from N examples."""
        return sampling_factor(self, surface)

    def temperature(self, surface) -> Any:
        """``T = eta sigma**2 / (2 S (1 - m))``, for isotropic gradient noise.

        The density of small-step SGD is then ``exp(-L/T)`` (Jastrzebski et al. 2017, Theorem 1),
        L including the penalty of a weight decay.
        Raises UnsoundError where the gradient noise is not isotropic, or under a schedule: there
        is no single temperature.
        """
        self._unscheduled()
        noise = getattr(surface, "noise", None)
        if not isinstance(noise, Isotropic):
            batches = hasattr(surface, "n_examples")
            given = "that of real mini-batches" if batches else " ".join(repr(noise).split())
            raise UnsoundError(
                f"SGD has no single temperature on this surface: its gradient noise is {given}, "
                "not Isotropic(sigma). Use predict.quadratic (quadratic surfaces), "
                "predict.fokker_planck or predict.chain (1-D and 2-D), or give the prediction "
                "temperature=... yourself."
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
        self._unscheduled()
        ratio = n_examples / np.asarray(self.batch_size)
        if self.sampling != "with_replacement":
            ratio = ratio - 1
        result = np.asarray(self.learning_rate) * ratio / (1 - np.asarray(self.momentum))
        return float(result) if np.ndim(result) == 0 else result


def sampling_factor(dynamics: Any, surface: Any) -> Any:
    """The factor on the noise of mini-batches that are drawn without replacement."""
    n = getattr(surface, "n_examples", None)
    if n is None or dynamics.sampling == "with_replacement":
        return 1.0
    if dynamics.sampling == "epoch_shuffle":
        raise UnsoundError(
            "the mini-batches of an epoch are anti-correlated: no factor on the noise of one "
            "step describes them. Simulate, or use sampling='without_replacement'."
        )
    return (n - np.asarray(dynamics.batch_size)) / (n - 1) if n > 1 else 0.0


def _check_clip(dynamics: Any) -> None:
    """Checks the largest norm of a gradient, a number or one per replica; none may be infinite."""
    who, given = type(dynamics).__name__, dynamics.clip_norm
    if given is None:
        return
    values = real_array(f"{who}: clip_norm", given, "needs a number, or one number per replica")
    if values.ndim > 1 or not values.size or not (values > 0).all():
        raise ParameterError(
            f"{who}(clip_norm={given!r}): needs a norm above 0, or an array (n_replicas,) of such; "
            "infinity, or None, clips nothing."
        )
    object.__setattr__(dynamics, "clip_norm", frozen(given))


def _check_batches(dynamics: Any) -> None:
    """Checks the mini-batches of Langevin dynamics, of which there may be none."""
    who = type(dynamics).__name__
    one_of(f"{who}: sampling", dynamics.sampling, SAMPLING)
    if not isinstance(dynamics.drop_last, (bool, np.bool_)):
        raise ParameterError(f"{who}(drop_last={dynamics.drop_last!r}): needs True or False.")
    if isinstance(dynamics.batch_size, Schedule):
        raise ParameterError(
            f"{who}(batch_size={dynamics.batch_size!r}): schedules are for SGD and Adam; give a "
            "number, or one number per replica."
        )
    if dynamics.batch_size is not None:
        per_replica(who, "batch_size", dynamics.batch_size, low=0.0)
        object.__setattr__(dynamics, "batch_size", frozen(dynamics.batch_size))


@dataclass(frozen=True, eq=False)
class Adam:
    """Adam on a network, as torch.optim.Adam: for `langevin.neural.NeuralSurface` alone.

    ``m <- b1 m + (1 - b1) g``, ``v <- b2 v + (1 - b2) g^2``, ``theta <- theta - eta (m/(1 - b1^t))
    / (sqrt(v/(1 - b2^t)) + eps)``, g the mean gradient of a mini-batch of ``batch_size`` examples,
    sampled, and with ``clip_norm`` clipped, as by `SGD`. ``learning_rate`` and ``batch_size`` may
    be arrays (n_replicas,) or schedules. Source: Kingma and Ba 2015. Raises ParameterError for
    values outside their range.
    """

    learning_rate: Any = 1e-3
    batch_size: Any = 1
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    sampling: str = "with_replacement"
    drop_last: bool = True
    clip_norm: Any = None

    def __post_init__(self):
        _check_clip(self)
        for name in ("learning_rate", "batch_size"):
            if not isinstance(getattr(self, name), Schedule):
                per_replica("Adam", name, getattr(self, name), low=0.0)
                object.__setattr__(self, name, frozen(getattr(self, name)))
        betas = real_array("Adam: betas", self.betas, "needs two numbers")
        if betas.shape != (2,) or not ((betas >= 0) & (betas < 1)).all():
            raise ParameterError(
                f"Adam(betas={self.betas!r}): needs two numbers from 0 to below 1."
            )
        object.__setattr__(self, "betas", tuple(float(b) for b in betas))
        per_replica("Adam", "eps", self.eps, low=0.0)
        one_of("Adam: sampling", self.sampling, SAMPLING)
        if not isinstance(self.drop_last, (bool, np.bool_)):
            raise ParameterError(f"Adam(drop_last={self.drop_last!r}): needs True or False.")

    @property
    def is_scheduled(self) -> bool:
        """Whether the learning rate or the batch size changes from step to step."""
        return isinstance(self.learning_rate, Schedule) or isinstance(self.batch_size, Schedule)


@dataclass(frozen=True, eq=False)
class Overdamped:
    """Overdamped Langevin dynamics, ``dx = -grad U dt + sqrt(2 T) dW`` (Ito).

    ``euler_maruyama``: ``x <- x - dt grad U + sqrt(2 T dt) xi``, weak order 1; identical in law to
    SGD with ``eta = dt`` and ``eta sigma**2/(2 S) = T``. ``heun``: the mean of the slopes before
    and after an Euler step with the same noise, weak order 2. ``leimkuhler_matthews``:
    ``x <- x - dt grad U + sqrt(2 T dt) (xi_n + xi_n+1)/2``, whose stationary law is of order 2 and
    exact on quadratics (Leimkuhler and Matthews 2013). ``exact``: on a quadratic surface only, the
    Ornstein-Uhlenbeck transition itself, ``x - x* <- exp(-H dt)(x - x*) + N(0, T H^-1 (1 -
    exp(-2 H dt)))``, without a step error and stable at any dt.

    On data, ``batch_size`` (S) takes the gradient of the mean loss on a mini-batch, sampled as by
    `SGD`, instead of that on all N examples: stochastic gradient Langevin dynamics (Welling and Teh
    2011). With ``temperature=1/N`` its target is the posterior of N examples, the noise of a step
    has the variance ``2 dt/N``, and that of the mini-batches comes on top.

    ``temperature``, ``dt`` and ``batch_size`` may be arrays of shape (n_replicas,), dt of ``exact``
    excepted. Time is in units of dt. Raises ParameterError for values out of range.
    """

    temperature: Any
    dt: Any
    integrator: str = "euler_maruyama"
    batch_size: Any = None
    sampling: str = "with_replacement"
    drop_last: bool = True

    def __post_init__(self):
        _check_batches(self)
        per_replica("Overdamped", "temperature", self.temperature, low=0.0, closed=True)
        per_replica("Overdamped", "dt", self.dt, low=0.0)
        one_of("Overdamped: integrator", self.integrator, INTEGRATORS)
        if self.integrator == "exact" and np.ndim(self.dt):
            raise ParameterError(
                "Overdamped(integrator='exact'): dt must be one number, since the step is a matrix "
                "shared by all replicas; temperature may still be an array."
            )
        object.__setattr__(self, "temperature", frozen(self.temperature))
        object.__setattr__(self, "dt", frozen(self.dt))

    @property
    def step_size(self) -> Any:
        """The time that one step stands for: dt."""
        return self.dt

    @property
    def curvature_limit(self) -> Any:
        """The curvature above which a minimum is unstable: 2/dt, infinite for the exact step."""
        return (math.inf if self.integrator == "exact" else 2) / np.asarray(self.dt, dtype=float)

    def effective_temperature(self, surface) -> Any:
        """The temperature given, whatever the surface."""
        return self.temperature


@dataclass(frozen=True, eq=False)
class Underdamped:
    """Langevin dynamics with momentum and friction gamma.

    ``dx = v dt, M dv = -grad U dt - gamma M v dt + sqrt(2 gamma M T) dW`` (Ito); the stationary
    density of x is ``exp(-U/T)``, that of the velocity N(0, T/M). ``masses`` (M): 1, another
    number, or one per coordinate. ``splitting`` is any string over B (kick by the
    gradient), A (drift) and O (friction and noise, exactly), each letter taking its equal share of
    ``dt``: BAOAB, OBABO, ABOBA, BAOA... (Leimkuhler and Matthews 2013). On a quadratic BAOAB has
    the exact variance of x at any stable dt. Replicas start at rest.

    On a network, ``batch_size`` takes the gradient of mini-batches, as `Overdamped` does; each
    evaluation of the gradient has one of its own.

    ``temperature``, ``friction`` (gamma), ``dt`` and ``batch_size`` may be arrays of shape
    (n_replicas,). Time is in units of dt. Raises ParameterError for values out of range or a
    splitting without B or A.
    """

    temperature: Any
    friction: Any
    dt: Any
    splitting: str = "BAOAB"
    masses: Any = 1.0
    batch_size: Any = None
    sampling: str = "with_replacement"
    drop_last: bool = True

    def __post_init__(self):
        _check_batches(self)
        per_replica("Underdamped", "temperature", self.temperature, low=0.0, closed=True)
        per_replica("Underdamped", "friction", self.friction, low=0.0, closed=True)
        per_replica("Underdamped", "dt", self.dt, low=0.0)
        masses = real_array("masses", self.masses, "needs a number, or one number per coordinate")
        if masses.ndim > 1 or not ((masses > 0) & np.isfinite(masses)).all() or not masses.size:
            raise ParameterError(
                f"Underdamped(masses={self.masses!r}): needs finite masses above 0, one number or "
                "one per coordinate."
            )
        object.__setattr__(self, "masses", frozen(self.masses))
        letters = self.splitting
        good = isinstance(letters, str) and set(letters) == {"A", "B", "O"} and len(letters) <= 12
        if not good:
            raise ParameterError(
                f"Underdamped: splitting={letters!r} must be up to 12 letters B (kick), A (drift) "
                "and O (friction and noise), each at least once, such as 'BAOAB'."
            )
        for name in ("temperature", "friction", "dt"):
            object.__setattr__(self, name, frozen(getattr(self, name)))

    @property
    def step_size(self) -> Any:
        """The time that one step stands for: dt."""
        return self.dt

    @property
    def curvature_limit(self) -> Any:
        """The curvature above which a minimum must be unstable: 4 max(M)/dt**2, leapfrog's."""
        return 4 * np.max(self.masses) / np.asarray(self.dt, dtype=float) ** 2

    def effective_temperature(self, surface) -> Any:
        """The temperature given, whatever the surface."""
        return self.temperature
