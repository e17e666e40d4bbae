"""What the benchmarks share: contenders in processes of their own, fair turns, the record.

A worker process hosts the contenders of one library, so that its thread pools, environment and
failures stay its own. It compiles, warms up and chooses a workload when asked to prepare; then the
rounds begin, in which every contender takes one turn, forwards and backwards alternately: what
disturbs the machine disturbs all alike, and ratios of medians survive it.
"""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import json
import os
import platform
import select
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).resolve().parent / "results"
PAUSE = 0.05  # seconds between two turns: lets another library's spinning threads go to sleep
PATIENCE = 600.0  # seconds after which a contender that does not answer is given up


# ------------------------------------------------------------------------------------ the worker


def calibrated(
    prepare: Callable[[int, int], Callable[[], Any]], sizes: Sequence[int], seconds: float
) -> tuple[Callable[[], Any], int, int]:
    """The run, replicas and steps of the fastest of ``sizes``, lasting about ``seconds``."""
    best = None
    for n in sizes:
        steps = 16
        while True:
            run = prepare(n, steps)
            run()  # compiles
            took = _timed(run)[0]
            if took > seconds / 3 or steps >= 2**24:
                break
            steps = int(steps * min(16, max(2, seconds / 2 / took)))
            steps -= steps % 4
        took = min(took, _timed(run)[0])
        if best is None or n * steps / took > best[0]:
            best = (n * steps / took, n)
    rate, n = best
    steps = max(4, int(rate * seconds / n) // 4 * 4)
    run = prepare(n, steps)
    run()
    return run, n, steps


def _timed(run: Callable[[], Any]) -> tuple[float, float]:
    """Wall and processor seconds of one call."""
    busy, began = time.process_time(), time.perf_counter()
    run()
    return time.perf_counter() - began, time.process_time() - busy


def serve(prepares: dict[str, tuple[Callable, Sequence[int]]]) -> None:
    """Answers a parent's requests, one JSON line each, until the input ends."""
    answers = sys.stdout
    sys.stdout = sys.stderr  # a library's prints must not disturb the conversation
    runs = {}
    for line in sys.stdin:
        request = json.loads(line)
        name = request["name"]
        try:
            if request["do"] == "prepare":
                prepare, sizes = prepares[name]
                runs[name], n, steps = calibrated(prepare, sizes, request["seconds"])
                answer = {"replicas": n, "steps": steps, "note": getattr(prepare, "note", "")}
            else:
                answer = dict(zip(("seconds", "busy"), _timed(runs[name]), strict=True))
        except Exception as error:  # a missing or broken peer is reported, never fatal
            answer = {"missing": f"{type(error).__name__}: {error}".split("\n")[0][:200]}
        print(json.dumps(answer), file=answers, flush=True)


# ------------------------------------------------------------------------------------ the parent


class Worker:
    """A process that hosts contenders and runs one of them when asked."""

    def __init__(self, command: Sequence[str], environment: dict[str, str] | None = None):
        self.process = subprocess.Popen(
            [sys.executable, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=child_environment(environment),
        )

    def ask(self, **request: Any) -> dict[str, Any]:
        """The answer to one request; ``{"missing": why}`` if the process is gone, or hangs."""
        try:
            print(json.dumps(request), file=self.process.stdin, flush=True)
            if not select.select([self.process.stdout], [], [], PATIENCE)[0]:
                self.process.kill()
                return {"missing": f"no answer within {PATIENCE:g} seconds"}
            return json.loads(self.process.stdout.readline())
        except (OSError, ValueError):
            return {"missing": f"its process ended with status {self.process.poll()}"}

    def close(self) -> None:
        """Ends the process."""
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()


def child_environment(more: dict[str, str] | None = None) -> dict[str, str]:
    """This environment, with the package that this file belongs to importable."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "JAX_PLATFORMS": "cpu", **(more or {})}


def take_turns(
    workers: dict[str, Worker], rounds: int, show: Callable[[str], None]
) -> tuple[dict, dict]:
    """Seconds (wall, processor) of every contender in every round, and why others gave up."""
    times: dict[str, list] = {name: [] for name in workers}
    failed: dict[str, str] = {}
    for k in range(rounds):
        for name in list(times)[:: 1 if k % 2 == 0 else -1]:
            show(f"round {k + 1} of {rounds}: {name}")
            time.sleep(PAUSE)
            answer = workers[name].ask(do="run", name=name)
            if "missing" in answer:  # what the others measured is not lost
                failed[name] = f"failed after its warm-up: {answer['missing']}"
                del times[name]
                continue
            times[name].append((answer["seconds"], answer["busy"]))
    return times, failed


def measure(
    start: Callable[[str], Worker],
    contenders: dict[str, Iterable[str]],
    console: Console,
    *,
    rounds: int,
    seconds: float,
) -> tuple[dict, dict]:
    """Every contender's workload and rates, and why others are missing; ends the workers.

    ``contenders``: names by library; ``start(library)`` begins its worker, one after the other, so
    that no import disturbs another's warm-up.
    """
    hosts, workers, measured, missing = [], {}, {}, {}
    with console.status("starting") as status:
        try:
            for library, names in contenders.items():
                worker = start(library)
                hosts.append(worker)
                for name in names:
                    status.update(f"warming up {name}")
                    answer = worker.ask(do="prepare", name=name, seconds=seconds)
                    if "missing" in answer:
                        missing[name] = answer["missing"]
                    else:
                        workers[name], measured[name] = worker, answer
            times, failed = take_turns(workers, rounds, status.update)
        finally:
            for worker in hosts:
                worker.close()
    for name, why in failed.items():
        missing[name] = why
        del measured[name]
    for name, taken in times.items():
        entry = measured[name]
        work = entry["replicas"] * entry["steps"]
        entry["rates"] = [work / wall for wall, _ in taken]
        entry["rate"] = spread(entry["rates"])
        entry["processor_rate"] = spread(work / busy for _, busy in taken)
        entry["cores"] = spread(busy / wall for wall, busy in taken)["median"]
    return measured, missing


def spread(values: Iterable[float]) -> dict[str, float]:
    """Median, smallest and largest."""
    values = list(values)
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def ratio(top: dict[str, Any], bottom: dict[str, Any]) -> dict[str, float]:
    """Ratio of two medians of rates, with the smallest and largest ratio in one round.

    ``processor`` is the ratio of rates per second of processor time, which other programs on a
    busy machine disturb less; it means something only between contenders on one thread each.
    """
    each = [a / b for a, b in zip(top["rates"], bottom["rates"], strict=True)]
    return {
        "value": top["rate"]["median"] / bottom["rate"]["median"],
        "min": min(each),
        "max": max(each),
        "processor": top["processor_rate"]["median"] / bottom["processor_rate"]["median"],
    }


# ------------------------------------------------------------------------------------ the record


def hardware() -> dict[str, Any]:
    """The machine, as far as it tells."""
    import llvmlite.binding

    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    fields = dict(
        (part.strip() for part in line.split(":", 1))
        for line in text.split("\n\n")[0].splitlines()
        if ":" in line
    )
    features = llvmlite.binding.get_host_cpu_features()
    known = ("sse4", "avx", "fma", "neon", "sve")
    usable = getattr(os, "sched_getaffinity", None)
    return {
        "cpu": fields.get("model name") or platform.processor() or platform.machine(),
        "llvm_name": llvmlite.binding.get_host_cpu_name(),
        "threads": len(usable(0)) if usable else os.cpu_count(),
        "simd": sorted(name for name, has in features.items() if has and name.startswith(known)),
        "system": platform.platform(),
        "load_average": os.getloadavg() if hasattr(os, "getloadavg") else None,
    }


def versions(*packages: str) -> dict[str, str]:
    """Version of Python, of the C compiler and of each package, or "absent"."""
    found = {"python": platform.python_version(), "cc": "absent"}
    if shutil.which("cc"):
        told = subprocess.run(["cc", "--version"], capture_output=True, text=True, check=False)
        found["cc"] = told.stdout.split("\n")[0]
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "absent"
    if found.get("langevin") == "absent":
        sys.path.insert(0, str(ROOT))
        import langevin

        found["langevin"] = langevin.__version__
    return found


def write(folder: Path, name: str, record: dict[str, Any], packages: Sequence[str]) -> Path:
    """Writes a benchmark's JSON, with hardware, versions and date."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    head = {
        "benchmark": name,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "hardware": hardware(),
        "versions": versions("langevin", *packages),
    }
    path.write_text(json.dumps({**head, **record}, indent=1) + "\n", encoding="utf-8")
    return path


def console() -> Console:
    """A console as wide as the terminal; in a file, wide enough for the tables."""
    plain = Console()
    return plain if plain.is_terminal else Console(width=120)


def verdict(holds: bool) -> str:
    """A bar met or missed, for a table."""
    return "[green]met[/green]" if holds else "[red]missed[/red]"
