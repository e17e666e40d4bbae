"""B1: the best step with a batch of B lowers the loss by dL_max/(1 + B_noise/B)."""

from __future__ import annotations

import harness
import networks
import numpy as np
from scipy.special import logsumexp

import langevin as lv
from langevin import plot

ROW = "B1"
CLAIM = (
    "The learning rate of one SGD step that lowers the loss most, and by how much it does, depend "
    "on the batch size as 1/(1 + B_noise/B) with B_noise = tr(H Sigma)/(G'HG); steps beyond twice "
    "that learning rate raise the loss."
)
SOURCE = "McCandlish, Kaplan, Amodei et al. 2018 (arXiv 1812.06162), Eqs. 2.6 and 2.7"

N, HIDDEN = 512, 5  # digits; 385 parameters, so that tr(H Sigma) is exact
SIZES = (2, 6, 20, 60, 200)
RATE, BATCH = 0.3, 32  # of the training that leads to the points
POINTS = {"early": 60, "later": 600}  # steps
# Learning rates in units of the predicted best; a cubic through 0 is put through the mean changes.
TRIED = np.array([0.4, 0.8, 1.2, 1.6, 2.0])
FULL = 10**9  # a batch without noise
AMOUNT = {"quick": (4, 64), "full": (24, 1_000)}  # networks, draws of a mini-batch
MARGIN = 0.1  # of the largest improvement
WIDE, WIDE_STEPS, FIRST = 32, 4_000, 3  # a network that fits all 512


def validate(scale: str, progress: harness.Progress) -> harness.Outcome:
    """Measured best steps, on two points of training, a quadratic, and near interpolation."""
    n_seeds, draws = AMOUNT[scale]
    surface = lv.neural.NeuralSurface(
        lv.neural.models.smith_le(HIDDEN, n_in=64), lv.neural.data.digits(n=N)
    )
    found = {}
    for name, steps in POINTS.items():
        thetas = _trained(surface, steps, n_seeds, lv.SGD(RATE, BATCH))
        found[name] = _each(name, surface, thetas, draws, progress)
    straight = _least_squares()
    starts = np.random.default_rng(harness.seed(4_300)).normal(size=(n_seeds, straight.dim)) / 8
    found["least squares"] = _each("least squares", straight, starts, 16 * draws, progress)
    blind, alive = _interpolation(n_seeds, progress)
    mean = networks.over_seeds
    checks = [
        harness.check(
            f"{name}: improvement at B = {b} over that without noise, minus 1/(1 + B_noise/B)",
            mean(one["gain"][:, k] - one["law"][:, k]), 0.0, scale=1.0, margin=MARGIN,
            approximate=True,
        )
        for name, one in found.items() for k, b in enumerate(SIZES)
        if name != "least squares"
    ]  # fmt: skip
    exact, later = found["least squares"], found["later"]
    checks += [
        harness.check(
            f"least squares, where the law is exact: improvement at B = {b} over the predicted",
            mean(exact["best"][:, k] / exact["predicted"][:, k]), 1.0, margin=0.1,
        )
        for k, b in enumerate(SIZES)
    ]  # fmt: skip
    checks += [
        harness.check(
            f"{name}: best learning rate at B = 2 over that without noise, minus the law",
            mean(one["rate"][:, 0] / one["rate"][:, -1] - one["law"][:, 0]), 0.0, scale=1.0,
            margin=MARGIN, approximate=True,
        )
        for name, one in found.items() if name != "least squares"
    ]  # fmt: skip
    checks += [
        harness.check(
            f"{name}: change of the loss by a step twice the best, B = 6, in units of the best "
            "improvement, above 0",
            mean(one["double"][:, 1]), 0.0, scale=1.0, bound="above",
        )
        for name, one in found.items() if name != "least squares"
    ]  # fmt: skip
    checks += [
        harness.check(
            "near interpolation: share of networks where the estimator says that it cannot tell",
            mean(blind["silent"]), 1.0, margin=0.1, approximate=True,
        ),
        harness.check(
            f"control: the same after {FIRST} steps",
            mean(alive["silent"]), 1.0, margin=0.1, approximate=True, expected="differs",
        ),
        harness.check(
            "control: improvement at B = 2 against one that knows no noise",
            mean(later["gain"][:, 0]), 1.0, margin=MARGIN, approximate=True, expected="differs",
        ),
        harness.check(
            "control: improvement at B = 20, later, with a noise scale four times as large",
            mean(later["gain"][:, 2] - 1 / (1 + 4 * later["noise"] / SIZES[2])), 0.0,
            scale=1.0, margin=MARGIN, approximate=True, expected="differs",
        ),
    ]  # fmt: skip
    scales = {name: mean(one["noise"]) for name, one in found.items()}
    size = {name: mean(one["best"][:, -1] / one["predicted"][:, -1]) for name, one in found.items()}
    return harness.Outcome(
        prediction="A loss that is quadratic along the step: eps_opt(B) and dL_opt(B) are those "
        "without noise times 1/(1 + B_noise/B); G, H and Sigma of the 512 examples themselves.",
        measurement=f"{n_seeds} networks 64-{HIDDEN}-10 on {N} of the digits after "
        f"{POINTS['early']} and {POINTS['later']} SGD steps, and linear least squares; for each "
        f"B the loss on all examples after steps of {len(TRIED)} learning rates along {draws} "
        "mini-batch gradients (with replacement), the best by a cubic through the means.",
        checks=checks,
        findings=[
            "B_noise is "
            + ", ".join(f"{s.value:.0f} +- {s.stderr:.0f} ({name})" for name, s in scales.items())
            + f"; the batches go from {SIZES[0]} to {SIZES[-1]}.",
            "The size of the improvement without noise, which the quadratic formula gives too, is "
            + ", ".join(f"{s.value:.2f} +- {s.stderr:.2f} ({name})" for name, s in size.items())
            + " times the predicted: the law is one of shape.",
            f"Near interpolation (mean loss {blind['loss'].mean():.2g}) the unbiased |G|^2 is "
            f"negative in {100 * np.mean(blind['squared'] < 0):.0f} % of the networks, which "
            "would be a negative noise scale. The estimator declines in "
            f"{100 * blind['silent'].mean():.0f} %, and in {100 * alive['silent'].mean():.0f} % "
            f"after {FIRST} steps.",
        ],
        figures=[_figure(found, "gain", "improvement / that without noise"), _steps(later)],
        settings={
            "seeds": f"4300 ... {4_300 + n_seeds - 1}",
            "N": N, "hidden units": HIDDEN, "B": SIZES, "steps": POINTS,
            "learning rate and batch of the training": [RATE, BATCH], "draws": draws,
        },
        data={name: {k: v for k, v in one.items()} for name, one in found.items()}
        | {"near interpolation": blind},
    )  # fmt: skip


def _trained(surface, steps: int, n_seeds: int, sgd) -> np.ndarray:
    result = lv.simulate(
        surface, sgd, n_replicas=n_seeds, n_steps=steps, seed=harness.seed(4_300), progress=False,
    )  # fmt: skip
    return result.positions


def _least_squares():
    """Even digits against odd ones, by a linear function: the loss is quadratic."""
    X, y = lv.neural.data.digits(n=N)
    module = lv.neural.models.logistic_regression(64, 1)
    return lv.neural.NeuralSurface(module, (X, (2.0 * (y % 2) - 1).double()), loss="squared")


def _each(name, surface, thetas, draws, progress) -> dict[str, np.ndarray]:
    """`_point` at every seed's parameters: arrays (seeds, ...)."""
    parts = []
    for k, theta in enumerate(thetas):
        progress(f"{name}: network {k + 1} of {len(thetas)}")
        seed = harness.seed(4_300 + k)
        settings = (name, draws, POINTS, SIZES, N, HIDDEN)
        parts.append(
            networks.kept(
                f"B1-{name}-{k}", settings, lambda t=theta, s=seed: _point(surface, t, draws, s)
            )
        )
    return {key: np.array([part[key] for part in parts]) for key in parts[0]}


def _point(surface, theta, draws: int, seed: int) -> dict:
    """Of one point: the noise scale, and the measured best step at every batch size."""
    from langevin.neural.derivatives import Derivatives

    scale = lv.neural.gradient_noise_scale(surface, theta, of="training_set", dtype="float64")
    own = Derivatives(surface, theta, "float64")
    each = np.concatenate([own.array(part) for _, part in own.batches_of_gradients()])
    random, slope = np.random.default_rng(seed), each.mean(axis=0)
    start, sizes = float(_losses(surface, theta[None])[0]), (*SIZES, FULL)
    gain, rate, double, curves = [], [], [], []
    for b in sizes:
        unit = scale.learning_rate(b).value
        steps = unit * TRIED
        rows = [slope] if b == FULL else [
            each[random.integers(len(each), size=b)].mean(axis=0) for _ in range(draws)
        ]  # fmt: skip
        points = theta - steps[:, None, None] * np.array(rows)
        losses = _losses(surface, points.reshape(-1, surface.dim))
        change = losses.reshape(len(TRIED), -1).mean(axis=1) - start
        # A control variate of mean 0: the slope is known, so the luck of the draw is taken out.
        change += steps * (slope @ (np.mean(rows, axis=0) - slope))
        best, at = _best(change)
        gain.append(best)
        rate.append(at * unit)
        double.append(change[-1] / best)
        curves.append(change)
    gain = np.array(gain)
    return {
        "noise": scale.full.value,
        "law": [1 / (1 + scale.full.value / b) for b in sizes],
        "predicted": [scale.improvement(b).value for b in sizes],
        "best": gain,
        "gain": gain / gain[-1],
        "rate": rate,
        "double": double,
        "curves": np.array(curves),
        "loss": start,
    }


def _losses(surface, points: np.ndarray) -> np.ndarray:
    """The mean loss (points,) on all examples of a network with one hidden layer, or with none.

    Written out: `NeuralSurface.energy` is made for fewer and larger networks.
    """
    X, y = surface.X.flatten(1).double().numpy().T, surface.y.numpy()
    count, widths = len(points), [p.shape[0] for p in surface.module.parameters() if p.ndim == 2]
    at, out = 0, np.broadcast_to(X, (count, *X.shape))
    for k, width in enumerate(widths):
        size = width * out.shape[1]
        W = points[:, at : at + size]
        b = points[:, at + size : at + size + width, None]
        at += size + width
        if k:
            out = W.reshape(count, width, -1) @ np.maximum(out, 0) + b
        else:
            out = (W.reshape(-1, len(X)) @ X).reshape(count, width, -1) + b
    if surface.loss_name == "squared":
        return 0.5 * np.mean((out[:, 0] - y) ** 2, axis=1)
    return np.mean(logsumexp(out, axis=1) - out[:, y, np.arange(len(y))], axis=1)


def _best(change: np.ndarray) -> tuple[float, float]:
    """The largest decrease, and where in units of the predicted best rate, by a cubic through 0."""
    powers = TRIED[:, None] ** np.arange(1, 4)
    fitted = np.linalg.lstsq(powers, change, rcond=None)[0]
    fine = np.linspace(0.0, TRIED[-1], 2_001)
    values = fine[:, None] ** np.arange(1, 4) @ fitted
    return float(-values.min()), float(fine[values.argmin()])


def _interpolation(n_seeds: int, progress) -> list[dict[str, np.ndarray]]:
    """What the estimator says of a population, after long training and at its beginning."""
    module = lv.neural.models.smith_le(WIDE, n_in=64)
    surface = lv.neural.NeuralSurface(module, lv.neural.data.digits(n=N))
    found = []
    for steps in (WIDE_STEPS, FIRST):
        progress(f"64-{WIDE}-10: {steps} steps")
        thetas = _trained(surface, steps, n_seeds, lv.SGD(RATE, 64, momentum=0.9))
        scales = [
            lv.neural.gradient_noise_scale(surface, t, hessian=False, dtype="float64")
            for t in thetas
        ]
        found.append({
            "silent": np.array([float(not s.simple.resolved) for s in scales]),
            "squared": np.array([s.gradient_squared.value for s in scales]),
            "loss": surface.energy(thetas),
        })  # fmt: skip
    return found


def _figure(found: dict, which: str, label: str) -> tuple:
    figure, ax = harness.axes(xlabel="B / B_noise", ylabel=label, xscale="log")
    for k, (name, one) in enumerate(found.items()):
        x = np.array(SIZES) / one["noise"][:, None]
        ax.plot(x.ravel(), one[which][:, :-1].ravel(), ls="", marker="osD"[k], ms=4,
                color=plot.COLOURS[k], mec="none", alpha=0.7, label=name)  # fmt: skip
    x = np.geomspace(*(np.array(ax.get_xlim())), 200)
    ax.plot(x, 1 / (1 + 1 / x), color="0.3", lw=1.2, label="1/(1 + B_noise/B)", zorder=0)
    ax.set_ylim(0, None)
    ax.legend(frameon=False)
    return ("Each point is one network and one batch size.", figure)


def _steps(one: dict) -> tuple:
    figure, ax = harness.axes(
        xlabel="learning rate / the predicted best",
        ylabel="change of the loss / predicted improvement",
    )
    for k, b in enumerate((*SIZES, FULL)):
        scaled = (one["curves"][:, k] / one["predicted"][:, k, None]).mean(axis=0)
        name = "no noise" if b == FULL else f"B = {b}"
        ax.plot([0, *TRIED], [0, *scaled], marker="o", ms=3, lw=1.2, color=plot.COLOURS[k],
                label=name)  # fmt: skip
    x = np.linspace(0, TRIED[-1], 100)
    ax.plot(x, x * x - 2 * x, color="0.3", lw=1.2, ls="--", label="quadratic loss")
    ax.axhline(0, color="0.7", lw=0.8, zorder=0)
    ax.legend(frameon=False)
    return ("Later in training; means over networks and mini-batches.", figure)


if __name__ == "__main__":
    harness.main(__file__)
