"""The temperature that the states themselves show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import sympy

from langevin.analysis.averages import temperature_from_sums
from langevin.analysis.groups import per_group
from langevin.dynamics import Underdamped
from langevin.errors import UnsoundError
from langevin.observers.average import SummedBound
from langevin.observers.common import Run
from langevin.observers.quantities import Quantities, symbols
from langevin.surfaces.language import Absolute, Sign


@dataclass(frozen=True)
class Temperature:
    """Temperatures measured from the states, which agree with T where ``exp(-U/T)`` is sampled.

    ``configurational`` is ``<|grad U|^2> / <lap U>`` (Rugh 1997; Butler et al. 1998), ``virial``
    is ``<x . grad U> / dim`` (equipartition: ``<x_i dU/dx_i> = T`` for each coordinate, whatever
    the origin of x, because ``<dU/dx_i> = 0``), and ``kinetic`` is ``<v . M v> / dim`` where the
    dynamics carries velocities. A finite step shifts each of them in its own way.
    """

    every: int = 1
    groups: Any = None
    name: str = "temperature"


class BoundTemperature(SummedBound):
    """The sums of |grad U|^2, lap U, x . grad U and v . M v."""

    kind = "temperature"

    def __init__(self, observer, run: Run):
        super().__init__(observer, run)
        surface = run.surface
        if not hasattr(surface, "_symbolic"):
            raise UnsoundError(
                f"{self.name}: a sum over data has no formula for its Laplacian inside the kernel. "
                "Use a Surface, or observe Moments() or Average(...) of the weights."
            )
        known = surface._symbolic
        if known.energy.has(Absolute, Sign):
            raise UnsoundError(
                f"{self.name}: {surface.name} has kinks, and the Laplacian is infinite on them. "
                "Use a smooth formula, or Average('x*...') of what equipartition needs."
            )
        x, parameters = symbols(surface)
        dim = surface.dim
        diagonal = [sympy.diff(g, v) for g, v in zip(known.gradient, x, strict=True)]
        found = [
            sympy.Add(*(g**2 for g in known.gradient)),
            sympy.Add(*diagonal),
            sympy.Add(*(v * g for v, g in zip(x, known.gradient, strict=True))),
        ]
        state = list(x)
        if isinstance(run.dynamics, Underdamped):
            velocities = [sympy.Dummy(f"v{k}") for k in range(dim)]
            state += velocities
            masses = np.broadcast_to(run.dynamics.masses, dim)
            pairs = zip(masses, velocities, strict=True)
            found.append(sympy.Add(*(sympy.Float(float(m)) * v**2 for m, v in pairs)))
        self.prepare(Quantities(found, state, parameters), np.zeros(len(found)))

    def estimate(self, done: int, diverged: np.ndarray):
        """Temperatures, or one for each user group."""
        dim = self.run.surface.dim
        return per_group(lambda g: temperature_from_sums(self.sums[:, g], dim), self.n_user_groups)
