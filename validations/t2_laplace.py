"""T2: the probability of ending in a minimum by its depth and its Hessian (Theorem 2)."""

from __future__ import annotations

import harness
import numpy as np

import langevin as lv
from langevin import plot, predict

ROW = "T2"
CLAIM = (
    "Two minima are occupied in the ratio p_A/p_B = sqrt(det H_B/det H_A) exp(2 (L_B - L_A) S/(eta "
    "sigma^2)): three factors decide, learning rate, batch size and gradient variance."
)
SOURCE = "Jastrzebski et al. 2017, Three Factors, Theorem 2, Eq. 3 and the ratio below it"

# At equal depth the widths alone decide: the paper's special case. Here they differ across.
EQUAL = lv.Surface("(x**2 - 1)**2/4 + (1 + 0.6*tanh(2*x))*y**2/2", noise=lv.Isotropic(1.0))
TEMPERATURES = (0.055, 0.065, 0.08, 0.1)
SIZE = 0.5  # the batch size is fixed: temperature and learning rate fall together
# Three dimensions: the lower well is also the narrower one in the two directions across.
CUBE = lv.Surface(
    "x0**4/4 - 0.15*x0**3/3 - x0**2/2 + (1 + 0.6*tanh(x0))*(x1**2 + x2**2)/2",
    noise=lv.Isotropic(1.0),
)
CUBE_T = (0.055, 0.07, 0.09)
CUBE_SIZE = 0.5


def validate(scale: str, progress: harness.Progress) -> harness.Outcome:
    """Equal depth in one dimension, unequal depth in three, over a range of temperatures."""
    more = 1 if scale == "quick" else 12
    progress("equal depth, unequal width")
    equal = _sweep(EQUAL, TEMPERATURES, SIZE, 12_288 * more, (60_000, 20_000), seed=21)
    progress("three dimensions")
    cube = _sweep(CUBE, CUBE_T, CUBE_SIZE, 8_192 * more, (40_000, 15_000), seed=22)
    # ln(measured/Laplace) is a power series in T without a constant term, if Theorem 2 is right.
    limit = _limit(equal, TEMPERATURES)
    checks = [
        harness.check(
            "ln(measured / Theorem 2), extrapolated to T -> 0, equal depth",
            limit,
            0.0,
            margin=0.05,
            scale=1.0,
            approximate=True,
        ),
        harness.check(
            f"p_A/p_B at T = {CUBE_T[0]:g}, unequal depth, three dimensions, against Theorem 2",
            cube["measured"][0],
            cube["laplace"][0].ratio(0, 1),
            margin=0.06,
            approximate=True,
        ),
        harness.check(
            f"p_A/p_B at T = {TEMPERATURES[0]:g}, equal depth, against the finite step",
            equal["measured"][0],
            predict.finite_step(EQUAL, equal["dynamics"][0]).ratio(0, 1),
            margin=0.05,
        ),
        harness.check(
            f"p_A/p_B at T = {TEMPERATURES[-1]:g} against Theorem 2 (barrier of "
            f"{0.25 / TEMPERATURES[-1]:.1f} T)",
            equal["measured"][-1],
            equal["laplace"][-1].ratio(0, 1),
            expected="differs",
        ),
        harness.check(
            "control: without the determinants (both minima as wide), lowest T",
            equal["measured"][0],
            1.0,
            expected="differs",
        ),
        harness.check(
            "control: det H in place of its square root, lowest T",
            equal["measured"][0],
            equal["laplace"][0].ratio(0, 1) ** 2,
            expected="differs",
        ),
    ]
    theorem = equal["laplace"][0].ratio(0, 1)
    off = [m.value / law.ratio(0, 1) - 1 for m, law in zip(*_pairs(equal), strict=True)]
    return harness.Outcome(
        prediction="Theorem 2 (Laplace); Boltzmann-Gibbs by quadrature; the law to first order "
        "in the learning rate.",
        measurement="SGD at a fixed batch size and several learning rates; ln of measured over "
        "predicted, fitted by a straight line in T, at T = 0.",
        checks=checks,
        findings=[
            f"At equal depth the wide minimum is preferred by sqrt(det H_B/det H_A) = "
            f"{theorem:.3f}, as the theorem says, in the limit of low temperature; with unequal "
            "depths in three dimensions likewise.",
            f"It is an expansion in T: with barriers of {0.25 / TEMPERATURES[0]:.1f} T the "
            f"measured ratio is {100 * off[0]:+.1f} % off, with barriers of "
            f"{0.25 / TEMPERATURES[-1]:.1f} T {100 * off[-1]:+.1f} %, and part of that is the "
            "learning rate's own doing, which the theorem leaves out.",
        ],
        figures=[_figure(equal), _cube_figure(cube)],
        settings={
            "seeds": [21, 22],
            "equal depth": {
                "surface": EQUAL.formula,
                "parameters": EQUAL.parameters,
                "batch size": SIZE,
                "temperatures": TEMPERATURES,
            },
            "three dimensions": {
                "surface": CUBE.formula,
                "batch size": CUBE_SIZE,
                "temperatures": CUBE_T,
            },
        },
        data={
            "temperature": TEMPERATURES,
            "ratio": [m.value for m in equal["measured"]],
            "stderr": [m.stderr for m in equal["measured"]],
            "laplace": [law.ratio(0, 1) for law in equal["laplace"]],
        },
    )


def _sweep(surface, temperatures, size, replicas, steps, seed) -> dict:
    group = np.repeat(np.arange(len(temperatures)), replicas)
    rate = 2 * size * np.array(temperatures)  # sigma = 1
    n_steps, burn_in = steps
    result = lv.simulate(
        surface,
        lv.SGD(rate[group], size),
        n_replicas=len(group),
        n_steps=n_steps,
        burn_in=burn_in,
        seed=harness.seed(seed),
        observe=lv.Occupation(every=50, groups=group),
        dtype="float32",
        on_divergence="absorb",
        progress=False,
    )
    dynamics = [lv.SGD(float(eta), size) for eta in rate]
    return {
        "measured": [result.occupation().group(k).ratio(0, 1) for k in range(len(temperatures))],
        "dynamics": dynamics,
        "laplace": [predict.laplace(surface, d) for d in dynamics],
    }


def _pairs(found: dict) -> tuple:
    return found["measured"], found["laplace"]


def _log_ratio(found: dict) -> tuple[list[float], list[float]]:
    pairs = list(zip(*_pairs(found), strict=True))
    return (
        [float(np.log(m.value / law.ratio(0, 1))) for m, law in pairs],
        [m.stderr / m.value for m, _ in pairs],
    )


def _limit(found: dict, temperatures) -> lv.Estimate:
    return harness.line(temperatures, *_log_ratio(found), degree=1)


def _figure(equal: dict) -> tuple:
    figure, ax = harness.axes(xlabel="temperature eta sigma² / 2S", ylabel="p_A / p_B")
    T = np.linspace(0.03, max(TEMPERATURES), 8)
    ax.errorbar(
        TEMPERATURES,
        [m.value for m in equal["measured"]],
        [m.stderr for m in equal["measured"]],
        fmt="o", ms=5, color=plot.INK, label="measured", zorder=3,
    )  # fmt: skip
    step = [predict.finite_step(EQUAL, lv.SGD(2 * SIZE * t, SIZE)) for t in T]
    ax.plot(T, [s.ratio(0, 1) for s in step], color=plot.COLOURS[0], label="finite step")
    ax.plot(
        T, [s.gibbs.ratio(0, 1) for s in step], "-.", color=plot.COLOURS[2], label="Boltzmann-Gibbs"
    )
    theorem = equal["laplace"][0].ratio(0, 1)
    ax.plot([0, T[-1]], [theorem, theorem], "--", color=plot.COLOURS[1], label="Theorem 2")
    ax.legend(frameon=False)
    return (
        "Two minima of equal depth, one wider across: Theorem 2 is reached as T falls.",
        figure,
    )


def _cube_figure(cube: dict) -> tuple:
    figure, ax = harness.axes(xlabel="temperature eta sigma² / 2S", ylabel="p_A / p_B")
    measured = cube["measured"]
    ax.errorbar(
        CUBE_T, [m.value for m in measured], [m.stderr for m in measured], fmt="o", ms=5,
        color=plot.INK, label="measured", zorder=3,
    )  # fmt: skip
    T = np.linspace(0.045, max(CUBE_T), 40)
    theorem = [predict.laplace(CUBE, temperature=t).ratio(0, 1) for t in T]
    ax.plot(T, theorem, "--", color=plot.COLOURS[1], label="Theorem 2")
    ax.legend(frameon=False)
    return ("Three dimensions, minima of unequal depth and width.", figure)


if __name__ == "__main__":
    harness.main(__file__)
