"""The loops over examples: real mini-batches, and the full gradient, of a FiniteSum.

For each step a block of 64 replicas draws 64 indices at a time, gathers features, and adds up
``slope * features``. No replica keeps a list of its examples: the indices of a step are drawn, or
permuted, from its counter; those of an epoch are a stretch of the epoch's own permutation.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from langevin.dynamics import SGD
from langevin.engines.source import joined, names
from langevin.engines.windows import EPOCH, OFFSET, SIZE
from langevin.errors import ParameterError
from langevin.kernels.purposes import Purpose
from langevin.schedules import Schedule


class Batches:
    """What a FiniteSum adds to the kernel: arguments, set-up and the gradient of a block."""

    def __init__(self, surface, dynamics):
        allowed = ("euler_maruyama", "leimkuhler_matthews")
        if not isinstance(dynamics, SGD) and getattr(dynamics, "integrator", "") not in allowed:
            raise ParameterError(
                f"{dynamics!r} needs the gradient more than once a step; on data use SGD, or "
                "Overdamped with integrator='euler_maruyama' or 'leimkuhler_matthews'."
            )
        self.surface, self.dynamics = surface, dynamics
        self.stochastic = dynamics.batch_size is not None
        self.permuted = self.stochastic and dynamics.sampling != "with_replacement"
        self.shuffled = self.stochastic and dynamics.sampling == "epoch_shuffle"
        self.scheduled = self.stochastic and isinstance(dynamics.batch_size, Schedule)
        given = dynamics.batch_size if self.stochastic else surface.n_examples
        per_step = np.max(given.base if self.scheduled else given)
        self.weight = float(per_step) * (surface.dim + 8)
        self.arguments = ["features", "columns", "sizes", "l2"]
        self.arguments += ["rows", "columns_of_permutation", "rounds"] if self.permuted else []

    def values(self, dtype: np.dtype) -> tuple:
        """The arguments' values."""
        surface, n = self.surface, self.surface.n_examples
        sizes = np.array([n], np.int32)
        if self.stochastic and not self.scheduled:
            sizes = _sizes(self.dynamics, n)
        common = (
            surface.features.astype(dtype),
            surface.columns.astype(dtype),
            sizes,
            dtype.type(surface.l2),
        )
        if not self.permuted:
            return common
        rows = max(2, math.isqrt(n))  # one row alone could only be rotated
        return (
            *common,
            np.uint32(rows),
            np.uint32(-(-n // rows)),
            np.int64(permutation_rounds(rows)),
        )

    @property
    def source(self) -> str:
        """The module's own functions: the slopes of the per-example loss."""
        return self.surface.slopes_source()

    @property
    def setup(self) -> list[str]:
        """Lines before the loop over blocks."""
        n_predictors = len(self.surface.predictors)
        return [
            f"z = np.empty(({n_predictors}, 64), real)",
            f"slope = np.empty(({n_predictors}, 64), real)",
            f"inputs = np.empty(({max(1, self.surface.features.shape[1])}, 64), real)",
            "share = np.empty(64, real)",
            "size = np.empty(64, np.int32)",
            "full_size = np.empty(64, np.int32)",
            "per_epoch = np.empty(64, np.int64)",
            "taken = np.empty(64, np.int64)",
            "epoch = np.empty(64, np.int64)",
            "index = np.empty(64, np.int64)",
            "lefts = np.empty(64, np.uint32)",
            "rights = np.empty(64, np.uint32)",
            "dice = np.empty((4, 64), np.uint32)",
            "n_examples = np.int64(features.shape[0])",  # at run time: one kernel for all sizes
        ]

    @property
    def block(self) -> list[str]:
        """Lines at the head of a block: each lane's batch size, and batches in an epoch."""
        whole = "n_examples // full_size[i]"
        if self.stochastic and not self.dynamics.drop_last:
            whole = "(n_examples + full_size[i] - 1) // full_size[i]"
        return [
            "largest = 0",
            "for i in range(64):",
            "    full_size[i] = sizes[start + min(i, valid - 1) if sizes.size > 1 else 0]",
            "    size[i] = full_size[i]",
            "    share[i] = real(1) / real(size[i])",
            "    largest = max(largest, size[i])",
            "    taken[i] = 0",
            f"    per_epoch[i] = {whole}",
        ]

    def _batch_of_step(self) -> list[str]:
        """Lines that find size, epoch and place of this step's batch, where they change."""
        place = "4 * (group - group_begin) + j"
        if self.scheduled:
            return [
                f"largest = np.int32(schedule[{SIZE}, {place}])",
                "for i in range(64):",
                "    size[i] = largest",
                "    share[i] = real(1) / real(largest)",
                f"    epoch[i] = np.int64(schedule[{EPOCH}, {place}])",
                f"    taken[i] = np.int64(schedule[{OFFSET}, {place}])",
            ]
        if not self.shuffled:
            return []
        return [
            "for i in range(64):",
            "    epoch[i] = (4 * group + j) // per_epoch[i]",
            "    taken[i] = (4 * group + j - epoch[i] * per_epoch[i]) * full_size[i]",
            "    size[i] = min(np.int64(full_size[i]), n_examples - taken[i])",
            "    share[i] = real(1) / real(size[i])",
        ]

    def gradient(self, layout) -> list[str]:
        """Lines that leave the gradient at ``source_row`` in the gradient rows, for step j."""
        dim = layout.dim
        lines = [
            f"for k in range({dim}):",
            "    for i in range(64):",
            f"        lanes[{layout.gradient} + k, i] = l2 * lanes[source_row + k, i]",
        ]
        lines += self._batch_of_step()
        lines += self._keys() if self.permuted else []
        lines += ["for b in range(largest):"]
        indices = self._permuted() if self.permuted else self._drawn()
        if not self.stochastic:
            indices = ["for i in range(64):", "    index[i] = b"]
        return lines + ["    " + line for line in indices + self._example(layout)]

    def _keys(self) -> list[str]:
        purpose, number = Purpose.PERMUTATION, "4 * group + j"
        if self.shuffled:
            purpose, number = Purpose.SHUFFLE, "epoch[i]"
        counter = f"np.uint64({number}), np.uint64(0), np.uint64({int(purpose)})"
        return [
            "for i in range(64):",
            f"    w0, w1, w2, w3 = philox(ids[i], {counter}, key0, key1)",
            "    dice[0, i] = np.uint32(w0)",
            "    dice[1, i] = np.uint32(w1)",
        ]

    def _permuted(self) -> list[str]:
        keys = "dice[0, i], dice[1, i]"
        whole = f"permute(left, right, rows, columns_of_permutation, rounds, {keys})"
        one = f"permute_round(left, right, rows, columns_of_permutation, r, {keys})"
        number = "np.int64(left) * np.int64(columns_of_permutation) + np.int64(right)"
        place = "min(taken[i] + b, n_examples - 1)" if self.shuffled else "b"
        return [
            "for i in range(64):",
            f"    place = np.uint32({place})",
            "    lefts[i] = np.uint32(place // columns_of_permutation)",
            "    rights[i] = np.uint32(place % columns_of_permutation)",
            "for r in range(rounds):",
            "    for i in range(64):",
            "        left = lefts[i]",
            "        right = rights[i]",
            f"        left, right = {one}",
            "        lefts[i] = left",
            "        rights[i] = right",
            "for i in range(64):",
            "    left = lefts[i]",
            "    right = rights[i]",
            f"    index[i] = {number}",
            "for i in range(64):",
            "    while index[i] >= n_examples:",
            "        left = np.uint32(index[i] // np.int64(columns_of_permutation))",
            "        right = np.uint32(index[i] % np.int64(columns_of_permutation))",
            f"        left, right = {whole}",
            f"        index[i] = {number}",
        ]

    def _drawn(self) -> list[str]:
        counter = f"np.uint64(4 * group + j), np.uint64(b // 4), np.uint64({int(Purpose.BATCH)})"
        return [
            "if b % 4 == 0:",
            "    for i in range(64):",
            f"        w0, w1, w2, w3 = philox(ids[i], {counter}, key0, key1)",
            *(f"        dice[{w}, i] = np.uint32(w{w})" for w in range(4)),
            "for i in range(64):",
            "    index[i] = np.int64(draw_index(dice[b % 4, i], np.uint32(n_examples)))",
        ]

    def _example(self, layout) -> list[str]:
        """One example of each lane's batch: predictors, slopes, and their share of the gradient."""
        surface, lines = self.surface, []
        for m, p in enumerate(surface.predictors):
            row = f"source_row + {p.offset}"
            if p.feature is None:
                lines += ["for i in range(64):", f"    z[{m}, i] = lanes[{row}, i]"]
                continue
            lines += [
                "for i in range(64):",
                f"    z[{m}, i] = real(0)",
                f"for k in range({p.size}):",
                "    for i in range(64):",
                f"        inputs[{p.feature} + k, i] = features[index[i], {p.feature} + k]",
                f"for k in range({p.size}):",
                "    for i in range(64):",
                f"        z[{m}, i] += lanes[{row} + k, i] * inputs[{p.feature} + k, i]",
            ]
        count = len(surface.predictors)
        z = [f"z[{m}, i]" for m in range(count)]
        columns = [f"columns[index[i], {c}]" for c in range(surface.columns.shape[1])]
        slopes = joined(names("s", count))
        lines += [
            "for i in range(64):",
            f"    ({slopes},) = slopes({joined(z, columns, names('p', len(surface.parameters)))})",
            "    part = share[i] if b < size[i] else real(0)",
            *(f"    slope[{m}, i] = s{m} * part" for m in range(count)),
        ]
        for m, p in enumerate(surface.predictors):
            row = f"{layout.gradient + p.offset}"
            if p.feature is None:
                lines += ["for i in range(64):", f"    lanes[{row}, i] += slope[{m}, i]"]
                continue
            lines += [
                f"for k in range({p.size}):",
                "    for i in range(64):",
                f"        lanes[{row} + k, i] += slope[{m}, i] * inputs[{p.feature} + k, i]",
            ]
        return lines


def _sizes(dynamics: Any, n_examples: int) -> np.ndarray:
    """Batch sizes as whole numbers, (1,) or (n_replicas,)."""
    sizes = np.atleast_1d(np.asarray(dynamics.batch_size, dtype=float))
    if (sizes != np.round(sizes)).any() or (sizes < 1).any() or sizes.max() > 2**31 - 1:
        bad = sizes[(sizes != np.round(sizes)) | (sizes < 1) | (sizes > 2**31 - 1)][0]
        raise ParameterError(
            f"batch_size={bad:g}: a mini-batch of real examples needs a whole number >= 1."
        )
    if dynamics.sampling != "with_replacement" and sizes.max() > n_examples:
        raise ParameterError(
            f"batch_size={int(sizes.max())} is larger than the data ({n_examples} examples) and "
            "the sampling is without replacement. Use a smaller batch, or "
            "sampling='with_replacement'."
        )
    return sizes.astype(np.int32)


def permutation_rounds(rows: int) -> int:
    """Double rounds for which pairs are uniform to about 2**-20: more for a tiny data set."""
    return max(4, math.ceil(20 / math.log2(max(rows, 2))))
