"""K3: along the line from a small-batch to a large-batch solution, the large one is sharper."""

from __future__ import annotations

import harness
import keskar
import networks
import numpy as np

import langevin as lv
from langevin import plot

ROW = "K3"
CLAIM = (
    "On the line through both solutions, at a in [-1, 2], the loss rises faster around the "
    "large-batch solution (a = 1) than around the small-batch one (a = 0)."
)
SOURCE = keskar.SOURCE + ", section 2.2.1, Figure 3"

AWAY = 0.5  # the rise from each end outwards to this distance


def validate(scale: str, progress: harness.Progress) -> harness.Outcome:
    """The rise of the training loss outwards from both ends, and the barrier between them."""
    progress("training")
    found = keskar.trained(scale, harness.seed(0))
    small, large = found.last("small"), found.last("large")
    progress("lines")
    lines = _lines(scale, small, large)
    same = _lines(scale, small, np.roll(small, 1, axis=0))
    mean = networks.over_seeds
    at = lines[0].at
    ratio, none = (np.array([_ratio(line) for line in some]) for some in (lines, same))
    checks = [
        harness.check(
            f"log10 of the rise of the training loss {AWAY:g} beyond the large-batch end over that "
            "beyond the small-batch end, above 0",
            mean(ratio), 0.0, scale=1.0, bound="above",
        ),
        harness.check(
            "control: the same between small-batch solutions of two starts, against 0",
            mean(none), 0.0, scale=1.0, margin=0.3, approximate=True,
        ),
        harness.check(
            "the loss between both solutions of one start rises above the straight line, above 0",
            mean([line.barrier for line in lines]), 0.0, scale=1.0, bound="above",
        ),
    ]  # fmt: skip
    barriers = {name: mean([line.barrier for line in some])
                for name, some in (("start", lines), ("others", same))}  # fmt: skip
    return harness.Outcome(
        prediction="The sign; the paper has pictures.",
        measurement=keskar.described(scale) + f"; {len(at)} points for a in [-1, 2]; weights alone "
        "are interpolated, BatchNorm takes the statistics of the images at every point.",
        checks=checks,
        findings=[
            f"The rise {AWAY:g} beyond the large-batch end is {10 ** mean(ratio).value:.2f} times "
            f"that beyond the small-batch end (geometric mean over {len(lines)} pairs).",
            f"Solutions from one start are {barriers['start'].value:.2g} +- "
            f"{barriers['start'].stderr:.2g} apart by a barrier, small-batch solutions from two "
            f"starts {barriers['others'].value:.2g} +- {barriers['others'].stderr:.2g}.",
        ],
        figures=[_figure(lines)],
        settings=keskar.settings(scale) | {"away": AWAY},
        data={"a": at, "loss": [line.loss for line in lines], "two starts": none,
              "one start": ratio},
    )  # fmt: skip


def _lines(scale: str, first, second) -> list:
    surface = keskar.surface(scale, harness.seed(0), keskar.PLANS[scale].measured)
    return [lv.neural.interpolate(surface, a, b) for a, b in zip(first, second, strict=True)]


def _ratio(line) -> float:
    """log10 of the rise outwards from a = 1 over that from a = 0."""
    value = {a: line.loss[np.argmin(abs(line.at - a))] for a in (-AWAY, 0.0, 1.0, 1 + AWAY)}
    return float(np.log10((value[1 + AWAY] - value[1.0]) / (value[-AWAY] - value[0.0])))


def _figure(lines: list) -> tuple:
    figure, ax = harness.axes(
        xlabel="a: 0 small batches, 1 large batches", ylabel="training loss", yscale="log"
    )
    for line in lines:
        ax.plot(line.at, line.loss, color=plot.COLOURS[0], lw=0.7, alpha=0.5)
    mean = np.exp(np.mean([np.log(line.loss) for line in lines], axis=0))
    ax.plot(lines[0].at, mean, color=plot.COLOURS[0], lw=1.8)
    for a in (0, 1):
        ax.axvline(a, color="0.7", lw=0.8, zorder=0)
    return ("Thin: pairs from one start; thick: geometric mean. Paper: steeper around 1.", figure)


if __name__ == "__main__":
    harness.main(__file__)
