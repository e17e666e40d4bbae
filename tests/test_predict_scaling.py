"""predict.scaling: the noise scale, its equivalents, and where the rule breaks."""

import math

import laws
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import langevin as lv
from langevin import predict
from langevin.errors import LangevinError, ParameterError, UnsoundError

WELL = lv.surfaces.quadratic(np.diag([1.0, 9.0]))
WELLS = lv.Surface("x**4/4 - a*x**3/3 - x**2/2", a=0.4, noise=lv.Isotropic(1.0))
X, Y = lv.surfaces.diabetes()
DATA = lv.surfaces.linear_regression(X, Y)
SAMPLINGS = ("with_replacement", "without_replacement")


def test_the_noise_scale_of_smith_and_le():
    n = 1_000
    cases = {
        "with_replacement": 0.1 * n / (30 * 0.1),
        "without_replacement": 0.1 * (n / 30 - 1) / 0.1,
    }
    for sampling, g in cases.items():
        found = predict.scaling(
            WELL, lv.SGD(0.1, 30, momentum=0.9, sampling=sampling), n_examples=n
        )
        assert found.noise_scale == pytest.approx(g, rel=1e-12)
    alone = predict.scaling(WELL, lv.SGD(0.1, 30, momentum=0.9))
    assert alone.noise_scale == pytest.approx(0.1 / (30 * 0.1), rel=1e-12)
    assert alone.effective_learning_rate == pytest.approx(1.0)
    assert alone.temperature == pytest.approx(0.1 / (2 * 30 * 0.1))
    assert predict.scaling(DATA, lv.SGD(0.02, 8)).n_examples == 442


@given(
    eta=st.floats(1e-3, 0.05),
    size=st.floats(1.0, 40.0),
    m=st.sampled_from([0.0, 0.5, 0.9]),
    factor=st.floats(0.3, 8.0),
    sampling=st.sampled_from(SAMPLINGS),
)
def test_equivalents_have_the_same_noise_scale(eta, size, m, factor, sampling):
    n = 500.0
    dynamics = lv.SGD(eta, size, momentum=m, sampling=sampling)
    found = predict.scaling(WELL, dynamics, n_examples=n)
    other_m = 1 - (1 - m) / (1 + factor)
    for other in (
        found.equivalent(learning_rate=eta * factor),
        found.equivalent(batch_size=size * factor),
        found.equivalent(momentum=other_m),
        found.equivalent(learning_rate=eta * factor, momentum=other_m),
    ):
        again = predict.scaling(WELL, other, n_examples=n)
        assert again.noise_scale == pytest.approx(found.noise_scale, rel=1e-9)
        assert other.batch_size <= n or sampling == "with_replacement"
    more = found.equivalent(n_examples=factor * n)
    again = predict.scaling(WELL, more, n_examples=factor * n)
    assert again.noise_scale == pytest.approx(found.noise_scale, rel=1e-9)
    assert more.batch_size == pytest.approx(factor * size, rel=1e-9)  # B in proportion to N


def test_equal_times_of_equivalents():
    found = predict.scaling(WELL, lv.SGD(0.01, 2.0))
    assert found.steps(found.equivalent(learning_rate=0.05), 1_000) == pytest.approx(200)
    assert found.steps(found.equivalent(momentum=0.9), 1_000) == pytest.approx(100)


@pytest.mark.parametrize("m", [0.0, 0.5, 0.9])
def test_the_step_in_units_of_the_noise_scale(m):
    eta = 0.02
    found = predict.scaling(WELL, lv.SGD(eta, 2.0, momentum=m))
    (scales,) = found.noise_scales
    for h, scale in zip((1.0, 9.0), scales, strict=True):
        limit = eta * 0.5 / (2 * (1 - m) * h)
        exact = laws.heavy_ball(eta, 0.5, h, m)[0]
        assert scale / found.noise_scale == pytest.approx(exact / limit, rel=1e-9)
        assert scale / found.noise_scale == pytest.approx(1 / (1 - eta * h / (2 * (1 + m))))


def test_breaking_on_a_parabola_is_where_the_exact_variance_breaks():
    eta, tolerance, h = 0.01, 0.05, 9.0
    found = predict.scaling(WELL, lv.SGD(eta, 1.0)).breaking(tolerance)
    exact = 2 / (eta * h) * (1 - (1 - eta * h / 2) / (1 + tolerance))
    assert found.factor == pytest.approx(exact, rel=1e-6)
    assert not found.limit and "curvature 9" in found.cause
    assert found.dynamics.batch_size == pytest.approx(found.factor)
    assert float(found) == found.factor
    small, half = (predict.scaling(WELL, lv.SGD(e, 1.0)).breaking(tolerance) for e in (4e-4, 2e-4))
    assert half.factor / small.factor == pytest.approx(2, rel=0.05)  # half the rate: twice as far
    end = predict.scaling(WELL, lv.SGD(eta, 1.0)).breaking(9.9)
    assert end.factor < 2 / (eta * h) or end.limit


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_deviations_on_data_are_those_of_the_exact_law(sampling):
    dynamics = lv.SGD(0.02, 8, sampling=sampling)
    found = predict.scaling(DATA, dynamics)
    other = lv.SGD(0.1, 40, sampling=sampling)
    axes = np.linalg.eigh(DATA.hessian(np.zeros(DATA.dim)))[1]
    ours, theirs = (
        np.diag(axes.T @ predict.quadratic(DATA, d).moments()[1] @ axes) for d in (dynamics, other)
    )
    assert list(found.deviations(other).values()) == pytest.approx(list(theirs / ours - 1))
    assert found.deviation(dynamics) == pytest.approx(0, abs=1e-12)


def test_without_replacement_the_rule_takes_the_size_of_the_data_into_account():
    """(eta, S) -> (a eta, a S) loses noise as S nears N; the rule's own batch does not."""
    dynamics = lv.SGD(0.0005, 8, sampling="without_replacement")
    found = predict.scaling(DATA, dynamics)
    naive = lv.SGD(0.01, 160, sampling="without_replacement")
    ruled = found.equivalent(learning_rate=0.01)
    assert ruled.batch_size < 140
    flat = [abs(v) for v in list(found.deviations(naive).values())[:6]]
    better = [abs(v) for v in list(found.deviations(ruled).values())[:6]]
    assert max(better) < 0.01 and min(flat) > 0.3


def test_two_wells_add_their_ratio():
    found = predict.scaling(WELLS, lv.SGD(0.01, 0.01 / 0.24))
    other = found.equivalent(learning_rate=0.05)
    slope = predict.finite_step(WELLS, temperature=0.12, step=1e-6).slope(0, 1)
    assert found.deviations(other)["p_0/p_1"] == pytest.approx(np.expm1(slope * 0.04), rel=1e-6)
    exact = [predict.chain(WELLS, lv.SGD(eta, eta / 0.24)).ratio(0, 1) for eta in (0.01, 0.02)]
    near = found.deviations(found.equivalent(learning_rate=0.02))["p_0/p_1"]
    assert near == pytest.approx(exact[1] / exact[0] - 1, rel=0.2)
    assert "p_0/p_1" not in found.deviations(found.equivalent(momentum=0.9))  # a ringing well


def test_momentum_ends_where_a_well_rings():
    eta, h = 0.002, 9.0
    found = predict.scaling(WELL, lv.SGD(eta, 1.0)).breaking(0.05, vary="momentum")
    m = 1 - 1 / found.factor
    assert found.limit and "oscillate" in found.cause
    assert eta * h == pytest.approx((1 - math.sqrt(m)) ** 2, rel=1e-6)
    # The roots of the mean's recursion turn complex exactly there.
    for inside, factor in ((True, 0.98), (False, 1.02)):
        momentum = 1 - 1 / (found.factor * factor)
        roots = np.roots([1, -(1 + momentum - eta * h), momentum])
        assert (np.abs(roots.imag) < 1e-12).all() == inside


def test_it_prints_what_a_practitioner_needs():
    shown = str(predict.scaling(DATA, lv.SGD(0.02, 8)))
    assert "g = 1.105" in shown and "breaks by 5 % at a = " in shown and "minimum 0" in shown


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: predict.scaling(WELL, lv.Overdamped(0.1, 0.01)), UnsoundError, "SGD"),
        (lambda: predict.scaling(WELL, lv.SGD(np.array([0.1, 0.2]))), ParameterError, "one"),
        (lambda: predict.scaling(WELL, lv.SGD(0.1, weight_decay=0.1)), UnsoundError, "formula"),
        (lambda: predict.scaling(DATA, lv.SGD(0.1, 8), n_examples=100), ParameterError, "442"),
        (lambda: predict.scaling(WELL, lv.SGD(0.1), n_examples=0), ParameterError, "at least 1"),
        (
            lambda: predict.scaling(DATA, lv.SGD(0.1, 442, sampling="without_replacement")),
            UnsoundError,
            "smaller batch",
        ),
        (
            lambda: predict.scaling(WELL, lv.SGD(lv.schedules.Cosine(0.1, n_steps=9))),
            UnsoundError,
            "at(step)",
        ),
        (
            lambda: predict.scaling(WELL, lv.SGD(0.1)).equivalent(n_examples=10),
            ParameterError,
            "n_examples=N",
        ),
        (
            lambda: predict.scaling(WELL, lv.SGD(0.1)).equivalent(
                learning_rate=0.1, batch_size=2, momentum=0.5
            ),
            ParameterError,
            "Leave one out",
        ),
        (
            lambda: predict.scaling(WELL, lv.SGD(0.1)).equivalent(
                learning_rate=0.1, batch_size=0.5
            ),
            ParameterError,
            "momentum is in",
        ),
        (lambda: predict.scaling(WELL, lv.SGD(0.1)).breaking(0), ParameterError, "above 0"),
        (lambda: predict.scaling(WELL, lv.SGD(0.1)).breaking(vary="x"), ParameterError, "momentum"),
        (
            lambda: predict.scaling(WELL, lv.SGD(0.1)).steps(lv.Overdamped(1.0, 0.1), 3),
            ParameterError,
            "SGD",
        ),
    ],
)
def test_refusals_say_what_to_do(call, error, words):
    with pytest.raises(
        LangevinError, match=words.replace("(", r"\(").replace(")", r"\)")
    ) as caught:
        call()
    assert isinstance(caught.value, error)
