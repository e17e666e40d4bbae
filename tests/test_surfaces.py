"""Surfaces: derivatives, stationary points, bounds, basins, catalogue, against known facts."""

import math
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad, solve_ivp

from langevin import Occupation, Overdamped, simulate
from langevin.errors import ParameterError, UnsoundError
from langevin.surfaces import catalogue
from langevin.surfaces.expression import Surface
from langevin.surfaces.noise import Isotropic

RASTRIGIN_1D = "x**2 + 10*(1 - cos(2*pi*x))"


def positions(points):
    return np.array([p.position for p in points])


# --- values -------------------------------------------------------------------------------------

numbers = st.floats(-3, 3, allow_nan=False).map(lambda v: f"({v:.3g})")


SMOOTH = ["sin", "cos", "tanh", "atan", "sigmoid", "softplus"]


def formulas():
    """Random smooth, bounded-ish formulas of x, y, z and a."""
    return st.recursive(
        st.one_of(st.sampled_from(["x", "y", "z", "a"]), numbers),
        lambda inner: st.one_of(
            st.tuples(inner, st.sampled_from("+-*"), inner).map(
                lambda t: f"({t[0]} {t[1]} {t[2]})"
            ),
            inner.map(lambda u: f"({u})**2"),
            inner.map(lambda u: f"({u})**3"),
            st.tuples(
                st.sampled_from(["sin", "cos", "tanh", "atan", "sigmoid", "softplus"]), inner
            ).map(lambda t: f"{t[0]}({t[1]})"),
            inner.map(lambda u: f"exp(-({u})**2)"),
            inner.map(lambda u: f"(1.5 + ({u})**2)**-0.75"),
            inner.map(lambda u: f"log(2 + ({u})**2)"),
        ),
        max_leaves=6,
    )


@settings(max_examples=60, deadline=None)
@given(formulas(), st.tuples(*[st.floats(-1, 1)] * 3))
def test_derivatives_equal_finite_differences(text, point):
    surface = Surface(f"{text} + 0*(x + y + z + a)", variables=("x", "y", "z"), a=0.6)
    x = np.array(point)

    def central(function, h):
        steps = h * np.eye(3)
        return np.stack([(function(x + s) - function(x - s)) / (2 * h) for s in steps], axis=-1)

    def richardson(function):
        return (4 * central(function, 5e-4) - central(function, 1e-3)) / 3

    for function, derivative in (
        (surface.energy, surface.gradient),
        (surface.gradient, surface.hessian),
    ):
        exact = derivative(x)
        size = 1 + np.abs(exact).max() + np.abs(function(x)).max()
        # Where the formula bends faster than the step resolves, the difference is no reference.
        error = np.abs(richardson(function) - central(function, 1e-3)).max()
        assert np.abs(richardson(function) - exact).max() <= 1e-8 * size + error


@pytest.mark.parametrize("shape", [(), (1,), (5,), (2, 3), (0,)])
@pytest.mark.parametrize("formula", ["3*x + y", "x**2*y", "sin(x)*y**3"])
def test_shapes_follow_the_points(formula, shape):
    surface = Surface(formula, noise=Isotropic(2.0))
    points = np.random.default_rng(0).normal(size=(*shape, 2))
    assert surface.energy(points).shape == shape
    assert surface.gradient(points).shape == (*shape, 2)
    assert surface.hessian(points).shape == (*shape, 2, 2)
    assert surface.noise_covariance(points).shape == (*shape, 2, 2)
    assert (surface.noise_covariance(points) == 4 * np.eye(2)).all()


def test_wrong_shapes_say_what_is_needed():
    surface = Surface("x**2")
    for points in (1.0, [1.0, 2.0], np.ones((3, 2))):
        with pytest.raises(ParameterError, match=r"x\[:, None\]"):
            surface.energy(points)
    with pytest.raises(ParameterError, match="numbers"):
        surface.gradient("here")
    with pytest.raises(UnsoundError, match="Isotropic"):
        surface.noise_covariance([[1.0]])


def test_undefined_energies_are_nan_without_a_warning():
    with np.errstate(all="raise"):
        assert np.isnan(Surface("log(x)").energy([-1.0]))
        assert Surface("a/x", a=1).energy([0.0]) == math.inf


def test_quadratic_surfaces_are_recognised():
    assert Surface("(x - 2*y)**2 + a*x", a=1).hessian_is_constant
    assert Surface("(x + y)*(x - y) + y*(y + 3)").hessian_is_constant
    assert not Surface("x**2 + 1e-9*x**3").hessian_is_constant
    assert not Surface("x**2 + abs(x)").hessian_is_constant


def test_building_is_fast_and_imports_are_lazy():
    started = time.perf_counter()
    Surface("x**4/4 - b*x**3/3 - x**2/2 + 0.01*exp(-x**2)", b=0.4).gradient([[0.1]])
    assert time.perf_counter() - started < 0.5  # typically 0.03
    package = Path(catalogue.__file__).parents[1]
    code = (
        "import sys, types; root = types.ModuleType('langevin');"
        f"root.__path__ = [{str(package)!r}]; sys.modules['langevin'] = root;"
        "import langevin.surfaces.expression;"
        "assert not {'scipy', 'matplotlib', 'numba'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --- minima and saddles -------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(st.floats(-3, 3))
def test_double_well_in_closed_form(a):
    surface = catalogue.double_well(a)
    root = math.sqrt(a * a + 4)
    assert positions(surface.minima())[:, 0] == pytest.approx([(a - root) / 2, (a + root) / 2])
    assert positions(surface.saddles()) == pytest.approx(np.zeros((1, 1)))
    assert surface.basins().thresholds == pytest.approx([0.0])
    for m in surface.minima():
        assert m.hessian == pytest.approx(surface.hessian(m.position))
        assert m.energy == pytest.approx(surface.energy(m.position))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(-40, 40), min_size=1, max_size=7, unique=True))
def test_polynomials_with_given_stationary_points(roots):
    roots = sorted(r / 8 for r in roots)
    slope = np.poly1d(roots, r=True)
    coefficients = slope.integ().coeffs
    n = len(coefficients) - 1
    formula = " + ".join(f"({c!r})*x**{n - k}" for k, c in enumerate(map(float, coefficients[:-1])))
    surface = Surface(formula)
    # the slope rises through every root whose number from the right is even
    expected = roots[::-1][::2][::-1]
    assert positions(surface.minima())[:, 0] == pytest.approx(expected, abs=1e-7)
    saddles = positions(surface.saddles()).ravel()
    assert saddles == pytest.approx(roots[::-1][1::2][::-1], abs=1e-7)


def test_multiple_roots_are_told_apart():
    assert len(Surface("x**4").minima()) == 1
    assert len(Surface("x**3*(x - 1)").minima()) == 1, "x = 0 is an inflection"
    assert len(Surface("x**3*(x - 1)").saddles()) == 0
    assert positions(Surface("x**2*(x - 1)**2").minima()).ravel() == pytest.approx([0, 1])


def test_formulas_that_are_no_polynomial_are_scanned():
    found = positions(Surface(RASTRIGIN_1D).minima(within=(-5.12, 5.12))).ravel()
    assert len(found) == 11
    assert Surface(RASTRIGIN_1D).gradient(found[:, None]) == pytest.approx(
        np.zeros((11, 1)), abs=1e-9
    )
    far = Surface("x**2/1000 - exp(-(x - 30)**2) - exp(-(x + 30)**2)")
    assert len(far.minima()) == 3
    assert positions(Surface("x - log(x)").minima()).ravel() == pytest.approx([1.0])
    assert positions(Surface("abs(x - 1) + x**2/8").minima()).ravel() == pytest.approx([1.0])
    assert positions(Surface("cosh(x - 2)").minima()).ravel() == pytest.approx([2.0])


def test_poles_are_barriers_and_no_stationary_points():
    surface = Surface("4*(x**-12 - x**-6) + x**2/10")
    assert len(surface.minima()) == 2
    assert surface.saddles() == ()
    assert surface.basins().thresholds == pytest.approx([0.0], abs=1e-6)
    with pytest.raises(UnsoundError):
        Surface("log(abs(x))").minima()


def test_within_restricts_the_search():
    surface = catalogue.double_well(0.0)
    assert positions(surface.minima(within=(0, 5))).ravel() == pytest.approx([1.0])
    with pytest.raises(UnsoundError, match=r"\[2, 5\]"):
        surface.minima(within=(2, 5))
    for within in ((1, 0), (0, math.inf), 3, (0, 1, 2), ([0, 0], [1, 1]), ("a", 1)):
        with pytest.raises(ParameterError, match="within"):
            surface.minima(within=within)


@pytest.mark.parametrize(
    "formula", ["x", "-x**2", "x**3", "exp(x)", "x*y", "x + y", "-x**2 + y**2"]
)
def test_without_a_minimum_it_says_so(formula):
    with pytest.raises(UnsoundError, match="no minimum"):
        Surface(formula).minima()


@pytest.mark.parametrize(
    "formula",
    ["0*x", "abs(x - 1) + abs(x + 1)", "(x**2 + y**2 - 1)**2", "x**2*y**2", "(x - 2*y)**2"],
)
def test_flat_minima_are_refused(formula):
    started = time.perf_counter()
    with pytest.raises(UnsoundError, match="not isolated"):
        Surface(formula).minima()
    assert time.perf_counter() - started < 10


def test_periodic_surfaces_are_searched_in_the_default_box():
    found = positions(Surface("sin(x)").minima()).ravel()
    assert found == pytest.approx(np.array([-2.5, -0.5, 1.5]) * np.pi)


def test_a_quadratic_is_solved_exactly_in_any_dimension():
    rng = np.random.default_rng(3)
    root = rng.normal(size=(9, 9))
    h = root @ root.T + np.eye(9)
    surface = catalogue.quadratic(h)
    assert surface.hessian_is_constant
    assert surface.hessian(np.ones(9)) == pytest.approx(h)
    (minimum,) = surface.minima()
    assert minimum.position == pytest.approx(np.zeros(9))
    low, high = surface.bounds(0.5, depth=20)
    half = np.sqrt(2 * 20 * 0.5 * np.diag(np.linalg.inv(h)))
    assert high == pytest.approx(half, rel=1e-5)
    assert low == pytest.approx(-half, rel=1e-5)
    assert len(Surface("x*y - x").saddles()) == 1
    assert positions(Surface("x*y - x").saddles()) == pytest.approx(np.array([[0.0, 1.0]]))


def test_rosenbrock():
    (minimum,) = Surface("(1 - x)**2 + 100*(y - x**2)**2").minima()
    assert minimum.position == pytest.approx([1, 1])


def test_degenerate_minima_are_one():
    (minimum,) = Surface("x**4 + y**4").minima()
    assert minimum.position == pytest.approx([0, 0], abs=1e-3)


# --- the catalogue ------------------------------------------------------------------------------

positive = st.floats(-3, 3).map(math.exp)


@settings(max_examples=40, deadline=None)
@given(
    wide=positive,
    ratio=st.floats(1.1, 50),
    barrier=st.floats(-5, 2).map(math.exp),
    relative=st.floats(0.05, 4),
)
def test_wide_and_sharp_is_exact(wide, ratio, barrier, relative):
    difference = relative * barrier
    surface = catalogue.wide_and_sharp(
        energy_difference=difference,
        wide_curvature=wide,
        sharp_curvature=wide * ratio,
        barrier=barrier,
    )
    a, b = surface.minima()
    (top,) = surface.saddles()
    assert a.position < top.position < b.position
    assert a.energy - b.energy == pytest.approx(difference, rel=1e-9)
    assert top.energy - a.energy == pytest.approx(barrier, rel=1e-9)
    assert a.hessian == pytest.approx(np.array([[wide]]), rel=1e-9)
    assert b.hessian == pytest.approx(np.array([[wide * ratio]]), rel=1e-9)
    low, high = surface.bounds(barrier / 3)
    grid = np.linspace(low[0], high[0], 4001)[:, None]
    assert (np.diff(np.sign(surface.gradient(grid)[:, 0])) != 0).sum() <= 5


def test_wide_and_sharp_defaults_make_a_good_demonstration():
    surface = catalogue.wide_and_sharp()
    a, b = surface.minima()
    difference = a.energy - b.energy
    ratio = b.hessian[0, 0] / a.hessian[0, 0]
    critical = 2 * difference / (surface.noise.sigma**2 * math.log(math.sqrt(ratio)))
    temperature = critical / 2
    assert ratio == pytest.approx(9)
    assert critical == pytest.approx(0.01, rel=0.01)
    (top,) = surface.saddles()
    assert 2 <= (top.energy - a.energy) / temperature <= 3
    weight = [
        quad(lambda x: math.exp(-surface.energy([x]) / temperature), *ends, epsabs=1e-12)[0]
        for ends in ((-0.6, 0.0), (0.0, 0.4))
    ]
    assert 0.5 < weight[0] / weight[1] < 2
    # Noise-free steps lead back from anywhere that a run can reach, also at a large learning rate.
    low, high = surface.bounds(2 * temperature, depth=30)
    x = np.linspace(low, high, 20_001)
    after = x - 0.1 * surface.gradient(x)
    assert (surface.energy(after) <= surface.energy(x) + 1e-15).all()


def test_wide_and_sharp_shares_one_source():
    one, two = catalogue.wide_and_sharp(), catalogue.wide_and_sharp(sharp_curvature=7.0)
    assert one.gradient_source() == two.gradient_source()
    wells = catalogue.wide_and_sharp(separation=0.42)
    a, b = wells.minima()
    assert b.position - a.position == pytest.approx([0.42])
    assert len(catalogue.wide_and_sharp(energy_difference=0.0).minima()) == 2


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"wide_curvature": 9.0}, "smaller curvature"),
        ({"barrier": 0.0}, "above 0"),
        ({"barrier": -1.0}, "above 0"),
        ({"energy_difference": -0.1}, "0 or more"),
        ({"sharp_curvature": math.nan}, "finite"),
        ({"separation": 3.0}, "separation near"),
        ({"separation": 0.05}, "separation near"),
        ({"barrier": "high"}, "finite"),
    ],
)
def test_wide_and_sharp_refuses_what_cannot_be(options, says):
    with pytest.raises(ParameterError, match=says):
        catalogue.wide_and_sharp(**options)


@pytest.mark.parametrize("scale", [1.0, 0.05])
def test_mueller_brown_as_published(scale):
    surface = catalogue.mueller_brown(scale)
    started = time.perf_counter()
    minima = surface.minima()
    assert time.perf_counter() - started < 3  # typically 0.1; the machine may be busy
    published = np.array([[-0.558, 1.442], [-0.050, 0.467], [0.623, 0.028]])
    assert np.abs(positions(minima) - published).max() < 1e-3
    energies = scale * np.array([-146.700, -80.768, -108.167])
    assert [m.energy for m in minima] == pytest.approx(energies, rel=1e-4)
    saddles = surface.saddles()
    assert np.abs(positions(saddles) - [[-0.822, 0.624], [0.212, 0.293]]).max() < 1e-3
    energies = scale * np.array([-40.665, -72.249])
    assert [s.energy for s in saddles] == pytest.approx(energies, rel=1e-4)


def test_rastrigin_and_styblinski_tang():
    egg_box = catalogue.rastrigin(2)
    minima = egg_box.minima()
    assert len(minima) == 121
    assert len(egg_box.saddles()) == 2 * 11 * 10
    assert min(m.energy for m in minima) == pytest.approx(0, abs=1e-12)
    order = positions(minima).round(6)
    assert (np.lexsort(order.T[::-1]) == np.arange(121)).all()
    assert len(catalogue.rastrigin(1).minima()) == 11
    for dim in (1, 2, 3, 4):
        minima = catalogue.styblinski_tang(dim).minima()
        assert len(minima) == 2**dim
        assert minima[0].position == pytest.approx(np.full(dim, -2.903534), abs=1e-6)
        assert minima[0].energy == pytest.approx(-39.16616570 * dim)


def test_three_well():
    surface = catalogue.three_well()
    left, middle, right = surface.minima()
    assert left.position == pytest.approx([-1.048, -0.042], abs=1e-3)
    assert middle.position == pytest.approx([0, 1.537], abs=1e-3)
    assert left.energy == pytest.approx(right.energy)
    assert middle.energy > left.energy
    assert len(surface.saddles()) == 3


@pytest.mark.parametrize(
    ("matrix", "says"),
    [
        ([[1, 2], [0, 1]], "symmetric"),
        ([[1, 2], [2, 1]], "positive"),
        ([[1, 0], [0, 0]], "positive"),
        (-1.0, "positive"),
        ([1.0, 2.0], "numpy.diag"),
        (np.ones((2, 3)), "square"),
        ([[math.nan]], "finite"),
        ("H", "matrix"),
    ],
)
def test_quadratic_refuses_what_is_no_well(matrix, says):
    with pytest.raises(ParameterError, match=says):
        catalogue.quadratic(matrix)


def test_catalogue_defaults():
    for make in (
        catalogue.double_well,
        catalogue.wide_and_sharp,
        lambda **k: catalogue.quadratic(2.0, **k),
        catalogue.mueller_brown,
        catalogue.rastrigin,
        catalogue.styblinski_tang,
        catalogue.three_well,
    ):
        assert make().noise == Isotropic(1.0)
        assert make(noise=Isotropic(0.5)).noise == Isotropic(0.5)
        assert make(noise=None).noise is None
    for bad in (0, -1, 1.5, True, "2"):
        with pytest.raises(ParameterError, match="dim"):
            catalogue.styblinski_tang(bad)
    with pytest.raises(ParameterError, match="scale"):
        catalogue.mueller_brown(0.0)


# --- bounds -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("formula", "low", "high"),
    [
        ("x**2/2", [-math.sqrt(6)], [math.sqrt(6)]),
        ("x**4", [-(3**0.25)], [3**0.25]),
        ("abs(x)", [-3], [3]),
        ("(x - 5)**2", [5 - math.sqrt(3)], [5 + math.sqrt(3)]),
        ("x**2 + 4*y**2", [-math.sqrt(3), -math.sqrt(3) / 2], [math.sqrt(3), math.sqrt(3) / 2]),
        ("(1 - x)**2 + 100*(y - x**2)**2", [1 - math.sqrt(3), None], [1 + math.sqrt(3), None]),
        ("(x**2 - 1)**2 + y**2", [-math.sqrt(1 + math.sqrt(3)), None], [None, math.sqrt(3)]),
    ],
)
def test_bounds_hold_the_sublevel_set(formula, low, high):
    found = Surface(formula).bounds(0.1)
    for value, expected in zip(np.concatenate(found), low + high, strict=True):
        assert expected is None or value == pytest.approx(expected, rel=1e-6)


def test_bounds_of_a_wall_and_of_far_minima():
    low, high = Surface("x - log(x)").bounds(0.1)
    assert low[0] > 0
    assert Surface("x - log(x)").energy([[low[0]], [high[0]]]) == pytest.approx([4.0, 4.0])
    low, high = Surface("x**2/1000 - exp(-(x - 30)**2) - exp(-(x + 30)**2)").bounds(0.1)
    assert low[0] < -50
    assert high[0] > 50


@settings(max_examples=20, deadline=None)
@given(st.floats(-1.5, 1.5), st.floats(0.01, 1.0))
def test_bounds_leave_out_a_negligible_mass(a, temperature):
    surface = catalogue.double_well(a)
    (low,), (high,) = surface.bounds(temperature)
    lowest = min(m.energy for m in surface.minima())
    assert surface.energy([[low], [high]]) - lowest == pytest.approx([30 * temperature] * 2)
    outside = np.concatenate([np.linspace(low - 5, low - 1e-9), np.linspace(high + 1e-9, high + 5)])
    assert (surface.energy(outside[:, None]) - lowest > 30 * temperature * (1 - 1e-9)).all()


@pytest.mark.parametrize(
    "formula",
    [
        "x",
        "-x**2",
        "x**3",
        "x**4 - x**5",
        "sin(x)",
        "exp(x)",
        "-exp(-x**2)",
        "tanh(x)**2",
        "softplus(x)",
        "softplus(x) - softplus(-x)",
        "sigmoid(x)**2",
        "0.01*log(1 + x**2)",
        "x*y",
        "x**2*y**2",
        "(x - 2*y)**2",
        "sin(x)*sin(y)",
        "x**2 + y**3",
        "x**2 - exp(-y**2)",
        "(x*y - 1)**2",
    ],
)
def test_surfaces_that_do_not_confine_are_refused(formula):
    with pytest.raises(UnsoundError, match=r"confine|no minimum|not isolated"):
        Surface(formula).bounds(0.1)


def test_softplus_confines_as_its_two_slopes_do():
    """A well of slope 1 on both sides, exp(-U/T) integrable at any T that sampling can tell."""
    surface = Surface("softplus(x) + softplus(-x)")
    (minimum,) = surface.minima()
    assert minimum.position == pytest.approx([0], abs=1e-12)
    assert minimum.energy == pytest.approx(2 * np.log(2))
    assert minimum.hessian == pytest.approx(0.5)
    assert surface.saddles() == ()
    (low,), (high,) = surface.bounds(0.1)
    assert surface.energy([[low], [high]]) - minimum.energy == pytest.approx([3.0] * 2)
    plane = Surface("softplus(5*x - 5) + softplus(-5*x - 5) - sigmoid(9*x - y)/3 + y**2")
    assert len(plane.minima()) == 1 and (plane.bounds(0.1)[0] < plane.bounds(0.1)[1]).all()


@pytest.mark.parametrize("function", ["exp(a)", "sqrt(a)", "abs(a)", "sigmoid(a)", "softplus(a)"])
def test_functions_of_parameters_are_numbers(function):
    """In a coefficient and in an exponent."""
    (minimum,) = Surface(f"{function}*(x - 1)**2", a=1.5).minima()
    assert minimum.position == pytest.approx([1.0])
    surface = Surface(f"(1 + x**2)**{function}", a=1.5)
    value = Surface(f"{function} + 0*x", variables=("x",), a=1.5).energy([0.0])
    assert surface.energy([0.7]) == pytest.approx(1.49**value)


def test_slow_confinement_depends_on_the_temperature():
    surface = Surface("log(1 + x**2)")  # exp(-U/T) = (1 + x**2)**(-1/T): integrable for T < 2
    assert surface.bounds(1.0)[1][0] > 1e3
    with pytest.raises(UnsoundError, match="Lower the temperature below 2"):
        surface.bounds(2.5)


@pytest.mark.parametrize(
    "formula", ["cosh(x)", "sqrt(1 + x**2)", "x**2 + cos(20*x)", "x**4 + y**4"]
)
def test_confining_surfaces_are_accepted(formula):
    low, high = Surface(formula).bounds(0.1)
    assert (low < high).all()


@pytest.mark.parametrize("temperature", [0, -1, math.nan, math.inf, [1, 2]])
def test_bounds_need_a_temperature(temperature):
    with pytest.raises(ParameterError, match="temperature"):
        catalogue.double_well().bounds(temperature)


# --- basins -------------------------------------------------------------------------------------


def flowed(surface, point):
    """The minimum reached by integrating dx/dt = -grad U."""
    stiffness = max(np.abs(m.hessian).max() for m in surface.minima())
    softness = min(np.linalg.eigvalsh(m.hessian).min() for m in surface.minima())
    end = solve_ivp(
        lambda _, x: -surface.gradient(x),
        (0, 60 / softness),
        point,
        method="LSODA",
        rtol=1e-9,
        atol=1e-12,
        first_step=1e-4 / stiffness,
    ).y[:, -1]
    return int(np.linalg.norm(positions(surface.minima()) - end, axis=1).argmin())


def test_basins_in_one_dimension_follow_the_flow():
    surface = catalogue.rastrigin(1)
    basins = surface.basins()
    assert basins.n == 11
    assert basins.thresholds.shape == (10,)
    points = np.random.default_rng(1).uniform(-5, 5, (30, 1))
    assert basins.label(points).tolist() == [flowed(surface, p) for p in points]
    assert basins.label(np.array([[math.nan], [-1e9], [1e9]])).tolist() == [-1, 0, 10]
    double = catalogue.double_well(0.0).basins()
    assert double.label(np.array([[-1e-9], [double.thresholds[0]], [1e-9]])).tolist() == [0, 1, 1]
    assert catalogue.quadratic(1.0).basins().thresholds.shape == (0,)


@pytest.mark.parametrize(
    "make",
    [
        catalogue.mueller_brown,
        catalogue.three_well,
        lambda: Surface("(x**2 - 1)**2 + (y - x**2/2)**2 + 0.3*x + 0.2*x*y"),
        lambda: catalogue.rastrigin(2, amplitude=6.0),
    ],
    ids=["mueller_brown", "three_well", "banana", "rastrigin"],
)
def test_basins_in_two_dimensions_follow_the_flow(make):
    surface = make()
    started = time.perf_counter()
    surface.minima(), surface.saddles()
    basins = surface.basins()
    assert time.perf_counter() - started < 10  # typically under 1
    assert basins.labels.dtype == np.int16
    assert basins.labels.shape == (512, 512)
    assert (basins.labels >= 0).all()
    for index, minimum in enumerate(surface.minima()):
        assert basins.label(minimum.position) == index
    rng = np.random.default_rng(2)
    points = rng.uniform(basins.low, basins.high, (80, 2))
    labels = basins.label(points)
    cell = (basins.high - basins.low) / 512
    wrong = [p for p, k in zip(points, labels, strict=True) if flowed(surface, p) != k]
    for point in wrong:  # only where a boundary passes within a cell or two
        around = point + cell * 2 * np.array([[0, 1], [1, 0], [0, -1], [-1, 0], [1, 1], [-1, -1]])
        assert len(set(basins.label(around).tolist())) > 1
    assert len(wrong) <= 4


def test_a_separatrix_known_in_closed_form():
    basins = Surface("(x**2 - 1)**2 + y**2").basins()
    n = basins.labels.shape[0] // 2
    assert (basins.labels[:n] == 0).all()
    assert (basins.labels[n:] == 1).all()
    far = np.array([[-50.0, 70.0], [50.0, -70.0], [math.nan, 0.0], [0.1, 0.0]])
    assert basins.label(far).tolist() == [0, 1, -1, 1]


def test_basins_above_two_dimensions_are_quenched():
    surface = catalogue.styblinski_tang(3)
    basins = surface.basins()
    points = np.random.default_rng(4).uniform(-4, 4, (2, 100, 3))
    wells = positions(surface.minima())
    top = 0.15673125  # the maximum of the one-dimensional factor
    assert ((wells[basins.label(points)] > top) == (points > top)).all()
    lost = Surface("x**2 + y**2 + z**2 - 3*exp(-(x - 3)**2) + (z**2 - 1)**2").basins()
    assert set(lost.label(np.array([[0, 0, 0.9], [0, 0, -0.9], [math.nan, 0, 0]])).tolist()) >= {-1}


def test_a_pole_between_two_minima_is_their_threshold():
    surface = Surface("1/(x - c)**2 + x**2", c=0.1234567)
    assert len(surface.minima()) == 2
    assert surface.basins().thresholds == pytest.approx([0.1234567], abs=1e-9)


def test_simulations_divide_a_cell_as_labels_do():
    """Replicas within the cells that an oblique border crosses, counted after one tiny step."""
    surface = Surface("(x**2 - 1)**2 + 2*(y - x/2)**2 + 0.3*x*y + 0.15*x")
    basins = surface.basins()
    crossed = np.argwhere(basins.table < -1)[::3]
    size = (basins.high - basins.low) / basins.labels.shape
    spots = np.random.default_rng(5).random((8, *crossed.shape))
    start = (basins.low + (crossed + spots) * size).reshape(-1, 2)
    run = simulate(
        surface, Overdamped(1e-12, 1e-9), n_replicas=len(start), n_steps=1, seed=1, start=start,
        observe=Occupation(), progress=False,
    )  # fmt: skip
    counts = run.occupation(allow_unequilibrated=True)._by_class.sum(axis=0)
    expected = np.bincount(basins.label(run.positions), minlength=2)
    assert counts[:2].tolist() == expected.tolist() and expected.min() > len(start) / 5
