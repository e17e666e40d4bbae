"""predict.chain in two dimensions: closed forms, the chain in one dimension, simulations."""

import functools
from types import SimpleNamespace

import laws
import numpy as np
import pytest
from cases import TILTED, tilted
from kit import replicas, scale, statistical

import langevin as lv
from langevin import predict
from langevin.errors import FormulaError, ParameterError, UnsoundError
from langevin.predict.aggregation import Blocks
from langevin.predict.cardinal import plane_weights
from langevin.predict.region import region_test
from langevin.predict.sparse_chain import deep_enough

H = np.array([[2.0, 0.6], [0.6, 1.0]])
C = np.array([[1.0, -0.5], [-0.5, 0.6]])  # does not commute with H
HALVES = np.array([-np.inf, 0.0, np.inf])
SEPARABLE = TILTED + " + b*y**2/2"


def plane(b=1.5, noise=None):
    return lv.Surface(SEPARABLE, a=0.4, b=b, noise=noise or lv.Isotropic(1.0))


@functools.cache
def wells(dt, T=0.12):
    """The 2-D chain of a double well along x and a parabola along y, and the 1-D chain of x."""
    return (
        predict.chain(plane(), lv.Overdamped(T, dt)),
        predict.chain(tilted(), lv.Overdamped(T, dt)),
    )


# --- closed forms ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "noise, step",
    [
        (lv.Isotropic(1.0), 0.5),
        (lv.Isotropic(1.0), 0.9),
        (lv.Anisotropic(C), 0.2),
        (lv.Anisotropic(C), 0.5),
        (lv.Anisotropic([1.0, 0.3]), 0.9),
    ],
    ids=str,
)
def test_quadratic_surfaces_have_their_exact_law(noise, step):
    """``step`` of the largest stable one; 0.9 overshoots."""
    eta = step * 2 / np.linalg.eigvalsh(H).max()
    surface, dynamics = lv.surfaces.quadratic(H).replace(noise=noise), lv.SGD(eta, 4.0)
    chain, exact = predict.chain(surface, dynamics), predict.quadratic(surface, dynamics)
    mean, covariance = chain.moments()
    assert covariance == pytest.approx(exact.covariance, rel=1e-9)
    assert mean == pytest.approx(np.zeros(2), abs=1e-12)
    assert chain.residual < 1e-12 and not chain.error > 1e-10 and np.isinf(chain.lifetime)
    scale = np.sqrt(np.diag(exact.covariance))
    edges = [s * np.array([-np.inf, -1, -0.3, 0.1, 0.5, 2]) for s in scale]
    assert chain.bin_probabilities(edges) == pytest.approx(exact.bin_probabilities(edges), rel=1e-8)
    swapped = chain.bin_probabilities(edges[::-1], axes=(1, 0))
    assert swapped == pytest.approx(exact.bin_probabilities(edges).T, rel=1e-8)
    for k in (0, 1):
        found = chain.bin_probabilities(edges[k], axes=k)
        assert found == pytest.approx(exact.bin_probabilities(edges[k], axes=k), rel=1e-9)
    points = scale * np.stack(np.meshgrid([-3, -1, 0, 2], [-2, 0, 2.5]), axis=-1)
    assert chain.density(points) == pytest.approx(exact.density(points), rel=1e-8)
    assert chain.occupation() == pytest.approx([1.0])
    slowest = np.abs(1 - eta * np.linalg.eigvalsh(H)).max()
    assert chain.relaxation_steps == pytest.approx(-1 / np.log(slowest), rel=1e-8)
    # The negative twin: a covariance that is 0.1 % off is not mistaken for this one.
    assert covariance != pytest.approx(1.001 * exact.covariance, rel=1e-6)


def test_the_law_at_a_time_on_a_quadratic_surface():
    eta, start = 0.4, np.array([0.3, 0.1])
    surface = lv.surfaces.quadratic(H).replace(noise=lv.Anisotropic(C))
    chain = predict.chain(surface, lv.SGD(eta, 4.0))
    A, noise = np.eye(2) - eta * H, eta**2 * C / 4
    covariance, mean = np.zeros((2, 2)), start
    for step in range(1, 6):
        covariance, mean = A @ covariance @ A.T + noise, A @ mean
        law = chain.at(step, start)
        assert law.moments()[0] == pytest.approx(mean, abs=1e-11)
        assert law.moments()[1] == pytest.approx(covariance, rel=1e-9)
        edges = [np.array([-0.1, 0.05, 0.3]), np.array([-0.2, 0.0, 0.2])]
        exact = predict.GaussianMixture(
            "", "", None, np.zeros(1), mean[None], covariance[None]
        ).bin_probabilities(edges)
        assert law.bin_probabilities(edges) == pytest.approx(exact, rel=1e-8)


def test_weight_decay_is_that_of_the_quadratic():
    surface, dynamics = lv.surfaces.quadratic(H), lv.SGD(0.5, 4.0, weight_decay=0.3)
    exact = predict.quadratic(surface, dynamics).covariance
    assert predict.chain(surface, dynamics).moments()[1] == pytest.approx(exact, rel=1e-9)
    line = lv.surfaces.quadratic(np.eye(1) * 1.5)
    exact = predict.quadratic(line, dynamics).covariance
    assert predict.chain(line, dynamics).variance == pytest.approx(exact[0, 0], rel=1e-9)


def test_a_stratonovich_drift_weakens_the_slope():
    """C = 1 + x**2 adds the drift eta/(2 S) x: least squares with another curvature."""
    noise = lv.StateDependent("1 + x**2", convention="stratonovich")
    surface = lv.Surface("h*x**2/2", h=1.5, noise=noise)
    eta, size = 0.2, 4.0
    found = predict.chain(surface, lv.SGD(eta, size)).variance
    exact = laws.least_squares_variance(eta, 1.5 - eta / (2 * size), 1 / size, 1 / size)
    assert found == pytest.approx(exact, rel=1e-6)
    ito = laws.least_squares_variance(eta, 1.5, 1 / size, 1 / size)
    assert found != pytest.approx(ito, rel=1e-3)


# --- separable surfaces: the chain in one dimension -----------------------------------------------

FIGURES = {0.1: 0.122519, 0.2: 0.129624}  # of test_predict_chain


@pytest.mark.parametrize("dt", sorted(FIGURES))
def test_a_separable_surface_has_the_marginals_of_one_dimension(dt):
    chain, line = wells(dt)
    left, right = chain.bin_probabilities(HALVES, axes=0)
    assert left / right == pytest.approx(FIGURES[dt], abs=5e-7)
    assert left / right == pytest.approx(line.ratio(0, 1), rel=1e-8)
    edges = np.linspace(-1.5, 2, 15)
    assert chain.bin_probabilities(edges, axes=0) == pytest.approx(
        line.bin_probabilities(edges), rel=1e-8
    )
    covariance = chain.moments()[1]
    assert covariance[0, 0] == pytest.approx(line.variance, rel=1e-9)
    assert covariance[1, 1] == pytest.approx(laws.sgd_variance(dt, 0.24 / dt, 1.5), rel=1e-9)
    assert chain.relaxation_time == pytest.approx(line.relaxation_time, rel=1e-7)
    gibbs = predict.boltzmann_gibbs(tilted(), temperature=0.12).ratio(0, 1)
    assert left / right != pytest.approx(gibbs, rel=1e-2)


def test_occupation_follows_the_basins_cells():
    """The labels' cells are a staircase along the separatrix, of up to 1e-3."""
    chain, line = wells(0.1)
    assert chain.occupation() == pytest.approx(line.occupation(), rel=2e-3)
    assert chain.occupation().sum() + chain.unassigned == pytest.approx(1)
    assert chain.ratio(0, 1) == pytest.approx(line.ratio(0, 1), rel=2e-3)


def test_rare_wells_keep_their_relative_accuracy():
    """A ratio of 1e-4 behind a barrier of 9 T, and a relaxation of 10^4 steps."""
    chain, line = wells(0.2, T=0.03)
    left, right = chain.bin_probabilities(HALVES, axes=0)
    assert 1e-6 < left / right < 1e-3
    assert left / right == pytest.approx(line.ratio(0, 1), rel=1e-7)
    assert chain.relaxation_steps == pytest.approx(line.relaxation_steps, rel=1e-6)


def test_the_law_at_a_time_is_that_of_one_dimension():
    chain, line = wells(0.1)
    for step in (1, 2, 30):
        law, other = chain.at(step, [-0.8, 0.3]), line.at(step, [-0.8])
        assert law.bin_probabilities(HALVES, axes=0) == pytest.approx(
            other.bin_probabilities(HALVES), rel=1e-8
        )
        decay = (1 - 0.15) ** step
        assert law.moments()[0] == pytest.approx([other.moments()[0][0], 0.3 * decay], abs=1e-9)
    with pytest.raises(AssertionError):  # one step more is another law
        assert chain.at(31, [-0.8, 0.3]).bin_probabilities(HALVES, axes=0) == pytest.approx(
            other.bin_probabilities(HALVES), rel=1e-4
        )


def test_noise_that_depends_on_the_state():
    """Independent along u and v, C_uu = 1 + u**2/2; x and y are turned by 45 degrees."""
    dynamics = lv.SGD(0.3, 4.0)
    well = "u**4/4 + u**2/2"
    line = predict.chain(lv.Surface(well, noise=lv.StateDependent("1 + u**2/2")), dynamics)
    u, v = "((x + y)/sqrt(2))", "((x - y)/sqrt(2))"
    turned = well.replace("u", u) + f" + {v}**2"
    across = f"(1 + {u}**2/2)"
    both, other = f"({across} + 1)/2", f"({across} - 1)/2"
    noise = lv.StateDependent([[both, other], [other, both]])
    chain = predict.chain(lv.Surface(turned, noise=noise), dynamics)
    root = np.array([[1, 1], [1, -1]]) / np.sqrt(2)
    covariance = root @ chain.moments()[1] @ root
    assert covariance[0, 0] == pytest.approx(line.variance, rel=1e-8)
    assert covariance[1, 1] == pytest.approx(laws.sgd_variance(0.3, 0.25, 2.0), rel=1e-8)
    assert covariance[0, 1] == pytest.approx(0, abs=1e-10)
    box = np.array([-np.inf, np.inf])
    assert chain.bin_probabilities([box, box])[0, 0] == pytest.approx(1, rel=1e-9)
    assert chain.bin_probabilities(HALVES, axes=1) == pytest.approx([0.5, 0.5], rel=1e-8)


# --- hitting times --------------------------------------------------------------------------------


def test_hitting_times_across_a_line_are_those_of_one_dimension():
    chain, _ = wells(0.2)
    exact = laws.hitting_time(lambda x: x**3 - 0.4 * x**2 - x, 0.12, 0.2, -0.8, 0.5, -4.0) * 0.2
    for region in ("x > 0.5", "0.5 < x and y < 50", "not (x <= 1/2)"):
        assert chain.hitting_time(region, [-0.8, 0.2]) == pytest.approx(exact, rel=1e-6)
    later = chain.hitting_time("x > 0.55", [-0.8, 0.2])
    assert later != pytest.approx(exact, rel=1e-3)
    mean = np.mean([chain.hitting_time("x > 0.5", m.position) for m in plane().minima()])
    assert chain.hitting_time("x > 0.5") == pytest.approx(mean, rel=1e-9)


@statistical(comparisons=1, dof=999, seed=7)
def test_hitting_time_of_a_round_region_against_a_simulation(seed, check):
    surface = lv.surfaces.quadratic(H).replace(noise=lv.Anisotropic(C))
    x0, x1 = surface.variables
    region = f"{x0}**2 + {x1}**2 > 1 or ({x0} > 0.5 and {x1} > 0.1)"
    dynamics = lv.SGD(0.5, 2.0)
    chain = check.once("chain", predict.chain, surface, dynamics)
    result = lv.simulate(
        surface, dynamics, n_replicas=replicas(20_000), n_steps=4000, seed=seed, start=[0.2, 0.0],
        observe=lv.FirstPassage(region), progress=False,
    )  # fmt: skip
    mean = result.first_passage().mean
    assert mean.stderr < 0.01 / scale**0.5 * mean.value
    check.estimate(mean, check.once("time", chain.hitting_time, region, [0.2, 0.0]), "mean")
    wider = region.replace("> 1 or", "> 1.2 or").replace("0.5 and", "0.6 and")
    check.twin(mean.z(check.once("wider", chain.hitting_time, wider, [0.2, 0.0])), "wider")


def test_node_weights_integrate_over_a_disc():
    """The mass of a Gaussian in a disc of radius 1.3, off the grid's centre: 1e-6."""
    x, y = 0.1 + np.arange(-20, 21) * 0.45, np.arange(-22, 22) * 0.43
    disc = plane_weights(x, y, lambda u, v: u**2 + v**2 < 1.69)
    density = np.exp(-(x[:, None] ** 2 + y**2) / 2) / (2 * np.pi)
    assert (disc * density).sum() == pytest.approx(1 - np.exp(-1.69 / 2), rel=1e-5)
    corner = plane_weights(x, y, lambda u, v: (u > 0.37) & (v < -0.21))
    exact = (1 - laws_normal(0.37)) * laws_normal(-0.21)
    assert (corner * density).sum() == pytest.approx(exact, rel=1e-7)


def laws_normal(z):
    from scipy.special import ndtr

    return ndtr(z)


def test_regions_are_read_without_evaluating_text():
    inside = region_test(lv.Surface("x**2 + a*y**2 + c*x", a=2, c=1), "0 < x < c or not (y <= a)")
    x, y = np.array([-1.0, 0.5, 2.0, 2.0]), np.array([0.0, 0.0, 2.0, 2.1])
    assert inside(x, y).tolist() == [False, True, False, True]


# --- the solver -----------------------------------------------------------------------------------


def test_aggregation_solves_a_metastable_chain_as_a_dense_solver_does():
    """A birth-death chain of two wells 1e-8 rare: its stationary law is known in closed form."""
    from scipy.sparse import diags_array

    n = 60
    energy = 12 * np.cos(4 * np.pi * np.arange(n) / n) + np.linspace(0, 3, n)
    up = 0.5 * np.minimum(1, np.exp(-np.diff(energy)))
    down = 0.5 * np.minimum(1, np.exp(np.diff(energy)))
    stay = 1 - np.append(up, 0) - np.append(0, down)
    matrix = diags_array([up, stay, down], offsets=[-1, 0, 1]).tocsc()
    blocks = Blocks(matrix, np.zeros(n), np.arange(n) // 4, 3)
    p, lost = blocks.law(np.ones(n))
    exact = np.exp(-(energy - energy.min()))
    assert p == pytest.approx(exact / exact.sum(), rel=1e-9) and lost == 0
    part, loss = matrix[:40, :40].tocsc(), np.zeros(40)
    loss[39] = up[39]
    source = np.zeros(40)
    source[20] = 1.0
    visits = Blocks(part, loss, np.arange(40) // 4, 3).visits(source, np.ones(40))
    flux = np.zeros(40)  # mean number of visits, by first-step sums over the birth-death chain
    for k in range(40):
        last = max(k, 20)
        flux[k] = exact[k] * (1 / (exact[last:40] * up[last:40])).sum()
    assert visits == pytest.approx(flux, rel=1e-9, abs=1e-13 * flux.sum())


# --- quasi-stationary laws and refusals -----------------------------------------------------------


def test_a_superquadratic_surface_has_a_lifetime():
    chain, line = wells(0.4)
    assert chain.lifetime == pytest.approx(line.lifetime, rel=0.02)
    assert "quasi-stationary" in chain.regime
    p = chain.weights
    for _ in range(50):
        p = chain.matrix @ p
    assert 1 / (1 - p.sum() ** (1 / 50)) == pytest.approx(chain.lifetime, rel=1e-6)
    with pytest.raises(UnsoundError, match="escape to infinity"):
        predict.chain(plane(), lv.Overdamped(0.12, 0.6))


def test_what_cannot_be_answered_is_refused():
    chain, _ = wells(0.2)
    with pytest.raises(UnsoundError, match=r"fokker_planck.*finite_step.*boltzmann_gibbs"):
        predict.chain(plane(), lv.Overdamped(0.12, 1e-3))
    with pytest.raises(UnsoundError, match="singular"):
        predict.chain(plane(noise=lv.Anisotropic([1.0, 0.0])), lv.SGD(0.1))
    with pytest.raises(UnsoundError, match="not Gaussian"):
        predict.chain(plane(noise=lv.StudentT(5.0)), lv.SGD(0.1))
    with pytest.raises(UnsoundError, match=r"below 0\.8"):
        predict.chain(lv.surfaces.quadratic(np.diag([1.0, 2.5])), lv.SGD(0.9))
    with pytest.raises(UnsoundError, match="cannot cross"):
        predict.chain(lv.Surface("(x**2 - 1)**2/20 + y**2/2"), lv.Overdamped(1e-4, 1.0))
    with pytest.raises(UnsoundError, match="cdf"):
        chain.cdf(0.0)
    for spacing in (0.0, 0.7, "wide", [0.3]):
        with pytest.raises(ParameterError, match="spacing"):
            predict.chain(plane(), lv.Overdamped(0.12, 0.2), spacing=spacing)
    for call in (lambda s: chain.at(3, s), lambda s: chain.hitting_time("x > 1", s)):
        with pytest.raises(ParameterError, match="Start nearer"):
            call([30.0, 0.0])
        with pytest.raises(ParameterError, match="points"):
            call([0.0])
    for step in (0, 1.5, True, 10**9):
        with pytest.raises(ParameterError, match="at\\(step="):
            chain.at(step)
    for region in ("x > ", "x > z", "x = 1", 3, "__import__('os')"):
        with pytest.raises(FormulaError):
            chain.hitting_time(region)
    for region in ("x > 60", "x**2 + (y - 20)**2 < 0.001"):
        with pytest.raises(UnsoundError, match="outside of where replicas live"):
            chain.hitting_time(region)
    with pytest.raises(ParameterError, match="minimum 2"):
        chain.ratio(0, 2)


def test_a_domain_grows_until_what_it_cuts_off_is_gone():
    class Lost(SimpleNamespace):
        relaxation_time, lifetime = 1.0, 1e9

    def walls(law):
        return deep_enough(lambda depth: Lost(lost=law(depth)), 10.0)

    assert walls(lambda depth: np.exp(-depth)) == pytest.approx(10 * 1.35**4)
    assert walls(lambda depth: np.exp(-depth) + 1e-5) == pytest.approx(10 * 1.35**3)  # they escape
    with pytest.raises(UnsoundError, match="edge of divergence"):
        walls(lambda depth: 1e-2 / depth)
