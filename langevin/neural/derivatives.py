"""Derivatives of a network's loss at one point: gradients, examples' gradients, Hessian products.

What every measurement of a NeuralSurface is made of. Sums over examples are weighted by how many
there are, so a ragged last part biases nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from langevin.errors import ParameterError, UnsoundError
from langevin.neural import stacked

AT_ONCE = 1024  # examples in one graph
KEPT = 4096  # examples whose graphs are kept between two products
COLUMNS = 64  # vectors multiplied at once, at most, where the graph allows it,
TOGETHER = 2**18  # and so many numbers of them: larger products fill the cores one by one
EXACT_DIM = 400  # up to here whole Hessians are formed where nothing else is said


class Derivatives:
    """The loss of a NeuralSurface at ``theta`` (dim,), with its derivatives.

    ``at``: parameters (dim,), a module of the surface's kind, or None for the surface's own module.
    ``dtype``: "float64" or "float32", by default that of ``at``. Dropout is switched off. Batch
    normalisation takes the statistics of all examples together under the policies "batch" and
    "recalibrate" (through which it is differentiated, as in `NeuralSurface.gradient`), those of
    the buffers under "eval". ``order`` (n,) chooses and orders the examples, by default all.
    """

    def __init__(self, surface: Any, at: Any = None, dtype: str | None = None, order: Any = None):
        self.surface, self.layout = surface, surface.layout
        self.X, self.y = (
            (surface.X, surface.y)
            if order is None
            else (surface.X[torch.as_tensor(order)], surface.y[torch.as_tensor(order)])
        )
        self.n = len(self.X)
        theta = parameters(surface, at)
        if dtype not in (None, "float64", "float32"):
            raise ParameterError(f"dtype={dtype!r}: choose one of float64, float32.")
        self.kind = getattr(torch, dtype or str(theta.dtype))
        self.theta = torch.as_tensor(theta).to(self.kind)
        statistics = "running" if surface.batch_norm == "eval" else "batch"
        self.module = stacked.with_statistics(surface.module, "running").eval()
        self.module = stacked.with_statistics(self.module, statistics).to(self.kind)
        normalised = any(
            isinstance(m, nn.modules.batchnorm._BatchNorm) for m in self.module.modules()
        )
        self.joint = normalised and statistics == "batch"  # examples share statistics
        self.graphs: dict[tuple[int, int], tuple] = {}
        self.products = 0  # Hessian-vector products so far, of all examples

    @property
    def dim(self) -> int:
        """How many parameters there are."""
        return self.layout.size

    def array(self, vector: torch.Tensor) -> np.ndarray:
        """As float64."""
        return vector.detach().cpu().double().numpy()

    def tensor(self, vector: Any) -> torch.Tensor:
        """In this precision."""
        return torch.as_tensor(np.ascontiguousarray(vector)).to(self.kind)

    def parts(self, begin: int = 0, end: int | None = None) -> Iterator[slice]:
        """Examples ``begin`` to ``end``, so many at once as fit one graph."""
        end = self.n if end is None else end
        size = end - begin if self.joint else AT_ONCE
        for low in range(begin, end, max(size, 1)):
            yield slice(low, min(end, low + size))

    def examples(self, part: slice) -> tuple[torch.Tensor, torch.Tensor]:
        """Some examples and targets in this precision."""
        X, y = self.X[part], self.y[part]
        return X.to(self.kind) if X.is_floating_point() else X, self.surface.target(y, self.kind)

    def losses(self, theta: torch.Tensor, X: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Each example's loss, without the penalty."""
        return self._losses(self._split(theta), X, y)

    def _losses(self, pieces, X, y):
        named = dict(zip(self.layout.names, pieces, strict=True))
        return self.surface.loss(torch.func.functional_call(self.module, named, (X,)), y)

    def _split(self, rows):
        """Each parameter's piece of ``rows`` (..., dim), as a view of its own shape."""
        places = zip(self.layout.places, self.layout.shapes, strict=True)
        return [rows[..., a:b].view(*rows.shape[:-1], *shape) for (a, b), shape in places]

    def _leaves(self, theta):
        """A leaf for each parameter: gradients of views of one would be copied into zeros."""
        return [piece.detach().requires_grad_() for piece in self._split(theta)]

    def loss(self, theta: torch.Tensor | None = None) -> float:
        """Mean loss and penalty."""
        theta = self.theta if theta is None else theta
        with torch.no_grad():
            total = sum(
                float(self.losses(theta, *self.examples(part)).double().sum())
                for part in self.parts()
            )
        return total / self.n + 0.5 * self.surface.l2 * float(theta.double().square().sum())

    def gradient(self, theta: torch.Tensor | None = None) -> torch.Tensor:
        """Of the mean loss and penalty, (dim,)."""
        return self.value_and_gradient(theta)[1]

    def value_and_gradient(self, theta: torch.Tensor | None = None) -> tuple[float, torch.Tensor]:
        """Both, in one pass."""
        theta = self.theta if theta is None else theta
        total, slope = 0.0, torch.zeros_like(theta)
        for part in self.parts():
            leaves = self._leaves(theta)
            losses = self._losses(leaves, *self.examples(part))
            slope += joined(self._first(losses.sum(), leaves))
            total += float(losses.detach().double().sum())
        penalty = self.surface.l2
        value = total / self.n + 0.5 * penalty * float(theta.double().square().sum())
        return value, slope / self.n + penalty * theta

    def _first(self, total, leaves, create_graph=False):
        options = {"create_graph": create_graph, "materialize_grads": True}
        return torch.autograd.grad(total, leaves, **options)

    def weighted_gradient(
        self, weights: np.ndarray, begin: int = 0, end: int | None = None
    ) -> torch.Tensor:
        """``sum_i weights_i grad(loss_i + penalty)`` over examples ``begin`` to ``end``."""
        end = self.n if end is None else end
        weights = self.tensor(weights)
        slope = self.surface.l2 * weights.sum() * self.theta
        for part in self.parts(begin, end):
            leaves = self._leaves(self.theta)
            own = weights[part.start - begin : part.stop - begin]
            losses = self._losses(leaves, *self.examples(part))
            slope = slope + joined(self._first((losses * own).sum(), leaves))
        return slope

    def example_gradients(self, part: slice) -> torch.Tensor:
        """Each example's gradient, penalty included, (examples, dim).

        Raises UnsoundError where batch normalisation makes examples depend on each other.
        """
        if self.joint:
            raise UnsoundError(
                "the gradient of one example does not exist here: batch normalisation with the "
                f"batch's statistics (batch_norm={self.surface.batch_norm!r}) makes examples "
                "depend on each other. Use batch_norm='eval', or measure mini-batches: "
                "gradient_noise_scale(method='batches')."
            )
        X, y = self.examples(part)

        def one(theta, x, t):
            return self.losses(theta, x[None], t[None]).sum()

        try:
            own = torch.func.vmap(torch.func.grad(one), in_dims=(None, 0, 0))(self.theta, X, y)
        except Exception:  # a module that vmap refuses, with whatever error of its own
            own = torch.stack([self._alone(x, t) for x, t in zip(X, y, strict=True)])
        return own.detach() + self.surface.l2 * self.theta

    def _alone(self, x, t):
        leaves = self._leaves(self.theta)
        return joined(self._first(self._losses(leaves, x[None], t[None]).sum(), leaves))

    def batches_of_gradients(self, size: int | None = None) -> Iterator[tuple[slice, torch.Tensor]]:
        """`example_gradients` of all examples, so many at once as fit 256 MB."""
        size = size or max(1, min(AT_ONCE, 2**28 // (8 * self.dim)))
        for low in range(0, self.n, size):
            part = slice(low, min(self.n, low + size))
            yield part, self.example_gradients(part)

    def product(self, vectors: Any, begin: int = 0, end: int | None = None) -> torch.Tensor:
        """The Hessian times ``vectors`` (dim,) or (dim, k), exact, by differentiating twice.

        With ``begin`` and ``end``, the Hessian of the mean loss of these examples. The first
        derivative's graph is kept from call to call while all examples fit.
        """
        end = self.n if end is None else end
        V = vectors if isinstance(vectors, torch.Tensor) else self.tensor(vectors)
        rows = V[:, None].T if V.ndim == 1 else V.T.contiguous()
        out = None
        for part in self.parts(begin, end):
            more = self._second(*self._slope(part), rows)
            out = more if out is None else out.add_(more)
        self.products += len(rows) if (begin, end) == (0, self.n) else 0
        out = out.div_(end - begin)
        if self.surface.l2:
            out.add_(rows, alpha=self.surface.l2)
        return out[0] if V.ndim == 1 else out.T

    def _slope(self, part):
        key = (part.start, part.stop)
        if key in self.graphs:
            return self.graphs[key]
        leaves = self._leaves(self.theta)
        slopes = self._first(self._losses(leaves, *self.examples(part)).sum(), leaves, True)
        if self.n <= KEPT:
            self.graphs[key] = (leaves, slopes)
        return leaves, slopes

    def _second(self, leaves, slopes, rows):
        curved = [k for k, slope in enumerate(slopes) if slope.requires_grad]
        if not curved:  # the loss is linear in the parameters
            return torch.zeros_like(rows)
        columns = min(COLUMNS, max(1, TOGETHER // self.dim))
        if len(rows) > 1 and columns > 1:
            try:
                parts = rows.split(columns)
                return torch.cat([self._again(leaves, slopes, curved, some) for some in parts])
            except RuntimeError:  # an operation that vmap refuses
                pass
        found = [self._again(leaves, slopes, curved, row) for row in rows]
        return found[0][None] if len(found) == 1 else torch.stack(found)

    def _again(self, leaves, slopes, curved, given):
        weights = self._split(given)
        found = torch.autograd.grad(
            [slopes[k] for k in curved], leaves, [weights[k] for k in curved], retain_graph=True,
            is_grads_batched=given.ndim > 1, materialize_grads=True,
        )  # fmt: skip
        return joined(found, given.ndim - 1)

    def finite_difference(self, vector: Any, step: float | None = None) -> torch.Tensor:
        """``[grad L(theta + d v) - grad L(theta - d v)]/(2 d)``, for v (dim,).

        ``step`` is the length ``d |v|``; by default ``eps**(1/3) (1 + |theta|)``, which balances
        rounding against the third derivative.
        """
        v = vector if isinstance(vector, torch.Tensor) else self.tensor(vector)
        length = float(v.norm())
        if length == 0:
            return torch.zeros_like(v)
        eps = torch.finfo(self.kind).eps
        step = eps ** (1 / 3) * (1 + float(self.theta.norm())) if step is None else float(step)
        d = step / length
        above, below = (self.gradient(self.theta + s * d * v) for s in (1, -1))
        self.products += 1
        return (above - below) / (2 * d)

    def hessian(self) -> np.ndarray:
        """The whole matrix (dim, dim), float64, symmetrised."""
        H = self.array(self.product(torch.eye(self.dim, dtype=self.kind)))
        return (H + H.T) / 2


def parameters(surface: Any, at: Any) -> np.ndarray:
    """What ``at`` means: parameters (dim,), a module, or None for the surface's own module."""
    if at is None or isinstance(at, nn.Module):
        theta = surface.flat(at) if at is None or surface.is_kind(at) else np.empty(0)
    else:
        given = at.detach().cpu().numpy() if isinstance(at, torch.Tensor) else np.asarray(at)
        theta = given.astype(np.float64) if given.dtype.kind in "iu" else given
    if theta.shape != (surface.dim,) or theta.dtype.kind != "f" or not np.isfinite(theta).all():
        raise ParameterError(
            f"at: shape {theta.shape} of {theta.dtype} given; needed: {surface.dim} finite numbers,"
            " (dim,), a module of the surface's kind, or None for its own module. Of a result, "
            "take result.positions[replica]."
        )
    return theta.astype(np.float64) if theta.dtype.itemsize not in (4, 8) else theta


def joined(pieces: Any, batch: int = 0) -> torch.Tensor:
    """Pieces of the parameters' shapes, after ``batch`` dimensions of copies, as one (..., dim)."""
    return torch.cat([piece.flatten(batch) for piece in pieces], dim=batch)


def blocks(n: int, at_most: int) -> list[tuple[int, int]]:
    """``n`` examples in that many, or fewer, stretches of nearly equal size."""
    edges = np.linspace(0, n, min(n, at_most) + 1).round().astype(int)
    return list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))


Product = Callable[[np.ndarray], np.ndarray]
