"""benchmarks/gpu.py rehearsed without a GPU: it must not break when one comes.

Its contenders run small, langevin's in numba's simulator; the card is made up. What they say of
speed means nothing here.
"""

import importlib
import importlib.util
import json
import sys
from pathlib import Path

import kit
import pytest

from langevin import devices
from langevin.engines import compiling

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("numba_cuda") is None or compiling.simulated(),
    reason="needs numba-cuda: pip install 'langevin[cuda]'",
)
CARD = {"name": "NVIDIA H200 NVL", "multiprocessors": 132, "clock": 1.98e9, "nvidia_smi": {}}
WELL = "langevin double well float32"
SMALL = """
import sys
import gpu_contenders, harness

def broken(n, steps):
    turns = []
    def run():
        turns.append(0)
        if len(turns) == 2:
            raise MemoryError("the card is full")
    return run

def small(prepare, sizes, seconds):
    run = prepare(64, 16)
    run()
    return run, 64, 16

harness.calibrated = small
harness.serve(gpu_contenders.CONTENDERS.get(sys.argv[1], {"broken": (broken, ())}))
"""


@pytest.fixture(scope="module")
def bench():
    with kit.modules_of("benchmarks"):
        yield importlib.import_module("gpu"), importlib.import_module("harness")


@pytest.fixture
def worker(bench, tmp_path):
    """A function that starts a library's worker, with everything small and a GPU simulated."""
    _, harness = bench
    script = tmp_path / "small.py"
    script.write_text(SMALL)
    path = {"NUMBA_ENABLE_CUDASIM": "1"}
    path["PYTHONPATH"] = ":".join([str(ROOT), str(ROOT / "benchmarks")])
    return lambda library: harness.Worker([str(script), library], path)


@pytest.fixture
def here(bench, monkeypatch):
    gpu, _ = bench
    monkeypatch.setattr(devices, "why_no_gpu", lambda: "")
    monkeypatch.setattr(gpu, "card", lambda: CARD)
    return gpu


def test_a_whole_run_is_recorded_under_the_cards_name(bench, here, worker, tmp_path, monkeypatch):
    gpu, harness = here, bench[1]
    if gpu.assembly.why_not():
        pytest.skip(gpu.assembly.why_not())
    watched = f"{WELL} Histogram"
    contenders = {
        "langevin": (WELL, watched),
        "jax": ("JAX scan float32", "JAX vmap float32"),
        "cupy": ("CuPy loop float32", "cuRAND + one kernel float32"),
    }

    def measure(console, *, rounds, seconds):
        assert (rounds, seconds) == (2, 0.5)
        return harness.measure(worker, contenders, console, rounds=rounds, seconds=0.001)

    monkeypatch.setattr(gpu, "measure", measure)
    monkeypatch.setattr(gpu, "KERNELS", [("double well", "float32")])
    given = ["gpu.py", "--rounds", "2", "--seconds", "0.5", "--output", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", given)
    gpu.main()
    found = json.loads((tmp_path / "h200-throughput.json").read_text())
    assert set(found["contenders"]) == {WELL, watched}
    assert len(found["contenders"][WELL]["rates"]) == 2
    # Neither JAX on a GPU nor CuPy's is here: each says why.
    assert set(found["missing"]) == {*contenders["jax"], *contenders["cupy"]}
    assert all(found["missing"].values())
    assert found["date"] and found["versions"]["numba-cuda"] and found["card"] == CARD
    assert "missing" in found["largest"]  # no CuPy to ask for memory
    bars = {entry["what"]: entry for entry in found["bars"]}
    assert bars["Histogram every 10"]["ratio"]["min"] <= bars["Histogram every 10"]["ratio"]["max"]
    assert bars["float32 / JAX vmap"]["ratio"] is None
    assert bars["float32, steps/s"]["met"] is False and not bars["10^8 replicas fit"]["met"]
    assert 0 < bars["float32 / the card's bound"]["ratio"]["value"] < 1


def test_a_peer_that_fails_or_hangs_in_a_round_loses_nothing(bench, worker, monkeypatch):
    _, harness = bench
    contenders = {"langevin": (WELL,), "none": ("broken", "absent")}
    console = harness.Console(quiet=True)
    measured, missing = harness.measure(worker, contenders, console, rounds=2, seconds=0.001)
    assert set(measured) == {WELL} and len(measured[WELL]["rates"]) == 2
    assert missing["broken"].startswith("failed after its warm-up: MemoryError")
    assert "absent" in missing["absent"]
    monkeypatch.setattr(harness, "PATIENCE", 0.5)
    hanging = harness.Worker(["-c", "import time; time.sleep(60)"])
    assert hanging.ask(do="run", name="late") == {"missing": "no answer within 0.5 seconds"}
    assert "its process ended" in hanging.ask(do="run", name="late")["missing"]
    hanging.close()


def test_a_process_that_is_killed_leaves_a_reason(bench, monkeypatch):
    gpu, harness = bench
    console = harness.Console(quiet=True)
    script = "import os; os.kill(os.getpid(), 9)"
    run = gpu.subprocess.run
    monkeypatch.setattr(
        gpu.subprocess, "run", lambda command, **o: run([sys.executable, "-c", script], **o)
    )
    assert gpu.largest(console, 10) == {"missing": "ended with status -9"}


def test_the_tests_of_a_gpu_are_recorded_with_what_failed(here, tmp_path, monkeypatch):
    gpu = here
    file = tmp_path / "test_small.py"
    file.write_text(
        "import pytest\n"
        "def test_good(): pass\n"
        "def test_bad(): assert False\n"
        "@pytest.fixture\ndef gone(): raise OSError\n"
        "def test_error(gone): pass\n"
        "def test_skipped(): pytest.skip('no')\n"
    )
    tested = gpu.tested
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n0", str(file)]
    monkeypatch.setattr(gpu, "tested", lambda: tested(command))
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--tests", "--output", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        gpu.main()
    assert ended.value.code == 1
    found = json.loads((tmp_path / "h200-tests.json").read_text())
    assert found["counts"] == {"passed": 1, "failed": 1, "error": 1, "skipped": 1}
    assert list(found["tests"]["failed"]) == ["test_bad"] and found["card"] == CARD
    file.write_text("def test_good(): pass\n")
    with pytest.raises(SystemExit) as ended:
        gpu.main()
    assert ended.value.code == 0


def test_without_a_gpu_nothing_is_written(bench, tmp_path, monkeypatch):
    gpu, _ = bench
    if gpu.assembly.why_not():
        pytest.skip(gpu.assembly.why_not())
    monkeypatch.setattr(devices, "why_no_gpu", lambda: "no driver.")
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--output", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"nothing to measure here: no driver\."):
        gpu.main()
    assert not list(tmp_path.iterdir())
