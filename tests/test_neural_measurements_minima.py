"""Sharpness and evidence of a minimum: oracles, enumeration of corners, brute-force integrals."""

import itertools
import math

import numpy as np
import pytest
from kit import statistical
from scipy import optimize

from langevin.errors import ConvergenceWarning, ParameterError, UnsoundError

torch = pytest.importorskip("torch", reason="needs torch: pip install .[neural]")

from measured import brute_hessian, classifier, least_squares, numbers, whole_loss  # noqa: E402
from torch import nn  # noqa: E402

from langevin import neural  # noqa: E402
from langevin.neural import NeuralSurface, evidence  # noqa: E402


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


class Quadratic(nn.Module):
    """Its output is offset + g'w + w'Hw/2 about ``centre``."""

    def __init__(self, H, g, centre):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(centre, dtype=torch.float64))
        for name, value in (("H", H), ("g", g), ("centre", centre)):
            self.register_buffer(name, torch.tensor(value, dtype=torch.float64))

    def forward(self, x):
        d = self.w - self.centre
        return (0.3 + self.g @ d + 0.5 * d @ self.H @ d) * torch.ones(len(x), 1, dtype=x.dtype)


def quadratic(H, g, centre):
    nothing = (torch.zeros(3, 1, dtype=torch.float64), torch.zeros(3))
    return NeuralSurface(Quadratic(H, g, centre), nothing, loss="output")


CENTRE = np.array([0.5, -2.0, 0.0, 7.0, 1.0, -0.1])


def trained(surface, start=None):
    """The minimum of a small surface, to rounding: BFGS, then Newton."""
    start = surface.flat() if start is None else start
    theta = optimize.minimize(
        surface.energy, start, jac=surface.gradient, method="BFGS", options={"gtol": 1e-9}
    ).x
    for _ in range(4):
        H = brute_hessian(surface, theta)
        theta = theta - np.linalg.lstsq(H, surface.gradient(theta), rcond=1e-9)[0]
    return theta


# --- sharpness ------------------------------------------------------------------------------------


METHODS = ("lbfgsb", "ascent")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("slope", [0.0, 1.0])
@pytest.mark.parametrize("epsilon", [1e-3, 5e-4, 0.5])
def test_a_diagonal_quadratic_s_sharpness_is_known(slope, epsilon, method):
    """max = sum h d^2/2 + |g| d; at slope 0 the centre is the minimum, where nothing points up."""
    h = np.array([3.0, 0.01, 1.0, 0.5, 20.0, 2.0])
    g = slope * np.array([0.2, -0.1, 0.4, 0.0, -3.0, 0.1])
    d = epsilon * (np.abs(CENTRE) + 1)
    found = neural.sharpness(quadratic(np.diag(h), g, CENTRE), epsilon=epsilon, method=method)
    expected = 100 * (h * d**2 / 2 + np.abs(g) * d).sum() / 1.3
    assert found.value == pytest.approx(expected, rel=1e-8)
    assert found.converged and found.loss == pytest.approx(0.3, abs=1e-14)
    np.testing.assert_allclose(np.abs(found.point), 1, rtol=1e-12)


def corners(surface, half, A):
    centre = surface.flat()
    signs = np.array(list(itertools.product([-1.0, 1.0], repeat=len(half))))
    rise = surface.energy(centre + (signs * half) @ A.T).max() - surface.energy(centre)
    return 100 * rise / (1 + surface.energy(centre))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("mode", ["full", "given", "random"])
def test_a_convex_quadratic_s_sharpness_is_at_a_corner(mode, method):
    """Every corner is tried: 2^6, or 2^4 of a subspace."""
    root = numbers(6, 6, seed=4).numpy()
    surface = quadratic(root @ root.T, numbers(6, seed=5).numpy() * 1e-3, CENTRE)
    if mode == "full":
        A, subspace = np.eye(6), None
    elif mode == "given":
        A = subspace = numbers(6, 4, seed=6).numpy()
    else:
        from langevin.neural.probes import normals

        A, subspace = np.stack([normals(9, j, 6) for j in range(4)], axis=1), 4
        A = A / np.linalg.norm(A, axis=0)
    half = 1e-3 * (np.abs(np.linalg.pinv(A) @ CENTRE) + 1)
    options = {"subspace": subspace, "starts": 40, "iterations": 30, "method": method}
    found = neural.sharpness(surface, **options, seed=9)
    assert found.value == pytest.approx(corners(surface, half, A), rel=1e-8)
    assert found.converged and found.values.max() == found.value and found.spread > 0


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("slope", [0.0, 1.0])
def test_ten_iterations_are_enough_where_there_are_many_parameters(slope, method):
    """Whose box is sqrt(dim) times as long: a first step of the gradient's length is nothing."""
    n = 20_000
    h = 10.0 ** (3 * torch.rand(n, generator=torch.Generator().manual_seed(2)).double() - 2)
    g = slope * numbers(n, seed=3)

    class Bowl(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.zeros(n, dtype=torch.float64))

        def forward(self, x):
            return x[:, :1] * ((h * self.w**2).sum() / 2 + (g * self.w).sum())

    surface = neural.NeuralSurface(Bowl(), (torch.ones(1, 1), torch.zeros(1)), loss="output")
    found = neural.sharpness(surface, epsilon=1e-3, method=method)
    expected = 100 * float((h * 1e-6 / 2 + g.abs() * 1e-3).sum())
    assert 0.99 * expected < found.value <= expected * (1 + 1e-12)
    assert found.remaining < 0.05 * expected and found.evaluations <= 20


def test_more_iterations_and_starts_never_lower_it_and_say_what_is_left():
    surface = classifier()
    theta = trained(surface)
    few = neural.sharpness(surface, theta, iterations=1)
    many = neural.sharpness(surface, theta, iterations=200, starts=4)
    assert 0 < few.value < many.value
    assert not few.converged and few.remaining > many.remaining
    d = 1e-3 * (np.abs(theta) + 1)
    top = np.linalg.eigvalsh(d[:, None] * brute_hessian(surface, theta) * d)[-1]
    bound = 100 * top * surface.dim / 2 / (1 + surface.energy(theta))
    assert many.value < bound  # of the quadratic, in the ball around the box


@pytest.mark.parametrize("box", ["relative", "layer"])
def test_other_boxes(box):
    h = np.array([3.0, 0.01, 1.0, 0.5, 20.0, 2.0])
    surface = quadratic(np.diag(h), np.zeros(6), CENTRE)
    d = 1e-3 * (np.abs(CENTRE) if box == "relative" else np.sqrt(np.mean(CENTRE**2)))
    found = neural.sharpness(surface, box=box)
    assert found.value == pytest.approx(100 * (h * d**2 / 2).sum() / 1.3, rel=1e-8)


@pytest.mark.parametrize(
    "options", [{"epsilon": 0}, {"box": "ball"}, {"method": "climb"}, {"subspace": 99},
                {"subspace": np.eye(3)}, {"subspace": 2, "box": "layer"}, {"iterations": 0}],
)  # fmt: skip
def test_sharpness_refuses(options):
    with pytest.raises(ParameterError):
        neural.sharpness(quadratic(np.eye(6), np.zeros(6), CENTRE), **options)


# --- evidence -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [1, 2])
def test_the_evidence_of_least_squares_is_the_integral(dim):
    """exp(-C) is a Gaussian there: Laplace is exact, and quadrature confirms it to 1e-8."""
    base, _, _ = least_squares(n=17, dim=dim)
    surface = NeuralSurface(base.module, (base.X, base.y), loss="squared", l2=0.05)
    theta = trained(surface)
    found = neural.log_evidence(surface, theta)
    lam, lowest = 17 * 0.05, 17 * surface.energy(theta)
    spread = 9 / np.sqrt(17 * np.linalg.eigvalsh(brute_hessian(surface, theta)))[0]

    axis = np.linspace(-spread, spread, 401)  # equal weights: exact for what vanishes at the ends
    grid = np.stack(np.meshgrid(*[axis] * dim, indexing="ij"), axis=-1)
    density = np.exp(-(17 * surface.energy(theta + grid) - lowest))
    integral = density.sum() * (axis[1] - axis[0]) ** dim * (lam / (2 * math.pi)) ** (dim / 2)
    assert found.value == pytest.approx(math.log(integral) - lowest, abs=1e-8)
    assert np.isnan(found.ratio) and found.decrement < 1e-12 and found.cut == 0


def binary(n, dim, l2, seed=0):
    """Logistic regression with a logit for each of two classes, of which one is fixed at 0."""
    X = numbers(n, dim, seed=seed)
    y = (X.sum(1) + numbers(n, seed=seed + 1) > 0).long()

    class Logits(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.zeros(dim, dtype=torch.float64))

        def forward(self, x):
            z = x @ self.w
            return torch.stack([torch.zeros_like(z), z], dim=1)

    return NeuralSurface(Logits(), (X, y), l2=l2)


@pytest.mark.parametrize("dim, n", [(1, 20), (1, 80), (1, 320), (2, 80), (2, 320)])
def test_the_evidence_of_logistic_regression_tends_to_the_integral(dim, n):
    """Laplace's error falls as 1/N."""
    surface = binary(n, dim, 2.0 / n)
    theta = trained(surface)
    found = neural.log_evidence(surface, theta)
    lowest = n * surface.energy(theta)
    axis = np.linspace(-8, 8, 1_601 if dim == 1 else 321) / math.sqrt(n / 20)
    grid = np.stack(np.meshgrid(*[axis] * dim, indexing="ij"), axis=-1)
    density = np.exp(-(n * surface.energy(theta + grid) - lowest))
    cell = (axis[1] - axis[0]) ** dim
    exact = math.log(density.sum() * cell * (2.0 / (2 * math.pi)) ** (dim / 2)) - lowest
    assert abs(found.value - exact) < 1.0 * dim / n
    assert found.ratio == pytest.approx(-found.value - n * math.log(2), abs=1e-10)


def test_the_formula_of_smith_and_le():
    surface = classifier(l2=0.02)
    theta = trained(surface)
    values = 61 * np.linalg.eigvalsh(brute_hessian(surface, theta))
    lam = 61 * 0.02
    kept = values[values >= lam * (1 + 1e-9)]
    expected = 61 * surface.energy(theta) + 0.5 * np.log(kept / lam).sum() - 61 * math.log(3)
    found = neural.log_evidence(surface, theta)
    assert found.ratio == pytest.approx(expected, abs=1e-9)
    assert found.regulariser == pytest.approx(lam) and found.null == pytest.approx(61 * math.log(3))
    assert found.cut == (values < lam * (1 - 1e-9)).sum()


def test_random_labels_leave_a_small_positive_ratio():
    """At large lambda E -> 0+, far below what a difference of sums could resolve."""
    X = numbers(40, 2, seed=8)
    y = torch.arange(40) % 2
    ratios = []
    for l2 in (1e3, 1e6, 1e9):
        surface = NeuralSurface(binary(40, 2, l2).module, (X, y), l2=l2)
        ratios.append(neural.log_evidence(surface, trained(surface)).ratio)
    assert ratios[0] > ratios[1] > ratios[2] > 0
    assert ratios[1] / ratios[2] == pytest.approx(1e3, rel=1e-3)


@statistical(comparisons=3, seed=4, smoke=False)
def test_probing_covers_the_whole_hessian(seed, check):
    from scipy import stats

    surface = classifier(l2=0.05)
    theta = trained(surface)
    exact = neural.log_evidence(surface, theta)
    found = [neural.log_evidence(surface, theta, probes=6, steps=14, seed=100 * seed + k)
             for k in range(100)]  # fmt: skip
    t = np.array([(f.value - exact.value) / f.stderr for f in found])
    check.count(int((np.abs(t) < stats.t.isf(0.025, 5)).sum()), 100, 0.95, "coverage")
    each = np.array([f.occam for f in found])
    check.z((each.mean() - exact.occam) / (each.std(ddof=1) / 10), "mean", dof=99)
    check.twin((each.mean() - 2 * exact.occam) / (each.std(ddof=1) / 10), "a forgotten half")
    assert all(f.cut is None for f in found)


def test_the_truncation_bounds_what_more_lanczos_steps_would_change():
    surface = classifier(l2=0.05)
    theta = trained(surface)
    options = {"probes": 4}
    long = neural.log_evidence(surface, theta, steps=400, **options)
    found = [neural.log_evidence(surface, theta, steps=m, **options) for m in (6, 12, 24)]
    for f in found:
        assert abs(f.occam - long.occam) < f.truncation
    assert found[0].truncation > 3 * found[1].truncation > 9 * found[2].truncation


def test_what_is_no_minimum_or_has_no_prior_is_said(monkeypatch):
    surface = classifier(l2=0.02)
    with pytest.warns(ConvergenceWarning, match="not a minimum"):
        whole = neural.log_evidence(surface)
    H, g = brute_hessian(surface), surface.gradient(surface.flat())
    values, axes = np.linalg.eigh(H)
    up = values > 0
    expected = 61 / 2 * ((axes.T @ g)[up] ** 2 / values[up]).sum()
    assert whole.decrement == pytest.approx(expected, rel=1e-9)
    monkeypatch.setattr(evidence, "DENSE", 0)
    with pytest.warns(ConvergenceWarning, match="not a minimum"):
        neural.log_evidence(surface)
    with pytest.raises(UnsoundError, match="l2=0"):
        neural.log_evidence(classifier(l2=0.0))


def test_the_loss_is_the_one_of_one_piece():
    surface = classifier(l2=0.02)
    theta = torch.tensor(surface.flat())
    with pytest.warns(ConvergenceWarning):
        found = neural.log_evidence(surface)
    assert found.cost == pytest.approx(61 * whole_loss(surface)(theta).item(), rel=1e-14)
