"""K4: how sharpness goes with the loss, and how long small batches are needed before large ones."""

from __future__ import annotations

import harness
import keskar
import networks
import numpy as np

from langevin import plot

ROW = "K4"
CLAIM = (
    "As the loss falls, the sharpness along small-batch training falls and that along large-batch "
    "training rises; large batches that start from a small-batch network, late enough, end less "
    "sharp than large ones alone and generalise as well as small ones."
)
SOURCE = keskar.SOURCE + ", section 4, Figures 5 and 6"

SWITCHES = (0, 1)  # places of the levels of the loss at which small batches become large


def validate(scale: str, progress: harness.Progress) -> harness.Outcome:
    """phi of both at levels of the loss; then large batches from small-batch networks."""
    progress("training")
    found = keskar.trained(scale, harness.seed(0))
    levels = keskar.LEVELS
    phi = {}
    for name, thetas in found.theta.items():
        progress(f"sharpness, {name} batches")
        phi[name] = np.stack(
            [keskar.phi(scale, f"{name}-{at:g}", thetas[:, k]) for k, at in enumerate(levels)],
            axis=1,
        )
    progress("large batches after small ones")
    later = keskar.switched(scale, found, SWITCHES)
    alone = {name: keskar.accuracy(scale, found.last(name)) for name in found.theta}
    test = np.stack(
        [keskar.accuracy(scale, later["theta"][:, k]) for k in range(len(SWITCHES))], axis=1
    )
    phi["switched"] = np.stack(
        [keskar.phi(scale, f"switched-{levels[k]:g}", later["theta"][:, j])
         for j, k in enumerate(SWITCHES)],
        axis=1,
    )  # fmt: skip
    mean = networks.over_seeds
    rise = {name: mean(np.log10(phi[name][:, -1] / phi[name][:, 0])) for name in found.theta}
    span = f"from the training loss {levels[0]:g} to {levels[-1]:g}"
    checks = [
        harness.check(
            f"small batches: log10 of phi, its rise {span}, below 0",
            rise["small"], 0.0, scale=1.0, bound="below",
        ),
        harness.check(
            "large batches: the same, above 0", rise["large"], 0.0, scale=1.0, bound="above",

        ),
        harness.check(
            "the difference of both rises, large minus small, above 0",
            mean(np.log10(phi["large"][:, -1] / phi["large"][:, 0])
                 - np.log10(phi["small"][:, -1] / phi["small"][:, 0])),
            0.0, scale=1.0, bound="above",
        ),
        harness.check(
            f"switched at {levels[SWITCHES[-1]]:g}: log10 of phi over that of large batches alone, "
            "below 0",
            mean(np.log10(phi["switched"][:, -1] / phi["large"][:, -1])), 0.0, scale=1.0,
            bound="below",
        ),
        harness.check(
            "test accuracy, the same difference, above 0",
            mean(test[:, -1] - alone["large"]), 0.0, scale=1.0, bound="above",
        ),
        harness.check(
            "test accuracy, switched minus small batches alone, against 0",
            mean(test[:, -1] - alone["small"]), 0.0, scale=1.0, margin=0.005, approximate=True,
        ),
        harness.check(
            "control: the training loss does not fall: log10 of the last over the first, small "
            "batches, against 0",
            mean(np.log10(found.losses["small"][:, -1] / found.losses["small"][:, 0])), 0.0,
            scale=1.0, margin=0.3, approximate=True, expected="differs",
        ),
    ]  # fmt: skip
    typical = {name: 10 ** np.log10(one).mean(axis=0) for name, one in phi.items()}
    shown = ", ".join(f"{at:g}" for at in levels)
    return harness.Outcome(
        prediction="Signs: the paper has pictures.",
        measurement=keskar.described(scale)
        + "; phi in the full space at eps = 1e-3 where the loss "
        f"is first at {shown}; large batches, with Adam's memory begun anew, from small-batch "
        f"networks at {', '.join(f'{levels[k]:g}' for k in SWITCHES)} to the last level.",
        checks=checks,
        findings=[
            f"phi at the training losses {shown} (geometric means): "
            + "; ".join(
                f"{name} " + ", ".join(f"{v:.3g}" for v in typical[name]) for name in found.theta
            )
            + ". After large batches from small-batch networks at "
            + ", ".join(f"{levels[k]:g}" for k in SWITCHES)
            + ": "
            + ", ".join(f"{v:.3g}" for v in typical["switched"])
            + ".",
            f"Test accuracy at the last level: {alone['small'].mean():.4f} (small batches), "
            f"{alone['large'].mean():.4f} (large), after the switch "
            + ", ".join(f"{v:.4f}" for v in test.mean(axis=0))
            + ".",
            "Networks are compared at equal training loss, so the first claim is about where they "
            "are, not about how far they got.",
        ],
        figures=[_evolution(found, phi), _figure_switch(phi, test, alone)],
        settings=keskar.settings(scale) | {"switch at": [levels[k] for k in SWITCHES]},
        data={"phi": phi, "loss": found.losses, "test": alone | {"switched": test}},
    )


def _evolution(found, phi: dict) -> tuple:
    figure, ax = harness.axes(
        xlabel="training loss", ylabel="sharpness phi, per cent", xscale="log", yscale="log"
    )
    for k, (name, losses) in enumerate(found.losses.items()):
        ax.plot(losses.T, phi[name].T, lw=0.6, alpha=0.4, color=plot.COLOURS[k])
        x, y = (np.exp(np.log(one).mean(axis=0)) for one in (losses, phi[name]))
        ax.plot(x, y, "o-", ms=4, lw=1.6, color=plot.COLOURS[k], label=f"{name} batches")
    ax.invert_xaxis()
    _plain(ax.yaxis)
    ax.legend(frameon=False)
    return ("Training goes to the right. Paper: small batches fall, large ones rise.", figure)


def _plain(axis) -> None:
    """Plain numbers on a logarithmic axis that spans about a decade."""
    low, high = axis.get_view_interval()
    at = [x for x in (5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000) if low <= x <= high]
    axis.set_ticks(at, [str(x) for x in at])
    axis.set_ticks([], minor=True)


def _figure_switch(phi: dict, test: np.ndarray, alone: dict) -> tuple:
    figure, ax = harness.axes(
        xlabel="sharpness phi, per cent", ylabel="test accuracy", xscale="log"
    )
    for k, name in enumerate(alone):
        ax.plot(phi[name][:, -1], alone[name], "os"[k], ms=6, mec="none", color=plot.COLOURS[k],
                label=f"{name} batches")  # fmt: skip
    for j, place in enumerate(SWITCHES):
        ax.plot(phi["switched"][:, j], test[:, j], "D^"[j], ms=6, mec="none",
                color=plot.COLOURS[2 + j],
                label=f"small to {keskar.LEVELS[place]:g}, then large")  # fmt: skip
    _plain(ax.xaxis)
    ax.legend(frameon=False, ncols=2, loc="upper center", bbox_to_anchor=(0.5, 1.17))
    return ("All at the same training loss. Paper: the switch needs its time.", figure)


if __name__ == "__main__":
    harness.main(__file__)
