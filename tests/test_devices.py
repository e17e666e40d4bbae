"""Where a run is computed, and what is said where that cannot be."""

import importlib.util

import numpy as np
import pytest
from typer.testing import CliRunner

import langevin as lv
from langevin import cli, devices, information
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
    monkeypatch.setattr(devices, "_run_a_kernel", lambda: None)
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


def test_a_driver_older_than_the_toolkit(asked, monkeypatch):
    def broken():
        raise RuntimeError("CUDA_ERROR_UNSUPPORTED_PTX_VERSION")

    monkeypatch.setattr(devices, "_run_a_kernel", broken)
    said = devices.why_no_gpu()
    assert "a kernel cannot run here (CUDA_ERROR_UNSUPPORTED_PTX_VERSION)" in said
    assert "driver" in said and "580" in said


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


# --- what `langevin info` says of it --------------------------------------------------------------


@pytest.fixture
def smi(monkeypatch, tmp_path):
    """A machine whose nvidia-smi is this shell script."""

    def present(script):
        tool = tmp_path / "nvidia-smi"
        tool.write_text(f"#!/bin/sh\n{script}\n")
        tool.chmod(0o755)
        monkeypatch.setattr(information.shutil, "which", lambda name: str(tool) if script else None)

    return present


TOLD = "echo 'NVIDIA H200, 143771 MiB, 580.95.05'"


def test_info_shows_the_gpu_its_memory_and_the_driver(asked, smi):
    smi(TOLD)
    assert information.gpu() == "0: card, 128 GiB, compute capability 9.0; driver 580.95.05"
    smi("exit 9")
    assert information.gpu().endswith("9.0; driver of unknown version")
    smi("")  # a container without the tool
    assert information.gpu().startswith("0: card, 128 GiB")


def test_info_says_what_a_gpu_lacks(asked, smi):
    asked["cupy"] = None
    smi(TOLD)
    said = information.gpu()
    assert said.startswith("NVIDIA H200, 143771 MiB, 580.95.05 (not usable: ")
    assert "pip install 'langevin[cuda]'" in said
    smi("")
    assert information.gpu().startswith("none found: the package cupy is not installed")
    smi("exit 9")
    said = information.gpu()
    assert "nvidia-smi fails" in said and "exit status 9" in said and "cupy" in said


def test_info_goes_on_where_a_gpu_breaks(asked, monkeypatch):
    def broken(device, **options):
        if device == "cuda":
            raise RuntimeError("CUDA_ERROR_ILLEGAL_ADDRESS\n on line 3")
        return 2.5e9

    monkeypatch.setattr(information, "rate", broken)
    found = information.gather()
    assert found["GPU engine"] == "fails: RuntimeError: CUDA_ERROR_ILLEGAL_ADDRESS on line 3"
    assert found["CPU engine"].startswith("2.5e+09 double-well steps")
    asked["numba_cuda"] = None
    devices.why_no_gpu.cache_clear()
    assert "GPU engine" not in information.gather()


def test_info_prints_what_looks_like_markup(monkeypatch):
    monkeypatch.setattr(information, "gather", lambda: {"GPU": "pip install 'langevin[cuda]' [/]"})
    shown = CliRunner().invoke(cli.app, ["info"])
    assert shown.exit_code == 0 and "pip install 'langevin[cuda]' [/]" in shown.output
