"""Networks that T8 and T9 share: one start, several (eta, S), ends at equal loss and equal epochs.

At quick scale both rows train the same small network, each (eta, S) once a process.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import harness
import networks
import numpy as np
import torch
from torch import nn

import langevin as lv
from langevin import plot

SOURCE = "Jastrzebski et al. 2017, Three Factors, section 4.1"
POINTS = np.linspace(-1, 2, 25)
AWAY = 0.5  # the rise from each end outwards to this distance
FIRST_SEED = 800


@dataclass(frozen=True)
class Plan:
    """How much is trained: ``cells`` are (eta, S) by name."""

    network: str  # "small", "resnet56" or "vgg11"
    cells: dict[str, tuple[float, int]]
    n: int  # images
    n_seeds: int
    level: float  # of the training loss, at which networks are compared
    epochs: int  # after which those in ``late`` are compared, too
    late: tuple[str, ...]
    most: int  # epochs
    stretch: int  # epochs between two looks at the loss
    probes: int = 8


# T8: base, eight times the batch, an eighth of the rate (the paper: a tenth). T9: b = 1/4, 1, 4.
QUICK = {
    "base": (0.1, 16), "large batch": (0.1, 128), "low rate": (0.0125, 16),
    "b = 1": (0.05, 16), "b = 4": (0.2, 64), "b = 1/4": (0.0125, 4),
}  # fmt: skip
EIGHTH = {"base": (0.1, 128), "large batch": (0.1, 1_024), "low rate": (0.0125, 128)}
# S = 50 b is no whole number for b = 1/4: 12 images, and the rate that goes with them.
FACTORS = {"b = 1": (0.1, 50), "b = 4": (0.4, 200), "b = 1/4": (0.024, 12),
           "large batch": (0.1, 400)}  # fmt: skip
_SMALL = Plan("small", QUICK, 1_000, 6, 0.3, 40, ("base", "large batch", "low rate"), 160, 2)
PLANS = {
    ("quick", "T8"): _SMALL,
    ("quick", "T9"): _SMALL,
    ("full", "T8"): Plan("resnet56", EIGHTH, 40_000, 4, 0.1, 100, tuple(EIGHTH), 600, 5, 16),
    ("full", "T9"): Plan("vgg11", FACTORS, 40_000, 4, 0.1, 0, (), 600, 5, 16),
}


@dataclass(frozen=True)
class Ends:
    """Of all seeds of one (eta, S): parameters (seeds, dim), training losses, epochs (seeds,).

    ``level`` when the loss was first seen below the level; ``late`` after equally many epochs, NaN
    where nobody asked.
    """

    level: np.ndarray
    loss: np.ndarray
    epochs: np.ndarray
    late: np.ndarray
    late_loss: np.ndarray


def small(width: int = 8) -> nn.Module:
    """Two 3x3 convolutions of stride 2 with BatchNorm and ReLU, a maximum over 2x2, a linear layer.

    For (n, 3, 32, 32): 4,010 parameters; PyTorch's initialisation.
    """
    layers: list[nn.Module] = []
    for n_in, n_out in ((3, width), (width, 2 * width)):
        layers += [nn.Conv2d(n_in, n_out, 3, stride=2, padding=1), nn.BatchNorm2d(n_out), nn.ReLU()]
    return nn.Sequential(*layers, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(2 * width * 16, 10))


_surfaces: dict[tuple, lv.neural.NeuralSurface] = {}
_known: dict[tuple, Ends] = {}


def surface(plan: Plan):
    """The training loss of a plan's network, batch normalisation with the training set's own."""
    key = (plan.network, plan.n, harness.seed(0))
    if key not in _surfaces:
        models = {"small": small, "resnet56": lv.neural.models.resnet56,
                  "vgg11": lv.neural.models.vgg11}  # fmt: skip
        torch.manual_seed(0)
        train = lv.neural.data.cifar10(
            n=plan.n, batches=(1, 2, 3, 4), seed=harness.seed(FIRST_SEED), normalise="standardise"
        )
        module = models[plan.network]()
        _surfaces[key] = lv.neural.NeuralSurface(module, train, batch_norm="recalibrate")
    return _surfaces[key]


def trained(plan: Plan, name: str, progress: harness.Progress) -> Ends:
    """The ends of one (eta, S); the starts of a plan's cells are the same, seed by seed."""
    rate, size = plan.cells[name]
    epochs = plan.epochs if name in plan.late else 0
    how = (plan.network, plan.n, plan.n_seeds, plan.level, epochs, plan.most, plan.stretch)
    key = (*how, rate, size, harness.seed(0))
    if key not in _known:
        progress(f"training at eta = {rate:g}, S = {size}")
        found = networks.kept(
            f"lines-{plan.network}-{rate:g}-{size}", (how, rate, size),
            lambda: _train(surface(plan), plan, rate, size, epochs),
        )  # fmt: skip
        _known[key] = Ends(**found)
    return _known[key]


def _train(own, plan: Plan, rate: float, size: int, until: int) -> dict[str, np.ndarray]:
    """Stretch after stretch (plain SGD remembers nothing but the weights).

    Raises UnsoundError for networks that never come down to the level.
    """
    n_steps = round(plan.stretch * plan.n / size)
    theta = loss = None
    ends = np.empty((plan.n_seeds, own.dim), np.float32)
    losses, epochs = np.full(plan.n_seeds, np.nan), np.full(plan.n_seeds, np.nan)
    late, late_loss = np.full_like(ends, np.nan), np.full_like(losses, np.nan)
    for k in range(1, -(-plan.most // plan.stretch) + 1):
        result = lv.simulate(
            own, lv.SGD(rate, size), n_replicas=plan.n_seeds, n_steps=n_steps, start=theta,
            seed=harness.seed(FIRST_SEED) if k == 1 else _seed(rate, size, k), dtype="float32",
            observe=lv.neural.Loss(every=n_steps), progress=False, on_divergence="absorb",
            checkpoint=harness.checkpoint(f"lines-{plan.network}-{rate:g}-{size}-{k}"),
        )  # fmt: skip
        if result.interrupted:
            raise KeyboardInterrupt
        theta, loss = result.positions, result["loss"].final
        fresh = np.isnan(losses) & (loss <= plan.level)
        ends[fresh], losses[fresh], epochs[fresh] = theta[fresh], loss[fresh], k * plan.stretch
        if k * plan.stretch == until:
            late, late_loss = theta.copy(), loss.copy()
        if k * plan.stretch >= until and not np.isnan(losses).any():
            break
    if np.isnan(losses).any():
        raise lv.errors.UnsoundError(
            f"eta = {rate:g}, S = {size}: after {plan.most} epochs the training losses are {loss}, "
            f"not all below {plan.level:g}."
        )
    return {"level": ends, "loss": losses, "epochs": epochs, "late": late, "late_loss": late_loss}


def _seed(rate: float, size: int, k: int) -> int:
    """Batches of their own for each (eta, S) and stretch."""
    return harness.seed(FIRST_SEED) + 10**9 * (1 + k) + 10**4 * size + round(rate * 1e6) * 10**13


def between(own, first: np.ndarray, second: np.ndarray, **options) -> list:
    """The lines of all seeds from one kind of end, a = 0, to another, a = 1."""
    pairs = zip(first, second, strict=True)
    return [lv.neural.interpolate(own, a, b, at=POINTS, **options) for a, b in pairs]


def one_scale(own, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The second ends, each convolution before a BatchNorm scaled to the first end's length.

    Their functions stay the same, up to BatchNorm's eps and a bias that it takes away.
    """
    scaled = second.copy()
    for a, b in _normalised(own):
        wanted, has = (np.linalg.norm(ends[:, a:b], axis=1, keepdims=True)
                       for ends in (first, second))  # fmt: skip
        scaled[:, a:b] *= wanted / has
    return scaled


def _normalised(own) -> list[tuple[int, int]]:
    """The places in theta of the weights of convolutions that a BatchNorm follows."""
    places = dict(zip(own.layout.names, own.layout.places, strict=True))
    found = []
    for name, part in own.module.named_modules():
        children = list(part.named_children()) if isinstance(part, nn.Sequential) else []
        for (key, child), (_, after) in itertools.pairwise(children):
            if isinstance(child, nn.Conv2d) and isinstance(after, nn.BatchNorm2d):
                found.append(places[f"{name}.{key}.weight".lstrip(".")])
    return found


def frozen(own, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """`steepness` of each seed if outwards from an end BatchNorm keeps that end's statistics."""
    found = []
    for a, b in zip(first, second, strict=True):
        rises = []
        for end, away in ((a, -AWAY), (b, 1 + AWAY)):
            still = lv.neural.NeuralSurface(
                lv.neural.recalibrated(own, end), (own.X, own.y), batch_norm="eval"
            )
            here = 0.0 if away < 0 else 1.0
            line = lv.neural.interpolate(still, a, b, at=[here, away])
            rises.append(line.loss[1] - line.loss[0])
        found.append(np.log10(rises[1] / rises[0]))
    return np.array(found)


def steepness(line) -> float:
    """log10 of the rise outwards from a = 1 over that from a = 0."""
    at = {a: line.loss[np.argmin(abs(line.at - a))] for a in (-AWAY, 0.0, 1.0, 1 + AWAY)}
    return float(np.log10((at[1 + AWAY] - at[1.0]) / (at[-AWAY] - at[0.0])))


def compared(lines: list) -> lv.Estimate:
    """The mean of `steepness` over seeds."""
    return networks.over_seeds([steepness(line) for line in lines])


def described(plan: Plan, names: tuple[str, ...]) -> str:
    """For a record, in words."""
    network = {
        "small": f"small convolutional networks with BatchNorm ({surface(plan).dim:,} parameters)",
        "resnet56": "ResNet-56",
        "vgg11": "VGG-11",
    }[plan.network]
    cells = ", ".join("({:g}, {})".format(*plan.cells[name]) for name in names)
    return (
        f"{plan.n_seeds} {network} on {plan.n:,} images of CIFAR-10 for each (eta, S) of {cells}, "
        "plain SGD, from the same starts; batches with replacement; the training loss was looked "
        f"at every {plan.stretch} epochs, and ends are the first below {plan.level:g}."
    )


def settings(plan: Plan, names: tuple[str, ...]) -> dict:
    """For a record."""
    return {
        "seed": FIRST_SEED, "replicas": plan.n_seeds, "network": plan.network,
        "images": f"{plan.n} of the first four files, standardised, the same for all replicas",
        "eta, S": {name: plan.cells[name] for name in names}, "level": plan.level,
        "epochs at most": plan.most, "stretch": plan.stretch, "equal epochs": plan.epochs,
        "away": AWAY, "BatchNorm": "statistics of the training set, at every point",
        "precision": "float32",
    }  # fmt: skip


def figure(plan: Plan, ends, lines: list, caption: str, colour=None, scaled=()) -> tuple:
    """Lines of all seeds between two kinds of ``ends``, by name, and their geometric mean.

    ``scaled``, dashed: those to ends of `one_scale`.
    """
    label = ";   ".join(f"a = {a}: {named(plan, name)}" for a, name in enumerate(ends))
    figure, ax = harness.axes(xlabel=label, ylabel="training loss", yscale="log")
    colour = colour or plot.COLOURS[0]
    both = ((lines, "-", "as they are"), (scaled, "--", "convolutions of one length"))
    for some, style, text in both:
        for line in some:
            ax.plot(line.at, line.loss, style, color=colour, lw=0.6, alpha=0.35)
        if len(some):
            mean = np.exp(np.mean([np.log(line.loss) for line in some], axis=0))
            ax.plot(POINTS, mean, style, color=colour, lw=1.8, label=text)
    for a in (0, 1):
        ax.axvline(a, color="0.7", lw=0.8, zorder=0)
    low, high = ax.get_ylim()
    shown = [y for y in (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50) if low < y < high]
    ax.set_yticks(shown, [f"{y:g}" for y in shown])
    ax.minorticks_off()
    if len(scaled):
        ax.legend(frameon=False)
    return (f"{caption} Thin: seeds; thick: geometric mean.", figure)


def named(plan: Plan, name: str) -> str:
    """(eta, S) in words."""
    return "eta = {:g}, S = {}".format(*plan.cells[name])
