"""The measured stationary density and its moments."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from langevin.analysis import convergence, groups
from langevin.errors import UnsoundError

KEPT = 2**20  # numbers of a histogram's counts by group that a result holds on to


@dataclass(frozen=True, repr=False)
class Density:
    """A histogram normalised to a density.

    ``edges`` and ``grid`` (the bin centres) are an array in 1-D, a pair of arrays for a joint
    density. ``probability`` and its ``probability_stderr`` are per bin, ``value`` and ``stderr``
    per unit of length or area. ``outside`` is the fraction of observations beyond the range.
    ``dof`` degrees of freedom stand behind the errors. ``group_counts`` (groups, bins + 1), the
    last bin outside, are those of at most 64 sets of replicas, which are independent; None where
    they would be more than 2**20 numbers.
    """

    axis_edges: tuple[np.ndarray, ...]
    probability: np.ndarray
    probability_stderr: np.ndarray
    outside: float
    n_observations: int
    dof: int
    axes: tuple[int, ...]
    group_counts: np.ndarray | None = None

    def __repr__(self) -> str:
        bins = " x ".join(str(len(e) - 1) for e in self.axis_edges)
        return f"Density({bins} bins, {self.n_observations:,} observations)"

    @property
    def edges(self) -> np.ndarray | tuple[np.ndarray, ...]:
        """Bin edges."""
        return self.axis_edges[0] if len(self.axis_edges) == 1 else self.axis_edges

    @property
    def grid(self) -> np.ndarray | tuple[np.ndarray, ...]:
        """Bin centres."""
        centres = tuple(0.5 * (e[1:] + e[:-1]) for e in self.axis_edges)
        return centres[0] if len(centres) == 1 else centres

    @property
    def _measure(self) -> np.ndarray:
        widths = [np.diff(e) for e in self.axis_edges]
        return widths[0] if len(widths) == 1 else np.outer(*widths)

    @property
    def value(self) -> np.ndarray:
        """Density in each bin."""
        return self.probability / self._measure

    @property
    def stderr(self) -> np.ndarray:
        """Standard error of ``value``."""
        return self.probability_stderr / self._measure


@dataclass(frozen=True, repr=False)
class Moments:
    """Measured mean (dim,) and covariance (dim, dim), each with its standard error.

    ``r_hat`` (dim,): nested R-hat of each coordinate over starting basins and error groups.
    ``drift`` (2, dim): of the mean and of the variance between the halves of the run, normal z.
    """

    mean: np.ndarray
    mean_stderr: np.ndarray
    covariance: np.ndarray
    covariance_stderr: np.ndarray
    n_observations: int
    dof: int
    r_hat: np.ndarray
    drift: np.ndarray

    @property
    def effective_sample_size(self) -> np.ndarray:
        """Independent observations that would give the mean's standard error, (dim,)."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.diag(self.covariance) / self.mean_stderr**2

    def __repr__(self) -> str:
        return f"Moments(mean={self.mean}, covariance={self.covariance})"


def density_from_counts(mine, edges, axes) -> Density:
    """Density from counts (error groups, bins + 1), the last bin outside."""
    totals = mine.sum(axis=1)
    if totals.sum() == 0:
        raise UnsoundError(
            "the histogram holds no observation: the run ended, or every replica diverged, before "
            "the first one. Use a smaller burn_in, a smaller every=, or more steps."
        )
    value, stderr, dof = groups.fraction(mine, totals)
    shape = tuple(len(e) - 1 for e in edges)
    return Density(
        axis_edges=tuple(edges),
        probability=value[:-1].reshape(shape),
        probability_stderr=stderr[:-1].reshape(shape),
        outside=float(value[-1]),
        n_observations=int(totals.sum()),
        dof=dof,
        axes=axes,
        group_counts=_merged(mine) if min(64, len(mine)) * mine.shape[1] <= KEPT else None,
    )


def _merged(counts: np.ndarray) -> np.ndarray:
    """Counts of at most 64 sets of neighbouring error groups, and of none that saw nothing."""
    counts = counts[counts.sum(axis=1) > 0]
    if len(counts) > 64:
        edges = np.linspace(0, len(counts), 65).astype(int)[:-1]
        return np.add.reduceat(counts, edges, axis=0)
    return counts.copy()


def moments_from_sums(sums, centre) -> Moments:
    """Moments from sums (error groups, origins, halves, 1 + dim + dim (dim + 1)/2)."""
    dim = len(centre)
    mine = sums.sum(axis=(1, 2))
    mine = mine[mine[:, 0] > 0]
    if len(mine) == 0:
        raise UnsoundError(
            "the run holds no observation of the moments. Use a smaller burn_in or every=."
        )
    count, first = mine[:, 0], mine[:, 1 : 1 + dim]
    total = count.sum()
    mean = first.sum(axis=0) / total
    deviation = first - mean * count[:, None]
    covariance, error = np.empty((dim, dim)), np.empty((dim, dim))
    pairs = [(a, b) for a in range(dim) for b in range(a, dim)]
    for m, (a, b) in enumerate(pairs):
        product = mine[:, 1 + dim + m]
        second = product.sum() / total
        residual = product - second * count - mean[a] * deviation[:, b] - mean[b] * deviation[:, a]
        covariance[a, b] = covariance[b, a] = second - mean[a] * mean[b]
        error[a, b] = error[b, a] = groups.spread(residual[:, None], total)[0]
    squares = [1 + dim + pairs.index((a, a)) for a in range(dim)]
    chains, halves = sums.sum(axis=2).reshape(-1, sums.shape[-1]), sums.sum(axis=1)
    n, away, square = halves[..., 0], halves[..., 1 : 1 + dim], halves[..., squares]
    spread = square - 2 * mean * away + mean**2 * n[..., None]
    return Moments(
        mean=mean + centre,
        mean_stderr=groups.spread(deviation, total),
        covariance=covariance,
        covariance_stderr=error,
        n_observations=int(total),
        dof=len(mine) - 1,
        r_hat=convergence.nested_r_hat(chains[:, 0], chains[:, 1 : 1 + dim], chains[:, squares]),
        drift=np.array([convergence.drift(n, away), convergence.drift(n, spread)]),
    )
