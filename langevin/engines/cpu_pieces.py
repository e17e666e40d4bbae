"""What the sources of all observers are made of: schedules, cells, and tallies by lane."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, replace

FAR = 2**30  # steps from a launch's begin: later than any of the launch


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


def lasting(k: int, piece: Piece) -> list[str]:
    """Names of the k-th observer that are set before the steps and read at its looks or after."""
    head = ast.parse("\n".join(piece.block))
    later = ast.parse("\n".join(piece.record + piece.flush))
    own = re.compile(rf"[a-z_]+{k}")
    made = {}
    for node in ast.walk(head):
        for target in getattr(node, "targets", []):
            target = target.value if isinstance(target, ast.Subscript) else target
            made[target.id] = None
    read = {n.id for n in ast.walk(later) if isinstance(n, ast.Name)}
    return [name for name in made if name in read and own.fullmatch(name)]


def read_again(piece: Piece) -> Piece:
    """The piece with its set-up repeated where it is used, so that it need not last."""
    again = [line for line in piece.setup if "np.empty" not in line]
    return replace(piece, record=again + piece.record, flush=again + piece.flush)


def schedule(k: int, observer, layout) -> tuple[list, list, list]:
    """Arguments, lines at the head of a block, and lines for each step that is due.

    ``next{k}`` is the next step due; ``when{k}`` the slot to count in: the half of the run, or with
    at= the number of the step among those. A thread counts the steps of its launch, the first being
    0, so that 32 bits hold them.
    """
    if layout.threads:
        return _thread_schedule(k, observer)
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


def _thread_schedule(k: int, observer) -> tuple[list, list, list]:
    if observer.at is not None:
        following = f"next{k} = np.int32(min(at{k}[place{k}] - 4 * group_begin - 1, {FAR}))"
        block = [
            f"place{k} = np.int32(0)",
            f"while at{k}[place{k}] <= 4 * group_begin:",
            f"    place{k} = np.int32(place{k} + 1)",
            following,
        ]
        due = [f"when{k} = place{k}", f"place{k} = np.int32(place{k} + 1)", following]
        return [f"at{k}"], block, due
    block = [
        f"ahead = first{k} - 4 * group_begin - 1",
        "if ahead < 0:",
        f"    ahead += ((-1 - ahead) // every{k} + 1) * every{k}",
        f"next{k} = np.int32(min(ahead, {FAR}))",
        f"stride{k} = np.int32(min(every{k}, {FAR}))",
        f"half{k} = np.int32(min(max(middle{k} - 4 * group_begin, 0), {FAR + 1}))",
    ]
    due = [
        f"when{k} = np.int32(0) if step < half{k} else np.int32(1)",
        f"next{k} = np.int32(next{k} + stride{k})",
    ]
    return [f"first{k}", f"every{k}", f"middle{k}"], block, due


def counting(k: int, observer, layout) -> tuple[list, list, list, list]:
    """Arguments, set-up, head of a block and due lines of an observer that counts in cells."""
    arguments, block, due = schedule(k, observer, layout)
    arguments = [*arguments, f"cells{k}", f"n_cells{k}", f"parts{k}", f"store{k}"]
    setup = [f"base{k} = np.empty(64, {layout.whole})", f"counts{k} = store{k}[task]"]
    block = [
        *block,
        "for i in range(64):",
        "    r = start + min(i, valid - 1)",
        f"    cell = np.int64(cells{k}[r if cells{k}.size > 1 else 0])",
        f"    base{k}[i] = ((i * parts{k}) // 64) * n_cells{k} + cell",
    ]
    return arguments, setup, block, due


def accumulated(k: int, observer, layout, width: int, kind: str, lines: list, slots="2") -> tuple:
    """Set-up, head of a block, record and flush around ``lines``, which add to lane i's tallies.

    They add to ``running{k}[slot{k} + c, i]`` with c below ``width``. Slots are few with every= and
    are kept by lane until the block's end; with at= they may be many, and are added at once. A
    thread keeps one slot alone, in registers, and adds it when another begins.
    """
    # With slots in turn a thread adds at every look, and keeps nothing between two.
    at_once = observer.at is not None or (layout.threads and slots != "2")
    single = layout.threads or at_once
    rows = f"{'1' if single else slots} * {width}"
    setup = [f"running{k} = np.empty(({rows}, 64), {kind})"]
    clear = [f"running{k}[:, :] = 0"]
    now = f"when{k}" if at_once else f"kept{k}"
    where = f"{now}, c" if single else f"c // {width}, c % {width}"
    flush = [
        f"for c in range({rows}):",
        "    for i in range(64):",
        f"        counts{k}[base{k}[i], {where}] += running{k}[c, i]",
    ]
    if at_once:
        return setup, [], [*clear, f"slot{k} = 0", *lines, *flush], []
    if not layout.threads:
        return setup, clear, [f"slot{k} = when{k} * {width}", *lines], flush
    change = [f"if when{k} != kept{k}:", *("    " + line for line in flush + clear)]
    change += [f"    kept{k} = when{k}", f"slot{k} = 0"]
    return setup, [*clear, f"kept{k} = np.int32(0)"], [*change, *lines], flush


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
