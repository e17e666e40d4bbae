"""The CUDA engine in numba's simulator beside the CPU engine: how far apart they are, as JSON.

``python simulated.py dynamics`` runs a family of cases, each on both engines in this process.
Reports say how many whole numbers differ and how far real numbers do, relative to their size. Runs
have two tasks instead of 64, so that a hundred replicas already share blocks and tasks.
"""

import os

if __name__ == "__main__":
    os.environ["NUMBA_ENABLE_CUDASIM"] = "1"  # before numba is imported, by whatever

import contextlib
import functools
import importlib
import json
import re
import signal
import sys
import tempfile
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import numpy as np

import langevin as lv
from langevin.devices import Device
from langevin.engines import compiling, cpu, cuda, source
from langevin.schedules import Cosine, Steps

simulation = importlib.import_module("langevin.simulate")


@dataclass(frozen=True)
class Case:
    """What both engines run: ``options`` are simulate()'s, the rest this script's own."""

    surface: object
    dynamics: object
    observe: tuple = ()
    n: int = 130
    steps: int = 10
    dtype: str = "float64"
    window: int = 0  # steps of a launch, or as many as the run has
    tasks: int = 2
    options: dict = field(default_factory=dict)


@contextlib.contextmanager
def patched(*changes):
    """Attributes replaced: (object, name, value)."""
    with contextlib.ExitStack() as stack:
        for where, name, value in changes:
            stack.enter_context(mock.patch.object(where, name, value))
        yield


def run(case, device="cuda", *, threads=256, devices=(0,), **options):
    """One run's arrays by name: state, and the observers' stores and memory."""
    kept = []

    def ready(*arguments, **given):
        kept[:] = original(*arguments, **given)
        return tuple(kept)

    original, window = simulation.ready, case.window or 2**16
    chosen = Device("cpu") if device == "cpu" else Device("cuda", devices, "simulated")
    engine = functools.partial(cuda.Engine, threads=threads)
    changes = [
        (simulation, "ready", ready),
        (simulation, "choose", lambda wanted: chosen),
        (simulation, "_window", lambda *a: window),
        (cpu, "TASKS", case.tasks),
        (cuda, "Engine", engine),
    ]
    with patched(*changes):
        result = lv.simulate(
            case.surface, case.dynamics, observe=case.observe, n_replicas=case.n, seed=7,
            n_steps=case.steps, dtype=case.dtype, progress=False, **{**case.options, **options},
        )  # fmt: skip
    state, bound, _ = kept
    dim = case.surface.dim
    found = {"positions": state.positions[:dim], "fate": state.fate}
    found["velocities"] = state.positions[dim:]  # buffers, gradients: whatever else is carried
    for observer in bound:
        # The last slot of flat counts takes what is not counted, on the CPU also idle lanes.
        flat = observer.kind in ("histogram", "transitions")
        found[observer.name] = observer.store[:, :-1] if flat else observer.store
        memory = {k: v for k, v in observer.memory.items() if k != "exact"}
        found |= {f"{observer.name} {k}": v for k, v in memory.items()}
    assert (np.asarray(result.positions).T == found["positions"]).all()
    return {k: np.array(v) for k, v in found.items() if v.size}


def difference(a, b):
    """The largest difference between real numbers, relative to their own size and the usual one.

    The usual size is the median of those of one component.
    """
    a, b = np.asarray(a, float), np.asarray(b, float)
    if a.shape != b.shape or (np.isnan(a) != np.isnan(b)).any():
        return float("inf")
    component = {2: 0, 3: 1}.get(a.ndim, a.ndim - 1)  # of a state, a trajectory, sums
    a, b = (np.moveaxis(x, component, 0).reshape(a.shape[component], -1) for x in (a, b))
    worst = 0.0
    for x, y in zip(a, b, strict=True):
        sizes = np.abs(x[(x != 0) & np.isfinite(x)])
        apart = np.abs(x - y)[x != y]
        apart = apart[~np.isnan(apart)] / (np.abs(x)[x != y][~np.isnan(apart)] + usual(sizes))
        worst = max(worst, float(apart.max(initial=0.0)))
    return worst


def usual(sizes):
    """The median size; 1 where there is none."""
    return float(np.median(sizes)) if len(sizes) else 1.0


def compared(case, a, b):
    """The report of two runs."""
    assert a.keys() == b.keys()
    report = {"dtype": case.dtype, "integers": {}, "floats": {}, "bits": True}
    report["diverged"] = int((b["fate"] >= 0).sum())
    for name in a:
        whole = np.issubdtype(a[name].dtype, np.integer)
        if whole:
            report["integers"][name] = int((a[name] != b[name]).sum())
        else:
            report["floats"][name] = difference(a[name], b[name])
        report["bits"] &= bool(np.array_equal(a[name], b[name], equal_nan=not whole))
        report.setdefault("seen", {})[name] = len(np.unique(b[name]))
    return report


# --- surfaces -------------------------------------------------------------------------------------

WELL = "x**4/4 - a*x**3/3 - x**2/2"
PLANE = "(x**2 - 1)**2 + 3*y**2/4 + x*y/4"
SPACE = "(x**2 - 1)**2 + y**2/2 + z**2 + x*z/5"
FIVE = " + ".join(f"(x{k}**2 - 1)**2/4 + x{k}*x{(k + 1) % 5}/9" for k in range(5))


def well(noise=None):
    return lv.Surface(WELL, a=0.4, noise=noise or lv.Isotropic(1.0))


def plane(noise=None):
    return lv.Surface(PLANE, noise=noise or lv.Isotropic(1.0))


def space():
    return lv.Surface(SPACE, noise=lv.Isotropic(1.0))


def five():
    return lv.Surface(FIVE, noise=lv.Isotropic(1.0))


def scattered(n, dim=1, seed=3):
    """Start points all over the wells."""
    return np.random.default_rng(seed).uniform(-1.3, 1.6, size=(n, dim))


def from_anywhere(n, dim=1, **options):
    return {"start": scattered(n, dim), "first_replica": 1000, **options}


# --- families -------------------------------------------------------------------------------------


def dynamics():
    """Every integrator and noise, in every dimension; nothing observed."""
    rates = np.linspace(0.02, 0.08, 130)
    decayed = dict(momentum=0.5, nesterov=True, weight_decay=0.1)
    state_noise = lv.StateDependent("1 + x**2/2", convention="stratonovich")
    label = lv.LabelNoise("x*y", 0.7)
    quadratic = lv.Surface("x**2 + x*y/2 + y**2", noise=lv.Isotropic(1.0))
    correlated = lv.Anisotropic([[1.0, 0.3], [0.3, 0.5]])
    masses = lv.Underdamped(0.2, 1.0, 0.05, masses=(1.0, 3.0))
    single = dict(dtype="float32")
    od, ud = lv.Overdamped, lv.Underdamped
    two, here = from_anywhere(130, 2), from_anywhere(130)
    return {
        "SGD": Case(well(), lv.SGD(0.05, 4), options=here),
        "SGD single": Case(well(), lv.SGD(0.05, 4), **single, options=here),
        "momentum": Case(plane(), lv.SGD(0.03, 2, momentum=0.8), n=70, steps=9),
        "nesterov and decay": Case(well(), lv.SGD(0.05, 4, **decayed), **single, options=here),
        "schedules": Case(
            well(), lv.SGD(Cosine(0.1, 10), Steps(4.0, (5,), 2.0), momentum=0.3), window=4
        ),
        "rates of their own": Case(well(), lv.SGD(rates, rates * 100), steps=7, options=here),
        "Euler": Case(space(), od(0.2, 0.02), **single, options=from_anywhere(130, 3)),
        "Heun, fewer than 64": Case(space(), od(0.2, 0.02, integrator="heun"), n=5),
        "Leimkuhler-Matthews": Case(
            plane(), od(0.2, 0.02, integrator="leimkuhler_matthews"), steps=11, options=two
        ),
        "exact": Case(quadratic, od(0.2, 0.1, integrator="exact"), options=two),
        "BAOAB and masses": Case(plane(), masses, options=two),
        "OBABO": Case(well(), ud(0.2, 1.0, 0.05, splitting="OBABO"), **single, options=here),
        "ABOBA": Case(space(), ud(0.2, 1.0, 0.05, splitting="ABOBA"), tasks=64),
        "anisotropic": Case(plane(correlated), lv.SGD(0.03, 2), options=two),
        "Stratonovich": Case(well(state_noise), lv.SGD(0.03, 2), options=here),
        "label noise": Case(plane(label), lv.SGD(0.03, 2), **single, options=two),
        "multiplicative": Case(well(lv.Multiplicative(0.5, 0.1)), lv.SGD(0.03, 2), options=here),
        "Student": Case(well(lv.StudentT(3.0)), lv.SGD(0.03, 2), **single),
        "stable": Case(well(lv.AlphaStable(1.7)), lv.SGD(0.01, 2)),
        "five dimensions": Case(five(), lv.SGD(0.03, 2, momentum=0.5), n=70),
    }


def examples():
    rng = np.random.default_rng(1)
    u = rng.normal(size=(23, 2))
    return u, u @ np.ones(2) + rng.normal(size=23)


def data():
    """Every way to take mini-batches, with what is observed of weights."""
    u, v = examples()
    least = lv.FiniteSum("(b + w*u - v)**2/2", data={"u": u, "v": v})
    logistic = lv.FiniteSum("log(1 + exp(-v*w*u))", data={"u": u, "v": np.sign(v)}, l2=0.1)
    given = dict(learning_rate=0.1, batch_size=5, momentum=0.5)
    shuffled = dict(sampling="epoch_shuffle")
    sizes = np.arange(70) % 9 + 1
    growing = Steps(3.0, (4, 8), 2.0)
    watch = (lv.Moments(), lv.Histogram(bins=8, range=(-2, 2), axes=(0,)), lv.Trajectory(every=3))
    few = dict(n=70)
    return {
        "with replacement": Case(least, lv.SGD(**given), watch, **few),
        "without replacement": Case(
            least, lv.SGD(**given, sampling="without_replacement"), **few, dtype="float32"
        ),
        "epochs": Case(least, lv.SGD(**given, **shuffled), steps=13, window=8, **few),
        "epochs, sizes of their own": Case(
            least, lv.SGD(0.1, sizes, drop_last=False, **shuffled), steps=11, **few
        ),
        "sizes of their own": Case(logistic, lv.SGD(0.1, sizes), dtype="float32", **few),
        "growing batches": Case(
            least, lv.SGD(0.05, growing, **shuffled), steps=13, window=4, dtype="float32", **few
        ),
        "full gradient": Case(logistic, lv.Overdamped(0.05, 0.1), **few),
        "Langevin on mini-batches": Case(least, lv.Overdamped(0.05, 0.1, batch_size=sizes), **few),
        "Langevin on epochs": Case(
            least,
            lv.Overdamped(0.05, 0.1, "leimkuhler_matthews", batch_size=3, **shuffled),
            dtype="float32",
            **few,
        ),
    }


def observers():
    """Every observer, in a run whose middle and end fall inside a group of four steps."""
    watch = (
        lv.Histogram(bins=20), lv.Occupation(every=2), lv.Moments(), lv.Average(("x", "x**2")),
        lv.Temperature(), lv.FirstPassage("x > 0.5"), lv.Transitions(every=3),
        lv.Trajectory(every=2, replicas=(0, 3, 69, 129)), lv.Autocorrelation(lags=3),
    )  # fmt: skip
    single = (
        lv.Histogram(bins=20), lv.Temperature(every=2), lv.FirstPassage("x > 0.5"),
        lv.Trajectory(every=4), lv.Autocorrelation(lags=3, formula="x**2"),
    )  # fmt: skip
    label = np.arange(130) % 3
    groups = (
        lv.Histogram(bins=9_000, at=(1, 6, 15)),  # too many for shared memory
        lv.Occupation(at=(2, 9), groups=label), lv.Moments(groups=label),
        lv.Transitions(groups=label), lv.Average("x**3", at=(4, 5, 14)),
    )  # fmt: skip
    flat = (
        lv.Histogram(bins=(6, 5)), lv.Occupation(), lv.Moments(every=3), lv.Transitions(),
        lv.FirstPassage(1, every=2),
    )  # fmt: skip
    passages = (
        lv.FirstPassage("x > 0.3"), lv.FirstPassage("x > 0", leave=True, name="left"),
        lv.FirstPassage(0, name="basin"), lv.FirstPassage("x < -0.5", continuous=True, name="c"),
    )  # fmt: skip
    runaway = lv.Surface("x**4/4 - x**2/2", noise=lv.Isotropic(1.0))
    begun = np.where(np.arange(130) % 7 == 3, 8.0, np.linspace(-1, 1.2, 130))
    outwards = {"start": begun[:, None], "on_divergence": "absorb"}
    curved = lv.Surface("(x**2 - 1)**2 + (y - x**2/2)**2 + x*y/3", noise=lv.Isotropic(1.0))
    crowd = (
        lv.Histogram(bins=7, axes=(0, 2)), lv.Moments(every=3), lv.Average("x*y", at=(2, 5, 9)),
        lv.FirstPassage("x > 0.2", every=2), lv.Trajectory(every=3, replicas=(1, 68)),
        lv.Autocorrelation(lags=2, formula="x"), lv.Temperature(), lv.Occupation(every=9),
        lv.Transitions(every=4),
    )  # fmt: skip
    later = dict(steps=15)
    burnt = {"burn_in": 3}
    od, ud = lv.Overdamped, lv.Underdamped
    return {
        "line": Case(well(), lv.SGD(0.2, 1), watch, **later, options=from_anywhere(130, **burnt)),
        "line, with velocities": Case(
            well(), ud(0.3, 1.0, 0.2), single, window=8, dtype="float32", **later, options=burnt
        ),
        "groups and times": Case(
            well(), lv.SGD(0.2, 1), groups, **later, options=from_anywhere(130, **burnt)
        ),
        "curved borders": Case(
            curved, od(0.5, 0.02), flat, window=8, dtype="float32", **later,
            options=from_anywhere(130, 2, **burnt),
        ),
        "quench": Case(
            space(), od(0.4, 0.05), (lv.Occupation(every=5), lv.Histogram(bins=7, axes=(0, 2))),
            n=70, dtype="float32", options={"start": scattered(70, 3)},
        ),
        "five dimensions": Case(
            five(), lv.SGD(0.03, 2), (lv.Occupation(every=8), lv.Moments(), lv.Trajectory(every=4)),
            n=66, steps=8, options={"start": scattered(66, 5)},
        ),
        "crowded": Case(
            space(), ud(0.4, 1.0, 0.1), crowd, n=70, steps=11, window=4, dtype="float32",
            options={"start": scattered(70, 3), "burn_in": 2},
        ),
        "crowded by random words": Case(
            space(), ud(0.4, 1.0, 0.1, splitting="OBABO"),
            (lv.Occupation(every=4), lv.Histogram(bins=7, axes=(0, 2), every=3)),
            n=70, steps=11, window=4, options={"start": scattered(70, 3)},
        ),
        "absorbed": Case(
            runaway, lv.SGD(0.12, 2), (lv.Histogram(bins=9), lv.Moments(), lv.Trajectory(),
            lv.FirstPassage("x > 0.8")), steps=7, options=outwards,
        ),
        "passages alone": Case(
            well(), lv.SGD(0.2, 1), passages, steps=60, window=4,
            options={"start": (-0.2,), "first_replica": 5},
        ),
    }  # fmt: skip


FAMILIES = {"dynamics": dynamics, "data": data, "observers": observers}


# --- the engine alone -----------------------------------------------------------------------------


def engine():
    """What must not change a bit: threads, GPUs; and windows, and runs that are stopped."""
    n, reports = 200, {}
    watch = (lv.Histogram(bins=9), lv.Occupation(), lv.Moments(), lv.Autocorrelation(lags=3),
             lv.Transitions(), lv.FirstPassage("x > 0.5"), lv.Trajectory(every=5))  # fmt: skip
    rates = np.linspace(0.2, 0.4, n)
    label = np.arange(n) % 2
    watch += (lv.Average("x**2", groups=label),)
    case = Case(well(), lv.SGD(rates, 1), watch, n=n, steps=10, window=4, options={"burn_in": 3})
    plain = run(case)
    for threads in (32, 48, 100):
        reports[f"{threads} threads"] = compared(case, plain, run(case, threads=threads))
    reports["two GPUs"] = compared(case, plain, run(case, devices=(0, 0)))
    longer = Case(**{**vars(case), "window": 0})
    reports["one window"] = compared(case, plain, run(longer))
    with patched((cuda, "ROOM", 600)):
        reports["little room"] = compared(case, plain, run(longer))
    with patched((cuda, "SHARED", 0)):
        reports["no shared memory"] = compared(case, plain, run(case))
    reports["stopped and resumed"] = compared(case, plain, resumed(case, (0,)))
    reports["resumed on two"] = compared(case, plain, resumed(case, (0, 0)))
    alone = run(Case(**{**vars(case), "observe": ()}), devices=(0, 0))
    reports["unobserved"] = compared(case, {k: plain[k] for k in alone}, alone)
    passages = observers()["passages alone"]
    waiting = run(passages)
    reports["passages, two GPUs"] = compared(passages, waiting, run(passages, devices=(0, 0)))
    packed = []

    class Counting(cuda.Remaining):
        def __init__(self, *arguments, **given):
            super().__init__(*arguments, **given)
            packed.append(0 if self.replicas is None else len(self.replicas))

    with patched((cuda, "Remaining", Counting)):
        reports["packed"] = {"replicas": packed, **compared(passages, waiting, run(passages))}
    return reports


def resumed(case, devices):
    """A run that Ctrl-C stops after its second window, and that goes on later."""
    launches = []

    def advance(self, state, begin, end):
        original(self, state, begin, end)
        launches.append(begin)
        if len(launches) == 2:
            os.kill(os.getpid(), signal.SIGINT)

    original = cuda.Engine.advance
    with tempfile.TemporaryDirectory() as folder:
        with patched((cuda.Engine, "advance", advance)):
            run(case, checkpoint=folder, devices=devices)
        assert launches == [0, 4], launches
        with patched((cuda.Engine, "advance", advance)):
            found = run(case, checkpoint=folder, devices=devices)
        assert launches == [0, 4, 8], launches
    return found


WORDS = """
def run(words, indices, keys, places, n, rows, columns, rounds, key0, key1):
    {loop}
        w0, w1, w2, w3 = philox(
            np.uint64(r) + np.uint64(4294967290), np.uint64(r // 3), np.uint64(r % 5),
            np.uint64(2), key0, key1)
        words[r, 0] = np.uint32(w0)
        words[r, 1] = np.uint32(w1)
        words[r, 2] = np.uint32(w2)
        words[r, 3] = np.uint32(w3)
        indices[r] = draw_index(words[r, 0], np.uint32(n))
        left, right = permute(
            np.uint32(r // columns), np.uint32(r % columns), rows, columns, rounds,
            keys[0], keys[1])
        places[r] = np.int64(left) * np.int64(columns) + np.int64(right)
"""


def words():
    """Random words, drawn indices and a permutation, bit for bit."""
    n, rows, columns = 200, 12, 17
    text = {
        "cpu": WORDS.format(loop="for r in range(words.shape[0]):"),
        "cuda": WORDS.format(loop="for r in range(cuda.grid(1), words.shape[0], 9999):"),
    }
    found = {}
    for where in text:
        arrays = (
            np.zeros((n, 4), np.uint32), np.zeros(n, np.uint32),
            np.array([12345, 0xFFFFFFF1], np.uint32), np.zeros(n, np.int64),
        )  # fmt: skip
        arguments = (*arrays, np.int64(1000), np.uint32(rows), np.uint32(columns), np.int64(5))
        arguments += (np.uint64(0xDEADBEEF), np.uint64(0xFFFFFFFF))
        module = source.module_source("float64", text[where])
        if where == "cpu":
            compiling.load(module)(*arguments)
        else:
            compiling.launch(compiling.load_cuda(module), (4, 64, 0), arguments)
        found[where] = arrays
    same = [bool((a == b).all()) for a, b in zip(*found.values(), strict=True)]
    places = found["cuda"][3]
    return {
        "same": same,
        "words": len(np.unique(found["cuda"][0])),
        "permuted": len(np.unique(places)) == n and int(places.max()) < rows * columns,
    }


# --- planted bugs ---------------------------------------------------------------------------------

DEEP = "\n" + " " * 24  # inside "when the slot changes"
BUGS = {
    "one replica off": (r"first_replica \+ start \+ i\b", "first_replica + start + i + 1"),
    "another replica's coefficients": (r"r \* per_replica\]", "(r - r % 2) * per_replica]"),
    "a wrong normal": (r"normal_pair\(word_4,", "normal_pair(word_0,"),
    "shared counters not zeroed": (r"counters\[c\] = 0", "pass"),
    "shared counters flushed twice": (r"(counts0, c, )(np.int64\()", r"\g<1>2 * \g<2>"),
    "a running sum not cleared": (DEEP + r"running2_1 = np.float64\(0\)", ""),
    "a running count not cleared": (DEEP + r"running1_1 = np.int32\(0\)", ""),
    "a running sum not flushed": (r"\n {8}add_exactly\(counts2\[base2, kept2, 1\].*", ""),
    "a slot late": (r"step < half2", "step <= half2"),
    "the last step lost": (r"partial = .*", "partial = False"),
    "a look too many": (r"(steps = np.int32\(step_end - 4 \* group_begin)\)", r"\1 + 1)"),
    "a passage a step late": (r"step \+ 1 if fresh", "step + 2 if fresh"),
    "the idle threads work": (r"if i < valid:", "if i < 64 and (start + i < n or i % 2 == 0):"),
    "a wrong draw index": (r"dice\[b % 4\]", "dice[(b + 1) % 4]"),
    "an example too few": (r"if b < size\b", "if b + 1 < size"),
    "a wrong step's batch": (r"np.uint64\(b // 4\)", "np.uint64(b // 4 + 1)"),
    "exact parts of another size": (r"\* 2\.0\*\*32", "* 2.0**31"),
}
ON_DATA = {"a wrong draw index", "an example too few", "a wrong step's batch"}
CROWDED = {
    "another step's state": (r"row = 13 \+ place \* 9", "row = 13 + (3 - place) * 9"),
    "a sum in shared memory not cleared": (r"(row_of_running1 in range)\(10\)", r"\1(9)"),
    "two sums in a row": (r"sums\[1, lane\]", "sums[0, lane]"),
    "every other look": (
        r"(wholes\[\d+, lane\]) = np.int32\(\1 \+ (wholes\[\d+, lane\])\)",
        r"\1 = np.int32(\1 + 2 * \2)",
    ),
}
WORDS_APART = {
    "calls that share words": (
        r"words\[np.uint32\(4 \* draw \+ 2",
        "words[np.uint32(draw + 2",
    ),
    "a word of another call": (r"normal_pair\(words\[44, lane\]", "normal_pair(words[40, lane]"),
}
BUGS |= CROWDED | WORDS_APART


def bugs():
    """Each bug in the text of the kernel, and what the comparison with the CPU says."""
    watch = (
        lv.Histogram(bins=20), lv.Occupation(), lv.Moments(), lv.FirstPassage("x > 0.5"),
    )  # fmt: skip
    rates = np.linspace(0.2, 0.4, 130)
    begun = from_anywhere(130, burn_in=3)
    formula = Case(well(), lv.SGD(rates, 1), watch, steps=15, options=begun)
    u, v = examples()
    least = lv.FiniteSum("(b + w*u - v)**2/2", data={"u": u, "v": v})
    sampled = Case(least, lv.SGD(0.1, 5), n=70, steps=4)
    cases = {"none": formula, "none, data": sampled, "none, crowded": observers()["crowded"]}
    cases |= {"none, words": observers()["crowded by random words"]}
    right = {which: run(case, "cpu") for which, case in cases.items()}
    reports = {which: compared(case, right[which], run(case)) for which, case in cases.items()}
    original = cuda.kernel_source
    for name, (old, new) in BUGS.items():
        which = "none, data" if name in ON_DATA else "none"
        which = "none, crowded" if name in CROWDED else which
        which = "none, words" if name in WORDS_APART else which
        case = cases[which]

        def planted(*arguments, old=old, new=new):
            text, crowded = original(*arguments)
            text, count = re.subn(old, new, text)
            assert count, f"{old} is not in the kernel"
            return text, crowded

        with patched((cuda, "kernel_source", planted)):
            try:
                found = run(case)
            except Exception as error:  # an index out of range, where a GPU would go astray
                reports[name] = {"error": repr(error)}
                continue
        reports[name] = compared(case, right[which], found)
    return reports


# --- the simulator --------------------------------------------------------------------------------


def honest():
    """Shared memory holds what the block before left there: the simulator alone clears it."""
    from numba.cuda.simulator.kernelapi import FakeCUDAShared

    clean = FakeCUDAShared.__init__

    class Left(dict):
        def __setitem__(self, caller, array):
            array[...] = 3
            super().__setitem__(caller, array)

    def left(self, size):
        clean(self, size)
        self._dynshared[:] = 3
        self._allocations = Left()

    FakeCUDAShared.__init__ = left


def main(families):
    """Prints the families' reports."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    warnings.simplefilter("ignore")  # NumPy's, where whole numbers wrap as they are meant to
    honest()
    alone = {"engine": engine, "words": words, "bugs": bugs}
    found = {}
    for family in families:
        if family in alone:
            found[family] = alone[family]()
            continue
        cases = FAMILIES[family]()
        found[family] = {n: compared(c, run(c, "cpu"), run(c)) for n, c in cases.items()}
    print(json.dumps(found))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    main(sys.argv[1:])
