"""The CPU engine: blocks of 64 replicas as SIMD lanes, one fused loop over steps, all cores.

Loops and memory only; the mathematics is in ``kernels/`` and in the surface's gradient. A block's
state stays in cache while all steps of a call run. Per group of four steps one loop over lanes
makes the random words, one turns them into normals and takes the steps, and the observers read the
trail of the group. Everything has a constant trip count of 64, so a replica
computes the same bits alone or among many.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field

import numpy as np

from langevin.dynamics import SGD
from langevin.engines import compiling, source
from langevin.engines.batches import Batches
from langevin.engines.cpu_observers import observer_source
from langevin.engines.cpu_pieces import lasting, read_again
from langevin.engines.cpu_steps import (
    Layout,
    at_step,
    batched,
    constants,
    fused,
    split,
    words,
)
from langevin.engines.dropping import Remaining, all_passed
from langevin.engines.source import GROUP, Step, joined, names
from langevin.engines.windows import Schedules

LANES = 64
TASKS = 64
# Observers for which a replica that has diverged might as well be gone.
UNSEEN = ("histogram", "occupation", "moments", "average", "temperature")
FUSED_OPERATIONS = 40  # larger steps read their normals from cache: the code stays small


@dataclass
class State:
    """Everything a run carries from one call to the next; arrays are (rows, n_replicas)."""

    positions: np.ndarray
    coefficients: np.ndarray
    parameters: np.ndarray
    fate: np.ndarray  # group of steps in which a replica diverged, or -1
    key: tuple
    limit: float
    first_replica: int
    extra: tuple  # what the surface's own loops need (data, batch sizes)
    schedule: Schedules
    # The replicas' own numbers where they do not follow one another; empty where they do.
    numbers: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint64))

    def arguments(self, begin: int, end: int) -> tuple:
        """The kernel's first arguments, for steps begin + 1 ... end."""
        real = self.positions.dtype.type
        return (
            self.positions,
            self.coefficients,
            self.parameters,
            self.fate,
            np.uint64(self.key[0]),
            np.uint64(self.key[1]),
            real(self.limit),
            np.int64(self.first_replica),
            self.numbers,
            *((self.schedule.window(begin, end),) if self.schedule.rows else ()),
            *self.extra,
        )


def n_tasks(n_replicas: int) -> int:
    """Tasks a run is cut into: fixed by the number of replicas alone, so results never vary."""
    return min(TASKS, -(-n_replicas // LANES))


class Engine:
    """One compiled experiment: ``advance`` moves every replica from one step to a later one."""

    def __init__(self, surface, dynamics, observers, dtype: str):
        self.text = kernel_source(surface, dynamics, observers, dtype)
        self.observers = observers
        self.kernel = compiling.load(self.text)
        self.pool = ThreadPoolExecutor(compiling.n_threads())

    def _arguments(self, state: State, begin: int, end: int, task: int, observers=None) -> tuple:
        tasks = n_tasks(state.positions.shape[1])
        observers = self.observers if observers is None else observers
        spans = (np.int64(begin // GROUP), np.int64(end), np.int64(task), np.int64(tasks))
        observed = (value for observer in observers for value in observer.arguments())
        return (*state.arguments(begin, end), *spans, *observed)

    def compile(self, state: State) -> None:
        """Compiles, or loads from disk, the kernel for these arguments."""
        self.kernel.compile(compiling.argument_types(self._arguments(state, 0, 0, 0)))

    def advance(self, state: State, begin: int, end: int) -> None:
        """Runs steps begin + 1 ... end for all replicas; begin is a multiple of 4."""
        futures, interrupted = [], False
        moved = Remaining(state, self.observers)
        tasks = n_tasks(moved.state.positions.shape[1])
        while len(futures) < tasks:
            arguments = self._arguments(moved.state, begin, end, len(futures), moved.observers)
            try:
                futures.append(self.pool.submit(self.kernel, *arguments))
            except KeyboardInterrupt:
                interrupted = True
        try:
            wait(futures)
        except KeyboardInterrupt:
            interrupted = True
            wait(futures)  # so that every replica has taken the same number of steps
        for future in futures:
            future.result()
        moved.put_back()
        if interrupted:
            raise KeyboardInterrupt

    def diverged(self, state: State) -> bool:
        """Whether a replica has diverged."""
        return bool((state.fate >= 0).any())

    def passed(self, state: State) -> bool:
        """Whether first passages are all that is observed, and none is left."""
        return all_passed(state, self.observers)

    def fetch(self, state: State) -> None:
        """The host's arrays are the engine's own."""

    def positions(self, state: State) -> np.ndarray:
        """The state's rows where they are."""
        return state.positions

    def close(self) -> None:
        """Ends the threads."""
        self.pool.shutdown()


def kernel_source(surface, dynamics, observers, dtype: str) -> str:
    """The whole module that a run compiles."""
    functions, run = parts(surface, dynamics, observers, dtype)
    return source.module_source(dtype, *functions, run.text())


@dataclass(frozen=True)
class Run:
    """``run``, the loop over blocks, groups of steps and observers, as lines."""

    arguments: str
    setup: list[str]
    block: list[str]
    trail: range = range(0)  # rows of the lane buffer: state, coefficients, a group's four states
    lasting: tuple[str, ...] = ()  # what observers keep from one look to the next

    def text(self) -> str:
        """The function's source."""
        loop = "for block in range(task, (n + 63) // 64, tasks):"
        head = ["kernel_hints()", *self.setup, loop]
        return f"def run({self.arguments}):\n" + indented(head, 1) + indented(self.block, 2)


def parts(surface, dynamics, observers, dtype: str, **layout) -> tuple[list[str], Run]:
    """The functions that belong to a run, as text, and its loop; ``layout`` as `Layout` takes."""
    batches = Batches(surface, dynamics) if hasattr(surface, "n_examples") else None
    gaussian = not isinstance(dynamics, SGD) or batches is None
    if batches is None:
        slope = surface.gradient_source()
        step = one = source.step_of(surface, dynamics)
        small = surface.dim <= 3 and source.operations(slope) <= FUSED_OPERATIONS
        stepping = fused if small or layout.get("known") else split
    else:
        slope, stepping = batches.source, batched
        step, one = (Step(dim, dynamics, gaussian) for dim in (surface.dim, 1))
    leaves = all(observer.kind in UNSEEN for observer in observers)
    plan = Layout(step, dtype, leaves=leaves, **layout)
    parameters = names("p", len(surface.parameters))
    pieces = [observer_source(k, observer, plan) for k, observer in enumerate(observers)]
    pieces = [read_again(piece) if plan.crowded else piece for piece in pieces]
    functions = [
        slope,
        source.step_source(one),
        *(piece.functions for piece in pieces if piece.functions),
    ]
    return functions, _run(plan, parameters, batches, stepping(plan, batches), pieces, observers)


def indented(lines, depth: int) -> str:
    """Lines at an indentation of ``depth`` levels."""
    return "".join("    " * depth + line + "\n" if line else "\n" for line in lines)


def _run(layout: Layout, parameters, batches, stepping, pieces, observers) -> Run:
    arguments = joined(
        ["positions", "coefficients", "parameters", "fates", "key0", "key1", "limit"],
        ["first_replica", "numbers"],
        ["schedule"] if layout.step.scheduled else [],
        batches.arguments if batches else [],
        ["group_begin", "step_end", "task", "tasks"],
        *(piece.arguments for piece in pieces),
    )
    head = [
        "n = positions.shape[1]",
        f"lanes = np.empty(({layout.rows}, 64), real)",
        f"word = np.empty(({max(4 * layout.draws, 1)}, 64), np.uint32)",
        "ids = np.empty(64, np.uint64)",
        "fate = np.empty(64, np.int32)",
        "per_replica = 1 if coefficients.shape[1] > 1 else 0",
        *(f"{name} = parameters[{k}]" for k, name in enumerate(constants(layout, parameters))),
        *(batches.setup if batches else []),
        *(line for piece in pieces for line in piece.setup),
        "group_end = (step_end + 3) // 4",
    ]
    size = len(layout.state)
    block = [
        "start = block * 64",
        "valid = min(64, n - start)",
        "for i in range(64):",
        "    r = start + min(i, valid - 1)",
        f"    for k in range({size}):",
        "        lanes[k, i] = positions[k, r]",
        *(
            f"    lanes[{layout.first_coefficient + k}, i] = coefficients[{k}, r * per_replica]"
            for k in range(len(layout.coefficients))
        ),
        "    fate[i] = fates[r] if i < valid else np.int32(0)",
        "    ids[i] = np.uint64(first_replica + start + i)",
        "    if numbers.size > 0:",
        "        ids[i] = numbers[r]",
        *(batches.block if batches else []),
        *(line for piece in pieces for line in piece.block),
    ]
    trail = range(layout.trail + source.GROUP * size)
    if layout.known and not layout.crowded:  # where no group is taken, none has been written
        block.append("for i in range(64):")
        block += [f"    lanes[{row}, i] = 0" for row in trail[layout.trail :]]
    end = "group_end"
    if layout.leaves:
        block += ["for i in range(64):", "    end = group_end if fate[i] < 0 else group_begin"]
        end = "end"
    step, look = [*words(layout), *stepping], _observe(pieces, layout, observers)
    if layout.threads:
        block += _thread_loop(layout, end, step, look)
    else:
        block += [f"for group in range(group_begin, {end}):"]
        block += ["    " + line for line in step + look]
    tail = [
        "last = (step_end - 1) % 4",
        "partial = last != 3 and group_end > group_begin",
        *at_step(layout, "last"),
        "for i in range(valid):",
        "    r = start + i",
        "    if partial and (fate[i] < 0 or fate[i] == group_end - 1):",
        "        fate[i] = -1",
        f"        for k in range({layout.dim}):",
        "            if not abs(lanes[row + k, i]) < limit:",
        "                fate[i] = np.int32(group_end - 1)",
        "        if fate[i] < 0:",
        f"            for k in range({size}):",
        "                lanes[k, i] = lanes[row + k, i]",
        "    fates[r] = fate[i]",
        f"    for k in range({size}):",
        "        positions[k, r] = lanes[k, i]",
        *(line for piece in pieces for line in piece.flush),
    ]
    kept = tuple(name for k, piece in enumerate(pieces) for name in lasting(k, piece))
    return Run(arguments, head, [*block, *tail], trail, kept)


def _thread_loop(layout: Layout, end: str, step: list[str], look: list[str]) -> list[str]:
    """A thread's loop over groups, whose numbers have 32 bits.

    It goes on to the next look at once, so that no group asks for one. Where it stops short, the
    replica has diverged, and there is nothing to look at.
    """
    step = [*step, "group = np.uint32(group + np.uint32(1))"]
    lines = ["group = np.uint32(group_begin)", f"finish = np.uint32({end})", "stop = finish"]
    if look:
        steps = "np.int32(step_end - 4 * group_begin)"
        lines += [f"steps = {steps} if group < finish else np.int32(0)"]
        lines += [line.strip() for line in look[-2:]]
        step += ["if group >= stop:", "    break"]
        step = [
            "memory_may_change()",  # keeps the compiler from making one loop of two
            "while True:",
            *("    " + line for line in step),
            "if group < stop or step >= steps:" if layout.leaves else "if step >= steps:",
            "    break",
            *look,
        ]
    lines += ["while group < finish:", *("    " + line for line in step)]
    gone = ["for i in range(64):", "    if group < stop:", "        fate[i] = np.int32(group)"]
    return lines + (gone if layout.leaves else [])


def _observe(pieces, layout: Layout, observers) -> list[str]:
    """Lets every observer look at the steps of this group that are its own."""
    if not pieces:
        return []
    due = _due(pieces)
    if layout.threads:
        rare = len(pieces) == 1 and observers[0].at is None and observers[0].every >= GROUP
        return _wait(pieces, layout, due, rare)
    lines = [
        f"if {due} <= 4 * group + 4:",
        "    for j in range(4):",
        "        step = 4 * group + j + 1",
        "        if step > step_end:",
        "            break",
        *("        " + line for line in at_step(layout, "j")),
    ]
    for k, piece in enumerate(pieces):
        lines += [f"        if step == next{k}:", *(" " * 12 + line for line in piece.record)]
    return lines


def _due(pieces) -> str:
    """The next step that an observer looks at."""
    due = "min(" + ", ".join(f"next{k}" for k in range(len(pieces))) + ")"
    return due if len(pieces) > 1 else "next0"


def _awaited(due: str) -> list[str]:
    """The next step to look at, of this launch, and the group after it; or after the last."""
    group = "np.uint32(np.uint32(group_begin) + np.uint32(step >> np.int32(2)) + np.uint32(1))"
    return [f"step = {due}", f"stop = {group} if step < steps else finish"]


def _wait(pieces, layout: Layout, due: str, rare: bool) -> list[str]:
    """The same for a thread, whose group is the one after the steps to look at.

    ``rare``: a group has one look at most.
    """
    # Otherwise the compiler would keep in registers, from look to look, what was moved out of them.
    apart = ["    memory_may_change()"] if layout.crowded else []
    lines = [
        "if True:" if rare else "while step < steps and group == stop:",
        *apart,
        "    place = step & np.int32(3)",
        *("    " + line for line in at_step(layout, "place")),
    ]
    for k, piece in enumerate(pieces):
        lines += apart
        lines += [f"    if step == next{k}:"] if len(pieces) > 1 else []
        lines += [" " * (8 if len(pieces) > 1 else 4) + line for line in piece.record]
    return [*lines, *apart, *("    " + line for line in _awaited(due))]
