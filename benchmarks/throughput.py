"""How many replica-steps a second does langevin take, beside what people would use instead?

Question: Euler-Maruyama in a 1-D double well, in float32 and float64, on one thread and on all:
how far from a hand-written SIMD C kernel with the same noise (double_well.c), and how many times
plain numba, JAX, diffrax, torchsde, PyTorch, sdeint and a NumPy loop? What does a 2-D surface
cost, what does Mueller-Brown, and what does a Histogram every 10 steps?

Method: every contender chooses its fastest batch size, compiles and warms up in a process of its
library's own; then all take turns, round after round. A rate is the median over rounds with its
smallest and largest value, a ratio that of two medians. langevin's time is that of the whole
simulate(). A missing peer is reported, not fatal.

    python benchmarks/throughput.py [--quick] [--output DIR]

Writes throughput.json and throughput.png. The peers come with ``pip install langevin[bench]``.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import harness
from contenders import CONTENDERS
from rich.console import Console
from rich.table import Table

PACKAGES = (
    *("numpy", "numba", "llvmlite", "scipy", "sympy"),
    *("jax", "jaxlib", "diffrax", "torch", "torchsde", "sdeint"),
)
WELL = "langevin double well"
F32, F64, F32_ALL = f"{WELL} float32 one", f"{WELL} float64 one", f"{WELL} float32 all"
# (what, contender, compared with, "at least" or "costs at most", bar)
BARS = (
    ("float32, one thread / C kernel", F32, "C kernel", "at least", 0.60),
    ("float32, one thread / numba np.random", F32, "numba np.random", "at least", 8.0),
    (
        "float32, all threads / JAX scan, a replica each (vmap)",
        F32_ALL,
        "JAX vmap",
        "at least",
        15.0,
    ),
    (
        "float32, all threads / JAX scan of 4,096 replicas",
        F32_ALL,
        "JAX scan small",
        "at least",
        15.0,
    ),
    ("float32, all threads / JAX scan, best batch size", F32_ALL, "JAX scan", "at least", 15.0),
    ("float64 / float32, one thread", F64, F32, "at least", 0.40),
    ("Histogram every 10, one thread", F32, f"{F32} histogram", "costs at most", 0.15),
)
ALSO = (
    ("float64, one thread / numba np.random", F64, "numba np.random"),
    ("float32, one thread / numba Generator", F32, "numba Generator"),
    ("float32, all threads / JAX, one device a core", F32_ALL, "JAX devices"),
    ("float32, all threads / torch eager", F32_ALL, "torch eager"),
    ("float32, all threads / diffrax", F32_ALL, "diffrax"),
    ("float32, all threads / torchsde", F32_ALL, "torchsde"),
    ("float32, all threads / one thread", F32_ALL, F32),
    ("Histogram every 10, all threads: time with / without", F32_ALL, f"{F32_ALL} histogram"),
    ("Histogram every 10, float64: time with / without", F64, f"{F64} histogram"),
)
TITLES = {
    "C kernel": "C kernel by hand, float32, one thread",
    "numba np.random": "numba loop, np.random, float64, one thread",
    "numba Generator": "numba loop, Generator, float64, one thread",
    "NumPy float64": "NumPy loop, float64",
    "NumPy float32": "NumPy loop, float32",
    "JAX scan": "JAX scan, best batch size, float32, all threads",
    "JAX scan small": "JAX scan of 4,096 replicas, float32, all threads",
    "JAX vmap": "JAX vmap of a scan, float32, all threads",
    "JAX devices": "JAX scan, tuned: one device a core, unrolled",
    "diffrax": "diffrax Euler, float32",
    "torch eager": "PyTorch loop, float32, all threads",
    "torchsde": "torchsde euler, float32",
    "sdeint": "sdeint itoEuler, float64",
}


def title(name: str) -> str:
    """A contender's name in the table and the figure."""
    if not name.startswith("langevin"):
        return TITLES[name]
    words = name.split()
    histogram = " + Histogram" if words[-1] == "histogram" else ""
    words = words[:-1] if histogram else words
    threads = "one thread" if words[-1] == "one" else "all threads"
    surface = {"double well": "", "plane": "2-D wells, "}.get(
        " ".join(words[1:-2]), "Müller-Brown, "
    )
    return f"langevin: {surface}{words[-2]}, {threads}{histogram}"


def measure(console: Console, *, rounds: int, seconds: float) -> tuple[dict, dict]:
    """Every contender's workload and rates, and why others are missing."""
    import numba

    devices = f"--xla_force_host_platform_device_count={numba.config.NUMBA_NUM_THREADS}"
    environments = {
        "jax_devices": {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {devices}".strip()}
    }
    script = str(Path(__file__).with_name("contenders.py"))

    def start(library: str) -> harness.Worker:
        return harness.Worker([script, library], environments.get(library))

    return harness.measure(start, CONTENDERS, console, rounds=rounds, seconds=seconds)


def judged(measured: dict) -> list[dict]:
    """The bars, with ratios and verdicts; a ratio is None where a contender is missing."""
    listed = []
    for what, one, other, sense, bar in BARS:
        entry = {"what": what, "sense": sense, "bar": bar, "ratio": None, "met": None}
        if one in measured and other in measured:
            entry["ratio"] = harness.ratio(measured[one], measured[other])
            if sense == "costs at most":  # a ratio of rates is one of times: without / with
                entry["ratio"] = {key: value - 1 for key, value in entry["ratio"].items()}
                entry["met"] = entry["ratio"]["value"] <= bar
            else:
                entry["met"] = entry["ratio"]["value"] >= bar
        listed.append(entry)
    return listed


def show(console: Console, measured: dict, missing: dict, bars: list[dict], also: list[dict]):
    """The tables."""
    table = Table(title="Replica-steps per second, double well unless it says otherwise")
    for column, side in (
        ("", "left"),
        ("M/s", "right"),
        ("min - max", "right"),
        ("cores busy", "right"),
        ("replicas x steps", "right"),
        ("of C", "right"),
    ):
        table.add_column(column, justify=side)
    bound = measured.get("C kernel")
    for name, entry in sorted(measured.items(), key=lambda item: -item[1]["rate"]["median"]):
        rate = {key: value / 1e6 for key, value in entry["rate"].items()}
        table.add_row(
            title(name),
            f"{rate['median']:.4g}",
            f"{rate['min']:.4g} - {rate['max']:.4g}",
            f"{entry['cores']:.2f}",
            f"{entry['replicas']:,} x {entry['steps']:,}",
            f"{entry['rate']['median'] / bound['rate']['median']:.2g}" if bound else "",
        )
    for name, why in missing.items():
        table.add_row(title(name), "missing", why)
    console.print(table)
    if bound:
        console.print(f"C kernel: {bound['note']}")
    table = Table(title="Ratios of medians (range over rounds)")
    for column in ("", "ratio", "range", "by processor time", "bar", "verdict"):
        table.add_column(column)
    for entry in [*bars, *also]:
        ratio, bar = entry["ratio"], entry.get("bar")
        percent = entry.get("sense") == "costs at most"
        unit = (lambda x: f"{x:.1%}") if percent else (lambda x: f"{x:.3g}")
        table.add_row(
            entry["what"],
            unit(ratio["value"]) if ratio else "missing",
            f"{unit(ratio['min'])} - {unit(ratio['max'])}" if ratio else "",
            unit(ratio["processor"]) if ratio and "all threads" not in entry["what"] else "",
            f"{entry['sense']} {unit(bar)}" if bar else "",
            "" if entry.get("met") is None else harness.verdict(entry["met"]),
        )
    console.print(table)


def draw(path: Path, measured: dict, caption: str) -> None:
    """Two panels of bars: the double well with all contenders, langevin on other surfaces."""
    from matplotlib.figure import Figure

    elsewhere = [name for name in measured if "plane" in name or "Mueller" in name]
    well = [name for name in measured if name not in elsewhere]
    figure = Figure(figsize=(9, 0.36 * len(measured) + 1.8), layout="constrained")
    panels = figure.subplots(
        2, 1, sharex=True, height_ratios=(len(well) + 0.5, max(len(elsewhere), 1) + 0.5)
    )
    for panel, names, heading in zip(
        panels,
        (well, elsewhere),
        ("1-D double well", "langevin on other surfaces"),
        strict=True,
    ):
        names = sorted(names, key=lambda name: measured[name]["rate"]["median"])
        for row, name in enumerate(names):
            rate = measured[name]["rate"]
            color = "#1f6f8b" if name.startswith("langevin") else "#b8b8b8"
            color = "#c8553d" if name == "C kernel" else color
            sides = [[rate["median"] - rate["min"]], [rate["max"] - rate["median"]]]
            bar = {"color": color, "height": 0.72, "ecolor": "#333333"}
            panel.barh(row, rate["median"], xerr=sides, error_kw={"elinewidth": 1}, **bar)
            panel.text(rate["max"] * 1.08, row, f"{rate['median'] / 1e6:.3g} M/s", va="center")
        panel.set_yticks(
            range(len(names)),
            [
                title(name).removeprefix("langevin: ") if panel is panels[1] else title(name)
                for name in names
            ],
        )
        panel.set_ylim(-0.6, len(names) - 0.4)
        panel.set_title(heading, loc="left", fontweight="bold")
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(axis="x", alpha=0.3)
        panel.set_axisbelow(True)
    fastest = max(entry["rate"]["max"] for entry in measured.values())
    slowest = min(entry["rate"]["min"] for entry in measured.values())
    panels[1].set_xscale("log")
    panels[1].set_xlim(slowest / 2, fastest * 4)
    panels[1].set_xlabel("replica-steps per second: median, with the range over rounds")
    figure.suptitle(caption, fontsize="small", color="#555555")
    figure.savefig(path, dpi=150)


def main() -> None:
    """Measures, prints, writes."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="3 short rounds: does it run at all?")
    parser.add_argument("--output", type=Path, default=harness.RESULTS, help="folder to write to")
    options = parser.parse_args()
    console = harness.console()
    rounds, seconds = (3, 0.1) if options.quick else (11, 0.5)
    measured, missing = measure(console, rounds=rounds, seconds=seconds)
    bars = judged(measured)
    also = [
        {"what": what, "ratio": harness.ratio(measured[one], measured[other])}
        for what, one, other in ALSO
        if one in measured and other in measured
    ]
    show(console, measured, missing, bars, also)
    record = {
        "rounds": rounds,
        "bars": bars,
        "other_ratios": also,
        "missing": missing,
        "contenders": {title(name): entry for name, entry in measured.items()},
    }
    path = harness.write(options.output, "throughput", record, PACKAGES)
    machine = harness.hardware()
    caption = f"{machine['cpu']} ({machine['llvm_name']}), {machine['threads']} threads"
    draw(path.with_suffix(".png"), measured, caption)
    console.print(f"wrote {path} and {path.with_suffix('.png').name}")


if __name__ == "__main__":
    main()
