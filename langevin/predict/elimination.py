"""The leading eigenpair of a banded sub-stochastic matrix, accurate entry by entry.

A metastable chain has a second eigenvalue so near to the first that a general eigensolver mixes
the two: with a barrier of 30 T the ratio of two wells would carry no correct digit. Elimination
in the manner of Grassmann, Taksar and Heyman never subtracts, so every entry keeps its relative
accuracy, however small it is and however high the barrier (O'Cinneide 1993; Alfa, Xue and Ye
2002 for the sub-stochastic case).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from langevin.errors import UnsoundError
from langevin.predict.kernel import DISCONNECTED

NARROWEST, WIDEST = 8, 48  # states of a block, the more the wider the band


@dataclass(frozen=True, eq=False)
class Factors:
    """``I - K = (I - U)(S - L)``, U strictly upper, L strictly lower, S diagonal, all >= 0.

    ``upper`` and ``lower`` are in LAPACK's banded layout, ready for dtbtrs: the unit matrix
    I - U, and S - L. ``closed`` tells that nothing leaves, so that S[0] is 0 (stored as 1).
    """

    upper: np.ndarray
    lower: np.ndarray
    closed: bool

    def solve(self, f: np.ndarray) -> np.ndarray:
        """``(I - K)**-1 f``; where the chain is closed, the solution that vanishes at state 0."""
        from scipy.linalg.lapack import dtbtrs

        g = dtbtrs(self.upper, f[:, None], uplo="U", diag="U")[0]
        if self.closed:
            g[0] = 0.0
        return dtbtrs(self.lower, g, uplo="L")[0][:, 0]

    def solve_transposed(self, f: np.ndarray) -> np.ndarray:
        """``(I - K^T)**-1 f`` for a chain that is not closed."""
        from scipy.linalg.lapack import dtbtrs

        g = dtbtrs(self.lower, f[:, None], uplo="L", trans="T")[0]
        return dtbtrs(self.upper, g, uplo="U", trans="T", diag="U")[0][:, 0]

    def from_first(self) -> np.ndarray:
        """The law of the chain whose lost mass returns at state 0, not normalised."""
        from scipy.linalg.lapack import dtbtrs

        g = np.zeros((self.lower.shape[1], 1))
        g[0] = 1e-150  # far out in a tail: leaves room for wells e**500 above and barriers below
        return dtbtrs(self.lower, g, uplo="L")[0][:, 0]


def eliminate(
    rows: np.ndarray, columns: np.ndarray, values: np.ndarray, loss: np.ndarray
) -> Factors:
    """Factor I - K from K's entries (from column to row) and the mass ``loss`` (n,) of each column.

    State k is censored out, from the last to the first, ``K_ij += K_ik K_kj / S_k`` with
    ``S_k = sum_{i<k} K_ik + loss_k``: sums, products and quotients of non-negative numbers only.
    The diagonal of K is never used: it is 1 minus all the rest. Raises UnsoundError where a state
    cannot be left in double precision.

    State by state a wide band is bound by memory. So within a block of states only the block's own
    rows and columns are updated one by one; the rest follows in one product of matrices.
    """
    n = len(loss)
    first = np.arange(n)
    np.minimum.at(first, columns, rows)
    np.minimum.at(first, rows, columns)
    first[1:] = np.minimum.accumulate(first[:0:-1])[::-1]  # fill-in: a window becomes coupled
    band = max(int((np.arange(n) - first).max()), 1)
    block = min(WIDEST, NARROWEST + band // 8)
    wide = band + block  # a block's window reaches beyond the band, into zeros
    # Entry (i, j) at [i, j - i + wide]: a square window is then a plain strided view.
    storage = np.zeros((n, 2 * wide + 1))
    np.add.at(storage, (rows, columns - rows + wide), values)
    loss, leave, size = loss.copy(), np.ones(n), storage.itemsize
    flat = storage.reshape(-1)
    for stop in range(n, 1, -block):
        start = max(stop - block, 1)
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
    return Factors(*_banded(storage[:, block:-block], leave, band), closed)


def _banded(storage: np.ndarray, leave: np.ndarray, band: int) -> tuple[np.ndarray, np.ndarray]:
    """``I - U`` and ``S - L`` in LAPACK's upper and lower banded layouts."""
    n = len(leave)
    upper, lower = (np.zeros((band + 1, n), order="F") for _ in range(2))  # or each solve copies
    upper[band], lower[0] = 1.0, leave
    for k in range(1, min(band, n - 1) + 1):
        upper[band - k, k:] = -storage[: n - k, band + k] / leave[k:]
        lower[k, : n - k] = -storage[k:, band - k]
    return upper, lower


def quasi_stationary(factors: Factors, loss: np.ndarray) -> tuple[np.ndarray, float]:
    """The leading right eigenvector p (n,), summing to 1, and the mass lost a step, 1 - lambda.

    Inverse iteration from the law whose lost mass returns: it converges at the rate (relaxation
    time)/(lifetime), in one or two steps wherever the quasi-stationary law means anything.
    """
    p = factors.from_first()
    if not 0 < p.sum() < np.inf:
        raise UnsoundError(DISCONNECTED)
    p /= p.sum()
    if not factors.closed:
        if loss @ p > 0.5:  # what returns at state 0, on the rim, is lost again: no start at all
            p = np.full(len(p), 1 / len(p))
        for _ in range(200):
            new = factors.solve(p)
            new /= new.sum()
            change = np.abs(new - p).sum()
            p = new
            if change < 1e-14:
                break
    return p, float(loss @ p)


def slowest_mode(factors: Factors, p: np.ndarray, lost: float) -> float:
    """``1/(1 - lambda_2)`` for the eigenvalue nearest to 1 after the leading one, in steps.

    ARPACK on the deflated inverse, which is what keeps 1 - lambda_2 accurate however small.
    """
    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigs

    n = len(p)
    solver = Factors(factors.upper, factors.lower, factors.closed or lost < 1e-15)

    def deflated(f: np.ndarray) -> np.ndarray:
        f = np.asarray(f, dtype=float).reshape(-1)
        x = solver.solve(f - p * f.sum())  # modulo p all that is left are the other eigenvalues
        return x - p * x.sum()

    start = p * (np.cumsum(p) - 0.5)  # odd across the median: deterministic, never orthogonal
    try:
        values = eigs(
            LinearOperator((n, n), matvec=deflated, dtype=float),
            k=1,
            v0=start,
            return_eigenvectors=False,
            tol=1e-10,
        )
    except ArpackNoConvergence as error:
        values = error.eigenvalues
    return float(np.max(np.abs(values))) if len(values) else np.nan
