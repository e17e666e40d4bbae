"""What an experiment file may say: each section checked, and what it describes built."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from langevin import devices
from langevin.errors import ParameterError
from langevin.experiments import kinds
from langevin.experiments.document import Document, nearest, shown
from langevin.experiments.fields import (
    bound,
    built,
    check_keys,
    choice,
    coerced,
    is_number,
    text,
    truth,
    whole,
)
from langevin.experiments.fields import kind as kind_of
from langevin.experiments.surface import surface
from langevin.experiments.sweep import points

SECTIONS = ("title", "surface", "dynamics", "run", "observe", "predict", "sweep", "output")
FEWEST = 256  # replicas that a trial keeps, so that its standard errors still mean something


@dataclass(frozen=True)
class Prediction:
    """One [[predict]]: how to make it, and whether and how to compare with it."""

    index: int
    label: str
    function: Callable[..., Any]
    arguments: dict[str, Any]
    compare: bool
    options: dict[str, Any]


@dataclass(frozen=True)
class Point:
    """One run of the experiment, with all that it needs and a digest that identifies it."""

    document: Document
    values: dict[str, float]
    surface: Any
    dynamics: Any
    run: dict[str, Any]
    observers: tuple[Any, ...]
    predictions: tuple[Prediction, ...]
    threads: int | None
    checkpoint: float | bool
    resolved: dict[str, Any] = field(repr=False)

    @property
    def digest(self) -> str:
        """Identifies what the point computes; threads and checkpoints change nothing of that."""
        return digest(self.resolved)


@dataclass(frozen=True)
class Experiment:
    """A whole file: its points, and where their results go."""

    document: Document
    title: str
    swept: tuple[str, ...]
    points: tuple[Point, ...]
    folder: Path
    figures: bool

    @property
    def digest(self) -> str:
        """Identifies all that the file computes."""
        return digest([point.resolved for point in self.points])


def digest(value: Any) -> str:
    """A short SHA-256 of plain values."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:24]


def experiment(document: Document, *, scale: float = 1.0) -> Experiment:
    """All that the document describes. Raises ExperimentError naming file, line and field.

    ``scale`` below 1 makes a trial: so many times the work, by fewer replicas and, where those
    are few already, fewer steps.
    """
    values = document.values
    for key, value in values.items():
        if key not in SECTIONS:
            raise document.refusal((key,), f"unknown section; {nearest(key, SECTIONS)}")
        several = key in ("observe", "predict")
        if key == "title":
            text(document, (key,), value, "Escape over a barrier")
        elif several and not (isinstance(value, list) and all(isinstance(v, dict) for v in value)):
            raise document.refusal((key,), f"{shown(value)} given; write it as [[{key}]].")
        elif not several and not isinstance(value, dict):
            raise document.refusal((key,), f"{shown(value)} given; write it as [{key}].")
    for key in ("surface", "dynamics", "run"):
        if key not in values:
            raise document.missing((key,), f"every experiment has a section [{key}].")
    found = points(document)
    folder, figures = _output(document)
    shared: dict[str, Any] = {}
    made = tuple(_point(swept, at, scale, shared) for swept, at in found)
    return Experiment(document, values.get("title", ""), tuple(found[0][0]), made, folder, figures)


def _point(values: dict[str, float], document: Document, scale: float, shared: dict) -> Point:
    key = json.dumps(document.values["surface"], sort_keys=True)
    if key not in shared:  # one object, so that its minima are searched for once
        shared[key] = surface(document)
    ground, described = shared[key]
    dynamics, dynamics_values = _dynamics(document)
    run = _run(document)
    threads, checkpoint = run.pop("threads"), run.pop("checkpoint")
    if scale < 1:
        every = _shrink(run, scale)
    observers, observed = _observers(document, every if scale < 1 else 1.0)
    _check_memory(document, ground, run)
    predictions, predicted = _predictions(document)
    resolved = plain(
        {
            "surface": described,
            "dynamics": dynamics_values,
            "run": run,
            "observe": observed,
            "predict": predicted,
        }
    )
    return Point(
        document,
        values,
        ground,
        dynamics,
        run,
        observers,
        predictions,
        threads,
        checkpoint,
        resolved,
    )


def plain(value: Any) -> Any:
    """Numbers, text, lists and tables only, as JSON has them."""
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if is_dataclass(value) or not isinstance(value, (str, int, float, bool, type(None))):
        return repr(value)
    return value


def _dynamics(document: Document) -> tuple[Any, dict[str, Any]]:
    here, table, known = ("dynamics",), document.values["dynamics"], kinds.dynamics()
    kind = kind_of(document, here, table, known)
    given = _schedules(document, here, table, known[kind])
    values = bound(document, here, table, known[kind], extra=("kind",), given=given)
    described = {"kind": kind, **values, **{name: table[name] for name in given}}
    return built(document, here, known[kind], values), described


def _schedules(document: Document, path: tuple, table: dict, owner: type) -> dict[str, Any]:
    """The fields of ``owner`` that are given as schedules."""
    return {
        name: _schedule(document, (*path, name), value)
        for name, value in table.items()
        if isinstance(value, dict)
        and {"schedule", "kind"} & set(value)
        and name in kinds.options(owner)
    }


def _schedule(document: Document, path: tuple, table: dict[str, Any]) -> Any:
    """``{kind = "cosine", ...}`` as ``langevin.schedules.Cosine(...)``, and within it again.

    ``schedule = "cosine"`` is read too: it says what the table is.
    """
    known = kinds.schedules()
    key = "schedule" if "schedule" in table else "kind"
    name = choice(document, (*path, key), table[key], known)
    given = _schedules(document, path, table, known[name])
    values = bound(document, path, table, known[name], extra=(key,), given=given)
    return built(document, path, known[name], values)


def _run(document: Document) -> dict[str, Any]:
    here, table, known = ("run",), document.values["run"], kinds.run_options()
    check_keys(document, here, table, known)
    for name, example in (("n_replicas", 10_000), ("n_steps", 5_000)):
        if name not in table:
            raise document.missing((*here, name), f"for example {name} = {example}.")
    run = {
        name: coerced(document, (*here, name), option, table[name]) if name in table else None
        for name, option in known.items()
        if name not in ("checkpoint", "start")
    }
    run = {k: known[k].default if v is None else v for k, v in run.items()}
    run["n_replicas"] = whole(
        document, (*here, "n_replicas"), run["n_replicas"], 1, 2**32 - 1, 10_000
    )
    run["n_steps"] = whole(document, (*here, "n_steps"), run["n_steps"], 1, 2**33 - 1, 5_000)
    least = run["n_steps"] - 1
    run["burn_in"] = whole(document, (*here, "burn_in"), run["burn_in"], 0, least, least // 5)
    run["seed"] = whole(document, (*here, "seed"), run["seed"], 0, 2**64 - 1, 2017)
    choice(document, (*here, "dtype"), run["dtype"], ("float64", "float32"))
    try:
        devices.check(run["device"])
    except ParameterError as error:
        raise document.refusal((*here, "device"), str(error).partition(": ")[2]) from None
    choice(document, (*here, "on_divergence"), run["on_divergence"], ("stop", "absorb"))
    if run["threads"] is not None:
        cores = os.cpu_count() or 1
        run["threads"] = whole(document, (*here, "threads"), run["threads"], 1, cores, 1)
    run["checkpoint"] = _checkpoint(document, (*here, "checkpoint"), table.get("checkpoint", True))
    run["start"] = _start(document, (*here, "start"), table.get("start"))
    return run


def _checkpoint(document: Document, path: tuple, value: Any) -> float | bool:
    if isinstance(value, bool) or (is_number(value) and value > 0):
        return value
    raise document.refusal(
        path, f"{shown(value)} given; true, false or seconds between two are needed, as in 60."
    )


def _start(document: Document, path: tuple, value: Any) -> Any:
    """A point as a list of numbers, or a list of such points, one for each replica."""
    given = value if isinstance(value, list) else [value]
    point = bool(given) and all(map(is_number, given))
    rows = all(isinstance(v, list) and v and all(map(is_number, v)) for v in given)
    if value is None or point or (given and rows):
        return value
    raise document.refusal(
        path, f"{shown(value)} given; a point is needed, for example [-1.0, 0.0]. Without it the "
        "replicas start at the minima in turn."
    )  # fmt: skip


def _shrink(run: dict[str, Any], scale: float) -> float:
    """Reduces replicas, then steps, to ``scale`` of the work; by how much the steps shrank."""
    work = run["n_replicas"] * scale
    fewer = min(run["n_replicas"], max(FEWEST, round(work)))
    if isinstance(run["start"], list) and isinstance(run["start"][0], list):
        run["start"] = run["start"][:fewer]
    run["n_replicas"] = fewer
    factor = min(1.0, work / fewer)
    n_steps = max(run["n_steps"] - run["burn_in"], 2)
    run["burn_in"] = int(run["burn_in"] * factor)
    run["n_steps"] = run["burn_in"] + max(2, int(n_steps * factor))
    return factor


def _observers(document: Document, factor: float) -> tuple[tuple[Any, ...], list[dict[str, Any]]]:
    known, made, described = kinds.observers(), [], []
    for k, table in enumerate(document.values.get("observe", [])):
        here = ("observe", k)
        kind = kind_of(document, here, table, known)
        values = bound(document, here, table, known[kind], skip=("groups",), extra=("kind",))
        if factor < 1:
            values = _sooner(values, factor)
        observer = built(document, here, known[kind], values)
        if not observer.name.strip():
            raise document.refusal((*here, "name"), "is empty; give it a name, or leave it out.")
        if any(observer.name == other.name for other in made):
            raise document.refusal(
                (*here, "name"),
                f"a second observer called {shown(observer.name)}; give this one another name.",
            )
        made.append(observer)
        described.append({"kind": kind, **values})
    return tuple(made), described


def _sooner(values: dict[str, Any], factor: float) -> dict[str, Any]:
    """An observer's ``every`` and ``at`` for a run of ``factor`` times the steps."""
    values = dict(values)
    if isinstance(values.get("every"), int):
        values["every"] = max(1, int(values["every"] * factor))
    if isinstance(values.get("at"), list):
        values["at"] = sorted({max(1, int(step * factor)) for step in values["at"]})
    return values


def _check_memory(document: Document, ground: Any, run: dict[str, Any]) -> None:
    """Refuses more replicas than the machine could hold the state of."""
    needed = run["n_replicas"] * ground.dim * (8 if run["dtype"] == "float64" else 4) * 3
    try:
        have = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return
    if needed > have:
        raise document.refusal(
            ("run", "n_replicas"),
            f"{run['n_replicas']} given; in {ground.dim} dimensions they need about "
            f"{needed / 2**30:.0f} GiB and this machine has {have / 2**30:.0f}. Give fewer.",
        )


def _predictions(document: Document) -> tuple[tuple[Prediction, ...], list[dict[str, Any]]]:
    known, made, described = kinds.predictions(), [], []
    comparing = kinds.compare_options()
    for k, table in enumerate(document.values.get("predict", [])):
        here = ("predict", k)
        kind = kind_of(document, here, table, known)
        label = text(document, (*here, "name"), table.get("name", kind), kind)
        if any(label == other.label for other in made):
            raise document.refusal(
                (*here, "name"), f"a second prediction called {shown(label)}; name this one."
            )
        compare = truth(document, (*here, "compare"), table.get("compare", True))
        extra = ("kind", "name", "compare", *comparing)
        skip = ("surface", "dynamics")
        values = bound(document, here, table, known[kind], skip=skip, extra=extra)
        options = {
            name: coerced(document, (*here, name), option, table[name])
            for name, option in comparing.items()
            if name in table and name not in values
        }
        made.append(Prediction(k, label, known[kind], values, compare, options))
        described.append({"kind": kind, "compare": compare, **values, **options})
    return tuple(made), described


def _output(document: Document) -> tuple[Path, bool]:
    here, table = ("output",), document.values.get("output", {})
    check_keys(document, here, table, ("folder", "figures"))
    stem = Path(document.file).stem
    name = text(document, (*here, "folder"), table.get("folder", f"{stem}-results"), "results")
    if not name.strip() or "\0" in name or len(name) > 1000:
        raise document.refusal(
            (*here, "folder"), f"{shown(name)} given; the name of a folder is needed."
        )
    return document.folder / name, truth(document, (*here, "figures"), table.get("figures", True))
