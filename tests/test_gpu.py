"""What a GPU computes: the CPU's integers, its paths to rounding, and the laws of physics.

``pytest -m gpu`` on a machine with a GPU. Elsewhere ``NUMBA_ENABLE_CUDASIM=1 pytest -m gpu``
rehearses it: numba runs every thread in Python, ensembles are tiny, and what is measured with an
error is only recorded; bits and rounding are judged all the same.
"""

import functools
import importlib
import os
import signal
import threading
import time

import kit
import laws
import naive
import numpy as np
import pytest
from kit import statistical
from test_kernels import KNOWN_ANSWERS

import langevin as lv
from langevin import devices
from langevin.checkpoint import Checkpoint
from langevin.devices import why_no_gpu
from langevin.engines import compiling, cuda, source
from langevin.kernels import hardware, hardware_philox

SIMULATED = compiling.simulated()
WHY = why_no_gpu()
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(bool(WHY), reason=f"no GPU: {WHY}")]
simulate_module = importlib.import_module("langevin.simulate")

UNIT = lv.Isotropic(1.0)
WELL = lv.Surface("x**4/4 - a*x**3/3 - x**2/2", a=0.4, noise=UNIT)
CONFINING = lv.Surface("x**2/2 + x**4/40", noise=UNIT)
PLANE = lv.Surface("x**2/2 + x*y/4 + y**2 + y**4/40", noise=UNIT)
BARRIER = lv.Surface("h*(x**2 - 1)**2", h=2.0)
SHORT = 8  # steps of a launch, where a test needs many launches


def sized(many, few=6):
    """``many`` on a GPU, ``few`` in a rehearsal."""
    return few if SIMULATED else many


def rehearsable(test):
    """In a rehearsal a statistical test runs once, and nothing that it measures is judged."""
    if not SIMULATED:
        return test

    @functools.wraps(test)
    def rehearsed(**options):
        check, _ = kit.attempt(test.__wrapped__, test.declaration, 0, options, twins=False)
        assert check.n_compared > 0

    rehearsed.__signature__ = test.__signature__
    return rehearsed


def simulate(surface, dynamics, **options):
    return lv.simulate(surface, dynamics, **{"device": "cuda", "progress": False, **options})


@pytest.fixture
def short_launches(monkeypatch):
    monkeypatch.setattr(simulate_module, "_window", lambda *arguments: SHORT)


def launched(entry, dtype, *arrays, faster=()):
    """Runs a kernel of the test's own, a row of the arrays a thread."""
    text = source.module_source(dtype, *(compiling.pasted(module) for module in faster), entry)
    kernel = compiling.load_cuda(text)
    with compiling.on_device(0):
        given = [compiling.to_device(array) for array in arrays]
        shape = (-(-len(arrays[0]) // 64), 64, 0)
        compiling.launch(kernel, shape, [compiling.kernel_array(array) for array in given])
        compiling.synchronise()
        return [compiling.to_host(array) for array in given]


def test_a_kernel_that_writes_nothing_is_seen(monkeypatch):
    devices._run_a_kernel()
    monkeypatch.setattr(compiling, "launch", lambda *given: None)
    with pytest.raises(RuntimeError, match="wrote nothing"):
        devices._run_a_kernel()


# --- integers and normals -------------------------------------------------------------------------

WORDS = """
def run(counters, keys, out):
    i = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
    if i < counters.shape[0]:
        c0, c1, c2, c3 = counters[i, 0], counters[i, 1], counters[i, 2], counters[i, 3]
        w0, w1, w2, w3 = philox(c0, c1, c2, c3, keys[i, 0], keys[i, 1])
        out[i, 0], out[i, 1], out[i, 2], out[i, 3] = w0, w1, w2, w3
"""
NORMALS = """
def run(words, out):
    i = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
    if i < words.shape[0]:
        z0, z1 = normal_pair(words[i, 0], words[i, 1])
        out[i, 0], out[i, 1] = z0, z1
"""


@pytest.mark.parametrize("faster", [(), (hardware_philox,)], ids=["shared text", "32-bit words"])
def test_random_integers_are_those_of_random123(faster):
    generator = np.random.default_rng(3)
    counters = generator.integers(0, 2**32, (sized(4096, 40), 4), dtype=np.uint64)
    keys = generator.integers(0, 2**32, (len(counters), 2), dtype=np.uint64)
    for k, (counter, key, _) in enumerate(KNOWN_ANSWERS):
        counters[k], keys[k] = counter, key
    *_, found = launched(WORDS, "float64", counters, keys, np.zeros_like(counters), faster=faster)
    for k, (_, _, words) in enumerate(KNOWN_ANSWERS):
        assert tuple(found[k]) == words
    expected = [naive.philox([int(v) for v in c], [int(v) for v in k])
                for c, k in zip(counters, keys, strict=True)]  # fmt: skip
    assert np.array_equal(found, np.array(expected, np.uint64))
    assert not np.array_equal(found[::-1], np.array(expected, np.uint64))


def test_normals_of_the_hardware_are_as_near_as_stated():
    n = sized(1 << 20, 400)
    words = np.random.default_rng(4).integers(0, 2**32, (n, 2), dtype=np.uint32)
    words[:4, 0] = 0, 1, 2**32 - 1, 2**31
    _, found = launched(NORMALS, "float32", words, np.zeros((n, 2), np.float32), faster=(hardware,))
    radius = np.sqrt(-2 * np.log((words[:, 0].astype(np.float32) + 0.5).astype(float) * 2.0**-32))
    angle = words[:, 1].view(np.int32) * (np.pi * 2.0**-31)
    exact = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    bound = np.where(radius > 3, 5e-6, 3e-6) + 1.7e-7 / np.maximum(radius, 3e-4)
    assert np.isfinite(found).all()
    assert (np.abs(found - exact) <= bound[:, None]).all()
    assert not (np.abs(found[:, ::-1] - exact) <= bound[:, None]).all()


# --- paths ----------------------------------------------------------------------------------------

PATHS = {
    "SGD": (CONFINING, lv.SGD(0.05, 8)),
    "heavy ball": (PLANE, lv.SGD(0.05, 8, momentum=0.5)),
    "BAOAB": (CONFINING, lv.Underdamped(0.2, 1.0, 0.1)),
}
# A well that contracts forgets a step's rounding within 20 steps of eta h = 0.05. In float32 the
# hardware's normals differ from the CPU's by 3e-6, rarely by 6e-4, times eta/sqrt(S) = 0.018.
APART = {"float64": 1e-12, "float32": 6e-5}


@pytest.mark.parametrize("dtype", sorted(APART))
@pytest.mark.parametrize("name", PATHS)
def test_paths_are_the_cpus_to_rounding(name, dtype):
    surface, dynamics = PATHS[name]
    n = sized(10_000, 2)
    options = dict(n_replicas=n, n_steps=1_000, seed=5, dtype=dtype, start=np.ones(surface.dim))
    here = simulate(surface, dynamics, device="cpu", **options)
    there = simulate(surface, dynamics, **options)
    apart = np.abs(_host(there.positions) - here.positions).max()
    print(f"{name}, {dtype}: {apart:.2g} apart after 1,000 steps")
    assert apart <= APART[dtype]
    if here.velocities is not None:
        assert np.abs(_host(there.velocities) - here.velocities).max() <= 4 * APART[dtype]
    other = simulate(surface, dynamics, **options | {"seed": 6})
    assert np.abs(_host(other.positions) - here.positions).max() > 1e-3


def _host(values):
    return values if isinstance(values, np.ndarray) else values.get()


# --- the same bits --------------------------------------------------------------------------------

OBSERVERS = (
    lv.Histogram(20, range=(-2, 2.5), every=2),
    lv.Occupation(every=4),
    lv.Moments(every=4),
    lv.Transitions(every=4),
    lv.Trajectory(every=8, replicas=[0, 5]),
    lv.Autocorrelation(lags=3, every=4),
)


def bits(result):
    """Everything a run computed, as arrays of bytes."""
    found = [_host(result.positions), result.density().probability]
    found += [result.occupation(allow_unequilibrated=True).counts, result.moments().covariance]
    found += [result.moments().covariance_stderr, result["transitions"].counts]
    found += [result.trajectory().positions, result.autocorrelation().value]
    return [np.asarray(values).tobytes() for values in found]


@pytest.fixture(scope="module")
def observed():
    return bits(watched())


def watched(**options):
    given = dict(n_replicas=sized(100_001, 70), n_steps=sized(1_000, 24), burn_in=4, seed=9)
    return simulate(WELL, lv.SGD(0.1, 0.4), observe=OBSERVERS, **{**given, **options})


def test_two_runs_have_the_same_bits(observed):
    assert bits(watched()) == observed
    assert bits(watched(seed=10)) != observed


@pytest.mark.parametrize("threads", [32, 64, 128])
def test_threads_of_a_block_change_no_bit(observed, threads, monkeypatch):
    monkeypatch.setattr(cuda, "Engine", functools.partial(cuda.Engine, threads=threads))
    assert bits(watched()) == observed


def test_launches_change_no_position(observed, short_launches):
    found = bits(watched())
    assert found[:3] == observed[:3]


def test_a_replica_alone_is_that_among_many(observed):
    among = np.frombuffer(observed[0]).reshape(-1, 1)
    options = dict(n_steps=sized(1_000, 24), seed=9, n_replicas=1)
    alone = simulate(WELL, lv.SGD(0.1, 0.4), first_replica=66, **options)
    assert _host(alone.positions)[0, 0] == among[66, 0]  # even numbers begin at the first minimum


def test_observers_see_what_they_see_on_the_cpu(short_launches):
    """Looks that are due at other steps, at given ones, by one observer or by eight."""
    together = (
        lv.Histogram(20, range=(-2, 2.5), every=3),
        lv.Histogram(15, range=(-2, 2.5), at=(2, 3, 8, 9, 46), name="path"),
        lv.Occupation(every=4),
        lv.Moments(every=7),
        lv.Transitions(every=5),
        lv.Trajectory(every=1, replicas=[0, 3]),
        lv.Autocorrelation(lags=3, every=2),
        lv.FirstPassage("x > 0.3"),
    )
    for observe in (together, together[:1]):
        options = dict(n_replicas=70, n_steps=46, burn_in=5, seed=3, observe=observe)
        here, there = (
            simulate(WELL, lv.SGD(0.1, 0.4), device=device, **options) for device in ("cpu", "cuda")
        )
        assert np.allclose(_host(there.positions), here.positions, rtol=0, atol=1e-12)
        for name, of in SEEN.items():
            if name in here.observed:
                values, expected = of(there.observed[name]), of(here.observed[name])
                assert np.allclose(values, expected, rtol=1e-11, atol=1e-12, equal_nan=True), name
                assert np.asarray(expected).size and np.nanmax(np.abs(expected)) > 0, name


SEEN = {
    "density": lambda found: found.probability,
    "path": lambda found: [found.at(step).probability for step in (2, 3, 8, 9, 46)],
    "occupation": lambda found: found.counts,
    "moments": lambda found: [found.mean[0], found.covariance[0, 0]],
    "transitions": lambda found: found.counts,
    "trajectory": lambda found: found.positions,
    "autocorrelation": lambda found: found.value,
    "first_passage": lambda found: found.times,
}


def test_every_basin_is_counted_where_there_are_many():
    """More basins than a thread keeps tallies of: the same counts as on the CPU."""
    egg_box = lv.surfaces.rastrigin(2)
    options = dict(n_replicas=sized(5_000, 70), n_steps=8, observe=lv.Occupation(every=4))
    both = [simulate(egg_box, lv.SGD(1e-3, 8), device=d, **options) for d in ("cpu", "cuda")]
    counts = [run.occupation(allow_unequilibrated=True).counts for run in both]
    assert np.array_equal(*counts) and counts[0].sum() == 2 * sized(5_000, 70)


# --- stopped and resumed --------------------------------------------------------------------------


class Stop(Exception):
    pass


def test_a_checkpoint_goes_on_to_the_same_bits(tmp_path, monkeypatch, short_launches):
    whole = bits(watched(checkpoint=tmp_path / "whole"))
    due = Checkpoint.due

    def stop(self, done):
        due(self, done)
        if done >= 2 * SHORT:
            raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "due", stop)
        with pytest.raises(Stop):
            watched(checkpoint=tmp_path / "cut", checkpoint_every=0)
    resumed = watched(checkpoint=tmp_path / "cut")
    assert resumed.resumed_at == 2 * SHORT
    assert bits(resumed) == whole


def test_ctrl_c_returns_what_was_computed(monkeypatch):
    if SIMULATED:
        monkeypatch.setattr(simulate_module, "_window", lambda *arguments: SHORT)
    options = dict(n_replicas=sized(100_000, 4), n_steps=2**32)
    simulate(WELL, lv.SGD(0.1, 0.4), **options | {"n_steps": 16})  # compiles
    pressed = []

    def press():
        pressed.append(time.perf_counter())
        os.kill(os.getpid(), signal.SIGINT)

    timer = threading.Timer(1.0, press)
    timer.start()
    try:
        result = simulate(WELL, lv.SGD(0.1, 0.4), **options)
        late = time.perf_counter() - pressed[0]
    finally:
        timer.cancel()
    assert 0 < result.steps_done < 2**32 and late < 1.5
    again = simulate(WELL, lv.SGD(0.1, 0.4), **options | {"n_steps": result.steps_done})
    assert np.array_equal(_host(again.positions), _host(result.positions))


def test_a_look_at_the_clock_every_second(monkeypatch):
    looks, look = [], cuda.Engine.look

    def timed(self):
        look(self)
        looks.append(time.perf_counter())

    monkeypatch.setattr(cuda.Engine, "look", timed)
    if SIMULATED:
        monkeypatch.setattr(simulate_module, "_window", lambda *arguments: SHORT)
    simulate(WELL, lv.SGD(0.1, 0.4), n_replicas=sized(10**6, 4), n_steps=sized(2 * 10**6, 64))
    assert len(looks) >= 3
    assert np.diff(looks).max() < 1.0


# --- laws -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@rehearsable
@statistical(comparisons=80, dof=63, seed=1, missed_bug=1e-5)
def test_the_stationary_law_is_that_of_the_chain(seed, check, dtype):
    sgd = lv.SGD(0.2, 0.4)  # T = 0.25
    edges = np.linspace(-1.6, 1.9, 36)
    watch = lv.Histogram(len(edges) - 1, range=(edges[0], edges[-1]), every=10)
    options = dict(n_replicas=sized(2**17, 70), n_steps=sized(4_000, 24), burn_in=sized(1_000, 4))
    density = simulate(WELL, sgd, seed=seed, observe=watch, dtype=dtype, **options).density()
    error = density.probability_stderr
    if SIMULATED:
        error = np.maximum(error, 1e-3)

    def z(law):
        return (density.probability - law.bin_probabilities(edges)) / error

    check.z(z(check.once("chain", lv.predict.chain, WELL, sgd)), "bins", dof=63)
    if check.twins:
        check.twin(z(lv.predict.boltzmann_gibbs(WELL, sgd)), "continuum")
        check.twin(z(lv.predict.chain(WELL, lv.SGD(0.2, 0.42))), "noise off by 2 %")


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@rehearsable
@statistical(comparisons=3, seed=2)
def test_the_covariance_of_momentum_is_that_of_the_discrete_chain(seed, check, dtype):
    surface = lv.surfaces.quadratic([[2.0, 0.5], [0.5, 1.0]])
    sgd = lv.SGD(0.2, 4.0, momentum=0.6)
    n = sized(1_000_000, 64)
    options = dict(n_replicas=n, n_steps=sized(400, 24), start=[0.0, 0.0], seed=seed, dtype=dtype)
    x = _host(simulate(surface, sgd, **options).positions).astype(float)

    def z(dynamics):
        exact = lv.predict.quadratic(surface, dynamics).covariance[:2, :2]
        found = x.T @ x / n
        spread = np.sqrt((exact**2 + np.outer(np.diag(exact), np.diag(exact))) / n)
        return ((found - exact) / spread)[[0, 0, 1], [0, 1, 1]]

    check.z(z(sgd), "covariance")
    check.twin(z(lv.SGD(0.2, 2.0, momentum=0.6)), "noise off by sqrt(2)")
    check.twin(z(lv.SGD(0.2, 4.0, momentum=0.59)), "momentum off")


@rehearsable
@statistical(comparisons=1, dof=63, seed=3, missed_bug=1e-5)
def test_the_occupation_ratio_is_that_of_the_chain(seed, check):
    sgd = lv.SGD(0.2, 0.4)
    options = dict(n_replicas=sized(2**17, 70), n_steps=sized(6_000, 24), burn_in=sized(2_000, 4))
    result = simulate(WELL, sgd, seed=seed, observe=lv.Occupation(every=10), **options)
    ratio = result.occupation(allow_unequilibrated=SIMULATED).ratio(0, 1)
    check.estimate(ratio, check.once("chain", lv.predict.chain, WELL, sgd).ratio(0, 1), "ratio")
    if check.twins:
        check.twin(ratio.z(lv.predict.boltzmann_gibbs(WELL, sgd).ratio(0, 1)), "continuum")


def escape_time(temperature):
    def gradient(x):
        return 8 * x * (x * x - 1)

    return laws.hitting_time(gradient, temperature, 0.02, -1.0, 0.0, -2.6) * 0.02


@rehearsable
@statistical(comparisons=1, dof=63, seed=4)
def test_the_escape_time_is_that_of_the_chain(seed, check):
    temperature = sized(0.5, 2.0)
    options = dict(n_replicas=sized(200_000, 64), n_steps=sized(100_000, 200), start=[-1.0])
    watch = lv.FirstPassage("x > 0")
    result = simulate(
        BARRIER, lv.Overdamped(temperature, 0.02), seed=seed, observe=watch, **options
    )
    mean = result.first_passage().mean
    check.estimate(mean, check.once("law", escape_time, temperature), "mean")
    check.twin(mean.z(check.once("warmer", escape_time, 1.05 * temperature)), "warmer")


@rehearsable
@statistical(comparisons=2, seed=5)
def test_the_temperature_of_momentum_is_that_of_baoab(seed, check):
    surface = lv.surfaces.quadratic(1.0)
    baoab = lv.Underdamped(0.3, 1.0, 0.5)
    n = sized(1_000_000, 64)
    options = dict(n_replicas=n, n_steps=sized(200, 24), start=[0.0], seed=seed)
    result = simulate(surface, baoab, **options)
    found = [(_host(values) ** 2).mean() for values in (result.positions, result.velocities)]

    def z(dynamics):
        exact = np.diag(lv.predict.quadratic(surface, dynamics).covariance)
        return (np.array(found) / exact - 1) * np.sqrt(n / 2)

    check.z(z(baoab), "x and v")
    check.twin(z(lv.Underdamped(0.309, 1.0, 0.5)), "3 % warmer")


@pytest.mark.parametrize("sampling", ["with_replacement", "without_replacement"])
@rehearsable
@statistical(comparisons=6, dof=63, seed=6)
def test_mini_batches_have_their_exact_covariance(seed, check, sampling):
    generator = np.random.default_rng(8)
    x = generator.normal(size=(24, 2))
    surface = lv.surfaces.linear_regression(x, x @ [1.0, -1.0] + generator.normal(size=24))
    sgd = lv.SGD(0.2, 4, sampling=sampling)
    options = dict(n_replicas=sized(2**17, 64), n_steps=sized(1_000, 12), burn_in=sized(200, 4))
    moments = simulate(surface, sgd, seed=seed, observe=lv.Moments(every=4), **options).moments()

    def z(dynamics):
        exact = lv.predict.quadratic(surface, dynamics).covariance
        return ((moments.covariance - exact) / moments.covariance_stderr)[[0, 0, 1], [0, 1, 1]]

    check.z(z(sgd), "covariance", dof=63)
    check.twin(z(lv.SGD(0.2, 5, sampling=sampling)), "a batch larger by one")
