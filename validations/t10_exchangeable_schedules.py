"""T10: a schedule of the learning rate and its exchanged schedule of the batch size are alike."""

from __future__ import annotations

import harness
import networks
import numpy as np

import langevin as lv
from langevin import plot

ROW = "T10"
CLAIM = (
    "Networks trained with a cyclic learning rate and with the cyclic batch size of the same "
    "eta/S have the same curves and the same final test accuracy, and so have constant eta and S "
    "both multiplied by five; the loss from iteration to iteration varies differently."
)
SOURCE = "Jastrzebski et al. 2017, Three Factors, section 4.2, Figures 4 and 13"

# The paper: VGG-11 on CIFAR-10, eta .001 to .005, S 128 to 640. Here the same factor, in small.
RATE, BATCH, FACTOR = 0.2, 16, 5
HOLD, CYCLES = 450, 4  # steps at BATCH that each half of a cycle lasts: five epochs
EVERY = 90  # steps at BATCH between two records; the exchanged schedule records as often
N = 1_437
REPLICAS = {"quick": 24, "full": 256}
ACCURACY_MARGIN, LOSS_MARGIN = 0.01, 0.1


def validate(scale: str, progress: harness.Progress) -> harness.Outcome:
    """Two pairs of schedules on the digits, and one that is not a pair."""
    replicas = REPLICAS[scale]
    n_steps = 2 * CYCLES * HOLD
    cycle = lv.schedules.Cyclic(RATE, (1.0, 1 / FACTOR), HOLD)
    same_rate, sizes = lv.schedules.exchange(cycle, BATCH, to=RATE, n_steps=n_steps)
    slow = RATE / FACTOR
    plans = {
        "cyclic eta": (cycle, BATCH, n_steps, EVERY),
        "cyclic S": (same_rate, sizes, len(sizes.factors_by_step), EVERY // FACTOR),
        "low eta": (slow, BATCH, n_steps, EVERY),
        "high S": (RATE, BATCH * FACTOR, n_steps // FACTOR, EVERY // FACTOR),
        "not exchanged": (RATE, BATCH, n_steps, EVERY),
    }
    found = {}
    for k, (name, (rate, size, steps, every)) in enumerate(plans.items()):
        progress(name)
        result = networks.digits(
            lv.SGD(rate, size), n_steps=steps, n_replicas=replicas, seed=1_000 + k, every=every
        )
        found[name] = _curves(result, size, steps)
    pairs = (("cyclic eta", "cyclic S"), ("low eta", "high S"))
    difference = [networks.minus(_last(found[b]), _last(found[a])) for a, b in pairs]
    quotient = [networks.over(_loss(found[b]), _loss(found[a])) for a, b in pairs]
    wrong = networks.over(_loss(found["not exchanged"]), _loss(found["cyclic eta"]))
    quiet = networks.over(_variance(found["cyclic eta"], 1), _variance(found["cyclic S"], 1))
    loud = networks.over(_variance(found["cyclic eta"], 0), _variance(found["cyclic S"], 0))
    constant = networks.over(_variance(found["low eta"]), _variance(found["high S"]))
    names = ("cyclic S minus cyclic eta", f"{FACTOR} eta, {FACTOR} S minus eta, S")
    checks = [
        *(
            harness.check(
                f"test accuracy at the end, {name}, against 0", d, 0.0, scale=1.0,
                margin=ACCURACY_MARGIN, approximate=True,
            )
            for name, d in zip(names, difference, strict=True)
        ),
        *(
            harness.check(
                f"training loss over the last cycle, {name.replace('minus', 'over')}, against 1",
                q, 1.0, margin=LOSS_MARGIN, approximate=True,
            )
            for name, q in zip(names, quotient, strict=True)
        ),
        harness.check(
            "variance of the loss from iteration to iteration, cyclic eta over cyclic S, where "
            f"eta is low or S is high, against {FACTOR}",
            quiet, FACTOR, margin=0.2, approximate=True,
        ),
        harness.check(
            "the same where both have the same eta and S, against 1",
            loud, 1.0, margin=0.2, approximate=True,
        ),
        harness.check(
            f"the same for the constant pair, against {FACTOR}",
            constant, FACTOR, margin=0.2, approximate=True,
        ),
        harness.check(
            "control: training loss over the last cycle, constant eta and S over cyclic eta, "
            "against 1",
            wrong, 1.0, margin=LOSS_MARGIN, approximate=True, expected="differs",
        ),
        harness.check(
            "control: the variance where eta is low or S is high, against no difference",
            quiet, 1.0, margin=0.2, approximate=True, expected="differs",
        ),
    ]  # fmt: skip
    ends = {name: _last(found[name]) for name in plans}
    apart = [
        np.abs(_mean(found[a], "accuracy") - _at(found[b], found[a]["epochs"], "accuracy"))[4:]
        for a, b in pairs
    ]
    return harness.Outcome(
        prediction="Equal curves as functions of the epochs seen; the variance of a mini-batch's "
        "loss is that of one example's over S.",
        measurement=f"{replicas} networks 64-64-10 for each schedule, the digits (N = {N}), "
        f"batches with replacement, no momentum; {CYCLES} cycles of "
        f"{2 * HOLD * BATCH / N:.0f} epochs, "
        f"eta {slow:g} to {RATE:g} at S = {BATCH}, S {BATCH} to {BATCH * FACTOR} at eta = "
        f"{RATE:g}.",
        checks=checks,
        findings=[
            "Test accuracy at the end: "
            + ", ".join(f"{e.value:.4f} +- {e.stderr:.4f} ({n})" for n, e in ends.items())
            + ". The paper has 89.24 and 89.39 % for the cyclic pair, 87.25 and 86.92 % for the "
            "constant one.",
            "After the first two epochs the mean curves of the test accuracy are nowhere farther "
            f"apart than {100 * apart[0].max():.1f} points (cyclic) and "
            f"{100 * apart[1].max():.1f} points (constant).",
            f"The batches take {plans['cyclic S'][2]:,} steps where the learning rate takes "
            f"{n_steps:,}.",
            f"What tells the pair apart is the loss from step to step: its variance is "
            f"{quiet.value:.2f} times larger with the small batch.",
        ],
        figures=[
            _figure(found, "loss", "training loss", pairs[0]),
            _figure(found, "loss", "training loss", pairs[1]),
            _figure(found, "variance", "variance of the loss, step to step", pairs[0]),
        ],
        settings={
            "seeds": "1000 ... 1004",
            "eta": [slow, RATE],
            "S": [BATCH, BATCH * FACTOR],
            "steps of half a cycle at S = 16": HOLD,
            "cycles": CYCLES,
            "replicas": replicas,
        },
        data={
            name: {
                key: (one["epochs"] if key == "epochs" else _mean(one, key)).round(6)
                for key in ("epochs", "accuracy", "loss", "variance")
            }
            for name, one in found.items()
        },
    )


def _curves(result, size, n_steps: int) -> dict:
    """Epochs at the records, and what was recorded, (replicas, records)."""
    steps = result["loss"].steps
    sizes = size.values(n_steps) if isinstance(size, lv.schedules.Schedule) else [size] * n_steps
    seen = np.cumsum(np.maximum(1, np.round(sizes)))
    return {
        "epochs": seen[steps - 1] / N,
        "accuracy": result["test_accuracy"].values,
        "loss": result["loss"].values,
        "variance": result["batch_loss"].values[:, :, 1],
    }


def _mean(found: dict, which: str) -> np.ndarray:
    return found[which].mean(axis=0)


def _at(found: dict, epochs: np.ndarray, which: str) -> np.ndarray:
    return np.interp(epochs, found["epochs"], _mean(found, which))


def _last(found: dict) -> lv.Estimate:
    """Test accuracy at the end."""
    return networks.over_seeds(found["accuracy"][:, -1])


def _loss(found: dict) -> lv.Estimate:
    """Training loss, the mean over the epochs of the last cycle."""
    epochs, half = found["epochs"], HOLD * BATCH / N
    first = np.searchsorted(epochs, epochs[-1] - 2 * half)
    weights = np.gradient(epochs)[first:]  # records are not equally far apart in epochs
    return networks.over_seeds(np.average(found["loss"][:, first:], axis=1, weights=weights))


def _variance(found: dict, half: int | None = None) -> lv.Estimate:
    """Of the mini-batches' losses after the first cycle; in the first or second half of cycles."""
    epochs, length = found["epochs"], HOLD * BATCH / N
    place = (epochs - 1e-6) / length
    chosen = place > 2
    if half is not None:
        chosen &= np.floor(place) % 2 == half
    return networks.over_seeds(found["variance"][:, chosen].mean(axis=1))


def _figure(found: dict, which: str, label: str, pair: tuple[str, str]) -> tuple:
    figure, ax = harness.axes(xlabel="epochs", ylabel=label, yscale="log")
    for k, name in enumerate(pair):
        one, colour = found[name], plot.COLOURS[k]
        for curve in one[which][:8]:
            ax.plot(one["epochs"], curve, color=colour, lw=0.5, alpha=0.25)
        ax.plot(one["epochs"], _mean(one, which), color=colour, lw=1.7, ls=("-", "--")[k],
                label=name, zorder=3)  # fmt: skip
    ax.legend(frameon=False)
    claim = "not alike" if which == "variance" else "alike"
    return (f"{pair[0]} and {pair[1]}. Paper: {claim}. Thin: eight networks of each.", figure)


if __name__ == "__main__":
    harness.main(__file__)
