"""Stationary laws and mean visits of large sparse chains, by aggregation and disaggregation.

Power steps settle the law inside small blocks of states; the law among the blocks is that of a
small chain, which is eliminated exactly (`elimination`). Repeated, this converges at a rate that
does not depend on how rarely the chain crosses between its wells (Koury, McAllister and Stewart
1984; Takahashi 1975). Nothing is subtracted, so rare wells keep their relative accuracy.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from langevin.errors import UnsoundError
from langevin.predict.elimination import eliminate, quasi_stationary
from langevin.predict.kernel import DISCONNECTED

CYCLES = 400
SETTLED = 1e-13  # change of the blocks' masses, relative to the whole


class Blocks:
    """A sub-stochastic chain and its ``blocks`` (n,), the number of each state's block.

    ``matrix`` (n, n) leads from column to row; ``loss`` (n,) is the mass that leaves from each.
    ``smoothing`` power steps are taken between two solutions of the blocks' own chain.
    """

    def __init__(self, matrix: Any, loss: np.ndarray, blocks: np.ndarray, smoothing: int):
        from scipy.sparse import csr_array

        self.matrix, self.loss, self.smoothing = matrix, loss, smoothing
        self.blocks = np.unique(blocks, return_inverse=True)[1]
        n = len(loss)
        self.count = int(self.blocks.max()) + 1
        gather = csr_array((np.ones(n), (self.blocks, np.arange(n))), shape=(self.count, n))
        self.gathered = (gather @ matrix).tocsc()  # does not change: one pass over the matrix

    def _coarse(self, u: np.ndarray) -> tuple[np.ndarray, Any, np.ndarray]:
        """Masses of the blocks, the factors of their own chain, and its losses."""
        from scipy.sparse import csc_array

        n = len(u)
        mass = np.bincount(self.blocks, u, self.count)
        if not (mass != 0).all():  # underflow: the wells are too rare for double precision
            raise UnsoundError(DISCONNECTED)
        inside = u / mass[self.blocks]
        scatter = csc_array((inside, (np.arange(n), self.blocks)), shape=(n, self.count))
        small = (self.gathered @ scatter).tocoo()
        loss = np.bincount(self.blocks, self.loss * inside, self.count)
        return mass, eliminate(small.row, small.col, small.data, loss), loss

    def law(self, guess: np.ndarray) -> tuple[np.ndarray, float]:
        """The leading right eigenvector p (n,), summing to 1, and the mass lost a step, 1 - lambda.

        Raises UnsoundError where it does not settle.
        """
        p, lost = guess / guess.sum(), np.nan
        for _ in range(CYCLES):
            for _ in range(self.smoothing):
                p = self.matrix @ p
                p /= p.sum()
            mass, factors, loss = self._coarse(p)
            new, _ = quasi_stationary(factors, loss)
            change = np.abs(new - mass).sum()
            p = p * (new / mass)[self.blocks]
            if change < SETTLED:
                break
        else:
            raise UnsoundError(
                f"predict.chain: the stationary law still changes by {change:.1e} after {CYCLES} "
                "cycles. Use a larger step, or predict.boltzmann_gibbs for steps this small."
            )
        for _ in range(2):
            p = self.matrix @ p
            p /= p.sum()
        lost = float(self.loss @ p)
        return p, lost

    def visits(self, source: np.ndarray, guess: np.ndarray) -> np.ndarray:
        """``u = K u + source``: the mean number of visits to each state (n,).

        Raises UnsoundError where it does not settle.
        """
        u, sources = guess, np.bincount(self.blocks, source, self.count)
        for _ in range(CYCLES):
            for _ in range(self.smoothing):
                u = self.matrix @ u + source
            mass, factors, _ = self._coarse(u)
            new = factors.solve(sources)
            change = np.abs(new - mass).sum() / new.sum()
            u = u * (new / mass)[self.blocks]
            if change < SETTLED * 10:
                return u
        raise UnsoundError(
            f"predict.chain: the hitting time still changes by {change:.1e} after {CYCLES} cycles. "
            "Use a larger step, or a region that is reached sooner."
        )


def component(matrix: Any, members: np.ndarray) -> np.ndarray | None:
    """The states (n,) bool from and to which the chain can come from all ``members`` (k,).

    None where they do not all lead to each other.
    """
    from scipy.sparse.csgraph import connected_components

    label = connected_components(matrix, directed=True, connection="strong")[1]
    return label == label[members[0]] if (label[members] == label[members[0]]).all() else None


def reached(matrix: Any, source: np.ndarray) -> np.ndarray:
    """The states (n,) bool that can be reached from where ``source`` (n,) is not 0."""
    found, front = source != 0, source != 0
    while front.any():
        front = ((matrix @ front.astype(float)) != 0) & ~found
        found |= front
    return found


def second_eigenvalue(matrix: Any, p: np.ndarray) -> float:
    """``|lambda_2|``, the largest after the leading one; 0 where none is above rounding.

    ARPACK on the matrix less its leading pair, so that oscillating modes count too. Its error is
    some 1e-15, and 1 - |lambda_2| as accurate as that allows.
    """
    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigs

    n = len(p)

    def deflated(f: np.ndarray) -> np.ndarray:
        f = np.asarray(f, dtype=float).reshape(-1)
        x = matrix @ (f - p * f.sum())  # modulo p all that is left are the other eigenvalues
        return x - p * x.sum()

    # Deterministic, slow along the first axis, and orthogonal to nothing in particular.
    start = p * (np.cumsum(p) - 0.4 + 0.1 * np.cos(np.arange(n)))
    try:
        values = eigs(
            LinearOperator((n, n), matvec=deflated, dtype=float),
            k=1,
            v0=start,
            ncv=min(20, n - 1),
            return_eigenvectors=False,
            tol=1e-11,
            maxiter=100,
        )
    except ArpackNoConvergence as error:
        values = error.eigenvalues
    return float(np.abs(values).max()) if len(values) else np.nan
