"""The CUDA engine: a replica a thread, its state in registers for all steps of a launch.

The mirror of cpu.py, whose text it runs: threads.py turns lanes into threads, and here are the
launch and the memory. Nothing that is added up depends on an order: counts are integers, in shared
memory where they fit and flushed once, and sums of real numbers are kept exactly, as whole numbers
of eight sizes. So results do not depend on the grid or on the number of GPUs.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from langevin.engines import compiling, room, source
from langevin.engines.cpu import State, n_tasks, parts
from langevin.engines.cpu_steps import Layout
from langevin.engines.cuda_text import FEWER, columns, crowded, run_source
from langevin.engines.dropping import Remaining, all_passed, passages_alone, pays, waiting
from langevin.engines.exact_sums import ADD_EXACTLY, PARTS, ROOM, carried, from_floats, to_floats
from langevin.kernels import hardware, hardware_double, hardware_philox

THREADS = 256  # of a block, at most
SHARED = 16 * 1024  # bytes that a block's counters may take; with CROWD 48 kB, what every GPU has
LOOK = 0.25  # seconds between two looks at the clock
MOST = 1024  # launches queued at most


class Engine:
    """One compiled experiment: ``advance`` moves every replica from one step to a later one."""

    def __init__(
        self, surface, dynamics, observers, dtype: str, devices=(0,), threads: int = THREADS
    ):
        self.text, self.crowded = kernel_source(surface, dynamics, observers, dtype)
        self.observers, self.devices, self.threads = observers, tuple(devices), threads
        self.kernel = compiling.load_cuda(self.text)
        self.shares: list[Share] = []
        self.queued, self.batch = 0, 1
        self.seen_diverged = self.seen_passed = False
        for observer in observers:
            if observer.store.dtype == float and observer.kind != "trajectory":
                # What a checkpoint needs besides the rounded sums, to go on to the same bits.
                shape = (*observer.store.shape, PARTS)
                observer.memory["exact"] = observer.allocate(shape, np.int64, "Use fewer groups.")

    def compile(self, state: State) -> None:
        """Puts the state on the GPUs and compiles the kernel."""
        tasks, n = n_tasks(state.positions.shape[1]), state.positions.shape[1]
        spans = shares(n, tasks, len(self.devices))
        room.check(state, self.observers, self.devices, spans)
        with room.enough(n):
            for device, (begin, end) in zip(self.devices, spans, strict=False):
                self.shares.append(Share(self, state, device, begin, end, tasks))
            for share in self.shares:
                share.compile()
        self.look()

    def advance(self, state: State, begin: int, end: int) -> None:
        """Starts steps begin + 1 ... end for all replicas; begin is a multiple of 4.

        Returns at once, but every quarter of a second waits until the GPUs have caught up.
        """
        if not self.queued:
            self.began = time.perf_counter()
        with room.enough(state.positions.shape[1]):
            packed = self.packed(state) if len(self.shares) > 1 else None
            for share in self.shares:
                share.advance(begin, end, packed)
            self.queued += 1
            if self.queued >= self.batch or passages_alone(self.observers):
                self.look()

    def packed(self, state: State) -> bool:
        """Whether replicas that have passed are left out: for all GPUs, as if they were one."""
        if state.extra or not passages_alone(self.observers):
            return False
        return pays(sum(share.waiting() for share in self.shares), len(state.fate))

    def look(self) -> None:
        """Waits for the GPUs, and sees whether replicas diverged or all have passed."""
        for share in self.shares:
            share.synchronise()
        if self.queued:
            spent = (time.perf_counter() - self.began) / self.queued
            self.batch = int(min(MOST, 2 * self.batch, max(1, LOOK / max(spent, 1e-9))))
        self.queued = 0
        self.seen_diverged = any(share.diverged() for share in self.shares)
        self.seen_passed = all(share.all_passed() for share in self.shares)

    def diverged(self, state: State) -> bool:
        """Whether a replica had diverged at the last look."""
        return self.seen_diverged

    def passed(self, state: State) -> bool:
        """Whether nothing was left to wait for at the last look."""
        return self.seen_passed

    def fetch(self, state: State) -> None:
        """Brings the host's copies of state, stores and memory up to date."""
        if not self.shares:
            return
        self.look()
        for observer in self.observers:
            if "exact" in observer.memory:
                observer.memory["exact"][...] = 0
            elif observer.kind != "trajectory":
                observer.store[...] = 0
        for share in self.shares:
            share.fetch(state)
        for observer in self.observers:
            if "exact" in observer.memory:
                observer.store[...] = to_floats(observer.memory["exact"])

    def positions(self, state: State) -> Any:
        """The state where it is: on the GPU, if there is one alone."""
        return self.shares[0].state.positions if len(self.shares) == 1 else state.positions

    def close(self) -> None:
        """Frees the GPUs' memory that no result refers to."""
        self.shares.clear()


class Share:
    """The replicas of one GPU: copies of their state and of the observers' memory."""

    def __init__(self, engine: Engine, state: State, device: int, begin: int, end: int, tasks: int):
        self.engine, self.device, self.tasks = engine, device, tasks
        self.begin, self.end, self.n = begin, end, state.positions.shape[1]
        self.constants: dict[tuple, Any] = {}
        self.added = 0  # numbers that an exact sum may have taken since its parts were carried
        with compiling.on_device(device):
            moved = {
                "positions": self.mine(state.positions),
                "coefficients": self.mine(state.coefficients),
                "fate": self.mine(state.fate),
                "extra": tuple(
                    self.mine(v) if isinstance(v, np.ndarray) and v.ndim == 1 else v
                    for v in state.extra
                ),
            }
            first = state.first_replica + begin
            self.state = dataclasses.replace(state, **moved, first_replica=first)
            self.observers = [self.twin(observer) for observer in engine.observers]

    def mine(self, values: np.ndarray) -> Any:
        """A copy on the GPU of what concerns these replicas, by the last axis."""
        some = values[..., self.begin : self.end] if values.shape[-1] == self.n > 1 else values
        return compiling.to_device(some)

    def twin(self, observer: Any) -> Any:
        """The observer with its store and what it knows of single replicas on the GPU."""
        twin = copy.copy(observer)
        twin.memory = {k: self.mine(v) for k, v in observer.memory.items() if k != "exact"}
        for name in ("cells", "shift", "place"):
            if hasattr(observer, name):
                setattr(twin, name, self.mine(getattr(observer, name)))
        if "exact" in observer.memory:
            store = observer.memory["exact"]
            if observer.store.any() and not store.any():  # a checkpoint from before
                store[...] = from_floats(observer.store)
        else:
            store = observer.store
        # Sums of what was done before, once; the trajectory is everybody's, in parts.
        empty = self.begin > 0 and observer.kind != "trajectory"
        twin.store = compiling.to_device(np.zeros_like(store) if empty else store)
        return twin

    def arguments(self, state: State, observers: list, begin: int, end: int) -> tuple:
        """What the kernel takes; whatever does not change is copied to the GPU once."""
        spans = (np.int64(begin // source.GROUP), np.int64(end), np.int64(self.tasks))
        given = [*state.arguments(begin, end), *spans]
        owners = [("state", k) for k in range(len(given))]
        for j, observer in enumerate(observers):
            values = observer.arguments()
            given += values
            owners += [(j, k) for k in range(len(values))]
        return tuple(map(self.argument, owners, given))

    def argument(self, owner: tuple, value: Any) -> Any:
        """One argument as the kernel takes it; of the state, the schedule's table alone changes."""
        if not isinstance(value, np.ndarray):
            return compiling.kernel_array(value)
        if compiling.simulated():
            return value
        known, found = self.constants.get(owner, (None, None))
        if found is None or (owner[0] == "state" and known is not value):
            found = compiling.kernel_array(compiling.to_device(value))
            self.constants[owner] = value, found
        return found

    def launch(self, n: int) -> tuple[int, int, int]:
        """Blocks, threads of each, and bytes of shared memory."""
        observers, threads = self.engine.observers, self.engine.threads
        most = min(threads, FEWER) if self.engine.crowded else threads
        counters = sum(o.store[0].size for o in shared(observers))
        return *grid(n, self.tasks, most), 4 * counters

    def compile(self) -> None:
        """Compiles the kernel for this GPU."""
        with compiling.on_device(self.device):
            arguments = self.arguments(self.state, self.observers, 0, 0)
            compiling.launch(self.engine.kernel, self.launch(self.end - self.begin), arguments)

    def waiting(self) -> int:
        """How many replicas still have a passage before them."""
        with compiling.on_device(self.device):
            return int(waiting(self.state, self.observers).sum())

    def advance(self, begin: int, end: int, packed: bool | None = None) -> None:
        """Launches the kernel for steps begin + 1 ... end; ``packed`` as `Remaining` takes it."""
        with compiling.on_device(self.device):
            moved = Remaining(self.state, self.observers, packed)
            n = moved.state.positions.shape[1]
            if n == 0:
                return
            shape = self.launch(n)
            for first, last in self.launches(begin, end):
                arguments = self.arguments(moved.state, moved.observers, first, last)
                compiling.launch(self.engine.kernel, shape, arguments)
            moved.put_back()

    def launches(self, begin: int, end: int) -> Iterator[tuple[int, int]]:
        """The spans of steps begin + 1 ... end that may be launched, one after the other.

        Makes room in the exact sums, to which a replica adds at most one number a step; how many
        there are follows from the experiment, so that results do not depend on the GPUs.
        """
        pairs = zip(self.engine.observers, self.observers, strict=True)
        sums = [twin.store for observer, twin in pairs if "exact" in observer.memory]
        each = row_length(self.n, self.tasks)
        most = max(4, ROOM // each // 4 * 4) if sums else end - begin
        for first in range(begin, end, most):
            last = min(end, first + most)
            self.added += (last - first) * each
            if self.added > ROOM:
                self.added = (last - first) * each
                for store in sums:
                    carried(store)
            yield first, last

    def synchronise(self) -> None:
        """Waits for everything launched."""
        with compiling.on_device(self.device):
            compiling.synchronise()

    def diverged(self) -> bool:
        """Whether a replica has."""
        with compiling.on_device(self.device):
            return bool((self.state.fate >= 0).any())

    def all_passed(self) -> bool:
        """Whether nothing is left to wait for."""
        with compiling.on_device(self.device):
            return all_passed(self.state, self.observers)

    def fetch(self, state: State) -> None:
        """Copies state and memory to the host, and adds counts and sums to those there."""
        here = slice(self.begin, self.end)
        with compiling.on_device(self.device):
            state.positions[:, here] = compiling.to_host(self.state.positions)
            state.fate[here] = compiling.to_host(self.state.fate)
            for observer, twin in zip(self.engine.observers, self.observers, strict=True):
                store = compiling.to_host(twin.store)
                if observer.kind == "trajectory":
                    place = observer.place[here]
                    place = place[place >= 0]
                    observer.store[..., place] = store[..., place]
                elif "exact" in observer.memory:
                    observer.memory["exact"] += carried(store)
                else:
                    observer.store += store
                for name, values in twin.memory.items():
                    observer.memory[name][..., here] = compiling.to_host(values)


def grid(n_replicas: int, tasks: int, threads: int = THREADS) -> tuple[int, int]:
    """Blocks and threads of each: every block works for one task, whose replicas it takes in turn.

    Block b works for task b mod tasks; thread t of its c-th block takes place c threads + t in the
    row of the task's replicas, which are those of the 64s task, task + tasks, task + 2 tasks, ...
    """
    longest = row_length(n_replicas, tasks)
    threads = min(threads, longest)
    return tasks * math.ceil(longest / threads), threads


def row_length(n_replicas: int, tasks: int) -> int:
    """Places in the longest row of a task's replicas."""
    return 64 * math.ceil(math.ceil(n_replicas / 64) / tasks)


def shares(n_replicas: int, tasks: int, count: int) -> list[tuple[int, int]]:
    """Where the replicas of each of ``count`` GPUs begin and end; small runs need fewer GPUs.

    A share begins at a multiple of 64 tasks, so that every replica keeps its task.
    """
    each = 64 * tasks * math.ceil(n_replicas / (64 * tasks * count))
    return [(begin, min(begin + each, n_replicas)) for begin in range(0, n_replicas, each)]


def shared(observers) -> list:
    """The observers whose counts a block keeps in shared memory, as long as they fit."""
    found, room = [], SHARED
    for observer in observers:
        size = 4 * (observer.store.size // max(1, len(observer.store)))
        if observer.kind in ("histogram", "transitions") and size <= room:
            found.append(observer)
            room -= size
    return found


def kernel_source(surface, dynamics, observers, dtype: str) -> tuple[str, bool]:
    """The whole module that a run compiles, and whether its blocks have `FEWER` threads."""
    known = not hasattr(surface, "n_examples") and surface.dim <= 3
    words = 4 * Layout(source.step_of(surface, dynamics), dtype).draws if known else 0
    layout = {"threads": True, "known": known, "crowded": known and crowded(observers, words)}
    functions, run = parts(surface, dynamics, observers, dtype, **layout)
    stores, kept = {}, shared(observers)
    for k, observer in enumerate(observers):
        exact = observer.store.dtype == float and observer.kind != "trajectory"
        stores[f"counts{k}"] = "shared" if observer in kept else "exact" if exact else "global"
    faster = (hardware_philox, hardware if dtype == "float32" else hardware_double)
    hardware_text = [compiling.pasted(module) for module in faster]
    crowd = columns(run, np.dtype(dtype).itemsize) if layout["crowded"] else {}
    text = run_source(run, stores, known, crowd)
    text = source.module_source(dtype, *hardware_text, ADD_EXACTLY, *functions, text)
    return text, layout["crowded"]


def ptx(surface, dynamics, observe=(), cc=(9, 0), *, dtype: str = "float64") -> str:
    """PTX of the kernel of a run, compiled without a GPU; needs numba-cuda's wheels (cu13)."""
    from langevin.preparation import ready

    settings = {"n_replicas": 2**20, "n_steps": 1024, "burn_in": 0, "seed": 0, "first_replica": 0}
    state, bound, _ = ready(surface, dynamics, observe, None, dtype=dtype, **settings)
    text, _ = kernel_source(surface, dynamics, bound, dtype)
    spans = (np.int64(0), np.int64(4), np.int64(1))
    for observer in bound:
        if observer.store.dtype == float and observer.kind != "trajectory":
            observer.store = np.zeros((*observer.store.shape, PARTS), np.int64)
    observed = [value for observer in bound for value in observer.arguments()]
    return compiling.ptx(text, (*state.arguments(0, 4), *spans, *observed), cc)
