"""The [sweep] of an experiment file: which points it asks for."""

from __future__ import annotations

import copy
import itertools
import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from langevin.experiments.document import Document, dotted, nearest, shown
from langevin.experiments.fields import check_keys, choice, is_number, truth, whole

HERE = ("sweep",)
MOST = 10_000  # points
_RANGE = ("from", "to", "number", "scale", "round")


@dataclass(frozen=True)
class Axis:
    """One swept field: where it stands, what the sweep calls it, its values and their lines."""

    field: tuple[str | int, ...]
    source: tuple[str | int, ...]
    values: tuple[float | str, ...]
    elements: bool  # whether each value stands in the file by itself

    @property
    def name(self) -> str:
        """The field as ``dynamics.learning_rate``."""
        return dotted(self.field)

    def line(self, document: Document, k: int) -> int:
        """The line of the k-th value."""
        return document.line((*self.source, k) if self.elements else self.source)


def points(document: Document) -> list[tuple[dict[str, float | str], Document]]:
    """Every point: the values of its swept fields, and the document with them filled in.

    Without [sweep] there is one point, with no values.
    """
    if "sweep" not in document.values:
        return [({}, document)]
    table = document.values["sweep"]
    if not isinstance(table, dict):
        raise document.refusal(HERE, f"{shown(table)} given; a table is needed, as in [sweep].")
    together = truth(document, (*HERE, "zip"), table.get("zip", False))
    axes = list(_axes(document, {k: v for k, v in table.items() if k != "zip"}, HERE))
    if not axes:
        raise document.refusal(
            HERE, 'names no field; write for example "dynamics.learning_rate" = [0.05, 0.1].'
        )
    for k, axis in enumerate(axes):
        if any(axis.field == other.field for other in axes[:k]):
            raise document.refusal(axis.source, f"{axis.name} is swept twice.")
    lengths = [len(axis.values) for axis in axes]
    if together and len(set(lengths)) > 1:
        raise document.refusal(
            (*HERE, "zip"),
            f"the fields have {' and '.join(map(str, lengths))} values; together they need equally "
            "many. Leave zip out for every combination.",
        )
    if not together and math.prod(lengths) > MOST:
        raise document.refusal(HERE, f"{math.prod(lengths):,} points; at most {MOST:,} are run.")
    ranges = [range(n) for n in lengths]
    picks = zip(*ranges, strict=True) if together else itertools.product(*ranges)
    return [_point(document, axes, pick) for pick in picks]


def _point(document: Document, axes: list[Axis], pick: tuple) -> tuple[dict, Document]:
    values = copy.deepcopy({k: v for k, v in document.values.items() if k != "sweep"})
    lines, chosen = {}, {}
    for axis, k in zip(axes, pick, strict=True):
        _put(document, values, axis, axis.values[k])
        lines[axis.field] = axis.line(document, k)
        chosen[axis.name] = axis.values[k]
    return chosen, document.with_values(values, lines)


def _put(document: Document, values: dict, axis: Axis, value: float | str) -> None:
    """Sets the swept field: a number in the place of a number, a word in that of a word."""
    here: Any = values
    for k, part in enumerate(axis.field):
        last = k == len(axis.field) - 1
        if isinstance(here, list):
            if not isinstance(part, int) or part >= len(here):
                raise document.refusal(
                    axis.source,
                    f"{dotted(axis.field[:k])} has {len(here)} entries, numbered from 0; "
                    f"{shown(part)} is none of them.",
                )
        elif isinstance(here, dict):
            part = str(part)
            if part not in here and not last:
                raise document.refusal(
                    axis.source,
                    f"the file has no {dotted(axis.field[: k + 1])}; {nearest(part, here)}",
                )
        else:
            raise document.refusal(
                axis.source, f"{dotted(axis.field[:k])} is no table, so it holds no {shown(part)}."
            )
        if last:
            before = here[part] if isinstance(here, list) else here.get(part, value)
            if is_number(before) != is_number(value) or isinstance(before, (bool, dict, list)):
                raise document.refusal(
                    axis.source,
                    f"{dotted(axis.field)} is {shown(before)}, so {shown(value)} cannot take its "
                    "place; numbers are swept over numbers, words over words.",
                )
            here[part] = value
        else:
            here = here[part]


def _axes(document: Document, table: dict, source: tuple):
    """The axes of a table whose keys are dotted names, quoted or not."""
    for key, value in table.items():
        path = (*source, key)
        ranged = isinstance(value, dict) and ("from" in value or "number" in value or "to" in value)
        if isinstance(value, dict) and not ranged:
            yield from _axes(document, value, path)
            continue
        field = tuple(part for name in path[1:] for part in _split(document, path, str(name)))
        if field[0] in ("sweep", "output", "title") or len(field) < 2:
            raise document.refusal(
                path,
                f"{dotted(field)} cannot be swept; name a number of [surface], [dynamics], [run], "
                '[[observe]] or [[predict]], for example "dynamics.learning_rate".',
            )
        values = _range(document, path, value) if ranged else _list(document, path, value)
        if len(values) > MOST:
            raise document.refusal(path, f"{len(values):,} values; at most {MOST:,} are run.")
        if len(set(values)) < len(values):
            raise document.refusal(path, "holds the same value twice; give each once.")
        yield Axis(field, path, values, elements=not ranged)


def _split(document: Document, source: tuple, name: str) -> tuple[str | int, ...]:
    """``observe[1].bins`` or ``observe.1.bins`` as ("observe", 1, "bins")."""
    parts = re.sub(r"\[(\d+)\]", r".\1", name).split(".")
    if not all(parts) or any(len(part) > 100 for part in parts):
        raise document.refusal(
            source, 'is no field; write it as in "dynamics.learning_rate" or "observe.0.bins".'
        )
    return tuple(int(p) if re.fullmatch(r"[0-9]{1,6}", p) else p for p in parts)


def _list(document: Document, path: tuple, value: Any) -> tuple[float | str, ...]:
    if not isinstance(value, list) or not value:
        raise document.refusal(
            path,
            f"{shown(value)} given; needed: numbers, as in [0.05, 0.1], or a range, as in "
            '{from = 0.01, to = 0.1, number = 5, scale = "log"}.',
        )
    for k, element in enumerate(value):
        if not (is_number(element) or isinstance(element, str)):
            raise document.refusal(
                (*path, k), f"{shown(element)} given; a number is needed, for example 0.05."
            )
    return tuple(value)


def _range(document: Document, path: tuple, table: dict) -> tuple[float, ...]:
    """``{from, to, number, scale, round}`` as its values, ends included."""
    check_keys(document, path, table, _RANGE)
    for name in ("from", "to", "number"):
        if name not in table:
            raise document.missing((*path, name), "a range is {from = 0.01, to = 0.1, number = 5}.")
    for name in ("from", "to"):
        if not is_number(table[name]):
            raise document.refusal(
                (*path, name),
                f"{shown(table[name])} given; a number is needed, for example 0.05.",
            )
    number = whole(document, (*path, "number"), table["number"], 2, MOST, 5)
    low, high = float(table["from"]), float(table["to"])
    scale = choice(document, (*path, "scale"), table.get("scale", "linear"), ("linear", "log"))
    if scale == "log" and not (low > 0 and high > 0):
        name = "from" if low <= 0 else "to"
        raise document.refusal(
            (*path, name), f"{shown(table[name])} given; a log scale needs both ends above 0."
        )
    space = np.geomspace if scale == "log" else np.linspace
    values = [float(f"{v:.12g}") for v in space(low, high, number)]
    if truth(document, (*path, "round"), table.get("round", False)):
        return tuple(dict.fromkeys(round(v) for v in values))
    return tuple(values)
