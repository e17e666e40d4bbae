"""Derivatives and curvature of networks, against brute force."""

import numpy as np
import pytest
from kit import statistical

from langevin.errors import ConvergenceWarning, ParameterError, UnsoundError

torch = pytest.importorskip("torch", reason="needs torch: pip install .[neural]")

from measured import brute_gradients, brute_hessian, classifier, numbers, whole_loss  # noqa: E402
from torch import nn  # noqa: E402

import langevin as lv  # noqa: E402
from langevin import neural  # noqa: E402
from langevin.neural import curvature, derivatives, probes, spectrum  # noqa: E402
from langevin.neural.derivatives import Derivatives  # noqa: E402

CASES = {
    "plain": {},
    "batch": {"norm": True},
    "recalibrate": {"norm": True, "batch_norm": "recalibrate"},
    "eval": {"norm": True, "batch_norm": "eval"},
}


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def iterative(monkeypatch):
    """Small networks are treated as large ones are."""
    for module in (curvature, spectrum):
        monkeypatch.setattr(module, "EXACT_DIM", 0)


@pytest.fixture(params=CASES)
def surface(request):
    return classifier(**CASES[request.param])


# --- derivatives ----------------------------------------------------------------------------------


@pytest.mark.parametrize("at_once", [7, 1024])  # 61 = 8 * 7 + 5: ragged
def test_gradients_and_products_are_those_of_one_piece(surface, at_once, monkeypatch):
    monkeypatch.setattr(derivatives, "AT_ONCE", at_once)
    theta = surface.flat() + 0.1
    own = Derivatives(surface, theta)
    leaf = torch.tensor(theta, requires_grad=True)
    loss = whole_loss(surface)(leaf)
    slope = torch.autograd.grad(loss, leaf)[0].numpy()
    H = brute_hessian(surface, theta)
    value, gradient = own.value_and_gradient()
    assert abs(value - loss.item()) < 1e-14 and abs(own.loss() - loss.item()) < 1e-14
    np.testing.assert_allclose(gradient.numpy(), slope, rtol=0, atol=1e-14)
    np.testing.assert_allclose(surface.gradient(theta), slope, rtol=0, atol=1e-14)
    np.testing.assert_allclose(own.hessian(), H, rtol=0, atol=1e-13)
    V = numbers(surface.dim, 5, seed=3).numpy()
    np.testing.assert_allclose(own.product(V).numpy(), H @ V, rtol=0, atol=1e-12)
    np.testing.assert_allclose(own.product(V[:, 0]).numpy(), H @ V[:, 0], rtol=0, atol=1e-12)
    monkeypatch.setattr(derivatives, "TOGETHER", 2 * surface.dim)  # a large network: two at once
    np.testing.assert_allclose(own.product(V).numpy(), H @ V, rtol=0, atol=1e-12)
    monkeypatch.setattr(derivatives, "TOGETHER", 1)
    np.testing.assert_allclose(own.product(V).numpy(), H @ V, rtol=0, atol=1e-12)
    difference = own.finite_difference(V[:, 0]).numpy()
    np.testing.assert_allclose(difference, H @ V[:, 0], rtol=1e-8, atol=1e-8)
    assert np.abs(difference - H @ V[:, 0]).max() > 1e-13  # it is another way


@pytest.mark.parametrize("case", ["plain", "eval"])
def test_gradients_of_examples(case, monkeypatch):
    monkeypatch.setattr(derivatives, "AT_ONCE", 9)
    surface = classifier(**CASES[case])
    own = Derivatives(surface)
    G = torch.cat([g for _, g in own.batches_of_gradients()]).numpy()
    np.testing.assert_allclose(G, brute_gradients(surface), rtol=0, atol=1e-14)
    weights = numbers(20, seed=5).numpy()
    found = own.weighted_gradient(weights, 10, 30).numpy()
    np.testing.assert_allclose(found, weights @ G[10:30], rtol=0, atol=1e-13)
    monkeypatch.setattr(torch.func, "vmap", None)  # a module that vmap refuses: one at a time
    alone = torch.cat([g for _, g in own.batches_of_gradients()]).numpy()
    np.testing.assert_allclose(alone, G, rtol=0, atol=1e-14)


def test_blocks_of_examples_add_up_to_the_whole():
    surface = classifier()
    own, v = Derivatives(surface), numbers(surface.dim).numpy()
    total = sum((b - a) * own.product(v, a, b).numpy() for a, b in derivatives.blocks(61, 8))
    np.testing.assert_allclose(total / 61, own.product(v).numpy(), rtol=0, atol=1e-14)


def test_what_has_no_gradient_of_one_example_is_refused():
    own = Derivatives(classifier(norm=True))
    with pytest.raises(UnsoundError, match="examples depend on each other"):
        own.example_gradients(slice(0, 3))


@pytest.mark.parametrize("at", [np.zeros(3), np.full(51, np.nan), "module", nn.Linear(2, 2)])
def test_other_parameters_are_refused(at):
    with pytest.raises(ParameterError, match=r"needed: 51 finite numbers"):
        neural.hessian_trace(classifier(), at)


def test_a_linear_loss_has_no_curvature():
    surface = neural.NeuralSurface(
        nn.Linear(2, 1).double(), (numbers(5, 2), numbers(5)), loss="output"
    )
    assert not neural.hessian(surface).any()


# --- eigenvalues ----------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["largest", "smallest", "magnitude"])
def test_eigenvalues(surface, which, iterative):
    theta = surface.flat() * 1.5
    H = brute_hessian(surface, theta)
    values = np.linalg.eigvalsh(H)
    order = {"largest": -values, "smallest": values, "magnitude": -np.abs(values)}[which]
    expected = -np.sort(-values[np.argsort(order)[:3]])
    found = neural.top_eigenvalues(surface, 3, theta, which=which, tolerance=1e-10)
    assert found.converged and found.products < 400
    np.testing.assert_allclose(found.values, expected, rtol=0, atol=1e-10)
    again = H @ found.vectors - found.vectors * found.values
    np.testing.assert_allclose(found.residuals, np.linalg.norm(again, axis=0), rtol=0, atol=1e-13)


def test_small_networks_are_solved_densely():
    found = neural.top_eigenvalues(classifier(), 2)
    expected = np.linalg.eigvalsh(brute_hessian(classifier()))[:-3:-1]
    np.testing.assert_allclose(found.values, expected, rtol=0, atol=1e-13)


def test_eigenvalues_that_did_not_converge_are_said_to(iterative):
    with pytest.warns(ConvergenceWarning, match="Raise max_products"):
        found = neural.top_eigenvalues(
            classifier(), 2, which="smallest", tolerance=1e-13, max_products=1
        )
    assert not (found.converged and len(found.values) == 2)


def test_finite_differences_find_the_same(iterative):
    surface = classifier()
    options = {"product": "finite_difference"}
    a = neural.top_eigenvalues(surface, 2, tolerance=1e-6)
    b = neural.top_eigenvalues(surface, 2, tolerance=1e-6, **options)
    np.testing.assert_allclose(a.values, b.values, rtol=1e-8)
    a, b = (neural.hessian_norm(surface, probes=16, **o) for o in ({}, options))
    assert abs(a.value - b.value) < 1e-7 * a.value and a.value != b.value


def test_single_precision_states_what_it_reaches(iterative):
    surface = classifier()
    found = neural.top_eigenvalues(surface, 2, dtype="float32")
    expected = np.linalg.eigvalsh(brute_hessian(surface))[:-3:-1]
    assert found.tolerance == 1e-4 and found.converged
    np.testing.assert_allclose(found.values, expected, rtol=1e-5)


# --- trace and norm -------------------------------------------------------------------------------


def test_trace_and_norm_are_exact_on_small_networks(surface):
    H = brute_hessian(surface)
    trace, norm = neural.hessian_trace(surface), neural.hessian_norm(surface)
    assert trace.exact and norm.exact
    assert abs(trace.value - np.trace(H)) < 1e-12 and abs(norm.value - np.linalg.norm(H)) < 1e-12


@pytest.mark.parametrize(
    "measure, options, truth",
    [
        (neural.hessian_trace, {"method": "hutchinson"}, np.trace),
        (neural.hessian_trace, {"method": "hutch++"}, np.trace),
        (neural.hessian_norm, {}, np.linalg.norm),
    ],
)
@statistical(comparisons=3, seed=7, smoke=False)
def test_estimates_cover_the_truth_as_often_as_they_say(seed, check, measure, options, truth):
    """100 repetitions: the mean is right, and two standard errors hold 95 %."""
    from scipy import stats

    surface = classifier()
    expected = truth(brute_hessian(surface))
    found = [measure(surface, probes=24, seed=100 * seed + k, **options) for k in range(100)]
    t = np.array([(f.value - expected) / f.stderr for f in found])
    bar = stats.t.isf(0.025, found[0].dof)
    check.count(int((np.abs(t) < bar).sum()), 100, 0.95, "coverage")
    values = np.array([f.value for f in found])
    check.z((values.mean() - expected) / (values.std(ddof=1) / 10), "mean", dof=99)
    check.twin((values.mean() - 1.3 * expected) / (values.std(ddof=1) / 10), "a third more")


def test_a_tolerance_ends_the_probing():
    surface = classifier()
    found = neural.hessian_norm(surface, probes=10_000, tolerance=0.02)
    assert found.probes < 1_000 and found.stderr <= 0.02 * found.value
    traced = neural.hessian_trace(surface, probes=10_000, method="hutchinson", tolerance=0.05)
    assert traced.probes < 1_000 and traced.stderr <= 0.05 * traced.value


# --- spectrum -------------------------------------------------------------------------------------


def test_the_spectrum_of_a_small_network_is_its_eigenvalues(surface):
    values = np.linalg.eigvalsh(brute_hessian(surface))
    found = neural.spectral_density(surface)
    np.testing.assert_allclose(found.nodes[0], values, rtol=0, atol=1e-13)
    half = (values[20] + values[21]) / 2
    mass = found.mass(high=half)
    assert mass.value == mass.low == mass.high == pytest.approx(21 / surface.dim)
    assert mass.stderr == 0 and found.truncation == 0


def test_lanczos_that_exhausts_its_space_has_no_truncation():
    surface = classifier(l2=0.3)
    values, vectors = np.linalg.eigh(brute_hessian(surface))
    found = neural.spectral_density(surface, probes=3, steps=1_000)
    assert all(found.exhausted) and found.truncation < 1e-12
    half = np.mean(values[np.argmax(np.diff(values)) + np.arange(2)])  # in the widest gap
    for j in range(3):
        z = probes.signs(0, j, surface.dim)
        expected = ((vectors.T @ z) ** 2)[values < half].sum() / surface.dim
        x, w = found.nodes[j], found.weights[j]
        assert abs(w[x < half].sum() - expected) < 1e-8


def test_the_bounds_of_a_mass_hold_and_shrink():
    surface = classifier(hidden=12)
    values, vectors = np.linalg.eigh(brute_hessian(surface))
    weight = (vectors.T @ probes.signs(0, 0, surface.dim)) ** 2 / surface.dim
    widths = []
    for steps in (8, 20, 45):
        found = neural.spectral_density(surface, probes=1, steps=steps)
        inner = ((values[1:] + values[:-1]) / 2)[np.diff(values) > 1e-6]
        for x in inner:
            mass = found.mass(high=x)
            assert mass.low - 1e-12 <= weight[values < x].sum() <= mass.high + 1e-12
        widths.append(np.mean([found.mass(high=x).high - found.mass(high=x).low for x in inner]))
    assert widths[0] > 1.5 * widths[1] > 2 * widths[2]
    moment = found.average(lambda x: x**3).value  # Gauss quadrature: exact for one probe
    assert abs(moment - weight @ values**3) < 1e-12


def test_a_smoothed_density_integrates_to_one():
    surface = classifier()
    found = neural.spectral_density(surface, probes=4, steps=20)
    x = np.linspace(-3, 5, 4_001)
    value, error = found.density(x, 0.05)
    assert abs(value.sum() * (x[1] - x[0]) - 1) < 1e-9 and (error >= 0).all()


@statistical(comparisons=3, seed=3, smoke=False)
def test_the_spectrum_s_moments_cover_the_truth(seed, check):
    from scipy import stats

    surface = classifier()
    values = np.linalg.eigvalsh(brute_hessian(surface))
    found = [neural.spectral_density(surface, probes=6, steps=4, seed=100 * seed + k)
             for k in range(100)]  # fmt: skip
    second = [f.average(np.square) for f in found]
    t = np.array([(e.value - np.mean(values**2)) / e.stderr for e in second])
    check.count(int((np.abs(t) < stats.t.isf(0.025, 5)).sum()), 100, 0.95, "coverage")
    each = np.array([e.value for e in second])
    check.z((each.mean() - np.mean(values**2)) / (each.std(ddof=1) / 10), "mean", dof=99)
    check.twin((each.mean() - np.mean(values) ** 2) / (each.std(ddof=1) / 10), "squared too late")


# --- another package, and training ----------------------------------------------------------------


def test_curvlinops_finds_the_same_products():
    curvlinops = pytest.importorskip("curvlinops", reason="needs curvlinops-for-pytorch")
    surface = classifier(l2=0.0)
    params, v = dict(surface.module.named_parameters()), numbers(surface.dim, seed=2)
    pairs = [(surface.X[:40], surface.y[:40]), (surface.X[40:], surface.y[40:])]
    other = curvlinops.HessianLinearOperator(
        surface.module, nn.CrossEntropyLoss(), list(params.values()), pairs
    )
    own = neural.hessian_operator(surface)
    np.testing.assert_allclose(own @ v.numpy(), (other @ v).numpy(), rtol=0, atol=1e-13)


def test_the_norm_is_observed_in_training():
    surface = classifier(l2=0.05)
    result = lv.simulate(
        surface, lv.SGD(0.1, 10), n_replicas=3, n_steps=20, seed=1, progress=False,
        observe=(neural.HessianNorm(every=10),), start="module",
    )  # fmt: skip
    series = result["hessian_norm"]
    assert series.values.shape == (3, 2)
    expected = [np.linalg.norm(brute_hessian(surface, theta)) for theta in result.positions]
    np.testing.assert_allclose(series.final, expected, rtol=0, atol=1e-12)


def test_probes_are_signs_and_normals():
    z = probes.signs(3, 1, 100_001)
    assert set(np.unique(z)) == {-1.0, 1.0} and abs(z.sum()) < 1_500
    assert not np.array_equal(z, probes.signs(3, 2, 100_001))
    assert not np.array_equal(z, probes.signs(4, 1, 100_001))
    np.testing.assert_array_equal(z[:500], probes.signs(3, 1, 500))
    x, u = probes.normals(3, 0, 100_001), probes.uniforms(3, 0, 100_001)
    assert len(x) == len(u) == 100_001
    assert abs(x.mean()) < 0.015 and abs(x.std() - 1) < 0.01 and abs(u.mean() - 0.5) < 0.005


def test_gradients_of_many_rows_go_through_the_examples_in_parts(monkeypatch):
    from langevin.neural import evaluation

    surface = classifier()
    points = surface.flat() + 0.1 * numbers(5, surface.dim, seed=8).numpy()
    energy, gradient = surface.energy(points), surface.gradient(points)
    monkeypatch.setattr(evaluation, "CHUNK", 5 * 7)  # 61 = 8 * 7 + 5 examples
    np.testing.assert_allclose(surface.gradient(points), gradient, rtol=0, atol=1e-14)
    np.testing.assert_allclose(surface.energy(points), energy, rtol=0, atol=1e-14)
