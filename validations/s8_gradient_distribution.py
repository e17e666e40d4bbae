"""S8: one weight's gradient has two peaks over examples, one over mini-batches of 30."""

from __future__ import annotations

import harness
import networks
import numpy as np
from scipy import signal, stats

import langevin as lv
from langevin import plot

ROW = "S8"
CLAIM = (
    "At initialisation the gradient of one weight of the softmax layer has two peaks over single "
    "examples; averaged over mini-batches of 30 drawn without replacement a single peak emerges, "
    "slightly skewed and near a Gaussian."
)
SOURCE = "Smith and Le 2017, appendix C, Figure 9"

HIDDEN, N, BATCH = 800, 1_000, 30
WEIGHTS = 40  # of each network: at random, and at random among those of units that are active
AMOUNT = {"quick": (12, 3_000), "full": (48, 10_000)}  # networks, mini-batches of each
ACTIVE = 0.95  # share of the images that excite such a unit
# A peak counts if the density falls to half its height before it rises again on either side, and
# if one part in twenty of the sample is under it.
FALL, SHARE = 0.5, 0.05
GAUSSIAN = 0.1  # Kolmogorov's distance that still counts as near


def validate(scale: str, progress: harness.Progress) -> harness.Outcome:
    """Number of peaks, distance from a Gaussian, and the first three cumulants, exactly."""
    n_networks, n_batches = AMOUNT[scale]
    active, random, shown = [], [], None
    for k in range(n_networks):
        progress(f"network {k + 1} of {n_networks}")
        some, any_ = gradients(harness.seed(2_900 + k), n_batches)
        active.append(_summary(*some))
        random.append(_summary(*any_))
        shown = shown or some
    active, random = ({key: [one[key] for one in part] for key in part[0]} for part in (
        active, random
    ))  # fmt: skip
    over = networks.over_seeds
    many = f"over mini-batches of {BATCH}"
    checks = [
        harness.check(
            "weights of active units: share whose gradient has two peaks over single examples, "
            "above one half",
            over(active["two peaks"]), 0.5, bound="above",
        ),
        harness.check(
            f"share of these with two peaks {many}, against 0",
            over(active["two peaks, batch"]), 0.0, scale=1.0, margin=0.05, approximate=True,
        ),
        harness.check(
            f"their distance from a Gaussian (Kolmogorov's) {many}, below {GAUSSIAN}",
            over(active["distance, batch"]), GAUSSIAN, bound="below",
        ),
        harness.check(
            f"control: the same over single examples, below {GAUSSIAN}",
            over(active["distance"]), GAUSSIAN, bound="below", expected="differs",
        ),
        harness.check(
            f"their skewness {many} (the paper: 'still slightly skewed'), its size above 0.1",
            over(active["skewness, batch"]), 0.1, bound="above",
        ),
        harness.check(
            "all weights: share with two peaks over single examples, above one half",
            over(random["two peaks"]), 0.5, bound="above", expected="differs",
        ),
        harness.check(
            f"all weights: distance from a Gaussian {many}, below {GAUSSIAN}",
            over(random["distance, batch"]), GAUSSIAN, bound="below", expected="differs",
        ),
        harness.check(
            f"variance {many}, over that of sums without replacement, C/B (N - B)/(N - 1)",
            over(active["variance ratio"]), 1.0, margin=0.02,
        ),
        harness.check(
            "control: the same over that with replacement, C/B",
            over(active["variance ratio, replaced"]), 1.0, margin=0.02, expected="differs",
        ),
        harness.check(
            f"skewness {many} minus the exact one of sums without replacement",
            over(active["skewness difference"]), 0.0, scale=1.0, margin=0.03,
        ),
    ]  # fmt: skip
    mean = {key: float(np.mean(values)) for key, values in active.items()}
    any_mean = {key: float(np.mean(values)) for key, values in random.items()}
    return harness.Outcome(
        prediction="For sums without replacement from a finite set the variance and the third "
        "moment are exact; the rest is the paper's picture of one weight.",
        measurement=f"{n_networks} networks 784-{HIDDEN}-10 at PyTorch's initialisation, each with "
        f"{N} images of MNIST of its own; {WEIGHTS} random weights of the last layer each, and "
        f"{WEIGHTS} of units that {100 * ACTIVE:.0f} % of the images excite; gradients by "
        f"torch.func, example by example, and their means over {n_batches} mini-batches of "
        f"{BATCH}.",
        checks=checks,
        findings=[
            "Of the weights of units that nearly every image excites, "
            f"{100 * mean['two peaks']:.0f} % have two peaks over single examples: images "
            "of the weight's own class pull one way, all others the other way. Over mini-batches "
            f"of {BATCH} {100 * mean['two peaks, batch']:.1f} % have, and the "
            f"distance from a Gaussian falls from {mean['distance']:.3f} "
            f"to {mean['distance, batch']:.3f}.",
            "A weight drawn at random is another matter: most units are silent on many images, "
            f"where the gradient is exactly 0. {100 * any_mean['two peaks']:.0f} % have two peaks, "
            f"and mini-batches of {BATCH} are {any_mean['distance, batch']:.3f} from a Gaussian on "
            f"average, with a skewness of size {any_mean['skewness, batch']:.2f}. So 'already "
            "approaching the Gaussian limit' holds for the paper's one weight, not for most.",
            f"The mini-batches' skewness is that of the single examples over sqrt(B), as it must "
            f"be: its size is {mean['skewness, batch']:.2f} for active units.",
        ],
        figures=[_figure(shown[0], False), _figure(shown[1], True)],
        settings={
            "seeds": f"2900 ... {2_900 + n_networks - 1}",
            "images": "unit norm (a choice)",
            "hidden units": HIDDEN,
            "N": N,
            "B": BATCH,
            "batches": n_batches,
            "weights of a network": WEIGHTS,
            "active": ACTIVE,
            "a peak": {"falls to": FALL, "share of the sample": SHARE},
        },
        data={"active": active, "all": random},
    )


def gradients(seed: int, n_batches: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of weights of active units, and of any: by example (N, weights), by batch (batches, ...)."""
    import torch

    neural = lv.neural
    X, y = neural.data.mnist(n=N, seed=seed, normalise="unit_norm")
    module = neural.models.reset(neural.models.smith_le(HIDDEN), seed=seed).requires_grad_(False)
    *_, last = module.children()
    hidden = module[:-1](X)

    def loss(weight, h, label):
        return torch.nn.functional.cross_entropy(weight @ h + last.bias, label)

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))
    slopes = each(last.weight, hidden, y).double().numpy()  # (N, classes, units)
    excited = (hidden > 0).double().mean(dim=0).numpy()
    random = np.random.default_rng(seed)
    batches = np.array([random.choice(N, BATCH, replace=False) for _ in range(n_batches)])
    found = []
    for least in (ACTIVE, 0.0):
        units = np.flatnonzero((excited >= least) & (excited > 0))
        classes = random.integers(slopes.shape[1], size=WEIGHTS)
        chosen = slopes[:, classes, random.choice(units, WEIGHTS)]
        means = sum(chosen[column] for column in batches.T) / BATCH
        found.append((chosen, means))
    return found


def _summary(single: np.ndarray, batch: np.ndarray) -> dict[str, float]:
    """Averages over the weights of a network."""
    kept = np.ptp(single, axis=0) > 0
    single, batch = single[:, kept], batch[:, kept]
    one, many = (np.array([_described(g) for g in part.T]) for part in (single, batch))
    law = np.array([_of_means(g) for g in single.T])
    return {
        "two peaks": float(np.mean(one[:, 0] >= 2)),
        "two peaks, batch": float(np.mean(many[:, 0] >= 2)),
        "distance": float(one[:, 1].mean()),
        "distance, batch": float(many[:, 1].mean()),
        "skewness, batch": float(np.abs(many[:, 3]).mean()),
        "variance ratio": float((many[:, 2] / law[:, 0]).mean()),
        "variance ratio, replaced": float((many[:, 2] / law[:, 2]).mean()),
        "skewness difference": float((many[:, 3] - law[:, 1]).mean()),
    }


def _described(sample: np.ndarray) -> tuple[float, float, float, float]:
    """Number of peaks, Kolmogorov's distance from a Gaussian, variance, skewness."""
    z = (sample - sample.mean()) / sample.std()
    distance = stats.kstest(z, "norm").statistic
    return peaks(z), float(distance), float(sample.var()), float(stats.skew(sample))


def peaks(sample: np.ndarray) -> int:
    """Peaks of a kernel estimate of the density, by Silverman's rule (see FALL and SHARE)."""
    at = np.linspace(sample.min() - 0.5, sample.max() + 0.5, 400)
    density = stats.gaussian_kde(sample[:1_000], bw_method="silverman")(at)
    found, about = signal.find_peaks(density, prominence=0)
    count = 0
    for place, drop, left, right in zip(
        found, about["prominences"], about["left_bases"], about["right_bases"], strict=True
    ):
        under = np.mean((sample >= at[left]) & (sample <= at[right]))
        count += bool(drop >= FALL * density[place] and under >= SHARE)
    return count


def _of_means(sample: np.ndarray) -> tuple[float, float, float]:
    """Exact variance and skewness of means without replacement, and the variance with it."""
    n, b = len(sample), BATCH
    variance = sample.var() / b * (n - b) / (n - 1)
    third = stats.moment(sample, 3) / b**2 * (n - b) * (n - 2 * b) / ((n - 1) * (n - 2))
    return float(variance), float(third / variance**1.5), float(sample.var() / b)


def _figure(values: np.ndarray, batches: bool) -> tuple:
    figure, ax = harness.axes(
        xlabel="gradient / its standard deviation over examples", ylabel="probability density"
    )
    sample = values[:, 0] / (values[:, 0].std() * (BATCH**0.5 if batches else 1))
    ax.hist(sample, bins=40, density=True, color=plot.COLOURS[0], alpha=0.7,
            label=f"mean over {BATCH} examples" if batches else "single examples")  # fmt: skip
    fine = np.linspace(sample.min(), sample.max(), 300)
    law = stats.norm.pdf(fine, sample.mean(), sample.std())
    ax.plot(fine, law, color=plot.COLOURS[1], label="Gaussian of the same moments")
    ax.legend(frameon=False)
    what = f"mini-batches of {BATCH}" if batches else "single examples"
    claim = "one peak, slightly skewed" if batches else "two peaks"
    return (f"One weight of an active unit, over {what}. Paper: {claim}.", figure)


if __name__ == "__main__":
    harness.main(__file__)
