"""K4: how sharpness goes with the loss, and how long small batches are needed before large ones."""

from __future__ import annotations

import harness
import keskar
import networks
import numpy as np

import langevin as lv
from langevin import plot

ROW = "K4"
CLAIM = (
    "As the loss falls, the sharpness along small-batch training falls and that along large-batch "
    "training rises; large batches that start from small-batch networks generalise as well as "
    "small ones only after enough epochs of those, and are less sharp then."
)
SOURCE = keskar.SOURCE + ", section 4, Figures 5 and 6"

EPOCHS = {"quick": (1, 4, 16, 64), "full": (1, 2, 4, 8, 16, 32, 64, 128, 256)}  # of the snapshots
SEEDS = {"quick": 3, "full": 24}
AFTER = 32  # epochs of large batches after the switch
EPSILON = 1e-3


def validate(scale: str, progress: harness.Progress) -> harness.Outcome:
    """Snapshots of both, their loss and phi; then large batches from each small-batch snapshot."""
    epochs, n_seeds = EPOCHS[scale], SEEDS[scale]
    width = keskar.PLANS[scale][0]
    module = lv.neural.models.batch_norm_mlp(width, keskar.DEPTH, batch_norm=False, n_in=64)
    surface = lv.neural.NeuralSurface(module, lv.neural.data.digits())
    settings = (width, epochs, n_seeds, AFTER, EPSILON, keskar.RATE, keskar.SMALL, keskar.LARGE)
    found = {}
    for name, size in (("small", keskar.SMALL), ("large", keskar.LARGE)):
        progress(f"{name} batches")
        found[name] = networks.kept(
            f"K4-{name}", settings, lambda size=size: _path(surface, size, epochs, n_seeds)
        )
    progress("large batches after small ones")
    switched = networks.kept(
        "K4-switched", settings, lambda: _switched(surface, found["small"]["theta"])
    )
    mean = networks.over_seeds
    rise = {
        name: mean(np.log10(one["phi"][:, -1] / one["phi"][:, 0])) for name, one in found.items()
    }
    small, large = (found[name]["test"][:, -1] for name in ("small", "large"))
    checks = [
        harness.check(
            f"small batches: log10 of phi after {epochs[-1]} epochs over that after {epochs[0]}, "
            "below 0",
            rise["small"], 0.0, scale=1.0, bound="below",
        ),
        harness.check(
            "large batches: the same, above 0", rise["large"], 0.0, scale=1.0, bound="above",
        ),
        harness.check(
            f"test accuracy after the switch, {epochs[-1]} over {epochs[0]} small-batch epochs "
            "before, above 0",
            mean(switched["test"][:, -1] - switched["test"][:, 0]), 0.0, scale=1.0, bound="above",
        ),
        harness.check(
            "log10 of phi after the switch, the same difference, below 0",
            mean(np.log10(switched["phi"][:, -1] / switched["phi"][:, 0])), 0.0, scale=1.0,
            bound="below",
        ),
        harness.check(
            f"test accuracy after {epochs[-1]} small-batch epochs, switched minus not, against 0",
            mean(switched["test"][:, -1] - small), 0.0, scale=1.0, margin=0.02, approximate=True,
        ),
        harness.check(
            "control: the training loss does not fall: log10 of the last over the first, small "
            "batches, against 0",
            mean(np.log10(found["small"]["loss"][:, -1] / found["small"]["loss"][:, 0])), 0.0,
            scale=1.0, margin=0.3, approximate=True, expected="differs",
        ),
    ]  # fmt: skip
    typical = {
        name: 10 ** np.log10(one["phi"]).mean(axis=0)
        for name, one in (*found.items(), ("switched", switched))
    }
    return harness.Outcome(
        prediction="Signs: the paper has pictures.",
        measurement=f"{n_seeds} networks 64-[{width} ReLU] x {keskar.DEPTH}-10 on the digits, "
        f"Adam ({keskar.RATE:g}), B = {keskar.SMALL} and {keskar.LARGE} from the same starts; phi "
        f"in the full space at eps = {EPSILON:g}; {AFTER} epochs of large batches, with Adam's "
        "memory begun anew, from every small-batch snapshot.",
        checks=checks,
        findings=[
            f"phi after {', '.join(str(e) for e in epochs)} epochs (geometric means): "
            + "; ".join(
                f"{name} " + ", ".join(f"{v:.3g}" for v in values)
                for name, values in typical.items()
            )
            + ". ('switched': after large batches from there.)",
            "The figure shows phi against the loss: where both kinds of training are at the same "
            "loss their phi is nearly the same, and what differs is the loss that they reach.",
            f"Test accuracy at the end: {small.mean():.4f} (small batches), {large.mean():.4f} "
            "(large), after the switch "
            + ", ".join(f"{v:.4f}" for v in switched["test"].mean(axis=0))
            + ".",
        ],
        figures=[_evolution(found), _figure_switch(switched, found, epochs)],
        settings={
            "seed": 3_400, "replicas": n_seeds, "epochs": epochs, "after": AFTER, "eps": EPSILON,
            "B": [keskar.SMALL, keskar.LARGE], "Adam": keskar.RATE,
        },
        data={
            name: {key: one[key] for key in ("phi", "loss", "test")}
            for name, one in (*found.items(), ("switched", switched))
        },
    )  # fmt: skip


def _train(surface, size: int, n_epochs: int, n: int, start=None) -> np.ndarray:
    result = lv.simulate(
        surface, lv.Adam(keskar.RATE, batch_size=size), n_replicas=n, dtype="float32",
        n_steps=n_epochs * keskar.N // size, seed=harness.seed(3_400), progress=False, start=start,
    )  # fmt: skip
    return result.positions


def _path(surface, size: int, epochs: tuple, n: int) -> dict[str, np.ndarray]:
    """Arrays (seeds, snapshots, ...); a shorter run is the beginning of a longer one."""
    thetas = np.stack([_train(surface, size, e, n) for e in epochs], axis=1)
    return {"theta": thetas, **_measured(surface, thetas)}


def _switched(surface, thetas: np.ndarray) -> dict[str, np.ndarray]:
    """The same after large batches from each of parameters (seeds, snapshots, dim)."""
    seeds, snapshots, dim = thetas.shape
    start = thetas.reshape(-1, dim)
    ends = _train(surface, keskar.LARGE, AFTER, len(start), start)
    return _measured(surface, ends.reshape(seeds, snapshots, dim))


def _measured(surface, thetas: np.ndarray) -> dict[str, np.ndarray]:
    X, y = lv.neural.data.digits(train=False)
    found = {key: np.empty(thetas.shape[:2]) for key in ("phi", "loss", "test")}
    for place in np.ndindex(thetas.shape[:2]):
        theta = thetas[place].astype(float)
        phi = lv.neural.sharpness(surface, theta, epsilon=EPSILON)
        found["phi"][place], found["loss"][place] = phi.value, phi.loss
        right = surface.with_parameters(thetas[place])(X).argmax(1) == y
        found["test"][place] = float(right.double().mean())
    return found


def _evolution(found: dict) -> tuple:
    figure, ax = harness.axes(
        xlabel="training loss", ylabel="sharpness phi, per cent", xscale="log", yscale="log"
    )
    for k, (name, one) in enumerate(found.items()):
        ax.plot(one["loss"].T, one["phi"].T, lw=0.6, alpha=0.4, color=plot.COLOURS[k])
        x, y = (np.exp(np.log(one[key]).mean(axis=0)) for key in ("loss", "phi"))
        ax.plot(x, y, "o-", ms=4, lw=1.6, color=plot.COLOURS[k], label=f"{name} batches")
    ax.invert_xaxis()
    ax.legend(frameon=False)
    return ("Training goes to the right. Paper: small batches fall, large ones rise.", figure)


def _figure_switch(switched: dict, found: dict, epochs: tuple) -> tuple:
    figure, ax = harness.axes(
        xlabel="small-batch epochs before the switch", ylabel="test accuracy", xscale="log"
    )
    networks.points(ax, epochs, switched["test"], plot.COLOURS[2], "after the switch", "D")
    for k, (name, one) in enumerate(found.items()):
        ax.axhline(one["test"][:, -1].mean(), color=plot.COLOURS[k], lw=1.2, ls="--",
                   label=f"{name} batches alone")  # fmt: skip
    networks.ticks(ax, epochs)
    ax.legend(frameon=False)
    return ("Paper: the switch needs its time.", figure)


if __name__ == "__main__":
    harness.main(__file__)
