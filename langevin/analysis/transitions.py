"""Transitions between basins: probabilities, rates and the stationary law they imply."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np

from langevin.analysis import groups
from langevin.errors import ConvergenceWarning, UnsoundError
from langevin.result import Estimate

DEPENDS = 0.1  # by which the relaxation time may depend on the lag before it is said
SURE = 5.0  # standard errors


@dataclass(frozen=True, repr=False)
class MeasuredTransitions:
    """Pairs of basins one lag, and two lags, apart, in the order of ``surface.minima()``.

    ``pairs`` (error groups, 2, minima, minima): from row to column. ``lag`` is in steps for SGD and
    in units of time for Langevin dynamics. Every error is a jackknife over error groups, but that
    of ``probability``, which is a ratio's.
    """

    pairs: np.ndarray
    lag: float
    unit: str

    def __repr__(self) -> str:
        n = self.pairs.shape[-1]
        return (
            f"MeasuredTransitions({n} minima, {self.n_transitions:,} transitions, lag {self.lag:g} "
            f"{self.unit})"
        )

    @property
    def counts(self) -> np.ndarray:
        """Number of looks in basin i that were followed, one lag later, by basin j."""
        return self.pairs[:, 0].sum(axis=0)

    @property
    def n_transitions(self) -> int:
        """Number of pairs that lie in different basins."""
        return int(self.counts.sum() - np.trace(self.counts))

    @property
    def probability(self) -> groups.Estimates:
        """Probability of basin j one lag after basin i, (minima, minima); NaN in rows unseen."""
        pairs = self._seen[:, 0]
        total = pairs.sum(axis=0)
        rows = total.sum(axis=1, keepdims=True)
        with np.errstate(divide="ignore", invalid="ignore"):
            value = total / rows
            residual = (pairs - value * pairs.sum(axis=2, keepdims=True)) / rows
        return groups.Estimates(value, groups.spread(residual, 1.0), len(pairs) - 1)

    @property
    def stationary(self) -> groups.Estimates:
        """The occupation that the transition probabilities lead to, (minima,): pi P = pi.

        Unlike Occupation it does not ask that replicas have forgotten where they began, only that
        each basin was left and entered, and that a replica settles in a basin within a lag: it
        warns where `lag_test` says otherwise. Raises UnsoundError where the basins are not
        connected.
        """
        self._need_connection()
        self._warn()
        return groups.Estimates(*groups.jackknife(self._seen, _stationary))

    def ratio(self, i: int, j: int) -> Estimate:
        """``p_i / p_j`` of the stationary law."""
        n = self.pairs.shape[-1]
        for k in (i, j):
            if not (isinstance(k, (int, np.integer)) and 0 <= k < n):
                raise UnsoundError(f"ratio({i}, {j}): the surface has minima 0 to {n - 1}.")
        self._need_connection()
        self._warn()

        def ratio(pairs: np.ndarray) -> float:
            law = _stationary(pairs)
            return law[i] / law[j]

        value, stderr, dof = groups.jackknife(self._seen, ratio)
        return Estimate(float(value), float(stderr), dof)

    @property
    def rates(self) -> groups.Estimates:
        """Generator K (minima, minima) with ``P = exp(K lag)``: rate from i to j per unit of time.

        Raises UnsoundError where P has no real logarithm or the lag is so long that the start is
        forgotten within it; warns where rates depend on the lag (`lag_test`) or are negative.
        """
        self._need_rates()
        value, stderr, dof = groups.jackknife(self._seen, lambda c: _generator(c) / self.lag)
        off = ~np.eye(len(value), dtype=bool)
        if (value[off] < -SURE * stderr[off]).any():
            warnings.warn(
                "the transition matrix is not that of a Markov chain in continuous time: some "
                "rates come out negative. Use another every= for Transitions.",
                ConvergenceWarning,
                stacklevel=2,
            )
        return groups.Estimates(value, stderr, dof)

    @property
    def relaxation_time(self) -> Estimate:
        """``-lag / log(lambda)`` of the second largest eigenvalue of P.

        Raises and warns as `rates` does.
        """
        self._need_rates()
        value, stderr, dof = groups.jackknife(self._seen, lambda c: -self.lag / _slowest(c[0]))
        return Estimate(float(value), float(stderr), dof)

    @property
    def lag_test(self) -> Estimate:
        """Relaxation time at twice the lag over that at the lag: 1 for a Markov chain.

        Above 1, replicas cross back and forth over the saddles within a lag: use a larger every
        (a tenth of the relaxation time is a good first guess).
        """

        def ratio(pairs: np.ndarray) -> float:
            return 2 * _slowest(pairs[0]) / _slowest(pairs[1])

        value, stderr, dof = groups.jackknife(self._seen, ratio)
        return Estimate(float(value), float(stderr), dof)

    def observed(self) -> MeasuredTransitions:
        """These transitions, or UnsoundError if there is no pair at all."""
        if self.pairs[:, 0].sum() == 0:
            raise UnsoundError(
                "the run holds no pair of looks for Transitions. Use a smaller every or more steps."
            )
        return self

    @property
    def _seen(self) -> np.ndarray:
        return self.pairs[self.pairs[:, 0].sum(axis=(1, 2)) > 0].astype(float)

    def _need_connection(self) -> None:
        from scipy.sparse.csgraph import connected_components

        n_classes, labels = connected_components(self.counts > 0, connection="strong")
        if n_classes > 1:
            members = [np.flatnonzero(labels == k).tolist() for k in range(n_classes)]
            raise UnsoundError(
                "the basins are not connected by the transitions that were seen: between the sets "
                f"{', '.join(map(str, members))} of minima replicas went one way or not at all. "
                "Run longer, use more replicas, or a higher temperature."
            )

    def _need_rates(self) -> None:
        if math.isnan(self.lag):
            raise UnsoundError(
                "replicas of different dt have no common lag. Give Transitions groups=, one label "
                "for each dt."
            )
        self._need_connection()
        values = np.linalg.eigvals(_matrix(self.counts.astype(float)))
        if (np.abs(values.imag) < 1e-12).any() and (
            values[np.abs(values.imag) < 1e-12].real <= 0
        ).any():
            raise UnsoundError(
                f"the transition matrix has the eigenvalue {values.real.min():.3g}, so no rates "
                "explain it: the lag is too long. Use a smaller every for Transitions."
            )
        second, error, _ = groups.jackknife(self._seen, lambda c: math.exp(_slowest(c[0])))
        if second <= SURE * error:  # not where one replica alone leaves the error unknown
            raise UnsoundError(
                f"within one lag ({self.lag:g} {self.unit}) a replica forgets its basin: the "
                f"second eigenvalue is {second:.3g} +- {error:.2g}. Use a smaller every for "
                "Transitions."
            )
        self._warn()

    @property
    def doubt(self) -> str:
        """What `lag_test` says against this lag; empty where nothing."""
        test = self.lag_test
        if not (abs(test.value - 1) > DEPENDS and abs(test.z(1.0)) > SURE):
            return ""
        return (
            f"the relaxation time changes by a factor {test} when the lag is doubled: within a lag "
            f"of {self.lag:g} {self.unit} replicas do not settle, they cross back over a saddle at "
            "once. Use a larger every for Transitions."
        )

    def _warn(self) -> None:
        if self.doubt:
            warnings.warn(self.doubt, ConvergenceWarning, stacklevel=4)


def _matrix(counts: np.ndarray) -> np.ndarray:
    """Rows of counts as probabilities."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return counts / counts.sum(axis=1, keepdims=True)


def _stationary(pairs: np.ndarray) -> np.ndarray:
    """The left eigenvector of 1 of a transition matrix; NaN where it is not unique."""
    matrix = _matrix(pairs[0])
    n = len(matrix)
    system = np.vstack([matrix.T - np.eye(n), np.ones(n)])
    if not np.isfinite(system).all() or np.linalg.matrix_rank(system) < n:
        return np.full(n, math.nan)
    return np.linalg.lstsq(system, np.append(np.zeros(n), 1.0), rcond=None)[0]


def _slowest(counts: np.ndarray) -> float:
    """log |lambda| of the second largest eigenvalue of a transition matrix; NaN if undefined."""
    matrix = _matrix(counts)
    if not np.isfinite(matrix).all():
        return math.nan
    second = np.sort(np.abs(np.linalg.eigvals(matrix)))[-2]
    return math.log(second) if 0 < second < 1 else (-math.inf if second == 0 else math.nan)


def _generator(pairs: np.ndarray) -> np.ndarray:
    """The real logarithm of a transition matrix; NaN where there is none."""
    matrix = _matrix(pairs[0])
    if not np.isfinite(matrix).all():
        return np.full(matrix.shape, math.nan)
    values, vectors = np.linalg.eig(matrix)
    try:
        with np.errstate(divide="ignore", invalid="ignore"):
            found = (vectors * np.log(values.astype(complex))) @ np.linalg.inv(vectors)
    except np.linalg.LinAlgError:  # a defective matrix
        from scipy.linalg import logm

        found = logm(matrix)
    return found.real if np.abs(found.imag).max() < 1e-8 else np.full(matrix.shape, math.nan)
