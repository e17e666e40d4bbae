"""B5N: on networks too, decaying the learning rate and growing the batch give the same curve."""

from __future__ import annotations

import harness
import networks
import numpy as np

import langevin as lv
from langevin import plot

ROW = "B5N"
CLAIM = (
    "Instead of decaying the learning rate one can grow the batch by the same factor: training "
    "loss and test accuracy of a network, with momentum, are the same functions of the epochs seen."
)
SOURCE = "Smith et al. 2018 (Don't decay the learning rate, increase the batch size), by the blog"

RATE, MOMENTUM, BATCH, FACTOR, STAGES = 0.02, 0.9, 16, 3, 4
STAGE = 810  # steps at the first batch size: nine epochs
N = 1_437
REPLICAS = {"quick": 24, "full": 256}
LOSS_MARGIN, ACCURACY_MARGIN = 0.1, 0.01


def validate(scale: str, progress: harness.Progress) -> harness.Outcome:
    """Three decays by three against three growths by three, on the digits."""
    replicas = REPLICAS[scale]
    runs = {}
    for k, how in enumerate(("decay", "grow", "neither", "grow too fast")):
        progress(how)
        runs[how] = _run(how, replicas, 1_100 + k)
    quotient = networks.over(_end(runs["grow"]), _end(runs["decay"]))
    middle = networks.over(_end(runs["grow"], 2), _end(runs["decay"], 2))
    difference = networks.minus(
        networks.over_seeds(runs["grow"]["accuracy"][:, -1]),
        networks.over_seeds(runs["decay"]["accuracy"][:, -1]),
    )
    variance = networks.over(_variance(runs["decay"]), _variance(runs["grow"]))
    checks = [
        harness.check(
            "training loss at the end, batch grown over rate decayed, against 1",
            quotient, 1.0, margin=LOSS_MARGIN, approximate=True,
        ),
        harness.check(
            "the same at the end of the second stage",
            middle, 1.0, margin=LOSS_MARGIN, approximate=True,
        ),
        harness.check(
            "test accuracy at the end, batch grown minus rate decayed, against 0",
            difference, 0.0, scale=1.0, margin=ACCURACY_MARGIN, approximate=True,
        ),
        harness.check(
            "variance of the loss from step to step in the second stage, decayed over grown, "
            f"against {FACTOR}",
            variance, FACTOR, margin=0.25, approximate=True,
        ),
        harness.check(
            "control: training loss at the end, neither over rate decayed, against 1",
            networks.over(_end(runs["neither"]), _end(runs["decay"])), 1.0, margin=LOSS_MARGIN,
            approximate=True, expected="differs",
        ),
        harness.check(
            f"control: the same with the batch grown by {FACTOR**2} for each decay by {FACTOR}",
            networks.over(_end(runs["grow too fast"]), _end(runs["decay"])), 1.0,
            margin=LOSS_MARGIN, approximate=True, expected="differs",
        ),
    ]  # fmt: skip
    ends = {how: networks.over_seeds(run["accuracy"][:, -1]) for how, run in runs.items()}
    return harness.Outcome(
        prediction="One curve against epochs, as eta/S is the same function of them.",
        measurement=f"{replicas} networks 64-64-10 for each schedule, the digits (N = {N}), "
        f"m = {MOMENTUM}, batches with replacement; every {STAGE * BATCH / N:.0f} epochs eta = "
        f"{RATE:g} is divided or S = {BATCH} multiplied by {FACTOR}.",
        checks=checks,
        findings=[
            f"Growing the batch takes {sum(_stages('grow')):,} steps where decaying the rate takes "
            f"{sum(_stages('decay')):,}; the training losses at the end differ by "
            f"{100 * (quotient.value - 1):+.1f} %.",
            "Test accuracy at the end: "
            + ", ".join(f"{e.value:.4f} +- {e.stderr:.4f} ({how})" for how, e in ends.items())
            + ".",
            "The exchange stops being exact where the velocity's memory, 1/(1 - m) steps, is no "
            f"small part of a stage: the last one has {_stages('grow')[-1]} steps of the grown "
            "batch.",
        ],
        figures=[
            _figure(runs, "loss", "training loss"),
            _figure(runs, "accuracy", "test accuracy"),
        ],
        settings={
            "seeds": "1100 ... 1103",
            "eta": RATE,
            "m": MOMENTUM,
            "B": BATCH,
            "factor": FACTOR,
            "stages": STAGES,
            "steps of a stage at B": STAGE,
            "replicas": replicas,
        },
        data={
            how: {key: np.round(_mean(run, key), 6) for key in ("epochs", "loss", "accuracy")}
            for how, run in runs.items()
        },
    )


def _growth(how: str) -> int:
    """By how much the batch grows from stage to stage."""
    return {"grow": FACTOR, "grow too fast": FACTOR**2}.get(how, 1)


def _stages(how: str) -> list[int]:
    """The number of steps of every stage."""
    return [max(1, STAGE // _growth(how) ** k) for k in range(STAGES)]


def _run(how: str, replicas: int, seed: int) -> dict:
    steps, marks = _stages(how), tuple(np.cumsum(_stages(how))[:-1])
    rate, size = RATE, BATCH
    if how == "decay":
        rate = lv.schedules.Steps(RATE, at_steps=marks, factor=1 / FACTOR)
    elif how != "neither":
        size = lv.schedules.Steps(BATCH, at_steps=marks, factor=_growth(how))
    result = networks.digits(
        lv.SGD(rate, size, momentum=MOMENTUM),
        n_steps=sum(steps),
        n_replicas=replicas,
        seed=seed,
        every=81 if how in ("decay", "neither") else 15,
    )
    sizes = np.repeat([BATCH * _growth(how) ** k for k in range(STAGES)], steps)
    epochs = np.cumsum(sizes) / N
    return {
        "epochs": epochs[result["loss"].steps - 1],
        "loss": result["loss"].values,
        "accuracy": result["test_accuracy"].values,
        "variance": result["batch_loss"].values[:, :, 1],
    }


def _mean(run: dict, which: str) -> np.ndarray:
    return run[which] if which == "epochs" else run[which].mean(axis=0)


def _end(run: dict, stages: int = STAGES) -> lv.Estimate:
    """Training loss after some stages."""
    at = stages * STAGE * BATCH / N
    return networks.over_seeds(
        [np.exp(np.interp(at, run["epochs"], np.log(one))) for one in run["loss"]]
    )


def _variance(run: dict) -> lv.Estimate:
    """Of the mini-batches' losses in the second stage."""
    stage = STAGE * BATCH / N
    chosen = (run["epochs"] > 1.2 * stage) & (run["epochs"] <= 2 * stage + 1e-9)
    return networks.over_seeds(run["variance"][:, chosen].mean(axis=1))


def _figure(runs: dict, which: str, label: str) -> tuple:
    figure, ax = harness.axes(xlabel="epochs", ylabel=label)
    shown = (("decay", "rate decayed"), ("grow", "batch grown"), ("neither", "neither"))
    for k, (how, name) in enumerate(shown):
        run, colour = runs[how], plot.COLOURS[k]
        for curve in run[which][:8]:
            ax.plot(run["epochs"], curve, color=colour, lw=0.5, alpha=0.25)
        ax.plot(run["epochs"], _mean(run, which), color=colour, lw=1.7,
                ls=("-", "--", ":")[k], label=name, zorder=3)  # fmt: skip
    for k in range(1, STAGES):
        ax.axvline(k * STAGE * BATCH / N, color=plot.INK, lw=0.6, alpha=0.4)
    if which == "loss":
        ax.set_yscale("log")
    else:
        ax.set_ylim(0.9, 1.0)
    ax.legend(frameon=False)
    return ("Paper: rate decayed and batch grown are one curve. Thin: eight networks each.", figure)


if __name__ == "__main__":
    harness.main(__file__)
