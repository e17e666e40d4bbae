"""predict.quadratic against closed forms, Lyapunov solves and every possible mini-batch."""

from itertools import combinations, product

import laws
import numpy as np
import pytest
from cases import Anisotropic, parabola, regression, tilted
from scipy.linalg import solve_discrete_lyapunov

from langevin import predict
from langevin.dynamics import SGD, Overdamped
from langevin.errors import ParameterError, UnsoundError
from langevin.surfaces.expression import Surface
from langevin.surfaces.noise import Isotropic


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


# --- Nesterov and weight decay --------------------------------------------------------------------


def lyapunov(h, c, eta, m, nesterov):
    """Stationary covariance of (x, buf) by scipy, from the recursion as PyTorch writes it."""
    eye = np.eye(len(h))
    buffer = np.block([h, m * eye])  # buf' = m buf + H x + n
    moved = np.block([h, 0 * eye]) + m * buffer if nesterov else buffer
    f = np.vstack([np.block([eye, 0 * eye]) - eta * moved, buffer])
    q = np.vstack([-eta * (1 + m) * eye if nesterov else -eta * eye, eye])
    return solve_discrete_lyapunov(f, q @ c @ q.T)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("decay", [0.0, 0.7])
def test_nesterov_and_weight_decay_are_exact(nesterov, decay):
    h = np.array([[2.0, 0.7, 0.1], [0.7, 1.0, -0.3], [0.1, -0.3, 0.5]])
    c = np.array([[1.0, 0.2, 0.4], [0.2, 0.3, 0.0], [0.4, 0.0, 0.6]])
    surface = Anisotropic(h, c)
    dynamics = SGD(0.2, 4.0, momentum=0.7, nesterov=nesterov, weight_decay=decay)
    found = predict.quadratic(surface, dynamics)
    exact = lyapunov(h + decay * np.eye(3), c / 4, 0.2, 0.7, nesterov)
    assert np.allclose(found.covariance, exact, rtol=1e-9, atol=1e-12)
    other = lyapunov(h + decay * np.eye(3), c / 4, 0.2, 0.7, not nesterov)
    assert not np.allclose(found.covariance, other, rtol=1e-3)


def test_weight_decay_moves_the_minimum():
    surface = Surface("(x - 1)**2 + 2*y**2", noise=Isotropic(1.0))
    law = predict.quadratic(surface, SGD(0.1, weight_decay=2.0))
    assert np.allclose(law.mean, [0.5, 0.0])
    assert np.allclose(law.covariance, np.diag([0.1 / (4 * 1.6), 0.1 / (6 * 1.4)]))


def test_nesterov_diverges_earlier():
    surface = Surface("x**2/2", noise=Isotropic(1.0))
    bound = 2 * 1.9 / 2.8
    predict.quadratic(surface, SGD(0.999 * bound, momentum=0.9, nesterov=True))
    with pytest.raises(UnsoundError, match=f"{bound:.6g}"):
        predict.quadratic(surface, SGD(1.001 * bound, momentum=0.9, nesterov=True))
