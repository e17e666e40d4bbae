"""The [surface] of an experiment file: a formula, a named well, or a sum over data."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import numpy as np

import langevin as lv
from langevin.errors import LangevinError
from langevin.experiments import kinds
from langevin.experiments.document import Document, nearest, shown
from langevin.experiments.fields import (
    bound,
    built,
    check_keys,
    choice,
    coerced,
    kind,
    located,
    text,
)
from langevin.surfaces.language import check_name

HERE = ("surface",)
_DATA = ("data", "builtin", "columns")


def surface(document: Document) -> tuple[Any, dict[str, Any]]:
    """The surface that [surface] describes, and all that was given or assumed for it."""
    table = document.values["surface"]
    if "formula" in table and "name" in table:
        raise document.refusal(
            (*HERE, "name"), "given beside a formula; keep one: a formula of your own, or a name."
        )
    if "formula" in table:
        on_data = "data" in table or "builtin" in table
        return _sum_over_data(document, table) if on_data else _formula(document, table)
    if "name" in table:
        return _named(document, table)
    known = ("formula", "name", "variables", "parameters", "noise", *_DATA, "l2")
    check_keys(document, HERE, table, known)
    raise document.missing(
        (*HERE, "formula"), 'give formula = "x**4/4 - x**2/2", or name = "double_well".'
    )


def _formula(document: Document, table: dict) -> tuple[Any, dict]:
    check_keys(document, HERE, table, ("formula", "variables", "parameters", "noise", *_DATA, "l2"))
    for name in ("columns", "l2"):
        if name in table:
            raise document.refusal(
                (*HERE, name), 'belongs to a sum over data: give data = "points.csv" as well.'
            )
    formula = text(document, (*HERE, "formula"), table["formula"], "x**4/4 - x**2/2")
    parameters = _parameters(document, table)
    variables = _variables(document, table)
    noise, described = _noise(document, table)
    resolved = {
        "formula": formula, "parameters": parameters, "variables": variables, **described
    }  # fmt: skip
    try:
        made = lv.Surface(formula, variables=variables, **noise, **parameters)
    except (LangevinError, TypeError, ValueError, ArithmeticError, RecursionError) as error:
        raise _about_formula(document, error, parameters) from error
    return made, resolved


def _about_formula(document: Document, error: Exception, parameters: dict) -> LangevinError:
    """The refusal of a formula, at the parameter or the variables where it is about those."""
    if str(error).startswith("parameter "):
        return located(document, (*HERE, "parameters"), error, parameters)
    if str(error).startswith("variables") and "variables" in document.values["surface"]:
        return document.refusal((*HERE, "variables"), str(error))
    return document.refusal((*HERE, "formula"), str(error))


def _variables(document: Document, table: dict) -> list[str] | None:
    names = table.get("variables")
    good = isinstance(names, list) and names and all(isinstance(n, str) for n in names)
    if names is not None and not good:
        raise document.refusal(
            (*HERE, "variables"),
            f'{shown(names)} given; a list of names is needed, for example ["x", "y"].',
        )
    for name in names or ():
        built(document, (*HERE, "variables"), check_name, {"name": name})
    return names


def _parameters(document: Document, table: dict) -> dict[str, float]:
    found = table.get("parameters", {})
    path = (*HERE, "parameters")
    if not isinstance(found, dict):
        raise document.refusal(path, f"{shown(found)} given; a table of numbers is needed.")
    reserved = ("formula", "noise", "variables", "data", "l2", "self")
    for name, value in found.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise document.refusal(
                (*path, name), f"{shown(value)} given; a number is needed, for example 0.4."
            )
        if name in reserved:
            raise document.refusal(
                (*path, name), "a parameter cannot have this name; rename it in the formula too."
            )
        built(document, (*path, name), check_name, {"name": name})
    return {name: float(value) for name, value in found.items()}


def _noise(document: Document, table: dict) -> tuple[dict[str, Any], dict[str, Any]]:
    """``{"noise": ...}`` if the section gives it: the noise itself, and as plain values."""
    if "noise" not in table:
        return {}, {}
    path, given = (*HERE, "noise"), table["noise"]
    known = kinds.noises()
    if not isinstance(given, dict):
        raise document.refusal(
            path,
            f'{shown(given)} given; needed: noise = {{kind = "isotropic", sigma = 1.0}}.',
        )
    noise = known[kind(document, path, given, known)]
    values = bound(document, path, given, noise, extra=("kind",))
    made = built(document, path, noise, values)
    return {"noise": made}, {"noise": {"kind": given["kind"], **values}}


def _named(document: Document, table: dict) -> tuple[Any, dict]:
    known = kinds.wells()
    name = choice(document, (*HERE, "name"), table["name"], known)
    function = known[name]
    taken = kinds.options(function)
    given, described = {}, {}
    extra = ["name"]
    if {"X", "y"} <= set(taken):
        extra += _DATA
        X, y = _two_arrays(document, table)
        given = {"X": X, "y": y}
        described["data"] = _digest(X, y)
    elif "noise" in taken:
        extra.append("noise")
        given, described = _noise(document, table)
    kept = {k: v for k, v in table.items() if k != "noise" or "noise" not in taken}
    skip = () if "noise" in given else ("noise",)
    values = bound(document, HERE, kept, function, skip=skip, extra=extra, given=given)
    resolved = {"name": name, **{k: v for k, v in values.items() if k not in given}, **described}
    return built(document, HERE, function, values), resolved


# --- data -----------------------------------------------------------------------------------------


def _sum_over_data(document: Document, table: dict) -> tuple[Any, dict]:
    if "noise" in table:
        raise document.refusal(
            (*HERE, "noise"), "the noise of a sum over data is that of its mini-batches; remove it."
        )
    check_keys(document, HERE, table, ("formula", "parameters", "l2", *_DATA))
    formula = text(document, (*HERE, "formula"), table["formula"], "(w*x - y)**2/2")
    parameters = _parameters(document, table)
    arrays = _arrays(document, table)
    option = kinds.Option("l2", "float", 0.0)
    l2 = table.get("l2", 0.0)
    if "l2" in table:
        l2 = coerced(document, (*HERE, "l2"), option, l2)
    resolved = {"formula": formula, "parameters": parameters, "l2": l2}
    resolved["data"] = {name: _digest(array) for name, array in sorted(arrays.items())}
    try:
        made = lv.FiniteSum(formula, data=arrays, l2=l2, **parameters)
    except (LangevinError, TypeError, ValueError, ArithmeticError, RecursionError) as error:
        raise _about_formula(document, error, parameters) from error
    return made, resolved


def _two_arrays(document: Document, table: dict) -> tuple[np.ndarray, np.ndarray]:
    """Features x (N, d) and targets y (N,), for the named regressions."""
    if "data" not in table and "builtin" not in table:
        raise document.missing(
            (*HERE, "data"), 'give data = "points.csv", or builtin = "diabetes".'
        )
    arrays = _arrays(document, table)
    if set(arrays) != {"x", "y"}:
        raise document.refusal(
            (*HERE, "columns"), "a regression has the features x and the targets y: name those two."
        )
    x = arrays["x"]
    return x[:, None] if x.ndim == 1 else x, arrays["y"]


def _arrays(document: Document, table: dict) -> dict[str, np.ndarray]:
    """Arrays by symbol: x (N, d) and y (N,), or what ``columns`` says."""
    if "data" in table and "builtin" in table:
        raise document.refusal((*HERE, "builtin"), "given beside data; keep one of them.")
    if "builtin" in table:
        known = kinds.builtin_data()
        name = choice(document, (*HERE, "builtin"), table["builtin"], known)
        if "columns" in table:
            raise document.refusal(
                (*HERE, "columns"), "built-in data are x, the features, and y; remove this."
            )
        X, y = known[name]()
        return {"x": np.asarray(X, dtype=float), "y": np.asarray(y, dtype=float)}
    names, values = _read_table(document, table["data"])
    if "columns" not in table:
        if values.shape[1] < 2:
            raise document.refusal(
                (*HERE, "data"), "one column only; x is all columns but the last, y the last."
            )
        return {"x": values[:, :-1], "y": values[:, -1]}
    path, columns = (*HERE, "columns"), table["columns"]
    if not isinstance(columns, dict) or not columns:
        raise document.refusal(
            path, f'{shown(columns)} given; needed: {{x = ["age", "bmi"], y = "target"}}.'
        )
    return {
        symbol: _columns(document, (*path, symbol), wanted, names, values)
        for symbol, wanted in columns.items()
    }


def _columns(document: Document, path: tuple, wanted: Any, names: list[str], values) -> np.ndarray:
    """One column (N,), or a list of them (N, d), by name or by number from 0."""
    picks = []
    for one in wanted if isinstance(wanted, list) else [wanted]:
        if isinstance(one, str) and one in names:
            picks.append(names.index(one))
        elif type(one) is int and 0 <= one < values.shape[1]:
            picks.append(one)
        else:
            word = one if isinstance(one, str) else ""
            raise document.refusal(
                path,
                f"{shown(one)} given; the data have {values.shape[1]} columns, numbered from 0. "
                f"{nearest(word, names) if names else ''}".rstrip(),
            )
    if not picks:
        raise document.refusal(path, "[] given; at least one column is needed.")
    return values[:, picks] if isinstance(wanted, list) else values[:, picks[0]]


def _read_table(document: Document, given: Any) -> tuple[list[str], np.ndarray]:
    """Column names (if the file has them) and values (N, columns) of a CSV or NPY file."""
    path = (*HERE, "data")
    name = text(document, path, given, "points.csv")
    try:
        file = document.folder / name
        if not file.is_file():
            raise document.refusal(
                path, f"{shown(name)} given; {file} is no file. It is looked for beside this one."
            )
        if Path(name).suffix == ".npy":
            names, values = [], np.load(file, allow_pickle=False)
        else:
            names, values = _csv(file)
        values = np.asarray(values)
        if values.dtype.kind not in "iuf" or values.ndim not in (1, 2) or not values.size:
            raise ValueError(f"it holds {values.dtype} of shape {values.shape}")
        values = np.asarray(values, dtype=float)
        if not np.isfinite(values).all():
            raise ValueError("it holds NaN or infinity")
    except LangevinError:
        raise
    except (OSError, ValueError, EOFError) as error:
        raise document.refusal(
            path, f"{shown(name)} given; not readable as a table of numbers: {error}."
        ) from None
    return names, values.reshape(len(values), -1)


def _csv(file: Path) -> tuple[list[str], np.ndarray]:
    """A table of numbers with commas between them, below an optional line of names."""
    with file.open(encoding="utf-8-sig") as stream:
        lines = [line for line in stream if line.strip() and not line.startswith("#")]
    if not lines:
        raise ValueError("it is empty")
    head = [word.strip().strip('"') for word in lines[0].split(",")]
    names = head if any(not _is_float(word) for word in head) else []
    if len(lines) == bool(names):
        raise ValueError("it holds no row of numbers")
    values = np.loadtxt(lines[bool(names) :], delimiter=",", ndmin=2)
    if names and len(names) != values.shape[1]:
        raise ValueError(f"{len(names)} names above {values.shape[1]} columns")
    return names, values


def _is_float(word: str) -> bool:
    try:
        return not math.isnan(float(word)) or word.lower() == "nan"
    except ValueError:
        return False


def _digest(*arrays: np.ndarray) -> str:
    """A digest of the data themselves, so that a run notices when they change."""
    found = hashlib.sha256()
    for array in arrays:
        found.update(repr(array.shape).encode())
        found.update(np.ascontiguousarray(array, dtype="<f8").tobytes())
    return found.hexdigest()[:16]
