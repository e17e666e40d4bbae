"""How many replica-steps a second does langevin take on a GPU, and how many can the card take?

Question: SGD in a 1-D double well, in float32 and float64, with and without observers; how many
times JAX (a scan over a batch, and vmap over replicas), diffrax, PyTorch (compiled, and in a CUDA
graph), a CuPy loop and an Euler kernel fed by cuRAND, on the same card in the same run? How near is
it to the card's own bound: the instructions of the step loop, over what the card can issue?

Method: as throughput.py. Every contender chooses 10^6 or 10^7 replicas, compiles and warms up in a
process of its library's own; then all take turns, round after round. A rate is the median over
rounds with its smallest and largest value. langevin's time is that of the whole simulate(). A
missing peer is reported, not fatal; without a GPU there is nothing to measure, and nothing is
written.

    python benchmarks/gpu.py [--quick | --rounds N --seconds S] [--output DIR]
    python benchmarks/gpu.py --tests [--output DIR]
    python benchmarks/gpu.py --count [--output DIR]

Writes <card>-throughput.json, such as h200-throughput.json; --rounds 5 --seconds 1 takes half as
long. The peers come with ``pip install langevin[bench] cupy-cuda13x nvidia-curand "jax[cuda13]"``.
``--tests`` runs ``pytest -m gpu`` instead and writes what passed to <card>-tests.json. ``--count``
needs no GPU: it assembles the kernels, counts the instructions of their loops, and writes
gpu-instructions.json.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from xml.etree import ElementTree

import assembly
import harness
from gpu_contenders import CONTENDERS, problem
from rich.console import Console
from rich.table import Table

PACKAGES = (
    *("numpy", "numba", "numba-cuda", "nvidia-nvjitlink", "nvidia-nvvm", "nvidia-cuda-nvdisasm"),
    *("cupy-cuda13x", "jax", "jaxlib", "diffrax", "torch"),
)
STEPS = 4  # of one pass of the loop
# An H200, as its data sheet and the CUDA programming guide (throughput of arithmetic, capability
# 9.0) have it: results a cycle and multiprocessor.
H200 = {"name": "NVIDIA H200", "multiprocessors": 132, "clock": 1.98e9}
ISSUE = {"issue": 4 * 32}
UNITS = {
    "special functions": (16, ("MUFU",)),
    "float64": (64, ("DADD", "DMUL", "DFMA", "DSETP", "DMNMX")),
    "whole products": (64, ("IMAD",)),
    "logic and whole sums": (
        64,
        *[("LOP3", "IADD3", "ISETP", "SEL", "FSEL", "FSETP", "SHF", "I2F", "VIADD", "IMNMX")],
    ),
}
KERNELS = [
    (name, dtype)
    for name in ("double well", "heavy ball", "BAOAB", "Mueller-Brown")
    for dtype in ("float32", "float64")
]
WELL = "langevin double well float32"
# (what, contender, compared with, "at least" or "costs at most", bar)
BARS = (
    ("float32 / JAX scan, best batch size", WELL, "JAX scan float32", "at least", 25.0),
    ("float32 / JAX vmap", WELL, "JAX vmap float32", "at least", 25.0),
    ("Histogram every 10", WELL, f"{WELL} Histogram", "costs at most", 0.20),
    ("Moments every 10", WELL, f"{WELL} Moments", "costs at most", None),
    ("Occupation every 10", WELL, f"{WELL} Occupation", "costs at most", None),
    ("float32 / diffrax", WELL, "diffrax float32", "at least", None),
    ("float32 / torch.compile", WELL, "torch.compile float32", "at least", None),
    ("float32 / torch CUDA graph", WELL, "torch CUDA graph float32", "at least", None),
    ("float32 / CuPy loop", WELL, "CuPy loop float32", "at least", None),
    ("float32 / cuRAND + one kernel", WELL, "cuRAND + one kernel float32", "at least", None),
    ("float64 / float32", "langevin double well float64", WELL, "at least", None),
)
FLOOR = 4e11  # float32 double-well steps a second


# ------------------------------------------------------------------------------------ the bound


def counted(name: str, dtype: str) -> dict:
    """Instructions of a pass, registers, and what bounds the steps a second of the card."""
    from langevin.engines import cuda

    surface, dynamics, _ = problem(name)
    ptx = cuda.ptx(surface, dynamics, (), dtype=dtype)
    code = assembly.assembled(ptx)
    loop = assembly.step_loop(ptx, code)
    warps = resident(code.registers)
    cycles = {"issue": loop.slots / ISSUE["issue"]}
    if loop.source == "SASS":
        cycles |= {unit: loop.count(*names) / rate for unit, (rate, names) in UNITS.items()}
    else:
        cycles["special functions"] = loop.special / UNITS["special functions"][0]
    slowest = max(cycles, key=cycles.get)
    return {
        "counted_in": loop.source,
        "assembled_by": code.by,
        "instructions": loop.slots,
        "instructions_per_step": loop.slots / STEPS,
        "special_functions": loop.special,
        "registers": code.registers,
        "local_memory": code.local_memory,
        "resident_warps": warps,
        "occupancy": warps / 64,
        "cycles": cycles,  # of a multiprocessor, for a thread's four steps
        "bound_by": slowest,
        "cycles_per_step": cycles[slowest] / STEPS,
    }


def watched() -> dict:
    """What a histogram every 10 steps costs the double well in float32, in instructions.

    A look is what the loop from look to look has besides the loop over groups of steps.
    """
    import langevin as lv
    from langevin.engines import cuda

    surface, dynamics, _ = problem("double well")
    found = {"every": 10, "dtype": "float32"}
    for name, observe in (("plain", ()), ("histogram", (lv.Histogram(every=10),))):
        ptx = cuda.ptx(surface, dynamics, observe, dtype="float32")
        code = assembly.assembled(ptx)
        loops = assembly.step_loops(ptx, code)
        look = loops[1].slots - loops[0].slots if observe else 0
        found[name] = {
            "counted_in": loops[0].source,
            "instructions": loops[0].slots,
            "look": look,
            "per_10_steps": loops[0].slots * 10 / STEPS + look,
            "registers": code.registers,
            "local_memory": code.local_memory,
        }
    found["cost"] = found["histogram"]["per_10_steps"] / found["plain"]["per_10_steps"] - 1
    return found


def resident(registers: int, threads: int = 256) -> int:
    """Warps of a multiprocessor of 65,536 registers, given out by eights, in whole blocks."""
    each = -(-registers // 8) * 8
    blocks = 65536 // (each * threads)
    return min(64, blocks * threads // 32)


def bound(entry: dict, card: dict) -> float:
    """Steps a second of a card whose slowest unit never waits."""
    return card["multiprocessors"] * card["clock"] / entry["cycles_per_step"]


def count(console: Console, card: dict) -> dict:
    """The table of all kernels."""
    table = Table(title=f"The loop over four steps, and what bounds it on {card['name']}")
    for column in ("", "instructions", "a step", "registers", "warps", "bounded by", "steps/s"):
        table.add_column(column, justify="left" if column in ("", "bounded by") else "right")
    found = {}
    for name, dtype in KERNELS:
        key = f"{name} {dtype}"
        with console.status(f"assembling {key}"):
            entry = found[key] = counted(name, dtype)
        entry["bound"] = bound(entry, card)
        table.add_row(
            key,
            f"{entry['instructions']:.4g}",
            f"{entry['instructions_per_step']:.4g}",
            str(entry["registers"]) + (" + memory" if entry["local_memory"] else ""),
            f"{entry['resident_warps']} of 64",
            entry["bound_by"],
            f"{entry['bound']:.3g}",
        )
    console.print(table)
    how = next(iter(found.values()))
    if how["counted_in"] == "PTX":
        console.print(
            "Estimated from PTX, within about a tenth: nvidia-cuda-nvdisasm reads the code itself."
        )
    clock = card["clock"] / 1e9
    console.print(
        f"{card['multiprocessors']} multiprocessors at {clock:.3g} GHz, which issue 4 instructions "
        "of 32 threads a cycle; assembled by " + how["assembled_by"] + "."
    )
    return found


# ------------------------------------------------------------------------------------ measuring


def card() -> dict:
    """The GPU of this machine: name, multiprocessors, clock, memory, driver."""
    import cupy

    asked = "name,driver_version,clocks.max.sm,clocks.sm,power.limit,memory.total"
    told = {}
    if shutil.which("nvidia-smi"):
        command = ["nvidia-smi", "-i", "0", f"--query-gpu={asked}", "--format=csv,noheader,nounits"]
        answer = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        if answer.count(",") >= asked.count(","):
            values = [value.strip() for value in answer.splitlines()[0].split(",")]
            told = dict(zip(asked.split(","), values, strict=True))
    properties = cupy.cuda.runtime.getDeviceProperties(0)
    name = properties["name"].decode()
    clock = told.get("clocks.max.sm", "")
    known = clock.replace(".", "").isdigit()
    return {
        "name": name,
        "multiprocessors": properties["multiProcessorCount"],
        "clock": float(clock) * 1e6 if known else H200["clock"],
        "clock_from": "nvidia-smi, clocks.max.sm" if known else "an H200's data sheet",
        "memory": properties["totalGlobalMem"],
        "cuda_driver": cupy.cuda.runtime.driverGetVersion(),
        "cuda_runtime": cupy.cuda.runtime.runtimeGetVersion(),
        "nvidia_smi": told,
    }


def measure(console: Console, *, rounds: int, seconds: float) -> tuple[dict, dict]:
    """Every contender's workload and rates, and why others are missing."""
    script = str(Path(__file__).with_name("gpu_contenders.py"))
    # Several libraries share the card: none may take its whole memory at once.
    more = {"JAX_PLATFORMS": "", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}

    def start(library: str) -> harness.Worker:
        return harness.Worker([script, library], more)

    return harness.measure(start, CONTENDERS, console, rounds=rounds, seconds=seconds)


def largest(console: Console, steps: int) -> dict:
    """10^8 replicas in a process of their own: seconds and peak memory, or why not."""
    script = str(Path(__file__).with_name("gpu_contenders.py"))
    with console.status("10^8 replicas"):
        told = subprocess.run(
            [sys.executable, script, "memory", str(steps)],
            capture_output=True,
            text=True,
            env=harness.child_environment(),
            check=False,
        )
    if told.returncode:
        last = told.stderr.strip().splitlines()[-1:] or [f"ended with status {told.returncode}"]
        return {"missing": last[0][:200]}
    return json.loads(told.stdout.splitlines()[-1])


def tested(command: list[str] | None = None) -> dict:
    """What ``pytest -m gpu`` says: how many tests passed, and which failed or were skipped."""
    options = ["-m", "gpu", "-n0", "-p", "no:cacheprovider", "tests/test_gpu.py"]
    command = command or [sys.executable, "-m", "pytest", *options]
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tests.xml"
        environment = harness.child_environment()
        subprocess.run(
            [*command, f"--junitxml={path}"], cwd=harness.ROOT, env=environment, check=False
        )
        cases = ElementTree.parse(path).getroot().iter("testcase")
        found = {"passed": {}, "failed": {}, "error": {}, "skipped": {}}
        for case in cases:
            what = {"failure": "failed"}
            ends = [what.get(child.tag, child.tag) for child in case]
            outcome = next((end for end in ends if end in found), "passed")
            found[outcome][case.get("name")] = float(case.get("time"))
    counts = {outcome: len(tests) for outcome, tests in found.items()}
    return {"counts": counts, "elapsed": time.perf_counter() - began, "tests": found}


def judged(measured: dict, counts: dict, device: dict, large: dict) -> list[dict]:
    """The bars, with ratios and verdicts; a ratio is None where a contender is missing."""
    listed = []
    for what, one, other, sense, bar in BARS:
        entry = {"what": what, "sense": sense, "bar": bar, "ratio": None, "met": None}
        if one in measured and other in measured:
            ratio = harness.ratio(measured[one], measured[other])
            ratio.pop("processor")  # the host only waits
            if sense == "costs at most":  # a ratio of rates is one of times: without / with
                ratio = {key: value - 1 for key, value in ratio.items()}
            entry["ratio"] = ratio
            if bar is not None:
                small = sense == "costs at most"
                entry["met"] = ratio["value"] <= bar if small else ratio["value"] >= bar
        listed.append(entry)
    if WELL in measured:
        rates = measured[WELL]["rate"]
        rate = {"value": rates["median"], "min": rates["min"], "max": rates["max"]}
        whole = bound(counts["double well float32"], device)
        share = {key: value / whole for key, value in rate.items()}
        listed.append(told("float32 / the card's bound", ratio=share))
        listed.append(told("float32, steps/s", rate, FLOOR, rate["value"] >= FLOOR))
    listed.append(told("10^8 replicas fit", met="missing" not in large))
    return listed


def told(what: str, ratio: dict | None = None, bar: float | None = None, met=None) -> dict:
    """A line of the table of ratios."""
    return {"what": what, "sense": "at least", "bar": bar, "ratio": ratio, "met": met}


def show(console: Console, measured: dict, missing: dict, bars: list[dict], large: dict) -> None:
    """The tables."""
    table = Table(title="Replica-steps per second")
    for column in ("", "10^9/s", "min - max", "replicas x steps"):
        table.add_column(column, justify="left" if column == "" else "right")
    for name, entry in sorted(measured.items(), key=lambda item: -item[1]["rate"]["median"]):
        rate = {key: value / 1e9 for key, value in entry["rate"].items()}
        table.add_row(
            name,
            f"{rate['median']:.4g}",
            f"{rate['min']:.4g} - {rate['max']:.4g}",
            f"{entry['replicas']:,} x {entry['steps']:,}",
        )
    for name, why in missing.items():
        table.add_row(name, "missing", why)
    console.print(table)
    table = Table(title="Ratios of medians (range over rounds)")
    for column in ("", "ratio", "range", "bar", "verdict"):
        table.add_column(column)
    for entry in bars:
        ratio, bar = entry["ratio"], entry["bar"]
        unit = "{:.1%}".format if entry["sense"] == "costs at most" else "{:.3g}".format
        table.add_row(
            entry["what"],
            unit(ratio["value"]) if ratio else "",
            f"{unit(ratio['min'])} - {unit(ratio['max'])}" if ratio else "",
            f"{entry['sense']} {unit(bar)}" if bar else "",
            "" if entry["met"] is None else harness.verdict(entry["met"]),
        )
    console.print(table)
    if "missing" in large:
        console.print(f"10^8 replicas: {large['missing']}")
    else:
        console.print(
            f"10^8 replicas, {large['steps']:,} steps, Histogram every 10: {large['seconds']:.2f} "
            f"s, {large['peak_bytes'] / 2**30:.2f} GiB of the card's memory at most."
        )


def main() -> None:
    """Measures, or counts."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="3 short rounds: does it run at all?")
    parser.add_argument("--count", action="store_true", help="count instructions; needs no GPU")
    parser.add_argument("--rounds", type=int, default=7, help="turns of every contender")
    parser.add_argument("--seconds", type=float, default=2.0, help="of a turn, about")
    parser.add_argument("--tests", action="store_true", help="run and record pytest -m gpu")
    parser.add_argument("--output", type=Path, default=harness.RESULTS, help="folder to write to")
    options = parser.parse_args()
    sys.path.insert(0, str(harness.ROOT))
    from langevin.devices import why_no_gpu

    console = harness.console()
    if assembly.why_not():
        raise SystemExit(f"Nothing can be counted here: {assembly.why_not()}.")
    if options.count:
        record = {"card": H200, "kernels": count(console, H200), "histogram": watched()}
        console.print(f"A histogram every 10 steps: {record['histogram']['cost']:.1%} more.")
        path = harness.write(options.output, "gpu-instructions", record, PACKAGES)
        console.print(f"wrote {path}")
        return
    if missing_gpu := why_no_gpu():
        raise SystemExit(
            f"There is nothing to measure here: {missing_gpu} On a machine with a GPU, the same "
            "command measures; --count counts instructions without one."
        )
    device = card()
    short = device["name"].removeprefix("NVIDIA ").split()[0].lower()
    if options.tests:
        record = {"card": device, **tested()}
        path = harness.write(options.output, f"{short}-tests", record, PACKAGES)
        console.print(f"wrote {path}")
        raise SystemExit(0 if record["counts"]["passed"] == sum(record["counts"].values()) else 1)
    counts = count(console, device)
    rounds, seconds = (3, 0.3) if options.quick else (options.rounds, options.seconds)
    measured, missing = measure(console, rounds=rounds, seconds=seconds)
    large = largest(console, 1_000 if options.quick else 10_000)
    bars = judged(measured, counts, device, large)
    show(console, measured, missing, bars, large)
    record = {
        "card": device,
        "rounds": rounds,
        "seconds": seconds,
        "bars": bars,
        "missing": missing,
        "contenders": measured,
        "largest": large,
        "kernels": counts,
    }
    path = harness.write(options.output, f"{short}-throughput", record, PACKAGES)
    console.print(f"wrote {path}")


if __name__ == "__main__":
    main()
