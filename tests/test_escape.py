"""predict.escape: the exact integral, Kramers in all its forms, and simulations beside them."""

from itertools import pairwise

import laws
import numpy as np
import pytest
from kit import replicas, statistical
from scipy.integrate import quad

import langevin as lv
from langevin import predict
from langevin.errors import LangevinError, ParameterError, UnsoundError

WELL = lv.Surface("h*(x**2 - 1)**2", h=4.0, noise=lv.Isotropic(1.0))
TILTED = lv.Surface("x**4/4 - a*x**3/3 - x**2/2", a=0.4, noise=lv.Isotropic(1.0))
PLANE = lv.Surface("h*(x**2 - 1)**2 + 3*y**2", h=4.0, noise=lv.Isotropic(1.0))
UNEVEN = PLANE.replace(noise=lv.Anisotropic([1.0, 2.0]))
SMALL = lv.Overdamped(1.0, 1e-3)


def kramers(h, T=1.0):
    return 2 * np.pi / np.sqrt(8 * h * 4 * h) * np.exp(h / T)


# --- the exact integral ---------------------------------------------------------------------------


@pytest.mark.parametrize("h, ratio", [(4.0, 1.14), (6.7, 1.07), (10.0, 1.04), (40.0, 1.01)])
def test_exact_against_quadrature_and_kramers(h, ratio):
    found = predict.escape(WELL.replace(h=h), SMALL, [-1.0], [1.0])
    energy = lambda x: h * (x * x - 1) ** 2  # noqa: E731
    assert found.exact == pytest.approx(
        laws.mean_first_passage(energy, 1.0, -1.0, 1.0, -3.0), rel=1e-7
    )
    assert found.kramers == pytest.approx(kramers(h), rel=1e-12)
    assert found.exact / found.kramers == pytest.approx(ratio, abs=0.006)
    back = predict.escape(WELL.replace(h=h), SMALL, [1.0], [-1.0])
    assert back.exact == pytest.approx(found.exact, rel=1e-12)
    assert back.chain == pytest.approx(found.chain, rel=1e-8)
    top = predict.escape(WELL.replace(h=h), SMALL, [-1.0], [0.0])
    assert top.kramers == pytest.approx(kramers(h) / 2, rel=1e-12)
    assert top.exact == pytest.approx(found.exact / 2, rel=0.05)
    assert found.barrier_height == pytest.approx(h) and found.reduced_height == pytest.approx(h)
    assert found.minimum == pytest.approx([-1.0]) and abs(found.saddle[0]) < 1e-9


def test_exact_to_rounding_with_mpmath():
    mpmath = pytest.importorskip("mpmath")
    T = 0.1
    u = lambda x: x**4 / 4 - mpmath.mpf("0.4") * x**3 / 3 - x**2 / 2  # noqa: E731
    inner = lambda y: mpmath.quad(lambda z: mpmath.exp(-u(z) / T), [-3, -1, y], maxdegree=5)  # noqa: E731
    exact = mpmath.quad(lambda y: mpmath.exp(u(y) / T) * inner(y), [-0.8, 0, 0.7]) / T
    found = predict.escape(TILTED, lv.Overdamped(T, 1e-3), [-0.8], [0.7])
    assert found.exact == pytest.approx(float(exact), rel=1e-11)


def test_units_of_sgd_and_langevin():
    time = predict.escape(WELL, lv.Overdamped(1.0, 0.01), [-1.0], [1.0])
    steps = predict.escape(WELL, lv.SGD(0.01, 0.005), [-1.0], [1.0])  # eta/(2 S) = 1
    for name in ("exact", "monitored", "kramers", "chain"):
        assert getattr(steps, name) * 0.01 == pytest.approx(getattr(time, name), rel=1e-10)
    assert steps.unit == "steps" and time.unit == "units of time"
    assert steps.mean_passage_time == steps.chain and steps.rate == 1 / steps.chain


@pytest.mark.parametrize("convention", ["ito", "stratonovich"])
def test_noise_that_depends_on_the_position(convention):
    eta, size, a = 0.01, 0.02, 0.6
    noise = lv.StateDependent("1 + a*x**2", convention=convention)
    surface = lv.Surface("x**4/4 - x**2/2 + 0*a*x", variables=("x",), a=a, noise=noise)
    found = predict.escape(surface, lv.SGD(eta, size), [-1.0], [0.9])
    # s(y) m(z) = exp(int 2 U'/g^2) 2/g^2, by adaptive quadrature; Stratonovich adds g g'/2 to f.
    g2 = lambda x: eta / size * (1 + a * x * x)  # noqa: E731
    extra = (lambda x: eta / size * a * x / 2) if convention == "stratonovich" else lambda x: 0.0
    force = lambda x: 2 * (x**3 - x - extra(x)) / g2(x)  # noqa: E731
    grid = np.linspace(-6, 0.9, 6901)
    psi = np.concatenate([[0], np.cumsum([quad(force, *p)[0] for p in pairwise(grid)])])
    at = lambda x: np.interp(x, grid, psi)  # noqa: E731
    mass = 2 / g2(grid) * np.exp(-psi)
    below = np.concatenate([[0], np.cumsum((mass[1:] + mass[:-1]) / 2 * np.diff(grid))])
    whole = np.exp(at(grid)) * below
    rows = grid >= -1.0 - 1e-9
    exact = np.trapezoid(whole[rows], grid[rows]) / eta
    assert found.exact == pytest.approx(exact, rel=1e-5)
    other = {"ito": "stratonovich", "stratonovich": "ito"}[convention]
    wrong = surface.replace(noise=lv.StateDependent("1 + a*x**2", convention=other))
    assert abs(predict.escape(wrong, lv.SGD(eta, size), [-1.0], [0.9]).exact / exact - 1) > 0.02
    assert np.isfinite(found.chain) == (convention == "ito")
    # For small noise Kramers' formula holds with the potential psi and the noise at both ends.
    quiet = predict.escape(surface, lv.SGD(0.001, 0.06), [-1.0], [1.0])
    assert quiet.reduced_height > 20
    assert quiet.exact / quiet.kramers == pytest.approx(1, abs=0.06)


def test_wells_on_the_way_and_beside_it():
    """Three wells: from the middle one to the right, with a deeper well on the left; and across."""
    surface = lv.Surface("x**6/6 - 5*x**4/4 + 2*x**2 + b*x", b=0.05)
    wells = [m.position for m in surface.minima()]
    assert len(wells) == 3
    for i, j in ((1, 2), (0, 2), (2, 0), (1, 0)):
        found = predict.escape(surface, lv.Overdamped(0.04, 1e-3), wells[i], wells[j])
        assert found.exact / found.kramers == pytest.approx(1, abs=0.1)
    alone = 2 * np.pi * np.exp(found.reduced_height)  # the single well's formula misses it
    top, well = surface.saddles()[1], surface.minima()[1]
    alone /= np.sqrt(well.hessian[0, 0] * -top.hessian[0, 0])
    right = predict.escape(surface, lv.Overdamped(0.04, 1e-3), wells[1], wells[2])
    assert right.exact > 2 * alone


def test_a_well_that_opens_to_infinity():
    cubic = lv.Surface("x**2/2 - x**3/3")
    found = predict.escape(cubic, lv.Overdamped(0.03, 1e-3), [0.0], [2.0])
    assert found.kramers == pytest.approx(2 * np.pi * np.exp(1 / 0.18), rel=1e-12)
    assert found.exact / found.kramers == pytest.approx(1.066, abs=0.01)
    assert found.chain == pytest.approx(found.exact, rel=0.01)
    with pytest.raises(UnsoundError, match="basin"):
        predict.escape(cubic, lv.Overdamped(0.03, 1e-3), [2.0], [0.0])


def test_a_formula_that_ends_is_a_wall():
    surface = lv.Surface("h*((log(x))**2 - 1)**2", h=2.0)
    a, b = (m.position for m in surface.minima(within=(0.01, 20.0)))
    found = predict.escape(surface, lv.Overdamped(0.3, 1e-4), a, b)
    energy = lambda x: 2 * (np.log(x) ** 2 - 1) ** 2  # noqa: E731
    exact = laws.mean_first_passage(energy, 0.3, a[0], b[0], 1e-4)
    assert found.exact == pytest.approx(exact, rel=1e-5)


# --- simulations ----------------------------------------------------------------------------------


def passages(dynamics, n, region, start, seed=11, n_steps=200_000, surface=WELL, **options):
    run = lv.simulate(surface, dynamics, n_replicas=n, n_steps=n_steps, seed=seed, start=start,
                      observe=lv.FirstPassage(region, **options), progress=False)  # fmt: skip
    passages = run.first_passage()
    assert passages.censored == 0
    return passages.times


def mean_z(times, exact):
    """The mean against an exact one, in its own standard errors."""
    return (times.mean() - exact) / (times.std(ddof=1) / np.sqrt(len(times)))


@statistical(comparisons=4, dof=999, seed=11)
def test_integral_chain_and_simulation_agree(seed, check):
    """By the spread of the times themselves, which is nearly their mean over a barrier."""
    coarse = lv.Overdamped(1.0, 0.01)
    law = check.once("law", predict.escape, WELL, coarse, [-1.0], [1.0])
    assert law.mean_passage_time == law.chain
    times = passages(coarse, replicas(32_000), "x > 1", [-1.0], seed)
    check.z(mean_z(times, law.chain), "chain", len(times) - 1)
    hotter = lv.Overdamped(np.sqrt(2), 0.01)
    hotter = check.once("hotter", predict.escape, WELL, hotter, [-1.0], [1.0]).chain
    # At this step even the continuum's own time is rejected.
    wrong = {"Kramers": law.kramers, "to the top": law.kramers / 2, "continuum": law.exact}
    for name, time in (wrong | {"hotter": hotter}).items():
        check.twin(mean_z(times, time), name)
    steps = passages(lv.SGD(0.01, 0.005), replicas(2000), "x > 1", [-1.0], seed + 1)
    check.z(mean_z(steps * 0.01, law.chain), "SGD", len(steps) - 1)
    # To the top, watched at steps and corrected for it, at a step small enough for the integral.
    fine, n = lv.Overdamped(1.0, 1e-3), 2500
    law = check.once("fine", predict.escape, WELL, fine, [-1.0], [0.0])
    for k, (continuous, exact) in enumerate(((False, law.monitored), (True, law.exact))):
        times = passages(fine, replicas(n), "x > 0", [-1.0], seed + 2 + k, continuous=continuous)
        check.z(mean_z(times, exact), f"top, continuous={continuous}", len(times) - 1)
        for wrong in (law.kramers * 2, law.exact * 2):
            check.twin(mean_z(times, wrong), f"half the time forgotten, continuous={continuous}")
    assert abs(law.monitored - law.exact) > 3.5 * law.exact / np.sqrt(n)
    assert law.chain == pytest.approx(law.monitored, rel=6e-3)


def beyond(measured, expected, systematic, n):
    """Standard errors of n exponential times by which the mean is off more than ``systematic``."""
    return max(abs(measured / expected - 1) - systematic, 0.0) * np.sqrt(n)


@statistical(comparisons=1, seed=11, missed_bug=1e-4)
def test_underdamped_against_simulation(seed, check):
    """dU/T = 6 at moderate friction: Langer's factor .82 is seen, transition states' 1 is not."""
    surface, gamma, n = WELL.replace(h=6.0), 2.0, replicas(4096)
    dynamics = lv.Underdamped(1.0, gamma, 0.05)
    law = predict.escape(surface, dynamics, [-1.0], [1.0])
    w_a, w_b = np.sqrt(48.0), np.sqrt(24.0)
    factor = (np.sqrt(gamma**2 / 4 + w_b**2) - gamma / 2) / w_b
    assert law.kramers == pytest.approx(2 * np.pi / (factor * w_a) * np.exp(6), rel=1e-12)
    measured = passages(dynamics, n, "x > 1", [-1.0], surface=surface, seed=seed).mean()
    correction = predict.escape(surface, SMALL, [-1.0], [1.0])
    expected = law.kramers * correction.exact / correction.kramers  # the well's anharmonicity
    check.holds(beyond(measured, expected, 0.03, n) < 4, 6.3e-5, "mean time")
    for wrong in (law.kramers * factor, kramers(6.0), kramers(6.0) * gamma, law.kramers / 2):
        check.twin(beyond(measured, wrong * expected / law.kramers, 0.03, n), "another rate")


@statistical(comparisons=1, seed=11)
def test_heavy_ball_against_simulation(seed, check):
    """m = 1 - gamma dt and eta = dt^2, at the temperature eta/(2 S (1 - m))."""
    eta, m, n = 0.002, 0.9, replicas(3008)
    dynamics = lv.SGD(eta, eta / (2 * (1 - m)), momentum=m)  # T = 1
    surface = WELL.replace(h=6.0)
    law = predict.escape(surface, dynamics, [-1.0], [1.0])
    same = predict.escape(surface, lv.Underdamped(1.0, (1 - m) / eta**0.5, 0.05), [-1.0], [1.0])
    assert law.kramers == pytest.approx(same.kramers / np.sqrt(eta), rel=1e-10)
    measured = passages(dynamics, n, "x > 1", [-1.0], surface=surface, seed=seed).mean()
    correction = predict.escape(surface, SMALL, [-1.0], [1.0])
    expected = law.kramers * correction.exact / correction.kramers
    check.holds(beyond(measured, expected, 0.06, n) < 4, 6.3e-5, "mean time")
    forgotten = kramers(6.0) / eta  # momentum left out of the rate
    check.twin(beyond(measured, forgotten, 0.06, n), "momentum left out")
    assert np.isnan(law.exact) and np.isnan(law.chain) and "no Markov process" in law.regime
    assert law.mean_passage_time == law.kramers


# --- friction and dimensions ----------------------------------------------------------------------


def test_high_friction_is_the_overdamped_rate():
    slow = predict.escape(WELL, SMALL, [-1.0], [1.0]).kramers
    for gamma in (100.0, 1000.0):
        found = predict.escape(WELL, lv.Underdamped(1.0, gamma, 0.01), [-1.0], [1.0]).kramers
        assert found / (gamma * slow) == pytest.approx(1, abs=20 / gamma**2)
    heavy = lv.Underdamped(1.0, 1000.0, 0.01, masses=4.0)
    assert predict.escape(WELL, heavy, [-1.0], [1.0]).kramers == pytest.approx(
        4000 * slow, rel=1e-4
    )
    momentum = predict.escape(WELL, lv.SGD(1e-7, 5e-6, momentum=0.99), [-1.0], [1.0])
    effective = 2 * np.pi / np.sqrt(32 * 16) * np.exp(4) / (1e-7 / 0.01)  # eta/(1 - m) a step
    assert momentum.kramers == pytest.approx(effective, rel=0.03)


def test_regimes():
    weak = predict.escape(WELL, lv.Underdamped(1.0, 1e-2, 0.01), [-1.0], [1.0])
    assert "below 1: energy diffusion" in weak.regime
    strong = predict.escape(WELL, lv.Underdamped(1.0, 5.0, 0.01), [-1.0], [1.0])
    assert "energy diffusion rules" not in strong.regime
    low = predict.escape(WELL, lv.Overdamped(4.0, 1e-3), [-1.0], [1.0])
    assert "Kramers means little" in low.regime and low.exact > 1.15 * low.kramers
    text = str(predict.escape(WELL, SMALL, [-1.0], [0.0]))
    assert "half the time" in text and "Kramers" in text and "4 T high" in text
    assert "well to well" in low.regime
    heun = predict.escape(WELL, lv.Overdamped(1.0, 1e-3, "heun"), [-1.0], [1.0])
    assert np.isnan(heun.chain) and heun.mean_passage_time == heun.monitored
    assert "heun" in heun.regime


@pytest.mark.parametrize(
    "dynamics",
    [
        SMALL,
        lv.SGD(0.001, 0.0005),
        lv.SGD(0.001, 0.005, momentum=0.9),
        lv.Underdamped(1.0, 2.0, 0.05),
    ],
)  # fmt: skip
def test_a_separable_plane_is_the_line(dynamics):
    for end, goal in (([1.0, 0.1], [1.0]), ([0.0, 0.0], [0.0])):
        plane = predict.escape(PLANE, dynamics, [-1.0, 0.2], end)
        line = predict.escape(WELL, dynamics, [-1.0], goal)
        assert plane.kramers == pytest.approx(line.kramers, rel=1e-8)
        assert plane.barrier_height == pytest.approx(4.0)
        assert np.isnan(plane.exact) and plane.mean_passage_time == plane.kramers


def test_masses_of_the_plane():
    """Langer's rate with a mass for each coordinate: that of x alone is felt."""
    found = predict.escape(
        PLANE, lv.Underdamped(1.0, 2.0, 0.05, masses=[3.0, 0.5]), [-1.0, 0.0], [1.0, 0.0]
    )
    line = predict.escape(WELL, lv.Underdamped(1.0, 2.0, 0.05, masses=3.0), [-1.0], [1.0])
    assert found.kramers == pytest.approx(line.kramers, rel=1e-8)


def test_a_saddle_of_a_bent_valley():
    """Eyring-Kramers needs the determinants: a mode stiffer at the saddle slows the escape."""
    surface = lv.Surface("4*(x**2 - 1)**2 + (1 + 5*exp(-8*x**2))*y**2/2")
    found = predict.escape(surface, SMALL, [-1.0, 0.0], [1.0, 0.0])
    stiff = np.sqrt(6 / (1 + 5 * np.exp(-8)))
    assert found.kramers == pytest.approx(kramers(4.0) * stiff, rel=1e-6)


def test_parallel_saddles_add():
    """Two ways round a hill, equal by symmetry: half the time of one."""
    ring = lv.Surface("10*(x**2 + y**2 - 1)**2 - 1.5*x**2")
    found = predict.escape(ring, lv.Overdamped(0.3, 1e-3), [-1.0, 0.0], [1.0, 0.0])
    saddle, well = ring.saddles()[0], ring.minima()[0]
    assert len(ring.saddles()) == 2
    hessian = np.linalg.eigvalsh(saddle.hessian)
    one = 2 * np.pi / -hessian[0] * np.exp((saddle.energy - well.energy) / 0.3)
    one *= np.sqrt(-np.prod(hessian) / np.linalg.det(well.hessian))
    assert found.kramers == pytest.approx(one / 2, rel=1e-9)
    # To one of the two tops: straight there at 2 k, or over the other one and back round.
    top = predict.escape(ring, lv.Overdamped(0.3, 1e-3), [-1.0, 0.0], saddle.position)
    assert top.kramers == pytest.approx(one / 2, rel=1e-9)


def test_mueller_brown_picks_the_right_saddle():
    surface = lv.surfaces.mueller_brown(0.05)
    product, middle, reactant = (m.position for m in surface.minima())
    dynamics = lv.Overdamped(1.0, 1e-4)
    across = predict.escape(surface, dynamics, reactant, product)
    assert across.saddle == pytest.approx([-0.822, 0.624], abs=1e-3)
    first = predict.escape(surface, dynamics, reactant, middle)
    assert first.saddle == pytest.approx([0.212, 0.293], abs=1e-3)
    assert first.barrier_height == pytest.approx(0.05 * (-72.249 + 108.167), abs=1e-3)
    back = predict.escape(surface, dynamics, product, reactant)
    assert back.saddle == pytest.approx([-0.822, 0.624], abs=1e-3)
    assert back.barrier_height == pytest.approx(0.05 * (-40.665 + 146.700), abs=1e-3)
    assert first.kramers < across.kramers < back.kramers
    assert back.reduced_height == pytest.approx(back.barrier_height)  # T = 1


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "surface, dynamics, start, barrier, words",
    [
        (WELL, SMALL, [-1.0], [-0.5], r"hitting_time\('x > -0.5'"),
        (WELL, SMALL, [-1.0], [-3.0], "x < -3"),
        (WELL, SMALL, [-1.0], [-1.0], "nothing is escaped"),
        (WELL, SMALL, [0.0], [1.0], "no basin"),
        (lv.Surface("h*x**2/2", h=1.0), SMALL, [0.0], [2.0], "no maximum"),
        (lv.Surface("x**3/3 - x"), SMALL, [1.0], [-3.0], None),
        (lv.Surface("-x**2/2 + x**3/3"), SMALL, [-1.0], [1.0], "basin"),
        (lv.Surface("-(x**2 - 1)**2 + 0*x"), SMALL, [0.0], [2.0], "confines"),
        (WELL, lv.Overdamped(0.0, 0.1), [-1.0], [1.0], "without noise"),
        (WELL, lv.Overdamped(5e-3, 0.1), [-1.0], [1.0], "exceeds every"),
        (WELL.replace(noise=lv.Isotropic(0.0)), lv.SGD(0.1), [-1.0], [1.0], "without noise"),
        (WELL.replace(noise=None), lv.SGD(0.1), [-1.0], [1.0], "no gradient noise"),
        (WELL.replace(noise=lv.AlphaStable(1.5)), lv.SGD(0.1), [-1.0], [1.0], "no variance"),
        (WELL, lv.SGD(0.1, weight_decay=0.1), [-1.0], [1.0], "weight_decay"),
        (WELL, lv.Overdamped(np.ones(3), 0.1), [-1.0], [1.0], "per replica"),
        (WELL, lv.SGD(lv.schedules.Cosine(0.1, 10), 1.0), [-1.0], [1.0], "schedule"),
        (WELL, "sgd", [-1.0], [1.0], "give SGD"),
        (WELL, SMALL, [-1.0, 0.0], [1.0], "needs a point"),
        (WELL, SMALL, [-1.0], [np.nan], "needs a point"),
        (WELL, SMALL, None, [1.0], "needs a point"),
        (PLANE, SMALL, [-1.0, 0.0], [-0.5, 0.0], "same basin"),
        (PLANE, lv.Overdamped(0.0, 0.1), [-1.0, 0.0], [1.0, 0.0], "without noise"),
        (UNEVEN, lv.SGD(0.1), [-1.0, 0.0], [1.0, 0.0], "no single"),
    ],
)  # fmt: skip
def test_refusals(surface, dynamics, start, barrier, words):
    if words is None:
        assert np.isfinite(predict.escape(surface, dynamics, start, barrier).exact)
        return
    with pytest.raises(LangevinError, match=words):
        predict.escape(surface, dynamics, start, barrier)


def test_a_barrier_up_the_next_slope():
    """Kramers knows nothing of the climb; nor does the shift of a barrier watched at steps."""
    found = predict.escape(WELL, lv.Overdamped(1.0, 0.01), [-1.0], [1.6])
    energy = lambda x: 4 * (x * x - 1) ** 2  # noqa: E731
    assert found.exact == pytest.approx(
        laws.mean_first_passage(energy, 1.0, -1.0, 1.6, -3.0), rel=1e-5
    )
    assert np.isnan(found.kramers) and np.isnan(found.monitored) and "slope" in found.regime
    with pytest.raises(UnsoundError, match="as high as the saddle"):
        predict.escape(PLANE, SMALL, [-1.0, 0.0], [1.6, 0.0])


def test_noise_that_grows_faster_than_the_force():
    """The speed density decays like x**-6 though psi stays finite: still a finite time."""
    surface = WELL.replace(noise=lv.Multiplicative(0.5, 1.0))
    found = predict.escape(surface, lv.SGD(0.01, 0.01), [-1.0], [1.0])
    g = lambda x: 16 * x * (x * x - 1)  # noqa: E731
    slope = lambda x: 2 * g(x) / (1 + 0.25 * g(x) ** 2)  # noqa: E731
    grid = np.concatenate([-np.geomspace(1000, 1.001, 40_000), np.linspace(-1, 1, 20_001)])
    psi = np.cumsum(np.append(0, (slope(grid[1:]) + slope(grid[:-1])) / 2 * np.diff(grid)))
    mass = 2 * np.exp(-psi) / (1 + 0.25 * g(grid) ** 2)
    below = np.cumsum(np.append(0, (mass[1:] + mass[:-1]) / 2 * np.diff(grid)))
    rows = grid >= -1
    assert found.exact * 0.01 == pytest.approx(
        np.trapezoid((np.exp(psi) * below)[rows], grid[rows]), rel=1e-4
    )


def test_a_flat_minimum_has_no_kramers_time():
    found = predict.escape(lv.Surface("x**4 - x**5/2"), lv.Overdamped(0.3, 1e-3), [0.0], [2.0])
    assert np.isnan(found.kramers) and "not quadratic" in found.regime
    assert np.isfinite(found.exact) and found.mean_passage_time == found.chain
    kink = lv.Surface("3*abs(abs(x) - 1) + x**2/50")
    found = predict.escape(kink, lv.Overdamped(0.5, 0.01), [-1.0], [1.0])
    assert np.isnan(found.kramers) and "not quadratic" in found.regime
    exact = laws.mean_first_passage(
        lambda x: 3 * abs(abs(x) - 1) + x * x / 50, 0.5, -1.0, 1.0, -12.0
    )
    assert found.exact == pytest.approx(exact, rel=1e-5)
    with pytest.raises(ParameterError):
        predict.escape(WELL, SMALL, "left", [1.0])
