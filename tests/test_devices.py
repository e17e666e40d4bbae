"""Where a run is computed, and what is said where that cannot be."""

import importlib.util

import numpy as np
import pytest

import langevin as lv
from langevin import devices
from langevin.engines import compiling
from langevin.errors import LangevinError, ParameterError, UnavailableError

WELL = dict(n_replicas=64, n_steps=8, progress=False)


def small(**options):
    surface = lv.surfaces.double_well()
    return lv.simulate(surface, lv.Overdamped(0.1, 0.01), **WELL, **options)


@pytest.fixture
def machine(monkeypatch):
    """A machine with these GPUs, or with what is missing for them."""

    def present(*names, missing=""):
        monkeypatch.setattr(devices, "why_no_gpu", lambda: missing)
        monkeypatch.setattr(devices, "gpus", lambda: list(names))

    return present


@pytest.fixture
def asked(monkeypatch):
    """why_no_gpu() asked anew, on a machine that has what the test says."""
    packages = {"numba_cuda": True, "cupy": True}
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: packages[name] if name in packages else find(name)
    )
    monkeypatch.setattr(compiling, "simulated", lambda: False)
    monkeypatch.setattr(compiling, "gpus", lambda: [("card", (9, 0), 2**37)])
    monkeypatch.setattr(compiling, "to_device", np.array)
    devices.why_no_gpu.cache_clear()
    yield packages
    devices.why_no_gpu.cache_clear()


@pytest.mark.parametrize(
    "device",
    ["gpu", "CPU", "", "cuda:", "cuda:x", "cuda:-1", "cuda:1,", "cuda1", "cpu:0", " cuda", "cuda\n",
     None, 0, ("cuda",)],
)  # fmt: skip
def test_text_that_is_no_device(device, machine):
    machine("card")
    with pytest.raises(ParameterError, match="needed: 'cpu', 'cuda', 'cuda:1'") as refused:
        small(device=device)
    assert repr(device) in str(refused.value)


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:all"])
def test_a_gpu_that_is_not_there_is_refused_never_replaced(device, machine):
    machine(missing="the NVIDIA driver reports no GPU.")
    with pytest.raises(UnavailableError) as refused:
        small(device=device)
    said = str(refused.value)
    assert f"device={device!r}" in said and "the NVIDIA driver reports no GPU." in said
    assert "device='cpu'" in said and "device='auto'" in said


def test_auto_takes_the_cpu_where_no_gpu_works_and_says_so(machine):
    machine(missing="the NVIDIA driver reports no GPU.")
    found = small(device="auto")
    assert found.device == "cpu" == small().device
    assert (found.positions == small(device="cpu").positions).all()


@pytest.mark.parametrize(
    ("device", "numbers", "name"),
    [
        ("auto", (0,), "cuda:0 (one)"),
        ("cuda", (0,), "cuda:0 (one)"),
        ("cuda:1", (1,), "cuda:1 (two)"),
        ("cuda:2,0", (2, 0), "cuda:2,0 (three, one)"),
        ("cuda:1,1", (1,), "cuda:1 (two)"),
        ("cuda:all", (0, 1, 2), "cuda:0,1,2 (one, two, three)"),
        ("cpu", (), "cpu"),
    ],
)
def test_which_gpus_are_meant(device, numbers, name, machine):
    machine("one", "two", "three")
    chosen = devices.choose(device)
    assert chosen.kind == ("cpu" if device == "cpu" else "cuda")
    assert (chosen.numbers, chosen.name) == (numbers, name)


@pytest.mark.parametrize("device", ["cuda:1", "cuda:0,7"])
def test_a_number_that_no_gpu_has(device, machine):
    machine("card")
    with pytest.raises(UnavailableError, match="this machine has 1 GPU, numbered from 0: card"):
        devices.choose(device)


# --- what is missing ------------------------------------------------------------------------------


def test_nothing_is_missing(asked):
    assert devices.why_no_gpu() == ""
    assert devices.choose("auto").name == "cuda:0 (card)"


@pytest.mark.parametrize("package", ["numba_cuda", "cupy"])
def test_a_package_is_missing(asked, package):
    asked[package] = None
    said = devices.why_no_gpu()
    assert package.replace("_", "-") in said and "pip install 'langevin[cuda]'" in said


def test_the_driver_is_missing_or_broken(asked, monkeypatch):
    def broken():
        raise RuntimeError("CUDA driver library\n cannot be found")

    monkeypatch.setattr(compiling, "gpus", broken)
    said = devices.why_no_gpu()
    assert "no working NVIDIA driver" in said and "(CUDA driver library cannot be found)" in said


def test_a_driver_without_a_gpu(asked, monkeypatch):
    monkeypatch.setattr(compiling, "gpus", list)
    assert devices.why_no_gpu() == "the NVIDIA driver reports no GPU."


def test_cupy_that_does_not_work(asked, monkeypatch):
    def broken(values):
        raise OSError("libnvrtc.so.13 is missing")

    monkeypatch.setattr(compiling, "to_device", broken)
    assert devices.why_no_gpu() == "CuPy does not work here (libnvrtc.so.13 is missing)."


def test_a_gpu_that_is_too_old(asked, monkeypatch):
    cards = [("new", (9, 0), 1), ("old", (6, 1), 1)]
    monkeypatch.setattr(compiling, "gpus", lambda: cards)
    said = devices.why_no_gpu()
    assert "old (6.1)" in said and "new" not in said and "at least 7.0" in said


def test_what_this_machine_itself_says():
    devices.why_no_gpu.cache_clear()
    missing = devices.why_no_gpu()
    if not missing:
        pytest.skip("this machine has a GPU that works")
    with pytest.raises(LangevinError) as refused:
        small(device="cuda")
    assert missing in str(refused.value)
    assert small(device="auto").device == "cpu"
