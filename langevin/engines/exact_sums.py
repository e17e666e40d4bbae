"""Sums of float64 numbers that do not depend on their order: whole numbers of eight sizes.

A number below 2**126 is cut into parts of 32 bits, each a whole number times 2**64, 2**32, 1, ...
down to 2**-160; parts are added as integers, so in any order and by any number of threads with
the same result. 2**30 numbers can be added before parts must be `carried`; what is not finite, or
larger, is counted in the last part, and the sum is NaN.
"""

from __future__ import annotations

import numpy as np

SIZES = 8
PARTS = SIZES + 1
BITS = 32
ROOM = 2**30  # numbers that can be added between two calls of carried()
TOP = 64

# A device function: cuda and np are names of the module it is pasted into.
ADD_EXACTLY = (
    f'''
def add_exactly(sums, value):
    """Adds value to the exact sum of {PARTS} parts."""
    rest = value * 2.0**-{TOP}
    if not abs(value) < 2.0**126:
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
    good = np.abs(values) < 2.0**126
    parts[..., SIZES] = ~good
    rest = np.where(good, values, 0.0) * 2.0**-TOP
    for k in range(SIZES):
        whole = np.trunc(rest)
        parts[..., k] = whole.astype(np.int64)
        rest = (rest - whole) * 2.0**BITS
    return parts


def to_floats(parts: np.ndarray) -> np.ndarray:
    """Parts (..., 9) as the nearest floats (...), within a rounding."""
    sizes = carried(parts.copy())[..., :SIZES]
    negative = sizes[..., 0] < 0
    sizes[negative] = carried(-sizes[negative])
    total = np.zeros(parts.shape[:-1])
    for k in reversed(range(SIZES)):
        total += sizes[..., k] * 2.0 ** (TOP - BITS * k)
    total[negative] *= -1
    total[parts[..., SIZES] != 0] = np.nan
    return total


def carried(parts):
    """The parts, changed in place: all but the first between 0 and 2**32, so that there is room."""
    for k in reversed(range(1, SIZES)):
        carry = parts[..., k] >> BITS
        parts[..., k] -= carry << BITS
        parts[..., k - 1] += carry
    return parts
