"""What a GPU's kernel is written as: the CPU's text for one thread, with what threads share."""

from __future__ import annotations

import ast

from langevin.engines.cpu import indented
from langevin.engines.threads import Buffer, buffers_of, per_thread

CROWD = 32 * 1024  # bytes that what is crowded out of its threads' registers may take
FEWER = 32  # threads of a block that keeps sums in shared memory
IN_REGISTERS = 8  # rows of sums that are kept in registers
DRAWN = 32  # random words of a group that are: each call of Philox keeps its own products at hand
ARRAYS = {"real": "reals", "np.float64": "sums", "np.int32": "wholes", "np.uint32": "words"}


def crowded(observers, words: int = 0) -> bool:
    """Whether running sums, or random words of a group, leave a thread no room for its state.

    Then blocks are small, and observers keep everything in shared memory: a column for each thread.
    """
    kinds = ("moments", "average", "temperature")
    sums = [o.store.shape[-1] for o in observers if o.kind in kinds and o.at is None]
    return sum(sums) > IN_REGISTERS or words > DRAWN


def columns(run, real: int) -> dict[str, Buffer]:
    """Rows of shared memory for the states that observers look at, and for what they keep.

    Random words have rows where they are many. Whole numbers that are no buffers take a row each.
    ``real``: bytes of a state's number.
    """
    buffers = buffers_of(ast.parse(indented(run.setup, 0)), True)
    sizes = {"real": real, "np.float64": 8, "np.int32": 4, "np.uint32": 4}
    rows, room, found = dict.fromkeys(sizes, 0), CROWD // FEWER, {}
    drawn = ("word",) if buffers["word"].rows > DRAWN else ()
    for name in ("lanes", *drawn, "task", *run.lasting):
        buffer = buffers.get(name, Buffer(0, "np.int32", False))
        part = run.trail if name == "lanes" else range(max(1, buffer.rows or 1))
        if len(part) * sizes[buffer.kind] <= room:
            room -= len(part) * sizes[buffer.kind]
            place = ARRAYS[buffer.kind], rows[buffer.kind], part
            found[name] = Buffer(buffer.rows, buffer.kind, name == "lanes", *place)
            rows[buffer.kind] += len(part)
    return found


def run_source(
    run, stores: dict[str, str], known: bool, crowd: dict[str, Buffer] | None = None
) -> str:
    """``run`` for a thread: shared counters, which replica is mine, what a lane does, the flush."""
    crowd = crowd or {}
    arguments = [name for name in run.arguments.split(", ") if name != "task"]
    given = {"scalar": known, "crowd": crowd}
    mine = per_thread(indented(run.setup, 0) + indented(run.block, 0), stores, **given)
    setup = len(per_thread(indented(run.setup, 0), stores, **given))
    kept = [name for name, how in stores.items() if how == "shared"]
    stride = "range(cuda.threadIdx.x, {}, cuda.blockDim.x)"
    head = []
    for kind, array in ARRAYS.items():
        rows = sum(len(b.part) for b in crowd.values() if b.array == array)
        head += [f"{array} = cuda.shared.array(({rows}, {FEWER}), {kind})"] if rows else []
    if crowd:
        head += ["lane = np.uint32(cuda.threadIdx.x)"]
        head += per_thread("task = np.int64(cuda.blockIdx.x) % tasks", stores, **given)
    head += [
        "task = np.int64(cuda.blockIdx.x) % tasks",
        "place = np.int64(cuda.blockIdx.x) // tasks * cuda.blockDim.x + cuda.threadIdx.x",
        "i = place % 64",
        "block = task + place // 64 * tasks",
        *mine[:setup],
        "start = block * 64",
        "valid = min(64, n - start)",
    ]
    tail, room = [], "0"
    for name in kept:
        head.append(f"{name}_first = np.int32({room})")
        room += f" + {name}.size"
        tail += [
            f"for c in {stride.format(f'{name}.size')}:",
            f"    if counters[{name}_first + c] != 0:",
            f"        cuda.atomic.add({name}, c, np.int64(counters[{name}_first + c]))",
        ]
    if kept:
        head += ["counters = cuda.shared.array(0, int32)"]
        head += [f"for c in {stride.format(room)}:", "    counters[c] = 0", "cuda.syncthreads()"]
        if crowd:
            again = [f"{name} = store{name.removeprefix('counts')}[task]" for name in kept]
            tail = per_thread("\n".join(again), stores, **given) + tail
        tail = ["cuda.syncthreads()", *tail]
    text = f"def run({', '.join(arguments)}):\n" + indented(head, 1)
    return text + indented(["if i < valid:"], 1) + indented(mine[setup:], 2) + indented(tail, 1)
