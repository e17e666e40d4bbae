"""Diagnostics: R-hat, effective sample sizes and verdicts where the truth is known."""

from dataclasses import replace

import numpy as np
import pytest
from kit import spread_z, statistical
from scipy import stats

import langevin as lv
from langevin.analysis.averages import Averages, MeasuredAverage, temperature_from_sums
from langevin.analysis.convergence import drift, nested_r_hat, normal_z
from langevin.analysis.diagnostics import Diagnosis, diagnostics
from langevin.analysis.groups import jackknife

# The kernel of test_observers.py, with other numbers: it need not be compiled again.
WELL = lv.Surface("x**4/4 - a*x**3/3 - x**2/2", a=0.0)
WATCH = (
    lv.Histogram(30, range=(-2.5, 2.5)),
    lv.Occupation(),
    lv.Moments(),
    lv.Average("x**2 + a*exp(-x)", name="square"),
    lv.Temperature(),
    lv.Transitions(every=100),
    lv.Trajectory(every=1_000),
    lv.Autocorrelation(lags=60, every=100),
    lv.FirstPassage("x > 1"),
)


def run(temperature, n_replicas=2_048, n_steps=20_000, **options):
    options = dict(seed=2, burn_in=500, progress=False, observe=WATCH) | options
    dynamics = lv.Overdamped(temperature, 0.05)
    return lv.simulate(WELL, dynamics, n_replicas=n_replicas, n_steps=n_steps, **options)


@statistical(comparisons=1, seed=2, twin="test_a_run_that_remembers_its_start")
def test_a_converged_run(seed, check):
    watch = [replace(o, lags=120) if o.name == "autocorrelation" else o for o in WATCH]
    result = run(0.1, seed=seed, n_steps=24_000, burn_in=4_000, observe=watch)
    found = result.diagnostics()
    check.holds(found.converged, 1e-5, str(found))  # its tests alarm at 5 standard errors
    assert found.untested == ("trajectory",)
    mean = found["moments mean[0]"]
    assert mean.r_hat < 1.01 and mean.effective_sample_size > 400 and abs(mean.drift) < 5
    assert mean.effective_sample_size == pytest.approx(
        result.moments().covariance[0, 0] / result.moments().mean_stderr[0] ** 2
    )
    assert abs(found["occupation p_0"].equilibration) < 5
    text = str(found)
    for part in ("R-hat", "occupation p_1", "square", "temperature virial", "converged"):
        assert part in text


@statistical(comparisons=1, seed=2)
def test_a_run_that_remembers_its_start(seed, check):
    """Too cold to cross: every test that can see it says so, and names a remedy."""
    result = run(0.015, n_steps=7_000, seed=seed)
    found = result.diagnostics()
    assert not found.converged
    for quantity in ("occupation p_0", "moments mean[0]", "transitions"):
        assert found[quantity].verdict == "not converged", quantity
        assert found[quantity].reason
    assert result.moments().r_hat[0] > 1.5
    check.twin(found["occupation p_0"].equilibration, "two wells")
    check.holds(found["square"].verdict == "converged", 1e-5, "the same in both wells")
    assert "not converged" in str(found)


def test_too_few_replicas():
    found = run(0.1, n_replicas=5).diagnostics()
    row = found["square"]
    assert row.verdict == "too few replicas" and "replicas" in row.reason
    with pytest.raises(KeyError, match="square"):
        _ = found["y"]


@statistical(comparisons=1, seed=2, missed_bug=0.1)
def test_a_run_still_drifting(seed, check):
    """From a common start uphill the means of the halves differ; the superchains do not."""
    observe = [
        replace(o, every=1) if o.name in ("autocorrelation", "transitions") else o for o in WATCH
    ]
    observe[6] = lv.Trajectory()
    found = run(0.6, start=[2.5], n_steps=60, burn_in=0, observe=observe, seed=seed).diagnostics()
    check.twin(found["square"].drift, "halves")
    assert abs(found["square"].drift) > 5 and found["square"].verdict == "not converged"
    assert "halves" in found["square"].reason


@pytest.mark.parametrize(
    "within, beyond, says",
    [
        (dict(r_hat=1.009), dict(r_hat=1.011), "R-hat"),
        (dict(effective_sample_size=401), dict(effective_sample_size=399), "effective"),
        (dict(drift=4.9), dict(drift=5.1), "halves"),
        (dict(drift=-4.9), dict(drift=-5.1), "halves"),
        (dict(equilibration=4.9), dict(equilibration=5.1), "different basins"),
        (dict(equilibration=-4.9), dict(equilibration=-5.1), "different basins"),
        (dict(relative_error=0.049), dict(relative_error=0.051), "5%"),
        (dict(refusal=""), dict(refusal="because"), "because"),
    ],
)
def test_each_test_decides_alone(within, beyond, says):
    """A row that passes every other test, just within and just beyond a bound."""
    row = Diagnosis("q", lv.Estimate(1.0, 0.01, 63), 0.01)
    assert replace(row, **within).verdict == "converged"
    assert replace(row, **beyond).verdict == "not converged"
    assert says in replace(row, **beyond).reason
    assert replace(row, relative_error=np.nan).verdict == "not converged"  # nothing is known
    few = replace(row, estimate=lv.Estimate(1.0, 0.01, 14), **beyond)
    assert few.verdict == ("not converged" if few.refusal else "too few replicas")


def test_several_formulas_get_a_row_each():
    one = MeasuredAverage(1.0, 0.01, formula="x", variance=1.0, r_hat=1.001, drift=0.5)
    found = diagnostics({"both": Averages((one, replace(one, formula="y", r_hat=1.2)))})
    assert found["both x"].verdict == "converged"
    assert found["both y"].verdict == "not converged" and "R-hat" in found["both y"].reason


@statistical(comparisons=1, seed=3, missed_bug=1e-3)
def test_nested_r_hat_is_gelman_and_rubin_for_single_chains(seed, check):
    rng = np.random.default_rng(seed)
    chains = rng.normal(size=(12, 500)) + np.linspace(0, 0.5, 12)[:, None]
    found = nested_r_hat(
        np.full(12, 500.0), chains.sum(axis=1)[:, None], (chains**2).sum(axis=1)[:, None]
    )
    within = chains.var(axis=1, ddof=1).mean()
    between = chains.mean(axis=1).var(ddof=1)
    assert found[0] == pytest.approx(np.sqrt(1 + between / within))
    law = stats.f(11, 12 * 499)  # of 500 between/within
    check.twin(p=law.sf(500 * (found[0] ** 2 - 1)), name="chains apart")
    same = rng.normal(size=(12, 500))
    value = nested_r_hat(
        np.full(12, 500.0), same.sum(axis=1)[:, None], (same**2).sum(axis=1)[:, None]
    )
    between = 500 * (value[0] ** 2 - 1)
    check.p(2 * min(law.sf(between), law.cdf(between)), "chains alike")
    assert np.isnan(nested_r_hat(np.array([5.0]), np.ones((1, 1)), np.ones((1, 1)))).all()


@statistical(comparisons=2, seed=4, missed_bug=1e-3)
def test_drift_is_a_normal_z(seed, check):
    rng, z = np.random.default_rng(seed), []
    for _ in range(400):
        count = rng.integers(5, 20, size=(24, 2)).astype(float)
        sums = rng.normal(size=(24, 2)) * np.sqrt(count) + 3 * count
        z.append(drift(count, sums[..., None])[0])
    z = np.array(z)
    check.z([spread_z(z), z.mean() * 20], "spread and mean")
    for factor in (1.6, 1 / 1.6):
        check.twin(spread_z(factor * z), f"errors off by {factor:.2g}")
    wrong = drift(count, (sums + np.array([[0.0, 20.0]]))[..., None])[0]
    check.twin(stats.t.isf(stats.norm.sf(abs(wrong)), 23), "a drift")  # as Student's t of 24 groups


@pytest.mark.parametrize("dof", [1, 3, 15, 63])
def test_a_normal_z_has_the_p_value_of_student(dof):
    t = np.array([-6.0, -1.0, 0.0, 2.0, 8.0])
    z = normal_z(0.3 * t, np.full(5, 0.3), dof)
    assert np.allclose(stats.norm.sf(z), stats.t.sf(t, dof), rtol=1e-9)
    assert (np.abs(z[[0, 4]]) < np.abs(t[[0, 4]])).all()


@statistical(comparisons=1, seed=6)
def test_the_drift_of_a_temperature_is_that_of_the_ratio(seed, check):
    """Slopes and curvatures that grow together are the same temperature in both halves."""
    rng, z = np.random.default_rng(seed), []
    for later in (1.0, 1.1):  # the second: a temperature that grew by a tenth
        sums = np.zeros((64, 1, 2, 7))
        sums[..., 0] = 100
        sums[..., 2] = np.array([1000.0, 3000.0]) + rng.normal(size=(64, 1, 2))
        sums[..., 1] = 0.2 * sums[..., 2] * np.array([1.0, later]) + rng.normal(size=(64, 1, 2))
        z.append(temperature_from_sums(sums, 1).drift)
    check.z(z[0], "the same")
    check.twin(z[1], "a tenth more")


@statistical(comparisons=1, seed=5, missed_bug=0.02)
def test_the_jackknife_of_a_mean_is_its_standard_error(seed, check):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(40, 3))
    sums = np.column_stack([values, np.ones(40)])
    value, stderr, dof = jackknife(sums, lambda total: total[:3] / total[3])
    assert np.allclose(value, values.mean(axis=0)) and dof == 39
    assert np.allclose(stderr, values.std(axis=0, ddof=1) / np.sqrt(40))
    many = np.column_stack([rng.normal(size=6_400), np.ones(6_400)])
    _, stderr, dof = jackknife(many, lambda total: total[0] / total[1])
    assert dof == 63
    for factor in (1, 2):  # twice the error is rejected
        squares = dof * (factor * stderr * 80) ** 2  # chi-square
        p = 2 * min(stats.chi2.sf(squares, dof), stats.chi2.cdf(squares, dof))
        check.p(p, "error") if factor == 1 else check.twin(p=p, name="twice")
