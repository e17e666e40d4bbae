"""Networks that K1 to K4 share: Keskar's F1 on MNIST, small and large batches at equal loss.

The paper: 784-[512, BatchNorm, ReLU] x 5-10, Adam, batches of 256 and of a tenth of the data.
Full scale is that. At quick scale a tenth of the images, 6,000: large batches are a tenth of them,
and small ones 64, for 256 would be nearly half as large, and 26, the paper's ratio, would give
statistics of batch normalisation far noisier than the paper's and need three times the steps.
Choices, unstated in the paper: Adam's rate 1e-3 (Keras'), epochs shuffled, pixels in [0, 1],
PyTorch's initialisation. Batch normalisation takes the statistics of all images measured together,
as the authors' layers (Keras' mode 2) took those of what they were given in tests, too.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import harness
import networks
import numpy as np

import langevin as lv

SOURCE = "Keskar, Mudigere et al. 2017, On Large-Batch Training (arXiv 1609.04836)"
RATE = 1e-3
LEVELS = (0.1, 0.03, 0.01)  # of the training loss; at the last one, networks are compared
EPOCHS = 60  # at most
LOOKS = {"small": 2, "large": 5}  # at the training loss, in an epoch
SEED = 3_100


@dataclass(frozen=True)
class Plan:
    """How much is computed; ``measured`` of the training images are those of phi and of lines."""

    n: int
    small: int
    n_seeds: int
    measured: int

    @property
    def sizes(self) -> dict[str, int]:
        """Of small and large batches."""
        return {"small": self.small, "large": self.n // 10}


PLANS = {"quick": Plan(6_000, 64, 5, 1_000), "full": Plan(60_000, 256, 5, 10_000)}
# How phi is measured: half-widths, and batch normalisation with the statistics of the centre.
BOXES = {
    "1e-3": {"epsilon": 1e-3},
    "5e-4": {"epsilon": 5e-4},
    "layer": {"epsilon": 1e-2, "box": "layer"},
    "frozen": {"epsilon": 1e-3},
    "lbfgsb": {"epsilon": 1e-3, "method": "lbfgsb"},
}


@dataclass(frozen=True)
class Trained:
    """Weights (seeds, levels, dim), and at which ``steps`` and ``losses``, by batch size."""

    theta: dict[str, np.ndarray]
    steps: dict[str, np.ndarray]
    losses: dict[str, np.ndarray]

    def last(self, name: str) -> np.ndarray:
        """The weights (seeds, dim) at the lowest level."""
        return self.theta[name][:, -1]


@functools.cache
def surface(scale: str, shift: int, n: int | None = None) -> lv.neural.NeuralSurface:
    """F1 on the training images, or on the first ``n`` of them; ``shift`` is that of the seeds."""
    X, y = lv.neural.data.mnist(n=PLANS[scale].n, seed=harness.seed(SEED))
    return lv.neural.NeuralSurface(lv.neural.models.f1(), (X[:n], y[:n]))


@functools.cache
def trained(scale: str, shift: int) -> Trained:
    """Both batch sizes from the same starts, each network until it is at the lowest level."""
    found = {name: _train(scale, name, LEVELS) for name in PLANS[scale].sizes}
    keys = ("theta", "steps", "losses")
    return Trained(*({name: one[key] for name, one in found.items()} for key in keys))


def _train(scale: str, name: str, levels: tuple, start=None, label: str = "") -> dict:
    """Where each of ``levels`` is first reached; ``start`` (networks, dim) or drawn by the seed."""
    plan = PLANS[scale]
    size = plan.sizes[name]
    label, epoch = label or name, plan.n // size
    at_loss = lv.neural.AtLoss(levels, every=max(1, epoch // LOOKS[name]), stop=True)

    def compute():
        result = lv.simulate(
            surface(scale, harness.seed(0)),
            lv.Adam(RATE, batch_size=size, sampling="epoch_shuffle"),
            n_replicas=plan.n_seeds if start is None else len(start), n_steps=EPOCHS * epoch,
            seed=harness.seed(SEED), dtype="float32", start=start, observe=(at_loss,),
            checkpoint=harness.checkpoint(f"K-run-{label}"), checkpoint_every=120,
            progress=harness.bars,
        )  # fmt: skip
        if result.interrupted:
            raise KeyboardInterrupt
        found = result["at_loss"]
        if not found.everywhere:
            raise lv.errors.UnsoundError(f"{label}: the loss {levels[-1]} was not reached.")
        return {"theta": found.positions, "steps": found.steps, "losses": found.losses}

    return networks.kept(f"K-{label}", (plan, levels, RATE), compute)


def switched(scale: str, found: Trained, levels: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Large batches from small-batch weights at ``levels`` (places) to the lowest level's loss.

    Arrays (seeds, levels, ...). Adam's memory begins anew, as in the authors' code.
    """
    start = found.theta["small"][:, levels]
    ends = _train(scale, "large", LEVELS[-1:], start.reshape(-1, start.shape[-1]), "switched")
    return {key: array.reshape(*start.shape[:2], *array.shape[2:]) for key, array in ends.items()}


_known: dict[tuple, np.ndarray] = {}


def phi(scale: str, label: str, thetas: np.ndarray, box: str = "1e-3") -> np.ndarray:
    """Sharpness (networks,) in the full space of weights (networks, dim); ``label`` names them."""
    plan, key = PLANS[scale], (scale, harness.seed(0), label, box)
    if key not in _known:
        kept = networks.kept(
            f"K-phi-{label}-{box}", (plan, LEVELS, BOXES[box]),
            lambda: {"phi": [_phi(scale, theta, box) for theta in thetas]},
        )  # fmt: skip
        _known[key] = np.asarray(kept["phi"])
    return _known[key]


def _phi(scale: str, theta: np.ndarray, box: str) -> float:
    shift, m = harness.seed(0), PLANS[scale].measured
    some = surface(scale, shift, m)
    if box == "frozen":
        module = lv.neural.recalibrated(surface(scale, shift), theta)
        some = lv.neural.NeuralSurface(module, (some.X, some.y), batch_norm="eval")
    options = {"method": "ascent", "dtype": "float32", **BOXES[box]}
    return lv.neural.sharpness(some, theta, **options).value


def accuracy(scale: str, thetas: np.ndarray, policy: str = "batch", train: bool = False):
    """Share of right answers (networks,) among the test images, or the training images."""
    own = surface(scale, harness.seed(0))
    data = None if train else networks.test_images(None)
    lines = (
        lv.neural.interpolate(own, theta, theta, at=(0.0,), data=data, batch_norm=policy)
        for theta in thetas
    )
    return np.array([line.accuracy[0] for line in lines])


def settings(scale: str) -> dict:
    """For a record."""
    plan = PLANS[scale]
    return {
        "seed": SEED, "replicas": plan.n_seeds, "B": list(plan.sizes.values()), "Adam": RATE,
        "loss levels": LEVELS, "looks an epoch": LOOKS,
        "network": "784-[512, BatchNorm, ReLU] x 5-10",
        "images": f"{plan.n} of MNIST to train, 10,000 to test; phi and lines on the first "
        f"{plan.measured} of those to train",
        "BatchNorm": "statistics of the images measured; 'frozen': those of the weights in the "
        "box's centre on all training images",
        "maximiser": "projected ascent, 10 iterations, float32",
    }  # fmt: skip


def described(scale: str) -> str:
    """For a record, in words."""
    plan = PLANS[scale]
    return (
        f"{plan.n_seeds} networks F1 on {plan.n} images of MNIST, Adam ({RATE:g}) with batches of "
        f"{plan.sizes['small']} and, from the same starts, of {plan.sizes['large']}, a tenth of "
        f"the data, each until its training loss is first at or below {LEVELS[-1]:g}"
    )
