"""Experiment files: ``langevin run experiment.toml`` reads one, runs it and reports."""

from __future__ import annotations

import datetime
import math
import platform
import shutil
import time
import warnings
from pathlib import Path
from typing import Any

from rich.console import Console

import langevin as lv
from langevin.engines import compiling
from langevin.errors import (
    DivergenceError,
    ExperimentError,
    FormulaError,
    LangevinError,
    ParameterError,
    UnsoundError,
)
from langevin.experiments import kinds, measures, report, schema, store
from langevin.experiments.document import read, shown
from langevin.experiments.fields import located, mentioned
from langevin.experiments.schema import Experiment, Point
from langevin.result import Result

QUICK = 0.01  # of the work, in a trial


def run(
    path: str | Path,
    *,
    output: str | Path | None = None,
    dry_run: bool = False,
    scale: float = 1.0,
    overwrite: bool = False,
    console: Console | None = None,
) -> dict[str, Any]:
    """Runs the experiment that the file at ``path`` describes and returns its record.

    Every point of the sweep is simulated, predicted and compared; its record, result and figures
    go to a folder of its own under ``output`` (what the file says, if None), and ``results.json``
    and ``table.txt`` hold them all. Points that are there already are read back, so running the
    same file again goes on where it ended. ``overwrite`` replaces results of a file that said
    something else. ``scale`` below 1 is a trial with so many times the work, in a folder of its
    own. ``dry_run`` only checks the file and shows what it means.

    Raises ExperimentError naming file, line and field for anything that cannot be run.
    """
    console = console or Console()
    if not (isinstance(scale, (int, float)) and 0 < scale <= 1):
        raise ParameterError(f"scale={scale!r}: needs a number above 0 and at most 1.")
    experiment = schema.experiment(read(path), scale=float(scale))
    folder = experiment.folder if output is None else Path(output)
    if scale < 1 and output is None:
        folder = folder.with_name(f"{folder.name}-trial")
    if dry_run:
        _show(experiment, folder, console)
        return {"experiment": experiment.digest, "points": [p.resolved for p in experiment.points]}
    store.prepare(experiment, folder, overwrite=overwrite)
    try:
        copy = folder / experiment.document.file
        if not (copy.exists() and copy.samefile(path)):
            store.write(copy, experiment.document.text)
        return _Run(experiment, folder, scale, console).all()
    except OSError as error:  # a full disk, a folder that vanished
        raise experiment.document.refusal(
            ("output", "folder"),
            f"{folder} can no longer be written ({error.strerror or error}). What was finished is "
            "in it; make room and run the same file again.",
        ) from error


class _Run:
    """The points of an experiment one after another, and the record that grows from them."""

    def __init__(self, experiment: Experiment, folder: Path, scale: float, console: Console):
        self.experiment, self.folder, self.console = experiment, folder, console
        self.records: list[dict[str, Any]] = []
        self.refusals: dict[int, LangevinError] = {}
        self.head = {
            "langevin": lv.__version__,
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "python": platform.python_version(),
            "file": experiment.document.file,
            "title": experiment.title,
            "experiment": experiment.digest,
            "scale": scale,
            "swept": list(experiment.swept),
        }

    def all(self) -> dict[str, Any]:
        """Runs every point; whatever happens, what was computed is written."""
        self.write(interrupted=True)
        interrupted = False
        try:
            for k, point in enumerate(self.experiment.points):
                interrupted = self.one(k, point)
                if interrupted:
                    break
        except KeyboardInterrupt:
            interrupted = True
        if len(self.refusals) == len(self.experiment.points):
            raise next(iter(self.refusals.values()))
        record = self.write(interrupted=interrupted)
        if self.experiment.figures and not interrupted:
            names = report.sweep_figures(self.experiment, self.records, self.folder)
            record["figures"] = names
            store.write_json(self.folder / store.RECORD, record)
        self.tell(record)
        return record

    def one(self, k: int, point: Point) -> bool:
        """Runs a point, or reads it back; whether it was interrupted."""
        folder = store.point_folder(self.folder, k)
        name = ", ".join(f"{field} = {report.number(v)}" for field, v in point.values.items())
        label = f"{k + 1}/{len(self.experiment.points)} {name}".rstrip()
        record = store.finished(folder, point)
        if record is not None:
            self.records.append(record)
            self.console.print(f"{label}: read back", highlight=False, markup=False)
            return False
        try:
            record = _measured(point, folder, figures=self.experiment.figures)
        except LangevinError as error:
            cause = error.__cause__ or error
            if isinstance(cause, (ParameterError, FormulaError, UnsoundError, DivergenceError)):
                shutil.rmtree(folder / "checkpoint", ignore_errors=True)  # it would end there again
            if k == 0 and isinstance(cause, (ParameterError, FormulaError)):
                raise
            self.refusals[k] = error
            self.console.print(f"{label}: refused. {error}", style="yellow", markup=False)
            return False
        self.records.append(record)
        store.write_json(folder / store.POINT, record)
        self.write(interrupted=True)
        how = f"{label}: {record['seconds']:.1f} s"
        how += f", from step {record['resumed_at']:,}" if record["resumed_at"] else ""
        how += f", cut at step {record['steps_done']:,}" if record["interrupted"] else ""
        self.console.print(how, highlight=False, markup=False)
        for message in dict.fromkeys((*record["warnings"], *record["refused"].values())):
            self.console.print(f"  {message}", style="yellow", markup=False, highlight=False)
        return record["interrupted"]

    def write(self, *, interrupted: bool) -> dict[str, Any]:
        """Writes results.json and table.txt for what there is so far."""
        points = self.experiment.points
        record = {
            **self.head,
            "interrupted": interrupted,
            "points": self.records,
            "refused": [
                {"values": points[k].values, "why": str(error)}
                for k, error in self.refusals.items()
            ],
        }
        store.write_json(self.folder / store.RECORD, record)
        text = report.plain_table(self.experiment, self.records)
        store.write(self.folder / store.TABLE, text)
        return record

    def tell(self, record: dict[str, Any]) -> None:
        """The table on the terminal, where the rest is, and how to go on after an interruption."""
        if self.records:
            self.console.print(report.table(self.experiment, self.records))
        self.console.print(f"Written to {self.folder}", highlight=False, markup=False)
        if record["interrupted"]:
            done = len(self.records) + len(self.refusals)
            self.console.print(
                f"Interrupted: {done} of {len(self.experiment.points)} points have results. To go "
                f"on, run the same file again: langevin run {self.experiment.document.file}",
                style="yellow",
                markup=False,
                highlight=False,
            )


def _measured(point: Point, folder: Path, *, figures: bool) -> dict[str, Any]:
    """Predicts, simulates and compares one point: its record. Predictions first: they are quick."""
    began = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        laws, refused = measures.laws(point)
        folder.mkdir(parents=True, exist_ok=True)
        result = _simulated(point, folder)
        estimates, unread = measures.estimates(result)
        compared, uncompared = measures.comparisons(point, result, laws)
        unsaved = [] if result.interrupted else _keep(result, folder)
    written = report.point_figures(point, result, laws, folder) if figures else []
    return {
        "digest": point.digest,
        "values": point.values,
        "resolved": point.resolved,
        "seconds": round(time.perf_counter() - began, 3),
        "simulation_seconds": round(result.elapsed, 3),
        "steps_done": result.steps_done,
        "resumed_at": result.resumed_at,
        "interrupted": result.interrupted,
        "escaped": int((result.diverged >= 0).sum()),
        "estimates": {
            name: {"value": e.value, "stderr": e.stderr, "dof": e.dof}
            for name, e in estimates.items()
        },
        "predictions": {label: measures.predicted(law) for label, law in laws.items()},
        "regimes": {label: getattr(law, "regime", "") for label, law in laws.items()},
        "comparisons": compared,
        "refused": {**unread, **refused, **uncompared},
        "warnings": list(dict.fromkeys([*(str(w.message) for w in caught), *unsaved])),
        "figures": written,
    }


def _simulated(point: Point, folder: Path) -> Result:
    """simulate() with all that the point says. Raises ExperimentError naming the field."""
    keeping = {}
    if point.checkpoint is not False:
        keeping["checkpoint"] = folder / "checkpoint"
        if not isinstance(point.checkpoint, bool):
            keeping["checkpoint_every"] = point.checkpoint
    try:
        with compiling.threads(point.threads):
            return lv.simulate(
                point.surface, point.dynamics, observe=point.observers, **point.run, **keeping
            )
    except LangevinError as error:
        raise _placed(point, error) from error
    except MemoryError as error:
        raise point.document.refusal(
            ("run", "n_replicas"), f"not enough memory ({error}). Give fewer replicas or bins."
        ) from error


def _placed(point: Point, error: LangevinError) -> ExperimentError:
    """An error of simulate() at the observer, or the field, that it names first."""
    message, document = str(error), point.document
    for k, observer in enumerate(point.observers):
        if message.startswith(f"{observer.name}:"):
            return located(document, ("observe", k), error, kinds.options(type(observer)))
    places: dict[str, tuple] = {"surface": ("surface",)}
    for name in ("noise", "formula", "name", "data"):
        places[name] = ("surface", name)
    places.update({name: ("run", name) for name in kinds.run_options()})
    fields = kinds.options(type(point.dynamics))
    places.update({name: ("dynamics", name) for name in fields})
    for k, table in enumerate(document.values.get("observe", [])):
        for name in table:
            places.setdefault(name, ("observe", k, name))
    if isinstance(error, DivergenceError):  # its message shows the whole dynamics first
        places = {name: places[name] for name in ("learning_rate", "dt") if name in fields}
    name = mentioned(message, places)
    return document.refusal(("run",) if name is None else places[name], message)


def _keep(result: Result, folder: Path) -> list[str]:
    """Saves the whole result where that can be done, else says why; the checkpoint may go then."""
    shutil.rmtree(folder / "result.zarr", ignore_errors=True)
    try:
        result.save(folder / "result.zarr")
    except LangevinError as error:  # no xarray, a full disk: the numbers are kept all the same
        return [f"the whole result is not saved: {error}"]
    shutil.rmtree(folder / "checkpoint", ignore_errors=True)
    return []


def _show(experiment: Experiment, folder: Path, console: Console) -> None:
    """What the file means, with every default filled in."""
    first = experiment.points[0]
    lines = [f"{experiment.document.file} is sound: {len(experiment.points)} point(s)."]
    for section, values in first.resolved.items():
        for table in values if isinstance(values, list) else [values]:
            lines.append(f"[[{section}]]" if isinstance(values, list) else f"[{section}]")
            lines += [f"  {name} = {_written(value)}" for name, value in table.items()]
    if experiment.swept:
        lines.append("[sweep]")
        for name in experiment.swept:
            values = dict.fromkeys(point.values[name] for point in experiment.points)
            lines.append(f"  {name} = {_written([*values])}")
    work = math.fsum(p.run["n_replicas"] * p.run["n_steps"] for p in experiment.points)
    lines.append(f"{work:.3g} replica-steps in all. Results would go to {folder}")
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _written(value: Any) -> str:
    return "(not given)" if value is None else shown(value)
