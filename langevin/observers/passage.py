"""When a replica first reaches a region, or leaves it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import sympy

from langevin.analysis.groups import per_group
from langevin.analysis.passage import passage_times
from langevin.checks import whole_number
from langevin.dynamics import SGD, Overdamped
from langevin.errors import ParameterError, UnsoundError
from langevin.observers.basins import BasinFinder
from langevin.observers.common import Bound, Run
from langevin.observers.quantities import Quantities, check_names, symbols
from langevin.surfaces import printing
from langevin.surfaces.noise import Isotropic
from langevin.surfaces.regions import Region, parse_region
from langevin.surfaces.symbolic import Symbolic

MONITORING = 0.5825971579390106  # -zeta(1/2)/sqrt(2 pi), Broadie, Glasserman and Kou 1997


@dataclass(frozen=True)
class FirstPassage:
    """The first step, from step 1 and whatever burn_in, at which a replica is in a region.

    ``region`` is text, such as "x > 1" or "x**2 + y**2 > 4 or y < 0", of coordinates and
    parameters, or the number of a minimum: its basin. ``leave=True`` waits for the first step
    *outside*. Only every ``every``-th step is looked at. Replicas that have not passed are
    right-censored, at the run's end or where they diverged.

    A discrete chain can cross a boundary and come back between two looks, so it passes later than
    the continuous process. ``continuous=True`` corrects for it: the boundary f = c is moved towards
    the start by ``0.5826 |grad f| amplitude``, the amplitude being the standard deviation of the
    noise of one step. For Overdamped dynamics and SGD without momentum, isotropic noise, a region
    of one comparison and every=1. Source: Broadie, Glasserman and Kou 1997, Mathematical Finance 7.

    Where FirstPassage observers are all that a run has, replicas that have passed are dropped once
    a quarter of all have, and the run ends when every replica has passed: the times are the same,
    and the final positions of the dropped replicas are those where they were dropped.
    """

    region: Any
    leave: bool = False
    continuous: bool = False
    every: int = 1
    groups: Any = None
    name: str = "first_passage"


class BoundFirstPassage(Bound):
    """The step of each replica's passage in ``memory``, 0 where it has not passed."""

    kind = "first_passage"
    from_burn_in = False

    def __init__(self, observer, run: Run):
        super().__init__(observer, run)
        for option in ("leave", "continuous"):
            if not isinstance(getattr(observer, option), (bool, np.bool_)):
                raise ParameterError(f"{self.name}: {option}= must be True or False.")
        self.leave = bool(observer.leave)
        self.memory = {"passed": np.zeros(run.n_replicas, np.int64)}
        self.shift = np.zeros(1)
        self.finder = self.quantities = None
        if isinstance(observer.region, str):
            self._read(observer, run)
        elif observer.continuous:
            raise ParameterError(
                f"{self.name}: continuous=True needs a region of one comparison, such as 'x > 1'; "
                f"the basin of a minimum was given, region={observer.region!r}."
            )
        else:
            n = run.surface.basins().n
            self.minimum = whole_number(f"{self.name}: region", observer.region, 0, n - 1)
            self.finder = BasinFinder(run)

    def _read(self, observer, run: Run) -> None:
        """The region's comparisons as quantities, with the shift of its boundary."""
        met: dict[str, sympy.Symbol] = {}
        region = parse_region(observer.region, met)
        check_names(met, run.surface, f"{self.name}: region {region.text!r}")
        surface = run.surface
        sides = [Symbolic(s, surface.variables, surface.parameters).energy for s in region.sides]
        self.condition = region.condition
        if observer.continuous:
            self.shift = self._amplitude(run, region)
            gap = sides[0] - sides[1]
            slopes = [sympy.diff(gap, v) for v in symbols(surface)[0]]
            sides += [MONITORING * sympy.sqrt(sympy.Add(*(s**2 for s in slopes)))]
            # The region grows towards a start outside it, or shrinks towards one inside.
            outwards = (region.comparison[0] == ">") != self.leave
            sign = "-" if outwards else "+"
            self.condition = f"(q0 {region.comparison} q1 {sign} shift * q2)"
        self.quantities = Quantities(sides, *symbols(surface))

    def _amplitude(self, run: Run, region: Region) -> np.ndarray:
        """Standard deviation of the noise of one step, (1,) or (n_replicas,)."""
        from langevin.engines.source import has_momentum

        dynamics, noise = run.dynamics, run.surface.noise
        numbers = [getattr(dynamics, name, None) for name in ("learning_rate", "batch_size", "dt")]
        plain = all(np.asarray(v).dtype.kind in "iuf" for v in numbers if v is not None)
        if isinstance(dynamics, SGD) and isinstance(noise, Isotropic) and plain:
            found = dynamics.learning_rate * noise.sigma / np.sqrt(dynamics.batch_size)
            good = not has_momentum(dynamics)
        elif isinstance(dynamics, Overdamped) and plain:
            found = np.sqrt(2 * np.asarray(dynamics.temperature) * dynamics.dt)
            good = dynamics.integrator in ("euler_maruyama", "heun") and dynamics.batch_size is None
        else:
            found, good = 0.0, False
        if not good or region.comparison is None or self.every != 1:
            raise UnsoundError(
                f"{self.name}: continuous=True is known for Overdamped (euler_maruyama, heun) and "
                "SGD without momentum on a formula, isotropic noise of one size, every=1 and a "
                f"region of one comparison; given were {dynamics!r}, noise={noise!r}, "
                f"every={self.every} and region={region.text!r}. Leave continuous=False: the time "
                "of the discrete chain itself."
            )
        return np.atleast_1d(np.asarray(found, dtype=float))

    def functions(self, k: int) -> str:
        """Source of ``region{k}(x..., p..., shift)``: whether a state is in the region."""
        found = self.quantities
        head, *body = printing.source(
            f"region{k}", found.expressions, found.variables, found.parameters
        ).splitlines()
        values = "".join(f"q{c}, " for c in range(len(found))).rstrip()
        result = body.pop().replace("    return ", f"    ({values}) = ", 1)
        arguments = [part for part in (head[:-2].split("(", 1)[1], "shift") if part]
        head = f"def region{k}({', '.join(arguments)}):"
        return "\n".join([head, *body, result, f"    return {self.condition}\n"])

    def arguments(self) -> tuple:
        """What the kernel takes for this observer."""
        passed = self.memory["passed"]
        if self.finder is None:
            return (*self.schedule(), passed, self.shift.astype(self.run.dtype))
        return (*self.schedule(), passed, np.int32(self.minimum), *self.finder.arguments())

    def only(self, replicas: np.ndarray) -> BoundFirstPassage:
        """This observer for some of the replicas alone, with copies of their memory."""
        some = object.__new__(BoundFirstPassage)
        some.__dict__.update(self.__dict__)
        some.memory = {"passed": self.memory["passed"][replicas]}
        some.shift = self.shift if len(self.shift) == 1 else self.shift[replicas]
        return some

    def estimate(self, done: int, diverged: np.ndarray):
        """PassageTimes, or one for each user group."""
        unit = np.broadcast_to(self.run.time_unit, self.run.n_replicas)
        steps = self.memory["passed"]
        seen = np.where(diverged >= 0, diverged, done)
        return per_group(
            lambda g: passage_times(
                *(a[self.members(g)] for a in (steps, seen, unit)),
                isinstance(self.run.dynamics, SGD),
            ),
            self.n_user_groups,
        )
