"""K1: small and large batches fit the training data alike, small ones generalise better."""

from __future__ import annotations

import harness
import keskar
import networks

from langevin import plot

ROW = "K1"
CLAIM = (
    "Adam with small batches and with batches of a tenth of the data reaches the same training "
    "accuracy, but a lower test accuracy with large ones (F1: 98.03 against 97.81 %)."
)
SOURCE = keskar.SOURCE + ", section 2.2, Table 2"

PAPER = 0.0022  # of test accuracy, F1


def validate(scale: str, progress: harness.Progress) -> harness.Outcome:
    """Accuracies after equally many epochs, from the same starts."""
    progress("training")
    found = keskar.trained(scale, harness.seed(0))
    mean = networks.over_seeds
    gap = mean(found.test["small"] - found.test["large"])
    fit = mean(found.train["small"] - found.train["large"])
    checks = [
        harness.check(
            f"test accuracy, B = {keskar.SMALL} minus B = {keskar.LARGE}, above 0",
            gap, 0.0, scale=1.0, bound="above",
        ),
        harness.check(
            "training accuracy, the same difference, against 0",
            fit, 0.0, scale=1.0, margin=0.005, approximate=True,
        ),
        harness.check(
            "control: test accuracy of the large batches against chance",
            mean(found.test["large"]), 0.1, margin=0.1, approximate=True, expected="differs",
        ),
    ]  # fmt: skip
    ends = {
        (what, name): mean(getattr(found, what)[name])
        for what in ("test", "train", "loss") for name in ("small", "large")
    }  # fmt: skip
    return harness.Outcome(
        prediction="The sign; the paper's gap on F1 is .22 points.",
        measurement=keskar.described(scale) + ".",
        checks=checks,
        findings=[
            f"Test accuracy {ends['test', 'small'].value:.4f} +- {ends['test', 'small'].stderr:.4f}"
            f" (small) and {ends['test', 'large'].value:.4f} +- {ends['test', 'large'].stderr:.4f} "
            f"(large): a gap of {100 * gap.value:.2f} +- {100 * gap.stderr:.2f} points, the "
            f"paper's on F1 is {100 * PAPER:.2f}.",
            f"Training accuracy {ends['train', 'small'].value:.4f} and "
            f"{ends['train', 'large'].value:.4f}, training loss "
            f"{ends['loss', 'small'].value:.2g} and {ends['loss', 'large'].value:.2g}.",
            "360 test images resolve .3 points: a gap as small as the paper's needs many networks.",
        ],
        figures=[_figure(found)],
        settings=keskar.settings(scale),
        data={"test": found.test, "train": found.train, "loss": found.loss},
    )


def _figure(found) -> tuple:
    figure, ax = harness.axes(xlabel="batch size", ylabel="accuracy", xscale="log")
    for k, (what, label) in enumerate((("test", "test"), ("train", "training"))):
        both = getattr(found, what)
        for a, b in zip(both["small"], both["large"], strict=True):
            ax.plot([keskar.SMALL, keskar.LARGE], [a, b], "o-", ms=3.5, lw=0.6, alpha=0.5,
                    color=plot.COLOURS[k])  # fmt: skip
        means = [both["small"].mean(), both["large"].mean()]
        ax.plot([keskar.SMALL, keskar.LARGE], means, "o-", lw=1.9, color=plot.COLOURS[k],
                label=label)  # fmt: skip
    networks.ticks(ax, (keskar.SMALL, keskar.LARGE))
    ax.set_xlim(keskar.SMALL / 2, keskar.LARGE * 2)
    ax.legend(frameon=False)
    return ("Lines join networks from the same start. Thick: means.", figure)


if __name__ == "__main__":
    harness.main(__file__)
