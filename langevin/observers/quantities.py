"""Numbers computed from a state: a user's formulas, or what physics derives from the energy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import sympy

from langevin.errors import FormulaError, ParameterError
from langevin.surfaces import parsing, printing
from langevin.surfaces.symbolic import Symbolic


class Quantities:
    """Expressions of a state as one kernel function, called with the rows of the state it uses.

    ``variables`` are the symbols of the state's rows, positions first.
    """

    def __init__(self, expressions: Sequence[sympy.Expr], variables, parameters):
        self.expressions = list(expressions)
        found = set().union(*(e.free_symbols for e in self.expressions))
        self.rows = [k for k, v in enumerate(variables) if v in found]
        self.variables = [variables[k] for k in self.rows]
        self.parameters = list(parameters)

    def __len__(self) -> int:
        return len(self.expressions)

    def source(self, name: str) -> str:
        """Source of ``name(x..., p...)``, which returns the tuple of the quantities."""
        return printing.source(name, self.expressions, self.variables, self.parameters)

    def call(self, name: str) -> str:
        """The call for lane i of the state at ``row``."""
        given = [f"lanes[row + {k}, i]" for k in self.rows]
        given += [f"p{k}" for k in range(len(self.parameters))]
        return f"{name}({', '.join(given)})"

    def value(self, point: np.ndarray, parameters: Sequence[float]) -> np.ndarray:
        """The quantities (n,) at one state."""
        function = printing.numpy_function(self.source("quantity"), "quantity")
        with np.errstate(all="ignore"):
            values = function(*(np.float64(point[k]) for k in self.rows), *parameters)
        return np.array(values, dtype=float)


def symbols(surface) -> tuple[list[sympy.Symbol], list[sympy.Symbol]]:
    """The coordinates and the parameters of a surface."""
    return [sympy.Symbol(v) for v in surface.variables], [
        sympy.Symbol(p) for p in surface.parameters
    ]


def read(text: str, surface, owner: str) -> Symbolic:
    """A formula of the coordinates and parameters of a surface, with its derivatives.

    Raises FormulaError where it is no text, outside the language, or names anything else.
    """
    if not isinstance(text, str):
        raise FormulaError(f"{owner}: {text!r} is no formula: give text, such as 'x**2'.")
    met: dict[str, sympy.Symbol] = {}
    expression = parsing.parse(text, met)
    check_names(met, surface, f"{owner}: {text!r}")
    return Symbolic(expression, surface.variables, surface.parameters)


def check_names(met, surface, shown: str) -> None:
    """Raises FormulaError for a name that is no coordinate and no parameter of the surface."""
    unknown = sorted(set(met) - set(surface.variables) - set(surface.parameters))
    if unknown:
        names = ", ".join(surface.variables[:12]) + (", ..." if surface.dim > 12 else "")
        parameters = ", ".join(surface.parameters)
        raise FormulaError(
            f"{shown} has the name {unknown[0]!r}; this surface has the coordinates {names}"
            + (f" and the parameters {parameters}." if parameters else " and no parameters.")
        )


def formulas(given, surface, owner: str) -> tuple[tuple[str, ...], Quantities]:
    """One formula, or a sequence of them, as text and as quantities."""
    texts = (given,) if isinstance(given, str) else given
    if not isinstance(texts, (tuple, list)) or len(texts) == 0:
        raise ParameterError(f"{owner}: formula={given!r} must be text, or a sequence of texts.")
    expressions = [read(text, surface, owner).energy for text in texts]
    return tuple(texts), Quantities(expressions, *symbols(surface))
