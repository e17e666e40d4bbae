"""Boltzmann-Gibbs, Laplace and the critical noise; what every prediction refuses."""

from itertools import pairwise

import laws
import numpy as np
import pytest
from cases import form, integral, parabola, regression, tilted
from scipy.optimize import brentq

from langevin import predict
from langevin.dynamics import SGD, Overdamped
from langevin.errors import LangevinError, ParameterError, UnsoundError
from langevin.surfaces.expression import Surface
from langevin.surfaces.noise import Isotropic

# --- Boltzmann-Gibbs ------------------------------------------------------------------------------


def test_gibbs_1d_against_adaptive_integration():
    surface, T = tilted(), 0.12

    def weight(x):
        return np.exp(-(x**4 / 4 - 0.4 * x**3 / 3 - x**2 / 2) / T)

    left, right = integral(weight, -6, 0), integral(weight, 0, 6)
    gibbs = predict.boltzmann_gibbs(surface, temperature=T)
    assert gibbs.ratio(0, 1) == pytest.approx(left / right, rel=1e-12)
    assert gibbs.occupation() == pytest.approx([left / (left + right), right / (left + right)])
    assert gibbs.ratio(0, 1) == pytest.approx(0.118931, abs=5e-7)
    edges = np.array([-np.inf, -1.1, -0.3, 0.2, 0.9, 2.0, np.inf])
    exact = [integral(weight, max(a, -6), min(b, 6)) for a, b in pairwise(edges)]
    assert gibbs.bin_probabilities(edges) == pytest.approx(
        np.array(exact) / (left + right), rel=1e-11
    )
    assert gibbs.cdf(edges) == pytest.approx(np.cumsum([0, *exact]) / (left + right), rel=1e-11)
    points = np.linspace(-2, 2, 7)[:, None]
    assert gibbs.density(points) == pytest.approx(weight(points[:, 0]) / (left + right), rel=1e-11)
    mean = integral(lambda x: x * weight(x), -6, 6) / (left + right)
    square = integral(lambda x: x * x * weight(x), -6, 6) / (left + right)
    m, c = gibbs.moments()
    assert m == pytest.approx([mean], rel=1e-11) and c[0, 0] == pytest.approx(square - mean**2)


def test_gibbs_1d_against_high_precision():
    mpmath = pytest.importorskip("mpmath")
    surface, T = tilted(), 0.01

    def weight(x):
        x = mpmath.mpf(x)
        return mpmath.exp(-(x**4 / 4 - mpmath.mpf("0.4") * x**3 / 3 - x**2 / 2) / T)

    with mpmath.workdps(30):
        left = mpmath.quad(weight, [-3, -1.2, -1, -0.8, -0.6, -0.3, 0])
        right = mpmath.quad(weight, [0, 0.4, 0.8, 1, 1.2, 1.4, 1.6, 2, 3])
        exact = float(left / right)
    assert exact < 1e-11
    assert predict.boltzmann_gibbs(surface, temperature=T).ratio(0, 1) == pytest.approx(
        exact, rel=1e-11
    )


def test_gibbs_ratio_survives_underflow():
    """At T = .0005 the higher well's probability is 1e-260: its logarithm is still exact."""
    surface = tilted()
    gibbs, laplace = (
        f(surface, temperature=5e-4) for f in (predict.boltzmann_gibbs, predict.laplace)
    )
    assert 0 < gibbs.ratio(0, 1) < 1e-200
    assert gibbs.ratio(0, 1) == pytest.approx(laplace.ratio(0, 1), rel=0.02)


def test_gibbs_respects_a_kink():
    gibbs = predict.boltzmann_gibbs(Surface("abs(x) + x**2/10"), temperature=0.5)
    z = 2 * integral(lambda x: np.exp(-(x + x * x / 10) / 0.5), 0, 60)
    assert gibbs.density(np.zeros((1, 1)))[0] == pytest.approx(1 / z, rel=1e-11)


@pytest.mark.parametrize("T", [0.03, 0.2, 1.5])
def test_gibbs_2d_against_separated_integrals(T):
    """(x^2-1)^2 + .3x + y^2 separates; the border is the line through the saddle."""
    surface = Surface("(x**2 - 1)**2 + 0.3*x + y**2")

    def weight(x):
        return np.exp(-((x * x - 1) ** 2 + 0.3 * x + 0.305) / T)

    border = brentq(lambda x: 4 * x**3 - 4 * x + 0.3, -0.5, 0.5, xtol=1e-15)
    left, right = integral(weight, -7, border), integral(weight, border, 7)
    gibbs = predict.boltzmann_gibbs(surface, temperature=T)
    assert gibbs.ratio(0, 1) == pytest.approx(left / right, rel=1e-9)
    assert gibbs.occupation().sum() == pytest.approx(1, abs=1e-12) and gibbs.unassigned == 0
    z = (left + right) * np.sqrt(np.pi * T)
    point = np.array([0.3, -0.4])
    assert gibbs.density(point) == pytest.approx(weight(0.3) * np.exp(-0.16 / T) / z, rel=1e-10)
    mean, covariance = gibbs.moments()
    assert mean[0] == pytest.approx(integral(lambda x: x * weight(x), -7, 7) / (left + right))
    assert covariance[1, 1] == pytest.approx(T / 2, rel=1e-10)
    assert covariance[0, 1] == pytest.approx(0, abs=1e-12)
    edges = np.array([-np.inf, -0.7, 0.1, 1.3, np.inf])
    exact = [integral(weight, max(a, -7), min(b, 7)) for a, b in pairwise(edges)]
    bins = gibbs.bin_probabilities((edges, [-np.inf, 0.0, np.inf]))
    assert bins == pytest.approx(np.outer(exact, [0.5, 0.5]) / (left + right), rel=1e-9)
    assert gibbs.bin_probabilities(edges, axes=0) == pytest.approx(bins.sum(1), rel=1e-12)


def test_gibbs_2d_of_a_coupled_surface_against_a_fine_trapezoid():
    surface, T = Surface("(x**2 - 1)**2 + (y - x**2/2)**2 + 0.2*x*y"), 0.3
    gibbs = predict.boltzmann_gibbs(surface, temperature=T)
    x = np.linspace(-3, 3, 801)
    y = np.linspace(-6, 8, 1601)
    grid = np.stack(np.meshgrid(x, y, indexing="ij"), axis=-1)
    p = np.exp(-surface.energy(grid) / T)
    z = p.sum() * (x[1] - x[0]) * (y[1] - y[0])
    assert gibbs.density(grid[400, 800]) == pytest.approx(p[400, 800] / z, rel=1e-10)
    mean = (p[..., None] * grid).sum((0, 1)) / p.sum()
    assert gibbs.moments()[0] == pytest.approx(mean, rel=1e-9)


def test_gibbs_of_a_quadratic_is_the_gaussian_in_any_dimension():
    rng = np.random.Generator(np.random.PCG64(1))
    a = rng.normal(size=(4, 4))
    h = a @ a.T + np.eye(4)
    gibbs = predict.boltzmann_gibbs(form(h), SGD(0.02, 4.0))
    T = 0.02 / 8
    assert gibbs.moments()[1] == pytest.approx(T * np.linalg.inv(h), rel=1e-9)
    assert gibbs.occupation() == pytest.approx([1.0])
    x = np.array([0.03, -0.02, 0.01, 0.05])
    exact = np.exp(-x @ h @ x / (2 * T)) * np.sqrt(np.linalg.det(h) / (2 * np.pi * T) ** 4)
    assert gibbs.density(x) == pytest.approx(exact, rel=1e-9)


def test_momentum_enters_gibbs_through_the_temperature():
    surface = tilted(noise=Isotropic(1.0))
    plain = predict.boltzmann_gibbs(surface, SGD(0.1, 0.5))
    heavy = predict.boltzmann_gibbs(surface, SGD(0.01, 0.5, momentum=0.9))
    assert heavy.ratio(0, 1) == pytest.approx(plain.ratio(0, 1), rel=1e-12)
    assert "momentum" in heavy.regime and "momentum" not in plain.regime


# --- Laplace and the critical noise ---------------------------------------------------------------


def test_laplace_is_theorem_2_and_the_limit_of_gibbs():
    surface = tilted()
    a, b = surface.minima()
    errors = []
    for T in (0.008, 0.004, 0.002):
        laplace = predict.laplace(surface, temperature=T)
        exact = np.sqrt(b.hessian[0, 0] / a.hessian[0, 0]) * np.exp((b.energy - a.energy) / T)
        assert laplace.ratio(0, 1) == pytest.approx(exact, rel=1e-12)
        errors.append(predict.boltzmann_gibbs(surface, temperature=T).ratio(0, 1) / exact - 1)
    assert abs(errors[2]) < 0.02
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.1)  # the error is first order in T
    assert errors[1] / errors[2] == pytest.approx(2, rel=0.1)


def test_laplace_mixture_bins_and_moments():
    laplace = predict.laplace(tilted(), temperature=0.05)
    edges = np.linspace(-3, 3, 301)
    middle = (edges[:-1] + edges[1:])[:, None] / 2
    assert laplace.bin_probabilities(edges) == pytest.approx(
        laplace.density(middle) * 0.02, rel=0.02, abs=1e-6
    )
    assert laplace.cdf(np.array([-np.inf, np.inf])) == pytest.approx([0, 1])
    mean = (laplace.density(middle) * middle[:, 0]).sum() * 0.02
    assert laplace.moments()[0] == pytest.approx([mean], rel=1e-3)


def test_gaussian_rectangles_agree_with_the_marginal_and_with_independence():
    h = np.array([[2.0, 1.9], [1.9, 2.0]])
    gibbs = predict.boltzmann_gibbs(form(h), temperature=0.3)
    x, y = np.linspace(-3, 3, 13), np.array([-np.inf, -1.0, 0.0, 0.5, np.inf])
    both = gibbs.bin_probabilities((x, y))
    assert both.sum(1) == pytest.approx(gibbs.bin_probabilities(x, axes=0), rel=1e-10)
    assert gibbs.bin_probabilities((y, x), axes=(1, 0)) == pytest.approx(both.T, rel=1e-9)
    quadrant = gibbs.bin_probabilities(([0, np.inf], [0, np.inf]))[0, 0]
    rho = -1.9 / 2
    assert quadrant == pytest.approx(0.25 + np.arcsin(rho) / (2 * np.pi), rel=1e-10)


WIDE_SHARP = Surface(
    "-log(exp(-(x + 2)**2/2*hw - 5*lw) + exp(-(x - 2)**2/2*hs - 5*ls))",
    hw=1.0,
    hs=9.0,
    lw=-0.9,
    ls=-1.0,
    noise=Isotropic(0.7),
)


def test_critical_noise_is_where_laplace_draws_level_and_eq_4_is_not():
    surface = WIDE_SHARP
    wide, sharp = surface.minima()
    critical = predict.critical_noise(surface, SGD(np.array([0.1, 0.2]), 4.0), 0, 1)
    exact = laws.critical_noise(
        wide.energy - sharp.energy, wide.hessian[0, 0], sharp.hessian[0, 0], 0.7
    )
    assert critical.value == pytest.approx(exact, rel=1e-12)
    assert critical.paper == pytest.approx(exact / 4, rel=1e-12)
    assert (critical.wide, critical.sharp) == (0, 1)
    assert float(critical) == critical.value
    at_value = predict.laplace(surface, SGD(critical.value, 1.0))
    assert at_value.ratio(0, 1) == pytest.approx(1.0, rel=1e-9)
    assert at_value.temperature == pytest.approx(critical.temperature, rel=1e-12)
    assert predict.laplace(surface, SGD(critical.paper, 1.0)).ratio(0, 1) < 0.1
    swapped = predict.critical_noise(surface, SGD(0.1), 1, 0)
    assert swapped == predict.critical_noise(surface, SGD(0.1), 0, 1)
    heavy = predict.critical_noise(surface, SGD(0.1, momentum=0.9), 0, 1)
    assert predict.laplace(surface, SGD(heavy.value, 1.0, momentum=0.9)).ratio(
        0, 1
    ) == pytest.approx(1.0, rel=1e-9)


def test_critical_noise_refuses_where_there_is_no_crossover():
    with pytest.raises(UnsoundError, match="also"):
        predict.critical_noise(WIDE_SHARP.replace(lw=-1.1), SGD(0.1), 0, 1)
    with pytest.raises(UnsoundError, match="equally wide"):
        twin = Surface("(x**2 - 1)**2", noise=Isotropic(1.0))
        predict.critical_noise(twin, SGD(0.1), 0, 1)
    with pytest.raises(UnsoundError, match=r"no eta/S.*temperature"):
        predict.critical_noise(WIDE_SHARP, Overdamped(0.1, 0.1), 0, 1)
    with pytest.raises(ParameterError, match="minimum 2"):
        predict.critical_noise(WIDE_SHARP, SGD(0.1), 0, 2)
    with pytest.raises(UnsoundError, match="isotropic"):
        predict.critical_noise(WIDE_SHARP.replace(noise=None), SGD(0.1), 0, 1)


# --- refusals -------------------------------------------------------------------------------------


def test_predictions_refuse_what_they_cannot_answer():
    surface = tilted(noise=Isotropic(1.0))
    sweep = SGD(np.array([0.1, 0.2]), 1.0)
    for f in (predict.boltzmann_gibbs, predict.laplace, predict.chain):
        with pytest.raises(ParameterError, match="one value"):
            f(surface, sweep)
    with pytest.raises(ParameterError, match="one value"):
        predict.quadratic(parabola(1.0), sweep)
    for f in (predict.boltzmann_gibbs, predict.laplace):
        with pytest.raises(ParameterError, match="temperature="):
            f(surface)
        for bad in (0.0, -1.0, np.nan, np.inf, "hot", np.ones(2)):
            with pytest.raises(ParameterError):
                f(surface, temperature=bad)
        with pytest.raises(UnsoundError, match="temperature="):
            f(surface.replace(noise=None), SGD(0.1))
        with pytest.raises(UnsoundError, match="point"):
            f(surface.replace(noise=Isotropic(0.0)), SGD(0.1))
        assert f(surface.replace(noise=None), SGD(0.1), temperature=0.1).temperature == 0.1
    with pytest.raises(UnsoundError, match="momentum in two dimensions"):
        predict.chain(Surface("x**2 + y**2", noise=Isotropic(1.0)), SGD(0.1, momentum=0.5))
    with pytest.raises(UnsoundError, match="3 dimensions"):
        predict.chain(Surface("x**2 + y**2 + z**2", noise=Isotropic(1.0)), SGD(0.1))
    with pytest.raises(UnsoundError, match=r"below 0\.5"):
        predict.chain(parabola(4.0), SGD(0.6))
    with pytest.raises(UnsoundError, match="mini-batches"):
        predict.chain(regression(6, 1, seed=1)[0], SGD(0.1, 2))
    with pytest.raises(UnsoundError, match=r"laplace.*simulate"):
        predict.boltzmann_gibbs(Surface("x**4 + y**4 + z**4 - x**2 + y*z"), temperature=0.1)
    with pytest.raises(UnsoundError, match="curvature"):
        predict.laplace(Surface("x**4"), temperature=0.1)
    with pytest.raises(LangevinError):
        predict.boltzmann_gibbs(Surface("sin(x)"), temperature=0.1)
    with pytest.raises(LangevinError):
        predict.chain(Surface("x**3 - x"), Overdamped(0.1, 0.01))


def test_malformed_points_edges_and_indices_are_refused():
    laws_1d = (
        predict.boltzmann_gibbs(tilted(), temperature=0.1),
        predict.laplace(tilted(), temperature=0.1),
        predict.chain(tilted(), Overdamped(0.1, 0.1)),
    )
    for law in laws_1d:
        with pytest.raises(ParameterError, match="points"):
            law.density(np.linspace(-1, 1, 5))
        for edges in ([0.0], [1.0, 0.0], [0.0, np.nan, 1.0], [[0.0, 1.0]]):
            with pytest.raises(ParameterError, match="edges"):
                law.bin_probabilities(edges)
        with pytest.raises(ParameterError, match="minimum 2"):
            law.ratio(0, 2)
    flat = predict.boltzmann_gibbs(Surface("x**4 + y**4 - x**2"), temperature=0.1)
    with pytest.raises(ParameterError, match="pair"):
        flat.bin_probabilities([0.0, 1.0, 2.0])
    with pytest.raises(UnsoundError, match="cdf"):
        flat.cdf(0.0)
    solid = predict.boltzmann_gibbs(form(np.eye(3)), temperature=0.1)
    with pytest.raises(ParameterError, match="axes="):
        solid.bin_probabilities([0.0, 1.0])
    assert solid.bin_probabilities([-np.inf, np.inf], axes=2) == pytest.approx([1.0])
    with pytest.raises(ParameterError, match="axes"):
        solid.bin_probabilities([0.0, 1.0], axes=3)
