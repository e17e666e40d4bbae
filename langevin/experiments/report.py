"""What an experiment shows: a table of measurements beside predictions, and figures."""

from __future__ import annotations

import io
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from langevin import plot
from langevin.demo import MARKS, short
from langevin.experiments.measures import at_times
from langevin.experiments.schema import Experiment, Point
from langevin.result import Estimate, Result

PER_OBSERVER = 4  # rows for an observer that has no quantity of its own among the common ones
AXES_SHOWN = 3  # dimensions up to which the table shows every variance


def headlines(record: dict[str, Any]) -> list[str]:
    """The quantities of a point worth a row: p_0/p_1 or p_k, the variances, then all else."""
    names = list(record["estimates"])
    basic = [n for n in names if re.fullmatch(r"(.*: )?(p_\d+|p_0/p_1|mean\[.*|cov\[.*)", n)]
    chosen = [n for n in basic if n.endswith("p_0/p_1")]
    if not chosen:
        chosen = [n for n in basic if re.search(r"p_\d+$", n)][:8]
    variances = [n for n in basic if re.search(r"cov\[(\d+),\1\]$", n)]
    if len(variances) <= AXES_SHOWN:
        chosen += variances
    others: dict[str, list[str]] = {}
    for n in names:
        if n not in basic:
            others.setdefault(n.split(".")[0], []).append(n)
    return chosen + [n for mine in others.values() for n in mine[:PER_OBSERVER]]


def number(value: float | str) -> str:
    """A swept value in few characters."""
    return value if isinstance(value, str) else f"{value:.6g}"


def leaf(name: str) -> str:
    """The last part of a swept field's name."""
    return name.rsplit(".", 1)[-1]


def table(experiment: Experiment, points: list[dict[str, Any]]) -> Table:
    """Points x quantities: measured, and each prediction with its z; verdicts below each point."""
    made = Table(title=escape(experiment.title) or None, box=box.SIMPLE_HEAD, pad_edge=False)
    labels = list(dict.fromkeys(p.label for point in experiment.points for p in point.predictions))
    leaves = [leaf(name) for name in experiment.swept]
    for name, short_name in zip(experiment.swept, leaves, strict=True):
        unique = leaves.count(short_name) == 1
        made.add_column(escape(short_name if unique else name), justify="right", no_wrap=True)
    made.add_column("quantity", no_wrap=True)
    made.add_column("measured", justify="right", no_wrap=True)
    for label in labels:
        made.add_column(escape(label), justify="right")
    for record in points:
        rows = [_row(record, name, labels) for name in headlines(record)]
        rows += _unmatched(record, labels)
        if labels or not rows:
            rows += [_verdicts(record, labels, detailed=not rows)]
        rows += [["escaped", f"{record['escaped']:,}"]] if record["escaped"] else []
        lead = [number(value) for value in record["values"].values()]
        for k, row in enumerate(rows):
            made.add_row(*(lead if k == 0 else [""] * len(lead)), *row)
        made.add_section()
    return made


def _row(record: dict[str, Any], name: str, labels: list[str]) -> list[str]:
    value, stderr = (record["estimates"][name][what] for what in ("value", "stderr"))
    cells = [name, f"{value:.5g} ± {stderr:.2g}"]
    for label in labels:
        law = record["predictions"].get(label, {})
        rows = record["comparisons"].get(label, {}).get("rows", [])
        z = next((row["z"] for row in rows if row["quantity"] == name), None)
        text = f"{law[name]:.5g}" if name in law else ""
        cells.append(text + (f"  z={short(z)}" if z is not None and text else ""))
    return cells


def _unmatched(record: dict[str, Any], labels: list[str]) -> list[list[str]]:
    """Rows for the numbers of predictions that share no quantity with what was measured."""
    rows = []
    for k, label in enumerate(labels):
        law = record["predictions"].get(label, {})
        if law and not set(law) & set(record["estimates"]) and label not in record["comparisons"]:
            blank = [""] * k
            rows += [[name, "", *blank, f"{law[name]:.5g}"] for name in list(law)[:6]]
    return rows


def _verdicts(record: dict[str, Any], labels: list[str], *, detailed: bool) -> list[str]:
    cells = ["verdict", ""]
    for label in labels:
        comparison = record["comparisons"].get(label)
        if comparison is None:
            cells.append("refused" if label in record["refused"] else "")
            continue
        verdict = comparison["verdict"]
        worst = f", worst z={short(comparison['z'])} ({comparison['worst']})" if detailed else ""
        within = comparison.get("within")  # null where there is no bound
        known = within is not None and math.isfinite(within)
        bound = f", within {100 * within:.2g} %" if known else ""
        cells.append(f"[{MARKS[verdict]}]{verdict}[/{MARKS[verdict]}]{escape(bound + worst)}")
    return cells


def plain_table(experiment: Experiment, points: list[dict[str, Any]]) -> str:
    """The table as text of any width, without colours."""
    stream = io.StringIO()
    Console(file=stream, width=240, color_system=None).print(table(experiment, points))
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


# --- figures ------------------------------------------------------------------------------------


def _save(figure: Any, path: Path) -> str:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=150)
    return path.name


def _figure(width: float = 6.4, height: float = 4.2) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def point_figures(point: Point, result: Result, laws: dict[str, Any], folder: Path) -> list[str]:
    """The density of each Histogram beside the predictions, and the variances of many weights."""
    written = []
    title = ", ".join(f"{leaf(name)} = {number(value)}" for name, value in point.values.items())
    stationary = [law for law in laws.values() if hasattr(law, "density")]
    for name, observed in result.observed.items():
        if isinstance(observed, Exception):
            continue
        densities = [(step, one) for step, one in at_times(observed) if hasattr(one, "axis_edges")]
        two = bool(densities) and len(densities[0][1].axis_edges) > 1
        if densities and not two:
            figure = _figure()
            axes = plot.new_axes(figure.subplots())
            if densities[0][0] is None:
                plot.density(observed, stationary if point.surface.dim == 1 else [], ax=axes)
            else:
                plot.densities({f"step {step:,}": one for step, one in densities}, ax=axes)
        elif two and densities[0][0] is None:
            columns = 1 + len(stationary)
            figure = _figure(4.2 * columns, 3.8)
            panels = np.atleast_1d(figure.subplots(1, columns, sharex=True, sharey=True))
            axes = plot.density_maps(observed, stationary, axes=list(panels))[0]
        elif hasattr(observed, "covariance") and len(observed.mean) > AXES_SHOWN:
            figure = _figure(5.4, 4.2)
            axes = _variances(point, observed, laws, figure)
            if axes is None:
                continue
        else:
            continue
        if title and two:
            figure.suptitle(title, fontsize="medium")
        elif title:
            axes.set_title(title, fontsize="medium")
        written.append(_save(figure, folder / f"{_slug(name)}.png"))
    return written


def _variances(point: Point, observed: Any, laws: dict[str, Any], figure: Any):
    """Variance along each eigenvector of the Hessian at the only minimum."""
    minima = point.surface.minima()
    if len(minima) != 1:
        return None
    curvature, directions = np.linalg.eigh(minima[0].hessian)

    def along(matrix: np.ndarray) -> np.ndarray:
        return np.einsum("ia,ij,ja->a", directions, matrix, directions)

    expected = {
        label: along(np.asarray(law.moments()[1]))
        for label, law in laws.items()
        if hasattr(law, "moments")
    }
    measured = along(observed.covariance)
    axes = plot.variances(curvature, measured, expected, ax=plot.new_axes(figure.subplots()))
    if measured.max() < 10 * measured.min():
        axes.set_yscale("linear")
        axes.set_ylim(bottom=0)
    return axes


def sweep_figures(experiment: Experiment, points: list[dict[str, Any]], folder: Path) -> list[str]:
    """Each headline quantity against the swept field, with error bars and predictions."""
    done = [record for record in points if record["estimates"]]
    if len(experiment.swept) != 1 or len(done) < 2:
        return []
    (field,) = experiment.swept
    if any(isinstance(record["values"][field], str) for record in done):
        return []
    done.sort(key=lambda record: record["values"][field])
    written = []
    for name in dict.fromkeys(n for record in done for n in headlines(record)):
        having = [record for record in done if name in record["estimates"]]
        x = np.array([record["values"][field] for record in having], dtype=float)
        measured = [Estimate(**record["estimates"][name]) for record in having]
        labels = dict.fromkeys(label for record in having for label in record["predictions"])
        curves = {}
        for label in labels:
            at = [r for r in having if name in r["predictions"].get(label, {})]
            if at:
                curves[label] = (
                    np.array([r["values"][field] for r in at], dtype=float),
                    np.array([r["predictions"][label][name] for r in at]),
                )
        figure = _figure()
        axes = plot.new_axes(figure.subplots())
        ratio = name.endswith("p_0/p_1")
        values = [m.value for m in measured]
        if ratio and (x > 0).all() and max(values) > 3 * min(values) > 0:
            plot.ratios(x, measured, curves, xlabel=field, ax=axes)
            axes.legend(frameon=False, fontsize="small", loc="best")
        else:
            label = "occupation ratio p_A / p_B" if ratio else name
            plot.series(x, measured, curves, xlabel=field, ylabel=label, ax=axes)
        if experiment.title:
            axes.set_title(experiment.title, fontsize="medium")
        written.append(_save(figure, folder / f"{_slug(name)}.png"))
    return written


def _slug(name: str) -> str:
    """A quantity as a file name: p_0/p_1 as p0-p1."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower().replace("_", "")).strip("-") or "figure"
