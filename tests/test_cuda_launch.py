"""The CUDA engine's arithmetic, without a GPU: who works for whom, the rewriting, the sums."""

import ast
import importlib
import itertools
import math
import re
import types
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import langevin as lv
from langevin.engines import compiling, cpu, cpu_pieces, cuda, cuda_text, exact_sums
from langevin.engines.cpu import Run, n_tasks
from langevin.engines.threads import Buffer, per_thread
from langevin.kernels import hardware, hardware_double, hardware_philox
from langevin.preparation import ready

# --- who works for whom ---------------------------------------------------------------------------


def naive_task(replica, tasks):
    """Task t owns the 64s t, t + tasks, ... of the replicas."""
    return replica // 64 % tasks


def visits(n, tasks, threads):
    """Who was moved, by (task, replica), when every thread of a grid has run the kernel's text."""
    block = ["start = block * 64", "valid = min(64, n - start)"]
    block += ["for i in range(valid):", "    seen[task, start + i] += 1"]
    text = cuda.run_source(Run("seen, n, task, tasks", [], block), {}, True)
    place = types.SimpleNamespace
    gpu = place(blockIdx=place(x=0), threadIdx=place(x=0), blockDim=place(x=threads))

    def bare(module, entry):
        module.cuda = gpu

    run = compiling.load("import numpy as np\n" + text, decorate=bare)
    run.__globals__["cuda"] = gpu  # a text met before was loaded with another one
    blocks, threads = cuda.grid(n, tasks, threads)
    gpu.blockDim.x = threads
    seen = np.zeros((tasks, n), int)
    for gpu.blockIdx.x in range(blocks):
        for gpu.threadIdx.x in range(threads):
            run(seen, n, np.int64(tasks))
    return seen, blocks, threads


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 1500), tasks=st.integers(1, 64), threads=st.integers(1, 300))
def test_every_replica_has_one_thread_which_works_for_its_task(n, tasks, threads):
    tasks = min(tasks, math.ceil(n / 64))
    seen, _, block = visits(n, tasks, threads)
    expected = [[int(naive_task(r, tasks) == t) for r in range(n)] for t in range(tasks)]
    assert (seen == expected).all()
    assert 1 <= block <= threads


@pytest.mark.parametrize("n", [1, 63, 64, 65, 127, 128, 129, 4095, 4096, 4097])
def test_ragged_tails(n):
    seen, blocks, threads = visits(n, n_tasks(n), 256)
    assert (seen.sum(axis=0) == 1).all()
    assert blocks * threads < n + 64 * n_tasks(n) * 4


def test_a_run_of_one_replica_less_is_seen():
    """The twin: the text of another grid misses replicas."""
    n = 200
    seen, *_ = visits(n, 4, 64)
    assert (seen.sum(axis=0) == 1).all()
    short = cuda.grid
    try:
        cuda.grid = lambda *a: (short(*a)[0] - 1, short(*a)[1])
        seen, *_ = visits(n, 4, 64)
    finally:
        cuda.grid = short
    assert (seen.sum(axis=0) == 0).any()


def test_a_large_grid_by_hand():
    # 10**8 replicas are 1,562,500 64s, 24,415 for the longest of 64 tasks.
    assert cuda.row_length(10**8, 64) == 24_415 * 64
    assert cuda.grid(10**8, 64) == (64 * math.ceil(24_415 * 64 / 256), 256)
    assert cuda.grid(1, 1) == (1, 64)
    assert cuda.grid(2**32 - 1, 64)[0] < 2**31  # the most blocks that CUDA takes


@given(
    n=st.one_of(st.integers(1, 20_000), st.integers(1, 2**32 - 1)),
    tasks=st.integers(1, 64),
    count=st.integers(1, 9),
)
def test_several_gpus_share_every_replica_once_and_each_keeps_its_task(n, tasks, count):
    tasks = min(tasks, math.ceil(n / 64))
    spans = cuda.shares(n, tasks, count)
    assert spans[0][0] == 0 and spans[-1][1] == n and 1 <= len(spans) <= count
    assert all(begin < end for begin, end in spans)
    assert all(end == begin for (_, end), (begin, _) in itertools.pairwise(spans))
    for begin, end in spans:
        for replica in {begin, (begin + end) // 2, end - 1}:
            assert naive_task(replica - begin, tasks) == naive_task(replica, tasks)


def test_gpus_are_given_about_equal_shares():
    spans = cuda.shares(10**8, 64, 8)
    sizes = [end - begin for begin, end in spans]
    assert len(spans) == 8 and max(sizes) - min(sizes) <= 8 * 64 * 64


# --- counters in shared memory --------------------------------------------------------------------


def counting(kind, *shape):
    return types.SimpleNamespace(kind=kind, store=np.zeros(shape, np.int64))


def test_counters_take_shared_memory_as_long_as_there_is_room():
    small, large = counting("histogram", 64, 201), counting("histogram", 64, 9_000)
    pairs, tally = counting("transitions", 64, 9), counting("occupation", 64, 1, 2, 3)
    assert cuda.shared([small, large, pairs, tally]) == [small, pairs]
    full = counting("histogram", 2, cuda.SHARED // 4)
    assert cuda.shared([full, pairs]) == [full]
    assert cuda.shared([pairs, full]) == [pairs]
    assert cuda.shared([counting("histogram", 2, cuda.SHARED // 4 + 1)]) == []
    assert cuda.shared([]) == []


def test_a_block_gets_the_bytes_that_its_text_uses():
    surface, sgd = lv.surfaces.double_well(), lv.SGD(learning_rate=0.05, batch_size=8)
    watch = (lv.Histogram(bins=20), lv.Moments(), lv.Transitions(), lv.Histogram(bins=9, name="b"))
    settings = {"n_replicas": 130, "n_steps": 8, "burn_in": 0, "seed": 0, "first_replica": 0}
    _, bound, _ = ready(surface, sgd, watch, None, dtype="float64", **settings)
    text, _ = cuda.kernel_source(surface, sgd, bound, "float64")
    kept = [line.strip() for line in text.splitlines() if "_first = np.int32(" in line]
    assert kept == [
        "counts0_first = np.int32(0)",
        "counts2_first = np.int32(0 + counts0.size)",
        "counts3_first = np.int32(0 + counts0.size + counts2.size)",
    ]
    engine = types.SimpleNamespace(threads=256, observers=bound, crowded={})
    share = types.SimpleNamespace(tasks=3, engine=engine)
    _, _, size = cuda.Share.launch(share, 130)
    counters = 4 * sum(bound[k].store[0].size for k in (0, 2, 3))
    assert size == counters


def test_a_block_never_needs_more_shared_memory_than_every_gpu_has():
    assert cuda.SHARED + cuda_text.CROWD <= 48 * 1024


def test_many_sums_and_the_states_they_look_at_are_kept_in_shared_memory():
    surface, sgd = lv.surfaces.double_well(), lv.SGD(learning_rate=0.05, batch_size=8)
    settings = {"n_replicas": 130, "n_steps": 8, "burn_in": 0, "seed": 0, "first_replica": 0}
    for formulas, many in ((["x"], False), (["x", "x**2", "x**3", "x**4"], True)):
        watch = (lv.Histogram(bins=20), lv.Average(formulas))
        _, bound, _ = ready(surface, sgd, watch, None, dtype="float64", **settings)
        text, crowded = cuda.kernel_source(surface, sgd, bound, "float64")
        assert crowded == many == ("sums = cuda.shared.array" in text)
        engine = types.SimpleNamespace(threads=256, observers=bound, crowded=crowded)
        share = types.SimpleNamespace(tasks=3, engine=engine)
        _, threads, size = cuda.Share.launch(share, 130)
        assert threads == (32 if many else 64) and size == 4 * bound[0].store[0].size
        # A state, two coefficients and four states; 9 sums; base, next, stride and half of two
        # observers, the half that the sums belong to, and the task.
        rows = {"reals": 7, "sums": 9, "wholes": 10} if many else {}
        found = re.findall(r"(\w+) = cuda.shared.array\(\((\d+), 32\)", text)
        assert {name: int(n) for name, n in found} == rows
        for name, n in rows.items():
            assert {int(k) for k in re.findall(rf"{name}\[(\d+), lane\]", text)} <= set(range(n))


def bound_to(surface, dynamics, watch, dtype="float64"):
    settings = {"n_replicas": 130, "n_steps": 8, "burn_in": 0, "seed": 0, "first_replica": 0}
    return ready(surface, dynamics, watch, None, dtype=dtype, **settings)[1]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("count", [1, 12, 40, 100])
def test_what_is_crowded_out_fits_and_no_two_things_share_a_row(count, dtype):
    """Many observers have more rows than there is room for: the rest stay in registers."""
    surface, ud = lv.surfaces.quadratic(np.diag([1.0, 2.0, 3.0])), lv.Underdamped(0.1, 1.0, 0.01)
    watch = [lv.Moments(name=f"m{k}") for k in range(count)]
    observers = bound_to(surface, ud, watch, dtype)
    layout = {"threads": True, "known": True, "crowded": True}
    _, run = cpu.parts(surface, ud, observers, dtype, **layout)
    size = np.dtype(dtype).itemsize
    crowd = cuda_text.columns(run, size)
    bytes_of = {"reals": size, "sums": 8, "wholes": 4, "words": 4}
    seen, total = set(), 0
    for buffer in crowd.values():
        rows = {(buffer.array, buffer.first + k) for k in range(len(buffer.part))}
        assert rows and not rows & seen
        seen |= rows
        total += len(rows) * bytes_of[buffer.array]
    assert total * cuda_text.FEWER <= cuda_text.CROWD
    assert len(crowd["lanes"].part) == 9 + 4 + 4 * 9  # states first: they are looked up by number
    assert (len(crowd) == 2 + len(run.lasting)) == (count <= 1) or count == 12
    text, _ = cuda.kernel_source(surface, ud, observers, dtype)
    compile(text, "kernel", "exec")


def test_observers_that_keep_few_sums_stay_in_registers():
    surface, sgd = lv.surfaces.three_well(), lv.SGD(0.01, 8)
    few, many = (lv.Moments(),), (lv.Moments(), lv.Average("x**2"))
    assert not cuda_text.crowded(bound_to(surface, sgd, few))
    assert cuda_text.crowded(bound_to(surface, sgd, many))
    at_times = (lv.Moments(), lv.Average(("x", "y", "x*y"), at=(2, 4)))  # added up at once
    assert not cuda_text.crowded(bound_to(surface, sgd, at_times))


@pytest.mark.parametrize(
    ("splitting", "dtype", "words"), [("OBABO", "float64", 48), ("BAOAB", "float64", 24),
                                      ("OBABO", "float32", 24), ("OBOABO", "float32", 36)],
)  # fmt: skip
def test_many_random_words_are_kept_in_shared_memory(splitting, dtype, words):
    """Every call of Philox has rows of its own there; none of them is a scalar."""
    surface, ud = lv.surfaces.styblinski_tang(3), lv.Underdamped(0.1, 1.0, 0.01, splitting)
    for watch in ((), (lv.Occupation(),)):
        text, crowded = cuda.kernel_source(surface, ud, bound_to(surface, ud, watch), dtype)
        rows = re.findall(r"words = cuda.shared.array\(\((\d+), 32\), np.uint32\)", text)
        many = words > cuda_text.DRAWN
        assert crowded == many and rows == ([str(words)] if many else [])
        assert ("word_0 = " in text) == (not many)
        assert text.count("= philox(") == (1 if many else words // 4)


def test_few_random_words_stay_in_registers_in_a_crowded_block():
    surface, sgd = lv.surfaces.styblinski_tang(3), lv.SGD(0.01, 8)
    text, crowded = cuda.kernel_source(
        surface, sgd, bound_to(surface, sgd, lv.Moments()), "float64"
    )
    assert crowded and "word_23 = " in text and "words = " not in text


def test_only_a_schedules_table_is_copied_again(monkeypatch):
    """Not the data, which may be large, nor what observers make anew for every launch."""
    copied = []

    def copy(values):
        copied.append(values)
        return values.copy()

    monkeypatch.setattr(compiling, "to_device", copy)
    share = types.SimpleNamespace(constants={})

    def given(owner, value):
        return cuda.Share.argument(share, owner, value)

    data, table = np.arange(6.0), np.ones((3, 4))
    for _ in range(3):
        assert (given(("state", 9), data) == data).all()
        assert given((0, 2), np.array([1, 2])).sum() == 3
        assert given(("state", 3), np.int64(5)) == 5
    assert len(copied) == 2
    for k in range(3):
        table = table + k
        for _ in range(2):
            assert (given(("state", 4), table) == table).all()
    assert len(copied) == 5


# --- one text -------------------------------------------------------------------------------------


def definitions(text):
    """Every function of a module's text as a syntax tree, the last of its name."""
    body = ast.parse(text).body
    return {node.name: ast.dump(node) for node in body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_gpus_functions_are_the_cpus(dtype):
    """No step, noise or observer is written twice: but for the loop, what is new is hardware's."""
    surface = lv.Surface("(x**2 - 1)**2 + exp(-x*x - y*y) + y**2", noise=lv.StudentT(3.0))
    watch = (lv.FirstPassage("x > 1"), lv.Average("x*y"), lv.Occupation(), lv.Histogram(bins=9))
    for dynamics in (lv.SGD(0.01, 8, 0.5), lv.Underdamped(0.1, 1.0, 0.01)):
        bound = bound_to(surface, dynamics, watch, dtype)
        here = definitions(cpu.kernel_source(surface, dynamics, bound, dtype))
        there = definitions(cuda.kernel_source(surface, dynamics, bound, dtype)[0])
        modules = (hardware_philox, hardware if dtype == "float32" else hardware_double)
        faster = set().union(*(definitions(compiling.pasted(module)) for module in modules))
        assert there.keys() - here.keys() <= faster | {"add_exactly"}
        assert here.keys() - there.keys() == set()
        changed = {name for name in here if here[name] != there[name]}
        assert "run" in changed and changed <= faster | {"run"}
        assert {"advance", "gradient", "bin_index"} & set(here) <= set(here) - changed


# --- lanes become threads -------------------------------------------------------------------------


def rewritten(text, stores=None, scalar=True):
    return "\n".join(per_thread(text, stores or {}, scalar=scalar))


ROWS = "a = np.empty((3, 64), real)\n"
CLEARED = "a_0 = real(0)\na_1 = real(0)\na_2 = real(0)\n"


def test_a_loop_over_lanes_becomes_its_body():
    text = "one = np.empty(64, np.int32)\nfor i in range(64):\n    one[i] = first[i]\n"
    assert rewritten(text) == "one = np.int32(first[i])"


def test_a_loop_over_the_valid_lanes_becomes_a_condition():
    text = "for i in range(valid):\n    kept[start + i] = i\n"
    assert rewritten(text) == "if i < valid:\n    kept[start + i] = i"


def test_rows_become_scalars():
    text = ROWS + "row = 1\nfor i in range(64):\n    a[row + 1, i] = a[0, i] * a[row, i]\n"
    assert rewritten(text) == "row = 1\na_2 = real(a_0 * a_1)"
    array = "a = cuda.local.array(3, real)\nrow = 1\na[2] = a[0] * a[1]"
    assert rewritten(text, scalar=False) == array


def test_loops_over_rows_are_written_out():
    text = ROWS + "for k in range(1, 3):\n    for i in range(64):\n        a[k, i] = x[k, i]\n"
    assert rewritten(text) == "a_1 = real(x[1, i])\na_2 = real(x[2, i])"
    other = "for k in range(3):\n    b[k] = k"
    assert rewritten(other) == other


def test_a_scalar_keeps_the_type_of_its_buffer():
    """An array converts what is stored in it; a bare name would become wider."""
    text = "word = np.empty(64, np.uint32)\nfor i in range(64):\n    word[i] = wide\n"
    text += "    word[i] += wide\n    word[i] = np.uint32(wide)\n"
    assert rewritten(text).splitlines() == [
        "word = np.uint32(wide)",
        "word = np.uint32(word + wide)",
        "word = np.uint32(wide)",
    ]


def test_rows_in_shared_memory():
    """A column of the block's array for each thread: known rows, others, and whole numbers."""
    crowd = {
        "a": Buffer(3, "real", False, "reals", 5, range(3)),
        "n": Buffer(0, "np.int32", False, "wholes", 2, range(1)),
        "one": Buffer(None, "np.int32", False, "wholes", 3, range(1)),
    }
    text = ROWS + "one = np.empty(64, np.int32)\nn = 4\nn += one[i]\na[:, :] = 0\n"
    text += "for c in range(3):\n    for i in range(64):\n        a[c, i] += b[n]\n"
    text += "row = 2\nfor i in range(64):\n    one[i] = a[row, i]\n"
    assert "\n".join(per_thread(text, {}, scalar=True, crowd=crowd)).splitlines() == [
        "wholes[2, lane] = 4",
        "wholes[2, lane] += wholes[3, lane]",
        "for row_of_a in range(3):",
        "    reals[np.uint32(row_of_a + 5), lane] = real(0)",
        "for c in range(3):",
        "    reals[np.uint32(c + 5), lane] += b[wholes[2, lane]]",
        "row = 2",
        "wholes[3, lane] = reals[7, lane]",
    ]


def test_a_part_of_the_rows_in_shared_memory():
    """Rows that are not known when compiling can only be there; the others are scalars."""
    crowd = {"a": Buffer(3, "real", True, "reals", 0, range(1, 3))}
    text = ROWS + "for i in range(64):\n    a[0, i] = a[1, i]\n    b = a[row + 1, i]\n"
    assert "\n".join(per_thread(text, {}, scalar=True, crowd=crowd)).splitlines() == [
        "a_0 = real(reals[0, lane])",
        "b = reals[np.uint32(row + 1 + -1), lane]",
    ]


def test_clearing():
    assert rewritten(ROWS + "a[:, :] = 0\n") == CLEARED.strip()
    cleared = "for row_of_a in range(3):\n    a[row_of_a] = real(0)"
    assert rewritten(ROWS + "a[:, :] = 0\n", scalar=False).endswith(cleared)


def test_an_addition_to_a_row_known_when_running():
    text = ROWS + "a[:, :] = 0\nfor i in range(64):\n    a[place[i], i] += 2.0\n"
    found = rewritten(text)
    values = {"real": float, "place": [1], "i": 0}
    run = compiling.load(
        "def run(real, place, i):\n"
        + "".join(f"    {line}\n" for line in found.splitlines())
        + "    return a_0, a_1, a_2\n",
        decorate=lambda module, entry: None,
    )
    assert run(**values) == (0.0, 2.0, 0.0)


def test_a_row_that_is_not_known_is_refused():
    text = ROWS + "for i in range(64):\n    b = a[place[i], i]\n"
    with pytest.raises(ValueError, match="which row is not known"):
        rewritten(text)
    assert "b = a[place[i]]" in rewritten(text, scalar=False)
    with pytest.raises(ValueError, match="a thread needs a number of rows"):
        rewritten("a = np.empty((many, 64), real)\n")


def test_a_number_that_may_have_changed_is_not_put_in():
    text = ROWS + "m = 0\nif odd:\n    m = 1\nfor i in range(64):\n    b = a[m, i]\n"
    with pytest.raises(ValueError, match="which row is not known"):
        rewritten(text)
    text = ROWS + "m = 0\nwhile b < 2:\n    b = a[m, i]\n    m += 1\n"
    with pytest.raises(ValueError, match="which row is not known"):
        rewritten(text)
    text = ROWS + "m = 0\nfor k in range(9):\n    b = c[m]\n    m += 1\n"
    assert "b = c[m]" in rewritten(text)


def test_numbers_followed_through_additions():
    text = ROWS + "m = 0\nfor k in range(3):\n    a[k, i] = 1\n    m += 1\nb = a[m - 1, i]\n"
    assert rewritten(text).endswith("m = 3\nb = a_2")


def test_a_branch_without_a_first_part_keeps_its_second():
    text = "if b:\n    for i in range(64):\n        pass\nelse:\n    c = 1\n"
    assert rewritten(text) == "if b:\n    pass\nelse:\n    c = 1"
    text = ROWS + "if b:\n    for k in range(0):\n        a[k, i] = 1\nelse:\n    c = 1\n"
    assert rewritten(text) == "if b:\n    pass\nelse:\n    c = 1"


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("shared", "cuda.atomic.add(counters, np.uint32(counts_first + slot[i]), np.int32(1))"),
        ("global", "if 1 != 0:\n    cuda.atomic.add(counts, slot[i], np.int64(1))"),
        ("exact", "add_exactly(counts[slot[i]], np.float64(1))"),
    ],
)
def test_counts_that_threads_share(how, expected):
    text = "for i in range(64):\n    counts[slot[i]] += 1\n"
    assert rewritten(text, {"counts": how}) == expected
    several = "counts[base[i], 0, c] += 1\n"
    assert "(base[i], 0, c)" in rewritten(several, {"counts": "global"})


# --- exact sums -----------------------------------------------------------------------------------


class Atomic:
    """Additions one after the other, as a GPU makes them in some order."""

    @staticmethod
    def add(sums, k, value):
        sums[k] += value


def added(values, parts=None):
    """The device function itself, run in Python."""
    gpu = types.SimpleNamespace(atomic=Atomic)
    add = compiling.load(
        "import numpy as np\n\n\n" + exact_sums.ADD_EXACTLY,
        "add_exactly",
        lambda module, entry: setattr(module, "cuda", gpu),
    )
    parts = np.zeros(exact_sums.PARTS, np.int64) if parts is None else parts
    for value in values:
        add(parts, np.float64(value))
    return parts


def cut(value):
    """A number without what is below 2**-160."""
    return Fraction(math.trunc(Fraction(value) * 2**160), 2**160)


numbers = st.one_of(
    st.floats(-1e3, 1e3),
    st.floats(-1e28, 1e28),
    st.floats(-1e-30, 1e-30),
    st.sampled_from([0.0, -0.0, 5e-324, 1e-48, 2.0**-160, -(2.0**95), math.nextafter(2.0**96, 0)]),
)


@settings(max_examples=300, deadline=None)
@given(values=st.lists(numbers, max_size=30), seed=st.randoms(use_true_random=False))
def test_a_sum_does_not_depend_on_the_order_and_is_exact(values, seed):
    parts = added(values)
    mixed = list(values)
    seed.shuffle(mixed)
    assert (added(mixed) == parts).all()
    assert (exact_sums.from_floats(np.array(values)).sum(axis=0) == parts).all()
    half = len(values) // 2
    carried = exact_sums.carried(added(values[:half]))  # room made in between
    again = added(values[half:], carried)
    found, other = float(exact_sums.to_floats(parts)), float(exact_sums.to_floats(again))
    assert found == other
    exact = sum(map(cut, values), Fraction(0))
    assert abs(Fraction(found) - exact) <= abs(exact) * Fraction(2) ** -51
    assert abs(found - math.fsum(values)) <= abs(math.fsum(values)) * 2**-51 + len(values) * 2**-160


def test_float_additions_would_depend_on_the_order():
    """The twin: what the parts are for."""
    for values in ([1e20, 1.0, -1e20], [1e20, -1e20, 1.0]):
        assert exact_sums.to_floats(added(values)) == 1.0
    assert (1e20 + 1.0) - 1e20 != (1e20 - 1e20) + 1.0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 2.0**96, -1e300])
def test_what_is_not_finite_or_too_large_makes_the_sum_nan(bad):
    for parts in (added([1.0, bad, 2.0]), exact_sums.from_floats(np.array([1.0, bad])).sum(axis=0)):
        assert np.isnan(exact_sums.to_floats(parts))
        assert np.isnan(exact_sums.to_floats(exact_sums.carried(parts)))


def test_as_many_of_the_largest_numbers_as_there_is_room_for():
    """Parts are whole numbers, so that many equal ones are a multiple of one."""
    largest = math.nextafter(2.0**96, 0)
    for sign in (1, -1):
        one = exact_sums.from_floats(np.array([sign * largest]))[0]
        many = one * exact_sums.ROOM
        assert (many // exact_sums.ROOM == one).all()  # nothing overflowed
        assert np.isnan(exact_sums.to_floats(many))  # but nothing more may be added
        some = exact_sums.to_floats(one * (exact_sums.ROOM // 8))
        assert some == sign * largest * (exact_sums.ROOM // 8)


def test_a_sum_that_grows_too_large_is_nan_and_does_not_wrap():
    parts = np.zeros(exact_sums.PARTS, np.int64)
    many = exact_sums.from_floats(np.array(2.0**95)) * exact_sums.ROOM
    for _ in range(20):  # 2**95 times 20 * 2**30 is above 2**124
        parts = exact_sums.carried(parts + many)
    assert np.isnan(exact_sums.to_floats(parts))


def test_tables_of_sums():
    values = np.array([[1.5, -2.0, 0.125], [2.0**-60, -(2.0**60), 3.0]])
    parts = exact_sums.from_floats(values)
    assert parts.shape == (2, 3, exact_sums.PARTS)
    assert (exact_sums.to_floats(parts) == values).all()
    assert (exact_sums.to_floats(7 * parts) == 7 * values).all()
    assert (exact_sums.to_floats(exact_sums.carried(-7 * parts)) == -7 * values).all()


@settings(max_examples=50, deadline=None)
@given(st.integers(4, 2**32 - 1), st.integers(0, 2**20), st.integers(1, 1024))
def test_no_launch_adds_more_numbers_than_there_is_room_for(n, begin, steps):
    begin, tasks = 4 * begin, n_tasks(n)
    store = np.zeros((1, exact_sums.PARTS), np.int64)
    observer, twin = (
        types.SimpleNamespace(memory={"exact": None}),
        types.SimpleNamespace(store=store),
    )
    engine = types.SimpleNamespace(observers=[observer])
    share = types.SimpleNamespace(engine=engine, observers=[twin], n=n, tasks=tasks, added=0)
    room, last = cuda.row_length(n, tasks), begin
    for _ in range(2):
        for first, end in cuda.Share.launches(share, begin, begin + steps):
            assert first % 4 == 0 and first < end
            assert (end - first) * room <= max(exact_sums.ROOM, 4 * room)
            assert share.added <= max(exact_sums.ROOM, 4 * room)
            last = end
        assert last == begin + steps


def test_a_launch_of_few_replicas_is_no_longer_than_one_of_many():
    """One replica alone would be launched for hours, and Ctrl-C would wait; 32 bits count steps."""
    simulation = importlib.import_module("langevin.simulate")
    for n in (1, 64, 10**4, 2**17):
        assert simulation._window(n, 1.0, 2**33, "cuda") == 2**16
    assert simulation._window(2**20, 1.0, 2**33, "cuda") == 2**13
    assert simulation._window(1, 1.0, 2**33, "cpu") == 2**30
    assert simulation.GPU_WINDOW // simulation.GPU_THREADS < cpu_pieces.FAR


@pytest.mark.parametrize(
    ("weight", "dtype", "rate", "steps"),
    [(1.0, "float32", 1e11, 512), (2.5, "float32", 5e10, 128), (1.0, "float64", 1e10, 64),
     (2.5, "float64", 5e9, 32), (600.0, "float32", 2e9, 16)],
)  # fmt: skip
def test_a_launch_of_very_many_replicas_ends_within_a_second(weight, dtype, rate, steps):
    """At rates of about a quarter of an H200's bound, or in float64 those of a gaming card."""
    window = importlib.import_module("langevin.simulate")._window
    assert window(10**8, weight, 2**16, "cuda", dtype) == steps
    assert 10**8 * steps / rate <= 1


def test_runs_without_sums_are_launched_whole():
    engine = types.SimpleNamespace(observers=[])
    share = types.SimpleNamespace(engine=engine, observers=[], n=2**32 - 1, tasks=64, added=0)
    assert list(cuda.Share.launches(share, 8, 4104)) == [(8, 4104)]


# --- roots and ratios -----------------------------------------------------------------------------


def fused(a, b, c):
    """a b + c, rounded once."""
    return float(Fraction(a) * Fraction(b) + Fraction(c))


def refined(steps, estimate, error):
    """The steps as a GPU takes them, after an estimate that is off by so much."""

    def guess(x):
        return float(Fraction(estimate(x)) * (1 + Fraction(error)))

    return steps(guess, fused, float.__mul__, float.__neg__, float)


@settings(max_examples=500, deadline=None)
@given(x=st.floats(1, 4), power=st.integers(-60, 60), error=st.floats(-(2.0**-19), 2.0**-19))
def test_a_refined_root_is_that_of_the_cpu(x, power, error):
    root = refined(compiling.root_steps, lambda v: 1 / math.sqrt(v), error)
    x = math.ldexp(x, power)
    assert root(x) == math.sqrt(x)
    assert root(0.0) == 0.0 == root(-0.0)


@settings(max_examples=500, deadline=None)
@given(a=st.floats(-1, 1), b=st.floats(1, 4), error=st.floats(-(2.0**-19), 2.0**-19))
def test_a_refined_ratio_is_that_of_the_cpu(a, b, error):
    ratio = refined(compiling.ratio_steps, lambda v: 1 / v, error)
    if a == 0 or abs(a) > 2.0**-900:
        assert ratio(a, b) == a / b


def test_an_estimate_too_rough_is_seen():
    """The twin: what 2**-19 is needed for."""
    root = refined(compiling.root_steps, lambda v: 1 / math.sqrt(v), 2.0**-8)
    assert any(root(x) != math.sqrt(x) for x in np.linspace(1, 4, 50).tolist())
    ratio = refined(compiling.ratio_steps, lambda v: 1 / v, 2.0**-4)
    assert any(ratio(a, 3.3) != a / 3.3 for a in np.linspace(0.1, 1, 50).tolist())
