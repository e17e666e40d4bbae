"""predict.fokker_planck against closed forms, other predictions and operators written here."""

import laws
import numpy as np
import pytest
import scipy.linalg
from cases import integral, parabola, regression, tilted

from langevin import predict, surfaces
from langevin.dynamics import SGD, Overdamped, Underdamped
from langevin.errors import LangevinError, ParameterError, UnsoundError
from langevin.predict.elimination import eliminate
from langevin.predict.jumps import bernoulli, selling
from langevin.schedules import Cosine
from langevin.surfaces.expression import Surface
from langevin.surfaces.noise import AlphaStable, Anisotropic, Isotropic, StudentT
from langevin.surfaces.state_noise import Multiplicative, StateDependent

H = np.array([[2.0, 0.6], [0.6, 1.0]])
C = np.array([[1.0, -0.5], [-0.5, 3.0]])  # does not commute with H
ETA = 0.02


def oblique(c=C):
    return surfaces.quadratic(H, noise=Anisotropic(c))


@pytest.fixture(scope="module")
def swirl():
    """A quadratic well whose noise makes its stationary law flow."""
    return predict.fokker_planck(oblique(), SGD(ETA), cells=64)


def fitted_order(cells, errors):
    """The slope of log error against log cell, and its standard error."""
    x, y = -np.log(cells), np.log(errors)
    x = x - x.mean()
    slope = (x @ y) / (x @ x)
    rest = y - y.mean() - slope * x
    return slope, np.sqrt(rest @ rest / (len(x) - 2) / (x @ x))


def worst(law, exact):
    """The largest relative error of a density at the nodes that carry anything at all."""
    held = law.probability > 0
    return np.abs(law.density(law.nodes[held]) / exact(law.nodes[held]) - 1).max()


# --- Gibbs at the nodes -------------------------------------------------------------------------

GIBBS = {
    "double well": (tilted(noise=Isotropic(1.0)), Overdamped(0.12, 0.01), None),
    "SGD": (tilted(noise=Isotropic(2.0)), SGD(0.05, 4.0, momentum=0.5), 100),
    "Mueller-Brown": (surfaces.mueller_brown(), Overdamped(15.0, 1e-4), 48),
    "oblong": (Surface("(x**2 - 1)**2 + 20*(y - x**2/2)**2"), Overdamped(0.3, 0.01), (70, 40)),
}


@pytest.mark.parametrize("case", GIBBS)
def test_isotropic_noise_gives_gibbs_at_the_nodes(case):
    surface, dynamics, cells = GIBBS[case]
    law = predict.fokker_planck(surface, dynamics, cells=cells)
    gibbs = predict.boltzmann_gibbs(surface, dynamics)
    assert worst(law, gibbs.density) < 1e-10
    hotter = predict.boltzmann_gibbs(surface, temperature=1.001 * gibbs.temperature)
    assert worst(law, hotter.density) > 1e-3
    assert law.probability.sum() == pytest.approx(1, abs=1e-13)
    assert (law.probability >= 0).all() and law.negative_mass == 0
    # Detailed balance: nothing flows.
    assert law.current_size < 1e-9 * np.sqrt(gibbs.temperature)
    assert 0 <= law.entropy_production < 1e-18
    assert law.outside < 1e-13
    if surface.dim == 1:
        assert law.occupation() == pytest.approx(gibbs.occupation(), rel=1e-9)
        edges = np.array([-np.inf, -1.0, 0.1, 0.7, 2.0, np.inf])
        assert law.cdf(edges) == pytest.approx(gibbs.cdf(edges), abs=1e-10)
    else:
        assert law.occupation() == pytest.approx(gibbs.occupation(), abs=3 * law.error)
        edges = np.array([-np.inf, -0.5, 0.1, 0.7, np.inf])
        for axis in (0, 1):
            expected = gibbs.bin_probabilities(edges, axes=axis)
            assert law.bin_probabilities(edges, axes=axis) == pytest.approx(expected, abs=1e-6)
    mean, covariance = gibbs.moments()
    assert law.moments()[0] == pytest.approx(mean, abs=1e-5 * np.sqrt(covariance.max()))
    assert law.moments()[1] == pytest.approx(covariance, abs=1e-5 * covariance.max())


def test_a_wall_bounds_the_law():
    surface = Surface("3*x - log(x)")  # the Gamma law x exp(-3 x), undefined below 0
    law = predict.fokker_planck(surface, Overdamped(1.0, 0.01))
    x = law.nodes[law.probability > 0, 0]
    assert x.min() > 0
    assert law.density(x[:, None]) == pytest.approx(9 * x * np.exp(-3 * x), rel=1e-5)
    assert law.moments()[0][0] == pytest.approx(2 / 3, rel=1e-5)
    assert law.density([[-0.1]]) == 0


# --- noise that depends on the state ------------------------------------------------------------


@pytest.mark.parametrize("c1", [0.5, 4.0, 40.0])
def test_power_law_of_multiplicative_noise(c1):
    h, eta, c0 = 1.0, 0.1, 1.0
    surface = Surface("h*x**2/2", h=h, c0=c0, c1=c1, noise=StateDependent("c0 + c1*x**2"))
    law = predict.fokker_planck(surface, SGD(eta))
    power = 1 + h / (eta * c1)

    def spread(exponent):
        x = law.nodes[:, 0]
        return np.ptp(np.log(law.density(law.nodes)) + exponent * np.log(c0 + c1 * x**2))

    assert spread(power) < 1e-11
    assert spread(power - 0.5) > 0.5  # Stratonovich's law
    total = 2 * integral(lambda x: (c0 + c1 * x**2) ** -power, 0, np.inf)
    assert law.density([[0.0]]) == pytest.approx(c0**-power / total, rel=2e-5)
    if c1 < 20:
        assert law.moments()[1][0, 0] == pytest.approx(eta * c0 / (2 * h - eta * c1), rel=1e-6)
    else:
        with pytest.raises(UnsoundError, match="variance"):
            law.moments()


def test_stratonovich_noise_keeps_its_drift():
    given = {"h": 1.0, "c0": 1.0, "c1": 3.0}
    noise = StateDependent("c0 + c1*x**2", convention="stratonovich")
    law = predict.fokker_planck(Surface("h*x**2/2", noise=noise, **given), SGD(0.1))
    ito = predict.fokker_planck(
        Surface("h*x**2/2", noise=StateDependent("c0 + c1*x**2"), **given), SGD(0.1)
    )
    logs = np.log(law.density(law.nodes)), np.log(ito.density(law.nodes))
    weight = np.log(1 + 3 * law.nodes[:, 0] ** 2)
    held = law.probability > 1e-12
    # c**(-1/2) instead of c**-1 before the same exponential.
    assert np.ptp((logs[0] - logs[1] - weight / 2)[held]) < 1e-6
    assert np.ptp((logs[0] - logs[1])[held]) > 0.5


def test_one_dimension_has_the_closed_form_of_any_noise():
    surface = tilted(noise=StateDependent("1 + 0.5*sin(3*x)"))
    law = predict.fokker_planck(surface, SGD(0.2), cells=300)

    def density(x):
        work = integral(
            lambda y: (y**3 - 0.4 * y**2 - y) / (0.1 * (1 + 0.5 * np.sin(3 * y))), 0.0, x
        )
        return np.exp(-work) / (1 + 0.5 * np.sin(3 * x))

    x = law.nodes[::20, 0]
    x = x[np.abs(x) < 1.9]
    exact = np.array([density(v) for v in x])
    ratio = law.density(x[:, None]) / exact
    assert np.ptp(np.log(ratio)) < 1e-9
    left, right = integral(density, -2.6, 0.0), integral(density, 0.0, 2.9)
    assert law.ratio(0, 1) == pytest.approx(left / right, rel=1e-6)


def rotated():
    """Two independent 1-D laws, turned by 45 degrees: a full C(theta) with detailed balance."""
    u, w = "((x + y)/sqrt(2))", "((x - y)/sqrt(2))"
    along, off = f"(3 + {u}**2)/2", f"({u}**2 - 1)/2"  # of diag(1 + u**2, 2)
    return Surface(
        f"{u}**4/4 - {u}**2/2 + {w}**2", noise=StateDependent([[along, off], [off, along]])
    )


def rotated_density(points, eta):
    u, w = points[..., 0] + points[..., 1], points[..., 0] - points[..., 1]
    u, w = u / np.sqrt(2), w / np.sqrt(2)

    def along(v):
        return (1 + v**2) ** (2 / eta - 1) * np.exp(-(v**2) / eta)

    norm = integral(along, -6, 6) * np.sqrt(np.pi * eta)
    return along(u) * np.exp(-(w**2) / eta) / norm


def test_second_order_on_multiplicative_noise_in_two_dimensions():
    cells, eta = np.array([32, 45, 64, 91]), 0.2
    sides = np.linspace(-1.1, 1.1, 9)
    points = np.stack(np.meshgrid(sides, sides, indexing="ij"), axis=-1).reshape(-1, 2)
    exact = rotated_density(points, eta)
    errors, size = [], []
    for n in cells:
        law = predict.fokker_planck(rotated(), SGD(eta), cells=int(n))
        errors.append(np.sqrt(np.mean((law.density(points) - exact) ** 2)) / exact.max())
        size.append(law.current_size)
        assert law.negative_mass == 0 and (law.probability >= 0).all()
    slope, stderr = fitted_order(cells, errors)
    assert abs(slope - 2) < 0.1 and stderr < 0.03, (slope, stderr)
    assert errors[-1] < 2e-4
    # Detailed balance: what flows is the grid's error, and goes with it.
    slope, stderr = fitted_order(cells, size)
    assert abs(slope - 2) < 0.1 and stderr < 0.03, (slope, stderr)


# --- a stationary current -----------------------------------------------------------------------


def continuous_law(hessian, c, eta):
    """Covariance, J = M x p and the entropy production of d x = -A x dt + sqrt(2 D) dW."""
    a, d = eta * hessian, eta**2 * c / 2
    covariance = scipy.linalg.solve_continuous_lyapunov(a, 2 * d)
    m = d @ np.linalg.inv(covariance) - a
    return covariance, m, np.trace(np.linalg.solve(d, m @ covariance @ m.T))


def test_second_order_with_a_current():
    covariance, m, production = continuous_law(H, C, ETA)
    cells = np.array([32, 45, 64, 91])
    at = np.array([[0.05, 0.02], [-0.1, 0.1], [0.0, -0.15]])
    normal = np.exp(-np.einsum("ni,ij,nj->n", at, np.linalg.inv(covariance), at) / 2)
    flow = at @ m.T * (normal / (2 * np.pi * np.sqrt(np.linalg.det(covariance))))[:, None]
    errors = {"covariance": [], "gap": [], "current": [], "entropy": []}
    for n in cells:
        law = predict.fokker_planck(oblique(), SGD(ETA), cells=int(n))
        errors["covariance"].append(np.abs(law.moments()[1] / covariance - 1).max())
        errors["gap"].append(abs(law.spectral_gap / (ETA * np.linalg.eigvalsh(H)[0]) - 1))
        errors["current"].append(np.abs(law.current(at) - flow).max() / np.abs(flow).max())
        errors["entropy"].append(abs(law.entropy_production / production - 1))
    for name, values in errors.items():
        slope, stderr = fitted_order(cells, values)
        # What is small in the entropy is a difference of two errors, and settles later.
        assert abs(slope - 2) < {"entropy": 0.4, "current": 0.2}.get(name, 0.1), (name, slope)
        assert stderr < 0.1, (name, stderr)
        assert values[-1] < 6e-3, name
    assert np.abs(-law.current(at) - flow).max() > np.abs(flow).max()  # the wrong way round
    x = np.linspace(-1, 1, 400)
    speed = np.linalg.norm(
        np.stack(np.meshgrid(x, x), -1) @ np.linalg.cholesky(covariance).T, axis=-1
    )
    assert 0.1 < law.current_size / (np.linalg.norm(m) * speed.mean()) < 3


def test_noise_that_commutes_with_the_hessian_makes_no_current(swirl):
    law = predict.fokker_planck(oblique(3 * np.eye(2) + H), SGD(ETA), cells=64)
    assert law.entropy_production < 1e-5 * swirl.entropy_production
    assert law.current_size < 5e-3 * swirl.current_size
    # Not isotropic, so no Gibbs density: the covariance solves Lyapunov's equation.
    covariance, _, production = continuous_law(H, 3 * np.eye(2) + H, ETA)
    assert production < 1e-12
    assert law.moments()[1] == pytest.approx(covariance, rel=1e-3)
    assert abs(law.moments()[1][0, 1] / (ETA * 2 * np.linalg.inv(H)[0, 1]) - 1) > 0.1


def test_error_is_a_measure_of_the_error(swirl):
    covariance = continuous_law(H, C, ETA)[0]
    edges = np.sqrt(covariance[0, 0]) * np.linspace(-2, 2, 15)
    exact = scipy.stats.norm.cdf(edges, scale=np.sqrt(covariance[0, 0]))
    bins = swirl.bin_probabilities(np.concatenate([[-np.inf], edges, [np.inf]]), axes=0)
    true = np.abs(np.cumsum(bins)[:-1] - exact).max()
    assert true < 2 * swirl.error and swirl.error < 10 * true
    assert f"{swirl.error:.0e}" in swirl.regime
    pair = swirl.bin_probabilities((edges, edges))
    assert pair.sum(axis=1) == pytest.approx(
        swirl.bin_probabilities((edges, edges[[0, -1]]))[:, 0], rel=1e-9
    )
    assert pair.T == pytest.approx(swirl.bin_probabilities((edges, edges), axes=(1, 0)), rel=1e-9)
    assert swirl.occupation() == pytest.approx([1.0], abs=1e-12)


# --- time ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("t", [2.0, 10.0, 60.0, 5000.0])
def test_law_at_a_time_is_ornstein_uhlenbeck(t):
    h, eta, c, s, start = 2.0, 0.01, 1.0, 2.0, 0.06
    law = predict.fokker_planck(parabola(h), SGD(eta, s)).at(t, start=[start])
    decay = np.exp(-eta * h * t)
    mean, variance = start * decay, eta * c / (2 * h * s) * (1 - decay**2)
    assert law.moments()[0][0] == pytest.approx(mean, abs=2e-5 * np.sqrt(variance))
    assert law.moments()[1][0, 0] == pytest.approx(variance, rel=2e-5)
    x = mean + np.sqrt(variance) * np.linspace(-4, 4, 9)
    normal = scipy.stats.norm(mean, np.sqrt(variance))
    assert law.density(x[:, None]) == pytest.approx(normal.pdf(x), rel=5e-3)
    assert law.cdf(x) == pytest.approx(normal.cdf(x), abs=1e-5)
    wrong = scipy.stats.norm(mean, np.sqrt(variance / 2))  # sqrt(2 D) taken for sqrt(D)
    assert np.abs(law.cdf(x) - wrong.cdf(x)).max() > 0.05
    assert law.probability.sum() == pytest.approx(1, abs=1e-13)
    assert (law.probability >= 0).all() and law.negative_mass < 1e-12


def test_law_at_a_time_in_two_dimensions(swirl):
    start, a = np.array([0.1, -0.15]), ETA * H
    stationary = continuous_law(H, C, ETA)[0]
    for t in (8.0, 30.0, 100.0):
        law = swirl.at(t, start=start)
        decay = scipy.linalg.expm(-a * t)
        covariance = stationary - decay @ stationary @ decay.T
        mean, found = law.moments()
        assert mean == pytest.approx(decay @ start, abs=5e-3 * np.sqrt(covariance.max()))
        assert np.abs(found - covariance).max() < 2e-2 * covariance.max()
        assert np.abs(found - decay @ covariance @ decay.T).max() > 0.1 * covariance.max()
        assert law.probability.sum() == pytest.approx(1, abs=1e-13)
        assert (law.probability >= 0).all() and law.negative_mass < 1e-12
    late = swirl.at(40 * swirl.relaxation_time)
    assert np.abs(late.probability - swirl.probability).sum() < 1e-11
    assert np.abs(law.probability - swirl.probability).sum() > 0.01
    # A density to start from; the stationary one stays what it is.
    still = swirl.at(50.0, start=swirl.density)
    assert np.abs(still.probability - swirl.probability).sum() < 1e-9


def test_two_times_make_one():
    law = predict.fokker_planck(tilted(noise=Isotropic(1.0)), Overdamped(0.12, 0.01))
    first = law.at(1.5)
    both = law.at(2.0, start=first.density)
    assert np.abs(both.probability - law.at(3.5).probability).sum() < 1e-9
    assert np.abs(both.probability - law.at(3.0).probability).sum() > 1e-3
    assert first.occupation() == pytest.approx(
        law.at(1.5, start=[[-0.82], [1.22]]).occupation(), abs=2e-3
    )


# --- the spectral gap ---------------------------------------------------------------------------


def test_gap_of_a_parabola_is_its_curvature():
    law = predict.fokker_planck(parabola(3.0), SGD(0.01, 2.0))
    assert law.spectral_gap == pytest.approx(0.03, rel=2e-5)
    assert law.relaxation_time == pytest.approx(1 / 0.03, rel=2e-5)
    thermal = predict.fokker_planck(parabola(3.0), Overdamped(0.1, 0.01))
    assert thermal.spectral_gap == pytest.approx(3.0, rel=2e-5)  # per unit of time


def schroedinger_gap(T, n=240, reach=2.2):
    """The second eigenvalue of -T d2/dx2 + U'**2/(4 T) - U''/2, by sinc functions."""
    x = np.linspace(-reach, reach, n)
    step = x[1] - x[0]
    k = np.arange(n)
    away = k[:, None] - k
    with np.errstate(divide="ignore"):
        kinetic = 2.0 * (-1.0) ** away / away.astype(float) ** 2
    kinetic[k, k] = np.pi**2 / 3
    slope, bend = 4 * x * (x**2 - 1), 12 * x**2 - 4
    operator = T * kinetic / step**2 + np.diag(slope**2 / (4 * T) - bend / 2)
    return np.linalg.eigvalsh(operator)[1]


def test_gap_of_a_metastable_well():
    surface = Surface("(x**2 - 1)**2")
    law = predict.fokker_planck(surface, Overdamped(0.1, 0.01))
    assert law.spectral_gap == pytest.approx(schroedinger_gap(0.1), rel=1e-5)
    # exp(-33): the time to the top, to which the odd mode's rate is equal but for 1e-13.
    T = 0.03
    law = predict.fokker_planck(surface, Overdamped(T, 0.01))
    to_top = laws.mean_first_passage(lambda x: (x**2 - 1) ** 2, T, -1.0, 0.0, -2.0)
    assert law.spectral_gap == pytest.approx(1 / to_top, rel=3e-5)
    assert law.relaxation_time == pytest.approx(to_top, rel=3e-5)
    halfway = law.at(to_top * np.log(2), start=[-1.0])
    assert halfway.occupation() == pytest.approx([0.75, 0.25], abs=1e-5)


def test_gap_of_a_metastable_plane():
    surface = Surface("(x**2 - 1)**2 + y**2")
    law = predict.fokker_planck(surface, Overdamped(0.06, 0.01), cells=(100, 40))
    line = predict.fokker_planck(Surface("(x**2 - 1)**2"), Overdamped(0.06, 0.01))
    assert line.spectral_gap < 1e-6
    assert law.spectral_gap == pytest.approx(line.spectral_gap, rel=5e-3)


# --- momentum, decay, data ----------------------------------------------------------------------


@pytest.mark.parametrize("nesterov", [False, True])
def test_momentum_and_decay_are_the_small_step_limit_of_the_quadratic(nesterov):
    surface = Surface("h*(x - 1)**2/2", h=2.0, noise=Isotropic(1.5))

    def sgd(eta, decay=0.5):
        return SGD(eta, 4.0, momentum=0.8, nesterov=nesterov, weight_decay=decay)

    law = predict.fokker_planck(surface, sgd(0.01))
    limit = predict.quadratic(surface, sgd(1e-6))
    assert law.moments()[0][0] == pytest.approx(limit.moments()[0][0], rel=1e-9)
    assert law.moments()[0][0] == pytest.approx(0.8, rel=1e-9)
    assert law.moments()[1] == pytest.approx(1e4 * limit.moments()[1], rel=1e-4)
    plain = predict.fokker_planck(surface, sgd(0.01, decay=0.0))
    assert plain.moments()[1][0, 0] == pytest.approx(1.25 * law.moments()[1][0, 0], rel=1e-4)


def test_momentum_in_the_plane():
    still = predict.fokker_planck(oblique(), SGD(0.02), cells=32)
    fast = predict.fokker_planck(oblique(), SGD(0.01, momentum=0.5), cells=32)
    assert fast.moments()[1] == pytest.approx(still.moments()[1], rel=1e-12)
    assert fast.spectral_gap == pytest.approx(still.spectral_gap, rel=1e-9)
    other = predict.fokker_planck(oblique(), SGD(0.02, momentum=0.5), cells=32)
    assert other.entropy_production == pytest.approx(2 * still.entropy_production, rel=1e-9)


@pytest.mark.parametrize("sampling", ["with_replacement", "without_replacement"])
def test_real_data_have_the_moments_of_their_diffusion(sampling):
    surface, _, _ = regression(40, 2, seed=3)
    eta, s = 0.05, 5
    sgd = SGD(eta, s, sampling=sampling)
    law = predict.fokker_planck(surface, sgd, cells=64)
    best = surface.minima()[0].position
    hessian = surface.hessian(best)
    b = surface.example_gradients(best)
    a = surface.example_hessians(best) - hessian
    factor = eta / s * laws.sampling_factor(40, s, sampling == "with_replacement")
    # H M + M H = factor (C + mean_n A_n M A_n)
    eye = np.eye(2)
    operator = np.kron(hessian, eye) + np.kron(eye, hessian)
    moving = operator - factor * np.mean([np.kron(v, v) for v in a], axis=0)
    exact = np.linalg.solve(moving, factor * (b.T @ b / 40).reshape(-1)).reshape(2, 2)
    assert law.moments()[0] == pytest.approx(best, abs=2e-3 * np.sqrt(exact.max()))
    assert law.moments()[1] == pytest.approx(exact, rel=2e-3)
    additive = np.linalg.solve(operator, factor * (b.T @ b / 40).reshape(-1)).reshape(2, 2)
    assert np.abs(exact / additive - 1).max() > 0.01  # C(theta), not C at the minimum
    assert "mini-batch" in law.regime


def test_student_noise_of_finite_variance_is_gaussian_in_the_limit():
    heavy = predict.fokker_planck(parabola(1.0).replace(noise=StudentT(6.0)), SGD(0.1))
    assert heavy.moments()[1][0, 0] == pytest.approx(0.05 * 6 / 4, rel=1e-6)


# --- what it is made of -------------------------------------------------------------------------


def test_selling_decomposes_every_covariance():
    angles, ratios = np.meshgrid(np.linspace(0, np.pi, 60), [1.0, 3.0, 40.0, 300.0])
    c, s, r = np.cos(angles).ravel(), np.sin(angles).ravel(), ratios.ravel()
    d = np.stack([[c * c * r + s * s, c * s * (r - 1)], [c * s * (r - 1), s * s * r + c * c]])
    d = np.moveaxis(d, -1, 0)
    weights, offsets = selling(d)
    assert (weights >= 0).all() and offsets.dtype.kind == "i"
    again = np.einsum("nk,nki,nkj->nij", weights, offsets, offsets)
    assert np.abs(again - d).max() < 1e-10 * 300
    with pytest.raises(UnsoundError, match="oblique"):
        selling(np.array([[[1.0, 0.618], [0.618, 0.618**2 + 1e-7]]]))


def test_bernoulli_function():
    z = np.array([-800.0, -5.0, -1e-9, 0.0, 1e-4, 3.0, 800.0])
    b = bernoulli(z)
    assert b[3] == 1 and b[-1] < 1e-300 and b[0] == 800
    assert bernoulli(-z)[1:-1] - b[1:-1] == pytest.approx(z[1:-1], rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("n, band", [(2, 1), (49, 5), (60, 50), (150, 20)])
def test_elimination_in_blocks_solves_as_a_dense_solver_does(n, band):
    rng = np.random.Generator(np.random.PCG64(n))
    rows = np.repeat(np.arange(n), 5)
    columns = np.clip(rows + rng.integers(-band, band + 1, len(rows)), 0, n - 1)
    rows, columns = rows[rows != columns], columns[rows != columns]
    rows = np.concatenate([rows, np.arange(n - 1), np.arange(1, n)])
    columns = np.concatenate([columns, np.arange(1, n), np.arange(n - 1)])
    values, f = rng.random(len(rows)), rng.normal(size=n)
    dense = np.zeros((n, n))
    np.add.at(dense, (rows, columns), values)
    for loss in (np.zeros(n), 0.1 * rng.random(n)):
        matrix = np.diag(dense.sum(axis=0) + loss) - dense  # I - K, the diagonal being the rest
        factors = eliminate(rows, columns, values, loss)
        assert factors.closed == (not loss.any())
        x = factors.solve(f - f.mean())
        assert matrix @ x == pytest.approx(f - f.mean(), abs=1e-10 * abs(x).max())
        if factors.closed:
            assert x[0] == 0
        else:
            y = factors.solve_transposed(f)
            assert matrix.T @ y == pytest.approx(f, abs=1e-10 * abs(y).max())


# --- refusals -----------------------------------------------------------------------------------

WELL, PLANE = "h*x**2/2", "x**2/2 + y**2"


def well(noise, formula=WELL, **given):
    given = given or ({"h": 1.0} if formula == WELL else {})
    return Surface(formula, noise=noise, **given)


REFUSED = {
    "stable": (well(AlphaStable(1.5)), SGD(0.1), "Simulate"),
    "student": (well(StudentT(1.5)), SGD(0.1), "Simulate"),
    "no noise": (well(None), SGD(0.1), "noise="),
    "silent": (well(Isotropic(0.0)), SGD(0.1), "vanishes"),
    "silent at the minimum": (well(Multiplicative(1.0)), SGD(0.1), "vanishes"),
    "rank one": (well(StateDependent([["1", "1"], ["1", "1"]]), PLANE), SGD(0.1), "vanishes"),
    "cold": (well(None), Overdamped(0.0, 0.1), "temperature"),
    "underdamped": (well(None), Underdamped(0.1, 1.0, 0.1), "boltzmann_gibbs"),
    "3-D": (surfaces.quadratic(np.eye(3)), SGD(0.1), "predict.quadratic"),
    "schedule": (well(Isotropic(1.0)), SGD(Cosine(0.1, 100)), r"dynamics.at\(step\)"),
    "array": (well(Isotropic(1.0)), SGD(np.array([0.1, 0.2])), "one per replica"),
    "epochs": (regression(20, 1, 0)[0], SGD(0.1, 4, sampling="epoch_shuffle"), "Simulate"),
    "whole batch": (regression(20, 1, 0)[0], SGD(0.1, 20, sampling="without_replacement"), "noise"),
    "open": (well(None, "log(1 + x**2)"), Overdamped(3.0, 0.1), "confin"),
    "growing noise": (
        well(StateDependent("(1 + x**2)**0.4"), "log(1 + x**2)"),
        SGD(1.9),
        "does not fall off",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case):
    surface, dynamics, message = REFUSED[case]
    with pytest.raises(LangevinError, match=message):
        predict.fokker_planck(surface, dynamics)


@pytest.mark.parametrize("cells", [3, 2.5, (100, 100), True, "many"])
def test_refuses_malformed_cells(cells):
    with pytest.raises(ParameterError, match="cells"):
        predict.fokker_planck(parabola(1.0), SGD(0.1), cells=cells)


def test_refuses_what_a_law_cannot_answer(swirl):
    with pytest.raises(UnsoundError, match="axes=k"):
        swirl.cdf(0.0)
    for t in (0.0, -1.0, np.nan, [1.0, 2.0]):
        with pytest.raises(ParameterError, match=r"at\(t=.*above 0"):
            swirl.at(t)
    with pytest.raises(ParameterError, match="narrower"):
        swirl.at(1e-4)
    with pytest.raises(ParameterError, match="outside"):
        swirl.at(10.0, start=[50.0, 0.0])
    with pytest.raises(ParameterError, match="density"):
        swirl.at(10.0, start=lambda points: -np.ones(points.shape[:-1]))
    with pytest.raises(ParameterError, match="minima"):
        swirl.ratio(0, 1)
    assert swirl.density([[1e3, 0.0]]) == 0 and (swirl.current([[1e3, 0.0]]) == 0).all()
