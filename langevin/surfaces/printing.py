"""A surface's formulas as straight-line Python source, to be pasted into kernels.

The text is neutral in precision: every constant is ``real(...)``, and ``real`` is float32 or
float64 in the module it is pasted into. Names are x0, x1, ..., p0, p1, ... and temporaries;
nothing a user wrote reaches the text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import sympy
from sympy.printing.str import StrPrinter

from langevin.errors import FormulaError
from langevin.surfaces.language import FUNCTIONS, Absolute, Sigmoid, Sign, Softplus

_CALLS = {
    sympy.exp: "exp",
    sympy.log: "log",
    sympy.sin: "sin",
    sympy.cos: "cos",
    sympy.tan: "tan",
    sympy.tanh: "tanh",
    sympy.sinh: "sinh",
    sympy.cosh: "cosh",
    sympy.atan: "atan",
    Absolute: "abs",
    sympy.Abs: "abs",
    Sign: "sign",
    sympy.sign: "sign",
    Sigmoid: "sigmoid",
    Softplus: "softplus",
}
_SUM, _PRODUCT, _ATOM = range(3)


class _FormulaPrinter(StrPrinter):
    """Canonical text that the parser reads back to the same expression."""

    def _print_Float(self, expr):
        return repr(float(expr))

    def _print_Exp1(self, expr):
        return repr(float(expr))

    def _print_Absolute(self, expr):
        return f"abs({self._print(expr.args[0])})"

    def _print_Sign(self, expr):
        return f"sign({self._print(expr.args[0])})"

    def _print_Sigmoid(self, expr):
        return f"sigmoid({self._print(expr.args[0])})"

    def _print_Softplus(self, expr):
        return f"softplus({self._print(expr.args[0])})"


def formula_text(expression: sympy.Expr) -> str:
    """The expression in the formula language; parsing it gives the same expression."""
    return _FormulaPrinter().doprint(expression)


def source(
    name: str,
    expressions: Sequence[sympy.Expr],
    variables: Sequence[sympy.Symbol],
    parameters: Sequence[sympy.Symbol],
    *,
    scalar: bool = False,
) -> str:
    """Source of ``def name(x0, ..., p0, ...)`` returning a tuple (or, ``scalar``, one value).

    Only + - * / and the functions of the language are used. Integer powers are products, half
    powers use sqrt, any other power is ``exp(p*log(x))``; a sum of monomials in one variable is in
    Horner form. Any other polynomial keeps the form it was written in: expanding
    ``(x - 100)**4`` would lose all digits in single precision.
    """
    renamed = {s: sympy.Symbol(f"x{i}") for i, s in enumerate(variables)}
    renamed |= {s: sympy.Symbol(f"p{i}") for i, s in enumerate(parameters)}
    arguments = ", ".join(str(s) for s in renamed.values())
    expressions = [e.xreplace(renamed) for e in expressions]
    writer = _Writer()
    x = sympy.Symbol("x0")
    if len(variables) == 1 and all(_monomials(e, x) is not None for e in expressions):
        results = [writer.horner(_monomials(e, x), "x0") for e in expressions]
    else:
        steps, reduced = sympy.cse(expressions, symbols=sympy.numbered_symbols("t"))
        for symbol, expression in steps:
            writer.lines.append(f"{symbol} = {writer.write(expression)[0]}")
        results = [writer.write(e)[0] for e in reduced]
    value = results[0] if scalar else "(" + "".join(f"{r}, " for r in results).rstrip() + ")"
    body = "".join(f"    {line}\n" for line in writer.lines)
    return f"def {name}({arguments}):\n{body}    return {value}\n"


def _monomials(expression: sympy.Expr, x: sympy.Symbol) -> dict[int, sympy.Expr] | None:
    """Coefficients by power if the expression is written as a sum of monomials in x, else None."""
    coefficients: dict[int, sympy.Expr] = {}
    for term in sympy.Add.make_args(expression):
        coefficient, rest = term.as_independent(x, as_Add=False)
        base, exponent = rest.as_base_exp() if rest != 1 else (x, sympy.S.Zero)
        if base != x or not (exponent.is_Integer and 0 <= exponent <= 64):
            return None
        power = int(exponent)
        coefficients[power] = coefficients.get(power, sympy.S.Zero) + coefficient
    return {k: c for k, c in coefficients.items() if c != 0}


class _Writer:
    """Turns expressions into text, collecting the assignments that must come first."""

    def __init__(self):
        self.lines: list[str] = []
        self.powers: dict[tuple[str, int], str] = {}
        self.kept = 0

    def keep(self, text: str) -> str:
        """A name for the value of ``text``."""
        if text.isidentifier():
            return text
        name = f"m{self.kept}"
        self.kept += 1
        self.lines.append(f"{name} = {text}")
        return name

    def write(self, e: sympy.Expr) -> tuple[str, int]:
        """Text and the level of its outermost operation."""
        if e.is_Symbol:
            return e.name, _ATOM
        if e.is_number:
            return f"real({float(e)!r})", _ATOM
        if e.is_Add:
            return self._sum(e), _SUM
        if e.is_Mul or e.is_Pow:
            return self._product(e)
        if type(e) in _CALLS:
            return f"{_CALLS[type(e)]}({self.write(e.args[0])[0]})", _ATOM
        if isinstance(e, sympy.cot):
            return self._product(1 / sympy.tan(e.args[0]))
        raise FormulaError(
            f"the formula leads to {type(e).__name__}(), which no kernel can compute. "
            f"Rewrite it with {', '.join(FUNCTIONS)}."
        )

    def _sum(self, e: sympy.Expr) -> str:
        signed = [_split_sign(term) for term in e.args]
        signed.sort(key=lambda pair: pair[0])  # a positive term first: no unary minus
        text = ""
        for negative, term in signed:
            operator = (" - " if negative else " + ") if text else ("-" if negative else "")
            shown, level = self.write(term)
            text += operator + (f"({shown})" if level == _SUM else shown)
        return text

    def _product(self, e: sympy.Expr) -> tuple[str, int]:
        coefficient, rest = e.as_coeff_Mul()
        above, below = [], []
        for factor in sympy.Mul.make_args(rest):
            base, exponent = factor.as_base_exp() if factor.is_Pow else (factor, sympy.S.One)
            if exponent.is_Number and exponent < 0 and (2 * exponent).is_Integer:
                below.append(self._power(base, -exponent))
            elif factor != 1:
                above.append(self._power(base, exponent))
        negative = coefficient == -1 and bool(above)
        if not above or coefficient not in (1, -1):
            above.insert(0, f"real({float(coefficient)!r})")
        text = ("-" if negative else "") + "*".join(above)
        if below:
            text += "/" + (below[0] if len(below) == 1 else "(" + "*".join(below) + ")")
        atomic = len(above) == 1 and not below and not negative
        level = _ATOM if atomic else (_SUM if negative else _PRODUCT)
        return text, level

    def _power(self, base: sympy.Expr, exponent: sympy.Expr) -> str:
        """``base**exponent`` as an atom; negative halves and integers became divisions before."""
        text, level = self.write(base)
        if exponent == 1:
            return text if level == _ATOM else f"({text})"
        if exponent.is_Number and (2 * exponent).is_Integer:
            whole = int(exponent)
            if whole == exponent:
                return self.integer_power(text, whole)
            text = self.keep(text)
            root = f"sqrt({text})"
            return root if whole == 0 else f"({self.integer_power(text, whole)}*{root})"
        p, p_level = self.write(exponent)
        if base.is_number:
            return f"exp(real({float(sympy.log(base))!r})*({p}))"
        return f"exp({p if p_level == _ATOM else f'({p})'}*log({text}))"

    def integer_power(self, text: str, n: int) -> str:
        """``text**n`` by repeated squaring, shared between all uses."""
        text = self.keep(text)
        if n == 1:
            return text
        if (text, n) not in self.powers:
            half = self.integer_power(text, n // 2 if n % 2 == 0 else n - 1)
            name = f"{text}_{n}"
            self.lines.append(f"{name} = {half}*{half if n % 2 == 0 else text}")
            self.powers[text, n] = name
        return self.powers[text, n]

    def horner(self, coefficients: dict[int, sympy.Expr], x: str) -> str:
        """``((c_n x + c_(n-1)) x + ...) x + c_0``, stepping over missing powers."""
        powers = sorted(coefficients, reverse=True)
        if not powers:
            return "real(0.0)"
        text = ""
        for position, k in enumerate(powers):
            negative, term = _split_sign(coefficients[k])
            shown, level = self.write(term)
            shown = f"({shown})" if level == _SUM else shown
            if position == 0:
                text = "" if term == 1 and k > 0 else shown
                text = (f"-{text}" if text else "-") if negative else text
            else:
                text = f"{text} {'-' if negative else '+'} {shown}"
            gap = k - (powers[position + 1] if position + 1 < len(powers) else 0)
            if gap:
                text = _times(text, self.integer_power(x, gap), position > 0)
        return text


def _times(text: str, factor: str, is_sum: bool) -> str:
    if text in ("", "-"):
        return text + factor
    return f"({text})*{factor}" if is_sum else f"{text}*{factor}"


def _split_sign(term: sympy.Expr) -> tuple[bool, sympy.Expr]:
    """Whether the term's number is negative, and the term without that sign."""
    coefficient = term.as_coeff_Mul()[0]
    negative = bool(coefficient.is_number and coefficient < 0)
    return negative, -term if negative else term


def _sigmoid(x):
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, e) / (1 + e)


_NUMPY = {
    "real": np.float64,
    "exp": np.exp,
    "log": np.log,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "tanh": np.tanh,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "atan": np.arctan,
    "sqrt": np.sqrt,
    "abs": np.abs,
    "sign": np.sign,
    "sigmoid": _sigmoid,
    "softplus": lambda x: np.logaddexp(0.0, x),
    "__builtins__": {},
}


def numpy_function(text: str, name: str) -> Callable:
    """The function that `source` wrote, over NumPy arrays: what users see is what kernels run."""
    namespace = dict(_NUMPY)
    # The text is made by `source` alone and holds no name a user chose.
    exec(compile(text, f"<langevin {name}>", "exec"), namespace)  # noqa: S102
    return namespace[name]
