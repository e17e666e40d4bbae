"""Do memory and time stay in hand for large ensembles?

Question: 10**7 replicas x 1,000 steps in float32, with Histogram and Occupation at every step of
the 1-D double well: is the peak memory of a fresh process under 1 GiB? And is the time linear in
the replicas and in the steps, over two decades of each: is the slope of log(time) against
log(size) within 10 % of 1?

Method: the large run in a process of its own, which reports its peak resident memory; the others
in one more process, after compilation, interleaved over several rounds; one slope a round, of
which the mean and its standard error are given.

    python benchmarks/scaling.py [--quick] [--output DIR]

Writes scaling.json and scaling.png.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import harness
import numpy as np
from rich.table import Table

GIB = 2**30
REPLICAS = (100_000, 316_160, 1_000_000, 3_162_240, 10_000_000)
STEPS = (200, 632, 2_000, 6_324, 20_000)
FIXED_REPLICAS, FIXED_STEPS = 100_032, 200


def experiment(n_replicas: int, n_steps: int) -> float:
    """Seconds of one simulate()."""
    import langevin as lv

    surface = lv.Surface("x**4/4 - a*x**3/3 - x**2/2", a=0.4)
    surface.basins(), surface.bounds(0.1)
    began = time.perf_counter()
    lv.simulate(
        surface,
        lv.Overdamped(temperature=0.1, dt=0.05),
        n_replicas=n_replicas,
        n_steps=n_steps,
        dtype="float32",
        observe=(lv.Histogram(bins=200), lv.Occupation()),
        progress=False,
    )
    return time.perf_counter() - began


def peak_memory() -> int:
    """Bytes of the largest resident set of this process; Linux counts KiB, macOS bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def child(task: str, text: str) -> None:
    """What the measured processes do; prints JSON."""
    request = json.loads(text)
    if task == "memory":
        import langevin  # noqa: F401

        before = peak_memory()
        experiment(1_000, 8)  # compiles
        seconds = experiment(*request)
        print(json.dumps({"seconds": seconds, "before": before, "peak": peak_memory()}))
        return
    experiment(1_000, 8)  # compiles
    rounds = []
    for _ in range(request["rounds"]):
        rounds.append([experiment(n, steps) for n, steps in request["sizes"]])
    print(json.dumps(rounds))


def asked(task: str, request) -> dict | list:
    """The answer of a fresh process."""
    command = [sys.executable, __file__, "--child", task, json.dumps(request)]
    environment = harness.child_environment()
    done = subprocess.run(
        command,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"the measured process failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def line(sizes: list[float], rounds: list[list[float]]) -> dict:
    """Slope of log(time) against log(size): one a round, their mean and its standard error."""
    logs = np.log(sizes)
    slopes = [float(np.polyfit(logs, np.log(times), 1)[0]) for times in rounds]
    mean = float(np.mean(slopes))
    error = float(np.std(slopes, ddof=1) / math.sqrt(len(slopes))) if len(slopes) > 1 else None
    return {
        "sizes": [float(size) for size in sizes],
        "seconds": [harness.spread(times) for times in zip(*rounds, strict=True)],
        "slopes": slopes,
        "slope": mean,
        "stderr": error,
        "met": abs(mean - 1) <= 0.1,
    }


def draw(path: Path, lines: dict[str, dict]) -> None:
    """Time against replicas and against steps, with a line of slope 1."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    for panel, (name, fit) in zip(figure.subplots(1, 2, sharey=True), lines.items(), strict=True):
        size = np.array(fit["sizes"])
        median = np.array([time["median"] for time in fit["seconds"]])
        sides = [
            median - [time["min"] for time in fit["seconds"]],
            [time["max"] for time in fit["seconds"]] - median,
        ]
        scale = np.exp(np.mean(np.log(median / size)))
        panel.plot(size, scale * size, color="#b8b8b8", label="slope 1")
        error = f" ± {fit['stderr']:.3f}" if fit["stderr"] is not None else ""
        label = f"measured: slope {fit['slope']:.3f}{error}"
        panel.errorbar(size, median, sides, fmt="o", color="#1f6f8b", capsize=3, label=label)
        panel.set(xscale="log", yscale="log", xlabel=name)
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
        panel.legend(frameon=False, loc="upper left")
    figure.axes[0].set_ylabel("seconds: median and range")
    figure.savefig(path, dpi=150)


def main() -> None:
    """Measures, prints, writes."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--quick", action="store_true", help="one decade, two rounds, 10^6 replicas"
    )
    parser.add_argument("--output", type=Path, default=harness.RESULTS, help="folder to write to")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(*options.child)
        return
    console = harness.console()
    replicas, steps, rounds = (
        (REPLICAS[:3], STEPS[:3], 2) if options.quick else (REPLICAS, STEPS, 3)
    )
    big = [replicas[-1], 1_000]
    with console.status(f"{big[0]:,} replicas x {big[1]:,} steps"):
        memory = asked("memory", big)
    memory |= {"replicas": big[0], "steps": big[1], "met": memory["peak"] < GIB}
    sizes = [(n, FIXED_STEPS) for n in replicas] + [(FIXED_REPLICAS, n) for n in steps]
    with console.status("time against replicas and steps"):
        times = asked("time", {"sizes": sizes, "rounds": rounds})
    lines = {
        f"replicas ({FIXED_STEPS} steps)": line(replicas, [t[: len(replicas)] for t in times]),
        f"steps ({FIXED_REPLICAS:,} replicas)": line(steps, [t[len(replicas) :] for t in times]),
    }
    table = Table(title="1-D double well, float32, Histogram and Occupation at every step")
    for column in ("", "measured", "bar", "verdict"):
        table.add_column(column)
    table.add_row(
        f"peak memory, {big[0]:,} replicas x {big[1]:,} steps",
        f"{memory['peak'] / GIB:.3f} GiB ({memory['before'] / GIB:.3f} after the import)",
        "< 1 GiB",
        harness.verdict(memory["met"]),
    )
    rate = big[0] * big[1] / memory["seconds"]
    table.add_row("its time", f"{memory['seconds']:.1f} s, {rate:.3g} replica-steps/s", "", "")
    for name, fit in lines.items():
        error = f" ± {fit['stderr']:.3f}" if fit["stderr"] is not None else ""
        measured = (
            f"{fit['slope']:.3f}{error} ({min(fit['slopes']):.3f} - {max(fit['slopes']):.3f})"
        )
        table.add_row(f"slope in {name}", measured, "0.9 - 1.1", harness.verdict(fit["met"]))
    console.print(table)
    record = {"memory": memory, "linearity": lines, "cores": os.cpu_count()}
    path = harness.write(options.output, "scaling", record, ("numpy", "numba", "llvmlite"))
    draw(path.with_suffix(".png"), lines)
    console.print(f"wrote {path} and {path.with_suffix('.png').name}")


if __name__ == "__main__":
    main()
