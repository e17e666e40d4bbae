"""Transitions between basins: the law of the discrete chain, its rates, and honest errors."""

import warnings

import laws
import numpy as np
import pytest
from kit import replicas, scale, spread_z, statistical

import langevin as lv
from langevin.analysis.transitions import MeasuredTransitions
from langevin.errors import ConvergenceWarning, UnsoundError

TILTED = lv.Surface("2*(x**2 - 1)**2 - c*x", c=0.15)
DT, LAG = 0.02, 150


def run(every=LAG, n_replicas=4_096, n_steps=9_000, observe=(), start=None, seed=4, **options):
    return lv.simulate(
        TILTED, lv.Overdamped(0.5, DT), n_replicas=n_replicas, n_steps=n_steps, burn_in=100,
        seed=seed, start=start, progress=False,
        observe=(lv.Transitions(every, **options), lv.Occupation(every), *observe),
    )  # fmt: skip


@pytest.fixture(scope="module")
def exact():
    """(P at the lag, stationary law, second eigenvalue) of the chain itself."""
    (threshold,) = TILTED.basins().thresholds
    return laws.lumped(lambda x: 8 * x * (x**2 - 1) - 0.15, 0.5, DT, threshold, -2.6, 2.6, LAG)


@statistical(comparisons=7, dof=63, seed=4, missed_bug=0.02)
def test_probabilities_rates_and_the_stationary_law_are_those_of_the_chain(seed, check, exact):
    matrix, share, slow = exact
    found = run(n_replicas=replicas(4_096), seed=seed).transitions()
    check.estimate(found.probability, matrix, "probabilities")
    check.estimate(found.stationary[0], share[0], "stationary")
    check.estimate(found.ratio(0, 1), share[0] / share[1], "ratio")
    check.twin(found.ratio(0, 1).z(1.1 * share[0] / share[1]), "a tenth too large")
    lag = LAG * DT
    implied = -lag / np.log(np.linalg.eigvals(matrix).min())
    check.estimate(found.relaxation_time, implied, "relaxation time")
    spectral = -DT / np.log(slow)  # of the chain itself: two basins are not quite Markov
    assert 0.95 < implied / spectral < 1
    check.twin(found.relaxation_time.z(spectral * 1.3), "slower")
    rates = found.rates
    assert np.allclose(rates.value.sum(axis=1), 0, atol=1e-12)
    assert -np.trace(rates.value) == pytest.approx(1 / found.relaxation_time.value)
    if check.twins:  # of the whole ensemble
        assert found.probability.stderr.max() < 0.01
        assert (rates.stderr < 0.05 * np.abs(rates.value)).all() and found.doubt == ""


@statistical(comparisons=12, dof=63, seed=4)
def test_they_answer_where_the_occupation_is_refused(seed, check, exact):
    """All replicas begin on the left and the run is short: the occupation remembers it."""
    result = run(n_steps=1_300, start=[-1.0], seed=seed)
    with pytest.raises(UnsoundError, match="Transitions"):
        result.occupation()
    biased = result.occupation(allow_unequilibrated=True).ratio(0, 1)
    right = exact[1][0] / exact[1][1]
    check.twin(biased.z(right), "the occupation")
    # Two basins are not quite Markov: from the left alone the ratio is off by a standard error.
    check.holds(abs(result.transitions().ratio(0, 1).z(right)) < 4, 2e-3, "ratio")


@statistical(comparisons=1, dof=63, seed=4)
def test_a_lag_too_short_is_said(seed, check):
    quick = run(every=1, n_steps=600, seed=seed).transitions()
    with pytest.warns(ConvergenceWarning, match="larger every"):
        short = quick.rates.value[0, 1]
    with pytest.warns(ConvergenceWarning, match="larger every"):
        _ = quick.ratio(0, 1)
    assert "larger every" in quick.doubt and quick.lag_test.value > 1.1
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        found = run(seed=seed).transitions()
        long = found.rates.value[0, 1]
    assert short > 1.5 * long  # crossings back and forth count as transitions
    right = abs(found.lag_test.value - 1) < 0.1  # two basins are not quite Markov
    check.holds(right, 6e-5, "lag test")
    check.twin(quick.lag_test.z(1.0), "lag too short")


def test_groups_and_units():
    """Each group has its own dt, so its own lag; SGD counts in steps."""
    labels = np.arange(512) % 2
    steps = np.where(labels == 0, 0.01, 0.02)
    options = dict(n_replicas=512, n_steps=1_000, seed=1, progress=False)
    watch = (lv.Transitions(20, groups=labels), lv.Transitions(20, name="mixed"))
    result = lv.simulate(TILTED, lv.Overdamped(0.8, steps), observe=watch, **options)
    found = result.transitions("transitions")
    assert [round(f.lag, 9) for f in found] == [0.2, 0.4] and found[0].unit == "units of time"
    assert result["mixed"].stationary.value.sum() == pytest.approx(1)
    with pytest.raises(UnsoundError, match="different dt"):
        _ = result["mixed"].rates


# --- the estimate alone ---------------------------------------------------------------------------


def two_states(rng, forth, back, replicas, looks, n_groups=64):
    """Pairs (n_groups, 2, 2, 2) of a two-state chain that begins in state 0."""
    state = np.zeros((looks, replicas), int)
    for t in range(1, looks):
        jump = rng.random(replicas) < np.where(state[t - 1] == 0, forth, back)
        state[t] = state[t - 1] ^ jump
    group = 8 * (np.arange(replicas) % n_groups)
    codes = [(group + 4 * (k - 1) + 2 * state[:-k] + state[k:]).ravel() for k in (1, 2)]
    return np.bincount(np.concatenate(codes), minlength=8 * n_groups).reshape(n_groups, 2, 2, 2)


CHAINS = 100 if scale == 1.0 else 20


@statistical(comparisons=12, dof=CHAINS - 1, seed=0, missed_bug=0.1)
def test_errors_cover_what_they_should(seed, check):
    """A chain with known eigenvalue 1 - forth - back, over many seeds."""
    forth, back, lag = 0.02, 0.05, 3.0
    decay, z = 1 - forth - back, []
    n = CHAINS
    for k in range(seed, seed + n):
        pairs = two_states(np.random.default_rng(k), forth, back, 1_024, 60)
        found = MeasuredTransitions(pairs, lag, "steps")
        rate = -np.log(decay) / lag
        z.append([
            found.ratio(0, 1).z(back / forth), found.stationary[0].z(back / (forth + back)),
            found.relaxation_time.z(1 / rate), found.lag_test.z(1.0),
            found.rates[0, 1].z(rate * forth / (forth + back)), found.probability[0, 1].z(forth),
        ])  # fmt: skip
    z = np.array(z)
    bias = np.abs(z.mean(axis=0)) * np.sqrt(n)
    check.holds((bias < 5).all(), 6e-4, "bias")  # one unit is there: ratios are off by O(1/n)
    check.z(spread_z(z, 63), "spread")
    for factor in (1.6, 0.5):
        check.twin(spread_z(factor * z, 63), f"errors off by {factor}")


def test_rates_of_three_states_and_refusals():
    generator = np.array([[-0.3, 0.2, 0.1], [0.05, -0.15, 0.1], [0.02, 0.08, -0.1]])
    values, vectors = np.linalg.eig(generator)

    def pairs(lag):
        matrix = (vectors * np.exp(values * lag)) @ np.linalg.inv(vectors)
        return np.round(1e9 * matrix.real)

    def measured(*matrices):
        both = np.array(matrices)
        return MeasuredTransitions(np.repeat(both[None], 8, axis=0).astype(int), 2.0, "steps")

    found = measured(pairs(2.0), pairs(4.0))
    assert np.allclose(found.rates.value, generator, atol=1e-6)
    law = np.linalg.svd(generator.T)[2][-1]
    assert np.allclose(found.stationary.value, law / law.sum(), atol=1e-6)
    assert found.relaxation_time.value == pytest.approx(-1 / np.sort(values.real)[-2], rel=1e-6)
    one_way = np.array([[90, 10, 0], [0, 80, 20], [0, 30, 70]])
    for read in ("stationary", "rates"):
        with pytest.raises(UnsoundError, match="connected"):
            getattr(measured(one_way, one_way), read)
    flips = np.array([[10, 90], [90, 10]])
    with pytest.raises(UnsoundError, match="smaller every"):
        _ = measured(flips, flips).rates
    forgotten = two_states(np.random.default_rng(0), 0.5, 0.499, 64, 40)
    with pytest.raises(UnsoundError, match=r"smaller every|no rates"):
        _ = MeasuredTransitions(forgotten, 1.0, "steps").rates
    with pytest.raises(UnsoundError, match="pair"):
        MeasuredTransitions(np.zeros((4, 2, 2, 2), int), 1.0, "steps").observed()


def test_one_replica_has_rates_of_unknown_error():
    pairs = np.array([[[[70, 30], [20, 80]], [[49, 41], [28, 61]]]])
    found = MeasuredTransitions(pairs, 1.0, "steps")
    assert found.relaxation_time.value == pytest.approx(-1 / np.log(0.5), rel=1e-12)
    assert np.isnan(found.relaxation_time.stderr) and np.isnan(found.rates.stderr).all()
    spread = np.arange(8)[:, None, None, None] % 3 * np.eye(2, dtype=int)
    with pytest.raises(UnsoundError, match="forgets its basin"):
        _ = MeasuredTransitions(25 + np.stack([spread, spread], 1)[:, :, 0], 1.0, "steps").rates


def test_a_ratio_needs_the_numbers_of_minima():
    found = MeasuredTransitions(np.full((8, 2, 2, 2), 25) + 9 * np.eye(2, dtype=int), 1.0, "steps")
    for wrong in (0.5, 2, -1, "0"):
        with pytest.raises(UnsoundError, match="minima 0 to 1"):
            found.ratio(wrong, 1)
