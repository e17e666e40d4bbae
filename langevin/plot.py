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


def density(measured: Any, predictions: Sequence[Any] = (), *, ax: Any = None):
    """A measured 1-D Density with error bars, and predicted densities as lines."""
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
