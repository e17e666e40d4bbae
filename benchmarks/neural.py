"""Is an ensemble of networks faster than the plain PyTorch loop, network by network?

Question: SGD with momentum 0.9 on 784-800-10 and 784-64-10 (1,000 images, B = 30) and on 64-64-10
(1,437 digits, B = 32), float32: how many times the steps of the loop that everybody writes
(indexing tensors that are in memory, cross_entropy, backward, torch.optim.SGD), per replica and on
the same two cores? Beside both, torch.func.vmap over the same replicas.

Method: as throughput.py. Each contender is a process of its own, which warms up; then all take
turns, round after round. A rate is the median over rounds, with its smallest and largest value, a
ratio that of two medians. langevin's time is that of the whole simulate(): drawing, initialising
and all. The data are random numbers: speed does not depend on them.

    python benchmarks/neural.py [--quick] [--output DIR]

Writes neural.json.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path

import harness
from rich.console import Console
from rich.table import Table

RATE, MOMENTUM = 0.1, 0.9
# Widths, examples, mini-batch, replicas of the ensemble, and the bar.
NETWORKS = {
    "784-800-10": ((784, 800, 10), 1000, 30, 4, 1.3),
    "784-64-10": ((784, 64, 10), 1000, 30, 16, 4.0),
    "64-64-10": ((64, 64, 10), 1437, 32, 16, 10.0),
}


def network(widths):
    """Linear layers with ReLU between them."""
    from torch import nn

    layers = [part for a, b in pairwise(widths) for part in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


def data(name: str):
    """Random inputs and labels."""
    import torch

    widths, n, *_ = NETWORKS[name]
    return torch.rand(n, widths[0]), torch.randint(0, widths[-1], (n,))


def langevin(name: str, n: int, steps: int) -> Callable:
    """simulate() on the whole ensemble."""
    import langevin as lv
    from langevin.neural import NeuralSurface

    widths, _, batch, *_ = NETWORKS[name]
    surface = NeuralSurface(network(widths), data(name))
    sgd = lv.SGD(RATE, batch, momentum=MOMENTUM)
    options = {"n_replicas": n, "n_steps": steps, "dtype": "float32", "progress": False}
    return lambda: lv.simulate(surface, sgd, on_divergence="absorb", **options)


def plain(name: str, n: int, steps: int) -> Callable:
    """One network in the usual loop."""
    import torch

    widths, examples, batch, *_ = NETWORKS[name]
    X, y = data(name)
    module = network(widths)
    optimiser = torch.optim.SGD(module.parameters(), lr=RATE, momentum=MOMENTUM)
    loss = torch.nn.CrossEntropyLoss()

    def run() -> None:
        for _ in range(steps):
            index = torch.randint(0, examples, (batch,))
            optimiser.zero_grad()
            loss(module(X[index]), y[index]).backward()
            optimiser.step()

    return run


def vmapped(name: str, n: int, steps: int) -> Callable:
    """torch.func over stacked parameters, as its tutorial has it."""
    import torch
    from torch.func import functional_call, grad, stack_module_state, vmap

    widths, examples, batch, *_ = NETWORKS[name]
    X, y = data(name)
    modules = [network(widths) for _ in range(n)]
    parameters, _ = stack_module_state(modules)
    parameters = {k: v.detach() for k, v in parameters.items()}
    base = network(widths)

    def loss(own, x, t):
        return torch.nn.functional.cross_entropy(functional_call(base, own, (x,)), t)

    slopes = vmap(grad(loss))
    buffers = {k: torch.zeros_like(v) for k, v in parameters.items()}

    def run() -> None:
        for _ in range(steps):
            index = torch.randint(0, examples, (n, batch))
            found = slopes(parameters, X[index], y[index])
            for k, p in parameters.items():
                buffers[k].mul_(MOMENTUM).add_(found[k])
                p.sub_(buffers[k], alpha=RATE)

    return run


WAYS = {"langevin": langevin, "torch.func.vmap": vmapped, "plain loop": plain}
CONTENDERS = {
    way: {
        f"{way}, {name}": (partial(make, name), [1 if way == "plain loop" else given[3]])
        for name, given in NETWORKS.items()
    }
    for way, make in WAYS.items()
}


def measure(console: Console, *, rounds: int, seconds: float) -> tuple[dict, dict]:
    """Every contender's workload and rates, and why others are missing."""

    def start(library: str) -> harness.Worker:
        return harness.Worker([str(Path(__file__)), "--worker", library])

    return harness.measure(start, CONTENDERS, console, rounds=rounds, seconds=seconds)


def judged(measured: dict) -> list[dict]:
    """langevin's rate over the plain loop's, with its bar."""
    listed = []
    for name, (*_, bar) in NETWORKS.items():
        entry = {"what": f"{name}: langevin / plain loop, per replica", "bar": bar, "ratio": None}
        pair = [measured.get(f"{way}, {name}") for way in ("langevin", "plain loop")]
        if all(pair):
            entry["ratio"] = harness.ratio(*pair)
            entry["met"] = entry["ratio"]["value"] >= bar
        listed.append(entry)
    return listed


def show(console: Console, measured: dict, missing: dict, bars: list[dict]) -> None:
    """The tables."""
    table = Table(title="Training: network-steps per second")
    for column in ("", "1/s", "min - max", "networks x steps"):
        table.add_column(column, justify="right" if column else "left")
    for name, entry in measured.items():
        rate = entry["rate"]
        table.add_row(
            name,
            f"{rate['median']:,.0f}",
            f"{rate['min']:,.0f} - {rate['max']:,.0f}",
            f"{entry['replicas']} x {entry['steps']:,}",
        )
    for name, why in missing.items():
        table.add_row(name, "missing", why)
    console.print(table)
    for entry in bars:
        ratio = entry["ratio"]
        if ratio:
            console.print(
                f"{entry['what']}: {ratio['value']:.3g} ({ratio['min']:.3g} - {ratio['max']:.3g}), "
                f"bar {entry['bar']:g}: {harness.verdict(entry['met'])}"
            )


def main() -> None:
    """Measures, prints, writes."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="3 short rounds: does it run at all?")
    parser.add_argument("--output", type=Path, default=harness.RESULTS, help="folder to write to")
    options = parser.parse_args()
    console = harness.console()
    rounds, seconds = (3, 0.3) if options.quick else (11, 1.5)
    measured, missing = measure(console, rounds=rounds, seconds=seconds)
    bars = judged(measured)
    show(console, measured, missing, bars)
    record = {"rounds": rounds, "bars": bars, "missing": missing, "contenders": measured}
    path = harness.write(options.output, "neural", record, ("numpy", "numba", "torch"))
    console.print(f"wrote {path}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        harness.serve(CONTENDERS[sys.argv[2]])
    else:
        main()
