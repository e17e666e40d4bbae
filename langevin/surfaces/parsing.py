"""Formulas read safely from text: a syntax tree checked node by node against a whitelist.

Text never reaches ``eval``, ``exec`` or ``sympify``: a formula in a file cannot run code.
"""

from __future__ import annotations

import ast
import difflib
import unicodedata
import warnings

import sympy

from langevin.errors import FormulaError
from langevin.surfaces.language import (
    CONSTANTS,
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
from langevin.surfaces.tracing import trace

__all__ = ["parse", "trace", "with_symbols"]

MAX_LENGTH = 10_000  # characters of a formula
MAX_DEPTH = 100  # nesting of parentheses, calls, powers and signs


def parse(text: str, symbols: dict[str, sympy.Symbol] | None = None) -> sympy.Expr:
    """The sympy expression that ``text`` stands for, read from a whitelist of syntax.

    Allowed: names, finite numbers, ``+ - * / **``, parentheses, the constant ``pi`` and calls of
    exp log sin cos tan tanh sinh cosh atan sqrt abs sign sigmoid softplus. Every name met is
    entered in ``symbols`` (name -> Symbol), also those that cancel. Raises FormulaError for
    anything else, for more than 10,000 characters and for nesting deeper than 100.
    """
    symbols = {} if symbols is None else symbols
    check_text(text)
    shown = text if len(text) <= 60 else text[:57] + "..."
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(" ".join(text.split()), mode="eval")
    except (RecursionError, MemoryError):
        raise FormulaError(f"formula {shown!r}: nested too deeply. Split it up.") from None
    except (SyntaxError, ValueError) as error:
        raise FormulaError(
            f"formula {shown!r}: not readable ({getattr(error, 'msg', error)}). Write products "
            "with *, powers with **, for example 'x**4/4 - a*x**3/3 - x**2/2'."
        ) from None
    try:
        return finish(_build(tree.body, symbols, 0))
    except FormulaError as error:
        raise FormulaError(f"formula {shown!r}: {error}") from None
    except (RecursionError, MemoryError):
        raise FormulaError(f"formula {shown!r}: nested too deeply. Split it up.") from None


def with_symbols(text: str, expression: sympy.Expr, names: set[str]) -> str:
    """``text``, the formula of an expression, with the symbols it has lost by cancelling: + 0*x."""
    lost = sorted(names - {s.name for s in expression.free_symbols})
    return text + "".join(f" + 0*{name}" for name in lost)


def check_text(text: str) -> None:
    """Raises FormulaError for text too long, empty, nested too deeply or with odd characters."""
    if len(text) > MAX_LENGTH:
        raise FormulaError(
            f"a formula of {len(text):,} characters: at most {MAX_LENGTH:,} are read. "
            "Sums over data belong in a FiniteSum."
        )
    if not text.strip():
        raise FormulaError("the formula is empty. Give one, for example 'x**4/4 - x**2/2'.")
    if unicodedata.normalize("NFKC", text) != text:
        raise FormulaError(
            f"formula {text[:60]!r}: holds look-alike characters. Use plain letters and digits."
        )
    for character in "#\\;\0":
        if character in text:
            raise FormulaError(f"formula {text[:60]!r}: the character {character!r} is refused.")
    depth = deepest = 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        deepest = max(deepest, depth)
    if deepest > MAX_DEPTH:
        raise FormulaError(
            f"formula {text[:60]!r}: parentheses nested {deepest} deep; at most {MAX_DEPTH}."
        )


_SIGNS = {ast.Add: False, ast.Sub: True}
_SCALES = {ast.Mult: False, ast.Div: True}
_ADVICE = {
    ast.BitXor: "'^' is not a power here. Write x**2.",
    ast.Mod: "'%' is not in the formula language.",
    ast.Attribute: "attribute access (a dot) is refused. Write exp(x), not np.exp(x).",
    ast.Subscript: "subscripts are refused. Write x0, x1 instead of x[0], x[1].",
    ast.Compare: "comparisons are refused. Use abs(x) or sign(x) for piecewise formulas.",
    ast.IfExp: "conditions are refused. Use abs(x) or sign(x) for piecewise formulas.",
    ast.Lambda: "lambda is refused inside text. Hand the function itself to Surface.",
}


def _refuse(node: ast.AST) -> None:
    kind = type(node).__name__
    raise FormulaError(
        _ADVICE.get(type(node), f"{kind} is refused.")
        + " Allowed: names, numbers, + - * / **, and "
        + ", ".join(FUNCTIONS)
        + "."
    )


def _build(node: ast.AST, symbols: dict[str, sympy.Symbol], depth: int) -> sympy.Expr:
    if depth > MAX_DEPTH:
        raise FormulaError(f"nested more than {MAX_DEPTH} deep. Split it up.")
    match node:
        case ast.Constant():
            return number(node.value)
        case ast.Name():
            if node.id in CONSTANTS:
                return CONSTANTS[node.id]
            return symbols.setdefault(check_name(node.id), sympy.Symbol(node.id))
        case ast.UnaryOp(op=ast.USub() | ast.UAdd()):
            value = _build(node.operand, symbols, depth + 1)
            return -value if isinstance(node.op, ast.USub) else value
        case ast.BinOp(op=ast.Pow()):
            base = _build(node.left, symbols, depth + 1)
            return power(base, _build(node.right, symbols, depth + 1))
        case ast.BinOp() if type(node.op) in _SIGNS:
            return add(_spine(node, _SIGNS, symbols, depth, lambda term: -term))
        case ast.BinOp() if type(node.op) in _SCALES:
            return multiply(_spine(node, _SCALES, symbols, depth, reciprocal))
        case ast.BinOp():
            _refuse(node.op)
        case ast.Call():
            return _build_call(node, symbols, depth)
    _refuse(node)


def _spine(node, operators, symbols, depth, inverse) -> list[sympy.Expr]:
    """The operands of a chain like ``a + b - c``, without recursing along the chain."""
    parts = []
    while isinstance(node, ast.BinOp) and type(node.op) in operators:
        part = _build(node.right, symbols, depth + 1)
        parts.append(inverse(part) if operators[type(node.op)] else part)
        node = node.left
    parts.append(_build(node, symbols, depth + 1))
    return parts[::-1]


_OTHER_NAMES = {
    "ln": "log",
    "arctan": "atan",
    "pow": "**",
    "expit": "sigmoid",
    "logistic": "sigmoid",
}


def _build_call(node: ast.Call, symbols: dict[str, sympy.Symbol], depth: int) -> sympy.Expr:
    if not isinstance(node.func, ast.Name):
        _refuse(node.func)
    name = node.func.id
    if name not in FUNCTIONS:
        near = {
            "ln": ["log"],
            "arctan": ["atan"],
            "pow": ["**"],
            "expit": ["sigmoid"],
            "logistic": ["sigmoid"],
        }.get(name)
        near = near or difflib.get_close_matches(name, FUNCTIONS, 1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise FormulaError(
            f"unknown function {name!r}.{hint} Known: {', '.join(FUNCTIONS)}; "
            "a product needs a *, as in x*(y + 1)."
        )
    if node.keywords or len(node.args) != 1 or isinstance(node.args[0], ast.Starred):
        raise FormulaError(f"{name}() takes exactly one argument, as in {name}(x).")
    return call(name, _build(node.args[0], symbols, depth + 1))
