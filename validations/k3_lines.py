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
    steeper, none = (mean([_steeper(line) for line in some]) for some in (lines, same))
    barriers = {name: np.array([line.barrier for line in some])
                for name, some in (("start", lines), ("others", same))}  # fmt: skip
    checks = [
        harness.check(
            f"the rise of the training loss {AWAY:g} beyond the large-batch end less that beyond "
            "the small-batch end, above 0",
            steeper, 0.0, scale=1.0, bound="above",
        ),
        harness.check(
            "control: the same between small-batch solutions of two starts, against 0",
            none, 0.0, scale=1.0, margin=0.1, approximate=True,
        ),
        harness.check(
            "control: the barrier between small-batch solutions of two starts less that between "
            "both solutions of one start, against 0",
            mean(barriers["others"] - barriers["start"]), 0.0, scale=1.0, margin=0.01,
            approximate=True, expected="differs",
        ),
    ]  # fmt: skip
    rises = {
        name: mean([_rise(line, *ends) for line in lines])
        for name, ends in (("large", (1.0, 1 + AWAY)), ("small", (0.0, -AWAY)))
    }
    norms = {name: np.linalg.norm(found.last(name), axis=1).mean() for name in found.theta}
    return harness.Outcome(
        prediction="The sign; the paper has pictures.",
        measurement=keskar.described(scale) + f"; {len(at)} points for a in [-1, 2]; weights alone "
        "are interpolated, BatchNorm takes the statistics of the images at every point.",
        checks=checks,
        findings=[
            f"{AWAY:g} beyond the large-batch end the loss has risen by {rises['large'].value:.2g} "
            f"+- {rises['large'].stderr:.2g}, beyond the small-batch end by "
            f"{rises['small'].value:.2g} +- {rises['small'].stderr:.2g}.",
            f"Solutions from one start are {barriers['start'].mean():.2g} apart by a barrier, "
            f"small-batch solutions from two starts {barriers['others'].mean():.2g}: one start "
            "leads both batch sizes into one valley.",
            f"Small batches took more steps, and their weights are longer ({norms['small']:.1f} "
            f"against {norms['large']:.1f}): beyond the large-batch end the line leads to shorter "
            "weights, beyond the other to longer ones, to whose changes BatchNorm makes a network "
            "less sensitive. How much of the asymmetry is this one of scale was not tested.",
        ],
        figures=[_figure(lines)],
        settings=keskar.settings(scale) | {"away": AWAY},
        data={"a": at, "loss": [line.loss for line in lines], "barriers": barriers,
              "norms": norms},
    )  # fmt: skip


def _lines(scale: str, first, second) -> list:
    surface = keskar.surface(scale, harness.seed(0), keskar.PLANS[scale].measured)
    return [lv.neural.interpolate(surface, a, b) for a, b in zip(first, second, strict=True)]


def _rise(line, begin: float, end: float) -> float:
    """Of the loss from one point of a line to another."""
    value = {a: line.loss[np.argmin(abs(line.at - a))] for a in (begin, end)}
    return float(value[end] - value[begin])


def _steeper(line) -> float:
    """How much more the loss rises outwards from a = 1 than from a = 0."""
    return _rise(line, 1.0, 1 + AWAY) - _rise(line, 0.0, -AWAY)


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
