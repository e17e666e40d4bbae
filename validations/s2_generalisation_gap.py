"""S2: small batches end with a higher test accuracy than the full batch."""

from __future__ import annotations

import harness
import networks
import numpy as np

from langevin import plot

ROW = "S2"
CLAIM = (
    "A small batch ends with a higher test accuracy and a lower test cross-entropy than the full "
    "batch; the cross-entropy of both passes through a minimum. Linear models show no such gap."
)
SOURCE = "Smith and Le 2017, section 4, Figure 3"

# The paper's small batch is 30. With images of unit norm that one hardly trains; 80 was chosen by
# trial on two other seeds, before this was run.
SMALL, PAPER, FULL = 80, 30, networks.N
LINEAR_MARGIN = 0.01  # of test accuracy


def validate(scale: str, progress: harness.Progress) -> harness.Outcome:
    """Curves at batch sizes 30, 80 and 1,000, a linear model, and images that are not scaled."""
    plan = networks.PLANS[scale]
    runs = networks.smith_le(scale, progress)
    linear = networks.linear(scale, progress)
    pixels = networks.pixels(scale, progress)
    gap, paper_gap = _gap(runs, SMALL), _gap(runs, PAPER)
    loss_gap = networks.over_seeds(_end(runs, SMALL, "test_loss") - _end(runs, FULL, "test_loss"))
    early = int(np.searchsorted(runs.steps, min(1_000, plan.n_steps // 2)))
    early_gap = networks.over_seeds(runs.of(SMALL)[:, early] - runs.of(FULL)[:, early])
    rises = {size: _rise(runs, size) for size in (SMALL, FULL)}
    linear_gap, pixel_gap = _gap(linear, SMALL), _gap(pixels, SMALL)
    best_pixels = int(np.argmax(pixels.final.mean(axis=0)))
    pixel_best_gap = networks.over_seeds(pixels.final[:, best_pixels] - pixels.final[:, -1])
    checks = [
        harness.check(
            f"test accuracy at the end, B = {SMALL} minus the full batch, above 0",
            gap, 0.0, scale=1.0, bound="above",
        ),
        harness.check(
            f"test cross-entropy at the end, B = {SMALL} minus the full batch, below 0",
            loss_gap, 0.0, scale=1.0, bound="below",
        ),
        harness.check(
            f"the gap in test accuracy after {runs.steps[early]} steps, above 0",
            early_gap, 0.0, scale=1.0, bound="above",
        ),
        *(
            harness.check(
                f"test cross-entropy at the end minus its minimum, B = {size}, above 0",
                rises[size], 0.0, scale=1.0, bound="above",
            )
            for size in (SMALL, FULL)
        ),
        harness.check(
            f"test accuracy, B = {PAPER}, the paper's own, minus the full batch, above 0",
            paper_gap, 0.0, scale=1.0, bound="above", expected="differs",
        ),
        harness.check(
            f"linear model: test accuracy, B = {SMALL} minus the full batch, against 0",
            linear_gap, 0.0, scale=1.0, margin=LINEAR_MARGIN, approximate=True,
        ),
        harness.check(
            "control: the linear model's gap against that of the network",
            linear_gap, gap.value, margin=0.5, approximate=True, expected="differs",
        ),
        harness.check(
            f"pixels in [0, 1]: test accuracy, B = {SMALL} minus the full batch, above 0",
            pixel_gap, 0.0, scale=1.0, bound="above", expected="differs",
        ),
    ]  # fmt: skip
    ends = {size: networks.over_seeds(_end(runs, size)) for size in (PAPER, SMALL, FULL)}
    least = {size: _minimum(runs, size) for size in (SMALL, FULL)}
    best = networks.over_seeds(linear.final[:, -1])
    return harness.Outcome(
        prediction="The sign of differences; the paper gives curves, no numbers.",
        measurement=f"{plan.n_seeds} seeds of 784-{plan.hidden}-10 on {networks.N} images of MNIST "
        f"each, {plan.n_steps} steps at eps = 1 and m = 0.9, test accuracy on 10,000 images; "
        "differences within a seed. The same networks as in row S3.",
        checks=checks,
        findings=[
            "Test accuracy at the end: "
            + ", ".join(f"{e.value:.4f} +- {e.stderr:.4f} at B = {s}" for s, e in ends.items())
            + ".",
            "The lowest test cross-entropy is reached at step "
            + " and ".join(f"{least[s]:.0f} with B = {s}" for s in least)
            + "; from there it rises while the accuracy stays.",
            f"The network trained on full batches ends "
            f"{100 * (ends[FULL].value - best.value):+.1f} points of test accuracy beside the "
            f"linear model ({best.value:.4f}), which shows no gap.",
            f"With B = {PAPER} as in the paper the picture is another: the normalisation of the "
            "images, which the paper does not state, sets the curvature and with it how much noise "
            "a network bears. With pixels in [0, 1] (about 9 times longer images, "
            f"{plan.pixel_hidden} hidden units) B = {SMALL} does not train, and the best of those "
            f"tried is B = {networks.PIXEL_SIZES[best_pixels]}, "
            f"{100 * pixel_best_gap.value:+.1f} +- {100 * pixel_best_gap.stderr:.1f} points above "
            "the full batch.",
        ],
        figures=[
            _curves(runs, "accuracy", "test accuracy", "Paper: the small batch ends higher."),
            _curves(runs, "test_loss", "test cross-entropy",
                    "Paper: the small batch ends lower; both rise."),
            _normalisation(runs, linear, pixels, plan),
        ],
        settings=networks.choices(plan)
        | {
            "small batch": SMALL,
            "linear": {"steps": plan.linear_steps, "B": networks.LINEAR_SIZES},
            "pixels in [0, 1]": {
                "hidden units": plan.pixel_hidden, "steps": plan.pixel_steps,
                "B": networks.PIXEL_SIZES, "seeds": plan.pixel_seeds,
            },
            "diverged": [runs.n_diverged, linear.n_diverged, pixels.n_diverged],
        },
        data={
            "steps": runs.steps,
            **{
                f"B = {size}": {
                    name: getattr(runs, name)[:, runs.sizes.index(size)].round(5)
                    for name in ("accuracy", "test_loss", "train_loss")
                }
                for size in (PAPER, SMALL, FULL)
            },
            "linear, test accuracy at the end": linear.final.round(5),
            "pixels in [0, 1], test accuracy at the end": pixels.final.round(5),
        },
    )  # fmt: skip


def _end(runs: networks.Training, size: int, which: str = "accuracy") -> np.ndarray:
    return runs.of(size, which)[:, -1]


def _gap(runs: networks.Training, size: int):
    """Test accuracy at the end over that of the full batch, of the same seed."""
    return networks.over_seeds(_end(runs, size) - _end(runs, FULL))


def _rise(runs: networks.Training, size: int):
    """How far the test cross-entropy rises above its minimum, a number a seed."""
    curve = runs.of(size, "test_loss")
    return networks.over_seeds(curve[:, -1] - curve.min(axis=1))


def _minimum(runs: networks.Training, size: int) -> float:
    """The step of the lowest test cross-entropy of the mean curve."""
    return float(runs.steps[runs.of(size, "test_loss").mean(axis=0).argmin()])


def _curves(runs: networks.Training, which: str, label: str, claim: str) -> tuple:
    figure, ax = harness.axes(xlabel="SGD steps", ylabel=label)
    last = []
    for k, size in enumerate((PAPER, SMALL, FULL)):
        curve = runs.of(size, which)
        for one in curve:
            ax.plot(runs.steps, one, color=plot.COLOURS[k], lw=0.7, alpha=0.35)
        name = "full batch" if size == FULL else f"B = {size}"
        ax.plot(runs.steps, curve.mean(axis=0), color=plot.COLOURS[k], lw=1.8, label=name)
        last.append(curve[:, -1])
    if which == "accuracy":  # what is compared, not the first steps
        ax.set_ylim(min(0.84, float(np.median(last[0])) - 0.01), max(v.max() for v in last) + 0.01)
    ax.legend(frameon=False)
    return (f"{claim} Thin: seeds; thick: their mean.", figure)


def _normalisation(runs, linear, pixels, plan: networks.Plan) -> tuple:
    figure, ax = harness.axes(xlabel="batch size", ylabel="test accuracy at the end", xscale="log")
    kinds = (
        (runs, f"unit norm, {plan.hidden} hidden units"),
        (pixels, f"pixels in [0, 1], {plan.pixel_hidden} hidden units"),
        (linear, "unit norm, linear model"),
    )
    for k, (found, label) in enumerate(kinds):
        sizes = np.array(found.sizes)
        shown = sizes >= min(networks.PIXEL_SIZES)
        networks.points(ax, sizes[shown], found.final[:, shown], plot.COLOURS[k], label, "osD"[k])
    networks.ticks(ax, networks.PIXEL_SIZES)
    ax.legend(frameon=False, loc="lower right")
    return (
        "Paper: no gap in linear models. Faint points: seeds. With pixels in [0, 1] the same noise "
        "needs larger batches.",
        figure,
    )


if __name__ == "__main__":
    harness.main(__file__)
