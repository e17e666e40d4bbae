"""The CPU engine: equal to its naive twin, and the same bits however the work is cut."""

import importlib
import os
import signal
import subprocess
import sys
import textwrap
import warnings
from concurrent.futures import ThreadPoolExecutor

import naive
import numba
import numpy as np
import pytest
from kit import replicas, statistical
from scipy import stats

import langevin as lv
from langevin.engines import cpu
from langevin.errors import DivergenceError, LangevinError, ParameterError, StabilityWarning
from langevin.surfaces.finite_sum import FiniteSum
from langevin.surfaces.regression import logistic_regression

simulate_module = importlib.import_module("langevin.simulate")  # the name in lv is the function
STEPS = 42  # not a multiple of 4
UNIT = lv.Isotropic(1.0)
WELL = lv.Surface("x**4/4 - a*x**3/3 - x**2/2", a=0.4, noise=UNIT)
PLANE = lv.Surface("(x**2 - 1)**2 + b*y**2/2 + x*y/4", b=1.5, noise=lv.Isotropic(0.5))
SPACE = lv.Surface("(x**2 - 1)**2 + y**2/2 + z**2 + x*z/5", noise=UNIT)
WAVES = lv.Surface(
    "x**2/2 + y**2/2 + cos(3*x)/2 + exp(-y**2) + log(1 + x**2*y**2)/4 + tanh(x*y)/3"
    " + sqrt(1 + x**2)",
    noise=UNIT,
)
_data = np.random.default_rng(42)
U, B = _data.normal(size=(23, 2)), _data.normal(size=23)
V = U @ [1.0, -0.5] + 0.3 + 0.5 * _data.normal(size=23)
LEAST_SQUARES = FiniteSum("(w*u + b - v)**2/2", data={"u": U, "v": V}, l2=0.01)
LOGISTIC = logistic_regression(U, np.sign(V), l2=0.1)


def well_gradient(x):
    return (x**3 - 0.4 * x**2 - x,)


def plane_gradient(x, y):
    return 4 * x * (x**2 - 1) + y / 4, 1.5 * y + x / 4


def space_gradient(x, y, z):
    return 4 * x * (x**2 - 1) + z / 5, y, 2 * z + x / 5


def waves_gradient(x, y):
    bend = 1 / (1 + x**2 * y**2) / 2
    slope = (1 - np.tanh(x * y) ** 2) / 3
    return (
        x - 1.5 * np.sin(3 * x) + x * y**2 * bend + y * slope + x / np.sqrt(1 + x**2),
        y - 2 * y * np.exp(-(y**2)) + x**2 * y * bend + x * slope,
    )


def least_squares_gradient(w, n):  # weights b, w0, w1
    residual = w[0] + w[1] * U[n, 0] + w[2] * U[n, 1] - V[n]
    return residual, residual * U[n, 0], residual * U[n, 1]


def logistic_gradient(w, n):
    sign = np.sign(V[n])
    slope = -sign / (1 + np.exp(sign * (w[0] * U[n, 0] + w[1] * U[n, 1])))
    return slope * U[n, 0], slope * U[n, 1]


def logistic_mean_gradient(*w):
    rows = [logistic_gradient(w, n) for n in range(23)]
    return [sum(row[k] for row in rows) / 23 + 0.1 * w[k] for k in range(2)]


SAMPLED = dict(learning_rate=0.1, batch_size=5, momentum=0.5)
CASES = {
    "1-D SGD": (WELL, lv.SGD(0.05, 4), "float64"),
    "1-D Langevin": (WELL, lv.Overdamped(0.3, 0.05), "float32"),
    "2-D momentum": (PLANE, lv.SGD(0.03, 2, momentum=0.8), "float64"),
    "3-D": (SPACE, lv.Overdamped(0.2, 0.02), "float64"),
    "3-D momentum": (SPACE, lv.SGD(0.02, 3, momentum=0.5), "float32"),
    "transcendental": (WAVES, lv.SGD(0.1, 2), "float64"),
    "transcendental single": (WAVES, lv.SGD(0.1, 2), "float32"),
    "with replacement": (LEAST_SQUARES, lv.SGD(**SAMPLED), "float64"),
    "without replacement": (
        LEAST_SQUARES,
        lv.SGD(**SAMPLED, sampling="without_replacement"),
        "float32",
    ),
    "logistic": (LOGISTIC, lv.SGD(**SAMPLED), "float32"),
    "full gradient": (LOGISTIC, lv.Overdamped(0.05, 0.1), "float64"),
}
GRADIENTS = {
    id(WELL): well_gradient,
    id(PLANE): plane_gradient,
    id(SPACE): space_gradient,
    id(WAVES): waves_gradient,
    id(LOGISTIC): logistic_mean_gradient,
}
all_cases = pytest.mark.parametrize("case", list(CASES))


def run(case, **options):
    surface, dynamics, dtype = CASES[case] if isinstance(case, str) else case
    options = {"n_replicas": 70, "n_steps": STEPS, "seed": 7, "progress": False, **options}
    return lv.simulate(surface, dynamics, dtype=dtype, **options)


def same_bits(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def twin(case, starts, n_steps, seed, first_replica=0):
    """The naive run of a case: trajectories and buffers."""
    surface, dynamics, dtype = CASES[case] if isinstance(case, str) else case
    if isinstance(dynamics, lv.Overdamped):
        found = naive.overdamped(
            GRADIENTS[id(surface)], starts, n_steps, seed, temperature=dynamics.temperature,
            dt=dynamics.dt, dtype=dtype, first_replica=first_replica,
        )  # fmt: skip
        return found, None
    common = dict(
        learning_rate=dynamics.learning_rate,
        batch_size=dynamics.batch_size,
        momentum=dynamics.momentum,
        first_replica=first_replica,
    )
    if surface in (LEAST_SQUARES, LOGISTIC):
        each = least_squares_gradient if surface is LEAST_SQUARES else logistic_gradient
        common |= dict(sampling=dynamics.sampling, l2=surface.l2)
        return naive.minibatch_sgd(each, 23, starts, n_steps, seed, **common)
    common |= dict(sigma=surface.noise.sigma, dtype=dtype)
    return naive.sgd(GRADIENTS[id(surface)], starts, n_steps, seed, **common)


# --- the naive twin -------------------------------------------------------------------------------


@all_cases
def test_a_run_equals_its_naive_twin(case):
    surface, _, dtype = CASES[case]
    first, seed = 5_000_000, 2**63 + 12345
    start = np.linspace(-1.2, 1.1, 3 * surface.dim).reshape(3, surface.dim)
    result = run(case, n_replicas=3, start=start, seed=seed, first_replica=first)
    trajectories, buffers = twin(case, start.astype(dtype), STEPS, seed, first)
    tolerance = 1e-12 if dtype == "float64" else 2e-5
    assert np.abs(result.positions - trajectories[:, -1]).max() < tolerance
    if result.velocities is not None:
        assert np.abs(result.velocities - buffers).max() < 10 * tolerance
    wrong, _ = twin(case, start.astype(dtype), STEPS, seed, first + 1)  # negative twin
    assert np.abs(result.positions - wrong[:, -1]).max() > 100 * tolerance


def test_arrays_of_coefficients_equal_the_naive_twin():
    etas, sizes = np.array([0.01, 0.03, 0.05]), np.array([1.0, 2.5, 16.0])
    momenta = np.array([0.0, 0.5, 0.9])
    case = (PLANE, lv.SGD(etas, sizes, momentum=momenta), "float64")
    start = np.array([[0.5, 0.1], [-1.0, 0.3], [1.0, 0.0]])
    result = run(case, n_replicas=3, start=start)
    trajectories, buffers = twin(case, start, STEPS, 7)
    assert np.abs(result.positions - trajectories[:, -1]).max() < 1e-12
    assert np.abs(result.velocities - buffers).max() < 1e-11


@pytest.mark.parametrize("n_steps", [1, 2, 3, 4, 5, 6, 7, 8])
def test_any_number_of_steps(n_steps):
    """A group of four steps may end early; positions are those of the last step asked for."""
    start = np.array([[0.3], [-0.7]])
    result = run("1-D SGD", n_replicas=2, n_steps=n_steps, start=start)
    trajectories, _ = twin("1-D SGD", start, n_steps, 7)
    assert result.steps_done == n_steps
    assert np.abs(result.positions - trajectories[:, -1]).max() < 1e-13
    start = np.zeros((2, 3))
    result = run("with replacement", n_replicas=2, n_steps=n_steps, start=start)
    trajectories, buffers = twin("with replacement", start, n_steps, 7)
    assert np.abs(result.positions - trajectories[:, -1]).max() < 1e-13
    assert np.abs(result.velocities - buffers).max() < 1e-12


def test_batch_sizes_that_differ_between_replicas():
    for sampling in ("with_replacement", "without_replacement"):
        dtype = CASES[sampling.replace("_", " ")][2]
        sizes = np.array([1, 5, 23])
        dynamics = lv.SGD(0.1, sizes, momentum=0.5, sampling=sampling)
        case = (LEAST_SQUARES, dynamics, dtype)
        start = np.zeros((3, 3))
        result = run(case, n_replicas=3, start=start)
        trajectories, _ = twin(case, start, STEPS, 7)
        tolerance = 1e-12 if dtype == "float64" else 2e-5
        assert np.abs(result.positions - trajectories[:, -1]).max() < tolerance


# --- the same bits --------------------------------------------------------------------------------


@pytest.fixture
def threads():
    """Sets the number of threads, and puts it back."""
    before = numba.get_num_threads()
    yield numba.set_num_threads
    numba.set_num_threads(before)


@all_cases
@pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="one thread only")
def test_threads_do_not_matter(case, threads):
    results = []
    for n in (1, 2):
        threads(n)
        results.append(run(case, n_replicas=1000))
    assert same_bits(results[0].positions, results[1].positions)


@all_cases
def test_chunking_does_not_matter(case, monkeypatch):
    whole = run(case, n_replicas=130, n_steps=202)
    monkeypatch.setattr(simulate_module, "WINDOW", 1)
    advanced = []
    advance = cpu.Engine.advance
    monkeypatch.setattr(
        cpu.Engine,
        "advance",
        lambda engine, *spans: advanced.append(spans[1:]) or advance(engine, *spans),
    )
    pieces = run(case, n_replicas=130, n_steps=202)
    assert len(advanced) > 3 and advanced[-1][1] == 202
    assert same_bits(whole.positions, pieces.positions)
    if whole.velocities is not None:
        assert same_bits(whole.velocities, pieces.velocities)


@all_cases
def test_a_replica_alone_or_among_a_hundred_thousand(case):
    n = 100_001
    crowd = run(case, n_replicas=n).positions
    for r in (0, 1, 62, 63, 64, 65, 4097, 77_777, n - 2, n - 1):
        alone = run(case, n_replicas=1, first_replica=r).positions
        assert same_bits(alone[0], np.ascontiguousarray(crowd[r])), r


@pytest.mark.parametrize("case", ["1-D Langevin", "2-D momentum", "without replacement"])
@pytest.mark.parametrize("n", [1, 2, 63, 64, 65, 127, 4097])
def test_odd_numbers_of_replicas(case, n):
    many = run(case, n_replicas=4200).positions
    assert same_bits(
        np.ascontiguousarray(run(case, n_replicas=n).positions), np.ascontiguousarray(many[:n])
    )
    shifted = run(case, n_replicas=n, first_replica=33).positions
    assert same_bits(np.ascontiguousarray(shifted), np.ascontiguousarray(many[33 : 33 + n]))


@pytest.mark.parametrize(
    "case", ["1-D SGD", "1-D Langevin", "2-D momentum", "3-D", "without replacement"]
)
def test_observers_do_not_change_positions(case):
    watch = {"2-D momentum": WATCH_PLANE, "3-D": lv.Occupation(every=20)}.get(case, WATCH_LINE)
    watch = WATCH_DATA if case == "without replacement" else watch
    bare = run(case, n_replicas=200)
    watched = run(case, n_replicas=200, observe=watch, burn_in=7)
    assert same_bits(bare.positions, watched.positions)


def test_arrays_equal_separate_runs():
    etas, temperatures = np.repeat([0.02, 0.05], 65), np.tile([0.1, 0.4], 65)
    together = run((WELL, lv.Overdamped(temperatures, etas), "float32"), n_replicas=130).positions
    for eta in (0.02, 0.05):
        for temperature in (0.1, 0.4):
            one = run((WELL, lv.Overdamped(temperature, eta), "float32"), n_replicas=130).positions
            mine = (etas == eta) & (temperatures == temperature)
            assert mine.sum() > 30
            assert same_bits(one[mine], together[mine])


def test_arrays_of_momenta_and_sizes_equal_separate_runs():
    sizes, momenta = np.repeat([1, 8], 40), np.tile([0.3, 0.9], 40)
    dynamics = lv.SGD(0.03, sizes, momentum=momenta)
    together = run((PLANE, dynamics, "float64"), n_replicas=80).positions
    for size in (1, 8):
        for momentum in (0.3, 0.9):
            dynamics = lv.SGD(0.03, size, momentum=momentum)
            one = run((PLANE, dynamics, "float64"), n_replicas=80).positions
            mine = (sizes == size) & (momenta == momentum)
            assert same_bits(one[mine], together[mine])


@pytest.mark.parametrize("case", ["1-D SGD", "2-D momentum", "with replacement"])
def test_the_seed_changes_everything(case):
    seeds = [0, 1, 2, 2**31, 2**32 - 1, 2**32, 2**32 + 1, 2**63, 2**64 - 1]
    found = [run(case, n_replicas=65, seed=seed).positions for seed in seeds]
    for i in range(len(seeds)):
        for j in range(i):
            assert (found[i] != found[j]).all(axis=1).all(), (seeds[i], seeds[j])
    assert same_bits(found[0], run(case, n_replicas=65, seed=0).positions)


def test_the_highest_replica_numbers():
    top = 2**32 - 3
    result = run("1-D SGD", n_replicas=3, first_replica=top, start=[0.2])
    trajectories, _ = twin("1-D SGD", np.full((3, 1), 0.2), STEPS, 7, top)
    assert np.abs(result.positions - trajectories[:, -1]).max() < 1e-12


def test_numbers_of_steps_beyond_32_bits_are_refused_on_data():
    """A mini-batch's counter holds the step itself: 2**32 steps would run over into a neighbour."""
    with pytest.raises(ParameterError, match="n_steps"):
        stop_before_running(LEAST_SQUARES, lv.SGD(0.01, 4), n_replicas=1, n_steps=2**32 + 4)


def stop_before_running(surface, dynamics, **options):
    """simulate() with an engine that must not be reached."""

    class Reached(Exception):
        pass

    original = cpu.Engine.advance

    def advance(*_):
        raise Reached

    cpu.Engine.advance = advance
    try:
        lv.simulate(surface, dynamics, seed=0, progress=False, **options)
    except Reached:
        pass
    finally:
        cpu.Engine.advance = original


# --- observers ------------------------------------------------------------------------------------

BURN_IN, EVERY = 11, 3
EDGES = np.linspace(-2, 2.5, 31)
WATCH_LINE = (
    lv.Histogram(30, range=(-2, 2.5), every=EVERY),
    lv.Occupation(every=EVERY),
    lv.Moments(every=EVERY),
)
WATCH_PLANE = (
    lv.Histogram((12, 9), range=((-1.5, 1.5), (-1, 1)), every=EVERY),
    lv.Histogram(15, range=(-1, 1), axes=1, every=2, name="marginal"),
    lv.Occupation(every=EVERY),
    lv.Moments(every=EVERY),
)
WATCH_DATA = (lv.Moments(every=EVERY), lv.Histogram(20, range=(-3, 3), axes=0, every=EVERY))


def test_observers_equal_the_naive_twin():
    start = np.array([[0.5], [-1.0], [1.3]])
    result = run("1-D SGD", n_replicas=3, start=start, burn_in=BURN_IN, observe=WATCH_LINE)
    trajectories, _ = twin("1-D SGD", start, STEPS, 7)
    states = naive.observed(trajectories, BURN_IN, EVERY)
    counts, outside = naive.histogram(states, [EDGES])
    density = result.density()
    assert density.n_observations == counts.sum() + outside == states.size
    assert np.allclose(density.probability * states.size, counts, atol=1e-9)
    assert density.outside * states.size == pytest.approx(outside)
    occupation = result.occupation(allow_unequilibrated=True)
    expected = naive.occupation(states, WELL.basins().thresholds)
    assert np.allclose(occupation.probability * states.size, expected, atol=1e-9)
    mean, covariance = naive.moments(states)
    assert np.allclose(result.moments().mean, mean, rtol=1e-12)
    assert np.allclose(result.moments().covariance, covariance, rtol=1e-11)


def snapshots(case, n_replicas, steps, **options):
    """States (n_replicas, len(steps), dim) of runs stopped at each step."""
    found = [run(case, n_replicas=n_replicas, n_steps=t, **options).positions for t in steps]
    return np.stack(found, axis=1)


def bin_counts(x, low, high, bins, dtype):
    """Histogram as the kernel's arithmetic has it; (..., ) -> (bins + 1,), the last one outside."""
    scaled = (x - np.array(low, dtype)) * np.array(bins / (high - low), dtype)
    index = np.where((scaled >= 0) & (scaled < bins), scaled, bins).astype(int)
    return np.bincount(index.ravel(), minlength=bins + 1)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_line_observers_equal_a_recomputation(dtype):
    case = (WELL, lv.Overdamped(0.25, 0.05), dtype)
    n, steps = 500, [t for t in range(BURN_IN + 1, STEPS + 1) if t % EVERY == 0]
    states = snapshots(case, n, steps)[..., 0]
    result = run(case, n_replicas=n, burn_in=BURN_IN, observe=WATCH_LINE)
    counts = bin_counts(states, -2, 2.5, 30, dtype)
    density = result.density()
    assert density.n_observations == states.size
    assert np.allclose(density.probability * states.size, counts[:-1], atol=1e-6)
    assert density.outside * states.size == pytest.approx(counts[-1])
    (threshold,) = np.asarray(WELL.basins().thresholds, dtype)
    right = (states > threshold).mean()
    assert 0.01 < right < 0.99
    occupation = result.occupation(allow_unequilibrated=True)
    assert np.allclose(occupation.probability, [1 - right, right], atol=1e-12)
    wide = states.astype(float)
    assert result.moments().mean[0] == pytest.approx(wide.mean(), rel=1e-12)
    assert result.moments().covariance[0, 0] == pytest.approx(wide.var(), rel=1e-11)
    assert result.moments().n_observations == states.size


def test_plane_observers_equal_a_recomputation():
    case, n = (PLANE, lv.SGD(0.03, 0.05, momentum=0.3), "float64"), 400
    steps = [t for t in range(BURN_IN + 1, STEPS + 1) if t % EVERY == 0]
    states = snapshots(case, n, steps)
    result = run(case, n_replicas=n, burn_in=BURN_IN, observe=WATCH_PLANE)
    joint, _, _ = np.histogram2d(
        *states.reshape(-1, 2).T, bins=(12, 9), range=((-1.5, 1.5), (-1, 1))
    )
    density = result["density"]
    total = states.size // 2
    assert density.probability.shape == (12, 9)
    assert np.allclose(density.probability * total, joint, atol=1e-6)
    assert density.outside == pytest.approx(1 - joint.sum() / total)
    even = [t for t in range(BURN_IN + 1, STEPS + 1) if t % 2 == 0]
    y = snapshots(case, n, even)[..., 1]
    counts = bin_counts(y, -1, 1, 15, "float64")
    assert np.allclose(result["marginal"].probability * y.size, counts[:-1], atol=1e-6)
    labels = PLANE.basins().label(states)
    expected = [(labels == k).mean() for k in (0, 1)]
    found = result.occupation(allow_unequilibrated=True)
    assert np.allclose(found.probability, expected, atol=1e-12)
    assert found.unassigned == pytest.approx((labels < 0).mean())
    flat = states.reshape(-1, 2)
    assert np.allclose(result.moments().mean, flat.mean(axis=0), rtol=1e-12)
    assert np.allclose(result.moments().covariance, np.cov(flat.T, bias=True), rtol=1e-11)


def test_quenched_occupation_equals_the_label_of_each_state():
    case, n = (SPACE, lv.Overdamped(0.2, 0.02), "float64"), 300
    steps = [20, 40]
    states = snapshots(case, n, steps, start=(0.1, 0.3, -0.2))
    watch = lv.Occupation(every=20)
    result = run(case, n_replicas=n, start=(0.1, 0.3, -0.2), observe=watch)
    labels = SPACE.basins().label(states)
    found = result.occupation(allow_unequilibrated=True)
    assert 0.05 < (labels == 0).mean() < 0.95
    assert np.allclose(found.probability, [(labels == k).mean() for k in (0, 1)], atol=2 / n)


def test_quenching_follows_a_long_valley_to_its_end():
    """Curvatures 0.01 to 8: the basins are x < 0 and x > 0, and no state belongs to neither."""
    valley = lv.Surface("(x**2 - 1)**2 + y**2/200 + z**2", noise=UNIT)
    case, n = (valley, lv.Overdamped(0.2, 0.02), "float64"), 300
    start = np.random.default_rng(9).normal(size=(n, 3)) * [0.3, np.sqrt(20), 0.3]
    result = run(case, n_replicas=n, n_steps=40, start=start, observe=lv.Occupation(every=40))
    right = (result.positions[:, 0] > 0).mean()
    found = result.occupation(allow_unequilibrated=True)
    assert found.unassigned <= 2 / n
    assert np.allclose(found.probability, [1 - right, right], atol=2 / n)


def test_moments_on_data_equal_a_recomputation():
    case = "without replacement"
    steps = [t for t in range(BURN_IN + 1, STEPS + 1) if t % EVERY == 0]
    result = run(case, n_replicas=100, burn_in=BURN_IN, observe=WATCH_DATA)
    flat = snapshots(case, 100, steps).reshape(-1, 3).astype(float)
    assert np.allclose(result.moments().mean, flat.mean(axis=0), rtol=1e-10, atol=1e-12)
    assert np.allclose(result.moments().covariance, np.cov(flat.T, bias=True), rtol=1e-9)
    counts = bin_counts(flat[:, 0].astype(np.float32), -3, 3, 20, np.float32)
    assert np.allclose(result.density().probability * len(flat), counts[:-1], atol=1e-6)


def test_occupation_above_two_dimensions_on_data():
    """One basin: everything is in it, or the observer says that it cannot tell."""
    try:
        result = run("with replacement", observe=lv.Occupation())
    except LangevinError:
        return
    assert np.allclose(result.occupation().probability, [1.0])


@pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="one thread only")
@pytest.mark.parametrize("case, watch", [("1-D SGD", WATCH_LINE), ("2-D momentum", WATCH_PLANE)])
def test_what_observers_count_is_identical_for_any_threads(case, watch, threads):
    stores = []
    for n in (1, 2):
        threads(n)
        result = run(case, n_replicas=5000, observe=watch)
        stores.append([raw(result.observed[o.name]) for o in watch])
    for one, two in zip(*stores, strict=True):
        assert all(same_bits(a, b) for a, b in zip(one, two, strict=True))


def raw(estimate):
    """The arrays behind an estimate."""
    if hasattr(estimate, "counts"):
        return [estimate.counts]
    if hasattr(estimate, "covariance"):
        return [
            estimate.mean, estimate.mean_stderr, estimate.covariance, estimate.covariance_stderr
        ]  # fmt: skip
    return [estimate.probability, estimate.probability_stderr]


def test_what_observers_count_does_not_depend_on_chunking(monkeypatch):
    whole = run("1-D SGD", n_replicas=300, n_steps=203, burn_in=70, observe=WATCH_LINE)
    monkeypatch.setattr(simulate_module, "WINDOW", 1)
    pieces = run("1-D SGD", n_replicas=300, n_steps=203, burn_in=70, observe=WATCH_LINE)
    for name in ("density", "occupation"):
        for a, b in zip(raw(whole.observed[name]), raw(pieces.observed[name]), strict=True):
            assert same_bits(a, b)
    for a, b in zip(raw(whole["moments"]), raw(pieces["moments"]), strict=True):
        assert np.allclose(a, b, rtol=1e-9)


@pytest.mark.parametrize("every, burn_in", [(1, 0), (1, 41), (42, 0), (5, 4), (5, 5), (4, 3)])
def test_the_schedule_of_observations(every, burn_in):
    watch = tuple(type(o)(**{**o.__dict__, "every": every}) for o in WATCH_LINE)
    result = run("1-D SGD", n_replicas=65, burn_in=burn_in, observe=watch)
    expected = 65 * len([t for t in range(burn_in + 1, STEPS + 1) if t % every == 0])
    assert result.density().n_observations == expected
    assert result.moments().n_observations == expected
    assert result.occupation(allow_unequilibrated=True).n_observations == expected


def test_groups_equal_separate_runs():
    n = 400
    labels = np.arange(n) % 3
    temperatures = np.array([0.1, 0.3, 0.6])[labels]
    watch = tuple(type(o)(**{**o.__dict__, "groups": labels}) for o in WATCH_LINE)
    grouped = run((WELL, lv.Overdamped(temperatures, 0.05), "float64"), n_replicas=n, observe=watch)
    for k, temperature in enumerate((0.1, 0.3, 0.6)):
        states = snapshots(
            (WELL, lv.Overdamped(temperature, 0.05), "float64"), n, range(3, STEPS + 1, EVERY)
        )[labels == k, :, 0]
        counts = bin_counts(states, -2, 2.5, 30, "float64")
        density = grouped["density"][k]
        assert np.allclose(density.probability * states.size, counts[:-1], atol=1e-6)
        assert grouped["moments"][k].mean[0] == pytest.approx(states.mean())
        assert grouped["moments"][k].covariance[0, 0] == pytest.approx(states.var())
        occupation = grouped.occupation(allow_unequilibrated=True).group(k)
        (threshold,) = WELL.basins().thresholds
        assert occupation.probability[1] == pytest.approx((states > threshold).mean())


def test_a_missing_group_label_loses_nothing():
    """Labels 0 and 2: refused before the run, or the groups that exist can be read."""
    labels = 2 * (np.arange(64) % 2)
    watch = [lv.Histogram(30, range=(-2, 2.5), every=EVERY, groups=labels)]
    watch += [lv.Occupation(every=EVERY), lv.Moments(every=EVERY, groups=labels)]
    try:
        result = run("1-D SGD", n_replicas=64, observe=watch)
    except ParameterError as error:
        assert "groups" in str(error)
        return
    assert result.density()[2].n_observations == 32 * 14
    assert result.moments()[2].n_observations == 32 * 14


# --- symmetries -----------------------------------------------------------------------------------


def same_law(a, b):
    """The p-value of the two-sample KS distance."""
    return stats.ks_2samp(a, b, method="asymp").pvalue


@statistical(comparisons=1, seed=7)
def test_a_mirrored_surface_has_the_mirrored_law(seed, check):
    options = dict(n_replicas=replicas(20_000), n_steps=STEPS)
    cases = [(s, lv.Overdamped(0.3, 0.05), "float32") for s in (WELL, WELL.replace(a=-0.4))]
    plain = run(cases[0], start=[0.2], seed=seed, **options).positions[:, 0]
    other = run(cases[1], start=[-0.2], seed=seed + 1, **options).positions[:, 0]
    check.p(same_law(plain, -other), "mirrored")
    check.twin(p=same_law(plain, other), name="not mirrored")


@statistical(comparisons=1, seed=1)
def test_time_rescaling(seed, check):
    """(eta, S) -> (a eta, a S) is the same law at small steps; (a eta, S) is not."""
    options = dict(n_replicas=replicas(60_000), start=[0.0])

    def final(eta, size, seed):
        return run(
            (WELL, lv.SGD(eta, size), "float64"), n_steps=round(1.6 / eta), seed=seed, **options
        ).positions[:, 0]

    fine = final(0.005, 0.01, seed)
    check.p(same_law(fine, final(0.01, 0.02, seed + 1)), "rescaled")
    check.twin(p=same_law(fine, final(0.01, 0.01, seed + 2)), name="the rate alone")


# --- divergence -----------------------------------------------------------------------------------

STARTS = np.full((130, 1), 1.0)
STARTS[[5, 77]] = 1e3


def unstable(**options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StabilityWarning)
        return run("1-D SGD", n_replicas=130, start=STARTS, **options)


def test_divergence_stops_and_nothing_is_lost():
    with pytest.raises(DivergenceError, match=r"2 of 130 .* replica 1005") as caught:
        unstable(first_replica=1000)
    result = caught.value.result
    assert sorted(np.flatnonzero(result.diverged >= 0)) == [5, 77]
    assert np.isfinite(result.positions).all()
    survivors = np.delete(result.positions, [5, 77], axis=0)
    assert np.abs(survivors).max() < 5
    plain = run("1-D SGD", n_replicas=130, start=[1.0], first_replica=1000)
    assert result.steps_done == STEPS
    assert same_bits(survivors, np.delete(plain.positions, [5, 77], axis=0))


def test_absorbed_replicas_are_frozen_and_counted():
    result = unstable(on_divergence="absorb", observe=WATCH_LINE)
    assert sorted(np.flatnonzero(result.diverged >= 0)) == [5, 77]
    assert (result.diverged[[5, 77]] == 4).all()
    plain = run("1-D SGD", n_replicas=130, start=[1.0])
    keep = np.delete(np.arange(130), [5, 77])
    assert same_bits(result.positions[keep], plain.positions[keep])
    observations = 128 * len(range(3, STEPS + 1, EVERY))
    assert result.density().n_observations == observations
    assert result.moments().n_observations == observations
    assert result.occupation(allow_unequilibrated=True).n_observations == observations
    assert np.abs(result.moments().mean[0]) < 2


def test_nan_is_a_divergence():
    start = np.full((100, 1), 1.0)
    start[3] = -1.0
    wall = lv.Surface("x**2/2 - sqrt(x)", noise=UNIT)  # NaN for negative x
    case = (wall, lv.SGD(0.01, 100.0), "float32")
    with pytest.raises(DivergenceError) as caught:
        run(case, n_replicas=100, start=start)
    assert np.isfinite(caught.value.result.positions).all()
    assert np.flatnonzero(caught.value.result.diverged >= 0).tolist() == [3]


def test_a_replica_still_finite_at_the_last_step_has_not_diverged():
    """Two steps from 10 lead to 7e4; only the third, which nobody asked for, leaves the world."""
    surface = lv.Surface("x**4/4 - a*x**3/3 - x**2/2", a=0.0, noise=UNIT)
    case = (surface, lv.Overdamped(0.0, 0.1), "float64")
    x = 10.0
    for _ in range(2):
        x -= 0.1 * (x**3 - x)
    assert 1e4 < abs(x) < 1e6
    result = run(case, n_replicas=3, n_steps=2, start=[10.0], on_divergence="absorb")
    assert (result.diverged == -1).all()
    assert np.allclose(result.positions, x, rtol=1e-12)


def test_all_replicas_lost_is_said_when_the_observer_is_read():
    case = ("1-D SGD", dict(n_replicas=64, start=[1e3], on_divergence="absorb"))
    result = run(case[0], observe=WATCH_LINE, **case[1])
    assert (result.diverged >= 0).all()
    for read in (result.density, result.moments, result.occupation, lambda: result["density"]):
        with pytest.raises(LangevinError, match="observation"):
            read()


# --- interruption ---------------------------------------------------------------------------------


def test_an_interrupted_run_returns_what_was_computed(monkeypatch):
    monkeypatch.setattr(simulate_module, "WINDOW", 1)
    advance = cpu.Engine.advance

    def interrupted(engine, state, begin, end):
        advance(engine, state, begin, end)
        if begin >= 64:
            raise KeyboardInterrupt

    monkeypatch.setattr(cpu.Engine, "advance", interrupted)
    result = run("1-D SGD", n_replicas=200, n_steps=1000, observe=WATCH_LINE)
    assert result.interrupted and result.steps_done == 128
    monkeypatch.setattr(cpu.Engine, "advance", advance)
    shorter = run("1-D SGD", n_replicas=200, n_steps=128, observe=WATCH_LINE)
    assert same_bits(result.positions, shorter.positions)
    assert np.array_equal(result.density().probability, shorter.density().probability)


def test_interruption_before_the_first_step(monkeypatch):
    def interrupted(engine, state):
        raise KeyboardInterrupt

    monkeypatch.setattr(cpu.Engine, "compile", interrupted)
    result = run("1-D SGD", n_replicas=10, start=[0.5], observe=WATCH_LINE)
    assert result.interrupted and result.steps_done == 0
    assert (result.positions == 0.5).all()
    with pytest.raises(LangevinError, match="observation"):
        result.density()


def test_interruption_while_tasks_are_handed_out(monkeypatch):
    """Ctrl-C may come between two submissions: all replicas must still be at the same step."""
    monkeypatch.setattr(simulate_module, "WINDOW", 1)

    class Interrupted(ThreadPoolExecutor):
        calls = 0

        def submit(self, *arguments, **options):
            Interrupted.calls += 1
            if Interrupted.calls == 12:
                raise KeyboardInterrupt
            return super().submit(*arguments, **options)

    monkeypatch.setattr(cpu, "ThreadPoolExecutor", Interrupted)
    result = run("1-D SGD", n_replicas=512, n_steps=1000)  # 8 tasks a window
    assert result.interrupted
    monkeypatch.undo()
    shorter = run("1-D SGD", n_replicas=512, n_steps=result.steps_done)
    assert same_bits(result.positions, shorter.positions)


INTERRUPTED = """
    import importlib, os, signal, threading
    import numpy as np
    import langevin as lv
    from langevin.engines import cpu
    importlib.import_module("langevin.simulate").WINDOW = 2**22
    advance, armed = cpu.Engine.advance, []

    def arming(engine, state, begin, end):
        if begin > 0 and not armed:
            armed.append(threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)))
            armed[0].start()
        return advance(engine, state, begin, end)

    cpu.Engine.advance = arming
    surface = lv.Surface("x**4/4 - a*x**3/3 - x**2/2", a=0.4, noise=lv.Isotropic(1.0))
    options = dict(n_replicas=2048, seed=3, progress=False)
    result = lv.simulate(surface, lv.SGD(0.05, 4), n_steps=2**32, **options)
    assert result.interrupted and 0 < result.steps_done < 2**32, result
    cpu.Engine.advance = advance
    again = lv.simulate(surface, lv.SGD(0.05, 4), n_steps=result.steps_done, **options)
    assert (result.positions == again.positions).all()
    print("returned", result)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT")
def test_control_c_returns_a_result():
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(INTERRUPTED)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith("returned")
