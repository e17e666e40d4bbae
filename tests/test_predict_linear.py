"""predict.quadratic for every linear integrator, its law in time, its currents."""

import laws
import numpy as np
import pytest
from cases import Anisotropic, form, parabola, regression
from kit import replicas, statistical
from scipy import stats

import langevin as lv
from langevin import predict
from langevin.errors import ParameterError, UnsoundError

H = np.array([[2.0, 0.6, -0.3], [0.6, 1.2, 0.2], [-0.3, 0.2, 0.7]])
MASSES = np.array([0.5, 1.0, 3.0])
OVERDAMPED = ("euler_maruyama", "heun", "leimkuhler_matthews", "exact")
SURFACE = form(H)


def close(found, expected, tolerance=1e-10):
    return np.abs(found - expected).max() < tolerance * np.abs(expected).max()


@pytest.mark.parametrize("integrator", OVERDAMPED)
def test_overdamped_integrators(integrator):
    for dt in (1e-4, 0.05, 0.7):
        law = predict.quadratic(SURFACE, lv.Overdamped(0.3, dt, integrator))
        assert law.covariance.shape == (3, 3) and law.gaussian
        assert close(law.covariance, laws.overdamped(integrator, H, 0.3, dt))
        assert not close(law.covariance, laws.overdamped(integrator, H, 0.6, dt), 0.1)  # twin
        assert np.abs(law.circulation).max() < 1e-13
    if integrator == "exact":
        assert close(predict.quadratic(SURFACE, lv.Overdamped(0.3, 9.0, integrator)).covariance,
                     0.3 * np.linalg.inv(H))  # fmt: skip


def velocity_form(step, noise, masses):
    """(q, p) of tests/laws.py as (x, v)."""
    scale = np.diag(np.concatenate([np.ones(len(masses)), 1 / masses]))
    return scale @ step @ np.linalg.inv(scale), scale @ noise @ scale


@pytest.mark.parametrize(
    "letters", ["BAOAB", "ABOBA", "OBABO", "OABAO", "BAO", "OBA", "BABO", "BAOABOBA", "OBAABO"]
)
def test_every_splitting_with_masses(letters):
    T, gamma, dt = 0.3, 0.8, 0.4
    law = predict.quadratic(SURFACE, lv.Underdamped(T, gamma, dt, letters, masses=MASSES))
    chain = laws.splitting_chain(letters, H, MASSES, T, gamma, dt)
    expected = laws.linear_law(*velocity_form(*chain, MASSES))
    assert law.covariance.shape == (6, 6)
    assert close(law.covariance, expected)
    assert law.moments()[1] == pytest.approx(law.covariance[:3, :3])
    assert np.abs(law.circulation).max() < 1e-13
    wrong = laws.splitting_chain(letters[::-1] + "A", H, MASSES, T, gamma, dt)
    assert not close(law.covariance, laws.linear_law(*velocity_form(*wrong, MASSES)), 1e-6)


@pytest.mark.parametrize("letters", ["BAOAB", "ABOBA", "OBABO", "OABAO"])
@pytest.mark.parametrize("gamma", [1e-3, 1.0, 50.0])
def test_the_table_of_splittings_holds_at_every_friction(letters, gamma):
    T, dt = 0.3, 0.5
    law = predict.quadratic(SURFACE, lv.Underdamped(T, gamma, dt, letters, masses=MASSES))
    q, p = laws.splitting_table(letters, H, MASSES, T, dt)
    assert close(law.covariance[:3, :3], q)
    assert close(law.covariance[3:, 3:], p / np.outer(MASSES, MASSES))
    other = {"BAOAB": "OBABO", "ABOBA": "OABAO", "OBABO": "OABAO", "OABAO": "OBABO"}[letters]
    assert not close(law.covariance[:3, :3], laws.splitting_table(other, H, MASSES, T, dt)[0], 1e-3)


def test_thermal_noise_on_data():
    surface, _, _ = regression(6, 2, seed=5)
    law = predict.quadratic(surface, lv.Overdamped(0.2, 0.1, "leimkuhler_matthews"))
    h = surface.hessian(np.zeros(2))
    assert close(law.covariance, 0.2 * np.linalg.inv(h))
    assert law.mean == pytest.approx(surface.minima()[0].position)


def test_refusals():
    with pytest.raises(UnsoundError, match=r"dt below 2\. Reduce"):  # leapfrog: dt omega < 2
        predict.quadratic(parabola(1.0), lv.Underdamped(0.3, 1.0, 2.1))
    predict.quadratic(parabola(1.0), lv.Underdamped(0.3, 1.0, 1.99))
    for integrator in ("heun", "leimkuhler_matthews"):
        with pytest.raises(UnsoundError, match=r"dt below 0\.5"):
            predict.quadratic(parabola(4.0), lv.Overdamped(0.3, 0.51, integrator))
    with pytest.raises(UnsoundError, match="friction"):
        predict.quadratic(parabola(1.0), lv.Underdamped(0.3, 0.0, 0.1))
    with pytest.raises(ParameterError, match="masses"):
        predict.quadratic(SURFACE, lv.Underdamped(0.3, 1.0, 0.1, masses=[1.0, 2.0]))
    with pytest.raises(ParameterError, match="per replica"):
        predict.quadratic(SURFACE, lv.Underdamped(np.ones(4), 1.0, 0.1))
    with pytest.raises(UnsoundError, match="not constant"):
        predict.quadratic(lv.Surface("x**4"), lv.Underdamped(0.3, 1.0, 0.1))


# --- the law in time ------------------------------------------------------------------------------


def recursion(step, kick, start, n):
    mean, spread = np.array(start, dtype=float), np.zeros_like(step)
    for _ in range(n):
        mean, spread = step @ mean, step @ spread @ step.T + kick
    return mean, spread


@pytest.mark.parametrize("n", [1, 2, 7, 40])
@pytest.mark.parametrize("m, nesterov", [(0.0, False), (0.8, False), (0.8, True)])
def test_sgd_at_a_step(m, nesterov, n):
    c = np.array([[1.0, 0.2, 0.0], [0.2, 2.0, 0.4], [0.0, 0.4, 0.5]])
    law = predict.quadratic(Anisotropic(H, c), lv.SGD(0.1, 4.0, momentum=m, nesterov=nesterov))
    x0 = np.array([1.0, -2.0, 0.5])
    step, into = laws.descent(H, 0.1, m, nesterov=nesterov)
    mean, spread = recursion(step, into @ (c / 4) @ into.T, [*x0, 0, 0, 0], n)
    at = law.at(n, x0)
    assert close(at.moments()[0], mean[:3], 1e-12)
    assert close(at.moments()[1], spread[:3, :3], 1e-12)
    assert at.covariance.shape == law.covariance.shape
    assert close(law.at(100_000).moments()[1], law.moments()[1])


@pytest.mark.parametrize("n", [1, 3, 20])
def test_langevin_at_a_step(n):
    x0 = np.array([1.0, -2.0, 0.5])
    chain = laws.splitting_chain("BAOAB", H, MASSES, 0.3, 0.8, 0.4)
    mean, spread = recursion(*velocity_form(*chain, MASSES), [*x0, 0, 0, 0], n)
    at = predict.quadratic(SURFACE, lv.Underdamped(0.3, 0.8, 0.4, masses=MASSES)).at(n, x0)
    assert close(at.moments()[0], mean[:3]) and close(at.covariance, spread)
    # Leimkuhler-Matthews starts without a noise to carry: (x, xi) by hand.
    b, eye, zero = np.sqrt(2 * 0.3 * 0.1) / 2, np.eye(3), np.zeros((3, 3))
    step = np.block([[eye - 0.1 * H, b * eye], [zero, zero]])
    into = np.vstack([b * eye, eye])
    mean, spread = recursion(step, into @ into.T, [*x0, 0, 0, 0], n)
    at = predict.quadratic(SURFACE, lv.Overdamped(0.3, 0.1, "leimkuhler_matthews")).at(n, x0)
    assert close(at.moments()[0], mean[:3]) and close(at.moments()[1], spread[:3, :3])
    assert at.covariance.shape == (3, 3)


@statistical(comparisons=2, seed=4)
def test_the_law_at_a_step_is_what_a_run_has(seed, check):
    dynamics = lv.Underdamped(0.3, 0.8, 0.4)
    n, start = replicas(40_000), [1.5]
    run = lv.simulate(parabola(1.3), dynamics, n_replicas=n, n_steps=5, seed=seed, start=start,
                      progress=False)  # fmt: skip
    at = predict.quadratic(parabola(1.3), dynamics).at(5, start)
    (mean,), ((variance,),) = at.moments()
    x = run.positions[:, 0]
    check.z((x.mean() - mean) / np.sqrt(variance / n), "mean")
    squares = n * x.var() / variance  # chi-square
    check.p(2 * min(stats.chi2.cdf(squares, n - 1), stats.chi2.sf(squares, n - 1)), "variance")
    early = predict.quadratic(parabola(1.3), dynamics).at(4, start).moments()
    check.twin((x.mean() - early[0][0]) / np.sqrt(variance / n), "a step early")


def test_several_starts_share():
    law = predict.quadratic(parabola(2.0), lv.SGD(0.1, 4.0))
    at = law.at(3, [[-1.0], [2.0]])
    ends = [law.at(3, [s]) for s in (-1.0, 2.0)]
    x = np.linspace(-2, 2, 7)
    assert at.cdf(x) == pytest.approx(sum(e.cdf(x) for e in ends) / 2)
    assert at.density(x[:, None]) == pytest.approx(sum(e.density(x[:, None]) for e in ends) / 2)
    assert at.occupation() == pytest.approx([1.0]) and at.ratio(0, 0) == 1.0
    assert "step 3" in at.name
    for step, start in ((0, None), (1.5, None), (True, None), (2, [0.0, 1.0]), (2, [np.nan])):
        with pytest.raises(ParameterError, match="at"):
            law.at(step, start)
    with pytest.raises(ParameterError, match="one minimum"):
        at.ratio(0, 1)
    surface, _, _ = regression(4, 1, seed=1)
    with pytest.raises(UnsoundError, match="Simulate"):
        predict.quadratic(surface, lv.SGD(0.01, 2)).at(3)


# --- currents -------------------------------------------------------------------------------------


def swapped_divergence(step, kick):
    """KL of (y, y') from (y', y) in the stationary law: the definition itself."""
    s = laws.linear_law(step, kick)
    joint = np.block([[s, s @ step.T], [step @ s, s]])
    d = len(s)
    order = [*range(d, 2 * d), *range(d)]
    back = joint[np.ix_(order, order)]
    return (np.trace(np.linalg.solve(back, joint)) - 2 * d) / 2


def test_entropy_production():
    c = np.array([[1.0, 0.2, 0.0], [0.2, 2.0, 0.4], [0.0, 0.4, 0.5]])
    law = predict.quadratic(Anisotropic(H, c), lv.SGD(0.1, 4.0))
    step, kick = np.eye(3) - 0.1 * H, 0.01 * c / 4
    assert law.entropy_production == pytest.approx(swapped_divergence(step, kick), rel=1e-9)
    assert law.entropy_production > 1e-4 and np.abs(law.circulation).max() > 1e-4
    for dynamics in (lv.SGD(0.1, 4.0), lv.Overdamped(0.3, 0.1, "heun")):
        assert abs(predict.quadratic(SURFACE, dynamics).entropy_production) < 1e-13
    surface, _, _ = regression(4, 1, seed=1)
    for other, dynamics in (
        (SURFACE, lv.SGD(0.1, momentum=0.5)),
        (SURFACE, lv.Underdamped(0.3, 1.0, 0.1)),
        (surface, lv.SGD(0.01, 2)),
        (Anisotropic(np.eye(2), np.diag([1.0, 0.0])), lv.SGD(0.1)),
    ):
        with pytest.raises(UnsoundError, match="circulation"):
            _ = predict.quadratic(other, dynamics).entropy_production
