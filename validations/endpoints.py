"""Networks that T6 and T7 share: all (eta, S) of a grid, followed over the epochs.

Of a seed all cells have the same images and the same start, and batches of their own. Cells of one
batch size are one run, which is measured after each epoch of ``Plan.epochs``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import harness
import networks
import numpy as np

import langevin as lv
from langevin import plot

PROBES = 8  # of a Hessian norm
CURVES = ("loss", "train", "validation")


@dataclass(frozen=True)
class Plan:
    """How much is computed for a network: cells are all pairs of ``sizes`` and ``rates``."""

    name: str
    network: Callable  # of the width
    width: int
    n: int  # images
    rates: tuple[float, ...]
    sizes: tuple[int, ...]
    epochs: tuple[int, ...]
    level: float  # of the training loss, at which cells are compared
    n_seeds: int
    first_seed: int
    normalise: str | None = None  # of the images: None leaves pixels in [0, 1]

    @property
    def pixels(self) -> str:
        """How the images are scaled."""
        return "standardised" if self.normalise else "pixels in [0, 1]"

    @property
    def eta(self) -> np.ndarray:
        """Learning rates of the cells."""
        return np.tile(self.rates, len(self.sizes))

    @property
    def size(self) -> np.ndarray:
        """Batch sizes of the cells."""
        return np.repeat(self.sizes, len(self.rates))

    @property
    def noise(self) -> np.ndarray:
        """log10 of eta/S of the cells."""
        return np.log10(self.eta / self.size)


_known: dict[tuple, dict] = {}


def trained(plan: Plan, progress: harness.Progress) -> dict[str, np.ndarray]:
    """What the cells are: curves (seeds, cells, records), the rest (seeds, cells).

    "loss" and "train" (accuracy) on the training images, "validation" accuracy, each after
    ``plan.epochs``; "norm" and "scaled" of the Hessian at the end, "norm_at", "scaled_at" and
    "validation_at" where the loss first falls to ``plan.level``. NaN for networks that diverged,
    or never came there.
    """
    settings = (*(getattr(plan, f.name) for f in fields(plan) if f.name != "network"), PROBES)
    key = (settings, harness.seed(0))
    if key not in _known:
        seeds = []
        for k in range(plan.n_seeds):
            parts = []
            for size in plan.sizes:
                progress(f"{plan.name}: seed {k + 1} of {plan.n_seeds}, S = {size}")
                seed = harness.seed(plan.first_seed + k)
                parts.append(networks.kept(
                    f"{plan.name.replace(' ', '-')}-{k}-{size}", settings,
                    lambda size=size, seed=seed: _cells(plan, size, seed),
                ))  # fmt: skip
            seeds.append({name: np.concatenate([p[name] for p in parts]) for name in parts[0]})
        _known[key] = {name: np.array([s[name] for s in seeds]) for name in seeds[0]}
    return _known[key]


def _cells(plan: Plan, size: int, seed: int) -> dict[str, np.ndarray]:
    """All learning rates of one batch size: the same as `trained`, without the axis of seeds."""
    neural = lv.neural
    module = neural.models.reset(plan.network(plan.width), seed=seed)
    train = neural.data.fashion_mnist(n=plan.n, seed=seed, normalise=plan.normalise)
    surface = neural.NeuralSurface(module, train, batch_norm="recalibrate")
    test = neural.data.fashion_mnist(train=False, normalise=plan.normalise)
    rates, start = np.array(plan.rates), "module"
    lost = np.zeros(len(rates), dtype=bool)
    curves, points, done = {name: [] for name in CURVES}, [], 0
    for k, epochs in enumerate(plan.epochs):
        steps = round((epochs - done) * plan.n / size)
        result = lv.simulate(
            surface, lv.SGD(rates, size), n_replicas=len(rates), n_steps=steps,
            seed=seed + 10_000 * (k + 1) + 10 * size, start=start, dtype="float32",
            on_divergence="absorb", progress=False,
            observe=(
                neural.Loss(every=steps),
                neural.Accuracy(every=steps, name="train"),
                neural.Accuracy(test, every=steps, name="validation"),
            ),
        )  # fmt: skip
        if result.interrupted:
            raise KeyboardInterrupt
        lost |= result.diverged >= 0
        for name, curve in curves.items():
            curve.append(np.where(lost, np.nan, result[name].final))
        points.append(result.positions)
        start = np.where(lost[:, None], surface.flat(), result.positions)
        done = epochs
    found = {name: np.array(curve).T for name, curve in curves.items()}
    norms = [_norms(surface, plan, seed, [p[j] for p in points], found, j)
             for j in range(len(rates))]  # fmt: skip
    return found | {name: np.array([one[name] for one in norms]) for name in norms[0]}


def _norms(surface, plan: Plan, seed: int, points: list, found: dict, j: int) -> dict[str, float]:
    """Of one cell, from its parameters at the records."""

    def norm(k: int, scale: str | None) -> float:
        if np.isnan(found["loss"][j, k]):
            return float("nan")
        measured = lv.neural.hessian_norm(
            surface, points[k], probes=PROBES, scale=scale, seed=seed % 2**32
        )
        return measured.value

    last = len(points) - 1
    ends = {"norm": norm(last, None), "scaled": norm(last, "layer")}
    between = crossing(found["loss"][j], plan.level)
    if between is None:
        return ends | dict.fromkeys(("norm_at", "scaled_at", "validation_at"), float("nan"))
    k, share = between
    for name, scale in (("norm_at", None), ("scaled_at", "layer")):
        low, high = np.log(norm(k, scale)), np.log(norm(k + 1, scale))
        ends[name] = float(np.exp(low + share * (high - low)))
    curve = found["validation"][j]
    return ends | {"validation_at": float(curve[k] + share * (curve[k + 1] - curve[k]))}


def crossing(loss: np.ndarray, level: float) -> tuple[int, float] | None:
    """Where a loss (records,) first falls to a level: the record before, and the share of the way.

    The way to the next record is a straight one of the logarithm. None if it does not.
    """
    below = np.flatnonzero(loss <= level)
    if not len(below) or below[0] == 0:
        return None
    k = int(below[0]) - 1
    high, low = np.log(loss[k]), np.log(loss[k + 1])
    return k, float((high - np.log(level)) / (high - low))


def rise(plan: Plan, values: np.ndarray) -> np.ndarray:
    """Of each seed the rise of values (seeds, cells) for a factor of 10 in eta/S."""
    return np.array([np.polyfit(plan.noise[good], row[good], 1)[0] for row, good in _good(values)])


def correlation(plan: Plan, values: np.ndarray) -> np.ndarray:
    """Of each seed the correlation of values (seeds, cells) with log10 of eta/S."""
    return np.array([np.corrcoef(plan.noise[good], row[good])[0, 1] for row, good in _good(values)])


def beside(plan: Plan, values: np.ndarray) -> np.ndarray:
    """Of each seed, what eta and S both times 10 change over what eta/S times 10 changes.

    0 where eta/S alone decides, 2 where eta alone does, -2 where S alone does. From the plane
    through values (seeds, cells) over log eta and log S; eta/S grows at constant eta S.
    """
    found = []
    for row, good in _good(values):
        design = np.stack([np.ones(good.sum()), np.log10(plan.eta[good]),
                           np.log10(plan.size[good])], axis=1)  # fmt: skip
        _, b, c = np.linalg.lstsq(design, row[good], rcond=None)[0]
        found.append(2 * (b + c) / (b - c))
    return np.array(found)


def _good(values: np.ndarray):
    """The seeds that have five cells or more, with the cells that they have."""
    for row in values:
        good = np.isfinite(row)
        if good.sum() >= 5:
            yield row, good


def over_seeds(values: np.ndarray) -> lv.Estimate:
    """`networks.over_seeds`; nothing where fewer than two seeds have a value."""
    if len(values) < 2:
        return lv.Estimate(float("nan"), float("nan"), 1)
    return networks.over_seeds(values)


def words(plan: Plan, values: np.ndarray, digits: str = ".3g", geometric: bool = True) -> str:
    """Means over seeds by cell, for a finding: a list in the order of eta/S."""
    order = np.lexsort((plan.size, plan.noise))
    shown = []
    for c in order:
        column = values[:, c][np.isfinite(values[:, c])]
        mean = _mean(column, geometric)
        at = f"eta = {plan.eta[c]:g}, S = {plan.size[c]}"
        shown.append(f"{format(mean, digits)} ({at})" if len(column) else f"none ({at})")
    return ", ".join(shown)


def figure(plans: list[Plan], values: list[np.ndarray], ylabel: str, caption: str, log: bool):
    """Cells over eta/S: seeds as faint points, means; a colour for each batch size of the first."""
    fig, ax = harness.axes(xlabel="eta/S", ylabel=ylabel, xscale="log")
    if log:
        ax.set_yscale("log")
    alone = len(plans) == 1
    for p, (plan, found) in enumerate(zip(plans, values, strict=True)):
        for s, size in enumerate(plan.sizes):
            here = plan.size == size
            x, y = 10 ** plan.noise[here], found[:, here]
            colour = plot.COLOURS[s if alone else p]
            label = f"S = {size}" if alone else (plan.name if s == 0 else None)
            marker = "osD^v*"[s]
            ax.plot(x, y.T, ls="", marker=marker, ms=3, color=colour, alpha=0.3, mec="none")
            means = [_mean(column, log) for column in y.T]
            ax.plot(x, means, ls="-", lw=0.9, marker=marker, ms=5, color=colour, label=label)
    low, high = (f([f(plan.noise) for plan in plans]) for f in (np.min, np.max))
    decades = np.log10(np.outer(10.0 ** np.arange(-7, 0), (1, 3))).ravel()
    at = 10 ** decades[(decades > low - 0.1) & (decades < high + 0.1)]
    ax.set_xticks(at, [f"{x:g}" for x in at])
    ax.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
    ax.legend(frameon=False)
    return caption, fig


def _mean(column: np.ndarray, log: bool) -> float:
    column = column[np.isfinite(column)]
    if not len(column):
        return float("nan")
    return float(np.exp(np.log(column).mean()) if log else column.mean())


def settings(plan: Plan) -> dict:
    """For a record."""
    return {
        "width": plan.width, "N": plan.n, "eta": plan.rates, "S": plan.sizes,
        "epochs of the records": plan.epochs, "level of the loss": plan.level,
        "seeds": f"{plan.first_seed} ... {plan.first_seed + plan.n_seeds - 1}, of a seed all cells",
        "probes of a norm": PROBES,
        "images": f"Fashion-MNIST, {plan.pixels} (a choice), others for each seed; its 10,000 test "
        "images to validate",
        "sampling": "with replacement (a choice)", "momentum": 0, "precision": "float32",
    }  # fmt: skip


def data(plan: Plan, found: dict) -> dict:
    """For a record: norms of seeds and cells, means of the curves."""
    return {
        "eta of the cells": plan.eta, "S of the cells": plan.size,
        **{name: found[name] for name in ("norm", "scaled", "norm_at", "scaled_at")},
        "validation_at": found["validation_at"].round(5),
        **{name: found[name].mean(axis=0) for name in CURVES},
        **{f"{name} at the end": found[name][:, :, -1] for name in CURVES},
    }  # fmt: skip
