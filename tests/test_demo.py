"""The demo end to end, and its verdicts under a planted error."""

import dataclasses
import functools
import json

import pytest
from kit import statistical
from rich.console import Console

import langevin as lv
from langevin import demo
from langevin.analysis import compare


@functools.cache
def measured(seed):
    return demo.wells(quick=False, seed=seed)


@pytest.fixture
def wells():
    return measured(2017)


@statistical(comparisons=64, seed=4, twin="test_verdicts_come_from_z", smoke=False)
def test_demo_writes_everything(seed, check, tmp_path, capsys):
    demo.run(tmp_path, quick=True, seed=seed, console=Console(width=140))
    record = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    for name in ("occupation.png", "densities.png", "covariance.png"):
        assert (tmp_path / name).stat().st_size > 10_000
    assert record["two_wells"]["points"][0]["measured"] < 1
    assert record["two_wells"]["points"][-1]["measured"] > 1
    for run in record["least_squares"]["runs"].values():
        right = run["verdict"]["exact discrete law"] != "differs"
        check.holds(right, compare.SIGNIFICANCE, "exact discrete law")
        assert run["verdict"]["Boltzmann-Gibbs"] == "differs"
    shown = capsys.readouterr().out
    assert "discrete chain" in shown and "without" in shown and "differs" in shown


def test_standard_errors_are_at_most_one_percent(wells):
    for point in wells["points"]:
        assert point["measured"].stderr <= 0.01 * point["measured"].value


def test_the_sweep_crosses_the_critical_noise(wells):
    crossing = demo.measured_crossing(wells)
    assert 0.7 < crossing / wells["critical"].value < 1.4
    assert wells["critical"].paper == pytest.approx(wells["critical"].value / 4)


@statistical(comparisons=16 * len(demo.SWEEP), seed=2017, smoke=False)
def test_verdicts_come_from_z_and_reject_a_wrong_law(seed, check):
    """The same comparison with S halved is rejected at every point of the sweep."""
    wells = measured(seed)
    surface = wells["surface"]
    result = wells["result"]
    for k, point in enumerate(wells["points"]):
        check.verdict(point["comparisons"]["discrete chain"], f"point {k}")
        right = lv.SGD(demo.LEARNING_RATE, point["record"]["batch_size"])
        wrong = dataclasses.replace(right, batch_size=right.batch_size / 2)
        found = lv.compare(result, lv.predict.chain(surface, wrong), group=k, resolution=0.01)
        assert found.verdict == "differs"
        check.twin(found.z, f"S halved at {k}")
