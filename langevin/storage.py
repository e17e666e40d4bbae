"""Saved runs: a Zarr folder that xarray opens, from which `load` rebuilds the whole Result.

The root group is the labelled dataset. The group ``langevin`` holds the tree of the Result in its
attributes (see `codec`), arrays that the dataset does not hold already, joined to one for each
type, and ``SHA256SUMS`` of every file (``sha256sum -c langevin/SHA256SUMS`` checks them too).
Nothing is pickled, and only plain numeric arrays are read back.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from langevin import codec, labelled
from langevin.errors import StorageError
from langevin.result import Result

FORMAT, VERSION = "langevin run", 1
INSIDE = "langevin"
SUMS = f"{INSIDE}/SHA256SUMS"
CODECS = frozenset(("bytes", "zstd", "blosc", "gzip", "crc32c", "transpose"))


def save(result: Result, path: Any, *, overwrite: bool = False) -> None:
    """Saves a result as a Zarr folder at ``path``, which appears whole or not at all.

    Raises StorageError where something exists already (unless ``overwrite``, and it is a saved
    run), where it cannot be written, and for a surface or estimate that is not langevin's own.
    """
    labelled.optional("xarray"), labelled.optional("zarr")
    path = Path(os.path.realpath(_local(path)))  # a link stays, and what it leads to is written
    if path.exists():
        if not overwrite:
            raise StorageError(
                f"{path} exists already. Choose another name, or pass overwrite=True to replace "
                "a saved run."
            )
        _description(path)  # overwrites saved runs, and nothing else
    part = path.parent / f".langevin-{secrets.token_hex(8)}.part"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(result, part)
        _put_in_place(part, path)
    except OSError as error:
        raise StorageError(
            f"the run could not be saved to {path}: {error}. Nothing there was changed, and the "
            "result is still in memory: free space or choose another folder, and save again."
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def load(path: Any) -> Result:
    """The Result that `Result.save` wrote at ``path``, with everything it can answer.

    Nothing is unpickled and no code in the folder is run. Raises StorageError for a path that is
    no saved run, one that is truncated, altered or corrupt, and one that a newer version wrote.
    """
    zarr = labelled.optional("zarr")
    path = _local(path)
    tree = _description(path)
    try:
        _check_sums(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            root = zarr.open_group(path, mode="r", zarr_format=3, use_consolidated=False)
            stored: dict[str, np.ndarray] = {}

            def get(at: Any) -> np.ndarray:
                return _taken(at, path, root, stored)

            result = codec.decode(tree, get)
        _check(result)
    except Exception as error:
        raise StorageError(
            f"{path} is corrupt: {error}. A damaged run is not read in part: take a copy, or run "
            "it again."
        ) from error
    return result


def _local(path: Any) -> Path:
    try:
        text = os.fspath(path)
    except TypeError:
        text = b""
    if not isinstance(text, str) or not text or "\0" in text or "://" in text:
        raise StorageError(
            f"path={path!r}: needed: the path of a folder on this machine, such as 'run.zarr'."
        )
    return Path(text)


# --- writing -------------------------------------------------------------------------------------


class _Arrays:
    """Where the arrays of a tree go: to the variable that is the same, else to a joined array."""

    def __init__(self, data):
        self.places: dict[tuple, list] = {}
        self.joined: dict[str, list[np.ndarray]] = {}
        self.lengths: dict[str, int] = {}
        self.kept: dict[str, np.ndarray] = {}
        for name, variable in data.variables.items():
            if variable.dtype.name in codec.DTYPES:
                # Not ascontiguousarray: it makes (1,) of (), which are not the same when read.
                values = np.asarray(variable.values, order="C")
                self.kept[name] = values
                self.places.setdefault(_key(values), [str(name)])

    def put(self, array: np.ndarray) -> dict:
        """Keeps an array; the answer, which is JSON, finds it again."""
        order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
        array = np.asarray(array, dtype=array.dtype.newbyteorder("="), order="C")
        kind, key = array.dtype.name, _key(array)
        if key not in self.places:
            begin = self.lengths.get(kind, 0)
            self.joined.setdefault(kind, []).append(array.reshape(-1))
            self.lengths[kind] = begin + array.size
            self.places[key] = [f"{INSIDE}/{kind}", begin]
        return {"at": self.places[key], "dtype": kind, "shape": list(array.shape), "order": order}

    def arrays(self) -> dict[str, np.ndarray]:
        """The joined arrays, by path."""
        return {f"{INSIDE}/{kind}": np.concatenate(v) for kind, v in self.joined.items()}


def _key(array: np.ndarray) -> tuple:
    """What two arrays that are the same share: type, shape and bits."""
    bits = hashlib.sha256(np.ascontiguousarray(array).reshape(-1).view(np.uint8)).digest()
    return array.dtype.name, array.shape, bits


def _write(result: Result, folder: Path) -> None:
    """The whole Zarr folder, on disk when this returns."""
    import zarr

    data = labelled.dataset(result)
    arrays = _Arrays(data)
    tree = codec.encode(result, arrays.put)
    joined = arrays.arrays()
    try:
        codec.decode(tree, lambda at: _cut(at, {**arrays.kept, **joined}.__getitem__, copy=None))
    except Exception as error:
        raise StorageError(
            f"this run could not be rebuilt from a file, so it is not saved: {error} "
            "result.to_xarray() gives its data."
        ) from error
    texts = {k: v.astype(object) for k, v in data.coords.items() if v.dtype.kind == "U"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # consolidated metadata is no part of the Zarr 3 text
        data.assign_coords(texts).to_zarr(folder, mode="w-", zarr_format=3, consolidated=True)
        root = zarr.open_group(folder, mode="r+", zarr_format=3, use_consolidated=False)
        attributes = {"format": FORMAT, "version": VERSION, "result": tree}
        inside = root.create_group(INSIDE, attributes=attributes)
        for name, values in joined.items():
            inside.create_array(name.removeprefix(f"{INSIDE}/"), data=values)
    lines = [f"{_digest(folder / name)}  {name}\n" for name in sorted(_files(folder))]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")
    for name in (*_files(folder), SUMS):
        with open(folder / name, "rb") as file:
            os.fsync(file.fileno())


def _put_in_place(part: Path, path: Path) -> None:
    """Renames the finished folder; one that is replaced goes only when the new one is there."""
    if not path.exists():
        os.rename(part, path)
        return
    old = part.with_suffix(".old")
    os.rename(path, old)
    try:
        os.rename(part, path)
    except OSError:
        os.rename(old, path)
        raise
    shutil.rmtree(old, ignore_errors=True)


# --- reading -------------------------------------------------------------------------------------


def _description(path: Path) -> Any:
    """The tree of the saved result. Raises StorageError if this is no run, or a newer one."""
    if not path.exists():
        raise StorageError(f"{path} does not exist: there is no run to load.")
    try:
        text = (path / INSIDE / "zarr.json").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise StorageError(
            f"{path} is no saved langevin run: needed is a folder that result.save() wrote, with "
            f"{INSIDE}/zarr.json inside."
        ) from None
    try:
        attributes = json.loads(text)["attributes"]
        name, version, tree = (attributes.get(k) for k in ("format", "version", "result"))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise StorageError(f"{path} is corrupt: {INSIDE}/zarr.json is not readable.") from None
    if name != FORMAT or type(version) is not int:
        raise StorageError(f"{path} is no saved langevin run: its format is {name!r}.")
    if version > VERSION:
        raise StorageError(
            f"{path} was saved in format {version}, newer than this langevin reads ({VERSION}). "
            "Update langevin: pip install --upgrade langevin."
        )
    return tree


def _files(folder: Path) -> list[str]:
    """Every file below the folder but the sums, and what file managers leave (.DS_Store)."""
    found = (p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))
    return [name for p in found if (name := p.relative_to(folder).as_posix()) != SUMS]


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_sums(path: Path) -> None:
    """Raises StorageError naming the first file that is missing, strange or altered."""
    try:
        lines = (path / SUMS).read_text(encoding="utf-8").splitlines()
        sums = {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
    except (OSError, ValueError):
        raise StorageError(f"{SUMS}, the list of its files, is missing or damaged") from None
    present = set(_files(path))
    altered = {n for n in present & sums.keys() if _digest(path / n) != sums[n]}
    for problem, names in (
        ("is missing", sums.keys() - present),
        ("is not part of what was saved", present - sums.keys()),
        ("was altered or truncated", altered),
    ):
        if names:
            raise StorageError(f"its file {min(names)} {problem}")


def _taken(at: Any, path: Path, root, stored: dict[str, np.ndarray]) -> np.ndarray:
    """An array of the tree, from the Zarr folder; each stored array is read once."""

    def read(name: str) -> np.ndarray:
        if name not in stored:
            _check_plain(path, name)
            stored[name] = np.asarray(root[name][...])
        return stored[name]

    return _cut(at, read)


def _check_plain(path: Path, name: str) -> None:
    """Refuses all but plain numeric Zarr 3 arrays before Zarr looks at them."""
    folder = name.removeprefix(f"{INSIDE}/")
    if not folder or "/" in folder or "\\" in folder or folder.startswith("."):
        raise StorageError(f"it refers to an array {name!r}")
    about = json.loads((path / name / "zarr.json").read_text(encoding="utf-8"))
    used = {c["name"] for c in about["codecs"]}
    plain = about["zarr_format"] == 3 and about["node_type"] == "array"
    if not plain or about["data_type"] not in codec.DTYPES or not used <= CODECS:
        raise StorageError(f"its array {name!r} is not a plain array of numbers")


def _cut(at: Any, read, copy: bool | None = True) -> np.ndarray:
    """The array that an answer of `_Arrays.put` stands for; ``copy=None`` copies if need be."""
    (name, *begin), shape = at["at"], tuple(at["shape"])
    array = read(name)
    if begin:
        size = int(np.prod(shape, dtype=object))
        array = array[begin[0] : begin[0] + size].reshape(shape)
    if array.dtype.name != at["dtype"] or array.shape != shape:
        raise StorageError(f"its array {name!r} has another type or shape than the run's")
    return np.array(array, order=at["order"], copy=copy)


def _check(result: Any) -> None:
    """Raises StorageError for a tree that is not that of a run."""
    if type(result) is not Result:
        raise StorageError("it does not hold a run")
    n, dim = result.diverged.shape[0], result.surface.dim
    moving = result.velocities is not None
    shapes = [a.shape for a in (result.positions, result.velocities)[: 1 + moving]]
    if any(shape != (n, dim) for shape in shapes) or result.observed.keys() != result.kinds.keys():
        raise StorageError("its parts do not fit together")
