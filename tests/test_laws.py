"""What runs measure against exact laws, with known standard errors and laws that must be rejected.

Every z-score divides by a standard error that follows from the law itself, never from the data,
except where the error bars are themselves under test.
"""

import laws
import numpy as np
import pytest
from kit import beyond, replicas, scale, statistical
from scipy import stats

import langevin as lv
from langevin.errors import UnsoundError
from langevin.surfaces.finite_sum import FiniteSum

PARABOLA = lv.Surface("h*x**2/2", variables=("x",), h=1.0, noise=lv.Isotropic(1.5))
WELL = lv.Surface("x**4/4 - a*x**3/3 - x**2/2", a=0.4, noise=lv.Isotropic(1.0))
SIGMA = 1.5


def simulate(surface, dynamics, **options):
    return lv.simulate(surface, dynamics, progress=False, **options)


def variance_z(x, variance):
    """z of the mean square of independent centred Gaussians against their variance."""
    return ((x**2).mean() / variance - 1) * np.sqrt(x.size / 2)


# --- a quadratic surface: test_closed_forms.py has the rest ---------------------------------------


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@statistical(comparisons=9, seed=1)
def test_sgd_variance_is_that_of_the_discrete_chain(seed, check, dtype):
    n, h, size = replicas(100_000), 2.0, 4.0
    etas = np.repeat([0.05, 0.25, 0.7], n)  # eta h = .1, .5, 1.4: one launch
    dynamics = lv.SGD(etas, size)
    options = dict(n_replicas=3 * n, n_steps=203, start=[0.0], seed=seed, dtype=dtype)
    x = simulate(PARABOLA.replace(h=h), dynamics, **options).positions[:, 0].astype(float)
    for k, eta in enumerate((0.05, 0.25, 0.7)):
        mine = x[k * n : (k + 1) * n]
        exact = laws.sgd_variance(eta, SIGMA**2 / size, h)
        check.z(variance_z(mine, exact), f"variance, eta={eta}")
        check.z(mine.mean() / np.sqrt(exact / n), f"mean, eta={eta}")
        wrong = {
            "noise off by sqrt(2)": 2 * exact,
            "S forgotten": size * exact,
            "sigma forgotten": exact / SIGMA**2,
        }
        if eta * h >= 0.5:
            wrong["continuum"] = eta * SIGMA**2 / (2 * size) / h
        for name, variance in wrong.items():
            check.twin(variance_z(mine, variance), name)
        check.p(stats.kstest(mine / np.sqrt(exact), "norm").pvalue, f"Gaussian, eta={eta}")


# --- real mini-batches ----------------------------------------------------------------------------


def test_a_batch_of_all_examples_has_no_noise():
    u, v = np.random.default_rng(7).normal(size=(2, 7))
    surface = FiniteSum("(w*u - v)**2/2", data={"u": u, "v": v})
    best = (u * v).mean() / (u**2).mean()
    dynamics = lv.SGD(0.3, 7, sampling="without_replacement")
    options = dict(n_replicas=70, n_steps=402, seed=1)
    x = simulate(surface, dynamics, start=[best + 1], **options).positions
    assert np.abs(x - best).max() < 1e-12


# --- the double well ------------------------------------------------------------------------------


def chain_law(surface, eta, temperature, low=-2.4, high=2.8, n=1200):
    """Stationary cell probabilities of x <- x - eta U' + sqrt(2 T eta) xi, and the cell centres."""
    x = np.linspace(low, high, n)
    mean = x - eta * surface.gradient(x[:, None])[:, 0]
    width = np.sqrt(2 * temperature * eta)
    kernel = np.exp(-(((x[None, :] - mean[:, None]) / width) ** 2) / 2)
    kernel /= kernel.sum(axis=1, keepdims=True)
    system = kernel.T - np.eye(n)
    system[-1] = 1.0
    right = np.zeros(n)
    right[-1] = 1.0
    return x, np.linalg.solve(system, right)


@pytest.mark.parametrize("eta, figure", [(0.05, 0.120405), (0.1, 0.122463), (0.2, 0.129559)])
def test_the_oracle_meets_published_figures(eta, figure):
    x, p = chain_law(WELL, eta, 0.12)
    assert p[x < 0].sum() / p[x > 0].sum() == pytest.approx(figure, rel=3e-3)


def chi_square_p(x, grid, probability, edges):
    """The p-value of chi-square of independent samples against a law on a grid."""
    cdf = np.concatenate([[0], np.cumsum(probability)])
    borders = np.concatenate([[grid[0] - (grid[1] - grid[0]) / 2], grid + (grid[1] - grid[0]) / 2])
    inner = np.interp(edges, borders, cdf)
    expected = np.diff(np.concatenate([[0], inner, [1]])) * len(x)
    counts = np.bincount(np.searchsorted(edges, x), minlength=len(edges) + 1)
    assert expected.min() > 20 * scale
    return stats.chi2.sf(((counts - expected) ** 2 / expected).sum(), len(edges))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@statistical(comparisons=1, seed=6)
def test_the_law_of_the_discrete_chain_is_kept(seed, check, dtype):
    """Start from the chain's own law, on either side of the barrier, and stay in it."""
    eta, temperature, n = 0.2, 0.25, replicas(200_000, fewest=12_800)
    x, p = check.once("law", chain_law, WELL, eta, temperature)
    uniform = (np.arange(n) + 0.5) / n
    start = np.interp(uniform, np.cumsum(p) - p / 2, x)
    np.random.default_rng(seed).shuffle(start)
    dynamics = lv.SGD(eta, eta / (2 * temperature))
    options = dict(n_replicas=n, n_steps=300, start=start[:, None], seed=seed, dtype=dtype)
    found = simulate(WELL, dynamics, **options).positions[:, 0].astype(float)
    edges = np.linspace(-1.5, 1.8, 30)
    check.p(chi_square_p(found, x, p, edges), "bins")
    if not check.twins:
        return
    gibbs = np.exp(-WELL.energy(x[:, None]) / temperature)
    check.twin(p=chi_square_p(found, x, gibbs / gibbs.sum(), edges), name="continuum")
    for wrong in (temperature / 2, temperature * 1.05):
        check.twin(p=chi_square_p(found, *chain_law(WELL, eta, wrong), edges), name=f"T={wrong}")


def same_law(a, b):
    """The p-value of the two-sample KS distance."""
    return stats.ks_2samp(a, b, method="asymp").pvalue


@statistical(comparisons=1, seed=7, missed_bug=0.02)
def test_sdeint_agrees_in_law(seed, check):
    sdeint = pytest.importorskip("sdeint")
    temperature, dt, steps, start = 0.3, 0.05, 60, 0.1
    spread = np.sqrt(2 * temperature) * np.eye(300)  # 300 replicas as one system
    times = np.arange(steps + 1) * dt
    theirs = np.concatenate(
        [
            sdeint.itoEuler(
                lambda x, t: -(x**3 - 0.4 * x**2 - x),
                lambda x, t: spread,
                np.full(300, start),
                times,
                generator=np.random.default_rng([seed, k]),
            )[-1]
            for k in range(10)
        ]
    )
    options = dict(n_replicas=100_000, n_steps=steps, start=[start], seed=seed)
    ours = simulate(WELL, lv.Overdamped(temperature, dt), **options).positions[:, 0]
    check.p(same_law(ours, theirs), "end points")
    colder = simulate(WELL, lv.Overdamped(temperature / 2, dt), **options).positions[:, 0]
    check.twin(p=same_law(colder, theirs), name="colder")
    backwards = simulate(WELL.replace(a=-0.4), lv.Overdamped(temperature, dt), **options)
    check.twin(p=same_law(backwards.positions[:, 0], theirs), name="mirrored")


# --- error bars -----------------------------------------------------------------------------------

SEEDS = 150 if scale == 1.0 else 20


def coverage_z(z, dof=60):
    """z of the mean square of z-scores (seeds, ...) against that of Student's t."""
    square = (z**2).reshape(len(z), -1).mean(axis=1)  # the columns of a seed may be correlated
    expected = dof / (dof - 2)
    spread = max(square.std(ddof=1), expected * np.sqrt(2 / z[0].size))
    return (square.mean() - expected) / (spread / np.sqrt(len(square)))


@pytest.mark.parametrize("n_replicas", [256, 1001])
@statistical(comparisons=13, dof=SEEDS - 1, seed=0, missed_bug=0.05)
def test_error_bars_of_density_and_moments_cover(seed, check, n_replicas):
    """Over 150 seeds, on the exact Gaussian law, z-scores have mean 0 and variance 1."""
    eta, h, size, n_steps = 0.1, 1.0, 2.0, 100
    variance = laws.sgd_variance(eta, SIGMA**2 / size, h)
    edges = np.linspace(-2, 2, 9) * np.sqrt(variance)
    exact = np.diff(stats.norm.cdf(edges, scale=np.sqrt(variance)))
    watch = (lv.Histogram(8, range=(edges[0], edges[-1])), lv.Moments())
    bins, means, variances, too_small = [], [], [], []
    for k in range(seed, seed + SEEDS):
        start = np.random.default_rng(k).normal(size=(n_replicas, 1)) * np.sqrt(variance)
        options = dict(n_replicas=n_replicas, n_steps=n_steps, start=start, seed=k)
        result = simulate(PARABOLA.replace(h=h), lv.SGD(eta, size), observe=watch, **options)
        density, moments = result.density(), result.moments()
        bins.append((density.probability - exact) / density.probability_stderr)
        naive = np.sqrt(exact * (1 - exact) / density.n_observations)
        too_small.append((density.probability - exact) / naive)
        means.append(moments.mean / moments.mean_stderr)
        variances.append(((moments.covariance - variance) / moments.covariance_stderr)[0])
    for name, z in (("bins", bins), ("means", means), ("variances", variances)):
        z = np.array(z)
        check.z(coverage_z(z), f"spread of {name}", dof=SEEDS - 1)
        check.z(z.mean(axis=0) * np.sqrt(SEEDS), f"bias of {name}", dof=SEEDS - 1)
    check.twin(coverage_z(np.array(too_small)), "steps taken as independent")
    for factor in (np.sqrt(2), 1 / np.sqrt(2)):  # errors off by sqrt(2), either way
        check.twin(coverage_z(factor * np.array(bins)), "errors off by sqrt(2)")


SYMMETRIC = WELL.replace(a=0.0)


@statistical(comparisons=4, dof=SEEDS - 1, seed=0, missed_bug=0.01)
def test_error_bars_of_occupation_cover(seed, check):
    """On the symmetric well, from both minima, p_A/p_B is 1 at any time."""
    labels = np.arange(1024) // 2 % 4  # four independent occupations a run
    watch = lv.Occupation(groups=labels)
    z, ratios, too_small = [], [], []
    for k in range(seed, seed + SEEDS):
        options = dict(n_replicas=1024, n_steps=80, burn_in=20, seed=k)
        result = simulate(SYMMETRIC, lv.Overdamped(0.3, 0.1), observe=watch, **options)
        occupations = [result.occupation(allow_unequilibrated=True).group(g) for g in range(4)]
        errors = np.array([o.probability[0] - 0.5 for o in occupations])
        z.append(errors / [o.stderr[0] for o in occupations])
        ratios.append([o.ratio(0, 1).z(1.0) for o in occupations])
        too_small.append(errors / (0.5 / np.sqrt(occupations[0].n_observations)))
    for name, scores in (("shares", np.array(z)), ("ratios", np.array(ratios))):
        check.z(coverage_z(scores), f"spread of {name}", dof=SEEDS - 1)
        check.z(scores.mean() * np.sqrt(scores.size), f"bias of {name}", dof=SEEDS - 1)
        for factor in (np.sqrt(2), 1 / np.sqrt(2)):
            check.twin(coverage_z(factor * scores), "errors off by sqrt(2)")
    check.twin(coverage_z(np.array(too_small)), "steps taken as independent")


@statistical(comparisons=1, dof=24, seed=0, missed_bug=2e-3)
def test_error_bars_with_interleaved_groups_cover(seed, check):
    labels = np.arange(999) % 3
    etas = np.array([0.05, 0.1, 0.2])[labels]
    variances = laws.sgd_variance(np.array([0.05, 0.1, 0.2]), SIGMA**2, 1.0)
    z = []
    n_seeds = 90 if scale == 1.0 else 25
    for k in range(seed, seed + n_seeds):
        start = np.random.default_rng(k).normal(size=999) * np.sqrt(variances[labels])
        options = dict(n_replicas=999, n_steps=60, start=start[:, None], seed=k)
        watch = lv.Moments(groups=labels)
        result = simulate(PARABOLA, lv.SGD(etas, 1.0), observe=watch, **options)
        z.append(
            [
                (result["moments"][g].covariance[0, 0] - variances[g])
                / result["moments"][g].covariance_stderr[0, 0]
                for g in range(3)
            ]
        )
    check.z(coverage_z(np.array(z)), "spread", dof=n_seeds - 1)
    check.twin(coverage_z(2 * np.array(z)), "errors off by 2")


# --- the equilibration guard ----------------------------------------------------------------------


def occupied(temperature, *, n_replicas=640, n_steps=400, surface=SYMMETRIC, **options):
    options = dict(n_replicas=n_replicas, n_steps=n_steps, observe=lv.Occupation(), **options)
    return simulate(surface, lv.Overdamped(temperature, 0.1), **options)


@pytest.mark.parametrize("n_replicas", [64, 640, 4097])
def test_the_guard_refuses_replicas_that_never_crossed(n_replicas):
    result = occupied(0.01, n_replicas=n_replicas)
    with pytest.raises(UnsoundError, match=r"burn_in.*n_steps"):
        result.occupation()
    counts = result.occupation(allow_unequilibrated=True)
    assert np.allclose(counts.probability, 0.5, atol=0.01)


def test_the_guard_refuses_replicas_that_hardly_crossed():
    with pytest.raises(UnsoundError, match="began in different basins"):
        occupied(0.06).occupation()


def test_the_guard_refuses_a_drift():
    """All start on one side: the second half of the run differs from the first."""
    with pytest.raises(UnsoundError, match="half"):
        occupied(0.1, start=[-1.0]).occupation()


@pytest.mark.parametrize("n_replicas", [2, 3, 5])
def test_the_guard_refuses_a_handful_that_never_crossed(n_replicas):
    """Too few replicas for error groups are no licence."""
    with pytest.raises(UnsoundError):
        occupied(0.01, n_replicas=n_replicas).occupation()


def test_the_guard_refuses_when_all_began_and_stayed_on_one_side():
    """p_A/p_B = infinity with no error, because nobody ever looked at the other side."""
    with pytest.raises(UnsoundError):
        occupied(0.01, start=[-1.0]).occupation()


@statistical(comparisons=61, dof=63, seed=0, twin="test_the_guard_refuses_a_drift")
def test_the_guard_lets_equilibrated_runs_pass(seed, check):
    """No false alarm in 60 runs that forgot their start; the guard itself alarms at 5."""
    refused = 0
    for k in range(seed, seed + 60):
        result = occupied(0.5, n_replicas=256, n_steps=400, burn_in=200, seed=k)
        occupation = result.occupation(allow_unequilibrated=True)
        refused += not occupation.equilibration.agrees
        check.estimate(occupation.ratio(0, 1), 1.0, f"ratio {k - seed}")
    check.holds(refused == 0, 60 * 2 * beyond(5.0), "the guard")


@statistical(comparisons=1, seed=0, twin="test_the_guard_refuses_a_handful_that_never_crossed")
def test_the_guard_seldom_cries_wolf_with_few_replicas(seed, check):
    """With a handful of error groups a z-score has Student's tails: 5 is then nothing special."""
    alarms = 0
    for k in range(seed, seed + 60):
        result = occupied(0.5, n_replicas=6, n_steps=400, burn_in=200, seed=k)
        alarms += not result.occupation(allow_unequilibrated=True).equilibration.agrees
    check.holds(alarms <= 3, 1e-6, "the guard")
