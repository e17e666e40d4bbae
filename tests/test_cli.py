"""The command line: info, help, and refusals without a traceback."""

import os
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest

import langevin as lv
from langevin import cli, information, plot

matplotlib.use("Agg")


def run(*arguments):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent), "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, "-m", "langevin", *arguments],
        capture_output=True,
        text=True,
        env=environment,
    )


def test_info():
    done = run("info")
    assert done.returncode == 0
    for word in ("CPU", "threads used", "SIMD width", "GPU", "numpy", "numba"):
        assert word in done.stdout
    assert information.simd_bits() in (64, 128, 256, 512)
    assert information.version("no-such-package") is None


def test_help_and_unknown_command():
    assert "demo" in run("--help").stdout
    assert run("fly").returncode == 2


def test_a_refusal_has_no_traceback(monkeypatch, capsys):
    def refuse():
        raise lv.errors.UnsoundError("this cannot be. [Do that]")

    monkeypatch.setattr(cli, "app", refuse)
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 2
    shown = capsys.readouterr().err
    assert "this cannot be. [Do that]" in shown and "Traceback" not in shown


def test_plots_return_axes():
    surface = lv.surfaces.double_well()
    dynamics = lv.Overdamped(0.2, 0.05)
    result = lv.simulate(
        surface, dynamics, n_replicas=2000, n_steps=400, burn_in=200, seed=0, progress=False,
        observe=(lv.Histogram(bins=40), lv.Occupation()),
    )  # fmt: skip
    law = lv.predict.chain(surface, dynamics)
    axes = plot.density(result.density(), [law])
    assert [text.get_text() for text in axes.get_legend().get_texts()][-1] == "measured"
    assert plot.density(result.density(), ax=axes) is axes
    ratio = [lv.Estimate(0.5, 0.01), lv.Estimate(2.0, 0.02)]
    x = np.array([0.1, 0.2])
    axes = plot.ratios(x, ratio, {"law": (x, x * 5)}, marks={"critical": 0.15})
    assert axes.get_xscale() == axes.get_yscale() == "log"
    assert plot.variances(x, x, {"law": x}).get_xlabel()
