"""B3: the sketch of a flat and a sharp minimum, and which of them noise finds."""

from __future__ import annotations

import harness
import numpy as np

import langevin as lv
from langevin import plot, predict

ROW = "B3"
CLAIM = (
    "Of two minima of equal training loss the sharp one suffers more when the test loss is a "
    "shifted training loss, and the noise of small batches drives SGD out of it."
)
SOURCE = "Keskar et al. 2016, Figure 1, as told by the blog post on batch size and learning rate"

# The training loss; the test loss is the same curve, shifted by DELTA.
ENERGY = {"wide_curvature": 1.0, "sharp_curvature": 9.0, "barrier": 0.012}
EQUAL = lv.surfaces.wide_and_sharp(energy_difference=1e-9, **ENERGY)
LOWER = lv.surfaces.wide_and_sharp(energy_difference=0.0055, **ENERGY)  # the sharp one is lower
WIDE, SHARP = 0, 1
DELTA = 0.05
SMALL = 0.002  # where both wells are parabolas
RATE = 0.02
TEMPERATURES = (0.0026, 0.0036, 0.005, 0.0075, 0.011, 0.0165)


def validate(scale: str, progress: harness.Progress) -> harness.Outcome:
    """The shift's cost at either minimum, and the test loss where SGD ends up."""
    more = 1 if scale == "quick" else 12
    cost = [_shifted(EQUAL, m.position) - m.energy for m in EQUAL.minima()]
    small = [EQUAL.energy(m.position + SMALL) - m.energy for m in EQUAL.minima()]
    curvature = [m.hessian[0, 0] for m in EQUAL.minima()]
    progress("sweep of the batch size")
    run = _sweep(4_096 * more)
    sizes = RATE / (2 * np.array(TEMPERATURES))
    chains = [predict.chain(LOWER, lv.SGD(RATE, float(s))) for s in sizes]
    test = [_mean(chain, lambda x: _shifted(LOWER, x)) for chain in chains]
    progress("equal depth")
    equal = _equal(8_192 * more)
    equal_law = predict.chain(EQUAL, lv.SGD(RATE, RATE / 0.008))
    measured = [run["test"][k] for k in range(len(TEMPERATURES))]
    best = int(np.argmin([m.value for m in measured]))
    checks = [
        *(
            harness.check(
                f"mean test loss at S = {size:.3g} against the discrete step",
                measured[k],
                test[k],
                margin=0.05,
            )
            for k, size in enumerate(sizes)
        ),
        harness.Check(
            f"loss of a shift by {SMALL:g} at the sharp minimum over that at the flat one, against "
            "the ratio of their curvatures (no statistics: two numbers of the curve)",
            small[SHARP] / small[WIDE],
            0.0,
            curvature[SHARP] / curvature[WIDE],
            margin=0.1,
            approximate=True,
        ),
        harness.check(
            "share of SGD in the flat one of two equally deep minima, T = 0.004, against the "
            "discrete step",
            equal,
            equal_law.occupation()[WIDE],
            margin=0.05,
        ),
        harness.check("the same against one half: no preference", equal, 0.5, expected="differs"),
        harness.check(
            "mean test loss of the largest batch against that of the best one",
            measured[0],
            measured[best].value,
            expected="differs",
        ),
        harness.check(
            "mean test loss of the smallest batch against that of the best one",
            measured[-1],
            measured[best].value,
            expected="differs",
        ),
    ]
    return harness.Outcome(
        prediction="f(x + delta) at the minima; the law of the discrete step, and the shifted "
        "loss averaged over it.",
        measurement=f"SGD at eta = {RATE:g} and six batch sizes on a wide and a sharp well "
        "(curvatures 1 and 9), the sharp one lower; the test loss is the training loss moved by "
        f"{DELTA:g}.",
        checks=checks,
        findings=[
            f"The shift costs the sharp minimum {cost[SHARP] / cost[WIDE]:.1f} times as much as "
            f"the flat one (their curvatures are as {curvature[SHARP] / curvature[WIDE]:.0f} to "
            "1, which decides for shifts small against the wells).",
            f"Between equally deep minima SGD spends {equal.value:.3f} of its time in the flat "
            "one, at every small noise: the preference is one of volume, not of batch size.",
            "Where the sharp one is lower, large batches end there: the mean test loss is "
            f"{measured[0].value:.4f} at S = {sizes[0]:.3g}, {measured[best].value:.4f} at the "
            f"best S = {sizes[best]:.3g}, and rises again to {measured[-1].value:.4f} at S = "
            f"{sizes[-1]:.3g}, where the noise itself costs more than the flat minimum saves. So "
            "there is an optimal batch size, as Smith and Le say.",
        ],
        figures=[_sketch(), _optimum(sizes, measured, run["train"])],
        settings={
            "seeds": [131, 132],
            "surface": "wide_and_sharp, energy_difference=0.0055 (0 for equal depth)",
            **ENERGY,
            "eta": RATE,
            "temperatures": TEMPERATURES,
            "delta": DELTA,
        },
        data={
            "batch size": sizes,
            "test loss": [m.value for m in measured],
            "stderr": [m.stderr for m in measured],
            "predicted": test,
        },
    )


def _shifted(surface, x) -> np.ndarray:
    """The test loss, f(x + delta)."""
    return surface.energy(np.asarray(x, dtype=float) + DELTA)


def _mean(law, function) -> float:
    """The average of a function over a 1-D law."""
    edges = np.linspace(law.low, law.high, 4_001)
    middle = (edges[1:] + edges[:-1]) / 2
    return float(law.bin_probabilities(edges) @ function(middle[:, None]))


def _sweep(replicas: int) -> dict:
    group = np.repeat(np.arange(len(TEMPERATURES)), replicas)
    size = RATE / (2 * np.array(TEMPERATURES))
    test = LOWER.formula.replace("x", f"(x + {DELTA!r})")
    result = lv.simulate(
        LOWER,
        lv.SGD(RATE, size[group]),
        n_replicas=len(group),
        n_steps=260_000,
        burn_in=160_000,
        seed=harness.seed(131),
        observe=(
            lv.Average(test, every=50, groups=group, name="test"),
            lv.Average(LOWER.formula, every=50, groups=group, name="train"),
        ),
        dtype="float32",
        on_divergence="absorb",
        progress=False,
    )
    return {"test": result["test"], "train": result["train"]}


def _equal(replicas: int) -> lv.Estimate:
    result = lv.simulate(
        EQUAL,
        lv.SGD(RATE, RATE / 0.008),
        n_replicas=replicas,
        n_steps=60_000,
        burn_in=20_000,
        seed=harness.seed(132),
        observe=lv.Occupation(every=50),
        dtype="float32",
        on_divergence="absorb",
        progress=False,
    )
    found = result.occupation()
    return lv.Estimate(float(found.probability[WIDE]), float(found.stderr[WIDE]), found.dof)


def _sketch() -> tuple:
    figure, ax = harness.axes(xlabel="parameter", ylabel="loss")
    x = np.linspace(-0.48, 0.24, 500)[:, None]
    ax.plot(x, EQUAL.energy(x), color=plot.COLOURS[0], label="training")
    ax.plot(x, _shifted(EQUAL, x), "--", color=plot.COLOURS[1], label="test (shifted)")
    top = 0.045
    for m, name in zip(EQUAL.minima(), ("flat", "sharp"), strict=True):
        at = float(m.position[0])
        ax.plot([at, at], [m.energy, _shifted(EQUAL, m.position)], color=plot.INK, lw=1.4)
        ax.annotate(name, (at, -0.002), ha="center", va="top")
    ax.set_ylim(-0.006, top)
    ax.legend(frameon=False)
    return ("Flat and sharp minima of equal training loss: what a shift costs each.", figure)


def _optimum(sizes, measured, train) -> tuple:
    figure, ax = harness.axes(xlabel="batch size S", ylabel="mean loss where SGD ends up")
    ax.errorbar(
        sizes, [m.value for m in measured], [m.stderr for m in measured], fmt="o", ms=5,
        color=plot.COLOURS[1], label="test, measured",
    )  # fmt: skip
    found = [train[k] for k in range(len(sizes))]
    ax.errorbar(
        sizes, [m.value for m in found], [m.stderr for m in found], fmt="s", ms=5,
        color=plot.COLOURS[0], label="training, measured",
    )  # fmt: skip
    fine = np.geomspace(sizes.min(), sizes.max(), 14)
    laws = [predict.chain(LOWER, lv.SGD(RATE, float(s))) for s in fine]
    ax.plot(
        fine, [_mean(law, lambda x: _shifted(LOWER, x)) for law in laws], color=plot.COLOURS[1],
        lw=1, label="discrete step",
    )  # fmt: skip
    ax.plot(fine, [_mean(law, LOWER.energy) for law in laws], color=plot.COLOURS[0], lw=1)
    ax.set_xscale("log")
    ax.set_ylim(bottom=0)
    ax.set_xticks(sizes, [f"{s:.2g}" for s in sizes])
    ax.minorticks_off()
    ax.legend(frameon=False)
    return ("The sharp minimum is lower: large batches end in it, and the test loss pays.", figure)


if __name__ == "__main__":
    harness.main(__file__)
