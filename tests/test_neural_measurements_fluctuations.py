"""Fluctuation-dissipation relations, temperatures, and fluctuations about a trained minimum."""

import numpy as np
import pytest
from kit import statistical
from scipy import optimize

import langevin as lv
from langevin.errors import ParameterError, UnsoundError

torch = pytest.importorskip("torch", reason="needs torch: pip install .[neural]")

from measured import brute_gradients, brute_hessian, classifier, least_squares  # noqa: E402

from langevin import neural  # noqa: E402


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def run(surface, sgd, start, n_replicas, n_steps, burn_in, seed, every=20, **more):
    return lv.simulate(
        surface, sgd, n_replicas=n_replicas, n_steps=n_steps, burn_in=burn_in, seed=seed,
        start=start, progress=False, observe=(neural.FluctuationDissipation(sgd, every=every),),
        **more,
    )  # fmt: skip


def solved():
    surface, u, v = least_squares(n=40, dim=3)
    return surface, np.linalg.lstsq(u, v, rcond=None)[0]


DYNAMICS = {
    "plain": lv.SGD(0.1, 4),
    "momentum": lv.SGD(0.05, 4, momentum=0.8),
    "without": lv.SGD(0.1, 10, momentum=0.3, sampling="without_replacement"),
    "without plain": lv.SGD(0.1, 10, sampling="without_replacement"),
}


@pytest.mark.parametrize("kind", DYNAMICS)
@statistical(comparisons=4, seed=3, dof=119, smoke=False)
def test_the_relations_hold_in_the_stationary_state(seed, check, kind):
    """Both are exact on least squares at any step; both sides are those of predict.quadratic."""
    surface, minimum = solved()
    sgd = DYNAMICS[kind]
    result = run(surface, sgd, minimum, 120, 260, 100, seed)
    found = neural.stationarity(result)
    check.estimate(found.first.difference, 0.0, "first")
    check.estimate(found.second.difference, 0.0, "second")
    data = lv.FiniteSum("(w*u - v)**2/2", data={"u": surface.X.numpy(), "v": surface.y.numpy()})
    covariance = lv.predict.quadratic(data, sgd).covariance[:3, :3]
    H = brute_hessian(surface)
    check.estimate(found.first.left, np.trace(H @ covariance), "virial")
    check.estimate(found.second.left, np.trace(H @ covariance @ H), "gradient")
    assert found.temperature.value == found.first.left.value / 3
    check.twin(found.first.left.z(np.trace(H @ covariance) * 2), "a forgotten 2")
    values = result["fluctuation_dissipation"].values
    assert values.shape == (120, 8, 4) and found.first.windows.shape == (5, 2)


def test_what_is_recorded_are_the_two_sides():
    surface = classifier()
    sgd = lv.SGD(0.1, 10, momentum=0.5)
    result = run(surface, sgd, "module", 2, 10, 0, 1, every=5)
    theta, buf = result.positions[1], result.velocities[1]
    H, g = brute_hessian(surface, theta), surface.gradient(theta)
    expected = [(theta - surface.flat()) @ g, buf @ buf, g @ g, buf @ H @ buf]
    found = result["fluctuation_dissipation"].values[1, -1]
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    half = lv.simulate(
        surface, sgd, n_replicas=2, n_steps=10, seed=1, start="module", progress=False,
        observe=(neural.FluctuationDissipation(sgd, hessian=False, every=5),),
    )  # fmt: skip
    assert np.isnan(half["fluctuation_dissipation"].values[..., 3]).all()
    assert neural.stationarity(half).second is None


@statistical(comparisons=8, seed=8, smoke=False)
def test_verdicts(seed, check):
    surface, minimum = solved()
    sgd, level = lv.SGD(0.05, 4, momentum=0.5), {"significance": 1e-4}
    result = run(surface, sgd, minimum, 60, 400, 100, seed, every=10)
    settled = neural.stationarity(result, **level)
    check.holds(settled.verdict == "stationary", 2e-4, "settled")
    vague = neural.stationarity(result, significance=1e-4, resolution=1e-6)
    check.holds(vague.verdict == "undecided", 1e-4, "a resolution that is not reached")
    far = neural.stationarity(run(surface, sgd, minimum + 3, 20, 30, 0, seed, every=3), **level)
    check.holds(far.verdict == "not stationary", 1e-5, "on its way")
    check.twin(far.first.difference.z(0.0), "on its way")


@pytest.mark.parametrize(
    "sgd",
    [
        lv.SGD(0.1, 4, momentum=0.5, nesterov=True),
        lv.SGD(0.1, 4, weight_decay=0.1),
        lv.SGD(0.1, 4, sampling="epoch_shuffle"),
        lv.SGD(lv.schedules.Cosine(0.1, 10), 4),
    ],
)
def test_dynamics_without_these_relations_are_refused(sgd):
    surface, minimum = solved()
    with pytest.raises(UnsoundError, match="relations"):
        run(surface, sgd, minimum, 2, 10, 0, 1, every=5)


def test_one_replica_has_no_error():
    surface, minimum = solved()
    with pytest.raises(ParameterError, match="two of each"):
        neural.stationarity(run(surface, lv.SGD(0.1, 4), minimum, 1, 20, 0, 1, every=5))


def test_the_temperature_of_isotropic_noise():
    surface, minimum = solved()
    G = brute_gradients(surface, minimum)
    trace = ((G - G.mean(axis=0)) ** 2).sum() / 40
    sgd = lv.SGD(0.1, 5, momentum=0.6, sampling="without_replacement")
    found = neural.effective_temperature(surface, sgd, minimum)
    assert found == pytest.approx(0.1 * trace * (35 / 39) / (2 * 5 * 0.4 * 3), rel=1e-12)


# --- a network about its minimum ------------------------------------------------------------------


def trained(surface):
    theta = optimize.minimize(
        surface.energy, surface.flat(), jac=surface.gradient, method="BFGS", options={"gtol": 1e-9}
    ).x
    return theta - np.linalg.solve(brute_hessian(surface, theta), surface.gradient(theta))


def test_the_local_quadratic_is_the_network_s_to_second_order():
    surface = classifier(l2=0.1)
    theta = trained(surface)
    local = neural.local_quadratic(surface, theta + 1e-5)
    np.testing.assert_allclose(local.position, theta, rtol=0, atol=1e-8)  # a Newton step away
    assert abs(local.bottom - surface.energy(theta)) < 1e-12
    d = 1e-4 * np.ones(surface.dim)
    assert abs(local.energy(theta + d) - surface.energy(theta + d)) < 1e-9
    np.testing.assert_allclose(local.gradient(theta + d), surface.gradient(theta + d), atol=1e-6)
    np.testing.assert_allclose(local.H, brute_hessian(surface, theta), atol=1e-4)
    with pytest.raises(UnsoundError, match="is not positive"):
        neural.local_quadratic(classifier(l2=0.0))


@statistical(comparisons=60, seed=2, dof=255, missed_bug=1e-4, smoke=False)
def test_a_trained_network_fluctuates_as_predicted(seed, check):
    """H and C measured at the minimum, covariance of predict.quadratic, 256 networks."""
    surface = classifier(l2=0.1)
    theta = trained(surface)
    sgd = lv.SGD(0.02, 20, momentum=0.9)
    n = 256
    result = lv.simulate(
        surface, sgd, n_replicas=n, n_steps=250, seed=seed, start=theta, progress=False
    )
    found = neural.weight_fluctuations(surface, sgd, theta, result.positions)
    check.z(found.z, "variances", dof=n - 1)
    check.z(found.excess.z(found.predicted_excess), "excess", dof=n - 1)
    check.twin(found.excess.z(2 * found.predicted_excess), "twice as large")
    once = neural.weight_fluctuations(
        surface, lv.SGD(0.02, 20), theta, result.positions
    )  # momentum forgotten
    check.twin(once.excess.z(once.predicted_excess), "momentum forgotten")
    factor = neural.weight_fluctuations(
        surface, lv.SGD(0.01, 31, sampling="without_replacement"), theta, result.positions
    )
    other = neural.weight_fluctuations(surface, lv.SGD(0.01, 31), theta, result.positions)
    np.testing.assert_allclose(factor.predicted, other.predicted * 30 / 60, rtol=1e-9)
