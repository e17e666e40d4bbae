"""Runs on quadratic surfaces against their exact discrete laws, in one and in five dimensions.

Each law is in laws.py, written down independently of the package. Every entry of a covariance must
be met within 4 standard errors that follow from the law itself, at most 0.5 % of the entry's scale
(so 100,000 independent replicas or more), and every check must reject wrong laws.
"""

import itertools

import laws
import numpy as np
import pytest
from kit import replicas, scale, statistical

import langevin as lv
from langevin import predict
from langevin.errors import UnsoundError
from langevin.surfaces.finite_sum import FiniteSum

N = replicas(100_000)  # sqrt(2/N) = 0.45 %
SHARP = 0.005 / scale**0.5
SIGMA = 1.5
PARABOLA = lv.Surface("h*x**2/2", variables=("x",), h=1.5, noise=lv.Isotropic(SIGMA))

_random = np.random.Generator(np.random.PCG64(5))
_a, _b = _random.normal(size=(2, 5, 5))
H = _a @ _a.T / 5 + 0.3 * np.eye(5)
C = _b @ _b.T / 3
MASSES = np.array([1.0, 2.0, 0.7, 1.4, 3.0])
SPACE = lv.surfaces.quadratic(H, noise=lv.Anisotropic(C))


def test_the_matrices_do_not_commute():
    assert np.abs(H @ C - C @ H).max() > 0.3 * np.abs(H @ C).max()
    assert np.linalg.cond(H) > 7 and np.linalg.cond(C) > 7


def simulate(surface, dynamics, n_replicas=N, **options):
    options = {"start": np.zeros(surface.dim), "seed": 2, "progress": False, **options}
    return lv.simulate(surface, dynamics, n_replicas=n_replicas, **options)


def steps_until_stationary(*chains):
    """Steps after which no covariance of these linear chains is off by more than 1e-6."""
    radius = max(np.abs(np.linalg.eigvals(step)).max() for step in chains)
    return int(np.ceil(np.log(1e-6) / (2 * np.log(max(radius, 1e-3)))))


def gaussian_z(y, covariance):
    """z of all entries of the covariance of independent Gaussians about 0."""
    variances = np.diag(covariance)
    size = np.outer(variances, variances)
    error = np.sqrt((size + covariance**2) / len(y))
    assert (error <= SHARP * np.sqrt(size) * np.sqrt(1 + covariance**2 / size)).all()
    return distinct((y.T @ y / len(y) - covariance) / error)


def distinct(matrix):
    """The entries of a symmetric matrix, each once."""
    return matrix[np.tril_indices(len(matrix))]


def moment_error(second, fourth, n):
    """Standard errors of E yy' of y = (x, 1) from n replicas, from the exact fourth moments."""
    error = np.sqrt((np.einsum("ijij->ij", fourth) - second**2) / n)
    error[-1, -1] = 1.0
    assert (np.diag(error) / np.diag(second) <= SHARP)[:-1].all()
    return error


def moment_z(x, second, error):
    """z of E x and E xx' of y = (x, 1)."""
    y = np.hstack([x, np.ones((len(x), 1))])
    return distinct((y.T @ y / len(y) - second) / error)[:-1]


def phase(result, scale=1.0):
    """Positions and velocities (or momentum buffers) side by side, (n_replicas, 2 dim)."""
    return np.hstack([result.positions, result.velocities * scale]).astype(float)


def block(array, k):
    return array[k * N : (k + 1) * N]


def arrays(cases, *columns):
    """Columns of a table of cases, each value for N replicas in turn."""
    return [np.repeat([case[c] for case in cases], N) for c in columns]


# --- SGD: momentum, Nesterov, weight decay --------------------------------------------------------

BALLS = [(0.3, 0.0, 0.0), (0.3, 0.4, 0.0), (0.3, 0.9, 0.5), (1.6, 0.5, 0.1), (0.5, 0.8, 2.0)]
LOOKS = [(1 / 3, 0.9, 0.0), (0.3, 0.5, 0.0), (0.3, 0.9, 0.5), (0.25, 0.3, 2.0)]  # eta h = .5


@pytest.mark.parametrize("nesterov, cases", [(False, BALLS), (True, LOOKS)])
@statistical(comparisons=35, seed=2, missed_bug=0.03)
def test_momentum_in_one_dimension(seed, check, nesterov, cases):
    h, size = 1.5, 2.0
    c = SIGMA**2 / size
    eta, m, decay = arrays(cases, 0, 1, 2)
    dynamics = lv.SGD(eta, size, momentum=m, weight_decay=decay, nesterov=nesterov)
    chains = [laws.descent(np.eye(1) * h, *case, nesterov)[0] for case in cases]
    steps = steps_until_stationary(*chains) // 4 * 4
    options = dict(n_replicas=len(eta), seed=seed)
    result = simulate(PARABOLA.replace(h=h), dynamics, n_steps=steps, **options)
    later = simulate(PARABOLA.replace(h=h), dynamics, n_steps=steps + 1, **options)
    for k, (eta, m, decay) in enumerate(cases):
        y = block(phase(result), k)
        exact = laws.descent_law(np.eye(1) * h, np.eye(1) * c, eta, m, decay, nesterov)
        closed = laws.torch_nesterov if nesterov else lambda *a: laws.heavy_ball(*a)[0]
        assert exact[0, 0] == pytest.approx(closed(eta, c, h + decay, m), rel=1e-9)
        check.z(gaussian_z(y, exact), f"covariance {k}")
        x, variance = y[:, :1], exact[:1, :1]
        check.z(x.mean() / np.sqrt(variance[0, 0] / N), f"mean {k}")
        wrong = {
            "noise off by sqrt(2)": 2 * variance,
            "S forgotten": size * variance,
            "continuum": np.eye(1) * eta * c / (2 * (1 - m) * (h + decay)),
            "the other kind": laws.descent_law(
                np.eye(1) * h, np.eye(1) * c, eta, m, decay, not nesterov
            )[:1, :1],
        }
        if nesterov:
            classic = laws.classic_nesterov(eta, c, h + decay, m)
            wrong["classic Nesterov iterate"] = np.eye(1) * classic
        if decay:
            wrong["weight decay forgotten"] = np.eye(1) * closed(eta, c, h, m)
        if m:
            wrong["1 - m forgotten"] = (1 - m) * variance
            wrong["momentum forgotten"] = np.eye(1) * laws.sgd_variance(eta, c, h + decay)
        else:
            del wrong["the other kind"]
        for name, law in wrong.items():
            check.twin(gaussian_z(x, law), (name, eta, m, decay))
        if not nesterov:  # lag one: (1 + m - eta h)/(1 + m)
            lag = (1 + m - eta * (h + decay)) / (1 + m)
            pairs = np.hstack([x, block(later.positions, k)])
            z, wrong = (
                gaussian_z(pairs, variance * np.array([[1, r], [r, 1]])) for r in (lag, lag**2)
            )
            check.z(z[1:], f"lag one {k}")
            check.twin(wrong, "lag two")


def test_published_nesterov_variances():
    """eta = .5, h = c = 1, m = .9: the point that PyTorch stores, and the classic iterate."""
    assert laws.torch_nesterov(0.5, 1.0, 1.0, 0.9) == pytest.approx(1.197, abs=5e-4)
    assert laws.classic_nesterov(0.5, 1.0, 1.0, 0.9) == pytest.approx(0.549, abs=5e-4)


def isotropic(matrix):
    return np.eye(len(matrix)) * np.trace(matrix) / len(matrix)


def commuting(matrix):
    """The part of a covariance that commutes with H: its diagonal in the axes of H."""
    axes = np.linalg.eigh(H)[1]
    return axes @ np.diag(np.diag(axes.T @ matrix @ axes)) @ axes.T


def current_error(covariance, lagged, n):
    """Standard errors of (y_i x_j - y_j x_i)/2, x and y Gaussian with Cov(y, x) = lagged."""
    d = len(covariance)
    joint = np.block([[covariance, lagged], [lagged.T, covariance]])  # (y, x)
    error = np.zeros((d, d))
    for i, j in itertools.product(range(d), repeat=2):
        form = np.zeros((2 * d, 2 * d))
        form[i, d + j] += 0.25
        form[j, d + i] -= 0.25
        form = form + form.T
        error[i, j] = np.sqrt(2 * np.trace(form @ joint @ form @ joint) / n)
    return error


@statistical(comparisons=25, seed=2)
def test_sgd_in_five_dimensions_carries_the_predicted_current(seed, check):
    eta, size, n = 0.3, 3.0, 2 * N
    chain = np.eye(5) - eta * H
    exact = laws.linear_law(chain, eta**2 * C / size)
    assert np.allclose(exact @ H + H @ exact - eta * H @ exact @ H, eta * C / size)
    steps = steps_until_stationary(chain) // 4 * 4
    x = simulate(SPACE, lv.SGD(eta, size), n, n_steps=steps, seed=seed).positions
    y = simulate(SPACE, lv.SGD(eta, size), n, n_steps=steps + 1, seed=seed).positions
    check.z(gaussian_z(x, exact), "covariance")
    for wrong in (isotropic(C), commuting(C), 2 * C, size * C):
        check.twin(gaussian_z(x, laws.linear_law(chain, eta**2 * wrong / size)), "other noise")
    continuum = laws.linear_law(np.eye(5) - 1e-4 * H, 1e-8 * C / size) * eta / 1e-4
    check.twin(gaussian_z(x, continuum), "continuum")
    lagged = chain @ exact
    current = (lagged - lagged.T) / 2
    measured = (y.T @ x - x.T @ y) / (2 * n)
    off = np.tril_indices(5, -1)
    error = current_error(exact, lagged, n)[off]
    check.z((measured - current)[off] / error, "current")
    check.twin(measured[off] / error, "detailed balance")
    check.twin((measured + current)[off] / error, "the other way round")
    law = predict.quadratic(SPACE, lv.SGD(eta, size))
    assert np.allclose(law.covariance, exact, rtol=1e-9, atol=1e-12)
    assert np.allclose(law.circulation, current, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "nesterov, dtype, cases",
    [
        (False, "float64", [(0.25, 0.0, 0.2), (0.3, 0.6, 0.0), (0.2, 0.85, 0.3)]),
        (True, "float32", [(0.25, 0.6, 0.0), (0.15, 0.85, 0.3)]),
    ],
)
@statistical(comparisons=165, seed=2)
def test_momentum_in_five_dimensions(seed, check, nesterov, dtype, cases):
    size = 3.0
    eta, m, decay = arrays(cases, 0, 1, 2)
    dynamics = lv.SGD(eta, size, momentum=m, weight_decay=decay, nesterov=nesterov)
    steps = steps_until_stationary(*(laws.descent(H, *case, nesterov)[0] for case in cases))
    options = dict(n_replicas=len(eta), n_steps=steps, dtype=dtype, seed=seed)
    result = simulate(SPACE, dynamics, **options)
    for k, (eta, m, decay) in enumerate(cases):
        y = block(phase(result), k)
        exact = laws.descent_law(H, C / size, eta, m, decay, nesterov)
        check.z(gaussian_z(y, exact), f"covariance {k}")
        if not check.twins:
            continue
        wrong = {
            "noise off by sqrt(2)": laws.descent_law(H, 2 * C / size, eta, m, decay, nesterov),
            "S forgotten": laws.descent_law(H, C, eta, m, decay, nesterov),
            "isotropic": laws.descent_law(H, isotropic(C) / size, eta, m, decay, nesterov),
            "commuting": laws.descent_law(H, commuting(C) / size, eta, m, decay, nesterov),
            "1 - m forgotten": laws.descent_law(H, C / size, eta * (1 - m), m, decay, nesterov),
            "decay forgotten": laws.descent_law(H, C / size, eta, m, 0.0, nesterov),
            "the other kind": laws.descent_law(H, C / size, eta, m, decay, not nesterov),
        }
        if not m:
            del wrong["1 - m forgotten"], wrong["the other kind"]
        if not decay:
            del wrong["decay forgotten"]
            if not nesterov:
                law = predict.quadratic(SPACE, lv.SGD(eta, size, momentum=m))
                assert np.allclose(law.covariance, exact, rtol=1e-9, atol=1e-11)
        for name, law in wrong.items():
            check.twin(gaussian_z(y, law), (name, eta, m, decay))


# --- overdamped -----------------------------------------------------------------------------------

T = 0.7
INTEGRATORS = ("euler_maruyama", "heun", "leimkuhler_matthews", "exact")


@pytest.mark.parametrize("integrator", INTEGRATORS)
@pytest.mark.parametrize("dtype, h", [("float64", np.eye(1) * 2.0), ("float32", H)])
@statistical(comparisons=40, seed=2, missed_bug=2e-3)
def test_overdamped_integrators(seed, check, integrator, dtype, h):
    """A large step and two temperatures in one launch; in 5-D in single precision."""
    dt = 1.2 / np.linalg.eigvalsh(h)[-1]
    surface = PARABOLA.replace(h=h[0, 0]) if len(h) == 1 else SPACE
    dynamics = lv.Overdamped(np.repeat([T, 3 * T], N), dt, integrator=integrator)
    steps = steps_until_stationary(np.eye(len(h)) * (1 - 0.55 * dt * np.linalg.eigvalsh(h)[0]))
    options = dict(n_steps=steps, dtype=dtype, seed=seed)
    x = simulate(surface, dynamics, 2 * N, **options).positions.astype(float)
    for k, temperature in enumerate((T, 3 * T)):
        mine = block(x, k)
        exact = laws.overdamped(integrator, h, temperature, dt)
        check.z(gaussian_z(mine, exact), f"covariance {k}")
        check.z(mine.mean(axis=0) / np.sqrt(np.diag(exact) / N), f"mean {k}")
        if not check.twins:
            continue
        check.twin(gaussian_z(mine, 2 * exact), "noise off by sqrt(2)")
        check.twin(gaussian_z(mine, exact / 1.05), "5 % colder")
        for other in set(INTEGRATORS[:3]) - {integrator}:
            if {other, integrator} != {"leimkuhler_matthews", "exact"}:
                check.twin(gaussian_z(mine, laws.overdamped(other, h, temperature, dt)), other)
    if integrator == "euler_maruyama":
        law = predict.quadratic(surface, lv.Overdamped(T, dt))
        assert np.allclose(law.covariance, laws.overdamped(integrator, h, T, dt), rtol=1e-9)


@statistical(comparisons=20, seed=2)
def test_the_exact_step_has_the_law_of_the_process_at_any_time(seed, check):
    """Three large steps from a point: mean exp(-H t) x0, covariance T H^-1 (1 - exp(-2 H t))."""
    dt, start = 0.4, np.array([1.0, -2.0, 0.5, 3.0, -1.0])
    dynamics = lv.Overdamped(np.repeat([T, 3 * T], N), dt, integrator="exact")
    options = dict(n_steps=3, start=start, dtype="float32", seed=seed)
    x = simulate(SPACE, dynamics, 2 * N, **options).positions
    values, axes = np.linalg.eigh(H)
    mean = (axes * np.exp(-3 * dt * values)) @ axes.T @ start
    exact = T * (axes * (1 - np.exp(-6 * dt * values)) / values) @ axes.T
    centred = x[:N].astype(float) - mean
    check.z(gaussian_z(centred, exact), "covariance")
    check.z(centred.mean(axis=0) / np.sqrt(np.diag(exact) / N), "mean")
    half = T * (axes * (1 - np.exp(-3 * dt * values)) / values) @ axes.T
    check.twin(gaussian_z(centred, half), "half the time")
    euler = np.linalg.matrix_power(np.eye(5) - dt * H, 3) @ start
    away = centred.mean(axis=0) + mean - euler
    check.twin(away / np.sqrt(np.diag(exact) / N), "Euler")


def test_the_exact_step_knows_a_minimum_away_from_the_origin():
    """Without noise: x* + exp(-H t)(x0 - x*)."""
    surface = lv.Surface("x**2 + 0.6*x*y + y**2/2 - x + 2*y")
    h, start = np.array([[2.0, 0.6], [0.6, 1.0]]), np.array([3.0, -1.0])
    centre = np.linalg.solve(h, [1.0, -2.0])
    values, axes = np.linalg.eigh(h)
    dynamics = lv.Overdamped(0.0, 0.7, integrator="exact")
    x = simulate(surface, dynamics, 2, n_steps=3, start=start).positions
    decay = (axes * np.exp(-3 * 0.7 * values)) @ axes.T
    assert np.allclose(x, centre + decay @ (start - centre), rtol=1e-12)
    for wrong in (-centre, 0 * centre):
        assert not np.allclose(x, wrong + decay @ (start - wrong), atol=0.1)


# --- splittings -----------------------------------------------------------------------------------

SPLITTINGS = ("BAOAB", "ABOBA", "OBABO", "OABAO")
FRICTIONS = (0.3, 1.0, 5.0)


@pytest.mark.parametrize("splitting", SPLITTINGS)
@pytest.mark.parametrize(
    "h, masses, dtype",
    [
        (np.eye(1) * 2.0, [1.0], "float64"),
        (np.eye(1) * 2.0, [2.5], "float32"),
        (H, MASSES, "float64"),
    ],
    ids=["1-D", "1-D with a mass", "5-D with masses"],
)
@statistical(comparisons=165, seed=2)
def test_splittings(seed, check, splitting, h, masses, dtype):
    """<qq> and <pp> are those of the table at every friction, and <qp> is that of the chain."""
    masses = np.array(masses)
    highest = np.linalg.eigvalsh(h / np.sqrt(np.outer(masses, masses)))[-1]
    dt = np.sqrt(1.3 / highest)  # R = .675 for the fastest mode
    surface = PARABOLA.replace(h=h[0, 0]) if len(h) == 1 else SPACE
    friction = np.repeat(FRICTIONS, N)
    given = 1.0 if (masses == 1).all() else masses
    dynamics = lv.Underdamped(T, friction, dt, splitting=splitting, masses=given)
    chains = [laws.splitting_chain(splitting, h, masses, T, f, dt) for f in FRICTIONS]
    steps = steps_until_stationary(*(chain[0] for chain in chains))
    options = dict(n_steps=steps, dtype=dtype, seed=seed)
    result = simulate(surface, dynamics, len(friction), **options)
    both = np.concatenate([np.ones(len(h)), masses])
    d = len(h)
    q, p = laws.splitting_table(splitting, h, masses, T, dt)
    for k, f in enumerate(FRICTIONS):
        y = block(phase(result), k) * both
        exact = laws.linear_law(*chains[k])
        assert np.allclose(exact[:d, :d], q, rtol=1e-9, atol=1e-10)
        assert np.allclose(exact[d:, d:], p, rtol=1e-9, atol=1e-10)
        check.z(gaussian_z(y, exact), f"covariance {k}")
        if not check.twins:
            continue
        for other in set(SPLITTINGS) - {splitting}:
            wrong = laws.linear_law(*laws.splitting_chain(other, h, masses, T, f, dt))
            check.twin(gaussian_z(y, wrong), other)
        step = chains[k][0]
        check.twin(gaussian_z(y, 2 * exact), "noise off by sqrt(2)")
        # An Ornstein-Uhlenbeck step whose noise has exp(-gamma dt) in place of exp(-2 gamma dt).
        half = laws.splitting_chain(splitting, h, masses, T, f / 2, dt)[1]
        if f * dt < 2:
            check.twin(gaussian_z(y, laws.linear_law(step, half)), "noise of half the friction")
        if (masses != 1).any():
            light = laws.splitting_chain(splitting, h, np.ones(d), T, f, dt * 0.6)
            check.twin(gaussian_z(y, laws.linear_law(*light)), "no masses")
    law = check.once(
        "law", predict.boltzmann_gibbs, surface, lv.Underdamped(T, 1.0, dt, masses=given)
    )
    assert np.allclose(law.moments()[1], T * np.linalg.inv(h), rtol=1e-9)


# --- noise that depends on the state --------------------------------------------------------------

STATE_N = replicas(300_000)


def well_with(noise, **parameters):
    return lv.Surface("h*x**2/2", variables=("x",), h=1.5, noise=noise, **parameters)


@pytest.mark.parametrize("convention", ["ito", "stratonovich"])
@statistical(comparisons=2, seed=2, missed_bug=0.01)
def test_variance_under_noise_c0_plus_c1_x_squared(seed, check, convention):
    h, c0, c1, eta, size, n = 1.5, 0.9, 0.8, 0.5, 2.0, 3 * STATE_N
    noise = lv.StateDependent("c0 + c1*x**2", convention=convention)
    surface = well_with(noise, c0=c0, c1=c1)
    x = simulate(surface, lv.SGD(eta, size), n, n_steps=100, seed=seed).positions
    # Stratonovich's drift (eta/2S) C'/2 = (eta/2S) c1 x softens the well.
    softer = h - eta * c1 / (2 * size)
    curvature = {"ito": h, "stratonovich": softer}
    second, fourth = laws.state_noise_moments(eta, curvature[convention], c0 / size, c1 / size)
    mean = laws.affine(np.eye(1) * (1 - eta * curvature[convention]), 0)
    kicks = eta / np.sqrt(size) * np.array([[[0, np.sqrt(c0)], [0, 0]], [[np.sqrt(c1), 0], [0, 0]]])
    two, four = laws.gaussian_moments(mean, kicks)
    assert two[0, 0] == pytest.approx(second, rel=1e-12)
    assert four[0, 0, 0, 0] == pytest.approx(fourth, rel=1e-12)
    error = moment_error(two, four, n)
    check.z(moment_z(x, two, error), "moments")
    error = error[0, 0]
    measured = (x**2).mean()
    (other,) = set(curvature) - {convention}
    for name, wrong in {
        "noise off by sqrt(2)": (h, 2 * c0 / size, 2 * c1 / size),
        "S forgotten": (h, c0, c1),
        "noise of the minimum alone": (h, c0 / size, 0.0),
        "the other convention": (curvature[other], c0 / size, c1 / size),
        "half of the drift": ((h + softer) / 2, c0 / size, c1 / size),
    }.items():
        check.twin((measured - laws.least_squares_variance(eta, *wrong)) / error, name)
    if convention == "ito":
        law = predict.chain(surface, lv.SGD(eta, size))
        assert law.variance == pytest.approx(second, rel=1e-5)


@pytest.mark.parametrize("nesterov", [False, True])
@statistical(comparisons=1, seed=0)
def test_the_stratonovich_drift_under_momentum(seed, check, nesterov):
    """dx = s x o dW has the law log x ~ N(0, s**2 t), s**2 = eta/(S (1 - m)), t = n eta/(1 - m)."""
    m, eta, steps, n, s2 = 0.8, 0.001, 800, replicas(20_000), 0.5
    sgd = lv.SGD(eta, eta / ((1 - m) * s2), momentum=m, nesterov=nesterov)
    noise = lv.StateDependent(factor=[["x"]], convention="stratonovich")
    surface = lv.Surface("0*x", variables=("x",), noise=noise)
    result = simulate(surface, sgd, n, n_steps=steps, start=[1.0], seed=seed)
    measured = np.log(result.positions[:, 0]).mean()
    time = steps * eta / (1 - m)
    error = np.sqrt(s2 * time / n)
    check.z(measured / error, "drift")
    for name, drift in {"Ito": 0.0, "the drift of m = 0": s2 * (1 - m) / 2}.items():
        check.twin((measured - (drift - s2 / 2) * time) / error, name)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@statistical(comparisons=4, seed=2)
def test_named_state_dependent_noises_in_one_dimension(seed, check, dtype):
    """Multiplicative: a**2 + (r h x)**2. LabelNoise of f = b x + x**2/2: s**2 (b + x)**2."""
    h, eta, size = 1.5, 0.4, 2.0
    wells = {
        "multiplicative": (lv.Multiplicative(0.6, 0.8), [(0.0, 0.8), (0.6 * h, 0.0)]),
        "label": (lv.LabelNoise("0.7*x + x**2/2", 0.9), [(0.9, 0.9 * 0.7)]),
    }
    for name, (noise, columns) in wells.items():
        options = dict(n_steps=60, dtype=dtype, seed=seed)
        x = simulate(well_with(noise), lv.SGD(eta, size), STATE_N, **options)
        x = x.positions.astype(float)

        def law(scale, columns=columns):
            mean = laws.affine(np.eye(1) * (1 - eta * h), 0)
            kicks = [laws.affine(np.eye(1) * s, b) * [[1, 1], [0, 0]] for s, b in columns]
            return laws.gaussian_moments(mean, eta * scale * np.array(kicks))

        exact = law(1 / np.sqrt(size))
        error = moment_error(*exact, STATE_N)
        check.z(moment_z(x, exact[0], error), name)
        frozen = [(0.0, b) for _, b in columns]
        check.twin(moment_z(x, law(1 / np.sqrt(size), frozen)[0], error), name)
        for wrong in (np.sqrt(1.5 / size), 1.0):
            check.twin(moment_z(x, law(wrong)[0], error), name)


def text_of(form, names):
    """A linear form and its constant as a formula."""
    slope, offset = form
    return " + ".join(
        [f"{float(offset)!r}"] + [f"({float(s)!r})*{v}" for s, v in zip(slope, names, strict=True)]
    )


def entries(columns, names):
    """B of columns b_k + D_k x as rows of formulas."""
    return [[text_of((d[i], b[i]), names) for d, b in columns] for i in range(5)]


_D = _random.normal(size=(6, 5, 5)) * 0.2
_B = _random.normal(size=(6, 5)) * 0.6
AFFINE = list(zip(_D, _B, strict=True))
LABELS = [((q + q.T) / 2, b) for q, b in AFFINE[:3]]


def five_dimensional_noises():
    """Name: the noise, and its columns b + D x."""
    names = SPACE.variables
    rows = entries(AFFINE, names)
    product = [
        [" + ".join(f"({rows[i][k]})*({rows[j][k]})" for k in range(6)) for j in range(5)]
        for i in range(5)
    ]
    outputs = []
    for q, b in LABELS:
        terms = [f"({float(q[i, j]) / 2!r})*{names[i]}*{names[j]}" for i, j in np.ndindex(5, 5)]
        outputs.append(" + ".join([*terms, text_of((b, 0.0), names)]))
    eye = np.eye(5)
    relative = [(0.5 * np.outer(e, h), 0 * e) for e, h in zip(eye, H, strict=True)]
    return {
        "factor": (lv.StateDependent(factor=rows), AFFINE),
        "stratonovich": (lv.StateDependent(factor=rows, convention="stratonovich"), AFFINE),
        "covariance": (lv.StateDependent(product), AFFINE),
        "label": (
            lv.LabelNoise(outputs, 1.3),
            [(1.3 / np.sqrt(3) * q, 1.3 / np.sqrt(3) * b) for q, b in LABELS],
        ),
        "multiplicative": (
            lv.Multiplicative(0.5, 0.8),
            [(np.zeros((5, 5)), 0.8 * e) for e in eye] + relative,
        ),
    }


def space_with(kind):
    noise, columns = five_dimensional_noises()[kind]
    return SPACE.replace(noise=noise), columns


@pytest.mark.parametrize(
    "kind", ["factor", "stratonovich", "covariance", "label", "multiplicative"]
)
@statistical(comparisons=20, seed=2)
def test_state_dependent_noise_in_five_dimensions(seed, check, kind):
    """All second moments and means, with errors from the exact fourth moments."""
    eta, size = 0.3, 2.0
    surface, columns = check.once("surface", space_with, kind)
    x = simulate(surface, lv.SGD(eta, size), STATE_N, n_steps=110, seed=seed).positions

    def law(columns, power=1.0, drift=kind == "stratonovich"):
        slope, offset = np.eye(5) - eta * H, np.zeros(5)
        if drift:
            slope = slope + eta**2 / (2 * size) * sum(d @ d for d, _ in columns)
            offset = offset + eta**2 / (2 * size) * sum(d @ b for d, b in columns)
        kicks = np.array([laws.affine(d, b) for d, b in columns])
        kicks[:, -1, -1] = 0
        return laws.gaussian_moments(laws.affine(slope, offset), power * eta / size**0.5 * kicks)

    exact = check.once("law", law, columns)
    error = moment_error(*exact, STATE_N)
    check.z(moment_z(x, exact[0], error), "moments")
    if not check.twins:
        return
    point = np.linspace(-1, 1, 5)
    factor = np.stack([d @ point + b for d, b in columns], axis=1)
    assert np.allclose(surface.noise_covariance(point), factor @ factor.T)
    wrong = {
        "noise off by sqrt(2)": law(columns, np.sqrt(2)),
        "S forgotten": law(columns, np.sqrt(size)),
        "noise of the minimum alone": law([(0 * d, b) for d, b in columns]),
        "no constant part": law([(d, 0.9 * b) for d, b in columns]),
    }
    if kind in ("factor", "covariance", "stratonovich"):
        wrong["the other convention"] = law(columns, drift=kind != "stratonovich")
    for name, moments in wrong.items():
        check.twin(moment_z(x, moments[0], error), name)


# --- real mini-batches ----------------------------------------------------------------------------


def data(n, dim):
    """Least squares on n examples: the surface, its minimum, example Hessians and gradients."""
    generator = np.random.Generator(np.random.PCG64(10 * n + dim))
    u = 1 + 0.5 * generator.normal(size=(n, dim)) if dim == 1 else generator.normal(size=(n, dim))
    v = generator.normal(size=n)
    best = np.linalg.lstsq(u, v, rcond=None)[0]
    hessians = np.einsum("ni,nj->nij", u, u)
    return (
        FiniteSum("(w*u - v)**2/2", data={"u": u, "v": v}),
        best,
        hessians,
        u * (u @ best - v)[:, None],
    )


def every_batch(n, size, replacement):
    choose = itertools.product(range(n), repeat=size)
    return np.array(list(choose if replacement else itertools.combinations(range(n), size)))


@pytest.mark.parametrize(
    "n, dim, size, sampling, rate",
    [
        (7, 1, 3, "with_replacement", 1.3),
        (7, 1, 3, "without_replacement", 1.3),
        (2, 1, 1, "without_replacement", 1.0),
        (9, 1, 1, "with_replacement", 0.4),
        (8, 5, 3, "with_replacement", 0.35),
        (8, 5, 3, "without_replacement", 0.35),
    ],
)
@statistical(comparisons=20, seed=2, missed_bug=1e-4)
def test_least_squares_by_every_mini_batch_there_is(seed, check, n, dim, size, sampling, rate):
    """w* + d with d <- (1 - eta A_B) d - eta g_B: the moment equations summed over all batches."""
    surface, best, hessians, gradients = data(n, dim)
    eta = rate / np.linalg.eigvalsh(hessians.mean(axis=0))[-1]
    n_replicas = replicas(400_000 if dim == 1 else 200_000)

    def law(replacement, frozen=False):
        batches = every_batch(n, size, replacement)
        a = np.broadcast_to(hessians.mean(axis=0), (len(batches), dim, dim))
        a = a if frozen else hessians[batches].mean(axis=1)
        g = gradients[batches].mean(axis=1)
        pairs = zip(a, g, strict=True)
        return laws.batch_moments(
            np.array([laws.affine(np.eye(dim) - eta * a, -eta * g) for a, g in pairs])
        )

    replacement = sampling == "with_replacement"
    exact = check.once("law", law, replacement)
    steps = steps_until_stationary(np.eye(dim) - eta * hessians.mean(axis=0)) + 20
    dynamics = lv.SGD(eta, size, sampling=sampling)
    options = dict(n_steps=steps, start=best, seed=seed)
    d = simulate(surface, dynamics, n_replicas, **options).positions - best
    error = moment_error(*exact, n_replicas)
    check.z(moment_z(d, exact[0], error), "moments")
    if not check.twins:
        return
    check.twin(moment_z(d, law(replacement, frozen=True)[0], error), "one Hessian")
    check.twin(moment_z(d * np.sqrt(2), exact[0], error), "noise off by sqrt(2)")
    if size > 1:
        check.twin(moment_z(d, law(not replacement)[0], error), "the other sampling")
    found = predict.quadratic(surface, dynamics)
    assert np.allclose(found.covariance, exact[0][:dim, :dim], rtol=1e-9, atol=1e-13)
    assert np.allclose(found.mean, best, rtol=1e-9)
    if dim == 1:
        factor = laws.sampling_factor(n, size, replacement) / size
        c0, c1 = (gradients**2).mean() * factor, hessians.var() * factor
        closed = laws.least_squares_variance(eta, hessians.mean(), c0, c1)
        assert exact[0][0, 0] == pytest.approx(closed, rel=1e-9)


# --- predictions refuse what they do not cover ----------------------------------------------------

ANY = (predict.boltzmann_gibbs, predict.laplace, predict.chain, predict.quadratic)


@pytest.mark.parametrize("forecast", ANY, ids=lambda f: f.__name__)
def test_predictions_refuse_weight_decay_and_schedules(forecast):
    cases = [(lv.SGD(0.1, weight_decay=0.1), "weight_decay")]
    for dynamics, word in (
        *(cases if forecast not in (predict.chain, predict.quadratic) else []),  # exact for it
        (lv.SGD(lv.schedules.Cosine(0.1, 100)), "schedule"),
        (lv.SGD(0.1, lv.schedules.Steps(4, (10,), 2.0)), "schedule"),
    ):
        with pytest.raises(UnsoundError, match=word):
            forecast(PARABOLA, dynamics)


@pytest.mark.parametrize("forecast", (predict.chain,), ids=lambda f: f.__name__)
def test_discrete_predictions_refuse_other_steps(forecast):
    for dynamics in (
        lv.Overdamped(0.1, 0.1, integrator="heun"),
        lv.Overdamped(0.1, 0.1, integrator="leimkuhler_matthews"),
        lv.Overdamped(0.1, 0.1, integrator="exact"),
        lv.Underdamped(0.1, 1.0, 0.1, masses=2.0),
    ):
        with pytest.raises(UnsoundError, match=r"knows the step of"):
            forecast(PARABOLA, dynamics)
    for noise in (lv.AlphaStable(1.5), lv.StudentT(1.9)):
        with pytest.raises(UnsoundError, match=r"no variance|not Gaussian"):
            forecast(PARABOLA.replace(noise=noise), lv.SGD(0.1))


def test_quadratic_refuses_a_stratonovich_drift():
    stratonovich = well_with(lv.StateDependent("1 + x**2", convention="stratonovich"))
    with pytest.raises(UnsoundError):
        predict.quadratic(stratonovich, lv.SGD(0.1))


def test_quadratic_refuses_a_stratonovich_drift_that_only_shifts_the_minimum():
    """B = (1, y; 0, 1): C depends on y, and the drift is constant along x."""
    plane = lv.surfaces.quadratic(np.diag([1.0, 2.0]))
    noise = lv.StateDependent(factor=[["1", "y"], ["0", "1"]], convention="stratonovich")
    with pytest.raises(UnsoundError):
        predict.quadratic(plane.replace(noise=noise), lv.SGD(0.1))


@pytest.mark.parametrize("forecast", ANY, ids=lambda f: f.__name__)
def test_predictions_refuse_shuffled_epochs(forecast):
    surface = data(7, 1)[0]
    with pytest.raises(UnsoundError):
        forecast(surface, lv.SGD(0.1, 3, sampling="epoch_shuffle"))


def test_a_heavy_tail_with_a_variance_is_covered_in_its_moments_alone():
    law = predict.quadratic(PARABOLA.replace(noise=lv.StudentT(6.0, 2.0)), lv.SGD(0.1, 2))
    exact = laws.sgd_variance(0.1, 4 * 6 / 4 / 2, 1.5)
    assert law.covariance[0, 0] == pytest.approx(exact, rel=1e-9) and not law.gaussian
