"""simulate() on a network: validates, trains window after window, returns a NetworkResult."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from langevin import information
from langevin.checkpoint import Checkpoint
from langevin.checks import one_of, whole_number
from langevin.devices import for_networks
from langevin.dynamics import SGD, Adam, Underdamped
from langevin.engines.torch import Engine, next_stop
from langevin.errors import (
    CheckpointError,
    DivergenceError,
    OutOfMemoryError,
    ParameterError,
)
from langevin.neural.observers import fitting
from langevin.neural.reached import bind, satisfied
from langevin.neural.result import NetworkResult
from langevin.progress import interruptible, progress_bar
from langevin.schedules import Schedule


def simulate_network(
    surface: Any,
    dynamics: Any,
    *,
    n_replicas: int,
    n_steps: int,
    seed: int,
    burn_in: int,
    observe: Any,
    start: Any,
    first_replica: int,
    device: str,
    dtype: str,
    progress: bool,
    checkpoint: Any,
    checkpoint_every: float,
    on_divergence: str,
) -> NetworkResult:
    """Trains ``n_replicas`` networks at once; the arguments are those of `langevin.simulate`.

    ``start=None`` initialises each replica anew, keyed by seed and replica; "module" copies the
    surface's module; else numbers (dim,) or (n_replicas, dim).
    """
    n_replicas = whole_number("n_replicas", n_replicas, 1, 2**32 - 1)
    n_steps = whole_number("n_steps", n_steps, 1, 2**32 - 4)
    burn_in = whole_number("burn_in", burn_in, 0, n_steps - 1)
    seed = whole_number("seed", seed, 0, 2**64 - 1)
    first_replica = whole_number("first_replica", first_replica, 0, 2**32 - n_replicas)
    one_of("dtype", dtype, ("float64", "float32"))
    one_of("on_divergence", on_divergence, ("stop", "absorb"))
    place = for_networks(device)
    _check(surface, dynamics, n_replicas)
    given = tuple(observe) if isinstance(observe, (tuple, list)) else (observe,)
    given = fitting(surface, given)
    bound = [bind(observer, n_replicas, n_steps, burn_in) for observer in given]
    names = [b.name for b in bound]
    if len(set(names)) < len(names):
        raise ParameterError(f"two observers have one name, of {names}: give each its own name=.")
    run = {
        "n_replicas": n_replicas,
        "n_steps": n_steps,
        "burn_in": burn_in,
        "seed": seed,
        "first_replica": first_replica,
        "dtype": dtype,
        "on_divergence": on_divergence,
    }
    began = time.perf_counter()
    engine = engine_on(place)(surface, dynamics, run, bound)
    try:
        state = engine.start(start)
    except MemoryError as error:
        size = n_replicas * surface.dim * np.dtype(dtype).itemsize / 2**30
        raise OutOfMemoryError(
            f"n_replicas={n_replicas:,} networks of {surface.dim:,} parameters take {size:,.1f} "
            f"GiB in {dtype}, several times that with their gradients: more than there is "
            f"({error}). Use fewer replicas, or run them in parts with first_replica=."
        ) from error
    done = resumed_at = 0
    saved, failure = None, None
    with contextlib.ExitStack() as stack:
        stack.callback(engine.close)
        if checkpoint is not None:
            saved = Checkpoint(checkpoint, checkpoint_every)
            stack.callback(saved.close)
            described = {"surface": surface, "module": surface.module, "dynamics": dynamics}
            described |= {"device": place.partition(":")[0]}
            described |= {"observers": [(type(o).__name__, o.name) for o in given]}
            done = resumed_at = saved.start(described | run, state, bound)
            began -= saved.elapsed
        stops = on_divergence == "stop"
        try:
            done = _train(engine, state, done, n_steps, stops, progress, saved)
        except CheckpointError as error:
            failure, done = error, engine.done
    result = NetworkResult(
        surface=surface,
        dynamics=dynamics,
        positions=state.positions[0],
        velocities=state.positions[1] if len(state.positions) > 1 else None,
        diverged=state.fate,
        n_steps=n_steps,
        steps_done=done,
        burn_in=burn_in,
        seed=seed,
        first_replica=first_replica,
        dtype=dtype,
        elapsed=time.perf_counter() - began,
        how=engine.how,
        observed={b.name: b.estimate(done) for b in bound},
        stopped=satisfied(bound, state.fate),
        resumed_at=resumed_at,
        device=place,
        provenance=information.provenance() | {"torch": information.version("torch") or ""},
    )
    if failure is not None:
        failure.result = result
        raise failure
    if on_divergence == "stop" and (state.fate >= 0).any():
        raise DivergenceError(_escaped(result), result)
    return result


def engine_on(place: str) -> Callable[..., Engine]:
    """The native engine on the CPU, tensors on a GPU."""
    if place == "cpu":
        return Engine
    from langevin.engines.tensors import TensorEngine

    return functools.partial(TensorEngine, device=place)


def _train(engine, state, done, n_steps, stops, progress, saved) -> int:
    """Window after window; the steps done. Ctrl-C ends it between two windows."""
    engine.done = done
    shown = time.perf_counter()
    with interruptible() as interrupted, progress_bar(progress, engine.n, n_steps) as show:
        show(done, "training")
        while engine.done < n_steps and not interrupted():
            if stops and (state.fate >= 0).any():
                break
            if satisfied(engine.observers, state.fate):
                break
            end = next_stop(engine.observers, engine.done, n_steps, engine.window)
            engine.advance(state, engine.done, end)
            engine.done = end
            engine.look(state, end)
            if time.perf_counter() - shown > 0.1 or end == n_steps:
                show(end, "training")
                shown = time.perf_counter()
            if saved is not None:
                saved.due(end)
        if saved is not None:
            saved.write(engine.done)
    return engine.done


def _check(surface: Any, dynamics: Any, n_replicas: int) -> None:
    """Refuses dynamics that networks do not have, batches that are no whole numbers."""
    if getattr(dynamics, "batch_size", None) is not None:
        size = dynamics.batch_size
        sizes = np.atleast_1d(np.asarray(size.base if isinstance(size, Schedule) else size, float))
        fixed = not isinstance(size, Schedule)  # scheduled sizes are rounded
        broken = (fixed & (sizes != np.round(sizes))) | (sizes < 1)
        if broken.any():
            raise ParameterError(
                f"batch_size={sizes[broken][0]:g}: a mini-batch "
                "of real examples needs a whole number >= 1."
            )
        if dynamics.sampling != "with_replacement" and sizes.max() > surface.n_examples:
            raise ParameterError(
                f"batch_size={int(sizes.max())} is larger than the data ({surface.n_examples} "
                "examples) and the sampling is without replacement. Use a smaller batch, or "
                "sampling='with_replacement'."
            )
    known = ("euler_maruyama", "leimkuhler_matthews")
    others = (SGD, Adam, Underdamped)
    if not isinstance(dynamics, others) and getattr(dynamics, "integrator", "") not in known:
        raise ParameterError(
            f"{dynamics!r}: networks take SGD, Adam, Underdamped, or Overdamped with "
            "integrator='euler_maruyama' or 'leimkuhler_matthews'."
        )
    if isinstance(dynamics, Underdamped) and np.any(np.asarray(dynamics.masses) != 1):
        raise ParameterError(f"{dynamics!r}: the parameters of a network have the mass 1.")
    if surface.labels is not None and len(surface.labels.which) != n_replicas:
        raise ParameterError(
            f"label_noise has {len(surface.labels.which)} values but n_replicas={n_replicas}: give "
            "one share, or one per replica."
        )
    names = ("learning_rate", "batch_size", "momentum", "weight_decay", "clip_norm")
    for name in (*names, "temperature", "friction", "dt"):
        value = getattr(dynamics, name, 0.0)
        value = value.base if isinstance(value, Schedule) else value
        if np.ndim(value) == 1 and len(value) != n_replicas:
            raise ParameterError(
                f"{name} has {len(value)} values but n_replicas={n_replicas}: give one number, or "
                "one per replica."
            )


def _escaped(result: NetworkResult) -> str:
    where = np.flatnonzero(result.diverged >= 0)
    first = where[np.argmin(result.diverged[where])]
    return (
        f"the loss of {len(where)} of {result.n_replicas} networks is no longer finite; the first "
        f"is replica {result.first_replica + int(first)}, at step {int(result.diverged[first])}. "
        "Reduce the learning rate, or pass on_divergence='absorb' to go on with the others. What "
        "was computed is in this error's .result."
    )
