"""Runs beside laws at given times, passage times, other runs, and other temperatures."""

import dataclasses
import math

import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy import stats

import langevin as lv
from langevin.errors import LangevinError

WELLS = lv.Surface("x**4/4 - a*x**3/3 - x**2/2", a=0.4, noise=lv.Isotropic(1.0))
SGD = lv.SGD(learning_rate=0.1, batch_size=0.4)
TIMES = (1, 10, 60)
PATH = (lv.Histogram(bins=40, range=(-2, 2.4), at=TIMES), lv.Occupation(at=TIMES))


def run(seed=3, dynamics=SGD, n=20_000, n_steps=60, observe=PATH, surface=WELLS, **options):
    return lv.simulate(
        surface, dynamics, n_replicas=n, n_steps=n_steps, seed=seed, observe=observe,
        progress=False, **options,
    )  # fmt: skip


@pytest.fixture(scope="module")
def path():
    return run()


# --- laws at given times -------------------------------------------------------------------------


def test_the_law_at_each_step(path):
    found = lv.compare(path, lv.predict.chain(WELLS, SGD))
    names = [row.quantity for row in found.rows]
    assert sum("p_0/p_1 at" in n or "p_1 at" in n for n in names) >= 2
    assert sum("positions at" in n and "chi-square" in n for n in names) == 3
    assert sum("Kolmogorov-Smirnov" in n and "at 60" in n for n in names) == 1
    assert found.p_value > 1e-3 and found.verdict == "agrees", str(found)
    assert [d.name for d in found.distances].count("Wasserstein-1 at 10") == 1
    assert found.total_variation < 2 * found.total_variation_noise


@pytest.mark.parametrize(
    "wrong",
    [
        dataclasses.replace(SGD, batch_size=0.45),
        dataclasses.replace(SGD, learning_rate=0.09),
        dataclasses.replace(SGD, learning_rate=0.2, batch_size=0.8),
    ],
)
def test_a_wrong_path_differs(path, wrong):
    assert lv.compare(path, lv.predict.chain(WELLS, wrong)).verdict == "differs"


def test_where_a_run_began():
    """The law at a time depends on the start, which the result remembers."""
    chain = lv.predict.chain(WELLS, SGD)
    one = run(start=[0.5])
    assert one.start.tolist() == [[0.5]]
    assert lv.compare(one, chain).verdict == "agrees"
    assert lv.compare(one, chain, start=[0.45]).verdict == "differs"
    shares = np.where(np.arange(20_000) % 4 == 0, -0.8, 1.2)[:, None]
    many = run(start=shares)
    assert many.start.ravel().tolist() == [-0.8, 1.2, 1.2, 1.2]
    assert lv.compare(many, chain).verdict == "agrees"
    assert lv.compare(many, chain, start=[[-0.8], [1.2]]).verdict == "differs"
    scattered = run(start=np.linspace(0.9, 1.3, 20_000)[:, None])
    assert scattered.start.shape == (0, 1)
    with pytest.raises(LangevinError, match="pass start="):
        lv.compare(scattered, chain)


def test_groups_that_began_unequally():
    """Replica r starts in minimum r mod 2: groups of odd and even ones do not share a start."""
    labels = np.arange(20_000) % 2
    watch = (lv.Histogram(bins=40, range=(-2, 2.4), at=(10, 60), groups=labels),)
    found, chain = run(observe=watch), lv.predict.chain(WELLS, SGD)
    for group in (0, 1):
        assert lv.compare(found, chain, group=group).verdict == "agrees"
    other = WELLS.minima()[1].position
    assert lv.compare(found, chain, group=0, start=other).verdict == "differs"


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


def test_times_are_the_dynamics_own_and_refusals_are_told():
    dynamics = lv.Overdamped(0.125, 0.05)
    chain = lv.predict.chain(WELLS, dynamics)
    clock = Clock(chain, 0.05)
    found = lv.compare(run(dynamics=dynamics), clock)
    assert clock.asked == pytest.approx([0.05, 0.5, 3.0] * 2)
    assert found.verdict == "agrees"
    assert sum("too late" in note for note in found.notes) == 2


# --- passage times -------------------------------------------------------------------------------


def passage_law(rate: float, batch: float, barrier: float, start: float):
    """Mean number of steps until x >= barrier: m = 1 + K m on the points still below."""

    class Law:
        name, regime = "passage", "exact for the discrete chain"

    x, w = np.polynomial.legendre.leggauss(400)
    low = -6.0
    x, w = low + (barrier - low) * (x + 1) / 2, w * (barrier - low) / 2
    sd = rate / math.sqrt(batch)
    kernel = stats.norm.pdf(x, loc=(1 - rate) * x[:, None], scale=sd) * w
    mean = np.linalg.solve(np.eye(400) - kernel, np.ones(400))
    first = stats.norm.pdf(x, loc=(1 - rate) * start, scale=sd) * w
    Law.mean_passage_time = float(1 + first @ mean)
    return Law()


def test_passage_times():
    surface = lv.Surface("x**2/2", noise=lv.Isotropic(1.0))
    found = run(
        surface=surface, dynamics=lv.SGD(0.1, 0.4), n_steps=4000, n=20_000, start=[0.0],
        observe=(lv.FirstPassage("x >= 0.8"), lv.FirstPassage("x >= 0.6", name="near")),
    )  # fmt: skip
    right = passage_law(0.1, 0.4, 0.8, 0.0)
    compared = lv.compare(found, right, observer="first_passage")
    assert compared.verdict == "agrees", str(compared)
    assert "mean passage time (steps)" in str(compared) and compared.within < 0.05
    assert lv.compare(found, passage_law(0.1, 0.4, 0.6, 0.0), observer="near").verdict == "agrees"
    for wrong in (passage_law(0.1, 0.4, 0.83, 0.0), passage_law(0.1, 0.42, 0.8, 0.0)):
        assert lv.compare(found, wrong, observer="first_passage").verdict == "differs"
    with pytest.raises(LangevinError, match="near"):
        lv.compare(found, right)
    with pytest.raises(LangevinError, match="no such observer"):
        lv.compare(found, right, observer="far")
    right.__class__.mean_passage_time = math.nan
    with pytest.raises(LangevinError, match="nothing to compare"):
        lv.compare(found, right, observer="near")


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
        start=np.where(np.arange(n) % 9 == 0, -0.8, 1.2)[:, None], **options,
    )  # fmt: skip


@pytest.fixture(scope="module")
def pair():
    return long(5), long(6)


def test_two_runs_of_one_law(pair):
    found = lv.compare(*pair, allow_unequilibrated=True)
    assert found.verdict == "agrees", str(found)
    names = " ".join(row.quantity for row in found.rows)
    for what in ("p_0/p_1", "cov[0,0]", "mean[0]", "<x**2>", "Kolmogorov", "chi-square"):
        assert what in names
    assert "other run" in str(found) and found.detectable < 0.2
    ratio = next(row for row in found.rows if row.quantity == "p_0/p_1")
    errors = [r.occupation(allow_unequilibrated=True).ratio(0, 1).stderr for r in pair]
    assert ratio.stderr == pytest.approx(math.hypot(*errors)) and ratio.dof > 63


@pytest.mark.parametrize("other", [lv.SGD(0.1, 0.43), lv.SGD(0.3, 1.2)])
def test_two_runs_of_two_laws(pair, other):
    assert lv.compare(pair[0], long(7, other), allow_unequilibrated=True).verdict == "differs"


def test_paths_of_two_runs_in_order(path):
    """(eta, S) -> (eta/10, S/10): the same path in t eta, as long as steps are small."""
    slow = (lv.Histogram(bins=40, range=(-2, 2.4), at=(10, 100, 600)), lv.Occupation(at=(10, 100)))
    small = run(4, lv.SGD(0.01, 0.04), n_steps=600, observe=slow[:1])
    tiny = run(5, lv.SGD(0.005, 0.02), n_steps=1200,
               observe=dataclasses.replace(slow[0], at=(20, 200, 1200)))  # fmt: skip
    found = lv.compare(small, tiny)
    assert found.verdict == "agrees" and any("at 10 and 20" in r.quantity for r in found.rows)
    assert lv.compare(path, small).verdict == "differs", "steps of 0.1 are not"
    with pytest.raises(LangevinError, match="as many"):
        lv.compare(path, run(9, n_steps=100, observe=slow[1]), observer="occupation")


def test_shared_noise_is_refused(pair):
    with pytest.raises(LangevinError, match="their noise is the same"):
        lv.compare(pair[0], pair[0], allow_unequilibrated=True)
    later = long(5, first_replica=10_000)
    assert lv.compare(pair[0], later, allow_unequilibrated=True).verdict == "agrees"
    flat = run(8, surface=lv.Surface("x**2 + y**2", noise=lv.Isotropic(1.0)), observe=())
    with pytest.raises(LangevinError, match="dimensions"):
        lv.compare(pair[0], flat)


def test_two_groups_of_one_sweep():
    labels = np.arange(30_000) % 3
    batch = np.where(labels == 2, 0.6, 0.4)
    swept = run(
        2, lv.SGD(0.1, batch), 30_000, 1_000, burn_in=500, start=[1.2],
        observe=lv.Moments(every=10, groups=labels),
    )  # fmt: skip
    assert lv.compare(swept, swept, group=(0, 1)).verdict == "agrees"
    assert lv.compare(swept, swept, group=(0, 2)).verdict == "differs"
    with pytest.raises(LangevinError, match="noise"):
        lv.compare(swept, swept, group=(1, 1))


def test_p_values_of_two_runs_are_uniform():
    """Every row, over 40 pairs of short runs of one law; shifted by a twentieth, they are not."""
    p, shifted = [], []
    for seed in range(40):
        a, b = (long(100 + 2 * seed + k, n=1024) for k in (0, 1))
        found = lv.compare(a, b, allow_unequilibrated=True)
        p.append([row.p_value for row in found.rows])
        moved = dataclasses.replace(b, positions=b.positions + 0.05)
        shifted += [
            r.p_value for r in lv.compare(a, moved, allow_unequilibrated=True).rows
            if "Kolmogorov" in r.quantity
        ]  # fmt: skip
    for column in np.array(p).T:
        assert stats.kstest(column, "uniform").pvalue > 1e-4
    assert stats.kstest(shifted, "uniform").pvalue < 1e-3


# --- two temperatures ----------------------------------------------------------------------------


def energies(rng, dof: float, temperature: float, n: int) -> np.ndarray:
    """Of a harmonic well: P(E|T) ~ E**(dof/2 - 1) exp(-E/T)."""
    return rng.gamma(dof / 2, temperature, n)


def test_the_energy_ratio_of_boltzmanns_law():
    """Slope and curvature: p-values uniform whatever the number of dimensions."""
    rng = np.random.default_rng(1)
    p, wrong, misses = [], [], 0
    for k in range(150):
        a, b = energies(rng, 1 + k % 20, 1.0, 2000), energies(rng, 1 + k % 20, 1.3, 3000)
        found = lv.temperature_ratio_test(a, b, temperatures=(1.0, 1.3))
        p.append([row.p_value for row in found.rows])
        low, high = found.rows[0].interval
        misses += not low <= 0 <= high
        wrong.append(lv.temperature_ratio_test(a, b, temperatures=(1.0, 1.5)).rows[0].p_value)
    for column in np.array(p).T:
        assert stats.kstest(column, "uniform").pvalue > 1e-4
    assert abs(misses - 7.5) < 5 * math.sqrt(7.5)
    assert stats.kstest(wrong, "uniform").pvalue < 1e-6


def test_energies_that_are_not_boltzmanns():
    rng = np.random.default_rng(2)
    a, b = (t * rng.standard_t(4, 40_000) ** 2 for t in (1.0, 2.0))
    found = lv.temperature_ratio_test(a, b, temperatures=(1.0, 1.3))
    assert found.verdict == "differs" and found.rows[1].z < -5, "the straight line is bent"


def test_runs_at_two_temperatures():
    """Four dimensions, no normaliser: Langevin passes, steps too large and heavy tails do not."""
    bowl = lv.Surface("x**2/2 + y**2 + z**2 + w**2/2 + x*y/2", noise=lv.Isotropic(1.0))

    def both(*dynamics, surface=bowl, n=20_000):
        a, b = (
            run(k, d, n, 400, observe=(), surface=surface, start=[0.0] * 4)
            for k, d in enumerate(dynamics)
        )
        return lv.temperature_ratio_test(a, b)

    exact = both(*(lv.Underdamped(t, 1.0, 0.1) for t in (0.5, 0.8)))
    assert exact.verdict == "agrees" and exact.prediction.startswith("Boltzmann"), str(exact)
    assert both(*(lv.SGD(0.02, s) for s in (0.02, 0.0125))).verdict == "agrees"
    assert both(*(lv.SGD(0.5, s) for s in (0.5, 0.3125))).verdict == "differs"
    skewed = bowl.replace(noise=lv.Anisotropic(np.diag([3.0, 1.0, 1.0, 0.2])))
    a, b = (run(k, lv.SGD(0.02, s), 20_000, 400, observe=(), surface=skewed, start=[0.0] * 4)
            for k, s in enumerate((0.02, 0.0125)))  # fmt: skip
    energy = [bowl.energy(r.positions) for r in (a, b)]
    assert lv.temperature_ratio_test(*energy, temperatures=(0.5, 0.8)).verdict == "differs"


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


def test_options(pair):
    chain = lv.predict.chain(WELLS, SGD)
    only = lv.compare(pair[0], chain, observer="moments")
    assert {r.quantity for r in only.rows if r.has_interval} == {"cov[0,0]", "mean[0]"}
    options = {"allow_unequilibrated": True}
    assert lv.compare(pair[0], chain, margin=0.5, **options).verdict == "agrees"
    assert lv.compare(pair[0], chain, margin=1e-4, **options).verdict == "undecided"
    for wrong in ({"margin": 0}, {"significance": 0}, {"significance": 2.0}):
        with pytest.raises(LangevinError, match="needs a number"):
            lv.compare(pair[0], chain, **options, **wrong)


def test_figures(pair):
    chain = lv.predict.chain(WELLS, SGD)
    gibbs = lv.predict.boltzmann_gibbs(WELLS, SGD)
    found = lv.compare(pair[0], chain, allow_unequilibrated=True)
    ax = lv.plot.comparison(found, ax=Figure().subplots())
    assert [t.get_text() for t in ax.get_yticklabels()] == ["mean[0]", "cov[0,0]", "p_0/p_1"]
    axes = lv.plot.residuals(pair[0].density(), [chain, gibbs], axes=Figure().subplots(2, 1))
    right, wrong = (np.nanmax(np.abs(line.get_ydata())) for line in axes[1].lines[-2:])
    assert right < 5 < wrong
    alone = lv.compare(pair[0], chain, observer="density")
    with pytest.raises(LangevinError, match="residuals"):
        lv.plot.comparison(alone)


def test_the_start_survives_a_saved_run(tmp_path):
    first = run(n=256, start=[0.5])
    first.save(tmp_path / "a.zarr")
    back = lv.load(tmp_path / "a.zarr")
    assert np.array_equal(back.start, first.start)
    chain = lv.predict.chain(WELLS, SGD)
    assert str(lv.compare(back, chain)) == str(lv.compare(first, chain))
