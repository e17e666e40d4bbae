"""The covariance C(theta) of one example's gradient: matrix, trace, product with a vector."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.sparse import linalg

from langevin.checks import one_of
from langevin.errors import ParameterError
from langevin.neural.curvature import LARGEST_DENSE
from langevin.neural.derivatives import Derivatives

OF = ("training_set", "population")


def divisor(of: str, n: int) -> int:
    """N for the examples themselves, N - 1 where they stand for a population."""
    one_of("of", of, OF)
    if of == "population" and n < 2:
        raise ParameterError("of='population' needs two examples at least; there is one.")
    return n if of == "training_set" else n - 1


class GradientCovariance(linalg.LinearOperator):
    """C(theta) as a scipy LinearOperator (dim, dim): ``C v = 1/N sum_i (g_i - g) (g_i - g)'v``.

    No gradient of a single example is kept: a product takes two passes over the data.
    """

    def __init__(self, surface: Any, at: Any = None, *, of: str = "training_set", dtype=None):
        self.derivatives = Derivatives(surface, at, dtype)
        self.divisor = divisor(of, surface.n_examples)
        self.derivatives.example_gradients(slice(0, 1))  # refuses what has none
        super().__init__(np.dtype(np.float64), (surface.dim, surface.dim))

    def _matvec(self, x):
        own = self.derivatives
        v = own.tensor(np.asarray(x).reshape(-1))
        along = np.concatenate([own.array(_along(own, part, v)) for part in own.parts()])
        return own.array(own.weighted_gradient(along - along.mean())) / self.divisor

    def _adjoint(self):
        return self

    def trace(self) -> float:
        """``1/N sum_i |g_i - g|**2``, exact, one example's gradient after the other."""
        own = self.derivatives
        mean, total = own.gradient(), 0.0
        for _, each in own.batches_of_gradients():
            total += float((each - mean).double().square().sum())
        return total / self.divisor

    def dense(self) -> np.ndarray:
        """The matrix (dim, dim). Raises ParameterError above 6,000 parameters."""
        n = self.shape[0]
        if n > LARGEST_DENSE:
            raise ParameterError(
                f"the covariance of {n:,} parameters has {n * n:,.0f} numbers; whole ones are "
                f"formed up to {LARGEST_DENSE:,}. Use its products, gradient_covariance_operator, "
                "or gradient_noise_scale."
            )
        own = self.derivatives
        mean, total = own.gradient(), np.zeros((n, n))
        for _, each in own.batches_of_gradients():
            centred = own.array(each - mean)
            total += centred.T @ centred
        return total / self.divisor


def _along(own: Derivatives, part: slice, v: torch.Tensor) -> torch.Tensor:
    """``g_i' v`` of some examples, without the penalty's part, which is the same for all."""
    leaf = own.theta.detach().requires_grad_()
    losses = own.losses(leaf, *own.examples(part))
    weights = torch.ones_like(losses, requires_grad=True)
    slope = torch.autograd.grad(losses, leaf, weights, create_graph=True, allow_unused=True)[0]
    if slope is None:
        return torch.zeros_like(weights)
    return torch.autograd.grad(slope, weights, v)[0]


def gradient_covariance(
    surface: Any, at: Any = None, *, of: str = "training_set", dtype: str | None = None
) -> np.ndarray:
    """C(theta) (dim, dim): the covariance of one example's gradient at ``at``.

    ``of="training_set"`` divides by N: a mini-batch of S drawn with replacement has covariance C/S,
    without replacement ``(C/S) (N - S)/(N - 1)``. ``of="population"`` divides by N - 1: unbiased
    for the population that the examples are a sample of. Raises ParameterError above 6,000
    parameters, UnsoundError where batch normalisation makes examples depend on each other.
    """
    return GradientCovariance(surface, at, of=of, dtype=dtype).dense()


def gradient_covariance_operator(
    surface: Any, at: Any = None, *, of: str = "training_set", dtype: str | None = None
) -> GradientCovariance:
    """C(theta) as a scipy LinearOperator with an exact `trace`, for networks of any size."""
    return GradientCovariance(surface, at, of=of, dtype=dtype)
