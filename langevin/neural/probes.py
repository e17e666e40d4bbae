"""Random vectors of measurements: words of Philox, so the same seed always measures the same."""

from __future__ import annotations

import numpy as np

from langevin.checks import whole_number
from langevin.kernels.philox import philox
from langevin.kernels.purposes import Purpose


def signs(seed: int, number: int, dim: int) -> np.ndarray:
    """Vector ``number``: ``dim`` independent signs -1 or 1, float64 (Rademacher)."""
    words = _words(Purpose.PROBE, seed, number, -(-dim // 32))
    bits = np.unpackbits(words.astype("<u4").view(np.uint8))[:dim]
    return 2.0 * bits - 1.0


def uniforms(seed: int, number: int, dim: int) -> np.ndarray:
    """Vector ``number``: uniform numbers between 0 and 1, both excluded, float64 (dim,)."""
    return (_words(Purpose.PLACE, seed, number, dim)[:dim] + 0.5) / 2.0**32


def normals(seed: int, number: int, dim: int) -> np.ndarray:
    """Vector ``number``: standard normals, float64 (dim,), by Box and Muller (1958)."""
    u = (_words(Purpose.DIRECTION, seed, number, dim + dim % 2) + 0.5) / 2.0**32
    half = (dim + 1) // 2
    radius, angle = np.sqrt(-2 * np.log(u[:half])), 2 * np.pi * u[half : 2 * half]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:dim]


def _words(purpose: Purpose, seed: int, number: int, count: int) -> np.ndarray:
    """At least ``count`` words of 32 bits, uint64."""
    seed = whole_number("seed", seed, 0, 2**64 - 1)
    key = np.uint64(seed & 0xFFFFFFFF), np.uint64(seed >> 32)
    blocks = np.arange(-(-count // 4), dtype=np.uint64)
    zero = np.zeros_like(blocks)
    given = (zero + np.uint64(number), blocks, zero, zero + np.uint64(purpose))
    with np.errstate(over="ignore"):
        return np.stack(philox(*given, *key), axis=1).reshape(-1)
