"""compare(): right laws agree, wrong laws are rejected by the same code."""

import functools

import numpy as np
import pytest
from kit import replicas, scale, statistical
from scipy import stats

import langevin as lv
from langevin.analysis.compare import student
from langevin.errors import LangevinError

SURFACE = lv.Surface("x**4/4 - a*x**3/3 - x**2/2", a=0.4, noise=lv.Isotropic(1.0))
DYNAMICS = lv.SGD(learning_rate=0.1, batch_size=0.4)
VERDICT = 16  # comparisons that a verdict counts as: its significance over P(|Z| > 4)


@functools.cache
def chain(batch_size=0.4, learning_rate=0.1, a=0.4):
    return lv.predict.chain(SURFACE.replace(a=a), lv.SGD(learning_rate, batch_size))


def run(seed, n_replicas=40_000):
    return lv.simulate(
        SURFACE,
        DYNAMICS,
        n_replicas=replicas(n_replicas),
        n_steps=6_000,
        burn_in=2_000,
        seed=seed,
        observe=(lv.Histogram(bins=120, every=10), lv.Occupation(every=10), lv.Moments(every=10)),
        progress=False,
    )


@statistical(comparisons=VERDICT, seed=11, missed_bug=1e-4)
def test_the_chain_agrees_and_wrong_laws_differ(seed, check):
    """Among them the continuum, which is wrong at a large step."""
    result = run(seed)
    found = lv.compare(result, chain())
    check.verdict(found)
    assert found.total_variation < 3 * found.total_variation_noise
    assert {row.quantity for row in found.rows} >= {"cov[0,0]", "mean[0]"}
    assert any("chi-square" in row.quantity for row in found.rows)
    if check.twins:  # of the whole ensemble
        assert found.resolution < 0.05
        assert "p_0/p_1" in {row.quantity for row in found.rows}
    else:
        return
    for name, wrong in {
        "S halved": chain(0.2),
        "S off by 5 %": chain(0.4 * 1.05),
        "same eta/S, twice the step": chain(0.8, 0.2),
        "continuum": lv.predict.boltzmann_gibbs(SURFACE, DYNAMICS),
        "Laplace": lv.predict.laplace(SURFACE, DYNAMICS),
        "another surface": chain(a=0.41),
    }.items():
        check.twin(p=lv.compare(result, wrong).p_value, name=name)


@statistical(comparisons=VERDICT, seed=1)
def test_a_small_run_is_undecided(seed, check):
    small = lv.simulate(
        SURFACE, DYNAMICS, n_replicas=256, n_steps=2_000, burn_in=1_000, seed=seed,
        observe=lv.Occupation(every=50), progress=False,
    )  # fmt: skip
    found = lv.compare(small, chain(), resolution=0.01)
    check.holds(found.verdict == "undecided" in str(found), found.significance, str(found))
    check.twin(p=lv.compare(small, chain(a=-0.4)).p_value, name="mirrored")


@statistical(comparisons=2 * VERDICT, seed=5)
def test_groups(seed, check):
    n = replicas(8_192)
    labels = np.repeat([0, 1], n)
    swept = lv.simulate(
        SURFACE, lv.SGD(0.1, np.repeat([0.4, 0.25], n)), n_replicas=2 * n, n_steps=6_000,
        burn_in=3_000, seed=seed, progress=False,
        observe=(lv.Occupation(every=10, groups=labels), lv.Histogram(every=10, groups=labels)),
    )  # fmt: skip
    for k, size in enumerate((0.4, 0.25)):
        check.verdict(lv.compare(swept, chain(size), group=k), f"group {k}")
        check.twin(p=lv.compare(swept, chain(0.65 - size), group=k).p_value, name="the other's")
    for missing in (None, 2, -1):
        for observer in (None, "density"):
            with pytest.raises(LangevinError, match="group"):
                lv.compare(swept, chain(), group=missing, observer=observer)


def test_nothing_in_common():
    bare = lv.simulate(SURFACE, DYNAMICS, n_replicas=64, n_steps=8, seed=0, progress=False)
    with pytest.raises(LangevinError, match="Occupation"):
        lv.compare(bare, chain())


def test_a_law_that_lasts_shorter_than_all_replicas_together_is_noted():
    hot = lv.Overdamped(0.12, 0.4)
    law = lv.predict.chain(lv.surfaces.double_well(0.4), hot)
    for n, noted in ((100, False), (10_000, True)):
        found = lv.simulate(
            lv.surfaces.double_well(0.4), hot, n_replicas=n, n_steps=400, burn_in=200, seed=2,
            observe=lv.Moments(), progress=False, on_divergence="absorb",
        )  # fmt: skip
        assert (n * 400 > law.lifetime > 400) == noted
        assert any("quasi-stationary" in note for note in lv.compare(found, law).notes) == noted


@statistical(comparisons=1, seed=0, missed_bug=1e-4)
def test_p_values_are_uniform(seed, check):
    """Over 60 seeds the p-values of the right law are uniform (KS), of a wrong one not."""
    n, p = replicas(8_192), {0.4: [], 0.41: []}
    for k in range(60 if scale == 1.0 else 12):
        measured = lv.simulate(
            SURFACE, DYNAMICS, n_replicas=n, n_steps=1_500, burn_in=1_000, seed=seed + k,
            observe=lv.Occupation(every=20), progress=False,
            start=np.where(np.arange(n) % 9 == 0, -0.8, 1.2)[:, None],
        )  # fmt: skip
        for size, found in p.items():
            found.append(lv.compare(measured, chain(size), allow_unequilibrated=True).p_value)
    check.p(stats.kstest(p[0.4], "uniform").pvalue, "right")
    check.twin(p=stats.kstest(p[0.41], "uniform").pvalue, name="S off by 2.5 %")


def test_student():
    assert student(1.96, 10_000) == pytest.approx(0.05, abs=1e-3)
    assert student(0.0, 5) == 1.0
    assert np.isnan(student(float("nan"), 5))


RARE = lv.Surface("x**4/4 - a*x**3/3 - x**2/2", a=1.6, noise=lv.Isotropic(1.0))


@pytest.mark.parametrize("temperature", [0.25, 0.2, 0.16])
@statistical(comparisons=10 * VERDICT, seed=0)
def test_a_rare_minimum_is_no_reason_to_differ(seed, check, temperature):
    """p_A/p_B of 1e-4 to 1e-6: seen in a few error groups, whose spread says nothing."""
    dynamics = lv.Overdamped(temperature, 0.05)
    law = lv.predict.chain(RARE, dynamics)
    for k in range(10 if scale == 1.0 else 2):
        measured = lv.simulate(
            RARE, dynamics, n_replicas=replicas(4_096), n_steps=3000, burn_in=2000, seed=seed + k,
            observe=lv.Occupation(every=20), progress=False, start=[2.1],
        )  # fmt: skip
        found = lv.compare(measured, law, allow_unequilibrated=True)
        check.holds(found.verdict != "differs", found.significance, f"run {k}")
    wrong = lv.predict.boltzmann_gibbs(RARE.replace(a=0.4), temperature=temperature)
    found = lv.compare(measured, wrong, allow_unequilibrated=True)
    check.twin(p=found.p_value, name="another surface")


@statistical(comparisons=2 * VERDICT, seed=8, missed_bug=0.1)
def test_a_histogram_alone_can_agree(seed, check):
    """The first thing a user tries; and grouped histograms are tested group by group."""
    labels = np.arange(replicas(30_000)) % 2
    measured = lv.simulate(
        SURFACE, lv.SGD(0.1, np.where(labels == 0, 0.4, 0.25)), n_replicas=len(labels),
        n_steps=3_000, burn_in=2_000, seed=seed, progress=False,
        observe=lv.Histogram(bins=60, every=10, groups=labels),
        start=np.where(np.arange(len(labels)) % 9 == 0, -0.8, 1.2)[:, None],
    )  # fmt: skip
    for k, size in enumerate((0.4, 0.25)):
        found = lv.compare(measured, chain(size), group=k)
        check.verdict(found, str(found))
        assert "nothing checked" in str(found)
        wrong = lv.compare(measured, chain(1.1 * size), group=k)
        check.twin(p=wrong.p_value, name=f"S of group {k} off by a tenth")


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
def test_not_a_prediction(wrong):
    result = lv.simulate(
        SURFACE, DYNAMICS, n_replicas=64, n_steps=8, seed=0, progress=False, observe=lv.Moments()
    )
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
