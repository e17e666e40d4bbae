"""Finding, fetching and reading the files of image data sets: IDX, and CIFAR-10's binary version.

Nothing is unpickled, and nothing is unpacked to disk.
"""

from __future__ import annotations

import gzip
import hashlib
import lzma
import math
import os
import re
import struct
import tarfile
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from langevin.errors import DataError, ParameterError, UnavailableError

OPENERS = {"": open, ".gz": gzip.open, ".xz": lzma.open}
UNREADABLE = (OSError, EOFError, zlib.error, lzma.LZMAError, tarfile.TarError)
CIFAR_RECORD = 1 + 3 * 32 * 32  # bytes: the label, then red, green and blue rows
CIFAR_BATCH = 10_000  # examples in each of its files


@dataclass(frozen=True)
class Source:
    """Where a data set's files are: folders by any of these names, the URL, the published md5."""

    name: str
    folders: tuple[str, ...]
    url: str
    md5: dict[str, str]
    archive: str = ""  # the one file that holds all, where there is one


MNIST = Source(
    "MNIST",
    ("mnist", "MNIST/raw"),
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    {
        "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    },
)
FASHION_MNIST = Source(
    "Fashion-MNIST",
    ("fashion-mnist", "FashionMNIST/raw"),
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    {
        "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
    },
)
CIFAR10 = Source(
    "CIFAR-10",
    ("cifar-10", "cifar-10-batches-bin"),
    "https://www.cs.toronto.edu/~kriz/",
    {"cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530"},
    "cifar-10-binary.tar.gz",
)


@dataclass(frozen=True)
class File:
    """One file found; ``member`` is its name within an archive."""

    path: Path
    member: str = ""

    def __str__(self) -> str:
        return f"{self.path} ({self.member})" if self.member else str(self.path)


# --- where ----------------------------------------------------------------------------------------


def cache() -> Path | None:
    """The folder that downloads go to, or None without pooch."""
    try:
        import pooch
    except ImportError:
        return None
    return Path(pooch.os_cache("langevin")) / "data"


def places(source: Source, folder: str | os.PathLike | None) -> list[Path]:
    """The folders that are searched, in this order."""
    found = []
    if folder is not None and not isinstance(folder, (str, os.PathLike)):
        raise ParameterError(f"folder={folder!r}: needed: a path, or None.")
    if folder is not None:
        found += [Path(folder) / name for name in source.folders] + [Path(folder)]
    if os.environ.get("LANGEVIN_DATA"):
        found += [Path(os.environ["LANGEVIN_DATA"]) / name for name in source.folders]
    kept = cache()
    return found if kept is None else [*found, kept / source.folders[0]]


def _variant(place: Path, stem: str, partial: bool) -> File | None:
    """``stem`` in a folder, plain or compressed; with ``partial``, its first examples alone."""
    for suffix in OPENERS:
        path = place / f"{stem}{suffix}"
        if path.is_file():
            return File(path)
        if partial:
            name, dot, extension = stem.rpartition(".")
            beginnings = sorted(place.glob(f"{name}_first*{dot}{extension}{suffix}"))
            if beginnings:
                return File(beginnings[-1])
    return None


def _located(source: Source, stems: Sequence[str], folder, partial: bool) -> list[File] | None:
    for place in places(source, folder):
        found = [_variant(place, stem, partial) for stem in stems]
        if all(found):
            return found
        if source.archive and (place / source.archive).is_file():
            return [File(place / source.archive, stem) for stem in stems]
    return None


def locate(source: Source, stems: Sequence[str], folder=None, download: bool = False) -> list[File]:
    """The files of these names, all from one folder; whole files before beginnings of files.

    Raises UnavailableError, which says where they were looked for and how to get them.
    """
    found = _located(source, stems, folder, partial=False)
    if found is None and download:
        fetch(source, [source.archive] if source.archive else [f"{s}.gz" for s in stems], folder)
        found = _located(source, stems, folder, partial=False)
    if found is None:
        found = _located(source, stems, folder, partial=True)
    if found is None:
        looked = "".join(
            f"\n  {place}{'' if place.is_dir() else ' (no such folder)'}"
            for place in places(source, folder)
        )
        unset = "" if os.environ.get("LANGEVIN_DATA") else " LANGEVIN_DATA is not set."
        names = ", ".join(source.md5)
        raise UnavailableError(
            f"{source.name}: {', '.join(stems)} (plain, .gz or .xz) not found. Looked in:{looked}\n"
            f"Get them with download=True, or put {names} from {source.url} into a folder "
            f"{source.folders[0]!r} and say folder=, or LANGEVIN_DATA, is the folder that holds "
            f"it.{unset}"
        )
    return found


def fetch(source: Source, names: Sequence[str], folder=None) -> None:
    """Downloads files with pooch into ``folder`` or the cache, and checks their md5."""
    try:
        import pooch
    except ImportError:
        raise UnavailableError(
            f"{source.name}: download=True needs the package pooch: pip install 'langevin[neural]'."
        ) from None
    target = (cache() if folder is None else Path(folder)) / source.folders[0]
    for name in names:
        url, md5 = source.url + name, source.md5[name]
        try:
            pooch.retrieve(url, known_hash=f"md5:{md5}", fname=name, path=target)
        except ValueError as error:
            raise DataError(
                f"{url}: what was downloaded is not the published file, whose md5 is {md5}, and "
                f"was thrown away ({error}). Try again, or get {name} elsewhere."
            ) from None
        except Exception as error:  # whatever a network says
            raise UnavailableError(
                f"{source.name}: {url} could not be downloaded to {target} ({error}). Get {name} "
                f"by other means and put it there."
            ) from None


# --- what -----------------------------------------------------------------------------------------


def md5_of(path: Path) -> str:
    """The md5 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def identities(source: Source, found: Sequence[File]) -> tuple[str, ...]:
    """The files, each with its md5 and whether that is the published one.

    Raises DataError for a file of another data set under this one's name.
    """
    md5s = {path: md5_of(path) for path in {file.path for file in found}}
    said = []
    for file in found:
        name, md5 = file.path.name, md5s[file.path]
        published = source.md5.get(name)
        for other in (MNIST, FASHION_MNIST, CIFAR10):
            for its, known in other.md5.items():
                if known == md5 and (other.name, its) != (source.name, name):
                    raise DataError(
                        f"{file.path} is the file {its} of {other.name} (md5 {md5}), not {name} of "
                        f"{source.name}. Say folder= of {source.name}."
                    )
        same = "as published" if published == md5 else f"the published file's is {published}"
        said.append(f"{file} (md5 {md5}{'' if published is None else f', {same}'})")
    return tuple(said)


def corrupt(source: Source, file: File, found: str, needed: str) -> DataError:
    """The error for a file that cannot be what its name says."""
    published = source.md5.get(file.path.name)
    note = ""
    if published is not None and file.path.stat().st_size and os.access(file.path, os.R_OK):
        md5 = md5_of(file.path)
        note = f" Its md5 is {md5}; that of the published file is {published}."
    return DataError(f"{file}: {found}; needed: {needed}.{note} Get the file again.")


def contents(source: Source, files: Sequence[File]) -> list[bytes]:
    """The bytes of files, decompressed side by side; an archive is read once."""
    for file in files:
        if file.path.stat().st_size == 0:
            raise corrupt(source, file, "the file is empty", f"data of {source.name}")
    if files[0].member:
        return _members(source, files)
    with ThreadPoolExecutor() as pool:
        return list(pool.map(lambda file: _decompressed(source, file), files))


def _decompressed(source: Source, file: File) -> bytes:
    suffix = file.path.suffix
    try:
        with OPENERS.get(suffix, open)(file.path, "rb") as stream:
            return stream.read()
    except UNREADABLE as error:
        kind = {".gz": "a gzip file", ".xz": "an xz file"}.get(suffix, "a readable file")
        raise corrupt(source, file, f"cannot be read ({error})", f"{kind}, whole") from None


def _members(source: Source, files: Sequence[File]) -> list[bytes]:
    found: dict[str, bytes] = {}
    wanted = {file.member for file in files}
    try:
        with tarfile.open(files[0].path, "r|gz") as archive:
            for member in archive:
                name = Path(member.name).name
                if name in wanted and member.isfile():
                    found[name] = archive.extractfile(member).read()
    except UNREADABLE as error:
        whole = File(files[0].path)
        raise corrupt(source, whole, f"cannot be read ({error})", "a tar.gz file, whole") from None
    for file in files:
        if file.member not in found:
            raise corrupt(source, file, "the archive has no such file", file.member)
    return [found[file.member] for file in files]


def idx(source: Source, file: File, data: bytes, shape: tuple[int, ...]) -> np.ndarray:
    """The array (n, *shape) of uint8 in an IDX file (big-endian header; LeCun's MNIST page)."""
    magic, size = 2049 + len(shape), 4 * (2 + len(shape))
    what = "labels" if not shape else f"images of {' x '.join(map(str, shape))}"
    if len(data) < size:
        raise corrupt(source, file, f"holds {len(data):,} bytes", f"a header of {size} bytes")
    number, n, *found = struct.unpack(f">{2 + len(shape)}I", data[:size])
    if number != magic:
        raise corrupt(source, file, f"begins with the magic number {number}", f"{magic} ({what})")
    if tuple(found) != shape:
        raise corrupt(source, file, f"holds images of {' x '.join(map(str, found))}", what)
    expected = n * math.prod(shape)
    if n == 0 or len(data) - size != expected:
        announced = f"announces {n:,} {what}, and {len(data) - size:,} bytes follow"
        raise corrupt(source, file, announced, f"{expected:,} bytes" if n else "at least one")
    return np.frombuffer(data, np.uint8, offset=size).reshape(n, *shape)


def cifar(source: Source, file: File, data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, 3, 32, 32) and labels (n,), uint8, of a file of CIFAR-10's binary version."""
    first = re.search(r"_first(\d+)\.", file.path.name)
    n = int(first.group(1)) if first and not file.member else CIFAR_BATCH
    if n == 0 or len(data) != n * CIFAR_RECORD:
        raise corrupt(
            source,
            file,
            f"unpacks to {len(data):,} bytes",
            f"{n * CIFAR_RECORD:,} ({n:,} examples of {CIFAR_RECORD:,} bytes)",
        )
    records = np.frombuffer(data, np.uint8).reshape(n, CIFAR_RECORD)
    return records[:, 1:].reshape(n, 3, 32, 32), records[:, 0]


def check_labels(source: Source, file: File, labels: np.ndarray, n_classes: int) -> None:
    """Raises DataError for a label that no class has."""
    wrong = np.flatnonzero(labels >= n_classes)
    if wrong.size:
        found = f"example {wrong[0]:,} has the label {labels[wrong[0]]}"
        raise corrupt(source, file, found, f"labels from 0 to {n_classes - 1}")
