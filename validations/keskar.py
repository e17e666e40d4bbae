"""Networks that K1, K2 and K3 share: Keskar's F1 in small, with small and with large batches."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import harness
import networks
import numpy as np

import langevin as lv

SOURCE = "Keskar, Mudigere et al. 2017, On Large-Batch Training (arXiv 1609.04836)"
# The paper: 784-[512, BatchNorm, ReLU] x 5-10 on MNIST, Adam, batches of 256 and of a tenth of the
# data. Here the digits, narrower, and without BatchNorm (choices), with the same tenth.
N, DEPTH = 1_437, 5
SMALL, LARGE = 8, 144
RATE = 2e-3
PLANS = {"quick": (32, 4, 80), "full": (64, 24, 240)}  # units, seeds, epochs


@dataclass(frozen=True)
class Trained:
    """Parameters (seeds, dim) of small and large batches from the same starts, and their ends."""

    surface: lv.neural.NeuralSurface
    small: np.ndarray
    large: np.ndarray
    test: dict[str, np.ndarray]  # accuracy (seeds,)
    train: dict[str, np.ndarray]
    loss: dict[str, np.ndarray]


@functools.cache
def trained(scale: str, shift: int) -> Trained:
    """Both for each seed; ``shift`` is that of the seeds, for the memory of this function."""
    width, n_seeds, epochs = PLANS[scale]
    neural = lv.neural
    module = neural.models.batch_norm_mlp(width, DEPTH, batch_norm=False, n_in=64)
    surface = neural.NeuralSurface(module, neural.data.digits())
    kept = {}
    for name, size in (("small", SMALL), ("large", LARGE)):
        kept[name] = networks.kept(
            f"K-{name}", (width, n_seeds, epochs, SMALL, LARGE, RATE),
            lambda size=size: _train(surface, size, n_seeds, epochs),
        )  # fmt: skip
    return Trained(
        surface,
        kept["small"]["theta"],
        kept["large"]["theta"],
        *({key: kept[key][what] for key in kept} for what in ("test", "train", "loss")),
    )


def _train(surface, size: int, n_seeds: int, epochs: int) -> dict[str, np.ndarray]:
    """The same seed gives the same starts for both batch sizes."""
    neural = lv.neural
    n_steps = epochs * N // size
    result = lv.simulate(
        surface, lv.Adam(RATE, batch_size=size), n_replicas=n_seeds, n_steps=n_steps,
        seed=harness.seed(3_100), dtype="float32", progress=False,
        observe=(
            neural.Accuracy(neural.data.digits(train=False), every=n_steps, name="test"),
            neural.Accuracy(every=n_steps, name="train"),
            neural.Loss(every=n_steps),
        ),
    )  # fmt: skip
    return {
        "theta": result.positions,
        **{name: result[name].values[:, -1] for name in ("test", "train", "loss")},
    }


def settings(scale: str) -> dict:
    """For a record."""
    width, n_seeds, epochs = PLANS[scale]
    return {
        "seed": 3_100, "replicas": n_seeds, "epochs": epochs, "B": [SMALL, LARGE], "Adam": RATE,
        "network": f"64-[{width} ReLU] x {DEPTH}-10, without BatchNorm (a choice)",
        "images": f"digits, {N} to train, 360 to test",
    }  # fmt: skip


def described(scale: str) -> str:
    """For a record, in words."""
    width, n_seeds, epochs = PLANS[scale]
    return (
        f"{n_seeds} networks 64-[{width} ReLU] x {DEPTH}-10 on the digits, {epochs} epochs of Adam "
        f"({RATE:g}) with batches of {SMALL} and, from the same starts, of {LARGE}, a tenth of the "
        "data"
    )
