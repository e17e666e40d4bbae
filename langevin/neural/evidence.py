"""The Bayesian evidence of a minimum: Smith and Le (2018), equations 9 and 10."""

from __future__ import annotations

import copy
import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.sparse import linalg

from langevin.checks import whole_number
from langevin.errors import ConvergenceWarning, UnsoundError
from langevin.neural import probes as random
from langevin.neural.curvature import LARGEST_DENSE, HessianOperator
from langevin.neural.derivatives import Derivatives
from langevin.neural.spectrum import gauss, lanczos

DENSE = 1_200  # parameters up to which the whole Hessian is taken unless told otherwise


@dataclass(frozen=True, eq=False)
class LogEvidence:
    """``ln P(y|x; M) ~ -(C(w0) + occam)`` and its parts, in nats.

    ``cost`` C(w0) is the *summed* loss with its penalty, ``occam`` half the sum of
    ``ln(lambda_i/lambda)`` over eigenvalues of the Hessian of C above ``regulariser`` = lambda, of
    which ``cut`` lie below, all of them negative curvature of the data (counted where the Hessian
    is whole, else None). ``stderr`` is that of probing, ``truncation`` the change that the second
    half of the Lanczos steps made: both 0 where the Hessian is whole. ``decrement`` is by how much
    a Newton step would still lower the cost: at a minimum, 0.
    """

    cost: float
    occam: float
    excess: float
    null: float
    regulariser: float
    cut: int | None
    stderr: float
    truncation: float
    decrement: float
    products: int

    @property
    def value(self) -> float:
        """The log evidence ``-(C(w0) + occam)``."""
        return -(self.cost + self.occam)

    @property
    def ratio(self) -> float:
        """E(w0) of Eq. 10: ln of the evidence of guessing over the model's.

        Below 0 the model is preferred to ``n_classes ** -N``. NaN without a number of classes.
        """
        return self.excess + self.occam

    def __repr__(self) -> str:
        error = "" if self.stderr == 0 == self.truncation else f" +- {self.stderr:.2g}"
        error += f" (truncation {self.truncation:.2g})" if self.truncation else ""
        return (
            f"LogEvidence({self.value:.6g}{error}: cost {self.cost:.6g}, Occam {self.occam:.6g}; "
            f"ratio E {self.ratio:.6g})"
        )


def log_evidence(
    surface: Any,
    at: Any = None,
    *,
    n_classes: int | None = None,
    probes: int | None = None,
    steps: int = 80,
    seed: int = 0,
) -> LogEvidence:
    """The evidence of the minimum ``at`` in Laplace's approximation, against guessing.

    ``C(w) = N L(w) = sum_i -ln p_i + lambda |w|^2/2`` with ``lambda = N l2``: the surface's penalty
    is the prior, a Gaussian of variance 1/lambda, on every parameter, biases too.
    ``E(w0) = C(w0) + 1/2 sum_{lambda_i >= lambda} ln(lambda_i/lambda) - N ln(n_classes)``;
    ``ln(lambda_i/lambda)`` is taken as log1p of the data's own curvature over lambda, for E tends
    to 0 from above at large lambda. Exact for losses that are -ln p and quadratic around ``at``.

    Up to 1,200 parameters with the whole Hessian (6,000 with ``probes=0``); beyond, or with
    ``probes``, by stochastic Lanczos quadrature: ``probes`` (16) random signs, ``steps`` each.
    Everything is in float64. ``n_classes`` is by default the number of outputs under the loss
    "cross_entropy". Warns (ConvergenceWarning) where ``at`` is not a minimum: a Newton step would
    change E by more than its other errors and 0.01. Raises UnsoundError without a penalty.
    """
    n, l2 = surface.n_examples, surface.l2
    if l2 <= 0:
        raise UnsoundError(
            "log_evidence: l2=0 is a prior that no weights can be drawn from. Give the surface a "
            "penalty: NeuralSurface(..., l2=lambda/N), lambda that of the summed cost."
        )
    classes = _classes(surface, n_classes)
    regulariser = n * l2
    bare = copy.copy(surface)
    bare.l2 = 0.0
    own = Derivatives(bare, at, "float64")
    penalty = 0.5 * regulariser * float(own.theta.square().sum())
    null = n * math.log(classes) if classes else math.nan
    cost, excess = _costs(own, math.log(classes) if classes else math.nan)
    H = HessianOperator(bare, at, dtype="float64")  # of the data alone, a mean
    limit = LARGEST_DENSE if probes == 0 else DENSE
    slope = own.array(own.gradient()) + l2 * own.array(own.theta)
    if (probes is None or probes == 0) and surface.dim <= limit:
        values, axes = np.linalg.eigh(H.dense())
        kept = values > 0
        occam = 0.5 * float(np.log1p(values[kept] / l2).sum())
        cut, stderr, truncation = int((values < -1e-12 * abs(values[-1])).sum()), 0.0, 0.0
        along = (axes.T @ slope)[values + l2 > 0]
        decrement = 0.5 * n * float((along**2 / (values + l2)[values + l2 > 0]).sum())
    else:
        probes = whole_number("probes", 16 if not probes else probes, 2, 10**5)
        steps = min(whole_number("steps", steps, 4, 10**5), surface.dim)
        occam, stderr, truncation = _occam(H, l2, probes, steps, seed)
        cut, decrement = None, n * _decrement(H, l2, slope)
    found = LogEvidence(
        cost + penalty, occam, excess + penalty, null, regulariser, cut,
        stderr, truncation, decrement, H.products,
    )  # fmt: skip
    if decrement > max(0.01, stderr + truncation):
        warnings.warn(
            f"log_evidence: not a minimum: a Newton step would lower the summed cost by "
            f"{decrement:.3g}. Train further, with smaller learning rates at the end.",
            ConvergenceWarning,
            stacklevel=2,
        )
    return found


def _classes(surface: Any, n_classes: Any) -> int | None:
    if n_classes is not None:
        return whole_number("n_classes", n_classes, 2, 10**9)
    if surface.loss_name != "cross_entropy":
        return None
    with torch.no_grad():
        kind = next(surface.module.parameters()).dtype
        few = surface.X[:2].to(kind) if surface.X.is_floating_point() else surface.X[:2]
        return int(Derivatives(surface).module(few).shape[1])


def _costs(own: Derivatives, guess: float) -> tuple[float, float]:
    """The summed loss, and the sum of losses less that of guessing, each example's first."""
    total = excess = 0.0
    with torch.no_grad():
        for part in own.parts():
            losses = own.losses(own.theta, *own.examples(part)).double()
            total += float(losses.sum())
            excess += float((losses - guess).sum())
    return total, excess


def _occam(H, l2, probes, steps, seed) -> tuple[float, float, float]:
    """Half of ``tr ln(1 + max(H, 0)/l2)``, its standard error, and the second half's change."""
    each, half = [], []
    for j in range(probes):
        diagonal, beside, _ = lanczos(H, random.signs(seed, j, H.shape[0]), steps, H.rounding)
        for found, m in ((each, len(diagonal)), (half, max(1, len(diagonal) // 2))):
            x, w = gauss(diagonal[:m], beside)
            found.append(0.5 * H.shape[0] * float(w @ np.log1p(np.maximum(x, 0) / l2)))
    mean = float(np.mean(each))
    stderr = float(np.std(each, ddof=1) / math.sqrt(probes))
    return mean, stderr, abs(mean - float(np.mean(half)))


def _decrement(H, l2, slope) -> float:
    """``g' (H + l2)^-1 g / 2`` by conjugate gradients (an estimate where H is indefinite)."""
    shifted = linalg.LinearOperator(H.shape, matvec=lambda v: H @ v + l2 * v, dtype=float)
    step, _ = linalg.cg(shifted, slope, rtol=1e-3, maxiter=200)
    return abs(0.5 * float(step @ slope))
