"""T12N: where (eta, S) -> (b eta, b S) stops leaving the training of networks alike."""

from __future__ import annotations

import harness
import networks
import numpy as np

import langevin as lv
from langevin import plot

ROW = "T12N"
CLAIM = (
    "Networks train alike under (eta, S) -> (b eta, b S) up to some b, where the performance "
    "drops; that point comes earlier with less data, and later with half the noise by half the "
    "learning rate."
)
SOURCE = "Jastrzebski et al. 2017, Three Factors, section 4.4, Figure 6"

# The paper: VGG-11 on CIFAR-10, eta = .1 b or .05 b, S = 50 b, three sizes of the data.
RATE, BATCH = 0.1, 8
EPOCHS = 30
REPLICAS = {"quick": 24, "full": 256}
SIZES = (1_437, 719, 359)  # examples
FACTORS = (1, 2, 4, 6, 8, 10, 12, 14, 16, 20, 24, 32, 40)
ALIKE = 4  # up to this b the performance is that of the plateau
TOLERANCE = 0.05  # of test accuracy below the plateau counts as broken
SAME = 0.01  # of test accuracy that still counts as alike
EARLIER = 0.9  # of the breaking point: what counts as earlier


def validate(scale: str, progress: harness.Progress) -> harness.Outcome:
    """Test accuracy after a fixed number of epochs, by b, size of the data and learning rate."""
    replicas = REPLICAS[scale]
    settings = [*((n, RATE) for n in SIZES), (SIZES[0], RATE / 2)]
    curves = {}
    for k, (n, eta) in enumerate(settings):
        progress(f"N = {n}, eta = {eta:g} b")
        curves[n, eta] = _curve(n, eta, replicas, 1_300 + 100 * k)
    breaks = {key: _break(curve, harness.seed(1_390)) for key, curve in curves.items()}
    base, half = breaks[settings[0]], breaks[settings[-1]]
    doubled = networks.over(half, base)
    less = [networks.over(breaks[n, RATE], base) for n in SIZES[1:]]
    accuracy = curves[settings[0]]["accuracy"]
    four = networks.minus(
        networks.over_seeds(accuracy[FACTORS.index(ALIKE)]), networks.over_seeds(accuracy[0])
    )
    beyond = networks.minus(
        networks.over_seeds(accuracy[FACTORS.index(20)]), networks.over_seeds(accuracy[0])
    )
    checks = [
        harness.check(
            f"test accuracy at b = {ALIKE} minus that at b = 1, N = {SIZES[0]}, against 0",
            four, 0.0, scale=1.0, margin=SAME, approximate=True,
        ),
        harness.check(
            "the same at b = 20: beyond the breaking point",
            beyond, 0.0, scale=1.0, margin=SAME, approximate=True, expected="differs",
        ),
        harness.check(
            "breaking point with half the learning rate over that one, against 2",
            doubled, 2.0, margin=0.25, approximate=True,
        ),
        harness.check(
            "control: the same against no change", doubled, 1.0, margin=0.25, approximate=True,
            expected="differs",
        ),
        *(
            harness.check(
                f"breaking point with N = {n} over that with N = {SIZES[0]}, below {EARLIER}",
                quotient, EARLIER, bound="below", expected="differs",
            )
            for n, quotient in zip(SIZES[1:], less, strict=True)
        ),
    ]  # fmt: skip
    return harness.Outcome(
        prediction="A plateau up to a learning rate that the curvature sets, so that half the rate "
        "moves the point to twice the b, and the size of the data does not.",
        measurement=f"{replicas} networks 64-64-10 for every b, the digits, eta = {RATE:g} b and "
        f"{RATE / 2:g} b at S = {BATCH} b, {EPOCHS} epochs without replacement, no momentum. The "
        f"point is where the mean test accuracy is {TOLERANCE:g} below its mean over b <= {ALIKE}; "
        "its error by the bootstrap over networks.",
        checks=checks,
        findings=[
            "The breaking point: "
            + ", ".join(
                f"b = {e.value:.1f} +- {e.stderr:.1f} at N = {n} and eta = {eta:g} b"
                for (n, eta), e in breaks.items()
            )
            + ".",
            f"It lies at the learning rate {RATE * base.value:.2f}, and at "
            f"{RATE / 2 * half.value:.2f} for half the noise: as the paper says, the learning rate "
            "is what breaks the rule.",
            "'Earlier with less data' is not seen here: over the point with all data it is "
            + " and ".join(
                f"{q.value:.2f} +- {q.stderr:.2f} with N = {n}"
                for n, q in zip(SIZES[1:], less, strict=True)
            )
            + ". What breaks is the step against the curvature, which the number of examples "
            "hardly changes (as in row T12 with replacement).",
        ],
        figures=[_figure(curves, breaks)],
        settings={
            "seeds": "1300 + 100 k + b for the k-th curve",
            "eta": [RATE, RATE / 2],
            "S": BATCH,
            "b": FACTORS,
            "N": SIZES,
            "epochs": EPOCHS,
            "tolerance": TOLERANCE,
            "replicas": replicas,
        },
        data={
            f"N={n} eta={eta:g}": {
                "accuracy": curve["accuracy"].mean(axis=1).round(5),
                "stderr": (curve["accuracy"].std(axis=1, ddof=1) / replicas**0.5).round(6),
                "training loss": curve["loss"].mean(axis=1),
                "diverged": curve["diverged"],
            }
            for (n, eta), curve in curves.items()
        },
    )


def _curve(n: int, eta: float, replicas: int, seed: int) -> dict:
    """Test accuracy and training loss at the end, (b, replicas)."""
    accuracy, loss, diverged = [], [], []
    for b in FACTORS:
        size = min(BATCH * b, n)
        steps = round(EPOCHS * n / size)
        result = networks.digits(
            lv.SGD(eta * b, size, sampling="without_replacement"),
            n_steps=steps,
            n_replicas=replicas,
            seed=seed + b,
            every=steps,
            n=n,
        )
        accuracy.append(result["test_accuracy"].final)
        loss.append(result["loss"].final)
        diverged.append(int((result.diverged >= 0).sum()))
    return {"accuracy": np.array(accuracy), "loss": np.array(loss), "diverged": diverged}


def _break_of(accuracy: np.ndarray) -> float:
    """The b at which the accuracy (b,) is first below the plateau by the tolerance, linearly."""
    factors = np.array(FACTORS, dtype=float)
    lost = accuracy[factors <= ALIKE].mean() - TOLERANCE - accuracy
    k = int(np.argmax(lost > 0))
    if k == 0:
        return float("nan")
    share = -lost[k - 1] / (lost[k] - lost[k - 1])
    return float(factors[k - 1] + share * (factors[k] - factors[k - 1]))


def _break(curve: dict, seed: int) -> lv.Estimate:
    """The same of measurements, networks drawn anew for the error."""
    accuracy, random = curve["accuracy"], np.random.default_rng(seed)
    n_factors, n = accuracy.shape
    drawn = random.integers(n, size=(400, n_factors, n))
    again = [_break_of(np.take_along_axis(accuracy, one, 1).mean(axis=1)) for one in drawn]
    found = [b for b in again if np.isfinite(b)]
    error = float(np.std(found)) if len(found) > 1 else float("nan")
    return lv.Estimate(_break_of(accuracy.mean(axis=1)), error, n - 1)


def _figure(curves: dict, breaks: dict) -> tuple:
    figure, ax = harness.axes(
        xlabel="factor b on learning rate and batch size", ylabel="test accuracy at the end",
        xscale="log",
    )  # fmt: skip
    for k, ((n, eta), curve) in enumerate(curves.items()):
        label = f"N = {n}, eta = {eta:g} b"
        networks.points(ax, FACTORS, curve["accuracy"].T, plot.COLOURS[k], label, "osD^"[k])
        ax.axvline(breaks[n, eta].value, color=plot.COLOURS[k], lw=0.9, ls=":")
    networks.ticks(ax, (1, 2, 4, 8, 16, 32))
    ax.legend(frameon=False, loc="lower left")
    return (
        "Paper: alike up to some b, earlier with less data, later with half the noise. Faint "
        "points: networks; dotted: breaking points.",
        figure,
    )


if __name__ == "__main__":
    harness.main(__file__)
