"""Formulas from Python callables, traced once with symbolic arguments."""

from __future__ import annotations

import functools
import inspect
import numbers
from collections.abc import Callable
from typing import Any

import numpy as np
import sympy

from langevin.errors import FormulaError
from langevin.surfaces.language import (
    FUNCTIONS,
    add,
    call,
    check_name,
    finish,
    multiply,
    number,
    power,
    reciprocal,
)

MAX_NODES = 5_000  # operations recorded from a callable


def _cannot(what: str):
    def refuse(self, *_):
        raise FormulaError(
            f"the function {what}; a surface must be one formula for all points. Use np.exp(x), "
            "abs(x) or np.sign(x) instead of math functions, comparisons and branches."
        )

    return refuse


class Traced:
    """A symbolic argument: records the arithmetic done to it as a sympy expression."""

    __slots__ = ("expression", "nodes")
    __hash__ = object.__hash__

    def __init__(self, expression: sympy.Expr, nodes: int = 1):
        if nodes > MAX_NODES:
            raise FormulaError(
                f"the function performs more than {MAX_NODES:,} operations. Surfaces are short "
                "formulas; sums over data belong in a FiniteSum."
            )
        self.expression = expression
        self.nodes = nodes

    def _with(self, other: Any, combine) -> Any:
        if not isinstance(other, (Traced, numbers.Real)):
            return NotImplemented
        other = other if isinstance(other, Traced) else Traced(number(other))
        return Traced(combine(self.expression, other.expression), self.nodes + other.nodes + 1)

    def _call(self, name: str) -> Traced:
        return Traced(call(name, self.expression), self.nodes + 1)

    def __add__(self, other):
        return self._with(other, lambda a, b: add((a, b)))

    def __radd__(self, other):
        return self._with(other, lambda a, b: add((b, a)))

    def __sub__(self, other):
        return self._with(other, lambda a, b: add((a, -b)))

    def __rsub__(self, other):
        return self._with(other, lambda a, b: add((b, -a)))

    def __mul__(self, other):
        return self._with(other, lambda a, b: multiply((a, b)))

    def __rmul__(self, other):
        return self._with(other, lambda a, b: multiply((b, a)))

    def __truediv__(self, other):
        return self._with(other, lambda a, b: multiply((a, reciprocal(b))))

    def __rtruediv__(self, other):
        return self._with(other, lambda a, b: multiply((b, reciprocal(a))))

    def __pow__(self, other):
        return self._with(other, power)

    def __rpow__(self, other):
        return self._with(other, lambda a, b: power(b, a))

    def __neg__(self):
        return Traced(-self.expression, self.nodes + 1)

    def __pos__(self):
        return self

    def __abs__(self):
        return self._call("abs")

    def __array_ufunc__(self, ufunc, method, *inputs, **options):
        """NumPy functions: as on an object array, which calls the methods below."""
        if method == "__call__" and ufunc.__name__ in _UFUNCS:
            return _UFUNCS[ufunc.__name__](*inputs)
        boxed = [np.array(v, dtype=object) if isinstance(v, Traced) else v for v in inputs]
        return getattr(ufunc, method)(*boxed, **options)

    __bool__ = _cannot("branches on the value of an argument")
    __float__ = __int__ = __index__ = __complex__ = _cannot("turns an argument into a number")
    __lt__ = __le__ = __gt__ = __ge__ = __eq__ = __ne__ = _cannot("compares an argument")


def _logaddexp(a, b):
    """``log(exp(a) + exp(b))``, as ``a + softplus(b - a)``."""
    difference = b - a
    return a + difference._call("softplus")


_UFUNCS = {  # those that NumPy does not turn into a method call
    "sign": lambda x: x._call("sign"),
    "expit": lambda x: x._call("sigmoid"),  # scipy.special
    "logaddexp": _logaddexp,
}
for _name in FUNCTIONS:  # np.exp(x) on an object calls x.exp()
    _method = functools.partialmethod(Traced._call, _name)
    setattr(Traced, {"atan": "arctan"}.get(_name, _name), _method)
Traced.atan = Traced.arctan


def trace(
    function: Callable[..., Any],
    variables: tuple[str, ...] | None,
    parameters: dict[str, Any],
    symbols: dict[str, sympy.Symbol],
) -> tuple[sympy.Expr, tuple[str, ...], dict[str, Any]]:
    """The expression a callable computes, its variables, and its parameters with defaults.

    Every argument is entered in ``symbols``.

    Arguments whose names are in ``parameters``, or that have a default, are parameters; the others
    are the variables, in order. ``variables`` overrules that. Raises FormulaError where the
    callable branches on a value or leaves the formula language.
    """
    arguments, defaults = _arguments(function, variables)
    parameters = {
        **{k: v for k, v in defaults.items() if variables is None or k not in variables},
        **parameters,
    }
    if variables is None:
        variables = tuple(name for name in arguments if name not in parameters)
    symbols.update({name: sympy.Symbol(check_name(name)) for name in arguments})
    traced = {name: Traced(symbols[name]) for name in arguments}
    positional = [traced[name] for name, kind in arguments.items() if kind == "positional"]
    keywords = {name: traced[name] for name, kind in arguments.items() if kind == "keyword"}
    try:
        result = function(*positional, **keywords)
    except FormulaError:
        raise
    except Exception as error:
        raise FormulaError(
            f"the function could not be traced ({type(error).__name__}: {error}). Use arithmetic "
            "and np.exp, log, sin, cos, tan, tanh, sinh, cosh, arctan, sqrt, abs, sign, "
            "logaddexp only."
        ) from error
    if isinstance(result, np.ndarray) and result.size == 1:
        result = result.item()
    expression = result.expression if isinstance(result, Traced) else number(result)
    return finish(expression), tuple(variables), parameters


def _arguments(function, variables) -> tuple[dict[str, str], dict[str, Any]]:
    """Argument names with how each is passed, and the default values."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        raise FormulaError(
            f"{function!r} does not tell its arguments. Wrap it: lambda x, y: ..."
        ) from None
    arguments: dict[str, str] = {}
    defaults: dict[str, Any] = {}
    for argument in signature.parameters.values():
        if argument.kind is argument.VAR_POSITIONAL and variables is not None:
            arguments.update({v: "positional" for v in variables if v not in arguments})
        elif argument.kind in (argument.VAR_POSITIONAL, argument.VAR_KEYWORD):
            raise FormulaError(
                "a function with *args or **kwargs hides its coordinates: name them, "
                "lambda x, y: ..., or give variables=('x', 'y')."
            )
        else:
            keyword_only = argument.kind is argument.KEYWORD_ONLY
            arguments[argument.name] = "keyword" if keyword_only else "positional"
            if argument.default is not argument.empty:
                defaults[argument.name] = argument.default
    return arguments, defaults
