"""sampling="epoch_shuffle": every example once an epoch, in uniform order, and its exact law.

Linear losses make the weights count: with ``-(w*u)`` and u the identity, a learning rate equal to
the batch size adds 1 to w_i each time example i is used.
"""

import itertools

import laws
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kit import replicas, scale, statistical
from scipy import stats

import langevin as lv
from langevin import predict
from langevin.schedules import Steps, Table
from langevin.surfaces.finite_sum import FiniteSum

SHUFFLE = "epoch_shuffle"


def simulate(surface, dynamics, **options):
    options = {"start": np.zeros(surface.dim), "progress": False, **options}
    return lv.simulate(surface, dynamics, **options)


def counting(n):
    return FiniteSum("-(w*u)", data={"u": np.eye(n)})


def counts(n, dynamics, n_steps, n_replicas=70, **options):
    """How much each example added to the weights, (n_replicas, n)."""
    if n_steps == 0:
        return np.zeros((n_replicas, n))
    options = dict(n_replicas=n_replicas, n_steps=n_steps, **options)
    return simulate(counting(n), dynamics, **options).positions


# --- every example once ---------------------------------------------------------------------------


@settings(max_examples=16, deadline=None)
@given(
    n=st.sampled_from([5, 12]),  # a kernel each
    share=st.floats(0, 1),
    drop_last=st.booleans(),
    epochs=st.integers(1, 3),
    seed=st.integers(0, 2**64 - 1),
)
def test_each_index_exactly_once_an_epoch(n, share, drop_last, epochs, seed):
    size = 1 + round(share * (n - 1))
    whole, short = divmod(n, size)
    per_epoch = whole + (short > 0 and not drop_last)
    dynamics = lv.SGD(size, size, sampling=SHUFFLE, drop_last=drop_last)
    before = counts(n, dynamics, (epochs - 1) * per_epoch, seed=seed)
    after = counts(n, dynamics, epochs * per_epoch, seed=seed)
    used = after - before
    if drop_last or not short:
        assert np.allclose(used, used.round(), atol=1e-9)
        assert set(np.unique(used.round())) <= {0.0, 1.0}
        assert (used.sum(axis=1).round() == whole * size).all()
    else:  # the mean over fewer examples: each counts for more
        assert (np.isclose(used, 1).sum(axis=1) == whole * size).all()
        assert (np.isclose(used, size / short).sum(axis=1) == (short if short < size else 0)).all()


@pytest.mark.parametrize("n, size", [(65_537, 1), (10**6, 64)])
def test_large_data_are_used_up_exactly_once(n, size):
    """Sums of the index and of random 24-bit numbers, exact in double precision."""
    generator = np.random.Generator(np.random.PCG64(n))
    c = np.arange(n) - n // 2
    d = generator.integers(-(2**24), 2**24, n)
    surface = FiniteSum("-w*c - v*d", data={"c": c, "d": d})
    options = dict(n_replicas=64, n_steps=n // size, seed=3)
    found = simulate(surface, lv.SGD(size, size, sampling=SHUFFLE), **options).positions
    assert (found == [d.sum(), c.sum()]).all()
    if size == 1:
        drawn = simulate(surface, lv.SGD(size, size), **options).positions
        assert (drawn != [d.sum(), c.sum()]).any(axis=1).all()


@pytest.mark.parametrize("drop_last", [True, False])
def test_batch_sizes_that_change_still_use_each_index_once(drop_last):
    """The rate follows the size, so that each example of a whole batch still adds 1."""
    n, n_steps = 20, 26
    sizes = np.array([3, 3, 5, 7, 4, 6, 2, 9, 1, 8] * 3)[:n_steps]
    schedule = Table(1.0, sizes.astype(float))
    dynamics = lv.SGD(schedule, schedule, sampling=SHUFFLE, drop_last=drop_last)
    left, before, begin, epochs = n, n, 0, 0
    for step, size in enumerate(sizes):
        if left < (size if drop_last else 1):
            used = counts(n, dynamics, step, seed=5) - counts(n, dynamics, begin, seed=5)
            # A short last batch of s took size/s for each; scaled back it is 1 too.
            last = sizes[step - 1] / min(sizes[step - 1], before)
            whole = np.isclose(used, 1) | np.isclose(used, last)
            assert (whole.sum(axis=1) == n - left).all()
            assert (np.isclose(used, 0).sum(axis=1) == left).all()
            left, begin, epochs = n, step, epochs + 1
        before = left
        left -= min(size, left)
    assert epochs >= 4


def test_a_doubling_batch_size_keeps_the_epochs():
    """Steps: sizes 2, then 4; 20 examples are 2 + 2 + 4 + 4 + 4 + 4, then epochs of five steps."""
    dynamics = lv.SGD(Steps(2.0, (2,), 2.0), Steps(2.0, (2,), 2.0), sampling=SHUFFLE)
    for end, expected in ((6, 1), (11, 2), (16, 3)):
        assert (counts(20, dynamics, end, seed=6) == expected).all()


def test_every_replica_has_its_own_batch_size():
    sizes = np.repeat([1, 2, 3, 4], 32)
    dynamics = lv.SGD(sizes.astype(float), sizes, sampling=SHUFFLE)
    used = counts(12, dynamics, 12, n_replicas=128, seed=7)
    assert np.allclose(used, sizes[:, None])  # 12 steps are 1, 2, 3 and 4 epochs


# --- uniform order --------------------------------------------------------------------------------


def order(n, n_epochs, n_replicas, sampling=SHUFFLE, **options):
    """The index each replica uses at each step, (n n_epochs, n_replicas)."""
    dynamics = lv.SGD(1.0, 1, sampling=sampling)
    states = [counts(n, dynamics, k, n_replicas, **options) for k in range(n * n_epochs + 1)]
    return np.array([(b - a).argmax(axis=1) for a, b in itertools.pairwise(states)])


def p_value(observed, cells):
    """Of chi-square against uniformity over ``cells``."""
    expected = observed.sum() / cells
    chi2 = ((observed - expected) ** 2 / expected).sum()
    return stats.chi2.sf(chi2, cells - 1)


def pair_table(a, b, n):
    return np.bincount(a * n + b, minlength=n * n).reshape(n, n)


@pytest.mark.parametrize("n, n_replicas", [(12, 40_000), (3, 20_000)])
@statistical(comparisons=140, seed=8, twin="test_the_checks_of_uniformity_can_fail")
def test_the_order_is_uniform(seed, check, n, n_replicas):
    n_replicas = max(replicas(n_replicas), 10 * n * n)
    index = order(n, 2, n_replicas, seed=seed)
    other_seed = order(n, 1, n_replicas, seed=seed + 1)
    off = ~np.eye(n, dtype=bool)
    for k in range(2 * n):
        check.p(p_value(np.bincount(index[k], minlength=n), n), "steps")
    for k, l in itertools.combinations(range(n), 2):  # noqa: E741
        table = pair_table(index[k], index[l], n)
        assert np.trace(table) == 0
        check.p(p_value(table[off], n * (n - 1)), "pairs")
    for k in range(n):  # epochs, neighbouring replicas and seeds know nothing of each other
        check.p(p_value(pair_table(index[k], index[n + k], n), n * n), "epochs")
        check.p(p_value(pair_table(index[n - 1], index[n + k], n), n * n), "end and beginning")
        check.p(p_value(pair_table(index[k, :-1:2], index[k, 1::2], n), n * n), "neighbours")
        check.p(p_value(pair_table(index[k], other_seed[k], n), n * n), "seeds")


@statistical(comparisons=2, seed=8)
def test_the_checks_of_uniformity_can_fail(seed, check):
    """Independent draws repeat an index; a rotated order is uniform step by step, not in pairs."""
    n = 12
    drawn = order(n, 1, replicas(40_000, fewest=5_120), "with_replacement", seed=seed)
    table = pair_table(drawn[0], drawn[1], n)
    assert np.trace(table) > 0
    check.p(p_value(table, n * n), "independent pairs")
    rotated = (drawn[0] + 1) % n
    check.p(p_value(np.bincount(rotated, minlength=n), n), "rotated")
    off = ~np.eye(n, dtype=bool)
    check.twin(p=p_value(pair_table(drawn[0], rotated, n)[off], n * (n - 1)), name="rotated")
    lopsided = np.minimum(drawn[0], np.roll(drawn[0], 1))
    check.twin(p=p_value(np.bincount(lopsided, minlength=n), n), name="lopsided")


# --- the stationary law ---------------------------------------------------------------------------


def valley(n):
    """Least squares with the curvatures 1 (steep) and 0.01 (flat) and its minimum."""
    generator = np.random.Generator(np.random.PCG64(n))
    u = np.linalg.qr(generator.normal(size=(n, 2)))[0] * np.sqrt(n) * [1, 0.1]
    v = generator.normal(size=n)
    best = np.linalg.lstsq(u, v, rcond=None)[0]
    return FiniteSum("(w*u - v)**2/2", data={"u": u, "v": v}), u, v, best


def epoch_moments(u, v, best, eta):
    """E yy' and E yyyy of y = (w - w*, 1) after an epoch of single examples: all n! orders."""
    n = len(u)
    residual = u @ best - v
    one = np.array(
        [
            laws.affine(np.eye(2) - eta * np.outer(a, a), -eta * r * a)
            for a, r in zip(u, residual, strict=True)
        ]
    )
    orders = np.array(list(itertools.permutations(range(n))))
    product = one[orders[:, 0]]
    for k in range(1, n):
        product = one[orders[:, k]] @ product
    return laws.batch_moments(product)


def z_scores(d, second, n):
    """z of the two variances with the errors of a Gaussian of these variances."""
    variance = np.diag(second)[:2]
    return ((d**2).mean(axis=0) - variance) / (variance * np.sqrt(2 / n))


@statistical(comparisons=8, seed=10)
def test_the_exact_law_at_the_end_of_an_epoch(seed, check):
    """Eight examples, one a step: 40,320 orders, all of them in the moment equation."""
    surface, u, v, best = valley(8)
    eta, n, epochs = 0.5, replicas(100_000), 150
    second, fourth = check.once("law", epoch_moments, u, v, best, eta)
    error = np.sqrt((np.einsum("ijij->ij", fourth) - second**2) / n)
    error[2, 2] = 1
    options = dict(n_replicas=n, n_steps=8 * epochs, start=best, seed=seed)

    def measured(sampling):
        return simulate(surface, lv.SGD(eta, 1, sampling=sampling), **options).positions - best

    def z(d):
        y = np.hstack([d, np.ones((n, 1))])
        return ((y.T @ y / n - second) / error)[np.tril_indices(3)][:-1]

    d = measured(SHUFFLE)
    check.z(z(d), "moments")
    independent = predict.quadratic(surface, lv.SGD(eta, 1)).covariance
    assert second[1, 1] < 0.6 * independent[1, 1]
    assert z_scores(d, independent, n)[1] < -50 * np.sqrt(scale)  # the flat direction: far below
    drawn = measured("with_replacement")
    check.twin(z(drawn), "independent draws")
    check.z(z_scores(drawn, independent, n), "independent draws")


@pytest.mark.parametrize("n_examples, size", [(64, 8), (240, 10)])
@statistical(comparisons=4, dof=63, seed=11)
def test_flat_directions_are_quieter_than_independent_sampling(seed, check, n_examples, size):
    """8 and 24 steps an epoch; at its end, and averaged over it."""
    surface, _, _, best = valley(n_examples)
    eta, n, steps = 0.8, replicas(4096, fewest=512), n_examples // size
    laws_of = {
        sampling: predict.quadratic(surface, lv.SGD(eta, size, sampling=sampling)).covariance
        for sampling in ("with_replacement", "without_replacement")
    }
    burn_in = 60 * steps
    watch = lv.Moments()
    options = dict(n_replicas=n, n_steps=100 * steps, burn_in=burn_in, start=best, observe=watch)

    def variances(sampling):
        dynamics = lv.SGD(eta, size, sampling=sampling)
        result = simulate(surface, dynamics, seed=seed, **options)
        moments = result.moments()
        return (
            ((result.positions - best) ** 2).mean(axis=0),
            np.diag(moments.covariance),
            np.diag(moments.covariance_stderr),
        )

    end, mean, stderr = variances(SHUFFLE)
    for law in laws_of.values():
        steep, flat = np.diag(law)
        below = (end[1] - flat) / (flat * np.sqrt(2 / n)), (mean[1] - flat) / stderr[1]
        assert max(below) < -20 * (n / 4096) ** 0.5
        check.twin(below[0], "the end")
        check.twin(below[1], "the mean")
    steep = laws_of["without_replacement"][0, 0]
    assert abs(mean[0] / steep - 1) < 0.15
    # Negative twin: independent draws meet the law in both directions.
    end, mean, stderr = variances("with_replacement")
    law = np.diag(laws_of["with_replacement"])
    check.z((end / law - 1) / np.sqrt(2 / n), "the end, drawn")
    check.z((mean - law) / stderr, "the mean, drawn", dof=63)
