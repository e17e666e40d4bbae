"""Hitting times of the discrete 1-D chain against independent solutions and limits."""

import laws
import numpy as np
import pytest
from test_predict_chain import Multiplicative

import langevin as lv
from langevin import predict
from langevin.errors import FormulaError, ParameterError, UnsoundError
from langevin.predict.region import region_test

WELL = lv.Surface("h*(x**2 - 1)**2", h=4.0, noise=lv.Isotropic(1.0))


def slope(h):
    return lambda x: 4 * h * x * (x * x - 1)


def chain(dt, h=4.0, temperature=1.0):
    return predict.chain(WELL.replace(h=h), lv.Overdamped(temperature, dt))


@pytest.mark.parametrize("dt", [0.02, 0.01, 0.005])
def test_hitting_time_against_a_dense_solution(dt):
    exact = laws.hitting_time(slope(4.0), 1.0, dt, -1.0, 1.0, -2.6, n=700) * dt
    c = chain(dt)
    assert c.hitting_time("x > 1", [-1.0]) == pytest.approx(exact, rel=1e-8)
    assert c.hitting_time("x < -1", [1.0]) == pytest.approx(exact, rel=1e-8)  # its mirror image
    assert c.hitting_time("not (x <= h/4)", [-1.0]) == pytest.approx(exact, rel=1e-8)
    hotter = chain(dt, temperature=np.sqrt(2)).hitting_time("x > 1", [-1.0])  # negative twins
    assert abs(hotter / exact - 1) > 0.3
    assert abs(c.hitting_time("x > 0", [-1.0]) / exact - 1) > 0.3
    steps = predict.chain(WELL, lv.SGD(dt, dt / 2)).hitting_time("x > 1", [-1.0])
    assert steps * dt == pytest.approx(exact, rel=1e-8)  # SGD counts steps


@pytest.mark.parametrize("h", [15.0, 30.0])
def test_hitting_time_behind_high_barriers(h):
    """The chain's own law of large barriers: relaxation and hitting of a symmetric well.

    From one well the other's minimum is hit in 1/(2 k) + 1/(2 k) = 2 relaxation times, to O(e^-h).
    """
    c = chain(0.1 / (8 * h), h=h)
    time = c.hitting_time("x > 1", [-1.0])
    assert time > 1e3
    assert time == pytest.approx(2 * c.relaxation_time, rel=2e-3)
    assert time == pytest.approx(c.hitting_time("x < -1", [1.0]), rel=1e-9)


def test_the_shift_of_a_barrier_watched_at_steps():
    """T(dt) = T(0) + T'(b) .5826 sqrt(2 T dt) + O(dt), the middle term fitted."""
    dts = np.array([1, 2, 3, 4, 6, 8]) * 2e-4
    times = [chain(dt).hitting_time("x > 0", [-1.0]) for dt in dts]
    exact, beyond = (
        predict.escape(WELL, lv.Overdamped(1.0, 1e-3), [-1.0], [b]).exact for b in (0.0, 1e-4)
    )
    fit = np.polynomial.polynomial.polyfit(np.sqrt(dts), times, 4)
    assert fit[0] == pytest.approx(exact, rel=1e-4)
    shift = fit[1] / ((beyond - exact) / 1e-4) / np.sqrt(2)
    assert shift == pytest.approx(0.5826, rel=0.01)


def test_distribution_of_the_passage():
    c = chain(0.01)
    steps = np.array([0, 1, 5, 30, 200])
    found = c.hitting_probability("x > -0.5", steps, [-1.0])
    assert found[0] == 0 and (np.diff(found) > 0).all()
    x = np.linspace(-3, -0.5, 1501)  # by hand: midpoint rule
    nodes, h = (x[1:] + x[:-1]) / 2, x[1] - x[0]
    z = (nodes[:, None] - (nodes - 0.01 * slope(4.0)(nodes))) / np.sqrt(0.02)
    kernel = np.exp(-(z**2) / 2) * h / np.sqrt(2 * np.pi * 0.02)
    p = np.exp(-((nodes + 1) ** 2) / 0.04) * h / np.sqrt(2 * np.pi * 0.02)
    for t in range(1, 201):
        if t in steps:
            assert found[steps == t][0] == pytest.approx(1 - p.sum(), abs=1e-5)
        p = kernel @ p
    every = np.arange(8_000)
    mean = (1 - c.hitting_probability("x > -0.5", every, [-1.0])).sum() * 0.01
    assert mean == pytest.approx(c.hitting_time("x > -0.5", [-1.0]), rel=1e-9)
    assert c.hitting_probability("x > -0.5", 30, [-1.0]) == pytest.approx(found[3], rel=1e-12)


def test_regions_of_several_parts():
    c = chain(0.01)
    both = c.hitting_time("x > 1.5 or x < -1.5", [1.0])
    assert both < c.hitting_time("x > 1.5", [1.0]) < c.hitting_time("x < -1.5", [1.0])
    assert both == pytest.approx(c.hitting_time("x > 1.5 or x < -1.5", [-1.0]), rel=1e-9)
    # A slit narrower than a step is jumped over: longer than to the half-line behind it.
    slit = c.hitting_time("0 < x < 0.02", [-1.0])
    assert slit > 1.5 * c.hitting_time("x > 0", [-1.0])
    # From inside, step 1 is the first that counts.
    inside = c.hitting_time("x > -1.5", [-1.0])
    assert inside == pytest.approx(0.01, rel=0.1) and inside > 0.01
    assert c.hitting_time("x > -100", [-1.0]) == pytest.approx(0.01)
    # The starts share equally, and None is the minima.
    halves = [c.hitting_time("x > 0.5", [s]) for s in (-1.0, 1.0)]
    assert c.hitting_time("x > 0.5") == pytest.approx(np.mean(halves))
    assert c.hitting_time("x > 0.5", [[-1.0], [1.0]]) == pytest.approx(np.mean(halves))


def test_noise_that_depends_on_the_position():
    eta, c0, c1 = 0.4, 0.5, 0.4
    surface = Multiplicative(1.0, c0, c1)
    surface.variables, surface.parameters = ("x",), {}
    found = predict.chain(surface, lv.SGD(eta, 1.0)).hitting_time("x > 1 or x < -1", [0.2])
    nodes, weights = np.polynomial.legendre.leggauss(200)
    spread = eta * np.sqrt(c0 + c1 * nodes**2)

    def density(x, s):
        z = (nodes - (1 - eta) * x) / s
        return np.exp(-(z**2) / 2) / (s * np.sqrt(2 * np.pi)) * weights

    kernel = np.array([density(x, s) for x, s in zip(nodes, spread, strict=True)])
    h = np.linalg.solve(np.eye(200) - kernel, np.ones(200))
    exact = 1 + density(0.2, eta * np.sqrt(c0 + c1 * 0.04)) @ h
    assert found == pytest.approx(exact, rel=1e-9)


def test_a_region_beyond_the_grid_of_the_chain():
    surface = lv.Surface("h*x**2/2", h=1.0)
    c = predict.chain(surface, lv.Overdamped(0.1, 0.1))
    assert c.high < 3.2
    times = [c.hitting_time(f"x > {b}", [0.0]) for b in (1.0, 3.0, 3.4)]
    assert times[0] < 1e-10 * times[1] and times[1] < times[2] < np.inf
    assert c.hitting_time("x < -3.4", [0.0]) == pytest.approx(times[2], rel=1e-6)


def test_a_kink_is_an_edge_of_a_panel():
    surface = lv.Surface("abs(x) + x**2/10")
    times = [
        predict.chain(surface, lv.Overdamped(0.5, dt)).hitting_time("x > 2", [0.0])
        for dt in (0.02, 0.005)
    ]
    exact = laws.mean_first_passage(lambda x: abs(x) + x * x / 10, 0.5, 0.0, 2.0, -12.0)
    errors = [t - exact for t in times]
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.1)  # sqrt(dt)


def test_refusals():
    c = chain(0.01)
    for text in ("x > y", "x", "x == 1", "import os", ""):
        with pytest.raises(FormulaError):
            c.hitting_time(text)
    with pytest.raises(UnsoundError, match="holds nowhere"):
        c.hitting_time("x > 100")
    with pytest.raises(ParameterError):
        c.hitting_time("x > 1", [0.0, 1.0])
    with pytest.raises(ParameterError, match="whole"):
        c.hitting_probability("x > 1", 1.5)
    with pytest.raises(ParameterError, match="operations"):
        c.hitting_probability("x > 1", 10**10)
    fast = predict.chain(lv.Surface("x**4/4 - 0.4*x**3/3 - x**2/2"), lv.Overdamped(0.12, 0.4))
    with pytest.raises(UnsoundError, match="escapes to infinity"):
        fast.hitting_time("-2.35 < x < -2.3", [1.0])
    # Into what lies on the way to infinity most arrive first, in less than the chain's lifetime.
    assert fast.hitting_time("x > 2.3", [1.0]) < 0.4 * fast.lifetime / 10


def test_the_region_test_is_a_function_of_coordinates():
    plane = lv.Surface("(x**2 - 1)**2 + b*y**2/2", b=1.5)
    inside = region_test(plane, "not (x > 1 or 0 < y <= b) and x < y")
    points = np.random.default_rng(3).uniform(-2, 2, (4, 50, 2))
    x, y = np.moveaxis(points, -1, 0)
    expected = ~((x > 1) | ((y > 0) & (y <= 1.5))) & (x < y)
    assert (inside(x, y) == expected).all() and 0 < expected.mean() < 1
