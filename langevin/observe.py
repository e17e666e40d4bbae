"""Observers: what a run measures while it runs, streamed out of the kernel."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from langevin.analysis.density import density_from_counts, moments_from_sums
from langevin.analysis.groups import per_group
from langevin.analysis.occupation import MeasuredOccupation
from langevin.checks import real_array, whole_number
from langevin.errors import ConvergenceWarning, ParameterError, UnsoundError

DESCENTS = 50  # steps of a quench between two looks at the minima


@dataclass(frozen=True)
class Histogram:
    """Density of the positions, from equal bins counted inside the kernel.

    ``bins``: a number, or one number an axis. ``range``: (low, high), or one pair an axis; None
    takes the box where the surface holds all but a negligible part of the density. ``axes``: one
    or two coordinates; needed above two dimensions. Every ``every``-th step after burn_in is
    counted. ``groups``: (n_replicas,) integer labels, one density each.
    """

    bins: Any = 200
    range: Any = None
    axes: Any = None
    every: int = 1
    groups: Any = None
    name: str = "density"


@dataclass(frozen=True)
class Occupation:
    """How often the replicas are in the basin of each minimum, counted inside the kernel.

    Basins: between saddles in 1-D, a label grid of the gradient flow in 2-D; above, a copy of the
    state descends without noise to the nearest known minimum (use a larger ``every``).
    """

    every: int = 1
    groups: Any = None
    name: str = "occupation"


@dataclass(frozen=True)
class Moments:
    """Mean and covariance of the positions, summed in float64 inside the kernel."""

    every: int = 1
    groups: Any = None
    name: str = "moments"


@dataclass(frozen=True)
class Run:
    """What an observer needs to know of the run it rides in."""

    surface: Any
    n_replicas: int
    n_steps: int
    burn_in: int
    dtype: np.dtype
    n_tasks: int
    origins: np.ndarray  # index of the starting basin, (n_replicas,) or (1,)
    temperature: float | None
    start: np.ndarray


def bind(observer, run: Run):
    """The observer with its memory, ready to ride in a kernel."""
    kinds = {Histogram: BoundHistogram, Occupation: BoundOccupation, Moments: BoundMoments}
    if type(observer) not in kinds:
        raise ParameterError(
            f"observe={observer!r}: an observer is needed, such as langevin.Histogram(bins=200), "
            "langevin.Occupation() or langevin.Moments() (an instance, not the class)."
        )
    return kinds[type(observer)](observer, run)


class Bound:
    """Schedule, cells and error groups, the same for every observer."""

    kind = ""

    def __init__(self, observer, run: Run):
        if not isinstance(observer.name, str) or not observer.name:
            raise ParameterError(f"an observer's name={observer.name!r} must be text, not empty.")
        self.name, self.run = observer.name, run
        every = observer.every
        self.every = whole_number(f"{self.name}: every", every, 1, 2**62)
        self.first = (run.burn_in // self.every + 1) * self.every
        if self.first > run.n_steps:
            raise ParameterError(
                f"{self.name}: with burn_in={run.burn_in}, n_steps={run.n_steps} and every={every} "
                "there is no step to observe. Use a smaller every or more steps."
            )
        self.grouped = observer.groups is not None
        self.groups = _labels(observer.groups, run.n_replicas, self.name)
        self.n_groups = int(self.groups.max()) + 1
        # Parts of a block: enough that every user group still has about 64 error groups.
        smallest = run.n_replicas if self.n_groups == 1 else np.bincount(self.groups).min()
        blocks = smallest / 64
        self.parts = int(min(64, 2 ** math.ceil(math.log2(max(1.0, 64 / blocks)))))

    def _common(self, cells: np.ndarray, n_cells: int) -> tuple:
        return (
            np.int64(self.first),
            np.int64(self.every),
            cells,
            np.int64(n_cells),
            np.int64(self.parts),
            self.store,
        )


def _labels(groups, n_replicas: int, name: str) -> np.ndarray:
    if groups is None:
        return np.zeros(1, np.int16)
    try:
        labels = np.asarray(groups)
    except ValueError:
        labels = np.empty(0, object)
    if labels.shape != (n_replicas,) or not np.issubdtype(labels.dtype, np.integer):
        raise ParameterError(
            f"{name}: groups= has shape {labels.shape} and type {labels.dtype}; needed: integers "
            f"of shape ({n_replicas},), one label per replica."
        )
    if labels.min() < 0 or labels.max() > 10_000:
        raise ParameterError(f"{name}: groups= must hold labels 0, 1, ... up to 10,000.")
    missing = np.flatnonzero(np.bincount(labels) == 0)
    if len(missing):
        raise ParameterError(
            f"{name}: groups= has no replica with label {missing[0]}, but some with higher labels. "
            f"Number the groups 0, 1, ... without gaps (np.unique(labels, return_inverse=True))."
        )
    return labels.astype(np.int16)


class BoundHistogram(Bound):
    """Counts (tasks, parts * groups * (bins + 1) + 1)."""

    kind = "histogram"

    def __init__(self, observer, run: Run):
        super().__init__(observer, run)
        self.axes = _axes(observer.axes, run.surface.dim, self.name)
        self.bins = _bins(observer.bins, len(self.axes), self.name)
        self.low, self.high = _range(observer.range, self.axes, run, self.name)
        self.width = math.prod(self.bins) + 1
        size = self.parts * self.n_groups * self.width + 1
        if size > 2**31 - 1 or size * run.n_tasks * 8 > 2**31:
            raise ParameterError(
                f"{self.name}: {self.width - 1:,} bins for {self.n_groups} groups need "
                f"{size * run.n_tasks * 8 / 2**30:.0f} GiB. Use fewer bins or groups."
            )
        self.store = np.zeros((run.n_tasks, size), np.int64)

    def arguments(self) -> tuple:
        """What the kernel takes for this observer."""
        real = self.run.dtype.type
        inverse = np.array(self.bins) / (self.high - self.low)
        return (
            *self._common(self.groups, self.n_groups),
            self.low.astype(real),
            inverse.astype(real),
            np.array(self.bins, np.int32),
        )

    def estimate(self):
        """A Density, or one for each user group."""
        counts = self.store[:, :-1].reshape(-1, self.n_groups, self.width)
        edges = [
            np.linspace(low, high, n + 1)
            for low, high, n in zip(self.low, self.high, self.bins, strict=True)
        ]
        return per_group(
            lambda g: density_from_counts(counts, edges, self.axes, group=g),
            self.n_groups if self.grouped else None,
        )


def _axes(axes, dim: int, name: str) -> tuple[int, ...]:
    if axes is None:
        if dim > 2:
            raise ParameterError(
                f"{name}: the surface has {dim} dimensions; say which one or two to count: "
                "axes=(0, 1)."
            )
        return tuple(range(dim))
    chosen = tuple(axes) if isinstance(axes, (tuple, list, np.ndarray)) else (axes,)
    good = all(isinstance(a, (int, np.integer)) and 0 <= a < dim for a in chosen)
    if not good or not 1 <= len(chosen) <= 2 or len(set(chosen)) != len(chosen):
        raise ParameterError(
            f"{name}: axes={axes!r} must name one or two different coordinates from 0 to {dim - 1}."
        )
    return tuple(int(a) for a in chosen)


def _bins(bins, n_axes: int, name: str) -> tuple[int, ...]:
    chosen = tuple(bins) if isinstance(bins, (tuple, list, np.ndarray)) else (bins,) * n_axes
    good = all(isinstance(b, (int, np.integer)) and not isinstance(b, bool) for b in chosen)
    if not good or len(chosen) != n_axes or min(chosen) < 1 or math.prod(map(int, chosen)) > 2**31:
        raise ParameterError(
            f"{name}: bins={bins!r} must be a whole number >= 1, or {n_axes} of them."
        )
    return tuple(int(b) for b in chosen)


def _range(wanted, axes, run: Run, name: str) -> tuple[np.ndarray, np.ndarray]:
    if wanted is None:
        if run.temperature is None or run.temperature <= 0:
            raise ParameterError(
                f"{name}: this run has no temperature from which to choose a range. "
                "Give range=(low, high), or one pair per axis."
            )
        energies = [m.energy for m in run.surface.minima()]
        rise = (max(energies) - min(energies)) / run.temperature  # replicas may start in any
        low, high = run.surface.bounds(run.temperature, 30.0 + rise)
        return np.asarray(low, float)[list(axes)], np.asarray(high, float)[list(axes)]
    try:
        pairs = np.broadcast_to(real_array("range", wanted, "numbers"), (len(axes), 2))
    except ValueError:
        raise ParameterError(
            f"{name}: range={wanted!r} must be (low, high), or one such pair for each of "
            f"{len(axes)} axes."
        ) from None
    low, high = pairs[:, 0].copy(), pairs[:, 1].copy()
    if not (np.isfinite(pairs).all() and (high > low).all()):
        raise ParameterError(f"{name}: range={wanted!r} must be finite with low < high.")
    if run.temperature:
        try:
            inner, outer = run.surface.bounds(run.temperature)
        except UnsoundError as error:
            warnings.warn(
                f"{name}: there is no stationary density to measure; what is counted depends on "
                f"burn_in and n_steps. {error}",
                ConvergenceWarning,
                stacklevel=5,
            )
            return low, high
        if (high <= np.asarray(inner)[list(axes)]).any() or (
            low >= np.asarray(outer)[list(axes)]
        ).any():
            raise ParameterError(
                f"{name}: range={wanted!r} lies outside the domain, from {inner} to {outer} at "
                f"temperature {run.temperature:.4g}. Leave range=None to take that domain."
            )
    return low, high


class BoundOccupation(Bound):
    """Counts (tasks, parts * groups * origins, 2 halves, minima + unassigned)."""

    kind = "occupation"
    descents = DESCENTS

    def __init__(self, observer, run: Run):
        super().__init__(observer, run)
        self.basins = run.surface.basins()
        if run.temperature:
            run.surface.bounds(run.temperature)  # refuses a density that cannot be normalised
        self.n_origins = self.basins.n + 1
        origins = np.where(run.origins < 0, self.basins.n, run.origins).astype(np.int16)
        self.cells = self.groups * self.n_origins + origins
        if self.cells.size > 1 and (self.cells == self.cells[0]).all():
            self.cells = self.cells[:1]
        self.cells = np.ascontiguousarray(self.cells, dtype=np.int16)
        self.n_cells = self.n_groups * self.n_origins
        shape = (run.n_tasks, self.parts * self.n_cells, 2, self.basins.n + 1)
        if self.n_cells > 32_000 or math.prod(shape) * 8 > 2**31:
            raise ParameterError(
                f"{self.name}: {self.basins.n} minima and {self.n_groups} groups need too many "
                "counters. Use fewer groups."
            )
        self.store = np.zeros(shape, np.int64)
        self.n_parameters = len(run.surface.parameters)
        self.middle = (run.burn_in + run.n_steps) // 2

    def arguments(self) -> tuple:
        """What the kernel takes for this observer."""
        real = self.run.dtype.type
        common = (*self._common(self.cells, self.n_cells), np.int64(self.middle))
        dim = self.run.surface.dim
        if self.basins.n == 1:
            return common
        if dim == 1:
            return (*common, np.asarray(self.basins.thresholds).astype(real))
        if dim == 2:
            labels = np.ascontiguousarray(self.basins.labels, dtype=np.int16)
            inverse = np.array(labels.shape) / (self.basins.high - self.basins.low)
            return (*common, labels, self.basins.low.astype(real), inverse.astype(real))
        minima = self.run.surface.minima()
        positions = np.array([m.position for m in minima])
        spectra = np.array([np.linalg.eigvalsh(m.hessian) for m in minima])
        curvature = float(spectra.max())
        # Descending a valley takes as many steps as its curvature is smaller than the largest.
        sweeps = math.ceil(min(10_000, 1 + 20 * curvature / spectra.min() / DESCENTS))
        apart = _closest(positions, curvature)
        return (
            *common,
            positions.astype(real),
            real((apart / 4) ** 2),
            real(0.5 / curvature),
            real(apart / 8),
            np.int64(sweeps),
        )

    def estimate(self):
        """A MeasuredOccupation."""
        counts = self.store.reshape(-1, self.n_groups, self.n_origins, 2, self.basins.n + 1)
        return MeasuredOccupation(counts)


def _closest(positions: np.ndarray, curvature: float) -> float:
    """Smallest distance between two minima; for a single one, a few of its own widths."""
    if len(positions) < 2:
        return 4.0 / math.sqrt(curvature)
    gaps = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
    return float(gaps[np.triu_indices(len(positions), 1)].min())


class BoundMoments(Bound):
    """Sums (tasks, parts * groups, 1 + dim + dim (dim + 1) / 2)."""

    kind = "moments"

    def __init__(self, observer, run: Run):
        super().__init__(observer, run)
        dim = run.surface.dim
        width = 1 + dim + dim * (dim + 1) // 2
        self.store = np.zeros((run.n_tasks, self.parts * self.n_groups, width))
        self.centre = np.asarray(run.start, dtype=float).reshape(-1, dim)[:1000].mean(axis=0)

    def arguments(self) -> tuple:
        """What the kernel takes for this observer."""
        return (*self._common(self.groups, self.n_groups), self.centre)

    def estimate(self):
        """Moments, or one for each user group."""
        sums = self.store.reshape(-1, self.n_groups, self.store.shape[-1])
        return per_group(
            lambda g: moments_from_sums(sums, self.centre, group=g),
            self.n_groups if self.grouped else None,
        )
