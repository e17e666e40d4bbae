"""The cells that a border between basins crosses: quadrature up to the curve, and its chords.

In a cell ``[a, b] x [c, d]`` the part that belongs to a basin is integrated by the divergence
theorem: with ``G(x, y) = int_a^x f(t, y) dt`` it is ``int G dy`` around its edge, of which only
the pieces of the border and of the side x = b count (G = 0 on x = a, dy = 0 above and below).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

ORDER = 12
NODES, WEIGHTS = np.polynomial.legendre.leggauss(ORDER)
NODES, WEIGHTS = (NODES + 1) / 2, WEIGHTS / 2
CHUNK = 2000  # pieces at a time
BENT = 0.1  # of a cell: the most that a border may leave its chord
OUTVOTED = 0.01  # of a region's cells: those beside a border may be mislabelled, more may not


@dataclass(frozen=True, eq=False)
class Borders:
    """Where separatrices cross the cells between cuts ``x`` and ``y``.

    ``crossed`` (nx, ny) marks the cells that a border runs through, ``labels`` (nx, ny) are the
    basins of the others. Pieces of border, one per cell
    and passage: ``cells`` (p, 2), ``curves`` (p,) with the branch each is part of, ``spans`` (p, 2)
    in arc length, ``left`` and ``right`` (p,) the basins beside it. Stretches of the sides x = b:
    ``side_cells`` (q, 2), ``side_spans`` (q, 2) in y, ``side_labels`` (q,).
    """

    x: np.ndarray
    y: np.ndarray
    branches: list
    crossed: np.ndarray
    cells: np.ndarray
    curves: np.ndarray
    spans: np.ndarray
    left: np.ndarray
    right: np.ndarray
    side_cells: np.ndarray
    side_spans: np.ndarray
    side_labels: np.ndarray
    labels: np.ndarray

    def nodes(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Labels (k,), nodes (k, q, 2) and weights (k, q), some of them negative, for any f."""
        n, w = NODES, WEIGHTS
        for start in range(0, len(self.side_cells), CHUNK):
            part = slice(start, start + CHUNK)
            i, (low, high) = self.side_cells[part, 0], self.side_spans[part].T
            y = low[:, None] + (high - low)[:, None] * n
            across = np.broadcast_to((self.x[i + 1] - self.x[i])[:, None], y.shape)
            yield self.side_labels[part], *_swept(self.x[i], across, y, (high - low)[:, None] * w)
        for b, branch in enumerate(self.branches):
            mine = np.flatnonzero(self.curves == b)
            for start in range(0, len(mine), CHUNK):
                part = mine[start : start + CHUNK]
                low, high = self.spans[part].T
                s = low[:, None] + (high - low)[:, None] * n
                points, tangents = (v.reshape(*s.shape, 2) for v in branch(s.ravel()))
                left_edge = self.x[self.cells[part, 0]]
                across = points[..., 0] - left_edge[:, None]
                dy = tangents[..., 1] * (high - low)[:, None] * w
                nodes, weights = _swept(left_edge, across, points[..., 1], dy)
                yield self.left[part], nodes, weights
                yield self.right[part], nodes, -weights

    def chords(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One straight line for each crossed cell: cells (k, 2), lines (k, 3), sides (k, 2).

        With u and v the position in the cell, 0 to 1 along each axis, ``lines`` (a, b, c) has the
        basin ``sides[0]`` where ``a u + b v >= c`` and ``sides[1]`` elsewhere. The line is the
        least squares fit: it leaves the areas on both sides right to leading order.
        Cells with more than two basins, or a border too bent for a line, are left out.
        """
        s = self.spans[:, :1] + np.diff(self.spans, axis=1) * NODES
        mass = np.diff(self.spans, axis=1) * WEIGHTS
        points, tangents = np.empty((*s.shape, 2)), np.empty((*s.shape, 2))
        for b, branch in enumerate(self.branches):
            mine = self.curves == b
            at = branch(s[mine].ravel())
            points[mine], tangents[mine] = (v.reshape(-1, len(NODES), 2) for v in at)
        i, j = self.cells.T
        corner = np.stack([self.x[i], self.y[j]], axis=-1)
        size = np.stack([self.x[i + 1], self.y[j + 1]], axis=-1) - corner
        points = (points - corner[:, None]) / size[:, None]
        # The left of a border's direction, turned so that the smaller label comes first.
        turn = np.where(self.left < self.right, 1.0, -1.0)[:, None]
        normals = np.stack([-tangents[..., 1], tangents[..., 0]], axis=-1) * size[:, None]
        cells, owner = np.unique(self.cells, axis=0, return_inverse=True)
        owner = owner.ravel()
        sides = np.sort(np.column_stack([self.left, self.right]), axis=1)
        lines, chosen, good = np.zeros((len(cells), 3)), np.zeros((len(cells), 2), np.int16), []
        for k, pieces in enumerate(np.split(np.argsort(owner), np.cumsum(np.bincount(owner))[:-1])):
            chosen[k] = sides[pieces[0]]
            w = mass[pieces].ravel() / mass[pieces].sum()
            p = points[pieces].reshape(-1, 2)
            centre = w @ p
            a = np.linalg.eigh((p - centre).T @ ((p - centre) * w[:, None]))[1][:, 0]
            facing = (normals[pieces] @ a) * turn[pieces]
            a = a if facing.sum() > 0 else -a
            lines[k] = *a, a @ centre
            straight = np.abs((p - centre) @ a).max() < BENT and (facing * facing.sum() > 0).all()
            good.append(straight and (sides[pieces] == chosen[k]).all())
        good = np.array(good)
        return cells[good], lines[good], chosen[good]


def _swept(left: np.ndarray, across: np.ndarray, y: np.ndarray, dy: np.ndarray):
    """Nodes (p, q*q, 2) and weights of ``int dy int_left^(left + across) dx`` for y (p, q)."""
    n, w = NODES, WEIGHTS
    x = left[:, None, None] + across[..., None] * n
    nodes = np.stack([x, np.broadcast_to(y[..., None], x.shape)], axis=-1)
    weights = (dy * across)[..., None] * w
    return nodes.reshape(len(left), -1, 2), weights.reshape(len(left), -1)


def find_borders(
    basins: Any, low: np.ndarray, high: np.ndarray, x: np.ndarray, y: np.ndarray, looked_up: Any
) -> Borders | None:
    """The borders of ``basins`` among the cells between cuts ``x`` and ``y``.

    ``looked_up`` (nx, ny) are the labels of the cells' centres in the basins' grid. None where a
    border cannot be traced, where the pieces do not fit together, or where cells that no border
    separates carry different labels: then one was missed.
    """
    separatrices = basins.separatrices(low, high)
    if not separatrices:
        return None
    borders = _crossings(separatrices, x, y)
    if borders is None:
        return None
    centres = [(c[:-1] + c[1:]) / 2 for c in (x, y)]
    known = [(c > basins.low[k]) & (c < basins.high[k]) for k, c in enumerate(centres)]
    labels = _filled(borders.crossed, looked_up, known[0][:, None] & known[1], basins.n)
    return None if labels is None else replace(borders, labels=labels)


def _filled(crossed, looked_up, known, n) -> np.ndarray | None:
    """One label for every region that the crossed cells enclose: what most of its cells carry."""
    from scipy import ndimage

    regions, count = ndimage.label(~crossed)
    votes = np.zeros((count + 1, n + 1), dtype=np.int64)
    counted = known & ~crossed
    np.add.at(votes, (regions[counted], looked_up[counted]), 1)  # -1, unassigned, is the last
    others = votes.sum(axis=1) - votes.max(axis=1)
    if (others > np.maximum(OUTVOTED * votes.sum(axis=1), 10)).any():
        return None
    unseen = votes.sum(axis=1) == 0  # beyond the box of labels
    if unseen[1:].any():
        beyond = ~crossed & unseen[regions]
        np.add.at(votes, (regions[beyond], looked_up[beyond]), 1)
    winners = votes.argmax(axis=1)
    labels = np.where(winners == n, -1, winners).astype(np.int16)
    return np.where(looked_up < 0, looked_up, labels[regions])


def _crossings(separatrices: Any, x: np.ndarray, y: np.ndarray) -> Borders | None:
    """Cut every separatrix at the lines of the grid; None where the pieces do not fit together."""
    branches, parts, crossings = [], [], []
    for separatrix in separatrices:
        for k, (branch, length) in enumerate(
            zip(separatrix.branches, separatrix.lengths, strict=True)
        ):
            sides = (separatrix.left, separatrix.right)
            left, right = sides if k == 0 else sides[::-1]
            part, crossing = _cut(branch, length, x, y, left, right)
            parts.append(np.column_stack([part, np.full(len(part), len(branches))]))
            crossings.append(crossing)
            branches.append(branch)
    part, crossing = np.concatenate(parts), np.concatenate(crossings)
    cells = part[:, :2].astype(int)
    crossed = np.zeros((len(x) - 1, len(y) - 1), bool)
    crossed[cells[:, 0], cells[:, 1]] = True
    sides = _sides(part, crossing, crossed, branches, y)
    if sides is None:
        return None
    spans, curves = part[:, 2:4], part[:, 6].astype(int)
    left, right = part[:, 4].astype(int), part[:, 5].astype(int)
    return Borders(x, y, branches, crossed, cells, curves, spans, left, right, *sides, crossed)


def _cut(branch, length, x, y, left, right):
    """Pieces (i, j, s0, s1, left, right) and crossings (i, j, y, below, above) of one branch.

    A crossing is with the line x = x[i + 1], in row j.
    """
    # So close that between two samples no line is crossed twice, but for grazes of no area.
    fine = min(np.diff(x).min(), np.diff(y).min()) / 4
    s = np.linspace(0, length, int(np.ceil(length / fine)) + 2)
    points = branch(s)[0]
    found = []
    for axis, cuts in enumerate((x, y)):
        index = np.searchsorted(cuts, points[:, axis], side="right")
        at = np.flatnonzero(index[1:] != index[:-1])
        lines = np.minimum(index[at], index[at + 1])
        s_cut = _bisected(branch, axis, cuts[lines], s[at], s[at + 1])
        found.append((s_cut, lines, index[at + 1] > index[at]))
    # By the samples, not the tangent: a border may run along a line but for rounding.
    (at_x, lines, eastward), (at_y, _, _) = found
    ends = np.unique(np.concatenate([[0.0, length], at_x, at_y]))
    middle = branch((ends[:-1] + ends[1:]) / 2)[0]
    i = np.searchsorted(x, middle[:, 0], side="right") - 1
    j = np.searchsorted(y, middle[:, 1], side="right") - 1
    inside = (i >= 0) & (i < len(x) - 1) & (j >= 0) & (j < len(y) - 1)
    sides = np.broadcast_to([left, right], (len(i), 2))
    pieces = np.column_stack([i, j, ends[:-1], ends[1:], sides])[inside]
    height = branch(at_x)[0][:, 1]
    row = np.searchsorted(y, height, side="right") - 1
    below, above = np.where(eastward, right, left), np.where(eastward, left, right)
    crossings = np.column_stack([lines - 1, row, height, below, above])
    valid = (lines > 0) & (lines < len(x)) & (row >= 0) & (row < len(y) - 1)
    return pieces, crossings[valid]


def _bisected(branch, axis, line, low, high):
    """Arc lengths between ``low`` and ``high`` at which the coordinate equals ``line``."""
    if not len(line):
        return low
    low, high = low.copy(), high.copy()
    before = branch(low)[0][:, axis] >= line
    for _ in range(60):
        middle = (low + high) / 2
        same = (branch(middle)[0][:, axis] >= line) == before
        low, high = np.where(same, middle, low), np.where(same, high, middle)
    return (low + high) / 2


def _sides(part, crossing, crossed, branches, y):
    """The stretches of the crossed cells' right sides and whose they are; None if inconsistent."""
    crossing = crossing[np.lexsort((crossing[:, 2], crossing[:, 1], crossing[:, 0]))]
    cell = crossing[:, :2].astype(int)
    height, below, above = crossing[:, 2:].T
    new = np.r_[True, (cell[1:] != cell[:-1]).any(axis=1)][: len(cell)]
    last = np.r_[new[1:], True][: len(cell)]
    if (below[1:] != above[:-1])[~new[1:]].any():
        return None
    # A stretch below every crossing, and one above the last crossing of each side.
    start = np.where(new, y[cell[:, 1]], np.r_[0.0, height[:-1]][: len(cell)])
    cells = [cell, cell[last]]
    spans = [np.column_stack([start, height])]
    spans += [np.column_stack([height[last], y[cell[last, 1] + 1]])]
    labels = [below, above[last]]
    open_ = crossed.copy()
    open_[cell[:, 0], cell[:, 1]] = False
    rest, theirs = _unbroken(part, open_, branches)
    cells.append(rest)
    spans.append(np.column_stack([y[rest[:, 1]], y[rest[:, 1] + 1]]))
    labels.append(theirs)
    return np.concatenate(cells), np.concatenate(spans), np.concatenate(labels).astype(int)


def _unbroken(part, open_, branches):
    """Cells whose right side no border crosses, and the label there.

    That side is seen from the easternmost point of the borders in the cell: what faces it there
    is the side's own basin.
    """
    i, j = part[:, 0].astype(int), part[:, 1].astype(int)
    mine = np.flatnonzero(open_[i, j])
    n = NODES
    s = part[mine, 2, None] + (part[mine, 3] - part[mine, 2])[:, None] * n
    east, label = np.full(len(mine), -np.inf), np.full(len(mine), -1.0)
    for b, branch in enumerate(branches):
        here = np.flatnonzero(part[mine, 6] == b)
        points, tangents = (v.reshape(len(here), len(n), 2) for v in branch(s[here].ravel()))
        best = points[..., 0].argmax(axis=1)
        rows = np.arange(len(here))
        east[here] = points[rows, best, 0]
        upwards = tangents[rows, best, 1] > 0
        label[here] = np.where(upwards, part[mine[here], 5], part[mine[here], 4])
    order = np.lexsort((-east, j[mine], i[mine]))
    cells, first = np.unique(np.column_stack([i[mine], j[mine]])[order], axis=0, return_index=True)
    return cells, label[order][first]
