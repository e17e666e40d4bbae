"""Observers that remember something of every replica: passages, transitions, trajectories."""

from __future__ import annotations

from langevin.engines.cpu_basins import basin_source
from langevin.engines.cpu_pieces import Piece, accumulated, counting, schedule, values


def passage_source(k: int, observer, layout) -> Piece:
    """The step of the first look that finds a lane in the region, or with leave outside it."""
    arguments, block, due = schedule(k, observer, layout)
    arguments = [*arguments, f"passed{k}"]
    setup = [f"first_step{k} = np.empty(64, {layout.whole})"]
    before = f"passed{k}[start + min(i, valid - 1)]"
    flush = ["for i in range(valid):", f"    passed{k}[start + i] = first_step{k}[i]"]
    if layout.threads:  # -1: it was in an earlier launch
        before = f"np.int32(-1) if {before} != 0 else np.int32(0)"
        flush = [
            "for i in range(valid):",
            f"    if first_step{k}[i] > 0:",
            f"        passed{k}[start + i] = 4 * group_begin + first_step{k}[i]",
        ]
    block = [*block, "for i in range(64):", f"    first_step{k}[i] = {before}"]
    if observer.finder is None:
        arguments += [f"shift{k}"]
        setup += [f"away{k} = np.empty(64, real)"]
        block += [
            "for i in range(64):",
            f"    away{k}[i] = shift{k}[start + min(i, valid - 1) if shift{k}.size > 1 else 0]",
        ]
        call = observer.quantities.call(f"region{k}")[:-1]
        call += f"{'' if call.endswith('(') else ', '}away{k}[i])"
        find, functions = [], observer.functions(k)
    else:
        more, prepare, find = basin_source(k, observer.finder, layout)
        arguments += [f"minimum{k}", *more]
        setup += prepare
        call, functions = f"basin{k}[i] == minimum{k}", ""
    now = "step + 1" if layout.threads else "step"
    here = f"(not {call})" if observer.leave else f"({call})"
    record = [
        *due,
        *find,
        "for i in range(64):",
        f"    fresh = {here} & (first_step{k}[i] == 0) & (fate[i] < 0)",
        f"    first_step{k}[i] = {now} if fresh else first_step{k}[i]",
    ]
    return Piece(arguments, setup, block, record, flush, functions)


def transition_source(k: int, observer, layout) -> Piece:
    """Pairs of basins one look and two looks apart, in flat counts; the last slot for no pair."""
    arguments, setup, block, due = counting(k, observer, layout)
    more, prepare, find = basin_source(k, observer.finder, layout)
    n = observer.n
    arguments += [f"last{k}", f"before{k}", *more]
    setup += [
        *prepare,
        f"one{k} = np.empty(64, np.int32)",
        f"two{k} = np.empty(64, np.int32)",
        f"pair{k} = np.empty(64, {layout.whole})",
        f"none{k} = counts{k}.size - 1",
    ]
    block = [
        *block,
        "for i in range(64):",
        "    r = start + min(i, valid - 1)",
        f"    one{k}[i] = last{k}[r]",
        f"    two{k}[i] = before{k}[r]",
        f"    base{k}[i] *= {2 * n * n}",
    ]

    def count(earlier: str, offset: int) -> list:
        place = f"base{k}[i] + {offset} + {earlier}{k}[i] * {n} + basin{k}[i]"
        return [
            "for i in range(64):",
            f"    known = ({earlier}{k}[i] >= 0) & (basin{k}[i] < unknown{k}) & (fate[i] < 0)",
            f"    pair{k}[i] = {place} if known else none{k}",
            "for i in range(64):",
            f"    counts{k}[pair{k}[i]] += 1",
        ]

    record = [
        *due,
        *find,
        *count("one", 0),
        *count("two", n * n),
        "for i in range(64):",
        f"    known = basin{k}[i] < unknown{k}",
        f"    two{k}[i] = one{k}[i] if known else np.int32(-1)",
        f"    one{k}[i] = basin{k}[i] if known else np.int32(-1)",
    ]
    flush = [
        "for i in range(valid):",
        f"    last{k}[start + i] = one{k}[i]",
        f"    before{k}[start + i] = two{k}[i]",
    ]
    return Piece(arguments, setup, block, record, flush)


def trajectory_source(k: int, observer, layout) -> Piece:
    """Positions into the record of this step; NaN for the dead."""
    arguments, block, due = schedule(k, observer, layout)
    now = f"(step - first{k}) // every{k}"
    if layout.threads:  # counted: a division of 64 bits is a function
        block += [f"turn{k} = np.int32((ahead + 4 * group_begin + 1 - first{k}) // every{k})"]
        due += [f"turn{k} = np.int32(turn{k} + 1)"]
        now = f"turn{k} - 1"
    record = [
        *due,
        f"record{k} = {now}",
        "for i in range(valid):",
        f"    place = place{k}[start + i]",
        "    if place >= 0:",
        f"        for a in range({layout.dim}):",
        f"            kept{k} = lanes[row + a, i] if fate[i] < 0 else real(np.nan)",
        f"            store{k}[record{k}, a, place] = kept{k}",
    ]
    return Piece([*arguments, f"place{k}", f"store{k}"], [], block, record, [])


def autocorrelation_source(k: int, observer, layout) -> Piece:
    """Products with a reference that each lane renews after so many looks."""
    arguments, setup, block, due = counting(k, observer, layout)
    arguments += [f"centre{k}", f"lags{k}", f"reference{k}"]
    m = observer.n_quantities
    setup += [f"value{k} = np.empty(({m}, 64), np.float64)"]
    setup += [f"origin{k} = np.empty(({m}, 64), np.float64)"]
    block = [
        *block,
        f"for c in range({m}):",
        "    for i in range(64):",
        f"        origin{k}[c, i] = reference{k}[c, start + min(i, valid - 1)]",
    ]
    lines = [
        *values(k, observer),
        f"if when{k} == 0:",
        f"    for c in range({m}):",
        "        for i in range(64):",
        f"            origin{k}[c, i] = value{k}[c, i]",
        "for i in range(64):",
        f"    running{k}[slot{k}, i] += 1.0 if fate[i] < 0 else 0.0",
        f"for c in range({m}):",
        f"    sum{k} = slot{k} + 1 + 3 * c",
        "    for i in range(64):",
        f"        running{k}[sum{k}, i] += origin{k}[c, i] * value{k}[c, i]",
        f"        running{k}[sum{k} + 1, i] += origin{k}[c, i] if fate[i] < 0 else 0.0",
        f"        running{k}[sum{k} + 2, i] += value{k}[c, i]",
    ]
    sums, clear, record, flush = accumulated(
        k, observer, layout, 1 + 3 * m, "np.float64", lines, f"lags{k}"
    )
    lag = [f"when{k} = ((step - first{k}) // every{k}) % lags{k}"]
    if layout.threads:
        turn = f"((ahead + 4 * group_begin + 1 - first{k}) // every{k}) % lags{k}"
        block += [f"turn{k} = np.int32({turn})"]
        following = f"np.int32(turn{k} + 1) if turn{k} + 1 < lags{k} else np.int32(0)"
        lag = [f"when{k} = turn{k}", f"turn{k} = {following}"]
    record = [*due, *lag, *record]
    flush += [
        f"for c in range({m}):",
        "    for i in range(valid):",
        f"        reference{k}[c, start + i] = origin{k}[c, i]",
    ]
    functions = observer.quantities.source(f"quantity{k}")
    return Piece(arguments, setup + sums, block + clear, record, flush, functions)
