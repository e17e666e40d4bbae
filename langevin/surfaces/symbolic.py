"""The symbolic side of a surface: its derivatives, and the functions compiled from them."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import numpy as np
import sympy

from langevin.surfaces import language, printing


class Symbolic:
    """A formula with its derivatives and compiled functions, shared by all parameter values."""

    def __init__(self, given: sympy.Expr, variables: Sequence[str], parameters: dict[str, float]):
        self.given = given
        self.variables = [sympy.Symbol(v) for v in variables]
        self.parameters = [sympy.Symbol(p) for p in parameters]
        self.structural = _in_exponents(given, self.variables, self.parameters)
        values = {sympy.Symbol(k): language.number(parameters[k]) for k in self.structural}
        self.energy = _with_exponents(given, values, set(self.variables))
        self._functions: dict[str, Callable] = {}

    @functools.cached_property
    def gradient(self) -> list[sympy.Expr]:
        """First derivatives, one for each coordinate."""
        return [sympy.diff(self.energy, v) for v in self.variables]

    @functools.cached_property
    def hessian(self) -> list[sympy.Expr]:
        """The upper triangle, row by row."""
        pairs = zip(*np.triu_indices(len(self.variables)), strict=True)
        return [sympy.diff(self.gradient[i], self.variables[j]) for i, j in pairs]

    @functools.cached_property
    def hessian_is_constant(self) -> bool:
        """Whether every second derivative is free of coordinates."""

        def constant(e: sympy.Expr) -> bool:
            if e.has(language.Sign, language.Absolute):
                return False
            if not e.free_symbols & set(self.variables):
                return True
            return e.is_polynomial(*self.variables) and not (
                e.expand().free_symbols & set(self.variables)
            )

        kinked = self.energy.has(language.Sign, language.Absolute)
        return not kinked and all(constant(e) for e in self.hessian)

    def source(self, what: str, name: str, scalar: bool = False) -> str:
        """Source text of "energy", "gradient" or "hessian" (its upper triangle)."""
        expressions = [self.energy] if what == "energy" else getattr(self, what)
        return printing.source(name, expressions, self.variables, self.parameters, scalar=scalar)

    def function(self, what: str) -> Callable:
        """The same source, compiled for NumPy."""
        if what not in self._functions:
            self._functions[what] = printing.numpy_function(self.source(what, what), what)
        return self._functions[what]

    def gradient_polynomial(self, parameters: dict[str, float]) -> sympy.Poly | None:
        """The gradient as a polynomial over the rationals, if in 1-D it is one."""
        if len(self.variables) != 1:
            return None
        (x,) = self.variables
        if _degree(self.energy, x) > 40:
            return None
        values = {sympy.Symbol(k): language.number(v) for k, v in parameters.items()}
        exact = self.gradient[0].xreplace(values)
        floats = {f: sympy.Rational(float(f)) for f in exact.atoms(sympy.Float, sympy.NumberSymbol)}
        try:
            return sympy.Poly(exact.xreplace(floats), x, domain="QQ")
        except sympy.BasePolynomialError:  # not a polynomial, or a coefficient like exp(a)
            return None


def _degree(e: sympy.Expr, x: sympy.Symbol) -> float:
    """An upper bound on the degree in x, infinite where e is not a polynomial in x."""
    if x not in e.free_symbols:
        return 0
    if e == x:
        return 1
    if e.is_Add:
        return max(_degree(a, x) for a in e.args)
    if e.is_Mul:
        return sum(_degree(a, x) for a in e.args)
    if e.is_Pow and e.exp.is_Integer and e.exp > 0:
        return int(e.exp) * _degree(e.base, x)
    return math.inf


def _in_exponents(e, variables, parameters) -> list[str]:
    """Names of the parameters that stand in exponents free of coordinates."""
    found = set()
    for p in e.atoms(sympy.Pow):
        symbols = p.exp.free_symbols
        if p.base.free_symbols & set(variables) and not symbols & set(variables):
            found |= symbols
    return sorted(s.name for s in found if s in set(parameters))


def _with_exponents(e: sympy.Expr, values: dict, variables: set) -> sympy.Expr:
    """The expression with ``values`` put into the exponents of coordinates, only there."""
    if not values or e.is_Atom:
        return e
    if e.is_Pow and e.base.free_symbols & variables and not e.exp.free_symbols & variables:
        exponent = e.exp.xreplace(values)
        return language.power(_with_exponents(e.base, values, variables), exponent)
    return e.func(*(_with_exponents(a, values, variables) for a in e.args))
