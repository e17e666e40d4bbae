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

from langevin.engines import compiling, source
from langevin.engines.batches import Batches
from langevin.engines.cpu_observers import observer_source
from langevin.engines.dropping import Remaining
from langevin.engines.source import GROUP, Step, joined, names
from langevin.engines.windows import Schedules
from langevin.kernels.purposes import Purpose

LANES = 64
TASKS = 64
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

    def close(self) -> None:
        """Ends the threads."""
        self.pool.shutdown()


def kernel_source(surface, dynamics, observers, dtype: str) -> str:
    """The whole module that a run compiles."""
    batches = Batches(surface, dynamics) if hasattr(surface, "n_examples") else None
    gaussian = batches is None or not batches.stochastic
    if batches is None:
        slope = surface.gradient_source()
        step = one = source.step_of(surface, dynamics)
        fused = surface.dim <= 3 and source.operations(slope) <= FUSED_OPERATIONS
        stepping = _fused if fused else _split
    else:
        slope, stepping = batches.source, _batched
        step, one = (Step(dim, dynamics, gaussian) for dim in (surface.dim, 1))
    layout = Layout(step, dtype)
    parameters = names("p", len(surface.parameters))
    pieces = [observer_source(k, observer, layout) for k, observer in enumerate(observers)]
    parts = [
        slope,
        source.step_source(one),
        *(piece.functions for piece in pieces if piece.functions),
        _run_source(layout, parameters, batches, stepping(layout, batches), pieces),
    ]
    return source.module_source(dtype, *parts)


class Layout:
    """Which row of the lane buffer holds what."""

    def __init__(self, step: Step, dtype: str):
        self.step, self.dim, self.gaussian, self.dtype = step, step.dim, step.gaussian, dtype
        self.state, self.noises = step.state, step.n_normals
        self.coefficients = step.coefficients
        self.first_coefficient = len(self.state)
        self.trail = self.first_coefficient + len(self.coefficients)
        self.normals = self.trail + GROUP * len(self.state)
        self.gradient = self.normals + GROUP * self.noises
        self.rows = self.gradient + max(self.dim, len(self.state) + self.noises)
        self.halves = 2 if dtype == "float64" else 1  # Philox calls a component and group
        self.draws = self.halves * self.noises


def indented(lines, depth: int) -> str:
    """Lines at an indentation of ``depth`` levels."""
    return "".join("    " * depth + line + "\n" if line else "\n" for line in lines)


def _run_source(layout: Layout, parameters, batches, stepping, pieces) -> str:
    """``run``: the loop over blocks, groups of steps and observers."""
    arguments = joined(
        ["positions", "coefficients", "parameters", "fates", "key0", "key1", "limit"],
        ["first_replica", "numbers"],
        ["schedule"] if layout.step.scheduled else [],
        batches.arguments if batches else [],
        ["group_begin", "step_end", "task", "tasks"],
        *(piece.arguments for piece in pieces),
    )
    head = [
        "kernel_hints()",
        "n = positions.shape[1]",
        f"lanes = np.empty(({layout.rows}, 64), real)",
        f"word = np.empty(({max(4 * layout.draws, 1)}, 64), np.uint32)",
        "ids = np.empty(64, np.uint64)",
        "fate = np.empty(64, np.int32)",
        "per_replica = 1 if coefficients.shape[1] > 1 else 0",
        *(f"{name} = parameters[{k}]" for k, name in enumerate(_constants(layout, parameters))),
        *(batches.setup if batches else []),
        *(line for piece in pieces for line in piece.setup),
        "group_end = (step_end + 3) // 4",
        "for block in range(task, (n + 63) // 64, tasks):",
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
        "for group in range(group_begin, group_end):",
    ]
    step = [*_words(layout), *stepping, *_observe(pieces, layout)]
    tail = [
        "last = (step_end - 1) % 4",
        "partial = last != 3 and group_end > group_begin",
        "for i in range(valid):",
        "    r = start + i",
        "    row = 0",
        "    if partial and (fate[i] < 0 or fate[i] == group_end - 1):",
        f"        row = {layout.trail} + {size} * last",
        "        fate[i] = -1",
        f"        for k in range({layout.dim}):",
        "            if not abs(lanes[row + k, i]) < limit:",
        "                fate[i] = np.int32(group_end - 1)",
        "        row = row if fate[i] < 0 else 0",
        "    fates[r] = fate[i]",
        f"    for k in range({size}):",
        "        positions[k, r] = lanes[row + k, i]",
        *(line for piece in pieces for line in piece.flush),
    ]
    text = f"def run({arguments}):\n"
    return text + indented(head, 1) + indented(block, 2) + indented(step, 3) + indented(tail, 2)


def _words(layout: Layout) -> list[str]:
    """Random words for the group."""
    if not layout.gaussian:
        return []
    return [
        "counter = np.uint64(group)",
        f"for draw in range({layout.draws}):",
        "    which = np.uint64(draw)",
        "    for i in range(64):",
        "        w0, w1, w2, w3 = philox("
        f"ids[i], counter, which, np.uint64({int(Purpose.NOISE)}), key0, key1)",
        *(f"        word[4 * draw + {w}, i] = np.uint32(w{w})" for w in range(4)),
    ]


def _normals(layout: Layout, k: int) -> list[str]:
    """The four normals of component k from its words."""
    lines = []
    per_pair = 2 * layout.halves
    for pair in range(2):
        row = 4 * layout.halves * k + per_pair * pair
        uniform = joined([f"word[{row + w}, i]" for w in range(per_pair)])
        lines.append(f"z{k}_{2 * pair}, z{k}_{2 * pair + 1} = normal_pair({uniform})")
    return lines


def _load(layout: Layout) -> list[str]:
    rows = layout.state + layout.coefficients
    return [f"{name} = lanes[{k}, i]" for k, name in enumerate(rows)]


def _kept(layout: Layout) -> list[str]:
    """Freezes a lane that left the finite world: it stays where it was before this group."""
    state = layout.state
    inside = " and ".join(f"(abs({name}) < limit)" for name in state[: layout.dim])
    return [
        f"kept = {inside} and (fate[i] < 0)",
        *(f"lanes[{k}, i] = {name} if kept else old{k}" for k, name in enumerate(state)),
        "fate[i] = fate[i] if kept or fate[i] >= 0 else np.int32(group)",
    ]


def _constants(layout: Layout, parameters: list[str]) -> list[str]:
    """Names of the numbers that all replicas share: the surface's, then the step's own."""
    return parameters + names("q", layout.step.n_constants)


def _scheduled(layout: Layout, j: int | str) -> list[str]:
    """Lines that read the factors of step j of the group: scalars, before a loop over lanes."""
    rows = layout.step.scheduled
    place = f"4 * (group - group_begin) + {j}"
    return [f"{name}_factor{j} = real(schedule[{row}, {place}])" for name, row in rows.items()]


def _now(layout: Layout, j: int | str) -> list[str]:
    """The coefficients of step j: a scheduled one is multiplied by its factor."""
    rows = layout.step.scheduled
    return [f"{c} * {c}_factor{j}" if c in rows else c for c in layout.coefficients]


def _fused(layout: Layout, batches) -> list[str]:
    """Normals and four steps in one loop over lanes, all in registers."""
    state = layout.state
    body = _load(layout)
    body += [line for k in range(layout.noises) for line in _normals(layout, k)]
    body += [f"old{k} = {name}" for k, name in enumerate(state)]
    for j in range(GROUP):
        noise = [f"z{k}_{j}" for k in range(layout.noises)]
        arguments = joined(state, noise, _now(layout, j), layout.step.arguments)
        body.append(f"({joined(state)},) = advance({arguments})")
        row = layout.trail + j * len(state)
        body += [f"lanes[{row + k}, i] = {name}" for k, name in enumerate(state)]
    factors = [line for j in range(GROUP) for line in _scheduled(layout, j)]
    return [*factors, "for i in range(64):", *("    " + line for line in body + _kept(layout))]


def _copied(target: str, origin: str, rows: int) -> list[str]:
    """Rows of the lane buffer, copied: all in one loop, or LLVM unrolls it into scalar moves."""
    moves = (f"    lanes[{target} + {k}, i] = lanes[{origin} + {k}, i]" for k in range(rows))
    return ["for i in range(64):", *moves]


def _split(layout: Layout, batches) -> list[str]:
    """Normals to cache, then one loop over lanes for each step."""
    state, size, count = layout.state, len(layout.state), layout.noises
    lines = []
    for k in range(count):
        lines += ["for i in range(64):", *("    " + line for line in _normals(layout, k))]
        lines += [
            f"    lanes[{layout.normals + j * count + k}, i] = z{k}_{j}" for j in range(GROUP)
        ]
    # The step itself works on rows known when compiling: rows that depend on j have to be checked
    # for overlap with every row written, and more than 8 checks stop the vectoriser.
    now, fresh = str(layout.gradient), str(layout.gradient + size)
    drawn = f"{layout.normals} + j * {count}"
    direct = size * count <= 4
    noise_row = drawn if direct else fresh
    body = [f"{name} = lanes[{now} + {k}, i]" for k, name in enumerate(state)]
    body += _load(layout)[size:]
    noise = names("z", count)
    body += [f"{name} = lanes[{noise_row} + {k}, i]" for k, name in enumerate(noise)]
    arguments = joined(state, noise, _now(layout, "j"), layout.step.arguments)
    body.append(f"({joined(state)},) = advance({arguments})")
    body += [f"lanes[{now} + {k}, i] = {name}" for k, name in enumerate(state)]
    lines += [
        *_copied(now, "0", size),
        "for j in range(4):",
        *("    " + line for line in _scheduled(layout, "j")),
        *("    " + line for line in ([] if direct else _copied(fresh, drawn, count))),
        "    for i in range(64):",
        *("        " + line for line in body),
        *("    " + line for line in _copied(f"{layout.trail} + j * {size}", now, size)),
        "for i in range(64):",
    ]
    final = [f"{name} = lanes[{layout.trail + 3 * size + k}, i]" for k, name in enumerate(state)]
    final += [f"old{k} = lanes[{k}, i]" for k in range(size)]
    return lines + ["    " + line for line in final + _kept(layout)]


def _batched(layout: Layout, batches) -> list[str]:
    """A step on data: loops over components, whose number may be large, hold one update each."""
    dim, size = layout.dim, len(layout.state)
    lines = []
    if layout.gaussian:
        rows = [f"word[{4 * layout.halves} * k + {w}, i]" for w in range(4 * layout.halves)]
        half = 2 * layout.halves
        lines += [
            f"for k in range({dim}):",
            "    for i in range(64):",
            f"        z0, z1 = normal_pair({joined(rows[:half])})",
            f"        z2, z3 = normal_pair({joined(rows[half:])})",
            *(f"        lanes[{layout.normals + j * dim} + k, i] = z{j}" for j in range(GROUP)),
        ]
    one = Step(1, batches.dynamics, layout.gaussian)
    place = {name: f"{k * dim} + k" for k, name in enumerate(one.state)}
    body = [f"{name} = lanes[source_row + {row}, i]" for name, row in place.items()]
    body += _load(layout)[size:]
    body += [f"g0 = lanes[{layout.gradient} + k, i]"]
    body += [f"z0 = lanes[{layout.normals} + j * {dim} + k, i]"] if layout.gaussian else []
    noise = ["z0"] if layout.gaussian else []
    arguments = joined(one.state, ["g0"], noise, _now(layout, "j"))
    body += [f"({joined(one.state)},) = advance({arguments})"]
    body += [f"lanes[target_row + {row}, i] = {name}" for name, row in place.items()]
    lines += [
        "source_row = 0",
        "for j in range(4):",
        f"    target_row = {layout.trail} + j * {size}",
        *("    " + line for line in _scheduled(layout, "j")),
        *("    " + line for line in batches.gradient(layout)),
        f"    for k in range({dim}):",
        "        for i in range(64):",
        *("            " + line for line in body),
        "    source_row = target_row",
        "for i in range(64):",
        "    inside = fate[i] < 0",
        f"    for k in range({dim}):",
        f"        inside = inside and abs(lanes[{layout.trail + 3 * size} + k, i]) < limit",
        "    if inside:",
        f"        for k in range({size}):",
        f"            lanes[k, i] = lanes[{layout.trail + 3 * size} + k, i]",
        "    elif fate[i] < 0:",
        "        fate[i] = np.int32(group)",
    ]
    return lines


def _observe(pieces, layout: Layout) -> list[str]:
    """Lets every observer look at the steps of this group that are its own."""
    if not pieces:
        return []
    lines = ["for j in range(4):", "    step = 4 * group + j + 1", "    if step > step_end:"]
    lines += ["        break", f"    row = {layout.trail} + j * {len(layout.state)}"]
    for k, piece in enumerate(pieces):
        lines += [f"    if step == next{k}:", *("        " + line for line in piece.record)]
    return lines
