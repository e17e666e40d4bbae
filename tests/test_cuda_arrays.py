"""The CUDA engine on arrays that are as strict as CuPy's: nothing is converted by accident."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("numba_cuda") is None, reason="needs numba-cuda: pip install .[cuda]"
)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("strict")
    command = [sys.executable, str(HERE / "strict_arrays.py"), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=HERE.parent)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", ["sums", "carried", "scheduled", "replicas", "packed"])
def test_positions_are_the_cpu_s(found, name):
    assert found[name] <= 1e-14


def test_estimates_are_the_cpu_s(found):
    assert found["density"] == 0
    assert found["moments"] <= 1e-15
    assert found["energy"] == 0
    assert found["passed"] and found["packed passed"]
    assert (
        found["how many"][0] > 10 and found["how many"][1] > 70 / 4
    )  # a quarter: the rest are packed


def test_a_result_on_a_gpu_is_compared_saved_and_labelled(found):
    assert found["compare"] in ("agrees", "differs", "undecided")
    assert found["two runs"] in ("agrees", "undecided")
    assert found["saved"] == ["cpu", "cuda:0 (simulated GPU)"]
    assert "replica" in found["labels"]


def test_a_checkpoint_goes_on_to_the_same_bits(found):
    assert found["resumed"] == [12, 12, 24]
    assert found["same bits"]
