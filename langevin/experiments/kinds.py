"""What an experiment file may name: found by looking at langevin itself.

So a new noise, dynamics, observer, prediction, well or schedule can be written in a file as soon
as it is public, under the snake_case of its name and with the fields it declares.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import langevin as lv

_SET_BY_THE_RUN = ("observe", "progress", "checkpoint", "checkpoint_every")


@dataclass(frozen=True)
class Option:
    """One thing a callable takes: its annotation as text, and its default if it has one."""

    name: str
    annotation: str
    default: Any = inspect.Parameter.empty

    @property
    def required(self) -> bool:
        """Whether it must be given."""
        return self.default is inspect.Parameter.empty


def options(function: Callable[..., Any], *, skip: tuple[str, ...] = ()) -> dict[str, Option]:
    """What ``function`` takes by name, without ``skip``."""
    found = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if name in skip or parameter.kind in (
            parameter.VAR_KEYWORD,
            parameter.VAR_POSITIONAL,
            parameter.POSITIONAL_ONLY,
        ):
            continue
        annotation = parameter.annotation
        text = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "Any")
        found[name] = Option(name, text.removesuffix(" | None"), parameter.default)
    return found


def snake(name: str) -> str:
    """``FirstPassage`` as ``first_passage``, ``SGD`` as ``sgd``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def _dataclasses(modules: str) -> dict[str, type]:
    """The public dataclasses of langevin written in modules whose names match a pattern."""
    public = {name: value for room in (lv, lv.surfaces) for name, value in vars(room).items()}
    return {
        snake(name): value
        for name, value in sorted(public.items())
        if inspect.isclass(value)
        and dataclasses.is_dataclass(value)
        and not name.startswith("_")
        and re.match(rf"langevin\.{modules}", value.__module__)
    }


@cache
def noises() -> Mapping[str, type]:
    """Gradient noises: the public dataclasses of the surfaces' noise modules."""
    return _dataclasses(r"surfaces\.\w*noise")


@cache
def dynamics() -> Mapping[str, type]:
    """Dynamics: ``sgd``, ``overdamped``, ``underdamped``, ...; Adam is for networks alone."""
    return {name: kind for name, kind in _dataclasses("dynamics").items() if kind is not lv.Adam}


@cache
def observers() -> Mapping[str, type]:
    """Observers: ``histogram``, ``occupation``, ``moments``, ..."""
    return _dataclasses("observe")


@cache
def predictions() -> Mapping[str, Callable[..., Any]]:
    """Predictions: the public functions of (surface, dynamics) in ``langevin.predict``."""
    return {
        name: value
        for name, value in sorted(vars(lv.predict).items())
        if inspect.isfunction(value)
        and not name.startswith("_")
        and list(inspect.signature(value).parameters)[:2] == ["surface", "dynamics"]
    }


@cache
def wells() -> Mapping[str, Callable[..., Any]]:
    """Named surfaces: the public functions of ``langevin.surfaces`` that return one."""
    return {
        name: value
        for name, value in sorted(vars(lv.surfaces).items())
        if inspect.isfunction(value)
        and not name.startswith("_")
        and value.__annotations__.get("return") in ("Surface", "FiniteSum")
    }


@cache
def builtin_data() -> Mapping[str, Callable[..., Any]]:
    """Data that come with langevin: public functions that return (X, y) and need no argument."""
    return {
        name: value
        for name, value in sorted(vars(lv.surfaces).items())
        if inspect.isfunction(value)
        and str(value.__annotations__.get("return", "")).startswith("tuple[")
        and not any(option.required for option in options(value).values())
    }


@cache
def schedules() -> Mapping[str, type]:
    """Schedules of a learning rate or a batch size: dataclasses of ``langevin.schedules``."""
    return {
        snake(name): value
        for name, value in sorted(vars(lv.schedules).items())
        if inspect.isclass(value)
        and dataclasses.is_dataclass(value)
        and not name.startswith("_")
        and value.__module__ == lv.schedules.__name__
    }


@cache
def run_options() -> Mapping[str, Option]:
    """What [run] takes: the arguments of simulate(), with threads and checkpoint as a file has."""
    taken = options(lv.simulate, skip=("surface", "dynamics", *_SET_BY_THE_RUN))
    return {
        **taken,
        "threads": Option("threads", "int", None),
        "checkpoint": Option("checkpoint", "Any", True),
    }


@cache
def compare_options() -> Mapping[str, Option]:
    """What [[predict]] takes for its comparison: the arguments of compare()."""
    skip = ("result", "prediction", "group", "start", "observer")  # the run's own, known to it
    return options(lv.compare, skip=skip)
