"""Observers: equal to naive twins, free of threads and windows, combined freely; their laws."""

import importlib
from dataclasses import replace

import naive
import numba
import numpy as np
import pytest
from kit import replicas, scale, spread_z, statistical
from scipy import stats

import langevin as lv
from langevin.analysis.correlation import MeasuredAutocorrelation
from langevin.engines import cpu
from langevin.errors import LangevinError, ParameterError, UnsoundError
from langevin.surfaces.finite_sum import FiniteSum

simulate_module = importlib.import_module("langevin.simulate")
UNIT = lv.Isotropic(1.0)
WELL = lv.Surface("x**4/4 - a*x**3/3 - x**2/2", a=0.4, noise=UNIT)
SPACE = lv.Surface("(x**2 - 1)**2 + y**2/2 + z**2 + x*z/5", noise=UNIT)
PARABOLA = lv.Surface("h*x**2/2", h=1.0, noise=UNIT)
DYNAMICS = lv.Overdamped(0.25, 0.05)
N, STEPS, BURN_IN = 70, 203, 40
GROUPS = np.arange(N) % 3
AT = (1, 7, 64, 65, 203)  # the last step of a short window, and the first of the next
FIRST = (  # every observer once
    lv.Histogram(30, range=(-2, 2.5), every=3, name="steady"),
    lv.Occupation(every=2, name="steady occupation"),
    lv.Moments(every=32),  # its first look is where a short window ends
    lv.Average("x**2 + a*exp(-x)", every=3),
    lv.Temperature(every=2),
    lv.Transitions(every=3, groups=GROUPS),
    lv.Trajectory(every=1),
    lv.Autocorrelation(lags=7, every=3),
    lv.FirstPassage("x > 1"),
)
SECOND = (  # at given times, and other names
    lv.Histogram(30, range=(-2, 2.5), at=AT, groups=GROUPS),
    lv.Occupation(at=[203, 5, 5, 6]),
    lv.Average(("x", "x**3"), at=(1, 100), groups=GROUPS, name="moving"),
    "tanh(x)",
    lv.Transitions(every=8, name="slow"),
    lv.Trajectory(every=10, replicas=[69, 2], name="two"),
    lv.Autocorrelation(lags=5, formula="x**2", groups=GROUPS, name="squares"),
)


class Both:
    """Two runs as one result, so that the kernel of each compiles in seconds."""

    def __init__(self, first, second):
        self.parts = first, second

    def __getitem__(self, name):
        return next(part[name] for part in self.parts if name in part.observed)


def watched(observe=FIRST, **options):
    options = dict(n_replicas=N, n_steps=STEPS, seed=7, burn_in=BURN_IN, progress=False) | options
    return lv.simulate(WELL, DYNAMICS, observe=observe, **options)


@pytest.fixture(scope="module")
def run():
    return Both(watched(), watched(SECOND))


@pytest.fixture(scope="module")
def paths():
    starts = np.array([WELL.minima()[r % 2].position for r in range(N)])
    return naive.overdamped(
        lambda x: [x**3 - 0.4 * x**2 - x], starts, STEPS, 7, temperature=0.25, dt=0.05
    )


def seen(paths, every, burn_in=BURN_IN):
    return naive.observed(paths, burn_in, every)[..., 0]


# --- naive twins ----------------------------------------------------------------------------------


def test_trajectories_equal_the_naive_twin(run, paths):
    found = run["trajectory"]
    assert found.positions.shape == (N, STEPS - BURN_IN, 1)
    assert np.array_equal(found.steps, np.arange(BURN_IN + 1, STEPS + 1))
    assert np.allclose(found.times, 0.05 * found.steps)
    assert np.abs(found.positions - paths[:, BURN_IN + 1 :]).max() < 1e-12
    assert np.abs(found.positions - paths[:, BURN_IN:-1]).max() > 1e-3  # negative twin
    two = run["two"]
    assert two.replicas.tolist() == [2, 69] and two.steps.tolist() == list(range(50, 204, 10))
    assert np.abs(two.positions - paths[[2, 69]][:, 50:204:10]).max() < 1e-12


def test_densities_at_given_steps_equal_the_naive_twin(run, paths):
    series = run["density"]
    assert series.steps.tolist() == list(AT) and len(series) == len(AT)
    edges = [np.linspace(-2, 2.5, 31)]
    for k, step in enumerate(AT):
        for g in range(3):
            counts, outside = naive.histogram(paths[g == GROUPS, step], edges)
            density = series.at(step)[g]
            assert density is series[k][g] and density.n_observations == (g == GROUPS).sum()
            assert np.allclose(density.probability * density.n_observations, counts)
            assert density.outside * density.n_observations == pytest.approx(outside)
    counts, _ = naive.histogram(seen(paths, 3)[..., None], edges)
    assert np.allclose(run["steady"].probability * run["steady"].n_observations, counts)
    with pytest.raises(ParameterError, match="steps"):
        series.at(8)


def test_occupations_at_given_steps_equal_the_naive_twin(run, paths):
    series, thresholds = run["occupation"], WELL.basins().thresholds
    assert series.steps.tolist() == [5, 6, 203]
    for step in (5, 6, 203):
        expected = naive.occupation(paths[:, step], thresholds) / N
        assert np.allclose(series.at(step).probability, expected)
    steady = run.parts[0].occupation(allow_unequilibrated=True)
    assert np.allclose(
        steady.probability * steady.n_observations, naive.occupation(seen(paths, 2), thresholds)
    )


def test_averages_equal_the_naive_twin(run, paths):
    x = seen(paths, 3)
    values = x**2 + 0.4 * np.exp(-x)
    average = run.parts[0].average()
    assert average.value == pytest.approx(values.mean(), rel=1e-12)
    assert average.variance == pytest.approx(values.var(), rel=1e-9)
    assert average.n_observations == values.size
    # one error group a replica or two: the error of independent groups of replicas
    assert average.stderr == pytest.approx(values.mean(axis=1).std(ddof=1) / np.sqrt(N), rel=0.4)
    assert run["tanh(x)"].value == pytest.approx(np.tanh(seen(paths, 1)).mean(), rel=1e-12)
    moving = run["moving"]
    for step in (1, 100):
        for g in range(3):
            mine = paths[g == GROUPS, step, 0]
            assert moving.at(step)[g]["x"].value == pytest.approx(mine.mean(), rel=1e-12)
            assert moving.at(step)[g][1].value == pytest.approx((mine**3).mean(), rel=1e-12)


def test_temperatures_equal_the_naive_twin(run, paths):
    x = seen(paths, 2)
    slope, curvature = x**3 - 0.4 * x**2 - x, 3 * x**2 - 0.8 * x - 1
    found = run["temperature"]
    assert found.configurational.value == pytest.approx((slope**2).mean() / curvature.mean())
    assert found.virial.value == pytest.approx((x * slope).mean())
    assert found.kinetic is None


def test_transitions_equal_the_naive_twin(run, paths):
    (threshold,) = WELL.basins().thresholds
    for g in range(3):
        labels = (seen(paths[g == GROUPS], 3) >= threshold).astype(int)
        found = run.parts[0].transitions()[g]
        assert np.array_equal(found.pairs.sum(axis=0), naive.transitions(labels, 2))
    labels = (seen(paths, 8) >= threshold).astype(int)
    slow = run["slow"]
    assert np.array_equal(slow.pairs.sum(axis=0), naive.transitions(labels, 2))
    assert slow.lag == pytest.approx(0.4) and 0 < slow.n_transitions < slow.counts.sum()


def test_autocorrelations_equal_the_naive_twin(run, paths):
    found = run.parts[0].autocorrelation()
    assert np.allclose(found.value[:, 0], naive.autocorrelation(seen(paths, 3), 7), rtol=1e-9)
    assert np.allclose(found.lags, 0.15 * np.arange(7))
    for g in range(3):
        squares = seen(paths[g == GROUPS], 1) ** 2
        value = run["squares"][g].value
        assert np.allclose(value, naive.autocorrelation(squares, 5), rtol=1e-9)
        assert not np.allclose(value, naive.autocorrelation(squares, 6)[:5], rtol=1e-9)


def test_passages_ride_along(run, paths):
    steps = naive.first_passage(paths, lambda x: x > 1)
    assert np.array_equal(run.parts[0].first_passage().times, 0.05 * steps, equal_nan=True)


# --- the same whatever the cut --------------------------------------------------------------------


def stores(monkeypatch, observe, **options):
    """The stores and memories of all observers after a run."""
    kept = []
    close = cpu.Engine.close
    with monkeypatch.context() as patch:
        patch.setattr(cpu.Engine, "close", lambda e: kept.extend(e.observers) or close(e))
        watched(observe, **options)
    found = []
    for observer in kept:
        found += [observer.store, *observer.memory.values()]
    return found


@pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="one thread only")
def test_threads_change_no_bit(monkeypatch):
    groups = np.arange(1000) % 3
    grouped = [getattr(o, "groups", None) is not None for o in FIRST]
    observe = [replace(o, groups=groups) if g else o for o, g in zip(FIRST, grouped, strict=True)]
    before, found = numba.get_num_threads(), []
    for n in (1, 2):
        numba.set_num_threads(n)
        found.append(stores(monkeypatch, observe, n_replicas=1000))
        numba.set_num_threads(before)
    assert len(found[0]) > len(FIRST)
    for a, b in zip(*found, strict=True):
        assert a.dtype == b.dtype and a.tobytes() == b.tobytes()


@pytest.mark.parametrize("observe", [FIRST, SECOND], ids=["every", "at"])
def test_windows_change_no_count(observe, monkeypatch):
    whole = stores(monkeypatch, observe)
    monkeypatch.setattr(simulate_module, "WINDOW", 1)
    pieces = stores(monkeypatch, observe)
    for a, b in zip(whole, pieces, strict=True):
        if a.dtype.kind == "f":
            assert np.allclose(a, b, rtol=1e-11, atol=1e-11)  # sums of floats in another order
        else:
            assert np.array_equal(a, b)


def test_two_dimensions_and_momentum_single_precision():
    """The state that an observer sees is that of a run which ends there."""
    plane = lv.Surface("(x**2 - 1)**2 + b*y**2/2 + x*y/4", b=1.5)
    masses = np.array([1.5, 4.0])
    dynamics = lv.Underdamped(0.3, 1.0, 0.1, masses=masses)
    watch = (lv.Temperature(every=40), "x*y", lv.Transitions(every=20), lv.Trajectory(every=20))
    options = dict(n_replicas=100, seed=5, progress=False, dtype="float32")
    result = lv.simulate(plane, dynamics, n_steps=40, observe=watch, **options)
    half = lv.simulate(plane, dynamics, n_steps=20, **options)
    x, v = result.positions.astype(float), result.velocities.astype(float)
    assert np.array_equal(result.trajectory().positions[:, 1], result.positions)
    assert np.array_equal(result.trajectory().positions[:, 0], half.positions)
    found = result.temperature()
    assert found.kinetic.value == pytest.approx((masses * v**2).sum() / 200, rel=1e-6)
    slope = plane.gradient(x)
    assert found.virial.value == pytest.approx((x * slope).sum() / 200, rel=1e-5)
    curvature = np.trace(plane.hessian(x), axis1=1, axis2=2).sum()
    assert found.configurational.value == pytest.approx((slope**2).sum() / curvature, rel=1e-5)
    labels = plane.basins().label(np.stack([half.positions, result.positions], axis=1))
    assert np.array_equal(result.transitions().counts, naive.transitions(labels, 2)[0])


def test_a_look_in_no_known_basin_ends_a_chain():
    """A band between the basins is made unknown: no pair begins, ends or skips over it."""
    plane = lv.Surface("(x**2 - 1)**2 + b*y**2/2 + x*y/4", b=1.6)
    basins = plane.basins()
    points = np.linspace(basins.low[0], basins.high[0], len(basins.labels))
    basins.table = np.where(np.abs(points)[:, None] < 0.4, np.int32(-1), basins.table)
    watch = (lv.Transitions(every=2), lv.Trajectory(every=2))
    found = lv.simulate(
        plane, lv.Overdamped(0.3, 0.05), n_replicas=100, n_steps=200, observe=watch, progress=False
    )
    labels = basins.label(found.trajectory().positions)
    assert (labels < 0).sum() > 300
    assert np.array_equal(found.transitions().pairs.sum(axis=0), naive.transitions(labels, 2))


def test_quenched_transitions_on_a_surface_in_space():
    watch = (lv.Transitions(every=20), lv.Trajectory(every=20), lv.FirstPassage(1, every=20))
    result = lv.simulate(
        SPACE, lv.Overdamped(0.5, 0.02), n_replicas=100, n_steps=80, seed=5, progress=False,
        start=(0.1, 0.3, -0.2), observe=watch,
    )  # fmt: skip
    labels = SPACE.basins().label(result.trajectory().positions)
    expected = naive.transitions(labels, 2)[0]
    assert np.abs(result.transitions().counts - expected).max() <= 3
    assert result.transitions().n_transitions > 10
    passed = np.isfinite(result.first_passage().times)
    assert np.abs(passed.astype(int) - (labels == 1).any(axis=1)).sum() <= 2


def test_observers_on_data():
    rng = np.random.default_rng(1)
    u = rng.normal(size=(40, 2))
    data = FiniteSum("(w*u - v)**2/2", data={"u": u, "v": u @ [1.0, -0.5] + rng.normal(size=40)})
    watch = (
        lv.Average("w0*w1"), lv.Trajectory(), lv.FirstPassage("w1 < -0.4"),
        lv.Autocorrelation(5, formula="w1"), lv.Average("w0", at=9, name="at"),
    )  # fmt: skip
    options = dict(n_replicas=70, n_steps=30, seed=1, start=[0.0, 0.0], progress=False)
    result = lv.simulate(data, lv.SGD(0.1, 4), observe=watch, **options)
    path = result.trajectory().positions
    assert np.array_equal(path[:, -1], result.positions)
    assert result["average"].value == pytest.approx((path[..., 0] * path[..., 1]).mean())
    assert result["at"].at(9).value == pytest.approx(path[:, 8, 0].mean())
    rho = naive.autocorrelation(path[..., 1], 5)
    assert np.allclose(result.autocorrelation().value, rho)
    first = naive.first_passage(np.pad(path, ((0, 0), (1, 0), (0, 0))), lambda a, b: b < -0.4)
    assert np.array_equal(result.first_passage().times, first, equal_nan=True)
    with pytest.raises(UnsoundError, match="Moments"):
        lv.simulate(data, lv.SGD(0.1, 4), observe=lv.Temperature(), **options)


def test_the_dead_are_not_observed():
    start = np.full((70, 1), 0.5)
    start[3] = 1e3
    options = dict(start=start, on_divergence="absorb", burn_in=0)
    result = Both(watched(**options), watched(SECOND, **options))
    assert (result.parts[0].diverged >= 0).sum() == 1
    assert result["tanh(x)"].n_observations == 69 * STEPS
    assert result["slow"].counts.sum() == 69 * (STEPS // 8 - 1)
    assert result["autocorrelation"].n_observations == 69 * (STEPS // 3)
    assert np.isnan(result["trajectory"].positions[3]).all()
    assert result["temperature"].virial.value < 10 and result["average"].value < 10
    density = result["density"].at(7)
    assert sum(density[g].n_observations for g in range(3)) == 69
    # Among more replicas a dead one shares its error group, which is not left out, with others.
    groups, start = np.arange(300) % 3, np.full((300, 1), 0.5)
    start[3] = 1e3
    observe = [replace(o, groups=groups) if o.name == "transitions" else o for o in FIRST]
    crowd = watched(observe, n_replicas=300, **options | dict(start=start))
    assert (crowd.diverged >= 0).sum() == 1
    for found in (crowd.average(), crowd.temperature().virial, crowd.temperature().configurational):
        assert 0 < found.value < 10
    assert np.abs(crowd.autocorrelation().value).max() <= 1 + 1e-9
    assert crowd.moments().covariance[0, 0] < 10


# --- laws -----------------------------------------------------------------------------------------

STATIONARY = dict(n_steps=3_000, burn_in=300, progress=False)
DECAY = 0.9  # of Euler-Maruyama with dt = 0.1 on x**2/2
OU = (
    "x**2",
    lv.Temperature(),
    lv.Autocorrelation(lags=200),
    lv.Autocorrelation(lags=60, formula="x**2", name="squares"),
    lv.Moments(),
)


def stationary(seed, n_replicas=256, **options):
    options = {**STATIONARY, **options}
    dynamics = lv.Overdamped(0.5, 0.1)
    return lv.simulate(
        PARABOLA, dynamics, n_replicas=n_replicas, seed=seed, start=[0.0], observe=OU, **options
    )


COVERED = 80 if scale == 1.0 else 16
VARIANCE = 0.5 / (1 - 0.1 / 2)  # T / (k (1 - k dt/2))


@statistical(comparisons=60, dof=63, seed=1, missed_bug=0.3)
def test_the_autocorrelation_of_a_linear_chain(seed, check):
    n = replicas(2_000)
    result = stationary(seed, n)
    found = result.autocorrelation("autocorrelation")
    k = np.arange(1, 40)
    check.z((found.value[k, 0] - DECAY**k) / found.stderr[k, 0], "rho", dof=63)
    check.twin((found.value[k, 0] - 0.89**k) / found.stderr[k, 0], "faster")
    time = found.integrated_time[0]
    exact = 0.1 * (1 + DECAY) / (1 - DECAY)
    beyond = time.value / exact - 1  # e**-5 lies beyond the window
    near = beyond - np.clip(beyond, -0.01, 0.01)
    check.holds(abs(near) < 4 * time.stderr / exact, 1.7e-4, "integrated time")
    check.twin(time.z(1.2 * exact), "a slower one")
    squares = result.autocorrelation("squares")  # of a Gaussian: rho**2
    z = (squares.value[1:20] - DECAY ** (2 * np.arange(1, 20))) / squares.stderr[1:20]
    check.z(z, "squares", dof=63)
    looks = n * 2_700
    assert found.effective_sample_size[0] == pytest.approx(looks * 0.1 / time.value, rel=1e-9)
    squares = 63 * looks / 19 / result.moments().effective_sample_size[0]  # chi-square
    law = stats.chi2(63)
    check.p(2 * min(law.sf(squares), law.cdf(squares)), "effective sample size of the mean")


@statistical(comparisons=5, dof=63, seed=2)
def test_temperatures_of_a_linear_chain(seed, check):
    n = replicas(2_000)
    found = stationary(seed, n).temperature()
    for kind in (found.configurational, found.virial):  # <h x**2>, larger by the step's own bias
        assert kind.stderr < 0.003 * np.sqrt(2_000 / n) * kind.value
        check.estimate(kind, VARIANCE, "overdamped")
        check.twin(kind.z(0.5), "no bias of the step")
    splitting = lv.Underdamped(0.5, 1.0, 0.8)
    options = dict(n_replicas=n, seed=seed + 1, start=[0.0], observe=lv.Temperature(), **STATIONARY)
    found = lv.simulate(PARABOLA, splitting, **options).temperature()
    check.estimate(found.virial, 0.5, "virial")
    check.estimate(found.configurational, 0.5, "configurational")
    check.estimate(found.kinetic, 0.5 * (1 - 0.8**2 / 4), "kinetic")  # BAOAB on a parabola
    check.twin(found.kinetic.z(0.5), "no bias of BAOAB")


@statistical(comparisons=8, dof=COVERED - 1, seed=0, missed_bug=0.02)
def test_errors_cover_what_they_should(seed, check):
    """z over many seeds of averages, temperatures and correlations."""
    z = []
    for k in range(seed, seed + COVERED):
        result = stationary(k, 128, n_steps=900, burn_in=200)
        rho = result.autocorrelation("autocorrelation")
        squares = result.autocorrelation("squares")
        z.append([
            result["x**2"].z(VARIANCE), result.temperature().configurational.z(VARIANCE),
            (rho.value[5, 0] - DECAY**5) / rho.stderr[5, 0],
            (squares.value[3] - DECAY**6) / squares.stderr[3],
        ])  # fmt: skip
    z = np.array(z)
    check.z(z.mean(axis=0) * np.sqrt(COVERED), "bias", dof=COVERED - 1)
    check.z(spread_z(z, 63), "spread")
    for factor in (1.7, 0.4):
        check.twin(spread_z(factor * z, 63), f"errors off by {factor}")


# --- refusals -------------------------------------------------------------------------------------


def one(observe, surface=WELL, **options):
    options = dict(n_replicas=4, n_steps=20, progress=False) | options
    return lv.simulate(surface, DYNAMICS, observe=observe, **options)


@pytest.mark.parametrize(
    "at", [0, -1, 21, 1.5, "last", [], [[1, 2]], [1, np.nan], [None], np.inf, True and "x"]
)
@pytest.mark.parametrize("kind", [lv.Histogram, lv.Occupation, lambda at: lv.Average("x", at=at)])
def test_bad_steps(kind, at):
    with pytest.raises(LangevinError, match="at"):
        one(kind(at=at))


@pytest.mark.parametrize(
    "watch, names",
    [
        (lv.Histogram(at=[1], every=2), ("every", "at")),
        (lv.Average("x + y"), ("'y'", "coordinates")),
        (lv.Average(7), ("formula",)),
        (lv.Average(()), ("formula",)),
        (lv.Average(("x", 3)), ("3",)),
        (lv.Average("__import__('os')"), ("unknown function",)),
        ("x +", ("observe", "formula")),
        (lv.Trajectory(replicas=0), ("replicas",)),
        (lv.Trajectory(replicas=[4]), ("replicas",)),
        (lv.Trajectory(replicas=[0.5]), ("replicas",)),
        (lv.Trajectory(replicas="all"), ("replicas",)),
        (lv.Autocorrelation(1), ("lags",)),
        (lv.Autocorrelation(21), ("lags", "looks")),
        (lv.Transitions(groups=[0]), ("groups",)),
    ],
)
def test_refusals(watch, names):
    with pytest.raises(LangevinError) as caught:
        one(watch)
    for name in names:
        assert name in str(caught.value)


def test_a_trajectory_too_large_names_the_remedy():
    with pytest.raises(ParameterError, match=r"GiB.*replicas=.*every="):
        one(lv.Trajectory(), n_replicas=10**6, n_steps=10**4)


def test_trajectories_know_the_time_of_each_replica():
    """Where dt differs: the times of the replicas recorded, not of the first ones."""
    dynamics = lv.Overdamped(0.25, np.array([0.01, 0.02, 0.03, 0.04]))
    watch = lv.Trajectory(every=10, replicas=[3, 1], name="two")
    options = dict(n_replicas=4, n_steps=20, progress=False)
    found = lv.simulate(WELL, dynamics, observe=watch, **options).trajectory()
    assert found.replicas.tolist() == [1, 3]
    assert np.allclose(found.times, [[0.2, 0.4], [0.4, 0.8]])


def test_a_range_holds_every_minimum_where_replicas_may_begin():
    """The upper minimum is 283 T above the lower: in equilibrium nobody is there."""
    cold, n = lv.Overdamped(0.001, 0.05), 64
    density = lv.simulate(
        WELL, cold, n_replicas=n, n_steps=4, observe=lv.Histogram(), progress=False
    ).density()
    for minimum in WELL.minima():
        assert density.edges[0] < minimum.position[0] < density.edges[-1]
    assert density.outside == 0


def test_small_groups_side_by_side_have_error_groups_enough():
    """A group that fills no more than one block of lanes has parts of it for its errors."""
    found = one(lv.Average("x", groups=np.arange(1024) // 64), n_replicas=1024, n_steps=40)
    for average in found.average():
        assert average.dof == 63 and 0 < average.stderr < 1


def test_the_window_of_the_integrated_time():
    """rho = .9**k: 5 (1 + 2 sum) reaches its lag at 95; the estimate is the sum up to there."""
    rho = 0.9 ** np.arange(200)
    sums = np.stack([np.ones(200), rho, np.zeros(200), np.zeros(200)], axis=1)

    def found(lags):
        sums_of_groups = np.repeat(sums[None, :lags], 4, axis=0)
        return MeasuredAutocorrelation(sums_of_groups, 0.5, "units of time", ("x",), True)

    (end,) = [k for k in range(1, 200) if k >= 5 * (1 + 2 * rho[1 : k + 1].sum())][:1]
    assert end == 95
    expected = 0.5 * (1 + 2 * rho[1 : end + 1].sum())
    for lags in (end + 1, 200):
        assert found(lags).integrated_time.value == pytest.approx(expected, rel=1e-12)
    with pytest.raises(UnsoundError, match="more lags"):
        _ = found(end).integrated_time
    looks = 4 * 200 * 0.5 / expected
    assert found(200).effective_sample_size == pytest.approx(looks, rel=1e-12)


def test_refusals_by_surface():
    with pytest.raises(UnsoundError, match="1 known minimum"):
        one(lv.Transitions(), PARABOLA)
    with pytest.raises(UnsoundError, match="kinks"):
        one(lv.Temperature(), lv.Surface("abs(x) + x**2"), start=[0.5])


EARLY = (
    lv.Histogram(at=[5, 20]), lv.Occupation(at=[5, 20]), lv.Average("log(x)", at=[1, 20]),
    lv.Trajectory(every=6),
)  # fmt: skip


def test_a_formula_undefined_where_replicas_went():
    series = one(EARLY, start=[-1.0]).average()
    for k in range(2):
        with pytest.raises(UnsoundError, match="not finite"):
            _ = series[k]


def test_series_are_no_stationary_measurements():
    """compare() skips what was taken at given times, and says so where nothing else is left."""
    early = one(EARLY)
    with pytest.raises(ParameterError, match="at="):
        lv.compare(early, lv.predict.boltzmann_gibbs(WELL, DYNAMICS))
    assert early.density()[1].n_observations == 4


def test_times_that_were_not_reached(monkeypatch):
    advance = cpu.Engine.advance

    def interrupted(engine, state, begin, end):
        advance(engine, state, begin, end)
        raise KeyboardInterrupt

    monkeypatch.setattr(simulate_module, "WINDOW", 1)
    monkeypatch.setattr(cpu.Engine, "advance", interrupted)
    watch = [replace(o, at=[64, 65]) for o in EARLY[:3]] + [replace(EARLY[3], every=30)]
    result = one(watch, n_steps=200)
    assert result.steps_done == 64
    assert result.occupation().at(64).n_observations == 4
    for read in (result.occupation, result.density, result.average):
        with pytest.raises(UnsoundError, match="observation"):
            read().at(65)
    assert result.trajectory().steps.tolist() == [30, 60]


def test_the_autocorrelation_of_what_is_constant_is_refused():
    sums = np.tile([10.0, 40.0, 20.0, 20.0], (4, 6, 1))  # every look at the value 2
    with pytest.raises(UnsoundError, match="x did not vary"):
        _ = MeasuredAutocorrelation(sums, 1.0, "steps", ("x",), True).integrated_time
