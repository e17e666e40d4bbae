"""Runs beside laws at given times, passage times, other runs, and other temperatures."""

import dataclasses
import functools
import math

import numpy as np
import pytest
from kit import beyond, replicas, scale, statistical
from matplotlib.figure import Figure
from scipy import stats

import langevin as lv
from langevin.errors import LangevinError, UnsoundError

WELLS = lv.Surface("x**4/4 - a*x**3/3 - x**2/2", a=0.4, noise=lv.Isotropic(1.0))
SGD = lv.SGD(learning_rate=0.1, batch_size=0.4)
TIMES = (1, 10, 60)
VERDICT = 16  # comparisons that a verdict counts as: its significance over P(|Z| > 4)
PATH = (lv.Histogram(bins=40, range=(-2, 2.4), at=TIMES), lv.Occupation(at=TIMES))


def run(seed=3, dynamics=SGD, n=20_000, n_steps=60, observe=PATH, surface=WELLS, **options):
    return lv.simulate(
        surface, dynamics, n_replicas=replicas(n), n_steps=n_steps, seed=seed, observe=observe,
        progress=False, **options,
    )  # fmt: skip


@functools.cache
def chain(batch_size=0.4, learning_rate=0.1):
    return lv.predict.chain(WELLS, lv.SGD(learning_rate, batch_size))


def left_and_right(n, every):
    """One in ``every`` replicas begins on the left."""
    return np.where(np.arange(replicas(n)) % every == 0, -0.8, 1.2)[:, None]


# --- laws at given times -------------------------------------------------------------------------


@statistical(comparisons=VERDICT, seed=3, missed_bug=1e-4)
def test_the_law_at_each_step(seed, check):
    path = run(seed)
    found = lv.compare(path, chain())
    check.verdict(found, str(found))
    names = [row.quantity for row in found.rows]
    assert sum("positions at" in n and "chi-square" in n for n in names) == 3
    assert sum("Kolmogorov-Smirnov" in n and "at 60" in n for n in names) == 1
    assert [d.name for d in found.distances].count("Wasserstein-1 at 10") == 1
    if check.twins:  # of the whole ensemble
        assert sum("p_0/p_1 at" in n or "p_1 at" in n for n in names) >= 2
        assert found.total_variation < 2 * found.total_variation_noise
    for name, wrong in {
        "noise": chain(0.45),
        "learning rate": chain(0.4, 0.09),
        "same eta/S, twice the step": chain(0.8, 0.2),
    }.items():
        check.twin(p=lv.compare(path, wrong).p_value, name=name)


@statistical(comparisons=2 * VERDICT, seed=3)
def test_where_a_run_began(seed, check):
    """The law at a time depends on the start, which the result remembers."""
    one = run(seed, start=[0.5])
    assert one.start.tolist() == [[0.5]]
    check.verdict(lv.compare(one, chain()), "one point")
    check.twin(p=lv.compare(one, chain(), start=[0.45]).p_value, name="another point")
    many = run(seed, start=left_and_right(20_000, 4))
    assert many.start.ravel().tolist() == [-0.8, 1.2, 1.2, 1.2]
    check.verdict(lv.compare(many, chain()), "shares")
    halves = lv.compare(many, chain(), start=[[-0.8], [1.2]])
    check.twin(p=halves.p_value, name="other shares")


def test_scattered_starts_are_not_remembered():
    scattered = run(n=20_000, start=np.linspace(0.9, 1.3, 20_000)[:, None])
    assert scattered.start.shape == (0, 1)
    with pytest.raises(LangevinError, match="pass start="):
        lv.compare(scattered, chain())


@statistical(comparisons=3 * VERDICT, seed=3)
def test_groups_that_began_unequally(seed, check):
    """Replica r starts in minimum r mod 2: groups of odd and even ones do not share a start."""
    labels = np.arange(replicas(20_000)) % 2
    watch = (lv.Histogram(bins=40, range=(-2, 2.4), at=(10, 60), groups=labels),)
    found = run(seed, observe=watch)
    for group in (0, 1):
        check.verdict(lv.compare(found, chain(), group=group), f"group {group}")
    other = lv.compare(found, chain(), group=0, start=WELLS.minima()[1].position)
    check.twin(p=other.p_value, name="the other start")
    # Of a cycle of given points the run does not know which group began where.
    cycle = run(seed + 1, observe=watch, start=np.where(labels == 0, -0.8, 1.2)[:, None])
    with pytest.raises(LangevinError, match="pass start="):
        lv.compare(cycle, chain(), group=0)
    check.verdict(lv.compare(cycle, chain(), group=0, start=[-0.8]), "a cycle")


class Clock:
    """A prediction whose .at takes a time, not a step."""

    name, regime = "clock", "test"

    def __init__(self, chain, dt):
        self.chain, self.dt, self.asked = chain, dt, []

    def at(self, t, start=None):
        self.asked.append(t)
        if t > 2.9:
            raise lv.errors.UnsoundError("clock: too late. Ask earlier.")
        return self.chain.at(round(t / self.dt), start)

    def moments(self):
        return self.chain.moments()


@statistical(comparisons=VERDICT, seed=3)
def test_times_are_the_dynamics_own_and_refusals_are_told(seed, check):
    dynamics = lv.Overdamped(0.125, 0.05)
    law = check.once("law", lv.predict.chain, WELLS, dynamics)
    clock = Clock(law, 0.05)
    result = run(seed, dynamics)
    found = lv.compare(result, clock)
    assert clock.asked == pytest.approx([0.05, 0.5, 3.0] * 2)
    check.verdict(found)
    assert sum("too late" in note for note in found.notes) == 2
    check.twin(p=lv.compare(result, Clock(law, 0.02)).p_value, name="a wrong clock")


# --- passage times -------------------------------------------------------------------------------


class PassageLaw:
    name, regime = "passage", "exact for the discrete chain"

    def __init__(self, mean_passage_time):
        self.mean_passage_time = mean_passage_time


@functools.cache
def passage_law(rate: float, batch: float, barrier: float, start: float):
    """Mean number of steps until x >= barrier: m = 1 + K m on the points still below."""
    x, w = np.polynomial.legendre.leggauss(400)
    low = -6.0
    x, w = low + (barrier - low) * (x + 1) / 2, w * (barrier - low) / 2
    sd = rate / math.sqrt(batch)
    kernel = stats.norm.pdf(x, loc=(1 - rate) * x[:, None], scale=sd) * w
    mean = np.linalg.solve(np.eye(400) - kernel, np.ones(400))
    first = stats.norm.pdf(x, loc=(1 - rate) * start, scale=sd) * w
    return PassageLaw(float(1 + first @ mean))


@statistical(comparisons=2 * VERDICT, seed=3)
def test_passage_times(seed, check):
    surface = lv.Surface("x**2/2", noise=lv.Isotropic(1.0))
    found = run(
        seed, surface=surface, dynamics=lv.SGD(0.1, 0.4), n_steps=4000, n=20_000, start=[0.0],
        observe=(lv.FirstPassage("x >= 0.8"), lv.FirstPassage("x >= 0.6", name="near")),
    )  # fmt: skip
    right = passage_law(0.1, 0.4, 0.8, 0.0)
    compared = lv.compare(found, right, observer="first_passage")
    check.verdict(compared, str(compared))
    assert "mean passage time (steps)" in str(compared)
    if check.twins:  # of the whole ensemble
        assert compared.within < 0.05
    check.verdict(lv.compare(found, passage_law(0.1, 0.4, 0.6, 0.0), observer="near"), "near")
    for wrong in ((0.1, 0.4, 0.83, 0.0), (0.1, 0.42, 0.8, 0.0)):
        differs = lv.compare(found, passage_law(*wrong), observer="first_passage")
        check.twin(p=differs.p_value, name=f"law {wrong}")
    with pytest.raises(LangevinError, match="near"):
        lv.compare(found, right)
    with pytest.raises(LangevinError, match="no such observer"):
        lv.compare(found, right, observer="far")
    with pytest.raises(LangevinError, match="nothing to compare"):
        lv.compare(found, PassageLaw(math.nan), observer="near")


# --- two runs ------------------------------------------------------------------------------------

BOTH = (
    lv.Histogram(bins=60, range=(-2, 2.4), every=10),
    lv.Occupation(every=10),
    lv.Moments(every=10),
    "x**2",
)


def long(seed, dynamics=SGD, n=10_000, **options):
    return run(
        seed, dynamics, n, 2_000, observe=BOTH, burn_in=1_000,
        start=left_and_right(n, 9), **options,
    )  # fmt: skip


def same_law(a, b):
    return lv.compare(a, b, allow_unequilibrated=True)


@statistical(comparisons=VERDICT, seed=5, missed_bug=0.01)
def test_two_runs(seed, check):
    """Of one law, and of two."""
    pair = long(seed), long(seed + 1)
    found = same_law(*pair)
    check.verdict(found, str(found))
    names = " ".join(row.quantity for row in found.rows)
    for what in ("cov[0,0]", "mean[0]", "<x**2>", "Kolmogorov", "chi-square"):
        assert what in names
    assert "other run" in str(found)
    if check.twins:  # of the whole ensemble
        assert found.detectable < 0.2
        ratio = next(row for row in found.rows if row.quantity == "p_0/p_1")
        errors = [r.occupation(allow_unequilibrated=True).ratio(0, 1).stderr for r in pair]
        assert ratio.stderr == pytest.approx(math.hypot(*errors)) and ratio.dof > 63
        for other in (lv.SGD(0.1, 0.43), lv.SGD(0.3, 1.2)):
            check.twin(p=same_law(pair[0], long(seed + 2, other)).p_value, name=str(other))


def test_runs_that_remember_their_start_are_not_compared():
    a, b = (run(k, SGD, 640, 40, observe=(lv.Occupation(),), start=None) for k in (1, 2))
    with pytest.raises(UnsoundError, match="not stationary yet"):
        lv.compare(a, b)
    assert lv.compare(a, b, allow_unequilibrated=True).rows


@statistical(comparisons=VERDICT, seed=3)
def test_paths_of_two_runs_in_order(seed, check):
    """(eta, S) -> (eta/10, S/10): the same path in t eta, as long as steps are small."""
    slow = (lv.Histogram(bins=40, range=(-2, 2.4), at=(10, 100, 600)), lv.Occupation(at=(10, 100)))
    small = run(seed + 1, lv.SGD(0.01, 0.04), n_steps=600, observe=slow[:1])
    tiny = run(seed + 2, lv.SGD(0.005, 0.02), n_steps=1200,
               observe=dataclasses.replace(slow[0], at=(20, 200, 1200)))  # fmt: skip
    found = lv.compare(small, tiny)
    check.verdict(found, str(found))
    assert any("at 10 and 20" in r.quantity for r in found.rows)
    path = run(seed)
    check.twin(p=lv.compare(path, small).p_value, name="steps of 0.1 are not small")
    with pytest.raises(LangevinError, match="as many"):
        lv.compare(path, run(9, n_steps=100, observe=slow[1]), observer="occupation")


@statistical(comparisons=VERDICT, seed=5, twin="test_two_runs")
def test_shared_noise_is_refused(seed, check):
    one = long(seed)
    with pytest.raises(LangevinError, match="their noise is the same"):
        same_law(one, one)
    check.verdict(same_law(one, long(seed, first_replica=10_000)), "later replicas")
    flat = run(8, surface=lv.Surface("x**2 + y**2", noise=lv.Isotropic(1.0)), observe=())
    with pytest.raises(LangevinError, match="dimensions"):
        lv.compare(one, flat)


@statistical(comparisons=VERDICT, seed=2)
def test_two_groups_of_one_sweep(seed, check):
    labels = np.arange(replicas(30_000)) % 3
    batch = np.where(labels == 2, 0.6, 0.4)
    swept = run(
        seed, lv.SGD(0.1, batch), 30_000, 1_000, burn_in=500, start=[1.2],
        observe=lv.Moments(every=10, groups=labels),
    )  # fmt: skip
    check.verdict(lv.compare(swept, swept, group=(0, 1)))
    check.twin(p=lv.compare(swept, swept, group=(0, 2)).p_value, name="other noise")
    with pytest.raises(LangevinError, match="noise"):
        lv.compare(swept, swept, group=(1, 1))


@statistical(comparisons=7, seed=100, missed_bug=0.1)
def test_p_values_of_two_runs_are_uniform(seed, check):
    """Every row, over 40 pairs of short runs of one law; shifted by a twentieth, they are not."""
    p, shifted = [], []
    for k in range(40 if scale == 1.0 else 4):
        a, b = (long(seed + 2 * k + i, n=1024) for i in (0, 1))
        p.append([row.p_value for row in same_law(a, b).rows])
        moved = dataclasses.replace(b, positions=b.positions + 0.05) if check.twins else b
        shifted += [r.p_value for r in same_law(a, moved).rows if "Kolmogorov" in r.quantity]
    for column in np.array(p).T:
        check.p(stats.kstest(column, "uniform").pvalue, "row")
    check.twin(p=stats.kstest(shifted, "uniform").pvalue, name="shifted")


# --- two temperatures ----------------------------------------------------------------------------


def energies(rng, dof: float, temperature: float, n: int) -> np.ndarray:
    """Of a harmonic well: P(E|T) ~ E**(dof/2 - 1) exp(-E/T)."""
    return rng.gamma(dof / 2, temperature, n)


@statistical(comparisons=3, seed=1)
def test_the_energy_ratio_of_boltzmanns_law(seed, check):
    """Slope and curvature: p-values uniform whatever the number of dimensions."""
    rng = np.random.default_rng(seed)
    n = 150 if scale == 1.0 else 20
    p, wrong, misses = [], [], 0
    for k in range(n):
        a, b = energies(rng, 1 + k % 20, 1.0, 2000), energies(rng, 1 + k % 20, 1.3, 3000)
        found = lv.temperature_ratio_test(a, b, temperatures=(1.0, 1.3))
        p.append([row.p_value for row in found.rows])
        low, high = found.rows[0].interval
        misses += not low <= 0 <= high
        wrong.append(lv.temperature_ratio_test(a, b, temperatures=(1.0, 1.5)).rows[0].p_value)
    for column, name in zip(np.array(p).T, ("slope", "curvature"), strict=True):
        check.p(stats.kstest(column, "uniform").pvalue, name)
    check.count(misses, n, 0.05, "intervals that miss")
    check.twin(p=stats.kstest(wrong, "uniform").pvalue, name="another temperature")


@statistical(comparisons=VERDICT, seed=2, missed_bug=0.01)
def test_energies_that_are_not_boltzmanns(seed, check):
    rng = np.random.default_rng(seed)
    a, b = (energies(rng, 1, t, 40_000) for t in (1.0, 1.3))
    check.verdict(lv.temperature_ratio_test(a, b, temperatures=(1.0, 1.3)))
    a, b = (t * rng.standard_t(4, 40_000) ** 2 for t in (1.0, 2.0))
    found = lv.temperature_ratio_test(a, b, temperatures=(1.0, 1.3))
    check.twin(p=found.p_value, name="heavy tails")
    check.twin(min(found.rows[1].z, 0.0), "the straight line is bent")


@statistical(comparisons=3 * VERDICT, seed=0)
def test_runs_at_two_temperatures(seed, check):
    """Four dimensions, no normaliser: Langevin passes, steps too large and heavy tails do not."""
    bowl = lv.Surface("x**2/2 + y**2 + z**2 + w**2/2 + x*y/2", noise=lv.Isotropic(1.0))

    def both(*dynamics, surface=bowl, n_steps=400):
        return [
            run(seed + k, d, 20_000, n_steps, observe=(), surface=surface, start=[0.0] * 4)
            for k, d in enumerate(dynamics)
        ]

    exact = lv.temperature_ratio_test(*both(*(lv.Underdamped(t, 1.0, 0.1) for t in (0.5, 0.8))))
    check.verdict(exact, str(exact))
    assert exact.prediction.startswith("Boltzmann")
    # Steps of 0.02 are seen at 1.1 standard errors, these at 0.3.
    small = both(*(lv.SGD(0.005, s) for s in (0.005, 0.003125)), n_steps=1_600)
    found = lv.temperature_ratio_test(*small)
    check.holds(found.verdict != "differs", 2 * found.significance, f"small steps: {found}")
    if check.twins:  # of the whole ensemble
        assert found.verdict in ("agrees", "differs")
    large = both(*(lv.SGD(0.5, s) for s in (0.5, 0.3125)))
    check.twin(p=lv.temperature_ratio_test(*large).p_value, name="large steps")
    skewed = bowl.replace(noise=lv.Anisotropic(np.diag([3.0, 1.0, 1.0, 0.2])))
    runs = both(*(lv.SGD(0.02, s) for s in (0.02, 0.0125)), surface=skewed)
    energy = [bowl.energy(r.positions) for r in runs]
    differs = lv.temperature_ratio_test(*energy, temperatures=(0.5, 0.8))
    check.twin(p=differs.p_value, name="other noise in each direction")


def test_two_temperatures_need_two_noises():
    a, b = (run(3, lv.Overdamped(t, 0.01), 500, 5, observe=()) for t in (0.3, 0.4))
    with pytest.raises(UnsoundError, match="noise is the same"):
        lv.temperature_ratio_test(a, b)
    swept = run(4, lv.Overdamped(np.repeat([0.3, 0.4], 250), 0.01), 500, 5, observe=())
    with pytest.raises(LangevinError, match="one temperature for each replica"):
        lv.temperature_ratio_test(a, swept)


@pytest.mark.parametrize(
    "first, second, temperatures, match",
    [
        (np.ones(100), np.ones(100), None, "need temperatures"),
        (np.ones(100), np.ones(100), (1.0, 1.0), "different positive"),
        (np.ones(100), np.ones(100), (1.0, -1.0), "different positive"),
        (np.ones(100), np.ones(100), (1.0, 2.0), "every energy is the same"),
        (np.ones(10), np.ones(100), (1.0, 2.0), "at least 50"),
        ("a", "b", (1.0, 2.0), "needed: a Result"),
        (np.linspace(0, 1, 100), np.linspace(2, 3, 100), (1.0, 2.0), "hardly overlap"),
    ],
)
def test_temperatures_refuse(first, second, temperatures, match):
    with pytest.raises(LangevinError, match=match):
        lv.temperature_ratio_test(first, second, temperatures=temperatures)


# --- options and figures -------------------------------------------------------------------------


@statistical(comparisons=2 * VERDICT, seed=5, missed_bug=1e-4)
def test_options(seed, check):
    result, options = long(seed), {"allow_unequilibrated": True}
    only = lv.compare(result, chain(), observer="moments")
    assert {r.quantity for r in only.rows if r.has_interval} == {"cov[0,0]", "mean[0]"}
    two = lv.compare(result, long(seed + 1), observer="moments")
    assert {r.quantity for r in two.rows if r.has_interval} == {"cov[0,0]", "mean[0]"}
    assert two.distances == ()
    check.verdict(lv.compare(result, chain(), margin=0.5, **options), "a wide margin")
    narrow = lv.compare(result, chain(), margin=1e-4, **options)
    check.holds(narrow.verdict == "undecided", narrow.significance, "a narrow margin")
    wrong = lv.compare(result, chain(0.45), margin=0.5, **options)
    check.twin(p=wrong.p_value, name="other noise")
    for wrong in ({"margin": 0}, {"significance": 0}, {"significance": 2.0}):
        with pytest.raises(LangevinError, match="needs a number"):
            lv.compare(result, chain(), **options, **wrong)


@statistical(comparisons=5, seed=5)
def test_figures(seed, check):
    result = long(seed)
    gibbs = check.once("law", lv.predict.boltzmann_gibbs, WELLS, SGD)
    found = lv.compare(result, chain(), allow_unequilibrated=True)
    ax = lv.plot.comparison(found, ax=Figure().subplots())
    if check.twins:  # of the whole ensemble
        shown = [t.get_text() for t in ax.get_yticklabels()]
        assert shown == ["mean[0]", "cov[0,0]", "p_0/p_1"]
    axes = lv.plot.residuals(result.density(), [chain(), gibbs], axes=Figure().subplots(2, 1))
    right, wrong = (np.nanmax(np.abs(line.get_ydata())) for line in axes[1].lines[-2:])
    check.holds(right < 5, 60 * beyond(5.0, 63), "residuals of 60 bins")
    check.twin(wrong, "Gibbs")
    alone = lv.compare(result, chain(), observer="density")
    with pytest.raises(LangevinError, match="residuals"):
        lv.plot.comparison(alone)


def test_the_start_survives_a_saved_run(tmp_path):
    first = run(n=256, start=[0.5])
    first.save(tmp_path / "a.zarr")
    back = lv.load(tmp_path / "a.zarr")
    assert np.array_equal(back.start, first.start)
    chain = lv.predict.chain(WELLS, SGD)
    assert str(lv.compare(back, chain)) == str(lv.compare(first, chain))
