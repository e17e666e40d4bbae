"""The demo end to end, and its verdicts under a planted error."""

import dataclasses
import json

import pytest
from rich.console import Console

import langevin as lv
from langevin import demo


@pytest.fixture(scope="module")
def wells():
    return demo.wells(quick=False, seed=2017)


def test_demo_writes_everything(tmp_path, capsys):
    demo.run(tmp_path, quick=True, seed=4, console=Console(width=140))
    record = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    for name in ("occupation.png", "densities.png", "covariance.png"):
        assert (tmp_path / name).stat().st_size > 10_000
    assert record["two_wells"]["points"][0]["measured"] < 1
    assert record["two_wells"]["points"][-1]["measured"] > 1
    for run in record["least_squares"]["runs"].values():
        assert run["verdict"]["exact discrete law"] != "differs"
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


def test_verdicts_come_from_z_and_reject_a_wrong_law(wells):
    """The same comparison with S halved is rejected at every point of the sweep."""
    surface = wells["surface"]
    result = wells["result"]
    for k, point in enumerate(wells["points"]):
        assert point["comparisons"]["discrete chain"].verdict == "agrees"
        right = lv.SGD(demo.LEARNING_RATE, point["record"]["batch_size"])
        wrong = dataclasses.replace(right, batch_size=right.batch_size / 2)
        found = lv.compare(result, lv.predict.chain(surface, wrong), group=k, resolution=0.01)
        assert found.verdict == "differs"
        assert abs(found.z) > 5
