"""The law of the gradient noise in one step, heavy tails, and the stationary laws they make.

One step from a point x gives ``(x - eta g - x')/eta``, the noise itself: its mean, covariance and
distribution are compared with what the surface says and with scipy.stats.
"""

import functools

import laws
import numpy as np
import pytest
from scipy import integrate, stats

import langevin as lv

N = 100_000
ACCEPT, REJECT = 4, 5
POINT = np.array([0.7, -1.2, 0.4])
WELL = "x**4/4 + a*x*y + y**2 + 3*z**2/2 + x*z/2"
FULL = [["2 + x**2", "x*y/2", "0.3"], ["x*y/2", "1 + y**2", "a*z"], ["0.3", "a*z", "1 + z**2"]]
FACTOR = [["1 + x", "0.5*y"], ["z", "1"], ["x*y", "0.2 - x"]]  # of rank 2: C is singular
NOISES = {
    "Isotropic": lv.Isotropic(1.3),
    "Anisotropic": lv.Anisotropic([[2.0, 0.6, -0.3], [0.6, 1.0, 0.2], [-0.3, 0.2, 0.5]]),
    "Anisotropic of rank 2": lv.Anisotropic(np.outer([1, 2, 0], [1, 2, 0]) + np.diag([0, 0, 1.0])),
    "scalar": lv.StateDependent("1 + x**2 + a*y**2"),
    "diagonal": lv.StateDependent(["1 + x**2", "exp(y)", "a + z**2"]),
    "full": lv.StateDependent(FULL),
    "factor": lv.StateDependent(factor=FACTOR),
    "LabelNoise": lv.LabelNoise(["x*y + z", "a*x**2 - y*z"], 0.7),
    "Multiplicative": lv.Multiplicative(0.8, 0.3),
}


def simulate(surface, dynamics, n_replicas=N, **options):
    options = {"seed": 1, "progress": False, **options}
    return lv.simulate(surface, dynamics, n_replicas=n_replicas, **options)


def one_step(surface, point, *, eta=0.5, size=1.0, **options):
    """The noise of one step from a point, (n_replicas, dim)."""
    result = simulate(surface, lv.SGD(eta, size), n_steps=1, start=point, **options)
    moved = point - result.positions.astype(float)
    return moved / eta - surface.gradient(np.asarray(point))


def covariance_z(x, covariance, error=None):
    """Largest |z| over means and covariances of independent Gaussians."""
    variances = np.maximum(np.diag(covariance), 1e-12)
    if error is None:
        error = np.sqrt((np.outer(variances, variances) + covariance**2) / len(x))
    z = np.abs((x.T @ x / len(x) - covariance) / error).max()
    return max(z, np.abs(x.mean(axis=0) / np.sqrt(variances / len(x))).max())


@pytest.mark.parametrize("kind", NOISES)
def test_one_step_has_the_covariance_of_the_surface(kind):
    surface = lv.Surface(WELL, a=0.5, noise=NOISES[kind])
    size = 4.0
    noise = one_step(surface, POINT, size=size)
    exact = surface.noise_covariance(POINT) / size
    assert covariance_z(noise, exact) < ACCEPT
    for axis in range(3):
        scaled = noise[:, axis] / np.sqrt(exact[axis, axis])
        assert np.sqrt(N) * stats.kstest(scaled, "norm").statistic < 2.7, "Gaussian"
    assert covariance_z(noise, 2 * exact) > REJECT
    assert covariance_z(noise, size * exact) > REJECT
    if kind not in ("Isotropic", "scalar"):
        other = np.eye(3) * np.trace(exact) / 3
        assert covariance_z(noise, other) > REJECT, "isotropic"
    if not kind.startswith(("Isotropic", "Anisotropic")):
        elsewhere = surface.noise_covariance(POINT / 2) / size
        assert covariance_z(noise, elsewhere) > REJECT, "of another point"


def test_covariances_are_the_formulas_themselves():
    """noise_covariance at a point against numbers put in by hand."""
    x, y, z, a = *POINT, 0.5

    def of(kind):
        return lv.Surface(WELL, a=a, noise=NOISES[kind]).noise_covariance(POINT)

    assert np.allclose(of("scalar"), (1 + x**2 + a * y**2) * np.eye(3))
    assert np.allclose(of("diagonal"), np.diag([1 + x**2, np.exp(y), a + z**2]))
    full = [[2 + x**2, x * y / 2, 0.3], [x * y / 2, 1 + y**2, a * z], [0.3, a * z, 1 + z**2]]
    assert np.allclose(of("full"), full)
    factor = np.array([[1 + x, 0.5 * y], [z, 1], [x * y, 0.2 - x]])
    assert np.allclose(of("factor"), factor @ factor.T)
    jacobian = np.array([[y, 2 * a * x], [x, -z], [1, -y]])
    assert np.allclose(of("LabelNoise"), 0.49 / 2 * jacobian @ jacobian.T)
    slope = np.array([x**3 + a * y + z / 2, a * x + 2 * y, 3 * z + x / 2])
    assert np.allclose(of("Multiplicative"), np.diag(0.09 + 0.64 * slope**2))


def test_the_stratonovich_drift_is_that_of_one_step():
    """Mean of a step: -eta (grad L - (eta/2S) sum_jk B_jk dB_ik/dx_j); of Ito none."""
    eta, size, (x, y, z) = 0.5, 2.0, POINT
    b = np.array([[1 + x, 0.5 * y], [z, 1], [x * y, 0.2 - x]])
    slopes = np.zeros((3, 2, 3))  # dB_ik/dx_j
    slopes[0, 0, 0], slopes[0, 1, 1], slopes[1, 0, 2] = 1, 0.5, 1
    slopes[2, 0, 0], slopes[2, 0, 1], slopes[2, 1, 0] = y, x, -1
    drift = np.einsum("jk,ikj->i", b, slopes) * eta / (2 * size)
    errors = np.sqrt(np.diag(b @ b.T) / size / N)
    for convention, mean in (("ito", 0.0 * drift), ("stratonovich", -drift)):
        noise = lv.StateDependent(factor=FACTOR, convention=convention)
        surface = lv.Surface(WELL, a=0.5, noise=noise)
        found = one_step(surface, POINT, eta=eta, size=size).mean(axis=0)
        assert np.abs((found - mean) / errors).max() < ACCEPT
        for wrong in (-drift - mean, 2 * mean if mean.any() else drift, drift):
            assert np.abs((found - wrong) / errors).max() > REJECT
    diagonal = lv.StateDependent(["1 + x**2", "2", "1"], convention="stratonovich")
    found = one_step(lv.Surface(WELL, a=0.5, noise=diagonal), POINT, eta=eta, size=size)
    expected = np.array([-x * eta / (2 * size), 0, 0])  # C'/2 = x
    assert np.abs((found.mean(axis=0) - expected) / np.sqrt((1 + x**2) / size / N)).max() < 5


# --- heavy tails ----------------------------------------------------------------------------------


@functools.cache
def stable_cdf(alpha):
    """P(X <= x) of exp(-|u|**alpha) by Gil-Pelaez, 1/2 + (1/pi) int sin(ux)/u e**(-u**alpha) du.

    On a grid of asinh(x), to be interpolated; levy_stable itself takes minutes.
    """
    if alpha == 1:
        return stats.cauchy.cdf
    if alpha == 2:
        return stats.norm(scale=np.sqrt(2)).cdf
    grid = np.linspace(0, np.arcsinh(60.0), 250)
    # u = t**2 softens the cusp at 0; Gauss-Legendre panels resolve sin(60 u).
    top = np.sqrt(38 ** (1 / alpha))
    nodes, weights = np.polynomial.legendre.leggauss(20)
    panels = np.linspace(0, top, 1500)
    half = np.diff(panels)[:, None] / 2
    t = (panels[:-1, None] + half * (1 + nodes)).ravel()
    w = (half * weights).ravel() * 2 * np.exp(-(t ** (2 * alpha))) / t
    value = 0.5 + np.array([np.sin(t * t * x) @ w for x in np.sinh(grid)]) / np.pi

    def cdf(x):
        a = np.arcsinh(np.abs(x))
        tail = stable_tail(alpha, np.maximum(np.abs(x), 1.0))
        above = np.where(np.abs(x) < 60, np.interp(a, grid, value), 1 - tail)
        return np.where(np.asarray(x) > 0, above, 1 - above)

    return cdf


def stable_tail(alpha, x):
    """P(X > x) far out, the first two terms of Bergstrom's series."""
    from scipy.special import gamma

    terms = [
        -((-1) ** k)
        * gamma(alpha * k)
        * np.sin(np.pi * alpha * k / 2)
        / gamma(k + 1)
        * x ** (-alpha * k)
        for k in (1, 2)
    ]
    return sum(terms) / np.pi


def test_the_oracle_of_stable_laws_agrees_with_scipy():
    for alpha in (0.7, 1.5):
        for x in (0.3, 2.0, 20.0):
            assert stable_cdf(alpha)(x) == pytest.approx(
                stats.levy_stable.cdf(x, alpha, 0), abs=2e-5
            )


def plane(noise):
    return lv.Surface("x**2/2 + y**2/2", noise=noise)


def kolmogorov(x, cdf):
    """KS distance in units that exceed 2.7 once in a million."""
    return stats.kstest(x, cdf).statistic * np.sqrt(len(x))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("family", ["StudentT", "AlphaStable"])
def test_heavy_tails_have_their_laws(family, dtype):
    """Each component's distribution, its tails to 1e-4, and independence of the components."""
    n, scale = 200_000, 1.7
    shapes = {"StudentT": (0.6, 1.0, 3.0, 30.0), "AlphaStable": (0.7, 1.0, 1.5, 1.9, 2.0)}[family]
    for shape in shapes:
        noise = getattr(lv, family)(shape, scale)
        student = family == "StudentT"
        cdf = stats.t(shape).cdf if student else stable_cdf(shape)
        found = one_step(plane(noise), np.zeros(2), n_replicas=n, dtype=dtype) / scale
        for axis in range(2):
            x = found[:, axis]
            assert kolmogorov(x, cdf) < 2.7, (shape, axis)
            assert kolmogorov(x / np.sqrt(2), cdf) > 2.7
            assert kolmogorov(x * 1.07, cdf) > 2.7
        wrong = stats.t(1.3 * shape).cdf if student and shape < 10 else stats.norm.cdf
        assert kolmogorov(found[:, 0], wrong) > 2.7 or shape == 30.0
        # Two-sided tails: a fraction p beyond the law's own quantile.
        for p in (1e-2, 1e-3, 1e-4):
            if student:
                quantile = stats.t(shape).isf(p / 2)
            elif shape == 2:
                quantile = stats.norm.isf(p / 2) * np.sqrt(2)
            elif shape == 1:
                quantile = stats.cauchy.isf(p / 2)
            else:
                grid = np.geomspace(1, 1e7, 4000)
                quantile = np.interp(-p / 2, -(1 - stable_cdf(shape)(grid)), grid)
            beyond = (np.abs(found) > quantile).sum()
            expected = 2 * n * p
            assert abs(beyond - expected) < 5 * np.sqrt(expected), (shape, p)
        if shape < 1.9:
            beyond = (np.abs(found) > stats.norm.isf(5e-5) * np.sqrt(2)).sum()
            assert beyond > 2 * n * 1e-4 + 5 * np.sqrt(2 * n * 1e-4), "not Gaussian tails"
        for f in (lambda x: x, np.abs):
            ranks = stats.spearmanr(f(found[:, 0]), f(found[:, 1])).statistic * np.sqrt(n)
            assert abs(ranks) < 5, "independent components"
    radial = found / np.linalg.norm(found, axis=1, keepdims=True)  # a planted dependence is seen
    assert abs(stats.spearmanr(*np.abs(radial).T).statistic) * np.sqrt(n) > 5


def test_batch_sizes_quieten_each_law_by_its_own_power():
    """Interquartile ranges: S**-(1 - 1/alpha) for stable noise, S**-1/2 for the others."""
    n, size = 200_000, 16.0
    for noise, power in (
        (lv.AlphaStable(1.5), 1 / 3),
        (lv.AlphaStable(1.0), 0.0),
        (lv.AlphaStable(0.7), 1 - 1 / 0.7),
        (lv.AlphaStable(2.0), 0.5),
        (lv.StudentT(2.5), 0.5),
    ):
        one, many = (
            np.log(
                np.diff(
                    np.quantile(
                        one_step(plane(noise), np.zeros(2), size=s, n_replicas=n, seed=s),
                        [0.25, 0.75],
                    )
                )
            )
            for s in (1, 16)
        )
        # sd of a log interquartile range of 400,000: below 2.6/sqrt(400,000) for all these laws
        assert abs((one - many)[0] - power * np.log(size)) < 5 * np.sqrt(2) * 2.6 / np.sqrt(2 * n)
        wrong = 0.5 if power != 0.5 else 1 / 3
        assert abs((one - many)[0] - wrong * np.log(size)) > 10 * 2.6 / np.sqrt(n)


@pytest.mark.parametrize("alpha, dtype", [(0.7, "float64"), (1.0, "float32"), (1.5, "float64")])
def test_sgd_under_stable_noise_stays_stable(alpha, dtype):
    """On a quadratic: scale**alpha = eta**alpha s**alpha / (1 - |1 - eta h|**alpha), exactly."""
    h, eta, size, s = 1.5, 0.4, 4.0, 0.3
    surface = lv.Surface("h*x**2/2", variables=("x",), h=h, noise=lv.AlphaStable(alpha, s))
    steps = int(np.ceil(np.log(1e-6) / (alpha * np.log(1 - eta * h)))) + 2
    n = 200_000
    result = simulate(
        surface,
        lv.SGD(eta, size),
        n,
        n_steps=steps,
        start=[0.0],
        dtype=dtype,
        on_divergence="absorb",
    )
    assert (result.diverged >= 0).mean() < 1e-5
    x = result.positions[:, 0].astype(float)
    scale = laws.stable_scale(eta, h, alpha, s * size ** (1 / alpha - 1))
    assert kolmogorov(x / scale, stable_cdf(alpha)) < 2.7
    for wrong in (
        scale * np.sqrt(2),
        laws.stable_scale(eta, h, 2.0, s * size ** (1 / alpha - 1)),
        laws.stable_scale(eta, h, alpha, s),
        laws.stable_scale(eta, h, alpha, s / np.sqrt(size)),
    ):
        if abs(np.log(wrong / scale)) > 1e-9:  # at alpha = 1 the batch size does nothing
            assert kolmogorov(x / wrong, stable_cdf(alpha)) > 2.7
    assert kolmogorov(x / scale, stable_cdf(alpha + 0.1 if alpha != 1.0 else 1.1)) > 2.7


# --- power laws of multiplicative noise -----------------------------------------------------------


def power_law(h, eta, c0, c1, x):
    """``(c0 + c1 x**2)**(-1 - h/(eta c1))`` as a density, and its cdf on the grid x."""
    p = (c0 + c1 * x**2) ** (-1 - h / (eta * c1))
    cdf = np.concatenate([[0], integrate.cumulative_simpson(p, x=x)])
    return cdf / cdf[-1]


@pytest.mark.parametrize(
    "noise",
    [lv.StateDependent("0.25 + 4*x**2"), lv.Multiplicative(2.0, 0.5)],
    ids=lambda n: type(n).__name__,
)
def test_multiplicative_noise_makes_power_laws(noise):
    """At small eta: the density of theory; at any eta: the law of the discrete chain."""
    n, h, c0, c1 = 200_000, 1.0, 0.25, 4.0
    surface = lv.Surface("x**2/2", noise=noise)
    assert surface.noise_covariance([0.5])[0, 0] == pytest.approx(c0 + c1 / 4)
    eta, size = 0.02, 0.1  # eta/S = .2: p ~ x**-(2 + 2.5) far out
    options = dict(n_steps=500, start=[0.0])
    found = simulate(surface, lv.SGD(eta, size), n, **options).positions[:, 0]
    x = np.sinh(np.linspace(-9, 9, 40_001))

    def law(eta, size, c0=c0, c1=c1):
        p = power_law(h, eta, c0 / size, c1 / size, x)
        return lambda y: np.interp(y, x, p)

    def chain(eta, size):
        """The cdf of the discrete chain, by the transition matrix of 800 cells."""
        edges = 0.25 * np.sinh(np.linspace(-9.5, 9.5, 801))
        centre = (edges[1:] + edges[:-1]) / 2
        spread = eta * np.sqrt((c0 + c1 * centre**2) / size)
        below = stats.norm.cdf((edges[:, None] - (1 - eta * h) * centre) / spread)
        below[0], below[-1] = 0, 1
        system = np.diff(below, axis=0) - np.eye(800)
        system[-1] = 1
        p = np.linalg.solve(system, np.eye(800)[-1])
        return lambda y: np.interp(y, edges, np.concatenate([[0], np.cumsum(p)]))

    assert kolmogorov(found, chain(eta, size)) < 2.7
    for wrong in (
        law(eta, 1.0),  # S forgotten
        law(eta, size, 2 * c0, 2 * c1),
        law(eta, size, c0, c1 / 4),
        law(eta / 4, size),
        chain(2 * eta, size),
        stats.norm(scale=found.std()).cdf,
    ):
        assert kolmogorov(found, wrong) > 5
    y = np.linspace(-3, 3, 601)
    away = [
        np.abs(chain(eta * s, size * s)(y) - law(eta, size)(y)).max() for s in (8, 4)
    ]  # at one eta/S, so at one law of theory
    assert away[0] < 2 * eta and away[0] / away[1] == pytest.approx(2, rel=0.15)  # O(eta)


def test_the_chain_predicts_state_dependent_noise():
    """compare() agrees with predict.chain of the same noise and differs from that of another."""
    surface = lv.Surface("x**2/2", noise=lv.StateDependent("0.5 + 0.5*x**2"))
    watch = lv.Histogram(40, range=(-3, 3))
    dynamics = lv.SGD(0.2, 0.15)
    options = dict(n_steps=300, burn_in=100, start=[0.0], observe=watch)
    result = simulate(surface, dynamics, 20_000, **options)
    assert lv.compare(result, lv.predict.chain(surface, dynamics)).verdict == "agrees"
    other = surface.replace(noise=lv.StateDependent("0.5 + 0.3*x**2"))
    assert lv.compare(result, lv.predict.chain(other, dynamics)).verdict == "differs"
