"""The statistics behind a verdict, tested over many synthetic data sets with known truths."""

import math

import numpy as np
import pytest
from kit import replicas, statistical
from scipy import stats

import langevin as lv
from langevin.analysis import significance
from langevin.analysis.comparison import Comparison, judged
from langevin.analysis.density import density_from_counts
from langevin.analysis.distances import Distance, distances
from langevin.analysis.finals import (
    chi_square_rows,
    kolmogorov_rows,
    kolmogorov_smirnov,
    two_sample_rows,
)
from langevin.analysis.pairs import _homogeneity
from langevin.analysis.rows import Row, binomial_row, estimate_row, welch
from langevin.errors import LangevinError
from langevin.result import Estimate


def off(hits, n: int, expected: float) -> float:
    """Standard errors between a count of successes and its expectation."""
    return (hits - n * expected) / math.sqrt(n * expected * (1 - expected))


def at_most(check, hits, n, expected, bar, name, true=None):
    """No more events than expected and ``bar`` errors; their true probability if it is larger."""
    most = math.floor(n * expected + bar * math.sqrt(n * expected * (1 - expected)))
    alarm = stats.binom.sf(most, n, true or expected)
    check.holds(hits <= most, alarm, f"{name}: {hits} of {n}")


def estimates(rng, n: int, truth: float, dof: int = 9, sigma: float = 1.0) -> list[Estimate]:
    """Means of dof + 1 normals with their own standard errors."""
    x = truth + sigma * math.sqrt(dof + 1) * rng.standard_normal((n, dof + 1))
    errors = x.std(axis=1, ddof=1) / math.sqrt(dof + 1)
    return [Estimate(m, e, dof) for m, e in zip(x.mean(axis=1), errors, strict=True)]


def rows_of(rng, n, truth, predicted, **options):
    return [estimate_row("q", e, predicted) for e in estimates(rng, n, truth, **options)]


# --- Holm ---------------------------------------------------------------------------------------


def test_holm_by_hand():
    found = significance.holm([0.01, 0.04, 0.03, math.nan, 0.005])
    assert found == pytest.approx([0.03, 0.06, 0.06, math.nan, 0.02], nan_ok=True)
    assert significance.holm([]).shape == (0,)
    assert significance.holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])
    # By the definition: reject while p_(k) <= alpha / (m - k + 1).
    rng = np.random.default_rng(1)
    for _ in range(200):
        p, alpha = rng.random(7) ** 3, 0.1
        order, rejected = np.argsort(p), np.zeros(7, bool)
        for k, i in enumerate(order):
            if p[i] > alpha / (7 - k):
                break
            rejected[i] = True
        assert ((significance.holm(p) <= alpha) == rejected).all()


@statistical(comparisons=1, seed=2)
def test_the_family_wise_error_rate(seed, check):
    """Any false alarm among 8 tests, 3 of them of real and 5 of no differences, correlated."""
    rng = np.random.default_rng(seed)
    n = replicas(4_000)
    z = rng.standard_normal((n, 8)) + 0.7 * rng.standard_normal((n, 1))
    z /= math.hypot(1, 0.7)
    z[:, :3] += 5
    p = 2 * stats.norm.sf(np.abs(z))
    adjusted = np.array([significance.holm(row) for row in p])
    at_most(check, (adjusted[:, 3:] < 0.05).any(axis=1).sum(), n, 0.05, 5, "any false alarm")
    check.twin(off((p[:, 3:] < 0.05).any(axis=1).sum(), n, 0.05), "without the correction")
    bonferroni = (8 * p < 0.05).sum()
    assert (adjusted < 0.05).sum() > bonferroni, "step-down sees more"


# --- intervals, equivalence, power ---------------------------------------------------------------


@statistical(comparisons=1, seed=3, missed_bug=0.01)
def test_intervals_cover_95_percent(seed, check):
    rng = np.random.default_rng(seed)
    n = replicas(4_000)
    rows = rows_of(rng, n, 10.3, 10.0)
    covered = sum(row.interval[0] <= 0.03 <= row.interval[1] for row in rows)
    check.count(covered, n, 0.95, "covered")
    normal = sum(abs(row.deviation - 0.03) <= 1.96 * row.stderr / 10 for row in rows)
    check.twin(min(off(normal, n, 0.95), 0.0), "intervals of a normal law are too short")


@statistical(comparisons=1, seed=4)
def test_equivalence_errs_in_five_percent(seed, check):
    """The truth lies exactly at the margin: the claim is wrong in at most 5 % of the runs."""
    rng = np.random.default_rng(seed)
    n = replicas(4_000)
    rows = rows_of(rng, n, 11.0, 10.0, sigma=0.2)
    claimed = sum(row.equivalent(0.1) for row in rows)
    check.count(claimed, n, 0.05, "claimed")
    unseen = sum(row.p_value > 0.05 for row in rows_of(rng, n, 11.0, 10.0, sigma=1.0))
    assert unseen > 0.5 * n  # 85 %: not to see a difference is no such claim
    check.twin(off(unseen, n, 0.05), "what is not seen is claimed")
    inside = rows_of(rng, 500, 10.0, 10.0, sigma=0.2)
    assert np.mean([row.equivalent(0.1) for row in inside]) > 0.95  # 99.7 %
    row = rows[0]
    assert row.equivalent(row.within * (1 + 1e-9)) and not row.equivalent(row.within * 0.999)
    assert row.equivalent(row.within, 0.9) and not row.equivalent(row.within, 0.99)


@statistical(comparisons=1, seed=5)
def test_all_rows_must_be_equivalent(seed, check):
    """Several rows: no correction is needed, for one at its margin decides (Berger 1982)."""
    rng = np.random.default_rng(seed)
    n, claimed, either = replicas(2_000), 0, 0
    for edge, inner in zip(
        rows_of(rng, n, 11.0, 10.0, sigma=0.2), rows_of(rng, n, 10.0, 10.0, sigma=0.2), strict=True
    ):
        claimed += compared([edge, inner]).equivalent(0.1)
        either += edge.equivalent(0.1) or inner.equivalent(0.1)
    at_most(check, claimed, n, 0.05, 5, "claimed")
    check.twin(off(either, n, 0.05), "one row is enough")


def compared(rows, **options):
    options = {"significance": 1e-3, "wanted_resolution": 0.05, **options}
    return Comparison(
        "a law", "", judged(rows, options["significance"]), math.nan, math.nan, **options
    )


def test_the_least_certain_row_decides_what_would_have_been_seen():
    rows = [estimate_row("q", Estimate(10.0, e, 30), 10.0) for e in (0.1, 0.4, 0.2)]
    found = compared(rows)
    assert found.detectable == max(row.detectable for row in found.rows) > 0.1
    assert found.power(0.1) == min(row.power(0.1) for row in found.rows) < 0.5
    assert found.within == max(row.within for row in found.rows)
    assert found.resolution == pytest.approx(0.04)


@statistical(comparisons=2, seed=6)
def test_power_is_what_it_says(seed, check):
    rng = np.random.default_rng(seed)
    n, dof, level = replicas(4_000), 20, 1e-2
    stderr = math.sqrt(dof + 1) / math.sqrt(dof + 1)
    seen = significance.detectable(stderr, dof, level)
    assert significance.power(seen, stderr, dof, level) == pytest.approx(0.8, abs=1e-4)
    found = sum(row.p_value < level for row in rows_of(rng, n, 10 + seen, 10.0, dof=dof))
    check.count(found, n, 0.8, "detectable")
    half = significance.power(seen / 2, stderr, dof, level)
    found = sum(row.p_value < level for row in rows_of(rng, n, 10 + seen / 2, 10.0, dof=dof))
    check.count(found, n, half, "half of it")
    assert half < 0.5
    check.twin(off(found, n, 0.8), "half of it has less")
    assert significance.power(0.0, 1.0, dof, level) == pytest.approx(level, rel=1e-3)


@pytest.mark.parametrize("dof", [1, 2, 9, 63, 1e4, 1e9])
@pytest.mark.parametrize("level", [0.05, 1e-3, 1e-6])
def test_power_and_detectable_are_inverse(dof, level):
    seen = significance.detectable(0.02, dof, level)
    assert significance.power(seen, 0.02, dof, level) == pytest.approx(0.8, abs=0.05)
    assert significance.power(10 * seen, 0.02, dof, level) > 0.99
    assert significance.power(0.3 * seen, 0.02, dof, level) < 0.5


def test_without_an_error_there_is_no_power():
    assert significance.detectable(math.nan, 10, 0.01) == math.inf
    assert significance.detectable(0.0, 0, 0.01) == 0.0
    assert significance.power(0.1, math.nan, 10, 0.01) == 0.0
    assert significance.power(0.1, 0.0, 10, 0.01) == 1.0
    assert significance.margin_shown(0.1, math.nan, 10, 0.95) == math.inf
    assert significance.margin_shown(-0.1, 0.0, 0, 0.95) == 0.1


@statistical(comparisons=120, seed=7)
def test_welch(seed, check):
    rng = np.random.default_rng(seed)
    n = replicas(4_000)
    a, b = estimates(rng, n, 3.0, dof=4), estimates(rng, n, 3.0, dof=30, sigma=0.3)
    p = [estimate_row("q", x, y).p_value for x, y in zip(a, b, strict=True)]
    # Welch's law is an approximation: here p < 0.05 in 5.7 %, and 0.007 between the laws of p.
    errs = off(sum(v < 0.05 for v in p), n, 0.05)
    check.holds(abs(errs) < 5, 3e-3, f"p < 0.05: {errs:.1f} standard errors")
    check.holds(stats.kstest(p, "uniform").pvalue > 1e-4, 4e-3, "uniform")
    one_sided = [significance.student(x.z(y.value), x.dof) for x, y in zip(b, a, strict=True)]
    check.twin(p=stats.kstest(one_sided, "uniform").pvalue, name="the other's error forgotten")
    assert welch(Estimate(1, 2.0, 5), Estimate(1, 0.0, 7)) == pytest.approx((2.0, 5.0))


# --- verdicts and words --------------------------------------------------------------------------


def row(deviation: float, stderr: float, dof: int = 63) -> Row:
    return estimate_row("q", Estimate(1 + deviation, stderr, dof), 1.0)


def test_certain_and_small():
    """A long run: the difference is beyond doubt, and beneath notice; both are said."""
    found = compared([row(1e-4, 1e-5)])
    assert found.verdict == "differs" and found.equivalent(0.01) and found.within < 2e-4
    assert "no accident" in found.statement and "yet it is small" in found.statement
    assert "agrees within 0.012 % at 95 %" in str(found)
    large = compared([row(0.3, 1e-3)])
    assert large.verdict == "differs" and not large.equivalent(0.1)
    assert "small" not in large.statement and "agrees" not in str(large)


def test_the_three_verdicts():
    assert compared([row(0.001, 0.02)]).verdict == "agrees"
    assert compared([row(0.001, 0.2)]).verdict == "undecided"
    assert "hardly" in compared([row(0.001, 0.2)]).statement
    assert compared([row(0.001, 0.02), row(0.3, 0.02)]).verdict == "differs"
    # Many rows raise the bar for each of them.
    marginal = row(3.6 * 0.02, 0.02)
    assert compared([marginal]).verdict == "differs"
    assert compared([marginal] + [row(0.0, 0.02)] * 30).verdict == "agrees"
    untested = Row("p_2", 0.1, math.nan, 0.1, math.nan, math.nan, 0.1)
    assert compared([row(0.0, 0.001), untested]).verdict == "undecided"
    assert compared([row(0.0, 0.001), untested]).within == math.inf


def test_a_margin_asks_for_equivalence():
    sharp, blunt = [row(0.001, 0.002)], [row(0.001, 0.02)]
    assert compared(sharp, margin=0.01).verdict == "agrees"
    assert compared(blunt, margin=0.01).verdict == "undecided"
    assert compared(blunt).verdict == "agrees", "without a margin the standard error decides"


def test_a_histogram_alone_is_bounded_by_its_total_variation():
    chi = Row("chi-square of 9 final positions, 9 dof", 9.0, 0.0, 9.0, 0.0, 0.5, 9.0)
    distance = Distance("total variation", 0.01, 0.01, (0.0, 0.02))
    found = compared([chi], distances=(distance,))
    assert found.within == 0.02 and found.equivalent(0.03) and not found.equivalent(0.01)
    assert math.isnan(found.detectable)
    assert "every probability agrees within 2 % at 95 %" in found.statement


@pytest.mark.parametrize("margin, confidence", [(0, 0.95), (-1, 0.95), (0.1, 1.0), (0.1, 0.2)])
def test_equivalence_refuses(margin, confidence):
    with pytest.raises(LangevinError, match="needs a number"):
        compared([row(0.0, 0.1)]).equivalent(margin, confidence)


def test_combine():
    """Ten comparisons with a deviation of 3.6 standard errors in one: chance, over all rows."""
    one, other = compared([row(3.6 * 0.02, 0.02)]), compared([row(0.0, 0.02)])
    assert one.verdict == "differs"
    found = lv.combine([one] + [other] * 9)
    assert found.verdict == "agrees" and found.p_value == pytest.approx(10 * one.p_value)
    assert found.within == one.within and found.differing == () and len(found) == 10
    named = lv.combine({"hot": one, "cold": compared([row(0.3, 0.02)])})
    assert named.verdict == "differs" and "cold" in named.differing and "cold" in str(named)
    assert named["hot"].p_value == pytest.approx(one.p_value), "the larger of two: not doubled"
    assert lv.combine([other, compared([row(0.0, 0.9)])]).verdict == "undecided"
    with pytest.raises(LangevinError, match="there are: hot, cold"):
        _ = named["warm"]
    for wrong in ([], 3, [other, "agrees"]):
        with pytest.raises(LangevinError, match="Comparison"):
            lv.combine(wrong)


@statistical(comparisons=8, seed=8)
def test_combined_false_alarms(seed, check):
    """20 comparisons of 3 rows with true laws: any alarm in at most 5 % of 400 sweeps."""
    rng = np.random.default_rng(seed)
    n, alarms, loose = replicas(400, 64), 0, 0
    for _ in range(n):
        sweep = [compared(rows_of(rng, 3, 10.0, 10.0), significance=0.05) for _ in range(20)]
        loose += any(c.verdict == "differs" for c in sweep)
        alarms += lv.combine(sweep, significance=0.05).verdict == "differs"
    at_most(check, alarms, n, 0.05, 4.5, "any false alarm")
    check.twin(off(loose, n, 0.05), "one by one they raise an alarm in most sweeps")


# --- final positions -----------------------------------------------------------------------------


class Normal:
    """The law N(0, 1), as a prediction knows it."""

    def __init__(self, dim: int = 1):
        if dim == 1:
            self.cdf = stats.norm.cdf

    def bin_probabilities(self, edges, axes=None):
        return np.diff(stats.norm.cdf(edges))


@pytest.mark.parametrize("n", [200, 3000])
@statistical(comparisons=1, seed=9, missed_bug=0.1)
def test_kolmogorov_smirnov_is_exact(seed, check, n):
    """The statistic is scipy's, though its cdf is interpolated above 512 values."""
    rng = np.random.default_rng(seed)
    p = {1.0: [], 1.1: []}
    for _ in range(replicas(900 if n == 200 else 300, 64)):
        x = rng.standard_normal(n)
        for width, mine in p.items():
            d, value = kolmogorov_smirnov(width * x, stats.norm.cdf)
            mine.append(value)
        assert d == pytest.approx(stats.kstest(1.1 * x, "norm", method="asymp").statistic, abs=2e-5)
    check.p(stats.kstest(p[1.0], "uniform").pvalue, "right")
    check.twin(p=stats.kstest(p[1.1], "uniform").pvalue, name="a width off by 10 %")


@statistical(comparisons=1, seed=10)
def test_kolmogorov_smirnov_of_heavy_tails_and_gaps(seed, check):
    rng = np.random.default_rng(seed)
    x = stats.cauchy.rvs(size=200_000, random_state=rng)
    d, _ = kolmogorov_smirnov(x, stats.cauchy.cdf)
    assert d == pytest.approx(stats.kstest(x, "cauchy").statistic, abs=2e-4)
    two = np.where(rng.random(50_000) < 0.3, -50, 50) + rng.standard_normal(50_000)

    def cdf(t):
        return 0.3 * stats.norm.cdf(t + 50) + 0.7 * stats.norm.cdf(t - 50)

    d, p = kolmogorov_smirnov(two, cdf)
    assert d == pytest.approx(stats.kstest(two, cdf).statistic, abs=2e-4)
    check.p(p, "two")
    check.twin(p=kolmogorov_smirnov(two + 0.1, cdf)[1], name="shifted")


@statistical(comparisons=2, seed=11, missed_bug=0.01)
def test_marginals_above_one_dimension(seed, check):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((5000, 3)) * [1, 1, 1.3]
    rows = kolmogorov_rows(x, Normal(3), range(3))
    assert ["axis 2" in r.quantity for r in rows] == [False, False, True]
    check.p([r.p_value for r in rows[:2]], "the first two axes")
    check.twin(p=rows[2].p_value, name="the third")
    assert rows[2].z > 3 and not rows[0].has_interval
    still = np.full((500, 1), 0.3)
    assert kolmogorov_rows(still, Normal(), (0,)) == [], "a point has no distribution"


def test_chi_square_by_hand():
    counts, q = np.array([30, 22, 18, 30]), np.array([0.25, 0.25, 0.25])
    (row,) = chi_square_rows(counts, q, "replicas", order=False)
    assert row.predicted == 3 and row.measured == pytest.approx((25 + 9 + 49 + 25) / 25)
    assert row.p_value == pytest.approx(stats.chi2.sf(row.measured, 3))
    assert row.z == pytest.approx(stats.norm.isf(row.p_value))


@statistical(comparisons=1, seed=12)
def test_chi_square_p_values_are_uniform(seed, check):
    rng = np.random.default_rng(seed)
    q = stats.norm.pdf(np.linspace(-3, 3, 61))
    q *= 0.98 / q.sum()
    wrong = np.roll(q, 1)
    p = {"right": [], "wrong": []}
    for counts in rng.multinomial(5000, np.append(q, 0.02), size=replicas(400, 64)):
        for name, law in (("right", q), ("wrong", wrong)):
            p[name].append(chi_square_rows(counts, law, "x", order=False)[0].p_value)
    check.p(stats.kstest(p["right"], "uniform").pvalue, "right")
    check.twin(p=stats.kstest(p["wrong"], "uniform").pvalue, name="shifted by a bin")


@pytest.mark.parametrize("dim", [1, 2])
@statistical(comparisons=3, seed=13)
def test_two_samples(seed, check, dim):
    rng = np.random.default_rng(seed)
    p = {1.0: [], 1.15: []}
    for _ in range(replicas(200, 64)):
        a, b = rng.standard_normal((1500, dim)), rng.standard_normal((2500, dim))
        for width, mine in p.items():
            mine.append([r.p_value for r in two_sample_rows(a, width * b, range(dim))])
    assert len(p[1.0][0]) == dim + 1
    for k in range(dim + 1):
        check.p(stats.kstest([q[k] for q in p[1.0]], "uniform").pvalue, f"row {k}")
        check.twin(p=stats.kstest([q[k] for q in p[1.15]], "uniform").pvalue, name=f"row {k}")


def test_two_histograms_that_begin_with_an_empty_bin():
    counts = np.array([0, 400, 500, 300, 0]), np.array([0, 410, 480, 310, 0])
    a, b = (density_from_counts(c[None], [np.arange(5.0)], (0,)) for c in counts)
    assert 0.5 < _homogeneity(a, b, "")[0].p_value < 1


def test_two_unequal_histograms_by_hand():
    a, b = (
        density_from_counts(np.array([row]), [np.array([0.0, 1.0, 2.0])], (0,))
        for row in ([400, 350, 250], [70, 80, 50])
    )
    (row,) = _homogeneity(a, b, " at 3")
    expected = stats.chi2_contingency([[400, 350, 250], [70, 80, 50]])
    assert row.measured == pytest.approx(expected.statistic) and row.predicted == 2
    assert row.p_value == pytest.approx(expected.pvalue)


# --- distances -----------------------------------------------------------------------------------

EDGES = np.linspace(-3, 3, 31)
GROUPS, REPLICAS, REPEATS = 64, 60, 5


def law(shift: float) -> np.ndarray:
    return np.diff(stats.norm.cdf(EDGES - shift))


def measured(rng, q: np.ndarray, repeats: int = REPEATS):
    """A Density of replicas that stay where they are for ``repeats`` looks."""
    full = np.append(q, 1 - q.sum())
    counts = repeats * rng.multinomial(REPLICAS, full, size=GROUPS)
    return density_from_counts(counts, [EDGES], (0,))


def truth(p: np.ndarray, q: np.ndarray) -> dict[str, float]:
    whole = [np.append(v, 1 - v.sum()) for v in (p, q)]
    cumulated = np.append(0, np.cumsum(p - q))
    fine = np.interp(np.linspace(0, 30, 30_001), np.arange(31), cumulated)
    return {
        "total variation": 0.5 * np.abs(whole[0] - whole[1]).sum(),
        "KL divergence": float((whole[0] * np.log(whole[0] / whole[1])).sum()),
        "Wasserstein-1": float(np.abs(fine).mean() * 6),
    }


@pytest.mark.parametrize("shift", [0.0, 0.02, 0.05, 0.3])
@statistical(comparisons=700, seed=14, twin="test_ignored_correlation_is_caught")
def test_distances_cover_the_truth(seed, check, shift):
    """Their 95 % intervals hold at a distance of 0, where noise is all, and far from it."""
    rng = np.random.default_rng(seed)
    p, q = law(0.0), law(shift)
    expected, n = truth(p, q), replicas(150, 64)
    hits, below = dict.fromkeys(expected, 0), dict.fromkeys(expected, 0)
    means = dict.fromkeys(expected, 0.0)
    for _ in range(n):
        for d in distances(measured(rng, p), q):
            low, high = d.interval
            hits[d.name] += low <= expected[d.name] <= high
            below[d.name] += low > 0
            means[d.name] += d.value / n
    for name, count in hits.items():
        # Where a distance is about its noise, the interval of Wasserstein-1 covers in 93 %.
        at_most(check, n - count, n, 0.05, 4, f"{name} is missed", true=0.07)
        if shift == 0:
            at_most(check, below[name], n, 0.05, 4, f"{name} is shown to differ from 0")
        if shift == 0.3:
            assert below[name] == n
            check.holds(abs(means[name] / expected[name] - 1) < 0.05, 2e-3, f"mean {name}")


@statistical(comparisons=1, seed=15)
def test_ignored_correlation_is_caught(seed, check):
    """The same counts as if every look were another replica: intervals too short to cover."""
    rng = np.random.default_rng(seed)
    p, q, n, hits = law(0.0), law(0.3), 100, 0
    expected = truth(p, q)["Wasserstein-1"]
    for _ in range(n):
        counts = 10 * rng.multinomial(600, np.append(p, 1 - p.sum()))
        place = np.repeat(np.arange(31), counts) + 31 * rng.integers(GROUPS, size=6000)
        table = np.bincount(place, minlength=31 * GROUPS).reshape(GROUPS, 31)
        found = distances(density_from_counts(table, [EDGES], (0,)), q)[-1]
        hits += found.interval[0] <= expected <= found.interval[1]
    check.twin(min(off(hits, n, 0.95), 0.0), "too short")


@statistical(comparisons=820, seed=16, missed_bug=0.01)
def test_distances_by_hand(seed, check):
    rng = np.random.default_rng(seed)
    density = measured(rng, law(0.0))
    found = {d.name: d for d in distances(density, law(0.2))}
    p, q = density.probability, law(0.2)
    by_hand = truth(p, q)
    assert found["total variation"].value == pytest.approx(by_hand["total variation"])
    assert found["Wasserstein-1"].value == pytest.approx(by_hand["Wasserstein-1"], rel=1e-3)
    again = {d.name: d for d in distances(density, law(0.2))}
    assert again == found, "the bootstrap has a seed of its own"
    assert "noise alone" in str(found["KL divergence"])
    other = measured(rng, law(0.2))
    pair = {d.name: d for d in distances(density, other)}
    assert set(pair) == {"total variation", "Wasserstein-1"}
    apart = pair["Wasserstein-1"]
    check.holds(apart.interval[0] > 0.05, 1e-3, "apart")
    check.twin(apart.value / (apart.interval[1] - apart.value) * 2, "as if they were equal")
    same = distances(density, measured(rng, law(0.0)))[1]
    check.holds(same.interval[0] == 0.0, 0.05, "its lower end is 0 in 95 %, or more")


def test_the_divergence_is_of_the_measured_from_the_predicted_law():
    p, q = np.array([0.5, 0.3, 0.2]), np.array([0.8, 0.15])
    counts = np.tile((10_000 * p).astype(int), (16, 1)) + np.random.default_rng(21).integers(
        -9, 10, (16, 3)
    )
    found = distances(density_from_counts(counts, [np.array([0.0, 1.0, 2.0])], (0,)), q)[1]
    whole = np.append(q, 0.05)
    assert found.name == "KL divergence"
    assert found.value == pytest.approx((p * np.log(p / whole)).sum(), rel=0.01)


def test_noise_of_few_groups_is_not_too_small():
    """Of 8 groups: the expected |p - q|/2, times c_4 = 0.965 of a sample's spread."""
    rng, q = np.random.default_rng(20), law(0.0)
    full = np.append(q, 1 - q.sum())
    tables = rng.multinomial(300, full, size=(400, 8))
    found = [distances(density_from_counts(t, [EDGES], (0,)), q) for t in tables]
    expected = 0.5 * math.sqrt(2 / math.pi) * np.sqrt(full * (1 - full) / 2400).sum()
    assert np.mean([d[0].noise for d in found]) / expected == pytest.approx(0.965, abs=0.02)


def test_groups_that_saw_nothing_do_not_count():
    rng = np.random.default_rng(19)
    counts = rng.multinomial(400, np.append(law(0), 1 - law(0).sum()), size=10)
    padded = np.concatenate([counts, np.zeros((30, counts.shape[1]), int)])
    few, many = (density_from_counts(c, [EDGES], (0,)) for c in (counts, padded))
    assert distances(few, law(0.1)) == distances(many, law(0.1))


def test_a_rare_share_has_a_binomial_error():
    row = binomial_row("p_1", 3, 50, 0.2)
    assert row.stderr == pytest.approx(math.sqrt(0.2 * 0.8 / 50)) and row.z < 0
    assert row.p_value == pytest.approx(stats.binomtest(3, 50, 0.2).pvalue)
    assert row.z == pytest.approx(stats.norm.ppf(row.p_value / 2))
    assert binomial_row("p_1", 17, 50, 0.2).z > 0


def test_too_few_groups_have_no_interval():
    counts = np.random.default_rng(17).multinomial(90, np.append(law(0), 1 - law(0).sum()), size=4)
    found = distances(density_from_counts(counts, [EDGES], (0,)), law(0.0))
    assert all(math.isnan(d.interval[1]) for d in found)
    assert found[0].noise > 0 and "95 %" not in str(found[0])


@statistical(comparisons=80, seed=18)
def test_the_divergence_loses_its_bias(seed, check):
    """At a distance of 0 the naive KL is all noise; what is left of it averages to its half."""
    rng = np.random.default_rng(seed)
    q, n = law(0.0), replicas(100, 64)
    found = [distances(measured(rng, q), q)[1] for _ in range(n)]
    values = np.array([d.value for d in found])
    check.holds(abs((values > 0).mean() - 0.45) < 0.2, 5e-3, "positive")
    naive = np.mean([d.noise for d in found])
    effective = GROUPS * REPLICAS
    assert naive == pytest.approx(30 / (2 * effective), rel=0.1)  # 0.97 +- 0.004
    check.holds(values.mean() < 0.25 * naive, 1e-5, "what is left")  # 0.11 +- 0.02
    check.twin(0.75 * naive / (values.std() / math.sqrt(n)), "the bias is left")
