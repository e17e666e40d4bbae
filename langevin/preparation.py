"""What a run is made of: checked arguments, start positions, coefficients, weights of work."""

from __future__ import annotations

import numpy as np

from langevin.checks import real_array
from langevin.dynamics import SGD, Adam, Overdamped, Underdamped
from langevin.errors import LangevinError, ParameterError, UnsoundError
from langevin.schedules import Schedule
from langevin.surfaces.expression import Surface
from langevin.surfaces.finite_sum import FiniteSum

LIMIT = 1e12  # farther than this a replica has escaped
KEPT_STARTS = 4096  # start points that a result remembers


def ready(
    surface, dynamics, observe, start, *, n_replicas, n_steps, burn_in, seed, first_replica, dtype
):
    """A run's state before its first step, its bound observers, and where replicas began.

    Raises ParameterError for observers that cannot be.
    """
    from langevin import observers
    from langevin.engines import cpu
    from langevin.engines.batches import Batches
    from langevin.engines.windows import Schedules

    kind = np.dtype(dtype)
    starts = start_positions(surface, start, n_replicas, first_replica, kind)
    began_at = remembered(start, starts)
    observe = tuple(observe) if isinstance(observe, (tuple, list)) else (observe,)
    origins = np.zeros(1, np.int16)
    if start is None or any(isinstance(o, observers.Occupation) for o in observe):
        origins = start_basins(surface, start, starts, first_replica)
    run = observers.Run(
        surface=surface,
        dynamics=dynamics,
        n_replicas=n_replicas,
        n_steps=n_steps,
        burn_in=burn_in,
        dtype=kind,
        n_tasks=cpu.n_tasks(n_replicas),
        origins=origins,
        temperature=warmest(surface, dynamics, n_steps),
        start=starts.T,
    )
    bound = [observers.bind(observer, run) for observer in observe]
    repeated = {b.name for b in bound if [c.name for c in bound].count(b.name) > 1}
    if repeated:
        raise ParameterError(
            f"two observers are named {sorted(repeated)}: give each its own name=."
        )
    state = cpu.State(
        positions=with_buffers(surface, starts, dynamics),
        coefficients=coefficients(surface, dynamics, kind),
        parameters=np.array(run_constants(surface, dynamics), dtype=kind),
        fate=np.full(n_replicas, -1, np.int32),
        key=(seed & 0xFFFFFFFF, seed >> 32),
        limit=LIMIT,
        first_replica=first_replica,
        extra=Batches(surface, dynamics).values(kind) if on_data(surface) else (),
        schedule=Schedules(surface, dynamics, n_steps),
    )
    return state, bound, began_at


def on_data(surface) -> bool:
    """Whether the surface is a sum over examples, whose mini-batches are its noise."""
    return hasattr(surface, "n_examples")


def with_buffers(surface, starts: np.ndarray, dynamics) -> np.ndarray:
    """The start state: positions, then buffers or velocities, zero, then a carried gradient."""
    from langevin.engines.source import Step, carries_gradient

    rows = len(Step(1, dynamics).state)
    if rows == 1:
        return starts
    dim, n = starts.shape
    state = np.zeros((rows * dim, n), starts.dtype)
    state[:dim] = starts
    if carries_gradient(dynamics):
        for begin in range(0, n, 2**16):
            part = slice(begin, begin + 2**16)
            state[2 * dim :, part] = surface.gradient(starts[:, part].T.astype(float)).T
    return state


def coefficients(surface, dynamics, dtype: np.dtype) -> np.ndarray:
    """The step's run-time coefficients, (rows, n_replicas) or (rows, 1)."""
    from langevin.engines.source import Step, step_of

    if isinstance(dynamics, Adam):
        rate = dynamics.learning_rate
        value = {"learning_rate": rate.base if isinstance(rate, Schedule) else rate}
    elif isinstance(dynamics, SGD):
        rate, size = (
            np.asarray(v.base if isinstance(v, Schedule) else v, dtype=float)
            for v in (dynamics.learning_rate, dynamics.batch_size)
        )
        # Momentum turns a kick into 1/(1 - m) of it, and so the Ito drift of the squares twice.
        spread_out = rate / (1 - np.asarray(dynamics.momentum, dtype=float))
        value = {"learning_rate": rate, "drift_scale": spread_out / (2 * size)}
        value |= {"momentum": dynamics.momentum, "weight_decay": dynamics.weight_decay}
        if not on_data(surface):
            value["noise_scale"] = surface.noise.sigma * size**-surface.noise.batch_power
    else:
        dt = np.asarray(dynamics.dt, dtype=float)
        amplitude = np.sqrt(2 * np.asarray(dynamics.temperature) * dt)
        value = {"dt": dt, "half_dt": dt / 2, "amplitude": amplitude}
        value["half_amplitude"] = amplitude / 2
        value["root_temperature"] = np.sqrt(dynamics.temperature)
    if isinstance(dynamics, Underdamped):
        share = {letter: dt / dynamics.splitting.count(letter) for letter in "BAO"}
        decay = np.exp(-np.asarray(dynamics.friction) * share["O"])
        spread = np.sqrt(np.asarray(dynamics.temperature) * (1 - decay**2))
        value = {"kick_dt": share["B"], "drift_dt": share["A"], "decay": decay, "spread": spread}
    if isinstance(dynamics, Adam):
        first, second = dynamics.betas
        value |= {"root_correction": 1.0, "beta1": first, "beta2": second, "epsilon": dynamics.eps}
    if on_data(surface):
        names = Step(surface.dim, dynamics, not isinstance(dynamics, (SGD, Adam))).coefficients
    else:
        names = step_of(surface, dynamics).coefficients
    rows = [np.atleast_1d(value[name]) for name in names]
    return np.ascontiguousarray(np.stack(np.broadcast_arrays(*rows)), dtype=dtype)


def run_constants(surface, dynamics) -> list[float]:
    """The kernel's run-time numbers: the surface's parameters, then those of the step."""
    from langevin.engines.source import constants

    own = [] if on_data(surface) else constants(surface, dynamics)
    return [*surface.parameters.values(), *own]


def check_dynamics(surface, dynamics, n_replicas: int) -> None:
    """Refuses what cannot be run: wrong types, a surface without noise, arrays of wrong length."""
    if not isinstance(dynamics, (SGD, Overdamped, Underdamped)):
        raise ParameterError(
            f"dynamics={dynamics!r}: give an instance such as langevin.SGD(learning_rate=0.05, "
            "batch_size=8) or langevin.Overdamped(temperature=0.1, dt=0.01)."
        )
    if not isinstance(surface, (Surface, FiniteSum)):
        raise ParameterError(
            f"surface={surface!r}: give a langevin.Surface, for example "
            "langevin.Surface('(x**2 - 1)**2', noise=langevin.Isotropic(1.0))."
        )
    if isinstance(dynamics, SGD) and not on_data(surface):
        if surface.noise is None:
            raise ParameterError(
                "SGD on a formula needs its gradient noise: build the surface with "
                "noise=langevin.Isotropic(sigma), sigma being one example's standard deviation."
            )
        if dynamics.sampling == "epoch_shuffle":
            raise ParameterError(
                "sampling='epoch_shuffle' shuffles examples, and a formula has none. Give a "
                "FiniteSum, or leave sampling='with_replacement'."
            )
        surface.noise.check(surface)
    if getattr(dynamics, "clip_norm", None) is not None:
        raise ParameterError(
            f"SGD(clip_norm={dynamics.clip_norm!r}): gradients are clipped on networks alone "
            "(langevin.neural.NeuralSurface). Leave it out, or wrap the formula in a torch module."
        )
    if not on_data(surface) and not isinstance(dynamics, SGD) and dynamics.batch_size is not None:
        raise ParameterError(
            f"{type(dynamics).__name__}(batch_size=...): mini-batches are made of examples, and a "
            "formula has none. Give a FiniteSum or a network, or leave batch_size out."
        )
    if isinstance(dynamics, Underdamped) and np.ndim(dynamics.masses):
        if len(dynamics.masses) != surface.dim:
            raise ParameterError(
                f"Underdamped has {len(dynamics.masses)} masses and the surface {surface.dim} "
                "coordinates: give one mass for each, or one number."
            )
    if getattr(dynamics, "integrator", "") == "exact":
        _check_exact(surface, dynamics)
    names = ("learning_rate", "batch_size", "momentum", "weight_decay")
    for name in (*names, "temperature", "friction", "dt"):
        value = getattr(dynamics, name, 0.0)
        value = value.base if isinstance(value, Schedule) else value
        if np.ndim(value) == 1 and len(value) != n_replicas:
            raise ParameterError(
                f"{name} has {len(value)} values but n_replicas={n_replicas}: give one number, or "
                "one per replica."
            )


def _check_exact(surface, dynamics) -> None:
    """The exact transition exists on a formula with one constant, positive definite Hessian."""
    if on_data(surface) or not surface.hessian_is_constant:
        raise UnsoundError(
            f"Overdamped(integrator='exact') knows the transition of a quadratic formula only, and "
            f"{surface.name!r} is none. Use integrator='leimkuhler_matthews' or 'heun'."
        )
    curvatures = np.linalg.eigvalsh(np.atleast_2d(surface.hessian(np.zeros(surface.dim))))
    if curvatures[0] <= 1e-12 * abs(curvatures[-1]):
        raise UnsoundError(
            f"Overdamped(integrator='exact'): the surface has the curvature {curvatures[0]:.3g} "
            "along one direction, so nothing holds a replica there. Give a positive definite one."
        )


def start_positions(surface, start, n_replicas, first_replica, dtype):
    """Start positions (dim, n_replicas)."""
    dim = surface.dim
    if start is None:
        minima = surface.minima()
        if not minima:
            raise UnsoundError(
                f"{surface!r} has no known minimum to start from. Give start=, a point of shape "
                f"({dim},), or one per replica."
            )
        turn = np.arange(first_replica, first_replica + len(minima)) % len(minima)
        points = np.array([minima[k].position for k in turn], dtype=dtype)
        return repeated(points.T, n_replicas)
    points = real_array("start", start, f"needed: a point ({dim},), or ({n_replicas}, {dim})")
    if dim == 1 and points.ndim == 0:
        points = points.reshape(1)
    if points.shape not in ((dim,), (n_replicas, dim)):
        raise ParameterError(
            f"start has shape {points.shape}; needed: ({dim},) for all replicas, or "
            f"({n_replicas}, {dim}), one point each."
        )
    if not (np.abs(points) < LIMIT).all():
        raise ParameterError(
            f"start holds NaN, infinity or values beyond {LIMIT:g}, where a replica counts as "
            "escaped; give finite positions."
        )
    full = np.broadcast_to(points, (n_replicas, dim))
    return np.array(full.T, dtype=dtype, order="C")


def remembered(start, starts: np.ndarray) -> np.ndarray | None:
    """What a result keeps of where its replicas began: points (k, dim) in equal shares.

    None for equal shares of the minima, an empty array where they are too many to keep.
    """
    if start is None:
        return None
    if np.ndim(start) < 2:
        return starts.T[:1].astype(float)
    nowhere = np.empty((0, len(starts)))
    if starts.shape[1] > 2**18:
        return nowhere
    points, shares = np.unique(starts.T.astype(float), axis=0, return_counts=True)
    shares = shares // np.gcd.reduce(shares)
    return nowhere if shares.sum() > KEPT_STARTS else np.repeat(points, shares, axis=0)


def repeated(columns: np.ndarray, n: int) -> np.ndarray:
    """(rows, m) columns over and over, to (rows, n)."""
    result = np.empty((len(columns), n), columns.dtype)
    for k in range(columns.shape[1]):
        result[:, k :: columns.shape[1]] = columns[:, k : k + 1]
    return result


def start_basins(surface, start, starts: np.ndarray, first_replica: int) -> np.ndarray:
    """The basin each replica begins in, (n_replicas,) int16."""
    n = starts.shape[1]
    if start is None:
        count = len(surface.minima())
        turn = ((np.arange(count) + first_replica) % count).astype(np.int16)
        return repeated(turn[None], n)[0]
    return surface.basins().label(starts.T.astype(float)).astype(np.int16)


def warmest(surface, dynamics, n_steps: int) -> float | None:
    """The highest temperature among the replicas, or None where the noise has no covariance.

    Noise that is not isotropic has no one temperature: that of its largest variance at a minimum
    then says how far replicas may wander, which is all that it is used for.
    """
    if getattr(dynamics, "is_scheduled", False):
        dynamics = dynamics.at(_noisiest_step(dynamics, n_steps))
    try:
        return float(np.max(dynamics.effective_temperature(surface)))
    except UnsoundError:
        pass
    try:
        minima = np.array([m.position for m in surface.minima()])
        variance = float(np.linalg.eigvalsh(surface.noise_covariance(minima)).max())
    except LangevinError:
        return None
    scale = dynamics.learning_rate / np.asarray(dynamics.batch_size)
    return float(np.max(scale / (1 - np.asarray(dynamics.momentum))) * variance / 2) or None


def _noisiest_step(dynamics, n_steps: int) -> int:
    """The step of the largest eta/S, among up to 10,000 looked at."""
    steps = np.unique(np.linspace(0, n_steps - 1, 10_000).astype(np.int64))
    rate, size = (
        v.factors(steps) if isinstance(v, Schedule) else np.ones(len(steps))
        for v in (dynamics.learning_rate, dynamics.batch_size)
    )
    return int(steps[np.argmax(rate / size)])


def work(surface, dynamics) -> float:
    """Work of a step relative to a one-dimensional well, from the experiment alone."""
    from langevin.engines import batches, source

    if on_data(surface):
        return batches.Batches(surface, dynamics).weight
    return max(1.0, (source.operations(surface.gradient_source()) + 20 * surface.dim) / 40)
