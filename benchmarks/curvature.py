"""Is the top eigenvalue and the trace of a Hessian found as fast as by PyHessian and curvlinops?

Question: 784-800-10 on 1,000 images, float32, all data: how long until the top eigenvalue is within
1e-4 (relative) of the converged one, and how long for 32 Hutchinson probes of the trace, which have
the same standard error whoever takes them? Beside them, langevin's default trace, which is exact
for such a network, and Hutch++.

Method: every contender is told the loosest of its own tolerances that reaches the accuracy, which
is checked each time. PyHessian: its power iteration, one batch of all data, as its tutorial does.
curvlinops alone: SciPy's eigsh on its HessianLinearOperator, and its hutchinson_trace. langevin:
top_eigenvalues and hessian_trace. All on one thread, in one process, in turns, forwards and
backwards alternately; medians over rounds with smallest and largest value, ratios of medians.
Images are random numbers: speed does not depend on them. The network is trained a little (40 steps
of SGD), so that its top eigenvalues are as far apart as in use.

    python benchmarks/curvature.py [--quick] [--output DIR]

Writes curvature.json. Needs PyHessian and curvlinops-for-pytorch; what is missing is said.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import harness
import torch
from rich.console import Console
from rich.table import Table

ACCURACY, PROBES = 1e-4, 32
TOLERANCES = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)


def problem():
    """A trained network and its data, float32."""
    import langevin as lv
    from langevin import neural

    generator = torch.Generator().manual_seed(0)
    X = torch.rand(1000, 784, generator=generator)
    X = X / X.norm(dim=1, keepdim=True)
    y = torch.randint(10, (1000,), generator=generator)
    torch.manual_seed(0)
    surface = neural.NeuralSurface(neural.models.smith_le(), (X, y))
    result = lv.simulate(
        surface, lv.SGD(0.1, 30, momentum=0.9), n_replicas=1, n_steps=40, seed=1,
        start="module", dtype="float32", progress=False,
    )  # fmt: skip
    surface.module = result.module(0)
    return surface


def langevin_contender(surface):
    """top_eigenvalues and hessian_trace."""
    from langevin import neural

    return {
        "eigenvalue": lambda tolerance: float(
            neural.top_eigenvalues(surface, 1, tolerance=tolerance).values[0]
        ),
        "trace": lambda: neural.hessian_trace(surface, probes=PROBES, method="hutchinson").value,
    }


def pyhessian_contender(surface):
    """Its class, built anew each time: the gradient's graph is part of the price."""
    from pyhessian import hessian

    def fresh():
        loss, pair = torch.nn.CrossEntropyLoss(), (surface.X, surface.y)
        return hessian(surface.module, loss, data=pair, cuda=False)

    return {
        "eigenvalue": lambda tolerance: float(
            fresh().eigenvalues(maxIter=1000, tol=tolerance)[0][0]
        ),
        "trace": lambda: float(statistics.fmean(fresh().trace(maxIter=PROBES, tol=0.0))),
    }


def curvlinops_contender(surface):
    """Its operator with SciPy's Lanczos, and its Hutchinson estimator."""
    from curvlinops import HessianLinearOperator, hutchinson_trace
    from scipy.sparse.linalg import eigsh

    def fresh():
        return HessianLinearOperator(
            surface.module, torch.nn.CrossEntropyLoss(),
            list(surface.module.parameters()),
            [(surface.X, surface.y)], check_deterministic=False,
        )  # fmt: skip

    def eigenvalue(tolerance):
        operator = fresh().to_scipy()
        return float(eigsh(operator, k=1, which="LA", tol=tolerance)[0][0])

    return {"eigenvalue": eigenvalue, "trace": lambda: float(hutchinson_trace(fresh(), PROBES))}


CONTENDERS = {
    "langevin": langevin_contender,
    "PyHessian": pyhessian_contender,
    "curvlinops": curvlinops_contender,
}


def loosest(run, truth: float) -> float:
    """The first of the tolerances whose eigenvalue is as accurate as wanted."""
    for tolerance in TOLERANCES:
        if abs(run(tolerance) / truth - 1) <= ACCURACY:
            return tolerance
    raise ValueError(f"not within {ACCURACY:g} at any tolerance")


def measure(console: Console, rounds: int) -> tuple[dict, dict, float]:
    """Seconds of every contender and task, what is missing, and the eigenvalue."""
    from langevin import neural

    surface = problem()
    truth = float(neural.top_eigenvalues(surface, 1, dtype="float64", tolerance=1e-7).values[0])
    ready, missing = {}, {}
    for name, build in CONTENDERS.items():
        try:
            runs = build(surface)
            tolerance = loosest(runs["eigenvalue"], truth)
            runs["trace"]()
        except Exception as error:  # a missing or broken peer is reported, never fatal
            missing[name] = f"{type(error).__name__}: {error}".split("\n")[0][:200]
            continue
        eigenvalue = runs["eigenvalue"]
        ready[name, "eigenvalue"] = lambda f=eigenvalue, t=tolerance: f(t), tolerance
        ready[name, "trace"] = runs["trace"], None
    if ("langevin", "trace") in ready:
        ready["langevin, exact", "trace"] = (lambda: neural.hessian_trace(surface).value), None
        ready["langevin, Hutch++", "trace"] = (
            (lambda: neural.hessian_trace(surface, probes=3 * PROBES).value),
            None,
        )
    found: dict = {key: {"seconds": [], "values": []} for key in ready}
    turns = list(ready)
    for number in range(rounds):
        for key in turns if number % 2 == 0 else reversed(turns):
            began = time.perf_counter()
            value = ready[key][0]()
            found[key]["seconds"].append(time.perf_counter() - began)
            found[key]["values"].append(value)
            time.sleep(harness.PAUSE)
        console.print(f"round {number + 1} of {rounds}", highlight=False)
    for key, entry in found.items():
        entry["tolerance"] = ready[key][1]
        if key[1] == "eigenvalue":
            entry["error"] = max(abs(v / truth - 1) for v in entry["values"])
    return found, missing, truth


def judged(found: dict) -> list[dict]:
    """Ratios of medians: a peer's time over langevin's, which should be at least 1."""
    bars = []
    for (name, task), entry in found.items():
        if name.startswith("langevin"):
            continue
        for own in ("langevin", "langevin, exact"):
            if (own, task) not in found:
                continue
            value = statistics.median(entry["seconds"])
            value /= statistics.median(found[own, task]["seconds"])
            bars.append(
                {"what": f"{task}: {name} / {own}", "ratio": value, "bar": 1, "met": value >= 1}
            )
    return bars


def main() -> None:
    """Measures, prints, writes."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one round: does it run at all?")
    parser.add_argument("--output", type=Path, default=harness.RESULTS, help="folder to write to")
    options = parser.parse_args()
    torch.set_num_threads(1)
    console = harness.console()
    rounds = 1 if options.quick else 7
    found, missing, truth = measure(console, rounds)
    table = Table(title=f"784-800-10, 1,000 images: top eigenvalue {truth:.6g}")
    for column in ("task", "contender", "seconds", "min - max", "tolerance"):
        table.add_column(column)
    for (name, task), entry in sorted(found.items(), key=lambda item: item[0][1]):
        s = entry["seconds"]
        spread = f"{min(s):.3g} - {max(s):.3g}"
        table.add_row(task, name, f"{statistics.median(s):.3g}", spread, str(entry["tolerance"]))
    console.print(table)
    bars = judged(found)
    for bar in bars:
        console.print(f"{bar['what']}: {bar['ratio']:.2f}, {harness.verdict(bar['met'])}")
    for name, why in missing.items():
        console.print(f"{name}: missing, {why}")
    record = {
        "rounds": rounds, "accuracy": ACCURACY, "probes": PROBES, "top_eigenvalue": truth,
        "bars": bars, "missing": missing,
        "contenders": {f"{name}: {task}": entry for (name, task), entry in found.items()},
    }  # fmt: skip
    libraries = ("numpy", "scipy", "torch", "pyhessian", "curvlinops-for-pytorch")
    console.print(f"wrote {harness.write(options.output, 'curvature', record, libraries)}")


if __name__ == "__main__":
    main()
