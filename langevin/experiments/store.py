"""The folder an experiment writes: what is finished in it, what may be written over."""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from langevin.errors import ExperimentError
from langevin.experiments.document import shown
from langevin.experiments.schema import Experiment, Point

RECORD, POINT, TABLE = "results.json", "point.json", "table.txt"


def finite(value: Any) -> Any:
    """The value with NaN and infinity as null, which JSON has no words for."""
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Writes plain values as JSON, atomically."""
    write(path, json.dumps(finite(value), indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """The values of a JSON file, or None where there is no sound one."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def point_folder(folder: Path, index: int) -> Path:
    """Where the point of that number, from 0, keeps its files."""
    return folder / f"point-{index:04d}"


def prepare(experiment: Experiment, folder: Path, *, overwrite: bool) -> None:
    """Makes the folder, or checks that it is this experiment's. Raises ExperimentError."""
    where = ("output", "folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        holds = sorted(p.name for p in folder.iterdir())
        before = read_json(folder / RECORD)
        ours = isinstance(before, dict) and "experiment" in before
        changed = ours and before["experiment"] != experiment.digest and _worth(folder, before)
        if not ours and RECORD in holds and not overwrite:
            raise experiment.document.refusal(
                where,
                f"{folder / RECORD} is damaged, or no record of an experiment. Give another "
                "folder, or --overwrite to replace it.",
            )
        if holds and not ours and RECORD not in holds:
            raise experiment.document.refusal(
                where,
                f"{folder} holds other things already, such as {shown(holds[0])}. Give the name of "
                "a new folder, or of an empty one.",
            )
        if changed and not overwrite:
            raise experiment.document.refusal(
                where,
                f"{folder} holds results of an experiment that was described otherwise. Give "
                "another folder, or --overwrite to replace them.",
            )
        if overwrite:
            for old in folder.glob("point-[0-9]*"):
                shutil.rmtree(old)
        handle, probe = tempfile.mkstemp(dir=folder, suffix=".tmp")
        os.close(handle)
        os.unlink(probe)
    except (OSError, ValueError) as error:
        if isinstance(error, ExperimentError):
            raise
        why = getattr(error, "strerror", None) or error
        raise experiment.document.refusal(
            where,
            f"{shown(str(folder))} cannot be written ({why}). Give another folder here, or with "
            "--output.",
        ) from None


def _worth(folder: Path, before: dict[str, Any]) -> bool:
    """Whether a folder holds anything that took time: a record of a refusal alone does not."""
    return bool(before.get("points")) or any(folder.glob("point-*/checkpoint*"))


def finished(folder: Path, point: Point) -> dict[str, Any] | None:
    """The record of a point that ran to its end, or None."""
    found = read_json(folder / POINT)
    same = isinstance(found, dict) and found.get("digest") == point.digest
    return found if same and not found.get("interrupted", True) else None
