"""The tests of a GPU, run small by numba's simulator: they must not be broken when a GPU comes."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from langevin.engines import compiling

ROOT = Path(__file__).parent.parent


@pytest.mark.skipif(compiling.simulated(), reason="this is the rehearsal")
def test_the_tests_of_a_gpu_pass_in_the_simulator():
    command = [sys.executable, "-m", "pytest", "-n0", "-m", "gpu", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, str(ROOT / "tests" / "test_gpu.py")],
        env={
            **os.environ,
            "NUMBA_ENABLE_CUDASIM": "1",
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        },
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    dots = re.search(r"^([.s]+) +\[100%\]", done.stdout, re.MULTILINE)
    assert dots and dots[1].count(".") >= 25 and "s" not in dots[1], done.stdout
