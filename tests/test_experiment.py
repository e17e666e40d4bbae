"""Experiment files: what they run equals simulate(), sweeps, resuming, and what is written."""

import dataclasses
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import langevin as lv
from langevin import experiment
from langevin.errors import ExperimentError
from langevin.experiments import document, kinds, measures, report, schema, store, sweep

TEXT = """\
title = "tilted [well]"
[surface]
formula = "x**4/4 - a*x**3/3 - x**2/2"
noise = {kind = "isotropic", sigma = 1.0}
[surface.parameters]
a = 0.2
[dynamics]
kind = "sgd"
learning_rate = 0.1
batch_size = 0.25
[run]
n_replicas = 1024
n_steps = 800
burn_in = 300
seed = 5
[[observe]]
kind = "histogram"
bins = 30
every = 5
[[observe]]
kind = "occupation"
every = 5
[[observe]]
kind = "moments"
every = 5
[[predict]]
kind = "boltzmann_gibbs"
[[predict]]
kind = "laplace"
name = "two Gaussians"
compare = false
[[predict]]
kind = "critical_noise"
i = 0
j = 1
[sweep]
"dynamics.learning_rate" = [0.1, 0.15, 0.2]
[output]
folder = "out"
"""


@pytest.fixture
def quiet():
    return Console(file=io.StringIO(), width=200)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "trial.toml"
    path.write_text(TEXT, encoding="utf-8")
    return path


def expected(learning_rate):
    """The same point by hand."""
    surface = lv.Surface("x**4/4 - a*x**3/3 - x**2/2", a=0.2, noise=lv.Isotropic(1.0))
    sgd = lv.SGD(learning_rate, 0.25)
    result = lv.simulate(
        surface,
        sgd,
        n_replicas=1024,
        n_steps=800,
        burn_in=300,
        seed=5,
        observe=(lv.Histogram(bins=30, every=5), lv.Occupation(every=5), lv.Moments(every=5)),
        progress=False,
    )
    return surface, sgd, result


def test_numbers_equal_a_direct_run(file, quiet):
    record = experiment.run(file, console=quiet)
    assert [p["values"] for p in record["points"]] == [
        {"dynamics.learning_rate": v} for v in (0.1, 0.15, 0.2)
    ]
    for point in record["points"][::2]:
        surface, sgd, result = expected(point["values"]["dynamics.learning_rate"])
        ratio, moments = result.occupation().ratio(0, 1), result.moments()
        found = point["estimates"]
        assert found["p_0/p_1"] == dataclasses.asdict(ratio)
        assert found["p_0"]["value"] == result.occupation().probability[0]
        assert found["mean[0]"]["value"] == moments.mean[0]
        assert found["cov[0,0]"]["stderr"] == moments.covariance_stderr[0, 0]
        law = lv.predict.boltzmann_gibbs(surface, sgd)
        assert point["predictions"]["boltzmann_gibbs"]["p_0/p_1"] == law.ratio(0, 1)
        assert point["predictions"]["boltzmann_gibbs"]["mean[0]"] == law.moments()[0][0]
        critical = lv.predict.critical_noise(surface, sgd, 0, 1)
        assert point["predictions"]["critical_noise"]["value"] == critical.value
        comparison = lv.compare(result, law)
        assert point["comparisons"]["boltzmann_gibbs"]["z"] == comparison.z
        assert point["comparisons"]["boltzmann_gibbs"]["verdict"] == comparison.verdict
        assert set(point["comparisons"]) == {"boltzmann_gibbs"}, "the others are not to be compared"


def test_what_is_written(file, quiet):
    experiment.run(file, console=quiet)
    out = file.parent / "out"
    record = json.loads((out / "results.json").read_text())
    assert record["title"] == "tilted [well]" and record["interrupted"] is False
    assert record["langevin"] == lv.__version__ and len(record["points"]) == 3
    assert (out / "trial.toml").read_text() == TEXT
    assert sorted(record["figures"]) == ["cov-0-0.png", "p0-p1.png"]
    shown = quiet.file.getvalue()
    for text in (shown, (out / "table.txt").read_text()):
        assert "tilted [well]" in text and "learning_rate" in text and "two Gaussians" in text
        assert text.count("p_0/p_1") == 3 and "z=" in text
        value = record["points"][0]["estimates"]["p_0/p_1"]["value"]
        assert f"{value:.5g} ±" in text
    for path in (*out.glob("*.png"), *out.glob("point-*/density.png")):
        assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 10_000
    assert len(list(out.glob("point-*/density.png"))) == 3
    assert not list(out.rglob("*.tmp"))


def test_finished_points_are_read_back(file, quiet):
    first = experiment.run(file, console=quiet)
    records = sorted((file.parent / "out").glob("point-*/point.json"))
    before = [path.stat().st_mtime_ns for path in records]
    file.write_text("# a comment changes nothing\n" + TEXT.replace("figures = true", ""))
    again = experiment.run(file, console=quiet)
    assert [path.stat().st_mtime_ns for path in records] == before
    assert again["points"] == json.loads(json.dumps(first["points"]))
    assert quiet.file.getvalue().count("read back") == 3

    records[1].unlink()
    experiment.run(file, console=quiet)
    after = [path.stat().st_mtime_ns for path in records]
    assert after[0] == before[0] and after[2] == before[2] and after[1] > before[1]

    records[2].write_text("{ truncated")
    third = experiment.run(file, console=quiet)
    assert estimates_of(third) == estimates_of(first)


def test_a_record_of_another_point_is_not_read_back(tmp_path, file):
    point = schema.experiment(document.read(file)).points[0]
    sound = {"digest": point.digest, "interrupted": False}
    for record, found in (
        (sound, sound),
        (sound | {"interrupted": True}, None),
        (sound | {"digest": "of another"}, None),
        ({"digest": point.digest}, None),
        ([sound], None),
    ):
        (tmp_path / store.POINT).write_text(json.dumps(record))
        assert store.finished(tmp_path, point) == found


def estimates_of(record):
    return [point["estimates"] for point in record["points"]]


def test_a_changed_file_needs_overwrite(file, quiet):
    experiment.run(file, console=quiet)
    (file.parent / "out" / "notes.txt").write_text("mine")
    for old, new in (("seed = 5", "seed = 6"), ("a = 0.2", "a = 0.3"), ("bins = 30", "bins = 31")):
        file.write_text(TEXT.replace(old, new))
        with pytest.raises(ExperimentError, match=r"line \d+, output.folder.*--overwrite"):
            experiment.run(file, console=quiet)
    file.write_text(TEXT.replace("[0.1, 0.15, 0.2]", "[0.2]"))
    record = experiment.run(file, console=quiet, overwrite=True)
    assert len(record["points"]) == 1
    assert len(list((file.parent / "out").glob("point-*"))) == 1
    assert (file.parent / "out" / "notes.txt").read_text() == "mine"


def test_a_refused_run_leaves_nothing_in_the_way(file, quiet):
    file.write_text(TEXT.replace("bins = 30", "bins = 0"))
    with pytest.raises(ExperimentError, match=r"line 18, observe\[0\].bins"):
        experiment.run(file, console=quiet)
    file.write_text(TEXT)
    assert len(experiment.run(file, console=quiet)["points"]) == 3


def test_an_interruption_between_points(file, quiet, monkeypatch):
    real, calls = lv.simulate, []

    def simulate(*arguments, **options):
        calls.append(options)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    monkeypatch.setattr(lv, "simulate", simulate)
    record = experiment.run(file, console=quiet)
    assert record["interrupted"] and len(record["points"]) == 1
    assert "run the same file again" in " ".join(quiet.file.getvalue().split())
    stored = json.loads((file.parent / "out" / "results.json").read_text())
    assert stored["interrupted"] and len(stored["points"]) == 1
    resumed = experiment.run(file, console=quiet)
    assert not resumed["interrupted"] and len(calls) == 4, "only the two others were run"
    file.write_text(TEXT.replace('"out"', '"elsewhere"'))
    assert estimates_of(resumed) == estimates_of(experiment.run(file, console=quiet))


def test_checkpoints_are_handed_on(file, quiet, monkeypatch):
    """simulate() with a checkpoint gets a folder for each point, and the seconds of the file."""
    real, seen = lv.simulate, []

    def simulate(surface, dynamics, *, checkpoint=None, checkpoint_every=30.0, **options):
        seen.append((checkpoint, checkpoint_every))
        return real(surface, dynamics, **options)

    monkeypatch.setattr(lv, "simulate", simulate)
    file.write_text(TEXT.replace("seed = 5", "seed = 5\ncheckpoint = 2.5"))
    experiment.run(file, console=quiet)
    out = file.parent / "out"
    assert seen == [(out / f"point-{k:04d}" / "checkpoint", 2.5) for k in range(3)]
    seen.clear()
    file.write_text(TEXT.replace("seed = 5", "seed = 5\ncheckpoint = false"))
    experiment.run(file, console=quiet, output=file.parent / "other")
    assert seen == [(None, 30.0)] * 3


def test_ctrl_c_writes_what_was_computed(tmp_path):
    """A real process, a real signal: exit status 130, a sound record, no traceback."""
    path = tmp_path / "long.toml"
    text = TEXT.replace("n_steps = 800", "n_steps = 4_000_000_000")
    path.write_text(text.replace("seed = 5", "seed = 5\ncheckpoint = 0.2"))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent), "COLUMNS": "200"}
    process = subprocess.Popen(
        [sys.executable, "-m", "langevin", "run", str(path)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    saved, first = tmp_path / "out" / "point-0000" / "checkpoint" / "checkpoint.npz", None
    for _ in range(1200):  # the first checkpoint is of step 0: wait for another
        time.sleep(0.05)
        if saved.exists():
            first = first or saved.stat().st_mtime_ns
            if saved.stat().st_mtime_ns != first:
                break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, (out, err)
    assert "Traceback" not in err and "run the same file again" in " ".join(out.split())
    record = json.loads((tmp_path / "out" / "results.json").read_text())
    assert record["interrupted"] and len(record["points"]) == 1
    assert 0 < record["points"][0]["steps_done"] < 4_000_000_000


# --- sweeps -------------------------------------------------------------------------------------


def grid(tmp_path, text, body=None):
    path = tmp_path / "sweep.toml"
    path.write_text((body or TEXT.split("[sweep]")[0]) + "[sweep]\n" + text)
    return [values for values, _ in sweep.points(document.read(path))]


def test_a_grid_and_a_zip(tmp_path):
    assert grid(tmp_path, '"dynamics.learning_rate" = [1, 2]\nrun.n_replicas = [10, 20, 30]') == [
        {"dynamics.learning_rate": a, "run.n_replicas": b} for a in (1, 2) for b in (10, 20, 30)
    ]
    both = 'dynamics.learning_rate = [1, 2]\n"run.seed" = [7, 8]\nzip = true'
    assert grid(tmp_path, both) == [
        {"dynamics.learning_rate": 1, "run.seed": 7},
        {"dynamics.learning_rate": 2, "run.seed": 8},
    ]
    [one] = grid(tmp_path, "surface.parameters.a = [0.5]")
    assert one == {"surface.parameters.a": 0.5}


def test_ranges(tmp_path):
    def values(text):
        return [v for point in grid(tmp_path, f'"run.seed" = {text}') for v in point.values()]

    assert values("{from = 0, to = 1, number = 5}") == [0, 0.25, 0.5, 0.75, 1]
    assert values('{from = 0.01, to = 1, number = 3, scale = "log"}') == [0.01, 0.1, 1]
    assert values('{from = 1, to = 8, number = 7, scale = "log", round = true}') == [
        1,
        2,
        3,
        4,
        6,
        8,
    ]
    assert all(isinstance(v, int) for v in values("{from = 1, to = 9, number = 3, round = true}"))
    table = "sweep = {run = {seed = {from = 3, to = 1, number = 3}}}\n" + TEXT.split("[sweep]")[0]
    path = tmp_path / "inline.toml"
    path.write_text(table)
    assert [v["run.seed"] for v, _ in sweep.points(document.read(path))] == [3, 2, 1]


def test_any_number_of_the_file_can_be_swept(file):
    for name, values, found in (
        ("observe[0].bins", [10, 20], lambda p: p.observers[0].bins),
        ("observe.2.every", [2, 3], lambda p: p.observers[2].every),
        ("surface.noise.sigma", [0.5, 2.0], lambda p: p.surface.noise.sigma),
        ("surface.parameters.a", [0.1, 0.2], lambda p: p.surface.parameters["a"]),
        ("run.burn_in", [1, 2], lambda p: p.run["burn_in"]),
        ("dynamics.momentum", [0.1, 0.2], lambda p: p.dynamics.momentum),
        ("dynamics.sampling", ["with_replacement", "without_replacement"],
         lambda p: p.dynamics.sampling),
        ("predict.0.temperature", [0.3, 0.4], lambda p: p.predictions[0].arguments["temperature"]),
    ):  # fmt: skip
        file.write_text(TEXT.split("[sweep]")[0] + f'[sweep]\n"{name}" = {json.dumps(values)}\n')
        points = schema.experiment(document.read(file)).points
        assert [found(point) for point in points] == values
        assert len({point.digest for point in points}) == 2


def test_a_digest_is_of_what_is_computed(file):
    def digests(text):
        file.write_text(text)
        return [point.digest for point in schema.experiment(document.read(file)).points]

    first = digests(TEXT)
    same = TEXT.replace("seed = 5", "seed = 5\nthreads = 1\ncheckpoint = false\nburn_in = 300")
    assert digests(same.replace("burn_in = 300\nseed", "seed")) == first
    for old, new in (("1024", "1025"), ("sigma = 1.0", "sigma = 1.1"), ("every = 5", "every = 6")):
        assert not set(digests(TEXT.replace(old, new))) & set(first)
    assert digests(TEXT.replace("[0.1, 0.15, 0.2]", "[0.1, 0.2]")) == [first[0], first[2]]


def test_a_point_that_is_refused_does_not_end_the_sweep(file, quiet):
    file.write_text(TEXT.replace("[0.1, 0.15, 0.2]", "[0.1, 40.0]"))
    record = experiment.run(file, console=quiet)
    assert len(record["points"]) == 1 and len(record["refused"]) == 1
    assert record["refused"][0]["values"] == {"dynamics.learning_rate": 40.0}
    assert "line 37, dynamics.learning_rate" in record["refused"][0]["why"]
    file.write_text(TEXT.replace("[0.1, 0.15, 0.2]", "[40.0, 50.0]"))
    with pytest.raises(ExperimentError, match="unstable at every minimum"):
        experiment.run(file, console=quiet, overwrite=True)


def test_a_point_that_diverges_keeps_no_checkpoint(file, quiet):
    """It would end in the same place each time; what is interrupted keeps its own."""
    file.write_text(TEXT.replace("batch_size = 0.25", "batch_size = 0.01"))
    with pytest.raises(ExperimentError, match="escaped to infinity"):
        experiment.run(file, console=quiet)
    folder = file.parent / "out" / "point-0000"
    assert folder.exists() and not (folder / "checkpoint").exists()


def test_a_trial_takes_less_work(file, quiet):
    whole = schema.experiment(document.read(file)).points[0]
    part = schema.experiment(document.read(file), scale=0.01).points[0]
    assert part.run["n_replicas"] == 256
    work = part.run["n_replicas"] * part.run["n_steps"]
    assert work == pytest.approx(0.01 * whole.run["n_replicas"] * whole.run["n_steps"], rel=0.05)
    assert part.observers[0].every == 1
    assert schema.experiment(document.read(file), scale=0.5).points[0].run["n_steps"] == 800
    experiment.run(file, console=quiet, scale=0.3)
    assert (file.parent / "out-trial" / "results.json").exists()
    assert not (file.parent / "out").exists()


def test_a_dry_run_writes_nothing(file, quiet):
    experiment.run(file, console=quiet, dry_run=True)
    shown = quiet.file.getvalue()
    assert "trial.toml is sound: 3 point(s)." in shown and "burn_in = 300" in shown
    assert "momentum = 0.0" in shown, "defaults are filled in"
    assert [path.name for path in file.parent.iterdir()] == ["trial.toml"]


# --- what a file may name -----------------------------------------------------------------------


def test_kinds_are_found_by_looking():
    assert {"sgd", "overdamped", "underdamped"} <= set(kinds.dynamics())
    assert {"histogram", "occupation", "moments"} <= set(kinds.observers())
    assert {"boltzmann_gibbs", "chain", "laplace", "quadratic"} <= set(kinds.predictions())
    assert {"double_well", "mueller_brown", "linear_regression"} <= set(kinds.wells())
    assert "diabetes" in kinds.builtin_data() and "isotropic" in kinds.noises()
    assert kinds.snake("FirstPassage") == "first_passage" and kinds.snake("SGD") == "sgd"
    assert kinds.snake("StudentT") == "student_t"


def test_a_new_noise_and_a_new_schedule_need_no_schema(file, monkeypatch):
    @dataclasses.dataclass(frozen=True)
    class LouderNoise(lv.Isotropic):
        gain: float = 2.0

    LouderNoise.__module__ = "langevin.surfaces.noise"
    monkeypatch.setattr(lv.surfaces, "LouderNoise", LouderNoise, raising=False)

    @dataclasses.dataclass(frozen=True)
    class Linear:
        start: float
        end: float = 0.0

        def __array__(self, dtype=None, copy=None):
            return np.asarray(self.start + self.end)

    monkeypatch.setattr(kinds, "schedules", lambda: {"linear": Linear})
    kinds.noises.cache_clear()
    try:
        text = TEXT.replace('"isotropic", sigma = 1.0', '"louder_noise", sigma = 1.5, gain = 3.0')
        schedule = '{schedule = "linear", start = 1}'
        text = text.replace("learning_rate = 0.1", f"learning_rate = {schedule}")
        file.write_text(text.split("[sweep]")[0] + "[sweep]\ndynamics.learning_rate.end = [0.5, 1]")
        points = schema.experiment(document.read(file)).points
        assert points[0].surface.noise == LouderNoise(1.5, 3.0)
        assert [point.dynamics.learning_rate for point in points] == [Linear(1, 0.5), Linear(1, 1)]
        assert points[0].digest != points[1].digest
        file.write_text(text.split("[sweep]")[0].replace("start = 1", "strat = 1"))
        with pytest.raises(ExperimentError, match=r"learning_rate.strat.*did you mean start"):
            schema.experiment(document.read(file))
    finally:
        kinds.noises.cache_clear()


def test_estimates_of_an_observer_unknown_here():
    @dataclasses.dataclass
    class Passage:
        mean: lv.Estimate
        rate: np.ndarray
        rate_stderr: np.ndarray
        times: np.ndarray

        @property
        def median(self):
            return lv.Estimate(3.0, 0.5)

    passage = Passage(lv.Estimate(1.0, 0.1), np.eye(2), np.ones((2, 2)) / 8, np.arange(5))
    found = dict(measures._numbers(passage))
    [(name, value)] = measures._numbers(lv.Estimate(2.0, 0.1))
    assert name == "value" and value.value == 2.0
    assert found["mean"] == lv.Estimate(1.0, 0.1) and found["median"].value == 3.0
    assert found["rate[0,1]"] == lv.Estimate(0.0, 0.125) and len(found) == 6


def test_data_from_a_file(tmp_path):
    rng = np.random.Generator(np.random.PCG64(0))
    X, y = rng.normal(size=(50, 2)), rng.normal(size=50)
    names = 'one, two ,"out"\n'
    rows = "\n".join(",".join(map(repr, map(float, row))) for row in np.column_stack([X, y]))
    (tmp_path / "points.csv").write_text("# about\n" + names + rows + "\n")
    (tmp_path / "bare.csv").write_text(rows)
    np.save(tmp_path / "points.npy", np.column_stack([X, y]))
    head = (
        "[dynamics]\nkind='sgd'\nlearning_rate=0.1\nbatch_size=8\n[run]\nn_replicas=1\nn_steps=9\n"
    )

    def surface(text):
        path = tmp_path / "data.toml"
        path.write_text(head + "[surface]\n" + text)
        return schema.experiment(document.read(path)).points[0]

    wanted = lv.surfaces.linear_regression(X, y, l2=0.1)
    formula = 'formula = "(w*x - y)**2/2"\nl2 = 0.1\n'
    digests = set()
    for text in (
        'name = "linear_regression"\nl2 = 0.1\ndata = "points.csv"',
        formula + 'data = "points.csv"',
        formula + 'data = "bare.csv"',
        formula + 'data = "points.npy"',
        formula + 'data = "points.csv"\ncolumns = {x = ["one", "two"], y = "out"}',
        formula + 'data = "points.npy"\ncolumns = {x = [0, 1], y = 2}',
    ):
        point = surface(text)
        assert np.array_equal(point.surface.features, wanted.features)
        assert point.surface.energy(np.ones(2)) == wanted.energy(np.ones(2))
        digests.add(point.digest)
    assert len(digests) == 2, "a sum by formula is the same from any file of the same numbers"
    before = surface(formula + 'data = "bare.csv"').digest
    (tmp_path / "bare.csv").write_text(rows.replace(rows[:4], "9.25", 1))
    assert surface(formula + 'data = "bare.csv"').digest != before, "changed data are noticed"
    with pytest.raises(ExperimentError, match=r"columns.x: \"three\".*Known here: one, two"):
        surface(formula + 'data = "points.csv"\ncolumns = {x = "three", y = "out"}')
    np.save(tmp_path / "objects.npy", np.array([{}, []], dtype=object), allow_pickle=True)
    for bad in ("objects.npy", "words.csv", "ragged.csv", "empty.csv", "one.csv"):
        (tmp_path / "words.csv").write_text("a,b\n1,two\n")
        (tmp_path / "ragged.csv").write_text("1,2\n3\n")
        (tmp_path / "empty.csv").write_text("")
        (tmp_path / "one.csv").write_text("1\n2\n")
        with pytest.raises(ExperimentError, match=r"surface.data: "):
            surface(formula + f'data = "{bad}"')


def test_threads_of_the_file(file, quiet, monkeypatch):
    from langevin.engines import compiling

    seen = []
    real = lv.simulate
    monkeypatch.setattr(
        experiment.lv,
        "simulate",
        lambda *a, **k: seen.append(compiling.n_threads()) or real(*a, **k),
    )
    before = compiling.n_threads()
    file.write_text(TEXT.replace("seed = 5", "seed = 5\nthreads = 1"))
    experiment.run(file, console=quiet)
    assert seen == [1, 1, 1] and compiling.n_threads() == before


def test_a_disk_that_fills_up(file, quiet, monkeypatch):
    """One clear refusal; the points before it are read back when there is room again."""
    real = experiment.store.write_json

    def full(path, value):
        if path.parent.name == "point-0001":
            raise OSError(28, "No space left on device")
        real(path, value)

    monkeypatch.setattr(experiment.store, "write_json", full)
    with pytest.raises(ExperimentError, match=r"output.folder: .*No space left on device.*again"):
        experiment.run(file, console=quiet)
    monkeypatch.undo()
    assert len(experiment.run(file, console=quiet)["points"]) == 3
    assert quiet.file.getvalue().count("read back") == 1


def test_densities_at_several_steps():
    """What an observer asked at= certain steps returns, read and drawn step by step."""

    class Series:
        steps = np.array([10, 800])

        def __init__(self, estimates):
            self.estimates = estimates

        def __getitem__(self, k):
            return self.estimates[k]

        def checked(self):
            return self

    *_, result = expected(0.1)
    density, occupation = result.density(), result.occupation()
    result.observed["density"] = Series((density, density))
    result.observed["occupation"] = Series((occupation, occupation))
    found, refused = measures.estimates(result)
    assert not refused and found["occupation at 800: p_0"].value == occupation.probability[0]
    assert found["cov[0,0]"].value == result.moments().covariance[0, 0]
    assert report.headlines({"estimates": found})[:2] == [
        "occupation at 10: p_0/p_1",
        "occupation at 800: p_0/p_1",
    ]
    axes = lv.plot.densities({"step 10": density, "step 800": density})
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["step 10", "step 800"]


def test_a_killed_run_goes_on_from_its_checkpoint(tmp_path, quiet):
    """SIGKILL in the middle of a point; the same file again ends with the same numbers."""
    path = tmp_path / "killed.toml"
    text = TEXT.split("[[observe]]")[0].replace("n_steps = 800", "n_steps = 600_000")
    path.write_text(text.replace("seed = 5", "seed = 5\ncheckpoint = 0.2") + OBSERVED)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    whole = experiment.run(path, console=quiet, output=tmp_path / "whole")
    process = subprocess.Popen(
        [sys.executable, "-m", "langevin", "run", str(path)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    folder = tmp_path / "out" / "point-0000" / "checkpoint"
    began = time.monotonic()
    while not any(folder.glob("*.npz")) and time.monotonic() - began < 60:
        time.sleep(0.05)
    time.sleep(1.0)
    process.kill()
    process.wait()
    assert not (tmp_path / "out" / "point-0000" / "point.json").exists(), "killed too late"
    resumed = experiment.run(path, console=quiet)
    assert resumed["points"][0]["resumed_at"] > 0
    assert estimates_of(resumed) == estimates_of(whole)
    assert not folder.exists(), "a finished point needs no checkpoint"


OBSERVED = """
[[observe]]
kind = "occupation"
every = 5
[output]
folder = "out"
figures = false
"""
