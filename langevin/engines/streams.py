"""The random streams of the core engine as arrays, and its step on whole rows of parameters.

A network's mini-batches, noise and updates come from the same functions of ``kernels/``, with the
same counters, as those of a FiniteSum: a network whose loss is a FiniteSum's takes its very steps.
A row is one replica's parameters; the loop over a row is what the compiler vectorises.
"""

from __future__ import annotations

import math

import numpy as np

from langevin.dynamics import SGD
from langevin.engines import compiling, source
from langevin.engines.batches import permutation_rounds
from langevin.engines.source import GROUP, Step, joined
from langevin.kernels.purposes import Purpose

INDICES = f"""
def run(out, sizes, ids, step, epochs, offsets, n, rows, columns, rounds, how, key0, key1):
    for r in range(out.shape[0]):
        place = np.uint64(step)
        purpose = np.uint64({int(Purpose.PERMUTATION)})
        if how == 2:
            place = np.uint64(epochs[r])
            purpose = np.uint64({int(Purpose.SHUFFLE)})
        if how > 0:
            k0, k1, k2, k3 = philox(ids[r], place, np.uint64(0), purpose, key0, key1)
            salt0 = np.uint32(k0)
            salt1 = np.uint32(k1)
        for b in range(sizes[r]):
            if how == 0:
                words = philox(
                    ids[r], np.uint64(step), np.uint64(b // 4), np.uint64({int(Purpose.BATCH)}),
                    key0, key1,
                )
                word = words[b % 4]
                out[r, b] = np.int64(draw_index(np.uint32(word), np.uint32(n)))
                continue
            index = offsets[r] + b
            walking = True
            while walking or index >= n:
                walking = False
                left = np.uint32(index // columns)
                right = np.uint32(index % columns)
                left, right = permute(
                    left, right, np.uint32(rows), np.uint32(columns), rounds, salt0, salt1
                )
                index = np.int64(left) * columns + np.int64(right)
            out[r, b] = index
        for b in range(sizes[r], out.shape[1]):
            out[r, b] = out[r, 0]
"""

HOW = {"with_replacement": 0, "without_replacement": 1, "epoch_shuffle": 2}


class Indices:
    """Which examples each replica's mini-batch holds."""

    def __init__(self, sampling: str, n_examples: int, ids: np.ndarray, key: tuple[int, int]):
        self.how, self.n, self.ids = HOW[sampling], n_examples, ids.astype(np.uint64)
        self.key = tuple(np.uint64(word) for word in key)
        rows = max(2, math.isqrt(n_examples))
        self.shape = (rows, -(-n_examples // rows), permutation_rounds(rows))
        self.kernel = compiling.load(source.module_source("float64", INDICES))

    def draw(
        self, step: int, sizes: np.ndarray, epochs: np.ndarray, offsets: np.ndarray, width: int
    ) -> np.ndarray:
        """(replicas, width) indices for step ``step`` (from 0); beyond a size, the first again."""
        out = np.empty((len(self.ids), width), np.int64)
        whole = (np.asarray(a, np.int64) for a in (sizes, epochs, offsets))
        sizes, epochs, offsets = whole
        numbers = (np.int64(v) for v in (self.n, *self.shape, self.how))
        self.kernel(
            out, sizes, self.ids, np.int64(step), epochs, offsets, *numbers, *self.key
        )
        return out


def _noise_source(dtype: str) -> str:
    halves = 2 if dtype == "float64" else 1
    words = [f"w{h}_{w}" for h in range(halves) for w in range(4)]
    lines = []
    for h in range(halves):
        lines.append(
            f"{joined(words[4 * h : 4 * h + 4])} = philox(ids[r], np.uint64(group), "
            f"np.uint64({halves} * k + {h}), np.uint64({int(Purpose.NOISE)}), key0, key1)"
        )
    each = 2 * halves
    for pair in range(2):
        given = joined(f"np.uint32({word})" for word in words[each * pair : each * pair + each])
        lines.append(
            f"out[{2 * pair}, r, k], out[{2 * pair + 1}, r, k] = normal_pair({given})"
        )
    body = "\n".join(f"            {line}" for line in lines)
    return f"""
def run(out, ids, group, key0, key1, begin, end):
    kernel_hints()
    for r in range(out.shape[1]):
        for k in range(begin, end):
{body}
"""


class Normals:
    """The normals of every component, for four steps at a time."""

    def __init__(self, dtype: str, ids: np.ndarray, dim: int, key: tuple[int, int]):
        self.ids, self.key = ids.astype(np.uint64), tuple(np.uint64(word) for word in key)
        self.kernel = compiling.load(source.module_source(dtype, _noise_source(dtype)))
        self.table, self.group = np.empty((GROUP, len(ids), dim), dtype), -1

    def at(self, step: int, pool) -> np.ndarray:
        """(replicas, dim) for step ``step`` (from 0)."""
        group, j = divmod(step, GROUP)
        if group != self.group:
            pool(lambda begin, end: self.kernel(
                self.table, self.ids, np.int64(group), *self.key, np.int64(begin), np.int64(end)
            ))  # fmt: skip
            self.group = group
        return self.table[j]


def _update_source(step: Step) -> str:
    """``run``: one step of every component, the gradient given."""
    state = step.state
    arguments = joined(
        [f"s{k}" for k in range(len(state))], ["gradient"], ["noise"] if step.gaussian else [],
        ["coefficients", "begin", "end"],
    )
    loads = [f"{name} = coefficients[{k}, c]" for k, name in enumerate(step.coefficients)]
    given = joined(state, ["g0"], ["z0"] if step.gaussian else [], step.coefficients)
    body = [f"{name} = s{k}[r, k]" for k, name in enumerate(state)]
    body += ["g0 = gradient[r, k]", *(["z0 = noise[r, k]"] if step.gaussian else [])]
    body += [f"({joined(state)},) = advance({given})"]
    body += [f"s{k}[r, k] = {name}" for k, name in enumerate(state)]
    return "\n".join(
        [
            f"def run({arguments}):",
            "    kernel_hints()",
            "    for r in range(s0.shape[0]):",
            "        c = r if coefficients.shape[1] > 1 else 0",
            *(f"        {line}" for line in loads),
            "        for k in range(begin, end):",
            *(f"            {line}" for line in body),
            "",
        ]
    )


class Update:
    """A dynamics' step on rows of parameters: the core engine's own ``advance``, one component."""

    def __init__(self, dynamics, dtype: str):
        self.step = Step(1, dynamics, not isinstance(dynamics, SGD))
        parts = (source.step_source(self.step), _update_source(self.step))
        self.kernel = compiling.load(source.module_source(dtype, *parts))

    def __call__(self, state: list[np.ndarray], gradient, noise, coefficients, pool) -> None:
        """Moves ``state`` (rows of (replicas, dim) each) in place."""
        drawn = (noise,) if self.step.gaussian else ()
        pool(lambda begin, end: self.kernel(
            *state, gradient, *drawn, coefficients, np.int64(begin), np.int64(end)
        ))  # fmt: skip
