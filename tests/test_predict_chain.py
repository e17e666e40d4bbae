"""predict.chain against closed forms, dense kernels written here, and its own limits."""

import laws
import numpy as np
import pytest
from cases import integral, parabola, regression, tilted

from langevin import predict
from langevin.dynamics import SGD, Overdamped
from langevin.errors import UnsoundError
from langevin.surfaces.catalogue import wide_and_sharp
from langevin.surfaces.expression import Surface
from langevin.surfaces.noise import Isotropic


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


def test_chain_says_how_accurate_it_is():
    smooth = predict.chain(tilted(), Overdamped(0.12, 0.1))
    assert smooth.error < 1e-12 and "about" not in smooth.regime
    kink = predict.chain(Surface("abs(x - 0.03) + x**2/10"), Overdamped(0.5, 0.3))
    assert 1e-9 < kink.error < 1e-3 and "probabilities to about" in kink.regime


def test_chain_refuses_a_barrier_that_no_step_can_cross():
    with pytest.raises(UnsoundError, match=r"cannot cross.*boltzmann_gibbs"):
        predict.chain(Surface("(x**2 - 1)**2"), Overdamped(0.001, 0.1))


def test_chain_of_many_wells_survives_underflow():
    chain = predict.chain(Surface("x**2/2 + 2*cos(12*x)"), Overdamped(0.1, 0.002))
    p = chain.occupation()
    assert p.sum() == pytest.approx(1) and p == pytest.approx(p[::-1], rel=1e-6)
    assert 0 < p[len(p) // 2 - 15] < 1e-50
    far = predict.chain(Surface("x**2/2 + 2*cos(12*x)"), Overdamped(0.04, 0.004))
    assert far.occupation()[0] == 0
    with pytest.raises(UnsoundError, match="probability of 0"):
        far.ratio(len(p) // 2, 0)
    with pytest.raises(UnsoundError, match="cannot cross"):
        predict.chain(Surface("x**2/2 + 2*cos(12*x)"), Overdamped(0.001, 0.004))


def test_thermal_noise_on_data_is_a_chain_in_one_dimension():
    surface, _, _ = regression(6, 1, seed=5)
    dynamics = Overdamped(0.1, 0.2)
    chain, exact = predict.chain(surface, dynamics), predict.quadratic(surface, dynamics)
    assert chain.variance == pytest.approx(exact.covariance[0, 0], rel=1e-12)
    assert chain.moments()[0] == pytest.approx(exact.mean)


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


def test_a_domain_too_steep_to_resolve_does_not_trap_the_law():
    """Beyond unstable orbits of this well the map is so steep that a margin holds mass for good."""
    surface = wide_and_sharp(energy_difference=0.02, barrier=0.02)
    noise = predict.critical_noise(surface, SGD(0.05, 1.0), 0, 1).value
    ratios = []
    for factor in (2.3, 2.4, 2.5):
        law = predict.chain(surface, SGD(0.05, 0.05 / (factor * noise)))
        assert law.error < 1e-6
        ratios.append(law.ratio(0, 1))
    assert ratios[1] == pytest.approx((ratios[0] + ratios[2]) / 2, rel=2e-3)
    assert 1e6 < law.lifetime < 1e7
