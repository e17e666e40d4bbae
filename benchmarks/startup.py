"""How long from a formula never seen before to the first steps, and how long the next time?

Question: a new formula is to be compiled and running within 5 s, and within 1 s in a second
process, which finds the kernel on disk. Measured in fresh processes with an empty kernel cache
(LANGEVIN_CACHE): the interpreter and the libraries that langevin stands on, langevin's own import,
the construction of the Surface, the first simulate() and, for comparison, the next one.

    python benchmarks/startup.py [--quick] [--output DIR]

Writes startup.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import harness
from rich.table import Table

FORMULAS = {
    "1-D double well": ("x**4/4 - a*x**3/3 - x**2/2 + {new}*x", {"a": 0.4}),
    "2-D, exponentials": ("(x**2 - 1)**2 + y**2*(1 + exp(-x**2)/2) + {new}*x", {}),
}
# part: (what it is, in the table)
PARTS = {
    "libraries": "import numpy, numba, sympy",
    "import": "import langevin, beyond those",
    "surface": "Surface(formula)",
    "first": "first simulate()",
    "next": "next simulate()",
}
NEW_BAR, CACHED_BAR = 5.0, 1.0


def child(formula: str, parameters: dict[str, float]) -> None:
    """Prints the seconds of each part as JSON: what a user's script would do."""
    clock = [time.perf_counter()]
    import numba  # noqa: F401
    import numpy  # noqa: F401
    import sympy  # noqa: F401

    clock.append(time.perf_counter())
    import langevin as lv

    clock.append(time.perf_counter())
    surface = lv.Surface(formula, **parameters)
    clock.append(time.perf_counter())
    dynamics = lv.Overdamped(temperature=0.1, dt=0.01)
    for _ in range(2):
        observe = (lv.Histogram(bins=200, every=10), lv.Occupation(every=10))
        options = {"observe": observe, "progress": False}
        lv.simulate(surface, dynamics, n_replicas=1000, n_steps=100, **options)
        clock.append(time.perf_counter())
    gaps = [after - before for before, after in itertools.pairwise(clock)]
    print(json.dumps(dict(zip(PARTS, gaps, strict=True))))


def timed(cache: str, formula: str, parameters: dict[str, float]) -> dict[str, float]:
    """Seconds of each part in a fresh process, and of the whole from outside."""
    command = [sys.executable, __file__, "--child", formula, json.dumps(parameters)]
    environment = harness.child_environment({"LANGEVIN_CACHE": cache})
    began = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    whole = time.perf_counter() - began
    if done.returncode:
        raise RuntimeError(f"the measured process failed:\n{done.stderr[-2000:]}")
    parts = json.loads(done.stdout.splitlines()[-1])
    parts["running"] = parts["surface"] + parts["first"]
    parts["process"] = whole - parts["next"]
    return parts


def measure(repeats: int, status) -> dict[str, dict]:
    """{formula: {"new" or "second process": {part: spread}}}."""
    found = {}
    for k, (name, (template, parameters)) in enumerate(FORMULAS.items()):
        runs: dict[str, list] = {"new": [], "second process": []}
        for repeat in range(repeats):
            status.update(f"{name}: {repeat + 1} of {repeats}")
            formula = template.format(new=f"0.0{1 + repeat + 10 * k}")
            with tempfile.TemporaryDirectory() as cache:
                for which in runs:
                    runs[which].append(timed(cache, formula, parameters))
        found[name] = {
            which: {part: harness.spread(run[part] for run in listed) for part in listed[0]}
            for which, listed in runs.items()
        }
    return found


def main() -> None:
    """Measures, prints, writes."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one repeat")
    parser.add_argument("--output", type=Path, default=harness.RESULTS, help="folder to write to")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child[0], json.loads(options.child[1]))
        return
    console = harness.console()
    with console.status("starting") as status:
        with tempfile.TemporaryDirectory() as cache:  # byte code and file cache of the libraries
            timed(cache, "x**2", {})
        found = measure(1 if options.quick else 5, status)
    bars = {}
    for name, runs in found.items():
        table = Table(title=f"{name}: seconds, median (min - max)")
        for column in ("", "new formula", "second process"):
            table.add_column(column)
        rows = {
            **PARTS,
            "running": "Surface + first simulate()",
            "process": "whole process, interpreter included",
        }
        for part, what in rows.items():
            cells = [
                "{median:.3f} ({min:.3f} - {max:.3f})".format(**runs[which][part]) for which in runs
            ]
            table.add_row(what, *cells, style="bold" if part in ("running", "process") else "")
        console.print(table)
        for part in ("running", "process"):
            new, second = (runs[which][part]["median"] for which in runs)
            bars[f"{name}, {rows[part]}"] = {
                "new": new,
                "new_met": new <= NEW_BAR,
                "second": second,
                "second_met": second <= CACHED_BAR,
            }
    for what, bar in bars.items():
        new, second = harness.verdict(bar["new_met"]), harness.verdict(bar["second_met"])
        console.print(
            f"{what}: new {bar['new']:.2f} s (bar {NEW_BAR:g} s: {new}), "
            f"second process {bar['second']:.2f} s (bar {CACHED_BAR:g} s: {second})"
        )
    record = {"bars": bars, "seconds": found}
    packages = ("numpy", "numba", "llvmlite", "sympy")
    console.print(f"wrote {harness.write(options.output, 'startup', record, packages)}")


if __name__ == "__main__":
    main()
