"""T6: with eta/S the Hessian norm at the end of training falls and validation accuracy rises."""

from __future__ import annotations

import endpoints
import harness
import networks
import numpy as np

import langevin as lv

ROW = "T6"
CLAIM = (
    "After equally many epochs, networks trained with a higher eta/S are at minima of a smaller "
    "Hessian norm and have a higher validation accuracy; what counts is the ratio of the two."
)
SOURCE = "Jastrzebski et al. 2017, Three Factors, section 4.1, Figure 1"

# The paper: Fashion-MNIST, 60,000 images, 200 epochs, eta from .005 to .1, S from 25 to 1,000,
# "most models reach approximately 100% accuracy on train set". The width, unstated, is a choice.
PLANS = {
    "quick": endpoints.Plan(
        "4 layers with BatchNorm", lv.neural.models.batch_norm_mlp, 64, 2_000,
        (0.0125, 0.025, 0.05, 0.1), (25, 100, 400), (2, 4, 8, 16, 32, 64, 128), 0.1, 4, 600,
    ),
    "full": endpoints.Plan(
        "4 layers with BatchNorm", lv.neural.models.batch_norm_mlp, 100, 60_000,
        (0.00625, 0.0125, 0.025, 0.05, 0.1), (25, 50, 100, 200, 400, 800),
        (1, 2, 4, 8, 16, 32, 64, 128, 200), 0.1, 3, 600,
    ),
}  # fmt: skip
ALONE_MARGIN = 0.5  # of `endpoints.beside`, which is 2 and -2 where eta and S alone decide
LOSS_MARGIN = 0.1  # in log10
ORDER = 29  # a stride through the cells that has no factor in common with their number


def validate(scale: str, progress: harness.Progress) -> harness.Outcome:
    """Norm and accuracy over the grid after equally many epochs, and at equal training loss."""
    plan = PLANS[scale]
    found = endpoints.trained(plan, progress)
    logs = {name: np.log10(found[name]) for name in ("norm", "scaled", "norm_at", "scaled_at")}
    mean, epochs = networks.over_seeds, plan.epochs[-1]
    loss, accuracy = found["loss"][:, :, -1], found["validation"][:, :, -1]
    end, level = f"after {epochs} epochs", f"where the training loss is {plan.level:g}"
    per = "its rise for a factor of 10 in eta/S"

    def sign(what: str, values: np.ndarray, bound: str) -> harness.Check:
        slope = mean(endpoints.rise(plan, values))
        return harness.check(f"{what}, {per}, {bound} 0", slope, 0.0, scale=1.0, bound=bound)

    alone = {where: mean(endpoints.beside(plan, logs[name]))
             for where, name in ((end, "norm"), (level, "norm_at"))}  # fmt: skip
    places = (np.arange(len(plan.noise)) * ORDER + 1) % len(plan.noise)
    own = endpoints.rise(plan, logs["norm_at"])
    shuffled = endpoints.rise(plan, logs["norm_at"][:, places])
    what = "what a factor of 10 in both eta and S changes of it, over what one in eta/S changes"
    checks = [
        sign(f"log10 of the Hessian norm {end}", logs["norm"], "below"),
        sign(f"validation accuracy {end}", accuracy, "above"),
        sign(f"log10 of the Hessian norm {level}", logs["norm_at"], "below"),
        sign(f"validation accuracy {level}", found["validation_at"], "above"),
        sign(f"log10 of the norm scaled by layers {end}", logs["scaled"], "below"),
        sign(f"log10 of the norm scaled by layers {level}", logs["scaled_at"], "below"),
        *(
            harness.check(
                f"log10 of the Hessian norm {where}: {what}, against 0: the ratio decides",
                one, 0.0, scale=1.0, margin=ALONE_MARGIN, approximate=True,
            )
            for where, one in alone.items()
        ),
        *(
            harness.check(
                f"control: the same {level} against {value}: {which} alone would decide",
                alone[level], value, scale=1.0, margin=ALONE_MARGIN, approximate=True,
                expected="differs",
            )
            for which, value in (("eta", 2.0), ("S", -2.0))
        ),
        harness.check(
            f"control: log10 of the training loss {end}, {per}, against 0: equally trained",
            mean(endpoints.rise(plan, np.log10(loss))), 0.0, scale=1.0, margin=LOSS_MARGIN,
            approximate=True, expected="differs",
        ),
        harness.check(
            f"control: log10 of the Hessian norm {level}, its rise with the cells in another order "
            "over that in their own, against 1",
            mean(shuffled / own.mean()), 1.0, margin=ALONE_MARGIN, approximate=True,
            expected="differs",
        ),
    ]  # fmt: skip
    together = np.array([np.corrcoef(np.log(a), np.log(b))[0, 1]
                         for a, b in zip(loss, found["norm"], strict=True)])  # fmt: skip
    return harness.Outcome(
        prediction="Signs, and that at one eta/S all are alike: the paper gives pictures.",
        measurement=f"{plan.n_seeds} seeds (images, weights) of 784-[{plan.width} BatchNorm ReLU] "
        f"x 4-10 on {plan.n:,} images of Fashion-MNIST for each of {len(plan.noise)} (eta, S), "
        f"{epochs} epochs, no momentum; Hessian of the loss on all training images, through their "
        "statistics; validation on 10,000 others with the training images' statistics.",
        checks=checks,
        findings=[
            f"Equal epochs are no equal training: the training loss {end} is "
            f"{endpoints.words(plan, loss, '.2g')}. Its logarithm and that of the norm have a "
            f"correlation of {together.mean():.2f} over the cells: near the end of training the "
            "Hessian of the cross-entropy vanishes with the loss. So the norms at equal epochs "
            "would fall with eta/S without any preference for flat minima, and the comparison at "
            "equal loss is the one that tests it.",
            f"Hessian norm {end}: {endpoints.words(plan, found['norm'])}.",
            f"Hessian norm {level}: {endpoints.words(plan, found['norm_at'])}.",
            f"Validation accuracy {end}: {endpoints.words(plan, accuracy, '.4f', False)}; {level}: "
            f"{endpoints.words(plan, found['validation_at'], '.4f', False)}.",
            "BatchNorm makes the loss independent of the size of the weights before it, so the raw "
            "norm falls where weights grow, too; the norm scaled by layers does not. At equal loss "
            f"a factor of 10 in eta/S divides the raw norm by {10 ** -own.mean():.2g}, the scaled "
            f"one by {10 ** -endpoints.rise(plan, logs['scaled_at']).mean():.2g}.",
            "The expected verdicts are the claim's. Settings, the level of the loss and margins "
            "were written down after pilots with other seeds, before these networks were trained.",
        ],
        figures=[
            endpoints.figure([plan], [found["norm"]], "Hessian norm",
                             f"The Hessian norm {end}. Paper: falls with eta/S.", True),
            endpoints.figure([plan], [accuracy], "validation accuracy",
                             f"Validation accuracy {end}. Paper: rises with eta/S.", False),
            endpoints.figure([plan], [found["norm_at"]], "Hessian norm",
                             f"The Hessian norm {level}: networks equally trained.", True),
            endpoints.figure([plan], [loss], "training loss",
                             f"The training loss {end}: at equal epochs a low eta/S has trained "
                             "less.", True),
        ],
        settings=endpoints.settings(plan),
        data=endpoints.data(plan, found),
    )  # fmt: skip


if __name__ == "__main__":
    harness.main(__file__)
