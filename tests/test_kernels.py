"""The kernels' scalar functions against published vectors, exact references and naive twins."""

import math

import naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kit import replicas, statistical
from scipy import stats

from langevin.engines import compiling, source
from langevin.engines.batches import permutation_rounds
from langevin.kernels import heavy_tails, sampling
from langevin.kernels import philox as philox_module
from langevin.kernels.purposes import Purpose

DTYPES = ("float32", "float64")
ONES = 0xFFFFFFFF
# Random123 1.14, kat_vectors: counter, key, words.
KNOWN_ANSWERS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((ONES,) * 4, (ONES,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]

PHILOX_ENTRY = """
def run(counters, keys, single, soiled):
    for i in range(counters.shape[0]):
        c = counters[i]
        c0, c1, c2, c3 = c[0], c[1], c[2], c[3]
        w0, w1, w2, w3 = philox(c0, c1, c2, c3, keys[i, 0], keys[i, 1])
        single[i, 0], single[i, 1], single[i, 2], single[i, 3] = w0, w1, w2, w3
        other = (i + 1) % counters.shape[0]
        o = counters[other]
        o0, o1, o2, o3 = o[0], o[1], o[2], o[3]
        w0, w1, w2, w3 = philox(c0 | (o0 << SHIFT), c1 | (o1 << SHIFT), c2 | (o2 << SHIFT),
                                c3 | (o3 << SHIFT), keys[i, 0], keys[i, 1])
        soiled[i, 0], soiled[i, 1], soiled[i, 2], soiled[i, 3] = w0, w1, w2, w3
"""

NORMALS_ENTRY = {
    "float32": """
def run(counters, key0, key1, out):
    for i in range(counters.shape[0]):
        c = counters[i]
        w0, w1, w2, w3 = philox(c[0], c[1], c[2], c[3], key0, key1)
        z0, z1 = normal_pair(np.uint32(w0), np.uint32(w1))
        z2, z3 = normal_pair(np.uint32(w2), np.uint32(w3))
        out[i, 0], out[i, 1], out[i, 2], out[i, 3] = z0, z1, z2, z3
""",
    "float64": """
def run(counters, key0, key1, out):
    for i in range(counters.shape[0]):
        c = counters[i]
        w0, w1, w2, w3 = philox(c[0], c[1], c[2], c[3], key0, key1)
        z0, z1 = normal_pair(np.uint32(w0), np.uint32(w1), np.uint32(w2), np.uint32(w3))
        out[i, 0], out[i, 1] = z0, z1
""",
}

WORDS_ENTRY = {
    "float32": """
def run(words, out):
    for i in range(words.shape[0]):
        out[i, 0], out[i, 1] = normal_pair(words[i, 0], words[i, 1])
""",
    "float64": """
def run(words, out):
    for i in range(words.shape[0]):
        out[i, 0], out[i, 1] = normal_pair(words[i, 0], words[i, 1], words[i, 2], words[i, 3])
""",
}

PERMUTE_ENTRY = """
def run(indices, keys, n, rows, columns, rounds, out):
    for k in range(keys.shape[0]):
        for i in range(indices.size):
            number = indices[i]
            while True:
                left, right = permute(np.uint32(number // columns), np.uint32(number % columns),
                                      np.uint32(rows), np.uint32(columns), rounds,
                                      keys[k, 0], keys[k, 1])
                number = np.int64(left) * columns + np.int64(right)
                if number < n:
                    break
            out[k, i] = number
"""


def compiled(dtype, entry):
    return compiling.load(source.module_source(dtype, entry))


# --- Philox ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("counter, key, words", KNOWN_ANSWERS)
def test_philox_known_answers_as_plain_python(counter, key, words):
    c, k = [np.uint64(v) for v in counter], [np.uint64(v) for v in key]
    assert tuple(int(w) for w in philox_module.philox(*c, *k)) == words
    assert naive.philox(counter, key) == words
    soiled = [v | np.uint64(0xABCD << 40) for v in c]  # the upper halves mean nothing
    assert tuple(int(w) for w in philox_module.philox(*soiled, *k)) == words


def test_philox_known_answers_compiled():
    counters = np.array([c for c, _, _ in KNOWN_ANSWERS], np.uint64)
    keys = np.array([k for _, k, _ in KNOWN_ANSWERS], np.uint64)
    single, soiled = np.zeros((3, 4), np.uint64), np.zeros((3, 4), np.uint64)
    compiled("float64", PHILOX_ENTRY)(counters, keys, single, soiled)
    for i, (_, _, words) in enumerate(KNOWN_ANSWERS):
        assert tuple(single[i].tolist()) == words
        assert tuple(soiled[i].tolist()) == words, "the upper halves of the words mean nothing"


def test_compiled_philox_equals_its_twin():
    generator = np.random.default_rng(0)
    counters = generator.integers(0, 2**32, (300, 4), dtype=np.uint64)
    keys = generator.integers(0, 2**32, (300, 2), dtype=np.uint64)
    single, soiled = np.zeros((300, 4), np.uint64), np.zeros((300, 4), np.uint64)
    compiled("float64", PHILOX_ENTRY)(counters, keys, single, soiled)
    for i in range(300):
        key = tuple(keys[i].tolist())
        mine = naive.philox(tuple(counters[i].tolist()), key)
        assert tuple(single[i].tolist()) == tuple(soiled[i].tolist()) == mine


def test_purposes_are_permanent():
    permanent = {"NOISE": 1, "BATCH": 2, "PERMUTATION": 3, "SHUFFLE": 4, "INITIAL": 5}
    permanent |= {"DROPOUT": 6, "MODULE": 7}
    permanent |= {"SUBSET": 16, "NOISY": 17, "LABEL": 18}
    permanent |= {"PROBE": 24, "DIRECTION": 25, "PLACE": 26}
    assert {p.name: int(p) for p in Purpose} == permanent


# --- normals --------------------------------------------------------------------------------------


def counter_noise(dtype, seed, n_replicas, n_groups, component=0, planted=""):
    """Normals (n_replicas, 4 or 2 n_groups): one component's noise as the engine draws it.

    ``planted`` is a bug: "seed in counter" or "shared replica".
    """
    replica, group = np.meshgrid(np.arange(n_replicas), np.arange(n_groups), indexing="ij")
    if planted == "shared replica":
        replica = replica // 2
    key = naive.key_of(seed)
    if planted == "seed in counter":
        group, key = group + seed, (0, 0)
    counters = np.zeros((n_replicas * n_groups, 4), np.uint64)
    counters[:, 0], counters[:, 1] = replica.ravel(), group.ravel()
    counters[:, 2] = component if dtype == "float32" else 2 * component
    counters[:, 3] = Purpose.NOISE
    out = np.empty((len(counters), 4 if dtype == "float32" else 2), dtype)
    compiled(dtype, NORMALS_ENTRY[dtype])(counters, np.uint64(key[0]), np.uint64(key[1]), out)
    return out.reshape(n_replicas, -1).astype(float)


def correlation_z(a, b):
    """z of the correlations of two blocks of normals, and of their squares."""
    a, b = a.ravel(), b.ravel()
    root = math.sqrt(a.size)
    squares = (a**2 - 1) * (b**2 - 1) / 2
    return np.array([(a * b).sum() / root, squares.sum() / root])


@pytest.mark.parametrize("dtype", DTYPES)
def test_normal_pair_equals_box_muller(dtype):
    words = np.random.default_rng(2).integers(0, 2**32, (3000, 4), dtype=np.uint32)
    edges = [0, 1, 2**29 - 1, 2**29, 2**30, 2**31 - 1, 2**31, 3 * 2**30, 7 * 2**29, ONES - 1, ONES]
    corners = [(a, b, c, d) for a in edges for b in (0, ONES) for c in edges for d in (0, ONES)]
    if dtype == "float32":
        corners = [(a, c, 0, 0) for a in edges for c in edges]
    words = np.concatenate([words, np.array(corners, np.uint32)])
    out = np.empty((len(words), 2), dtype)
    compiled(dtype, WORDS_ENTRY[dtype])(words, out)
    expected = [naive.normal_pair([int(w) for w in row], dtype) for row in words]
    tolerance = 3e-6 if dtype == "float32" else 5e-15
    assert np.abs(out - np.array(expected)).max() < tolerance


@pytest.mark.parametrize("dtype, longest", [("float32", 6.764), ("float64", 8.653)])
def test_the_largest_normal_is_as_documented(dtype, longest):
    words = np.zeros((1, 4), np.uint32)
    out = np.empty((1, 2), dtype)
    compiled(dtype, WORDS_ENTRY[dtype])(words, out)
    bits = 33 if dtype == "float32" else 54
    assert math.sqrt(2 * bits * math.log(2)) == pytest.approx(longest, abs=1e-3)
    assert np.abs(out).max() == pytest.approx(longest, abs=1e-3)


@pytest.mark.parametrize("dtype", DTYPES)
@statistical(comparisons=6, seed=11, missed_bug=2e-4)
def test_normals_have_the_normal_law(seed, check, dtype):
    groups = replicas(256, fewest=16) * (1 if dtype == "float32" else 2)
    z = counter_noise(dtype, seed, 1000, groups).ravel()
    n = z.size
    assert n == replicas(256, fewest=16) * 4_000
    assert np.isfinite(z).all()
    tail = 2 * stats.norm.sf(4)
    check.z(moment_errors(z), "moments")
    check.count((np.abs(z) > 4).sum(), n, tail, "tails")
    check.p(stats.kstest(z, "norm").pvalue, "law")
    check.twin(moment_errors(z * 1.02)[1], "a standard deviation 2 % off")
    check.twin(p=stats.kstest(z * 1.02, "norm").pvalue, name="a standard deviation 2 % off")
    check.twin(moment_errors(z + 0.01)[0], "a mean of 0.01")
    clipped = np.clip(z, -3.5, 3.5)
    check.twin(p=stats.binom(n, tail).cdf((np.abs(clipped) > 4).sum()), name="tails cut")


def moment_errors(z):
    """z of the first four moments."""
    variances = np.array([1, 2, 15, 96])
    moments = np.array([(z**k).mean() - (0, 1, 0, 3)[k - 1] for k in (1, 2, 3, 4)])
    return moments * np.sqrt(z.size / variances)


def independence_z(dtype, seed, planted=""):
    """z of pairs, steps, replicas, components and seeds."""
    n, groups = 512, replicas(256, fewest=16)

    def noise(seed, component=0):
        return counter_noise(dtype, seed, n, groups, component, planted)

    base = noise(seed)
    other, far, component = noise(seed + 1), noise(seed + 2**32), noise(seed, component=1)
    scores = {"pair": correlation_z(base[:, 0::2], base[:, 1::2])}
    for lag in (1, 2, 4, 8):
        scores[f"steps {lag}"] = correlation_z(base[:, lag:], base[:, :-lag])
    for lag in (1, 2, 32, 64):
        scores[f"replicas {lag}"] = correlation_z(base[lag:], base[:-lag])
    scores["components"] = correlation_z(base, component)
    for name, next_seed in (("seed + 1", other), ("seed + 2**32", far)):
        scores[name] = correlation_z(base, next_seed)
        per_group = base.shape[1] // groups
        for shift in (1, 2):
            k = shift * per_group
            scores[f"{name}, later by {shift}"] = correlation_z(base[:, k:], next_seed[:, :-k])
            scores[f"{name}, earlier by {shift}"] = correlation_z(base[:, :-k], next_seed[:, k:])
    return scores


@pytest.mark.parametrize("dtype", DTYPES)
@statistical(comparisons=44, seed=5, twin="test_planted_bugs_are_caught")
def test_normals_are_independent(seed, check, dtype):
    for name, z in independence_z(dtype, seed).items():
        check.z(z, name)


@pytest.mark.parametrize(
    "planted, caught", [("seed in counter", "seed"), ("shared replica", "rep")]
)
def test_planted_bugs_are_caught(planted, caught):
    """The same test, on noise with its seed in the counter, or one stream for two replicas."""
    scores = independence_z("float64", 5, planted)
    assert max(np.abs(z).max() for name, z in scores.items() if name.startswith(caught)) > 100


# --- permutations ---------------------------------------------------------------------------------


def images(indices, keys, n, rounds=None):
    rows, columns = naive.table(n)
    out = np.empty((len(keys), len(indices)), np.int64)
    run = compiled("float64", PERMUTE_ENTRY)
    keys = np.asarray(keys, np.uint32).reshape(-1, 2)
    rounds = permutation_rounds(rows) if rounds is None else rounds
    run(np.asarray(indices, np.int64), keys, n, rows, columns, rounds, out)
    return out


def test_every_small_permutation_is_a_bijection():
    keys = np.random.default_rng(3).integers(0, 2**32, (5, 2), dtype=np.uint32)
    for n in range(1, 201):
        for row in images(np.arange(n), keys, n):
            assert np.array_equal(np.sort(row), np.arange(n)), n


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 100_000), key=st.tuples(*[st.integers(0, ONES)] * 2))
def test_every_permutation_is_a_bijection(n, key):
    (row,) = images(np.arange(n), [key], n)
    assert (np.bincount(row, minlength=n) == 1).all()


@settings(max_examples=20, deadline=None)
@given(n=st.integers(1, 5000), key=st.tuples(*[st.integers(0, ONES)] * 2), data=st.data())
def test_permutation_equals_its_twin(n, key, data):
    b = data.draw(st.integers(0, n - 1))
    assert images([b], [key], n)[0, 0] == naive.permuted(b, n, key)


def test_permutation_as_plain_python():
    with np.errstate(over="ignore"):
        for b in range(10):
            words = [np.uint32(v) for v in (b // 4, b % 4, 3, 4)]
            pair = sampling.permute(*words, 5, np.uint32(7), np.uint32(8))
            number = int(pair[0]) * 4 + int(pair[1])
            assert 0 <= number < 12
            if number < 10:
                assert number == naive.permuted(b, 10, (7, 8), n_rounds=5)


def pair_uniformity(n, seed, rounds=None, n_keys=200_000, ordered=True):
    """p of chi-square: are the images of a few pairs of places uniform over all pairs?"""
    n_keys = replicas(n_keys, fewest=12_800)
    keys = np.random.default_rng(seed).integers(0, 2**32, (n_keys, 2), dtype=np.uint32)
    p = []
    for i, j in sorted({(0, 1), (0, n - 1), (n // 2, n // 2 - 1)}):
        found = images([i, j], keys, n, rounds)
        if not ordered:
            found = np.sort(found, axis=1)
        counts = np.bincount(found[:, 0] * n + found[:, 1], minlength=n * n).reshape(n, n)
        assert np.trace(counts) == 0
        cells = counts[~np.eye(n, dtype=bool)] if ordered else counts[np.triu_indices(n, 1)]
        if cells.size > 1:
            p.append(stats.chisquare(cells).pvalue)
    return p


@pytest.mark.parametrize("n", [2, 3, 4, 5, 7, 16, 50])
@statistical(comparisons=6, seed=1, twin="test_one_round_is_not_uniform")
def test_pairs_of_images_are_uniform(seed, check, n):
    """Ordered, and as sets: all that mini-batch SGD can see of a permutation."""
    for name, ordered in (("pairs", True), ("sets", False)):
        for k, p in enumerate(pair_uniformity(n, seed, ordered=ordered)):
            check.p(p, f"{name} {k}")


@pytest.mark.parametrize("n", [4, 5, 7, 16, 50])
@statistical(comparisons=1, seed=1)
def test_one_round_is_not_uniform(seed, check, n):
    """Negative twin: a cipher of one round fails the same tests."""
    check.twin(p=min(pair_uniformity(n, seed, rounds=1)), name="pairs")
    check.twin(p=min(pair_uniformity(n, seed, rounds=1, ordered=False)), name="sets")


@statistical(comparisons=8, seed=0)
def test_single_images_are_uniform(seed, check):
    for n in (2, 3, 10, 37):
        n_keys = replicas(100_000, fewest=12_800)
        keys = np.random.default_rng(seed).integers(0, 2**32, (n_keys, 2), dtype=np.uint32)
        for b in (0, n - 1):
            image = images([b], keys, n)[:, 0]
            check.p(stats.chisquare(np.bincount(image, minlength=n)).pvalue, f"{b} of {n}")
        image[: n_keys // 10] = 0  # negative twin: one in ten goes astray
        check.twin(p=stats.chisquare(np.bincount(image, minlength=n)).pvalue, name=f"{n}")


@settings(max_examples=200, deadline=None)
@given(word=st.integers(0, ONES), n=st.integers(1, ONES))
def test_draw_index_is_exact(word, n):
    index = int(sampling.draw_index(np.uint32(word), np.uint32(n)))
    assert index == word * n >> 32
    assert index < n


# --- heavy tails ----------------------------------------------------------------------------------


@pytest.mark.parametrize("z0, z1", [(0.0, 0.0), (1e-30, 0.0), (0.0, 3.0), (8.65, 0.0), (-6.0, 6.0)])
def test_heavy_tails_are_numbers_at_the_rarest_normals(z0, z1):
    """A float32 radius is 0 once in 2**25 draws: no 0/0 there, and none where a normal is 0."""
    for dof in (0.5, 1.0, 3.0, 1e4):
        assert math.isfinite(heavy_tails.student_t(z0, z1, dof))
    for alpha in (0.6, 1.0, 1.5, 2.0):
        value = heavy_tails.symmetric_stable(z0, z1, alpha, 1 / alpha, (1 - alpha) / alpha)
        assert math.isfinite(value)
        if z0 == 0:
            assert value == 0 and heavy_tails.student_t(z0, z1, 3.0) == 0
    # Cauchy: the tangent of the angle.
    if z1:
        assert math.isclose(heavy_tails.symmetric_stable(z0, z1, 1.0, 1.0, 0.0), z0 / abs(z1))
