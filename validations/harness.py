"""What every validation shares: checks, their verdicts, the record, and the command line.

A validation is one module for one published claim. It has ``ROW``, ``CLAIM``, ``SOURCE`` and a
function ``validate(scale, progress) -> Outcome``, which measures, predicts and compares; run alone
it exits with 1 if a verdict is not the one the theory implies.
"""

from __future__ import annotations

import datetime
import importlib
import json
import math
import platform
import re
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import stdtrit

HERE = Path(__file__).resolve().parent
if str(HERE.parent) not in sys.path:  # run as a script: the package beside it
    sys.path.insert(0, str(HERE.parent))

import langevin as lv  # noqa: E402
from langevin import information  # noqa: E402
from langevin.analysis.compare import student  # noqa: E402

SIGNIFICANCE = 1e-4  # of a whole row, shared among its checks by Holm's rule
CONFIDENCE = 0.95
SCALES = ("quick", "full")
_shift = 0  # of all seeds
_work: Path | None = None  # where long runs leave what a resumed one goes on from
bars = False  # whether runs may draw progress bars of their own
Progress = Callable[[str], None]


@dataclass
class Check:
    """One number, measured beside predicted.

    ``margin`` is the largest difference, in units of ``scale``, that still counts as agreement:
    "agrees" means that the 95 % interval lies within it. ``expected`` is the verdict that a correct
    theory implies: "differs" for a claim stretched beyond its regime, and for negative controls.
    ``approximate``: the prediction is an asymptotic formula, or the measurement an extrapolation by
    a polynomial, which enough statistics will always tell from the truth; then only the margin
    decides, "differs" if the interval is all beyond it. ``bound``: the claim is an inequality, the
    value lies "above" or "below" the prediction: "agrees" if the 95 % interval is all on that side,
    "differs" if all on the other.
    """

    statement: str
    value: float
    stderr: float
    prediction: float
    margin: float = 0.02
    expected: str = "agrees"
    dof: int = 63
    scale: float | None = None
    approximate: bool = False
    bound: str = ""
    verdict: str = ""

    @property
    def z(self) -> float:
        """Standard errors between measurement and prediction."""
        difference = self.value - self.prediction
        if self.stderr > 0:
            return difference / self.stderr
        return 0.0 if difference == 0 else math.copysign(math.inf, difference)

    @property
    def p_value(self) -> float:
        """Two-sided, Student's t."""
        return student(self.z, self.dof)

    @property
    def half_width(self) -> float:
        """Half the width of the 95 % interval, by Student's t."""
        return float(stdtrit(self.dof, (1 + CONFIDENCE) / 2)) * self.stderr

    @property
    def reach(self) -> tuple[float, float]:
        """The smallest and largest distance of the 95 % interval from the prediction, in scales."""
        scale = abs(self.prediction) if self.scale is None else self.scale
        away, half = abs(self.value - self.prediction), self.half_width
        if not scale > 0:
            return math.inf, math.inf
        return max(away - half, 0.0) / scale, (away + half) / scale

    @property
    def holds(self) -> bool:
        """Whether the verdict does not contradict the expected one."""
        return self.verdict in (self.expected, "undecided")


def judge(checks: list[Check]) -> None:
    """Gives every check its verdict: differs by Holm's step-down rule, else agrees by margin."""
    exact = [c for c in checks if not c.approximate and not c.bound]
    exact.sort(key=lambda c: c.p_value)
    rejected = True
    for k, check in enumerate(exact):
        rejected = rejected and check.p_value < SIGNIFICANCE / (len(exact) - k)
        check.verdict = "differs" if rejected else _by_margin(check)
    for check in checks:
        if check.bound:
            check.verdict = _by_side(check)
        elif check.approximate:
            beyond = check.reach[0] > check.margin
            check.verdict = "differs" if beyond else _by_margin(check)


def _by_margin(check: Check) -> str:
    return "agrees" if check.reach[1] <= check.margin else "undecided"


def _by_side(check: Check) -> str:
    over = check.value - check.prediction
    over = over if check.bound == "above" else -over
    if abs(over) <= check.half_width or math.isnan(over):
        return "undecided"
    return "agrees" if over > 0 else "differs"


@dataclass
class Outcome:
    """What a validation returns.

    ``checks[0]`` is the headline: the published claim where it is meant to hold. ``findings`` say,
    in sentences, where it holds and where not; ``figures`` are (caption, Matplotlib Figure) pairs,
    one panel each; ``settings`` whatever a reader needs to repeat it.
    """

    prediction: str
    measurement: str
    checks: list[Check]
    findings: list[str]
    figures: list[tuple[str, Any]] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)


def check(statement: str, measured: Any, prediction: float, **options: Any) -> Check:
    """A Check of an Estimate."""
    return Check(
        statement,
        float(measured.value),
        float(measured.stderr),
        float(prediction),
        dof=getattr(measured, "dof", 63),
        **options,
    )


def modules() -> dict[str, str]:
    """Module names of all validations by row, in reading order: T1, T2, ..., T12, T12N, ..., B5N.

    N marks the networks' part of a claim that has a row with exact answers too.
    """
    found = {}
    for path in HERE.glob("*.py"):
        stem = path.stem.split("_")[0]
        if re.fullmatch(r"[tskb]\d+n?", stem):
            found[stem.upper()] = path.stem
    return {row: found[row] for row in sorted(found, key=_reading_order)}


def _reading_order(row: str) -> tuple[int, int, bool]:
    return "TSKB".find(row[0]), int(row[1:].rstrip("N")), row.endswith("N")


def seed(number: int) -> int:
    """The seed of a validation's own number in this run: others in every repetition and scale."""
    return number + _shift


def checkpoint(name: str) -> Path | None:
    """The folder for simulate(checkpoint=...) of one run of this repetition and scale, or None."""
    return None if _work is None else _work / f"{_shift}-{name}"


def run(
    row: str,
    scale: str,
    output: Path,
    progress: Progress,
    repetition: int = 0,
    work: Path | None = None,
) -> dict[str, Any]:
    """Runs one validation and writes its JSON and figures to ``output``; returns the record.

    Repetitions, and the scales, have independent random numbers. ``work`` is the folder of the
    checkpoints of long runs: the same command, run again, goes on where it was stopped. A row whose
    data or package is missing is skipped, and an earlier record of it stays.
    """
    global _shift, _work
    _shift = 1_000_000 * (2 * repetition + SCALES.index(scale))
    _work = work
    module = importlib.import_module(modules()[row])
    began = time.perf_counter()
    try:
        outcome = module.validate(scale, progress)
        judge(outcome.checks)
        record = _record(module, outcome)
        record["figures"] = _save(row, outcome, output)
    except lv.errors.UnavailableError as error:
        record = _without_checks(module, "skipped", f"Skipped: {error}", holds=True)
    except Exception as error:
        traceback.print_exc()
        record = _without_checks(module, "error", f"{type(error).__name__}: {error}", holds=False)
    record |= {
        "scale": scale,
        "repetition": repetition,
        "seeds_shifted_by": _shift,
        "seconds": round(time.perf_counter() - began, 1),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": versions(),
    }
    output.mkdir(parents=True, exist_ok=True)
    path = output / f"{row}.json"
    if record["verdict"] == "skipped" and path.is_file():
        return record
    text = json.dumps(_plain(record), indent=1, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")
    return record


def versions() -> dict[str, str]:
    """What computed it."""
    import numba
    import scipy

    return {
        "langevin": lv.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "numba": numba.__version__,
        "torch": information.version("torch") or "",
        "machine": platform.machine(),
    }


def _record(module: Any, outcome: Outcome) -> dict[str, Any]:
    head = outcome.checks[0]
    return {
        "row": module.ROW,
        "claim": module.CLAIM,
        "source": module.SOURCE,
        "quantity": head.statement,
        "prediction": head.prediction,
        "value": head.value,
        "stderr": head.stderr,
        "z": head.z,
        "verdict": head.verdict,
        "holds": all(c.holds for c in outcome.checks),
        "theory": outcome.prediction,
        "measurement": outcome.measurement,
        "findings": outcome.findings,
        "checks": [
            {
                "statement": c.statement,
                "value": c.value,
                "stderr": c.stderr,
                "prediction": c.prediction,
                "z": c.z,
                "p_value": c.p_value,
                "within": c.reach[1],
                "dof": c.dof,
                "bound": c.bound,
                "approximate": c.approximate,
                "margin": c.margin,
                "verdict": c.verdict,
                "expected": c.expected,
            }
            for c in outcome.checks
        ],
        "settings": outcome.settings,
        "data": outcome.data,
    }


def _without_checks(module: Any, verdict: str, why: str, holds: bool) -> dict[str, Any]:
    return {
        "row": module.ROW,
        "claim": module.CLAIM,
        "source": module.SOURCE,
        "verdict": verdict,
        "holds": holds,
        "findings": [why],
        "checks": [],
        "figures": [],
    }


def _save(row: str, outcome: Outcome, output: Path) -> list[dict[str, str]]:
    """Every figure as SVG for the report and as PNG for everybody else."""
    import matplotlib.pyplot as plt

    output.mkdir(parents=True, exist_ok=True)
    saved = []
    for k, (caption, figure) in enumerate(outcome.figures, start=1):
        name = f"{row}-{k}"
        with plt.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
            figure.savefig(output / f"{name}.svg", transparent=True, metadata={"Date": None})
        figure.savefig(output / f"{name}.png", dpi=110)
        plt.close(figure)
        saved.append({"name": name, "caption": caption})
    return saved


def _plain(value: Any) -> Any:
    """Values that JSON has: NaN and infinities become null and text."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, (np.floating, float)):
        value = float(value)
        if math.isnan(value):
            return None
        return value if math.isfinite(value) else ("inf" if value > 0 else "-inf")
    return value.item() if isinstance(value, np.generic) else value


def axes(**labels: str):
    """One panel in the house style, to become a figure of its own: (Figure, Axes)."""
    import matplotlib

    matplotlib.use("Agg")
    from langevin import plot

    ax = plot.new_axes(figsize=(6.0, 4.0))
    ax.set(**labels)
    return ax.figure, ax


def line(x: Any, y: Any, stderr: Any, at: float = 0.0, degree: int = 1):
    """Weighted least-squares polynomial through measurements: its value at ``at``, an Estimate.

    The standard error follows from the measurements' own, not from the residuals.
    """
    x, y, stderr = (np.asarray(v, dtype=float) for v in (x, y, stderr))
    design = np.vander(x - at, degree + 1) / stderr[:, None]
    covariance = np.linalg.inv(design.T @ design)
    coefficients = covariance @ (design.T @ (y / stderr))
    return lv.Estimate(float(coefficients[-1]), float(np.sqrt(covariance[-1, -1])))


def squares(surface: Any, axes: Any) -> str:
    """Text of ``sum_k (axes[:, k] . (w - w*))^2``, for an Average: variances with honest errors."""
    centre = surface.minima()[0].position
    terms = []
    for axis in np.atleast_2d(np.asarray(axes).T):
        dot = " + ".join(
            f"({float(a)!r})*({name} - ({float(c)!r}))"
            for a, name, c in zip(axis, surface.variables, centre, strict=True)
        )
        terms.append(f"({dot})**2")
    return " + ".join(terms)


def main(module: str) -> None:
    """The command line of a single validation: exits with 1 if it is false."""
    import argparse

    row = next(r for r, m in modules().items() if m == Path(module).stem)
    parser = argparse.ArgumentParser(description=f"Validation {row}")
    parser.add_argument("--scale", choices=SCALES, default="quick")
    parser.add_argument("--repetition", type=int, default=0, help="other seeds: 1, 2, ...")
    parser.add_argument("--output", type=Path, default=None)
    parser.add_argument("--work", type=Path, default=None, help="folder of checkpoints, to resume")
    given = parser.parse_args()
    name = f"{given.scale}-{given.repetition}" if given.repetition else given.scale
    output = given.output or HERE / "results" / name
    global bars
    began, bars = time.perf_counter(), True

    def show(text: str) -> None:
        print(f"  {time.perf_counter() - began:6.0f} s  {text}", flush=True)

    record = run(row, given.scale, output, show, given.repetition, given.work)
    for one in record["checks"]:
        print(
            f"{one['verdict']:<9} {one['statement']}: {one['value']:.6g} +- {one['stderr']:.2g}, "
            f"predicted {one['prediction']:.6g} (z = {one['z']:.2f})"
        )
    for finding in record["findings"]:
        print(f"- {finding}")
    sys.exit(0 if record["holds"] else 1)
