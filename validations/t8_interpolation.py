"""T8: on the line between two solutions, the one of lower eta/S is sharper."""

from __future__ import annotations

import harness
import lines
import networks
import numpy as np

from langevin import neural, plot

ROW = "T8"
CLAIM = (
    "On the line L((1-a) w1 + a w2), a in [-1, 2], between networks trained by plain SGD, the end "
    "of lower eta/S, by a larger batch or by a smaller learning rate, is sharper; ends of equal "
    "eta/S are alike."
)
SOURCE = lines.SOURCE + ", Figures 2 and 10 to 12"

BASE, LARGE, LOW = "base", "large batch", "low rate"
ALIKE = 0.3  # margin, in log10: a factor of two


def validate(scale: str, progress: harness.Progress) -> harness.Outcome:
    """Lines at equal training loss and after equal epochs; what of it is the weights' scale."""
    plan = lines.PLANS[scale, ROW]
    ends = {name: lines.trained(plan, name, progress) for name in (BASE, LARGE, LOW)}
    own = lines.surface(plan)
    progress("lines")
    level = {name: one.level for name, one in ends.items()}
    late = {name: one.late for name, one in ends.items()}
    pairs = ((BASE, LARGE), (BASE, LOW), (LARGE, LOW))
    found = {pair: lines.between(own, level[pair[0]], level[pair[1]]) for pair in pairs}
    after = {pair: lines.between(own, late[pair[0]], late[pair[1]]) for pair in pairs[:2]}
    progress("lines between ends of one scale, with frozen statistics, and from other starts")
    one_scale = {
        pair: lines.between(
            own, level[pair[0]], lines.one_scale(own, level[pair[0]], level[pair[1]])
        )
        for pair in pairs[:2]
    }
    frozen = lines.frozen(own, level[BASE], level[LARGE])
    same = lines.between(own, level[BASE], np.roll(level[BASE], 1, axis=0))
    progress("Hessian norms")
    norms = {name: _norms(own, theta, plan.probes) for name, theta in level.items()}
    mean, steep = networks.over_seeds, lines.compared
    ratio = {
        (kind, name): np.log10(norms[name][kind] / norms[BASE][kind])
        for kind in ("plain", "layer") for name in (LARGE, LOW)
    }  # fmt: skip
    small = "differs" if plan.network == "small" else "agrees"  # seen in runs with other seeds
    above = {"scale": 1.0, "bound": "above"}
    near = {"scale": 1.0, "margin": ALIKE, "approximate": True}
    rise = f"log10 of the rise of the training loss {lines.AWAY:g} beyond the end"
    checks = [
        harness.check(f"{rise} of the large batch over that beyond the base's, at equal training "
                      "loss, above 0", steep(found[BASE, LARGE]), 0.0, **above),
        harness.check("the same for the low rate, above 0", steep(found[BASE, LOW]), 0.0, **above),
        harness.check("the same for the large batch after equal epochs, above 0",
                      steep(after[BASE, LARGE]), 0.0, **above),
        harness.check("the same for the low rate after equal epochs, above 0",
                      steep(after[BASE, LOW]), 0.0, **above),
        harness.check("equal eta/S: low rate over large batch, at equal training loss, against 0",
                      steep(found[LARGE, LOW]), 0.0, expected=small, **near),
        *(
            harness.check(f"log10 of the Hessian norm, {name} over base, at equal training loss, "
                          "above 0", mean(ratio["plain", name]), 0.0, **above)
            for name in (LARGE, LOW)
        ),
        *(
            harness.check(f"the same in units of each layer's weights, {name} over base, above "
                          f"{ALIKE:g}", mean(ratio["layer", name]), ALIKE, expected=small,
                          **above)
            for name in (LARGE, LOW)
        ),
        *(
            harness.check(f"{rise}, {name} over base, its convolutions scaled to the base's "
                          "lengths (which leaves its function alone), above 0",
                          steep(one_scale[BASE, name]), 0.0, **above)
            for name in (LARGE, LOW)
        ),
        harness.check("control: the rise between base ends of two starts, against 0", steep(same),
                      0.0, **near),
        harness.check("control: large batch over base, against 0", steep(found[BASE, LARGE]), 0.0,
                      expected="differs", **near),
        harness.check("control: log10 of the training loss where they are compared, low rate over "
                      "base, against 0", mean(np.log10(ends[LOW].loss / ends[BASE].loss)), 0.0,
                      **near),
    ]  # fmt: skip
    lengths = {name: float(np.linalg.norm(theta, axis=1).mean()) for name, theta in level.items()}
    factor = {pair: 10 ** steep(some).value for pair, some in found.items()}
    return harness.Outcome(
        prediction="The sign; the paper has pictures. Equal eta/S: equal densities, so ends that "
        "are alike.",
        measurement=lines.described(plan, (BASE, LARGE, LOW)) + " Statistics of batch "
        "normalisation are the training set's at every point of a line.",
        checks=checks,
        findings=[
            f"At equal training loss (below {plan.level:g}) the loss rises beyond the large "
            f"batch's end {factor[BASE, LARGE]:.3g} times as much as beyond the base's, and beyond "
            f"that of the low rate {factor[BASE, LOW]:.3g} times (geometric means).",
            "The large batch and the low rate have the same eta/S; the rise beyond the low "
            f"rate's end is {factor[LARGE, LOW]:.3g} times that beyond the large batch's.",
            "Which verdicts of the small network are expected to differ was written down after "
            "runs with other seeds.",
            "Networks with batch normalisation do not change with the scale of a convolution's "
            "weights, but lines and Hessians do. The lengths of all weights are "
            + ", ".join(f"{x:.1f} ({name})" for name, x in lengths.items())
            + ": noise makes weights that batch normalisation follows grow. In units of each "
            "layer's weights the Hessian norm is "
            + ", ".join(f"{_typical(n['layer']):.2f} ({name})" for name, n in norms.items())
            + "; plain, "
            + ", ".join(f"{_typical(n['plain']):.3g} ({name})" for name, n in norms.items())
            + ". With the ends' convolutions scaled to the base's lengths the rises are as "
            + " and ".join(f"{10 ** steep(some).value:.2f} ({pair[1]})"
                           for pair, some in one_scale.items())
            + " to 1; the output layer, which nothing normalises, is left as it is.",
            "With the statistics of each end left as they are along the line, and not those of the "
            f"point, the large batch's end is {10 ** mean(frozen).value:.3g} times as steep.",
            "Epochs until the training loss is below "
            f"{plan.level:g}: " + ", ".join(f"{e.epochs.mean():.0f} ({n})" for n, e in ends.items())
            + f". After {plan.epochs} epochs the training losses are "
            + ", ".join(f"{e.late_loss.mean():.2g} ({n})" for n, e in ends.items()) + ".",
        ],
        figures=figures(plan, found, one_scale),
        settings=lines.settings(plan, (BASE, LARGE, LOW)) | {"probes": plan.probes},
        data={
            "a": lines.POINTS,
            "loss": {f"{a} - {b}": np.array([one.loss for one in some]).round(5)
                     for (a, b), some in found.items()},
            "after equal epochs": {b: np.array([one.loss for one in some]).round(5)
                                   for (_, b), some in after.items()},
            "one scale": {b: np.array([one.loss for one in some]).round(5)
                          for (_, b), some in one_scale.items()},
            "frozen statistics": frozen, "Hessian norms": norms, "length": lengths,
        },
    )  # fmt: skip


def figures(plan, found: dict, one_scale: dict) -> list[tuple]:
    """Both claims, and the pair of equal eta/S."""
    sharper = "Equal training loss. Paper: the right end is sharper."
    alike = "Equal eta/S, equal training loss. Paper: alike."
    return [
        lines.figure(plan, pair, found[pair], sharper if pair in one_scale else alike,
                     plot.COLOURS[k], one_scale.get(pair, ()))
        for k, pair in enumerate(found)
    ]  # fmt: skip


def _norms(own, thetas: np.ndarray, probes: int) -> dict[str, np.ndarray]:
    """The Hessian norm of each end, plain and in units of each layer's weights."""
    options = {"probes": probes, "product": "finite_difference"}
    return {
        name: np.array([neural.hessian_norm(own, t, scale=scale, **options).value for t in thetas])
        for name, scale in (("plain", None), ("layer", "layer"))
    }


def _typical(values: np.ndarray) -> float:
    return float(np.exp(np.log(values).mean()))


if __name__ == "__main__":
    harness.main(__file__)
