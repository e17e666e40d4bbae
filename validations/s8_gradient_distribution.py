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
WEIGHTS = 60  # of each network, at random
# A peak counts if the density falls to half its height before it rises again on either side, and
# if one part in twenty of the sample is under it.
FALL, SHARE = 0.5, 0.05


def validate(scale: str, progress: harness.Progress) -> harness.Outcome:
    """Number of peaks, distance from a Gaussian, and the first three cumulants, exactly."""
    n_networks, n_batches = (8, 4_000) if scale == "quick" else (32, 20_000)
    found = {"single": [], "batch": [], "law": []}
    for k in range(n_networks):
        progress(f"network {k + 1} of {n_networks}")
        single, batch = gradients(harness.seed(2_800 + k), n_batches)
        found["single"].append([_described(g) for g in single.T])
        found["batch"].append([_described(g) for g in batch.T])
        found["law"].append([_of_means(g) for g in single.T])
        shown = (single, batch) if k == 0 else shown  # noqa: F821
    # (networks, weights, [peaks, distance, variance, skewness]); networks are independent
    values = {
        name: np.array([np.nanmean(np.array(one), axis=0) for one in part])
        for name, part in found.items()
    }
    several = {
        name: np.array([np.mean(np.array(one)[:, 0] >= 2) for one in found[name]])
        for name in ("single", "batch")
    }
    over = networks.over_seeds
    variance = over(values["batch"][:, 2] / values["law"][:, 0])
    skewness = over(values["batch"][:, 3])
    exact_skewness = float(values["law"][:, 1].mean())
    checks = [
        harness.check(
            f"share of weights whose gradient has two peaks or more over mini-batches of {BATCH}, "
            "against 0",
            over(several["batch"]), 0.0, scale=1.0, margin=0.05, approximate=True,
        ),
        harness.check(
            "the same over single examples, above one half",
            over(several["single"]), 0.5, bound="above",
        ),
        harness.check(
            f"Kolmogorov's distance from a Gaussian over mini-batches of {BATCH}, below 0.05",
            over(values["batch"][:, 1]), 0.05, bound="below",
        ),
        harness.check(
            "control: the same over single examples, below 0.05",
            over(values["single"][:, 1]), 0.05, bound="below", expected="differs",
        ),
        harness.check(
            "variance over mini-batches, over that without replacement, C/B (N - B)/(N - 1)",
            variance, 1.0, margin=0.02,
        ),
        harness.check(
            "control: the same over that with replacement, C/B",
            over(values["batch"][:, 2] / values["law"][:, 2]), 1.0, margin=0.02,
            expected="differs",
        ),
        harness.check(
            "skewness over mini-batches, against the exact one of the single examples'",
            over(values["batch"][:, 3] - values["law"][:, 1]), 0.0, scale=1.0, margin=0.02,
        ),
        harness.check(
            "size of that skewness (the paper's 'still slightly skewed'), above 0.1",
            over([np.nanmean(np.abs(np.array(one)[:, 3])) for one in found["batch"]]), 0.1,
            bound="above",
        ),
    ]  # fmt: skip
    dead = int(sum(np.isnan(np.array(one)[:, 1]).sum() for one in found["single"]))
    return harness.Outcome(
        prediction="For sums without replacement from a finite set the variance and the third "
        "moment are exact; the rest is the paper's picture.",
        measurement=f"{n_networks} networks 784-{HIDDEN}-10 at PyTorch's initialisation, each with "
        f"{N} images of MNIST of its own; {WEIGHTS} random weights of the last layer each; "
        f"gradients by torch.func, example by example, and their means over {n_batches} "
        f"mini-batches of {BATCH}.",
        checks=checks,
        findings=[
            f"Over single examples {100 * several['single'].mean():.0f} % of the weights have two "
            "peaks: images of the weight's own class pull one way, all others the other way. Over "
            f"mini-batches of {BATCH} {100 * several['batch'].mean():.1f} % have.",
            f"The distance from a Gaussian falls from {values['single'][:, 1].mean():.3f} to "
            f"{values['batch'][:, 1].mean():.3f}.",
            f"The mini-batches' skewness is {skewness.value:.3f} on average, as it must be "
            f"({exact_skewness:.3f}): 1/sqrt(B) of the single examples', so it would be below 0.1 "
            "from about "
            f"{BATCH * (exact_skewness / 0.1) ** 2:.0f} examples on.",
            f"{dead} of {n_networks * WEIGHTS} weights belong to units that no image excites; they "
            "have no gradient and are left out.",
        ],
        figures=[_figure(shown[0], False), _figure(shown[1], True)],
        settings={
            "seeds": f"2800 ... {2_800 + n_networks - 1}",
            "images": "unit norm (a choice)",
            "hidden units": HIDDEN,
            "N": N,
            "B": BATCH,
            "batches": n_batches,
            "weights of a network": WEIGHTS,
            "a peak": {"falls to": FALL, "share of the sample": SHARE},
        },
        data={
            name: values[name].round(6) for name in ("single", "batch", "law")
        }
        | {f"two peaks, {name}": several[name] for name in several},
    )  # fmt: skip


def gradients(seed: int, n_batches: int) -> tuple[np.ndarray, np.ndarray]:
    """Of random weights of the last layer: by example (N, weights), by batch (batches, weights)."""
    import torch

    neural = lv.neural
    X, y = neural.data.mnist(n=N, seed=seed, normalise="unit_norm")
    module = neural.models.reset(neural.models.smith_le(HIDDEN), seed=seed)
    *_, last = module.requires_grad_(False).children()
    hidden = module[:-1](X)

    def loss(weight, h, label):
        return torch.nn.functional.cross_entropy(weight @ h + last.bias, label)

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))
    slopes = each(last.weight, hidden, y).flatten(1).double().numpy()
    random = np.random.default_rng(seed)
    chosen = slopes[:, random.choice(slopes.shape[1], WEIGHTS, replace=False)]
    means = np.empty((n_batches, WEIGHTS))
    for k in range(n_batches):
        means[k] = chosen[random.choice(N, BATCH, replace=False)].mean(axis=0)
    return chosen, means


def _described(sample: np.ndarray) -> tuple[float, float, float, float]:
    """Number of peaks, Kolmogorov's distance from the Gaussian of its moments, variance, skewness.

    NaN where the sample is constant.
    """
    if sample.std() < 1e-12 * max(1.0, np.abs(sample).max()) or not np.ptp(sample):
        return (float("nan"),) * 4
    z = (sample - sample.mean()) / sample.std()
    distance = stats.kstest(z, "norm").statistic
    return peaks(z), float(distance), float(sample.var()), float(stats.skew(sample))


def peaks(sample: np.ndarray) -> int:
    """Peaks of a kernel estimate of the density, by Silverman's rule (see FALL and SHARE)."""
    at = np.linspace(sample.min() - 0.5, sample.max() + 0.5, 400)
    density = stats.gaussian_kde(sample[:2_000], bw_method="silverman")(at)
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
    if not np.ptp(sample):
        return (float("nan"),) * 3
    n, b = len(sample), BATCH
    variance = sample.var() / b * (n - b) / (n - 1)
    third = stats.moment(sample, 3) / b**2 * (n - b) * (n - 2 * b) / ((n - 1) * (n - 2))
    return float(variance), float(third / variance**1.5), float(sample.var() / b)


def _figure(values: np.ndarray, batches: bool) -> tuple:
    figure, ax = harness.axes(
        xlabel="gradient / its standard deviation over examples", ylabel="probability density"
    )
    of = next(k for k, g in enumerate(values.T) if np.ptp(g))
    sample = values[:, of] / (values[:, of].std() * (BATCH**0.5 if batches else 1))
    ax.hist(sample, bins=60, density=True, color=plot.COLOURS[0], alpha=0.7,
            label=f"mean over {BATCH} examples" if batches else "single examples")  # fmt: skip
    fine = np.linspace(sample.min(), sample.max(), 300)
    law = stats.norm.pdf(fine, sample.mean(), sample.std())
    ax.plot(fine, law, color=plot.COLOURS[1], label="Gaussian of the same moments")
    ax.legend(frameon=False)
    what = f"mini-batches of {BATCH}" if batches else "single examples"
    claim = "one peak, slightly skewed" if batches else "two peaks"
    return (f"One weight of the first network, over {what}. Paper: {claim}.", figure)


if __name__ == "__main__":
    harness.main(__file__)
