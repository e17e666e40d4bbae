"""Covariance of gradients and noise scales, against brute force and against a known population."""

import itertools

import numpy as np
import pytest
from kit import statistical
from scipy import stats

from langevin.errors import ParameterError, UnsoundError

torch = pytest.importorskip("torch", reason="needs torch: pip install .[neural]")

from measured import brute_gradients, brute_hessian, classifier, least_squares  # noqa: E402

from langevin import neural  # noqa: E402
from langevin.neural import intervals, noise_scale  # noqa: E402
from langevin.neural.derivatives import Derivatives  # noqa: E402


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def four(surface, of, theta=None):
    """tr Sigma, |G|^2, G'HG, tr(H Sigma) as their definitions say."""
    G, H = brute_gradients(surface, theta), brute_hessian(surface, theta)
    n, g = len(G), G.mean(axis=0)
    sigma = (G - g).T @ (G - g) / (n if of == "training_set" else n - 1)
    squared = g @ g - (0 if of == "training_set" else np.trace(sigma) / n)
    return np.array([np.trace(sigma), squared, g @ H @ g, np.trace(H @ sigma)])


# --- covariance -----------------------------------------------------------------------------------


@pytest.mark.parametrize("of", ["training_set", "population"])
def test_the_covariance_is_that_of_the_examples_gradients(of):
    surface = classifier()
    expected = np.cov(brute_gradients(surface).T, ddof=0 if of == "training_set" else 1)
    found = neural.gradient_covariance(surface, of=of)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-14)
    operator = neural.gradient_covariance_operator(surface, of=of)
    V = np.arange(2.0 * surface.dim).reshape(-1, 2)
    np.testing.assert_allclose(operator @ V, expected @ V, rtol=0, atol=1e-11)
    assert abs(operator.trace() - np.trace(expected)) < 1e-13


def test_a_mini_batch_s_covariance_follows_from_it():
    """All 1,081 pairs without replacement: (C/S) (N - S)/(N - 1)."""
    surface = classifier(n=47)
    G = brute_gradients(surface)
    pairs = np.array([G[[i, j]].mean(axis=0) for i, j in itertools.combinations(range(47), 2)])
    expected = np.cov(pairs.T, ddof=0)
    found = neural.gradient_covariance(surface) / 2 * (47 - 2) / (47 - 1)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-14)


# --- exactness ------------------------------------------------------------------------------------


def test_the_training_set_s_numbers_are_exact():
    surface = classifier()
    theta = surface.flat() + 0.2
    found = neural.gradient_noise_scale(surface, theta, of="training_set")
    expected = four(surface, "training_set", theta)
    np.testing.assert_allclose(found.values, expected, rtol=0, atol=1e-12)
    assert not found.covariance.any()
    simple, full = expected[0] / expected[1], expected[3] / expected[2]
    for interval, value in ((found.simple, simple), (found.full, full)):
        assert interval.low == pytest.approx(value) == interval.value == interval.high
    eps = expected[1] / expected[2]
    for b in (0.5, 4, 1000):
        assert found.learning_rate(b).value == pytest.approx(eps / (1 + full / b))
        best = expected[1] ** 2 / (2 * expected[2]) / (1 + full / b)
        assert found.improvement(b).value == pytest.approx(best)
        assert found.change(found.learning_rate(b).value, b).value == pytest.approx(-best)


def test_one_step_of_sgd_on_a_quadratic_changes_the_loss_as_predicted():
    """The mean over all N one-example batches, and over all N^2 batches of two, is exact."""
    surface, _, _ = least_squares(n=23)
    theta, rate = np.array([0.3, 1.0, 2.0]), 0.07
    found = neural.gradient_noise_scale(surface, theta, of="training_set")
    G = brute_gradients(surface, theta)
    twice = (G[:, None] + G[None]).reshape(-1, 3) / 2
    for b, steps in ((1, G), (2, twice)):
        change = surface.energy(theta - rate * steps).mean() - surface.energy(theta)
        assert abs(found.change(rate, b).value - change) < 1e-12


def test_the_population_s_numbers_are_those_of_a_leave_out_by_hand():
    surface = classifier(n=45)
    found = neural.gradient_noise_scale(surface, seed=3)
    whole = four(surface, "population")
    np.testing.assert_allclose(found.values[:2], whole[:2], rtol=1e-12)
    order = np.argsort(neural.noise_scale.random.uniforms(3, 2**32 - 1, 45), kind="stable")
    left = []
    for a, b in noise_scale.blocks(45, 32):
        kept = np.concatenate([order[:a], order[b:]])
        other = neural.NeuralSurface(
            surface.module, (surface.X[kept], surface.y[kept]), l2=surface.l2
        )
        left.append(four(other, "population"))
    left = np.array(left)
    value = np.append(whole[:2], (32 * whole - 31 * left.mean(axis=0))[2:])
    covariance = 31 / 32 * (left - left.mean(axis=0)).T @ (left - left.mean(axis=0))
    np.testing.assert_allclose(found.values, value, rtol=0, atol=1e-10)
    np.testing.assert_allclose(found.covariance, covariance, rtol=0, atol=1e-10)


@pytest.mark.parametrize("memory", [2**28, 2_000])  # gradients that are kept, or not
@pytest.mark.parametrize("of", ["training_set", "population"])
def test_probing_every_direction_once_is_exact(of, memory, monkeypatch):
    """Vectors sqrt(n) e_p average to z z' = I, as signs do in the mean."""
    surface = classifier(n=33)
    monkeypatch.setattr(noise_scale, "BLOCKS", 5)
    monkeypatch.setattr(noise_scale, "MEMORY", memory)
    exact = neural.gradient_noise_scale(surface, of=of)
    unit = np.eye(33) * np.sqrt(33)
    monkeypatch.setattr(noise_scale.random, "signs", lambda seed, number, n: unit[number])
    found = neural.gradient_noise_scale(surface, of=of, probes=33)
    np.testing.assert_allclose(found.values, exact.values, rtol=1e-10)
    extra = found.covariance - exact.covariance
    assert extra[3, 3] > 0  # what probing adds
    extra[3, 3] = 0
    np.testing.assert_allclose(extra, 0, atol=1e-10 * np.abs(exact.covariance).max() + 1e-14)


@statistical(comparisons=3, seed=5, smoke=False)
def test_probing_states_its_error(seed, check):
    surface = classifier(n=53)
    exact = neural.gradient_noise_scale(surface, of="training_set").noise_curvature.value
    found = neural.gradient_noise_scale(surface, of="training_set", probes=100, seed=seed)
    check.estimate(found.noise_curvature, exact)
    check.twin(found.noise_curvature.z(4 * exact), "four times")


def test_mini_batches_with_batch_normalisation():
    """The batches' own gradients, their scatter times the batch size, ragged rest left out."""
    surface = classifier(norm=True)
    with pytest.raises(UnsoundError, match=r"method='batches'"):
        neural.gradient_noise_scale(surface)
    found = neural.gradient_noise_scale(
        surface, method="batches", batch_size=8, of="training_set", hessian=False
    )
    assert found.n_examples == 56
    order = np.argsort(neural.noise_scale.random.uniforms(0, 2**32 - 1, 61), kind="stable")
    G = []
    for k in range(7):
        some = order[8 * k : 8 * k + 8]
        own = neural.NeuralSurface(surface.module, (surface.X[some], surface.y[some]), l2=0.05)
        G.append(own.gradient(surface.flat()))
    G = np.array(G)
    assert found.trace.value == pytest.approx(8 * G.var(axis=0).sum(), rel=1e-12)
    assert found.gradient_squared.value == pytest.approx((G.mean(axis=0) ** 2).sum(), rel=1e-12)
    assert np.isnan(found.values[2:]).all() and not found.full.resolved
    whole = neural.gradient_noise_scale(surface, method="batches", batch_size=8)
    own = Derivatives(surface, None, None, order[:56])
    H, g = own.hessian(), G.mean(axis=0)
    noisy = 8 * np.trace(H @ np.cov(G.T))
    assert whole.noise_curvature.value == pytest.approx(noisy, rel=1e-10)
    assert whole.curvature.value == pytest.approx(g @ H @ g - noisy / 56, rel=1e-10)


@pytest.mark.parametrize("memory", [2**28, 2_000])
def test_batches_of_one_are_examples(memory, monkeypatch):
    monkeypatch.setattr(noise_scale, "MEMORY", memory)
    surface = classifier()
    options = {"of": "training_set", "probes": 3, "seed": 2}
    a = neural.gradient_noise_scale(surface, **options)
    b = neural.gradient_noise_scale(surface, method="batches", batch_size=1, **options)
    np.testing.assert_allclose(a.values, b.values, rtol=1e-10)
    np.testing.assert_allclose(a.covariance, b.covariance, rtol=1e-8, atol=1e-16)


# --- a known population ---------------------------------------------------------------------------

THETA = np.array([0.6, 2.2, 2.4])  # where the slope is (w - 1, 2, 3) = e
NOISE = 0.5


def population():
    """u ~ N(0, I), v = w.u + noise: H = I, Sigma = (|e|^2 + s^2) I + e e' by Isserlis."""
    e = THETA - np.arange(1.0, 4)
    trace = 3 * (e @ e + NOISE**2) + e @ e
    return np.array([trace, e @ e, e @ e, trace])


@statistical(comparisons=18, seed=11, smoke=False)
def test_intervals_cover_the_population_as_often_as_they_say(seed, check):
    """100 samples of 300: unbiased, and 95 % of the intervals hold the truth."""
    truth = population()
    found = []
    for k in range(100):
        surface, _, _ = least_squares(n=300, seed=10_000 * seed + k, noise=NOISE)
        found.append(neural.gradient_noise_scale(surface, THETA))
    values = np.array([f.values for f in found])
    error = values.std(axis=0, ddof=1) / 10
    check.z((values.mean(axis=0) - truth) / error, "means", dof=99)
    check.twin((values.mean(axis=0) - 1.3 * truth) / error, "a third more")
    stated = np.array([np.sqrt(np.diag(f.covariance)) for f in found])
    t = np.abs((values - truth) / stated)
    for k, name in enumerate(("trace", "squared", "curvature", "noise curvature")):
        inside = int((t[:, k] < stats.t.isf(0.025, 31)).sum())
        check.count(inside, 100, 0.94, name)  # skewed: the normal law is a little short
    check.count(sum(truth[0] / truth[1] in f.simple for f in found), 100, 0.94, "B_simple")
    check.count(sum(truth[3] / truth[2] in f.full for f in found), 100, 0.94, "B_noise")


@statistical(comparisons=2, seed=2, smoke=False)
def test_near_interpolation_it_says_that_it_cannot_tell(seed, check):
    """At the population's minimum |G|^2 = 0: no negative scale, a bound instead."""
    found = []
    for k in range(60):
        surface, _, _ = least_squares(n=200, seed=10_000 * seed + k)
        found.append(neural.gradient_noise_scale(surface, np.arange(1.0, 4)))
    unresolved = [f for f in found if not f.simple.resolved]
    check.holds(len(unresolved) >= 50, 1e-4, "cannot tell")  # at least 95 % but for chance
    assert any(f.gradient_squared.value < 0 for f in found)
    for f in unresolved:
        assert np.isnan(f.simple.value) and f.simple.high == np.inf and f.simple.low >= 0
        assert "cannot tell" in str(f.simple) and "interpolation" in f.simple.reason
    bounds = [f.simple.low for f in unresolved]
    assert np.median(bounds) > 20  # a useful one: 200 examples see scales below that
    away, _, _ = least_squares(n=200, seed=5)
    resolved = neural.gradient_noise_scale(away, THETA).simple
    check.twin(100.0 if resolved.resolved else 0.0, "away from the minimum it can tell")


def test_fieller_s_interval_by_hand():
    covariance = np.array([[0.04, 0.0], [0.0, 0.01]])
    found = intervals.ratio(4.0, 2.0, covariance, 10**9, 0.95, "why")
    t = stats.norm.isf(0.025)
    for r in (found.low, found.high):
        assert (4 - 2 * r) ** 2 == pytest.approx(t**2 * (0.04 + 0.01 * r**2))
    unknown = intervals.ratio(4.0, 0.1, covariance, 10**9, 0.95, "why")
    assert not unknown.resolved and unknown.high == np.inf
    r = unknown.low
    assert (4 - 0.1 * r) ** 2 == pytest.approx(t**2 * (0.04 + 0.01 * r**2)) and r > 1
    negative = intervals.ratio(4.0, -1.0, covariance, 10**9, 0.95, "why")
    assert not negative.resolved


@pytest.mark.parametrize(
    "options",
    [
        {"of": "data"},
        {"method": "one"},
        {"n": 1},
        {"batch_size": 40, "method": "batches"},
        {"confidence": 1.0},
    ],
)
def test_what_is_refused(options):
    with pytest.raises(ParameterError):
        neural.gradient_noise_scale(classifier(), **options)


@pytest.mark.parametrize("of, fewest, most", [("training_set", 1, 2), ("population", 32, 40)])
def test_only_a_population_is_left_out_block_by_block(monkeypatch, of, fewest, most):
    """Products with many small blocks took ten times as long, for nothing."""
    X = torch.as_tensor(np.random.default_rng(5).normal(size=(64, 3)))
    surface = neural.NeuralSurface(torch.nn.Linear(3, 2), (X, (X[:, 0] > 0).long()))
    calls, product = [], Derivatives.product
    monkeypatch.setattr(Derivatives, "product", lambda *a: calls.append(1) or product(*a))
    neural.gradient_noise_scale(surface, of=of, dtype="float64")
    assert fewest <= len(calls) <= most


def test_the_simple_scale_needs_no_hessian():
    """Without H the other two numbers are NaN, which must not spread."""
    X = torch.as_tensor(np.random.default_rng(6).normal(size=(64, 3)))
    surface = neural.NeuralSurface(torch.nn.Linear(3, 2), (X, (X[:, 0] > 0).long()))
    whole, first = (
        neural.gradient_noise_scale(surface, np.zeros(8), dtype="float64", hessian=h)
        for h in (True, False)
    )
    assert first.simple.resolved
    assert first.simple.low == pytest.approx(whole.simple.low, rel=1e-12)
    assert first.simple.value == pytest.approx(whole.simple.value, rel=1e-12)
    assert not first.full.resolved and not first.learning_rate(8).resolved
