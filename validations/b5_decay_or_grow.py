"""B5: decaying the learning rate and growing the batch give the same curve."""

from __future__ import annotations

import harness
import numpy as np

import langevin as lv
from langevin import plot, predict
from langevin.predict.quadratic import example_noise

ROW = "B5"
CLAIM = (
    "Instead of decaying the learning rate one can grow the batch by the same factor: the loss is "
    "the same function of the epochs seen."
)
SOURCE = "Smith et al. 2018 (Don't decay the learning rate, increase the batch size), by the blog"

X, Y = lv.surfaces.diabetes()
DATA = lv.surfaces.linear_regression(X, Y)
BATCH, FACTOR, STAGES = 8, 3, 4
STAGE = 1_458  # steps of 8 examples in every stage: 26.4 epochs
RATES = (0.01, 0.2)  # the second one is too large

WELLS = lv.Surface("x**4/4 - a*x**3/3 - x**2/2", a=0.4, noise=lv.Isotropic(1.0))
WELL_RATE, WELL_SIZE, WELL_STEPS = 0.02, 0.05, 3_000


def validate(scale: str, progress: harness.Progress) -> harness.Outcome:
    """A regression on data with real mini-batches, and the annealing of two wells."""
    more = 1 if scale == "quick" else 10
    curves, ends, exact = {}, {}, {}
    for eta in RATES:
        progress(f"regression, eta = {eta:g}")
        runs = {how: _run(eta, how, 2_048 * more) for how in ("decay", "grow")}
        curves[eta] = {how: run["curve"] for how, run in runs.items()}
        ends[eta] = {how: run["last"] for how, run in runs.items()}
        exact[eta] = {how: _exact_curve(eta, how) for how in runs}
    small, large = RATES
    progress("two wells")
    wells = {how: _anneal(how, 60_000 * more) for how in ("decay", "grow")}
    predicted = {
        eta: float(np.mean(exact[eta]["grow"][-4:]) / np.mean(exact[eta]["decay"][-4:]))
        for eta in RATES
    }
    quotient = {eta: _over(ends[eta]["grow"], ends[eta]["decay"]) for eta in RATES}
    wells_quotient = _over(wells["grow"], wells["decay"])
    kept = predict.quadratic(DATA, lv.SGD(small, BATCH))
    checks = [
        harness.check(
            f"excess loss at the end, batch grown over rate decayed, eta = {small:g}",
            quotient[small],
            1.0,
            margin=0.1,
            approximate=True,
        ),
        *(
            harness.check(
                f"the same against the exact recursion of the second moment, eta = {eta:g}",
                quotient[eta],
                predicted[eta],
                margin=0.08,
            )
            for eta in RATES
        ),
        harness.check(
            f"the same at eta = {large:g}: a learning rate too large for the claim",
            quotient[large],
            1.0,
            expected="differs",
        ),
        harness.check(
            "p_A/p_B of two annealed wells, batch grown over rate decayed",
            wells_quotient,
            1.0,
            margin=0.1,
            approximate=True,
        ),
        harness.check(
            "control: excess loss at the end with a decayed rate against neither decayed nor grown",
            ends[small]["decay"],
            0.5 * float(np.trace(DATA.hessian(np.zeros(DATA.dim)) @ kept.moments()[1])),
            expected="differs",
        ),
    ]
    return harness.Outcome(
        prediction="The exact recursion of the second moment of the weights under either schedule, "
        "state-dependent mini-batch noise included.",
        measurement=f"The diabetes regression (N = {len(Y)}), batches of {BATCH} with replacement; "
        f"every {STAGE * BATCH / len(Y):.1f} epochs the rate is divided or the batch multiplied by "
        f"{FACTOR}. Two wells cooled by a cosine schedule of eta, and by the schedule of S that it "
        "can be exchanged for.",
        checks=checks,
        findings=[
            f"At eta = {small:g} both schedules give one curve of the loss against epochs; the "
            f"batches take {_steps('grow')} steps where the decayed rate takes {_steps('decay')}.",
            f"At eta = {large:g} they part by {100 * (quotient[large].value - 1):+.0f} % at the "
            "end: the decayed rate gets rid of the finite step's extra width, the grown batch "
            "keeps it. The exact recursion gives both.",
            "Cooling two wells by either schedule freezes in the same p_A/p_B "
            f"({wells['decay'].value:.4f} and {wells['grow'].value:.4f}).",
        ],
        figures=[_figure(curves[eta], exact[eta], eta) for eta in RATES],
        settings={
            "seeds": [151, 152, 153, 154],
            "B": BATCH,
            "factor": FACTOR,
            "stages": STAGES,
            "steps of a stage at B": STAGE,
            "eta": RATES,
            "wells": {"eta": WELL_RATE, "S": WELL_SIZE, "steps": WELL_STEPS},
        },
        data={
            str(eta): {how: [c.tolist() for c in curves[eta][how]] for how in curves[eta]}
            for eta in RATES
        },
    )


def _steps(how: str) -> int:
    return sum(_stages(how))


def _stages(how: str) -> list[int]:
    """The number of steps of every stage."""
    return [STAGE if how == "decay" else STAGE // FACTOR**k for k in range(STAGES)]


def _run(eta: float, how: str, replicas: int) -> dict:
    """Mean excess loss against epochs: (epochs, value, stderr); and over the last records."""
    marks = tuple(np.cumsum(_stages(how))[:-1])
    rate, size = eta, BATCH
    if how == "decay":
        rate = lv.schedules.Steps(eta, at_steps=marks, factor=1 / FACTOR)
    else:
        size = lv.schedules.Steps(BATCH, at_steps=marks, factor=FACTOR)
    every = 2 if how == "grow" else 18
    result = lv.simulate(
        DATA,
        lv.SGD(rate, size),
        n_replicas=replicas,
        n_steps=_steps(how),
        seed=harness.seed(151 if how == "decay" else 154),
        observe=lv.Trajectory(every=every),
        progress=False,
    )
    found = result.trajectory()
    minimum = DATA.minima()[0].position
    hessian = DATA.hessian(minimum)
    away = np.asarray(found.positions, dtype=float) - minimum
    loss = 0.5 * ((away @ hessian) * away).sum(axis=-1).T  # (records, replicas)
    epochs = _epochs(np.asarray(found.steps), how)
    last = loss[epochs > epochs[-1] - 6].mean(axis=0)
    n = loss.shape[1]
    return {
        "curve": np.array([epochs, loss.mean(axis=1), loss.std(axis=1) / np.sqrt(n)]),
        "last": lv.Estimate(float(last.mean()), float(last.std(ddof=1) / np.sqrt(n)), n - 1),
    }


def _epochs(steps: np.ndarray, how: str) -> np.ndarray:
    """Epochs seen after a number of steps."""
    examples = np.repeat(
        [BATCH if how == "decay" else BATCH * FACTOR**k for k in range(STAGES)], _stages(how)
    )
    return np.concatenate([[0], np.cumsum(examples)])[steps] / len(Y)


def _exact_curve(eta: float, how: str) -> np.ndarray:
    """Excess loss at the end of every 54 (decay) or corresponding steps, by exact recursion."""
    minimum = DATA.minima()[0].position
    h, axes = np.linalg.eigh(DATA.hessian(minimum))
    noise = example_noise(DATA, minimum, axes)
    moment = np.zeros((len(h), len(h)))
    found = []
    for k, steps in enumerate(_stages(how)):
        rate = eta / FACTOR**k if how == "decay" else eta
        size = BATCH if how == "decay" else BATCH * FACTOR**k
        contraction = 1 - rate * h
        for t in range(steps):
            total = noise.total(moment) / size
            moment = contraction[:, None] * moment * contraction + rate**2 * total
            if (t + 1) % (steps // 27) == 0:
                found.append(0.5 * float(h @ np.diag(moment)))
    return np.array(found)


def _anneal(how: str, replicas: int) -> lv.Estimate:
    """p_A/p_B at the end of the cooling; replicas are independent."""
    rate = lv.schedules.Cosine(WELL_RATE, n_steps=WELL_STEPS, final=0.05)
    size, steps = WELL_SIZE, WELL_STEPS
    if how == "grow":
        rate, size = lv.schedules.exchange(rate, WELL_SIZE, to=WELL_RATE, n_steps=WELL_STEPS)
        steps = len(size.factors_by_step)
    result = lv.simulate(
        WELLS,
        lv.SGD(rate, size),
        n_replicas=replicas,
        n_steps=steps,
        seed=harness.seed(152 if how == "decay" else 153),
        start=[0.0],
        progress=False,
    )
    left = float((result.positions[:, 0] < 0).mean())
    error = np.sqrt(left * (1 - left) / replicas)
    return lv.Estimate(left / (1 - left), float(error / (1 - left) ** 2), replicas - 1)


def _over(a: lv.Estimate, b: lv.Estimate) -> lv.Estimate:
    value = a.value / b.value
    spread = float(np.hypot(a.stderr / a.value, b.stderr / b.value))
    return lv.Estimate(value, value * spread, 1_000)


def _figure(curves: dict, exact: dict, eta: float) -> tuple:
    figure, ax = harness.axes(xlabel="epochs", ylabel="mean excess loss")
    for k, (how, label) in enumerate((("decay", "rate decayed"), ("grow", "batch grown"))):
        epochs, value, _ = curves[how]
        grid = np.linspace(0, STAGES * STAGE * BATCH / len(Y), 27 * STAGES + 1)[1:]
        ax.plot(
            epochs, value, lw=0.9, alpha=0.75, color=plot.COLOURS[k], label=f"{label}, measured"
        )
        ax.plot(grid, exact[how], "--", lw=1.3, color=plot.COLOURS[k + 2], label=f"{label}, exact")
    ax.set_yscale("log")
    ax.legend(frameon=False, fontsize="small")
    word = "one curve" if eta == RATES[0] else "two curves"
    return (f"Rate decayed or batch grown, at a first learning rate of {eta:g}: {word}.", figure)


if __name__ == "__main__":
    harness.main(__file__)
