"""Sums of float64 numbers that do not depend on their order: whole numbers of eight sizes.

A number below 2**96 is cut into parts of 32 bits, each a whole number times 2**64, 2**32, 1, ...
down to 2**-160; parts are added as integers, so in any order and by any number of threads with
the same result. 2**30 numbers can be added before parts must be `carried`. What is not finite, or
larger, is counted in the last part, as is a sum that outgrows 2**124: the result is then NaN.
"""

from __future__ import annotations

import numpy as np

SIZES = 8
PARTS = SIZES + 1
BITS = 32
ROOM = 2**30  # numbers that can be added between two calls of carried()
TOP = 64
LARGEST = 2.0 ** (TOP + BITS)  # so that the first part, too, grows by less than 2**32 a number
FULL = 2**60  # of the first part: with 2**30 numbers more, or eight GPUs', it still holds

# A device function: cuda and np are names of the module it is pasted into.
ADD_EXACTLY = (
    f'''
def add_exactly(sums, value):
    """Adds value to the exact sum of {PARTS} parts."""
    rest = value * 2.0**-{TOP}
    if not abs(value) < {LARGEST!r}:
        cuda.atomic.add(sums, {SIZES}, np.int64(1))
    elif value != 0.0:
        for k in range({SIZES}):
            whole = np.int64(rest)
            if whole != 0:
                cuda.atomic.add(sums, k, whole)
            rest = (rest - np.float64(whole)) * 2.0**{BITS}
'''.strip()
    + "\n"
)


def from_floats(values: np.ndarray) -> np.ndarray:
    """Floats (...) as parts (..., 9)."""
    values = np.asarray(values, float)
    parts = np.zeros((*values.shape, PARTS), np.int64)
    good = np.abs(values) < LARGEST
    parts[..., SIZES] = ~good
    rest = np.where(good, values, 0.0) * 2.0**-TOP
    for k in range(SIZES):
        whole = np.trunc(rest)
        parts[..., k] = whole.astype(np.int64)
        rest = (rest - whole) * 2.0**BITS
    return parts


def to_floats(parts: np.ndarray) -> np.ndarray:
    """Parts (..., 9) as the nearest floats (...), within a rounding."""
    parts = carried(parts.copy())
    sizes = parts[..., :SIZES]
    negative = sizes[..., 0] < 0
    sizes[negative] = _carry(-sizes[negative])
    total = np.zeros(parts.shape[:-1])
    for k in reversed(range(SIZES)):
        total += sizes[..., k] * 2.0 ** (TOP - BITS * k)
    total[negative] *= -1
    total[parts[..., SIZES] != 0] = np.nan
    return total


def carried(parts):
    """The parts, changed in place: all but the first between 0 and 2**32, so that there is room.

    A first part that is full is counted in the last, before it can overflow.
    """
    _carry(parts)
    parts[..., SIZES] += abs(parts[..., 0]) >= FULL
    return parts


def _carry(sizes):
    for k in reversed(range(1, SIZES)):
        carry = sizes[..., k] >> BITS
        sizes[..., k] -= carry << BITS
        sizes[..., k - 1] += carry
    return sizes
