"""Values of a result as JSON and plain arrays, and back; nothing is ever pickled.

A value becomes a tree of JSON: numbers, text and None stand for themselves, a list for a tuple,
and ``{"!": tag, ...}`` for everything else. Arrays are handed to ``put(array)``, whose answer
stands in the tree, and come back from ``get(answer)``. A class is named in the tree by its module
and name and looked up in a table of langevin's own dataclasses: a file can name no other.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from langevin import analysis, errors
from langevin.analysis.groups import PerGroup
from langevin.errors import LangevinError, StorageError
from langevin.surfaces import expression, finite_sum

DTYPES = frozenset(
    "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 complex64 "
    "complex128".split()
)
MODULES = (
    "langevin.dynamics",
    "langevin.result",
    "langevin.schedules",
    "langevin.surfaces.noise",
    "langevin.surfaces.state_noise",
)
SURFACES = {"Surface": expression, "FiniteSum": finite_sum}  # rebuilt from what __reduce__ returns


def classes() -> dict[str, type]:
    """The dataclasses a file may name, by ``module.Name``."""
    inside = [f"langevin.analysis.{m.name}" for m in pkgutil.iter_modules(analysis.__path__)]
    table = {}
    for name in (*MODULES, *inside):
        if importlib.util.find_spec(name) is None:
            continue
        module = importlib.import_module(name)
        for key, value in vars(module).items():
            own = isinstance(value, type) and value.__module__ == name
            if own and dataclasses.is_dataclass(value):
                table[f"{name}.{key}"] = value
    return table


def encode(value: Any, put: Callable[[np.ndarray], Any]) -> Any:
    """The JSON tree of a value. Raises StorageError for what is neither data nor langevin's."""
    known = classes()

    def fields(value: Any) -> dict:
        return {f.name: tree(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}

    def tree(value: Any) -> Any:
        kind = type(value)
        if value is None or kind in (bool, int, str):
            return value
        if kind is float:
            return value if math.isfinite(value) else {"!": "float", "of": repr(value)}
        if isinstance(value, np.generic) and value.dtype.kind in "biufc":
            return {"!": "scalar", "of": put(np.asarray(value))}
        if kind is np.ndarray and value.dtype.name in DTYPES:
            return {"!": "array", "of": put(value)}
        if kind is tuple:
            return [tree(v) for v in value]
        if kind is list:
            return {"!": "list", "of": [tree(v) for v in value]}
        if isinstance(value, Mapping) and all(type(k) is str for k in value):
            return {"!": "dict", "of": {k: tree(v) for k, v in value.items()}}
        if kind is PerGroup:
            return {"!": "groups", "of": [tree(v) for v in value._estimates]}
        if isinstance(value, LangevinError) and vars(errors).get(kind.__name__) is kind:
            return {"!": "error", "class": kind.__name__, "message": str(value)}
        if kind.__name__ in SURFACES and kind.__module__ == SURFACES[kind.__name__].__name__:
            return {"!": "surface", "class": kind.__name__, "of": tree(value.__reduce__()[1])}
        name = f"{kind.__module__}.{kind.__qualname__}"
        if known.get(name) is kind:
            return {"!": "object", "class": name, "of": fields(value)}
        shown = repr(value)
        raise StorageError(
            f"a value of type {name} cannot be saved: "
            f"{shown if len(shown) <= 80 else shown[:77] + '...'}. Numbers, text, arrays and "
            "langevin's own dataclasses can; result.to_xarray() needs no more than that either."
        )

    return tree(value)


def decode(tree: Any, get: Callable[[Any], np.ndarray]) -> Any:
    """The value of a tree. Raises StorageError for a tree that `encode` does not write."""
    known = classes()

    def value(tree: Any) -> Any:
        if tree is None or isinstance(tree, (bool, int, float, str)):
            return tree
        if isinstance(tree, list):
            return tuple(value(v) for v in tree)
        tag, of = tree.get("!"), tree.get("of")
        if tag == "float" and of in ("nan", "inf", "-inf"):
            return float(of)
        if tag == "scalar":
            return get(of)[()]
        if tag == "array":
            return get(of)
        if tag == "list":
            return [value(v) for v in of]
        if tag == "dict":
            return {k: value(v) for k, v in of.items()}
        if tag == "groups":
            return PerGroup([value(v) for v in of])
        name = tree.get("class")
        if tag == "error":
            kind = vars(errors).get(name) if isinstance(name, str) else None
            if isinstance(kind, type) and issubclass(kind, LangevinError):
                return kind(str(tree["message"]))
        if tag == "surface" and name in SURFACES:
            return SURFACES[name]._rebuild(*value(of))
        if tag == "object" and name in known:
            return known[name](**{k: value(v) for k, v in of.items()})
        raise StorageError(f"it names {tag!r} {name!r}, which is nothing of langevin's")

    return value(tree)
