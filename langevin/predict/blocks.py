"""`elimination.eliminate` in blocks: the same factors, most of the work in matrix products.

On a plane the band is as wide as a row of the grid, and updating it state by state is bound by
memory. Within a block of states only the block's own rows and columns are updated one by one; the
rest follows in one product, of non-negative matrices: nothing is subtracted here either.
"""

from __future__ import annotations

import numpy as np

from langevin.errors import UnsoundError
from langevin.predict.elimination import Factors, _banded
from langevin.predict.kernel import DISCONNECTED

BLOCK = 48


def eliminate_blocks(
    rows: np.ndarray, columns: np.ndarray, values: np.ndarray, loss: np.ndarray
) -> Factors:
    """Factor I - K from K's entries (from column to row) and the mass ``loss`` (n,) of each column.

    As `elimination.eliminate`, which see. Raises UnsoundError where a state cannot be left.
    """
    n = len(loss)
    first = np.arange(n)
    np.minimum.at(first, columns, rows)
    np.minimum.at(first, rows, columns)
    first[1:] = np.minimum.accumulate(first[:0:-1])[::-1]  # fill-in: a window becomes coupled
    band = max(int((np.arange(n) - first).max()), 1)
    wide = band + BLOCK  # a block's window reaches beyond the band, into zeros
    # Entry (i, j) at [i, j - i + wide]: a square window is then a plain strided view.
    storage = np.zeros((n, 2 * wide + 1))
    np.add.at(storage, (rows, columns - rows + wide), values)
    loss, leave, size = loss.copy(), np.ones(n), storage.itemsize
    flat = storage.reshape(-1)
    for stop in range(n, 1, -BLOCK):
        start = max(stop - BLOCK, 1)
        low = int(first[start:stop].min())
        shape, m = (stop - low, stop - low), start - low
        view = flat[low * (2 * wide + 1) + wide :]
        window = np.lib.stride_tricks.as_strided(view, shape, (2 * wide * size, size))
        for k in range(stop - 1, start - 1, -1):
            j = k - low
            out = window[:j, j]
            leave[k] = out.sum() + loss[k]
            if not leave[k] > 0:
                raise UnsoundError(DISCONNECTED)
            into = window[j, :j] / leave[k]
            window[:j, m:j] += out[:, None] * into[m:]
            window[m:j, :m] += out[m:, None] * into[:m]
            loss[low:k] += loss[k] * into
        window[:m, :m] += window[:m, m:] @ (window[m:, :m] / leave[start:stop, None])
    closed = not loss[0] > 0
    leave[0] = 1.0 if closed else loss[0]
    return Factors(*_banded(storage[:, BLOCK:-BLOCK], leave, band), closed)
