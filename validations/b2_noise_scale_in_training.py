"""B2: the gradient noise scale grows in training, and is about B/eps in equilibrium."""

from __future__ import annotations

import harness
import networks
import numpy as np

import langevin as lv
from langevin import plot

ROW = "B2"
CLAIM = (
    "The gradient noise scale grows as the loss falls; once SGD has come to an equilibrium, set by "
    "the temperature eps/B alone, it is proportional to B/eps."
)
SOURCE = (
    "McCandlish, Kaplan, Amodei et al. 2018, An Empirical Model of Large-Batch Training, sections "
    "2.4 and 4, appendix C"
)

N, HIDDEN = 512, 8  # digits; 64-8-10
RATES, SIZES = (0.05, 0.1, 0.2), (8, 32, 128)  # of the grid
# Share of random labels and penalty: a loss that cannot be fitted away. The second penalty is so
# weak that 6,000 steps are no equilibrium: flat directions relax in 1/(eps l2) steps.
NOISE, L2, WEAK = 0.3, 1e-2, 1e-3
WARM = 6_000  # steps to the equilibrium
EQUAL = ((0.05, 8), (0.2, 32))  # one temperature
TIMES = (1, 30, 100, 300, 1_000, 3_000)  # of the growth, on true labels
GROWTH = (0.1, 32)
AMOUNT = {"quick": (3, 4), "full": (16, 32)}  # networks, looks at each
SLOPE, RATIO = 0.2, 0.2


def validate(scale: str, progress: harness.Progress) -> harness.Outcome:
    """A grid of temperatures in equilibrium, and one network's way there."""
    n_seeds, looks = AMOUNT[scale]
    grid, weak = (
        networks.kept(
            f"B2-grid-{l2}", (n_seeds, looks, WARM, RATES, SIZES, NOISE, l2),
            lambda l2=l2: _grid(n_seeds, looks, l2, progress),
        )
        for l2 in (L2, WEAK)
    )  # fmt: skip
    growth = networks.kept(
        "B2-growth", (n_seeds, TIMES, GROWTH), lambda: _growth(n_seeds, progress)
    )
    mean = networks.over_seeds
    rates, sizes = np.repeat(RATES, len(SIZES)), np.tile(SIZES, len(RATES))
    warm = grid["trace"][1] / grid["squared"][1]  # (cells, seeds)
    cold = grid["trace"][0] / grid["squared"][0]
    slope = _slopes(np.log(sizes / rates), warm)
    slow = _slopes(np.log(sizes / rates), weak["trace"][1] / weak["squared"][1])
    first = _slopes(np.log(sizes / rates), cold)
    same = [np.flatnonzero((rates == e) & (sizes == b))[0] for e, b in EQUAL]
    by_size = _slopes(np.log(SIZES), warm[rates == RATES[1]])
    by_rate = _slopes(np.log(RATES), warm[sizes == SIZES[1]])
    scales = growth["trace"] / growth["squared"]  # (times, seeds)
    checks = [
        harness.check(
            "in equilibrium: exponent of the noise scale in B/eps",
            mean(slope), 1.0, margin=SLOPE, approximate=True,
        ),
        harness.check(
            f"its exponent in B at eps = {RATES[1]:g}",
            mean(by_size), 1.0, margin=SLOPE, approximate=True,
        ),
        harness.check(
            f"its exponent in eps at B = {SIZES[1]}",
            mean(by_rate), -1.0, margin=SLOPE, approximate=True,
        ),
        harness.check(
            "ln of the noise scale at eps = {:g}, B = {} over that at eps = {:g}, B = {}".format(
                *EQUAL[1], *EQUAL[0]
            ),
            mean(np.log(warm[same[1]] / warm[same[0]])), 0.0, scale=1.0, margin=RATIO,
            approximate=True,
        ),
        harness.check(
            f"true labels: ln of the noise scale after {TIMES[-1]} steps over that after "
            f"{TIMES[1]}, above 0",
            mean(np.log(scales[-1] / scales[1])), 0.0, scale=1.0, bound="above",
        ),
        harness.check(
            f"true labels: the same after {TIMES[3]} over {TIMES[1]} steps, above 0",
            mean(np.log(scales[3] / scales[1])), 0.0, scale=1.0, bound="above",
        ),
        harness.check(
            f"control: the exponent in B/eps with a penalty of {WEAK:g}, too weak for an "
            "equilibrium",
            mean(slow), 1.0, margin=SLOPE, approximate=True, expected="differs",
        ),
        harness.check(
            "control: the exponent in B/eps after 30 steps, before any equilibrium",
            mean(first), 1.0, margin=SLOPE, approximate=True, expected="differs",
        ),
        harness.check(
            "control: ln of the noise scale across the grid's range of B/eps, against none",
            mean(np.log(warm[np.argmax(sizes / rates)] / warm[np.argmin(sizes / rates)])), 0.0,
            scale=1.0, margin=RATIO, approximate=True, expected="differs",
        ),
    ]  # fmt: skip
    ends = [np.exp(mean(np.log(s)).value) for s in scales]
    return harness.Outcome(
        prediction="Around a minimum the weights' covariance is eps C/(2B) H^-1, so |G|^2 = "
        "eps/(2B) tr(H C), and tr C/|G|^2 is proportional to B/eps.",
        measurement=f"{n_seeds} networks 64-{HIDDEN}-10 on {N} of the digits in each of "
        f"{len(RATES) * len(SIZES)} cells of (eps, B), {100 * NOISE:.0f} % random labels and a "
        f"penalty of {L2:g}, SGD without momentum, batches with replacement; tr C and |G|^2 of "
        f"all examples, exact, each averaged over {looks} looks 100 steps apart from step {WARM} "
        "on. The growth on true labels without penalty.",
        checks=checks,
        findings=[
            f"The noise scale in equilibrium goes as (B/eps)^{mean(slope).value:.2f} "
            f"(+- {mean(slope).stderr:.2f}), from {warm.mean(axis=1).min():.0f} to "
            f"{warm.mean(axis=1).max():.0f}.",
            f"The penalty {L2:g} was chosen after a first run with {WEAK:g}, now the weak grid; a "
            "repetition has other seeds.",
            "On true labels it is "
            + ", ".join(f"{s:.0f} after {t}" for t, s in zip(TIMES, ends, strict=True))
            + " steps.",
            f"With a penalty of {WEAK:g} the exponent is {mean(slow).value:.2f} +- "
            f"{mean(slow).stderr:.2f}: flat directions relax in 1/(eps l2) steps, more than the "
            f"{WARM} taken, and what is left of the way down counts as gradient.",
            "An equilibrium needs a loss that cannot be fitted away: on true labels the examples' "
            "gradients shrink with the loss, and there is no temperature that stays.",
        ],
        figures=[_equilibrium(rates, sizes, warm), _in_time(scales)],
        settings={
            "seeds": "4500 ... 4504 and 4700, replicas by number", "N": N,
            "hidden units": HIDDEN, "eps": RATES, "B": SIZES,
            "label noise": NOISE, "l2": [L2, WEAK], "steps": WARM, "growth": GROWTH,
        },
        data={"eps": rates, "B": sizes, "noise scale": warm, "after 30 steps": cold,
              "true labels": scales, "true labels, loss": growth["loss"]},
    )  # fmt: skip


def _surface(label_noise: float, l2: float):
    return lv.neural.NeuralSurface(
        lv.neural.models.smith_le(HIDDEN, n_in=64),
        lv.neural.data.digits(n=N, label_noise=label_noise),
        l2=l2,
    )


def _train(surface, sgd, n: int, n_steps: int, seed: int, start=None) -> np.ndarray:
    result = lv.simulate(
        surface, sgd, n_replicas=n, n_steps=n_steps, seed=harness.seed(seed), progress=False,
        start=start, dtype="float32",
    )  # fmt: skip
    return result.positions


def _look(surface, thetas) -> tuple[np.ndarray, np.ndarray]:
    """tr C and |G|^2 of all examples at each of the parameters."""
    found = [
        lv.neural.gradient_noise_scale(surface, t, of="training_set", hessian=False) for t in thetas
    ]
    return (
        np.array([f.trace.value for f in found]),
        np.array([f.gradient_squared.value for f in found]),
    )


def _grid(n_seeds: int, looks: int, l2: float, progress) -> dict:
    """Arrays (2, cells, seeds): after 30 steps, and in equilibrium, means over looks."""
    surface = _surface(NOISE, l2)
    n = len(RATES) * len(SIZES) * n_seeds
    rates = np.repeat(np.repeat(RATES, len(SIZES)), n_seeds)
    sizes = np.repeat(np.tile(SIZES, len(RATES)), n_seeds)
    sgd = lv.SGD(rates, sizes)
    progress("grid: the beginning")
    first = _look(surface, _train(surface, sgd, n, 30, 4_500))
    progress(f"grid, penalty {l2:g}: to the equilibrium")
    thetas = _train(surface, sgd, n, WARM, 4_500)
    seen = []
    for k in range(looks):
        progress(f"grid: look {k + 1} of {looks}")
        thetas = _train(surface, sgd, n, 100, 4_501 + k, start=thetas)
        seen.append(_look(surface, thetas))
    last = np.mean(seen, axis=0)
    shape = (2, len(RATES) * len(SIZES), n_seeds)
    return {
        "trace": np.stack([first[0], last[0]]).reshape(shape),
        "squared": np.stack([first[1], last[1]]).reshape(shape),
    }


def _growth(n_seeds: int, progress) -> dict:
    """Arrays (times, seeds), on true labels."""
    surface = _surface(0.0, 0.0)
    progress("growth")
    found = {"trace": [], "squared": [], "loss": []}
    for steps in TIMES:
        thetas = _train(surface, lv.SGD(*GROWTH), n_seeds, steps, 4_700)
        trace, squared = _look(surface, thetas)
        found["trace"].append(trace)
        found["squared"].append(squared)
        found["loss"].append(surface.energy(thetas))
    return {key: np.array(value) for key, value in found.items()}


def _slopes(x: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The exponent of each seed (seeds,) of values (cells, seeds)."""
    return np.polyfit(x, np.log(values), 1)[0]


def _equilibrium(rates, sizes, warm) -> tuple:
    figure, ax = harness.axes(xlabel="B / eps", ylabel="noise scale", xscale="log", yscale="log")
    for k, e in enumerate(RATES):
        here = rates == e
        ax.plot(
            sizes[here] / e,
            warm[here],
            ls="",
            marker="osD"[k],
            ms=4.5,
            mec="none",
            alpha=0.7,
            color=plot.COLOURS[k],
            label=[f"eps = {e:g}", *["_"] * (warm.shape[1] - 1)],
        )
    x = np.array([np.min(sizes / rates), np.max(sizes / rates)])
    middle = np.exp(np.mean(np.log(warm.T * rates / sizes)))
    ax.plot(x, middle * x, color="0.3", lw=1.2, label="proportional to B/eps", zorder=0)
    ax.legend(frameon=False)
    return ("In equilibrium, on labels with noise. Each point is one network.", figure)


def _in_time(scales) -> tuple:
    figure, ax = harness.axes(xlabel="SGD steps", ylabel="noise scale", xscale="log", yscale="log")
    ax.plot(TIMES, scales, color=plot.COLOURS[0], lw=0.7, alpha=0.4)
    ax.plot(TIMES, np.exp(np.log(scales).mean(axis=1)), "o-", ms=4, color=plot.COLOURS[0])
    return ("On true labels. Thin: networks; thick: their geometric mean.", figure)


if __name__ == "__main__":
    harness.main(__file__)
