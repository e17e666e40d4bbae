"""The statistics behind a verdict, tested over many synthetic data sets with known truths."""

import math

import numpy as np
import pytest
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
from langevin.analysis.rows import Row, estimate_row, welch
from langevin.errors import LangevinError
from langevin.result import Estimate


def off(hits, n: int, expected: float) -> float:
    """Standard errors between a count of successes and its expectation."""
    return (hits - n * expected) / math.sqrt(n * expected * (1 - expected))


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


def test_the_family_wise_error_rate():
    """Any false alarm among 8 tests, 3 of them of real and 5 of no differences, correlated."""
    rng = np.random.default_rng(2)
    n = 4000
    z = rng.standard_normal((n, 8)) + 0.7 * rng.standard_normal((n, 1))
    z /= math.hypot(1, 0.7)
    z[:, :3] += 5
    p = 2 * stats.norm.sf(np.abs(z))
    adjusted = np.array([significance.holm(row) for row in p])
    assert off((adjusted[:, 3:] < 0.05).any(axis=1).sum(), n, 0.05) < 5
    assert off((p[:, 3:] < 0.05).any(axis=1).sum(), n, 0.05) > 20, "without the correction"
    bonferroni = (8 * p < 0.05).sum()
    assert (adjusted < 0.05).sum() > bonferroni, "step-down sees more"


# --- intervals, equivalence, power ---------------------------------------------------------------


def test_intervals_cover_95_percent():
    rng = np.random.default_rng(3)
    n = 4000
    rows = rows_of(rng, n, 10.3, 10.0)
    covered = sum(row.interval[0] <= 0.03 <= row.interval[1] for row in rows)
    assert abs(off(covered, n, 0.95)) < 5
    normal = sum(abs(row.deviation - 0.03) <= 1.96 * row.stderr / 10 for row in rows)
    assert off(normal, n, 0.95) < -5, "intervals of a normal law are too short"


def test_equivalence_errs_in_five_percent():
    """The truth lies exactly at the margin: the claim is wrong in at most 5 % of the runs."""
    rng = np.random.default_rng(4)
    n = 4000
    rows = rows_of(rng, n, 11.0, 10.0, sigma=0.2)
    claimed = sum(row.equivalent(0.1) for row in rows)
    assert abs(off(claimed, n, 0.05)) < 5
    unseen = sum(row.p_value > 0.05 for row in rows_of(rng, n, 11.0, 10.0, sigma=1.0))
    assert unseen > 0.5 * n, "not to see a difference is no such claim"
    inside = rows_of(rng, 500, 10.0, 10.0, sigma=0.2)
    assert np.mean([row.equivalent(0.1) for row in inside]) > 0.95
    row = rows[0]
    assert row.equivalent(row.within * (1 + 1e-9)) and not row.equivalent(row.within * 0.999)
    assert row.equivalent(row.within, 0.9) and not row.equivalent(row.within, 0.99)


def test_all_rows_must_be_equivalent():
    """Several rows: no correction is needed, for one at its margin decides (Berger 1982)."""
    rng = np.random.default_rng(5)
    n, claimed = 2000, 0
    for edge, inner in zip(
        rows_of(rng, n, 11.0, 10.0, sigma=0.2), rows_of(rng, n, 10.0, 10.0, sigma=0.2), strict=True
    ):
        claimed += compared([edge, inner]).equivalent(0.1)
    assert off(claimed, n, 0.05) < 5


def compared(rows, **options):
    options = {"significance": 1e-3, "wanted_resolution": 0.05, **options}
    return Comparison(
        "a law", "", judged(rows, options["significance"]), math.nan, math.nan, **options
    )


def test_power_is_what_it_says():
    rng = np.random.default_rng(6)
    n, dof, level = 4000, 20, 1e-2
    stderr = math.sqrt(dof + 1) / math.sqrt(dof + 1)
    seen = significance.detectable(stderr, dof, level)
    assert significance.power(seen, stderr, dof, level) == pytest.approx(0.8, abs=1e-4)
    found = sum(row.p_value < level for row in rows_of(rng, n, 10 + seen, 10.0, dof=dof))
    assert abs(off(found, n, 0.8)) < 5
    half = significance.power(seen / 2, stderr, dof, level)
    found = sum(row.p_value < level for row in rows_of(rng, n, 10 + seen / 2, 10.0, dof=dof))
    assert abs(off(found, n, half)) < 5 and half < 0.5
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


def test_welch():
    rng = np.random.default_rng(7)
    n = 4000
    a, b = estimates(rng, n, 3.0, dof=4), estimates(rng, n, 3.0, dof=30, sigma=0.3)
    p = [estimate_row("q", x, y).p_value for x, y in zip(a, b, strict=True)]
    assert abs(off(sum(v < 0.05 for v in p), n, 0.05)) < 5
    assert stats.kstest(p, "uniform").pvalue > 1e-4
    one_sided = [significance.student(x.z(y.value), x.dof) for x, y in zip(b, a, strict=True)]
    assert stats.kstest(one_sided, "uniform").pvalue < 1e-6, "the other's error forgotten"
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


def test_combined_false_alarms():
    """20 comparisons of 3 rows with true laws: any alarm in at most 5 % of 400 sweeps."""
    rng = np.random.default_rng(8)
    n, alarms, loose = 400, 0, 0
    for _ in range(n):
        sweep = [compared(rows_of(rng, 3, 10.0, 10.0), significance=0.05) for _ in range(20)]
        loose += any(c.verdict == "differs" for c in sweep)
        alarms += lv.combine(sweep, significance=0.05).verdict == "differs"
    assert off(alarms, n, 0.05) < 4.5
    assert off(loose, n, 0.05) > 20, "one by one they raise an alarm in most sweeps"


# --- final positions -----------------------------------------------------------------------------


class Normal:
    """The law N(0, 1), as a prediction knows it."""

    def __init__(self, dim: int = 1):
        if dim == 1:
            self.cdf = stats.norm.cdf

    def bin_probabilities(self, edges, axes=None):
        return np.diff(stats.norm.cdf(edges))


@pytest.mark.parametrize("n", [200, 3000])
def test_kolmogorov_smirnov_is_exact(n):
    """The statistic is scipy's, though its cdf is interpolated above 512 values."""
    rng = np.random.default_rng(9)
    p = {1.0: [], 1.1: []}
    for _ in range(300):
        x = rng.standard_normal(n)
        for width, mine in p.items():
            d, value = kolmogorov_smirnov(width * x, stats.norm.cdf)
            mine.append(value)
        assert d == pytest.approx(stats.kstest(1.1 * x, "norm").statistic, abs=2e-5)
    assert stats.kstest(p[1.0], "uniform").pvalue > 1e-4
    assert stats.kstest(p[1.1], "uniform").pvalue < 1e-3, "a width off by 10 %"


def test_kolmogorov_smirnov_of_heavy_tails_and_gaps():
    rng = np.random.default_rng(10)
    x = stats.cauchy.rvs(size=200_000, random_state=rng)
    d, _ = kolmogorov_smirnov(x, stats.cauchy.cdf)
    assert d == pytest.approx(stats.kstest(x, "cauchy").statistic, abs=2e-4)
    two = np.where(rng.random(50_000) < 0.3, -50, 50) + rng.standard_normal(50_000)

    def cdf(t):
        return 0.3 * stats.norm.cdf(t + 50) + 0.7 * stats.norm.cdf(t - 50)

    d, p = kolmogorov_smirnov(two, cdf)
    assert d == pytest.approx(stats.kstest(two, cdf).statistic, abs=2e-4) and p > 1e-4


def test_marginals_above_one_dimension():
    rng = np.random.default_rng(11)
    x = rng.standard_normal((5000, 3)) * [1, 1, 1.3]
    rows = kolmogorov_rows(x, Normal(3), range(3))
    assert [("axis 2" in r.quantity) == (r.p_value < 1e-4) for r in rows] == [True] * 3
    assert all(r.z > 3 for r in rows[2:]) and not rows[0].has_interval
    still = np.full((500, 1), 0.3)
    assert kolmogorov_rows(still, Normal(), (0,)) == [], "a point has no distribution"


def test_chi_square_p_values_are_uniform():
    rng = np.random.default_rng(12)
    q = stats.norm.pdf(np.linspace(-3, 3, 61))
    q *= 0.98 / q.sum()
    wrong = np.roll(q, 1)
    p = {"right": [], "wrong": []}
    for counts in rng.multinomial(5000, np.append(q, 0.02), size=400):
        for name, law in (("right", q), ("wrong", wrong)):
            p[name].append(chi_square_rows(counts, law, "x", order=False)[0].p_value)
    assert stats.kstest(p["right"], "uniform").pvalue > 1e-4
    assert stats.kstest(p["wrong"], "uniform").pvalue < 1e-6


@pytest.mark.parametrize("dim", [1, 2])
def test_two_samples(dim):
    rng = np.random.default_rng(13)
    p = {1.0: [], 1.15: []}
    for _ in range(200):
        a, b = rng.standard_normal((1500, dim)), rng.standard_normal((2500, dim))
        for width, mine in p.items():
            mine.append([r.p_value for r in two_sample_rows(a, width * b, range(dim))])
    assert len(p[1.0][0]) == dim + 1
    for k in range(dim + 1):
        assert stats.kstest([q[k] for q in p[1.0]], "uniform").pvalue > 1e-4
        assert stats.kstest([q[k] for q in p[1.15]], "uniform").pvalue < 1e-6


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
def test_distances_cover_the_truth(shift):
    """Their 95 % intervals hold at a distance of 0, where noise is all, and far from it."""
    rng = np.random.default_rng(14)
    p, q = law(0.0), law(shift)
    expected, n = truth(p, q), 150
    hits, below = dict.fromkeys(expected, 0), dict.fromkeys(expected, 0)
    means = dict.fromkeys(expected, 0.0)
    for _ in range(n):
        for d in distances(measured(rng, p), q):
            low, high = d.interval
            hits[d.name] += low <= expected[d.name] <= high
            below[d.name] += low > 0
            means[d.name] += d.value / n
    for name, count in hits.items():
        assert off(count, n, 0.95) > -4, (name, count)
        if shift == 0:
            assert off(below[name], n, 0.05) < 4, f"{name} is not shown to differ from 0"
        if shift == 0.3:
            assert below[name] == n
            assert means[name] == pytest.approx(expected[name], rel=0.05)


def test_ignored_correlation_is_caught():
    """The same counts as if every look were another replica: intervals too short to cover."""
    rng = np.random.default_rng(15)
    p, q, n, hits = law(0.0), law(0.3), 100, 0
    expected = truth(p, q)["Wasserstein-1"]
    for _ in range(n):
        counts = 10 * rng.multinomial(600, np.append(p, 1 - p.sum()))
        place = np.repeat(np.arange(31), counts) + 31 * rng.integers(GROUPS, size=6000)
        table = np.bincount(place, minlength=31 * GROUPS).reshape(GROUPS, 31)
        found = distances(density_from_counts(table, [EDGES], (0,)), q)[-1]
        hits += found.interval[0] <= expected <= found.interval[1]
    assert off(hits, n, 0.95) < -5


def test_distances_by_hand():
    rng = np.random.default_rng(16)
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
    assert pair["Wasserstein-1"].interval[0] > 0.05
    assert distances(density, measured(rng, law(0.0)))[1].interval[0] == 0.0


def test_too_few_groups_have_no_interval():
    counts = np.random.default_rng(17).multinomial(90, np.append(law(0), 1 - law(0).sum()), size=4)
    found = distances(density_from_counts(counts, [EDGES], (0,)), law(0.0))
    assert all(math.isnan(d.interval[1]) for d in found)
    assert found[0].noise > 0 and "95 %" not in str(found[0])


def test_the_divergence_loses_its_bias():
    """At a distance of 0 the naive KL is all noise; what is left of it averages to its half."""
    rng = np.random.default_rng(18)
    q = law(0.0)
    found = [distances(measured(rng, q), q)[1] for _ in range(100)]
    assert np.mean([d.value > 0 for d in found]) == pytest.approx(0.45, abs=0.2)
    naive = np.mean([d.noise for d in found])
    effective = GROUPS * REPLICAS
    assert naive == pytest.approx(30 / (2 * effective), rel=0.1)
    assert np.mean([d.value for d in found]) < 0.25 * naive
