"""The random streams of the core engine as arrays, and its step on whole rows of parameters.

A network's mini-batches, noise and updates come from the same functions of ``kernels/``, with the
same counters, as those of a FiniteSum: a network whose loss is a FiniteSum's takes its very steps.
A row is one replica's parameters; the loop over a row is what the compiler vectorises.
"""

from __future__ import annotations

import math

import numpy as np

from langevin.dynamics import SGD, Adam, Underdamped
from langevin.engines import compiling, source
from langevin.engines.batches import permutation_rounds
from langevin.engines.source import GROUP, Step, joined, names
from langevin.kernels.purposes import Purpose

DRAW = f"""
def draw_batch(
    out, size, ident, step, epoch, offset, n, rows, columns, rounds, how, key0, key1
):
    place = np.uint64(step)
    purpose = np.uint64({int(Purpose.PERMUTATION)})
    if how == 2:
        place = np.uint64(epoch)
        purpose = np.uint64({int(Purpose.SHUFFLE)})
    k0, k1, k2, k3 = philox(ident, place, np.uint64(0), purpose, key0, key1)
    salt0 = np.uint32(k0)
    salt1 = np.uint32(k1)
    for b in range(size):
        if how == 0:
            words = philox(
                ident, np.uint64(step), np.uint64(b // 4), np.uint64({int(Purpose.BATCH)}),
                key0, key1,
            )
            word = words[b % 4]
            out[b] = np.int64(draw_index(np.uint32(word), np.uint32(n)))
            continue
        index = offset + b
        walking = True
        while walking or index >= n:
            walking = False
            left = np.uint32(index // columns)
            right = np.uint32(index % columns)
            left, right = permute(
                left, right, np.uint32(rows), np.uint32(columns), rounds, salt0, salt1
            )
            index = np.int64(left) * columns + np.int64(right)
        out[b] = index
"""

INDICES = """
def run(out, sizes, ids, step, epochs, offsets, n, rows, columns, rounds, how, key0, key1):
    for r in range(out.shape[0]):
        draw_batch(
            out[r], sizes[r], ids[r], step, epochs[r], offsets[r], n, rows, columns, rounds, how,
            key0, key1,
        )
        for b in range(sizes[r], out.shape[1]):
            out[r, b] = out[r, 0]
"""

HOW = {"with_replacement": 0, "without_replacement": 1, "epoch_shuffle": 2}


class Indices:
    """Which examples each replica's mini-batch holds."""

    def __init__(self, sampling: str, n_examples: int, ids: np.ndarray, key: tuple[int, int]):
        self.how, self.n, self.ids = HOW[sampling], n_examples, ids.astype(np.uint64)
        rows = max(2, math.isqrt(n_examples))
        shape = (n_examples, rows, -(-n_examples // rows), permutation_rounds(rows), self.how)
        self.numbers = (*(np.int64(v) for v in shape), *(np.uint64(word) for word in key))
        self.kernel = compiling.load(source.module_source("float64", DRAW, INDICES))

    def draw(
        self, step: int, sizes: np.ndarray, epochs: np.ndarray, offsets: np.ndarray, width: int
    ) -> np.ndarray:
        """(replicas, width) indices for step ``step`` (from 0); beyond a size, the first again."""
        out = np.empty((len(self.ids), width), np.int64)
        whole = (np.asarray(a, np.int64) for a in (sizes, epochs, offsets))
        sizes, epochs, offsets = whole
        self.kernel(out, sizes, self.ids, np.int64(step), epochs, offsets, *self.numbers)
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
        lines.append(f"out[{2 * pair}, r, k], out[{2 * pair + 1}, r, k] = normal_pair({given})")
    body = "\n".join(f"            {line}" for line in lines)
    return f"""
def run(out, ids, group, key0, key1):
    kernel_hints()
    for r in range(out.shape[1]):
        for k in range(out.shape[2]):
{body}
"""


class Normals:
    """The normals of every component, for four steps at a time."""

    def __init__(self, dtype: str, ids: np.ndarray, dim: int, key: tuple[int, int]):
        self.ids, self.key = ids.astype(np.uint64), tuple(np.uint64(word) for word in key)
        self.kernel = compiling.load(source.module_source(dtype, _noise_source(dtype)))
        self.table, self.group = np.empty((GROUP, len(ids), dim), dtype), -1

    def at(self, step: int) -> np.ndarray:
        """(replicas, dim) for step ``step`` (from 0)."""
        group, j = divmod(step, GROUP)
        if group != self.group:
            self.kernel(self.table, self.ids, np.int64(group), *self.key)
            self.group = group
        return self.table[j]


def _update_source(step: Step, advance: str = "advance") -> str:
    """``run``: one step, or part of one, of every component; the gradient is given."""
    state = step.state
    drawn = names("z", step.n_normals)
    arguments = joined(
        names("row", len(state)), ["gradient"], names("noise", len(drawn)),
        ["coefficients"],
    )  # fmt: skip
    loads = [f"{name} = coefficients[{k}, c]" for k, name in enumerate(step.coefficients)]
    body = [f"{name} = row{k}[r, k]" for k, name in enumerate(state)]
    body += ["g0 = gradient[r, k]", *(f"{z} = noise{n}[r, k]" for n, z in enumerate(drawn))]
    given = joined(state, ["g0"], drawn, step.coefficients)
    body += [f"({joined(state)},) = {advance}({given})"]
    body += [f"row{k}[r, k] = {name}" for k, name in enumerate(state)]
    lines = [
        f"def run({arguments}):",
        "    kernel_hints()",
        "    for r in range(row0.shape[0]):",
        "        c = r if coefficients.shape[1] > 1 else 0",
        *(f"        {line}" for line in loads),
        "        for k in range(row0.shape[1]):",
        *(f"            {line}" for line in body),
        "",
    ]
    return "\n".join(lines)


def stretches(splitting: str) -> list[str]:
    """A splitting's letters between evaluations of the gradient, each of which follows an A.

    A splitting that ends where its first kick begins carries the gradient: its first stretch needs
    none of its own. "BAOAB" is "BAOA", "B"; "OBABO" is "O", "BA", "BO".
    """
    found, fresh = [""], carries_letters(splitting)
    for letter in splitting:
        if letter == "B" and not fresh:
            found.append("")
            fresh = True
        found[-1] += letter
        fresh = fresh and letter != "A"
    return found


class Update:
    """A dynamics' step on rows of parameters: the core engine's own ``advance``, one component.

    ``parts`` are called in turn with a fresh gradient before each but the first.
    """

    def __init__(self, dynamics, dtype: str):
        self.dynamics = dynamics
        self.step = Step(1, dynamics, not isinstance(dynamics, (SGD, Adam)))
        self.carries = False  # whether a step ends with the next one's first gradient
        if not isinstance(dynamics, Underdamped):
            self.rows = self.step.state
            text = source.module_source(
                dtype, source.step_source(self.step), _update_source(self.step)
            )
            self.parts = [(compiling.load(text), self.step.n_normals)]
            self.texts = [source.step_source(self.step)]  # of each part's advance
            self.before = [True]
            return
        self.rows, self.parts, self.before, self.texts = ["x0", "v0"], [], [], []
        self.step = Step(1, dynamics)
        self.carries = carries_letters(dynamics.splitting)
        for number, letters in enumerate(stretches(dynamics.splitting)):
            part = _Stretch(letters, self.step.coefficients)
            text = source.module_source(dtype, part.text, _update_source(part))
            self.parts.append((compiling.load(text), part.n_normals))
            self.before.append(number > 0)
            self.texts.append(part.text)
        if not self.parts[0][1] and stretches(dynamics.splitting)[0] == "":
            del self.parts[0], self.before[0], self.texts[0]

    @property
    def n_normals(self) -> int:
        """Normals of a component that a step takes."""
        return sum(count for _, count in self.parts)

    def batch(self, step: int, number: int) -> int:
        """Which mini-batch the gradient before part ``number`` of a step is of.

        Evaluations are counted from 0; a first one, before the first step, is where they are
        carried from step to step.
        """
        return step * sum(self.before) + sum(self.before[: number + 1]) - 1 + self.carries

    def __call__(self, number: int, state: list[np.ndarray], gradient, noises, coefficients):
        """Part ``number`` of a step moves ``state``, rows of (replicas, dim) each, in place."""
        kernel, _ = self.parts[number]
        kernel(*state, gradient, *noises, coefficients)


class _Stretch:
    """What `_update_source` asks of a Step, for some letters of a splitting."""

    def __init__(self, letters: str, coefficients: list[str]):
        self.state, self.coefficients = ["x0", "v0"], coefficients
        self.n_normals = letters.count("O")
        drawn = names("z", self.n_normals)
        lines, noises = [], iter(drawn)
        for letter in letters:
            if letter == "B":
                lines.append("v0 = kick(v0, g0, kick_dt)")
            elif letter == "A":
                lines.append("x0 = drift(x0, v0, drift_dt)")
            else:
                lines.append(f"v0 = ornstein_uhlenbeck(v0, {next(noises)}, decay, spread)")
        arguments = joined(self.state, ["g0"], drawn, coefficients)
        body = "".join(f"    {line}\n" for line in lines)
        self.text = f"def advance({arguments}):\n{body}    return (x0, v0,)\n"


def carries_letters(splitting: str) -> bool:
    """Whether the gradient at a step's end serves the next step's first kick."""
    before, _, _ = splitting.partition("B")
    _, _, after = splitting.rpartition("B")
    return "A" not in before + after
