"""Closed forms that the package is tested against, each written down independently of it."""

import numpy as np
import scipy.linalg
from scipy.integrate import quad


def sgd_variance(eta, c, h):
    """Var x of x <- x - eta (h x + noise), noise of variance c a step."""
    return eta * c / (h * (2 - eta * h))


def heavy_ball(eta, c, h, m):
    """Var x, Cov(x, v) and Var v of v <- m v - eta g, x <- x + v."""
    denominator = 2 * (1 + m) - eta * h
    var_v = 2 * eta**2 * c / ((1 - m) * denominator)
    return eta * c * (1 + m) / (h * (1 - m) * denominator), var_v / 2, var_v


def least_squares_variance(eta, h, c0, c1):
    """E d**2 for 1-D least squares with noise c0 + 2 c01 d + c1 d**2 a step."""
    return eta * c0 / (2 * h - eta * h**2 - eta * c1)


def critical_noise(rise, det_a, det_b, sigma):
    """The eta/S at which a minimum higher by ``rise`` and flatter (det_a < det_b) draws level."""
    return 2 * rise / (sigma**2 * np.log(np.sqrt(det_b / det_a)))


def first_order_ratio_factor(eta, laplacian_a, laplacian_b):
    """What a finite step multiplies p_A/p_B by, to O(eta); Gibbs averages of the Laplacian."""
    return 1 - eta / 4 * (laplacian_a - laplacian_b)


def sampling_factor(n, s, replacement):
    """The variance of a batch mean over that of s independent draws."""
    return 1.0 if replacement else (n - s) / (n - 1)


def mean_first_passage(energy, temperature, start, target, low):
    """Mean time of dx = -U' dt + sqrt(2 T) dW from start to a target above it; U = inf below low.

    ``(1/T) int_start^target e^(U(y)/T) int_low^y e^(-U(z)/T) dz dy``.
    """

    def inner(y):
        return quad(lambda z: np.exp((energy(y) - energy(z)) / temperature), low, y, limit=200)[0]

    return quad(inner, start, target, epsrel=1e-6, limit=200)[0] / temperature


def hitting_time(gradient, temperature, dt, start, target, low, n=400):
    """Mean number of steps in which the Euler-Maruyama chain first exceeds ``target``.

    Solves h = 1 + K h on Gauss-Legendre nodes of (low, target), K the chain's transition density.
    """
    nodes, weights = np.polynomial.legendre.leggauss(n)
    x = low + (target - low) * (nodes + 1) / 2
    weights = weights * (target - low) / 2
    variance = 2 * temperature * dt

    def density(origin):
        mean = origin - dt * gradient(origin)
        away = (x[None, :] - np.atleast_1d(mean)[:, None]) ** 2
        return np.exp(-away / (2 * variance)) / np.sqrt(2 * np.pi * variance) * weights

    h = np.linalg.solve(np.eye(n) - density(x), np.ones(n))
    return 1 + float((density(np.array([start])) @ h)[0])


def lumped(gradient, temperature, dt, threshold, low, high, lag, n=200):
    """The Euler-Maruyama chain as seen in two basins: (P at the lag, stationary law, lambda_2).

    Dense transition matrix on Gauss-Legendre nodes of (low, threshold) and (threshold, high).
    """
    nodes, weights = np.polynomial.legendre.leggauss(n)
    x, w = (
        np.concatenate([a + (b - a) * scaled for a, b in ((low, threshold), (threshold, high))])
        for scaled in ((nodes + 1) / 2, weights / 2)
    )
    w = w - np.repeat([low, threshold], n)  # a + (b - a) w, less a
    away = (x[None, :] - (x - dt * gradient(x))[:, None]) ** 2 / (4 * temperature * dt)
    matrix = np.exp(-away) / np.sqrt(4 * np.pi * temperature * dt) * w
    values, vectors = np.linalg.eig(matrix.T)
    order = np.argsort(-np.abs(values))
    law = np.abs(vectors[:, order[0]].real)
    law /= law.sum()
    members = np.repeat(np.eye(2), n, axis=0)
    share = law @ members
    after = np.linalg.matrix_power(matrix, lag) @ members
    return (members * law[:, None]).T @ after / share[:, None], share, values[order[1]].real


# --- linear chains in any dimension ---------------------------------------------------------------


def linear_law(step, kick):
    """Covariance of y <- step y + noise, the noise of covariance ``kick``."""
    return scipy.linalg.solve_discrete_lyapunov(step, kick)


def descent(hessian, eta, m=0.0, decay=0.0, nesterov=False):
    """``step`` and ``into`` of (x, buf) <- step (x, buf) + into n, as torch.optim.SGD has it.

    g = (H + decay) x + n; buf' = m buf + g; x' = x - eta buf', or x - eta (g + m buf').
    """
    eye = np.eye(len(hessian))
    h = hessian + decay * eye
    reach, carried = (1 + m, m * m) if nesterov else (1.0, m)
    step = np.block([[eye - eta * reach * h, -eta * carried * eye], [h, m * eye]])
    return step, np.vstack([-eta * reach * eye, eye])


def descent_law(hessian, noise, eta, m=0.0, decay=0.0, nesterov=False):
    """Covariance of (x, buf) where the gradient noise of a step has the covariance ``noise``."""
    step, into = descent(hessian, eta, m, decay, nesterov)
    return linear_law(step, into @ noise @ into.T)


def classic_nesterov(eta, c, h, m):
    """Var theta of v <- m v - eta g(theta + m v), theta <- theta + v."""
    a, b = (1 + m) * (1 - eta * h), -m * (1 - eta * h)
    return (1 - b) * eta**2 * c / ((1 + b) * ((1 - b) ** 2 - a**2))


def torch_nesterov(eta, c, h, m):
    """Var of the look-ahead point theta + m v, which is what PyTorch stores."""
    return (classic_nesterov(eta, c, h, m) - eta**2 * c) / (1 - eta * h) ** 2


def overdamped(integrator, h, temperature, dt):
    """Stationary variance at curvature h, or covariance for a symmetric matrix h."""
    values, axes = np.linalg.eigh(np.atleast_2d(h))
    a = values * dt
    if integrator == "euler_maruyama":
        variance = temperature / (values * (1 - a / 2))
    elif integrator == "heun":  # x' = (1 - a + a^2/2) x + (1 - a/2) sqrt(2 T dt) xi
        variance = 2 * temperature * dt * (1 - a / 2) ** 2 / (1 - (1 - a + a * a / 2) ** 2)
    else:  # Leimkuhler-Matthews, and the exact transition
        variance = temperature / values
    return (axes * variance) @ axes.T


def splitting_chain(letters, hessian, masses, temperature, friction, dt):
    """``step`` and noise covariance of (q, p) over one step of a splitting, composed by hand."""
    d = len(hessian)
    eye, zero, mass = np.eye(d), np.zeros((d, d)), np.diag(masses)
    step, noise = np.eye(2 * d), np.zeros((2 * d, 2 * d))
    for letter in letters:
        share = dt / letters.count(letter)
        one, kick = np.eye(2 * d), np.zeros((2 * d, 2 * d))
        if letter == "B":
            one = np.block([[eye, zero], [-share * hessian, eye]])
        elif letter == "A":
            one = np.block([[eye, share * np.linalg.inv(mass)], [zero, eye]])
        else:
            one[d:, d:] *= np.exp(-friction * share)
            kick[d:, d:] = temperature * mass * (1 - np.exp(-2 * friction * share))
        step, noise = one @ step, one @ noise @ one.T + kick
    return step, noise


def splitting_table(letters, hessian, masses, temperature, dt):
    """Covariances of q and p, from the published table: R = 1 - dt**2 w**2/4 in normal modes."""
    root = np.sqrt(np.asarray(masses, dtype=float))
    squares, modes = np.linalg.eigh(hessian / np.outer(root, root))
    r = 1 - dt**2 * squares / 4
    one = np.ones_like(r)
    on_q, on_p = {
        "BAOAB": (one, r),
        "ABOBA": (one, 1 / r),
        "OBABO": (1 / r, one),
        "OABAO": (r, one),
    }[letters]
    back, forth = modes / root[:, None], modes * root[:, None]
    q = temperature * (back * (on_q / squares)) @ back.T
    return q, temperature * (forth * on_p) @ forth.T


# --- chains whose noise depends on the state: y = (x, 1) <- M y, M random -------------------------


def affine(slope, offset):
    """M of x <- slope x + offset on y = (x, 1)."""
    d = len(slope)
    result = np.zeros((d + 1, d + 1))
    result[:d, :d], result[:d, d], result[d, d] = slope, offset, 1.0
    return result


def _fixed_moment(operator, d, power):
    """E y**(x power), the fixed point whose last entry, E 1, is 1."""
    size = (d + 1) ** power
    inner = operator[:-1, :-1]
    moment = np.linalg.solve(np.eye(size - 1) - inner, operator[:-1, -1])
    return np.append(moment, 1.0).reshape((d + 1,) * power)


def batch_moments(matrices):
    """E y y' and E y y y y of y <- M y with M drawn from ``matrices`` (n, d+1, d+1), uniformly."""
    n, size, _ = matrices.shape
    squares = np.einsum("nae,nbf->nabef", matrices, matrices).reshape(n, size**4)
    second = squares.mean(axis=0).reshape(size**2, size**2)
    fourth = (squares.T @ squares / n).reshape((size,) * 8)  # abef cdgh
    fourth = fourth.transpose(0, 1, 4, 5, 2, 3, 6, 7).reshape(size**4, size**4)
    return _fixed_moment(second, size - 1, 2), _fixed_moment(fourth, size - 1, 4)


def gaussian_moments(mean, columns):
    """E y y' and E y y y y of y <- (mean + sum_j z_j columns[j]) y, z independent normals."""
    size = len(mean)
    spread = np.einsum("jae,jbf->abef", columns, columns)
    second = np.einsum("ae,bf->abef", mean, mean) + spread
    shape = (size**4, size**4)
    fourth = np.zeros((size,) * 8)
    for i, j in ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)):
        k, l = (x for x in range(4) if x not in (i, j))  # noqa: E741
        order = [i, j, i + 4, j + 4, k, k + 4, l, l + 4]
        fourth += np.einsum(spread, order[:4], mean, order[4:6], mean, order[6:], range(8))
        if i == 0:
            fourth += np.einsum(spread, order[:4], spread, [k, l, k + 4, l + 4], range(8))
    fourth += np.einsum(mean, [0, 4], mean, [1, 5], mean, [2, 6], mean, [3, 7], range(8))
    d = size - 1
    return (
        _fixed_moment(second.reshape(size**2, size**2), d, 2),
        _fixed_moment(fourth.reshape(shape), d, 4),
    )


def state_noise_moments(eta, h, c0, c1):
    """E x**2 and E x**4 of x <- x - eta (h x + sqrt(c0 + c1 x**2) xi)."""
    a = 1 - eta * h
    second = least_squares_variance(eta, h, c0, c1)
    known = 6 * a**2 * eta**2 * c0 * second + 3 * eta**4 * (c0**2 + 2 * c0 * c1 * second)
    return second, known / (1 - a**4 - 6 * a**2 * eta**2 * c1 - 3 * eta**4 * c1**2)


def stable_scale(eta, h, alpha, scale):
    """Scale of the stationary law of x <- x - eta (h x + s), s symmetric alpha-stable."""
    return (eta**alpha * scale**alpha / (1 - abs(1 - eta * h) ** alpha)) ** (1 / alpha)
