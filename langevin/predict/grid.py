"""Graded grids: nodes that are close in narrow wells and ever wider apart in the tails."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

REACH = 3.0  # widths of a well over which the nodes are about evenly spaced


@dataclass(frozen=True, eq=False)
class Axis:
    """``cells`` cells between ``low`` and ``high``, of equal size in ``s(x)``.

    ``s(x) = sum_k asinh((x - centres_k)/widths_k)``: about linear within ``widths`` (k,) of every
    centre, a logarithm far away, where a power law then needs no more nodes a decade.
    """

    low: float
    high: float
    centres: np.ndarray
    widths: np.ndarray
    cells: int

    def stretch(self, x: np.ndarray) -> np.ndarray:
        """s(x), any shape."""
        z = (np.asarray(x, dtype=float)[..., None] - self.centres) / self.widths
        return np.arcsinh(z).sum(-1)

    def slope(self, x: np.ndarray) -> np.ndarray:
        """s'(x) > 0."""
        z = np.asarray(x, dtype=float)[..., None] - self.centres
        return (1 / np.hypot(z, self.widths)).sum(-1)

    def bend(self, x: np.ndarray) -> np.ndarray:
        """s''(x)."""
        z = np.asarray(x, dtype=float)[..., None] - self.centres
        return (-z / np.hypot(z, self.widths) ** 3).sum(-1)

    @cached_property
    def _ends(self) -> np.ndarray:
        return self.stretch(np.array([self.low, self.high]))

    @property
    def step(self) -> float:
        """The size of a cell in s."""
        return float(self._ends[1] - self._ends[0]) / self.cells

    def index(self, x: np.ndarray) -> np.ndarray:
        """Where x lies in units of cells, node i being at i."""
        return (self.stretch(x) - self._ends[0]) / self.step - 0.5

    def position(self, index: np.ndarray) -> np.ndarray:
        """x at (fractional) node numbers: the inverse of `index`."""
        s = self._ends[0] + (np.asarray(index, dtype=float) + 0.5) * self.step
        spread = np.sinh(np.linspace(-45, 45, 1801)) * self.widths[:, None]
        table = np.unique(np.clip(self.centres[:, None] + spread, self.low, self.high))
        x = np.interp(s, self.stretch(table), table)
        for _ in range(8):  # Newton from 1e-3: converged to rounding after three
            x = np.clip(x - (self.stretch(x) - s) / self.slope(x), self.low, self.high)
        return x

    @cached_property
    def halves(self) -> np.ndarray:
        """Nodes and the points midway between them in s, (2 cells - 1,)."""
        return self.position(np.arange(2 * self.cells - 1) / 2)

    @property
    def nodes(self) -> np.ndarray:
        """The centres of the cells, (cells,)."""
        return self.halves[::2]

    @cached_property
    def sizes(self) -> np.ndarray:
        """dx/ds times the cell, (cells,): what a density is multiplied by for a probability."""
        return self.step / self.slope(self.nodes)


def tensor(axes: list[np.ndarray]) -> np.ndarray:
    """All points of a tensor grid, (n1, n2, ..., dim)."""
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)


def merged(centres: np.ndarray, widths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centres and widths without those that a narrower one near by makes superfluous."""
    kept: list[int] = []
    for k in np.argsort(widths, kind="stable"):
        near = [abs(centres[k] - centres[j]) < (widths[k] + widths[j]) / 4 for j in kept]
        if not any(near):
            kept.append(int(k))
    return centres[kept], widths[kept]
