"""Averages of formulas, and temperatures, from streamed sums."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from langevin.analysis import convergence, groups
from langevin.errors import ParameterError, UnsoundError
from langevin.result import Estimate


@dataclass(frozen=True)
class MeasuredAverage(Estimate):
    """The average of a formula: an Estimate that knows how well it has converged.

    ``variance`` of the quantity over all observations, ``r_hat`` (nested, over starting basins and
    error groups), ``drift`` between the halves of the run as a normal z (NaN with at=).
    """

    formula: str = ""
    variance: float = math.nan
    r_hat: float = math.nan
    drift: float = math.nan
    n_observations: int = 0

    @property
    def effective_sample_size(self) -> float:
        """Independent observations that would give the same standard error."""
        return self.variance / self.stderr**2 if self.stderr > 0 else math.nan

    def __str__(self) -> str:
        return f"<{self.formula}> = {super().__str__()}"


@dataclass(frozen=True, repr=False)
class Averages(Sequence):
    """The averages of several formulas: read one by its number or by its text."""

    estimates: tuple[MeasuredAverage, ...]

    def __len__(self) -> int:
        return len(self.estimates)

    def __getitem__(self, key: int | str) -> MeasuredAverage:
        if not isinstance(key, str):
            return self.estimates[key]
        found = [e for e in self.estimates if e.formula == key]
        if not found:
            have = ", ".join(repr(e.formula) for e in self.estimates)
            raise ParameterError(f"no average of {key!r}; this observer has: {have}.")
        return found[0]

    def __repr__(self) -> str:
        return f"Averages({', '.join(str(e) for e in self.estimates)})"


def average_from_sums(sums, centre, texts, *, single: bool) -> MeasuredAverage | Averages:
    """Averages from sums (error groups, origins, halves, 1 + 2 quantities) about ``centre``."""
    m = len(centre)
    by_group = sums.sum(axis=(1, 2))
    by_group = by_group[by_group[:, 0] > 0]
    if len(by_group) == 0:
        raise UnsoundError(
            "the run holds no observation of the average: it ended, or every replica diverged, "
            "before the first one. Use a smaller burn_in or every=, or more steps."
        )
    for q in np.flatnonzero(~np.isfinite(by_group).all(axis=0)[1 : 1 + m]):
        raise UnsoundError(
            f"the average of {texts[q]!r} is not finite: the formula is undefined or infinite in "
            "states that were visited. Write it so that it is finite there."
        )
    count, total = by_group[:, 0], by_group[:, 0].sum()
    mean = by_group[:, 1 : 1 + m].sum(axis=0) / total
    stderr = groups.spread(by_group[:, 1 : 1 + m] - mean * count[:, None], total)
    variance = np.maximum(by_group[:, 1 + m :].sum(axis=0) / total - mean**2, 0.0)
    chains = sums.sum(axis=2).reshape(-1, 1 + 2 * m)
    r_hat = convergence.nested_r_hat(chains[:, 0], chains[:, 1 : 1 + m], chains[:, 1 + m :])
    halves = sums.sum(axis=1)
    drift = convergence.drift(halves[..., 0], halves[..., 1 : 1 + m])
    found = tuple(
        MeasuredAverage(
            value=float(mean[q] + centre[q]),
            stderr=float(stderr[q]),
            dof=len(by_group) - 1,
            formula=texts[q],
            variance=float(variance[q]),
            r_hat=float(r_hat[q]),
            drift=float(drift[q]),
            n_observations=int(total),
        )
        for q in range(m)
    )
    return found[0] if single else Averages(found)


@dataclass(frozen=True)
class Temperatures:
    """Temperatures that the states show, each an Estimate; ``kinetic`` None without velocities."""

    configurational: Estimate
    virial: Estimate
    kinetic: Estimate | None
    drift: float

    def __str__(self) -> str:
        text = f"configurational {self.configurational}, virial {self.virial}"
        return text + (f", kinetic {self.kinetic}" if self.kinetic else "")


def temperature_from_sums(sums, dim: int) -> Temperatures:
    """Temperatures from sums (error groups, origins, halves, 1 + 2 quantities), see Temperature."""
    m = (sums.shape[-1] - 1) // 2
    halves = sums.sum(axis=1)
    mine = halves.sum(axis=1)
    mine = mine[mine[:, 0] > 0]
    if len(mine) == 0:
        raise UnsoundError("the run holds no observation of the temperature. Use more steps.")
    count, slope, curvature, virial = mine[:, :4].T
    if not curvature.sum() > 0:
        raise UnsoundError(
            f"the mean Laplacian of the energy is {curvature.sum() / count.sum():.4g}: a surface "
            "that holds its replicas has a positive one. Run longer, or confine them."
        )
    configurational = groups.ratio_of_sums(slope, curvature)
    return Temperatures(
        configurational=configurational,
        virial=groups.ratio_of_sums(virial, dim * count),
        kinetic=groups.ratio_of_sums(mine[:, 4], dim * count) if m > 3 else None,
        drift=float(
            convergence.drift(
                halves[..., 0], halves[..., 1:2] - configurational.value * halves[..., 2:3]
            )[0]
        ),
    )
