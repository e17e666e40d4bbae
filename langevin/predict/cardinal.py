"""Integrals of a smooth function over pieces of cells, from its values on a uniform grid.

A law that a Gaussian step has just smoothed has no waves shorter than the step, so its values on
nodes half a standard deviation apart say all about it: ``f(y) = sum_j f_j phi((y - x_j)/h)`` with
``phi(u) = sinc(u) exp(-u**2/(2 r**2))``. Integrated up to any edge, phi gives the weights of the
nodes; their error is about 1e-8 of the function nearby where it is as narrow as one step, and far
less where it is wider (Qian 2003, the regularised Shannon kernel).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from langevin.predict.common import gauss_legendre

RADIUS = 6.0  # r, in nodes
REACH = 8.5 * RADIUS
BISECTIONS = 50


def phi(u: np.ndarray) -> np.ndarray:
    """The cardinal function at distances ``u`` in nodes."""
    return np.sinc(u) * np.exp(-(u**2) / (2 * RADIUS**2))


@lru_cache(maxsize=1)
def _table() -> Any:
    from scipy.interpolate import CubicHermiteSpline

    u = np.arange(-256 * REACH, 256 * REACH + 1) / 256
    x, w = gauss_legendre(6)
    pieces = (phi(u[:-1, None] + x / 256) @ w) / 256
    total = np.concatenate([[0.0], np.cumsum(pieces)])
    return CubicHermiteSpline(u, total / total[-1], phi(u) / total[-1])


def integral(u: np.ndarray) -> np.ndarray:
    """``int_-inf^u phi``."""
    return _table()(np.clip(u, -REACH, REACH))


def interval_weights(nodes: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Weights (n, b) of equidistant ``nodes`` (n,) for the integral over each bin of ``edges``."""
    h = nodes[1] - nodes[0]
    below = integral((edges - nodes[:, None]) / h)
    return h * np.diff(below, axis=1)


def line_weights(
    x: np.ndarray, inside: Callable[[np.ndarray, np.ndarray], np.ndarray], lines: int
) -> np.ndarray:
    """Weights (lines, n) of the nodes ``x`` (n,) for the integral over where ``inside`` holds.

    ``inside(x, line)``, two arrays of one shape, tells whether x is in on the line of that number.
    Its edges, at least a quarter of a cell apart, are found by bisection.
    """
    h = x[1] - x[0]
    at = np.linspace(x[0] - 8 * h, x[-1] + 8 * h, 4 * (len(x) + 15) + 1)
    number = np.broadcast_to(np.arange(lines)[:, None], (lines, len(at)))
    held = inside(np.broadcast_to(at, number.shape), number)
    line, k = np.nonzero(held[:, 1:] != held[:, :-1])
    a, b, left = at[k], at[k + 1], held[line, k]
    for _ in range(BISECTIONS):
        middle = (a + b) / 2
        same = inside(middle, line) == left
        a, b = np.where(same, middle, a), np.where(same, b, middle)
    below = integral(((a + b)[:, None] / 2 - x) / h)
    result = np.broadcast_to(held[:, -1:].astype(float), (lines, len(x))).copy()
    np.add.at(result, line, np.where(left, 1.0, -1.0)[:, None] * below)
    return h * result


def plane_weights(
    x: np.ndarray, y: np.ndarray, inside: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> np.ndarray:
    """Weights (nx, ny) of the nodes for the integral over where ``inside(x, y)`` holds.

    Along lines of fixed y its edges are found by `line_weights`; between the lines where their
    number changes (a corner, an edge along x), and within each half cell, Gauss-Legendre.
    """
    hx, hy = x[1] - x[0], y[1] - y[0]
    along = np.linspace(x[0] - 8 * hx, x[-1] + 8 * hx, 4 * (len(x) + 15) + 1)

    def signature(at: np.ndarray) -> np.ndarray:
        """Whether the condition holds at the line's low end, and how often it changes."""
        holds = inside(*np.broadcast_arrays(along, at[:, None]))
        return 2 * (holds[:, 1:] != holds[:, :-1]).sum(1) + holds[:, 0]

    cuts = y[0] + hy / 2 * np.arange(-16, 2 * len(y) + 15)
    before = signature(cuts)
    turns = np.flatnonzero(before[1:] != before[:-1])
    a, b = cuts[turns], cuts[turns + 1]
    for _ in range(BISECTIONS if len(turns) else 0):
        middle = (a + b) / 2
        same = signature(middle) == before[turns]
        a, b = np.where(same, middle, a), np.where(same, b, middle)
    cuts = np.sort(np.concatenate([cuts, (a + b) / 2]))
    node, weight = gauss_legendre(6)
    widths = np.diff(cuts)[:, None]
    lines, weights = (cuts[:-1, None] + widths * node).ravel(), (widths * weight).ravel()
    across = line_weights(x, lambda v, k: inside(v, lines[k]), len(lines))
    return (across * weights[:, None]).T @ phi((lines[:, None] - y) / hy)
