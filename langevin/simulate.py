"""simulate(): the one door. Validates, chooses the engine, runs in chunks, returns a Result."""

from __future__ import annotations

import math
import time
import warnings
from typing import Any

import numpy as np

from langevin import observe as observers_module
from langevin.checks import one_of, real_array, whole_number
from langevin.dynamics import SGD, Overdamped, Underdamped
from langevin.errors import (
    DivergenceError,
    LangevinError,
    ParameterError,
    StabilityWarning,
    UnavailableError,
    UnsoundError,
)
from langevin.progress import interruptible, progress_bar
from langevin.result import Result
from langevin.surfaces.expression import Surface
from langevin.surfaces.finite_sum import FiniteSum
from langevin.surfaces.noise import Isotropic

LIMIT = 1e12  # farther than this a replica has escaped
WINDOW = 2**30  # replica-steps between two looks at the clock, about a second


def simulate(
    surface: Any,
    dynamics: SGD | Overdamped | Underdamped,
    *,
    n_replicas: int,
    n_steps: int,
    seed: int = 0,
    burn_in: int = 0,
    observe: Any = (),
    start: Any = None,
    first_replica: int = 0,
    device: str = "cpu",
    dtype: str = "float64",
    progress: bool = True,
    on_divergence: str = "stop",
) -> Result:
    """Runs an ensemble of independent replicas of a dynamics on a surface.

    ``n_steps`` includes ``burn_in``, during which nothing is observed. ``start=None`` puts replica
    r at minimum r mod n_minima; else one point for all (dim,) or one each (n_replicas, dim).
    ``seed`` is the key of a counter-based generator: a replica's noise depends on seed, its own
    number (from ``first_replica``) and the step alone, so results do not depend on threads,
    chunks or company, and the positions are the same bits for 1 thread or many.
    ``on_divergence="absorb"`` freezes replicas that escape and goes on without them. Ctrl-C
    returns what was computed.

    Raises ParameterError for bad arguments, UnsoundError for a step that must diverge, and
    DivergenceError (its ``.result`` holds what was computed) if a replica escapes to infinity.
    """
    n_replicas = whole_number("n_replicas", n_replicas, 1, 2**32 - 1)
    n_steps = whole_number("n_steps", n_steps, 1, 2**33 - 1)
    burn_in = whole_number("burn_in", burn_in, 0, n_steps - 1)
    seed = whole_number("seed", seed, 0, 2**64 - 1)
    first_replica = whole_number("first_replica", first_replica, 0, 2**32 - n_replicas)
    if isinstance(dtype, np.dtype) or dtype in (np.float32, np.float64):
        dtype = np.dtype(dtype).name
    one_of("dtype", dtype, ("float64", "float32"))
    one_of("on_divergence", on_divergence, ("stop", "absorb"))
    if device != "cpu":
        raise UnavailableError(f"device={device!r}: this version runs on device='cpu' only.")
    _check_dynamics(surface, dynamics, n_replicas)
    check_stability(surface, dynamics)
    if on_data(surface) and n_steps > 2**32 - 4:
        raise ParameterError(f"n_steps={n_steps}: on data a run has at most 2**32 - 4 steps.")

    kind = np.dtype(dtype)
    starts = _starts(surface, start, n_replicas, first_replica, kind)
    observe = tuple(observe) if isinstance(observe, (tuple, list)) else (observe,)
    origins = np.zeros(1, np.int16)
    if any(isinstance(observer, observers_module.Occupation) for observer in observe):
        origins = _origins(surface, start, starts, first_replica)
    from langevin.engines import cpu
    from langevin.engines.batches import Batches

    run = observers_module.Run(
        surface=surface,
        n_replicas=n_replicas,
        n_steps=n_steps,
        burn_in=burn_in,
        dtype=kind,
        n_tasks=cpu.n_tasks(n_replicas),
        origins=origins,
        temperature=_warmest(surface, dynamics),
        start=starts.T,
    )
    bound = [observers_module.bind(observer, run) for observer in observe]
    repeated = {b.name for b in bound if [c.name for c in bound].count(b.name) > 1}
    if repeated:
        raise ParameterError(
            f"two observers are named {sorted(repeated)}: give each its own name=."
        )
    state = cpu.State(
        positions=with_buffers(starts, dynamics),
        coefficients=coefficients(surface, dynamics, kind),
        parameters=np.array(list(surface.parameters.values()), dtype=kind),
        fate=np.full(n_replicas, -1, np.int32),
        key=(seed & 0xFFFFFFFF, seed >> 32),
        limit=LIMIT,
        first_replica=first_replica,
        extra=Batches(surface, dynamics).values(kind) if on_data(surface) else (),
    )
    engine = cpu.Engine(surface, dynamics, bound, dtype)
    began = time.perf_counter()
    try:
        done = _advance(engine, state, n_steps, on_divergence, progress, _weight(surface, dynamics))
    finally:
        engine.close()
    result = _result(surface, dynamics, state, bound, done, began, n_steps, burn_in, seed, dtype)
    if on_divergence == "stop" and (state.fate >= 0).any():
        raise DivergenceError(_escaped(result), result)
    return result


def _advance(engine, state, n_steps, on_divergence, progress, weight) -> int:
    """Runs window after window; returns the steps done."""
    n = state.positions.shape[1]
    shortest = 64 if weight <= 4 else 4
    window = 2 ** math.floor(math.log2(max(1, WINDOW / (n * weight))))
    window = int(min(2**16, max(shortest, window)))
    done = 0
    with interruptible() as interrupted, progress_bar(progress, n, n_steps) as show:
        try:
            show(0, "compiling")
            engine.compile(state)
            show(0, "running")
            while done < n_steps and not interrupted():
                end = min(n_steps, done + window)
                try:
                    engine.advance(state, done, end)
                except KeyboardInterrupt:
                    done = end
                    break
                done = end
                show(done, "running")
                if on_divergence == "stop" and (state.fate >= 0).any():
                    break
        except KeyboardInterrupt:
            pass
    return done


def _result(surface, dynamics, state, bound, done, began, n_steps, burn_in, seed, dtype) -> Result:
    from langevin.engines.source import has_momentum

    dim = surface.dim
    positions = state.positions[:dim].T
    velocities = state.positions[dim:].T if has_momentum(dynamics) else None
    observed = {}
    for observer in bound:
        try:
            observed[observer.name] = observer.estimate()
        except LangevinError as error:  # an early end: the rest of the result is still good
            observed[observer.name] = error
    return Result(
        surface=surface,
        dynamics=dynamics,
        positions=positions,
        velocities=velocities,
        diverged=np.where(
            state.fate >= 0, np.minimum(4 * (state.fate.astype(np.int64) + 1), done), -1
        ),
        n_steps=n_steps,
        steps_done=done,
        burn_in=burn_in,
        seed=seed,
        first_replica=state.first_replica,
        dtype=dtype,
        elapsed=time.perf_counter() - began,
        observed=observed,
        kinds={observer.name: observer.kind for observer in bound},
        groups={observer.name: observer.groups for observer in bound if observer.grouped},
    )


def _escaped(result: Result) -> str:
    where = np.flatnonzero(result.diverged >= 0)
    first = where[np.argmin(result.diverged[where])]
    step = int(result.diverged[first])
    return (
        f"{len(where)} of {result.n_replicas} replicas escaped to infinity or became NaN; the "
        f"first is replica {result.first_replica + int(first)}, between steps "
        f"{max(1, step - 3)} and "
        f"{step}. Needed: a step small enough for the steepest place visited "
        f"({result.dynamics!r} given). "
        "Reduce the learning rate or dt, start elsewhere, or pass on_divergence='absorb' to freeze "
        "and count such replicas. What was computed is in this error's .result."
    )


def on_data(surface) -> bool:
    """Whether the surface is a sum over examples, whose mini-batches are its noise."""
    return hasattr(surface, "n_examples")


def with_buffers(starts: np.ndarray, dynamics) -> np.ndarray:
    """The start state with momentum buffers or velocities, zero, below the positions."""
    from langevin.engines.source import state_names

    carried = len(state_names(1, dynamics)) > 1
    return np.concatenate([starts, np.zeros_like(starts)]) if carried else starts


def coefficients(surface, dynamics, dtype: np.dtype) -> np.ndarray:
    """The step's run-time coefficients, (rows, n_replicas) or (rows, 1)."""
    from langevin.engines.source import coefficient_names

    if isinstance(dynamics, SGD):
        value = {"learning_rate": dynamics.learning_rate, "momentum": dynamics.momentum}
        if not on_data(surface):
            value["noise_scale"] = surface.noise.sigma / np.sqrt(dynamics.batch_size)
    else:
        dt = np.asarray(dynamics.dt, dtype=float)
        amplitude = np.sqrt(2 * np.asarray(dynamics.temperature) * dt)
        value = {"dt": dt, "half_dt": dt / 2, "amplitude": amplitude}
        value["half_amplitude"] = amplitude / 2
    if isinstance(dynamics, Underdamped):
        share = {letter: dt / dynamics.splitting.count(letter) for letter in "BAO"}
        decay = np.exp(-np.asarray(dynamics.friction) * share["O"])
        spread = np.sqrt(np.asarray(dynamics.temperature) * (1 - decay**2))
        value = {"kick_dt": share["B"], "drift_dt": share["A"], "decay": decay, "spread": spread}
    names = coefficient_names(dynamics, gaussian=not (on_data(surface) and "momentum" in value))
    rows = [np.atleast_1d(value[name]) for name in names]
    return np.ascontiguousarray(np.stack(np.broadcast_arrays(*rows)), dtype=dtype)


def check_stability(surface, dynamics) -> None:
    """Refuses a step that must diverge; warns where only some minima are unstable.

    Gradient descent is stable at a minimum iff ``eta lambda_max < 2 (1 + m)``. Minima are looked
    at where they are known; divergence elsewhere is caught while running.
    """
    if hasattr(surface, "check_stability"):
        surface.check_stability(dynamics)
        return
    try:
        minima = surface.minima()
    except LangevinError:
        return
    if not minima:
        return
    tops = np.array([np.linalg.eigvalsh(np.atleast_2d(m.hessian))[-1] for m in minima])
    limit = np.atleast_1d(dynamics.curvature_limit)
    name = "learning_rate" if isinstance(dynamics, SGD) else "dt"
    power = 0.5 if isinstance(dynamics, Underdamped) else 1.0
    step = np.broadcast_to(np.asarray(dynamics.step_size, dtype=float), limit.shape)
    if (limit <= tops.min()).any():
        r = int(np.argmin(limit))
        raise UnsoundError(
            f"{name}={step[r]:g} is unstable at every minimum: the smallest of their curvatures is "
            f"{tops.min():.4g}, which needs {name} < "
            f"{step[r] * (limit[r] / tops.min()) ** power:.4g}. Reduce it."
        )
    for k in np.flatnonzero(tops >= limit.min()):
        r = int(np.argmin(limit))
        warnings.warn(
            f"{name}={step[r]:g} is unstable at the minimum at {minima[k].position}: curvature "
            f"{tops[k]:.4g} needs {name} < {step[r] * (limit[r] / tops[k]) ** power:.4g}. Replicas "
            "will leave it.",
            StabilityWarning,
            stacklevel=3,
        )


def _check_dynamics(surface, dynamics, n_replicas: int) -> None:
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
        if not isinstance(surface.noise, Isotropic):
            raise ParameterError(
                "SGD on a formula needs its gradient noise: build the surface with "
                "noise=langevin.Isotropic(sigma), sigma being one example's standard deviation."
            )
    for name in ("learning_rate", "batch_size", "momentum", "temperature", "friction", "dt"):
        value = getattr(dynamics, name, 0.0)
        if np.ndim(value) == 1 and len(value) != n_replicas:
            raise ParameterError(
                f"{name} has {len(value)} values but n_replicas={n_replicas}: give one number, or "
                "one per replica."
            )


def _starts(surface, start, n_replicas, first_replica, dtype):
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


def repeated(columns: np.ndarray, n: int) -> np.ndarray:
    """(rows, m) columns over and over, to (rows, n)."""
    result = np.empty((len(columns), n), columns.dtype)
    for k in range(columns.shape[1]):
        result[:, k :: columns.shape[1]] = columns[:, k : k + 1]
    return result


def _origins(surface, start, starts: np.ndarray, first_replica: int) -> np.ndarray:
    """The basin each replica begins in, (n_replicas,) int16."""
    n = starts.shape[1]
    if start is None:
        count = len(surface.minima())
        turn = ((np.arange(count) + first_replica) % count).astype(np.int16)
        return repeated(turn[None], n)[0]
    return surface.basins().label(starts.T.astype(float)).astype(np.int16)


def _warmest(surface, dynamics) -> float | None:
    try:
        return float(np.max(dynamics.effective_temperature(surface)))
    except UnsoundError:
        return None


def _weight(surface, dynamics) -> float:
    """Work of a step relative to a one-dimensional well, from the experiment alone."""
    from langevin.engines import batches, source

    if on_data(surface):
        return batches.Batches(surface, dynamics).weight
    return max(1.0, (source.operations(surface.gradient_source()) + 20 * surface.dim) / 40)
