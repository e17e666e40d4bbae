"""Wrong arguments get an error of langevin's own that names the argument, before anything runs."""

import warnings

import numpy as np
import pytest

import langevin as lv
from langevin.engines import cpu
from langevin.errors import LangevinError, ParameterError, StabilityWarning, UnsoundError

NAN, INF = float("nan"), float("inf")
UNIT = lv.Isotropic(1.0)
WELL = lv.Surface("x**4/4 - a*x**3/3 - x**2/2", a=0.4, noise=UNIT)
PLANE = lv.Surface("(x**2 - 1)**2 + y**2", noise=UNIT)
SPACE = lv.Surface("(x**2 - 1)**2 + y**2 + z**2", noise=UNIT)
SGD = lv.SGD(0.05, 4)
WARM = lv.Overdamped(0.3, 0.05)


@pytest.fixture(autouse=True)
def nothing_runs(monkeypatch):
    """A refusal comes before the first step, and before the compiler."""

    def reached(*_):
        pytest.fail("the engine was reached")

    monkeypatch.setattr(cpu.Engine, "compile", reached)


def attempt(surface=WELL, dynamics=WARM, **options):
    options = {"n_replicas": 8, "n_steps": 16, "seed": 0, "progress": False, **options}
    return lv.simulate(surface, dynamics, **options)


def refused(call, *names):
    """The call raises a LangevinError whose message holds each of the names."""
    with pytest.raises(LangevinError) as caught:
        call()
    for name in names:
        assert name in str(caught.value), str(caught.value)
    assert len(str(caught.value)) < 1500


# --- simulate -------------------------------------------------------------------------------------

COUNTS = [0, -1, 1.5, NAN, INF, -INF, None, "8", True, [8], np.array([8, 8]), 1j, 10**30]


@pytest.mark.parametrize("value", COUNTS)
@pytest.mark.parametrize("name", ["n_replicas", "n_steps"])
def test_counts(name, value):
    refused(lambda: attempt(**{name: value}), name)


@pytest.mark.parametrize("value", [-1, 16, 17, 0.5, NAN, None, "4", True, [4]])
def test_burn_in(value):
    refused(lambda: attempt(burn_in=value), "burn_in")


@pytest.mark.parametrize("value", [-1, 2**64, 0.5, NAN, None, "4", True, [4], 1j])
def test_seed(value):
    refused(lambda: attempt(seed=value), "seed")


@pytest.mark.parametrize("value", [-1, 2**32, 2**32 - 7, 0.5, None, "4", True])
def test_first_replica(value):
    refused(lambda: attempt(first_replica=value), "first_replica")


@pytest.mark.parametrize("value", ["float16", "double", None, 64, "", int, ["float64"]])
def test_dtype(value):
    refused(lambda: attempt(dtype=value), "dtype")


@pytest.mark.parametrize("value", [np.dtype("float32"), np.float32, np.float64])
def test_dtypes_in_numpys_own_words(value, monkeypatch):
    """Either understood or refused, never an accident further in."""

    class Understood(Exception):
        pass

    def reached(*_):
        raise Understood

    monkeypatch.setattr(cpu.Engine, "compile", reached)
    with pytest.raises((LangevinError, Understood)):
        attempt(dtype=value)


@pytest.mark.parametrize("value", ["gpu", "cuda", None, 0, "CPU "])
def test_device(value):
    refused(lambda: attempt(device=value), "device")


@pytest.mark.parametrize("value", ["raise", None, True, ""])
def test_on_divergence(value):
    refused(lambda: attempt(on_divergence=value), "on_divergence")


@pytest.mark.parametrize(
    "value",
    [
        [1.0, 2.0],
        np.zeros(8),
        np.zeros((8, 2)),
        np.zeros((7, 1)),
        np.zeros((8, 1, 1)),
        [NAN],
        [INF],
        "left",
        ["a"],
        [None],
        object(),
        [[1.0], [2.0, 3.0]],
        [1j],
        [],
        {"x": 1.0},
    ],
)
def test_start(value):
    refused(lambda: attempt(start=value), "start")


def test_start_in_two_dimensions():
    for value in (0.0, [0.0], [0.0, 0.0, 0.0], np.zeros((2, 8)), np.zeros((8, 1))):
        refused(lambda value=value: attempt(PLANE, start=value), "start", "(2,)")


@pytest.mark.parametrize("value", [np.inf * np.ones((8, 1)), [1e300], [1e13]])
def test_a_start_that_has_already_escaped(value):
    """Beyond 1e12 a replica counts as lost: starting there is an error of the argument."""
    refused(lambda: attempt(start=value), "start")


def test_a_start_beyond_single_precision():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        refused(lambda: attempt(start=[1e39], dtype="float32"), "start")


@pytest.mark.parametrize("value", ["x**2", None, 3, np, lambda x: x**2, lv.Surface])
def test_surface(value):
    refused(lambda: attempt(value), "urface")


@pytest.mark.parametrize("value", ["sgd", None, 0.1, lv.SGD, lv.Overdamped, object()])
def test_dynamics(value):
    refused(lambda: attempt(dynamics=value), "dynamics")


def test_sgd_needs_noise():
    bare = lv.Surface("x**2/2")
    refused(lambda: attempt(bare, SGD), "noise=", "Isotropic")


def test_a_surface_without_a_minimum_needs_a_start():
    refused(lambda: attempt(lv.Surface("x")), "minim")


@pytest.mark.parametrize(
    "dynamics, name",
    [
        (lv.SGD([0.1, 0.2]), "learning_rate"),
        (lv.SGD(0.1, np.ones(9)), "batch_size"),
        (lv.SGD(0.1, 4, momentum=np.zeros(7)), "momentum"),
        (lv.Overdamped(np.ones(3), 0.1), "temperature"),
        (lv.Overdamped(0.3, np.full(1, 0.05)), "dt"),
    ],
)
def test_arrays_of_the_wrong_length(dynamics, name):
    refused(lambda: attempt(dynamics=dynamics), name, "8")


# --- steps that must diverge ----------------------------------------------------------------------

PARABOLA = lv.Surface("h*x**2/2", variables=("x",), h=10.0, noise=UNIT)


@pytest.mark.parametrize(
    "dynamics, names",
    [
        (lv.SGD(0.2), ("learning_rate=0.2", "0.2")),
        (lv.SGD(0.5), ("learning_rate=0.5", "0.2")),
        (lv.SGD(0.39, momentum=0.9), ("learning_rate=0.39", "0.38")),
        (lv.Overdamped(0.1, 0.21), ("dt=0.21", "0.2")),
        (lv.Overdamped(np.full(8, 0.1), np.full(8, 0.21)), ("dt=0.21", "0.2")),
    ],
)
def test_a_step_unstable_at_every_minimum(dynamics, names):
    with pytest.raises(UnsoundError) as caught:
        attempt(PARABOLA, dynamics)
    assert all(name in str(caught.value) for name in names)


def test_a_single_replica_that_must_diverge():
    """On a quadratic there is nowhere else to go: one such replica is enough to refuse."""
    etas = np.full(8, 0.1)
    etas[5] = 0.5
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StabilityWarning)
        with pytest.raises(UnsoundError):
            attempt(PARABOLA, lv.SGD(etas))


def accepted(surface, dynamics, **options):
    """Everything before the observers is in order: the run is refused for its observer alone."""
    with pytest.raises(ParameterError, match="observe"):
        attempt(surface, dynamics, observe="stop here", **options)


def test_stability_is_judged_replica_by_replica():
    etas, momenta = np.array([0.1] * 4 + [0.35] * 4), np.array([0.0] * 4 + [0.9] * 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error", StabilityWarning)
        accepted(PARABOLA, lv.SGD(etas, momentum=momenta))
    with warnings.catch_warnings():
        warnings.simplefilter("error", StabilityWarning)
        accepted(PARABOLA, lv.SGD(np.full(8, 0.35), momentum=np.full(8, 0.9)))
    stable = lv.SGD(np.full(8, 0.35), momentum=[0.0] + [0.9] * 7)  # the first one must diverge
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StabilityWarning)
        with pytest.raises(UnsoundError):
            attempt(PARABOLA, stable)


def test_a_step_unstable_at_one_minimum_is_a_warning():
    wells = lv.Surface("x**4/4 - a*x**3/3 - x**2/2", a=2.0, noise=UNIT)
    low, high = (float(np.ravel(m.hessian)[0]) for m in wells.minima())
    with pytest.warns(StabilityWarning, match="minimum at"):
        accepted(wells, lv.SGD(4 / (low + high)))
    with warnings.catch_warnings():
        warnings.simplefilter("error", StabilityWarning)
        accepted(wells, lv.SGD(1.9 / max(low, high)))


# --- observers ------------------------------------------------------------------------------------

OBSERVERS = [
    lv.Histogram, lv.Occupation, lv.Moments, lv.Temperature, lv.Transitions, lv.Autocorrelation,
    lambda **options: lv.Average("x", **options),
    lambda **options: lv.FirstPassage("x > 0", **options),
]  # fmt: skip


@pytest.mark.parametrize(
    "value",
    ["density", None, lv.Histogram, [lv.Moments], 7, [lv.Moments(), None], {"a": lv.Moments()}],
)
def test_observe(value):
    refused(lambda: attempt(observe=value), "observe")


@pytest.mark.parametrize("observer", OBSERVERS)
@pytest.mark.parametrize("value", [0, -1, 1.5, 17, None, "2", True, NAN, [1], 10**30])
def test_every(observer, value):
    refused(lambda: attempt(observe=observer(every=value)), "every")


@pytest.mark.parametrize("observer", OBSERVERS)
@pytest.mark.parametrize(
    "value",
    [
        np.zeros(7, int),
        np.zeros((8, 1), int),
        np.zeros(8),
        np.full(8, -1),
        np.full(8, 20_000),
        ["a"] * 8,
        3,
        [[0], [1, 2]],
        np.full(8, NAN),
        [None] * 8,
        np.zeros(8, bool),
    ],
)
def test_groups(observer, value):
    refused(lambda: attempt(observe=observer(groups=value)), "groups")


@pytest.mark.parametrize("observer", OBSERVERS)
@pytest.mark.parametrize("value", [None, 3, ["a"], ""])
def test_name(observer, value):
    refused(lambda: attempt(observe=observer(name=value)), "name")


def test_two_observers_of_one_name():
    refused(lambda: attempt(observe=[lv.Histogram(10), lv.Histogram(20)]), "name", "density")


@pytest.mark.parametrize(
    "value",
    [0, -5, 1.5, NAN, None, "200", True, [10, 10], [], [10.0], [[1], [2, 3]], 10**12, 2**63, 2**64],
)
def test_bins(value):
    refused(lambda: attempt(observe=lv.Histogram(value)), "bins")


@pytest.mark.parametrize("value", [(10,), (10, 10, 10), (10, 0), (2**32, 2**32), (10**10, 10**10)])
def test_bins_in_two_dimensions(value):
    refused(lambda: attempt(PLANE, observe=lv.Histogram(value)), "bins")


@pytest.mark.parametrize(
    "value",
    [
        (1, -1),
        (1, 1),
        (0, INF),
        (NAN, 1),
        "all",
        5,
        (1, 2, 3),
        ((0, 1), (0, 1)),
        (None, 1),
        {"x": (0, 1)},
        (1j, 2),
    ],
)
def test_range(value):
    refused(lambda: attempt(observe=lv.Histogram(range=value)), "range")


@pytest.mark.parametrize("value", [(50, 60), (-60, -50)])
def test_a_range_outside_the_domain(value):
    refused(lambda: attempt(observe=lv.Histogram(range=value)), "range", "domain")


def test_a_range_cannot_be_chosen_without_a_temperature():
    cold = lv.Overdamped(0.0, 0.05)
    refused(lambda: attempt(dynamics=cold, observe=lv.Histogram()), "range")


@pytest.mark.parametrize("formula", ["-x**2/2 + x**3/3", "x**3 - x"])
def test_a_surface_that_does_not_confine(formula):
    surface = lv.Surface(formula, noise=UNIT)
    with pytest.raises(UnsoundError):
        attempt(surface, observe=lv.Histogram(), start=[0.1])


@pytest.mark.parametrize("value", [2, -1, (0, 0), (0, 1, 2), (), 1.5, "x", None.__class__, [0.0]])
def test_axes(value):
    refused(lambda: attempt(PLANE, observe=lv.Histogram(axes=value)), "axes")


def test_axes_are_needed_above_two_dimensions():
    refused(lambda: attempt(SPACE, observe=lv.Histogram()), "axes")
    refused(lambda: attempt(SPACE, observe=lv.Histogram(axes=(0, 1, 2))), "axes")


# --- dynamics -------------------------------------------------------------------------------------

POSITIVE = [0, -0.1, NAN, INF, None, "0.1", "fast", 1j, [[0.1, 0.2]], [0.1, NAN], [0.1, -1.0], {}]


@pytest.mark.parametrize("value", POSITIVE)
def test_sgd_learning_rate(value):
    refused(lambda: lv.SGD(value), "learning_rate")


@pytest.mark.parametrize("value", POSITIVE)
def test_sgd_batch_size(value):
    refused(lambda: lv.SGD(0.1, value), "batch_size")


@pytest.mark.parametrize("value", [-0.1, 1, 1.5, NAN, INF, None, "0.9", [0.5, 1.0], [[0.5]], 1j])
def test_sgd_momentum(value):
    refused(lambda: lv.SGD(0.1, 4, momentum=value), "momentum")


@pytest.mark.parametrize("value", ["with", "", None, True, 3, ["with_replacement"]])
def test_sgd_sampling(value):
    refused(lambda: lv.SGD(0.1, 4, sampling=value), "sampling")


@pytest.mark.parametrize("value", [-0.1, NAN, INF, None, "0.1", 1j, [[0.1]], [0.1, NAN], {}])
def test_overdamped_temperature(value):
    refused(lambda: lv.Overdamped(value, 0.1), "temperature")


@pytest.mark.parametrize("value", POSITIVE)
def test_overdamped_dt(value):
    refused(lambda: lv.Overdamped(0.1, value), "dt")


@pytest.mark.parametrize("value", ["euler", "", None, 1, ["euler_maruyama"]])
def test_overdamped_integrator(value):
    refused(lambda: lv.Overdamped(0.1, 0.1, integrator=value), "integrator")


@pytest.mark.parametrize("value", [-1.0, NAN, INF, None, "1", 1j, [1.0]])
def test_isotropic_sigma(value):
    refused(lambda: lv.Isotropic(value), "sigma")


@pytest.mark.parametrize("value", [np.float32(0.5), np.float64(0.5), np.int64(2), 2, 0])
def test_isotropic_takes_any_number(value):
    assert lv.Isotropic(value).covariance(np.zeros((3, 2))).shape == (3, 2, 2)


def test_arrays_in_dynamics_cannot_be_changed_later():
    etas = np.full(8, 0.1)
    sgd = lv.SGD(etas)
    etas[:] = 5.0
    assert (sgd.learning_rate == 0.1).all()
    with pytest.raises(ValueError):
        sgd.learning_rate[0] = 1.0
    with pytest.raises(AttributeError):
        sgd.learning_rate = 1.0


# --- results --------------------------------------------------------------------------------------


def test_asking_a_result_for_what_it_does_not_have(monkeypatch):
    monkeypatch.undo()
    result = attempt(observe=[lv.Moments(), lv.Moments(name="again")])
    refused(lambda: result["other"], "other", "moments", "again")
    refused(lambda: result.density(), "Histogram")
    refused(lambda: result.occupation(), "Occupation")
    refused(lambda: result.moments(), "moments", "again")
