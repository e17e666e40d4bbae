"""A result as an xarray.Dataset: labelled axes, units, and where the numbers come from.

Any estimate that is a dataclass says what to show by a class attribute ``dims``, a dict from names
of attributes (arrays, numbers, Estimates) to the names of their axes, or stands in DIMS here; else
all its fields are shown. An attribute named like an axis, or its plural, is its coordinate.
"""

from __future__ import annotations

import dataclasses
import json
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from langevin.analysis.density import Density, Moments
from langevin.analysis.groups import PerGroup
from langevin.analysis.occupation import MeasuredOccupation
from langevin.errors import ConvergenceWarning, LangevinError, UnavailableError, UnsoundError

LONGEST = 40  # characters of a name, so that it can be a file's on any disk
RESERVED = ("langevin", "zarr.json", "c")
AXES = ("replica", "coordinate", "coordinate_2", "minimum", "minimum_2", "group", "step")
SQUARE = ("minimum", "minimum_2")
DIMS = {
    "PassageTimes": {"times": ("replica",), "exposure": ("replica",), "mean": ()},
    "MeasuredTransitions": {
        "counts": SQUARE,
        "probability": SQUARE,
        "rates": SQUARE,
        "stationary": ("minimum",),
        "relaxation_time": (),
        "lag": (),
    },
    "Trajectories": {"positions": ("replica", "step", "coordinate"), "times": ("step",)},
    "MeasuredAutocorrelation": {
        "value": ("lag", "formula"),
        "stderr": ("lag", "formula"),
        "integrated_time": ("formula",),
    },
}


class Part(NamedTuple):
    """One array of an estimate; the suffix of its name is "" for the main one."""

    suffix: str
    dims: tuple[str, ...]
    values: Any
    meaning: str
    coordinates: Mapping[str, np.ndarray]
    attributes: Mapping[str, Any]


def optional(name: str):
    """An optional package, or UnavailableError that says how to install it."""
    try:
        return __import__(name)
    except ImportError:
        raise UnavailableError(
            f"{name} is needed to label, save or load results and is not installed: "
            "pip install langevin[data]"
        ) from None


def dataset(result):
    """Everything measured, as an xarray.Dataset that shares no memory with the result.

    ``positions`` and ``velocities`` (replica, coordinate), ``diverged`` (replica), and every
    observer's estimate under its name: a density over its coordinates, ``occupation`` (minimum),
    ``moments_mean`` (coordinate), ``moments_covariance`` (coordinate, coordinate_2), each with a
    variable ``..._stderr``. Groups add the axis ``group``. An occupation whose replicas remember
    their start has the attribute ``equilibrated`` 0; a doubtful estimate leaves the attribute
    ``<name>_warning``, an observer without an estimate ``<name>_error``. Attributes of the dataset
    tell versions, machine, seed, surface and dynamics. Raises UnavailableError without xarray.
    """
    xarray = optional("xarray")
    n, names = result.n_replicas, list(result.surface.variables)
    replicas = np.arange(result.first_replica, result.first_replica + n)
    coordinates = {"replica": replicas, "coordinate": np.array(names)}
    taken = {key.casefold() for key in (*RESERVED, *AXES)}
    axes = _Axes(coordinates, taken)
    variables: dict[str, tuple] = {}
    notes: dict[str, str] = {}

    def add(name: str, dims, values, meaning: str, units: str = "1", more=()) -> None:
        name = _free(name, taken)
        taken.add(name.casefold())
        attributes = {"long_name": meaning, "units": units, **dict(more)}
        variables[name] = (dims, np.array(values), attributes)

    after = f"after {result.steps_done} steps"
    add("positions", ("replica", "coordinate"), result.positions, f"position {after}")
    if result.velocities is not None:
        both = ("replica", "coordinate")
        add("velocities", both, result.velocities, f"velocity or momentum buffer {after}")
    meaning = "step by which the replica had escaped, or -1"
    add("diverged", ("replica",), result.diverged, meaning, "step")
    described, per_replica = _dynamics(result.dynamics, n)
    for field, values in per_replica.items():
        add(field, ("replica",), values, f"{field} of the dynamics")
    for name, labels in result.groups.items():
        add(f"{_plain(name)}_group", ("replica",), labels, f"group of the replica in {name!r}")
    for name, estimate in result.observed.items():
        if isinstance(estimate, LangevinError):
            notes[f"{_plain(name)}_error"] = str(estimate)
            continue
        plain = _plain(name)
        with warnings.catch_warnings(record=True) as doubts:
            warnings.simplefilter("always", ConvergenceWarning)
            parts = _parts(estimate, result)
        if doubts:  # kept with the numbers, instead of printed while they are copied
            notes[f"{plain}_warning"] = str(doubts[0].message)
        for part in parts:
            dims = tuple(
                axes.name(d, part.coordinates.get(d), plain, size)
                for d, size in zip(part.dims, np.shape(part.values), strict=True)
            )
            extra = {"observer": name, **part.attributes}
            add(plain + part.suffix, dims, part.values, part.meaning, more=extra)
    coordinates = {k: (k, v, _coordinate_attributes(k)) for k, v in coordinates.items()}
    attributes = {**_attributes(result, described), **notes}
    return xarray.Dataset(variables, coordinates, attributes)


def _plain(name: str) -> str:
    """A name for a variable that is also a safe name for a folder."""
    return re.sub(r"[^\w\-+() ]", "_", name)[:LONGEST].strip(" _") or "observer"


def _free(name: str, taken: set[str]) -> str:
    """The name, with a number if it is taken."""
    count, free = 1, name
    while free.casefold() in taken:
        count += 1
        free = f"{name}_{count}"
    return free


class _Axes:
    """The coordinates of the dataset; an axis with other values than one met before gets its own.

    ``families`` tells for each coordinate which axis of an estimate it stands for.
    """

    def __init__(self, coordinates: dict[str, np.ndarray], taken: set[str]):
        self.coordinates, self.taken = coordinates, taken
        self.families = {key: key for key in coordinates}

    def name(self, dim: str, values: np.ndarray | None, observer: str, size: int) -> str:
        """The dataset's name for an axis of an observer's estimate."""
        if values is None and dim in SQUARE:
            values = np.arange(size)
        if values is None and dim == "coordinate_2":
            values = self.coordinates["coordinate"]
        if values is None:
            shared = dim in self.families and len(self.coordinates[dim]) == size
            return dim if shared else f"{observer}_{dim}"
        for key, family in self.families.items():
            if family == dim and np.array_equal(self.coordinates[key], values):
                return key
        free = dim.casefold() not in self.taken or (dim in AXES and dim not in self.families)
        key = dim if free else _free(f"{observer}_{dim}", self.taken)
        self.taken.add(key.casefold())
        self.families[key], self.coordinates[key] = dim, values
        return key


def _coordinate_attributes(name: str) -> dict[str, str]:
    meanings = {
        "replica": "number of the replica",
        "coordinate": "coordinate of the surface",
        "minimum": "index into surface.minima()",
        "group": "label given to the observer",
        "step": "step of the run",
    }
    return {"long_name": meanings.get(name, name), "units": "1"}


def _parts(estimate: Any, result) -> list[Part]:
    """The arrays of one estimate, or of several stacked along group or step."""
    if isinstance(estimate, MeasuredOccupation):
        return _occupation(estimate, result)
    if isinstance(estimate, PerGroup):
        return _stacked(estimate._estimates, "group", range(len(estimate)), result)
    several = getattr(estimate, "estimates", None)
    if isinstance(estimate, Sequence) and isinstance(several, (tuple, list)):
        steps = getattr(estimate, "steps", None)
        if steps is not None:
            return _stacked(list(several), "step", steps, result)
        texts = np.array([str(getattr(e, "formula", k)) for k, e in enumerate(several)])
        return _stacked(list(several), "formula", texts, result)
    if isinstance(estimate, Density):
        return _density(estimate, result)
    if isinstance(estimate, Moments):
        mean, square = ("coordinate",), ("coordinate", "coordinate_2")
        count = {"n_observations": estimate.n_observations, "dof": estimate.dof}
        return [
            Part("_mean", mean, estimate.mean, "mean", {}, count),
            Part("_mean_stderr", mean, estimate.mean_stderr, "its standard error", {}, {}),
            Part("_covariance", square, estimate.covariance, "covariance", {}, count),
            Part("_covariance_stderr", square, estimate.covariance_stderr, ERROR, {}, {}),
        ]
    return _dataclass(estimate) if dataclasses.is_dataclass(estimate) else []


ERROR = "its standard error"


def _density(density: Density, result) -> list[Part]:
    names = [str(result.surface.variables[a]) for a in density.axes]
    names = [f"{name}_value" if name in AXES else name for name in names]
    grids = density.grid if isinstance(density.grid, tuple) else (density.grid,)
    dims, centres = tuple(names), dict(zip(names, grids, strict=True))
    count = {"n_observations": density.n_observations, "dof": density.dof}
    return [
        Part("", dims, density.value, "probability density", centres, count),
        Part("_stderr", dims, density.stderr, ERROR, centres, {}),
        Part("_outside", (), density.outside, "fraction of observations out of range", {}, {}),
    ]


def _occupation(occupation: MeasuredOccupation, result) -> list[Part]:
    if occupation.index is None and occupation.n_groups > 1:
        one = [MeasuredOccupation(occupation.counts, k) for k in range(occupation.n_groups)]
        return _stacked(one, "group", range(occupation.n_groups), result)
    state: dict[str, Any] = {"equilibrated": 1, "n_observations": occupation.n_observations}
    try:
        occupation.checked()
    except UnsoundError as error:
        state |= {"equilibrated": 0, "warning": str(error)}
    dims = ("minimum",)
    return [
        Part("", dims, occupation.probability, "fraction of time in its basin", {}, state),
        Part("_stderr", dims, occupation.stderr, ERROR, {}, {}),
        Part("_unassigned", (), occupation.unassigned, "fraction in no known basin", {}, {}),
    ]


def _dataclass(estimate: Any) -> list[Part]:
    """Any other estimate, by ``dims`` or by field; text goes to attributes."""
    dims = getattr(estimate, "dims", DIMS.get(type(estimate).__name__))
    fields = [f.name for f in dataclasses.fields(estimate)]
    texts = {k: v for k in fields if isinstance(v := getattr(estimate, k), str)}
    texts |= {"units": texts.pop("unit")} if "unit" in texts else {}
    if {"value", "dof"} <= set(fields):
        fields.remove("dof")
        texts["dof"] = estimate.dof
    parts: list[Part] = []
    for key in fields if dims is None else dims:
        try:
            value = getattr(estimate, key)
        except LangevinError as error:  # such as a mean of passage times where nothing passed
            texts[f"{key}_error"] = str(error)
            continue
        names = () if dims is None else dims[key]
        suffix = "" if key == "value" else f"_{key}"
        if hasattr(value, "stderr"):
            for end, array in (("", value.value), ("_stderr", value.stderr)):
                more = texts | ({"dof": value.dof} if not end and hasattr(value, "dof") else {})
                meaning = ERROR if end else key.replace("_", " ")
                parts.append(_part(estimate, suffix + end, names, array, meaning, more))
        elif _numeric(value):
            meaning = ERROR if key == "stderr" else key.replace("_", " ")
            parts.append(_part(estimate, suffix, names, value, meaning, texts))
    return parts


def _part(estimate: Any, suffix: str, names, value: Any, meaning: str, texts) -> Part:
    """A part whose axes have the attribute of their name, or its plural, for coordinate."""
    value = np.asarray(value)
    names = tuple(names[: value.ndim])
    names += tuple(f"{suffix.strip('_')}_{k}" for k in range(len(names), value.ndim))
    axes = {}
    for name, size in zip(names, value.shape, strict=True):
        own = getattr(estimate, name, getattr(estimate, f"{name}s", None))
        if own is not None and np.shape(own) == (size,):
            axes[name] = np.asarray(own)
    return Part(suffix, names, value, meaning, axes, texts)


def _numeric(value: Any) -> bool:
    return isinstance(value, (np.ndarray, np.generic, int, float)) and (
        np.asarray(value).dtype.kind in "biufc"
    )


def _stacked(estimates: list, dim: str, labels, result) -> list[Part]:
    """Parts stacked along a first axis; those of an error are NaN."""
    each = [None if isinstance(e, LangevinError) else _parts(e, result) for e in estimates]
    first = next((parts for parts in each if parts is not None), [])
    if len({tuple(np.shape(p.values) for p in parts) for parts in each if parts is not None}) > 1:
        return [
            part._replace(
                suffix=f"{part.suffix}_{dim}{label}",
                dims=tuple(f"{d}_{dim}{label}" for d in part.dims),
                coordinates={},
            )
            for label, parts in zip(labels, each, strict=True)
            for part in parts or ()
        ]
    along = {dim: np.array(labels)}
    stacked = []
    for k, part in enumerate(first):
        rows = [
            np.full(np.shape(part.values), np.nan) if parts is None else parts[k].values
            for parts in each
        ]
        attributes = {
            key: [None if parts is None else parts[k].attributes.get(key) for parts in each]
            for key in part.attributes
        }
        attributes = {k: ["" if v is None else v for v in vs] for k, vs in attributes.items()}
        coordinates = {**along, **part.coordinates}
        stacked.append(
            Part(part.suffix, (dim, *part.dims), rows, part.meaning, coordinates, attributes)
        )
    return stacked


def _dynamics(dynamics: Any, n_replicas: int) -> tuple[str, dict[str, np.ndarray]]:
    """The dynamics' fields as JSON, and those with one value per replica."""
    plain, per_replica = {}, {}
    for field in dataclasses.fields(dynamics):
        value = getattr(dynamics, field.name)
        if isinstance(value, np.ndarray) and value.shape == (n_replicas,):
            per_replica[field.name] = value
            value = "one per replica"
        plain[field.name] = value
    text = json.dumps({"class": type(dynamics).__name__, **plain}, default=_jsonable)
    return text, per_replica


def _jsonable(value: Any) -> Any:
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    if dataclasses.is_dataclass(value):
        return {"class": type(value).__name__, **dataclasses.asdict(value)}
    return repr(value)


def _attributes(result, dynamics: str) -> dict[str, Any]:
    surface = result.surface
    with np.printoptions(threshold=20):
        dynamics_shown, noise_shown = repr(result.dynamics), repr(surface.noise)
    return {
        "title": f"langevin run: {result.n_replicas} replicas x {result.steps_done} steps",
        "surface": surface.name,
        "formula": surface.formula,
        "parameters": json.dumps(dict(surface.parameters)),
        "noise": noise_shown,
        "dynamics": dynamics_shown,
        "dynamics_fields": dynamics,
        "seed": result.seed,
        "first_replica": result.first_replica,
        "dtype": result.dtype,
        "n_steps": result.n_steps,
        "steps_done": result.steps_done,
        "burn_in": result.burn_in,
        "resumed_at": result.resumed_at,
        "elapsed": result.elapsed,
        **result.provenance,
    }
