"""Regions of the plane of states, from comparisons in text such as ``x > 1 and y < 2``.

Read from a whitelisted syntax tree, as formulas are; text never reaches ``eval``.
"""

from __future__ import annotations

import ast
import warnings
from dataclasses import dataclass

import sympy

from langevin.errors import FormulaError
from langevin.surfaces.parsing import check_text, parse

_COMPARISONS = {ast.Gt: ">", ast.GtE: ">=", ast.Lt: "<", ast.LtE: "<="}


@dataclass(frozen=True)
class Region:
    """Where ``text`` holds.

    ``sides`` are the left and right sides of its comparisons, in turn; ``condition`` is Python
    source over their values q0, q1, ...: ``(q0 > q1) & (q2 < q3)``. ``comparison`` is the operator
    of a region of a single comparison, else None.
    """

    text: str
    sides: tuple[sympy.Expr, ...]
    condition: str
    comparison: str | None


def parse_region(text: str, symbols: dict[str, sympy.Symbol]) -> Region:
    """The region that ``text`` stands for; every name met is entered in ``symbols``.

    Allowed: formulas compared by ``> >= < <=`` (also in a chain, ``0 < x < 1``), joined by
    ``and``, ``or``, ``not`` and parentheses. Raises FormulaError for anything else.
    """
    if not isinstance(text, str):
        raise FormulaError(f"region={text!r}: give text, such as 'x > 1', or a minimum's number.")
    check_text(text)
    shown = text if len(text) <= 60 else text[:57] + "..."
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(" ".join(text.split()), mode="eval").body
        sides: list[sympy.Expr] = []
        condition = _condition(tree, sides, symbols)
    except (RecursionError, MemoryError):
        raise FormulaError(f"region {shown!r}: nested too deeply. Split it up.") from None
    except SyntaxError as error:
        raise FormulaError(f"region {shown!r}: not readable ({error.msg}).") from None
    except FormulaError as error:
        raise FormulaError(f"region {shown!r}: {error}") from None
    single = isinstance(tree, ast.Compare) and len(tree.ops) == 1
    comparison = _COMPARISONS[type(tree.ops[0])] if single else None
    return Region(text, tuple(sides), condition, comparison)


def _condition(node: ast.AST, sides: list, symbols: dict) -> str:
    """Source of the condition; appends the sides of its comparisons."""
    match node:
        case ast.BoolOp():
            joint = " & " if isinstance(node.op, ast.And) else " | "
            return "(" + joint.join(_condition(v, sides, symbols) for v in node.values) + ")"
        case ast.UnaryOp(op=ast.Not()):
            return f"(not {_condition(node.operand, sides, symbols)})"
        case ast.Compare():
            return _comparison(node, sides, symbols)
    raise FormulaError(
        "needs comparisons such as 'x > 1' or 'x**2 + y**2 > 4', joined by and, or, not."
    )


def _comparison(node: ast.Compare, sides: list, symbols: dict) -> str:
    terms = [parse(ast.unparse(term), symbols) for term in (node.left, *node.comparators)]
    parts = []
    for left, operator, right in zip(terms, node.ops, terms[1:], strict=False):
        if type(operator) not in _COMPARISONS:
            raise FormulaError("only > >= < <= compare: a state never meets an equality exactly.")
        k = len(sides)
        sides += [left, right]
        parts.append(f"(q{k} {_COMPARISONS[type(operator)]} q{k + 1})")
    return parts[0] if len(parts) == 1 else f"({' & '.join(parts)})"
