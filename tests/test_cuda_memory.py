"""What a run on a GPU keeps in memory, in which order, and what is said where it does not fit."""

import contextlib
import dataclasses
import math
import sys
import types

import numpy as np
import pytest

import langevin as lv
from langevin.engines import compiling, cuda, room
from langevin.errors import UnavailableError
from langevin.preparation import ready

WELL = lv.surfaces.double_well()
SGD = lv.SGD(learning_rate=0.05, batch_size=8)
SUMS = (lv.Histogram(bins=200, every=10), lv.Moments(every=10), lv.Occupation(every=10))
PASSAGE = (lv.FirstPassage("x > 1"),)


def prepared(n, observe=(), dtype="float32", dynamics=SGD):
    settings = {"n_steps": 64, "burn_in": 0, "seed": 0, "first_replica": 0, "dtype": dtype}
    return ready(WELL, dynamics, observe, None, n_replicas=n, **settings)[:2]


def each(observe, **options):
    """Bytes that one more replica takes."""
    few, many = (room.needed(*prepared(n, observe, **options), 0, n) for n in (8192, 16384))
    return (many - few) / 8192


@pytest.mark.parametrize(
    ("observe", "dtype", "expected"),
    [
        ((), "float32", 4 + 4 + 1),  # position, fate, and whether it has diverged
        (SUMS, "float32", 4 + 4 + 2 * 2 + 1),  # the basin it began in, for two observers
        (SUMS, "float64", 8 + 4 + 2 * 2 + 1),
        (PASSAGE, "float32", 4 + 4 + 8 + 3 + 16 + 4 + 32),  # its step; and all again, packed
    ],
)
def test_bytes_of_a_replica(observe, dtype, expected):
    assert each(observe, dtype=dtype) == expected


@pytest.mark.parametrize("observe", [(), SUMS, PASSAGE])
def test_ten_to_the_eight_replicas_fit_a_card_of_16_gib(observe):
    state, bound = prepared(8192, observe)
    assert room.needed(state, bound, 0, 8192) + 1e8 * each(observe) < 8 * 2**30


def test_rates_of_their_own_and_velocities_are_counted():
    rates = lv.SGD(np.full(8192, 0.05), 8, momentum=0.5)
    state, bound = prepared(8192, dynamics=rates)
    shared = room.needed(state, bound, 0, 0)
    rows = 2 + 3  # position and buffer; rate, noise and momentum
    assert room.needed(state, bound, 0, 8192) - shared == 8192 * (4 * rows + 4 + 1)


def test_exact_sums_take_nine_numbers_each():
    state, bound = prepared(8192, lv.Moments())
    alone = room.needed(*prepared(8192), 0, 8192)
    assert room.needed(state, bound, 0, 8192) - alone >= 9 * bound[0].store.nbytes


def test_a_trajectory_of_all_replicas_is_whole_on_every_gpu():
    n = 8192
    state, bound = prepared(n, lv.Trajectory(every=16))
    part = room.needed(state, bound, 0, n // 2) - room.needed(state, bound, 0, 0)
    assert part <= n // 2 * (4 + 4 + 1 + 8)  # and the replica's place among those kept
    assert room.needed(state, bound, 0, 0) > bound[0].store.nbytes


@contextlib.contextmanager
def nothing(number):
    yield


def engine(n, observe=(), devices=(0,)):
    state, bound = prepared(n, observe)
    made = object.__new__(cuda.Engine)
    made.observers, made.devices, made.shares = bound, devices, []
    made.queued, made.batch = 0, 1
    return made, state


def test_what_does_not_fit_is_refused_with_figures(monkeypatch):
    monkeypatch.setattr(compiling, "on_device", nothing)
    monkeypatch.setattr(room, "free", lambda: 2.0**28 + 8192 * 9 - 1)
    made, state = engine(8192)
    with pytest.raises(UnavailableError, match=r"8,192 replicas .* take 0.25 GiB of GPU 3, where "):
        made.devices = (3,)
        made.compile(state)
    monkeypatch.setattr(cuda, "Share", lambda *given: pytest.fail("a copy was made"))
    with pytest.raises(UnavailableError, match=r"float32.*cuda:all"):
        made.compile(state)
    monkeypatch.setattr(room, "free", lambda: 2.0**28 + 8192 * 9 + 1000)  # and parameters
    room.check(state, made.observers, (0,), [(0, 8192)])


def test_two_gpus_need_half_of_it_each(monkeypatch):
    monkeypatch.setattr(compiling, "on_device", nothing)
    made, state = engine(8192, devices=(0, 1))
    monkeypatch.setattr(room, "free", lambda: 2.0**28 + 4096 * 9 + 1000)
    spans = cuda.shares(8192, 64, 2)
    room.check(state, made.observers, (0, 1), spans)
    with pytest.raises(UnavailableError, match=r"8,192 replicas .* GPU 0"):
        room.check(state, made.observers, (0,), [(0, 8192)])


class Full:
    """A share whose GPU is full when it is to move."""

    def __init__(self, error):
        self.error = error

    def advance(self, *given):
        raise self.error


@pytest.mark.parametrize(
    "error",
    [MemoryError("1,600,000,000 bytes"), RuntimeError("OUT_OF_MEMORY: 1,600,000,000 bytes")],
)
def test_memory_that_runs_out_later_is_an_error_that_says_so(error):
    made, state = engine(130)
    made.shares = [Full(error)]
    with pytest.raises(UnavailableError, match=r"no room for 130 replicas .*1,600,000,000 bytes"):
        made.advance(state, 0, 4)


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    made, state = engine(130)
    made.shares = [Full(RuntimeError("CUDA_ERROR_ILLEGAL_ADDRESS"))]
    with pytest.raises(RuntimeError, match="ILLEGAL_ADDRESS"):
        made.advance(state, 0, 4)


# --- one stream -----------------------------------------------------------------------------------


def test_copies_and_kernels_are_in_one_stream_whatever_the_callers_is(monkeypatch):
    """In a caller's own stream CuPy's copies would not wait for kernels, nor those for copies."""
    inside, seen = [], []

    @contextlib.contextmanager
    def entered(name):
        inside.append(name)
        yield
        inside.remove(name)

    driver = types.SimpleNamespace(
        Device=lambda number: entered(f"device {number}"),
        Stream=types.SimpleNamespace(null=entered("default stream")),
        runtime=types.SimpleNamespace(memGetInfo=lambda: (5, 9)),
    )
    pool = types.SimpleNamespace(free_bytes=lambda: 2)
    cupy = types.SimpleNamespace(cuda=driver, get_default_memory_pool=lambda: pool)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(compiling, "simulated", lambda: False)
    numba_cuda = types.SimpleNamespace(gpus={1: entered("context 1")})
    monkeypatch.setattr(compiling, "cuda", lambda: numba_cuda)
    with compiling.on_device(1):
        seen += inside
        assert room.free() == 7
    assert seen == ["device 1", "context 1", "default stream"] and not inside


def test_kernels_are_launched_in_the_default_stream():
    launched = []

    class Kernel:
        def __getitem__(self, shape):
            return lambda *arguments: launched.append((shape, arguments))

    compiling.launch(Kernel(), (7, 64, 128), (1, 2))
    assert launched == [((7, 64, 0, 128), (1, 2))]


# --- sizes that a launch must stay below ----------------------------------------------------------


def test_a_block_of_the_largest_kernel_has_registers_enough():
    """255 registers a thread are given out as 256, and a multiprocessor has 65,536."""
    assert cuda.THREADS * 256 <= 65_536


def test_counters_of_a_launch_hold_what_all_its_threads_count():
    """In shared memory and in a thread's own tallies: a count a step at most, in 32 bits."""
    longest = 2**16
    assert cuda.THREADS * longest < 2**31


def test_nothing_is_limited_in_a_simulation(monkeypatch):
    monkeypatch.setattr(compiling, "simulated", lambda: True)
    assert room.free() == math.inf
    assert dataclasses.is_dataclass(prepared(130)[0])
