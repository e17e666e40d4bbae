"""Trained networks that several validations share: Smith and Le's 784-800-10 at every batch size.

Computed once a process; at full scale, with ``--work DIR``, once and for all: a finished run of a
seed is read from its checkpoint.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import harness
import numpy as np

import langevin as lv

# Stated by the paper: 1,000 images, eps = 1, m = 0.9, no regularisation. Unstated, and chosen here:
# images of unit Euclidean norm, PyTorch's initialisation, batches without replacement.
N, RATE, MOMENTUM = 1_000, 1.0, 0.9
SIZES = (1, 2, 3, 5, 10, 20, 30, 50, 80, 120, 200, 300, 500, 1_000)
LINEAR_SIZES = (30, 80, 300, 1_000)
PIXEL_SIZES = (30, 80, 300, 500, 1_000)
PENALISED_SIZES = (30, 80, 1_000)
LAMBDA = 0.1  # of the summed cost, as the paper writes it: lambda/N of the mean


@dataclass(frozen=True)
class Plan:
    """How much is computed."""

    hidden: int
    n_steps: int
    sizes: tuple[int, ...]
    n_seeds: int
    every: int  # steps between two records
    linear_steps: int
    pixel_seeds: int
    pixel_steps: int
    pixel_hidden: int = 100


PLANS = {
    "quick": Plan(100, 2_000, (1, 3, 10, 20, 30, 50, 80, 120, 200, 500, 1_000), 4, 100, 1_500, 2,
                  500),
    "full": Plan(800, 10_000, SIZES, 3, 200, 10_000, 4, 2_000),
}  # fmt: skip


@dataclass(frozen=True)
class Training:
    """Curves of all seeds and batch sizes: arrays (seeds, sizes, records) after ``steps``."""

    sizes: tuple[int, ...]
    steps: np.ndarray
    accuracy: np.ndarray  # share of the 10,000 test images
    test_loss: np.ndarray
    train_loss: np.ndarray
    n_diverged: int

    def of(self, size: int, which: str = "accuracy") -> np.ndarray:
        """The curves of one batch size, (seeds, records)."""
        return getattr(self, which)[:, self.sizes.index(size)]

    @property
    def final(self) -> np.ndarray:
        """Test accuracy after the last step, (seeds, sizes)."""
        return self.accuracy[:, :, -1]


def smith_le(scale: str, progress: harness.Progress) -> Training:
    """784-hidden-10 at every batch size of the plan; each seed has images of its own."""
    plan = PLANS[scale]
    module = lv.neural.models.smith_le(plan.hidden)
    return _train(
        f"784-{plan.hidden}-10", module, plan.sizes, plan.n_steps, plan.every, plan.n_seeds,
        "unit_norm", 2_300, progress,
    )  # fmt: skip


def penalised(scale: str, progress: harness.Progress) -> Training:
    """The same with lambda = 0.1 and three batch sizes; each seed has the images of `smith_le`."""
    plan = PLANS[scale]
    module = lv.neural.models.smith_le(plan.hidden)
    return _train(
        f"784-{plan.hidden}-10 with lambda {LAMBDA:g}", module, PENALISED_SIZES, plan.n_steps,
        plan.every, plan.n_seeds, "unit_norm", 2_300, progress, l2=LAMBDA / N,
    )  # fmt: skip


def linear(scale: str, progress: harness.Progress) -> Training:
    """The same without a hidden layer: the paper found no generalisation gap there."""
    plan = PLANS[scale]
    module = lv.neural.models.logistic_regression()
    every = plan.linear_steps // 5
    return _train(
        "784-10", module, LINEAR_SIZES, plan.linear_steps, every, plan.n_seeds, "unit_norm", 2_300,
        progress,
    )  # fmt: skip


def pixels(scale: str, progress: harness.Progress) -> Training:
    """A small network on images that were not scaled, pixels in [0, 1]."""
    plan = PLANS[scale]
    module = lv.neural.models.smith_le(plan.pixel_hidden)
    return _train(
        f"784-{plan.pixel_hidden}-10, pixels in [0, 1]", module, PIXEL_SIZES, plan.pixel_steps,
        plan.pixel_steps // 5, plan.pixel_seeds, None, 2_300, progress,
    )  # fmt: skip


_known: dict[tuple, Training] = {}


def _train(
    name, module, sizes, n_steps, every, n_seeds, normalise, first_seed, progress, l2=0.0
):  # fmt: skip
    key = (name, sizes, n_steps, n_seeds, harness.seed(first_seed))
    if key not in _known:
        names, curves, lost = ("test_accuracy", "test_loss", "loss"), [], 0
        for k in range(n_seeds):
            progress(f"{name}: seed {k + 1} of {n_seeds}")
            seed = harness.seed(first_seed + k)
            run = _one_seed(name, module, sizes, n_steps, every, normalise, seed, l2)
            curves.append([run[one].values for one in names])
            lost += int((run.diverged >= 0).sum())
            steps = run["loss"].steps
        _known[key] = Training(sizes, steps, *np.moveaxis(np.array(curves), 1, 0), lost)
    return _known[key]


def _one_seed(name, module, sizes, n_steps, every, normalise, seed, l2):
    """All batch sizes in one run; images, initial weights and batches belong to the seed.

    Raises KeyboardInterrupt after Ctrl-C: curves cut short are no measurement.
    """
    neural = lv.neural
    train = neural.data.mnist(n=N, seed=seed, normalise=normalise)
    test = test_images(normalise)
    result = lv.simulate(
        neural.NeuralSurface(module, train, l2=l2),
        lv.SGD(RATE, np.array(sizes), momentum=MOMENTUM, sampling="without_replacement"),
        n_replicas=len(sizes),
        n_steps=n_steps,
        seed=seed,
        observe=(
            neural.Accuracy(test, every=every, name="test_accuracy"),
            neural.Loss(test, every=every, name="test_loss"),
            neural.Loss(every=every),
        ),
        dtype="float32",
        on_divergence="absorb",
        checkpoint=harness.checkpoint(f"{name.split(',')[0]}-{normalise}-{seed}"),
        checkpoint_every=120,
        progress=harness.bars,
    )
    if result.interrupted:
        raise KeyboardInterrupt
    return result


@functools.cache
def test_images(normalise: str | None):
    """MNIST's 10,000 test images."""
    return lv.neural.data.mnist(train=False, normalise=normalise)


def kept(name: str, settings: Any, compute: Callable[[], dict]) -> dict[str, np.ndarray]:
    """What ``compute`` gives, numbers by name: with ``--work`` computed once and for all.

    A file of other ``settings`` is not read, but written anew.
    """
    place = harness.checkpoint(name)
    if place is None:
        return compute()
    path = place.with_name(place.name + ".npz")
    if path.is_file():
        with np.load(path) as found:
            if str(found["settings"]) == repr(settings):
                return {key: found[key] for key in found.files if key != "settings"}
    made = {key: np.asarray(value) for key, value in compute().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name("part-" + path.name)
    np.savez(half, settings=repr(settings), **made)
    half.replace(path)
    return made


def digits(sgd, *, n_steps: int, n_replicas: int, seed: int, every: int, n: int | None = None):
    """64-64-10 on the digits that come with scikit-learn: the result of an ensemble.

    Observes the share of right answers among the 360 test images, the loss on the training images,
    and the losses of the mini-batches.
    """
    neural = lv.neural
    return lv.simulate(
        neural.NeuralSurface(neural.models.smith_le(64, n_in=64), neural.data.digits(n=n)),
        sgd,
        n_replicas=n_replicas,
        n_steps=n_steps,
        seed=harness.seed(seed),
        observe=(
            neural.Accuracy(neural.data.digits(train=False), every=every, name="test_accuracy"),
            neural.Loss(every=every),
            neural.BatchLoss(every=every),
        ),
        dtype="float32",
        on_divergence="absorb",
        progress=False,
    )


def over(a: lv.Estimate, b: lv.Estimate) -> lv.Estimate:
    """The quotient of two independent measurements."""
    spread = float(np.hypot(a.stderr / a.value, b.stderr / b.value))
    return lv.Estimate(a.value / b.value, abs(a.value / b.value) * spread, min(a.dof, b.dof))


def minus(a: lv.Estimate, b: lv.Estimate) -> lv.Estimate:
    """The difference of two independent measurements."""
    spread = float(np.hypot(a.stderr, b.stderr))
    return lv.Estimate(a.value - b.value, spread, min(a.dof, b.dof))


def over_seeds(values: np.ndarray) -> lv.Estimate:
    """Mean of one number a seed, with its standard error and degrees of freedom."""
    values = np.asarray(values, dtype=float)
    n = len(values)
    return lv.Estimate(float(values.mean()), float(values.std(ddof=1) / np.sqrt(n)), n - 1)


def best_of_the_others(final: np.ndarray) -> np.ndarray:
    """For each seed, the place (seeds,) of the batch size that is best on average over the others.

    What that size reaches on this seed has no bias of selection.
    """
    total = final.sum(axis=0)
    return np.argmax(total - final, axis=1)


def choices(plan: Plan) -> dict:
    """For a record."""
    return {
        "images": f"{N} of MNIST, others for each seed; 10,000 to test",
        "normalisation": "unit Euclidean norm (a choice)",
        "initialisation": "PyTorch's (a choice)",
        "sampling": "without replacement (a choice)",
        "eps": RATE,
        "m": MOMENTUM,
        "hidden units": plan.hidden,
        "steps": plan.n_steps,
        "batch sizes": plan.sizes,
        "seeds": f"2300 ... {2_300 + plan.n_seeds - 1}, of a seed all batch sizes",
        "precision": "float32",
    }


def points(ax, x, values: np.ndarray, colour: str, label: str, marker: str = "o") -> None:
    """Seeds (seeds, x) as faint points, their mean with its standard error."""
    x = np.asarray(x)
    ax.plot(x, values.T, ls="", marker=marker, ms=3, color=colour, alpha=0.3, mec="none")
    error = values.std(axis=0, ddof=1) / np.sqrt(len(values))
    ax.errorbar(
        x, values.mean(axis=0), error, fmt=f"{marker}-", ms=4.5, lw=1.2, color=colour, label=label
    )


def ticks(ax, at) -> None:
    """Plain numbers on a logarithmic axis."""
    ax.set_xticks(at, [f"{x:g}" for x in at])
    ax.minorticks_off()
