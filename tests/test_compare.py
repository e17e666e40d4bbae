"""compare(): right laws agree, wrong laws are rejected by the same code."""

import dataclasses

import numpy as np
import pytest

import langevin as lv
from langevin.analysis.compare import student
from langevin.errors import LangevinError

SURFACE = lv.Surface("x**4/4 - a*x**3/3 - x**2/2", a=0.4, noise=lv.Isotropic(1.0))
DYNAMICS = lv.SGD(learning_rate=0.1, batch_size=0.4)


@pytest.fixture(scope="module")
def result():
    return lv.simulate(
        SURFACE,
        DYNAMICS,
        n_replicas=40_000,
        n_steps=6_000,
        burn_in=2_000,
        seed=11,
        observe=(lv.Histogram(bins=120, every=10), lv.Occupation(every=10), lv.Moments(every=10)),
        progress=False,
    )


def test_the_chain_agrees(result):
    found = lv.compare(result, lv.predict.chain(SURFACE, DYNAMICS))
    assert found.verdict == "agrees", str(found)
    assert found.resolution < 0.05
    assert found.total_variation < 3 * found.total_variation_noise
    assert {row.quantity for row in found.rows} >= {"p_0/p_1", "cov[0,0]", "mean[0]"}
    assert any("chi-square" in row.quantity for row in found.rows)


@pytest.mark.parametrize(
    "wrong",
    [
        dataclasses.replace(DYNAMICS, batch_size=DYNAMICS.batch_size / 2),
        dataclasses.replace(DYNAMICS, batch_size=DYNAMICS.batch_size * 1.05),
        dataclasses.replace(DYNAMICS, learning_rate=0.2, batch_size=0.8),
    ],
    ids=["S halved", "S off by 5 %", "same eta/S, twice the step"],
)
def test_a_wrong_law_differs(result, wrong):
    found = lv.compare(result, lv.predict.chain(SURFACE, wrong))
    assert found.verdict == "differs", str(found)
    assert abs(found.z) > 5


def test_the_continuum_differs_at_a_large_step(result):
    for law in (lv.predict.boltzmann_gibbs, lv.predict.laplace):
        assert lv.compare(result, law(SURFACE, DYNAMICS)).verdict == "differs"


def test_a_wrong_surface_differs(result):
    law = lv.predict.chain(SURFACE.replace(a=0.41), DYNAMICS)
    assert lv.compare(result, law).verdict == "differs"


def test_a_small_run_is_undecided():
    small = lv.simulate(
        SURFACE, DYNAMICS, n_replicas=256, n_steps=2_000, burn_in=1_000, seed=1,
        observe=lv.Occupation(every=50), progress=False,
    )  # fmt: skip
    found = lv.compare(small, lv.predict.chain(SURFACE, DYNAMICS), resolution=0.01)
    assert found.verdict == "undecided"
    assert "undecided" in str(found)


def test_groups():
    batch = np.repeat([0.4, 0.25], 8192)
    labels = np.repeat([0, 1], 8192)
    swept = lv.simulate(
        SURFACE, lv.SGD(0.1, batch), n_replicas=16384, n_steps=6_000, burn_in=3_000, seed=5,
        observe=(lv.Occupation(every=10, groups=labels), lv.Histogram(every=10, groups=labels)),
        progress=False,
    )  # fmt: skip
    for k, size in enumerate((0.4, 0.25)):
        right, wrong = (lv.predict.chain(SURFACE, lv.SGD(0.1, s)) for s in (size, 0.65 - size))
        assert lv.compare(swept, right, group=k).verdict == "agrees"
        assert lv.compare(swept, wrong, group=k).verdict == "differs"
    with pytest.raises(LangevinError, match="group"):
        lv.compare(swept, right)


def test_nothing_in_common():
    bare = lv.simulate(SURFACE, DYNAMICS, n_replicas=64, n_steps=8, seed=0, progress=False)
    with pytest.raises(LangevinError, match="Occupation"):
        lv.compare(bare, lv.predict.chain(SURFACE, DYNAMICS))


def test_p_values_are_uniform():
    """Over 60 seeds the p-values of the right law are uniform (KS), of a wrong one not."""
    from scipy import stats

    right = lv.predict.chain(SURFACE, DYNAMICS)
    wrong = lv.predict.chain(SURFACE, dataclasses.replace(DYNAMICS, batch_size=0.41))
    p = {"right": [], "wrong": []}
    for seed in range(60):
        run = lv.simulate(
            SURFACE, DYNAMICS, n_replicas=8192, n_steps=1_500, burn_in=1_000, seed=seed,
            observe=lv.Occupation(every=20), progress=False,
            start=np.where(np.arange(8192) % 9 == 0, -0.8, 1.2)[:, None],
        )  # fmt: skip
        for name, law in (("right", right), ("wrong", wrong)):
            p[name].append(lv.compare(run, law, allow_unequilibrated=True).p_value)
    assert stats.kstest(p["right"], "uniform").pvalue > 1e-4
    assert stats.kstest(p["wrong"], "uniform").pvalue < 1e-6


def test_student():
    assert student(1.96, 10_000) == pytest.approx(0.05, abs=1e-3)
    assert student(0.0, 5) == 1.0
    assert np.isnan(student(float("nan"), 5))


RARE = lv.Surface("x**4/4 - a*x**3/3 - x**2/2", a=1.6, noise=lv.Isotropic(1.0))


@pytest.mark.parametrize("temperature", [0.25, 0.2, 0.16])
def test_a_rare_minimum_is_no_reason_to_differ(temperature):
    """p_A/p_B of 1e-4 to 1e-6: seen in a few error groups, whose spread says nothing."""
    dynamics = lv.Overdamped(temperature, 0.05)
    law = lv.predict.chain(RARE, dynamics)
    verdicts = []
    for seed in range(10):
        run = lv.simulate(
            RARE, dynamics, n_replicas=4096, n_steps=3000, burn_in=2000, seed=seed,
            observe=lv.Occupation(every=20), progress=False, start=[2.1],
        )  # fmt: skip
        verdicts.append(lv.compare(run, law, allow_unequilibrated=True).verdict)
    assert "differs" not in verdicts
    wrong = lv.predict.boltzmann_gibbs(RARE.replace(a=0.4), temperature=temperature)
    assert lv.compare(run, wrong, allow_unequilibrated=True).verdict == "differs"


def test_a_histogram_alone_can_agree():
    """The first thing a user tries; and grouped histograms are tested group by group."""
    labels = np.arange(30_000) % 2
    run = lv.simulate(
        SURFACE, lv.SGD(0.1, np.where(labels == 0, 0.4, 0.25)), n_replicas=30_000, n_steps=3_000,
        burn_in=2_000, seed=8, observe=lv.Histogram(bins=60, every=10, groups=labels),
        progress=False, start=np.where(np.arange(30_000) % 9 == 0, -0.8, 1.2)[:, None],
    )  # fmt: skip
    for k, size in enumerate((0.4, 0.25)):
        found = lv.compare(run, lv.predict.chain(SURFACE, lv.SGD(0.1, size)), group=k)
        assert found.verdict == "agrees", str(found)
        assert "nothing checked" in str(found)
        wrong = lv.predict.chain(SURFACE, lv.SGD(0.1, 1.1 * size))
        assert lv.compare(run, wrong, group=k).verdict == "differs"


def test_rounding_is_not_physics():
    """Full-batch descent stops at the minimum: its error bar is rounding, not a disagreement."""
    X, y = lv.surfaces.diabetes()
    surface = lv.surfaces.linear_regression(X[:40, :3], y[:40])
    dynamics = lv.SGD(0.3, 40, sampling="without_replacement")
    run = lv.simulate(
        surface, dynamics, n_replicas=128, n_steps=400, burn_in=200, seed=0,
        observe=lv.Moments(), progress=False,
    )  # fmt: skip
    assert lv.compare(run, lv.predict.quadratic(surface, dynamics)).verdict != "differs"


@pytest.mark.parametrize("wrong", [3, None, "chain"])
def test_not_a_prediction(result, wrong):
    with pytest.raises(LangevinError, match="prediction"):
        lv.compare(result, wrong)


def test_the_guard_cannot_be_bypassed():
    cold = lv.simulate(
        SURFACE, lv.Overdamped(0.01, 0.05), n_replicas=64, n_steps=100, seed=0, progress=False,
        observe=(lv.Occupation(), lv.Occupation(every=2, name="second")),
    )  # fmt: skip
    for read in (lambda: cold["occupation"], lambda: cold.occupation("second")):
        with pytest.raises(LangevinError, match="stationary"):
            read()
    kept = cold.occupation("second", allow_unequilibrated=True)
    assert kept.ratio(0, 1).value == pytest.approx(1.0)
    assert "+-" in repr(kept)


def test_a_density_that_does_not_exist():
    flat = lv.Surface("log(1 + (x - 2)**2) + log(1 + (x + 2)**2)")
    with pytest.raises(LangevinError, match="does not confine"):
        lv.simulate(
            flat, lv.Overdamped(6.0, 0.05), n_replicas=64, n_steps=64, seed=0, progress=False,
            observe=lv.Occupation(),
        )  # fmt: skip
    with pytest.warns(lv.errors.ConvergenceWarning, match="no stationary density"):
        lv.simulate(
            flat, lv.Overdamped(6.0, 0.05), n_replicas=64, n_steps=64, seed=0, progress=False,
            observe=lv.Histogram(range=(-5, 5)),
        )  # fmt: skip
