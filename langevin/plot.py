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
    fine = np.linspace(measured.edges[0][0], measured.edges[0][-1], 1001)
    for k, law in enumerate(predictions):
        ax.plot(fine, law.density(fine[:, None]), color=COLOURS[k % 6], lw=1.5, label=law.name)
    ax.set_ylim(bottom=0)
    ax.set(xlabel="position", ylabel="probability density")
    ax.legend(frameon=False)
    return ax


def ratios(
    x: np.ndarray,
    measured: Sequence[Any],
    predictions: Mapping[str, np.ndarray],
    *,
    xlabel: str = "learning rate / batch size",
    marks: Mapping[str, float] | None = None,
    ax: Any = None,
):
    """Measured p_A/p_B (Estimates) against x, with predicted curves and marked values of x."""
    ax = new_axes(ax)
    for k, (name, values) in enumerate(predictions.items()):
        style = ("-", "--", "-.", ":")[k % 4]
        ax.plot(x, values, style, color=COLOURS[k % 6], lw=1.6, label=name)
    value = [m.value for m in measured]
    error = [m.stderr for m in measured]
    ax.errorbar(x, value, yerr=error, fmt="o", ms=5, color=INK, label="measured", zorder=3)
    for k, (name, at) in enumerate((marks or {}).items()):
        ax.axvline(at, color=COLOURS[(k + 3) % 6], lw=1.2, ls=(0, (4, 3)), label=name)
    ax.axhline(1, color=INK, lw=0.8, alpha=0.6)
    ax.set_yscale("log")
    ax.set_xscale("log")
    ax.set(xlabel=xlabel, ylabel="occupation ratio p_A / p_B")
    ax.legend(frameon=False, fontsize="small")
    return ax


def against(
    predicted: np.ndarray, measured: np.ndarray, stderr: np.ndarray, *, label: str, k: int = 0, ax=None
):
    """Measured values with error bars against predicted ones, with the diagonal."""
    ax = new_axes(ax, figsize=(4.6, 4.4))
    ax.errorbar(predicted, measured, yerr=stderr, fmt="o", ms=3.5, lw=1, color=COLOURS[k], label=label)
    low = min(np.min(predicted), np.min(measured))
    high = max(np.max(predicted), np.max(measured))
    margin = 0.05 * (high - low)
    ends = [low - margin, high + margin]
    ax.plot(ends, ends, color=INK, lw=0.8, alpha=0.6, zorder=0)
    ax.set(xlabel="predicted", ylabel="measured")
    ax.legend(frameon=False, fontsize="small")
    return ax
