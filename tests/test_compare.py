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
