"""What an observer sees of one replica: an index or a number."""

import math

import numpy as np


def bin_index(x, low, inverse_width, n_bins, outside):
    """The bin of x among ``n_bins`` equal ones from ``low``; ``outside`` if in none (NaN too)."""
    scaled = (x - low) * inverse_width
    inside = (scaled >= 0) and (scaled < n_bins)
    return np.int32(scaled) if inside else np.int32(outside)


def cell_index(x, low, inverse_width, n_cells):
    """The cell of x, clamped to the nearest of ``n_cells``; NaN goes to the first."""
    scaled = (x - low) * inverse_width
    scaled = scaled if scaled >= 0 else low - low
    last = n_cells - 1
    return np.int32(scaled) if scaled < last else np.int32(last)


def beyond_line(u, v, a, b, c):
    """Whether the point (u, v) is on the first side of the line a u + b v = c."""
    return a * u + b * v >= c


def quench_step(x, gradient, rate):
    """One component of a descent step with the noise off."""
    return x - rate * gradient


def quench_rate(squared_norm, rate, longest):
    """The rate, cut so that a step is at most ``longest``: the path follows the gradient flow."""
    limit = longest * longest
    squared_step = rate * rate * squared_norm
    return rate * longest / math.sqrt(squared_step) if squared_step > limit else rate
