"""What each observer adds to the CPU's kernel: loops over the 64 lanes of a block."""

from __future__ import annotations

from langevin.engines.cpu_basins import basin_source
from langevin.engines.cpu_passage import (
    autocorrelation_source,
    passage_source,
    trajectory_source,
    transition_source,
)
from langevin.engines.cpu_pieces import Piece, accumulated, counting, values

REGISTERS = 8  # basins up to which a thread of a GPU keeps their tallies; more are counted at once


def observer_source(k: int, observer, layout) -> Piece:
    """The lines of the k-th observer."""
    return {
        "histogram": _histogram,
        "occupation": _occupation,
        "moments": _moments,
        "average": _average,
        "temperature": _average,
        "first_passage": passage_source,
        "transitions": transition_source,
        "trajectory": trajectory_source,
        "autocorrelation": autocorrelation_source,
    }[observer.kind](k, observer, layout)


def _histogram(k: int, observer, layout) -> Piece:
    """Flat counts: a bin more for the outside; the last slot of all for the dead."""
    arguments, setup, block, due = counting(k, observer, layout)
    axes = observer.axes
    bins = [f"bins{k}_{a}" for a in range(len(axes))]
    arguments += [f"low{k}", f"inverse{k}", f"bins{k}"]
    setup += [f"slot{k} = np.empty(64, np.int32)", f"dead{k} = np.int32(counts{k}.size - 1)"]
    for a in range(len(axes)):
        setup += [
            f"low{k}_{a} = low{k}[{a}]",
            f"inverse{k}_{a} = inverse{k}[{a}]",
            f"bins{k}_{a} = bins{k}[{a}]",
            f"count{k}_{a} = real(bins{k}[{a}])",
        ]
    setup += [f"width{k} = np.int32({' * '.join(bins)})"]
    slots = "1" if observer.at is None else f"(at{k}.size - 1)"
    block += ["for i in range(64):", f"    base{k}[i] *= {slots} * np.int64(width{k} + 1)"]
    outside = f"width{k}" if len(axes) == 1 else "-1"
    index = []
    for a, axis in enumerate(axes):
        bounds = f"low{k}_{a}, inverse{k}_{a}, count{k}_{a}"
        index += [f"b{a} = bin_index(lanes[row + {axis}, i], {bounds}, {outside})"]
    if len(axes) == 2:
        index += [f"b0 = b0 * bins{k}_1 + b1 if b0 >= 0 and b1 >= 0 else width{k}"]
    record = [
        *due,
        f"offset{k} = np.int32(when{k}) * (width{k} + np.int32(1))",
        "for i in range(64):",
        *("    " + line for line in index),
        f"    b0 = np.int32(base{k}[i]) + offset{k} + b0",
        # A thread whose replica has diverged may be gone.
        f"    slot{k}[i] = b0" + ("" if layout.leaves else f" if fate[i] < 0 else dead{k}"),
        "for i in range(64):",
        f"    counts{k}[slot{k}[i]] += 1",
    ]
    return Piece(arguments, setup, block, record, [])


def _occupation(k: int, observer, layout) -> Piece:
    """Tallies of the basins, and of what is in none."""
    arguments, setup, block, due = counting(k, observer, layout)
    more, prepare, find = basin_source(k, observer.finder, layout)
    if layout.threads and observer.finder.n > REGISTERS:
        one = f"    counts{k}[base{k}[i], when{k}, basin{k}[i]] += 1 if fate[i] < 0 else 0"
        count = [*find, "for i in range(64):", one]
        return Piece(arguments + more, setup + prepare, block, due + count, [])
    count = [
        *find,
        "for i in range(64):",
        f"    running{k}[slot{k} + basin{k}[i], i] += np.int32(1) if fate[i] < 0 else np.int32(0)",
    ]
    tally, clear, record, flush = accumulated(
        k, observer, layout, observer.finder.n + 1, "np.int32", count
    )
    return Piece(arguments + more, setup + prepare + tally, block + clear, due + record, flush)


def _moments(k: int, observer, layout) -> Piece:
    """Sums of 1, x - centre and its products."""
    arguments, setup, block, due = counting(k, observer, layout)
    dim = layout.dim
    setup += [f"away{k} = np.empty(({dim}, 64), np.float64)"]
    lines = [
        "for i in range(64):",
        f"    running{k}[slot{k}, i] += 1.0 if fate[i] < 0 else 0.0",
        f"m = slot{k} + {1 + dim}",
        f"for a in range({dim}):",
        "    for i in range(64):",
        f"        d = np.float64(lanes[row + a, i]) - centre{k}[a]",
        "        d = d if fate[i] < 0 else 0.0",
        f"        away{k}[a, i] = d",
        f"        running{k}[slot{k} + 1 + a, i] += d",
        f"for a in range({dim}):",
        f"    for b in range(a, {dim}):",
        "        for i in range(64):",
        f"            running{k}[m, i] += away{k}[a, i] * away{k}[b, i]",
        "        m += 1",
    ]
    width = 1 + dim + dim * (dim + 1) // 2
    sums, clear, record, flush = accumulated(k, observer, layout, width, "np.float64", lines)
    return Piece([*arguments, f"centre{k}"], setup + sums, block + clear, due + record, flush)


def _average(k: int, observer, layout) -> Piece:
    """Sums of 1, of each quantity and of its square."""
    arguments, setup, block, due = counting(k, observer, layout)
    count = observer.n_quantities
    setup += [f"value{k} = np.empty(({count}, 64), np.float64)"]
    lines = [
        *values(k, observer),
        "for i in range(64):",
        f"    running{k}[slot{k}, i] += 1.0 if fate[i] < 0 else 0.0",
        f"for c in range({count}):",
        "    for i in range(64):",
        f"        running{k}[slot{k} + 1 + c, i] += value{k}[c, i]",
        f"        running{k}[slot{k} + {1 + count} + c, i] += value{k}[c, i] * value{k}[c, i]",
    ]
    sums, clear, record, flush = accumulated(
        k, observer, layout, 1 + 2 * count, "np.float64", lines
    )
    functions = observer.quantities.source(f"quantity{k}")
    arguments += [f"centre{k}"]
    return Piece(arguments, setup + sums, block + clear, due + record, flush, functions)
