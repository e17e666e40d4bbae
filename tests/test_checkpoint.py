"""Runs that stop and go on: killed, interrupted, out of disk, on other threads, on other paths."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numba
import numpy as np
import pytest
from test_engine import LEAST_SQUARES
from test_observers import DYNAMICS as WATCHED
from test_observers import FIRST, SECOND, WELL
from test_storage import equal

import langevin as lv
from langevin import checkpoint as module
from langevin.checkpoint import Checkpoint
from langevin.errors import CheckpointError, DivergenceError, LangevinError, ParameterError

HERE = Path(__file__).parent
SURFACE = lv.Surface("(x**2 - 1)**2", noise=lv.Isotropic(1.0))
DYNAMICS = lv.Overdamped(temperature=0.3, dt=0.01)
OBSERVERS = (lv.Histogram(range=(-2, 2)), lv.Occupation(), lv.Moments())
ARGUMENTS = {"n_replicas": 700, "n_steps": 4000, "burn_in": 100, "seed": 11, "observe": OBSERVERS}


class Stop(Exception):
    pass


@pytest.fixture(autouse=True)
def short_windows(monkeypatch):
    monkeypatch.setattr(sys.modules["langevin.simulate"], "WINDOW", 2**18)  # 256 steps


def run(folder=None, surface=SURFACE, dynamics=DYNAMICS, **options):
    options = {**ARGUMENTS, "progress": False, "checkpoint_every": 0, **options}
    return lv.simulate(surface, dynamics, checkpoint=folder, **options)


def stopped(folder, monkeypatch, after=1000, **options):
    """A run that ends without warning after ``after`` steps; the checkpoint's bytes."""
    due = Checkpoint.due

    def stop(self, done):
        due(self, done)
        if done > after:
            raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "due", stop)
        with pytest.raises(Stop):
            run(folder, **options)
    return (folder / module.FILE).read_bytes()


@pytest.fixture(scope="module")
def reference():
    patch = pytest.MonkeyPatch()
    patch.setattr(sys.modules["langevin.simulate"], "WINDOW", 2**18)
    yield run()
    patch.undo()


def same(one, other):
    pairs = [
        (one.positions, other.positions),
        (one.diverged, other.diverged),
        (one.density().probability, other.density().probability),
        (one.observed["occupation"].counts, other.observed["occupation"].counts),
        (one.moments().mean, other.moments().mean),
        (one.moments().covariance, other.moments().covariance),
        (one.moments().covariance_stderr, other.moments().covariance_stderr),
    ]
    return all(np.array_equal(a, b) for a, b in pairs)


def script(mode, folder, cache):
    """The report of tests/killed.py."""
    environment = {
        **os.environ,
        "LANGEVIN_CACHE": str(cache),
        "PYTHONPATH": os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")]),
    }
    command = [sys.executable, "-W", "ignore", str(HERE / "killed.py"), mode, str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("kernels")


forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")


@forks
def test_twenty_kills_change_no_bit(tmp_path, cache):
    report = script("killed", tmp_path, cache)
    assert report["kills"] >= 20 and report["same"] and all(report["same"]), report
    assert report["mid_write"] >= 3, report  # some kills left half a file beside the whole one
    assert not report["corrupt"] and len(set(report["steps"])) >= 10, report
    assert all(0 <= steps < 100_000 for steps in report["steps"]), report
    assert report["resumed"][-1] > 0, report


@forks
def test_a_checkpoint_written_in_place_is_caught_by_a_kill(tmp_path, cache):
    assert script("in_place", tmp_path, cache)["corrupt"]


@forks
def test_a_full_disk_loses_nothing(tmp_path, cache):
    report = script("full", tmp_path, cache)
    assert "could not be written" in report["message"] and "intact" in report["message"]
    assert report["left"] == ["checkpoint.npz", "lock"] and report["intact"]
    assert not report["lost"] and report["observed"] > 0
    assert report["same"] and report["resumed_at"] > 0


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounts a file system")
def test_a_full_file_system(tmp_path, reference):
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting is not permitted")
    try:
        with pytest.raises(CheckpointError, match="No space left") as caught:
            run(tmp_path)
        result = caught.value.result
        assert result.steps_done > 0 and result.moments().mean.shape == (1,)
        assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint.npz", "lock"]
        subprocess.run(["mount", "-o", "remount,size=2m", str(tmp_path)], check=True)
        assert same(run(tmp_path), reference)
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_resuming_gives_the_same_bits_on_any_threads(tmp_path, monkeypatch, reference):
    stopped(tmp_path, monkeypatch)
    threads = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        result = run(tmp_path)
    finally:
        numba.set_num_threads(threads)
    assert same(result, reference) and result.resumed_at == 1024 and reference.resumed_at == 0
    again = run(tmp_path)
    assert same(again, reference) and again.resumed_at == 4000 and not again.interrupted
    assert again.elapsed < result.elapsed + 5


@pytest.mark.parametrize("forgotten", range(3))
def test_a_forgotten_store_is_caught(tmp_path, monkeypatch, reference, forgotten):
    carried, bound = module._carried, []

    def forgetful(observer):
        if observer not in bound:
            bound.append(observer)
        arrays = carried(observer)
        return {} if bound.index(observer) == forgotten else arrays

    with monkeypatch.context() as patch:
        patch.setattr(module, "_carried", forgetful)
        patch.setattr(module, "_bits", lambda state, observers: {})
        stopped(tmp_path, monkeypatch)
        bound.clear()
        result = run(tmp_path)
    assert np.array_equal(result.positions, reference.positions)
    assert not same(result, reference)


def test_velocities_divergence_and_data_resume(tmp_path, monkeypatch):
    dynamics = lv.SGD(0.05, np.linspace(1, 4, 700), momentum=0.8)
    whole = run(dynamics=dynamics)
    stopped(tmp_path / "momentum", monkeypatch, dynamics=dynamics)
    part = run(tmp_path / "momentum", dynamics=dynamics)
    assert same(whole, part) and np.array_equal(whole.velocities, part.velocities)

    options = {
        "surface": lv.Surface("x**2/2 - x**4/40", noise=lv.Isotropic(1.0)),
        "observe": lv.Moments(),
        "start": [0.0],
    }
    whole = run(on_divergence="absorb", **options)
    stopped(tmp_path / "absorb", monkeypatch, on_divergence="absorb", **options)
    part = run(tmp_path / "absorb", on_divergence="absorb", **options)
    assert (whole.diverged > 1024).any() and (whole.diverged < 0).any()
    assert np.array_equal(whole.diverged, part.diverged)
    assert np.array_equal(whole.moments().covariance, part.moments().covariance)

    stops = []
    for _ in range(2):  # the second finds the divergence in the checkpoint and takes no step
        with pytest.raises(DivergenceError) as caught:
            run(tmp_path / "stop", **options)
        stops.append((str(caught.value), caught.value.result.steps_done))
    assert stops[0] == stops[1]

    u = np.linspace(-1, 1, 40)[:, None] ** np.arange(1, 3)
    data = lv.FiniteSum("(w*u - v)**2/2", data={"u": u, "v": np.sin(3 * u[:, 0])})
    options = {"surface": data, "dynamics": lv.SGD(0.1, 4), "observe": lv.Moments()}
    whole = run(**options)
    stopped(tmp_path / "data", monkeypatch, **options)
    part = run(tmp_path / "data", **options)
    assert np.array_equal(whole.positions, part.positions)
    assert np.array_equal(whole.moments().covariance, part.moments().covariance)


STATES = {  # what a run carries from window to window beside positions and sums
    "memories of observers": (WELL, WATCHED, FIRST),
    "observers at given steps": (WELL, WATCHED, SECOND),
    "a carried gradient": (SURFACE, lv.Underdamped(0.2, 0.7, 0.2), ()),
    "the last normal": (SURFACE, lv.Overdamped(0.2, 0.1, integrator="leimkuhler_matthews"), ()),
    "places in an epoch": (
        LEAST_SQUARES,
        lv.SGD(0.05, lv.schedules.Triangular(9.0, 50), sampling="epoch_shuffle"),
        (),
    ),
}


@pytest.mark.parametrize("name", STATES)
def test_whatever_a_run_carries_is_resumed(tmp_path, monkeypatch, name):
    monkeypatch.setattr(sys.modules["langevin.simulate"], "WINDOW", 1)  # 64 steps, 4 on data
    surface, dynamics, observe = STATES[name]
    options = dict(surface=surface, dynamics=dynamics, observe=observe)
    options |= dict(n_replicas=70, n_steps=203, burn_in=40)
    whole = run(**options)
    stopped(tmp_path, monkeypatch, after=100, **options)
    part = run(tmp_path, **options)
    assert 100 < part.resumed_at <= 128 and equal(whole.positions, part.positions)
    assert equal(whole.velocities, part.velocities)
    assert equal(dict(whole.observed), dict(part.observed))


def test_control_c_writes_a_checkpoint(tmp_path, monkeypatch, reference):
    due = Checkpoint.due

    def press(self, done):
        due(self, done)
        if done == 512:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "due", press)
        result = run(tmp_path, checkpoint_every=1e9)
    assert result.interrupted and result.steps_done == 512
    result = run(tmp_path)
    assert result.resumed_at == 512 and same(result, reference)


OTHERS = {
    "surface": {"surface": lv.Surface("(x**2 - 1)**2 + x/9", noise=lv.Isotropic(1.0))},
    "dynamics": {"dynamics": lv.Overdamped(temperature=0.3, dt=0.02)},
    "observers": {"observe": OBSERVERS[:2]},
    "n_steps": {"n_steps": 5000},
    "n_replicas": {"n_replicas": 701},
    "burn_in": {"burn_in": 101},
    "seed": {"seed": 12},
    "first_replica": {"first_replica": 1},
    "dtype": {"dtype": "float32"},
    "on_divergence": {"on_divergence": "absorb"},
    "start": {"start": [1.0]},
}


@pytest.mark.parametrize("field", OTHERS)
def test_the_checkpoint_of_another_run_is_refused(tmp_path, monkeypatch, field):
    before = stopped(tmp_path, monkeypatch)
    with pytest.raises(CheckpointError, match=rf"another run; what differs: .*{field} \("):
        run(tmp_path, **OTHERS[field])
    assert (tmp_path / module.FILE).read_bytes() == before


def test_differences_that_no_text_shows_are_refused(tmp_path, monkeypatch):
    sizes = np.linspace(1, 2, 5000)
    options = {"n_replicas": 5000, "observe": (), "n_steps": 256, "burn_in": 0}
    run(tmp_path, dynamics=lv.SGD(0.05, sizes), **options)
    sizes[2500] += 1e-9
    with pytest.raises(CheckpointError, match=r"dynamics \(other values\)"):
        run(tmp_path, dynamics=lv.SGD(0.05, sizes), **options)


def test_what_is_the_same_is_not_refused(tmp_path, monkeypatch, reference):
    stopped(tmp_path, monkeypatch, start=[-1.0])
    run(tmp_path, start=np.full((700, 1), -1.0), progress=True)


def damaged(tmp_path, contents):
    (tmp_path / module.FILE).write_bytes(contents)
    with pytest.raises(CheckpointError, match="is corrupt") as caught:
        run(tmp_path)
    assert str(tmp_path / module.FILE) in str(caught.value)


def test_truncated_and_altered_checkpoints_are_refused(tmp_path, monkeypatch):
    whole = stopped(tmp_path, monkeypatch)
    for size in (0, 1, 97, 98, 99, len(whole) // 2, len(whole) - 1):
        damaged(tmp_path, whole[:size])
    rng = np.random.Generator(np.random.PCG64(5))
    for place in [0, len(whole) - 1, len(whole) - 50, *rng.integers(0, len(whole), 20)]:
        flipped = bytearray(whole)
        flipped[place] ^= 1 << int(rng.integers(8))
        damaged(tmp_path, bytes(flipped))
    damaged(tmp_path, whole + b"\n")


def sealed(tmp_path, contents):
    import hashlib

    digest = hashlib.sha256(contents).hexdigest()
    return contents + f"\nlangevin checkpoint 0001 sha256 {digest}\n".encode()


def test_hostile_checkpoints_are_refused(tmp_path, monkeypatch):
    whole = stopped(tmp_path, monkeypatch)
    description, arrays = module._read(tmp_path / module.FILE)
    newer = whole.replace(b"langevin checkpoint 0001", b"langevin checkpoint 0002")
    (tmp_path / module.FILE).write_bytes(newer)
    with pytest.raises(CheckpointError, match="format 2, newer"):
        run(tmp_path)

    def write(text, **more):
        text = np.frombuffer(text, np.uint8)
        np.savez(tmp_path / "made.npz", description=text, **{**arrays, **more})
        return sealed(tmp_path, (tmp_path / "made.npz").read_bytes())

    good = json.dumps(description).encode()
    touched = tmp_path / "touched"

    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(touched),)

    damaged(tmp_path, write(good, **{"state.fate": np.array([Bomb()], object)}))
    damaged(tmp_path, write(b"{not JSON"))
    damaged(tmp_path, write(b"[]"))
    damaged(tmp_path, write(good, **{"observer.9.store": np.zeros(1)}))
    damaged(tmp_path, write(good, **{"observer.0.nothing": np.zeros(1)}))
    del arrays["observer.2.store"]
    damaged(tmp_path, write(good))
    damaged(tmp_path, sealed(tmp_path, b"no archive at all"))
    assert not touched.exists()


def test_folders_that_cannot_be_used_are_refused_before_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["langevin.simulate"], "_advance", None)  # nothing is run
    file = tmp_path / "file"
    file.write_text("text")
    for folder in (file, file / "below", Path("/proc/langevin"), tmp_path / "a\0b"):
        with pytest.raises(CheckpointError, match="is no folder to write in"):
            run(folder)
    for folder in (3, "", b"bytes", object()):
        with pytest.raises(ParameterError, match="checkpoint="):
            run(folder)
    for every in (-1, "60", float("nan"), None, True):
        with pytest.raises(ParameterError, match="checkpoint_every="):
            run(tmp_path / "good", checkpoint_every=every)
    if os.geteuid() != 0:
        closed = tmp_path / "closed"
        closed.mkdir(mode=0o500)
        with pytest.raises(CheckpointError, match="is no folder to write in"):
            run(closed)


@pytest.mark.skipif(module.fcntl is None, reason="no locks here")
def test_two_runs_do_not_share_a_folder(tmp_path, monkeypatch, reference):
    inside, errors = threading.Event(), []
    due = Checkpoint.due

    def second(self, done):
        due(self, done)
        if not inside.is_set():
            inside.set()
            try:
                run(tmp_path)
            except LangevinError as error:
                errors.append(error)

    monkeypatch.setattr(Checkpoint, "due", second)
    assert same(run(tmp_path), reference)
    (error,) = errors
    assert isinstance(error, CheckpointError) and f"process {os.getpid()}" in str(error)


def test_an_interval_is_kept(tmp_path, monkeypatch):
    steps = []
    write = module._write

    def noted(folder, description, arrays):
        steps.append(description["steps_done"])
        write(folder, description, arrays)

    monkeypatch.setattr(module, "_write", noted)
    run(tmp_path / "seldom", checkpoint_every=1e9)
    assert steps == [0, 4000]
    steps.clear()
    run(tmp_path / "often", checkpoint_every=0)
    assert steps == [0, *range(256, 4000, 256), 4000]


def test_another_machine_is_told(tmp_path, monkeypatch):
    stopped(tmp_path, monkeypatch)
    monkeypatch.setattr(module.information, "cpu_name", lambda: "another")
    with pytest.warns(UserWarning, match="another CPU"):
        run(tmp_path)
