"""Runs every declared statistical test under many random seeds: are its false alarms as declared?

``python tests/smoke_seeds.py --seeds 200 [--only test_sgd.py]`` runs each test once a seed, with
smaller ensembles and without its twins, and then asks, with Holm's correction over all of them,

- of every test whether it alarmed more often than declared (binomial),
- of every number compared whether its p-values are uniform (Kolmogorov-Smirnov), and whether the
  normal variables that make them have mean 0 and variance 1 (which see a wrong error sooner).

It prints a row a test, writes tests/results/seeds.json and exits 1 if any answer is no.
``--budget`` prints what the tests declare, as JSON, and runs nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import platform
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

import kit  # noqa: E402

SIGNIFICANCE = 1e-3  # of each of the four questions, after Holm
SCALE = 0.02


class Declared:
    """A pytest plugin that keeps the declared tests alone."""

    def __init__(self):
        self.items = []

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items):
        """Drops tests without a declaration."""
        self.items = [item for item in items if hasattr(item.function, "declaration")]
        items[:] = [item for item in self.items if item.function.declaration.smoke]


class Smoke(Declared):
    """Runs each under many seeds instead of once."""

    def __init__(self, n_seeds):
        super().__init__()
        self.n_seeds, self.rows, self.current, self.begun = n_seeds, [], "test", time.perf_counter()
        self.screen = os.fdopen(os.dup(1), "w")  # pytest redirects the other one

    def pytest_runtest_call(self, item):
        """Remembers whose turn it is."""
        self.current = item.nodeid.removeprefix("tests/")

    def run(self, test, declaration, options):
        """What a declared test does in place of its attempts."""
        began, p_values, signs, alarms, broken = time.perf_counter(), {}, {}, [], []
        given = dict(name=self.current, twins=False, kept={})
        for number in range(1, self.n_seeds + 1):
            try:
                check, alarm = kit.attempt(test, declaration, number, options, **given)
            except Exception as error:  # a seed under which the test breaks is a finding
                broken.append(f"attempt {number}: {type(error).__name__}: {error}"[:300])
                continue
            if alarm:
                alarms.append(f"seed {check.seed}: {alarm}"[:300])
            for store, found in ((p_values, check.p_values), (signs, check.signs)):
                for name, values in found.items():
                    store.setdefault(name, []).append(values)
        tested = verdicts(p_values, signs)
        row = {
            "test": self.current,
            "alarms": alarms,
            "broken": broken,
            "declared": declaration.alarm,
            "p_alarms": float(stats.binom.sf(len(alarms) - 1, self.n_seeds, declaration.alarm)),
            "seconds": round(time.perf_counter() - began, 2),
            "compared": tested,
        }
        self.rows.append(row)
        elapsed = time.perf_counter() - self.begun
        worst = min((entry["ks"] for entry in tested), default=float("nan"))
        spread = [entry["spread"] for entry in tested]
        shown = f"{min(spread):.2f}-{max(spread):.2f}" if spread else ""
        of = sum(item.function.declaration.smoke for item in self.items)
        print(
            f"{len(self.rows):4d}/{of} {elapsed:6.0f} s  {self.current[:78]:<78} "
            f"{len(alarms)} alarms ({self.n_seeds * declaration.alarm:.2g} expected) "
            f"{len(broken)} broken  KS {worst:.1e} of {len(tested)}  sd {shown}",
            file=self.screen, flush=True,
        )  # fmt: skip


def verdicts(p_values, signs):
    """Of every number compared: KS of its p-values, and mean and spread of what makes them normal.

    A uniform p and an independent sign are a normal variable, whose sum of squares is chi-square.
    """
    found = []
    for name, each in p_values.items():
        size = min(len(p) for p in each)
        p = np.array([values[:size] for values in each])  # (seeds, numbers)
        z = stats.norm.isf(np.maximum(p, 1e-300) / 2)
        n = len(p)
        for k in range(size):
            squares = (z[:, k] ** 2).sum()
            entry = {
                "name": f"{name}[{k}]" if size > 1 else name,
                "seeds": n,
                "ks": float(stats.kstest(p[:, k], "uniform").pvalue),
                "spread": float(np.sqrt(squares / n)),
                "p_spread": float(2 * min(stats.chi2.cdf(squares, n), stats.chi2.sf(squares, n))),
                "mean": None,
                "p_mean": None,
            }
            if name in signs:
                mean = (z[:, k] * [values[k] for values in signs[name]]).mean()
                entry["mean"] = float(mean)
                entry["p_mean"] = float(2 * stats.norm.sf(abs(mean) * np.sqrt(n)))
            found.append(entry)
    return found


def holm(p):
    """The smallest p-value after Holm's correction, and how many of how many fall."""
    p = np.sort([value for value in p if value is not None and np.isfinite(value)])
    adjusted = np.maximum.accumulate(p * (len(p) - np.arange(len(p)))) if len(p) else p
    return {
        "tests": len(p),
        "smallest": float(min(adjusted[0], 1.0)) if len(p) else 1.0,
        "rejected": int((adjusted < SIGNIFICANCE).sum()),
    }


def summary(rows, n_seeds, too_slow=()):
    """The four questions over all tests."""
    compared = [entry for row in rows for entry in row["compared"]]
    questions = {
        "alarms as declared": holm([row["p_alarms"] for row in rows]),
        "p-values uniform": holm([entry["ks"] for entry in compared]),
        "z of mean 0": holm([entry["p_mean"] for entry in compared]),
        "z of variance 1": holm([entry["p_spread"] for entry in compared]),
    }
    return {
        "seeds": n_seeds,
        "tests": len(rows),
        "too slow to be run": too_slow,
        "numbers compared": len(compared),
        "alarms": sum(len(row["alarms"]) for row in rows),
        "alarms expected": n_seeds * sum(row["declared"] for row in rows),
        "broken": sum(len(row["broken"]) for row in rows),
        "questions": questions,
    }


def shortened(row):
    """A row for the record: of all numbers compared the extremes alone."""
    entries = row["compared"]
    spread = [entry["spread"] for entry in entries]
    short = {key: value for key, value in row.items() if key != "compared"}
    return short | {
        "numbers": len(entries),
        "smallest_ks": min((entry["ks"] for entry in entries), default=None),
        "sd_of_z": [round(min(spread), 3), round(max(spread), 3)] if spread else None,
    }


def collected(plugin, files, *options):
    """Runs pytest with a plugin on files of this folder."""
    paths = [str(HERE / name) for name in files] or [str(HERE)]
    return pytest.main(["-n0", "-p", "no:cacheprovider", *options, *paths], plugins=[plugin])


def budget(files=()):
    """What every declared test, parametrised ones once per parameter set, declares."""
    plugin = Declared()
    with contextlib.redirect_stdout(io.StringIO()):
        collected(plugin, files, "--collect-only", "-qq")
    return {
        item.nodeid: {
            "false_alarm": item.function.declaration.false_alarm,
            "missed_bug": item.function.declaration.missed_bug,
            "attempts": item.function.declaration.attempts,
        }
        for item in plugin.items
    }


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--only", nargs="*", default=[], metavar="FILE")
    parser.add_argument("--scale", type=float, default=SCALE, help="of the full ensembles")
    parser.add_argument("--select", default="", help="pytest's -k")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "seeds.json")
    parser.add_argument("--budget", action="store_true", help="print the declarations alone")
    options = parser.parse_args()
    if options.budget:
        print(json.dumps(budget(options.only)))
        return 0
    plugin = Smoke(options.seeds)
    kit.smoke, kit.scale = plugin.run, options.scale
    select = ["-k", options.select] if options.select else []
    status = collected(plugin, options.only, "-q", "--no-header", *select)
    too_slow = [i.nodeid for i in plugin.items if not i.function.declaration.smoke]
    found = summary(plugin.rows, options.seeds, too_slow)
    seconds = round(time.perf_counter() - plugin.begun)
    good = status == 0 and not found["broken"] and bool(plugin.rows)
    good = good and not any(q["rejected"] for q in found["questions"].values())
    found |= {"verdict": "green" if good else "red", "seconds": seconds, "scale": options.scale}
    found |= {"python": platform.python_version(), "numpy": np.__version__}
    print(json.dumps(found, indent=2))
    for row in plugin.rows:
        for line in row["broken"][:3] + (row["alarms"][:3] if row["p_alarms"] < 1e-3 else []):
            print(f"{row['test']}: {line}")
    bad = [
        (entry[kind], kind, row["test"], entry)
        for row in plugin.rows
        for entry in row["compared"]
        for kind in ("ks", "p_mean", "p_spread")
        if entry[kind] is not None and entry[kind] < 1e-4
    ]
    for p, kind, test, entry in sorted(bad, key=lambda b: b[0])[:60]:
        mean = "" if entry["mean"] is None else f"mean {entry['mean']:.2f} "
        print(f"{kind} {p:.1e}  {test}  {entry['name']}, {mean}sd {entry['spread']:.2f}")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    rows = [shortened(row) for row in plugin.rows]
    options.output.write_text(json.dumps(found | {"rows": rows}, indent=1), encoding="utf-8")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
