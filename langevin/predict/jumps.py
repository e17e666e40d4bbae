"""A diffusion as jumps between the cells of a grid: exponential fitting, positive for every D.

In the coordinates s of the grid a diffusion has the drift b and the matrix D (Ito). Selling's
decomposition writes any positive definite D, in units of cells, as ``sum_k l_k e_k e_k^T`` with
at most four integer offsets e_k and l_k >= 0, and a node jumps by ``+-e_k`` at the rates
``l_k B(-+z_k)``: ``B(z) = z/(e**z - 1)`` is Bernoulli's function, ``z_k = int D^-1 b . ds`` along
the edge. The rates are those of the node left, so the generator needs no derivative of D in Ito's
form; they are never negative; and mass is conserved, whatever the grid. For diagonal D this is
Scharfetter and Gummel's scheme; where ``D^-1 b = -grad Phi`` and D is isotropic and constant, z is
the difference of Phi between the nodes and detailed balance holds exactly.

Sources: Scharfetter and Gummel 1969; Wang, Peskin and Elston 2003 (the rates as jumps); Selling
1874, and Bonnans, Ottenwaelter and Zidani 2004 (its decomposition as a scheme).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from langevin.errors import UnsoundError
from langevin.predict.diffusion import WHO
from langevin.predict.elimination import Factors, eliminate

POLE, DEGREE = 21.0, 34  # |error| < 1e-13 of the rational exponential, found numerically
LONGEST = 24  # cells an offset may span
DISCONNECTED = (
    f"{WHO}: some minima cannot be reached from others in double precision: a wall or a barrier "
    "of hundreds of temperatures lies between them. Raise the noise, or predict each well alone."
)


def bernoulli(z: np.ndarray) -> np.ndarray:
    """``z/(e**z - 1)``, 1 at 0."""
    z = np.minimum(z, 700.0)
    small = np.abs(z) < 1e-5
    safe = np.where(small, 1.0, z)
    return np.where(small, 1 - z / 2 + z**2 / 12, safe / np.expm1(safe))


def selling(d: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights (n, k) >= 0 and integer offsets (n, k, 2) with ``D = sum_k l_k e_k e_k^T``.

    k is 3 where every D is diagonal (the offsets then are the axes), else 4.

    ``d`` (n, 2, 2) positive definite. Raises UnsoundError where an offset is too long for a grid.
    """
    n = len(d)
    v = np.broadcast_to(np.array([[1, 0], [0, 1], [-1, -1]]), (n, 3, 2)).astype(np.int64)
    trace = d[:, 0, 0] + d[:, 1, 1]
    for _ in range(200):
        gram = np.einsum("nia,nab,njb->nij", v, d, v)
        pairs = np.stack([gram[:, 1, 2], gram[:, 2, 0], gram[:, 0, 1]], axis=1)
        worst = pairs.argmax(axis=1)
        open_ = np.flatnonzero(pairs[np.arange(n), worst] > 1e-14 * trace)
        if not len(open_):
            break
        k = worst[open_]
        a, b = v[open_, (k + 1) % 3], v[open_, (k + 2) % 3]
        v = v.copy()
        v[open_, (k + 1) % 3], v[open_, (k + 2) % 3], v[open_, k] = -a, b, a - b
    offsets = np.stack([-v[..., 1], v[..., 0]], axis=-1)
    weights = np.maximum(-pairs, 0.0)
    if (d[:, 0, 1] != 0).any():
        weights, offsets = _smoothed(weights, offsets)
    weights[weights < 1e-13 * trace[:, None]] = 0.0
    if np.abs(np.where(weights[..., None] > 0, offsets, 0)).max() > LONGEST:
        raise UnsoundError(
            f"{WHO}: the noise is so nearly confined to one oblique direction that its jumps span "
            f"more than {LONGEST} cells. Rotate the coordinates to the axes of C, use "
            "predict.quadratic on a quadratic surface, or simulate."
        )
    return weights, offsets


def _smoothed(weights: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same sums with a fourth offset (n, 4), (n, 4, 2), and weights that are C^1 in D.

    Where D moves on to another triple of offsets Selling's weights have a kink, and the density a
    spike of first order. ``2 e_i e_i' + 2 e_j e_j' = sum of (e_i +- e_j)(e_i +- e_j)'`` lets the
    weight w of the offset that leaves and that of the one that comes, m(w) and m(-w), overlap:
    ``m(w) = (w + a)**2/(4 a)`` for |w| < a, else max(w, 0). At most one of the three is so small.
    """
    extra, added = np.zeros(len(weights)), np.zeros((len(weights), 2), dtype=np.int64)
    result = weights.copy()
    for k in range(3):
        i, j = (k + 1) % 3, (k + 2) % 3
        w = weights[:, k]
        first, second = weights[:, i] + w, weights[:, j] + w
        a = first * second / (first + second) / 2
        share = np.where(w < a, (a - w) ** 2 / np.maximum(4 * a, 1e-300), 0.0)
        result[:, k] += share
        result[:, i] -= 2 * share
        result[:, j] -= 2 * share
        extra += share
        added = np.where((share > 0)[:, None], offsets[:, i] - offsets[:, j], added)
    return (
        np.concatenate([result, extra[:, None]], axis=1),
        np.concatenate([offsets, added[:, None]], axis=1),
    )


@dataclass(frozen=True, eq=False)
class Generator:
    """Jump ``rates`` (r,) from node ``origin`` to node ``target``, numbered among active nodes.

    ``active`` (n1,) or (n1, n2) marks the nodes that take part; ``steps`` (r, dim) are the offsets
    in cells. The edges of both directions are both listed.
    """

    active: np.ndarray
    origin: np.ndarray
    target: np.ndarray
    rates: np.ndarray
    steps: np.ndarray

    @property
    def size(self) -> int:
        """The number of active nodes."""
        return int(self.active.sum())

    @cached_property
    def _order(self) -> np.ndarray:
        """The active nodes in the order of elimination: along the axis that keeps the band narrow.

        Row by row a jump by (e1, e2) spans e1 rows, column by column e2 columns.
        """
        number = np.full(self.active.shape, -1)
        number[self.active] = np.arange(self.size)
        if self.active.ndim == 1:
            return number[self.active]
        reach = np.abs(self.steps).max(axis=0) * self.active.shape[::-1]
        flat = number.ravel() if reach[0] <= reach[1] else number.T.ravel()
        return flat[flat >= 0]

    def _eliminated(self, loss: float) -> Factors:
        """``loss - Q^T``, factored without a subtraction, its nodes in `_order`."""
        place = np.empty(self.size, dtype=np.int64)
        place[self._order] = np.arange(self.size)
        try:
            return eliminate(
                place[self.target], place[self.origin], self.rates, np.full(self.size, loss)
            )
        except UnsoundError:
            raise UnsoundError(DISCONNECTED) from None

    def _back(self, ordered: np.ndarray) -> np.ndarray:
        """A vector in the order of elimination, in that of the nodes again."""
        result = np.empty(self.size)
        result[self._order] = ordered
        return result

    def _solver(self, loss: float) -> Callable[[np.ndarray], np.ndarray]:
        """``f -> (loss - Q^T)**-1 f`` for a positive loss."""
        factors = self._eliminated(loss)
        return lambda f: self._back(factors.solve(f[self._order]))

    def stationary(self) -> np.ndarray:
        """The stationary probability of every active node, each with its relative accuracy."""
        p = self._back(self._eliminated(0.0).from_first())
        if not 0 < p.sum() < np.inf:
            raise UnsoundError(DISCONNECTED)
        return p / p.sum()

    def evolved(self, p: np.ndarray, time: float) -> np.ndarray:
        """``exp(Q^T time) p``, to 1e-13 of the whole mass.

        ``exp(z) = sum_k c_k T_k(2 x - 1)`` in ``x = 1/(1 - z/POLE)``: one elimination, whose
        accuracy does not suffer from rates of very different size, and DEGREE solves.
        """
        speed = POLE / time
        solve = self._solver(speed)

        def mapped(v: np.ndarray) -> np.ndarray:
            return 2 * speed * solve(v) - v

        c = _chebyshev()
        previous, current = p, mapped(p)
        total = c[0] * previous + c[1] * current
        for k in range(2, len(c)):
            previous, current = current, 2 * mapped(current) - previous
            total = total + c[k] * current
        return total

    def gap(self, p: np.ndarray, odd: np.ndarray, guess: float) -> float:
        """The smallest real part of the non-zero eigenvalues of -Q, per unit of time.

        ARPACK on ``(shift - Q^T)**-1`` without its stationary mode, the shift brought down from
        ``guess`` to the size of the gap, where the inverse, positive and free of subtractions, has
        its full relative accuracy, however small the gap. ``odd`` (n,) is where ARPACK starts.
        """
        shift = guess
        for _ in range(12):
            values = self._slowest(p, odd, shift)
            gap = float((1 / values).real.min() - shift)
            if gap > 0.01 * shift:
                return gap
            shift = max(gap, 1e-7 * shift)
        raise UnsoundError(DISCONNECTED)

    def _slowest(self, p: np.ndarray, odd: np.ndarray, shift: float) -> np.ndarray:
        """The largest eigenvalues of ``(shift - Q^T)**-1`` but for the stationary one."""
        from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigs

        solve, n = self._solver(shift), self.size

        def deflated(f: np.ndarray) -> np.ndarray:
            f = np.asarray(f, dtype=float).reshape(-1)
            x = solve(f - p * f.sum())
            return x - p * x.sum()

        operator = LinearOperator((n, n), matvec=deflated, dtype=float)
        try:
            return eigs(operator, k=4, v0=p * odd, return_eigenvectors=False, tol=1e-10)
        except ArpackNoConvergence as error:
            if len(error.eigenvalues):
                return error.eigenvalues
            raise UnsoundError(
                f"{WHO}: the slowest mode did not converge. Give more cells=."
            ) from None


def _chebyshev() -> np.ndarray:
    """The coefficients (DEGREE + 1,) of ``exp(POLE (1 - 1/x))`` on (0, 1]; their sum is 1."""
    from scipy.fft import dct

    n = 400
    x = (1 + np.cos((np.arange(n) + 0.5) * np.pi / n)) / 2
    c = dct(np.exp(POLE * (1 - 1 / x)), type=2)[: DEGREE + 1] / n
    c[0] /= 2
    c[0] += 1 - c.sum()  # mass is then conserved to rounding, not to 1e-14
    return c


def rates_on_line(active: np.ndarray, weights: np.ndarray, fitted: np.ndarray) -> Generator:
    """Jumps to the next node: ``weights`` (n,) are D/cell**2, ``fitted`` (n - 1,) the edges' z."""
    index = np.cumsum(active) - 1
    left = np.flatnonzero(active[:-1] & active[1:])
    up = weights[left] * bernoulli(-fitted[left])
    down = weights[left + 1] * bernoulli(fitted[left])
    ones = np.ones(len(left), dtype=np.int64)
    return Generator(
        active,
        np.concatenate([index[left], index[left + 1]]),
        np.concatenate([index[left + 1], index[left]]),
        np.concatenate([up, down]),
        np.concatenate([ones, -ones])[:, None],
    )


def rates_on_plane(active: np.ndarray, matrix: np.ndarray, edge: Any) -> Generator:
    """Jumps by Selling's offsets: ``matrix`` (n1, n2, 2, 2) is D in units of cells.

    ``edge(node, offset)`` gives z along the edges from nodes (r, 2) by offsets (r, 2).
    """
    where = np.argwhere(active)
    weights, offsets = selling(matrix[active])
    number = np.full(active.shape, -1)
    number[active] = np.arange(len(where))
    parts = []
    for k in range(weights.shape[1]):
        for sign in (1, -1):
            step = sign * offsets[:, k]
            end = where + step
            good = (weights[:, k] > 0) & ((end >= 0) & (end < active.shape)).all(axis=1)
            good[good] = active[tuple(end[good].T)]
            i, e = np.flatnonzero(good), step[good]
            z = edge(where[i], e)
            rates = weights[i, k] * bernoulli(-z)
            defined = np.isfinite(rates) & (rates > 0)
            parts.append((i[defined], number[tuple(end[i].T)][defined], rates[defined], e[defined]))
    return Generator(active, *(np.concatenate(p) for p in zip(*parts, strict=True)))


def connected(generator: Generator, wells: np.ndarray) -> np.ndarray:
    """Which active nodes are reached from and reach the nodes ``wells``; (n,) of bool.

    Raises UnsoundError where two of the wells are not connected.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n = generator.size
    graph = coo_array((generator.rates, (generator.origin, generator.target)), shape=(n, n))
    label = connected_components(graph.tocsr(), directed=True, connection="strong")[1]
    if (label[wells] != label[wells[0]]).any():
        raise UnsoundError(DISCONNECTED)
    return label == label[wells[0]]
