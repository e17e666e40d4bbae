"""simulate(): the one door. Validates, chooses the engine, runs in chunks, returns a Result."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import math
import time
from typing import Any

import numpy as np

from langevin import information
from langevin.checkpoint import Checkpoint
from langevin.checks import one_of, whole_number
from langevin.devices import choose
from langevin.dynamics import SGD, Overdamped, Underdamped
from langevin.errors import (
    CheckpointError,
    DivergenceError,
    LangevinError,
    ParameterError,
)
from langevin.preparation import check_dynamics, on_data, ready, work
from langevin.progress import interruptible, progress_bar
from langevin.result import Result
from langevin.stability import check_stability

WINDOW = 2**30  # replica-steps between two looks at the clock, about a second
GPU_WINDOW = 2**33  # replica-steps of a launch, about 10 ms; several are queued between two looks
GPU_THREADS = 2**17  # fewer replicas are not moved any faster


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
    checkpoint: Any = None,
    checkpoint_every: float = 60.0,
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

    ``checkpoint`` is a folder of this run's own. Its state is saved there when the run begins and
    ends, also by Ctrl-C, and every ``checkpoint_every`` seconds between; the same call again goes
    on from there and gives the same bits as a run that never stopped, on any number of threads.

    Raises ParameterError for bad arguments, UnsoundError for a step that must diverge,
    CheckpointError for a checkpoint that is another run's, corrupt, in use or cannot be written,
    and DivergenceError if a replica escapes to infinity. The ``.result`` of the last two holds
    what was computed.
    """
    if hasattr(surface, "module"):  # a network
        from langevin.neural.training import simulate_network

        return simulate_network(
            surface, dynamics, n_replicas=n_replicas, n_steps=n_steps, seed=seed, burn_in=burn_in,
            observe=observe, start=start, first_replica=first_replica, device=device, dtype=dtype,
            progress=progress, checkpoint=checkpoint, checkpoint_every=checkpoint_every,
            on_divergence=on_divergence,
        )  # fmt: skip
    n_replicas = whole_number("n_replicas", n_replicas, 1, 2**32 - 1)
    n_steps = whole_number("n_steps", n_steps, 1, 2**33 - 1)
    burn_in = whole_number("burn_in", burn_in, 0, n_steps - 1)
    seed = whole_number("seed", seed, 0, 2**64 - 1)
    first_replica = whole_number("first_replica", first_replica, 0, 2**32 - n_replicas)
    if isinstance(dtype, np.dtype) or dtype in (np.float32, np.float64):
        dtype = np.dtype(dtype).name
    one_of("dtype", dtype, ("float64", "float32"))
    one_of("on_divergence", on_divergence, ("stop", "absorb"))
    chosen = choose(device)
    check_dynamics(surface, dynamics, n_replicas)
    check_stability(surface, dynamics, n_steps)
    if on_data(surface) and n_steps > 2**32 - 4:
        raise ParameterError(f"n_steps={n_steps}: on data a run has at most 2**32 - 4 steps.")

    state, bound, began_at = ready(
        surface, dynamics, observe, start, n_replicas=n_replicas, n_steps=n_steps, burn_in=burn_in,
        seed=seed, first_replica=first_replica, dtype=dtype,
    )  # fmt: skip
    # One of two engines, which mirror each other.
    if chosen.kind == "cuda":
        from langevin.engines import cuda

        engine = cuda.Engine(surface, dynamics, bound, dtype, chosen.numbers)
    else:
        from langevin.engines import cpu

        engine = cpu.Engine(surface, dynamics, bound, dtype)
    from langevin.engines.dropping import passages_alone

    began = time.perf_counter()
    longest = 2**12 if passages_alone(bound) else 2**16  # looks who is left
    window = _window(n_replicas, work(surface, dynamics), longest, chosen.kind, dtype)
    described = {
        "surface": surface,
        "dynamics": dynamics,
        "observers": observe if isinstance(observe, (tuple, list)) else (observe,),
        "n_replicas": n_replicas,
        "n_steps": n_steps,
        "burn_in": burn_in,
        "seed": seed,
        "first_replica": first_replica,
        "device": chosen.kind,
        "dtype": dtype,
        "on_divergence": on_divergence,
        "window": window,
        "kernel": hashlib.sha256(engine.text.encode()).hexdigest(),
    }
    done, resumed_at, saved = 0, 0, None
    with contextlib.ExitStack() as stack:
        stack.callback(engine.close)
        if checkpoint is not None:
            fetch = functools.partial(engine.fetch, state)
            saved = Checkpoint(checkpoint, checkpoint_every, fetch)
            stack.callback(saved.close)
            done = resumed_at = saved.start(described, state, bound)
            began -= saved.elapsed
        stops = on_divergence == "stop"
        done, failure = _advance(
            engine, state, done, n_steps, window, stops, progress, saved, chosen.name
        )
        engine.fetch(state)
        rows = engine.positions(state)
    result = _result(
        surface, dynamics, state, rows, bound, done, began, n_steps, burn_in, seed, dtype
    )
    result = dataclasses.replace(
        result,
        resumed_at=resumed_at,
        start=began_at,
        device=chosen.name if hasattr(rows, "get") else "cpu",
        provenance=result.provenance | {"device": chosen.name},
    )
    if failure is not None:
        failure.result = result
        raise failure
    if on_divergence == "stop" and (state.fate >= 0).any():
        raise DivergenceError(_escaped(result), result)
    return result


def _window(n_replicas: int, weight: float, longest: int, kind: str, dtype: str = "float32") -> int:
    """Steps of one call of the kernel, from the experiment and the kind of device alone."""
    size, busy, shortest = WINDOW, n_replicas, 64 if weight <= 4 else 4
    if kind == "cuda":
        size, busy = GPU_WINDOW, max(n_replicas, GPU_THREADS)
        slow = 8 if dtype == "float64" else 1  # on most cards more than that
        # So that a launch of 10^8 replicas, too, ends within a second, for Ctrl-C to be seen.
        shortest = 2 ** max(4, math.floor(math.log2(512 / (weight * slow))))
    window = 2 ** math.floor(math.log2(max(1, size / (busy * weight))))
    return int(min(longest, max(shortest, window)))


def _advance(engine, state, done, n_steps, window, stops, progress, saved, where):
    """Runs window after window; the steps done, and the error of a checkpoint not written."""
    n = state.positions.shape[1]
    with interruptible() as interrupted, progress_bar(progress, n, n_steps) as show:

        def going() -> bool:
            if done >= n_steps or interrupted() or (stops and engine.diverged(state)):
                return False
            return done == 0 or not engine.passed(state)

        try:
            show(done, "compiling")
            if going():
                engine.compile(state)
            show(done, f"running on {where}")
            while going():
                end = min(n_steps, done + window)
                try:
                    engine.advance(state, done, end)
                except KeyboardInterrupt:
                    done = end
                    break
                done = end
                show(done, f"running on {where}")
                if saved is not None:
                    saved.due(done)
            else:  # not after a second Ctrl-C, which may leave the state between two windows
                if saved is not None:
                    saved.write(done)
        except KeyboardInterrupt:
            pass
        except CheckpointError as error:
            return done, error
    return done, None


def _result(
    surface, dynamics, state, rows, bound, done, began, n_steps, burn_in, seed, dtype
) -> Result:
    from langevin.engines.dropping import all_passed
    from langevin.engines.source import has_momentum

    dim = surface.dim
    positions = rows[:dim].T
    velocities = rows[dim : 2 * dim].T if has_momentum(dynamics) else None
    diverged = np.where(
        state.fate >= 0, np.minimum(4 * (state.fate.astype(np.int64) + 1), done), -1
    )
    observed = {}
    for observer in bound:
        try:
            observed[observer.name] = observer.estimate(done, diverged)
        except LangevinError as error:  # an early end: the rest of the result is still good
            observed[observer.name] = error
    return Result(
        surface=surface,
        dynamics=dynamics,
        positions=positions,
        velocities=velocities,
        diverged=diverged,
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
        provenance=information.provenance(),
        ended_early=done < n_steps and all_passed(state, bound),
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
