"""Observers that remember something of every replica: passages, transitions, trajectories."""

from __future__ import annotations

from langevin.engines.cpu_basins import basin_source
from langevin.engines.cpu_pieces import Piece, schedule


def passage_source(k: int, observer, layout) -> Piece:
    """The step of the first look that finds a lane in the region, or with leave outside it."""
    arguments, block, due = schedule(k, observer)
    arguments = [*arguments, f"passed{k}"]
    setup = [f"first_step{k} = np.empty(64, np.int64)"]
    block = [
        *block,
        "for i in range(64):",
        f"    first_step{k}[i] = passed{k}[start + min(i, valid - 1)]",
    ]
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
    here = f"(not {call})" if observer.leave else f"({call})"
    record = [
        *due,
        *find,
        "for i in range(64):",
        f"    fresh = {here} & (first_step{k}[i] == 0) & (fate[i] < 0)",
        f"    first_step{k}[i] = step if fresh else first_step{k}[i]",
    ]
    flush = ["for i in range(valid):", f"    passed{k}[start + i] = first_step{k}[i]"]
    return Piece(arguments, setup, block, record, flush, functions)
