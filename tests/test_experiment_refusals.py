"""Malformed experiment files: each is refused with its line and field, none with a traceback."""

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from langevin import cli, experiment
from langevin.errors import ExperimentError, LangevinError
from langevin.experiments import document

SOUND = """\
title = "a sound file"
[surface]
formula = "x**4/4 - a*x**3/3 - x**2/2"
variables = ["x"]
noise = {kind = "isotropic", sigma = 1.0}
[surface.parameters]
a = 0.4
[dynamics]
kind = "sgd"
learning_rate = 0.1
batch_size = 0.4
momentum = 0.0
sampling = "with_replacement"
[run]
n_replicas = 64
n_steps = 40
burn_in = 10
seed = 1
start = [0.5]
dtype = "float64"
threads = 1
on_divergence = "stop"
checkpoint = true
first_replica = 0
[[observe]]
kind = "histogram"
bins = 20
range = [-3.0, 3.0]
every = 1
name = "density"
[[observe]]
kind = "moments"
every = 2
[[predict]]
kind = "laplace"
temperature = 0.125
compare = true
resolution = 0.05
[sweep]
"dynamics.momentum" = [0.0, 0.5]
zip = false
[output]
folder = "results"
figures = false
"""

ANYWHERE = ("nan", "inf", "-inf", "1979-05-27", "07:32:00", "10000000000000000000000000")
NUMBER = (*ANYWHERE, '"fast"', "true", "[]", "[0.1, 0.2]", "{a = 1}", '"0.1"')
WORD = ("3", "1.5", "true", "[]", "{}", '""', '"fly"', "2020-01-01T00:00:00Z")
WHOLE = (*NUMBER, "1.5", "-1")

# (section, key, wrong values): every one must be refused, at its own line, under its own name.
WRONG = [
    ("title", "title", ("3", "true", "[1]", "nan")),
    (
        "surface",
        "formula",
        (
            "3",
            "true",
            "[]",
            '""',
            '"x**"',
            '"y*"',
            '"x^2"',
            '"x.__class__"',
            "\"__import__('os').system('touch hacked')\"",
            '"lambda: x"',
            '"[x for x in y]"',
            '"x; a"',
            '"exp(x, x)"',
            '"ln(x) + a"',
            '"' + "(" * 500 + "x" + ")" * 500 + '"',
            '"x[0]"',
            '"x if a else 1"',
        ),
    ),
    (
        "surface",
        "variables",
        ("3", '"x"', "[]", "[1]", '["y"]', '["x", "x"]', '["x", "z"]', '[""]'),
    ),
    ("surface", "noise", ("1.0", '"isotropic"', "[]", "true")),
    ("surface.parameters", "a", (*NUMBER,)),
    ("dynamics", "kind", ("3", "true", '"sdg"', '"SGD"', '""', "[]", '"adam"')),
    ("dynamics", "learning_rate", (*NUMBER, "0", "-0.1", "50.0")),
    ("dynamics", "batch_size", (*NUMBER, "0", "-8")),
    ("dynamics", "sampling", (*WORD, '"with replacement"')),
    ("run", "n_replicas", (*WHOLE, "0", "5000000000")),
    ("run", "n_steps", (*WHOLE, "0")),
    ("run", "burn_in", (*WHOLE, "40", "41")),
    ("run", "seed", (*WHOLE, "18446744073709551616")),
    (
        "run",
        "start",
        (
            "true",
            '"here"',
            "{x = 1}",
            "[]",
            "[[]]",
            '["a"]',
            "[1.0, 2.0]",
            "[[1], [2]]",
            "1e15",
            "[true]",
        ),
    ),
    ("run", "dtype", (*WORD, '"float16"')),
    ("run", "threads", (*WHOLE, "0", "100000")),
    ("run", "on_divergence", (*WORD, '"ignore"')),
    ("run", "checkpoint", ('"yes"', "0", "-5", "[]", "{}", "nan", "1979-05-27")),
    ("run", "first_replica", (*WHOLE,)),
    ("observe[0]", "kind", ("3", '"histgram"', '"Histogram"', "[]", '"run"')),
    ("observe[0]", "bins", ('"many"', "true", "0", "-3", "[]", "[20, 20]", "1.5", "nan", "{}")),
    (
        "observe[0]",
        "range",
        (
            '"wide"',
            "1.0",
            "[1.0, -1.0]",
            "[0.0]",
            "true",
            "{}",
            "[-inf, inf]",
            "[[1.0]]",
            "[100.0, 200.0]",
            '["a", "b"]',
        ),
    ),
    ("observe[0]", "every", (*WHOLE, "0", "1000")),
    ("observe[0]", "name", ("3", '""', "true")),
    ("predict[0]", "kind", ("3", '"laplce"', '"guess"', "true", '"compare"', '"__init__"')),
    ("predict[0]", "temperature", (*NUMBER, "-1", "0")),
    ("predict[0]", "compare", ("1", '"yes"', "[]", "0.5")),
    ("predict[0]", "resolution", ('"fine"', "true", "[]", "nan")),
    (
        "sweep",
        "dynamics.momentum",
        (
            "3",
            "0.5",
            "[]",
            "true",
            '["fast"]',
            "[true]",
            "[0.1, nan]",
            "[0.1, 0.1]",
            "[0.1, 1.0]",
            "[0.1, -0.5]",
            "[[0.1]]",
            "{from = 0}",
            "{from = 0, to = 1, number = 1}",
            '{from = 0, to = 0.5, number = 3, scale = "log"}',
            '{from = 0, to = 0.5, number = 3, scale = "cubic"}',
            "{from = 0, to = 0.5, number = 3, steps = 2}",
            '{from = "a", to = 1, number = 3}',
            "{from = 0, to = 0.5, number = 1000000}",
        ),
    ),
    ("sweep", "zip", ("1", '"yes"', "[]")),
    ("output", "folder", ("3", "true", '""', "[]", '"a\\u0000b"')),
    ("output", "figures", ("1", '"no"', "[]")),
]


def mutated():
    """(text, field, line) for every wrong value, misspelt key and missing section of SOUND."""
    lines = SOUND.splitlines()
    headers = [k for k, line in enumerate(lines) if line.startswith("[")]
    for section, key, wrong in WRONG:
        at = place(lines, section, key)
        field = {"title": "title", "sweep": "sweep"}.get(section, f"{section}.{key}")
        for value in wrong:
            text = "\n".join(
                [*lines[:at], f"{lines[at].split(' = ')[0]} = {value}", *lines[at + 1 :]]
            )
            yield text, field if section != "sweep" else key, at + 1
    seed = place(lines, "run", "seed")  # in its place: every other line keeps its number
    for value in ("3", '""', '"gpu"', '"cuda:"', '"cuda:-1"', '"CUDA"', "[]"):
        yield (
            "\n".join([*lines[:seed], f"device = {value}", *lines[seed + 1 :]]),
            "device",
            seed + 1,
        )
    for k, line in enumerate(lines):
        if " = " in line and not line.startswith('"'):
            key, value = line.split(" = ", 1)
            yield "\n".join([*lines[:k], f"{key}z = {value}", *lines[k + 1 :]]), f"{key}z", k + 1
    for k in headers:
        name = lines[k].strip("[]")
        misspelt = lines[k].replace(name, name + "s")
        text = "\n".join([*lines[:k], misspelt, *lines[k + 1 :]])
        yield text, f"{name.replace('surface.', 'surface.')}s", k + 1
        if name not in ("surface.parameters", "observe", "predict", "sweep", "output"):
            end = next((h for h in headers if h > k), len(lines))
            yield "\n".join(lines[:k] + lines[end:]), name, None


def place(lines, section, key):
    """The index of the line of a key of SOUND."""
    if section == "title":
        return 0
    name, number = re.fullmatch(r"([a-z.]+)(?:\[(\d)\])?", section).groups()
    starts = [k for k, line in enumerate(lines) if line.strip("[]") == name]
    for k in range(starts[int(number or 0)] + 1, len(lines)):
        if lines[k].startswith((f"{key} =", f'"{key}" =')):
            return k
    raise KeyError(key)


MUTATED = list(mutated())

# (text, what the message must hold): syntax, structure, and plain nastiness.
NASTY = {
    "empty": ("", "line 1"),
    "comment only": ("# nothing\n", "line 1"),
    "no value": ("a = \n", "line 1"),
    "no equals": ("\n\nlearning rate 3\n", "line 3"),
    "two values": ("[run]\nn_steps = 3 4\n", "line 2"),
    "open string": ('title = "abc\n[run]\n', "line 1"),
    "open array": ("[run]\nstart = [1,\n2\n", "line 3"),
    "open table": ("a = {b = 1\n", "line 1"),
    "open multi-line string": ('title = """\nabc\n', "line 2"),
    "open header": ("[run\nn_steps = 3\n", "line 1"),
    "duplicate key": (SOUND.replace("seed = 1", "seed = 1\nseed = 2"), "line 19"),
    "duplicate section": (SOUND + "[run]\nseed = 1\n", "line 45"),
    "key over table": ("[surface]\nname = 1\n[surface.name]\na = 1\n", "line 3"),
    "bad escape": ('title = "\\q"\n', "line 1"),
    "bare word": ("title = fast\n", "line 1"),
    "Python": ("import os\nos.system('true')\n", "line 1"),
    "JSON": ('{"surface": {"formula": "x**2"}}\n', "line 1"),
    "YAML": ("surface:\n  formula: x**2\n", "line 1"),
    "control character": ('title = "a\x07b"\n', "line 1"),
    "zero byte": ('title = "a\x00b"\n', "line 1"),
    "bare carriage return": ("a = 1\rb = 2\n", "line 1"),
    "deep array": ("[run]\nstart = " + "[" * 20_000 + "]" * 20_000, "line 2"),
    "deep array, read": ("[run]\nstart = " + "[" * 80 + "]" * 80, "line 2"),
    "deep table": ("x = " + "{a = " * 80 + "1" + "}" * 80, "line 1"),
    "long key": ("\n" + "a." * 60_000 + "a = 1\n", "line 2"),
    "long header": ("[" + '"a" . ' * 60_000 + "a]\n", "line 1"),
    "thousands of digits": ("[run]\nseed = " + "9" * 6_000, "line 2"),
    "hexadecimal giant": ("[run]\nseed = 0x" + "f" * 6_000, "line 2"),
    "impossible date": ("\ntitle = 2021-02-30\n", "line 2"),
    "not sections": ("surface = 1\ndynamics = 2\nrun = 3\n", "surface"),
    "array of surfaces": (SOUND.replace("[surface]\n", "[[surface]]\n"), "surface"),
    "single observe": (
        "[surface]\n[dynamics]\n[run]\n[observe]\nkind = 'moments'\n",
        "[[observe]]",
    ),
    "observe of numbers": (
        SOUND.split("[[observe]]")[0].replace("[surface]", "observe = [1]\n[surface]", 1),
        "observe",
    ),
    "no formula": (
        SOUND.replace('formula = "x**4/4 - a*x**3/3 - x**2/2"\n', ""),
        "surface.formula",
    ),
    "two surfaces": (SOUND.replace("variables", "name = 'double_well'\nvariables"), "surface.name"),
    "no such well": ("[surface]\nname = 'doublewell'\n[dynamics]\n[run]\n", "double_well"),
    "well's option": (
        "[surface]\nname = 'double_well'\nb = 2\n[dynamics]\n[run]\n",
        "line 3, surface.b",
    ),
    "well's wrong value": (
        "[surface]\nname = 'mueller_brown'\nscale = -1.0\n[dynamics]\n[run]\n",
        "line 3, surface.scale",
    ),
    "well without what it needs": (
        "[surface]\nname = 'quadratic'\n[dynamics]\n[run]\n",
        "surface.hessian",
    ),
    "indefinite Hessian": (
        "[surface]\nname = 'quadratic'\nhessian = [[1.0, 2.0], [2.0, 1.0]]\n[dynamics]\n[run]\n",
        "surface.hessian",
    ),
    "ragged Hessian": (
        "[surface]\nname = 'quadratic'\nhessian = [[1.0, 2.0], [2.0]]\n[dynamics]\n[run]\n",
        "surface.hessian",
    ),
    "no kind of noise": (SOUND.replace('{kind = "isotropic", ', "{"), "surface.noise.kind"),
    "unknown noise": (SOUND.replace('"isotropic"', '"isotopic"'), "isotropic"),
    "negative sigma": (SOUND.replace("sigma = 1.0", "sigma = -1.0"), "line 5, surface.noise.sigma"),
    "unknown field of noise": (
        SOUND.replace("sigma = 1.0", "sigm = 1.0"),
        "line 5, surface.noise.sigm",
    ),
    "parameter without symbol": (
        SOUND.replace("a = 0.4", "a = 0.4\nb = 1.0"),
        "line 8, surface.parameters.b",
    ),
    "reserved parameter": (
        SOUND.replace("a = 0.4", "a = 0.4\nnoise = 1.0"),
        "line 8, surface.parameters.noise",
    ),
    "parameter missing": (SOUND.replace("a = 0.4\n", ""), "surface.formula"),
    "no noise": (SOUND.replace('noise = {kind = "isotropic", sigma = 1.0}\n', ""), "surface.noise"),
    "no learning rate": (
        SOUND.replace("learning_rate = 0.1\n", ""),
        "line 8, dynamics.learning_rate: missing",
    ),
    "no replicas": (SOUND.replace("n_replicas = 64\n", ""), "run.n_replicas: missing"),
    "kind missing": (SOUND.replace('kind = "moments"\n', ""), "line 31, observe[1].kind: missing"),
    "groups": (SOUND.replace("every = 2", "groups = [0]"), "line 33, observe[1].groups"),
    "same name twice": (SOUND.replace("every = 2", 'name = "density"'), "line 33, observe[1].name"),
    "same prediction twice": (
        SOUND.replace("[sweep]", "[[predict]]\nkind = 'laplace'\n[sweep]"),
        "predict[1].name",
    ),
    "schedule unknown": (
        SOUND.replace("learning_rate = 0.1", 'learning_rate = {schedule = "cosin"}'),
        "line 10, dynamics.learning_rate",
    ),
    "schedule of a schedule": (
        SOUND.replace("learning_rate = 0.1", "learning_rate = {schedule = {}}"),
        "line 10, dynamics.learning_rate",
    ),
    "sweep of nothing": (SOUND.replace('"dynamics.momentum" = [0.0, 0.5]\n', ""), "sweep"),
    "sweep of a section": (SOUND.replace('"dynamics.momentum"', '"dynamics"'), "line 40"),
    "sweep of an unknown field": (
        SOUND.replace('"dynamics.momentum"', '"dynamics.momntum"'),
        "line 40, dynamics.momntum",
    ),
    "sweep of an unknown section": (
        SOUND.replace('"dynamics.momentum"', '"dynamic.momentum"'),
        "line 40",
    ),
    "sweep of text": (SOUND.replace('"dynamics.momentum"', '"dynamics.sampling"'), "line 40"),
    "sweep of the output": (SOUND.replace('"dynamics.momentum"', '"output.folder"'), "line 40"),
    "sweep beyond the list": (SOUND.replace('"dynamics.momentum"', '"observe.7.bins"'), "line 40"),
    "sweep of a word of a list": (
        SOUND.replace('"dynamics.momentum"', '"observe.first.bins"'),
        "line 40",
    ),
    "sweep through a number": (SOUND.replace('"dynamics.momentum"', '"run.seed.more"'), "line 40"),
    "sweep of dots": (SOUND.replace('"dynamics.momentum"', '"dynamics..momentum"'), "line 40"),
    "sweep twice": (SOUND.replace("zip = false", "dynamics.momentum = [0.1]"), "line 41"),
    "sweep zipped unevenly": (
        SOUND.replace("zip = false", 'zip = true\n"run.seed" = [1, 2, 3]'),
        "line 41, sweep.zip",
    ),
    "sweep of too many": (
        SOUND.replace("zip = false", '"run.seed" = {from = 1, to = 9000, number = 9000}'),
        "sweep",
    ),
    "sweep of a wrong value": (
        SOUND.replace("[0.0, 0.5]", "[\n0.0,\n1.5]"),
        "line 42, dynamics.momentum",
    ),
    "no data": (
        "[surface]\nformula = '(w*x - y)**2/2'\ndata = 'none.csv'\n[dynamics]\n[run]\n",
        "line 3, surface.data",
    ),
    "data is a folder": (
        "[surface]\nformula = '(w*x - y)**2/2'\ndata = '.'\n[dynamics]\n[run]\n",
        "line 3, surface.data",
    ),
    "data is this file": (
        "[surface]\nformula = '(w*x - y)**2/2'\ndata = 'trial.toml'\n[dynamics]\n[run]\n",
        "line 3, surface.data",
    ),
    "data with a zero": (
        '[surface]\nformula = "(w*x - y)**2/2"\ndata = "a\\u0000"\n[dynamics]\n[run]\n',
        "line 3, surface.data",
    ),
    "data and builtin": (
        "[surface]\nformula = 'w*x'\ndata = 'a.csv'\nbuiltin = 'diabetes'\n[dynamics]\n[run]\n",
        "line 4, surface.builtin",
    ),
    "unknown builtin": (
        "[surface]\nname = 'linear_regression'\nbuiltin = 'diabetis'\n[dynamics]\n[run]\n",
        "diabetes",
    ),
    "regression without data": (
        "[surface]\nname = 'linear_regression'\n[dynamics]\n[run]\n",
        "surface.data",
    ),
    "noise on data": (
        "[surface]\nname = 'linear_regression'\nbuiltin = 'diabetes'\nnoise = {kind = 'isotropic'}"
        "\n[dynamics]\n[run]\n",
        "line 4, surface.noise",
    ),
    "noise on a sum": (
        "[surface]\nformula = '(w*x - y)**2'\nbuiltin = 'diabetes'\nnoise = 1\n[dynamics]\n[run]\n",
        "line 4, surface.noise",
    ),
    "negative l2": (
        "[surface]\nformula = '(w*x - y)**2'\nbuiltin = 'diabetes'\nl2 = -1\n[dynamics]\n[run]\n",
        "line 4, surface.l2",
    ),
    "l2 without data": (
        "[surface]\nformula = 'x**2'\nl2 = 1\n[dynamics]\n[run]\n",
        "line 3, surface.l2",
    ),
    "splitting": (
        "[surface]\nname = 'double_well'\n[dynamics]\nkind = 'underdamped'\ntemperature = 0.1\n"
        "friction = 1\ndt = 0.1\nsplitting = 'BAB'\n[run]\nn_replicas = 1\nn_steps = 9\n",
        "line 8, dynamics.splitting",
    ),
    "another's field": (
        "[surface]\nname = 'double_well'\n[dynamics]\nkind = 'overdamped'\ntemperature = 0.1\n"
        "dt = 0.1\nfriction = 1\n[run]\n",
        "line 7, dynamics.friction",
    ),
    "no confinement": (
        SOUND.replace("x**4/4 - a*x**3/3 - x**2/2", "a*x**2/2 - x**4/4").replace(
            "range = [-3.0, 3.0]\n", ""
        ),
        "surface: ",
    ),
    "huge float": (
        SOUND.replace("learning_rate = 0.1", "learning_rate = 1e999"),
        "line 10, dynamics.learning_rate",
    ),
}


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "600")


def refused(path, capsys, *options):
    """What the command line says to a file that it refuses."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["langevin", "run", str(path), *options])
        with pytest.raises(SystemExit) as caught:
            cli.main()
    shown = capsys.readouterr()
    assert caught.value.code == 2, shown
    assert "Traceback" not in shown.err + shown.out
    assert shown.err.startswith("langevin: ") and shown.err.count("\n") == 1, shown.err
    return shown.err


def test_there_are_enough_of_them():
    assert len(MUTATED) >= 200 and len(NASTY) >= 70
    assert len({text for text, _, _ in MUTATED}) == len(MUTATED)


@pytest.mark.parametrize("start", range(0, len(MUTATED), 20))
def test_a_wrong_field_is_named(start, tmp_path, capsys):
    path = tmp_path / "trial.toml"
    for text, field, line in MUTATED[start : start + 20]:
        path.write_text(text, encoding="utf-8")
        message = refused(path, capsys)
        assert field in message, (text, message)
        assert "trial.toml" in message
        if line is not None:
            assert f"trial.toml, line {line}, " in message, (text, message)
    assert not (tmp_path / "hacked").exists() and not Path("hacked").exists()


@pytest.mark.parametrize("name", NASTY)
def test_a_nasty_file_is_refused(name, tmp_path, capsys):
    text, expected = NASTY[name]
    path = tmp_path / "trial.toml"
    path.write_text(text, encoding="utf-8", newline="")
    message = refused(path, capsys)
    assert expected in message, message
    assert "trial.toml" in message


def test_the_sound_file_is_sound(tmp_path):
    """Otherwise every refusal above could be about something else."""
    path = tmp_path / "trial.toml"
    path.write_text(SOUND, encoding="utf-8")
    record = experiment.run(path)
    assert [point["values"] for point in record["points"]] == [
        {"dynamics.momentum": 0.0},
        {"dynamics.momentum": 0.5},
    ]


def test_what_is_no_text_file(tmp_path, capsys):
    path = tmp_path / "trial.toml"
    assert "no such file" in refused(path, capsys)
    (tmp_path / "trail.toml").write_text(SOUND)
    assert "Did you mean trail.toml" in refused(path, capsys)
    assert "is a folder" in refused(tmp_path, capsys)
    path.write_bytes(b"[run]\n\xff\xfe")
    assert "line 2: byte 0xff" in refused(path, capsys)
    path.write_bytes(bytes(range(256)) * 40)
    assert "trial.toml, line" in refused(path, capsys)
    path.write_bytes(b"#" * (2**20 + 1))
    assert "larger than 1024 KiB" in refused(path, capsys)
    path.write_bytes(b"\xef\xbb\xbf" + SOUND.encode())
    assert document.read(path).values["title"] == "a sound file", "a byte order mark is skipped"
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        assert "not a regular file" in refused(tmp_path / "pipe", capsys)


def test_a_field_typed_twice_wrong_is_reported_once_and_nearest(tmp_path, capsys):
    path = tmp_path / "trial.toml"
    path.write_text(SOUND.replace("momentum = 0.0", "momntum = 0.0"))
    assert "did you mean momentum?" in refused(path, capsys)
    path.write_text(SOUND.replace("[run]", "[rum]"))
    assert "did you mean run?" in refused(path, capsys)
    path.write_text(SOUND.replace("learning_rate = 0.1", 'learning_rate = "fast"'))
    assert refused(path, capsys).strip() == (
        'langevin: trial.toml, line 10, dynamics.learning_rate: "fast" given; a positive number is '
        "needed, for example 0.05."
    )


def test_an_output_that_cannot_be_written(tmp_path, capsys):
    path = tmp_path / "trial.toml"
    path.write_text(SOUND)
    (tmp_path / "file").write_text("")
    assert "output.folder" in refused(path, capsys, "--output", str(tmp_path / "file" / "inside"))
    assert "output.folder" in refused(path, capsys, "--output", str(tmp_path / "file"))
    assert "output.folder" in refused(path, capsys, "--output", str(tmp_path / ("x" * 400)))
    assert "cannot be written" in refused(path, capsys, "--output", "/proc/langevin")
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("all my work")
    assert "thesis.tex" in refused(path, capsys, "--output", str(other))
    assert "thesis.tex" in refused(path, capsys, "--output", str(other), "--overwrite")
    assert (other / "thesis.tex").read_text() == "all my work"
    for scale in ("0", "-1", "2", "nan"):
        assert "scale" in refused(path, capsys, "--scale", scale)


@given(st.data())
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_edit_of_a_sound_file_is_read_or_refused(tmp_path_factory, data):
    """Random deletions, insertions and copies within the text; refusals name the file."""
    text = SOUND
    for _ in range(data.draw(st.integers(1, 3))):
        a = data.draw(st.integers(0, len(text)))
        b = data.draw(st.integers(a, min(len(text), a + 30)))
        put = data.draw(
            st.one_of(
                st.sampled_from(
                    ["", "[", "]", '"', "'", "=", "{", "}", "\n", ".", "#", "0", "-", ","]
                ),
                st.text(max_size=4),
                st.just(text[b : b + 20]),
            )
        )
        text = text[:a] + put + text[b:]
    path = tmp_path_factory.getbasetemp() / "edited.toml"
    path.write_text(text, encoding="utf-8", errors="replace", newline="")
    try:
        experiment.run(path, dry_run=True)
    except LangevinError as error:
        assert isinstance(error, ExperimentError)
        assert str(error).startswith("edited.toml")


toml_values = st.recursive(
    st.one_of(
        st.integers(-(2**70), 2**70),
        st.floats(),
        st.booleans(),
        st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=6),
        st.sampled_from(["histogram", "sgd", "x**2", "cosine", "isotropic", "a", "diabetes"]),
    ),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["kind", "schedule", "from", "a"]), inner, max_size=2)
    ),
    max_leaves=5,
)


def written(value):
    """A value as TOML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k} = {written(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(written, value)) + "]"
    return json.dumps(value).replace("NaN", "nan").replace("Infinity", "inf")


@given(st.data())
@settings(max_examples=400, deadline=None)
def test_any_value_in_any_place_is_read_or_refused(tmp_path_factory, data):
    lines = SOUND.splitlines()
    places = [k for k, line in enumerate(lines) if " = " in line]
    for k in data.draw(st.lists(st.sampled_from(places), min_size=1, max_size=2)):
        lines[k] = f"{lines[k].split(' = ')[0]} = {written(data.draw(toml_values))}"
    path = tmp_path_factory.getbasetemp() / "valued.toml"
    path.write_text("\n".join(lines), encoding="utf-8")
    try:
        experiment.run(path, dry_run=True)
    except ExperimentError as error:
        assert re.match(r"valued\.toml(, line \d+)?, ?[\w\"\[]", str(error)), str(error)


@given(st.sampled_from(["bins", "range", "every", "name", "axes"]), toml_values)
@settings(max_examples=60, deadline=None)
def test_any_observer_runs_or_is_refused_by_name(tmp_path_factory, field, value):
    """Observers are checked where their run is known, so these files are run."""
    text = SOUND.replace("[0.0, 0.5]", "[0.0]").replace("bins = 20", "bins = 20\naxes = [0]")
    key = {"bins": "bins = 20", "range": "range = [-3.0, 3.0]", "every": "every = 1"}
    text = text.replace(key.get(field, {"name": 'name = "density"'}.get(field, "axes = [0]")),
                        f"{field} = {written(value)}", 1)  # fmt: skip
    folder = tmp_path_factory.mktemp("observers")
    (folder / "observed.toml").write_text(text, encoding="utf-8")
    try:
        experiment.run(folder / "observed.toml", console=Console(file=io.StringIO()))
    except ExperimentError as error:
        assert f"observe[0].{field}" in str(error) or "observe[1].name" in str(error), str(error)


@given(st.binary(max_size=200))
@settings(max_examples=100, deadline=None)
def test_any_bytes_are_read_or_refused(tmp_path_factory, raw):
    path = tmp_path_factory.getbasetemp() / "bytes.toml"
    path.write_bytes(raw)
    with pytest.raises(ExperimentError, match=r"bytes\.toml"):
        experiment.run(path, dry_run=True)


@pytest.mark.parametrize("name", ["empty", "negative sigma", "deep array", "no confinement"])
def test_in_a_process_of_its_own(name, tmp_path):
    path = tmp_path / "trial.toml"
    path.write_text(NASTY[name][0])
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent), "COLUMNS": "600"}
    done = subprocess.run(
        [sys.executable, "-m", "langevin", "run", str(path)],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("langevin: trial.toml") and "Traceback" not in done.stderr
    assert NASTY[name][1] in done.stderr
