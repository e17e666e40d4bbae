"""predict.chain with momentum in one dimension: closed forms, recursions, simulations."""

import functools

import numpy as np
import pytest
from cases import parabola, tilted
from kit import replicas, scale, statistical

import langevin as lv
from langevin import predict
from langevin.errors import ParameterError, UnsoundError
from langevin.predict.moments import LinearChain

SURFACE = tilted(noise=lv.Isotropic(1.0))
HALVES = np.array([-np.inf, 0.0, np.inf])


def sgd(rate, momentum, T=0.12, **options):
    """The SGD of that small-step temperature ``eta sigma**2/(2 S (1 - m))``."""
    return lv.SGD(rate, rate / (2 * T * (1 - momentum)), momentum, **options)


@functools.cache
def wells(rate=0.2, momentum=0.7, nesterov=False):
    return predict.chain(SURFACE, sgd(rate, momentum, nesterov=nesterov))


# --- closed forms ---------------------------------------------------------------------------------


@pytest.mark.parametrize("nesterov", [False, True], ids=["heavy ball", "nesterov"])
@pytest.mark.parametrize("momentum", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("step", [0.05, 0.4, 0.9])
def test_quadratic_surfaces_have_their_exact_law(step, momentum, nesterov):
    """``step`` of the largest stable one, of position and buffer jointly."""
    h, decay = 1.5, 0.2
    limit = LinearChain(np.array([h + decay]), 1.0, momentum, nesterov).bound
    dynamics = lv.SGD(step * limit, 4.0, momentum, nesterov=nesterov, weight_decay=decay)
    surface = parabola(h)
    chain, exact = predict.chain(surface, dynamics), predict.quadratic(surface, dynamics)
    assert chain.covariance == pytest.approx(exact.covariance, rel=1e-9)
    assert chain.variance == pytest.approx(exact.covariance[0, 0], rel=1e-9)
    assert chain.moments()[0] == pytest.approx([0.0], abs=1e-10)
    assert chain.residual < 1e-12 and chain.error < 1e-9 and np.isinf(chain.lifetime)
    edges = np.sqrt(chain.variance) * np.array([-np.inf, -2.0, 0.1, 1.0, np.inf])
    assert chain.bin_probabilities(edges) == pytest.approx(exact.bin_probabilities(edges), rel=1e-8)
    roots = np.abs(
        np.linalg.eigvals(LinearChain(np.array([h + decay]), *_rest(dynamics)).step_matrix())
    )
    assert chain.relaxation_steps == pytest.approx(-1 / np.log(roots.max()), rel=1e-5)
    plain = predict.quadratic(surface, lv.SGD(step * limit, 4.0, weight_decay=decay)) if (
        step * limit * (h + decay) < 2
    ) else None  # fmt: skip
    if plain is not None:  # the negative twin: momentum forgotten
        assert chain.variance != pytest.approx(plain.covariance[0, 0], rel=1e-3)


def _rest(dynamics):
    return dynamics.learning_rate, dynamics.momentum, dynamics.nesterov


@pytest.mark.parametrize("nesterov", [False, True], ids=["heavy ball", "nesterov"])
def test_the_law_at_a_time_is_the_recursion_of_position_and_buffer(nesterov):
    dynamics = lv.SGD(0.3, 4.0, 0.8, nesterov=nesterov)
    chain = predict.chain(parabola(1.5), dynamics)
    linear = LinearChain(np.array([1.5]), *_rest(dynamics))
    F, slope = linear.step_matrix(), linear._row()[0]
    noise = np.outer([-slope, 1.0], [-slope, 1.0]) / 4
    mean, covariance = np.array([0.4, 0.0]), np.zeros((2, 2))
    for step in range(1, 9):
        mean, covariance = F @ mean, F @ covariance @ F.T + noise
        law = chain.at(step, [0.4])
        assert law.moments()[0] == pytest.approx(mean[:1], abs=1e-9)
        assert law.variance == pytest.approx(covariance[0, 0], rel=1e-8)
        z = (np.array([0.1, 0.3]) - mean[0]) / np.sqrt(covariance[0, 0])
        assert law.cdf(np.array([0.1, 0.3])) == pytest.approx(_normal(z), rel=1e-7)
    with pytest.raises(AssertionError):  # a buffer that starts warm would be seen
        assert law.moments()[0] == pytest.approx((F @ mean)[:1], abs=1e-3)


def _normal(z):
    from scipy.special import ndtr

    return ndtr(z)


def test_noise_that_depends_on_the_state_has_its_second_moments():
    """E[(x, before)] second moments of least squares as a formula, C = 1 + x**2: linear in them."""
    eta, m, h, size = 0.3, 0.6, 1.5, 4.0
    surface = lv.Surface("h*x**2/2", h=h, noise=lv.StateDependent("1 + x**2"))
    found = predict.chain(surface, lv.SGD(eta, size, m)).variance
    a, b = 1 + m - eta * h, -m
    # V = E x_t**2 and W = E x_t x_t-1:
    # V = (a**2 + b**2) V + 2 a b W + eta**2 (1 + V)/S, W = a V + b W.
    rows = np.array([[1 - a * a - b * b - eta**2 / size, -2 * a * b], [-a, 1 - b]])
    variance = np.linalg.solve(rows, [eta**2 / size, 0.0])[0]
    assert found == pytest.approx(variance, rel=1e-6)
    constant = predict.quadratic(parabola(h), lv.SGD(eta, size, m)).covariance[0, 0]
    assert found != pytest.approx(constant, rel=1e-2)


def test_small_steps_tend_to_gibbs_at_momentums_temperature():
    """With terms of first and second order in eta."""
    gibbs = predict.boltzmann_gibbs(tilted(), temperature=0.12).ratio(0, 1)
    errors = [wells(rate, 0.5).ratio(0, 1) / gibbs - 1 for rate in (0.05, 0.025)]
    assert 2 < errors[0] / errors[1] < 3
    assert 0 < errors[1] < 0.01


# --- simulations ----------------------------------------------------------------------------------


@pytest.mark.parametrize("nesterov", [False, True], ids=["heavy ball", "nesterov"])
@statistical(comparisons=17, seed=3)
def test_a_double_well_against_a_simulation(seed, check, nesterov):
    """At a step of a tenth of the stable one's: stationary, and 25 steps from the minima."""
    n, dynamics = replicas(400_000), sgd(0.2, 0.7, nesterov=nesterov)
    chain = wells(nesterov=nesterov)
    assert np.isinf(chain.lifetime) or chain.lifetime > 1e8
    run = functools.partial(lv.simulate, SURFACE, dynamics, n_replicas=n, progress=False)
    settled = int(12 * chain.relaxation_steps)
    early = check.once("early", chain.at, 25)
    x = {"stationary": run(n_steps=settled, seed=seed).positions[:, 0]}
    x["early"] = run(n_steps=25, seed=seed + 1).positions[:, 0]
    edges = np.array([-np.inf, -1.0, -0.5, 0.0, 0.7, 1.3, 1.7, np.inf])
    for name, law in (("stationary", chain), ("early", early)):
        counts, p = np.histogram(x[name], edges)[0], law.bin_probabilities(edges)
        check.z((counts - n * p) / np.sqrt(n * p * (1 - p)), f"{name}, bins")
        (mean,), ((variance,),) = law.moments()
        check.z((x[name].mean() - mean) / np.sqrt(variance / n), f"{name}, mean")
    counts = np.histogram(x["stationary"], HALVES)[0]
    check.z(_sigmas(counts, chain.occupation()), "wells")
    for name, wrong in (
        ("continuum", check.once("gibbs", predict.boltzmann_gibbs, SURFACE, dynamics)),
        ("1 - m forgotten", check.once("plain", predict.chain, SURFACE, _plain(dynamics))),
    ):
        check.twin(_sigmas(counts, wrong.occupation()), name)


def _plain(dynamics):
    return lv.SGD(dynamics.learning_rate, dynamics.batch_size)


def _sigmas(counts, p):
    n = counts.sum()
    return (counts[0] - n * p[0]) / np.sqrt(n * p[0] * (1 - p[0]))


@pytest.mark.parametrize("nesterov", [False, True], ids=["heavy ball", "nesterov"])
@statistical(comparisons=1, dof=999, seed=11, missed_bug=1e-4)
def test_hitting_times_against_a_simulation(seed, check, nesterov):
    chain = wells(nesterov=nesterov)
    region, start = "0.5 < x and x < 0.9 or x > 1.1", [-0.82]
    result = lv.simulate(
        SURFACE, sgd(0.2, 0.7, nesterov=nesterov), n_replicas=replicas(40_000), n_steps=6000,
        seed=seed, start=start, observe=lv.FirstPassage(region), progress=False,
    )  # fmt: skip
    mean = result.first_passage().mean
    assert mean.stderr < 0.007 / scale**0.5 * mean.value
    check.estimate(mean, check.once("time", chain.hitting_time, region, start), "mean")
    check.twin(mean.z(check.once("far", chain.hitting_time, "x > 1.1", start)), "the farther part")
    warmer = sgd(0.2, 0.7, T=0.13, nesterov=nesterov)
    warmer = check.once("warmer", predict.chain, SURFACE, warmer)
    check.twin(mean.z(check.once("soon", warmer.hitting_time, region, start)), "warmer")


@statistical(comparisons=1, dof=999, seed=12)
def test_a_short_passage_is_that_of_the_point_ahead(seed, check):
    """Some six steps, of which Nesterov's stored point saves one against the heavy ball."""
    bowl, start, region = lv.Surface("x**2/2", noise=lv.Isotropic(0.3)), [-0.8], "x > -0.1"
    laws = {n: predict.chain(bowl, lv.SGD(0.1, 1.0, 0.6, nesterov=n)) for n in (True, False)}
    result = lv.simulate(
        bowl, lv.SGD(0.1, 1.0, 0.6, nesterov=True), n_replicas=replicas(120_000), n_steps=400,
        seed=seed, start=start, observe=lv.FirstPassage(region), progress=False,
    )  # fmt: skip
    mean = result.first_passage().mean
    check.estimate(mean, laws[True].hitting_time(region, start), "mean")
    check.twin(mean.z(laws[False].hitting_time(region, start)), "heavy ball")


def test_a_hitting_time_is_the_sum_of_survival_over_time():
    """By the law's own matrix, for a threshold between two nodes: sum_t P(tau > t)."""
    chain = wells()
    x, h = chain.kernel.nodes, chain.kernel.nodes[1] - chain.kernel.nodes[0]
    edge = x[np.searchsorted(x, -0.2)] + h / 2  # halfway: the midpoint rule's own edge
    found = chain.hitting_time(f"x > {edge}", [-0.82])
    survivors = chain._second(-0.82, chain._first(-0.82) * (x < edge)) * (chain.kernel.x < edge)
    total = 1 + (chain._first(-0.82) * (x < edge)).sum()
    for _ in range(3000):
        total += survivors.sum()
        survivors = (chain.matrix @ survivors) * (chain.kernel.x < edge)
    assert survivors.sum() < 1e-9
    # The midpoint rule cut off at an edge errs by h**2/24 of the slope there: some 1e-3.
    assert found == pytest.approx(total, rel=5e-3)
    assert chain.hitting_time(f"x > {edge + h}", [-0.82]) > 1.01 * found


# --- quasi-stationary laws and refusals -----------------------------------------------------------


@statistical(comparisons=1, seed=5)
def test_a_superquadratic_surface_has_a_lifetime(seed, check):
    chain = wells(0.5, 0.5)
    assert "quasi-stationary" in chain.regime and 500 < chain.lifetime < 50_000
    p = chain.weights
    for _ in range(200):
        p = chain.matrix @ p
    assert 1 / (1 - p.sum() ** (1 / 200)) == pytest.approx(chain.lifetime, rel=1e-9)
    result = lv.simulate(
        SURFACE, sgd(0.5, 0.5), n_replicas=replicas(100_032), n_steps=800, seed=seed,
        on_divergence="absorb", progress=False,
    )  # fmt: skip
    # From step 300, when they have settled, until which most are alive.
    settled = ((result.diverged < 0) | (result.diverged > 300)).sum()
    lost = ((result.diverged > 300) & (result.diverged <= 800)).sum()
    p, wrong = (1 - np.exp(-500 / (f * chain.lifetime)) for f in (1.0, 0.85))
    check.z((lost - settled * p) / np.sqrt(settled * p * (1 - p)), "lost")
    check.twin((lost - settled * wrong) / np.sqrt(settled * wrong * (1 - wrong)), "15 % sooner")
    with pytest.raises(UnsoundError, match="escape to infinity"):
        wells(1.0, 0.5)


def test_what_cannot_be_answered_is_refused():
    chain = wells()
    with pytest.raises(UnsoundError, match=r"fokker_planck.*finite_step.*boltzmann_gibbs"):
        predict.chain(SURFACE, sgd(1e-4, 0.99))
    with pytest.raises(UnsoundError, match=r"below 1\.9"):
        predict.chain(parabola(2.0), lv.SGD(2.0, momentum=0.9))
    with pytest.raises(UnsoundError, match=r"below 0\.67"):
        predict.chain(parabola(2.0), lv.SGD(0.7, momentum=0.9, nesterov=True))
    with pytest.raises(UnsoundError, match="cannot cross"):
        predict.chain(SURFACE.replace(a=0.0), sgd(0.2, 0.5, T=2e-4))
    with pytest.raises(UnsoundError, match="zero"):
        predict.chain(parabola(1.0, sigma=0.0), lv.SGD(0.1, momentum=0.5))
    for start in ([30.0], [[0.0], [-9.0]]):
        with pytest.raises(ParameterError, match="Start nearer"):
            chain.at(3, start)
    with pytest.raises(ParameterError, match="at\\(step="):
        chain.at(0)
    with pytest.raises(UnsoundError, match="outside of where replicas live"):
        chain.hitting_time("x > 60")
    with pytest.raises(ParameterError, match="points"):
        chain.hitting_time("x > 1", [0.0, 1.0])
