"""Figures from results and predictions: every function takes them and returns Axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

# Okabe-Ito: distinguishable with any colour vision, in print and on a screen.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
INK = "#222222"


def new_axes(ax: Any = None, *, figsize: tuple[float, float] = (6.4, 4.2)):
    """The Axes given, or new ones in the house style."""
    import matplotlib.pyplot as plt

    if ax is None:
        _, ax = plt.subplots(figsize=figsize, layout="constrained")
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(True, alpha=0.25, linewidth=0.6)
    return ax


def _check(measured: Any, dim: int, who: str) -> None:
    """Refuses what is no Density of ``dim`` dimensions."""
    from langevin.errors import ParameterError

    if not (hasattr(measured, "grid") and hasattr(measured, "stderr")):
        raise ParameterError(
            f"plot.{who}(measured={type(measured).__name__}): give a Density, as result.density() "
            "returns, and predictions as a list."
        )
    if len(measured.axes) != dim:
        other = "plot.density_maps" if dim == 1 else "plot.density"
        raise ParameterError(
            f"plot.{who}: needs a Density in {dim}-D, this one is in {len(measured.axes)}-D. Use "
            f"{other}, or observe Histogram(axes=...)."
        )


def density(measured: Any, predictions: Sequence[Any] = (), *, ax: Any = None):
    """A measured 1-D Density with error bars, and predicted densities as lines."""
    _check(measured, 1, "density")
    ax = new_axes(ax)
    grid = measured.grid
    step = max(1, len(grid) // 120)
    ax.errorbar(
        grid[::step],
        measured.value[::step],
        yerr=measured.stderr[::step],
        fmt="o",
        ms=2.5,
        lw=0.8,
        color=INK,
        label="measured",
        zorder=3,
    )
    fine = np.linspace(measured.edges[0], measured.edges[-1], 1001)
    for k, law in enumerate(predictions):
        ax.plot(fine, law.density(fine[:, None]), color=COLOURS[k % 6], lw=1.5, label=law.name)
    ax.set_ylim(bottom=0)
    ax.set(xlabel="position", ylabel="probability density")
    ax.legend(frameon=False)
    return ax


def densities(measured: Mapping[str, Any], *, ax: Any = None):
    """Several measured 1-D Densities, such as those of different steps, by their labels."""
    from matplotlib import colormaps

    ax = new_axes(ax)
    shades = colormaps["viridis"](np.linspace(0, 0.85, len(measured)))
    for (label, one), colour in zip(measured.items(), shades, strict=True):
        ax.fill_between(
            one.grid, one.value - one.stderr, one.value + one.stderr, color=colour, alpha=0.25, lw=0
        )
        ax.plot(one.grid, one.value, color=colour, lw=1.4, label=label)
    ax.set_ylim(bottom=0)
    ax.set(xlabel="position", ylabel="probability density")
    ax.legend(frameon=False, fontsize="small")
    return ax


def ratios(
    x: np.ndarray,
    measured: Sequence[Any],
    predictions: Mapping[str, tuple[np.ndarray, np.ndarray]],
    *,
    xlabel: str = "learning rate / batch size",
    marks: Mapping[str, float] | None = None,
    ax: Any = None,
):
    """Measured p_A/p_B (Estimates) against x, predicted curves (x, y) and marked values of x."""
    ax = new_axes(ax)
    for k, (name, (at, values)) in enumerate(predictions.items()):
        ax.plot(at, values, ("-", "--", "-.", ":")[k % 4], color=COLOURS[k % 6], lw=1.6, label=name)
    value, error = ([getattr(m, what) for m in measured] for what in ("value", "stderr"))
    ax.errorbar(x, value, yerr=error, fmt="o", ms=5, color=INK, label="measured", zorder=3)
    for k, (name, at) in enumerate((marks or {}).items()):
        ax.axvline(at, color=COLOURS[(k + 3) % 6], lw=1.2, ls=(0, (4, 3)), label=name)
    ax.axhline(1, color=INK, lw=0.8, alpha=0.6)
    ax.set(xlabel=xlabel, ylabel="occupation ratio p_A / p_B", xscale="log", yscale="log")
    plain_ticks(ax.xaxis)
    plain_ticks(ax.yaxis)
    ax.legend(frameon=False, fontsize="small", loc="lower right")
    return ax


def series(
    x: np.ndarray,
    measured: Sequence[Any],
    predictions: Mapping[str, tuple[np.ndarray, np.ndarray]],
    *,
    xlabel: str,
    ylabel: str,
    ax: Any = None,
):
    """Measured Estimates against x with error bars, and predicted curves (x, y).

    An axis is logarithmic where its values span a factor of 8 or more.
    """
    ax = new_axes(ax)
    for k, (name, (at, values)) in enumerate(predictions.items()):
        ax.plot(at, values, ("-", "--", "-.", ":")[k % 4], color=COLOURS[k % 6], lw=1.6, label=name)
    value, error = ([getattr(m, what) for m in measured] for what in ("value", "stderr"))
    ax.errorbar(x, value, yerr=error, fmt="o", ms=5, color=INK, label="measured", zorder=3)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    if np.min(x) > 0 and np.max(x) >= 8 * np.min(x):
        ax.set_xscale("log")
        plain_ticks(ax.xaxis)
    if min(value) > 0 and max(value) >= 8 * min(value):
        ax.set_yscale("log")
        plain_ticks(ax.yaxis)
    ax.legend(frameon=False, fontsize="small")
    return ax


def density_maps(measured: Any, predictions: Sequence[Any] = (), *, axes: Sequence[Any] = ()):
    """A measured 2-D Density and each predicted one as maps in the same colours, side by side.

    ``axes`` are 1 + len(predictions) Axes, made if there are none; they are returned.
    """
    from matplotlib.colors import PowerNorm

    _check(measured, 2, "density_maps")
    if not len(axes):
        import matplotlib.pyplot as plt

        axes = plt.subplots(1, 1 + len(predictions), squeeze=False, layout="constrained")[1][0]
    grid = np.stack(np.meshgrid(*measured.grid, indexing="ij"), axis=-1)
    maps = [("measured", measured.value)]
    maps += [(law.name, np.asarray(law.density(grid))) for law in predictions]
    # Colours go as the square root, so that a shallow well is seen beside a deep one.
    norm = PowerNorm(0.5, 0, max(np.nanmax(values) for _, values in maps))
    for ax, (name, values) in zip(axes, maps, strict=True):
        image = ax.pcolormesh(*measured.edges, values.T, cmap="Blues", norm=norm, rasterized=True)
        ax.set(title=name, xlabel="x")
    axes[0].set_ylabel("y")
    axes[0].figure.colorbar(image, ax=list(axes), label="probability density")
    return axes


def comparison(compared: Any, *, ax: Any = None):
    """Each row's deviation from the prediction with its 95 % interval, in per cent.

    Shaded: the margin within which every row is shown to agree. It ends with the farthest of the
    thick bars, the 90 % intervals: each of the two one-sided tests has 5 %. Rows that differ after
    Holm's correction are orange; tests of whole distributions, which have no deviation, are left
    out. Raises ParameterError where no row is left.
    """
    from langevin.analysis.significance import CONFIDENCE, quantile
    from langevin.errors import ParameterError

    rows = [row for row in compared.rows if np.isfinite(row.interval).all()][::-1]
    if not rows:
        raise ParameterError(
            "this comparison has no row with an interval to draw: observe Occupation or Moments, "
            "or draw plot.residuals(result.density(), prediction)."
        )
    ax = new_axes(ax, figsize=(7.2, 1.7 + 0.34 * len(rows)))
    if np.isfinite(compared.within):
        reach = 100 * compared.within
        label = f"within {reach:.2g} %, shown at 95 %"
        ax.axvspan(-reach, reach, color=COLOURS[0], alpha=0.12, lw=0, label=label)
    ax.axvline(0, color=INK, lw=0.9)
    for k, row in enumerate(rows):
        low, high = (100 * end for end in row.interval)
        colour = COLOURS[1] if row.p_adjusted < compared.significance else INK
        middle = 100 * row.deviation
        inner = quantile(CONFIDENCE, row.dof) / quantile((1 + CONFIDENCE) / 2, row.dof)
        thick = [middle + inner * (end - middle) for end in (low, high)]
        ax.plot([low, high], [k, k], color=colour, lw=1)
        ax.plot(thick, [k, k], color=colour, lw=3, solid_capstyle="butt")
        ax.plot(middle, k, "o", ms=6, color=colour)
    ax.set_yticks(range(len(rows)), [row.quantity for row in rows])
    ax.set_ylim(-0.7, len(rows) - 0.3)
    ax.set(xlabel=f"measured minus {compared.prediction}, %", title=compared.verdict)
    if ax.get_legend_handles_labels()[1]:
        ax.legend(frameon=False, fontsize="small", loc="best")
    return ax


def residuals(measured: Any, laws: Any, *, axes: Sequence[Any] = ()):
    """A 1-D Density beside predictions, and below it what is left of each bin, in standard errors.

    ``laws``: one prediction or several. The band is +-2; bins are compared with predicted *bin*
    probabilities, so their width is no error. ``axes`` are two Axes, made if there are none; they
    are returned.
    """
    laws = list(laws) if isinstance(laws, (list, tuple)) else [laws]
    if not len(axes):
        import matplotlib.pyplot as plt

        heights = {"height_ratios": (2, 1)}
        axes = plt.subplots(
            2, 1, sharex=True, figsize=(6.4, 5.4), layout="constrained", gridspec_kw=heights
        )[1]
    top, bottom = (new_axes(ax) for ax in axes)
    density(measured, laws, ax=top)
    top.set_xlabel("")
    bottom.axhspan(-2, 2, color=INK, alpha=0.1, lw=0)
    bottom.axhline(0, color=INK, lw=0.8)
    largest = 4.0
    for k, law in enumerate(laws):
        expected = np.asarray(law.bin_probabilities(measured.edges))
        seen = (measured.probability_stderr > 0) & (measured.probability > 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            z = (measured.probability - expected) / measured.probability_stderr
        bottom.plot(
            measured.grid, np.where(seen, z, np.nan), ".-", ms=4, lw=0.7, color=COLOURS[k % 6]
        )
        largest = max(largest, 1.1 * float(np.abs(z[seen]).max(initial=0)))
    bottom.set(xlabel="position", ylabel="standard errors", ylim=(-largest, largest))
    if largest > 20:  # linear in the band and around it, logarithmic beyond
        bottom.set_yscale("symlog", linthresh=5)
        ticks = [t for t in (-1000, -100, -10, -2, 0, 2, 10, 100, 1000) if abs(t) <= largest]
        bottom.set_yticks(ticks, [f"{t:g}" for t in ticks])
        bottom.minorticks_off()
    return axes


def plain_ticks(axis: Any) -> None:
    """Ticks at 1, 2, 5 of each decade, written as plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def variances(
    curvature: np.ndarray,
    measured: np.ndarray,
    predictions: Mapping[str, np.ndarray],
    *,
    ax: Any = None,
):
    """Variance along each eigenvector of the Hessian against its curvature, with predictions."""
    ax = new_axes(ax, figsize=(5, 4))
    for k, (name, values) in enumerate(predictions.items()):
        ax.plot(curvature, values, ("-", "--")[k % 2], color=COLOURS[k % 6], lw=1.6, label=name)
    ax.plot(curvature, measured, "o", ms=5, color=INK, label="measured", zorder=3)
    ax.set(xscale="log", yscale="log")
    ax.set(xlabel="curvature of the direction", ylabel="variance along it")
    ax.legend(frameon=False, fontsize="small")
    return ax
