"""Finds the basin of each lane: between thresholds, in a label grid, or by a quench."""

from __future__ import annotations

from langevin.engines.source import joined, names


def basin_source(k: int, finder, layout) -> tuple[list, list, list]:
    """Arguments, set-up, and the lines that leave the basin of lane i in ``basin{k}[i]``.

    The class after the last minimum, ``unknown{k}``, is that of no known basin.
    """
    setup = [f"basin{k} = np.empty(64, np.int32)", f"unknown{k} = np.int32({finder.n})"]
    if finder.n == 1:
        return [], setup, ["for i in range(64):", f"    basin{k}[i] = 0"]
    if layout.dim == 1:
        find = [
            "for i in range(64):",
            f"    basin{k}[i] = 0",
            f"for m in range(thresholds{k}.size):",
            f"    edge = thresholds{k}[m]",
            "    for i in range(64):",
            f"        basin{k}[i] += np.int32(1) if lanes[row, i] >= edge else np.int32(0)",
        ]
        return [f"thresholds{k}"], setup, find
    if layout.dim == 2:
        cells = [
            f"cx = cell_index(lanes[row, i], low{k}[0], inverse{k}[0], np.int32(nx{k}))",
            f"cy = cell_index(lanes[row + 1, i], low{k}[1], inverse{k}[1], np.int32(ny{k}))",
        ]
        find = [
            "for i in range(64):",
            *("    " + line for line in cells),
            f"    basin{k}[i] = table{k}[cx, cy]",
            # A second loop, so that the branch does not keep the first one from vectorising.
            "for i in range(64):",
            f"    label = basin{k}[i]",
            "    if label < 0:",
            "        if label < -1:  # a border crosses this cell",
            "            border = -2 - label",
            *("            " + line for line in cells),
            f"            u = (lanes[row, i] - low{k}[0]) * inverse{k}[0] - cx",
            f"            v = (lanes[row + 1, i] - low{k}[1]) * inverse{k}[1] - cy",
            f"            line = lines{k}[border]",
            "            first = beyond_line(u, v, line[0], line[1], line[2])",
            f"            label = np.int32(sides{k}[border, 0] if first else sides{k}[border, 1])",
            f"        basin{k}[i] = label if label >= 0 else unknown{k}",
        ]
        setup += [f"nx{k}, ny{k} = table{k}.shape"]
        arguments = [f"{name}{k}" for name in ("table", "lines", "sides", "low", "inverse")]
        return arguments, setup, find
    arguments, more, find = _quench(k, finder, layout)
    return arguments, setup + more, find


def _quench(k: int, finder, layout):
    """Above two dimensions: a copy descends with the noise off until near a known minimum."""
    dim = layout.dim
    parameters = names("p", finder.n_parameters)
    arguments = [f"minima{k}", f"reach{k}", f"rate{k}", f"longest{k}", f"sweeps{k}"]
    setup = [f"copy{k} = np.empty(({dim}, 64), real)", f"near{k} = np.empty(64, real)"]
    x, g = names("x", dim), names("g", dim)
    square = " + ".join(f"g{a} * g{a}" for a in range(dim))
    descend = [
        f"for _ in range({finder.descents}):",
        "    for i in range(64):",
        *(f"        x{a} = copy{k}[{a}, i]" for a in range(dim)),
        f"        ({joined(g)},) = gradient({joined(x, parameters)})",
        f"        rate = quench_rate({square}, rate{k}, longest{k})",
        *(f"        copy{k}[{a}, i] = quench_step(x{a}, g{a}, rate)" for a in range(dim)),
    ]
    nearest = [
        "for i in range(64):",
        f"    basin{k}[i] = unknown{k}",
        f"    near{k}[i] = reach{k}",
        f"for m in range(unknown{k}):",
        "    for i in range(64):",
        *(f"        d{a} = copy{k}[{a}, i] - minima{k}[m, {a}]" for a in range(dim)),
        f"        distance = {' + '.join(f'd{a} * d{a}' for a in range(dim))}",
        f"        closer = distance < near{k}[i]",
        f"        basin{k}[i] = np.int32(m) if closer else basin{k}[i]",
        f"        near{k}[i] = distance if closer else near{k}[i]",
        "open = 0",
        "for i in range(64):",
        f"    open += 1 if basin{k}[i] == unknown{k} and fate[i] < 0 else 0",
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
