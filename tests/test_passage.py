"""First passages: equal to the naive twin, to the chain's law and to the continuum's; censoring."""

import importlib
import math
from dataclasses import replace

import laws
import naive
import numba
import numpy as np
import pytest
from kit import replicas, scale, spread_z, statistical
from scipy import stats

import langevin as lv
from langevin.analysis.passage import PassageTimes, passage_times
from langevin.engines import cpu
from langevin.errors import FormulaError, LangevinError, UnsoundError
from langevin.surfaces import printing
from langevin.surfaces.regions import parse_region

simulate_module = importlib.import_module("langevin.simulate")
WELL = lv.Surface("x**4/4 - a*x**3/3 - x**2/2", a=0.4, noise=lv.Isotropic(1.0))
PLANE = lv.Surface("(x**2 - 1)**2 + b*y**2/2", b=1.5, noise=lv.Isotropic(1.0))
BARRIER = lv.Surface("h*(x**2 - 1)**2", h=2.0, noise=lv.Isotropic(1.0))
N, STEPS, START = 70, 203, -0.8
LABELS = np.arange(N) % 3
WATCH = (
    lv.FirstPassage("x > 1 - a/4"),
    lv.FirstPassage("x > 1 - a/4", every=3, groups=LABELS, name="groups"),
    lv.FirstPassage("-1.2 < x < 0.5 and not x > 0.4", leave=True, name="leave"),
    lv.FirstPassage(1, name="basin"),
    lv.FirstPassage("x > 0.5", continuous=True, name="shifted"),
    lv.FirstPassage("x > -1.1", leave=True, continuous=True, name="shrunk"),
    lv.FirstPassage("3*x < -3.6", continuous=True, name="below"),
    lv.Moments(every=50),
)
DYNAMICS = lv.Overdamped(0.25, 0.05)


def watched(**options):
    options = dict(n_replicas=N, n_steps=STEPS, seed=7, start=[START], burn_in=150) | options
    return lv.simulate(WELL, DYNAMICS, progress=False, observe=WATCH, **options)


def aslist(found):
    return [found] if isinstance(found, PassageTimes) else list(found)


def all_times(result):
    return [np.concatenate([g.times for g in aslist(result[w.name])]) for w in WATCH[:-1]]


def test_passages_equal_the_naive_twin():
    paths = naive.overdamped(
        lambda x: [x**3 - 0.4 * x**2 - x],
        np.full((N, 1), START),
        STEPS,
        7,
        temperature=0.25,
        dt=0.05,
    )
    shift = 0.5826 * math.sqrt(2 * 0.25 * 0.05)
    (threshold,) = WELL.basins().thresholds
    expected = {
        "first_passage": naive.first_passage(paths, lambda x: x > 0.9),
        "leave": naive.first_passage(paths, lambda x: -1.2 < x < 0.4, leave=True),
        "basin": naive.first_passage(paths, lambda x: x >= threshold),
        "shifted": naive.first_passage(paths, lambda x: x > 0.5 - shift),
        "shrunk": naive.first_passage(paths, lambda x: x > -1.1 + shift, leave=True),
        "below": naive.first_passage(paths, lambda x: x < -1.2 + shift),  # |grad 3x| = 3
    }
    result = watched()
    for name, steps in expected.items():
        passages = result[name]
        assert np.array_equal(passages.times, 0.05 * steps, equal_nan=True), name
        assert 0 < passages.censored < N or name in ("leave", "shrunk", "below")
    thirds = naive.first_passage(paths, lambda x: x > 0.9, every=3)
    for g in range(3):
        assert np.array_equal(result["groups"][g].times, 0.05 * thirds[g == LABELS], equal_nan=True)
    unshifted = naive.first_passage(paths, lambda x: x > 0.5)  # negative twin
    assert not np.array_equal(result["shifted"].times, 0.05 * unshifted, equal_nan=True)


def test_passages_depend_neither_on_windows_nor_on_threads(monkeypatch):
    whole, before = all_times(watched()), numba.get_num_threads()
    monkeypatch.setattr(simulate_module, "WINDOW", 1)
    for threads in {1, min(2, numba.config.NUMBA_NUM_THREADS)}:
        numba.set_num_threads(threads)
        pieces = all_times(watched())
        numba.set_num_threads(before)
        assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(whole, pieces, strict=True))


ALONE = lv.FirstPassage("x > 0.5")


def barrier(height, dt, n_replicas, n_steps, seed=3, start=-1.0, **options):
    return lv.simulate(
        BARRIER.replace(h=height), lv.Overdamped(1.0, dt), n_replicas=n_replicas, n_steps=n_steps,
        seed=seed, start=[start], progress=False, **{"observe": ALONE, **options},
    )  # fmt: skip


def test_finished_replicas_are_dropped_and_the_run_ends_early(monkeypatch):
    """Finished is who has passed into every region that is waited for."""
    both = (ALONE, lv.FirstPassage("x > 0.9", name="farther"))
    plain = barrier(2.0, 0.02, 300, 20_000, observe=both)
    assert plain.steps_done < 20_000 and plain.ended_early and not plain.interrupted
    monkeypatch.setattr(simulate_module, "WINDOW", 1)
    pieces = barrier(2.0, 0.02, 300, 20_000, observe=both)
    assert pieces.steps_done < plain.steps_done
    with_more = barrier(2.0, 0.02, 300, pieces.steps_done, observe=(*both, lv.Moments()))
    for watch in both:
        times = plain[watch.name].times
        assert np.isfinite(times).all()
        for other in (pieces, with_more):
            assert np.array_equal(times, other[watch.name].times)
    assert (plain["farther"].times > plain["first_passage"].times).any()


def test_survivors_among_dropped_replicas_are_moved_as_ever(monkeypatch):
    monkeypatch.setattr(simulate_module, "WINDOW", 1)
    steps = np.repeat([0.01, 0.02], 150)
    watch = replace(ALONE, continuous=True)  # each step size has its own shift
    run = dict(n_replicas=300, n_steps=402, first_replica=17)
    dropped = barrier(2.0, steps, **run, observe=watch)
    whole = barrier(2.0, steps, **run, observe=(watch, lv.Moments()))
    assert np.array_equal(
        dropped.first_passage().times, whole.first_passage().times, equal_nan=True
    )
    left = np.isnan(whole.first_passage().times)
    assert 10 < left.sum() < 200 and dropped.steps_done == 402
    assert np.array_equal(dropped.positions[left], whole.positions[left])
    assert not np.array_equal(dropped.positions[~left], whole.positions[~left])


def test_replicas_that_diverge_after_others_were_dropped(monkeypatch):
    """From the top of a hill: those that fall to the left never come back."""
    monkeypatch.setattr(simulate_module, "WINDOW", 1)
    run = dict(n_replicas=300, n_steps=1_001, on_divergence="absorb")
    dropped = barrier(-0.05, 0.02, **run)
    whole = barrier(-0.05, 0.02, **run, observe=(ALONE, lv.Moments()))
    a, b = dropped.first_passage(), whole.first_passage()
    assert (whole.diverged > 128).sum() > 20 and np.isfinite(b.times).sum() > 100
    late = (whole.diverged > 0) & np.isnan(b.times)
    assert np.array_equal(dropped.diverged[late], whole.diverged[late])
    assert np.array_equal(a.times, b.times, equal_nan=True)
    assert np.array_equal(a.exposure, b.exposure)


def test_a_run_cut_short_watched_no_longer(monkeypatch):
    advance = cpu.Engine.advance

    def interrupted(engine, state, begin, end):
        advance(engine, state, begin, end)
        raise KeyboardInterrupt

    monkeypatch.setattr(simulate_module, "WINDOW", 1)
    monkeypatch.setattr(cpu.Engine, "advance", interrupted)
    cut = barrier(2.0, 0.02, 300, 20_000)
    passages = cut.first_passage()
    assert cut.interrupted and cut.steps_done == 64 and passages.censored > 200
    assert np.allclose(passages.exposure[np.isnan(passages.times)], 64 * 0.02)


# --- laws -----------------------------------------------------------------------------------------

HEIGHTS = (1.5, 2.5, 4.0)  # barrier over temperature


def slope(height):
    return lambda x: 4 * height * x * (x**2 - 1)


def chain_time(height, temperature=1.0, dt=0.02):
    return dt * laws.hitting_time(slope(height), temperature, dt, -1.0, 0.5, -2.6)


@pytest.mark.parametrize("height", HEIGHTS)
@statistical(comparisons=1, dof=63, seed=1)
def test_the_mean_is_that_of_the_discrete_chain(seed, check, height):
    mean = barrier(height, 0.02, replicas(8_000), 200_000, seed).first_passage().mean
    assert mean.stderr < 0.013 / scale**0.5 * mean.value
    check.estimate(mean, check.once("law", chain_time, height), "mean")
    check.twin(mean.z(check.once("warmer", chain_time, height, 1.15)), "warmer")


BOTH = (lv.FirstPassage("x > 0", name="chain"), lv.FirstPassage("x > 0", continuous=True))


def continuum_time(height):
    return laws.mean_first_passage(lambda x: height * (x**2 - 1) ** 2, 1.0, -1.0, 0.0, -3)


@pytest.mark.parametrize("height", HEIGHTS)
@statistical(comparisons=1, dof=63, seed=1, missed_bug=0.01)
def test_the_corrected_mean_is_that_of_the_continuum(seed, check, height):
    """Heun, because the drift of Euler-Maruyama has an error of the first order of its own."""
    dt, n = 0.002 / height, replicas(20_000)
    result = lv.simulate(
        BARRIER.replace(h=height), lv.Overdamped(1.0, dt, integrator="heun"), n_replicas=n,
        n_steps=10**6, seed=seed, start=[-1.0], progress=False, observe=BOTH,
    )  # fmt: skip
    exact = check.once("law", continuum_time, height)
    check.estimate(result["first_passage"].mean, exact, "mean")
    check.twin(max(result["chain"].mean.z(exact), 0), "without the correction")


@statistical(comparisons=1, dof=63, seed=5)
def test_a_run_cut_at_half(seed, check):
    dt, height, n = 0.02, 2.5, replicas(8_000)
    exact = check.once("law", chain_time, height)
    passages = barrier(height, dt, n, int(0.6 * exact / dt), seed).first_passage()
    assert 0.4 < passages.censored / n < 0.7
    check.estimate(passages.mean, exact, "mean")
    assert passages.mean.stderr < 0.05 / scale**0.5 * exact
    of_those_seen = np.nanmean(passages.times)
    check.twin(passages.mean.z(of_those_seen), "forgetting the censored")
    assert passages.restricted_mean.value < 0.7 * exact
    hazard = passages.rate
    assert hazard.value == pytest.approx(1 / exact, rel=0.2)  # not exponential at first


def test_units_and_arrays_of_steps():
    """SGD counts steps, Langevin dynamics time, also where dt differs between replicas."""
    n = 64
    steps = np.where(np.arange(n) < 32, 0.02, 0.04)
    watch = (
        lv.FirstPassage("x**2 + y**2 > 2 or y < -1.4"),
        lv.FirstPassage("x**2 + y**2 > 2", continuous=True, name="shifted"),
    )
    options = dict(n_replicas=n, n_steps=400, seed=1, start=[0.0, 0.0], progress=False)
    timed = lv.simulate(PLANE, lv.Overdamped(0.5, steps), observe=watch, **options)
    one = lv.simulate(PLANE, lv.Overdamped(0.5, 0.04), observe=watch, **options)
    a, b = timed["first_passage"], one["first_passage"]
    assert np.array_equal(a.times[32:], b.times[32:], equal_nan=True) and b.unit == "units of time"
    assert a.exposure.max() <= 16.0 + 1e-12
    descent = lv.simulate(PLANE, lv.SGD(0.04, 0.04), observe=watch, **options)
    counted = descent["first_passage"]
    assert counted.unit == "steps" and (counted.times[np.isfinite(counted.times)] % 1 == 0).all()
    # eta = dt and eta sigma**2/(2 S) = T: the same chain
    assert np.allclose(counted.times * 0.04, b.times, equal_nan=True)
    shifted = one["shifted"].times
    assert np.allclose(descent["shifted"].times * 0.04, shifted, equal_nan=True)
    assert np.array_equal(timed["shifted"].times[32:], shifted[32:], equal_nan=True)
    assert np.nanmean(shifted) < np.nanmean(b.times)


def test_diverged_replicas_are_censored_at_their_divergence():
    start = np.full((130, 1), -1.0)
    start[5] = -1e3
    result = lv.simulate(
        BARRIER, lv.Overdamped(1.0, 0.02), n_replicas=130, n_steps=20_000, seed=3, start=start,
        progress=False, observe=ALONE, on_divergence="absorb",
    )  # fmt: skip
    passages = result.first_passage()
    assert passages.censored == 1 and np.isnan(passages.times[5]) and result.ended_early
    assert passages.exposure[5] == pytest.approx(0.02 * 4)
    assert np.isfinite(passages.mean.value)


# --- estimates ------------------------------------------------------------------------------------

# Freireich et al. 1963, 6-mercaptopurine: weeks of remission; negative ones are censored. The
# survival and its Greenwood errors are printed in Kleinbaum and Klein, Survival Analysis, ch. 2.
REMISSION = np.array(
    [6, 6, 6, -6, 7, -9, 10, -10, -11, 13, 16, -17, -19, -20, 22, 23, -25, -32, -32, -34, -35]
)
PRINTED = {6: (0.857, 0.0764), 7: (0.807, 0.0869), 10: (0.753, 0.0963), 13: (0.690, 0.1068),
           16: (0.627, 0.1141), 22: (0.538, 0.1282), 23: (0.448, 0.1346)}  # fmt: skip


def remission():
    weeks = np.abs(REMISSION)
    return passage_times(np.where(REMISSION > 0, weeks, 0), weeks, np.ones(21), True)


def test_kaplan_meier_on_a_textbook_example():
    passages = remission()
    for week, (survival, error) in PRINTED.items():
        found = passages.survival(week)
        assert found.value == pytest.approx(survival, abs=6e-4)
        assert found.stderr == pytest.approx(error, abs=6e-5)
    assert passages.survival(5.9).value == 1.0 and math.isnan(passages.survival(36).value)
    assert np.allclose(passages.survival([6, 23]).value, [0.857, 0.448], atol=6e-4)
    assert passages.median.value == 23 and passages.censored == 12
    assert passages.rate.value == pytest.approx(9 / 359)
    area = sum(  # of the steps of the printed table
        s * (b - a)
        for s, a, b in zip(
            [1, 0.857, 0.807, 0.753, 0.690, 0.627, 0.538, 0.448],
            [0, 6, 7, 10, 13, 16, 22, 23], [6, 7, 10, 13, 16, 22, 23, 35], strict=True,
        )
    )  # fmt: skip
    assert passages.restricted_mean.value == pytest.approx(area, abs=0.02)


DRAWS = 150 if scale == 1.0 else 50


@statistical(comparisons=50, dof=149, seed=5, missed_bug=0.01)
def test_the_errors_cover_what_they_should(seed, check):
    """Exponential times cut at 0.7 of their mean, and at twice for the median: z of each."""
    rng, z = np.random.default_rng(seed), []
    for _ in range(DRAWS):
        times = rng.exponential(10.0, 4_000)
        found, later = (
            passage_times(
                np.where(times < t, times, 0), np.minimum(times, t), np.ones(4_000), False
            )
            for t in (7.0, 20.0)
        )
        z.append([
            found.mean.z(10.0), found.restricted_mean.z(10 * (1 - math.exp(-0.7))),
            found.rate.z(0.1), found.survival(5.0).z(math.exp(-0.5)),
            later.median.z(10 * math.log(2)),
        ])  # fmt: skip
    z = np.array(z)
    bias = np.abs(z.mean(axis=0)) * np.sqrt(len(z))
    check.holds((bias < 4).all(), 5 * 5e-4, "bias")  # up to half a unit is there: O(1/sqrt(4000))
    check.z(spread_z(z), "spread")
    for factor in (1.6, 0.5):
        check.twin(spread_z(factor * z), f"errors off by {factor}")


@statistical(comparisons=2, seed=6)
def test_the_median_of_few_passages_knows_its_error(seed, check):
    """p-values of the median of 100 and 400, with the degrees of freedom that it states."""
    rng, repeats = np.random.default_rng(seed), 4_000 if scale == 1.0 else 1_000
    for n in (100, 400):
        p, normal = [], []
        for _ in range(repeats):
            times = rng.exponential(10.0, n)
            median = passage_times(times, times, np.ones(n), False).median
            z = abs(median.z(10 * math.log(2)))
            p.append(2 * stats.t.sf(z, median.dof) < 0.05)
            normal.append(2 * stats.norm.sf(1.4 * z) < 0.05)
        error = math.sqrt(0.05 * 0.95 / repeats)
        check.holds(abs(np.mean(p) - 0.05) < 7 * error, 1e-8, f"median of {n}")  # to two points
        check.twin((np.mean(normal) - 0.05) / error, f"errors of {n} too small by 1.4")


def test_nothing_passed():
    found = passage_times(np.zeros(5, int), np.full(5, 100), np.ones(5), True)
    for read in (lambda: found.mean, lambda: found.rate, lambda: found.median):
        with pytest.raises(UnsoundError, match="pass"):
            read()
    assert found.restricted_mean.value == 100
    late = passage_times(np.array([1, 2, 0, 0]), np.full(4, 100), np.ones(4), True)
    with pytest.raises(UnsoundError, match="later half"):
        _ = late.mean


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["", "x", "x + 1", "x == 1", "x != 1", "x > 1 +", "x > y", "1 if x > 1 else 0", "x > (y := 2)",
     "__import__('os').system('x') > 0", "x in x", "x > 1; y > 2", "lambda: x > 1", "x.real > 1",
     "(" * 200 + "x > 1" + ")" * 200, "not x", "x > 1 and x", "x > open('a')", "x is 1",
     "[x > 1]", "x > 'a'", "x ＞ 1"],
)  # fmt: skip
def test_regions_outside_the_language(text):
    with pytest.raises(FormulaError):
        watch = lv.FirstPassage(text)
        lv.simulate(WELL, DYNAMICS, n_replicas=1, n_steps=4, progress=False, observe=watch)


def test_the_condition_of_a_region():
    region = parse_region("not (x > 1 or 0 < y <= x) and x < y", {})
    values = lambda x, y: dict(q0=x, q1=1, q2=0, q3=y, q4=y, q5=x, q6=x, q7=y)  # noqa: E731
    for x, y in [(0.5, 0.6), (2.0, 3.0), (0.5, 0.4), (-1.0, -2.0), (-2.0, -1.0)]:
        wanted = not (x > 1 or 0 < y <= x) and x < y
        assert evaluated(region.condition, values(x, y)) is wanted


def evaluated(condition, values):
    """The condition's value, by the package's own compiler of generated text."""
    text = f"def condition({', '.join(values)}):\n    return {condition}\n"
    return bool(printing.numpy_function(text, "condition")(*values.values()))


SGD = lv.SGD(0.05, 4)


@pytest.mark.parametrize(
    "dynamics, watch",
    [
        (lv.SGD(0.05, 4, momentum=0.5), lv.FirstPassage("x > 1", continuous=True)),
        (lv.Underdamped(0.2, 1.0, 0.05), lv.FirstPassage("x > 1", continuous=True)),
        (
            lv.Overdamped(0.2, 0.05, integrator="leimkuhler_matthews"),
            lv.FirstPassage("x > 1", continuous=True),
        ),
        (SGD, lv.FirstPassage("x > 1 or x < -2", continuous=True)),
        (SGD, lv.FirstPassage("x > 1", continuous=True, every=2)),
        (SGD, lv.FirstPassage(0, continuous=True)),
        (SGD, lv.FirstPassage(2)),
        (SGD, lv.FirstPassage(0.5)),
        (SGD, lv.FirstPassage(None)),
        (SGD, lv.FirstPassage("x > 1", leave=2)),
        (SGD, lv.FirstPassage("x > 1", every=100)),
    ],
)
def test_refusals(dynamics, watch):
    with pytest.raises(LangevinError, match="first_passage"):
        lv.simulate(WELL, dynamics, n_replicas=1, n_steps=8, progress=False, observe=watch)


def test_the_median_of_one_time_has_no_known_error():
    median = PassageTimes(np.array([7.0]), np.array([7.0]), "steps").median
    assert median.value == 7 and math.isnan(median.stderr)
