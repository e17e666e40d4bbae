"""K1: small and large batches fit the training data alike, small ones generalise better."""

from __future__ import annotations

import harness
import keskar
import networks
import numpy as np

from langevin import plot

ROW = "K1"
CLAIM = (
    "Adam with small batches and with batches of a tenth of the data reaches the same training "
    "accuracy, but a lower test accuracy with large ones (F1: 98.03 against 97.81 %)."
)
SOURCE = keskar.SOURCE + ", section 2.2, Table 2"

PAPER = 0.0022  # of test accuracy, F1


def validate(scale: str, progress: harness.Progress) -> harness.Outcome:
    """Accuracies at equal training loss, from the same starts."""
    progress("training")
    found, sizes = keskar.trained(scale, harness.seed(0)), keskar.PLANS[scale].sizes
    progress("accuracies")
    right = {
        what: {name: keskar.accuracy(scale, found.last(name), *how) for name in sizes}
        for what, how in {
            "test": (), "recalibrated": ("recalibrate",), "train": ("batch", True),
        }.items()
    }  # fmt: skip
    mean = networks.over_seeds
    gap, again, fit = (
        mean(right[what]["small"] - right[what]["large"])
        for what in ("test", "recalibrated", "train")
    )
    ends = {name: found.losses[name][:, -1] for name in sizes}
    checks = [
        harness.check(
            f"test accuracy, B = {sizes['small']} minus B = {sizes['large']}, at equal training "
            "loss, above 0",
            gap, 0.0, scale=1.0, bound="above",
        ),
        harness.check(
            "the same with BatchNorm's statistics from the training images, above 0",
            again, 0.0, scale=1.0, bound="above",
        ),
        harness.check(
            "training accuracy, the same difference, against 0",
            fit, 0.0, scale=1.0, margin=0.005, approximate=True,
        ),
        harness.check(
            "log10 of the training loss, large over small batches, against 0",
            mean(np.log10(ends["large"] / ends["small"])), 0.0, scale=1.0, margin=0.2,
            approximate=True,
        ),
        harness.check(
            "control: test accuracy of the large batches against chance",
            mean(right["test"]["large"]), 0.1, margin=0.1, approximate=True, expected="differs",
        ),
    ]  # fmt: skip
    test, train = ({name: mean(right[what][name]) for name in sizes} for what in ("test", "train"))
    epochs = {
        name: found.steps[name][:, -1] / (keskar.PLANS[scale].n // sizes[name]) for name in sizes
    }
    return harness.Outcome(
        prediction="The sign; the paper's gap on F1 and all of MNIST is .22 points.",
        measurement=keskar.described(scale) + ".",
        checks=checks,
        findings=[
            f"Test accuracy {test['small'].value:.4f} +- {test['small'].stderr:.4f} (small) and "
            f"{test['large'].value:.4f} +- {test['large'].stderr:.4f} (large): a gap of "
            f"{100 * gap.value:.2f} +- {100 * gap.stderr:.2f} points, with BatchNorm's statistics "
            f"from the training images {100 * again.value:.2f} +- {100 * again.stderr:.2f}; the "
            f"paper's on F1 is {100 * PAPER:.2f}.",
            f"Training accuracy {train['small'].value:.4f} and {train['large'].value:.4f}, "
            f"training loss {ends['small'].mean():.2g} and {ends['large'].mean():.2g}, after "
            f"{epochs['small'].mean():.1f} and {epochs['large'].mean():.1f} epochs. The loss of "
            "small batches fluctuates, and is taken where it is first low.",
            "10,000 test images resolve .2 points for one network; what is tested is the "
            "difference within pairs from one start, on the same images.",
        ],
        figures=[_figure(right, sizes)],
        settings=keskar.settings(scale),
        data={"accuracy": right, "loss": ends, "epochs": epochs},
    )


def _figure(right: dict, sizes: dict) -> tuple:
    figure, ax = harness.axes(xlabel="batch size", ylabel="test accuracy", xscale="log")
    x = list(sizes.values())
    for k, (what, label) in enumerate(
        (("test", "statistics of the test images"), ("recalibrated", "of the training images"))
    ):
        both = np.array([right[what][name] for name in sizes])
        ax.plot(x, both, "o-", ms=3.5, lw=0.6, alpha=0.5, color=plot.COLOURS[k])
        ax.plot(x, both.mean(axis=1), "o-", lw=1.9, color=plot.COLOURS[k], label=label)
    networks.ticks(ax, x)
    ax.set_xlim(x[0] / 2, x[1] * 2)
    ax.legend(frameon=False)
    return (
        "Lines join networks from the same start, at equal training loss. Thick: means.",
        figure,
    )


if __name__ == "__main__":
    harness.main(__file__)
