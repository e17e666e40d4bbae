"""The CPU engine: blocks of 64 replicas as SIMD lanes, one fused loop over steps, all cores.

Loops and memory only; the mathematics is in ``kernels/`` and in the surface's gradient. A block's
state stays in cache while all steps of a call run. Per group of four steps the loop over lane
pairs makes the random words, the loop over lanes turns them into normals and takes the steps, and
the observers read the trail of the group. Everything has a constant trip count of 64, so a replica
computes the same bits alone or among many.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass

import numpy as np

from langevin.engines import compiling, source
from langevin.engines.source import GROUP, joined, names
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

    def arguments(self) -> tuple:
        """The kernel's first arguments."""
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

    def _arguments(self, state: State, begin: int, end: int, task: int) -> tuple:
        tasks = n_tasks(state.positions.shape[1])
        spans = (np.int64(begin // GROUP), np.int64(end), np.int64(task), np.int64(tasks))
        observed = (value for observer in self.observers for value in observer.arguments())
        return (*state.arguments(), *spans, *observed)

    def compile(self, state: State) -> None:
        """Compiles, or loads from disk, the kernel for these arguments."""
        self.kernel.compile(compiling.argument_types(self._arguments(state, 0, 0, 0)))

    def advance(self, state: State, begin: int, end: int) -> None:
        """Runs steps begin + 1 ... end for all replicas; begin is a multiple of 4."""
        futures = [
            self.pool.submit(self.kernel, *self._arguments(state, begin, end, task))
            for task in range(n_tasks(state.positions.shape[1]))
        ]
        try:
            wait(futures)
        except KeyboardInterrupt:
            wait(futures)  # so that every replica has taken the same number of steps
            raise
        for future in futures:
            future.result()

    def close(self) -> None:
        """Ends the threads."""
        self.pool.shutdown()


def kernel_source(surface, dynamics, observers, dtype: str) -> str:
    """The whole module that a run compiles."""
    loops = surface.loops(dynamics) if hasattr(surface, "loops") else None
    gaussian = loops is None or not loops.replaces_noise
    dim = surface.dim
    layout = Layout(dim, dynamics, gaussian, dtype)
    parts = [
        surface.gradient_source(),
        source.update_source(dim, dynamics, gaussian=gaussian),
        _run_source(surface, layout, loops, observers),
    ]
    return source.module_source(dtype, *parts)


class Layout:
    """Which row of the lane buffer holds what."""

    def __init__(self, dim: int, dynamics, gaussian: bool, dtype: str):
        momentum = source.has_momentum(dynamics)
        self.dim, self.gaussian, self.dtype = dim, gaussian, dtype
        self.state = names("x", dim) + (names("b", dim) if momentum else [])
        self.coefficients = source.coefficient_names(dynamics, gaussian=gaussian)
        self.first_coefficient = len(self.state)
        self.trail = self.first_coefficient + len(self.coefficients)
        self.normals = self.trail + GROUP * len(self.state)
        self.gradient = self.normals + (GROUP * dim if gaussian else 0)
        self.rows = self.gradient + dim
        self.halves = 2 if dtype == "float64" else 1  # Philox calls a component and group
        self.draws = self.halves * dim if gaussian else 0


def indented(lines, depth: int) -> str:
    """Lines at an indentation of ``depth`` levels."""
    return "".join("    " * depth + line + "\n" if line else "\n" for line in lines)


def _run_source(surface, layout: Layout, loops, observers) -> str:
    """``run``: the loop over blocks, groups of steps and observers."""
    parameters = names("p", len(surface.parameters)) if loops is None else []
    pieces = [observer_source(k, observer, layout) for k, observer in enumerate(observers)]
    arguments = joined(
        ["positions", "coefficients", "parameters", "fates", "key0", "key1", "limit"],
        ["first_replica"],
        loops.arguments if loops else [],
        ["group_begin", "step_end", "task", "tasks"],
        *(piece.arguments for piece in pieces),
    )
    head = [
        "wide_vectors()",
        "n = positions.shape[1]",
        f"lanes = np.empty(({layout.rows}, 64), real)",
        f"words = np.empty(({max(4 * layout.draws, 1)}, 32), np.uint64)",
        "word = words.view(np.uint32)",
        "ids = np.empty(32, np.uint64)",
        "fate = np.empty(64, np.int32)",
        "per_replica = 1 if coefficients.shape[1] > 1 else 0",
        *(f"{name} = parameters[{k}]" for k, name in enumerate(parameters)),
        *(loops.setup if loops else []),
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
        *(f"    lanes[{k}, i] = positions[{k}, r]" for k in range(size)),
        *(
            f"    lanes[{layout.first_coefficient + k}, i] = coefficients[{k}, r * per_replica]"
            for k in range(len(layout.coefficients))
        ),
        "    fate[i] = fates[r] if i < valid else np.int32(0)",
        "for i in range(32):",
        "    first = np.uint64(first_replica + start + 2 * i)",
        "    ids[i] = first | ((first + np.uint64(1)) << SHIFT)",
        *(line for piece in pieces for line in piece.block),
        "for group in range(group_begin, group_end):",
    ]
    step = [
        *_words(layout),
        *(_fused(layout, parameters) if _is_fused(surface, layout, loops) else []),
        *([] if _is_fused(surface, layout, loops) else _split(layout, parameters, loops)),
        *_observe(pieces, layout),
    ]
    tail = [
        "last = (step_end - 1) % 4",
        "for i in range(valid):",
        "    r = start + i",
        "    fates[r] = fate[i]",
        *(f"    positions[{k}, r] = lanes[{k}, i]" for k in range(size)),
        "    if last != 3 and group_end > group_begin and fate[i] < 0:",
        *(
            f"        positions[{k}, r] = lanes[{layout.trail + k} + {size} * last, i]"
            for k in range(size)
        ),
        *(line for piece in pieces for line in piece.flush),
    ]
    text = f"def run({arguments}):\n"
    return text + indented(head, 1) + indented(block, 2) + indented(step, 3) + indented(tail, 2)


def _words(layout: Layout) -> list[str]:
    """Random words for the group: the pair loop."""
    if not layout.gaussian:
        return []
    return [
        "counter = both(np.uint64(group))",
        f"for draw in range({layout.draws}):",
        "    which = both(np.uint64(draw))",
        "    for i in range(32):",
        "        w0, w1, w2, w3 = philox_pair("
        f"ids[i], counter, which, both(np.uint64({int(Purpose.NOISE)})), key0, key1)",
        "        words[4 * draw, i] = w0",
        "        words[4 * draw + 1, i] = w1",
        "        words[4 * draw + 2, i] = w2",
        "        words[4 * draw + 3, i] = w3",
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


def _is_fused(surface, layout: Layout, loops) -> bool:
    return loops is None and layout.dim <= 3 and surface.operations <= FUSED_OPERATIONS


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


def _fused(layout: Layout, parameters: list[str]) -> list[str]:
    """Normals and four steps in one loop over lanes, all in registers."""
    state, dim = layout.state, layout.dim
    body = _load(layout)
    body += [line for k in range(dim) for line in _normals(layout, k)]
    body += [f"old{k} = {name}" for k, name in enumerate(state)]
    for j in range(GROUP):
        noise = [f"z{k}_{j}" for k in range(dim)]
        body += [
            f"({joined(names('g', dim))},) = gradient({joined(state[:dim], parameters)})",
            f"({joined(state)},) = update("
            f"{joined(state, names('g', dim), noise, layout.coefficients)})",
        ]
        row = layout.trail + j * len(state)
        body += [f"lanes[{row + k}, i] = {name}" for k, name in enumerate(state)]
    return ["for i in range(64):", *("    " + line for line in body + _kept(layout))]


def _split(layout: Layout, parameters: list[str], loops) -> list[str]:
    """Normals to cache, then one loop over lanes for each step."""
    state, dim, size = layout.state, layout.dim, len(layout.state)
    lines = []
    for k in range(dim if layout.gaussian else 0):
        lines += ["for i in range(64):", *("    " + line for line in _normals(layout, k))]
        lines += [
            f"    lanes[{layout.normals + j * dim + k}, i] = z{k}_{j}" for j in range(GROUP)
        ]
    previous = [f"{k}" for k in range(size)]
    lines += ["source_row = 0", "for j in range(4):"]
    step = [f"target_row = {layout.trail} + j * {size}"]
    if loops is not None:
        step += loops.gradient(layout)
        slope = [f"g{k} = lanes[{layout.gradient + k}, i]" for k in range(dim)]
    else:
        slope = [f"({joined(names('g', dim))},) = gradient({joined(state[:dim], parameters)})"]
    noise = names("z", dim) if layout.gaussian else []
    body = [f"{name} = lanes[source_row + {k}, i]" for k, name in zip(previous, state, strict=True)]
    body += [
        f"{name} = lanes[{layout.first_coefficient + k}, i]"
        for k, name in enumerate(layout.coefficients)
    ]
    body += slope
    body += [f"{name} = lanes[{layout.normals} + j * {dim} + {k}, i]" for k, name in enumerate(noise)]
    body.append(
        f"({joined(state)},) = update("
        f"{joined(state, names('g', dim), noise, layout.coefficients)})"
    )
    body += [f"lanes[target_row + {k}, i] = {name}" for k, name in enumerate(state)]
    step += ["for i in range(64):", *("    " + line for line in body), "source_row = target_row"]
    lines += ["    " + line for line in step]
    lines += ["for i in range(64):"]
    final = layout.trail + 3 * size
    body = [f"{name} = lanes[{final + k}, i]" for k, name in enumerate(state)]
    body += [f"old{k} = lanes[{k}, i]" for k in range(size)]
    return lines + ["    " + line for line in body + _kept(layout)]


def _observe(pieces, layout: Layout) -> list[str]:
    """Lets every observer look at the steps of this group that are its own."""
    if not pieces:
        return []
    lines = ["for j in range(4):", "    step = 4 * group + j + 1", "    if step > step_end:"]
    lines += ["        break", f"    row = {layout.trail} + j * {len(layout.state)}"]
    for k, piece in enumerate(pieces):
        lines += [f"    if step == next{k}:", f"        next{k} += every{k}"]
        lines += ["        " + line for line in piece.record]
    return lines


@dataclass
class Piece:
    """An observer's share of the source: lists of lines."""

    arguments: list
    setup: list
    block: list
    record: list
    flush: list


def observer_source(k: int, observer, layout: Layout) -> Piece:
    """The lines of the k-th observer."""
    return {"histogram": _histogram, "occupation": _occupation, "moments": _moments}[
        observer.kind
    ](k, observer, layout)


def _common(k: int) -> tuple[list, list]:
    """Every observer's schedule and the cell that each lane counts in."""
    arguments = [f"first{k}", f"every{k}", f"cells{k}", f"n_cells{k}", f"parts{k}", f"store{k}"]
    block = [
        f"next{k} = first{k}",
        f"if 4 * group_begin >= next{k}:",
        f"    next{k} += ((4 * group_begin - first{k}) // every{k} + 1) * every{k}",
        "for i in range(64):",
        "    r = start + min(i, valid - 1)",
        f"    cell = np.int64(cells{k}[r if cells{k}.size > 1 else 0])",
        f"    base{k}[i] = ((i * parts{k}) // 64) * n_cells{k} + cell",
    ]
    return arguments, block


def _histogram(k: int, observer, layout: Layout) -> Piece:
    """Counts (tasks, parts * cells * (bins + 1) + 1): the last bin is outside, the last slot dead."""
    arguments, block = _common(k)
    axes = observer.axes
    bins = [f"bins{k}_{a}" for a in range(len(axes))]
    arguments += [f"low{k}", f"inverse{k}", f"bins{k}"]
    setup = [
        f"base{k} = np.empty(64, np.int64)",
        f"slot{k} = np.empty(64, np.int32)",
        f"counts{k} = store{k}[task]",
        f"dead{k} = np.int32(counts{k}.size - 1)",
    ]
    for a in range(len(axes)):
        setup += [
            f"low{k}_{a} = low{k}[{a}]",
            f"inverse{k}_{a} = inverse{k}[{a}]",
            f"bins{k}_{a} = bins{k}[{a}]",
        ]
    setup += [f"width{k} = np.int32({' * '.join(bins)})"]
    block += ["for i in range(64):", f"    base{k}[i] *= np.int64(width{k} + 1)"]
    index = [
        f"b{a} = bin_index(lanes[row + {axis}, i], low{k}_{a}, inverse{k}_{a}, bins{k}_{a})"
        for a, axis in enumerate(axes)
    ]
    if len(axes) == 2:
        index += [f"b0 = b0 * bins{k}_1 + b1 if b0 >= 0 and b1 >= 0 else np.int32(-1)"]
    record = [
        "for i in range(64):",
        *("    " + line for line in index),
        f"    b0 = np.int32(base{k}[i]) + (b0 if b0 >= 0 else width{k})",
        f"    slot{k}[i] = b0 if fate[i] < 0 else dead{k}",
        "for i in range(64):",
        f"    counts{k}[slot{k}[i]] += 1",
    ]
    return Piece(arguments, setup, block, record, [])


def _occupation(k: int, observer, layout: Layout) -> Piece:
    """Tallies by lane, flushed to counts (tasks, parts * cells, 2 halves, basins + unassigned)."""
    arguments, block = _common(k)
    setup = [
        f"base{k} = np.empty(64, np.int64)",
        f"basin{k} = np.empty(64, np.int32)",
        f"counts{k} = store{k}[task]",
        f"classes{k} = store{k}.shape[3]",
        f"tally{k} = np.empty((2 * classes{k}, 64), np.int32)",
    ]
    arguments += [f"middle{k}"]
    if layout.dim == 1:
        arguments += [f"thresholds{k}"]
        find = [
            "for i in range(64):",
            f"    basin{k}[i] = 0",
            f"for m in range(thresholds{k}.size):",
            f"    edge = thresholds{k}[m]",
            "    for i in range(64):",
            f"        basin{k}[i] += np.int32(1) if lanes[row, i] > edge else np.int32(0)",
        ]
    elif layout.dim == 2:
        arguments += [f"labels{k}", f"low{k}", f"inverse{k}"]
        setup += [f"nx{k}, ny{k} = labels{k}.shape"]
        find = [
            "for i in range(64):",
            f"    cx = cell_index(lanes[row, i], low{k}[0], inverse{k}[0], np.int32(nx{k}))",
            f"    cy = cell_index(lanes[row + 1, i], low{k}[1], inverse{k}[1], np.int32(ny{k}))",
            f"    label = np.int32(labels{k}[cx, cy])",
            f"    basin{k}[i] = label if label >= 0 else np.int32(classes{k} - 1)",
        ]
    else:
        more, prepare, find = _quench(k, observer, layout)
        arguments += more
        setup += prepare
    block += [f"tally{k}[:, :] = 0"]
    record = [
        f"half = 0 if step <= middle{k} else classes{k}",
        *find,
        "for i in range(64):",
        f"    tally{k}[half + basin{k}[i], i] += np.int32(1) if fate[i] < 0 else np.int32(0)",
    ]
    flush = [
        f"for c in range(2 * classes{k}):",
        "    for i in range(64):",
        f"        counts{k}[base{k}[i], c // classes{k}, c % classes{k}] += tally{k}[c, i]",
    ]
    return Piece(arguments, setup, block, record, flush)


def _quench(k: int, observer, layout: Layout):
    """Above two dimensions: a copy descends with the noise off to the nearest known minimum."""
    dim = layout.dim
    parameters = names("p", observer.n_parameters)
    arguments = [f"minima{k}", f"reach{k}", f"rate{k}", f"longest{k}", f"descents{k}"]
    setup = [f"copy{k} = np.empty(({dim}, 64), real)", f"near{k} = np.empty(64, real)"]
    x, g = names("x", dim), names("g", dim)
    square = " + ".join(f"g{a} * g{a}" for a in range(dim))
    find = [
        "for i in range(64):",
        *(f"    copy{k}[{a}, i] = lanes[row + {a}, i]" for a in range(dim)),
        f"for _ in range(descents{k}):",
        "    for i in range(64):",
        *(f"        x{a} = copy{k}[{a}, i]" for a in range(dim)),
        f"        ({joined(g)},) = gradient({joined(x, parameters)})",
        f"        rate = quench_rate({square}, rate{k}, longest{k})",
        *(f"        copy{k}[{a}, i] = quench_step(x{a}, g{a}, rate)" for a in range(dim)),
        "for i in range(64):",
        f"    basin{k}[i] = np.int32(classes{k} - 1)",
        f"    near{k}[i] = reach{k}",
        f"for m in range(classes{k} - 1):",
        "    for i in range(64):",
        *(f"        d{a} = copy{k}[{a}, i] - minima{k}[m, {a}]" for a in range(dim)),
        f"        distance = {' + '.join(f'd{a} * d{a}' for a in range(dim))}",
        f"        closer = distance < near{k}[i]",
        f"        basin{k}[i] = np.int32(m) if closer else basin{k}[i]",
        f"        near{k}[i] = distance if closer else near{k}[i]",
    ]
    return arguments, setup, find


def _moments(k: int, observer, layout: Layout) -> Piece:
    """Sums (tasks, parts * cells, 1 + dim + dim (dim + 1) / 2) of x - centre and its products."""
    arguments, block = _common(k)
    arguments += [f"centre{k}"]
    dim = layout.dim
    pairs = [(a, b) for a in range(dim) for b in range(a, dim)]
    width = 1 + dim + len(pairs)
    setup = [
        f"base{k} = np.empty(64, np.int64)",
        f"sums{k} = store{k}[task]",
        f"running{k} = np.empty(({width}, 64), np.float64)",
    ]
    block += [f"running{k}[:, :] = 0.0"]
    record = [
        "for i in range(64):",
        "    alive = fate[i] < 0",
        *(
            f"    d{a} = np.float64(lanes[row + {a}, i]) - centre{k}[{a}] if alive else 0.0"
            for a in range(dim)
        ),
        f"    running{k}[0, i] += 1.0 if alive else 0.0",
        *(f"    running{k}[{1 + a}, i] += d{a}" for a in range(dim)),
        *(f"    running{k}[{1 + dim + m}, i] += d{a} * d{b}" for m, (a, b) in enumerate(pairs)),
    ]
    flush = [
        f"for c in range({width}):",
        "    for i in range(64):",
        f"        sums{k}[base{k}[i], c] += running{k}[c, i]",
    ]
    return Piece(arguments, setup, block, record, flush)
