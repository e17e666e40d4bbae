"""Which units dropout keeps: masks that depend on seed, replica, step, layer and unit alone."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
import torch

from langevin.engines import compiling, source
from langevin.kernels.philox import philox
from langevin.kernels.purposes import Purpose

LAYER_SHIFT = 8  # the layer stands above the purpose in the counter's last word
KERNEL = """
def run(out, ids, number, purpose, dropped, scale, key0, key1):
    kernel_hints()
    n = out.shape[1]
    for r in range(out.shape[0]):
        for block in range(n // 4):
            w0, w1, w2, w3 = philox(
                ids[r], np.uint64(number), np.uint64(block), purpose, key0, key1
            )
            out[r, 4 * block] = scale if w0 >= dropped else real(0)
            out[r, 4 * block + 1] = scale if w1 >= dropped else real(0)
            out[r, 4 * block + 2] = scale if w2 >= dropped else real(0)
            out[r, 4 * block + 3] = scale if w3 >= dropped else real(0)
        words = philox(ids[r], np.uint64(number), np.uint64(n // 4), purpose, key0, key1)
        for k in range(4 * (n // 4), n):
            out[r, k] = scale if words[k % 4] >= dropped else real(0)
"""


@functools.cache
def _kernel(dtype: str):
    return compiling.load(source.module_source(dtype, KERNEL))


@dataclass(frozen=True)
class Draw:
    """The randomness of one evaluation of the gradient, for the replicas ``ids`` (copies,)."""

    dtype: str
    ids: np.ndarray
    number: int
    key: tuple[int, int]

    def mask(self, layer: int, shape: tuple[int, ...], p: float) -> torch.Tensor:
        """0 with probability p, else 1/(1 - p): shape (copies, ...), one number a unit."""
        out = np.empty((len(self.ids), math.prod(shape[1:])), self.dtype)
        scale = out.dtype.type(0.0 if p == 1 else 1 / (1 - p))
        purpose = np.uint64(int(Purpose.DROPOUT) | layer << LAYER_SHIFT)
        dropped = np.uint64(round(p * 2**32))
        key = (np.uint64(word) for word in self.key)
        _kernel(self.dtype)(out, self.ids, np.int64(self.number), purpose, dropped, scale, *key)
        return torch.from_numpy(out).view(shape)

    def seed(self, copy: int) -> int:
        """A seed for torch's generator, for one copy of a module that draws by itself."""
        counter = (self.ids[copy], self.number, 0, int(Purpose.MODULE), *self.key)
        words = philox(*(np.uint64(word) for word in counter))
        return int(words[0]) << 32 | int(words[1])
