"""What training networks returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from langevin.errors import ParameterError


@dataclass(frozen=True)
class NetworkResult:
    """A finished, or interrupted, training of an ensemble of networks.

    ``positions`` (n_replicas, dim) are the parameters after ``steps_done`` steps, ``velocities``
    the momentum buffers or None; ``diverged`` (n_replicas,) the step at which a replica's loss was
    no longer finite, or -1. Observers are read by name, ``result["loss"]``, as a Series.
    ``how`` says in words how gradients were computed: compiled, batched, by vmap, or in a loop.
    ``stopped``: an observer (`AtLoss`) had all it wanted, so the steps left were not taken.
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
    how: str
    observed: Mapping[str, Any] = field(default_factory=dict)
    resumed_at: int = 0
    provenance: Mapping[str, Any] = field(default_factory=dict)
    device: str = "cpu"
    stopped: bool = False

    @property
    def n_replicas(self) -> int:
        """Number of networks."""
        return len(self.positions)

    @property
    def interrupted(self) -> bool:
        """Whether the training was cut short."""
        return self.steps_done < self.n_steps and not self.stopped

    def __getitem__(self, name: str) -> Any:
        if name not in self.observed:
            have = ", ".join(self.observed) or "none"
            raise ParameterError(
                f"result[{name!r}]: no observer has that name; this run has: {have}."
            )
        return self.observed[name]

    def module(self, replica: int = 0) -> Any:
        """A copy of the module with the parameters of one replica."""
        if not 0 <= replica < self.n_replicas:
            raise ParameterError(
                f"module({replica!r}): there are {self.n_replicas} replicas, numbered from 0."
            )
        return self.surface.with_parameters(self.positions[replica])

    def to_xarray(self) -> Any:
        """An xarray.Dataset: each observer (replica, record), its steps, positions, diverged."""
        from langevin.labelled import optional

        xarray = optional("xarray")
        replicas = self.first_replica + np.arange(self.n_replicas)
        variables: dict[str, Any] = {
            "positions": (("replica", "parameter"), self.positions),
            "diverged": (("replica",), self.diverged),
        }
        for name, series in self.observed.items():
            # Observers of one schedule share the axis "record"; others have one of their own.
            if hasattr(series, "positions"):  # weights
                levels = [f"{name}_level"] if hasattr(series, "levels") else []
                variables[name.lower()] = (("replica", *levels, "parameter"), series.positions)
                if levels:
                    variables[levels[0]] = (levels, series.levels)
                    for part in ("steps", "losses"):
                        own = getattr(series, part)
                        variables[f"{name.lower()}_{part}"] = (("replica", *levels), own)
                continue
            dims = ["replica", "record" if self._shared(series) else f"{name}_record"]
            extra = [f"{name}_{k}" for k in range(series.values.ndim - 2)]
            variables[name.lower()] = ((*dims, *extra), series.values)
            variables[f"{dims[1]}_step"] = ((dims[1],), series.steps)
        attributes = {"seed": self.seed, "steps_done": self.steps_done, "how": self.how}
        attributes |= {"surface": repr(self.surface), "dynamics": repr(self.dynamics)}
        attributes |= {key: str(value) for key, value in self.provenance.items()}
        return xarray.Dataset(variables, coords={"replica": replicas}, attrs=attributes)

    def _shared(self, series: Any) -> bool:
        first = next(s for s in self.observed.values() if not hasattr(s, "positions"))
        return np.array_equal(first.steps, series.steps)

    def __repr__(self) -> str:
        n_diverged = int((self.diverged >= 0).sum())
        return (
            f"NetworkResult({self.n_replicas} networks of {self.surface.dim:,} parameters x "
            f"{self.steps_done:,} steps, dtype={self.dtype}, seed={self.seed}, observed: "
            f"{', '.join(self.observed) or 'nothing'}"
            + (f", {n_diverged} diverged" if n_diverged else "")
            + (", interrupted" if self.interrupted else "")
            + ")"
        )
