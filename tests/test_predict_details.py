"""Small properties of the predictions that the tests of whole laws do not see."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import chi2, norm

import langevin as lv
from langevin import predict
from langevin.errors import UnsoundError
from langevin.predict.aggregation import second_eigenvalue
from langevin.predict.diffusion import diffusion_of
from langevin.predict.elimination import eliminate, quasi_stationary, slowest_mode
from langevin.predict.finite_step_gaussian import _negative_part
from langevin.predict.fitted import Solution
from langevin.predict.hitting import _solved
from langevin.predict.jumps import _chebyshev, selling
from langevin.predict.kernel import step_of
from langevin.predict.kramers import OUTSIDE, hitting_time
from langevin.predict.moments import LinearChain
from langevin.predict.passage_integral import LineDiffusion, mean_first_passage
from langevin.predict.smoothed_plane import SmoothedPlane
from langevin.predict.sparse_chain import checked

WELL = lv.surfaces.double_well(0.4)
BOWL = lv.surfaces.quadratic(np.diag([1.0, 9.0]))
QUARTIC = lv.Surface("h*(x**2 - 1)**2", h=4.0, noise=lv.Isotropic(1.0))
ESCAPING = predict.chain(WELL, lv.Overdamped(0.12, 0.4))  # replicas are lost at every step


# --- the finite step ------------------------------------------------------------------------------


def test_the_first_order_law_far_out_is_zero_not_nan():
    law = predict.finite_step(WELL, temperature=0.12, step=0.01)
    assert law.density([[1e100], [-1e200]]).tolist() == [0.0, 0.0]


def test_momentum_divides_the_slope_of_the_whole_law_too():
    plain = predict.finite_step(WELL, temperature=0.12, step=0.01)
    heavy = predict.finite_step(WELL, lv.SGD(0.01, 0.01 / 0.12, momentum=0.5))
    assert heavy.temperature == pytest.approx(plain.temperature)
    assert heavy.slope(0, 1) == pytest.approx(plain.slope(0, 1) / 1.5, rel=1e-12)


def test_a_law_that_is_negative_where_it_matters_is_refused():
    """A sharp, unstable well with some percents of the mass: little is moved, but below 0."""
    surface = lv.Surface("-log(exp(-x**2/2) + exp(-h*(x - 7)**2/2))", h=100.0)
    assert predict.finite_step(surface, temperature=1.0, step=0.025).negative_mass < 0.005
    with pytest.raises(UnsoundError, match=r"makes 0\.015 of it negative"):
        predict.finite_step(surface, temperature=1.0, step=0.03)


def test_momentum_widens_the_range_of_stable_steps():
    bowl = lv.surfaces.quadratic(np.eye(1))
    assert "first order" in predict.finite_step(bowl, lv.SGD(0.5, 1, momentum=0.9)).regime
    with pytest.raises(UnsoundError, match=r"below 3\.8"):
        predict.finite_step(bowl, lv.SGD(3.8, 1, momentum=0.9))


def test_the_bound_on_negative_mass_is_one():
    """Of n equal curvatures the mass is an integral over chi-square with n degrees of freedom."""
    for n, c in ((5, 0.25), (20, 0.06)):
        positive = lambda q, n, c: (n * c - 1 - c * q) * chi2.pdf(q, n)  # noqa: E731
        exact = quad(positive, 0, n - 1 / c, args=(n, c))[0]
        assert exact <= _negative_part(np.full(n, c)) < 80 * exact


def test_noise_that_is_not_gaussian_is_named():
    with pytest.raises(UnsoundError, match="isotropic Gaussian gradient noise, and it is StudentT"):
        predict.finite_step(WELL.replace(noise=lv.StudentT(5.0)), lv.SGD(0.01, 1))


# --- linear chains --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "dynamics",
    [
        lv.Overdamped(0.3, 0.1),
        *(lv.Overdamped(0.3, 0.1, integrator=i) for i in ("heun", "leimkuhler_matthews", "exact")),
        *(lv.Underdamped(0.3, 0.7, 0.2, splitting=s) for s in ("BAOAB", "OBABO", "BAOA")),
        lv.SGD(0.1, 4, momentum=0.5),
    ],
    ids=repr,
)
def test_one_step_keeps_the_stationary_covariance(dynamics):
    chain = predict.quadratic(BOWL, dynamics).linear
    again = chain.step @ chain.stationary @ chain.step.T + chain.kick
    assert again == pytest.approx(chain.stationary, abs=1e-13)


def test_a_direction_flat_but_for_rounding_is_refused():
    trough = lv.Surface("x**2/2 + h*y**2/2", h=1e-14, noise=lv.Isotropic(1.0))
    with pytest.raises(UnsoundError, match="is not positive"):
        predict.quadratic(trough, lv.SGD(0.1, 4))


def test_noise_of_a_formula_that_depends_on_the_position_is_refused():
    bowl = lv.Surface("x**2/2", noise=lv.StateDependent("1 + x**2"))
    with pytest.raises(UnsoundError, match="depends on the position"):
        predict.quadratic(bowl, lv.SGD(0.1, 4))


def test_without_momentum_the_closed_form_is_the_limit():
    h = np.array([0.5, 2.0, 7.0])
    limit = LinearChain(h, 0.1, 1e-9).gains()
    assert LinearChain(h, 0.1, 0.0).gains() == pytest.approx(limit, rel=1e-6)
    assert limit == pytest.approx(np.transpose(limit, (1, 0, 3, 2)), rel=1e-12)


def test_only_the_moments_of_other_noise_are_compared():
    bowl, dynamics = lv.Surface("x**2/2", noise=lv.StudentT(4.5)), lv.SGD(0.5, 1)
    law = predict.quadratic(bowl, dynamics)
    assert not law.gaussian and not law.at(2).gaussian
    assert law.at(2).regime.startswith("exact mean and covariance 2 steps")
    assert predict.quadratic(bowl.replace(noise=lv.Isotropic(1.0)), dynamics).at(2).gaussian
    run = lv.simulate(
        bowl, dynamics, n_replicas=5000, n_steps=60, burn_in=20, seed=1, progress=False,
        observe=(lv.Histogram(bins=40, range=(-5, 5), at=[2], name="early"), lv.Moments()),
    )  # fmt: skip
    rows = [row.quantity for row in lv.compare(run, law).rows]
    assert rows == ["cov[0,0]", "mean[0]"]


# --- scaling --------------------------------------------------------------------------------------


def test_an_unstable_equivalent_deviates_without_bound():
    rule = predict.scaling(BOWL, lv.SGD(0.01, 4))
    assert np.isfinite(rule.deviation(lv.SGD(0.2, 80)))
    assert rule.deviation(lv.SGD(0.23, 92)) == np.inf  # the sharper curvature is 9


def test_a_ratio_is_not_predicted_where_either_side_oscillates():
    plain, heavy = lv.SGD(0.01, 0.1), lv.SGD(0.1, 10.0, momentum=0.9)
    for ours, theirs in ((plain, heavy), (heavy, plain)):
        assert "p_0/p_1" not in predict.scaling(WELL, ours).deviations(theirs)
    assert "p_0/p_1" in predict.scaling(WELL, plain).deviations(plain)


# --- escape ---------------------------------------------------------------------------------------


def test_a_barrier_watched_at_steps_is_farther_out():
    """By -zeta(1/2)/sqrt(2 pi) standard deviations of a step: Broadie, Glasserman and Kou 1997."""
    dt = 1e-3
    shift = 0.5825971579390106 * np.sqrt(2 * dt)
    for start, barrier, out in ((-1.0, 0.7, 1), (1.0, -0.7, -1)):
        found = predict.escape(QUARTIC, lv.Overdamped(1.0, dt), [start], [barrier])
        moved = predict.escape(QUARTIC, lv.Overdamped(1.0, dt), [start], [barrier + out * shift])
        assert found.monitored == pytest.approx(moved.exact, rel=1e-10)
        assert found.monitored > found.exact


def test_a_barrier_within_a_thousandth_of_the_top_is_the_top():
    top = predict.escape(QUARTIC, lv.Overdamped(1.0, 1e-3), [-1.0], [0.0])
    for barrier in (-1e-4, 1e-4):
        near = predict.escape(QUARTIC, lv.Overdamped(1.0, 1e-3), [-1.0], [barrier])
        assert near.kramers == pytest.approx(top.kramers, rel=1e-12)
    with pytest.raises(UnsoundError, match="no maximum"):
        predict.escape(QUARTIC, lv.Overdamped(1.0, 1e-3), [-1.0], [-0.01])


def test_a_deeper_well_behind_a_high_barrier_holds_its_share():
    """Wells 60 T deep near every whole number, the deepest to the left of the start."""
    wells = lv.Surface("30*(1 - cos(c*x)) + 12*x + x**4/2", c=2 * np.pi)
    found = predict.escape(wells, lv.Overdamped(1.0, 1e-4), [0.0], [1.0])
    assert found.exact / found.kramers == pytest.approx(1, abs=0.02)
    alone = wells.replace(c=2 * np.pi).energy(np.array([[-0.01], [0.49]]))
    assert found.exact > 1e4 * np.exp(alone[1] - alone[0])  # that of the well it starts in


def test_the_potential_of_noise_that_depends_on_the_position():
    """psi = int 2 U'/g^2, less ln g for Stratonovich's convention."""
    noise = "1 + a*x**2"
    surface = lv.Surface("x**2/2 + 0*a*x", variables=("x",), a=0.6, noise=lv.StateDependent(noise))
    ito, other = (LineDiffusion(surface, None, 0.2, s) for s in (False, True))
    spread = lambda x: 0.2 * (1 + 0.6 * x * x)  # noqa: E731
    rise = quad(lambda x: 2 * x / spread(x), 0.3, 1.7)[0]
    assert ito.difference(0.3, 1.7) == pytest.approx(rise, rel=1e-10)
    less = np.log(spread(1.7) / spread(0.3)) / 2
    assert other.difference(0.3, 1.7) == pytest.approx(rise - less, rel=1e-10)


def test_kramers_takes_the_noise_at_both_ends():
    noise = lv.StateDependent("1 + a*x**2")
    surface = lv.Surface("x**4/4 - x**2/2 + 0*a*x", variables=("x",), a=3.0, noise=noise)
    quiet = predict.escape(surface, lv.SGD(0.001, 0.06), [-1.0], [1.0])
    assert quiet.exact / quiet.kramers == pytest.approx(1, abs=0.12)


def test_the_action_that_decides_between_kinds_of_diffusion():
    """Of a harmonic orbit as high as the barrier: 2 pi dU/omega, with omega^2 = U''/mass."""
    found = predict.escape(QUARTIC, lv.Underdamped(1.0, 0.5, 0.01), [-1.0], [1.0])
    assert f"is about {0.5 * 2 * np.pi * 4 / np.sqrt(32):.2g} " in found.regime
    weak = predict.escape(QUARTIC, lv.Underdamped(1.0, 0.05, 0.01), [-1.0], [1.0])
    assert "below 1: energy diffusion rules" in weak.regime


@pytest.mark.parametrize("top", [None, 3])
def test_the_time_of_the_jump_process_is_a_linear_solve(top):
    """Four wells, fast and slow, one of them with a way out that is not the target's."""
    ends = np.array([[0, 1], [1, 2], [0, 2], [2, 3], [1, OUTSIDE], [0, 1]])
    logs = np.array([[-9, 4], [9, -8], [-7, -5], [6, 2], [-60, -np.inf], [-8, 3.5]])
    target, n = (3, 3) if top is None else (None, 4)
    rates = np.zeros((4, 5))  # the last column: the way out, which does not count as arriving
    for k, pair in enumerate(ends):
        for e in (0, 1):
            if pair[e] != OUTSIDE:
                rates[pair[e], 4 if k == top else pair[1 - e]] += np.exp(logs[k, e])
    generator = np.diag(rates.sum(1)) - rates[:, :4]
    if top is not None:  # the saddle itself, reached twice as often as crossed
        generator += np.diag(rates[:, 4])
    exact = np.linalg.solve(generator[:n, :n], np.ones(n))[0]
    assert hitting_time(logs, ends, 0, target, top) == pytest.approx(exact, rel=1e-9)


def test_noise_that_vanishes_on_the_way():
    for gap in ("1 + sign(x**2 - 0.04)", "1 + sign((x + 0.5)**2 - 0.04)"):  # at the top, before it
        surface = QUARTIC.replace(noise=lv.StateDependent(gap))
        with np.errstate(all="ignore"), pytest.raises(UnsoundError, match="the noise vanishes"):
            predict.escape(surface, lv.SGD(0.01, 0.01), [-1.0], [1.0])
        process = LineDiffusion(surface, None, 1.0)
        with np.errstate(all="ignore"), pytest.raises(UnsoundError, match="vanishes between"):
            mean_first_passage(process, np.array([-1.0, 1.0]), -1.0)


# --- chains ---------------------------------------------------------------------------------------


def test_steps_that_are_not_gaussian_have_no_chain():
    for dynamics in (lv.SGD(0.1, 4), lv.SGD(0.1, 4, momentum=0.5)):
        with pytest.raises(UnsoundError, match=r"StudentT.* is not Gaussian"):
            predict.chain(WELL.replace(noise=lv.StudentT(5.0)), dynamics)


def test_a_closed_chain_hits_nothing():
    rows, columns = np.array([1, 0, 2, 1]), np.array([0, 1, 1, 2])
    closed = eliminate(rows, columns, np.full(4, 0.4), np.zeros(3))
    with pytest.raises(UnsoundError, match="no step leads into the region"):
        _solved(closed, np.ones(3))


def test_the_stratonovich_drift_grows_with_momentum():
    surface = lv.Surface("x**2/2", noise=lv.StateDependent("1 + x**2", convention="stratonovich"))
    assert step_of(surface, lv.SGD(0.1, 4, momentum=0.75)).drift == pytest.approx(0.1 / 8 / 0.25)


def test_the_second_eigenvalue_of_a_chain_that_loses_mass():
    rng = np.random.default_rng(1)
    matrix = rng.random((12, 12)) ** 4
    matrix *= rng.uniform(0.5, 0.9, 12) / matrix.sum(axis=0)
    values, vectors = np.linalg.eig(matrix)
    order = np.argsort(-abs(values))
    p = vectors[:, order[0]].real / vectors[:, order[0]].real.sum()
    found = second_eigenvalue(matrix, p)
    assert found == pytest.approx(abs(values[order[1]]), rel=1e-9)


def test_the_slowest_mode_of_a_chain_that_loses_mass():
    n, up, down = 12, np.linspace(0.3, 0.1, 11), np.linspace(0.15, 0.35, 11)
    loss = np.where(np.arange(n) == n - 1, 0.2, 0.01)
    k = np.arange(n - 1)
    rows, columns = np.concatenate([k + 1, k]), np.concatenate([k, k + 1])
    values = np.concatenate([up, down])
    matrix = np.zeros((n, n))
    matrix[rows, columns] = values
    matrix += np.diag(1 - loss - matrix.sum(axis=0))
    exact = np.sort(np.linalg.eigvals(matrix).real)
    factors = eliminate(rows, columns, values, loss)
    p, lost = quasi_stationary(factors, loss)
    assert 1 - lost == pytest.approx(exact[-1], rel=1e-12)
    assert matrix @ p == pytest.approx(exact[-1] * p, rel=1e-10)
    assert slowest_mode(factors, p, lost) == pytest.approx(1 / (1 - exact[-2]), rel=1e-8)


def test_the_first_step_of_a_passage_is_a_normal_tail():
    law = predict.chain(WELL, lv.Overdamped(0.12, 0.1))
    x, slope = -0.5, WELL.gradient(np.array([[-0.5]]))[0, 0]
    tail = norm.sf((0.3 - (x - 0.1 * slope)) / np.sqrt(2 * 0.12 * 0.1))
    found = law.hitting_probability("x > 0.3", [[0, 1], [2, 1]], [x])
    assert found[0] == pytest.approx([0.0, tail], rel=1e-9) and found[1, 0] > 1.5 * tail
    survival = 1 - law.hitting_probability("x > 0.3", np.arange(6000), [x])
    assert 0.1 * survival.sum() == pytest.approx(law.hitting_time("x > 0.3", [x]), rel=1e-6)


def test_weight_decay_counts_against_a_stable_step():
    bowl = lv.Surface("x**2/2", noise=lv.Isotropic(1.0))
    assert predict.chain(bowl, lv.SGD(0.95, 4, weight_decay=1.0)).error > 0
    with pytest.raises(UnsoundError, match=r"curvature 2\.2 needs a step below"):
        predict.chain(bowl, lv.SGD(0.95, 4, weight_decay=1.2))


def test_what_a_chain_must_fulfil_to_be_a_law():
    assert ESCAPING.lifetime == 1 / ESCAPING.lost < 1e9
    assert checked(replace(ESCAPING, lost=1e-13)).lifetime == 1e13
    assert checked(replace(ESCAPING, lost=1e-16)).lifetime == np.inf
    for wrong, words in (
        ({"residual": 1e-8}, "residual is 1.0e-08"),
        ({"error": 2e-3}, "change by 2.0e-03"),
        ({"lost": 0.05 / ESCAPING.relaxation_steps}, "no stationary law"),
    ):
        with pytest.raises(UnsoundError, match=words):
            checked(replace(ESCAPING, **wrong))


def test_probabilities_are_of_the_replicas_alive():
    late = ESCAPING.at(3, [1.9])
    assert late.surviving < 1 - 1e-8
    for law in (ESCAPING, late):
        assert law.occupation().sum() == pytest.approx(1, abs=1e-12)
        assert law.bin_probabilities([-np.inf, 0.3, np.inf]).sum() == pytest.approx(1, abs=1e-12)
        half = replace(law, weights=law.weights / 2)
        assert half.variance == pytest.approx(law.variance, rel=1e-12)
        assert half.moments()[0] == pytest.approx(law.moments()[0], rel=1e-12)
        outside = [[law.low - 1e-6], [law.high + 1e-6]]
        assert law.density(outside).tolist() == [0.0, 0.0]
        assert law.density([[law.low + 1e-6], [law.high - 1e-6]]).min() > 0


def test_cells_of_a_plane_are_shared_out_among_its_basins():
    """A Gaussian over four by four cells: two basins, two of no basin, and one that is divided."""
    table = np.array([[0, 0, 0, 0], [0, 0, 0, 0], [1, -2, 1, 1], [1, 1, -1, -1]])
    basins = SimpleNamespace(
        n=2, low=np.full(2, -2.0), high=np.full(2, 2.0), labels=np.zeros((4, 4)), table=table,
        lines=np.array([[-1.0, 0.0, -0.75]]), sides=np.array([[0, 1]]),
    )  # fmt: skip
    law = SmoothedPlane(
        "law", "", SimpleNamespace(basins=lambda: basins), np.array([[0.2, -0.3]]),
        np.array([np.diag([1.0, 0.8])]), np.ones(1), np.full(2, -np.inf), np.full(2, np.inf),
        (None, None), None,
    )  # fmt: skip
    x, y = (lambda a, b, m=m, s=s: np.diff(norm.cdf([a, b], m, s))[0]
            for m, s in ((0.2, 1.0), (-0.3, np.sqrt(0.8))))  # fmt: skip
    for a, b in zip(law.moments(), replace(law, weights=np.array([0.3])).moments(), strict=True):
        assert a == pytest.approx(b, rel=1e-12)  # of the replicas alive
    edges = [-np.inf, 0.3, np.inf], [-np.inf, -1.0, 0.5, np.inf]
    turned = law.bin_probabilities(edges[::-1], axes=(1, 0))
    assert turned.T == pytest.approx(law.bin_probabilities(edges), rel=1e-12)
    nowhere = x(1, np.inf) * y(0, np.inf)
    left = x(-np.inf, 0) + x(0, 0.75) * y(-1, 0)  # the divided cell: up to three quarters
    assert law.unassigned == pytest.approx(nowhere, rel=1e-12)
    assert law.occupation() == pytest.approx([left, 1 - left - nowhere], abs=5e-3)


def test_a_passage_across_where_the_step_diverges_is_refused():
    with pytest.raises(UnsoundError, match="overshoots and diverges"):
        ESCAPING.hitting_time("x > 5", [1.0])


def test_the_points_of_rest_feel_weight_decay():
    step = step_of(WELL, lv.SGD(0.1, 4, weight_decay=0.5))
    assert np.abs(step.slope(step.rest())).max() < 1e-11
    assert np.abs(step.rest() - [m.position for m in WELL.minima()]).min() > 0.01


# --- the continuum --------------------------------------------------------------------------------


def test_the_exponential_conserves_mass_to_rounding():
    assert abs(_chebyshev().sum() - 1) < 1e-15


def test_the_mass_beyond_a_grid_is_a_geometric_series():
    tail = 0.5 ** np.arange(40)
    grid = SimpleNamespace(cells=40)
    (low, _), (high, quotient) = Solution((grid,), None, None, tail, None).sides()
    assert quotient == 0.5 and high == pytest.approx(tail[-1], rel=1e-12)  # 1/2 + 1/4 + ...
    assert low == pytest.approx(2e3, rel=1e-12)  # grows outwards: as much as a bound allows


def test_weight_decay_adds_to_energy_gradient_and_hessian():
    with_decay = diffusion_of(WELL, lv.SGD(0.1, 4, weight_decay=0.3))
    x, h = np.array([[-0.7], [1.1]]), 1e-5
    assert with_decay.energy(x) == pytest.approx(WELL.energy(x) + 0.15 * x[:, 0] ** 2)
    slope = (with_decay.energy(x + h) - with_decay.energy(x - h)) / (2 * h)
    assert with_decay.gradient(x)[:, 0] == pytest.approx(slope, rel=1e-7)
    bend = (with_decay.gradient(x + h) - with_decay.gradient(x - h))[:, 0] / (2 * h)
    assert with_decay.hessian(x)[:, 0, 0] == pytest.approx(bend, rel=1e-7)


def test_weights_of_the_jumps_have_no_kink():
    """As correlation changes its sign other diagonals are jumped along."""
    b = 1e-4
    d = np.array([[[1.0, c], [c, 1.3]] for c in (-b, 0.0, b)])
    weights, offsets = selling(d)
    assert np.einsum("nk,nki,nkj->nij", weights, offsets, offsets) == pytest.approx(d, abs=1e-12)
    rate = weights.sum(axis=1)
    assert abs(rate[0] - 2 * rate[1] + rate[2]) < 1e-3 * b  # |b| alone would make it 2 b


def test_bins_of_a_coarse_grid_sum_to_one():
    law = predict.fokker_planck(WELL, lv.Overdamped(0.12, 0.1), cells=40)
    assert law.bin_probabilities([-np.inf, 0.2, np.inf]).sum() == pytest.approx(1, abs=1e-13)


def test_a_ratio_to_nothing_has_no_value():
    nothing = replace(ESCAPING, thresholds=np.array([100.0]))
    plane = lv.Surface("(x**2 - 1)**2 + y**2")
    law = predict.fokker_planck(plane, lv.Overdamped(0.5, 0.01), cells=24)
    left = np.where(law.nodes[..., 0] < -0.2, law.probability, 0.0)
    for empty in (nothing, replace(law, probability=left)):
        assert empty.ratio(1, 0) == 0
        with pytest.raises(UnsoundError, match="minimum 1 has a probability of 0"):
            empty.ratio(0, 1)


def test_cells_across_a_border_are_divided():
    surface = lv.Surface("(x**2 - 1)**2 + 2*(y - x/2)**2 + 0.3*x*y + 0.15*x")
    found = predict.fokker_planck(surface, lv.Overdamped(0.5, 0.01))
    exact = predict.boltzmann_gibbs(surface, temperature=0.5)
    assert found.occupation() == pytest.approx(exact.occupation(), abs=2e-5)


def test_critical_noise_needs_noise():
    surface = lv.surfaces.wide_and_sharp().replace(noise=lv.Isotropic(0.0))
    with pytest.raises(UnsoundError, match="sigma > 0"):
        predict.critical_noise(surface, lv.SGD(0.1, 4), 0, 1)
