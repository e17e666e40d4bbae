"""B4: the average of the weights that SGD visits lies in a wider place and generalises better."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import harness
import networks
import numpy as np
import torch

import langevin as lv
from langevin import plot
from langevin.neural.curvature import layer_scales

ROW = "B4"
CLAIM = (
    "Averaging the weights that SGD visits at a constant or a cyclical learning rate gives a "
    "better test accuracy than SGD with a decaying learning rate and the same budget, and a wider "
    "optimum, at a slightly higher training loss."
)
SOURCE = (
    "Izmailov et al. 2018, Averaging Weights Leads to Wider Optima and Better Generalization, as "
    "told by the blog post on batch size and learning rate"
)


@dataclass(frozen=True)
class Plan:
    """How much is trained, and at which learning rate; ``low`` is that at the end of a cycle."""

    network: str
    n: int
    n_test: int
    n_seeds: int
    size: int
    epochs: int
    rate: float
    averaged: float  # the constant learning rate, and the highest of a cycle
    low: float
    cycle: int  # epochs
    directions: int
    probes: int


# Izmailov et al.: VGG-16 and ResNets on CIFAR-10, S = 128, m = 0.9, weight decay, 75 % of the
# budget as usual. Here in small, the same schedule; Fashion-MNIST has a whole test set.
PLANS = {
    "quick": Plan("784-64-64-10", 10_000, 10_000, 8, 64, 24, 0.1, 0.1, 0.001, 1, 6, 8),
    "full": Plan("resnet56", 40_000, 10_000, 4, 128, 150, 0.1, 0.1, 0.001, 1, 16, 64),
}
BEFORE, HOLD, END = 0.75, 0.5, 0.9  # shares of the budget: shared; the rate held; decayed
MOMENTUM, DECAY, FINAL = 0.9, 5e-4, 0.01
AWAY = 8.0  # distance along random directions
LAYER = 0.3  # the same in units of each layer's root mean square weight
DISTANCES = (0.0, 4.0, 8.0, 12.0, 16.0)
DECAYED = "decaying"
AVERAGES = ("constant, average", "cyclical, average")


def validate(scale: str, progress: harness.Progress) -> harness.Outcome:
    """Three endings of the same training, and what their averages are like."""
    plan = PLANS[scale]
    surface, test = surface_of(plan)
    ends = networks.kept(f"B4-{plan.network}", plan, lambda: trained(plan, surface, progress))
    found = {}
    for name, theta in ends.items():
        if name == "before":
            continue
        progress(f"measuring: {name}")
        found[name] = networks.kept(
            f"B4-{plan.network}-{name}", (plan, DISTANCES, LAYER),
            lambda theta=theta: measured(surface, test, theta),
        )  # fmt: skip
        if name in (DECAYED, *AVERAGES):
            found[name] |= networks.kept(
                f"B4-{plan.network}-{name}-width", (plan, DISTANCES, LAYER),
                lambda theta=theta: width(plan, surface, theta),
            )  # fmt: skip
    stale = _stale(surface, test, ends)
    mixed = _mixed(surface, test, ends[AVERAGES[0]])
    return _outcome(plan, surface, found, stale, mixed)


def measured(surface, test, thetas: np.ndarray) -> dict[str, np.ndarray]:
    """Of each seed: test accuracy, losses, length."""
    judged = np.array([_judged(surface, test, theta) for theta in thetas])
    return {
        "accuracy": judged[:, 0],
        "test loss": judged[:, 1],
        "train loss": surface.energy(thetas),
        "length": np.linalg.norm(thetas, axis=1),
    }


def width(plan: Plan, surface, thetas: np.ndarray) -> dict[str, np.ndarray]:
    """Of each seed: rises of the training loss (seeds, distances), and the Hessian norm."""
    random = np.random.default_rng(harness.seed(410))
    line = np.zeros((plan.directions, len(thetas), len(DISTANCES)))
    layer = np.zeros((plan.directions, len(thetas)))
    train = surface.energy(thetas)
    for k in range(plan.directions):  # the same for every kind of end
        u = random.standard_normal(thetas.shape).astype(thetas.dtype)
        unit = u / np.linalg.norm(u, axis=1, keepdims=True)
        for j, r in enumerate(DISTANCES):
            line[k, :, j] = surface.energy(thetas + r * unit) - train if r else 0.0
        sizes = np.array([layer_scales(surface, theta) for theta in thetas], dtype=thetas.dtype)
        layer[k] = surface.energy(thetas + LAYER * sizes * u) - train
    norms = [lv.neural.hessian_norm(surface, t, probes=plan.probes).value for t in thetas]
    return {
        "rise": line.mean(axis=0),
        "layer": layer.mean(axis=0),
        "norm": np.array(norms),
    }


def _judged(surface, test, theta) -> tuple[float, float]:
    """Test accuracy and loss of one network; batch normalisation by the surface's policy."""
    line = lv.neural.interpolate(surface, theta, theta, at=[0.0], data=test)
    return float(line.accuracy[0]), float(line.loss[0])


def _stale(surface, test, ends) -> np.ndarray:
    """Test accuracy (seeds,) of the averages, whose statistics are those of the last iterate."""
    found = []
    for average, last in zip(ends[AVERAGES[0]], ends["constant"], strict=True):
        module = lv.neural.recalibrated(surface, last)
        still = lv.neural.NeuralSurface(module, (surface.X, surface.y), batch_norm="eval")
        found.append(_judged(still, test, average)[0])
    return np.array(found)


def _mixed(surface, test, thetas) -> np.ndarray:
    """Test accuracy of averages of two networks from different starts."""
    return np.array([_judged(surface, test, t)[0] for t in (thetas + np.roll(thetas, 1, 0)) / 2])


def _outcome(plan: Plan, surface, found, stale, mixed) -> harness.Outcome:
    mean, base = networks.over_seeds, found[DECAYED]
    above, below = ({"scale": 1.0, "bound": side} for side in ("above", "below"))
    at, wide = DISTANCES.index(AWAY), {name: found[name] for name in (DECAYED, *AVERAGES)}
    checks = []
    for name in AVERAGES:
        last = name.removesuffix(", average")
        one, kind = found[name], f"average of the {last} rate"
        checks += [
            harness.check(f"test accuracy, {kind} less SGD with a decaying rate, above 0",
                          mean(one["accuracy"] - base["accuracy"]), 0.0, **above),
            harness.check(f"test accuracy, {kind} less the last iterate at that rate, above 0",
                          mean(one["accuracy"] - found[last]["accuracy"]), 0.0, **above),
            harness.check(f"log10 of the rise of the training loss at distance {AWAY:g} along "
                          f"random directions, {kind} over decaying, below 0",
                          mean(np.log10(one["rise"][:, at] / base["rise"][:, at])), 0.0, **below),
            harness.check(f"the same at {LAYER:g} in units of each layer's weights, below 0",
                          mean(np.log10(one["layer"] / base["layer"])), 0.0, **below),
            harness.check(f"log10 of the Hessian norm, {kind} over decaying, below 0",
                          mean(np.log10(one["norm"] / base["norm"])), 0.0, **below),
            harness.check(f"training loss, {kind} less decaying, above 0",
                          mean(one["train loss"] - base["train loss"]), 0.0, **above),
        ]  # fmt: skip
    good = found[AVERAGES[0]]["accuracy"]
    checks += [
        harness.check("control: test accuracy of the average with the batch statistics of the last "
                      "iterate, less that with its own, below 0", mean(stale - good), 0.0, **below),
        harness.check("control: test accuracy of the average over two networks from different "
                      "starts, less that of either, against 0", mean(mixed - good), 0.0, scale=1.0,
                      margin=0.05, approximate=True, expected="differs"),
    ]  # fmt: skip
    return harness.Outcome(
        prediction="The signs. Izmailov et al. have 0.4 to 1.4 points on CIFAR-10 and 100.",
        measurement=f"{plan.n_seeds} networks {plan.network} with BatchNorm ({surface.dim:,} "
        f"parameters), {plan.n:,} images; {plan.epochs} epochs in all, S = {plan.size}, m = "
        f"{MOMENTUM:g}, weight decay {DECAY:g}; the first {100 * BEFORE:.0f} % are shared, then "
        f"the rate goes on falling to {FINAL * plan.rate:g}, is constant at {plan.averaged:g}, or "
        f"falls from there to {plan.low:g} in every epoch; an epoch's last weights are averaged.",
        checks=checks,
        findings=[
            "Test accuracy, %: "
            + _listed(found, lambda one: f"{100 * one['accuracy'].mean():.2f}") + ".",
            "Training and test loss: "
            + _listed(found, lambda one: f"{one['train loss'].mean():.3f} and "
                      f"{one['test loss'].mean():.3f}") + ".",
            f"Rise of the training loss at distance {AWAY:g}: "
            + _listed(wide, lambda one: f"{one['rise'][:, at].mean():.3g}")
            + ". Lengths of the weights: "
            + _listed(found, lambda one: f"{one['length'].mean():.1f}") + ".",
            "With the batch statistics of the last iterate the average of the constant rate has "
            f"{100 * stale.mean():.2f} %; the average over two starts, with statistics of its own, "
            f"{100 * mixed.mean():.1f} %.",
            "The momentum buffer starts at zero where the endings part. Averages and SGD take "
            "equally many steps. The number of images and the rate that is averaged at were chosen "
            "in runs with other seeds, where fewer images and half the rate gained less.",
            "All networks of a repetition learn the same images: the standard errors are over "
            "starts and batches, and know nothing of other images.",
        ],
        figures=[_rays(found), _accuracies(found)],
        settings={
            "seeds": "400 ... 404", **dataclasses.asdict(plan),
            "momentum": MOMENTUM, "weight decay": DECAY, "shared": BEFORE,
            "rate falls": [HOLD, END],
            "BatchNorm": "statistics of the training set, recomputed", "precision": "float32",
        },
        data={"stale": stale, "two starts": mixed, "distances": DISTANCES, **found},
    )  # fmt: skip


def _listed(found: dict, say) -> str:
    return ", ".join(f"{say(one)} ({name})" for name, one in found.items())


def _rays(found: dict) -> tuple:
    figure, ax = harness.axes(xlabel="distance along random directions", ylabel="training loss")
    for k, name in enumerate((DECAYED, *AVERAGES)):
        curves = found[name]["train loss"][:, None] + found[name]["rise"]
        ax.plot(DISTANCES, curves.T, color=plot.COLOURS[k], lw=0.6, alpha=0.35)
        ax.plot(DISTANCES, curves.mean(axis=0), "o-", ms=4, color=plot.COLOURS[k], label=name)
    ax.legend(frameon=False)
    return ("Thin: seeds. Paper: the averages begin higher and rise less.", figure)


def _accuracies(found: dict) -> tuple:
    figure, ax = harness.axes(xlabel="training loss", ylabel="test accuracy")
    marks = {DECAYED: "D", "constant": "o", "cyclical": "s"}
    for k, name in enumerate(found):
        last, filled = name.removesuffix(", average"), "average" in name
        colour = plot.COLOURS[list(marks).index(last)]
        ax.plot(found[name]["train loss"], found[name]["accuracy"], ls="", ms=5, marker=marks[last],
                color=colour, mfc=colour if filled or last == DECAYED else "none", label=name,
                zorder=3 + k)  # fmt: skip
    ax.legend(frameon=False)
    return ("Each point is one network. Paper: averages lie above and not to the left.", figure)


def surface_of(plan: Plan):
    """The training loss and the test data."""
    neural, seed = lv.neural, harness.seed(400)
    torch.manual_seed(0)
    if plan.network == "resnet56":
        module, of = neural.models.resnet56(), neural.data.cifar10
        train = of(n=plan.n, seed=seed, batches=(1, 2, 3, 4), normalise="standardise")
        test = of(n=plan.n_test, seed=seed, batches=(5,), normalise="standardise")
    else:
        module, of = neural.models.batch_norm_mlp(64, 2), neural.data.fashion_mnist
        train = of(n=plan.n, seed=seed, normalise="standardise")
        test = of(train=False, n=plan.n_test, seed=seed, normalise="standardise")
    return neural.NeuralSurface(module, train, batch_norm="recalibrate"), test


def factors(plan: Plan, n_steps: int) -> dict[str, np.ndarray]:
    """The learning rate of every step over the highest: before, and of the three endings."""
    share = np.arange(n_steps) / n_steps
    fall = np.clip((share - HOLD) / (END - HOLD), 0, 1)
    usual = 1 + (FINAL - 1) * fall
    before = round(BEFORE * n_steps)
    length = plan.cycle * (plan.n // plan.size)
    phase = (np.arange(n_steps - before) % length + 1) / length
    high, low = plan.averaged / plan.rate, plan.low / plan.rate
    return {
        "before": usual[:before],
        DECAYED: usual[before:],
        "constant": np.full(n_steps - before, high),
        "cyclical": high + (low - high) * phase,
    }


def trained(plan: Plan, surface, progress) -> dict[str, np.ndarray]:
    """Ends and averages (seeds, dim) by name."""
    per_epoch = plan.n // plan.size
    found, rows = {}, None
    for name, table in factors(plan, plan.epochs * per_epoch).items():
        progress(f"training, {name}")
        rate = lv.schedules.Table(plan.rate, table)
        observe = [lv.neural.BatchLoss(every=len(table))]
        if name not in ("before", DECAYED):
            observe.append(lv.neural.WeightAverage(every=plan.cycle * per_epoch))
        result = lv.simulate(
            surface, lv.SGD(rate, plan.size, momentum=MOMENTUM, weight_decay=DECAY),
            n_replicas=plan.n_seeds, n_steps=len(table), start=rows, dtype="float32",
            seed=harness.seed(401 + len(found)), observe=observe, progress=harness.bars,
            checkpoint=harness.checkpoint(f"B4-{plan.network}-run-{name}"),
        )  # fmt: skip
        if result.interrupted:
            raise KeyboardInterrupt
        if name == "before":
            rows = result.positions
        found[name] = result.positions
        if len(observe) > 1:
            average = result["weight_average"].positions
            found[f"{name}, average"] = average.astype(np.float32)
    return found


if __name__ == "__main__":
    harness.main(__file__)
