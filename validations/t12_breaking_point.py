"""T12: where (eta, S) -> (b eta, b S) stops leaving SGD alike, in settings with exact answers."""

from __future__ import annotations

import harness
import numpy as np

import langevin as lv
from langevin import plot, predict

ROW = "T12"
CLAIM = (
    "SGD is alike under (eta, S) -> (b eta, b S) up to some b; that point comes earlier with less "
    "data, and later with half the noise by half the learning rate."
)
SOURCE = "Jastrzebski et al. 2017, Three Factors, section 4.4, Figures 6 and 7"

TOLERANCE = 0.15  # relative change of a variance that counts as broken
# The same loss with 110, 220 and 440 examples: 110 rows of the diabetes data, once, twice, four
# times. Only the number of examples differs, not the surface nor the noise of one example.
X, Y = (a[::4][:110] for a in lv.surfaces.diabetes())
COPIES = (1, 2, 4)
RATE, BATCH = 0.006, 3
FACTORS = (1, 2, 4, 6, 9, 13, 18, 25, 32)

WELLS = lv.Surface("x**4/4 - a*x**3/3 - x**2/2", a=0.4, noise=lv.Isotropic(1.0))
NOISE, WELL_RATE = 0.24, 0.02
WELL_FACTORS = (1, 2, 3, 4, 6, 8)


def validate(scale: str, progress: harness.Progress) -> harness.Outcome:
    """The stiffest weight of a regression, by size of the data and sampling, and two wells."""
    more = 1 if scale == "quick" else 12
    settings = [
        (110, "with_replacement", RATE),
        (440, "with_replacement", RATE),
        (110, "with_replacement", RATE / 2),
        *((110 * c, "without_replacement", RATE) for c in COPIES),
    ]
    curves = {}
    for n, sampling, eta in settings:
        progress(f"regression, N = {n}, {sampling.replace('_', ' ')}, eta = {eta:g} b")
        seed = 1_000 * (len(curves) + 1)
        curves[n, sampling, eta] = _curve(n, sampling, eta, 2_048 * more, seed)
    progress("two wells")
    wells = _wells(65_536 * more)
    breaks = {key: _break(curve["measured"]) for key, curve in curves.items()}
    exact = {key: _break_of(curve["exact"]) for key, curve in curves.items()}
    base = (110, "with_replacement", RATE)
    half = (110, "with_replacement", RATE / 2)
    without = [(110 * c, "without_replacement", RATE) for c in COPIES]
    doubled = _over(breaks[half], breaks[base])
    law = predict.finite_step(WELLS, lv.SGD(WELL_RATE, WELL_RATE / NOISE))
    slope = _slope(wells, law.gibbs.ratio(0, 1))
    checks = [
        harness.check(
            f"factor b at which a variance is off by {100 * TOLERANCE:.0f} %, N = 110 with "
            "replacement, against the exact law",
            breaks[base],
            exact[base],
            margin=0.15,
        ),
        harness.check(
            "with half the learning rate (half the noise): the factor over that one, against 2",
            doubled,
            2.0,
            margin=0.25,
            approximate=True,
        ),
        harness.check(
            "with four times the data, with replacement: the factor over that one, against 1",
            _over(breaks[440, "with_replacement", RATE], breaks[base]),
            1.0,
            margin=0.15,
        ),
        *(
            harness.check(
                f"the factor at N = {key[0]} without replacement against the exact law",
                breaks[key],
                exact[key],
                margin=0.15,
            )
            for key in without
        ),
        harness.check(
            "without replacement: the factor at N = 110 against that at N = 440 (less data, "
            "earlier)",
            breaks[without[0]],
            breaks[without[-1]].value,
            expected="differs",
        ),
        harness.check(
            "slope of ln p_A/p_B of two wells in eta, at fixed eta/S, against the finite-step law",
            slope,
            law.slope(0, 1),
            margin=0.6,
            approximate=True,
        ),
        harness.check(
            "control: the same against no break at all", slope, 0.0, scale=1.0, expected="differs"
        ),
    ]
    stiffest = float(np.linalg.eigvalsh(_surface(110).hessian(np.zeros(10)))[-1])
    return harness.Outcome(
        prediction="The exact second moment of least squares with real mini-batches, with and "
        "without replacement, at every b; for the wells the first-order effect of the step, "
        "-(<lap L>_A - <lap L>_B)/4.",
        measurement="Variances along the two stiffest directions of a regression on 110 rows of "
        "the diabetes data, taken once, twice and four times, over their values at b = 1; the "
        "first to change by the tolerance counts. p_A/p_B of two wells at fixed eta/S.",
        checks=checks,
        findings=[
            "With replacement the rule breaks where the step is a fixed part of the stability "
            f"limit: at b = {breaks[base].value:.1f}, where eta h = "
            f"{breaks[base].value * RATE * stiffest:.2f} (2 is unstable), whatever the size of "
            "the data.",
            f"With half the learning rate it breaks {doubled.value:.2f} times later, as the paper "
            "reports.",
            "'Earlier with less data' holds for batches drawn without replacement, as in epochs: "
            "b = "
            + ", ".join(f"{breaks[key].value:.1f} at N = {key[0]}" for key in without)
            + ". There it is not the step that breaks the rule: the noise is cut by "
            "(N - S)/(N - 1) as the batch nears the data. With replacement the size of the data "
            "does not matter.",
            "So the exact statement is (eta, N/S - 1) -> (b eta, (N/S - 1)/b): "
            "predict.scaling(...).equivalent applies it.",
        ],
        figures=[_regression_figure(curves), _wells_figure(wells, law)],
        settings={
            "seeds": "1000 k + b for the k-th curve; 122",
            "regression": {"eta": RATE, "S": BATCH, "b": FACTORS, "tolerance": TOLERANCE},
            "wells": {"surface": WELLS.formula, "eta/S": NOISE, "eta": WELL_RATE},
        },
        data={
            f"N={n} {sampling} eta={eta:g}": {
                "measured": [[m.value for m in c] for c in curve["measured"]],
                "stderr": [[m.stderr for m in c] for c in curve["measured"]],
                "exact": curve["exact"],
            }
            for (n, sampling, eta), curve in curves.items()
        },
    )


def _surface(n: int):
    copies = n // 110
    return lv.surfaces.linear_regression(np.tile(X, (copies, 1)), np.tile(Y, copies))


def _curve(n: int, sampling: str, eta: float, replicas: int, seed: int) -> dict:
    """Variances along the two stiffest directions over those at b = 1, for every b.

    The stiffest feels the step most, the second one shows what the sampling alone does.
    """
    surface = _surface(n)
    base = _surface(110)  # the copies differ from it by rounding: one text, one kernel for all
    axes = np.linalg.eigh(base.hessian(np.zeros(base.dim)))[1][:, :-3:-1].T
    measured, exact = [], []
    for b in FACTORS:
        sgd = lv.SGD(eta * b, BATCH * b, sampling=sampling)
        burn_in = max(60, int(4 / (eta * b)))
        result = lv.simulate(
            surface,
            sgd,
            n_replicas=replicas,
            n_steps=6 * burn_in,
            burn_in=burn_in,
            seed=harness.seed(seed + b),
            observe=[
                lv.Average(harness.squares(base, axis), every=2, name=str(k))
                for k, axis in enumerate(axes)
            ],
            progress=False,
        )
        law = predict.quadratic(surface, sgd).moments()[1]
        measured.append([result[str(k)] for k in range(len(axes))])
        exact.append([float(axis @ law @ axis) for axis in axes])
    return {
        "measured": [[_over(m[k], measured[0][k]) for m in measured] for k in (0, 1)],
        "exact": [[e[k] / exact[0][k] for e in exact] for k in (0, 1)],
    }


def _over(a: lv.Estimate, b: lv.Estimate) -> lv.Estimate:
    if a is b:
        return lv.Estimate(1.0, 0.0, a.dof)
    value = a.value / b.value
    return lv.Estimate(value, value * float(np.hypot(a.stderr / a.value, b.stderr / b.value)))


def _break_of(curves: list[list[float]]) -> float:
    """The first b at which a curve is off 1 by the tolerance, linear between the factors."""
    found = []
    for curve in curves:
        off = np.abs(np.array(curve) - 1)
        k = int(np.argmax(off > TOLERANCE))
        if k > 0:
            share = (TOLERANCE - off[k - 1]) / (off[k] - off[k - 1])
            found.append(FACTORS[k - 1] + share * (FACTORS[k] - FACTORS[k - 1]))
    return float(min(found)) if found else float("nan")


def _break(curves: list[list[lv.Estimate]]) -> lv.Estimate:
    """The same of measurements; its error by moving every point by its own."""
    values = [[m.value for m in curve] for curve in curves]
    centre = _break_of(values)
    changes = []
    for i, curve in enumerate(curves):
        for k, m in enumerate(curve):
            moved = [list(v) for v in values]
            moved[i][k] += m.stderr
            changes.append(_break_of(moved) - centre)
    return lv.Estimate(centre, float(np.sqrt(np.nansum(np.square(changes)))))


def _wells(replicas: int) -> list[lv.Estimate]:
    group = np.repeat(np.arange(len(WELL_FACTORS)), replicas)
    eta = WELL_RATE * np.array(WELL_FACTORS)[group]
    result = lv.simulate(
        WELLS,
        lv.SGD(eta, eta / NOISE),
        n_replicas=len(group),
        n_steps=24_000,
        burn_in=8_000,
        seed=harness.seed(122),
        observe=lv.Occupation(every=20, groups=group),
        dtype="float32",
        on_divergence="absorb",
        progress=False,
    )
    return [result.occupation().group(k).ratio(0, 1) for k in range(len(WELL_FACTORS))]


def _slope(wells: list[lv.Estimate], gibbs: float) -> lv.Estimate:
    """d ln(p_A/p_B)/d eta as eta -> 0: ln(ratio/Gibbs)/eta on a straight line in eta."""
    eta = WELL_RATE * np.array(WELL_FACTORS)
    quotient = [np.log(w.value / gibbs) / e for w, e in zip(wells, eta, strict=True)]
    error = [w.stderr / w.value / e for w, e in zip(wells, eta, strict=True)]
    return harness.line(eta, quotient, error)


def _regression_figure(curves: dict) -> tuple:
    figure, ax = harness.axes(
        xlabel="factor b on learning rate and batch size", ylabel="variance over that at b = 1"
    )
    chosen = [
        ((110, "with_replacement", RATE), 0, "N = 110, with replacement, stiffest"),
        ((110, "with_replacement", RATE / 2), 0, "the same with half eta"),
        *(
            ((110 * c, "without_replacement", RATE), 1, f"N = {110 * c}, without, second")
            for c in COPIES
        ),
    ]
    for k, (key, which, label) in enumerate(chosen):
        found, colour = curves[key]["measured"][which], plot.COLOURS[k]
        ax.errorbar(
            FACTORS, [m.value for m in found], [m.stderr for m in found], fmt="os^Dv"[k], ms=4,
            color=colour, label=label,
        )  # fmt: skip
        ax.plot(FACTORS, curves[key]["exact"][which], color=colour, lw=1)
    for edge in (1 - TOLERANCE, 1 + TOLERANCE):
        ax.axhline(edge, color=plot.INK, lw=0.7, ls=":")
    ax.set_ylim(0.2, 1.9)
    ax.legend(frameon=False, fontsize="small")
    return ("Points: measured; lines: exact. Dotted: off by 15 %.", figure)


def _wells_figure(wells, law) -> tuple:
    figure, ax = harness.axes(xlabel="learning rate at fixed eta/S", ylabel="p_A / p_B")
    eta = WELL_RATE * np.array(WELL_FACTORS)
    ax.errorbar(
        eta, [w.value for w in wells], [w.stderr for w in wells], fmt="o", ms=5, color=plot.INK,
        label="measured", zorder=3,
    )  # fmt: skip
    fine = np.linspace(0.01, eta[-1], 30)
    chain = [predict.chain(WELLS, lv.SGD(e, e / NOISE)).ratio(0, 1) for e in fine]
    ax.plot(fine, chain, color=plot.COLOURS[0], label="discrete step")
    gibbs = law.gibbs.ratio(0, 1)
    ax.plot(fine, gibbs * (1 + law.slope(0, 1) * fine), "--", color=plot.COLOURS[1],
            label="first order in the step")  # fmt: skip
    ax.legend(frameon=False)
    return ("Two wells: the flatter one gains with the learning rate at fixed noise.", figure)


if __name__ == "__main__":
    harness.main(__file__)
