"""The law of the gradient noise in one step, heavy tails, and the stationary laws they make.

One step from a point x gives ``(x - eta g - x')/eta``, the noise itself: its mean, covariance and
distribution are compared with what the surface says and with scipy.stats.
"""

import functools

import laws
import numpy as np
import pytest
from kit import replicas, statistical
from scipy import integrate, optimize, stats

import langevin as lv

N = replicas(100_000)
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


def surface_with(noise):
    return lv.Surface(WELL, a=0.5, noise=noise)


def one_step(surface, point, *, eta=0.5, size=1.0, **options):
    """The noise of one step from a point, (n_replicas, dim)."""
    result = simulate(surface, lv.SGD(eta, size), n_steps=1, start=point, **options)
    moved = point - result.positions.astype(float)
    return moved / eta - surface.gradient(np.asarray(point))


def covariance_z(x, covariance):
    """z of all covariances and means of independent Gaussians."""
    variances = np.maximum(np.diag(covariance), 1e-12)
    error = np.sqrt((np.outer(variances, variances) + covariance**2) / len(x))
    z = ((x.T @ x / len(x) - covariance) / error)[np.tril_indices(len(covariance))]
    return np.concatenate([z, x.mean(axis=0) / np.sqrt(variances / len(x))])


@pytest.mark.parametrize("kind", NOISES)
@statistical(comparisons=12, seed=1)
def test_one_step_has_the_covariance_of_the_surface(seed, check, kind):
    surface, size = check.once("surface", surface_with, NOISES[kind]), 4.0
    noise = one_step(surface, POINT, size=size, seed=seed)
    exact = surface.noise_covariance(POINT) / size
    check.z(covariance_z(noise, exact), "covariance")
    for axis in range(3):
        scaled = noise[:, axis] / np.sqrt(exact[axis, axis])
        check.p(fits(scaled, stats.norm.cdf), f"Gaussian, axis {axis}")
    check.twin(covariance_z(noise, 2 * exact), "noise off by sqrt(2)")
    check.twin(covariance_z(noise, size * exact), "S forgotten")
    if kind not in ("Isotropic", "scalar"):
        other = np.eye(3) * np.trace(exact) / 3
        check.twin(covariance_z(noise, other), "isotropic")
    if not kind.startswith(("Isotropic", "Anisotropic")):
        elsewhere = surface.noise_covariance(POINT / 2) / size
        check.twin(covariance_z(noise, elsewhere), "of another point")


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


@statistical(comparisons=9, seed=1)
def test_the_stratonovich_drift_is_that_of_one_step(seed, check):
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
        surface = check.once(convention, surface_with, noise)
        found = one_step(surface, POINT, eta=eta, size=size, seed=seed).mean(axis=0)
        check.z((found - mean) / errors, convention)
        for wrong in (-drift - mean, 2 * mean if mean.any() else drift, drift):
            check.twin((found - wrong) / errors, convention)
    diagonal = lv.StateDependent(["1 + x**2", "2", "1"], convention="stratonovich")
    surface = check.once("diagonal", surface_with, diagonal)
    found = one_step(surface, POINT, eta=eta, size=size, seed=seed)
    expected = np.array([-x * eta / (2 * size), 0, 0])  # C'/2 = x
    errors = np.sqrt(np.array([1 + x**2, 2, 1]) / size / N)
    check.z((found.mean(axis=0) - expected) / errors, "diagonal")


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


def fits(x, cdf):
    """The p-value of the KS distance."""
    return stats.kstest(x, cdf, method="asymp").pvalue


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("family", ["StudentT", "AlphaStable"])
@statistical(comparisons=45, seed=1, missed_bug=3e-3)
def test_heavy_tails_have_their_laws(seed, check, family, dtype):
    """Each component's distribution, its tails to 1e-4, and independence of the components."""
    n, scale = replicas(200_000), 1.7
    shapes = {"StudentT": (0.6, 1.0, 3.0, 30.0), "AlphaStable": (0.7, 1.0, 1.5, 1.9, 2.0)}[family]
    for shape in shapes:
        noise = getattr(lv, family)(shape, scale)
        student = family == "StudentT"
        cdf = stats.t(shape).cdf if student else stable_cdf(shape)
        options = dict(n_replicas=n, dtype=dtype, seed=seed)
        found = one_step(plane(noise), np.zeros(2), **options) / scale
        for axis in range(2):
            x = found[:, axis]
            check.p(fits(x, cdf), f"law {shape}, axis {axis}")
        if check.twins:
            check.twin(p=fits(found.ravel() / np.sqrt(2), cdf), name="noise off by sqrt(2)")
            check.twin(p=fits(found.ravel() * 1.07, cdf), name=f"{shape} off by 7 %")
        wrong = stats.t(1.3 * shape).cdf if student and shape < 10 else stats.norm.cdf
        if shape != 30.0:
            check.twin(p=fits(found[:, 0], wrong), name=f"not {shape}")
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
            check.count((np.abs(found) > quantile).sum(), 2 * n, p, f"tail {p} of {shape}")
        if shape < 1.9:
            beyond = (np.abs(found) > stats.norm.isf(5e-5) * np.sqrt(2)).sum()
            check.twin((beyond - 2 * n * 1e-4) / np.sqrt(2 * n * 1e-4), "Gaussian tails")
        for f in (lambda x: x, np.abs):
            ranks = stats.spearmanr(f(found[:, 0]), f(found[:, 1])).statistic * np.sqrt(n)
            check.z(ranks, f"independent components {shape}")
    radial = found / np.linalg.norm(found, axis=1, keepdims=True)  # a planted dependence is seen
    check.twin(stats.spearmanr(*np.abs(radial).T).statistic * np.sqrt(n), "dependence")


@statistical(comparisons=10, seed=1)
def test_batch_sizes_quieten_each_law_by_its_own_power(seed, check):
    """Interquartile ranges: S**-(1 - 1/alpha) for stable noise, S**-1/2 for the others."""
    n, size = replicas(200_000), 16.0
    for noise, power, cdf in (
        (lv.AlphaStable(1.5), 1 / 3, stable_cdf(1.5)),
        (lv.AlphaStable(1.0), 0.0, stable_cdf(1.0)),
        (lv.AlphaStable(0.7), 1 - 1 / 0.7, stable_cdf(0.7)),
        (lv.AlphaStable(2.0), 0.5, stable_cdf(2.0)),
        (lv.StudentT(2.5), 0.5, stats.t(2.5).cdf),
    ):
        one, many = (
            np.log(
                np.diff(
                    np.quantile(
                        one_step(plane(noise), np.zeros(2), size=s, n_replicas=n, seed=seed + s),
                        [0.25, 0.75],
                    )
                )
            )
            for s in (1, 16)
        )
        error = np.sqrt(2) * quartiles_error(cdf, 2 * n)
        check.z(((one - many)[0] - power * np.log(size)) / error, str(noise))
        wrong = 0.5 if power != 0.5 else 1 / 3
        check.twin(((one - many)[0] - wrong * np.log(size)) / error, str(noise))


def quartiles_error(cdf, n):
    """Standard error of the log interquartile range of n draws of a symmetric law."""
    q = optimize.brentq(lambda x: cdf(x) - 0.75, 0.01, 10)
    density = (cdf(q * 1.05) - cdf(q * 0.95)) / (0.1 * q)
    return 1 / (4 * q * density * np.sqrt(n))


@pytest.mark.parametrize("alpha, dtype", [(0.7, "float64"), (1.0, "float32"), (1.5, "float64")])
@statistical(comparisons=2, seed=1, missed_bug=1e-3)
def test_sgd_under_stable_noise_stays_stable(seed, check, alpha, dtype):
    """On a quadratic: scale**alpha = eta**alpha s**alpha / (1 - |1 - eta h|**alpha), exactly."""
    h, eta, size, s = 1.5, 0.4, 4.0, 0.3
    surface = lv.Surface("h*x**2/2", variables=("x",), h=h, noise=lv.AlphaStable(alpha, s))
    steps = int(np.ceil(np.log(1e-6) / (alpha * np.log(1 - eta * h)))) + 2
    n = replicas(400_000)
    result = simulate(
        surface,
        lv.SGD(eta, size),
        n,
        n_steps=steps,
        start=[0.0],
        dtype=dtype,
        seed=seed,
        on_divergence="absorb",
    )
    assert (result.diverged >= 0).mean() < 1e-5
    x = result.positions[:, 0].astype(float)
    scale = laws.stable_scale(eta, h, alpha, s * size ** (1 / alpha - 1))
    check.p(fits(x / scale, stable_cdf(alpha)), "law")
    for wrong in (
        scale * np.sqrt(2),
        laws.stable_scale(eta, h, 2.0, s * size ** (1 / alpha - 1)),
        laws.stable_scale(eta, h, alpha, s),
        laws.stable_scale(eta, h, alpha, s / np.sqrt(size)),
    ):
        if abs(np.log(wrong / scale)) > 1e-9:  # at alpha = 1 the batch size does nothing
            check.twin(p=fits(x / wrong, stable_cdf(alpha)), name=f"scale {wrong}")
    check.twin(p=fits(x / scale, stable_cdf(alpha + 0.1 if alpha != 1.0 else 1.1)), name="alpha")


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
@statistical(comparisons=1, seed=1)
def test_multiplicative_noise_makes_power_laws(seed, check, noise):
    """At small eta: the density of theory; at any eta: the law of the discrete chain."""
    n, h, c0, c1 = replicas(200_000), 1.0, 0.25, 4.0
    surface = lv.Surface("x**2/2", noise=noise)
    assert surface.noise_covariance([0.5])[0, 0] == pytest.approx(c0 + c1 / 4)
    eta, size = 0.02, 0.1  # eta/S = .2: p ~ x**-(2 + 2.5) far out
    options = dict(n_steps=500, start=[0.0], seed=seed)
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

    check.p(fits(found, check.once("law", chain, eta, size)), "chain")
    if not check.twins:
        return
    for wrong in (
        law(eta, 1.0),  # S forgotten
        law(eta, size, 2 * c0, 2 * c1),
        law(eta, size, c0, c1 / 4),
        law(eta / 4, size),
        chain(2 * eta, size),
        stats.norm(scale=found.std()).cdf,
    ):
        check.twin(p=fits(found, wrong), name="another law")
    y = np.linspace(-3, 3, 601)
    away = [
        np.abs(chain(eta * s, size * s)(y) - law(eta, size)(y)).max() for s in (8, 4)
    ]  # at one eta/S, so at one law of theory
    assert away[0] < 2 * eta and away[0] / away[1] == pytest.approx(2, rel=0.15)  # O(eta)


@statistical(comparisons=16, seed=1, missed_bug=1e-3)
def test_the_chain_predicts_state_dependent_noise(seed, check):
    """compare() agrees with predict.chain of the same noise and differs from that of another."""
    surface = lv.Surface("x**2/2", noise=lv.StateDependent("0.5 + 0.5*x**2"))
    watch = lv.Histogram(40, range=(-3, 3))
    dynamics = lv.SGD(0.2, 0.15)
    options = dict(n_steps=300, burn_in=100, start=[0.0], observe=watch, seed=seed)
    result = simulate(surface, dynamics, replicas(20_000), **options)
    chain = check.once("law", lv.predict.chain, surface, dynamics)
    check.verdict(lv.compare(result, chain))
    if check.twins:
        other = surface.replace(noise=lv.StateDependent("0.5 + 0.3*x**2"))
        wrong = lv.compare(result, lv.predict.chain(other, dynamics))
        check.twin(p=wrong.p_value, name="other noise")
