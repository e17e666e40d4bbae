"""K2: large batches end in sharper minima."""

from __future__ import annotations

import harness
import keskar
import networks
import numpy as np

from langevin import plot

ROW = "K2"
CLAIM = (
    "The sharpness phi of the minima that large batches find is far larger than of those of small "
    "batches (F1: 205 against 1.23 at eps = 1e-3, 42.9 against .61 at 5e-4)."
)
SOURCE = keskar.SOURCE + ", section 2.2.2, Table 3"

PAPER = {"1e-3": (1.23, 205.14), "5e-4": (0.61, 42.90)}
LABELS = {
    "1e-3": "eps = 1e-3", "5e-4": "eps = 5e-4", "frozen": "1e-3, BatchNorm\nfrozen",
    "layer": "layers, 1e-2",
}  # fmt: skip


def validate(scale: str, progress: harness.Progress) -> harness.Outcome:
    """phi in the full space, and its version that does not change with the layers' scales."""
    progress("training")
    found = keskar.trained(scale, harness.seed(0))
    both = {}
    for name in found.theta:
        progress(f"sharpness, {name} batches")
        both[name] = {
            box: keskar.phi(scale, f"{name}-{keskar.LEVELS[-1]:g}", found.last(name), box)
            for box in LABELS
        }
    progress("sharpness by L-BFGS-B")
    first = np.stack([found.last(name)[0] for name in found.theta])
    paper = keskar.phi(scale, "first", first, "lbfgsb")
    mean = networks.over_seeds
    ratio = {box: np.log10(both["large"][box] / both["small"][box]) for box in LABELS}
    said = {
        "1e-3": "log10 of phi at eps = 1e-3, large over small batches at equal training loss",
        "5e-4": "the same at eps = 5e-4",
        "frozen": "the same at eps = 1e-3 with BatchNorm's statistics those of the centre",
        "layer": "the same in boxes of .01 of each layer's root mean square weight",
    }
    checks = [
        *(
            harness.check(f"{text}, above 0", mean(ratio[box]), 0.0, scale=1.0, bound="above")
            for box, text in said.items()
        ),
        harness.check(
            "log10 of phi at eps = 1e-3, large over small batches, against the paper's",
            mean(ratio["1e-3"]), float(np.log10(np.divide(*PAPER["1e-3"][::-1]))), scale=1.0,
            margin=0.5, approximate=True, expected="differs",
        ),
        harness.check(
            "control: log10 of phi, eps = 1e-3 over 5e-4, large batches, against 0",
            mean(np.log10(both["large"]["1e-3"] / both["large"]["5e-4"])), 0.0, scale=1.0,
            margin=0.05, approximate=True, expected="differs",
        ),
    ]  # fmt: skip
    typical = {
        (name, box): 10 ** np.log10(both[name][box]).mean() for name in both for box in ratio
    }
    return harness.Outcome(
        prediction="The sign, and the paper's own ratio.",
        measurement=keskar.described(scale) + "; phi in the full space, 10 iterations of projected "
        "ascent.",
        checks=checks,
        findings=[
            f"phi at eps = {box}: {typical['small', box]:.3g} (small batches) and "
            f"{typical['large', box]:.3g} (large), geometric means; paper: {a:g} and {b:g}."
            for box, (a, b) in PAPER.items()
        ]
        + [
            "With BatchNorm's statistics those of the centre, not of the perturbed network: "
            f"{typical['small', 'frozen']:.3g} and {typical['large', 'frozen']:.3g}. The paper "
            "does not say which it took; the other is what the authors' layers did.",
            "In boxes of .01 of each layer's root mean square weight, which no rescaling of a "
            f"layer changes: {typical['small', 'layer']:.3g} and {typical['large', 'layer']:.3g}.",
            "Ten iterations of L-BFGS-B, the paper's maximiser, find of the first pair at eps = "
            f"1e-3 {paper[0]:.3g} (small) and {paper[1]:.3g} (large), projected ascent "
            f"{both['small']['1e-3'][0]:.3g} and {both['large']['1e-3'][0]:.3g}.",
        ],
        figures=[_figure(both)],
        settings=keskar.settings(scale) | {"boxes": keskar.BOXES},
        data=both | {"first pair by L-BFGS-B": paper},
    )


def _figure(both: dict) -> tuple:
    figure, ax = harness.axes(xlabel="box", ylabel="sharpness phi, per cent", yscale="log")
    for k, name in enumerate(both):
        for x, box in enumerate(LABELS):
            values = both[name][box]
            ax.plot(np.full(len(values), x + 0.2 * k - 0.1), values, ls="", marker="os"[k], ms=5,
                    mec="none", alpha=0.7, color=plot.COLOURS[k],
                    label="_" if x else f"{name} batches")  # fmt: skip
            if box in PAPER:
                ax.plot(x + 0.2 * k - 0.1, PAPER[box][k], "_", ms=14, mew=1.5,
                        color=plot.COLOURS[k], label="_" if x else f"{name}, paper")  # fmt: skip
    ax.set_xticks(range(len(LABELS)), list(LABELS.values()))
    ax.set_xlim(-0.5, len(LABELS) - 0.5)
    ax.legend(frameon=False, ncols=2, loc="upper center", bbox_to_anchor=(0.5, 1.17))
    return ("Each point is one network, all at the same training loss.", figure)


if __name__ == "__main__":
    harness.main(__file__)
