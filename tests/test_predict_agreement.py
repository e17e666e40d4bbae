"""Predictions against each other where theory says they must agree, and what they must refuse."""

import numpy as np
import pytest
import scipy.integrate

import langevin as lv
from langevin import predict
from langevin.errors import LangevinError, ParameterError, UnsoundError
from langevin.predict.next_order import next_order

WELL = lv.Surface("x**4/4 - 2*x**3/15 - x**2/2", noise=lv.Isotropic(1.0))
LOGS = lv.Surface(
    "0.001*x**4 - log(exp(-4*(x - 1)**2) + 2*exp(-(x + 2)**2) + 1e-6)", noise=lv.Isotropic(1.0)
)
COUPLED = lv.Surface(
    "x**4/4 - 2*x**3/15 - x**2/2 + 1.5*(1.5 + tanh(x))*(y - x**2/2)**2 + 0.02*y**4",
    noise=lv.Isotropic(1.0),
)


@pytest.mark.parametrize(
    "formula",
    [
        "1000 + x**4/4 - 2*x**3/15 - x**2/2",
        "(x - 1000)**4/4 - 2*(x - 1000)**3/15 - (x - 1000)**2/2",
        "(1000*x)**4/4 - 2*(1000*x)**3/15 - (1000*x)**2/2",
        "(x/1000)**4/4 - 2*(x/1000)**3/15 - (x/1000)**2/2",
    ],
)
def test_predictions_know_no_origin_and_no_unit(formula):
    """Energies offset, positions shifted and scaled: ratios and times in steps are the same."""
    surface = lv.Surface(formula, noise=lv.Isotropic(1.0))
    scale = {"(1000*x)": 1e-6, "(x/1000)": 1e6}.get(formula[:8], 1.0)

    def numbers(s, scale):
        sgd = lv.SGD(0.02 * scale, 0.02 * scale / 0.06)  # T = 0.03: barriers of 5 and 14 T
        m = s.minima()
        chain, flow = predict.chain(s, sgd), predict.fokker_planck(s, sgd)
        escape = predict.escape(s, sgd, m[0].position, m[1].position)
        laws = (predict.boltzmann_gibbs(s, sgd), predict.laplace(s, sgd), chain, flow)
        times = (chain.relaxation_time, flow.relaxation_time, escape.exact, escape.chain)
        return [law.ratio(0, 1) for law in laws] + list(times)

    assert numbers(surface, scale) == pytest.approx(numbers(WELL, 1.0), rel=2e-8)


def test_the_rungs_agree_in_their_regimes():
    """Quadrature, Fokker-Planck, chain, gap and passage times, at barriers of 1 to 15 T."""
    left, right = (m.position for m in WELL.minima())
    for t in (0.12, 0.03, 0.01):
        sgd = lv.SGD(0.02, 0.02 / (2 * t))
        top = WELL.basins().thresholds[0]
        shares = [
            scipy.integrate.quad(
                lambda x, t=t: np.exp(-(WELL.energy(np.array([x])) + 0.7) / t), a, b,
                points=[p[0]], limit=400, epsabs=0, epsrel=1e-11,
            )[0]
            for a, b, p in ((-3, top, left), (top, 4, right))
        ]  # fmt: skip
        exact = shares[0] / shares[1]
        gibbs, flow = predict.boltzmann_gibbs(WELL, sgd), predict.fokker_planck(WELL, sgd)
        assert [gibbs.ratio(0, 1), flow.ratio(0, 1)] == pytest.approx([exact, exact], rel=1e-9)
        there = predict.escape(WELL, sgd, left, right)
        hit = predict.chain(WELL, sgd).hitting_time(f"x > {float(right[0])!r}", left)
        assert there.chain == pytest.approx(hit, rel=1e-6)
        if t < 0.1:  # two states: the gap is the sum of the rates, from well to well
            back = predict.escape(WELL, sgd, right, left)
            rate = 1 / there.exact + 1 / back.exact
            assert flow.spectral_gap == pytest.approx(rate, rel=0.01)
            assert there.chain == pytest.approx(there.exact, rel=0.01)
            assert there.kramers == pytest.approx(there.exact, rel=0.1)


def test_what_the_first_order_leaves_out_is_told_at_low_temperature():
    """ln(p_A/p_B) of the chain beyond first order, which grows as eta**2/T."""
    minima = [m.position[0] for m in LOGS.minima()]
    path = scipy.integrate.quad(
        lambda x: 2 * LOGS.gradient(np.array([x]))[0] * LOGS.hessian(np.array([x]))[0, 0] ** 2,
        *minima, points=[LOGS.basins().thresholds[0]], limit=500,
    )[0]  # fmt: skip
    assert next_order(LOGS, 1.0, 0.0) == pytest.approx(abs(path) / 12, rel=1e-4)
    for surface, t, eta in ((LOGS, 0.03, 0.0025), (LOGS, 0.25, 0.0025), (WELL, 0.003, 0.02)):
        law = predict.finite_step(surface, temperature=t, step=eta)
        chain = predict.chain(surface, lv.Overdamped(t, eta))
        beyond = abs(np.log(chain.ratio(0, 1) / law.ratio(0, 1)))
        assert law.next_order == pytest.approx(beyond, rel=0.1)
        assert f"by about {law.next_order:.1g} or more" in law.regime
        assert "step * curvature is up to" in law.regime
    # At T = 0.03 and eta = 0.02 first order says +3 %, the chain +66 %.
    with pytest.raises(UnsoundError, match=r"step\*\*2/T.*predict\.chain"):
        predict.finite_step(LOGS, temperature=0.03, step=0.02)


def test_the_next_order_in_two_dimensions():
    law = predict.finite_step(COUPLED, temperature=0.1, step=0.02)
    chain = predict.chain(COUPLED, lv.Overdamped(0.1, 0.02))
    beyond = abs(np.log(chain.ratio(0, 1) / law.ratio(0, 1)))
    assert law.next_order == pytest.approx(beyond, rel=0.35)
    assert predict.finite_step(COUPLED, temperature=0.1, step=0.01).next_order < 0.3 * beyond


def test_a_chain_whose_rim_is_hopeless_finds_its_wells():
    """What leaves returned at a rim from which nothing comes back, and was taken for the law."""
    wells = lv.surfaces.wide_and_sharp()
    law = predict.chain(wells, lv.Overdamped(0.12, 0.02))
    assert law.lost < 1e-5 and law.lifetime == pytest.approx(338_277, rel=1e-3)
    assert law.occupation() == pytest.approx([0.647, 0.353], abs=1e-3)
    with pytest.raises(UnsoundError, match="escape to infinity after"):
        predict.chain(wells, lv.Overdamped(0.12, 0.05))


def test_a_plane_chain_at_the_edge_of_divergence_is_refused_soon():
    """It took minutes: ever larger domains, none of which holds the law."""
    surface = lv.Surface("x**4/4 - 2*x**3/15 - x**2/2 + 50*y**2", noise=lv.Isotropic(1.0))
    with pytest.raises(UnsoundError, match="edge of divergence"):
        predict.chain(surface, lv.SGD(0.02, 0.02 / 0.5))


def test_a_region_that_is_everywhere_is_hit_at_once():
    sgd = lv.SGD(0.05, 0.25, momentum=0.5)
    assert predict.chain(WELL, sgd).hitting_time("x > -100") == pytest.approx(1.0)


SGD = lv.SGD(0.02, 0.1)
PAIR = lv.surfaces.quadratic(np.diag([1.0, 2.0]))
BAD = ["a", 1j, object(), [[1, 2], [3]]]


@pytest.mark.parametrize("bad", BAD, ids=["text", "complex", "object", "ragged"])
def test_nonsense_is_refused_in_words(bad):
    """No traceback of NumPy's: what was given, what is needed."""
    laws = [f(WELL, SGD) for f in (predict.boltzmann_gibbs, predict.laplace, predict.chain)]
    laws += [predict.finite_step(WELL, SGD), predict.fokker_planck(WELL, SGD)]
    calls = [(law.density, law.cdf, law.bin_probabilities) for law in laws]
    calls = [call for three in calls for call in three]
    chain, flow, exact = laws[2], laws[4], predict.quadratic(PAIR, SGD)
    scaling = predict.scaling(WELL, SGD)
    calls += [
        chain.hitting_time, lambda v: chain.hitting_probability("x > 1", v),
        lambda v: chain.at(5, v), flow.at, lambda v: flow.at(50.0, v), lambda v: exact.at(5, v),
        lambda v: predict.finite_step(WELL, temperature=0.1, step=v),
        lambda v: predict.boltzmann_gibbs(WELL, temperature=v),
        lambda v: predict.fokker_planck(WELL, SGD, cells=v),
        lambda v: predict.scaling(WELL, SGD, n_examples=v), scaling.breaking,
        lambda v: scaling.equivalent(learning_rate=v), lambda v: scaling.equivalent(momentum=v),
    ]  # fmt: skip
    public = ("boltzmann_gibbs", "laplace", "finite_step", "chain", "fokker_planck", "quadratic")
    for name in (*public, "scaling"):
        function = getattr(predict, name)
        calls += [lambda v, f=function: f(v, SGD), lambda v, f=function: f(WELL, v)]
    for call in calls:
        with pytest.raises(LangevinError):
            call(bad)


def test_refusals_name_who_can_answer():
    with pytest.raises(UnsoundError) as refused:
        predict.quadratic(WELL, lv.Underdamped(0.1, 1.0, 0.05))
    assert "predict.chain" not in str(refused.value)  # it knows no Underdamped
    with pytest.raises(UnsoundError, match=r"predict\.chain \(any step, 1-D and 2-D\)"):
        predict.quadratic(WELL, SGD)
    askew = lv.Surface("x**2 + y**2", noise=lv.Anisotropic([[1, 0.3], [0.3, 2]]))
    with pytest.raises(UnsoundError, match=r"predict\.fokker_planck") as refused:
        predict.boltzmann_gibbs(askew, SGD)
    assert "\n" not in str(refused.value)
    with pytest.raises(ParameterError, match="nan"):
        predict.chain(WELL, SGD).cdf([0.0, np.nan])
    assert predict.boltzmann_gibbs(WELL, SGD).cdf([]).shape == (0,)
    assert predict.escape(WELL, SGD, [-0.82], [1.3]).start == pytest.approx([-0.82])
    assert np.isnan(predict.escape(WELL, SGD, [-0.82], [1e18]).chain)  # not a ValueError of NumPy's
