"""One field of an experiment file: its type checked, a callable fed with such fields."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from langevin.errors import ExperimentError, LangevinError
from langevin.experiments.document import Document, nearest, shown
from langevin.experiments.kinds import Option, options

# Fields whose annotation says no more than Any: what is needed, the least value, whether it is
# itself allowed, and an example. The rest of a field's range is its owner's to check.
NUMBERS = {
    "learning_rate": ("a positive number", 0.0, False, 0.05),
    "batch_size": ("a positive number", 0.0, False, 8),
    "momentum": ("a number from 0 to below 1", 0.0, True, 0.9),
    "temperature": ("a number not below 0", 0.0, True, 0.1),
    "friction": ("a number not below 0", 0.0, True, 1.0),
    "dt": ("a positive number", 0.0, False, 0.01),
    "weight_decay": ("a number not below 0", 0.0, True, 0.0001),
    "clip_norm": ("a positive number", 0.0, False, 1.0),
    "sigma": ("a number not below 0", 0.0, True, 1.0),
    "l2": ("a number not below 0", 0.0, True, 0.01),
}


def is_number(value: Any) -> bool:
    """Whether a TOML value is a number: a boolean is none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_whole(value: Any) -> bool:
    """Whether a TOML value is a whole number, 1000 or 1e3."""
    return is_number(value) and float(value).is_integer()


def check_keys(document: Document, path: tuple, table: Any, known: Iterable[str]) -> None:
    """Refuses what is not a table, or has a key that is not known, with the nearest that is."""
    if not isinstance(table, dict):
        name = str(path[-1])
        raise document.refusal(path, f"{shown(table)} given; a table is needed, as in [{name}].")
    known = list(known)
    for key in table:
        if key not in known:
            raise document.refusal((*path, key), f"unknown field; {nearest(key, known)}")


def choice(document: Document, path: tuple, value: Any, known: Iterable[str]) -> str:
    """``value`` if it is one of the known words."""
    known = list(known)
    if not isinstance(value, str) or value not in known:
        hint = nearest(value, known) if isinstance(value, str) else f"Known: {', '.join(known)}."
        raise document.refusal(path, f"{shown(value)} given; {hint}")
    return value


def kind(document: Document, path: tuple, table: Mapping[str, Any], known: Iterable[str]) -> str:
    """The ``kind`` that a table gives, one of the known words."""
    if "kind" not in table:
        near = difflib.get_close_matches("kind", table, 1)
        if near:
            raise document.refusal((*path, near[0]), "unknown field; did you mean kind?")
        raise document.missing((*path, "kind"), f"give one of {', '.join(known)}.")
    return choice(document, (*path, "kind"), table["kind"], known)


def whole(document: Document, path: tuple, value: Any, low: int, high: int, example: int) -> int:
    """``value`` as a whole number in a range."""
    if not is_whole(value) or not low <= value <= high:
        upper = f"{high:,}" if high < 2**53 else f"2**{(high + 1).bit_length() - 1}"
        raise document.refusal(
            path,
            f"{shown(value)} given; a whole number from {low} to {upper} is needed, for example "
            f"{example}.",
        )
    return int(value)


def truth(document: Document, path: tuple, value: Any) -> bool:
    """``value`` as true or false."""
    if not isinstance(value, bool):
        raise document.refusal(path, f"{shown(value)} given; true or false is needed.")
    return value


def text(document: Document, path: tuple, value: Any, example: str) -> str:
    """``value`` as text."""
    if not isinstance(value, str):
        raise document.refusal(
            path, f"{shown(value)} given; text is needed, for example {shown(example)}."
        )
    return value


def coerced(document: Document, path: tuple, option: Option, value: Any) -> Any:
    """A field's value if it has the type that its option asks for."""
    default = option.default
    plain = default if is_number(default) else 10 if option.annotation == "int" else 0.5
    if option.name in NUMBERS:
        needed, low, closed, example = NUMBERS[option.name]
        if not is_number(value) or value < low or (value == low and not closed):
            several = " To try several, sweep over it: [sweep]." if isinstance(value, list) else ""
            raise document.refusal(
                path, f"{shown(value)} given; {needed} is needed, for example {example}.{several}"
            )
        return value
    if option.annotation == "bool" or isinstance(default, bool):
        return truth(document, path, value)
    if option.annotation == "str":
        return text(document, path, value, default if isinstance(default, str) else "name")
    if option.annotation == "int":
        return whole(document, path, value, -(2**63), 2**64 - 1, plain)
    if option.annotation == "float" and not is_number(value):
        raise document.refusal(
            path, f"{shown(value)} given; a number is needed, for example {plain}."
        )
    if is_number(default) and not _numbers(value):
        raise document.refusal(
            path, f"{shown(value)} given; a number, or a list of them, is needed, for example "
            f"{plain}."
        )  # fmt: skip
    if isinstance(value, (dict, bool)):
        kind = "a table" if isinstance(value, dict) else shown(value)
        raise document.refusal(path, f"{kind} given; a number, text or a list is needed.")
    return value


def _numbers(value: Any) -> bool:
    if isinstance(value, list):
        return len(value) > 0 and all(_numbers(v) for v in value)
    return is_number(value)


def bound(
    document: Document,
    path: tuple,
    table: Mapping[str, Any],
    function: Callable[..., Any],
    *,
    skip: tuple[str, ...] = (),
    extra: Iterable[str] = (),
    given: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The fields of ``table`` that ``function`` takes, checked, with its defaults filled in.

    ``skip`` are arguments that no field gives, ``extra`` fields that are not arguments, ``given``
    arguments that were read already.
    """
    given = dict(given or {})
    taken = options(function, skip=skip)
    check_keys(document, path, table, [*extra, *taken])
    values = {}
    for name, option in taken.items():
        if name in given:
            values[name] = given[name]
        elif name in table:
            values[name] = coerced(document, (*path, name), option, table[name])
        elif option.required:
            example = NUMBERS.get(name, ("", 0, 0, None))[3]
            hint = "" if example is None else f", for example {name} = {example}"
            raise document.missing((*path, name), f"{function.__name__} needs it{hint}.")
        else:
            values[name] = option.default
    return values


def built(document: Document, path: tuple, function: Callable[..., Any], values: Mapping) -> Any:
    """``function(**values)``, its refusal told with file, line and field."""
    try:
        return function(**values)
    except (LangevinError, TypeError, ValueError, ArithmeticError, RecursionError) as error:
        raise located(document, path, error, values) from error


def located(
    document: Document, path: tuple, error: Exception, fields: Iterable[str]
) -> ExperimentError:
    """An error of langevin with the file, the line and the field that it is about in front."""
    if isinstance(error, ExperimentError):
        return error
    fields = list(fields)
    given = [name for name in fields if (*path, name) in document.lines]
    name = mentioned(str(error), fields) or (given[0] if len(given) == 1 else None)
    return document.refusal(path if name is None else (*path, name), str(error))


def mentioned(message: str, fields: Iterable[str]) -> str | None:
    """Which field a message names first, as ``name=``, ``name:`` or ``'name'``; else as a word."""
    fields = list(fields)
    for pattern, shortest in ((r"\b{0}(?:=|:|\()|'{0}'", 1), (r"\b{0}\b", 3)):
        found = [
            (where.start(), name)
            for name in fields
            if len(name) >= shortest
            and (where := re.search(pattern.format(re.escape(name)), message))
        ]
        if found:
            return min(found)[1]
    return None
