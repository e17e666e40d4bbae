"""What each observer adds to the CPU's kernel: loops over the 64 lanes of a block."""

from __future__ import annotations

from dataclasses import dataclass

from langevin.engines.cpu_basins import basin_source


@dataclass
class Piece:
    """An observer's share of the source: lists of lines, and functions of the module.

    ``setup`` runs once, ``block`` at the head of each block of lanes, ``record`` after each step
    that is due, ``flush`` at the end of a block.
    """

    arguments: list
    setup: list
    block: list
    record: list
    flush: list
    functions: str = ""


def observer_source(k: int, observer, layout) -> Piece:
    """The lines of the k-th observer."""
    return {
        "histogram": _histogram,
        "occupation": _occupation,
        "moments": _moments,
        "average": _average,
    }[observer.kind](k, observer, layout)


def schedule(k: int, observer) -> tuple[list, list, list]:
    """Arguments, lines at the head of a block, and lines for each step that is due.

    ``next{k}`` is the next step due; ``when{k}`` the slot to count in: the half of the run, or with
    at= the number of the step among those.
    """
    if observer.at is not None:
        block = [
            f"place{k} = 0",
            f"while at{k}[place{k}] <= 4 * group_begin:",
            f"    place{k} += 1",
            f"next{k} = at{k}[place{k}]",
        ]
        due = [f"when{k} = place{k}", f"place{k} += 1", f"next{k} = at{k}[place{k}]"]
        return [f"at{k}"], block, due
    block = [
        f"next{k} = first{k}",
        f"if 4 * group_begin >= next{k}:",
        f"    next{k} += ((4 * group_begin - first{k}) // every{k} + 1) * every{k}",
    ]
    due = [f"next{k} += every{k}", f"when{k} = 0 if step <= middle{k} else 1"]
    return [f"first{k}", f"every{k}", f"middle{k}"], block, due


def counting(k: int, observer) -> tuple[list, list, list, list]:
    """Arguments, set-up, head of a block and due lines of an observer that counts in cells."""
    arguments, block, due = schedule(k, observer)
    arguments = [*arguments, f"cells{k}", f"n_cells{k}", f"parts{k}", f"store{k}"]
    setup = [f"base{k} = np.empty(64, np.int64)", f"counts{k} = store{k}[task]"]
    block = [
        *block,
        "for i in range(64):",
        "    r = start + min(i, valid - 1)",
        f"    cell = np.int64(cells{k}[r if cells{k}.size > 1 else 0])",
        f"    base{k}[i] = ((i * parts{k}) // 64) * n_cells{k} + cell",
    ]
    return arguments, setup, block, due


def accumulated(k: int, observer, width: int, kind: str, lines: list) -> tuple:
    """Set-up, head of a block, record and flush around ``lines``, which add to lane i's tallies.

    They add to ``running{k}[slot{k} + c, i]`` with c below ``width``. Slots are few with every= and
    are kept by lane until the block's end; with at= they may be many, and are added at once.
    """
    slots = 1 if observer.at is not None else observer.n_slots
    setup = [f"running{k} = np.empty(({slots * width}, 64), {kind})"]
    clear = [f"running{k}[:, :] = 0"]
    where = f"when{k}, c" if observer.at is not None else f"c // {width}, c % {width}"
    flush = [
        f"for c in range({slots * width}):",
        "    for i in range(64):",
        f"        counts{k}[base{k}[i], {where}] += running{k}[c, i]",
    ]
    if observer.at is not None:
        return setup, [], [*clear, f"slot{k} = 0", *lines, *flush], []
    return setup, clear, [f"slot{k} = when{k} * {width}", *lines], flush


def _histogram(k: int, observer, layout) -> Piece:
    """Flat counts: a bin more for the outside; the last slot of all for the dead."""
    arguments, setup, block, due = counting(k, observer)
    axes = observer.axes
    bins = [f"bins{k}_{a}" for a in range(len(axes))]
    arguments += [f"low{k}", f"inverse{k}", f"bins{k}"]
    setup += [f"slot{k} = np.empty(64, np.int32)", f"dead{k} = np.int32(counts{k}.size - 1)"]
    for a in range(len(axes)):
        setup += [
            f"low{k}_{a} = low{k}[{a}]",
            f"inverse{k}_{a} = inverse{k}[{a}]",
            f"bins{k}_{a} = bins{k}[{a}]",
        ]
    setup += [f"width{k} = np.int32({' * '.join(bins)})"]
    slots = "1" if observer.at is None else f"(at{k}.size - 1)"
    block += ["for i in range(64):", f"    base{k}[i] *= {slots} * np.int64(width{k} + 1)"]
    index = [
        f"b{a} = bin_index(lanes[row + {axis}, i], low{k}_{a}, inverse{k}_{a}, bins{k}_{a})"
        for a, axis in enumerate(axes)
    ]
    if len(axes) == 2:
        index += [f"b0 = b0 * bins{k}_1 + b1 if b0 >= 0 and b1 >= 0 else np.int32(-1)"]
    record = [
        *due,
        f"offset{k} = np.int32(when{k}) * (width{k} + np.int32(1))",
        "for i in range(64):",
        *("    " + line for line in index),
        f"    b0 = np.int32(base{k}[i]) + offset{k} + (b0 if b0 >= 0 else width{k})",
        f"    slot{k}[i] = b0 if fate[i] < 0 else dead{k}",
        "for i in range(64):",
        f"    counts{k}[slot{k}[i]] += 1",
    ]
    return Piece(arguments, setup, block, record, [])


def _occupation(k: int, observer, layout) -> Piece:
    """Tallies of the basins, and of what is in none."""
    arguments, setup, block, due = counting(k, observer)
    more, prepare, find = basin_source(k, observer.finder, layout)
    count = [
        *find,
        "for i in range(64):",
        f"    running{k}[slot{k} + basin{k}[i], i] += np.int32(1) if fate[i] < 0 else np.int32(0)",
    ]
    tally, clear, record, flush = accumulated(k, observer, observer.finder.n + 1, "np.int32", count)
    return Piece(arguments + more, setup + prepare + tally, block + clear, due + record, flush)


def _moments(k: int, observer, layout) -> Piece:
    """Sums of 1, x - centre and its products."""
    arguments, setup, block, due = counting(k, observer)
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
    sums, clear, record, flush = accumulated(k, observer, width, "np.float64", lines)
    return Piece([*arguments, f"centre{k}"], setup + sums, block + clear, due + record, flush)


def values(k: int, observer) -> list[str]:
    """Lines that leave the quantities less their centre in ``value{k}[c, i]``, 0 for the dead."""
    found = observer.quantities
    count = len(found)
    results = "".join(f"q{k}_{c}, " for c in range(count)).rstrip()
    lines = ["for i in range(64):", f"    ({results}) = {found.call(f'quantity{k}')}"]
    for c in range(count):
        difference = f"np.float64(q{k}_{c}) - centre{k}[{c}]"
        lines += [f"    value{k}[{c}, i] = {difference} if fate[i] < 0 else 0.0"]
    return lines


def _average(k: int, observer, layout) -> Piece:
    """Sums of 1, of each quantity and of its square."""
    arguments, setup, block, due = counting(k, observer)
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
    sums, clear, record, flush = accumulated(k, observer, 1 + 2 * count, "np.float64", lines)
    functions = observer.quantities.source(f"quantity{k}")
    arguments += [f"centre{k}"]
    return Piece(arguments, setup + sums, block + clear, due + record, flush, functions)
