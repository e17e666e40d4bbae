"""Where the replicas of a network begin."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from torch import nn

from langevin.errors import ParameterError
from langevin.kernels.philox import philox
from langevin.kernels.purposes import Purpose
from langevin.neural.models import reset


def starting_rows(surface: Any, start: Any, ids: np.ndarray, key, dtype: str) -> np.ndarray:
    """Parameters (n_replicas, dim) at step 0.

    ``start=None`` initialises each replica anew, from a generator keyed by seed and replica;
    "module" copies the module's own parameters; else numbers of shape (dim,) or (n_replicas, dim).
    """
    n, dim = len(ids), surface.dim
    if start is None:
        rows = np.empty((n, dim), dtype)
        for k, number in enumerate(ids):
            rows[k] = surface.flat(initialised(surface.module, int(number), key))
        return rows
    if isinstance(start, str):
        if start != "module":
            raise ParameterError(f"start={start!r}: 'module' is the only text that is known.")
        return np.repeat(surface.flat()[None].astype(dtype), n, axis=0)
    try:
        points = np.asarray(start, dtype=dtype)
    except (TypeError, ValueError):
        points = np.empty(0)
    if points.shape not in ((dim,), (n, dim)) or not np.isfinite(points).all():
        raise ParameterError(
            f"start has shape {points.shape}; needed: finite numbers ({dim},) for all replicas or "
            f"({n}, {dim}), None for a new initialisation each, or 'module'."
        )
    return np.broadcast_to(points, (n, dim)).astype(dtype, order="C")


def initialised(module: nn.Module, number: int, key: tuple[int, int]) -> nn.Module:
    """A copy of the module initialised anew, from a generator keyed by seed and replica.

    Raises ParameterError where a parameter has no reset_parameters(): pass start='module' then.
    """
    counter = (np.uint64(v) for v in (number, 0, 0, int(Purpose.INITIAL)))
    words = philox(*counter, *(np.uint64(word) for word in key))
    return reset(copy.deepcopy(module), seed=int(words[0]) << 32 | int(words[1]))
