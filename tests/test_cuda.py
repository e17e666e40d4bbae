"""The CUDA engine, run by numba's simulator, against the CPU engine; tests/simulated.py does it.

Whole numbers must be equal. Real ones are compared relative to their size: in float64 the kernels
are the same arithmetic; in float32 the simulator computes the normals' special functions exactly,
and an angle, rounded to 24 bits, moves a normal by up to 1e-6.
"""

import functools
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import simulated

SCRIPT = Path(__file__).parent / "simulated.py"
TOLERANCE = {"float64": 1e-13, "float32": 1e-6}
DERIVED = {"float64": 1, "float32": 10}  # times that, where terms cancel: velocities, sums

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("numba_cuda") is None,
    reason="the simulator needs the package numba-cuda (pip install 'langevin[cuda]')",
)


def reports(family):
    """The reports of a family of cases."""
    alone = ("engine", "words", "bugs")
    return simulated_gpu(alone if family in alone else (family,))[family]


@functools.cache
def simulated_gpu(families):
    """What a process that simulates a GPU prints."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *families],
        capture_output=True,
        text=True,
        cwd=SCRIPT.parent.parent,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def deviations(report):
    """What of a run is not as on the CPU."""
    found = [f"{n} of {name} differ" for name, n in report["integers"].items() if n]
    for name, size in report["floats"].items():
        allowed = TOLERANCE[report["dtype"]]
        allowed *= 1 if name in ("positions", "trajectory") else DERIVED[report["dtype"]]
        if not size <= allowed:
            found.append(f"{name} is off by {size:.2g}")
    return found


def cases(family):
    return [pytest.param(family, name, id=name) for name in simulated.FAMILIES[family]()]


@pytest.mark.parametrize(("family", "name"), cases("dynamics") + cases("data"))
def test_the_same_path_as_on_the_cpu(family, name):
    report = reports(family)[name]
    assert deviations(report) == []
    assert report["seen"]["positions"] > 5 and report["diverged"] == 0


@pytest.mark.parametrize(("family", "name"), cases("observers"))
def test_the_same_observations_as_on_the_cpu(family, name):
    report = reports(family)[name]
    assert deviations(report) == []
    assert (report["diverged"] > 0) == (name == "absorbed")
    constant = [name for name, values in report["seen"].items() if values < 2]
    assert set(constant) <= {"fate"}  # something was there to be seen


# --- what must not change a bit -------------------------------------------------------------------

ROUNDED = "one window"  # sums are rounded once a launch
SAME = (
    "32 threads", "48 threads", "100 threads", "two GPUs", "little room", "no shared memory",
    "stopped and resumed", "resumed on two", "unobserved", "passages, two GPUs", "packed",
)  # fmt: skip


@pytest.mark.parametrize("name", SAME)
def test_the_same_bits_however_the_run_is_cut(name):
    assert reports("engine")[name]["bits"]


def test_launches_of_another_length_round_sums_alone():
    report = reports("engine")[ROUNDED]
    assert deviations(report) == []
    assert report["floats"]["positions"] == 0
    assert set(reports("engine")) == {*SAME, ROUNDED}


def test_replicas_that_have_passed_are_dropped():
    moved = reports("engine")["packed"]["replicas"]
    assert moved[0] == 0  # all of them, at first
    packed = [n for n in moved if n]
    assert packed and packed == sorted(packed, reverse=True) and packed[0] > packed[-1]


def test_random_words_indices_and_permutations_bit_for_bit():
    found = reports("words")
    assert found["same"] == [True] * 4
    assert found["words"] == 800 and found["permuted"]


# --- bugs that must be seen -----------------------------------------------------------------------


def test_without_a_bug_nothing_is_seen():
    for name in ("none", "none, data", "none, crowded", "none, words"):
        assert deviations(reports("bugs")[name]) == []


@pytest.mark.parametrize("name", simulated.BUGS)
def test_a_planted_bug_is_seen(name):
    report = reports("bugs")[name]
    if "error" in report:  # an index beyond the end of an array
        assert "IndexError" in report["error"]
    else:
        assert deviations(report)
