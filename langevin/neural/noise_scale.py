"""The gradient noise scale of McCandlish, Kaplan, Amodei et al. (2018, arXiv 1812.06162)."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from langevin.checks import one_of, real_number, whole_number
from langevin.errors import ParameterError
from langevin.neural import intervals
from langevin.neural import probes as random
from langevin.neural.covariance import divisor
from langevin.neural.derivatives import EXACT_DIM, Derivatives, blocks
from langevin.neural.intervals import Interval
from langevin.result import Estimate

BLOCKS = 32  # of examples, each left out once
MEMORY = 2**28  # bytes of gradients that are kept at once
FLAT = "|G|^2 is not told apart from 0: near interpolation, or too few examples"
BENT = "the curvature along the gradient, G'HG, is not told apart from 0, or negative"


@dataclass(frozen=True, eq=False)
class NoiseScale:
    """What a point of a loss surface says of batch sizes and learning rates.

    ``values`` (4,) are tr Sigma, |G|^2, G'HG and tr(H Sigma), ``covariance`` (4, 4) that of their
    errors. ``of``: "population", the examples are a sample of one, or "training_set", they are all
    there is, and nothing but probing has an error. ``n_examples`` were used.
    """

    values: np.ndarray
    covariance: np.ndarray
    dof: int
    of: str
    method: str
    n_examples: int
    confidence: float

    def _estimate(self, k: int) -> Estimate:
        return Estimate(float(self.values[k]), math.sqrt(self.covariance[k, k]), self.dof)

    @property
    def trace(self) -> Estimate:
        """tr Sigma: the variance of one example's gradient, summed over parameters."""
        return self._estimate(0)

    @property
    def gradient_squared(self) -> Estimate:
        """|G|^2, unbiased: it may come out negative where the gradient is nearly 0."""
        return self._estimate(1)

    @property
    def curvature(self) -> Estimate:
        """G'HG."""
        return self._estimate(2)

    @property
    def noise_curvature(self) -> Estimate:
        """tr(H Sigma)."""
        return self._estimate(3)

    @property
    def simple(self) -> Interval:
        """``B_simple = tr Sigma/|G|^2`` in examples (Eq. 2.9)."""
        return self._ratio([1, 0, 0, 0], [0, 1, 0, 0], FLAT)

    @property
    def full(self) -> Interval:
        """``B_noise = tr(H Sigma)/(G'HG)`` in examples (Eq. 2.8)."""
        return self._ratio([0, 0, 0, 1], [0, 0, 1, 0], BENT)

    def learning_rate(self, batch_size: float) -> Interval:
        """The learning rate of one SGD step that lowers the loss most: eps_opt(B).

        ``eps_max/(1 + B_noise/B)`` with ``eps_max = |G|^2/G'HG`` (Eq. 2.6), from a loss that is
        quadratic along the step. Steps beyond twice this raise the loss.
        """
        b = _size(batch_size)
        return self._ratio([0, 1, 0, 0], [0, 0, 1, 1 / b], BENT)

    def improvement(self, batch_size: float) -> Interval:
        """The mean decrease of the loss by one step at that learning rate: dL_opt(B) (Eq. 2.7)."""
        b = _size(batch_size)
        squared, below = self.values[1], self.values[2] + self.values[3] / b
        spread = self.covariance[2, 2] + 2 * self.covariance[2, 3] / b
        spread += self.covariance[3, 3] / b**2
        if not below > intervals.quantile(self.dof, self.confidence) * math.sqrt(max(spread, 0)):
            return Interval(math.nan, 0.0, math.inf, self.confidence, BENT)
        slopes = [0, squared / below, -(squared**2) / (2 * below**2), 0]
        slopes[3] = slopes[2] / b
        value = squared**2 / (2 * below)
        return intervals.smooth(value, slopes, self.covariance, self.dof, self.confidence)

    def change(self, learning_rate: float, batch_size: float) -> Estimate:
        """The loss's mean change by a step: ``-eps |G|^2 + eps^2/2 (G'HG + tr(H Sigma)/B)``."""
        e, b = float(learning_rate), _size(batch_size)
        slopes = np.array([0, -e, e * e / 2, e * e / (2 * b)])
        stderr = math.sqrt(max(slopes @ self.covariance @ slopes, 0.0))
        return Estimate(float(slopes @ self.values), stderr, self.dof)

    def _ratio(self, above, below, reason) -> Interval:
        rows = np.array([above, below], dtype=float)
        a, b = rows @ np.where(rows.any(axis=0), self.values, 0.0)  # what has no part may be NaN
        covariance = rows @ self.covariance @ rows.T
        return intervals.ratio(float(a), float(b), covariance, self.dof, self.confidence, reason)

    def __repr__(self) -> str:
        return (
            f"NoiseScale(B_simple {self.simple}; B_noise {self.full}; of the {self.of}, "
            f"{self.n_examples:,} examples)"
        )


def gradient_noise_scale(
    surface: Any,
    at: Any = None,
    *,
    of: str = "population",
    method: str = "examples",
    batch_size: int = 32,
    n: int | None = None,
    probes: int | None = None,
    hessian: bool = True,
    confidence: float = 0.95,
    dtype: str | None = None,
    seed: int = 0,
) -> NoiseScale:
    """Gradient noise scales at ``at``, with intervals, on all examples or ``n`` random ones.

    ``of="population"``: G, H and Sigma are those of the population; |G|^2 is
    ``|g|^2 - tr Sigma/N``, Sigma has divisor N - 1, and errors come from leaving out each of 32
    blocks of examples (jackknife, which also removes the bias of order 1/N of G'HG and
    tr(H Sigma)). ``of="training_set"``: g, H and Sigma (divisor N) of these examples themselves,
    what SGD with replacement on them meets, without sampling error. ``method="batches"`` takes the
    gradients of disjoint mini-batches of ``batch_size`` for examples, as batch normalisation
    needs; H is then that of all of them, without error.

    Up to 400 parameters tr(H Sigma) is exact; beyond, it is probed by 32 random signs an example
    (or ``probes``), an error that is included. ``hessian=False`` leaves out what needs H, which
    is NaN then. Raises UnsoundError where an example has no gradient of its own.
    """
    one_of("method", method, ("examples", "batches"))
    if not (real_number(confidence) and 0 < confidence < 1):
        raise ParameterError(f"confidence={confidence!r}: needs a number between 0 and 1.")
    total = surface.n_examples
    n = whole_number("n", total if n is None else n, 2, total)
    divisor(of, n)
    order = np.argsort(random.uniforms(seed, 2**32 - 1, total), kind="stable")[:n]
    if method == "batches":
        batch_size = whole_number("batch_size", batch_size, 1, n // 2)
        n -= n % batch_size
        order = order[:n]
    own = Derivatives(surface, at, dtype, order)
    many = BLOCKS if of == "population" else 1  # nothing is left out of a training set
    sample = _Examples(own, many) if method == "examples" else _Batches(own, batch_size, many)
    if not hessian:
        found, error = _first_order(sample, of), 0.0
    elif surface.dim <= EXACT_DIM and probes is None:
        found, error = _exact(sample, of), 0.0
    else:
        probes = whole_number("probes", 32 if probes is None else probes, 2, 10**5)
        found, error = _probed(sample, of, probes, seed)
    if of == "training_set":
        values, covariance = found[0], np.zeros((4, 4))
    else:
        g = len(found) - 1
        values = found[0].copy()
        if method == "examples":  # the bias of order 1/N of what is made of H and Sigma
            values[2:] += (g - 1) * (found[0] - found[1:].mean(axis=0))[2:]
        elif hessian:  # H has no error here
            values[2] -= values[3] / n
        deviations = found[1:] - found[1:].mean(axis=0)
        covariance = (g - 1) / g * deviations.T @ deviations
    covariance[3, 3] += error**2
    dof = len(sample.blocks) - 1 if of == "population" else 10**6 if not error else probes - 1
    if not hessian:
        values[2:] = np.nan
        covariance[2:] = covariance[:, 2:] = 0.0
    return NoiseScale(values, covariance, dof, of, method, n, float(confidence))


class _Examples:
    """Gradients of single examples in blocks: sums, sums of squares, and Hessians of blocks."""

    scale = 1  # examples in what is called one here

    def __init__(self, own: Derivatives, many: int):
        self.own, self.n = own, own.n
        self.blocks = blocks(self.n, many)
        self.sizes = np.array([b - a for a, b in self.blocks], dtype=float)

    def gradients(self):
        """Blocks' numbers, and the gradients (some, dim) of ones in them, some at a time."""
        edges = np.array([b for _, b in self.blocks])
        for part, each in self.own.batches_of_gradients():
            yield np.searchsorted(edges, np.arange(part.start, part.stop), side="right"), each

    @functools.cached_property
    def kept(self) -> np.ndarray | None:
        """All gradients (ones, dim), where they fit."""
        if 8 * self.n * self.own.dim > MEMORY:
            return None
        return np.concatenate([self.own.array(each) for _, each in self.gradients()])

    def signed(self, Z: np.ndarray) -> np.ndarray:
        """Each block's sums of gradients with the signs Z (probes, ones): (blocks, probes, dim)."""
        found = np.zeros((len(self.blocks), len(Z), self.own.dim))
        for b, (low, high) in enumerate(self.blocks):
            if self.kept is not None:
                found[b] = Z[:, low:high] @ self.kept[low:high]
                continue
            for p, z in enumerate(Z):
                found[b, p] = self.sum(z[low:high], low, high)
        return found

    def sum(self, z: np.ndarray, low: int, high: int) -> np.ndarray:
        """The weighted sum of some gradients."""
        return self.own.array(self.own.weighted_gradient(z, low, high))

    def product(self, V, block=None):
        """H V of all, or of one block."""
        return self.own.product(V, *(self.blocks[block] if block is not None else ()))


class _Batches(_Examples):
    """The same of disjoint mini-batches, whose Hessian is always that of all examples."""

    def __init__(self, own: Derivatives, size: int, many: int):
        self.own, self.scale = own, size
        self.n = own.n // size
        self.blocks = blocks(self.n, many)
        self.sizes = np.array([b - a for a, b in self.blocks], dtype=float)

    def gradients(self):
        """One batch after the other, with its own statistics."""
        for number, (a, b) in enumerate(self.blocks):
            for k in range(a, b):
                yield np.array([number]), self.gradient(k)[None]

    def gradient(self, k: int) -> torch.Tensor:
        """Of batch k."""
        some = slice(k * self.scale, (k + 1) * self.scale)
        leaf = self.own.theta.detach().requires_grad_()
        loss = self.own.losses(leaf, *self.own.examples(some)).mean()
        return torch.autograd.grad(loss, leaf)[0] + self.own.surface.l2 * leaf.detach()

    def sum(self, z: np.ndarray, low: int, high: int) -> np.ndarray:
        """The weighted sum of some batches' gradients."""
        pairs = zip(z, range(low, high), strict=True)
        return sum(weight * self.own.array(self.gradient(k)) for weight, k in pairs)

    def product(self, V, block=None):
        """H V of all."""
        return self.own.product(V)


def _left_out(total, parts):
    """The whole, then the whole without each part, where there is more than one."""
    parts = parts if len(parts) > 1 else parts[:0]
    return np.concatenate([total[None], total - parts])


def _moments(sample: _Examples):
    """Each block's sum of gradients (blocks, dim) and sum of squared lengths (blocks,)."""
    sums = np.zeros((len(sample.blocks), sample.own.dim))
    squares = np.zeros(len(sample.blocks))
    for numbers, each in sample.gradients():
        each = sample.own.array(each)
        for b in np.unique(numbers):
            sums[b] += each[numbers == b].sum(axis=0)
            squares[b] += (each[numbers == b] ** 2).sum()
    return sums, squares


def _variances(sample, of, sums, squares):
    """Sizes, mean gradients, tr Sigma and |G|^2: of all, and without each block."""
    n = _left_out(np.array(sample.n, float), sample.sizes)
    means = _left_out(sums.sum(axis=0), sums) / n[:, None]
    lengths = (means**2).sum(axis=1)
    below = n if of == "training_set" else n - 1
    trace = (_left_out(squares.sum(), squares) - n * lengths) / below * sample.scale
    squared = lengths if of == "training_set" else lengths - trace / (n * sample.scale)
    return n, means, below, trace, squared


def _first_order(sample, of):
    _, _, _, trace, squared = _variances(sample, of, *_moments(sample))
    return np.stack([trace, squared, np.zeros_like(trace), np.zeros_like(trace)], axis=1)


def _exact(sample: _Examples, of: str) -> np.ndarray:
    """The four numbers (1 + blocks, 4) by whole matrices."""
    d = sample.own.dim
    sums, squares = _moments(sample)
    second = np.zeros((len(sample.blocks), d, d))
    for numbers, each in sample.gradients():
        each = sample.own.array(each)
        for b in np.unique(numbers):
            second[b] += each[numbers == b].T @ each[numbers == b]
    eye = torch.eye(d, dtype=sample.own.kind)
    H = np.stack([sample.own.array(sample.product(eye, b)) for b in range(len(sample.blocks))])
    n, means, below, trace, squared = _variances(sample, of, sums, squares)
    weighted = sample.sizes[:, None, None] * H
    H = _left_out(weighted.sum(axis=0), weighted) / n[:, None, None]
    bent = np.einsum("bi,bij,bj->b", means, H, means)
    inner = np.einsum("bij,bji->b", H, _left_out(second.sum(axis=0), second))
    noisy = (inner - n * bent) / below * sample.scale
    return np.stack([trace, squared, bent, noisy], axis=1)


def _probed(sample: _Examples, of: str, probes: int, seed: int) -> tuple[np.ndarray, float]:
    """The same by products, and the standard error that the probes leave in tr(H Sigma)."""
    own, g, dim = sample.own, len(sample.blocks), sample.own.dim
    sums, squares = _moments(sample)
    n, means, below, trace, squared = _variances(sample, of, sums, squares)
    whole = own.array(sample.product(own.tensor(means.T))).T
    bent = [float(means[0] @ whole[0])]
    for b in range(len(n) - 1):  # H without block b times the mean gradient without it
        part = own.array(sample.product(own.tensor(means[1 + b]), b))
        rest = (sample.n * whole[1 + b] - sample.sizes[b] * part) / n[1 + b]
        bent.append(float(means[1 + b] @ rest))
    bent = np.array(bent)
    inner = []
    at_once = max(1, min(probes, MEMORY // (8 * g * dim)))
    for low in range(0, probes, at_once):
        numbers = range(low, min(probes, low + at_once))
        Z = np.stack([random.signs(seed, p, sample.n) for p in numbers])
        signed = sample.signed(Z)  # (g, probes, dim): u_c, the signed sums over blocks
        u = signed.sum(axis=0)
        whole, second = np.zeros_like(u), []
        for b in range(g):
            bend = own.array(sample.product(own.tensor(u.T), b)).T
            whole += sample.sizes[b] / sample.n * bend  # H u in the end
            second.append((bend * (u - signed[b])).sum(axis=1))
        # In the mean over signs u_c' H u is the sum over block c of g'Hg, and so on.
        all_of_them = (u * whole).sum(axis=1)
        first = all_of_them[:, None] - np.einsum("cpd,pd->pc", signed, whole)
        rest = (sample.n * first - sample.sizes * np.array(second).T) / n[1:]
        inner.append(np.concatenate([all_of_them[:, None], rest], axis=1))
    noisy = (np.concatenate(inner) - n * bent) / below * sample.scale
    error = float(noisy[:, 0].std(ddof=1) / math.sqrt(probes))
    return np.stack([trace, squared, bent, noisy.mean(axis=0)], axis=1), error


def _size(batch_size: float) -> float:
    if not (real_number(batch_size) and batch_size > 0):
        raise ParameterError(f"batch_size={batch_size!r}: needs a number above 0.")
    return float(batch_size)
