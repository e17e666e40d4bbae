"""What each observer adds to the CPU's kernel: loops over the 64 lanes of a block."""

from __future__ import annotations

from dataclasses import dataclass

from langevin.engines.source import joined, names


@dataclass
class Piece:
    """An observer's share of the source: lists of lines."""

    arguments: list
    setup: list
    block: list
    record: list
    flush: list


def observer_source(k: int, observer, layout) -> Piece:
    """The lines of the k-th observer."""
    return {"histogram": _histogram, "occupation": _occupation, "moments": _moments}[observer.kind](
        k, observer, layout
    )


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


def _histogram(k: int, observer, layout) -> Piece:
    """Counts (tasks, parts * cells * (bins + 1) + 1): last bin outside, last slot for the dead."""
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


def _occupation(k: int, observer, layout) -> Piece:
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
    if observer.basins.n == 1:
        find = ["for i in range(64):", f"    basin{k}[i] = 0"]
    elif layout.dim == 1:
        arguments += [f"thresholds{k}"]
        find = [
            "for i in range(64):",
            f"    basin{k}[i] = 0",
            f"for m in range(thresholds{k}.size):",
            f"    edge = thresholds{k}[m]",
            "    for i in range(64):",
            f"        basin{k}[i] += np.int32(1) if lanes[row, i] >= edge else np.int32(0)",
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


def _quench(k: int, observer, layout):
    """Above two dimensions: a copy descends with the noise off until near a known minimum."""
    dim = layout.dim
    parameters = names("p", observer.n_parameters)
    arguments = [f"minima{k}", f"reach{k}", f"rate{k}", f"longest{k}", f"sweeps{k}"]
    setup = [f"copy{k} = np.empty(({dim}, 64), real)", f"near{k} = np.empty(64, real)"]
    x, g = names("x", dim), names("g", dim)
    square = " + ".join(f"g{a} * g{a}" for a in range(dim))
    descend = [
        f"for _ in range({observer.descents}):",
        "    for i in range(64):",
        *(f"        x{a} = copy{k}[{a}, i]" for a in range(dim)),
        f"        ({joined(g)},) = gradient({joined(x, parameters)})",
        f"        rate = quench_rate({square}, rate{k}, longest{k})",
        *(f"        copy{k}[{a}, i] = quench_step(x{a}, g{a}, rate)" for a in range(dim)),
    ]
    nearest = [
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
        "open = 0",
        "for i in range(64):",
        f"    open += 1 if basin{k}[i] == classes{k} - 1 and fate[i] < 0 else 0",
        "if open == 0:",
        "    break",
    ]
    find = [
        "for i in range(64):",
        *(f"    copy{k}[{a}, i] = lanes[row + {a}, i]" for a in range(dim)),
        f"for _ in range(sweeps{k}):",
        *("    " + line for line in descend + nearest),
    ]
    return arguments, setup, find


def _moments(k: int, observer, layout) -> Piece:
    """Sums (tasks, parts * cells, 1 + dim + dim (dim + 1) / 2) of x - centre and its products."""
    arguments, block = _common(k)
    arguments += [f"centre{k}"]
    dim = layout.dim
    width = 1 + dim + dim * (dim + 1) // 2
    setup = [
        f"away{k} = np.empty(({dim}, 64), np.float64)",
        f"base{k} = np.empty(64, np.int64)",
        f"sums{k} = store{k}[task]",
        f"running{k} = np.empty(({width}, 64), np.float64)",
    ]
    block += [f"running{k}[:, :] = 0.0"]
    record = [
        "for i in range(64):",
        f"    running{k}[0, i] += 1.0 if fate[i] < 0 else 0.0",
        f"m = {1 + dim}",
        f"for a in range({dim}):",
        "    for i in range(64):",
        f"        d = np.float64(lanes[row + a, i]) - centre{k}[a]",
        "        d = d if fate[i] < 0 else 0.0",
        f"        away{k}[a, i] = d",
        f"        running{k}[1 + a, i] += d",
        f"for a in range({dim}):",
        f"    for b in range(a, {dim}):",
        "        for i in range(64):",
        f"            running{k}[m, i] += away{k}[a, i] * away{k}[b, i]",
        "        m += 1",
    ]
    flush = [
        f"for c in range({width}):",
        "    for i in range(64):",
        f"        sums{k}[base{k}[i], c] += running{k}[c, i]",
    ]
    return Piece(arguments, setup, block, record, flush)
