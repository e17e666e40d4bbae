"""``langevin demo``: the main job on two examples, every number beside its prediction.

(a) Two wells, the wide one higher: p_A/p_B over a sweep of eta/S across the critical noise.
(b) Real mini-batch SGD on the diabetes regression: the covariance of the weights.
"""

from __future__ import annotations

import datetime
import json
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

import langevin as lv
from langevin import predict
from langevin.analysis.compare import Comparison

LEARNING_RATE = 0.05
SWEEP = (0.4, 0.55, 0.75, 1.0, 1.2, 1.35)  # eta/S in units of the critical noise
WIDE, SHARP = 0, 1
MARKS = {"agrees": "green", "differs": "red", "undecided": "yellow"}


def run(output: Path, *, quick: bool = False, seed: int = 2017, console: Console | None = None):
    """Runs both parts, prints their tables, writes figures and results.json to ``output``."""
    console = console or Console()
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    two_wells = wells(quick=quick, seed=seed)
    print_wells(two_wells, console)
    regression = least_squares(quick=quick, seed=seed)
    print_least_squares(regression, console)
    figures = draw(two_wells, regression, output)
    elapsed = time.perf_counter() - began
    record = {
        "langevin": lv.__version__,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "seed": seed,
        "quick": quick,
        "elapsed_s": round(elapsed, 2),
        "two_wells": two_wells["record"],
        "least_squares": regression["record"],
    }
    path = output / "results.json"
    path.write_text(json.dumps(record, indent=2, default=float) + "\n", encoding="utf-8")
    console.print(f"\nDone in {elapsed:.0f} s. Written: {', '.join(map(str, [*figures, path]))}")
    return record


# --- (a) two wells ------------------------------------------------------------------------------


def wells(*, quick: bool, seed: int) -> dict[str, Any]:
    """One launch for the whole sweep: the batch size differs from replica to replica."""
    surface = lv.surfaces.wide_and_sharp(energy_difference=0.02, barrier=0.02)
    critical = predict.critical_noise(surface, lv.SGD(LEARNING_RATE, 1.0), WIDE, SHARP)
    noises = critical.value * np.array(SWEEP)
    group = np.repeat(np.arange(len(SWEEP)), 4096 if quick else 40_000)
    dynamics = lv.SGD(learning_rate=LEARNING_RATE, batch_size=LEARNING_RATE / noises[group])
    result = lv.simulate(
        surface,
        dynamics,
        n_replicas=len(group),
        n_steps=20_000,
        burn_in=12_000,
        seed=seed,
        observe=(
            lv.Occupation(every=20, groups=group),
            lv.Histogram(bins=160, every=20, groups=group),
        ),
        dtype="float32",
        on_divergence="absorb",
    )
    points = [_point(surface, result, k, noise) for k, noise in enumerate(noises)]
    record = {
        "surface": surface.formula,
        "parameters": surface.parameters,
        "sigma": surface.noise.sigma,
        "learning_rate": LEARNING_RATE,
        "replicas_per_point": int((group == 0).sum()),
        "steps": result.n_steps,
        "escaped": int((result.diverged >= 0).sum()),
        "seconds": round(result.elapsed, 2),
        "critical_noise": critical.value,
        "critical_noise_paper_eq4": critical.paper,
        "points": [point["record"] for point in points],
    }
    return {
        "surface": surface,
        "critical": critical,
        "points": points,
        "densities": result["density"],
        "result": result,
        "record": record,
    }


def _point(surface, result, k: int, noise: float) -> dict[str, Any]:
    """One value of eta/S: measured ratio, four predictions, verdicts."""
    dynamics = lv.SGD(learning_rate=LEARNING_RATE, batch_size=LEARNING_RATE / noise)
    laws = {
        "discrete chain": predict.chain(surface, dynamics),
        "Boltzmann-Gibbs": predict.boltzmann_gibbs(surface, dynamics),
        "Laplace": predict.laplace(surface, dynamics),
    }
    comparisons = {
        name: lv.compare(result, law, group=k, resolution=0.01) for name, law in laws.items()
    }
    measured = result.occupation().group(k).ratio(WIDE, SHARP)
    record = {
        "noise": float(noise),
        "batch_size": float(dynamics.batch_size),
        "temperature": dynamics.temperature(surface),
        "measured": measured.value,
        "stderr": measured.stderr,
        "predictions": {name: law.ratio(WIDE, SHARP) for name, law in laws.items()},
        "z": {name: _ratio_row(c).z for name, c in comparisons.items()},
        "verdict": {name: c.verdict for name, c in comparisons.items()},
        "total_variation": {name: c.total_variation for name, c in comparisons.items()},
    }
    return {"measured": measured, "laws": laws, "comparisons": comparisons, "record": record}


def _ratio_row(comparison: Comparison):
    return next(row for row in comparison.rows if row.quantity == "p_0/p_1")


def print_wells(found: dict[str, Any], console: Console) -> None:
    """The sweep as a table."""
    surface, critical = found["surface"], found["critical"]
    wide, sharp = surface.minima()
    level = round(sharp.energy, 9) + 0.0  # no minus zero
    console.print("\n[bold](a) A wide, higher minimum A against a sharp, lower minimum B[/bold]")
    console.print(
        f"A at x = {wide.position[0]:.3g}: loss {wide.energy:.4g}, curvature "
        f"{wide.hessian[0, 0]:.4g}.  B at x = {sharp.position[0]:.3g}: loss {level:g}, "
        f"curvature {sharp.hessian[0, 0]:.4g}.  SGD, eta = {LEARNING_RATE}, Gaussian gradient "
        f"noise, sigma = {surface.noise.sigma:g}.",
        highlight=False,
    )
    table = Table(
        title="p_A/p_B: measured, and each prediction with its z and verdict",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for column in ("eta/S", "T", "measured", "discrete chain", "Boltzmann-Gibbs", "Laplace"):
        table.add_column(column, justify="right", no_wrap=True)
    for point in found["points"]:
        r = point["record"]
        cells = [f"{r['noise']:.4f}", f"{r['temperature']:.4f}"]
        cells.append(f"{r['measured']:.4f}\n± {r['stderr']:.4f}")
        for name in point["laws"]:
            verdict = r["verdict"][name]
            cells.append(
                f"{r['predictions'][name]:.4f} z={short(r['z'][name])}\n"
                f"[{MARKS[verdict]}]{verdict}[/{MARKS[verdict]}]"
            )
        table.add_row(*cells)
    console.print(table)
    crossing = measured_crossing(found)
    console.print(
        f"A overtakes B at eta/S = {crossing:.4f} (measured, interpolated). Laplace predicts "
        f"{critical.value:.4f}; Eq. 4 of Jastrzebski et al. as printed, {critical.paper:.4f} "
        "(a factor 4 too small). The discrete chain is the law of the steps themselves; "
        "Boltzmann-Gibbs is its limit of small steps, Laplace that of small noise.",
        highlight=False,
    )


def short(z: float) -> str:
    """A z-score in few characters."""
    return f"{z:+.1f}" if abs(z) < 99.95 else f"{z:+.3g}"


def measured_crossing(found: dict[str, Any]) -> float:
    """eta/S at which the measured ratio passes 1, interpolated in logarithms."""
    x = np.log([p["record"]["noise"] for p in found["points"]])
    y = np.log([p["record"]["measured"] for p in found["points"]])
    return float(np.exp(np.interp(0.0, y, x)))


# --- (b) least squares --------------------------------------------------------------------------

BATCH_SIZE = 8
LEAST_SQUARES_RATE = 0.1


def least_squares(*, quick: bool, seed: int) -> dict[str, Any]:
    """SGD with real mini-batches of the 442 patients, both ways of sampling."""
    X, y = lv.surfaces.diabetes()
    surface = lv.surfaces.linear_regression(X, y)
    runs = {}
    for sampling in ("with_replacement", "without_replacement"):
        dynamics = lv.SGD(LEAST_SQUARES_RATE, BATCH_SIZE, sampling=sampling)
        result = lv.simulate(
            surface,
            dynamics,
            n_replicas=1024 if quick else 4096,
            n_steps=20_000,
            burn_in=8_000,
            seed=seed,
            observe=lv.Moments(every=100),
            dtype="float32",
        )
        runs[sampling] = _against_laws(surface, dynamics, result)
    record = {
        "data": "diabetes (Efron et al. 2004), standardised",
        "n_examples": surface.n_examples,
        "dim": surface.dim,
        "learning_rate": LEAST_SQUARES_RATE,
        "batch_size": BATCH_SIZE,
        "runs": {name: found["record"] for name, found in runs.items()},
    }
    return {"surface": surface, "runs": runs, "record": record}


def gibbs_temperature(surface, dynamics) -> float:
    """``eta <sigma**2> / (2 S)`` with the noise's mean variance at the minimum, as if isotropic."""
    (minimum,) = surface.minima()
    variance = np.trace(surface.noise_covariance(minimum.position)) / surface.dim
    factor = dynamics.sampling_factor(surface)
    return float(dynamics.learning_rate * variance * factor / (2 * dynamics.batch_size))


def _against_laws(surface, dynamics, result) -> dict[str, Any]:
    laws = {
        "exact discrete law": predict.quadratic(surface, dynamics),
        "Boltzmann-Gibbs": predict.boltzmann_gibbs(
            surface, temperature=gibbs_temperature(surface, dynamics)
        ),
    }
    comparisons = {name: lv.compare(result, law) for name, law in laws.items()}
    moments = result.moments()
    record = {
        "seconds": round(result.elapsed, 2),
        "variance": np.diag(moments.covariance).tolist(),
        "variance_stderr": np.diag(moments.covariance_stderr).tolist(),
        "predictions": {name: np.diag(law.moments()[1]).tolist() for name, law in laws.items()},
        "worst_z": {name: c.z for name, c in comparisons.items()},
        "p_value": {name: c.p_value for name, c in comparisons.items()},
        "verdict": {name: c.verdict for name, c in comparisons.items()},
        "rows": {name: len(c.rows) for name, c in comparisons.items()},
    }
    return {"moments": moments, "laws": laws, "comparisons": comparisons, "record": record}


def print_least_squares(found: dict[str, Any], console: Console) -> None:
    """Trace of the covariance and verdict over all its entries, for both ways of sampling."""
    surface = found["surface"]
    console.print("\n[bold](b) SGD with real mini-batches on the diabetes regression[/bold]")
    console.print(
        f"Least squares of {surface.n_examples} patients and {surface.dim} features; eta = "
        f"{LEAST_SQUARES_RATE}, S = {BATCH_SIZE}. The noise is the data's own: not isotropic, and "
        "growing away from the minimum.",
        highlight=False,
    )
    table = Table(
        title="Covariance of the weights: trace, and worst z of 55 entries and 10 means",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for column in ("replacement", "law", "trace", "predicted", "worst z", "verdict"):
        left = column in ("replacement", "law")
        table.add_column(column, justify="left" if left else "right", no_wrap=True)
    for sampling, run_ in found["runs"].items():
        for name, law in run_["laws"].items():
            record = run_["record"]
            verdict = record["verdict"][name]
            table.add_row(
                sampling.split("_")[0],
                name,
                f"{np.trace(run_['moments'].covariance):.5f}",
                f"{np.trace(law.moments()[1]):.5f}",
                short(record["worst_z"][name]),
                f"[{MARKS[verdict]}]{verdict}[/{MARKS[verdict]}]",
            )
    console.print(table)
    (minimum,) = surface.minima()
    curvature = np.linalg.eigvalsh(minimum.hessian)
    console.print(
        "Boltzmann-Gibbs takes the noise as isotropic, with its mean variance at the minimum. Real "
        "mini-batch noise is proportional to the curvature here (from "
        f"{curvature[0]:.3g} to {curvature[-1]:.3g}), so flat directions fluctuate far less than "
        "it says.",
        highlight=False,
    )


# --- figures ------------------------------------------------------------------------------------


def draw(two_wells: dict[str, Any], regression: dict[str, Any], output: Path) -> list[Path]:
    """Three figures as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from scipy.interpolate import PchipInterpolator

    from langevin import plot

    def save(figure, name: str) -> Path:
        FigureCanvasAgg(figure)
        figure.savefig(output / name, dpi=150)
        return output / name

    points, critical = two_wells["points"], two_wells["critical"]
    x = np.array([p["record"]["noise"] for p in points])
    fine = np.geomspace(x[0], x[-1], 40)
    surface = two_wells["surface"]
    chain = np.log([p["record"]["predictions"]["discrete chain"] for p in points])
    predictions = {
        "discrete chain": (fine, np.exp(PchipInterpolator(np.log(x), chain)(np.log(fine)))),
    }
    for name, law in (("Boltzmann-Gibbs", predict.boltzmann_gibbs), ("Laplace", predict.laplace)):
        warm = [n * surface.noise.sigma**2 / 2 for n in fine]
        ratio = [law(surface, temperature=t).ratio(WIDE, SHARP) for t in warm]
        predictions[name] = (fine, np.array(ratio))
    sweep = Figure(figsize=(7, 4.6), layout="constrained")
    axes = plot.ratios(
        x,
        [p["measured"] for p in points],
        predictions,
        marks={"critical noise": critical.value, "Eq. 4 as printed": critical.paper},
        ax=plot.new_axes(sweep.subplots()),
    )
    axes.set_title("A wide, higher minimum wins at large learning rate over batch size")

    shown = [0, len(points) // 2, len(points) - 1]
    densities = Figure(figsize=(10, 3.4), layout="constrained")
    for k, panel in zip(shown, densities.subplots(1, 3), strict=True):
        laws = [points[k]["laws"]["discrete chain"], points[k]["laws"]["Boltzmann-Gibbs"]]
        plot.density(two_wells["densities"][k], laws, ax=plot.new_axes(panel))
        panel.set_title(f"eta/S = {x[k]:.3f}")
        if k != shown[0]:
            panel.get_legend().remove()

    covariance = Figure(figsize=(9, 4.4), layout="constrained")
    for panel, (sampling, found) in zip(
        covariance.subplots(1, 2), regression["runs"].items(), strict=True
    ):
        (minimum,) = regression["surface"].minima()
        curvature, directions = np.linalg.eigh(minimum.hessian)

        def along(matrix, directions=directions):
            return np.einsum("ia,ij,ja->a", directions, matrix, directions)

        laws = {name: along(law.moments()[1]) for name, law in found["laws"].items()}
        measured = along(found["moments"].covariance)
        plot.variances(curvature, measured, laws, ax=plot.new_axes(panel))
        panel.set_title(f"mini-batches {sampling.replace('_', ' ')}")
    return [
        save(sweep, "occupation.png"),
        save(densities, "densities.png"),
        save(covariance, "covariance.png"),
    ]
