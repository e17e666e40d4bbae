"""FiniteSum: values against finite differences and NumPy, the formula's reading, and refusals."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

import langevin as lv
from langevin.errors import FormulaError, LangevinError, ParameterError, UnsoundError
from langevin.surfaces.finite_sum import FiniteSum
from langevin.surfaces.regression import diabetes, linear_regression, logistic_regression

_data = np.random.default_rng(8)
N = 19
U, T = _data.normal(size=(N, 3)), _data.normal(size=(N, 2))
V, S = _data.normal(size=N), np.where(_data.normal(size=N) > 0, 1.0, -1.0)


def dot(x, w):
    return x @ np.asarray(w)


# formula, data, options, dim, and the loss of each example at w, written again in NumPy
CASES = {
    "least squares": (
        "(w*u - v)**2/2", {"u": U, "v": V}, {}, 3,
        lambda w: (dot(U, w) - V) ** 2 / 2,
    ),
    "with a bias": (
        "(w*u + b - v)**2/2", {"u": U, "v": V}, {"l2": 0.3}, 4,
        lambda w: (dot(U, w[1:]) + w[0] - V) ** 2 / 2 + 0.15 * np.sum(w**2),
    ),
    "logistic": (
        "log(1 + exp(-s*(w*u)))", {"u": U, "s": S}, {"l2": 0.1}, 3,
        lambda w: np.log1p(np.exp(-S * dot(U, w))) + 0.05 * np.sum(w**2),
    ),
    "softplus": (
        "softplus(-s*(w*u)) + sigmoid(w*u)/9", {"u": U, "s": S}, {"l2": 0.1}, 3,
        lambda w: np.log1p(np.exp(-S * dot(U, w))) + 0.05 * np.sum(w**2)
        + 1 / (1 + np.exp(-dot(U, w))) / 9,
    ),
    "two weight vectors": (
        "(tanh(w*u) + z*t - v)**2/2", {"u": U, "t": T, "v": V}, {}, 5,
        lambda w: (np.tanh(dot(U, w[:3])) + dot(T, w[3:]) - V) ** 2 / 2,
    ),
    "two weights on one feature": (
        "(p*u)*tanh(q*u) + v**2 + a*(p*u + q*u)**2", {"u": U, "v": V}, {"a": 0.7}, 6,
        lambda w: dot(U, w[:3]) * np.tanh(dot(U, w[3:]))
        + V**2 + 0.7 * (dot(U, w[:3]) + dot(U, w[3:])) ** 2,
    ),
    "scalar weights only": (
        "(c*sin(k*v) - s)**2 + c**2*k**2/9", {"v": V, "s": S}, {}, 2,
        lambda w: (w[0] * np.sin(w[1] * V) - S) ** 2 + w[0] ** 2 * w[1] ** 2 / 9,
    ),
    "scalar features": (
        "(w*x - v)**2/2", {"x": U[:, 0], "v": V}, {}, 1,
        lambda w: (w[0] * U[:, 0] - V) ** 2 / 2,
    ),
}  # fmt: skip
all_cases = pytest.mark.parametrize("case", list(CASES))


def built(case):
    formula, data, options, dim, loss = CASES[case]
    return FiniteSum(formula, data=data, **options), dim, loss


def differences(function, w, step=1e-5):
    """Central differences of an array-valued function, derivative on the last axis."""
    eye = np.eye(len(w)) * step
    rises = [(function(w + e) - function(w - e)) / (2 * step) for e in eye]
    return np.stack(rises, axis=-1)


@all_cases
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_values_and_derivatives(case, data):
    surface, dim, loss = built(case)
    assert surface.dim == dim == len(surface.variables)
    assert surface.n_examples == N
    w = np.array(data.draw(st.lists(st.floats(-2, 2), min_size=dim, max_size=dim)))
    assert surface.energy(w) == pytest.approx(loss(w).mean(), rel=1e-12, abs=1e-12)
    each = surface.example_gradients(w)
    assert each.shape == (N, dim)
    assert np.allclose(each, differences(loss, w), rtol=1e-6, atol=1e-7)
    assert np.allclose(surface.gradient(w), each.mean(axis=0), rtol=1e-12, atol=1e-13)
    bends = surface.example_hessians(w)
    assert bends.shape == (N, dim, dim)
    assert np.allclose(bends, differences(surface.example_gradients, w), rtol=1e-5, atol=1e-6)
    assert np.allclose(bends, np.swapaxes(bends, 1, 2))
    assert np.allclose(surface.hessian(w), bends.mean(axis=0), rtol=1e-11, atol=1e-12)
    covariance = np.cov(each.T, bias=True).reshape(dim, dim)
    assert np.allclose(surface.noise_covariance(w), covariance, rtol=1e-10, atol=1e-12)


def test_points_keep_their_leading_axes():
    surface, _, _ = built("with a bias")
    points = np.random.default_rng(1).normal(size=(2, 5, 4))
    assert surface.energy(points).shape == (2, 5)
    assert surface.gradient(points).shape == (2, 5, 4)
    assert surface.hessian(points).shape == (2, 5, 4, 4)
    assert surface.noise_covariance(points).shape == (2, 5, 4, 4)
    assert np.allclose(surface.gradient(points)[1, 3], surface.gradient(points[1, 3]))
    for wrong in (np.zeros(3), 1.0, np.zeros((4, 5))):
        with pytest.raises(ParameterError, match="4 weights"):
            surface.energy(wrong)


def test_the_layout_of_weights_follows_their_names():
    surface, _, _ = built("with a bias")
    assert surface.variables == ("b", "w0", "w1", "w2")
    surface, _, _ = built("two weight vectors")
    assert surface.variables == ("w0", "w1", "w2", "z0", "z1")


def test_constant_hessian_is_recognised():
    for case in ("least squares", "with a bias", "scalar features"):
        assert built(case)[0].hessian_is_constant
    for case in ("logistic", "two weight vectors", "scalar weights only"):
        assert not built(case)[0].hessian_is_constant


# --- how formulas are read ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "formula",
    [
        "(w*u - v)**2/2",
        "(u*w - v)**2/2",
        "0.5*(v - w*u)*(v - w*u)",
        "(-w*u + v)**2/2",
        "(2*w*u - 2*v)**2/8",
        "(w*u)**2/2 - v*(w*u) + v**2/2",
        "(w*u)*(w*u)/2 - w*u*v + v**2/2",
    ],
)
def test_ways_of_writing_least_squares(formula):
    surface, reference = FiniteSum(formula, data={"u": U, "v": V}), built("least squares")[0]
    w = np.array([0.3, -1.0, 2.0])
    assert surface.energy(w) == pytest.approx(float(reference.energy(w)), rel=1e-12)
    assert np.allclose(surface.gradient(w), reference.gradient(w))
    assert np.allclose(surface.hessian(w), reference.hessian(w))


@pytest.mark.parametrize(
    "formula, data, error, names",
    [
        ("(w*u - v)**2/2", {"u": U, "v": V, "extra": V}, ParameterError, "extra"),
        ("(w + u - v)**2", {"u": U, "v": V}, FormulaError, "'u'"),
        ("w*u*t", {"u": U, "t": U}, FormulaError, "product with one"),
        ("w*u + w*t", {"u": U, "t": T}, FormulaError, "two feature symbols"),
        ("(w*u - v)**2 + w**2", {"u": U, "v": V}, FormulaError, "stands alone"),
        ("exp(u)*w", {"u": U}, FormulaError, "'u'"),
        ("u + v", {"u": V, "v": V}, FormulaError, "no weight"),
        ("(w*u - v)**2/", {"u": U, "v": V}, FormulaError, "readable"),
        ("__import__('os').system('true')", {"u": U}, FormulaError, ""),
        ("w.real*u", {"u": U}, FormulaError, ""),
        ("(lambda: w)()*u", {"u": U}, FormulaError, ""),
        ("w*u[0]", {"u": U}, FormulaError, ""),
        ("", {"u": U}, FormulaError, ""),
        (lambda w, u: w * u, {"u": U}, FormulaError, "text"),
        (None, {"u": U}, FormulaError, "text"),
    ],
)
def test_formulas_that_are_refused(formula, data, error, names):
    with pytest.raises(error) as caught:
        FiniteSum(formula, data=data)
    assert names in str(caught.value)


GOOD = {"u": U, "v": V}


@pytest.mark.parametrize(
    "data, options, names",
    [
        ({"u": U, "v": V[:-1]}, {}, "number of examples"),
        ({"u": U, "v": np.where(np.arange(N) == 3, np.nan, V)}, {}, "'v'"),
        ({"u": np.where(np.arange(N)[:, None] == 3, np.inf, U), "v": V}, {}, "'u'"),
        ({"u": U[None], "v": V}, {}, "'u'"),
        ({"u": U, "v": 1.0}, {}, "'v'"),
        ({"u": np.empty((0, 3)), "v": np.empty(0)}, {}, "'u'"),
        ({"u": U, "v": ["a"] * N}, {}, "'v'"),
        ({"u": [[1.0], [1.0, 2.0]], "v": V}, {}, "'u'"),
        ({"u": U, "v": 1j * V}, {}, "'v'"),
        ({}, {}, "data="),
        (None, {}, "data="),
        ([U, V], {}, "data="),
        (GOOD, {"l2": -0.1}, "l2"),
        (GOOD, {"l2": np.nan}, "l2"),
        (GOOD, {"l2": "small"}, "l2"),
        (GOOD, {"l2": [0.1]}, "l2"),
        (GOOD, {"unused": 1.0}, "unused"),
        (GOOD, {"v": 1.0}, "'v'"),
        (GOOD, {"w": np.inf}, "w="),
    ],
)
def test_data_that_are_refused(data, options, names):
    with pytest.raises(LangevinError) as caught:
        FiniteSum("(w*u - v)**2/2", data=data, **options)
    assert names in str(caught.value)


def test_a_target_of_shape_n_by_1_is_explained():
    with pytest.raises(LangevinError, match="'v'"):
        FiniteSum("(w*u - v)**2/2", data={"u": U, "v": V[:, None]})


def test_data_are_copied():
    u, v = U.copy(), V.copy()
    surface = FiniteSum("(w*u - v)**2/2", data={"u": u, "v": v})
    before = surface.energy(np.ones(3))
    u[:], v[:] = 0, 0
    assert surface.energy(np.ones(3)) == before


# --- minima ---------------------------------------------------------------------------------------


def test_the_minimum_of_least_squares_is_that_of_lstsq():
    surface, _, _ = built("least squares")
    (minimum,) = surface.minima()
    expected = np.linalg.lstsq(U, V, rcond=None)[0]
    assert np.allclose(minimum.position, expected, rtol=1e-10)
    assert minimum.energy == pytest.approx(((U @ expected - V) ** 2).mean() / 2)
    assert np.allclose(minimum.hessian, U.T @ U / N)
    surface, _, _ = built("with a bias")
    design = np.hstack([np.ones((N, 1)), U])
    ridge = np.linalg.solve(design.T @ design / N + 0.3 * np.eye(4), design.T @ V / N)
    assert np.allclose(surface.minima()[0].position, ridge, rtol=1e-10)


def test_the_minimum_of_logistic_regression_is_stationary():
    surface, _, _ = built("logistic")
    (minimum,) = surface.minima()
    assert np.abs(surface.gradient(minimum.position)).max() < 1e-10
    assert np.linalg.eigvalsh(minimum.hessian)[0] > 0


def test_minima_that_do_not_exist_are_refused():
    dependent = np.hstack([U, U[:, :1]])
    surface = FiniteSum("(w*u - v)**2/2", data={"u": dependent, "v": V})
    with pytest.raises(UnsoundError, match="l2="):
        surface.minima()
    with pytest.raises(UnsoundError, match="l2="):
        lv.simulate(surface, lv.SGD(0.01, 4), n_replicas=2, n_steps=4, seed=0, progress=False)
    separable = FiniteSum("log(1 + exp(-s*(w*u)))", data={"u": U, "s": np.sign(U @ [1, 2, 3])})
    with pytest.raises(UnsoundError, match="l2="):
        separable.minima()
    wide = FiniteSum("(w*u - v)**2/2", data={"u": _data.normal(size=(3, 7)), "v": V[:3]})
    with pytest.raises(UnsoundError, match="l2="):
        wide.minima()


# --- the embedded data ----------------------------------------------------------------------------


def test_diabetes_is_the_published_table():
    X, y = diabetes(standardize=False)
    assert X.shape == (442, 10) and y.shape == (442,)
    sklearn = pytest.importorskip("sklearn.datasets")
    published = sklearn.load_diabetes(scaled=False)
    assert np.allclose(X, published.data, rtol=1e-6)
    assert np.allclose(y, published.target)
    X, y = diabetes()
    assert np.allclose(X.mean(axis=0), 0, atol=1e-12) and np.allclose(X.std(axis=0), 1)
    assert abs(y.mean()) < 1e-12 and y.std() == pytest.approx(1)


def test_linear_regression_is_least_squares():
    X, y = diabetes()
    surface = linear_regression(X, y)
    assert surface.dim == 10 and surface.n_examples == 442
    assert np.allclose(surface.minima()[0].position, np.linalg.lstsq(X, y, rcond=None)[0])
    assert np.allclose(surface.hessian(np.zeros(10)), X.T @ X / 442)
    residual = X @ np.ones(10) - y
    expected = np.cov((residual[:, None] * X).T, bias=True)
    assert np.allclose(surface.noise_covariance(np.ones(10)), expected)
    ridge = linear_regression(X, y, l2=0.5).minima()[0].position
    assert np.allclose(ridge, np.linalg.solve(X.T @ X / 442 + np.eye(10) / 2, X.T @ y / 442))


@pytest.mark.parametrize(
    "X, y", [(U[:, 0], V), (U, V[:-1]), (U, V[:, None]), (U, "text"), (U * np.nan, V), ("a", V)]
)
def test_linear_regression_refuses(X, y):
    with pytest.raises(LangevinError):
        linear_regression(X, y)


# --- logistic regression --------------------------------------------------------------------------

LABELS = (U @ [1.0, -1.0, 0.5] + V > 0).astype(int)


def logistic_loss(w):
    return np.logaddexp(0, -(2 * LABELS - 1) * dot(U, w))


@pytest.mark.parametrize("labels", [LABELS, 2 * LABELS - 1, LABELS == 1, LABELS.astype(float)])
def test_logistic_regression_reads_both_kinds_of_labels(labels):
    w = np.array([0.3, -1.0, 2.0])
    surface = logistic_regression(U, labels)
    assert surface.energy(w) == pytest.approx(logistic_loss(w).mean(), rel=1e-12)
    assert np.allclose(surface.example_gradients(w), differences(logistic_loss, w), atol=1e-8)
    each = differences(surface.example_gradients, w)
    assert np.allclose(surface.hessian(w), each.mean(axis=0), atol=1e-8)
    p = 1 / (1 + np.exp(-dot(U, w)))
    assert np.allclose(surface.gradient(w), (p - LABELS) @ U / N, rtol=1e-12)
    assert np.allclose(surface.hessian(w), (U.T * p * (1 - p)) @ U / N, rtol=1e-11)


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e3])
def test_the_minimum_of_logistic_regression_is_that_of_scipy(scale):
    surface = logistic_regression(scale * U, LABELS)
    (minimum,) = surface.minima()
    expected = optimize.minimize(lambda w: logistic_loss(w).mean(), np.zeros(3), tol=1e-12)
    assert np.allclose(minimum.position * scale, expected.x, rtol=1e-5)
    assert minimum.energy == pytest.approx(expected.fun, rel=1e-10)
    penalised = logistic_regression(U, LABELS, l2=0.5).minima()[0].position
    assert np.allclose(
        penalised,
        optimize.minimize(lambda w: logistic_loss(w).mean() + 0.25 * w @ w, np.zeros(3)).x,
        atol=1e-4,
    )


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e3])
def test_separable_data_have_no_minimum(scale):
    labels = U @ [1, 2, 3] > 0
    one_side = np.hstack([U, (np.arange(N) < 4)[:, None] * (2 * LABELS - 1)[:, None]])
    for X, y in ((U, labels), (one_side, LABELS), (np.hstack([U, U[:, :1]]), LABELS)):
        with pytest.raises(UnsoundError, match="separable"):
            logistic_regression(scale * X, y).minima()
        assert np.isfinite(logistic_regression(X, y, l2=1e-3).minima()[0].position).all()


@pytest.mark.parametrize(
    "X, y, names",
    [
        (U[:, 0], LABELS, "X has shape"),
        (U, LABELS[:-1], "y has shape (18,)"),
        (U, LABELS[:, None], "y has shape (19, 1)"),
        (U, LABELS + 1, "labels 1, 2"),
        (U, V, "needed: 0 and 1, or -1 and +1"),
        (U, np.arange(N) % 3 - 1, "labels -1, 0, 1"),
        (U, np.full(N, np.nan), "nan"),
        (U, ["cat"] * N, "0/1"),
        (U * np.nan, LABELS, "NaN"),
        ("a", LABELS, "X"),
    ],
)
def test_logistic_regression_refuses(X, y, names):
    with pytest.raises(ParameterError) as caught:
        logistic_regression(X, y)
    assert names in str(caught.value)


def test_margins_of_any_size_give_finite_weights_in_float32():
    """Weights of 3e4 at the start: |z| up to 1e5, and exp(z) would overflow."""
    surface = logistic_regression(U, LABELS, l2=0.01)
    start = 1e4 * np.array([[1.0, -2.0, 3.0], [-1.0, 2.0, -3.0]])
    assert np.abs(U @ start.T).max() > 3e4
    options = {"n_replicas": 2, "n_steps": 20_000, "start": start, "dtype": "float32", "seed": 1}
    result = lv.simulate(surface, lv.SGD(0.1, 4), progress=False, **options)
    assert np.isfinite(result.positions).all()
    assert np.abs(result.positions - surface.minima()[0].position).max() < 2


# --- runs on data that are refused ----------------------------------------------------------------


def attempt(dynamics, surface=None, **options):
    options = {"n_replicas": 4, "n_steps": 4, "seed": 0, "progress": False, **options}
    return lv.simulate(surface or built("least squares")[0], dynamics, **options)


@pytest.mark.parametrize(
    "dynamics, names",
    [
        (lv.SGD(0.1, N + 1, sampling="without_replacement"), "batch_size=20"),
        (lv.SGD(0.1, [1, 2, 3, N + 1], sampling="without_replacement"), "batch_size=20"),
        (lv.SGD(0.1, 2.5), "batch_size=2.5"),
        (lv.SGD(0.1, [1, 2, 2.5, 4]), "batch_size=2.5"),
        (lv.SGD(0.1, 0.5), "batch_size=0.5"),
        (lv.SGD(0.1, 2**31), "batch_size"),
        (lv.SGD(0.1, [1, 2, 3]), "batch_size"),
    ],
)
def test_batch_sizes_that_are_refused(dynamics, names):
    with pytest.raises(ParameterError) as caught:
        attempt(dynamics)
    assert names in str(caught.value)


def test_a_step_that_must_diverge_is_refused():
    surface, _, _ = built("least squares")
    top = np.linalg.eigvalsh(U.T @ U / N)[-1]
    with pytest.raises(UnsoundError, match="diverge"):
        attempt(lv.SGD(2.01 / top, 4))
    with pytest.raises(UnsoundError, match="diverge"):
        attempt(lv.Overdamped(0.1, 2.01 / top))
    with pytest.raises(UnsoundError, match="diverge"):
        attempt(lv.SGD(3.9 / top, 4, momentum=0.9))
    surface.check_stability(lv.SGD(1.99 / top, 4))
    surface.check_stability(lv.SGD(3.7 / top, 4, momentum=0.9))


def test_stability_is_judged_replica_by_replica():
    """A large step with the momentum that carries it is stable; so is a small one without."""
    surface, _, _ = built("least squares")
    top = np.linalg.eigvalsh(U.T @ U / N)[-1]
    surface.check_stability(lv.SGD(np.array([0.5, 3.5]) / top, 4, momentum=[0.0, 0.9]))
    with pytest.raises(UnsoundError, match="diverge"):
        surface.check_stability(lv.SGD(np.array([0.5, 3.5]) / top, 4, momentum=[0.9, 0.0]))


def test_there_is_no_temperature_on_data():
    surface, _, _ = built("least squares")
    with pytest.raises(UnsoundError, match="temperature"):
        lv.SGD(0.1, 4).temperature(surface)


def test_a_histogram_on_data_covers_what_the_covariance_allows():
    surface, _, _ = built("least squares")
    dynamics = lv.SGD(0.1, 4)
    result = lv.simulate(
        surface, dynamics, n_replicas=640, n_steps=400, burn_in=100, progress=False,
        observe=(lv.Histogram(axes=0), lv.Moments()),
    )  # fmt: skip
    density, width = result.density(), np.sqrt(result.moments().covariance[0, 0])
    reach = np.abs(density.edges[[0, -1]] - surface.minima()[0].position[0])
    assert density.outside == 0 and (reach > 5 * width).all()


def test_the_noise_scale_of_smith_and_le():
    """g = eta N/(B (1 - m)), and eta (N/B - 1)/(1 - m) without replacement."""
    assert lv.SGD(0.1, 4, momentum=0.5).noise_scale(100) == pytest.approx(5.0)
    without = lv.SGD(0.1, 4, momentum=0.5, sampling="without_replacement")
    assert without.noise_scale(100) == pytest.approx(4.8) and without.noise_scale(4) == 0
    assert np.allclose(lv.SGD(0.1, np.array([1.0, 2.0])).noise_scale(10), [1.0, 0.5])


def test_the_sampling_factor():
    surface, _, _ = built("least squares")
    assert lv.SGD(0.1, 4).sampling_factor(surface) == 1
    without = lv.SGD(0.1, 4, sampling="without_replacement")
    assert without.sampling_factor(surface) == pytest.approx((N - 4) / (N - 1))
    full = lv.SGD(0.1, N, sampling="without_replacement")
    assert full.sampling_factor(surface) == 0
