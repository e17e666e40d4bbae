"""Which minimum the replicas occupy, and whether they have forgotten where they began."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

from langevin.analysis import convergence, groups
from langevin.errors import UnsoundError
from langevin.result import Estimate

DISAGREE = 5.0  # a normal z: false alarms below 1e-6


@dataclass(frozen=True)
class Equilibration:
    """The tests behind an occupation: by starting basin, by half of the run, and any crossing.

    ``z_origins`` and ``z_halves`` are the largest differences of an occupation between replicas
    that began in different basins, and between the earlier and the later half of the observations,
    as the normal z of their Student p-value; NaN where there was nothing to compare. ``crossed`` is
    whether any replica was ever seen outside the basin it began in (true for a single minimum).
    ``z_basins`` and ``drifts`` (minima,) are the same differences basin by basin, signed.
    """

    z_origins: float
    z_halves: float
    crossed: bool
    by_origin: np.ndarray
    z_basins: np.ndarray
    drifts: np.ndarray

    @property
    def agrees(self) -> bool:
        """Whether no test shows a memory of the start."""
        return self.crossed and not (
            abs(self.z_origins) > DISAGREE or abs(self.z_halves) > DISAGREE
        )


@dataclass(frozen=True, repr=False)
class MeasuredOccupation:
    """Occupation of the minima of the surface, in the order of ``surface.minima()``.

    ``counts`` (error groups, user groups, starting basins, halves, minima + unassigned);
    ``probability`` and ``stderr`` (minima,), ``unassigned`` the fraction in no known basin.
    With ``groups=`` in the observer, ``group(k)`` is the occupation of the k-th user group, and
    only that can be read.
    """

    counts: np.ndarray
    index: int | None = None
    allow_unequilibrated: bool = False

    def group(self, k: int) -> MeasuredOccupation:
        """The occupation of one user group."""
        n = self.counts.shape[1]
        if not 0 <= k < n:
            raise UnsoundError(f"group({k}): this run has groups 0 to {n - 1}.")
        return MeasuredOccupation(self.counts, k, self.allow_unequilibrated).checked(
            allow_unequilibrated=self.allow_unequilibrated
        )

    def __len__(self) -> int:
        return self.n_groups

    def __getitem__(self, k: int) -> MeasuredOccupation:
        if not 0 <= k < self.n_groups:
            raise IndexError(k)
        return self.group(k)

    def __repr__(self) -> str:
        if self.index is None and self.n_groups > 1:
            return f"MeasuredOccupation({self.n_groups} groups: read one with .group(k))"
        probability, stderr, _ = self._fraction()
        shown = [f"{p:.5g} +- {e:.2g}" for p, e in zip(probability, stderr, strict=True)]
        rest = f", unassigned {shown[-1]}" if probability[-1] > 0 else ""
        more = ", ..." if len(shown) > 9 else ""
        return f"MeasuredOccupation({', '.join(shown[: min(8, len(shown) - 1)])}{more}{rest})"

    @property
    def n_groups(self) -> int:
        """Number of user groups."""
        return self.counts.shape[1]

    @property
    def _mine(self) -> np.ndarray:
        if self.index is None and self.n_groups > 1:
            raise UnsoundError(
                f"this occupation has {self.n_groups} groups: read one, occupation.group(k)."
            )
        return self.counts[:, self.index or 0]

    @property
    def _by_class(self) -> np.ndarray:
        return self._mine.sum(axis=(1, 2))

    def _fraction(self):
        by_class = self._by_class
        return groups.fraction(by_class, by_class.sum(axis=1))

    @property
    def n_observations(self) -> int:
        """Replica-observations behind the estimate."""
        return int(self._by_class.sum())

    @property
    def dof(self) -> int:
        """Degrees of freedom of the standard errors."""
        return self._fraction()[2]

    @property
    def seen(self) -> np.ndarray:
        """In how many error groups each minimum, and something else, was seen at all, (minima,)."""
        counts = self._by_class
        inside, outside = counts > 0, counts < counts.sum(axis=1, keepdims=True)
        return np.minimum(inside.sum(axis=0), outside.sum(axis=0))[:-1]

    @property
    def probability(self) -> np.ndarray:
        """Fraction of observations in each basin."""
        return self._fraction()[0][:-1]

    @property
    def stderr(self) -> np.ndarray:
        """Standard error of ``probability``."""
        return self._fraction()[1][:-1]

    @property
    def unassigned(self) -> float:
        """Fraction of observations in no known basin."""
        return float(self._fraction()[0][-1])

    def ratio(self, i: int, j: int) -> Estimate:
        """``p_i / p_j`` with its standard error."""
        by_class = self._by_class
        n = by_class.shape[1] - 1
        for k in (i, j):
            if not (isinstance(k, (int, np.integer)) and 0 <= k < n):
                raise UnsoundError(f"ratio({i}, {j}): the surface has minima 0 to {n - 1}.")
        return groups.ratio(by_class[:, i], by_class[:, j])

    @property
    def equilibration(self) -> Equilibration:
        """Whether the replicas have forgotten their start: see Equilibration."""
        mine = self._mine.astype(float)
        origins, halves = mine.sum(axis=2), mine.sum(axis=1)
        by_origin = []
        for o in range(origins.shape[1]):
            counts = origins[:, o]
            if counts.sum() > 0:
                by_origin.append(groups.fraction(counts, counts.sum(axis=1)))
        z_origins = math.nan
        z_basins = np.full(mine.shape[-1] - 1, math.nan)
        pairs = list(itertools.combinations(by_origin, 2))
        for (p, p_error, p_dof), (q, q_error, q_dof) in pairs:
            error = np.hypot(p_error, q_error)
            z_origins = _worst(z_origins, p - q, error, min(p_dof, q_dof), len(pairs))
            z = convergence.normal_z(p - q, error, min(p_dof, q_dof))[:-1]
            z_basins = np.where(np.abs(z_basins) > np.abs(z), z_basins, z)
        n = halves.sum(axis=2)
        z_halves = math.nan
        if n.shape[1] == 2 and (n.sum(axis=0) > 0).all():
            p = halves.sum(axis=0) / n.sum(axis=0)[:, None]
            residual = (halves - p[None] * n[:, :, None]) / n.sum(axis=0)[None, :, None]
            used = n.sum(axis=1) > 0
            error = groups.spread((residual[:, 0] - residual[:, 1])[used], 1.0)
            z_halves = _worst(z_halves, p[0] - p[1], error, int(used.sum()) - 1, 1)
        seen = origins.sum(axis=0)
        home = np.diag(seen[: seen.shape[1]]).sum()
        crossed = seen.shape[1] <= 2 or bool(seen.sum() > home)
        drifts = convergence.drift(n, halves)[:-1]
        found = np.array([p for p, _, _ in by_origin])
        return Equilibration(z_origins, z_halves, crossed, found, z_basins, drifts)

    def observed(self) -> MeasuredOccupation:
        """This occupation, or UnsoundError if it holds no observation."""
        counts = self.counts if self.index is None else self._mine
        if counts.sum() == 0:
            raise UnsoundError(
                "the occupation holds no observation: use a smaller burn_in or every=, or more "
                "steps."
            )
        return self

    def checked(self, *, allow_unequilibrated: bool = False) -> MeasuredOccupation:
        """This occupation, or UnsoundError if the replicas still remember their start."""
        if self.index is None and self.n_groups > 1:
            return MeasuredOccupation(self.counts, None, allow_unequilibrated)
        self.observed()
        if allow_unequilibrated:
            return MeasuredOccupation(self.counts, self.index, True)
        found = self.equilibration
        if not found.agrees:
            raise UnsoundError(_refusal(found, self.index, self.n_groups))
        return self


def _worst(current: float, difference, error, dof: int, comparisons: int) -> float:
    """The larger of ``current`` and the worst difference, as a normal z.

    The p-value is multiplied by the number of differences looked at. A difference without an error
    (one replica on a side) cannot be told from a memory: infinite.
    """
    from scipy import special

    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(difference == 0, 0.0, np.abs(difference) / error)
    t = np.where(np.isnan(t), math.inf, t)
    p = special.stdtr(max(dof, 1), -t.max()) * comparisons * len(t)
    worst = float(-special.ndtri(min(p, 0.5))) if p > 0 else math.inf
    return worst if math.isnan(current) else max(current, worst)


def _refusal(found: Equilibration, k: int | None, n_groups: int) -> str:
    where = f" (group {k})" if n_groups > 1 else ""
    if not found.crossed:
        what = "no replica was ever seen outside the basin it began in"
    elif abs(found.z_origins) > DISAGREE:
        rows = "; ".join(np.array2string(p[:-1][:8], precision=4) for p in found.by_origin[:6])
        what = (
            "replicas that began in different basins still occupy them differently "
            f"({found.z_origins:.3g} standard errors apart; occupations by starting basin: {rows})"
        )
    else:
        what = (
            "the occupation still drifts between the first and the second half of the observations "
            f"({found.z_halves:.3g} standard errors)"
        )
    return (
        f"p_A/p_B is not stationary yet{where}: {what}. Needed: replicas that crossed between the "
        "basins many times. Raise burn_in and n_steps, or the temperature (learning rate over "
        "batch size); .relaxation_time of "
        "predict.chain or predict.fokker_planck (1-D, 2-D) says how many. Or observe "
        "langevin.Transitions(every=...): its .ratio(i, j) and .stationary need crossings both "
        "ways, not a forgotten start. To read the counts all the same: "
        "result.occupation(allow_unequilibrated=True), and so compare()."
    )
