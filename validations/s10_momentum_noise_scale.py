"""S10: with momentum the stationary law depends on the noise scale eps N/(B (1 - m)) (App. D)."""

from __future__ import annotations

import harness
import numpy as np

import langevin as lv
from langevin import plot, predict

ROW = "S10"
CLAIM = (
    "With momentum m the scale of the fluctuations is g = eps N/(B (1 - m)): it does not change if "
    "the batch grows in proportion to eps, to N, or to 1/(1 - m)."
)
SOURCE = "Smith & Le 2017, section 5 and Appendix D, Eq. 32"

X, Y = lv.surfaces.diabetes()
DATA = lv.surfaces.linear_regression(X, Y)
RATE, BATCH = 0.01, 4
MOMENTA = (0.0, 0.5, 0.75, 0.9, 0.95)

WELLS = lv.Surface("x**4/4 - a*x**3/3 - x**2/2", a=0.4, noise=lv.Isotropic(1.0))
TEMPERATURE = 0.12
WELL_MOMENTA = (0.0, 0.5, 0.9, 0.95)
WELL_RATES = (0.004, 0.008, 0.064)  # the last one breaks the rule


def validate(scale: str, progress: harness.Progress) -> harness.Outcome:
    """Fluctuations of a regression's weights, and the occupation of two wells."""
    more = 1 if scale == "quick" else 10
    spreads = {}
    for m in MOMENTA:
        progress(f"regression, m = {m:g}")
        spreads[m] = _spread(DATA, _sgd(m), 768 * more, seed=101 + MOMENTA.index(m))
    progress("regression, twice the data")
    double = lv.surfaces.linear_regression(np.concatenate([X, X]), np.concatenate([Y, Y]))
    twice = _spread(double, lv.SGD(RATE, 2 * BATCH), 768 * more, seed=111)
    rate = _spread(DATA, lv.SGD(2 * RATE, 2 * BATCH), 768 * more, seed=112)
    progress("regression, batch not scaled")
    unscaled = _spread(DATA, lv.SGD(RATE, BATCH, momentum=0.9), 384 * more, seed=113)
    progress("two wells")
    wells = _wells(8_192 * more)
    gibbs = predict.boltzmann_gibbs(WELLS, temperature=TEMPERATURE).ratio(0, 1)
    base = spreads[0.0]
    quotient = {m: _over(spreads[m], base) for m in MOMENTA[1:]}
    limits = {m: harness.line(WELL_RATES[:2], *zip_pairs(wells, m)) for m in WELL_MOMENTA}
    exact_09 = predict.chain(WELLS, _well_sgd(0.9, WELL_RATES[-1])).ratio(0, 1)
    checks = [
        harness.check(
            "total variance of the weights at m = 0.9, B x 10, over that at m = 0",
            quotient[0.9],
            1.0,
            margin=0.08,
            approximate=True,
        ),
        *(
            harness.check(
                f"the same at m = {m:g}, B x {1 / (1 - m):g}",
                quotient[m],
                1.0,
                margin=0.08,
                approximate=True,
            )
            for m in MOMENTA[1:]
            if m != 0.9
        ),
        harness.check(
            "the same for twice the learning rate, B x 2",
            _over(rate, base),
            1.0,
            margin=0.08,
            approximate=True,
        ),
        harness.check(
            "N times the total variance for twice the data, B x 2, over that of the data",
            lv.Estimate(2 * _over(twice, base).value, 2 * _over(twice, base).stderr),
            1.0,
            margin=0.08,
            approximate=True,
        ),
        *(
            harness.check(
                f"total variance at m = {m:g} against the exact law of the discrete step",
                spreads[m],
                _exact(DATA, _sgd(m)),
                margin=0.06,
            )
            for m in MOMENTA
        ),
        *(
            harness.check(
                f"p_A/p_B of two wells at m = {m:g}, eps -> 0, against equal g",
                limits[m],
                gibbs,
                margin=0.1,
                approximate=True,
            )
            for m in WELL_MOMENTA
        ),
        harness.check(
            f"p_A/p_B of two wells at m = 0.9, eps = {WELL_RATES[-1]:g}, against the discrete "
            "step's law of (x_t, x_t-1)",
            wells[0.9, WELL_RATES[-1]],
            exact_09,
            margin=0.03,
        ),
        harness.check(
            f"p_A/p_B of two wells at m = 0.9, eps = {WELL_RATES[-1]:g}, against equal g (the "
            "step is too large)",
            wells[0.9, WELL_RATES[-1]],
            gibbs,
            expected="differs",
        ),
        harness.check(
            "control: m = 0.9 without scaling the batch, over m = 0",
            _over(unscaled, base),
            1.0,
            expected="differs",
        ),
    ]
    off = {m: wells[m, WELL_RATES[-1]].value / gibbs - 1 for m in WELL_MOMENTA}
    return harness.Outcome(
        prediction="Equal g, equal law, as eps -> 0; for the regression the exact covariance of "
        "the discrete step with its state-dependent mini-batch noise, for the wells "
        "Boltzmann-Gibbs and the law of the heavy ball's discrete step.",
        measurement=f"Mini-batch SGD on the diabetes regression (N = {len(Y)}, eps = {RATE:g}), "
        "batches drawn with replacement, B = 4/(1 - m); heavy ball on two wells at one "
        "temperature.",
        checks=checks,
        findings=[
            "The rule holds for momentum, learning rate and size of the data alike. For the size "
            "of the data what stays the same is the fluctuation in units of the posterior's "
            "width, N Var w: with replicated data and B in proportion, the loss is the same and "
            "the weights fluctuate half as much.",
            "On real mini-batches it is approximate at every learning rate, since the noise "
            "depends on the weights and its own feedback falls with the batch: "
            + ", ".join(f"{100 * (q.value - 1):+.1f} % at m = {m:g}" for m, q in quotient.items())
            + ", all as the exact law says.",
            f"At eps = {WELL_RATES[-1]:g} equal g no longer means equal p_A/p_B: "
            + ", ".join(f"{100 * v:+.1f} % at m = {m:g}" for m, v in off.items())
            + ". The step's effect grows with momentum once eps times curvature exceeds "
            "(1 - m)^2: a well then rings, and its temperature rises with its curvature.",
        ],
        figures=[_regression_figure(quotient, unscaled, base), _wells_figure(wells, gibbs)],
        settings={
            "seeds": "101 to 120",
            "regression": {"data": "diabetes", "eps": RATE, "B": BATCH, "m": MOMENTA},
            "wells": {
                "surface": WELLS.formula,
                "temperature": TEMPERATURE,
                "m": WELL_MOMENTA,
                "eps": WELL_RATES,
            },
        },
        data={
            "m": MOMENTA[1:],
            "variance over m = 0": [quotient[m].value for m in MOMENTA[1:]],
            "stderr": [quotient[m].stderr for m in MOMENTA[1:]],
        },
    )


def _spread(surface, sgd: lv.SGD, replicas: int, seed: int) -> lv.Estimate:
    """The sum of the variances of all weights about the minimum, except along the two flattest.

    Those relax so slowly (curvatures .0086 and .078) that a run long enough for them would tell
    nothing more about the rule.
    """
    pace = float(sgd.learning_rate) / (1 - float(sgd.momentum))
    burn_in = int(24 / pace)
    result = lv.simulate(
        surface,
        sgd,
        n_replicas=replicas,
        n_steps=3 * burn_in,
        burn_in=burn_in,
        seed=harness.seed(seed),
        observe=lv.Average(harness.squares(DATA, _stiff()), every=max(1, burn_in // 60)),
        progress=False,
    )
    return result.average()


def _sgd(m: float) -> lv.SGD:
    """Momentum m with the batch of equal noise scale."""
    return lv.SGD(RATE, round(BATCH / (1 - m)), momentum=m)


def _stiff() -> np.ndarray:
    axes = np.linalg.eigh(DATA.hessian(np.zeros(DATA.dim)))[1]
    return axes[:, 2:]


def _exact(surface, sgd: lv.SGD) -> float:
    covariance = predict.quadratic(surface, sgd).moments()[1]
    project = _stiff()
    return float(np.trace(project.T @ covariance @ project))


def _over(a: lv.Estimate, b: lv.Estimate) -> lv.Estimate:
    value = a.value / b.value
    return lv.Estimate(value, value * float(np.hypot(a.stderr / a.value, b.stderr / b.value)))


def _well_sgd(m: float, eta: float) -> lv.SGD:
    return lv.SGD(eta, eta / (2 * (1 - m) * TEMPERATURE), momentum=m)


def _wells(replicas: int) -> dict:
    grid = [(m, eta) for m in WELL_MOMENTA for eta in WELL_RATES]
    group = np.repeat(np.arange(len(grid)), replicas)
    m, eta = np.array(grid)[group].T
    result = lv.simulate(
        WELLS,
        lv.SGD(eta, eta / (2 * (1 - m) * TEMPERATURE), momentum=m),
        n_replicas=len(group),
        n_steps=60_000,
        burn_in=20_000,
        seed=harness.seed(120),
        observe=lv.Occupation(every=50, groups=group),
        dtype="float32",
        progress=False,
    )
    occupation = result.occupation()
    return {pair: occupation.group(k).ratio(0, 1) for k, pair in enumerate(grid)}


def zip_pairs(wells: dict, m: float) -> tuple[list[float], list[float]]:
    """Values and errors of the rates at which the rule is meant to hold."""
    found = [wells[m, eta] for eta in WELL_RATES[:2]]
    return [f.value for f in found], [f.stderr for f in found]


def _regression_figure(quotient, unscaled, base) -> tuple:
    figure, ax = harness.axes(
        xlabel="1 / (1 - m)", ylabel="total variance of the weights over m = 0"
    )
    x = [1 / (1 - m) for m in quotient]
    ax.errorbar(
        x, [q.value for q in quotient.values()], [q.stderr for q in quotient.values()], fmt="o",
        ms=5, color=plot.INK, label="measured, B in proportion to 1/(1 - m)", zorder=3,
    )  # fmt: skip
    exact = [_exact(DATA, _sgd(m)) / _exact(DATA, lv.SGD(RATE, BATCH)) for m in quotient]
    ax.plot(x, exact, color=plot.COLOURS[0], label="exact discrete law")
    ax.plot([10], [_over(unscaled, base).value], "D", color=plot.COLOURS[3], label="B kept")
    ax.axhline(1, ls="--", color=plot.COLOURS[1], label="equal noise scale")
    ax.set(xscale="log", yscale="log", ylim=(0.5, 20))
    ax.set_xticks([2, 4, 10, 20], ["2", "4", "10", "20"])
    ax.set_yticks([0.5, 1, 2, 5, 10, 20], ["0.5", "1", "2", "5", "10", "20"])
    ax.minorticks_off()
    ax.legend(frameon=False)
    return ("Batches grown with 1/(1 - m) keep the fluctuations of a regression's weights.", figure)


def _wells_figure(wells, gibbs) -> tuple:
    figure, ax = harness.axes(xlabel="learning rate, at one noise scale", ylabel="p_A / p_B")
    for k, m in enumerate(WELL_MOMENTA):
        found = [wells[m, eta] for eta in WELL_RATES]
        ax.errorbar(
            WELL_RATES, [f.value for f in found], [f.stderr for f in found], fmt="osD^"[k] + "-",
            lw=0.8, ms=5, color=plot.COLOURS[k], label=f"m = {m:g}",
        )  # fmt: skip
    ax.axhline(gibbs, ls="--", color=plot.INK, lw=1, label="Boltzmann-Gibbs")
    ax.set_xscale("log")
    ax.set_xticks(WELL_RATES, [f"{r:g}" for r in WELL_RATES])
    ax.minorticks_off()
    ax.legend(frameon=False)
    return ("Two wells at one noise scale: alike at small learning rates, not at large.", figure)


if __name__ == "__main__":
    harness.main(__file__)
