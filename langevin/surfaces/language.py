"""The formula language: its functions and numbers, and the only ways to combine them.

Both doors, text (`parsing`) and callables (`tracing`), build sympy expressions through `add`,
`multiply`, `power` and `call`, which fold numbers in floating point, so that ``9**9**9**9`` is an
error and not a computation.
"""

from __future__ import annotations

import keyword
import math
import numbers
import unicodedata
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import sympy

from langevin.errors import FormulaError

MAX_EXPONENT = 1_000  # of a numeric power


class Absolute(sympy.Function):
    """``|x|`` of a real argument, with derivative ``sign(x)``."""

    nargs = 1

    def fdiff(self, argindex=1):
        """The derivative, away from 0."""
        return Sign(self.args[0])

    def _eval_evalf(self, prec):
        return sympy.Abs(self.args[0])._eval_evalf(prec)


class Sign(sympy.Function):
    """``sign(x)`` of a real argument, with derivative 0 (the jump at 0 is left out)."""

    nargs = 1

    def fdiff(self, argindex=1):
        """The derivative, away from 0."""
        return sympy.S.Zero

    def _eval_evalf(self, prec):
        return sympy.sign(self.args[0])._eval_evalf(prec)


class Sigmoid(sympy.Function):
    """``1/(1 + exp(-x))``, with derivative ``sigmoid(x) (1 - sigmoid(x))``."""

    nargs = 1

    def fdiff(self, argindex=1):
        """The derivative."""
        return self * (1 - self)

    def _eval_evalf(self, prec):
        return (1 / (1 + sympy.exp(-self.args[0])))._eval_evalf(prec)


class Softplus(sympy.Function):
    """``log(1 + exp(x))``, with derivative ``sigmoid(x)``."""

    nargs = 1

    def fdiff(self, argindex=1):
        """The derivative."""
        return Sigmoid(self.args[0])

    def _eval_evalf(self, prec):
        return sympy.log(1 + sympy.exp(self.args[0]))._eval_evalf(prec)


FUNCTIONS: dict[str, tuple[Any, Callable[[float], float]]] = {
    "exp": (sympy.exp, math.exp),
    "log": (sympy.log, math.log),
    "sin": (sympy.sin, math.sin),
    "cos": (sympy.cos, math.cos),
    "tan": (sympy.tan, math.tan),
    "tanh": (sympy.tanh, math.tanh),
    "sinh": (sympy.sinh, math.sinh),
    "cosh": (sympy.cosh, math.cosh),
    "atan": (sympy.atan, math.atan),
    "sqrt": (sympy.sqrt, math.sqrt),
    "abs": (Absolute, abs),
    "sign": (Sign, lambda v: float(np.sign(v))),
    "sigmoid": (Sigmoid, lambda v: math.exp(min(v, 0.0)) / (1 + math.exp(-abs(v)))),
    "softplus": (Softplus, lambda v: max(v, 0.0) + math.log1p(math.exp(-abs(v)))),
}
CONSTANTS = {"pi": sympy.pi}


def number(value: Any) -> sympy.Expr:
    """A finite real number as sympy; decimals become exact fractions (0.1 is 1/10)."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
        raise FormulaError(f"{value!r} is not a real number: a formula holds real numbers only.")
    try:
        real = float(value)
    except OverflowError:
        real = math.inf
    if not math.isfinite(real):
        raise FormulaError(f"the number {str(value)[:40]} is not finite in double precision.")
    if isinstance(value, numbers.Integral) or (real == int(real) and abs(real) <= 2**53):
        return sympy.Integer(int(value))
    if 1e-20 < abs(real) < 1e20:
        return sympy.Rational(repr(real))
    return sympy.Float(real)


def _folded(what: str, compute: Callable[[], Any]) -> sympy.Expr:
    """The value of an operation between numbers, in double precision."""
    try:
        value = compute()
    except (ValueError, OverflowError, ZeroDivisionError):
        value = math.nan
    if isinstance(value, complex) or not math.isfinite(value):
        raise FormulaError(f"{what} has no finite real value. Write the number it should be.")
    return number(value)


def add(terms: Iterable[sympy.Expr]) -> sympy.Expr:
    """The sum of all terms at once."""
    return sympy.Add(*terms)


def multiply(factors: Iterable[sympy.Expr]) -> sympy.Expr:
    """The product of all factors at once."""
    return sympy.Mul(*factors)


def reciprocal(x: sympy.Expr) -> sympy.Expr:
    """``1/x``; raises FormulaError for the number 0."""
    if x.is_zero:
        raise FormulaError("the formula divides by zero. Remove that division.")
    return power(x, sympy.S.NegativeOne)


def power(base: sympy.Expr, exponent: sympy.Expr) -> sympy.Expr:
    """``base**exponent``, folding numbers and refusing exponents beyond MAX_EXPONENT."""
    if exponent.is_number:
        if abs(float(exponent)) > MAX_EXPONENT:
            raise FormulaError(
                f"a power of {float(exponent):g} is too high: exponents go up to {MAX_EXPONENT}."
            )
        if base.is_number and not _is_small_power(base, exponent):
            b, p = float(base), float(exponent)
            return _folded(f"{b:g}**{p:g}", lambda: b**p)
    result = sympy.Pow(base, exponent)
    for part in sympy.Mul.make_args(result):
        if part.is_Pow and part.exp.is_Number and abs(part.exp) > MAX_EXPONENT:
            raise FormulaError(
                f"repeated powers reach an exponent of {float(part.exp):g}: "
                f"exponents go up to {MAX_EXPONENT}."
            )
    return result


def _is_small_power(base: sympy.Expr, exponent: sympy.Expr) -> bool:
    """Whether the exact fraction ``base**exponent`` stays below some 256 bits."""
    if not (base.is_Rational and exponent.is_Integer) or (base == 0 and exponent < 0):
        return False
    bits = max(int(base.p).bit_length(), int(base.q).bit_length())
    return bits * abs(int(exponent)) <= 256


def call(name: str, x: sympy.Expr) -> sympy.Expr:
    """A whitelisted function of ``x``, folded to a number where ``x`` is one."""
    symbolic, numeric = FUNCTIONS[name]
    if x.is_number:
        value = float(x)
        return _folded(f"{name}({value:g})", lambda: numeric(value))
    return power(x, sympy.Rational(1, 2)) if name == "sqrt" else symbolic(x)


def check_name(name: str) -> str:
    """Returns ``name`` if it may stand for a variable or a parameter, else raises FormulaError."""
    if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name):
        raise FormulaError(f"{name!r} is not a usable name: use letters, digits and underscores.")
    if name.startswith("_") or "__" in name or unicodedata.normalize("NFKC", name) != name:
        raise FormulaError(
            f"the name {name!r} is refused: names start with a plain letter and have no "
            "double underscore."
        )
    if name in FUNCTIONS or name in CONSTANTS:
        kind = "function" if name in FUNCTIONS else "constant"
        raise FormulaError(f"{name!r} is a {kind} of the formula language. Choose another name.")
    return name


def finish(expression: sympy.Expr) -> sympy.Expr:
    """Returns ``expression`` if it is real and finite, else raises FormulaError."""
    bad = (sympy.nan, sympy.zoo, sympy.oo, -sympy.oo, sympy.I)
    if expression.has(*bad):
        raise FormulaError("the formula is not real and finite: it divides by zero, or roots < 0.")
    for value in expression.atoms(sympy.Number):
        try:
            finite = math.isfinite(float(value))
        except OverflowError:
            finite = False
        if not finite:
            raise FormulaError("the formula holds a number too large for double precision.")
    return expression
