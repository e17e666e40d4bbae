"""T1: the stationary density of SGD with isotropic noise is Boltzmann-Gibbs (Theorem 1)."""

from __future__ import annotations

import harness
import numpy as np

import langevin as lv
from langevin import plot, predict

ROW = "T1"
CLAIM = (
    "With isotropic gradient noise SGD settles into P = P0 exp(-2 L S/(eta sigma^2)), which "
    "depends on learning rate and batch size through n = eta/S alone."
)
SOURCE = "Jastrzebski et al. 2017, Three Factors, Theorem 1, Eq. 2"

NOISE = 0.24  # n = eta/S, so T = 0.12
RATES = (0.02, 0.04, 0.08, 0.16)
WELLS = lv.Surface("x**4/4 - a*x**3/3 - x**2/2", a=0.4, noise=lv.Isotropic(1.0))

PLANE_T = 0.7
PLANE_RATES = (0.01, 0.02, 0.03)
PLANE = lv.surfaces.three_well()

# Two wells along the diagonal, noise four times as strong along one axis as along the other.
TILTED = lv.Surface(
    "(x**2 - 1)**2/4 + 0.1*x + (y - x)**2", noise=lv.Anisotropic([[1.6, 0.0], [0.0, 0.4]])
)
TILTED_RATE, TILTED_NOISE = 0.02, 0.2


def validate(scale: str, progress: harness.Progress) -> harness.Outcome:
    """One-dimensional wells, a plane with three, and noise that is not isotropic."""
    more = 1 if scale == "quick" else 12
    progress("two wells in one dimension")
    line, line_result = _line(more)
    progress("three wells in the plane")
    plane = _plane(more)
    progress("anisotropic noise")
    tilted = _tilted(more)
    gibbs, chains = line["gibbs"], line["chains"]
    limit = harness.line(RATES, *line["ratios"], degree=2)
    mean = harness.line(RATES, *line["means"], degree=2)
    shallow = harness.line(PLANE_RATES, *plane["shallow"], degree=1)
    last = len(RATES) - 1
    checks = [
        harness.check(
            "p_A/p_B of two wells, extrapolated to eta -> 0",
            limit,
            gibbs.ratio(0, 1),
            margin=0.03,
            approximate=True,
        ),
        harness.check(
            "mean position, extrapolated to eta -> 0",
            mean,
            gibbs.moments()[0][0],
            margin=0.02,
            approximate=True,
        ),
        harness.check(
            "p of the shallow one of three wells in the plane, extrapolated to eta -> 0",
            shallow,
            plane["gibbs"].occupation()[1],
            margin=0.03,
            approximate=True,
        ),
        *(
            harness.check(
                f"p_A/p_B at eta = {eta:g} against the law of the discrete step",
                line["measured"][k],
                chains[k].ratio(0, 1),
                margin=0.03,
            )
            for k, eta in enumerate(RATES)
        ),
        harness.check(
            f"p_A/p_B at eta = {RATES[last]:g} against Theorem 1 (step too large for it)",
            line["measured"][last],
            gibbs.ratio(0, 1),
            expected="differs",
        ),
        harness.check(
            "p_A/p_B under anisotropic noise against the Fokker-Planck equation",
            tilted["measured"],
            tilted["fokker_planck"].ratio(0, 1),
            margin=0.05,
        ),
        harness.check(
            "p_A/p_B under anisotropic noise against Theorem 1 with the mean variance",
            tilted["measured"],
            tilted["gibbs"].ratio(0, 1),
            expected="differs",
        ),
        harness.check(
            "control: p_A/p_B against a temperature sqrt(2) too high",
            limit,
            predict.boltzmann_gibbs(WELLS, temperature=NOISE / 2 * 2**0.5).ratio(0, 1),
            expected="differs",
        ),
    ]
    drift = line["measured"][last].value / gibbs.ratio(0, 1) - 1
    anisotropic = tilted["measured"].value / tilted["gibbs"].ratio(0, 1) - 1
    return harness.Outcome(
        prediction="Boltzmann-Gibbs by quadrature; the leading eigenvector of the discrete step's "
        "transition kernel; the Fokker-Planck equation by finite volumes.",
        measurement=f"SGD from all minima alike, {line_result.n_replicas:,} replicas in one and "
        f"{plane['replicas']:,} in two dimensions, at fixed eta/S and several learning rates, "
        "extrapolated to eta = 0 by a polynomial through the measurements.",
        checks=checks,
        findings=[
            "Where it is meant to hold, in the limit of small learning rates at fixed eta/S, "
            "Theorem 1 holds.",
            f"At a finite learning rate the law is that of the discrete step: at eta = "
            f"{RATES[last]:g} p_A/p_B is {100 * drift:+.1f} % off Theorem 1, and the error is "
            "proportional to eta. Learning rate and batch size no longer enter as eta/S alone.",
            f"Without isotropy it fails at every learning rate: with variances 1.6 and 0.4 along "
            f"the axes p_A/p_B is {100 * anisotropic:+.0f} % off the theorem taken at their mean, "
            "while the Fokker-Planck equation with the full covariance gives the measured value.",
        ],
        figures=[_density_figure(line, line_result), _ratio_figure(line), _tilted_figure(tilted)],
        settings={
            "seeds": [11, 12, 13],
            "one dimension": {"surface": WELLS.formula, "a": 0.4, "eta/S": NOISE, "eta": RATES},
            "plane": {"surface": "three_well", "temperature": PLANE_T, "eta": PLANE_RATES},
            "anisotropic": {
                "surface": TILTED.formula,
                "C": [[1.6, 0], [0, 0.4]],
                "eta": TILTED_RATE,
                "eta/S": TILTED_NOISE,
            },
        },
        data={
            "eta": RATES,
            "ratio": line["ratios"][0],
            "stderr": line["ratios"][1],
            "chain": [c.ratio(0, 1) for c in chains],
            "gibbs": gibbs.ratio(0, 1),
        },
    )


def _line(more: int):
    group = np.repeat(np.arange(len(RATES)), 32_768 * more)
    eta = np.array(RATES)[group]
    result = lv.simulate(
        WELLS,
        lv.SGD(eta, eta / NOISE),
        n_replicas=len(group),
        n_steps=24_000,
        burn_in=8_000,
        seed=harness.seed(11),
        observe=(
            lv.Occupation(every=20, groups=group),
            lv.Moments(every=20, groups=group),
            lv.Histogram(bins=90, range=(-2, 2.2), every=20, groups=group),
        ),
        progress=False,
    )
    measured = [result.occupation().group(k).ratio(0, 1) for k in range(len(RATES))]
    moments = [result.moments()[k] for k in range(len(RATES))]
    laws = [lv.SGD(eta, eta / NOISE) for eta in RATES]
    found = {
        "measured": measured,
        "ratios": ([m.value for m in measured], [m.stderr for m in measured]),
        "means": ([m.mean[0] for m in moments], [m.mean_stderr[0] for m in moments]),
        "gibbs": predict.boltzmann_gibbs(WELLS, laws[0]),
        "chains": [predict.chain(WELLS, law) for law in laws],
    }
    return found, result


def _plane(more: int) -> dict:
    group = np.repeat(np.arange(len(PLANE_RATES)), 16_384 * more)
    eta = np.array(PLANE_RATES)[group]
    result = lv.simulate(
        PLANE,
        lv.SGD(eta, eta / (2 * PLANE_T)),
        n_replicas=len(group),
        n_steps=24_000,
        burn_in=12_000,
        seed=harness.seed(12),
        observe=lv.Occupation(every=20, groups=group),
        progress=False,
    )
    found = [result.occupation().group(k) for k in range(len(PLANE_RATES))]
    return {
        "shallow": ([f.probability[1] for f in found], [f.stderr[1] for f in found]),
        "gibbs": predict.boltzmann_gibbs(PLANE, temperature=PLANE_T),
        "replicas": len(group),
    }


def _tilted(more: int) -> dict:
    sgd = lv.SGD(TILTED_RATE, TILTED_RATE / TILTED_NOISE)
    result = lv.simulate(
        TILTED,
        sgd,
        n_replicas=16_384 * more,
        n_steps=16_000,
        burn_in=6_000,
        seed=harness.seed(13),
        observe=(
            lv.Occupation(every=20),
            lv.Histogram(bins=80, axes=0, range=(-2, 2), every=20),
        ),
        progress=False,
    )
    return {
        "measured": result.occupation().ratio(0, 1),
        "density": result.density(),
        "fokker_planck": predict.fokker_planck(TILTED, sgd),
        "gibbs": predict.boltzmann_gibbs(TILTED, temperature=TILTED_NOISE / 2),
    }


def _density_figure(line: dict, result) -> tuple:
    figure, ax = harness.axes()
    plot.density(result.density()[len(RATES) - 1], [line["chains"][-1], line["gibbs"]], ax=ax)
    return (
        f"Stationary density at eta = {RATES[-1]:g}, eta/S = {NOISE:g}: measured, the law of the "
        "discrete step, and Theorem 1.",
        figure,
    )


def _ratio_figure(line: dict) -> tuple:
    figure, ax = harness.axes(xlabel="learning rate at fixed eta/S", ylabel="p_A / p_B")
    value, error = line["ratios"]
    ax.errorbar(RATES, value, error, fmt="o", ms=5, color=plot.INK, label="measured", zorder=3)
    fine = np.linspace(0.005, max(RATES), 24)
    chain = [predict.chain(WELLS, lv.SGD(eta, eta / NOISE)).ratio(0, 1) for eta in fine]
    gibbs = line["gibbs"].ratio(0, 1)
    ax.plot(fine, chain, color=plot.COLOURS[0], label="discrete step")
    ax.plot([0, max(RATES)], [gibbs, gibbs], "--", color=plot.COLOURS[1], label="Theorem 1")
    ax.legend(frameon=False)
    return (
        "The occupation ratio tends to that of Theorem 1 as the learning rate falls, linearly.",
        figure,
    )


def _tilted_figure(tilted: dict) -> tuple:
    figure, ax = harness.axes()
    density = tilted["density"]
    edges = density.edges
    ax.errorbar(
        density.grid, density.value, density.stderr, fmt="o", ms=2.5, color=plot.INK,
        label="measured", zorder=3,
    )  # fmt: skip
    for k, (name, label) in enumerate(
        (("fokker_planck", "Fokker-Planck"), ("gibbs", "Theorem 1, mean variance"))
    ):
        bins = tilted[name].bin_probabilities(edges, axes=0) / np.diff(edges)
        ax.plot(density.grid, bins, color=plot.COLOURS[k], label=label)
    ax.set(xlabel="x", ylabel="probability density of x")
    ax.set_ylim(bottom=0)
    ax.legend(frameon=False)
    return ("Anisotropic noise in the plane: the marginal density along x.", figure)


if __name__ == "__main__":
    harness.main(__file__)
