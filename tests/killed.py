"""Runs that are killed, or whose disk is full: a process of its own, which forks and kills runs.

``python killed.py MODE FOLDER`` prints a JSON report. It imports and compiles once; every life of
a run is a fork of it.
"""

import contextlib
import json
import os
import random
import resource
import shutil
import signal
import sys
import time
from pathlib import Path

os.environ["NUMBA_NUM_THREADS"] = "2"
import numba
import numpy as np

import langevin as lv
from langevin import checkpoint
from langevin.errors import CheckpointError

STEPS, KILLS = 100_000, 20
sys.modules["langevin.simulate"].WINDOW = 2**18  # a few milliseconds
SURFACE = lv.Surface("(x**2 - 1)**2", noise=lv.Isotropic(1.0))


def run(folder=None, threads=1, n_steps=STEPS, every=0.0):
    numba.set_num_threads(threads)
    return lv.simulate(
        SURFACE,
        lv.Overdamped(temperature=0.3, dt=0.01),
        n_replicas=700,
        n_steps=n_steps,
        burn_in=1000,
        seed=11,
        observe=(lv.Histogram(range=(-2, 2)), lv.Occupation(), lv.Moments()),
        progress=False,
        checkpoint=folder,
        checkpoint_every=every,
    )


def measured(result):
    """Every number a run gives."""
    moments, occupation = result.moments(), result.occupation(allow_unequilibrated=True)
    return {
        "positions": result.positions,
        "density": result.density().probability,
        "occupation": occupation.counts,
        "mean": moments.mean,
        "covariance": moments.covariance,
        "errors": moments.covariance_stderr,
    }


def same(one, other):
    return all(np.array_equal(one[key], other[key]) for key in one)


def forked(work):
    """The process number of a child that does ``work`` and exits 0, or 3 for a refusal."""
    child = os.fork()
    if child:
        return child
    try:
        work()
        os._exit(0)
    except CheckpointError as error:
        print(error, file=sys.stderr)
        os._exit(3)
    finally:
        os._exit(4)


def in_place(folder, description, arrays):
    """A planted bug: the checkpoint is written where it stands."""
    path = folder / checkpoint.FILE
    rename, checkpoint.os.replace = os.replace, lambda part, target: None
    kept, checkpoint.PART = checkpoint.PART, checkpoint.FILE
    try:
        written(folder, description, arrays)
    finally:
        checkpoint.PART, checkpoint.os.replace = kept, rename
    assert path.exists()


written = checkpoint._write


def killed(folder: Path):
    """Kills a run at random moments until it has been killed KILLS times and then ends."""
    chance = random.Random(2024)
    report = {"kills": 0, "mid_write": 0, "steps": [], "resumed": [], "same": [], "corrupt": False}
    reference = measured(run())
    began = time.perf_counter()
    run(folder / "whole")
    whole = time.perf_counter() - began
    began = time.perf_counter()
    run(folder / "whole")
    start_up = time.perf_counter() - began
    report["whole"], life = whole, 0
    home, out = folder / "killed", folder / "out.npz"

    def work():
        result = run(home, 1 + life % 2)
        np.savez(out, resumed_at=result.resumed_at, **measured(result))

    def enough():
        return report["kills"] >= KILLS and (report["mid_write"] >= 3 or report["kills"] >= 200)

    while not enough() or not report["same"]:
        life += 1
        child = forked(work)
        if not enough():
            time.sleep(start_up + chance.random() * 0.08 * whole)
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            report["kills"] += 1
            report["mid_write"] += (home / checkpoint.PART).exists()
            with contextlib.suppress(FileNotFoundError, CheckpointError):
                report["steps"].append(checkpoint._read(home / checkpoint.FILE)[0]["steps_done"])
            continue
        if os.WEXITSTATUS(status) == 3:
            report["corrupt"] = True
            break
        if os.WEXITSTATUS(status) != 0:
            raise SystemExit(f"a run failed with status {status}")
        with np.load(out) as found:
            report["resumed"].append(int(found["resumed_at"]))
            report["same"].append(same(reference, found))
        shutil.rmtree(home)  # it ended before the last kill: another one
    return report


def full(folder: Path):
    """A run whose disk fills up: writes beyond a limit fail. Then space is freed."""
    reference = measured(run())
    due = checkpoint.Checkpoint.due

    def die(self, done):
        due(self, done)
        if done > STEPS // 2:
            os.kill(os.getpid(), signal.SIGKILL)

    checkpoint.Checkpoint.due = die
    os.waitpid(forked(lambda: run(folder)), 0)
    checkpoint.Checkpoint.due = due
    before = (folder / checkpoint.FILE).read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        run(folder)
        raise SystemExit("nothing failed")
    except CheckpointError as error:
        caught = error
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    result = caught.result
    left = sorted(p.name for p in folder.iterdir())
    intact = (folder / checkpoint.FILE).read_bytes() == before
    after = run(folder)
    return {
        "message": str(caught),
        "lost": result.steps_done <= result.resumed_at,
        "observed": float(result.density().value.max()),
        "left": left,
        "intact": intact,
        "resumed_at": after.resumed_at,
        "same": same(reference, measured(after)),
    }


if __name__ == "__main__":
    mode, place = sys.argv[1], Path(sys.argv[2])
    if mode == "in_place":
        checkpoint._write = in_place
    print(json.dumps(full(place) if mode == "full" else killed(place)))
