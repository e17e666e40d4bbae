"""S9: Langevin dynamics at T = 1 visits the minima of a posterior by their evidence (App. A)."""

from __future__ import annotations

import harness
import numpy as np

import langevin as lv
from langevin import plot, predict

ROW = "S9"
CLAIM = (
    "Gradient descent on the summed cost with steps eps/N and Gaussian noise of variance 2 eps/N "
    "samples the posterior exp(-C): minima are visited in proportion to their evidence."
)
SOURCE = "Smith & Le 2017, Appendix A, Eqs. 14-21"

# Regression with a sine of unknown frequency w: a posterior of several minima. The data are
# fixed numbers, so that the minima are those of this file.
N = 12
INPUTS = np.round(np.linspace(-1.4, 1.6, N), 3)
TARGETS = np.array([0.31, 0.95, -0.42, -0.55, -0.61, 0.12, 0.2, 0.35, 0.72, 0.05, 0.3, -0.9])
NOISE_VARIANCE = 1.5
PRIOR = 0.15
STEPS = (0.06, 0.12, 0.24)  # eps; one step is eps/N long


def surface() -> lv.Surface:
    """C(w)/N, the regularised mean cost: C is summed over the examples, prior included."""
    terms = (f"(sin(w*{u:g}) - ({v:g}))**2" for u, v in zip(INPUTS, TARGETS, strict=True))
    cost = f"({' + '.join(terms)})/{2 * NOISE_VARIANCE:g} + {PRIOR:g}*w**2/2"
    return lv.Surface(f"({cost})/{N}")


def validate(scale: str, progress: harness.Progress) -> harness.Outcome:
    """Occupation of every minimum against its evidence, and against cruder rules."""
    more = 1 if scale == "quick" else 12
    mean_cost = surface()
    minima = mean_cost.minima()
    evidence = predict.boltzmann_gibbs(mean_cost, temperature=1 / N)
    occam = predict.laplace(mean_cost, temperature=1 / N)
    progress("the posterior")
    group = np.repeat(np.arange(len(STEPS)), 6_144 * more)
    eps = np.array(STEPS)[group]
    result = lv.simulate(
        mean_cost,
        lv.Overdamped(temperature=1 / N, dt=eps),  # -(eps/N) dC/dw + N(0, 2 eps/N)
        n_replicas=len(group),
        n_steps=40_000,
        burn_in=15_000,
        seed=harness.seed(91),
        observe=(
            lv.Occupation(every=20, groups=group),
            lv.Histogram(bins=120, every=20, groups=group),
        ),
        dtype="float32",
        progress=False,
    )
    found = [result.occupation().group(k) for k in range(len(STEPS))]
    best = int(np.argmax(evidence.occupation()))
    deepest = int(np.argmin([m.energy for m in minima]))
    seen = [k for k in range(len(minima)) if evidence.occupation()[k] > 1e-3]
    limits = {
        k: harness.line(STEPS, [f.probability[k] for f in found], [f.stderr[k] for f in found])
        for k in seen
    }
    order = [best, *(k for k in seen if k != best)]
    progress("twice the noise")
    hot = _twice_the_noise(mean_cost, more)
    depth = np.exp(-N * np.array([m.energy for m in minima]))
    depth /= depth.sum()
    checks = [
        *(
            harness.check(
                f"p of the minimum at w = {minima[k].position[0]:.2f}, eps -> 0, against its "
                "evidence (quadrature over its basin)",
                limits[k],
                evidence.occupation()[k],
                margin=0.02,
                scale=1.0,
                approximate=True,
            )
            for k in order
        ),
        harness.check(
            f"p of the minimum at w = {minima[best].position[0]:.2f} against its depth alone, "
            "exp(-C) without the Occam factor",
            limits[best],
            depth[best],
            expected="differs",
        ),
        harness.check(
            "control: the same with noise of variance 4 eps/N in place of 2 eps/N",
            hot,
            evidence.occupation()[best],
            expected="differs",
        ),
    ]
    laplace = occam.occupation()
    return harness.Outcome(
        prediction="The integral of exp(-C) over every basin, by quadrature; Laplace's "
        "approximation of it, exp(-C)/sqrt(det H), which is the evidence of Eq. 9.",
        measurement=f"The dynamics of Eq. 17 at eps = {', '.join(map(str, STEPS))}, started "
        "equally in all minima, extrapolated to eps = 0.",
        checks=checks,
        findings=[
            "Minima are visited in proportion to their evidence, as the appendix says.",
            f"The deepest minimum, at w = {minima[deepest].position[0]:.2f}, would take "
            f"{depth[deepest]:.3f} of the visits by its depth; it takes "
            f"{evidence.occupation()[deepest]:.3f}, fewer than the wider one at w = "
            f"{minima[best].position[0]:.2f} with {evidence.occupation()[best]:.3f}.",
            "The Gaussian approximation of the evidence (Eq. 9) gives "
            + ", ".join(f"{laplace[k]:.3f}" for k in seen)
            + ", the integral over the basins "
            + ", ".join(f"{evidence.occupation()[k]:.3f}" for k in seen)
            + ": with so few data the wells are not parabolas.",
        ],
        figures=[
            _posterior(mean_cost, evidence, result),
            _bars(minima, seen, limits, evidence, occam, depth),
        ],
        settings={
            "seeds": [91, 92],
            "N": N,
            "inputs": INPUTS,
            "targets": TARGETS,
            "noise variance": NOISE_VARIANCE,
            "prior": PRIOR,
            "eps": STEPS,
        },
        data={
            "minima": [minima[k].position[0] for k in seen],
            "measured": [limits[k].value for k in seen],
            "stderr": [limits[k].stderr for k in seen],
            "evidence": evidence.occupation()[seen],
            "laplace": laplace[seen],
        },
    )


def _twice_the_noise(mean_cost, more: int) -> lv.Estimate:
    result = lv.simulate(
        mean_cost,
        lv.Overdamped(temperature=2 / N, dt=STEPS[1]),
        n_replicas=4_096 * more,
        n_steps=16_000,
        burn_in=8_000,
        seed=harness.seed(92),
        observe=lv.Occupation(every=20),
        progress=False,
    )
    found = result.occupation()
    best = int(np.argmax(predict.boltzmann_gibbs(mean_cost, temperature=1 / N).occupation()))
    return lv.Estimate(float(found.probability[best]), float(found.stderr[best]))


def _posterior(mean_cost, evidence, result) -> tuple:
    figure, ax = harness.axes()
    plot.density(result.density()[0], [evidence], ax=ax)
    ax.set(xlabel="frequency w", ylabel="probability density", xlim=(-9, 8))
    ax.legend([ax.lines[-1], ax.containers[0]], ["posterior exp(-C)", "Langevin"], frameon=False)
    return ("The posterior and what Langevin dynamics at T = 1 visits.", figure)


def _bars(minima, seen, limits, evidence, occam, depth) -> tuple:
    figure, ax = harness.axes(xlabel="minimum at w", ylabel="probability of a visit")
    x = np.arange(len(seen))
    shown = (
        ("evidence (quadrature)", evidence.occupation()[seen]),
        ("evidence (Gaussian, Eq. 9)", occam.occupation()[seen]),
        ("depth alone", depth[seen]),
    )
    for k, (label, values) in enumerate(shown):
        ax.bar(x + 0.26 * (k - 1), values, 0.24, color=plot.COLOURS[k], alpha=0.75, label=label)
    ax.errorbar(
        x - 0.26, [limits[k].value for k in seen], [2 * limits[k].stderr for k in seen], fmt="o",
        ms=5, color=plot.INK, label="measured (two standard errors)", zorder=3,
    )  # fmt: skip
    ax.set_xticks(x, [f"{minima[k].position[0]:.2f}" for k in seen])
    ax.legend(frameon=False, fontsize="small", loc="upper left")
    ax.set_ylim(0, 0.72)
    return ("Visits of every minimum against its evidence and against its depth.", figure)


if __name__ == "__main__":
    harness.main(__file__)
