"""T4: the density's whole path depends on eta and S through eta/S and the time t eta (App. B)."""

from __future__ import annotations

import harness
import numpy as np

import langevin as lv
from langevin import plot, predict

ROW = "T4"
CLAIM = (
    "In the time t eta only eta sigma^2/(2S) enters: not just the end but the whole path of the "
    "density is the same under (eta, S) -> (a eta, a S), up to a learning rate where it breaks."
)
SOURCE = "Jastrzebski et al. 2017, Three Factors, Appendix B, Eqs. 15-16"

WELLS = lv.Surface("x**4/4 - a*x**3/3 - x**2/2", a=0.4, noise=lv.Isotropic(1.0))
NOISE = 0.3  # eta/S: a temperature of 0.15
RATE = 0.01
FACTORS = (1, 2, 4, 8, 16)
TIMES = (0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96)  # t eta: whole steps for every factor
START = 0.15  # just right of the top at 0: both wells are reached, at different times


def validate(scale: str, progress: harness.Progress) -> harness.Outcome:
    """p(x < 0) and the density at eight times, for five factors a."""
    replicas = 100_000 if scale == "quick" else 2_000_000
    runs = {}
    for a in FACTORS:
        progress(f"a = {a}")
        runs[a] = _run(a, replicas)
    progress("predictions")
    small = lv.SGD(RATE, RATE / NOISE)
    continuum = predict.fokker_planck(WELLS, small)
    flow = [continuum.at(t / RATE, start=[START]).occupation()[0] for t in TIMES]
    paths = {a: _chain(a) for a in FACTORS}
    chains = {a: [law.occupation()[0] for law in paths[a]] for a in (1, FACTORS[-1])}
    apart = [_apart(paths[1], paths[a]) for a in FACTORS[1:]]
    limits = [
        harness.line(
            [RATE * a for a in FACTORS[:4]],
            [runs[a]["left"][k].value for a in FACTORS[:4]],
            [runs[a]["left"][k].stderr for a in FACTORS[:4]],
            degree=2,
        )
        for k in range(len(TIMES))
    ]
    middle, last = TIMES.index(2.56), FACTORS[-1]
    distance = {a: _distance(runs[1]["density"], runs[a]["density"], replicas) for a in FACTORS[1:]}
    checks = [
        harness.check(
            f"p(x < 0) at t eta = {TIMES[middle]:g}, extrapolated to eta -> 0, against the "
            "Fokker-Planck equation",
            limits[middle],
            flow[middle],
            margin=0.05,
            approximate=True,
        ),
        *(
            harness.check(
                f"the same at t eta = {t:g}",
                limits[k],
                flow[k],
                margin=0.05,
                approximate=True,
            )
            for k, t in enumerate(TIMES)
            if k != middle
        ),
        *(
            harness.check(
                f"p(x < 0) at t eta = {TIMES[k]:g}, a = {a}, against the discrete step's path",
                runs[a]["left"][k],
                chains[a][k],
                margin=0.05,
            )
            for a in chains
            for k in (0, middle, len(TIMES) - 1)
        ),
        *(
            harness.check(
                f"squared distance of the paths of a = 1 and a = {a}, mean over times, against the "
                "discrete step's",
                distance[a],
                apart[k],
                margin=0.01,
                scale=1.0,
            )
            for k, a in enumerate(FACTORS[1:])
        ),
        harness.check(
            f"p(x < 0) at t eta = {TIMES[0]:g}, a = {last} (eta = {RATE * last:g}) against the "
            "continuum's path",
            runs[last]["left"][0],
            flow[0],
            expected="differs",
        ),
        harness.check(
            "control: a = 4 at the same number of steps, not the same t eta",
            runs[4]["left"][middle + 2],  # t eta = 10.24 with a = 4 is as many steps as 2.56
            flow[middle],
            expected="differs",
        ),
    ]
    return harness.Outcome(
        prediction="The Fokker-Planck equation at eight times; the discrete step's transition "
        "kernel applied as many times as there are steps.",
        measurement=f"{replicas:,} replicas from x = {START:g}, T = {NOISE / 2:g}, eta = "
        f"{RATE:g} a and S = eta/{NOISE:g}; extrapolated to eta = 0 over a = 1, 2, 4, 8.",
        checks=checks,
        findings=[
            "The paths collapse in t eta, and in the limit of small learning rates onto the "
            "Fokker-Planck equation's.",
            "They part in proportion to eta: total variation from the path of a = 1, averaged over "
            "time, " + ", ".join(f"{d.value:.4f} at a = {a}" for a, d in distance.items()) + ".",
            f"The break is worst early, where a step of eta = {RATE * last:g} is a good part of "
            "the time passed; the ends of the paths differ less.",
        ],
        figures=[_collapse(runs, flow), _distance_figure(distance, apart)],
        settings={
            "seed": 41,
            "surface": WELLS.formula,
            "a": 0.4,
            "eta/S": NOISE,
            "eta": [RATE * a for a in FACTORS],
            "t eta": TIMES,
            "start": START,
            "replicas": replicas,
        },
        data={
            "time": TIMES,
            "continuum": flow,
            **{f"a={a}": [e.value for e in runs[a]["left"]] for a in FACTORS},
        },
    )


def _run(a: int, replicas: int) -> dict:
    eta = RATE * a
    steps = [round(t / eta) for t in TIMES]
    result = lv.simulate(
        WELLS,
        lv.SGD(eta, eta / NOISE),
        n_replicas=replicas,
        n_steps=steps[-1],
        seed=harness.seed(41 + a),
        start=[START],
        observe=(lv.Occupation(at=steps), lv.Histogram(bins=60, range=(-2, 2.4), at=steps)),
        progress=False,
    )
    counted = [result.occupation().at(s) for s in steps]
    left = [lv.Estimate(float(c.probability[0]), float(c.stderr[0])) for c in counted]
    return {"left": left, "density": [result.density().at(s) for s in steps]}


def _chain(a: int) -> list:
    """The law of the discrete step at each of the times."""
    eta = RATE * a
    law = predict.chain(WELLS, lv.SGD(eta, eta / NOISE))
    return [law.at(round(t / eta), start=[START]) for t in TIMES]


def _apart(first: list, second: list) -> float:
    """`_distance` of two predicted paths, on the same bins."""
    edges = np.linspace(-2, 2.4, 61)
    p, q = (np.array([law.bin_probabilities(edges) for law in path]) for path in (first, second))
    return float((((p - q) ** 2).sum(axis=1) / (p**2).sum(axis=1)).mean())


def _distance(first: list, second: list, n: int) -> lv.Estimate:
    """Mean over times of ``sum (p - q)^2 / sum p^2``, counting noise taken off: unbiased."""
    values, spreads = [], []
    for one, two in zip(first, second, strict=True):
        p, q = one.probability, two.probability
        variance = (p * (1 - p) + q * (1 - q)) / n
        difference = (p - q) ** 2
        scale = (p**2).sum()
        values.append((difference - variance).sum() / scale)
        noise = 2 * variance**2 + 4 * np.maximum(difference - variance, 0) * variance
        spreads.append(noise.sum() / scale**2)
    return lv.Estimate(float(np.mean(values)), float(np.sqrt(np.sum(spreads))) / len(values))


def _collapse(runs: dict, flow: list[float]) -> tuple:
    figure, ax = harness.axes(xlabel="t eta", ylabel="p(x < 0)")
    for k, a in enumerate(FACTORS):
        left = runs[a]["left"]
        ax.errorbar(
            TIMES, [e.value for e in left], [e.stderr for e in left], fmt="osD^v"[k], ms=5,
            color=plot.COLOURS[k], label=f"eta = {RATE * a:g}, S = {RATE * a / NOISE:.3g}",
        )  # fmt: skip
    ax.plot(TIMES, flow, color=plot.INK, lw=1, label="Fokker-Planck", zorder=0)
    ax.set_xscale("log")
    ax.legend(frameon=False, fontsize="small")
    return ("Sixteen-fold learning rates and batch sizes: one path in the time t eta.", figure)


def _distance_figure(distance: dict, predicted: list[float]) -> tuple:
    figure, ax = harness.axes(
        xlabel="factor a on eta and S", ylabel="relative distance from the path of a = 1"
    )
    a = np.array(list(distance))
    value = np.sqrt([max(d.value, 0.0) for d in distance.values()])
    error = [d.stderr for d in distance.values()] / (2 * np.maximum(value, 1e-3))
    ax.errorbar(a, value, error, fmt="o", ms=5, color=plot.INK, label="measured")
    ax.plot(a, np.sqrt(predicted), color=plot.COLOURS[0], label="discrete step")
    ax.set(xscale="log", yscale="log")
    ax.set_xticks(a, [str(k) for k in a])
    ax.minorticks_off()
    ax.legend(frameon=False)
    return ("How far the paths part: in proportion to the learning rate.", figure)


if __name__ == "__main__":
    harness.main(__file__)
