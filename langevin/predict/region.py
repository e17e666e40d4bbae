"""Regions of states, written in text as for the FirstPassage observer, as a test of arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import sympy

from langevin.observers.quantities import check_names, symbols
from langevin.surfaces import printing
from langevin.surfaces.regions import parse_region
from langevin.surfaces.symbolic import Symbolic


def region_test(surface: Any, text: str) -> Callable[..., np.ndarray]:
    """``inside(x0, x1, ...)``: where the region that ``text`` describes holds, arrays in and out.

    The coordinates are arrays of one shape. Raises FormulaError for text outside the language of
    regions, and for a name that is neither a coordinate nor a parameter of the surface.
    """
    met: dict[str, sympy.Symbol] = {}
    region = parse_region(text, met)
    check_names(met, surface, f"region {region.text!r}")
    sides = [Symbolic(s, surface.variables, surface.parameters).energy for s in region.sides]
    values = printing.numpy_function(printing.source("sides", sides, *symbols(surface)), "sides")
    # `parse_region` wrote the condition over q0, q1, ... alone; arrays negate by ~.
    names = ", ".join(f"q{k}" for k in range(len(sides)))
    condition = region.condition.replace("(not ", "(~")
    holds = printing.numpy_function(
        f"def condition({names}):\n    return {condition}\n", "condition"
    )
    constants = [np.float64(v) for v in surface.parameters.values()]

    def inside(*x: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            found = values(*x, *constants)
        return holds(*(np.broadcast_to(v, np.shape(x[0])) for v in found))

    return inside
