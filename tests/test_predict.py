"""The predictions against closed forms, brute force, and each other."""

from itertools import combinations, pairwise, product

import laws
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.linalg import solve_discrete_lyapunov

from langevin import predict
from langevin.dynamics import SGD, Overdamped
from langevin.errors import LangevinError, ParameterError, UnsoundError
from langevin.surfaces.expression import Surface
from langevin.surfaces.finite_sum import FiniteSum
from langevin.surfaces.noise import Isotropic

TILTED = "x**4/4 - a*x**3/3 - x**2/2"


def tilted(**options):
    return Surface(TILTED, a=0.4, **options)


def parabola(h, sigma=1.0):
    return Surface("h*x**2/2", h=h, noise=Isotropic(sigma))


def form(matrix, sigma=1.0):
    """x'Hx/2 as a formula of x0, x1, ..."""
    terms = [
        f"({float(v)!r})*x{i}*x{j}/2" for (i, j), v in np.ndenumerate(np.asarray(matrix, float))
    ]
    return Surface(" + ".join(terms), noise=Isotropic(sigma))


class Anisotropic:
    """A quadratic surface whose gradient noise has any constant covariance."""

    hessian_is_constant, noise, name = True, None, "anisotropic"

    def __init__(self, hessian, covariance):
        self.h, self.c, self.dim = np.asarray(hessian), np.asarray(covariance), len(hessian)

    def gradient(self, points):
        return np.asarray(points) @ self.h

    def hessian(self, points):
        return np.broadcast_to(self.h, np.shape(points)[:-1] + self.h.shape)

    def noise_covariance(self, points):
        return np.broadcast_to(self.c, np.shape(points)[:-1] + self.c.shape)

    def minima(self, within=None):
        class Minimum:
            position, energy, hessian = np.zeros(self.dim), 0.0, self.h

        return (Minimum(),)


def integral(f, low, high):
    return quad(f, low, high, epsabs=0, epsrel=1e-13, limit=400)[0]


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
    """(x^2-1)^2 + .3x + y^2 separates; the basin border is where the label grid puts it."""
    surface = Surface("(x**2 - 1)**2 + 0.3*x + y**2")

    def weight(x):
        return np.exp(-((x * x - 1) ** 2 + 0.3 * x + 0.305) / T)

    basins = surface.basins()
    change = np.flatnonzero(np.diff(basins.labels[:, 0].astype(int)))
    nx = basins.labels.shape[0]
    border = basins.low[0] + (basins.high[0] - basins.low[0]) * (change[0] + 1) / nx
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


# --- the discrete chain ---------------------------------------------------------------------------


@pytest.mark.parametrize("eta", [1e-3, 0.05, 0.3, 0.6])
def test_chain_of_a_quadratic_has_the_closed_form_variance(eta):
    chain = predict.chain(parabola(3.0, sigma=2.0), SGD(eta, 8.0))
    exact = laws.sgd_variance(eta, 4 / 8, 3.0)
    assert chain.variance == pytest.approx(exact, rel=1e-12)
    assert np.isinf(chain.lifetime)
    assert chain.relaxation_steps == pytest.approx(-1 / np.log(abs(1 - 3 * eta)), rel=1e-7)
    edges = np.sqrt(exact) * np.array([-np.inf, -2.0, 0.0, 0.5, 3.0, np.inf])
    gauss = predict.quadratic(parabola(3.0, sigma=2.0), SGD(eta, 8.0))
    assert chain.bin_probabilities(edges) == pytest.approx(gauss.bin_probabilities(edges), rel=1e-9)
    assert chain.cdf(edges) == pytest.approx(gauss.cdf(edges), rel=1e-9, abs=1e-15)
    points = np.sqrt(exact) * np.linspace(-4, 4, 9)[:, None]
    assert chain.density(points) == pytest.approx(gauss.density(points), rel=1e-9)


# Mass left over mass right of 0 at T = .12; the continuum's, by adaptive quadrature, is .118931.
FIGURES = {0.05: 0.120458, 0.1: 0.122519, 0.2: 0.129624}
# The figures of a calculation on nodes .00196 apart that gives the whole node at the threshold to
# the right-hand basin.
HALF_NODE = {0.0: 0.118881, 0.05: 0.120405, 0.1: 0.122463, 0.2: 0.129559}


def dense_ratio(dt, n=1600):
    """Independent of the package: a dense kernel whose cells end at the threshold, plain eig."""
    T = 0.12
    h = 6.4 / n
    x = -3.2 + h * (np.arange(n) + 0.5)
    m = x - dt * (x**3 - 0.4 * x**2 - x)
    k = np.exp(-((x[:, None] - m) ** 2) / (4 * T * dt)) * h / np.sqrt(4 * np.pi * T * dt)
    p = np.ones(n) / n
    p = np.linalg.matrix_power(k, 2**14) @ p
    for _ in range(50):
        p = k @ p
        p /= p.sum()
    assert abs(k @ p - p).sum() < 1e-9
    return p[x < 0].sum() / p[x > 0].sum()


@pytest.mark.parametrize("dt", sorted(FIGURES))
def test_chain_meets_the_double_well_figures(dt):
    surface = tilted(noise=Isotropic(1.0))
    chain = predict.chain(surface, Overdamped(0.12, dt))
    assert chain.ratio(0, 1) == pytest.approx(FIGURES[dt], abs=5e-7)
    finer = predict.chain(surface, Overdamped(0.12, dt), spacing=0.23)
    assert finer.ratio(0, 1) == pytest.approx(chain.ratio(0, 1), rel=1e-11)
    # The same law as SGD with eta = dt and eta sigma^2/(2S) = T.
    sgd = predict.chain(surface, SGD(dt, dt / 0.24))
    assert sgd.ratio(0, 1) == pytest.approx(chain.ratio(0, 1), rel=1e-12)
    a, b = chain.occupation()
    shift = 0.00196 / 2 * chain.density(np.zeros((1, 1)))[0]
    assert (a - shift) / (b + shift) == pytest.approx(HALF_NODE[dt], abs=2e-6)


def test_chain_against_a_dense_kernel_written_here():
    """Midpoint cells have an O(h^2) error at the threshold: Richardson removes it."""
    coarse, fine = dense_ratio(0.1, 400), dense_ratio(0.1, 800)
    chain = predict.chain(tilted(), Overdamped(0.12, 0.1))
    assert chain.ratio(0, 1) == pytest.approx((4 * fine - coarse) / 3, rel=1e-8)


def test_chain_tends_to_gibbs_with_the_first_order_slope():
    surface, T = tilted(), 0.12
    gibbs = predict.boltzmann_gibbs(surface, temperature=T)

    def weight(x):
        return np.exp(-(x**4 / 4 - 0.4 * x**3 / 3 - x**2 / 2) / T)

    def laplacian(low, high):
        mass = integral(weight, low, high)
        return integral(lambda x: (3 * x * x - 0.8 * x - 1) * weight(x), low, high) / mass

    left, right = laplacian(-6, 0), laplacian(0, 6)
    errors = []
    for dt in (0.01, 0.005):
        ratio = predict.chain(surface, Overdamped(T, dt)).ratio(0, 1) / gibbs.ratio(0, 1)
        errors.append(ratio - laws.first_order_ratio_factor(dt, left, right))
    assert abs(errors[0]) < 2e-4
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.15)  # second order remains


@pytest.mark.parametrize("T", [0.02, 0.005])
def test_chain_is_accurate_behind_high_barriers(T):
    """Barriers of 8 and 30 T; the relaxation time of the second is 10^25 steps."""
    surface = tilted()
    chain = predict.chain(surface, Overdamped(T, 0.02))
    finer = predict.chain(surface, Overdamped(T, 0.02), spacing=0.29)
    assert finer.ratio(0, 1) == pytest.approx(chain.ratio(0, 1), rel=1e-7)
    gibbs = predict.boltzmann_gibbs(surface, temperature=T).ratio(0, 1)
    assert chain.ratio(0, 1) == pytest.approx(gibbs, rel=0.1)


def test_chain_relaxation_is_the_second_eigenvalue():
    chain = predict.chain(tilted(), Overdamped(0.12, 0.1))
    values = np.sort(np.abs(np.linalg.eigvals(chain.matrix.toarray())))
    assert chain.relaxation_steps == pytest.approx(-1 / np.log(values[-2]), rel=1e-8)
    assert chain.relaxation_time == pytest.approx(0.1 * chain.relaxation_steps)
    assert chain.residual < 1e-13


def test_chain_law_at_a_time():
    surface, eta = parabola(2.0), 0.1
    chain = predict.chain(surface, SGD(eta, 4.0))
    for step in (1, 2, 7):
        law = chain.at(step, [0.5])
        decay = (1 - 2 * eta) ** step
        mean, covariance = law.moments()
        assert mean == pytest.approx([0.5 * decay], rel=1e-10)
        variance = laws.sgd_variance(eta, 0.25, 2.0) * (1 - decay**2)
        assert covariance[0, 0] == pytest.approx(variance, rel=1e-9)
        assert law.cdf(np.array([-np.inf, np.inf])) == pytest.approx([0, 1])
    wells = predict.chain(tilted(), Overdamped(0.12, 0.1))
    late = wells.at(6000)
    assert late.ratio(0, 1) == pytest.approx(wells.ratio(0, 1), rel=1e-8)
    early = wells.at(1)
    assert early.occupation() == pytest.approx([0.5, 0.5], abs=1e-2)


def test_chain_reports_a_finite_lifetime_and_refuses_a_short_one():
    chain = predict.chain(tilted(), Overdamped(0.12, 0.4))
    assert 1e4 < chain.lifetime < 1e7
    assert "quasi-stationary" in chain.regime
    # Independently: the mass that survives many steps decays as exp(-t/lifetime).
    k = chain.matrix.toarray()
    p = np.linalg.matrix_power(k, 4096) @ chain.weights
    assert -4096 / np.log(p.sum()) == pytest.approx(chain.lifetime, rel=1e-4)
    with pytest.raises(UnsoundError, match="escape to infinity"):
        predict.chain(tilted(), Overdamped(0.12, 0.7))


class Multiplicative:
    """x**2 h/2 with gradient noise c0 + c1 x**2: least squares seen as a formula."""

    dim, hessian_is_constant, name, noise = 1, False, "multiplicative", None

    def __init__(self, h, c0, c1):
        self.h, self.c0, self.c1 = h, c0, c1

    def energy(self, points):
        return self.h * np.asarray(points)[..., 0] ** 2 / 2

    def gradient(self, points):
        return self.h * np.asarray(points)

    def noise_covariance(self, points):
        return (self.c0 + self.c1 * np.asarray(points) ** 2)[..., None]

    def minima(self, within=None):
        class Minimum:
            position, energy, hessian = np.zeros(1), 0.0, np.array([[self.h]])

        return (Minimum(),)

    def basins(self):
        class One:
            n, thresholds = 1, np.zeros(0)

        return One()

    def bounds(self, temperature, depth=30.0):
        reach = np.sqrt(2 * depth * temperature / self.h)
        return np.array([-reach]), np.array([reach])


def test_chain_takes_noise_that_depends_on_the_position():
    eta, h, c0, c1 = 0.1, 1.0, 0.5, 0.2
    chain = predict.chain(Multiplicative(h, c0, c1), SGD(eta, 1.0))
    assert chain.variance == pytest.approx(laws.least_squares_variance(eta, h, c0, c1), rel=1e-6)


# --- the exact covariance on quadratic surfaces ---------------------------------------------------


def test_quadratic_1d_closed_forms():
    for eta in (1e-6, 0.1, 0.6):
        law = predict.quadratic(parabola(3.0, sigma=2.0), SGD(eta, 5.0))
        assert law.covariance[0, 0] == pytest.approx(laws.sgd_variance(eta, 4 / 5, 3.0), rel=1e-13)
    law = predict.quadratic(parabola(2.0), Overdamped(0.3, 0.25))
    assert law.covariance[0, 0] == pytest.approx(0.3 / (2 * (1 - 0.25)), rel=1e-13)
    assert law.gaussian and law.circulation == pytest.approx(0)


@pytest.mark.parametrize("m", [0.3, 0.9, 0.99])
def test_quadratic_heavy_ball_closed_form(m):
    eta, h, c = 0.4, 2.0, 0.25
    law = predict.quadratic(parabola(h), SGD(eta, 4.0, momentum=m))
    var_x, cov, var_v = laws.heavy_ball(eta, c, h, m)
    assert law.covariance.shape == (2, 2)
    # v = -eta buf.
    assert law.covariance == pytest.approx(
        np.array([[var_x, -cov / eta], [-cov / eta, var_v / eta**2]]), rel=1e-11
    )
    assert law.moments()[1].shape == (1, 1)
    assert law.occupation() == pytest.approx([1.0])


@pytest.mark.parametrize("m", [0.0, 0.8])
def test_quadratic_any_dimension_and_noise_that_does_not_commute(m):
    rng = np.random.Generator(np.random.PCG64(2))
    d, eta, size = 5, 0.1, 3.0
    a, b = rng.normal(size=(2, d, d))
    h, c = a @ a.T / d + 0.2 * np.eye(d), b @ b.T
    law = predict.quadratic(Anisotropic(h, c), SGD(eta, size, momentum=m))
    eye = np.eye(d)
    step = np.block([[eye - eta * h, -eta * m * eye], [h, m * eye]])
    kick = np.vstack([-eta * eye, eye])
    exact = solve_discrete_lyapunov(step, kick @ (c / size) @ kick.T)
    sigma = exact[:d, :d]
    assert law.moments()[1] == pytest.approx(sigma, rel=1e-9, abs=1e-12)
    if m:
        assert law.covariance == pytest.approx(exact, rel=1e-9, abs=1e-10)
    else:
        equation = sigma @ h + h @ sigma - eta * h @ sigma @ h
        assert law.covariance.shape == (d, d)
        assert equation == pytest.approx(eta * c / size, rel=1e-9, abs=1e-12)
    assert np.abs(law.circulation).max() > 1e-4  # H and C do not commute: a current flows
    commuting = predict.quadratic(Anisotropic(h, h @ h), SGD(eta, size, momentum=m))
    assert np.abs(commuting.circulation).max() < 1e-12


def test_quadratic_refuses_what_diverges():
    with pytest.raises(UnsoundError, match=r"below 0\.5"):
        predict.quadratic(parabola(4.0), SGD(0.5))
    with pytest.raises(UnsoundError, match=r"below 0\.75"):
        predict.quadratic(parabola(4.0), SGD(0.8, momentum=0.5))
    predict.quadratic(parabola(4.0), SGD(0.7, momentum=0.5))
    with pytest.raises(UnsoundError, match="not constant"):
        predict.quadratic(tilted(noise=Isotropic(1.0)), SGD(0.1))
    with pytest.raises(UnsoundError, match="not positive"):
        predict.quadratic(Anisotropic(np.diag([1.0, 0.0]), np.eye(2)), SGD(0.1))
    with pytest.raises(UnsoundError, match="singular"):
        law = predict.quadratic(Anisotropic(np.eye(2), np.diag([1.0, 0.0])), SGD(0.1))
        law.density(np.zeros(2))


# --- real mini-batches ----------------------------------------------------------------------------


def regression(n, d, seed):
    rng = np.random.Generator(np.random.PCG64(seed))
    u = rng.normal(size=(n, d)) * np.linspace(0.5, 1.5, d)
    v = u @ np.ones(d) + rng.normal(size=n)
    return FiniteSum("(w*u - v)**2/2", data={"u": u, "v": v}), u, v


def batches(n, size, replacement):
    """Every mini-batch, all equally likely."""
    if replacement:
        return list(product(range(n), repeat=size))
    return list(combinations(range(n), size))


def enumerated(surface, size, eta, m, replacement):
    """The second moment of (d, buf) by summing over every mini-batch: a linear solve, no theory."""
    minimum = np.linalg.solve(
        surface.hessian(np.zeros(surface.dim)), -surface.gradient(np.zeros(surface.dim))
    )
    a, b = surface.example_hessians(minimum), surface.example_gradients(minimum)
    d = surface.dim
    eye = np.eye(d)
    operator, source = np.zeros((4 * d * d, 4 * d * d)), np.zeros((2 * d, 2 * d))
    every = batches(surface.n_examples, size, replacement)
    for batch in every:
        h, g = a[list(batch)].mean(0), b[list(batch)].mean(0)
        step = np.block([[eye - eta * h, -eta * m * eye], [h, m * eye]])
        kick = np.concatenate([-eta * g, g])
        operator += np.kron(step, step) / len(every)
        source += np.outer(kick, kick) / len(every)
    assert np.abs(np.linalg.eigvals(operator)).max() < 1
    moment = np.linalg.solve(np.eye(4 * d * d) - operator, source.ravel())
    return moment.reshape(2 * d, 2 * d)


@pytest.mark.parametrize("m", [0.0, 0.6])
@pytest.mark.parametrize("replacement", [True, False])
@pytest.mark.parametrize("d", [1, 2, 3])
def test_batch_moments_against_every_possible_batch(d, replacement, m):
    surface, _, _ = regression(4, d, seed=10 + d)
    sampling = "with_replacement" if replacement else "without_replacement"
    top = np.linalg.eigvalsh(surface.hessian(np.zeros(d)))[-1]
    eta = 0.3 * (1 - m) / top
    law = predict.quadratic(surface, SGD(eta, 2, momentum=m, sampling=sampling))
    exact = enumerated(surface, 2, eta, m, replacement)
    if m:
        assert law.covariance == pytest.approx(exact, rel=1e-10, abs=1e-13)
    else:
        assert law.covariance == pytest.approx(exact[:d, :d], rel=1e-10, abs=1e-13)
    assert not law.gaussian
    # The negative twin: a noise frozen at the minimum gives another answer.
    frozen = surface.noise_covariance(law.mean) * laws.sampling_factor(4, 2, replacement)
    wrong = predict.quadratic(
        Anisotropic(surface.hessian(law.mean), frozen), SGD(eta, 2, momentum=m)
    )
    assert abs(np.trace(wrong.moments()[1]) / np.trace(law.moments()[1]) - 1) > 0.02


@pytest.mark.parametrize("sampling", ["with_replacement", "without_replacement"])
def test_least_squares_in_one_dimension(sampling):
    surface, u, v = regression(20, 1, seed=3)
    u, size, eta = u[:, 0], 4, 0.2
    w = (u @ v) / (u @ u)
    h = (u * u).mean()
    factor = laws.sampling_factor(20, size, sampling == "with_replacement") / size
    c0 = factor * ((u * (u * w - v)) ** 2).mean()
    c1 = factor * (u * u).var()
    law = predict.quadratic(surface, SGD(eta, size, sampling=sampling))
    assert law.mean == pytest.approx([w], rel=1e-12)
    assert law.covariance[0, 0] == pytest.approx(
        laws.least_squares_variance(eta, h, c0, c1), rel=1e-12
    )


def test_the_variance_bound_of_least_squares():
    """E d**2 is finite iff eta (h**2 + c1) < 2 h, well below the mean's bound 2/h."""
    surface, u, _ = regression(20, 1, seed=3)
    h, c1 = (u**2).mean(), (u[:, 0] ** 2).var()
    bound = 2 * h / (h**2 + c1)
    assert bound < 0.6 * 2 / h
    predict.quadratic(surface, SGD(0.999 * bound, 1))
    with pytest.raises(UnsoundError, match="variance diverges") as refusal:
        predict.quadratic(surface, SGD(1.001 * bound, 1))
    assert f"{bound:.4g}"[:4] in str(refusal.value)


def test_full_batch_is_noiseless_and_thermal_noise_sees_the_full_gradient():
    surface, _, _ = regression(6, 2, seed=5)
    still = predict.quadratic(surface, SGD(0.1, 6, sampling="without_replacement"))
    assert still.covariance == pytest.approx(np.zeros((2, 2)))
    h = surface.hessian(np.zeros(2))
    T, dt = 0.1, 0.2
    thermal = predict.quadratic(surface, Overdamped(T, dt)).covariance
    assert thermal @ h @ (np.eye(2) - dt * h / 2) == pytest.approx(T * np.eye(2), abs=1e-13)


def test_batches_that_do_not_exist_are_refused():
    surface, _, _ = regression(6, 2, seed=5)
    with pytest.raises(ParameterError, match="whole number"):
        predict.quadratic(surface, SGD(0.1, 2.5))
    with pytest.raises(ParameterError, match="without replacement from 6"):
        predict.quadratic(surface, SGD(0.1, 7, sampling="without_replacement"))
    predict.quadratic(surface, SGD(0.01, 7))


def test_quadratic_at_dimension_16_is_quick_and_solves_the_equation():
    surface, _, _ = regression(60, 16, seed=8)
    eta, size = 0.05, 5
    law = predict.quadratic(surface, SGD(eta, size))
    a, b = surface.example_hessians(law.mean), surface.example_gradients(law.mean)
    sigma, eye = law.covariance, np.eye(16)
    h = a.mean(0)
    spread = (a @ sigma @ a).mean(0) - h @ sigma @ h
    right = (eye - eta * h) @ sigma @ (eye - eta * h)
    right += eta**2 / size * (spread + b.T @ b / 60)
    assert right == pytest.approx(sigma, rel=1e-9, abs=1e-12)


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
    with pytest.raises(UnsoundError, match="momentum"):
        predict.chain(surface, SGD(0.1, momentum=0.5))
    with pytest.raises(UnsoundError, match="one dimension"):
        predict.chain(Surface("x**2 + y**2", noise=Isotropic(1.0)), SGD(0.1))
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
