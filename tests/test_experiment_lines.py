"""The line of every key and element of a TOML text: by hand, and against a writer that knows."""

import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langevin.experiments.lines import DEEPEST, TooDeepError, locate

TRICKY = '''\
# a comment with [brackets] and a = sign
title = "a # b = [c" # a real comment
"quoted.key" . 'lit eral' . b = 1
[ surface ]   # header with blanks
formula = """
x**2 # not a comment
[[not.a.header]]
\\""" + y"""""
literal = \'\'\'
k = 1\'\'\'
v = [ # one
  1, [2,
  3],

  {a=1, "b c"={d=2}}, # trailing comma
]
[[observe]]
kind='x'
[[observe]]
[observe.sub]
when=1979-05-27 07:32:00
[[observe.list]]
q="\\""
[[observe.list]]
q=2

[a.b."c.d"]
[a]
e.f = 3
e.g = 0x1F
'''

LINES = {
    ("title",): 2, ("quoted.key", "lit eral", "b"): 3, ("surface",): 4, ("surface", "formula"): 5,
    ("surface", "literal"): 9, ("surface", "v"): 11, ("surface", "v", 0): 12,
    ("surface", "v", 1, 0): 12, ("surface", "v", 1, 1): 13, ("surface", "v", 2): 15,
    ("surface", "v", 2, "b c", "d"): 15, ("observe", 0): 17, ("observe", 0, "kind"): 18,
    ("observe", 1): 19, ("observe", 1, "sub"): 20, ("observe", 1, "sub", "when"): 21,
    ("observe", 1, "list", 0): 22, ("observe", 1, "list", 0, "q"): 23,
    ("observe", 1, "list", 1, "q"): 25, ("a",): 27, ("a", "b", "c.d"): 27, ("a", "e", "f"): 29,
    ("a", "e", "g"): 30,
}  # fmt: skip


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_by_hand(ending):
    text = TRICKY.replace("\n", ending)
    tomllib.loads(text)
    found = locate(text)
    assert {path: found.get(path) for path in LINES} == LINES
    assert set(paths(tomllib.loads(text))) <= set(found)


def paths(value, path=()):
    """Every path of a nested value."""
    if path:
        yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from paths(inner, (*path, key))
    if isinstance(value, list):
        for k, inner in enumerate(value):
            yield from paths(inner, (*path, k))


def test_an_empty_text_and_a_deep_one():
    assert locate("") == {} and locate("# nothing\n\n") == {}
    deep = "\n\na = " + "[" * (DEEPEST + 5) + "]" * (DEEPEST + 5)
    with pytest.raises(TooDeepError) as caught:
        locate(deep)
    assert caught.value.line == 3


keys = st.text(st.characters(codec="utf-8", exclude_categories=("Cc",)), max_size=5)
scalars = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.text(st.characters(codec="utf-8", exclude_categories=("Cc",)), max_size=8),
    st.sampled_from(["two\nlines", "three \"\"\"\n'''\nlines", "# no comment", "[x]\ny = 1", "\\"]),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=8,
)


class Writer:
    """Writes TOML in a style drawn at random, and notes the line of all it writes."""

    def __init__(self, draw):
        self.draw, self.text, self.lines = draw, "", {}

    def put(self, text):
        self.text += text

    def note(self, path):
        self.lines.setdefault(path, self.text.count("\n") + 1)

    def blank(self):
        """Perhaps blank lines and comments."""
        for _ in range(self.draw(st.integers(0, 2))):
            self.put(self.draw(st.sampled_from(["\n", "# k = [1\n", "  \t\n", '# """\n'])))

    def chance(self):
        return self.draw(st.booleans())

    def string(self, value, multiline=True):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        if "\n" in value and multiline and self.chance():
            return f'"""\n{escaped}"""'
        if "'" not in value and "\n" not in value and self.chance():
            return f"'{value}'"
        return '"' + escaped.replace("\n", "\\n") + '"'

    def key(self, key):
        plain = key and all(c.isascii() and (c.isalnum() or c in "-_") for c in key)
        return key if plain and self.chance() else self.string(key, multiline=False)

    def value(self, value, path):
        if isinstance(value, dict):
            self.put("{")
            for k, (key, inner) in enumerate(value.items()):
                self.put(", " if k else " ")
                self.note((*path, key))
                self.put(f"{self.key(key)} = ")
                self.value(inner, (*path, key))
            self.put("}")
        elif isinstance(value, list):
            self.put("[")
            for k, inner in enumerate(value):
                self.put(self.draw(st.sampled_from(["", " ", "\n", " # ]\n  "])))
                self.note((*path, k))
                self.value(inner, (*path, k))
                self.put("," if k < len(value) - 1 or self.chance() else "")
            self.put(self.draw(st.sampled_from(["", "\n"])) + "]")
        elif isinstance(value, str):
            self.put(self.string(value))
        else:
            self.put(str(value).lower() if isinstance(value, bool) else repr(value))

    def table(self, table, path=()):
        later = []
        for key, value in table.items():
            several = isinstance(value, list) and value and all(isinstance(v, dict) for v in value)
            if (isinstance(value, dict) or several) and self.chance():
                later.append((key, value))
                continue
            self.blank()
            self.note((*path, key))
            self.put(f"{self.key(key)} = ")
            self.value(value, (*path, key))
            self.put(self.draw(st.sampled_from(["\n", " # [[a]]\n", "  \n"])))
        for key, value in later:
            name = ".".join(self.key(p) for p in (*path, key) if isinstance(p, str))
            for k, inner in enumerate(value if isinstance(value, list) else [value]):
                self.blank()
                self.note((*path, key))
                here = (*path, key, k) if isinstance(value, list) else (*path, key)
                self.note(here)
                self.put(f"[[{name}]]\n" if isinstance(value, list) else f"[ {name} ]\n")
                self.table(inner, here)


@given(st.dictionaries(keys, values, max_size=5), st.data())
@settings(max_examples=200, deadline=None)
def test_against_a_writer(table, data):
    writer = Writer(data.draw)
    writer.table(table)
    assert tomllib.loads(writer.text) == table
    assert locate(writer.text) == writer.lines
