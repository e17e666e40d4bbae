"""On which line of a TOML text each key and each array element stands."""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_left

Path = tuple[str | int, ...]

DEEPEST = 50  # levels of nesting
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_BLANK = re.compile(r"(?:[ \t\n]+|#[^\n]*)*")
_SCALAR = re.compile(r"[^,\]}#\n]+")


class TooDeepError(ValueError):
    """Nesting beyond DEEPEST; ``line`` is where."""

    def __init__(self, line: int):
        super().__init__(f"nested more than {DEEPEST} deep")
        self.line = line


def locate(text: str) -> dict[Path, int]:
    """The line, from 1, of every key and array element of a *valid* TOML text.

    Paths are tuples of keys and, within arrays and arrays of tables, indices from 0:
    ``("observe", 1, "bins")``. tomllib reports no lines for values, and reads the text first:
    here only its structure is followed. Raises TooDeepError.
    """
    scanner = _Scanner(text.replace("\r\n", "\n"))
    scanner.statements()
    return scanner.lines


class _Scanner:
    def __init__(self, text: str):
        self.text, self.at, self.table = text, 0, ()
        self.lines: dict[Path, int] = {}
        self.counts: dict[Path, int] = {}  # elements so far of each array of tables
        self.breaks = [m.start() for m in re.finditer("\n", text)]

    def line(self) -> int:
        return bisect_left(self.breaks, self.at) + 1

    def record(self, path: Path) -> None:
        self.lines.setdefault(path, self.line())

    def blank(self) -> None:
        self.at = _BLANK.match(self.text, self.at).end()

    def statements(self) -> None:
        self.blank()
        while self.at < len(self.text):
            if self.text.startswith("[[", self.at):
                self.header(2)
            elif self.text[self.at] == "[":
                self.header(1)
            else:
                self.pair(self.table)
            self.blank()

    def header(self, brackets: int) -> None:
        """``[a.b]`` or ``[[a.b]]``: which element of an array of tables is meant is resolved."""
        self.at += brackets
        keys = self.key()
        path: Path = ()
        for k, key in enumerate(keys):
            path = (*path, key)
            self.record(path)
            if brackets == 2 and k == len(keys) - 1:
                self.counts[path] = self.counts.get(path, 0) + 1
            if path in self.counts:
                path = (*path, self.counts[path] - 1)
                self.record(path)
        self.blank()
        self.at += brackets
        self.table = path

    def key(self) -> list[str]:
        parts = []
        while True:
            self.blank()
            if self.text[self.at] in "\"'":
                start = self.at
                self.string()
                parts.append(tomllib.loads(f"k = {self.text[start : self.at]}")["k"])
            else:
                found = _BARE.match(self.text, self.at)
                parts.append(found.group())
                self.at = found.end()
            end = self.at
            self.blank()
            if self.text[self.at] != ".":
                self.at = end
                return parts
            self.at += 1

    def pair(self, table: Path) -> None:
        """``key = value``."""
        self.blank()
        start = self.at
        keys = self.key()
        end, self.at = self.at, start
        path = table
        for key in keys:
            path = (*path, key)
            self.record(path)
        self.at = end
        self.blank()
        self.at += 1  # the =
        self.value(path)

    def value(self, path: Path) -> None:
        self.blank()
        if len(path) > DEEPEST:
            raise TooDeepError(self.line())
        character = self.text[self.at]
        if character in "\"'":
            self.string()
        elif character == "[":
            self.array(path)
        elif character == "{":
            self.inline(path)
        else:
            self.at = _SCALAR.match(self.text, self.at).end()

    def array(self, path: Path) -> None:
        self.at += 1
        count = 0
        while True:
            self.blank()
            if self.text[self.at] == "]":
                break
            if self.text[self.at] == ",":
                self.at += 1
                continue
            self.record((*path, count))
            self.value((*path, count))
            count += 1
        self.at += 1

    def inline(self, path: Path) -> None:
        self.at += 1
        while True:
            self.blank()
            if self.text[self.at] == "}":
                break
            if self.text[self.at] == ",":
                self.at += 1
                continue
            self.pair(path)
        self.at += 1

    def string(self) -> None:
        """Moves past a string of any of the four kinds."""
        quote = self.text[self.at]
        several = self.text.startswith(quote * 3, self.at)
        closing = quote * 3 if several else quote
        self.at += len(closing)
        while not self.text.startswith(closing, self.at):
            self.at += 2 if quote == '"' and self.text[self.at] == "\\" else 1
        self.at += len(closing)
        extra = 2 if several else 0  # a multi-line string may end in up to two quotes of its own
        while extra and self.text.startswith(quote, self.at):
            self.at, extra = self.at + 1, extra - 1
