"""Checkpoints: a run that is stopped at any moment goes on later as if it had never stopped.

One file, ``checkpoint.npz``: a NumPy archive of the arrays that change during a run and of a
description in JSON, followed by the SHA-256 of all that. It is written beside, flushed to the disk
and renamed, so that the file is at every moment a whole one, the new or the old. Random numbers
need no saving: they depend on seed, replica and step. Nothing is ever pickled.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import re
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from langevin import information
from langevin.checks import real_number
from langevin.errors import CheckpointError, ParameterError

try:
    import fcntl
except ImportError:  # no such locks on Windows
    fcntl = None

VERSION = 1
FILE, PART, LOCK = "checkpoint.npz", "checkpoint.npz.part", "lock"
TRAILER = re.compile(rb"\nlangevin checkpoint ([0-9]{4}) sha256 ([0-9a-f]{64})\n")
TRAILER_SIZE = 98
CONSTANT = ("coefficients", "parameters")  # fields of the state that no step changes
INNER = ("window", "kernel")  # named only where nothing that a person gave differs
MEANING = {
    "positions": "start",
    "coefficients": "dynamics",
    "parameters": "parameters of the surface",
    "extra": "data of the surface",
    "key": "seed",
}


class Checkpoint:
    """The checkpoint of one run in a folder of its own, locked while the run lasts.

    ``fetch`` brings the state up to date where it is kept elsewhere, on a GPU.
    `due` writes it when ``every`` seconds have passed. Raises CheckpointError for a folder that
    cannot be used, is in use, or holds the checkpoint of another run or a corrupt one.
    """

    def __init__(self, folder: Any, every: Any, fetch: Callable[[], None] = lambda: None):
        if not real_number(every) or math.isnan(every) or every < 0:
            raise ParameterError(
                f"checkpoint_every={every!r}: needed: seconds between two checkpoints, 0 or more."
            )
        if not isinstance(folder, (str, os.PathLike)) or not os.fspath(folder):
            raise ParameterError(
                f"checkpoint={folder!r}: needed: the path of a folder for this run's checkpoint."
            )
        self.folder, self.every, self.fetch = Path(folder), float(every), fetch
        self.path = self.folder / FILE
        self.resumed_at, self.elapsed = 0, 0.0
        self.written = -1  # steps done at the last checkpoint
        self.began = self.last = time.monotonic()
        self.lock = _locked(self.folder)
        with contextlib.suppress(OSError):
            os.remove(self.folder / PART)  # of a run that was killed while writing

    def close(self) -> None:
        """Unlocks the folder."""
        self.lock.close()

    def start(self, run: dict[str, Any], state, observers) -> int:
        """Puts the arrays of a checkpoint, if there is one, in place; the step to go on from.

        ``run`` describes the experiment, from names to readable values.
        """
        self.run = {key: _named(v) for key, v in run.items()}
        self.bits = _bits(state, observers)
        self.shapes = {key: getattr(state, key).shape for key in CONSTANT}
        self.state, self.observers = state, observers
        if not self.path.exists():
            self.write(0)  # a disk too small is found out before hours were spent
            return 0
        try:
            description, arrays = _read(self.path)
            self._compare(description)
            self._restore(arrays)
            done, elapsed = int(description["steps_done"]), float(description["elapsed"])
        except CheckpointError:
            raise
        except Exception as error:
            raise _corrupt(self.path, str(error)) from error
        self.resumed_at, self.written, self.elapsed = done, done, elapsed
        return done

    def due(self, done: int) -> None:
        """Writes the checkpoint if its time has come."""
        if time.monotonic() - self.last >= self.every:
            self.write(done)

    def write(self, done: int) -> None:
        """Writes the state after ``done`` steps. Raises CheckpointError; the old file stays."""
        if done == self.written:
            return
        self.fetch()
        description = {
            "steps_done": done,
            "elapsed": self.elapsed + time.monotonic() - self.began,
            "run": self.run,
            "bits": self.bits,
            "machine": _machine(),
        }
        try:
            _write(self.folder, description, self._arrays())
        except OSError as error:
            raise CheckpointError(
                f"the checkpoint after {done} steps could not be written to {self.path}: {error}. "
                + (f"The one after {self.written} steps is intact. " if self.written >= 0 else "")
                + "Free space or choose another folder, and run the same again. What was computed "
                "is in this error's .result."
            ) from error
        self.written, self.last = done, time.monotonic()

    def _arrays(self) -> dict[str, np.ndarray]:
        """The arrays that steps change, by where they belong."""
        found = {}
        for field in dataclasses.fields(self.state):
            value = getattr(self.state, field.name)
            if isinstance(value, np.ndarray) and value.shape != self.shapes.get(field.name):
                found[f"state.{field.name}"] = value
        for k, observer in enumerate(self.observers):
            for name, array in _carried(observer).items():
                found[f"observer.{k}.{name}"] = array
        return found

    def _restore(self, arrays: dict[str, np.ndarray]) -> None:
        lacking = self._arrays().keys() - arrays.keys()
        if lacking:
            raise _corrupt(self.path, f"it lacks {min(lacking)}")
        for place, array in arrays.items():
            owner, *rest = place.split(".", 2)
            if owner == "state":
                setattr(self.state, rest[0], array)
                continue
            observer, name = self.observers[int(rest[0])], rest[1]
            target = _carried(observer)[name]
            if target.shape == array.shape:
                target[...] = array
            elif name == "store":
                observer.store = array
            else:
                observer.memory[name] = array

    def _compare(self, description: dict[str, Any]) -> None:
        """Raises CheckpointError naming what differs between the checkpoint's run and this one."""
        there, here = description["run"], self.run
        differ = [key for key in {**here, **there} if here.get(key) != there.get(key)]
        differ = [key for key in differ if key not in INNER] or differ
        shown = [
            f"{key} ({_short(there.get(key))} in the checkpoint, {_short(here.get(key))} now)"
            for key in differ
        ]
        if not differ:
            old, new = description["bits"], self.bits
            shown = [f"{key} (other values)" for key in new if old.get(key) != new[key]]
            shown += [key for key in old if key not in new]
        if shown:
            hint = " A run cannot be made longer or shorter." if "n_steps" in differ else ""
            raise CheckpointError(
                f"checkpoint {self.path} is of another run; what differs: {'; '.join(shown)}."
                f"{hint} Give the same arguments as then, or another folder."
            )
        machine = _machine()
        other = [k for k, v in description["machine"].items() if machine.get(k) != v]
        if other:
            warnings.warn(
                f"checkpoint {self.path} was written with another {' and '.join(other)}: the run "
                "goes on correctly, but not to the last bit as it would have there.",
                stacklevel=4,
            )


def _locked(folder: Path):
    """The open lock file; the system unlocks it when the process ends, however it ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / LOCK, "a+", encoding="utf-8")
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"checkpoint={str(folder)!r} is no folder to write in: {error}. Give the path of a "
            "folder of this run's own, which is made if need be."
        ) from error
    if fcntl is None:
        return file
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
    except BlockingIOError:
        file.seek(0)
        holder = file.read(20).strip()
        file.close()
        raise CheckpointError(
            f"checkpoint={str(folder)!r} is in use by another run (process {holder}). Wait for it "
            "to end, or give this run a folder of its own."
        ) from None
    except OSError:  # a file system without locks, or full: the first checkpoint will tell
        pass
    return file


def _write(folder: Path, description: dict, arrays: dict[str, np.ndarray]) -> None:
    """Writes the file so that it is there whole, and on the disk, or not at all."""
    text = np.frombuffer(json.dumps(description).encode(), np.uint8)
    part = folder / PART
    try:
        with open(part, "w+b") as file:
            np.savez(file, description=text, **arrays)
            file.flush()
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0, os.SEEK_END)
            file.write(f"\nlangevin checkpoint {VERSION:04d} sha256 {digest}\n".encode())
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, folder / FILE)
        if os.name == "posix":  # the name is on the disk when its folder is
            handle = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
    except BaseException:
        with contextlib.suppress(OSError):
            os.remove(part)
        raise


def _read(path: Path) -> tuple[dict, dict[str, np.ndarray]]:
    """The description and the arrays of a checkpoint, once its checksum is right."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size - TRAILER_SIZE
        file.seek(max(size, 0))
        trailer = TRAILER.fullmatch(file.read())
        if trailer is None:
            raise _corrupt(path, "its end, with the checksum, is missing (truncated, or altered)")
        if int(trailer[1]) > VERSION:
            raise CheckpointError(
                f"checkpoint {path} is of format {int(trailer[1])}, newer than this langevin "
                f"reads ({VERSION}). Update langevin, or give another folder."
            )
        file.seek(0)
        digest = hashlib.sha256()
        while size > 0:
            chunk = file.read(min(size, 2**20))
            digest.update(chunk)
            size -= len(chunk)
        if digest.hexdigest().encode() != trailer[2]:
            raise _corrupt(path, "its contents do not match its checksum")
        file.seek(0)
        with np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    return json.loads(arrays.pop("description").tobytes()), arrays


def _corrupt(path: Path, why: str) -> CheckpointError:
    return CheckpointError(
        f"checkpoint {path} is corrupt: {why}. It cannot be resumed; delete it to begin again, or "
        "give another folder."
    )


def _carried(observer) -> dict[str, np.ndarray]:
    """The arrays an observer fills: its store, and what it keeps of each replica."""
    return {"store": observer.store, **getattr(observer, "memory", {})}


def _bits(state, observers) -> dict[str, str]:
    """Digests of everything the kernel is given, so that no difference slips through."""
    found = {}
    for field in dataclasses.fields(state):
        name = MEANING.get(field.name, field.name)
        found[name] = _digest(getattr(state, field.name))
    for observer in observers:
        changing = {id(array) for array in _carried(observer).values()}
        given = tuple(v for v in observer.arguments() if id(v) not in changing)
        found[f"observer {observer.name!r}"] = _digest(given)
    return found


def _digest(value: Any) -> str:
    """SHA-256 of an array, a number, text, a tuple of such, or an object made of such."""
    if isinstance(value, (tuple, list)):
        text = ",".join(_digest(v) for v in value).encode()
    elif isinstance(value, (np.ndarray, np.generic)):
        array = np.ascontiguousarray(value)
        head = f"{array.dtype.str}{array.shape}".encode()
        text = head + hashlib.sha256(array.reshape(-1).view(np.uint8)).digest()
    elif hasattr(value, "__dict__") and not callable(value):
        text = f"{type(value).__qualname__}{_digest(tuple(vars(value).items()))}".encode()
    else:
        text = _named(value).encode()
    return hashlib.sha256(text).hexdigest()


def _machine() -> dict[str, str]:
    """What bitwise equality depends on besides the kernel's source."""
    versions = {name: information.version(name) or "" for name in ("numba", "llvmlite")}
    return {**versions, "CPU": information.cpu_name()}


def _named(value: Any) -> str:
    """The value as text, without the address that some objects show."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", str(value))


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 120 else f"{text[:58]}...{text[-58:]}"
