"""Saved runs come back the same; what is damaged, foreign or hostile is refused by name."""

import dataclasses
import hashlib
import json
import os
import shutil
import sys
import warnings
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import pytest
import xarray
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import langevin as lv
from langevin import codec, storage
from langevin.analysis.groups import PerGroup
from langevin.errors import DivergenceError, StorageError, UnavailableError, UnsoundError

SURFACE = lv.Surface("(x**2 - 1)**2", noise=lv.Isotropic(1.0))
OBSERVERS = (lv.Histogram(range=(-2, 2)), lv.Occupation(), lv.Moments())
DYNAMICS = lv.Overdamped(temperature=0.3, dt=0.01)
ARGUMENTS = {"n_replicas": 700, "n_steps": 4000, "burn_in": 100, "progress": False}


@pytest.fixture(scope="module")
def result():
    return lv.simulate(SURFACE, DYNAMICS, seed=11, observe=OBSERVERS, **ARGUMENTS)


@pytest.fixture(scope="module")
def swept():
    """A run with groups, per-replica values, velocities and names no file could have."""
    groups = np.arange(700) % 3
    observers = (
        lv.Histogram(range=(-2, 2), groups=groups, name="../a/b \0ö"),
        lv.Occupation(groups=groups, name="positions"),
        lv.Moments(groups=groups, name="z" * 300),
        lv.Histogram(bins=20, range=(-1, 1), name="Density"),
        lv.Histogram(bins=20, range=(-1, 1), name="density"),
    )
    dynamics = lv.SGD(0.05, np.linspace(1, 4, 700), momentum=0.5)
    return lv.simulate(SURFACE, dynamics, seed=2, observe=observers, **ARGUMENTS)


@pytest.fixture
def saved(result, tmp_path):
    result.save(tmp_path / "run.zarr")
    return tmp_path / "run.zarr"


def there_and_back(result, tmp_path):
    result.save(tmp_path / "back.zarr")
    return lv.load(tmp_path / "back.zarr")


def equal(one, other):
    """Whether two values are the same to the last bit, type and memory order."""
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray):
        order = one.flags.c_contiguous == other.flags.c_contiguous
        same = one.dtype == other.dtype and one.shape == other.shape and order
        return same and np.ascontiguousarray(one).tobytes() == np.ascontiguousarray(other).tobytes()
    if isinstance(one, np.generic):
        return one.dtype == other.dtype and one.tobytes() == other.tobytes()
    if isinstance(one, dict):
        return list(one) == list(other) and all(equal(one[k], other[k]) for k in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(equal, one, other))
    if isinstance(one, Exception):
        return str(one) == str(other)
    if isinstance(one, PerGroup):
        return equal(one._estimates, other._estimates)
    if type(one).__name__ in codec.SURFACES:
        return equal(one.__reduce__()[1], other.__reduce__()[1])
    if hasattr(one, "__dataclass_fields__"):
        names = [f.name for f in dataclasses.fields(one)]  # not what was computed and kept since
        return all(equal(getattr(one, name), getattr(other, name)) for name in names)
    return repr(one) == repr(other)  # NaN, -0.0


def test_a_run_comes_back_to_the_last_bit(result, tmp_path):
    back = there_and_back(result, tmp_path)
    assert equal(result, back)
    assert equal(result.density().value, back.density().value)
    assert equal(result.moments().covariance_stderr, back.moments().covariance_stderr)
    points = np.linspace(-2, 2, 50)[:, None]
    for method in ("energy", "gradient", "hessian", "noise_covariance"):
        assert equal(getattr(SURFACE, method)(points), getattr(back.surface, method)(points))


def test_the_guard_and_comparisons_come_back(result, tmp_path):
    back = there_and_back(result, tmp_path)
    messages = []
    for run in (result, back):
        with pytest.raises(UnsoundError, match="not stationary yet") as caught:
            run.occupation()
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    ours, theirs = (r.occupation(allow_unequilibrated=True) for r in (result, back))
    assert equal(ours.ratio(0, 1), theirs.ratio(0, 1))
    assert equal(ours.equilibration, theirs.equilibration)
    for predict in (lv.predict.boltzmann_gibbs, lv.predict.laplace):
        tables = [
            str(lv.compare(r, predict(r.surface, r.dynamics), allow_unequilibrated=True))
            for r in (result, back)
        ]
        assert tables[0] == tables[1]


def test_groups_velocities_and_odd_names_come_back(swept, tmp_path):
    back = there_and_back(swept, tmp_path)
    assert equal(swept, back)
    assert back.velocities is not None and not np.array_equal(back.velocities, back.positions)
    assert equal(back["positions"].counts, swept["positions"].counts)
    data = xarray.open_zarr(tmp_path / "back.zarr")
    named = {v.attrs.get("observer") for v in data.variables.values()}
    assert {"../a/b \0ö", "positions", "z" * 300, "Density", "density"} <= named


@pytest.mark.parametrize(
    "surface",
    [
        lv.Surface("x**2 + 0*y + b*0", variables=("y", "x"), b=2.5, noise=lv.Isotropic(0.5)),
        lv.Surface("x**p + 1e-300*x**2", p=4, noise=lv.Isotropic(0.1)),
        lv.Surface(lambda x, y: np.exp(x**2 / 7) + y**2 / 3 + x * 0.1, noise=lv.Isotropic(1)),
        lv.Surface(" + ".join(f"{k}.25*θ**2" for k in range(90)), noise=lv.Isotropic(1)),
        lv.surfaces.mueller_brown(),
        lv.FiniteSum(
            "a*(w*u + c - v)**2/2 + 0*q*r + 0*s",
            data={
                "u": np.linspace(0, 1, 60).reshape(30, 2),
                "v": np.arange(30.0),
                "r": np.ones((30, 3)),
                "s": np.ones(30),
            },
            l2=0.1,
            a=0.3,
        ),
    ],
    ids=["lost", "exponent", "callable", "long", "catalogue", "data"],
)
def test_surfaces_come_back(surface, tmp_path):
    dynamics = lv.SGD(1e-6, 1)
    start = np.full(surface.dim, 0.1)
    options = {"n_replicas": 3, "n_steps": 4, "dtype": "float32", "progress": False}
    run = lv.simulate(surface, dynamics, start=start, **options)
    path = tmp_path / "a run — ünïcode 😀.zarr"
    run.save(path)
    back = lv.load(path)
    assert equal(run, back)
    assert back.surface.formula == surface.formula and back.surface.variables == surface.variables
    points = np.linspace(0.1, 0.9, 7 * surface.dim).reshape(7, -1)
    for method in ("energy", "gradient", "hessian", "noise_covariance"):
        assert equal(getattr(surface, method)(points), getattr(back.surface, method)(points))


def test_errors_come_back(tmp_path):
    steep = lv.Surface("x**2/2 - x**4/4", noise=lv.Isotropic(1.0))
    with pytest.raises(DivergenceError) as caught:
        lv.simulate(
            steep,
            lv.SGD(0.1, 1),
            n_replicas=64,
            n_steps=4000,
            burn_in=3999,
            start=[1.5],
            observe=lv.Moments(),
            progress=False,
        )
    run = caught.value.result
    back = there_and_back(run, tmp_path)
    assert equal(run, back) and (back.diverged >= 0).any()
    for one in (run, back):
        with pytest.raises(UnsoundError, match="no observation of the moments"):
            one.moments()
    assert "no observation" in run.to_xarray().attrs["moments_error"]


def test_a_number_and_an_array_of_one_with_its_bits_are_kept_apart(tmp_path):
    """One replica that did not pass has the times [NaN]; the error of an average of one is NaN."""
    observers = (lv.Average("x**2"), lv.FirstPassage("x > 9"))
    single = lv.simulate(
        SURFACE, DYNAMICS, n_replicas=1, n_steps=8, observe=observers, progress=False
    )
    loaded = there_and_back(single, tmp_path)
    assert loaded.first_passage().times.shape == (1,)
    assert np.isnan(loaded.average().stderr)


def test_the_dataset_is_labelled(result, swept):
    data = result.to_xarray()
    assert data["positions"].dims == ("replica", "coordinate")
    assert data["density"].dims == ("x",) and data["density"].sizes["x"] == 200
    assert np.array_equal(data["x"], result.density().grid)
    assert np.array_equal(data["density_stderr"], result.density().stderr)
    assert data["occupation"].dims == ("minimum",) and data["occupation"].attrs["equilibrated"] == 0
    assert data["moments_covariance"].dims == ("coordinate", "coordinate_2")
    assert data["moments_covariance"].sel(coordinate="x", coordinate_2="x") > 0
    for name, variable in data.variables.items():
        assert {"units", "long_name"} <= set(variable.attrs), name
    about = data.attrs
    assert about["seed"] == 11 and about["formula"] == SURFACE.formula and about["threads"] >= 1
    assert json.loads(about["dynamics_fields"])["temperature"] == 0.3
    for key in ("langevin", "numpy", "numba", "python", "platform", "cpu", "date", "elapsed"):
        assert about[key]

    data = swept.to_xarray()
    assert data["z" * 40 + "_mean"].dims == ("group", "coordinate")
    assert data["positions"].dims == ("replica", "coordinate")
    assert data["positions_2"].dims == ("group", "minimum")
    assert data["batch_size"].dims == ("replica",) and float(data["batch_size"][-1]) == 4.0
    assert data["Density"].sizes == {"Density_x": 20}
    assert data["density_2"].dims == ("Density_x",)  # the same bins
    assert np.array_equal(data["density_2"], swept["density"].value)
    assert np.array_equal(data["a_b _ö"][2], swept["../a/b \0ö"][2].value)


@dataclasses.dataclass(frozen=True)
class Lags:
    """An estimate that the labels have not heard of."""

    lag: np.ndarray
    correlation: np.ndarray
    kept: np.ndarray
    time: lv.Estimate
    unit: str = "step"
    dims: ClassVar = {
        "correlation": ("lag", "coordinate"),
        "kept": (),
        "time": (),
        "twice": ("coordinate",),
        "longest": (),
    }

    @property
    def twice(self):
        return lv.Estimate(np.ones(1), np.zeros(1))

    @property
    def longest(self):
        raise UnsoundError("too short")


@dataclasses.dataclass(frozen=True)
class Series(Sequence):
    steps: np.ndarray
    estimates: tuple

    def __len__(self):
        return len(self.estimates)

    def __getitem__(self, k):
        raise UnsoundError("not this way")


def test_estimates_of_any_kind_are_labelled(result):
    lags = Lags(np.arange(3), np.ones((3, 1)), np.zeros(4), lv.Estimate(2.0, 0.5, 7))
    density, missing = result.density(), UnsoundError("the run ended before")
    observed = {
        "lags": lags,
        "over": Series(np.array([5, 9]), (density, missing)),
        "each": PerGroup([lags, dataclasses.replace(lags, kept=np.zeros(2))]),
        "lost": missing,
    }
    data = dataclasses.replace(result, observed=observed).to_xarray()
    assert data["lags_correlation"].dims == ("lag", "coordinate")
    assert data["lags_correlation"].attrs["units"] == "step"
    assert list(data["lag"]) == [0, 1, 2] and data["lags_kept"].dims == ("lags_kept_0",)
    assert data["lags_time"] == 2.0 and data["lags_time_stderr"] == 0.5
    assert data["lags_time"].attrs["dof"] == 7 and data["lags_twice"].dims == ("coordinate",)
    assert "lags_longest" not in data and "lags_lag" not in data
    assert data["over"].dims == ("step", "x") and list(data["step"]) == [5, 9]
    assert np.array_equal(data["over"].sel(step=5), density.value)
    assert np.isnan(data["over_stderr"].sel(step=9)).all()
    assert data["each_kept_group0"].size == 4 and data["each_kept_group1"].size == 2
    assert data.attrs["lost_error"] == "the run ended before"


def test_arrays_of_the_same_bytes_are_kept_apart():
    """Zeros of every type and shape: what is stored once is the same in all of these."""
    held = storage._Arrays(xarray.Dataset({"kept": ("x", np.zeros(4))}))
    given = [np.zeros(4), np.zeros(4, np.int64), np.zeros((2, 2)), np.zeros(8, np.int32)]
    given += [np.zeros((4, 1)), np.zeros((2, 2), order="F"), np.zeros(4)]
    places = [held.put(array) for array in given]
    read = {**held.kept, **held.arrays()}.__getitem__
    assert all(equal(storage._cut(at, read), a) for at, a in zip(places, given, strict=True))
    assert places[0]["at"] == places[-1]["at"] == ["kept"]


def test_the_dataset_shares_no_memory(result):
    before = result.positions.copy(), result.observed["occupation"].counts.copy()
    data = result.to_xarray()
    for variable in data.variables.values():
        assert not np.shares_memory(variable.values, result.positions)
    data["positions"].values[:] = 7.0
    data["occupation"].values[:] = 7.0
    assert equal(before, (result.positions, result.observed["occupation"].counts))


def test_the_folder_is_a_dataset_for_everybody(result, saved):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opened = xarray.open_zarr(saved)
    assert opened.load().identical(result.to_xarray())
    assert lv.load(saved).provenance == result.provenance


def test_saving_loads_what_was_loaded(saved, tmp_path):
    lv.load(saved).save(tmp_path / "again.zarr")
    assert equal(lv.load(saved), lv.load(tmp_path / "again.zarr"))


@pytest.mark.parametrize("package", ["xarray", "zarr"])
def test_missing_packages_are_named(result, saved, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UnavailableError, match=rf"{package} .*pip install langevin\[data\]"):
        result.save(saved.parent / "other.zarr")
    if package == "zarr":
        with pytest.raises(UnavailableError, match="pip install"):
            lv.load(saved)
    else:
        with pytest.raises(UnavailableError, match="pip install"):
            result.to_xarray()


# --- places --------------------------------------------------------------------------------------


def test_what_exists_is_not_replaced_unasked(result, swept, saved):
    with pytest.raises(StorageError, match="exists already"):
        swept.save(saved)
    assert equal(lv.load(saved), result)
    swept.save(str(saved), overwrite=True)
    assert equal(lv.load(saved), swept) and os.listdir(saved.parent) == ["run.zarr"]
    link = saved.parent / "link.zarr"
    link.symlink_to(saved)
    result.save(link, overwrite=True)
    assert equal(lv.load(saved), result) and link.is_symlink()
    assert sorted(os.listdir(saved.parent)) == ["link.zarr", "run.zarr"]
    home = saved.parent / "home"
    home.mkdir()
    (home / "thesis.tex").write_text("text")
    for other in (home, home / "thesis.tex"):
        with pytest.raises(StorageError, match="no saved langevin run"):
            result.save(other, overwrite=True)
    assert (home / "thesis.tex").read_text() == "text"


@pytest.mark.parametrize("step", ["_digest", "fsync", "rename"])
def test_a_failure_leaves_everything_as_it_was(result, swept, saved, monkeypatch, step):
    def fail(*arguments):
        raise OSError(28, "No space left on device")

    owner = storage if step == "_digest" else storage.os
    with monkeypatch.context() as patch:
        patch.setattr(owner, step, fail)
        for path, overwrite in ((saved.parent / "new.zarr", False), (saved, True)):
            with pytest.raises(StorageError, match="No space left"):
                swept.save(path, overwrite=overwrite)
    assert os.listdir(saved.parent) == ["run.zarr"] and equal(lv.load(saved), result)


def test_a_failed_replacement_puts_the_old_run_back(result, swept, saved, monkeypatch):
    rename, calls = os.rename, []

    def second_fails(old, new):
        calls.append(new)
        if len(calls) == 2:
            raise OSError(5, "Input/output error")
        rename(old, new)

    with monkeypatch.context() as patch:
        patch.setattr(storage.os, "rename", second_fails)
        with pytest.raises(StorageError, match="Input/output"):
            swept.save(saved, overwrite=True)
    assert os.listdir(saved.parent) == ["run.zarr"] and equal(lv.load(saved), result)


@pytest.mark.parametrize("path", [3, None, "", "a\0b", "s3://bucket/run.zarr", b"bytes"])
def test_paths_are_checked(result, path):
    for use in (result.save, lv.load):
        with pytest.raises(StorageError, match="path="):
            use(path)


def test_what_is_no_run_is_refused(tmp_path):
    (tmp_path / "text").write_text("hello")
    (tmp_path / "empty").mkdir()
    xarray.Dataset({"a": ("b", [1.0])}).to_zarr(tmp_path / "other", consolidated=False)
    for name in ("text", "empty", "other"):
        with pytest.raises(StorageError, match=f"{name} is no saved langevin run"):
            lv.load(tmp_path / name)
    with pytest.raises(StorageError, match="does not exist"):
        lv.load(tmp_path / "absent")


def test_what_is_not_langevins_is_refused_when_saving(tmp_path):
    class Own(lv.Isotropic):
        pass

    surface = lv.Surface("x**2", noise=Own())
    run = lv.simulate(surface, DYNAMICS, n_replicas=2, n_steps=4, progress=False)
    with pytest.raises(StorageError, match="Own cannot be saved"):
        run.save(tmp_path / "run.zarr")
    assert os.listdir(tmp_path) == [] and run.to_xarray()["positions"].shape == (2, 1)


# --- damage --------------------------------------------------------------------------------------


def test_every_damaged_file_is_noticed(saved):
    files = [p for p in sorted(saved.rglob("*")) if p.is_file()]
    assert len(files) > 30
    for path in files:
        whole = path.read_bytes()
        for damage in ("delete", "truncate", "flip"):
            if damage == "delete":
                path.unlink()
            elif damage == "truncate":
                path.write_bytes(whole[: len(whole) // 2])
            else:
                path.write_bytes(whole[:-3] + bytes([whole[-3] ^ 4]) + whole[-2:])
            with pytest.raises(StorageError, match=r"run\.zarr is (corrupt|no saved)"):
                lv.load(saved)
        path.write_bytes(whole)
    (saved / "positions" / "c" / "9").mkdir()
    (saved / "positions" / "c" / "9" / "0").write_bytes(b"more")
    with pytest.raises(StorageError, match="not part of what was saved"):
        lv.load(saved)


def sealed(path):
    """Makes the sums right again, as somebody hostile would."""
    names = sorted(storage._files(path))
    lines = [f"{hashlib.sha256((path / n).read_bytes()).hexdigest()}  {n}\n" for n in names]
    (path / storage.SUMS).write_text("".join(lines), encoding="utf-8")


def edited(saved, file, change):
    """Loads a copy whose JSON was edited and whose sums are right; the error."""
    copy = saved.parent / "copy.zarr"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(saved, copy)
    contents = json.loads((copy / file).read_text())
    change(contents)
    (copy / file).write_text(json.dumps(contents))
    sealed(copy)
    with pytest.raises(StorageError, match=r"copy\.zarr") as caught:
        lv.load(copy)
    return str(caught.value)


def test_newer_and_foreign_formats_are_refused(saved):
    file = "langevin/zarr.json"
    assert "format 2, newer" in edited(saved, file, lambda c: c["attributes"].update(version=2))
    assert "no saved" in edited(saved, file, lambda c: c["attributes"].update(format="other"))
    assert "no saved" in edited(saved, file, lambda c: c["attributes"].update(version="1"))
    assert "corrupt" in edited(saved, file, lambda c: c.update(attributes=[1]))
    (saved / file).write_text("{not JSON")
    with pytest.raises(StorageError, match="not readable"):
        lv.load(saved)


HOSTILE = {
    "foreign class": {"!": "object", "class": "os.system", "of": {"command": "touch hacked"}},
    "foreign module": {"!": "object", "class": "langevin.result.os", "of": {}},
    "not a dataclass": {"!": "object", "class": "langevin.result.math", "of": {}},
    "private": {"!": "object", "class": "langevin.dynamics.real_array", "of": {}},
    "wrong fields": {"!": "object", "class": "langevin.dynamics.SGD", "of": {"__class__": 1}},
    "bad values": {"!": "object", "class": "langevin.dynamics.SGD", "of": {"learning_rate": -1}},
    "error": {"!": "error", "class": "LangevinError.__init__", "message": "x"},
    "builtin error": {"!": "error", "class": "SystemExit", "message": "x"},
    "surface": {"!": "surface", "class": "Surface", "of": ["__import__('os')", None, None]},
    "other surface": {"!": "surface", "class": "os", "of": ["touch hacked"]},
    "unknown tag": {"!": "pickle", "of": "gASVKgAAAA=="},
    "no tag": {"of": 3},
    "unhashable": {"!": "object", "class": ["x"], "of": {}},
    "number": 3,
    "none": None,
    "array": {"!": "array", "of": {"at": ["../../etc/passwd", 0], "dtype": "int8", "shape": [1]}},
    "deep": {"!": "list", "of": [[[[{"!": "list", "of": 3}]]]]},
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_trees_are_refused(saved, case, monkeypatch):
    monkeypatch.chdir(saved.parent)

    def whole(contents):
        contents["attributes"]["result"] = HOSTILE[case]

    def dynamics(contents):
        contents["attributes"]["result"]["of"]["dynamics"] = HOSTILE[case]

    def positions(contents):
        contents["attributes"]["result"]["of"]["positions"] = HOSTILE[case]

    edited(saved, "langevin/zarr.json", whole)
    edited(saved, "langevin/zarr.json", positions)
    if case not in ("number", "none", "array", "deep", "builtin error"):
        edited(saved, "langevin/zarr.json", dynamics)
    assert not (saved.parent / "hacked").exists()


def test_hostile_arrays_are_refused(saved):
    file = "positions/zarr.json"
    pickle = {"name": "numcodecs.pickle", "configuration": {"id": "pickle"}}
    for change in (
        lambda c: c.update(codecs=[pickle]),
        lambda c: c["codecs"].append({"name": "pickle"}),
        lambda c: c.update(data_type="object"),
        lambda c: c.update(data_type={"name": "numpy.object"}),
        lambda c: c.update(zarr_format=2),
        lambda c: c.update(node_type="group"),
        lambda c: c.update(shape=[7000, 1]),
        lambda c: c.update(shape=[-1, 1]),
        lambda c: c.pop("codecs"),
    ):
        assert "corrupt" in edited(saved, file, change)


# --- the codec -----------------------------------------------------------------------------------


def coded(value):
    kept = []

    def put(array):
        kept.append(array)
        return len(kept) - 1

    tree = json.loads(json.dumps(codec.encode(value, put), allow_nan=False))
    return codec.decode(tree, lambda k: kept[k])


numbers = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(st.characters(exclude_categories=())),
)
plain = arrays.arrays(
    st.sampled_from(["f8", "f4", "f2", "i8", "i2", "u8", "u1", "?", "c16"]),
    arrays.array_shapes(min_dims=0, min_side=0, max_dims=3, max_side=3),
)
estimates = st.builds(lv.Estimate, st.floats(), st.floats(), st.integers())
values = st.recursive(
    st.one_of(numbers, plain, estimates, plain.map(lambda a: a.reshape(-1)[:1].sum())),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(st.text(), inner, max_size=4),
        st.lists(inner, max_size=3).map(PerGroup),
    ),
    max_leaves=12,
)


@settings(deadline=None, max_examples=200)
@given(values)
def test_the_codec_returns_what_it_was_given(value):
    assert equal(coded(value), value)


trees = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["!", "of", "class", "message", "x"]), inner, max_size=4),
        st.fixed_dictionaries(
            {
                "!": st.sampled_from(
                    ["float", "scalar", "array", "list", "dict", "groups", "error"]
                ),
                "of": inner,
                "class": st.sampled_from(
                    ["Surface", "UnsoundError", "langevin.dynamics.SGD", "os"]
                ),
            }
        ),
    ),
    max_leaves=8,
)


@settings(deadline=None, max_examples=200)
@given(trees)
def test_no_tree_makes_anything_foreign(tree):
    """Whatever the tree, what comes of it is data or langevin's, or an ordinary exception."""

    def get(at):
        raise StorageError("no array")

    try:
        found = codec.decode(tree, get)
    except Exception:
        return
    kinds = (
        type(None),
        bool,
        int,
        float,
        str,
        list,
        tuple,
        dict,
        PerGroup,
        lv.errors.LangevinError,
    )
    own = tuple(codec.classes().values())
    assert isinstance(found, (*kinds, *own, lv.Surface, lv.FiniteSum))


def test_the_codec_knows_langevins_dataclasses_alone():
    table = codec.classes()
    assert {"langevin.dynamics.SGD", "langevin.analysis.density.Density"} <= set(table)
    assert all(kind.__module__.startswith("langevin.") for kind in table.values())
    for value in (object(), len, type, np.array([{}], object), {1: 2}, {"a": lambda: 0}, b"x"):
        with pytest.raises(StorageError, match="cannot be saved"):
            coded(value)


def test_a_doubt_is_kept_with_the_numbers(recwarn):
    """A lag too short for Transitions: said in the dataset, not printed while it is made."""
    surface = lv.Surface("x**4/4 - x**2/2", noise=lv.Isotropic(1.0))
    watch = lv.Transitions(every=2)
    run = lv.simulate(
        surface, lv.SGD(0.05, 0.3), n_replicas=200, n_steps=400, observe=watch, progress=False
    )
    assert "lag" in run.to_xarray().attrs["transitions_warning"]
    assert not recwarn.list
