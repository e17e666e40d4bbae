"""What do exponentials cost: is langevin's arithmetic-only exp worth having, and near the bound?

Question: Euler-Maruyama on the 2-D Mueller-Brown surface (four exponentials a step), float32, one
thread: how many times the same engine with the C library's exp, how many times a plain numba loop
with np.random and math.exp, and how far from a hand-written SIMD C kernel with the same noise and
an exponential of its own (mueller_brown.c)? And what do heavy-ball SGD and underdamped BAOAB take
a step, beside Euler-Maruyama?

Method: as throughput.py. Every contender compiles and warms up in a process of its library's own;
then all take turns, round after round. A rate is the median over rounds with its smallest and
largest value, a ratio that of two medians. langevin's time is that of the whole simulate(). A
missing peer (no C compiler) is reported, not fatal.

    python benchmarks/transcendentals.py [--quick] [--output DIR]

Writes transcendentals.json and transcendentals.png.
"""

from __future__ import annotations

import argparse
import ctypes
import math
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import harness
import numpy as np
from contenders import MUELLER_BROWN, SEED
from rich.console import Console
from rich.table import Table

DT, TEMPERATURE, START = 1e-4, 10.0, (-0.558, 1.442)
AMPLITUDE = (2 * TEMPERATURE * DT) ** 0.5
EULER, SINGLE = "langevin", "langevin, C library's exp"
BARS = (
    ("langevin / its engine with the C library's exp", EULER, SINGLE, "at least", 2.0),
    ("langevin / plain numba, np.random and math.exp", EULER, "plain numba", "at least", 5.0),
    ("langevin / C kernel", EULER, "C kernel", "at least", 0.5),
    ("heavy ball: time a step / Euler-Maruyama's", EULER, "langevin heavy ball", "at most", 1.6),
    ("BAOAB: time a step / Euler-Maruyama's", EULER, "langevin BAOAB", "at most", 1.6),
)
TITLES = {
    EULER: "langevin: Euler-Maruyama, float32",
    SINGLE: "langevin with the C library's exp, float32",
    "langevin float64": "langevin: Euler-Maruyama, float64",
    "langevin float64, C library's exp": "langevin with the C library's exp, float64",
    "langevin heavy ball": "langevin: SGD with momentum, float32",
    "langevin BAOAB": "langevin: underdamped BAOAB, float32",
    "plain numba": "numba loop, np.random, math.exp, float64",
    "C kernel": "C kernel by hand, float32",
}

# ----------------------------------------------------------------------------------- contenders


def langevin(kind: str, dtype: str, n: int, steps: int) -> Callable:
    """The whole of simulate(), on one thread."""
    import numba

    import langevin as lv

    surface = lv.Surface(MUELLER_BROWN, noise=lv.Isotropic(100.0))
    dynamics = {
        "euler": lv.Overdamped(TEMPERATURE, DT),
        "heavy ball": lv.SGD(1e-5, 1, momentum=0.9),
        "BAOAB": lv.Underdamped(TEMPERATURE, friction=1.0, dt=1e-3),
    }[kind]
    options = {"n_replicas": n, "n_steps": steps, "start": START, "dtype": dtype}

    def run() -> None:
        numba.set_num_threads(1)
        lv.simulate(surface, dynamics, progress=False, **options)

    return run


def with_library_exp(dtype: str, n: int, steps: int) -> Callable:
    """The same kernel, but for the text of one function."""
    from langevin.engines import cpu

    ours = re.compile(r"def exp\(x\):\n(?:    .*\n|\n)+?(?=\n\ndef )")
    written = getattr(cpu.kernel_source, "written", cpu.kernel_source)

    def replaced(*arguments):
        text, count = ours.subn("def exp(x):\n    return real(math.exp(x))\n", written(*arguments))
        assert count == 1
        return text

    replaced.written = written
    cpu.kernel_source = replaced
    return langevin("euler", dtype, n, steps)


def slope(x, y):
    """The gradient, term by term."""
    gx = gy = 0.0
    for height, a, b, c, u, v in (
        (-200.0, -1.0, 0.0, -10.0, 1.0, 0.0),
        (-100.0, -1.0, 0.0, -10.0, 0.0, 0.5),
        (-170.0, -6.5, 11.0, -6.5, -0.5, 1.5),
        (15.0, 0.7, 0.6, 0.7, -1.0, 1.0),
    ):
        p, q = x - u, y - v
        e = height * math.exp(a * p * p + b * p * q + c * q * q)
        gx += e * (2 * a * p + b * q)
        gy += e * (b * p + 2 * c * q)
    return gx, gy


def plain_numba(n: int, steps: int) -> Callable:
    """Scalar loops, np.random and math.exp, float64, one thread, with fastmath."""
    import numba

    compiled_slope = numba.njit(fastmath=True)(slope)

    @numba.njit(fastmath=True)
    def integrate(x, y, steps, dt, amplitude):
        for i in range(x.size):
            a, b = x[i], y[i]
            for _ in range(steps):
                ga, gb = compiled_slope(a, b)
                a += amplitude * np.random.standard_normal() - dt * ga  # noqa: NPY002
                b += amplitude * np.random.standard_normal() - dt * gb  # noqa: NPY002
            x[i], y[i] = a, b

    x, y = np.full(n, START[0]), np.full(n, START[1])
    return lambda: integrate(x, y, steps, DT, AMPLITUDE)


def c_kernel(n: int, steps: int) -> Callable:
    """mueller_brown.c, after a check that it follows langevin's trajectories."""
    kernel = _compiled()
    c_kernel.note = _check(kernel)
    x = _start(n)
    return lambda: kernel(x.ctypes.data, n, DT, AMPLITUDE, 5, 7, steps // 4, 0)


def _start(n: int) -> np.ndarray:
    return np.repeat(np.array(START, np.float32)[:, None], n, axis=1)


def _compiled():
    if not shutil.which("cc"):
        raise FileNotFoundError("no C compiler named cc")
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "mueller_brown.so"
        flags = ["-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math"]
        source = Path(__file__).with_name("mueller_brown.c")
        command = ["cc", *flags, "-shared", "-fPIC", str(source), "-o", str(library), "-lm"]
        subprocess.run(command, check=True)
        loaded = ctypes.CDLL(str(library))
    real, word, long = ctypes.c_float, ctypes.c_uint32, ctypes.c_int64
    loaded.run.argtypes = [ctypes.c_void_p, long, real, real, word, word, long, word]
    loaded.run.restype = None
    loaded.run.bits = loaded.vector_bits()
    return loaded.run


def _check(kernel) -> str:
    """Same seed, same counters, 100 steps: the same positions up to float32 rounding."""
    import langevin as lv

    options = {"dtype": "float32", "seed": SEED, "start": START, "progress": False}
    dynamics = lv.Overdamped(TEMPERATURE, DT)
    result = lv.simulate(
        lv.Surface(MUELLER_BROWN), dynamics, n_replicas=4096, n_steps=100, **options
    )
    x = _start(4096)
    kernel(x.ctypes.data, 4096, DT, AMPLITUDE, 5, 7, 25, 0)
    apart = float(np.abs(x.T - result.positions).max())
    if not apart < 1e-5:
        raise AssertionError(f"the C kernel left langevin's trajectories: {apart} after 100 steps")
    how = f"AVX-512, {kernel.bits} bits" if kernel.bits else "vectorised by the compiler"
    return f"{how}; within {apart:.1e} of langevin's positions after 100 steps"


N = (2**14,)
# worker: {contender: (prepare, sizes to choose from)}
CONTENDERS = {
    "langevin": {
        EULER: (partial(langevin, "euler", "float32"), N),
        "langevin heavy ball": (partial(langevin, "heavy ball", "float32"), N),
        "langevin BAOAB": (partial(langevin, "BAOAB", "float32"), N),
        "langevin float64": (partial(langevin, "euler", "float64"), N),
    },
    "library": {
        SINGLE: (partial(with_library_exp, "float32"), N),
        "langevin float64, C library's exp": (partial(with_library_exp, "float64"), N),
    },
    "numba": {"plain numba": (plain_numba, (2**12,))},
    "c": {"C kernel": (c_kernel, N)},
}

# ------------------------------------------------------------------------------- the comparison


def measure(console: Console, *, rounds: int, seconds: float) -> tuple[dict, dict]:
    """Every contender's workload and rates, and why others are missing."""

    def start(library: str) -> harness.Worker:
        return harness.Worker([str(Path(__file__)), "--worker", library])

    return harness.measure(start, CONTENDERS, console, rounds=rounds, seconds=seconds)


def judged(measured: dict) -> list[dict]:
    """The bars, with ratios and verdicts; a ratio is None where a contender is missing."""
    listed = []
    for what, one, other, sense, bar in BARS:
        entry = {"what": what, "sense": sense, "bar": bar, "ratio": None, "met": None}
        if one in measured and other in measured:
            entry["ratio"] = harness.ratio(measured[one], measured[other])
            value = entry["ratio"]["value"]  # of rates, one over the other: of times, reversed
            entry["met"] = value >= bar if sense == "at least" else value <= bar
        listed.append(entry)
    return listed


def show(console: Console, measured: dict, missing: dict, bars: list[dict]) -> None:
    """The tables."""
    table = Table(title="Mueller-Brown, one thread: replica-steps per second")
    for column in ("", "M/s", "min - max", "replicas x steps"):
        table.add_column(column, justify="right" if column else "left")
    for name, entry in sorted(measured.items(), key=lambda item: -item[1]["rate"]["median"]):
        rate = {key: value / 1e6 for key, value in entry["rate"].items()}
        table.add_row(
            TITLES[name],
            f"{rate['median']:.4g}",
            f"{rate['min']:.4g} - {rate['max']:.4g}",
            f"{entry['replicas']:,} x {entry['steps']:,}",
        )
    for name, why in missing.items():
        table.add_row(TITLES[name], "missing", why)
    console.print(table)
    if "C kernel" in measured:
        console.print(f"C kernel: {measured['C kernel']['note']}")
    table = Table(title="Ratios of medians (range over rounds)")
    for column in ("", "ratio", "range", "by processor time", "bar", "verdict"):
        table.add_column(column)
    for entry in bars:
        ratio = entry["ratio"]
        table.add_row(
            entry["what"],
            f"{ratio['value']:.3g}" if ratio else "missing",
            f"{ratio['min']:.3g} - {ratio['max']:.3g}" if ratio else "",
            f"{ratio['processor']:.3g}" if ratio else "",
            f"{entry['sense']} {entry['bar']:g}",
            "" if entry["met"] is None else harness.verdict(entry["met"]),
        )
    console.print(table)


def draw(path: Path, measured: dict, caption: str) -> None:
    """One bar a contender."""
    from matplotlib.figure import Figure

    names = sorted(measured, key=lambda name: measured[name]["rate"]["median"])
    figure = Figure(figsize=(9, 0.42 * len(names) + 1.4), layout="constrained")
    panel = figure.subplots()
    for row, name in enumerate(names):
        rate = {key: value / 1e6 for key, value in measured[name]["rate"].items()}
        color = "#1f6f8b" if name.startswith("langevin") and "exp" not in name else "#b8b8b8"
        color = "#c8553d" if name == "C kernel" else color
        sides = [[rate["median"] - rate["min"]], [rate["max"] - rate["median"]]]
        panel.barh(row, rate["median"], xerr=sides, color=color, height=0.72, ecolor="#333333")
        panel.text(rate["max"] * 1.02 + 2, row, f"{rate['median']:.3g}", va="center")
    panel.set_yticks(range(len(names)), [TITLES[name] for name in names])
    panel.set_xlim(0, 1.12 * max(entry["rate"]["max"] for entry in measured.values()) / 1e6)
    panel.set_xlabel("million replica-steps per second: median, with the range over rounds")
    panel.set_title("Müller-Brown, four exponentials a step, one thread", loc="left")
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(axis="x", alpha=0.3)
    panel.set_axisbelow(True)
    figure.suptitle(caption, fontsize="small", color="#555555")
    figure.savefig(path, dpi=150)


def main() -> None:
    """Measures, prints, writes."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="3 short rounds: does it run at all?")
    parser.add_argument("--output", type=Path, default=harness.RESULTS, help="folder to write to")
    options = parser.parse_args()
    console = harness.console()
    rounds, seconds = (3, 0.1) if options.quick else (15, 0.4)
    measured, missing = measure(console, rounds=rounds, seconds=seconds)
    bars = judged(measured)
    show(console, measured, missing, bars)
    contenders = {TITLES[name]: entry for name, entry in measured.items()}
    record = {"rounds": rounds, "bars": bars, "missing": missing, "contenders": contenders}
    packages = ("numpy", "numba", "llvmlite", "scipy", "sympy")
    path = harness.write(options.output, "transcendentals", record, packages)
    machine = harness.hardware()
    draw(path.with_suffix(".png"), measured, f"{machine['cpu']} ({machine['llvm_name']})")
    console.print(f"wrote {path} and {path.with_suffix('.png').name}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        harness.serve(CONTENDERS[sys.argv[2]])
    else:
        main()
