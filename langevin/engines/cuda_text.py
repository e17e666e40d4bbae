"""What a GPU's kernel is written as: the CPU's text for one thread, with what threads share."""

from __future__ import annotations

import re

from langevin.engines.cpu import indented
from langevin.engines.threads import per_thread

CROWD = 32 * 1024  # bytes that what is crowded out of its threads' registers may take
FEWER = 32  # threads of a block that keeps sums in shared memory
IN_REGISTERS = 8  # rows of sums that are kept in registers


def crowded(observers, trail: int) -> dict[str, int]:
    """What threads keep in shared memory: names of scalars, and how many rows of each (0: one).

    None where observers keep few running sums. Many, and the four states of a group that they look
    at, would push the state itself out of the registers. ``trail``: rows of those states.
    """
    kinds = ("moments", "average", "temperature")
    sums = {k: o.store.shape[-1] for k, o in enumerate(observers) if o.kind in kinds}
    rows = {f"running{k}": n for k, n in sums.items() if observers[k].at is None}
    if sum(rows.values()) <= IN_REGISTERS:
        return {}
    rows |= {"lanes": trail}
    for k, observer in enumerate(observers):
        rows |= {f"next{k}": 0, f"base{k}": 0, f"first_step{k}": 0}
        if observer.kind == "autocorrelation":
            rows[f"origin{k}"] = observer.n_quantities
    return rows if 8 * FEWER * sum(max(1, n) for n in rows.values()) <= CROWD else {}


def run_source(run, stores: dict[str, str], known: bool, rows: dict[str, int] | None = None) -> str:
    """``run`` for a thread: shared counters, which replica is mine, what a lane does, the flush."""
    rows = rows or {}
    arguments = [name for name in run.arguments.split(", ") if name != "task"]
    mine = per_thread(indented(run.setup, 0) + indented(run.block, 0), stores, scalar=known)
    setup = len(per_thread(indented(run.setup, 0), stores, scalar=known))
    kept = [name for name, how in stores.items() if how == "shared"]
    stride = "range(cuda.threadIdx.x, {}, cuda.blockDim.x)"
    head = [
        "task = np.int64(cuda.blockIdx.x) % tasks",
        "place = np.int64(cuda.blockIdx.x) // tasks * cuda.blockDim.x + cuda.threadIdx.x",
        "i = place % 64",
        "block = task + place // 64 * tasks",
        *mine[:setup],
        "start = block * 64",
        "valid = min(64, n - start)",
    ]
    words = 2 * sum(max(1, n) for n in rows.values())
    tail, room = [], f"{words} * cuda.blockDim.x" if words else "0"
    zeroed = room
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
        each = f"range({zeroed} + cuda.threadIdx.x, {room}, cuda.blockDim.x)"
        head += [f"for c in {each}:", "    counters[c] = 0", "cuda.syncthreads()"]
        tail = ["cuda.syncthreads()", *tail]
    text = f"def run({', '.join(arguments)}):\n" + indented(head, 1)
    text += indented(["if i < valid:"], 1) + indented(mine[setup:], 2) + indented(tail, 1)
    first = 0
    for name, count in rows.items():
        begin = run.trail.start if name == "lanes" else 0
        array = "sums" if count else "wholes"
        for k in range(max(1, count)):
            place = f"{array}[np.uint32({first + k} * cuda.blockDim.x + cuda.threadIdx.x)]"
            text = re.sub(rf"\b{name}_{begin + k}\b" if count else rf"\b{name}\b", place, text)
        first += max(1, count)
    if rows:
        arrays = "sums = cuda.shared.array(0, float64)", "wholes = cuda.shared.array(0, int64)"
        text = text.replace(":\n", ":\n" + indented(arrays, 1), 1)
    return text
