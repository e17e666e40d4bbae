"""What a run returns: final positions, observed estimates, and how they came about."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from langevin.errors import ParameterError


@dataclass(frozen=True)
class Estimate:
    """A measured number with its standard error, which ``dof`` degrees of freedom stand behind."""

    value: float
    stderr: float
    dof: int = 63

    def z(self, expected: float) -> float:
        """Standard errors between the measurement and an expected value."""
        difference = self.value - expected
        if self.stderr > 0 or math.isnan(self.stderr):
            return difference / self.stderr
        return 0.0 if difference == 0 else math.copysign(math.inf, difference)

    def __str__(self) -> str:
        return f"{self.value:.6g} +- {self.stderr:.2g}"


@dataclass(frozen=True)
class Result:
    """A finished, or interrupted, run.

    ``positions`` (n_replicas, dim) and ``velocities`` (the momentum buffers, or None) are the
    state after ``steps_done`` steps. ``diverged`` (n_replicas,) holds the step by which a replica
    had escaped, or -1. Observers are read by name, ``result["name"]``, or through ``density()``,
    ``occupation()`` and ``moments()``. ``groups`` holds the labels that an observer was given.
    ``resumed_at`` is the step at which a run resumed from a checkpoint began, else 0;
    ``provenance`` tells the versions and the machine that computed it.
    ``ended_early``: every replica had passed in a run that observes FirstPassage alone.
    ``device`` is "cpu", or names the GPU whose CuPy arrays positions and velocities are: compare,
    save and plots copy what they need, and `to_numpy` all.
    ``start``: the points (k, dim) where the replicas began, in equal shares; None: equal shares of
    the minima; empty where they were too many to keep.
    """

    surface: Any
    dynamics: Any
    positions: np.ndarray
    velocities: np.ndarray | None
    diverged: np.ndarray
    n_steps: int
    steps_done: int
    burn_in: int
    seed: int
    first_replica: int
    dtype: str
    elapsed: float
    observed: Mapping[str, Any] = field(default_factory=dict)
    kinds: Mapping[str, str] = field(default_factory=dict)
    groups: Mapping[str, np.ndarray] = field(default_factory=dict)
    resumed_at: int = 0
    provenance: Mapping[str, Any] = field(default_factory=dict)
    ended_early: bool = False
    start: np.ndarray | None = None
    device: str = "cpu"

    @property
    def n_replicas(self) -> int:
        """Number of replicas."""
        return len(self.positions)

    @property
    def interrupted(self) -> bool:
        """Whether the run was cut short; not so if it ended because every replica had passed."""
        return self.steps_done < self.n_steps and not self.ended_early

    def __getitem__(self, name: str) -> Any:
        if name not in self.observed:
            have = ", ".join(self.observed) or "none"
            raise ParameterError(
                f"result[{name!r}]: no observer has that name; this run has: {have}."
            )
        found = self.observed[name]
        if isinstance(found, Exception):  # the run ended before the first observation
            raise found
        return found.checked() if hasattr(found, "checked") else found  # at=: never stationary

    def _name(self, kind: str, observer: str, name: str | None) -> str:
        """The name asked for, or that of the run's only observer of a kind."""
        if name is not None:
            if self.kinds.get(name) != kind:
                raise ParameterError(
                    f"no {observer} is named {name!r}; this run has: "
                    f"{', '.join(self.observed) or 'no observer'}."
                )
            return name
        found = [name for name, k in self.kinds.items() if k == kind]
        if len(found) == 1:
            return found[0]
        if not found:
            raise ParameterError(
                f"this run observed no {kind}: pass observe=langevin.{observer}(...) to simulate()."
            )
        raise ParameterError(
            f"this run has {len(found)} observers of that kind: {', '.join(found)}. "
            f"Read one by name: result.{kind if kind != 'histogram' else 'density'}('name')."
        )

    def density(self, name: str | None = None):
        """The measured Density of the Histogram of that name, or of the run's only one."""
        return self[self._name("histogram", "Histogram", name)]

    def occupation(self, name: str | None = None, *, allow_unequilibrated: bool = False):
        """The measured occupation of the minima; see MeasuredOccupation.

        Raises UnsoundError where the replicas have not forgotten where they started, unless
        ``allow_unequilibrated``.
        """
        found = self.observed[self._name("occupation", "Occupation", name)]
        if not hasattr(found, "checked"):  # a Series at given times: nothing need be stationary
            return found
        return found.checked(allow_unequilibrated=allow_unequilibrated)

    def moments(self, name: str | None = None):
        """The measured mean and covariance of the Moments of that name, or of the only one."""
        return self[self._name("moments", "Moments", name)]

    def average(self, name: str | None = None):
        """The MeasuredAverage of that name, or of the run's only Average."""
        return self[self._name("average", "Average", name)]

    def first_passage(self, name: str | None = None):
        """The PassageTimes of the FirstPassage of that name, or of the run's only one."""
        return self[self._name("first_passage", "FirstPassage", name)]

    def transitions(self, name: str | None = None):
        """The MeasuredTransitions of that name, or of the run's only Transitions."""
        return self[self._name("transitions", "Transitions", name)]

    def trajectory(self, name: str | None = None):
        """The Trajectories of that name, or of the run's only Trajectory."""
        return self[self._name("trajectory", "Trajectory", name)]

    def autocorrelation(self, name: str | None = None):
        """The MeasuredAutocorrelation of that name, or of the run's only one."""
        return self[self._name("autocorrelation", "Autocorrelation", name)]

    def temperature(self, name: str | None = None):
        """The measured Temperatures of that name, or of the run's only Temperature."""
        return self[self._name("temperature", "Temperature", name)]

    def diagnostics(self):
        """Whether each estimate has converged: Diagnostics, which print as a table."""
        from langevin.analysis.diagnostics import diagnostics

        return diagnostics(self.observed)

    def to_numpy(self) -> Result:
        """This result with positions and velocities as NumPy arrays, copied from the GPU."""
        if self.device == "cpu":
            return self
        from langevin.checks import on_host

        moved = {name: on_host(getattr(self, name)) for name in ("positions", "velocities")}
        return replace(self, **moved, device="cpu")

    def to_xarray(self):
        """A labelled copy of everything measured, an xarray.Dataset; see `labelled.dataset`.

        Raises UnavailableError without xarray.
        """
        from langevin import labelled

        return labelled.dataset(self.to_numpy())

    def save(self, path: Any, *, overwrite: bool = False) -> None:
        """Saves the run as a Zarr folder, which `langevin.load` and xarray.open_zarr read.

        The folder appears whole or not at all. An existing path is refused, unless ``overwrite``
        and a saved run is there. Raises StorageError, UnavailableError without xarray and zarr.
        """
        from langevin import storage

        storage.save(self.to_numpy(), path, overwrite=overwrite)

    def __repr__(self) -> str:
        n_diverged = int((self.diverged >= 0).sum())
        return (
            f"Result({self.n_replicas:,} replicas x {self.steps_done:,} steps, dtype={self.dtype}, "
            f"seed={self.seed}, observed: {', '.join(self.observed) or 'nothing'}"
            + (f", on {self.device}" if self.device != "cpu" else "")
            + (f", {n_diverged} diverged" if n_diverged else "")
            + (", interrupted" if self.interrupted else "")
            + ")"
        )
