"""Whether a run fits into the memory of GPUs, said before it begins."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from langevin.engines import compiling
from langevin.engines.dropping import passages_alone
from langevin.engines.exact_sums import PARTS
from langevin.errors import UnavailableError

SPARE = 2**28  # bytes that kernels themselves take: their code, and arrays of threads
ADVICE = "Use fewer replicas, bins or groups, dtype='float32', or several GPUs (device='cuda:all')."


def free() -> float:
    """Bytes that arrays may still take on the GPU of this context."""
    if compiling.simulated():
        return math.inf
    import cupy

    return cupy.cuda.runtime.memGetInfo()[0] + cupy.get_default_memory_pool().free_bytes()


def needed(state, observers, begin: int, end: int) -> int:
    """Bytes that a GPU takes for replicas begin ... end - 1: what stays there, and copies at looks.

    A look asks of each replica whether it has diverged or passed; replicas that are packed are
    copied, with their numbers.
    """
    n = state.positions.shape[1]
    given = [*state.arguments(0, 4), *(v for o in observers for v in o.arguments())]
    arrays = [value for value in given if isinstance(value, np.ndarray)]
    stores = {id(o.store) for o in observers}  # every GPU has the whole of them
    split = [a.shape[-1] == n > 1 and id(a) not in stores for a in arrays]
    own = [a.nbytes // n for a, mine in zip(arrays, split, strict=True) if mine]
    shared = sum(a.nbytes for a, mine in zip(arrays, split, strict=True) if not mine)
    exact = [o.store for o in observers if o.store.dtype == float and o.kind != "trajectory"]
    shared += sum((PARTS - 1) * store.nbytes for store in exact)
    copies = 1
    if passages_alone(observers):
        positions = state.positions.nbytes // n
        copies = 3 + sum(own) + positions + 4 * 8  # whether, where, and the numbers of those
    return shared + (end - begin) * (sum(own) + copies) + SPARE


def check(state, observers, devices, spans) -> None:
    """Raises UnavailableError with figures where a GPU's share of the replicas does not fit."""
    for device, (begin, end) in zip(devices, spans, strict=False):
        with compiling.on_device(device):
            there = free()
        wanted = needed(state, observers, begin, end)
        if wanted > there:
            raise UnavailableError(
                f"{end - begin:,} replicas and what observes them take {wanted / 2**30:.3g} GiB of "
                f"GPU {device}, where {there / 2**30:.3g} GiB are free. {ADVICE}"
            )


@contextmanager
def enough(n_replicas: int) -> Iterator[None]:
    """Turns a GPU's lack of memory into an UnavailableError that says what to do."""
    try:
        yield
    except Exception as error:  # CuPy's, or the driver's where threads have large arrays
        if not isinstance(error, MemoryError) and "OUT_OF_MEMORY" not in str(error):
            raise
        raise UnavailableError(
            f"the GPU has no room for {n_replicas:,} replicas and what observes them ({error}). "
            f"{ADVICE}"
        ) from error
