"""S3: at a fixed learning rate one batch size is best."""

from __future__ import annotations

from itertools import pairwise

import harness
import networks
import numpy as np

from langevin import plot

ROW = "S3"
CLAIM = (
    "At a fixed learning rate the test accuracy after 10,000 steps has a peak at one batch size; "
    "at B of 10 and below the network does not train, above the peak the accuracy falls."
)
SOURCE = "Smith and Le 2017, section 4, Figure 4"

TRAINED = 0.5  # test accuracy above which a network counts as trained
UNTRAINED = 10  # the paper's batch size up to which none is
CHANCE, CHANCE_MARGIN = 0.1, 0.05
LINEAR_MARGIN = 0.01


def validate(scale: str, progress: harness.Progress) -> harness.Outcome:
    """Test accuracy against batch size, and that of a linear model."""
    plan = networks.PLANS[scale]
    runs = networks.smith_le(scale, progress)
    linear = networks.linear(scale, progress)
    sizes, final = np.array(runs.sizes), runs.final
    seeds = np.arange(len(final))
    best = networks.best_of_the_others(final)
    peak = final[seeds, best]
    mean = final.mean(axis=0)
    trained = sizes[mean > TRAINED]
    below, above = (
        int(min(trained, default=networks.N)),
        [s for s in (200, 500, 1_000) if s in runs.sizes],
    )
    chosen = networks.best_of_the_others(linear.final)
    linear_peak = linear.final[seeds, chosen] - linear.final[:, -1]

    def at(size: int) -> np.ndarray:
        return final[:, runs.sizes.index(size)]

    checks = [
        harness.check(
            "test accuracy at the batch size that is best for the other seeds, minus the full "
            "batch, above 0",
            networks.over_seeds(peak - at(networks.N)), 0.0, scale=1.0, bound="above",
        ),
        harness.check(
            f"the same minus that of B = {below}, the smallest that trains, above 0",
            networks.over_seeds(peak - at(below)), 0.0, scale=1.0, bound="above",
        ),
        harness.check(
            f"test accuracy at B <= {UNTRAINED}, against chance",
            networks.over_seeds(final[:, sizes <= UNTRAINED].mean(axis=1)), CHANCE, scale=1.0,
            margin=CHANCE_MARGIN, approximate=True,
        ),
        *(
            harness.check(
                f"above the peak: test accuracy at B = {a} minus that at B = {b}, above 0",
                networks.over_seeds(at(a) - at(b)), 0.0, scale=1.0, bound="above",
            )
            for a, b in pairwise(above)
        ),
        harness.check(
            "control: a linear model's best batch size minus the full batch, against 0",
            networks.over_seeds(linear_peak), 0.0, scale=1.0, margin=LINEAR_MARGIN,
            approximate=True,
        ),
        harness.check(
            "control: test accuracy at B = 1 minus the full batch, above 0",
            networks.over_seeds(at(1) - at(networks.N)), 0.0, scale=1.0, bound="above",
            expected="differs",
        ),
    ]  # fmt: skip
    top = int(mean.argmax())
    near = sizes[max(0, top - 1)], sizes[min(len(sizes) - 1, top + 1)]
    paired = final - final[:, [top]]
    alike = [
        int(s)
        for k, s in enumerate(sizes)
        if k == top or abs(paired[:, k].mean()) < 2 * paired[:, k].std(ddof=1) / len(seeds) ** 0.5
    ]
    return harness.Outcome(
        prediction="A peak inside the range of batch sizes; the paper draws it, without numbers.",
        measurement=f"{plan.n_seeds} seeds of 784-{plan.hidden}-10 on {networks.N} images of MNIST "
        f"each, {len(sizes)} batch sizes from 1 to {networks.N} (the full batch), {plan.n_steps} "
        "steps at eps = 1 and m = 0.9; test accuracy on 10,000 images. The peak is chosen on the "
        "other seeds.",
        checks=checks,
        findings=[
            f"The mean over seeds is highest at B = {sizes[top]} ({mean[top]:.4f}; the next sizes "
            f"tried are {near[0]} and {near[1]}); {mean[-1]:.4f} with the full batch.",
            "Within two standard errors of the best, seed by seed: B = "
            + ", ".join(str(s) for s in alike)
            + ".",
            f"The smallest batch that trains is {below}"
            f" ({mean[runs.sizes.index(below)]:.3f}); B <= {UNTRAINED} stays at chance, as the "
            "paper says.",
            "Images have unit norm here, which is what puts the peak where it is: row S2 shows the "
            "same for pixels in [0, 1].",
        ],
        figures=[
            _whole(runs, linear),
            _peak(runs, linear),
            _training(runs),
        ],
        settings=networks.choices(plan) | {"diverged": runs.n_diverged},
        data={
            "batch sizes": sizes,
            "test accuracy at the end (seeds, sizes)": final.round(5),
            "test cross-entropy at the end (seeds, sizes)": runs.test_loss[:, :, -1].round(5),
            "training loss at the end (seeds, sizes)": runs.train_loss[:, :, -1],
            "best for the other seeds": sizes[best],
            "linear: batch sizes": linear.sizes,
            "linear: test accuracy at the end (seeds, sizes)": linear.final.round(5),
        },
    )


def _whole(runs: networks.Training, linear: networks.Training) -> tuple:
    figure, ax = harness.axes(xlabel="batch size", ylabel="test accuracy at the end", xscale="log")
    networks.points(ax, runs.sizes, runs.final, plot.COLOURS[0], "network", "o")
    ax.axhline(CHANCE, color=plot.INK, lw=0.8, ls=":", label="chance")
    ax.axvline(UNTRAINED, color=plot.COLOURS[1], lw=1, ls="--", label="paper: none trains below")
    networks.ticks(ax, (1, 3, 10, 30, 100, 300, 1_000))
    ax.legend(frameon=False, loc="lower right")
    return ("Paper: no training at B of 10 and below, then a peak. Faint points: seeds.", figure)


def _peak(runs: networks.Training, linear: networks.Training) -> tuple:
    figure, ax = harness.axes(xlabel="batch size", ylabel="test accuracy at the end", xscale="log")
    mean = runs.final.mean(axis=0)
    shown = mean >= min(0.8, mean.max())
    sizes = np.array(runs.sizes)[shown]
    networks.points(ax, sizes, runs.final[:, shown], plot.COLOURS[0], "network", "o")
    networks.points(ax, linear.sizes, linear.final, plot.COLOURS[1], "linear model", "D")
    networks.ticks(ax, (30, 50, 80, 120, 200, 300, 500, 1_000))
    ax.set_ylim(max(0.84, runs.final[:, shown].min() - 0.005), runs.final.max() + 0.006)
    ax.legend(frameon=False)
    return ("The peak from near by. Paper: a clear peak; none in linear models.", figure)


def _training(runs: networks.Training) -> tuple:
    figure, ax = harness.axes(xlabel="SGD steps", ylabel="test accuracy")
    shown = [s for s in (10, 20, 30, 50, 120, 1_000) if s in runs.sizes]
    for k, size in enumerate(shown):
        curve = runs.of(size)
        colour = plot.COLOURS[k % len(plot.COLOURS)]
        for one in curve:
            ax.plot(runs.steps, one, color=colour, lw=0.6, alpha=0.3)
        ax.plot(runs.steps, curve.mean(axis=0), color=colour, lw=1.6, label=f"B = {size}")
    ax.set_ylim(0, 1)
    ax.legend(frameon=False, ncols=2, loc="center right")
    return ("Paper: B of 10 and below does not train. Thin: seeds; thick: their mean.", figure)


if __name__ == "__main__":
    harness.main(__file__)
