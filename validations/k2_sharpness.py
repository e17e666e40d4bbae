"""K2: large batches end in sharper minima."""

from __future__ import annotations

import harness
import keskar
import networks
import numpy as np

import langevin as lv
from langevin import plot

ROW = "K2"
CLAIM = (
    "The sharpness phi of the minima that large batches find is far larger than of those of small "
    "batches (F1: 205 against 1.23 at eps = 1e-3, 42.9 against .61 at 5e-4)."
)
SOURCE = keskar.SOURCE + ", section 2.2.2, Table 3"

EPSILONS = (1e-3, 5e-4)
PAPER = {1e-3: 205.14 / 1.23, 5e-4: 42.90 / 0.61}
LAYER = 1e-2  # half-width of the box that no rescaling changes, of a layer's typical weight


def validate(scale: str, progress: harness.Progress) -> harness.Outcome:
    """phi in the full space, and its version that does not change with the layers' scales."""
    progress("training")
    found = keskar.trained(scale, harness.seed(0))
    both = {}
    for name, thetas in (("small", found.small), ("large", found.large)):
        progress(f"sharpness, {name} batches")
        both[name] = networks.kept(
            f"K2-{name}", (keskar.settings(scale), EPSILONS, LAYER),
            lambda t=thetas: _measured(found.surface, t),
        )  # fmt: skip
    mean = networks.over_seeds
    ratio = {
        key: np.log10(both["large"][key] / both["small"][key]) for key in ("1e-3", "5e-4", "layer")
    }
    half = len(found.small) // 2
    same = np.log10(both["small"]["1e-3"][:half] / both["small"]["1e-3"][half : 2 * half])
    checks = [
        *(
            harness.check(
                f"log10 of phi at eps = {key}, large over small batches, above 0",
                mean(ratio[key]), 0.0, scale=1.0, bound="above",
            )
            for key in ("1e-3", "5e-4")
        ),
        harness.check(
            "the same with boxes in units of each layer's weights, above 0",
            mean(ratio["layer"]), 0.0, scale=1.0, bound="above",
        ),
        *(
            harness.check(
                f"log10 of phi at eps = {e:g}, large over small batches, against the paper's",
                mean(ratio[key]), float(np.log10(PAPER[e])), scale=1.0, margin=0.5,
                approximate=True, expected="differs",
            )
            for key, e in zip(("1e-3", "5e-4"), EPSILONS, strict=True)
        ),
        harness.check(
            "control: log10 of phi, small batches over small batches of other seeds, above 0.3",
            mean(same), 0.3, scale=1.0, bound="above", expected="differs",
        ),
    ]  # fmt: skip
    typical = {
        (name, key): 10 ** np.log10(both[name][key]).mean() for name in both for key in ratio
    }
    return harness.Outcome(
        prediction="The sign, and the paper's own ratios for its larger network.",
        measurement=keskar.described(scale) + "; phi in the full space, 10 iterations of L-BFGS-B "
        f"in float64; and in boxes of {LAYER:g} times each layer's root mean square weight.",
        checks=checks,
        findings=[
            f"phi at eps = {key}: {typical['small', key]:.3g} (small batches) and "
            f"{typical['large', key]:.3g} (large), geometric means; paper: {paper}."
            for key, paper in (("1e-3", "1.23 and 205"), ("5e-4", "0.61 and 42.9"))
        ]
        + [
            "In boxes that no rescaling of a layer changes: "
            f"{typical['small', 'layer']:.3g} and {typical['large', 'layer']:.3g}.",
            "phi is measured after equally many epochs, not at equal loss: the training losses are "
            f"{found.loss['small'].mean():.2g} (small) and {found.loss['large'].mean():.2g} "
            "(large).",
        ],
        figures=[_figure(both)],
        settings=keskar.settings(scale) | {"eps": EPSILONS, "layer box": LAYER},
        data=both,
    )


def _measured(surface, thetas) -> dict:
    def phi(theta, **options):
        return lv.neural.sharpness(surface, theta.astype(float), **options).value

    return {
        "1e-3": np.array([phi(t, epsilon=1e-3) for t in thetas]),
        "5e-4": np.array([phi(t, epsilon=5e-4) for t in thetas]),
        "layer": np.array([phi(t, epsilon=LAYER, box="layer") for t in thetas]),
    }


def _figure(both: dict) -> tuple:
    figure, ax = harness.axes(xlabel="box", ylabel="sharpness, per cent", yscale="log")
    labels = {"1e-3": "eps = 1e-3", "5e-4": "eps = 5e-4", "layer": f"layers, {LAYER:g}"}
    for k, name in enumerate(("small", "large")):
        for x, key in enumerate(labels):
            values = both[name][key]
            ax.plot(np.full(len(values), x + 0.2 * k - 0.1), values, ls="", marker="os"[k], ms=5,
                    mec="none", alpha=0.7, color=plot.COLOURS[k],
                    label=f"{name} batches" if not x else "_")  # fmt: skip
    ax.set_xticks(range(len(labels)), list(labels.values()))
    ax.set_xlim(-0.5, len(labels) - 0.5)
    ax.legend(frameon=False)
    return ("Each point is one network. Paper: large batches lie two decades above.", figure)


if __name__ == "__main__":
    harness.main(__file__)
