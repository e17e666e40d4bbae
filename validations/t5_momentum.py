"""T5: the equilibrium of SGD with momentum, which Appendix E of the paper leaves open."""

from __future__ import annotations

import harness
import numpy as np

import langevin as lv
from langevin import plot, predict

ROW = "T5"
CLAIM = (
    "With momentum, dv = -mu v dt - eta g dt + eta sigma/sqrt(S) dW, the paper finds no "
    "equilibrium and expects the ratio eta sigma^2/(2S) to decide. The equilibrium exists: theta "
    "has the temperature n sigma^2/(2 mu), the velocity a Gaussian law of its own."
)
SOURCE = "Jastrzebski et al. 2017, Three Factors, Appendix E (limitations: momentum)"

# Heavy ball with a step of time 1: v <- (1 - mu) v - eta g, theta <- theta + v.
TEMPERATURE = 0.12
DAMPINGS = (0.5, 0.2, 0.1, 0.05)
RATES = (0.004, 0.008, 0.016)
WELL_RATES = (0.008, 0.016, 0.032)
WELL = lv.surfaces.quadratic(1.5)
WELLS = lv.Surface("x**4/4 - a*x**3/3 - x**2/2", a=0.4, noise=lv.Isotropic(1.0))


def validate(scale: str, progress: harness.Progress) -> harness.Outcome:
    """Temperatures in a parabola, occupation of two wells, and the equation itself."""
    more = 1 if scale == "quick" else 12
    progress("temperature in a parabola")
    grid = [(mu, eta) for mu in DAMPINGS for eta in RATES]
    parabola = _run(WELL, grid, 16_384 * more, 12_000, 4_000, seed=51)
    progress("two wells")
    well_grid = [(mu, eta) for mu in DAMPINGS for eta in WELL_RATES]
    wells = _run(WELLS, well_grid, 8_192 * more, 20_000, 6_000, seed=52)
    progress("the equation")
    corrected, printed = residuals()
    temperature = {mu: _limit(parabola, grid, mu, "theta") for mu in DAMPINGS}
    velocity = {mu: _limit(parabola, grid, mu, "velocity") for mu in DAMPINGS}
    ratios = {mu: _ratio_limit(wells, mu) for mu in DAMPINGS}
    gibbs = predict.boltzmann_gibbs(WELLS, temperature=TEMPERATURE).ratio(0, 1)
    occupation = wells["result"].occupation()
    ends = {
        mu: occupation.group(k).ratio(0, 1).value
        for k, (mu, eta) in enumerate(well_grid)
        if eta == WELL_RATES[-1]
    }
    middle = 0.1
    checks = [
        harness.check(
            f"temperature of theta at mu = {middle:g}, eta -> 0, against n sigma^2/(2 mu)",
            temperature[middle],
            TEMPERATURE,
            margin=0.01,
        ),
        *(
            harness.check(
                f"temperature of theta at mu = {mu:g}, eta -> 0",
                temperature[mu],
                TEMPERATURE,
                margin=0.01,
            )
            for mu in DAMPINGS
            if mu != middle
        ),
        *(
            harness.check(
                f"variance of theta at mu = {mu:g}, eta = {eta:g} against the discrete step",
                parabola["theta"][k],
                predict.quadratic(WELL, parabola["dynamics"][k]).covariance[0, 0],
                margin=0.02,
            )
            for k, (mu, eta) in enumerate(grid)
            if eta == RATES[-1]
        ),
        *(
            harness.check(
                f"<v^2> 2 mu S/(eta sigma)^2 at mu = {mu:g}, eta -> 0, against 1/(1 - mu/2)",
                velocity[mu],
                1 / (1 - mu / 2),
                margin=0.06,
            )
            for mu in DAMPINGS
        ),
        *(
            harness.check(
                f"p_A/p_B of two wells at mu = {mu:g}, eta -> 0, against exp(-L/T) at that "
                "temperature",
                ratios[mu],
                gibbs,
                margin=0.05,
                approximate=True,
            )
            for mu in DAMPINGS
        ),
        harness.check(
            "temperature of theta at mu = 0.1 against eta sigma^2/(2S), which leaves mu out",
            temperature[middle],
            TEMPERATURE * middle,
            expected="differs",
        ),
        harness.check(
            "temperature of theta at mu = 0.1 against no momentum in the noise, n sigma^2/(2 mu^2)",
            temperature[middle],
            TEMPERATURE / middle,
            expected="differs",
        ),
    ]
    return harness.Outcome(
        prediction="P proportional to exp{-(2 mu S/(eta^2 sigma^2)) (|v|^2/2 + eta L)}, so that "
        "theta has T = n sigma^2/(2 mu); for the discrete step the exact covariance.",
        measurement="Heavy-ball SGD with m = 1 - mu at four dampings, batch sizes chosen to give "
        "all of them the same predicted temperature; variances extrapolated to eta = 0.",
        checks=checks,
        findings=[
            "The equilibrium that Appendix E leaves open exists, in closed form, and is what is "
            "measured, from mu = 0.05 to 0.5.",
            "The paper's Fokker-Planck equation with momentum differentiates by theta on its right "
            "side where the velocity belongs. Inserted into the corrected equation, the law above "
            f"leaves a residual of {corrected:.0e} (by computer algebra, at 400 points); inserted "
            f"into the printed one, {printed:.2g}.",
            "So it is not the ratio eta sigma^2/(2S) that decides but that over the damping: at "
            "equal eta/S, momentum m raises the temperature by 1/(1 - m). This is also Smith and "
            "Le's rule (row S10).",
            "In the discrete step at time 1 the velocity's variance is 1/(1 - mu/2) of the "
            "continuum's, however small eta is: the damping is not small against the step.",
            "The step's own effect on p_A/p_B grows with momentum: at eta = "
            f"{WELL_RATES[-1]:g} the ratio is "
            + ", ".join(f"{100 * (ends[mu] / gibbs - 1):+.1f} % at mu = {mu:g}" for mu in DAMPINGS)
            + " off that of exp(-L/T).",
        ],
        figures=[_temperature_figure(temperature), _velocity_figure(wells)],
        settings={
            "seeds": [51, 52],
            "temperature": TEMPERATURE,
            "mu": DAMPINGS,
            "eta": {"parabola": RATES, "two wells": WELL_RATES},
            "surfaces": [WELL.formula, WELLS.formula],
        },
        data={
            "mu": DAMPINGS,
            "temperature": [temperature[mu].value for mu in DAMPINGS],
            "stderr": [temperature[mu].stderr for mu in DAMPINGS],
            "residual corrected": corrected,
            "residual printed": printed,
        },
    )


def residuals() -> tuple[float, float]:
    """Largest |right side - left side| of the stationary equation, relative to its largest term.

    First with derivatives by v on the right (correct), then by theta (as printed), for the law
    exp{-(2 mu S/(eta^2 sigma^2))(v^2/2 + eta L)} on a double well, by computer algebra.
    """
    import sympy

    x, v = sympy.symbols("x v", real=True)
    mu, eta, diffusion = sympy.Rational(1, 5), sympy.Rational(1, 10), sympy.Rational(1, 400)
    loss = x**4 / 4 - x**2 / 2
    law = sympy.exp(-(mu / diffusion) * (v**2 / 2 + eta * loss))  # diffusion = eta^2 sigma^2/2S
    g = sympy.diff(loss, x)
    left = v * sympy.diff(law, x)
    found = []
    for variable in (v, x):
        drift = sympy.diff((mu * v + eta * g) * law, variable)
        right = drift + diffusion * sympy.diff(law, variable, 2)
        numeric = sympy.lambdify((x, v), [(right - left) / law, left / law], "numpy")
        points = np.meshgrid(np.linspace(-1.5, 1.5, 20), np.linspace(-0.5, 0.5, 20))
        rest, term = (np.abs(np.broadcast_to(n, points[0].shape)) for n in numeric(*points))
        found.append(float(rest.max() / term.max()))
    return found[0], found[1]


def _run(surface, grid, replicas, n_steps, burn_in, seed) -> dict:
    """All (mu, eta) of the grid in one launch; eta/S follows from mu and the temperature."""
    group = np.repeat(np.arange(len(grid)), replicas)
    mu, eta = np.array(grid).T
    size = eta / (2 * mu * TEMPERATURE)
    result = lv.simulate(
        surface,
        lv.SGD(eta[group], size[group], momentum=1 - mu[group]),
        n_replicas=len(group),
        n_steps=n_steps,
        burn_in=burn_in,
        seed=harness.seed(seed),
        observe=(lv.Moments(every=40, groups=group), lv.Occupation(every=40, groups=group)),
        progress=False,
    )
    theta, velocity = [], []
    for k in range(len(grid)):
        moments = result.moments()[k]
        theta.append(
            lv.Estimate(
                float(moments.covariance[0, 0]),
                float(moments.covariance_stderr[0, 0]),
                moments.dof,
            )
        )
        v = eta[k] * result.velocities[group == k, 0].astype(float)  # independent replicas
        square = v**2
        velocity.append(
            lv.Estimate(float(square.mean()), float(square.std() / np.sqrt(len(v))), 10_000)
        )
    dynamics = [
        lv.SGD(float(e), float(s), momentum=float(1 - m))
        for e, s, m in zip(eta, size, mu, strict=True)
    ]
    return {
        "result": result, "theta": theta, "velocity": velocity, "dynamics": dynamics,
        "group": group, "grid": grid,
    }  # fmt: skip


def _limit(run: dict, grid, mu: float, which: str) -> lv.Estimate:
    """Curvature times variance of theta, or the scaled <v^2>, on the line through eta -> 0."""
    places = [k for k, (m, _) in enumerate(grid) if m == mu]
    eta = np.array([grid[k][1] for k in places])
    found = [run[which][k] for k in places]
    curvature = 1.5
    if which == "theta":
        scale = np.full(len(eta), curvature)
    else:  # 2 mu S/(eta sigma)^2 with S = eta/(2 mu T)
        scale = 1 / (eta * TEMPERATURE)
    return harness.line(
        eta,
        [f.value * s for f, s in zip(found, scale, strict=True)],
        [f.stderr * s for f, s in zip(found, scale, strict=True)],
    )


def _ratio_limit(run: dict, mu: float) -> lv.Estimate:
    """p_A/p_B of the two wells on the line through eta -> 0."""
    places = [k for k, (m, _) in enumerate(run["grid"]) if m == mu]
    occupation = run["result"].occupation()
    found = [occupation.group(k).ratio(0, 1) for k in places]
    eta = [run["grid"][k][1] for k in places]
    return harness.line(eta, [f.value for f in found], [f.stderr for f in found])


def _temperature_figure(temperature: dict) -> tuple:
    figure, ax = harness.axes(xlabel="damping mu = 1 - m", ylabel="T / (n sigma² / 2)")
    mu = np.array(DAMPINGS)
    found = [temperature[m] for m in DAMPINGS]
    scale = 1 / (TEMPERATURE * mu)  # n sigma^2/2 = mu T
    ax.errorbar(
        mu,
        [f.value * s for f, s in zip(found, scale, strict=True)],
        [f.stderr * s for f, s in zip(found, scale, strict=True)],
        fmt="o", ms=5, color=plot.INK, label="measured, eta → 0", zorder=3,
    )  # fmt: skip
    fine = np.geomspace(0.04, 0.6, 50)
    ax.plot(fine, 1 / fine, color=plot.COLOURS[0], label="n sigma² / (2 mu)")
    ax.axhline(1, ls="--", color=plot.COLOURS[1], label="without mu")
    ax.set(xscale="log", yscale="log")
    ax.set_xticks(mu, [f"{m:g}" for m in mu])
    ax.set_yticks([1, 2, 5, 10, 20], ["1", "2", "5", "10", "20"])
    ax.minorticks_off()
    ax.legend(frameon=False)
    return ("The temperature of theta at four dampings, relative to n sigma²/2.", figure)


def _velocity_figure(wells: dict) -> tuple:
    figure, ax = harness.axes(
        xlabel="velocity / its standard deviation", ylabel="probability density"
    )
    mu, eta = np.array(wells["grid"])[wells["group"]].T
    v = eta * wells["result"].velocities[:, 0].astype(float)
    x = wells["result"].positions[:, 0]
    sd = np.sqrt(eta * TEMPERATURE / (1 - mu / 2))
    edges = np.linspace(-4, 4, 41)
    centres = (edges[1:] + edges[:-1]) / 2
    for j, (name, chosen) in enumerate((("left well", x < 0), ("right well", x >= 0))):
        part = (v / sd)[chosen]
        counts = np.histogram(part, edges)[0]
        width = edges[1] - edges[0]
        ax.errorbar(
            centres, counts / len(part) / width, np.sqrt(counts) / len(part) / width,
            fmt="os"[j], ms=4, color=plot.COLOURS[j], label=name,
        )  # fmt: skip
    fine = np.linspace(-4, 4, 200)
    ax.plot(
        fine, np.exp(-(fine**2) / 2) / np.sqrt(2 * np.pi), color=plot.INK, lw=1, label="N(0, 1)"
    )
    ax.legend(frameon=False)
    return ("The velocity has one Gaussian law, in whichever well theta is.", figure)


if __name__ == "__main__":
    harness.main(__file__)
