"""An experiment file as read: its values, where each stands, and refusals that say so."""

from __future__ import annotations

import datetime
import difflib
import json
import math
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from langevin.errors import ExperimentError
from langevin.experiments.lines import DEEPEST, TooDeepError, locate

MAX_BYTES = 2**20
MAX_INTEGER = 2**64 - 1  # the largest seed
# tomllib takes a time that grows as the square of the number of dots in one key.
_LONG_KEY = re.compile(r"""(?<![\w"'-])(?:(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){50}""")


def shown(value: Any) -> str:
    """A value as it might stand in the file, on one line and not too long."""
    if isinstance(value, (datetime.date, datetime.time)):
        text = value.isoformat()
    else:
        text = json.dumps(value, ensure_ascii=False, default=str)
    text = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)
    return text if len(text) <= 60 else text[:57] + "..."


def dotted(path: Iterable[str | int]) -> str:
    """A path as ``observe[1].bins``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            word = part if re.fullmatch(r"[A-Za-z0-9_-]+", part) else shown(part)
            text += f".{word}" if text else word
    return text


def nearest(word: str, known: Iterable[str]) -> str:
    """A question naming the known word most like this one, and all that are known."""
    known = list(known)
    found = difflib.get_close_matches(word.lower(), known, 1, 0.5)
    question = f"did you mean {found[0]}? " if found else ""
    return f"{question}Known here: {', '.join(known) or 'nothing'}."


@dataclass(frozen=True)
class Document:
    """The values of a file, or of one point of its sweep.

    ``lines`` says where each path stands; ``file`` is what a message calls the file.
    """

    file: str
    folder: Path
    text: str
    values: dict[str, Any]
    lines: dict[tuple, int]

    def line(self, path: tuple) -> int:
        """The line of a path, or of the nearest thing around it that the file holds."""
        while path not in self.lines:
            if not path:
                return 1
            path = path[:-1]
        return self.lines[path]

    def refusal(self, path: tuple, message: str) -> ExperimentError:
        """The error to raise: file, line, field, and the message."""
        return ExperimentError(f"{self.file}, line {self.line(path)}, {dotted(path)}: {message}")

    def missing(self, path: tuple, message: str) -> ExperimentError:
        """The error for a field that should stand at ``path`` and does not."""
        where = f", line {self.line(path[:-1])}" if path[:-1] in self.lines else ""
        return ExperimentError(f"{self.file}{where}, {dotted(path)}: missing; {message}")

    def with_values(self, values: dict[str, Any], lines: dict[tuple, int]) -> Document:
        """The same file with other values, such as those of one point of a sweep."""
        return replace(self, values=values, lines={**self.lines, **lines})


def read(path: str | Path) -> Document:
    """The file at ``path``. Raises ExperimentError for whatever is not a sound TOML file."""
    path = Path(path)
    text = _text(path)
    file = path.name
    long = _LONG_KEY.search(text)
    if long:
        raise ExperimentError(
            f"{file}, line {text.count(chr(10), 0, long.start()) + 1}: a key of {DEEPEST} parts or "
            "more; nothing here is nested so deeply."
        )
    try:
        values = tomllib.loads(text)
        lines = locate(text)
    except (RecursionError, TooDeepError) as error:
        line = getattr(error, "line", None) or _deepest_line(text)
        raise ExperimentError(
            f"{file}, line {line}: nested more than {DEEPEST} deep; nothing here needs that."
        ) from None
    except ValueError as error:
        raise ExperimentError(_syntax(file, text, str(error))) from None
    if not values:
        raise ExperimentError(
            f"{file}, line 1: holds no section. Needed: [surface], [dynamics] and [run]; the "
            "folder examples/ has files to start from."
        )
    document = Document(file, path.parent, text, values, lines)
    _check_values(document, (), values)
    return document


def _text(path: Path) -> str:
    """The file's text, or ExperimentError for what is no text file of a sensible size."""
    file = path.name or str(path)
    try:
        if path.is_dir():
            raise ExperimentError(f"{file}: is a folder; give the experiment file in it.")
        if not path.exists():
            there = path.parent.glob("*.toml") if path.parent.is_dir() else ()
            near = difflib.get_close_matches(path.name, [p.name for p in there], 1, 0.4)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise ExperimentError(f"{path}: there is no such file.{hint}")
        if not path.is_file():
            raise ExperimentError(f"{file}: is not a regular file; give a TOML file.")
        with path.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        if isinstance(error, ExperimentError):
            raise
        why = getattr(error, "strerror", None) or error
        raise ExperimentError(f"{shown(str(path))}: cannot be read ({why}).") from None
    if len(raw) > MAX_BYTES:
        raise ExperimentError(
            f"{file}: larger than {MAX_BYTES // 1024} KiB, so no experiment file. Data belong in a "
            'CSV or NPY file that it names: [surface] data = "points.csv".'
        )
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ExperimentError(
            f"{file}, line {line}: byte 0x{raw[error.start]:02x} is not UTF-8 text. Save the file "
            "as UTF-8; a binary file is no experiment file."
        ) from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise ExperimentError(f"{file}, line {line}: holds a zero byte, so it is no text file.")
    return text


def _syntax(file: str, text: str, message: str) -> str:
    """tomllib's message with its line in front; the last line for an end that came too early."""
    found = re.search(r" \(at line (\d+), column (\d+)\)$", message)
    if found:
        line, column = found.groups()
        return f"{file}, line {line}: not TOML: {message[: found.start()]}, at column {column}."
    digits = re.search(r"\d{4300}", text)  # the longest integer that Python reads
    if digits:
        line = text.count("\n", 0, digits.start()) + 1
        return f"{file}, line {line}: a number of thousands of digits; nothing here is so large."
    line = text.rstrip("\n").count("\n") + 1
    message = message.replace(" (at end of document)", "")
    return f"{file}, line {line}: not TOML: {message}, at the end of the file."


def _deepest_line(text: str) -> int:
    """Where brackets first nest too deeply."""
    depth, line = 0, 1
    for character in text:
        depth += (character in "[{") - (character in "]}")
        line += character == "\n"
        if depth > DEEPEST:
            break
    return line


def _check_values(document: Document, path: tuple, value: Any) -> None:
    """Refuses what no field takes: dates, NaN, infinity, integers beyond every range."""
    if isinstance(value, dict):
        for key, inner in value.items():
            _check_values(document, (*path, key), inner)
    elif isinstance(value, list):
        for k, inner in enumerate(value):
            _check_values(document, (*path, k), inner)
    elif isinstance(value, (datetime.date, datetime.time)):
        raise document.refusal(path, f"{shown(value)} given; no field takes a date or a time.")
    elif isinstance(value, float) and not math.isfinite(value):
        raise document.refusal(path, f"{shown(value)} given; a finite number is needed.")
    elif isinstance(value, int) and abs(value) > MAX_INTEGER:
        raise document.refusal(
            path, "a whole number beyond 2**64 given; a smaller one is needed, for example 1000."
        )
