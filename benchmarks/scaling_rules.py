"""How far do the scaling rules of SGD hold, and is the point where they break predicted?

Three rules over two decades of a factor a, each on its stationary law and on its whole path:

    (eta, S) -> (a eta, a S)           a parabola (exact), two wells (first order in the step)
    N -> a N with B -> a B             a regression on data, with and without replacement
    1 - m -> (1 - m)/a with B -> a B   a parabola, with momentum

For every a: what was measured over its value at a = 1, the exact or predicted quotient, and the
path's distance from that of a = 1 in the common time t eta/(1 - m). The breaking point is the a
at which a quotient is off by a tolerance, measured and as `predict.scaling(...).breaking` or the
finite-step law says.

    python benchmarks/scaling_rules.py [--replicas 40000] [--output FOLDER]
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import harness
import numpy as np
from rich import box
from rich.table import Table

import langevin as lv
from langevin import predict

TOLERANCES = (0.02, 0.1)
FACTORS = (1, 2, 5, 10, 20, 50, 100)
CURVATURE = 2.0
PARABOLA = lv.surfaces.quadratic(CURVATURE)
WELLS = lv.Surface("x**4/4 - a*x**3/3 - x**2/2", a=0.4, noise=lv.Isotropic(1.0))
NOISE = 0.3  # eta/S on the two wells: T = 0.15
TIMES = (0.5, 1.0, 2.0, 4.0)  # t eta/(1 - m) at which paths are compared
X, Y = (array[::8][:55] for array in lv.surfaces.diabetes())


def rule_rate(replicas: int, say) -> list[dict]:
    """(eta, S) -> (a eta, a S)."""
    eta, found = 0.005, []
    base = lv.SGD(eta, 1.0)
    scaling = predict.scaling(PARABOLA, base)
    for a in FACTORS:
        say(f"(a eta, a S), parabola, a = {a}")
        sgd = lv.SGD(eta * a, float(a))
        law = predict.quadratic(PARABOLA, sgd).covariance[0, 0]
        found.append({"a": a, **spread(PARABOLA, sgd, replicas), "exact": float(law)})
        found[-1]["path"] = path(PARABOLA, sgd, replicas, start=0.3)
    breaking = [scaling.breaking(tolerance).factor for tolerance in TOLERANCES]
    one = summary("(eta, S), parabola: variance", found, breaking)
    eta, found = 0.004, []
    base = lv.SGD(eta, eta / NOISE)
    for a in FACTORS:
        say(f"(a eta, a S), two wells, a = {a}")
        sgd = lv.SGD(eta * a, eta * a / NOISE)
        found.append({"a": a, **ratio(sgd, 4 * replicas)})
        found[-1]["exact"] = predict.chain(WELLS, sgd).ratio(0, 1)
        found[-1]["path"] = path(WELLS, sgd, replicas, start=0.15)
    slope = predict.finite_step(WELLS, base).slope(0, 1)
    # p_A/p_B alone, to first order: exp(slope (a - 1) eta) = 1 + tolerance.
    predicted = [1 + math.log1p(tolerance) / (abs(slope) * eta) for tolerance in TOLERANCES]
    two = summary("(eta, S), two wells: p_A/p_B", found, predicted)
    return [one, two]


def rule_data(replicas: int, say) -> list[dict]:
    """N -> a N with B -> a B: the loss is the same, fluctuations in units of the posterior's."""
    base = lv.surfaces.linear_regression(X, Y)
    axis = np.linalg.eigh(base.hessian(np.zeros(base.dim)))[1][:, -1]
    centre = base.minima()[0].position
    columns = zip(axis.tolist(), base.variables, centre.tolist(), strict=True)
    away = (f"({k!r})*({w} - ({c!r}))" for k, w, c in columns)
    along = f"({' + '.join(away)})**2"  # of the stiffest direction, for data of any size
    rows = []
    for sampling in ("with_replacement", "without_replacement"):
        found = []
        for a in (1, 2, 4, 8, 16, 32, 100):
            say(f"(a N, a B), {sampling.replace('_', ' ')}, a = {a}")
            surface = lv.surfaces.linear_regression(np.tile(X, (a, 1)), np.tile(Y, a))
            sgd = lv.SGD(0.02, 2 * a, sampling=sampling)
            law = predict.quadratic(surface, sgd).moments()[1]
            point = spread(surface, sgd, max(512, replicas // 40), along, time=4.0)
            scale = {k: point[k] * a for k in ("value", "stderr")}
            found.append({"a": a, **scale, "exact": a * float(axis @ law @ axis), "path": None})
        rows.append(summary(f"(N, B), {sampling.replace('_', ' ')}: N x variance", found, None))
    return rows


def rule_momentum(replicas: int, say) -> list[dict]:
    """1 - m -> (1 - m)/a with B -> a B, at a fixed learning rate."""
    eta, found = 0.002, []
    scaling = predict.scaling(PARABOLA, lv.SGD(eta, 1.0))
    for a in FACTORS:
        say(f"((1 - m)/a, a B), a = {a}")
        sgd = lv.SGD(eta, float(a), momentum=1 - 1 / a)
        law = predict.quadratic(PARABOLA, sgd).moments()[1][0, 0]
        found.append({"a": a, **spread(PARABOLA, sgd, replicas), "exact": float(law)})
        found[-1]["path"] = path(PARABOLA, sgd, replicas, start=0.3)
    row = summary("(m, B), parabola: variance", found, None)
    # From there on the path oscillates.
    row["path_predicted"] = scaling.breaking(TOLERANCES[0], vary="momentum").factor
    return [row]


def seed_of(sgd) -> int:
    """A seed of its own for every point of a rule, so that quotients are of independent runs."""
    return round(1e6 * float(sgd.learning_rate) + 1e3 * float(sgd.batch_size))


def spread(surface, sgd, replicas: int, along: str = "x**2", time: float = 6.0) -> dict:
    """The stationary mean of a square, after ``time`` relaxation times of curvature 1."""
    pace = float(sgd.learning_rate) / (1 - float(sgd.momentum))
    burn_in = max(40, int(time / pace), int(30 / (1 - float(sgd.momentum))))
    result = lv.simulate(
        surface, sgd, n_replicas=replicas, n_steps=3 * burn_in, burn_in=burn_in, seed=seed_of(sgd),
        observe=lv.Average(along, every=max(1, burn_in // 20)), progress=False,
    )  # fmt: skip
    found = result.average()
    return {"value": found.value, "stderr": found.stderr}


def ratio(sgd, replicas: int) -> dict:
    """p_A/p_B of the two wells."""
    burn_in = max(200, int(70 / float(sgd.learning_rate)))
    result = lv.simulate(
        WELLS, sgd, n_replicas=replicas, n_steps=3 * burn_in, burn_in=burn_in, seed=seed_of(sgd),
        observe=lv.Occupation(every=max(1, burn_in // 100)), dtype="float32",
        on_divergence="absorb", progress=False,
    )  # fmt: skip
    found = result.occupation().ratio(0, 1)
    return {"value": found.value, "stderr": found.stderr}


def path(surface, sgd, replicas: int, start: float) -> list[list[float]]:
    """Mean and second moment at the times of TIMES, from one point: [value, stderr] pairs."""
    pace = float(sgd.learning_rate) / (1 - float(sgd.momentum))
    steps = sorted({max(1, round(t / pace)) for t in TIMES})
    result = lv.simulate(
        surface, sgd, n_replicas=replicas, n_steps=steps[-1], start=[start], seed=seed_of(sgd),
        observe=lv.Average("x", at=steps), progress=False,
    )  # fmt: skip
    taken = [max(1, round(t / pace)) for t in TIMES]
    found = [result.average().at(s) for s in taken]
    return [[float(f.value), float(f.stderr)] for f in found]


def summary(name: str, points: list[dict], predicted: list[float] | None) -> dict:
    """Quotients over a = 1, the measured breaking points, and the predicted ones."""
    first = points[0]
    for p in points:
        p["over"] = p["value"] / first["value"]
        p["over_stderr"] = p["over"] * math.hypot(
            p["stderr"] / p["value"], first["stderr"] / first["value"] if p is not first else 0.0
        )
        p["over_exact"] = p["exact"] / first["exact"]
        if p["path"]:
            p["path_off"] = max(
                abs(a - b) for (a, _), (b, _) in zip(p["path"], first["path"], strict=True)
            )
    a = [p["a"] for p in points]
    return {
        "rule": name,
        "points": points,
        "breaking": [
            {
                "tolerance": tolerance,
                "measured": crossing(a, [p["over"] for p in points], tolerance),
                "exact": crossing(a, [p["over_exact"] for p in points], tolerance),
                "predicted": predicted[k] if predicted else math.inf,
            }
            for k, tolerance in enumerate(TOLERANCES)
        ],
        "largest_z": max(abs(p["over"] - p["over_exact"]) / p["over_stderr"] for p in points[1:]),
    }


def crossing(a: list[float], over: list[float], tolerance: float) -> float:
    """Where |over - 1| passes the tolerance for good, linear between the points; inf if nowhere."""
    off = np.abs(np.array(over) - 1)
    inside = np.flatnonzero(off <= tolerance)
    k = int(inside[-1]) + 1
    if k == len(a):
        return math.inf
    share = (tolerance - off[k - 1]) / (off[k] - off[k - 1])
    return float(a[k - 1] + share * (a[k] - a[k - 1]))


def show(row: dict, console) -> None:
    """One rule: a line for every a, and the breaking points below."""
    made = Table(title=row["rule"], box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for name in ("a", "measured over a = 1", "exact", "z", "path: |mean - that of a = 1|"):
        made.add_column(name, justify="right")
    for p in row["points"]:
        z = (p["over"] - p["over_exact"]) / p["over_stderr"] if p["a"] > 1 else 0.0
        off = f"{p['path_off']:.4f}" if p["path"] else ""
        quotient = f"{p['over']:.3f} ± {p['over_stderr']:.3f}"
        made.add_row(str(p["a"]), quotient, f"{p['over_exact']:.3f}", f"{z:.1f}", off)
    console.print(made)
    for b in row["breaking"]:
        words = ", ".join(
            f"{k} {'nowhere' if math.isinf(b[k]) else format(b[k], '.1f')}"
            for k in ("measured", "exact", "predicted")
        )
        console.print(f"  off by {100 * b['tolerance']:.0f} % from a = {words}")
    if "path_predicted" in row:
        console.print(f"  path predicted to oscillate from a = {row['path_predicted']:.1f}")
    console.print()


def main() -> None:
    """Runs all rules, prints their tables and writes the record."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--replicas", type=int, default=40_000)
    parser.add_argument("--output", type=Path, default=harness.RESULTS)
    given = parser.parse_args()
    console = harness.console()
    with console.status("starting") as status:
        rows = [
            row
            for rule in (rule_rate, rule_data, rule_momentum)
            for row in rule(given.replicas, status.update)
        ]
    for row in rows:
        show(row, console)
    record = {"replicas": given.replicas, "rules": finite(rows)}
    path_written = harness.write(given.output, "scaling_rules", record, ["numpy", "scipy", "numba"])
    console.print(f"written: {path_written}")


def finite(value):
    """Infinities as text, which JSON has not."""
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, list):
        return [finite(v) for v in value]
    return str(value) if isinstance(value, float) and math.isinf(value) else value


if __name__ == "__main__":
    main()
