"""S7: with L2 regularisation the generalisation gap shrinks and the test cross-entropy stays."""

from __future__ import annotations

import harness
import networks
import numpy as np

from langevin import plot

ROW = "S7"
CLAIM = (
    "With regularisation, lambda = 0.1, the gap in test accuracy between a small batch and the "
    "full batch is smaller than without, and the test cross-entropy no longer degrades in training."
)
SOURCE = "Smith and Le 2017, appendix D, Figure 8"

SMALL, PAPER, FULL = 80, 30, networks.N  # as in row S2
RISE_MARGIN = 0.05  # of a cross-entropy: what "no longer degrades" may leave


def validate(scale: str, progress: harness.Progress) -> harness.Outcome:
    """The networks of row S2, of the same seeds, beside the same with a penalty."""
    plan = networks.PLANS[scale]
    runs, plain = networks.penalised(scale, progress), networks.smith_le(scale, progress)
    gap, before = (_end(r, SMALL) - _end(r, FULL) for r in (runs, plain))
    checks = [
        harness.check(
            f"gap in test accuracy, B = {SMALL} minus the full batch: without penalty minus with, "
            "above 0",
            networks.over_seeds(before - gap), 0.0, scale=1.0, bound="above",
        ),
        *(
            harness.check(
                f"with penalty: test cross-entropy at the end minus its minimum, B = {size}",
                networks.over_seeds(_rise(runs, size)), 0.0, scale=1.0, margin=RISE_MARGIN,
                approximate=True,
            )
            for size in (SMALL, FULL)
        ),
        harness.check(
            "control: the same without penalty, full batch",
            networks.over_seeds(_rise(plain, FULL)), 0.0, scale=1.0, margin=RISE_MARGIN,
            approximate=True, expected="differs",
        ),
        harness.check(
            "with penalty: test cross-entropy at the end, full batch, minus that without, below 0",
            networks.over_seeds(_end(runs, FULL, "test_loss") - _end(plain, FULL, "test_loss")),
            0.0, scale=1.0, bound="below",
        ),
    ]  # fmt: skip
    ends = {size: networks.over_seeds(_end(runs, size)) for size in (PAPER, SMALL, FULL)}
    left, was = networks.over_seeds(gap), networks.over_seeds(before)
    return harness.Outcome(
        prediction="The sign of differences; the paper gives curves, no numbers.",
        measurement=f"{plan.n_seeds} seeds of 784-{plan.hidden}-10 on {networks.N} images of MNIST "
        f"each, {plan.n_steps} steps at eps = 1 and m = 0.9, with lambda = {networks.LAMBDA:g} and "
        "without; images, initial weights and mini-batches of a seed are the same.",
        checks=checks,
        findings=[
            f"The gap is {left.value:.4f} +- {left.stderr:.4f} with the penalty and "
            f"{was.value:.4f} +- {was.stderr:.4f} without.",
            "Test accuracy at the end, with penalty: "
            + ", ".join(f"{e.value:.4f} +- {e.stderr:.4f} at B = {s}" for s, e in ends.items())
            + ".",
        ],
        figures=[
            _curves(runs, plain, "test_loss", "test cross-entropy",
                    "Paper: the cross-entropy no longer degrades."),
            _curves(runs, plain, "accuracy", "test accuracy", "Paper: the gap shrinks."),
        ],
        settings=networks.choices(plan)
        | {"lambda": networks.LAMBDA, "batch sizes": networks.PENALISED_SIZES,
           "diverged": runs.n_diverged},
        data={
            "steps": runs.steps,
            **{
                f"B = {size}": {
                    name: getattr(runs, name)[:, runs.sizes.index(size)].round(5)
                    for name in ("accuracy", "test_loss", "train_loss")
                }
                for size in networks.PENALISED_SIZES
            },
        },
    )  # fmt: skip


def _end(runs: networks.Training, size: int, which: str = "accuracy") -> np.ndarray:
    return runs.of(size, which)[:, -1]


def _rise(runs: networks.Training, size: int) -> np.ndarray:
    """How far the test cross-entropy ends above its minimum, a number a seed."""
    curve = runs.of(size, "test_loss")
    return curve[:, -1] - curve.min(axis=1)


def _curves(runs, plain, which: str, shown: str, claim: str) -> tuple:
    figure, ax = harness.axes(xlabel="SGD steps", ylabel=shown)
    low, high = [], []
    for found, style, said in ((runs, "-", "with penalty"), (plain, "--", "without")):
        for k, size in enumerate((SMALL, FULL)):
            curve = found.of(size, which)
            for one in curve:
                ax.plot(found.steps, one, style, color=plot.COLOURS[k], lw=0.6, alpha=0.35)
            name = "full batch" if size == FULL else f"B = {size}"
            mean = curve.mean(axis=0)
            ax.plot(
                found.steps, mean, style, color=plot.COLOURS[k], lw=1.8, label=f"{name}, {said}"
            )
            low.append(mean[1:].min())
            high.append(mean[1:].max())
    ax.set_ylim(min(low) - 0.05 * (max(high) - min(low)), max(high) + 0.3 * (max(high) - min(low)))
    ax.legend(frameon=False, ncols=2, loc="upper right")
    return (f"{claim} Thin: seeds; thick: their mean.", figure)


if __name__ == "__main__":
    harness.main(__file__)
