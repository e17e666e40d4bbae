"""Wrong noises, schedules and dynamics get an error of langevin's own that says what to do."""

import numpy as np
import pytest

import langevin as lv
from langevin.engines import cpu
from langevin.errors import LangevinError
from langevin.schedules import (
    Cosine,
    Cyclic,
    Exponential,
    Steps,
    Table,
    Triangular,
    Warmup,
    exchange,
)
from langevin.surfaces.finite_sum import FiniteSum

NAN, INF = float("nan"), float("inf")
PLANE = "x**2/2 + y**2"
DATA = FiniteSum("(w*u - v)**2/2", data={"u": np.arange(1.0, 8), "v": np.ones(7)})


@pytest.fixture(autouse=True)
def nothing_runs(monkeypatch):
    """A refusal comes before the first step, and before the compiler."""

    def reached(*_):
        pytest.fail("the engine was reached")

    monkeypatch.setattr(cpu.Engine, "compile", reached)


def refused(call, *names):
    """The call raises a LangevinError whose message holds each of the names."""
    with pytest.raises(LangevinError) as caught:
        call()
    for name in names:
        assert name in str(caught.value), str(caught.value)
    assert 30 < len(str(caught.value)) < 1500


def attempt(surface, dynamics, **options):
    options = {"n_replicas": 8, "n_steps": 16, "start": np.zeros(surface.dim), **options}
    return lv.simulate(surface, dynamics, progress=False, **options)


def noisy(noise):
    """A run of SGD under a noise on the plane."""
    return attempt(lv.Surface(PLANE, noise=noise), lv.SGD(0.1))


# --- noise ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "matrix, name",
    [
        (np.ones((2, 3)), "(2, 3)"),
        (np.ones((2, 2, 2)), "(2, 2, 2)"),
        (1.0, "needs"),
        ([], "needs"),
        ("identity", "needs"),
        ([[1, 0], [0, "a"]], "needs"),
        ([[1, NAN], [NAN, 1]], "NaN"),
        ([[1, INF], [INF, 1]], "infinity"),
        ([[1, 0.5], [0.4, 1]], "(C + C.T)/2"),
        ([[1, 2], [2, 1]], "positive semi-definite"),
        ([1.0, -0.1], "positive semi-definite"),
        (-np.eye(2), "positive semi-definite"),
        (1j * np.eye(2), "needs"),
        (None, "needs"),
    ],
)
def test_anisotropic(matrix, name):
    refused(lambda: lv.Anisotropic(matrix), "Anisotropic", name)


def test_anisotropic_of_another_dimension():
    refused(lambda: noisy(lv.Anisotropic(np.eye(3))), "(3, 3)", "dimension 2", "x, y")


@pytest.mark.parametrize(
    "arguments, name",
    [
        ({}, "factor="),
        ({"covariance_formula": "1", "factor": [["1"]]}, "factor="),
        ({"covariance_formula": "x +"}, "x +"),
        ({"covariance_formula": "__import__('os')"}, "__import__"),
        ({"covariance_formula": ["x", "y +"]}, "y +"),
        ({"covariance_formula": [["1", "0"], ["0"]]}, "lengths"),
        ({"covariance_formula": [["1"], "2"]}, "rows"),
        ({"covariance_formula": {"x": 1}}, "no formula"),
        ({"covariance_formula": [[1, None], [None, 1]]}, "no formula"),
        ({"factor": "x"}, "rows"),
        ({"factor": ["x", "y"]}, "rows"),
        ({"factor": []}, "rows"),
        ({"factor": [["1", "2"], ["3"]]}, "lengths"),
        ({"covariance_formula": "1", "convention": "Ito"}, "convention"),
        ({"covariance_formula": "1", "convention": None}, "convention"),
        (
            {"covariance_formula": [["1", "0"], ["0", "1"]], "convention": "stratonovich"},
            "C = B B'",
        ),
    ],
)
def test_state_dependent(arguments, name):
    refused(lambda: lv.StateDependent(**arguments), name)


@pytest.mark.parametrize(
    "noise, names",
    [
        (lv.StateDependent("1 + z**2"), ("'z'", "x, y")),
        (lv.StateDependent("1 + c*x**2"), ("'c'", "c=<number>")),
        (lv.StateDependent(factor=[["1"], ["k"]]), ("'k'", "k=<number>")),
        (lv.StateDependent(["1", "1", "1"]), ("shape (3, 3)", "(2, 2)")),
        (lv.StateDependent([["1"]]), ("shape (1, 1)", "(2, 2)")),
        (lv.StateDependent(factor=[["1"]]), ("factor", "(1, 1)")),
        (lv.StateDependent([["1", "x"], ["y", "1"]]), ("symmetric",)),
        (lv.StateDependent("x"), ("positive semi-definite", "eigenvalue")),
        (lv.StateDependent(["1", "y - 0.2"]), ("positive semi-definite",)),
        (lv.StateDependent([["1", "2"], ["2", "1"]]), ("positive semi-definite",)),
        (lv.StateDependent("1/x"), ("finite",)),
        (lv.StateDependent("log(x)"), ("finite",)),
        (lv.LabelNoise("x*w"), ("'w'", "x, y")),
    ],
)
def test_formulas_that_do_not_fit_the_surface(noise, names):
    refused(lambda: noisy(noise), *names)


@pytest.mark.parametrize(
    "build, name",
    [
        (lambda v: lv.LabelNoise("x", v), "sigma_label"),
        (lambda v: lv.Multiplicative(v), "relative"),
        (lambda v: lv.Multiplicative(1.0, v), "additive"),
        (lambda v: lv.StudentT(3.0, v), "scale"),
        (lambda v: lv.AlphaStable(1.5, v), "scale"),
    ],
)
@pytest.mark.parametrize("value", [-1, NAN, INF, "1", None, 1j, [1.0]])
def test_scales_of_noises(build, name, value):
    refused(lambda: build(value), name)


@pytest.mark.parametrize("value", [(), [], 3, None, ["x", 1j], "x +", [["x"]], {"x": 1}])
def test_label_noise_outputs(value):
    refused(lambda: lv.LabelNoise(value), "formula")


@pytest.mark.parametrize("value", [0, -1, 0.01, 1e5, NAN, INF, "3", None, [3.0], 1j, True])
def test_student_dof(value):
    refused(lambda: lv.StudentT(value), "dof", "0.1")


@pytest.mark.parametrize("value", [0, -1, 0.1, 2.01, NAN, INF, "1.5", None, [1.5], 1j])
def test_stable_alpha(value):
    refused(lambda: lv.AlphaStable(value), "alpha", "0.3 to 2")


# --- schedules ------------------------------------------------------------------------------------

MAKERS = {
    "Steps": lambda v: Steps(v, (3,)),
    "Cosine": lambda v: Cosine(v, 10),
    "Exponential": lambda v: Exponential(v, 10),
    "Triangular": lambda v: Triangular(v, 10),
    "Cyclic": lambda v: Cyclic(v, (1.0, 2.0), 3),
    "Table": lambda v: Table(v, np.ones(16)),
    "Warmup": lambda v: Warmup(v, 10),
}


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("value", [0, -0.1, NAN, INF, "a", None, [0.1, 0.0], [[0.1]], 1j])
def test_values_of_schedules(name, value):
    refused(lambda: MAKERS[name](value), name, "value")


@pytest.mark.parametrize("name", [n for n in MAKERS if n != "Warmup"])
def test_only_warmup_takes_a_schedule(name):
    refused(lambda: MAKERS[name](Cosine(0.1, 5)), name, "Warmup")


@pytest.mark.parametrize(
    "build, name",
    [
        (lambda: Steps(0.1, (3, 2)), "increasing"),
        (lambda: Steps(0.1, (3, 3)), "increasing"),
        (lambda: Steps(0.1, (0,)), "increasing"),
        (lambda: Steps(0.1, (2.5,)), "at_steps"),
        (lambda: Steps(0.1, ("a",)), "at_steps"),
        (lambda: Steps(0.1, (3,), 0.0), "factor"),
        (lambda: Steps(0.1, (3,), NAN), "factor"),
        (lambda: Cosine(0.1, 0), "n_steps"),
        (lambda: Cosine(0.1, 2.5), "n_steps"),
        (lambda: Cosine(0.1, 10, final=0.0), "final"),
        (lambda: Cosine(0.1, 10, final=-1), "final"),
        (lambda: Exponential(0.1, 0), "steps"),
        (lambda: Exponential(0.1, 10, final=0), "final"),
        (lambda: Triangular(0.1, 1), "period"),
        (lambda: Triangular(0.1, 10, low=1.5), "low"),
        (lambda: Triangular(0.1, 10, low=0), "low"),
        (lambda: Cyclic(0.1, (), 2), "multipliers"),
        (lambda: Cyclic(0.1, (1, 0), 2), "multipliers"),
        (lambda: Cyclic(0.1, (1, NAN), 2), "multipliers"),
        (lambda: Cyclic(0.1, (1, 2), 0), "hold"),
        (lambda: Table(0.1, []), "factors_by_step"),
        (lambda: Table(0.1, [1, 0, 1]), "factors_by_step"),
        (lambda: Table(0.1, [1, -1, 1]), "factors_by_step"),
        (lambda: Table(0.1, [1, NAN, 1]), "factors_by_step"),
        (lambda: Table(0.1, np.ones((2, 2))), "factors_by_step"),
        (lambda: Table(0.1, "many"), "factors_by_step"),
        (lambda: Warmup(0.1, 0), "n_steps"),
        (lambda: Warmup(Cosine(0.1, 10), -1), "n_steps"),
        (lambda: exchange(0.1, 8, to=0.1, n_steps=10), "schedule"),
        (lambda: exchange(Cosine(0.1, 10), 0, to=0.1, n_steps=10), "batch_size"),
        (lambda: exchange(Cosine(0.1, 10), 8, to=NAN, n_steps=10), "to"),
        (lambda: exchange(Cosine(0.1, 10), 8, to=0.1, n_steps=0), "n_steps"),
        (lambda: exchange(Cosine([0.1, 0.2], 10), 8, to=0.1, n_steps=5), "one per replica"),
    ],
)
def test_schedules(build, name):
    refused(build, name)


WELL = lv.Surface(PLANE, noise=lv.Isotropic(1.0))


@pytest.mark.parametrize(
    "surface, dynamics, names",
    [
        (WELL, lv.SGD(Table(0.1, np.ones(15))), ("Table", "15 steps", "every step")),
        (WELL, lv.SGD(0.1, Table(4, np.ones(3))), ("Table", "3 steps")),
        (WELL, lv.SGD(Cosine(np.full(7, 0.1), 10)), ("learning_rate", "7 values")),
        (WELL, lv.SGD(Cosine(3.0, 10, final=0.9)), ("unstable",)),
        (DATA, lv.SGD(0.01, Steps(4, (3,), 2), sampling="without_replacement"), ("8", "7")),
        (DATA, lv.SGD(0.01, Steps(4, (3,), 2), sampling="epoch_shuffle"), ("8", "7")),
        (DATA, lv.SGD(0.01, Steps(np.full(8, 2), (3,), 2)), ("one size for all",)),
        (DATA, lv.SGD(0.01, 8, sampling="epoch_shuffle"), ("batch_size=8", "7 examples")),
        (DATA, lv.SGD(0.01, 2.5, sampling="epoch_shuffle"), ("batch_size=2.5",)),
        (WELL, lv.SGD(0.1, sampling="epoch_shuffle"), ("epoch_shuffle", "FiniteSum")),
    ],
)
def test_schedules_and_epochs_that_do_not_fit_the_run(surface, dynamics, names, monkeypatch):
    monkeypatch.setattr(cpu.Engine, "compile", lambda *_: None)
    refused(lambda: attempt(surface, dynamics), *names)


# --- dynamics -------------------------------------------------------------------------------------

QUARTIC = lv.Surface("x**4/4 + x**2/2", noise=lv.Isotropic(1.0))
FLAT = lv.Surface("x**2/2 + 0*y", variables=("x", "y"), noise=lv.Isotropic(1.0))


@pytest.mark.parametrize(
    "build, name",
    [
        (lambda: lv.SGD(0.1, nesterov=True), "momentum above 0"),
        (lambda: lv.SGD(0.1, momentum=[0.5, 0.0], nesterov=True), "momentum above 0"),
        (lambda: lv.SGD(0.1, momentum=0.5, nesterov=1), "nesterov"),
        (lambda: lv.SGD(0.1, drop_last=None), "drop_last"),
        (lambda: lv.SGD(0.1, weight_decay=-0.1), "weight_decay"),
        (lambda: lv.SGD(0.1, weight_decay=NAN), "weight_decay"),
        (lambda: lv.SGD(0.1, weight_decay="l2"), "weight_decay"),
        (lambda: lv.SGD(0.1, momentum=Cosine(0.5, 10)), "momentum"),
        (lambda: lv.Overdamped(0.1, [0.1, 0.2], integrator="exact"), "dt must be one number"),
        (lambda: lv.Underdamped(0.1, 1.0, 0.1, masses=0.0), "masses"),
        (lambda: lv.Underdamped(0.1, 1.0, 0.1, masses=[1.0, -1.0]), "masses"),
        (lambda: lv.Underdamped(0.1, 1.0, 0.1, masses=[1.0, NAN]), "masses"),
        (lambda: lv.Underdamped(0.1, 1.0, 0.1, masses=[[1.0]]), "masses"),
        (lambda: lv.Underdamped(0.1, 1.0, 0.1, masses=[]), "masses"),
        (lambda: lv.Underdamped(0.1, 1.0, 0.1, masses="heavy"), "masses"),
        (
            lambda: attempt(WELL, lv.Underdamped(0.1, 1.0, 0.1, masses=[1.0, 2.0, 3.0])),
            "3 masses",
        ),
        (lambda: attempt(QUARTIC, lv.Overdamped(0.1, 0.1, integrator="exact")), "quadratic"),
        (lambda: attempt(DATA, lv.Overdamped(0.1, 0.001, integrator="exact")), "quadratic"),
        (lambda: attempt(FLAT, lv.Overdamped(0.1, 0.1, integrator="exact")), "positive definite"),
        (lambda: attempt(WELL, lv.SGD(0.1, weight_decay=np.full(7, 0.1))), "weight_decay"),
        (lambda: attempt(WELL, lv.SGD(1.0, momentum=0.9, nesterov=True)), "unstable"),
        (lambda: attempt(WELL, lv.SGD(0.9, weight_decay=1.0)), "unstable"),
    ],
)
def test_dynamics(build, name):
    refused(build, name)
