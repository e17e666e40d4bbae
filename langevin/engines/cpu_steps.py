"""The loops over 64 lanes that make random words and normals, and take four steps."""

from __future__ import annotations

from langevin.engines.source import GROUP, Step, joined, names
from langevin.kernels.purposes import Purpose


class Layout:
    """Which row of the lane buffer holds what.

    ``threads``: each lane will be a thread of a GPU. ``known``: its rows must then be numbers.
    ``leaves``: a thread that has diverged takes no further group, as nothing observes it.
    ``crowded``: there are more sums than registers, so that rows which observers look at are kept
    in shared memory, and need not be known.
    """

    def __init__(
        self,
        step: Step,
        dtype: str,
        *,
        threads: bool = False,
        known: bool = False,
        leaves: bool = False,
        crowded: bool = False,
    ):
        self.crowded, self.whole = crowded, "np.int32" if threads else "np.int64"
        self.threads, self.known, self.leaves = threads, known, leaves and known
        self.step, self.dim, self.gaussian, self.dtype = step, step.dim, step.gaussian, dtype
        self.state, self.noises = step.state, step.n_normals
        self.coefficients = step.coefficients
        self.first_coefficient = len(self.state)
        self.trail = self.first_coefficient + len(self.coefficients)
        self.normals = self.trail + GROUP * len(self.state)
        self.gradient = self.normals + GROUP * self.noises
        self.seen = self.gradient + max(self.dim, len(self.state) + self.noises)
        self.rows = self.seen + (len(self.state) if known else 0)
        self.halves = 2 if dtype == "float64" else 1  # Philox calls a component and group
        self.draws = self.halves * self.noises


def at_step(layout: Layout, j: str) -> list[str]:
    """Lines after which ``row`` is that of the state after step j of the group."""
    size = len(layout.state)
    if layout.crowded or not layout.known:
        return [f"row = {layout.trail} + {j} * {size}"]
    # Scalars have no index: those of step j are chosen among the four.
    chosen = []
    for k in range(size):
        rows = [f"lanes[{layout.trail + step * size + k}, i]" for step in range(GROUP)]
        early, late = (f"({b} if odd else {a})" for a, b in (rows[:2], rows[2:]))
        chosen.append(f"    lanes[{layout.seen + k}, i] = {late} if late else {early}")
    bits = [f"odd = {j} & np.int32(1) != np.int32(0)", f"late = {j} >= np.int32(2)"]
    return [*bits, "for i in range(64):", *chosen, f"row = {layout.seen}"]


def words(layout: Layout) -> list[str]:
    """Random words for the group."""
    if not layout.gaussian:
        return []
    return [
        "counter = np.uint64(group)",
        f"for draw in range({layout.draws}):",
        "    which = np.uint64(draw)",
        "    for i in range(64):",
        "        w0, w1, w2, w3 = philox("
        f"ids[i], counter, which, np.uint64({int(Purpose.NOISE)}), key0, key1)",
        *(f"        word[4 * draw + {w}, i] = np.uint32(w{w})" for w in range(4)),
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


def _load(layout: Layout) -> list[str]:
    rows = layout.state + layout.coefficients
    return [f"{name} = lanes[{k}, i]" for k, name in enumerate(rows)]


def _kept(layout: Layout) -> list[str]:
    """Freezes a lane that left the finite world: it stays where it was before this group."""
    state = layout.state
    inside = " and ".join(f"(abs({name}) < limit)" for name in state[: layout.dim])
    if layout.leaves:
        return [
            f"if not ({inside}):",
            "    break",
            *(f"lanes[{k}, i] = {name}" for k, name in enumerate(state)),
        ]
    return [
        f"kept = {inside} and (fate[i] < 0)",
        *(f"lanes[{k}, i] = {name} if kept else old{k}" for k, name in enumerate(state)),
        "fate[i] = fate[i] if kept or fate[i] >= 0 else np.int32(group)",
    ]


def constants(layout: Layout, parameters: list[str]) -> list[str]:
    """Names of the numbers that all replicas share: the surface's, then the step's own."""
    return parameters + names("q", layout.step.n_constants)


def _scheduled(layout: Layout, j: int | str) -> list[str]:
    """Lines that read the factors of step j of the group: scalars, before a loop over lanes."""
    rows = layout.step.scheduled
    place = f"4 * (group - group_begin) + {j}"
    return [f"{name}_factor{j} = real(schedule[{row}, {place}])" for name, row in rows.items()]


def _now(layout: Layout, j: int | str) -> list[str]:
    """The coefficients of step j: a scheduled one is multiplied by its factor."""
    rows = layout.step.scheduled
    return [f"{c} * {c}_factor{j}" if c in rows else c for c in layout.coefficients]


def fused(layout: Layout, batches) -> list[str]:
    """Normals and four steps in one loop over lanes, all in registers."""
    state = layout.state
    body = _load(layout)
    body += [line for k in range(layout.noises) for line in _normals(layout, k)]
    body += [f"old{k} = {name}" for k, name in enumerate(state)]
    for j in range(GROUP):
        noise = [f"z{k}_{j}" for k in range(layout.noises)]
        arguments = joined(state, noise, _now(layout, j), layout.step.arguments)
        body.append(f"({joined(state)},) = advance({arguments})")
        row = layout.trail + j * len(state)
        body += [f"lanes[{row + k}, i] = {name}" for k, name in enumerate(state)]
    factors = [line for j in range(GROUP) for line in _scheduled(layout, j)]
    return [*factors, "for i in range(64):", *("    " + line for line in body + _kept(layout))]


def _copied(target: str, origin: str, rows: int) -> list[str]:
    """Rows of the lane buffer, copied: all in one loop, or LLVM unrolls it into scalar moves."""
    moves = (f"    lanes[{target} + {k}, i] = lanes[{origin} + {k}, i]" for k in range(rows))
    return ["for i in range(64):", *moves]


def split(layout: Layout, batches) -> list[str]:
    """Normals to cache, then one loop over lanes for each step."""
    state, size, count = layout.state, len(layout.state), layout.noises
    lines = []
    for k in range(count):
        lines += ["for i in range(64):", *("    " + line for line in _normals(layout, k))]
        lines += [
            f"    lanes[{layout.normals + j * count + k}, i] = z{k}_{j}" for j in range(GROUP)
        ]
    # The step itself works on rows known when compiling: rows that depend on j have to be checked
    # for overlap with every row written, and more than 8 checks stop the vectoriser.
    now, fresh = str(layout.gradient), str(layout.gradient + size)
    drawn = f"{layout.normals} + j * {count}"
    direct = size * count <= 4
    noise_row = drawn if direct else fresh
    body = [f"{name} = lanes[{now} + {k}, i]" for k, name in enumerate(state)]
    body += _load(layout)[size:]
    noise = names("z", count)
    body += [f"{name} = lanes[{noise_row} + {k}, i]" for k, name in enumerate(noise)]
    arguments = joined(state, noise, _now(layout, "j"), layout.step.arguments)
    body.append(f"({joined(state)},) = advance({arguments})")
    body += [f"lanes[{now} + {k}, i] = {name}" for k, name in enumerate(state)]
    lines += [
        *_copied(now, "0", size),
        "for j in range(4):",
        *("    " + line for line in _scheduled(layout, "j")),
        *("    " + line for line in ([] if direct else _copied(fresh, drawn, count))),
        "    for i in range(64):",
        *("        " + line for line in body),
        *("    " + line for line in _copied(f"{layout.trail} + j * {size}", now, size)),
        "for i in range(64):",
    ]
    final = [f"{name} = lanes[{layout.trail + 3 * size + k}, i]" for k, name in enumerate(state)]
    final += [f"old{k} = lanes[{k}, i]" for k in range(size)]
    return lines + ["    " + line for line in final + _kept(layout)]


def batched(layout: Layout, batches) -> list[str]:
    """A step on data: loops over components, whose number may be large, hold one update each."""
    dim, size = layout.dim, len(layout.state)
    lines = []
    if layout.gaussian:
        rows = [f"word[{4 * layout.halves} * k + {w}, i]" for w in range(4 * layout.halves)]
        half = 2 * layout.halves
        lines += [
            f"for k in range({dim}):",
            "    for i in range(64):",
            f"        z0, z1 = normal_pair({joined(rows[:half])})",
            f"        z2, z3 = normal_pair({joined(rows[half:])})",
            *(f"        lanes[{layout.normals + j * dim} + k, i] = z{j}" for j in range(GROUP)),
        ]
    one = Step(1, batches.dynamics, layout.gaussian)
    place = {name: f"{k * dim} + k" for k, name in enumerate(one.state)}
    body = [f"{name} = lanes[source_row + {row}, i]" for name, row in place.items()]
    body += _load(layout)[size:]
    body += [f"g0 = lanes[{layout.gradient} + k, i]"]
    body += [f"z0 = lanes[{layout.normals} + j * {dim} + k, i]"] if layout.gaussian else []
    noise = ["z0"] if layout.gaussian else []
    arguments = joined(one.state, ["g0"], noise, _now(layout, "j"))
    body += [f"({joined(one.state)},) = advance({arguments})"]
    body += [f"lanes[target_row + {row}, i] = {name}" for name, row in place.items()]
    lines += [
        "source_row = 0",
        "for j in range(4):",
        f"    target_row = {layout.trail} + j * {size}",
        *("    " + line for line in _scheduled(layout, "j")),
        *("    " + line for line in batches.gradient(layout)),
        f"    for k in range({dim}):",
        "        for i in range(64):",
        *("            " + line for line in body),
        "    source_row = target_row",
        "for i in range(64):",
        "    inside = fate[i] < 0",
        f"    for k in range({dim}):",
        f"        inside = inside and abs(lanes[{layout.trail + 3 * size} + k, i]) < limit",
        "    if inside:",
        f"        for k in range({size}):",
        f"            lanes[k, i] = lanes[{layout.trail + 3 * size} + k, i]",
        "    elif fate[i] < 0:",
        "        fate[i] = np.int32(group)",
    ]
    return lines
